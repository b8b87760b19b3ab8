"""What values can never be below, whatever rounding does: rounding is monotone, so it keeps a sign.

Without it a square root of a sum of squares near 0, as every optimiser of Adam's kind takes, would have no bound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from minigraph.ir.leaves import Constant, Input, Item, Variable
from minigraph.ir.node import Node
from minigraph.ir.op import Op
from minigraph.ops import (
    activations,
    conv,
    elementwise,
    indexing,
    linalg,
    loss,
    norm,
    pool,
    random,
    real,
    reduction,
    shape,
)
from minigraph.testing.bounds.bounded import Bounded

LEAVES = (Input, Variable, Constant)
NEVER_NEGATIVE = (
    activations.HardSigmoid, activations.Relu, activations.Sigmoid, activations.Softplus, elementwise.Abs, loss.Softmax,
    indexing.OneHot, random.RandomUniform, real.Exp, real.Rsqrt, real.Sqrt, shape.CountOf,
)  # fmt: skip
# The elements of the first operand, or some of them.
SAME_ELEMENTS = (
    indexing.Gather, indexing.Slice, pool.MaxPool2D, reduction.Max, reduction.Min, shape.BroadcastTo, shape.Reshape,
    shape.Transpose,
)  # fmt: skip
# Never negative where no operand is: sums, products, quotients, powers of such, and zeros beside them.
KEEP_SIGN = (
    conv.Conv2D, conv.Conv2DKernelAdjoint, conv.Conv2DTranspose, elementwise.Div, elementwise.Mul, indexing.Pad,
    indexing.SliceAdjoint, linalg.MatMul, pool.AvgPool2D, pool.AvgPool2DAdjoint, reduction.Mean, reduction.Sum,
    shape.Cast,
)  # fmt: skip


def floor_of(op: Op, nodes: Sequence[Node], operands: Sequence[Bounded], value: Any, error: Any) -> Any:
    """Return what no element of an op's result can be below; a tuple for several results."""
    floors = [operand.floor for operand in operands]
    if isinstance(op, LEAVES):
        return float((value - error).min()) if value.size else math.inf
    if not isinstance(value, tuple) and value.dtype.kind != "f":  # integers may wrap around
        return -math.inf
    if isinstance(op, NEVER_NEGATIVE):
        return 0.0
    if isinstance(op, SAME_ELEMENTS):
        return floors[0]
    if isinstance(op, KEEP_SIGN):
        return _of_signs(op, nodes, floors)
    return _of_others(op, operands, floors)


def _of_signs(op: Op, nodes: Sequence[Node], floors: list[Any]) -> float:
    if isinstance(op, elementwise.Mul) and nodes[0] is nodes[1]:
        return 0.0
    padded = [op.value] if isinstance(op, indexing.Pad) else []
    return 0.0 if all(floor >= 0 for floor in [*floors, *padded]) else -math.inf


def _of_others(op: Op, operands: Sequence[Bounded], floors: list[Any]) -> Any:
    match op:
        case elementwise.Add() if min(floors) >= 0:
            return (floors[0] + floors[1]) * (1 - 2.0**-7)  # one rounding, in any dtype
        case elementwise.Maximum():
            return max(floors)
        case elementwise.Minimum() | shape.Concat():
            return min(floors)
        case elementwise.Where():
            return min(floors[1:])
        case elementwise.Clip(minimum=least) if max(least, floors[0]) >= 0:
            return 0.0
        case real.Pow() if floors[0] >= 0 or _even(operands[1]):
            return 0.0
        case norm.Moments():
            return (0.0 if floors[0] >= 0 else -math.inf, 0.0)
        case shape.Split(sizes=sizes):
            return (floors[0],) * len(sizes)
        case Item(index=index):
            return floors[0][index]
    return -math.inf


def _even(exponent: Bounded) -> bool:
    return not exponent.inexact and bool((exponent.value % 2 == 0).all())
