"""Whole networks on the C backend: training and inference, all updates, folded batch norms, random graphs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from backends.c_programs import backend, check, needs_compiler
from backends.network_graphs import folded_networks, networks, random_graphs, stays_close_to_numpy, stepped, values_of
from minigraph import ops
from minigraph.ir import Graph, variable
from minigraph.ir.leaves import input as input_
from minigraph.optimizers import SGD, Adam
from minigraph.testing.fuzz import fuzz

pytestmark = needs_compiler


def check_networks(seeds: Sequence[int], dtype: str, optimize: bool, quick: bool = True) -> None:
    """Run networks in both modes as one program, and hold all outputs and updates to their bounds."""
    check(*networks(seeds, dtype), backend(quick=quick), optimize)


@pytest.mark.parametrize(
    ("seed", "dtype", "optimize"), [(0, "float32", True), (2, "float64", True), (1, "float32", False)]
)
def test_random_networks_train_and_infer_within_their_bounds(seed: int, dtype: str, optimize: bool) -> None:
    check_networks([seed], dtype, optimize)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimize", [False, True])
@pytest.mark.parametrize("part", range(10))
def test_many_random_networks_train_and_infer_within_their_bounds(part: int, optimize: bool, dtype: str) -> None:
    check_networks(range(3 * part, 3 * part + 3), dtype, optimize, quick=False)


# --- a network as they are written: channels by vectors, and a few left over ------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_training_step_is_within_its_bound_on_any_number_of_threads(threads: int) -> None:
    graph = stepped(SGD(0.1, momentum=0.9))
    check(graph, values_of(graph), backend(threads), optimize=True)


def test_a_step_of_adam_changes_all_that_it_should() -> None:
    graph = stepped(Adam(0.01))
    check(graph, values_of(graph), backend(), optimize=True)


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_many_steps_stay_close_to_numpy(threads: int) -> None:
    stays_close_to_numpy(backend(threads, quick=False))


def test_folded_batch_norms() -> None:
    """What folding makes of a state is computed as NumPy does; the bound is that of the graph before."""
    check(*folded_networks(), backend(), optimize=True)


# --- random graphs of anything ----------------------------------------------------------------------------------------


def check_runnable(seeds: Sequence[int], quick: bool = True) -> None:
    """Hold random graphs of all kinds of ops and dtypes to their bounds, several in one program."""
    for optimize in (False, True):
        check(*random_graphs(seeds), backend(quick=quick), optimize)


def test_random_graphs() -> None:
    check_runnable(range(12))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_many_random_graphs(part: int) -> None:
    check_runnable(range(100 + 25 * part, 125 + 25 * part), quick=False)


@pytest.mark.parametrize("graphs", [1, pytest.param(60, marks=pytest.mark.slow)])
def test_fuzzing_finds_nothing_on_this_backend(graphs: int) -> None:
    report = fuzz(graphs, seed=5, backend="c")
    assert not report.mismatches, str(report)
    assert report.compared > 100 * graphs


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sums_behind_groups_that_are_narrower_than_a_vector(dtype: str) -> None:
    x = input_((2, 5, 5, 8), dtype, "x")
    y = ops.conv2d(x, variable((3, 3, 2, 16), name="w", dtype=dtype), padding="same", groups=4)
    graph = Graph({"y": y, "moments": ops.moments(y, (0, 1, 2))[1], "mean": ops.mean(ops.relu(y) * y)})
    rng = np.random.default_rng(0)
    values = {n.label: rng.standard_normal(n.shape).astype(dtype) for n in (*graph.inputs, *graph.variables)}
    check(graph, values, backend(), optimize=True)
