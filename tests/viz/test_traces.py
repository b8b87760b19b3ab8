"""What passes did, as a picture: two panels, what is new marked by glyph, line and class, never by colour alone."""

import io
import itertools
import os
import random
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest
from dot_text import boxes, edges, panels, rows, words
from hypothesis import given, settings
from hypothesis import strategies as st
from ir.random_graphs import definition, runnable
from viz_graphs import network

import minigraph as mg
from minigraph import layers, ops
from minigraph.errors import ArgumentError
from minigraph.ir import OPS, Graph, Node, scope, symbol, variable
from minigraph.ir.leaves import input as input_
from minigraph.ops.fused import Fused
from minigraph.ops.region import Step
from minigraph.passes import MODES, SIMPLIFY, CommonSubexpressions, DeadCode, Lower, Trace, run
from minigraph.viz import mimebundle, render, to_dot
from minigraph.viz.diff import ADDED, CHANGED, GLYPHS, KEPT, REMOVED, compare, marks
from minigraph.viz.renderer import ladder

SVG = "{http://www.w3.org/2000/svg}"
drawing = pytest.mark.skipif(not ladder("svg"), reason="nothing here draws")


@dataclass(frozen=True)
class Replace:
    """A pass without rules: each node is what `make` says."""

    make: object
    name: str = "replace"

    def __call__(self, graph, trace):
        return graph.rebuild(self.make)


def simplified():
    """A trace of one pass, three rewrites."""
    x = input_((symbol("N"), 8), name="x")
    y = ops.relu(ops.matmul(x * 1.0, variable((8, 4), name="w")))
    return run([SIMPLIFY], Graph({"y": ops.exp(y / 4.0) + 0.0}))[1]


def legend(source):
    """What stands above both panels."""
    return source[source.rindex("label=<<TABLE") :]


def box(panel, *said):
    """The line of the one box of a panel that says all these words."""
    found = [line for line in boxes(panel).values() if "label" in line and set(said) <= set(words(line))]
    assert len(found) == 1, found
    return found[0]


def glyph(line):
    first = words(line)[0]
    return first.removesuffix("&#160;") if first.endswith("&#160;") else ""


def mark(line):
    """The mark by class of a box."""
    found = re.search(r'class="?([\w ]+)', line)
    return next((c for c in found[1].split() if c in (ADDED, REMOVED, CHANGED, KEPT)), "") if found else ""


# --- what is marked, and how ---------------------------------------------------------------------------------------


def test_what_a_rule_removes_is_dashed_with_a_minus_and_names_the_rule():
    before, _ = panels(to_dot(simplified()))
    line = box(before, "mul")
    assert (glyph(line), mark(line)) == ("−", REMOVED)
    assert 'style="rounded,filled,dashed"' in line
    assert words(line)[-2:] == ["by", "multiply_by_one"]


def test_what_a_rule_adds_is_thick_with_a_plus_and_names_the_rule():
    _, after = panels(to_dot(simplified()))
    line = box(after, "mul")
    assert (glyph(line), mark(line)) == ("+", ADDED)
    assert "penwidth=3" in line
    assert words(line)[-2:] == ["by", "divide_by_constant"]


def test_what_reads_something_else_is_changed_on_both_sides():
    for panel in panels(to_dot(simplified())):
        line = box(panel, "matmul")
        assert (glyph(line), mark(line)) == ("~", CHANGED)
        assert "dashed" not in line


def test_what_is_unchanged_is_plain_and_pale():
    for panel in panels(to_dot(simplified())):
        line = box(panel, "w")
        assert (glyph(line), mark(line)) == ("", KEPT)
        assert "penwidth" not in line and "style" not in line
        assert "#fef3c7" not in line, "the full colour of variables"


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda n, i: n.with_inputs(i, OPS["sin"]()) if n.op.name == "cos" else n.with_inputs(i), {"cos", "sin"}),
        (lambda n, i: n.with_inputs(i, OPS["sum"]((1,))) if n.op.name == "sum" else n.with_inputs(i), {"sum"}),
        (lambda n, i: n.with_inputs(i[::-1]) if n.op.name == "sub" else n.with_inputs(i), {"sub"}),
    ],
    ids=["op", "attributes", "operands"],
)
def test_the_same_id_with_something_else_is_changed(make, names):
    x, z = input_((3, 3), name="x"), input_((3, 3), name="z")
    graph = Graph({"y": ops.sum(x, (0,)), "u": x - z, "v": ops.cos(z)})
    _, trace = run([Replace(make)], graph)
    for panel in panels(to_dot(trace)):
        changed = [line for line in boxes(panel).values() if mark(line) == CHANGED]
        assert {words(line)[1] for line in changed} <= names
        assert len(changed) == 1
        assert not [line for line in boxes(panel).values() if mark(line) in (ADDED, REMOVED)]


def test_another_type_is_a_change():
    x = input_((3,), name="x")
    wider = input_((4,), name="x").op
    trace = run([Replace(lambda n, i: n.with_inputs(i, wider if n.op.name == "input" else None))], Graph({"y": -x}))[1]
    assert all(mark(box(panel, "neg")) == CHANGED for panel in panels(to_dot(trace)))


def test_constants_are_told_apart_by_value_as_operands():
    x = input_((3,), name="x")
    graph = Graph({"y": ops.exp(x * 2.0) + ops.sin(x * 2.0)})
    _, trace = run([CommonSubexpressions()], Graph({"y": x * 2.0, "z": ops.exp(x) * 2.0}))
    source = to_dot(trace)
    assert {mark(line) for panel in panels(source) for line in boxes(panel).values()} <= {KEPT, ""}
    assert "what changed has no box of its own" in source
    merged = panels(to_dot(run([CommonSubexpressions()], graph)[1]))
    assert [mark(line) for line in boxes(merged[0]).values() if "mul" in words(line)] == [KEPT, REMOVED]
    assert mark(box(merged[1], "sin")) == CHANGED


def test_graphs_that_are_the_same_say_so():
    assert "both graphs are the same" in to_dot(run([DeadCode()], Graph({"y": -variable((2,), name="x")}))[1])


def test_outputs_and_updates_are_marked_too():
    w, v = (variable((3,), name=n) for n in "wv")
    graph = Graph({"y": ops.exp(w) * 1.0, "z": w}, {w: ops.sin(w), v: v})
    before, after = panels(to_dot(run([DeadCode(), SIMPLIFY], graph)[1]))
    assert mark(box(before, "y", "output")) == mark(box(after, "y", "output")) == CHANGED
    assert mark(box(before, "z", "output")) == KEPT
    assert mark(box(before, "v", "←")) == REMOVED
    assert not [line for line in boxes(after).values() if "v" in words(line)]
    assert mark(box(after, "w", "←")) == KEPT


def test_edges_that_the_other_graph_does_not_have_are_heavier():
    for panel, new in zip(panels(to_dot(simplified())), (6, 4), strict=True):
        lines = boxes(panel)
        heavy = {(tail, head) for tail, head, rest in edges(panel) if "class=changed" in rest and "penwidth" in rest}
        light = {(tail, head) for tail, head, _ in edges(panel)} - heavy
        assert len(heavy) == new
        assert [(words(lines[tail])[:2], words(lines[head])[-1]) for tail, head in sorted(light)] == [
            (["w", "[8,4]"], "matmul"), (["~&#160;", "matmul"], "relu"),
        ]  # fmt: skip


def test_saved_values_gradients_and_updates_are_drawn_in_both_panels():
    _, trace = run([CommonSubexpressions(), SIMPLIFY], network(2))
    for panel in panels(to_dot(trace)):
        classes = " ".join(re.findall(r'class="?([\w ]+)', panel)).split()
        assert {"grad", "upd", "saved", "scope"} <= set(classes)


# --- titles --------------------------------------------------------------------------------------------------------


def test_panels_have_names_and_totals_with_their_change():
    source = to_dot(simplified())
    before, after = panels(source)
    assert 'class="panel before"' in before and 'class="panel after"' in after
    assert "<B>before</B>" in before and "<B>after</B>" in after
    trace = simplified()
    number = [len(trace.before.nodes), len(trace.after.nodes)]
    assert f"{number[0]} nodes · " in before
    assert f"{number[1]} nodes (−{number[0] - number[1]}) · " in after
    assert "FLOPs" in before and "B moved" in before and "(N = 1)" in before
    assert "peak" not in before


def test_peak_memory_is_told_where_somebody_measures_it():
    trace = simplified()
    trace.measure_peak = lambda graph: 100 * len(graph.nodes)
    before, after = panels(to_dot(trace))
    assert f"{len(trace.before.nodes) / 10:.2f} kB peak" in before
    assert "kB peak (−" in after or "B peak (−" in after


def test_batch_statistics_are_counted_for_two_examples():
    x = input_((symbol("N"), 4), name="x")
    mean, variance = ops.moments(x, (0,))
    graph = Graph({"y": ops.sum(mean * variance) * 1.0})
    assert "(N = " in panels(to_dot(run([SIMPLIFY], graph)[1]))[0]


def test_the_legend_explains_the_glyphs_and_says_which_rules_fired():
    head = legend(to_dot(simplified()))
    assert "<B>simplify</B>" in head
    assert all(f">{word}<" in head for word in ("added", "removed", "changed", "unchanged"))
    assert 'STYLE="ROUNDED,DASHED"' in head
    assert "multiply_by_one, divide_by_constant, add_zero" in head
    assert "×" not in head


def test_many_rules_are_counted():
    graph = Graph({"y": variable((3,), name="x") * 1.0 * 1.0 * 1.0 + 0.0})
    assert "multiply_by_one ×3, add_zero" in to_dot(run([SIMPLIFY], graph)[1])


def test_the_title_of_a_pipeline_names_the_passes_that_rewrote_something():
    _, trace = run([DeadCode(), CommonSubexpressions(), SIMPLIFY, DeadCode()], simplified().before)
    head = legend(to_dot(trace))
    assert "<B>simplify</B>" in head
    assert "4 passes ran, 1 of them rewrote something" in head
    assert "<B>mine</B>" in to_dot(trace, title="mine")


# --- steps and rewrites --------------------------------------------------------------------------------------------


def two_steps():
    x = variable((3,), name="x")
    return run([CommonSubexpressions(), SIMPLIFY], Graph({"y": (ops.exp(x) * 1.0 + ops.exp(x)) / 2.0 + 0.0}))[1]


def test_a_step_by_name_by_index_and_from_the_end():
    trace = two_steps()
    first, second = to_dot(trace, step=0), to_dot(trace, step=1)
    assert first == to_dot(trace, step="cse") == to_dot(trace, step=-2)
    assert second == to_dot(trace, step="simplify")
    assert first != second != to_dot(trace)
    assert "same_op_same_operands" in first and "add_zero" not in first


def test_a_single_rewrite_is_all_that_is_marked():
    trace = two_steps()
    names = [rewrite.rule for rewrite in trace.steps[1].rewrites]
    assert len(names) == 3
    for place, rule in enumerate(names):
        source = to_dot(trace, step="simplify", rewrite=place)
        assert f"<B>simplify, rewrite {place + 1} of 3: {rule}</B>" in source
        before, after = panels(source)
        assert [mark(line) for line in boxes(before).values()].count(REMOVED) == 1
        assert [mark(line) for line in boxes(after).values()].count(ADDED) == (rule == "divide_by_constant")
        assert f"by {rule}" in before


def test_a_single_rewrite_shows_its_formula():
    names = [rewrite.rule for rewrite in two_steps().steps[1].rewrites]
    source = to_dot(two_steps(), step=1, rewrite=names.index("multiply_by_one"))
    assert "x · 1 = x, x / 1 = x." in source


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"step": 2}, "0 cse, 1 simplify"),
        ({"step": -3}, "0 cse, 1 simplify"),
        ({"step": "fold"}, "0 cse, 1 simplify"),
        ({"step": "simplify", "rewrite": 3}, "0 … 2"),
        ({"step": "simplify", "rewrite": -1}, "0 … 2"),
        ({"rewrite": 0}, "step="),
        ({"step": True}, "index"),
        ({"step": 1, "rewrite": True}, "index"),
    ],
)
def test_what_there_is_not_is_an_error_that_says_what_there_is(arguments, said):
    with pytest.raises(ArgumentError) as caught:
        render(two_steps(), **arguments)
    assert said in str(caught.value)


def test_a_trace_without_steps_and_what_is_no_trace():
    with pytest.raises(ArgumentError, match="no passes ran"):
        to_dot(Trace())
    with pytest.raises(ArgumentError, match="a graph has no steps"):
        to_dot(simplified().before, step=0)
    with pytest.raises(ArgumentError, match="a graph or a trace"):
        to_dot("graph")


# --- what is folded ------------------------------------------------------------------------------------------------


def folded():
    """A trace in which batch norms go into the kernels before them, and regions are fused."""
    with mg.fresh_names():
        x = mg.Input((6, 6, 3), name="x")
        y = x
        for _ in range(3):
            y = layers.Conv2D(4, 3, padding="same", use_bias=False)(y)
            y = layers.BatchNormalization()(y)
            y = layers.Activation("relu")(y)
        model = mg.Model(x, {"y": layers.GlobalAveragePooling2D()(y)})
    return mg.optimize(model.lower("inference", batch_size=1))[1]


def test_parameter_expressions_are_boxes_titled_by_their_formula():
    _, after = panels(to_dot(folded(), step="fold_batch_norm"))
    line = next(line for line in boxes(after).values() if "kernel · s" in line)
    assert (glyph(line), mark(line)) == ("+", ADDED)
    assert re.search(r">\d+ nodes<", line)
    assert "by batch_norm_of_linear" in line
    assert after.count("s = gamma · rsqrt(moving_variance + 0.001)") == 3
    assert "beta − moving_mean · s" in after


def test_none_draws_every_node():
    trace = folded()
    before, after = panels(to_dot(trace, step="fold_batch_norm", collapse="none"))
    assert "kernel · s" not in after
    drawn = [i for i in boxes(after) if re.fullmatch(r"an\d+", i)]
    step = trace.step("fold_batch_norm")
    small = sum(n.op.name == "constant" for n in step.after.nodes)
    assert len(drawn) == len(step.after.nodes) - small
    assert [mark(line) for line in boxes(before).values()].count(REMOVED) == 3


def test_a_fused_node_is_a_frame_around_its_ops_and_what_it_swallowed_is_removed():
    before, after = panels(to_dot(folded(), step="fuse", collapse="none"))
    removed = [w for line in boxes(before).values() if mark(line) == REMOVED for w in words(line)]
    assert {"conv2d", "add", "relu"} <= set(removed)
    frames = re.findall(r"subgraph cluster_an\d+ \{\n.*?class=\"fused added\".*?\n", after, re.S)
    assert len(frames) == 3
    assert after.count("class=title") == 3
    assert [words(line)[0] for line in boxes(after).values() if "class=inner" in line][:3] == ["conv2d", "add", "relu"]


def test_what_did_not_change_is_one_box_a_layer_and_what_did_stays_open():
    source = to_dot(run([CommonSubexpressions(), SIMPLIFY], with_one_change(12))[1])
    for panel in panels(source):
        titles = [" ".join(words(line)) for line in boxes(panel).values()]
        closed = [t.split()[0] for t in titles if t.startswith("block")]
        assert closed == [f"block{i}" for i in range(12) if i != 5]
        assert [t for t in titles if t.startswith("dense")] == ["dense matmul 16 parameters"]
        assert any("tanh" in t for t in titles)
    before, after = panels(source)
    assert mark(box(before, "mul")) == REMOVED
    assert len(boxes(before)) < 30 and len(boxes(after)) < 30


def with_one_change(blocks):
    y = input_((8, 4), name="x")
    for i in range(blocks):
        with scope(f"block{i}"):
            with scope("dense"):
                y = ops.matmul(y, variable((4, 4), name=f"block{i}/dense/kernel"))
            y = ops.exp(ops.sin(ops.cos(y)))
            if i == 5:
                y = ops.tanh(y * 1.0)
    return Graph({"y": y})


def test_regions_outside_layers_are_folded_away_from_the_change():
    x = y = input_((8,), name="x")
    for _ in range(40):
        y = ops.exp(ops.sin(y))
    y = ops.relu(y * 1.0)
    for _ in range(40):
        y = ops.tanh(y) + x
    before, after = panels(to_dot(run([SIMPLIFY], Graph({"y": y}))[1]))
    for panel in (before, after):
        regions = [words(line) for line in boxes(panel).values() if words(line)[0] == "…"]
        assert regions == [["…", "78", "nodes"], ["…", "78", "nodes"]]
        assert len(boxes(panel)) < 12
        into = [(tail, head) for tail, head, _ in edges(panel)]
        assert not {(b, a) for a, b in into} & set(into), "arrows go one way"


def test_repeated_blocks_that_changed_alike_are_drawn_once_in_both_panels():
    y = input_((8, 4), name="x")
    for i in range(20):
        with scope(f"block{i}"):
            y = ops.exp(ops.matmul(y, variable((4, 4), name=f"w{i}")) * 1.0)
    for panel in panels(to_dot(run([SIMPLIFY], Graph({"y": y}))[1], max_nodes=30)):
        assert "block0 … block19 ×20" in panel
    before, after = panels(to_dot(run([SIMPLIFY], Graph({"y": y}))[1], max_nodes=30))
    assert mark(box(before, "mul")) == REMOVED
    assert mark(box(after, "exp")) == CHANGED


def test_a_block_that_changed_in_another_way_is_no_repeat():
    y = input_((8, 4), name="x")
    for i in range(20):
        with scope(f"block{i}"):
            y = ops.exp(ops.sin(y))
            y = ops.exp(y * (1.0 if i == 7 else 2.0))
    before, _ = panels(to_dot(run([SIMPLIFY], Graph({"y": y}))[1], max_nodes=15))
    assert "block0 … block6 ×7" in before and "block8 … block19 ×12" in before


def test_collapsed_layers_count_what_is_new_in_them():
    before, after = panels(to_dot(folded(), max_nodes=1))
    counts = [w for line in boxes(before).values() for w in words(line) if re.fullmatch(r"−\d+", w)]
    assert counts
    assert all(mark(line) != KEPT for line in boxes(after).values() if "fused" in line)


# --- layout --------------------------------------------------------------------------------------------------------


def test_what_both_graphs_have_stands_in_one_row():
    source = to_dot(simplified())
    before, after = map(boxes, panels(source))
    pairs = [(words(before[a]), words(after[b])) for a, b in rows(source)]
    assert [left[:2] for left, _ in pairs] == [right[:2] for _, right in pairs]
    assert [name for left, _ in pairs for name in ("x", "matmul", "relu", "exp", "y") if name in left] == [
        "x", "matmul", "relu", "exp", "y",
    ]  # fmt: skip


def test_the_ends_of_a_layer_stand_in_one_row_where_nothing_in_it_is_common():
    source = to_dot(folded(), step="fuse", collapse="none")
    before, after = map(boxes, panels(source))
    pairs = [(words(before[a]), words(after[b])) for a, b in rows(source) if a in before and b in after]
    assert sum("relu" in left and right == ["relu"] for left, right in pairs) == 3


@drawing
@pytest.mark.parametrize("direction", ["TB", "LR", "BT", "RL"])
def test_before_comes_first(direction):
    svg = render(simplified(), direction=direction)
    first, second = (extent(svg, name, direction) for name in ("before", "after"))
    assert first[1] <= second[0]


def extent(svg, name, direction):
    """Where a panel begins and ends, along the axis on which the two stand."""
    path = re.search(rf'id="mg\w+_{name}".*?<path [^>]*\bd="([^"]*)"', svg, re.S)[1]
    axis = direction in ("LR", "RL")
    values = [float(point.split(",")[axis]) for point in re.findall(r"-?[\d.]+,-?[\d.]+", path)]
    return min(values), max(values)


@drawing
def test_shared_boxes_have_the_same_height_on_the_page():
    svg = render(simplified())
    at = {m[1]: m[2] for m in re.finditer(r'<title>(\w+)</title>.*?<text [^>]*\by="([^"]*)"', svg, re.S)}
    pairs = rows(to_dot(simplified()))
    assert len(pairs) > 3
    assert all(abs(float(at[a]) - float(at[b])) < 12 for a, b in pairs)


@drawing
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_picture_of_a_trace_has_panels_classes_and_a_title(theme, tmp_path):
    root = ElementTree.fromstring(render(simplified(), theme=theme))
    assert root.get("role") == "img"
    assert root[0].text == "simplify: 11 nodes before, 7 after"
    classes = [g.get("class", "").split() for g in root.iter(SVG + "g")]
    assert sum("panel" in c for c in classes) == 2
    assert sum(c[:1] == ["node"] and "removed" in c for c in classes) == 3
    assert sum(c[:1] == ["node"] and "added" in c for c in classes) == 1
    data = io.BytesIO(render(simplified(), tmp_path / "trace.png", theme=theme).read_bytes())
    assert data.read(8) == b"\x89PNG\r\n\x1a\n"


@drawing
def test_a_notebook_gets_a_picture_and_the_report_of_a_trace():
    trace = simplified()
    bundle = mimebundle(trace)
    assert bundle["text/plain"] == trace.report()
    assert "cluster" in bundle["image/svg+xml"]
    assert mimebundle(Trace()) == {"text/plain": "no passes ran"}


def test_themes_differ_in_colours_only():
    def bare(theme):
        return re.sub(r"#[0-9a-f]{6}|mg[0-9a-f]{8}", "", to_dot(simplified(), theme=theme))

    assert bare("light") == bare("dark")
    colours = re.findall(r'(?:color|bgcolor|fillcolor|COLOR|BGCOLOR)="?([^"\s\]]+)', to_dot(simplified()))
    assert all(re.fullmatch(r"#[0-9a-f]{6}", c) for c in colours)


def test_the_same_trace_gives_the_same_bytes_whatever_the_ids_are():
    assert to_dot(simplified()) == to_dot(simplified())
    assert to_dot(folded()) == to_dot(folded())


def test_the_same_trace_gives_the_same_bytes_under_any_hash_seed():
    program = (
        "import sys, test_traces as t\n"
        "_, trace = t.run([t.CommonSubexpressions(), t.SIMPLIFY], t.network(3))\n"
        "for options in ({}, {'collapse': 'none'}, {'max_nodes': 9}, {'step': 1, 'rewrite': 2}):\n"
        "    sys.stdout.buffer.write(t.to_dot(trace, **options).encode())\n"
        "sys.stdout.buffer.write((t.to_dot(t.folded()) + t.to_dot(t.folded(), max_nodes=200)).encode())\n"
    )
    here = Path(__file__).parent
    path = os.pathsep.join([str(Path(mg.__file__).parents[1]), str(here), str(here.parent)])
    outputs = set()
    for seed in ("0", "1", "4242"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path}
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True)
        outputs.add(done.stdout)
    assert len(outputs) == 1
    assert len(outputs.pop()) > 10_000


# --- a graph alone -------------------------------------------------------------------------------------------------


def with_fused():
    x = input_((2, 3), name="x")
    w, b = variable((3, 3), name="w"), variable((3,), name="b")
    steps = ((OPS["matmul"](), (0, 1)), (OPS["add"](), (3, 2)), (OPS["relu"](), (4,)))
    return Graph({"y": ops.exp(Node(Fused(tuple(Step(op, inputs) for op, inputs in steps)), (x, w, b)))})


def test_a_fused_node_is_drawn_with_what_is_in_it():
    source = to_dot(with_fused())
    assert source.count("class=fused") == 1 and source.count("class=inner") == 3
    inner = [id for id, line in boxes(source).items() if "class=inner" in line]
    assert [words(boxes(source)[id]) for id in inner] == [["matmul"], ["add"], ["relu"]]
    arrows = [(tail, head) for tail, head, _ in edges(source)]
    assert set(itertools.pairwise(inner)) <= set(arrows)
    assert ("n0", inner[0]) in arrows and ("n1", inner[0]) in arrows and ("n2", inner[1]) in arrows
    assert any(tail == inner[2] for tail, _ in arrows)


def test_a_closed_fused_node_is_one_box_that_lists_its_ops():
    source = to_dot(with_fused(), max_nodes=5)
    assert "matmul · add · relu" in source
    assert "class=inner" not in source
    with scope("head"):
        graph = with_fused()
    assert "matmul·add·relu" in to_dot(Graph({"y": ops.exp(graph.outputs["y"])}), collapse=1)


def test_a_small_constant_is_written_into_the_step_that_reads_it():
    x = input_((3,), name="x")
    body = (Step(OPS["mul"](), (0, 1)), Step(OPS["exp"](), (2,)))
    source = to_dot(Graph({"y": Node(Fused(body), (x, ops.constant(0.5)))}))
    assert ["mul", "·", "0.5"] in [words(line) for line in boxes(source).values()]
    assert "class=constant" not in source


# --- many traces ---------------------------------------------------------------------------------------------------


def random_trace(seed):
    rng = random.Random(seed)
    if seed % 2:
        return run([CommonSubexpressions(), SIMPLIFY], runnable(rng, rng.randint(2, 30)))[1]
    return run([Lower(rng.choice(MODES)), SIMPLIFY], definition(rng, rng.randint(2, 30)))[1]


def check_picture(trace, source, collapse):
    for graph, panel in zip((trace.before, trace.after), panels(source), strict=True):
        drawn = boxes(panel)
        ids = re.findall(r"^\s*(\w+) \[(?=label|class)", panel, re.M)
        assert len(ids) == len(set(ids))
        assert {end for tail, head, _ in edges(panel) for end in (tail, head)} <= set(drawn)
        for line in drawn.values():
            if "shape=plain" not in line and "class=inner" not in line:
                assert glyph(line) == GLYPHS.get(mark(line), ""), line
                assert ("dashed" in line) == (mark(line) == REMOVED)
                assert ("penwidth=3" in line) == (mark(line) == ADDED)
        if collapse == "none":
            constants = sum(n.op.name in ("constant", "item") for n in graph.nodes)
            assert len([i for i in drawn if re.fullmatch(r"[ab]n\d+", i)]) >= len(graph.nodes) - constants
    titles = {a: b for a, b in rows(source) if a[0] == "b" and b[0] == "a"}
    assert len(set(titles.values())) == len(titles)


@pytest.mark.parametrize("seed", range(40))
def test_random_traces(seed):
    trace = random_trace(seed)
    for options in ({"collapse": "none"}, {}, {"max_nodes": 6}, {"collapse": 1}):
        source = to_dot(trace, **options)
        check_picture(trace, source, options.get("collapse"))
        source.encode()
    before, after = marks(compare(trace))
    old, new = ({n.id for n in g.nodes} for g in (trace.before, trace.after))
    assert {n.id for n, m in before.nodes.items() if m == REMOVED} == old - new
    assert {n.id for n, m in after.nodes.items() if m == ADDED} == new - old
    assert {n.id for n, m in before.nodes.items() if m == CHANGED} == {
        n.id for n, m in after.nodes.items() if m == CHANGED
    }


@drawing
@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=25)
def test_random_traces_can_be_rendered(seed):
    svg = render(random_trace(seed))
    assert "too long" not in svg and "failed" not in svg
    ElementTree.fromstring(svg)


@drawing
@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("collapse", ["none", "auto", 1])
def test_traces_of_training_graphs_can_be_rendered(blocks, collapse):
    _, trace = run([CommonSubexpressions(), SIMPLIFY], network(blocks))
    svg = render(trace, collapse=collapse)
    assert "too long" not in svg and "failed" not in svg
