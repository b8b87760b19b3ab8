"""Constant folding: expressions of constants alone become one constant.

The pass does not compute anything itself: it is *given* an evaluator, so that passes never import backends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from minigraph.errors import ArgumentError
from minigraph.ir.graph import Graph, same_or_rebuilt
from minigraph.ir.leaves import Constant
from minigraph.ir.node import Node
from minigraph.ir.types import Dim, TensorType, known
from minigraph.ops.shape import After, BroadcastTo
from minigraph.passes.driver import Rewriter
from minigraph.passes.trace import Trace

# From an expression of constants to its value, in the expression's own dtypes.
Evaluator: TypeAlias = Callable[[Node], Constant]


@dataclass(frozen=True)
class FoldConstants:
    """Evaluate what depends on constants alone, whole expressions at once, so that nothing between is kept.

    A result of more than `limit` bytes must not be larger than the constants that it is made of. A broadcast constant
    is left as it is, however small: as a broadcast it is a view, as a constant it is memory.
    """

    evaluate: Evaluator
    limit: int = 1 << 20
    name: str = "fold_constants"

    def __post_init__(self) -> None:
        if not isinstance(self.limit, int) or self.limit < 0:
            raise ArgumentError("bad limit of constants", expected="bytes: an integer ≥ 0", got=repr(self.limit))

    @property
    def arguments(self) -> str:
        """The arguments in a pipeline's text."""
        return "" if self.limit == type(self).limit else f"limit={self.limit}"

    def __call__(self, graph: Graph, trace: Trace) -> Graph:
        """Return the graph with constants folded, in one sweep."""
        rewriter = Rewriter(trace, self.name)
        roots = self._roots(graph)

        def make(node: Node, inputs: tuple[Node, ...]) -> Node:
            if node in roots:
                made = rewriter.replace("evaluate_constants", node, lambda: Node(self.evaluate(node)))
                if made is not node:
                    return made
            return same_or_rebuilt(node, inputs)

        return graph.rebuild(make)

    def _roots(self, graph: Graph) -> set[Node]:
        """Return the expressions to evaluate: those that others read, or their operands where they must stay."""
        bytes_of: dict[Node, int] = {}  # constant expression → bytes of the constants in it
        for node in graph.nodes:
            if isinstance(node.op, Constant):
                bytes_of[node] = known(node.op.type.nbytes)
            elif node.inputs and bytes_of.keys() >= set(node.inputs) and not isinstance(node.op, After):
                bytes_of[node] = sum(bytes_of[i] for i in set(node.inputs))
        expressions = {node for node in bytes_of if node.inputs}
        ends = {*graph.outputs.values(), *graph.updates.values()}
        wanted = expressions & ends.union(*[node.inputs for node in graph.nodes if node not in bytes_of])
        roots: set[Node] = set()
        for node in reversed([node for node in bytes_of if node.inputs]):
            if node not in wanted:
                continue
            if self._fits(node, bytes_of[node]):
                roots.add(node)
            else:
                wanted.update(node.inputs)
        return roots

    def _fits(self, node: Node, given: int) -> bool:
        if not isinstance(node.type, TensorType) or isinstance(node.op, BroadcastTo):
            return False
        nbytes = node.type.nbytes
        return not isinstance(nbytes, Dim) and nbytes <= max(self.limit, given)
