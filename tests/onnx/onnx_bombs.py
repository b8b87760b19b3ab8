"""ONNX files made by hand: short ones that ask for much time or memory, and some that are only strange."""

from __future__ import annotations

import numpy as np
import small_onnx
from small_onnx import onnx

ModelProto = onnx.ModelProto


def doubling_functions() -> ModelProto:
    """A function that calls one twice that calls one twice …: 2^40 nodes in a kilobyte."""
    model = small_onnx.chain(1)
    model.opset_import.add(domain="mine", version=1)
    for level in range(40):
        function = model.functions.add(name=f"F{level}", domain="mine", input=["a"], output=["b"])
        function.opset_import.add(domain="", version=17)
        function.opset_import.add(domain="mine", version=1)
        below = {"op_type": f"F{level - 1}", "domain": "mine"} if level else {"op_type": "Relu"}
        function.node.add(input=["a"], output=["c"], **below)
        function.node.add(input=["c"], output=["b"], **below)
    model.graph.node[0].domain, model.graph.node[0].op_type = "mine", "F39"
    return model


def renamed(name: str) -> ModelProto:
    """Return a model whose input has a name that is valid, and strange."""
    model = small_onnx.chain(1)
    model.graph.input[0].name = model.graph.node[0].input[0] = name
    return model


def bombs() -> dict[str, ModelProto]:
    """Return short files that ask for much time or memory, and some that are only strange."""
    one_op, one = small_onnx.one_op, np.ones((1, 1, 1, 1), np.float32)
    return {
        "doubling functions": doubling_functions(),
        "expand": one_op("Expand", {"shape": [2**40, 2, 2]}, 2, 2),
        "tile": one_op("Tile", {"repeats": [2**40, 2**20]}, 2, 2),
        "constant of shape": one_op("ConstantOfShape", {"shape": [2**33]}),
        "constant of no shape": one_op("ConstantOfShape", {"shape": [2**62, 2**62]}),
        "range": one_op("Range", {"first": 0, "end": 2**62, "step": 1}),
        "range of floats": one_op("Range", {"first": 0.0, "end": 1e300, "step": 1e-300}),
        "one hot": one_op("OneHot", {"i": [1, 2], "depth": [2**40], "v": [0, 1]}, axis=-1),
        "pad": one_op("Pad", {"pads": [2**40, 0, 2**40, 0]}, 2, 2),
        "pad by reflection": one_op("Pad", {}, 2, 2, opset=6, mode="reflect", pads=[2**31, 0, 0, 0]),
        "crop": one_op("Pad", {"pads": [-(2**40), 0, -(2**40), 0]}, 2, 2),
        "eye": one_op("EyeLike", {}, 2**31, 2**31),
        "resize": one_op("Upsample", {"scales": np.array([1, 1, 1e12, 1e12], np.float32)}, 1, 1, 2, 2, opset=9),
        "split": one_op("Split", {}, 2, 2, opset=18, num_outputs=2**40),
        "sums": one_op("CumSum", {"axis": 0}, 2**40, 2),
        "transposed convolution": one_op("ConvTranspose", {"w": one}, 1, 1, 2, 2, strides=[2**20, 2**20]),
        "convolution": one_op("Conv", {"w": one}, 1, 1, 2, 2, pads=[2**40] * 4, dilations=[2**40, 2**40]),
        "pool": one_op("MaxPool", {}, 1, 1, 2**40, 2**40, kernel_shape=[2**20, 2**20]),
        "dilated pool": one_op("MaxPool", {}, 1, 1, 2**40, 99, kernel_shape=[3, 3], dilations=[9, 9], pads=[9] * 4),
        "average pool": one_op("AveragePool", {}, 1, 1, 2**30, 2**30, kernel_shape=[2, 2], pads=[1] * 4),
        "response": one_op("LRN", {}, 1, 2**20, 2, 2, size=2**40),
        "power": one_op("Pow", {"base": [2**62], "exponent": [2**62]}),
        "axes": one_op("Transpose", {}, 2, 2, perm=[0] * 10**5),
        "blocks": one_op("DepthToSpace", {}, 1, 2**62, 1, 1, blocksize=2**31),
        "window": one_op("HannWindow", {"size": 2**40}),
        "triangle": one_op("Trilu", {"k": 1}, 2**40, 2),
        "infinite resize": one_op("Upsample", {"scales": np.array([1, 1, 3e38, 2], np.float32)}, 1, 1, 4, 4, opset=9),
        "unprintable input": renamed("\x1b[2J"),
        "long input": renamed("a" * 3000),
    }
