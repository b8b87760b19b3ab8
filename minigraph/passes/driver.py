"""The rewrite driver: the only place where a node is replaced.

It carries provenance, counts, times and records, so that the author of a rule writes one function and nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Protocol, TypeAlias

from minigraph.errors import GraphError
from minigraph.ir.graph import Graph, same_or_rebuilt
from minigraph.ir.node import Node
from minigraph.ir.op import Op
from minigraph.ir.origin import inheriting
from minigraph.passes.trace import Rewrite, Step, Trace

# A rule: the node that should stand in this one's place, or None. It sees the node over its new operands.
Rule: TypeAlias = Callable[[Node], Node | None]


def at(*ops: type[Op]) -> Callable[[Rule], Rule]:
    """Say at which ops a rule is tried (subclasses included); a rule that does not say is tried at every node.

    A rule's own `case` decides whether it matches; this spares a large graph the calls that cannot.
    """

    def mark(rule: Rule) -> Rule:
        rule.ops = ops  # type: ignore[attr-defined]
        return rule

    return mark


class Pass(Protocol):
    """A graph → graph function with a name: valid in, valid out, same results."""

    @property
    def name(self) -> str:
        """The name it has in a pipeline's text."""

    def __call__(self, graph: Graph, trace: Trace) -> Graph:
        """Return the new graph; record what happened."""


def run(pipeline: Sequence[Pass], graph: Graph, trace: Trace | None = None) -> tuple[Graph, Trace]:
    """Run passes in order and return the last graph with the trace of every step."""
    trace = trace if trace is not None else Trace()
    for each in pipeline:
        start = time.perf_counter()
        after = each(graph, trace)
        trace.steps.append(Step(each.name, graph, after, tuple(trace.pending), time.perf_counter() - start))
        trace.pending.clear()
        graph = after
    return graph, trace


class Rewriter:
    """Replaces nodes by rules while a graph is rebuilt, operands first. Passes use it inside `Graph.rebuild`."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.changed = False

    def replace(self, rule: str, old: Node, make: Callable[[], Node | None]) -> Node:
        """Return what `make` puts in the place of `old`, with its provenance; `old` itself if it makes nothing."""
        statistics = self.trace.rules[rule]
        start = time.perf_counter()
        new = inheriting(lambda: old.origin.rewritten(rule, old.id), make)
        statistics.seconds += time.perf_counter() - start
        statistics.tries += 1
        if new is None or new is old:
            return old
        if new.type != old.type:
            raise GraphError(
                f"rule {rule} changes a node's type", expected=old.type, got=new.type, where=old.origin.where
            )
        statistics.hits += 1
        self.changed = True
        self.trace.pending.append(Rewrite(rule, old, new))
        return new


@dataclass(frozen=True)
class Rewriting:
    """A pass made of local rules: sweeps over the graph, operands first, until no rule matches."""

    name: str
    rules: tuple[Rule, ...]
    max_sweeps: int = 16

    def __call__(self, graph: Graph, trace: Trace) -> Graph:
        """Return the graph at the fixed point; a GraphError names the rules if there is none."""
        for _ in range(self.max_sweeps):
            before = len(trace.pending)
            rewriter = Rewriter(trace)
            graph = graph.rebuild(partial(self._apply, rewriter))
            if not rewriter.changed:
                return graph
        last = sorted({rewrite.rule for rewrite in trace.pending[2 * before - len(trace.pending) :]})
        raise GraphError(
            f"pass {self.name} found no fixed point in {self.max_sweeps} sweeps",
            got=f"rules still matching: {', '.join(last)}",
            hint="two of them probably undo each other",
        )

    def _apply(self, rewriter: Rewriter, node: Node, inputs: tuple[Node, ...]) -> Node:
        node = same_or_rebuilt(node, inputs)
        for rule in _rules_at(self.rules, type(node.op)):  # type: ignore[arg-type]  # functions are hashable
            new = rewriter.replace(rule.__name__, node, partial(rule, node))
            if new is not node:
                return new
        return node


@cache
def _rules_at(rules: tuple[Rule, ...], op: type[Op]) -> tuple[Rule, ...]:
    return tuple(rule for rule in rules if issubclass(op, getattr(rule, "ops", Op)))
