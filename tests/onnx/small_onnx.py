"""Small ONNX models for tests, built from the format's own parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

# The version tells the package from this folder, which answers to its name where it is missing.
onnx = pytest.importorskip("onnx", "1.17")
TensorProto, helper, numpy_helper = onnx.TensorProto, onnx.helper, onnx.numpy_helper

FLOAT, BOOL = TensorProto.FLOAT, TensorProto.BOOL


def value(name: str, *shape: int | str, code: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, code, list(shape))


def model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: dict[str, np.ndarray] | None = None,
    opset: int = 17,
) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def chain(n: int = 3) -> onnx.ModelProto:
    """x0 → relu → x1 → relu → …"""
    nodes = [helper.make_node("Relu", [f"x{i}"], [f"x{i + 1}"], name=f"r{i}") for i in range(n)]
    return model(nodes, [value("x0", 2)], [value(f"x{n}", 2)])


def dense() -> onnx.ModelProto:
    """A dense layer, its weights as raw bytes and its bias as floats."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"], name="dense", alpha=1.0, transB=1),
        helper.make_node("Relu", ["h"], ["a"], name="relu"),
        helper.make_node("Softmax", ["a"], ["y"], name="softmax", axis=-1),
    ]
    found = model(nodes, [value("x", "N", 3)], [value("y", "N", 4)], {"w": rng.normal(size=(4, 3)).astype("f")})
    found.graph.initializer.append(helper.make_tensor("b", FLOAT, [4], [0.5, -0.5, 0.25, 0.0]))
    return found


def convolution() -> onnx.ModelProto:
    """Convolution, batch norm, relu, residual sum, pooling, reshape: what most networks are made of."""
    rng = np.random.default_rng(1)
    weights = {
        "k": rng.normal(size=(2, 2, 3, 3)).astype("f"),
        "gamma": rng.normal(size=2).astype("f"),
        "beta": rng.normal(size=2).astype("f"),
        "mean": rng.normal(size=2).astype("f"),
        "var": rng.random(2).astype("f") + 0.5,
        "shape": np.array([0, -1], np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], name="conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "gamma", "beta", "mean", "var"], ["n"], name="bn", epsilon=1e-5),
        helper.make_node("Relu", ["n"], ["r"], name="relu"),
        helper.make_node("Add", ["r", "x"], ["s"], name="sum"),
        helper.make_node("MaxPool", ["s"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Reshape", ["p", "shape"], ["y"], name="flat"),
    ]
    return model(nodes, [value("x", "N", 2, 4, 4)], [value("y", "N", 8)], weights)


def shapes() -> onnx.ModelProto:
    """Ops whose operands are sizes, axes and positions: the numbers in a file that decide how much is allocated."""
    weights = {
        "starts": np.array([1], np.int64),
        "ends": np.array([3], np.int64),
        "axes": np.array([1], np.int64),
        "repeats": np.array([1, 2, 1], np.int64),
        "index": np.array([0, 2, 1], np.int64),
        "pads": np.array([0, 0, 1, 0, 0, 1], np.int64),
        "wide": np.array([2, 4, 5], np.int64),
    }
    nodes = [
        helper.make_node("Slice", ["x", "starts", "ends", "axes"], ["s"], name="slice"),
        helper.make_node("Tile", ["s", "repeats"], ["t"], name="tile"),
        helper.make_node("Gather", ["t", "index"], ["g"], name="gather", axis=2),
        helper.make_node("Pad", ["g", "pads"], ["p"], name="pad"),
        helper.make_node("Expand", ["p", "wide"], ["e"], name="expand"),
        helper.make_node("Transpose", ["e"], ["q"], name="transpose", perm=[2, 0, 1]),
        helper.make_node("Split", ["q"], ["y1", "y2"], name="split", axis=2),
        helper.make_node("Concat", ["y1", "y2"], ["c"], name="concat", axis=1),
        helper.make_node("ReduceMean", ["c"], ["y"], name="mean", axes=[0], keepdims=0),
    ]
    return model(nodes, [value("x", 2, 4, 3)], [value("y", 4, 2)], weights)


def branches(depth: int = 1) -> onnx.ModelProto:
    """An `If` in an `If` in an `If` …: subgraphs that use names of the graphs around them."""

    def branch(level: int) -> onnx.GraphProto:
        out = f"out{level}"
        if level == depth:
            return helper.make_graph([helper.make_node("Relu", ["x"], [out], name="r")], "b", [], [value(out, 2)])
        inner = branch(level + 1)
        node = helper.make_node("If", ["c"], [out], name=f"if{level}", then_branch=inner, else_branch=inner)
        return helper.make_graph([node], "b", [], [value(out, 2)])

    found = model([], [value("c", code=BOOL), value("x", 2)], [value("out0", 2)])
    found.graph.CopyFrom(branch(0))
    found.graph.input.extend([value("c", code=BOOL), value("x", 2)])
    return found


def constants() -> onnx.ModelProto:
    """Constants in attributes, in every way the format has; and an optional operand that is left out."""
    tensor = numpy_helper.from_array(np.array([1.0, 2.0], "f"), "t")
    nodes = [
        helper.make_node("Constant", [], ["t"], name="tensor", value=tensor),
        helper.make_node("Constant", [], ["f"], name="float", value_float=2.0),
        helper.make_node("Constant", [], ["low"], name="low", value_float=-1.0),
        helper.make_node("Add", ["x", "t"], ["a"], name="add"),
        helper.make_node("Mul", ["a", "f"], ["m"], name="mul"),
        helper.make_node("Clip", ["m", "low", ""], ["y"], name="clip"),
    ]
    return model(nodes, [value("x", 3, 2)], [value("y", 3, 2)])


ALL = {"chain": chain, "dense": dense, "convolution": convolution, "shapes": shapes, "branches": branches}
ALL["constants"] = constants


def one_op(
    op_type: str, weights: dict[str, Any] | None = None, *shape: int | str, opset: int = 17, **attributes: Any
) -> onnx.ModelProto:
    """Return a model of one op: x, which has the shape if one is given, and the weights, to y."""
    arrays = {name: np.asarray(array) for name, array in (weights or {}).items()}
    inputs = [value("x", *shape)] if shape else []
    node = helper.make_node(op_type, [*(v.name for v in inputs), *arrays], ["y"], **attributes)
    return model([node], inputs, [value("y")], arrays, opset)


def operators() -> list[onnx.ModelProto]:
    """Return a model for each kind of op whose operands and attributes say how it is computed."""
    image, ones, half = (1, 4, 4, 4), np.ones(4, np.float32), np.array(0.5, np.float32)
    pair = np.ones((2, 3), np.float32)
    return [
        one_op("ArgMax", {}, 2, 3, axis=1, keepdims=0, select_last_index=1),
        one_op("Cast", {}, 2, 3, to=TensorProto.INT32),
        one_op("ConstantOfShape", {"shape": [2, 3]}, value=helper.make_tensor("v", FLOAT, [1], [2.0])),
        one_op("CumSum", {"axis": 0}, 2, 3, exclusive=1, reverse=1),
        one_op("DepthToSpace", {}, *image, blocksize=2, mode="CRD"),
        one_op("Dropout", {"ratio": half}, 2, 3, seed=1),
        one_op("EyeLike", {}, 3, 3, k=1, dtype=FLOAT),
        one_op("GatherElements", {"index": [[0, 1, 1]]}, 2, 3, axis=0),
        one_op("GatherND", {"index": [[0, 1], [1, 2]]}, 2, 3, batch_dims=0),
        one_op("GlobalAveragePool", {}, *image),
        one_op("GlobalLpPool", {}, *image, p=1),
        one_op("GroupNormalization", {"scale": ones, "bias": ones}, *image, opset=21, num_groups=2),
        one_op("LayerNormalization", {"scale": ones, "bias": ones}, *image, axis=-1, epsilon=1e-5),
        one_op("InstanceNormalization", {"scale": ones, "bias": ones}, *image, epsilon=1e-5),
        one_op("LRN", {}, *image, size=3, alpha=1e-4, beta=0.75, bias=1.0),
        one_op("LpPool", {}, *image, kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 1, 1], p=2),
        one_op("AveragePool", {}, *image, kernel_shape=[3, 3], auto_pad="SAME_UPPER", count_include_pad=1),
        one_op("MaxPool", {}, *image, kernel_shape=[2, 2], dilations=[2, 2], ceil_mode=1, pads=[1, 1, 1, 1]),
        one_op("ConvTranspose", {"w": np.ones((4, 2, 3, 3), np.float32)}, *image, strides=[2, 2], group=2,
               output_padding=[1, 1], pads=[1, 1, 1, 1]),
        one_op("MatMul", {"w": np.ones((4, 5), np.float32)}, *image),
        one_op("Mod", {"m": half}, 2, 3, fmod=1),
        one_op("OneHot", {"i": [1, 2], "depth": [4], "v": [0, 1]}, axis=-1),
        one_op("Pad", {"pads": [0, 1, 0, 1]}, 2, 3, mode="reflect"),
        one_op("Range", {"first": 0, "end": 6, "step": 2}),
        one_op("ReduceL2", {"axes": [1]}, 2, 3, opset=18, keepdims=0, noop_with_empty_axes=1),
        one_op("ReduceProd", {}, 2, 3, axes=[0, 1]),
        one_op("Resize", {"roi": np.zeros(0, np.float32), "scales": np.array([1, 1, 2, 2], np.float32)}, *image,
               mode="linear", coordinate_transformation_mode="half_pixel"),
        one_op("Upsample", {"scales": np.array([1, 1, 2, 2], np.float32)}, *image, opset=9, mode="nearest"),
        one_op("Shape", {}, "N", 3, start=0, end=-1),
        one_op("Squeeze", {"axes": [0]}, 1, 3),
        one_op("Transpose", {}, *image, perm=[0, 2, 3, 1]),
        one_op("Trilu", {"k": 1}, 3, 3, upper=1),
        one_op("Where", {"condition": pair > 0, "then": pair, "else": pair}),
    ]  # fmt: skip
