"""Rows: what two sketches have in common stands side by side, as far as the order of both allows it."""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType


def rows(
    left: Sequence[str], right: Sequence[str], pairs: Mapping[str, str],
    left_order: Iterable[tuple[str, str]], right_order: Iterable[tuple[str, str]],
) -> list[tuple[str, str]]:  # fmt: skip
    """Return the pairs (of a box on the left and one on the right) that can stand in one row each.

    left, right: all boxes. order: (above, below) pairs. A pair that would have to cross another is left out, so that no
    arrow is turned round: the longest sequence that rises on both sides is kept.

    >>> rows("abc", "xyz", {"a": "x", "b": "y", "c": "z"}, [("a", "b"), ("b", "c")], [("z", "y"), ("y", "x")])
    [('c', 'z')]
    """
    first = {box: i for i, box in enumerate(in_order(left, left_order))}
    wanted = {other: first[box] for box, other in pairs.items()}
    second = {box: i for i, box in enumerate(in_order(right, right_order, wanted))}
    candidates = sorted(((first[a], second[b], a, b) for a, b in pairs.items()), key=lambda c: c[0])
    kept = _longest_rise([c[1] for c in candidates])
    return [(candidates[i][2], candidates[i][3]) for i in kept]


def in_order(
    boxes: Sequence[str], order: Iterable[tuple[str, str]], wanted: Mapping[str, int] = MappingProxyType({})
) -> list[str]:
    """Return boxes, those above first, and among what is free in the wanted order; cycles are cut where they begin."""
    below: dict[str, list[str]] = {box: [] for box in boxes}
    open_ = dict.fromkeys(boxes, 0)
    for above, under in set(order):
        below[above].append(under)
        open_[under] += 1
    number = {box: i for i, box in enumerate(boxes)}
    last = len(wanted) + len(boxes)
    ready = [(wanted.get(b, last), number[b], b) for b in boxes if open_[b] == 0]
    heapq.heapify(ready)
    found: dict[str, None] = {}
    for start in boxes:
        if not ready and start not in found:
            ready = [(0, number[start], start)]
        while ready:
            box = heapq.heappop(ready)[2]
            if box in found:
                continue
            found[box] = None
            for under in below[box]:
                open_[under] -= 1
                if open_[under] == 0:
                    heapq.heappush(ready, (wanted.get(under, last), number[under], under))
    return list(found)


def _longest_rise(values: Sequence[int]) -> list[int]:
    """Return the places of a longest rising subsequence, in O(n log n)."""
    ends: list[int] = []  # the smallest value that a rise of each length ends with
    places: list[int] = []
    before: list[int] = []
    for place, value in enumerate(values):
        length = bisect_left(ends, value)
        ends[length : length + 1] = [value]
        places[length : length + 1] = [place]
        before.append(places[length - 1] if length else -1)
    found = []
    place = places[-1] if places else -1
    while place >= 0:
        found.append(place)
        place = before[place]
    return found[::-1]
