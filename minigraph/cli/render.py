"""`minigraph render`: draw a saved model, an ONNX file, or a graph's text."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import minigraph as mg
from minigraph.errors import ArgumentError, ModelFormatError
from minigraph.ir.graph import Graph

_T = TypeVar("_T")


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    render = commands.add_parser("render", help="draw a saved model, an ONNX file, or a graph's text")
    add_file(render)
    render.add_argument("--mode", choices=("definition", "training", "inference"), default="definition")
    render.add_argument("--out", type=pathlib.Path, default=pathlib.Path("graph.svg"), help=".svg, .png, .dot or .pdf")
    render.add_argument("--theme", choices=("light", "dark"), default="light")
    render.set_defaults(command=_render)


def add_file(parser: argparse.ArgumentParser, **options: Any) -> None:
    """Add the file to read, and what reading it may need."""
    known = "model.safetensors, model.onnx, or a text that mg.parse reads"
    parser.add_argument("file", type=pathlib.Path, help=known, **options)
    add_shapes(parser)


def add_shapes(parser: argparse.ArgumentParser) -> None:
    """Add the option that binds sizes which an ONNX file leaves open."""
    parser.add_argument(
        "--shape",
        action="append",
        default=[],
        metavar="NAME=N,C,H,W",
        help="bind open sizes of an ONNX file's input; ? leaves one open",
    )


def shapes(texts: Iterable[str]) -> dict[str, tuple[int | None, ...]]:
    """Return the shapes that texts like `data=?,3,224,224` say; what is `?` stays open.

    >>> shapes(["data=?,3,8,8"])
    {'data': (None, 3, 8, 8)}
    """
    found = {}
    for text in texts:
        name, _, sizes = text.rpartition("=")
        parts = [part.strip() for part in sizes.split(",")]
        if not name or not all(part == "?" or part.isdecimal() for part in parts):
            raise ArgumentError("not a shape", expected="--shape NAME=1,3,224,224", got=text)
        found[name] = tuple(None if part == "?" else int(part) for part in parts)
    return found


def load(path: pathlib.Path, mode: str, shape: Iterable[str] = ()) -> tuple[Graph, mg.Model | None]:
    """Return the graph of a saved model, an ONNX file or a text, in a mode; and the model, if it is one."""
    if path.suffix in (".safetensors", ".onnx"):
        model = mg.load_model(path) if path.suffix == ".safetensors" else in_shell(mg.onnx.load, path, shapes(shape))
        return (model.graph if mode == "definition" else model.lower(mode)), model
    try:
        graph = mg.parse(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise ModelFormatError(
            f"{path} is no text", expected="a graph's text, or a file whose name ends in .safetensors or .onnx",
            hint="the ending of its name says what a file is",
        ) from None  # fmt: skip
    return (graph if mode == "definition" else mg.lower(graph, mode)), None


def in_shell(read: Callable[..., _T], *arguments: Any) -> _T:
    """Return `read(*arguments)`; what an error hints at is said as the command line has it."""
    try:
        return read(*arguments)
    except ModelFormatError as error:
        error.hint = (error.hint or "").replace("input_shapes={name: shape}", "--shape NAME=1,3,224,224") or None
        raise


def _render(options: argparse.Namespace) -> int:
    print(mg.render(load(options.file, options.mode, options.shape)[0], options.out, theme=options.theme))
    return 0
