"""The memory plan: in which order nodes run, how long each value lives, and where in one arena it lies.

Printable, checkable: `print(plan)` shows each step, `plan.check()` proves that no two live buffers overlap.
"""

from __future__ import annotations

import bisect
import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minigraph.backends.base import Needs
from minigraph.errors import GraphError
from minigraph.ir.graph import Graph, execution_order
from minigraph.ir.leaves import Constant, Input, Item, Variable
from minigraph.ir.node import Node
from minigraph.ir.types import TensorType, known
from minigraph.ops.elementwise import Elementwise
from minigraph.ops.group import Group

ALIGNMENT = 64  # bytes: a cache line, and what vector units want
# Above this many buffers only the linear-time strategy runs: the other takes twice the time a buffer for twice as many,
# and gains less and less.
_SMALL = 1000

# A value: a node, and which of its results.
Value = tuple[Node, int]


@dataclass(slots=True)
class Slot:
    """A piece of the arena: `nbytes` from `offset` on, in use from step `start` to step `end`, both included."""

    what: str
    nbytes: int
    start: int
    end: int
    offset: int = -1


@dataclass(frozen=True, slots=True)
class PlanStep:
    """One kernel call: the node, its scratch memory, and whether it writes over an operand."""

    node: Node
    workspace: Slot | None
    overwrites: Node | None


@dataclass
class Plan:
    """Steps in order, and the slot of every value that lives in the arena.

    `written` are the values that need none: updates that are written over their variable as they are computed.
    """

    graph: Graph
    steps: list[PlanStep]
    slots: dict[Value, Slot]
    roots: dict[Node, Value]
    written: dict[Value, Node] = field(default_factory=dict)
    peak: int = 0
    lower_bound: int = 0
    strategy: str = ""
    all_slots: list[Slot] = field(default_factory=list)

    def check(self) -> Plan:
        """Return the plan if no two slots that live at the same time overlap; else raise a GraphError."""
        # Play the steps through on a map of the arena, a cell a cache line: each cell has one owner at a time.
        owner = np.full(self.peak // ALIGNMENT, -1)
        starts: dict[int, list[int]] = defaultdict(list)
        ends: dict[int, list[int]] = defaultdict(list)
        for i, slot in enumerate(self.all_slots):
            starts[slot.start].append(i)
            ends[slot.end].append(i)
        for step in range(-1, len(self.steps) + 1):
            for i in starts[step]:
                cells = self._cells(self.all_slots[i], owner)
                if (cells >= 0).any():
                    other = self.all_slots[cells.max()]
                    raise GraphError(
                        f"plan: {self.all_slots[i].what} and {other.what} overlap at step {step}",
                        got=f"{self.all_slots[i]} and {other}",
                        where="",
                    )
                cells[:] = i
            for i in ends[step]:
                self._cells(self.all_slots[i], owner)[:] = -1
        return self

    def _cells(self, slot: Slot, owner: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if slot.offset < 0 or slot.offset % ALIGNMENT or slot.offset + slot.nbytes > self.peak:
            raise GraphError("plan: a slot lies outside the arena", expected=f"0 … {self.peak}", got=slot, where="")
        return owner[slot.offset // ALIGNMENT : (slot.offset + slot.nbytes) // ALIGNMENT]

    def __str__(self) -> str:
        number = {node: i for i, node in enumerate(self.graph.nodes)}
        lines = [
            f"plan: {len(self.steps)} kernel calls, peak {self.peak:,} bytes (lower bound {self.lower_bound:,}, "
            f"{self.strategy})",
            f"{'step':>4}  {'node':<34}{'offset':>12}{'bytes':>12}  {'lives':<12}notes",
        ]
        for i, step in enumerate(self.steps):
            name = f"%{number[step.node]} {step.node.op.name}"
            notes = f"over %{number[step.overwrites]}" if step.overwrites is not None else ""
            if step.workspace is not None:
                notes += f" workspace {step.workspace.nbytes:,} at {step.workspace.offset:,}"
            for index in range(_results(step.node)):
                variable = self.written.get((step.node, index))
                if variable is not None:
                    lines.append(f"{i:>4}  {name:<34}{'':>24}  {'':<12}written to {variable.label}")
                    continue
                slot = self.slots[step.node, index]
                lines.append(
                    f"{i:>4}  {name:<34}{slot.offset:>12,}{slot.nbytes:>12,}  {f'{slot.start}–{slot.end}':<12}{notes}"
                )
        return "\n".join(lines)


def _results(node: Node) -> int:
    return 1 if isinstance(node.type, TensorType) else len(node.type.items)


def _nbytes(node: Node, index: int) -> int:
    type = node.type if isinstance(node.type, TensorType) else node.type.items[index]
    return -(-known(type.nbytes, "a planned value's size") // ALIGNMENT) * ALIGNMENT


def make_plan(
    graph: Graph, needs: Callable[[Node], Needs], commits_in_place: bool = False, updates_last: bool = False
) -> Plan:
    """Return the memory plan of a bound graph; `needs` says what each kernel asks for.

    Inputs lie in the arena too, and may be overwritten after their last use; variables and constants do not. Of two
    orders, the graph's own and the one that uses up adjoints early, the one that needs less memory is taken.

    commits_in_place: updates are written over their variables where all that reads the old value has run before. For
    whoever runs a step as a whole, or not at all.
    updates_last: what is computed for updates alone, element by element, comes after all else: for whoever makes one
    kernel of all of it. Gradients are kept until then.
    """
    asked = {node: needs(node) for node in graph.nodes if not isinstance(node.op, (Input, Variable, Constant))}
    roots = _alias_roots(graph.nodes, asked)
    orders: list[Sequence[Node]] = [graph.nodes]
    if len(graph.updates) > 1:
        orders.append(execution_order(graph))
    if updates_last:
        orders = [_with_updates_last(graph, order) for order in orders]
    plans = [_planned(graph, order, asked, roots, commits_in_place) for order in orders]
    promising, *others = sorted(plans, key=lambda plan: plan.lower_bound)
    _place(promising)
    for plan in others:
        if plan.lower_bound > promising.peak:
            return promising
        _place(plan)
    return min(plans, key=lambda plan: plan.peak)


def _planned(
    graph: Graph, order: Sequence[Node], asked: Mapping[Node, Needs], roots: dict[Node, Value], in_place: bool
) -> Plan:
    """Return the plan of one order, its slots not placed yet."""
    if in_place:
        order = _updates_after_readers(graph, order)
    calls = [node for node in order if node in asked and asked[node].alias is None]
    last_use = _last_uses(graph, calls, roots)
    plan = Plan(graph, [], {}, roots)
    if in_place:
        plan.written = _written(graph, calls, asked, roots)
    for node in graph.inputs:
        plan.slots[node, 0] = _new_slot(plan, node.label, _nbytes(node, 0), -1, last_use.get((node, 0), -1))
    for step, node in enumerate(calls):
        _plan_call(plan, node, step, asked[node], last_use)
    plan.lower_bound = _most_alive(plan.all_slots, len(calls))
    return plan


def _with_updates_last(graph: Graph, order: Sequence[Node]) -> list[Node]:
    """Return an order in which loops whose results only updates need come last, in the order that they had."""
    readers: dict[Node, list[Node]] = defaultdict(list)
    for node in order:
        for operand in node.inputs:
            readers[operand].append(node)
    outputs, late = set(graph.outputs.values()), set[Node]()
    for node in reversed(order):
        loop = isinstance(node.op, (Elementwise, Item)) or (isinstance(node.op, Group) and node.op.anchor is None)
        if loop and node not in outputs and all(reader in late for reader in readers[node]):
            late.add(node)
    return sorted(order, key=lambda node: node in late)


def _updates_after_readers(graph: Graph, order: Sequence[Node]) -> Sequence[Node]:
    """Return an order in which an update comes after all else that reads its variable, as near to `order` as may be.

    Updates that read each other's variables cannot all come last: then the order stays as it is.
    """
    place = {node: i for i, node in enumerate(order)}
    after: dict[Node, list[Node]] = defaultdict(list)
    waits = [len(node.inputs) for node in order]
    for node in order:
        for operand in node.inputs:
            after[operand].append(node)
    for target, value in graph.updates.items():
        maker = value.inputs[0] if isinstance(value.op, Item) else value
        for reader in [r for r in after[target] if r is not maker]:
            after[reader].append(maker)
            waits[place[maker]] += 1
    ready = [i for i, number in enumerate(waits) if number == 0]
    arranged: list[Node] = []
    while ready:
        node = order[heapq.heappop(ready)]
        arranged.append(node)
        for reader in after[node]:
            waits[place[reader]] -= 1
            if waits[place[reader]] == 0:
                heapq.heappush(ready, place[reader])
    return arranged if len(arranged) == len(order) else order


def _written(
    graph: Graph, calls: Sequence[Node], asked: Mapping[Node, Needs], roots: Mapping[Node, Value]
) -> dict[Value, Node]:
    """Return the updates that may be written over their variables: nothing reads the old value later, nor elsewhere."""
    step = {node: i for i, node in enumerate(calls)}
    readers: dict[Value, list[Node]] = defaultdict(list)
    for node in calls:
        for operand in node.inputs:
            readers[roots[operand]].append(node)
    ends = Counter(roots[node] for node in (*graph.outputs.values(), *graph.updates.values()))
    written: dict[Value, Node] = {}
    for target, value in graph.updates.items():
        maker = roots[value][0]
        if maker not in step or ends[roots[value]] > 1 or (target, 0) in ends:
            continue
        own = [i for i, operand in enumerate(maker.inputs) if roots[operand] == (target, 0)]
        harmless = all(i in asked[maker].inplace and maker.inputs[i] is target for i in own)
        if harmless and all(step[reader] < step[maker] for reader in readers[target, 0] if reader is not maker):
            written[roots[value]] = target
    return written


def _new_slot(plan: Plan, what: str, nbytes: int, start: int, end: int) -> Slot:
    slot = Slot(what, nbytes, start, end)
    plan.all_slots.append(slot)
    return slot


def _alias_roots(order: Sequence[Node], asked: Mapping[Node, Needs]) -> dict[Node, Value]:
    """Return for each node the value whose memory it is: itself, or what it is a view of."""
    roots: dict[Node, Value] = {}
    for node in order:
        alias = asked[node].alias if node in asked else None
        if alias is None:
            roots[node] = (node, 0)
        elif isinstance(node.op, Item):
            roots[node] = (node.inputs[0], node.op.index)
        else:
            roots[node] = roots[node.inputs[alias]]
    return roots


def _last_uses(graph: Graph, calls: Sequence[Node], roots: Mapping[Node, Value]) -> dict[Value, int]:
    """Return the last step that reads each value; outputs and update values live to the end."""
    last: dict[Value, int] = {}
    for step, node in enumerate(calls):
        for operand in node.inputs:
            last[roots[operand]] = step
    for node in (*graph.outputs.values(), *graph.updates.values()):
        last[roots[node]] = len(calls)
    return last


def _plan_call(plan: Plan, node: Node, step: int, needs: Needs, last_use: Mapping[Value, int]) -> None:
    taken = _overwritable(plan, node, step, needs) if needs.inplace else None
    for index in range(_results(node)):
        value = (node, index)
        if value in plan.written:
            continue
        end = last_use.get(value, step)
        if taken is not None:
            slot = plan.slots[plan.roots[taken]]
            slot.end = end
        else:
            slot = _new_slot(plan, node.label, _nbytes(node, index), step, end)
        plan.slots[value] = slot
    workspace = None
    if needs.workspace:
        size = -(-needs.workspace // ALIGNMENT) * ALIGNMENT
        workspace = _new_slot(plan, f"workspace of {node.label}", size, step, step)
    plan.steps.append(PlanStep(node, workspace, taken))


def _overwritable(plan: Plan, node: Node, step: int, needs: Needs) -> Node | None:
    """Return an operand whose memory the result may take over: nothing reads it later, and it has the result's form."""
    if (node, 0) in plan.written:
        return None
    for index in needs.inplace:
        operand = node.inputs[index]
        slot = plan.slots.get(plan.roots[operand])
        if slot is None or slot.end != step or operand.type != node.type:
            continue
        # Another operand that is a differently shaped view of the same memory would be overwritten while it is read.
        same_memory = [i for i in node.inputs if plan.slots.get(plan.roots[i]) is slot]
        if all(i.type == node.type for i in same_memory):
            return operand
    return None


# --- where slots lie ----------------------------------------------------------------------------------------------


def _place(plan: Plan) -> None:
    """Give each slot its offset: by the better of two strategies, the second one for small plans only."""
    best = _best_fit(plan.all_slots)
    plan.strategy = "best fit in order of time"
    if len(plan.all_slots) <= _SMALL and best[1] > plan.lower_bound:
        other = _largest_first(plan.all_slots)
        if other[1] < best[1]:
            best = other
            plan.strategy = "largest first"
    for slot, offset in zip(plan.all_slots, best[0], strict=True):
        slot.offset = offset
    plan.peak = best[1]


def _most_alive(slots: Sequence[Slot], steps: int) -> int:
    """Return the most bytes alive at one step: no plan with this order can need less."""
    change = [0] * (steps + 3)
    for slot in slots:
        change[slot.start + 1] += slot.nbytes
        change[slot.end + 2] -= slot.nbytes
    most = alive = 0
    for delta in change:
        alive += delta
        most = max(most, alive)
    return most


def _best_fit(slots: Sequence[Slot]) -> tuple[list[int], int]:
    """Allocate in order of time, each slot in the smallest hole that holds it (Knuth, TAOCP vol. 1, 2.5)."""
    offsets = [0] * len(slots)
    ends: dict[int, list[int]] = defaultdict(list)
    holes = _Holes()
    released = -2
    for i in sorted(range(len(slots)), key=lambda i: slots[i].start):
        slot = slots[i]
        for step in range(released + 1, slot.start):
            for j in ends.pop(step, ()):
                holes.add(offsets[j], slots[j].nbytes)
        released = max(released, slot.start - 1)
        if slot.nbytes:  # an empty array lies anywhere
            offsets[i] = holes.take(slot.nbytes)
            ends[slot.end].append(i)
    return offsets, holes.top


class _Holes:
    """The free pieces of an arena that ends at `top`, found by their sizes: each in logarithmic time."""

    def __init__(self) -> None:
        self.top = 0
        self.size: dict[int, int] = {}  # offset of a hole → its size
        self.start: dict[int, int] = {}  # end of a hole → its offset
        self.sizes: list[int] = []  # in order
        self.offsets: dict[int, list[int]] = {}  # size → a heap of the holes that had it; some are gone by now

    def add(self, offset: int, size: int) -> None:
        """Free a piece; it joins the holes next to it."""
        if offset + size in self.size:
            size += self._remove(offset + size)
        if offset in self.start:
            offset = self.start[offset]
            size += self._remove(offset)
        self._put(offset, size)

    def _put(self, offset: int, size: int) -> None:
        self.size[offset] = size
        self.start[offset + size] = offset
        if size not in self.offsets:
            bisect.insort(self.sizes, size)
            self.offsets[size] = []
        heapq.heappush(self.offsets[size], offset)

    def take(self, nbytes: int) -> int:
        """Return the offset of a free piece: in the smallest hole that holds it, else at the end of the arena."""
        offset = self._smallest(nbytes)
        if offset is None:
            offset = self.start.get(self.top, self.top)  # grow the last hole, if it touches the end
        end = offset + nbytes
        left = self._remove(offset) - nbytes if offset in self.size else 0
        if left > 0:
            self._put(end, left)
        if end > self.top:
            self.top = end
        return offset

    def _smallest(self, nbytes: int) -> int | None:
        """Return the offset of the smallest hole of so many bytes or more, the first one of several; None without."""
        place = bisect.bisect_left(self.sizes, nbytes)
        while place < len(self.sizes):
            size = self.sizes[place]
            offsets = self.offsets[size]
            while offsets and self.size.get(offsets[0]) != size:
                heapq.heappop(offsets)
            if offsets:
                return offsets[0]
            del self.sizes[place], self.offsets[size]
        return None

    def _remove(self, offset: int) -> int:
        """Forget a hole and return its size; its place in the heap is found to be out of date later."""
        size = self.size.pop(offset)
        del self.start[offset + size]
        return size


def _largest_first(slots: Sequence[Slot]) -> tuple[list[int], int]:
    """Place the largest slots first, each at the lowest offset free for its whole life (Pisarchyk & Lee 2020)."""
    offsets = [0] * len(slots)
    placed: list[tuple[int, int, int, int]] = []  # offset, end, and life of each slot, in order
    top = 0
    for i in sorted(range(len(slots)), key=lambda i: (-slots[i].nbytes, slots[i].start)):
        nbytes, start, end = slots[i].nbytes, slots[i].start, slots[i].end
        offset = 0
        for low, high, first, last in placed:
            if first <= end and start <= last and offset < high:
                if offset + nbytes <= low:
                    break
                offset = high
        offsets[i] = offset
        bisect.insort(placed, (offset, offset + nbytes, start, end))
        top = max(top, offset + nbytes)
    return offsets, top
