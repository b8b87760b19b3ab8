"""What is known of values while a graph is imported: numbers from the file, and sizes, symbolic ones among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from minigraph.backends.base import get
from minigraph.backends.dtypes import array_dtype
from minigraph.ir.leaves import Constant, Input, Item, Variable
from minigraph.ir.node import Node
from minigraph.ir.types import Dim, TensorType, product
from minigraph.ops.elementwise import Mul
from minigraph.ops.indexing import Gather, Slice
from minigraph.ops.region import Function
from minigraph.ops.shape import BroadcastTo, Cast, Concat, CountOf, Reshape
from minigraph.runtime.interpreter import evaluate_node, with_kernels

Array = np.ndarray[Any, Any]
# Nothing larger is computed while importing: a short file must not be able to ask for much memory or time.
LIMIT = 1 << 26


class Known:
    """The numbers that nodes are known to have; an array of objects where sizes are symbolic. Each is computed once.

    >>> from minigraph.ir.types import symbol
    >>> from minigraph.ir.leaves import input
    >>> from minigraph.ops import concat, constant, reshape, size
    >>> x = input((symbol("N"), 3), name="x")
    >>> shape = concat([reshape(size(x, 0, "int64"), (1,)), constant(np.array([-1]))])
    >>> [str(entry) for entry in Known({}).value(shape)]
    ['N', '-1']
    """

    def __init__(self, variables: Mapping[str, Array]) -> None:
        self.variables = variables
        self.backend = get("numpy")
        self._values: dict[Node, Array | None] = {}

    def value(self, node: Node) -> Array | None:
        """Return a node's value, or None if it depends on what only a call gives."""
        stack = [node]
        with self.backend.running():
            while stack:
                top = stack[-1]
                open_inputs = [] if top in self._values else [i for i in top.inputs if i not in self._values]
                if open_inputs and not isinstance(top.op, CountOf):
                    stack += open_inputs
                    continue
                stack.pop()
                if top not in self._values:
                    self._values[top] = self._compute(top)
        return self._values[node]

    def _compute(self, node: Node) -> Array | None:
        match node.op:
            case Input():
                return None
            case Constant(type=type, data=data):
                return np.frombuffer(data, array_dtype(type.dtype)).reshape(type.shape)
            case Variable(label=label):
                return self.variables.get(label)
            case CountOf(axes=axes, dtype=dtype):
                total = product(node.inputs[0].shape[a] for a in axes)
                return np.array(total, object if isinstance(total, Dim) else array_dtype(dtype))
        values = [self._values[i] for i in node.inputs]
        if any(value is None for value in values) or not _is_small(node):
            return None
        operands: list[Any] = list(values)
        if any(v.dtype == object for v in operands):
            return _symbolic(node, operands)
        return self._evaluate(node, operands)

    def _evaluate(self, node: Node, operands: list[Any]) -> Array | None:
        """Run one op on arrays. Functions, and convolutions in another layout, are brought into their kernels' form."""
        leaves = [Node(Constant.of(np.array(v, order="C"))) for v in operands]
        source = Node(node.op, leaves)
        if isinstance(node.op, Item) or not isinstance(node.type, TensorType):
            return None  # several results: looked at through their parts only
        root = with_kernels(source)
        if root is source:
            return np.asarray(evaluate_node(node, operands, self.backend))
        return Known(self.variables).value(root)


def _is_small(node: Node) -> bool:
    size = getattr(node.type, "size", LIMIT)
    return isinstance(size, Dim) or size < LIMIT


def _symbolic(node: Node, operands: list[Any]) -> Array | None:
    """Return the value of one of the ops that sizes go through on their way into a shape, or None for all others."""
    make = _SYMBOLIC.get(node.op.label if isinstance(node.op, Function) else type(node.op))
    if make is None or any(isinstance(s, Dim) for s in node.shape):
        return None
    try:
        return np.asarray(make(node, operands), object)
    except (TypeError, ValueError, ArithmeticError):  # a sum of unlike sizes, a quotient that is not exact
        return None


def _slice(node: Node, operands: list[Any]) -> Any:
    op: Any = node.op
    taken = zip(op.starts, op.sizes, op.steps, strict=True)
    return operands[0][np.ix_(*([start + i * step for i in range(size)] for start, size, step in taken))]


_SYMBOLIC: dict[type | str, Callable[[Any, list[Any]], Any]] = {
    Cast: lambda node, operands: operands[0],
    Concat: lambda node, operands: np.concatenate([o.astype(object) for o in operands], node.op.axis),
    Reshape: lambda node, operands: operands[0].reshape(node.shape),
    BroadcastTo: lambda node, operands: np.broadcast_to(operands[0], node.shape),
    Gather: lambda node, operands: np.take(operands[0], operands[1], node.op.axis, mode=node.op.mode),
    Slice: _slice,
    Mul: lambda node, operands: operands[0] * operands[1],
    "Div": lambda node, operands: operands[0] // operands[1],
}
