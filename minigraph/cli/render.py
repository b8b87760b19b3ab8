"""`minigraph render`: draw a saved model, or a graph's text."""

from __future__ import annotations

import argparse
import pathlib

import minigraph as mg
from minigraph.ir.graph import Graph


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    render = commands.add_parser("render", help="draw a saved model, or a graph's text")
    render.add_argument("file", type=pathlib.Path, help="model.safetensors, or a text that mg.parse reads")
    render.add_argument("--mode", choices=("definition", "training", "inference"), default="definition")
    render.add_argument("--out", type=pathlib.Path, default=pathlib.Path("graph.svg"), help=".svg, .png, .dot or .pdf")
    render.add_argument("--theme", choices=("light", "dark"), default="light")
    render.set_defaults(command=_render)


def load(path: pathlib.Path, mode: str) -> tuple[Graph, mg.Model | None]:
    """Return the graph of a saved model, or of a text, in a mode; and the model, if it is one."""
    if path.suffix == ".safetensors":
        model = mg.load_model(path)
        return (model.graph if mode == "definition" else model.lower(mode)), model
    graph = mg.parse(path.read_text(encoding="utf-8"))
    return (graph if mode == "definition" else mg.lower(graph, mode)), None


def _render(options: argparse.Namespace) -> int:
    print(mg.render(load(options.file, options.mode)[0], options.out, theme=options.theme))
    return 0
