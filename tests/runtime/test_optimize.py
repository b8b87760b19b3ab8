"""`mg.optimize`, `mg.freeze` and `mg.why_not` as users call them: what their arguments may be, and what comes back."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

import minigraph as mg
from minigraph import layers, ops
from minigraph.errors import ArgumentError, GraphError, MinigraphError
from minigraph.ir import Graph, Node, bind, symbol, variable, verify
from minigraph.ir.leaves import input as input_
from minigraph.passes import FUSE, SIMPLIFY, CommonSubexpressions, DeadCode, lower, pipelines
from minigraph.runtime import constant_evaluator, refreeze
from minigraph.runtime.optimize import peak_memory
from minigraph.testing.networks import random_network, random_values


def model() -> mg.Model:
    """Return two convolutions with batch norms, whose averages are not those they began with."""
    with mg.fresh_names():
        h = image = mg.Input((6, 6, 3), name="image")
        for i in range(2):
            h = layers.Conv2D(4, 3, use_bias=i == 1, name=f"conv{i}")(h)
            h = layers.ReLU()(layers.BatchNormalization(name=f"norm{i}")(h))
        made = mg.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(h)))
    rng = np.random.default_rng(0)
    for label, value in made.state.items():
        if "norm" in label:
            value[...] = rng.uniform(0.5, 1.5, value.shape)
    return made


def images(count: int = 5) -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).standard_normal((count, 6, 6, 3)).astype(np.float32)


def outputs(graph: Graph, state: mg.State | None = None) -> np.ndarray[Any, Any]:
    return mg.compile(graph, optimize=False)(state, image=images())["output"]  # type: ignore[no-any-return]


def names(graph: Graph) -> set[str]:
    return {n.op.name for n in graph.nodes}


# --- what comes back ----------------------------------------------------------------------------------------------


def test_without_a_state_the_variables_stay() -> None:
    net = model()
    graph = net.lower("inference")
    optimised, trace = mg.optimize(graph)
    assert "batch_norm" in names(graph) and "batch_norm" not in names(optimised) and "fused" in names(verify(optimised))
    assert {v.label for v in optimised.variables} == {v.label for v in graph.variables}
    assert trace.before is graph and trace.after is optimised and optimised.symbols == ("N",)
    np.testing.assert_allclose(outputs(optimised, net.state), outputs(graph, net.state), rtol=1e-5, atol=1e-6)


def test_with_a_state_the_numbers_are_in_it() -> None:
    net = model()
    graph = net.lower("inference")
    for state in (net.state, dict(net.state), {**net.state, "of something else": np.zeros(3)}):
        optimised, trace = mg.optimize(graph, state)
        assert not optimised.variables and "freeze" in [s.name for s in trace.steps]
        np.testing.assert_allclose(outputs(optimised), outputs(graph, net.state), rtol=1e-5, atol=1e-6)


def test_variables_that_the_graph_updates_are_not_frozen() -> None:
    w, c = variable((2,), name="w", init=2.0), variable((2,), name="c", init=3.0)
    graph = Graph({"y": w * c}, {w: w + c})
    optimised, _ = mg.optimize(graph, {"w": np.float32([2, 2]), "c": np.float32([3, 3])})
    assert [v.label for v in optimised.variables] == ["w"]
    program, state = mg.compile(optimised), mg.State({"w": np.float32([1, 2])})
    np.testing.assert_array_equal(program(state)["y"], [3, 6])
    np.testing.assert_array_equal(state["w"], [4, 5])


def test_a_variable_without_a_value_is_named() -> None:
    net = model()
    state = {k: v for k, v in net.state.items() if k != "conv1/bias"}
    with pytest.raises(GraphError, match="no value for variable 'conv1/bias'") as caught:
        mg.optimize(net.lower("inference"), state)
    assert caught.value.where.startswith(__file__)


def test_neither_graph_nor_state_is_changed() -> None:
    net = model()
    graph = net.lower("inference")
    text, before = str(graph), net.state.copy()
    mg.optimize(graph, net.state), mg.freeze(graph, net.state)
    assert str(graph) == text and all(np.array_equal(net.state[k], v) for k, v in before.items())


def test_a_definition_is_optimised_as_far_as_it_goes() -> None:
    net = model()
    optimised, trace = mg.optimize(net.graph)
    norm = next(n for n in net.graph.nodes if n.op.name == "batch_norm")
    assert "batch_norm" in names(optimised)
    assert trace.why_not("fold_batch_norm", norm).reason == "its mode is open: lower the graph first"  # type: ignore[union-attr]


def test_optimised_twice_is_optimised_once() -> None:
    for seed in range(15):
        rng = random.Random(seed)
        network = random_network(rng, size=(8, 30))
        graph = lower(bind(network, **dict.fromkeys(network.symbols, 2)), "inference")
        values = random_values(graph, rng)
        for state in (None, {v.label: values[v.label] for v in graph.variables}):
            once = mg.optimize(graph, state)[0]
            assert mg.optimize(once, state)[0].same_as(once), f"seed {seed}\n{once}"


# --- which passes -------------------------------------------------------------------------------------------------


def test_passes_as_text_as_objects_and_as_nothing() -> None:
    graph = Graph({"y": ops.relu(ops.exp(input_((2,), name="x") * 1.0))})
    means = pipelines.Means(constant_evaluator())
    standard = [p.name for p in pipelines.optimized(means)]
    assert [s.name for s in mg.optimize(graph)[1].steps] == standard
    assert [s.name for s in mg.optimize(graph, passes="optimize")[1].steps] == standard
    for passes in ("simplify,fuse", [SIMPLIFY, FUSE], iter([SIMPLIFY, FUSE]), (SIMPLIFY, FUSE)):
        made, trace = mg.optimize(graph, passes=passes)
        assert [s.name for s in trace.steps] == ["simplify", "fuse"] and [n.op.name for n in made.nodes][1:] == [
            "fused"
        ]
    for nothing in ("", [], ()):
        made, trace = mg.optimize(graph, passes=nothing)
        assert made is graph and not trace.steps


def test_a_state_reaches_the_passes_of_a_text() -> None:
    net = model()
    graph = net.lower("inference")
    frozen, trace = mg.optimize(graph, net.state, "fold_batch_norm,freeze,fold_constants,fuse")
    assert not frozen.variables and len(trace.steps) == 4
    net.state["norm0/moving_variance"][1] = -1
    _, trace = mg.optimize(graph, net.state, "fold_batch_norm")
    refused = {str(r.reason) for r in trace.refusals.values()}
    assert "'norm0/moving_variance' is -1 in channel 1" in refused


def test_include_and_exclude_take_any_collection() -> None:
    graph = Graph({"y": ops.relu(ops.exp(input_((2,), name="x") * 1.0))})
    for chosen in (["fuse"], ("fuse",), {"fuse"}, iter(["fuse"]), {"fuse": 1}):
        assert {r.rule for r in mg.optimize(graph, include=chosen)[1].rewrites} == {"fuse_into_reader"}
    for left in (["fuse"], ("fuse",), {"fuse"}, iter(["fuse"])):
        assert {r.rule for r in mg.optimize(graph, exclude=left)[1].rewrites} == {"multiply_by_one"}


@pytest.mark.parametrize(
    "arguments",
    [{"include": "fuse"}, {"exclude": "fuse"}, {"passes": 3}, {"passes": ["cse", "fuse"]}, {"state": 3}],
    ids=str,
)
def test_arguments_of_the_wrong_kind(arguments: dict[str, Any]) -> None:
    graph = Graph({"y": ops.relu(ops.exp(input_((2,), name="x") * variable((2,), name="w")))})
    with pytest.raises(MinigraphError):
        mg.optimize(graph, **arguments)


# --- freezing -----------------------------------------------------------------------------------------------------


def test_freezing_alone_computes_what_depends_on_numbers() -> None:
    net = model()
    graph = net.lower("inference")
    folded = mg.optimize(graph, exclude=["fuse"])[0]
    for each in (graph, folded):
        frozen = mg.freeze(each, net.state)
        assert not frozen.variables
        np.testing.assert_allclose(outputs(frozen), outputs(each, net.state), rtol=1e-6, atol=1e-6)
    assert "cast" in names(folded) and "cast" not in names(frozen)  # the algebra in float64 is numbers now


@pytest.mark.parametrize(("dtype", "value"), [("float32", np.eye(2)), ("float64", [[1.0, 2.0], [3.0, 4.0]])])
def test_values_of_another_dtype_are_converted_as_a_state_converts_them(dtype: str, value: Any) -> None:
    w = variable((2, 2), name="w", dtype=dtype)
    frozen = mg.freeze(Graph({"y": w}), {"w": value})
    assert frozen.outputs["y"].type == w.type


def test_other_numbers_in_the_same_graph() -> None:
    net = model()
    graph = net.lower("inference")
    _, trace = mg.optimize(graph, net.state)
    later = net.state.copy()
    for label, value in later.items():
        value[...] = np.random.default_rng(len(label)).uniform(0.2, 1.2, value.shape)
    again = refreeze(trace, later)
    assert again.same_as(mg.optimize(graph, later)[0]) and trace.refreeze(later).same_as(again)
    np.testing.assert_allclose(outputs(again), outputs(graph, later), rtol=1e-5, atol=1e-6)


# --- memory -------------------------------------------------------------------------------------------------------


def test_the_peak_is_that_of_the_plan() -> None:
    net = model()
    graph = bind(net.lower("inference"), N=4)
    program = mg.compile(graph, optimize=False)
    assert peak_memory(graph) == program.plan.peak
    assert peak_memory(mg.optimize(graph, net.state)[0]) <= peak_memory(graph)
    x = input_((3, 8, 8), name="x")
    first = Graph({"y": ops.conv2d(ops.reshape(x, (1, 3, 8, 8)), variable((4, 3, 3, 3), name="w"), layout="NCHW")})
    assert peak_memory(first) > 3 * 8 * 8 * 4  # legalised first: there are no kernels for channels first
    with pytest.raises(MinigraphError, match="symbolic size N"):
        peak_memory(net.lower("inference"))


def test_a_trace_can_measure() -> None:
    graph = bind(model().lower("inference"), N=4)
    _, trace = mg.optimize(graph)
    assert trace.measure_peak is not None and trace.measure_peak(graph) == peak_memory(graph)


# --- questions ----------------------------------------------------------------------------------------------------


def norm_of(graph: Graph) -> Node:
    return next(n for n in graph.nodes if n.op.name == "batch_norm")


def test_why_not_by_the_name_of_a_rule_or_a_pass() -> None:
    graph = model().lower("inference")
    norm = norm_of(graph)
    for name in ("fold_batch_norm", "batch_norm_of_linear"):
        assert mg.why_not(name, norm, graph) is None
    other = mg.why_not("linear_of_batch_norm", norm, graph)
    assert (
        other is not None and "linear_of_batch_norm is about" in other.reason and "this is batch_norm" in other.reason
    )
    assert mg.why_not("fuse", norm, graph) is None


def test_why_not_of_every_pass_at_every_op() -> None:
    graph = model().lower("inference")
    for node in graph.nodes:
        for each in pipelines.rewritings():
            for name in (each.name, *(rule.__name__ for rule in each.rules)):
                refusal = mg.why_not(name, node, graph)
                assert refusal is None or refusal.reason


def test_why_not_of_the_rule_that_came_nearest() -> None:
    """Of a pass's rules that are about this op, the one that got further than its pattern says why."""
    v = variable((3,), name="v")
    norm = ops.batch_norm(ops.sigmoid(input_((2, 3), name="x")), v, v, v, v)
    refusal = mg.why_not("fold_batch_norm", norm)
    assert refusal is not None and "does not match" not in refusal.reason and "is about" not in refusal.reason
    assert norm.inputs[0] in refusal.nodes
    exp = ops.exp(v)
    assert "is about" in str(mg.why_not("fold_batch_norm", exp))


def test_why_not_asks_for_a_name_that_exists() -> None:
    graph = model().lower("inference")
    for name in ("fold", "", "cse", "batch_norm"):
        with pytest.raises(ArgumentError, match="no such rule") as caught:
            mg.why_not(name, norm_of(graph), graph)
        assert "fold_batch_norm, batch_norm_of_linear" in str(caught.value.expected)


def test_why_not_of_a_node_of_another_graph() -> None:
    graph, other = model().lower("inference"), model().lower("inference")
    with pytest.raises(ArgumentError, match="the node is not in the graph"):
        mg.why_not("fold_batch_norm", norm_of(other), graph)
    bound = bind(graph, N=2)  # the same node, with a size
    assert mg.why_not("fold_batch_norm", norm_of(graph), bound) is None


def test_every_refusal_of_a_run_can_be_asked_for_again() -> None:
    x = input_((symbol("N"), 3), name="x")
    vectors = [variable((3,), name=f"v{i}") for i in range(4)]
    graph = lower(Graph({"y": ops.relu(ops.batch_norm(ops.tanh(x), *vectors)), "x": ops.exp(x)}), "inference")
    _, trace = mg.optimize(graph, passes=[CommonSubexpressions(), *pipelines.rewritings(), DeadCode()])
    asked = 0
    for (rule, id), refusal in trace.refusals.items():
        found = [n for n in graph.nodes if n.id == id]
        if found:
            again = mg.why_not(rule, found[0], graph)
            assert again is not None and again.reason == refusal.reason == trace.why_not(rule, found[0]).reason  # type: ignore[union-attr]
            asked += 1
    assert asked
