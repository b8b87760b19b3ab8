"""One step of a plan as C++: a struct that holds its arrays' addresses and its loop, and the function that runs it.

`code_of(node)` knows all but the addresses: whether there is code at all, the workspace it needs, and the text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from minigraph.backends.c.sums import block_rows, finish_lines, sum_lines
from minigraph.backends.loops.body import Body, Sums, common_float, sums_of
from minigraph.backends.loops.expressions import CTYPES
from minigraph.backends.loops.loop import Loop, dtype_of
from minigraph.ir.node import Node
from minigraph.ir.types import DTYPES, known
from minigraph.ops.group import reduces

# Below this many operations a step is not worth the other threads' while.
_PARALLEL = 20_000
_LINE = 64


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


class LoopCode(Loop):
    """A node that is one loop, with or without an anchor before it."""

    headers: tuple[str, ...] = ()

    def __init__(self, node: Node, threads: int) -> None:
        super().__init__(node)
        self.threads = threads

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

    # --- text ------------------------------------------------------------------------------------------------------

    def fields(self) -> tuple[str, ...]:
        """Return the struct's fields: operands, results, and where sums are kept."""
        operands = [f"const {CTYPES[self.node.inputs[i].dtype]}* in{i};" for i in self.used]
        results = [f"{CTYPES[dtype_of(step)]}* out{i};" for i, (step, _) in enumerate(self.results)]
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
