"""Pipelines as text, what a run leaves out, single rewrites seen alone, and passes that fail."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir.random_graphs import values_for

import minigraph as mg
from minigraph import ops
from minigraph.errors import ArgumentError, GraphError, MinigraphError
from minigraph.ir import Graph, Node, bind, parse, scope, symbol, topological, variable, verify
from minigraph.ir.leaves import input as input_
from minigraph.ops.activations import Relu
from minigraph.passes import (
    FUSE,
    SIMPLIFY,
    CommonSubexpressions,
    DeadCode,
    FoldConstants,
    Freeze,
    Lower,
    PassError,
    Pipeline,
    Rematerialise,
    Rewriting,
    Selection,
    Trace,
    lower,
    pipelines,
    run,
)  # fmt: skip
from minigraph.passes.bind import Bind
from minigraph.runtime import constant_evaluator
from minigraph.runtime.optimize import optimize, peak_memory, reproduce
from minigraph.testing.networks import random_network, random_values, training_graph

MEANS = pipelines.Means(constant_evaluator(), peak=peak_memory)
PLAIN = [name for name in pipelines.NAMES if name not in ("bind", "lower", "mixed_precision", "rematerialise")]


def small(state: bool = False) -> Graph:
    """Return a definition with something to do for most passes, two layers of it."""
    with mg.fresh_names():
        x = input_((symbol("N"), 6, 6, 3), name="x")
        with scope("block1"), scope("conv"):
            y = ops.conv2d(ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), variable((3, 3, 3, 4), name="w", init=0.5))
        vectors = [variable((4,), name=n, init=1.0) for n in ("gamma", "beta", "mean", "variance")]
        with scope("block1"), scope("norm"):
            y = ops.relu(ops.batch_norm(y, *vectors)) * 1.0
        with scope("block2"):
            y = ops.tanh(y + 0.0) * (ops.constant(2.0) + ops.constant(3.0))
        kept = variable((), name="kept", init=0.0)
        return Graph({"y": y, "again": ops.exp(x) + ops.exp(x)}, {kept: kept})


# --- pipelines as text --------------------------------------------------------------------------------------------

SIZES = st.dictionaries(st.sampled_from(["N", "M", "height"]), st.integers(0, 10**6), min_size=1, max_size=3)
ITEMS = st.one_of(
    st.sampled_from(PLAIN).map(lambda name: (name, [])),
    SIZES.map(lambda sizes: ("bind", [f"{k}={v}" for k, v in sizes.items()])),
    st.tuples(st.sampled_from(["training", "inference"]), st.integers(0, 99)).map(
        lambda t: ("lower", [t[0], f"seed={t[1]}"] if t[1] else [t[0]])
    ),
    st.sampled_from(["float16", "bfloat16"]).map(lambda dtype: ("mixed_precision", [dtype])),
    st.integers(0, 10**9).map(lambda n: ("fold_constants", [f"limit={n}"])),
    st.integers(0, 10**12).map(lambda n: ("rematerialise", [str(n)])),
)
SPACE = st.sampled_from(["", "", " ", "\n  ", "\t"])


@settings(max_examples=200, deadline=None)
@given(st.lists(ITEMS, max_size=8), st.data())
def test_the_text_of_a_pipeline_reads_back(items: list[tuple[str, list[str]]], data: st.DataObject) -> None:
    def spaced(*words: str) -> str:
        return "".join(data.draw(SPACE) + word for word in words) + data.draw(SPACE)

    texts = [
        spaced(name, "(", ",".join(spaced(*a.partition("=")) for a in arguments), ")") if arguments else spaced(name)
        for name, arguments in items
    ]
    pipeline = pipelines.parse(",".join(texts), MEANS)
    text = str(pipeline)
    again = pipelines.parse(text, MEANS)
    assert again == pipeline and str(again) == text
    if not any(name in ("optimize", "program") for name, _ in items):
        default = {f"fold_constants(limit={FoldConstants.limit})": "fold_constants"}
        wanted = [f"{name}({', '.join(arguments)})" if arguments else name for name, arguments in items]
        assert text == ",".join(default.get(w, w) for w in wanted)


def test_passes_by_name_are_what_they_say() -> None:
    text = "bind(N=3, M=4),lower(training, seed=7),cse,fold_constants(limit=9),dead_code,fuse,rematerialise(1000)"
    pipeline = pipelines.parse(text, MEANS)
    assert str(pipeline) == text
    assert pipeline.passes == (
        Bind((("N", 3), ("M", 4))), Lower("training", 7), CommonSubexpressions(),
        FoldConstants(MEANS.evaluate, 9), DeadCode(), FUSE, Rematerialise(1000, MEANS.peak),
    )  # fmt: skip
    assert pipelines.parse("fold_constants(9)", MEANS).passes == (FoldConstants(MEANS.evaluate, 9),)
    assert pipelines.parse("", MEANS).passes == () == pipelines.parse(" \n", MEANS).passes


def test_lists_by_name_are_written_out() -> None:
    for name in ("optimize", "program"):
        text = str(pipelines.parse(name, MEANS))
        assert text == ",".join(p.name for p in getattr(pipelines, {"optimize": "optimized"}.get(name, name))(MEANS))
        assert str(pipelines.parse(f"cse,{name},cse", MEANS)) == f"cse,{text},cse"


def test_every_name_is_a_pass_of_that_name() -> None:
    arguments = {"bind": "(N=2)", "lower": "(training)", "mixed_precision": "(float16)", "rematerialise": "(5)"}
    for name in pipelines.NAMES:
        (first, *_) = pipelines.parse(name + arguments.get(name, ""), MEANS).passes
        assert first.name.partition("(")[0] == name or name in ("optimize", "program")
    made = [pipelines.parse(name, MEANS).passes[0] for name in PLAIN if name not in ("optimize", "program")]
    assert [p.name for p in made if isinstance(p, Rewriting)] == [p.name for p in pipelines.rewritings()] or {
        p.name for p in made if isinstance(p, Rewriting)
    } == {p.name for p in pipelines.rewritings()}


def test_a_pipeline_in_a_pipeline() -> None:
    inner = Pipeline((SIMPLIFY, DeadCode()), "clean")
    outer = Pipeline((CommonSubexpressions(), inner, FUSE))
    assert str(outer) == "cse,simplify,dead_code,fuse"
    graph = Graph({"y": ops.relu(ops.exp(input_((2,), name="x") * 1.0))})
    flat, trace = run([outer], graph)
    assert [s.name for s in trace.steps] == ["cse", "simplify", "dead_code", "fuse"]
    assert flat.same_as(run(pipelines.parse(str(outer), MEANS).passes, graph)[0])


def test_an_empty_pipeline_in_a_pipeline() -> None:
    assert str(Pipeline((Pipeline(()), FUSE))) == "fuse"


@pytest.mark.parametrize(
    ("name", "meant"),
    [("fold_batchnorm", "fold_batch_norm"), ("fus", "fuse"), ("simplfy", "simplify"), ("CSE", "cse"),
     ("lowr(training)", "lower"), ("fold_constant(limit=3)", "fold_constants"), ("optimise", "optimize")],
)  # fmt: skip
def test_unknown_names_are_refused_and_the_nearest_is_named(name: str, meant: str) -> None:
    with pytest.raises(ArgumentError, match="no pass is called") as caught:
        pipelines.parse(f"cse,{name}", MEANS)
    assert meant in str(caught.value.expected)
    assert f"{meant}?" in str(caught.value.hint) or name == "CSE"
    assert caught.value.where.startswith(__file__)
    with pytest.raises(ArgumentError, match="no pass is called"):
        optimize(small(), passes=f"cse,{name}")


@pytest.mark.parametrize(
    "text",
    ["cse(", "cse)", "cse fuse", "cse,,fuse", ",cse", "lower(x(y))", "1", "cse;fuse", "lower(training))", "cse,1",
     "lower(training", "(training)", "cse.fuse", "lower[training]", "cse,-fuse", "a=b", "✓", "cse()()"],
)  # fmt: skip
def test_broken_text_is_refused(text: str) -> None:
    with pytest.raises(ArgumentError, match=r"cannot be read|no pass is called"):
        pipelines.parse(text, MEANS)


@pytest.mark.parametrize(
    "text",
    ["cse(1)", "lower", "lower()", "lower(nonsense)", "lower(training, sed=1)", "fuse(limit=3)", "rematerialise",
     "rematerialise(1, 2)", "optimize(3)", "program(memory_limit=3)", "bind(3)", "freeze(w=3)", "unfuse(all)",
     "fold_constants(limit=3, limit=4, more=5)", "lower(training, mode=inference)", "bind(means=3)"],
)  # fmt: skip
def test_arguments_that_a_pass_does_not_have_are_refused(text: str) -> None:
    with pytest.raises(ArgumentError):
        pipelines.parse(text, MEANS)


@pytest.mark.parametrize(
    "text",
    [
        "bind(N=x)", "bind(N=-1)", "bind(N=2.5)", "lower(training, seed=x)",
        "fold_constants(limit=many)", "fold_constants(limit=-1)", "bind(N=2),lower(training),rematerialise(little)",
    ],
)  # fmt: skip
def test_arguments_of_the_wrong_kind_are_refused(text: str) -> None:
    with mg.fresh_names():
        graph = Graph({"y": ops.dropout(small().outputs["y"], 0.5)})
    with pytest.raises(MinigraphError):
        optimize(graph, passes=text)


def test_a_memory_limit_needs_somebody_who_can_measure() -> None:
    with pytest.raises(ArgumentError, match="nobody here can tell"):
        pipelines.parse("rematerialise(5)", pipelines.Means(constant_evaluator()))


def test_a_pipeline_given_as_text_or_as_passes_does_the_same() -> None:
    text = "bind(N=2),simplify,merge_pads,fold_batch_norm,fuse"
    first, trace = optimize(small(), passes=text)
    assert [s.name for s in trace.steps] == ["bind", "simplify", "merge_pads", "fold_batch_norm", "fuse"]
    assert first.same_as(optimize(small(), passes=pipelines.parse(text, MEANS).passes)[0])
    assert all(s.rewrites for s in trace.steps[1:]) and first.symbols == ()


def test_sizes_that_a_graph_does_not_have_are_left_out() -> None:
    assert optimize(small(), passes="bind(N=2, M=3)")[0].symbols == ()
    graph = Graph({"y": ops.exp(input_((3,), name="x"))})
    assert optimize(graph, passes="bind(N=2)")[0].same_as(graph)


# --- what is left out ---------------------------------------------------------------------------------------------


def rules_of(trace: Trace) -> set[str]:
    """Return the rules that rewrote something."""
    return {rewrite.rule for rewrite in trace.rewrites}


EVERYTHING = {
    "same_op_same_operands", "multiply_by_one", "add_zero", "evaluate_constants", "convolution_of_pad",
    "batch_norm_of_linear", "fuse_into_reader",
}  # fmt: skip


def test_nothing_is_left_out_by_default() -> None:
    _, trace = optimize(small())
    assert rules_of(trace) >= EVERYTHING, rules_of(trace)
    assert not any(r.reason.startswith("excluded") for r in trace.refusals.values())


@pytest.mark.parametrize(
    ("exclude", "gone"),
    [
        (["fuse"], {"fuse_into_reader"}), (["fuse_into_reader"], {"fuse_into_reader"}),
        (["simplify"], {"multiply_by_one", "add_zero"}), (["add_*"], {"add_zero"}), (["*_zero"], {"add_zero"}),
        (["simplif?"], {"multiply_by_one", "add_zero"}), (["*"], EVERYTHING),
        (["fold_*"], {"batch_norm_of_linear", "evaluate_constants"}),
        (["scope:block1"], {"convolution_of_pad", "batch_norm_of_linear", "multiply_by_one"}),
        (["scope:block1/conv"], {"convolution_of_pad"}), (["scope:*/norm"], {"batch_norm_of_linear"}),
        (["scope:block?"], EVERYTHING - {"same_op_same_operands", "fuse_into_reader"}),
        (["scope:block1/conv", "scope:block2"], {"convolution_of_pad", "add_zero"}),
    ],
)  # fmt: skip
def test_exclude(exclude: list[str], gone: set[str]) -> None:
    graph, trace = optimize(small(), exclude=exclude)
    assert not rules_of(trace) & gone, rules_of(trace)
    assert EVERYTHING - gone <= rules_of(trace) | {"evaluate_constants", "multiply_by_one", "fuse_into_reader"}
    assert any(r.reason == "excluded from this run" for r in trace.refusals.values())
    same_numbers(small(), graph)


@pytest.mark.parametrize(
    ("include", "left"),
    [
        (["fuse"], {"fuse_into_reader"}), (["add_zero"], {"add_zero"}), (["cse", "merge_*"], None),
        (["scope:block1/conv"], {"convolution_of_pad"}), (["scope:block2", "simplify"], {"add_zero"}),
        (["scope:block1", "convolution_of_pad", "fuse"], None), (["nothing_of_that_name"], set()),
    ],
)  # fmt: skip
def test_include(include: list[str], left: set[str] | None) -> None:
    graph, trace = optimize(small(), include=include)
    if left is not None:
        assert rules_of(trace) == left
    assert rules_of(trace) < rules_of(optimize(small())[1])
    same_numbers(small(), graph)


def test_exclusion_is_stronger_than_inclusion() -> None:
    _, trace = optimize(small(), include=["simplify"], exclude=["add_zero"])
    assert "multiply_by_one" in rules_of(trace) and "add_zero" not in rules_of(trace)
    assert optimize(small(), include=["fuse"], exclude=["fuse"])[1].rewrites == ()


def test_what_was_excluded_is_the_reason_that_is_given() -> None:
    graph = bind(small(), N=2)
    norm = next(n for n in graph.nodes if n.op.name == "batch_norm")
    _, trace = optimize(graph, exclude=["scope:block1"])
    assert str(trace.why_not("fold_batch_norm", norm)).startswith("excluded from this run (batch_norm")


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(["a", "*", "p", "r", "x*", "scope:s", "scope:s/t", "scope:s*", "scope:*/t"]), max_size=3),
    st.lists(st.sampled_from(["a", "p", "r?", "q*", "scope:s/t", "scope:u", "scope:?"]), max_size=2),
    st.sampled_from(["", "s", "s/t", "s/t/u", "u", "st"]),
)  # fmt: skip
def test_selections_by_their_definition(include: list[str], exclude: list[str], place: str) -> None:
    """A name matches a pass or rule; a scope, one of the scopes around; both kinds of inclusion must hold."""
    from fnmatch import fnmatchcase

    around = ["/".join(place.split("/")[: i + 1]) for i in range(place.count("/") + 1)]

    def met(pattern: str) -> bool:
        wanted = pattern.removeprefix("scope:")
        return any(fnmatchcase(n, wanted) for n in (around if wanted != pattern else ("p", "r1")))

    names = [p for p in include if not p.startswith("scope:")]
    scopes = [p for p in include if p.startswith("scope:")]
    want = (not names or any(map(met, names))) and (not scopes or any(map(met, scopes))) and not any(map(met, exclude))
    assert Selection(tuple(include), tuple(exclude)).allows("p", "r1", place) == want


@pytest.mark.parametrize(
    ("pattern", "matches", "misses"),
    [("scope:blocks[0]", "blocks[0]/conv", "blocks0"), ("scope:blocks[*]", "blocks[12]", "blocks1"),
     ("scope:größe", "größe/x", "grosse"), ("scope:a/b", "a/b/c", "a/bc"), ("scope:a", "a/b", "ab")],
)  # fmt: skip
def test_scopes_with_brackets_and_letters(pattern: str, matches: str, misses: str) -> None:
    assert Selection((pattern,)).allows("p", "r", matches)
    assert not Selection((pattern,)).allows("p", "r", misses)


@pytest.mark.parametrize("mode", ["training", "inference"])
@pytest.mark.parametrize("pattern", ["lower", "lower({mode})", "lower*", "low?r"])
def test_lowering_can_be_left_out_by_its_name(mode: str, pattern: str) -> None:
    graph = Graph({"y": ops.dropout(input_((2,), name="x"), 0.5)})
    assert optimize(graph, passes=f"lower({mode})", exclude=[pattern.format(mode=mode)])[0].same_as(graph)


@pytest.mark.parametrize(
    "name",
    [
        *(n for n in PLAIN if n not in ("optimize", "program")),
    ],
)
def test_a_pass_that_is_left_out_changes_nothing(name: str) -> None:
    graph = run([FUSE], small())[0] if name == "unfuse" else small()
    state = mg.State.initial(graph.variables)
    left, trace = optimize(graph, state, passes=name, exclude=[name.partition("(")[0]])
    assert left.same_as(graph) and not trace.rewrites


def same_numbers(old: Graph, new: Graph) -> None:
    """Compare two graphs on random numbers, with 2 for N."""
    one, two = (bind(g, **dict.fromkeys(g.symbols, 2)) for g in (old, new))
    values = {k: abs(v) for k, v in values_for(one, 0).items()}
    mg.testing.assert_same_results(one, two, values, rtol=1e-5, atol=1e-6)


# --- the first rewrites only --------------------------------------------------------------------------------------


def test_a_limit_is_a_limit_on_each_pass_and_the_first_rewrites_are_made() -> None:
    _, full = optimize(small(), passes="cse,simplify")
    made = {step.name: [r.rule for r in step.rewrites] for step in full.steps}
    assert len(made["simplify"]) >= 2
    for limit in range(4):
        trace = Trace(Selection(limit=limit))
        run(pipelines.parse("cse,simplify", MEANS).passes, small(), trace)
        assert {s.name: [r.rule for r in s.rewrites] for s in trace.steps} == {k: v[:limit] for k, v in made.items()}


# --- single rewrites ----------------------------------------------------------------------------------------------


def by_id(graph: Graph) -> dict[int, Node]:
    """Return a graph's nodes by id, each of which is there once."""
    found = {node.id: node for node in graph.nodes}
    assert len(found) == len(graph.nodes)
    return found


def made_by(graph: Graph, new: int) -> set[int]:
    """Return the nodes that a new node is made of and that nothing else reads."""
    nodes, inside = by_id(graph), {new}
    stack = list(nodes[new].inputs)
    while stack:
        node = stack.pop()
        if graph.uses[node] == sum(reader.id in inside for reader in graph.users[node]) and node.id not in inside:
            inside.add(node.id)
            stack += node.inputs
    return inside


def differ_by_one_rewrite(before: Graph, after: Graph, old: int, new: int) -> None:
    """Assert that `after` is `before` with node `new`, and what is made for it, in the place of node `old`.

    Lowering a batch norm also makes the updates of its moving averages.
    """
    was, is_ = by_id(before), by_id(after)
    if old not in was:  # nothing read it any more when it was rewritten
        assert before.same_as(after)
        return

    def moved(node: Node) -> int:
        return new if node.id == old else node.id

    mine = made_by(after, new) if new in is_ else set()
    for id in was.keys() & is_.keys() - mine:
        assert is_[id].op == was[id].op
        assert [i.id for i in is_[id].inputs] == [moved(i) for i in was[id].inputs]
    changed = [v for t, v in after.updates.items() if v.id not in {moved(n) for n in before.updates.values()}]
    assert not changed or "batch_norm" in was[old].op.name
    assert is_.keys() - was.keys() <= mine | {n.id for n in topological(changed)}
    assert {k: n.id for k, n in after.outputs.items()} == {k: moved(n) for k, n in before.outputs.items()}
    assert {t.id for t in before.updates} <= {t.id for t in after.updates}


def examine(trace: Trace, values: dict[str, Any] | None, rtol: float) -> int:
    """Look at every single rewrite of a trace; return how many there are."""
    for index, step in enumerate(trace.steps):
        around = [trace.graphs_around(index, i) for i in range(len(step.rewrites))]
        if not around:
            continue
        for (before, after), rewrite in zip(around, step.rewrites, strict=True):
            verify(before), verify(after)
            differ_by_one_rewrite(before, after, rewrite.old.id, rewrite.new.id)
            if values is not None:
                mg.testing.assert_same_results(before, after, values, rtol=rtol, atol=rtol)
        for (_, one), (two, _) in pairwise(around):
            assert one.same_as(two) and [n.id for n in one.nodes] == [n.id for n in two.nodes]
        assert around[0][0].same_as(step.before) and around[-1][1].same_as(step.after)
        assert [n.id for n in around[-1][1].nodes] == [n.id for n in step.after.nodes]
    return len(trace.rewrites)


@pytest.mark.parametrize("seed", range(8))
def test_every_single_rewrite_of_an_inference_graph(seed: int) -> None:
    rng = random.Random(seed)
    definition = random_network(rng, dtype="float64", size=(5, 25))
    graph = lower(bind(definition, **dict.fromkeys(definition.symbols, 3)), "inference")
    values = random_values(graph, rng)
    state = {v.label: values[v.label] for v in graph.variables}
    means = pipelines.Means(constant_evaluator(), state, peak=peak_memory)
    _, trace = optimize(graph, state, [*pipelines.legalise(), *pipelines.optimized(means)])
    assert examine(trace, values, 1e-8) >= len(graph.variables) > 0


@pytest.mark.parametrize("seed", range(4))
def test_every_single_rewrite_of_a_training_graph(seed: int) -> None:
    rng = random.Random(seed)
    definition = random_network(rng, dtype="float64", size=(5, 15))
    graph = bind(training_graph(definition), **dict.fromkeys(definition.symbols, 3))
    values = random_values(graph, rng)
    _, trace = optimize(graph, passes=[*pipelines.legalise(), *pipelines.program(MEANS)])
    assert examine(trace, values, 1e-7) > 0


@pytest.mark.parametrize("mode", ["training", "inference"])
def test_every_single_rewrite_of_lowering(mode: str) -> None:
    for seed in range(12):
        _, trace = run([Lower(mode)], random_network(random.Random(seed), size=(5, 25)))
        examine(trace, None, 0)


def test_histories_agree_with_the_traces_own_nodes() -> None:
    value = ops.exp(input_((3,), name="x"))  # joins what the first rewrite has made
    _, trace = run([FUSE], Graph({"y": ops.tanh(value) * value}))
    after = trace.graphs_around("fuse", 1)[1]
    assert after.outputs["y"].origin.history == trace.after.outputs["y"].origin.history


def test_a_rewrite_or_step_that_is_not_there() -> None:
    _, trace = optimize(small(), passes="cse,simplify")
    for which in (2, -3, "fuse", "", 1.0):
        with pytest.raises(ArgumentError, match="no such step") as caught:
            trace.step(which)  # type: ignore[arg-type]
        assert caught.value.expected == "0 cse, 1 simplify"
    for rewrite in (-1, len(trace.step("simplify").rewrites)):
        with pytest.raises(ArgumentError, match="no such rewrite in step simplify"):
            trace.graphs_around("simplify", rewrite)
    assert trace.step(-1) is trace.step("simplify") is trace.steps[1]
    with pytest.raises(ArgumentError, match="no passes ran"):
        _ = Trace().before


def test_a_pass_that_is_not_deterministic_is_found_out() -> None:
    left = [1]

    def once(node: Node) -> Node | None:
        """f(x) = x, the first time."""
        return node.inputs[0] if node.inputs and left and left.pop() else None

    graph = Graph({"y": ops.tanh(ops.tanh(ops.exp(input_((2,), name="x"))))})
    _, trace = run([Rewriting("fickle", (once,))], graph)
    with pytest.raises(GraphError, match="pass fickle is not deterministic"):
        trace.graphs_around(0, 0)


# --- passes that fail ---------------------------------------------------------------------------------------------


class Broken:
    """A pass that leaves a node with a type that is not the inferred one, wherever there is a relu."""

    name = "broken"

    def __call__(self, graph: Graph, trace: Trace) -> Graph:
        def make(node: Node, inputs: tuple[Node, ...]) -> Node:
            new = Node(node.op, inputs, origin=node.origin, id=node.id)
            if isinstance(node.op, Relu):
                object.__setattr__(new, "type", input_((7,), name="z").type)
            return new

        return graph.rebuild(make)


class Raising:
    """A pass that refuses every graph with a relu."""

    name = "raising"

    def __call__(self, graph: Graph, trace: Trace) -> Graph:
        relus = [n for n in graph.nodes if isinstance(n.op, Relu)]
        if relus:
            raise GraphError("I do not like relu", expected="none", got=len(relus), where=relus[0].origin.where)
        return graph


@pytest.fixture
def broken_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two passes more, which a pipeline's text can name."""
    more = {"broken": lambda means: Broken(), "raising": lambda means: Raising()}
    monkeypatch.setattr(pipelines, "_PASSES", {**pipelines._PASSES, **more})


def relus() -> Graph:
    """Return a graph that both dislike once it is simplified, with a name that JSON has to escape."""
    return Graph({"größe": ops.relu(input_((3,), name='x "1"') * 1.0)})


@pytest.mark.parametrize(
    ("name", "reason"), [("broken", "rule 2: relu has a stale type"), ("raising", "I do not like")]
)
def test_a_pass_that_fails_leaves_a_reproducer(name: str, reason: str, tmp_path: Any, broken_passes: None) -> None:
    path = tmp_path / "failed.json"
    with pytest.raises(PassError, match=f"pass {name} failed: {reason}") as caught:
        optimize(relus(), passes=f"simplify,{name},fuse", verify_each=True, reproducer=path)
    error = caught.value
    assert error.failed.name == name and str(path) in str(error) and error.__cause__ is not None
    assert error.graph.same_as(run([SIMPLIFY], relus())[0])
    assert error.hint == f"reproduce it with: minigraph passes --reproduce {path}"
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["pipeline"] == name and content["error"] == error.summary and "größe" in content["graph"]
    assert parse(content["graph"]).same_as(error.graph)
    with pytest.raises(PassError, match=reason) as again:
        reproduce(path)
    assert again.value.summary == error.summary


def test_without_a_file_the_reproducer_is_in_the_temporary_folder(
    tmp_path: Any, broken_passes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for _ in range(2):
        with pytest.raises(PassError):
            optimize(relus(), passes="raising", verify_each=True)
    found = list(tmp_path.glob("minigraph-*/reproducer.json"))
    assert len(found) == 2
    with pytest.raises(PassError, match="I do not like relu"):
        reproduce(found[0])


def test_nothing_is_checked_or_written_unless_it_is_asked_for(tmp_path: Any, broken_passes: None) -> None:
    path = tmp_path / "failed.json"
    graph, _ = optimize(relus(), passes="broken", reproducer=path)
    assert graph.outputs["größe"].shape == (7,)
    with pytest.raises(GraphError, match="I do not like") as caught:
        optimize(relus(), passes="raising", reproducer=path)
    assert not isinstance(caught.value, PassError) and not path.exists()


def test_passes_that_do_not_fail_leave_nothing(tmp_path: Any) -> None:
    path = tmp_path / "failed.json"
    graph, _ = optimize(small(), verify_each=True, reproducer=path)
    assert not path.exists() and graph.same_as(optimize(small())[0])


def test_a_reproducer_of_a_pass_with_arguments(tmp_path: Any) -> None:
    path = tmp_path / "failed.json"
    with pytest.raises(PassError, match="rematerialise failed"):
        optimize(bind(small(), N=2), passes="cse,rematerialise(64)", verify_each=True, reproducer=path)
    assert json.loads(path.read_text(encoding="utf-8"))["pipeline"] == "rematerialise(64)"
    with pytest.raises(PassError, match="does not fit into 64 bytes"):
        reproduce(path)


def test_a_reproducer_of_a_pass_that_works_now(tmp_path: Any) -> None:
    path = tmp_path / "fixed.json"
    path.write_text(json.dumps({"graph": str(relus()), "pipeline": "simplify"}), encoding="utf-8")
    graph, trace = reproduce(path)
    assert graph.same_as(run([SIMPLIFY], relus())[0]) and [s.name for s in trace.steps] == ["simplify"]


@pytest.mark.parametrize("text", ['{"graph": "graph {}"}', "[1]", "3", '{"pipeline": "cse"}'])
def test_a_file_that_is_no_reproducer(text: str, tmp_path: Any) -> None:
    path = tmp_path / "other.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ArgumentError, match="not a reproducer"):
        reproduce(path)


def test_a_rule_that_builds_what_cannot_be_built_leaves_a_reproducer(tmp_path: Any) -> None:
    def wrong(node: Node) -> Node | None:
        """relu(x) = x + 3 numbers, which do not fit."""
        return node.inputs[0] + variable((4,), name="v") if isinstance(node.op, Relu) else None

    path = tmp_path / "failed.json"
    with pytest.raises(PassError):
        optimize(relus(), passes=[Rewriting("wrong", (wrong,))], verify_each=True, reproducer=path)
    assert path.exists()


def test_a_trace_goes_on_after_a_pass_that_failed() -> None:
    def half(node: Node) -> Node | None:
        """exp(x) = tanh(x), and relu is too much."""
        if isinstance(node.op, Relu):
            raise GraphError("no relu")
        return ops.tanh(node.inputs[0]) if node.op.name == "exp" else None

    trace = Trace()
    graph = Graph({"y": ops.relu(ops.exp(input_((2,), name="x")))})
    with pytest.raises(GraphError):
        run([Rewriting("half", (half,))], graph, trace)
    run([CommonSubexpressions()], graph, trace)
    assert trace.rewrites == ()


def test_freezing_reads_the_numbers_it_is_given() -> None:
    graph = Graph({"y": variable((2,), name="w") * 2.0})
    with pytest.raises(GraphError, match="no value for variable 'w'"):
        optimize(graph, passes="freeze")
    frozen = optimize(graph, {"w": np.float32([1, 2])}, passes="freeze,fold_constants")[0]
    assert frozen.outputs["y"].op.values() == [2, 4]  # type: ignore[attr-defined]
    assert Freeze({}).name == "freeze"
