"""Import: nodes drawn at random compute here what they compute in onnxruntime, or in ONNX' reference implementation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", "1.17")
pytest.importorskip("onnxruntime")

from import_cases import FAMILIES, Drawn, draw  # noqa: E402
from onnx_checks import check, contents, distance, op_types, run_elsewhere  # noqa: E402

from minigraph.onnx import backend  # noqa: E402
from minigraph.onnx.api import import_model, to_proto  # noqa: E402
from minigraph.onnx.exporter import OPSET  # noqa: E402

SEEDS = 6
TOLERANCE = {"float16": 2e-3, "float32": 1e-6, "float64": 1e-12}


def judged(case: Drawn) -> list[Any]:
    """Return what others compute: onnxruntime, unless it has no kernel; then the reference."""
    if case.twin is not None:
        return judged(case.twin)
    return elsewhere(case.model(), case)


def elsewhere(model: Any, case: Drawn) -> list[Any]:
    """Return what a model computes for a case's operands in onnxruntime, or else in the reference."""
    if case.only != "reference":
        return list(run_elsewhere(model, case.feeds)[0].values())
    with np.errstate(all="ignore"):
        return list(onnx.reference.ReferenceEvaluator(model).run(None, case.feeds))


def allowed(case: Drawn, array: Any) -> float:
    """Return the tolerance for an output."""
    return max(case.loose, TOLERANCE.get(str(array.dtype), 1.0))


def apart(case: Drawn) -> float:
    """Return how far we are from the others, as a share of the tolerance."""
    ours = backend.prepare(case.model()).run(case.feeds)
    worst = 0.0
    for here, there in zip(ours, judged(case), strict=True):
        there = np.asarray(there)
        worst = max(worst, distance(there, np.asarray(here)) / allowed(case, there))
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


# --- and back ---------------------------------------------------------------------------------------------------------


def sound(case: Drawn, results: list[Any]) -> bool:
    """Tell whether ONNX finds the model valid, infers the shapes that its results have, and somebody computes it.

    At the opset that we write inference counts windows of pools in ceil mode that begin in the padding; no kernel does.
    """
    model, written = case.model(), replace(case, opset=min(case.opset, OPSET)).model()
    declared = [[d.dim_value for d in o.type.tensor_type.shape.dim] for o in written.graph.output]
    if declared != [list(r.shape) for r in results]:
        return False
    try:
        check(model)
        elsewhere(model, case)
    except Exception:  # of any library's any kind
        return False
    return True


def leaves_as_it_came(family: str, seed: int) -> bool:
    """Check what is exported of an imported node: valid, the same numbers, and the same nodes when it is done again."""
    case = draw(family, seed)
    results = list(backend.prepare(case.model()).run(case.feeds))
    if not sound(case, results):
        return False
    imported = import_model(case.model())
    proto = check(to_proto(imported.graph, imported.state))
    note = f"{family}, seed {seed}: {case}: {op_types(proto)}"
    for here, there in zip(results, elsewhere(proto, case), strict=True):
        assert distance(here, np.asarray(there)) <= 2 * allowed(case, here), note
    second = import_model(proto)
    assert contents(to_proto(second.graph, second.state).graph) == contents(proto.graph), note
    return True


# Ops that are one node for us too, or stay together, leave as the one node that they came as.
ONE_NODE = {
    "slice", "gather", "gather_elements", "gather_nd", "one_hot", "cum_sum", "trilu", "depth_and_space", "mod", "power",
    "arithmetic", "integer_division", "comparisons", "activations", "global_pool", "resize", "local_response",
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_imported_leaves_again(family):
    done = [leaves_as_it_came(family, seed) for seed in range(3)]
    assert any(done) or family in ("batch_normalization", "old_broadcast")  # where old versions are unknown to others


@pytest.mark.parametrize("family", sorted(ONE_NODE))
def test_one_node_leaves_as_one(family):
    for seed in range(5):
        imported = import_model(draw(family, seed).model())
        types = op_types(to_proto(imported.graph, imported.state))
        assert types in ([draw(family, seed).op_type], ["Identity"]), (family, seed, types)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_imported_leaves_again_large(family):
    for seed in range(3, 100):
        leaves_as_it_came(family, seed)
