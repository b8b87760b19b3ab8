"""Winograd's convolutions of the `c` backend (Lavin & Gray 2016, arXiv:1509.09308): where they apply, what they cost.

F(4x4, 3x3) multiplies 4 times less than the definition, F(2x2, 3x3) 2.25 times less; both pay with transforms, and with
errors that are less local. The kernels are kernels/winograd*.h. Measured in float32 against float64, on four 16x16
images of standard normal numbers and kernels of variance 1/9c, so that outputs have variance 1 (largest error, then
root mean square; of kernel gradients, relative to the root mean square of the gradient):

    channels   direct             F(2x2, 3x3)        F(4x4, 3x3)
          16   1.5e-06  2.0e-07   8.5e-07  1.5e-07   2.9e-06  4.4e-07
          64   4.1e-06  4.0e-07   1.5e-06  2.6e-07   6.1e-06  7.4e-07
         256   9.4e-06  8.0e-07   3.0e-06  4.8e-07   1.7e-05  1.4e-06
         512   1.4e-05  1.1e-06   4.5e-06  6.7e-07   2.5e-05  1.9e-06
    gradient of the kernel
          16   4.3e-06  5.6e-07   2.2e-06  4.9e-07   5.0e-06  8.0e-07
         512   5.8e-06  5.5e-07   5.0e-06  5.0e-07   8.4e-06  7.8e-07

F(2x2) is more exact than the definition, whose sums are 9 times as long; F(4x4) with the points 0, ±5/8, ±25/16, ∞ is
half as exact. (With the usual points 0, ±1, ±2, ∞ its errors are 2.3 times as large, the largest 4 times.) Unlike the
definition's, an error does not shrink with the pixels under the window: all pixels of a square share it, as
`error_growth` says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from minigraph.backends.c.algorithms import Algorithm
from minigraph.backends.geometry import Geometry

# The points at which polynomials are evaluated, besides ∞: `Filter` of winograd.h.
_POINTS = {2: (0.0, 1.0, -1.0), 4: (0.0, 5 / 8, -5 / 8, 25 / 16, -25 / 16)}

# Roundings of a result besides those of its sum over channels or squares: 8 for the image, 10 for the kernel, 8 for
# the output, at most.
ROUNDINGS = 26

# Measured on one core whose matrix product reaches 96 GFLOP/s in float32.
_VECTORS_PER_SECOND = 3.2e9  # multiplied and added
_POINT_SECONDS = 2.7e-9  # to transform a vector at one of the points of a square, with its loads and stores
_KERNEL_SECONDS = 1.2e-7  # to transform a vector of the kernel, one way or the other
_BYTES_PER_SECOND, _CACHE = 1.2e10, 8 << 20  # of a thread, when what it reads or writes does not stay in the caches
_START = 2e-6  # until all threads work


def _up(number: int, divisor: int) -> int:
    return -(-number // divisor)


@dataclass(frozen=True)
class _Machine:
    """What the C++ finds out for itself when it is compiled: the bytes of a register, and what fits the registers."""

    register: int
    group: int  # GROUP of winograd_forward.h
    rows: int  # ROWS of winograd_kernel_adjoint.h


# Times are estimated for the first; memory is asked for whichever needs the most.
_MACHINES = (_Machine(64, 8, 8), _Machine(32, 6, 4), _Machine(16, 8, 8))


@dataclass(frozen=True)
class _Sizes:
    """The sizes of a convolution: `squares` of `out`² pixels, of so many channels each, in so many lines."""

    out: int
    depth: int
    channels: int
    lines: int
    across: int
    itemsize: int
    machine: _Machine = _MACHINES[0]

    @classmethod
    def of(cls, out: int, transposed: bool, g: Geometry) -> _Sizes:
        """The transposed convolution is the forward one whose images have changed places."""
        source, target = (g.outputs, g.images) if transposed else (g.images, g.outputs)
        lines, across = target[0] * _up(target[1], out), _up(target[2], out)
        return cls(out, source[3], target[3], lines, across, g.itemsize)

    def most(self, count: Callable[[_Sizes], int]) -> int:
        """Return what is enough on any machine."""
        return max(count(replace(self, machine=m)) for m in _MACHINES)

    @property
    def squares(self) -> int:
        return self.lines * self.across

    @property
    def points(self) -> int:
        return (self.out + 2) ** 2

    @property
    def lanes(self) -> int:
        return self.machine.register // self.itemsize

    @property
    def panel(self) -> int:
        return 2 * self.lanes

    @property
    def panels(self) -> int:
        return _up(self.channels, self.panel)

    @property
    def vectors(self) -> tuple[int, int]:
        """Vectors of channels on both sides."""
        return _up(self.depth, self.lanes), _up(self.channels, self.lanes)


@dataclass(frozen=True)
class _Forward:
    """`Forward` of winograd_forward.h, with its kernel packed before or streamed."""

    sizes: _Sizes
    streamed: bool

    @property
    def packed(self) -> int:
        """Elements of the transformed kernel."""
        s = self.sizes
        return 0 if self.streamed else s.panels * s.points * (s.depth + 1) * s.panel

    @property
    def group_size(self) -> int:
        """Elements of a group of transformed squares."""
        s = self.sizes
        return s.vectors[0] * s.lanes * s.machine.group * s.points

    @property
    def chunk(self) -> int:
        """Groups of squares that are transformed at a time."""
        return min(16, max(4, (5 << 18) // self.group_size)) if self.streamed else 4

    @property
    def scratch(self) -> int:
        """Elements that a thread needs: the transformed squares, their products, and what is streamed of the kernel."""
        s = self.sizes
        products = s.points * s.machine.group * s.panel
        return self.chunk * (self.group_size + products) + self.streamed * s.points * 65 * s.panel

    def seconds(self, threads: int) -> float:
        """Estimated time: threads share squares or panels, whichever is better."""
        s = self.sizes
        by_squares = self._seconds(_up(s.lines, threads) * s.across, s.panels)
        by_panels = self._seconds(s.squares, _up(s.panels, threads))
        return min(by_squares, by_panels) + (threads > 1) * _START

    def _seconds(self, squares: int, panels: int) -> float:
        """One thread's part."""
        s = self.sizes
        squares = _up(squares, s.machine.group) * s.machine.group
        inputs, outputs = s.vectors[0], min(2 * panels, s.vectors[1])
        products = s.points * squares * s.depth * outputs / _VECTORS_PER_SECOND
        transforms = s.points * squares * (inputs + outputs) * _POINT_SECONDS
        if self.streamed:
            chunks = _up(squares, self.chunk * s.machine.group)
            return products + transforms + chunks * s.depth * outputs * _KERNEL_SECONDS
        read = self.packed * s.itemsize
        from_memory = read * panels / s.panels / _BYTES_PER_SECOND if read > _CACHE else 0.0
        return max(products, from_memory) + transforms

    def pack_seconds(self, threads: int) -> float:
        """Estimated time to transform the kernel, and to write it to memory."""
        s = self.sizes
        written = self.packed * s.itemsize
        to_memory = written / threads / _BYTES_PER_SECOND if written > _CACHE else 0.0
        return max(s.depth * 2 * _up(s.panels, threads) * _KERNEL_SECONDS, to_memory) + (threads > 1) * _START


@dataclass(frozen=True)
class _KernelAdjoint:
    """`KernelAdjoint` of winograd_kernel_adjoint.h."""

    sizes: _Sizes
    threads: int

    @property
    def by_channels(self) -> bool:
        s = self.sizes
        return s.depth * s.channels * self.threads >= 1 << 16 or s.squares < self.threads

    @property
    def count(self) -> int:
        """Squares of a thread."""
        return _up(self.sizes.squares, 1 if self.by_channels else self.threads)

    @property
    def vectors(self) -> int:
        """Vectors of input channels of a thread."""
        return _up(self.sizes.vectors[0], self.threads if self.by_channels else 1)

    @property
    def scratch(self) -> int:
        """Elements that a thread needs: the transformed squares of both sides, and their sums."""
        s, lanes, panel = self.sizes, self.sizes.lanes, self.sizes.panel
        rows = _up(min(self.vectors * lanes, 32), s.machine.rows) * s.machine.rows
        width = min(s.panels, 2) * panel
        blocks = _up(self.vectors * lanes, rows) * _up(s.channels, width)
        step = max(lanes, s.machine.rows)
        height = _up(self.vectors * lanes, step) * step
        chunk = min(self.count, max(24, (3 << 19) // (s.points * (height + width))) if self.by_channels else 24)
        if self.by_channels and chunk == self.count:
            blocks = 1
        return s.points * (chunk * (height + width) + 2 * panel + blocks * (rows * width + panel))

    @property
    def seconds(self) -> float:
        """Estimated time: products and transforms of a thread's squares and channels, and the taps of all sums."""
        s = self.sizes
        products = s.points * self.count * self.vectors * s.lanes * s.vectors[1] / _VECTORS_PER_SECOND
        transforms = s.points * self.count * (self.vectors + s.vectors[1]) * _POINT_SECONDS
        added = 1 if self.by_channels else self.threads
        taps = s.depth * s.vectors[1] / self.threads * added * _KERNEL_SECONDS
        return products + transforms + taps + (self.threads > 1) * _START


def _applies(g: Geometry) -> bool:
    w = g.window
    plain = w.size == (3, 3) and w.strides == (1, 1) and w.dilations == (1, 1) and g.groups == 1
    return plain and all(p <= 2 for pair in g.pads for p in pair)


def _forward(name: str, out: int, transposed: bool = False, streamed: bool = False) -> Algorithm:
    def plan(s: _Sizes) -> _Forward:
        return _Forward(s, streamed)

    def scratch(g: Geometry, threads: int) -> int:
        return threads * _Sizes.of(out, transposed, g).most(lambda s: plan(s).scratch) * g.itemsize

    return Algorithm(
        name, "winograd_forward.h", _applies,
        packed=lambda g: _Sizes.of(out, transposed, g).most(lambda s: plan(s).packed),
        scratch=scratch,
        seconds=lambda g, threads: plan(_Sizes.of(out, transposed, g)).seconds(threads),
        exact=False,
    )  # fmt: skip


def _kernel_adjoint(name: str, out: int) -> Algorithm:
    def scratch(g: Geometry, threads: int) -> int:
        return threads * _Sizes.of(out, False, g).most(lambda s: _KernelAdjoint(s, threads).scratch) * g.itemsize

    return Algorithm(
        name, "winograd_kernel_adjoint.h", _applies, packed=lambda g: 0, scratch=scratch,
        seconds=lambda g, threads: _KernelAdjoint(_Sizes.of(out, False, g), threads).seconds, exact=False,
    )  # fmt: skip


FORWARD = [
    _forward("winograd4", 4),
    _forward("winograd4_streamed", 4, streamed=True),
    _forward("winograd2", 2),
]
TRANSPOSE = [
    _forward("winograd4_transpose", 4, transposed=True),
    _forward("winograd4_streamed_transpose", 4, transposed=True, streamed=True),
    _forward("winograd2_transpose", 2, transposed=True),
]
KERNEL_ADJOINT = [_kernel_adjoint("winograd4_kernel_adjoint", 4), _kernel_adjoint("winograd2_kernel_adjoint", 2)]


_STORED = {a.name: (out, a in TRANSPOSE) for a in FORWARD + TRANSPOSE for out in (2, 4) if f"winograd{out}" in a.name}


def pack_seconds(algorithm: Algorithm, g: Geometry, threads: int) -> float:
    """Return the estimated time of an algorithm's `pack`, which a kernel that is not constant takes at every step.

    >>> from minigraph.ops.window import Window
    >>> g = Geometry(Window((3, 3), (1, 1), (1, 1), "same"), (32, 8, 8, 256), (32, 8, 8, 256), 1, 4)
    >>> [round(pack_seconds(a, g, threads=2) * 1e6) for a in FORWARD]
    [397, 0, 248]
    """
    if not algorithm.packed(g):
        return 0.0
    return _Forward(_Sizes.of(*_STORED[algorithm.name], g), streamed=False).pack_seconds(threads)


def error_growth(name: str) -> float:
    """Return how much larger the bound of an algorithm's rounding errors is than that of the convolution's definition.

    Per element, |error| ≤ error_growth·γₙ·Σ x̂|w|, where γₙ = nu/(1 − nu), u is half the distance from 1 to the next
    number, n = ROUNDINGS plus the number of channels that are summed over (of a kernel's gradient: of pixels), and the
    sum runs over the products of the definition, with x̂ in place of x: the largest |x| within IN − 1 = 5 pixels on
    both axes (of F(2x2): 3), in the padding as well, for a result depends on all pixels of its square.

    It is the square of the largest Σ |Aᵀ|ₛ |Gₛ| Σ|Bᵀₛ| over the points s, for one output and one tap: what one
    dimension makes of a kernel with a single 1 and of pixels ±1 at worst.

    >>> [round(error_growth(name)) for name in ("winograd2", "winograd4")]
    [16, 162]
    """
    points = np.array(_POINTS[2 if name.startswith("winograd2") else 4])
    total = np.zeros((len(points) - 1, 3))
    for i, point in enumerate(points):
        others = np.delete(points, i)
        kernel = point ** np.arange(3) / np.prod(point - others)
        total += np.abs(np.outer(point ** np.arange(len(total)), kernel)) * np.abs(np.poly(others)).sum()
    total[-1, -1] += np.abs(np.poly(points)).sum()  # the point ∞
    return float(total.max() ** 2)
