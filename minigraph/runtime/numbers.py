"""Values of parameter expressions, for passes that must know signs and sizes: they hold no arrays themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from minigraph.backends.base import Backend, get
from minigraph.backends.dtypes import array_dtype
from minigraph.ir.graph import topological
from minigraph.ir.leaves import Variable
from minigraph.ir.node import Node
from minigraph.ir.types import Dim
from minigraph.runtime.interpreter import evaluate_node, with_kernels


class StateNumbers:
    """The numbers that a state gives to expressions of variables and constants; each node is computed once.

    Without values for a variable, what depends on it is not known; nor is what depends on a size that is open.

    >>> from minigraph.ir import variable
    >>> StateNumbers({"w": np.float32([1, -3])}).largest(-variable((2,), name="w"))
    3.0
    """

    def __init__(self, values: Mapping[str, Any] | None = None, backend: str | Backend = "numpy") -> None:
        self.values = values or {}
        self.backend = get(backend)
        self._known: dict[Node, Any] = {}

    def value(self, node: Node) -> Any:
        """Return the array of a parameter expression, or None where a variable has no value or a size is open."""
        root = with_kernels(node)
        with self.backend.running():
            for each in topological([root]):
                if each not in self._known:
                    self._known[each] = self._compute(each)
        return self._known[root]

    def _compute(self, node: Node) -> Any:
        if any(isinstance(size, Dim) for size in getattr(node.type, "shape", ())):
            return None
        if isinstance(node.op, Variable):
            value = self.values.get(node.op.label)
            return None if value is None else np.asarray(value, array_dtype(node.dtype))
        operands = [self._known[i] for i in node.inputs]
        if any(value is None for value in operands):
            return None
        return evaluate_node(node, operands, self.backend)

    def elements(self, node: Node) -> list[float] | None:
        """Return all elements of a parameter, flat, or None."""
        value = self.value(node)
        return None if value is None else [float(v) for v in np.ravel(value)]

    def largest(self, node: Node) -> float | None:
        """Return the largest magnitude in a parameter, or None."""
        value = self.value(node)
        return None if value is None else float(np.max(np.abs(value), initial=0.0))
