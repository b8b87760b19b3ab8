"""The kernel of fused regions: the anchor, if there is one, then all other steps on one block after the other.

A block is small enough to stay in the cache from the first step to the last. Each step's own kernel is bound to the
block's arrays, so no arithmetic is written here. Blocks are shared among the workers. Pixels of few channels are seen
as wide rows of several pixels, and vectors over the channels are repeated to that width, once a call.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from minigraph.backends.numpy import threads
from minigraph.backends.numpy.call import Array, Call, Kernel, Scratch, Steps, align, nbytes_of, shape_of
from minigraph.backends.numpy.elementwise import widen
from minigraph.backends.numpy.half import WIDE, is_half
from minigraph.backends.numpy.reduction import scale_and_shift
from minigraph.backends.numpy.registry import KERNELS, Entry
from minigraph.ir.leaves import Input
from minigraph.ir.node import Node
from minigraph.ir.origin import Origin
from minigraph.ir.types import DTYPES, HALF, TensorType
from minigraph.ops.fused import ANCHORS, Fused
from minigraph.ops.norm import BatchNorm
from minigraph.ops.region import steps_of

# A block of each array that a step reads or writes should fit into the level-2 cache together with the others.
BLOCK_BYTES = 1 << 19

Shape = tuple[int, ...]


@dataclass(frozen=True)
class _Cut:
    """How a region is cut into blocks of rows: over its first axis, or over all its pixels, the last axis whole.

    A row is `repeats` pixels side by side. Workers share whole `ranges` of rows. How many there are depends on the
    machine alone, so that the planner, who does not know a backend's number of threads, counts the same blocks.
    """

    shape: Shape
    over_pixels: bool
    repeats: int
    rows: int
    block: int
    ranges: tuple[tuple[int, int], ...]

    @property
    def width(self) -> int:
        """The elements of a row of pixels."""
        return self.repeats * self.shape[-1] if self.shape else 1

    def blocks(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return a range of rows as blocks."""
        return [(first, min(first + self.block, end)) for first in range(start, end, self.block)]

    @property
    def lengths(self) -> set[int]:
        """The rows that blocks have: the last one of a range may be shorter."""
        ends = {
            length
            for start, end in self.ranges
            for length in (min(end - start, self.block), (end - start) % self.block)
        }
        return ends - {0}

    def view(self, array: Array) -> Array:
        """Return an operand, or the result, as it is cut; a vector over the channels is one already repeated."""
        if not self.over_pixels:
            return array
        if array.size == 1:
            return array.reshape(())
        return array.reshape(-1, self.width) if array.size == math.prod(self.shape) else array.reshape(-1)

    def is_vector(self, shape: Shape) -> bool:
        """Tell whether an operand is a vector over the channels, to be repeated."""
        return self.repeats > 1 and math.prod(shape) == self.shape[-1]

    def rows_of(self, viewed: Array, first: int, last: int) -> Array:
        """Return some rows of a viewed operand; what is repeated along them is taken whole."""
        rank = min(len(self.shape), 2) if self.over_pixels else len(self.shape)
        return viewed[first:last] if viewed.ndim == rank > 0 and len(viewed) == self.rows != 1 else viewed


def _cut(operands: Sequence[Shape], steps: Sequence[Node], workers: int) -> _Cut:
    shape = shape_of(steps[-1].type)
    last = shape[-1] if shape else 1

    def along_last(operand: Shape) -> bool:
        size = math.prod(operand)
        return operand == shape or size == 1 or (size == last and operand[-1] == last)

    over_pixels = len(shape) > 1 and last > 1 and math.prod(shape) > last and all(map(along_last, operands))
    repeats = (widen(shape, last) or (0, 1))[1] if over_pixels else 1
    rows = math.prod(shape[:-1]) // repeats if over_pixels else (shape[0] if shape else 1)
    widest = max(DTYPES[step.dtype] for step in steps)
    row_bytes = max(1, math.prod(shape) // max(rows, 1) * widest)
    ranges = threads.ranges(rows, workers if math.prod(shape) * widest >= threads.PARALLEL_BYTES else 1)
    block = max(1, min(max(end - start for start, end in ranges), BLOCK_BYTES // row_bytes))
    return _Cut(shape, over_pixels, repeats, rows, block, tuple(ranges))


class _Region:
    """A region over operands of known types: its steps, its cut, and the memory they ask for."""

    def __init__(self, op: Fused, types: Sequence[TensorType], workers: int) -> None:
        self.op = op
        self.steps = steps_of(Node(op, _operands(types), origin=_NOWHERE), _NOWHERE)
        self.operands = len(types)
        self.anchored = isinstance(self.steps[0].op, ANCHORS)
        # What the blocked steps read: operands, and the anchor's result behind them.
        self.read = {j for step in op.body[self.anchored :] for j in step.inputs if j < self.operands + self.anchored}
        self.shapes = [shape_of(type) for type in types]
        self.widest = max((_computed_in(step) for step in self.steps), key=lambda dtype: DTYPES[dtype])
        self.cut = _cut([self.shapes[j] for j in sorted(self.read) if j < self.operands], self.steps, workers)
        self.slots, self.slot_count = self._assign()
        block_elements = math.prod(self.cut.shape) // max(self.cut.rows, 1) * self.cut.block
        self.slot_bytes = align(block_elements * max(DTYPES[step.dtype] for step in self.steps))

    @property
    def blocked(self) -> range:
        """The steps that work on blocks."""
        return range(int(self.anchored), len(self.steps))

    def _assign(self) -> tuple[dict[int, int], int]:
        """Return the buffer of each step between, and how many there are; a step writes over an operand if it may."""
        slots: dict[int, int] = {}
        free: list[int] = []
        count = 0
        last = {j - self.operands: i for i, step in enumerate(self.op.body) for j in step.inputs}
        for i in list(self.blocked)[:-1]:
            places = {j - self.operands: p for p, j in enumerate(self.op.body[i].inputs) if j - self.operands in slots}
            done = [k for k in places if last[k] == i]
            may = _overwritable(self.steps[i])
            over = [k for k in done if places[k] in may and self.steps[k].type == self.steps[i].type]
            if over:
                slots[i] = slots[over[0]]
            elif free:
                slots[i] = free.pop()
            else:
                slots[i], count = count, count + 1
            free += [slots[k] for k in done if slots[k] != slots[i]]
        return slots, count

    @functools.cached_property
    def anchor_in_output(self) -> bool:
        """Whether the anchor may write into the region's result: the last step must not trip over it."""
        last = self.steps[-1]
        places = [p for p, j in enumerate(self.op.body[-1].inputs) if j == self.operands]
        return self.steps[0].type == last.type and all(p in _overwritable(last) for p in places)

    @functools.cached_property
    def vectors(self) -> list[int]:
        """The operands that are repeated: vectors over the channels, but for those that only batch norms read."""
        steps = [step for step in self.op.body[self.anchored :] if not isinstance(step.op, BatchNorm)]
        read = dict.fromkeys(j for step in steps for j in step.inputs if j < self.operands)
        return [j for j in read if self.cut.is_vector(self.shapes[j])]

    @functools.cached_property
    def vector_bytes(self) -> int:
        """The memory of repeated vectors, and of each batch norm's scale and shift."""
        norms = sum(isinstance(step.op, BatchNorm) for step in self.steps)
        return (len(self.vectors) + 2 * norms) * nbytes_of((self.cut.width,), self.widest)

    @functools.cached_property
    def own_bytes(self) -> int:
        """The memory of the anchor's result, where that has a place of its own."""
        own = self.anchored and not self.anchor_in_output
        return nbytes_of(self.cut.shape, self.steps[0].dtype) if own else 0

    @functools.cached_property
    def anchor_bytes(self) -> int:
        """The workspace of the anchor: free again when it has run."""
        return align(_workspace(self.steps[0])) if self.anchored else 0

    @functools.cached_property
    def worker_bytes(self) -> int:
        """The workspace of one range: block buffers, and what the hungriest step asks for a block of any length."""
        asked = (self._block_workspace(step, rows) for step in self.steps[self.anchored :] for rows in self.cut.lengths)
        return self.slot_count * self.slot_bytes + max(asked, default=0)

    def _block_workspace(self, step: Node, rows: int) -> int:
        inputs = _operands([self._block_type(operand, rows) for operand in step.inputs])
        if isinstance(step.op, BatchNorm):
            return nbytes_of(shape_of(inputs[0].type), WIDE) if step.dtype in HALF else 0
        return align(_workspace(Node(step.op, inputs, origin=_NOWHERE)))

    def _block_type(self, node: Node, rows: int) -> TensorType:
        """Return the type of an operand of a step as a block of so many rows sees it."""
        shape = (self.cut.width,) if self.cut.is_vector(shape_of(node.type)) else shape_of(node.type)
        view = self.cut.rows_of(self.cut.view(np.broadcast_to(np.int8(0), shape)), 0, rows)
        return TensorType(view.shape, node.dtype)


# The nodes in a region stand for types alone: looking for the lines that they come from would take most of the time.
_NOWHERE = Origin()


def _operands(types: Sequence[TensorType]) -> list[Node]:
    return [Node(Input(f"x{i}", type), origin=_NOWHERE) for i, type in enumerate(types)]


# A plan asks twice about each region, the kernel's maker once more, and rematerialisation makes many plans.
_region = functools.lru_cache(maxsize=1 << 12)(_Region)


def _of_node(node: Node) -> _Region:
    assert isinstance(node.op, Fused)
    return _region(node.op, tuple(i.tensor_type for i in node.inputs), threads.available())


def _workspace(node: Node) -> int:
    return KERNELS[type(node.op)].workspace(node)


def _overwritable(step: Node) -> tuple[int, ...]:
    """Return the operands that a step may write over: those that are not repeated."""
    return tuple(p for p in KERNELS[type(step.op)].overwritable(step) if step.inputs[p].shape == step.shape)


def _fused_workspace(node: Node) -> int:
    region = _of_node(node)
    return region.own_bytes + max(
        region.anchor_bytes, region.vector_bytes + len(region.cut.ranges) * align(region.worker_bytes)
    )


def _fused_inplace(node: Node) -> tuple[int, ...]:
    """Operands that the result may take over: each block is read before the last step writes it."""
    region = _of_node(node)
    if region.anchored:
        return ()
    last, allowed = region.op.body[-1], _overwritable(region.steps[-1])
    barred = {j for p, j in enumerate(last.inputs) if p not in allowed}
    return tuple(j for j in range(region.operands) if j not in barred and node.inputs[j].type == node.type)


def _fused(call: Call) -> Kernel:
    types = tuple(TensorType(a.shape, str(a.dtype)) for a in call.inputs)
    region = _region(call.op, types, threads.available())
    values: list[Array] = list(call.inputs)
    calls: list[Kernel] = []
    if region.anchored:
        run, result = _anchor(call, region)
        calls.append(run)
        values.append(result)
    prepared, norms = _vectors(call, region, values)
    share, rest = align(region.worker_bytes), call.workspace[region.own_bytes + region.vector_bytes :]
    ranges = [
        _blocks(region, values, norms, call.output, rest[r * share : (r + 1) * share], *rows)
        for r, rows in enumerate(region.cut.ranges)
    ]
    return Steps([*calls, *prepared, threads.spread(ranges, call.threads)])


def _vectors(call: Call, region: _Region, values: list[Array]) -> tuple[list[Kernel], dict[int, tuple[Array, Array]]]:
    """Put repeated vectors in the place of vectors; return the calls that fill them, and each batch norm's s and t."""
    calls: list[Kernel] = []
    memory, repeats = call.workspace[region.own_bytes :], region.cut.repeats
    norms: dict[int, tuple[Array, Array]] = {}
    for i in region.blocked:
        op = region.steps[i].op
        if isinstance(op, BatchNorm):
            operands = [values[j] for j in region.op.body[i].inputs[1:]]
            scratch = Scratch(memory, _computed_in(region.steps[i]))
            scale, shift, prepared = scale_and_shift(op, operands, repeats, scratch)
            norms[i], memory = (scale, shift), scratch.memory
            calls += prepared
    for j in region.vectors:
        scratch = Scratch(memory, values[j].dtype)
        tiles, memory = scratch.array(repeats, region.cut.shape[-1]), scratch.memory
        calls.append(partial(np.copyto, tiles, values[j].reshape(-1)))
        values[j] = tiles.reshape(-1)
    return calls, norms


def _anchor(call: Call, region: _Region) -> tuple[Kernel, Array]:
    """Return the anchor's kernel with its result's array."""
    step, own = region.steps[0], region.own_bytes
    target = call.output
    if own:
        nbytes = math.prod(region.cut.shape) * DTYPES[step.dtype]
        target = call.workspace[:nbytes].view(step.dtype).reshape(region.cut.shape)
    inputs = tuple(call.inputs[j] for j in region.op.body[0].inputs)
    scratch = call.workspace[own : own + region.anchor_bytes]
    return KERNELS[type(step.op)].make(Call(step.op, inputs, target, scratch, call.threads, call.exact)), target


def _blocks(
    region: _Region,
    values: Sequence[Array],
    norms: dict[int, tuple[Array, Array]],
    output: Array,
    memory: Array,
    start: int,
    end: int,
) -> list[Kernel]:
    """Return the kernels of a range of rows, block after block."""
    cut = region.cut
    views = [cut.view(v) if j in region.read else v for j, v in enumerate(values)]
    result = cut.view(output)
    kernels: list[Kernel] = []
    rest = memory[region.slot_count * region.slot_bytes :]
    for first, last in cut.blocks(start, end):
        parts = [cut.rows_of(v, first, last) if j in region.read else v for j, v in enumerate(views)]
        target = cut.rows_of(result, first, last)
        for i in region.blocked:
            out = target if i == len(region.steps) - 1 else _buffer(region, memory, i, target.shape)
            inputs = tuple(parts[j] for j in region.op.body[i].inputs)
            if i in norms:
                kernels += _normalised(inputs[0], *norms[i], out, rest)
            else:
                op = region.steps[i].op
                kernels.append(KERNELS[type(op)].make(Call(op, inputs, out, rest, 1)))
            parts.append(out)
    return kernels


def _normalised(x: Array, scale: Array, shift: Array, out: Array, memory: Array) -> list[Kernel]:
    """Return the calls of x·s + t, rounded to half precision once."""
    wide = Scratch(memory, WIDE).array(*x.shape) if is_half(x) else out
    calls: list[Kernel] = [partial(np.multiply, x, scale, out=wide), partial(np.add, wide, shift, out=wide)]
    return calls if wide is out else [*calls, partial(np.copyto, out, wide, casting="same_kind")]


def _computed_in(step: Node) -> str:
    """Return the dtype of a step, or of a batch norm's scale and shift."""
    return WIDE if isinstance(step.op, BatchNorm) and step.dtype in HALF else step.dtype


def _buffer(region: _Region, memory: Array, index: int, shape: Shape) -> Array:
    dtype = region.steps[index].dtype
    start = region.slots[index] * region.slot_bytes
    return memory[start : start + math.prod(shape) * DTYPES[dtype]].view(dtype).reshape(shape)


KERNELS[Fused] = Entry(_fused, _fused_inplace, _fused_workspace, any_dtype=True)
