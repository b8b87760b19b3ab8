"""Nodes: immutable, compared by identity, with operators and errors that name the user's line."""

from __future__ import annotations

import operator
import pickle
import sys

import numpy as np
import pytest

import minigraph as mg
from minigraph import ops
from minigraph.errors import ArgumentError, DTypeError, GraphError, ShapeError
from minigraph.ir import Constant, Graph, Item, Node, TensorType, as_node, inheriting, item, scope, variable
from minigraph.ir.leaves import fresh_names, unique_name
from minigraph.ir.leaves import input as input_
from minigraph.ir.origin import Origin

x = input_((2, 3), name="x")
w = variable((2, 3), name="w", init=2.0)


def here(offset: int = 0) -> str:
    """Return the caller's file:line."""
    frame = sys._getframe(1)
    return f"{__file__}:{frame.f_lineno + offset}"


def test_nodes_cannot_be_changed():
    for name in ("op", "inputs", "type", "origin", "id", "anything"):
        with pytest.raises(AttributeError, match="immutable"):
            setattr(x, name, None)


def test_nodes_are_compared_by_identity():
    assert -x != -x and len({-x, -x}) == 2
    assert x == x


def test_each_node_has_an_id_of_its_own_that_rebuilding_keeps():
    y = -x
    assert y.id != (-x).id
    assert y.with_inputs((w,)).id == y.id and y.with_inputs((w,)).origin is y.origin
    assert y.with_inputs((input_((5,), name="z"),)).shape == (5,)


@pytest.mark.parametrize("symbol_", ["+", "-", "*", "/", "**", "<", "<=", ">", ">="])
@pytest.mark.parametrize("form", ["node node", "node number", "number node"])
def test_operators_compute_what_numpys_do(symbol_, form):
    functions = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "**": operator.pow,
                 "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}  # fmt: skip
    function = functions[symbol_]
    a = np.array([[0.5, 1.0, 2.0], [3.0, 0.25, 1.5]], np.float32)
    b = np.full((2, 3), 2.0, np.float32)
    left, right = {"node node": (x, w), "node number": (x, 2.0), "number node": (2.0, x)}[form]
    numbers = {"node node": (a, b), "node number": (a, b), "number node": (b, a)}[form]
    got = mg.evaluate(function(left, right), mg.State({"w": b}), x=a)
    np.testing.assert_allclose(got, function(*numbers), rtol=1e-6)
    assert got.dtype == function(*numbers).dtype


def test_unary_operators_matmul_and_indexing():
    a = np.arange(-3, 3, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(mg.evaluate(-x, x=a), -a)
    np.testing.assert_array_equal(mg.evaluate(abs(x), x=a), abs(a))
    np.testing.assert_array_equal(mg.evaluate(x @ ops.transpose(x), x=a), a @ a.T)
    np.testing.assert_array_equal(mg.evaluate(x[1, ::-2], x=a), a[1, ::-2])


def test_a_number_takes_the_nodes_dtype():
    assert (variable((2,), dtype="float64") + 1).dtype == "float64"
    assert (variable((2,), dtype="int32") * 2).dtype == "int32"
    with pytest.raises(DTypeError, match="a fraction meets integers"):
        variable((2,), dtype="int32") * 0.5
    with pytest.raises(ArgumentError, match="does not fit"):
        variable((2,), dtype="int8") + 300


def test_arrays_may_stand_beside_nodes_on_either_side():
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    for node in (x + a, a + x, x + a[0], a[0] + x):
        assert isinstance(node, Node) and node.op.name == "add"
    np.testing.assert_array_equal(mg.evaluate(a - x, x=a), a - a)
    assert (np.float32(2) * x).dtype == (x * np.float64(2)).dtype == "float32"
    with pytest.raises(DTypeError, match="different dtypes"):
        x + a.astype(np.float64)


def test_what_is_neither_a_node_nor_a_number_nor_an_array_is_refused():
    for bad in ("1", None, [1.0], object()):
        with pytest.raises(ArgumentError, match="cannot make a node of this"):
            x + bad
    with pytest.raises(DTypeError, match="unknown dtype 'complex128'"):
        x * np.array([1j])


def test_a_node_has_no_truth_value():
    with pytest.raises(ArgumentError, match="no truth value") as caught:
        if x > 0.0:
            pass
    assert "where(condition, a, b)" in str(caught.value) and here(-2) in str(caught.value)
    with pytest.raises(ArgumentError, match="no truth value"):
        assert not 0.0 < x < 1.0
    with pytest.raises(ArgumentError, match="cannot be iterated"):
        list(x)


def test_an_error_names_the_line_of_the_user_and_of_the_operands():
    first = input_((2, 3), name="first")
    second = input_((4,), name="second")
    with pytest.raises(ShapeError) as caught:
        _ = first + second
    text, line = str(caught.value), here(-1)
    assert text.startswith("add: operands cannot be broadcast together")
    assert f"at:       {line}" in text
    assert f"first: float32[2,3] (from {here(-7)})" in text and f"second: float32[4] (from {here(-6)})" in text
    assert "[2,3] and [4]" in text


def test_an_error_in_a_helper_names_the_helpers_line_not_minigraphs():
    def helper():
        return ops.matmul(x, x)

    with pytest.raises(ShapeError) as caught:
        helper()
    assert caught.value.where == here(-4)


def test_origin_scope_and_line():
    with scope("outer"), scope("inner"):
        y = -x
    assert y.origin.scope == "outer/inner" and y.origin.where == here(-1)
    assert (-x).origin.scope == ""


def test_a_bad_scope_names_the_users_line():
    with pytest.raises(GraphError, match="not a name") as caught, scope(""):
        pass
    assert caught.value.where == here(-2)


def test_a_scope_is_closed_by_an_exception():
    with pytest.raises(ZeroDivisionError), scope("s"):
        1 / 0  # noqa: B018
    assert (-x).origin.scope == ""


def test_inheriting_gives_its_origin_to_all_nodes_made_inside_and_to_no_others():
    origin = Origin("net.py", 7, "s").rewritten("rule", 3)
    y = inheriting(lambda: origin, lambda: ops.exp(-x)).inputs[0]
    with pytest.raises(ZeroDivisionError):
        inheriting(lambda: origin, lambda: 1 / 0)
    assert (-x).origin.where == here()
    assert y.origin is origin and y.origin.history == (("rule", 3),) and y.origin.where == "net.py:7"


def test_wrong_number_of_operands():
    with pytest.raises(ArgumentError, match="add: wrong number of operands"):
        Node(ops.add(1.0, 2.0).op, (x,))


def test_a_bug_in_a_shape_rule_is_not_dressed_up_as_a_users_error():
    class Broken:
        name = "broken"

        def infer(self, *types):
            return None + 1

    with pytest.raises(TypeError, match="unsupported operand"):
        Node(Broken(), (x,))


def test_names():
    for bad in ("", "a\nb", "a" * 201, 5):
        with pytest.raises(GraphError, match="not a name"):
            input_((1,), name=bad)
        with pytest.raises(GraphError, match="not a name"):
            variable((1,), name=bad)
    with fresh_names():
        assert [unique_name("a"), unique_name("b"), unique_name("a")] == ["a", "b", "a_1"]
        with fresh_names():
            assert unique_name("a") == "a"
        assert unique_name("a") == "a_2"


def test_constants():
    c = Constant.of(np.array([[1, 2]], np.int32))
    assert c.values() == [1, 2] and c.splat is None and c.type == TensorType((1, 2), "int32")
    assert Constant.full(TensorType((3,), "float16"), 0.5).splat == 0.5
    assert Constant.of(np.zeros((0, 2))).splat is None
    assert Constant.of(0.0) != Constant.of(-0.0)
    nan = float("nan")
    assert Constant.of(nan) == Constant.of(nan)
    assert Constant.of(np.asfortranarray(np.arange(4.0).reshape(2, 2))).values() == [0, 1, 2, 3]
    with pytest.raises(ShapeError, match="bytes do not fit"):
        Constant(TensorType((2,)), b"1234")
    assert as_node(True).dtype == "bool" and as_node(3).dtype == "int64" and as_node(3.0).dtype == "float32"


def test_items():
    pair = mg.ops.moments(x, 0)[0].inputs[0]
    assert item(pair, 1).shape == (3,)
    with pytest.raises(ShapeError, match="no such item"):
        item(pair, 2)
    with pytest.raises(ShapeError, match="only a tuple has items"):
        item(x, 0)
    with pytest.raises(ShapeError, match="is a tuple"):
        _ = pair.shape
    with pytest.raises(ShapeError, match="is a tuple"):
        Node(ops.neg(x).op, (pair,))
    assert isinstance(item(pair, 0).op, Item)


def test_ops_are_values():
    assert ops.clip(x, 0.0, 6.0).op == ops.clip(x, 0.0, 6.0).op
    assert len({ops.exp(x).op, ops.exp(w).op, ops.log(x).op}) == 2
    assert pickle.loads(pickle.dumps(ops.clip(x, 0.0, 6.0).op)) == ops.clip(x, 0.0, 6.0).op


def test_repr():
    assert repr(-x) == "<neg : float32[2,3]>" and repr(w) == "<w : float32[2,3]>"
    assert repr(Graph({"y": -x})) == "<Graph: 2 nodes, 1 inputs, 1 outputs>"
