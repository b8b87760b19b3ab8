"""Complete recipes: data, network, schedule. `minigraph train NAME` runs one and leaves all it made in a folder."""

from __future__ import annotations

import json
import math
import pathlib
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigraph import datasets, losses, optimizers
from minigraph.augmentation import RandomShift
from minigraph.errors import ArgumentError, DataError, did_you_mean
from minigraph.files import write_atomically
from minigraph.ir.graph import bind
from minigraph.ir.types import known
from minigraph.models.small import digits_network, mnist_network
from minigraph.passes.report import batch_norms, count_batch_norms, trace_totals
from minigraph.runtime import compile, optimize
from minigraph.training.callbacks import CSVLogger, ModelCheckpoint
from minigraph.training.checkpoint import load_model
from minigraph.training.fitting import Progress
from minigraph.training.model import Model


@dataclass(frozen=True)
class Recipe:
    """What a training run is made of. The learning rate warms up over one epoch, then follows half a cosine to 0."""

    data: Callable[[int], datasets.Split]
    network: Callable[[int], Model]
    epochs: int
    learning_rate: float = 4e-3
    batch_size: int = 64
    label_smoothing: float = 0.1
    drop_last: bool = False
    augment: Any = None


RECIPES = {
    "digits": Recipe(datasets.digits, digits_network, epochs=20, drop_last=True),
    "mnist5k": Recipe(datasets.mnist_5k, mnist_network, epochs=25, augment=RandomShift(2)),
}
CHECKPOINT = "checkpoint.safetensors"


def train(
    name: str, out: str | pathlib.Path, *, epochs: int | None = None, batch_size: int | None = None,
    learning_rate: float | None = None, backend: str = "numpy", seed: int = 0, resume: bool = False,
    verbose: str | int = "auto",
) -> dict[str, Any]:  # fmt: skip
    """Run a recipe and return its report; the folder `out` gets model, history, pictures and report.

    The test split is scored once an epoch for the curve, and nothing is selected by it. Ctrl-C leaves
    `checkpoint.safetensors`, from which `resume=True` goes on bit for bit.
    """
    recipe = _recipe(name)
    if epochs is not None and epochs < 1:
        raise ArgumentError("nothing to train", expected="epochs ≥ 1", got=epochs)
    folder = pathlib.Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    (x, y), test = recipe.data(seed)
    size, total = batch_size or recipe.batch_size, recipe.epochs if epochs is None else epochs
    if resume:
        model = _resumable(folder / CHECKPOINT, recipe, seed)
    else:
        model = recipe.network(seed)
        model.compile(
            _optimizer(recipe, learning_rate, len(x), size, total),
            losses.SparseCategoricalCrossentropy(from_logits=True, label_smoothing=recipe.label_smoothing),
            ["accuracy"],
            backend,
        )
    start = time.perf_counter()
    model.fit(
        x, y, size, total, verbose, [CSVLogger(folder / "history.csv"), ModelCheckpoint(folder / CHECKPOINT)],
        validation_data=test, augment=recipe.augment, drop_last=recipe.drop_last, resume=resume,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    scores = model.evaluate(*test)
    report = {
        "recipe": name, "seed": seed, "epochs": total, "batch_size": size, "backend": backend,
        "train_examples": len(x), "test_examples": len(test[0]), "accuracy": scores["accuracy"],
        "loss": scores["loss"], "seconds": seconds, **_costs(model, size), "optimized": _optimized(model, *test),
    }  # fmt: skip
    model.progress = Progress()
    model.save(folder / "model.safetensors")
    (folder / CHECKPOINT).unlink(missing_ok=True)
    write_atomically(folder / "report.json", json.dumps(report, indent=2) + "\n")
    return report


def _recipe(name: str) -> Recipe:
    if name not in RECIPES:
        raise ArgumentError(
            f"no recipe is called {name!r}", expected=", ".join(RECIPES), hint=did_you_mean(name, list(RECIPES))
        )
    return RECIPES[name]


def _optimizer(
    recipe: Recipe, learning_rate: float | None, examples: int, size: int, epochs: int
) -> optimizers.Optimizer:
    steps = max(1, examples // size if recipe.drop_last else math.ceil(examples / size))
    rate = recipe.learning_rate if learning_rate is None else learning_rate
    return optimizers.Adam(optimizers.CosineDecay(rate, max(1, (epochs - 1) * steps), warmup_steps=steps))


def _resumable(path: pathlib.Path, recipe: Recipe, seed: int) -> Model:
    if not path.exists():
        raise DataError("there is nothing to resume", expected=str(path), where="", hint="run without --resume first")
    model = load_model(path)
    if str(model.graph) != str(recipe.network(seed).graph) or model.seed != seed:
        raise DataError("the checkpoint is of another recipe or seed", got=f"{model.name}, seed {model.seed}", where="")
    return model


def _costs(model: Model, batch_size: int) -> dict[str, Any]:
    """Return nodes, FLOPs and peak bytes of both programs."""
    training, inference = model.program("training"), model.program("inference")
    trained, inferred = training.prepare(N=batch_size), inference.prepare(N=1)
    return {
        "parameters": sum(known(v.tensor_type.size) for v in model.graph.variables),
        "definition_nodes": len(model.graph.nodes),
        "training_nodes": len(trained.graph.nodes),
        "inference_nodes": len(inferred.graph.nodes),
        "training_step_flops": sum(known(n.op.flops(n)) for n in trained.graph.nodes),
        "inference_flops": sum(known(n.op.flops(n)) for n in inferred.graph.nodes),
        "training_peak_bytes": trained.plan.peak,
        "inference_peak_bytes": inferred.plan.peak,
    }


def _optimized(model: Model, x: Any, y: Any, repeats: int = 15) -> dict[str, Any]:
    """Return what `mg.optimize` makes of the inference graph: pairs (before, after), at a batch of all that is tested.

    The speed ratio is that of the medians of runs in turns, the graph as it was lowered against the optimised one.
    """
    graph = bind(model.lower("inference"), N=len(x))
    optimized, trace = optimize(graph, model.state)
    programs = [compile(graph, optimize=False), compile(optimized)]
    feed = {graph.inputs[0].label: x}
    accuracies, times = [], ([], [])  # type: tuple[list[float], tuple[list[float], list[float]]]
    for program in programs:
        (answers,) = program(model.state, **feed).values()
        accuracies.append(float(np.mean(np.argmax(answers, -1) == y)))
    for _ in range(repeats):
        for program, record in zip(programs, times, strict=True):
            start = time.perf_counter()
            program(model.state, **feed)
            record.append(time.perf_counter() - start)
    before, after = trace_totals(trace)
    return {
        "batch_norms": [count_batch_norms(graph), count_batch_norms(optimized)],
        "nodes": [before.nodes, after.nodes],
        "flops": [before.flops, after.flops],
        "bytes": [before.bytes, after.bytes],
        "peak_bytes": [before.peak, after.peak],
        "accuracy": accuracies,
        "batch_size": len(x),
        "speed_ratio": statistics.median(times[0]) / statistics.median(times[1]),
        "batch_norm_outcomes": [str(outcome) for outcome in batch_norms(trace)],
    }
