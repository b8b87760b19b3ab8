"""Lanes and scopes: which part of a training step a node belongs to, and which layer it is drawn in."""

from __future__ import annotations

from collections.abc import Mapping

from minigraph.ir import Graph, Node
from minigraph.ir.graph import topological

FORWARD, BACKWARD, UPDATE = "forward", "backward", "update"


def lanes(graph: Graph) -> dict[Node, str]:
    """Return the lane of each node.

    Backward: made by autodiff. Update: what only updates need (optimiser, moving averages). Forward: the rest.

    >>> from minigraph import ir, ops
    >>> w = ir.variable((), name="w")
    >>> sorted(set(lanes(Graph({"y": ops.neg(w)}, {w: ops.exp(w)})).values()))
    ['forward', 'update']
    """
    gradient = [n for n in graph.nodes if n.origin.gradient_of is not None]
    needed = set(topological([*graph.inputs, *graph.outputs.values(), *gradient]))
    # A variable that is updated is state, whoever reads it: it is drawn with what it is the state of.
    needed |= {n for n in graph.updates if any(u in needed for u in graph.users[n])}
    found = {n: FORWARD if n in needed else UPDATE for n in graph.nodes}
    found.update(dict.fromkeys(gradient, BACKWARD))
    return found


def scopes(graph: Graph, lane: Mapping[Node, str]) -> dict[Node, str]:
    """Return the layer scope that each node is drawn in.

    It is the node's own; what an optimiser computes without a scope for the variables of one layer belongs to that
    layer too, so that a layer collapses with its updates.
    """
    found = {n: n.origin.scope.strip("/") for n in graph.nodes}
    serves: dict[Node, set[str]] = {n: set() for n in graph.nodes}
    for target, value in graph.updates.items():
        if found[target]:
            serves[value].add(found[target])
            serves[target].add(found[target])
    for node in reversed(graph.nodes):
        if lane[node] != UPDATE:
            continue
        if not found[node] and len(serves[node]) == 1:
            found[node] = next(iter(serves[node]))
        for operand in node.inputs:
            if lane[operand] == UPDATE and len(serves[operand]) < 2:  # two already say "shared"
                serves[operand] |= serves[node]
    return found


def prefixes(scope: str) -> list[str]:
    """Return a scope and those it lies in, outermost first.

    >>> prefixes("a/b/c")
    ['a', 'a/b', 'a/b/c']
    """
    parts = scope.split("/") if scope else []
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]
