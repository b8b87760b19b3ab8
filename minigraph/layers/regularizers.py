"""Penalties on weights, added to the training loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minigraph.errors import ArgumentError
from minigraph.ir.node import Node
from minigraph.ir.op import ATTRIBUTES, configuration
from minigraph.ops import sum as sum_


@configuration("l2")
@dataclass(frozen=True)
class L2:
    """l2 · Σ w².

    >>> from minigraph.ir import variable
    >>> L2(0.01)(variable((3,)))
    <mul : float32[]>
    """

    l2: float = 0.01

    def __call__(self, weights: Node) -> Node:
        """Return the penalty as a scalar node."""
        return sum_(weights * weights) * self.l2


def get(regularizer: Any) -> Any:
    """Return a regulariser: "l2", an object, or None.

    >>> get("l2")
    L2(l2=0.01)
    """
    if regularizer == "l2":
        return L2()
    if regularizer is None or type(regularizer) in ATTRIBUTES.values():
        return regularizer
    raise ArgumentError("not a regulariser", expected="'l2', L2(…) or None", got=repr(regularizer))
