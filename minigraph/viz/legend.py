"""Words in colour: the HTML-like labels that boxes, edges, clusters and the legend are written in."""

from __future__ import annotations

from collections.abc import Sequence

from minigraph.viz.sketch import Sketch
from minigraph.viz.style import NAMES, Theme
from minigraph.viz.text import escape

_SENTENCE = 200  # characters of a title or a remark: these may be longer than the words on a box


def small(text: str, size: int, color: str) -> str:
    """Return escaped text in a smaller, paler type."""
    return f'<FONT POINT-SIZE="{size}" COLOR="{color}">{escape(text)}</FONT>'


def box_label(title: str, lines: Sequence[str], theme: Theme) -> str:
    """Return a bold title over pale lines."""
    rows = [f"<B>{escape(title)}</B>", *(small(line, 9, theme.muted) for line in lines)]
    return f"<{'<BR/>'.join(rows)}>"


def edge_label(text: str, theme: Theme) -> str:
    """Return the label of an edge; the no-break space keeps it off the line."""
    return f"<{'<BR/>'.join(small(f'{chr(160)}{line}{chr(160)}', 8, theme.muted) for line in text.splitlines())}>"


def legend(drawn: Sketch, title: str | None, remarks: Sequence[str], theme: Theme) -> str:
    """Return the graph's own label: title, one chip for each kind of box there is, remarks.

    A legend made of nodes would be laid out among the graph's.
    """
    kinds = {box.kind for box in drawn.boxes.values()}
    chips = [_chip(name, *theme.boxes[kind], theme) for kind, name in NAMES.items() if kind in kinds]
    rows = [f"<B>{escape(title, _SENTENCE)}</B>"] if title else []
    if chips:
        rows.append(f'<TABLE BORDER="0" CELLBORDER="1" CELLSPACING="4"><TR>{"".join(chips)}</TR></TABLE>')
    for remark in remarks:
        rows.append(f'<FONT POINT-SIZE="8" COLOR="{theme.muted}">{escape(remark, _SENTENCE)}</FONT>')
    body = "".join(f'<TR><TD BORDER="0">{row}</TD></TR>' for row in rows or ["&#160;"])
    return f'<<TABLE BORDER="0" CELLSPACING="0">{body}</TABLE>>'


def _chip(name: str, fill: str, border: str, theme: Theme) -> str:
    return f'<TD BGCOLOR="{fill}" COLOR="{border}" STYLE="ROUNDED" CELLPADDING="3">{small(name, 8, theme.text)}</TD>'
