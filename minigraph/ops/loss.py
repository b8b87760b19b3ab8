"""Softmax and cross-entropy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from minigraph.errors import ArgumentError, DTypeError, ShapeError
from minigraph.ir.node import Node, Operand, as_node
from minigraph.ir.op import Op
from minigraph.ir.types import Size, TensorType, is_float, known, normalize_axis, tensor
from minigraph.ops.constant import constant
from minigraph.ops.elementwise import equal, where
from minigraph.ops.indexing import one_hot
from minigraph.ops.real import exp
from minigraph.ops.reduction import sum as sum_
from minigraph.ops.shape import reshape, unsqueeze


@dataclass(frozen=True)
class _AlongAxis(Op):
    axis: int = -1
    category = "reduction"

    def infer(self, x: Any) -> TensorType:
        """x's type, a float's."""
        type = tensor(x)
        normalize_axis(self.axis, type.rank)
        if not is_float(type.dtype):
            raise DTypeError("only defined for floats", expected="a float dtype", got=type, hint="cast first")
        return type

    def flops(self, node: Node) -> Size:
        """A maximum, a subtraction, an exponential, a sum and a quotient for each element."""
        return 8 * node.tensor_type.size


class Softmax(_AlongAxis, name="softmax"):
    """eˣ / Σ eˣ along an axis, computed from x − max x."""

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = y·(g − Σ g·y)."""
        return (node * (g - sum_(g * node, self.axis, keepdims=True)),)


class LogSoftmax(_AlongAxis, name="log_softmax"):
    """x − ln Σ eˣ along an axis."""

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = g − eʸ·Σ g."""
        return (g - exp(node) * sum_(g, self.axis, keepdims=True),)


@dataclass(frozen=True)
class SoftmaxCrossEntropy(Op, name="softmax_cross_entropy"):
    """−Σ t·log_softmax(x) along an axis: x are logits, t a weight for each class (probabilities, usually)."""

    axis: int = -1
    category = "reduction"

    def infer(self, logits: Any, targets: Any) -> TensorType:
        """Both have one type; the axis is dropped."""
        type = tensor(logits)
        if targets != type or not is_float(type.dtype):
            raise ShapeError("targets do not fit the logits", expected=type, got=targets)
        axis = normalize_axis(self.axis, type.rank)
        return TensorType(type.shape[:axis] + type.shape[axis + 1 :], type.dtype)

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = g·(softmax(x)·Σ t − t), ∂t = −g·log_softmax(x)."""
        logits, targets = node.inputs
        wide = unsqueeze(g, normalize_axis(self.axis, logits.rank))
        dx = wide * (softmax(logits, self.axis) * sum_(targets, self.axis, keepdims=True) - targets)
        return dx, -wide * log_softmax(logits, self.axis)

    def flops(self, node: Node) -> Size:
        """A log-softmax and a dot product."""
        return 8 * node.inputs[0].tensor_type.size


def softmax(x: Operand, axis: int = -1) -> Node:
    """Return eˣ / Σ eˣ along `axis`.

    >>> from minigraph.ir import variable
    >>> softmax(variable((2, 3)))
    <softmax : float32[2,3]>
    """
    node = as_node(x)
    return Node(Softmax(normalize_axis(axis, node.rank)), (node,))


def log_softmax(x: Operand, axis: int = -1) -> Node:
    """Return ln softmax(x) along `axis`, without overflow.

    >>> from minigraph.ir import variable
    >>> log_softmax(variable((2, 3)))
    <log_softmax : float32[2,3]>
    """
    node = as_node(x)
    return Node(LogSoftmax(normalize_axis(axis, node.rank)), (node,))


def softmax_cross_entropy(
    logits: Operand,
    labels: Operand,
    axis: int = -1,
    class_weights: Operand | Sequence[float] | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
) -> Node:
    """Return the cross-entropy of each example: integer labels lose the class axis, soft ones have the logits' shape.

    With weights w the target of class c is multiplied by w_c; smoothing s mixes (1 − s) of the target with s/classes
    of every class (Szegedy et al. 2016). Examples labelled `ignore_index` get 0.

    >>> from minigraph.ir import variable
    >>> softmax_cross_entropy(variable((8, 10)), variable((8,), dtype="int64"), label_smoothing=0.1)
    <softmax_cross_entropy : float32[8]>
    """
    x = as_node(logits)
    targets = cross_entropy_targets(x, as_node(labels), axis, class_weights, ignore_index, label_smoothing)
    return Node(SoftmaxCrossEntropy(normalize_axis(axis, x.rank)), (x, targets))


def cross_entropy_targets(
    logits: Node,
    labels: Node,
    axis: int = -1,
    class_weights: Any = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
) -> Node:
    """Return the weight of each class for each example, in the shape of `logits`: see `softmax_cross_entropy`.

    >>> from minigraph.ir import variable
    >>> cross_entropy_targets(variable((8, 10)), variable((8,), dtype="int64"))
    <one_hot : float32[8,10]>
    """
    if not 0 <= label_smoothing <= 1:
        raise ArgumentError("bad label smoothing", expected="0 ≤ label_smoothing ≤ 1", got=label_smoothing)
    axis = normalize_axis(axis, logits.rank)
    classes = known(logits.shape[axis], "the class axis")
    integer = labels.dtype.startswith(("int", "uint"))
    if not integer and ignore_index is not None:
        raise ArgumentError("soft labels cannot be ignored by index", hint="weight them with zeros")
    if integer and labels.shape != logits.shape[:axis] + logits.shape[axis + 1 :]:
        raise ShapeError(
            "integer labels have the shape of the logits without the class axis",
            expected=logits.shape[:axis] + logits.shape[axis + 1 :],
            got=labels.type,
            hint="soft labels must be floats",
        )
    targets = one_hot(labels, classes, axis, logits.dtype) if integer else labels
    if label_smoothing:
        targets = targets * (1.0 - label_smoothing) + label_smoothing / classes
    if class_weights is not None:
        weights = class_weights if isinstance(class_weights, Node) else constant(class_weights, logits.dtype)
        targets = targets * reshape(weights, (classes,) + (1,) * (logits.rank - axis - 1))
    if ignore_index is not None:
        targets = where(unsqueeze(equal(labels, ignore_index), axis), 0.0, targets)
    return targets
