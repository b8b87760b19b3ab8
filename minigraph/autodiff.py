"""The chain rule, backwards over the graph (reverse-mode automatic differentiation; Griewank & Walther 2008, ch. 3).

Adjoints are ordinary nodes, so gradients can be drawn, optimised, and differentiated again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial

from minigraph.errors import GradientError
from minigraph.ir.graph import topological
from minigraph.ir.leaves import Constant, Item
from minigraph.ir.node import Node
from minigraph.ir.origin import Origin, inheriting
from minigraph.ir.types import Shape, TupleType, is_float
from minigraph.ops.reduction import sum_to
from minigraph.ops.shape import broadcast_to


def gradients(output: Node, wrt: Sequence[Node], adjoint: Node | None = None) -> list[Node]:
    """Return the gradient of a scalar with respect to each node of `wrt`, as nodes of their shapes.

    With `adjoint`, a node of the output's shape, the output may have any shape: the result is the vector-Jacobian
    product. Raises a GradientError if the output is no scalar, does not depend on a node, or an op on the way has no
    gradient.

    >>> from minigraph.ir import variable
    >>> x = variable((3,), name="x")
    >>> from minigraph.ops import sum
    >>> gradients(sum(x * x), [x])
    [<add : float32[3]>]
    """
    if adjoint is None:
        adjoint = inheriting(_gradient_origin(output), partial(_seed, output))
    elif adjoint.type != output.type:
        raise GradientError("the adjoint does not fit the output", expected=output.type, got=adjoint.type)
    order = topological([output])
    sweep = _Sweep(_active(order, wrt))
    sweep.terms[output].append(adjoint)
    for node in reversed(order):
        if node in sweep.active and (node in sweep.terms or node in sweep.items):
            inheriting(_gradient_origin(node), partial(sweep.propagate, node))
    return [_result(sweep.found.get(node), node, output) for node in wrt]


class _Sweep:
    """One walk backwards: what is known of each node's adjoint."""

    def __init__(self, active: set[Node]) -> None:
        self.active = active  # adjoints are needed for these nodes only
        self.terms: dict[Node, list[Node]] = defaultdict(list)  # contributions to each adjoint
        self.items: dict[Node, list[Node | None]] = {}  # the same for tuples: one adjoint for each item
        self.found: dict[Node, Node] = {}

    def propagate(self, node: Node) -> None:
        """Sum up one node's adjoint, and turn it into contributions to the adjoints of its operands."""
        if isinstance(node.type, TupleType):
            self.contribute(node, node.op.vjp(node, tuple(self.items[node])))
            return
        g = self.found[node] = _total(self.terms.pop(node), node.shape)
        if isinstance(node.op, Item):
            parent, index = node.inputs[0], node.op.index
            slots = self.items.setdefault(parent, [None] * len(parent.type.items))  # type: ignore[union-attr]
            before = slots[index]
            slots[index] = g if before is None else before + g
        elif any(i in self.active for i in node.inputs):
            self.contribute(node, node.op.vjp(node, g))

    def contribute(self, node: Node, terms: Sequence[Node | None]) -> None:
        """Hand each operand its term, summed over the axes along which it was repeated."""
        for operand, term in zip(node.inputs, terms, strict=True):
            if term is not None and operand in self.active:
                self.terms[operand].append(sum_to(term, operand.shape))


def _seed(output: Node) -> Node:
    if isinstance(output.type, TupleType) or output.shape != ():
        raise GradientError(
            "gradients are taken of a scalar",
            expected="a scalar output",
            got=output.type,
            where=output.origin.where,
            hint="reduce it first, with sum or mean, or give an adjoint",
        )
    if not is_float(output.dtype):
        raise GradientError("an integer has no gradient", expected="a float dtype", got=output.type)
    return Node(Constant.of(1.0, output.dtype))


def _active(order: Sequence[Node], wrt: Sequence[Node]) -> set[Node]:
    """Return the nodes that depend on one of `wrt`: adjoints are needed for no others."""
    active = set(wrt)
    for node in order:
        if node not in active and any(i in active for i in node.inputs):
            active.add(node)
    return active


def _gradient_origin(node: Node) -> Callable[[], Origin]:
    origin = node.origin
    adjoint = Origin(origin.file, origin.line, origin.scope, node.id, origin.history)
    return lambda: adjoint


def _total(terms: list[Node], shape: Shape) -> Node:
    """Return the sum of all contributions, repeated to the node's shape if each was narrower."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total if total.shape == shape else broadcast_to(total, shape)


def _result(g: Node | None, node: Node, output: Node) -> Node:
    if g is not None:
        return g
    if not is_float(node.dtype):
        raise GradientError("an integer has no gradient", expected="a float dtype", got=node, where=node.origin.where)
    raise GradientError(
        f"{output.label} does not depend on {node.label!r} through anything that has a gradient",
        expected="a path from the node to the output",
        got=f"{output!r} from {output.origin.where}",
        where=node.origin.where,
        hint="leave it out of wrt, or check that the loss is built from it",
    )
