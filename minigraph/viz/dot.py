"""From a graph to DOT, the language of Graphviz. The same graph gives the same text, under any hash seed.

The forward pass flows in the picture's direction and the backward pass against it, so that a layer's gradient stands
beside the layer. Saved values, which lead from the one to the other, take no part in the ranking: with them the layout
of a few hundred nodes takes minutes.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from minigraph.errors import ArgumentError
from minigraph.ir import Graph
from minigraph.viz.collapse import view
from minigraph.viz.lanes import BACKWARD, FORWARD, prefixes
from minigraph.viz.legend import box_label, edge_label, legend, small
from minigraph.viz.sketch import Box, Edge, Sketch, scopes_of, sketch
from minigraph.viz.style import FONT, Theme, theme_called

if TYPE_CHECKING:
    import graphviz

MAX_NODES = 80
DIRECTIONS = ("TB", "LR", "BT", "RL")
_DEEPEST = 8  # clusters in clusters; more are a maze, and renderers recurse over them
_ID = "\x1a"  # no label holds this: control characters are replaced


@dataclass(frozen=True)
class Options:
    """How a graph is drawn; `saved`, `fast` and `remark` are how `render` saves time on a graph that takes too long."""

    theme: str = "light"
    collapse: str | int = "auto"
    direction: str = "TB"
    title: str | None = None
    max_nodes: int = MAX_NODES
    saved: bool = True
    fast: bool = False
    remark: str = ""


def to_dot(
    graph: Graph,
    *,
    theme: str = "light",
    collapse: str | int = "auto",
    direction: str = "TB",
    title: str | None = None,
    max_nodes: int = MAX_NODES,
) -> str:
    """Return the graph as DOT source; the arguments, and the errors, are those of `render`.

    >>> from minigraph import ir, ops
    >>> "n0 -> n1" in to_dot(Graph({"y": ops.neg(ir.variable((2,), name="x"))}))
    True
    """
    return dot_source(graph, Options(theme, collapse, direction, title, max_nodes))


def dot_source(graph: Graph, options: Options) -> str:
    """Return the graph as DOT source, drawn as `options` say."""
    import graphviz

    theme = theme_called(options.theme)
    if options.direction not in DIRECTIONS:
        raise ArgumentError("no such direction", expected=", ".join(DIRECTIONS), got=repr(options.direction))
    drawn = sketch(view(graph, options.collapse, options.max_nodes))
    picture = graphviz.Digraph("minigraph")
    _defaults(picture, theme, options)
    picture.attr(label=legend(drawn, options.title, _remarks(drawn, options), theme))
    _clusters(picture, drawn, theme)
    for edge in drawn.edges:
        if options.saved or not edge.saved:
            _edge(picture, edge, theme, straight=drawn.boxes[edge.tail].kind != "variable")
    for above, variable in _hung(drawn):
        # Graphviz multiplies weights inside a group, our lanes, by 100: less than that would not hold against them.
        picture.edge(above, variable, style="invis", weight="2000")
    for left, right in _side_by_side(drawn):
        picture.edge(left, right, style="invis", minlen="0")
    source: str = picture.source
    # Ids in an SVG begin with this, so that several pictures can stand on one page.
    return source.replace(_ID, f"mg{zlib.crc32(source.encode()):08x}")


def _hung(drawn: Sketch) -> list[tuple[str, str]]:
    """Return (box, variable) pairs: a variable that feeds one box stands below what else feeds that box.

    Otherwise variables float up beside the layer before, and layers cannot be stacked.
    """
    readers: dict[str, list[str]] = {}
    feeds: dict[str, str] = {}
    for edge in drawn.edges:
        if edge.lane == FORWARD and not edge.saved:
            if drawn.boxes[edge.tail].kind == "variable":
                readers.setdefault(edge.tail, []).append(edge.head)
            else:
                feeds.setdefault(edge.head, edge.tail)
    single = [(v, heads[0]) for v, heads in readers.items() if len(set(heads)) == 1]
    return [(feeds[head], v) for v, head in single if head in feeds]


def _side_by_side(drawn: Sketch) -> list[tuple[str, str]]:
    """Return (layer, gradient) pairs of boxes, where each is the only one: they stand side by side, in this order."""
    places: dict[tuple[str, str], list[str]] = {}
    for box in drawn.boxes.values():
        if box.kind != "variable" and box.layer:
            places.setdefault((box.layer, box.lane), []).append(box.id)
    single = {place: ids[0] for place, ids in places.items() if len(ids) == 1}
    return [
        (id, single[layer, BACKWARD])
        for (layer, lane), id in single.items()
        if lane == FORWARD and (layer, BACKWARD) in single
    ]


def _remarks(drawn: Sketch, options: Options) -> list[str]:
    dashed = "dashed: values saved by the forward pass for the backward pass and the updates"
    shown = options.saved and any(edge.saved for edge in drawn.edges)
    return [text for text in (dashed if shown else "", options.remark) if text]


def _defaults(picture: graphviz.Digraph, theme: Theme, options: Options) -> None:
    speed = {"splines": "line", "nslimit": "1", "nslimit1": "1", "mclimit": "0.05"} if options.fast else {}
    picture.attr(
        "graph", id=_ID, rankdir=options.direction, bgcolor=theme.background, fontname=FONT, fontcolor=theme.text,
        labelloc="t", nodesep="0.25", ranksep="0.35", pad="0.2", **speed,
    )  # fmt: skip
    picture.attr(
        "node", shape="box", style="rounded,filled", fontname=FONT, fontsize="11", fontcolor=theme.text,
        margin="0.12,0.06", height="0.3", width="0.5", penwidth="1.2",
    )  # fmt: skip
    picture.attr("edge", fontname=FONT, fontsize="8", fontcolor=theme.muted, color=theme.line, arrowsize="0.6")


def _clusters(picture: graphviz.Digraph, drawn: Sketch, theme: Theme) -> None:
    """Write each box into the cluster of its scope; clusters are closed innermost first."""
    import graphviz

    counts = scopes_of(drawn.boxes.values())
    frames = _frames(counts)
    made = {"": picture}
    outside: dict[str, str] = {}  # frame → the frame around it
    for box in drawn.boxes.values():
        around = [p for p in prefixes(box.scope) if p in frames]
        outer = ""
        for prefix in around:
            if prefix not in made:
                number = len(made) - 1
                made[prefix], outside[prefix] = graphviz.Digraph(f"cluster_{number}"), outer
                made[prefix].attr(
                    label=f"<{small(_frame_name(prefix, outer, drawn.badges), 9, theme.muted)}>", labeljust="l",
                    style="rounded,filled", fillcolor=theme.cluster[0], color=theme.cluster[1],
                    id=f"{_ID}_scope{number}", **{"class": "scope"},
                )  # fmt: skip
            outer = prefix
        _box(made[outer], box, outer, theme)
    for prefix in reversed(list(outside)):
        made[outside[prefix]].subgraph(made[prefix])


def _frames(counts: Mapping[str, int]) -> set[str]:
    """Return the scopes that get a frame: those around more than one box, and around more than their only inner one."""
    fullest: dict[str, int] = {}
    for scope, count in counts.items():
        outer = scope.rpartition("/")[0]
        fullest[outer] = max(fullest.get(outer, 0), count)
    return {s for s, n in counts.items() if n > 1 and fullest.get(s) != n and s.count("/") < _DEEPEST}


def _frame_name(prefix: str, outer: str, badges: Mapping[str, str]) -> str:
    """Return a frame's label: its scope's name within the frame around it, with the repeats on the way."""
    between = [p for p in prefixes(prefix) if len(p) > len(outer)]
    return "/".join(badges.get(p) or p.rpartition("/")[2] for p in between)


def _box(picture: graphviz.Digraph, box: Box, frame: str, theme: Theme) -> None:
    if box.kind == "bare":
        label = f"<{small(box.title, 9, theme.muted)}>"
        picture.node(box.id, label, shape="plain", style="", **{"class": box.classes})
        return
    fill, border = theme.boxes[box.kind]
    lines, title = list(box.lines), box.title
    for prefix in prefixes(frame):  # inside the frame "conv1", the variable "conv1/kernel" is the "kernel"
        title = title.removeprefix(prefix.rpartition("/")[2] + "/")
    layer = box.scope.rpartition("/")[2]
    if frame != box.scope and layer and layer not in title and not title.startswith(layer):
        lines.append(layer)  # a layer of one box has no frame that would name it
    thick = {"penwidth": "2"} if box.classes in ("output", "update") else {}
    label = box_label(title, lines, theme)
    # Boxes of one group stand in one line where they can: the forward pass down one, the backward pass up another.
    group = {} if box.kind == "variable" else {"group": box.lane}
    picture.node(box.id, label, fillcolor=fill, color=border, **thick, **group, **{"class": box.classes})


def _edge(picture: graphviz.Digraph, edge: Edge, theme: Theme, straight: bool) -> None:
    if edge.saved:
        attributes = {"style": "dashed", "color": theme.saved, "constraint": "false", "class": "saved"}
        picture.edge(edge.tail, edge.head, **attributes)
        return
    attributes = {"label": edge_label(edge.label, theme)} if edge.label else {}
    if edge.lane == FORWARD:
        # Heavy edges are drawn short and straight: data flows down one line, and variables stand beside it.
        picture.edge(edge.tail, edge.head, weight="20" if straight else "1", **attributes)
        return
    kind, short = ("gradient", "grad") if edge.lane == BACKWARD else ("update", "upd")
    attributes |= {"color": theme.boxes[kind][1], "class": short}
    if edge.lane == BACKWARD:  # ranked against the flow
        picture.edge(edge.head, edge.tail, dir="back", **attributes)
    else:
        picture.edge(edge.tail, edge.head, **attributes)
