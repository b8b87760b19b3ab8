"""Functions, several ops under one name: numbers, gradients, text and sizes are those of the ops inside."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import minigraph as mg
from minigraph import ops
from minigraph.autodiff import gradients
from minigraph.errors import ArgumentError, DTypeError, GradientError
from minigraph.ir import Constant, Graph, Node, bind, parse, symbol, variable, verify
from minigraph.ir.leaves import input as input_
from minigraph.ir.leaves import item
from minigraph.ops.elementwise import Neg
from minigraph.ops.region import Function, Step, function, inline, inlined_results, steps_of
from minigraph.runtime import State, evaluate

N = symbol("N")


def var(shape: tuple[Any, ...], name: str) -> Node:
    return variable(shape, name=name, dtype="float64")


def norm(x: Node, gamma: Node, epsilon: float = 1e-3) -> list[Node]:
    """A normalisation, its mean and its reciprocal deviation: a tuple op, its items, constants and shared steps."""
    column = (x.shape[0], 1)
    mean, variance = (ops.reshape(m, column) for m in ops.moments(x, 1))
    scale = ops.rsqrt(variance + epsilon)
    centred = (x - mean) * scale
    return [centred * gamma + ops.constant(np.linspace(-1, 1, 3), x.dtype), mean, scale]


def as_function(x: Node, gamma: Node) -> list[Node]:
    return function("Norm", [x, gamma], norm(x, gamma), [("axis", -1), ("epsilon", 1e-3)], [0, 1, -1])


def values(nodes: Sequence[Node], optimize: bool = True) -> Any:
    graph = Graph({str(i): n for i, n in enumerate(nodes)})
    drawn = {v.label: np.random.default_rng(len(v.label)).standard_normal(v.shape) for v in graph.variables}
    return list(mg.compile(graph, optimize=optimize)(State(drawn)).values())


def reads_back(graph: Graph) -> Graph:
    again = parse(str(verify(graph)))
    assert str(again) == str(graph)
    assert again.same_as(graph)
    return again


# --- what it is ---------------------------------------------------------------------------------------------------


def test_a_function_is_one_node_with_items() -> None:
    x, gamma = var((4, 3), "x"), var((3,), "gamma")
    y, mean, scale = as_function(x, gamma)
    made = y.inputs[0]
    assert [n.op.name for n in (y, mean, scale, made)] == ["item", "item", "item", "function"]
    assert made.label == "Norm" and made.inputs == (x, gamma) and str(made.type) == (
        "(float64[4,3], float64[4,1], float64[4,1])"
    )  # fmt: skip
    assert [step.op.name for step in made.op.body].count("moments") == 1  # type: ignore[attr-defined]
    assert mean.shape == (4, 1)


def test_results_may_be_operands_and_may_be_given_twice() -> None:
    x = var((3,), "x")
    y = -x
    found = function("F", [x, x], [y, x, y])
    assert found[0].inputs[0].op.results == (2, 0, 2)  # type: ignore[attr-defined]
    got = values(found)
    np.testing.assert_array_equal(got[0], -got[1])
    np.testing.assert_array_equal(got[0], got[2])
    dx = gradients(ops.sum(found[0] * 2.0 + found[1] * 5.0 + found[2]), [x])[0]
    np.testing.assert_array_equal(values([dx])[0], np.full(3, 2.0))


def test_a_function_of_nothing_but_constants() -> None:
    (y,) = function("Table", [], [ops.constant([1.0, 2.0]) * 3.0])
    graph = Graph({"y": y})
    np.testing.assert_array_equal(evaluate(reads_back(graph).outputs["y"], State({})), [3.0, 6.0])


# --- gradients ----------------------------------------------------------------------------------------------------

Make = Callable[[Node, Node], list[Node]]


def pieces(x: Node, gamma: Node) -> list[Node]:
    """Pieces of a tuple that meet again; one is picked twice, one not at all."""
    first, _, third = ops.split(x, 3)
    again = item(first.inputs[0], 0)
    return [
        ops.concat([third, first * ops.tanh(third)], 1) * 2.0,
        ops.matmul(first * again, ops.reshape(gamma, (1, 3))),
    ]


def narrow(x: Node, gamma: Node) -> list[Node]:
    """Reductions in a row: what they hand back is narrower than what they were given."""
    return [ops.sum(ops.matmul(x, ops.reshape(gamma, (3, 1)))), ops.mean(ops.sum(ops.reshape(x * x, (2, 2, 3)), 0), 1)]


def choices(x: Node, gamma: Node) -> list[Node]:
    """Integers and booleans on the way, which have no gradient."""
    best = ops.argmax(x * x, 1)
    return [ops.gather(gamma * gamma, best) * 3.0, ops.where(x > gamma, x * gamma, gamma)]


@pytest.mark.parametrize("read", [(0,), (1,), (0, 1), (1, 0, 0)], ids=str)
@pytest.mark.parametrize("inside", [norm, pieces, narrow, choices])
def test_gradients_of_both_orders_are_those_of_the_ops_inside(inside: Make, read: tuple[int, ...]) -> None:
    x, gamma = var((4, 3), "x"), var((3,), "gamma")
    found = []
    for make in (inside, lambda x, gamma: function("F", [x, gamma], inside(x, gamma))):
        results = make(x, gamma)
        total = ops.sum(x * gamma * gamma) + ops.sum(x * x * x)  # both are reached, whatever is read
        for i in read:
            total = total + ops.sum(ops.sin(results[i]) * results[i])
        dx, dgamma = gradients(total, [x, gamma])
        found.append(values([total, dx, dgamma, *gradients(ops.sum(dx * dx) + ops.sum(dgamma * dgamma), [x, gamma])]))
    for got, want in zip(found[1], found[0], strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)
        assert np.abs(want).max() > 1e-9


def test_nothing_flows_through_what_has_no_gradient() -> None:
    x = var((4, 3), "x")
    (y,) = function("Best", [x], [ops.cast(ops.argmax(x, 1), "float64")])
    with pytest.raises(GradientError, match="does not depend on 'x'"):
        gradients(ops.sum(y), [x])


def test_gradient_nodes_know_the_function_they_are_the_gradient_of() -> None:
    x = var((3,), "x")
    (y,) = function("F", [x], [ops.tanh(ops.exp(x))])
    (dx,) = gradients(ops.sum(y), [x])
    made = [n for n in Graph({"dx": dx}).nodes if n.op.name in ("exp", "tanh")]
    assert made and all(n.origin.gradient_of == y.id for n in made)


# --- text ---------------------------------------------------------------------------------------------------------

NAN = np.array([0x7FC00001, 0x7FC00000, 0xFF800001], np.uint32).view(np.float32)


@pytest.mark.parametrize(
    "value",
    [2.5, -0.0, math.nan, math.inf, np.arange(3.0), np.arange(40.0), np.arange(40, dtype="uint16").astype("float32"),
     np.zeros((0, 3)), np.full((2, 3), 0.1), NAN],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
def test_constants_inside_read_back_bit_by_bit(value: Any) -> None:
    array = np.asarray(value, np.float32)
    x = input_((), name="x")
    (y,) = function("F", [x], [x * ops.constant(array)])
    again = reads_back(Graph({"y": y})).outputs["y"]
    (constant,) = [step.op for step in again.op.body if isinstance(step.op, Constant)]  # type: ignore[attr-defined]
    assert constant.data == array.tobytes() and constant.type.shape == array.shape


def test_the_text_of_a_function() -> None:
    x = input_((N, 3), name="x")
    (y,) = function("Add one", [x], [ops.relu(x + 1.0)], [("alpha", 0.5), ("mode", 'a"b'), ("sizes", (1, N))], [0])
    assert str(Graph({"y": y})).splitlines()[2] == (
        '  %1 = function(%0, "Add one", body=(step(op=constant(1.0, type=float32[]), inputs=()), '
        "step(op=add(), inputs=(0, 1)), step(op=relu(), inputs=(2,))), "
        'attributes=(("alpha", 0.5), ("mode", "a\\"b"), ("sizes", (1, N))), slots=(0,), results=(3,)) : float32[N,3]'
    )
    reads_back(Graph({"y": y}))


@pytest.mark.parametrize(
    "value",
    [None, True, 0, -(2**63), 2**64 - 1, 1.5, math.inf, "", "✓ \"\\", (), (1, (2.0, "x")), N * 6,
     Constant.of(np.arange(50, dtype=np.int16))],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
def test_attributes_read_back(value: Any) -> None:
    x = input_((N,), name="x")
    (y,) = function("F", [x], [-x], [("value", value), ("value", value)])
    again = reads_back(Graph({"y": y})).outputs["y"].op.attributes  # type: ignore[attr-defined]
    assert again == (("value", value),) * 2 and type(again[0][1]) is type(value)


@pytest.mark.parametrize("value", ["a\nb", "\x00", 2**64, b"ab", [1], {"a": 1}, np.arange(3), np.float32(1.0), object])
def test_attributes_that_no_text_can_hold_are_refused(value: Any) -> None:
    with pytest.raises(ArgumentError, match="bad attributes of a function"):
        Function((Step(Neg(), (0,)),), "F", (("value", value),))


def test_an_error_shows_the_beginning_of_a_long_body() -> None:
    x = variable((3,), name="x")
    big = ops.constant(np.arange(100_000.0))
    with pytest.raises(DTypeError, match="step 1, mul") as caught:
        Node(Function((Step(big.op, ()), Step(ops.mul(x, x).op, (0, 1))), "F"), (x,))
    assert len(str(caught.value)) < 1000


# --- sizes --------------------------------------------------------------------------------------------------------


def test_symbolic_sizes_inside_are_bound() -> None:
    x = input_((N, 4), name="x")
    flat = ops.reshape(x * ops.size(x, 0), (N * 2, 2))
    found = function("F", [x], [flat, ops.broadcast_to(ops.mean(x, 0), (N, 4))], [("shape", (N * 2, 2))])
    graph = Graph({"a": found[0], "b": found[1]})
    assert [str(s) for s in found[0].shape] == ["2*N", "2"]
    bound = verify(bind(graph, N=3))
    assert not bound.symbols and "N" not in str(bound).replace("None", "")
    assert bound.outputs["a"].shape == (6, 2) and bound.outputs["b"].shape == (3, 4)
    reads_back(bound)
    given = np.arange(12, dtype=np.float32).reshape(3, 4)
    got = mg.compile(graph)(x=given)
    np.testing.assert_array_equal(got["a"], (given * 3).reshape(6, 2))
    np.testing.assert_allclose(got["b"], np.tile(given.mean(0), (3, 1)))


def test_a_function_without_symbols_stays_the_same_node_when_others_are_bound() -> None:
    x, table = input_((N,), name="x"), variable((3,), name="t")
    (y,) = function("F", [table], [ops.exp(-table)])
    bound = bind(Graph({"x": -x, "y": y}), N=2)
    assert bound.outputs["y"] is y


def test_flops_are_those_of_the_ops_inside() -> None:
    x, gamma = var((4, 3), "x"), var((3,), "gamma")
    made = as_function(x, gamma)[0].inputs[0]
    inside = Graph({str(i): n for i, n in enumerate(norm(x, gamma))})
    assert made.op.flops(made) == sum(n.op.flops(n) for n in inside.nodes) > 0  # type: ignore[misc]
    assert made.op.bytes(made) == 8 * (12 + 3 + 12 + 4 + 4)


# --- depth --------------------------------------------------------------------------------------------------------


def test_ten_thousand_steps_do_not_recurse() -> None:
    x = h = var((3,), "x")
    for _ in range(5000):
        h = ops.tanh(h) + x
    (y,) = function("Deep", [x], [h])
    assert len(y.op.body) == 10_000 > 5 * sys.getrecursionlimit()  # type: ignore[attr-defined]
    graph = reads_back(Graph({"y": y}))
    assert hash(y.op) == hash(graph.outputs["y"].op) and len(steps_of(y)) == 10_000
    (dx,) = gradients(ops.sum(y), [x])
    got = values([y, dx, inline(y)], optimize=False)
    np.testing.assert_array_equal(got[0], got[2])
    assert np.isfinite(got[1]).all()
    assert str(graph.outputs["y"].op.flops(y)) == "75000"


def test_many_results_are_inlined_once() -> None:
    x = h = var((2,), "x")
    results = [h := ops.tanh(h) for _ in range(2000)]
    found = function("All", [x], results)
    start = time.process_time()
    program = mg.compile({str(i): y for i, y in enumerate(found)}, optimize=False)
    assert len(program(State({"x": np.ones(2)}))) == 2000
    assert len(program.graph.nodes) == 2001
    assert time.process_time() - start < 10  # each result for itself would be two million nodes


def test_sizes_of_steps_may_be_open() -> None:
    x = input_((N, 3), name="x")
    (y,) = function("F", [x], [-x])
    assert str(y.op.flops(y)) == "3*N"
    (again,) = inlined_results(y)
    assert again.op == Neg() and again.inputs == (x,)
