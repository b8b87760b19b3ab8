"""What keeps boxes in their places: rows of two panels, parameters below what feeds their readers, gradients beside."""

import itertools
import random

from hypothesis import given
from hypothesis import strategies as st
from viz_graphs import network

from minigraph import ops
from minigraph.ir import Graph, variable
from minigraph.ir.leaves import input as input_
from minigraph.viz.collapse import view
from minigraph.viz.layout import hung, side_by_side
from minigraph.viz.rows import in_order, rows
from minigraph.viz.sketch import sketch


def chain(boxes):
    return list(itertools.pairwise(boxes))


def test_what_comes_in_the_same_order_is_all_in_rows():
    assert rows("abc", "xyz", dict(zip("abc", "xyz", strict=True)), chain("abc"), chain("xyz")) == [
        ("a", "x"), ("b", "y"), ("c", "z"),
    ]  # fmt: skip


def test_a_pair_that_crosses_two_others_is_left_out():
    pairs = {"a": "x", "b": "y", "c": "z"}
    assert rows("abc", "yzx", pairs, chain("abc"), chain("yzx")) == [("b", "y"), ("c", "z")]


def test_what_no_order_forbids_follows_the_left_side():
    pairs = dict(zip("abcd", "wxyz", strict=True))
    assert len(rows("abcd", "zyxw", pairs, chain("abcd"), [])) == 4


def test_a_cycle_is_cut():
    assert sorted(in_order("abc", [("a", "b"), ("b", "c"), ("c", "a")])) == ["a", "b", "c"]
    assert in_order("abc", [("c", "b"), ("b", "a")]) == ["c", "b", "a"]


def acyclic(edges):
    below = {}
    for above, under in edges:
        below.setdefault(above, set()).add(under)
    order = in_order(list(dict.fromkeys(b for e in edges for b in e)), edges)
    place = {box: i for i, box in enumerate(order)}
    return all(place[a] < place[b] for a, b in edges if a != b)


@given(st.integers(0, 10**6))
def test_rows_never_turn_an_arrow_round(seed):
    rng = random.Random(seed)
    left, right = ([f"{side}{i}" for i in range(rng.randint(1, 12))] for side in "lr")
    orders = []
    for boxes in (left, right):
        shuffled = rng.sample(boxes, len(boxes))
        orders.append([(a, b) for a, b in itertools.combinations(shuffled, 2) if rng.random() < 0.3])
    count = rng.randint(0, min(len(left), len(right)))
    pairs = dict(zip(rng.sample(left, count), rng.sample(right, count), strict=True))
    found = rows(left, right, pairs, *orders)
    assert set(found) <= set(pairs.items())
    same = {b: a for a, b in found}
    merged = [(same.get(a, a), same.get(b, b)) for order in orders for a, b in order]
    assert acyclic(merged)
    assert bool(found) == bool(pairs)


def named(graph, pairs, **options):
    drawn = sketch(view(graph, **options))
    return [(drawn.boxes[a].title, drawn.boxes[b].title) for a, b in pairs(drawn)]


def test_parameters_hang_below_what_else_their_reader_reads():
    x, w, b = input_((2, 3), name="x"), variable((3, 3), name="w"), variable((3,), name="b")
    assert sorted(named(Graph({"y": ops.matmul(x, w) + b}), hung)) == [("matmul", "b"), ("x", "w")]


def test_parameters_that_are_computed_with_together_hang_together():
    x, w, s, t = (
        input_((2, 3), name="x"),
        variable((3, 3), name="w"),
        variable((3,), name="s"),
        variable((3,), name="t"),
    )
    graph = Graph({"y": ops.matmul(ops.exp(x), w * s) + t * s})
    assert sorted(named(graph, hung)) == [("exp", "s"), ("exp", "t"), ("exp", "w")]


def test_parameters_that_nothing_with_data_reads_hang_nowhere():
    assert named(Graph({"y": ops.exp(variable((3,), name="w")), "x": input_((3,), name="x")}), hung) == []


def test_a_collapsed_layer_stands_beside_its_gradient():
    pairs = named(network(1), side_by_side, collapse=1)
    assert ("stem", "stem · gradient") in pairs and ("block1", "block1 · gradient") in pairs
