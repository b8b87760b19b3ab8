"""From a graph, or two side by side, to DOT, the language of Graphviz: the same in, the same out, under any hash seed.

The forward pass flows in the picture's direction and the backward pass against it, so that a layer's gradient stands
beside the layer. Saved values, which lead from the one to the other, take no part in the ranking: with them the layout
of a few hundred nodes takes minutes. Ranks are the whole picture's, not each cluster's own, so that layers stand one
below the other, and what two graphs have in common stands in one row.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from minigraph.errors import ArgumentError
from minigraph.ir import Graph
from minigraph.passes import Trace
from minigraph.passes.totals import totals, totals_text
from minigraph.viz.collapse import view, views
from minigraph.viz.diff import GLYPHS, KEPT, Comparison, compare, marks
from minigraph.viz.layout import common_rows
from minigraph.viz.legend import legend, panel_label
from minigraph.viz.panel import ID, same_row, write_panel
from minigraph.viz.sketch import Sketch, sketch
from minigraph.viz.style import FONT, Theme, theme_called

if TYPE_CHECKING:
    import graphviz

# What is drawn.
Subject: TypeAlias = "Graph | Comparison"

MAX_NODES = 80
DIRECTIONS = ("TB", "LR", "BT", "RL")
_RULES = 6  # rules that are listed by name


@dataclass(frozen=True)
class Options:
    """How a graph is drawn; `saved`, `fast` and `remark` are how `render` saves time on a graph that takes too long.

    Without `saved` there are no saved values, and two graphs are not brought into rows.
    """

    theme: str = "light"
    collapse: str | int = "auto"
    direction: str = "TB"
    title: str | None = None
    max_nodes: int = MAX_NODES
    saved: bool = True
    fast: bool = False
    remark: str = ""


def to_dot(
    graph: Graph | Trace,
    *,
    step: int | str | None = None,
    rewrite: int | None = None,
    theme: str = "light",
    collapse: str | int = "auto",
    direction: str = "TB",
    title: str | None = None,
    max_nodes: int = MAX_NODES,
) -> str:
    """Return the graph, or what passes did to one, as DOT source; the arguments, and the errors, are those of `render`.

    >>> from minigraph import ir, ops
    >>> "n0 -> n1" in to_dot(Graph({"y": ops.neg(ir.variable((2,), name="x"))}))
    True
    """
    return dot_source(subject(graph, step, rewrite), Options(theme, collapse, direction, title, max_nodes))


def subject(what: Graph | Trace, step: int | str | None = None, rewrite: int | None = None) -> Subject:
    """Return what is drawn of a graph or a trace; an ArgumentError for a step or a rewrite that there is not."""
    if isinstance(what, Trace):
        return compare(what, step, rewrite)
    if not isinstance(what, Graph):
        raise ArgumentError("cannot draw this", expected="a graph or a trace", got=type(what).__name__)
    if step is not None or rewrite is not None:
        raise ArgumentError("a graph has no steps", expected="a trace, as mg.optimize returns it", got=repr(what))
    return what


def dot_source(what: Subject, options: Options) -> str:
    """Return a graph, or two side by side, as DOT source, drawn as `options` say."""
    import graphviz

    theme = theme_called(options.theme)
    if options.direction not in DIRECTIONS:
        raise ArgumentError("no such direction", expected=", ".join(DIRECTIONS), got=repr(options.direction))
    picture = graphviz.Digraph("minigraph")
    _defaults(picture, theme, options)
    if isinstance(what, Graph):
        drawn = [sketch(view(what, options.collapse, options.max_nodes))]
        write_panel(picture, drawn[0], theme, "", options.saved)
        title, remarks = options.title, []
    else:
        drawn = _side_by_side(picture, what, theme, options)
        title = what.title if options.title is None else options.title
        remarks = [*what.remarks, _rules(what), _unseen(what, drawn)]
    boxes = [box for each in drawn for box in (*each.boxes.values(), *each.frames.values())]
    kinds, changes = {box.kind for box in boxes}, {box.mark for box in boxes}
    remarks += [*_dashed(drawn, options), options.remark]
    picture.attr(label=legend(kinds, changes, title, [r for r in remarks if r], theme))
    source: str = picture.source
    # Ids in an SVG begin with this, so that several pictures can stand on one page.
    return source.replace(ID, f"mg{zlib.crc32(source.encode()):08x}")


def _side_by_side(picture: graphviz.Digraph, what: Comparison, theme: Theme, options: Options) -> list[Sketch]:
    """Write both graphs of a comparison, each into a cluster of its own."""
    import graphviz

    graphs = [what.before, what.after]
    both = views(graphs, marks(what), options.collapse, options.max_nodes)
    drawn = [sketch(each, prefix) for each, prefix in zip(both, "ba", strict=True)]
    sizes = _sizes(what)
    costs = [totals(graph, what.measure_peak, sizes) for graph in graphs]
    at = ", ".join(f"{name} = {size}" for name, size in sizes.items())
    panels = []
    for name, each, cost, old in zip(("before", "after"), drawn, costs, (None, costs[0]), strict=True):
        line = totals_text(cost, old) + (f" ({at})" if at and cost.flops is not None else "")
        panel = graphviz.Digraph(f"cluster_{name}")
        panel.attr(
            label=panel_label(name, line, theme), labeljust="l", style="rounded", color=theme.cluster[1],
            margin="14", id=f"{ID}_{name}", **{"class": f"panel {name}"},
        )  # fmt: skip
        write_panel(panel, each, theme, name[0], options.saved)
        panels.append(panel)
    # Where ranks are columns, Graphviz sets what comes first below.
    for panel in reversed(panels) if options.direction in ("LR", "RL") else panels:
        picture.subgraph(panel)
    for left, right in common_rows(*drawn) if options.saved else []:
        same_row(picture, left, right)
    return drawn


def _sizes(what: Comparison) -> Mapping[str, int]:
    """Return the size at which symbolic graphs are counted: 1, or 2 where batch statistics want two examples."""
    sizes: dict[str, int] = {}
    for size in (1, 2):
        sizes = dict.fromkeys((*what.before.symbols, *what.after.symbols), size)
        if all(totals(graph, None, sizes).flops is not None for graph in (what.before, what.after)):
            break
    return sizes


def _unseen(what: Comparison, drawn: list[Sketch]) -> str:
    """Say why no box is marked, where none is."""
    if any(box.mark in GLYPHS for each in drawn for box in (*each.boxes.values(), *each.frames.values())):
        return ""
    if all(mark == KEPT for each in marks(what) for mark in each.nodes.values()):
        return "both graphs are the same"
    return "what changed has no box of its own: small constants, or one of several results"


def _rules(what: Comparison) -> str:
    """Say how often which rule fired; of a single rewrite the title says it."""
    if len(what.rewrites) == 1:
        return ""
    said = [f"{rule} ×{count}" if count > 1 else rule for rule, count in what.rules[:_RULES]]
    more = sum(count for _, count in what.rules[_RULES:])
    return ", ".join(said + ([f"{more} more"] if more else [])) or "no rule fired"


def _dashed(drawn: list[Sketch], options: Options) -> list[str]:
    shown = options.saved and any(edge.saved for each in drawn for edge in each.edges)
    return ["pale dashes: values saved by the forward pass for the backward pass and the updates"] if shown else []


def _defaults(picture: graphviz.Digraph, theme: Theme, options: Options) -> None:
    speed = {"splines": "line", "nslimit": "1", "nslimit1": "1", "mclimit": "0.05"} if options.fast else {}
    picture.attr(
        "graph", id=ID, rankdir=options.direction, bgcolor=theme.background, fontname=FONT, fontcolor=theme.text,
        labelloc="t", nodesep="0.25", ranksep="0.35", pad="0.2", newrank=str(not options.fast).lower(), **speed,
    )  # fmt: skip
    picture.attr(
        "node", shape="box", style="rounded,filled", fontname=FONT, fontsize="11", fontcolor=theme.text,
        margin="0.12,0.06", height="0.3", width="0.5", penwidth="1.2",
    )  # fmt: skip
    picture.attr("edge", fontname=FONT, fontsize="8", fontcolor=theme.muted, color=theme.line, arrowsize="0.6")
