"""Whole networks in N,C,H,W: how few transposes are left in inference and in training, and the same numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ir.random_graphs import values_for

import minigraph as mg
from minigraph import ops
from minigraph.ir import Graph, Node
from minigraph.passes import CHANNELS_LAST, CommonSubexpressions, Trace, pipelines, run
from minigraph.testing import assert_same_results
from passes.channels_first import NETWORKS, block, descent, inference, left, lowered, training

every_network = pytest.mark.parametrize("name", NETWORKS)
# What is a transpose in the network itself: two shuffles, one shuffle; and their adjoints in training.
SHUFFLES = {"shuffled": 2, "resized_by_pixel_shuffle": 1}
# A mask is drawn in the order of N,C,H,W.
MASKS = {"dropped_out": 1}
# Their weights are turned where these are not larger than the images: for a batch of 6, and not of 2.
FLAT = ("flattened", "decoded")
# How many of their variables are turned; in training a ReLU is read beside its reshape, which turns the image instead.
TURNED = {inference: {"flattened": 1, "decoded": 2}, training: {"flattened": 1}}
READ_TWICE = {"decoded": 2}
# How many kernels a network has that are O,I,H,W variables where it is imported.
KERNELS = {
    "plain": 3, "residual": 4, "residual_of_input": 2, "squeezed_by_convolutions": 4, "squeezed_by_dense_layers": 2,
    "inception": 6, "densely_connected": 4, "depthwise": 4, "shuffled": 4, "pooled": 1, "pooled_and_flattened": 1,
    "flattened": 1, "decoded": 2, "resized_to_nearest": 2, "resized_by_matrices": 2, "resized_by_convolution": 4,
    "resized_by_pixel_shuffle": 3, "attending_in_space": 2, "normalised_over_channels": 2,
    "normalised_over_neighbours": 2, "normalised_in_groups": 2, "padded_and_cropped": 2,
    "classified_at_each_pixel": 2, "dropped_out": 2,
}  # fmt: skip


def legal(graph: Graph) -> Graph:
    made = run(pipelines.legalise(), graph)[0]
    assert all(getattr(n.op, "layout", "NHWC") == "NHWC" for n in made.nodes)
    return made


def values(graph: Graph) -> dict[str, Any]:
    """Return random values; variances are positive."""
    return {k: abs(v) + 0.1 if k.endswith("variance") else v for k, v in values_for(graph).items()}


def frozen(graph: Graph) -> Graph:
    return mg.optimize(graph, values(graph), passes="freeze")[0]


@every_network
def test_inference_has_transposes_at_its_edges_alone(name):
    """One where the images come in, one where they go out as images; none where they go out as classes."""
    counts = left(legal(inference(name)))
    rank = inference(name).outputs["y"].rank
    inside, turned = SHUFFLES.get(name, 0), TURNED[inference].get(name, 0)
    assert counts == Counter(inputs=1, outputs=int(rank == 4), inside=inside, variables=turned)


@every_network
def test_training_has_one_transpose_at_its_edge(name):
    counts = left(legal(training(name)))
    inside, turned = inside_training(name), TURNED[training].get(name, 0)
    assert counts == Counter(inputs=1, inside=inside, variables=turned, updates=turned)


def inside_training(name: str) -> int:
    return 2 * SHUFFLES.get(name, 0) + MASKS.get(name, 0) + READ_TWICE.get(name, 0)


@every_network
@pytest.mark.parametrize("make", [inference, training])
def test_an_open_batch_is_no_obstacle(name, make):
    """But where weights may be larger than images, nobody knows that they are not: the images are turned."""
    expected, counts = left(legal(make(name))), left(legal(make(name, "N")))
    if name in FLAT:
        assert counts["inside"] == (1 if make is inference else 2)
        expected, counts = (Counter(inputs=each["inputs"], outputs=each["outputs"]) for each in (expected, counts))
    assert counts == expected


@pytest.mark.parametrize("name", FLAT)
def test_larger_weights_are_not_turned_at_each_call(name):
    assert left(legal(inference(name, 2)))["inside"] == 1
    assert left(legal(training(name, 2)))["inside"] == 2
    assert not left(legal(training(name, 2)))["updates"]


@every_network
def test_imported_kernels_are_turned_once_a_call_and_their_gradients_back(name):
    counts = left(legal(inference(name, imported=True)))
    assert counts["variables"] == KERNELS[name] + TURNED[inference].get(name, 0)
    assert counts["inside"] == SHUFFLES.get(name, 0)
    counts = left(legal(training(name, imported=True)))
    assert counts["variables"] == counts["updates"] == KERNELS[name] + TURNED[training].get(name, 0)
    assert counts["inside"] == inside_training(name)


@every_network
@pytest.mark.parametrize("optimized", [False, True])
def test_constants_are_turned_when_compiling(name, optimized):
    """Weights of any size, of a network that is imported and frozen; fused or not."""
    graph = inference(name, 2, imported=True)
    known = mg.optimize(graph, values(graph))[0] if optimized else frozen(graph)
    counts = left(mg.compile(known).graph)
    assert counts == Counter(inputs=1, outputs=int(graph.outputs["y"].rank == 4), inside=SHUFFLES.get(name, 0))


@every_network
@pytest.mark.parametrize("make", [inference, training])
@pytest.mark.parametrize("imported", [False, True])
def test_the_numbers_are_those_of_each_op_alone(name, make, imported):
    for batch in (6, 1):
        graph = make(name, batch, imported)
        assert_same_results(graph, legal(graph), values(graph), rtol=1e-9, atol=1e-11)


@every_network
@pytest.mark.parametrize("make", [inference, training])
def test_once_is_enough(name, make):
    done = legal(make(name))
    trace = Trace()
    assert CHANNELS_LAST(done, trace).nodes == done.nodes
    assert not trace.pending


@pytest.mark.parametrize("depth", [1, 16])
def test_sweeps_do_not_grow_with_depth(depth):
    def deep(x: Node) -> Node:
        x = block(x, 6)
        for _ in range(depth):
            x = x + ops.concat([block(x[:, :3], 4), x[:, 4:]], 1)
            x = x * ops.reshape(ops.sigmoid(ops.mean(x, (2, 3))), (6, 6, 1, 1))
        return x

    few = replace(CHANNELS_LAST, max_sweeps=4)
    for graph in (lowered(deep, "inference"), descent(lowered(deep, "training"))):
        assert not left(run([few, CommonSubexpressions()], graph)[0])["inside"]


@every_network
def test_programs_compute_the_same_optimised_or_not(name):
    graph = training(name, 2)
    given = values(graph)
    results = []
    for optimize in (True, False):
        state = mg.State({v.label: given[v.label] for v in graph.variables})
        loss = mg.compile(graph, optimize=optimize)(state, x=given["x"])["loss"]
        results.append({"loss": loss, **state})
    for key, value in results[0].items():
        np.testing.assert_allclose(value, results[1][key], rtol=1e-9, atol=1e-11, err_msg=key)


def test_a_loss_at_each_pixel():
    """Labels, smoothed or not, are laid out as the logits are."""
    x, labels = mg.Input((3, 8, 8), name="x"), mg.Input((8, 8), name="labels", dtype="int64")
    kernel = mg.variable((4, 3, 3, 3), name="kernel", init=0.1)
    logits = ops.conv2d(x, kernel, padding="same", layout="NCHW")
    loss = ops.mean(ops.softmax_cross_entropy(logits, labels, axis=1))
    (gradient,) = mg.gradients(loss, [kernel])
    graph = mg.ir.bind(Graph({"loss": loss}, {kernel: kernel - gradient}), N=2)
    assert left(legal(graph)) == Counter(inputs=1, variables=1, updates=1)
    assert_same_results(graph, legal(graph), values(graph), rtol=1e-5, atol=1e-6)


def test_what_is_read_beside_the_transpose_is_computed_once():
    """A dense layer whose result is an output too keeps its columns: else there would be two products."""
    x, w = mg.Input((5,), name="x"), mg.variable((5, 12), name="w")
    flat = ops.relu(x @ w)
    image = ops.reshape(flat, (x.shape[0], 3, 2, 2))
    pooled = ops.max_pool2d(image, layout="NCHW")
    for outputs in (
        {"y": pooled, "flat": flat},
        {"y": pooled, "image": image},
        {"y": pooled, "sum": ops.sum(image, 1)},
    ):
        made = legal(mg.ir.bind(Graph(outputs), N=9))
        assert sum(n.op.name == "matmul" for n in made.nodes) == 1
    alone = legal(mg.ir.bind(Graph({"y": pooled}), N=9))
    assert left(alone) == Counter(variables=1)
