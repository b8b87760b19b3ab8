"""Decisions that rounding could change, domains that rounding could leave, values that are exact; and the interface."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minigraph as mg
from minigraph import gradients, ops
from minigraph.errors import GraphError, ProgramError, ShapeError
from minigraph.ir import Graph, Node, Op, symbol, topological, variable
from minigraph.ir.leaves import input as input_
from minigraph.ops.activations import Relu
from minigraph.ops.elementwise import Mul
from minigraph.ops.fused import Fused
from minigraph.ops.indexing import GatherAdjoint
from minigraph.ops.pool import MaxPool2DAdjoint, MaxPool2DSelect
from minigraph.ops.region import Step
from minigraph.ops.shape import After, Cast
from minigraph.testing.bounds import RULES, Bounded, analyse, bound

U = 2.0**-24
X = variable((), name="x")


def unsure(x: Node, size: float = 1e5) -> Node:
    """Return x with an error of about size·u, and of the same value."""
    return (x + size) - size


def errors(node: Node, **values: Any) -> list[Any]:
    """Return a node's errors as a list."""
    return analyse([node], values)[node].error.tolist()


def of(values: Any, dtype: str = "float32") -> Node:
    """Return a constant."""
    return ops.constant(np.asarray(values, dtype))


# --- comparisons and what hangs on them -------------------------------------------------------------------------------


def test_exact_values_compare_exactly() -> None:
    numbers = of([1.0, 0.0, -1.0, np.nan, np.inf])
    for compare in (ops.less, ops.less_equal, ops.greater, ops.greater_equal, ops.equal, ops.not_equal):
        assert errors(compare(numbers, of([1.0, 0.0, 2.0, np.nan, np.inf]))) == [0.0] * 5


def test_a_comparison_within_the_error_is_open() -> None:
    near = unsure(of([1e-4, 1.0, -1e-4, -1.0]))
    for compare in (ops.less, ops.less_equal, ops.greater, ops.greater_equal):
        assert errors(compare(near, 0.0)) == [1.0, 0.0, 1.0, 0.0]
    assert errors(ops.equal(near, near * 1.0)) == [1.0] * 4
    assert errors(ops.not_equal(near, of([1.0, 0.0, 1.0, 0.0]))) == [0.0] * 4


def test_where_covers_both_operands_only_where_the_condition_is_open() -> None:
    chosen = ops.where(unsure(of([1e-4, 1.0])) > 0.0, of([5.0, 5.0]), of([-2.0, np.nan]))
    assert errors(chosen) == [7.0, 0.0]


def test_the_gradient_of_relu_is_exact_where_the_sign_is_sure() -> None:
    x = variable((3,), name="x")
    (g,) = gradients(ops.sum(ops.relu(unsure(x))), [x])
    assert errors(g, x=[1.0, -1.0, 1e-4]) == [0.0, 0.0, 1.0]


def test_exact_zeros_stay_exact() -> None:
    """Black borders through convolutions without bias: which way a ReLU decides there is no matter of rounding."""
    x, w = variable((1, 6, 6, 1), name="x"), variable((3, 3, 1, 2), name="w")
    image = np.zeros((1, 6, 6, 1), np.float32)
    image[0, 5, 5] = 0.1
    weights = np.full((3, 3, 1, 2), 0.3, np.float32)
    found = analyse([ops.relu(ops.conv2d(x, w, padding="same")) > 0.0], {"x": image, "w": weights})
    assert not any(b.error[0, :3, :3].any() for n, b in found.items() if n.rank == 4 and n.op.name != "variable")
    assert errors(of([0.0]) * unsure(of([3.0]))) == [0.0]


def test_what_clip_and_max_picked_is_equal_to_what_it_was_picked_from() -> None:
    x = unsure(of([[-2.0, 0.5, 0.9999, 7.0], [0.1, 0.2, 0.3, 0.3001]]))
    assert errors(ops.equal(ops.clip(x, 0.0, 1.0), x)) == [[0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    for top, expected in (
        (ops.max(x, 1, keepdims=True), [[0.0] * 4, [0.0, 0.0, 1.0, 1.0]]),
        (ops.reshape(ops.max(x, 1), (2, 1)), [[0.0] * 4, [0.0, 0.0, 1.0, 1.0]]),
        (ops.min(x, (0, 1), keepdims=True), [[0.0] * 4, [0.0] * 4]),
    ):
        assert errors(ops.equal(top, x)) == expected
    assert errors(ops.equal(ops.max(x, 1, keepdims=True), x + 0.0)) != [[0.0] * 4, [0.0, 0.0, 1.0, 1.0]]


def test_maximum_takes_the_error_of_the_winner() -> None:
    x, y = unsure(of([1.0, 1.0])), of([2.0, 1.0001])
    assert errors(ops.maximum(x, y))[0] == 0.0 < errors(ops.maximum(x, y))[1]
    assert errors(ops.minimum(y, x)) == pytest.approx(errors(x), rel=1e-8)


def test_argmax_of_near_ties() -> None:
    x = unsure(of([[0.0, 5.0, 1.0, 5.0001, 2.0], [1.0, 5.0, 3.0, 4.0, 2.0]]))
    assert errors(ops.argmax(x)) == [2.0, 0.0]
    assert errors(ops.argmax(of([3.0, 3.0, 1.0]))) == 0.0, "of equal exact elements the first wins"
    assert np.ravel(errors(ops.one_hot(ops.argmax(x), 5))) == pytest.approx([0, 1, 1, 1, 1] + [0] * 5)


def test_an_index_that_is_not_sure_reaches_all_elements() -> None:
    index = ops.argmax(unsure(of([[1.0, 1.0001, 0.0], [0.0, 0.0, 9.0]])))
    table = of([10.0, 20.0, 40.0])
    assert errors(ops.gather(table, index)) == [30.0, 0.0]
    spread = errors(Node(GatherAdjoint((3,), 0), (of([1.0, 5.0]), index)))
    assert all(1.0 <= e < 6.0 for e in spread)


def test_steps() -> None:
    x = unsure(of([2.0, 2.5, -0.5]))
    assert errors(ops.floor(x)) == pytest.approx([1.0, 0.0, 0.0])
    assert errors(Node(Cast("int32"), (x,))) == [1.0, 0.0, 0.0]
    assert errors(ops.sign(unsure(of([1e-4, 0.0, -3.0])))) == pytest.approx([2.0, 2.0, 0.0])
    assert errors(Node(Cast("bool"), (unsure(of([0.0, 3.0])),))) == [1.0, 0.0]
    assert errors(Node(Cast("int8"), (of([100.0, 300.0, np.nan]),))) == [0.0, np.inf, np.inf]
    assert errors(ops.floor(of([2.0, 2.5]))) == [0.0, 0.0]


def test_max_pooling_of_near_ties() -> None:
    image = np.float32([[1.0, 5.0, 2.0, 2.0001], [0.0, 0.0, 0.0, 0.0]]).reshape(1, 2, 4, 1)
    sure, near = of(image), unsure(of(image))
    other = of(np.arange(8).reshape(1, 2, 4, 1))
    g = of(np.float32([3.0, 4.0]).reshape(1, 1, 2, 1))
    assert np.ravel(errors(Node(MaxPool2DSelect(), (near, other)))) == pytest.approx([0.0, 1.0])
    assert errors(Node(MaxPool2DSelect(), (sure, other))) == [[[[0.0], [0.0]]]]
    spread = analyse([n := Node(MaxPool2DAdjoint(), (near, g))], {})[n].error[0, :, :, 0]
    assert spread.ravel() == pytest.approx([0.0, 0.0, 4.0, 4.0, 0.0, 0.0, 0.0, 0.0])
    assert not np.any(errors(Node(MaxPool2DAdjoint(), (sure, g))))


# --- domains, overflow, what is not a number --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "inside", "outside"),
    [
        (lambda x: 1.0 / x, 1.0, 1e-4),
        (ops.log, 1.0, 1e-4),
        (ops.sqrt, 1.0, -1e-4),
        (ops.sqrt, 1.0, 1e-4),
        (ops.rsqrt, 1.0, 1e-4),
        (lambda x: x**0.5, 1.0, 1e-4),
        (lambda x: x**-1.0, -1.0, 1e-4),
        (lambda x: ops.exp(x * 40.0), 2.0, 2.3),
        (lambda x: Node(Cast("int32"), (x * 2e9,)), 1.0, 1.2),
    ],
)
def test_an_operand_that_may_leave_the_domain_has_no_bound(function: Any, inside: float, outside: float) -> None:
    for value, unbounded in ((inside, False), (outside, True)):
        assert np.isinf(errors(function(unsure(X)), x=value)) == unbounded
    assert np.isfinite(errors(ops.sqrt(X), x=0.0)) and np.isfinite(errors(X**0.5, x=0.0)), "0 itself is exact"


def test_a_square_root_of_what_cannot_be_negative_has_a_bound() -> None:
    """As in Adam: √v + ε, where v is an average of squares."""
    g = unsure(X)
    root = ops.sqrt(0.999 * of(0.0) + 0.001 * (g * g))
    assert 0 < errors(root, x=1e-6) < 1e-3
    assert errors(1.0 / (root + 0.1), x=1e-6) < 1
    assert np.isinf(errors(ops.sqrt(g * unsure(X, 2e5)), x=1e-6)), "a product of different factors may be negative"


def test_overflow() -> None:
    half = variable((4,), name="h", dtype="float16")
    values = {"h": [60000.0, 6000.0, 300.0, 1.0]}
    assert np.isinf(errors(half * 2.0, **values)).tolist() == [True, False, False, False]
    assert np.isinf(errors(half * half, **values)).tolist() == [True, True, True, False]
    for add in (ops.sum, ops.mean, lambda x: ops.moments(x)[0], lambda x: ops.avg_pool2d(ops.reshape(x, (1, 2, 2, 1)))):
        assert np.isinf(errors(add(half), h=[6e4, 6e4, -6e4, -6e4])).all(), "a partial sum overflows"
    assert np.isinf(errors(Node(Cast("float16"), (of([1e5, 1.0]),)))).tolist() == [True, False]
    assert np.isinf(errors(ops.exp(X), x=100.0)) and np.isfinite(errors(ops.exp(X), x=80.0))


def test_what_is_not_finite_has_no_bound_but_moves_exactly() -> None:
    x = variable((4,), name="x")
    values = {"x": np.float32([np.nan, np.inf, -np.inf, 1.0])}
    moved = ops.concat([ops.reshape(ops.transpose(ops.reshape(x, (2, 2))), (4,))[::-1], ops.pad(x, [(1, 0)], np.inf)])
    assert errors(moved, **values) == [0.0] * 9
    assert np.isinf(errors(x + 1.0, **values)).tolist() == [True, True, True, False]
    assert errors(ops.where(of([False, True, True, True], "bool"), x, 0.0), **values) == [0.0] * 4
    lost = 1.0 / unsure(x - x, 1e3)
    for function in (ops.tanh, ops.sigmoid, ops.relu, ops.hard_sigmoid, ops.sign, ops.floor, ops.softmax):
        assert np.isinf(errors(function(lost), x=[1.0] * 4)).all(), "an unbounded operand may be NaN"


def test_masked_logits_have_bounds() -> None:
    """−∞ among logits, where the target's weight is 0."""
    x = ops.where(of([True, True, False], "bool"), unsure(variable((3,), name="x")), -np.inf)
    targets = of([0.25, 0.75, 0.0])
    for node in (ops.softmax(x), ops.logsumexp(x), ops.softmax_cross_entropy(x, targets)):
        assert np.max(errors(node, x=[1.0, 2.0, 3.0])) < 0.1


# --- dtypes, casts, integers ------------------------------------------------------------------------------------------


def test_each_dtype_has_its_own_roundoff() -> None:
    found = {}
    for dtype in ("float16", "bfloat16", "float32", "float64"):
        x = variable((), name="x", dtype=dtype)
        found[dtype] = float(errors(x * x, x=1.5)) / 2.25
    units = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": U, "float64": 2.0**-53}
    assert found == pytest.approx(units, rel=5e-3, abs=0)


def test_casts_round_where_the_dtype_is_narrower() -> None:
    x = variable((2,), name="x", dtype="float64")
    narrow = ops.cast(x, "float32")
    assert errors(narrow, x=[0.1, 0.5]) == pytest.approx([0.1 * U, 0.0], rel=1e-6)
    assert errors(ops.cast(narrow, "float64"), x=[0.1, 0.5]) == pytest.approx([0.1 * U, 0.0], rel=1e-6)
    assert errors(ops.cast(variable((), name="i", dtype="int64"), "float32"), i=2**24) == 0.0
    assert errors(ops.cast(variable((), name="i", dtype="int64"), "float32"), i=2**24 + 1) >= 1.0


def test_integers_are_exact_even_where_they_wrap_around() -> None:
    i = variable((2,), name="i", dtype="int8")
    assert errors(i * i + i, i=[100, 3]) == [0.0, 0.0]
    assert errors(ops.sum(i), i=[100, 100]) == 0.0
    assert analyse([n := i * i], {"i": [100, 3]})[n].value.dtype == np.int8


def test_random_numbers_are_the_same_bits() -> None:
    node = ops.random_uniform(variable((), name="c", dtype="int64"), (3,), (1, 2))
    assert errors(node, c=5) == [0.0] * 3


def test_unit_puts_another_dtype_in_the_place_of_all() -> None:
    y = X * 3.0
    for unit, u in (("float16", 2.0**-11), ("float32", U), ("float64", 2.0**-53)):
        rounded = abs(float(np.dtype(unit).type(np.float32(0.1))) - float(np.float32(0.1)))
        found = analyse([y], {"x": 0.1}, unit=unit)
        assert found[X].error == rounded
        assert found[y].error == pytest.approx(0.3 * u + 3 * rounded, rel=0.01)
    with pytest.raises(ProgramError, match="those of floats"):
        analyse([y], {"x": 0.1}, unit="int32")


# --- the interface ----------------------------------------------------------------------------------------------------


def test_several_results_are_tuples() -> None:
    x = variable((4,), name="x")
    mean, variance = ops.moments(x)
    pair = mean.inputs[0]
    found = analyse([mean, variance], {"x": [1.0, 2.0, 3.0, 4.0]})
    assert found[pair].value[1] == found[variance].value == 1.25
    assert found[pair].error[0] == found[mean].error and all(e > 0 for e in found[pair].error)


def test_symbolic_sizes_are_bound() -> None:
    n = symbol("N")
    x = input_((n, 3), name="x")
    y = ops.broadcast_to(ops.mean(x), (n, 2)) / ops.size(x, 0)
    found = analyse([y], {"x": np.ones((4, 3))}, sizes={"N": 4})
    assert found[y].value.shape == found[y].error.shape == (4, 2) and found[y].value[0, 0] == 0.25
    with pytest.raises(ShapeError, match="does not fit"):
        analyse([y], {"x": np.ones((4, 3))}, sizes={"N": 5})


def test_a_fused_region_is_analysed_step_by_step() -> None:
    x, w = variable((3,), name="x"), variable((3,), name="w")
    region = Node(Fused((Step(Mul(), (0, 1)), Step(Relu(), (2,)))), (x, w))
    values = {"x": [1.0, -2.0, 3.0], "w": [0.1, 0.2, 0.3]}
    assert errors(region, **values) == errors(ops.relu(x * w), **values)


def test_after_is_its_first_operand() -> None:
    y = X * X
    assert errors(Node(After(), (y, X)), x=3.0) == errors(y, x=3.0)


def test_channels_first_is_channels_last() -> None:
    rng = np.random.default_rng(0)
    image, kernel = rng.standard_normal((2, 5, 5, 3)), rng.standard_normal((3, 3, 3, 4))
    last = ops.conv2d(of(image), of(kernel))
    first = ops.conv2d(of(image.transpose(0, 3, 1, 2)), of(kernel.transpose(3, 2, 0, 1)), layout="NCHW")
    assert np.array_equal(errors(ops.transpose(first, (0, 2, 3, 1))), errors(last))


def test_shared_nodes_are_analysed_once_and_depth_is_no_limit() -> None:
    met: list[str] = []
    rule = RULES[Relu].rule

    def counted(call: Any) -> Any:
        met.append(call.op.name)
        return rule(call)

    y = ops.relu(X)
    bound(Relu)(counted)
    try:
        found = analyse([*Graph({"a": y + 1.0}).nodes, *Graph({"b": y * 2.0}).nodes], {"x": 1.0})
    finally:
        bound(Relu)(rule)
    assert met == ["relu"] and set(topological([y])) <= set(found)
    deep = X
    for _ in range(5000):
        deep = -deep
    assert errors(deep, x=1.0) == 0.0


def test_what_cannot_be_analysed_says_why() -> None:
    with pytest.raises(ProgramError, match="no value for 'x'"):
        analyse([X], {})
    with pytest.raises(ShapeError, match="does not fit"):
        analyse([X], {"x": [1.0]})
    with pytest.raises(GraphError, match="mode is still open"):
        analyse([ops.dropout(X)], {"x": 1.0})
    norm = mg.layers.BatchNormalization()(mg.Input((3,), name="image"))
    values = {n.label: np.ones(3) for n in topological([norm]) if n.op.name == "variable"}
    with pytest.raises(GraphError, match="mode is still open"):
        analyse([norm], {"image": np.ones((2, 3)), **values}, sizes={"N": 2})

    class Unknown(Op):
        def infer(self, x: Any) -> Any:
            return x

    with pytest.raises(GraphError, match="no error bound"):
        analyse([_with_name(Unknown, X)], {"x": 1.0})


def _with_name(op: type[Op], x: Node) -> Node:
    """Return a node of an op that is in no registry."""
    made = op()
    object.__setattr__(made, "name", "unknown")
    return Node(made, (x,))


def test_a_bound_is_a_value_and_its_error() -> None:
    bounded = Bounded(np.array([1.0, -2.0]), np.array([0.0, 0.5]))
    assert bounded.low[0] == bounded.high[0] == 1.0 and bounded.inexact
    assert bounded.low[1] < -3.0 <= np.nextafter(bounded.low[1], 0) and bounded.reach.tolist() == [1.0, 3.0]
    assert Bounded(np.array(1.0), np.array(2.0), floor=0.0).low == 0.0
