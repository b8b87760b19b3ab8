"""Common-subexpression elimination, and what goes with it: merging equal constants, dropping dead code."""

from __future__ import annotations

from dataclasses import dataclass

from minigraph.ir.graph import Graph, same_or_rebuilt
from minigraph.ir.leaves import Input, Variable
from minigraph.ir.node import Node
from minigraph.ir.op import Op
from minigraph.ops.random import Dropout
from minigraph.passes.driver import Rewriter
from minigraph.passes.trace import Trace


@dataclass(frozen=True)
class CommonSubexpressions:
    """Equal ops over the same operands are one node. Ops are values, so a dictionary is all it takes.

    Inputs and variables are what they are by name, and stay. Random numbers are functions of key and counter here, so
    they merge like everything else. Ops whose mode is open stay too: two dropouts draw two masks, and a batch norm that
    is called twice moves its averages twice.
    """

    name: str = "cse"

    def __call__(self, graph: Graph, trace: Trace) -> Graph:
        """Return the graph without duplicates."""
        rewriter = Rewriter(trace, self.name)
        # Most ops over the same operands are of different classes, so that is asked first: comparing ops takes longer.
        seen: dict[tuple[type[Op], tuple[Node, ...]], Node] = {}
        others: dict[tuple[Op, tuple[Node, ...]], Node] = {}

        def make(node: Node, inputs: tuple[Node, ...]) -> Node:
            node = same_or_rebuilt(node, inputs)
            op = node.op
            if isinstance(op, (Input, Variable, Dropout)) or getattr(op, "moving", None) is not None:
                return node
            first = seen.setdefault((type(op), inputs), node)
            if first is not node and first.op != op:
                first = others.setdefault((op, inputs), node)
            return node if first is node else rewriter.replace("same_op_same_operands", node, lambda: first)

        return graph.rebuild(make)


@dataclass(frozen=True)
class DeadCode:
    """Nodes that neither an output nor an update needs are gone: rebuilding reaches only the others.

    Graphs never hold such nodes, so all this drops is updates that write a variable's own value back.
    """

    name: str = "dead_code"

    def __call__(self, graph: Graph, trace: Trace) -> Graph:
        """Return the graph without updates that change nothing."""
        allows = trace.selection.allows
        updates = {
            target: value
            for target, value in graph.updates.items()
            if target is not value or not allows(self.name, self.name, target.origin.scope)
        }
        return Graph(graph.outputs, updates, graph.inputs) if len(updates) < len(graph.updates) else graph
