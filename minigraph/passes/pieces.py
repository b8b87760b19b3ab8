"""Transposes move down through ops that join, cut, pick, repeat and regroup, each axis as what it became was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from minigraph.errors import ShapeError
from minigraph.ir.leaves import Item
from minigraph.ir.node import Node
from minigraph.ir.types import Dim, Shape, Size, normalize_axis
from minigraph.ops.indexing import Gather, GatherAdjoint, OneHot, Pad, Slice, SliceAdjoint
from minigraph.ops.shape import BroadcastTo, Concat, Reshape, Split, Transpose, reshape
from minigraph.passes.driver import at
from minigraph.passes.simplify import keeps_order
from minigraph.passes.surroundings import Surroundings
from minigraph.passes.transposes import (
    Order,
    along,
    channels_come_first,
    inverse,
    permuted,
    repeated,
    sizes,
    transposed,
    turned_operands,
    widened,
)

Groups = list[tuple[list[int], list[int]]]


@at(Concat)
def concat_of_transposes(node: Node, around: Surroundings) -> Node | None:
    """concat(transpose(x), transpose(y)) = transpose(concat(x, y)) along the axis that its axis came from.

    When: the operands can be turned as those of elementwise ops are.

        %0 = input("x") : float32[2,6,6,3]
        %1 = transpose(%0, axes=(0, 3, 1, 2)) : float32[2,3,6,6]
        %2 = input("y") : float32[2,6,6,5]
        %3 = transpose(%2, axes=(0, 3, 1, 2)) : float32[2,5,6,6]
        %4 = concat(%1, %3, axis=1) : float32[2,8,6,6]
        return y=%4
    """
    turned = turned_operands(node, around)
    return None if turned is None else transposed(Node(along(node.op, turned[0]), turned[1]), turned[0])


@at(Item)
def piece_of_transpose(node: Node) -> Node | None:
    """item(split(transpose(x)), i) = transpose(item(split(x), i)); what several pieces share is merged afterwards.

    %0 = input("x") : float32[2,6,6,4]
    %1 = transpose(%0, axes=(0, 3, 1, 2)) : float32[2,4,6,6]
    %2 = split(%1, sizes=(1, 3), axis=1) : (float32[2,1,6,6], float32[2,3,6,6])
    %3 = item(%2, index=1) : float32[2,3,6,6]
    return y=%3
    """
    match node.inputs:
        case (Node(op=Split() as split, inputs=(Node(op=Transpose(axes=order), inputs=(x,)),)),):
            return transposed(Node(node.op, (Node(along(split, order), (x,)),)), order)
    return None


@at(Slice, SliceAdjoint)
def slice_of_transpose(node: Node) -> Node | None:
    """slice(transpose(x)) = transpose(slice(x)), each axis cut as what it became is; slice_adjoint too.

    %0 = input("x") : float32[2,6,6,4]
    %1 = transpose(%0, axes=(0, 3, 1, 2)) : float32[2,4,6,6]
    %2 = slice(%1, starts=(0, 1, 0, 0), sizes=(2, 3, 6, 6), steps=(1, 1, 1, 1)) : float32[2,3,6,6]
    return y=%2
    """
    match node.inputs:
        case (Node(op=Transpose(axes=order), inputs=(x,)),):
            back = inverse(order)
            attributes = {name: permuted(each, back) for name, each in vars(node.op).items()}
            return transposed(Node(type(node.op)(**attributes), (x,)), order)
    return None


@at(Pad)
def pad_of_transpose(node: Node) -> Node | None:
    """pad(transpose(x)) = transpose(pad(x)), each axis padded as what it became is.

    %0 = input("x") : float32[2,6,6,4]
    %1 = transpose(%0, axes=(0, 3, 1, 2)) : float32[2,4,6,6]
    %2 = pad(%1, padding=((0, 0), (0, 0), (1, 1), (2, 2))) : float32[2,4,8,10]
    return y=%2
    """
    match node.op, node.inputs:
        case Pad(padding=padding), (Node(op=Transpose(axes=order), inputs=(x,)),):
            return transposed(Node(replace(node.op, padding=permuted(padding, inverse(order))), (x,)), order)
    return None


@at(Gather)
def gather_of_transpose(node: Node) -> Node | None:
    """gather(transpose(x), i) along an axis = transpose(gather(x, i)) along the axis that it came from.

    %0 = input("x") : float32[2,6,6,3]
    %1 = transpose(%0, axes=(0, 3, 1, 2)) : float32[2,3,6,6]
    %2 = input("i") : int64[12]
    %3 = gather(%1, %2, axis=2) : float32[2,3,12,6]
    return y=%3
    """
    match node.op, node.inputs:
        case Gather(axis=axis), (Node(op=Transpose(axes=order), inputs=(x,)), indices):
            gathered, more = order[axis % len(order)], indices.rank - 1
            axes: list[int] = []
            for a in order:
                axes += [a + more * (a > gathered)] if a != gathered else range(a, a + indices.rank)
            return transposed(Node(replace(node.op, axis=gathered), (x, indices)), tuple(axes))
    return None


@at(GatherAdjoint)
def gather_adjoint_of_transpose(node: Node) -> Node | None:
    """gather_adjoint(transpose(x), i) = transpose(gather_adjoint(x, i)) along the axis that its axis came from.

    When: the indices have one axis.

        %0 = input("x") : float32[2,12,6,3]
        %1 = transpose(%0, axes=(0, 3, 1, 2)) : float32[2,3,12,6]
        %2 = input("i") : int64[12]
        %3 = gather_adjoint(%1, %2, shape=(2, 3, 6, 6), axis=2) : float32[2,3,6,6]
        return y=%3
    """
    match node.op, node.inputs:
        case GatherAdjoint(axis=axis), (Node(op=Transpose(axes=order), inputs=(x,)), indices) if indices.rank == 1:
            shape = permuted(node.shape, inverse(order))
            op = replace(node.op, shape=shape, axis=order[axis % len(order)])
            return transposed(Node(op, (x, indices)), order)
    return None


# --- repetition ---------------------------------------------------------------------------------------------------


@at(BroadcastTo)
def broadcast_of_transpose(node: Node) -> Node | None:
    """broadcast(transpose(x)) = transpose(broadcast(x)).

    When: the order puts channels first; any other transpose had better stay where it is small.

        %0 = input("x") : float32[1,6,6,3]
        %1 = transpose(%0, axes=(0, 3, 1, 2)) : float32[1,3,6,6]
        %2 = broadcast_to(%1, shape=(2, 3, 6, 6)) : float32[2,3,6,6]
        return y=%2
    """
    match widened(node.inputs[0], node.rank):
        case Node(op=Transpose(axes=order), inputs=(x,)) if channels_come_first(order):
            return transposed(Node(BroadcastTo(permuted(node.shape, inverse(order))), (x,)), order)
    return None


@at(Transpose)
def transpose_of_broadcast(node: Node) -> Node | None:
    """transpose(broadcast(x)) = broadcast(reshape(x)), also where the broadcast is cast.

    When: transposing x moves only axes of size 1.

        %0 = input("x") : float32[2,3,1,1]
        %1 = broadcast_to(%0, shape=(2, 3, 6, 6)) : float32[2,3,6,6]
        %2 = transpose(%1, axes=(0, 2, 3, 1)) : float32[2,6,6,3]
        return y=%2
    """
    x = repeated(node.inputs[0])
    if x is None:
        return None
    order: Order = node.op.axes  # type: ignore[attr-defined]
    wide = sizes(x, len(order))
    return Node(BroadcastTo(node.shape), (reshape(x, permuted(wide, order)),)) if keeps_order(wide, order) else None


@at(Transpose)
def transpose_of_one_hot(node: Node) -> Node | None:
    """transpose(one_hot(x)) = one_hot(x) with its new axis in the place where the transpose puts it.

    When: the other axes keep their order.

        %0 = input("labels") : int64[2,6,6]
        %1 = one_hot(%0, classes=3, axis=1, dtype="int64") : int64[2,3,6,6]
        %2 = transpose(%1, axes=(0, 2, 3, 1)) : int64[2,6,6,3]
        return y=%2
    """
    match node.op, node.inputs:
        case Transpose(axes=order), (Node(op=OneHot(axis=axis) as op, inputs=(x,)),):
            new = normalize_axis(axis, len(order))
            others = [a for a in order if a != new]
            if others == sorted(others):
                return Node(replace(op, axis=order.index(new)), (x,))
    return None


# --- reshapes -----------------------------------------------------------------------------------------------------


@at(Reshape)
def reshape_of_transpose(node: Node) -> Node | None:
    """reshape(transpose(x)) = transpose(reshape(x)).

    When: axes that are joined into one stand next to each other, in the same order, in x too; or what is left outside
    once they are brought together is an order that puts channels first, as it is where channels are shuffled.

        %0 = input("x") : float32[2,5,7,6]
        %1 = transpose(%0, axes=(0, 3, 1, 2)) : float32[2,6,5,7]
        %2 = reshape(%1, shape=(2, 3, 2, 5, 7)) : float32[2,3,2,5,7]
        return y=%2
    """
    match node.inputs:
        case (Node(op=Transpose(axes=order), inputs=(x,)),):
            groups = _groups(node.inputs[0].shape, node.shape)
            return None if groups is None else _regrouped(node, x, order, groups)
    return None


def _regrouped(node: Node, x: Node, order: Order, groups: Groups) -> Node | None:
    """Return the reshape with each group of axes where it is in x, under the transpose that is left."""
    for place in (min, max):  # a group that is not together in x may go to where it begins, or to where it ends
        placed = sorted(groups, key=lambda group: place((order[i] for i in group[0]), default=-1))
        taken = [order[i] for old, _ in placed for i in old]
        made = [j for _, new in placed for j in new]
        left = inverse(tuple(made))
        together = taken == sorted(taken)
        if together or (len(left) > 3 and channels_come_first(left)):
            inner = x if together else transposed(x, (*taken, *(a for a in range(x.rank) if a not in taken)))
            return transposed(reshape(inner, permuted(node.shape, tuple(made))), left)
        if made == sorted(made):  # groups are where they begin: another place would only lead back here
            return None
    return None


def _groups(old: Shape, new: Shape) -> Groups | None:
    """Return which axes of one shape become which axes of the other, piece by piece; None where it cannot be told.

    Of the old axes those of size 1 are left out; a new one goes with the axis before it.

    >>> _groups((2, 6, 5, 7), (2, 3, 2, 35))
    [([], []), ([0], [0]), ([1], [1, 2]), ([2, 3], [3])]
    """
    taken, made = ([i for i, size in enumerate(shape) if size != 1] for shape in (old, new))
    pieces = _pieces([old[i] for i in taken], [new[j] for j in made])
    if pieces is None:
        return None
    starts = [made[right.start] for _, right in pieces] + [len(new)]
    groups: Groups = [([], list(range(starts[0])))]
    for (left, _), start, stop in zip(pieces, starts, starts[1:], strict=False):
        groups.append(([taken[i] for i in left], list(range(start, stop))))
    return groups


def _pieces(old: Sequence[Size], new: Sequence[Size]) -> list[tuple[range, range]] | None:
    """Return the shortest runs of sizes with equal products, none of them 1."""
    if 0 in old or 0 in new:
        return None
    pieces = []
    i = j = 0
    while i < len(old) and j < len(new):
        first, second, left, right = i, j, old[i], new[j]
        while left != right:
            if _is_part(left, right) and i + 1 < len(old):
                i += 1
                left = left * old[i]
            elif _is_part(right, left) and j + 1 < len(new):
                j += 1
                right = right * new[j]
            else:
                return None
        i, j = i + 1, j + 1
        pieces.append((range(first, i), range(second, j)))
    return pieces if (i, j) == (len(old), len(new)) else None


def _is_part(size: Size, of: Size) -> bool:
    """Tell whether a product of sizes may go on to become another."""
    if isinstance(of, Dim):
        try:
            return bool(of // size)
        except ShapeError:
            return False
    return not isinstance(size, Dim) and size < of
