"""Elementwise ops: arithmetic, comparisons, logic, activations, casts."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minigraph import ops
from minigraph.errors import ModelFormatError
from minigraph.ir.node import Node
from minigraph.ir.types import DTYPES, is_float, normalize_axis
from minigraph.onnx.known import LIMIT
from minigraph.onnx.reader import Reader
from minigraph.onnx.reading.registry import reads
from minigraph.onnx.tensors import dtype_of

_UNARY: dict[str, Callable[[Any], Node]] = {
    "Abs": ops.abs, "Cos": ops.cos, "Erf": ops.erf, "Exp": ops.exp, "Floor": ops.floor, "HardSwish": ops.hard_swish,
    "Log": ops.log, "Neg": ops.neg, "Relu": ops.relu, "Sigmoid": ops.sigmoid, "Sign": ops.sign, "Sin": ops.sin,
    "Softplus": ops.softplus, "Sqrt": ops.sqrt, "Tanh": ops.tanh,
}  # fmt: skip
_BINARY: dict[str, Callable[[Any, Any], Node]] = {
    "Add": ops.add, "Sub": ops.sub, "Mul": ops.mul, "Equal": ops.equal, "Greater": ops.greater, "Less": ops.less,
    "GreaterOrEqual": ops.greater_equal, "LessOrEqual": ops.less_equal,
}  # fmt: skip


@reads("Identity", whole=False)
def identity(n: Reader) -> Node:
    """The operand itself."""
    return n.operand(0)


@reads(*_UNARY)
def unary(n: Reader) -> Node:
    """A function of one number that minigraph has."""
    x = n.operand(0)
    if n.op_type == "Relu" and not is_float(x.dtype):
        return ops.maximum(x, 0)
    return _UNARY[n.op_type](x)


def aligned(n: Reader) -> tuple[Node, Node]:
    """Return two operands; before opset 7 the second may be aligned at an axis of the first."""
    x, y = n.operand(0), n.operand(1)
    if n.version < 7 and n.integer("broadcast", 0) and "axis" in n.attributes:
        axis = normalize_axis(n.integer("axis"), x.rank)
        y = ops.reshape(y, (*y.shape, *(1,) * (x.rank - axis - y.rank)))
    return x, y


@reads(*_BINARY)
def binary(n: Reader) -> Node:
    """An op on two operands that broadcast."""
    return _BINARY[n.op_type](*aligned(n))


@reads("Pow")
def power(n: Reader) -> Node:
    """x to the power y, in x's dtype; integers by way of float64."""
    x, y = aligned(n)
    if is_float(x.dtype):
        return ops.pow(x, ops.cast(y, x.dtype))
    return ops.cast(ops.pow(ops.cast(x, "float64"), ops.cast(y, "float64")), x.dtype)


@reads("Sum", "Max", "Min", "Mean")
def variadic(n: Reader) -> Node:
    """Any number of operands, from left to right."""
    operands = n.operands()
    function = {"Max": ops.maximum, "Min": ops.minimum}.get(n.op_type, ops.add)
    total = functools.reduce(function, operands)
    return total / float(len(operands)) if n.op_type == "Mean" and len(operands) > 1 else total


@reads("Ceil")
def ceil(n: Reader) -> Node:
    """−⌊−x⌋."""
    return -ops.floor(-n.operand(0))


@reads("Round")
def round_(n: Reader) -> Node:
    """To the nearest integer, halves to the even one (IEEE 754)."""
    x = n.operand(0)
    down = ops.floor(x)
    odd = down - 2.0 * ops.floor(down * 0.5)
    rest = x - down
    up = ops.where(ops.equal(rest, 0.5), odd, ops.cast(rest > 0.5, x.dtype))
    return ops.where(ops.equal(rest, 0.0), x, down + up)


@reads("Reciprocal")
def reciprocal(n: Reader) -> Node:
    """1/x."""
    return 1.0 / n.operand(0)


@reads("IsNaN")
def is_nan(n: Reader) -> Node:
    """Only NaN differs from itself."""
    return ops.not_equal(n.operand(0), n.operand(0))


@reads("IsInf")
def is_inf(n: Reader) -> Node:
    """Equal to ∞ or −∞, as far as they are asked for."""
    x = n.operand(0)
    above, below = (ops.equal(x, math.inf), ops.equal(x, -math.inf))
    asked = bool(n.integer("detect_positive", 1)), bool(n.integer("detect_negative", 1))
    if asked == (True, True):
        return either(above, below)
    return above if asked[0] else below if asked[1] else both(above, below)


def both(x: Node, y: Node) -> Node:
    """Return x and y, of booleans."""
    return ops.minimum(x, y)


def either(x: Node, y: Node) -> Node:
    """Return x or y, of booleans."""
    return ops.maximum(x, y)


@reads("And", "Or", "Xor")
def logic(n: Reader) -> Node:
    """Logic on booleans that broadcast."""
    x, y = aligned(n)
    return {"And": both, "Or": either, "Xor": ops.not_equal}[n.op_type](x, y)


@reads("Not")
def not_(n: Reader) -> Node:
    """Equal to false."""
    return ops.equal(n.operand(0), False)


@reads("Where")
def where(n: Reader) -> Node:
    """One operand where the condition holds, else the other."""
    return ops.where(n.operand(0), n.operand(1), n.operand(2))


@reads("Clip")
def clip(n: Reader) -> Node:
    """min(max(x, low), high), so that `high` wins where the limits are crossed."""
    x = n.operand(0)
    if n.version < 11:
        low, high = n.real("min", -math.inf), n.real("max", math.inf)
        given: list[Node | None] = [number(low, x.dtype), number(high, x.dtype)]
    else:
        limits = [n.known(1), n.known(2)]
        given = [n.optional(1), n.optional(2)]
        if not is_float(x.dtype) or any(g is not None and v is None for g, v in zip(given, limits, strict=True)):
            return _clipped_by(x, *given)
        low, high = (
            v if k is None else float(k.ravel()[0]) for k, v in zip(limits, (-math.inf, math.inf), strict=True)
        )
    return ops.clip(x, low, high) if low <= high else _clipped_by(x, *given)


def _clipped_by(x: Node, low: Node | None, high: Node | None) -> Node:
    above = x if low is None else ops.maximum(x, ops.reshape(low, ()))
    return above if high is None else ops.minimum(above, ops.reshape(high, ()))


@reads("Cast")
def cast(n: Reader) -> Node:
    """Another dtype; floats are cut off towards 0."""
    name = n.text("to").lower() if n.version < 6 else dtype_of(n.integer("to"), "attribute 'to'")
    return converted(n.operand(0), {"float": "float32", "double": "float64"}.get(name, name))


@reads("CastLike")
def cast_like(n: Reader) -> Node:
    """The second operand's dtype."""
    return converted(n.operand(0), n.operand(1).dtype)


def converted(x: Node, dtype: str) -> Node:
    """Return x in a dtype that there is."""
    if dtype not in DTYPES:
        raise ModelFormatError("no such dtype here", expected=", ".join(DTYPES), got=dtype)
    return ops.cast(x, dtype)


# --- activations ------------------------------------------------------------------------------------------------------


@reads("LeakyRelu")
def leaky_relu(n: Reader) -> Node:
    """α·x below 0."""
    return ops.leaky_relu(n.operand(0), n.real("alpha", 0.01))


@reads("PRelu")
def prelu(n: Reader) -> Node:
    """slope·x below 0, a slope for each channel."""
    x, slope = n.operand(0), n.parameter(1)
    if n.version < 7 and slope.rank == 1 and x.rank > 1:
        slope = ops.reshape(slope, (*slope.shape, *(1,) * (x.rank - 2)))
    return ops.where(x < 0, slope * x, x)


@reads("Elu")
def elu(n: Reader) -> Node:
    """α(eˣ − 1) below 0."""
    return ops.elu(n.operand(0), n.real("alpha", 1.0))


@reads("Selu")
def selu(n: Reader) -> Node:
    """γ·elu(x, α) (Klambauer et al. 2017)."""
    return n.real("gamma", 1.0507009873554804934193349852946) * ops.elu(
        n.operand(0), n.real("alpha", 1.67326324235437728481704299427330)
    )


@reads("Celu")
def celu(n: Reader) -> Node:
    """max(0, x) + min(0, α(exp(x/α) − 1)) (Barron 2017)."""
    x, alpha = n.operand(0), n.real("alpha", 1.0)
    return alpha * ops.elu(x / alpha)


@reads("ThresholdedRelu")
def thresholded_relu(n: Reader) -> Node:
    """x above α, else 0."""
    x = n.operand(0)
    return ops.where(x > n.real("alpha", 1.0), x, 0.0)


@reads("Softsign")
def softsign(n: Reader) -> Node:
    """x / (1 + |x|)."""
    x = n.operand(0)
    return x / (1.0 + ops.abs(x))


@reads("HardSigmoid")
def hard_sigmoid(n: Reader) -> Node:
    """max(0, min(1, α·x + β))."""
    return ops.hard_sigmoid(n.operand(0), n.real("alpha", 0.2), n.real("beta", 0.5))


@reads("Gelu")
def gelu(n: Reader) -> Node:
    """x·Φ(x), exact or by the tanh approximation."""
    return ops.gelu(n.operand(0), n.text("approximate", "none") == "tanh")


@reads("Swish")
def swish(n: Reader) -> Node:
    """x·sigmoid(α·x)."""
    x, alpha = n.operand(0), n.real("alpha", 1.0)
    return ops.silu(x) if alpha == 1 else x * ops.sigmoid(alpha * x)


@reads("Mish")
def mish(n: Reader) -> Node:
    """x·tanh(softplus(x))."""
    x = n.operand(0)
    return x * ops.tanh(ops.softplus(x))


def affordable(elements: float, what: str) -> None:
    """Raise for numbers that would have to be computed in such a mass that only a hostile file asks for them."""
    if not elements <= LIMIT:
        raise ModelFormatError(f"{what} would take too much", expected=f"at most {LIMIT} elements", got=elements)


def number(value: Any, dtype: str) -> Node:
    """Return an array as a constant of a dtype."""
    return ops.constant(np.array(value, dtype, order="C"))
