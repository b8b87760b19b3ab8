"""Functions on a picture: one closed box with the function's name, and nothing of what is inside."""

import re

import numpy as np
import pytest
from dot_text import boxes, edges, words

import minigraph as mg
from minigraph import ops
from minigraph.ir import Graph, scope, variable
from minigraph.ir.leaves import input as input_
from minigraph.viz import render, to_dot
from minigraph.viz.renderer import ladder
from minigraph.viz.style import THEMES

INSIDE = ("step(", "softplus", "moments", "rsqrt", "0.123456", "body", "slots", "since")


def with_functions():
    x, gamma = input_((4, 3), name="x"), variable((3,), name="gamma")
    mean, variance = (ops.reshape(m, (4, 1)) for m in ops.moments(x, 1))
    scale = ops.constant(np.linspace(0.123456, 1, 3), "float32")
    results = [(x - mean) * ops.rsqrt(variance + 0.1) * gamma * scale, mean]
    given = [("axis", -1), ("epsilon", 0.1), ("note", "<&>\\N"), ("scales", (1.5,) * 90), ("since_version", 17)]
    y, mean = ops.function("Layer <norm> & co", [x, gamma], results, given, [0, 1])
    return Graph({"y": ops.function("Mish", [y], [y * ops.tanh(ops.softplus(y))])[0], "mean": mean})


def lines(source, kind):
    """The lines of the boxes of a class, as a reader sees them."""
    found = [re.search(rf"label=<(.*)> class={kind} ", box) for box in boxes(source).values()]
    return [[" ".join(words(f"<{line}>")) for line in label[1].split("<BR/>")] for label in found if label]


@pytest.mark.parametrize("theme", THEMES)
def test_a_function_is_one_box_with_its_name_and_attributes(theme):
    source = to_dot(with_functions(), theme=theme)
    first, second = lines(source, "function")
    assert first[0] == "Layer &lt;norm&gt; &amp; co" and first[2] == "function of 9 ops"
    assert first[1].startswith("axis -1, ε 0.1, note &lt;&amp;&gt;\\\\N, scales (1.5, 1.5")
    assert len(first[1]) < 80  # entities and all
    assert second == ["Mish", "function of 3 ops"]
    fill, border = THEMES[theme].boxes["function"]
    assert source.count(f'class=function color="{border}" fillcolor="{fill}"') == 2
    assert ">function</FONT>" in source[source.rindex("label=<<TABLE") :]


@pytest.mark.parametrize("options", [{}, {"collapse": "none"}, {"max_nodes": 1}, {"collapse": 1}], ids=str)
def test_nothing_of_what_is_inside_is_in_a_picture(options):
    graph = with_functions()
    assert all(text in str(graph) for text in INSIDE)
    source = to_dot(graph, **options)
    assert [text for text in INSIDE if text in source] == []


@pytest.mark.skipif(not ladder("svg"), reason="nothing here draws")
def test_it_can_be_drawn():
    svg = render(with_functions())
    assert "Layer &lt;norm&gt; &amp; co" in svg and "function of 3 ops" in svg
    assert [text for text in INSIDE if text in re.sub(r"<title>.*?</title>", "", svg)] == []


def test_the_arrows_of_a_function_say_which_result_they_carry():
    labels = [label.replace("\N{NO-BREAK SPACE}", " ") for _, _, label in edges(to_dot(with_functions()))]
    assert sum("> 0 [4,3] <" in label for label in labels) == sum("> 1 [4,1] <" in label for label in labels) == 1


def test_a_collapsed_layer_names_its_functions_and_has_their_colour():
    with scope("block"):
        graph = with_functions()
    source = to_dot(Graph({"y": ops.exp(graph.outputs["y"])}), collapse=1)
    (layer,) = lines(source, "scope")
    assert layer[0] == "block" and "Layer &lt;norm&gt; &amp; co · Mish" in layer
    assert ">function</FONT>" in source


def test_a_layer_of_one_function_is_called_by_it():
    with scope("head"):
        (y,) = ops.function("Act", [x := input_((2,), name="x")], [ops.relu(x * 2.0)], [("alpha", 0.5)])
    (layer,) = lines(to_dot(Graph({"y": ops.exp(y)}), collapse=1), "scope")
    assert layer[:3] == ["head", "Act", "alpha 0.5"]


def test_a_gradient_of_a_function_is_in_the_backward_lane_and_drawn():
    x = variable((3,), name="x")
    (y,) = ops.function("Act", [x], [ops.tanh(x * 2.0)])
    (dx,) = mg.gradients(ops.sum(y), [x])
    source = to_dot(Graph({"y": y, "dx": dx}))
    assert len(lines(source, "function")) == 1 and "step(" not in source


def test_inlining_is_shown_as_what_it_did():
    _, trace = mg.optimize(with_functions(), passes="inline")
    source = to_dot(trace)
    assert "inline_function" in source and "item_of_function" in source and "softplus" in source
    assert [text for text in ("step(", "body", "slots") if text in source] == []
    assert "inline_function" in trace.report() and "step(" not in trace.report()


def test_expressions_of_parameters_name_a_function_by_its_label():
    w = variable((3,), name="w")
    (s,) = ops.function("Scale", [w], [ops.exp(w) + 1.0])
    source = to_dot(Graph({"y": input_((2, 3), name="x") * ops.sqrt(s * 2.0 + w)}), max_nodes=3)
    assert "step(" not in source and "function(" not in source
