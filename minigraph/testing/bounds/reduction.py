"""Bounds of reductions over axes: sums, means, extremes, and the logarithm of a sum of exponentials."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minigraph.ops import reduction
from minigraph.testing.bounds.bounded import Bounded, Call, bound


def folded(call: Call, axes: tuple[int, ...]) -> int:
    """Return how many elements of the first operand are folded into one."""
    return math.prod(call.operands[0].value.shape[a] for a in axes)


def _over(call: Call, array: Any, fold: Any = np.add) -> Any:
    """Return an array folded over the op's axes, shaped like the result."""
    return fold.reduce(array, axis=call.op.axes, keepdims=call.op.keepdims)


@bound(reduction.Sum)
def _sum(call: Call) -> Any:
    """Σ Ex, and n − 1 roundings of Σ |x|."""
    x = call.operands[0]
    return _over(call, x.error) + call.rounding(_over(call, x.reach), max(folded(call, call.op.axes) - 1, 0))


@bound(reduction.Mean)
def _mean(call: Call) -> Any:
    """Σ Ex / n, and n + 2 roundings of Σ |x| / n: n itself, or 1/n, may be rounded before it is used."""
    x, number = call.operands[0], folded(call, call.op.axes)
    return mean_error(call, _over(call, x.error), _over(call, x.reach), number)


def mean_error(call: Call, errors: Any, sizes: Any, number: int) -> Any:
    """Return the error of a mean from the sums of its terms' errors and magnitudes."""
    if not number:
        return np.inf
    rounding = np.where(np.isfinite(call.rounding(sizes, 1)), call.rounding(sizes / number, number + 2), np.inf)
    return errors / number + rounding


@bound(reduction.Max)
def _max(call: Call) -> Any:
    """The largest error among the elements that can be the largest."""
    x = call.operands[0]
    return _of_candidates(call, x, x.high >= np.maximum.reduce(x.low, axis=call.op.axes, keepdims=True))


@bound(reduction.Min)
def _min(call: Call) -> Any:
    """The largest error among the elements that can be the smallest."""
    x = call.operands[0]
    return _of_candidates(call, x, x.low <= np.minimum.reduce(x.high, axis=call.op.axes, keepdims=True))


def _of_candidates(call: Call, x: Bounded, candidates: Any) -> Any:
    return _over(call, np.where(candidates, x.error, 0.0), np.maximum) if x.inexact else 0.0


@bound(reduction.ArgMax)
def _argmax(call: Call) -> Any:
    """The distance to the furthest element that can be the largest; 0 if they are all exact: the first one wins."""
    x, axis = call.operands[0], call.op.axis % call.operands[0].value.ndim
    if not x.inexact:
        return 0.0
    candidates = x.high >= x.low.max(axis=axis, keepdims=True)
    unsure = (candidates & (x.error > 0)).any(axis=axis)
    places = np.arange(x.value.shape[axis]).reshape([-1 if i == axis else 1 for i in range(x.value.ndim)])
    distance = np.abs(places - np.expand_dims(call.value, axis))
    return np.where(unsure, np.where(candidates, distance, 0).max(axis=axis), 0.0)


@bound(reduction.LogSumExp)
def _logsumexp(call: Call) -> Any:
    """The largest error among the elements, as ln Σ eˣ never grows faster than max x; and its own roundings."""
    x = call.operands[0]
    operand = _over(call, x.error, np.maximum) if x.value.size else 0.0
    return (
        operand
        + log_of_sum_rounding(call, folded(call, call.op.axes))
        + call.rounding(np.abs(call.value) + 2.0 * operand, 2)
    )


def log_of_sum_rounding(call: Call, number: int) -> Any:
    """Return the rounding error of ln Σ eˣ⁻ᵐ, m = max x, over n elements: (n + 20 + 10 ln n) roundings of 1.

    xᵢ − m is rounded once, so that the sum's relative error from there is Σ pᵢ·(m − xᵢ)·u ≤ u·ln n, pᵢ the softmax
    (its entropy); the exponentials and the logarithm, itself at most ln n, have 8 each, the sum n − 1.
    """
    return call.rounding(1.0, number + 20 + 10 * math.log(max(number, 1)))
