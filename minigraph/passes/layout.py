"""Legalise layouts: kernels exist for channels last only, so channels-first ops get transposes around them.

The simplifier cancels those that meet; what is left in a plain network are two at its edges.
"""

from __future__ import annotations

from dataclasses import replace

from minigraph.ir.node import Node
from minigraph.ops.conv import Conv2D, Conv2DKernelAdjoint, Conv2DTranspose
from minigraph.ops.elementwise import Elementwise
from minigraph.ops.fused import Fused, inline
from minigraph.ops.norm import BatchNorm, Moments
from minigraph.ops.pool import Pool
from minigraph.ops.shape import Cast, Transpose, reshape
from minigraph.ops.window import NCHW, NHWC
from minigraph.passes.driver import Rewriting, at
from minigraph.passes.simplify import nothing_moved, reshape_of_reshape, transpose_is_reshape, transpose_of_transpose

TO_LAST, TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)  # N,C,H,W → N,H,W,C and back
KERNEL_TO_LAST, KERNEL_TO_FIRST = (2, 3, 1, 0), (3, 2, 0, 1)  # O,I,H,W → H,W,I,O and back


@at(Conv2D, Conv2DTranspose, Conv2DKernelAdjoint, Pool)
def channels_first_op(node: Node) -> Node | None:
    """f(x) in N,C,H,W = transpose(f(transpose(x)) in N,H,W,C), f a convolution or a pool.

    %0 = input("x") : float32[2,3,6,6]
    %1 = variable("w") : float32[4,3,3,3]
    %2 = conv2d(%0, %1, layout="NCHW") : float32[2,4,4,4]
    return y=%2
    """
    op = node.op
    if not isinstance(op, (Conv2D, Conv2DTranspose, Conv2DKernelAdjoint, Pool)) or op.layout != NCHW:
        return None
    kernel_at = 1 if isinstance(op, (Conv2D, Conv2DTranspose)) else -1
    inputs = [Node(Transpose(KERNEL_TO_LAST if i == kernel_at else TO_LAST), (x,)) for i, x in enumerate(node.inputs)]
    result = Node(replace(op, layout=NHWC), inputs)
    return Node(Transpose(KERNEL_TO_FIRST if isinstance(op, Conv2DKernelAdjoint) else TO_FIRST), (result,))


@at(Fused)
def region_in_the_way(node: Node) -> Node | None:
    """fused(x) = its steps one by one.

    When: the region begins with a channels-first op, or reads a transpose that could pass through it.

        %0 = input("x") : float32[2,6,6,3]
        %1 = transpose(%0, axes=(0, 3, 1, 2)) : float32[2,3,6,6]
        %2 = fused(%1, body=(step(op=neg(), inputs=(0,)), step(op=relu(), inputs=(1,)))) : float32[2,3,6,6]
        return y=%2
    """
    op = node.op
    assert isinstance(op, Fused)
    first = getattr(op.body[0].op, "layout", NHWC) == NCHW
    return inline(node) if first or any(isinstance(i.op, Transpose) for i in node.inputs) else None


@at(BatchNorm)
def batch_norm_channels_last(node: Node) -> Node | None:
    """batch_norm(transpose(x)) over an axis = transpose(batch_norm(x)) over the axis that it came from.

    %0 = input("x") : float32[2,6,6,3]
    %1 = transpose(%0, axes=(0, 3, 1, 2)) : float32[2,3,6,6]
    %2 = variable("gamma") : float32[3]
    %3 = variable("beta") : float32[3]
    %4 = variable("mean") : float32[3]
    %5 = variable("variance") : float32[3]
    %6 = batch_norm(%1, %2, %3, %4, %5, axis=1) : float32[2,3,6,6]
    return y=%6
    """
    match node.op, node.inputs:
        case BatchNorm(axis=axis), (Node(op=Transpose(axes=axes), inputs=(x,)), *rest):
            return Node(Transpose(axes), (Node(replace(node.op, axis=axes[axis % len(axes)]), (x, *rest)),))
    return None


@at(Moments)
def moments_of_transpose(node: Node) -> Node | None:
    """moments(transpose(x)) over axes = moments(x) over the axes that they came from.

    When: the axes that are left stand in the same order in x.

        %0 = input("x") : float32[2,6,6,3]
        %1 = transpose(%0, axes=(0, 3, 1, 2)) : float32[2,3,6,6]
        %2 = moments(%1, axes=(0, 2, 3)) : (float32[3], float32[3])
        %3 = item(%2, index=0) : float32[3]
        return mean=%3
    """
    match node.op, node.inputs:
        case Moments(axes=axes), (Node(op=Transpose(axes=order), inputs=(x,)),):
            left = [order[i] for i in range(len(order)) if i not in axes]
            if left == sorted(left):
                return Node(replace(node.op, axes=tuple(sorted(order[a] for a in axes))), (x,))
    return None


@at(Elementwise, Cast)
def elementwise_of_transposes(node: Node) -> Node | None:
    """f(transpose(x), transpose(y)) = transpose(f(x, y)), f elementwise; narrow operands, a bias, are turned too.

    When: all transposes have one order, and operands that are none vary along at most one axis.

        %0 = input("x") : float32[2,6,6,3]
        %1 = transpose(%0, axes=(0, 3, 1, 2)) : float32[2,3,6,6]
        %2 = variable("bias") : float32[3,1,1]
        %3 = add(%1, %2) : float32[2,3,6,6]
        return y=%3
    """
    orders = {x.op.axes for x in node.inputs if isinstance(x.op, Transpose)}
    if len(orders) != 1:
        return None
    order = orders.pop()
    beside = [x for x in node.inputs if not isinstance(x.op, Transpose)]
    if any(x.rank > len(order) or sum(s != 1 for s in x.shape) > 1 for x in beside):
        return None
    inner = tuple(x.inputs[0] if isinstance(x.op, Transpose) else _turned_back(x, order) for x in node.inputs)
    return Node(Transpose(order), (Node(node.op, inner),))


def _turned_back(x: Node, order: tuple[int, ...]) -> Node:
    """Return an operand with at most one axis that is not 1, laid so that transposing by `order` gives it back."""
    if x.shape == ():
        return x
    wide = (1,) * (len(order) - x.rank) + x.shape
    return reshape(x, [wide[order.index(i)] for i in range(len(order))])


CHANNELS_LAST = Rewriting(
    "channels_last",
    (
        region_in_the_way,
        channels_first_op,
        batch_norm_channels_last,
        moments_of_transpose,
        elementwise_of_transposes,
        transpose_of_transpose,
        transpose_is_reshape,
        reshape_of_reshape,
        nothing_moved,
    ),
    max_sweeps=64,
)
