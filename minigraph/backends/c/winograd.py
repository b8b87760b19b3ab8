"""Winograd's convolutions of the `c` backend (Lavin & Gray 2016, arXiv:1509.09308): where they apply, what they cost.

F(4x4, 3x3) multiplies 4 times less than the definition, F(2x2, 3x3) 2.25 times less; both pay with transforms and with
larger rounding errors. The kernels are kernels/winograd*.h.
"""

from __future__ import annotations

from dataclasses import dataclass

from minigraph.backends.c.algorithms import Algorithm
from minigraph.backends.geometry import Geometry

# What winograd_forward.h does at a time. Registers and groups of squares are never larger than this; memory is asked
# for as if they were.
_REGISTER, _GROUP = 64, 8
_CHUNK, _STREAMED_CHUNK, _STREAMED_ELEMENTS, _STREAMED_DEPTH = 4, 16, 5 << 18, 64

# Measured on one core whose matrix product reaches 96 GFLOP/s in float32.
_VECTORS_PER_SECOND = 3.2e9  # multiplied and added
_POINT_SECONDS = 2.7e-9  # to transform a vector at one of the points of a square, with its loads and stores
_KERNEL_SECONDS = 1.1e-7  # to transform a vector of the kernel
_BYTES_PER_SECOND, _CACHE = 1e10, 8 << 20  # from memory, when what is read does not stay in the caches
_START = 2e-6  # until all threads work


def _up(number: int, divisor: int) -> int:
    return -(-number // divisor)


@dataclass(frozen=True)
class _Plan:
    """The sizes of a convolution of squares of `out`² pixels, forward or transposed, as `Forward` of the C++ has them."""

    out: int
    images: int
    height: int
    width: int
    depth: int
    channels: int
    itemsize: int

    @classmethod
    def of(cls, out: int, transposed: bool, g: Geometry) -> _Plan:
        source, target = (g.outputs, g.images) if transposed else (g.images, g.outputs)
        return cls(out, *target[:3], source[3], target[3], g.itemsize)

    @property
    def points(self) -> int:
        return (self.out + 2) ** 2

    @property
    def lanes(self) -> int:
        return _REGISTER // self.itemsize

    @property
    def panels(self) -> int:
        return _up(self.channels, 2 * self.lanes)

    @property
    def packed(self) -> int:
        """Elements of the transformed kernel."""
        return self.panels * self.points * (self.depth + 1) * 2 * self.lanes

    @property
    def group_size(self) -> int:
        """Elements of a group of transformed squares."""
        return _up(self.depth, self.lanes) * self.lanes * _GROUP * self.points

    def scratch(self, threads: int, streamed: bool) -> int:
        """Bytes of the transformed squares, of their products, and of what is streamed of the kernel."""
        groups, panel = _STREAMED_CHUNK if streamed else _CHUNK, 2 * self.lanes * self.points
        elements = max(_CHUNK * self.group_size, min(groups * self.group_size, _STREAMED_ELEMENTS))
        elements += groups * _GROUP * panel + streamed * (_STREAMED_DEPTH + 1) * panel
        return threads * elements * self.itemsize

    def seconds(self, threads: int, streamed: bool) -> float:
        """Estimated time: threads share squares or panels, whichever is better."""
        lines, across = self.images * _up(self.height, self.out), _up(self.width, self.out)
        by_squares = self._seconds(_up(lines, threads) * across, self.panels, streamed)
        by_panels = self._seconds(lines * across, _up(self.panels, threads), streamed)
        return min(by_squares, by_panels) + (threads > 1) * _START

    def _seconds(self, squares: int, panels: int, streamed: bool) -> float:
        """One thread's part."""
        squares = _up(squares, _GROUP) * _GROUP
        vectors = min(2 * panels, _up(self.channels, self.lanes))
        products = self.points * squares * self.depth * vectors / _VECTORS_PER_SECOND
        transforms = self.points * squares * (_up(self.depth, self.lanes) + vectors) * _POINT_SECONDS
        if streamed:
            chunk = min(_STREAMED_CHUNK, max(_CHUNK, _STREAMED_ELEMENTS // self.group_size)) * _GROUP
            return products + transforms + _up(squares, chunk) * self.depth * vectors * _KERNEL_SECONDS
        read = self.packed * self.itemsize
        from_memory = read * panels / self.panels / _BYTES_PER_SECOND if read > _CACHE else 0.0
        return max(products, from_memory) + transforms

    def pack_seconds(self, threads: int) -> float:
        """Estimated time to transform the kernel, and to write it to memory."""
        written = self.packed * self.itemsize
        vectors = self.depth * 2 * _up(self.panels, threads)
        return vectors * _KERNEL_SECONDS + (written / _BYTES_PER_SECOND if written > _CACHE else 0.0)


def _applies(g: Geometry) -> bool:
    w = g.window
    plain = w.size == (3, 3) and w.strides == (1, 1) and w.dilations == (1, 1) and g.groups == 1
    return plain and all(p <= 2 for pair in g.pads for p in pair)


def _stored(name: str, out: int, transposed: bool) -> Algorithm:
    return Algorithm(
        name, "winograd_forward.h", _applies,
        lambda g: _Plan.of(out, transposed, g).packed,
        lambda g, threads: _Plan.of(out, transposed, g).scratch(threads, False),
        lambda g, threads: _Plan.of(out, transposed, g).seconds(threads, False),
        exact=False,
    )  # fmt: skip


def _streamed(name: str, out: int, transposed: bool) -> Algorithm:
    return Algorithm(
        name, "winograd_forward.h", _applies, lambda g: 0,
        lambda g, threads: _Plan.of(out, transposed, g).scratch(threads, True),
        lambda g, threads: _Plan.of(out, transposed, g).seconds(threads, True),
        exact=False,
    )  # fmt: skip


FORWARD = [
    _stored("winograd4", 4, False), _streamed("winograd4_streamed", 4, False), _stored("winograd2", 2, False),
]  # fmt: skip
TRANSPOSE = [
    _stored("winograd4_transpose", 4, True), _streamed("winograd4_streamed_transpose", 4, True),
    _stored("winograd2_transpose", 2, True),
]  # fmt: skip
KERNEL_ADJOINT: list[Algorithm] = []


def pack_seconds(name: str, g: Geometry, threads: int) -> float:
    """Return the estimated time of `name::pack`, which a kernel that is not constant takes at every step."""
    if "streamed" in name or "adjoint" in name:
        return 0.0
    return _Plan.of(4 if "winograd4" in name else 2, name.endswith("transpose"), g).pack_seconds(threads)
