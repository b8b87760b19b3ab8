"""The C backend: a program becomes one C++ file, compiled with the machine's compiler, and is one call.

Read `steps` (one step as C++), then `source` (the file), then `kernels/` (what is written in C++ by hand).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from typing import Any

from minigraph.backends.base import Bound, Code, Kernel, Needs
from minigraph.backends.c import compilers
from minigraph.backends.c.anchors import AnchoredCode, anchors
from minigraph.backends.c.library import library_code
from minigraph.backends.c.program import Program
from minigraph.backends.c.source import StepCode
from minigraph.backends.c.steps import LoopCode, computes
from minigraph.backends.numpy import NumpyBackend
from minigraph.errors import ArgumentError
from minigraph.ir.graph import Graph
from minigraph.ir.leaves import Constant, Input, Variable
from minigraph.ir.node import Node
from minigraph.ops.group import Group

Array = Any


class CBackend:
    """Generated C++ on `threads` threads (all processors by default).

    precision: "fast" computes 3×3 convolutions by Winograd's algorithm where that is faster; "exact" never does. What
    the compiler is not there for, or has no code for, NumPy's kernels do.
    """

    name = "c"
    generates = True

    def __init__(self, threads: int | None = None, precision: str = "fast") -> None:
        if precision not in ("fast", "exact"):
            raise ArgumentError("bad precision", expected='"fast" or "exact"', got=repr(precision))
        self._numpy = NumpyBackend(threads)
        self.threads = self._numpy.threads if threads is None else max(1, threads)
        self.precision = precision
        compiler = compilers.find()
        if compiler is None:
            raise ArgumentError("no C++ compiler was found", hint="install gcc or clang, or pip install minigraph[c]")
        self.compiler = compiler
        self._code = functools.lru_cache(maxsize=1 << 14)(self._made)

    def _made(self, node: Node) -> StepCode | None:
        """Return a node's code, or None if NumPy computes it."""
        op = node.op
        if op.anchor is not None if isinstance(op, Group) else anchors(node):
            return AnchoredCode(node, self.threads, self.precision == "exact")
        if isinstance(op, Group) or computes(node):
            return LoopCode(node, self.threads)
        return library_code(node, self.threads)

    def computes(self, node: Node) -> bool:
        """Tell whether a generated loop computes this op: groups are made of such."""
        return anchors(node) or computes(node)

    def commits_in_place(self, graph: Graph) -> bool:
        """Tell whether the whole graph is one call, which nothing interrupts."""
        kinds = (Input, Variable, Constant)
        return all(isinstance(n.op, kinds) or self._numpy_alias(n) or self._code(n) is not None for n in graph.nodes)

    def _numpy_alias(self, node: Node) -> bool:
        return not isinstance(node.op, Group) and self._code(node) is None and self._numpy.needs(node).alias is not None

    def needs(self, node: Node) -> Needs:
        """Return what the node's code asks of the planner."""
        code = self._code(node)
        if code is None:
            return self._numpy.needs(node)
        return Needs(code.workspace, code.overwritable)

    def bind(self, steps: Sequence[Bound], arena: Array) -> Code:
        """Return the steps as one compiled program."""
        numpy = self._numpy
        return Program(
            steps, arena, self._code, self._numpy_kernel, self.compiler, self.threads, self.allocate, numpy.running
        )

    def _numpy_kernel(self, step: Bound) -> Kernel:
        return self._numpy.kernel(step.node, step.inputs, step.output, step.workspace)

    def kernel(self, node: Node, inputs: Sequence[Array], output: Any, workspace: Array) -> Kernel:
        """Return one node's code alone."""
        return self.bind([Bound(node, inputs, output, workspace)], workspace).step(0)

    def allocate(self, nbytes: int) -> Array:
        """Return zeroed bytes, aligned to 64."""
        return self._numpy.allocate(nbytes)

    def view(self, memory: Array, offset: int, shape: tuple[int, ...], dtype: str) -> Array:
        """Return an array that lies in `memory` at a byte offset."""
        return self._numpy.view(memory, offset, shape, dtype)

    def from_bytes(self, data: bytes, shape: tuple[int, ...], dtype: str) -> Array:
        """Return a constant's array, read-only."""
        return self._numpy.from_bytes(data, shape, dtype)

    def running(self) -> Any:
        """Return a context that does nothing: a program looks after NumPy's threads where it needs its kernels."""
        return contextlib.nullcontext()


__all__ = ["CBackend"]
