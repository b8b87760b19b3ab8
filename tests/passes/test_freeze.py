"""Freezing: numbers take the place of variables; and refreezing, which puts in others without optimising again."""

from __future__ import annotations

import math

import numpy as np
import pytest

import minigraph as mg
from minigraph import ops
from minigraph.errors import ArgumentError, DataError, GraphError
from minigraph.ir import Constant, Graph, variable, verify
from minigraph.passes import FOLD_BATCH_NORM, Freeze, pipelines, run
from minigraph.runtime import constant_evaluator, refreeze
from passes.folding import Array, Net, as_graph, assert_within_bounds, compute, data_ops, knowing, networks
from passes.pictures import check

# What is folded only where numbers say that it may be.
NEEDS_NUMBERS = {"rectified"}


def other_numbers(values: dict[str, Array], seed: int = 1) -> dict[str, Array]:
    """Return numbers for the same variables, with variances and γ that are positive."""
    rng = np.random.default_rng(seed)
    positive = ("variance", "gamma")
    return {
        label: (rng.uniform(0.3, 1.5, a.shape) if label.startswith(positive) else rng.normal(size=a.shape)).astype(
            a.dtype
        )
        for label, a in values.items()
    }


def state_of(graph: Graph, values: dict[str, Array]) -> dict[str, Array]:
    return {v.label: values[v.label] for v in graph.variables}


# --- the pass ---------------------------------------------------------------------------------------------------------


def test_variables_become_constants_in_their_dtypes():
    check_values = {"w": np.array([1.0, -2.0], np.float32), "n": np.array(3, np.int64)}
    w, n = variable((2,), name="w"), variable((), name="n", dtype="int64")
    graph = run([Freeze(check_values)], Graph({"y": w * 2.0, "n": n}))[0]
    assert str(graph) == (
        "graph {\n"
        "  %0 = constant([1.0, -2.0]) : float32[2]\n"
        "  %1 = constant(2.0) : float32[]\n"
        "  %2 = mul(%0, %1) : float32[2]\n"
        "  %3 = constant(3) : int64[]\n"
        "  return y=%2, n=%3\n"
        "}"
    )
    assert graph.outputs["n"].origin.history == (("freeze_variable", n.id),)


def test_a_variable_that_the_graph_updates_stays():
    w, step = variable((2,), name="w"), variable((), name="step")
    graph = run(
        [Freeze({"w": np.zeros(2, np.float32), "step": np.zeros(())})], Graph({"y": w * step}, {step: step + 1.0})
    )[0]
    assert graph.variables == (step,)


def test_a_picture_of_freezing():
    check(
        """
        %0 = input("x") : float32[2]
        %1 = constant(2.0) : float32[]
        %2 = mul(%0, %1) : float32[2]
        return y=%2
        """,
        """
        %0 = input("x") : float32[2]
        %1 = constant(2.0) : float32[]
        %2 = mul(%0, %1) : float32[2]
        return y=%2
        """,
        Freeze({}),
    )


def test_a_variable_without_a_value_is_named():
    with pytest.raises(GraphError, match="no value for variable 'w'"):
        run([Freeze({})], Graph({"y": variable((2,), name="w")}))


def test_a_value_of_another_type_is_refused():
    w = variable((2,), name="w")
    for wrong in (np.zeros(2), np.zeros(3, np.float32), 1.0):
        with pytest.raises(GraphError, match="rule freeze_variable changes a node's type"):
            run([Freeze({"w": wrong})], Graph({"y": w}))


def test_frozen_twice_is_frozen_once():
    for name, graph, values in networks():
        freezing = Freeze(state_of(graph, values))
        once = verify(run([freezing], graph)[0])
        assert not once.variables and str(run([freezing], once)[0]) == str(once), name


def test_without_a_state_nothing_is_frozen():
    assert pipelines.frozen(pipelines.Means(constant_evaluator())) == []


# --- freezing what was folded -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_freezing_later_equals_freezing_at_once(layout):
    for name, graph, values in networks("float32", layout):
        state = state_of(graph, values)
        at_once = mg.optimize(graph, state)[0]
        later = mg.freeze(mg.optimize(graph)[0], state)
        assert (str(later) == str(at_once)) == (name not in NEEDS_NUMBERS), name


def test_the_algebra_of_a_fold_becomes_two_constants():
    net = Net("float32")
    frozen = mg.freeze(mg.optimize(as_graph(net.norm(net.bias(net.conv(net.image())))))[0], net.state())
    assert [n.op.name for n in frozen.nodes] == ["input", "constant", "constant", "fused"]
    scale = net.values["gamma"] / np.sqrt(net.values["variance"].astype(np.float64) + 1e-3)
    kernel = next(n.op for n in frozen.nodes if isinstance(n.op, Constant))
    assert kernel.data == (net.values["w"] * scale).astype(np.float32).tobytes()


def test_numbers_that_become_infinite_are_refused_with_where_they_come_from():
    net = Net("float16")
    with mg.scope("block"):
        y = net.norm(net.conv(net.image()), gamma=1000.0, variance=0.0, epsilon=1e-6)
    graph = run([FOLD_BATCH_NORM], as_graph(y))[0]
    with pytest.raises(DataError, match="a parameter of block that is not finite") as caught:
        mg.freeze(graph, net.state())
    assert "of 216 elements" in caught.value.got and "says why" in caught.value.hint
    trace = mg.optimize(as_graph(y), net.state())[1]
    assert "overflow" in trace.why_not("fold_batch_norm", y).reason


def test_infinity_that_was_there_before_is_no_fault():
    mask = ops.where(ops.constant(np.array([True, False, True])), 0.0, -math.inf)
    graph = as_graph(ops.softmax(mg.Input((3,), name="x") + mask))
    assert [n.op.splat for n in mg.freeze(graph, {}).nodes if isinstance(n.op, Constant)] == [None]
    w = variable((2,), name="w")
    frozen = mg.freeze(Graph({"y": w * 2.0}), {"w": np.array([math.nan, 1.0], np.float32)})
    assert math.isnan(frozen.outputs["y"].op.values()[0])


# --- refreezing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_refreezing_equals_optimising_anew(layout, dtype):
    for name, graph, values in networks(dtype, layout):
        state = state_of(graph, values)
        final, trace = mg.optimize(graph, state)
        assert str(refreeze(trace, state)) == str(final), name
        changed = other_numbers(state)
        again = verify(refreeze(trace, changed))
        assert str(again) == str(mg.optimize(graph, changed)[0]), name
        assert str(again) != str(final) and str(trace.refreeze(changed)) == str(again)


def test_refrozen_numbers_are_right():
    net = Net("float32")
    graph = as_graph(net.conv(ops.relu(net.norm(net.image(), gamma=[0.5, 1.0, 1.5, 2.0]))))
    trace = mg.optimize(graph, net.state())[1]
    values = {**net.values, **other_numbers(net.state())}
    again = refreeze(trace, values)
    assert data_ops(again) == "add relu conv2d"
    assert_within_bounds(graph, [(trace.step("freeze").before, again)], values)
    assert compute(again, net.values)["y"].tobytes() != compute(trace.after, net.values)["y"].tobytes()


def test_refused_where_a_scale_is_not_positive_any_more():
    net = Net("float32")
    graph = as_graph(net.conv(ops.relu(net.norm(net.image(), gamma=[0.5, 1.0, 1.5, 2.0]))))
    trace = mg.optimize(graph, net.state())[1]
    for gamma in (-1.0, 0.0):
        changed = {**net.state(), "gamma": np.array([0.5, 1.0, gamma, 2.0], np.float32)}
        with pytest.raises(DataError, match="being positive") as caught:
            refreeze(trace, changed)
        assert caught.value.got.endswith("in channel 2") and "optimise the graph again" in caught.value.hint
        assert "batch_norm" in data_ops(mg.optimize(graph, changed)[0])


@pytest.mark.parametrize("behind", [False, True])
def test_refused_where_a_variance_is_negative_now(behind):
    net = Net("float32")
    y = net.conv(net.norm(net.image())) if behind else net.norm(net.conv(net.image()))
    trace = mg.optimize(as_graph(y), net.state())[1]
    changed = {**net.state(), "variance": net.values["variance"].copy()}
    for value in (-0.5, math.nan):
        changed["variance"][1] = value
        with pytest.raises(DataError, match="the variance 'variance' being nonnegative") as caught:
            refreeze(trace, changed)
        assert caught.value.got == f"{value:g} in channel 1"


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("behind", [False, True])
def test_refused_where_a_kernel_does_not_fit_into_float16_any_more(behind, layout):
    net = Net("float16", layout)
    y = net.conv(net.norm(net.image())) if behind else net.norm(net.conv(net.image()))
    trace = mg.optimize(as_graph(y), net.state())[1]
    channels = net.values["gamma"].size
    large = {"gamma": np.full(channels, 6e4, np.float16), "variance": np.full(channels, 0.01, np.float16)}
    with pytest.raises(DataError, match="being float16"):
        refreeze(trace, {**net.state(), **large})


def test_a_trace_without_freezing_is_refused():
    net = Net()
    trace = mg.optimize(as_graph(net.norm(net.conv(net.image()))))[1]
    with pytest.raises(ArgumentError, match="the trace has no freezing"):
        trace.refreeze(net.state())


def test_a_variable_without_a_value_is_refused_again():
    net = Net()
    trace = mg.optimize(as_graph(net.norm(net.conv(net.image()))), net.state())[1]
    with pytest.raises(GraphError, match="no value for variable 'beta'"):
        refreeze(trace, {label: a for label, a in net.state().items() if label != "beta"})


def test_what_was_refused_for_its_numbers_stays_refused():
    net = Net()
    graph = as_graph(net.conv(ops.relu(net.norm(net.image()))))
    trace = mg.optimize(graph, net.state())[1]
    positive = {**net.state(), "gamma": np.ones(4)}
    assert data_ops(refreeze(trace, positive)) == "batch_norm relu conv2d"
    assert data_ops(run([knowing(FOLD_BATCH_NORM, positive)], graph)[0]) == "add relu conv2d"
