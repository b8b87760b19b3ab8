"""Reductions over axes."""

from __future__ import annotations

from collections.abc import Callable

from minigraph import ops
from minigraph.ir.node import Node
from minigraph.ir.types import is_float, known, normalize_axis, product
from minigraph.onnx.reader import Reader
from minigraph.onnx.reading.arithmetic import number
from minigraph.onnx.reading.registry import reads
from minigraph.onnx.reading.shape import axes_of

Axes = tuple[int, ...]
# What an op makes of the elements, how they are reduced, and what it makes of the result.
_REDUCTIONS: dict[str, Callable[[Node, Axes, bool], Node]] = {
    "ReduceSum": ops.sum,
    "ReduceMean": lambda x, axes, keep: _mean(x, axes, keep),
    "ReduceMax": lambda x, axes, keep: _extreme(x, axes, keep, largest=True),
    "ReduceMin": lambda x, axes, keep: _extreme(x, axes, keep, largest=False),
    "ReduceProd": lambda x, axes, keep: _product(x, axes, keep),
    "ReduceL1": lambda x, axes, keep: ops.sum(ops.abs(x), axes, keep),
    "ReduceL2": lambda x, axes, keep: _of_float(x, lambda y: ops.sqrt(ops.sum(y * y, axes, keep))),
    "ReduceSumSquare": lambda x, axes, keep: ops.sum(x * x, axes, keep),
    "ReduceLogSum": lambda x, axes, keep: _of_float(x, lambda y: ops.log(ops.sum(y, axes, keep))),
    "ReduceLogSumExp": lambda x, axes, keep: _of_float(x, lambda y: _log_sum_exp(y, axes, keep)),
}


@reads(*_REDUCTIONS)
def reduce(n: Reader) -> Node:
    """One value for all elements along some axes: all, unless they are given."""
    x = n.operand(0)
    listed = n.axes()
    if not listed and n.integer("noop_with_empty_axes", 0):
        return _REDUCTIONS[n.op_type](x, (), True) if n.op_type != "ReduceSum" else x
    axes = tuple(range(x.rank)) if not listed else axes_of(n, x)
    return _REDUCTIONS[n.op_type](x, axes, bool(n.integer("keepdims", 1)))


def _of_float(x: Node, function: Callable[[Node], Node]) -> Node:
    return function(x) if is_float(x.dtype) else ops.cast(function(ops.cast(x, "float64")), x.dtype)


def _mean(x: Node, axes: Axes, keep: bool) -> Node:
    return _of_float(x, lambda y: ops.mean(y, axes, keep))


def _log_sum_exp(x: Node, axes: Axes, keep: bool) -> Node:
    return ops.logsumexp(x, axes, keep) if _count(x, axes) else _nothing(x, axes, keep, float("-inf"))


def _count(x: Node, axes: Axes) -> bool:
    return product(x.shape[a] for a in axes) != 0


def _extreme(x: Node, axes: Axes, keep: bool, largest: bool) -> Node:
    if x.dtype == "bool":
        return ops.cast(_extreme(ops.cast(x, "uint8"), axes, keep, largest), "bool")
    if not _count(x, axes):  # the neutral element
        if is_float(x.dtype):
            return _nothing(x, axes, keep, float("-inf") if largest else float("inf"))
        width = {"8": 8, "6": 16, "2": 32, "4": 64}[x.dtype[-1]]
        signed = not x.dtype.startswith("u")
        low, high = (-(1 << (width - 1)), (1 << (width - 1)) - 1) if signed else (0, (1 << width) - 1)
        return _nothing(x, axes, keep, low if largest else high)
    return ops.max(x, axes, keep) if largest else ops.min(x, axes, keep)


def _nothing(x: Node, axes: Axes, keep: bool, value: float) -> Node:
    """Return what reducing no elements gives."""
    sizes = [1 if i in axes else s for i, s in enumerate(x.shape) if keep or i not in axes]
    return ops.broadcast_to(number(value, x.dtype), sizes)


def _product(x: Node, axes: Axes, keep: bool) -> Node:
    """Return the product along axes, by halves: exact for integers, and of depth log n."""
    for axis in axes:
        size = known(x.shape[axis], "a multiplied axis")
        if size == 0:
            x = ops.broadcast_to(number(1, x.dtype), [1 if i == axis else s for i, s in enumerate(x.shape)])
        while size > 1:
            half = size // 2
            rest = x[_range(x, axis, 2 * half, size)]
            x = x[_range(x, axis, 0, half)] * x[_range(x, axis, half, 2 * half)]
            x = ops.concat([x, rest], axis) if size % 2 else x
            size = half + size % 2
    return x if keep else ops.squeeze(x, axes)


def _range(x: Node, axis: int, start: int, stop: int) -> tuple[slice, ...]:
    return tuple(slice(start, stop) if i == axis else slice(None) for i in range(x.rank))


@reads("Softmax", "LogSoftmax")
def softmax(n: Reader) -> Node:
    """Along an axis; before opset 13 over all axes from `axis` on."""
    x = n.operand(0)
    function = ops.softmax if n.op_type == "Softmax" else ops.log_softmax
    if n.version >= 13:
        return function(x, n.integer("axis", -1))
    axis = n.integer("axis", 1)
    axis = axis if axis == x.rank else normalize_axis(axis, x.rank)
    wide = [i for i in range(axis, x.rank) if x.shape[i] != 1]
    if len(wide) <= 1 and axis < x.rank:
        return function(x, wide[0] if wide else axis)
    flat = ops.reshape(x, (product(x.shape[:axis]), product(x.shape[axis:])))
    return ops.reshape(function(flat, 1), x.shape)


@reads("Hardmax")
def hardmax(n: Reader) -> Node:
    """1 at the first largest element along an axis, else 0; before opset 13 over all axes from `axis` on."""
    x = n.operand(0)
    if n.version >= 13:
        return _largest(x, normalize_axis(n.integer("axis", -1), x.rank))
    axis = normalize_axis(n.integer("axis", 1), x.rank)
    flat = ops.reshape(x, (product(x.shape[:axis]), product(x.shape[axis:])))
    return ops.reshape(_largest(flat, 1), x.shape)


def _largest(x: Node, axis: int) -> Node:
    return ops.one_hot(ops.argmax(x, axis), known(x.shape[axis], "the axis"), axis, x.dtype)
