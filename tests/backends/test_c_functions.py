"""The elementary functions of floats that loops are written in: all over the range, against float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from backends.c_programs import Array, backend, needs_compiler
from minigraph import ops
from minigraph.ir import Graph
from minigraph.ir.leaves import input as input_
from minigraph.runtime import compile

pytestmark = needs_compiler
WORST = 2.0  # units in the last place
FUNCTIONS: dict[str, tuple[Callable[..., Any], Callable[[Array], Array]]] = {
    "exp": (ops.exp, np.exp),
    "log": (ops.log, np.log),
    "tanh": (ops.tanh, np.tanh),
    "elu": (ops.elu, lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0)))),
}
# These take a few of those: 1/(1 + e⁻ˣ), ln(1 + eˣ).
COMPOSED: dict[str, tuple[Callable[..., Any], Callable[[Array], Array]]] = {
    "sigmoid": (ops.sigmoid, lambda x: np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x)))),
    "softplus": (ops.softplus, lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))),
}
SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 3.4e38, -3.4e38], np.float32)


def all_over(step: int) -> Array:
    """Return every step-th float of all that there are, and the special ones: subnormals, infinities and NaN too."""
    bits = np.arange(0, 2**32, step, dtype=np.uint64).astype(np.uint32)
    return np.concatenate([bits.view(np.float32), SPECIAL])


def units(got: Array, exact: Array) -> Array:
    """Return how many units in the last place of float32 results are from exact ones, 0 where both are not finite."""
    largest = float(np.finfo(np.float32).max)
    with np.errstate(all="ignore"):
        unit = np.spacing(np.minimum(np.abs(exact), largest).astype(np.float32)).astype(np.float64)
        rounded = exact.astype(np.float32)
        same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
        return np.where(same, 0.0, np.nan_to_num(np.abs(got - exact) / unit, nan=np.inf))


def worst(x: Array, quick: bool) -> dict[str, float]:
    """Return the largest error of each function in units in the last place."""
    node = input_(x.shape, name="x")
    graph = Graph({name: function(node) for name, (function, _) in (FUNCTIONS | COMPOSED).items()})
    got = compile(graph, backend=backend(quick=quick), optimize=False)(x=x)
    with np.errstate(all="ignore"):
        wide = x.astype(np.float64)
        exact = {name: function(wide) for name, (_, function) in (FUNCTIONS | COMPOSED).items()}
    return {name: float(units(got[name], exact[name]).max()) for name in got}


def check(errors: dict[str, float]) -> None:
    """Assert that functions are within two units, and what is made of two of them within four."""
    assert {name: e for name, e in errors.items() if not e <= (WORST if name in FUNCTIONS else 2 * WORST)} == {}


@pytest.mark.parametrize("quick", [True, False])
def test_functions_are_exact_to_two_units(quick: bool) -> None:
    check(worst(all_over(9973), quick))


@pytest.mark.slow
def test_functions_are_exact_to_two_units_everywhere() -> None:
    for part in np.array_split(all_over(97), 8):
        check(worst(part, False))


def test_a_number_is_computed_like_a_lane_of_a_vector() -> None:
    """A row's last columns, behind its last whole vector, give the same bits."""
    x = np.linspace(-20, 20, 75, dtype=np.float32)
    node = input_(x.shape, name="x")
    graph = Graph({name: function(node) for name, (function, _) in (FUNCTIONS | COMPOSED).items()})
    program = compile(graph, backend=backend(quick=False))
    whole, reversed_ = program(x=x), program(x=x[::-1].copy())
    for name in graph.outputs:
        np.testing.assert_array_equal(whole[name], reversed_[name][::-1], err_msg=name)
