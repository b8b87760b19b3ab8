"""Mixed precision: each rule as a picture, what stays in float32 and why, one cast for each value, and the numbers."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from testing.precision import retyped

import minigraph as mg
from minigraph import layers, ops
from minigraph.errors import ArgumentError
from minigraph.ir import Graph, bind, variable
from minigraph.ir.leaves import input as input_
from minigraph.ops.conv import Convolution
from minigraph.ops.linalg import MatMul
from minigraph.ops.norm import BatchNorm, Moments
from minigraph.ops.shape import Cast
from minigraph.passes import MixedPrecision, Trace, mixed_precision, run
from minigraph.passes.lower import lower
from minigraph.testing.networks import random_network
from passes.pictures import graph

HALVES = ["float16", "bfloat16"]


def mixed(before: str, after: str, *reasons: str) -> Trace:
    """Run the pass on a picture in both half types (`half` stands for either) and compare; once more changes nothing.

    The numbers are proved: each rewrite stays within its error bound. Returns the trace in bfloat16.
    """
    for half in HALVES:
        new, trace = run([MixedPrecision(half)], graph(before.replace("half", half)), verify_each=True)
        expected = graph(after.replace("half", half))
        assert new.same_as(expected), f"got:\n{new}\n\nexpected:\n{expected}"
        assert mixed_precision(new, half).same_as(new)
        proof = trace.verify()
        assert proof.holds, proof
    assert [refusal.reason for refusal in trace.refusals.values()] == list(reasons)
    return trace


# --- products ---------------------------------------------------------------------------------------------------------


def test_a_product_takes_half_and_gives_half():
    mixed(
        """
        %0 = input("x") : float32[N,3]
        %1 = variable("w") : float32[3,4]
        %2 = matmul(%0, %1) : float32[N,4]
        return y=%2
        """,
        """
        %0 = input("x") : float32[N,3]
        %1 = cast(%0, dtype="half") : half[N,3]
        %2 = variable("w") : float32[3,4]
        %3 = cast(%2, dtype="half") : half[3,4]
        %4 = matmul(%1, %3) : half[N,4]
        %5 = cast(%4) : float32[N,4]
        return y=%5
        """,
    )


def test_a_value_is_rounded_once_whoever_reads_it():
    mixed(
        """
        %0 = input("x") : float32[2,4,4,3]
        %1 = variable("w") : float32[1,1,3,3]
        %2 = conv2d(%0, %1) : float32[2,4,4,3]
        %3 = conv2d(%2, %1) : float32[2,4,4,3]
        %4 = conv2d_transpose(%2, %1, output_size=(4, 4)) : float32[2,4,4,3]
        return y=%3, z=%4
        """,
        """
        %0 = input("x") : float32[2,4,4,3]
        %1 = cast(%0, dtype="half") : half[2,4,4,3]
        %2 = variable("w") : float32[1,1,3,3]
        %3 = cast(%2, dtype="half") : half[1,1,3,3]
        %4 = conv2d(%1, %3) : half[2,4,4,3]
        %5 = conv2d(%4, %3) : half[2,4,4,3]
        %6 = cast(%5) : float32[2,4,4,3]
        %7 = conv2d_transpose(%4, %3, output_size=(4, 4)) : half[2,4,4,3]
        %8 = cast(%7) : float32[2,4,4,3]
        return y=%6, z=%8
        """,
    )


# --- what follows -----------------------------------------------------------------------------------------------------


def test_bias_activation_constants_and_choices_follow():
    mixed(
        """
        %0 = input("x") : float32[2,3]
        %1 = matmul(%0, %0, transpose_y=true) : float32[2,2]
        %2 = variable("b") : float32[2]
        %3 = add(%1, %2) : float32[2,2]
        %4 = constant(0.1) : float32[]
        %5 = mul(%3, %4) : float32[2,2]
        %6 = input("open") : bool[2,2]
        %7 = where(%6, %5, %3) : float32[2,2]
        %8 = relu(%7) : float32[2,2]
        return y=%8
        """,
        """
        %0 = input("x") : float32[2,3]
        %1 = input("open") : bool[2,2]
        %2 = cast(%0, dtype="half") : half[2,3]
        %3 = matmul(%2, %2, transpose_y=true) : half[2,2]
        %4 = variable("b") : float32[2]
        %5 = cast(%4, dtype="half") : half[2]
        %6 = add(%3, %5) : half[2,2]
        %7 = constant(0.1) : float32[]
        %8 = cast(%7, dtype="half") : half[]
        %9 = mul(%6, %8) : half[2,2]
        %10 = where(%1, %9, %6) : half[2,2]
        %11 = relu(%10) : half[2,2]
        %12 = cast(%11) : float32[2,2]
        return y=%12
        """,
    )


def test_what_moves_elements_follows():
    mixed(
        """
        %0 = input("x") : float32[2,4,4,2]
        %1 = variable("w") : float32[1,1,2,2]
        %2 = conv2d(%0, %1) : float32[2,4,4,2]
        %3 = max_pool2d(%2) : float32[2,2,2,2]
        %4 = avg_pool2d(%3) : float32[2,1,1,2]
        %5 = reshape(%4, shape=(2, 2)) : float32[2,2]
        %6 = variable("v") : float32[2,1]
        %7 = concat(%5, %6, axis=1) : float32[2,3]
        %8 = split(%7, sizes=(1, 2), axis=1) : (float32[2,1], float32[2,2])
        %9 = item(%8, index=0) : float32[2,1]
        %10 = item(%8, index=1) : float32[2,2]
        %11 = transpose(%10, axes=(1, 0)) : float32[2,2]
        return a=%9, b=%11
        """,
        """
        %0 = input("x") : float32[2,4,4,2]
        %1 = cast(%0, dtype="half") : half[2,4,4,2]
        %2 = variable("w") : float32[1,1,2,2]
        %3 = cast(%2, dtype="half") : half[1,1,2,2]
        %4 = conv2d(%1, %3) : half[2,4,4,2]
        %5 = max_pool2d(%4) : half[2,2,2,2]
        %6 = avg_pool2d(%5) : half[2,1,1,2]
        %7 = reshape(%6, shape=(2, 2)) : half[2,2]
        %8 = variable("v") : float32[2,1]
        %9 = cast(%8, dtype="half") : half[2,1]
        %10 = concat(%7, %9, axis=1) : half[2,3]
        %11 = split(%10, sizes=(1, 2), axis=1) : (half[2,1], half[2,2])
        %12 = item(%11, index=0) : half[2,1]
        %13 = cast(%12) : float32[2,1]
        %14 = item(%11, index=1) : half[2,2]
        %15 = transpose(%14, axes=(1, 0)) : half[2,2]
        %16 = cast(%15) : float32[2,2]
        return a=%13, b=%16
        """,
    )


def test_what_reads_no_half_value_stays_as_it_is():
    before = graph("""
        %0 = input("x") : float32[2,3]
        %1 = relu(%0) : float32[2,3]
        %2 = input("n") : int64[2]
        %3 = add(%2, %2) : int64[2]
        %4 = input("wide") : float64[3,3]
        %5 = matmul(%4, %4) : float64[3,3]
        return y=%1, n=%3, z=%5
    """)
    assert mixed_precision(before, "float16") is before


# --- statistics -------------------------------------------------------------------------------------------------------


def test_batch_norm_is_computed_in_float32_and_stored_in_half():
    trace = mixed(
        """
        %0 = input("x") : float32[2,4,4,3]
        %1 = variable("w") : float32[1,1,3,3]
        %2 = conv2d(%0, %1) : float32[2,4,4,3]
        %3 = variable("gamma") : float32[3]
        %4 = variable("beta") : float32[3]
        %5 = moments(%2, axes=(0, 1, 2)) : (float32[3], float32[3])
        %6 = item(%5, index=0) : float32[3]
        %7 = item(%5, index=1) : float32[3]
        %8 = batch_norm(%2, %3, %4, %6, %7) : float32[2,4,4,3]
        %9 = relu(%8) : float32[2,4,4,3]
        %10 = variable("average") : float32[3]
        return y=%9
        update %10 <- %6
        """,
        """
        %0 = input("x") : float32[2,4,4,3]
        %1 = cast(%0, dtype="half") : half[2,4,4,3]
        %2 = variable("w") : float32[1,1,3,3]
        %3 = cast(%2, dtype="half") : half[1,1,3,3]
        %4 = conv2d(%1, %3) : half[2,4,4,3]
        %5 = cast(%4) : float32[2,4,4,3]
        %6 = variable("gamma") : float32[3]
        %7 = variable("beta") : float32[3]
        %8 = moments(%5, axes=(0, 1, 2)) : (float32[3], float32[3])
        %9 = item(%8, index=0) : float32[3]
        %10 = item(%8, index=1) : float32[3]
        %11 = batch_norm(%5, %6, %7, %9, %10) : float32[2,4,4,3]
        %12 = cast(%11, dtype="half") : half[2,4,4,3]
        %13 = relu(%12) : half[2,4,4,3]
        %14 = cast(%13) : float32[2,4,4,3]
        %15 = variable("average") : float32[3]
        return y=%14
        update %15 <- %9
        """,
        "statistics are taken in float32",
    )
    report = trace.report()
    assert "bfloat16: conv2d, relu; casts to bfloat16: 3, to float32: 2" in report
    assert "float32, stored in bfloat16: batch_norm" in report
    assert "float32: moments: statistics are taken in float32" in report


def test_a_batch_norm_of_a_float32_image_gives_float32():
    x, v = input_((4, 3), name="x"), variable((3,), name="v")
    before = Graph({"y": ops.batch_norm(x, v, v, v, v)})
    assert mixed_precision(before, "bfloat16") is before


@pytest.mark.parametrize(
    "function, reason",
    [
        (ops.sum, "sums of many terms are taken in float32"),
        (ops.mean, "sums of many terms are taken in float32"),
        (ops.exp, "powers, exponentials and logarithms are taken in float32"),
        (lambda y: y**2.0, "powers, exponentials and logarithms are taken in float32"),
        (ops.logsumexp, "powers, exponentials and logarithms are taken in float32"),
        (ops.softmax, "powers, exponentials and logarithms are taken in float32"),
        (lambda y: ops.argmax(y, 1), "there is no rule for argmax in half precision"),
        (lambda y: y < 0.1, "rounding an operand could change what is decided"),
        (lambda y: y < variable(y.shape, name="v"), "rounding an operand could change what is decided"),
        (lambda y: y * 1e-9, "the constant 1e-09 is 0 in float16"),
        (lambda y: ops.minimum(y, 1e9), "float16 has no room for the constant 1e+09"),
        (lambda y: ops.pad(y, [(1, 1), (0, 0)], -1e5), "float16 has no room for the constant -100000"),
    ],
)  # fmt: skip
def test_what_stays_in_float32_says_why(function, reason):
    x = input_((3, 3), name="x")
    before = Graph({"y": function(x @ x)})
    after, trace = run([MixedPrecision("float16")], before)
    (node,) = (n for n in after.nodes if n is after.outputs["y"])
    assert all(i.dtype == "float32" for i in node.inputs)
    assert [refusal.reason for refusal in trace.refusals.values()] == [reason]
    assert reason in trace.report()


def test_a_comparison_follows_where_it_decides_the_same():
    mixed(
        """
        %0 = input("x") : float32[2,2]
        %1 = matmul(%0, %0) : float32[2,2]
        %2 = matmul(%1, %0) : float32[2,2]
        %3 = less(%1, %2) : bool[2,2]
        %4 = constant(0.5) : float32[]
        %5 = greater(%1, %4) : bool[2,2]
        return a=%3, b=%5
        """,
        """
        %0 = input("x") : float32[2,2]
        %1 = cast(%0, dtype="half") : half[2,2]
        %2 = matmul(%1, %1) : half[2,2]
        %3 = matmul(%2, %1) : half[2,2]
        %4 = less(%2, %3) : bool[2,2]
        %5 = constant(0.5) : float32[]
        %6 = cast(%5, dtype="half") : half[]
        %7 = greater(%2, %6) : bool[2,2]
        return a=%4, b=%7
        """,
    )


def test_losses_and_metrics_stay_in_float32():
    trace = mixed(
        """
        %0 = input("x") : float32[2,3]
        %1 = matmul(%0, %0, transpose_y=true) : float32[2,2]
        %2 = input("label") : float32[2,2]
        %3 = sub(%1, %2) : float32[2,2] @ "loss"
        %4 = mul(%3, %3) : float32[2,2] @ "loss"
        %5 = abs(%1) : float32[2,2] @ "metrics/size"
        return loss=%4, metric=%5
        """,
        """
        %0 = input("x") : float32[2,3]
        %1 = input("label") : float32[2,2]
        %2 = cast(%0, dtype="half") : half[2,3]
        %3 = matmul(%2, %2, transpose_y=true) : half[2,2]
        %4 = cast(%3) : float32[2,2]
        %5 = sub(%4, %1) : float32[2,2] @ "loss"
        %6 = mul(%5, %5) : float32[2,2] @ "loss"
        %7 = abs(%4) : float32[2,2] @ "metrics/size"
        return loss=%6, metric=%7
        """,
        *["losses and metrics are computed in float32"] * 2,
    )
    assert "float32: sub, abs: losses and metrics are computed in float32" in trace.report()


# --- casts that are there ---------------------------------------------------------------------------------------------


def test_casts_of_casts():
    """cast(cast(x)) to half and back up rounds, and stays; down after up is nothing, and is gone."""
    mixed(
        """
        %0 = input("x") : float32[2,2]
        %1 = cast(%0, dtype="half") : half[2,2]
        %2 = cast(%1) : float32[2,2]
        %3 = matmul(%2, %0) : float32[2,2]
        %4 = cast(%3, dtype="half") : half[2,2]
        return y=%4, z=%2
        """,
        """
        %0 = input("x") : float32[2,2]
        %1 = cast(%0, dtype="half") : half[2,2]
        %2 = matmul(%1, %1) : half[2,2]
        %3 = cast(%1) : float32[2,2]
        return y=%2, z=%3
        """,
    )


def test_other_dtypes_than_the_two_are_refused():
    with pytest.raises(ArgumentError, match="float16 or bfloat16"):
        MixedPrecision("float32")
    assert str(mg.passes.pipelines.parse("mixed_precision(bfloat16)", None)) == "mixed_precision(bfloat16)"


def test_a_scope_can_be_left_out():
    with mg.scope("head"):
        x = input_((2, 2), name="x")
        y = x @ x
    before = Graph({"y": ops.relu(y @ x)})
    after, trace = mg.optimize(before, passes="mixed_precision(float16)", exclude=["scope:head"])
    assert [n.dtype for n in after.nodes if isinstance(n.op, MatMul)] == ["float32", "float16"]
    assert "excluded from this run" in {refusal.reason for refusal in trace.refusals.values()}


def test_single_rewrites_can_be_looked_at():
    x = input_((2, 2), name="x")
    _, trace = run([MixedPrecision("float16")], Graph({"y": ops.relu(x @ x)}))
    before, after = trace.graphs_around("mixed_precision(float16)", 1)
    assert [n.dtype for g in (before, after) for n in g.nodes if n.op.name == "relu"] == ["float32", "float16"]


# --- networks ---------------------------------------------------------------------------------------------------------


def small_cnn(pooling: Any = layers.MaxPooling2D) -> mg.Model:
    with mg.ir.leaves.fresh_names():
        image = mg.Input((8, 8, 3), name="image")
        y = layers.Conv2D(8, 3, padding="same", use_bias=False)(image)
        y = pooling(2)(layers.ReLU()(layers.BatchNorm()(y)))
        y = layers.Dropout(0.2)(layers.Activation("tanh")(layers.Conv2D(8, 3, padding="same")(y)))
        return mg.Model(image, layers.Dense(5)(layers.GlobalAveragePooling2D()(y)))


def forward(model: mg.Model) -> Graph:
    model.compile(loss=mg.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return lower(model._with_loss(model.training), "training")


@pytest.mark.parametrize("half", HALVES)
def test_products_of_a_network_are_half_and_statistics_are_not(half: str):
    before = forward(small_cnn())
    after = run([MixedPrecision(half)], before, verify_each=True)[0]
    for node in after.nodes:
        if isinstance(node.op, (Convolution, MatMul)):
            assert {node.dtype, *(i.dtype for i in node.inputs)} == {half}
        if isinstance(node.op, (BatchNorm, Moments)):
            assert {i.dtype for i in node.inputs} == {"float32"}
    relus = [n for n in after.nodes if n.op.name in ("relu", "max_pool2d", "tanh", "where")]
    assert len(relus) == 4 and {n.dtype for n in relus} == {half}
    assert [v.type for v in after.variables] == [v.type for v in before.variables]
    for old, new in ((before.outputs, after.outputs), (before.updates, after.updates)):
        assert [n.type for n in old.values()] == [n.type for n in new.values()]
    made = [n for n in after.nodes if n not in set(before.nodes)]
    assert all(n.origin.where and n.origin.scope for n in made)
    again, second = run([MixedPrecision(half)], after)
    assert again is after and not second.rewrites
    assert str(mixed_precision(forward(small_cnn()), half)) == str(after)


def test_rewrites_of_a_network_are_within_their_bounds():
    for half in HALVES:
        graph_ = bind(forward(small_cnn()), N=4)
        proof = run([MixedPrecision(half)], graph_)[1].verify(trials=1)
        assert proof.holds, proof


def casts_are_shared(graph_: Graph, half: str) -> bool:
    made = [(n.op, n.inputs) for n in graph_.nodes if isinstance(n.op, Cast)]
    chains = [
        n for n in graph_.nodes if isinstance(n.op, Cast) and n.dtype == half and isinstance(n.inputs[0].op, Cast)
    ]
    return len(set(made)) == len(made) and not [n for n in chains if n.inputs[0].inputs[0].dtype == half]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), half=st.sampled_from(HALVES))
def test_random_networks(seed: int, half: str):
    """A random network stays valid, its outputs stay within their bounds, and the pass finds nothing more to do."""
    network = random_network(random.Random(seed), size=(5, 14))
    graph_ = bind(lower(network, "inference"), **dict.fromkeys(network.symbols, 2))
    after, trace = run([MixedPrecision(half)], graph_, verify_each=True)
    assert mixed_precision(after, half).same_as(after)
    assert casts_are_shared(after, half)
    proof = trace.verify(trials=1)
    assert proof.holds, f"{proof}\n{graph_}"


# --- numbers ----------------------------------------------------------------------------------------------------------


def relative(x: Any, y: Any) -> float:
    return float(np.linalg.norm(np.float64(x) - np.float64(y)) / np.linalg.norm(np.float64(y)))


def with_gradients(forward_: Graph) -> Graph:
    loss = forward_.outputs["loss"]
    weights = [v for v in forward_.variables if v.op.trainable]
    found = mg.gradients(loss, weights)
    assert {g.dtype for g in found} == {"float32"}
    return Graph({"loss": loss, **{w.label: g for w, g in zip(weights, found, strict=True)}}, inputs=forward_.inputs)


@pytest.mark.parametrize("half, unit", [("float16", 2.0**-11), ("bfloat16", 2.0**-8)])
def test_outputs_and_gradients_are_those_of_float64(half: str, unit: float):
    """Roundings are independent, and mostly cancel: in the norm, some ten of them in a row make a few units.

    Not behind a max pool: which of two values that round to the same number is passed on is a matter of luck.
    """
    model, rng = small_cnn(layers.AveragePooling2D), np.random.default_rng(0)
    plain = bind(forward(model), N=8)
    values = {"image": rng.standard_normal((8, 8, 8, 3)).astype("float32"), "label": rng.integers(0, 5, 8)}
    mixed_ = mg.compile(with_gradients(mixed_precision(plain, half)))(model.state, **values)
    wide = mg.compile(retyped(with_gradients(plain), "float64")[0])
    state = {v.label: model.state[v.label].astype(v.dtype) for v in wide.graph.variables}
    exact = wide(mg.State(state), **{**values, "image": values["image"].astype("float64")})
    off = {name: relative(value, exact[name]) for name, value in mixed_.items()}
    print(off)
    assert 0 < off.pop("loss") < unit
    assert all(0 < value < 12 * unit for value in off.values()), off
