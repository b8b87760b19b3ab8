"""Printing and parsing: what is printed reads back as the same graph, and prints as the same text."""

from __future__ import annotations

import math
import pathlib
import random

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minigraph as mg
from ir.random_graphs import INITIALIZERS, definition, runnable
from minigraph import layers, ops
from minigraph.errors import ArgumentError, GraphError
from minigraph.ir import Constant, Graph, Node, parse, scope, symbol, variable
from minigraph.ir.encoding import pack, unpack
from minigraph.ir.leaves import input as input_
from minigraph.ir.parser import parse_value
from minigraph.ir.printer import LITERAL_LIMIT, _number, node_text, value_text
from minigraph.ir.types import DTYPES
from minigraph.layers.regularizers import L2
from minigraph.ops.activations import LeakyRelu, Relu
from minigraph.ops.conv import Conv2D
from minigraph.ops.elementwise import Add, Clip
from minigraph.ops.fused import Fused
from minigraph.ops.norm import BatchNorm, Moving
from minigraph.ops.region import Step
from minigraph.ops.shape import After, BroadcastTo
from minigraph.passes import FUSE, run

GOLDEN = pathlib.Path(__file__).with_name("golden.txt")


def reads_back(graph: Graph) -> Graph:
    """Parse what a graph prints, check that nothing is lost, and return it."""
    text = str(graph)
    again = parse(text)
    assert str(again) == text
    assert again.same_as(graph)
    return again


@settings(max_examples=300, deadline=None)
@given(st.randoms(use_true_random=False))
def test_every_graph_reads_back(rng):
    graph = definition(rng)
    again = reads_back(graph)
    assert [n.origin.scope for n in again.nodes] == [n.origin.scope for n in graph.nodes]


def golden_graph() -> Graph:
    image = input_((symbol("N"), 4, 4, 2), name="image")
    label = input_((symbol("N"),), "int64", "label")
    with scope("block"):
        x = layers.Conv2D(4, 3, padding="same", use_bias=False, kernel_regularizer=L2(0.001), name="conv")(image)
        x = layers.BatchNormalization(momentum=0.9, unbiased=True, name="norm")(x)
        x = ops.flatten(ops.max_pool2d(ops.relu(x)))
        x = ops.dropout(x, 0.25, seed=7)
    table = ops.constant(np.arange(1, 49, dtype=np.float32).reshape(16, 3))
    logits = ops.matmul(x, table) + ops.constant([0.5, -0.0, math.inf])
    first = ops.split(logits, (1, 2))[0]
    loss = ops.mean(ops.softmax_cross_entropy(logits, label))
    steps = variable((), name='steps ⏱ "π"', init=0, dtype="int64", trainable=False)
    return Graph({"first": first, "größe": loss}, {steps: steps + 1})


def test_the_golden_text():
    assert str(golden_graph()) + "\n" == GOLDEN.read_text(encoding="utf-8")
    reads_back(golden_graph())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (3,), (0,), (2, 16), (33,), (4, 0, 2)])
def test_constants_of_every_dtype_keep_every_bit(dtype, shape):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (*shape, DTYPES[dtype]), dtype=np.uint8)
    array = values.view(dtype).reshape(shape) if dtype != "bool" else (values[..., 0] > 127).reshape(shape)
    graph = Graph({"y": Node(Constant.of(np.ascontiguousarray(array)))})
    again = reads_back(graph)
    assert again.outputs["y"].op.data == array.tobytes()


@pytest.mark.parametrize("dtype", [d for d in DTYPES if "int" in d])
def test_the_ends_of_the_integers(dtype):
    info = np.iinfo(dtype)
    for data in (np.array(info.max, dtype), np.array([info.min, info.max], dtype)):
        graph = Graph({"y": ops.constant(data) * input_((2,), dtype, "x")})
        assert str(info.max) in str(graph)
        assert reads_back(graph).nodes[1].op.data == data.tobytes()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_special_numbers(dtype):
    info = ml_dtypes.finfo(dtype)
    numbers = [
        0.0,
        -0.0,
        math.inf,
        -math.inf,
        math.nan,
        info.max,
        info.min,
        info.tiny,
        info.smallest_subnormal,
        info.eps,
        0.1,
    ]
    for number in numbers:
        for shape in ((), (2, 3)):
            data = np.full(shape, number, dtype)
            assert reads_back(Graph({"y": ops.constant(data)})).outputs["y"].op.data == data.tobytes()
    whole = np.array(numbers, dtype)
    assert reads_back(Graph({"y": ops.constant(whole)})).outputs["y"].op.data == whole.tobytes()


def test_every_number_of_bfloat16_is_printed_exactly_and_rounded_to_even():
    bits = np.arange(2**16, dtype=np.uint16)
    values = unpack("bfloat16", bits.tobytes())
    assert np.array_equal(np.float32(values), bits.view(ml_dtypes.bfloat16).astype("float32"), equal_nan=True)
    finite = [v for v in values if math.isfinite(v)]
    texts = [_number(v, "bfloat16") for v in finite]
    assert [unpack("bfloat16", pack("bfloat16", float(text)))[0] for text in texts] == finite
    assert _number(float(np.float32(0.1).astype(ml_dtypes.bfloat16)), "bfloat16") == "0.1"
    between = np.float32([1 + 2**-8, 1 + 3 * 2**-8, 3 * 2.0**-134, -(2.0**-134), 0.3, -7e37])
    there = b"".join(pack("bfloat16", float(v)) for v in between)
    assert there == between.astype(ml_dtypes.bfloat16).tobytes() == ops.constant(between, "bfloat16").op.data
    for number in (3.4e38, [1.0, -1e39], "x"):
        with pytest.raises(ArgumentError):
            ops.constant(number, "bfloat16")


@settings(max_examples=200, deadline=None)
@given(st.floats(width=32) | st.floats(width=16))
def test_numbers_are_printed_short_and_exactly(number):
    for dtype in ("float32", "float64"):
        data = np.array([number, 1.0], dtype)
        text = str(Graph({"y": ops.constant(data)}))
        assert parse(text).outputs["y"].op.data == data.tobytes()


def test_short_numbers():
    assert "constant(0.1)" in str(Graph({"y": ops.constant(np.float32(0.1))}))
    assert "constant(0.1)" in str(Graph({"y": ops.constant(np.float16(0.1))}))
    assert "constant(true)" in str(Graph({"y": ops.constant(np.array([True, True]))}))


def test_long_constants_are_base64_and_equal_ones_a_single_number():
    short, long = np.arange(LITERAL_LIMIT), np.arange(LITERAL_LIMIT + 1)
    assert 'base64"' not in str(Graph({"y": ops.constant(short)}))
    assert 'base64"' in str(Graph({"y": ops.constant(long)}))
    assert "constant(7)" in str(Graph({"y": ops.constant(np.full(1000, 7))}))


@pytest.mark.parametrize("init", INITIALIZERS, ids=repr)
def test_initialisers_regularisers_and_flags(init):
    w = variable((2, 2), name="w", init=init, trainable=False, regularizer=L2(0.5))
    again = reads_back(Graph({"y": w})).variables[0].op
    assert (again.init, again.trainable, again.regularizer) == (init, False, L2(0.5))
    assert type(again.init) is type(init)


def test_moving_averages_and_symbolic_attributes():
    n = symbol("N")
    x = input_((n, 3), name="x")
    vectors = [variable((3,), name=f"v{i}") for i in range(4)]
    count = variable((), name="count")
    op = mg.ops.norm.BatchNorm(1, 0.5, Moving(0.5, True, True, True), fold=False)
    reads_back(Graph({
        "norm": Node(op, (x, *vectors, count)),
        "wide": ops.broadcast_to(1.0, (n * 2, 3)),
        "flat": ops.reshape(x, (n * 3,)),
    }))  # fmt: skip


@pytest.mark.parametrize(
    "name", ["x", "größe", "a b", 'quo"te', "back\\slash", "🙂", "0", "return", "# no comment", "%1", "a=b"]
)
def test_names_of_inputs_variables_outputs_and_scopes(name):
    with scope(name):
        node = -input_((2,), name=name) + variable((2,), name=f"{name}'")
    again = reads_back(Graph({name: node}))
    assert list(again.outputs) == [name] and again.outputs[name].origin.scope == name


@pytest.mark.parametrize(
    "value", [None, True, False, 0, -5, 1.0, -0.0, 1e-300, math.inf, "a\\\"b", (), (1,), ((1, 2), ("x", None)),
              Moving(), L2(2.0), symbol("N"), symbol("N") * 4, (symbol("N"), 3)], ids=repr,
)  # fmt: skip
def test_attribute_values_read_back(value):
    again = parse_value(value_text(value))
    assert again == value and type(again) is type(value)
    assert math.isnan(parse_value(value_text(math.nan)))


@pytest.mark.parametrize(
    "op", [Relu(), LeakyRelu(), LeakyRelu(0.5), Conv2D(), Conv2D((2, 1), ((0, 1), (2, 0)), groups=3, layout="NCHW"),
           BroadcastTo((symbol("N"), 3)), Clip(-math.inf, 6.0), BatchNorm(1, 0.5), BatchNorm(moving=Moving(0.5))],
    ids=repr,
)  # fmt: skip
def test_ops_as_attributes_read_back(op):
    again = parse_value(value_text(op))
    assert again == op and type(again) is type(op)
    step = Step(op, (0, 3))
    assert parse_value(value_text(step)) == step
    assert parse_value(value_text((step, step))) == (step, step)


def test_the_text_of_a_region():
    x, b = input_((symbol("N"), 3), name="x"), variable((3,), name="b")
    body = (Step(Add(), (0, 1)), Step(LeakyRelu(0.5), (2,)))
    graph = Graph({"y": Node(Fused(body), (x, b))})
    assert str(graph).splitlines()[3] == (
        "  %2 = fused(%0, %1, body=(step(op=add(), inputs=(0, 1)), step(op=leaky_relu(alpha=0.5), inputs=(2,)))) "
        ": float32[N,3]"
    )
    again = reads_back(graph)
    assert again.outputs["y"].op.body == body and again.symbols == ("N",)


@pytest.mark.parametrize("make", [definition, runnable])
def test_fused_graphs_read_back(make):
    met = 0
    for seed in range(60):
        graph = run([FUSE], make(random.Random(seed)))[0]
        met += sum(n.op.name == "fused" for n in graph.nodes)
        again = reads_back(graph)
        assert [n.origin.scope for n in again.nodes] == [n.origin.scope for n in graph.nodes]
    assert met > 5


def test_what_waits_for_something_reads_back():
    x = input_((2,), name="x")
    reads_back(Graph({"y": Node(After(), (x, ops.moments(x)[0].inputs[0]))}))


def test_layout_of_the_text_does_not_matter():
    text = str(golden_graph())
    squeezed = "\n".join(line.strip() for line in text.splitlines())
    commented = text.replace("\n", "  # a comment: } return\n\n")
    windows = text.replace("\n", "\r\n")
    for other in (squeezed, text.replace("\n", "\t\n  "), commented, windows):
        assert parse(other).same_as(parse(text))


def test_nodes_may_be_numbered_as_one_likes():
    text = 'graph {\n %7 = input("x") : float32[2]\n %3 = neg(%7) : float32[2]\n return y=%3\n}'
    assert str(parse(text)) == 'graph {\n  %0 = input("x") : float32[2]\n  %1 = neg(%0) : float32[2]\n  return y=%1\n}'


def test_what_nothing_reaches_is_dropped_but_inputs_stay():
    text = 'graph { %0 = input("x") : float32[2] %1 = neg(%0) : float32[2] %2 = input("z") : int8[] return y=%0 }'
    assert [n.label for n in parse(text).nodes] == ["x", "z"]


def test_one_line_as_a_picture_shows_it():
    x = input_((symbol("N"), 8), name="x")
    assert node_text(ops.clip(x, 0.0, 6.0), ["%3"]) == "clip(%3, minimum=0.0, maximum=6.0) : float32[N,8]"
    assert node_text(x, []) == 'input("x") : float32[N,8]'


@pytest.mark.parametrize("name", ["N", "inf1", "nan0", "truth", "float32", "moving", "graph", "_", "base64"])
def test_symbols(name):
    n = symbol(name)
    reads_back(Graph({"y": ops.reshape(input_((n, 2), name="x"), (2, n)), name: ops.broadcast_to(1.0, (n * 3,))}))


@pytest.mark.parametrize("name", ["β", "true", "false", "none", "inf", "nan"])
def test_symbols_that_the_text_could_not_hold_are_refused(name):
    with pytest.raises(GraphError, match="symbolic size needs a name"):
        symbol(name)


@pytest.mark.parametrize("name", ["", "a\nb", "a" * 201])
def test_names_that_the_text_could_not_hold_are_refused(name):
    y = -input_((2,), name="x")
    with pytest.raises(GraphError, match="not a name"), scope(name):
        pass
    with pytest.raises(GraphError, match="not a name"):
        Graph({name: y})


def test_nan_and_negative_zero_as_attributes():
    """Attributes are compared by value: there is one NaN, and −0 is 0."""
    x = input_((2,), name="x")
    for value in (math.nan, -0.0):
        reads_back(Graph({"y": ops.pad(x, ((1, 1),), value)}))
    assert ops.pad(x, ((1, 1),), -0.0).op == ops.pad(x, ((1, 1),), 0.0).op


def test_a_nan_with_bits_of_its_own_reads_back() -> None:
    """0 · ∞ makes a NaN with its sign bit set on some machines; `nan` is the one without."""
    for values in ([np.copysign(np.nan, -1)], [1.0, np.copysign(np.nan, -1)], [1.0, np.nan], [np.nan] * 40):
        for dtype in ("float16", "bfloat16", "float32", "float64"):
            graph = Graph({"y": Node(Constant.of(np.array(values, dtype)))})
            assert parse(str(graph)).same_as(graph) and str(parse(str(graph))) == str(graph)
