"""Boxes: what a node, or several as one, are called on a picture, and what stands under the name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from minigraph.ir import Constant, Input, Item, Node, Variable
from minigraph.ops.region import Function, steps_of
from minigraph.viz.diff import ADDED, CHANGED, GLYPHS, KEPT, REMOVED
from minigraph.viz.lanes import BACKWARD, FORWARD, UPDATE
from minigraph.viz.style import KINDS
from minigraph.viz.text import constant_text, fused_ops, notes, type_text
from minigraph.viz.view import Group, View

_RANK = (
    "matmul",
    "fused",
    "function",
    "norm",
    "reduction",
    "elementwise",
)  # what a collapsed layer is coloured by, first found
_LISTED = 5  # op names in a collapsed layer


@dataclass(frozen=True)
class Box:
    """One box: `kind` chooses its colours ("bare": no box, only words), `scope` its cluster, `layer` what it shows.

    `mark` says whether it is new, where graphs are compared; `frame` is the id of the fused node that it lies in.
    `fixed`: it depends on parameters alone, and stands beside the line in which data flows.
    """

    id: str
    title: str
    lines: tuple[str, ...]
    kind: str
    lane: str
    scope: str
    classes: str
    layer: str = ""
    mark: str = ""
    frame: str = ""
    fixed: bool = False


class Boxes:
    """Makes the boxes of a view; their ids begin with `prefix`."""

    def __init__(self, view: View, prefix: str) -> None:
        self.view = view
        self.prefix = prefix
        self.number = {node: i for i, node in enumerate(view.graph.nodes)}
        self.data: set[Node] = set()  # what depends on an input
        for node in view.graph.nodes:
            if isinstance(node.op, Input) or not self.data.isdisjoint(node.inputs):
                self.data.add(node)

    def node(self, node: Node) -> Box:
        """Return the box of one node."""
        view, category = self.view, node.op.category
        lane, scope, title = view.lane[node], view.scope[node], node.label
        kind, lines = KINDS.get(category, "other"), [notes(node)]
        if category in ("input", "variable", "constant"):
            untrained = isinstance(node.op, Variable) and not node.op.trainable
            lines = [type_text(node.type), "not trained" if untrained else ""]
        elif lane != FORWARD:
            kind = "gradient" if lane == BACKWARD else "update"
        if isinstance(node.op, Function):
            inside = sum(not isinstance(step.op, (Constant, Item)) for step in node.op.body)
            lines.append(f"function of {inside} op{'s' * (inside != 1)}")
        if fused_ops(node):
            title, lines = " · ".join(op.name for op in fused_ops(node)), ["fused"]
        mark = view.marks.nodes.get(node, "")
        return Box(
            f"{self.prefix}n{self.number[node]}", title, _words([*lines, self._by([node])]), kind, lane, scope,
            _classes(category, lane, mark), scope, mark, fixed=node not in self.data,
        )  # fmt: skip

    def frame(self, node: Node) -> tuple[Box, dict[Node, Box]]:
        """Return a fused node as a frame, and the boxes inside it: one for each of its steps."""
        whole = self.node(node)
        mark = KEPT if whole.mark == KEPT else ""  # that it is new, the frame says
        inner = {
            step: Box(
                f"{whole.id}_{i}", step.label, _words([notes(step)]), KINDS.get(step.op.category, "other"), whole.lane,
                whole.scope, _classes("inner", "", mark), "", mark, whole.id, whole.fixed,
            )
            for i, step in enumerate(steps_of(node))
        }  # fmt: skip
        return replace(whole, title=node.op.name, lines=whole.lines[1:]), inner

    def group(self, key: Group, nodes: Sequence[Node]) -> Box:
        """Return the box of several nodes."""
        drawn = [n for n in nodes if n not in self.view.repeats.drawn]
        mark, counts = _overall([self.view.marks.nodes.get(n, "") for n in drawn])
        if key.title:
            title, lines, scope, layer = key.title, [f"{len(drawn)} nodes"], key.scope, ""
        else:
            title, scope, layer = self._name(key), key.scope.rpartition("/")[0], key.scope
            data = [n for n in drawn if n in self.data] if key.lane == FORWARD else []
            lines = [*_summary(drawn, data or drawn, title), self._targets(key)]
        kinds = {KINDS.get(n.op.category, "other") for n in drawn}
        kind = {BACKWARD: "gradient", UPDATE: "update"}.get(key.lane) or next((k for k in _RANK if k in kinds), "other")
        return Box(
            f"{self.prefix}g{self.number[nodes[0]]}", title, _words([*lines, counts, self._by(drawn)]), kind, key.lane,
            scope, _classes("scope", key.lane, mark), layer, mark, fixed=self.data.isdisjoint(nodes),
        )  # fmt: skip

    def output(self, place: int, name: str, node: Node) -> Box:
        """Return the box that shows an output."""
        mark = self.view.marks.ends.get(("output", name), "")
        lines, classes = (f"output {type_text(node.type)}",), _classes("output", "", mark)
        return Box(f"{self.prefix}out{place}", name, lines, "input", FORWARD, "", classes, "", mark)

    def update(self, target: Node) -> Box:
        """Return the box that ends an update."""
        mark = self.view.marks.ends.get(("update", target.id), "")
        id, title, scope = f"{self.prefix}upd{self.number[target]}", f"{target.label} ←", self.view.scope[target]
        return Box(id, title, ("update",), "update", UPDATE, scope, _classes("update", "", mark), "", mark)

    def bare(self, constant: Node, reader: Box, lane: str) -> Box:
        """Return the word that stands for a small constant beside what reads it."""
        assert isinstance(constant.op, Constant)
        id = f"{self.prefix}n{self.number[constant]}_{reader.id.removeprefix(self.prefix)}"
        # What has a shape is the same value everywhere.
        text = " ".join(_words([constant_text(constant.op) or "", type_text(constant.type) if constant.shape else ""]))
        return Box(id, text, (), "bare", lane, reader.scope, "constant", fixed=True)

    def _name(self, key: Group) -> str:
        name = self.view.repeats.badges.get(key.scope) or key.scope.rpartition("/")[2]
        if key.lane == FORWARD:
            return name
        kind = "gradient" if key.lane == BACKWARD else "update"
        return f"{name} · {kind}" if name else f"{kind}s"

    def _by(self, nodes: Iterable[Node]) -> str:
        """Say which rule made or replaced nodes, where it is one rule."""
        rules = {self.view.marks.rules.get(n, "") for n in nodes} - {""}
        return f"by {rules.pop()}" if len(rules) == 1 else ""

    def _targets(self, key: Group) -> str:
        """Say how many variables a collapsed layer's updates change."""
        if key.lane != UPDATE:
            return ""
        updates = self.view.graph.updates.items()
        count = sum(self.view.box[v] == key for t, v in updates if t not in self.view.repeats.drawn)
        return f"updates {count} variable{'s' * (count != 1)}" if count else ""


def _words(lines: Iterable[str]) -> tuple[str, ...]:
    return tuple(line for line in lines if line)


def _overall(marked: Sequence[str]) -> tuple[str, str]:
    """Return the mark of a box of several nodes, and what is new in it where that is not all."""
    if len(set(marked)) == 1:
        return marked[0], ""
    counts = Counter(marked)
    return CHANGED, " ".join(f"{GLYPHS[m]}{counts[m]}" for m in (ADDED, REMOVED, CHANGED) if counts[m])


def _classes(category: str, lane: str, mark: str) -> str:
    return " ".join(_words([category, {BACKWARD: "grad", UPDATE: "upd"}.get(lane, ""), mark]))


def _summary(nodes: Sequence[Node], told: Sequence[Node], title: str) -> tuple[str, ...]:
    """Return the lines of a collapsed layer: one op with its attributes, or how often it has which; its parameters.

    The ops are those of the nodes `told`: what is done with data, beside which arithmetic on parameters is left out.
    """
    inner = [n for n in told if n.op.category not in ("input", "variable", "constant")]
    if len(inner) == 1 and not fused_ops(inner[0]):
        name = inner[0].label
        return ("" if name == title else name, notes(inner[0]), _parameters(nodes))
    counts = Counter("·".join(op.name for op in fused_ops(n)) or n.label for n in inner)
    names = [f"{name} ×{count}" if count > 1 else name for name, count in counts.items()]
    return (" · ".join(names[:_LISTED] + (["…"] if len(names) > _LISTED else [])), _parameters(nodes))


def _parameters(nodes: Iterable[Node]) -> str:
    sizes = [n.tensor_type.size for n in nodes if isinstance(n.op, Variable) and n.op.trainable]
    total = sum(size for size in sizes if isinstance(size, int))
    return f"{total:,} parameters" if total else ""
