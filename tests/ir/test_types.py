"""Types: symbolic sizes, broadcasting, axes, shapes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigraph.errors import DTypeError, GraphError, ShapeError
from minigraph.ir import Dim, TensorType, TupleType, symbol
from minigraph.ir.types import (
    DTYPES,
    bind_size,
    broadcast,
    check_dtype,
    check_shape,
    is_float,
    known,
    normalize_axes,
    normalize_axis,
    product,
    shape_text,
    shifted,
    tensor,
)  # fmt: skip

N, T = symbol("N"), symbol("T")
dims = st.builds(
    lambda c, names: product([c, *map(symbol, names)]), st.integers(1, 12), st.lists(st.sampled_from("NTK"), max_size=3)
)
SIZES = {"N": 3, "T": 5, "K": 2}


@given(dims, dims)
def test_products_commute_and_bind_to_the_product_of_numbers(a, b):
    assert a * b == b * a
    assert bind_size(a * b, SIZES) == bind_size(a, SIZES) * bind_size(b, SIZES)


@given(dims, dims)
def test_quotients_are_exact(a, b):
    assert (a * b) // b == a
    assert (a * b) // a == b


@given(dims)
def test_binding_in_two_steps_is_binding_at_once(a):
    assert bind_size(bind_size(a, {"N": 3}), {"T": 5, "K": 2}) == bind_size(a, SIZES)


def test_binding_only_some_symbols_leaves_the_others():
    assert (N * T * 2).bind({"N": 3}) == T * 6
    assert (N * N).bind({"N": 4}) == 16
    assert N.bind({}) == N


def test_a_quotient_that_is_not_exact_is_refused_and_says_what_to_do():
    for divisor in (4, N * N, T, 0):
        with pytest.raises(ShapeError, match="is not a multiple of") as caught:
            (N * 6) // divisor
        assert caught.value.hint == "bind the symbols first"


def test_a_product_with_zero_is_zero_and_one_symbol_prints_without_a_coefficient():
    assert N * 0 == 0
    assert [str(d) for d in (N, N * 2, T * N, N * T * 6)] == ["N", "2*N", "N*T", "6*N*T"]
    assert N * T == T * N and hash(N * T) == hash(T * N)
    assert (N * 6) // (N * 2) == 3


def test_dims_are_never_equal_to_numbers():
    assert Dim(1, ("N",)) != 1 and N != T


def test_a_symbol_needs_an_identifier():
    for bad in ("", "2N", "a b", "N*T"):
        with pytest.raises(GraphError, match="identifier"):
            symbol(bad)


def test_known_says_what_is_still_symbolic():
    assert known(3) == 3
    with pytest.raises(ShapeError, match=r"the batch is the symbolic size 2\*N"):
        known(N * 2, "the batch")


@given(st.lists(st.lists(st.sampled_from([1, 2, 3]), max_size=4).map(tuple), min_size=1, max_size=3))
def test_broadcasting_is_numpys(shapes):
    try:
        expected = np.broadcast_shapes(*shapes)
    except ValueError:
        with pytest.raises(ShapeError, match="broadcast"):
            broadcast(*shapes)
    else:
        assert broadcast(*shapes) == expected


def test_broadcasting_symbols():
    assert broadcast((N, 1), (3,)) == (N, 3)
    assert broadcast((N, 3), (1, 3), ()) == (N, 3)
    assert broadcast((N,), (N,)) == (N,)
    assert broadcast() == ()
    for other in (2, T, N * 2):
        with pytest.raises(ShapeError, match="equal or 1"):
            broadcast((N,), (other,))


def test_axes():
    assert normalize_axes(None, 3) == (0, 1, 2)
    assert normalize_axes(-1, 3) == (2,)
    assert normalize_axes([2, -3], 3) == (0, 2)
    assert normalize_axes((), 3) == ()
    assert normalize_axis(-3, 3) == 0
    for axis in (3, -4):
        with pytest.raises(ShapeError, match="axis out of range"):
            normalize_axis(axis, 3)
    with pytest.raises(ShapeError, match="twice"):
        normalize_axes((0, -3), 3)


def test_shapes():
    assert check_shape([np.int64(2), N, 0]) == (2, N, 0)
    for bad in (-1, 2.0, True, "3", None):
        with pytest.raises(ShapeError, match="not a shape"):
            check_shape((2, bad))
    assert shape_text(()) == "scalar" and shape_text((N, 2)) == "[N,2]"


def test_dtypes():
    assert all(check_dtype(d) == d for d in DTYPES)
    assert [d for d in DTYPES if is_float(d)] == ["float16", "bfloat16", "float32", "float64"]
    with pytest.raises(DTypeError, match="one of bool, int8"):
        check_dtype("complex64")


@given(st.lists(st.tuples(st.integers(-6, 6), st.integers(1, 4)), min_size=1, max_size=4), st.integers(200, 400))
def test_what_windows_leave_of_an_open_size(windows, number):
    size, expected = symbol("H"), number
    for shift, stride in windows:
        size, expected = shifted(size, shift, stride), (expected + shift) // stride
    assert bind_size(size, {"H": number}) == expected
    assert shifted(shifted(symbol("H"), 3, 1), -3, 1) == symbol("H")


def test_windows_over_products_of_open_sizes():
    assert shifted(symbol("H") * 4, 1, 2) == symbol("H") * 2
    for size in (symbol("H") * 3, N * T):
        with pytest.raises(ShapeError, match="bind the symbols first"):
            shifted(size, 1, 2)
    assert (N * shifted(symbol("H"), 1, 2)).bind({"H": 9}) == N * 5


def test_a_symbol_of_that_name_counts_as_itself_where_it_is_bound():
    made = shifted(symbol("H"), 1, 2)
    assert bind_size(made, {"H_plus_1_over_2": 3, "H": 9}) == 3 and bind_size(made, {"N": 1}) == made


def test_tensor_types():
    t = TensorType((N, 2, 3), "float64")
    assert (t.rank, t.size, t.nbytes, str(t)) == (3, N * 6, N * 48, "float64[N,2,3]")
    assert t.bind({"N": 4}) == TensorType((4, 2, 3), "float64")
    whole = TensorType((2,))
    assert whole.bind({"N": 4}) is whole
    assert TensorType(()).size == 1 and str(TensorType(())) == "float32[]"
    assert t == TensorType((N, 2, 3), "float64") and hash(t) == hash(TensorType((N, 2, 3), "float64"))


def test_tuple_types():
    pair = TupleType((TensorType((N,)), TensorType((2,), "int64")))
    assert str(pair) == "(float32[N], int64[2])"
    assert pair.bind({"N": 3}).nbytes == 12 + 16
    with pytest.raises(ShapeError, match="symbolic size"):
        _ = pair.nbytes
    with pytest.raises(ShapeError, match=r"item\(node, i\)"):
        tensor(pair)
