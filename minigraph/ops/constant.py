"""Constants from anything array-like."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigraph.errors import ArgumentError
from minigraph.ir.encoding import pack
from minigraph.ir.leaves import Constant
from minigraph.ir.node import Node
from minigraph.ir.types import DTYPES, TensorType, check_dtype


def constant(value: Any, dtype: str | None = None) -> Node:
    """Return a node that holds a number, a nested list or an array; Python floats become float32.

    >>> constant([[1.0, 2.0], [3.0, 4.0]])
    <constant : float32[2,2]>
    """
    try:
        array = np.asarray(value)
    except ValueError:
        raise ArgumentError("not an array", expected="numbers, nested evenly", got=repr(value)[:80]) from None
    if dtype is None and array.dtype == np.float64 and not isinstance(value, (np.ndarray, np.generic)):
        dtype = "float32"
    if dtype is None and array.dtype.name not in DTYPES:
        raise ArgumentError("not an array of a dtype we have", expected=", ".join(DTYPES), got=array.dtype.name)
    if dtype == "bfloat16" != array.dtype.name:
        return _bfloat16(array)
    wanted = np.dtype(check_dtype(dtype or array.dtype.name))
    try:
        with np.errstate(invalid="ignore", over="ignore"):
            converted = np.array(array, wanted, order="C")
    except ValueError:
        raise ArgumentError("not numbers", expected=wanted.name, got=repr(value)[:80]) from None
    if wanted.kind in "iu" and not np.array_equal(converted, array):
        raise ArgumentError("numbers that the dtype cannot hold", expected=wanted.name, got=repr(value)[:80])
    return Node(Constant.of(converted))


def _bfloat16(array: Any) -> Node:
    """Return numbers in the dtype that NumPy does not have."""
    try:
        data = b"".join(pack("bfloat16", value) for value in np.asarray(array, np.float64).ravel().tolist())
    except (ValueError, OverflowError):
        raise ArgumentError("not numbers that the dtype can hold", expected="bfloat16", got=repr(array)[:80]) from None
    return Node(Constant(TensorType(array.shape, "bfloat16"), data))
