"""The driver: provenance, statistics, what rules must not do; and what holds for every pass."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from ir.random_graphs import definition, runnable, values_for

import minigraph as mg
from minigraph import ops
from minigraph.errors import GraphError
from minigraph.ir import Graph, Node, bind, scope, symbol, variable, verify
from minigraph.ir.leaves import input as input_
from minigraph.passes import (
    CHANNELS_LAST,
    SIMPLIFY,
    CommonSubexpressions,
    DeadCode,
    FoldConstants,
    Freeze,
    Lower,
    Rewriting,
    Trace,
    pipelines,
    run,
)  # fmt: skip
from minigraph.runtime import constant_evaluator

PASSES = [
    SIMPLIFY, CHANNELS_LAST, CommonSubexpressions(), DeadCode(), FoldConstants(constant_evaluator()), Lower("training"),
    Lower("inference"),
]  # fmt: skip


def x_times_one(node: Node) -> Node | None:
    """x · 1 = relu(x), which is wrong but good to see."""
    if node.op.name == "mul":
        return ops.relu(ops.exp(node.inputs[0]))
    return None


def test_provenance_is_carried_to_every_node_a_rule_makes():
    with scope("layer"):
        old = input_((2,), name="x") * 1.0
        line = sys._getframe().f_lineno - 1
    graph, _ = run([Rewriting("wrong", (x_times_one,))], Graph({"y": old}))
    for node in (graph.outputs["y"], graph.outputs["y"].inputs[0]):
        assert node.origin.history == (("x_times_one", old.id),)
        assert node.origin.where == f"{__file__}:{line}" and node.origin.scope == "layer"


def test_history_grows_with_every_rewrite():
    def second(node: Node) -> Node | None:
        return ops.tanh(node.inputs[0]) if node.op.name == "relu" else None

    old = input_((2,), name="x") * 1.0
    first = run([Rewriting("one", (x_times_one,))], Graph({"y": old}))[0]
    graph = run([Rewriting("two", (second,))], first)[0]
    made = first.outputs["y"]
    assert graph.outputs["y"].origin.history == (("x_times_one", old.id), ("second", made.id))


def test_nodes_that_are_not_touched_keep_their_ids_and_origins():
    x = input_((2, 3), name="x")
    kept, rewritten = ops.exp(x), x * 1.0 + 0.0
    last = ops.tanh(kept + rewritten)
    graph = mg.optimize(Graph({"y": last}))[0]
    by_id = {n.id: n for n in graph.nodes}
    assert by_id[kept.id] is kept and by_id[x.id] is x
    assert by_id[last.id].origin is last.origin and by_id[last.id] is not last


def test_ids_stay_through_bind_lower_and_optimise():
    x = input_((symbol("N"), 3), name="x")
    y = ops.softmax(ops.tanh(x) @ variable((3, 2), name="w"))
    graph = mg.optimize(bind(mg.lower(Graph({"y": y}), "inference"), N=4))[0]
    assert graph.outputs["y"].id == y.id


def test_gradients_say_of_which_node_they_are_and_rewrites_keep_that():
    w = variable((3,), name="w")
    y = ops.sum(ops.tanh(w * 1.0))
    (g,) = mg.gradients(y, [w])
    forward = {n.id for n in Graph({"y": y}).nodes}
    adjoints = [n for n in mg.optimize(Graph({"g": g}))[0].nodes if n.origin.gradient_of is not None]
    assert adjoints and all(n.origin.gradient_of in forward for n in adjoints)


def test_statistics_count_tries_hits_and_rewrites():
    x = input_((2,), name="x")
    graph, trace = run([SIMPLIFY], Graph({"y": ops.exp(x + 0.0) + 0.0}))
    zero = trace.rules["add_zero"]
    assert zero.hits == 2 and zero.tries >= 2 and zero.seconds > 0
    (step,) = trace.steps
    assert [r.rule for r in step.rewrites] == ["add_zero", "add_zero"] and step.name == "simplify" and step.seconds > 0
    assert step.before.outputs["y"].op.name == "add" and step.after is graph
    assert all(r.old.type == r.new.type for r in step.rewrites)
    report = trace.report()
    assert "simplify" in report and "add_zero" in report and "double_negation" not in report
    assert str(trace) == report and Trace().report() == "no passes ran"


def test_passes_run_in_order_and_each_is_a_step():
    graph, trace = run([CommonSubexpressions(), DeadCode(), SIMPLIFY], Graph({"y": input_((2,), name="x") * 1.0}))
    assert [s.name for s in trace.steps] == ["cse", "dead_code", "simplify"]
    assert all(a.after is b.before for a, b in zip(trace.steps, trace.steps[1:], strict=False))
    assert trace.steps[-1].after is graph


def twice_is_sum(node: Node) -> Node | None:
    """x · 2 = x + x."""
    return node.inputs[0] + node.inputs[0] if node.op.name == "mul" else None


def sum_is_twice(node: Node) -> Node | None:
    """x + x = x · 2."""
    return node.inputs[0] * 2.0 if node.op.name == "add" else None


@pytest.mark.parametrize("copies", [1, 30])
def test_two_rules_that_undo_each_other_are_both_named(copies):
    x = input_((2,), name="x")
    graph = Graph({str(i): ops.exp(x) * 2.0 for i in range(copies)})
    with pytest.raises(GraphError, match="circle found no fixed point in 16 sweeps") as caught:
        run([Rewriting("circle", (twice_is_sum, sum_is_twice))], graph)
    assert "sum_is_twice" in str(caught.value) and "twice_is_sum" in str(caught.value)
    assert "undo each other" in caught.value.hint


@pytest.mark.parametrize("wrong", [
    lambda x: ops.cast(x, "float64"), lambda x: ops.sum(x), lambda x: ops.unsqueeze(x, 0),
    lambda x: ops.split(x, 1)[0].inputs[0],
])  # fmt: skip
def test_a_rule_that_changes_a_type_is_refused(wrong):
    def changes_type(node: Node) -> Node | None:
        return wrong(node.inputs[0]) if node.op.name == "tanh" else None

    y = ops.tanh(input_((2, 3), name="x"))
    with pytest.raises(GraphError, match="rule changes_type changes a node's type") as caught:
        run([Rewriting("p", (changes_type,))], Graph({"y": y}))
    assert caught.value.expected == y.type and caught.value.where.startswith(__file__)


def test_a_rule_that_returns_its_own_node_has_done_nothing():
    def nothing(node: Node) -> Node | None:
        return node

    graph = Graph({"y": -input_((2,), name="x")})
    after, trace = run([Rewriting("p", (nothing,))], graph)
    assert after.nodes == graph.nodes and trace.rules["nothing"].hits == 0


def test_an_exception_in_a_rule_passes_through_and_leaves_origins_alone():
    def broken(node: Node) -> Node | None:
        raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        run([Rewriting("p", (broken,))], Graph({"y": -input_((2,), name="x")}))
    assert ops.constant(1.0).origin.history == ()


# --- what holds for every pass ----------------------------------------------------------------------------------------


def graphs(count: int) -> list[Graph]:
    return [runnable(random.Random(seed)) for seed in range(count)] + [
        definition(random.Random(seed)) for seed in range(count)
    ]


@pytest.mark.parametrize("pass_", PASSES, ids=lambda p: p.name)
def test_a_pass_done_twice_is_done_once_and_valid(pass_):
    for graph in graphs(60):
        once = verify(run([pass_], graph)[0])
        twice = run([pass_], once)[0]
        assert twice.same_as(once), f"{once}\n\n{twice}"


def test_the_pipelines_done_twice_are_done_once():
    for graph in graphs(40):
        for pipeline in (pipelines.legalise(), pipelines.standard(constant_evaluator())):
            once = run(pipeline, graph)[0]
            assert run(pipeline, once)[0].same_as(once), str(once)


@pytest.mark.parametrize("pass_", [*PASSES[:5], Freeze({})], ids=lambda p: p.name)
def test_a_pass_does_not_change_the_numbers(pass_):
    for seed in range(40):
        old = runnable(random.Random(seed + 1000))
        values = values_for(old, seed)
        each = Freeze({v.label: values[v.label] for v in old.variables}) if isinstance(pass_, Freeze) else pass_
        mg.testing.assert_same_results(old, verify(run([each], old)[0]), values, rtol=1e-5, atol=1e-6)


def test_passes_in_any_order_do_not_change_the_numbers():
    for seed in range(40):
        rng = random.Random(seed)
        old = runnable(rng)
        pipeline = [rng.choice(PASSES[:5]) for _ in range(6)]
        mg.testing.assert_same_results(old, run(pipeline, old)[0], values_for(old, seed), rtol=1e-5, atol=1e-6)


def test_a_pass_leaves_its_input_alone():
    for graph in graphs(10):
        before, nodes = str(graph), graph.nodes
        for pass_ in PASSES:
            run([pass_], graph)
        assert str(graph) == before and graph.nodes is nodes


SCRIPT = """
import hashlib, random, sys
sys.path.insert(0, {tests!r})
from ir.random_graphs import definition, runnable
import minigraph as mg
from minigraph.passes import run
from passes.test_driver import PASSES

texts = []
for seed in range(12):
    for graph in (definition(random.Random(seed)), runnable(random.Random(seed))):
        for pass_ in PASSES:
            texts.append(str(run([pass_], graph)[0]))
        texts.append(str(mg.optimize(graph)[0]))
    graph = runnable(random.Random(seed))
    texts += [str(mg.compile(graph).plan)]
print(hashlib.sha256("".join(texts).encode()).hexdigest())
"""


def test_the_same_text_under_every_hash_seed():
    tests = os.path.dirname(os.path.dirname(__file__))
    script = textwrap.dedent(SCRIPT).format(tests=tests)
    digests = set()
    for seed in ("0", "1", "12345"):
        path = os.pathsep.join([os.path.dirname(tests), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path}
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        digests.add(done.stdout)
    assert len(digests) == 1


def test_the_order_of_passes_is_one_readable_list():
    names = [p.name for p in pipelines.standard(constant_evaluator())]
    assert names[:2] == ["dead_code", "cse"] and names[-1] == "cse" and "fold_constants" in names
    assert pipelines.standard(constant_evaluator(), {})[0].name == "freeze"
    assert [p.name for p in pipelines.legalise()] == ["channels_last", "cse"]


def test_trace_and_results_of_optimize():
    w = variable((3,), name="w", init=1.0)
    graph, trace = mg.optimize(Graph({"y": w * 1.0}, {w: w}))
    assert graph.outputs["y"] is w and not graph.updates and [s.name for s in trace.steps]
    np.testing.assert_array_equal(mg.compile(graph)(mg.State.initial([w]))["y"], [1, 1, 1])
