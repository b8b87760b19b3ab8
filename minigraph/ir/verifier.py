"""The verifier: what a valid graph is, checked; run after every pass in tests and by `verify_each`."""

from __future__ import annotations

import dataclasses

from minigraph.errors import GraphError, MinigraphError
from minigraph.ir.graph import Graph
from minigraph.ir.leaves import Variable
from minigraph.ir.node import Node
from minigraph.ir.op import OPS, Op


def verify(graph: Graph) -> Graph:
    """Return `graph` if it is valid, else raise a GraphError that names the node and the rule it breaks.

    Numbered rules, which the messages refer to:
    1. every op is registered, and every input of a node is a node;
    2. a node's type is what its op infers from its inputs' types;
    3. operands come before their users, so there is no cycle;
    4. inputs and variables have unique names;
    5. updates go to variables, from values of the variable's type;
    6. a graph computes something, and its outputs are tensors.
    """
    for node in graph.nodes:
        if not isinstance(node, Node) or not isinstance(node.op, Op):
            raise GraphError("rule 1: not a node with an op", got=type(node).__name__, where="")
    graph._check_names()  # rules 4 and 5
    seen: set[Node] = set()
    for node in graph.nodes:
        _verify_node(node, seen)
        seen.add(node)
    if not graph.outputs and not graph.updates:
        raise GraphError("rule 6: a graph without outputs and updates computes nothing", where="")
    for name, node in graph.outputs.items():
        if not hasattr(node.type, "dtype"):
            raise GraphError(f"rule 6: output {name!r} is a tuple", got=node.type, where=node.origin.where)
    labels = [n.op.label for n in graph.nodes if isinstance(n.op, Variable)]
    if len(set(labels)) != len(labels):
        raise GraphError("rule 4: two variables share a name", got=sorted(labels), where="")
    return graph


def _verify_node(node: Node, seen: set[Node]) -> None:
    where = node.origin.where
    if OPS.get(node.op.name) is not type(node.op):
        raise GraphError("rule 1: a node's op is not a registered op", got=repr(node.op), where=where)
    for operand in node.inputs:
        if operand not in seen:
            raise GraphError(f"rule 3: {node.label} comes before its operand {operand!r}", where=where)
    try:
        dataclasses.replace(node.op)  # type: ignore[type-var]  # the constructor checks the attributes
        inferred = node.op.infer(*(i.type for i in node.inputs))
    except (MinigraphError, TypeError, ValueError, ArithmeticError, AttributeError, LookupError) as error:
        raise GraphError(f"rule 2: {node.op.name} cannot have these operands: {error}", where=where) from None
    if inferred != node.type:
        raise GraphError(f"rule 2: {node.label} has a stale type", expected=inferred, got=node.type, where=where)
