"""The mirror image of `layout`: images with channels first, as ONNX has them, for a graph that has them last."""

from __future__ import annotations

from dataclasses import replace

from minigraph.ir.node import Node
from minigraph.ops.conv import Conv2D, Conv2DTranspose
from minigraph.ops.pool import Pool
from minigraph.ops.shape import Transpose
from minigraph.ops.window import NCHW, NHWC
from minigraph.passes.driver import Rewriting, at
from minigraph.passes.layout import CHANNELS_LAST, KERNEL_TO_FIRST, TO_FIRST, TO_LAST, channels_first_op


@at(Conv2D, Conv2DTranspose, Pool)
def channels_last_op(node: Node) -> Node | None:
    """f(x) in N,H,W,C = transpose(f(transpose(x)) in N,C,H,W), f a convolution or a pool.

    %0 = input("x") : float32[2,6,6,3]
    %1 = variable("w") : float32[3,3,3,4]
    %2 = conv2d(%0, %1) : float32[2,4,4,4]
    return y=%2
    """
    op = node.op
    if not isinstance(op, (Conv2D, Conv2DTranspose, Pool)) or op.layout != NHWC:
        return None
    orders = (TO_FIRST, KERNEL_TO_FIRST) if isinstance(op, (Conv2D, Conv2DTranspose)) else (TO_FIRST,) * 2
    inputs = [Node(Transpose(order), (x,)) for x, order in zip(node.inputs, orders, strict=False)]
    return Node(Transpose(TO_LAST), (Node(replace(op, layout=NCHW), inputs),))


# The rules that move transposes down, until they meet and cancel, do not mind which way the transposes turn.
CHANNELS_FIRST = Rewriting(
    "channels_first",
    (channels_last_op, *(rule for rule in CHANNELS_LAST.rules if rule is not channels_first_op)),
    max_sweeps=CHANNELS_LAST.max_sweeps,
)
