"""What compiling costs a node: build, differentiate, optimise, plan and print, on chains and residual networks.

A node's share of a phase is measured in the nodes of the graph that goes into it: `differentiate` is given the forward
graph, `passes` and `print` the training graph, `plan` the optimised one.
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

import minigraph as mg
from minigraph import ops
from minigraph.backends import get
from minigraph.ir import Graph, Node, variable
from minigraph.ir.leaves import input as input_
from minigraph.ops.norm import BatchNorm, Moving
from minigraph.passes import lower, pipelines, run
from minigraph.runtime import make_plan
from minigraph.runtime.interpreter import constant_evaluator

# Microseconds of processor time a node; a quiet machine of 2024 takes less than half of each.
LIMITS = {"build": 20, "differentiate": 50, "passes": 100, "plan": 60, "print": 10}
BYTES = 1500
# Time grows with the nodes to this power at most: memory that no longer fits a cache is slower, and that is all.
EXPONENT = 1.1
QUICK_EXPONENT = 1.25


def dense(nodes: int) -> Graph:
    """Products, biases and activations: a training graph of about so many nodes."""
    y = input_((8, 16), name="x")
    for i in range(nodes // 19):
        y = ops.relu(y @ variable((16, 16), name=f"w{i}") + variable((16,), name=f"b{i}"))
    return Graph({"loss": ops.sum(y)})


def elementwise(nodes: int) -> Graph:
    x, w = input_((4,), name="x"), variable((4,), name="w")
    y = x * w
    for _ in range(nodes // 6):
        y = ops.tanh(y) + x
    return Graph({"loss": ops.sum(y)})


def residual(nodes: int) -> Graph:
    """Blocks of two convolutions with batch norms, and what skips them."""

    def unit(x: Node, name: str) -> Node:
        vectors = [variable((8,), name=f"{what}{name}", trainable=what in "γβ") for what in "γβμν"]
        x = ops.conv2d(x, variable((3, 3, 8, 8), name=f"w{name}"), padding="same")
        return Node(BatchNorm(3, moving=Moving(0.9)), (x, *vectors))

    y = input_((4, 8, 8, 8), name="x")
    for i in range(nodes // 138):
        y = ops.relu(unit(ops.relu(unit(y, f"{i}a")), f"{i}b") + y)
    return Graph({"loss": ops.mean(y)})


GRAPHS = [dense, elementwise, residual]


def timed(seconds: dict[str, float], phase: str, work: Callable[[], Any], count: Callable[[], int]) -> Any:
    """Do a phase with the garbage collector off, as `timeit` does, and note its microseconds a node."""
    gc.collect()
    gc.disable()
    try:
        start = time.process_time()
        result = work()
        taken = time.process_time() - start
    finally:
        gc.enable()
    seconds[phase] = 1e6 * taken / (count() if phase != "build" else len(result.nodes))
    return result


def story(make: Callable[[int], Graph], nodes: int) -> dict[str, float]:
    """Return the microseconds a node of each phase, from the first line to the plan of a training step."""
    each: dict[str, float] = {}
    forward = timed(each, "build", lambda: make(nodes), lambda: 0)
    lowered = lower(forward, "training")
    weights = [v for v in lowered.variables if v.op.trainable]
    loss = lowered.outputs["loss"]
    gradients = timed(each, "differentiate", lambda: mg.gradients(loss, weights), lambda: len(lowered.nodes))
    steps = {w: w - 0.01 * g for w, g in zip(weights, gradients, strict=True)}
    training = Graph(lowered.outputs, {**lowered.updates, **steps})
    assert 0.8 < len(training.nodes) / nodes < 1.2
    timed(each, "print", lambda: str(training), lambda: len(training.nodes))
    passes = pipelines.legalise() + pipelines.program(pipelines.Means(constant_evaluator()))
    optimised = timed(each, "passes", lambda: run(passes, training)[0], lambda: len(training.nodes))
    needs = get("numpy").needs
    timed(each, "plan", lambda: make_plan(optimised, needs), lambda: len(optimised.nodes))
    return each


def fastest(make: Callable[[int], Graph], nodes: int, times: int) -> dict[str, float]:
    stories = [story(make, nodes) for _ in range(times)]
    return {phase: min(each[phase] for each in stories) for phase in stories[0]}


def check(make: Callable[[int], Graph], small: int, large: int, exponent: float) -> None:
    """Compare two sizes with each other, and the larger one with the limits."""
    story(make, small)  # imports, and what is found once for each op class
    allowed = (large / small) ** (exponent - 1)
    for _ in range(3):  # another process may have had the caches
        few, many = fastest(make, small, 3), fastest(make, large, 1)
        table = "\n".join(f"{phase:<14}{few[phase]:>8.1f}{many[phase]:>8.1f} µs a node" for phase in few)
        grows = sum(many.values()) > allowed * sum(few.values())
        late = [phase for phase, limit in LIMITS.items() if many[phase] > limit]
        if not grows and not late:
            break
    print(f"{make.__name__}, {small} and {large} nodes\n{table}")
    assert not grows, f"more than {allowed:.2f} times as long for a node\n{table}"
    assert not late, f"{late} of {LIMITS}\n{table}"


@pytest.mark.parametrize("make", [residual, *(pytest.param(g, marks=pytest.mark.slow) for g in (dense, elementwise))])
def test_work_grows_in_proportion_and_is_small(make: Callable[[int], Graph]) -> None:
    check(make, 600, 6_000, QUICK_EXPONENT)


@pytest.mark.slow
@pytest.mark.parametrize("make", GRAPHS)
def test_100_000_nodes(make: Callable[[int], Graph]) -> None:
    check(make, 1_000, 100_000, EXPONENT)


@pytest.mark.parametrize("make", GRAPHS)
def test_memory_of_a_node(make: Callable[[int], Graph]) -> None:
    make(100)
    gc.collect()
    tracemalloc.start()
    try:
        graph = make(4_000)
        weights = [v for v in graph.variables if v.op.trainable]
        if make is not residual:  # open batch norms have no gradient
            adjoints = mg.gradients(graph.outputs["loss"], weights)
            graph = Graph(graph.outputs, dict(zip(weights, adjoints, strict=True)))
        gc.collect()
        each = tracemalloc.get_traced_memory()[0] / len(graph.nodes)
    finally:
        tracemalloc.stop()
    print(f"{make.__name__}: {each:.0f} bytes a node")
    assert each < BYTES


def test_a_pass_that_changes_nothing_returns_the_graph_it_was_given() -> None:
    """What nothing matches costs a look at each node, and no new graph."""
    graph = dense(1_000)
    for each in (*pipelines.legalise(), *pipelines.program(pipelines.Means(constant_evaluator()))[:-1]):
        assert run([each], graph)[0] is graph, each.name
