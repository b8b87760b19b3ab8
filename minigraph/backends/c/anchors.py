"""Convolutions and products as C++: a kernel of the library, with the rest of the group as its epilogue.

The kernel hands each vector of results to `put`, which computes what follows element by element and stores it, and
tells by `done` which rectangle is complete: sums are taken there, while it is in the cache.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

from minigraph.backends.c import direct
from minigraph.backends.c.algorithms import Algorithm
from minigraph.backends.c.steps import LoopCode, aligned, indented, over_columns
from minigraph.backends.c.tuning import Choose
from minigraph.backends.geometry import Geometry
from minigraph.backends.loops.body import Body, is_number, shape_of
from minigraph.backends.loops.expressions import CTYPES, FLOATS
from minigraph.ir.leaves import Constant
from minigraph.ir.node import Node
from minigraph.ir.types import DTYPES
from minigraph.ops.conv import Conv2D, Conv2DKernelAdjoint, Conv2DTranspose
from minigraph.ops.group import reduces
from minigraph.ops.linalg import MatMul


class AnchoredCode(LoopCode):
    """A node that begins with a convolution or a product."""

    def __init__(self, node: Node, threads: int, choose: Choose) -> None:
        super().__init__(node, threads)
        self.choose = choose
        assert self.anchor is not None
        self.op = self.anchor.op
        self.ctype = CTYPES[self.anchor.dtype]
        self.headers = ("gemm.h",) if self.algorithm is None else (self.algorithm.header,)

    @cached_property
    def algorithm(self) -> Algorithm | None:
        """How the convolution is computed; None for a product."""
        assert self.anchor is not None
        if isinstance(self.op, MatMul):
            return None
        return self.choose(self.anchor, self._constant, self.threads if self.parallel else 1)

    @property
    def _constant(self) -> bool:
        assert self.anchor is not None
        return isinstance(self.anchor.inputs[1].op, Constant)

    @cached_property
    def prepared(self) -> int:
        """Bytes of a constant kernel as the algorithm wants it: packed once, outside of the arena."""
        return self._packed if self.algorithm is not None and self._constant else 0

    @property
    def _packed(self) -> int:
        if self.algorithm is None or isinstance(self.op, Conv2DKernelAdjoint):
            return 0
        assert self.anchor is not None
        return aligned(self.algorithm.packed(Geometry.of_node(self.anchor)) * DTYPES[self.anchor.dtype])

    @property
    def _scratch(self) -> int:
        threads = self.threads if self.parallel else 1
        if self.algorithm is None:
            return aligned(direct.gemm_scratch(threads))
        assert self.anchor is not None
        return aligned(self.algorithm.scratch(Geometry.of_node(self.anchor), threads))

    @property
    def workspace(self) -> int:
        """Bytes: the threads' totals, the packed kernel if it is not constant, the algorithm's own."""
        return super().workspace + (0 if self.prepared else self._packed) + self._scratch

    @cached_property
    def used(self) -> list[int]:
        """The operands that the epilogue reads."""
        read = {i for s in self.loop_steps for i in s.inputs}
        return [i for i, n in enumerate(self.node.inputs) if n in read and not is_number(n)]

    def methods(self) -> str:
        """Return `put`, the sums' loop, and `done`."""
        return "\n".join([*indented(self._put()), *self._sums_loop(), *indented(self._done())])

    def _put(self) -> list[str]:
        assert self.anchor is not None
        lanes = self._lanes()
        body = Body(self.domain, self._pointers(), "V" if lanes else None, hoists=False)
        body.names[self.anchor, None] = "value"
        for i, (step, _) in enumerate(self.results):
            if not reduces(step):
                body.store(step, f"out{i}")
        statements = [*body.lines, *body.stores]
        if lanes:
            return [
                "template <class V> MG_INLINE_METHOD void put(ptrdiff_t r, ptrdiff_t c, V value) const {",
                *indented(statements),
                "}",
            ]
        return [
            f"MG_INLINE_METHOD void put(ptrdiff_t r, ptrdiff_t c, {self.ctype} value) const {{",
            *indented(statements),
            "}",
            f"MG_INLINE_METHOD void put(ptrdiff_t r, ptrdiff_t c, {self.ctype}s values) const {{",
            f"  for (ptrdiff_t i = 0; i < LANES<{self.ctype}>; i++) put(r, c + i, values[i]);",
            "}",
        ]

    def _sums_loop(self) -> list[str]:
        if not self.sums[0]:
            return []
        pointers = self._pointers()
        pointers |= {step: f"out{i}" for i, (step, _) in enumerate(self.results) if not reduces(step)}
        lanes = self._sum_lanes()
        return [self._columns(Body(self.domain, pointers, "V" if lanes else None), lanes)]

    def _sum_lanes(self) -> str | None:
        return self._lanes()

    def _done(self) -> list[str]:
        head = "void done(ptrdiff_t first, ptrdiff_t rows, ptrdiff_t column, ptrdiff_t columns, const Team&) const {"
        if not self.sums[0]:
            return [f"MG_INLINE_METHOD {head}", "}"]
        block, lanes = 64, self._sum_lanes()
        # What is complete may be any part of the columns, a group's few for instance: never whole vectors alone.
        loop = over_columns("(*this)", "r", "last", "column", "column + columns", lanes, 1)
        return [
            head,
            f"  for (ptrdiff_t r = first; r < first + rows; r += {block}) {{",
            f"    const ptrdiff_t last = at_most(r + {block}, first + rows);",
            *indented(indented(loop)),
            "  }",
            "}",
        ]

    # --- the call ----------------------------------------------------------------------------------------------------

    def run(self, arrays: Sequence[str], name: str) -> list[str]:
        """Return the statements that compute the step; `arrays` are operands, results, prepared kernel, workspace."""
        assert self.anchor is not None
        place = {n: i for i, n in reversed(list(enumerate(self.node.inputs)))}
        first, second = (arrays[place[n]] for n in self.anchor.inputs)
        workspace = arrays[-1]
        totals = super().workspace
        lines = self._begin(arrays, name)
        lines.append(f"char* const scratch = {workspace} + {totals};")
        if isinstance(self.op, MatMul):
            return [*lines, *self._products(first, second), *self._finish()]
        assert self.algorithm is not None
        space = self.algorithm.name
        lines.append(f"static const Conv conv = {self._conv()};")
        packed = ""
        if self._packed:
            packed = f"{self.ctype}* const packed = ({self.ctype}*)({arrays[-2] if self.prepared else 'scratch'});"
            lines.append(packed)
            if not self.prepared:
                lines += [f"{space}::pack(team, conv, {second}, packed);", "team.barrier();"]
        kernel = "packed" if self._packed else second
        rest = 0 if self.prepared else self._packed
        lines.append(f"{space}::run(team, conv, {first}, {kernel}, step, scratch + {rest});")
        return [*lines, *self._finish()]

    def prepare(self, kernel: str, target: str) -> list[str]:
        """Return the statements that pack a constant kernel."""
        assert self.algorithm is not None
        return [
            f"static const Conv conv = {self._conv()};",
            f"{self.algorithm.name}::pack(team, conv, {kernel}, ({self.ctype}*)({target}));",
        ]

    def _conv(self) -> str:
        assert self.anchor is not None
        g = Geometry.of_node(self.anchor)
        (top, _), (left, _) = g.pads
        numbers = (
            *g.images,
            *g.outputs[1:],
            *g.window.size,
            *g.window.strides,
            *g.window.dilations,
            top,
            left,
            g.groups,
        )
        return "{" + ", ".join(map(str, numbers)) + "}"

    def _products(self, first: str, second: str) -> list[str]:
        assert self.anchor is not None and isinstance(self.op, MatMul)
        x, y = (shape_of(n) for n in self.anchor.inputs)
        m, n = shape_of(self.anchor)[-2:]
        k = x[-2] if self.op.transpose_x else x[-1]
        a = ("1", f"{x[-1]}") if self.op.transpose_x else (f"{x[-1]}", "1")
        b = ("1", f"{y[-1]}") if self.op.transpose_y else (f"{y[-1]}", "1")
        batch = shape_of(self.anchor)[:-2]
        call = f"gemm(team, {m}, {n}, {k}, {{}}, {a[0]}, {a[1]}, {{}}, {b[0]}, {b[1]}, {{}}, scratch);"
        if math.prod(batch) == 1:
            return [call.format(first, second, "step")]
        left, right = (self._offset(shape, batch) for shape in (x, y))
        return [
            f"for (ptrdiff_t b = 0; b < {math.prod(batch)}; b++) {{",
            f"  Below<{'decltype(step)'}> part = {{step, b * {m}}};",
            "  " + call.format(f"{first} + {left}", f"{second} + {right}", "part"),
            "}",
        ]

    def _offset(self, shape: tuple[int, ...], batch: tuple[int, ...]) -> str:
        """Return where the b-th matrix of an operand begins, whose batch axes may be repeated."""
        own = (1,) * (len(batch) + 2 - len(shape)) + shape
        terms, after = [], math.prod(batch)
        for axis, size in enumerate(batch):
            after //= size
            if own[axis] > 1:
                stride = math.prod(own[axis + 1 :])
                terms.append(f"b / {after} % {size} * {stride}")
        return "(" + (" + ".join(terms) or "0") + ")"


def anchors(node: Node) -> bool:
    """Tell whether an op is a convolution or product that there are kernels for."""
    kinds = (Conv2D, Conv2DTranspose, Conv2DKernelAdjoint, MatMul)
    return (
        isinstance(node.op, kinds) and node.dtype in FLOATS and all(0 not in shape_of(n) for n in (node, *node.inputs))
    )
