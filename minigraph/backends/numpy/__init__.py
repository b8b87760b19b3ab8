"""The reference backend: NumPy, one kernel maker an op. Images are N,H,W,C; other layouts are legalised before.

Read `registry`, then `elementwise`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from minigraph.backends.base import Bound, Code, HostArrays, Kernel, Needs
from minigraph.backends.dtypes import array_dtype
from minigraph.backends.memory import allocate
from minigraph.backends.numpy import conv, elementwise, fused, linalg, movement, pool, reduction, threads  # noqa: F401
from minigraph.backends.numpy.call import Array, Call
from minigraph.backends.numpy.registry import KERNELS, Entry, kernel
from minigraph.backends.numpy.source import StraightLine
from minigraph.errors import ArgumentError, GraphError
from minigraph.ir.graph import Graph
from minigraph.ir.node import Node
from minigraph.ops.window import NHWC


class NumpyBackend(HostArrays):
    """Kernels on NumPy arrays, on `threads` workers (all processors by default).

    precision: "fast" computes large 3×3 convolutions of float32 with fewer operations and about ten times the rounding
    error (Winograd's algorithm, see `winograd`); "exact" computes each as plain sums. The number of processors decides
    the order of some sums, so results agree bit for bit only between machines with equally many.
    """

    name = "numpy"
    generates = False

    def __init__(self, threads_: int | None = None, precision: str = "fast") -> None:
        if precision not in ("fast", "exact"):
            raise ArgumentError("bad precision", expected='"fast" or "exact"', got=repr(precision))
        limit = threads.available() if threads.can_limit_blas() else 1
        self.threads = min(threads_ or limit, limit)
        self.precision = precision

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
        """Return the calls of the steps' kernels, written out as one function."""
        kernels = [self.kernel(s.node, s.inputs, s.output, s.workspace) for s in steps]
        return StraightLine([s.node for s in steps], kernels)

    def needs(self, node: Node) -> Needs:
        """Return what the node's kernel asks of the planner."""
        entry = self._entry(node)
        return Needs(entry.workspace(node), entry.overwritable(node), 0 if entry.alias else None)

    def kernel(self, node: Node, inputs: Sequence[Array], output: Any, workspace: Array) -> Kernel:
        """Return the node's kernel bound to these arrays."""
        exact = self.precision == "exact"
        return self._entry(node).make(Call(node.op, tuple(inputs), output, workspace, self.threads, exact))

    def allocate(self, nbytes: int) -> Array:
        """Return zeroed bytes, aligned to 64."""
        return allocate(nbytes)

    def view(self, memory: Array, offset: int, shape: tuple[int, ...], dtype: str) -> Array:
        """Return an array that lies in `memory` at a byte offset."""
        kind = array_dtype(dtype)
        nbytes = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        return memory[offset : offset + nbytes].view(kind).reshape(shape)

    def from_bytes(self, data: bytes, shape: tuple[int, ...], dtype: str) -> Array:
        """Return a constant's array, read-only."""
        return np.frombuffer(data, dtype=array_dtype(dtype)).reshape(shape)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Run kernels inside: BLAS has one thread, and NumPy's settings are the kernels'."""
        with threads.single_threaded_blas(), threads.numpy_settings():
            yield


__all__ = ["KERNELS", "NumpyBackend", "kernel"]
