"""Parameter expressions: arithmetic on variables and constants alone, such as γ·rsqrt(variance + ε), a box each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from minigraph.ir import Constant, Graph, Node, Variable
from minigraph.viz.text import constant_text, is_drawn

_LONGEST = 44  # characters of a formula; what is longer is left out of it
_READERS = 6  # expressions that a part is followed into; what serves more of them stays a box of its own
_INFIX = {"add": ("+", 1), "sub": ("−", 1), "mul": ("·", 2), "div": ("/", 2)}
_ATOM = 3
# Ops that change how a parameter lies in memory, and not what it is.
_SILENT = frozenset({"reshape", "broadcast_to", "transpose", "cast", "item"})
_NAMES = "stuvpqr"  # for expressions that other expressions read

# A formula, and how tightly its outermost sign binds.
_Words: TypeAlias = tuple[str, int]


@dataclass(frozen=True)
class Expression:
    """Nodes that are drawn as one box, titled by their formula."""

    nodes: tuple[Node, ...]
    title: str


def parameter_expressions(graph: Graph, lane: Mapping[Node, str]) -> list[Expression]:
    """Return the parameter expressions of a graph that consist of several nodes, what they read before them.

    What several expressions read is an expression of its own, with a name: s = gamma · rsqrt(variance + 0.001).
    """
    serves = _serves(graph)
    groups: dict[object, list[Node]] = {}
    for node, roots in serves.items():
        if is_drawn(node):
            groups.setdefault((roots, lane[node]) if roots else node, []).append(node)
    several = [nodes for nodes in groups.values() if len(nodes) > 1]
    ends = [_ends(nodes, graph) for nodes in several]
    shared = {e[0] for e in ends if len(e) == 1 and any(reader in serves for reader in graph.users[e[0]])}
    words: dict[Node, _Words] = {}
    titles: dict[Node, str] = {}
    named: Counter[str] = Counter()
    for node in serves:
        words[node] = _formula(node, words)
        titles[node] = words[node][0]
        if node in shared:
            name = _NAMES[named[node.origin.scope] % len(_NAMES)]
            named[node.origin.scope] += 1
            titles[node], words[node] = f"{name} = {titles[node]}", (name, _ATOM)
    return [
        Expression(tuple(nodes), "; ".join(dict.fromkeys(titles[end] for end in of_it)))
        for nodes, of_it in zip(several, ends, strict=True)
    ]


def _ends(nodes: list[Node], graph: Graph) -> list[Node]:
    """Return those of the nodes that something else reads."""
    inside = set(nodes)
    return [n for n in nodes if not graph.users[n] or not inside.issuperset(graph.users[n])] or nodes[-1:]


def _serves(graph: Graph) -> dict[Node, frozenset[Node]]:
    """Return, for each node computed from parameters alone, the ends of the expressions that it is a part of.

    An end is read by something that depends on data. A node of too many expressions has none.
    """
    known: set[Node] = set()
    for node in graph.nodes:
        parameter = isinstance(node.op, (Variable, Constant)) or (node.inputs and known.issuperset(node.inputs))
        if parameter and node.op.category != "random":
            known.add(node)
    values = {*graph.outputs.values(), *graph.updates.values()}
    serves: dict[Node, frozenset[Node]] = {}
    for node in reversed(graph.nodes):
        if node not in known or not node.inputs:
            continue
        readers = [serves.get(reader, frozenset((node,))) for reader in graph.users[node]]
        roots = frozenset().union(*readers, (node,) if node in values else ())
        serves[node] = roots if all(readers) and len(roots) <= _READERS else frozenset()
    return {node: serves[node] for node in graph.nodes if node in serves}


def _formula(node: Node, words: Mapping[Node, _Words]) -> _Words:
    """Return a node's formula, from those of its operands: nothing here recurses."""
    operands = [words[i] if i in words else _leaf(i) for i in node.inputs]
    name = node.op.name
    if name in _SILENT:
        return operands[0]
    if name in _INFIX and len(operands) == 2:
        sign, level = _INFIX[name]
        # a − (b + c) and a / (b · c) need what a + (b + c) and a · (b · c) can do without.
        strict = level + (name in ("sub", "div"))
        text = f"{_within(operands[0], level)} {sign} {_within(operands[1], strict)}"
    elif name == "neg":
        text, level = f"−{_within(operands[0], 2)}", 1
    else:
        text, level = f"{node.label}({', '.join(text for text, _ in operands)})", _ATOM
    return (text, level) if len(text) <= _LONGEST else ("…", _ATOM)


def _within(words: _Words, level: int) -> str:
    text, own = words
    return text if own >= level else f"({text})"


def _leaf(node: Node) -> _Words:
    if isinstance(node.op, Constant):
        return constant_text(node.op) or "constant", _ATOM
    return node.label.rpartition("/")[2] or node.label, _ATOM
