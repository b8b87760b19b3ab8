"""The reference backend: NumPy, one kernel maker an op. Images are N,H,W,C; other layouts are legalised before.

Read `registry`, then `elementwise`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from operator import length_hint
from typing import Any

import numpy as np

from minigraph.backends.base import Bound, Code, Kernel, Needs
from minigraph.backends.numpy import conv, elementwise, fused, linalg, movement, pool, reduction, threads  # noqa: F401
from minigraph.backends.numpy.registry import KERNELS, Array, Call, Entry, kernel
from minigraph.errors import GraphError
from minigraph.ir.graph import Graph
from minigraph.ir.node import Node
from minigraph.ops.window import NHWC


class Kernels:
    """The code of a plan: its kernels in order."""

    source = ""

    def __init__(self, kernels: Sequence[Kernel]) -> None:
        self.kernels = kernels
        self._remaining: Iterator[Kernel] = iter(())

    def __call__(self) -> None:
        """Call all kernels."""
        self._remaining = iter(self.kernels)
        for run in self._remaining:
            run()

    def step(self, index: int) -> Kernel:
        """Return one kernel."""
        return self.kernels[index]

    def failed(self, error: BaseException) -> int:
        """Return which kernel was the last to be called."""
        return len(self.kernels) - length_hint(self._remaining) - 1


class NumpyBackend:
    """Kernels on NumPy arrays, on `threads` workers (all processors by default).

    The number of threads decides the order of some sums, so results agree bit for bit only for equal numbers.
    """

    name = "numpy"
    generates = False

    def __init__(self, threads_: int | None = None) -> None:
        limit = threads.available() if threads.can_limit_blas() else 1
        self.threads = min(threads_ or limit, limit)

    def _entry(self, node: Node) -> Entry:
        entry = KERNELS.get(type(node.op))
        if entry is None:
            raise GraphError(
                f"the numpy backend has no kernel for {node.op.name}",
                where=node.origin.where,
                hint="register one: minigraph.backends.numpy.kernel(YourOp)",
            )
        if getattr(node.op, "layout", NHWC) != NHWC:
            raise GraphError(
                f"kernels of {node.op.name} exist for {NHWC} only",
                got=node.op.layout,  # type: ignore[attr-defined]
                where=node.origin.where,
                hint="legalise the graph first: minigraph.passes.CHANNELS_LAST",
            )
        return entry

    def computes(self, node: Node) -> bool:
        """Tell that no loops are generated here."""
        return False

    def commits_in_place(self, graph: Graph) -> bool:
        """Tell that a step may stop between two kernels: an interrupt is an exception like any other."""
        return False

    def bind(self, steps: Sequence[Bound], arena: Array) -> Code:
        """Return the steps' kernels, to be called one after the other."""
        return Kernels([self.kernel(s.node, s.inputs, s.output, s.workspace) for s in steps])

    def needs(self, node: Node) -> Needs:
        """Return what the node's kernel asks of the planner."""
        entry = self._entry(node)
        return Needs(
            entry.workspace(node) if entry.workspace else 0, entry.overwritable(node), 0 if entry.alias else None
        )

    def kernel(self, node: Node, inputs: Sequence[Array], output: Any, workspace: Array) -> Kernel:
        """Return the node's kernel bound to these arrays."""
        return self._entry(node).make(Call(node.op, tuple(inputs), output, workspace, self.threads))

    def allocate(self, nbytes: int) -> Array:
        """Return zeroed bytes, aligned to 64."""
        memory = np.zeros(nbytes + 64, np.uint8)
        start = -memory.ctypes.data % 64
        return memory[start : start + nbytes]

    def view(self, memory: Array, offset: int, shape: tuple[int, ...], dtype: str) -> Array:
        """Return an array that lies in `memory` at a byte offset."""
        nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        return memory[offset : offset + nbytes].view(dtype).reshape(shape)

    def from_bytes(self, data: bytes, shape: tuple[int, ...], dtype: str) -> Array:
        """Return a constant's array, read-only."""
        return np.frombuffer(data, dtype=dtype).reshape(shape)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Run kernels inside: BLAS has one thread, and NumPy's warnings are off (programs check their results)."""
        with threads.single_threaded_blas(), np.errstate(all="ignore"):
            yield


__all__ = ["KERNELS", "NumpyBackend", "kernel"]
