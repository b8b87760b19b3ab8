"""Finding the one rewrite that is wrong, and the smallest graph on which it still is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from minigraph.errors import MinigraphError
from minigraph.ir.graph import Graph
from minigraph.ir.leaves import Constant, Input, Variable
from minigraph.ir.node import Node
from minigraph.ir.types import TensorType
from minigraph.passes.driver import Pass, run
from minigraph.passes.trace import Rewrite, Trace

Predicate = Callable[[Graph], bool]


@dataclass(frozen=True)
class Culprit:
    """The first rewrite after which a predicate fails.

    `before` and `after` are the graphs around it. `reproducer` is the smallest graph found that the same pass still
    takes from right to wrong.
    """

    step: str
    index: int
    rewrite: Rewrite
    before: Graph
    after: Graph
    reproducer: Graph

    def __str__(self) -> str:
        places = ", ".join(self.rewrite.places) or "no user's line"
        return (
            f"rewrite {self.index} of pass {self.step}: {self.rewrite.rule} at {self.rewrite.old.op.name} ({places})\n"
            f"reproducer, {len(self.reproducer.nodes)} nodes:\n{self.reproducer}"
        )


def bisect(trace: Trace, predicate: Predicate) -> Culprit | None:
    """Return the first rewrite of a trace after which `predicate` is false, with a minimal graph, or None.

    predicate: from a graph to whether it is right. It holds of the first graph; the passes are deterministic, so a pass
    stopped after half of its rewrites tells in which half the culprit is. Raises no error of its own: a predicate that
    fails by a MinigraphError counts as false.

    >>> from minigraph.ir.leaves import input
    >>> from minigraph.runtime import optimize
    >>> x = input((2,), name="x")
    >>> trace = optimize(Graph({"y": (x * 1.0) * 2.0 + 0.0}))[1]
    >>> culprit = bisect(trace, lambda graph: any(n.op.name == "add" for n in graph.nodes))
    >>> culprit.rewrite.rule, len(culprit.reproducer.nodes)
    ('add_zero', 3)
    """
    for number, step in enumerate(trace.steps):
        if _right(predicate, step.after):
            continue
        if not step.rewrites:
            return None
        low, high = 0, len(step.rewrites)  # right after `low` rewrites, wrong after `high`
        while high - low > 1:
            middle = (low + high) // 2
            if _right(predicate, trace.graphs_around(number, middle)[0]):
                low = middle
            else:
                high = middle
        before, after = trace.graphs_around(number, low)
        small = shrink(before, partial(_breaks, step.run, predicate))
        return Culprit(step.name, low, step.rewrites[low], before, after, small)
    return None


def _right(predicate: Predicate, graph: Graph) -> bool:
    try:
        return bool(predicate(graph))
    except MinigraphError:
        return False


def _breaks(pass_: Pass, predicate: Predicate, graph: Graph) -> bool:
    """Tell whether a pass takes a graph from right to wrong."""
    if not _right(predicate, graph):
        return False
    try:
        after = run([pass_], graph)[0]
    except MinigraphError:
        return True
    return not _right(predicate, after)


def shrink(graph: Graph, wrong: Predicate) -> Graph:
    """Return a smaller graph of which `wrong` is still true: fewer outputs and updates, nodes cut off or bypassed.

    Greedy, as delta debugging is (Zeller & Hildebrandt 2002): a change is kept if the graph stays wrong, until none is.

    >>> from minigraph import ops
    >>> from minigraph.ir.leaves import input
    >>> x = input((2,), name="x")
    >>> big = Graph({"y": ops.exp(ops.neg(ops.tanh(x))), "z": x + 1.0})
    >>> shrink(big, lambda graph: any(n.op.name == "neg" for n in graph.nodes)).outputs["y"]
    <neg : float32[2]>
    """
    while True:
        smaller = next((g for g in _smaller(graph) if _is_wrong(wrong, g)), None)
        if smaller is None:
            return graph
        graph = smaller


def _is_wrong(wrong: Predicate, graph: Graph) -> bool:
    try:
        return bool(wrong(graph))
    except MinigraphError:
        return False


def _smaller(graph: Graph) -> Iterator[Graph]:
    """Yield graphs with something taken away, the largest cuts first."""
    for name in graph.outputs if len(graph.outputs) + len(graph.updates) > 1 else ():
        yield Graph({k: v for k, v in graph.outputs.items() if k != name}, graph.updates)
    for target in graph.updates if len(graph.outputs) + len(graph.updates) > 1 else ():
        yield Graph(graph.outputs, {k: v for k, v in graph.updates.items() if k is not target})
    for node in reversed(graph.nodes):
        yield from _without(graph, node)


def _without(graph: Graph, node: Node) -> Iterator[Graph]:
    """Yield the graph with an operand of the same type, or a new input, in a node's place; or ending at an operand."""
    if isinstance(node.op, (Input, Variable, Constant)) or not isinstance(node.type, TensorType):
        return
    for operand in node.inputs:
        if operand.type == node.type:
            yield _replaced(graph, node, operand)
    if any(value is node for value in graph.outputs.values()):
        for operand in node.inputs:
            if isinstance(operand.type, TensorType):
                outputs = {k: operand if v is node else v for k, v in graph.outputs.items()}
                yield Graph(outputs, graph.updates)
    yield _replaced(graph, node, Node(Input(_free_name(graph), node.type)))


def _free_name(graph: Graph) -> str:
    taken = {n.label for n in graph.nodes}
    return next(name for i in range(len(taken) + 1) if (name := f"cut{i}") not in taken)


def _replaced(graph: Graph, node: Node, by: Node) -> Graph:
    def make(each: Node, inputs: tuple[Node, ...]) -> Node:
        if each is node:
            return by
        return each if inputs == each.inputs else each.with_inputs(inputs)

    new = graph.rebuild(make)
    return Graph(new.outputs, new.updates)
