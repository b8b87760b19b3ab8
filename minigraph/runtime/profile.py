"""Where the time of a program goes: seconds for each step, beside its FLOPs, its bytes, and the least it could take."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from minigraph.backends.base import Kernel
from minigraph.ir.leaves import Item
from minigraph.ir.node import Node
from minigraph.ir.types import known
from minigraph.ops.group import ANCHORS
from minigraph.ops.region import Region

_NOTHING = 1e-7  # seconds


@dataclass(frozen=True)
class Timing:
    """One step's cost: median seconds, floating-point operations, bytes it must move.

    floor: the least seconds that the machine needs for those; None where it was not measured. Algorithms that need
    fewer operations than the definition of an op, like Winograd's, can be below it.
    """

    node: Node
    seconds: float
    flops: int
    bytes: int
    floor: float | None = None


@dataclass(frozen=True)
class Profile:
    """The timings of all kernel calls of one step, in order."""

    timings: tuple[Timing, ...]

    @property
    def seconds(self) -> float:
        """The sum of all medians."""
        return sum(t.seconds for t in self.timings)

    @property
    def floor(self) -> float | None:
        """The sum of all floors; None where the machine was not measured."""
        floors = [t.floor for t in self.timings if t.floor is not None]
        return sum(floors) if len(floors) == len(self.timings) else None

    def __str__(self) -> str:
        floors = self.floor is not None
        lines = [_cells("µs", "share", "GFLOP/s", "GB/s", *(("floor µs", "× floor") if floors else ())) + "  node"]
        total = max(self.seconds, 1e-12)
        for t in sorted(self.timings, key=lambda t: -t.seconds):
            rate = max(t.seconds, 1e-9) * 1e9
            lines.append(
                _cells(
                    f"{t.seconds * 1e6:.1f}", f"{t.seconds / total:.1%}", f"{t.flops / rate:.1f}",
                    f"{t.bytes / rate:.1f}", *_floor_cells(t.seconds, t.floor),
                )
                + f"  {label(t.node)} {t.node.type} {t.node.origin.scope}".rstrip()
            )  # fmt: skip
        sums = _cells(f"{self.seconds * 1e6:.1f}", "", "", "", *_floor_cells(self.seconds, self.floor))
        hint = "" if floors else "; `minigraph info --measure`, once, adds floors"
        return "\n".join([*lines, f"{sums}  µs in {len(self.timings)} kernel calls{hint}"])


def _cells(*texts: str) -> str:
    return "".join(f"{text:>{width}}" for text, width in zip(texts, (9, 7, 9, 7, 10, 9), strict=False))


def _floor_cells(seconds: float, floor: float | None) -> tuple[str, ...]:
    if floor is None:
        return ()
    above = seconds / max(floor, 1e-12)
    # Of a step that has next to nothing to do, only the cost of the call is seen.
    return f"{floor * 1e6:.1f}", "" if floor < _NOTHING else f"{above:.0f}" if above > 20 else f"{above:.1f}"


def label(node: Node) -> str:
    """Return what a profile calls a step: its op; of a region its convolutions and products, or its most frequent ops.

    >>> from minigraph.ir import variable
    >>> from minigraph.ops import exp, matmul
    >>> from minigraph.ops.group import group
    >>> x = variable((2, 2))
    >>> y = matmul(x, x)
    >>> label(y), label(group([y, exp(y)], [y]))
    ('matmul', 'group(matmul … 1 more)')
    """
    op = node.op
    if not isinstance(op, Region):
        return op.name
    inside = [step.op for step in op.body if not isinstance(step.op, Item)]
    chosen = [each.name for each in inside if isinstance(each, ANCHORS)]
    chosen = chosen or [name for name, _ in Counter(each.name for each in inside).most_common(3)]
    more = sum(each.name not in chosen for each in inside)
    return f"{op.name}({', '.join(chosen)}{f' … {more} more' if more else ''})"


def measure(
    nodes: Sequence[Node], kernels: Sequence[Kernel], refill: Callable[[], None], repeats: int,
    floor: Callable[[Node], float] | None = None,
) -> Profile:  # fmt: skip
    """Return the median time of each kernel over `repeats` runs of the whole list; `refill` restores the inputs.

    floor: the least seconds of a step, where that is known.
    """
    times: list[list[float]] = [[] for _ in kernels]
    for _ in range(max(1, repeats)):
        refill()
        for kernel, record in zip(kernels, times, strict=True):
            start = time.perf_counter()
            kernel()
            record.append(time.perf_counter() - start)
    return Profile(
        tuple(_timing(node, sorted(record)[len(record) // 2], floor) for node, record in zip(nodes, times, strict=True))
    )


def _timing(node: Node, seconds: float, floor: Callable[[Node], float] | None) -> Timing:
    flops, moved = known(node.op.flops(node)), node.op.bytes(node)
    return Timing(node, seconds, flops, moved, None if floor is None else floor(node))
