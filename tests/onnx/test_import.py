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
from minigraph.onnx.forms import OPSET  # noqa: E402

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


# --- what no other can judge ------------------------------------------------------------------------------------------


def run(op_type: str, *operands: Any, opset: int = 20, outputs: int = 1, **attributes: Any) -> list[Any]:
    case = Drawn(op_type, [np.asarray(x) for x in operands], attributes, opset, outputs=outputs)
    return list(backend.prepare(case.model()).run(case.feeds))


NUMPY = {
    "Tan": np.tan, "Sinh": np.sinh, "Cosh": np.cosh, "Asinh": np.arcsinh, "Acosh": np.arccosh, "Atanh": np.arctanh,
    "Atan": np.arctan, "Asin": np.arcsin, "Acos": np.arccos,
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("op_type", NUMPY)
def test_trigonometry_is_accurate_at_every_magnitude(op_type, dtype):
    """Relative to each element, not to the largest: near 0, at the ends of the domain, and far out."""
    far = {"Sinh": 80.0, "Cosh": 80.0, "Tan": 1.5, "Asinh": 1e30, "Acosh": 1e4, "Atan": 1e30}.get(op_type, 1 - 1e-6)
    size = np.geomspace(1e-12, far, 400)
    x = (1 + size if op_type == "Acosh" else np.concatenate([-size, size, [0.0]])).astype(dtype)
    (y,) = run(op_type, x)
    expected = NUMPY[op_type](x.astype(np.float64))
    np.testing.assert_allclose(y, expected, rtol=16 * np.finfo(dtype).eps, atol=np.finfo(dtype).eps / 1e3)


def test_trigonometry_at_the_ends_of_its_domain():
    assert run("Acos", np.float64([-1.0, 1.0]))[0].tolist() == [np.pi, 0.0]
    np.testing.assert_allclose(run("Asin", np.float64([-1.0, 1.0]))[0], [-np.pi / 2, np.pi / 2], rtol=1e-15)
    assert run("Atan", np.float64([-np.inf, np.inf]))[0].tolist() == [-np.pi / 2, np.pi / 2]
    assert run("Atanh", np.float64([-1.0, 1.0]))[0].tolist() == [-np.inf, np.inf]
    assert np.isnan(run("Acos", np.float64([1.1]))[0]).all() and np.isnan(run("Acosh", np.float64([0.5]))[0]).all()


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6])
def test_local_response_of_even_and_odd_sizes(size):
    """The neighbours are ⌊(size − 1)/2⌋ before and ⌈(size − 1)/2⌉ after, as the standard says."""
    x = np.random.default_rng(0).standard_normal((2, 5, 2, 3))
    squares = np.zeros_like(x)
    for channel in range(5):
        first, last = max(0, channel - (size - 1) // 2), min(4, channel + -(-(size - 1) // 2))
        squares[:, channel] = (x[:, first : last + 1] ** 2).sum(1)
    expected = x / (1.5 + 0.4 / size * squares) ** 0.6
    (y,) = run("LRN", x, size=size, alpha=0.4, beta=0.6, bias=1.5)
    np.testing.assert_allclose(y, expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "float32"])
def test_the_place_of_the_smallest_number_there_is(dtype):
    """Padding never wins, also where an element is no larger than what stands for it."""
    lowest = -np.inf if dtype == "float32" else np.iinfo(dtype).min
    x = np.full((1, 1, 3), lowest, dtype)
    y, places = run("MaxPool", x, kernel_shape=[3], pads=[2, 2], outputs=2)
    assert (y == x[0, 0, 0]).all() and places.ravel().tolist() == [0, 0, 0, 1, 2]


def test_a_slice_backwards_begins_at_an_element():
    """A start before the first element is the first on the way backward; NumPy takes nothing then."""
    x = np.arange(4.0, dtype=np.float32)
    starts, ends, axes, steps = np.int64([-9]), np.int64([-(2**63)]), np.int64([0]), np.int64([-1])
    case = Drawn("Slice", [x, starts, ends, axes, steps], {}, 20, (1, 2, 3, 4))
    (y,) = backend.prepare(case.model()).run(case.feeds)
    assert y.tolist() == judged(case)[0].tolist() == [0.0]


def test_fmod_of_any_quotient_is_exact():
    """C's fmod has no rounding, however large the quotient is; ours has none for float32."""
    rng = np.random.default_rng(0)
    x, y = (np.ldexp(rng.standard_normal(2000), rng.integers(-100, 100, 2000)).astype(np.float32) for _ in range(2))
    (rest,) = run("Mod", x, y, fmod=1)
    np.testing.assert_array_equal(rest, np.fmod(x, y))
    special = np.float32([np.inf, -np.inf, np.nan, 0.0, -0.0, 5.5, -5.5])
    x, y = (a.ravel() for a in np.meshgrid(special, special))
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(run("Mod", x, y, fmod=1)[0], np.fmod(x, y))
        np.testing.assert_array_equal(run("Mod", x, y, opset=13)[0], np.mod(x, y))


def test_quotients_of_64_bits_are_exact():
    rng = np.random.default_rng(1)
    for dtype in ("int64", "uint64"):
        limits = np.iinfo(dtype)
        x = rng.integers(limits.min, limits.max, 4000, dtype, endpoint=True)
        y = x // rng.integers(1, 2**62, 4000).astype(dtype) + rng.integers(1, 3, 4000).astype(dtype)
        y = np.where((y == 0) | (y == np.array(-1).astype(dtype)), np.array(3, dtype), y)
        whole = [abs(int(a)) // abs(int(b)) * (-1 if (a < 0) != (b < 0) else 1) for a, b in zip(x, y, strict=True)]
        assert run("Div", x, y)[0].tolist() == whole
        assert run("Mod", x, y)[0].tolist() == [int(a) % int(b) for a, b in zip(x, y, strict=True)]


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
