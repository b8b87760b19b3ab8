"""The bounds are worth something: near enough to true errors, and below those of programs that are wrong."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

import minigraph as mg
from minigraph import layers, ops
from minigraph.ir import Graph, Node, variable
from minigraph.ir.leaves import input as input_
from minigraph.runtime import Interpreter
from minigraph.testing.bounds import analyse
from testing.precision import Array, difference, violations

RNG = np.random.default_rng(7)


def normal(*shape: int, scale: float = 1.0) -> Array:
    """Return float32 normal numbers."""
    return (RNG.standard_normal(shape) * scale).astype(np.float32)


def given(**arrays: Array) -> tuple[list[Node], dict[str, Array]]:
    """Return a variable for each array, and the values."""
    return [variable(a.shape, name=name, dtype=str(a.dtype)) for name, a in arrays.items()], dict(arrays)


def convolution() -> tuple[Node, dict[str, Array]]:
    """576 products in each result."""
    (x, w), values = given(x=normal(2, 8, 8, 64), w=normal(3, 3, 64, 8))
    return ops.conv2d(x, w, padding="same"), values


def product() -> tuple[Node, dict[str, Array]]:
    """A matrix product of 300 terms."""
    (x, w), values = given(x=normal(20, 300), w=normal(300, 30))
    return x @ w, values


def chain() -> tuple[Node, dict[str, Array]]:
    """Three layers, 64 wide."""
    arrays = {f"w{i}": normal(64, 64, scale=(2 / 64) ** 0.5) for i in range(3)}
    (y, *weights), values = given(x=normal(32, 64), **arrays)
    for w in weights:
        y = ops.relu(y @ w)
    return y, values


def normalised() -> tuple[Node, dict[str, Array]]:
    """Batch norm with the batch's own moments."""
    (x, gamma, beta), values = given(x=normal(64, 16) + 1, gamma=normal(16), beta=normal(16))
    return ops.batch_norm(x, gamma, beta, *ops.moments(x, 0)), values


@pytest.mark.parametrize("make", [convolution, product, chain, normalised])
def test_a_true_error_is_not_far_below_the_bound(make: Any) -> None:
    node, values = make()
    wrong, ratios, _ = violations(Graph({"y": node}), values, "float32")
    print(f"{make.__name__}: the largest error is {ratios[-1]:.1e} of its bound")
    assert not wrong and 1e-5 <= ratios[-1] <= 1


def out_of_bounds(right: Node, values: dict[str, Array], wrong: Node, others: dict[str, Array]) -> float:
    """Return which share of a wrong program's results no correct implementation of the right one can give."""
    bounded = analyse([right], values)[right]
    computed = Interpreter().run(Graph({"y": wrong}), others)[wrong]
    return float(np.mean(difference(computed, bounded.value) > 2.0 * bounded.error))


def test_right_results_are_within_the_bound_of_another_order_of_the_sum() -> None:
    node, values = product()
    turned = {"x": values["x"][:, ::-1].copy(), "w": values["w"][::-1].copy()}
    assert out_of_bounds(node, values, node, turned) == 0
    half = ops.matmul(node.inputs[0][:, :150], node.inputs[1][:150]) + ops.matmul(
        node.inputs[0][:, 150:], node.inputs[1][150:]
    )
    assert out_of_bounds(node, values, half, values) == 0


def test_weights_that_are_a_thousandth_too_large_are_found() -> None:
    (x, w), values = given(x=normal(4, 8, 8, 16), w=normal(3, 3, 16, 8))
    node = ops.conv2d(x, w, padding="same")
    scaled = {**values, "w": values["w"] * np.float32(1.001)}
    assert out_of_bounds(node, values, node, values) == 0
    assert out_of_bounds(node, values, node, scaled) > 0.5


def test_another_epsilon_is_found() -> None:
    arrays = {"gamma": normal(16), "beta": normal(16), "mean": normal(16), "variance": normal(16, scale=0.1) ** 2}
    operands, values = given(x=normal(64, 16), **arrays)
    right, wrong = (ops.batch_norm(*operands, epsilon=e) for e in (1e-5, 1e-3))
    assert out_of_bounds(right, values, right, values) == 0
    assert out_of_bounds(right, values, wrong, values) > 0.9


def test_a_forgotten_bias_and_a_wrong_sign_are_found() -> None:
    (x, w, b), values = given(x=normal(4, 32), w=normal(32, 8), b=normal(8, scale=0.01))
    right = ops.matmul(x, w) + b
    for wrong in (ops.matmul(x, w), ops.matmul(x, w) - b, ops.matmul(x, w) + b * 1.01):
        assert out_of_bounds(right, values, wrong, values) > 0.3


# --- whole training programs ------------------------------------------------------------------------------------------


def training(optimizer: Any) -> tuple[Graph, dict[str, Array]]:
    """Return the training program of a small network, and values for a step."""
    with mg.fresh_names():
        x = mg.Input((8, 8, 3), name="x")
        y = layers.Conv2D(8, 3, padding="same", use_bias=False)(x)
        y = layers.ReLU(6.0)(layers.BatchNormalization()(y))
        y = layers.MaxPooling2D(2)(y)
        y = layers.ReLU()(layers.Conv2D(8, 3)(y))
        model = mg.Model(x, layers.Dense(10)(layers.Flatten()(y)))
    model.compile(optimizer=optimizer, loss=mg.losses.SparseCategoricalCrossentropy(from_logits=True))
    graph = model.lower("training", batch_size=8)
    rng = np.random.default_rng(0)
    values = {n.label: rng.standard_normal(n.shape).astype(np.float32) for n in graph.inputs if n.dtype == "float32"}
    values |= {n.label: rng.integers(0, 10, n.shape) for n in graph.inputs if n.dtype == "int64"}
    for node in graph.variables:
        values[node.label] = model.state[node.label]
    return graph, values


@pytest.mark.parametrize("optimizer", [mg.optimizers.SGD(0.1, momentum=0.9), mg.optimizers.Adam(1e-3)])
def test_every_result_of_a_training_step_has_a_bound(optimizer: Any) -> None:
    graph, values = training(optimizer)
    bounds = analyse(graph.nodes, values)
    for name, node in [*graph.outputs.items(), *((t.label, value) for t, value in graph.updates.items())]:
        assert np.isfinite(bounds[node].error).all(), name
    wrong, _, _ = violations(graph, values, "float32")
    assert not wrong


def test_bounds_of_a_training_step_are_tight_enough_to_tell_a_wrong_one() -> None:
    graph, values = training(mg.optimizers.SGD(0.1))
    bounds = analyse(graph.nodes, values)
    kernel = graph.updates[graph.variable("dense/kernel")]
    step = np.abs(bounds[kernel].value - values["dense/kernel"])
    assert np.median(bounds[kernel].error) < 0.01 * np.median(step)


def test_thousands_of_small_graphs_can_be_analysed() -> None:
    """About 6 ms for 60 nodes on an idle machine; the limit is generous, because test machines are busy."""
    y = input_((8, 8, 8, 8), name="x")
    values = {"x": normal(8, 8, 8, 8)}
    for i in range(8):
        names = [f"{n}{i}" for n in ("w", "gamma", "beta", "mean", "variance")]
        values |= dict(zip(names, [normal(3, 3, 8, 8), *(normal(8) for _ in range(3)), normal(8) ** 2], strict=True))
        w, *rest = (variable(values[n].shape, name=n) for n in names)
        y = ops.relu(ops.batch_norm(ops.conv2d(y, w, padding="same"), *rest))
    graph = Graph({"y": ops.mean(y)})
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        analyse(graph.nodes, values)
        seconds.append(time.perf_counter() - start)
    print(f"{len(graph.nodes)} nodes: {min(seconds) * 1e3:.1f} ms")
    assert min(seconds) < 0.2
