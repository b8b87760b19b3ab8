"""Ops that move values or make shapes: reshape, transpose, concat, split, expand, pad, constants."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigraph import ops
from minigraph.errors import ModelFormatError
from minigraph.ir.node import Node
from minigraph.ir.types import Dim, Size, broadcast, known, normalize_axes, normalize_axis, product
from minigraph.onnx.reader import Reader
from minigraph.onnx.reading.arithmetic import affordable, number
from minigraph.onnx.reading.registry import reads
from minigraph.onnx.tensors import dtype_of
from minigraph.ops.shape import Reshape


@reads("Constant", whole=False)
def constant(n: Reader) -> Node:
    """A value that stands in the file: a tensor, a number, or a list of numbers."""
    for name in ("value_int", "value_float"):
        if name in n.attributes:
            value: Any = n.integer(name) if name == "value_int" else n.real(name)
            return number(value, "int64" if name == "value_int" else "float32")
    for name, dtype in (("value_ints", "int64"), ("value_floats", "float32")):
        if name in n.attributes:
            return number(n.integers(name) if dtype == "int64" else n.reals(name), dtype)
    value = n.tensor("value")
    if value is None:
        raise ModelFormatError("no value that can be read", expected="a tensor or numbers", got=list(n.attributes))
    return ops.constant(value)


@reads("ConstantOfShape", whole=False)
def constant_of_shape(n: Reader) -> Node:
    """One number everywhere: broadcast, so that nothing large is stored."""
    value = n.tensor("value")
    fill = number(0.0, "float32") if value is None else ops.constant(value)
    if fill.tensor_type.size != 1:
        raise ModelFormatError("the value must have one element", got=fill.type)
    return ops.broadcast_to(ops.reshape(fill, ()), n.sizes(0, "a shape"))


@reads("Shape", whole=False)
def shape(n: Reader) -> Node:
    """The sizes of the axes from `start` to `end`."""
    x = n.operand(0)
    first, last = n.integer("start", 0), n.integer("end", x.rank)
    axes = range(x.rank)[slice(first, last)]
    if all(isinstance(x.shape[a], int) for a in axes):
        return number([x.shape[a] for a in axes], "int64")
    sizes = [ops.reshape(ops.size(x, a, "int64"), (1,)) for a in axes]
    return sizes[0] if len(sizes) == 1 else ops.concat(sizes, 0)


@reads("Size", whole=False)
def size(n: Reader) -> Node:
    """The number of elements."""
    x = n.operand(0)
    total = x.tensor_type.size
    return number(total, "int64") if isinstance(total, int) else ops.size(x, dtype="int64")


@reads("Reshape", whole=False)
def reshape(n: Reader) -> Node:
    """The same elements in another shape: −1 is what is left, 0 the operand's own size."""
    x = n.operand(0)
    entries: list[Any] = list(n.integers("shape") or ()) if n.version < 5 else n.sizes(1, "a shape")
    if not n.integer("allowzero", 0):
        if any(e == 0 and i >= x.rank for i, e in enumerate(entries)):
            raise ModelFormatError("a shape's 0 has no axis to copy", got=f"{entries} of {x.type}")
        entries = [x.shape[i] if e == 0 else e for i, e in enumerate(entries)]
    return ops.reshape(x, entries)


@reads("Flatten", whole=False)
def flatten(n: Reader) -> Node:
    """A matrix: the axes before `axis`, and those from it on."""
    x = n.operand(0)
    axis = n.integer("axis", 1)
    if not -x.rank <= axis <= x.rank:
        raise ModelFormatError("axis out of range", expected=f"-{x.rank} … {x.rank}", got=axis)
    axis += x.rank if axis < 0 else 0
    return ops.reshape(x, (product(x.shape[:axis]), product(x.shape[axis:])))


@reads("Squeeze", whole=False)
def squeeze(n: Reader) -> Node:
    """Without axes of size 1; what a size was before it became a vector, it is again."""
    x = n.operand(0)
    y = ops.squeeze(x, n.axes())
    return x.inputs[0] if isinstance(x.op, Reshape) and x.inputs[0].shape == y.shape else y


@reads("Unsqueeze", whole=False)
def unsqueeze(n: Reader) -> Node:
    """With new axes of size 1."""
    axes = n.axes()
    if axes is None:
        raise ModelFormatError("no axes are given")
    return ops.unsqueeze(n.operand(0), axes)


@reads("Transpose", whole=False)
def transpose(n: Reader) -> Node:
    """The axes in another order; reversed if none is given."""
    return ops.transpose(n.operand(0), n.integers("perm"))


@reads("Concat", whole=False)
def concat(n: Reader) -> Node:
    """Arrays joined along an axis."""
    operands = n.operands()
    return operands[0] if len(operands) == 1 else ops.concat(operands, n.integer("axis", 1 if n.version < 4 else None))


@reads("Split", whole=False)
def split(n: Reader) -> list[Node]:
    """Pieces along an axis: of given sizes, or as equal as they can be."""
    x = n.operand(0)
    axis = normalize_axis(n.integer("axis", 0), x.rank)
    sizes = n.axes(1, "split")
    if sizes is None:
        pieces = n.integer("num_outputs", len(n.proto.output))
        total = known(x.shape[axis], "the split axis")
        if pieces < 1 or pieces != len(n.proto.output):
            raise ModelFormatError("the number of pieces does not fit", expected=len(n.proto.output), got=pieces)
        each = -(-total // pieces)
        sizes = [each] * (pieces - 1) + [total - each * (pieces - 1)]
    if len(sizes) != len(n.proto.output) or any(s < 0 for s in sizes):
        raise ModelFormatError("the sizes of the pieces do not fit", expected=f"{len(n.proto.output)} sizes", got=sizes)
    return ops.split(x, sizes, axis)


@reads("Expand", whole=False)
def expand(n: Reader) -> Node:
    """Broadcast both ways: the operand may be wider than the shape."""
    x = n.operand(0)
    return ops.broadcast_to(x, broadcast(x.shape, tuple(n.sizes(1, "a shape"))))


@reads("Tile")
def tile(n: Reader) -> Node:
    """The operand repeated along each axis."""
    x = n.operand(0)
    repeats = n.numbers(1, "repeats")
    if len(repeats) != x.rank or any(r < 0 for r in repeats):
        raise ModelFormatError("one repeat for each axis", expected=x.rank, got=repeats)
    spread = [s for size, times in zip(x.shape, repeats, strict=True) for s in (times, size)]
    wide = [s for size in x.shape for s in (1, size)]
    total = [size * times for size, times in zip(x.shape, repeats, strict=True)]
    return ops.reshape(ops.broadcast_to(ops.reshape(x, wide), spread), total)


@reads("Pad")
def pad(n: Reader) -> Node:
    """Elements around: one number, the edge's, mirrored ones, or those of the other end; negative pads cut off."""
    x = n.operand(0)
    pads = n.integers("pads") or n.integers("paddings") if n.version < 11 else n.numbers(1, "pads")
    listed = n.axes(3) if n.version >= 18 else None
    axes = list(range(x.rank)) if listed is None else [normalize_axis(a, x.rank) for a in listed]
    if pads is None or len(pads) != 2 * len(axes):
        raise ModelFormatError("two pads for each axis", expected=2 * len(axes), got=pads)
    mode = n.text("mode", "constant")
    pairs = {axis: (pads[i], pads[len(axes) + i]) for i, axis in enumerate(axes)}
    if mode == "constant":
        return _padded(x, pairs, _pad_value(n))
    for axis, pair in pairs.items():
        if pair != (0, 0):
            total = known(x.shape[axis], "a padded axis")
            x = ops.gather(x, number(_places(mode, total, pair), "int64"), axis)
    return x


def _pad_value(n: Reader) -> float:
    if n.version < 11:
        return n.real("value", 0.0)
    return 0.0 if n.optional(2) is None else float(n.constant(2, "the padding's value").ravel()[0])


def _padded(x: Node, pairs: dict[int, tuple[int, int]], value: float) -> Node:
    around = [pairs.get(axis, (0, 0)) for axis in range(x.rank)]
    inside = tuple(
        slice(None) if min(pair) >= 0 else slice(max(0, -pair[0]), known(x.shape[axis]) - max(0, -pair[1]))
        for axis, pair in enumerate(around)
    )
    cut = x[inside] if any(min(pair) < 0 for pair in around) else x
    grown = [(max(0, before), max(0, after)) for before, after in around]
    return ops.pad(cut, grown, value) if any(map(any, grown)) else cut


def _places(mode: str, total: int, pair: tuple[int, int]) -> Any:
    """Return which element stands at each place of a padded axis."""
    affordable(total + sum(pair), "a padded axis")
    places = np.arange(-pair[0], total + pair[1])
    if mode == "edge":
        return places.clip(0, total - 1)
    if mode == "wrap":
        return places % total
    if mode == "reflect":
        period = max(1, 2 * (total - 1))
        return (total - 1) - np.abs((places % period) - (total - 1))
    raise ModelFormatError("no such padding", expected="constant, reflect, edge, wrap", got=mode)


@reads("DepthToSpace")
def depth_to_space(n: Reader) -> Node:
    """Channels become b×b blocks of pixels: depth first (DCR), or columns and rows after the channels (CRD)."""
    x, b = n.operand(0), n.integer("blocksize")
    batch, channels, height, width = _image(x)
    if b < 1 or channels % (b * b):
        raise ModelFormatError("the block does not divide the channels", expected=f"a multiple of {b}²", got=channels)
    rest = channels // (b * b)
    if n.text("mode", "DCR") == "DCR":
        order, wide = (0, 3, 4, 1, 5, 2), (batch, b, b, rest, height, width)
    else:
        order, wide = (0, 1, 4, 2, 5, 3), (batch, rest, b, b, height, width)
    return ops.reshape(ops.transpose(ops.reshape(x, wide), order), (batch, rest, height * b, width * b))


@reads("SpaceToDepth")
def space_to_depth(n: Reader) -> Node:
    """Blocks of b×b pixels become channels."""
    x, b = n.operand(0), n.integer("blocksize")
    batch, channels, height, width = _image(x)
    high, broad = height // b, width // b
    apart = ops.reshape(x, (batch, channels, high, b, broad, b))
    order = (0, 3, 5, 1, 2, 4) if n.text("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    return ops.reshape(ops.transpose(apart, order), (batch, channels * b * b, high, broad))


def _image(x: Node) -> tuple[Size, int, Size, Size]:
    if x.rank != 4:
        raise ModelFormatError("an image batch has 4 axes", got=x.type)
    return x.shape[0], known(x.shape[1], "the channels"), x.shape[2], x.shape[3]


@reads("Range", whole=False)
def range_(n: Reader) -> Node:
    """Numbers from start to limit, exclusive, delta apart."""
    start, limit, delta = (n.constant(i, what).ravel()[0] for i, what in enumerate(("start", "limit", "delta")))
    if any(isinstance(v, Dim) for v in (start, limit, delta)):
        raise ModelFormatError("a range over open sizes", got=limit, hint="bind open sizes: input_shapes={name: shape}")
    if delta == 0:
        raise ModelFormatError("a range needs a step", got=f"{start} … {limit} by {delta}")
    affordable(abs((float(limit) - float(start)) / float(delta)), "a range")
    return number(np.arange(start, limit, delta), str(n.operand(0).dtype))


@reads("EyeLike", whole=False)
def eye_like(n: Reader) -> Node:
    """Ones on a diagonal."""
    x = n.operand(0)
    rows, columns = (known(s, "a matrix' size") for s in x.shape)
    affordable(rows * columns, "a matrix")
    dtype = dtype_of(n.integer("dtype"), "attribute 'dtype'") if "dtype" in n.attributes else x.dtype
    return number(np.eye(rows, columns, n.integer("k", 0)), dtype)


@reads("Trilu")
def trilu(n: Reader) -> Node:
    """The upper or lower triangle; zeros elsewhere."""
    x = n.operand(0)
    k = 0 if n.optional(1) is None else n.numbers(1, "k")[0]
    rows, columns = (known(s, "a matrix' size") for s in x.shape[-2:])
    affordable(rows * columns, "a triangle")
    rank = np.arange(columns)[None, :] - np.arange(rows)[:, None]
    mask = rank >= k if n.integer("upper", 1) else rank <= k
    return ops.where(ops.constant(mask), x, ops.zeros((), x.dtype))


def axes_of(n: Reader, x: Node, place: int = 1) -> tuple[int, ...]:
    """Return the axes that are given, or all."""
    return normalize_axes(n.axes(place), x.rank)
