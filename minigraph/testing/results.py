"""Graphs against each other: a check for anyone who writes a pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from minigraph.ir.graph import Graph
from minigraph.runtime import State, compile


def assert_same_results(
    before: Graph, after: Graph, values: Mapping[str, Any], *, rtol: float = 1e-5, atol: float = 1e-6
) -> None:
    """Run two bound graphs on the same inputs and variables, unoptimised, and compare all outputs and updates.

    >>> from minigraph.ir import variable
    >>> x = variable((2,), name="x")
    >>> assert_same_results(Graph({"y": x + x}), Graph({"y": x * 2.0}), {"x": [1.0, 2.0]})
    """
    results = []
    updated = {t.label: t for graph in (before, after) for t in graph.updates}
    for graph in (before, after):
        # A variable that one of the graphs does not update keeps its value there.
        updates = updated | {target.label: value for target, value in graph.updates.items()}
        named = {**graph.outputs, **{f"update {label}": value for label, value in updates.items()}}
        plain = Graph(named, inputs=graph.inputs)
        state = State({v.label: np.asarray(values[v.label], v.dtype) for v in plain.variables})
        inputs = {i.label: values[i.label] for i in plain.inputs}
        results.append(compile(plain, optimize=False)(state, **inputs))
    assert results[0].keys() == results[1].keys()
    for name, value in results[0].items():
        np.testing.assert_allclose(results[1][name], value, rtol=rtol, atol=atol, err_msg=name)
