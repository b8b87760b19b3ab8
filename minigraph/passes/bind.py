"""Binding as a pass: numbers for symbolic sizes."""

from __future__ import annotations

from dataclasses import dataclass

from minigraph.ir.graph import Graph, bind
from minigraph.passes.trace import Trace


@dataclass(frozen=True)
class Bind:
    """Put numbers in for symbolic sizes, in types and attributes; sizes that the graph does not have are left out."""

    sizes: tuple[tuple[str, int], ...]
    name: str = "bind"

    @property
    def arguments(self) -> str:
        """The arguments in a pipeline's text."""
        return ", ".join(f"{symbol}={size}" for symbol, size in self.sizes)

    def __call__(self, graph: Graph, trace: Trace) -> Graph:
        """Return the bound graph."""
        return bind(graph, **{symbol: size for symbol, size in self.sizes if symbol in graph.symbols})
