"""The command line, as a user meets it: results in a folder, resuming, and errors without a traceback."""

from __future__ import annotations

import csv
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

import minigraph as mg
from minigraph.cli import main

FILES = {
    "model.safetensors", "history.csv", "history.png", "training.svg", "inference.svg", "optimized.svg", "report.json",
}  # fmt: skip


def train(folder: pathlib.Path, *more: str) -> int:
    return main(["train", "digits", "--epochs", "2", "--out", str(folder), *more])


def test_training_leaves_model_history_pictures_and_report(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert train(tmp_path / "run") == 0
    assert {f.name for f in (tmp_path / "run").iterdir()} == FILES
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    (_, _), (x, y) = mg.datasets.digits(seed=0)
    assert mg.load_model(tmp_path / "run" / "model.safetensors").evaluate(x, y)["accuracy"] == report["accuracy"]
    assert report["training_peak_bytes"] > report["inference_peak_bytes"] > 0
    folding = report["optimized"]
    assert folding["batch_norms"] == [5, 0] and len(folding["batch_norm_outcomes"]) == 5
    assert folding["accuracy"][0] == folding["accuracy"][1] == pytest.approx(report["accuracy"])
    assert folding["nodes"][1] < folding["nodes"][0] and folding["bytes"][1] < folding["bytes"][0]
    assert folding["flops"][1] < folding["flops"][0] and folding["speed_ratio"] > 0
    assert report["inference_flops"] > 0 and report["seconds"] > 0 and report["inference_nodes"] > 0
    with open(tmp_path / "run" / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["val_accuracy"]) == pytest.approx(report["accuracy"])  # summed over other batches
    assert "test accuracy" in capsys.readouterr().out


def test_without_matplotlib_one_line_says_what_is_missing(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert train(tmp_path / "run") == 0
    assert {f.name for f in (tmp_path / "run").iterdir()} == FILES - {"history.png"}
    assert "pip install 'minigraph[plots]'" in capsys.readouterr().out


def test_the_same_seed_gives_the_same_file_but_for_the_clock(tmp_path, capsys):
    for name in ("a", "b"):
        assert train(tmp_path / name, "--seed", "3") == 0
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()
    assert (tmp_path / "a" / "inference.svg").read_bytes() == (tmp_path / "b" / "inference.svg").read_bytes()


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_and_resume_give_the_weights_of_an_unbroken_run(tmp_path):
    command = [sys.executable, "-m", "minigraph", "train", "digits", "--epochs", "3", "--out"]
    first = [*command, str(tmp_path / "a")]
    with subprocess.Popen(first, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        while b"epoch 1" not in process.stdout.readline():
            pass
        time.sleep(0.05)  # into the second epoch
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read().decode()
    assert process.returncode == 130, rest
    assert "--resume" in rest
    assert (tmp_path / "a" / "checkpoint.safetensors").exists()
    subprocess.run([*command, str(tmp_path / "a"), "--resume"], check=True, capture_output=True)
    subprocess.run([*command, str(tmp_path / "b")], check=True, capture_output=True)
    one, two = (mg.load_model(tmp_path / name / "model.safetensors").state for name in "ab")
    assert one.keys() == two.keys()
    assert all(one[name].tobytes() == two[name].tobytes() for name in one)
    assert (tmp_path / "a" / "history.csv").read_text() == (tmp_path / "b" / "history.csv").read_text()
    assert not (tmp_path / "a" / "checkpoint.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "digts"], ["no recipe", "did you mean digits"]),
        (["train", "digits", "--epochs", "0"], ["nothing to train", "epochs ≥ 1"]),
        (["train", "digits", "--backend", "nunpy"], ["no backend", "nunpy"]),
        (["train", "digits", "--resume"], ["nothing to resume"]),
        (["train", "digits", "--lr", "-1"], ["bad learning rate"]),
        (["render", "missing.safetensors"], ["missing.safetensors"]),
    ],
)
def test_bad_input_is_one_clear_message(arguments, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("minigraph: ") and all(word in said for word in words)
    assert "Traceback" not in said and " at: " not in said


def test_rendering_a_model_and_a_text(tmp_path, capsys):
    x = mg.Input((4,), name="x")
    model = mg.Model(x, mg.layers.Dense(2)(x))
    model.save(tmp_path / "m.safetensors")
    (tmp_path / "g.txt").write_text(str(model.graph))
    for source, mode in (("m.safetensors", "inference"), ("g.txt", "definition"), ("g.txt", "inference")):
        out = tmp_path / f"{source}-{mode}.svg"
        assert main(["render", str(tmp_path / source), "--mode", mode, "--out", str(out), "--theme", "dark"]) == 0
        assert out.read_text().lstrip().startswith("<?xml") or "<svg" in out.read_text()


def test_info_says_what_there_is(capsys):
    assert main(["info"]) == 0
    said = capsys.readouterr().out
    assert mg.__version__ in said and "numpy backend" in said and "extra onnx" in said


# --- passes, explain, selftest ----------------------------------------------------------------------------------------

NET = """graph {
  %0 = input("x") : float32[2,6,6,3]
  %1 = variable("w") : float32[3,3,3,4]
  %2 = variable("v", init=0.5) : float32[4]
  %3 = conv2d(%0, %1) : float32[2,4,4,4]
  %4 = batch_norm(%3, %2, %2, %2, %2) : float32[2,4,4,4]
  %5 = relu(%4) : float32[2,4,4,4]
  return y=%5
}
"""


@pytest.fixture
def net(tmp_path):
    path = tmp_path / "net.txt"
    path.write_text(NET)
    return path


def test_passes_on_a_text_report_draw_prove_and_write(net, capsys):
    out, picture = net.with_suffix(".out"), net.with_suffix(".svg")
    assert main(["passes", str(net), "--out", str(out), "--render", str(picture), "--verify", "2"]) == 0
    said = capsys.readouterr().out
    assert "folded into conv2d" in said and "all within their bounds" in said and str(picture) in said
    assert "fused(" in out.read_text() and mg.verify(mg.parse(out.read_text()))
    assert picture.read_text().startswith("<svg")


def test_passes_on_a_model_freeze_its_numbers_unless_asked_not_to(tmp_path, capsys):
    model = mg.models.digits_network(0)
    model.save(tmp_path / "net.safetensors")
    frozen, symbolic = tmp_path / "frozen.txt", tmp_path / "symbolic.txt"
    assert main(["passes", str(tmp_path / "net.safetensors"), "--out", str(frozen)]) == 0
    assert main(["passes", str(tmp_path / "net.safetensors"), "--out", str(symbolic), "--symbolic"]) == 0
    assert "5 batch norms" in capsys.readouterr().out
    assert not mg.parse(frozen.read_text()).variables and mg.parse(symbolic.read_text()).variables


def test_passes_selected_by_pipeline_pass_rule_and_scope(net, capsys):
    assert main(["passes", str(net), "--pipeline", "fold_batch_norm,cse", "--exclude", "fold_batch_norm"]) == 0
    said = capsys.readouterr().out
    assert "kept: excluded from this run" in said and "fuse" not in said
    assert main(["passes", str(net), "--pipeline", "fold_batchnorm"]) == 2
    assert "did you mean fold_batch_norm?" in capsys.readouterr().err


def test_the_list_of_passes_shows_equations_and_examples(capsys):
    assert main(["passes", "--list"]) == 0
    said = capsys.readouterr().out
    assert "batch_norm_of_linear" in said and "x + 0 = x" in said and "before:" in said and "When:" in said


def test_passes_without_a_graph_say_what_they_want(capsys):
    assert main(["passes"]) == 2
    assert "expected: FILE, --list or --reproduce FILE" in capsys.readouterr().err


def test_a_failed_pass_can_be_reproduced(net, tmp_path, capsys):
    content = {"graph": NET, "pipeline": "fold_batch_norm", "seed": 0, "error": "it failed once"}
    path = tmp_path / "reproducer.json"
    path.write_text(json.dumps(content))
    assert main(["passes", "--reproduce", str(path)]) == 0
    assert "folded into conv2d" in capsys.readouterr().out
    path.write_text("{}")
    assert main(["passes", "--reproduce", str(path)]) == 2
    assert "not a reproducer" in capsys.readouterr().err


def test_the_fold_is_explained_with_the_models_own_numbers(tmp_path, capsys):
    model = mg.models.digits_network(0)
    model.state["block2/batch_normalization_1/gamma"][3] = 2.0
    model.state["block2/batch_normalization_1/moving_variance"][3] = 0.25
    model.save(tmp_path / "net.safetensors")
    arguments = ["explain", "fold_batch_norm", str(tmp_path / "net.safetensors"), "--layer", "batch_normalization_1"]
    assert main([*arguments, "--channel", "3"]) == 0
    said = capsys.readouterr().out
    assert "γ = 2" in said and "variance = 0.25" in said and f"= {2 / 0.251**0.5:.9g}" in said
    assert main([*arguments, "--channel", "99"]) == 2
    assert "expected: 0 … 31" in capsys.readouterr().err
    assert main(["explain", "fold_batch_norm", "--layer", "nothing"]) == 2
    assert "block1/batch_normalization" in capsys.readouterr().err


def test_the_selftest_counts_graphs_and_mismatches(capsys):
    assert main(["selftest", "fuzz", "--graphs", "3", "--seed", "5"]) == 0
    assert "mismatches" in capsys.readouterr().out
