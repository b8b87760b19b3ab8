"""Kernels of convolution and its adjoints: unroll windows into a matrix in cache-sized pieces, then multiply (im2col).

N,H,W,C only. The batch is shared among workers, each with its own scratch memory and one BLAS thread.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from minigraph.backends.geometry import Geometry
from minigraph.backends.numpy import threads
from minigraph.backends.numpy.registry import Array, Call, Kernel, align, kernel
from minigraph.backends.numpy.window import pixels, taps, unrolled
from minigraph.ir.node import Node
from minigraph.ops import conv
from minigraph.ops.window import Window

# An unrolled piece should stay in the level-2 cache until the product has read it.
CACHE_BYTES = 700_000


class Unrolled(Geometry):
    """A geometry, and how its windows are unrolled into matrices piece by piece."""

    def pieces(self, workers: int) -> int:
        """Return into how many ranges the batch is split."""
        return min(workers, self.images[0]) if self.flops > threads.PARALLEL_FLOPS else 1

    def step(self) -> int:
        """Return how many images are unrolled at once."""
        one = self.outputs[1] * self.outputs[2] * self.depth * self.groups * self.itemsize
        return int(max(1, min(self.images[0], CACHE_BYTES // max(1, one))))

    def padded_shape(self, number: int) -> tuple[int, int, int, int]:
        """Return the shape of `number` padded images."""
        (top, bottom), (left, right) = self.pads
        return number, self.images[1] + top + bottom, self.images[2] + left + right, self.images[3]

    def unrolled_shape(self, number: int) -> tuple[int, ...]:
        """Return the shape of `number` unrolled images, one matrix for each group."""
        h, w = self.outputs[1:3]
        return self.groups, number, h, w, *self.window.size, self.images[3] // self.groups

    def scratch_bytes(self) -> int:
        """Return one worker's workspace: padded images (if any), unrolled windows."""
        shapes = [self.unrolled_shape(self.step())] + ([self.padded_shape(self.step())] if self.padded else [])
        return sum(align(int(np.prod(s)) * self.itemsize) for s in shapes)


class _Unroller:
    """One worker's way from images to the matrix of their windows; padding is copied around them piece by piece."""

    def __init__(self, geometry: Unrolled, memory: Array, dtype: Any) -> None:
        g, step = geometry, geometry.step()
        self.geometry = g
        shape = g.unrolled_shape(step)
        size = int(np.prod(shape)) * g.itemsize
        self.columns = memory[:size].view(dtype)
        self.padded: Array | None = None
        if g.padded:
            shape = g.padded_shape(step)
            rest = memory[align(size) : align(size) + int(np.prod(shape)) * g.itemsize]
            self.padded = rest.view(dtype).reshape(shape)

    def clear(self) -> None:
        """Zero the halo; the workspace is shared with other kernels, so at every call."""
        if self.padded is not None:
            self.padded.fill(0)

    def __call__(self, images: Array) -> Array:
        """Return (groups, number·H′·W′, depth): the windows of these images, row by row."""
        g, number = self.geometry, len(images)
        source = images
        if self.padded is not None:
            (top, _), (left, _) = g.pads
            self.padded[:number, top : top + g.images[1], left : left + g.images[2]] = images
            source = self.padded[:number]
        views = unrolled(source, g.window, g.outputs[1:3])
        per_group = g.images[3] // g.groups
        shape = g.unrolled_shape(number)
        columns: Array = self.columns[: math.prod(shape)].reshape(shape)
        for group in range(g.groups):
            np.copyto(columns[group], views[..., group * per_group : (group + 1) * per_group])
        return columns.reshape(g.groups, -1, g.depth)


def _workers(call: Call, geometry: Unrolled) -> tuple[int, list[Array]]:
    """Return the number of ranges of the batch, and each one's part of the workspace."""
    pieces = geometry.pieces(call.threads)
    size = len(call.workspace) // pieces // 64 * 64
    return pieces, [call.workspace[i * size : (i + 1) * size] for i in range(pieces)]


def _over_batch(pieces: int, batch: int, step: int, body: Callable[[int, int, int], object]) -> Kernel:
    """Return the kernel that calls `body(worker, first, last)` for each cache-sized run of images."""
    split = threads.ranges(batch, pieces)

    def work(worker: int) -> None:
        first, last = split[worker]
        for i in range(first, last, step):
            body(worker, i, min(i + step, last))

    if len(split) == 1:
        return lambda: work(0)
    return lambda: threads.each(len(split), work)


# --- forward ------------------------------------------------------------------------------------------------------


def _forward_workspace(node: Node) -> int:
    g = Unrolled.of_node(node)
    if g.pointwise:
        return 0
    if g.depthwise:
        return align(int(np.prod(g.outputs)) * g.itemsize)
    return g.scratch_bytes() * g.pieces(threads.available())


@kernel(conv.Conv2D, workspace=_forward_workspace)
def _conv2d(call: Call) -> Kernel:
    x, w = call.inputs
    if not (x.size and w.size):
        return partial(call.output.fill, 0)
    return forward(call, Unrolled.of(call.op, x.shape, w.shape, call.output.shape, x.itemsize), x, w, call.output)


def forward(call: Call, g: Unrolled, x: Array, w: Array, out: Array) -> Kernel:
    """Return the kernel out = conv2d(x, w)."""
    if g.pointwise:
        return _pointwise(call, g, x, w, out)
    if g.depthwise:
        return _depthwise(call, g, x, w, out)
    pieces, memory = _workers(call, g)
    unrollers = [_Unroller(g, m, x.dtype) for m in memory]
    per_group = g.outputs[3] // g.groups

    def body(worker: int, first: int, last: int) -> None:
        columns = unrollers[worker](x[first:last])
        matrix = w.reshape(g.depth, g.outputs[3])
        target = out[first:last].reshape(-1, g.outputs[3])
        for group in range(g.groups):
            o = slice(group * per_group, (group + 1) * per_group)
            np.matmul(columns[group], matrix[:, o], out=target[:, o])

    return _cleared(unrollers, _over_batch(pieces, g.images[0], g.step(), body))


def _cleared(unrollers: list[_Unroller], run: Kernel) -> Kernel:
    def both() -> None:
        for unroller in unrollers:
            unroller.clear()
        run()

    return both


def _pointwise(call: Call, g: Unrolled, x: Array, w: Array, out: Array) -> Kernel:
    matrix, source, target = (
        w.reshape(g.images[3], g.outputs[3]),
        x.reshape(-1, g.images[3]),
        out.reshape(-1, g.outputs[3]),
    )
    split = threads.ranges(len(source), call.threads if g.flops > threads.PARALLEL_FLOPS else 1)
    pieces = [(source[a:b], target[a:b]) for a, b in split]
    return lambda: threads.each(len(pieces), lambda i: np.matmul(pieces[i][0], matrix, out=pieces[i][1]))


def _depthwise(call: Call, g: Unrolled, x: Array, w: Array, out: Array) -> Kernel:
    (t,) = call.scratch(out.shape, dtype=x.dtype)
    places = taps(g.window, g.images[1:3], g.outputs[1:3])
    moves = [(pixels(x, p.inside), w[p.row, p.column, 0], pixels(t, p.outside), pixels(out, p.outside)) for p in places]
    return _add_up(out, moves)


def _add_up(out: Array, moves: list[tuple[Array, Array, Array, Array]]) -> Kernel:
    """Return the kernel that multiplies and adds once for each tap, over all pixels and channels at once.

    Each move is (source, weights, scratch, target): target += source · weights.
    """

    def run() -> None:
        out.fill(0)
        for source, weights, product, target in moves:
            np.multiply(source, weights, out=product)
            np.add(target, product, out=target)

    return run


# --- the adjoint with respect to the images -----------------------------------------------------------------------


def _transpose_workspace(node: Node) -> int:
    g = Unrolled.of_node(node)
    if g.depthwise:
        return align(int(np.prod(g.outputs)) * g.itemsize)
    rotated = _rotated(g)
    if rotated is not None:
        return _rotated_kernel_bytes(g) + rotated.scratch_bytes() * rotated.pieces(threads.available())
    return g.scratch_bytes() * g.pieces(threads.available())


def _rotated(g: Unrolled) -> Unrolled | None:
    """Return the convolution that computes the adjoint at stride 1: the kernel turned by 180°, padded to fit.

    One product with cache-resident windows instead of a scattered sum. None where it does not apply.
    """
    if g.window.strides != (1, 1) or g.groups != 1:
        return None
    pads = tuple(
        (extent - 1 - before, extent - 1 - after)
        for extent, (before, after) in zip(g.window.extent, g.pads, strict=True)
    )
    if any(p < 0 for pair in pads for p in pair):
        return None
    window = Window(g.window.size, (1, 1), g.window.dilations, pads)
    return Unrolled(window, g.outputs, g.images, 1, g.itemsize)


def _rotated_kernel_bytes(g: Unrolled) -> int:
    return align(g.depth * g.outputs[3] * g.itemsize)


@kernel(conv.Conv2DTranspose, workspace=_transpose_workspace)
def _conv2d_transpose(call: Call) -> Kernel:
    y, w = call.inputs
    out = call.output
    if not (y.size and w.size):
        return partial(out.fill, 0)
    g = Unrolled.of(call.op, out.shape, w.shape, y.shape, y.itemsize)
    if g.depthwise:
        return _depthwise_adjoint(call, g, y, w, out)
    rotated = _rotated(g)
    if rotated is None:
        return _scattered(call, g, y, w, out)
    size = _rotated_kernel_bytes(g)
    turned = call.workspace[: w.size * w.itemsize].view(w.dtype).reshape(*g.window.size, g.outputs[3], g.images[3])
    call.workspace = call.workspace[size:]
    source = w[::-1, ::-1].transpose(0, 1, 3, 2)
    run = forward(call, rotated, y, turned, out)

    def both() -> None:
        np.copyto(turned, source)
        run()

    return both


def _scattered(call: Call, g: Unrolled, y: Array, w: Array, out: Array) -> Kernel:
    """Any stride and groups: each output pixel's share of every window it lay in, added tap by tap (col2im)."""
    pieces, memory = _workers(call, g)
    shape = g.unrolled_shape(g.step())
    columns = [m[: int(np.prod(shape)) * g.itemsize].view(y.dtype).reshape(shape) for m in memory]
    into, outof = g.images[3] // g.groups, g.outputs[3] // g.groups
    places = taps(g.window, g.images[1:3], g.outputs[1:3])

    def body(worker: int, first: int, last: int) -> None:
        matrix = w.reshape(g.depth, g.outputs[3])
        source, target = y[first:last].reshape(-1, g.outputs[3]), out[first:last]
        target.fill(0)
        for group in range(g.groups):
            shares = columns[worker][group, : last - first]
            o = slice(group * outof, (group + 1) * outof)
            np.matmul(source[:, o], matrix[:, o].T, out=shares.reshape(-1, g.depth))
            channels = target[..., group * into : (group + 1) * into]
            for p in places:
                part = pixels(channels, p.inside)
                np.add(part, pixels(shares[..., p.row, p.column, :], p.outside), out=part)

    return _over_batch(pieces, g.images[0], g.step(), body)


def _depthwise_adjoint(call: Call, g: Unrolled, y: Array, w: Array, out: Array) -> Kernel:
    (t,) = call.scratch(y.shape, dtype=y.dtype)
    places = taps(g.window, g.images[1:3], g.outputs[1:3])
    moves = [(pixels(y, p.outside), w[p.row, p.column, 0], pixels(t, p.outside), pixels(out, p.inside)) for p in places]
    return _add_up(out, moves)


# --- the adjoint with respect to the kernel -----------------------------------------------------------------------


def _kernel_adjoint_workspace(node: Node) -> int:
    g = Unrolled.of_node(node)
    size = align(g.depth * g.outputs[3] * g.itemsize)
    if g.depthwise:
        return align(int(np.prod(g.outputs)) * g.itemsize)
    scratch = 0 if g.pointwise else g.scratch_bytes()
    return (2 * size + scratch) * g.pieces(threads.available())


@kernel(conv.Conv2DKernelAdjoint, workspace=_kernel_adjoint_workspace)
def _conv2d_kernel_adjoint(call: Call) -> Kernel:
    x, y = call.inputs
    out = call.output
    if not (x.size and y.size):
        return partial(out.fill, 0)
    g = Unrolled.of(call.op, x.shape, out.shape, y.shape, x.itemsize)
    if g.depthwise:
        return _depthwise_kernel_adjoint(call, g, x, y, out)
    pieces, memory = _workers(call, g)
    size = align(g.depth * g.outputs[3] * g.itemsize)
    # Each worker adds up its own images; the sums are joined in order, so the same threads give the same bits.
    sums = [m[: out.size * g.itemsize].view(x.dtype).reshape(g.depth, g.outputs[3]) for m in memory]
    parts = [m[size : size + out.size * g.itemsize].view(x.dtype).reshape(g.depth, g.outputs[3]) for m in memory]
    unrollers = [] if g.pointwise else [_Unroller(g, m[2 * size :], x.dtype) for m in memory]
    per_group = g.outputs[3] // g.groups

    def body(worker: int, first: int, last: int) -> None:
        images = x[first:last]
        columns = images.reshape(1, -1, g.depth) if g.pointwise else unrollers[worker](images)
        source, part = y[first:last].reshape(-1, g.outputs[3]), parts[worker]
        for group in range(g.groups):
            o = slice(group * per_group, (group + 1) * per_group)
            np.matmul(columns[group].T, source[:, o], out=part[:, o])
        np.add(sums[worker], part, out=sums[worker])

    run = _cleared(unrollers, _over_batch(pieces, g.images[0], g.step(), body))
    result = out.reshape(g.depth, g.outputs[3])

    def total() -> None:
        for partial_sum in sums:
            partial_sum.fill(0)
        run()
        np.copyto(result, sums[0])
        for partial_sum in sums[1:]:
            np.add(result, partial_sum, out=result)

    return total


def _depthwise_kernel_adjoint(call: Call, g: Unrolled, x: Array, y: Array, out: Array) -> Kernel:
    (t,) = call.scratch(y.shape, dtype=y.dtype)
    places = taps(g.window, g.images[1:3], g.outputs[1:3])
    moves = [(pixels(x, p.inside), pixels(y, p.outside), pixels(t, p.outside), out[p.row, p.column, 0]) for p in places]

    def run() -> None:
        out.fill(0)  # taps that meet only padding
        for source, windows, product, target in moves:
            np.multiply(source, windows, out=product)
            np.add.reduce(product, axis=(0, 1, 2), out=target)

    return run
