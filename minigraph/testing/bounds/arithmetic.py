"""Bounds of arithmetic: sums, products, quotients and powers of two operands; absolute values, signs, limits."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigraph.ops import elementwise, real
from minigraph.testing.bounds.bounded import Bounded, Call, bound, kept


@bound(elementwise.Add, elementwise.Sub)
def _sum(call: Call) -> Any:
    """Ex + Ey, and one rounding."""
    x, y = call.operands
    operands = x.error + y.error
    return operands + call.rounding(np.abs(call.value) + 2.0 * operands, 1)


@bound(elementwise.Mul)
def _product(call: Call) -> Any:
    """|x|·Ey + |y|·Ex, and one rounding."""
    x, y = call.operands
    operands = (x.reach * y.error if y.inexact else 0.0) + (y.reach * x.error if x.inexact else 0.0)
    return operands + call.rounding(x.reach * y.reach, 1)


@bound(elementwise.Div)
def _quotient(call: Call) -> Any:
    """(Ex + |x/y|·Ey) / |y|, and one rounding; no bound where y may be 0."""
    x, y = call.operands
    least = least_magnitude(y)
    size = kept(x.reach / least, x.reach > 0)
    return (x.error + size * y.error) / least + call.rounding(size, 1)


def least_magnitude(x: Bounded) -> Any:
    """Return the smallest magnitude that each element, exact or computed, can have."""
    return np.maximum(np.maximum(x.low, -x.high), 0.0)


@bound(real.Pow)
def _power(call: Call) -> Any:
    """y·xʸ⁻¹·Ex + xʸ·ln x·Ey over all x and y; 4 + |y|·(1 + |ln x|) ulps.

    So many that repeated multiplication and exp(y·ln x) are covered. A base that may be negative, or 0, needs an
    exponent that is exactly an integer, and not negative if the base may be 0.
    """
    x, y = call.operands
    if call.unit.roundoff == 0:
        return np.where(x.error + y.error > 0, np.inf, 0.0)
    least, most, exponent = least_magnitude(x), x.reach, y.reach
    largest = kept(np.maximum.reduce([base**e for base in (least, most) for e in (y.low, y.high)]), most > 0)
    by_base = np.where(x.error > 0, _largest_slope(y, least, most, largest) * x.error, 0.0)
    logarithm = np.maximum(np.abs(np.log(least)), np.abs(np.log(most)))
    by_exponent = np.where(y.error > 0, largest * logarithm * y.error, 0.0)
    many = largest * exponent + _largest_with_logarithm(least, most, exponent, largest)
    rounding = call.rounding(largest, 8) + call.rounding(many, 2)
    whole = (y.error == 0) & (np.floor(y.value) == y.value)
    exact = (x.error == 0) & (y.error == 0)
    return np.where((x.low > 0) | whole | exact, by_base + by_exponent + rounding, np.inf)


def _largest_slope(y: Bounded, least: Any, most: Any, largest: Any) -> Any:
    """Return the largest |y·xʸ⁻¹|: at one of the ends, since a power is monotone on either side of 0."""
    at_ends = y.reach * np.maximum(least ** (y.value - 1.0), most ** (y.value - 1.0))
    return np.where(y.reach == 0, 0.0, np.where(y.error > 0, y.reach * largest / least, at_ends))


def _largest_with_logarithm(least: Any, most: Any, exponent: Any, largest: Any) -> Any:
    """Return the largest xʸ·|y·ln x|; towards 0, where ln x has no bound, it rises to 1/e at y·ln x = −1 and falls."""
    at_most = exponent * np.abs(np.log(most))
    falling = (at_most >= 1) & (most < 1)
    near_0 = np.where(falling, most**exponent * at_most, np.maximum(largest * at_most, np.exp(-1.0)))
    away = largest * exponent * np.maximum(np.abs(np.log(least)), np.abs(np.log(most)))
    return np.where(most > 0, np.where(least > 0, away, near_0), 0.0)


@bound(elementwise.Neg, elementwise.Abs, moves=True)
def _same_size(call: Call) -> Any:
    """The operand's error: nothing is rounded."""
    return call.operands[0].error


@bound(elementwise.Sign, elementwise.Floor)
def _step(call: Call) -> Any:
    """The difference between the outcomes at the ends: a step function is monotone, and nothing is rounded."""
    x = call.operands[0]
    if not x.inexact:
        return 0.0
    return np.where(x.error > 0, np.where(np.isfinite(x.error), call.apply(x.high) - call.apply(x.low), np.inf), 0.0)


@bound(elementwise.Clip)
def _clip(call: Call) -> Any:
    """The larger of Ex and the limits' rounding errors; where a limit surely holds, its rounding error alone."""
    x, op, unit = call.operands[0], call.op, call.unit
    low, high = unit.stored(op.minimum), unit.stored(op.maximum)
    below, above = x.high <= op.minimum - low, x.low >= op.maximum + high
    near = np.maximum(np.where(x.low < op.minimum + low, low, 0.0), np.where(x.high > op.maximum - high, high, 0.0))
    clipped = np.where(below, low, np.where(above, high, np.maximum(x.error, near)))
    return np.where(np.isfinite(x.error), clipped, np.inf)
