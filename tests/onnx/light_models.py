"""The light models of the onnx package with weights of their own: there all weights of a shape are one number.

Their graphs are those of the published networks; only the numbers are left out, by a ConstantOfShape for each tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", "1.17")

Shape = tuple[int, ...]
Draw = Callable[[np.random.Generator, Shape], np.ndarray]
FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def _kernel(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """As He et al. 2015 draw it, so that what is in an image is not lost on its way through many layers."""
    return rng.normal(0.0, math.sqrt(2 / math.prod(shape[1:])), shape)


def _near_one(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    return rng.uniform(0.5, 1.5, shape)


def _scale(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """One in ten is negative: where a batch norm stays because of that, it stays here."""
    return _near_one(rng, shape) * np.where(rng.random(shape) < 0.1, -1, 1)


def _shift(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    return rng.normal(0.0, 0.2, shape)


# What an operand is, by its place.
DRAWS: dict[str, dict[int, Draw]] = {
    "Conv": {1: _kernel, 2: _shift},
    "Gemm": {1: _kernel, 2: _shift},
    "BatchNormalization": {1: _scale, 2: _shift, 3: _shift, 4: _near_one},
    "Mul": {1: _near_one},
    "Add": {1: _shift},
}


def light_model(name: str, seed: int = 0) -> onnx.ModelProto:
    """Return a light model with random weights. What softmax reads is an output too: it must not hide a difference."""
    source = onnx.load(FOLDER / f"light_{name}.onnx").graph
    shapes, rng = _shapes(source), np.random.default_rng(seed)
    weights = {
        tensor: draw(rng, shapes[tensor]).astype(np.float32)
        for tensor, draw in dict(_draws(source)).items()
        if tensor in shapes
    }
    nodes = [node for node in source.node if node.op_type != "ConstantOfShape"]
    read = {tensor for node in nodes for tensor in node.input}
    missing = read & shapes.keys() - weights.keys()
    assert not missing, "weights that nothing was drawn for"
    tensors = [tensor for tensor in source.initializer if tensor.name in read - weights.keys()]
    tensors += [onnx.numpy_helper.from_array(values, tensor) for tensor, values in weights.items()]
    names = {tensor.name for tensor in source.initializer}
    inputs = [value for value in source.input if value.name not in names]
    outputs = list(source.output)
    for node in nodes:
        if node.op_type == "Softmax":
            outputs.append(onnx.helper.make_tensor_value_info(node.input[0], onnx.TensorProto.FLOAT, (1, 1000)))
    graph = onnx.helper.make_graph(nodes, name, inputs, outputs, tensors)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 9)], ir_version=4)
    onnx.checker.check_model(model, full_check=True)
    return model


def _shapes(graph: onnx.GraphProto) -> dict[str, Shape]:
    """Return the shape of each tensor that may be a weight."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    shapes = {name: tuple(t.dims) for name, t in tensors.items() if t.data_type == onnx.TensorProto.FLOAT}
    for node in graph.node:
        if node.op_type == "ConstantOfShape":
            shapes[node.output[0]] = tuple(onnx.numpy_helper.to_array(tensors[node.input[0]]).tolist())
    return shapes


def _draws(graph: onnx.GraphProto) -> Iterator[tuple[str, Draw]]:
    """Yield (name, what to draw) for the operands that may be weights."""
    widened = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Unsqueeze"}
    for node in graph.node:
        for place, draw in DRAWS.get(node.op_type, {}).items():
            if place < len(node.input):
                yield widened.get(node.input[place], node.input[place]), draw


def counts(model: onnx.ModelProto) -> tuple[int, int]:
    """Return how many nodes a model has, constants not counted, and how many of them are batch norms."""
    ops = [n.op_type for n in model.graph.node if n.op_type not in ("Constant", "ConstantOfShape")]
    return len(ops), ops.count("BatchNormalization")
