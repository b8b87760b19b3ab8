"""Affine merging, rule by rule: pictures, refusals with their reasons, and numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import minigraph as mg
from minigraph import ops
from minigraph.ir import Graph, Node, variable
from minigraph.ir.leaves import input as input_
from minigraph.passes import MERGE_AFFINES, merge, run
from minigraph.runtime import StateNumbers
from passes.folding import Net, as_graph, assert_within_bounds, compute, data_ops, example, knowing, refused
from passes.pictures import check, unchanged

NAME = MERGE_AFFINES.name


def merges(net: Net, outputs: Node, left: str) -> Graph:
    """Check that the pass leaves these ops on data, that optimising does, and that the numbers stay."""
    graph = as_graph(outputs)
    merged = run([knowing(MERGE_AFFINES, net.state())], graph, verify_each=True)[0]
    assert data_ops(merged) == left
    final, trace = mg.optimize(graph, net.state())
    assert data_ops(final) == left
    assert_within_bounds(graph, [(merged, merged), (trace.step("freeze").before, final)], net.values, net.sizes)
    return merged


def stays(net: Net, outputs: Node | dict[str, Node], at: Node, reason: str) -> None:
    """Check that the pass leaves a graph alone, and that the reason at a node has these words in it."""
    graph = as_graph(outputs)
    after, trace = run([knowing(MERGE_AFFINES, net.state())], graph)
    assert after.same_as(graph)
    refusal = trace.why_not(NAME, at)
    assert refusal is not None and reason in refusal.reason


# --- chains -----------------------------------------------------------------------------------------------------------


def test_a_chain_becomes_one_product_and_one_sum():
    check(
        """
        %0 = input("x") : float64[2,3]
        %1 = variable("a") : float64[3]
        %2 = add(%0, %1) : float64[2,3]
        %3 = constant(0.5) : float64[]
        %4 = mul(%2, %3) : float64[2,3]
        %5 = variable("b") : float64[3]
        %6 = sub(%5, %4) : float64[2,3]
        %7 = variable("c") : float64[3]
        %8 = div(%6, %7) : float64[2,3]
        %9 = neg(%8) : float64[2,3]
        return y=%9
        """,
        """
        %0 = input("x") : float64[2,3]
        %1 = constant(0.5) : float64[]
        %2 = constant(-1.0) : float64[]
        %3 = mul(%1, %2) : float64[]
        %4 = constant(1.0) : float64[]
        %5 = variable("c") : float64[3]
        %6 = div(%4, %5) : float64[3]
        %7 = mul(%3, %6) : float64[3]
        %8 = constant(-1.0) : float64[]
        %9 = mul(%7, %8) : float64[3]
        %10 = mul(%0, %9) : float64[2,3]
        %11 = variable("a") : float64[3]
        %12 = mul(%11, %1) : float64[3]
        %13 = mul(%12, %2) : float64[3]
        %14 = variable("b") : float64[3]
        %15 = add(%13, %14) : float64[3]
        %16 = mul(%15, %6) : float64[3]
        %17 = mul(%16, %8) : float64[3]
        %18 = add(%10, %17) : float64[2,3]
        return y=%18
        """,
        MERGE_AFFINES,
    )


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_a_long_chain_of_vectors_and_numbers(dtype, layout):
    net = Net(dtype, layout)
    x = net.image()
    for _ in range(6):
        x = net.bias(x) * 0.75 - net.laid(net.random("d", 4), net.axis, 4)
    merges(net, x, "mul add")


@pytest.mark.parametrize(("text", "rule"), [
    ("""
    %0 = input("x") : float64[2,3]
    %1 = variable("a") : float64[3]
    %2 = mul(%0, %1) : float64[2,3]
    %3 = variable("b") : float64[3]
    %4 = add(%2, %3) : float64[2,3]
    return y=%4
    """, "a product, then a sum"),
    ("""
    %0 = input("x") : float64[3]
    %1 = variable("a") : float64[3]
    %2 = mul(%0, %1) : float64[3]
    %3 = mul(%2, %1) : float64[3]
    return y=%3
    """, "a vector of data, as small as its parameter"),
    ("""
    %0 = input("x") : float64[2,3]
    %1 = variable("a") : float64[2,3]
    %2 = mul(%0, %1) : float64[2,3]
    %3 = mul(%2, %1) : float64[2,3]
    return y=%3
    """, "parameters that vary along two axes"),
    ("""
    %0 = input("x") : float64[2,3]
    %1 = variable("a") : float64[3]
    %2 = div(%1, %0) : float64[2,3]
    %3 = mul(%2, %1) : float64[2,3]
    return y=%3
    """, "a quotient by data"),
    ("""
    %0 = input("x") : float64[1,3]
    %1 = variable("a") : float64[3]
    %2 = add(%0, %1) : float64[1,3]
    %3 = variable("b") : float64[2,1]
    %4 = mul(%2, %3) : float64[2,3]
    return y=%4
    """, "data that is broadcast"),
    ("""
    %0 = input("x") : float64[2,3]
    %1 = input("z") : float64[3]
    %2 = mul(%0, %1) : float64[2,3]
    %3 = mul(%2, %1) : float64[2,3]
    return y=%3
    """, "factors that are data"),
    ("""
    %0 = input("x") : int64[2,3]
    %1 = variable("a") : int64[3]
    %2 = mul(%0, %1) : int64[2,3]
    %3 = mul(%2, %1) : int64[2,3]
    return y=%3
    """, "integers, which wrap around"),
])  # fmt: skip
def test_a_picture_without_anything_to_merge(text, rule):
    unchanged(text, MERGE_AFFINES)


def test_negation_of_integers_does_not_go_through_float64():
    x, w = input_((2, 3), "int64", "x"), variable((3, 2), name="w", dtype="int64")
    for y in (ops.neg(x) @ w, ops.neg(ops.neg(x))):
        graph = as_graph(y)
        assert run([MERGE_AFFINES], graph)[0].same_as(graph)


def test_refused_where_what_lies_between_is_read_elsewhere():
    net = Net()
    middle = net.bias(net.image())
    outer = middle * 2.0
    stays(net, {"y": outer, "z": middle}, outer, "second use: add is read 2 times")


def test_refused_along_different_axes():
    net = Net()
    inner = net.image() * net.laid(net.random("a", 4), 3, 4)
    outer = inner * net.laid(net.random("b", 5), 2, 4)
    stays(net, outer, outer, "axes differ")


def test_a_map_over_pixels_and_a_bias_become_one_sum():
    check(
        """
        %0 = input("x") : float64[2,4,3,2]
        %1 = variable("map") : float64[4,3,2]
        %2 = add(%0, %1) : float64[2,4,3,2]
        %3 = variable("bias") : float64[2]
        %4 = add(%3, %2) : float64[2,4,3,2]
        return y=%4
        """,
        """
        %0 = input("x") : float64[2,4,3,2]
        %1 = variable("map") : float64[4,3,2]
        %2 = variable("bias") : float64[2]
        %3 = add(%1, %2) : float64[4,3,2]
        %4 = add(%0, %3) : float64[2,4,3,2]
        return y=%4
        """,
        merge.sum_of_parameters,
    )


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_sums_along_several_axes(dtype, layout):
    net = Net(dtype, layout)
    x = net.image(5, 5, 5)
    merges(net, net.bias(x + net.random("map", 5, 5, 5)) + net.random("row", 5), "add")


def test_sums_whose_total_would_be_larger_than_each_stay():
    net = Net()
    inner = net.image() + net.random("map", 6, 1, 4)
    outer = inner + net.random("row", 5, 1)
    stays(net, outer, outer, "their sum would be larger than each")


# --- around a batch norm ----------------------------------------------------------------------------------------------


def test_what_follows_a_batch_norm_goes_into_gamma_and_beta():
    check(
        """
        %0 = input("x") : float64[2,3]
        %1 = variable("gamma") : float64[3]
        %2 = variable("beta") : float64[3]
        %3 = variable("mean") : float64[3]
        %4 = constant([0.5, 1.0, 2.0]) : float64[3]
        %5 = batch_norm(%0, %1, %2, %3, %4) : float64[2,3]
        %6 = variable("c") : float64[3]
        %7 = mul(%5, %6) : float64[2,3]
        %8 = constant(1.0) : float64[]
        %9 = sub(%8, %7) : float64[2,3]
        return y=%9
        """,
        """
        %0 = input("x") : float64[2,3]
        %1 = variable("gamma") : float64[3]
        %2 = variable("c") : float64[3]
        %3 = mul(%1, %2) : float64[3]
        %4 = constant(-1.0) : float64[]
        %5 = mul(%3, %4) : float64[3]
        %6 = variable("beta") : float64[3]
        %7 = mul(%6, %2) : float64[3]
        %8 = mul(%7, %4) : float64[3]
        %9 = constant(1.0) : float64[]
        %10 = add(%8, %9) : float64[3]
        %11 = variable("mean") : float64[3]
        %12 = constant([0.5, 1.0, 2.0]) : float64[3]
        %13 = batch_norm(%0, %5, %10, %11, %12) : float64[2,3]
        return y=%13
        """,
        merge.affine_of_batch_norm,
    )


def test_two_batch_norms_become_one():
    check(
        """
        %0 = input("x") : float64[2,3]
        %1 = variable("gamma") : float64[3]
        %2 = variable("beta") : float64[3]
        %3 = variable("mean") : float64[3]
        %4 = constant([0.5, 1.0, 2.0]) : float64[3]
        %5 = batch_norm(%0, %1, %2, %3, %4) : float64[2,3]
        %6 = batch_norm(%5, %1, %2, %3, %4, epsilon=0.5) : float64[2,3]
        return y=%6
        """,
        """
        %0 = input("x") : float64[2,3]
        %1 = variable("gamma") : float64[3]
        %2 = constant([0.5, 1.0, 2.0]) : float64[3]
        %3 = constant(0.5) : float64[]
        %4 = add(%2, %3) : float64[3]
        %5 = rsqrt(%4) : float64[3]
        %6 = mul(%1, %5) : float64[3]
        %7 = mul(%1, %6) : float64[3]
        %8 = variable("beta") : float64[3]
        %9 = mul(%8, %6) : float64[3]
        %10 = variable("mean") : float64[3]
        %11 = mul(%10, %6) : float64[3]
        %12 = sub(%8, %11) : float64[3]
        %13 = add(%9, %12) : float64[3]
        %14 = batch_norm(%0, %7, %13, %10, %2) : float64[2,3]
        return y=%14
        """,
        MERGE_AFFINES,
    )


def test_what_comes_before_a_batch_norm_goes_into_gamma_and_beta():
    check(
        """
        %0 = input("x") : float64[2,3]
        %1 = variable("d") : float64[3]
        %2 = sub(%0, %1) : float64[2,3]
        %3 = variable("gamma") : float64[3]
        %4 = variable("beta") : float64[3]
        %5 = variable("mean") : float64[3]
        %6 = constant([0.5, 1.0, 2.0]) : float64[3]
        %7 = batch_norm(%2, %3, %4, %5, %6) : float64[2,3]
        return y=%7
        """,
        """
        %0 = input("x") : float64[2,3]
        %1 = variable("gamma") : float64[3]
        %2 = variable("beta") : float64[3]
        %3 = variable("d") : float64[3]
        %4 = neg(%3) : float64[3]
        %5 = variable("mean") : float64[3]
        %6 = sub(%4, %5) : float64[3]
        %7 = mul(%6, %1) : float64[3]
        %8 = constant([0.5, 1.0, 2.0]) : float64[3]
        %9 = constant(0.001) : float64[]
        %10 = add(%8, %9) : float64[3]
        %11 = rsqrt(%10) : float64[3]
        %12 = mul(%7, %11) : float64[3]
        %13 = add(%2, %12) : float64[3]
        %14 = constant(0.0) : float64[3]
        %15 = batch_norm(%0, %1, %13, %14, %8, axis=1) : float64[2,3]
        return y=%15
        """,
        merge.batch_norm_of_affine,
    )


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_affines_on_both_sides_of_batch_norms(dtype, layout):
    net = Net(dtype, layout)
    factor = net.laid(net.random("c", 4), net.axis, 4)
    x = net.norm(-(net.image() - factor)) * factor + 0.5
    merges(net, net.norm(x) / 4.0, "batch_norm")


def test_a_batch_norm_that_was_merged_is_still_the_same_node():
    net = Net()
    before = net.norm(net.bias(ops.relu(net.image())))
    merged = run([MERGE_AFFINES], as_graph(before))[0].outputs["y"]
    assert merged.id == before.id and merged.origin.history == (("batch_norm_of_affine", before.id),)


NORM = """
    %0 = input("x") : float64[2,4]
    %1 = variable("gamma") : float64[4]
    %2 = {before} : float64[2,4]
    %3 = variable("beta") : float64[4]
    %4 = variable("mean") : float64[4]
    %5 = variable("variance") : float64[4]
    %6 = batch_norm(%2, %1, %3, %4, %5{more}) : float64[2,4]
    %7 = {after} : float64[2,4]
    return y=%7{outputs}
    """


@pytest.mark.parametrize(("parts", "op", "reason"), [
    ({"after": "add(%6, %1)", "more": ", fold=false"}, "add", "asked not to: fold=False"),
    ({"before": "add(%0, %1)", "more": ", fold=false"}, "batch_norm", "asked not to: fold=False"),
    ({"after": "add(%6, %1)", "outputs": ", z=%6"}, "add", "second use: batch_norm is read 2 times"),
    ({"before": "add(%0, %1)", "outputs": ", z=%2"}, "batch_norm", "second use: add is read 2 times"),
])  # fmt: skip
def test_a_batch_norm_that_stays_as_it_is(parts, op, reason):
    text = NORM.format(**{"before": "tanh(%0)", "after": "tanh(%6)", "more": "", "outputs": "", **parts})
    unchanged(text, MERGE_AFFINES)
    assert refused(text, NAME, op) == reason


def test_a_batch_norm_along_another_axis_stays_as_it_is():
    net = Net()
    inner = net.norm(net.image(4, 4, 4), axis=1)
    outer = net.norm(inner, axis=3)
    stays(net, outer, outer, "axes differ")
    scaled = net.image(4, 4, 4) * net.laid(net.random("c", 4), 2, 4)
    norm = net.norm(scaled)
    stays(net, norm, norm, "axes differ")


def test_a_batch_norm_of_the_batch_itself_stays_as_it_is():
    net = Net()
    x = net.bias(net.image())
    mean, variance = ops.moments(x, (0, 1, 2))
    norm = net.norm(x, operands=(*net.statistics(4)[:2], mean, variance))
    stays(net, norm * 2.0, norm, "there are none to fold")


# --- around linear ops ------------------------------------------------------------------------------------------------


def test_a_product_behind_a_linear_op_goes_into_kernel_and_bias():
    check(
        """
        %0 = input("x") : float64[2,4]
        %1 = variable("w") : float64[4,3]
        %2 = matmul(%0, %1) : float64[2,3]
        %3 = variable("bias") : float64[3]
        %4 = add(%2, %3) : float64[2,3]
        %5 = variable("c") : float64[3]
        %6 = div(%4, %5) : float64[2,3]
        return y=%6
        """,
        """
        %0 = input("x") : float64[2,4]
        %1 = variable("w") : float64[4,3]
        %2 = constant(1.0) : float64[]
        %3 = variable("c") : float64[3]
        %4 = div(%2, %3) : float64[3]
        %5 = mul(%1, %4) : float64[4,3]
        %6 = matmul(%0, %5) : float64[2,3]
        %7 = variable("bias") : float64[3]
        %8 = mul(%7, %4) : float64[3]
        %9 = add(%6, %8) : float64[2,3]
        return y=%9
        """,
        merge.scaling_of_linear,
    )


def test_a_normalised_input_goes_into_the_kernel_and_a_map_of_biases():
    check(
        """
        %0 = input("x") : float64[2,3,3,2]
        %1 = variable("mean") : float64[2]
        %2 = sub(%0, %1) : float64[2,3,3,2]
        %3 = variable("deviation") : float64[2]
        %4 = div(%2, %3) : float64[2,3,3,2]
        %5 = variable("w") : float64[2,2,2,3]
        %6 = conv2d(%4, %5, padding="same") : float64[2,3,3,3]
        return y=%6
        """,
        """
        %0 = input("x") : float64[2,3,3,2]
        %1 = variable("w") : float64[2,2,2,3]
        %2 = constant(1.0) : float64[]
        %3 = variable("deviation") : float64[2]
        %4 = div(%2, %3) : float64[2]
        %5 = reshape(%4, shape=(2, 1)) : float64[2,1]
        %6 = mul(%1, %5) : float64[2,2,2,3]
        %7 = conv2d(%0, %6, padding="same") : float64[2,3,3,3]
        %8 = variable("mean") : float64[2]
        %9 = neg(%8) : float64[2]
        %10 = mul(%9, %4) : float64[2]
        %11 = broadcast_to(%10, shape=(1, 3, 3, 2)) : float64[1,3,3,2]
        %12 = conv2d(%11, %1, padding="same") : float64[1,3,3,3]
        %13 = reshape(%12, shape=(3, 3, 3)) : float64[3,3,3]
        %14 = add(%7, %13) : float64[2,3,3,3]
        return y=%14
        """,
        MERGE_AFFINES,
    )


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_numbers_and_vectors_around_convolutions(dtype, layout):
    net = Net(dtype, layout)
    x = (net.image(5, 5, 5) - 0.5) * net.laid(net.random("c", 5), net.axis, 4)
    x = net.conv(x, 5, padding="same") * net.laid(net.random("d", 5), net.axis, 4)
    # The bias map of the padded convolution and the bias behind it are one sum.
    merges(net, net.bias(x), "conv2d add")


def test_a_number_before_a_convolution_on_transposed_axes():
    net = Net(layout="NCHW")
    merges(net, net.conv((net.image() - 127.5) / 127.5), "conv2d add")
    merges(net, net.transposed(net.image() * 0.5 + 1.0, strides=2), "conv2d_transpose add")
    merges(net, net.dense(net.input(3, 6) * net.random("c", 6) - 1.0), "matmul add")


@pytest.mark.parametrize(("make", "reason"), [
    (lambda net, x: ops.tanh(x), "tanh stands between, which is not linear"),
    (lambda net, x: x, "nothing linear comes before it"),
    (lambda net, x: net.conv(x, 4, 1) + x, "a branch of the addition cannot take the scale"),
])  # fmt: skip
def test_a_product_that_finds_no_linear_op(make, reason):
    net = Net()
    product = make(net, net.image()) * net.random("c", 4)
    stays(net, product, product, reason)


def test_a_sum_alone_stays_before_a_convolution():
    net = Net()
    x = net.conv(net.bias(net.image()))
    graph = as_graph(x)
    assert run([MERGE_AFFINES], graph)[0].same_as(graph)


def test_refused_where_the_kernel_changes_at_every_step():
    net = Net()
    before = net.conv(net.image() * 2.0)
    behind = net.conv(net.image()) * 2.0
    for y, at in ((before, before), (behind, behind)):
        step = variable((), name="step", dtype="float64")
        graph = Graph({"y": y}, {step: step + 1.0})
        after, trace = run([MERGE_AFFINES], graph)
        assert after.same_as(graph)
        assert trace.why_not(NAME, at).reason.startswith("training: the kernel changes at every step")


# --- float16 ----------------------------------------------------------------------------------------------------------


def full(net: Net, value: float) -> Node:
    return net.variable("c", np.full(4, value))


def offsets(net: Net, x: Node) -> Node:
    first, second = (net.variable("map", np.full((6, 5, 4), value)) for value in (40000.0, 30000.0))
    return x - 60000.0 + first + second


def kernel(net: Net) -> Node:
    return net.variable("w", np.full((1, 1, 4, 4), 300.0))


OVERFLOWS = {
    "chain": lambda net, x: x * full(net, 300.0) * full(net, 300.0),
    "sums": offsets,
    "before norm": lambda net, x: net.norm(x * full(net, 1000.0), gamma=100.0),
    "behind norm": lambda net, x: net.norm(x, gamma=300.0) * full(net, 300.0),
    "two norms": lambda net, x: net.norm(net.norm(x, gamma=300.0, variance=1.0), gamma=300.0, variance=1.0),
    "before linear": lambda net, x: net.conv(x * full(net, 300.0), kernel=kernel(net)),
    "behind linear": lambda net, x: net.conv(x, kernel=kernel(net)) * full(net, 300.0),
}


@pytest.mark.parametrize("make", OVERFLOWS.values(), ids=OVERFLOWS)
def test_refused_where_a_merged_number_overflows_float16(make):
    net = Net("float16")
    y = make(net, net.image())
    net.values["x"] *= 1e-3
    for label in net.values:
        if label.startswith(("mean", "beta")):
            net.values[label] *= 1e-3
    assert all(np.isfinite(value).all() for value in compute(as_graph(y), net.values).values())
    stays(net, y, y, "overflow: a folded parameter reaches")
    # Without the guard the same rule would do it.
    assert run([MERGE_AFFINES], as_graph(y))[1].rewrites


# --- all rules --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", MERGE_AFFINES.rules, ids=lambda rule: rule.__name__)
def test_the_example_of_each_rule_is_rewritten_by_it(rule):
    trace = run([replace(MERGE_AFFINES, rules=(rule,), numbers=StateNumbers({}))], example(rule), verify_each=True)[1]
    assert [rewrite.rule for rewrite in trace.rewrites] == [rule.__name__]
