"""Depth and width are no limit: long chains and wide fan-ins, at the default recursion limit, in time in proportion."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minigraph as mg
from minigraph import ops
from minigraph.backends import get
from minigraph.ir import Graph, parse, variable, verify
from minigraph.ir.leaves import input as input_
from minigraph.passes import CommonSubexpressions, run
from minigraph.runtime import make_plan

RATIO = 12  # ten times the nodes may take this many times as long
QUICK_RATIO = 20  # the same for the default run, whose small graphs still fit a cache; a quadratic phase would take 100


class Story:
    """Build, print, parse, differentiate, optimise, plan and run a chain of `n` nodes; `seconds` of each."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.seconds: dict[str, float] = {}
        x, w = input_((4,), name="x"), variable((4,), name="w", init=1.0)

        def build() -> Graph:
            y = x * w
            for _ in range(n // 2 - 2):
                y = ops.tanh(y) + x
            return Graph({"loss": ops.sum(y)})

        forward = self.phase("build", build)
        assert abs(len(forward.nodes) - n) < 10
        text = self.phase("print", lambda: str(forward))
        again = self.phase("parse", lambda: parse(text))
        assert self.phase("compare", lambda: again.same_as(forward))
        (g,) = self.phase("differentiate", lambda: mg.gradients(forward.outputs["loss"], [w]))
        self.training = Graph(forward.outputs, {w: w - 0.1 * g})
        self.phase("verify", lambda: verify(self.training))
        optimised = self.phase("optimise", lambda: mg.optimize(self.training)[0])
        plan = self.phase("plan", lambda: make_plan(optimised, get("numpy").needs))
        self.phase("check", plan.check)
        program = mg.compile(optimised, optimize=False)
        self.state = mg.State.initial([w])
        self.phase("first call", lambda: program(self.state, x=np.zeros(4)))
        self.result = self.phase("run", lambda: program(self.state, x=np.full(4, 0.25)))

    def phase(self, name: str, work: Callable[[], Any]) -> Any:
        """Time one phase with the garbage collector off, as `timeit` does: its sweeps over all objects grow with n."""
        gc.collect()
        gc.disable()
        try:
            start = time.process_time()
            result = work()
            self.seconds[name] = time.process_time() - start
        finally:
            gc.enable()
        return result


def fastest(n: int) -> dict[str, float]:
    """Return each phase's shorter time of two stories."""
    first, second = Story(n).seconds, Story(n).seconds
    return {name: min(first[name], second[name]) for name in first}


def in_proportion(small: int, limit: float) -> None:
    a, b = fastest(small), fastest(10 * small)
    lines = [f"{name:<14}{a[name]:>9.4f}{b[name]:>9.3f}{b[name] / a[name]:>7.1f}" for name in a]
    total = sum(b.values()) / sum(a.values())
    table = "\n".join(
        [f"{'phase':<14}{small:>9}{10 * small:>9}  ratio", *lines, f"all: {sum(b.values()):.2f} s, {total:.1f}"]
    )
    print(table)
    assert total <= limit, table


@pytest.mark.slow  # tests/passes/test_graph_work.py looks at the same phases in a moment
def test_ten_times_the_nodes_take_about_ten_times_as_long():
    in_proportion(400, QUICK_RATIO)


@pytest.mark.slow
def test_a_chain_of_100_000_nodes():
    in_proportion(10_000, RATIO)


def test_depth_is_no_limit():
    depth = sys.getrecursionlimit() * 10
    story = Story(depth)
    assert len(story.training.nodes) > depth
    # By hand: the derivative of the chain, along the chain.
    x, w = np.full(4, 0.25), np.ones(4)
    y, slope = x * w, x.copy()
    for _ in range(depth // 2 - 2):
        t = np.tanh(y)
        y, slope = t + x, slope * (1 - t * t)
    assert story.result["loss"] == pytest.approx(y.sum(), rel=1e-4)
    np.testing.assert_allclose(story.state["w"], 1 - 0.1 * slope, rtol=1e-4)


def test_a_deep_graph_is_freed_copied_and_compared_without_recursion():
    y = input_((1,), name="x")
    for _ in range(50_000):
        y = -y
    graph = Graph({"y": y})
    copy = graph.rebuild(lambda node, inputs: node.with_inputs(inputs))
    assert copy.same_as(graph) and repr(copy)
    bound = mg.bind(graph)
    del y, graph, copy, bound
    gc.collect()


def test_a_fan_in_of_10_000_operands():
    x = input_((1,), name="x")
    pieces = [x * float(i % 7) for i in range(10_000)]
    joined = ops.concat(pieces)
    (g,) = mg.gradients(ops.sum(joined), [x])
    graph = Graph({"y": joined, "g": g})
    assert parse(str(graph)).same_as(graph)
    result = mg.compile(graph)(x=[2.0])
    np.testing.assert_array_equal(result["y"], 2.0 * (np.arange(10_000) % 7))
    assert result["g"][0] == sum(i % 7 for i in range(10_000))


def test_a_value_that_is_read_10_000_times():
    w = variable((2,), name="w", init=2.0)
    total = w
    for i in range(10_000):
        total = total + w * float(i % 3)
    (g,) = mg.gradients(ops.sum(total), [w])
    graph = Graph({"g": g})
    merged = run([CommonSubexpressions()], graph)[0]
    assert len(merged.nodes) < len(graph.nodes)
    np.testing.assert_array_equal(mg.compile(graph)(mg.State.initial([w]))["g"], 1 + sum(i % 3 for i in range(10_000)))


def test_3_000_outputs_inputs_and_updates():
    inputs = [input_((), name=f"x{i}") for i in range(3000)]
    variables = [variable((), name=f"w{i}", init=0.0) for i in range(3000)]
    graph = Graph(
        {f"y{i}": -x for i, x in enumerate(inputs)}, {w: w + x for w, x in zip(variables, inputs, strict=True)}
    )
    assert parse(str(graph)).same_as(graph)
    state = mg.State.initial(graph.variables)
    result = mg.compile(graph)(state, **{f"x{i}": i for i in range(3000)})
    assert result["y2999"] == -2999 and state["w2999"] == 2999
