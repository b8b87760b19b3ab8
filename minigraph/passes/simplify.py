"""Algebraic simplification: each rule is named after its equation, and the equation is its docstring."""

from __future__ import annotations

import math

from minigraph.ir.leaves import Constant, Item
from minigraph.ir.node import Node
from minigraph.ir.types import Dim, is_float, product
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
    """x + 0 = x, x − 0 = x (but for the sign of −0)."""
    match node.op, node.inputs:
        case Add() | Sub(), (x, zero) if _is(zero, 0):
            return _in_place_of(node, x)
        case Add(), (zero, x) if _is(zero, 0):
            return _in_place_of(node, x)
    return None


@at(Sub)
def zero_minus(node: Node) -> Node | None:
    """0 − x = −x (but for the sign of 0)."""
    match node.op, node.inputs:
        case Sub(), (zero, x) if _is(zero, 0) and x.type == node.type:
            return -x
    return None


@at(Mul, Div)
def multiply_by_one(node: Node) -> Node | None:
    """x · 1 = x, x / 1 = x."""
    match node.op, node.inputs:
        case Mul() | Div(), (x, one) if _is(one, 1):
            return _in_place_of(node, x)
        case Mul(), (one, x) if _is(one, 1):
            return _in_place_of(node, x)
    return None


@at(Div)
def divide_by_constant(node: Node) -> Node | None:
    """x / c = x · (1/c) where c is a power of two, so that nothing is rounded."""
    match node.op, node.inputs:
        case Div(), (x, c) if isinstance(c.op, Constant) and c.op.splat and is_float(c.dtype):
            mantissa, exponent = math.frexp(c.op.splat)
            if abs(mantissa) == 0.5 and abs(exponent) < 14:
                return x * Node(Constant.full(c.op.type, 1.0 / c.op.splat))
    return None


@at(Pow)
def power_of_small_integer(node: Node) -> Node | None:
    """x¹ = x, x² = x·x."""
    match node.op, node.inputs:
        case Pow(), (x, one) if _is(one, 1):
            return _in_place_of(node, x)
        case Pow(), (x, two) if _is(two, 2) and x.type == node.type:
            return x * x
    return None


@at(Neg)
def double_negation(node: Node) -> Node | None:
    """−(−x) = x."""
    match node.op, node.inputs:
        case Neg(), (Node(op=Neg(), inputs=(x,)),):
            return x
    return None


@at(Add, Sub)
def add_of_negation(node: Node) -> Node | None:
    """x + (−y) = x − y, x − (−y) = x + y, (−x) + y = y − x."""
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
    """where(true, x, y) = x, where(false, x, y) = y."""
    match node.op, node.inputs:
        case Where(), (condition, x, y) if isinstance(condition.op, Constant) and condition.op.splat is not None:
            return _in_place_of(node, x if condition.op.splat else y)
    return None


@at(Reshape)
def reshape_of_reshape(node: Node) -> Node | None:
    """reshape(reshape(x, s), t) = reshape(x, t); reshape(x, shape of x) = x."""
    match node.op, node.inputs:
        case Reshape(), (x,) if x.shape == node.shape:
            return x
        case Reshape(), (Node(op=Reshape(), inputs=(x,)),):
            return Node(node.op, (x,))
    return None


@at(Transpose)
def transpose_of_transpose(node: Node) -> Node | None:
    """transpose(transpose(x, p), q) = transpose(x, p∘q); the identity order is dropped."""
    match node.op, node.inputs:
        case Transpose(axes=axes), (x,) if axes == tuple(range(len(axes))):
            return x
        case Transpose(axes=outer), (Node(op=Transpose(axes=inner), inputs=(x,)),):
            return Node(Transpose(tuple(inner[a] for a in outer)), (x,))
    return None


@at(Transpose)
def transpose_is_reshape(node: Node) -> Node | None:
    """transpose(x) = reshape(x) where only axes of size 1 change their place."""
    match node.op, node.inputs:
        case Transpose(axes=axes), (x,):
            moved = [a for a in axes if x.shape[a] != 1]
            if moved == sorted(moved):
                return Node(Reshape(node.shape), (x,))
    return None


@at(Pad, Cast, BroadcastTo, Concat, Slice, Sum, Item)
def nothing_moved(node: Node) -> Node | None:
    """pad by 0, cast to the same dtype, broadcast to the same shape, concat of one, the whole slice: x itself."""
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
    """f(broadcast(x), y) = f(x, y) where y alone has the full shape: elementwise ops broadcast by themselves."""
    for i, operand in enumerate(node.inputs):
        if isinstance(operand.op, BroadcastTo):
            narrow = operand.inputs[0]
            inputs = (*node.inputs[:i], narrow, *node.inputs[i + 1 :])
            if node.op.infer(*(x.type for x in inputs)) == node.type:
                return Node(node.op, inputs)
    return None


@at(Elementwise, Cast)
def elementwise_of_broadcast(node: Node) -> Node | None:
    """f(broadcast(x)) = broadcast(f(x)), for one operand or with constants beside: less to compute."""
    wide = [x for x in node.inputs if isinstance(x.op, BroadcastTo)]
    if len(wide) != 1 or any(x.shape != () for x in node.inputs if x is not wide[0]):
        return None
    narrow = wide[0].inputs[0]
    return Node(BroadcastTo(node.shape), (Node(node.op, tuple(narrow if x is wide[0] else x for x in node.inputs)),))


@at(BroadcastTo)
def broadcast_of_broadcast(node: Node) -> Node | None:
    """broadcast(broadcast(x)) = broadcast(x)."""
    match node.op, node.inputs:
        case BroadcastTo(), (Node(op=BroadcastTo(), inputs=(x,)),):
            return Node(node.op, (x,))
    return None


@at(CountOf)
def size_of_known_shape(node: Node) -> Node | None:
    """size(x) is a constant once the shape is bound."""
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
