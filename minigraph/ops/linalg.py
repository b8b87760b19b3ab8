"""Matrix products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minigraph.errors import ShapeError
from minigraph.ir.node import Node, Operand, as_node, check_same_dtype
from minigraph.ir.op import Op
from minigraph.ir.types import Size, TensorType, broadcast, tensor
from minigraph.ops.shape import reshape, unsqueeze


@dataclass(frozen=True)
class MatMul(Op, name="matmul"):
    """x·y over the last two axes, batched over the others, which broadcast; either may be read transposed.

    The flags spare gradients a transpose that every matrix library would undo again.
    """

    transpose_x: bool = False
    transpose_y: bool = False
    category = "matmul"

    def infer(self, x: Any, y: Any) -> TensorType:
        """[…, m, k] · […, k, n] → […, m, n]."""
        left, right = tensor(x), tensor(y)
        if left.rank < 2 or right.rank < 2:
            raise ShapeError("a matrix product needs matrices", expected="at least 2 axes", got=f"{left} and {right}")
        m, k = left.shape[-2:][::-1] if self.transpose_x else left.shape[-2:]
        k2, n = right.shape[-2:][::-1] if self.transpose_y else right.shape[-2:]
        if k != k2:
            raise ShapeError(
                "the inner sizes of a matrix product differ", expected=f"{k} rows", got=f"{k2} in {left} · {right}"
            )
        batch = broadcast(left.shape[:-2], right.shape[:-2])
        return TensorType((*batch, m, n), check_same_dtype("operands", left, right))

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = g·yᵀ, ∂y = xᵀ·g, with the flags folded in."""
        x, y = node.inputs
        dx = _product(y, g, self.transpose_y, True) if self.transpose_x else _product(g, y, False, not self.transpose_y)
        dy = _product(g, x, True, self.transpose_x) if self.transpose_y else _product(x, g, not self.transpose_x, False)
        return dx, dy

    @classmethod
    def of(cls, x: Operand, y: Operand) -> Node:
        """Return x·y as NumPy's `matmul` reads it: a vector is a row on the left, a column on the right."""
        return _with_vectors(x, y)

    def flops(self, node: Node) -> Size:
        """2·m·k·n for each product of the batch."""
        x = node.inputs[0].shape
        return 2 * node.tensor_type.size * x[-2 if self.transpose_x else -1]


def _with_vectors(x: Operand, y: Operand) -> Node:
    left, right = as_node(x), as_node(y)
    if left.rank == 0 or right.rank == 0:
        raise ShapeError("a matrix product of a scalar", got=f"{left.type} and {right.type}", hint="use x * y")
    rows, columns = left.rank > 1, right.rank > 1
    result = _product(left if rows else unsqueeze(left, 0), right if columns else unsqueeze(right, 1), False, False)
    batch = result.shape[:-2]
    return reshape(result, batch + (result.shape[-2:-1] if rows else ()) + (result.shape[-1:] if columns else ()))


def _product(x: Node, y: Node, transpose_x: bool, transpose_y: bool) -> Node:
    return Node(MatMul(transpose_x, transpose_y), (x, y))


def matmul(x: Operand, y: Operand) -> Node:
    """Return the matrix product x·y; also `x @ y`. Vectors and batches are read as NumPy's `matmul` reads them.

    >>> from minigraph.ir import variable
    >>> matmul(variable((5, 2, 3)), variable((3, 4)))
    <matmul : float32[5,2,4]>
    """
    return MatMul.of(x, y)
