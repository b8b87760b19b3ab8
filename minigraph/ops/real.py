"""Functions of real numbers: powers, exponentials, logarithms, roots, sines, and the error function."""

from __future__ import annotations

import math
from typing import Any

from minigraph.errors import DTypeError
from minigraph.ir.node import Node, Operand, as_node
from minigraph.ir.types import TensorType, is_float, tensor
from minigraph.ops.elementwise import Binary, Elementwise, binary, equal, where


class FloatUnary(Elementwise):
    """Base of functions of one real number."""

    flops_per_element = 4  # a polynomial, roughly: the cost model's convention for transcendental functions

    def infer(self, x: Any) -> TensorType:
        """Same shape and dtype; the dtype must be a float's."""
        type = tensor(x)
        if not is_float(type.dtype):
            raise DTypeError(
                "only defined for floats", expected="a float dtype", got=type, hint='cast(x, "float32") first'
            )
        return type


class Pow(Binary, name="pow"):
    """x to the power y."""

    of_numbers = True
    flops_per_element = 8

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = g·y·xʸ⁻¹ (0 where y = 0), ∂y = g·xʸ·ln x (0 where x = 0)."""
        x, y = node.inputs
        dx = where(equal(y, 0.0), 0.0, g * y * pow(x, y - 1.0))
        dy = where(equal(x, 0.0), 0.0, g * node * log(where(equal(x, 0.0), 1.0, x)))
        return dx, dy


class Exp(FloatUnary, name="exp"):
    """eˣ."""

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = g·eˣ."""
        return (g * node,)


class Log(FloatUnary, name="log"):
    """ln x."""

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = g / x."""
        return (g / node.inputs[0],)


class Sqrt(FloatUnary, name="sqrt"):
    """√x."""

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = g / (2√x)."""
        return (0.5 * g / node,)


class Rsqrt(FloatUnary, name="rsqrt"):
    """1/√x."""

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = −g / (2x√x)."""
        return (-0.5 * g * node / node.inputs[0],)


class Sin(FloatUnary, name="sin"):
    """sin x."""

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = g·cos x."""
        return (g * cos(node.inputs[0]),)


class Cos(FloatUnary, name="cos"):
    """cos x."""

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = −g·sin x."""
        return (-g * sin(node.inputs[0]),)


class Erf(FloatUnary, name="erf"):
    """The error function, 2/√π · ∫₀ˣ e^(−t²) dt."""

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = g · 2/√π · e^(−x²)."""
        x = node.inputs[0]
        return (g * (2.0 / math.sqrt(math.pi)) * exp(-(x * x)),)


# --- the functions users call -------------------------------------------------------------------------------------


def pow(x: Operand, y: Operand) -> Node:
    """Return x to the power y, elementwise; also `x ** y`.

    >>> pow(2.0, 3.0)
    <pow : float32[]>
    """
    return binary(Pow(), x, y)


def exp(x: Operand) -> Node:
    """Return eˣ.

    >>> exp(1.0)
    <exp : float32[]>
    """
    return Node(Exp(), (as_node(x),))


def log(x: Operand) -> Node:
    """Return the natural logarithm; −inf at 0, NaN below.

    >>> log(1.0)
    <log : float32[]>
    """
    return Node(Log(), (as_node(x),))


def sqrt(x: Operand) -> Node:
    """Return √x.

    >>> sqrt(4.0)
    <sqrt : float32[]>
    """
    return Node(Sqrt(), (as_node(x),))


def rsqrt(x: Operand) -> Node:
    """Return 1/√x.

    >>> rsqrt(4.0)
    <rsqrt : float32[]>
    """
    return Node(Rsqrt(), (as_node(x),))


def sin(x: Operand) -> Node:
    """Return the sine of x radians.

    >>> sin(0.0)
    <sin : float32[]>
    """
    return Node(Sin(), (as_node(x),))


def cos(x: Operand) -> Node:
    """Return the cosine of x radians.

    >>> cos(0.0)
    <cos : float32[]>
    """
    return Node(Cos(), (as_node(x),))


def erf(x: Operand) -> Node:
    """Return the error function of x (Abramowitz & Stegun 7.1.1).

    >>> erf(0.5)
    <erf : float32[]>
    """
    return Node(Erf(), (as_node(x),))
