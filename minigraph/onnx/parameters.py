"""What of a graph is written as numbers: parameters, and the sums that are a convolution's or a product's bias."""

from __future__ import annotations

from minigraph.ir.graph import Graph
from minigraph.ir.leaves import Constant, Input, Variable
from minigraph.ir.node import Node
from minigraph.ir.types import Dim, Size
from minigraph.ops.conv import Conv2D, Conv2DTranspose
from minigraph.ops.elementwise import Add
from minigraph.ops.linalg import MatMul
from minigraph.ops.random import RandomUniform
from minigraph.ops.shape import BroadcastTo, CountOf


def parameters(graph: Graph) -> set[Node]:
    """Return the nodes that no input reaches, nor an open size: they are written as numbers, unless one is repeated."""
    found: set[Node] = set()
    for node in graph.nodes:
        if isinstance(node.op, (Variable, Constant)) or _is_count(node):
            found.add(node)
        elif isinstance(node.op, (Input, RandomUniform)) or not all(i in found for i in node.inputs):
            continue
        elif not isinstance(node.op, BroadcastTo) or _is_small(node.tensor_type.size):
            found.add(node)
    return found


def _is_count(node: Node) -> bool:
    """Tell whether a node counts elements whose number is known."""
    return isinstance(node.op, CountOf) and all(isinstance(node.inputs[0].shape[a], int) for a in node.op.axes)


def _is_small(size: Size) -> bool:
    return not isinstance(size, Dim) and size < 1 << 20


def biased(graph: Graph, known: set[Node]) -> dict[Node, tuple[Node, Node]]:
    """Return the sums that are written as the bias of their first operand: sum → (convolution or product, bias)."""
    found: dict[Node, tuple[Node, Node]] = {}
    outputs = set(graph.outputs.values())
    for node in graph.nodes:
        if not isinstance(node.op, Add):
            continue
        for source, bias in (node.inputs, node.inputs[::-1]):
            alone = graph.uses[source] == 1 and source not in outputs and source not in known
            if alone and bias in known and source.type == node.type and _is_bias(source, bias):
                found[node] = (source, bias)
                break
    return found


def _is_bias(source: Node, bias: Node) -> bool:
    if isinstance(source.op, (Conv2D, Conv2DTranspose)):
        wide = (1,) * (4 - bias.rank) + bias.shape
        return wide in ((1, source.shape[1], 1, 1), (1, 1, 1, 1))
    return isinstance(source.op, MatMul) and all(i.rank == 2 for i in source.inputs) and bias.rank <= 2
