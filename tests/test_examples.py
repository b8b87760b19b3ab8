"""Every example runs as a user runs it: in a process of its own, warnings as errors, in another folder."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"

# The line that says that what the example teaches came true.
KEY_LINES = {
    "batch_norm": "recalibrated averages are the statistics of the data",
    "first_gradient": "slope and curvature agree with the formulas",
    "fold_batch_norm": "unfolded, it is the network again",
    "onnx_round_trip": "the accuracy is the same at every step",
    "mlp": "the loaded model predicts the same",
    "training_loop": "updates of batch norm: bn/moving_mean bn/moving_variance",
    "write_an_op": "first and second gradient agree with differences",
}


def test_every_example_is_run():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(KEY_LINES)


def run(path, *arguments, cwd):
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-W", "error", str(path), *arguments],
        cwd=cwd, env={**os.environ, "PYTHONPATH": paths, "PYTHONIOENCODING": "utf-8"},
        capture_output=True, encoding="utf-8", timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize("name", KEY_LINES)
def test_example(name, tmp_path):
    result = run(EXAMPLES / f"{name}.py", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert any(line.startswith(KEY_LINES[name]) for line in result.stdout.splitlines()), result.stdout
    assert result.stderr == ""
    assert not list(tmp_path.iterdir()), "an example leaves files behind"


def test_batch_norm_keeps_its_pictures_in_a_given_folder(tmp_path):
    assert run(EXAMPLES / "batch_norm.py", "pictures", cwd=tmp_path).returncode == 0
    names = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert names == {"batch_norm_training.svg", "batch_norm_inference.svg"}


@pytest.mark.parametrize("name", KEY_LINES)
def test_an_example_is_short_and_says_what_it_teaches(name):
    source = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    assert source.startswith('"""')
    assert len(source.splitlines()) <= 60
