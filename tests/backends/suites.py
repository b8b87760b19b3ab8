"""Others' own tests, run by the scripts of tests/conformance, on any backend."""

from __future__ import annotations

import json
import pathlib
import sys

import pytest

import minigraph.runtime
from minigraph.backends import Backend

FOLDER = pathlib.Path(__file__).parents[1] / "conformance"


def failed(report: pathlib.Path, name: str) -> dict[str, str]:
    """Return what a runner's report says of the cases that did not pass."""
    cases = json.loads(report.read_text())
    assert len(cases) > 200
    return {case[name]: case["error"] for case in cases if not case["ok"]}


def pytorchs_samples(on: Backend, report: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return which of PyTorch's samples a backend fails, and why."""
    monkeypatch.syspath_prepend(str(FOLDER))  # the scripts stand beside each other
    import replay_torch

    compile = minigraph.runtime.compile
    monkeypatch.setattr(minigraph.runtime, "compile", lambda *graph: compile(*graph, backend=on))
    monkeypatch.setattr(sys, "argv", ["replay_torch.py", str(FOLDER / "torch_adapter.py"), "--json", str(report)])
    replay_torch.main()
    return failed(report, "id")


def onnx_own_tests(on: str, tier: str, report: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return which of ONNX' own tests a backend fails, and why; `on` is the script that makes an ONNX backend of it."""
    pytest.importorskip("onnx", "1.17")
    monkeypatch.syspath_prepend(str(FOLDER))
    from test_onnx_suite import replayed

    replayed(tier, report, str(FOLDER / on))
    return failed(report, "name")
