"""Elementwise ops and reductions."""

from __future__ import annotations

import math

from minigraph.ir.node import Node
from minigraph.ir.op import Op
from minigraph.ir.types import is_float, normalize_axis
from minigraph.onnx.tensors import code_of
from minigraph.onnx.writing.registry import Writer, writes
from minigraph.ops import activations as act
from minigraph.ops import elementwise as el
from minigraph.ops import real, reduction
from minigraph.ops.loss import LogSoftmax, Softmax, SoftmaxCrossEntropy
from minigraph.ops.shape import Cast

# Ops that ONNX has under another name, or the same.
_NAMES: dict[type[Op], str] = {
    el.Abs: "Abs", el.Add: "Add", el.Sub: "Sub", el.Mul: "Mul", el.Div: "Div", el.Neg: "Neg", el.Sign: "Sign",
el.Less: "Less", el.LessEqual: "LessOrEqual", el.Greater: "Greater",
    el.GreaterEqual: "GreaterOrEqual", el.Equal: "Equal", el.Where: "Where", real.Pow: "Pow", real.Exp: "Exp",
    real.Log: "Log", real.Sqrt: "Sqrt", real.Sin: "Sin", real.Cos: "Cos", real.Erf: "Erf", act.Relu: "Relu",
    act.Sigmoid: "Sigmoid", act.Tanh: "Tanh", act.Softplus: "Softplus", act.HardSwish: "HardSwish",
}  # fmt: skip


@writes(*_NAMES)
def plain(w: Writer, node: Node) -> str:
    """The op of that name."""
    return str(w.emit(_NAMES[type(node.op)], w.operands(node)))


@writes(el.Floor)
def floor(w: Writer, node: Node) -> str:
    """Floor; integers are their own."""
    name = w.name(node.inputs[0])
    return str(w.emit("Floor", [name])) if is_float(node.dtype) else name


@writes(el.Maximum, el.Minimum)
def extreme(w: Writer, node: Node) -> str:
    """Max and Min; of booleans they are Or and And."""
    largest = isinstance(node.op, el.Maximum)
    logic, numbers = ("Or", "Max") if largest else ("And", "Min")
    return str(w.emit(logic if node.dtype == "bool" else numbers, w.operands(node)))


@writes(el.NotEqual)
def not_equal(w: Writer, node: Node) -> str:
    """Not Equal."""
    return str(w.emit("Not", [w.emit("Equal", w.operands(node))]))


@writes(el.Clip)
def clip(w: Writer, node: Node) -> str:
    """Limits are operands, scalars; one that is infinite is left out."""
    op = node.op
    assert isinstance(op, el.Clip)
    limits = ["" if math.isinf(v) else w.array(v, node.dtype, "limit") for v in (op.minimum, op.maximum)]
    return str(w.emit("Clip", [w.name(node.inputs[0]), *limits]))


@writes(real.Rsqrt)
def rsqrt(w: Writer, node: Node) -> str:
    """1/√x."""
    return str(w.emit("Reciprocal", [w.emit("Sqrt", [w.name(node.inputs[0])])]))


@writes(act.LeakyRelu, act.Elu)
def with_alpha(w: Writer, node: Node) -> str:
    """A slope as attribute."""
    op_type = "LeakyRelu" if isinstance(node.op, act.LeakyRelu) else "Elu"
    return str(w.emit(op_type, [w.name(node.inputs[0])], alpha=node.op.alpha))  # type: ignore[attr-defined]


@writes(act.Silu)
def silu(w: Writer, node: Node) -> str:
    """x·sigmoid(x)."""
    x = w.name(node.inputs[0])
    return str(w.emit("Mul", [x, w.emit("Sigmoid", [x])]))


@writes(act.Gelu)
def gelu(w: Writer, node: Node) -> str:
    """Exact, or by the tanh approximation."""
    approximate = "tanh" if node.op.approximate else "none"  # type: ignore[attr-defined]
    return str(w.emit("Gelu", [w.name(node.inputs[0])], approximate=approximate))


@writes(act.HardSigmoid)
def hard_sigmoid(w: Writer, node: Node) -> str:
    """With its slope and offset."""
    op = node.op
    assert isinstance(op, act.HardSigmoid)
    return str(w.emit("HardSigmoid", [w.name(node.inputs[0])], alpha=op.alpha, beta=op.beta))


@writes(Cast)
def cast(w: Writer, node: Node) -> str:
    """To an element type, unless it has that already."""
    name = w.name(node.inputs[0])
    return name if node.inputs[0].dtype == node.dtype else cast_to(w, name, node.dtype)


def cast_to(w: Writer, name: str, dtype: str) -> str:
    """Write a cast."""
    return str(w.emit("Cast", [name], to=code_of(dtype)))


# --- reductions -------------------------------------------------------------------------------------------------------

_REDUCTIONS = {
    reduction.Sum: "ReduceSum",
    reduction.Mean: "ReduceMean",
    reduction.Max: "ReduceMax",
    reduction.Min: "ReduceMin",
    reduction.LogSumExp: "ReduceLogSumExp",
}
_GLOBAL = {reduction.Mean: "GlobalAveragePool", reduction.Max: "GlobalMaxPool"}


@writes(*_REDUCTIONS)
def reduce(w: Writer, node: Node) -> str:
    """A reduction; over all of space it is a global pool."""
    op, x = node.op, node.inputs[0]
    assert isinstance(op, reduction.Reduction)
    return reduced(w, op, w.name(x), x.rank)


def reduced(w: Writer, op: reduction.Reduction, name: str, rank: int) -> str:
    """Write a reduction of a value that is written under a name."""
    if not op.axes:
        return name
    # Global pools over more than three axes have no kernels in onnxruntime.
    if op.keepdims and 3 <= rank <= 5 and op.axes == tuple(range(2, rank)) and type(op) in _GLOBAL:
        return str(w.emit(_GLOBAL[type(op)], [name]))
    axes = w.array(list(op.axes), "int64", "axes")
    return str(w.emit(_REDUCTIONS[type(op)], [name, axes], keepdims=int(op.keepdims)))


@writes(reduction.ArgMax)
def argmax(w: Writer, node: Node) -> str:
    """The place of the first largest element."""
    axis = node.op.axis  # type: ignore[attr-defined]
    return str(w.emit("ArgMax", [w.name(node.inputs[0])], axis=normalize_axis(axis, node.inputs[0].rank), keepdims=0))


@writes(Softmax, LogSoftmax)
def softmax(w: Writer, node: Node) -> str:
    """Along an axis."""
    op_type = "Softmax" if isinstance(node.op, Softmax) else "LogSoftmax"
    axis = normalize_axis(node.op.axis, node.rank)  # type: ignore[attr-defined]
    return str(w.emit(op_type, [w.name(node.inputs[0])], axis=axis))


@writes(SoftmaxCrossEntropy)
def softmax_cross_entropy(w: Writer, node: Node) -> str:
    """−Σ t·log_softmax(x)."""
    logits, targets = node.inputs
    axis = normalize_axis(node.op.axis, logits.rank)  # type: ignore[attr-defined]
    logs = w.emit("LogSoftmax", [w.name(logits)], axis=axis)
    axes = w.array([axis], "int64", "axes")
    return str(w.emit("Neg", [w.emit("ReduceSum", [w.emit("Mul", [w.name(targets), logs]), axes], keepdims=0)]))
