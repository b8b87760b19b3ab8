"""Trigonometric and hyperbolic functions that minigraph has no ops for, made of those that it has.

Near 0, where a formula would subtract numbers that are nearly equal, stands the beginning of the power series.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from minigraph import ops
from minigraph.ir.node import Node
from minigraph.onnx.reader import Reader
from minigraph.onnx.reading.registry import reads

_NEAR = 0.3  # below this a series stands for a function; 0.3³² < 2⁻⁵³
_TERMS = 16


def _series(x: Node, coefficients: Sequence[float]) -> Node:
    """Return x·(c₀ + c₁x² + c₂x⁴ + …) by Horner's rule."""
    square = x * x
    total = ops.zeros((), x.dtype) + coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        total = total * square + coefficient
    return x * total


def _near_zero(x: Node, coefficients: Sequence[float], beyond: Node) -> Node:
    return ops.where(ops.abs(x) < _NEAR, _series(x, coefficients), beyond)


@reads("Tan")
def tan(n: Reader) -> Node:
    """sin x / cos x."""
    return ops.sin(n.operand(0)) / ops.cos(n.operand(0))


def _sinh(x: Node) -> Node:
    """(eˣ − e⁻ˣ)/2."""
    return _near_zero(x, [1 / math.factorial(2 * k + 1) for k in range(8)], (ops.exp(x) - ops.exp(-x)) * 0.5)


def _cosh(x: Node) -> Node:
    """(eˣ + e⁻ˣ)/2."""
    return (ops.exp(x) + ops.exp(-x)) * 0.5


def _asinh(x: Node) -> Node:
    """ln(|x| + √(x² + 1)), with the sign of x."""
    terms = [(-1) ** k * math.comb(2 * k, k) / (4**k * (2 * k + 1)) for k in range(_TERMS)]
    size = ops.abs(x)
    # x² of a large number overflows, and is not needed: √(x² + 1) = x there.
    within = ops.minimum(size, 1e9)
    root = ops.where(size < 1e9, ops.sqrt(within * within + 1.0), size)
    return _near_zero(x, terms, ops.sign(x) * ops.log(size + root))


def _acosh(x: Node) -> Node:
    """2·arsinh √((x − 1)/2)."""
    return _asinh(ops.sqrt((x - 1.0) * 0.5)) * 2.0


def _atanh(x: Node) -> Node:
    """½·ln((1 + x)/(1 − x))."""
    return _near_zero(x, [1 / (2 * k + 1) for k in range(_TERMS)], ops.log((1.0 + x) / (1.0 - x)) * 0.5)


def _atan(x: Node) -> Node:
    """Its series, after arctan x = π/2 − arctan(1/x) and twice arctan x = 2·arctan(x/(1 + √(1 + x²)))."""
    size = ops.abs(x)
    t = ops.where(size > 1.0, 1.0 / size, size)
    for _ in range(2):
        t = t / (1.0 + ops.sqrt(1.0 + t * t))
    angle = _series(t, [(-1) ** k / (2 * k + 1) for k in range(_TERMS)]) * 4.0
    return ops.sign(x) * ops.where(size > 1.0, math.pi / 2 - angle, angle)


def _asin(x: Node) -> Node:
    """2·arctan(x/(1 + √(1 − x²)))."""
    return _atan(x / (1.0 + ops.sqrt((1.0 - x) * (1.0 + x)))) * 2.0


def _acos(x: Node) -> Node:
    """2·arctan(√(1 − x)/√(1 + x))."""
    return _atan(ops.sqrt(1.0 - x) / ops.sqrt(1.0 + x)) * 2.0


_FUNCTIONS: dict[str, Callable[[Node], Node]] = {
    "Sinh": _sinh, "Cosh": _cosh, "Asinh": _asinh, "Acosh": _acosh, "Atanh": _atanh, "Atan": _atan, "Asin": _asin,
    "Acos": _acos,
}  # fmt: skip


@reads(*_FUNCTIONS)
def trigonometric(n: Reader) -> Node:
    """A function of one number, to a few units in the last place; of float16 computed in float32."""
    x = n.operand(0)
    return ops.cast(_FUNCTIONS[n.op_type](ops.cast(x, "float32") if x.dtype == "float16" else x), x.dtype)
