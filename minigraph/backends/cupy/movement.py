"""Steps that move elements or make them of nothing: transposes, slices, pads, pieces, random numbers.

Copies are between places of two arrays, by words as wide as sizes and gaps allow; where the last axis moves, tiles go
through shared memory. What is picked by indices is in `gathers`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from minigraph.backends.c.movement import Axis, joined
from minigraph.backends.cupy.dtypes import CUDA_TYPES
from minigraph.backends.cupy.gathers import gather_adjoint_code, gather_code
from minigraph.backends.cupy.places import WORDS, constant, fill, places, read, template, widest, written
from minigraph.backends.cupy.steps import Launch, StepCode, blocks_for
from minigraph.backends.loops.body import shape_of
from minigraph.backends.loops.domain import strides
from minigraph.ir.node import Node
from minigraph.ir.op import Op
from minigraph.ir.types import DTYPES, TensorType
from minigraph.ops import indexing, random, shape

# Axes shorter than this are not worth a tile of their own; the tiles' side for elements of up to 2 bytes, and of more.
_SHORT, _SIDES = 16, (64, 32)
_HEADERS = ("movement.cuh",)


# --- copies -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Copy:
    """A copy along axes, from an offset in the source to one in the target, in elements."""

    axes: Sequence[Axis]
    source: int = 0
    target: int = 0

    def width(self, itemsize: int) -> int:
        """Return how many elements are a word: neighbours in both arrays."""
        *outer, (size, source, target) = joined(self.axes)
        if (source, target) != (1, 1):
            return 1
        gaps = (gap for axis in outer if axis[0] > 1 for gap in axis[1:])
        return widest(itemsize, size, self.source, self.target, *gaps)

    def line(self, width: int, x: str, y: str) -> str:
        """Return the statement that copies by words of so many elements."""
        *outer, (size, source, target) = joined(self.axes)
        if width > 1:
            outer = [(n, s // width, t // width) for n, s, t in outer]
            size //= width
        order = [*outer, (size, source, target)]
        to, of = (places([(axis[0], axis[i]) for axis in order]) for i in (2, 1))
        return f"{template('copy', to, of)}({_shifted(x, self.source // width)}, {_shifted(y, self.target // width)});"


def _shifted(name: str, by: int) -> str:
    return f"{name} + {by}" if by else name


def _copied(node: Node, copy: _Copy) -> StepCode:
    """Return the code of one copy that makes the whole result."""
    width = copy.width(DTYPES[node.dtype])
    word = WORDS[width * DTYPES[node.dtype]]
    blocks = blocks_for(math.prod(shape_of(node)) // width)
    pointers = (read(word, "x", 0), written(word, "y", 1))
    return StepCode((Launch(node.op.name, pointers, (copy.line(width, "x", "y"),), blocks, headers=_HEADERS),))


def _transpose(node: Node, op: shape.Transpose) -> StepCode:
    source = strides(shape_of(node.inputs[0]))
    axes = list(zip(shape_of(node), (source[a] for a in op.axes), strides(shape_of(node)), strict=True))
    *batch, (columns, one, to), (rows, of, last) = joined(axes)
    if (one, last) != (1, 1) or of == 1 or min(rows, columns) < _SHORT:
        return _copied(node, _Copy(axes))
    itemsize = DTYPES[node.dtype]
    side, word = _SIDES[itemsize > 2], WORDS[itemsize]
    where = (places([(axis[0], axis[i]) for axis in batch]) for i in (1, 2))
    line = f"{template('transpose', side, rows, columns, of, to, *where)}(x, y);"
    blocks = math.prod(axis[0] for axis in batch) * -(-rows // side) * -(-columns // side)
    pointers = (read(word, "x", 0), written(word, "y", 1))
    return StepCode((Launch("transpose", pointers, (line,), blocks, headers=_HEADERS),))


def _slice(node: Node, op: indexing.Slice) -> StepCode:
    source = strides(shape_of(node.inputs[0]))
    taken = [stride * step for stride, step in zip(source, op.steps, strict=True)]
    start = sum(start * stride for start, stride in zip(op.starts, source, strict=True))
    return _copied(node, _Copy(list(zip(shape_of(node), taken, strides(shape_of(node)), strict=True)), start))


def _broadcast_to(node: Node, op: shape.BroadcastTo) -> StepCode:
    own = (1,) * (node.rank - node.inputs[0].rank) + shape_of(node.inputs[0])
    source = (0 if n == 1 else s for n, s in zip(own, strides(own), strict=True))
    return _copied(node, _Copy(list(zip(shape_of(node), source, strides(shape_of(node)), strict=True))))


def _pieces(whole: Node, pieces: Sequence[tuple[int, ...]], axis: int, into: bool) -> StepCode:
    """Return the code that copies pieces that lie one behind the other into a whole array, or out of it: one launch."""
    apart, itemsize = strides(shape_of(whole)), DTYPES[whole.dtype]
    starts = itertools.accumulate((piece[axis] * apart[axis] for piece in pieces), initial=0)
    copies = {}
    for i, (piece, start) in enumerate(zip(pieces, starts, strict=False)):
        if 0 not in piece:
            sides = (strides(piece), apart) if into else (apart, strides(piece))
            copies[i] = _Copy(list(zip(piece, *sides, strict=True)), *((0, start) if into else (start, 0)))
    if not copies:
        return StepCode(())
    width = min(copy.width(itemsize) for copy in copies.values())
    word = WORDS[width * itemsize]
    if into:
        pointers = [*(read(word, f"x{i}", i) for i in copies), written(word, "y", len(pieces))]
        lines = [copy.line(width, f"x{i}", "y") for i, copy in copies.items()]
    else:
        pointers = [read(word, "x", 0), *(written(word, f"y{i}", 1 + i) for i in copies)]
        lines = [copy.line(width, "x", f"y{i}") for i, copy in copies.items()]
    most = max(math.prod(pieces[i]) for i in copies)
    name = "concat" if into else "split"
    return StepCode((Launch(name, tuple(pointers), tuple(lines), blocks_for(most // width), headers=_HEADERS),))


def _concat(node: Node, op: shape.Concat) -> StepCode:
    return _pieces(node, [shape_of(x) for x in node.inputs], op.axis % node.rank, into=True)


def _split(node: Node, op: shape.Split) -> StepCode:
    assert not isinstance(node.type, TensorType)
    pieces = [tuple(s for s in t.shape if isinstance(s, int)) for t in node.type.items]
    return _pieces(node.inputs[0], pieces, op.axis % node.inputs[0].rank, into=False)


# --- what is laid into a constant, and constants ----------------------------------------------------------------------


def _laid(node: Node, starts: Sequence[int], steps: Sequence[int], value: float) -> StepCode:
    """Return the code that lays x into a constant: each element of the result asks which one of x it is."""
    x, ctype = shape_of(node.inputs[0]), CUDA_TYPES[node.dtype]
    axes: list[tuple[int, int, int, int, int]] = []
    for size, start, step, count, stride in zip(shape_of(node), starts, steps, x, strides(x), strict=True):
        if axes and axes[-1][2] == 1 and (start, step, count) == (0, 1, size):  # all of this axis is filled
            before = axes.pop()
            axes.append((before[0] * size, before[1] * size, 1, before[3] * size, stride))
        else:
            axes.append((size, start, step, count, stride))
    pack = 1
    if axes and axes[-1][2] == 1:
        size, start, _, count, _ = axes.pop()
        pack = widest(DTYPES[node.dtype], size, start, count)
        axes = [(*axis[:4], axis[4] // pack) for axis in axes]
        axes.append((size // pack, start // pack, 1, count // pack, 1))
    where = template("Laid", *(n for axis in reversed(axes) for n in axis))
    line = f"{template('lay', where, pack)}({constant(value, node.dtype)}, x, y);"
    blocks = blocks_for(math.prod(shape_of(node)) // pack)
    pointers = (read(ctype, "x", 0), written(ctype, "y", 1))
    return StepCode((Launch(node.op.name, pointers, (line,), blocks, headers=_HEADERS),))


def _one_hot(node: Node, op: indexing.OneHot) -> StepCode:
    sizes, axis = shape_of(node), op.axis % node.rank
    call = template("one_hot", math.prod(sizes), sizes[axis], math.prod(sizes[axis + 1 :]))
    pointers = (read(CUDA_TYPES[node.inputs[0].dtype], "x", 0), written(CUDA_TYPES[node.dtype], "y", 1))
    return StepCode((Launch("one_hot", pointers, (f"{call}(x, y);",), blocks_for(math.prod(sizes)), headers=_HEADERS),))


def _random(node: Node, op: random.RandomUniform) -> StepCode:
    size, ctype = math.prod(shape_of(node)), CUDA_TYPES[node.dtype]
    line = f"random_uniform({size}, {op.key[0]}u, {op.key[1]}u, counter, y);"
    pointers = (read("int64_t", "counter", 0), written(ctype, "y", 1))
    blocks = blocks_for(size, 32 // DTYPES[node.dtype])
    return StepCode((Launch("random_uniform", pointers, (line,), blocks, headers=("philox.cuh",)),))


def _count(node: Node, op: shape.CountOf) -> StepCode:
    return StepCode((fill(node.dtype, 1, math.prod(shape_of(node.inputs[0])[a] for a in op.axes), 1),))


_MOVES: dict[type[Op], Callable[[Node, Any], StepCode]] = {
    shape.Transpose: _transpose, shape.BroadcastTo: _broadcast_to, shape.Concat: _concat, shape.Split: _split,
    shape.CountOf: _count, indexing.Slice: _slice, indexing.OneHot: _one_hot, random.RandomUniform: _random,
    indexing.SliceAdjoint: lambda node, op: _laid(node, op.starts, op.steps, 0),
    indexing.Pad: lambda node, op: _laid(node, [before for before, _ in op.padding], (1,) * node.rank, op.value),
    indexing.Gather: gather_code, indexing.GatherAdjoint: gather_adjoint_code,
}  # fmt: skip


def movement_code(node: Node) -> StepCode | None:
    """Return the kernels that move or make a node's elements, or None for other ops."""
    write = _MOVES.get(type(node.op))
    if write is None:
        return None
    types = [node.type] if isinstance(node.type, TensorType) else node.type.items
    return StepCode(()) if all(0 in t.shape for t in types) else write(node, node.op)
