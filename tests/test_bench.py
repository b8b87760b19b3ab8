"""Benchmarks: the comparison in turns, its figures, files and chart; and the networks of other frameworks."""

from __future__ import annotations

import json
import math
import sys

import numpy as np
import pytest

import minigraph as mg
from minigraph.bench import graphs, peers, turns, workloads
from minigraph.bench.networks import NETWORKS, Residual
from minigraph.cli import main
from minigraph.errors import ArgumentError

READY = {"version": "1", "first": 0.5, "result": 2.3, "memory": 10}


def test_names_aliases_and_beginnings_of_aliases():
    assert [w.name for w in workloads.find("W3-r50-8")] == ["resnet50-infer-8"]
    assert len({w.name for w in workloads.WORKLOADS} | {w.alias for w in workloads.WORKLOADS}) == 14
    with pytest.raises(ArgumentError, match="did you mean tiny-train"):
        workloads.find("tiny-trian")
    with pytest.raises(ArgumentError, match="no such peer"):
        peers.usable("torhc", workloads.find("W1")[0])


def test_ratios_are_of_one_round_each():
    """A machine that is three times slower in one round leaves the ratios as they are."""
    times = {"a": [2.0, 6.0, 2.0, 2.0], "b": [1.0, 3.0, 1.0, 1.0]}
    fast, slow = turns.results(times, {"a": READY, "b": {**READY, "memory": None}}, "a")
    assert (fast.peer, fast.speed, fast.low, fast.high, fast.seconds) == ("b", 2.0, 2.0, 2.0, 1.0)
    assert slow.speed_against(fast) == 0.5 and slow.memory == 10
    text = turns.table(workloads.find("W1")[0], [fast, slow], "a")
    assert len({len(line) for line in text.splitlines()[1:]}) == 1


def test_a_comparison_writes_a_table_json_and_a_chart(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    speeds, chart = tmp_path / "speeds.json", tmp_path / "speeds.svg"
    options = ["--peers", "minigraph-numpy", "--backends", "", "--rounds", "2", "--seconds", "0.01", "--threads", "1"]
    assert main(["bench", "W2", *options, "--json", str(speeds), "--chart", str(chart)]) == 0
    said = capsys.readouterr().out
    assert "tiny-train (W2), batch 32" in said and "minigraph-numpy" in said
    content = json.loads(speeds.read_text())
    assert content["threads"] == 1 and content["workloads"]["tiny-train"]["reference"] == "minigraph-numpy"
    (result,) = content["workloads"]["tiny-train"]["peers"]
    assert result["speed"] == 1.0 and len(result["rounds"]) == 2 and math.isfinite(result["result"])
    assert chart.read_text().startswith("<?xml")


def test_a_peer_that_fails_is_said_and_left_out(capsys, monkeypatch):
    (workload,) = workloads.find("W2")
    found = turns.compare(workload, ["minigraph-nothing", "minigraph-numpy"], "minigraph-numpy", 1, 1, 0.01)
    assert [r.peer for r in found] == ["minigraph-numpy"]
    assert "minigraph-nothing failed" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--threads", "0"], ["--rounds", "0"], ["W9"], ["--peers", "nobody"]])
def test_bad_input_is_one_clear_message(arguments, capsys):
    assert main(["bench", *arguments]) == 2
    assert capsys.readouterr().err.startswith("minigraph: no")


def test_a_profile_of_a_workload(capsys):
    assert main(["bench", "tiny-train", "--profile", "--backends", "numpy", "--rounds", "1"]) == 0
    said = capsys.readouterr().out
    assert "tiny-train (W2), batch 32, on numpy" in said and "kernel calls" in said


def test_graphs_are_measured_a_stage_a_column(tmp_path, capsys):
    out = tmp_path / "graphs.json"
    assert main(["bench", "graphs", "--sizes", "51,102", "--json", str(out)]) == 0
    works = json.loads(out.read_text())
    assert [(w["kind"], w["nodes"]) for w in works] == [
        ("chain", 52),
        ("chain", 103),
        ("residual", 52),
        ("residual", 103),
    ]
    assert all(set(w["costs"]) == set(graphs.BARS) and min(w["costs"].values()) > 0 for w in works)
    assert len(capsys.readouterr().out.splitlines()) == 9
    with pytest.raises(ArgumentError, match="no such kind"):
        graphs.measure("tree", 10)


def test_the_exponent_of_what_grows_as_the_square():
    works = [graphs.Work("chain", n, {"plan": n}, {"plan": n}, {}) for n in (100, 1_000, 10_000, 100_000)]
    assert graphs.exponent(works, "plan") == pytest.approx(2.0)
    assert math.isnan(graphs.exponent(works[:2], "plan"))


def layers_of(network):
    for layer in network:
        if isinstance(layer, Residual):
            yield from layers_of((*layer.body, *layer.shortcut))
        else:
            yield layer


@pytest.mark.parametrize("workload", workloads.WORKLOADS[:3] + workloads.WORKLOADS[3::2], ids=lambda w: w.name)
def test_the_networks_of_peers_have_the_parameters_of_ours(workload):
    """Kernel, γ, β, bias: as many, of the rank and in the order in which a peer takes them."""
    model = workload.model()
    ranks = {"Convolution": [4], "Norm": [1, 1]}
    wanted = []
    for layer in layers_of(NETWORKS[model.name]):
        name = type(layer).__name__
        wanted += [2, 1][: 1 + layer.bias] if name == "Dense" else ranks.get(name, [])
    assert [v.rank for v in model.graph.variables if v.op.trainable] == wanted


@pytest.mark.slow
@pytest.mark.parametrize("name", ["W1", "W2", "W4", "W3-r18-1", "W3-r50-1"])
@pytest.mark.parametrize("peer", ["torch", "torch-channels-last", "jax", "onnxruntime"])
def test_peers_begin_with_the_same_loss(name, peer):
    (workload,) = workloads.find(name)
    if not peers.usable(peer, workload):
        pytest.skip(f"{peer} is not there")
    results = []
    for each in (peer, "minigraph-numpy"):
        process = turns.Process(workload, each, 2)
        process.close()
        results.append(process.ready["result"])
    assert results[0] == pytest.approx(results[1], rel=1e-3)


def test_ours_on_one_and_on_two_threads_compute_the_same():
    (workload,) = workloads.find("W2")
    one, two = (peers.prepare("minigraph-numpy", workload, threads)[0]() for threads in (1, 2))
    np.testing.assert_allclose(one, two, rtol=1e-5)


def test_without_matplotlib_the_chart_says_what_is_missing(monkeypatch):
    from minigraph.viz.plots import plot_speeds

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(mg.errors.MissingExtraError, match="plots"):
        plot_speeds({"W1": {"torch": (1.0, 1.0, 1.0)}})
