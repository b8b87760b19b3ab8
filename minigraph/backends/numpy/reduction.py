"""Kernels of reductions, of moments, and of the ops along an axis (softmax and its kin)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from minigraph.backends.numpy import threads
from minigraph.backends.numpy.call import Array, Call, Kernel, Scratch, Steps, nbytes_of, shape_of
from minigraph.backends.numpy.elementwise import WIDE, widen
from minigraph.backends.numpy.registry import kernel
from minigraph.ir.node import Node
from minigraph.ops import loss, reduction
from minigraph.ops.norm import BatchNorm, Moments

# Rows of a wide view that are reduced together: they stay in the level-2 cache.
CHUNK_BYTES = 1 << 18


def _over_leading_axes(axes: tuple[int, ...], rank: int) -> bool:
    return 0 < len(axes) < rank and axes == tuple(range(len(axes)))


def _channels(shape: tuple[int, ...], axes: tuple[int, ...]) -> int:
    return math.prod(shape[len(axes) :])


def _between(shape: tuple[int, ...], axes: tuple[int, ...], dtype: str) -> tuple[int, int, int] | None:
    """Return (before, pixels, channels) of a sum of floats over pixels that lie between, in short rows."""
    if not axes or axes[0] == 0 or axes != tuple(range(axes[0], len(shape) - 1)) or dtype not in ("float32", "float64"):
        return None
    result = (math.prod(shape[: axes[0]]), math.prod(shape[a] for a in axes), shape[-1])
    return result if math.prod(result) and result[2] <= WIDE else None


def _sum_workspace(node: Node) -> int:
    assert isinstance(node.op, reduction.Reduction)
    shape, axes = shape_of(node.inputs[0].type), node.op.axes
    between = _between(shape, axes, node.dtype)
    if between:
        return nbytes_of((between[1],), node.dtype)
    wide = widen(shape, _channels(shape, axes)) if _over_leading_axes(axes, len(shape)) else None
    return nbytes_of((wide[1] * _channels(shape, axes),), node.dtype) if wide else 0


def _sum_into(call: Call, x: Array, axes: tuple[int, ...], out: Array) -> Kernel:
    """Return the kernel of a sum: over pixels as a product with ones, over leading axes in two stages, else NumPy's."""
    between = _between(x.shape, axes, str(x.dtype))
    if between and x.flags.c_contiguous:  # NumPy's own sum runs over one pixel's channels at a time: 6 times as slow
        n, pixels, channels = between
        (ones,) = call.scratch((1, pixels))
        product = partial(np.matmul, ones, x.reshape(between), out=out.reshape(n, 1, channels))
        return Steps([partial(ones.fill, 1), product])
    if _over_leading_axes(axes, x.ndim):
        channels = _channels(x.shape, axes)
        wide = widen(x.shape, channels)
        if wide and x.flags.c_contiguous:
            (row,) = call.scratch((wide[1] * channels,))
            source, narrow = x.reshape(wide[0], -1), row.reshape(wide[1], channels)
            return Steps(
                [
                    partial(np.add.reduce, source, axis=0, out=row),
                    partial(np.add.reduce, narrow, axis=0, out=out.reshape(channels)),
                ]
            )
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
    return Steps([add, partial(np.divide, out, x.dtype.type(count), out=out)])


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
    ranges = _shared_rows(rows, length, dtype)
    step = _chunk_rows(ranges[0][1], length, dtype)
    shapes = [(len(ranges), length), (length,), *[(step, length), (length,)] * len(ranges)]
    return sum(nbytes_of(each, dtype) for each in shapes)


def _shared_rows(rows: int, length: int, dtype: Any) -> list[tuple[int, int]]:
    """Return the rows of each worker."""
    nbytes = rows * length * np.dtype(dtype).itemsize
    return threads.ranges(rows, threads.available() if nbytes >= threads.PARALLEL_BYTES else 1)


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
    """Two passes over wide rows, shared among workers; the second in pieces that stay in the cache."""
    rows, length = _rows(x.shape, call.op.axes)  # type: ignore[misc]
    channels, divisor = mean.size, x.dtype.type(count)
    ranges = _shared_rows(rows, length, x.dtype)
    step = _chunk_rows(ranges[0][1], length, x.dtype)
    scratch = Scratch(call.workspace, x.dtype)
    sums, tile = scratch.array(len(ranges), length), scratch.array(length)
    narrow = sums.reshape(-1, channels)
    first, second = [], []
    for (start, end), total in zip(ranges, sums, strict=True):
        first.append([partial(np.add.reduce, x.reshape(rows, length)[start:end], axis=0, out=total)])
        squares, part = scratch.array(step, length), scratch.array(length)
        calls: list[Kernel] = []
        for piece in range(start, end, step):
            own = x.reshape(rows, length)[piece : min(piece + step, end)]
            t, target = squares[: len(own)], part if calls else total
            calls += [
                partial(np.subtract, own, tile, out=t),
                partial(np.multiply, t, t, out=t),
                partial(np.add.reduce, t, axis=0, out=target),
            ]
            if target is part:
                calls.append(partial(np.add, total, part, out=total))
        second.append(calls)

    def divided(result: Array) -> list[Kernel]:
        flat = result.reshape(-1)
        return [partial(np.add.reduce, narrow, axis=0, out=flat), partial(np.divide, flat, divisor, out=flat)]

    return Steps(
        [
            threads.spread(first, call.threads),
            *divided(mean),
            partial(np.copyto, tile.reshape(-1, channels), mean.reshape(-1)),
            threads.spread(second, call.threads),
            *divided(variance),
        ]
    )


def scale_and_shift(
    op: BatchNorm, operands: Sequence[Array], repeats: int, scratch: Scratch
) -> tuple[Array, Array, list[Kernel]]:
    """Return s = γ/√(variance + ε) and t = β − mean·s, each repeated, and the calls that compute them: y = x·s + t."""
    gamma, beta, mean, variance = (operand.reshape(-1) for operand in operands)
    scales, shifts = scratch.array(repeats, gamma.size), scratch.array(repeats, gamma.size)
    scale, shift = scales[0], shifts[0]
    calls: list[Kernel] = [
        partial(np.add, variance, scale.dtype.type(op.epsilon), out=scale),
        partial(np.sqrt, scale, out=scale),
        partial(np.divide, gamma, scale, out=scale),
        partial(np.multiply, mean, scale, out=shift),
        partial(np.subtract, beta, shift, out=shift),
    ]
    if repeats > 1:
        calls += [partial(np.copyto, scales[1:], scale), partial(np.copyto, shifts[1:], shift)]
    return scales.reshape(-1), shifts.reshape(-1), calls


def _batch_norm_workspace(node: Node) -> int:
    shape, (channels,) = shape_of(node.type), shape_of(node.inputs[1].type)
    wide = widen(shape, channels)
    return 2 * nbytes_of(((wide[1] if wide else 1) * channels,), node.dtype)


@kernel(BatchNorm, inplace=(0,), workspace=_batch_norm_workspace)
def _batch_norm(call: Call) -> Kernel:
    x, *operands = call.inputs
    out, channels = call.output, operands[0].size
    axis = call.op.axis % x.ndim
    wide = widen(x.shape, channels) if axis == x.ndim - 1 and x.flags.c_contiguous else None
    rows, repeats = wide or (0, 1)
    scale, shift, calls = scale_and_shift(call.op, operands, repeats, Scratch(call.workspace, x.dtype))
    if wide:
        x, out = x.reshape(rows, -1), out.reshape(rows, -1)
    else:
        shape = _kept((channels,) * x.ndim, tuple(i for i in range(x.ndim) if i != axis))
        scale, shift = scale.reshape(shape), shift.reshape(shape)
    return Steps([*calls, partial(np.multiply, x, scale, out=out), partial(np.add, out, shift, out=out)])
