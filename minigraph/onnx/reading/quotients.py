"""Quotients and remainders: of integers exact, of floats as C's fmod and Python's % have them."""

from __future__ import annotations

from minigraph import ops
from minigraph.ir.node import Node
from minigraph.ir.types import is_float
from minigraph.onnx.reader import Reader
from minigraph.onnx.reading.arithmetic import aligned, number
from minigraph.onnx.reading.registry import reads

# A quotient below 2²⁸ times a divisor of 24 bits has no rounding in float64. So many such steps reach from the largest
# number of a dtype to its smallest; of float64 itself only quotients that are small are reduced without rounding.
_STEP = 28
_STEPS = {"float16": 2, "float32": 10, "float64": 1}


@reads("Div")
def div(n: Reader) -> Node:
    """The quotient; of integers it is cut off towards 0."""
    x, y = aligned(n)
    return x / y if is_float(x.dtype) else quotient(x, y)


@reads("Mod")
def mod(n: Reader) -> Node:
    """The remainder: with the divisor's sign, or (`fmod`) the dividend's."""
    x, y = n.operand(0), n.operand(1)
    if is_float(x.dtype):
        rest = _float_remainder(x, y)
    else:
        rest = x - quotient(x, y) * y
    if n.integer("fmod", 0):
        return rest
    across = ops.minimum(ops.not_equal(rest, 0), ops.not_equal(rest < 0, y < 0))
    return ops.where(across, rest + y, rest)


def quotient(x: Node, y: Node) -> Node:
    """Return the quotient of integers, cut off towards 0."""
    if x.dtype not in ("int64", "uint64"):  # float64 has room for the others
        return ops.cast(ops.cast(x, "float64") / ops.cast(y, "float64"), x.dtype)
    if x.dtype == "uint64":
        return _unsigned_quotient(x, y)
    size = _unsigned_quotient(ops.cast(ops.abs(x), "uint64"), ops.cast(ops.abs(y), "uint64"))
    whole = ops.cast(size, "int64")
    return ops.where(ops.not_equal(x < 0, y < 0), -whole, whole)


def _unsigned_quotient(x: Node, y: Node) -> Node:
    """Return ⌊x/y⌋ of 64-bit numbers: twice a quotient in float64 that is never too large, and what is left, 0 or 1."""
    below = number(1 - 2.0**-50, "float64")
    divisor = ops.cast(y, "float64")
    first = ops.cast(ops.cast(x, "float64") / divisor * below, "uint64")
    rest = x - first * y
    second = ops.cast(ops.cast(rest, "float64") / divisor * below, "uint64")
    return first + second + ops.cast(rest - second * y >= y, "uint64")


def _float_remainder(x: Node, y: Node) -> Node:
    """Return fmod(x, y): what is left of |x|, with the sign of x; NaN for y = 0 or x = ±∞."""
    rest, size = ops.abs(ops.cast(x, "float64")), ops.abs(ops.cast(y, "float64"))
    for step in reversed(range(_STEPS[x.dtype])):
        scaled = size * 2.0 ** (_STEP * step)
        left = rest - ops.floor(rest / scaled) * scaled
        left = ops.where(left < 0, left + scaled, left)  # a quotient that was rounded up
        rest = ops.where(rest < scaled, rest, left)
    return ops.cast(ops.where(x < 0, -rest, rest), x.dtype)
