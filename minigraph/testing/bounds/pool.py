"""Bounds of max pooling and its adjoints: which element of a window is the largest may be a matter of rounding."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from minigraph.backends.numpy.window import Tap, pixels, taps
from minigraph.ops import pool
from minigraph.testing.bounds.bounded import Array, Bounded, Call, bound


class _Windows:
    """The windows of one pooling over N,H,W,C images: at each tap, which windows' elements can be the largest."""

    def __init__(self, call: Call, x: Bounded, windows: tuple[int, ...]) -> None:
        self.x = x
        self.shape = windows
        self.taps = taps(call.op.window, x.value.shape[1:3], (windows[1], windows[2]))
        self.least = np.full(windows, -np.inf)  # the least that the largest element can be
        for tap in self.taps:
            target = pixels(self.least, tap.outside)
            np.maximum(target, pixels(x.low, tap.inside), out=target)

    def candidates(self) -> Iterator[tuple[Tap, Array]]:
        """Yield each tap, and in which of its windows its element can be the largest."""
        for tap in self.taps:
            yield tap, pixels(self.x.high, tap.inside) >= pixels(self.least, tap.outside)

    def largest(self, array: Array, start: float = 0.0) -> Array:
        """Return, for each window, the largest element of another array among the places of candidates."""
        result = np.full(self.shape, start)
        for tap, candidate in self.candidates():
            target = pixels(result, tap.outside)
            np.maximum(target, pixels(array, tap.inside), out=target, where=candidate)
        return result

    def ambiguous(self) -> Array:
        """Return which windows have several candidates that are not all exact; of exact ones the first wins."""
        number, inexact = np.zeros(self.shape, int), self.largest(self._error) > 0
        for tap, candidate in self.candidates():
            pixels(number, tap.outside)[...] += candidate
        return (number > 1) & inexact

    def lost(self) -> Array:
        """Return which windows may hold NaN: then nothing is the largest."""
        return np.isinf(self.largest(self._error))

    @property
    def _error(self) -> Array:
        return np.where(np.isnan(self.x.value), np.inf, self.x.error)


@bound(pool.MaxPool2D)
def _max_pool(call: Call) -> Any:
    """The largest error among the elements that can be the largest."""
    x = call.operands[0]
    return _Windows(call, x, call.value.shape).largest(x.error) if x.inexact else 0.0


@bound(pool.MaxPool2DSelect)
def _select(call: Call) -> Any:
    """The largest error among the candidates; where there are several, how far apart they can be."""
    x, y = call.operands
    if not (x.inexact or y.inexact):
        return 0.0
    windows = _Windows(call, x, call.value.shape)
    apart = windows.largest(y.high, -np.inf) + windows.largest(-y.low, -np.inf)
    one = windows.largest(y.error)
    return np.where(windows.lost(), np.inf, np.where(windows.ambiguous(), apart, one))


@bound(pool.MaxPool2DAdjoint)
def _adjoint(call: Call) -> Any:
    """Each candidate's share: Eg if it is the only one, |g| if another may get it; and the roundings of their sums."""
    x, g = call.operands
    windows = _Windows(call, x, g.value.shape)
    share = np.where(windows.ambiguous(), g.reach, g.error)
    error, size = np.zeros(x.value.shape), np.zeros(x.value.shape)
    for tap, candidate in windows.candidates():
        for target, source in ((error, share), (size, g.reach)):
            part = pixels(target, tap.inside)
            np.add(part, pixels(source, tap.outside), out=part, where=candidate)
    return error + call.rounding(size, _overlap(call.op) - 1)


def _overlap(op: pool.Pool) -> int:
    """Return in how many windows an element lies at most."""
    each = zip(op.size, op.strides, op.dilations, strict=True)
    return math.prod(-(-size // stride) if dilation == 1 else size for size, stride, dilation in each)
