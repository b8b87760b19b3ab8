"""Programs of generated backends in tests: many graphs in one, so that compiling takes time once; held to bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from minigraph.backends import Backend
from minigraph.ir import Graph, Input, Node, Variable
from minigraph.ir.types import HALF, is_float
from minigraph.runtime import Program, State, compile
from minigraph.testing.bounds import analyse

Array = np.ndarray[Any, Any]


def merged(graphs: Sequence[Graph]) -> Graph:
    """Return one graph that holds all of these, the names of graph i after `gi/`: to compile takes time once."""
    outputs: dict[str, Node] = {}
    updates: dict[Node, Node] = {}
    inputs: list[Node] = []
    for i, graph in enumerate(graphs):
        renamed = _prefixed(graph, f"g{i}/")
        outputs |= {f"g{i}/{name}": node for name, node in renamed.outputs.items()}
        updates |= renamed.updates
        inputs += renamed.inputs
    return Graph(outputs, updates, inputs)


def merged_values(values: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Return the values of merged graphs by their new names."""
    return {f"g{i}/{name}": array for i, each in enumerate(values) for name, array in each.items()}


def _prefixed(graph: Graph, prefix: str) -> Graph:
    def make(node: Node, inputs: tuple[Node, ...]) -> Node:
        if isinstance(node.op, (Input, Variable)):
            return Node(replace(node.op, label=prefix + node.op.label))
        return Node(node.op, inputs, origin=node.origin)

    return graph.rebuild(make)


def ends_of(graph: Graph, like: Graph | None = None) -> dict[str, Node]:
    """Return outputs and the values of updates by name; a variable that only `like` updates keeps its value."""
    updates: dict[str, Node] = {} if like is None else {target.label: target for target in like.updates}
    updates |= {target.label: value for target, value in graph.updates.items()}
    return {**graph.outputs, **{f"the update of {label}": value for label, value in updates.items()}}


def run(program: Program, values: Mapping[str, Array]) -> dict[str, Array]:
    """Return what a program computes: its outputs, and the variables that it updated."""
    graph = program.definition
    state = State({v.label: values[v.label].copy() for v in graph.variables})
    results = program(state, **{i.label: values[i.label] for i in graph.inputs})
    return results | {f"the update of {target.label}": state[target.label] for target in graph.updates}


def check(graph: Graph, values: Mapping[str, Array], on: Backend, optimize: bool) -> Program:
    """Hold a program's results to the bounds of its graph, and of what the passes made of that."""
    program = compile(graph, backend=on, optimize=optimize)
    results = run(program, values)
    before, after = ends_of(graph), ends_of(program.graph, graph)
    found = analyse([*before.values(), *after.values()], values)
    assert results.keys() == before.keys()
    for name, node in before.items():
        exact, error = found[node].value, found[node].error + found[after[name]].error
        assert (results[name].dtype, results[name].shape) == (node.dtype, node.shape), name
        within(name, results[name], exact, error)
    return program


def within(name: str, got: Array, exact: Array, error: Array) -> None:
    """Assert |got − exact| ≤ error wherever the bound is finite."""
    error = np.asarray(np.broadcast_to(error, got.shape), np.float64)
    bounded = np.isfinite(error)
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(np.asarray(got, np.float64) - np.asarray(exact, np.float64))
    wrong = bounded & ~(apart <= error)
    assert not wrong.any(), f"{name}: {apart[wrong][:4]} apart where {error[wrong][:4]} is allowed, of {wrong.sum()}"


def finfo(dtype: str) -> Any:
    """Return the limits of a floating-point dtype."""
    if dtype != "bfloat16":
        return np.finfo(dtype)
    import ml_dtypes

    return ml_dtypes.finfo(dtype)


def agrees(name: str, got: Array, expected: Array, terms: float = 0.0) -> None:
    """Assert equality, NaN and signs of infinity included; of floats within 16 units in the last place.

    Half precision is computed in float32 everywhere: results may be rounded to neighbours, a unit apart. terms: the
    size of what may have cancelled out in a sum, which a fused product rounds once less.
    """
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape), name
    dtype = str(got.dtype)
    if not is_float(dtype):
        np.testing.assert_array_equal(got, expected, err_msg=name)
        return
    f, units, wide = finfo(dtype), 1 if dtype in HALF else 16, expected.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        size = np.maximum(np.abs(wide), terms)
        near = np.abs(got.astype(np.float64) - wide) <= units * (float(f.eps) * size + float(f.smallest_subnormal))
    same = (got == expected) | (np.isnan(got) & np.isnan(expected)) | near
    assert same.all(), f"{name}: {got[~same][:4]} instead of {expected[~same][:4]}"
