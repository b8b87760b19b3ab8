"""Whole programs on a GPU: networks, the situations around a batch norm, random graphs, fuzzing, others' own tests."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import numpy as np
import pytest
from backends.network_graphs import (
    folded_networks,
    networks,
    random_graphs,
    residual_network,
    stays_close_to_numpy,
    stepped,
    values_of,
)
from backends.programs import Array, check, merged, merged_values
from backends.suites import onnx_own_tests, pytorchs_samples
from passes.folding import networks as around_batch_norms

import minigraph as mg
from gpu.places import Place, everywhere, slow_elsewhere
from minigraph.ir import Graph
from minigraph.optimizers import SGD, Adam
from minigraph.testing.fuzz import fuzz

PARTS = 10


# --- networks ---------------------------------------------------------------------------------------------------------


@everywhere
def test_a_training_step_is_within_its_bound(gpu: Place) -> None:
    graph = stepped(SGD(0.1, momentum=0.9))
    check(graph, values_of(graph), gpu.backend(), optimize=True)


@slow_elsewhere
def test_a_step_of_adam_changes_all_that_it_should(gpu: Place) -> None:
    graph = stepped(Adam(0.01))
    check(graph, values_of(graph), gpu.backend(), optimize=True)


@slow_elsewhere
def test_many_steps_stay_close_to_numpy(gpu: Place) -> None:
    stays_close_to_numpy(gpu.backend())


@slow_elsewhere
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("part", range(PARTS))
def test_random_networks_train_and_infer_within_their_bounds(gpu: Place, part: int, dtype: str) -> None:
    count = gpu.few(10, 1)
    check(*networks(range(count * part, count * (part + 1)), dtype), gpu.backend(), optimize=part % 2 == 0)


def matrix(dtype: str, layout: str) -> Iterator[tuple[Graph, dict[str, Array]]]:
    """Yield small networks around a batch norm, and what the passes make of each."""
    for _, graph, values in around_batch_norms(dtype, layout):
        yield graph, values
        yield mg.optimize(graph, {v.label: values[v.label] for v in graph.variables})[0], values


@slow_elsewhere
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_the_matrix_of_batch_norms_before_and_after_folding(gpu: Place, dtype: str, layout: str) -> None:
    graphs, values = zip(*matrix(dtype, layout), strict=True)
    check(merged(graphs), merged_values(values), gpu.backend(), optimize=True)


@slow_elsewhere
def test_folded_batch_norms(gpu: Place) -> None:
    check(*folded_networks(), gpu.backend(), optimize=True)


@slow_elsewhere
@pytest.mark.parametrize("tune", [False, True], ids=["heuristics", "tuned"])
def test_inference_of_a_network_with_folded_batch_norms(gpu: Place, tune: bool) -> None:
    """ResNet-18 on small images: residuals, strides, projections; algorithms by heuristics, and by measurement."""
    model = mg.models.resnet18((32, 32, 3), classes=10)
    graph = mg.optimize(model.lower("inference"), model.state)[0]
    x = np.random.default_rng(0).standard_normal((gpu.few(8, 1), 32, 32, 3), np.float32)
    (expected,) = mg.compile(graph)(model.state, image=x).values()
    (got,) = mg.compile(graph, backend=gpu.backend(tune=tune))(model.state, image=x).values()
    assert np.linalg.norm(got - expected) <= 1e-5 * np.linalg.norm(expected)


@slow_elsewhere
def test_a_definition_runs_as_it_stands(gpu: Place) -> None:
    graph = residual_network()
    check(graph, values_of(graph), gpu.backend(), optimize=False)


# --- random graphs of anything ----------------------------------------------------------------------------------------


@slow_elsewhere
@pytest.mark.parametrize("optimize", [False, True], ids=["alone", "grouped"])
@pytest.mark.parametrize("part", range(PARTS))
def test_random_graphs(gpu: Place, part: int, optimize: bool) -> None:
    count = gpu.few(60, 6)
    check(*random_graphs(range(count * part, count * (part + 1))), gpu.backend(), optimize)


@slow_elsewhere
@pytest.mark.parametrize("part", range(PARTS))
def test_fuzzing_finds_nothing(gpu: Place, part: int) -> None:
    """500 graphs in all; each is a program of its own."""
    count = gpu.few(50, 2)
    report = fuzz(count, seed=5, first=count * part, backend="cupy", processes=1)
    assert not report.mismatches, str(report)
    assert report.compared > 50 * count


# --- others' own tests ------------------------------------------------------------------------------------------------

unclosed = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # the runners leave their files to Python


@unclosed
@slow_elsewhere
def test_pytorchs_samples(gpu: Place, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pytorchs_samples(gpu.backend(), tmp_path / "results.json", monkeypatch) == {}


@unclosed
@slow_elsewhere
@pytest.mark.parametrize("tier", ["core", "ext"])
def test_onnx_own_tests(gpu: Place, tier: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert onnx_own_tests("on_cupy.py", tier, tmp_path / "results.json", monkeypatch) == {}
