"""What a rule may ask about the graph around its node while the graph is being rewritten: uses, readers, parameters."""

from __future__ import annotations

from minigraph.ir.graph import Graph
from minigraph.ir.leaves import Constant, Variable
from minigraph.ir.node import Node
from minigraph.ops.shape import CountOf
from minigraph.passes.numbers import Numbers
from minigraph.passes.selection import Selection
from minigraph.passes.trace import Note, Requirement


class Surroundings:
    """What a rule may ask about the graph around its node, as it is at this moment of the rewriting.

    Uses are counted on the new nodes as they are made and dropped: counts of the old graph would miss the second of two
    stacked convolution – batch norm pairs.
    """

    def __init__(self, graph: Graph, numbers: Numbers | None = None, selection: Selection | None = None) -> None:
        self.graph = graph
        self.numbers = numbers
        self.selection = selection or Selection()
        self.old: dict[Node, Node] = {}  # new node → the node of the graph that it stands for
        self.apart: dict[Node, list[Node]] = {}  # function → its results as ordinary nodes, which its items share
        self.notes: list[Note] = []
        self.requirements: list[Requirement] = []
        self._uses: dict[Node, int] = {}  # of new nodes, and of those that are not read as often as in the graph
        self._dead: set[Node] = set()
        self._parameters: dict[Node, bool] = {}
        self._data_readers: dict[Node, frozenset[int]] = {}

    def uses(self, node: Node) -> int:
        """Return how often a node is read: as an operand, an output, or an update's value."""
        uses = self._uses.get(node)
        return self.graph.uses.get(node, 0) if uses is None else uses

    def other_readers(self, node: Node, *known: Node) -> tuple[Node, ...]:
        """Return the nodes of the graph, but for `known`, that read what `node` stands for."""
        ids = {reader.id for reader in known}
        old = self.old.get(node, node)
        return tuple(r for r in self.graph.users.get(old, ()) if r.id not in ids)

    def data_readers(self, node: Node) -> frozenset[int]:
        """Return the ids of the graph's nodes that read a parameter and are data themselves."""
        old = self.old.get(node, node)
        if old not in self._data_readers:
            readers = (r for r in self.graph.users.get(old, ()) if not self.is_parameter(r))
            self._data_readers[old] = frozenset(r.id for r in readers)
        return self._data_readers[old]

    def allows(self, node: Node) -> bool:
        """Tell whether the run may change a node that is not the one a rule is tried at."""
        return self.selection.allows_scope(node.origin.scope)

    def ends(self, node: Node) -> list[str]:
        """Return what is read of a node from outside: `output 'y'`, `the update of 'w'`."""
        old = self.old.get(node, node)
        outputs = [f"output {name!r}" for name, value in self.graph.outputs.items() if value is old]
        return outputs + [f"the update of {t.label!r}" for t, value in self.graph.updates.items() if value is old]

    def is_parameter(self, node: Node) -> bool:
        """Tell whether a value depends on variables and constants only, so that it is known before any data is."""
        answer = self._parameters.get(node)
        if answer is not None:
            return answer
        stack = [node]
        while stack:
            top = stack[-1]
            if top in self._parameters:
                stack.pop()
                continue
            if isinstance(top.op, CountOf):  # a shape, whatever the data
                self._parameters[stack.pop()] = True
                continue
            open_ = [i for i in top.inputs if i not in self._parameters]
            if open_:
                stack += open_
                continue
            leaf = isinstance(top.op, (Variable, Constant))
            self._parameters[stack.pop()] = leaf or (bool(top.inputs) and all(self._parameters[i] for i in top.inputs))
        return self._parameters[node]

    def note(self, about: Node, text: str) -> None:
        """Say what becomes of a node, if the rewrite happens."""
        self.notes.append(Note(about, text))

    def require(self, kind: str, node: Node, text: str) -> None:
        """Say what the rewrite, if it happens, relies on: see `Requirement`."""
        self.requirements.append(Requirement(kind, node, text))

    # --- for the driver -----------------------------------------------------------------------------------------------

    def knows(self, node: Node) -> bool:
        """Tell whether a node was met before, or is one of the graph."""
        return node in self._uses or node in self.graph.uses

    def enter(self, old: Node, new: Node) -> None:
        """Count a node of the graph, over its new operands."""
        if new is not old:
            self.old[new] = old
            self._uses[new] = self._uses.get(new, 0) + self.graph.uses[old]

    def exchange(self, old: Node, new: Node) -> None:
        """Move all reads of `old` to `new`: count what `new` brings in, and take off what nothing reads any more."""
        reads = self.uses(old)
        fresh = [] if self.knows(new) else [new]
        while fresh:
            node = fresh.pop()
            self._uses.setdefault(node, 0)
            for operand in node.inputs:
                if operand in self._dead or not self.knows(operand):
                    self._dead.discard(operand)
                    fresh.append(operand)
                self._uses[operand] = self.uses(operand) + 1
        self._uses[new] = self.uses(new) + reads
        self._uses[old] = self.uses(old) - reads
        if new not in self.graph.uses:
            self.old.setdefault(new, self.old.get(old, old))
        dropped = [old] if not self._uses[old] else []  # a replacement may read what it replaces
        while dropped:
            dead = dropped.pop()
            self._dead.add(dead)
            for operand in dead.inputs:
                self._uses[operand] = self.uses(operand) - 1
                if not self._uses[operand]:
                    dropped.append(operand)
