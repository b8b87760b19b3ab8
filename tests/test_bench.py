"""Benchmarks: the comparison in turns, its figures, files and chart; and the networks of other frameworks."""

from __future__ import annotations

import json
import math
import pathlib
import re
import sys
from dataclasses import replace

import numpy as np
import pytest

import minigraph as mg
from minigraph.bench import ceilings, graphs, on_gpu, peers, turns, workloads
from minigraph.bench.networks import NETWORKS, Residual
from minigraph.bench.worker import timed
from minigraph.bench.workloads import Prepared
from minigraph.cli import main
from minigraph.errors import ArgumentError
from minigraph.runtime import accelerator
from minigraph.runtime.accelerator import H200, Accelerator
from minigraph.testing import cuda

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


def test_graphs_are_measured_a_stage_a_column(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(graphs._best, "__defaults__", (0.01, 2))  # what is measured matters here, not how well
    out = tmp_path / "graphs.json"
    assert main(["bench", "graphs", "--sizes", "51", "--json", str(out)]) == 0
    works = json.loads(out.read_text())
    assert [(w["kind"], w["nodes"]) for w in works] == [("chain", 52), ("residual", 52)]
    assert all(set(w["costs"]) == set(graphs.BARS) and min(w["costs"].values()) > 0 for w in works)
    assert len(capsys.readouterr().out.splitlines()) == 7
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


@pytest.mark.parametrize(
    "workload", workloads.WORKLOADS[:3] + workloads.WORKLOADS[3::2] + workloads.GPU_WORKLOADS[:1], ids=lambda w: w.name
)
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


# --- on a GPU ---------------------------------------------------------------------------------------------------------

needs_standin = pytest.mark.skipif(not cuda.available(), reason="no C++ compiler")
WORK = [[79 * 10**10, 0, "bfloat16"], [0, 43 * 10**8, "float32"]]  # a millisecond each, on an H200


def tiny_workload(**how):
    """A workload for a GPU that a processor can do."""
    return replace(workloads.find("G1")[0], batch=4, image=(8, 8, 1), model=workloads.tiny, **how)


def test_the_workloads_for_a_gpu_and_their_peers():
    assert [w.alias for w in workloads.GPU_WORKLOADS] == [
        "G1", "G2", "G3-bf16", "G3-tf32", "G4-128-bf16", "G4-128-tf32", "G4-1-bf16", "G4-1-tf32",
    ]  # fmt: skip
    names = [name for w in (*workloads.WORKLOADS, *workloads.GPU_WORKLOADS) for name in (w.name, w.alias)]
    assert len(set(names)) == len(names) and len(workloads.find("G4")) == 4
    assert all(w.gpu and w.samples == w.batch * (200 if w.launch > 1 else 1) for w in workloads.GPU_WORKLOADS)
    assert not peers.usable("onnxruntime", workloads.find("G4")[0])  # its providers are for another build
    with pytest.raises(ArgumentError, match="did you mean torch-graph"):
        peers.check("torch-grph")


@pytest.mark.parametrize("arguments", [["--gpu"], ["--gpu", "G3", "--profile"]])
def test_without_a_gpu_one_line_says_what_is_missing(arguments, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert main(["bench", *arguments]) == 2
    said = capsys.readouterr().err
    assert (
        said.startswith("minigraph: nothing to time on: CuPy is not installed: pip install") and said.count("\n") == 1
    )


@pytest.mark.parametrize("arguments", [["G1"], ["--gpu", "W1"]])
def test_workloads_for_the_other_machine_are_refused(arguments, capsys):
    assert main(["bench", *arguments]) == 2
    assert re.match(r"minigraph: \S+-train is timed on a (GPU|processor), not on", capsys.readouterr().err)


def test_a_devices_steps_are_timed_together():
    calls, waits = [], []
    device = Prepared(lambda: calls.append(1), float, lambda: waits.append(len(calls)), steps=20)
    assert len(timed(device, math.inf, 1000)) == 5 and waits == [10, 20, 30, 40, 50]


def test_a_peer_with_other_numbers_is_left_out():
    firsts = {"torch": 2.31, "jax": 2.4, "minigraph-cupy": 2.3, "torch-graph": math.nan}
    assert turns.apart(firsts, "torch", turns.APART["tf32"]) == ["jax", "torch-graph"]
    assert turns.apart({"torch": 2.31, "jax": 2.4}, "torch", 1e-2) == ["jax"]


def test_the_table_of_a_gpu_has_images_a_second_and_the_share_of_the_floor():
    (workload,) = workloads.find("G3-bf16")
    times = {"minigraph-cupy": [0.004, 0.004], "torch": [0.008, 0.010]}
    ready = {"minigraph-cupy": {**READY, "work": WORK}, "torch": {**READY, "work": []}}
    found = turns.results(times, ready, "torch", H200)
    assert found[0].floor == pytest.approx(0.002) and found[1].floor is None
    lines = turns.table(workload, found, "torch").splitlines()
    assert lines[1].split()[-3:] == ["images/s", "of", "floor"] and len({len(line) for line in lines[1:4]}) == 1
    assert lines[2].split()[-2:] == ["32000", "50.0%"] and lines[3].split()[-2:] == ["14222", "22.2%"]
    assert turns.from_json(turns.as_json({workload.name: found}, {workload.name: "torch"}))[workload.name] == found


def test_floors_follow_the_limits_they_are_given():
    half = H200.with_limits(bandwidth=2.15e12)
    assert H200.total([tuple(w) for w in WORK]) == pytest.approx(0.002)
    assert half.total([tuple(w) for w in WORK]) == pytest.approx(0.003)
    assert H200.with_limits(peak=79e12).floor((79 * 10**10, 0, "tf32")) == pytest.approx(0.01)
    assert H200.with_limits(peak=79e12).floor((67 * 10**10, 0, "float32")) == pytest.approx(0.01)  # of no product


def test_what_was_measured_of_a_device_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert accelerator.limits_of("NVIDIA H200") is H200 and accelerator.limits_of("another") is None
    accelerator.keep(Accelerator("another", 1e12, (("float32", 1e13),)))
    accelerator.keep(Accelerator("NVIDIA H200", 4e12, (("float32", 6e13),)))
    assert accelerator.limits_of("another").bandwidth == 1e12 and accelerator.limits_of("NVIDIA H200").bandwidth == 4e12
    (tmp_path / "minigraph/accelerators.json").write_text("[1]")
    assert accelerator.limits_of("NVIDIA H200") is H200


@needs_standin
@pytest.mark.parametrize("data", ["host", "device", "set"])
def test_each_way_to_feed_a_step_has_the_first_loss_of_numpy(data):
    workload = tiny_workload(data=data, launch=2 if data == "set" else 1)
    model = workload.model()
    program, state = workloads.training_program(model, "numpy", rate=workload.rate)
    images, labels = workload.images()[:8], workload.labels()[:8]
    batches = [slice(0, 4), slice(4, 8)][: workload.launch]
    exact = [float(program(state, **workloads.feeds(model, images[b], labels[b]))["loss"]) for b in batches]
    with cuda.standin():
        made = on_gpu.make(workload)
        assert made.number(made.step()) == pytest.approx(np.mean(exact), rel=turns.APART["tf32"])
        made.step()
        made.wait()
        assert made.memory() > 0 and made.steps == workload.launch
        assert {arithmetic for _, _, arithmetic in made.work} == {"tf32", "float32"}


@needs_standin
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_folded_inference_is_that_of_numpy(precision):
    if precision == "bfloat16":
        pytest.importorskip("ml_dtypes")
    workload = tiny_workload(data="device", trains=False, precision=precision)
    step = workloads.stepper(*workloads.prepared(replace(workload, precision="float32"), "numpy"))
    with cuda.standin():
        made = on_gpu.make(workload)
        assert made.number(made.step()) == pytest.approx(np.abs(step()).mean(), rel=turns.APART[precision])


@needs_standin
def test_info_measures_a_device_and_says_what_it_is(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(ceilings, "_SIDE", 16)
    monkeypatch.setattr(ceilings, "_BYTES", 1 << 12)
    with cuda.standin():
        assert main(["info"]) == 0
        assert re.search(
            r"cupy backend: a processor, \d+ GiB, compute capability 9\.0; driver for", capsys.readouterr().out
        )
        limits = ceilings.measure()
    assert accelerator.limits_of("a processor") == limits and dict(limits.flops).keys() == dict(H200.flops).keys()
    assert str(limits).startswith("a processor: ") and limits.bandwidth > 0


@pytest.mark.slow
@pytest.mark.parametrize("alias", ["G1", "G2"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_peers_on_a_gpu_begin_with_the_same_loss(alias, precision, monkeypatch):
    """Their code runs on a processor as well, but for graphs and what max-autotune needs."""
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    from minigraph.bench import with_jax, with_torch_cuda

    (workload,) = workloads.find(alias)
    workload = replace(workload, batch=16, launch=min(3, workload.launch), precision=precision)
    model = workload.model()
    network, parameters = NETWORKS[model.name], workloads.parameters(model)
    torch = with_torch_cuda.make(workload, network, parameters, "", "cpu")
    jax = with_jax.make(workload, network, parameters)
    program, state = workloads.training_program(model, "numpy", rate=workload.rate)
    images, labels = workload.images(), workload.labels()
    batches = [slice(i, i + 16) for i in range(0, 16 * workload.launch, 16)]
    exact = [float(program(state, **workloads.feeds(model, images[b], labels[b]))["loss"]) for b in batches]
    for peer in (torch, jax):
        assert peer.number(peer.step()) == pytest.approx(np.mean(exact), rel=turns.APART[precision])


def test_a_folder_of_measurements_becomes_the_tables_of_the_page(tmp_path, monkeypatch):
    root = pathlib.Path(__file__).parents[1]
    monkeypatch.syspath_prepend(str(root / "tests/benchmarks"))
    import report_gpu

    page, (workload,) = tmp_path / "page.md", workloads.find("G3-bf16")
    page.write_text((root / "docs/performance-gpu.md").read_text())
    times = {"minigraph-cupy": [0.015, 0.016], "torch-compile": [0.018, 0.016], "torch": [0.030, 0.032]}
    ready = {name: {**READY, "work": WORK if name == "minigraph-cupy" else []} for name in times}
    found = {workload.name: turns.results(times, ready, "torch", H200)}
    about = {"day": "2026-01-31", "gpu": "NVIDIA H200, 139 GiB", "limits": str(H200)}
    (tmp_path / "bf16.json").write_text(turns.as_json(found, {workload.name: "torch"}, **about))
    (tmp_path / "tests1.txt").write_text("....\n200 passed in 300 s\n")
    monkeypatch.setattr(sys, "argv", ["report_gpu.py", str(tmp_path), "--page", str(page)])
    report_gpu.main()
    text = page.read_text()
    assert "2026-01-31: NVIDIA H200, 139 GiB. Floors: NVIDIA H200: 4.30 TB/s" in text
    assert "| resnet50-train-bf16 (G3-bf16) | speed against torch-compile | 1.10 | 1 |" in text
    assert "| resnet50-train-bf16 (G3-bf16) | share of the op-by-op speed | 0.77 | 0.7 |" in text
    assert "| small-train (G1) | speed against torch-graph | – | 1.3 |" in text
    assert "| minigraph-cupy 1 | 15.500 | 8258 |" in text and "| 13% |" in text
    assert "200 passed in 300 s" in text and text.count("Not measured yet.") == 2
