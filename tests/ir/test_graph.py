"""Graphs: order, names, updates, uses, rebuilding, binding, equality."""

from __future__ import annotations

import random
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minigraph as mg
from ir.random_graphs import definition, runnable
from minigraph import ops
from minigraph.errors import GraphError, ShapeError
from minigraph.ir import Graph, Node, bind, parse, symbol, topological, variable
from minigraph.ir.graph import same_or_rebuilt
from minigraph.ir.leaves import input as input_

N = symbol("N")
graphs = st.randoms(use_true_random=False).map(definition)


@settings(max_examples=60, deadline=None)
@given(graphs)
def test_operands_come_before_users_inputs_first_and_each_node_once(graph):
    position = {node: i for i, node in enumerate(graph.nodes)}
    assert len(position) == len(graph.nodes)
    assert all(position[i] < position[n] for n in graph.nodes for i in n.inputs)
    assert graph.nodes[: len(graph.inputs)] == graph.inputs


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_the_order_is_the_graphs_alone_not_that_of_creation(seed):
    """The same structure built twice, with different ids and garbage in between, prints alike."""
    first = definition(random.Random(seed))
    rubbish = [mg.ops.constant(float(i)) for i in range(7)]
    second = definition(random.Random(seed))
    assert str(first) == str(second) and first.same_as(second) and rubbish
    assert [n.id for n in first.nodes] != [n.id for n in second.nodes]


def test_topological_order_is_depth_first_in_the_order_of_operands():
    x = input_((2,), name="x")
    a, b = -x, abs(x)
    c = a * b
    d = c + a
    assert topological([d]) == [x, a, b, c, d]
    assert topological([b, d]) == [x, b, a, c, d]
    assert topological([]) == []


def test_inputs_that_are_listed_keep_their_order_and_stay_though_nothing_reads_them():
    a, b, c = (input_((2,), name=n) for n in "abc")
    graph = Graph({"y": a + b}, inputs=[c, b])
    assert [i.label for i in graph.inputs] == ["c", "b", "a"]
    assert graph.nodes[:3] == (c, b, a) and graph.uses[c] == 0
    assert [i.label for i in parse(str(graph)).inputs] == ["c", "b", "a"]


def test_inputs_that_only_an_update_needs_are_found():
    x, w = input_((2,), name="x"), variable((2,), name="w")
    assert Graph({}, {w: w + x}).inputs == (x,)


def test_duplicate_names_are_refused_naming_both_lines():
    for make in (input_, variable):
        first = make((2,), name="same")
        second = make((2,), name="same")
        line = sys._getframe().f_lineno
        with pytest.raises(GraphError, match="are called 'same'") as caught:
            Graph({"y": first + second})
        assert f"{__file__}:{line - 2}" in caught.value.got and f"{__file__}:{line - 1}" in caught.value.got
        assert caught.value.hint == "give one of them another name="


def test_an_input_and_a_variable_of_one_name_are_refused():
    with pytest.raises(GraphError, match="an input and a variable are called 'same'"):
        Graph({"y": input_((2,), name="same") + variable((2,), name="same")})


def test_one_node_used_twice_is_no_duplicate():
    x = input_((2,), name="x")
    assert Graph({"y": x + x, "z": x}).inputs == (x,)


def test_the_update_of_a_variable_has_its_type():
    w, x = variable((2,), name="w"), input_((2,), name="x")
    wrong = [ops.cast(w, "float64"), ops.sum(w), ops.unsqueeze(w, 0)]
    for value in wrong:
        with pytest.raises(GraphError, match="does not have the variable's type") as caught:
            Graph({}, {w: value})
        assert caught.value.expected == w.type and caught.value.got == value.type
        assert caught.value.where.startswith(__file__)
    with pytest.raises(GraphError, match="only a variable can be updated"):
        Graph({}, {x: x})


def test_an_ordinary_node_is_no_input():
    x = input_((2,), name="x")
    with pytest.raises(GraphError, match="ordinary node"):
        Graph({"y": -x}, inputs=[-x])


def test_uses_count_operands_outputs_and_updates():
    w = variable((2,), name="w")
    y = w * w
    graph = Graph({"a": y, "b": y}, {w: y})
    assert graph.uses[w] == 2 and graph.uses[y] == 3
    assert graph.users[w] == (y,) and graph.users[y] == ()


def test_a_variable_that_is_only_updated_belongs_to_the_graph():
    w = variable((2,), name="w")
    graph = Graph({}, {w: ops.constant([1.0, 2.0])})
    assert graph.variables == (w,) and graph.variable("w") is w
    with pytest.raises(GraphError, match="no variable is called 'v'"):
        graph.variable("v")


def test_outputs_and_updates_cannot_be_changed():
    graph = Graph({"y": -input_((2,), name="x")})
    with pytest.raises(TypeError):
        graph.outputs["z"] = graph.inputs[0]
    with pytest.raises(TypeError):
        graph.updates[graph.inputs[0]] = graph.inputs[0]


@settings(max_examples=40, deadline=None)
@given(graphs)
def test_rebuilding_with_nothing_to_do_gives_the_same_nodes(graph):
    again = graph.rebuild(same_or_rebuilt)
    assert again.nodes == graph.nodes and again.same_as(graph)


@settings(max_examples=40, deadline=None)
@given(graphs)
def test_rebuilding_every_node_gives_the_same_graph_with_the_same_ids(graph):
    again = graph.rebuild(lambda node, inputs: node.with_inputs(inputs))
    assert again.same_as(graph) and str(again) == str(graph)
    assert [n.id for n in again.nodes] == [n.id for n in graph.nodes]
    assert not set(again.nodes) & set(graph.nodes)


def test_rebuilding_infers_types_again_and_drops_what_nothing_reaches():
    x = input_((2,), name="x")
    graph = Graph({"y": ops.exp(-x) + 1.0})
    wide = input_((5,), name="x")

    def make(node: Node, inputs: tuple[Node, ...]) -> Node:
        if node is x:
            return wide
        return inputs[0] if node.op.name == "exp" else same_or_rebuilt(node, inputs)

    again = graph.rebuild(make)
    assert again.outputs["y"].shape == (5,) and [n.op.name for n in again.nodes] == ["input", "neg", "constant", "add"]


def test_bind_replaces_symbols_in_types_and_in_attributes():
    x = input_((N, 4), name="x")
    graph = Graph({
        "wide": ops.broadcast_to(1.0, (N, 3)),
        "flat": ops.reshape(x, (N * 4,)),
        "count": ops.size(x),
        "mean": ops.mean(x),
        "taken": x[:, 1:],
    })  # fmt: skip
    bound = bind(graph, N=5)
    assert {k: n.shape for k, n in bound.outputs.items()} == {
        "wide": (5, 3),
        "flat": (20,),
        "count": (),
        "mean": (),
        "taken": (5, 3),
    }
    assert bound.outputs["wide"].op.shape == (5, 3) and bound.outputs["taken"].op.sizes == (5, 3)
    assert bound.symbols == () and graph.symbols == ("N",)
    assert [n.id for n in bound.nodes] == [n.id for n in graph.nodes]


def test_bind_refuses_what_is_not_a_size():
    graph = Graph({"y": -input_((N, symbol("T")), name="x")})
    with pytest.raises(GraphError, match="no such symbolic size"):
        bind(graph, M=3)
    for bad in (-1, 2.0, True, "3"):
        with pytest.raises(GraphError, match="must be an integer"):
            bind(graph, N=bad)
    assert bind(graph, N=2).symbols == ("T",) and graph.symbols == ("N", "T")
    assert bind(graph, N=0, T=1).outputs["y"].shape == (0, 1)


def test_bind_finds_what_only_numbers_show():
    graph = Graph({"y": ops.reshape(input_((N * 4,), name="x"), (N, 4))})
    assert bind(graph, N=3).outputs["y"].shape == (3, 4)
    with pytest.raises(ShapeError):
        bind(Graph({"y": input_((N,), name="a") + input_((symbol("T"),), name="b")}), N=2, T=3)


def test_same_as_sees_every_difference():
    def build(change: str = "") -> Graph:
        x, z = input_((2,), name="z" if change == "input's name" else "x"), input_((2,), name="other")
        w = variable((2,), name="w", init=1.0 if change == "init" else 0.0)
        y = ops.clip(x * w if change != "order" else w * x, 0.0, 5.0 if change == "attribute" else 6.0)
        y = y + y if change != "sharing" else y + ops.clip(x * w, 0.0, 6.0)
        outputs = {"y": y, "z": z} if change != "outputs' order" else {"z": z, "y": y}
        updates = {w: y} if change != "update" else {w: w}
        return Graph(outputs, updates, [z, x] if change == "inputs' order" else [x, z])

    assert build().same_as(build())
    for change in (
        "input's name",
        "init",
        "order",
        "attribute",
        "sharing",
        "outputs' order",
        "update",
        "inputs' order",
    ):
        assert not build().same_as(build(change)), change


def test_same_as_tells_int_attributes_from_other_graphs_of_the_same_length():
    a, b = runnable(random.Random(1)), runnable(random.Random(2))
    assert a.same_as(a) and not a.same_as(b)
