"""PyTorch's own samples, replayed: outputs, gradients and running statistics of each case must be PyTorch's.

`torch_samples` was recorded with PyTorch 2.13; `replay_torch.py` compares. Every op that has a sample is claimed.
"""

from __future__ import annotations

import json
import pathlib
import sys

import pytest
import replay_torch

HERE = pathlib.Path(__file__).parent
CASES = json.loads((HERE / "torch_samples.json").read_text())["cases"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Run all cases in this process, as the command line does, and return what it says about each."""
    report = tmp_path_factory.mktemp("torch") / "results.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["replay_torch.py", str(HERE / "torch_adapter.py"), "--json", str(report)])
        replay_torch.main()
    return {result["id"]: result for result in json.loads(report.read_text())}


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # the recorder's runner leaves its files to Python
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_case(case, results):
    assert results[case["id"]]["ok"], results[case["id"]]["error"]


def test_all_open_cases_are_replayed():
    lines = (HERE / "torch_open.txt").read_text().splitlines()
    listed = {line.split()[0] for line in lines if line and not line.startswith("#")}
    assert listed == {case["id"] for case in CASES}
