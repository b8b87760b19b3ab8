"""Training with each pass on and off, and within a memory limit: the same losses, the same moving averages."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

import minigraph as mg
from minigraph import layers
from minigraph.passes import pipelines, run
from minigraph.runtime import constant_evaluator
from minigraph.testing.bounds import analyse

STEPS = 20
BOUNDED = (0, 7, 19)  # steps at which every result is held against its error bound, which takes a second
BATCH = 8
MEANS = pipelines.Means(constant_evaluator())
NAMES = sorted({p.name for p in pipelines.program(MEANS)} | {"merge_affines", "fold_batch_norm"})


def network(dtype: str) -> mg.Model:
    """Batch norms of all kinds, a frozen one too, padding, a residual block, dropout."""
    with mg.fresh_names():
        h = image = mg.Input((8, 8, 2), name="image", dtype=dtype)
        h = mg.ops.pad(h, ((0, 0), (1, 1), (1, 1), (0, 0)))
        h = layers.Activation("relu")(layers.BatchNormalization(momentum=0.9)(layers.Conv2D(6, 3, use_bias=False)(h)))
        for _ in range(4):  # values that wait for the backward pass
            h = layers.Conv2D(6, 1, use_bias=False)(h)
            h = layers.Activation("relu")(layers.BatchNormalization(momentum=0.9)(h))
        branch = layers.BatchNormalization(momentum=0.9, unbiased=True)(layers.Conv2D(6, 3, padding="same")(h))
        h = layers.Activation("relu")(h + branch)
        h = layers.BatchNormalization(frozen=True)(layers.Conv2D(6, 1)(h))
        h = layers.MaxPooling2D()(layers.Activation("silu")(h))
        h = layers.Dropout(0.25)(layers.Flatten()(h))
        model = mg.Model(image, layers.Dense(3)(h))
    loss = mg.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(mg.optimizers.SGD(0.05, momentum=0.9), loss, metrics=["accuracy"])
    return model


def batches(dtype: str) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [
        {"image": rng.standard_normal((BATCH, 8, 8, 2)).astype(dtype), "label": rng.integers(0, 3, BATCH)}
        for _ in range(STEPS)
    ]


@functools.cache
def programs(dtype: str) -> tuple[mg.Model, mg.Graph, dict[str, mg.Program]]:
    """The training graph as it is; with all passes; with all but one; within two memory limits."""
    model = network(dtype)
    graph = mg.bind(model.lower("training"), N=BATCH)
    made = {"nothing": mg.compile(graph, optimize=False), "everything": mg.compile(graph)}
    every = [*pipelines.parse("fold_batch_norm,merge_affines", MEANS).passes, *pipelines.program(MEANS)]
    for name in NAMES:
        without = run([p for p in every if p.name != name], graph)[0]
        made[f"without {name}"] = mg.compile(without, optimize=False)
    peak = made["everything"].plan.peak
    for share in (0.85, 0.75):
        limited = mg.compile(graph, memory_limit=int(share * peak))
        assert limited.plan.peak <= share * peak
        made[f"{share:.0%} of the memory"] = limited
    return model, graph, made


@pytest.mark.parametrize("dtype", ["float64", pytest.param("float32", marks=pytest.mark.slow)])
def test_twenty_steps_with_each_pass_on_and_off(dtype):
    model, graph, made = programs(dtype)
    ends = {**graph.outputs, **{t.label: value for t, value in graph.updates.items()}}
    averages = [label for label in ends if label.rpartition("/")[2].startswith("moving_")]
    assert len(averages) == 12  # six batch norms; the frozen one keeps what it has
    reference = model.state
    states = {name: mg.State(reference) for name in made}
    for step, data in enumerate(batches(dtype)):
        found = analyse(ends.values(), {**reference, **data}) if step in BOUNDED else {}
        before = mg.State(reference)
        results = {}
        for name, program in made.items():
            state = mg.State(before)  # every program takes this step from the same numbers
            losses = program(state, **data)
            results[name] = {**losses, **{label: state[label] for label in ends if label in state}}
            states[name] = state
        for name, values in results.items():
            for label, node in ends.items():
                if found:
                    allowed = 2 * found[node].error
                    apart = np.abs(np.asarray(values[label], np.float64) - results["nothing"][label])
                    assert (apart <= allowed)[np.isfinite(allowed)].all(), f"{name}: {label}"
                if dtype == "float64" and label in averages:
                    np.testing.assert_array_equal(values[label], results["nothing"][label], err_msg=f"{name}: {label}")
        reference = states["nothing"]


def test_whole_runs_end_with_the_same_averages_in_float64():
    """Not only step by step: twenty steps on their own, each program with a state of its own."""
    model, _, made = programs("float64")
    ends = {}
    for name, program in made.items():
        state = mg.State(model.state)
        losses = [float(program(state, **data)["loss"]) for data in batches("float64")]
        ends[name] = losses, {k: v.copy() for k, v in state.items() if "moving_" in k}
    losses, averages = ends["nothing"]
    assert losses[-1] < losses[0]
    for name, (others, moved) in ends.items():
        np.testing.assert_allclose(others, losses, rtol=1e-12, err_msg=name)
        for label, value in averages.items():
            np.testing.assert_allclose(moved[label], value, rtol=1e-12, atol=1e-15, err_msg=f"{name}: {label}")
