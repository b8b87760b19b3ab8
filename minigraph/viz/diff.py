"""What a pass changed: two graphs whose nodes are told apart by the ids that stay the same across passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

from minigraph.errors import ArgumentError
from minigraph.ir import Constant, Graph, Item, Node
from minigraph.passes import Rewrite, Trace

ADDED, REMOVED, CHANGED, KEPT = "added", "removed", "changed", "kept"
GLYPHS: Mapping[str, str] = {ADDED: "+", REMOVED: "−", CHANGED: "~"}

_LISTED = 5  # passes that a title names

# What reads a value: a node, an output (its name) or an update (its variable's id).
_End: TypeAlias = "tuple[str, object]"


@dataclass(frozen=True)
class Marks:
    """What is new in one of two graphs: the mark of each node, of outputs and updates, and the edges it alone has.

    `rules` says which rule made an added node, or replaced a removed one.
    """

    nodes: Mapping[Node, str]
    ends: Mapping[_End, str]
    edges: frozenset[tuple[object, object]]
    rules: Mapping[Node, str]


UNMARKED = Marks(MappingProxyType({}), MappingProxyType({}), frozenset(), MappingProxyType({}))


@dataclass(frozen=True)
class Comparison:
    """Two graphs, and what led from the one to the other."""

    before: Graph
    after: Graph
    title: str
    remarks: tuple[str, ...] = ()
    rewrites: Sequence[Rewrite] = ()
    measure_peak: Callable[[Graph], int] | None = field(default=None, compare=False)

    @property
    def rules(self) -> list[tuple[str, int]]:
        """How often each rule fired, the most frequent first."""
        return Counter(rewrite.rule for rewrite in self.rewrites).most_common()


def compare(trace: Trace, step: int | str | None = None, rewrite: int | None = None) -> Comparison:
    """Return the graphs around a whole trace, one of its steps, or a single rewrite of a step.

    Raises an ArgumentError that lists what there is, if there is no such step or rewrite.
    """
    if step is None:
        if rewrite is not None:
            raise ArgumentError("a rewrite belongs to a step", expected="step= as well", got=f"rewrite={rewrite!r}")
        useful = [s.name for s in trace.steps if s.rewrites]
        title = " → ".join(useful[:_LISTED] + ["…"] * (len(useful) > _LISTED)) or "no pass changed anything"
        ran = len(trace.steps)
        remarks = (f"{ran} passes ran, {len(useful)} of them rewrote something",) if ran > 1 else ()
        return Comparison(trace.before, trace.after, title, remarks, trace.rewrites, trace.measure_peak)
    if isinstance(step, bool) or isinstance(rewrite, bool):
        raise ArgumentError("steps and rewrites are numbered", expected="an index", got=f"{step!r}, {rewrite!r}")
    one = trace.step(step)
    if rewrite is None:
        return Comparison(one.before, one.after, one.name, (), one.rewrites, trace.measure_peak)
    before, after = trace.graphs_around(step, rewrite)
    done = one.rewrites[rewrite]
    title = f"{one.name}, rewrite {rewrite + 1} of {len(one.rewrites)}: {done.rule}"
    formulas = [(r.__doc__ or "").partition("\n")[0] for r in getattr(one.run, "rules", ()) if r.__name__ == done.rule]
    notes = [f"{note.about.label}: {note.text}" for note in done.notes]
    return Comparison(before, after, title, (*formulas, *notes), (done,), trace.measure_peak)


def marks(comparison: Comparison) -> tuple[Marks, Marks]:
    """Return what only the graph before has, and what only the graph after has.

    Removed, added: nodes whose id the other graph does not have. Changed: the other graph has the id with another op,
    other attributes, another type, or other operands. Constants as operands are told apart by value.
    """
    replaced = {rewrite.old.id: rewrite.rule for rewrite in comparison.rewrites}
    old, new = _Facts(comparison.before), _Facts(comparison.after)
    return old.without(new, REMOVED, replaced), new.without(old, ADDED, {})


class _Facts:
    """What is compared of a graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.forms: dict[int, set[object]] = {}
        for node in graph.nodes:
            self.forms.setdefault(node.id, set()).add(_form(node))
        self.ends: dict[_End, object] = {("output", name): value_key(n) for name, n in graph.outputs.items()}
        self.ends |= {("update", target.id): value_key(value) for target, value in graph.updates.items()}
        self.edges = frozenset(edge_key(operand, node) for node in graph.nodes for operand in node.inputs)
        self.edges |= {(value, end) for end, value in self.ends.items()}

    def without(self, other: _Facts, missing: str, replaced: Mapping[int, str]) -> Marks:
        nodes, rules = {}, {}
        for node in self.graph.nodes:
            forms = other.forms.get(node.id)
            nodes[node] = missing if forms is None else KEPT if _form(node) in forms else CHANGED
            if forms is None:
                rules[node] = replaced.get(node.id, "") if missing == REMOVED else _maker(node)
        ends = {
            end: missing if end not in other.ends else KEPT if other.ends[end] == value else CHANGED
            for end, value in self.ends.items()
        }
        return Marks(nodes, ends, self.edges - other.edges, rules)


def edge_key(operand: Node, node: Node) -> tuple[object, object]:
    """Return what makes an edge the same in both graphs."""
    return value_key(operand), node.id


def value_key(node: Node) -> object:
    """Return what makes an operand the same: a constant's value, a result's place, else the node's id."""
    if isinstance(node.op, Constant):
        return node.op
    return (node.inputs[0].id, node.op.index) if isinstance(node.op, Item) else node.id


def _form(node: Node) -> object:
    return node.op, node.type, tuple(map(value_key, node.inputs))


def _maker(node: Node) -> str:
    return node.origin.history[-1][0] if node.origin.history else ""
