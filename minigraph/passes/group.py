"""Grouping: the graph cut into passes over memory, for backends that generate code.

Every value is either *stored* or *inside*: computed again, in registers, by each group that reads it. A group is one
loop over one domain (a shape, cut into the windows of a pooling if there is one) and yields all stored values and
sums that the same loop can. Each group has a level, one above what it reads; a value joins a group of its own domain if
all else that it reads lies below that level, so that groups never wait for each other in a circle.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from minigraph.ir.graph import Graph
from minigraph.ir.leaves import Constant, Item
from minigraph.ir.node import Node
from minigraph.ir.origin import inheriting
from minigraph.ir.types import DTYPES, Shape, TensorType, known
from minigraph.ops.elementwise import Elementwise
from minigraph.ops.group import ANCHORS, group, pools, reduces
from minigraph.ops.pool import MaxPool2D, MaxPool2DAdjoint
from minigraph.ops.shape import Cast
from minigraph.passes.driver import Rewriter
from minigraph.passes.trace import Trace

# A value of more operations, or from more arrays than this, is stored rather than computed twice.
CHEAP_COST, CHEAP_ARRAYS = 16, 2
# A longer body is hard to read, and runs out of registers.
LONGEST = 64
# How many of the latest groups of a domain a value may join.
_RECENT = 8
_NO_TILE = (1, 1)

Tile = tuple[int, int]


@dataclass(frozen=True)
class _Inside:
    """What computing a value in registers takes: arrays of its size to read, operations, windows, an anchor.

    `coarse`: the value is one per window of `tile`, not one per element.
    """

    arrays: frozenset[Node]
    steps: frozenset[Node]
    cost: int
    tile: Tile = _NO_TILE
    coarse: bool = False
    anchor: Node | None = None

    @property
    def cheap(self) -> bool:
        """Whether to compute it twice beats storing it."""
        return self.cost <= CHEAP_COST and len(self.arrays) <= CHEAP_ARRAYS and self.anchor is None


@dataclass(eq=False)
class _Loop:
    """A group in the making."""

    domain: tuple[Shape, Tile]
    level: int
    roots: list[Node] = field(default_factory=list)
    steps: set[Node] = field(default_factory=set)
    arrays: set[Node] = field(default_factory=set)
    anchor: Node | None = None


@dataclass(frozen=True)
class Group:
    """The pass. `computes` tells which ops the backend's loops can compute element by element."""

    computes: Callable[[Node], bool]
    name: str = "group"

    def __call__(self, graph: Graph, trace: Trace) -> Graph:
        """Return the graph in which all that one loop computes is one node."""
        return _Grouping(graph, self.computes, trace).rebuilt()


class _Grouping:
    def __init__(self, graph: Graph, computes: Callable[[Node], bool], trace: Trace) -> None:
        self.graph = graph
        self.computes = computes
        self.rewriter = Rewriter(trace, "group")
        self.ends = {*graph.outputs.values(), *graph.updates.values()}
        self.readers: dict[Node, list[Node]] = defaultdict(list)
        for node in graph.nodes:
            for operand in node.inputs:
                self.readers[operand].append(node)
        self.place = {node: i for i, node in enumerate(graph.nodes)}
        self.inside: dict[Node, _Inside] = {}  # what stays in registers
        self.bodies: dict[Node, _Inside] = {}  # how each stored value of a loop is computed
        for node in graph.nodes:
            self._decide(node)
        self.level: dict[Node, int] = {}
        self.loop_of: dict[Node, _Loop] = {}
        self._form()

    # --- what is stored ------------------------------------------------------------------------------------------

    def _decide(self, node: Node) -> None:
        """Find out how a value is computed, and whether it is stored."""
        if _widens(node) and len(self.readers[node]) > 1 and node.inputs[0] in self.inside:
            self._store(node.inputs[0])  # half the bytes, and the conversion costs nothing
        if isinstance(node.op, ANCHORS) and self.computes(node):
            body: _Inside | None = _Inside(frozenset(), frozenset({node}), 0, anchor=node)
        else:
            body = self._body(node)
        if body is None:
            return
        readers = self.readers[node]
        fits = all(self._reads_inside(reader, node) for reader in readers) and node not in self.ends
        once = len(readers) == 1 and len(body.steps) < LONGEST
        if fits and readers and (once or body.cheap) and not reduces(node):
            self.inside[node] = body
        else:
            self.bodies[node] = body

    def _body(self, node: Node) -> _Inside | None:
        """Return how a loop computes a node, or None if no loop does."""
        if not self._loops(node):
            return None
        tile, coarse = _windows(node)
        arrays: set[Node] = set()
        steps, cost, anchor = {node}, _cost(node), None
        for position, operand in enumerate(node.inputs):
            known_inside = self.inside.get(operand)
            per_window = position == 1 if isinstance(node.op, MaxPool2DAdjoint) else coarse and not pools(node)
            if known_inside is not None and not (
                _agrees(known_inside, tile, per_window, anchor) and _may_sum(node, known_inside)
            ):
                self._store(operand)
                known_inside = None
            if known_inside is None:
                if reduces(node) or pools(node) or operand.tensor_type.size == node.tensor_type.size:
                    arrays.add(operand)
                continue
            if known_inside.tile != _NO_TILE and tile == _NO_TILE:
                tile, coarse = known_inside.tile, known_inside.coarse
            arrays |= known_inside.arrays
            steps |= known_inside.steps
            cost += known_inside.cost
            anchor = known_inside.anchor if anchor is None else anchor
        arrays = {a for a in arrays if not isinstance(a.op, Constant) or a.tensor_type.size != 1}
        return _Inside(frozenset(arrays), frozenset(steps), cost, tile, coarse, anchor)

    def _store(self, node: Node) -> None:
        self.bodies[node] = self.inside.pop(node)

    def _loops(self, node: Node) -> bool:
        """Tell whether a loop computes this op."""
        return not isinstance(node.op, ANCHORS) and self.computes(node)

    def _reads_inside(self, reader: Node, node: Node) -> bool:
        """Tell whether a reader can compute `node` in its own loop."""
        if not self._loops(reader):
            return False
        if pools(reader) or reduces(reader):
            return not isinstance(node.op, ANCHORS)
        return reader.shape == node.shape

    # --- who computes it with whom ---------------------------------------------------------------------------------

    def _form(self) -> None:
        """Put each stored value of a loop into a group."""
        recent: dict[tuple[Shape, Tile], list[_Loop]] = defaultdict(list)
        for node in self.graph.nodes:
            if isinstance(node.op, Item) and node.inputs[0] in self.loop_of:
                self.level[node] = self.level[node.inputs[0]]
                continue
            body = self.bodies.get(node)
            if node in self.inside or body is None:
                self.level[node] = 1 + max((self.level[i] for i in node.inputs), default=-1)
                if node in self.inside:
                    self.level[node] -= 1
                continue
            domain = (_domain(node, body), body.tile)
            loop = self._joinable(node, body, recent[domain])
            if loop is None:
                below = max((self.level[i] for s in body.steps for i in s.inputs if i not in body.steps), default=-1)
                loop = _Loop(domain, below + 1, anchor=body.anchor)
                recent[domain] = [*recent[domain][1 - _RECENT :], loop]
            loop.roots.append(node)
            loop.steps |= body.steps
            loop.arrays |= body.arrays | {node}
            self.loop_of[node] = loop
            self.level[node] = loop.level

    def _joinable(self, node: Node, body: _Inside, loops: list[_Loop]) -> _Loop | None:
        """Return the latest group that may compute the value as well, and that reads, or makes, an array of it."""
        if body.anchor is not None:
            return None
        reads = [i for s in body.steps for i in s.inputs if i not in body.steps]
        for loop in reversed(loops):
            outside = (self.level[i] for i in reads if self._maker(i) is not loop)
            if (
                body.arrays & loop.arrays
                and all(level < loop.level for level in outside)
                and self._fits(node, loop, reads)
            ):
                return loop
        return None

    def _maker(self, node: Node) -> _Loop | None:
        return self.loop_of.get(node.inputs[0] if isinstance(node.op, Item) else node)

    def _fits(self, node: Node, loop: _Loop, reads: list[Node]) -> bool:
        """Tell whether what a value reads of the group's own is there, element by element, when it is needed."""
        own = [i for i in reads if self._maker(i) is loop]
        if any(isinstance(i.op, Item) or reduces(i) for i in own):
            return False  # a sum is known only after the loop
        if loop.anchor is not None and self.bodies[node].tile != _NO_TILE:
            return False
        shape = loop.domain[0]
        return all(i.shape == shape for i in own) and len(loop.steps | self.bodies[node].steps) <= LONGEST

    # --- the new graph ------------------------------------------------------------------------------------------------

    def rebuilt(self) -> Graph:
        """Return the graph with each group of more than one step as one node."""
        new: dict[Node, Node] = {}
        made: dict[_Loop, dict[Node, Node]] = {}

        def make(node: Node, inputs: tuple[Node, ...]) -> Node:
            if node in self.inside:
                return node
            loop = self._maker(node)
            if loop is not None and loop not in made:
                made[loop] = self._group(loop, new)
            result = made[loop].get(node) if loop is not None else None
            if result is not None:
                new[node] = self.rewriter.replace("group", node, lambda: result)
            elif loop is None or not made[loop]:
                new[node] = _with_inputs(node, tuple(new.get(i, i) for i in node.inputs))
            else:  # a pair of moments: its readers have its two items
                return node
            return new[node]

        order = sorted(self.graph.nodes, key=lambda n: (self.level[n], self.place[n]))
        return self.graph.rebuild(make, order)

    def _group(self, loop: _Loop, new: dict[Node, Node]) -> dict[Node, Node]:
        """Return the group's results, old node → new; nothing for a group of one step, which stays as it is."""
        steps = sorted({s for root in loop.roots for s in self.bodies[root].steps}, key=self.place.__getitem__)
        steps += [r for root in loop.roots for r in self.readers[root] if isinstance(r.op, Item)]
        if len([s for s in steps if not isinstance(s.op, Item)]) < 2:
            return {}
        results = [r for root in loop.roots for r in self._results(root)]
        inside: dict[Node, Node] = {}
        for step in self._anchor_first(loop, steps):
            operands = tuple(inside[i] if i in inside else new.get(i, i) for i in step.inputs)
            inside[step] = _with_inputs(step, operands)
        main = loop.roots[0] if loop.anchor is None else loop.anchor
        made = inheriting(
            lambda: main.origin.rewritten("group", main.id),
            lambda: group(list(inside.values()), [inside[r] for r in results]),
        )
        if isinstance(made.type, TensorType):
            return {results[0]: made}
        return {r: Node(Item(i), (made,), origin=r.origin) for i, r in enumerate(results)}

    def _anchor_first(self, loop: _Loop, steps: list[Node]) -> list[Node]:
        return sorted(steps, key=lambda s: s is not loop.anchor)

    def _results(self, root: Node) -> list[Node]:
        if isinstance(root.type, TensorType):
            return [root]
        return [r for r in self.readers[root] if isinstance(r.op, Item)]


def _with_inputs(node: Node, inputs: tuple[Node, ...]) -> Node:
    same = all(a is b for a, b in zip(inputs, node.inputs, strict=True))
    return node if same else Node(node.op, inputs, origin=node.origin)


def _agrees(body: _Inside, tile: Tile, per_window: bool, anchor: Node | None) -> bool:
    """Tell whether an operand in registers fits a loop over these windows that may have an anchor already."""
    if body.anchor is not None and (anchor is not None or tile != _NO_TILE):
        return False
    if _NO_TILE in (body.tile, tile):
        return anchor is None or body.tile == _NO_TILE
    return body.tile == tile and body.coarse == per_window


def _may_sum(node: Node, body: _Inside) -> bool:
    """Tell whether an operand in registers is there when a sum is taken: behind an anchor only what is stored is."""
    return not reduces(node) or body.anchor is None


def _domain(node: Node, body: _Inside) -> Shape:
    """Return the shape that a value's loop runs over: the elements', where windows are tiled."""
    shape = node.inputs[0].shape if reduces(node) else node.shape
    if not body.coarse:
        return shape
    n, h, w, c = shape
    return (n, known(h) * body.tile[0], known(w) * body.tile[1], c)


def _windows(node: Node) -> tuple[Tile, bool]:
    if isinstance(node.op, (MaxPool2D, MaxPool2DAdjoint)):
        return node.op.size, isinstance(node.op, MaxPool2D)
    return _NO_TILE, False


def _widens(node: Node) -> bool:
    """Tell whether a node is its operand in a wider type."""
    return isinstance(node.op, Cast) and DTYPES[node.dtype] > DTYPES[node.inputs[0].dtype]


def _cost(node: Node) -> int:
    """Return the operations for each element, roughly."""
    if isinstance(node.op, Elementwise):
        return node.op.flops_per_element
    return 2
