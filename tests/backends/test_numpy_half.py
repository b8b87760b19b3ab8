"""Half precision on the NumPy backend: computed in float32, rounded once; alone, fused, and in planned memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ops.cases import CASES, draw

from minigraph import ops
from minigraph.backends import NumpyBackend
from minigraph.backends.dtypes import array_dtype
from minigraph.ir import Graph, Node, variable
from minigraph.ir.leaves import input as input_
from minigraph.passes import FUSE, pipelines, run
from minigraph.runtime import Interpreter, State, compile

HALVES = ["float16", "bfloat16"]
Array = np.ndarray[Any, Any]


def halves(arrays: list[Array], half: str) -> tuple[list[Node], dict[str, Array]]:
    """Return a variable for each array, floats in half precision, and the values."""
    given = [a.astype(array_dtype(half)) if a.dtype.kind == "f" else a for a in arrays]
    nodes = [variable(a.shape, name=f"x{i}", dtype=str(a.dtype)) for i, a in enumerate(given)]
    return nodes, {n.label: a for n, a in zip(nodes, given, strict=True)}


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("op", ["add", "exp", "rsqrt", "silu", "sum", "softmax", "matmul", "conv2d", "batch_norm"])
def test_an_op_is_the_float32_op_rounded_once(op: str, half: str) -> None:
    case = draw(op, 0)
    nodes, values = halves(case.arrays, half)
    wide, widened = halves(case.arrays, "float32")
    widened = {k: v.astype(np.float32) if str(v.dtype) == half else v for k, v in values.items()}
    got = compile(Graph({"y": case.function(*nodes)}), optimize=False)(State(values))["y"]  # type: ignore[dict-item]
    exact = compile(Graph({"y": case.function(*wide)}), optimize=False)(State(widened))["y"]  # type: ignore[dict-item]
    assert str(got.dtype) == half
    assert np.array_equal(got, exact.astype(got.dtype))


@pytest.mark.parametrize("half", HALVES)
def test_long_sums_do_not_stop_growing(half: str) -> None:
    nodes, values = halves([np.ones((4096, 3)), np.ones((4096, 3))], half)
    x, y = nodes
    graph = Graph({"sum": ops.sum(x, 0), "product": ops.matmul(ops.transpose(x), y), "mean": ops.mean(x, 0)})
    for backend in (NumpyBackend(threads_=1), NumpyBackend(threads_=2)):
        found = compile(graph, backend=backend)(State(values))
        assert (found["sum"] == 4096).all() and (found["product"] == 4096).all() and (found["mean"] == 1).all()


@pytest.mark.parametrize("half", HALVES)
def test_a_fused_batch_norm_is_the_one_that_is_not_fused(half: str) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((64, 9, 9, 8)), *rng.uniform(0.5, 2.0, (4, 8))]
    (first, *vectors), values = halves(arrays, half)
    x = input_(first.shape, half, "image")
    graph = Graph({"y": ops.relu(ops.batch_norm(x, *vectors) * 0.5)})
    fused = run([FUSE], graph)[0]
    assert [n.op.name for n in fused.nodes if n.inputs] == ["fused"]
    apart, together = (compile(g, optimize=False)(State(values), image=values["x0"])["y"] for g in (graph, fused))
    assert np.array_equal(apart, together)


@pytest.mark.parametrize("op", sorted(CASES.keys() - {"cast"}))  # whose cases are about float64
def test_every_op_runs_in_planned_memory_as_it_does_alone(op: str) -> None:
    case = draw(op, 1)
    nodes, values = halves(case.arrays, "bfloat16")
    found = case.function(*nodes)
    outputs = [found] if isinstance(found, Node) else list(found)
    graph = run(pipelines.legalise(), Graph({f"y{i}": y for i, y in enumerate(outputs)}))[0]
    alone = Interpreter().run(graph, values)
    planned = compile(graph, optimize=False)(State(values))
    for name, node in graph.outputs.items():
        assert np.array_equal(planned[name], alone[node], equal_nan=node.dtype != "bool")
