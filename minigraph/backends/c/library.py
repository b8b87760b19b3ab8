"""Steps that are one call of a kernel written by hand: reductions, softmax and its kin, poolings of any windows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from minigraph.backends.c.steps import KernelCode, is_parallel
from minigraph.backends.loops.body import shape_of
from minigraph.backends.loops.expressions import CTYPES, FLOATS
from minigraph.ir.node import Node
from minigraph.ir.op import Op
from minigraph.ir.types import TensorType
from minigraph.ops import indexing, loss, pool, reduction

# How a call is written: the node → the C++ call, but for the arrays; None where the kernel does not fit.
Write = Callable[[Node, Any], str | None]


def _folded(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, int, int] | None:
    """Return a shape as (outer, k, inner), k the axes; None if they do not lie side by side."""
    axes = tuple(sorted(a % len(shape) for a in axes)) if shape else ()
    if not axes or axes != tuple(range(axes[0], axes[-1] + 1)) or 0 in shape:
        return None
    sizes = shape[: axes[0]], shape[axes[0] : axes[-1] + 1], shape[axes[-1] + 1 :]
    return math.prod(sizes[0]), math.prod(sizes[1]), math.prod(sizes[2])


def _rows(name: str) -> Write:
    def write(node: Node, op: Any) -> str | None:
        axes = getattr(op, "axes", None)
        sizes = _folded(shape_of(node.inputs[0]), (op.axis,) if axes is None else axes)
        return None if sizes is None else f"{name}(team, {', '.join(map(str, sizes))}"

    return write


def _one_hot(node: Node, op: indexing.OneHot) -> str | None:
    shape = shape_of(node)
    sizes = _folded(shape, (op.axis,))
    return None if sizes is None else f"one_hot(team, {', '.join(map(str, sizes))}"


def _windows(node: Node, op: pool.Pool, image: Node, windows: Node) -> str:
    (n, h, w, c), (_, oh, ow, _) = shape_of(image), shape_of(windows)
    (top, _), (left, _) = op.window.pads((h, w))
    numbers = (n, h, w, c, oh, ow, c, *op.size, *op.strides, *op.dilations, top, left, 1)
    return f"Conv{{{', '.join(map(str, numbers))}}}"


def _counted(op: pool.AvgPool2D, image: Node) -> str:
    """Return the rows and columns whose elements an average counts."""
    ranges = []
    for axis, (before, after) in enumerate(op.window.pads((shape_of(image)[1], shape_of(image)[2]))):
        size = shape_of(image)[1 + axis]
        begin, end = (-before, size + after - op.overhang[axis]) if op.count_padding else (0, size)
        ranges.append(f"Range{{{begin}, {end}}}")
    return ", ".join(ranges)


_ROWS: dict[type[Op], Write] = {
    loss.Softmax: _rows("softmax"),
    loss.LogSoftmax: _rows("log_softmax"),
    loss.SoftmaxCrossEntropy: _rows("softmax_cross_entropy"),
    reduction.LogSumExp: _rows("logsumexp"),
    reduction.Sum: _rows("reduce<Adding>"),
    reduction.Mean: _rows("reduce<Adding>"),
    reduction.Max: _rows("reduce<Largest>"),
    reduction.Min: _rows("reduce<Smallest>"),
    indexing.OneHot: _one_hot,
}
_POOLS: dict[type[Op], Write] = {
    pool.MaxPool2D: lambda node, op: f"max_pool(team, {_windows(node, op, node.inputs[0], node)}",
    pool.MaxPool2DAdjoint: lambda node, op: f"max_pool_adjoint(team, {_windows(node, op, node, node.inputs[1])}",
    pool.MaxPool2DSelect: lambda node, op: f"max_pool_select(team, {_windows(node, op, node.inputs[0], node)}",
    pool.AvgPool2D: lambda node, op: (
        f"avg_pool(team, {_windows(node, op, node.inputs[0], node)}, {_counted(op, node.inputs[0])}"
    ),
    pool.AvgPool2DAdjoint: lambda node, op: (
        f"avg_pool_adjoint(team, {_windows(node, op, node, node.inputs[0])}, {_counted(op, node)}"
    ),
}


def library_code(node: Node, threads: int) -> KernelCode | None:
    """Return the call that computes a node, or None if there is none."""
    kind = type(node.op)
    if not isinstance(node.type, TensorType) or node.dtype not in FLOATS:
        return None
    write, header = (_ROWS[kind], "rows.h") if kind in _ROWS else (_POOLS.get(kind), "pool.h")
    call = write(node, node.op) if write is not None else None
    if call is None or 0 in shape_of(node):
        return None
    last = ""
    if isinstance(node.op, reduction.Reduction) and kind is not reduction.LogSumExp:  # what a sum is divided by
        k = math.prod(shape_of(node.inputs[0])[a] for a in node.op.axes)
        last = f", ({CTYPES[node.dtype]}){k if kind is reduction.Mean else 1}"
    return KernelCode(
        lambda arrays: [f"{call}, {', '.join(arrays[:-1])}{last});"], (header,), is_parallel(node, threads)
    )
