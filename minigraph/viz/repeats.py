"""Repeats: runs of layers that are built alike, one after the other, are drawn once with "×16"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from minigraph.ir import Constant, Graph, Input, Node, Variable
from minigraph.viz.lanes import FORWARD, prefixes


@dataclass
class Repeats:
    """Which nodes stand for others: `drawn` maps a node to its twin in the block that is drawn."""

    drawn: dict[Node, Node] = field(default_factory=dict)
    block: dict[Node, tuple[tuple[int, int], ...]] = field(default_factory=dict)  # (run, place in it), outermost first
    badges: dict[str, str] = field(default_factory=dict)  # scope that is drawn → "block1 … block16 ×16"

    def twin(self, node: Node) -> Node:
        """Return the node that is drawn in the place of `node`."""
        while node in self.drawn:
            node = self.drawn[node]
        return node

    def hides(self, tail: Node, head: Node) -> bool:
        """Tell whether an edge has no place where one block stands for all: it joins two blocks, or lies in a twin."""
        there = dict(self.block.get(head, ()))
        return any(run in there and (there[run] != place or place > 0) for run, place in self.block.get(tail, ()))


def find_repeats(
    graph: Graph, scope: Mapping[Node, str], lane: Mapping[Node, str], marks: Mapping[Node, str]
) -> Repeats:
    """Find runs of sibling scopes, each fed by the one before, whose nodes agree one by one in op, type and mark.

    Variables, constants and random keys may differ in value: these are what makes two layers two.
    """
    members: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for prefix in prefixes(scope[node]):
            members.setdefault(prefix, []).append(node)
    children: dict[str, list[str]] = {}
    for prefix in _in_order(members, lane):
        children.setdefault(prefix.rpartition("/")[0], []).append(prefix)
    result = Repeats()
    runs = 0
    pending = [""]
    while pending:
        siblings = children.get(pending.pop(), [])
        forms = {s: _form(graph, members[s], marks) for s in siblings}
        for run in _runs(siblings, forms, members):
            if len(run) > 1:
                _fold(result, runs, run, members)
                runs += 1
            pending.append(run[0])
    return result


def _in_order(members: Mapping[str, Sequence[Node]], lane: Mapping[Node, str]) -> list[str]:
    """Return the scopes in the order in which data first flows through them forwards."""
    order = {node: i for i, node in enumerate(dict.fromkeys(n for nodes in members.values() for n in nodes))}

    def first(prefix: str) -> int:
        nodes = [n for n in members[prefix] if lane[n] == FORWARD and n.inputs] or members[prefix]
        return min(order[n] for n in nodes)

    return sorted(members, key=first)


def _form(graph: Graph, nodes: Sequence[Node], marks: Mapping[Node, str]) -> tuple[Any, ...]:
    """Return what twins have in common: ops, types, marks, and who reads whom inside the scope."""
    number = {node: i for i, node in enumerate(nodes)}
    form: list[Any] = []
    for node in nodes:
        updated = number.get(graph.updates[node], -1) if node in graph.updates else None
        operands = tuple(number.get(i, -1) for i in node.inputs)
        form.append((_kind(node), node.type, operands, updated, marks.get(node)))
    return tuple(form)


def _kind(node: Node) -> Any:
    op = node.op
    if isinstance(op, Variable):
        return (op.name, op.trainable)
    if isinstance(op, Constant):
        return (op.name, op.splat)
    if isinstance(op, Input):
        return op
    return op.name if op.category == "random" else op


def _runs(
    siblings: Sequence[str], forms: Mapping[str, tuple[Any, ...]], members: Mapping[str, Sequence[Node]]
) -> list[list[str]]:
    runs: list[list[str]] = []
    for sibling in siblings:
        if runs and forms[runs[-1][-1]] == forms[sibling] and _feeds(members[runs[-1][-1]], members[sibling]):
            runs[-1].append(sibling)
        else:
            runs.append([sibling])
    return runs


def _feeds(first: Sequence[Node], second: Sequence[Node]) -> bool:
    sources = set(first)
    return any(operand in sources for node in second for operand in node.inputs)


def _fold(result: Repeats, number: int, run: Sequence[str], members: Mapping[str, Sequence[Node]]) -> None:
    for place, prefix in enumerate(run):
        for node, twin in zip(members[prefix], members[run[0]], strict=True):
            result.block[node] = (*result.block.get(node, ()), (number, place))
            if place:
                result.drawn[node] = twin
    first, last = (prefix.rpartition("/")[2] for prefix in (run[0], run[-1]))
    result.badges[run[0]] = f"{first} … {last} ×{len(run)}"
