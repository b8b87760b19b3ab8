"""The C backend: a program becomes one C++ file, compiled with the machine's compiler, and is one call.

Read `steps` (one step as C++), then `source` (the file), then `kernels/` (what is written in C++ by hand).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from minigraph.backends.base import Bound, Code, HostArrays, Kernel, Needs
from minigraph.backends.c import compilers
from minigraph.backends.c.algorithms import Algorithm
from minigraph.backends.c.anchors import AnchoredCode, anchors
from minigraph.backends.c.library import library_code
from minigraph.backends.c.movement import movement_code
from minigraph.backends.c.program import Program
from minigraph.backends.c.source import StepCode
from minigraph.backends.c.steps import LoopCode
from minigraph.backends.c.tuning import Tuner, by_cost
from minigraph.backends.loops.loop import computes
from minigraph.backends.numpy import NumpyBackend
from minigraph.errors import ArgumentError
from minigraph.ir.graph import Graph
from minigraph.ir.leaves import Constant, Input, Variable
from minigraph.ir.node import Node
from minigraph.ops.group import Group

Array = Any


class CBackend(HostArrays):
    """Generated C++ on `threads` threads (all processors by default).

    precision: "fast" computes 3×3 convolutions by Winograd's algorithm where that is faster; "exact" never does.
    tune: choose each convolution's algorithm by measuring all that apply, once per machine, instead of by a cost model.
    What there is no code for, NumPy's kernels do.
    """

    name = "c"
    generates = True

    def __init__(self, threads: int | None = None, precision: str = "fast", tune: bool = False) -> None:
        if precision not in ("fast", "exact"):
            raise ArgumentError("bad precision", expected='"fast" or "exact"', got=repr(precision))
        self._numpy = NumpyBackend(threads)
        self.threads = self._numpy.threads if threads is None else max(1, threads)
        self.precision = precision
        compiler = compilers.find()
        if compiler is None:
            raise ArgumentError("no C++ compiler was found", hint="install gcc or clang, or pip install minigraph[c]")
        self.compiler = compiler
        exact = precision == "exact"
        self._choose = Tuner(exact, self._bind_each) if tune else by_cost(exact)
        self._code = functools.lru_cache(maxsize=1 << 14)(self._made)

    def _made(self, node: Node) -> StepCode | None:
        """Return a node's code, or None if NumPy computes it."""
        op = node.op
        if op.anchor is not None if isinstance(op, Group) else anchors(node):
            return AnchoredCode(node, self.threads, self._choose)
        if isinstance(op, Group) or computes(node):
            return LoopCode(node, self.threads)
        return library_code(node, self.threads) or movement_code(node, self.threads)

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
        return self._program(steps, arena, self._code)

    def _program(self, steps: Sequence[Bound], arena: Array, code_of: Callable[[Node], StepCode | None]) -> Program:
        numpy = self._numpy
        return Program(
            steps, arena, code_of, self._numpy_kernel, self.compiler, self.threads, self.allocate, numpy.running
        )

    def _bind_each(self, steps: Sequence[Bound], algorithms: Sequence[Algorithm]) -> Sequence[Kernel]:
        """Return convolutions by themselves, each computed by a given algorithm: what a tuner measures."""
        codes = {
            step.node: AnchoredCode(step.node, self.threads, lambda *_, chosen=chosen: chosen)
            for step, chosen in zip(steps, algorithms, strict=True)
        }
        spaced = [replace(s, workspace=self.allocate(codes[s.node].workspace)) for s in steps]
        program = self._program(spaced, self.allocate(0), codes.get)
        return [program.step(i) for i in range(len(steps))]

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
