"""Freezing: variables that a graph only reads become constants, with the numbers of a state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from minigraph.errors import GraphError
from minigraph.ir.graph import Graph, same_or_rebuilt
from minigraph.ir.leaves import Constant, Variable
from minigraph.ir.node import Node
from minigraph.passes.driver import Rewriter
from minigraph.passes.trace import Trace


@dataclass(frozen=True)
class Freeze:
    """Replace each variable that is not updated by the constant that `values` holds under its label."""

    values: Mapping[str, Any] = field(hash=False)
    name: str = "freeze"

    def __call__(self, graph: Graph, trace: Trace) -> Graph:
        """Return the graph with its numbers in it; a GraphError names a variable without a value."""
        rewriter = Rewriter(trace, self.name)

        def make(node: Node, inputs: tuple[Node, ...]) -> Node:
            node = same_or_rebuilt(node, inputs)
            if not isinstance(node.op, Variable) or node in graph.updates:
                return node
            label = node.op.label
            if label not in self.values:
                raise GraphError(f"no value for variable {label!r}", where=node.origin.where)
            return rewriter.replace("freeze_variable", node, lambda: Node(Constant.of(self.values[label])))

        return graph.rebuild(make)
