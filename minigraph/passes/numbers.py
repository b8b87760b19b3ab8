"""What rules may ask about numbers: passes know no arrays, so whoever does answers for them."""

from __future__ import annotations

from typing import Protocol

from minigraph.ir.node import Node


class Numbers(Protocol):
    """Answers about the values of parameter expressions, in float64; None where a value is not known."""

    def elements(self, node: Node) -> list[float] | None:
        """Return all elements, flat: for vectors over channels."""

    def largest(self, node: Node) -> float | None:
        """Return the largest magnitude of an element: for kernels."""
