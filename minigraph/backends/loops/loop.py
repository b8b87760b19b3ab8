"""What one node's loop is, whoever writes it down: its steps, what it stores and sums, its domain."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from minigraph.backends.loops.body import is_number, shape_of
from minigraph.backends.loops.domain import Domain
from minigraph.backends.loops.expressions import FLOATS, expressible
from minigraph.ir.leaves import Item
from minigraph.ir.node import Node
from minigraph.ir.types import TensorType
from minigraph.ops.fused import by_element
from minigraph.ops.group import ANCHORS, Group, pools, reduces, sums_rows, tiles
from minigraph.ops.pool import MaxPool2D, MaxPool2DAdjoint
from minigraph.ops.region import steps_of
from minigraph.ops.shape import BroadcastTo


def computes(node: Node, floats: Sequence[str] = FLOATS) -> bool:
    """Tell whether a generated loop computes an op, as a step of a group or alone."""
    if pools(node) or reduces(node):
        fits = tiles(node) if pools(node) else sums_rows(node)
        return fits and all(i.tensor_type.dtype in floats for i in node.inputs)
    if not isinstance(node.type, TensorType) or not expressible(node, floats):
        return False
    return isinstance(node.op, BroadcastTo) or by_element(node.op, node.rank)


class Loop:
    """A node that is one loop, with or without an anchor before it."""

    cuts_rows = True  # whether one long row is run through as many: what caches of processors like

    def __init__(self, node: Node) -> None:
        self.node = node
        self.steps = steps_of(node, node.origin) if isinstance(node.op, Group) else [node]
        self.results = self._results()
        self.anchor = self.steps[0] if isinstance(self.steps[0].op, ANCHORS) else None
        self.loop_steps = [s for s in self.steps if s is not self.anchor and not isinstance(s.op, Item)]

    def _results(self) -> list[tuple[Node, int]]:
        """Return what is stored: (step, which of its results)."""
        if not isinstance(self.node.op, Group):
            types = [self.node.type] if isinstance(self.node.type, TensorType) else self.node.type.items
            return [(self.node, i) for i in range(len(types))]
        values = [*self.node.inputs, *self.steps]
        found = [values[place] for place in self.node.op.results]
        return [(v.inputs[0], v.op.index) if isinstance(v.op, Item) else (v, 0) for v in found]

    @cached_property
    def stored(self) -> list[Node]:
        """The results that are arrays over the domain, or over its windows: not sums."""
        return [step for step, _ in self.results if not reduces(step)]

    @cached_property
    def domain(self) -> Domain:
        """What the loop runs over."""
        tile = next((s.op.size for s in self.steps if isinstance(s.op, (MaxPool2D, MaxPool2DAdjoint))), (1, 1))
        sums = [s for s in self.steps if reduces(s)]
        root = self.results[0][0]
        shape = shape_of(sums[0].inputs[0] if sums else root)
        if tile != (1, 1):
            fine = next(s for s in self.steps if isinstance(s.op, (MaxPool2D, MaxPool2DAdjoint)))
            shape = shape_of(fine.inputs[0])
        keep_last = self.anchor is not None or any(len(s.op.axes) < s.inputs[0].rank for s in sums)  # type: ignore[attr-defined]
        domain = Domain.over(shape, tile, [shape, *self._read_shapes()], keep_last)
        return domain.flattened() if self.cuts_rows and not keep_last else domain

    def _read_shapes(self) -> list[tuple[int, ...]]:
        """Return the shapes of what the loop reads: not those that only its anchor does."""
        read = {i for s in self.loop_steps for i in s.inputs}
        return [shape_of(i) for i in self.node.inputs if i in read and not is_number(i)]

    @cached_property
    def overwritable(self) -> tuple[int, ...]:
        """Operands of which each element is read before the same element of a result is written, and not again."""
        barred: set[Node] = set(self.anchor.inputs) if self.anchor is not None else set()
        if self.anchor is not None:
            for step in self.steps:
                if reduces(step):
                    barred |= self._reads(step)
        read = {i for s in self.loop_steps for i in s.inputs}
        full = {shape_of(s) for s in self.stored}
        return tuple(i for i, n in enumerate(self.node.inputs) if n in read and n not in barred and shape_of(n) in full)

    def _reads(self, step: Node) -> set[Node]:
        """Return all operands that a sum is made of, behind the stored values."""
        found, stack = set(), [step]
        while stack:
            for operand in stack.pop().inputs:
                if operand in self.node.inputs:
                    found.add(operand)
                elif operand not in self.stored:
                    stack.append(operand)
        return found

    @cached_property
    def used(self) -> list[int]:
        """The operands that have an address in the struct."""
        return [i for i, n in enumerate(self.node.inputs) if not is_number(n)]

    def _pointers(self) -> dict[Node, str]:
        return {self.node.inputs[i]: f"in{i}" for i in reversed(self.used)}


def dtype_of(step: Node) -> str:
    """Return the dtype of a step's result, or of its first."""
    return step.dtype if isinstance(step.type, TensorType) else step.type.items[0].dtype
