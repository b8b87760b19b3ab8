"""The record of what passes did: every single rewrite, every refusal, with time and statistics for each rule."""

from __future__ import annotations

import importlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from minigraph.errors import ArgumentError, GraphError
from minigraph.ir import node as _node
from minigraph.ir.graph import Graph
from minigraph.ir.node import Node
from minigraph.passes.selection import Selection

if TYPE_CHECKING:
    from minigraph.passes.driver import Pass


@dataclass(frozen=True)
class Refusal:
    """Why a rule did not rewrite a node that its pattern matched: the first condition that failed, in words."""

    reason: str
    nodes: tuple[Node, ...] = ()

    def __str__(self) -> str:
        concerned = ", ".join(f"{n.label} {n.origin.where}".strip() for n in self.nodes)
        return f"{self.reason} ({concerned})" if concerned else self.reason


@dataclass(frozen=True)
class Note:
    """What a rewrite did with a node that it took in: `about` was folded `text`."""

    about: Node
    text: str


@dataclass(frozen=True)
class Requirement:
    """What a rewrite relied on when it looked at numbers: it must hold of the next numbers too.

    `kind`: "positive", "nonnegative" or "float16" (it fits), of each element of the parameter expression `node`; `text`
    says whose.
    """

    kind: str
    node: Node
    text: str


@dataclass(frozen=True)
class Rewrite:
    """One replacement: `rule` put `new` in the place of `old`."""

    rule: str
    old: Node
    new: Node
    notes: tuple[Note, ...] = ()
    requirements: tuple[Requirement, ...] = ()

    @property
    def places(self) -> tuple[str, ...]:
        """The user's lines that the replaced nodes come from, without repetition."""
        return tuple(dict.fromkeys(n.origin.where for n in (self.old, *self.old.inputs) if n.origin.where))


@dataclass
class RuleStatistics:
    """How often a rule was tried, how often it matched, and the seconds it took."""

    tries: int = 0
    hits: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Step:
    """One run of one pass: the graphs before and after, its rewrites, its seconds.

    `first_id`: nodes with at least this id were made by the pass.
    """

    name: str
    before: Graph
    after: Graph
    rewrites: tuple[Rewrite, ...]
    seconds: float
    run: Pass
    first_id: int = 0


@dataclass
class Trace:
    """What a pipeline did to a graph, step by step.

    `selection` says which rewrites may happen; `measure_peak`, where the runtime gives it, tells the bytes that a bound
    graph's plan takes.
    """

    selection: Selection = field(default_factory=Selection)
    measure_peak: Callable[[Graph], int] | None = None
    steps: list[Step] = field(default_factory=list)
    rules: dict[str, RuleStatistics] = field(default_factory=lambda: defaultdict(RuleStatistics))
    refusals: dict[tuple[str, int], Refusal] = field(default_factory=dict)  # (rule, id of the node) → the latest
    # The rewrites of the pass that is running; the driver moves them into its step.
    pending: list[Rewrite] = field(default_factory=list)

    @property
    def before(self) -> Graph:
        """The graph that the first pass was given."""
        return self._some_step(0).before

    @property
    def after(self) -> Graph:
        """The graph that the last pass returned."""
        return self._some_step(-1).after

    @property
    def rewrites(self) -> tuple[Rewrite, ...]:
        """All rewrites, in order."""
        return tuple(rewrite for step in self.steps for rewrite in step.rewrites)

    @property
    def requirements(self) -> tuple[Requirement, ...]:
        """What the rewrites relied on when they looked at numbers."""
        return tuple(requirement for rewrite in self.rewrites for requirement in rewrite.requirements)

    def _some_step(self, index: int) -> Step:
        if not self.steps:
            raise ArgumentError("no passes ran", expected="a trace with at least one step")
        return self.steps[index]

    def step(self, which: int | str) -> Step:
        """Return a step by its index, or the first one of the pass called `which`.

        Raises an ArgumentError that lists the steps there are.
        """
        found = [s for s in self.steps if s.name == which]
        if found:
            return found[0]
        if isinstance(which, int) and -len(self.steps) <= which < len(self.steps):
            return self.steps[which]
        names = ", ".join(f"{i} {s.name}" for i, s in enumerate(self.steps)) or "none: no passes ran"
        raise ArgumentError("no such step", expected=names, got=repr(which))

    def graphs_around(self, which: int | str, rewrite: int) -> tuple[Graph, Graph]:
        """Return the graphs before and after one single rewrite of a step; the pass is run again, and stopped there."""
        step = self.step(which)
        if not 0 <= rewrite < len(step.rewrites):
            raise ArgumentError(
                f"no such rewrite in step {step.name}", expected=f"0 … {len(step.rewrites) - 1}", got=rewrite
            )
        return self._stopped(step, rewrite), self._stopped(step, rewrite + 1)

    def _stopped(self, step: Step, limit: int) -> Graph:
        """Return what a step's pass makes with its first `limit` rewrites, its new nodes numbered as in the step."""
        again = Trace(replace(self.selection, limit=limit))
        first = _node.next_id()
        graph = step.run(step.before, again)
        if [r.rule for r in again.pending] != [r.rule for r in step.rewrites[:limit]]:
            raise GraphError(f"pass {step.name} is not deterministic", expected="the same rewrites when run again")
        offset = step.first_id - first

        def renumbered(node: Node, inputs: tuple[Node, ...]) -> Node:
            history = tuple((rule, id + offset if id >= first else id) for rule, id in node.origin.history)
            origin = node.origin if history == node.origin.history else replace(node.origin, history=history)
            if node.id >= first:
                return Node(node.op, inputs, origin=origin, id=node.id + offset)
            same = inputs == node.inputs and origin is node.origin
            return node if same else Node(node.op, inputs, origin=origin, id=node.id)

        return graph.rebuild(renumbered)

    def why_not(self, rule: str, node: Node) -> Refusal | None:
        """Return why `rule` (or any rule of the pass of that name) refused `node`, or None if it never did."""
        names = {
            rule,
            *(r.__name__ for step in self.steps if step.name == rule for r in getattr(step.run, "rules", ())),
        }
        ids = {node.id, *(id for _, id in node.origin.history)}
        found = [refusal for (name, id), refusal in self.refusals.items() if name in names and id in ids]
        return found[0] if found else None

    def report(self) -> str:
        """Return the trace as text: totals, a line for each batch norm, each pass, and each rule that matched.

        >>> Trace().report()
        'no passes ran'
        """
        from minigraph.passes.report import report

        return report(self)

    def verify(self, trials: int = 3, **options: Any) -> Any:
        """Prove each rewrite by numbers, against a derived error bound: see `minigraph.testing.verify_trace`."""
        return _above("minigraph.testing", "verify_trace")(self, trials, **options)

    def bisect(self, predicate: Callable[[Graph], bool], **options: Any) -> Any:
        """Find the first rewrite after which `predicate` fails: see `minigraph.testing.bisect`."""
        return _above("minigraph.testing", "bisect")(self, predicate, **options)

    def refreeze(self, state: Any) -> Graph:
        """Return the optimised graph with other numbers frozen in: see `minigraph.runtime.refreeze`."""
        graph: Graph = _above("minigraph.runtime", "refreeze")(self, state)
        return graph

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """Return the trace for a notebook: its report, and its picture where something can draw it."""
        return _above("minigraph.viz", "mimebundle")(self)

    def __str__(self) -> str:
        return self.report()


def _above(module: str, name: str) -> Any:
    """Return a function of a package above this one, found when it is asked for: passes import nothing above them."""
    return getattr(importlib.import_module(module), name)
