"""Legalise layouts: kernels exist for channels last only, so channels-first ops get transposes around them.

The simplifier cancels those that meet; what is left in a plain network are two at its edges.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from minigraph.ir.node import Node
from minigraph.ops.conv import Conv2D, Conv2DKernelAdjoint, Conv2DTranspose
from minigraph.ops.fused import Fused
from minigraph.ops.pool import AvgPool2D, Pool
from minigraph.ops.region import inline
from minigraph.ops.shape import Transpose, reshape
from minigraph.ops.window import NCHW, NHWC
from minigraph.passes.driver import Rewriting, at
from minigraph.passes.pieces import (
    broadcast_of_transpose,
    concat_of_transposes,
    gather_adjoint_of_transpose,
    gather_of_transpose,
    pad_of_transpose,
    piece_of_transpose,
    reshape_of_transpose,
    slice_of_transpose,
    transpose_of_broadcast,
    transpose_of_one_hot,
)
from minigraph.passes.products import (
    dense_gradient_of_flattened,
    dense_of_flattened,
    flattened,
    product_along_an_image_axis,
    product_of_transpose,
    transpose_of_dense,
)
from minigraph.passes.simplify import (
    keeps_order,
    nothing_moved,
    reshape_of_reshape,
    transpose_is_reshape,
    transpose_of_transpose,
)
from minigraph.passes.transposes import (
    batch_norm_channels_last,
    choice_of_transpose,
    elementwise_of_transposes,
    moments_of_transpose,
    permuted,
    reduction_of_transpose,
    size_of_transpose,
    softmax_of_transpose,
    transposed,
)

TO_LAST, TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)  # N,C,H,W → N,H,W,C and back
EXCHANGED = (0, 2, 1, 3)  # N,H,W,C → N,W,H,C and back
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
    inputs = [transposed(x, KERNEL_TO_LAST if i == kernel_at else TO_LAST) for i, x in enumerate(node.inputs)]
    result = Node(replace(op, layout=NHWC), inputs)
    return transposed(result, KERNEL_TO_FIRST if isinstance(op, Conv2DKernelAdjoint) else TO_FIRST)


@at(AvgPool2D)
def average_of_exchanged_axes(node: Node) -> Node | None:
    """avg_pool2d(transpose(x)) = transpose(avg_pool2d(x)), where height and width are exchanged; its adjoint too.

    So a mean over neighbouring channels, a pool over N,1,C,H·W, needs no transpose of N,H,W,C.

    When: the layout is N,H,W,C, and the transpose does nothing else.

        %0 = input("x") : float32[2,9,5,1]
        %1 = transpose(%0, axes=(0, 2, 1, 3)) : float32[2,5,9,1]
        %2 = avg_pool2d(%1, size=(3, 1), strides=(1, 1)) : float32[2,3,9,1]
        return y=%2
    """
    match node.op, node.inputs:
        case AvgPool2D(layout=layout) as op, (Node(op=Transpose(axes=order), inputs=(x,)) as turned,):
            if layout == NHWC and keeps_order(x.shape, permuted(order, EXCHANGED)) and not keeps_order(x.shape, order):
                pairs: dict[str, Any] = {
                    name: value[::-1] for name, value in vars(op).items() if isinstance(value, tuple)
                }
                inner = reshape(x, permuted(turned.shape, EXCHANGED))
                return transposed(Node(replace(op, **pairs), (inner,)), EXCHANGED)
    return None


@at(Fused)
def region_in_the_way(node: Node) -> Node | None:
    """fused(x) = its steps one by one.

    When: the region begins with a channels-first op, or reads a transpose that could pass through it, as it is or
    flattened.

        %0 = input("x") : float32[2,6,6,3]
        %1 = transpose(%0, axes=(0, 3, 1, 2)) : float32[2,3,6,6]
        %2 = fused(%1, body=(step(op=neg(), inputs=(0,)), step(op=relu(), inputs=(1,)))) : float32[2,3,6,6]
        return y=%2
    """
    op = node.op
    assert isinstance(op, Fused)
    first = getattr(op.body[0].op, "layout", NHWC) == NCHW
    moving = any(isinstance(i.op, Transpose) or flattened(i) is not None for i in node.inputs)
    return inline(node) if first or moving else None


CHANNELS_LAST = Rewriting(
    "channels_last",
    (
        region_in_the_way,
        channels_first_op,
        average_of_exchanged_axes,
        batch_norm_channels_last,
        softmax_of_transpose,
        moments_of_transpose,
        reduction_of_transpose,
        choice_of_transpose,
        size_of_transpose,
        elementwise_of_transposes,
        concat_of_transposes,
        piece_of_transpose,
        slice_of_transpose,
        pad_of_transpose,
        gather_of_transpose,
        gather_adjoint_of_transpose,
        broadcast_of_transpose,
        reshape_of_transpose,
        product_along_an_image_axis,
        product_of_transpose,
        dense_of_flattened,
        dense_gradient_of_flattened,
        transpose_of_transpose,
        transpose_is_reshape,
        transpose_of_broadcast,
        transpose_of_one_hot,
        transpose_of_dense,
        reshape_of_reshape,
        nothing_moved,
    ),
    max_sweeps=64,
)
