"""Where the time of a program goes: seconds for each node, beside its FLOPs and its bytes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from minigraph.backends.base import Kernel
from minigraph.ir.node import Node
from minigraph.ir.types import known


@dataclass(frozen=True)
class Timing:
    """One node's cost: median seconds, floating-point operations, bytes it must move."""

    node: Node
    seconds: float
    flops: int
    bytes: int


@dataclass(frozen=True)
class Profile:
    """The timings of all kernel calls of one step, in order."""

    timings: tuple[Timing, ...]

    @property
    def seconds(self) -> float:
        """The sum of all medians."""
        return sum(t.seconds for t in self.timings)

    def __str__(self) -> str:
        lines = [f"{'µs':>9}{'share':>7}{'GFLOP/s':>9}{'GB/s':>7}  node"]
        total = max(self.seconds, 1e-12)
        for t in sorted(self.timings, key=lambda t: -t.seconds):
            rate = max(t.seconds, 1e-9) * 1e9
            lines.append(
                f"{t.seconds * 1e6:>9.1f}{t.seconds / total:>7.1%}{t.flops / rate:>9.1f}{t.bytes / rate:>7.1f}  "
                f"{t.node.op.name} {t.node.type} {t.node.origin.scope}"
            )
        return "\n".join([*lines, f"{self.seconds * 1e6:>9.1f} µs in {len(self.timings)} kernel calls"])


def measure(nodes: Sequence[Node], kernels: Sequence[Kernel], refill: Callable[[], None], repeats: int) -> Profile:
    """Return the median time of each kernel over `repeats` runs of the whole list; `refill` restores the inputs."""
    times: list[list[float]] = [[] for _ in kernels]
    for _ in range(max(1, repeats)):
        refill()
        for kernel, record in zip(kernels, times, strict=True):
            start = time.perf_counter()
            kernel()
            record.append(time.perf_counter() - start)
    return Profile(
        tuple(
            Timing(node, sorted(record)[len(record) // 2], known(node.op.flops(node)), node.op.bytes(node))
            for node, record in zip(nodes, times, strict=True)
        )
    )
