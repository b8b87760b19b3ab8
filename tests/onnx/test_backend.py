"""The onnx.backend API: a prepared model makes a program for each set of shapes, and of numbers that shapes need."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", "1.17")

from minigraph.errors import ArgumentError, ModelFormatError  # noqa: E402
from minigraph.onnx import backend, optimize  # noqa: E402

helper, FLOAT, INT = onnx.helper, onnx.TensorProto.FLOAT, onnx.TensorProto.INT64


def model_of(nodes, inputs, outputs=("y",)):
    infos = [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs]
    results = [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs]
    graph = helper.make_graph(nodes, "test", infos, results)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


RELU = model_of([helper.make_node("Relu", ["x"], ["y"])], [("x", FLOAT, ["batch", 3])])
RESHAPE = model_of([helper.make_node("Reshape", ["x", "s"], ["y"])], [("x", FLOAT, ["n", "m"]), ("s", INT, [2])])


def test_a_model_runs_by_order_and_by_name_at_any_open_size():
    ready = backend.prepare(RELU)
    for batch in (1, 4, 1):
        x = np.random.default_rng(batch).normal(size=(batch, 3)).astype("float32")
        np.testing.assert_array_equal(ready.run([x])[0], np.maximum(x, 0))
        np.testing.assert_array_equal(ready.run({"x": x})[0], np.maximum(x, 0))
    np.testing.assert_array_equal(backend.run_model(RELU, [x])[0], np.maximum(x, 0))


def test_numbers_that_shapes_need_make_programs_of_their_own():
    ready = backend.prepare(RESHAPE)
    x = np.arange(6, dtype="float32").reshape(2, 3)
    for shape in ((3, 2), (6, 1), (-1, 6), (3, 2)):
        np.testing.assert_array_equal(ready.run([x, np.array(shape)])[0], x.reshape(shape))


def test_only_the_latest_programs_are_kept():
    ready = backend.prepare(RELU)
    for batch in range(1, 9):
        ready.run([np.zeros((batch, 3), "float32")])
    assert len(ready._programs) == backend.KEPT


def test_a_single_node_runs():
    x = np.array([[-1.0, 0.5, 2.0]], "float32")
    clip = helper.make_node("Clip", ["x", "", "high"], ["y"])
    np.testing.assert_array_equal(backend.run_node(clip, [x, np.float32(1)])[0], np.minimum(x, 1))
    top, place = backend.run_node(
        helper.make_node("MaxPool", ["x"], ["top", "place"], kernel_shape=[3]), [x[None]]
    )  # fmt: skip
    assert (top.item(), place.item()) == (2.0, 2)


def test_devices_and_what_can_be_read():
    assert backend.supports_device("CPU") and not backend.supports_device("CUDA:0")
    assert backend.is_compatible(RELU) and backend.is_compatible(RESHAPE)
    unknown = model_of([helper.make_node("Loop", ["x"], ["y"])], [("x", FLOAT, [1])])
    assert not backend.is_compatible(unknown)
    with pytest.raises(ArgumentError, match="no such device"):
        backend.prepare(RELU, "CUDA")
    with pytest.raises(ModelFormatError, match="Loop"):
        backend.prepare(unknown).run([np.zeros(1, "float32")])


def test_what_a_file_leaves_out_is_filled_in():
    bare = model_of([helper.make_node("Relu", ["x"], ["y"])], [("x", FLOAT, ["batch", 3])])
    bare.graph.name = ""
    bare.graph.output[0].ClearField("type")
    optimized = optimize(bare)
    onnx.checker.check_model(optimized, full_check=True)
    assert optimized.graph.output[0].type.tensor_type.elem_type == FLOAT


def test_what_nothing_reads_need_not_be_known():
    unread = model_of(
        [helper.make_node("Frobnicate", ["x"], ["z"]), helper.make_node("Relu", ["x"], ["y"])], [("x", FLOAT, [2])]
    )
    np.testing.assert_array_equal(backend.run_model(unread, [np.float32([-1, 1])])[0], [0, 1])
    assert [node.op_type for node in optimize(unread).graph.node] == ["Relu"]


def test_what_only_a_branch_reads_is_read():
    outer = helper.make_node("Neg", ["x"], ["n"])
    branch = {
        name: helper.make_graph(
            [helper.make_node(op, ["n"], [name])], name, [], [helper.make_empty_tensor_value_info(name)]
        )
        for name, op in (("t", "Relu"), ("e", "Abs"))
    }
    choice = helper.make_node("If", ["c"], ["y"], then_branch=branch["t"], else_branch=branch["e"])
    chosen = model_of([outer, choice], [("x", FLOAT, [2]), ("c", onnx.TensorProto.BOOL, [])])
    for condition, expected in ((True, [1, 0]), (False, [1, 2])):
        np.testing.assert_array_equal(
            backend.run_model(chosen, [np.float32([-1, 2]), np.array(condition)])[0], expected
        )
