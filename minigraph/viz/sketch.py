"""The sketch of a picture: boxes and edges with their words, before any colour or DOT."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from minigraph.ir import Constant, Item, Node, TupleType, Variable
from minigraph.viz.collapse import Key, View, is_drawn
from minigraph.viz.lanes import BACKWARD, FORWARD, UPDATE, prefixes
from minigraph.viz.style import KINDS
from minigraph.viz.text import constant_text, is_inline, notes, type_text

_RANK = ("matmul", "fused", "norm", "reduction", "elementwise")  # what a collapsed layer is coloured by, first found
_LISTED = 5  # op names in a collapsed layer
_SAVED = 12  # saved values drawn into one box; more are counted in it, since such a bundle tells nothing and takes long


@dataclass(frozen=True)
class Box:
    """One box: `kind` chooses its colours ("bare": no box, only words), `scope` its cluster, `layer` what it shows."""

    id: str
    title: str
    lines: tuple[str, ...]
    kind: str
    lane: str
    scope: str
    classes: str
    layer: str = ""


@dataclass(frozen=True)
class Edge:
    """One arrow. `saved`: it carries a value of the forward lane into the backward or the update lane."""

    tail: str
    head: str
    label: str
    lane: str
    saved: bool


@dataclass
class Sketch:
    """All boxes and edges, in the order of the graph; `badges` names the scopes that stand for several."""

    boxes: dict[str, Box] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)
    badges: dict[str, str] = field(default_factory=dict)


def sketch(view: View) -> Sketch:
    """Return the boxes and edges that a view of a graph consists of."""
    return _Sketcher(view).run()


class _Sketcher:
    def __init__(self, view: View) -> None:
        self.view = view
        self.graph = view.graph
        self.number = {node: i for i, node in enumerate(view.graph.nodes)}
        self.result = Sketch(badges=view.repeats.badges)
        self.ids: dict[Key, str] = {}
        self.labels: dict[tuple[str, str, str, bool], dict[str, int]] = {}  # edge → its labels, each with its count
        self.seen: set[tuple[Node, Node, int]] = set()

    def run(self) -> Sketch:
        self.boxes()
        for node in self.graph.nodes:
            if not isinstance(node.op, Item):
                for place, operand in enumerate(node.inputs):
                    self.edge(operand, node, place)
        for place, (name, node) in enumerate(self.graph.outputs.items()):
            self.output(f"out{place}", name, node)
        for target, value in self.graph.updates.items():
            self.update(target, value)
        counts = Counter(head for _, head, _, saved in self.labels if saved)
        crowded = {head for head, count in counts.items() if count > _SAVED}
        for id in crowded:
            box = self.result.boxes[id]
            self.result.boxes[id] = replace(box, lines=(*box.lines, f"reads {counts[id]} saved values"))
        for (tail, head, lane, saved), labels in self.labels.items():
            if not (saved and head in crowded):
                self.result.edges.append(Edge(tail, head, _joined(labels), lane, saved))
        return self.result

    def boxes(self) -> None:
        members: dict[Key, list[Node]] = {}
        for node in self.graph.nodes:
            if is_drawn(node):
                members.setdefault(self.view.box[node], []).append(node)
        for key, nodes in members.items():
            if isinstance(key, Node):
                self.add(key, self.node_box(key))
            else:
                self.add(key, self.group_box(key, nodes))

    def add(self, key: Key, box: Box) -> None:
        self.ids[key] = box.id
        self.result.boxes[box.id] = box

    def node_box(self, node: Node) -> Box:
        lane, scope = self.view.lane[node], self.view.scope[node]
        kind, lines = KINDS.get(node.op.category, "other"), [notes(node)]
        if node.op.category in ("input", "variable", "constant"):
            lines = [type_text(node.type)]
            if isinstance(node.op, Variable) and not node.op.trainable:
                lines.append("not trained")
        elif lane != FORWARD:
            kind = "gradient" if lane == BACKWARD else "update"
        id = f"n{self.number[node]}"
        return Box(
            id, node.label, tuple(filter(None, lines)), kind, lane, scope, _classes(node.op.category, lane), scope
        )

    def group_box(self, key: tuple[str, str], nodes: list[Node]) -> Box:
        prefix, lane = key
        name = self.view.repeats.badges.get(prefix) or prefix.rpartition("/")[2]
        drawn = [n for n in nodes if n not in self.view.repeats.drawn]
        if lane == FORWARD:
            kinds = {KINDS.get(n.op.category, "other") for n in drawn}
            kind = next((k for k in _RANK if k in kinds), "other")
            title = name
        else:
            kind = "gradient" if lane == BACKWARD else "update"
            title = f"{name} · {kind}" if name else f"{kind}s"
        lines = _summary(drawn, title) + ((self.targets(key),) if lane == UPDATE else ())
        id = f"g{self.number[nodes[0]]}"
        outer = prefix.rpartition("/")[0]
        return Box(
            id, title, tuple(filter(None, lines)), kind, lane, outer, f"scope {_classes('', lane)}".strip(), prefix
        )

    def targets(self, key: tuple[str, str]) -> str:
        """Say how many variables a collapsed layer's updates change."""
        updates = self.graph.updates.items()
        count = sum(self.view.box[v] == key for t, v in updates if t not in self.view.repeats.drawn)
        return f"updates {count} variable{'s' * (count != 1)}" if count else ""

    def edge(self, operand: Node, node: Node, place: int) -> None:
        repeats = self.view.repeats
        once = (repeats.twin(operand), repeats.twin(node), place)
        if once in self.seen or not is_drawn(node) or is_inline(operand, node) or repeats.hides(operand, node):
            return
        self.seen.add(once)
        box = self.view.box[node]
        self.arrow(operand, self.ids[box], self.view.lane[node], isinstance(box, tuple))

    def arrow(self, operand: Node, head: str, lane: str, collapsed: bool = False) -> None:
        """Add an arrow from what makes `operand`: through items, and from a bare word for a small constant."""
        source, part = operand, ""
        while isinstance(source.op, Item):
            part = _item_name(source.inputs[0], source.op.index)
            source = source.inputs[0]
        if not is_drawn(source):
            if collapsed:
                return
            tail, label = self.bare(source, head, lane), ""
        else:
            tail = self.ids[self.view.box[source]]
            # An input's or a variable's type stands in its own box.
            plain = source.op.category in ("input", "variable", "constant") and isinstance(self.view.box[source], Node)
            label = " ".join(filter(None, [part, "" if plain else type_text(operand.type)]))
        if tail == head:
            return
        saved = self.view.lane[source] == FORWARD and lane != FORWARD and is_drawn(source)
        counts = self.labels.setdefault((tail, head, lane, saved), {})
        counts[label] = counts.get(label, 0) + 1

    def bare(self, constant: Node, head: str, lane: str) -> str:
        assert isinstance(constant.op, Constant)
        id = f"n{self.number[constant]}_{head}"
        scope = self.result.boxes[head].scope
        text = constant_text(constant.op) or ""
        if constant.shape:  # the same value everywhere
            text = f"{text} {type_text(constant.type)}"
        self.result.boxes.setdefault(id, Box(id, text, (), "bare", lane, scope, "constant"))
        return id

    def output(self, id: str, name: str, node: Node) -> None:
        self.result.boxes[id] = Box(id, name, (f"output {type_text(node.type)}",), "input", FORWARD, "", "output")
        self.arrow(node, id, self.view.lane[node])

    def update(self, target: Node, value: Node) -> None:
        """Add the box that ends an update; a collapsed layer's updates end in its own box."""
        if target in self.view.repeats.drawn:
            return
        key = self.view.box[value]
        if isinstance(key, tuple) and key[1] == UPDATE:
            return
        id = f"upd{self.number[target]}"
        scope = self.view.scope[target]
        self.result.boxes[id] = Box(id, f"{target.label} ←", ("update",), "update", UPDATE, scope, "update")
        self.arrow(value, id, UPDATE)


def _classes(category: str, lane: str) -> str:
    return " ".join(filter(None, [category, {BACKWARD: "grad", UPDATE: "upd"}.get(lane, "")]))


def _item_name(source: Node, index: int) -> str:
    names = {"moments": ("mean", "variance")}.get(source.op.name, ())
    assert isinstance(source.type, TupleType)
    return names[index] if index < len(names) else str(index)


def _joined(labels: dict[str, int]) -> str:
    """Return the label of an arrow that stands for several: at most two of them, and how many more there are."""
    texts = [f"{text} ×{count}".strip() if count > 1 else text for text, count in labels.items() if text or count > 1]
    more = len(texts) - 2
    return "\n".join(texts[:2] + ([f"+{more} more"] if more > 0 else []))


def _summary(nodes: Iterable[Node], title: str) -> tuple[str, ...]:
    """Return the lines of a collapsed layer: one op with its attributes, or how often it has which; its parameters."""
    nodes = list(nodes)
    inner = [n for n in nodes if n.op.category not in ("input", "variable", "constant")]
    if len(inner) == 1:
        name = inner[0].op.name
        return ("" if name == title else name, notes(inner[0]), _parameters(nodes))
    counts = Counter(n.op.name for n in inner)
    names = [f"{name} ×{count}" if count > 1 else name for name, count in counts.items()]
    return (" · ".join(names[:_LISTED] + (["…"] if len(names) > _LISTED else [])), _parameters(nodes))


def _parameters(nodes: Iterable[Node]) -> str:
    sizes = [n.tensor_type.size for n in nodes if isinstance(n.op, Variable) and n.op.trainable]
    total = sum(size for size in sizes if isinstance(size, int))
    return f"{total:,} parameters" if total else ""


def scopes_of(boxes: Iterable[Box]) -> Counter[str]:
    """Return how many boxes lie in each scope, inner scopes' included: one box alone needs no frame."""
    return Counter(prefix for box in boxes for prefix in prefixes(box.scope))
