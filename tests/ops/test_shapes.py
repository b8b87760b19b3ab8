"""Shape rules: what each op infers, refuses and costs; symbolic batches; and that nothing is without a docstring."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minigraph import ops
from minigraph.backends.numpy import KERNELS
from minigraph.errors import ArgumentError, DTypeError, GraphError, MinigraphError, ShapeError
from minigraph.ir import (
    OPS,
    Dim,
    Graph,
    Node,
    TensorType,
    TupleType,
    bind,
    fresh_names,
    item,
    parse,
    symbol,
    topological,
    unique_name,
    variable,
    verify,
)  # fmt: skip
from minigraph.ir.leaves import Constant, Item, input
from minigraph.ops.activations import Relu
from minigraph.ops.conv import Conv2D, Conv2DKernelAdjoint, Conv2DTranspose
from minigraph.ops.elementwise import Add, Neg
from minigraph.ops.fused import Fused
from minigraph.ops.group import Group, group
from minigraph.ops.indexing import Gather, GatherAdjoint, OneHot, Pad, Slice, SliceAdjoint
from minigraph.ops.linalg import MatMul
from minigraph.ops.loss import SoftmaxCrossEntropy
from minigraph.ops.norm import BatchNorm, Moments, Moving
from minigraph.ops.pool import AvgPool2D, AvgPool2DAdjoint, MaxPool2DAdjoint, MaxPool2DSelect
from minigraph.ops.random import RandomUniform
from minigraph.ops.reduction import LogSumExp, Max, Mean, Min, Sum
from minigraph.ops.region import Function, Step
from minigraph.ops.shape import After, BroadcastTo, Concat, Reshape, Split, Transpose
from ops.cases import CASES, draw

N = symbol("N")


def v(*shape: Any, dtype: str = "float32", name: str | None = None) -> Node:
    return variable(shape, name=name or unique_name("v"), dtype=dtype)


def i(*shape: Any) -> Node:
    return v(*shape, dtype="int64")


def b(*shape: Any) -> Node:
    return v(*shape, dtype="bool")


def tup() -> Node:
    """A node with two results."""
    return Node(Moments((0,)), (v(2, 3),))


def fused(*steps: tuple[Any, ...]) -> Fused:
    """A region of steps: (op, place, place …)."""
    return Fused(body(*steps))


def body(*steps: tuple[Any, ...]) -> tuple[Step, ...]:
    """Steps: (op, place, place …) each."""
    return tuple(Step(op, tuple(places)) for op, *places in steps)


# --- what is refused ----------------------------------------------------------------------------------------------

# (op, what is built, the error, words of its summary, words of `expected`, words of `got`)
REFUSED: list[tuple[str, Callable[[], object], type[MinigraphError], str, str, str]] = [
    ("add", lambda: v(3) + v(4), ShapeError, "broadcast", "equal or 1", "[3] and [4]"),
    ("add", lambda: v(3) + v(3, dtype="float64"), DTypeError, "different dtypes", "one dtype", "float32 and float64"),
    ("add", lambda: v(3) + np.ones(3), DTypeError, "different dtypes", "one dtype", "float32 and float64"),
    ("add", lambda: i(3) + 0.5, DTypeError, "a fraction meets integers", "int64", "0.5"),
    ("add", lambda: v(3) + "a", ArgumentError, "cannot make a node", "a number or an array", "str"),
    ("add", lambda: v(3) + None, ArgumentError, "cannot make a node", "a number or an array", "NoneType"),
    ("add", lambda: v(3, dtype="int8") + 300, ArgumentError, "does not fit", "int8", "300"),
    ("sub", lambda: v(2, 3) - v(3, 2), ShapeError, "broadcast", "equal or 1", "[2,3] and [3,2]"),
    ("sub", lambda: v(3) - i(3), DTypeError, "different dtypes", "one dtype", "float32 and int64"),
    ("mul", lambda: v(2, 3) * v(2), ShapeError, "broadcast", "aligned at the last axis", "[2,3] and [2]"),
    ("mul", lambda: v(3) * b(3), DTypeError, "different dtypes", "one dtype", "float32 and bool"),
    ("div", lambda: v(2) / v(3), ShapeError, "broadcast", "equal or 1", "[2] and [3]"),
    ("div", lambda: i(3) / i(3), DTypeError, "division of integers", "a float dtype", "int64[3]"),
    ("pow", lambda: v(2) ** v(3), ShapeError, "broadcast", "equal or 1", "[2] and [3]"),
    ("pow", lambda: v(2) ** i(2), DTypeError, "different dtypes", "one dtype", "float32 and int64"),
    ("maximum", lambda: ops.maximum(v(2), v(3)), ShapeError, "broadcast", "equal or 1", "[2] and [3]"),
    ("maximum", lambda: ops.maximum(v(2), i(2)), DTypeError, "different dtypes", "one dtype", "int64"),
    ("minimum", lambda: ops.minimum(v(2), v(3)), ShapeError, "broadcast", "equal or 1", "[2] and [3]"),
    ("minimum", lambda: ops.minimum(v(2), i(2)), DTypeError, "different dtypes", "one dtype", "int64"),
    ("less", lambda: v(2) < v(3), ShapeError, "broadcast", "equal or 1", "[2] and [3]"),
    ("less", lambda: v(2) < i(2), DTypeError, "different dtypes", "one dtype", "int64"),
    ("less_equal", lambda: v(2) <= v(3), ShapeError, "broadcast", "equal or 1", "[2] and [3]"),
    ("greater", lambda: v(2) > v(3), ShapeError, "broadcast", "equal or 1", "[2] and [3]"),
    ("greater_equal", lambda: v(2) >= v(3), ShapeError, "broadcast", "equal or 1", "[2] and [3]"),
    ("equal", lambda: ops.equal(v(2), v(3)), ShapeError, "broadcast", "equal or 1", "[2] and [3]"),
    ("not_equal", lambda: ops.not_equal(v(2), i(2)), DTypeError, "different dtypes", "one dtype", "int64"),
    ("where", lambda: ops.where(v(2), v(2), v(2)), DTypeError, "must be boolean", "bool", "float32[2]"),
    ("where", lambda: ops.where(b(2), v(3), v(3)), ShapeError, "broadcast", "equal or 1", "[2] and [3]"),
    ("where", lambda: ops.where(b(2), v(2), i(2)), DTypeError, "different dtypes", "one dtype", "float32 and int64"),
    ("clip", lambda: ops.clip(v(2), 2.0, 1.0), ArgumentError, "limits are crossed", "minimum ≤ maximum", "2.0"),
    *(
        (name, lambda name=name: getattr(ops, name)(i(2)), DTypeError, "floats", "a float dtype", "int64[2]")
        for name in (
            "exp", "log", "sqrt", "rsqrt", "sin", "cos", "erf", "relu", "leaky_relu", "elu", "sigmoid", "tanh",
            "softplus", "silu", "gelu", "hard_sigmoid", "hard_swish", "mean", "logsumexp", "softmax", "log_softmax",
        )
    ),
    ("sum", lambda: ops.sum(v(2, 3), 2), ShapeError, "axis out of range", "-2 ≤ axis < 2", "2"),
    ("sum", lambda: ops.sum(v(2, 3), (0, -2)), ShapeError, "named twice", "", "(0, -2)"),
    ("mean", lambda: ops.mean(v(2, 3), -3), ShapeError, "axis out of range", "-2 ≤ axis < 2", "-3"),
    ("max", lambda: ops.max(v(2, 3), 5), ShapeError, "axis out of range", "-2 ≤ axis < 2", "5"),
    ("min", lambda: ops.min(v(2, 3), 5), ShapeError, "axis out of range", "-2 ≤ axis < 2", "5"),
    ("logsumexp", lambda: ops.logsumexp(v(), 0), ShapeError, "axis out of range", "-0 ≤ axis < 0", "0"),
    ("argmax", lambda: ops.argmax(v(2, 3), 2), ShapeError, "axis out of range", "-2 ≤ axis < 2", "2"),
    ("argmax", lambda: ops.argmax(v(2, 0)), ShapeError, "empty axis", "", "float32[2,0]"),
    ("softmax", lambda: ops.softmax(v(2), 1), ShapeError, "axis out of range", "-1 ≤ axis < 1", "1"),
    ("log_softmax", lambda: ops.log_softmax(v(2), -2), ShapeError, "axis out of range", "-1 ≤ axis < 1", "-2"),
    ("softmax_cross_entropy", lambda: ops.softmax_cross_entropy(v(2, 3), i(3)),
     ShapeError, "labels", "(2,)", "int64[3]"),
    ("softmax_cross_entropy", lambda: ops.softmax_cross_entropy(v(2, 3), v(2)),
     ShapeError, "do not fit", "[2,3]", "[2]"),
    ("softmax_cross_entropy", lambda: ops.softmax_cross_entropy(v(2, 3), i(2), label_smoothing=2),
     ArgumentError, "smoothing", "≤ 1", "2"),
    ("softmax_cross_entropy", lambda: ops.softmax_cross_entropy(v(2, 3), i(2), class_weights=[1.0]),
     ShapeError, "number of elements", "1 elements", "3 in"),
    ("softmax_cross_entropy", lambda: ops.softmax_cross_entropy(v(2, 3), v(2, 3), ignore_index=1),
     ArgumentError, "cannot be ignored", "", ""),
    ("softmax_cross_entropy", lambda: Node(SoftmaxCrossEntropy(), (i(2, 3), i(2, 3))),
     ShapeError, "do not fit", "", "int64"),
    ("moments", lambda: ops.moments(i(3)), DTypeError, "moments of integers", "a float dtype", "int64[3]"),
    ("moments", lambda: ops.moments(v(3), 1), ShapeError, "axis out of range", "-1 ≤ axis < 1", "1"),
    ("batch_norm", lambda: ops.batch_norm(v(2, 3), v(2), v(3), v(3), v(3)),
     ShapeError, "gamma does not fit", "(3,)", "[2]"),
    ("batch_norm", lambda: ops.batch_norm(v(2, 3), v(3), v(3), v(3), v(3, 1)),
     ShapeError, "variance does not fit", "(3,)", "[3,1]"),
    ("batch_norm", lambda: ops.batch_norm(v(2, 3), v(3), v(3), v(3), v(3, dtype="float64")),
     DTypeError, "dtypes", "one", "64"),
    ("batch_norm", lambda: ops.batch_norm(v(2, 3), v(3), v(3), v(3), v(3), epsilon=-1),
     ArgumentError, "epsilon", "≥ 0", "-1"),
    ("batch_norm", lambda: Moving(momentum=1.5), ArgumentError, "momentum", "≤ 1", "1.5"),
    ("matmul", lambda: ops.matmul(v(2, 3), v(2, 3)), ShapeError, "inner sizes", "3 rows", "2 in"),
    ("matmul", lambda: ops.matmul(v(), v(2, 3)), ShapeError, "of a scalar", "", "float32[]"),
    ("matmul", lambda: ops.matmul(v(4, 2, 3), v(5, 3, 2)), ShapeError, "broadcast", "equal or 1", "[4] and [5]"),
    ("matmul", lambda: ops.matmul(v(2, 3), v(3, 2, dtype="float64")), DTypeError, "dtypes", "one dtype", "float64"),
    ("matmul", lambda: Node(MatMul(), (v(3), v(3, 2))), ShapeError, "needs matrices", "at least 2 axes", "float32[3]"),
    ("reshape", lambda: ops.reshape(v(2, 3), (4, 2)), ShapeError, "number of elements", "6 elements", "8 in [4,2]"),
    ("reshape", lambda: ops.reshape(v(2, 3), (-1, 4)), ShapeError, "whole number", "6 elements", "[-1, 4]"),
    ("reshape", lambda: ops.reshape(v(2, 3), (-1, -1)), ShapeError, "only one size", "", "[-1, -1]"),
    ("reshape", lambda: ops.reshape(v(2, 3), (2.0, 3)), ShapeError, "not a shape", "integers ≥ 0", "2.0"),
    ("reshape", lambda: ops.squeeze(v(2, 3), 0), ShapeError, "only axes of size 1", "1 at axes", "[2,3]"),
    ("reshape", lambda: ops.unsqueeze(v(2, 3), 5), ShapeError, "axis out of range", "-3 ≤ axis < 3", "5"),
    ("transpose", lambda: ops.transpose(v(2, 3), (0,)), ShapeError, "order of the axes", "each of 0 … 1", "(0,)"),
    ("transpose", lambda: ops.transpose(v(2, 3), (0, 0)), ShapeError, "order of the axes", "each of 0 … 1", "(0, 0)"),
    ("transpose", lambda: ops.transpose(v(2, 3), (0, 2)), ShapeError, "axis out of range", "-2 ≤ axis < 2", "2"),
    ("broadcast_to", lambda: ops.broadcast_to(v(2, 3), (3,)), ShapeError, "cannot broadcast", "[3]", "[2,3]"),
    ("broadcast_to", lambda: ops.broadcast_to(v(2), (3,)), ShapeError, "broadcast", "equal or 1", "[2] and [3]"),
    ("broadcast_to", lambda: ops.zeros((-1,)), ShapeError, "not a shape", "integers ≥ 0", "-1"),
    ("pad", lambda: ops.pad(v(2, 3), ((1, 1),)), ShapeError, "bad padding", "2 pairs", "((1, 1),)"),
    ("pad", lambda: ops.pad(v(2), ((-1, 0),)), ShapeError, "bad padding", "≥ 0", "((-1, 0),)"),
    ("pad", lambda: ops.pad(v(N * 2), ((1, 0),)), ShapeError, "(2*N + 1) // 1", "", "float32[2*N]"),
    ("slice", lambda: v(2)[2], ShapeError, "index out of range", "-2 ≤ index < 2", "2"),
    ("slice", lambda: v(2)[0, 0], ShapeError, "too many indices", "at most 1", "(0, 0)"),
    ("slice", lambda: v(2)[..., ...], ShapeError, "too many indices", "at most 1", "Ellipsis"),
    ("slice", lambda: v(2)["a"], ArgumentError, "not supported", "integers, slices", "'a'"),
    ("slice", lambda: v(2)[[0, 1]], ArgumentError, "not supported", "integers, slices", "[0, 1]"),
    ("slice", lambda: v(2)[i()], ArgumentError, "not supported", "integers, slices", "int64[]"),
    ("slice", lambda: Node(Slice((0,), (3,), (1,)), (v(2),)),
     ShapeError, "leaves the array", "inside axis 0", "(0, 3, 1)"),
    ("slice", lambda: Node(Slice((0,), (2,), (-1,)), (v(2),)),
     ShapeError, "leaves the array", "inside axis 0", "(0, 2, -1)"),
    ("slice", lambda: Node(Slice((0,), (2,), (0,)), (v(2),)),
     ShapeError, "leaves the array", "inside axis 0", "(0, 2, 0)"),
    ("slice", lambda: Node(Slice((0,), (2,), (1,)), (v(2, 2),)), ShapeError, "for each axis", "2", "Slice"),
    ("slice_adjoint", lambda: Node(SliceAdjoint((3,), (2,), (1,)), (v(2),)),
     ShapeError, "leaves", "axis 0", "(2, 2, 1)"),
    ("concat", lambda: ops.concat([v(2, 3), v(3, 3)], 1), ShapeError, "outside its axis", "but for axis 1", "[2,3]"),
    ("concat", lambda: ops.concat([v(2, 3), v(3)], 0), ShapeError, "outside its axis", "but for axis 0", "[3]"),
    ("concat", lambda: ops.concat([v(2), i(2)], 0), DTypeError, "dtypes", "one dtype", "int64"),
    ("concat", lambda: ops.concat([]), ShapeError, "concat of nothing", "at least one", ""),
    ("concat", lambda: Node(Concat(0), ()), ShapeError, "concat of nothing", "at least one", ""),
    ("concat", lambda: ops.concat([v(), v()]), ShapeError, "axis out of range", "-0 ≤ axis < 0", "-1"),
    ("split", lambda: ops.split(v(5), 2), ShapeError, "equal pieces", "a divisor of 5", "2"),
    ("split", lambda: ops.split(v(5), 0), ShapeError, "equal pieces", "a divisor of 5", "0"),
    ("split", lambda: ops.split(v(5), (2, 2)), ShapeError, "make up the axis", "5", "(2, 2)"),
    ("split", lambda: ops.split(v(5), 1, 1), ShapeError, "axis out of range", "-1 ≤ axis < 1", "1"),
    ("gather", lambda: ops.gather(v(3), v(2)), DTypeError, "indices must be integers", "int64", "float32[2]"),
    ("gather", lambda: ops.gather(v(3), b(2)), DTypeError, "indices must be integers", "int64", "bool[2]"),
    ("gather", lambda: ops.gather(v(3), i(2), 1), ShapeError, "axis out of range", "-1 ≤ axis < 1", "1"),
    ("gather", lambda: ops.gather(v(3), i(2), 0, "wrap"), ArgumentError, "bad mode", "clip", "wrap"),
    ("gather", lambda: ops.gather(v(0, 3), i(2), 0, "clip"), ShapeError, "no nearest element", "> 0", "[0,3]"),
    ("gather_adjoint", lambda: Node(GatherAdjoint((3,), 0), (v(4), i(2))), ShapeError, "does not fit", "[2]", "[4]"),
    ("one_hot", lambda: ops.one_hot(v(3), 2), DTypeError, "needs integers", "int64", "float32[3]"),
    ("one_hot", lambda: ops.one_hot(i(3), 2, 2), ShapeError, "axis out of range", "-2 ≤ axis < 2", "2"),
    ("one_hot", lambda: ops.one_hot(i(3), 2, dtype="float"), DTypeError, "unknown dtype", "float32", "'float'"),
    ("cast", lambda: ops.cast(v(3), "float99"), DTypeError, "unknown dtype", "float32", "'float99'"),
    ("size", lambda: ops.size(v(3), 1), ShapeError, "axis out of range", "-1 ≤ axis < 1", "1"),
    ("dropout", lambda: ops.dropout(i(3)), DTypeError, "dropout of integers", "a float dtype", "int64[3]"),
    ("dropout", lambda: ops.dropout(v(3), 1.0), ArgumentError, "rate", "< 1", "1.0"),
    ("dropout", lambda: ops.dropout(v(3), float("nan")), ArgumentError, "rate", "< 1", "nan"),
    ("random_uniform", lambda: ops.random_uniform(i(3), (2,)), DTypeError, "a scalar", "int64[]", "int64[3]"),
    ("random_uniform", lambda: ops.random_uniform(v(), (2,)), DTypeError, "a scalar", "int64[]", "float32[]"),
    ("random_uniform", lambda: ops.random_uniform(i(), (2,), (-1, 0)), ArgumentError, "Philox key", "2⁶⁴", "-1"),
    ("random_uniform", lambda: ops.random_uniform(i(), (2,), dtype="int64"),
     ArgumentError, "dtype", "float32", "int64"),
    ("conv2d", lambda: ops.conv2d(v(8, 8, 3), v(3, 3, 3, 4)), ShapeError, "images need 4 axes", "NHWC", "3 axes"),
    ("conv2d", lambda: ops.conv2d(v(1, 8, 8, 3), v(3, 3, 3)), ShapeError, "a kernel has 4 axes", "H,W,I,O", "[3,3,3]"),
    ("conv2d", lambda: ops.conv2d(v(1, 8, 8, 3), v(3, 3, 4, 4)), ShapeError, "channels", "4 (the kernel's", "3"),
    ("conv2d", lambda: ops.conv2d(v(1, 3, 8, 8), v(3, 3, 3, 4)), ShapeError, "channels", "3 (the kernel's", "8"),
    ("conv2d", lambda: ops.conv2d(v(1, 8, 8, 4), v(3, 3, 2, 3), groups=2), ShapeError, "do not divide", "of 3", "2"),
    ("conv2d", lambda: ops.conv2d(v(1, 8, 8, 4), v(3, 3, 4, 2), groups=0), ArgumentError, "groups", "≥ 1", "0"),
    ("conv2d", lambda: ops.conv2d(v(1, 2, 8, 3), v(3, 3, 3, 4)),
     ShapeError, "larger than", "at least 3", "2 with padding"),
    ("conv2d", lambda: ops.conv2d(v(1, 8, 8, 3), v(3, 3, 3, 4, dtype="float64")),
     DTypeError, "dtypes", "one dtype", "64"),
    ("conv2d", lambda: ops.conv2d(v(1, 8, 8, 3), v(3, 3, 3, 4), 0), ArgumentError, "strides", "≥ 1", "0"),
    ("conv2d", lambda: ops.conv2d(v(1, 8, 8, 3), v(3, 3, 3, 4), (1, 2, 3)),
     ArgumentError, "strides", "two", "(1, 2, 3)"),
    ("conv2d", lambda: ops.conv2d(v(1, 8, 8, 3), v(3, 3, 3, 4), padding="full"),
     ArgumentError, "padding", "same", "full"),
    ("conv2d", lambda: ops.conv2d(v(1, 8, 8, 3), v(3, 3, 3, 4), padding=-1), ArgumentError, "padding", "≥ 0", "-1"),
    ("conv2d", lambda: ops.conv2d(v(1, 8, 8, 3), v(3, 3, 3, 4), layout="HWC"), ArgumentError, "layout", "NHWC", "HWC"),
    ("conv2d", lambda: ops.conv2d(v(1, N * 3, 8, 3), v(3, 3, 3, 4)), ShapeError, "(3*N + -2) // 1", "", ""),
    ("conv2d_transpose", lambda: ops.conv2d_transpose(v(1, 4, 4, 3), v(3, 3, 2, 4)), ShapeError, "channels", "4", "3"),
    ("conv2d_transpose", lambda: ops.conv2d_transpose(v(1, 4, 4, 4), v(3, 3, 2, 4), 2, output_size=(5, 5)),
     ShapeError, "no convolution", "(2, 2)", "(4, 4)"),
    ("conv2d_transpose", lambda: ops.conv2d_transpose(v(1, 4, 4, 4), v(3, 3, 2, 4), 2, output_padding=2),
     ShapeError, "no convolution", "(5, 5)", "(4, 4)"),
    ("conv2d_transpose", lambda: ops.conv2d_transpose(v(1, N, 4, 4), v(3, 3, 2, 4)),
     ShapeError, "symbolic size N", "", ""),
    ("conv2d_kernel_adjoint", lambda: Node(Conv2DKernelAdjoint(kernel_size=(2, 2)), (v(1, 4, 4, 2), v(1, 4, 4, 3))),
     ShapeError, "input and output", "(3, 3)", "(4, 4)"),
    ("conv2d_kernel_adjoint", lambda: Node(Conv2DKernelAdjoint(kernel_size=(2, 2)), (v(1, 4, 4, 2), v(2, 3, 3, 3))),
     ShapeError, "input and output", "", ""),
    ("conv2d_kernel_adjoint", lambda: Node(Conv2DKernelAdjoint(groups=2), (v(1, 4, 4, 2), v(1, 4, 4, 3))),
     ShapeError, "do not divide", "2, 3", "2"),
    ("max_pool2d", lambda: ops.max_pool2d(v(8, 8, 3)), ShapeError, "images need 4 axes", "NHWC", "3 axes"),
    ("max_pool2d", lambda: ops.max_pool2d(v(1, 8, 8, 3), 9), ShapeError, "larger than", "at least 9", "8 with"),
    ("max_pool2d", lambda: ops.max_pool2d(v(1, 8, 8, 3), 2, padding=2), ShapeError, "padding", "at least one", "8, 8"),
    ("max_pool2d", lambda: ops.max_pool2d(v(1, 8, 8, 3), 0), ArgumentError, "pool size", "≥ 1", "0"),
    ("max_pool2d", lambda: ops.max_pool2d(v(1, N, 8, 3), ceil_mode=True), ShapeError, "symbolic", "a number", ""),
    ("max_pool2d_adjoint", lambda: Node(MaxPool2DAdjoint(), (v(1, 4, 4, 1), v(1, 3, 3, 1))),
     ShapeError, "fit", "2,2", "3,3"),
    ("max_pool2d_select", lambda: Node(MaxPool2DSelect(), (v(1, 4, 4, 1), v(1, 4, 4, 2))),
     ShapeError, "one type", "4,4,1", "4,4,2"),
    ("avg_pool2d", lambda: ops.avg_pool2d(v(8, 8, 3)), ShapeError, "images need 4 axes", "NHWC", "3 axes"),
    ("avg_pool2d", lambda: ops.avg_pool2d(v(1, 8, 8, 3), (9, 1)), ShapeError, "larger than", "at least 9", "8 with"),
    ("avg_pool2d", lambda: Node(AvgPool2D(padding="same", overhang=(1, 0)), (v(1, 4, 4, 1),)),
     ArgumentError, "overhang", "", "same"),
    ("avg_pool2d_adjoint", lambda: Node(AvgPool2DAdjoint(output_size=(4, 4)), (v(1, 3, 3, 1),)),
     ShapeError, "fit", "(4, 4)", "(3, 3)"),
    ("fused", lambda: Node(Fused(), (v(3),)), ShapeError, "needs steps", "step(", "()"),
    ("fused", lambda: Node(Fused((Relu(),)), (v(3),)), ShapeError, "needs steps", "step(", "Relu"),  # type: ignore[arg-type]
    ("fused", lambda: Node(fused((Relu(), 1), (Relu(), 0)), (v(3),)), ArgumentError, "comes later", "below 1", "Relu"),
    ("fused", lambda: Node(fused((Relu(), 0), (Relu(), 0)), (v(3),)), ArgumentError, "reads each", "0 … 1", "Relu"),
    ("fused", lambda: Node(fused((Relu(), 0)), (v(3), v(3))), ArgumentError, "reads each", "0 … 1", "2 operands"),
    ("fused", lambda: Node(fused((Add(), 0, 1)), (v(3), v(4))), ShapeError, "broadcast", "equal or 1", "[3] and [4]"),
    ("fused", lambda: Node(fused((Add(), 0, 1)), (v(3), i(3))), DTypeError, "dtypes", "one dtype", "float32 and int64"),
    ("fused", lambda: Node(fused((Add(), 0, 1)), (v(3), tup())), ShapeError, "is a tuple", "a tensor", "("),
    ("fused", lambda: Node(fused((Sum((0,)), 0)), (v(3),)), ShapeError, "by element", "elementwise", "sum as step 0"),
    ("fused", lambda: Node(fused((Relu(), 0), (MatMul(), 2, 1)), (v(3, 3), v(3, 3))),
     ShapeError, "by element", "elementwise", "matmul as step 1"),
    ("fused", lambda: Node(fused((Relu(), 0), (Add(), 2, 1)), (v(3), v(2, 3))),
     ShapeError, "one shape", "[2,3]", "float32[3]"),
    ("fused", lambda: Node(fused((BatchNorm(1), 0, 1, 2, 3, 4)), (v(5, 3, 3), v(3), v(3), v(3), v(3))),
     ShapeError, "by element", "last axis", "batch_norm as step 0"),
    ("fused", lambda: Node(fused((BatchNorm(moving=Moving()), 0, 1, 2, 3, 4)), (v(5, 3), v(3), v(3), v(3), v(3))),
     ShapeError, "by element", "last axis", "batch_norm as step 0"),
    ("fused", lambda: Node(fused((Constant.of(1.0, "float32"),), (Add(), 0, 1)), (v(),)),
     ShapeError, "by element", "elementwise", "constant as step 0"),
    ("fused", lambda: Node(fused((Moments((0,)), 0), (Item(0), 1)), (v(2, 3),)), ShapeError, "a tuple", "a tensor", ""),
    ("fused", lambda: Step(fused((Relu(), 0)), (0,)), ArgumentError, "inside of a region", "", "Fused"),
    ("fused", lambda: Step("relu", (0,)), ArgumentError, "inside of a region", "", "relu"),  # type: ignore[arg-type]
    ("fused", lambda: Step(Relu(), (-1,)), ArgumentError, "inputs of a step", "numbers ≥ 0", "(-1,)"),
    ("fused", lambda: Step(Relu(), (True,)), ArgumentError, "inputs of a step", "numbers ≥ 0", "(True,)"),
    ("fused", lambda: Step(Relu(), [0]), ArgumentError, "inputs of a", "numbers", "[0]"),  # type: ignore[arg-type]
    ("group", lambda: Node(Group((), (0,)), (v(3),)), ShapeError, "needs steps", "step(", "()"),
    ("group", lambda: Group(body((Neg(), 0))), ArgumentError, "bad results", "one at least", "()"),
    ("group", lambda: Group(body((Neg(), 0)), (-1,)), ArgumentError, "bad results", "≥ 0", "(-1,)"),
    ("group", lambda: Node(Group(body((Neg(), 0)), (2,)), (v(3),)), ArgumentError, "of nothing", "below 2", "(2,)"),
    ("group", lambda: Node(Group(body((Neg(), 0), (Add(), 0, 1)), (2,)), (v(3), v(4))),
     ShapeError, "step 1, add", "", "[4]"),
    ("function", lambda: Node(Function((), "F"), (v(3),)), ShapeError, "needs steps", "step(", "()"),
    ("function", lambda: Node(Function([], "F"), (v(3),)), ShapeError, "needs steps", "step(", "[]"),  # type: ignore[arg-type]
    ("function", lambda: ops.function("F", [x := v(3)], [x]), ShapeError, "needs steps", "step(", "()"),
    ("function", lambda: ops.function("F", [v(3)], [-v(3)]), ArgumentError, "inside of a region", "", "Variable"),
    ("function", lambda: ops.function("F", [x := v(3)], [-ops.function("G", [x], [-x])[0]]),
     ArgumentError, "inside of a region", "", "Function"),
    ("function", lambda: ops.function("F", [x := v(2, 3)], [-x, ops.moments(x, 0)[0].inputs[0]]),
     ShapeError, "is a tuple", "a tensor", "("),
    ("function", lambda: ops.function("F", [x := v(3)], [ops.dropout(x)]),
     ArgumentError, "is open", "the same in training", "dropout as step 0"),
    ("function", lambda: Node(Function(body((Neg(), 1), (Neg(), 0)), "F"), (v(3),)),
     ArgumentError, "comes later", "below 1", "Neg"),
    ("function", lambda: Node(Function(body((Neg(), 0), (Add(), 0, 1)), "F"), (v(3), v(4))),
     ShapeError, "step 1, add: operands cannot", "equal or 1", "[3] and [4]"),
    ("function", lambda: Node(Function(body((Neg(), 0), (Add(), 1)), "F"), (v(3),)),
     ArgumentError, "step 1, add: wrong number", "", "1 operands"),
    ("function", lambda: Node(Function(body((Neg(), 0)), "F", results=(2,)), (v(3),)),
     ArgumentError, "a result of nothing", "below 2", "(2,)"),
    ("function", lambda: Node(Function(body((Neg(), 0)), "F", slots=(0, -1, 1)), (v(3),)),
     ArgumentError, "a slot of nothing", "below 1", "(0, -1, 1)"),
    ("function", lambda: Function(body((Neg(), 0)), ""), GraphError, "not a name", "printable", "''"),
    ("function", lambda: Function(body((Neg(), 0)), "F", slots=(-2,)), ArgumentError, "bad slots", "≥ -1", "(-2,)"),
    ("function", lambda: Function(body((Neg(), 0)), "F", results=(-1,)), ArgumentError, "bad results", "≥ 0", "(-1,)"),
    ("function", lambda: Function(body((Neg(), 0)), "F", results=(True,)), ArgumentError, "bad results", "≥ 0", "True"),
    ("function", lambda: Function(body((Neg(), 0)), "F", (("a", [1]),)), ArgumentError, "attributes", "pairs", "[1]"),
    ("function", lambda: Function(body((Neg(), 0)), "F", (("a", 2**64),)), ArgumentError, "attributes", "pairs", "a"),
    ("function", lambda: Function(body((Neg(), 0)), "F", (("a", "\n"),)), ArgumentError, "attributes", "pairs", "a"),
    ("function", lambda: Function(body((Neg(), 0)), "F", (("a",),)), ArgumentError, "attributes", "pairs", "a"),  # type: ignore[arg-type]
    ("function", lambda: Function(body((Neg(), 0)), "F", 5), ArgumentError, "attributes", "pairs", "5"),  # type: ignore[arg-type]
    ("mean", lambda: ops.global_avg_pool2d(v(8, 8, 3)), ShapeError, "images need 4 axes", "NHWC", "3 axes"),
    ("avg_pool2d", lambda: ops.adaptive_avg_pool2d(v(1, N, 8, 3), 2), ShapeError, "symbolic", "a number", ""),
    ("item", lambda: item(v(3), 0), ShapeError, "only a tuple has items", "", "float32[3]"),
    ("item", lambda: item(tup(), 2), ShapeError, "no such item", "0 … 1", "2"),
    ("constant", lambda: ops.constant([[1], [1, 2]]), ArgumentError, "not an array", "nested evenly", "[[1], [1, 2]]"),
    ("constant", lambda: ops.constant("a"), ArgumentError, "not an array", "float32", "str"),
    ("constant", lambda: ops.constant(None), ArgumentError, "not an array", "float32", "object"),
    ("constant", lambda: Constant(TensorType((2,)), b""), ShapeError, "bytes do not fit", "8", "0"),
    ("input", lambda: input((2, -1)), ShapeError, "not a shape", "integers ≥ 0", "-1"),
    ("input", lambda: input((2,), "int"), DTypeError, "unknown dtype", "int64", "'int'"),
    ("input", lambda: input((2,), name=""), GraphError, "not a name", "printable", "''"),
    ("variable", lambda: variable((2.5,)), ShapeError, "not a shape", "integers ≥ 0", "2.5"),
    ("variable", lambda: variable((2,), name="a\n"), GraphError, "not a name", "printable", "a"),
]  # fmt: skip
# What takes any tensor, and refuses tuples and a wrong number of operands only (tested for all ops below).
TAKE_ANY = {"neg", "abs", "sign", "floor", "after"}
# Operands that may be tuples: what `after` waits for is not looked into.
TAKE_TUPLES = {("after", 1)}


@pytest.mark.parametrize(
    ("build", "error", "summary", "expected", "got"),
    [pytest.param(*row[1:], id=f"{k}-{row[0]}") for k, row in enumerate(REFUSED)],
)
def test_what_does_not_fit_is_refused_where_it_is_built(
    build: Callable[[], object], error: type[MinigraphError], summary: str, expected: str, got: str
) -> None:
    with pytest.raises(MinigraphError) as caught:
        build()
    failure = caught.value
    assert type(failure) is error, failure
    assert summary in failure.summary, failure
    assert not expected or expected in str(failure.expected), failure
    assert not got or got in str(failure.got), failure
    for part in ("expected", "got"):
        value = getattr(failure, part)
        assert value is None or f"  {part}:" in str(failure)
    assert failure.expected is not None or failure.got is not None or failure.hint is not None
    if not failure.where.startswith("<string>:"):  # a known defect, below
        assert failure.where.startswith(__file__ + ":")
    if failure.where.startswith(__file__) and build.__defaults__ is None:  # type: ignore[attr-defined]  # on one line
        assert failure.where == f"{__file__}:{build.__code__.co_firstlineno}"  # type: ignore[attr-defined]


def test_there_is_a_refusal_for_every_op() -> None:
    assert OPS.keys() - {row[0] for row in REFUSED} == TAKE_ANY


def test_an_error_names_the_operands_and_their_lines() -> None:
    x = variable((2, 3), name="x")
    y = variable((4,), name="y")
    with pytest.raises(ShapeError) as caught:
        x + y
    text = str(caught.value)
    assert f"x: float32[2,3] (from {x.origin.where})" in text
    assert f"y: float32[4] (from {y.origin.where})" in text
    assert x.origin.line + 1 == y.origin.line == int(caught.value.where.rsplit(":", 1)[1]) - 2


def case_nodes(op: str, seed: int = 0) -> list[Node]:
    """Return the nodes of this op in a drawn case."""
    case = draw(op, seed)
    found = case.function(*(variable(a.shape, name=f"x{k}", dtype=str(a.dtype)) for k, a in enumerate(case.arrays)))
    return [n for n in topological([found] if isinstance(found, Node) else found) if n.op.name == op]


@pytest.mark.parametrize("op", sorted(CASES))
def test_a_tuple_is_no_operand(op: str) -> None:
    node = next(n for seed in range(40) for n in case_nodes(op, seed))
    for at in range(len(node.inputs)):
        if (op, at) in TAKE_TUPLES:
            continue
        inputs = [tup() if k == at else x for k, x in enumerate(node.inputs)]
        with pytest.raises((ShapeError, DTypeError)) as caught:
            Node(node.op, inputs)
        assert f"{op}:" in caught.value.summary, f"operand {at}"
        assert caught.value.where.startswith(__file__ + ":")


@pytest.mark.parametrize("op", sorted(CASES))
def test_a_wrong_number_of_operands(op: str) -> None:
    node = next(n for seed in range(40) for n in case_nodes(op, seed))
    with pytest.raises((ArgumentError, ShapeError)) as caught:
        Node(node.op, ())
    assert f"{op}:" in caught.value.summary
    if op not in ("concat", "function", "group"):  # the first takes any number; the others may leave operands unread
        with pytest.raises((ArgumentError, ShapeError)) as caught:
            Node(node.op, [*node.inputs, *node.inputs, *node.inputs, *node.inputs])
        assert f"{op}:" in caught.value.summary


@pytest.mark.parametrize("op", sorted(CASES))
def test_inferred_types_are_those_of_the_values(op: str) -> None:
    from minigraph.runtime import State, compile

    for seed in range(3):
        case = draw(op, seed)
        names = [f"x{k}" for k in range(len(case.arrays))]
        found = case.function(
            *(variable(a.shape, name=n, dtype=str(a.dtype)) for n, a in zip(names, case.arrays, strict=True))
        )
        outputs = {str(k): n for k, n in enumerate([found] if isinstance(found, Node) else found)}
        results = compile(verify(Graph(outputs)))(State(dict(zip(names, case.arrays, strict=True))))
        for name, node in outputs.items():
            got = TensorType(results[name].shape, str(results[name].dtype))
            assert got == node.type, f"op {op}, seed {seed}: {case.describe()}"


# --- shapes by hand -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "shape"),
    [
        (lambda: v(2, 1, 4) + v(3, 1), (2, 3, 4)),
        (lambda: v(0, 3) + v(1, 1), (0, 3)),
        (lambda: ops.sum(v(2, 3, 4), (0, -1)), (3,)),
        (lambda: ops.sum(v(2, 3, 4), (-1, 0), keepdims=True), (1, 3, 1)),
        (lambda: ops.sum(v(2, 3, 4), ()), (2, 3, 4)),
        (lambda: ops.argmax(v(2, 3, 4), 1), (2, 4)),
        (lambda: ops.matmul(v(7, 1, 2, 3), v(5, 3, 4)), (7, 5, 2, 4)),
        (lambda: ops.matmul(v(3), v(3)), ()),
        (lambda: ops.matmul(v(2, 3), v(3)), (2,)),
        (lambda: ops.matmul(v(3), v(5, 3, 4)), (5, 4)),
        (lambda: ops.reshape(v(2, 6), (4, -1)), (4, 3)),
        (lambda: ops.reshape(v(N, 2, 6), (N, -1)), (N, 12)),
        (lambda: ops.reshape(v(N, 4), (-1, 2)), (N * 2, 2)),
        (lambda: ops.flatten(v(N, 2, 3, 4)), (N, 24)),
        (lambda: ops.squeeze(v(1, 2, 1)), (2,)),
        (lambda: ops.unsqueeze(v(2, 3), (0, -1)), (1, 2, 3, 1)),
        (lambda: ops.transpose(v(2, 3, 4), (2, 0, -2)), (4, 2, 3)),
        (lambda: ops.pad(v(N, 3), ((0, 0), (1, 2))), (N, 6)),
        (lambda: v(10, 5)[1:8:3, None, -1], (3, 1)),
        (lambda: v(10)[8:1:-3], (3,)),
        (lambda: ops.gather(v(7, 8, 9), i(2, 3), 1), (7, 2, 3, 9)),
        (lambda: ops.gather(v(0, 3), i(0, 2), 0, "clip"), (0, 2, 3)),
        (lambda: ops.one_hot(i(2, 3), 5, 1), (2, 5, 3)),
        (lambda: ops.concat([v(N, 2), v(N, 3)]), (N, 5)),
        (lambda: ops.split(v(N, 6), (1, 5))[1], (N, 5)),
        (lambda: ops.conv2d(v(2, 9, 8, 3), v(3, 2, 3, 5), (2, 3), "valid"), (2, 4, 3, 5)),
        (lambda: ops.conv2d(v(2, 9, 8, 3), v(3, 2, 3, 5), (2, 3), "same"), (2, 5, 3, 5)),
        (lambda: ops.conv2d(v(2, 9, 8, 3), v(3, 3, 3, 5), 1, ((0, 2), (1, 3)), 2), (2, 7, 8, 5)),
        (lambda: ops.conv2d(v(2, 6, 9, 8), v(4, 3, 3, 3), groups=2, layout="NCHW"), (2, 4, 7, 6)),
        (lambda: ops.conv2d(v(2, N, 8, 3), v(3, 3, 3, 5), padding="same"), (2, N, 8, 5)),
        (lambda: ops.conv2d_transpose(v(2, 4, 5, 6), v(3, 3, 2, 6), 2, "same"), (2, 8, 10, 2)),
        (lambda: ops.conv2d_transpose(v(2, 4, 5, 6), v(3, 2, 2, 6), 2, 1, output_padding=(1, 0)), (2, 8, 8, 2)),
        (lambda: ops.conv2d_transpose(v(2, 6, 4, 5), v(6, 1, 3, 3), 3, groups=2, layout="NCHW"), (2, 2, 12, 15)),
        (lambda: ops.max_pool2d(v(2, 7, 8, 3), (3, 2), padding=((1, 0), (0, 0))), (2, 2, 4, 3)),
        (lambda: ops.max_pool2d(v(2, 7, 7, 3), 2, ceil_mode=True), (2, 4, 4, 3)),
        (lambda: ops.avg_pool2d(v(2, 3, 7, 8), 3, 1, "same", layout="NCHW"), (2, 3, 7, 8)),
        (lambda: ops.global_max_pool2d(v(2, 3, 7, 8), True, "NCHW"), (2, 3, 1, 1)),
        (lambda: ops.adaptive_avg_pool2d(v(2, 7, 8, 3), (2, 4)), (2, 2, 4, 3)),
        (lambda: ops.softmax_cross_entropy(v(N, 5, 4), i(N, 4), 1), (N, 4)),
        (lambda: ops.batch_norm(v(N, 4, 4, 3), v(3), v(3), v(3), v(3)), (N, 4, 4, 3)),
        (lambda: ops.size(v(N, 3)), ()),
        (lambda: Node(fused((Add(), 1, 0), (Relu(), 2)), (v(3), v(N, 3))), (N, 3)),
        (lambda: Node(After(), (v(N, 3), v(7))), (N, 3)),
        (lambda: ops.function("F", [x := v(N, 3)], [ops.sum(x, 1), ops.concat([x, x], 1)])[1], (N, 6)),
    ],
)  # fmt: skip
def test_shapes_worked_out_by_hand(node: Callable[[], Node], shape: tuple[Any, ...]) -> None:
    assert node().shape == shape


@pytest.mark.parametrize(
    ("node", "dtype"),
    [
        (lambda: v(2) < v(2), "bool"), (lambda: ops.argmax(v(2, 3)), "int64"), (lambda: i(2) * 3, "int64"),
        (lambda: v(2) * 3, "float32"), (lambda: 2 * v(2, dtype="float64"), "float64"),
        (lambda: v(2, dtype="float16") + 1, "float16"),
        (lambda: v(2) * np.float64(3), "float32"), (lambda: ops.one_hot(i(2), 3, dtype="float16"), "float16"),
        (lambda: ops.cast(b(2), "int8"), "int8"), (lambda: ops.sum(i(2, 3)), "int64"),
        (lambda: ops.constant(2.5), "float32"),
        (lambda: ops.constant(2), "int64"), (lambda: ops.constant([True]), "bool"),
        (lambda: ops.constant(np.ones(2)), "float64"),
        (lambda: ops.where(b(2), 1.0, 2.0), "float32"), (lambda: ops.size(v(2, 3), dtype="int32"), "int32"),
        (lambda: ops.matmul(i(2, 3), i(3, 2)), "int64"), (lambda: ops.zeros((2,), "bool"), "bool"),
    ],
)  # fmt: skip
def test_dtypes_worked_out_by_hand(node: Callable[[], Node], dtype: str) -> None:
    assert node().dtype == dtype


# --- symbolic batches ---------------------------------------------------------------------------------------------

Build = Callable[[Any], Node]


def _x(n: Any, *rest: Any) -> Node:
    return input((n, *rest), name=unique_name("x"))


SYMBOLIC: dict[str, Build] = {
    **{name: lambda n, name=name: getattr(ops, name)(_x(n, 3), v(3)) for name in (
        "add", "sub", "mul", "div", "pow", "maximum", "minimum", "less", "less_equal", "greater", "greater_equal",
        "equal", "not_equal",
    )},
    **{name: lambda n, name=name: getattr(ops, name)(_x(n, 3)) for name in (
        "neg", "abs", "sign", "floor", "exp", "log", "sqrt", "rsqrt", "sin", "cos", "erf", "relu", "leaky_relu", "elu",
        "sigmoid", "tanh", "softplus", "silu", "gelu", "hard_sigmoid", "hard_swish", "clip", "softmax", "log_softmax",
        "dropout",
    )},
    **{name: lambda n, name=name: getattr(ops, name)(_x(n, 3, 4), 1) for name in (
        "sum", "mean", "max", "min", "logsumexp", "argmax",
    )},
    "where": lambda n: ops.where(_x(n, 3) > 0.0, _x(n, 3), 0.0),
    "cast": lambda n: ops.cast(_x(n, 3), "float64"),
    "matmul": lambda n: ops.matmul(_x(n, 3), v(3, 4)),
    "softmax_cross_entropy": lambda n: ops.softmax_cross_entropy(_x(n, 3), ops.argmax(_x(n, 3)), label_smoothing=0.1),
    "one_hot": lambda n: ops.one_hot(ops.argmax(_x(n, 3)), 3),
    "moments": lambda n: ops.moments(_x(n, 3, 4), 1)[1],
    "batch_norm": lambda n: ops.batch_norm(_x(n, 3), v(3), v(3), v(3), v(3)),
    "reshape": lambda n: ops.reshape(_x(n, 3, 4), (n, -1)),
    "transpose": lambda n: ops.transpose(_x(n, 3, 4), (1, 0, 2)),
    "broadcast_to": lambda n: ops.broadcast_to(ops.mean(_x(n, 3), 0), (n, 3)),
    "pad": lambda n: ops.pad(_x(n, 3), ((0, 0), (1, 2))),
    "slice": lambda n: _x(n, 3)[:, ::-1],
    "slice_adjoint": lambda n: Node(SliceAdjoint((n, 5), (0, 4), (1, -2)), (_x(n, 3),)),
    "concat": lambda n: ops.concat([_x(n, 3), _x(n, 3)]),
    "split": lambda n: ops.split(_x(n, 3), (1, 2))[1],
    "gather": lambda n: ops.gather(_x(n, 3), i(2), 1),
    "gather_adjoint": lambda n: Node(GatherAdjoint((n, 5), 1), (_x(n, 3), i(3))),
    "size": lambda n: ops.size(_x(n, 3)),
    "after": lambda n: Node(After(), (_x(n, 3), ops.moments(_x(n, 4))[0].inputs[0])),
    "fused": lambda n: Node(
        fused((Conv2D(), 0, 1), (Add(), 3, 2), (Neg(), 4)), (_x(n, 6, 6, 2), v(3, 3, 2, 4), _x(n, 1, 1, 4))
    ),
    "group": lambda n: group([y := -_x(n, 3), z := y * v(3)], [z]),
    "function": lambda n: ops.function(
        "F", operands := [_x(n, 3), v(3)], [ops.broadcast_to(ops.mean(operands[0] * operands[1], 0), (n, 3))]
    )[0],
    "random_uniform": lambda n: ops.random_uniform(i(), (n, 3)) < _x(n, 3),
    "conv2d": lambda n: ops.conv2d(_x(n, 6, 6, 2), v(3, 3, 2, 4), 2, "same"),
    "conv2d_transpose": lambda n: ops.conv2d_transpose(_x(n, 3, 3, 4), v(3, 3, 2, 4), 2, "same"),
    "conv2d_kernel_adjoint": lambda n: Node(Conv2DKernelAdjoint(kernel_size=(3, 3)), (_x(n, 6, 6, 2), _x(n, 4, 4, 3))),
    "max_pool2d": lambda n: ops.max_pool2d(_x(n, 6, 6, 2), 3, 2, ceil_mode=True),
    "max_pool2d_adjoint": lambda n: Node(MaxPool2DAdjoint(), (_x(n, 6, 6, 2), _x(n, 3, 3, 2))),
    "max_pool2d_select": lambda n: Node(MaxPool2DSelect(), (_x(n, 6, 6, 2), _x(n, 6, 6, 2))),
    "avg_pool2d": lambda n: ops.avg_pool2d(_x(n, 6, 6, 2), 4, 3, ceil_mode=True),
    "avg_pool2d_adjoint": lambda n: Node(AvgPool2DAdjoint(output_size=(6, 6)), (_x(n, 3, 3, 2),)),
}  # fmt: skip


def graph_of(build: Build, n: Any) -> Graph:
    with fresh_names():
        return Graph({"y": build(n)})


@pytest.mark.parametrize("op", sorted(OPS.keys() - {"input", "variable", "constant", "item"}))
def test_a_symbolic_batch_flows_through_and_binds(op: str) -> None:
    open_, fixed = graph_of(SYMBOLIC[op], N), graph_of(SYMBOLIC[op], 3)
    y = open_.outputs["y"]
    assert any(n.op.name == op for n in open_.nodes)
    if op not in ("size", "conv2d_kernel_adjoint"):
        assert any("N" in str(size) for size in y.shape), y
    bound = verify(bind(open_, N=3))
    assert bound.symbols == ()
    assert bound.outputs["y"].type == fixed.outputs["y"].type
    assert bound.same_as(fixed), f"{bound}\n{fixed}"
    assert str(bound.outputs["y"].op.flops(bound.outputs["y"])) == str(fixed.outputs["y"].op.flops(fixed.outputs["y"]))


def test_a_symbol_is_no_number() -> None:
    x = _x(N, 3)
    for build in (
        lambda: ops.split(x, 2, 0), lambda: ops.concat([x, x], 0), lambda: x[0], lambda: x[1:],
        lambda: ops.reshape(x, (7, -1)), lambda: x + v(2, 3),
    ):  # fmt: skip
        with pytest.raises(ShapeError, match="N"):
            build()
    with pytest.raises(ShapeError):
        x + input((symbol("M"), 3), name="y")
    assert (x + v(1, 3)).shape == (N, 3)


# --- costs, by hand -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "flops", "nbytes"),
    [
        # 2·3 results, one addition each; 24 + 12 bytes read, 24 written
        (lambda: v(2, 3) + v(3), 6, 60),
        # 4 operations an element
        (lambda: ops.exp(v(10)), 40, 80),
        (lambda: ops.relu(v(10, dtype="float64")), 10, 160),
        # 4-byte operands, 1-byte results
        (lambda: v(8) < v(8), 8, 72),
        # 2·5·(4·3·6)
        (lambda: ops.matmul(v(4, 3), v(3, 6)), 144, 4 * (12 + 18 + 24)),
        (lambda: Node(MatMul(True, True), (v(5, 3, 4), v(5, 6, 3))), 720, 4 * 5 * (12 + 18 + 24)),
        # 2·6·6·8 results of 3·3·4 products: 576 · 2 · 36
        (lambda: ops.conv2d(v(2, 8, 8, 4), v(3, 3, 4, 8)), 41_472, 4 * (512 + 288 + 576)),
        # depthwise: 2·6·6·4 results of 9 products
        (lambda: ops.conv2d(v(2, 8, 8, 4), v(3, 3, 1, 4), groups=4), 5_184, 4 * (512 + 36 + 288)),
        (lambda: ops.conv2d(v(2, 4, 8, 8), v(8, 2, 3, 3), groups=2, layout="NCHW"), 20_736, 4 * (512 + 144 + 576)),
        # the adjoints cost what the convolution costs
        (lambda: ops.conv2d_transpose(v(2, 6, 6, 8), v(3, 3, 4, 8)), 41_472, 4 * (576 + 288 + 512)),
        (lambda: Node(Conv2DKernelAdjoint(kernel_size=(3, 3)), (v(2, 8, 8, 4), v(2, 6, 6, 8))),
         41_472, 4 * (512 + 576 + 288)),
        # 2·3·3·5 windows of 4 taps
        (lambda: ops.max_pool2d(v(2, 6, 6, 5)), 360, 4 * (360 + 90)),
        (lambda: ops.avg_pool2d(v(2, 6, 6, 5), 3, 1), 2 * 4 * 4 * 5 * 9, 4 * (360 + 160)),
        (lambda: Node(MaxPool2DAdjoint(), (v(2, 6, 6, 5), v(2, 3, 3, 5))), 360, 4 * (360 + 90 + 360)),
        (lambda: Node(AvgPool2DAdjoint(output_size=(6, 6)), (v(2, 3, 3, 5),)), 360, 4 * (90 + 360)),
        (lambda: ops.sum(v(10, 20), 0), 200, 880),
        (lambda: ops.softmax(v(10, 20)), 1600, 1600),
        (lambda: ops.moments(v(10, 20), 0)[0].inputs[0], 800, 800 + 80 + 80),
        (lambda: ops.batch_norm(v(10, 20), v(20), v(20), v(20), v(20)), 400, 800 + 320 + 800),
        (lambda: ops.softmax_cross_entropy(v(10, 20), v(10, 20)), 1600, 1640),
        (lambda: ops.transpose(v(10, 20)), 0, 1600),
        (lambda: ops.random_uniform(i(), (10, 20)), 2000, 808),
        # the steps' operations; what lies between them is not moved
        (lambda: Node(fused((MatMul(), 0, 1), (Add(), 3, 2), (Relu(), 4)), (v(4, 3), v(3, 6), v(6))),
         144 + 24 + 24, 4 * (12 + 18 + 6 + 24)),
        (lambda: ops.function("F", [x := v(10)], [ops.exp(x) + ops.constant(1.0), ops.relu(x)])[0].inputs[0],
         40 + 10 + 10, 4 * (10 + 10 + 10)),
        (lambda: Node(After(), (v(10), v(20))), 0, 0),
    ],
)  # fmt: skip
def test_flops_and_bytes_counted_by_hand(node: Callable[[], Node], flops: int, nbytes: int) -> None:
    found = node()
    assert found.op.flops(found) == flops
    assert found.op.bytes(found) == nbytes


def test_costs_grow_with_the_batch() -> None:
    y = ops.conv2d(_x(N, 8, 8, 4), v(3, 3, 4, 8, name="w"))
    assert str(y.op.flops(y)) == "20736*N"
    with pytest.raises(ShapeError, match="symbolic size"):
        y.op.bytes(y)
    bound = bind(Graph({"y": y}), N=5).outputs["y"]
    assert bound.op.flops(bound) == 5 * 20_736


# --- open sizes of images -------------------------------------------------------------------------------------------

H, W = symbol("H"), symbol("W")
OPEN = {
    "strided": lambda x: ops.conv2d(x, v(3, 3, 2, 4), 2, 1),
    "strided twice": lambda x: ops.conv2d(ops.conv2d(x, v(3, 3, 2, 2), 2, 1), v(3, 3, 2, 4), 2, 1),
    "valid": lambda x: ops.conv2d(x, v(3, 5, 2, 4)),
    "same": lambda x: ops.conv2d(x, v(4, 3, 2, 4), 2, "same"),
    "dilated": lambda x: ops.conv2d(x, v(3, 3, 2, 4), 1, ((0, 1), (2, 0)), 2),
    "padded": lambda x: ops.conv2d(ops.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0))), v(3, 3, 2, 4), 2),
    "pools": lambda x: ops.avg_pool2d(ops.max_pool2d(x, 3, 2, 1), 2),
    "there and back": lambda x: ops.conv2d_transpose(ops.conv2d(x, v(2, 2, 2, 4), 2), v(2, 2, 3, 4), 2),
    "residual": lambda x: ops.conv2d(x, v(1, 1, 2, 4), 2) + ops.conv2d(x, v(3, 3, 2, 4), 2, 1),
    "taken apart": lambda x: ops.reshape(ops.conv2d(x, v(3, 3, 2, 4), 2, 1), (1, -1, 4)),
}


@pytest.mark.parametrize("name", OPEN)
@pytest.mark.parametrize("sizes", [{"H": 16, "W": 16}, {"H": 13, "W": 22}])
def test_images_of_open_size_bind_to_what_known_sizes_give(name: str, sizes: dict[str, int]) -> None:
    graph = Graph({"y": OPEN[name](_x(1, H, W, 2))})
    assert any(isinstance(size, Dim) for size in graph.outputs["y"].shape)
    known = OPEN[name](_x(1, sizes["H"], sizes["W"], 2))
    assert bind(graph, **sizes).outputs["y"].type == known.type
    assert str(parse(str(graph))) == str(graph)


def test_open_sizes_that_differ_do_not_meet() -> None:
    x = _x(1, H, W, 2)
    with pytest.raises(ShapeError, match="broadcast"):
        ops.conv2d(x, v(3, 3, 2, 4), 2, 1) + ops.conv2d(x, v(2, 2, 2, 4), 2)


# --- completeness -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", sorted(OPS))
def test_every_op_is_a_documented_frozen_dataclass(op: str) -> None:
    cls = OPS[op]
    assert dataclasses.is_dataclass(cls)
    assert cls.__dataclass_params__.frozen  # type: ignore[attr-defined]
    doc = cls.__dict__.get("__doc__") or ""
    assert doc, f"{op} has no docstring"
    assert not doc.startswith(f"{cls.__name__}("), f"{op} has only the docstring that dataclass makes"
    assert doc.splitlines()[0].rstrip().endswith((".", ":", ")", "`")), doc.splitlines()[0]
    assert cls.category != "other"


@pytest.mark.parametrize("name", ops.__all__)
def test_every_public_function_is_documented_with_an_example(name: str) -> None:
    function = getattr(ops, name)
    assert callable(function)
    assert function.__doc__, f"{name} has no docstring"
    assert ">>>" in function.__doc__, f"{name} has no example"
    assert function.__doc__.splitlines()[0].endswith((".", ":")), name


def test_every_op_has_a_kernel_but_those_that_programs_never_hold() -> None:
    leaves = {"input", "variable", "constant"}
    assert OPS.keys() - leaves - {cls.name for cls in KERNELS} == {"dropout", "function", "group"}
    assert all(OPS[cls.name] is cls for cls in KERNELS)


def test_an_op_is_equal_to_its_like_and_can_be_a_key() -> None:
    for op in sorted(CASES):
        first, second = (next(n.op for seed in range(40) for n in case_nodes(op, seed)) for _ in range(2))
        assert first == second, op
        assert hash(first) == hash(second), op
    assert Sum((0,)) != Mean((0,))


# --- known defects ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(lambda: ops.clip(v(2), 2.0, 1.0), id="clip"),
        pytest.param(lambda: ops.dropout(v(3), 1.0), id="dropout"),
        pytest.param(lambda: ops.random_uniform(i(), (2,), (-1, 0)), id="random_uniform"),
        pytest.param(lambda: ops.conv2d(v(1, 8, 8, 3), v(3, 3, 3, 4), groups=0), id="conv2d groups"),
        pytest.param(lambda: ops.conv2d(v(1, 8, 8, 3), v(3, 3, 3, 4), layout="HWC"), id="conv2d layout"),
        pytest.param(lambda: ops.batch_norm(v(2, 3), v(3), v(3), v(3), v(3), epsilon=-1), id="batch_norm"),
        pytest.param(lambda: Moving(momentum=1.5), id="moving"),
    ],
)
def test_attributes_are_refused_at_the_users_line(build: Callable[[], object]) -> None:
    with pytest.raises(ArgumentError) as caught:
        build()
    assert caught.value.where == f"{__file__}:{build.__code__.co_firstlineno}"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(lambda: v(3, 4)[np.array([0, 1])], id="x[array]"),
        pytest.param(lambda: v(3)[::0], id="x[::0]"),
        pytest.param(lambda: v(3)[1.5:], id="x[1.5:]"),
        pytest.param(lambda: ops.slice(v(3), (0,), (3,), (0,)), id="slice step 0"),
        pytest.param(lambda: ops.slice(v(3, 4), (0, 0), (1,)), id="slice lengths"),
        pytest.param(lambda: ops.slice(v(3), 0, 1), id="slice of integers"),
        pytest.param(lambda: ops.split(v(3), "ab"), id="split"),
        pytest.param(lambda: ops.pad(v(3), 1), id="pad"),
        pytest.param(lambda: ops.concat([v(3), 2.0]), id="concat second"),
        pytest.param(lambda: ops.concat([1.0, 2.0]), id="concat"),
        pytest.param(lambda: ops.sum(v(3), 0.0), id="axis=0.0"),
        pytest.param(lambda: ops.sum(v(3), "a"), id="axis=a"),
        pytest.param(lambda: ops.softmax(v(3), None), id="axis=None"),
        pytest.param(lambda: ops.random_uniform(i(), (2,), 5), id="key"),
        pytest.param(lambda: ops.constant(["a"], "float32"), id="constant"),
        pytest.param(lambda: ops.constant([float("nan")], "int8"), id="constant nan"),
    ],
)
def test_bad_arguments_raise_errors_of_ours(build: Callable[[], object]) -> None:
    with pytest.raises(MinigraphError):
        build()


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(lambda: ops.split(v(3), (5, -2)), id="split"),
        pytest.param(lambda: ops.one_hot(i(3), -1), id="one_hot"),
        pytest.param(lambda: Node(Reshape((-1, -12)), (v(3, 4),)), id="reshape"),
        pytest.param(lambda: Node(BroadcastTo((-1,)), (v(),)), id="broadcast_to"),
        pytest.param(lambda: Node(RandomUniform((-1,)), (i(),)), id="random_uniform"),
        pytest.param(lambda: Node(SliceAdjoint((-1,), (0,), (1,)), (v(0),)), id="slice_adjoint"),
        pytest.param(lambda: Node(GatherAdjoint((-1, 3), 0), (v(2, 3), i(2))), id="gather_adjoint"),
        pytest.param(
            lambda: Node(
                Conv2DTranspose(padding=((5, 5), (5, 5)), output_size=(-1, -1)), (v(1, 7, 7, 1), v(3, 3, 1, 1))
            ),
            id="conv2d_transpose",
        ),
        pytest.param(
            lambda: Node(AvgPool2DAdjoint(padding=((5, 5), (5, 5)), output_size=(-1, -1)), (v(1, 4, 4, 1),)),
            id="avg_pool2d_adjoint",
        ),
    ],
)
def test_negative_sizes_are_refused(build: Callable[[], object]) -> None:
    with pytest.raises(MinigraphError):
        build()


def test_negative_sizes_that_are_refused_today() -> None:
    for build in (
        lambda: v(-1), lambda: ops.broadcast_to(v(), (-1,)), lambda: ops.random_uniform(i(), (-1,)),
        lambda: Node(Slice((0,), (-1,), (1,)), (v(3),)), lambda: Node(Pad(((-1, 0),)), (v(3),)),
    ):  # fmt: skip
        with pytest.raises(ShapeError):
            build()


@pytest.mark.parametrize("keepdims", [True, False])
@pytest.mark.parametrize("cls", [Sum, Mean, Max, Min, LogSumExp, Moments])
def test_axes_counted_from_the_end_in_an_op_itself(cls: type[Any], keepdims: bool) -> None:
    """The functions normalise axes; a text or a pass may not, and is refused."""
    with pytest.raises(ShapeError, match="counted from the front"):
        Node(Moments((-1,)) if cls is Moments else cls((-1,), keepdims), (v(3, 4),))


@pytest.mark.parametrize(
    "op", [Concat(-1), Split((1, 3), -1), Gather(-1), OneHot(3, -1), BatchNorm(-1), SoftmaxCrossEntropy(-1)]
)
def test_ops_on_one_axis_do_count_from_the_end(op: Any) -> None:
    from minigraph.runtime import State, evaluate

    operands = {
        "concat": [v(3, 4), v(3, 4)], "split": [v(3, 4)], "gather": [v(3, 4), i(2)], "one_hot": [i(2)],
        "batch_norm": [v(3, 4), *(v(4, name=n) for n in "gbmw")],
        "softmax_cross_entropy": [v(3, 4), v(3, 4, name="t")],
    }  # fmt: skip
    inputs = operands[op.name]
    if op.name == "concat":
        inputs = [inputs[0], inputs[0]]
    node = Node(op, inputs)
    state = State({n.label: np.zeros(n.shape, n.dtype) for n in inputs})
    for y in [item(node, 1)] if isinstance(node.type, TupleType) else [node]:
        assert evaluate(y, state).shape == y.shape


def test_a_boolean_is_no_index() -> None:
    with pytest.raises(MinigraphError):
        v(3, 4)[True]


def test_a_constant_that_does_not_fit_its_dtype_is_refused() -> None:
    with pytest.raises(MinigraphError):
        ops.constant([300], "int8")


def test_clip_refuses_limits_that_are_no_numbers() -> None:
    with pytest.raises(MinigraphError):
        ops.clip(v(3), float("nan"), 1.0)


def test_transposing_with_a_bad_order_is_refused_in_the_op_too() -> None:
    with pytest.raises(ShapeError):
        Node(Transpose((0, -1)), (v(2, 3),))
    with pytest.raises(ShapeError):
        Node(Conv2D(), (v(1, 2, 2, 1), v(3, 3, 1, 1)))
