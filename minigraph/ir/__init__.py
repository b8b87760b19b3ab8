"""What a program is: types, nodes, graphs, their text, their verifier. No array library.

Read in this order: `types`, `origin`, `op`, `node`, `leaves`, `graph`, `printer`, `parser`, `verifier`.
"""

from minigraph.ir.graph import Graph, bind, topological
from minigraph.ir.leaves import Constant, Input, Item, Variable, fresh_names, item, unique_name, variable
from minigraph.ir.node import Node, as_node
from minigraph.ir.op import ATTRIBUTES, OPS, Op, attribute
from minigraph.ir.origin import Origin, inheriting, scope
from minigraph.ir.parser import parse
from minigraph.ir.types import Dim, Shape, Size, TensorType, TupleType, Type, symbol
from minigraph.ir.verifier import verify

__all__ = [
    "ATTRIBUTES", "OPS", "Constant", "Dim", "Graph", "Input", "Item", "Node", "Op", "Origin", "Shape", "Size",
    "TensorType", "TupleType", "Type", "Variable", "as_node", "attribute", "bind", "fresh_names", "inheriting", "item",
    "parse", "scope", "symbol", "topological", "unique_name", "variable", "verify",
]  # fmt: skip
