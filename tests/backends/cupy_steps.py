"""Steps of the GPU backend in tests: the kernels of many nodes in one module, run where NumPy's would be."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from backends.c_programs import agrees, within
from backends.op_graphs import Growing
from minigraph.backends.base import get
from minigraph.backends.cupy.library import library_code
from minigraph.backends.cupy.movement import movement_code
from minigraph.backends.cupy.source import Source
from minigraph.backends.cupy.steps import STATUS, Launch, StepCode
from minigraph.backends.dtypes import array_dtype
from minigraph.ir import Graph, Node, TensorType
from minigraph.ir.graph import topological
from minigraph.ir.leaves import Constant, Input
from minigraph.ir.types import HALF
from minigraph.passes.layout import CHANNELS_LAST
from minigraph.passes.trace import Trace
from minigraph.runtime.interpreter import evaluate_node
from minigraph.testing import cuda
from minigraph.testing.bounds import analyse

Array = np.ndarray[Any, Any]

needs_compiler = pytest.mark.skipif(not cuda.available(), reason="no C++ compiler")
# What memory is filled with before it is written: what a kernel leaves out is seen.
_UNWRITTEN = 0xAB


def step_code(node: Node) -> StepCode | None:
    """Return the kernels written by hand that a node has."""
    return library_code(node) or movement_code(node)


class Steps:
    """Graphs whose nodes run as kernels where there are any, else by NumPy; `status` is what kernels found wrong."""

    def __init__(self, roots: Iterable[Node], code_of: Callable[[Node], StepCode | None] = step_code) -> None:
        self.nodes = list(topological(roots))
        self.codes = {node: code for node in self.nodes if (code := code_of(node)) is not None}
        source = Source()
        self.kernels = {
            launch: source.add(launch)
            for code in self.codes.values()
            for launch in code.actions
            if isinstance(launch, Launch)
        }
        self.source = str(source)
        self.status = 0

    def run(self, values: Mapping[str, Array], backwards: bool = False) -> dict[Node, Any]:
        """Return each node's value: an array, or a tuple of them."""
        known: dict[Node, Any] = {}
        numpy = get("numpy")
        with cuda.standin(backwards=backwards), numpy.running():
            cupy: Any = importlib.import_module("cupy")
            module = cupy.RawModule(code=self.source) if self.kernels else None
            status = _on_device(cupy, np.zeros(1, np.int32))
            for node in self.nodes:
                operands = [known[i] for i in node.inputs]
                if isinstance(node.op, Input):
                    known[node] = np.asarray(values[node.op.label])
                elif isinstance(node.op, Constant) or node not in self.codes:
                    known[node] = evaluate_node(node, operands, numpy)
                else:
                    known[node] = self._launched(cupy, module, node, operands, status)
            self.status = int(status.get()[0])
        return known

    def _launched(self, cupy: Any, module: Any, node: Node, operands: Sequence[Array], status: Any) -> Any:
        types = [node.type] if isinstance(node.type, TensorType) else list(node.type.items)
        code = self.codes[node]
        before = [_on_device(cupy, np.ascontiguousarray(x)) for x in operands]
        results = [
            _on_device(cupy, np.full(math.prod(t.shape) * array_dtype(t.dtype).itemsize, _UNWRITTEN, np.uint8))
            for t in types
        ]
        workspace = _on_device(cupy, np.full(code.workspace, _UNWRITTEN, np.uint8))
        arrays = [*before, *results, workspace]
        for launch in code.actions:
            assert isinstance(launch, Launch)
            places = [status if p.place == STATUS else arrays[p.place] for p in launch.parameters]
            pointers = tuple(int(a.data.ptr) + p.offset for a, p in zip(places, launch.parameters, strict=True))
            module.get_function(self.kernels[launch])((launch.blocks,), (launch.threads,), pointers)
        for array, x in zip(before, operands, strict=True):
            assert array.get().tobytes() == np.ascontiguousarray(x).tobytes(), f"{node.op.name} changes an operand"
        found = [r.get().view(array_dtype(t.dtype)).reshape(t.shape) for r, t in zip(results, types, strict=True)]
        return found[0] if isinstance(node.type, TensorType) else tuple(found)

    @property
    def by_hand(self) -> set[str]:
        """The ops that kernels written by hand compute."""
        return {node.op.name for node in self.codes}


def _on_device(cupy: Any, array: Array) -> Any:
    held = cupy.ndarray(array.shape, array.dtype, cupy.cuda.alloc(max(1, array.nbytes)))
    held.set(array)
    return held


def prepared(outputs: Mapping[str, Node]) -> dict[str, Node]:
    """Return outputs in the layout that there are kernels for."""
    return dict(CHANNELS_LAST(Graph(outputs), Trace()).outputs)


def reference(roots: Iterable[Node], values: Mapping[str, Array]) -> dict[Node, Any]:
    """Return each node's value by NumPy."""
    steps = Steps(roots, lambda node: None)
    with np.errstate(all="ignore"):
        return steps.run(values)


class Parts:
    """Graphs that are compiled as one module, which takes time once, and run forwards and backwards."""

    def __init__(self, parts: Mapping[str, Callable[[Growing], object]]) -> None:
        made = Growing()
        self.names: dict[str, list[str]] = {}
        for name, add in parts.items():
            before = set(made.outputs)
            add(made)
            self.names[name] = [output for output in made.outputs if output not in before]
        self.values = made.values
        self.outputs = prepared(made.outputs)
        self.steps = Steps(self.outputs.values())
        self.got = self.steps.run(self.values)
        self.again = self.steps.run(self.values, backwards=True)

    def _part(self, part: str) -> dict[str, Node]:
        """Return the outputs of a part, after a look at dtypes and shapes, and that no order of threads matters."""
        outputs = {name: self.outputs[name] for name in self.names[part]}
        for name, node in outputs.items():
            got = self.got[node]
            assert (got.dtype, got.shape) == (array_dtype(node.dtype), node.shape), name
            assert got.tobytes() == self.again[node].tobytes(), f"{name} depends on the order of threads"
        assert self.steps.status == 0
        return outputs

    def check(self, part: str) -> None:
        """Hold a part to the derived bounds, and integers to equality."""
        outputs = self._part(part)
        found = analyse(outputs.values(), self.values)
        for name, node in outputs.items():
            within(name, self.got[node], found[node].value, found[node].error)

    def same_bits(self, part: str) -> None:
        """Assert that a part has NumPy's bits."""
        outputs = self._part(part)
        expected = reference(outputs.values(), self.values)
        for name, node in outputs.items():
            assert self.got[node].tobytes() == expected[node].tobytes(), name

    def same_numbers(self, part: str, terms: float = 0.0) -> None:
        """Assert that a part has NumPy's numbers, NaN and infinities where it has, half precision to 64 units."""
        outputs = self._part(part)
        expected = reference(outputs.values(), self.values)
        for name, node in outputs.items():
            pair = self.got[node], expected[node]
            if node.dtype in HALF:  # which has fewer digits, but is compared in float32's
                pair = pair[0].astype(np.float32), pair[1].astype(np.float32)
            agrees(name, *pair, terms=2.0**18 * terms if node.dtype in HALF else terms)


def check(made: Growing) -> None:
    """Hold one graph to the derived bounds."""
    Parts({"all": lambda other: _taken_over(made, other)}).check("all")


def same_bits(made: Growing) -> None:
    """Assert that one graph has NumPy's bits."""
    Parts({"all": lambda other: _taken_over(made, other)}).same_bits("all")


def _taken_over(made: Growing, other: Growing) -> None:
    other.outputs |= made.outputs
    other.values |= made.values
