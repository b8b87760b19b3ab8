"""Kernels of ops that move elements."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import numpy as np

from minigraph.backends.numpy.call import Array, Call, Kernel
from minigraph.backends.numpy.registry import kernel, view
from minigraph.errors import DataError
from minigraph.ir.leaves import Item
from minigraph.ops import indexing, shape
from minigraph.ops.random import RandomUniform

view(shape.Reshape)
view(shape.After)
view(Item)


@kernel(shape.Transpose, any_dtype=True)
def _transpose(call: Call) -> Kernel:
    return partial(np.copyto, call.output, call.inputs[0].transpose(call.op.axes))


@kernel(shape.BroadcastTo, any_dtype=True)
def _broadcast_to(call: Call) -> Kernel:
    return partial(np.copyto, call.output, call.inputs[0])


@kernel(indexing.Pad, any_dtype=True)
def _pad(call: Call) -> Kernel:
    x, out, value = call.inputs[0], call.output, call.op.value
    places = (slice(before, before + s) for (before, _), s in zip(call.op.padding, x.shape, strict=True))
    inside = out[(..., *places)]  # the dots keep a scalar an array

    def run() -> None:
        out.fill(value)
        inside[...] = x

    return run


def _taken(starts: tuple[int, ...], sizes: tuple[int, ...], steps: tuple[int, ...]) -> tuple[Any, ...]:
    """Return the index that picks `size` elements from `start`, `step` apart; backwards past the front is None."""
    slices: list[Any] = [...]  # the dots keep a scalar an array
    for start, size, step in zip(starts, sizes, steps, strict=True):
        stop = start + size * step
        slices.append(slice(start, stop if stop >= 0 else None, step) if size else slice(0, 0))
    return tuple(slices)


@kernel(indexing.Slice, any_dtype=True)
def _slice(call: Call) -> Kernel:
    return partial(np.copyto, call.output, call.inputs[0][_taken(call.op.starts, call.output.shape, call.op.steps)])


@kernel(indexing.SliceAdjoint, any_dtype=True)
def _slice_adjoint(call: Call) -> Kernel:
    x, out = call.inputs[0], call.output
    places = out[_taken(call.op.starts, x.shape, call.op.steps)]

    def run() -> None:
        out.fill(0)
        places[...] = x

    return run


@kernel(shape.Concat, any_dtype=True)
def _concat(call: Call) -> Kernel:
    axis, out = call.op.axis % call.output.ndim, call.output
    ends = list(itertools.accumulate((x.shape[axis] for x in call.inputs), initial=0))
    places = [out[(slice(None),) * axis + (slice(*ends[i : i + 2]),)] for i in range(len(call.inputs))]
    pairs = list(zip(places, call.inputs, strict=True))

    def run() -> None:
        for place, x in pairs:
            place[...] = x

    return run


@kernel(shape.Split, any_dtype=True)
def _split(call: Call) -> Kernel:
    x, axis = call.inputs[0], call.op.axis % call.inputs[0].ndim
    ends = list(itertools.accumulate(call.op.sizes, initial=0))
    pieces = [x[(slice(None),) * axis + (slice(*ends[i : i + 2]),)] for i in range(len(call.op.sizes))]
    pairs = list(zip(call.output, pieces, strict=True))

    def run() -> None:
        for place, piece in pairs:
            place[...] = piece

    return run


def _check_indices(what: str, indices: Array, size: int) -> None:
    if indices.size and (indices.min() < -size or indices.max() >= size):
        got = f"{indices.min()} … {indices.max()}"
        raise DataError(f"{what}: an index is out of range", expected=f"-{size} … {size - 1}", got=got, where="")


@kernel(indexing.Gather, any_dtype=True)
def _gather(call: Call) -> Kernel:
    x, indices = call.inputs
    axis, size = call.op.axis % x.ndim, x.shape[call.op.axis]
    if call.op.mode == "clip" and indices.dtype != np.uint64:
        return partial(np.take, x, indices, axis=axis, out=call.output, mode="clip")
    if call.op.mode == "clip":  # NumPy takes what is above 2⁶³ for negative
        return lambda: np.take(x, np.minimum(indices, np.uint64(size - 1)), axis=axis, out=call.output, mode="clip")

    def run() -> None:
        _check_indices("gather", indices, size)
        np.take(x, indices, axis=axis, out=call.output, mode="wrap")

    return run


@kernel(indexing.GatherAdjoint)
def _gather_adjoint(call: Call) -> Kernel:
    (x, indices), out = call.inputs, call.output
    axis = call.op.axis % out.ndim
    places = np.moveaxis(out, axis, 0)
    # The gathered axes to the front, so that indices and x line up.
    values = np.moveaxis(x, tuple(range(axis, axis + indices.ndim)), tuple(range(indices.ndim)))

    size, clips = out.shape[axis], call.op.mode == "clip"

    def run() -> None:
        if not clips:
            _check_indices("gather_adjoint", indices, size)
        out.fill(0)
        np.add.at(places, np.clip(indices, 0, size - 1) if clips else indices, values)

    return run


@kernel(indexing.OneHot, any_dtype=True)
def _one_hot(call: Call) -> Kernel:
    labels, out = call.inputs[0], call.output
    axis = call.op.axis % out.ndim
    wide = np.expand_dims(labels, axis)
    classes = np.arange(out.shape[axis]).reshape([-1 if i == axis else 1 for i in range(out.ndim)])
    return lambda: np.equal(wide, classes, out=out, casting="unsafe")


@kernel(shape.CountOf, any_dtype=True)
def _size(call: Call) -> Kernel:
    count = 1
    for axis in call.op.axes:
        count *= call.inputs[0].shape[axis]
    return lambda: call.output.fill(count)


@kernel(RandomUniform, any_dtype=True)
def _random_uniform(call: Call) -> Kernel:
    counter, out, op = call.inputs[0], call.output, call.op
    key = np.array(op.key, np.uint64)
    bits = np.random.Philox(key=key)
    generator = np.random.Generator(bits)
    state = bits.state
    words = np.zeros(4, np.uint64)

    def run() -> None:
        words[3] = np.uint64(int(counter) % 2**64)
        state["state"] = {"counter": words, "key": key}
        state["buffer_pos"], state["has_uint32"] = 4, 0
        bits.state = state
        generator.random(out=out, dtype=out.dtype)

    return run
