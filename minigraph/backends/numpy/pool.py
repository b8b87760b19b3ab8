"""Kernels of pooling: one ufunc for each tap of the window, over all windows at once. N,H,W,C only."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from minigraph.backends.numpy import threads
from minigraph.backends.numpy.call import Array, Call, Kernel, Scratch, Steps, align, shape_of
from minigraph.backends.numpy.elementwise import as_bits, mask_bits
from minigraph.backends.numpy.registry import kernel
from minigraph.backends.numpy.window import Tap, pixels, taps
from minigraph.ir.node import Node
from minigraph.ir.types import DTYPES
from minigraph.ops import pool

# Images that are pooled together: with what lies between they should stay in the level-2 cache.
PIECE_BYTES = 1 << 19


def _spatial(array: Array) -> tuple[int, int]:
    return array.shape[1], array.shape[2]


def _max_into(x: Array, places: list[Tap], out: Array) -> Kernel:
    lowest = -np.inf if np.issubdtype(out.dtype, np.floating) else np.iinfo(out.dtype).min
    calls: list[Kernel] = [partial(out.fill, lowest)]
    for p in places:
        target = pixels(out, p.outside)
        calls.append(partial(np.maximum, target, pixels(x, p.inside), out=target))
    return Steps(calls)


def _shares(x: Array) -> list[list[tuple[int, int]]]:
    """Return, for each worker, the ranges of images that it works on one after the other."""
    number = threads.available() if x.nbytes >= threads.PARALLEL_BYTES else 1
    step = max(1, PIECE_BYTES // max(1, x[:1].nbytes))
    return [
        [(i, min(i + step, last)) for i in range(first, last, step)] for first, last in threads.ranges(len(x), number)
    ]


def _halves(op: Any, x: Array) -> bool:
    """Tell whether the windows are 2×2 and cover the image, each element once: the case that has kernels of its own."""
    plain = (
        op.size == op.strides == (2, 2) and op.dilations == (1, 1) and not any(map(any, op.window.pads(_spatial(x))))
    )
    return plain and not x.shape[1] % 2 and not x.shape[2] % 2 and x.flags.c_contiguous and x.size > 0


@kernel(
    pool.MaxPool2D,
    workspace=lambda node: _pair_bytes(shape_of(node.inputs[0].type), DTYPES[node.dtype]),
)
def _max_pool2d(call: Call) -> Kernel:
    x, out = call.inputs[0], call.output
    if not _halves(call.op, x):
        return _max_into(x, taps(call.op.window, _spatial(x), _spatial(out)), out)
    scratch, parts = Scratch(call.workspace, x.dtype), []
    for ranges in _shares(x):
        calls, (largest, *_) = [], _pairs(x, ranges, scratch)
        for a, b in ranges:
            calls += _largest_of_four(x[a:b], largest, out[a:b])
        parts.append(calls)
    return threads.spread(parts, call.threads)


def _pair_bytes(images: tuple[int, ...], itemsize: int) -> int:
    """Workspace: for each worker, the larger ones of all pairs of a piece, the gradient of pairs, flags, their bits."""
    one = math.prod(images[1:]) // 2
    pieces = max(1, PIECE_BYTES // max(1, 2 * one * itemsize))
    return threads.available() * 4 * align(min(pieces, images[0]) * one * itemsize)


def _pairs(x: Array, ranges: list[tuple[int, int]], scratch: Scratch) -> list[Array]:
    """Return scratch memory for pairs of pixels, side by side: values, gradients, flags and bits."""
    _, h, w, c = x.shape
    shape = (max((b - a for a, b in ranges), default=0), h, w // 2, c)
    values, gradients, bits = (scratch.array(*shape) for _ in range(3))
    flags = scratch.bytes(math.prod(shape) * x.itemsize)[: math.prod(shape)].view(bool).reshape(shape)
    return [values, gradients, flags, bits]


def _largest_of_four(x: Array, largest: Array, out: Array) -> list[Kernel]:
    """Return the calls for the largest of each pair in a row, then of two rows: these are long, the pairs are not."""
    larger = largest[: len(x)]
    return [
        partial(np.maximum, x[:, :, ::2], x[:, :, 1::2], out=larger),
        partial(np.maximum, larger[:, ::2], larger[:, 1::2], out=out),
    ]


def _first_largest(call: Call, x: Array, windows: tuple[int, ...]) -> tuple[Kernel, list[Tap], Callable[[Tap], Array]]:
    """Return (begin, taps, mask): `mask(tap)` tells in which windows this tap is the first that meets the maximum.

    To be asked for in order, after `begin()`.
    """
    places = taps(call.op.window, _spatial(x), (windows[1], windows[2]))
    top, flags = call.scratch(windows, dtype=x.dtype)[0], call.workspace[_top_bytes(windows, x.itemsize) :]
    size = int(np.prod(windows))
    taken, hit = (flags[i * align(size) : i * align(size) + size].view(bool).reshape(windows) for i in range(2))

    find = _max_into(x, places, top)

    def begin() -> None:
        find()
        taken.fill(False)

    def mask(p: Tap) -> Array:
        here, before = pixels(hit, p.outside), pixels(taken, p.outside)
        np.equal(pixels(x, p.inside), pixels(top, p.outside), out=here)
        np.greater(here, before, out=here)
        np.logical_or(before, here, out=before)
        return here

    return begin, places, mask


def _top_bytes(windows: tuple[int, ...], itemsize: int) -> int:
    return align(int(np.prod(windows)) * itemsize)


def _largest_bytes(windows: tuple[int, ...], itemsize: int) -> int:
    return _top_bytes(windows, itemsize) + 2 * align(int(np.prod(windows)))


def _select_bytes(windows: tuple[int, ...], itemsize: int) -> int:
    """Workspace: what finding the largest takes, and one array over the windows."""
    return _largest_bytes(windows, itemsize) + _top_bytes(windows, itemsize)


def _adjoint_bytes(node: Node) -> int:
    images, windows = (shape_of(i.type) for i in node.inputs)
    return max(_select_bytes(windows, DTYPES[node.dtype]), _pair_bytes(images, DTYPES[node.dtype]))


@kernel(pool.MaxPool2DAdjoint, workspace=_adjoint_bytes)
def _max_pool2d_adjoint(call: Call) -> Kernel:
    (x, g), out = call.inputs, call.output
    if _halves(call.op, x):
        scratch = Scratch(call.workspace, x.dtype)
        parts = []
        for ranges in _shares(x):
            memory = _pairs(x, ranges, scratch)
            parts.append([k for a, b in ranges for k in _to_the_largest(x[a:b], g[a:b], out[a:b], *memory)])
        return threads.spread(parts, call.threads)
    begin, places, mask = _first_largest(call, x, g.shape)
    start = _largest_bytes(g.shape, g.itemsize)
    share = call.workspace[start : start + g.size * g.itemsize].view(g.dtype).reshape(g.shape)
    bits, shares = as_bits(g), as_bits(share)

    def run() -> None:
        begin()
        out.fill(0)
        for p in places:
            part, target = pixels(shares, p.outside), pixels(out, p.inside)
            mask_bits(mask(p), part)
            np.bitwise_and(part, pixels(bits, p.outside), out=part)
            np.add(target, pixels(share, p.outside), out=target)

    return run


def _to_the_largest(
    x: Array, g: Array, out: Array, largest: Array, gradients: Array, flags: Array, bits: Array
) -> list[Kernel]:
    """Return the calls that put g where the first largest of four is: first into one of two rows, then of each pair.

    What one half gets as bits under a mask, the other gets by exclusive or: the same bits, or none.
    """
    larger, row, flag, bit = (a[: len(x)] for a in (largest, as_bits(gradients), flags, as_bits(bits)))
    left, right, top, bottom = larger[:, ::2], larger[:, 1::2], row[:, ::2], row[:, 1::2]
    lower, mask, g, out = flag[:, ::2], bit[:, ::2], as_bits(g), as_bits(out)
    return [
        partial(np.maximum, x[:, :, ::2], x[:, :, 1::2], out=larger),
        partial(np.greater, right, left, out=lower),
        partial(np.negative, lower.view(np.int8), out=mask, casting="unsafe"),
        partial(np.bitwise_and, g, mask, out=bottom),
        partial(np.bitwise_xor, g, bottom, out=top),
        partial(np.greater, x[:, :, 1::2], x[:, :, ::2], out=flag),
        partial(np.negative, flag.view(np.int8), out=bit, casting="unsafe"),
        partial(np.bitwise_and, row, bit, out=bit),
        partial(np.copyto, out[:, :, 1::2], bit),
        partial(np.bitwise_xor, row, bit, out=out[:, :, ::2]),
    ]


@kernel(pool.MaxPool2DSelect, workspace=lambda node: _select_bytes(shape_of(node.type), DTYPES[node.dtype]))
def _max_pool2d_select(call: Call) -> Kernel:
    (x, y), out = call.inputs, call.output
    begin, places, mask = _first_largest(call, x, out.shape)
    start = _largest_bytes(out.shape, out.itemsize)
    source, bits = as_bits(y), as_bits(out)
    chosen = call.workspace[start : start + out.nbytes].view(bits.dtype).reshape(out.shape)

    def run() -> None:
        begin()
        out.fill(0)
        for p in places:
            mask_bits(mask(p), pixels(chosen, p.outside))
            target, found = pixels(chosen, p.outside), pixels(bits, p.outside)
            np.bitwise_and(target, pixels(source, p.inside), out=target)
            np.bitwise_or(found, target, out=found)

    return run


def _reciprocals(op: Any, image: tuple[int, int], windows: tuple[int, int], dtype: Any) -> Array:
    """Return 1/(number of elements that count) for each window, shaped (H′, W′, 1)."""
    counts = np.ones(windows)
    for axis, (before, after) in enumerate(op.window.pads(image)):
        limit = (-before, image[axis] + after - op.overhang[axis]) if op.count_padding else (0, image[axis])
        first = np.arange(windows[axis])[:, None] * op.strides[axis] - before
        positions = first + np.arange(op.size[axis]) * op.dilations[axis]
        number = ((positions >= limit[0]) & (positions < limit[1])).sum(axis=1)
        counts *= number.reshape(-1, 1) if axis == 0 else number
    with np.errstate(divide="ignore"):
        result: Array = (1.0 / counts)[..., None].astype(dtype)
    return result


@kernel(pool.AvgPool2D)
def _avg_pool2d(call: Call) -> Kernel:
    x, out = call.inputs[0], call.output
    places = taps(call.op.window, _spatial(x), _spatial(out))
    reciprocals = _reciprocals(call.op, _spatial(x), _spatial(out), x.dtype)

    def run() -> None:
        out.fill(0)
        for p in places:
            target = pixels(out, p.outside)
            np.add(target, pixels(x, p.inside), out=target)
        np.multiply(out, reciprocals, out=out)

    return run


@kernel(
    pool.AvgPool2DAdjoint,
    workspace=lambda node: _top_bytes(shape_of(node.inputs[0].type), DTYPES[node.dtype]),
)
def _avg_pool2d_adjoint(call: Call) -> Kernel:
    g, out = call.inputs[0], call.output
    (share,) = call.scratch(g.shape)
    places = taps(call.op.window, _spatial(out), _spatial(g))
    reciprocals = _reciprocals(call.op, _spatial(out), _spatial(g), g.dtype)

    def run() -> None:
        np.multiply(g, reciprocals, out=share)
        out.fill(0)
        for p in places:
            target = pixels(out, p.inside)
            np.add(target, pixels(share, p.outside), out=target)

    return run
