"""Rematerialisation: values that would wait in memory for the backward pass are computed a second time instead.

Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016, with the choice made greedily: at the step with the
most bytes alive, what saves most bytes for the least work, a sixteenth of the memory at a time. The limit only says
where to stop, so that what was reached under one limit is reached under any other. Updates are never repeated: only
values are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from minigraph.errors import ArgumentError, GraphError
from minigraph.ir.graph import Graph, execution_order, same_or_rebuilt
from minigraph.ir.leaves import Constant, Input, Item, Variable
from minigraph.ir.node import Node
from minigraph.ir.op import Op
from minigraph.ir.types import TensorType, known
from minigraph.ops.shape import After, Reshape
from minigraph.passes.driver import Rewriter
from minigraph.passes.trace import Trace

# The name that rewrites are recorded under.
RULE = "compute_again"

_LEAVES = (Input, Variable, Constant)
_VIEWS = (Reshape, Item, After)  # no memory of their own
# How often the peak is looked at anew, the share of it that is to be saved each time, and how many ops a value may be
# recomputed through.
_ROUNDS = 100
_SHARE = 16
_DEEPEST = 6


@dataclass(frozen=True)
class Rematerialise:
    """Recompute values until the peak memory of a bound graph is at most `limit` bytes.

    peak: from a graph to the bytes its plan takes; the pass plans nothing itself. Raises a GraphError with the least
    that was reached if that is more than the limit.
    """

    limit: int
    peak: Callable[[Graph], int]
    name: str = "rematerialise"

    def __post_init__(self) -> None:
        if not isinstance(self.limit, int) or self.limit < 0:
            raise ArgumentError("bad memory limit", expected="bytes: an integer ≥ 0", got=repr(self.limit))
        if not callable(self.peak):
            raise ArgumentError("nobody here can tell how much memory a graph needs", expected="Means(peak=…)")

    @property
    def arguments(self) -> str:
        """The arguments in a pipeline's text."""
        return str(self.limit)

    def __call__(self, graph: Graph, trace: Trace) -> Graph:
        """Return a graph that fits, or raise."""
        best = self.peak(graph)
        banned: set[int] = set()
        share = 1.0
        for _ in range(_ROUNDS):
            if best <= self.limit:
                break
            chosen = _choose(graph, best // _SHARE, banned | self._excluded(graph, trace), share)
            if not chosen:
                break
            copies: _Copies = {}
            peak = self.peak(_recompute(graph, chosen, Trace(), self.name, copies))
            if peak < best:  # what helps is done once more, for the record, as far as the selection goes
                graph, best = _recompute(graph, chosen, trace, self.name, copies), peak
                if trace.selection.limit is not None and len(trace.pending) >= trace.selection.limit:
                    return graph
                continue
            if len(chosen) == 1:
                banned.add(chosen[0].value.id)
            share = share / 2 if len(chosen) > 1 else 1.0
        if best > self.limit:
            raise GraphError(
                f"the program does not fit into {self.limit:,} bytes",
                expected="a limit that recomputing values can reach",
                got=f"{best:,} bytes at least",
                where="",
                hint="raise memory_limit, or use a smaller batch",
            )
        return graph

    def _excluded(self, graph: Graph, trace: Trace) -> set[int]:
        """Return the nodes that the selection keeps as they are."""
        return {n.id for n in graph.nodes if not trace.selection.allows_node(self.name, RULE, n)}


@dataclass(frozen=True)
class _Choice:
    """A value to compute again for its late readers, behind `then`, with the operands that are computed again too."""

    value: Node
    again: tuple[Node, ...]
    then: Node
    late: frozenset[Node]
    saved: int
    work: int


# The second copies that were made for a choice, and what they wait behind, by the node that they are a copy of.
_Copies: TypeAlias = dict[tuple[_Choice, Node, type[Op]], Node]


class _Lives:
    """Where each value is made and last read in the order of a graph, and where most bytes are alive."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.order = execution_order(graph)
        self.at = {node: i for i, node in enumerate(self.order)}
        self.root: dict[Node, Node] = {}
        for node in graph.nodes:
            self.root[node] = self.root[node.inputs[0]] if isinstance(node.op, _VIEWS) else node
        self.last = dict(self.at)
        for node in graph.nodes:
            for operand in node.inputs:
                root = self.root[operand]
                self.last[root] = max(self.last[root], self.at[node])
        for node in (*graph.outputs.values(), *graph.updates.values()):
            self.last[self.root[node]] = len(graph.nodes)
        self.peak = self._fullest()

    def _fullest(self) -> int:
        change = [0] * (len(self.graph.nodes) + 2)
        for node in self.graph.nodes:
            if self.root[node] is node and not isinstance(node.op, (Variable, Constant)):
                change[self.at[node]] += nbytes(node)
                change[self.last[node] + 1] -= nbytes(node)
        most = alive = place = 0
        for i, delta in enumerate(change):
            alive += delta
            if alive > most:
                most, place = alive, i
        return place

    def lasts(self, node: Node, until: int) -> bool:
        """Tell whether a value is there at a step without living longer than it does."""
        return isinstance(node.op, (Variable, Constant)) or self.last[self.root[node]] >= until


def nbytes(node: Node) -> int:
    """Return the bytes of a value of a bound graph."""
    return known(node.type.nbytes, "a value's size, which rematerialisation needs to know")


def _choose(graph: Graph, wanted: int, banned: set[int], share: float) -> list[_Choice]:
    """Return what to recompute: the best bargains at the fullest step until they save what is wanted."""
    lives = _Lives(graph)
    found = [c for node in graph.nodes if node.id not in banned and (c := _offer(node, lives)) is not None]
    found.sort(key=lambda c: (c.work / c.saved, -c.saved))
    taken: list[_Choice] = []
    blocked: set[Node] = set()
    saved = 0
    for choice in found:
        # What another choice relies on must stay; what is recomputed already needs no second copy.
        if choice.value in blocked or any(i in {c.value for c in taken} for n in choice.again for i in n.inputs):
            continue
        taken.append(choice)
        blocked.update(choice.again, (i for n in choice.again for i in n.inputs))
        saved += choice.saved
        if saved >= wanted:
            break
    return taken[: max(1, int(len(taken) * share))]


def _offer(node: Node, lives: _Lives) -> _Choice | None:
    """Return how a value could be computed again for those who read it after the fullest step, or None."""
    if not isinstance(node.type, TensorType) or isinstance(node.op, (*_LEAVES, *_VIEWS)) or _is_adjoint(node):
        return None
    if not lives.at[node] < lives.peak < lives.last[node] < len(lives.graph.nodes):
        return None
    late = _late_readers(node, lives)
    if not late:
        return None
    first = min(lives.at[reader] for reader in late)
    then = _before(first, lives)
    again, extended = _expression(node, first, lives)
    saved = nbytes(node) - sum(map(nbytes, extended))
    if then is None or not again or saved <= 0 or lives.at[then] <= lives.at[node]:
        return None
    work = sum(known(n.op.flops(n)) + nbytes(n) for n in again)
    return _Choice(node, again, then, frozenset(late), saved, work)


def _is_adjoint(node: Node) -> bool:
    """Tell whether a node belongs to the backward pass."""
    return node.origin.gradient_of is not None


def _late_readers(node: Node, lives: _Lives) -> list[Node]:
    """Return the readers of a value after the fullest step; none where a view that was made before is read there."""
    users, at, peak = lives.graph.users, lives.at, lives.peak
    early = [v for v in users[node] if isinstance(v.op, _VIEWS) and at[v] <= peak]
    if any(at[u] > peak for v in early for u in users[v]):
        return []
    return [u for u in users[node] if at[u] > peak]


def _before(place: int, lives: _Lives) -> Node | None:
    """Return the latest value that is made before a step: what waits for it is computed no sooner."""
    for i in range(place - 1, -1, -1):
        node = lives.order[i]
        if not isinstance(node.op, (*_LEAVES, *_VIEWS)):
            return node
    return None


def _expression(node: Node, until: int, lives: _Lives) -> tuple[tuple[Node, ...], list[Node]]:
    """Return the nodes to compute again, operands first, and the values that must live longer for that."""
    again: list[Node] = []
    extended: list[Node] = []
    stack: list[tuple[Node, int, bool]] = [(node, 0, False)]
    while stack:
        each, depth, done = stack.pop()
        if done:
            again.append(each)
            continue
        if each in again:
            continue
        stack.append((each, depth, True))
        for operand in each.inputs:
            root = lives.root[operand]
            if lives.lasts(operand, until) or operand in again:
                continue
            small = isinstance(root.op, Input) or nbytes(root) < nbytes(node) // 8
            if small or depth >= _DEEPEST or operand is not root or not isinstance(operand.type, TensorType):
                extended.append(root)
            else:
                stack.append((operand, depth + 1, False))
    return tuple(again), extended


def _recompute(graph: Graph, chosen: Sequence[_Choice], trace: Trace, name: str, known: _Copies) -> Graph:
    """Return the graph in which late readers read second copies; those in `known` keep their ids, new ones go there."""
    rewriter = Rewriter(trace, name)
    new: dict[Node, Node] = {}
    seconds: dict[_Choice, Node] = {}

    def again(key: tuple[_Choice, Node, type[Op]], op: Op, *inputs: Node) -> Node:
        known[key] = known[key].with_inputs(inputs) if key in known else Node(op, inputs)
        return known[key]

    def copy(choice: _Choice) -> Node:
        made: dict[Node, Node] = {}
        for each in choice.again:
            inputs = [made.get(i, new[i]) for i in each.inputs]
            if not any(i in made for i in each.inputs):  # a first op waits; the others wait for it
                place = next((p for p, i in enumerate(each.inputs) if not isinstance(i.op, Constant)), 0)
                inputs[place] = again((choice, each, After), After(), inputs[place], new[choice.then])
            made[each] = again((choice, each, type(each.op)), each.op, *inputs)
        return made[choice.value]

    def make(node: Node, inputs: tuple[Node, ...]) -> Node:
        changed = list(inputs)
        for choice in chosen:
            if node not in choice.late:
                continue
            if choice not in seconds:
                seconds[choice] = rewriter.replace(RULE, new[choice.value], partial(copy, choice))
            changed = [seconds[choice] if i is choice.value else c for i, c in zip(node.inputs, changed, strict=True)]
        new[node] = same_or_rebuilt(node, tuple(changed))
        return new[node]

    return graph.rebuild(make, execution_order(graph))
