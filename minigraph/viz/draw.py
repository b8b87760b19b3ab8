"""`render`: a graph, or what passes did to one, as a file. Tries renderers in turn, and ever simpler pictures."""

from __future__ import annotations

import html
import os
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import overload

from minigraph.errors import ArgumentError, MinigraphError
from minigraph.files import write_atomically
from minigraph.ir import Graph
from minigraph.passes import Trace
from minigraph.viz.dot import MAX_NODES, Options, Subject, dot_source, subject
from minigraph.viz.renderer import Renderer, ladder
from minigraph.viz.text import shorten

FORMATS = ("svg", "png", "pdf", "dot")
_INSTALL = {
    "pdf": "install Graphviz (apt install graphviz, brew install graphviz), or pip install 'pygraphviz>=2'",
    "png": "pip install graphviz-pure, or install Graphviz (apt install graphviz, brew install graphviz)",
}


@overload
def render(
    graph: Graph | Trace, path: None = None, *, step: int | str | None = ..., rewrite: int | None = ...,
    theme: str = ..., collapse: str | int = ..., direction: str = ..., title: str | None = ..., max_nodes: int = ...,
    timeout: float = ..., dot: str | os.PathLike[str] | None = ...,
) -> str: ...  # fmt: skip
@overload
def render(
    graph: Graph | Trace, path: str | os.PathLike[str], *, step: int | str | None = ..., rewrite: int | None = ...,
    theme: str = ..., collapse: str | int = ..., direction: str = ..., title: str | None = ..., max_nodes: int = ...,
    timeout: float = ..., dot: str | os.PathLike[str] | None = ...,
) -> Path: ...  # fmt: skip
def render(
    graph: Graph | Trace,
    path: str | os.PathLike[str] | None = None,
    *,
    step: int | str | None = None,
    rewrite: int | None = None,
    theme: str = "light",
    collapse: str | int = "auto",
    direction: str = "TB",
    title: str | None = None,
    max_nodes: int = MAX_NODES,
    timeout: float = 30.0,
    dot: str | os.PathLike[str] | None = None,
) -> Path | str:
    """Draw a graph into the file `path` (.svg, .png, .pdf, .dot) and return the path; without one, return SVG text.

    A trace is drawn as the graphs before and after, side by side, with what changed marked: of all passes, of one
    `step` (a pass's name or its index), or of one `rewrite` of that step (its index).

    theme: "light" or "dark". collapse: "auto" (above `max_nodes` boxes, for each graph, repeated blocks are drawn once
    and layers become boxes, what did not change first), "none", or the depth of the scopes that become boxes.
    direction: "TB", "LR", "BT" or "RL", the way the forward pass flows. timeout: seconds, in all; a picture that takes
    too long is drawn with less on it, and says so. dot: the Graphviz program to use; else it is `dot` on the PATH,
    graphviz-pure or pygraphviz, whatever is there.

    Raises an ArgumentError for arguments that cannot be, and a MinigraphError if nothing can draw the format in time:
    the DOT source then lies beside `path`, and the message says what to install.

    >>> import tempfile
    >>> from minigraph import ir, ops
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     render(Graph({"y": ops.neg(ir.variable((2,), name="x"))}), folder + "/net.dot").name
    'net.dot'
    """
    what = subject(graph, step, rewrite)
    options = Options(theme, collapse, direction, title, max_nodes)
    if not timeout > 0:
        raise ArgumentError("bad timeout", expected="seconds > 0", got=timeout)
    if path is None:
        return _svg(what, options, timeout, dot)
    file = Path(path)
    format = _format(file)
    if format == "dot":
        return write_atomically(file, dot_source(what, options).encode())
    try:
        if format == "svg":
            return write_atomically(file, _svg(what, options, timeout, dot).encode())
        return write_atomically(file, _picture(what, options, format, timeout, dot))
    except _NoPictureError as error:
        source = write_atomically(file.with_suffix(".dot"), dot_source(what, options).encode())
        hint = f"{error.hint}; the DOT source lies in {source}"
        raise MinigraphError(error.summary, expected=error.expected, got=error.got, hint=hint) from None


def mimebundle(graph: Graph | Trace) -> dict[str, str]:
    """Return a graph or a trace for a notebook: its text, and its picture where something can draw it.

    >>> from minigraph import ir, ops
    >>> "text/plain" in mimebundle(Graph({"y": ops.neg(ir.variable((2,), name="x"))}))
    True
    """
    bundle = {"text/plain": str(graph)}
    try:
        return {"image/svg+xml": render(graph, timeout=10.0), **bundle}
    except MinigraphError:
        return bundle


class _NoPictureError(MinigraphError):
    """No renderer made the picture."""


def _format(file: Path) -> str:
    format = file.suffix.lower().removeprefix(".").replace("gv", "dot")
    if format not in FORMATS:
        expected = "a file name that ends in " + ", ".join(f".{f}" for f in FORMATS)
        raise ArgumentError("cannot tell the picture's format", expected=expected, got=str(file))
    if not file.parent.is_dir():
        raise ArgumentError("there is no such folder", got=str(file.parent), hint="make it first")
    return format


def _picture(what: Subject, options: Options, format: str, timeout: float, dot: str | os.PathLike[str] | None) -> bytes:
    """Return the picture by the first renderer that can, in the first form that is ready in time."""
    renderers = ladder(format, dot)
    end = time.monotonic() + timeout
    failures: dict[str, None] = {}
    why = ""
    seen: set[str] = set()
    for step, missing in _forms(what, options):
        plain = dot_source(what, step)
        if plain in seen:
            continue
        seen.add(plain)
        source = dot_source(what, replace(step, remark=f"The layout {why}: {missing}")) if missing else plain
        left = max(end - time.monotonic(), 0.1)
        try:
            return _drawn(renderers, source, format, left if step.fast else left / 2, failures)
        except TimeoutError:
            why = "took too long"
        except MinigraphError:
            why = why or "failed"
    late = why == "took too long"
    raise _NoPictureError(
        f"no picture after {timeout:g} s" if late else f"nothing here can draw a {format}",
        got="; ".join(failures) or None,
        hint="give a longer timeout, or collapse=1" if late else _INSTALL.get(format, _INSTALL["png"]),
    )


def _drawn(renderers: list[Renderer], source: str, format: str, timeout: float, failures: dict[str, None]) -> bytes:
    """Return the picture by the first renderer that can; a TimeoutError when it is late, else a MinigraphError."""
    for renderer in renderers:
        try:
            return renderer.run(source, format, timeout)
        except TimeoutError:
            raise
        except MinigraphError as error:
            failures[f"{error.summary}: {error.got}"] = None
    raise MinigraphError("nothing here can draw this")


def _forms(what: Subject, options: Options) -> list[tuple[Options, str]]:
    """Return the options as they are, then for ever simpler pictures, each with what is missing in it.

    The last one gets all the time that is left.

    1. without the saved values, whose long edges cost most, and without the rows of two graphs; 2. also a box for each
    outermost scope; 3. also with straight edges and less care about crossings.
    """
    fewer = replace(options, saved=False)
    scopes = replace(fewer, collapse="auto", max_nodes=1)
    late = "drawn without saved values" if isinstance(what, Graph) else "drawn without rows and saved values"
    return [
        (options, ""),
        (fewer, late),
        (scopes, f"{late}, layers collapsed"),
        (replace(scopes, fast=True), f"{late}, layers collapsed, edges straight"),
    ]


def _svg(what: Subject, options: Options, timeout: float, dot: str | os.PathLike[str] | None) -> str:
    text = _picture(what, options, "svg", timeout, dot).decode()
    return finish_svg(text, options.title or _description(what))


def _description(what: Subject) -> str:
    if isinstance(what, Graph):
        return f"Computation graph of {len(what.nodes)} nodes"
    return f"{what.title}: {len(what.before.nodes)} nodes before, {len(what.after.nodes)} after"


def finish_svg(text: str, title: str) -> str:
    """Return a renderer's SVG as an accessible image that can stand in a page: role, title, a small style.

    >>> finish_svg('<?xml version="1.0"?><svg width="1pt"></svg>', "net").split("<style>")[0]
    '<svg role="img" width="1pt"><title>net</title>'
    """
    start = text.index("<svg")
    inside = text.index(">", start) + 1
    opening, body = text[start:inside], text[inside:]
    found = re.search(r'<g id="(mg[0-9a-f]{8})"', body)
    within = f"#{found[1]} " if found else ""  # a style in a page holds for the whole page
    style = f"{within}.node:hover path{{stroke-width:2.5}}{within}.edge:hover path{{stroke-width:2}}"
    body = body.replace("<title>minigraph</title>\n", "", 1)  # a second title, which would cover all of the picture
    head = f"<title>{html.escape(shorten(title, 200))}</title><style>{style}</style>"
    return opening.replace("<svg", '<svg role="img"', 1) + head + body
