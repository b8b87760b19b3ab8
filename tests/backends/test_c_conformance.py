"""PyTorch's samples and ONNX' own tests, computed by the C backend."""

from __future__ import annotations

import pathlib

import pytest

from backends.c_programs import backend, needs_compiler
from backends.suites import onnx_own_tests, pytorchs_samples

pytestmark = [
    needs_compiler,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),  # the runners leave their files to Python
]


def test_pytorchs_samples(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pytorchs_samples(backend(), tmp_path / "results.json", monkeypatch) == {}


@pytest.mark.parametrize("tier", ["core", "ext"])
def test_onnx_own_tests(tier: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert onnx_own_tests("on_c.py", tier, tmp_path / "results.json", monkeypatch) == {}
