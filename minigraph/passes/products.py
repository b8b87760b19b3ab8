"""Transposes move down through matrix products: as flags, past matrices that resize, and into dense layers' weights."""

from __future__ import annotations

from collections.abc import Sequence

from minigraph.ir.leaves import Constant
from minigraph.ir.node import Node
from minigraph.ir.types import Dim, Size
from minigraph.ops.elementwise import Elementwise
from minigraph.ops.fused import Fused
from minigraph.ops.linalg import MatMul
from minigraph.ops.region import inline
from minigraph.ops.shape import Cast, Reshape, Transpose, reshape
from minigraph.passes.driver import at
from minigraph.passes.simplify import keeps_order
from minigraph.passes.surroundings import Surroundings
from minigraph.passes.transposes import Order, channels_come_first, inverse, transposed

# How many elementwise ops are looked through between a product and the reshape of its result.
LONGEST = 8


@at(MatMul)
def product_of_transpose(node: Node) -> Node | None:
    """transpose(x)·y = xᵀ·y, where transposing exchanges rows and columns: a product may read either operand so.

    %0 = input("x") : float32[8,2,3]
    %1 = transpose(%0, axes=(0, 2, 1)) : float32[8,3,2]
    %2 = input("y") : float32[8,2,4]
    %3 = matmul(%1, %2) : float32[8,3,4]
    return z=%3
    """
    flags, operands = [], []
    op = node.op
    assert isinstance(op, MatMul)
    for x, flag in zip(node.inputs, (op.transpose_x, op.transpose_y), strict=True):
        exchanged = isinstance(x.op, Transpose) and x.op.axes == (*range(x.rank - 2), x.rank - 1, x.rank - 2)
        flags.append(flag != exchanged)
        operands.append(x.inputs[0] if exchanged else x)
    return None if operands == list(node.inputs) else Node(MatMul(*flags), operands)


@at(MatMul)
def product_along_an_image_axis(node: Node) -> Node | None:
    """transpose(x)·m = transpose(mᵀ·x), m·transpose(x) = transpose(m·x) along x's height: resizing by a matrix.

    When: the order puts channels first, and m has two axes.

        %0 = input("x") : float32[2,5,7,3]
        %1 = transpose(%0, axes=(0, 3, 1, 2)) : float32[2,3,5,7]
        %2 = input("m") : float32[7,14]
        %3 = matmul(%1, %2) : float32[2,3,5,14]
        return y=%3
    """
    match node.op, node.inputs:
        case MatMul(transpose_x=False, transpose_y=flag), (Node(op=Transpose(axes=order), inputs=(x,)), m):
            if m.rank == 2 and x.rank > 3 and channels_come_first(order):
                return transposed(Node(MatMul(not flag), (m, x)), order)
        case MatMul(transpose_x=flag, transpose_y=False), (m, Node(op=Transpose(axes=order), inputs=(x,))):
            if m.rank == 2 and x.rank > 3 and channels_come_first(order):
                rows = reshape(x, (*x.shape[:-2], x.shape[-2] * x.shape[-1]))
                product = Node(MatMul(flag), (m, rows))
                return transposed(reshape(product, (*product.shape[:-1], *x.shape[-2:])), order)
    return None


# --- dense layers after flattening, and what their gradients are made of --------------------------------------------


@at(MatMul)
def dense_of_flattened(node: Node, around: Surroundings) -> Node | None:
    """reshape(transpose(x))·w = reshape(x)·w′, where w′ has the rows of w in the order of x's elements.

    When: x is data, all axes that the transpose moves are joined, and w is made of constants, or of variables and not
    larger than x: then transposing it is less work.

        %0 = input("x") : float32[8,2,2,3]
        %1 = transpose(%0, axes=(0, 3, 1, 2)) : float32[8,3,2,2]
        %2 = reshape(%1, shape=(8, 12)) : float32[8,12]
        %3 = variable("w") : float32[12,5]
        %4 = matmul(%2, %3) : float32[8,5]
        return y=%4
    """
    match node.op, node.inputs:
        case MatMul(transpose_x=False, transpose_y=flag), (flat, w) if w.rank == 2 and (found := flattened(flat)):
            x, order = found
            if not around.is_parameter(x) and _cheaper(w, x, around):
                sizes = [flat.inputs[0].shape[flat.rank - 1 + i] for i in range(len(order))]
                rows = _with_axis_in_order(w, int(flag), sizes, inverse(order))
                return Node(node.op, (reshape(x, flat.shape), rows))
    return None


@at(MatMul)
def dense_gradient_of_flattened(node: Node, around: Surroundings) -> Node | None:
    """reshape(transpose(x))ᵀ·g = the rows of reshape(x)ᵀ·g in the transpose's order; columns, where it stands right.

    When: x is data, all axes that the transpose moves are joined, and the product is not larger than x.

        %0 = input("x") : float32[8,2,2,3]
        %1 = transpose(%0, axes=(0, 3, 1, 2)) : float32[8,3,2,2]
        %2 = reshape(%1, shape=(8, 12)) : float32[8,12]
        %3 = input("g") : float32[8,5]
        %4 = matmul(%2, %3, transpose_x=true) : float32[12,5]
        return dw=%4
    """
    op = node.op
    assert isinstance(op, MatMul)
    for axis, outward in enumerate((op.transpose_x, not op.transpose_y)):
        flat = node.inputs[axis]
        found = flattened(flat) if outward and node.rank == 2 and not around.is_parameter(flat) else None
        if found is None:
            continue
        x, order = found
        operands = list(node.inputs)
        operands[axis] = reshape(x, flat.shape)
        product = Node(op, operands)
        if _not_larger(product, x):
            return _with_axis_in_order(product, axis, x.shape[1:], order)
    return None


@at(Transpose)
def transpose_of_dense(node: Node, around: Surroundings) -> Node | None:
    """transpose(reshape(f(x·w + b))) = reshape(f(x·w′ + b′)), where w′ has its columns in the order of the result.

    When: all axes that the transpose moves came of one; nothing else reads what is between, of which f and b are
    elementwise, b a parameter; and w is made of constants, or of variables and not larger than the result.

        %0 = input("x") : float32[8,4]
        %1 = variable("w") : float32[4,12]
        %2 = matmul(%0, %1) : float32[8,12]
        %3 = reshape(%2, shape=(8, 3, 2, 2)) : float32[8,3,2,2]
        %4 = transpose(%3, axes=(0, 2, 3, 1)) : float32[8,2,2,3]
        return y=%4
    """
    match node.op, node.inputs:
        case Transpose(axes=axes), (Node(op=Reshape(), inputs=(flat,)) as y,):
            order = _moved_behind(axes, flat.rank - 1)
            alike = all(reader.op == node.op for reader in around.other_readers(y)) and not around.ends(y)
            if order is None or flat.shape[:-1] != y.shape[: flat.rank - 1] or not alike:
                return None
            chain = _dense_chain(flat, y, around)
            if chain and _cheaper(chain[-1].inputs[1], y, around):
                return reshape(_with_columns_in_order(chain, y.shape[flat.rank - 1 :], order, around), node.shape)
    return None


def _dense_chain(y: Node, reader: Node, around: Surroundings) -> list[Node]:
    """Return elementwise ops with parameters, and the product they begin with; nothing where that is not so."""
    chain: list[Node] = []
    while len(chain) < LONGEST and not around.other_readers(y, reader) and not around.ends(y):
        y = inline(y) if isinstance(y.op, Fused) else y
        chain.append(y)
        if isinstance(y.op, MatMul):
            return chain if y.inputs[1].rank == 2 and around.is_parameter(y.inputs[1]) else []
        if not isinstance(y.op, (Elementwise, Cast)):
            return []
        data = [x for x in y.inputs if not around.is_parameter(x)]
        if len(data) != 1 or data[0].shape != y.shape:
            return []
        reader, y = y, data[0]
    return []


def _with_columns_in_order(chain: list[Node], sizes: Sequence[Size], order: Order, around: Surroundings) -> Node:
    """Return what a chain computes with its last axis, which is to be axes of these sizes, in another order."""
    *others, product = chain
    x, w = product.inputs
    flag: bool = product.op.transpose_y  # type: ignore[attr-defined]
    made = Node(product.op, (x, _with_axis_in_order(w, int(not flag), sizes, order)))
    for each in reversed(others):
        operands = [_last_in_order(i, sizes, order) if around.is_parameter(i) else made for i in each.inputs]
        made = Node(each.op, operands)
    return made


def _last_in_order(x: Node, sizes: Sequence[Size], order: Order) -> Node:
    """Return a parameter with its last axis in another order, if it varies along that axis."""
    return x if not x.shape or x.shape[-1] == 1 else _with_axis_in_order(x, x.rank - 1, sizes, order)


def flattened(flat: Node) -> tuple[Node, Order] | None:
    """Return x and the order of its last axes where a node is x, transposed by that order, with those axes joined."""
    match flat:
        case Node(op=Reshape(), inputs=(Node(op=Transpose(axes=axes), inputs=(x,)),)):
            order = _moved_behind(axes, flat.rank - 1)
            if order is not None and flat.shape[:-1] == x.shape[: flat.rank - 1] and not keeps_order(x.shape, axes):
                return x, order
    return None


def _moved_behind(axes: Order, first: int) -> Order | None:
    """Return the order of the axes from `first` on, counted from there; None where one before them moves too."""
    return tuple(a - first for a in axes[first:]) if axes[:first] == tuple(range(first)) else None


def _with_axis_in_order(matrix: Node, axis: int, sizes: Sequence[Size], order: Order) -> Node:
    """Return a matrix with one axis, which is made of axes of these sizes, in the order that transposing them gives."""
    before, after = matrix.shape[:axis], matrix.shape[axis + 1 :]
    taken_apart = reshape(matrix, (*before, *sizes, *after))
    first, last = len(before), len(before) + len(sizes)
    turned = transposed(taken_apart, (*range(first), *(first + a for a in order), *range(last, taken_apart.rank)))
    return reshape(turned, matrix.shape)


def _cheaper(w: Node, x: Node, around: Surroundings) -> bool:
    """Tell whether transposing w is less work than transposing x: constants are transposed once, when compiling."""
    return around.is_parameter(w) and (_of_constants(w) or _not_larger(w, x))


def _not_larger(x: Node, y: Node) -> bool:
    """Tell whether x has at most as many elements as y; where a size is open, nobody knows."""
    sizes = x.tensor_type.size, y.tensor_type.size
    return not any(isinstance(size, Dim) for size in sizes) and sizes[0] <= sizes[1]  # type: ignore[operator]


def _of_constants(w: Node) -> bool:
    while isinstance(w.op, (Reshape, Transpose, Cast)):
        w = w.inputs[0]
    return isinstance(w.op, Constant)
