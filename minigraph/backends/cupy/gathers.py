"""Steps that pick slices by an array of indices, and the adjoint, which adds up what was picked from one place.

An index that is out of range is clipped, and noted in the program's status word unless it may be so: a kernel cannot
raise an error. Sums have a fixed order, so the indices are sorted first, each with its position.
"""

from __future__ import annotations

import math

from minigraph.backends.cupy.dtypes import CUDA_TYPES, FLOATS, computed_in
from minigraph.backends.cupy.places import WORDS, fill, read, template, up_to_power, widest, written
from minigraph.backends.cupy.steps import STATUS, THREADS, Launch, Parameter, StepCode, aligned, blocks_for
from minigraph.backends.loops.body import shape_of
from minigraph.ir.node import Node
from minigraph.ir.types import DTYPES
from minigraph.ops import indexing

# Keys that a block sorts in shared memory.
_CHUNK = 2048


# Where a wrong index is noted.
_NOTE = Parameter("int* status", STATUS)


def _indices(node: Node, clips: bool) -> tuple[Parameter, ...]:
    indices = read(CUDA_TYPES[node.inputs[1].dtype], "indices", 1)
    return (indices,) if clips else (indices, _NOTE)


def _status(clips: bool) -> str:
    return "nullptr" if clips else "status"


def gather_code(node: Node, op: indexing.Gather) -> StepCode:
    """Return the kernel that takes slices of x, by words as wide as they allow."""
    x, itemsize = shape_of(node.inputs[0]), DTYPES[node.dtype]
    axis = op.axis % len(x)
    count, inner = math.prod(shape_of(node.inputs[1])), math.prod(x[axis + 1 :])
    if x[axis] == 0:  # no index is right
        note = "atomicMax(status, (int)INDEX_OUT_OF_RANGE);"
        return StepCode((Launch("gather", (_NOTE,), (note,), 1, 1, ("gather.cuh",)),))
    width = widest(itemsize, inner)
    word = WORDS[width * itemsize]
    clips = op.mode == "clip"
    call = template("gather", math.prod(x[:axis]), x[axis], inner // width, count, clips)
    line = f"{call}(x, indices, {_status(clips)}, y);"
    pointers = (read(word, "x", 0), *_indices(node, clips), written(word, "y", 2))
    blocks = blocks_for(math.prod(shape_of(node)) // width)
    return StepCode((Launch("gather", pointers, (line,), blocks, headers=("movement.cuh", "gather.cuh")),))


def gather_adjoint_code(node: Node, op: indexing.GatherAdjoint) -> StepCode:
    """Return the kernels that sort the indices, and add up what belongs to each in the order of their positions."""
    x, indices = node.inputs
    sizes, ctype = shape_of(node), CUDA_TYPES[node.dtype]
    axis, count = op.axis % node.rank, math.prod(shape_of(indices))
    if 0 in shape_of(x):
        return StepCode((fill(node.dtype, math.prod(sizes), 0, 2),))
    outer, inner, room = math.prod(sizes[:axis]), math.prod(sizes[axis + 1 :]), up_to_power(count)
    pack = min(4, widest(DTYPES[node.dtype], inner))
    total = computed_in(node.dtype) if node.dtype in (*FLOATS, "bool") else "uint64_t"
    call = template("gather_adjoint", total, outer, sizes[axis], inner, count, room, pack)
    pointers = (read("Index", "keys", -1), read(ctype, "x", 0), written(ctype, "y", 2))
    blocks = blocks_for(math.prod(sizes) // pack)
    add = Launch("gather_adjoint", pointers, (f"{call}(keys, x, y);",), blocks, headers=("gather.cuh",))
    first = template("sort_chunks", sizes[axis], op.mode == "clip", count, room, min(room, _CHUNK))
    return StepCode((*_sorted(node, first, room, op.mode == "clip"), add), aligned(8 * room))


def _sorted(node: Node, first: str, room: int, clips: bool) -> list[Launch]:
    """Return the launches that sort the indices, as keys with their positions."""
    chunk, keys = min(room, _CHUNK), written("Index", "keys", -1)
    begin = f"{first}(indices, {_status(clips)}, keys);"
    launches = [Launch("sort", (*_indices(node, clips), keys), (begin,), room // chunk, THREADS, ("gather.cuh",))]
    length = 2 * chunk
    while length <= room:
        apart = length // 2
        while apart >= chunk:
            step = f"{template('sort_step', room)}({length}, {apart}, keys);"
            launches.append(Launch("sort_step", (keys,), (step,), blocks_for(room // 2), headers=("gather.cuh",)))
            apart //= 2
        end = f"{template('sort_ends', chunk)}({length}, keys);"
        launches.append(Launch("sort_ends", (keys,), (end,), room // chunk, headers=("gather.cuh",)))
        length *= 2
    return launches
