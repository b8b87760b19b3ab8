"""An ONNX file from anywhere loads or raises a ModelFormatError; it makes us open, run and allocate nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx_bombs
import pytest

import minigraph

pytest.importorskip("resource")  # not on Windows

HERE = Path(__file__).parent


def in_a_child(loader: str, kind: str, seed: str = "0", count: int = 0) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(Path(minigraph.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    return subprocess.run(
        [sys.executable, "-W", "error", str(HERE / "load_hostile.py"), loader, kind, seed, str(count)],
        capture_output=True, text=True, timeout=1200, env=environment,
    )  # fmt: skip


def results(kind: str, seed: str = "0", count: int = 0) -> dict[str, Any]:
    done = in_a_child("load_onnx", kind, seed, count)
    assert done.returncode == 0, "\n".join(done.stderr.splitlines()[-40:])
    found: dict[str, Any] = json.loads(done.stdout)
    print(f"{kind} {seed}: {found['counts']}")
    return found


def test_mutations_load_or_are_refused():
    found = results("small", "1", 800)
    assert found["findings"] == []
    assert sum(found["counts"].values()) == 800
    # Both sides are reached: what comes through the checks of the structure, and what does not.
    assert found["counts"]["loaded"] > 50 and found["counts"]["refused"] > 400


def test_each_bit_flipped_and_each_truncation():
    found = results("bits")
    assert found["findings"] == []
    assert sum(found["counts"].values()) > 2000


@pytest.fixture(scope="module")
def of_bombs() -> dict[str, Any]:
    return results("bombs")


@pytest.mark.parametrize("name", onnx_bombs.bombs())
def test_short_files_that_ask_for_much(name, of_bombs):
    assert [text for text in of_bombs["findings"] if text.startswith(f"{name}: ")] == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["small", "all"])
@pytest.mark.parametrize("seed", ["2", "3"])
def test_many_mutations(kind, seed):
    found = results(kind, seed, 5_000)
    assert found["findings"] == []
    assert sum(found["counts"].values()) == 5_000


NOTICED = {
    "opens_a_file": "it did open(",
    "imports_a_module": "it did import('colorsys'",
    "runs_a_program": "it did os.system(",
    "runs_code": "it did compile(",
    "connects": "it did socket.__new__(",
    "raises_something_else": "KeyError: 'weights' in raises_something_else",
    "raises_another_of_ours": "ShapeError: not the error for a file",
    "never_ends": "took more than 2 s of processor time",
    "takes_all_memory": "MemoryError",
    "takes_all_memory_and_says_so": "asked for too much memory: too large",
}


def test_what_a_loader_must_not_do_is_noticed():
    done = in_a_child("each_bad_loader", "bad_loaders")
    assert done.returncode == 0, done.stderr
    findings = json.loads(done.stdout)["findings"]
    for loader, message in NOTICED.items():
        assert any(text.startswith(f"{loader}: ") and message in text for text in findings), loader


def test_a_crash_is_noticed_and_says_at_which_file():
    done = in_a_child("crashes", "small", "1", 3)
    assert done.returncode != 0
    assert done.stderr.startswith("1:0 (") and "1:1 (" not in done.stderr
