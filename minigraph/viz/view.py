"""The view of a graph: which nodes a box stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from minigraph.ir import Graph, Node
from minigraph.viz.diff import UNMARKED, Marks
from minigraph.viz.repeats import Repeats
from minigraph.viz.text import is_drawn


@dataclass(frozen=True)
class Group:
    """A box for several nodes: those of a scope in one lane, an expression (its title is a formula), or a region."""

    scope: str
    lane: str
    title: str = ""
    number: int = 0


# What a box stands for.
Key: TypeAlias = "Node | Group"


@dataclass(frozen=True)
class View:
    """What is drawn of a graph: the box of each node, the blocks that stand for others, and what changed.

    `opened`: fused nodes are drawn as frames around what is in them.
    """

    graph: Graph
    lane: Mapping[Node, str]
    scope: Mapping[Node, str]
    box: Mapping[Node, Key]
    repeats: Repeats = field(default_factory=Repeats)
    marks: Marks = UNMARKED
    opened: bool = True

    @property
    def compared(self) -> bool:
        """Whether it is one of two views that are compared."""
        return self.marks is not UNMARKED

    def grouped(self, groups: Mapping[Group, Sequence[Node]]) -> View:
        """Return the view in which each group is one box, where it is more than one node."""
        box = dict(self.box)
        for key, nodes in groups.items():
            if len({self.repeats.twin(n) for n in nodes if is_drawn(n)}) > 1:
                box.update(dict.fromkeys(nodes, key))
        return replace(self, box=box)
