"""Collapse: a graph too big to read is drawn a box per layer scope, and repeated blocks once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from minigraph.errors import ArgumentError
from minigraph.ir import Constant, Graph, Item, Node
from minigraph.viz.lanes import FORWARD, lanes, prefixes, scopes
from minigraph.viz.repeats import Repeats, find_repeats
from minigraph.viz.text import constant_text

# What a box stands for: one node, or all nodes of a scope in one lane.
Key: TypeAlias = "Node | tuple[str, str]"


@dataclass(frozen=True)
class View:
    """What is drawn of a graph: the box of each node, and the blocks that stand for others."""

    graph: Graph
    lane: Mapping[Node, str]
    scope: Mapping[Node, str]
    box: Mapping[Node, Key]
    repeats: Repeats


def is_drawn(node: Node) -> bool:
    """Tell whether a node is a box: items are part of edges, and small constants are written where they are read."""
    if isinstance(node.op, Item):
        return False
    return not (isinstance(node.op, Constant) and constant_text(node.op) is not None)


def view(graph: Graph, collapse: str | int = "auto", max_nodes: int = 80) -> View:
    """Return what to draw of `graph`.

    collapse: "none" draws every node; a number n makes one box of each scope n levels deep; "auto" folds repeated
    blocks and then collapses scopes, innermost first, until there are at most `max_nodes` boxes, or nothing is left to
    collapse.
    """
    whole = isinstance(collapse, int) and not isinstance(collapse, bool) and collapse >= 1
    if not whole and collapse not in ("auto", "none"):
        raise ArgumentError("cannot collapse like this", expected='"auto", "none" or a depth ≥ 1', got=repr(collapse))
    lane = lanes(graph)
    scope = scopes(graph, lane)
    plain = View(graph, lane, scope, {n: n for n in graph.nodes}, Repeats())
    if collapse == "none" or (not whole and _boxes(plain) <= max_nodes):
        return plain
    if isinstance(collapse, int):
        return _at_depth(plain, collapse)
    folded = _folded(plain)
    if _boxes(folded) <= max_nodes:
        return folded
    deepest = max((len(prefixes(s)) for s in scope.values()), default=0)
    for depth in range(deepest, 1, -1):
        collapsed = _at_depth(folded, depth)
        if _boxes(collapsed) <= max_nodes:
            return collapsed
    return _at_depth(folded, 1)


def _boxes(drawn: View) -> int:
    ends = {drawn.box[target] for target in drawn.graph.updates}
    return len({drawn.box[n] for n in drawn.graph.nodes if is_drawn(n)}) + len(ends) + len(drawn.graph.outputs)


def _folded(plain: View) -> View:
    repeats = find_repeats(plain.graph, plain.scope, plain.lane)
    return View(plain.graph, plain.lane, plain.scope, {n: repeats.twin(n) for n in plain.graph.nodes}, repeats)


def _at_depth(before: View, depth: int) -> View:
    """Return the view in which each scope, cut off at `depth`, is one box a lane."""
    groups: dict[tuple[str, str], list[Node]] = {}
    for node in before.graph.nodes:
        twin = before.repeats.twin(node)
        lane, scope = before.lane[twin], before.scope[twin]
        if scope:
            groups.setdefault((prefixes(scope)[:depth][-1], lane), []).append(node)
        elif lane != FORWARD:  # what autodiff and the optimiser made between the layers
            groups.setdefault(("", lane), []).append(node)
    box: dict[Node, Key] = {n: before.repeats.twin(n) for n in before.graph.nodes}
    for key, nodes in groups.items():
        if len({box[n] for n in nodes if is_drawn(n)}) > 1:
            box.update(dict.fromkeys(nodes, key))
    return View(before.graph, before.lane, before.scope, box, before.repeats)
