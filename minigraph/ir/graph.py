"""Graphs: named inputs, outputs and updates over nodes; the order of nodes; rebuilding; structural equality."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import chain
from types import MappingProxyType

from minigraph.errors import GraphError
from minigraph.ir.leaves import Input, Variable
from minigraph.ir.node import Node
from minigraph.ir.op import Op
from minigraph.ir.types import check_label


def topological(roots: Iterable[Node]) -> list[Node]:
    """Return all nodes that `roots` need, operands before users, in an order that only the graph decides.

    Depth first with an explicit stack: depth is no limit.
    """
    done: dict[Node, None] = {}
    entered: set[Node] = set()
    stack = list(roots)[::-1]
    while stack:
        node = stack.pop()
        if node in done:
            continue
        missing = [i for i in node.inputs if i not in done]
        if not missing:
            done[node] = None
        elif node in entered:
            raise GraphError(f"{node.label} depends on itself", where=node.origin.where)
        else:
            entered.add(node)
            stack.append(node)
            stack += missing[::-1]
    return list(done)


def execution_order(graph: Graph) -> list[Node]:
    """Return a graph's nodes in an order to run them in: what outputs need, then the updates, the last one first.

    Gradients are taken from the last layer to the first. In this order a layer's adjoint is used up, by the gradients
    of its variables, before the next one is made; in the other they would all be kept to the end.
    """
    updates = [node for pair in reversed(list(graph.updates.items())) for node in pair]
    return topological([*graph.inputs, *graph.outputs.values(), *updates])


class Graph:
    """A program as data: `inputs`, `outputs` (name → node), `updates` (variable → its next value), `nodes` in order.

    An update is committed after all outputs are computed. Inputs that are not listed are found; listing them fixes
    their order and keeps those that nothing reads.

    >>> from minigraph.ir.leaves import input
    >>> x = input((2,), name="x")
    >>> print(Graph({"y": -x}))
    graph {
      %0 = input("x") : float32[2]
      %1 = neg(%0) : float32[2]
      return y=%1
    }
    """

    def __init__(
        self,
        outputs: Mapping[str, Node],
        updates: Mapping[Node, Node] | None = None,
        inputs: Sequence[Node] | None = None,
    ) -> None:
        self.outputs: Mapping[str, Node] = MappingProxyType(dict(outputs))
        self.updates: Mapping[Node, Node] = MappingProxyType(dict(updates or {}))
        self.inputs: tuple[Node, ...] = tuple(inputs or ())
        self.nodes: tuple[Node, ...] = self._sorted()
        listed = set(self.inputs)
        found = tuple(n for n in self.nodes if isinstance(n.op, Input) and n not in listed)
        if found:  # they go to the front, and nothing else moves: an input reads nothing
            self.inputs += found
            self.nodes = tuple(dict.fromkeys([*self.inputs, *self.nodes]))
        self._check_names()

    def _sorted(self) -> tuple[Node, ...]:
        """Return all nodes: inputs first, then operands before users."""
        updates = [node for pair in self.updates.items() for node in pair]
        return tuple(topological([*self.inputs, *self.outputs.values(), *updates]))

    def _check_names(self) -> None:
        for name in self.outputs:
            check_label(name)
        seen: dict[str, Node] = {}
        for kind, nodes in (("input", self.inputs), ("variable", self.variables)):
            for node in nodes:
                if not isinstance(node.op, (Input, Variable)):
                    raise GraphError(f"a graph's {kind} is an ordinary node", got=node, where=node.origin.where)
                first = seen.setdefault(node.op.label, node)
                if first is not node:
                    raise GraphError(
                        f"two {kind}s are called {node.op.label!r}"
                        if type(node.op) is type(first.op)
                        else f"an input and a variable are called {node.op.label!r}",
                        expected="unique names",
                        got=f"one from {first.origin.where}, one from {node.origin.where}",
                        where=node.origin.where,
                        hint="give one of them another name=",
                    )
        for target, value in self.updates.items():
            if not isinstance(target.op, Variable):
                raise GraphError("only a variable can be updated", got=target, where=target.origin.where)
            if target.type != value.type:
                raise GraphError(
                    f"the update of {target.op.label!r} does not have the variable's type",
                    expected=target.type,
                    got=value.type,
                    where=value.origin.where,
                )

    @cached_property
    def variables(self) -> tuple[Node, ...]:
        """The variable nodes, in the order of first use."""
        return tuple(n for n in self.nodes if isinstance(n.op, Variable))

    @cached_property
    def uses(self) -> Mapping[Node, int]:
        """How often each node is read: as an operand, an output, or an update's value."""
        count = Counter(dict.fromkeys(self.nodes, 0))
        count.update(chain.from_iterable([node.inputs for node in self.nodes]))
        count.update(self.outputs.values())
        count.update(self.updates.values())
        return MappingProxyType(count)

    @cached_property
    def users(self) -> Mapping[Node, tuple[Node, ...]]:
        """The nodes that read each node, once each, in order."""
        found: dict[Node, dict[Node, None]] = {node: {} for node in self.nodes}
        for node in self.nodes:
            for operand in node.inputs:
                found[operand][node] = None
        return MappingProxyType({node: tuple(readers) for node, readers in found.items()})

    def variable(self, label: str) -> Node:
        """Return the variable called `label`."""
        for node in self.variables:
            if node.label == label:
                return node
        raise GraphError(f"no variable is called {label!r}", expected=", ".join(v.label for v in self.variables))

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbolic sizes that the inputs leave open, in order of appearance."""
        found: dict[str, None] = {}
        for node in self.inputs:
            for size in node.shape:
                found.update(dict.fromkeys(getattr(size, "symbols", ())))
        return tuple(found)

    def rebuild(self, make: Callable[[Node, tuple[Node, ...]], Node], order: Sequence[Node] | None = None) -> Graph:
        """Return the graph in which each node is what `make(node, new_inputs)` returns for it.

        The one loop under all passes: operands first, types inferred again, what nothing reaches is gone. Nodes are met
        in the graph's order, or in another one that is given. Where every node stays, so does the graph.
        """
        new: dict[Node, Node] = {}  # only what is not the same
        changed = new.keys()
        for node in self.nodes if order is None else order:
            inputs = node.inputs
            if not changed.isdisjoint(inputs):
                inputs = tuple([new.get(i, i) for i in inputs])
            made = make(node, inputs)
            if made is not node:
                new[node] = made
        if not new:
            return self
        return Graph(
            {name: new.get(node, node) for name, node in self.outputs.items()},
            {new.get(target, target): new.get(value, value) for target, value in self.updates.items()},
            [new.get(node, node) for node in self.inputs],
        )

    def same_as(self, other: Graph) -> bool:
        """Tell whether both graphs have the same structure: ops, attributes, types, names and order."""
        return structure(self) == structure(other)

    def __str__(self) -> str:
        from minigraph.ir.printer import print_graph

        return print_graph(self)

    def __repr__(self) -> str:
        return f"<Graph: {len(self.nodes)} nodes, {len(self.inputs)} inputs, {len(self.outputs)} outputs>"


def _comparable(op: Op) -> object:
    """Return an op as something that equals itself: its text, where NaN is among its attributes."""
    from minigraph.ir.printer import op_arguments

    return (op.name, *op_arguments(op)) if any(value != value for value in vars(op).values()) else op


def structure(graph: Graph) -> tuple[object, ...]:
    """Return what makes two graphs the same program: ops, attributes, types, names and order, as a hashable value."""
    number = {node: i for i, node in enumerate(graph.nodes)}
    nodes = [(_comparable(n.op), n.type, tuple(number[i] for i in n.inputs)) for n in graph.nodes]
    ends = tuple((name, number[n]) for name, n in graph.outputs.items())
    updates = tuple((number[t], number[v]) for t, v in graph.updates.items())
    return (*nodes, ends, updates, tuple(number[n] for n in graph.inputs))


def same_or_rebuilt(node: Node, inputs: tuple[Node, ...]) -> Node:
    """Return the node itself where its inputs are unchanged, else the node over the new inputs."""
    return node if inputs == node.inputs else node.with_inputs(inputs)


def bind(graph: Graph, **sizes: int) -> Graph:
    """Return the graph with symbolic sizes replaced by numbers, in types and attributes, and types inferred again.

    >>> from minigraph.ir.leaves import input
    >>> from minigraph.ir.types import symbol
    >>> print(bind(Graph({"y": -input((symbol("N"), 3), name="x")}), N=2).outputs["y"].type)
    float32[2,3]
    """
    unknown = set(sizes) - set(graph.symbols)
    if unknown:
        raise GraphError(
            "no such symbolic size", expected=", ".join(graph.symbols) or "none: all sizes are numbers", got=unknown
        )
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise GraphError(f"the size {name} must be an integer ≥ 0", got=repr(size))

    def make(node: Node, inputs: tuple[Node, ...]) -> Node:
        op = node.op.bind(sizes)
        return node if op is node.op and inputs == node.inputs else node.with_inputs(inputs, op)

    return graph.rebuild(make)
