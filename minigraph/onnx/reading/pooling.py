"""Pools over one, two or three axes."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from minigraph import ops
from minigraph.errors import ModelFormatError
from minigraph.ir.node import Node
from minigraph.ir.types import is_float, known
from minigraph.onnx.reader import Reader
from minigraph.onnx.reading.arithmetic import affordable, number
from minigraph.onnx.reading.convolution import Windows, windows
from minigraph.onnx.reading.registry import reads
from minigraph.ops.window import NCHW, overhang

Pool = Callable[[Node, Windows], Node]


def _over_images(x: Node, found: Windows, pool: Pool) -> Node:
    """Apply a pool of images that works axis by axis to a batch with 1, 2 or 3 spatial axes."""
    if x.rank == 4:
        return pool(x, found)
    if x.rank == 3:
        return ops.squeeze(pool(ops.unsqueeze(x, 2), found.with_height()), 2)
    if x.rank != 5:
        raise ModelFormatError("a pool over 1 to 3 axes", expected="3 to 5 axes", got=x.type)
    # Height and width first, depth as part of the channels; then depth, the pixels in a row.
    batch, channels, depth, height, width = x.shape
    flat = pool(ops.reshape(x, (batch, channels * depth, height, width)), found.only(1, 2))
    high, wide = flat.shape[2:]
    rows = ops.reshape(flat, (batch, channels, depth, high * wide))
    column = Windows(*(values + rest for values, rest in zip(vars(found.only(0)).values(), _ONE, strict=True)))
    pooled = pool(rows, column)
    return ops.reshape(pooled, (batch, channels, pooled.shape[2], high, wide))


_ONE: tuple[list, ...] = ([1], [1], [1], [(0, 0)])  # type: ignore[type-arg]  # a window of one element


def _rounded_up(n: Reader, x: Node, found: Windows) -> list[int]:
    """Return the padding after each end that rounding the number of windows up needs; it never counts."""
    if not n.integer("ceil_mode", 0):
        return [0] * len(found.kernel)
    return list(map(overhang, x.shape[2:], found.extent, found.strides, found.pads))


def _with_overhang(found: Windows, extra: list[int]) -> Windows:
    return replace(found, pads=[(a, b + e) for (a, b), e in zip(found.pads, extra, strict=True)])


@reads("MaxPool")
def max_pool(n: Reader) -> list[Node | None]:
    """The largest element under each window; asked for, also its place in the flat operand."""
    x = n.operand(0)
    found = windows(n, x.shape[2:])
    found = _with_overhang(found, _rounded_up(n, x, found))
    largest = _over_images(x, found, _max_pool)
    return [largest, _places(x, found, bool(n.integer("storage_order", 0))) if n.wanted(1) else None]


def _max_pool(x: Node, found: Windows) -> Node:
    return ops.max_pool2d(x, found.kernel, found.strides, found.padding, found.dilations, NCHW)


def _places(x: Node, found: Windows, columns_first: bool) -> Node:
    """Return where in the flat operand each window's first largest element stands, tap by tap."""
    batch, channels, *sizes = (known(s, "an axis of a pool with places") for s in x.shape)
    affordable(math.prod((batch, channels, *sizes)) * math.prod(found.kernel), "the places of a pool")
    grid = np.arange(int(np.prod(sizes))).reshape(sizes[::-1] if columns_first else sizes)
    grid = grid.T if columns_first else grid
    inside = np.pad(grid, found.pads)
    lowest = float("-inf") if is_float(x.dtype) else np.iinfo(x.dtype).min
    # Elements outside lose against all that exist: there is a window's first element inside to begin with.
    exists = np.pad(np.ones(sizes, bool), found.pads)
    padded = ops.pad(x, [(0, 0), (0, 0), *found.pads])
    count = [
        (s + sum(p) - e) // stride + 1
        for s, p, e, stride in zip(sizes, found.pads, found.extent, found.strides, strict=True)
    ]
    best: Node | None = None
    place: Node | None = None
    met = np.zeros(count, bool)  # whether the window has met an element
    for tap in np.ndindex(*found.kernel):
        index = tuple(
            slice(t * d, t * d + (c - 1) * s + 1, s)
            for t, d, c, s in zip(tap, found.dilations, count, found.strides, strict=True)
        )
        there = exists[index]
        value = padded[(slice(None), slice(None), *index)]
        value = ops.where(ops.constant(there), value, number(lowest, x.dtype))
        at = ops.constant(np.ascontiguousarray(inside[index].astype("int64")))
        if best is None or place is None:
            best, place, met = value, ops.broadcast_to(at, (batch, channels, *count)), there
            continue
        larger = ops.maximum(value > best, ops.constant(there & ~met))
        met = met | there
        best, place = ops.where(larger, value, best), ops.where(larger, at, place)
    assert place is not None
    images = np.arange(batch * channels).reshape(batch, channels, *(1,) * len(sizes)) * int(np.prod(sizes))
    return place + number(images, "int64")


@reads("AveragePool")
def average_pool(n: Reader) -> Node:
    """The mean under each window, of the elements that exist or of padding too."""
    x = n.operand(0)
    found = windows(n, x.shape[2:])
    counted = bool(n.integer("count_include_pad", 0))
    extra = _rounded_up(n, x, found)
    if not any(extra):
        return _over_images(x, found, functools.partial(_avg_pool, counted=counted))
    if not counted:  # then all padding is alike
        return _over_images(x, _with_overhang(found, extra), functools.partial(_avg_pool, counted=False))
    if x.rank == 5:  # the overhang counts nowhere, the padding everywhere
        full = ops.pad(x, [(0, 0), (0, 0), *found.pads])
        overhang = replace(found, pads=[(0, e) for e in extra])
        return _over_images(full, overhang, functools.partial(_avg_pool, counted=False))
    return _over_images(x, found, functools.partial(_avg_pool, counted=True, ceil=True))


def _avg_pool(x: Node, found: Windows, counted: bool, ceil: bool = False) -> Node:
    return ops.avg_pool2d(x, found.kernel, found.strides, found.padding, found.dilations, NCHW, counted, ceil)


@reads("LpPool")
def lp_pool(n: Reader) -> Node:
    """(Σ |x|ᵖ)^(1/p) under each window."""
    x, p = n.operand(0), float(n.integer("p", 2))
    found = windows(n, x.shape[2:])
    found = _with_overhang(found, _rounded_up(n, x, found))
    mean = _over_images(ops.pow(ops.abs(x), p), found, functools.partial(_avg_pool, counted=True))
    return ops.pow(mean * float(np.prod(found.kernel)), 1.0 / p)


@reads("GlobalAveragePool", whole=False)
def global_average_pool(n: Reader) -> Node:
    """The mean of each channel."""
    x = n.operand(0)
    return ops.mean(x, range(2, x.rank), keepdims=True)


@reads("GlobalMaxPool", whole=False)
def global_max_pool(n: Reader) -> Node:
    """The largest element of each channel."""
    x = n.operand(0)
    return ops.max(x, range(2, x.rank), keepdims=True)


@reads("GlobalLpPool")
def global_lp_pool(n: Reader) -> Node:
    """(Σ |x|ᵖ)^(1/p) of each channel."""
    x, p = n.operand(0), float(n.integer("p", 2))
    return ops.pow(ops.sum(ops.pow(ops.abs(x), p), range(2, x.rank), keepdims=True), 1.0 / p)
