"""Constant folding: nodes whose operands are all constants become constants.

The pass does not compute anything itself: it is *given* an evaluator, so that passes never import backends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from minigraph.ir.graph import Graph, same_or_rebuilt
from minigraph.ir.leaves import Constant
from minigraph.ir.node import Node
from minigraph.ir.types import Dim, TensorType
from minigraph.ops.shape import BroadcastTo
from minigraph.passes.driver import Rewriter
from minigraph.passes.trace import Trace

# From a node whose operands are constants to its value.
Evaluator: TypeAlias = Callable[[Node], Constant]


@dataclass(frozen=True)
class FoldConstants:
    """Evaluate what depends on constants alone, up to `limit` bytes a result.

    A broadcast constant is left as it is, however small: as a broadcast it is a view, as a constant it is memory.
    """

    evaluate: Evaluator
    limit: int = 1 << 20
    name: str = "fold_constants"

    def __call__(self, graph: Graph, trace: Trace) -> Graph:
        """Return the graph with constants folded, operands first, in one sweep."""
        rewriter = Rewriter(trace)

        def make(node: Node, inputs: tuple[Node, ...]) -> Node:
            node = same_or_rebuilt(node, inputs)
            if not inputs or not all(isinstance(i.op, Constant) for i in inputs) or not self._fits(node):
                return node
            return rewriter.replace("evaluate_constants", node, lambda: Node(self.evaluate(node)))

        return graph.rebuild(make)

    def _fits(self, node: Node) -> bool:
        if not isinstance(node.type, TensorType) or isinstance(node.op, BroadcastTo):
            return False
        nbytes = node.type.nbytes
        return not isinstance(nbytes, Dim) and nbytes <= self.limit
