"""A plan's kernels written out as one Python function, straight from the first line to the last.

Most kernels are nothing but calls of NumPy on arrays that are known when a plan is bound: each such call becomes a line
of its own, its arrays local names. So a program's code can be read, and a call costs what NumPy's own call costs.
"""

from __future__ import annotations

import itertools
import linecache
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Any

import numpy as np

from minigraph.backends.base import Code
from minigraph.backends.numpy.call import Kernel, Steps
from minigraph.backends.numpy.threads import Spread, side_by_side
from minigraph.ir.node import Node


def straight_line(steps: Sequence[tuple[str, Kernel]]) -> tuple[str, Callable[[], object]]:
    """Return the source of a function that makes the calls of all kernels, each under its comment, and the function.

    >>> x = np.ones(3)
    >>> source, run = straight_line([("%1 add", partial(np.add, x, x, out=x))])
    >>> print(source)
    def run(a1=a1, add=add):
        # %1 add
        add(a1, a1, out=a1)
    >>> run()
    >>> x
    array([2., 2., 2.])
    """
    return _Writer().written(steps)


class _Writer:
    """Source in the making, and what its names stand for."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.names: dict[int, str] = {}
        self.functions: list[str] = []

    def written(self, steps: Sequence[tuple[str, Kernel]]) -> tuple[str, Callable[[], object]]:
        """Return the source of all steps, and what it defines."""
        lines: list[str] = []
        used: set[str] = set()
        for number, (comment, kernel) in enumerate(steps):
            lines.append(f"    # {comment}")
            lines += [f"    {line}" for line in self._lines(kernel, number, used)] or ["    pass"]
        functions = [*self.functions, self._function("run", lines, used)]
        source = "\n".join(functions)
        file = f"<minigraph program {id(self):x}>"
        namespace = dict(self.values)
        start = 0
        for function in functions:  # one by one: Python's compiler takes a hundred times a text's memory
            exec(compile("\n" * start + function, file, "exec"), namespace)
            start += function.count("\n") + 1
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)  # for tracebacks
        return source, namespace["run"]

    def _function(self, name: str, lines: Sequence[str], used: set[str]) -> str:
        arguments = ", ".join(f"{each}={each}" for each in sorted(used, key=lambda n: (len(n), n)))
        return "\n".join([f"def {name}({arguments}):", *(lines or ["    pass"])])

    def _lines(self, kernel: Kernel, number: int, used: set[str]) -> list[str]:
        """Return the lines that do what a kernel does."""
        if isinstance(kernel, Steps):
            return [line for call in kernel.calls for line in self._lines(call, number, used)]
        if isinstance(kernel, Spread):
            names = [self._share(part, number) for part in kernel.parts]
            used |= {self._name(side_by_side, "side_by_side"), *names}
            return [f"side_by_side({', '.join(names)})"]
        if isinstance(kernel, partial):
            return [self._call(kernel, used)]
        name = self._name(kernel, f"kernel_{number}")
        used.add(name)
        return [f"{name}()"]

    def _share(self, part: Kernel, number: int) -> str:
        """Write a worker's share as a function of its own; return its name."""
        used: set[str] = set()
        lines = [f"    {line}" for line in self._lines(part, number, used)]
        name = f"share{number}_{len(self.functions)}"
        self.functions.append(self._function(name, lines, used))
        return name

    def _call(self, call: partial[Any], used: set[str]) -> str:
        owner = getattr(call.func, "__self__", None)
        if isinstance(owner, np.ndarray):
            function = f"{self._argument(owner, used)}.{call.func.__name__}"
        else:
            function = self._name(call.func, _name(call.func))
            used.add(function)
        arguments = [self._argument(value, used) for value in call.args]
        arguments += [f"{key}={self._argument(value, used)}" for key, value in call.keywords.items()]
        return f"{function}({', '.join(arguments)})"

    def _argument(self, value: Any, used: set[str]) -> str:
        if isinstance(value, (bool, int, str)) or value is None or (isinstance(value, tuple) and not value):
            return repr(value)
        if isinstance(value, tuple):
            return f"({', '.join(self._argument(each, used) for each in value)},)"
        name = self._name(value, f"a{len(self.values)}")
        used.add(name)
        return name

    def _name(self, value: Any, wanted: str) -> str:
        """Return the name of a value; the same one for the same object."""
        if id(value) not in self.names:
            free = next(name for name in _numbered(wanted) if name not in self.values)
            self.names[id(value)] = free
            self.values[free] = value
        return self.names[id(value)]


def _name(function: Any) -> str:
    """Return a function's name, a ufunc's in front of its methods': `add_reduce`."""
    owner = getattr(function, "__self__", None)
    name = str(getattr(function, "__name__", type(function).__name__))
    return f"{owner.__name__}_{name}" if isinstance(owner, np.ufunc) else name


def _numbered(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}_{number}" for number in itertools.count(2))


class StraightLine(Code):
    """The code of a plan: its kernels in one function. A kernel may be replaced: then the function is written anew."""

    def __init__(self, nodes: Sequence[Node], kernels: Sequence[Kernel]) -> None:
        self.nodes = nodes
        self.kernels = list(kernels)
        self._write()

    def __call__(self) -> None:
        """Make all calls."""
        if self._written != self.kernels:
            self._write()
        self._run()

    def _write(self) -> None:
        comments = [_comment(number, node) for number, node in enumerate(self.nodes)]
        self.source, self._run = straight_line(list(zip(comments, self.kernels, strict=True)))
        self._written = list(self.kernels)

    def step(self, index: int) -> Kernel:
        """Return one kernel."""
        return self.kernels[index]

    def completed(self) -> int:
        """Return 0: updates are not written before all is computed."""
        return 0

    def failed(self, error: BaseException) -> int:
        """Return which kernel raised an error: the line that it passed through tells."""
        code = getattr(self._run, "__code__", None)
        trace: TracebackType | None = error.__traceback__
        while trace is not None and trace.tb_frame.f_code is not code:
            trace = trace.tb_next
        last = len(self.source) if trace is None else trace.tb_lineno
        comments = [line.startswith("    # ") for line in self.source.splitlines()[:last]]
        return sum(comments) - 1


def _comment(number: int, node: Node) -> str:
    scope = f" @ {node.origin.scope}" if node.origin.scope else ""
    return f"{number}: {node.op.name} {node.type}{scope}".replace("\n", " ")
