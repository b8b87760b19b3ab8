"""Convolutions without a transform: matrix products whose rows are pixels, and loops over channels for depthwise ones.

`FORWARD`, `TRANSPOSE` and `KERNEL_ADJOINT` list the algorithms of the three ops; together they take every geometry.
Sizes of memory are those that the C++ of `kernels/` counts for itself, for registers of up to 64 bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from minigraph.backends.c.algorithms import Algorithm
from minigraph.backends.geometry import Geometry

_LINE = 64  # bytes of a line of the cache, and of the widest register
_BLOCK_PIXELS, _SUM_PIXELS, _BLOCK_BYTES = 224, 1024, 320 * 1024
_TILE_ROWS = 14

# What one thread does in a second: operations of a tile's inner loop in float32, bytes from and to memory.
_FLOPS, _BYTES = 9e10, 1.2e10


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def gemm_scratch(threads: int) -> int:
    """Return the bytes of scratch memory that `gemm` of gemm.h needs.

    >>> gemm_scratch(2)
    98304
    """
    return threads * 384 * 2 * _LINE


@dataclass(frozen=True)
class _Axis:
    """One axis of a convolution or of its adjoint: how much of the source its `size` positions read."""

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
    """What patch.h says of a convolution or its adjoint: how its source is copied, and in which blocks."""

    geometry: Geometry
    adjoint: bool

    def axis(self, axis: int) -> _Axis:
        g = self.geometry
        images, outputs = g.images[1 + axis], g.outputs[1 + axis]
        size, source = (images, outputs) if self.adjoint else (outputs, images)
        return _Axis(size, g.window.strides[axis], g.window.extent[axis], g.pads[axis][0], source, self.adjoint)

    @property
    def channels(self) -> int:
        """Of one group of the source."""
        return (self.geometry.outputs if self.adjoint else self.geometry.images)[3] // self.geometry.groups

    @property
    def columns(self) -> int:
        """Channels of one group of the result."""
        return (self.geometry.images if self.adjoint else self.geometry.outputs)[3] // self.geometry.groups

    @property
    def lines(self) -> int:
        """Of the result, in all images."""
        return self.geometry.images[0] * self.axis(0).size

    def pixel(self, channels: int) -> int:
        """Elements from one copied pixel to the next."""
        step, size = 1 if self.adjoint else self.geometry.window.strides[1], self.geometry.itemsize
        return channels if channels * step * size % 2048 else channels + _LINE // size

    @property
    def copied(self) -> bool:
        return self.pixel(self.channels) > self.channels or self.axis(0).padded or self.axis(1).padded

    @property
    def width(self) -> int:
        begin, end = self.axis(1).read
        return end - begin

    @property
    def line_bytes(self) -> int:
        g = self.geometry
        if self.copied:
            return self.width * self.pixel(self.channels) * g.itemsize
        return self.axis(1).source * self.channels * g.groups * g.itemsize

    def lines_copied(self, lines: int) -> int:
        axis = self.axis(0)
        images = min(self.geometry.images[0], (lines + axis.size - 2) // axis.size + 1)
        if self.adjoint:
            return (lines + images * (axis.extent + axis.stride - 3)) // axis.stride + images
        return lines * axis.stride + images * max(0, axis.extent - axis.stride)

    def whole(self, lines: int) -> int:
        """Lines of a block that is whole images, or parts of one image of about the same size."""
        height = self.axis(0).size
        return lines // height * height if lines >= height else -(-height // -(-height // lines))

    @property
    def block_lines(self) -> int:
        lines = min(self.lines, max(1, _BLOCK_PIXELS // self.axis(1).size))
        while lines > 1 and self.lines_copied(lines) * self.line_bytes > _BLOCK_BYTES:
            lines -= 1
        return self.whole(lines)

    @property
    def scratch(self) -> int:
        """Bytes of one thread: the copy, and two words for each pixel that is listed."""
        strides = self.geometry.window.strides
        phases = math.prod(strides) if self.adjoint else 1
        places = self.block_lines * self.axis(1).size
        copied = self.lines_copied(self.block_lines) * self.line_bytes if self.copied else 0
        return _up(phases * 256 + places * 16 + _up(copied, _LINE), _LINE)

    @property
    def panel(self) -> int:
        """Columns of a tile: two of the widest registers."""
        return 2 * _LINE // self.geometry.itemsize

    @property
    def panels(self) -> int:
        """Panels of one group."""
        return -(-self.columns // self.panel)


@dataclass(frozen=True)
class _Sums:
    """What kernel_adjoint.h says of a kernel's gradient: its blocks of pixels, chunks of channels, and sums."""

    patch: _Patch

    @property
    def lines(self) -> int:
        return self.patch.whole(min(self.patch.lines, max(1, _SUM_PIXELS // self.patch.axis(1).size)))

    @property
    def copied(self) -> int:
        """Pixels of the images that a block reads."""
        axis = self.patch.axis(0)
        lines = (min(self.lines, axis.size) - 1) * axis.stride + axis.extent
        return lines * max(1, self.lines // axis.size) * self.patch.width

    @property
    def channels(self) -> int:
        """Of a chunk."""
        channels = self.patch.channels
        if not self.patch.copied:
            return channels
        fit = _BLOCK_BYTES // (self.copied * self.patch.geometry.itemsize) // 16 * 16
        chunks = -(-channels // max(16, fit))
        return min(channels, _up(-(-channels // chunks), 16))

    def shares_pixels(self, threads: int) -> bool:
        """Tell whether each thread may have sums of its own; with wider registers there are fewer tiles."""
        g, patch = self.patch.geometry, self.patch
        tiles = -(-math.prod(g.window.size) * self.channels // _TILE_ROWS) * -(-patch.channels // self.channels)
        small = g.depth * g.outputs[3] * g.itemsize <= 1 << 20 and math.prod(g.outputs[:3]) >= 256 * threads
        return 1 < threads <= patch.lines and (g.groups * patch.panels * tiles < 4 * threads or small)

    def scratch(self, threads: int) -> int:
        """Bytes of all threads."""
        g, patch = self.patch.geometry, self.patch
        copy = self.copied * patch.pixel(self.channels) if patch.copied else 0
        own = _up((copy + self.lines * patch.axis(1).size * patch.panel) * g.itemsize, _LINE)
        rows = g.groups * patch.panels * (g.depth + -(-patch.channels // self.channels))
        sums = rows * patch.panel * g.itemsize
        if self.shares_pixels(threads):
            return threads * (own + sums)
        return threads * own + (sums if self.lines < patch.lines else 0)


def _moved(g: Geometry) -> int:
    """Bytes of images, outputs and kernel."""
    return (math.prod(g.images) + math.prod(g.outputs) + g.depth * g.outputs[3]) * g.itemsize


def _busiest(rows: int, panels: int, threads: int) -> float:
    """Return the part of the work that the busiest thread has: tile.h shares rows times panels."""
    ways = [across for across in range(1, threads + 1) if threads % across == 0]
    return min(-(-rows // (threads // a)) * -(-panels // a) for a in ways) / (rows * panels)


def _product_seconds(g: Geometry, columns: int, steps: int, part: float) -> float:
    """Estimate tiles that add up `steps` products each: registers are used whole, and to put a tile takes time, too."""
    full = _up(columns, _LINE // g.itemsize) / columns
    flops = g.flops * full * (steps + 5) / steps * g.itemsize / 4
    return (flops / _FLOPS + _moved(g) / _BYTES / 2) * part


def _direct_seconds(g: Geometry, threads: int, adjoint: bool) -> float:
    patch = _Patch(g, adjoint)
    part = _busiest(patch.lines, patch.panels * g.groups, threads)
    return _product_seconds(g, patch.columns, math.prod(g.window.size) * patch.channels, part)


def _sums_seconds(g: Geometry, threads: int) -> float:
    patch, pixels = _Patch(g, False), math.prod(g.outputs[:3])
    part = _busiest(-(-g.depth // _TILE_ROWS) * g.groups, patch.panels, threads)
    if _Sums(patch).shares_pixels(threads):
        part = _busiest(patch.lines, 1, threads)
    return _product_seconds(g, patch.columns, pixels, part)


def _depthwise_seconds(g: Geometry, threads: int) -> float:
    # Each product takes a load of its own.
    part = _busiest(_Patch(g, False).lines, 1, threads)
    return (1.5 * g.flops * g.itemsize / 4 / _FLOPS + _moved(g) / _BYTES / 2) * part


def _always(g: Geometry) -> bool:
    return True


def _direct(name: str, adjoint: bool) -> Algorithm:
    def packed(g: Geometry) -> int:
        patch = _Patch(g, adjoint)
        return g.groups * math.prod(g.window.size) * patch.channels * patch.panels * patch.panel

    def scratch(g: Geometry, threads: int) -> int:
        return threads * _Patch(g, adjoint).scratch

    def seconds(g: Geometry, threads: int) -> float:
        return _direct_seconds(g, threads, adjoint)

    return Algorithm(name, "direct.h", _always, packed, scratch, seconds)


def _depthwise(name: str, adjoint: bool) -> Algorithm:
    def scratch(g: Geometry, threads: int) -> int:
        return threads * _Patch(replace(g, groups=1), adjoint).scratch

    return Algorithm(name, "depthwise.h", _is_depthwise, _not_packed, scratch, _depthwise_seconds)


def _is_depthwise(g: Geometry) -> bool:
    return g.depthwise


def _not_packed(g: Geometry) -> int:
    return 0


def _sums_scratch(g: Geometry, threads: int) -> int:
    return _Sums(_Patch(g, False)).scratch(threads)


def _depthwise_sums_scratch(g: Geometry, threads: int) -> int:
    sums = math.prod(g.window.size) * g.images[3] * g.itemsize
    return threads * (_up(sums, _LINE) + _Patch(replace(g, groups=1), False).scratch)


FORWARD = [_direct("direct", False), _depthwise("depthwise", False)]
TRANSPOSE = [_direct("direct_transpose", True), _depthwise("depthwise_transpose", True)]
KERNEL_ADJOINT = [
    Algorithm("kernel_adjoint", "kernel_adjoint.h", _always, _not_packed, _sums_scratch, _sums_seconds),
    Algorithm(
        "depthwise_kernel_adjoint",
        "depthwise.h",
        _is_depthwise,
        _not_packed,
        _depthwise_sums_scratch,
        _depthwise_seconds,
    ),
]
