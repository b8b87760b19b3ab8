"""Import: nodes drawn at random compute here what they compute in onnxruntime, or in ONNX' reference implementation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", "1.17")
pytest.importorskip("onnxruntime")

from import_cases import FAMILIES, Drawn, draw  # noqa: E402
from onnx_checks import distance, has_no_kernel, session  # noqa: E402

from minigraph.onnx import backend  # noqa: E402

SEEDS = 6
TOLERANCE = {"float16": 2e-3, "float32": 1e-6, "float64": 1e-12}


def judged(case: Drawn) -> list[Any]:
    """Return what others compute: onnxruntime, unless it has no kernel; then the reference."""
    if case.twin is not None:
        return judged(case.twin)
    model = case.model()
    if case.only != "reference":
        try:
            return list(session(model).run(None, case.feeds))
        except Exception as error:
            if not has_no_kernel(error):
                raise
    with np.errstate(all="ignore"):
        return list(onnx.reference.ReferenceEvaluator(model).run(None, case.feeds))


def apart(case: Drawn) -> float:
    """Return how far we are from the others, as a share of the tolerance."""
    ours = backend.prepare(case.model()).run(case.feeds)
    worst = 0.0
    for here, there in zip(ours, judged(case), strict=True):
        there = np.asarray(there)
        allowed = max(case.loose, TOLERANCE.get(str(there.dtype), 1.0))
        worst = max(worst, distance(there, np.asarray(here)) / allowed)
    return worst


def agrees(family: str, seed: int) -> None:
    case = draw(family, seed)
    try:
        share = apart(case)
    except Exception as error:
        raise AssertionError(f"{family}, seed {seed}: {case}: {type(error).__name__}: {error}") from error
    assert share <= 1.0, f"{family}, seed {seed}: {case}: {share:.3g} times the tolerance"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_agrees(family):
    for seed in range(SEEDS):
        agrees(family, seed)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_agrees_large(family):
    for seed in range(SEEDS, 300):
        agrees(family, seed)
