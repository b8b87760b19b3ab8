"""Words in colour: the HTML-like labels that boxes, edges, clusters and the legend are written in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from minigraph.viz.diff import ADDED, CHANGED, GLYPHS, KEPT, REMOVED
from minigraph.viz.style import BORDERS, NAMES, Theme
from minigraph.viz.text import LONGEST, escape

_SENTENCE = 200  # characters of a title or a remark: these may be longer than the words on a box


def small(text: str, size: int, color: str, limit: int = LONGEST) -> str:
    """Return escaped text in a smaller, paler type."""
    return f'<FONT POINT-SIZE="{size}" COLOR="{color}">{escape(text, limit)}</FONT>'


def box_label(title: str, lines: Sequence[str], theme: Theme, mark: str = "") -> str:
    """Return a bold title over pale lines; a changed box's title begins with its glyph."""
    glyph = f'<FONT COLOR="{theme.changes[mark]}"><B>{GLYPHS[mark]}&#160;</B></FONT>' if mark in GLYPHS else ""
    color = theme.muted if mark == KEPT else theme.text
    rows = [
        f'{glyph}<FONT COLOR="{color}"><B>{escape(title)}</B></FONT>',
        *(small(line, 9, theme.muted) for line in lines),
    ]
    return f"<{'<BR/>'.join(rows)}>"


def edge_label(text: str, theme: Theme) -> str:
    """Return the label of an edge; the no-break space keeps it off the line."""
    return f"<{'<BR/>'.join(small(f'{chr(160)}{line}{chr(160)}', 8, theme.muted) for line in text.splitlines())}>"


def panel_label(name: str, totals: str, theme: Theme) -> str:
    """Return the label of one of two panels: its name over its totals."""
    name, totals = f'<FONT POINT-SIZE="15"><B>{escape(name)}</B></FONT>', small(totals, 9, theme.muted, _SENTENCE)
    rows = "".join(f'<TR><TD ALIGN="LEFT">{words}</TD></TR>' for words in (name, totals))
    return f'<<TABLE BORDER="0" CELLSPACING="0" CELLPADDING="1">{rows}</TABLE>>'


def legend(kinds: Iterable[str], marks: Iterable[str], title: str | None, remarks: Sequence[str], theme: Theme) -> str:
    """Return the graph's own label: title, one chip for each kind of box there is, one for each change, remarks.

    A legend made of nodes would be laid out among the graph's.
    """
    kinds, marks = set(kinds), set(marks)
    rows = [f"<B>{escape(title, _SENTENCE)}</B>"] if title else []
    rows += _row([_chip(name, *theme.boxes[kind], theme) for kind, name in NAMES.items() if kind in kinds])
    rows += _row([_change(mark, theme) for mark in (ADDED, REMOVED, CHANGED, KEPT) if mark in marks])
    for remark in remarks:
        rows.append(small(remark, 8, theme.muted, _SENTENCE))
    body = "".join(f'<TR><TD BORDER="0">{row}</TD></TR>' for row in rows or ["&#160;"])
    return f'<<TABLE BORDER="0" CELLSPACING="0">{body}</TABLE>>'


def _row(chips: list[str]) -> list[str]:
    """Return chips in a row that is as wide as they are: what is wide of it beside them is empty."""
    if not chips:
        return []
    beside = '<TD BORDER="0">&#160;</TD>'
    return [f'<TABLE BORDER="0" CELLBORDER="1" CELLSPACING="4"><TR>{beside}{"".join(chips)}{beside}</TR></TABLE>']


def _chip(name: str, fill: str, border: str, theme: Theme) -> str:
    return f'<TD BGCOLOR="{fill}" COLOR="{border}" STYLE="ROUNDED" CELLPADDING="3">{small(name, 8, theme.text)}</TD>'


def _change(mark: str, theme: Theme) -> str:
    if mark == KEPT:
        border = theme.pale(theme.muted)
        return f'<TD COLOR="{border}" STYLE="ROUNDED" CELLPADDING="3">{small("unchanged", 8, theme.muted)}</TD>'
    style, width = BORDERS[mark]
    style = "ROUNDED,DASHED" if "dashed" in style else "ROUNDED"
    color = theme.changes[mark]
    words = f'<FONT POINT-SIZE="10" COLOR="{color}"><B>{GLYPHS[mark]}&#160;</B></FONT>{small(mark, 8, theme.text)}'
    return f'<TD COLOR="{color}" BORDER="{width}" STYLE="{style}" CELLPADDING="3">{words}</TD>'
