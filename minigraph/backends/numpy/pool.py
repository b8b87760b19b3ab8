"""Kernels of pooling: one ufunc for each tap of the window, over all windows at once. N,H,W,C only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minigraph.backends.numpy.elementwise import as_bits, mask_bits
from minigraph.backends.numpy.registry import Array, Call, Kernel, align, kernel, shape_of
from minigraph.backends.numpy.window import Tap, pixels, taps
from minigraph.ir.types import DTYPES
from minigraph.ops import pool


def _spatial(array: Array) -> tuple[int, int]:
    return array.shape[1], array.shape[2]


def _max_into(x: Array, places: list[Tap], out: Array) -> None:
    lowest = -np.inf if np.issubdtype(out.dtype, np.floating) else np.iinfo(out.dtype).min
    out.fill(lowest)
    for p in places:
        target = pixels(out, p.outside)
        np.maximum(target, pixels(x, p.inside), out=target)


@kernel(pool.MaxPool2D)
def _max_pool2d(call: Call) -> Kernel:
    x, out = call.inputs[0], call.output
    places = taps(call.op.window, _spatial(x), _spatial(out))
    return lambda: _max_into(x, places, out)


def _first_largest(call: Call, x: Array, windows: tuple[int, ...]) -> tuple[Kernel, list[Tap], Callable[[Tap], Array]]:
    """Return (begin, taps, mask): `mask(tap)` tells in which windows this tap is the first that meets the maximum.

    To be asked for in order, after `begin()`.
    """
    places = taps(call.op.window, _spatial(x), (windows[1], windows[2]))
    top, flags = call.scratch(windows, dtype=x.dtype)[0], call.workspace[_top_bytes(windows, x.itemsize) :]
    size = int(np.prod(windows))
    taken, hit = (flags[i * align(size) : i * align(size) + size].view(bool).reshape(windows) for i in range(2))

    def begin() -> None:
        _max_into(x, places, top)
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


@kernel(pool.MaxPool2DAdjoint, workspace=lambda node: _select_bytes(shape_of(node.inputs[1].type), DTYPES[node.dtype]))
def _max_pool2d_adjoint(call: Call) -> Kernel:
    (x, g), out = call.inputs, call.output
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
