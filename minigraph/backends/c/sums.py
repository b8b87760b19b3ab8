"""Sums and moments in a C++ loop: what each thread adds up for its columns, and how threads' totals are joined."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from minigraph.backends.loops.body import Body, Sums, shape_of
from minigraph.backends.loops.domain import Domain
from minigraph.backends.loops.expressions import CTYPES
from minigraph.ir.node import Node
from minigraph.ops.norm import Moments
from minigraph.ops.reduction import Mean

# Of a block of rows, what all its arrays hold should stay in the level-1 cache from one vector of columns to the next.
_BLOCK_BYTES, _FEWEST_ROWS, _MOST_ROWS = 24_000, 32, 256


def sum_lines(body: Body, sums: Sums, columns: int) -> tuple[list[str], list[str], list[str]]:
    """Return (before the rows, for each row, after the rows) for one sum; moments are taken about a first element."""
    x = sums.node.inputs[0]
    names = [body.value(x, place) for place in body.places(shape_of(x))]
    lanes = body.lanes or CTYPES[x.dtype]
    total = f"totals + {sums.offset}"
    if sums.width == 1:
        s = f"s{sums.offset}"
        return [f"{lanes} {s} = {{}};"], [f"{s} += {' + '.join(names)};"], [f"add_to({total} + c, {s});"]
    n, shift, s, q = (f"{letter}{sums.offset}" for letter in ("n", "shift", "s", "q"))
    row = [f"if ({n} == 0) {shift} = {names[0]};"]
    for i, name in enumerate(names):
        row.append(f"const auto d{sums.offset}_{i} = {name} - {shift}; {s} += d{sums.offset}_{i}; "
                   f"{q} += d{sums.offset}_{i} * d{sums.offset}_{i};")  # fmt: skip
    row.append(f"{n} += {len(names)};")
    return (
        [f"{lanes} {shift} = {{}}, {s} = {{}}, {q} = {{}}; double {n} = 0;"],
        row,
        [f"if ({n}) add_moments({total}, {columns}, c, {n}, {shift}, {s}, {q});"],
    )


def finish_lines(sums: Sequence[Sums], columns: int, apart: int, pointers: Mapping[tuple[Node, int], str]) -> list[str]:
    """Return the statements that join all threads' totals, in their order, and write the results."""
    lines = []
    for each in sums:
        node, shape = each.node, shape_of(each.node.inputs[0])
        whole = len(shape) == len(node.op.axes)  # type: ignore[attr-defined]
        count = math.prod(shape if whole else shape[:-1])
        sizes = f"all_totals + {each.offset}, {apart}, team.threads, {columns}, {1 if whole else columns}"
        if isinstance(node.op, Moments):
            null = f"({CTYPES[node.inputs[0].dtype]}*)nullptr"
            mean, variance = (pointers.get((node, i), null) for i in range(2))
            lines.append(f"finish_moments({sizes}, {count}, {mean}, {variance});")
        else:
            lines.append(f"finish_sum({sizes}, {count if isinstance(node.op, Mean) else 1}, {pointers[node, 0]});")
    return lines


def block_rows(domain: Domain, arrays: int, itemsize: int, sums: bool) -> int:
    """Return how many rows are run through for one vector of columns after the other."""
    if domain.tile != (1, 1):
        return 1
    rows = _BLOCK_BYTES // max(1, domain.columns * arrays * itemsize)
    return max(_FEWEST_ROWS if sums else 4, min(_MOST_ROWS, rows))
