"""Collapse: a graph too big to read is drawn a box per layer scope, repeated blocks once, what is unchanged as one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from minigraph.errors import ArgumentError
from minigraph.ir import Graph, Node
from minigraph.viz.diff import UNMARKED, Marks
from minigraph.viz.lanes import FORWARD, lanes, prefixes, scopes
from minigraph.viz.parameters import parameter_expressions
from minigraph.viz.repeats import find_repeats
from minigraph.viz.text import fused_ops, is_drawn
from minigraph.viz.unchanged import unchanged
from minigraph.viz.view import Group, View


def view(graph: Graph, collapse: str | int = "auto", max_nodes: int = 80) -> View:
    """Return what to draw of `graph`.

    collapse: "none" draws every node; a number n makes one box of each scope n levels deep; "auto" closes fused nodes,
    folds repeated blocks and then collapses scopes, innermost first, until there are at most `max_nodes` boxes, or
    nothing is left to collapse.
    """
    return views([graph], [UNMARKED], collapse, max_nodes)[0]


def views(
    graphs: Sequence[Graph], marks: Sequence[Marks], collapse: str | int = "auto", max_nodes: int = 80
) -> list[View]:
    """Return what to draw of graphs that stand side by side: all are collapsed alike, so that they can be compared.

    Of graphs with marks, "auto" first folds parameter expressions, then what did not change, and then as `view` does.
    """
    whole = isinstance(collapse, int) and not isinstance(collapse, bool) and collapse >= 1
    if not whole and collapse not in ("auto", "none"):
        raise ArgumentError("cannot collapse like this", expected='"auto", "none" or a depth ≥ 1', got=repr(collapse))
    plain = [_plain(graph, marked) for graph, marked in zip(graphs, marks, strict=True)]
    if isinstance(collapse, int):
        return [_at_depth(replace(each, opened=False), collapse) for each in plain]
    if collapse == "none":
        return plain
    for ready, candidates in _ever_fewer(plain, max_nodes):
        if all(_boxes(each) <= ready for each in candidates):
            break
    return candidates


def _plain(graph: Graph, marks: Marks) -> View:
    lane = lanes(graph)
    return View(graph, lane, scopes(graph, lane), {n: n for n in graph.nodes}, marks=marks)


def _ever_fewer(drawn: list[View], max_nodes: int) -> Iterator[tuple[int, list[View]]]:
    """Yield views of ever fewer boxes, each with the number of boxes at which it will do."""
    compared = drawn[0].compared
    # A comparison has two graphs to look at, and it is not the arithmetic on parameters that is looked for.
    yield max_nodes // 3 if compared else max_nodes, drawn
    if compared:
        drawn = [_with_expressions(each) for each in drawn]
        yield max_nodes // 2, drawn
        drawn = [each.grouped(groups) for each, groups in zip(drawn, unchanged(drawn), strict=True)]
        yield max_nodes, drawn
    drawn = [replace(each, opened=False) for each in drawn]
    yield max_nodes, drawn
    drawn = [_folded(each) for each in drawn]
    yield max_nodes, drawn
    deepest = max((len(prefixes(s)) for each in drawn for s in each.scope.values()), default=0)
    for depth in range(max(deepest, 1), 0, -1):
        yield max_nodes, [_at_depth(each, depth) for each in drawn]


def _boxes(drawn: View) -> int:
    """Return how many boxes a view has, those inside opened fused nodes included."""
    nodes = {drawn.box[n]: n for n in drawn.graph.nodes if is_drawn(n)}
    inner = sum(len(fused_ops(n)) for key, n in nodes.items() if drawn.opened and isinstance(key, Node))
    ends = {drawn.box[target] for target in drawn.graph.updates}
    return len(nodes) + inner + len(ends) + len(drawn.graph.outputs)


def _collected(nodes: Sequence[Node], key: Callable[[Node], Group | None]) -> dict[Group, list[Node]]:
    groups: dict[Group, list[Node]] = {}
    for node in nodes:
        group = key(node)
        if group is not None:
            groups.setdefault(group, []).append(node)
    return groups


def _with_expressions(before: View) -> View:
    groups = {}
    for number, each in enumerate(parameter_expressions(before.graph, before.lane)):
        scope = _common([before.scope[n] for n in each.nodes])
        groups[Group(scope, before.lane[each.nodes[0]], each.title, number)] = each.nodes
    return before.grouped(groups)


def _common(scopes: Sequence[str]) -> str:
    """Return the innermost scope around all of these."""
    shared = [p for p in prefixes(scopes[0]) if all(p in prefixes(s) for s in scopes)]
    return shared[-1] if shared else ""


def _folded(before: View) -> View:
    repeats = find_repeats(before.graph, before.scope, before.lane, before.marks.nodes)
    return replace(before, box={n: before.box[repeats.twin(n)] for n in before.graph.nodes}, repeats=repeats)


def _at_depth(before: View, depth: int) -> View:
    """Return the view in which each scope, cut off at `depth`, is one box a lane."""

    def key(node: Node) -> Group | None:
        twin = before.repeats.twin(node)
        lane, scope, box = before.lane[twin], before.scope[twin], before.box[twin]
        if scope:
            group = Group(prefixes(scope)[:depth][-1], lane)
            # What is one box already, as something that did not change, is not taken apart.
            return box if isinstance(box, Group) and not box.title and box.scope in prefixes(group.scope) else group
        # What autodiff and the optimiser made between the layers is a box too.
        return Group("", lane) if lane != FORWARD else None

    return before.grouped(_collected(before.graph.nodes, key))
