"""Gradients against differences: a check for anyone who writes an op."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minigraph.autodiff import gradients
from minigraph.errors import GradientError
from minigraph.ir.graph import Graph
from minigraph.ir.leaves import variable
from minigraph.ir.node import Node
from minigraph.ops import constant
from minigraph.ops import sum as sum_
from minigraph.runtime import State, compile

Function = Callable[..., Node | Sequence[Node]]


def check_gradients(
    function: Function,
    values: Sequence[Any],
    *,
    order: int = 2,
    step: float = 1e-5,
    tolerance: float = 1e-6,
    seed: int = 0,
) -> float:
    """Compare the gradient of `function` with central differences along a random direction; return the relative error.

    function: from nodes to a node, or to several. values: float64 arrays (differentiated) and integer arrays (not).
    With order 2 the gradient's own gradient is checked the same way, through the gradient graph. Raises an
    AssertionError above `tolerance`. A random projection costs two evaluations whatever the number of elements (as in
    Griewank & Walther 2008, ch. 3: the directional derivative is the inner product with the gradient).

    >>> from minigraph.ops import exp
    >>> check_gradients(exp, [np.array([0.5, 1.0])]) < 1e-6
    True
    """
    rng = np.random.default_rng(seed)
    arrays = [np.asarray(v) for v in values]
    nodes = [variable(a.shape, name=f"x{i}", dtype=str(a.dtype)) for i, a in enumerate(arrays)]
    wrt = [n for n, a in zip(nodes, arrays, strict=True) if a.dtype == np.float64]
    outputs = function(*nodes)
    scalar = _project([outputs] if isinstance(outputs, Node) else list(outputs), rng)
    worst = 0.0
    for _ in range(order):
        worst = max(worst, _compare(scalar, nodes, arrays, wrt, step, rng))
        assert worst <= tolerance, f"gradient and differences disagree: relative error {worst:.2e} > {tolerance:.0e}"
        found = _reachable_gradients(scalar, wrt)
        if not found:
            break
        scalar = _project(found, rng)
    return worst


def _project(outputs: list[Node], rng: np.random.Generator) -> Node:
    """Return a scalar: the inner product of the outputs with random weights."""
    floats = [o for o in outputs if o.dtype == "float64"]
    terms = [sum_(o * constant(rng.standard_normal(o.shape))) for o in floats]  # type: ignore[arg-type]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _reachable_gradients(scalar: Node, wrt: Sequence[Node]) -> list[Node]:
    found = []
    for node in wrt:
        try:
            found += gradients(scalar, [node])
        except GradientError as error:
            if "does not depend" not in str(error):
                raise
    return found


def _compare(
    scalar: Node, nodes: list[Node], arrays: list[Any], wrt: list[Node], step: float, rng: np.random.Generator
) -> float:
    present = [n for n in wrt if n in set(Graph({"y": scalar}).variables)]
    if not present:
        return 0.0
    named = {f"d{n.label}": g for n in present for g in _reachable_gradients(scalar, [n])}
    program = compile({"y": scalar, **named})
    state = State({n.label: a for n, a in zip(nodes, arrays, strict=True)})
    results = program(state)
    directions = {n.label: rng.standard_normal(n.shape) for n in present}  # type: ignore[arg-type]
    analytic = sum(float(np.sum(results[f"d{k}"] * d)) for k, d in directions.items() if f"d{k}" in results)
    sides = []
    for h in (step, -step, 2 * step, -2 * step):
        moved = State(state)
        for label, direction in directions.items():
            moved[label] = state[label] + h * direction
        sides.append(float(program(moved)["y"]))
    # The five-point formula: its error falls with step⁴ (Abramowitz & Stegun 25.3.6).
    numeric = (8 * (sides[0] - sides[1]) - (sides[2] - sides[3])) / (12 * step)
    scale = max(abs(analytic), abs(numeric), 1e-3 * sum(float(np.abs(d).sum()) for d in directions.values()), 1e-6)
    return abs(analytic - numeric) / scale
