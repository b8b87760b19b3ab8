"""Each rule of the simplifier: a picture where it applies, a picture where it must not."""

from __future__ import annotations

import random

import numpy as np
import pytest
from ir.random_graphs import runnable

import minigraph as mg
from minigraph import ops
from minigraph.ir import Graph, variable, verify
from minigraph.ir.leaves import input as input_
from minigraph.passes import SIMPLIFY, run
from minigraph.passes import simplify as rules
from passes.pictures import check, graph, same_numbers, unchanged

X = '%0 = input("x") : float32[2,3]\n'
XI = '%0 = input("x") : int32[2,3]\n'
ROW = '%0 = input("x") : float32[1,3]\n'
ZERO, ONE, TWO = (
    "%1 = constant(0.0) : float32[]\n",
    "%1 = constant(1.0) : float32[]\n",
    "%1 = constant(2.0) : float32[]\n",
)
ALL = "float32[2,3]"

# rule → pairs (before, after)
APPLIES = {
    rules.add_zero: [
        (X + ZERO + f"%2 = add(%0, %1) : {ALL} return y=%2", X + "return y=%0"),
        (X + ZERO + f"%2 = add(%1, %0) : {ALL} return y=%2", X + "return y=%0"),
        (X + ZERO + f"%2 = sub(%0, %1) : {ALL} return y=%2", X + "return y=%0"),
        (X + f"%1 = constant(-0.0) : {ALL} %2 = add(%0, %1) : {ALL} return y=%2", X + "return y=%0"),
        (XI + "%1 = constant(0) : int32[3] %2 = add(%0, %1) : int32[2,3] return y=%2", XI + "return y=%0"),
    ],
    rules.zero_minus: [
        (X + ZERO + f"%2 = sub(%1, %0) : {ALL} return y=%2", X + f"%1 = neg(%0) : {ALL} return y=%1"),
        (XI + "%1 = constant(0) : int32[] %2 = sub(%1, %0) : int32[2,3] return y=%2",
         XI + "%1 = neg(%0) : int32[2,3] return y=%1"),
    ],
    rules.multiply_by_one: [
        (X + ONE + f"%2 = mul(%0, %1) : {ALL} return y=%2", X + "return y=%0"),
        (X + ONE + f"%2 = mul(%1, %0) : {ALL} return y=%2", X + "return y=%0"),
        (X + ONE + f"%2 = div(%0, %1) : {ALL} return y=%2", X + "return y=%0"),
        (XI + "%1 = constant(1) : int32[2,1] %2 = mul(%0, %1) : int32[2,3] return y=%2", XI + "return y=%0"),
    ],
    rules.divide_by_constant: [
        (X + f"%1 = constant(4.0) : float32[] %2 = div(%0, %1) : {ALL} return y=%2",
         X + f"%1 = constant(0.25) : float32[] %2 = mul(%0, %1) : {ALL} return y=%2"),
        (X + f"%1 = constant(-0.125) : float32[3] %2 = div(%0, %1) : {ALL} return y=%2",
         X + f"%1 = constant(-8.0) : float32[3] %2 = mul(%0, %1) : {ALL} return y=%2"),
    ],
    rules.power_of_small_integer: [
        (X + ONE + f"%2 = pow(%0, %1) : {ALL} return y=%2", X + "return y=%0"),
        (X + TWO + f"%2 = pow(%0, %1) : {ALL} return y=%2", X + f"%1 = mul(%0, %0) : {ALL} return y=%1"),
    ],
    rules.double_negation: [(X + f"%1 = neg(%0) : {ALL} %2 = neg(%1) : {ALL} return y=%2", X + "return y=%0")],
    rules.add_of_negation: [
        (X + f'%1 = input("z") : {ALL} %2 = neg(%1) : {ALL} %3 = add(%0, %2) : {ALL} return y=%3',
         X + f'%1 = input("z") : {ALL} %2 = sub(%0, %1) : {ALL} return y=%2'),
        (X + f'%1 = input("z") : {ALL} %2 = neg(%1) : {ALL} %3 = sub(%0, %2) : {ALL} return y=%3',
         X + f'%1 = input("z") : {ALL} %2 = add(%0, %1) : {ALL} return y=%2'),
        (X + f'%1 = input("z") : {ALL} %2 = neg(%1) : {ALL} %3 = add(%2, %0) : {ALL} return y=%3',
         X + f'%1 = input("z") : {ALL} %2 = sub(%0, %1) : {ALL} return y=%2'),
    ],
    rules.where_constant: [
        (X + f"%1 = constant(true) : bool[] %2 = neg(%0) : {ALL} %3 = where(%1, %0, %2) : {ALL} return y=%3",
         X + "return y=%0"),
        (X + f"%1 = constant(false) : bool[3] %2 = neg(%0) : {ALL} %3 = where(%1, %0, %2) : {ALL} return y=%3",
         X + f"%1 = neg(%0) : {ALL} return y=%1"),
    ],
    rules.reshape_of_reshape: [
        (X + "%1 = reshape(%0, shape=(6,)) : float32[6] %2 = reshape(%1, shape=(3, 2)) : float32[3,2] return y=%2",
         X + "%1 = reshape(%0, shape=(3, 2)) : float32[3,2] return y=%1"),
        (X + f"%1 = reshape(%0, shape=(2, 3)) : {ALL} return y=%1", X + "return y=%0"),
        (X + f"%1 = reshape(%0, shape=(6,)) : float32[6] %2 = reshape(%1, shape=(2, 3)) : {ALL} return y=%2",
         X + "return y=%0"),
    ],
    rules.transpose_of_transpose: [
        ('%0 = input("x") : float32[2,3,4] %1 = transpose(%0, axes=(1, 2, 0)) : float32[3,4,2]\n'
         "%2 = transpose(%1, axes=(0, 2, 1)) : float32[3,2,4] return y=%2",
         '%0 = input("x") : float32[2,3,4] %1 = transpose(%0, axes=(1, 0, 2)) : float32[3,2,4] return y=%1'),
        (X + f"%1 = transpose(%0, axes=(1, 0)) : float32[3,2] %2 = transpose(%1, axes=(1, 0)) : {ALL} return y=%2",
         X + "return y=%0"),
    ],
    rules.transpose_is_reshape: [
        ('%0 = input("x") : float32[1,3,4] %1 = transpose(%0, axes=(1, 0, 2)) : float32[3,1,4] return y=%1',
         '%0 = input("x") : float32[1,3,4] %1 = reshape(%0, shape=(3, 1, 4)) : float32[3,1,4] return y=%1'),
    ],
    rules.nothing_moved: [
        (X + f"%1 = pad(%0, padding=((0, 0), (0, 0)), value=7.0) : {ALL} return y=%1", X + "return y=%0"),
        (X + f"%1 = cast(%0) : {ALL} return y=%1", X + "return y=%0"),
        (X + f"%1 = broadcast_to(%0, shape=(2, 3)) : {ALL} return y=%1", X + "return y=%0"),
        (X + f"%1 = concat(%0) : {ALL} return y=%1", X + "return y=%0"),
        (X + f"%1 = slice(%0, starts=(0, 0), sizes=(2, 3), steps=(1, 1)) : {ALL} return y=%1", X + "return y=%0"),
        (ROW + "%1 = sum(%0, axes=(0,), keepdims=true) : float32[1,3] return y=%1", ROW + "return y=%0"),
        (X + f"%1 = split(%0, sizes=(3,)) : ({ALL}) %2 = item(%1, index=0) : {ALL} return y=%2", X + "return y=%0"),
    ],
    rules.broadcast_before_elementwise: [
        (ROW + f'%1 = input("z") : {ALL} %2 = broadcast_to(%0, shape=(2, 3)) : {ALL} %3 = add(%2, %1) : {ALL} '
        f'return y=%3',
         ROW + f'%1 = input("z") : {ALL} %2 = add(%0, %1) : {ALL} return y=%2'),
        (ROW + f'%1 = input("z") : {ALL} %2 = broadcast_to(%0, shape=(2, 3)) : {ALL} %3 = less(%1, %2) : bool[2,3]\n'
         f"%4 = where(%3, %2, %1) : {ALL} return y=%4",
         ROW + f'%1 = input("z") : {ALL} %2 = less(%1, %0) : bool[2,3] %3 = where(%2, %0, %1) : {ALL} return y=%3'),
    ],
    rules.elementwise_of_broadcast: [
        (ROW + f"%1 = broadcast_to(%0, shape=(2, 3)) : {ALL} %2 = exp(%1) : {ALL} return y=%2",
         ROW + f"%1 = exp(%0) : float32[1,3] %2 = broadcast_to(%1, shape=(2, 3)) : {ALL} return y=%2"),
        (ROW + TWO + f"%2 = broadcast_to(%0, shape=(2, 3)) : {ALL} %3 = mul(%1, %2) : {ALL} return y=%3",
         ROW + TWO + f"%2 = mul(%1, %0) : float32[1,3] %3 = broadcast_to(%2, shape=(2, 3)) : {ALL} return y=%3"),
        (ROW + f'%1 = broadcast_to(%0, shape=(2, 3)) : {ALL} %2 = cast(%1, dtype="int32") : int32[2,3] return y=%2',
         ROW + '%1 = cast(%0, dtype="int32") : int32[1,3] %2 = broadcast_to(%1, shape=(2, 3)) : int32[2,3] '
         'return y=%2'),
    ],
    rules.broadcast_of_broadcast: [
        ('%0 = input("x") : float32[3] %1 = broadcast_to(%0, shape=(1, 3)) : float32[1,3]\n'
         f"%2 = broadcast_to(%1, shape=(2, 3)) : {ALL} return y=%2",
         f'%0 = input("x") : float32[3] %1 = broadcast_to(%0, shape=(2, 3)) : {ALL} return y=%1'),
    ],
    rules.size_of_known_shape: [
        (X + "%1 = size(%0, axes=(1,)) : float32[] return y=%1", X + "%1 = constant(3.0) : float32[] return y=%1"),
        (X + '%1 = size(%0, axes=(0, 1), dtype="int64") : int64[] return y=%1', X + "%1 = constant(6) : int64[] "
        "return y=%1"),
        (X + "%1 = size(%0) : float32[] return y=%1", X + "%1 = constant(1.0) : float32[] return y=%1"),
    ],
}  # fmt: skip

# rule → graphs that look alike and must stay
STAYS = {
    rules.add_zero: [
        ROW + f"%1 = constant(0.0) : {ALL} %2 = add(%0, %1) : {ALL} return y=%2",  # the zeros make x wider
        X + ZERO + f"%2 = sub(%1, %0) : {ALL} return y=%2",
        X + f"%1 = constant([0.0, 0.0, 1.0]) : float32[3] %2 = add(%0, %1) : {ALL} return y=%2",
        X + f"%1 = constant(nan) : float32[] %2 = add(%0, %1) : {ALL} return y=%2",
    ],
    rules.zero_minus: [
        X + ZERO + f"%2 = sub(%0, %1) : {ALL} return y=%2",
        ROW + f"%1 = constant(0.0) : {ALL} %2 = sub(%1, %0) : {ALL} return y=%2",
    ],
    rules.multiply_by_one: [
        X + ONE + f"%2 = div(%1, %0) : {ALL} return y=%2",
        ROW + f"%1 = constant(1.0) : {ALL} %2 = mul(%0, %1) : {ALL} return y=%2",
    ],
    rules.divide_by_constant: [
        X + f"%1 = constant(3.0) : float32[] %2 = div(%0, %1) : {ALL} return y=%2",  # 1/3 would be rounded
        X + f"%1 = constant(0.0) : float32[] %2 = div(%0, %1) : {ALL} return y=%2",
        X + f"%1 = constant(inf) : float32[] %2 = div(%0, %1) : {ALL} return y=%2",
        X + f"%1 = constant(nan) : float32[] %2 = div(%0, %1) : {ALL} return y=%2",
        X + f"%1 = constant([2.0, 4.0, 2.0]) : float32[3] %2 = div(%0, %1) : {ALL} return y=%2",
        X + TWO + f"%2 = div(%1, %0) : {ALL} return y=%2",
        '%0 = input("x") : float16[2] %1 = constant(32768.0) : float16[] %2 = div(%0, %1) : float16[2] return y=%2',
    ],
    rules.power_of_small_integer: [
        X + f"%1 = constant(3.0) : float32[] %2 = pow(%0, %1) : {ALL} return y=%2",
        X + TWO + f"%2 = pow(%1, %0) : {ALL} return y=%2",
        ROW + f"%1 = constant(2.0) : {ALL} %2 = pow(%0, %1) : {ALL} return y=%2",
    ],
    rules.double_negation: [X + f"%1 = neg(%0) : {ALL} %2 = abs(%1) : {ALL} %3 = neg(%2) : {ALL} return y=%3"],
    rules.add_of_negation: [
        X + f'%1 = input("z") : {ALL} %2 = neg(%0) : {ALL} %3 = sub(%2, %1) : {ALL} return y=%3',
        X + f'%1 = input("z") : {ALL} %2 = neg(%0) : {ALL} %3 = mul(%2, %1) : {ALL} return y=%3',
    ],
    rules.where_constant: [
        X + f"%1 = constant([true, false, true]) : bool[3] %2 = neg(%0) : {ALL} %3 = where(%1, %0, %2) : {ALL} "
        f"return y=%3",
        ROW + f'%1 = constant(true) : bool[] %2 = input("z") : {ALL} %3 = where(%1, %0, %2) : {ALL} return y=%3',
    ],
    rules.reshape_of_reshape: [X + "%1 = reshape(%0, shape=(3, 2)) : float32[3,2] return y=%1"],
    rules.transpose_of_transpose: [
        X + "%1 = transpose(%0, axes=(1, 0)) : float32[3,2] %2 = neg(%1) : float32[3,2]\n"
        f"%3 = transpose(%2, axes=(1, 0)) : {ALL} return y=%3",
    ],
    rules.transpose_is_reshape: [
        X + "%1 = transpose(%0, axes=(1, 0)) : float32[3,2] return y=%1",
        '%0 = input("x") : float32[1,3,4] %1 = transpose(%0, axes=(2, 0, 1)) : float32[4,1,3] return y=%1',
    ],
    rules.nothing_moved: [
        X + "%1 = pad(%0, padding=((0, 0), (1, 0))) : float32[2,4] return y=%1",
        X + '%1 = cast(%0, dtype="float64") : float64[2,3] return y=%1',
        X + "%1 = concat(%0, %0, axis=0) : float32[4,3] return y=%1",
        X + f"%1 = slice(%0, starts=(1, 2), sizes=(2, 3), steps=(-1, -1)) : {ALL} return y=%1",  # same type, reversed
        ROW + "%1 = sum(%0, axes=(0,)) : float32[3] return y=%1",
        "%0 = input(\"x\") : float32[1,1] %1 = mean(%0, axes=(0,), keepdims=true) : float32[1,1] return y=%1",
    ],
    rules.broadcast_before_elementwise: [
        ROW + f'%1 = input("z") : float32[3] %2 = broadcast_to(%0, shape=(2, 3)) : {ALL} %3 = add(%2, %1) : '
        f'{ALL} return y=%3',
    ],
    rules.elementwise_of_broadcast: [
        ROW + f'%1 = input("z") : float32[3] %2 = broadcast_to(%0, shape=(2, 3)) : {ALL} %3 = add(%2, %1) : '
        f'{ALL} return y=%3',
        ROW + f"%1 = broadcast_to(%0, shape=(2, 3)) : {ALL} %2 = sum(%1, axes=(0,)) : float32[3] return y=%2",
    ],
    rules.broadcast_of_broadcast: [
        ROW + f"%1 = broadcast_to(%0, shape=(2, 3)) : {ALL} %2 = neg(%1) : {ALL} return y=%2",
    ],
    rules.size_of_known_shape: [
        '%0 = input("x") : float32[N,3] %1 = size(%0, axes=(0,)) : float32[] return y=%1',
    ],
}  # fmt: skip


def cases(table):
    return [
        pytest.param(rule, picture, id=f"{rule.__name__}-{i}")
        for rule, pictures in table.items()
        for i, picture in enumerate(pictures)
    ]


@pytest.mark.parametrize(("rule", "picture"), cases(APPLIES))
def test_a_rule_applies(rule, picture):
    trace = check(*picture, rule)
    assert trace.rules[rule.__name__].hits >= 1


@pytest.mark.parametrize(("rule", "picture"), cases(STAYS))
def test_a_rule_stays_away(rule, picture):
    unchanged(picture, rule)


@pytest.mark.parametrize(("rule", "picture"), cases(APPLIES))
def test_the_whole_pass_reaches_each_rules_picture_or_goes_beyond(rule, picture):
    before, after = (graph(text) for text in picture)
    simplified, expected = run([SIMPLIFY], before)[0], run([SIMPLIFY], after)[0]
    assert simplified.same_as(expected)


def test_every_rule_has_pictures_for_both():
    assert set(APPLIES) == set(STAYS) == set(SIMPLIFY.rules)


def test_outputs_and_updates_are_rewritten_too():
    check(
        X + f'%1 = variable("w") : {ALL} %2 = constant(1.0) : float32[] %3 = mul(%1, %2) : {ALL}\n'
        f"%4 = mul(%0, %2) : {ALL} return y=%3, z=%4 update %1 <- %4",
        X + f'%1 = variable("w") : {ALL} return y=%1, z=%0 update %1 <- %0',
        SIMPLIFY,
    )


def test_rules_feed_each_other():
    x = input_((2, 3), name="x")
    y = ops.transpose(ops.transpose(-((-(x * 1.0 + 0.0)) ** 1.0)))
    assert run([SIMPLIFY], Graph({"y": y}))[0].outputs["y"] is x


def test_the_numbers_of_random_graphs_stay():
    for seed in range(60):
        old = runnable(random.Random(seed))
        new = verify(run([SIMPLIFY], old)[0])
        same_numbers(old, new, rtol=1e-5)


@pytest.mark.parametrize("value", [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45])
def test_special_numbers_pass_through_the_algebra(value):
    """But for the sign of a zero, which the rules name."""
    x = input_((4,), name="x")
    graph_ = Graph({"y": ops.constant(0.0) - ((ops.neg(-x) * 1.0 + 0.0) / 4.0) ** 2.0})
    data = np.array([value, 1.0, -2.0, 3.0], np.float32)
    expected = mg.compile(graph_, optimize=False)(x=data)["y"]
    np.testing.assert_array_equal(mg.compile(graph_)(x=data)["y"], expected)


def test_long_chains_need_few_sweeps():
    """Operands come first, so a chain of any length collapses in one sweep, and a second one sees the end."""
    x = y = variable((2, 3), name="x")
    detours = [
        lambda y: ops.neg(-y), lambda y: y + 0.0, lambda y: ops.transpose(ops.transpose(y)), lambda y: y * 1.0,
    ]  # fmt: skip
    for i in range(200):
        y = detours[i % 4](y)
    graph_, trace = run([SIMPLIFY], Graph({"y": y}))
    assert graph_.outputs["y"] is x and len(trace.steps) == 1
