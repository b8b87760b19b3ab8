"""ONNX' own backend tests: each case of the list must give the numbers, shapes and dtypes that the suite expects."""

from __future__ import annotations

import json
import pathlib
import signal
import sys
import warnings

import pytest

pytest.importorskip("onnx", "1.17")

import run_suite

HERE = pathlib.Path(__file__).parent
LIST = HERE / "onnx_open.txt"
CASES = [line.split("\t") for line in LIST.read_text().splitlines() if line and not line.startswith("#")]
CORE = [name for name, _, tier in CASES if tier == "core"]
EXTENDED = [name for name, _, tier in CASES if tier == "ext"]


UNCLOSED = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # the runner leaves its files to Python


def replayed(tier: str, report: pathlib.Path, backend: str = "minigraph.onnx.backend") -> dict[str, dict[str, object]]:
    """Run a tier of the list in this process, as the command line does, and return what it says about each case."""
    before = signal.getsignal(signal.SIGALRM)
    arguments = ["run_suite.py", backend, "--list", str(LIST), "--tier", tier, "--json", str(report)]
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"onnx\.")  # the suite divides by 0 when it makes its data
        patch.setattr(sys, "argv", arguments)
        try:
            run_suite.main()
        finally:
            signal.signal(signal.SIGALRM, before)
    return {str(case["name"]): case for case in json.loads(report.read_text())}


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    return replayed("core", tmp_path_factory.mktemp("onnx") / "core.json")


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    return replayed("ext", tmp_path_factory.mktemp("onnx") / "extended.json")


@UNCLOSED
@pytest.mark.parametrize("name", CORE)
def test_core(name, core):
    assert core[name]["ok"], core[name]["error"]


@UNCLOSED
@pytest.mark.slow
@pytest.mark.parametrize("name", EXTENDED)
def test_extended(name, extended):
    assert extended[name]["ok"], extended[name]["error"]


def test_the_list_is_whole():
    assert len(CORE) == 250 and len(EXTENDED) == 346 and len(CASES) == 596


@UNCLOSED
@pytest.mark.slow
@pytest.mark.parametrize("tier", ["core", "ext"])
def test_optimised_models_give_the_same(tier, tmp_path):
    found = replayed(tier, tmp_path / "optimised.json", str(HERE / "optimizing_backend.py"))
    assert {name: case["error"] for name, case in found.items() if not case["ok"]} == {}
