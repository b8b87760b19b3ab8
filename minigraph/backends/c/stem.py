"""Convolutions of images of one channel by 3×3 kernels: kernels/stem.h, and its gradient with respect to the kernel."""

from __future__ import annotations

from minigraph.backends.c.algorithms import Algorithm
from minigraph.backends.geometry import Geometry

_LINES = 8  # LINES of stem.h
# Elements of the result, each a sum of nine products, that a thread computes in a second.
_ELEMENTS_PER_SECOND = 5e9


def _applies(g: Geometry) -> bool:
    """Tell whether the geometry is one image channel, 3×3, stride 1, and whole vectors of any machine's registers."""
    plain = g.window.size == (3, 3) and g.window.strides == (1, 1) == g.window.dilations
    return plain and g.images[3] == 1 == g.groups and g.outputs[3] % (64 // g.itemsize) == 0


def _seconds(g: Geometry, threads: int) -> float:
    elements = g.flops / 18 * g.itemsize / 4
    return elements / _ELEMENTS_PER_SECOND / threads


def _scratch(g: Geometry, threads: int) -> int:
    return threads * 3 * (g.outputs[2] + 2) * g.itemsize


def _kernel_adjoint_scratch(g: Geometry, threads: int) -> int:
    return threads * (9 * g.outputs[3] * 8 + _LINES * 3 * (g.outputs[2] + 2) * g.itemsize)


FORWARD = [Algorithm("stem", "stem.h", _applies, lambda g: 0, _scratch, _seconds)]
KERNEL_ADJOINT = [Algorithm("stem_kernel_adjoint", "stem.h", _applies, lambda g: 0, _kernel_adjoint_scratch, _seconds)]
