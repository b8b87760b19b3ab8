"""Elementwise ops: arithmetic, comparison, and functions of one number. Operands broadcast as in NumPy.

No op here undoes broadcasting in its gradient: `autodiff` does that, once, for all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from minigraph.errors import ArgumentError, DTypeError
from minigraph.ir.node import Node, Operand, as_node, check_same_dtype
from minigraph.ir.op import Op
from minigraph.ir.types import Size, TensorType, broadcast, is_float, tensor


@dataclass(frozen=True)
class Elementwise(Op):
    """Base: the result has the operands' common shape and dtype."""

    category = "elementwise"
    flops_per_element: ClassVar[int] = 1
    of_numbers: ClassVar[bool] = False  # booleans are refused

    def infer(self, *inputs: Any) -> TensorType:
        """Broadcast the shapes; all operands have one dtype."""
        different = inputs if inputs.count(inputs[0]) < len(inputs) else inputs[:1]
        types = [tensor(t) for t in different]
        if self.of_numbers and types[0].dtype == "bool":
            raise DTypeError("arithmetic of booleans", expected="numbers", got="bool", hint="cast first, or use where")
        dtype = check_same_dtype("operands", *types)
        shape = broadcast(*[t.shape for t in types])
        dtype = self.result_dtype(dtype)
        for type in types:  # most often it is an operand's very type: no need of another
            if type.shape is shape and type.dtype == dtype:
                return type
        return TensorType(shape, dtype)

    def result_dtype(self, dtype: str) -> str:
        """Return the result's dtype from the operands'."""
        return dtype

    def flops(self, node: Node) -> Size:
        """A fixed count for each element of the result."""
        return node.tensor_type.size * self.flops_per_element


class Unary(Elementwise):
    """Base of functions of one number, integer or real."""

    def infer(self, x: Any) -> TensorType:
        """Same shape and dtype."""
        return super().infer(x)


class Binary(Elementwise):
    """Base of ops on two operands that broadcast."""

    def infer(self, x: Any, y: Any) -> TensorType:
        """Broadcast two operands."""
        return super().infer(x, y)


class Comparison(Binary):
    """Base of comparisons: the result is boolean, so no gradient flows."""

    def result_dtype(self, dtype: str) -> str:
        """Comparing gives booleans."""
        return "bool"

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """A comparison is constant almost everywhere."""
        return None, None


def binary(op: Op, x: Operand, y: Operand) -> Node:
    """Apply `op`; a Python number takes the dtype of the other operand."""
    like = x if isinstance(x, Node) else y if isinstance(y, Node) else None
    return Node(op, (as_node(x, like), as_node(y, like)))


# --- arithmetic ---------------------------------------------------------------------------------------------------


class Add(Binary, name="add"):
    """x + y."""

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = g, ∂y = g."""
        return g, g


class Sub(Binary, name="sub"):
    """x − y."""

    of_numbers = True

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = g, ∂y = −g."""
        return g, -g


class Mul(Binary, name="mul"):
    """x · y."""

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = g·y, ∂y = g·x."""
        x, y = node.inputs
        return g * y, g * x


class Div(Binary, name="div"):
    """x / y."""

    def infer(self, x: Any, y: Any) -> TensorType:
        """Broadcast; integers have no exact quotient, so floats only."""
        type = super().infer(x, y)
        if not is_float(type.dtype):
            raise DTypeError("division of integers", expected="a float dtype", got=type, hint="cast(x, dtype) first")
        return type

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = g / y, ∂y = −g·(x/y) / y."""
        y = node.inputs[1]
        return g / y, -(g * node) / y


class Maximum(Binary, name="maximum"):
    """The larger of x and y; NaN if either is NaN."""

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """The adjoint goes to the larger operand; equal operands share it."""
        x, y = node.inputs
        return _share(x > y, x, y, g)


class Minimum(Binary, name="minimum"):
    """The smaller of x and y; NaN if either is NaN."""

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """The adjoint goes to the smaller operand; equal operands share it."""
        x, y = node.inputs
        return _share(x < y, x, y, g)


def _share(first_wins: Node, x: Node, y: Node, g: Node) -> tuple[Node, Node]:
    tie, half = equal(x, y), 0.5 * g
    return where(tie, half, where(first_wins, g, 0.0)), where(tie, half, where(first_wins, 0.0, g))


class Neg(Unary, name="neg"):
    """−x."""

    of_numbers = True

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = −g."""
        return (-g,)


class Abs(Unary, name="abs"):
    """|x|."""

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = g·sign x, 0 at 0."""
        return (g * sign(node.inputs[0]),)


class Sign(Unary, name="sign"):
    """−1, 0 or 1."""

    of_numbers = True

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """Constant almost everywhere."""
        return (None,)


class Floor(Unary, name="floor"):
    """The largest integer ≤ x."""

    of_numbers = True

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """Constant almost everywhere."""
        return (None,)


@dataclass(frozen=True)
class Clip(Unary, name="clip"):
    """x limited to [minimum, maximum]."""

    of_numbers = True
    minimum: float = -math.inf
    maximum: float = math.inf

    def __post_init__(self) -> None:
        if not self.minimum <= self.maximum:
            raise ArgumentError("clip: the limits are crossed", expected="minimum ≤ maximum", got=self)

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = g inside the limits (they belong to the inside), 0 outside."""
        x = node.inputs[0]
        return (where(equal(node, x), g, 0.0),)


# --- comparison and choice ----------------------------------------------------------------------------------------


class Less(Comparison, name="less"):
    """x < y."""


class LessEqual(Comparison, name="less_equal"):
    """x ≤ y."""


class Greater(Comparison, name="greater"):
    """x > y."""


class GreaterEqual(Comparison, name="greater_equal"):
    """x ≥ y."""


class Equal(Comparison, name="equal"):
    """x = y, by value."""


class NotEqual(Comparison, name="not_equal"):
    """x ≠ y, by value."""


class Where(Elementwise, name="where"):
    """x where the condition holds, else y."""

    def infer(self, condition: Any, x: Any, y: Any) -> TensorType:
        """Broadcast all three; the condition is boolean, x and y have one dtype."""
        types = [tensor(t) for t in (condition, x, y)]
        if types[0].dtype != "bool":
            raise DTypeError("the condition must be boolean", expected="bool", got=types[0], hint="compare: x > 0")
        return TensorType(broadcast(*(t.shape for t in types)), check_same_dtype("x and y", *types[1:]))

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """The adjoint goes to the operand that was chosen."""
        condition = node.inputs[0]
        return None, where(condition, g, 0.0), where(condition, 0.0, g)


# --- the functions users call -------------------------------------------------------------------------------------


def add(x: Operand, y: Operand) -> Node:
    """Return x + y, elementwise; also `x + y`.

    >>> add(1.0, 2.0)
    <add : float32[]>
    """
    return binary(Add(), x, y)


def sub(x: Operand, y: Operand) -> Node:
    """Return x − y, elementwise; also `x - y`.

    >>> sub(1.0, 2.0)
    <sub : float32[]>
    """
    return binary(Sub(), x, y)


def mul(x: Operand, y: Operand) -> Node:
    """Return x · y, elementwise; also `x * y`.

    >>> mul(1.0, 2.0)
    <mul : float32[]>
    """
    return binary(Mul(), x, y)


def div(x: Operand, y: Operand) -> Node:
    """Return x / y, elementwise, floats only; also `x / y`.

    >>> div(1.0, 2.0)
    <div : float32[]>
    """
    return binary(Div(), x, y)


def maximum(x: Operand, y: Operand) -> Node:
    """Return the larger of x and y, elementwise; equal operands share the gradient.

    >>> maximum(1.0, 2.0)
    <maximum : float32[]>
    """
    return binary(Maximum(), x, y)


def minimum(x: Operand, y: Operand) -> Node:
    """Return the smaller of x and y, elementwise; equal operands share the gradient.

    >>> minimum(1.0, 2.0)
    <minimum : float32[]>
    """
    return binary(Minimum(), x, y)


def less(x: Operand, y: Operand) -> Node:
    """Return x < y as booleans; also `x < y`.

    >>> less(1.0, 2.0)
    <less : bool[]>
    """
    return binary(Less(), x, y)


def less_equal(x: Operand, y: Operand) -> Node:
    """Return x ≤ y as booleans; also `x <= y`.

    >>> less_equal(1.0, 2.0)
    <less_equal : bool[]>
    """
    return binary(LessEqual(), x, y)


def greater(x: Operand, y: Operand) -> Node:
    """Return x > y as booleans; also `x > y`.

    >>> greater(1.0, 2.0)
    <greater : bool[]>
    """
    return binary(Greater(), x, y)


def greater_equal(x: Operand, y: Operand) -> Node:
    """Return x ≥ y as booleans; also `x >= y`.

    >>> greater_equal(1.0, 2.0)
    <greater_equal : bool[]>
    """
    return binary(GreaterEqual(), x, y)


def equal(x: Operand, y: Operand) -> Node:
    """Return x = y by value, as booleans (`==` compares nodes by identity).

    >>> equal(1.0, 2.0)
    <equal : bool[]>
    """
    return binary(Equal(), x, y)


def not_equal(x: Operand, y: Operand) -> Node:
    """Return x ≠ y by value, as booleans (`!=` compares nodes by identity).

    >>> not_equal(1.0, 2.0)
    <not_equal : bool[]>
    """
    return binary(NotEqual(), x, y)


def where(condition: Node, x: Operand, y: Operand) -> Node:
    """Return x where `condition` holds, else y, elementwise.

    >>> where(less(1.0, 2.0), 3.0, 4.0)
    <where : float32[]>
    """
    like = x if isinstance(x, Node) else y if isinstance(y, Node) else None
    return Node(Where(), (as_node(condition), as_node(x, like), as_node(y, like)))


def neg(x: Operand) -> Node:
    """Return −x; also `-x`.

    >>> neg(1.0)
    <neg : float32[]>
    """
    return Node(Neg(), (as_node(x),))


def abs(x: Operand) -> Node:
    """Return |x|; its gradient at 0 is 0.

    >>> abs(-1.0)
    <abs : float32[]>
    """
    return Node(Abs(), (as_node(x),))


def sign(x: Operand) -> Node:
    """Return −1, 0 or 1.

    >>> sign(-1.0)
    <sign : float32[]>
    """
    return Node(Sign(), (as_node(x),))


def floor(x: Operand) -> Node:
    """Return the largest integer ≤ x, in x's dtype.

    >>> floor(1.5)
    <floor : float32[]>
    """
    return Node(Floor(), (as_node(x),))


def clip(x: Operand, minimum: float = -math.inf, maximum: float = math.inf) -> Node:
    """Return x limited to [minimum, maximum]; the gradient passes at the limits themselves.

    >>> clip(7.0, 0.0, 6.0)
    <clip : float32[]>
    """
    return Node(Clip(float(minimum), float(maximum)), (as_node(x),))
