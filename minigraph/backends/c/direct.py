"""Convolutions without a transform: matrix products whose rows are pixels, and loops over channels for depthwise ones.

`FORWARD`, `TRANSPOSE` and `KERNEL_ADJOINT` list the algorithms of the three ops; together they take every geometry.
Sizes of memory are those that the C++ of `kernels/` counts for itself, for registers of up to 64 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from minigraph.backends.c.algorithms import Algorithm
from minigraph.backends.geometry import Geometry

_LINE = 64  # bytes of a line of the cache, and of the widest register
_BLOCK_PIXELS, _BLOCK_BYTES = 224, 320 * 1024


def _up(number: int, divisor: int) -> int:
    return -(-number // divisor)


@dataclass(frozen=True)
class _Axis:
    """One axis of a convolution, or of its adjoint: `size` positions of the result read `read` of the source."""

    size: int
    stride: int
    extent: int
    before: int
    source: int
    adjoint: bool

    @property
    def read(self) -> tuple[int, int]:
        if not self.adjoint:
            return -self.before, (self.size - 1) * self.stride - self.before + self.extent
        return (self.before - self.extent + 1) // self.stride, (self.size - 1 + self.before) // self.stride + 1

    @property
    def padded(self) -> bool:
        begin, end = self.read
        return begin < 0 or end > self.source


@dataclass(frozen=True)
class _Patch:
    """`Sides` and `Lay` of patch.h."""

    geometry: Geometry
    adjoint: bool

    def axis(self, axis: int) -> _Axis:
        g = self.geometry
        images, outputs = g.images[1 + axis], g.outputs[1 + axis]
        size, source = (images, outputs) if self.adjoint else (outputs, images)
        return _Axis(size, g.window.strides[axis], g.window.extent[axis], g.pads[axis][0], source, self.adjoint)

    @property
    def channels(self) -> int:
        """Channels of one group of the source."""
        g = self.geometry
        return (g.outputs if self.adjoint else g.images)[3] // g.groups

    @property
    def gap(self) -> int:
        step = 1 if self.adjoint else self.geometry.window.strides[1]
        size = self.geometry.itemsize
        return 0 if self.channels * step * size % 2048 else _LINE // size

    @property
    def copied(self) -> bool:
        return self.gap > 0 or self.axis(0).padded or self.axis(1).padded

    @property
    def line_bytes(self) -> int:
        g = self.geometry
        begin, end = self.axis(1).read
        if self.copied:
            return (end - begin) * (self.channels + self.gap) * g.itemsize
        return self.axis(1).source * self.channels * g.groups * g.itemsize

    def lines_copied(self, lines: int) -> int:
        axis, stride = self.axis(0), self.geometry.window.strides[0]
        images = min(self.geometry.images[0], (lines + axis.size - 2) // axis.size + 1)
        if self.adjoint:
            return (lines + images * (axis.extent - 1 + stride - 2)) // stride + images
        return lines * stride + images * max(0, axis.extent - stride)

    @property
    def block_lines(self) -> int:
        height, width = self.axis(0).size, self.axis(1).size
        lines = min(self.geometry.images[0] * height, max(1, _BLOCK_PIXELS // width))
        while lines > 1 and self.lines_copied(lines) * self.line_bytes > _BLOCK_BYTES:
            lines -= 1
        return lines // height * height if lines >= height else _up(height, _up(height, lines))

    @property
    def copy_bytes(self) -> int:
        return _up(self.lines_copied(self.block_lines) * self.line_bytes, _LINE) * _LINE if self.copied else 0


def gemm_scratch(threads: int) -> int:
    """Return the bytes that `gemm` of gemm.h needs as scratch memory."""
    return threads * 384 * 2 * _LINE


def _direct_scratch(adjoint: bool, g: Geometry, threads: int) -> int:
    patch = _Patch(g, adjoint)
    phases = g.window.strides[0] * g.window.strides[1] if adjoint else 1
    places = patch.block_lines * patch.axis(1).size + phases
    return threads * _up(phases * 256 + places * 16 + patch.copy_bytes, _LINE) * _LINE


def _direct_packed(adjoint: bool, g: Geometry) -> int:
    source, columns = (g.outputs[3], g.images[3]) if adjoint else (g.images[3], g.outputs[3])
    width = 2 * _LINE // g.itemsize
    taps = g.window.size[0] * g.window.size[1]
    return taps * source * _up(columns // g.groups, width) * width


def _kernel_adjoint_scratch(g: Geometry, threads: int) -> int:
    patch = _Patch(g, False)
    (n, height, width, outputs), size, number = g.outputs, g.itemsize, 2 * _LINE // g.itemsize
    lines = min(n * height, max(1, 1024 // width))
    lines = lines // height * height if lines >= height else _up(height, _up(height, lines))
    begin, end = patch.axis(1).read
    copied = (min(lines, height) - 1) * g.window.strides[0] + g.window.extent[0]
    copied *= max(1, lines // height) * (end - begin)
    channels, copy = patch.channels, 0
    if patch.copied:
        fit = _BLOCK_BYTES // (copied * size) // 16 * 16
        channels = min(channels, _up(_up(channels, _up(channels, max(16, fit))), 16) * 16)
        gap = 0 if channels * g.window.strides[1] * size % 2048 else _LINE // size
        copy = copied * (channels + gap)
    chunks = _up(patch.channels, channels)
    depth, columns = g.depth, outputs // g.groups
    panels = _up(columns, number)
    tiles = g.groups * chunks * _up(g.window.size[0] * g.window.size[1] * channels, 14) * panels
    small = depth * outputs * size <= 1 << 20 and n * height * width >= 256 * threads
    split = threads > 1 and n * height >= threads and (tiles < 4 * threads or small)
    sums = g.groups * panels * (depth + chunks) * number if split or lines < n * height else 0
    return threads * _up((copy + lines * width * number) * size, _LINE) * _LINE + sums * size * (threads if split else 1)


def _depthwise_scratch(adjoint: bool, g: Geometry, threads: int) -> int:
    return _direct_scratch(adjoint, replace(g, groups=1), threads)


def _depthwise_kernel_adjoint_scratch(g: Geometry, threads: int) -> int:
    sums = _up(g.window.size[0] * g.window.size[1] * g.images[3] * g.itemsize, _LINE) * _LINE
    return threads * sums + _depthwise_scratch(False, g, threads)


def _direct_seconds(g: Geometry, threads: int) -> float:
    return g.flops / 9e10 / threads


FORWARD = [
    Algorithm(
        "direct", "direct.h", lambda g: True, lambda g: _direct_packed(False, g),
        lambda g, threads: _direct_scratch(False, g, threads), _direct_seconds,
    ),
]  # fmt: skip
TRANSPOSE = [
    Algorithm(
        "direct_transpose", "direct.h", lambda g: True, lambda g: _direct_packed(True, g),
        lambda g, threads: _direct_scratch(True, g, threads), _direct_seconds,
    ),
]  # fmt: skip
KERNEL_ADJOINT = [
    Algorithm(
        "kernel_adjoint", "kernel_adjoint.h", lambda g: True, lambda g: 0, _kernel_adjoint_scratch, _direct_seconds
    ),
]
FORWARD.append(Algorithm("depthwise", "depthwise.h", lambda g: g.depthwise, lambda g: 0, lambda g, t: _depthwise_scratch(False, g, t), lambda g, t: 1e-9))
TRANSPOSE.append(Algorithm("depthwise_transpose", "depthwise.h", lambda g: g.depthwise, lambda g: 0, lambda g, t: _depthwise_scratch(True, g, t), lambda g, t: 1e-9))
KERNEL_ADJOINT.append(Algorithm("depthwise_kernel_adjoint", "depthwise.h", lambda g: g.depthwise, lambda g: 0, lambda g, t: _depthwise_kernel_adjoint_scratch(g, t), lambda g, t: 1e-9))
