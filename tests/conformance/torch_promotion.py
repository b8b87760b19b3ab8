"""PyTorch's dtypes: which one the operands of an operator are brought to before it computes.

https://docs.pytorch.org/docs/stable/tensor_attributes.html#type-promotion-doc: arrays with axes decide; a scalar array,
and after it a Python number, counts only if its kind (bool < integer < float) is higher than that of all before it.
"""

from __future__ import annotations

from functools import reduce

import numpy as np

from minigraph import ops
from minigraph.ir import Node
from minigraph.ir.types import is_float

DEFAULT = "float32"


def _kind(dtype):
    return 2 if is_float(dtype) else 0 if dtype == "bool" else 1


def _join(a, b):
    """Return the dtype that two arrays of equal rank come to: an integer never widens a float."""
    if is_float(a) != is_float(b):
        return a if is_float(a) else b
    return str(np.promote_types(a, b))


def result_dtype(*operands):
    """Return the dtype in which PyTorch computes with these nodes and numbers."""
    levels = [[], [], []]  # arrays with axes, scalar arrays, numbers
    for x in operands:
        if isinstance(x, Node):
            levels[x.rank == 0].append(x.dtype)
        else:
            levels[2].append("bool" if isinstance(x, bool) else "int64" if isinstance(x, int) else DEFAULT)
    result = None
    for dtypes in filter(None, levels):
        joined = reduce(_join, dtypes)
        if result is None or _kind(joined) > _kind(result):
            result = joined
    return result


def node(x, dtype):
    """Return a node or a number as a node of this dtype."""
    return ops.cast(x, dtype) if isinstance(x, Node) else ops.constant(x, dtype)


def promoted(*operands):
    """Return the operands as nodes of their result dtype."""
    dtype = result_dtype(*operands)
    return [node(x, dtype) for x in operands]


def promoted_floats(*operands):
    """Return the operands as nodes of their result dtype, or of the default one where all are integers."""
    dtype = result_dtype(*operands)
    return [node(x, dtype if is_float(dtype) else DEFAULT) for x in operands]


def torch_dtype(dtype):
    """Return the name of a dtype that is given as "torch.float64" or "float64"."""
    return str(dtype).removeprefix("torch.")
