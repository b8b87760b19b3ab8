"""A panel: the boxes, frames and edges of one graph as DOT, in a picture of its own or beside another panel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from minigraph.viz.boxes import Box
from minigraph.viz.diff import CHANGED, KEPT
from minigraph.viz.lanes import BACKWARD, FORWARD, UPDATE, prefixes
from minigraph.viz.layout import beside_readers, hung, side_by_side
from minigraph.viz.legend import box_label, edge_label, small
from minigraph.viz.sketch import Edge, Sketch, scopes_of
from minigraph.viz.style import BORDERS, Theme

if TYPE_CHECKING:
    import graphviz

_BESIDE = "100"  # the weight by which a layer is drawn to its gradient
ID = "\x1a"  # stands for the picture's id. No label holds this: control characters are replaced
_DEEPEST = 8  # clusters in clusters; more are a maze, and renderers recurse over them


def write_panel(picture: graphviz.Digraph, drawn: Sketch, theme: Theme, prefix: str, saved: bool) -> None:
    """Write a sketch into a picture or a cluster: boxes, edges, and edges nobody sees that keep boxes in their places.

    prefix: what the ids of frames begin with. saved: whether saved values are drawn.
    """
    _boxes(picture, drawn, theme, prefix)
    for edge in drawn.edges:
        if saved or not edge.saved:
            _edge(picture, edge, theme, _weight(drawn.boxes[edge.tail], drawn.boxes[edge.head], edge))
    for above, leaf in hung(drawn):
        picture.edge(above, leaf, style="invis", weight="0")
    for left, right in side_by_side(drawn):
        same_row(picture, left, right)
        picture.edge(left, right, style="invis", weight=_BESIDE)
    for constant, reader in beside_readers(drawn):
        same_row(picture, reader, constant)


def _weight(tail: Box, head: Box, edge: Edge) -> str:
    """Return an edge's weight: what is heavy is drawn short and straight.

    Data flows down one line, gradients up another, and parameters stand beside. Where something must give, as for rows
    of two panels, it is between layers, the outermost first.
    """
    if edge.lane == UPDATE or tail.fixed:
        return "2"
    if tail.frame and tail.frame == head.frame:
        return "2000"
    shared = sum(a == b for a, b in zip(prefixes(tail.scope), prefixes(head.scope), strict=False))
    return str((50 if edge.lane == BACKWARD else 200) * (1 + shared))


def same_row(picture: graphviz.Digraph, left: str, right: str) -> None:
    """Write that two boxes stand in one row."""
    with picture.subgraph() as row:
        row.attr(rank="same")
        row.node(left)
        row.node(right)


def _boxes(picture: graphviz.Digraph, drawn: Sketch, theme: Theme, prefix: str) -> None:
    """Write each box into the cluster of its scope, or of its fused node; clusters are closed innermost first."""
    import graphviz

    frames = _frames(scopes_of(drawn.boxes.values()))
    made = {"": picture}
    outside: dict[str, str] = {}  # frame → the frame around it
    for box in drawn.boxes.values():
        outer = ""
        for inner in [p for p in prefixes(box.scope) if p in frames]:
            if inner not in made:
                number = len(made) - 1
                made[inner], outside[inner] = graphviz.Digraph(f"cluster_{prefix}{number}"), outer
                made[inner].attr(
                    label=f"<{small(_frame_name(inner, outer, drawn.badges), 9, theme.muted)}>", labeljust="l",
                    style="rounded,filled", fillcolor=theme.cluster[0], color=theme.cluster[1],
                    id=f"{ID}_{prefix}scope{number}", **{"class": "scope"},
                )  # fmt: skip
            outer = inner
        if box.frame:
            inner = f"{box.frame}/"  # no scope ends like this
            if inner not in made:
                made[inner], outside[inner] = graphviz.Digraph(f"cluster_{box.frame}"), outer
                _frame(made[inner], drawn.frames[box.frame], box.id, theme)
            outer = inner
        _box(made[outer], box, outer, theme)
    for inner in reversed(list(outside)):
        made[outside[inner]].subgraph(made[inner])


def _frames(counts: Mapping[str, int]) -> set[str]:
    """Return the scopes that get a frame: those around more than one box, and around more than their only inner one."""
    fullest: dict[str, int] = {}
    for scope, count in counts.items():
        outer = scope.rpartition("/")[0]
        fullest[outer] = max(fullest.get(outer, 0), count)
    return {s for s, n in counts.items() if n > 1 and fullest.get(s) != n and s.count("/") < _DEEPEST}


def _frame_name(scope: str, outer: str, badges: Mapping[str, str]) -> str:
    """Return a frame's label: its scope's name within the frame around it, with the repeats on the way."""
    between = [p for p in prefixes(scope) if len(p) > len(outer)]
    return "/".join(badges.get(p) or p.rpartition("/")[2] for p in between)


def _frame(cluster: graphviz.Digraph, fused: Box, first: str, theme: Theme) -> None:
    """Write what tells about a fused node, into the cluster around its ops: beside the first one, clear of arrows."""
    look = _look(fused, theme)
    look["fillcolor"] = theme.pale(look["fillcolor"])
    cluster.attr(label="", id=f"{ID}_{fused.id}", **look, **{"class": fused.classes})
    title = f"{fused.id}_title"
    label = box_label(fused.title, fused.lines, theme, fused.mark)
    cluster.node(title, label, shape="plain", style="", **{"class": "title"})
    same_row(cluster, title, first)


def _box(picture: graphviz.Digraph, box: Box, frame: str, theme: Theme) -> None:
    if box.kind == "bare":
        label = f"<{small(box.title, 9, theme.muted)}>"
        picture.node(box.id, label, shape="plain", style="", **{"class": box.classes})
        return
    lines, title = list(box.lines), box.title
    for prefix in prefixes(frame):  # inside the frame "conv1", the variable "conv1/kernel" is the "kernel"
        title = title.removeprefix(prefix.rpartition("/")[2] + "/")
    layer = box.scope.rpartition("/")[2]
    if frame != box.scope and layer and layer not in title and not title.startswith(layer) and not box.frame:
        lines.append(layer)  # a layer of one box has no frame that would name it
    picture.node(box.id, box_label(title, lines, theme, box.mark), **_look(box, theme), **{"class": box.classes})


def _look(box: Box, theme: Theme) -> dict[str, str]:
    """Return the colours and lines of a box: the fill says what kind it is, the border whether it is new."""
    fill, border = theme.boxes[box.kind]
    if box.mark == KEPT:
        return {"fillcolor": theme.pale(fill), "color": theme.pale(border)}
    if box.mark in BORDERS:
        style, width = BORDERS[box.mark]
        return {"fillcolor": fill, "color": theme.changes[box.mark], "style": style, "penwidth": width}
    thick = {"penwidth": "2"} if box.classes in ("output", "update") else {}
    return {"fillcolor": fill, "color": border, **thick}


def _edge(picture: graphviz.Digraph, edge: Edge, theme: Theme, weight: str) -> None:
    if edge.saved:
        attributes = {"style": "dashed", "color": theme.saved, "constraint": "false", "class": "saved"}
        picture.edge(edge.tail, edge.head, **attributes)
        return
    attributes = {"label": edge_label(edge.label, theme)} if edge.label else {}
    kind, short = {BACKWARD: ("gradient", "grad"), FORWARD: ("", "")}.get(edge.lane, ("update", "upd"))
    color = theme.boxes[kind][1] if kind else theme.line
    if edge.mark == KEPT:
        attributes["color"] = theme.pale(color)
    elif kind:
        attributes["color"] = color
    if edge.mark == CHANGED:
        attributes["penwidth"] = "1.8"
    classes = " ".join(filter(None, [short, "changed" if edge.mark == CHANGED else ""]))
    if classes:
        attributes["class"] = classes
    if edge.lane == BACKWARD:  # ranked against the flow
        picture.edge(edge.head, edge.tail, dir="back", weight=weight, **attributes)
    else:
        picture.edge(edge.tail, edge.head, weight=weight, **attributes)
