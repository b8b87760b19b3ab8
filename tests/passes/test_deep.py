"""Every pass takes time in proportion to the graph, with work to do all along it, and depth is no limit."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable

import numpy as np
import pytest

from minigraph import ops
from minigraph.backends import get
from minigraph.ir import Graph, Node, bind, symbol, variable, verify
from minigraph.ir.leaves import input as input_
from minigraph.passes import (
    CHANNELS_LAST,
    FOLD_BATCH_NORM,
    FUSE,
    MERGE_AFFINES,
    MERGE_PADS,
    SIMPLIFY,
    UNFUSE,
    CommonSubexpressions,
    DeadCode,
    FoldConstants,
    Freeze,
    Lower,
    Pass,
    Rematerialise,
    Trace,
    run,
    unfold,
)  # fmt: skip
from minigraph.passes.bind import Bind
from minigraph.passes.inline import INLINE
from minigraph.runtime import constant_evaluator, make_plan

RATIO = 12  # ten times the nodes may take this many times as long
QUICK_RATIO = (
    20  # the same for the default run, where each is a matter of milliseconds; a quadratic pass would take 100
)


def chain(n: int, step: Callable[[Node, int], Node], first: Node) -> Graph:
    """Return a graph of about `n` nodes: a step on a step on a step."""
    y = step(first, 0)
    each = max(1, len(Graph({"y": y}).nodes) - 1)
    for i in range(1, n // each):
        y = step(y, i)
    return Graph({"y": y}, inputs=[first])


def waves(n: int) -> Graph:
    x = input_((4,), name="x")
    return chain(n, lambda y, i: ops.tanh(y) + x, x)


def layers(n: int) -> Graph:
    """Products, batch norms and activations, each with variables of its own."""

    def layer(y: Node, i: int) -> Node:
        vectors = [variable((2,), name=f"{name}{i}", init=1.0) for name in ("gamma", "beta", "mean", "variance")]
        return ops.relu(ops.batch_norm(y @ variable((2, 2), name=f"w{i}", init=0.5), *vectors))

    return chain(n, layer, input_((3, 2), name="x"))


def affines(n: int) -> Graph:
    """Scales and shifts by variables, around batch norms."""

    def layer(y: Node, i: int) -> Node:
        vectors = [variable((2,), name=f"{name}{i}", init=1.0) for name in ("gamma", "beta", "mean", "variance")]
        return ops.tanh(ops.batch_norm(y * 2.0 + vectors[0], *vectors) * 3.0 - vectors[1])

    return chain(n, layer, input_((3, 2), name="x"))


def pads(n: int) -> Graph:
    return chain(n, lambda y, i: ops.pad(y, ((0, 0), (i % 2, 1))), input_((2, 3), name="x"))


def padded(n: int) -> Graph:
    def layer(y: Node, i: int) -> Node:
        y = ops.pad(y, ((0, 0), (1, 1), (1, 1), (0, 0)))
        return ops.relu(ops.conv2d(y, variable((3, 3, 1, 1), name=f"w{i}")))

    return chain(n, layer, input_((1, 3, 3, 1), name="x"))


def channels_first(n: int) -> Graph:
    def layer(y: Node, i: int) -> Node:
        y = ops.conv2d(y, variable((2, 2, 3, 3), name=f"w{i}"), padding="same", layout="NCHW")
        return ops.relu(y + variable((2, 1, 1), name=f"b{i}"))

    return chain(n, layer, input_((1, 2, 3, 3), name="x"))


def noughts(n: int) -> Graph:
    """Much to simplify, and to find twice."""
    x = input_((4,), name="x")
    return chain(n, lambda y, i: -(-(y * 1.0)) + (ops.exp(x) - ops.exp(x)) * 0.0, x)  # noqa: B002


def numbers(n: int) -> Graph:
    """Constant expressions, at which the input joins here and there."""
    return chain(n, lambda y, i: y * (ops.constant(float(i % 7)) + 1.0) + 0.5, input_((4,), name="x"))


def open_modes(n: int) -> Graph:
    """Mode-neutral dropouts over an open batch."""
    return chain(n, lambda y, i: ops.tanh(ops.dropout(y, 0.5)), input_((symbol("N"), 2), name="x"))


def no_updates(n: int) -> Graph:
    kept = [variable((), name=f"w{i}", init=0.0) for i in range(n // 2)]
    x = input_((), name="x")
    return Graph({"y": ops.concat([ops.reshape(w + x, (1,)) for w in kept[:10]])}, {w: w for w in kept})


def fused(n: int) -> Graph:
    return run([FUSE], waves(n))[0]


def functions(n: int) -> Graph:
    """Functions of two results each, on a chain."""

    def step(y: Node, i: int) -> Node:
        both = ops.function("F", [y], [ops.tanh(y), ops.exp(y)])
        return both[0] + both[1]

    return chain(n, step, input_((4,), name="x"))


class Unfold:
    """`unfold` as a pass, on what was folded and fused before."""

    name = "unfold"

    def __call__(self, graph: Graph, trace: Trace) -> Graph:
        return unfold(graph)


def folded(n: int) -> Graph:
    return run([FOLD_BATCH_NORM, FUSE], layers(n))[0]


class Ones(dict[str, np.ndarray]):
    """Numbers for any of the variables of `layers`."""

    def __contains__(self, label: object) -> bool:
        return True

    def __missing__(self, label: str) -> np.ndarray:
        return np.ones((2, 2) if label.startswith("w") else (2,), np.float32)


def plan_peak(graph: Graph) -> int:
    return make_plan(graph, get("numpy").needs).peak


# What is timed: a pass, and a graph with work for it.
CASES: dict[str, tuple[Pass, Callable[[int], Graph]]] = {
    "fuse": (FUSE, waves),
    "fuse layers": (FUSE, layers),
    "unfuse": (UNFUSE, fused),
    "inline": (INLINE, functions),
    "fold_batch_norm": (FOLD_BATCH_NORM, layers),
    "unfold": (Unfold(), folded),
    "merge_affines": (MERGE_AFFINES, affines),
    "fold_batch_norm among affines": (FOLD_BATCH_NORM, affines),
    "merge_pads": (MERGE_PADS, pads),
    "merge_pads into convolutions": (MERGE_PADS, padded),
    "rematerialise without need": (Rematerialise(1 << 60, plan_peak), waves),
    "simplify": (SIMPLIFY, noughts),
    "cse": (CommonSubexpressions(), noughts),
    "fold_constants": (FoldConstants(constant_evaluator()), numbers),
    "dead_code": (DeadCode(), no_updates),
    "channels_last": (CHANNELS_LAST, channels_first),
    "lower": (Lower("training"), open_modes),
    "freeze": (Freeze(Ones()), layers),
    "bind": (Bind((("N", 3),)), open_modes),
}  # fmt: skip


# What is looked at, and stays: pass → the graphs in which it finds nothing to do.
IDLE = {"rematerialise": waves, "fold_batch_norm": affines}


def seconds(each: Pass, graphs: list[Graph], idle: bool) -> float:
    """Return the processor time of a pass on some graphs, the garbage collector off, as `timeit` does."""
    gc.collect()
    gc.disable()
    try:
        start = time.process_time()
        changed = [run([each], graph)[0] for graph in graphs]
        taken = time.process_time() - start
    finally:
        gc.enable()
    for before, after in zip(graphs, changed, strict=True):
        assert (after is before) == idle, "there was nothing to do, or something"
    return taken


def in_proportion(each: Pass, make: Callable[[int], Graph], small: int, limit: float) -> None:
    """Compare one graph with ten of a tenth of its size, which fill as much memory: one alone may lie in a cache."""
    ten, large = [make(small) for _ in range(10)], make(10 * small)
    assert 8 < len(large.nodes) / len(ten[0].nodes) < 12
    idle = IDLE.get(each.name) is make
    a, b = seconds(each, ten, idle), seconds(each, [large], idle)
    if 10 * b > limit * a:  # the better of two, where one is not enough
        b = min(b, seconds(each, [large], idle))
    print(f"{each.name}: {len(large.nodes)} nodes take {b:.3f} s, {10 * b / a:.1f} times a tenth of them")
    assert 10 * b <= limit * a


@pytest.mark.parametrize("name", CASES)
def test_ten_times_the_nodes_take_about_ten_times_as_long(name: str) -> None:
    in_proportion(*CASES[name], 400, QUICK_RATIO)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_100_000_nodes(name: str) -> None:
    in_proportion(*CASES[name], 10_000, RATIO)


@pytest.mark.parametrize("make", [layers, affines, waves, padded, channels_first])
def test_depth_is_no_limit(make: Callable[[int], Graph]) -> None:
    """Chains that are deeper than the recursion limit, through a whole pipeline and back."""
    graph = make(3 * sys.getrecursionlimit())
    passes = [CHANNELS_LAST, SIMPLIFY, MERGE_PADS, MERGE_AFFINES, FOLD_BATCH_NORM, CommonSubexpressions(), FUSE]
    made, trace = run(passes, graph)
    assert verify(made).outputs["y"].type == graph.outputs["y"].type
    assert trace.step("fuse").rewrites and not any(n.op.name == "fused" for n in unfold(run([UNFUSE], made)[0]).nodes)


def test_binding_a_bound_region_makes_nothing_new() -> None:
    graph = fused(400)
    assert bind(graph).nodes == graph.nodes
