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

FILES = {"model.safetensors", "history.csv", "history.png", "training.svg", "inference.svg", "report.json"}


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
