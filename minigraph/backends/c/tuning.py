"""Choosing a convolution's algorithm: by the cost model, or by measuring each candidate once on this machine."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Sequence

import numpy as np

from minigraph.backends.base import Bound, Kernel
from minigraph.backends.c import compilers, direct, stem, winograd
from minigraph.backends.c.algorithms import Algorithm
from minigraph.backends.geometry import Geometry
from minigraph.files import write_atomically
from minigraph.ir.leaves import Constant, input
from minigraph.ir.node import Node
from minigraph.ir.types import known
from minigraph.ops.conv import Conv2D, Conv2DKernelAdjoint, Conv2DTranspose

_CANDIDATES = {
    Conv2D.name: (stem.FORWARD, direct.FORWARD, winograd.FORWARD),
    Conv2DTranspose.name: (direct.TRANSPOSE, winograd.TRANSPOSE),
    Conv2DKernelAdjoint.name: (stem.KERNEL_ADJOINT, direct.KERNEL_ADJOINT, winograd.KERNEL_ADJOINT),
}
# What is measured: a convolution's node with a constant kernel or not, and a number of threads.
Choose = Callable[[Node, bool, int], Algorithm]
# A measurement runs at least this long, and the best of its runs counts.
_SECONDS = 0.02


def candidates(node: Node, exact: bool) -> list[Algorithm]:
    """Return the algorithms that can compute a convolution; `exact` leaves out those that round more than sums do."""
    geometry = Geometry.of_node(node)
    every = [a for part in _CANDIDATES[node.op.name] for a in part]
    return [a for a in every if a.applies(geometry) and (a.exact or not exact)]


def seconds(algorithm: Algorithm, node: Node, constant: bool, threads: int) -> float:
    """Return the estimated time of a convolution; packing a kernel that is constant costs nothing."""
    geometry = Geometry.of_node(node)
    packing = 0.0 if constant or algorithm.exact else winograd.pack_seconds(algorithm, geometry, threads)
    return algorithm.seconds(geometry, threads) + packing


def by_cost(exact: bool) -> Choose:
    """Return the choice by the cost model."""

    @functools.cache
    def choose(node: Node, constant: bool, threads: int) -> Algorithm:
        return min(candidates(node, exact), key=lambda a: seconds(a, node, constant, threads))

    return choose


class Tuner:
    """The choice by measurement: each geometry is timed once on this machine, and remembered in the cache's folder."""

    def __init__(self, exact: bool, bind: Callable[[Sequence[Bound], Sequence[Algorithm]], Sequence[Kernel]]) -> None:
        self.exact = exact
        self.bind = bind
        self.path = compilers.cache_folder() / "tuning.json"
        self.known: dict[str, str] = json.loads(self.path.read_text()) if self.path.exists() else {}

    def __call__(self, node: Node, constant: bool, threads: int) -> Algorithm:
        """Return the fastest algorithm for a convolution."""
        found = {a.name: a for a in candidates(node, self.exact)}
        types = ", ".join(str(i.type) for i in node.inputs)
        key = f"{node.op} of {types}, constant={constant}, threads={threads}, {', '.join(sorted(found))}, {_machine()}"
        if self.known.get(key) not in found:
            self.known[key] = self._measured(node, constant, list(found.values()))
            write_atomically(self.path, json.dumps(self.known, indent=1))
        return found[self.known[key]]

    def _measured(self, node: Node, constant: bool, algorithms: Sequence[Algorithm]) -> str:
        rng = np.random.default_rng(0)
        arrays = [rng.standard_normal(_sizes(i)).astype(i.dtype) for i in node.inputs]
        operands = [input(i.shape, dtype=i.dtype, name=f"x{n}") for n, i in enumerate(node.inputs)]
        if constant:
            operands[1] = Node(Constant(node.inputs[1].tensor_type, arrays[1].tobytes()))
        output = np.empty(_sizes(node), node.dtype)
        # A node for each algorithm: nodes are compared by identity.
        steps = [Bound(Node(node.op, operands), arrays, output, None) for _ in algorithms]
        times = [_best(kernel) for kernel in self.bind(steps, algorithms)]
        return algorithms[times.index(min(times))].name


def _sizes(node: Node) -> tuple[int, ...]:
    return tuple(known(size) for size in node.shape)


def _best(kernel: Kernel) -> float:
    kernel()
    times: list[float] = []
    while sum(times) < _SECONDS or len(times) < 3:
        start = time.perf_counter()
        kernel()
        times.append(time.perf_counter() - start)
    return min(times)


@functools.cache
def _machine() -> str:
    return compilers.digest(compilers.processor())[:8]
