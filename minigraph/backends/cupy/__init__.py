"""The GPU backend: CuPy's arrays, cuDNN's convolutions, generated kernels for all else, one CUDA graph a program.

Read `steps` (what a step is), `loops` (generated kernels), `source` (the file), `program` (capture and replay), `gpu`
(the device). Without a GPU, `minigraph.testing.cuda` runs all of it on the processor.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minigraph.backends.base import Bound, Code, Kernel, Needs
from minigraph.backends.cupy.anchors import anchors, group_code, multiplies, single_code
from minigraph.backends.cupy.gpu import Gpu
from minigraph.backends.cupy.library import library_code
from minigraph.backends.cupy.loops import loop_code, loops
from minigraph.backends.cupy.movement import movement_code
from minigraph.backends.cupy.program import Program
from minigraph.backends.cupy.staging import Staging
from minigraph.backends.cupy.steps import STATUS, Launch, StepCode
from minigraph.backends.numpy import NumpyBackend
from minigraph.errors import GraphError
from minigraph.ir.graph import Graph
from minigraph.ir.leaves import Constant, Input, Variable
from minigraph.ir.node import Node
from minigraph.ops.group import Group

Array = Any


class CupyBackend:
    """Programs on one NVIDIA GPU.

    precision: "float32", or "tf32" for products and convolutions that round their operands to 10 bits of fraction.
    deterministic: only algorithms that give the same bits at every run; an op that has none is an error. workspace: the
    most bytes that one convolution may ask for. tune: choose convolutions' algorithms by measuring them.
    Raises a ProgramError that says in one line what is missing where there is no GPU to use.
    """

    name = "cupy"
    generates = True
    remote = True

    def __init__(
        self, precision: str = "float32", deterministic: bool = False, workspace: int = 1 << 30, tune: bool = True
    ) -> None:
        self.gpu = Gpu(precision, deterministic, workspace, tune)
        self._numpy = NumpyBackend()  # says which ops are views of an operand
        self._status = self.gpu.allocate(4)
        self._staging = Staging(self.gpu, self._status)
        self._code = functools.lru_cache(maxsize=1 << 14)(self._made)

    def _made(self, node: Node) -> StepCode:
        op = node.op
        if isinstance(op, Group):
            return group_code(node, self.gpu) if op.anchor is not None else loop_code(node)
        if multiplies(node):
            return single_code(node, self.gpu)
        if loops(node):
            return loop_code(node)
        code = library_code(node) or movement_code(node)
        if code is None:
            raise GraphError(f"the cupy backend has no kernel for {op.name}", got=node.type, where=node.origin.where)
        return code

    def computes(self, node: Node) -> bool:
        """Tell whether groups are made of this op."""
        return anchors(node) or loops(node)

    def commits_in_place(self, graph: Graph) -> bool:
        """Tell whether nothing can go wrong once a step is under way, such as an index that is out of range."""
        return not any(self._may_fail(node) for node in graph.nodes)

    def _may_fail(self, node: Node) -> bool:
        if isinstance(node.op, (Input, Variable, Constant)) or self._is_view(node):
            return False
        launches = [action for action in self._code(node).actions if isinstance(action, Launch)]
        return any(p.place == STATUS for launch in launches for p in launch.parameters)

    def _is_view(self, node: Node) -> bool:
        return not isinstance(node.op, Group) and self._numpy.needs(node).alias is not None

    def needs(self, node: Node) -> Needs:
        """Return what the node's kernels ask of the planner."""
        if self._is_view(node):
            return self._numpy.needs(node)
        code = self._code(node)
        return Needs(code.workspace, code.overwritable)

    def bind(self, steps: Sequence[Bound], arena: Array) -> Code:
        """Return the steps as kernels and calls on the device's stream."""
        self._staging.expect(arena)
        return Program(steps, self._code, self.gpu, self._status)

    def kernel(self, node: Node, inputs: Sequence[Array], output: Any, workspace: Array) -> Kernel:
        """Return one node's kernels alone."""
        return self.bind([Bound(node, inputs, output, workspace)], workspace).step(0)

    def allocate(self, nbytes: int) -> Array:
        """Return zeroed bytes of device memory."""
        return self.gpu.allocate(nbytes)

    def view(self, memory: Array, offset: int, shape: tuple[int, ...], dtype: str) -> Array:
        """Return an array that lies in `memory` at a byte offset."""
        return self.gpu.view(memory, offset, shape, dtype)

    def from_bytes(self, data: bytes, shape: tuple[int, ...], dtype: str) -> Array:
        """Return a constant's array on the device."""
        return self.gpu.view(self.gpu.from_host(np.frombuffer(data, np.uint8)), 0, shape, dtype)

    def running(self) -> Any:
        """Return the stream: what CuPy is asked to do inside happens on it."""
        return self.gpu.stream

    # --- between host and device ------------------------------------------------------------------------------------

    def upload(self, target: Array, value: np.ndarray[Any, Any]) -> None:
        """Enqueue a copy of a host array into a device array."""
        self._staging.upload(target, value)

    def download(self, arrays: Sequence[Array]) -> Callable[[], list[np.ndarray[Any, Any]]]:
        """Enqueue copies to the host, and return what waits for them; it raises a ProgramError for a bad index."""
        return self._staging.download(arrays)

    def copy(self, target: Array, source: Array) -> None:
        """Enqueue a copy between device arrays."""
        self.gpu.copy(int(target.data.ptr), int(source.data.ptr), int(target.nbytes), "device to device")

    def finite(self, arrays: Sequence[Array]) -> bool:
        """Tell whether all numbers of these arrays are finite."""
        return all(bool(np.isfinite(a).all()) for a in self._staging.download(arrays)())

    def free_bytes(self) -> int:
        """Return how much of the device's memory is free."""
        return int(self.gpu.cupy.cuda.Device().mem_info[0])


_shared: list[CupyBackend] = []


def shared() -> CupyBackend:
    """Return the backend that is meant by its name: programs of one share the variables that lie on the device."""
    if not _shared or _shared[0].gpu.cupy is not sys.modules.get("cupy"):
        _shared[:] = [CupyBackend()]
    return _shared[0]


__all__ = ["CupyBackend", "shared"]
