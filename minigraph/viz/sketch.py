"""The sketch of a picture: boxes and edges with their words, before any colour or DOT."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from minigraph.ir import Item, Node, TupleType
from minigraph.viz.boxes import Box, Boxes
from minigraph.viz.diff import CHANGED, KEPT, edge_key, value_key
from minigraph.viz.lanes import FORWARD, UPDATE, prefixes
from minigraph.viz.text import fused_ops, is_drawn, is_inline, type_text
from minigraph.viz.view import Group, Key, View

_SAVED = 12  # saved values drawn into one box; more are counted in it, since such a bundle tells nothing and takes long
_SHARED = 3  # updates that an arrow is drawn to from what all of them read

# An arrow before it has its words: tail, head, lane, whether it carries a saved value.
_Arrow: TypeAlias = tuple[str, str, str, bool]


@dataclass(frozen=True)
class Edge:
    """One arrow. `saved`: it carries a value of the forward lane into the backward or the update lane.

    `mark`: whether the other graph has it too, where graphs are compared.
    """

    tail: str
    head: str
    label: str
    lane: str
    saved: bool
    mark: str = ""


@dataclass
class Sketch:
    """All boxes and edges, in the order of the graph; `badges` names the scopes that stand for several.

    `frames` are the fused nodes drawn as frames, by id; `keys` says what a box stands for, so that two sketches can be
    laid out alike.
    """

    boxes: dict[str, Box] = field(default_factory=dict)
    frames: dict[str, Box] = field(default_factory=dict)
    keys: dict[object, str] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)
    badges: dict[str, str] = field(default_factory=dict)


def sketch(view: View, prefix: str = "") -> Sketch:
    """Return the boxes and edges that a view of a graph consists of; ids begin with `prefix`."""
    return _Sketcher(view, prefix).run()


class _Sketcher:
    def __init__(self, view: View, prefix: str) -> None:
        self.view = view
        self.graph = view.graph
        self.make = Boxes(view, prefix)
        self.result = Sketch(badges=view.repeats.badges)
        self.ids: dict[Key, str] = {}
        self.inside: dict[Node, list[list[str]]] = {}  # opened fused node → for each operand, the boxes that read it
        self.labels: dict[_Arrow, dict[str, int]] = {}  # with the count of each
        self.fresh: set[_Arrow] = set()  # those that the other graph does not have
        self.seen: set[tuple[Node, Node, int]] = set()

    def run(self) -> Sketch:
        self.boxes()
        self.move_into_frames()
        for node in self.graph.nodes:
            if not isinstance(node.op, Item):
                for place, operand in enumerate(node.inputs):
                    self.edge(operand, node, place)
        for place, (name, node) in enumerate(self.graph.outputs.items()):
            self.end(("output", name), self.make.output(place, name, node), node, self.view.lane[node])
        for target, value in self.graph.updates.items():
            self.update(target, value)
        self.move_out_of_layers()
        self.edges()
        return self.result

    def boxes(self) -> None:
        members: dict[Key, list[Node]] = {}
        for node in self.graph.nodes:
            if is_drawn(node):
                members.setdefault(self.view.box[node], []).append(node)
        for key, nodes in members.items():
            if isinstance(key, Group):
                self.add(key, self.make.group(key, nodes))
            elif self.view.opened and fused_ops(key):
                self.open(key)
            else:
                self.add(key, self.make.node(key))

    def add(self, key: Key, box: Box) -> None:
        self.ids[key] = box.id
        self.result.boxes[box.id] = box
        self.result.keys[key.id if isinstance(key, Node) else key] = box.id

    def open(self, node: Node) -> None:
        """Draw a fused node as a frame around its ops: the last of them gives its result."""
        frame, inner = self.make.frame(node)
        self.result.frames[frame.id] = frame
        for step, box in inner.items():
            self.add(node, box)
            for value in step.inputs:
                if value in inner:
                    arrow = (inner[value].id, box.id, frame.lane, False)
                    self.labels[arrow] = {"" if value.type == node.type else type_text(value.type): 1}
                    self.fresh |= {arrow} if box.mark != KEPT else set()
        self.inside[node] = [
            [box.id for step, box in inner.items() if operand in step.inputs and not is_inline(operand, step)]
            for operand in node.inputs
        ]

    def edge(self, operand: Node, node: Node, place: int) -> None:
        repeats = self.view.repeats
        once = (repeats.twin(operand), repeats.twin(node), place)
        if once in self.seen or not is_drawn(node) or is_inline(operand, node) or repeats.hides(operand, node):
            return
        self.seen.add(once)
        box = self.view.box[node]
        fresh = edge_key(operand, node) in self.view.marks.edges
        for head in self.inside[node][place] if node in self.inside else [self.ids[box]]:
            self.arrow(operand, head, self.view.lane[node], fresh, isinstance(box, Group))

    def arrow(self, operand: Node, head: str, lane: str, fresh: bool, collapsed: bool = False) -> None:
        """Add an arrow from what makes `operand`: through items, and from a bare word for a small constant."""
        source, part = operand, ""
        while isinstance(source.op, Item):
            part = _item_name(source.inputs[0], source.op.index)
            source = source.inputs[0]
        if not is_drawn(source):
            if collapsed:
                return
            word = self.make.bare(source, self.result.boxes[head], lane)
            self.result.boxes.setdefault(word.id, word)
            tail, label = word.id, ""
        else:
            tail = self.ids[self.view.box[source]]
            # An input's or a variable's type stands in its own box.
            plain = source.op.category in ("input", "variable", "constant") and isinstance(self.view.box[source], Node)
            label = " ".join(filter(None, [part, "" if plain else type_text(operand.type)]))
        if tail == head:
            return
        arrow = (tail, head, lane, self.view.lane[source] == FORWARD and lane != FORWARD and is_drawn(source))
        counts = self.labels.setdefault(arrow, {})
        counts[label] = counts.get(label, 0) + 1
        if fresh:
            self.fresh.add(arrow)

    def update(self, target: Node, value: Node) -> None:
        """Add the box that ends an update; a collapsed layer's updates end in its own box."""
        key = self.view.box[value]
        if target not in self.view.repeats.drawn and not (isinstance(key, Group) and key.lane == UPDATE):
            self.end(("update", target.id), self.make.update(target), value, UPDATE)

    def end(self, key: tuple[str, object], box: Box, value: Node, lane: str) -> None:
        self.result.boxes[box.id] = box
        self.result.keys[key] = box.id
        self.arrow(value, box.id, lane, (value_key(value), key) in self.view.marks.edges)

    def move_into_frames(self) -> None:
        """Put the box of a layer's lane into the layer's frame, where another lane is drawn open."""
        inside = scopes_of(self.result.boxes.values())
        for key, id in self.ids.items():
            if isinstance(key, Group) and not key.title and inside[key.scope] > 1:
                box = self.result.boxes[id]
                title = f"{box.title} · forward" if key.lane == FORWARD else box.title
                self.result.boxes[id] = replace(box, scope=key.scope, title=title)

    def move_out_of_layers(self) -> None:
        """Put arithmetic on parameters, and the parameters that only it reads, into the scope around their layer.

        It may serve other layers: the scale of a batch norm goes into the kernel before it. In the frame of its own
        layer it would push apart what data flows through.
        """
        heads: dict[str, set[str]] = {}
        for tail, head, _, _ in self.labels:
            heads.setdefault(tail, set()).add(head)
        fixed = [b for b in self.result.boxes.values() if b.fixed and b.lane == FORWARD and not b.frame]
        computed = {head for box in fixed for head in heads.get(box.id, ())} & {box.id for box in fixed}
        for box in fixed:
            if box.id in computed or (heads.get(box.id) and heads[box.id] <= computed):
                self.result.boxes[box.id] = _moved_out(box)

    def edges(self) -> None:
        """Write down the edges, but for bundles that tell nothing and take long: these are counted in their box."""
        boxes, compared = self.result.boxes, self.view.compared
        saved = Counter(head for _, head, _, saved in self.labels if saved)
        shared = Counter(tail for tail, _, lane, _ in self.labels if lane == UPDATE and _is_shared(boxes[tail]))
        for id, box in list(boxes.items()):
            if saved[id] > _SAVED:
                boxes[id] = replace(box, lines=(*box.lines, f"reads {saved[id]} saved values"))
            elif shared[id] > _SHARED:
                boxes[id] = replace(box, lines=(*box.lines, f"read by {shared[id]} updates"))
        for arrow, labels in self.labels.items():
            tail, head, lane, keeps = arrow
            if not (keeps and saved[head] > _SAVED) and not (lane == UPDATE and shared[tail] > _SHARED):
                mark = (CHANGED if arrow in self.fresh else KEPT) if compared else ""
                self.result.edges.append(Edge(tail, head, _joined(labels), lane, keeps, mark))


def _moved_out(box: Box) -> Box:
    """Return a box in the scope around its own; a variable says which layer it is of."""
    outer, _, layer = box.scope.rpartition("/")
    if box.kind != "variable" or not layer:
        return replace(box, scope=outer)
    return replace(box, scope=outer, title=box.title.removeprefix(f"{box.scope}/"), lines=(*box.lines, layer))


def _is_shared(box: Box) -> bool:
    """Tell whether a box is the optimiser's own, like the learning rate that all updates read."""
    return box.lane == UPDATE and not box.scope and not box.layer


def _item_name(source: Node, index: int) -> str:
    names = {"moments": ("mean", "variance")}.get(source.op.name, ())
    assert isinstance(source.type, TupleType)
    return names[index] if index < len(names) else str(index)


def _joined(labels: dict[str, int]) -> str:
    """Return the label of an arrow that stands for several: at most two of them, and how many more there are."""
    texts = [f"{text} ×{count}".strip() if count > 1 else text for text, count in labels.items() if text or count > 1]
    more = len(texts) - 2
    return "\n".join(texts[:2] + ([f"+{more} more"] if more > 0 else []))


def scopes_of(boxes: Iterable[Box]) -> Counter[str]:
    """Return how many boxes lie in each scope, inner scopes' included: one box alone needs no frame."""
    return Counter(prefix for box in boxes for prefix in prefixes(box.scope))
