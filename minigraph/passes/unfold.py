"""Unfolding: batch norms that were folded come back, from provenance, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from minigraph.ir.graph import Graph
from minigraph.ir.leaves import Input, Variable
from minigraph.ir.node import Node
from minigraph.ir.types import Dim
from minigraph.passes.cse import CommonSubexpressions
from minigraph.passes.driver import run
from minigraph.passes.fold import FOLD_BATCH_NORM
from minigraph.passes.merge import MERGE_AFFINES

# Rewrites that take a batch norm apart or change its numbers, and that put numbers in the place of variables.
FOLDING = frozenset({"freeze_variable", *(r.__name__ for each in (FOLD_BATCH_NORM, MERGE_AFFINES) for r in each.rules)})


def unfold(graph: Graph) -> Graph:
    """Return the graph with every fold undone: each node that a fold made is the node again that it replaced.

    What was rewritten on top of a fold, a fusion for instance, is undone with it, and variables that were frozen are
    variables again; the rest stays. Without provenance, after a round trip through text, nothing can be undone.

    >>> from minigraph.ir import variable
    >>> from minigraph.ir.leaves import input
    >>> from minigraph.ops import batch_norm, matmul
    >>> w, v = variable((3, 3), name="w"), variable((3,), name="v")
    >>> before = Graph({"y": batch_norm(matmul(input((2, 3), name="x"), w), v, v, v, v)})
    >>> unfold(run([FOLD_BATCH_NORM], before)[0]).same_as(before)
    True
    """
    everything = _walk(graph.nodes, lambda n: (*n.inputs, *_predecessor(n)))
    restored = _restored(everything)
    leaves = {n.op.label: n for n in graph.nodes if isinstance(n.op, (Input, Variable))}
    sizes = _bound_since(everything, leaves)
    new: dict[Node, Node] = {}

    def needs(node: Node) -> tuple[Node, ...]:
        return (restored[node],) if node in restored else node.inputs

    ends = [*graph.outputs.values(), *(n for pair in graph.updates.items() for n in pair), *graph.inputs]
    for node in _walk(ends, needs):
        if node in restored:
            new[node] = new[restored[node]]
        elif isinstance(node.op, (Input, Variable)):
            new[node] = leaves.setdefault(node.op.label, node)
        else:
            inputs, op = tuple(new[i] for i in node.inputs), node.op.bind(sizes)
            new[node] = node if inputs == node.inputs and op is node.op else node.with_inputs(inputs, op)
    unfolded = Graph(
        {name: new[n] for name, n in graph.outputs.items()},
        {new[target]: new[value] for target, value in graph.updates.items()},
        [new[n] for n in graph.inputs],
    )
    # Nodes that were rebuilt between two folds come back as several nodes with one meaning.
    return run([CommonSubexpressions()], unfolded)[0]


def _predecessor(node: Node) -> tuple[Node, ...]:
    return () if node.origin.replaced is None else (node.origin.replaced,)


def _walk(roots: Iterable[Node], needs: Callable[[Node], tuple[Node, ...]]) -> list[Node]:
    """Return all nodes that `roots` need, each after what it needs."""
    order: dict[Node, None] = {}
    stack = list(roots)[::-1]
    while stack:
        missing = [n for n in needs(stack[-1]) if n not in order]
        if missing:
            stack += reversed(missing)
        else:
            order.setdefault(stack.pop())
    return list(order)


def _restored(nodes: Iterable[Node]) -> dict[Node, Node]:
    """Return what to put in the place of each node that a fold, or a later rewrite of a fold's result, made."""
    folded: set[Node] = set()  # nodes with a fold in their past, or in that of an operand
    restored: dict[Node, Node] = {}
    for node in nodes:
        before = node.origin.replaced
        by_fold = before is not None and (node.origin.history[-1][0] in FOLDING or before in folded)
        if before is not None and by_fold:
            restored[node] = before
        if by_fold or any(i in folded for i in node.inputs):
            folded.add(node)
    return restored


def _bound_since(nodes: Iterable[Node], leaves: dict[str, Node]) -> dict[str, int]:
    """Return the numbers of symbolic sizes that were still open when a node was replaced."""
    sizes: dict[str, int] = {}
    for node in nodes:
        if not isinstance(node.op, Input) or node.op.label not in leaves:
            continue
        for then, now in zip(node.shape, leaves[node.op.label].shape, strict=True):
            if isinstance(then, Dim) and isinstance(now, int) and len(then.symbols) == 1:
                sizes[then.symbols[0]] = now // then.coefficient
    return sizes
