"""A plan's steps bound to arrays, as one shared object; what has no code here is done by NumPy's kernels in between."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from minigraph.backends.base import Bound, Code, Kernel
from minigraph.backends.c import compilers
from minigraph.backends.c.anchors import AnchoredCode
from minigraph.backends.c.source import Source, StepCode, pointer, result_types
from minigraph.backends.loops.expressions import CTYPES

Array = np.ndarray[Any, Any]


class Program(Code):
    """The code of one plan. Calls go through ctypes, which lets other Python threads run meanwhile."""

    def __init__(
        self,
        steps: Sequence[Bound],
        arena: Array,
        code_of: Callable[[Any], StepCode | None],
        numpy_kernel: Callable[[Bound], Kernel],
        compiler: compilers.Compiler,
        threads: int,
        allocate: Callable[[int], Array],
        running_numpy: Callable[[], Any],
    ) -> None:
        self.steps = steps
        self.arena = arena
        self.threads = threads
        self._outside: dict[int, int] = {}  # address → place in the table
        self._kept: list[Any] = []
        self._completed = ctypes.c_long(0)
        self._begin = arena.ctypes.data
        self._end = self._begin + arena.nbytes
        source = Source()
        self._numbers: list[int | None] = []
        for step in steps:
            code = code_of(step.node)
            self._numbers.append(None if code is None else self._add(source, step, code, allocate))
        self.source = str(source)
        library = compilers.build(self.source, compiler, source.parts) if source.steps else None
        addresses = [0] * len(self._outside)
        for address, place in self._outside.items():
            addresses[place] = address
        self._table = (ctypes.c_void_p * max(1, len(addresses)))(*addresses)
        self._calls = self._segments(library, numpy_kernel)
        self._running = 0
        self._running_numpy = running_numpy
        self._whole: Kernel | None = self._calls[0][1] if len(self._calls) == 1 and None not in self._numbers else None
        if library is not None and source.preparations:
            library.prepare(ctypes.c_void_p(self._begin), self._table, threads)

    def _add(self, source: Source, step: Bound, code: StepCode, allocate: Callable[[int], Array]) -> int:
        node = step.node
        results = step.output if isinstance(step.output, tuple) else (step.output,)
        arrays = [
            self._address(a, CTYPES[n.dtype]) if n.dtype in CTYPES else ""
            for a, n in zip(step.inputs, node.inputs, strict=True)
        ]
        arrays += [self._address(a, CTYPES[t.dtype]) for a, t in zip(results, result_types(node), strict=True)]
        arrays.append(self._address(step.workspace, "char"))
        prepared = None
        if isinstance(code, AnchoredCode) and code.prepared:
            memory = allocate(code.prepared)
            prepared = self._address(memory, "char")
        return source.add(node, code, arrays, prepared)

    def _address(self, array: Array, ctype: str) -> str:
        address = array.ctypes.data
        if self._begin <= address < self._end:
            return pointer(ctype, address - self._begin, 0)
        self._kept.append(array)
        return pointer(ctype, None, self._outside.setdefault(address, len(self._outside)))

    def _segments(self, library: Any, numpy_kernel: Callable[[Bound], Kernel]) -> list[tuple[int, Kernel]]:
        """Return (first step, call) of each run of steps that one call does."""
        self._entry: Any = None if library is None else library.run
        self._single: list[Kernel] = []
        calls: list[tuple[int, Kernel]] = []
        first: int | None = None
        for i, (step, number) in enumerate(zip(self.steps, self._numbers, strict=True)):
            if number is None:
                kernel = numpy_kernel(step)
                self._single.append(kernel)
                calls.append((i, kernel))
                first = None
                continue
            self._single.append(self._range(number, number + 1))
            if first is None:
                first = number
                calls.append((i, self._range(first, number + 1)))
            else:
                calls[-1] = (calls[-1][0], self._range(first, number + 1))
        return calls

    def _range(self, first: int, last: int) -> Kernel:
        arguments = (ctypes.c_void_p(self._begin), self._table, ctypes.c_int(self.threads), ctypes.c_int(first))
        return partial(self._entry, *arguments, ctypes.c_int(last), ctypes.byref(self._completed))

    def __call__(self) -> None:
        """Run all steps."""
        if self._whole is not None:
            self._whole()
            return
        with self._running_numpy():
            for first, call in self._calls:
                self._running = first
                call()

    def step(self, index: int) -> Kernel:
        """Return one step alone; it keeps the program, and so the arrays behind the addresses, alive."""
        return lambda: self._single[index]()

    def completed(self) -> int:
        """Return how many calls have run to their end: an interrupt may come out of a call that has done all."""
        return self._completed.value if self._whole is not None else 0

    def failed(self, error: BaseException) -> int:
        """Return the step that was running."""
        return self._running
