"""Pad merging: padding joins the padding around it, and goes into the op that reads it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from minigraph.errors import ShapeError
from minigraph.ir.node import Node
from minigraph.ir.types import Dim, Shape
from minigraph.ops.conv import Conv2D
from minigraph.ops.indexing import Pad, Pairs
from minigraph.ops.pool import AvgPool2D, MaxPool2D
from minigraph.ops.shape import Reshape, reshape
from minigraph.ops.window import NHWC
from minigraph.passes.driver import Rewriting, at
from minigraph.passes.trace import Refusal


@at(Pad)
def pad_of_pad(node: Node) -> Node | None:
    """pad(pad(x, p, v), q, v) = pad(x, p + q, v).

    %0 = input("x") : float32[2,3]
    %1 = pad(%0, padding=((0, 0), (1, 0))) : float32[2,4]
    %2 = pad(%1, padding=((0, 0), (1, 2))) : float32[2,7]
    return y=%2
    """
    match node.op, node.inputs:
        case Pad(padding=outer, value=v), (Node(op=Pad(padding=inner, value=w), inputs=(x,)),) if v == w:
            both = tuple((a + c, b + d) for (a, b), (c, d) in zip(outer, inner, strict=True))
            return Node(Pad(both, v), (x,))
    return None


@at(Reshape)
def reshape_of_pad(node: Node) -> Node | None:
    """reshape(pad(x)) = pad(reshape(x)): a signal that becomes an image of height 1 is padded as an image.

    When: the reshape only adds axes of size 1, or drops such that are not padded.

        %0 = input("x") : float32[2,3,6]
        %1 = pad(%0, padding=((0, 0), (0, 0), (1, 1))) : float32[2,3,8]
        %2 = reshape(%1, shape=(2, 3, 1, 8)) : float32[2,3,1,8]
        return y=%2
    """
    padded = node.inputs[0]
    if not isinstance(padded.op, Pad):
        return None
    sources = _sources(padded.shape, node.shape, padded.op.padding)
    if sources is None:
        return None
    (x,) = padded.inputs
    inner = reshape(x, [1 if axis is None else x.shape[axis] for axis in sources])
    pads = tuple((0, 0) if axis is None else padded.op.padding[axis] for axis in sources)
    return Node(Pad(pads, padded.op.value), (inner,))


def _sources(old: Shape, new: Shape, pads: Pairs) -> list[int | None] | None:
    """Return which old axis each new one is, None for an added 1; or None where the axes are not those any more."""
    sources: list[int | None] = []
    place = 0
    for size in new:
        while place < len(old) and old[place] != size and old[place] == 1 and pads[place] == (0, 0):
            place += 1  # dropped
        if place < len(old) and old[place] == size:
            sources.append(place)
            place += 1
        elif size == 1:
            sources.append(None)
        else:
            return None
    left = range(place, len(old))
    return sources if all(old[axis] == 1 and pads[axis] == (0, 0) for axis in left) else None


@at(Conv2D)
def convolution_of_pad(node: Node) -> Node | Refusal | None:
    """conv2d(pad(x, 0), w) = conv2d(x, w) with more padding.

    When: zeros are padded to height and width, and the sizes are known where the convolution's padding is "same".

        %0 = input("x") : float32[2,6,6,3]
        %1 = pad(%0, padding=((0, 0), (1, 1), (1, 1), (0, 0))) : float32[2,8,8,3]
        %2 = variable("w") : float32[3,3,3,4]
        %3 = conv2d(%1, %2) : float32[2,6,6,4]
        return y=%3
    """
    padded, kernel = node.inputs
    if not isinstance(padded.op, Pad):
        return None
    if padded.op.value != 0:
        return Refusal(f"the padding holds {padded.op.value:g}, a convolution pads zeros", (padded,))
    return _into(node, padded, node.op.window(kernel.tensor_type), kernel)  # type: ignore[attr-defined]


@at(AvgPool2D)
def average_of_pad(node: Node) -> Node | Refusal | None:
    """avg_pool2d(pad(x, 0)) = avg_pool2d(x), padded and with its padding counted.

    When: the pool has no padding of its own, or counts it.

        %0 = input("x") : float32[2,6,6,3]
        %1 = pad(%0, padding=((0, 0), (1, 1), (1, 1), (0, 0))) : float32[2,8,8,3]
        %2 = avg_pool2d(%1) : float32[2,4,4,3]
        return y=%2
    """
    op: Any = node.op
    padded = node.inputs[0]
    if not isinstance(padded.op, Pad):
        return None
    if padded.op.value != 0:
        return Refusal(f"the padding holds {padded.op.value:g}, a pool counts zeros", (padded,))
    if op.overhang != (0, 0) or (op.padding != "valid" and not op.count_padding):
        return Refusal("the pool has padding of its own that does not count", (node,))
    return _into(node, padded, op.window, count_padding=True)


@at(MaxPool2D)
def maximum_of_pad(node: Node) -> Node | Refusal | None:
    """max_pool2d(pad(x, −∞)) = max_pool2d(x) with more padding, which never wins.

    %0 = input("x") : float32[2,6,6,3]
    %1 = pad(%0, padding=((0, 0), (1, 0), (1, 0), (0, 0)), value=-inf) : float32[2,7,7,3]
    %2 = max_pool2d(%1) : float32[2,3,3,3]
    return y=%2
    """
    padded = node.inputs[0]
    if not isinstance(padded.op, Pad) or padded.op.value != -math.inf:
        return None
    return _into(node, padded, node.op.window)  # type: ignore[attr-defined]


def _into(node: Node, padded: Node, window: Any, *operands: Node, **changes: Any) -> Node | Refusal:
    """Return a windowed op with the padding before it added to its own."""
    op: Any = node.op
    pads = padded.op.padding  # type: ignore[attr-defined]
    here, elsewhere = ((1, 2), (0, 3)) if op.layout == NHWC else ((2, 3), (0, 1))
    if any(pads[axis] != (0, 0) for axis in elsewhere):
        return Refusal("more than height and width is padded", (padded,))
    spatial = tuple(padded.shape[axis] for axis in here)
    if op.padding == "same" and any(isinstance(s, Dim) for s in spatial) and window.strides != (1, 1):
        return Refusal("the padding depends on a size that is still open", (node,))
    both = tuple((a + c, b + d) for (a, b), (c, d) in zip(window.pads(spatial), (pads[a] for a in here), strict=True))
    try:
        return Node(replace(op, padding=both, **changes), (padded.inputs[0], *operands))
    except ShapeError as error:
        return Refusal(error.summary, (padded,))


MERGE_PADS = Rewriting(
    "merge_pads",
    (
        reshape_of_pad,  # towards the convolution of a signal
        pad_of_pad,  # one padding in a row
        convolution_of_pad,  # zeros are what a convolution pads
        average_of_pad,  # and what an average may count
        maximum_of_pad,  # a maximum pads with −∞
    ),
)
