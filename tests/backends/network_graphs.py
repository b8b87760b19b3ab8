"""Graphs of whole networks, with values, for backends that generate code; several in one, for compiling takes time."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from ir.random_graphs import runnable, values_for

import minigraph as mg
from backends.programs import Array, merged, merged_values
from minigraph import ops
from minigraph.autodiff import gradients
from minigraph.backends import Backend
from minigraph.ir import Graph, bind, variable
from minigraph.ir.leaves import input as input_
from minigraph.optimizers import SGD, Adam
from minigraph.passes import MODES, lower
from minigraph.runtime import State, compile
from minigraph.testing.networks import KINDS, random_network, random_values, training_graph


def network(seed: int, mode: str, dtype: str, most: int = 40) -> tuple[Graph, dict[str, Array]]:
    """Return a random network in a mode, with its values."""
    rng = random.Random(f"{seed}/{mode}")
    graph = random_network(rng, dtype=dtype, size=(5, most))
    lowered = training_graph(graph) if mode == "training" else lower(graph, mode)
    bound = bind(lowered, **{symbol: rng.choice((2, 3)) for symbol in lowered.symbols})
    return bound, random_values(bound, rng, rng.choice(list(KINDS)))


def networks(seeds: Sequence[int], dtype: str) -> tuple[Graph, dict[str, Array]]:
    """Return random networks in both modes, as one, with its values."""
    graphs, values = zip(*(network(seed, mode, dtype) for seed in seeds for mode in MODES), strict=True)
    return merged(graphs), merged_values(values)


def random_graphs(seeds: Sequence[int]) -> tuple[Graph, dict[str, Array]]:
    """Return random graphs of all kinds of ops and dtypes, as one, with its values."""
    graphs = [runnable(random.Random(seed)) for seed in seeds]
    return merged(graphs), merged_values([values_for(g, seed) for g, seed in zip(graphs, seeds, strict=True)])


def folded_networks() -> tuple[Graph, dict[str, Array]]:
    """Return inference graphs with folded batch norms, as one, with its values."""
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
    return merged(graphs), merged_values(values)


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


def stays_close_to_numpy(on: Backend, steps: int = 20) -> None:
    """Assert that many steps of training have the losses that they have on NumPy, and that the loss halves."""
    graph = stepped(SGD(0.05, momentum=0.9))
    values = values_of(graph)
    values |= State.initial([v for v in graph.variables if getattr(v.op, "init", None) is not None])  # the optimiser's
    losses = []
    for backend in (on, "numpy"):
        program = compile(graph, backend=backend)
        state = State({v.label: values[v.label] for v in graph.variables})
        inputs = {i.label: values[i.label] for i in graph.inputs}
        losses.append([float(program(state, **inputs)["loss"]) for _ in range(steps)])
    assert losses[0][-1] < 0.5 * losses[0][0]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)
