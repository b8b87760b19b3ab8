"""Ops that move values or make shapes."""

from __future__ import annotations

import functools

import numpy as np

from minigraph.ir.node import Node
from minigraph.ir.types import Dim, Shape, known, normalize_axis
from minigraph.onnx.writing.arithmetic import cast_to
from minigraph.onnx.writing.registry import Writer, writes
from minigraph.ops.indexing import Gather, OneHot, Pad, Slice
from minigraph.ops.shape import After, BroadcastTo, Concat, CountOf, Reshape, Split, Transpose


@writes(Reshape)
def reshape(w: Writer, node: Node) -> str:
    """Flatten where it makes rows of a batch, Squeeze or Unsqueeze where only axes of size 1 go or come, or Reshape.

    An open size is copied, or is what is left.
    """
    x = node.inputs[0]
    if node.rank == 2 and x.rank > 2 and node.shape[0] == x.shape[0]:
        return str(w.emit("Flatten", [w.name(x)], axis=1))
    if _ones_added(node.shape, x.shape) or _ones_added(x.shape, node.shape):
        return with_ones(w, w.name(x), x.shape, node.shape)
    entries = [
        0 if isinstance(s, Dim) and i < x.rank and x.shape[i] == s else -1 if isinstance(s, Dim) else s
        for i, s in enumerate(node.shape)
    ]
    if entries.count(-1) <= 1 and not (0 in node.shape and any(isinstance(s, Dim) for s in node.shape)):
        shape = w.array(entries, "int64", "shape")
        return str(w.emit("Reshape", [w.name(x), shape], **({"allowzero": 1} if 0 in node.shape else {})))
    return str(w.emit("Reshape", [w.name(x), w.shape(node.shape)]))


def _ones_added(wide: Shape, narrow: Shape) -> list[int] | None:
    """Return the axes of size 1 that `wide` has beyond `narrow`; None if that is not all the difference."""
    axes, place = [], 0
    for axis, size in enumerate(wide):
        if place < len(narrow) and narrow[place] == size:
            place += 1
        elif size == 1:
            axes.append(axis)
        else:
            return None
    return axes if place == len(narrow) else None


def with_ones(w: Writer, name: str, before: Shape, after: Shape) -> str:
    """Write an Unsqueeze or a Squeeze between shapes that differ by axes of size 1."""
    more, fewer = _ones_added(after, before), _ones_added(before, after)
    axes = w.array(more or fewer, "int64", "axes")
    return str(w.emit("Unsqueeze" if more else "Squeeze", [name, axes]))


@writes(Transpose)
def transpose(w: Writer, node: Node) -> str:
    """The axes in another order; there is none where there are no two axes."""
    if node.rank < 2:
        return w.name(node.inputs[0])
    return str(w.emit("Transpose", [w.name(node.inputs[0])], perm=list(node.op.axes)))  # type: ignore[attr-defined]


@writes(BroadcastTo)
def broadcast_to(w: Writer, node: Node) -> str:
    """Repeated along axes."""
    return str(w.emit("Expand", [w.name(node.inputs[0]), w.shape(node.shape)]))


@writes(Concat)
def concat(w: Writer, node: Node) -> str:
    """Joined along an axis."""
    if len(node.inputs) == 1:
        return w.name(node.inputs[0])
    axis = node.op.axis  # type: ignore[attr-defined]
    return str(w.emit("Concat", w.operands(node), axis=axis - (w.is_flat(node) and axis == 3)))


@writes(Split)
def split(w: Writer, node: Node) -> list[str]:
    """Pieces of given sizes."""
    op = node.op
    assert isinstance(op, Split)
    sizes = w.array(list(op.sizes), "int64", "split")
    made = w.emit("Split", [w.name(node.inputs[0]), sizes], outputs=len(op.sizes), axis=op.axis)
    return [made] if isinstance(made, str) else list(made)


@writes(After)
def after(w: Writer, node: Node) -> str:
    """The value itself: the order is minigraph's own affair."""
    return w.name(node.inputs[0])


@writes(CountOf)
def size(w: Writer, node: Node) -> str:
    """The product of sizes, which are those of the shape."""
    op, x = node.op, node.inputs[0]
    assert isinstance(op, CountOf)
    if op.axes == tuple(range(x.rank)):
        total = w.emit("Size", [w.name(x)])
    else:
        vectors = [w.emit("Shape", [w.name(x)], start=axis, end=axis + 1) for axis in op.axes]
        sizes = [w.emit("Squeeze", [vector, w.array([0], "int64", "axes")]) for vector in vectors]
        total = functools.reduce(lambda product, size: str(w.emit("Mul", [product, size])), sizes)
    return str(total) if op.dtype == "int64" else cast_to(w, total, op.dtype)


@writes(Pad)
def pad(w: Writer, node: Node) -> str:
    """A constant around."""
    op = node.op
    assert isinstance(op, Pad)
    if not any(map(any, op.padding)):
        return w.name(node.inputs[0])
    pads = w.array([p[0] for p in op.padding] + [p[1] for p in op.padding], "int64", "pads")
    return str(w.emit("Pad", [w.name(node.inputs[0]), pads, w.array(op.value, node.dtype, "value")]))


@writes(Slice)
def slice_(w: Writer, node: Node) -> str:
    """Only the axes that are cut are named."""
    op, x = node.op, node.inputs[0]
    assert isinstance(op, Slice)
    cut = [
        (axis, start, known, step)
        for axis, (start, known, step) in enumerate(zip(op.starts, op.sizes, op.steps, strict=True))
        if not (start == 0 and step == 1 and known == x.shape[axis])
    ]
    ends = []
    for _, start, count, step in cut:
        end = start + int(count) * step  # type: ignore[arg-type]  # a cut axis has a size
        ends.append(end if step > 0 or end >= 0 else -(1 << 62))
    columns = ([c[1] for c in cut], ends, [c[0] for c in cut], [c[3] for c in cut])
    names = [
        w.array(values, "int64", what)
        for values, what in zip(columns, ("starts", "ends", "axes", "steps"), strict=True)
    ]
    return str(w.emit("Slice", [w.name(x), *names]))


@writes(Gather)
def gather(w: Writer, node: Node) -> str:
    """Slices along an axis; ONNX wants 32 or 64 bits, and knows of no index out of range."""
    op, (x, indices) = node.op, node.inputs
    assert isinstance(op, Gather)
    axis = normalize_axis(op.axis, x.rank)
    if op.mode == "clip":
        places = _clipped(w, indices, known(x.shape[axis], "the axis of a clipped gather") - 1)
    else:
        places = w.name(indices) if indices.dtype in ("int32", "int64") else cast_to(w, w.name(indices), "int64")
    return str(w.emit("Gather", [w.name(x), places], axis=axis))


def _clipped(w: Writer, indices: Node, last: int) -> str:
    """Return the name of indices between 0 and the last, as int64; ONNX' Min and Max do not take all integers."""
    name = w.name(indices)
    if indices.dtype == "uint64":  # may be too large for an int64
        return cast_to(w, w.emit("Min", [name, w.array(last, "uint64", "last")]), "int64")
    wide = name if indices.dtype == "int64" else cast_to(w, name, "int64")
    below = w.emit("Min", [wide, w.array(last, "int64", "last")])
    return str(w.emit("Max", [below, w.array(0, "int64", "first")]))


@writes(OneHot)
def one_hot(w: Writer, node: Node) -> str:
    """Equal to the position: ONNX' OneHot counts negative labels from the end, ours has none of them."""
    op, labels = node.op, node.inputs[0]
    assert isinstance(op, OneHot)
    axis = normalize_axis(op.axis, node.rank)
    whole = w.name(labels) if labels.dtype == "int64" else cast_to(w, w.name(labels), "int64")
    wide = with_ones(w, whole, labels.shape, (*labels.shape[:axis], 1, *labels.shape[axis:]))
    positions = np.arange(op.classes).reshape([-1 if i == axis else 1 for i in range(node.rank)])
    return cast_to(w, w.emit("Equal", [wide, w.array(positions, "int64", "classes")]), op.dtype)
