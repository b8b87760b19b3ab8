"""Ops that pick elements, or lay them into zeros: pad, slice, gather, one-hot, and the adjoints."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from minigraph.errors import ArgumentError, DTypeError, MinigraphError, ShapeError
from minigraph.ir.node import Node, Operand, as_node
from minigraph.ir.op import Op
from minigraph.ir.types import Dim, Shape, Size, TensorType, check_dtype, known, normalize_axis, shifted, tensor
from minigraph.ops.shape import reshape

Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Pad(Op, name="pad"):
    """x with `padding[axis] = (before, after)` elements of a constant around it."""

    padding: Pairs = ()
    value: float = 0.0
    category = "shape"

    def __post_init__(self) -> None:
        # Attributes are compared by value: −0 counts as 0, and there is one NaN.
        object.__setattr__(self, "value", math.nan if self.value != self.value else self.value + 0.0)

    def infer(self, x: Any) -> TensorType:
        """Each axis grows by before + after."""
        type = tensor(x)
        if len(self.padding) != type.rank or any(p < 0 for pair in self.padding for p in pair):
            raise ShapeError("bad padding", expected=f"{type.rank} pairs of numbers ≥ 0", got=self.padding)
        sizes = tuple(
            shifted(s, before + after, 1) for s, (before, after) in zip(type.shape, self.padding, strict=True)
        )
        return TensorType(sizes, type.dtype)

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = the inside of g."""
        shape = node.inputs[0].shape
        return (Node(Slice(tuple(before for before, _ in self.padding), shape, (1,) * len(shape)), (g,)),)


@dataclass(frozen=True)
class Slice(Op, name="slice"):
    """On each axis, `sizes[i]` elements from `starts[i]` on, `steps[i]` apart (negative: backwards)."""

    starts: tuple[int, ...] = ()
    sizes: Shape = ()
    steps: tuple[int, ...] = ()
    category = "shape"

    def infer(self, x: Any) -> TensorType:
        """The first and the last element taken must exist."""
        type = tensor(x)
        if not len(self.starts) == len(self.sizes) == len(self.steps) == type.rank:
            raise ShapeError("a slice needs a start, a size and a step for each axis", expected=type.rank, got=self)
        for axis, (start, size, step) in enumerate(zip(self.starts, self.sizes, self.steps, strict=True)):
            if isinstance(size, Dim):
                inside = (start, size, step) == (0, type.shape[axis], 1)
            else:
                limit = type.shape[axis]
                ends = (start, start + (size - 1) * step) if size else ()
                inside = step != 0 and (not ends or (isinstance(limit, int) and all(0 <= e < limit for e in ends)))
            if not inside:
                raise ShapeError(
                    "a slice leaves the array", expected=f"inside axis {axis} of {type}", got=(start, size, step)
                )
        return TensorType(self.sizes, type.dtype)

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = zeros with g at the places taken."""
        return (Node(SliceAdjoint(node.inputs[0].shape, self.starts, self.steps), (g,)),)

    @classmethod
    def from_index(cls, x: Node, index: Any) -> Node:
        """Return x[index] for integers, slices, None and one Ellipsis, as NumPy reads them."""
        entries = list(index) if isinstance(index, tuple) else [index]
        taken = sum(e is not None and e is not Ellipsis for e in entries)
        if taken > x.rank or sum(e is Ellipsis for e in entries) > 1:
            raise ShapeError("too many indices", expected=f"at most {x.rank}", got=index)
        at = next((i for i, e in enumerate(entries) if e is Ellipsis), len(entries))
        entries[at : at + 1] = [slice(None)] * (x.rank - taken)
        starts: list[int] = []
        sizes: list[Size] = []
        steps: list[int] = []
        final: list[Size] = []
        axes = iter(x.shape)
        for entry in entries:
            if entry is None:
                final.append(1)
                continue
            start, size, step, keep = _one_axis(entry, next(axes))
            starts.append(start)
            sizes.append(size)
            steps.append(step)
            final += [size] if keep else []
        return reshape(Node(cls(tuple(starts), tuple(sizes), tuple(steps)), (x,)), tuple(final))


def _one_axis(entry: Any, size: Size) -> tuple[int, Size, int, bool]:
    """Return (start, size, step, whether the axis stays) for one index entry."""
    try:
        if isinstance(entry, slice):
            if entry == slice(None):
                return 0, size, 1, True
            chosen = range(*entry.indices(known(size, "a sliced axis")))
            return (chosen.start if len(chosen) else 0), len(chosen), chosen.step, True
        if isinstance(entry, bool):
            raise TypeError
        position = operator.index(entry)
    except (TypeError, ValueError) as error:
        if isinstance(error, MinigraphError):
            raise
        raise ArgumentError(
            "this index is not supported",
            expected="integers, slices, None, ...",
            got=repr(entry),
            hint="gather(x, indices, axis) takes elements by an array of indices",
        ) from None
    limit = known(size, "an indexed axis")
    if not -limit <= position < limit:
        raise ShapeError("index out of range", expected=f"-{limit} ≤ index < {limit}", got=position)
    return position % limit, 1, 1, False


@dataclass(frozen=True)
class SliceAdjoint(Op, name="slice_adjoint"):
    """Zeros of a shape with x laid into them at starts, steps apart: the adjoint of `slice`."""

    shape: Shape = ()
    starts: tuple[int, ...] = ()
    steps: tuple[int, ...] = ()
    category = "shape"

    def infer(self, x: Any) -> TensorType:
        """The shape is given; x must fit into it."""
        type = tensor(x)
        Slice(self.starts, type.shape, self.steps).infer(TensorType(self.shape, type.dtype))
        return TensorType(self.shape, type.dtype)

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = the slice of g."""
        return (Node(Slice(self.starts, node.inputs[0].shape, self.steps), (g,)),)


def _check_mode(mode: str) -> None:
    if mode not in ("raise", "clip"):
        raise ArgumentError("bad mode", expected='"raise" or "clip"', got=repr(mode))


@dataclass(frozen=True)
class Gather(Op, name="gather"):
    """Slices of x along an axis, chosen by an integer array.

    mode: "raise" counts negative indices from the end, and an index out of range is an error; "clip" takes the nearest
    slice that there is, for a negative index the first one, and so never fails.
    """

    axis: int = 0
    mode: str = "raise"
    category = "shape"

    def __post_init__(self) -> None:
        _check_mode(self.mode)

    def infer(self, x: Any, indices: Any) -> TensorType:
        """The axis is replaced by the axes of the indices."""
        type, index = tensor(x), tensor(indices)
        if not index.dtype.startswith(("int", "uint")):
            raise DTypeError("indices must be integers", expected="int64", got=index)
        axis = normalize_axis(self.axis, type.rank)
        if self.mode == "clip" and type.shape[axis] == 0 and 0 not in index.shape:
            raise ShapeError("an empty axis has no nearest element", expected="a size > 0", got=type)
        return TensorType(type.shape[:axis] + index.shape + type.shape[axis + 1 :], type.dtype)

    def bytes(self, node: Node) -> int:
        """The slices that are taken, read and written, and the indices: not all of x."""
        return 2 * known(node.type.nbytes) + known(node.inputs[1].type.nbytes)

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = zeros with g added at the places taken (twice where an index repeats)."""
        x, indices = node.inputs
        return Node(GatherAdjoint(x.shape, self.axis, self.mode), (g, indices)), None


@dataclass(frozen=True)
class GatherAdjoint(Op, name="gather_adjoint"):
    """Zeros of a shape with slices of x added along an axis at the indices: the adjoint of `gather`."""

    shape: Shape = ()
    axis: int = 0
    mode: str = "raise"
    category = "shape"

    def __post_init__(self) -> None:
        _check_mode(self.mode)

    def infer(self, x: Any, indices: Any) -> TensorType:
        """The shape is given; x must be what gathering from it gives."""
        type = TensorType(self.shape, tensor(x).dtype)
        gathered = Gather(self.axis, self.mode).infer(type, indices)
        if gathered != x:
            raise ShapeError("the adjoint does not fit the indices", expected=gathered, got=x)
        return type

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = g gathered."""
        return Node(Gather(self.axis, self.mode), (g, node.inputs[1])), None


@dataclass(frozen=True)
class OneHot(Op, name="one_hot"):
    """1 where the new axis' position equals the integer, else 0; all 0 for an integer outside 0 … classes − 1."""

    classes: int = 0
    axis: int = -1
    dtype: str = "float32"
    category = "shape"

    def infer(self, x: Any) -> TensorType:
        """A new axis of size `classes`."""
        type = tensor(x)
        if not type.dtype.startswith(("int", "uint")):
            raise DTypeError("one_hot needs integers", expected="int64", got=type)
        axis = normalize_axis(self.axis, type.rank + 1)
        return TensorType((*type.shape[:axis], self.classes, *type.shape[axis:]), self.dtype)

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """An integer has no gradient."""
        return (None,)


# --- the functions users call -------------------------------------------------------------------------------------


def pad(x: Operand, padding: Iterable[Iterable[int]], value: float = 0.0) -> Node:
    """Return x with constants around it: one pair (before, after) for each axis.

    >>> from minigraph.ir import variable
    >>> pad(variable((2, 3)), ((0, 0), (1, 2)))
    <pad : float32[2,6]>
    """
    try:
        pairs = tuple((int(before), int(after)) for before, after in padding)
    except (TypeError, ValueError):
        raise ArgumentError("bad padding", expected="a pair (before, after) for each axis", got=repr(padding)) from None
    return Node(Pad(pairs, float(value)), (as_node(x),))


def slice_(x: Operand, starts: Sequence[int], stops: Sequence[int], steps: Sequence[int] | None = None) -> Node:
    """Return x[start:stop:step] on each axis, as NumPy reads it; `node[...]` is the same in brackets.

    >>> from minigraph.ir import variable
    >>> slice_(variable((4, 6)), (0, 1), (4, 6), (1, 2))
    <slice : float32[4,3]>
    """
    try:
        limits = list(zip(starts, stops, steps or (1,) * len(starts), strict=True))
    except (TypeError, ValueError):
        raise ArgumentError(
            "starts, stops and steps do not match", expected="one of each an axis", got=(starts, stops, steps)
        ) from None
    return as_node(x)[tuple(slice(*each) for each in limits)]


def gather(x: Operand, indices: Operand, axis: int = 0, mode: str = "raise") -> Node:
    """Return slices of x along `axis` at integer `indices`.

    mode: "raise" counts negative indices from the end and refuses those out of range when it runs; "clip" takes the
    nearest slice that there is, for a negative index the first.

    >>> from minigraph.ir import variable
    >>> gather(variable((10, 4)), variable((3,), dtype="int64"))
    <gather : float32[3,4]>
    """
    node = as_node(x)
    return Node(Gather(normalize_axis(axis, node.rank), mode), (node, as_node(indices)))


def one_hot(labels: Operand, classes: int, axis: int = -1, dtype: str = "float32") -> Node:
    """Return a new axis with 1 at the label and 0 elsewhere; labels out of range give zeros.

    >>> from minigraph.ir import variable
    >>> one_hot(variable((3,), dtype="int64"), 10)
    <one_hot : float32[3,10]>
    """
    node = as_node(labels)
    return Node(OneHot(int(classes), normalize_axis(axis, node.rank + 1), check_dtype(dtype)), (node,))
