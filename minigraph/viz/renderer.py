"""Renderers: programs that turn DOT into SVG, PNG or PDF, each run in a process of its own that can be stopped."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass

from minigraph.errors import ArgumentError, MinigraphError

# What a file of each format holds near its start: a renderer that exits with 0 may still have written something else.
_MARKS = {"svg": b"<svg", "png": b"\x89PNG\r\n\x1a\n", "pdf": b"%PDF"}
_PNG_DPI = "-Gdpi=144"  # sharp on screens of both densities

# pygraphviz has no command: this is one. Arguments: the format, and more of dot's.
_PYGRAPHVIZ = (
    "import sys, pygraphviz; source = sys.stdin.buffer.read().decode();"
    "graph = pygraphviz.AGraph(string=source);"
    "data = graph.draw(format=sys.argv[1][2:], prog='dot', args=' '.join(sys.argv[2:]));"
    "sys.stdout.buffer.write(data)"
)


@dataclass(frozen=True)
class Renderer:
    """A command that reads DOT and writes a picture, with `-Tsvg` and the like as dot itself has."""

    name: str
    command: tuple[str, ...]

    def run(self, source: str, format: str, timeout: float) -> bytes:
        """Return the picture; a TimeoutError after `timeout` seconds, a MinigraphError if the command fails."""
        options = ["-Tpng", _PNG_DPI] if format == "png" else [f"-T{format}"]
        try:
            code, picture, messages = _run([*self.command, *options], source.encode(), timeout)
        except TimeoutError:  # is an OSError
            raise
        except OSError as error:
            raise MinigraphError(f"{self.name} cannot be started", got=error) from None
        if code != 0 or _MARKS[format] not in picture[:4096]:
            said = messages.decode(errors="replace").strip().splitlines()
            raise MinigraphError(f"{self.name} cannot draw {format}", got=said[-1] if said else f"exit status {code}")
        return picture


def ladder(format: str, dot: str | os.PathLike[str] | None = None) -> list[Renderer]:
    """Return the renderers to try for a format, best first.

    A `dot` that the user names is the only one. Else: `dot` on the PATH, graphviz-pure (no PDF), pygraphviz. Raises an
    ArgumentError if the named program does not exist.

    >>> [r.name for r in ladder("svg", "no/such/dot")]
    Traceback (most recent call last):
    ...
    minigraph.errors.ArgumentError: there is no such program
      expected: the path of Graphviz's dot
      got:      no/such/dot
    ...
    """
    if dot is not None:
        given = shutil.which(os.fspath(dot))
        if given is None:
            raise ArgumentError("there is no such program", expected="the path of Graphviz's dot", got=os.fspath(dot))
        return [Renderer(os.fspath(dot), (given,))]
    found = []
    system = shutil.which("dot")
    if system is not None:
        found.append(Renderer("dot", (system,)))
    pure = None if format == "pdf" else graphviz_pure()
    if pure is not None:
        found.append(Renderer("graphviz-pure", (pure,)))
    if importlib.util.find_spec("pygraphviz") is not None:
        found.append(Renderer("pygraphviz", (sys.executable, "-c", _PYGRAPHVIZ)))
    return found


def graphviz_pure() -> str | None:
    """Return the path of the graphviz-pure program, or None.

    Its wheel holds no Python, only the program; asking the installed distribution finds it where PATH does not.
    """
    try:
        files = importlib.metadata.files("graphviz-pure") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        path = file.locate()
        if file.stem == "graphviz-pure" and os.access(path, os.X_OK):
            return os.path.normpath(path)
    return shutil.which("graphviz-pure")


def _run(command: list[str], data: bytes, timeout: float) -> tuple[int, bytes, bytes]:
    own_session = os.name == "posix"
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=own_session) as process:
        try:
            picture, messages = process.communicate(data, timeout)
        except BaseException as error:
            # `dot` may be a script: stop its children too, or they keep the pipes open and the processor busy.
            if own_session:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
            if isinstance(error, subprocess.TimeoutExpired):
                raise TimeoutError(f"no picture after {timeout:.1f} s") from None
            raise
    return process.returncode, picture, messages
