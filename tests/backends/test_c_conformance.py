"""PyTorch's samples and ONNX' own tests, computed by the C backend."""

from __future__ import annotations

import json
import pathlib
import sys

import pytest

import minigraph.runtime
from backends.c_programs import backend, needs_compiler

pytestmark = [
    needs_compiler,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),  # the runners leave their files to Python
]
FOLDER = pathlib.Path(__file__).parents[1] / "conformance"


@pytest.fixture(autouse=True)
def runners(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suites' runners are scripts beside each other."""
    monkeypatch.syspath_prepend(str(FOLDER))


def failed(report: pathlib.Path, name: str) -> dict[str, str]:
    """Return what a runner's report says of the cases that did not pass."""
    cases = json.loads(report.read_text())
    assert len(cases) > 200
    return {case[name]: case["error"] for case in cases if not case["ok"]}


def test_pytorchs_samples(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import replay_torch

    compile, on, report = minigraph.runtime.compile, backend(), tmp_path / "results.json"
    monkeypatch.setattr(minigraph.runtime, "compile", lambda *graph: compile(*graph, backend=on))
    monkeypatch.setattr(sys, "argv", ["replay_torch.py", str(FOLDER / "torch_adapter.py"), "--json", str(report)])
    replay_torch.main()
    assert failed(report, "id") == {}


@pytest.mark.parametrize("tier", ["core", "ext"])
def test_onnx_own_tests(tier: str, tmp_path: pathlib.Path) -> None:
    pytest.importorskip("onnx", "1.17")
    from test_onnx_suite import replayed

    report = tmp_path / "results.json"
    replayed(tier, report, str(FOLDER / "on_c.py"))
    assert failed(report, "name") == {}
