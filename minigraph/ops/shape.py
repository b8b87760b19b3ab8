"""Ops that change the form of an array and compute nothing: reshape, transpose, broadcast, concat, split, cast."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from minigraph.errors import ShapeError
from minigraph.ir.leaves import Constant, item
from minigraph.ir.node import Node, Operand, as_node, check_same_dtype
from minigraph.ir.op import Op
from minigraph.ir.types import (
    Dim,
    Shape,
    Size,
    TensorType,
    TupleType,
    broadcast,
    check_dtype,
    check_shape,
    is_float,
    known,
    normalize_axes,
    normalize_axis,
    product,
    shape_text,
    tensor,
)


@dataclass(frozen=True)
class Reshape(Op, name="reshape"):
    """The same elements in row-major order under another shape."""

    shape: Shape = ()
    category = "shape"

    def infer(self, x: Any) -> TensorType:
        """The number of elements must stay the same."""
        type = tensor(x)
        if type.size != product(self.shape):
            raise ShapeError(
                "reshape cannot change the number of elements",
                expected=f"{type.size} elements",
                got=f"{product(self.shape)} in {shape_text(self.shape)}",
            )
        return TensorType(self.shape, type.dtype)

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = g in x's shape."""
        return (reshape(g, node.inputs[0].shape),)


@dataclass(frozen=True)
class Transpose(Op, name="transpose"):
    """Axes in another order: axis i of the result is axis `axes[i]` of x."""

    axes: tuple[int, ...] = ()
    category = "shape"

    def infer(self, x: Any) -> TensorType:
        """Permute the sizes."""
        type = tensor(x)
        if sorted(self.axes) != list(range(type.rank)):
            raise ShapeError("not an order of the axes", expected=f"each of 0 … {type.rank - 1} once", got=self.axes)
        return TensorType(tuple(type.shape[a] for a in self.axes), type.dtype)

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = g in the old order."""
        return (transpose(g, tuple(self.axes.index(i) for i in range(len(self.axes)))),)


@dataclass(frozen=True)
class BroadcastTo(Op, name="broadcast_to"):
    """x repeated along axes of size 1, and along new leading axes."""

    shape: Shape = ()
    category = "shape"

    def infer(self, x: Any) -> TensorType:
        """The shape must be one that x broadcasts to."""
        type = tensor(x)
        if broadcast(type.shape, self.shape) != self.shape:
            raise ShapeError("cannot broadcast to this shape", expected=shape_text(self.shape), got=type)
        return TensorType(self.shape, type.dtype)

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = g; autodiff sums it back to x's shape."""
        return (g,)


@dataclass(frozen=True)
class Concat(Op, name="concat"):
    """Operands one after the other along an axis."""

    axis: int = -1
    category = "shape"

    def infer(self, *inputs: Any) -> TensorType:
        """All other axes are equal."""
        if not inputs:
            raise ShapeError("concat of nothing", expected="at least one operand")
        types = [tensor(t) for t in inputs]
        axis = normalize_axis(self.axis, types[0].rank)
        rest = {(*t.shape[:axis], 0, *t.shape[axis + 1 :]) for t in types if t.rank == types[0].rank}
        if len(rest) > 1 or any(t.rank != types[0].rank for t in types):
            raise ShapeError(
                "operands of concat differ outside its axis",
                expected=f"equal shapes but for axis {axis}",
                got=", ".join(map(str, types)),
            )
        total = sum(known(t.shape[axis], "the concatenated axis") for t in types)
        shape = types[0].shape
        return TensorType((*shape[:axis], total, *shape[axis + 1 :]), check_same_dtype("operands", *types))

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂xᵢ = the i-th piece of g."""
        pieces = split(g, tuple(known(i.shape[self.axis]) for i in node.inputs), self.axis)
        return tuple(pieces)


@dataclass(frozen=True)
class Split(Op, name="split"):
    """x cut along an axis into pieces of the given sizes; the result is a tuple."""

    sizes: tuple[int, ...] = ()
    axis: int = -1
    category = "shape"

    def infer(self, x: Any) -> TupleType:
        """The pieces must make up the axis."""
        type = tensor(x)
        axis = normalize_axis(self.axis, type.rank)
        if sum(self.sizes) != type.shape[axis]:
            raise ShapeError("the pieces do not make up the axis", expected=type.shape[axis], got=self.sizes)
        shapes = ((*type.shape[:axis], s, *type.shape[axis + 1 :]) for s in self.sizes)
        return TupleType(tuple(TensorType(s, type.dtype) for s in shapes))

    def vjp(self, node: Node, g: tuple[Node | None, ...]) -> tuple[Node | None, ...]:
        """∂x = the adjoints of the pieces, joined."""
        types = node.type.items  # type: ignore[union-attr]
        pieces = [zeros(t.shape, t.dtype) if a is None else a for a, t in zip(g, types, strict=True)]
        return (concat(pieces, self.axis),)


@dataclass(frozen=True)
class Cast(Op, name="cast"):
    """The same values in another dtype; floats become integers by cutting off the fraction."""

    dtype: str = "float32"
    category = "elementwise"

    def infer(self, x: Any) -> TensorType:
        """Same shape."""
        return TensorType(tensor(x).shape, check_dtype(self.dtype))

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = g in x's dtype, where both are floats."""
        x = node.inputs[0]
        return (cast(g, x.dtype) if is_float(x.dtype) and is_float(self.dtype) else None,)


@dataclass(frozen=True)
class After(Op, name="after"):
    """x, once `then` is computed: orders what is computed from it. It moves no data; recomputation is made of it."""

    category = "shape"

    def infer(self, x: Any, then: Any) -> TensorType:
        """x's type."""
        return tensor(x)

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = g; nothing flows to what is only waited for."""
        return g, None

    def bytes(self, node: Node) -> int:
        """None: nothing is moved."""
        return 0


@dataclass(frozen=True)
class CountOf(Op, name="size"):
    """The number of elements of x along axes, as a scalar; becomes a constant when the shape is bound."""

    axes: tuple[int, ...] = ()
    dtype: str = "float32"
    category = "shape"

    def infer(self, x: Any) -> TensorType:
        """A scalar."""
        normalize_axes(self.axes, tensor(x).rank)
        return TensorType((), check_dtype(self.dtype))

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """A count does not depend on values."""
        return (None,)


# --- the functions users call -------------------------------------------------------------------------------------


def reshape(x: Operand, shape: Iterable[Any]) -> Node:
    """Return x's elements under another shape; one entry may be −1.

    >>> from minigraph.ir import variable
    >>> reshape(variable((2, 6)), (3, -1))
    <reshape : float32[3,4]>
    """
    node, entries = as_node(x), [shape] if isinstance(shape, int) else list(shape)
    if entries.count(-1) > 1:
        raise ShapeError("only one size can be left open", got=entries)
    if -1 in entries:
        at = entries.index(-1)
        rest = product(check_shape(e for i, e in enumerate(entries) if i != at))
        entries[at] = _open_size(node.tensor_type.size, rest, entries)
    sizes = check_shape(entries)
    return node if sizes == node.shape else Node(Reshape(sizes), (node,))


def _open_size(total: Size, rest: Size, entries: list[Any]) -> Size:
    """Return total / rest, the size that −1 stands for."""
    if isinstance(total, Dim):
        return total // rest
    if isinstance(rest, Dim) or rest == 0 or total % rest:
        raise ShapeError("the open size is not a whole number", expected=f"{total} elements", got=entries)
    return total // rest


def transpose(x: Operand, axes: Sequence[int] | None = None) -> Node:
    """Return x with its axes in the order `axes`; reversed by default.

    >>> from minigraph.ir import variable
    >>> transpose(variable((2, 3, 4)), (0, 2, 1))
    <transpose : float32[2,4,3]>
    """
    node = as_node(x)
    order = tuple(range(node.rank))[::-1] if axes is None else tuple(normalize_axis(a, node.rank) for a in axes)
    return Node(Transpose(order), (node,))


def broadcast_to(x: Operand, shape: Iterable[Any]) -> Node:
    """Return x repeated to `shape`.

    >>> broadcast_to(1.0, (2, 3))
    <broadcast_to : float32[2,3]>
    """
    return Node(BroadcastTo(check_shape(shape)), (as_node(x),))


def zeros(shape: Iterable[Any], dtype: str = "float32") -> Node:
    """Return zeros of a shape, which may be symbolic.

    >>> zeros((2, 3))
    <broadcast_to : float32[2,3]>
    """
    zero = Constant.of(0.0 if is_float(dtype) else 0, check_dtype(dtype))
    return broadcast_to(Node(zero), shape)


def squeeze(x: Operand, axes: int | Iterable[int] | None = None) -> Node:
    """Return x without axes of size 1: those named, or all.

    >>> from minigraph.ir import variable
    >>> squeeze(variable((2, 1, 3)), 1)
    <reshape : float32[2,3]>
    """
    node = as_node(x)
    if axes is None:
        chosen = tuple(i for i, s in enumerate(node.shape) if s == 1)
    else:
        chosen = normalize_axes(axes, node.rank)
    if any(node.shape[a] != 1 for a in chosen):
        raise ShapeError("only axes of size 1 can be squeezed", expected=f"1 at axes {chosen}", got=node.type)
    return reshape(node, (s for i, s in enumerate(node.shape) if i not in chosen))


def unsqueeze(x: Operand, axes: int | Iterable[int]) -> Node:
    """Return x with new axes of size 1; `axes` are positions in the result.

    >>> from minigraph.ir import variable
    >>> unsqueeze(variable((2, 3)), (0, -1))
    <reshape : float32[1,2,3,1]>
    """
    node = as_node(x)
    new = (axes,) if isinstance(axes, int) else tuple(axes)
    positions = normalize_axes(new, node.rank + len(new))
    sizes = iter(node.shape)
    return reshape(node, [1 if i in positions else next(sizes) for i in range(node.rank + len(new))])


def flatten(x: Operand, start: int = 1) -> Node:
    """Return x with all axes from `start` on folded into one.

    >>> from minigraph.ir import variable
    >>> flatten(variable((2, 3, 4)))
    <reshape : float32[2,12]>
    """
    node = as_node(x)
    if not 0 <= start <= node.rank:
        raise ShapeError("no such axis to flatten from", expected=f"0 … {node.rank}", got=start)
    return reshape(node, (*node.shape[:start], product(node.shape[start:])))


def concat(xs: Iterable[Node], axis: int = -1) -> Node:
    """Return arrays joined along an axis.

    >>> from minigraph.ir import variable
    >>> concat([variable((2, 3)), variable((2, 4))])
    <concat : float32[2,7]>
    """
    operands = tuple(xs)
    if not operands:
        raise ShapeError("concat of nothing", expected="at least one operand")
    like = next((x for x in operands if isinstance(x, Node)), None)
    nodes = tuple(as_node(x, like) for x in operands)
    return Node(Concat(normalize_axis(axis, nodes[0].rank)), nodes)


def split(x: Operand, sizes: int | Sequence[int], axis: int = -1) -> list[Node]:
    """Return x cut along an axis: into so many equal pieces, or into pieces of these sizes.

    >>> from minigraph.ir import variable
    >>> split(variable((2, 6)), 3)[0]
    <item : float32[2,2]>
    """
    node = as_node(x)
    axis = normalize_axis(axis, node.rank)
    if isinstance(sizes, int):
        total = known(node.shape[axis], "the split axis")
        if sizes < 1 or total % sizes:
            raise ShapeError("cannot cut into equal pieces", expected=f"a divisor of {total}", got=sizes)
        sizes = (total // sizes,) * sizes
    numbers = check_shape(sizes)
    pieces = Node(Split(tuple(known(s) for s in numbers), axis), (node,))
    return [item(pieces, i) for i in range(len(numbers))]


def cast(x: Operand, dtype: str) -> Node:
    """Return x in another dtype.

    >>> cast(1.0, "float64")
    <cast : float64[]>
    """
    node = as_node(x)
    return node if node.dtype == dtype else Node(Cast(check_dtype(dtype)), (node,))


def size(x: Operand, axes: int | Iterable[int] | None = None, dtype: str = "float32") -> Node:
    """Return the number of elements along `axes` as a scalar, known once the graph is bound.

    >>> from minigraph.ir import variable
    >>> size(variable((2, 3)), 0)
    <size : float32[]>
    """
    node = as_node(x)
    return Node(CountOf(normalize_axes(axes, node.rank), dtype), (node,))
