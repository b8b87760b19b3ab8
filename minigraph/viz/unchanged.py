"""What did not change: the layers of two graphs that are the same in both, and regions that no layer holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from minigraph.ir import Graph, Input, Node
from minigraph.viz.diff import KEPT
from minigraph.viz.lanes import FORWARD, prefixes
from minigraph.viz.text import is_drawn
from minigraph.viz.view import Group, View

_NEAR = 2  # so many edges around a change are drawn


def unchanged(drawn: Sequence[View]) -> list[dict[Group, list[Node]]]:
    """Return, for each of two views, the boxes of what is the same in both: a layer's lane, or a region.

    A region lies outside all layers, in the forward lane, some edges away from the nearest change. What changes depend
    on and what they do not are two regions, so that arrows go one way.
    """
    changed = [_changed(each) for each in drawn]
    busy = {place for each, nodes in zip(drawn, changed, strict=True) for n in nodes for place in _places(each, n)}
    near = {id for each, nodes in zip(drawn, changed, strict=True) for id in _near(each.graph, nodes)}
    above = {n.id for nodes in changed for n in _above(nodes)}
    return [_layers(each, busy) | _regions(each, near, above) for each in drawn]


def _changed(view: View) -> list[Node]:
    return [n for n, mark in view.marks.nodes.items() if mark != KEPT and is_drawn(n)]


def _places(view: View, node: Node) -> Iterable[tuple[str, str]]:
    """Return the scopes that a node lies in, with its lane; behind the forward lane the outside counts as one, too."""
    lane = view.lane[node]
    return ((prefix, lane) for prefix in prefixes(view.scope[node]) or [""] * (lane != FORWARD))


def _layers(view: View, busy: set[tuple[str, str]]) -> dict[Group, list[Node]]:
    groups: dict[Group, list[Node]] = {}
    for node in view.graph.nodes:
        outermost = next((place for place in _places(view, node) if place not in busy), None)
        if outermost is not None:
            groups.setdefault(Group(*outermost), []).append(node)
    return groups


def _near(graph: Graph, changed: Iterable[Node]) -> set[int]:
    """Return the ids of the nodes at most some edges away from a change."""
    found = frontier = set(changed)
    for _ in range(_NEAR):
        frontier = {m for n in frontier for m in (*n.inputs, *graph.users[n])} - found
        found = found | frontier
    return {n.id for n in found}


def _above(changed: Iterable[Node]) -> set[Node]:
    """Return what changed nodes depend on."""
    found: set[Node] = set()
    pending = list(changed)
    while pending:
        new = [i for i in pending.pop().inputs if i not in found]
        found.update(new)
        pending += new
    return found


def _regions(view: View, near: set[int], above: set[int]) -> dict[Group, list[Node]]:
    far = {
        n: n.id in above
        for n in view.graph.nodes
        if n.id not in near and not view.scope[n] and view.lane[n] == FORWARD and not isinstance(n.op, Input)
    }
    groups: dict[Group, list[Node]] = {}
    for nodes in _connected(view.graph, far):
        groups[Group("", FORWARD, "…", nodes[0].id)] = nodes
    return groups


def _connected(graph: Graph, side: Mapping[Node, bool]) -> list[list[Node]]:
    """Return the nodes in groups that edges between nodes of one side connect, each in the graph's order."""
    found: dict[Node, int] = {}
    for start in side:
        if start in found:
            continue
        number = len(found)
        pending = [start]
        while pending:
            node = pending.pop()
            if node not in found:
                found[node] = number
                beside = (*node.inputs, *graph.users[node])
                pending += [m for m in beside if side.get(m) == side[start]]
    groups: dict[int, list[Node]] = {}
    for node in side:
        groups.setdefault(found[node], []).append(node)
    return list(groups.values())
