"""`minigraph train`: run a recipe, and leave all it made in a folder."""

from __future__ import annotations

import argparse
import pathlib

import minigraph as mg
from minigraph.errors import MissingExtraError


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
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
    trace = mg.optimize(model.lower("inference"), model.state)[1]
    mg.render(trace, folder / "optimized.svg", title=f"{model.name}: inference, optimised")
    with open(folder / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    history = {name: [float(row[name]) for row in rows] for name in (rows[0] if rows else {}) if name != "epoch"}
    try:
        plot_history(history, folder / "history.png")
    except MissingExtraError as error:
        print(f"no history.png: {error.message(with_place=False)}")
