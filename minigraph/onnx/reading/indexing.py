"""Ops that pick elements: slice, gather, one-hot, the place of an extreme."""

from __future__ import annotations

import math

import numpy as np

from minigraph import ops
from minigraph.errors import ModelFormatError
from minigraph.ir.node import Node
from minigraph.ir.types import Dim, Shape, known, normalize_axis
from minigraph.onnx.reader import Reader
from minigraph.onnx.reading.arithmetic import affordable, number
from minigraph.onnx.reading.registry import reads

_END = 1 << 31  # an end beyond this means: to the end


@reads("Slice", whole=False)
def slice_(n: Reader) -> Node:
    """x[start:end:step] on some axes, as NumPy reads it."""
    x = n.operand(0)
    if n.version < 10:
        starts, ends, listed, steps = n.integers("starts"), n.integers("ends"), n.integers("axes"), None
        if starts is None or ends is None:
            raise ModelFormatError("starts and ends are missing")
    else:
        starts, ends = n.numbers(1, "starts"), n.sizes(2, "ends")  # type: ignore[assignment]
        listed = None if n.optional(3) is None else n.numbers(3, "axes")
        steps = None if n.optional(4) is None else n.numbers(4, "steps")
    axes = list(range(len(starts))) if listed is None else [normalize_axis(a, x.rank) for a in listed]
    steps = [1] * len(starts) if steps is None else steps
    index: list[slice] = [slice(None)] * x.rank
    for axis, start, end, step in zip(axes, starts, ends or (), steps, strict=True):
        index[axis] = _range(x, axis, start, end, step)
    return x[tuple(index)]


def _range(x: Node, axis: int, start: int, end: int | Dim, step: int) -> slice:
    """Return a slice whose ends are inside the axis; a full one of an axis whose size is open."""
    size = x.shape[axis]
    if step == 0:
        raise ModelFormatError("a step of 0")
    if isinstance(size, Dim):
        whole = start == 0 and step == 1 and (end == size or (isinstance(end, int) and end >= _END))
        if not whole:
            raise ModelFormatError(
                f"a slice of the open size {size}",
                got=(start, end, step),
                hint="bind open sizes: input_shapes={name: shape}",
            )
        return slice(None)
    # As the standard has it: counted from the end if negative, then brought to where there is an element to begin at.
    # In NumPy's slices −1 is the last element; before the first is None.
    least, most = (0, size) if step > 0 else (-1, size - 1)
    first, last = (place + (size if place < 0 else 0) for place in (start, known(end, "the end of a slice")))
    first, last = min(max(first, 0), most), min(max(last, least), most)
    return slice(first, None if last < 0 else last, step) if size else slice(0, 0)


@reads("Gather", whole=False)
def gather(n: Reader) -> Node:
    """Slices along an axis, chosen by indices; negative ones count from the end."""
    x, indices = n.operand(0), n.operand(1)
    return ops.gather(x, indices, n.integer("axis", 0))


@reads("GatherElements")
def gather_elements(n: Reader) -> Node:
    """y[i, j] = x[index[i, j], j], along axis 0 for instance: taken from the flat array by computed places."""
    x, indices = n.operand(0), n.operand(1)
    axis = normalize_axis(n.integer("axis", 0), x.rank)
    if indices.rank != x.rank:
        raise ModelFormatError("indices have the operand's rank", expected=x.rank, got=indices.type)
    shape = [known(s, "an axis") for s in x.shape]
    chosen = [known(s, "an axis of the indices") for s in indices.shape]
    strides = [int(np.prod(shape[i + 1 :])) for i in range(x.rank)]
    counted = ops.where(indices < 0, indices + shape[axis], indices)
    places = ops.cast(counted, "int64") * strides[axis]
    affordable(math.prod(chosen), "the places of the elements")
    others = np.zeros(chosen, "int64")
    for i in set(range(x.rank)) - {axis}:
        wide = [1] * x.rank
        wide[i] = chosen[i]
        others = others + np.arange(chosen[i]).reshape(wide) * strides[i]
    return ops.gather(ops.reshape(x, (-1,)), places + number(others, "int64"), 0)


@reads("GatherND")
def gather_nd(n: Reader) -> Node:
    """Slices by tuples of indices, within each batch: from the array with its leading axes flat, by computed places."""
    x, indices, batch = n.operand(0), n.operand(1), n.integer("batch_dims", 0)
    if not 0 <= batch < min(x.rank, indices.rank):
        raise ModelFormatError("bad batch_dims", expected=f"0 … {min(x.rank, indices.rank) - 1}", got=batch)
    depth = known(indices.shape[-1], "the last axis of the indices")
    shape = [known(s, "an axis") for s in x.shape[batch : batch + depth]]
    strides = np.array([int(np.prod(shape[i + 1 :])) for i in range(depth)])
    counted = ops.where(indices < 0, indices + number(shape, indices.dtype), indices)
    places = ops.sum(counted * number(strides, indices.dtype), -1)
    if batch:
        lead = [known(s, "a batch axis") for s in indices.shape[:batch]]
        affordable(math.prod(lead), "the places of batches")
        first = np.arange(int(np.prod(lead))) * int(np.prod(shape))
        places = places + number(first.reshape(*lead, *(1,) * (places.rank - batch)), indices.dtype)
    return ops.gather(ops.reshape(x, (-1, *x.shape[batch + depth :])), places, 0)


@reads("OneHot")
def one_hot(n: Reader) -> Node:
    """`on` where the new axis' position is the index, else `off`; negative indices count from the end."""
    indices, values = n.operand(0), n.operand(2)
    depth = int(n.constant(1, "the depth").ravel()[0])
    whole = indices if indices.dtype.startswith("int") else ops.cast(indices, "int64")
    counted = ops.where(whole < 0, whole + depth, whole)
    hot = ops.one_hot(ops.cast(counted, "int64"), depth, n.integer("axis", -1), "float32")
    return ops.where(hot > 0.5, values[1], values[0])


@reads("ArgMax", "ArgMin")
def arg_extreme(n: Reader) -> Node:
    """The first or last place of an extreme along an axis."""
    x = n.operand(0)
    axis = normalize_axis(n.integer("axis", 0), x.rank)
    if n.op_type == "ArgMin":
        x = -x if x.dtype.startswith(("float", "int")) else -ops.cast(x, "float64")
    last = bool(n.integer("select_last_index", 0))
    if last:
        x = x[tuple(slice(None, None, -1) if i == axis else slice(None) for i in range(x.rank))]
    place = ops.argmax(x, axis)
    if last:
        place = (known(x.shape[axis], "the axis") - 1) - place
    return ops.unsqueeze(place, axis) if n.integer("keepdims", 1) else place


@reads("TopK")
def top_k(n: Reader) -> list[Node | None]:
    """The k largest (or smallest) elements along an axis in order, and their places; the first of equal ones first.

    An element's rank is the number of those that go before it: each is compared with each.
    """
    x = n.operand(0)
    axis = normalize_axis(n.integer("axis", -1), x.rank)
    k = n.integer("k") if n.version < 10 else n.numbers(1, "k")[0]
    size = known(x.shape[axis], "the axis")
    if not 0 <= k <= size:
        raise ModelFormatError("bad k", expected=f"0 … {size}", got=k)
    affordable(math.prod(known(s, "an axis") for s in x.shape) * size, "comparisons of all elements")
    rows = _moved(x, axis, x.rank - 1)
    each, other = ops.unsqueeze(rows, -1), ops.unsqueeze(rows, -2)
    before = other > each if n.integer("largest", 1) else other < each
    earlier = number(np.tri(size, k=-1), "bool")  # [i, j]: j is before i
    first = ops.maximum(before, ops.minimum(ops.equal(other, each), earlier))
    rank = ops.sum(ops.cast(first, "int64"), -1)
    chosen = ops.equal(ops.unsqueeze(rank, -2), number(np.arange(k)[:, None], "int64"))
    places = ops.argmax(ops.cast(chosen, "uint8"), -1)
    values = ops.gather(ops.reshape(rows, (-1,)), _flat_places(places, rows.shape), 0)
    return [_moved(values, x.rank - 1, axis), _moved(ops.cast(places, "int64"), x.rank - 1, axis)]


def _moved(x: Node, start: int, end: int) -> Node:
    order = [i for i in range(x.rank) if i != start]
    order.insert(end, start)
    return ops.transpose(x, order) if start != end else x


def _flat_places(places: Node, shape: Shape) -> Node:
    """Return where elements at places of rows stand in the flat array of all rows."""
    lead = [known(s, "an axis") for s in shape[:-1]]
    first = np.arange(int(np.prod(lead))) * known(shape[-1])
    return ops.cast(places, "int64") + number(first.reshape(*lead, 1), "int64")


@reads("CumSum")
def cumulative_sum(n: Reader) -> Node:
    """Sums of all elements up to each place: a product with a triangle of ones."""
    x = n.operand(0)
    axis = normalize_axis(int(n.constant(1, "the axis").ravel()[0]), x.rank)
    total = known(x.shape[axis], "the axis")
    affordable(total**2, "a triangle of ones")
    triangle = np.tri(total, k=-1 if n.integer("exclusive", 0) else 0)
    matrix = triangle.T if n.integer("reverse", 0) else triangle
    order = [i for i in range(x.rank) if i != axis] + [axis]
    exact = ops.cast(x, "float64")
    summed = ops.matmul(ops.unsqueeze(ops.transpose(exact, order), -2), number(matrix.T, "float64"))
    return ops.cast(ops.transpose(ops.squeeze(summed, -2), [order.index(i) for i in range(x.rank)]), x.dtype)
