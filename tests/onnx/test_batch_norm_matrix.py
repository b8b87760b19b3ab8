"""The matrix of situations around a batch norm as ONNX files: each is optimised, and folds or refuses as it must.

What ONNX Runtime makes of a model without any optimisation of its own decides what the numbers must be; where it has no
kernels (convolutions of doubles) the standard's reference implementation does. They may differ by rounding alone: by
the running error bounds of both models, which the graphs are analysed for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

ort = pytest.importorskip("onnxruntime")

from matrix_cases import ALL, NOT_IN_A_FILE, ROWS, Case  # noqa: E402
from small_onnx import onnx  # noqa: E402

import minigraph as mg  # noqa: E402
from minigraph.ir.graph import Graph  # noqa: E402
from minigraph.onnx.api import import_model, optimize_with_trace  # noqa: E402
from minigraph.testing.bounds import Bounded, analyse  # noqa: E402

ort.set_default_logger_severity(4)
SIZES = {"N": 2, "H": 6, "W": 5, "L": 7}  # what open sizes are bound to
Array = np.ndarray[Any, Any]


def feeds_of(case: Case) -> Iterator[dict[str, Array]]:
    """Yield numbers for the inputs without a default, random ones where the case gives none."""
    rng = np.random.default_rng(0)
    defaults = {t.name for t in case.proto.graph.initializer}
    for given in case.feeds:
        made = {}
        for info in case.proto.graph.input:
            if info.name in given or info.name in defaults:
                continue
            type_ = info.type.tensor_type
            shape = [d.dim_value or SIZES[d.dim_param] for d in type_.shape.dim]
            made[info.name] = rng.normal(size=shape).astype(onnx.helper.tensor_dtype_to_np_dtype(type_.elem_type))
        yield made | given


def without_gaps(proto: Any) -> Any:
    """Return a model whose nodes leave out no results: ONNX Runtime crashes at a batch norm that does."""
    made = onnx.ModelProto.FromString(proto.SerializeToString())
    old = proto.opset_import[0].version < 14  # there they would mean training, but for the gaps
    for node in made.graph.node:
        names = [name or f"{node.output[0]}/{i}" for i, name in enumerate(node.output) if name or not old]
        node.output[:] = names
    return made


def run(proto: Any, feeds: dict[str, Array]) -> list[Array]:
    """Return a model's outputs, as it stands."""
    if any(array.dtype.name == "bfloat16" for array in feeds.values()):  # which the runtime cannot be given from Python
        return run_by_reference(proto, feeds)
    proto = without_gaps(proto)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except ort.capi.onnxruntime_pybind11_state.NotImplemented:
        return run_by_reference(proto, feeds)
    return list(session.run(None, feeds))


def run_by_reference(proto: Any, feeds: dict[str, Array]) -> list[Array]:
    """Return outputs by the standard's reference implementation; where that is wrong, by our own in float64."""
    from onnx.reference import ReferenceEvaluator

    ops = {node.op_type for node in proto.graph.node}
    old = proto.opset_import[0].version < 14  # there its batch norm takes the batch's statistics
    if "ConvTranspose" not in ops and not (old and "BatchNormalization" in ops):
        return list(ReferenceEvaluator(proto).run(None, feeds))
    imported = import_model(proto)
    graph = mg.lower(imported.graph, "inference")
    found = bounds_of(graph, imported.state, defaults_of(proto) | feeds)
    return [each.value.astype(node.dtype) for each, node in zip(found, graph.outputs.values(), strict=True)]


def bounds_of(graph: Graph, state: dict[str, Array], feeds: dict[str, Array]) -> list[Bounded]:
    """Return value and error bound of each output."""
    values = {**state, **feeds}
    sizes: dict[str, int] = {}
    for node in graph.inputs:
        for size, number in zip(node.shape, values[node.label].shape, strict=True):
            if not isinstance(size, int):
                sizes[str(size)] = number
    outputs = list(graph.outputs.values())
    found = analyse(outputs, values, sizes=sizes)
    return [found[node] for node in outputs]


def defaults_of(proto: Any) -> dict[str, Array]:
    return {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}


def ops_of(proto: Any) -> str:
    return " ".join(sorted(n.op_type for n in proto.graph.node))


def signature(proto: Any) -> list[bytes]:
    """Return the inputs and outputs; before IR 4 an initialiser that is declared as an input is none."""
    fixed = {t.name for t in proto.graph.initializer} if proto.ir_version < 4 else set()
    listed = [i for i in proto.graph.input if i.name not in fixed]
    return [v.SerializeToString(deterministic=True) for v in (*listed, *proto.graph.output)]


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_case(case: Case) -> None:
    imported = import_model(case.proto)
    before = mg.lower(imported.graph, "inference")
    made, trace = optimize_with_trace(case.proto)
    onnx.checker.check_model(made, full_check=True)
    assert ops_of(made) == case.left, trace.report()
    assert signature(made) == signature(case.proto)
    assert not case.says or any(case.says in str(refusal) for refusal in trace.refusals.values())
    after = trace.step("freeze").before
    for feeds in feeds_of(case):
        known = {i.label: defaults_of(case.proto).get(i.label) for i in before.inputs}
        values = {name: value for name, value in known.items() if value is not None} | feeds
        old, new = (bounds_of(graph, imported.state, values) for graph in (before, after))
        expected, got = run(case.proto, feeds), run(made, feeds)
        for y, z, b, a in zip(expected, got, old, new, strict=True):
            assert_close(y, z, b, a)


def assert_close(expected: Array, got: Array, before: Bounded, after: Bounded) -> None:
    """Check that two results differ by no more than their error bounds, and have no number in the same places."""
    assert expected.dtype == got.dtype and expected.shape == got.shape
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    finite = np.isfinite(before.value)
    assert np.isfinite(expected[finite]).all() and np.isfinite(got[finite]).all()
    # Where float16 has no room for what the definition says (ε, 1/√ε), the original is computed in float32, and the
    # folded model, whose parameters have room, must be as near to it as its own bound is wide.
    stored = 2.0**-8 * np.abs(before.value) if expected.dtype.name == "bfloat16" else 0.0  # analysed as float32
    errors = [np.where(np.isfinite(each.error), each.error, after.error) + stored for each in (before, after)]
    promised = finite & np.isfinite(errors[0]) & np.isfinite(errors[1])
    np.testing.assert_array_equal(got[finite & ~promised], expected[finite & ~promised])  # nothing may have changed
    one, two, exact = (a[promised].astype(np.float64) for a in (expected, got, before.value))
    own = 2.0 if expected.dtype == np.float64 else 1.0  # what is called exact was computed in float64 too
    assert (np.abs(one - exact) <= own * errors[0][promised]).all(), "it is read wrongly"
    assert (np.abs(one - two) <= (errors[0] + errors[1])[promised]).all()


def test_all_rows_have_cases() -> None:
    assert {case.row for case in ALL} | set(NOT_IN_A_FILE) == set(range(1, ROWS + 1))
    assert not {case.row for case in ALL} & set(NOT_IN_A_FILE)
    assert len({case.name for case in ALL}) == len(ALL)
