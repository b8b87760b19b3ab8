"""Kernels of reductions, of moments, and of the ops along an axis (softmax and its kin)."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from minigraph.backends.numpy.elementwise import widen
from minigraph.backends.numpy.registry import Array, Call, Kernel, kernel, nbytes_of, shape_of
from minigraph.ir.node import Node
from minigraph.ops import loss, reduction
from minigraph.ops.norm import BatchNorm, Moments

# Rows of a wide view that are reduced together: about the size of a level-1 cache.
CHUNK_BYTES = 1 << 15


def _over_leading_axes(axes: tuple[int, ...], rank: int) -> bool:
    return 0 < len(axes) < rank and axes == tuple(range(len(axes)))


def _channels(shape: tuple[int, ...], axes: tuple[int, ...]) -> int:
    return math.prod(shape[len(axes) :])


def _sum_workspace(node: Node) -> int:
    assert isinstance(node.op, reduction.Reduction)
    shape, axes = shape_of(node.inputs[0].type), node.op.axes
    wide = widen(shape, _channels(shape, axes)) if _over_leading_axes(axes, len(shape)) else None
    return nbytes_of((wide[1] * _channels(shape, axes),), node.dtype) if wide else 0


def _sum_into(call: Call, x: Array, axes: tuple[int, ...], out: Array) -> Kernel:
    """Return the kernel of a sum; over leading axes in two stages, wide rows first."""
    if _over_leading_axes(axes, x.ndim):
        channels = _channels(x.shape, axes)
        wide = widen(x.shape, channels)
        if wide and x.flags.c_contiguous:
            (row,) = call.scratch((wide[1] * channels,))
            source, narrow, result = x.reshape(wide[0], -1), row.reshape(wide[1], channels), out.reshape(channels)

            def run() -> None:
                np.add.reduce(source, axis=0, out=row)
                np.add.reduce(narrow, axis=0, out=result)

            return run
    return partial(np.add.reduce, x, axis=axes, out=out)


def _without_axes(call: Call) -> Array:
    """Return the output without kept axes, as NumPy's `out=` wants it."""
    op, out = call.op, call.output
    if not getattr(op, "keepdims", False):
        return out  # type: ignore[no-any-return]
    return out.reshape(tuple(s for i, s in enumerate(out.shape) if i not in op.axes))  # type: ignore[no-any-return]


@kernel(reduction.Sum, workspace=_sum_workspace)
def _sum(call: Call) -> Kernel:
    return _sum_into(call, call.inputs[0], call.op.axes, _without_axes(call))


@kernel(reduction.Mean, workspace=_sum_workspace)
def _mean(call: Call) -> Kernel:
    x, out = call.inputs[0], _without_axes(call)
    add = _sum_into(call, x, call.op.axes, out)
    count = math.prod(x.shape[a] for a in call.op.axes)
    if count == 0:
        return lambda: out.fill(np.nan)
    divisor = x.dtype.type(count)

    def run() -> None:
        add()
        np.divide(out, divisor, out=out)

    return run


@kernel(reduction.Max)
def _max(call: Call) -> Kernel:
    return partial(np.maximum.reduce, call.inputs[0], axis=call.op.axes, out=_without_axes(call))


@kernel(reduction.Min)
def _min(call: Call) -> Kernel:
    return partial(np.minimum.reduce, call.inputs[0], axis=call.op.axes, out=_without_axes(call))


@kernel(reduction.ArgMax)
def _argmax(call: Call) -> Kernel:
    return partial(np.argmax, call.inputs[0], axis=call.op.axis, out=call.output)


def _shifted_workspace(node: Node) -> int:
    """Workspace: one array like the operand, and one with the axes reduced to 1."""
    shape = shape_of(node.inputs[0].type)
    axes = node.op.axes if isinstance(node.op, reduction.Reduction) else (node.op.axis,)  # type: ignore[attr-defined]
    axes = tuple(a % len(shape) for a in axes)
    return nbytes_of(shape, node.dtype) + nbytes_of(_kept(shape, axes), node.dtype)


def _kept(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(1 if i in axes else s for i, s in enumerate(shape))


def _shift(x: Array, axes: tuple[int, ...], top: Array, out: Array) -> None:
    """out = x − max x, with the maximum left in `top`."""
    np.maximum.reduce(x, axis=axes, keepdims=True, out=top, initial=-np.inf)
    np.subtract(x, top, out=out)


@kernel(reduction.LogSumExp, workspace=_shifted_workspace)
def _logsumexp(call: Call) -> Kernel:
    x, axes, out = call.inputs[0], call.op.axes, _without_axes(call)
    t, top = call.scratch(x.shape, _kept(x.shape, axes))
    narrow = top.reshape(out.shape)

    def run() -> None:
        np.maximum.reduce(x, axis=axes, keepdims=True, out=top, initial=-np.inf)
        np.copyto(top, 0, where=np.isinf(top))  # ∞ − ∞ is not a number, but the logarithm of the sum is ±∞
        np.subtract(x, top, out=t)
        np.exp(t, out=t)
        np.add.reduce(t, axis=axes, out=out)
        np.log(out, out=out)
        np.add(out, narrow, out=out)

    return run


@kernel(loss.Softmax, workspace=_shifted_workspace)
def _softmax(call: Call) -> Kernel:
    x, out, axes = call.inputs[0], call.output, (call.op.axis % call.inputs[0].ndim,)
    _, top = call.scratch(x.shape, _kept(x.shape, axes))

    def run() -> None:
        _shift(x, axes, top, out)
        np.exp(out, out=out)
        np.add.reduce(out, axis=axes, keepdims=True, out=top)
        np.divide(out, top, out=out)

    return run


def _log_softmax_into(x: Array, axes: tuple[int, ...], t: Array, top: Array, out: Array) -> None:
    _shift(x, axes, top, out)
    np.exp(out, out=t)
    np.add.reduce(t, axis=axes, keepdims=True, out=top)
    np.log(top, out=top)
    np.subtract(out, top, out=out)


@kernel(loss.LogSoftmax, workspace=_shifted_workspace)
def _log_softmax(call: Call) -> Kernel:
    x, axes = call.inputs[0], (call.op.axis % call.inputs[0].ndim,)
    t, top = call.scratch(x.shape, _kept(x.shape, axes))
    return partial(_log_softmax_into, x, axes, t, top, call.output)


def _cross_entropy_workspace(node: Node) -> int:
    return _shifted_workspace(node) + nbytes_of(shape_of(node.inputs[0].type), node.dtype)


@kernel(loss.SoftmaxCrossEntropy, workspace=_cross_entropy_workspace)
def _softmax_cross_entropy(call: Call) -> Kernel:
    x, targets = call.inputs
    out, axes = call.output, (call.op.axis % x.ndim,)
    t, logs, top = call.scratch(x.shape, x.shape, _kept(x.shape, axes))

    def run() -> None:
        _log_softmax_into(x, axes, t, top, logs)
        # A class of weight 0 costs nothing, even where its logarithm is −inf.
        np.copyto(logs, 0, where=targets == 0)
        np.multiply(logs, targets, out=logs)
        np.add.reduce(logs, axis=axes, out=out)
        np.negative(out, out=out)

    return run


def _rows(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, int] | None:
    """Return (rows, length) of the wide view for moments over leading axes."""
    channels = _channels(shape, axes)
    wide = widen(shape, channels)
    return (wide[0], wide[1] * channels) if wide else (math.prod(shape[: len(axes)]), channels)


def _moments_workspace(node: Node) -> int:
    assert isinstance(node.op, Moments)
    shape, axes, dtype = shape_of(node.inputs[0].type), node.op.axes, node.inputs[0].dtype
    if not _over_leading_axes(axes, len(shape)):
        return nbytes_of(shape, dtype) + nbytes_of(_kept(shape, axes), dtype)
    rows, length = _rows(shape, axes)  # type: ignore[misc]
    return nbytes_of((_chunk_rows(rows, length, dtype), length), dtype) + 3 * nbytes_of((length,), dtype)


def _chunk_rows(rows: int, length: int, dtype: Any) -> int:
    row_bytes: int = length * np.dtype(dtype).itemsize
    return max(1, min(rows, CHUNK_BYTES // max(1, row_bytes)))


@kernel(Moments, workspace=_moments_workspace)
def _moments(call: Call) -> Kernel:
    x, axes = call.inputs[0], call.op.axes
    mean, variance = call.output
    count = math.prod(x.shape[a] for a in axes)
    if count == 0 or mean.size == 0:
        return lambda: (mean.fill(np.nan), variance.fill(np.nan))
    if _over_leading_axes(axes, x.ndim) and x.flags.c_contiguous:
        return _channel_moments(call, x, mean, variance, count)
    t, wide = call.scratch(x.shape, _kept(x.shape, axes))

    def run() -> None:
        np.add.reduce(x, axis=axes, out=mean)
        np.divide(mean, count, out=mean)
        np.copyto(wide, mean.reshape(wide.shape))
        np.subtract(x, wide, out=t)
        np.multiply(t, t, out=t)
        np.add.reduce(t, axis=axes, out=variance)
        np.divide(variance, count, out=variance)

    return run


def _channel_moments(call: Call, x: Array, mean: Array, variance: Array, count: int) -> Kernel:
    """Two passes over wide rows; the second in pieces that stay in the cache."""
    rows, length = _rows(x.shape, call.op.axes)  # type: ignore[misc]
    channels = mean.size
    step = _chunk_rows(rows, length, x.dtype)
    t, tile, row, part = call.scratch((step, length), (length,), (length,), (length,))
    source = x.reshape(rows, length)
    pieces = [(source[i : i + step], t[: min(step, rows - i)]) for i in range(0, rows, step)]
    tiles, narrow = tile.reshape(-1, channels), row.reshape(-1, channels)
    flat_mean, flat_variance, divisor = mean.reshape(-1), variance.reshape(-1), x.dtype.type(count)

    def run() -> None:
        np.add.reduce(source, axis=0, out=row)
        np.add.reduce(narrow, axis=0, out=flat_mean)
        np.divide(flat_mean, divisor, out=flat_mean)
        tiles[...] = flat_mean
        row.fill(0)
        for piece, squares in pieces:
            np.subtract(piece, tile, out=squares)
            np.multiply(squares, squares, out=squares)
            np.add.reduce(squares, axis=0, out=part)
            np.add(row, part, out=row)
        np.add.reduce(narrow, axis=0, out=flat_variance)
        np.divide(flat_variance, divisor, out=flat_variance)

    return run


def _batch_norm_workspace(node: Node) -> int:
    shape, channels, dtype = shape_of(node.type), shape_of(node.inputs[1].type), node.dtype
    wide = widen(shape, channels[0])
    length = channels[0] * (wide[1] if wide else 1)
    return 2 * nbytes_of(channels, dtype) + 2 * nbytes_of((length,), dtype)


@kernel(BatchNorm, inplace=(0,), workspace=_batch_norm_workspace)
def _batch_norm(call: Call) -> Kernel:
    x, gamma, beta, mean, variance = call.inputs
    out, epsilon = call.output, x.dtype.type(call.op.epsilon)
    axis, channels = call.op.axis % x.ndim, gamma.size
    wide = widen(x.shape, channels) if axis == x.ndim - 1 and x.flags.c_contiguous else None
    rows, repeats = wide or (0, 1)
    scale, shift, scales, shifts = call.scratch((channels,), (channels,), (repeats, channels), (repeats, channels))
    if wide:
        source, result = x.reshape(rows, -1), out.reshape(rows, -1)
        s, t = scales.reshape(-1), shifts.reshape(-1)
    else:
        shape = _kept((channels,) * x.ndim, tuple(i for i in range(x.ndim) if i != axis))
        source, result, s, t = x, out, scales.reshape(shape), shifts.reshape(shape)

    def run() -> None:
        # y = x·s + t with s = γ/√(variance + ε) and t = β − mean·s: two passes over the data.
        np.add(variance, epsilon, out=scale)
        np.sqrt(scale, out=scale)
        np.divide(gamma, scale, out=scale)
        np.multiply(mean, scale, out=shift)
        np.subtract(beta, shift, out=shift)
        scales[...] = scale
        shifts[...] = shift
        np.multiply(source, s, out=result)
        np.add(result, t, out=result)

    return run
