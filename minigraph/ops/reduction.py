"""Reductions over axes: sum, mean, max, min, logsumexp, argmax."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from minigraph.errors import DTypeError, ShapeError
from minigraph.ir.node import Node, Operand, as_node
from minigraph.ir.op import Op
from minigraph.ir.types import (
    Dim,
    Shape,
    Size,
    TensorType,
    check_axes,
    is_float,
    normalize_axes,
    normalize_axis,
    product,
    tensor,
)
from minigraph.ops.elementwise import equal, where
from minigraph.ops.real import exp
from minigraph.ops.shape import cast, reshape, size


@dataclass(frozen=True)
class Reduction(Op):
    """Base: `axes` are folded into one value each; with `keepdims` they stay as axes of size 1."""

    axes: tuple[int, ...] = ()
    keepdims: bool = False
    category = "reduction"

    def infer(self, x: Any) -> TensorType:
        """Drop the axes, or keep them as 1."""
        type = tensor(x)
        axes = check_axes(self.axes, type.rank)
        kept = (1 if i in axes else s for i, s in enumerate(type.shape))
        left = (s for i, s in enumerate(type.shape) if i not in axes)
        return TensorType(tuple(kept if self.keepdims else left), self.result_dtype(type))

    def result_dtype(self, type: TensorType) -> str:
        """Return the result's dtype."""
        return type.dtype

    def flops(self, node: Node) -> Size:
        """One operation for each element read."""
        return node.inputs[0].tensor_type.size


class FloatReduction(Reduction):
    """Base of reductions that are defined for floats only."""

    def result_dtype(self, type: TensorType) -> str:
        """Same dtype, which must be a float's."""
        if not is_float(type.dtype):
            raise DTypeError("only defined for floats", expected="a float dtype", got=type, hint="cast first")
        return type.dtype


def _restore(value: Node, node: Node) -> Node:
    """Return `value`, shaped like the reduction's result, with the reduced axes back as axes of size 1."""
    x, op = node.inputs[0], node.op
    assert isinstance(op, Reduction)
    return reshape(value, tuple(1 if i in op.axes else s for i, s in enumerate(x.shape)))


class Sum(Reduction, name="sum"):
    """Σ x over the axes."""

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = g, spread over the axes."""
        return (_restore(g, node),)


class Mean(FloatReduction, name="mean"):
    """Σ x / m over the axes, m the number of elements folded together."""

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = g / m, spread over the axes."""
        return (_restore(g, node) / count(node.inputs[0], self.axes),)


class _Extreme(Reduction):
    def infer(self, x: Any) -> TensorType:
        """Drop the axes, or keep them as 1; there is no extreme of nothing."""
        result = super().infer(x)
        if product(tensor(x).shape[a] for a in self.axes) == 0:
            raise ShapeError("no extreme element on an empty axis", got=x)
        return result

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """The adjoint goes to the extreme elements; equal ones share it evenly."""
        x = node.inputs[0]
        chosen = cast(equal(x, _restore(node, node)), x.dtype)
        ties = Node(Sum(self.axes, True), (chosen,))
        return (chosen * (_restore(g, node) / ties),)


class Max(_Extreme, name="max"):
    """The largest element over the axes; NaN if there is one."""


class Min(_Extreme, name="min"):
    """The smallest element over the axes; NaN if there is one."""


class LogSumExp(FloatReduction, name="logsumexp"):
    """ln Σ eˣ over the axes, computed as m + ln Σ eˣ⁻ᵐ with m = max x."""

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = g·eˣ⁻ʸ (0 where a whole group is −inf)."""
        x, y = node.inputs[0], _restore(node, node)
        empty = equal(y, float("-inf"))
        return (_restore(g, node) * where(empty, 0.0, exp(x - where(empty, 0.0, y))),)

    def flops(self, node: Node) -> Size:
        """An exponential and two sums for each element."""
        return 6 * node.inputs[0].tensor_type.size


@dataclass(frozen=True)
class ArgMax(Op, name="argmax"):
    """The index of the first largest element along an axis, int64."""

    axis: int = -1
    category = "reduction"

    def infer(self, x: Any) -> TensorType:
        """Drop the axis."""
        type = tensor(x)
        axis = normalize_axis(self.axis, type.rank)
        if type.shape[axis] == 0:
            raise ShapeError("no largest element on an empty axis", got=type)
        return TensorType(type.shape[:axis] + type.shape[axis + 1 :], "int64")

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """An index has no gradient."""
        return (None,)


def count(x: Node, axes: tuple[int, ...]) -> Node:
    """Return the number of elements along `axes` in x's dtype: a constant, or a `size` node while it is symbolic."""
    number = product(x.shape[a] for a in axes)
    return size(x, axes, x.dtype) if isinstance(number, Dim) else as_node(float(number), x)


Axes = int | Iterable[int] | None


def _reduce(op: type[Reduction], x: Operand, axes: Axes, keepdims: bool) -> Node:
    node = as_node(x)
    return Node(op(normalize_axes(axes, node.rank), bool(keepdims)), (node,))


def sum(x: Operand, axes: Axes = None, keepdims: bool = False) -> Node:
    """Return the sum over `axes` (all of them by default).

    >>> from minigraph.ir import variable
    >>> sum(variable((2, 3)), axes=1)
    <sum : float32[2]>
    """
    return _reduce(Sum, x, axes, keepdims)


def mean(x: Operand, axes: Axes = None, keepdims: bool = False) -> Node:
    """Return the mean over `axes`; NaN over no elements.

    >>> from minigraph.ir import variable
    >>> mean(variable((2, 3)), axes=0, keepdims=True)
    <mean : float32[1,3]>
    """
    return _reduce(Mean, x, axes, keepdims)


def max(x: Operand, axes: Axes = None, keepdims: bool = False) -> Node:
    """Return the largest element over `axes`; equal elements share the gradient.

    >>> from minigraph.ir import variable
    >>> max(variable((2, 3)))
    <max : float32[]>
    """
    return _reduce(Max, x, axes, keepdims)


def min(x: Operand, axes: Axes = None, keepdims: bool = False) -> Node:
    """Return the smallest element over `axes`; equal elements share the gradient.

    >>> from minigraph.ir import variable
    >>> min(variable((2, 3)), axes=-1)
    <min : float32[2]>
    """
    return _reduce(Min, x, axes, keepdims)


def logsumexp(x: Operand, axes: Axes = None, keepdims: bool = False) -> Node:
    """Return ln Σ eˣ over `axes`, without overflow.

    >>> from minigraph.ir import variable
    >>> logsumexp(variable((2, 3)), axes=-1)
    <logsumexp : float32[2]>
    """
    return _reduce(LogSumExp, x, axes, keepdims)


def argmax(x: Operand, axis: int = -1) -> Node:
    """Return the index of the first largest element along `axis`.

    >>> from minigraph.ir import variable
    >>> argmax(variable((2, 3)))
    <argmax : int64[2]>
    """
    node = as_node(x)
    return Node(ArgMax(normalize_axis(axis, node.rank)), (node,))


def sum_to(x: Node, shape: Shape) -> Node:
    """Return `x` summed over the axes along which an operand of this shape was repeated: broadcasting undone.

    >>> from minigraph.ir import variable
    >>> sum_to(variable((4, 3)), (3,))
    <reshape : float32[3]>
    """
    extra = x.rank - len(shape)
    repeated = tuple(range(extra)) + tuple(i + extra for i, s in enumerate(shape) if s == 1 and x.shape[i + extra] != 1)
    if not repeated:
        return x
    kept = sum(x, repeated, keepdims=True)
    return reshape(kept, kept.shape[extra:])
