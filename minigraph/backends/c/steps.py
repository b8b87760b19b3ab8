"""One step of a plan as C++: a struct that holds its arrays' addresses and its loop, and the function that runs it.

`code_of(node)` knows all but the addresses: whether there is code at all, the workspace it needs, and the text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from minigraph.backends.c.domain import Domain
from minigraph.backends.c.expressions import CTYPES, FLOATS, expressible
from minigraph.backends.c.loops import (
    Body,
    Sums,
    block_rows,
    common_float,
    finish_lines,
    is_number,
    shape_of,
    sum_lines,
    sums_of,
)
from minigraph.ir.leaves import Item
from minigraph.ir.node import Node
from minigraph.ir.types import DTYPES, TensorType, known
from minigraph.ops.fused import by_element
from minigraph.ops.group import ANCHORS, Group, pools, reduces, sums_rows, tiles
from minigraph.ops.pool import MaxPool2D, MaxPool2DAdjoint
from minigraph.ops.region import steps_of
from minigraph.ops.shape import BroadcastTo

# Below this many operations a step is not worth the other threads' while.
_PARALLEL = 20_000
_LINE = 64


def computes(node: Node) -> bool:
    """Tell whether a generated loop computes an op, as a step of a group or alone."""
    if pools(node) or reduces(node):
        fits = tiles(node) if pools(node) else sums_rows(node)
        return fits and all(i.tensor_type.dtype in FLOATS for i in node.inputs)
    if not isinstance(node.type, TensorType) or not expressible(node):
        return False
    return isinstance(node.op, BroadcastTo) or by_element(node.op, node.rank)


def aligned(nbytes: int) -> int:
    """Return a number of bytes rounded up to a whole cache line."""
    return -(-nbytes // _LINE) * _LINE


def is_parallel(node: Node, threads: int) -> bool:
    """Tell whether a step is worth more than one thread: by its operations, and the elements that it touches."""
    elements = sum(known(n.type.nbytes) // 4 for n in (node, *node.inputs))
    return threads > 1 and known(node.op.flops(node)) + elements > _PARALLEL


# The statements of a step from the addresses of its operands, results and workspace.
Lines = Callable[[Sequence[str]], list[str]]


@dataclass(frozen=True)
class KernelCode:
    """A node that is some calls of kernels written by hand."""

    lines: Lines
    headers: tuple[str, ...]
    parallel: bool
    workspace: int = 0
    overwritable: tuple[int, ...] = ()

    def struct(self) -> str | None:
        """Return that there is none."""
        return None

    def run(self, arrays: Sequence[str], name: str) -> list[str]:
        """Return the statements that compute the step."""
        return self.lines(arrays)


class LoopCode:
    """A node that is one loop, with or without an anchor before it."""

    headers: tuple[str, ...] = ()

    def __init__(self, node: Node, threads: int) -> None:
        self.node = node
        self.threads = threads
        self.steps = steps_of(node, node.origin) if isinstance(node.op, Group) else [node]
        self.results = self._results()
        self.anchor = self.steps[0] if isinstance(self.steps[0].op, ANCHORS) else None
        self.loop_steps = [s for s in self.steps if s is not self.anchor and not isinstance(s.op, Item)]

    def _results(self) -> list[tuple[Node, int]]:
        """Return what is stored: (step, which of its results)."""
        if not isinstance(self.node.op, Group):
            types = [self.node.type] if isinstance(self.node.type, TensorType) else self.node.type.items
            return [(self.node, i) for i in range(len(types))]
        values = [*self.node.inputs, *self.steps]
        found = [values[place] for place in self.node.op.results]
        return [(v.inputs[0], v.op.index) if isinstance(v.op, Item) else (v, 0) for v in found]

    @cached_property
    def stored(self) -> list[Node]:
        """The results that are arrays over the domain, or over its windows: not sums."""
        return [step for step, _ in self.results if not reduces(step)]

    @cached_property
    def domain(self) -> Domain:
        """What the loop runs over."""
        tile = next((s.op.size for s in self.steps if isinstance(s.op, (MaxPool2D, MaxPool2DAdjoint))), (1, 1))
        sums = [s for s in self.steps if reduces(s)]
        root = self.results[0][0]
        shape = shape_of(sums[0].inputs[0] if sums else root)
        if tile != (1, 1):
            fine = next(s for s in self.steps if isinstance(s.op, (MaxPool2D, MaxPool2DAdjoint)))
            shape = shape_of(fine.inputs[0])
        keep_last = self.anchor is not None or any(len(s.op.axes) < s.inputs[0].rank for s in sums)  # type: ignore[attr-defined]
        domain = Domain.over(shape, tile, [shape, *self._read_shapes()], keep_last)
        return domain if keep_last else domain.flattened()

    def _read_shapes(self) -> list[tuple[int, ...]]:
        """Return the shapes of what the loop reads: not those that only its anchor does."""
        read = {i for s in self.loop_steps for i in s.inputs}
        return [shape_of(i) for i in self.node.inputs if i in read and not is_number(i)]

    @cached_property
    def sums(self) -> tuple[list[Sums], int]:
        """The sums with their place in a thread's totals, and how many doubles that takes."""
        return sums_of(self.steps, self.domain.columns)

    @cached_property
    def parallel(self) -> bool:
        """Whether the step is worth more than one thread."""
        return is_parallel(self.node, self.threads)

    @property
    def workspace(self) -> int:
        """Bytes of scratch memory: the threads' totals."""
        return aligned(self.sums[1] * 8) * (self.threads if self.parallel else 1) if self.sums[0] else 0

    @cached_property
    def overwritable(self) -> tuple[int, ...]:
        """Operands of which each element is read before the same element of a result is written, and not again."""
        barred: set[Node] = set(self.anchor.inputs) if self.anchor is not None else set()
        if self.anchor is not None:
            for step in self.steps:
                if reduces(step):
                    barred |= self._reads(step)
        read = {i for s in self.loop_steps for i in s.inputs}
        full = {shape_of(s) for s in self.stored}
        return tuple(i for i, n in enumerate(self.node.inputs) if n in read and n not in barred and shape_of(n) in full)

    def _reads(self, step: Node) -> set[Node]:
        """Return all operands that a sum is made of, behind the stored values."""
        found, stack = set(), [step]
        while stack:
            for operand in stack.pop().inputs:
                if operand in self.node.inputs:
                    found.add(operand)
                elif operand not in self.stored:
                    stack.append(operand)
        return found

    # --- text ------------------------------------------------------------------------------------------------------

    @cached_property
    def used(self) -> list[int]:
        """The operands that have an address in the struct."""
        return [i for i, n in enumerate(self.node.inputs) if not is_number(n)]

    def _pointers(self) -> dict[Node, str]:
        return {self.node.inputs[i]: f"in{i}" for i in reversed(self.used)}

    def fields(self) -> tuple[str, ...]:
        """Return the struct's fields: operands, results, and where sums are kept."""
        operands = [f"const {CTYPES[self.node.inputs[i].dtype]}* in{i};" for i in self.used]
        results = [f"{CTYPES[_dtype(step)]}* out{i};" for i, (step, _) in enumerate(self.results)]
        return (*operands, *results, *(["double* totals;"] if self.sums[0] else []))

    def methods(self) -> str:
        """Return the loop as a template over lanes: a vector of columns, or one column behind the last whole vector."""
        pointers = self._pointers()
        lanes = self._lanes()
        body = Body(self.domain, pointers, "V" if lanes else None)
        for i, (step, _) in enumerate(self.results):
            if not reduces(step):
                body.store(step, f"out{i}")
        return self._columns(body, lanes)

    def _lanes(self) -> str | None:
        arrays = [*(self.node.inputs[i] for i in self.used), *self.stored]
        return common_float([*self.node.inputs, *self.loop_steps], arrays)

    def _columns(self, body: Body, lanes: str | None) -> str:
        parts = [sum_lines(body, sums, self.domain.columns) for sums in self.sums[0]]
        before, row, after = ([line for part in parts for line in part[i]] for i in range(3))
        inner = [*body.lines, *row, *body.stores]
        windows = self.domain.tile != (1, 1)
        if windows:
            count = self.domain.coarse[2]
            inner = [f"for (ptrdiff_t j = 0; j < {count}; j++) {{", *indented(inner), "}"]
        head = "template <class V> " if lanes else ""
        lines = [
            f"{head}MG_INLINE_METHOD void columns(ptrdiff_t first, ptrdiff_t last, ptrdiff_t c) const {{",
            *indented(
                [*body.hoisted, *before, "for (ptrdiff_t r = first; r < last; r++) {", *indented(inner), "}", *after]
            ),
            "}",
        ]
        return "\n".join(indented(lines))

    def struct(self) -> str:
        """Return the text of the struct that holds the addresses and the loop."""
        return "\n".join([*indented(self.fields()), self.methods()])

    def run(self, arrays: Sequence[str], name: str) -> list[str]:
        """Return the statements that run the loop over this thread's part."""
        lanes = self._lanes()
        lines = self._begin(arrays, name)
        d = self.domain
        itemsize = max(
            DTYPES[n.dtype]
            for n in [*self.node.inputs, *self.stored, *[s.inputs[0] for s, _ in self.results if reduces(s)]]
        )
        count = len(self.used) + len(self.stored)
        block = block_rows(d, count, itemsize, bool(self.sums[0]))
        if d.rows < 2 * self.threads and not self.sums[0] and d.tile == (1, 1):
            step = 64
            lines.append(f"const Range mine = share({d.columns}, team, {step}), rows = {{0, {d.rows}}};")
        else:
            lines.append(f"const Range mine = {{0, {d.columns}}}, rows = share({d.rows}, team);")
        lines += [
            f"for (ptrdiff_t r = rows.begin; r < rows.end; r += {block}) {{",
            f"  const ptrdiff_t last = at_most(r + {block}, rows.end);",
            *indented(over_columns("step", "r", "last", "mine.begin", "mine.end", lanes, d.columns)),
            "}",
            *self._finish(),
        ]
        return lines

    def _begin(self, arrays: Sequence[str], name: str) -> list[str]:
        """Return the statements that make the struct, and clear the totals."""
        operands = [arrays[i] for i in self.used]
        results = list(arrays[len(self.node.inputs) :][: len(self.results)])
        size = self.sums[1]
        lines = []
        totals = []
        if self.sums[0]:
            lines.append(f"double* const all_totals = (double*)({arrays[-1]});")
            totals = [f"all_totals + team.thread * {size}"]
        lines.append(f"{name} step = {{{', '.join(operands + results + totals)}}};")
        if self.sums[0]:
            lines.append(f"memset(step.totals, 0, {size} * sizeof(double));")
        return lines

    def _finish(self) -> list[str]:
        if not self.sums[0]:
            return []
        pointers = {result: f"step.out{i}" for i, result in enumerate(self.results) if reduces(result[0])}
        lines = finish_lines(self.sums[0], self.domain.columns, self.sums[1], pointers)
        return ["team.barrier();", "if (team.thread == 0) {", *indented(lines), "}"]


def _dtype(step: Node) -> str:
    return step.dtype if isinstance(step.type, TensorType) else step.type.items[0].dtype


def over_columns(name: str, first: str, last: str, begin: str, end: str, lanes: str | None, columns: int) -> list[str]:
    """Return the loop over some of the columns: by vectors, then one by one."""
    if lanes is None:
        return [f"for (ptrdiff_t c = {begin}; c < {end}; c++) {name}.columns({first}, {last}, c);"]
    t = CTYPES[lanes]
    return [
        f"ptrdiff_t c = {begin};",
        f"for (; c + LANES<{t}> <= {end}; c += LANES<{t}>) {name}.template columns<{t}s>({first}, {last}, c);",
        f"if constexpr ({columns} % LANES<{t}>)",
        f"  for (; c < {end}; c++) {name}.template columns<{t}>({first}, {last}, c);",
    ]


def indented(lines: Sequence[str]) -> list[str]:
    """Return lines one level further in."""
    return [f"  {line}" for line in lines]
