"""Bounds of comparisons and of what chooses between operands: exact, unless rounding could change the decision."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigraph.ir.node import Node
from minigraph.ops import elementwise, reduction
from minigraph.ops.shape import Reshape
from minigraph.testing.bounds.bounded import Bounded, Call, bound


def _unless(certain: Any, *operands: Bounded) -> Any:
    """Return 0 where all operands are exact, or finite and the outcome certain; 1, the other outcome, elsewhere."""
    error = sum(x.error for x in operands)
    return np.where((error == 0) | (certain & np.isfinite(error)), 0.0, 1.0)


@bound(elementwise.Less, elementwise.GreaterEqual)
def _less(call: Call) -> Any:
    """1 where both outcomes are possible."""
    x, y = call.operands
    return _unless((x.high < y.low) | (x.low >= y.high), x, y)


@bound(elementwise.Greater, elementwise.LessEqual)
def _greater(call: Call) -> Any:
    """1 where both outcomes are possible."""
    x, y = call.operands
    return _unless((x.low > y.high) | (x.high <= y.low), x, y)


@bound(elementwise.Equal, elementwise.NotEqual)
def _equal(call: Call) -> Any:
    """1 where both outcomes are possible; a value and what was picked from it are equal, not just nearly so."""
    x, y = call.operands
    first, second = call.nodes
    apart = (x.low > y.high) | (y.low > x.high)
    return _unless(apart | _picked(call, first, second, x) | _picked(call, second, first, y), x, y)


def _picked(call: Call, whole: Node, part: Node, x: Bounded) -> Any:
    """Return where `part`, a limited or an extreme value of `whole`, surely is or surely is not the element itself.

    The gradients of clip, max and min ask this.
    """
    source = part.inputs[0] if isinstance(part.op, Reshape) else part
    if not source.inputs or source.inputs[0] is not whole or x.value.shape != call.value.shape:
        return False
    match source.op:
        case elementwise.Clip(minimum=low, maximum=high) if source is part:
            near, far = call.unit_of(whole.dtype).stored(low), call.unit_of(whole.dtype).stored(high)
            inside = (x.low >= low + near) & (x.high <= high - far)
            return inside | (x.high < low - near) | (x.low > high + far)
        case reduction.Max(axes=axes) if _restored(part, axes, x):
            return _surely_largest(x.low, x.high, axes)
        case reduction.Min(axes=axes) if _restored(part, axes, x):
            return _surely_largest(-x.high, -x.low, axes)
    return False


def _restored(part: Node, axes: tuple[int, ...], x: Bounded) -> bool:
    """Tell whether a reduced array has its axes back as axes of size 1, so that it stands beside what it came from."""
    return part.rank == x.value.ndim and all(part.shape[a] == 1 for a in axes)


def _surely_largest(low: Any, high: Any, axes: tuple[int, ...]) -> Any:
    """Return where an element surely is its group's largest, or surely is not."""
    if not axes or not low.size:
        return np.ones(low.shape, bool)
    order = [a for a in range(low.ndim) if a not in axes] + list(axes)
    groups = low.transpose(order).reshape(*(low.shape[a] for a in order[: -len(axes)]), -1)
    tops = high.transpose(order).reshape(groups.shape)
    ranked = np.sort(tops, axis=-1)
    largest = ranked[..., -1:]
    second = ranked[..., -2:-1] if ranked.shape[-1] > 1 else np.full_like(largest, -np.inf)
    others = np.where(tops == largest, second, largest)  # the largest upper end among the other elements
    certain = (groups >= others) | (tops < groups.max(axis=-1, keepdims=True))
    inverse = np.argsort(order)
    return certain.reshape([low.shape[a] for a in order]).transpose(inverse)


@bound(elementwise.Where, moves=True)
def _where(call: Call) -> Any:
    """The chosen operand's error; |x − y| + 2·(Ex + Ey) where either may be chosen."""
    condition, x, y = call.operands
    chosen = np.where(condition.value, x.error, y.error)
    if not condition.inexact:
        return chosen
    either = np.abs(np.subtract(x.value, y.value, dtype=np.float64)) + 2.0 * (x.error + y.error)
    return np.where(condition.error > 0, either, chosen)


@bound(elementwise.Maximum)
def _maximum(call: Call) -> Any:
    """The error of the larger operand; the larger error where either may be the larger."""
    x, y = call.operands
    return _error_of_winner(x.low > y.high, y.low > x.high, x, y)


@bound(elementwise.Minimum)
def _minimum(call: Call) -> Any:
    """The error of the smaller operand; the larger error where either may be the smaller."""
    x, y = call.operands
    return _error_of_winner(x.high < y.low, y.high < x.low, x, y)


def _error_of_winner(first: Any, second: Any, x: Bounded, y: Bounded) -> Any:
    return np.where(first, x.error, np.where(second, y.error, np.maximum(x.error, y.error)))
