"""Totals of a graph in one line: nodes, floating-point operations, bytes moved, peak memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from minigraph.errors import MinigraphError
from minigraph.ir import Graph, bind
from minigraph.ir.types import known

_PREFIXES = ("", "k", "M", "G", "T", "P")


@dataclass(frozen=True)
class Totals:
    """What one run of a graph costs; None is what cannot be known, as of sizes that are symbols."""

    nodes: int
    flops: int | None = None
    bytes: int | None = None
    peak: int | None = None


def totals(
    graph: Graph, measure_peak: Callable[[Graph], int] | None = None, sizes: Mapping[str, int] | None = None
) -> Totals:
    """Return a graph's totals, with `sizes` put in for its symbolic sizes; `measure_peak` tells its peak memory.

    >>> from minigraph import ops
    >>> from minigraph.ir.leaves import input
    >>> totals(Graph({"y": ops.matmul(input((2, 3), name="x"), input((3, 4), name="y"))}))
    Totals(nodes=3, flops=48, bytes=104, peak=None)
    """
    try:
        bound = bind(graph, **{name: size for name, size in (sizes or {}).items() if name in graph.symbols})
        flops = sum(known(node.op.flops(node)) for node in bound.nodes)
        moved = sum(node.op.bytes(node) for node in bound.nodes if node.inputs)
    except MinigraphError:  # a size is open, or cannot be what it was bound to
        return Totals(len(graph.nodes))
    return Totals(len(graph.nodes), flops, moved, _peak(bound, measure_peak))


def _peak(graph: Graph, measure_peak: Callable[[Graph], int] | None) -> int | None:
    try:
        return measure_peak(graph) if measure_peak is not None else None
    except MinigraphError:  # no backend runs the graph as it is, as before lowering
        return None


def totals_text(new: Totals, old: Totals | None = None) -> str:
    """Return totals as a line; with the totals before, each with its change.

    >>> totals_text(Totals(31, 8_420_000, 1200), Totals(47, 8_420_000, 1500))
    '31 nodes (−16) · 8.42 MFLOPs · 1.20 kB moved (−20 %)'
    """
    change = new.nodes - old.nodes if old is not None else 0
    parts = [f"{new.nodes} node{'s' * (new.nodes != 1)}" + (f" ({_signed(change)})" if change else "")]
    for unit, what, value, before in (
        ("FLOPs", "", new.flops, old.flops if old else None),
        ("B", " moved", new.bytes, old.bytes if old else None),
        ("B", " peak", new.peak, old.peak if old else None),
    ):
        if value is not None:
            parts.append(f"{quantity(value, unit)}{what}{_percent(value, before)}")
    return " · ".join(parts)


def quantity(value: int, unit: str) -> str:
    """Return a number with three significant digits and a decimal prefix.

    >>> quantity(8_421_376, "FLOPs"), quantity(999_999, "B"), quantity(12, "B")
    ('8.42 MFLOPs', '1.00 MB', '12 B')
    """
    if value < 1000:
        return f"{value} {unit}"
    number, power = float(value), 0
    while number >= 999.5 and power < len(_PREFIXES) - 1:
        number, power = number / 1000, power + 1
    digits = 2 if number < 9.995 else 1 if number < 99.95 else 0
    return f"{number:.{digits}f} {_PREFIXES[power]}{unit}"


def _signed(change: int) -> str:
    return f"+{change}" if change > 0 else f"−{-change}"


def _percent(value: int, before: int | None) -> str:
    if not before or value == before:
        return ""
    change = 100 * (value - before) / before
    if change >= 100:
        return f" (×{value / before:.2g})"
    return f" ({'+' if change > 0 else '−'}{abs(change):.{2 if abs(change) >= 1 else 1}g} %)"
