"""Ops of dtypes that ONNX' ops do not take: computed in one that they take, between casts."""

from __future__ import annotations

from minigraph.errors import GraphError
from minigraph.ir.leaves import Item
from minigraph.ir.node import Node
from minigraph.ir.op import Op
from minigraph.ir.types import TensorType
from minigraph.ops import cast, shape
from minigraph.ops import elementwise as el
from minigraph.ops.activations import Relu
from minigraph.ops.conv import Conv2D, Conv2DTranspose
from minigraph.ops.indexing import Gather, Slice
from minigraph.ops.linalg import MatMul
from minigraph.ops.pool import MaxPool2D
from minigraph.ops.real import Pow
from minigraph.ops.reduction import ArgMax, Max, Min, Sum

_SMALL = dict.fromkeys(("int8", "uint8", "int16", "uint16"), "int32")
_TRUTH = {"bool": "uint8"}
_IMAGES = dict.fromkeys(("int16", "uint16", "int32", "uint32"), "float64")
_NO_IMAGES = dict.fromkeys(("int64", "uint64"), "")
# Op → dtype that ONNX has not → the one it is computed in; none where that would not be exact. Integers wrap around in
# casts as they do in ours; a sum or product of truth values is true if it is not 0.
_WIDER: dict[type[Op], dict[str, str]] = {
    **dict.fromkeys((el.Add, el.Mul, el.Less, el.LessEqual, el.Greater, el.GreaterEqual, el.Abs, ArgMax), _TRUTH),
    el.Neg: {"uint8": "int32", "uint16": "int32", "uint32": "int64", "uint64": "int64"},
    Pow: _SMALL | {"uint32": "int64", "uint64": "int64"},
    Sum: _SMALL | {"bool": "int32"},
    Max: {"int16": "int32", "uint16": "int32"},
    Min: {"int16": "int32", "uint16": "int32"},
    MatMul: _SMALL | {"bool": "int32"},
    MaxPool2D: _IMAGES | _NO_IMAGES,
    **dict.fromkeys(
        (Conv2D, Conv2DTranspose),
        _IMAGES | dict.fromkeys(("int8", "uint8", "bool"), "float64") | _NO_IMAGES | {"int32": "", "uint32": ""},
    ),
}


# What takes bfloat16 at the opset that is written. The others, convolutions and pools among them, round once behind
# float32, as our own kernels do.
_OF_BFLOAT16 = (
    el.Add, el.Sub, el.Mul, el.Div, el.Neg, el.Abs, el.Where, Relu, MatMul, shape.Reshape, shape.Transpose,
    shape.BroadcastTo, shape.Concat, shape.Split, shape.Cast, shape.CountOf, Slice, Gather, Item,
)  # fmt: skip


def in_known_dtype(node: Node, inputs: tuple[Node, ...]) -> Node:
    """Return a node over new inputs, computed in a dtype that ONNX has for its op.

    Raises a GraphError where there is none that gives the same numbers.

    >>> from minigraph.ir.leaves import input
    >>> x = input((3,), "uint8", "x")
    >>> in_known_dtype(-x, (x,)), in_known_dtype(-x, (x,)).inputs[0]
    (<cast : uint8[3]>, <neg : int32[3]>)
    """
    made = node if inputs == node.inputs else node.with_inputs(inputs)
    if any(isinstance(i.type, TensorType) and i.dtype == "bfloat16" for i in inputs):
        return made if isinstance(node.op, _OF_BFLOAT16) else _in_float32(made)
    if not inputs or type(node.op) not in _WIDER:
        return made
    given = inputs[0].dtype
    wide = _WIDER[type(node.op)].get(given)
    if wide is None:
        return made
    if not wide:
        raise GraphError(
            f"{node.op.name} of {given} has no ONNX form", expected="a float dtype, or fewer bits", got=node.type,
            where=node.origin.where,
        )  # fmt: skip
    result = node.with_inputs([cast(i, wide) for i in inputs])
    return cast(result, node.dtype)


def _in_float32(node: Node) -> Node:
    wide = [cast(i, "float32") if i.dtype == "bfloat16" else i for i in node.inputs]
    result = node.with_inputs(wide)
    return result if result.type == node.type else cast(result, "bfloat16")
