"""Reductions along any axes: which threads and blocks share them, and the passes that an op is made of.

See `kernels/reduce.cuh`. Where few results come from many elements there are two stages, by way of the workspace.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from minigraph.backends.cupy.dtypes import CUDA_TYPES, FLOATS, computed_in
from minigraph.backends.cupy.places import fill, places, read, template, up_to_power, widest, written
from minigraph.backends.cupy.steps import MOST_BLOCKS, THREADS, Launch, Parameter, StepCode, aligned
from minigraph.backends.loops.body import shape_of
from minigraph.backends.loops.domain import strides
from minigraph.ir.node import Node
from minigraph.ir.op import Op
from minigraph.ir.types import DTYPES, TensorType
from minigraph.ops.norm import Moments
from minigraph.ops.reduction import ArgMax, LogSumExp, Max, Mean, Min, Sum

# Threads that keep an H200 busy: for fewer results than these, several threads work on one.
BUSY = 132 * 1024
# What a thread should do by itself at least: accesses where all its block's results are written, and before it leaves
# them to a second stage. Bytes of what it adds up to.
_FEWEST, _FEWEST_OF_STAGE, _TOTALS = 4, 8, 32

# A run of neighbouring axes: how many elements, and whether they are reduced.
Run = tuple[int, bool]


def runs_of(shape: Sequence[int], axes: Sequence[int]) -> list[Run]:
    """Return an array's axes, neighbours that are both reduced or both kept as one.

    >>> runs_of((2, 3, 1, 4), (0, 1))
    [(6, True), (4, False)]
    """
    found: list[Run] = []
    for axis, size in enumerate(shape):
        taken = axis in axes
        if size == 1:
            continue
        if found and found[-1][1] == taken:
            found[-1] = (found[-1][0] * size, taken)
        else:
            found.append((size, taken))
    return found


@dataclass(frozen=True)
class Plan:
    """How a reduction is cut: the template arguments of `reduce.cuh`.

    pack: elements of an access. within: whether the last axis is reduced. A block has `across` packs of results and
    `along` threads for each; `parts` blocks share one.
    """

    pack: int
    within: bool
    across: int
    along: int
    parts: int
    results: int
    kept: str
    reduced: str

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return -(-self.results // (self.across * (1 if self.within else self.pack))) * self.parts

    @classmethod
    def of(cls, runs: Sequence[Run], itemsize: int, total_bytes: int, splits: bool = True) -> Plan:
        """Return the plan for the axes of an array; only one that `splits` has parts."""
        within = not runs or runs[-1][1]
        pack = min(widest(itemsize, runs[-1][0]), max(1, _TOTALS // total_bytes)) if runs else 1
        sizes = [size for size, _ in runs]
        packed = [*sizes[:-1], sizes[-1] // pack] if runs else []
        axes = [(*axis, taken) for *axis, (_, taken) in zip(packed, strides(tuple(packed)), runs, strict=True)]
        kept, reduced = ([(n, s) for n, s, taken in axes if taken is which] for which in (False, True))
        packs, accesses = (math.prod(n for n, _ in each) for each in (kept, reduced))
        along = _along(packs, accesses, within)
        across = THREADS // along
        room = MOST_BLOCKS // -(-packs // across)
        parts = max(1, min(room, accesses // (along * _FEWEST_OF_STAGE))) if splits else 1
        results = packs if within else packs * pack
        return cls(pack, within, across, along, parts, results, places(kept), places(reduced))


def _along(packs: int, accesses: int, within: bool) -> int:
    """Return how many threads share a result, or a pack of them: enough to be busy, and to read rows as they lie."""
    enough = up_to_power(-(-accesses // _FEWEST))
    wanted = min(up_to_power(BUSY // packs), up_to_power(accesses))
    if within:
        return min(THREADS, max(enough, wanted))
    return min(enough, wanted, THREADS // min(32, up_to_power(packs)))


@dataclass(frozen=True)
class Pass:
    """One reduction: what joins totals of a type, of which value of an element, and what is done with a result."""

    join: str
    total: str
    finish: str
    value: str = "Plainly{}"
    total_bytes: int = 8

    def launches(
        self, name: str, runs: Sequence[Run], dtype: str, parameters: Sequence[Parameter], scratch: int
    ) -> tuple[list[Launch], int]:
        """Return one stage or two, and the bytes that the first leaves to the second, in the workspace from scratch on.

        parameters: what value and finish name. The operand is x.
        """
        plan = Plan.of(runs, DTYPES[dtype], self.total_bytes)
        x = read(CUDA_TYPES[dtype], "x", 0)
        if plan.parts == 1:
            return [self._launch(name, plan, (x, *parameters), self.value, self.finish)], 0
        after = Plan.of([(plan.parts, True), (plan.results, False)], self.total_bytes, self.total_bytes, splits=False)
        leave = f"{template('LeftForLater', self.total)}{{partials, {plan.results}}}"
        partials = written(self.total, "partials", -1, scratch)
        joined = (read(self.total, "x", -1, scratch), *parameters)
        stages = [
            self._launch(name, plan, (x, *parameters, partials), self.value, leave),
            self._launch(f"{name}_of_parts", after, joined, "Plainly{}", self.finish),
        ]
        return stages, aligned(plan.parts * plan.results * self.total_bytes)

    def _launch(self, name: str, plan: Plan, parameters: Sequence[Parameter], value: str, finish: str) -> Launch:
        call = template(
            "reduce", self.join, self.total, plan.pack, plan.within, plan.across, plan.along, plan.parts, plan.kept,
            plan.reduced,
        )  # fmt: skip
        return Launch(
            name, tuple(parameters), (f"{call}(x, {value}, {finish});",), plan.blocks, THREADS, ("reduce.cuh",)
        )


# --- the passes of each op --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Call:
    """What a writer of passes knows: dtype and CUDA types of the operand, how many elements make a result."""

    dtype: str
    count: int

    @property
    def stored(self) -> str:
        """What elements are stored in."""
        return CUDA_TYPES[self.dtype]

    @property
    def computed(self) -> str:
        """What they are computed in."""
        return computed_in(self.dtype)

    @property
    def summed(self) -> str:
        """What they are summed in: integers wrap around as they do in their own type."""
        return self.computed if self.dtype in (*FLOATS, "bool") else "uint64_t"

    def done(self, name: str, *values: str) -> str:
        """Return what finishes, with its values."""
        return f"{template(name, self.stored)}{{{', '.join(values)}}}"


def _sum(call: _Call) -> list[Pass]:
    return [Pass("Plus", call.summed, call.done("Stored", "y0"))]


def _mean(call: _Call) -> list[Pass]:
    return [Pass("Plus", call.computed, call.done("Divided", "y0", f"({call.computed}){call.count}"))]


def _extreme(join: str) -> Callable[[_Call], list[Pass]]:
    return lambda call: [Pass(join, call.computed, call.done("Stored", "y0"))]


def _logsumexp(call: _Call) -> list[Pass]:
    above = f"{template('ExponentialAbove', call.computed)}{{wide}}"
    return [
        Pass("Larger", call.computed, f"{template('Stored', call.computed)}{{wide}}"),
        Pass("Plus", call.computed, call.done("LogarithmOf", "y0", "wide"), above),
    ]


def _moments(call: _Call) -> list[Pass]:
    by = f"({call.computed}){call.count}"
    around = f"{template('SquareAround', call.computed)}{{wide}}"
    return [
        Pass("Plus", call.computed, call.done("DividedTwice", "y0", "wide", by)),
        Pass("Plus", call.computed, call.done("Divided", "y1", by), around),
    ]


def _argmax(call: _Call) -> list[Pass]:
    return [Pass("FirstLargest", template("Placed", call.computed), "PlaceOf{y0}", "WithPlace{}", 16)]


# op → its passes, and what the results are where nothing is reduced
_PASSES: dict[type[Op], tuple[Callable[[_Call], list[Pass]], float]] = {
    Sum: (_sum, 0), Mean: (_mean, math.nan), Max: (_extreme("Larger"), 0), Min: (_extreme("Smaller"), 0),
    LogSumExp: (_logsumexp, -math.inf), Moments: (_moments, math.nan), ArgMax: (_argmax, 0),
}  # fmt: skip


def reduction_code(node: Node) -> StepCode | None:
    """Return the kernels of a reduction, or None for any other op."""
    if type(node.op) not in _PASSES:
        return None
    op: Any = node.op
    x, (passes_of, of_nothing) = node.inputs[0], _PASSES[type(op)]
    shape, axes = shape_of(x), {a % x.rank for a in ((op.axis,) if isinstance(op, ArgMax) else op.axes)}
    dtypes = [node.dtype] if isinstance(node.type, TensorType) else [t.dtype for t in node.type.items]
    results = [written(CUDA_TYPES[d], f"y{i}", 1 + i) for i, d in enumerate(dtypes)]
    size = math.prod(n for axis, n in enumerate(shape) if axis not in axes)
    if size == 0:
        return StepCode(())
    if 0 in shape:
        return StepCode(tuple(fill(d, size, of_nothing, 1 + i) for i, d in enumerate(dtypes)))
    passes = passes_of(_Call(x.dtype, math.prod(shape[a] for a in axes)))
    scratch = aligned(size * DTYPES["float64"]) if len(passes) > 1 else 0
    wide = [written(computed_in(x.dtype), "wide", -1)] if scratch else []
    launches, most = [], 0
    for each in passes:
        stages, nbytes = each.launches(op.name, runs_of(shape, sorted(axes)), x.dtype, [*results, *wide], scratch)
        launches += stages
        most = max(most, nbytes)
    return StepCode(tuple(launches), scratch + most)
