"""Signals in the clothes of images: values [N,C,1,L] that an ONNX file can hold as [N,C,L].

Convolutions and pools over one axis are imported as ones over images of height 1, because there are kernels for images
only. Written out again they should be what they were.
"""

from __future__ import annotations

from minigraph.ir.graph import Graph
from minigraph.ir.node import Node
from minigraph.ir.types import Shape, normalize_axis
from minigraph.ops.conv import Conv2D, Conv2DTranspose
from minigraph.ops.elementwise import Elementwise
from minigraph.ops.norm import BatchNorm
from minigraph.ops.pool import AvgPool2D, MaxPool2D
from minigraph.ops.shape import Cast, Concat, Reshape
from minigraph.ops.window import NCHW


def flat_values(graph: Graph, parameters: set[Node]) -> set[Node]:
    """Return the values of height 1 that all who make and read them can do without the height.

    >>> from minigraph.ir import variable
    >>> from minigraph.ir.leaves import input
    >>> from minigraph.ops import conv2d, reshape
    >>> kernel = variable((4, 3, 1, 5), name="kernel")
    >>> image = reshape(input((2, 3, 9), name="x"), (2, 3, 1, 9))
    >>> y = reshape(conv2d(image, kernel, layout="NCHW"), (2, 4, 5))
    >>> flat_values(Graph({"y": y}), {kernel}) == {image, y.inputs[0]}
    True
    """
    flat = {n for n in graph.nodes if n not in parameters and _height_one(n) and (_enters(n) or _works(n, parameters))}
    outputs = set(graph.outputs.values())
    while True:
        wrong = {
            n
            for n in flat
            if n in outputs
            or not (_enters(n) or all(i in flat or i in parameters for i in n.inputs))
            or not all(r in flat or _leaves(r) for r in graph.users[n])
        }
        if not wrong:
            return flat
        flat -= wrong


def _height_one(node: Node) -> bool:
    shape: Shape = getattr(node.type, "shape", ())
    return len(shape) == 4 and bool(shape[2:3] == (1,))


def _without_height(node: Node) -> tuple[object, ...]:
    return (*node.shape[:2], *node.shape[3:])


def _enters(node: Node) -> bool:
    """Tell whether a node gives a signal its height."""
    return isinstance(node.op, Reshape) and node.inputs[0].shape == _without_height(node)


def _leaves(node: Node) -> bool:
    """Tell whether a node takes the height away again."""
    return (
        isinstance(node.op, Reshape) and _height_one(node.inputs[0]) and node.shape == _without_height(node.inputs[0])
    )


def _works(node: Node, parameters: set[Node]) -> bool:
    """Tell whether an op on signals of height 1 is one on signals."""
    op = node.op
    if isinstance(op, (Conv2D, Conv2DTranspose)):
        kernel = node.inputs[1]
        return op.layout == NCHW and kernel in parameters and kernel.shape[2] == 1 and _no_padding(op.padding)
    if isinstance(op, (MaxPool2D, AvgPool2D)):
        overhang = getattr(op, "overhang", (0, 0))
        return op.layout == NCHW and op.size[0] == 1 and _no_padding(op.padding) and overhang[0] == 0
    if isinstance(op, BatchNorm):
        return normalize_axis(op.axis, 4) == 1
    if isinstance(op, Concat):
        return op.axis != 2
    beside = [i for i in node.inputs if i in parameters]
    return isinstance(op, (Elementwise, Cast)) and all(i.rank < 2 or i.shape[-2] == 1 for i in beside)


def _no_padding(padding: object) -> bool:
    """Tell whether height is not padded; with "same" a window of one row needs none."""
    return isinstance(padding, str) or padding[0] == (0, 0)  # type: ignore[index]
