"""Loops that sum: blocks leave partial results for each column, and a second kernel joins them if they are several.

A block takes some of the columns and every so many of their rows, its threads side by side on neighbouring columns;
where nothing but whole sums are taken, threads take any piece. All is added in a fixed order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from minigraph.backends.cupy.dtypes import CUDA_TYPES
from minigraph.backends.cupy.pieces import UNROLLED, CudaLoop
from minigraph.backends.cupy.steps import MOST_BLOCKS, THREADS, Launch, Parameter, aligned, blocks_for
from minigraph.backends.loops.body import Sums, shape_of
from minigraph.backends.loops.loop import dtype_of
from minigraph.ops.group import reduces
from minigraph.ops.norm import Moments
from minigraph.ops.reduction import Mean

# Threads of a block side by side at most, in the first stage and, as sums.cuh has it, in the second.
_SIDE_BY_SIDE = _JOINED_SIDE_BY_SIDE = 32
# Rows that a thread should have to itself at least.
_FEWEST_ROWS = 8


@dataclass(frozen=True)
class _Blocks:
    """How the first stage is cut: threads side by side, blocks side by side, and blocks one below the other."""

    across: int
    side_by_side: int
    parts: int

    @property
    def below(self) -> int:
        """Rows of threads in a block."""
        return THREADS // self.across

    @classmethod
    def of(cls, loop: CudaLoop) -> _Blocks:
        """Return a cut that gives all of a GPU something to do, and each thread some rows."""
        if loop.sums_all:
            return cls(1, 1, blocks_for(loop.pieces(), 4))
        pieces = -(-loop.domain.columns // loop.width)
        across = min(_SIDE_BY_SIDE, 1 << (pieces - 1).bit_length())
        side_by_side = -(-pieces // across)
        positions = loop.domain.rows * loop.windows
        most = max(1, MOST_BLOCKS // side_by_side)
        fewest = max(1, _FEWEST_ROWS // math.prod(loop.domain.tile))  # a window is several rows' work
        return cls(across, side_by_side, max(1, min(most, positions * across // (THREADS * fewest))))


def summing(loop: CudaLoop, scratch: int) -> tuple[tuple[Launch, ...], int]:
    """Return the kernels of a loop that sums, and the bytes, from `scratch` on, of what the first leaves the second."""
    blocks = _Blocks.of(loop)
    apart = sum(each.width for each in loop.sums) * loop.columns
    partials = Parameter(f"{_kept_in(loop)}* partials", -1, scratch)
    alone = blocks.parts == 1 and (loop.sums_all or not any(_is_whole(each) for each in loop.sums))
    targets = [_result(loop, each) if alone else _partial(loop, each, apart) for each in loop.sums]
    lines = [f"{_keeper(loop, each)} sum{i};" for i, each in enumerate(loop.sums)]
    lines += _whole_sums(loop, targets) if loop.sums_all else _column_sums(loop, blocks, targets)
    first = loop.launch(lines, blocks.parts * blocks.side_by_side)
    written = _results(loop) if alone else [partials]
    first = replace(first, parameters=(*first.parameters, *written), headers=("sums.cuh",))
    if alone:
        return (first,), 0
    nbytes = aligned(blocks.parts * apart * (8 if _kept_in(loop) == "double" else 4))
    return (first, _joining(loop, partials, blocks.parts, apart)), nbytes


def _kept_in(loop: CudaLoop) -> str:
    """Return the type of all sums: double where any is of doubles."""
    return "double" if any(each.node.inputs[0].dtype == "float64" for each in loop.sums) else "float"


def _keeper(loop: CudaLoop, each: Sums, width: int | None = None) -> str:
    """Return the type of what a thread keeps of a sum."""
    kind = "Spreading" if isinstance(each.node.op, Moments) else "Adding"
    return f"{kind}<{_kept_in(loop)}, {width or loop.width}>"


def _is_whole(each: Sums) -> bool:
    return len(shape_of(each.node.inputs[0])) == len(each.node.op.axes)  # type: ignore[attr-defined]


# --- where a sum's numbers go -----------------------------------------------------------------------------------------


def _partial(loop: CudaLoop, each: Sums, apart: int) -> str:
    part = "(Index)blockIdx.x" if loop.sums_all else "(Index)part"
    to = f"partials + {part} * {apart} + {each.offset}"
    return f"Partial<{_kept_in(loop)}, {each.width}>{{{to}, {loop.columns}}}"


def _result(loop: CudaLoop, each: Sums) -> str:
    node, shape = each.node, shape_of(each.node.inputs[0])
    types = f"{CUDA_TYPES[dtype_of(node)]}, {_kept_in(loop)}"
    places = {index: f"out{i}" for i, (step, index) in enumerate(loop.results) if step is node}
    if isinstance(node.op, Moments):
        return f"MeanAndVariance<{types}>{{{places.get(0, 'nullptr')}, {places.get(1, 'nullptr')}}}"
    divisor = math.prod(shape if _is_whole(each) else shape[:-1]) if isinstance(node.op, Mean) else 1
    return f"Sum<{types}>{{{places[0]}, {divisor}}}"


def _results(loop: CudaLoop) -> list[Parameter]:
    """Return the pointers to all sums."""
    count = len(loop.node.inputs)
    return [
        Parameter(f"{CUDA_TYPES[dtype_of(step)]}* out{i}", count + i)
        for i, (step, _) in enumerate(loop.results)
        if reduces(step)
    ]


# --- the stages -------------------------------------------------------------------------------------------------------


def _whole_sums(loop: CudaLoop, targets: Sequence[str]) -> list[str]:
    """Return the loop over all pieces, after which a block has one result of each sum."""
    left = [
        f"join_all<{_keeper(loop, each)}, {_kept_in(loop)}, {loop.width}, {THREADS}>(sum{i}, {target});"
        for i, (each, target) in enumerate(zip(loop.sums, targets, strict=True))
    ]
    return [*loop.at(), *loop.each_piece(), *left]


def _column_sums(loop: CudaLoop, blocks: _Blocks, targets: Sequence[str]) -> list[str]:
    """Return the loop of a block over rows of its columns, after which it has a result for each column."""
    positions = loop.domain.rows * loop.windows
    across, below = blocks.across, blocks.below
    left = [
        f"join_block<{_keeper(loop, each)}, {_kept_in(loop)}, {loop.width}, {across}, {below}>"
        f"(sum{i}, x, y, column, {loop.columns}, {target});"
        for i, (each, target) in enumerate(zip(loop.sums, targets, strict=True))
    ]
    return [
        f"const int x = threadIdx.x % {across}, y = threadIdx.x / {across};",
        f"const int column = (blockIdx.x % {blocks.side_by_side} * {across} + x) * {loop.width};",
        f"const int part = blockIdx.x / {blocks.side_by_side};",
        *loop.at(),
        f"if (column < {loop.domain.columns})",
        f"  {UNROLLED}",
        f"  for ({loop.index} i = part * {below} + y; i < {positions}; i += {blocks.parts * below})",
        f"    at({loop.lanes_of(loop.width)}{{}}, {loop.row_and_window('i')}, column);",
        *left,
    ]


def _joining(loop: CudaLoop, partials: Parameter, parts: int, apart: int) -> Launch:
    """Return the second stage of all sums: a block for some columns of each."""
    statements = []
    for each in loop.sums:
        whole = _is_whole(each)
        alone = "if (blockIdx.x == 0) " if whole and not loop.sums_all else ""
        sizes = f"partials + {each.offset}, {parts}, {apart}, {loop.columns}, {'true' if whole else 'false'}"
        kept = f"{_keeper(loop, each, 1)}, {_kept_in(loop)}"
        statements.append(f"{alone}join_parts<{kept}>({sizes}, {_result(loop, each)});")
    read = replace(partials, declaration=f"const {partials.declaration}")
    blocks = 1 if loop.sums_all else -(-loop.columns // _JOINED_SIDE_BY_SIDE)
    return Launch("sums_of_parts", (read, *_results(loop)), tuple(statements), blocks, THREADS, ("sums.cuh",))
