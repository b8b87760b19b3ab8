"""Whole networks on the C backend: training and inference, all updates, folded batch norms, random graphs."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
from ir.random_graphs import runnable, values_for

import minigraph as mg
from backends.c_programs import Array, backend, check, merged, merged_values, needs_compiler
from minigraph import ops
from minigraph.autodiff import gradients
from minigraph.ir import Graph, bind, variable
from minigraph.ir.leaves import input as input_
from minigraph.optimizers import SGD, Adam
from minigraph.passes import MODES, lower
from minigraph.runtime import State, compile
from minigraph.testing.fuzz import fuzz
from minigraph.testing.networks import KINDS, random_network, random_values, training_graph

pytestmark = needs_compiler


def network(seed: int, mode: str, dtype: str, most: int = 40) -> tuple[Graph, dict[str, Array]]:
    """Return a random network in a mode, with its values."""
    rng = random.Random(f"{seed}/{mode}")
    graph = random_network(rng, dtype=dtype, size=(5, most))
    lowered = training_graph(graph) if mode == "training" else lower(graph, mode)
    bound = bind(lowered, **{symbol: rng.choice((2, 3)) for symbol in lowered.symbols})
    return bound, random_values(bound, rng, rng.choice(list(KINDS)))


def check_networks(seeds: Sequence[int], dtype: str, optimize: bool, quick: bool = True) -> None:
    """Run networks in both modes as one program, and hold all outputs and updates to their bounds."""
    graphs, values = zip(*(network(seed, mode, dtype) for seed in seeds for mode in MODES), strict=True)
    check(merged(graphs), merged_values(values), backend(quick=quick), optimize)


@pytest.mark.parametrize(
    ("seed", "dtype", "optimize"), [(0, "float32", True), (2, "float64", True), (1, "float32", False)]
)
def test_random_networks_train_and_infer_within_their_bounds(seed: int, dtype: str, optimize: bool) -> None:
    check_networks([seed], dtype, optimize)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimize", [False, True])
@pytest.mark.parametrize("part", range(10))
def test_many_random_networks_train_and_infer_within_their_bounds(part: int, optimize: bool, dtype: str) -> None:
    check_networks(range(3 * part, 3 * part + 3), dtype, optimize, quick=False)


# --- a network as they are written: channels by vectors, and a few left over ------------------------------------------


def residual_network(channels: int = 19, classes: int = 7) -> Graph:
    """Return the definition of a small residual network with every kind of layer that training has kernels for."""
    x = input_((4, 12, 12, 3), name="x")
    labels = input_((4,), "int64", "labels")
    y = x
    for i, width in enumerate((channels, channels)):
        w = variable((3, 3, y.shape[3], width), name=f"conv{i}/kernel")  # type: ignore[arg-type]
        b = [variable((width,), name=f"norm{i}/{part}") for part in ("gamma", "beta")]
        z = ops.conv2d(y, w, padding="same")
        mean, variance = ops.moments(z, (0, 1, 2))
        z = ops.relu(ops.batch_norm(z, *b, mean, variance))
        y = ops.max_pool2d(z, 2) if i == 0 else ops.add(z, y)
    wide = variable((3, 3, 1, channels), name="depthwise/kernel")
    y = ops.relu(ops.conv2d(y, wide, padding="same", groups=channels) + y)
    point = variable((1, 1, channels, channels), name="pointwise/kernel")
    y = ops.avg_pool2d(ops.conv2d(y, point, 2), 3)
    flat = ops.reshape(y, (4, -1))
    dense, bias = variable((channels, classes), name="dense/kernel"), variable((classes,), name="dense/bias")
    logits = ops.matmul(flat, dense) + bias
    loss = ops.mean(ops.softmax_cross_entropy(logits, labels))
    return Graph({"logits": logits, "loss": loss}, inputs=[x, labels])


def stepped(optimizer: SGD | Adam) -> Graph:
    """Return one training step of it."""
    graph = residual_network()
    pairs = list(zip(graph.variables, gradients(graph.outputs["loss"], graph.variables), strict=True))
    return Graph({**graph.outputs, **{f"∂{v.label}": g for v, g in pairs}}, optimizer.updates(pairs), graph.inputs)


def values_of(graph: Graph) -> dict[str, Array]:
    """Return small numbers, and labels."""
    rng = np.random.default_rng(0)
    found = {
        n.label: np.asarray(rng.standard_normal(n.shape) * 0.3, n.dtype) for n in (*graph.inputs, *graph.variables)
    }
    found |= {v.label: np.abs(found[v.label]) for v in graph.variables if not v.op.trainable}  # type: ignore[attr-defined]
    return found | {"labels": np.array([0, 3, 6, 2])}


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_training_step_is_within_its_bound_on_any_number_of_threads(threads: int) -> None:
    graph = stepped(SGD(0.1, momentum=0.9))
    check(graph, values_of(graph), backend(threads), optimize=True)


def test_a_step_of_adam_changes_all_that_it_should() -> None:
    graph = stepped(Adam(0.01))
    check(graph, values_of(graph), backend(), optimize=True)


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_many_steps_stay_close_to_numpy(threads: int) -> None:
    graph = stepped(SGD(0.05, momentum=0.9))
    values = values_of(graph)
    losses = []
    for on in (backend(threads, quick=False), "numpy"):
        program = compile(graph, backend=on)
        state = State({v.label: values[v.label].copy() for v in graph.variables})
        inputs = {i.label: values[i.label] for i in graph.inputs}
        losses.append([float(program(state, **inputs)["loss"]) for _ in range(20)])
    assert losses[0][-1] < 0.5 * losses[0][0]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)


def test_folded_batch_norms() -> None:
    """What folding makes of a state is computed as NumPy does; the bound is that of the graph before."""
    graphs, values = [], []
    for seed in range(40):
        rng = random.Random(seed)
        graph = lower(random_network(rng, size=(10, 30)), "inference")
        graph = bind(graph, **{symbol: 2 for symbol in graph.symbols})
        if not any(n.op.name == "batch_norm" for n in graph.nodes):
            continue
        drawn = random_values(graph, rng, "random")
        state = State({v.label: drawn[v.label] for v in graph.variables})
        graphs.append(mg.optimize(graph, state)[0])
        values.append(drawn)
        if len(graphs) == 4:
            break
    check(merged(graphs), merged_values(values), backend(), optimize=True)


# --- random graphs of anything ----------------------------------------------------------------------------------------


def check_runnable(seeds: Sequence[int], quick: bool = True) -> None:
    """Hold random graphs of all kinds of ops and dtypes to their bounds, several in one program."""
    graphs = [runnable(random.Random(seed)) for seed in seeds]
    values = merged_values([values_for(g, seed) for g, seed in zip(graphs, seeds, strict=True)])
    for optimize in (False, True):
        check(merged(graphs), values, backend(quick=quick), optimize)


def test_random_graphs() -> None:
    check_runnable(range(12))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_many_random_graphs(part: int) -> None:
    check_runnable(range(100 + 25 * part, 125 + 25 * part), quick=False)


@pytest.mark.parametrize("graphs", [1, pytest.param(60, marks=pytest.mark.slow)])
def test_fuzzing_finds_nothing_on_this_backend(graphs: int) -> None:
    report = fuzz(graphs, seed=5, backend="c")
    assert not report.mismatches, str(report)
    assert report.compared > 100 * graphs
