"""A loop in CUDA: what a thread computes at a time, and how threads share out the pieces.

A thread computes a few neighbouring columns at a time, as wide as one access to memory, one such piece after the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property

from minigraph.backends.cupy.dtypes import CUDA_TYPES, computed_in
from minigraph.backends.cupy.steps import THREADS, Launch, Parameter, blocks_for
from minigraph.backends.loops.body import Body, Sums, shape_of, sums_of
from minigraph.backends.loops.loop import Loop
from minigraph.ir.node import Node
from minigraph.ir.types import DTYPES, TensorType
from minigraph.ops.group import reduces

# Bytes of one access of a thread, and the most elements at a time: more would take too many registers.
_ACCESS, _WIDEST = 16, 8
# Elements that an int counts with room for one more step of all threads.
_COUNTED_BY_INT = 1 << 30
# A loop whose loads wait long for memory: several are under way at a time.
UNROLLED = "#pragma unroll 4"


class CudaBody(Body):
    """A body in CUDA: half precision is computed in float, rounded where it is stored or converted to."""

    def ctype(self, dtype: str) -> str:
        """Return the type that numbers of a dtype are computed in."""
        return computed_in(dtype)

    def _element(self, node: Node, pointer: str, index: str) -> str:
        return f"to_float({pointer}[{index}])"

    def _stored(self, node: Node, pointer: str, index: str, name: str) -> str:
        if self.lanes:
            return super()._stored(node, pointer, index, name)
        return f"{pointer}[{index}] = from_float<{CUDA_TYPES[node.dtype]}>({name});"

    def _cast(self, node: Node, name: str) -> str | None:
        text = super()._cast(node, name)
        if node.dtype in ("float16", "bfloat16"):
            return f"rounded<{CUDA_TYPES[node.dtype]}>({text or name})"
        return text


class CudaLoop(Loop):
    """A node, or what follows its anchor, as kernels. `raw`: where the anchor's value lies, once it is computed."""

    cuts_rows = False

    def __init__(self, node: Node, raw: Parameter | None = None) -> None:
        super().__init__(node)
        self.raw = raw

    # --- what there is to do ------------------------------------------------------------------------------------------

    @cached_property
    def made(self) -> list[tuple[int, Node]]:
        """The results that the loop stores element by element, with their numbers: not sums, not the anchor's own."""
        return [(i, s) for i, (s, _) in enumerate(self.results) if not reduces(s) and s is not self.anchor]

    @cached_property
    def sums(self) -> list[Sums]:
        """The sums among the steps, each with where its partial results begin, in numbers."""
        return sums_of(self.steps, self.columns)[0]

    @property
    def columns(self) -> int:
        """How many columns there are partial results for: one where everything is summed up."""
        return 1 if self.sums_all else self.domain.columns

    @cached_property
    def sums_all(self) -> bool:
        """Whether nothing but whole sums are taken: then threads need not keep to their columns."""
        found = [s for s in self.steps if reduces(s)]
        return bool(found) and all(len(s.op.axes) == s.inputs[0].rank for s in found)  # type: ignore[attr-defined]

    @cached_property
    def lanes(self) -> str | None:
        """The one type that numbers are computed in, if there are no integers and no conditions in memory."""
        arrays = [*(self.node.inputs[i] for i in self.used), *(s for _, s in self.made)]
        nodes = [n for n in [*self.node.inputs, *self.loop_steps] if isinstance(n.type, TensorType)]
        found = {computed_in(n.dtype) for n in nodes if n.dtype != "bool"}
        if found not in ({"float"}, {"double"}) or any(a.dtype == "bool" for a in arrays):
            return None
        return found.pop()

    @cached_property
    def width(self) -> int:
        """How many columns a thread computes at a time."""
        if self.lanes is None:
            return 1
        arrays = [n for n in (self.node.inputs[i] for i in self.used) if self.domain.column_stride(shape_of(n))]
        dtypes = [n.dtype for n in arrays] + [s.dtype for _, s in self.made]
        widest = min(_WIDEST, _ACCESS // min((DTYPES[d] for d in dtypes), default=_ACCESS // 4))
        return widest if self.flat else math.gcd(self.domain.columns, widest)

    @cached_property
    def index(self) -> str:
        """The type of rows and columns: 64 bits, which divide slowly, only where elements are that many."""
        arrays = [shape_of(n) for n in self.node.inputs] + [shape_of(s) for _, s in self.made]
        return "int" if max((math.prod(s) for s in arrays), default=0) < _COUNTED_BY_INT else "Index"

    @property
    def flat(self) -> bool:
        """Whether all that is read and stored is one row, or a single number: of any length then."""
        return self.domain.rows <= 1 and len(self.domain.axes) <= 1 and self.domain.tile == (1, 1) and not self.sums

    # --- text ---------------------------------------------------------------------------------------------------------

    def parameters(self) -> list[Parameter]:
        """Return the pointers that the loop reads and stores through."""
        operands = [Parameter(f"const {CUDA_TYPES[self.node.inputs[i].dtype]}* in{i}", i) for i in self.used]
        count = len(self.node.inputs)
        results = [Parameter(f"{CUDA_TYPES[s.dtype]}* out{i}", count + i) for i, s in self.made]
        return [*operands, *([self.raw] if self.raw is not None else []), *results]

    def _pointers(self) -> dict[Node, str]:
        pointers = super()._pointers()
        if self.raw is not None:
            assert self.anchor is not None
            pointers[self.anchor] = "raw"
        return pointers

    def at(self) -> list[str]:
        """Return the lambda that computes one piece: row r, window j, columns from c on; sums get its values."""
        body = CudaBody(self.domain, self._pointers(), "V" if self.lanes else None, hoists=False)
        for i, step in self.made:
            body.store(step, f"out{i}")
        added = []
        for number, each in enumerate(self.sums):
            x = each.node.inputs[0]
            for place in body.places(shape_of(x)):
                value = body.value(x, place)
                value = value if self.lanes else f"Lanes<{computed_in(x.dtype)}, 1>{{{{{value}}}}}"
                added.append(f"sum{number}.add({value});")
        lines = [*body.lines, *body.stores, *added]
        head = f"const auto at = [&](auto lanes, {self.index} r, {self.index} j, {self.index} c) {{"
        return [head, "  typedef decltype(lanes) V;", *indented(lines), "};"]

    def lanes_of(self, width: int) -> str:
        """Return the type of so many numbers side by side; of what is computed one by one it does not matter."""
        return f"Lanes<{self.lanes}, {width}>" if self.lanes else "int"

    @property
    def windows(self) -> int:
        """How many windows of a pooling lie side by side; 1 without."""
        return self.domain.coarse[2] if self.domain.tile != (1, 1) else 1

    def pieces(self) -> int:
        """Return how many pieces there are for threads to take."""
        return self.domain.rows * self.windows * self.domain.columns // self.width

    def row_and_window(self, position: str) -> str:
        """Return the row, and the window in it, of a position among all windows."""
        windows = self.windows
        return f"{position}, 0" if windows == 1 else f"{position} / {windows}, {position} % {windows}"

    def each_piece(self) -> list[str]:
        """Return the loop over all pieces that a thread takes: any of them."""
        across = self.domain.columns // self.width
        where = f"{self.row_and_window(f'i / {across}')}, i % {across} * {self.width}"
        if across == 1:
            where = f"{self.row_and_window('i')}, 0"
        return [
            UNROLLED,
            f"for ({self.index} i = thread_index(); i < {self.pieces()}; i += thread_count())",
            f"  at({self.lanes_of(self.width)}{{}}, {where});",
        ]

    def _flat_loop(self) -> list[str]:
        """Return the loop over `elements` elements, `begin` and `stride` of which the caller knows."""
        if self.width == 1:
            return [f"for (Index i = begin; i < elements; i += stride) at({self.lanes_of(1)}{{}}, 0, 0, i);"]
        return [
            f"const Index whole = elements / {self.width};",
            "for (Index i = begin; i < whole; i += stride)",
            f"  at({self.lanes_of(self.width)}{{}}, 0, 0, i * {self.width});",
            f"if (begin < elements - whole * {self.width})",
            f"  at({self.lanes_of(1)}{{}}, 0, 0, whole * {self.width} + begin);",
        ]

    # --- kernels ------------------------------------------------------------------------------------------------------

    def launch(self, statements: Iterable[str], blocks: int) -> Launch:
        """Return a kernel over the loop's arrays, called after the loop's ops."""
        name = "_".join(dict.fromkeys(s.op.name for s in self.loop_steps)) or self.node.op.name
        return Launch(name, tuple(self.parameters()), tuple(statements), blocks, THREADS, ("elementary.cuh",))

    def elementwise(self) -> Launch:
        """Return the kernel of a loop without sums."""
        if self.flat:
            launch = self.launch([*self.at(), *self._flat_loop()], blocks_for(self.domain.columns, self.width))
            return replace(launch, elements=self.domain.columns)
        return self.launch([*self.at(), *self.each_piece()], blocks_for(self.pieces()))


def indented(lines: Iterable[str]) -> list[str]:
    """Return lines one level further in."""
    return [f"  {line}" for line in lines]
