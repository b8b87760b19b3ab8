"""Steps that move elements or make them of nothing: transposes, slices, pads, pieces, random numbers.

All that moves as a whole is one kernel, a copy from strides to strides. Gathers that refuse an index out of range are
left to NumPy: a program that is one call, and writes its updates as it goes, has no way to say so in time.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

from minigraph.backends.c.steps import KernelCode, Lines, aligned, is_parallel
from minigraph.backends.loops.body import shape_of
from minigraph.backends.loops.domain import strides
from minigraph.backends.loops.expressions import CTYPES, FLOATS, number
from minigraph.ir.node import Node
from minigraph.ir.op import Op
from minigraph.ir.types import DTYPES, TensorType
from minigraph.ops import indexing, norm, random, reduction, shape

Shape = tuple[int, ...]
# An axis of a copy: its size, and how far neighbours lie apart in the source and in the target.
Axis = tuple[int, int, int]


def joined(axes: Sequence[Axis]) -> list[Axis]:
    """Return the axes of a copy in the order of the kernel, as few as may be, but two at least.

    >>> joined([(2, 12, 12), (3, 4, 4), (4, 1, 1)])
    [(1, 0, 0), (24, 1, 1)]
    >>> joined([(5, 1, 3), (3, 5, 1)])
    [(5, 1, 3), (3, 5, 1)]
    """
    found: list[Axis] = []
    for size, source, target in axes:
        if size == 1:
            continue
        if found and (found[-1][1], found[-1][2]) == (source * size, target * size):
            found[-1] = (found[-1][0] * size, source, target)
        else:
            found.append((size, source, target))
    # The sort is stable: the axis along which the target has no gaps comes last, before it the source's.
    last = min(found, key=lambda axis: abs(axis[2]), default=None)
    before = min((a for a in found if a is not last), key=lambda axis: abs(axis[1]), default=None)
    found.sort(key=lambda axis: (axis is before) + 2 * (axis is last))
    return [(1, 0, 0)] * (2 - len(found)) + found


def copy(axes: Sequence[Axis], source: str, target: str) -> str:
    """Return the call that copies along these axes."""
    order = joined(axes)
    columns = ("{" + ", ".join(str(axis[i]) for axis in order) + "}" for i in range(3))
    return f"copy(team, Places<{len(order)}>{{{', '.join(columns)}}}, {source}, {target});"


def _whole(node: Node) -> Shape:
    return strides(shape_of(node))


def _transpose(node: Node, op: shape.Transpose) -> Lines:
    source = _whole(node.inputs[0])
    axes = list(zip(shape_of(node), (source[a] for a in op.axes), _whole(node), strict=True))
    return lambda at: [copy(axes, at[0], at[1])]


def _slice(node: Node, op: indexing.Slice) -> Lines:
    source = _whole(node.inputs[0])
    taken = [stride * step for stride, step in zip(source, op.steps, strict=True)]
    axes = list(zip(shape_of(node), taken, _whole(node), strict=True))
    return lambda at: [copy(axes, _shifted(at[0], op.starts, source), at[1])]


def _shifted(address: str, starts: Sequence[int], by: Sequence[int]) -> str:
    offset = sum(start * stride for start, stride in zip(starts, by, strict=True))
    return f"{address} + {offset}" if offset else address


def _laid(node: Node, starts: Sequence[int], steps: Sequence[int], value: float) -> Lines:
    """Return the code that lays x into a constant."""
    x, target, ctype = node.inputs[0], _whole(node), CTYPES[node.dtype]
    taken = [stride * step for stride, step in zip(target, steps, strict=True)]
    axes = list(zip(shape_of(x), _whole(x), taken, strict=True))
    size, empty = math.prod(shape_of(node)), 0 in shape_of(x)

    def lines(at: Sequence[str]) -> list[str]:
        filled = f"fill(team, {size}, ({ctype}){number(value, ctype)}, {at[1]});"
        return [filled] if empty else [filled, "team.barrier();", copy(axes, at[0], _shifted(at[1], starts, target))]

    return lines


def _slice_adjoint(node: Node, op: indexing.SliceAdjoint) -> Lines:
    return _laid(node, op.starts, op.steps, 0)


def _pad(node: Node, op: indexing.Pad) -> Lines:
    return _laid(node, [before for before, _ in op.padding], (1,) * node.rank, op.value)


def _concat(node: Node, op: shape.Concat) -> Lines:
    return _pieces(node, [shape_of(x) for x in node.inputs], op.axis, into=True)


def _split(node: Node, op: shape.Split) -> Lines:
    assert not isinstance(node.type, TensorType)
    x = node.inputs[0]
    pieces = [tuple(s for s in t.shape if isinstance(s, int)) for t in node.type.items]
    return _pieces(x, pieces, op.axis, into=False)


def _pieces(whole: Node, pieces: Sequence[Shape], axis: int, into: bool) -> Lines:
    """Return the code that copies pieces that lie one behind the other into a whole array, or out of it."""
    apart = _whole(whole)
    starts = itertools.accumulate((piece[axis] * apart[axis] for piece in pieces), initial=0)
    parts = [(i, piece, start) for i, (piece, start) in enumerate(zip(pieces, starts, strict=False)) if 0 not in piece]

    def lines(at: Sequence[str]) -> list[str]:
        text = []
        for i, piece, start in parts:
            if into:
                axes = list(zip(piece, strides(piece), apart, strict=True))
                text.append(copy(axes, at[i], f"{at[len(pieces)]} + {start}"))
            else:
                axes = list(zip(piece, apart, strides(piece), strict=True))
                text.append(copy(axes, f"{at[0]} + {start}", at[1 + i]))
        return text

    return lines


def _gather(node: Node, op: indexing.Gather) -> Lines:
    x, count = shape_of(node.inputs[0]), math.prod(shape_of(node.inputs[1]))
    axis = op.axis % len(x)
    sizes = f"{math.prod(x[:axis])}, {x[axis]}, {math.prod(x[axis + 1 :])}, {count}"
    return lambda at: [f"gather_clipped(team, {sizes}, {at[0]}, {at[1]}, {at[2]});"]


def _count(node: Node, op: shape.CountOf) -> Lines:
    count = math.prod(shape_of(node.inputs[0])[a] for a in op.axes)
    return lambda at: [f"fill(team, 1, ({CTYPES[node.dtype]}){count}, {at[1]});"]


def _random(node: Node, op: random.RandomUniform) -> Lines:
    size = math.prod(shape_of(node))
    return lambda at: [f"random_uniform(team, {size}, {op.key[0]}u, {op.key[1]}u, {at[0]}, {at[1]});"]


_MOVES: dict[type[Op], Callable[[Node, Any], Lines]] = {
    shape.Transpose: _transpose, shape.Concat: _concat, shape.Split: _split, shape.CountOf: _count,
    indexing.Slice: _slice, indexing.SliceAdjoint: _slice_adjoint, indexing.Pad: _pad, random.RandomUniform: _random,
    indexing.Gather: _gather,
}  # fmt: skip


# --- reductions along any axes ----------------------------------------------------------------------------------------

_REDUCTIONS: dict[type[Op], str] = {
    reduction.Sum: "reduce<Adding>", reduction.Mean: "reduce<Adding>", reduction.Max: "reduce<Largest>",
    reduction.Min: "reduce<Smallest>", reduction.LogSumExp: "logsumexp", norm.Moments: "row_moments",
    reduction.ArgMax: "argmax",
}  # fmt: skip


def _reduction(node: Node, threads: int) -> KernelCode | None:
    """Return the code of a reduction: its axes are moved behind the others first, if they do not lie side by side."""
    op, x = node.op, node.inputs[0]
    whole = shape_of(x)
    taken = (op.axis,) if isinstance(op, reduction.ArgMax) else op.axes  # type: ignore[attr-defined]
    axes = sorted(a % len(whole) for a in taken)
    if 0 in whole or (x.dtype not in FLOATS and not isinstance(op, reduction.ArgMax)):
        return None
    side_by_side = not axes or axes == list(range(axes[0], axes[-1] + 1))
    order = [a for a in range(len(whole)) if a not in axes] + axes
    moved = tuple(whole[a] for a in order)
    k = math.prod(whole[a] for a in axes)
    inner = math.prod(whole[axes[-1] + 1 :]) if axes and side_by_side else 1
    sizes = f"{math.prod(whole) // (k * inner)}, {k}, {inner}"
    copied = list(zip(moved, (strides(whole)[a] for a in order), strides(moved), strict=True))
    divided = isinstance(op, (reduction.Sum, reduction.Mean, reduction.Max, reduction.Min))
    divisor = f", ({CTYPES[x.dtype]}){k if isinstance(op, reduction.Mean) else 1}" if divided else ""

    def lines(at: Sequence[str]) -> list[str]:
        source, text = at[0], []
        if not side_by_side:
            source = f"({CTYPES[x.dtype]}*)({at[-1]})"
            text = [copy(copied, at[0], source), "team.barrier();"]
        results = ", ".join(at[1:-1])
        return [*text, f"{_REDUCTIONS[type(op)]}(team, {sizes}, {source}, {results}{divisor});"]

    workspace = 0 if side_by_side else aligned(math.prod(whole) * DTYPES[x.dtype])
    return KernelCode(lines, ("rows.h", "movement.h"), is_parallel(node, threads), workspace)


def movement_code(node: Node, threads: int) -> KernelCode | None:
    """Return the calls that compute a node, or None if there are none."""
    kind = type(node.op)
    if (kind not in _MOVES and kind not in _REDUCTIONS) or getattr(node.op, "mode", "clip") != "clip":
        return None
    types = [node.type] if isinstance(node.type, TensorType) else list(node.type.items)
    if any(t.dtype not in CTYPES for t in (*types, *(i.tensor_type for i in node.inputs))):
        return None
    if kind in _REDUCTIONS:
        return _reduction(node, threads)
    lines = (lambda at: []) if all(0 in t.shape for t in types) else _MOVES[kind](node, node.op)
    return KernelCode(lines, ("movement.h",), is_parallel(node, threads))
