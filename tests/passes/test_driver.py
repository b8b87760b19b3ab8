"""The driver: provenance, statistics, what rules must not do; and what holds for every pass."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir.random_graphs import definition, is_tuple, runnable, values_for

import minigraph as mg
from minigraph import ops
from minigraph.errors import ArgumentError, GraphError
from minigraph.ir import Graph, Node, bind, scope, symbol, variable, verify
from minigraph.ir.leaves import input as input_
from minigraph.passes import (
    CHANNELS_LAST,
    FOLD_BATCH_NORM,
    FUSE,
    MERGE_AFFINES,
    MERGE_PADS,
    SIMPLIFY,
    UNFUSE,
    CommonSubexpressions,
    DeadCode,
    FoldConstants,
    Freeze,
    Lower,
    Refusal,
    Rewriting,
    Selection,
    Surroundings,
    Trace,
    at,
    lower,
    pipelines,
    run,
)  # fmt: skip
from minigraph.passes import why_not as rules_why_not
from minigraph.passes.driver import Rewriter
from minigraph.passes.simplify import add_zero, double_negation
from minigraph.runtime import constant_evaluator
from minigraph.runtime.numbers import StateNumbers
from minigraph.testing.networks import random_network

MEANS = pipelines.Means(constant_evaluator())
SAME_NUMBERS = [
    SIMPLIFY, CHANNELS_LAST, CommonSubexpressions(), DeadCode(), FoldConstants(constant_evaluator()), MERGE_PADS,
    MERGE_AFFINES, FOLD_BATCH_NORM, FUSE, UNFUSE,
]  # fmt: skip
PASSES = [*SAME_NUMBERS, Lower("training"), Lower("inference")]


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
    graph = mg.optimize(Graph({"y": last}), exclude=["fuse"])[0]
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
    with pytest.raises(GraphError, match="circle undoes its own work") as caught:
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
        for pipeline in (pipelines.legalise(), pipelines.program(MEANS), pipelines.optimized(MEANS)):
            once = run(pipeline, graph)[0]
            assert run(pipeline, once)[0].same_as(once), str(once)


@pytest.mark.parametrize("pass_", [*SAME_NUMBERS, Freeze({})], ids=lambda p: p.name)
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
        pipeline = [rng.choice(SAME_NUMBERS) for _ in range(6)]
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
from minigraph.testing.networks import random_network, training_graph
from passes.test_driver import PASSES

texts = []
for seed in range(8):
    for graph in (definition(random.Random(seed)), runnable(random.Random(seed))):
        for pass_ in PASSES:
            texts.append(str(run([pass_], graph)[0]))
        texts.append(str(mg.optimize(graph)[0]))
    graph = runnable(random.Random(seed))
    texts += [str(mg.compile(graph).plan)]
network = random_network(random.Random(5), size=(20, 40))
texts.append(str(mg.optimize(mg.bind(training_graph(network), **dict.fromkeys(network.symbols, 4)))[0]))
print(hashlib.sha256("".join(texts).encode()).hexdigest())
"""


def digests(seeds: list[str]) -> set[str]:
    """Return what interpreters with these hash seeds make of the same graphs."""
    tests = os.path.dirname(os.path.dirname(__file__))
    script = textwrap.dedent(SCRIPT).format(tests=tests)
    found = set()
    for seed in seeds:
        path = os.pathsep.join([os.path.dirname(tests), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path}
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        found.add(done.stdout)
    return found


def test_the_same_text_under_some_hash_seeds():
    assert len(digests(["0", "1", "12345"])) == 1


@pytest.mark.slow
def test_the_same_text_under_ten_hash_seeds():
    assert len(digests([str(seed**7) for seed in range(10)])) == 1


def test_the_order_of_passes_is_one_readable_list():
    names = [p.name for p in pipelines.optimized(MEANS)]
    assert names[:2] == ["cse", "simplify"] and names[-2:] == ["dead_code", "fuse"] and "freeze" not in names
    assert names.index("merge_affines") < names.index("fold_batch_norm") < names.index("fuse")
    frozen = [p.name for p in pipelines.optimized(pipelines.Means(constant_evaluator(), {}))]
    assert frozen[: len(names)] == names and frozen[len(names)] == "freeze"
    assert [p.name for p in pipelines.legalise()] == ["inline", "channels_last", "cse"]


def test_trace_and_results_of_optimize():
    w = variable((3,), name="w", init=1.0)
    graph, trace = mg.optimize(Graph({"y": w * 1.0}, {w: w}))
    assert graph.outputs["y"] is w and not graph.updates and [s.name for s in trace.steps]
    np.testing.assert_array_equal(mg.compile(graph)(mg.State.initial([w]))["y"], [1, 1, 1])


# --- what a rule may ask ----------------------------------------------------------------------------------------------


class Recounted(Rewriting):
    """A rewriting that, after each node, compares the uses it tells with a count on the graph as it is by then."""

    def _apply(self, rewriter, around, node, inputs):
        made = super()._apply(rewriter, around, node, inputs)
        if COUNTED.get("graph") is not around.graph:
            COUNTED.update(graph=around.graph, new={})
        COUNTED["new"][node] = made
        recount(around, COUNTED["new"])
        return made


COUNTED: dict = {}


def recount(around: Surroundings, done: dict[Node, Node]) -> None:
    """Compare `uses` with those in the graph in which the nodes that are done are replaced, and the others are not."""
    mixed: dict[Node, Node] = {}

    def make(node: Node, inputs: tuple[Node, ...]) -> Node:
        mixed[node] = done[node] if node in done else node.with_inputs(inputs)
        return mixed[node]

    found = around.graph.rebuild(make)
    waiting = {mixed[n] for n in around.graph.nodes if n not in done}
    for node in found.nodes:
        if node not in waiting:
            assert around.uses(node) == found.uses[node], f"{node!r} in\n{found}"
    gone = [n for n in done.values() if n not in set(found.nodes)]
    assert not any(around.uses(n) for n in gone if not any(r in waiting for r in found.users.get(n, ())))


def random_rule(rng, kinds: list[str], sweeps: int):
    """Return a rule that rewrites at random, in so many sweeps, to what is there or to something new."""
    met: list[Graph] = []
    earlier: list[Node] = []

    def rewrite(node: Node, around: Surroundings) -> Node | Refusal | None:
        if around.graph not in met:
            met.append(around.graph)
            earlier.clear()
        if len(met) > sweeps or not node.inputs or is_tuple(node) or not node.dtype.startswith("float"):
            return None
        earlier.append(node)
        same = [i for i in node.inputs if i.type == node.type]
        beyond = [j for i in node.inputs for j in i.inputs if j.type == node.type]
        choices = {
            "operand": same, "new": [ops.tanh(-x) for x in same], "twice": [x + x for x in same], "beyond": beyond,
            "new beyond": [ops.tanh(x) * x for x in beyond], "remade": [Node(node.op, node.inputs)],
            "around": [ops.relu(node)], "refused": [Refusal("no", (node,))],
            "met before": [ops.tanh(-x) for x in earlier[:-1] if x.type == node.type],
        }  # fmt: skip
        found = choices[rng.choice(kinds)]
        return rng.choice(found) if found and rng.random() < 0.5 else None

    return rewrite


KINDS = ["operand", "new", "twice", "beyond", "new beyond", "remade", "around", "refused", "met before"]


@settings(max_examples=100, deadline=None)
@given(st.randoms(use_true_random=False))
def test_uses_are_exact_after_every_rewrite(rng):
    rules = tuple(random_rule(rng, KINDS, rng.randint(1, 3)) for _ in range(rng.randint(1, 2)))
    verify(run([Recounted("random", rules)], runnable(rng, rng.randint(1, 12)))[0])


@pytest.mark.parametrize("each", pipelines.rewritings(), ids=lambda each: each.name)
def test_uses_are_exact_in_the_passes_there_are(each):
    met = 0
    for seed in range(12):
        rng = random.Random(seed)
        network = random_network(rng, size=(8, 30))
        graph = lower(bind(network, **dict.fromkeys(network.symbols, 2)), "inference")
        graph = run([FUSE], graph)[0] if each.name == "unfuse" else graph
        met += len(run([Recounted(each.name, each.rules, each.max_sweeps)], graph)[1].rewrites)
    assert met or each.name in ("merge_pads", "channels_last", "inline")


def test_what_surrounds_a_node():
    asked = {}

    @at(ops.exp(1.0).op.__class__)
    def look(node: Node, around: Surroundings) -> None:
        """exp, looked at."""
        asked.update(
            uses=around.uses(node), readers=around.other_readers(node), but=around.other_readers(node, tanh),
            ends=around.ends(node), parameter=around.is_parameter(node.inputs[0]), unknown=around.uses(ops.exp(2.0)),
        )  # fmt: skip

    w, x = variable((3,), name="w"), input_((3,), name="x")
    value = ops.exp(w * ops.broadcast_to(ops.size(x), (3,)))
    tanh = ops.tanh(value)
    graph = Graph({"a": tanh, "b": value + x, "c": value}, {w: value}, [x])
    run([Rewriting("look", (look,))], graph)
    assert asked["uses"] == 4 and asked["unknown"] == 0 and asked["parameter"]
    assert asked["readers"] == (tanh, graph.outputs["b"]) and asked["but"] == (graph.outputs["b"],)
    assert asked["ends"] == ["output 'c'", "the update of 'w'"]


# --- refusals ---------------------------------------------------------------------------------------------------------


def only_at_two(node: Node, around: Surroundings) -> Node | Refusal | None:
    """exp(x) = x + x, where two things read it."""
    if node.op.name != "exp":
        return None
    if around.uses(node) != 2:
        return Refusal(f"{around.uses(node)} readers, not two", (node, *around.other_readers(node)))
    return node.inputs[0] + node.inputs[0]


def test_a_refusal_is_kept_with_its_reason_until_it_no_longer_holds():
    x = input_((2,), name="x")
    one, two = ops.exp(x), ops.exp(-x)
    graph, trace = run([Rewriting("p", (only_at_two,))], Graph({"y": ops.tanh(one), "z": two, "w": two}))
    refusal = trace.refusals["only_at_two", one.id]
    assert refusal.reason == "1 readers, not two" and [n.op.name for n in refusal.nodes] == ["exp", "tanh"]
    assert str(refusal).startswith(f"1 readers, not two (exp {__file__}:") and str(Refusal("no")) == "no"
    assert trace.why_not("only_at_two", one) is trace.why_not("p", one) is refusal
    assert trace.why_not("only_at_two", two) is None is trace.why_not("another", one)
    assert trace.rules["only_at_two"].hits == 1 and trace.rules["only_at_two"].tries >= 4
    assert [n.op.name for n in graph.nodes] == ["input", "exp", "tanh", "neg", "add"]


def test_asking_why_not_gives_the_answer_of_a_run():
    x = input_((2,), name="x")
    one = ops.exp(x)
    graph = Graph({"y": ops.tanh(one), "z": ops.sin(one), "v": ops.cos(one)})
    for ask in (rules_why_not, mg.why_not):
        assert ask(only_at_two, one, graph).reason == "3 readers, not two"
        assert ask(only_at_two, one).reason == "1 readers, not two"  # as if an output alone read it
        assert ask(only_at_two, one, Graph({"y": one, "z": one})) is None
        assert ask(only_at_two, x, graph).reason == (
            "only_at_two does not match here: exp(x) = x + x, where two things read it."
        )
        assert ask(add_zero, one, graph).reason == "add_zero is about add or sub, and this is exp"


def test_asking_about_a_node_that_was_rebuilt_since_or_is_not_there():
    x = input_((2,), name="x")
    old = ops.neg(ops.neg(x * 1.0))
    graph = run([Rewriting("p", (pipelines.SIMPLIFY.rules[0],))], Graph({"y": old}))[0]
    graph = run([SIMPLIFY], graph, Trace(Selection(exclude=("double_negation",))))[0]
    assert graph.outputs["y"] is not old and graph.outputs["y"].id == old.id
    assert rules_why_not(double_negation, old, graph) is None
    with pytest.raises(ArgumentError, match="the node is not in the graph") as caught:
        rules_why_not(double_negation, -x, graph)
    assert caught.value.where.startswith(__file__)


def test_numbers_may_decide():
    v = variable((3,), name="v")
    norm = ops.batch_norm(input_((2, 3), name="x") @ variable((3, 3), name="w"), v, v, v, v)
    state = {"v": np.float32([1, -1, 1]), "w": np.eye(3, dtype=np.float32)}
    assert mg.why_not("batch_norm_of_linear", norm) is None
    for refusal in (
        mg.why_not("batch_norm_of_linear", norm, state=state),
        rules_why_not(FOLD_BATCH_NORM.rules[0], norm, numbers=StateNumbers(state)),
        mg.optimize(Graph({"y": norm}), state)[1].why_not("fold_batch_norm", norm),
    ):
        assert refusal.reason == "'v' is -1 in channel 1"


# --- cycles, limits, types --------------------------------------------------------------------------------------------


def test_a_rule_that_matches_what_it_makes_itself_is_named():
    def turn(node: Node) -> Node | None:
        """x + y = y + x."""
        return node.inputs[1] + node.inputs[0] if node.op.name == "add" else None

    x, y = input_((2,), name="x"), input_((2,), name="y")
    with pytest.raises(GraphError, match="turn undoes its own work") as caught:
        run([Rewriting("turn", (turn,))], Graph({"y": x + y}))
    assert caught.value.got == "rules still matching: turn" and caught.value.where.startswith(__file__)
    assert caught.value.hint == "the rule matches what it makes itself"


def test_a_rule_that_grows_the_graph_for_ever_is_stopped():
    def grow(node: Node) -> Node | None:
        """tanh(x) = tanh(−(−x))."""
        return ops.tanh(ops.neg(-node.inputs[0])) if node.op.name == "tanh" else None

    with pytest.raises(GraphError, match="grow found no fixed point in 16 sweeps") as caught:
        run([Rewriting("grow", (grow,))], Graph({"y": ops.tanh(input_((2,), name="x"))}))
    assert caught.value.got == "rules still matching: grow"


def step(name: str, to):
    """Return the rule that makes one op another."""

    def rule(node: Node) -> Node | None:
        return to(node.inputs[0]) if node.op.name == name else None

    rule.__name__ = f"{name}_to_{to.__name__}"
    return rule


def test_a_long_way_is_no_circle():
    names = ["exp", "tanh", "sin", "cos", "erf", "relu", "neg"]
    rules = tuple(step(a, getattr(ops, b)) for a, b in pairwise(names))
    graph, trace = run([Rewriting("way", rules)], Graph({"y": ops.exp(input_((2,), name="x"))}))
    assert graph.outputs["y"].op.name == "neg" and len(trace.rewrites) == 6


def test_three_rules_in_a_circle_are_named_and_an_innocent_one_is_not():
    rules = (step("exp", ops.tanh), step("tanh", ops.sin), step("sin", ops.exp), step("neg", ops.cos))
    with pytest.raises(GraphError, match="circle undoes its own work") as caught:
        run([Rewriting("circle", rules)], Graph({"y": -ops.exp(input_((2,), name="x"))}))
    assert caught.value.got == "rules still matching: exp_to_tanh, sin_to_exp, tanh_to_sin"


# --- provenance -------------------------------------------------------------------------------------------------------


def test_a_replacement_knows_what_it_replaced():
    x = input_((2,), name="x")
    middle = ops.exp(x) + 0.0
    old = middle * 1.0
    graph, trace = run([Rewriting("wrong", (x_times_one,))], Graph({"y": old}))
    new = graph.outputs["y"]
    assert new.origin.replaced is old is trace.rewrites[0].old and new is trace.rewrites[0].new
    assert new.inputs[0].origin.replaced is None and new.inputs[0].origin.history == (("x_times_one", old.id),)
    again = run([SIMPLIFY], graph)[0].outputs["y"]
    assert again.origin.replaced is old and again.id == new.id  # rebuilt over other operands, it is still that node


def test_a_node_that_was_there_before_is_not_said_to_replace_anything():
    x = input_((2,), name="x")
    kept = ops.exp(x)
    graph, _ = run([SIMPLIFY], Graph({"y": kept * 1.0, "z": kept + 0.0}))
    assert graph.outputs["y"] is graph.outputs["z"] is kept
    assert kept.origin.replaced is None and kept.origin.history == ()
    merged = run([CommonSubexpressions()], Graph({"y": ops.exp(x), "z": ops.exp(x)}))[0]
    assert merged.outputs["z"].origin.history == ()


def test_every_rewrite_of_every_pass_can_be_walked_back():
    """From each node that a pass made, `replaced` leads through all rewrites of its history to a node from before."""
    for seed in range(20):
        network = random_network(random.Random(seed), size=(8, 30))
        before = {n.id for n in network.nodes}
        graph = lower(bind(network, **dict.fromkeys(network.symbols, 2)), "inference")
        for node in mg.optimize(graph)[0].nodes:
            steps = 0
            while node.origin.replaced is not None:
                rule, id = node.origin.history[-1]
                node, steps = node.origin.replaced, steps + 1
                assert node.id == id and rule
            assert node.id in before or node.origin.history or node.op.name == "constant", (seed, node)


def test_a_rewriter_without_surroundings_replaces_too():
    trace = Trace()
    old = ops.exp(input_((2,), name="x"))
    new = Rewriter(trace, "p").replace("rule", old, lambda: ops.tanh(old.inputs[0]))
    assert new.origin.replaced is old and new.origin.history == (("rule", old.id),) and len(trace.pending) == 1
    assert Rewriter(trace, "p").replace("rule", old, lambda: old) is old and len(trace.pending) == 1
