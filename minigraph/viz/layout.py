"""What keeps boxes in their places: what hangs below what, what stands beside what, in one picture and in two."""

from __future__ import annotations

from collections.abc import Iterable

from minigraph.viz.boxes import Box
from minigraph.viz.lanes import BACKWARD, FORWARD, prefixes
from minigraph.viz.rows import in_order, rows
from minigraph.viz.sketch import Sketch


def hung(drawn: Sketch) -> list[tuple[str, str]]:
    """Return (box, parameter) pairs: parameters stand below what else feeds the first box that they help to compute.

    Otherwise they float up beside the layer before, and layers cannot be stacked. Those that are computed with together
    hang together, to leave room for the arithmetic.
    """
    flow = _flow(drawn, FORWARD)
    number = {box: i for i, box in enumerate(in_order(list(drawn.boxes), flow))}
    fixed = {id for id, box in drawn.boxes.items() if box.fixed}
    feeds = {head: tail for tail, head in flow if tail not in fixed and head not in fixed}
    first: dict[str, str] = {}  # what is fixed → the first box of data that it is needed for
    for tail, head in sorted(flow, key=lambda edge: -number[edge[0]]):
        served = first.get(head) if head in fixed else head
        if tail in fixed and served in feeds and number[served] < number.get(first.get(tail, ""), len(number)):
            first[tail] = served
    together = _components([(tail, head) for tail, head in flow if tail in fixed and head in fixed])
    needed: dict[str, str] = {}  # the same for all that stand together
    for box in sorted(first, key=lambda box: number[first[box]]):
        needed.setdefault(together.get(box, box), first[box])
    computed = {head for _, head in flow}
    return [(feeds[needed[together.get(leaf, leaf)]], leaf) for leaf in first if leaf not in computed]


def _components(edges: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return, for each box, one that stands for all that edges connect it with."""
    beside: dict[str, list[str]] = {}
    for a, b in edges:
        beside.setdefault(a, []).append(b)
        beside.setdefault(b, []).append(a)
    found: dict[str, str] = {}
    for start in beside:
        pending = [start]
        while pending:
            box = pending.pop()
            if box not in found:
                found[box] = start
                pending += beside[box]
    return found


def side_by_side(drawn: Sketch) -> list[tuple[str, str]]:
    """Return (layer, gradient) pairs of boxes: a layer of one box stands beside its gradient.

    Where the gradient is drawn open and the layer is not, it is the topmost box of the gradient, with which it ends.
    What a layer has beside inner layers, like the sum of a residual block, is not the layer, and stands by itself.
    """
    flow = _flow(drawn, BACKWARD)
    number = {box: i for i, box in enumerate(in_order(list(drawn.boxes), flow))}
    height = dict.fromkeys(drawn.boxes, 0)
    for tail, head in sorted(flow, key=lambda edge: number[edge[0]]):
        height[head] = max(height[head], height[tail] + 1)
    forward: dict[str, list[Box]] = {}
    gradient: dict[str, list[str]] = {}
    for box in sorted(drawn.boxes.values(), key=lambda box: height[box.id]):
        if box.lane == FORWARD and box.layer and box.kind != "variable":
            forward.setdefault(box.layer, []).append(box)
        for layer in prefixes(box.layer or box.scope) if box.lane == BACKWARD and box.kind != "bare" else []:
            gradient.setdefault(layer, []).append(box.id)
    parted = {outer for layer in forward for outer in prefixes(layer)[:-1]}
    single = [(layer, b[0]) for layer, b in forward.items() if len(b) == 1 and layer in gradient.keys() - parted]
    return [(b.id, gradient[layer][-1]) for layer, b in single if len(gradient[layer]) == 1 or "scope" in b.classes]


def beside_readers(drawn: Sketch) -> list[tuple[str, str]]:
    """Return (constant, reader) pairs of a gradient: a constant stands in the row of the box that reads it.

    Gradients are ranked against the flow: below its reader, the constant would stretch the layer into the rows of the
    next one, which then could not stand below it.
    """
    return [(tail, head) for tail, head in _flow(drawn, BACKWARD) if drawn.boxes[tail].kind == "bare"]


def common_rows(before: Sketch, after: Sketch) -> list[tuple[str, str]]:
    """Return what stands in one row in two panels: boxes that both have, and the last of each layer that both have.

    Parameters are left out: they stand by what reads them.
    """
    pairs = {
        id: after.keys[key]
        for key, id in before.keys.items()
        if key in after.keys and not before.boxes[id].fixed and not after.boxes[after.keys[key]].fixed
    }
    taken = set(pairs.values())
    ends = _ends(after)
    for scope, left in sorted(_ends(before).items(), key=lambda end: end[0].count("/")):
        right = ends.get(scope, "")
        if right and left not in pairs and right not in taken:
            pairs[left] = right
            taken.add(right)
    return rows(list(before.boxes), list(after.boxes), pairs, _order(before), _order(after))


def _ends(drawn: Sketch) -> dict[str, str]:
    """Return the last box of each scope on the line in which data flows."""
    line = [box for box in drawn.boxes.values() if box.lane == FORWARD and not box.fixed]
    return {scope: box.id for box in line for scope in prefixes(box.scope)}


def _order(drawn: Sketch) -> list[tuple[str, str]]:
    """Return (box, box) pairs of which the first stands above the second, or beside it."""
    flow = [(e.head, e.tail) if e.lane == BACKWARD else (e.tail, e.head) for e in drawn.edges if not e.saved]
    return [*flow, *hung(drawn), *side_by_side(drawn)]


def _flow(drawn: Sketch, lane: str) -> list[tuple[str, str]]:
    return [(e.tail, e.head) for e in drawn.edges if e.lane == lane and not e.saved]
