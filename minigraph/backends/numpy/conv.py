"""Kernels of convolution and its adjoints: unroll windows into a matrix in cache-sized pieces, then multiply (im2col).

N,H,W,C only. Images, or the rows of a few, are shared among workers, each with its own scratch memory and one BLAS
thread. All arrays are sliced when a kernel is made: a call is a list of copies and products.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np

from minigraph.backends.geometry import Geometry
from minigraph.backends.numpy import threads, winograd
from minigraph.backends.numpy.call import Array, Call, Kernel, Scratch, Steps, align
from minigraph.backends.numpy.registry import kernel
from minigraph.backends.numpy.unroll import Unroller
from minigraph.backends.numpy.window import Share, pixels, shares, taps
from minigraph.ir.node import Node
from minigraph.ops import conv
from minigraph.ops.window import Window

# A kernel above this size is shared by channels, so that no worker has a copy of the sum to add up.
LARGE_KERNEL = 1 << 20


# --- forward ------------------------------------------------------------------------------------------------------


def _forward_workspace(node: Node) -> int:
    return forward_bytes(Geometry.of_node(node))


def forward_bytes(g: Geometry) -> int:
    """Return the workspace of `forward`: whether all digits are asked for is not known yet."""
    if g.pointwise:
        return 0
    if g.depthwise:
        return align(math.prod(g.outputs) * g.itemsize)
    workers = threads.workers(g.flops)
    unrolled = sum(Unroller.nbytes(g, share) for share in _split(g, workers)[0])
    return max(unrolled, winograd.forward_bytes(g) if winograd.applies(g) else 0)


@kernel(conv.Conv2D, workspace=_forward_workspace)
def _conv2d(call: Call) -> Kernel:
    x, w = call.inputs
    if not (x.size and w.size):
        return partial(call.output.fill, 0)
    return forward(call, Geometry.of(call.op, x.shape, w.shape, call.output.shape, x.itemsize), x, w, call.output)


def forward(call: Call, g: Geometry, x: Array, w: Array, out: Array) -> Kernel:
    """Return the kernel out = conv2d(x, w)."""
    if g.pointwise:
        return _pointwise(call, g, x, w, out)
    if g.depthwise:
        return _depthwise(call, g, x, w, out)
    if winograd.applies(g) and not call.exact:
        return winograd.forward(call, g, x, w, out)
    scratch, matrix = Scratch(call.workspace, x.dtype), w.reshape(g.depth, -1)
    parts: list[list[Kernel]] = []
    for share, (first, last) in zip(*_split(g, threads.workers(g.flops)), strict=True):
        unroller, calls = Unroller(g, share, scratch), []
        per_group = (last - first) // g.groups
        for piece in unroller.pieces():
            columns, filled = unroller.columns(x, piece)
            calls += filled
            target = piece.of(out).reshape(-1, g.outputs[3])
            for group, source in enumerate(columns):
                o = slice(first + group * per_group, first + (group + 1) * per_group)
                calls.append(partial(np.matmul, source, matrix[:, o], out=target[:, o]))
        parts.append(calls)
    return threads.spread(parts, call.threads)


def _split(g: Geometry, workers: int) -> tuple[list[Share], list[tuple[int, int]]]:
    """Return each worker's rows and columns of the product: all columns of some rows, or the other way round."""
    images, height, width, channels = g.outputs
    if (
        g.groups == 1
        and images * height * width < threads.FEWEST_ROWS * workers
        and channels >= threads.FEWEST_ROWS * workers
    ):
        columns = threads.ranges(channels, workers)
        return [Share(0, images, 0, height)] * len(columns), columns
    rows = shares(images, height, workers)
    return rows, [(0, channels)] * len(rows)


def _pointwise(call: Call, g: Geometry, x: Array, w: Array, out: Array) -> Kernel:
    source, target = x.reshape(-1, g.images[3]), out.reshape(-1, g.outputs[3])
    return threads.product(source, w.reshape(g.images[3], -1), target, call.threads)


def _depthwise(call: Call, g: Geometry, x: Array, w: Array, out: Array) -> Kernel:
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
    g = Geometry.of_node(node)
    if g.depthwise:
        return align(math.prod(g.outputs) * g.itemsize)
    rotated = _rotated(g)
    if rotated is not None:
        return _rotated_kernel_bytes(g) + forward_bytes(rotated)
    return sum(Unroller.nbytes(g, share, room) for share, room in _whole_images(g, threads.workers(g.flops)))


def _whole_images(g: Geometry, workers: int) -> list[tuple[Share, int]]:
    """Return each worker's images, and the bytes that the unrolled windows of one take."""
    room = math.prod(g.outputs[1:3]) * g.depth * g.groups * g.itemsize
    return [(Share(first, last, 0, g.outputs[1]), room) for first, last in threads.ranges(g.images[0], workers)]


def _rotated(g: Geometry) -> Geometry | None:
    """Return the convolution that computes the adjoint at stride 1: the kernel turned by 180°, padded to fit.

    One product with cache-resident windows instead of a scattered sum. None where it does not apply or not pay.
    """
    few = math.prod(g.outputs[:3]) <= 2 * g.outputs[3]  # turning the kernel would take longer than adding up
    if g.window.strides != (1, 1) or g.groups != 1 or (few and g.window.size != (1, 1)):
        return None
    pads = tuple(
        (extent - 1 - before, extent - 1 - after)
        for extent, (before, after) in zip(g.window.extent, g.pads, strict=True)
    )
    if any(p < 0 for pair in pads for p in pair):
        return None
    window = Window(g.window.size, (1, 1), g.window.dilations, pads)
    return Geometry(window, g.outputs, g.images, 1, g.itemsize)


def _rotated_kernel_bytes(g: Geometry) -> int:
    return align(g.depth * g.outputs[3] * g.itemsize)


@kernel(conv.Conv2DTranspose, workspace=_transpose_workspace)
def _conv2d_transpose(call: Call) -> Kernel:
    y, w = call.inputs
    out = call.output
    if not (y.size and w.size):
        return partial(out.fill, 0)
    g = Geometry.of(call.op, out.shape, w.shape, y.shape, y.itemsize)
    if g.depthwise:
        return _depthwise_adjoint(call, g, y, w, out)
    rotated = _rotated(g)
    if rotated is None:
        return _scattered(call, g, y, w, out)
    if rotated.pointwise:
        source, target = y.reshape(-1, g.outputs[3]), out.reshape(-1, g.images[3])
        return threads.product(source, w.reshape(g.images[3], -1).T, target, call.threads)
    if winograd.applies(rotated) and not call.exact:
        return winograd.forward(call, rotated, y, w, out, turned=True)
    size = _rotated_kernel_bytes(g)
    turned = call.workspace[: w.nbytes].view(w.dtype).reshape(*g.window.size, g.outputs[3], g.images[3])
    run = forward(replace(call, workspace=call.workspace[size:]), rotated, y, turned, out)
    return Steps([partial(np.copyto, turned, w[::-1, ::-1].transpose(0, 1, 3, 2)), run])


def _scattered(call: Call, g: Geometry, y: Array, w: Array, out: Array) -> Kernel:
    """Any stride and groups: each output pixel's share of every window it lay in, added tap by tap (col2im)."""
    scratch, matrix = Scratch(call.workspace, y.dtype), w.reshape(g.depth, -1)
    parts = []
    for share, room in _whole_images(g, threads.workers(g.flops)):
        unroller, calls = Unroller(g, share, scratch, room), []
        for piece in unroller.pieces():
            calls += _scatter(g, piece.of(y), matrix, unroller, out[piece.first_image : piece.last_image])
        parts.append(calls)
    return threads.spread(parts, call.threads)


def _scatter(g: Geometry, y: Array, matrix: Array, unroller: Unroller, out: Array) -> list[Kernel]:
    into, outof = g.images[3] // g.groups, g.outputs[3] // g.groups
    calls: list[Kernel] = [partial(out.fill, 0)]
    source, places = y.reshape(-1, g.outputs[3]), taps(g.window, g.images[1:3], g.outputs[1:3])
    for group, shares_ in enumerate(unroller.matrices(len(source))):
        o = slice(group * outof, (group + 1) * outof)
        calls.append(partial(np.matmul, source[:, o], matrix[:, o].T, out=shares_))
        by_tap = shares_.reshape(*y.shape[:3], *g.window.size, into)
        channels = out[..., group * into : (group + 1) * into]
        for p in places:
            part = pixels(channels, p.inside)
            calls.append(partial(np.add, part, pixels(by_tap[..., p.row, p.column, :], p.outside), out=part))
    return calls


def _depthwise_adjoint(call: Call, g: Geometry, y: Array, w: Array, out: Array) -> Kernel:
    (t,) = call.scratch(y.shape, dtype=y.dtype)
    places = taps(g.window, g.images[1:3], g.outputs[1:3])
    moves = [(pixels(y, p.outside), w[p.row, p.column, 0], pixels(t, p.outside), pixels(out, p.inside)) for p in places]
    return _add_up(out, moves)


# --- the adjoint with respect to the kernel -----------------------------------------------------------------------


def _kernel_adjoint_workspace(node: Node) -> int:
    g = Geometry.of_node(node)
    if g.depthwise:
        return align(math.prod(g.outputs) * g.itemsize)
    if g.pointwise:
        return 0
    workers = threads.workers(g.flops)
    unrolled = 0
    for part, _, share, room in _kernel_parts(g, workers):
        sums = (part is g) + (Unroller.number(part, share, room) > 1)
        unrolled += sums * align(part.depth * g.outputs[3] * g.itemsize) + Unroller.nbytes(part, share, room)
    return max(unrolled, winograd.adjoint_bytes(g) if winograd.applies(g) else 0)


def _kernel_parts(g: Geometry, workers: int) -> list[tuple[Geometry, slice, Share, int]]:
    """Return, for each worker, the geometry and the channels it computes, the images it reads, the bytes of a piece.

    Of a large kernel each worker computes some input channels; of a small one all, of its own images.
    """
    images, height = g.outputs[:2]
    nbytes = g.depth * g.outputs[3] * g.itemsize
    if g.groups > 1 or nbytes < LARGE_KERNEL:
        return [(g, slice(None), share, nbytes) for share in shares(images, height, workers)]
    parts = []
    for first, last in threads.ranges(g.images[3], workers):
        part = replace(g, images=(*g.images[:3], last - first))
        parts.append((part, slice(first, last), Share(0, images, 0, height), 4 * nbytes))
    return parts


@kernel(conv.Conv2DKernelAdjoint, workspace=_kernel_adjoint_workspace)
def _conv2d_kernel_adjoint(call: Call) -> Kernel:
    x, y = call.inputs
    out = call.output
    if not (x.size and y.size):
        return partial(out.fill, 0)
    g = Geometry.of(call.op, x.shape, out.shape, y.shape, x.itemsize)
    workers = threads.workers(g.flops)
    if g.depthwise:
        return _depthwise_kernel_adjoint(call, g, x, y, out)
    if g.pointwise:
        source, target = x.reshape(-1, g.depth).T, out.reshape(g.depth, -1)
        return threads.product(source, y.reshape(-1, g.outputs[3]), target, call.threads)
    if winograd.applies(g) and not call.exact:
        return winograd.kernel_adjoint(call, g, x, y, out)
    scratch = Scratch(call.workspace, x.dtype)
    by_tap = out.reshape(-1, g.images[3] // g.groups, g.outputs[3])
    sums, calls = [], []
    for part, channels, share, room in _kernel_parts(g, workers):
        total = by_tap[:, channels] if part is not g else scratch.array(part.depth, g.outputs[3])
        several = Unroller.number(part, share, room) > 1
        one = scratch.array(part.depth, g.outputs[3]).reshape(total.shape) if several else total
        calls.append(_added_up(Unroller(part, share, scratch, room), x[..., channels], y, total, one))
        sums.append(total)
    if sums[0].ndim == 3:
        return threads.spread(calls, call.threads)
    result = out.reshape(g.depth, -1)
    # The sums are joined in order, so the same threads give the same bits.
    joined = [partial(np.copyto, result, sums[0]), *(partial(np.add, result, s, out=result) for s in sums[1:])]
    return Steps([threads.spread(calls, call.threads), *joined])


def _added_up(unroller: Unroller, x: Array, y: Array, total: Array, one: Array) -> list[Kernel]:
    """Return the calls that add up the products of all pieces of a worker; the first needs no adding.

    The total is a matrix (depth, O), or lies tap by tap among other channels: (taps, channels, O).
    """
    g = unroller.geometry
    per_group = g.outputs[3] // g.groups
    calls: list[Kernel] = []
    for number, piece in enumerate(unroller.pieces()):
        columns, filled = unroller.columns(x, piece)
        source, target = piece.of(y).reshape(-1, g.outputs[3]), one if number else total
        calls += filled
        for group, windows in enumerate(columns):
            o = slice(group * per_group, (group + 1) * per_group)
            left = windows.T if total.ndim == 2 else windows.reshape(-1, *total.shape[:2]).transpose(1, 2, 0)
            calls.append(partial(np.matmul, left, source[:, o], out=target[..., o]))
        if number:
            calls.append(partial(np.add, total, target, out=total))
    return calls


def _depthwise_kernel_adjoint(call: Call, g: Geometry, x: Array, y: Array, out: Array) -> Kernel:
    (t,) = call.scratch(y.shape, dtype=y.dtype)
    places = taps(g.window, g.images[1:3], g.outputs[1:3])
    moves = [(pixels(x, p.inside), pixels(y, p.outside), pixels(t, p.outside), out[p.row, p.column, 0]) for p in places]

    def run() -> None:
        out.fill(0)  # taps that meet only padding
        for source, windows, product, target in moves:
            np.multiply(source, windows, out=product)
            np.add.reduce(product, axis=(0, 1, 2), out=target)

    return run
