"""Bounds of what moves elements, of leaves, and of casts: the error moves along with the value."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigraph.backends.dtypes import array_dtype
from minigraph.ir.leaves import Constant, Input, Item, Variable
from minigraph.ir.node import Node
from minigraph.ir.types import TensorType, is_float
from minigraph.ops import indexing, shape
from minigraph.ops.fused import Fused
from minigraph.ops.group import Group
from minigraph.ops.random import RandomUniform
from minigraph.ops.region import Function, inline, inlined_results
from minigraph.testing.bounds.bounded import Call, Unit, bound, expansion


@bound(Input, Variable, Constant, moves=True)
def _leaf(call: Call) -> Any:
    """0: given. Where another dtype is computed in, what rounding to it makes of the value."""
    return _stored(call.value, call.unit) if call.value.dtype.kind == "f" else 0.0


def _stored(value: Any, unit: Unit) -> Any:
    """Return how far values are from the nearest numbers of a dtype; NaN and ∞ are in all of them."""
    return np.where(np.isfinite(value), np.abs(value.astype(array_dtype(unit.dtype)).astype(np.float64) - value), 0.0)


@bound(
    shape.Reshape, shape.Transpose, shape.BroadcastTo, shape.Concat, shape.Split, indexing.Slice, indexing.SliceAdjoint,
    moves=True,
)  # fmt: skip
def _moved(call: Call) -> Any:
    """The errors, moved as the values are."""
    if any(x.inexact for x in call.operands):
        return call.apply(*(x.error for x in call.operands))
    return (0.0,) * len(call.value) if isinstance(call.value, tuple) else 0.0


@bound(Item, moves=True)
def _item(call: Call) -> Any:
    """That item's error."""
    return call.operands[0].error[call.op.index]


@expansion(shape.After)
def _after(node: Node) -> Node:
    """The first operand itself."""
    return node.inputs[0]


@expansion(Fused)
def _fused(node: Node) -> Node:
    """The ops inside, one by one."""
    return inline(node)


@expansion(Function, Group)
def _several(node: Node) -> Node | list[Node]:
    """The ops inside, one by one; one node for each result."""
    return inline(node) if isinstance(node.type, TensorType) else inlined_results(node)


@bound(indexing.Pad, moves=True)
def _pad(call: Call) -> Any:
    """The errors, with the rounding error of the padding's value around them."""
    return call.apply(call.operands[0].error, value=call.unit.stored(call.op.value))


@bound(indexing.Gather, moves=True)
def _gather(call: Call) -> Any:
    """The errors of the elements taken; where an index is not sure, how far apart the elements along the axis are."""
    x, indices = call.operands
    taken = call.apply(x.error, indices.value)
    if not indices.inexact:
        return taken
    axis = call.op.axis
    apart = x.high.max(axis=axis, keepdims=True) - x.low.min(axis=axis, keepdims=True)
    anywhere = call.apply(np.broadcast_to(apart, x.value.shape), indices.value)
    inside = np.abs(indices.value) + indices.error < (np.inf if call.op.mode == "clip" else x.value.shape[axis])
    return np.where(_wide(indices.error > 0, call), np.where(_wide(inside, call), anywhere, np.inf), taken)


def _wide(mask: Any, call: Call) -> Any:
    """Return a mask over indices shaped to stand beside gathered slices."""
    x, axis = call.operands[0].value, call.op.axis % call.operands[0].value.ndim
    return mask.reshape((1,) * axis + mask.shape + (1,) * (x.ndim - axis - 1))


@bound(indexing.GatherAdjoint)
def _gather_adjoint(call: Call) -> Any:
    """The errors added up where the values are, so often as an index repeats; unsure ones may land anywhere."""
    x, indices = call.operands
    size = max(call.value.shape[call.op.axis], 1)
    places = np.clip(indices.value, 0, size - 1) if call.op.mode == "clip" else indices.value % size
    repeats = int(np.unique(places, return_counts=True)[1].max(initial=1))
    error = call.apply(x.error, indices.value) + call.rounding(call.apply(x.reach, indices.value), repeats - 1)
    if not indices.inexact:
        return error
    axis, count = call.op.axis % call.value.ndim, indices.value.ndim
    unsure = (indices.error > 0).reshape((1,) * axis + indices.value.shape + (1,) * (x.value.ndim - axis - count))
    loose = np.where(unsure, x.reach, 0.0).sum(axis=tuple(range(axis, axis + count)))
    return error + np.expand_dims(2.0 * loose, axis) + call.rounding(np.expand_dims(loose, axis), indices.value.size)


@bound(indexing.OneHot)
def _one_hot(call: Call) -> Any:
    """0; 1 at the classes that a label which is not sure can be."""
    labels, axis = call.operands[0], call.op.axis % call.value.ndim
    if not labels.inexact:
        return 0.0
    classes = np.arange(call.op.classes).reshape([-1 if i == axis else 1 for i in range(call.value.ndim)])
    value, error = (np.expand_dims(a, axis) for a in (labels.value, labels.error))
    return np.where((error > 0) & (np.abs(classes - value) <= error), 1.0, 0.0)


@bound(shape.CountOf, moves=True)
def _count(call: Call) -> Any:
    """How far the number is from the nearest one of the dtype."""
    return call.unit.stored(float(call.value))


@bound(RandomUniform)
def _random_uniform(call: Call) -> Any:
    """0: the same bits everywhere; anything at all from a counter that is not sure."""
    return 1.0 if call.operands[0].inexact else _stored(call.value, call.unit)


@bound(shape.Cast)
def _cast(call: Call) -> Any:
    """Ex, and one rounding if the dtype is narrower; to integers and booleans, how far the outcomes are apart."""
    if is_float(call.op.dtype):
        return _to_float(call)
    return _to_bool(call) if call.op.dtype == "bool" else _to_integer(call)


def _to_float(call: Call) -> Any:
    x, unit, source = call.operands[0], call.unit, call.unit_of(call.nodes[0].dtype)
    if source.roundoff >= unit.roundoff and source.largest <= unit.largest:
        return x.error
    value = np.asarray(x.value, np.float64)
    exact = (x.error == 0) & ((_stored(value, unit) == 0) | ~np.isfinite(value))
    if source.roundoff == 0:  # integers up to 1/u are numbers of the dtype
        exact = exact | (x.reach * unit.roundoff <= 1.0)
    return x.error + np.where(exact, 0.0, call.rounding(x.reach, 1))


def _to_bool(call: Call) -> Any:
    x = call.operands[0]
    return np.where((x.error > 0) & (x.low <= 0) & (x.high >= 0), 1.0, 0.0)


def _to_integer(call: Call) -> Any:
    """The fraction is cut off: a step function. What an integer cannot hold has no defined outcome."""
    x, info = call.operands[0], np.iinfo(call.op.dtype)
    apart = np.where(x.error > 0, np.trunc(x.high) - np.trunc(x.low), 0.0)
    if x.value.dtype.kind != "f" and not x.inexact:  # integers wrap around, alike everywhere
        return 0.0
    inside = (np.trunc(x.low) >= float(info.min)) & (np.trunc(x.high) < float(info.max) + 1)
    return np.where(inside, apart, np.inf)
