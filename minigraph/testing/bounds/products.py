"""Bounds of sums of products: matrix products, convolutions and their adjoints; and of averages under windows.

|Σ xᵢyᵢ computed − exact| ≤ γₙ Σ |xᵢ||yᵢ| in any order of the sum (Higham 2002, equation 3.5). So the op's own kernel,
on absolute values, gives the bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minigraph.ir.node import Node
from minigraph.ops import conv, linalg, pool
from minigraph.ops.window import NHWC
from minigraph.passes.layout import channels_first_op
from minigraph.testing.bounds.bounded import Call, bound, expansion


@expansion(
    conv.Conv2D, conv.Conv2DTranspose, conv.Conv2DKernelAdjoint, pool.MaxPool2D, pool.MaxPool2DAdjoint,
    pool.MaxPool2DSelect, pool.AvgPool2D, pool.AvgPool2DAdjoint, where=lambda op: op.layout != NHWC,
)  # fmt: skip
def _channels_last(node: Node) -> Node:
    """Kernels exist for N,H,W,C only: with N,C,H,W the op stands between transposes."""
    legal = channels_first_op(node)
    assert isinstance(legal, Node)
    return legal


def _bilinear(terms: Callable[[Call], int]) -> Callable[[Call], Any]:
    """Return the rule of an op that is linear in both operands, each result the sum of so many products."""

    def rule(call: Call) -> Any:
        x, y = call.operands
        error: Any = call.apply(x.reach, y.error) if y.inexact else 0.0
        if x.inexact:
            error = error + call.apply(x.error, y.reach)
        return error + call.rounding(call.apply(x.reach, y.reach), terms(call))

    return rule


def _inner_size(call: Call) -> int:
    return int(call.operands[0].value.shape[-2 if call.op.transpose_x else -1])


def _taps_and_channels(call: Call) -> int:
    """Kernels are H,W,I/groups,O, and I/groups products meet at each tap."""
    return math.prod(call.operands[1].value.shape[:3])


def _taps_and_outputs(call: Call) -> int:
    height, width, _, out = call.operands[1].value.shape
    return int(height * width * (out // call.op.groups))


def _windows(call: Call) -> int:
    return math.prod(call.operands[1].value.shape[:3])


bound(linalg.MatMul)(_bilinear(_inner_size))
bound(conv.Conv2D)(_bilinear(_taps_and_channels))
bound(conv.Conv2DTranspose)(_bilinear(_taps_and_outputs))
bound(conv.Conv2DKernelAdjoint)(_bilinear(_windows))


@bound(pool.AvgPool2D, pool.AvgPool2DAdjoint)
def _average(call: Call) -> Any:
    """The average of the errors; a sum of so many terms as the window has taps, and 3 for dividing by their number."""
    x, number = call.operands[0], math.prod(call.op.size)
    operand, size = call.apply(x.error) if x.inexact else 0.0, call.apply(x.reach)
    overflow = np.where(size * number > call.unit.largest, np.inf, 0.0)  # of the sum
    return operand + overflow + call.rounding(size, number + 3)
