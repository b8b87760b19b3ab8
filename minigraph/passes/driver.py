"""The rewrite driver: the only place where a node is replaced.

It carries provenance, counts uses, times and records, so that the author of a rule writes one function and nothing
else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol, TypeAlias

from minigraph.errors import ArgumentError, GraphError, MinigraphError
from minigraph.ir import node as _node
from minigraph.ir.graph import Graph, same_or_rebuilt, structure
from minigraph.ir.node import Node
from minigraph.ir.op import Op
from minigraph.ir.origin import Origin, inheriting
from minigraph.ir.verifier import verify
from minigraph.passes.numbers import Numbers
from minigraph.passes.surroundings import Surroundings
from minigraph.passes.trace import Note, Refusal, Requirement, Rewrite, Step, Trace

# Most passes are done after so many sweeps; from there on it is worth looking whether a graph comes back.
_LONG = 3

# What a rule gives back: the node that should stand in this one's place; None where its pattern does not match; a
# refusal where the pattern matches and a condition does not hold.
Answer: TypeAlias = Node | Refusal | None
# A rule: from the node, over its new operands, to an answer. One with a second parameter is given the surroundings.
Rule: TypeAlias = Callable[..., Answer]


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


@dataclass(frozen=True)
class Pipeline:
    """Passes in order, which are a pass again. As text, `str(pipeline)`, it can be read back: see `pipelines.parse`."""

    passes: tuple[Pass, ...]
    name: str = "pipeline"

    def __call__(self, graph: Graph, trace: Trace) -> Graph:
        """Run the passes, each a step of the trace."""
        return run(self.passes, graph, trace)[0]

    def __str__(self) -> str:
        from minigraph.passes.pipelines import pipeline_text

        return pipeline_text(self)


def run(
    pipeline: Iterable[Pass], graph: Graph, trace: Trace | None = None, *, verify_each: bool = False
) -> tuple[Graph, Trace]:
    """Run passes in order and return the last graph with the trace of every step.

    verify_each: check the graph after each pass. A pass that raises, or leaves a graph that is not valid, raises a
    PassError that holds the graph it was given.
    """
    trace = trace if trace is not None else Trace()
    for each in pipeline:
        if isinstance(each, Pipeline):
            graph = run(each.passes, graph, trace, verify_each=verify_each)[0]
            continue
        first_id = _node.next_id()
        start = time.perf_counter()
        try:
            after = each(graph, trace)
            if verify_each:
                verify(after)
        except MinigraphError as error:
            trace.pending.clear()
            if verify_each:
                raise PassError(each, graph, error) from error
            raise
        rewrites = tuple(trace.pending)
        trace.pending.clear()
        trace.steps.append(Step(each.name, graph, after, rewrites, time.perf_counter() - start, each, first_id))
        graph = after
    return graph, trace


class PassError(GraphError):
    """A pass raised an error, or left a graph that is not valid; `graph` is what it was given."""

    def __init__(self, pass_: Pass, graph: Graph, cause: MinigraphError) -> None:
        super().__init__(
            f"pass {pass_.name} failed: {cause.summary}",
            expected=cause.expected, got=cause.got, where=cause.where, hint=cause.hint,
        )  # fmt: skip
        self.failed = pass_
        self.graph = graph


class Rewriter:
    """Replaces nodes by rules while a graph is rebuilt, operands first. Passes use it inside `Graph.rebuild`."""

    def __init__(
        self, trace: Trace, pass_: str, around: Surroundings | None = None, settled: set[Node] | None = None
    ) -> None:
        self.trace = trace
        self.pass_ = pass_
        self.around = around
        # Nodes that no rule has rewritten before. A node is all that a rule sees that does not ask about the
        # surroundings, and nodes never change: such a rule gives the same answer again.
        self.settled: set[Node] = set() if settled is None else settled
        self.changed = False
        self._restricted = trace.selection.restricts
        self._rule = ""  # the rule that is tried now,
        self._old: Node  # and the node that it is tried at

    def replace(self, rule: str, old: Node, make: Callable[[], Answer]) -> Node:
        """Return what `make` puts in the place of `old`, with its provenance; `old` itself if it makes nothing."""
        return inheriting(self.origin, partial(self.attempt, rule, old, make))

    def origin(self) -> Origin:
        """Return the origin of what the rule that is tried now makes."""
        return self._old.origin.rewritten(self._rule, self._old.id)

    def attempt(self, rule: str, old: Node, make: Callable[..., Answer], *arguments: Any) -> Node:
        """Do what `replace` does, for a caller that lets many attempts inherit `origin` at once."""
        trace = self.trace
        if self._restricted and not self._may(rule, old):
            return old
        self._rule, self._old = rule, old
        start = time.perf_counter()
        new = make(*arguments)
        statistics = trace.rules[rule]
        statistics.seconds += time.perf_counter() - start
        statistics.tries += 1
        notes, requirements = self._said()
        if new is None or new is old:
            return old
        if isinstance(new, Refusal):
            trace.refusals[rule, old.id] = new
            return old
        if new.type != old.type:
            raise GraphError(
                f"rule {rule} changes a node's type", expected=old.type, got=new.type, where=old.origin.where
            )
        if self._is_new(new, rule, old):
            new = new.with_origin(_replacing(new.origin, rule, old))
        statistics.hits += 1
        self.changed = True
        trace.pending.append(Rewrite(rule, old, new, notes, requirements))
        if self.around is not None:
            self.around.exchange(old, new)
        return new

    def _may(self, rule: str, old: Node) -> bool:
        """Tell whether the run allows a rule at a node."""
        trace, limit = self.trace, self.trace.selection.limit
        if limit is not None and len(trace.pending) >= limit:
            return False
        if not trace.selection.allows_node(self.pass_, rule, old):
            trace.refusals[rule, old.id] = Refusal("excluded from this run", (old,))
            return False
        return True

    def _is_new(self, new: Node, rule: str, old: Node) -> bool:
        """Tell whether a rule made a node, or remade one, instead of choosing one that was there."""
        return new.origin.history[-1:] == ((rule, old.id),) if self.around is None else not self.around.knows(new)

    def _said(self) -> tuple[tuple[Note, ...], tuple[Requirement, ...]]:
        """Take what the rule that was just tried has noted and relied on."""
        if self.around is None or not (self.around.notes or self.around.requirements):
            return (), ()
        said = tuple(self.around.notes), tuple(self.around.requirements)
        self.around.notes.clear()
        self.around.requirements.clear()
        return said


def _replacing(origin: Origin, rule: str, old: Node) -> Origin:
    """Return the origin of what stands in the place of `old`; a node that was remade learns of the rule here."""
    if origin.history[-1:] != ((rule, old.id),):
        origin = origin.rewritten(rule, old.id)
    return Origin(origin.file, origin.line, origin.scope, origin.gradient_of, origin.history, old)


@dataclass(frozen=True)
class Rewriting:
    """A pass made of local rules: sweeps over the graph, operands first, until no rule matches.

    numbers: what rules may ask about values of parameters, where somebody knows them.
    """

    name: str
    rules: tuple[Rule, ...]
    max_sweeps: int = 16
    numbers: Numbers | None = None

    def __call__(self, graph: Graph, trace: Trace) -> Graph:
        """Return the graph at the fixed point; a GraphError names the rules if there is none."""
        if not any(self._rules_at[op] for op in {type(node.op) for node in graph.nodes}):
            return graph
        seen: dict[object, int] = {}
        settled: set[Node] = set()
        for sweep in range(self.max_sweeps):
            before = len(trace.pending)
            around = Surroundings(graph, self.numbers, trace.selection)
            rewriter = Rewriter(trace, self.name, around, settled)
            graph = inheriting(rewriter.origin, partial(graph.rebuild, partial(self._apply, rewriter, around)))
            if not rewriter.changed:
                return graph
            if sweep < _LONG:
                continue
            first = seen.setdefault(structure(graph), len(trace.pending))
            if first < len(trace.pending):
                self._fail("undoes its own work", trace.pending[first:])
        return self._fail(f"found no fixed point in {self.max_sweeps} sweeps", trace.pending[before:])

    def _fail(self, what: str, rewrites: Sequence[Rewrite]) -> Graph:
        rules = sorted({rewrite.rule for rewrite in rewrites})
        raise GraphError(
            f"pass {self.name} {what}",
            got=f"rules still matching: {', '.join(rules)}",
            where=rewrites[-1].old.origin.where,
            hint="two of them undo each other" if len(rules) > 1 else "the rule matches what it makes itself",
        )

    def _apply(self, rewriter: Rewriter, around: Surroundings, node: Node, inputs: tuple[Node, ...]) -> Node:
        new = same_or_rebuilt(node, inputs)
        if new is not node:
            around.enter(node, new)
        settled = new in rewriter.settled
        for rule, asks in self._rules_at[type(new.op)]:
            if asks:
                made = rewriter.attempt(rule.__name__, new, rule, new, around)
            elif settled:
                continue
            else:
                made = rewriter.attempt(rule.__name__, new, rule, new)
            if made is not new:
                return made
        rewriter.settled.add(new)
        return new

    @cached_property
    def _rules_at(self) -> _RulesAt:
        return _RulesAt(self.rules)


class _RulesAt(dict[type[Op], tuple[tuple[Rule, bool], ...]]):
    """The rules to try at each class of ops, and whether they ask about the surroundings: found once for each class."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        super().__init__()
        self.rules = rules

    def __missing__(self, op: type[Op]) -> tuple[tuple[Rule, bool], ...]:
        found = tuple((rule, _asks(rule)) for rule in self.rules if issubclass(op, getattr(rule, "ops", Op)))
        self[op] = found
        return found


def _asks(rule: Rule) -> bool:
    """Tell whether a rule has a second parameter: the surroundings."""
    code = getattr(rule, "__code__", None)
    return code is not None and code.co_argcount > 1


def why_not(rule: Rule, node: Node, graph: Graph | None = None, numbers: Numbers | None = None) -> Refusal | None:
    """Return why a rule does not rewrite a node of a graph: the first condition that failed; None if it would.

    Without a graph the node is looked at as if nothing but a graph's output read it.

    >>> from minigraph.ir.leaves import input
    >>> from minigraph.passes.simplify import double_negation
    >>> why_not(double_negation, -input((2,), name="x")).reason
    'double_negation does not match here: −(−x) = x.'
    """
    graph = graph if graph is not None else Graph({"value": node})
    if node not in graph.uses:
        found = [n for n in graph.nodes if n.id == node.id]
        if not found:
            raise ArgumentError("the node is not in the graph", got=node, where=node.origin.where)
        node = found[0]
    if not issubclass(type(node.op), getattr(rule, "ops", Op)):
        ops = " or ".join(getattr(op, "name", op.__name__.lower()) for op in rule.ops)  # type: ignore[attr-defined]
        return Refusal(f"{rule.__name__} is about {ops}, and this is {node.op.name}", (node,))
    around = Surroundings(graph, numbers)
    for each in graph.nodes:
        around.enter(each, each)
    answer = rule(node, around) if _asks(rule) else rule(node)
    if isinstance(answer, Refusal):
        return answer
    if answer is None or answer is node:
        return Refusal(f"{rule.__name__} does not match here: {(rule.__doc__ or '').splitlines()[0]}", (node,))
    return None
