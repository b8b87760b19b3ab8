"""Bounds of functions of one number: the largest slope over all that the operand can be, times its error.

That is the mean value theorem. The roundings, in units of u times the result: 8, 4 ulps, for an elementary function
(NumPy's vectorised ones stay within 4.1 u); more for what kernels build from several.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minigraph.ir.op import Op
from minigraph.ops import activations, real
from minigraph.testing.bounds.arithmetic import least_magnitude
from minigraph.testing.bounds.bounded import Bounded, Call, bound, kept

Slope = Callable[[Bounded], Any]


def smooth(op: type[Op], slope: Slope, roundings: float, span: float = math.inf) -> None:
    """Register the rule of a function with this largest slope; no two of its results are further apart than `span`."""

    def rule(call: Call) -> Any:
        x = call.operands[0]
        operand = _by_slope(x, slope(x), span)
        return operand + call.rounding(_size(call, operand), roundings)

    bound(op)(rule)


def _size(call: Call, operand: Any) -> Any:
    """Return the largest magnitude of the function of what the operand can be; 0 at most where that is 0."""
    return kept(np.abs(call.value) + 2.0 * operand, call.operands[0].reach > 0)


def _by_slope(x: Bounded, slope: Any, span: float = math.inf) -> Any:
    """Return slope · error, at most `span`; an error without a bound may hide NaN, and stays without one."""
    if not x.inexact:
        return 0.0
    return np.where(np.isfinite(x.error), np.where(x.error > 0, np.fmin(slope * x.error, span), 0.0), np.inf)


def _sqrt(x: Bounded) -> Any:
    """1/(2√x), and, because |√a − √b| ≤ √|a − b|, at most 1/√Ex."""
    slope = np.fmin(0.5 / np.sqrt(np.maximum(x.low, 0.0)), 1.0 / np.sqrt(x.error))
    return np.where(x.low < 0, np.inf, slope)


def _rsqrt(x: Bounded) -> Any:
    return np.where(x.low > 0, 0.5 * np.maximum(x.low, 0.0) ** -1.5, np.inf)


def _log(x: Bounded) -> Any:
    return np.where(x.low > 0, 1.0 / x.low, np.inf)


def _tanh(x: Bounded) -> Any:
    return np.cosh(least_magnitude(x)) ** -2.0


def _sigmoid(x: Bounded) -> Any:
    tail = np.exp(-least_magnitude(x))
    return tail / (1.0 + tail) ** 2


def _erf(x: Bounded) -> Any:
    return 2.0 / math.sqrt(math.pi) * np.exp(-(least_magnitude(x) ** 2))


def _silu(x: Bounded) -> Any:
    """s·(1 + x·(1 − s)) is at most 1.0998…, and below 0 at most eˣ·(1 + |x|)."""
    return np.fmin(1.1, np.where(x.high < 0, np.exp(x.high) * (1.0 - x.low), 1.1))


smooth(real.Exp, lambda x: np.exp(x.high), 8)
smooth(real.Log, _log, 8)
smooth(real.Sqrt, _sqrt, 1)
smooth(real.Rsqrt, _rsqrt, 8)
smooth(real.Erf, _erf, 16, span=2.0)  # quotients of polynomials of degree 8
smooth(activations.Tanh, _tanh, 8, span=2.0)


@bound(real.Sin, real.Cos)
def _wave(call: Call) -> Any:
    """The slope is 1 at most; 4 ulps, and one rounding of the argument, for reductions to one period."""
    x = call.operands[0]
    operand = _by_slope(x, 1.0, span=2.0)
    return operand + call.rounding(_size(call, operand), 8) + np.fmin(call.rounding(x.reach, 1), 2.0)


# --- activations ------------------------------------------------------------------------------------------------------


@bound(activations.Relu)
def _relu(call: Call) -> Any:
    """Ex; nothing where x is surely negative."""
    x = call.operands[0]
    return np.where(x.high > 0, x.error, 0.0)


@bound(activations.LeakyRelu)
def _leaky_relu(call: Call) -> Any:
    """Slope 1 or α; below 0 α's own rounding, and one of the product."""
    x, alpha = call.operands[0], abs(call.op.alpha)
    slope = np.maximum(np.where(x.high >= 0, 1.0, 0.0), np.where(x.low < 0, alpha, 0.0))
    product = call.unit.stored(alpha) * x.reach + call.rounding(alpha * x.reach, 2)
    return _by_slope(x, slope) + np.where(x.low < 0, product, 0.0)


@bound(activations.Elu)
def _elu(call: Call) -> Any:
    """Slope 1 or α·eˣ; below 0 α's own rounding, an eˣ − 1 of 4 ulps, and the product."""
    x, alpha = call.operands[0], abs(call.op.alpha)
    below = np.where(x.low < 0, alpha * np.exp(np.minimum(x.high, 0.0)), 0.0)
    operand = _by_slope(x, np.maximum(np.where(x.high >= 0, 1.0, 0.0), below))
    rounding = call.unit.stored(alpha) + call.rounding(_size(call, operand), 12)
    return operand + np.where(x.low < 0, rounding, 0.0)


def _exponentials(op: type[Op], slope: Slope, roundings: float, span: float, factor: Callable[[Bounded], Any]) -> None:
    """Register a function made of eˣ, which overflows where the result is next to 0: that much is added.

    1/(1 + e⁻ˣ) is a correct implementation of a sigmoid, and 0 where e⁻ˣ is beyond the largest number.
    """

    def rule(call: Call) -> Any:
        x = call.operands[0]
        operand = _by_slope(x, slope(x), span)
        lost = 1.0 / call.unit.largest * factor(x)
        return operand + lost + call.rounding(_size(call, operand) + lost, roundings)

    bound(op)(rule)


_exponentials(activations.Sigmoid, _sigmoid, 16, 1.0, lambda x: 1.0)
_exponentials(activations.Silu, _silu, 20, math.inf, lambda x: x.reach)
_exponentials(activations.Softplus, lambda x: np.fmin(np.exp(x.high), 1.0), 24, math.inf, lambda x: 1.0)


@bound(activations.Gelu)
def _gelu(call: Call) -> Any:
    """The slope is 1.129 at most. For x < 0, 1 + erf and 1 + tanh cancel: 16 roundings of |x|, not of the result."""
    x = call.operands[0]
    return _by_slope(x, 1.13) + call.rounding(x.reach, 16)


@bound(activations.HardSigmoid)
def _hard_sigmoid(call: Call) -> Any:
    """|α|·Ex and the roundings of α·x + β where that is not surely cut off; 1 at most."""
    return _line(call, call.op.alpha, call.op.beta)[0]


@bound(activations.HardSwish)
def _hard_swish(call: Call) -> Any:
    """The slope is 1.5 at most, 0 and 1 where the factor is surely cut off; |x| times the factor's rounding."""
    x = call.operands[0]
    _, rounding, low, high = _line(call, 1 / 6, 0.5)
    slope = np.where(low, 0.0, np.where(high, 1.0, 1.5))
    factor = np.where(low | high, 0.0, x.reach * np.fmin(rounding, 1.0))
    return _by_slope(x, slope) + factor + np.where(low | high, 0.0, call.rounding(x.reach, 1))


def _line(call: Call, alpha: float, beta: float) -> tuple[Any, Any, Any, Any]:
    """Return the error of min(max(α·x + β, 0), 1), what rounding alone makes of it, where it is 0 and where 1."""
    x, unit = call.operands[0], call.unit
    size = abs(alpha) * x.reach + abs(beta)
    rounding = unit.stored(alpha) * x.reach + unit.stored(beta) + call.rounding(size, 3)
    error = abs(alpha) * x.error + rounding
    center = alpha * np.asarray(x.value) + beta
    low, high = center + 2.0 * error <= 0, center - 2.0 * error >= 1
    cut = np.where(low | high, 0.0, np.fmin(error, 1.0))
    return np.where(np.isfinite(error), cut, np.inf), rounding, low, high
