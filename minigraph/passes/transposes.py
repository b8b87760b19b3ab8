"""Transposes move down: f(transpose(x)) = transpose(f′(x)), where f′ is f over the axes that its axes came from.

A transpose that goes down through everything meets the one that undoes it, or the end of the graph. Where the other
operands of f are not transposed alike they are turned back: for nothing where that is a reshape. An order that puts
channels first may also turn back whole arrays, for nearly all around them is channels first too; its inverse never
may, so that no two of these rewrites undo each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeAlias, TypeVar

from minigraph.ir.node import Node
from minigraph.ir.op import Op
from minigraph.ir.types import Shape, normalize_axis
from minigraph.ops.elementwise import Elementwise
from minigraph.ops.indexing import OneHot
from minigraph.ops.loss import LogSoftmax, Softmax, SoftmaxCrossEntropy
from minigraph.ops.norm import BatchNorm, Moments
from minigraph.ops.reduction import ArgMax, Reduction
from minigraph.ops.shape import BroadcastTo, Cast, CountOf, Transpose, cast, reshape
from minigraph.passes.driver import at
from minigraph.passes.simplify import keeps_order
from minigraph.passes.surroundings import Surroundings

Order: TypeAlias = tuple[int, ...]
_Item = TypeVar("_Item")


# --- orders of axes -----------------------------------------------------------------------------------------------


def transposed(x: Node, order: Order) -> Node:
    """Return x transposed: one transpose where x is one itself, and none where every axis is in its place."""
    match x:
        case Node(op=Transpose(axes=axes), inputs=(inner,)):
            x, order = inner, permuted(axes, order)
    return x if order == tuple(range(len(order))) else Node(Transpose(order), (x,))


def inverse(order: Order) -> Order:
    """Return the order that undoes an order.

    >>> inverse((0, 3, 1, 2))
    (0, 2, 3, 1)
    """
    return tuple(order.index(i) for i in range(len(order)))


def permuted(shape: Sequence[_Item], order: Order) -> tuple[_Item, ...]:
    """Return what transposing makes of a shape, or of anything else that there is one of for each axis.

    >>> permuted((2, 5, 7, 3), (0, 3, 1, 2))
    (2, 3, 5, 7)
    """
    return tuple(shape[a] for a in order)


def channels_come_first(order: Order) -> bool:
    """Tell whether an order moves the last axis before all others but the batch: N,…,C → N,C,….

    >>> channels_come_first((0, 3, 1, 2)), channels_come_first((0, 2, 3, 1))
    (True, False)
    """
    last = len(order) - 1
    return last > 1 and order == (0, last, *range(1, last))


def _ranks(axes: Sequence[int]) -> Order:
    """Return each axis' place among these axes: the order that is left when the others are gone."""
    return tuple(sorted(axes).index(a) for a in axes)


def _source(axes: Iterable[int], order: Order) -> Order:
    """Return the axes that axes of a transpose came from, in order."""
    return tuple(sorted(order[a] for a in axes))


# --- operands -----------------------------------------------------------------------------------------------------


def sizes(x: Node, rank: int) -> Shape:
    """Return an operand's shape with so many axes, as broadcasting reads it."""
    return (1,) * (rank - x.rank) + x.shape


def widened(x: Node, rank: int) -> Node:
    """Return an operand with so many axes: new ones, of size 1, come first; under the transpose where it is one."""
    new = rank - x.rank
    if new <= 0 or not isinstance(x.op, Transpose):
        return reshape(x, sizes(x, rank))
    inner = x.inputs[0]
    return Node(Transpose((*range(new), *(new + a for a in x.op.axes))), (reshape(inner, sizes(inner, rank)),))


def _turned_back(x: Node, order: Order, whole: bool) -> Node | None:
    """Return an operand laid so that transposing by `order` gives it; None where that is not for nothing.

    whole: whether it may be a transpose of a whole array.
    """
    if x.shape == ():
        return x
    wide, back = widened(x, len(order)), inverse(order)
    if isinstance(wide.op, Transpose) and wide.op.axes == order:
        return wide.inputs[0]
    if keeps_order(wide.shape, back):
        return reshape(x, permuted(wide.shape, back))
    source = repeated(x)
    again = source is not None and keeps_order(sizes(source, len(order)), back)
    return transposed(wide, back) if whole or again or isinstance(x.op, OneHot) else None


def repeated(x: Node) -> Node | None:
    """Return what a broadcast repeats, in the dtype that it is cast to, if it is; None where there is no broadcast."""
    match x:
        case Node(op=BroadcastTo(), inputs=(source,)):
            return source
        case Node(op=Cast(dtype=dtype), inputs=(Node(op=BroadcastTo(), inputs=(source,)),)):
            return cast(source, dtype)
    return None


def turned_operands(node: Node, around: Surroundings) -> tuple[Order, list[Node]] | None:
    """Return the one order in which operands are transposed, and all operands turned back by it; None if they cannot.

    Axes are aligned at the last one, as broadcasting does it.
    """
    given = [x for x in node.inputs if isinstance(x.op, Transpose)]
    if not given:
        return None
    rank = max(x.rank for x in node.inputs)
    wide = [widened(x, rank) for x in given]
    moving = [x for x in wide if not keeps_order(x.inputs[0].shape, x.op.axes)]  # type: ignore[attr-defined]
    data = [x for x in moving if not around.is_parameter(x)]
    orders: set[Order] = {x.op.axes for x in data or moving or wide}  # type: ignore[attr-defined]
    if len(orders) != 1:
        return None
    order = orders.pop()
    operands = []
    for x in node.inputs:
        whole = bool(data) and channels_come_first(order) and _may_be_whole(x, order, around)
        turned = _turned_back(x, order, whole)
        if turned is None:
            return None
        operands.append(turned)
    return order, operands


def _may_be_whole(x: Node, order: Order, around: Surroundings) -> bool:
    """Tell whether a whole array may be turned back: parameters may, which are transposed once if they are frozen.

    With three axes an order is its own inverse: turning data back and forth would never end.
    """
    return around.is_parameter(x) or (len(order) > 3 and not isinstance(x.op, Transpose))


# --- element by element -------------------------------------------------------------------------------------------


@at(Elementwise, Cast)
def elementwise_of_transposes(node: Node, around: Surroundings) -> Node | None:
    """f(transpose(x), transpose(y)) = transpose(f(x, y)), f elementwise; an operand that is not transposed is turned.

    When: all transposes have one order; turning moves only axes of size 1, or the order puts channels first.

        %0 = input("x") : float32[2,6,6,3]
        %1 = transpose(%0, axes=(0, 3, 1, 2)) : float32[2,3,6,6]
        %2 = variable("bias") : float32[3,1,1]
        %3 = add(%1, %2) : float32[2,3,6,6]
        return y=%3
    """
    turned = turned_operands(node, around)
    return None if turned is None else transposed(Node(node.op, turned[1]), turned[0])


@at(BatchNorm)
def batch_norm_channels_last(node: Node) -> Node | None:
    """batch_norm(transpose(x)) over an axis = transpose(batch_norm(x)) over the axis that it came from.

    %0 = input("x") : float32[2,6,6,3]
    %1 = transpose(%0, axes=(0, 3, 1, 2)) : float32[2,3,6,6]
    %2 = variable("gamma") : float32[3]
    %3 = variable("beta") : float32[3]
    %4 = variable("mean") : float32[3]
    %5 = variable("variance") : float32[3]
    %6 = batch_norm(%1, %2, %3, %4, %5, axis=1) : float32[2,3,6,6]
    return y=%6
    """
    match node.op, node.inputs:
        case BatchNorm(axis=axis), (Node(op=Transpose(axes=axes), inputs=(x,)), *rest):
            return Node(Transpose(axes), (Node(replace(node.op, axis=axes[axis % len(axes)]), (x, *rest)),))
    return None


@at(Softmax, LogSoftmax)
def softmax_of_transpose(node: Node) -> Node | None:
    """softmax(transpose(x)) along an axis = transpose(softmax(x)) along the axis that it came from; log_softmax too.

    %0 = input("x") : float32[2,6,6,3]
    %1 = transpose(%0, axes=(0, 3, 1, 2)) : float32[2,3,6,6]
    %2 = softmax(%1, axis=1) : float32[2,3,6,6]
    return y=%2
    """
    match node.inputs:
        case (Node(op=Transpose(axes=order), inputs=(x,)),):
            return transposed(Node(along(node.op, order), (x,)), order)
    return None


def along(op: Op, order: Order) -> Op:
    """Return an op along the axis that its own axis came from."""
    return replace(op, axis=order[normalize_axis(op.axis, len(order))])  # type: ignore[type-var, attr-defined]


# --- reductions ---------------------------------------------------------------------------------------------------


@at(Reduction)
def reduction_of_transpose(node: Node) -> Node | None:
    """sum(transpose(x)) over axes = transpose(sum(x)) over the axes that they came from; mean, max, min … too.

    When the axes that are left stand in the same order in x there is no transpose any more.

        %0 = input("x") : float32[2,6,6,3]
        %1 = transpose(%0, axes=(0, 3, 1, 2)) : float32[2,3,6,6]
        %2 = mean(%1, axes=(2, 3)) : float32[2,3]
        return y=%2
    """
    match node.op, node.inputs:
        case Reduction(axes=axes, keepdims=kept), (Node(op=Transpose(axes=order), inputs=(x,)),):
            left = order if kept else _ranks([a for i, a in enumerate(order) if i not in axes])
            return transposed(Node(replace(node.op, axes=_source(axes, order)), (x,)), left)
    return None


@at(ArgMax, SoftmaxCrossEntropy)
def choice_of_transpose(node: Node, around: Surroundings) -> Node | None:
    """argmax(transpose(x)) along an axis = transpose(argmax(x)) along the axis that it came from.

    The same with softmax_cross_entropy, whose targets are turned as operands of elementwise ops are.

        %0 = input("x") : float32[2,6,6,3]
        %1 = transpose(%0, axes=(0, 3, 1, 2)) : float32[2,3,6,6]
        %2 = argmax(%1, axis=1) : int64[2,6,6]
        return y=%2
    """
    turned = turned_operands(node, around)
    if turned is None:
        return None
    order, operands = turned
    op = along(node.op, order)
    left = _ranks([a for a in order if a != op.axis])  # type: ignore[attr-defined]
    return transposed(Node(op, operands), left)


@at(Moments)
def moments_of_transpose(node: Node) -> Node | None:
    """moments(transpose(x)) over axes = moments(x) over the axes that they came from.

    When: the axes that are left stand in the same order in x.

        %0 = input("x") : float32[2,6,6,3]
        %1 = transpose(%0, axes=(0, 3, 1, 2)) : float32[2,3,6,6]
        %2 = moments(%1, axes=(0, 2, 3)) : (float32[3], float32[3])
        %3 = item(%2, index=0) : float32[3]
        return mean=%3
    """
    match node.op, node.inputs:
        case Moments(axes=axes), (Node(op=Transpose(axes=order), inputs=(x,)),):
            left = [order[i] for i in range(len(order)) if i not in axes]
            if left == sorted(left):
                return Node(replace(node.op, axes=_source(axes, order)), (x,))
    return None


@at(CountOf)
def size_of_transpose(node: Node) -> Node | None:
    """size(transpose(x)) along axes = size(x) along the axes that they came from.

    %0 = input("x") : float32[2,6,6,3]
    %1 = transpose(%0, axes=(0, 3, 1, 2)) : float32[2,3,6,6]
    %2 = size(%1, axes=(0, 2, 3), dtype="int64") : int64[]
    return y=%2
    """
    match node.op, node.inputs:
        case CountOf(axes=axes), (Node(op=Transpose(axes=order), inputs=(x,)),):
            return Node(replace(node.op, axes=_source(axes, order)), (x,))
    return None
