"""Algebraic simplification: each rule is named after its equation, and the equation is its docstring."""

from __future__ import annotations

import math

from minigraph.ir.leaves import Constant, Item
from minigraph.ir.node import Node
from minigraph.ir.types import Dim, Shape, is_float, product
from minigraph.ops.elementwise import Add, Binary, Div, Elementwise, Mul, Neg, Sub, Where
from minigraph.ops.indexing import Pad, Slice
from minigraph.ops.real import Pow
from minigraph.ops.reduction import Sum
from minigraph.ops.shape import BroadcastTo, Cast, Concat, CountOf, Reshape, Split, Transpose
from minigraph.passes.driver import Rewriting, at


def _is(node: Node, value: float) -> bool:
    """Tell whether a node is a constant with this value everywhere."""
    return isinstance(node.op, Constant) and node.op.splat == value


def _in_place_of(node: Node, kept: Node) -> Node | None:
    """Return `kept` where it has the replaced node's type, which broadcasting can make wider."""
    return kept if kept.type == node.type else None


@at(Add, Sub)
def add_zero(node: Node) -> Node | None:
    """x + 0 = x, x − 0 = x (but for the sign of −0).

    When: x has the type of the result; a wider 0 would broadcast it.

        %0 = input("x") : float32[2,3]
        %1 = constant(0.0) : float32[]
        %2 = add(%0, %1) : float32[2,3]
        return y=%2
    """
    match node.op, node.inputs:
        case Add() | Sub(), (x, zero) if _is(zero, 0):
            return _in_place_of(node, x)
        case Add(), (zero, x) if _is(zero, 0):
            return _in_place_of(node, x)
    return None


@at(Sub)
def zero_minus(node: Node) -> Node | None:
    """0 − x = −x (but for the sign of 0).

    When: x has the type of the result; a wider 0 would broadcast it.

        %0 = input("x") : float32[2,3]
        %1 = constant(0.0) : float32[]
        %2 = sub(%1, %0) : float32[2,3]
        return y=%2
    """
    match node.op, node.inputs:
        case Sub(), (zero, x) if _is(zero, 0) and x.type == node.type:
            return -x
    return None


@at(Mul, Div)
def multiply_by_one(node: Node) -> Node | None:
    """x · 1 = x, x / 1 = x.

    When: x has the type of the result; a wider 1 would broadcast it.

        %0 = input("x") : float32[2,3]
        %1 = constant(1.0) : float32[]
        %2 = mul(%0, %1) : float32[2,3]
        return y=%2
    """
    match node.op, node.inputs:
        case Mul() | Div(), (x, one) if _is(one, 1):
            return _in_place_of(node, x)
        case Mul(), (one, x) if _is(one, 1):
            return _in_place_of(node, x)
    return None


@at(Div)
def divide_by_constant(node: Node) -> Node | None:
    """x / c = x · (1/c) where c is a power of two, so that nothing is rounded.

    When: c is one number everywhere, from 2⁻¹⁴ to 2¹², whose reciprocal float16 has room for too.

        %0 = input("x") : float32[2,3]
        %1 = constant(4.0) : float32[]
        %2 = div(%0, %1) : float32[2,3]
        return y=%2
    """
    match node.op, node.inputs:
        case Div(), (x, c) if isinstance(c.op, Constant) and c.op.splat and is_float(c.dtype):
            mantissa, exponent = math.frexp(c.op.splat)
            if abs(mantissa) == 0.5 and abs(exponent) < 14:
                return x * Node(Constant.full(c.op.type, 1.0 / c.op.splat))
    return None


@at(Pow)
def power_of_small_integer(node: Node) -> Node | None:
    """x¹ = x, x² = x·x.

    When: x has the type of the result; a wider exponent would broadcast it.

        %0 = input("x") : float32[2,3]
        %1 = constant(2.0) : float32[]
        %2 = pow(%0, %1) : float32[2,3]
        return y=%2
    """
    match node.op, node.inputs:
        case Pow(), (x, one) if _is(one, 1):
            return _in_place_of(node, x)
        case Pow(), (x, two) if _is(two, 2) and x.type == node.type:
            return x * x
    return None


@at(Neg)
def double_negation(node: Node) -> Node | None:
    """−(−x) = x.

    %0 = input("x") : float32[2,3]
    %1 = neg(%0) : float32[2,3]
    %2 = neg(%1) : float32[2,3]
    return y=%2
    """
    match node.op, node.inputs:
        case Neg(), (Node(op=Neg(), inputs=(x,)),):
            return x
    return None


@at(Add, Sub)
def add_of_negation(node: Node) -> Node | None:
    """x + (−y) = x − y, x − (−y) = x + y, (−x) + y = y − x.

    %0 = input("x") : float32[2,3]
    %1 = input("y") : float32[2,3]
    %2 = neg(%1) : float32[2,3]
    %3 = add(%0, %2) : float32[2,3]
    return z=%3
    """
    match node.op, node.inputs:
        case Add(), (x, Node(op=Neg(), inputs=(y,))):
            return x - y
        case Sub(), (x, Node(op=Neg(), inputs=(y,))):
            return x + y
        case Add(), (Node(op=Neg(), inputs=(x,)), y):
            return y - x
    return None


@at(Where)
def where_constant(node: Node) -> Node | None:
    """where(true, x, y) = x, where(false, x, y) = y.

    When: the condition is one constant everywhere, and what it chooses has the type of the result.

        %0 = input("x") : float32[2,3]
        %1 = input("y") : float32[2,3]
        %2 = constant(true) : bool[]
        %3 = where(%2, %0, %1) : float32[2,3]
        return z=%3
    """
    match node.op, node.inputs:
        case Where(), (condition, x, y) if isinstance(condition.op, Constant) and condition.op.splat is not None:
            return _in_place_of(node, x if condition.op.splat else y)
    return None


@at(Reshape)
def reshape_of_reshape(node: Node) -> Node | None:
    """reshape(reshape(x, s), t) = reshape(x, t); reshape(x, shape of x) = x.

    %0 = input("x") : float32[2,3]
    %1 = reshape(%0, shape=(6,)) : float32[6]
    %2 = reshape(%1, shape=(3, 2)) : float32[3,2]
    return y=%2
    """
    match node.op, node.inputs:
        case Reshape(), (x,) if x.shape == node.shape:
            return x
        case Reshape(), (Node(op=Reshape(), inputs=(x,)),):
            return Node(node.op, (x,))
    return None


@at(Transpose)
def transpose_of_transpose(node: Node) -> Node | None:
    """transpose(transpose(x, p), q) = transpose(x, p∘q); the identity order is dropped.

    %0 = input("x") : float32[2,3,4]
    %1 = transpose(%0, axes=(1, 2, 0)) : float32[3,4,2]
    %2 = transpose(%1, axes=(1, 0, 2)) : float32[4,3,2]
    return y=%2
    """
    match node.op, node.inputs:
        case Transpose(axes=axes), (x,) if axes == tuple(range(len(axes))):
            return x
        case Transpose(axes=outer), (Node(op=Transpose(axes=inner), inputs=(x,)),):
            return Node(Transpose(tuple(inner[a] for a in outer)), (x,))
    return None


@at(Transpose)
def transpose_is_reshape(node: Node) -> Node | None:
    """transpose(x) = reshape(x) where only axes of size 1 change their place.

    %0 = input("x") : float32[2,1,3]
    %1 = transpose(%0, axes=(1, 0, 2)) : float32[1,2,3]
    return y=%1
    """
    match node.op, node.inputs:
        case Transpose(axes=axes), (x,) if keeps_order(x.shape, axes):
            return Node(Reshape(node.shape), (x,))
    return None


def keeps_order(shape: Shape, axes: tuple[int, ...]) -> bool:
    """Tell whether transposing an array of this shape leaves its elements in their order: only sizes of 1 move."""
    moved = [a for a in axes if shape[a] != 1]
    return moved == sorted(moved)


@at(Pad, Cast, BroadcastTo, Concat, Slice, Sum, Item)
def nothing_moved(node: Node) -> Node | None:
    """f(x) = x where f does nothing.

    When: f pads by 0, casts to the same dtype, broadcasts to the same shape, joins or splits into one piece, slices the
    whole, or sums along axes of size 1 and keeps them.

        %0 = input("x") : float32[2,3]
        %1 = pad(%0, padding=((0, 0), (0, 0))) : float32[2,3]
        return y=%1
    """
    match node.op, node.inputs:
        case Pad() | Cast() | BroadcastTo() | Concat(), (x,) if x.type == node.type:
            return x
        case Slice(steps=steps), (x,) if x.type == node.type and all(s == 1 for s in steps):
            return x
        case Sum(axes=axes), (x,) if x.type == node.type and product(x.shape[a] for a in axes) == 1:
            return x
        case Item(index=index), (Node(op=Split(sizes=(_,)), inputs=(x,)),) if index == 0:
            return x
    return None


@at(Binary, Where)
def broadcast_before_elementwise(node: Node) -> Node | None:
    """f(broadcast(x), y) = f(x, y), f elementwise: such an op broadcasts by itself.

    When: the other operands give the result its shape.

        %0 = input("x") : float32[3]
        %1 = broadcast_to(%0, shape=(2, 3)) : float32[2,3]
        %2 = input("y") : float32[2,3]
        %3 = add(%1, %2) : float32[2,3]
        return z=%3
    """
    for i, operand in enumerate(node.inputs):
        if isinstance(operand.op, BroadcastTo):
            narrow = operand.inputs[0]
            inputs = (*node.inputs[:i], narrow, *node.inputs[i + 1 :])
            if node.op.infer(*(x.type for x in inputs)) == node.type:
                return Node(node.op, inputs)
    return None


@at(Elementwise, Cast)
def elementwise_of_broadcast(node: Node) -> Node | None:
    """f(broadcast(x)) = broadcast(f(x)), f elementwise: less to compute.

    When: one operand is a broadcast, and all others are scalars.

        %0 = input("x") : float32[3]
        %1 = broadcast_to(%0, shape=(2, 3)) : float32[2,3]
        %2 = exp(%1) : float32[2,3]
        return y=%2
    """
    wide = [x for x in node.inputs if isinstance(x.op, BroadcastTo)]
    if len(wide) != 1 or any(x.shape != () for x in node.inputs if x is not wide[0]):
        return None
    narrow = wide[0].inputs[0]
    return Node(BroadcastTo(node.shape), (Node(node.op, tuple(narrow if x is wide[0] else x for x in node.inputs)),))


@at(BroadcastTo)
def broadcast_of_broadcast(node: Node) -> Node | None:
    """broadcast(broadcast(x)) = broadcast(x).

    %0 = input("x") : float32[3]
    %1 = broadcast_to(%0, shape=(2, 3)) : float32[2,3]
    %2 = broadcast_to(%1, shape=(4, 2, 3)) : float32[4,2,3]
    return y=%2
    """
    match node.op, node.inputs:
        case BroadcastTo(), (Node(op=BroadcastTo(), inputs=(x,)),):
            return Node(node.op, (x,))
    return None


@at(CountOf)
def size_of_known_shape(node: Node) -> Node | None:
    """size(x) = a constant.

    When: the sizes that are multiplied are numbers, which they are once the graph is bound.

        %0 = input("x") : float32[2,3]
        %1 = size(%0, axes=(0, 1), dtype="int64") : int64[]
        return count=%1
    """
    match node.op, node.inputs:
        case CountOf(axes=axes, dtype=dtype), (x,):
            count = product(x.shape[a] for a in axes)
            if not isinstance(count, Dim):
                return Node(Constant.of(float(count) if is_float(dtype) else count, dtype))
    return None


SIMPLIFY = Rewriting(
    "simplify",
    (
        size_of_known_shape,
        add_zero,
        zero_minus,
        multiply_by_one,
        divide_by_constant,
        power_of_small_integer,
        double_negation,
        add_of_negation,
        where_constant,
        reshape_of_reshape,
        transpose_of_transpose,
        transpose_is_reshape,
        nothing_moved,
        broadcast_before_elementwise,
        elementwise_of_broadcast,
        broadcast_of_broadcast,
    ),
)
