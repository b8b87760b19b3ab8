"""What keeps boxes in their places: rows of two panels, parameters below what feeds their readers, gradients beside."""

import itertools
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from viz_graphs import network

from minigraph import ops, optimize
from minigraph.autodiff import gradients
from minigraph.ir import Graph, scope, variable
from minigraph.ir.leaves import input as input_
from minigraph.losses import SparseCategoricalCrossentropy
from minigraph.models import digits_network
from minigraph.viz import render
from minigraph.viz.collapse import view
from minigraph.viz.layout import beside_readers, hung, side_by_side
from minigraph.viz.renderer import ladder
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


def test_what_joins_the_layers_inside_a_scope_does_not_stand_beside_the_gradient_of_the_first():
    x, w = input_((2, 3), name="x"), variable((3, 3), name="w")
    with scope("residual"):
        with scope("dense"):
            y = ops.matmul(x, w)
        y = ops.relu(ops.exp(y) + x)
    loss = ops.sum(y)
    graph = Graph({"loss": loss}, {w: w - gradients(loss, [w])[0]})
    assert named(graph, side_by_side, collapse=2) == [("matmul", "matmul")]


def test_an_activation_stands_beside_its_gradient_though_that_reads_a_constant():
    assert ("batch_norm · relu", "matmul · greater · where") in named(optimize(network(1))[0], side_by_side)


def test_constants_stand_beside_the_gradients_that_read_them():
    assert ("0", "matmul · greater · where") in named(optimize(network(1))[0], beside_readers)


def frames(svg, panel):
    """The frame of each scope of a panel, by its label: left, right, top and bottom on the page."""
    found = {}
    for frame in re.findall(rf'<g id="mg\w+_{panel}scope\d+".*?</g>', svg, re.S):
        path, label = re.search(r'<path [^>]*\bd="([^"]*)"', frame)[1], re.search(r"<text[^>]*>([^<]*)<", frame)[1]
        points = [tuple(map(float, point.split(","))) for point in re.findall(r"-?[\d.]+,-?[\d.]+", path)]
        x, y = zip(*points, strict=True)
        found[label] = min(x), max(x), min(y), max(y)
    return found


@pytest.mark.skipif(not ladder("svg"), reason="nothing here draws")
@pytest.mark.parametrize("panel", ["b", "a"], ids=["before", "after"])
def test_the_blocks_of_a_training_step_lie_in_one_column(panel):
    model = digits_network(0)
    model.compile("adam", SparseCategoricalCrossentropy(from_logits=True))
    found = frames(render(optimize(model.lower("training", batch_size=16))[1]), panel)
    blocks = [found[f"block{i}"] for i in range(1, 6)]
    centres = [(left + right) / 2 for left, right, _, _ in blocks]
    assert max(centres) - min(centres) < min(right - left for left, right, _, _ in blocks) / 10
    assert all(above[3] < below[2] for above, below in itertools.pairwise(blocks))
