"""Common subexpressions, constant folding, freezing, dead code."""

from __future__ import annotations

import numpy as np
import pytest

import minigraph as mg
from minigraph import ops
from minigraph.errors import GraphError
from minigraph.ir import Constant, Graph, Node, variable
from minigraph.ir.leaves import input as input_
from minigraph.ir.types import DTYPES
from minigraph.ops.norm import BatchNorm, Moving
from minigraph.passes import CommonSubexpressions, DeadCode, FoldConstants, Freeze, run
from minigraph.runtime import constant_evaluator
from passes.pictures import check, graph, same_numbers, unchanged

X = '%0 = input("x") : float32[2,3]\n'
ALL = "float32[2,3]"
CSE, DEAD = CommonSubexpressions(), DeadCode()
FOLD = FoldConstants(constant_evaluator())


# --- common subexpressions ------------------------------------------------------------------------------------------


def test_equal_ops_over_the_same_operands_are_one():
    check(
        X + f"%1 = exp(%0) : {ALL} %2 = exp(%0) : {ALL} %3 = neg(%1) : {ALL} %4 = neg(%2) : {ALL} %5 = add(%3, "
        f"%4) : {ALL} return y=%5",
        X + f"%1 = exp(%0) : {ALL} %2 = neg(%1) : {ALL} %3 = add(%2, %2) : {ALL} return y=%3",
        CSE,
    )  # fmt: skip


def test_attributes_operands_and_their_order_count():
    for a, b in (
        ("clip(%0, maximum=6.0)", "clip(%0, maximum=5.0)"), ("sub(%0, %1)", "sub(%1, %0)"), ("exp(%0)", "exp(%1)"),
    ):  # fmt: skip
        unchanged(X + f'%1 = input("z") : {ALL} %2 = {a} : {ALL} %3 = {b} : {ALL} return y=%2, z=%3', CSE)


def test_constants_are_one_by_value_and_type():
    body = (
        X + "%1 = constant({}) : {} %2 = constant({}) : {}\n %3 = size(%1) : float32[] %4 = size(%2) : float32[] "
        "return a=%3, b=%4"
    )
    merged = graph(X + "%1 = constant([1, 2]) : int32[2] %2 = size(%1) : float32[] return a=%2, b=%2")
    assert run([CSE], graph(body.format("[1, 2]", "int32[2]", "[1, 2]", "int32[2]")))[0].same_as(merged)
    for a, ta, b, tb in (
        ("1", "int32[]", "1", "int64[]"), ("0.0", "float32[]", "-0.0", "float32[]"), ("1", "int32[2]", "1", "int32[3]"),
    ):  # fmt: skip
        new, trace = run([CSE], graph(body.format(a, ta, b, tb)))
        assert len([n for n in new.nodes if n.op.name == "constant"]) == 2 and not trace.steps[0].rewrites


def test_nan_constants_are_one():
    x = input_((2,), name="x")
    new = run([CSE], Graph({"y": (x + float("nan")) * (x + float("nan"))}))[0]
    assert len(new.nodes) == 4


def test_variables_and_inputs_are_what_they_are_by_name():
    unchanged(
        f'%0 = variable("a") : {ALL} %1 = variable("b") : {ALL} %2 = exp(%0) : {ALL} %3 = exp(%1) : {ALL} '
        f'return y=%2, z=%3',
        CSE,
    )  # fmt: skip


def test_random_ops_merge_only_with_the_same_key_and_the_same_counter():
    counters = [variable((), name=n, dtype="int64") for n in "ab"]
    same = [ops.random_uniform(counters[0], (4,), (1, 2)) for _ in range(2)]
    others = [ops.random_uniform(counters[0], (4,), (1, 3)), ops.random_uniform(counters[1], (4,), (1, 2))]
    new = run([CSE], Graph({str(i): n for i, n in enumerate([*same, *others])}))[0]
    assert new.outputs["0"] is new.outputs["1"] and len(set(new.outputs.values())) == 3


def test_two_dropouts_stay_two_and_their_masks_differ():
    x = input_((1000,), name="x")
    lowered = mg.lower(Graph({"a": ops.dropout(x), "b": ops.dropout(x)}), "training")
    state = mg.State.initial(lowered.variables)
    result = mg.compile(lowered)(state, x=np.ones(1000))
    assert not np.array_equal(result["a"], result["b"])


def test_items_and_updates_merge_too():
    x, w = input_((4, 3), name="x"), variable((3,), name="w")
    a, b = ops.moments(x, 0)[0], ops.moments(x, 0)[0]
    new = run([CSE], Graph({"a": a}, {w: b}))[0]
    assert new.outputs["a"] is new.updates[w] and len(new.nodes) == 4


# --- dead code ------------------------------------------------------------------------------------------------------


def test_updates_that_change_nothing_are_dropped():
    before = X + f'%1 = variable("w") : {ALL} %2 = variable("v") : {ALL} return y=%0 update %1 <- %1 update %2 <- %0'
    after = X + f'%1 = variable("v") : {ALL} return y=%0 update %1 <- %0'
    assert run([DEAD], graph(before))[0].same_as(graph(after))
    unchanged(before.replace("%1 <- %1", "%1 <- %2").replace("%2 <- %0", "%2 <- %1"), DEAD)


def test_dropping_an_update_that_changes_nothing_counts_as_the_same_results():
    w = variable((2,), name="w", init=1.0)
    before = Graph({"y": w * 1.0}, {w: w})
    same_numbers(before, mg.optimize(before)[0])


def test_ops_whose_mode_is_open_are_not_merged():
    """Two masks are two masks, and averages move once for each call."""
    x = input_((4, 3), name="x")
    vectors = [variable((3,), name=name, init=1.0) for name in ("gamma", "beta", "mean", "variance")]
    norms = [Node(BatchNorm(1, 1e-3, Moving(0.5)), (x, *vectors)) for _ in range(2)]
    graph = Graph({"y": ops.dropout(x, 0.5) + ops.dropout(x, 0.5), "z": norms[0] * norms[1]})
    merged = run([CSE], graph)[0]
    assert [n.op.name for n in merged.nodes].count("dropout") == 2
    values = {"x": np.arange(12.0).reshape(4, 3), **dict.fromkeys(("gamma", "beta", "mean", "variance"), np.ones(3))}
    same_numbers_after_training = [mg.lower(g, "training", seed=1) for g in (graph, merged)]
    states = [mg.State({k: np.float32(v) for k, v in values.items() if k != "x"}) for _ in range(2)]
    for each, state in zip(same_numbers_after_training, states, strict=True):
        state.add(each.variables, 0)
        mg.compile(each)(state, x=np.float32(values["x"]))
    np.testing.assert_array_equal(states[0]["mean"], states[1]["mean"])


# --- constant folding -----------------------------------------------------------------------------------------------


def test_what_depends_on_constants_alone_is_computed():
    check(
        X + "%1 = constant([1.0, 2.0, 3.0]) : float32[3] %2 = exp(%1) : float32[3] %3 = neg(%2) : float32[3]\n"
        f"%4 = add(%0, %3) : {ALL} return y=%4",
        Graph({"y": input_((2, 3), name="x") + ops.constant(-np.exp(np.array([1, 2, 3], np.float32)))}),
        FOLD,
    )


@pytest.mark.parametrize("dtype", list(DTYPES))
def test_folding_keeps_the_dtype(dtype):
    data = np.array([[1, 0, 3]], dtype)
    y = ops.transpose(ops.constant(data))
    folded = run([FOLD], Graph({"y": y}))[0].outputs["y"]
    assert isinstance(folded.op, Constant) and folded.type == y.type and folded.op.data == data.T.tobytes()


def test_folding_comparisons_choices_casts_and_integers():
    a = ops.constant(np.array([1, 5], np.int32))
    y = ops.cast(ops.where(a > 2, a * 3, a - 1), "float64")
    folded = run([FOLD], Graph({"y": y}))[0].outputs["y"]
    assert folded.op.values() == [0.0, 15.0] and folded.dtype == "float64"


def test_folding_stops_at_the_limit_and_at_broadcasts():
    table = ops.matmul(ops.constant(np.ones((8, 1))), ops.constant(np.ones((1, 8))))
    wide = ops.broadcast_to(ops.exp(ops.constant(np.ones(1))), (4,))
    same_size = ops.exp(ops.constant(np.arange(8.0)))
    for node, limit, folds in ((table, 512, True), (table, 511, False), (same_size, 8, True), (wide, 1 << 20, False)):
        new = run([FoldConstants(constant_evaluator(), limit)], Graph({"y": node}))[0]
        assert isinstance(new.outputs["y"].op, Constant) is folds


def test_what_a_broadcast_repeats_is_folded_inside_it():
    wide = ops.broadcast_to(ops.exp(ops.constant(np.zeros(1))), (4,))
    new = run([FOLD], Graph({"y": wide}))[0].outputs["y"]
    assert new.op.name == "broadcast_to" and new.inputs[0].op.values() == [1.0]


def test_folding_never_touches_variables_and_inputs():
    unchanged(X + f'%1 = variable("w", init=1.0) : {ALL} %2 = mul(%0, %1) : {ALL} return y=%2', FOLD)


def test_a_tuple_is_folded_item_by_item():
    pair = ops.split(ops.constant(np.arange(4.0)), 2)
    new = run([FOLD], Graph({"a": pair[1]}))[0]
    assert new.outputs["a"].op.values() == [2.0, 3.0]


def test_the_pass_is_given_its_evaluator():
    seen: list[str] = []

    def evaluate(node: Node) -> Constant:
        seen.append(node.op.name)
        return Constant.full(node.tensor_type, 7.0)

    new = run([FoldConstants(evaluate)], Graph({"y": ops.exp(ops.constant([1.0, 2.0])) + 1.0}))[0]
    assert seen == ["add"] and new.outputs["y"].op.splat == 7.0


def test_folding_in_channels_first_layout():
    x = np.random.default_rng(0).standard_normal((1, 2, 4, 4)).astype("float32")
    y = ops.max_pool2d(ops.constant(x), 2, layout="NCHW")
    folded = run([FOLD], Graph({"y": y}))[0].outputs["y"]
    expected = x.reshape(1, 2, 2, 2, 2, 2).max((3, 5))
    np.testing.assert_array_equal(np.reshape(folded.op.values(), folded.shape), expected)


# --- freezing -------------------------------------------------------------------------------------------------------


def test_variables_that_are_only_read_become_constants():
    w, v, x = variable((3,), name="w"), variable((3,), name="v"), input_((3,), name="x")
    before = Graph({"y": x * w + v}, {v: v + 1.0})
    new = run([Freeze({"w": np.array([1, 2, 3], np.float32), "unused": 5})], before)[0]
    expected = Graph({"y": x * ops.constant([1.0, 2.0, 3.0]) + v}, {v: v + 1.0})
    assert new.same_as(expected)


def test_a_frozen_graph_computes_the_same():
    w, x = variable((3, 2), name="w"), input_((4, 3), name="x")
    values = {"w": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(3, 2)), "x": np.ones((4, 3), np.float32)}
    before = Graph({"y": ops.tanh(x @ w)})
    after = run([Freeze(values)], before)[0]
    assert not after.variables
    np.testing.assert_array_equal(
        mg.compile(after)(x=values["x"])["y"], mg.compile(before)(mg.State({"w": values["w"]}), x=values["x"])["y"]
    )


def test_freezing_refuses_a_missing_value_and_one_that_does_not_fit():
    before = Graph({"y": -variable((3,), name="w")})
    with pytest.raises(GraphError, match="no value for variable 'w'"):
        run([Freeze({})], before)
    for bad in (np.zeros(4, np.float32), np.zeros(3)):
        with pytest.raises(GraphError, match="changes a node's type"):
            run([Freeze({"w": bad})], before)


def test_optimize_with_a_state_folds_down_to_numbers():
    w, x = variable((3,), name="w", init=2.0), input_((3,), name="x")
    before = Graph({"y": x * (w * 2.0 + 1.0)})
    after = mg.optimize(before, state=mg.State.initial([w]))[0]
    assert [n.op.name for n in after.nodes] == ["input", "constant", "mul"]
    np.testing.assert_array_equal(mg.compile(after)(x=[1, 2, 3])["y"], [5, 10, 15])
    same_numbers(before, mg.optimize(before)[0])
