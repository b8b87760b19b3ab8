import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from dot_text import boxes, clusters, edges, words
from hypothesis import given, settings
from hypothesis import strategies as st
from viz_graphs import network

import minigraph
from minigraph import ops
from minigraph.autodiff import gradients
from minigraph.errors import ArgumentError
from minigraph.ir import Constant, Graph, Node, TensorType, scope, symbol, variable
from minigraph.ir.leaves import input
from minigraph.viz import to_dot
from minigraph.viz.draw import render
from minigraph.viz.lanes import lanes, scopes
from minigraph.viz.text import constant_text, notes, shorten, type_text


def test_a_small_graph():
    x = input((symbol("N"), 3), name="x")
    w = variable((3, 2), name="w")
    source = to_dot(Graph({"y": ops.relu(ops.matmul(x, w))}))
    assert list(boxes(source)) == ["n0", "n1", "n2", "n3", "out0"]
    assert [(a, b) for a, b, _ in edges(source)] == [("n0", "n2"), ("n1", "n2"), ("n2", "n3"), ("n3", "out0")]
    assert words(boxes(source)["n0"]) == ["x", "[N,3]"]
    assert words(boxes(source)["out0"]) == ["y", "output", "[N,2]"]
    assert [c for line in boxes(source).values() for c in re.findall(r"class=(\w+)", line)] == [
        "input", "variable", "matmul", "elementwise", "output",
    ]  # fmt: skip
    assert "[N,2]" in edges(source)[2][2]
    assert "label" not in edges(source)[0][2], "an input's type stands in its own box"
    assert clusters(source) == 0


def test_a_scalar_is_called_scalar():
    source = to_dot(Graph({"y": ops.sum(input((3,), name="x"))}))
    assert words(boxes(source)["out0"]) == ["y", "output", "scalar"]
    assert "[]" not in source.replace("[];", "")


def test_items_are_folded_into_edges():
    mean, variance = ops.moments(input((8, 3), name="x"), 0)
    source = to_dot(Graph({"y": ops.add(mean, variance), "m": mean}))
    assert "item" not in source
    into_add = next(rest for tail, head, rest in edges(source) if tail == "n1" and head not in ("out1",))
    assert "mean [3]" in re.sub(r"<[^<>]*>", "", into_add.replace("\xa0", " "))
    assert "variance [3]" in re.sub(r"<[^<>]*>", "", into_add.replace("\xa0", " "))
    assert any(tail == "n1" and head == "out1" and "mean" in rest for tail, head, rest in edges(source))


def test_items_without_names_have_their_index():
    a, b = ops.split(input((4, 2), name="x"), 2)[:2]
    if a.op.name != "item":
        pytest.skip("split needs no items")
    assert ">\xa01 [" in to_dot(Graph({"a": a, "b": b}))


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda x: x * 0.5, "· 0.5"),
        (lambda x: 1.0 - x, "1 −"),
        (lambda x: x / 3, "/ 3"),
        (lambda x: ops.where(x > 0.0, x, 0.0), "(·, ·, 0)"),
        (lambda x: ops.maximum(x, 0.1), "(·, 0.1)"),
        (lambda x: ops.clip(x, 0.0, 6.0), "minimum 0, maximum 6"),
        (lambda x: ops.leaky_relu(x, 0.25), "alpha 0.25"),
        (lambda x: ops.sum(x, (0, 1)), "axes 0 1"),
        (lambda x: ops.sum(x, 1, keepdims=True), "axis 1, keepdims"),
        (lambda x: ops.softmax(x), ""),
        (lambda x: ops.reshape(x, (6,)), ""),
    ],
)
def test_second_lines(build, expected):
    assert notes(build(variable((2, 3)))) == expected


def test_second_lines_of_windows():
    x = variable((1, 8, 8, 4))
    conv = ops.conv2d(x, variable((3, 3, 2, 8)), strides=2, padding="same", groups=2)
    assert notes(conv) == "3×3, stride 2, same, groups 2"
    assert notes(ops.max_pool2d(x, (2, 3), strides=(2, 1))) == "2×3, stride 2×1, valid"
    channels_first = ops.conv2d(variable((1, 4, 8, 8)), variable((8, 4, 5, 3)), layout="NCHW")
    assert notes(channels_first) == "5×3, valid, NCHW"


def test_small_constants_are_written_where_they_are_read_and_big_ones_are_boxes():
    x = input((2, 3), name="x")
    inline = to_dot(Graph({"y": x * 2.0}))
    assert len(boxes(inline)) == 3
    bare = to_dot(Graph({"y": ops.add(ops.broadcast_to(1.0, (2, 3)), x)}))
    assert sum("class=constant" in line and "shape=plain" in line for line in boxes(bare).values()) == 1
    filled = to_dot(Graph({"y": ops.matmul(x, Node(Constant.full(TensorType((3, 1)), 1.0)))}))
    assert words(boxes(filled)["n1_n2"]) == ["1", "[3,1]"]
    big = Node(Constant(TensorType((2, 3), "float32"), bytes(range(24))))
    assert sum("class=constant" in line for line in boxes(to_dot(Graph({"y": x * big}))).values()) == 1


def test_a_constant_alone_is_drawn():
    source = to_dot(Graph({"y": Node(Constant.of(2.5))}))
    assert [(tail, head) for tail, head, _ in edges(source)] == [("n0_out0", "out0")]


def test_an_operand_read_twice_is_one_edge():
    x = input((3,), name="x")
    source = to_dot(Graph({"y": ops.exp(x) * ops.exp(x)}))
    assert len(edges(source)) == 5
    e = ops.exp(x)
    twice = edges(to_dot(Graph({"y": e * e})))
    assert len(twice) == 3
    assert "×2" in twice[1][2]


def test_scopes_become_nested_clusters():
    x = input((3,), name="x")
    with scope("a"), scope("b"):
        y = ops.exp(ops.exp(x))
        with scope("c"):
            z = ops.sin(ops.cos(y))
    with scope("a"):
        source = to_dot(Graph({"z": ops.neg(z)}))
    assert clusters(source) == 3
    depth, deepest = 0, 0
    for line in source.splitlines():
        depth += line.endswith("{")
        depth -= line.strip() == "}"
        deepest = max(deepest, depth)
    assert (depth, deepest) == (0, 4)


def test_a_scope_around_one_inner_scope_shares_its_frame():
    with scope("a"), scope("b"):
        y = ops.exp(ops.exp(input((3,), name="x")))
    source = to_dot(Graph({"y": y}))
    assert clusters(source) == 1
    assert ">a/b<" in source


def test_a_scope_of_one_box_has_no_frame_but_keeps_its_name():
    x = input((3,), name="x")
    with scope("head"):
        y = ops.exp(x)
    source = to_dot(Graph({"y": ops.sin(y)}))
    assert clusters(source) == 0
    assert "head" in words(boxes(source)["n1"])


def test_variables_are_named_within_their_frame():
    source = to_dot(network(0, train=False))
    assert "<B>kernel</B>" in source
    assert "<B>stem/kernel</B>" not in source


def test_lanes_of_a_training_graph():
    graph = network()
    lane = lanes(graph)
    assert set(lane.values()) == {"forward", "backward", "update"}
    assert all((lane[n] == "backward") == (n.origin.gradient_of is not None) for n in graph.nodes)
    assert lane[graph.variable("stem/kernel")] == "forward"
    assert lane[graph.variable("stem/moving_mean")] == "update"
    assert lane[graph.updates[graph.variable("stem/kernel")]] == "update"


def test_what_an_optimiser_computes_for_one_layer_belongs_to_that_layer():
    graph = network()
    scope_of = scopes(graph, lanes(graph))
    value = graph.updates[graph.variable("block1/gamma")]
    assert value.origin.scope == ""
    assert scope_of[value] == graph.variable("block1/gamma").origin.scope


def test_what_serves_two_layers_belongs_to_neither():
    a, b = (variable((3,), name=n) for n in "ab")
    with scope("one"):
        u = variable((3,), name="u")
    with scope("two"):
        v = variable((3,), name="v")
    shared = ops.exp(a * b)
    graph = Graph({}, {u: u + shared, v: v + shared})
    scope_of = scopes(graph, lanes(graph))
    assert (scope_of[shared], scope_of[graph.updates[u]], scope_of[graph.updates[v]]) == ("", "one", "two")


def test_a_training_graph_shows_gradients_updates_and_saved_values():
    graph = network()
    source = to_dot(graph, collapse="none")
    lines = boxes(source)
    assert sum(" ←" in line for line in lines.values()) == len(graph.updates)
    assert sum(re.search(r'class="[\w ]*grad"', line) is not None for line in lines.values()) > 20
    saved = [rest for _, _, rest in edges(source) if "class=saved" in rest]
    assert saved and all("style=dashed" in rest and "constraint=false" in rest for rest in saved)
    assert ">gradient<" in source and ">update<" in source, "the legend"


def test_saved_values_are_exactly_the_edges_from_forward_to_backward_and_update():
    x = variable((3,), name="x")
    y = ops.exp(x)
    (g,) = gradients(ops.sum(y), [x])
    source = to_dot(Graph({"g": g}))
    assert [head for _, head, rest in edges(source) if "class=saved" in rest] == [
        f"n{[n.op.name for n in Graph({'g': g}).nodes].index('mul')}"
    ]


def test_the_direction_and_the_title_are_used():
    source = to_dot(network(0, train=False), direction="LR", title="One & only")
    assert "rankdir=LR" in source
    assert "<B>One &amp; only</B>" in source


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_are_six_digits(theme):
    source = to_dot(network(), theme=theme, title="colours", collapse="none")
    colours = re.findall(r'(?:color|bgcolor|fillcolor|COLOR|BGCOLOR)="?([^"\s\]]+)', source)
    assert len(colours) > 50
    assert all(re.fullmatch(r"#[0-9a-f]{6}", c) for c in colours)


def test_themes_differ_in_colours_only():
    def bare(theme):
        return re.sub(r"#[0-9a-f]{6}|mg[0-9a-f]{8}", "", to_dot(network(), theme=theme))

    assert bare("light") == bare("dark")


@pytest.mark.parametrize(
    "arguments", [{"theme": "blue"}, {"direction": "UP"}, {"collapse": "all"}, {"collapse": 0}, {"collapse": True}]
)
def test_bad_arguments_say_what_is_possible(arguments):
    with pytest.raises(ArgumentError, match="expected:"):
        to_dot(network(0, train=False), **arguments)


def test_auto_collapses_above_max_nodes_only():
    graph = network(1)
    assert to_dot(graph, max_nodes=1000) == to_dot(graph, collapse="none")
    few = boxes(to_dot(graph))
    assert len(few) <= 80 < len(boxes(to_dot(graph, collapse="none")))
    assert any("class=scope" in line or 'class="scope ' in line for line in few.values())


def test_collapsed_layers_say_what_is_in_them():
    source = to_dot(network(1), collapse=1)
    by_title = {" ".join(words(line)): line for line in boxes(source).values()}
    stem = next(t for t in by_title if t.startswith("stem matmul"))
    assert stem == "stem matmul · moments · batch_norm · relu 20 parameters"
    assert any(t.startswith("stem · gradient") for t in by_title)
    update = next(t for t in by_title if t.startswith("stem · update"))
    assert update.endswith("updates 5 variables")
    assert clusters(source) == 0


def test_collapsing_at_a_depth_makes_clusters_of_the_outer_scopes():
    source = to_dot(network(1), collapse=2)
    assert clusters(source) >= 2
    assert all(line not in source for line in ("<B>rsqrt</B>", "<B>gamma</B>"))


def test_no_edge_dangles_and_no_box_is_twice():
    for collapse in ("none", "auto", 1, 2):
        source = to_dot(network(6), collapse=collapse, max_nodes=40)
        ids = re.findall(r"^\s*(\w+) \[", source, re.M)
        drawn = [i for i in ids if i not in ("graph", "node", "edge")]
        assert len(set(drawn)) == len(drawn)
        assert {end for tail, head, _ in edges(source) for end in (tail, head)} <= set(drawn)


def test_repeated_blocks_are_drawn_once():
    source = to_dot(network(16, train=False), max_nodes=30)
    assert "block1 … block16 ×16" in source
    assert len(boxes(source)) <= 30
    assert "block7" not in source


def test_repeated_blocks_of_a_training_graph_are_drawn_once_with_their_gradients():
    source = to_dot(network(16))
    assert len(boxes(source)) <= 80
    assert re.search(r"block\d+ … block\d+ ×1[3-6]", source)


def test_blocks_that_differ_are_not_folded():
    x = input((8, 3), name="x")
    for i, units in enumerate([3, 4, 5, 6]):
        with scope(f"block{i}"):
            x = ops.relu(ops.matmul(x, variable((x.shape[-1], units), name=f"w{i}")))
    assert "×" not in to_dot(Graph({"y": x}), max_nodes=3)


def test_parallel_twins_are_not_a_run():
    x = input((8, 3), name="x")
    branches = []
    for i in range(4):
        with scope(f"branch{i}"):
            branches.append(ops.exp(ops.sin(x)))
    source = to_dot(Graph({"y": ops.concat(branches, 1)}), max_nodes=3)
    assert "…" not in source
    assert all(f"branch{i}" in source for i in range(4))


def test_a_long_chain_needs_no_recursion():
    y = input((3,), name="x")
    for _ in range(3000):
        y = ops.exp(y)
    assert len(edges(to_dot(Graph({"y": y}), collapse="none"))) == 3001


def test_an_unread_input_is_drawn():
    x, unread = input((3,), name="x"), input((2,), name="unread")
    assert len(boxes(to_dot(Graph({"y": ops.exp(x)}, inputs=[x, unread])))) == 4


def test_the_same_graph_gives_the_same_bytes_under_any_hash_seed():
    program = "from viz_graphs import network; from minigraph.viz import to_dot; import sys; g = network(3)\n"
    program += "sys.stdout.buffer.write((to_dot(g) + to_dot(g, collapse='none') + to_dot(g, max_nodes=9)).encode())"
    path = os.pathsep.join([str(Path(minigraph.__file__).parents[1]), str(Path(__file__).parent)])
    outputs = set()
    for seed in ("0", "1", "4242"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path}
        outputs.add(
            subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True).stdout
        )
    assert len(outputs) == 1
    assert len(outputs.pop()) > 1000


def test_words():
    assert shorten("a\x00b\ud800c\nd") == "a�b�c�d"
    assert len(shorten("x" * 10_000)) == 60
    assert type_text(TensorType((), "bool")) == "bool scalar"
    assert constant_text(Constant.of(0.1, "float32")) == "0.1"
    assert constant_text(Constant.of(7, "int64")) == "7"


ODD = ["", " ", "{}|<>", '"->', "\\", "\\N\\G\\l", "a\\", "<b>", "</B>", "-->", "]]>", "&amp;", "&#0;", "漢字\u202e"]
any_text = st.text(max_size=30) | st.sampled_from([*ODD, "/", "//", "\x1a", 'ä\\"' * 3000])
# Names in a graph are printable, and end at 200 characters.
any_name = any_text.map(lambda text: "".join(c for c in text if c.isprintable())[:199] or "x")


def odd_graph(label, scope_name, output, other):
    x = Node(type(input((1,), name="x").op)(label, TensorType((2, 3))))
    with scope(scope_name):
        y = ops.exp(ops.sin(x))
        with scope(other):
            y = ops.neg(ops.cos(y))
    return Graph({output: y, output + "'": x})


@given(any_name, any_name, any_name, any_name, any_text)
@settings(deadline=None, max_examples=60)
def test_any_text_gives_sound_dot(label, scope_name, output, other, title):
    source = to_dot(odd_graph(label, scope_name, output, other), title=title)
    source.encode()
    assert len(source) < 20_000
    assert not re.search("[\x00-\x08\x0b-\x1f]", source)
    assert len(edges(source)) == 6


@given(any_name, any_name, any_name, any_name, any_text)
@settings(deadline=None, max_examples=30)
def test_any_text_can_be_rendered(label, scope_name, output, other, title):
    svg = render(odd_graph(label, scope_name, output, other), title=title)
    root = ElementTree.fromstring(svg)
    groups = [g.get("class", "").split()[0] for g in root.iter("{http://www.w3.org/2000/svg}g")]
    assert groups.count("node") == 7
    assert groups.count("edge") == 6


def test_a_bundle_of_saved_values_is_counted_instead_of_drawn():
    x = variable((3,), name="x")
    y = x
    for _ in range(30):
        y = ops.exp(y)
    (g,) = gradients(ops.sum(y), [x])
    source = to_dot(Graph({"g": g}), max_nodes=20)
    assert "class=saved" not in source
    assert any("gradients" in line and "reads 30 saved values" in line for line in boxes(source).values())
