"""Activation functions. Each is one op, so that a picture shows its name and a backend can fuse it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from minigraph.ir.node import Node, Operand, as_node
from minigraph.ops.elementwise import where
from minigraph.ops.real import FloatUnary, erf, exp


class Relu(FloatUnary, name="relu"):
    """max(x, 0)."""

    flops_per_element = 1

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = g where x > 0; read off the result, so that x need not be kept."""
        return (where(node > 0.0, g, 0.0),)


@dataclass(frozen=True)
class LeakyRelu(FloatUnary, name="leaky_relu"):
    """x where x > 0, else αx (Maas et al. 2013)."""

    alpha: float = 0.01
    flops_per_element = 2

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = g where x > 0, else αg."""
        return (where(node.inputs[0] > 0.0, g, g * self.alpha),)


@dataclass(frozen=True)
class Elu(FloatUnary, name="elu"):
    """x where x > 0, else α(eˣ − 1) (Clevert et al. 2016)."""

    alpha: float = 1.0

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = g where x > 0, else g·(y + α)."""
        return (where(node.inputs[0] > 0.0, g, g * (node + self.alpha)),)


class Sigmoid(FloatUnary, name="sigmoid"):
    """1 / (1 + e⁻ˣ)."""

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = g·y·(1 − y)."""
        return (g * node * (1.0 - node),)


class Tanh(FloatUnary, name="tanh"):
    """(eˣ − e⁻ˣ) / (eˣ + e⁻ˣ)."""

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = g·(1 − y²)."""
        return (g * (1.0 - node * node),)


class Softplus(FloatUnary, name="softplus"):
    """ln(1 + eˣ), computed without overflow."""

    flops_per_element = 8

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = g·sigmoid(x)."""
        return (g * sigmoid(node.inputs[0]),)


class Silu(FloatUnary, name="silu"):
    """x·sigmoid(x), also called swish (Elfwing et al. 2017)."""

    flops_per_element = 5

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = g·(s + y·(1 − s)) with s = sigmoid(x)."""
        s = sigmoid(node.inputs[0])
        return (g * (s + node * (1.0 - s)),)


@dataclass(frozen=True)
class Gelu(FloatUnary, name="gelu"):
    """x·Φ(x), Φ the standard normal distribution; or its tanh approximation (Hendrycks & Gimpel 2016)."""

    approximate: bool = False
    flops_per_element = 8

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = g·(Φ(x) + x·Φ′(x))."""
        x = node.inputs[0]
        if self.approximate:
            c = math.sqrt(2.0 / math.pi)
            t = tanh(c * (x + 0.044715 * x * x * x))
            slope = c * (1.0 + 3.0 * 0.044715 * x * x)
            return (g * (0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * slope),)
        cumulative = 0.5 * (1.0 + erf(x * math.sqrt(0.5)))
        density = exp(-0.5 * x * x) * (1.0 / math.sqrt(2.0 * math.pi))
        return (g * (cumulative + x * density),)


@dataclass(frozen=True)
class HardSigmoid(FloatUnary, name="hard_sigmoid"):
    """min(max(αx + β, 0), 1)."""

    alpha: float = 1 / 6
    beta: float = 0.5
    flops_per_element = 4

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = αg strictly between the limits."""
        return (where(node > 0.0, where(node < 1.0, g * self.alpha, 0.0), 0.0),)


class HardSwish(FloatUnary, name="hard_swish"):
    """x·min(max(x/6 + 1/2, 0), 1) (Howard et al. 2019)."""

    flops_per_element = 5

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = 0 for x ≤ −3, g for x ≥ 3, g·(x/3 + 1/2) between."""
        x = node.inputs[0]
        return (where(x > -3.0, where(x < 3.0, g * (x * (1 / 3) + 0.5), g), 0.0),)


def relu(x: Operand) -> Node:
    """Return max(x, 0); the gradient at 0 is 0.

    >>> relu(-1.0)
    <relu : float32[]>
    """
    return Node(Relu(), (as_node(x),))


def leaky_relu(x: Operand, alpha: float = 0.01) -> Node:
    """Return x where x > 0, else alpha·x.

    >>> leaky_relu(-1.0, alpha=0.2)
    <leaky_relu : float32[]>
    """
    return Node(LeakyRelu(float(alpha)), (as_node(x),))


def elu(x: Operand, alpha: float = 1.0) -> Node:
    """Return x where x > 0, else alpha·(eˣ − 1).

    >>> elu(-1.0)
    <elu : float32[]>
    """
    return Node(Elu(float(alpha)), (as_node(x),))


def sigmoid(x: Operand) -> Node:
    """Return 1 / (1 + e⁻ˣ), without overflow for any x.

    >>> sigmoid(0.0)
    <sigmoid : float32[]>
    """
    return Node(Sigmoid(), (as_node(x),))


def tanh(x: Operand) -> Node:
    """Return the hyperbolic tangent.

    >>> tanh(0.0)
    <tanh : float32[]>
    """
    return Node(Tanh(), (as_node(x),))


def softplus(x: Operand) -> Node:
    """Return ln(1 + eˣ).

    >>> softplus(0.0)
    <softplus : float32[]>
    """
    return Node(Softplus(), (as_node(x),))


def silu(x: Operand) -> Node:
    """Return x·sigmoid(x).

    >>> silu(1.0)
    <silu : float32[]>
    """
    return Node(Silu(), (as_node(x),))


def gelu(x: Operand, approximate: bool = False) -> Node:
    """Return x·Φ(x); with `approximate`, by tanh.

    >>> gelu(1.0, approximate=True)
    <gelu : float32[]>
    """
    return Node(Gelu(bool(approximate)), (as_node(x),))


def hard_sigmoid(x: Operand, alpha: float = 1 / 6, beta: float = 0.5) -> Node:
    """Return alpha·x + beta limited to [0, 1].

    >>> hard_sigmoid(1.0)
    <hard_sigmoid : float32[]>
    """
    return Node(HardSigmoid(float(alpha), float(beta)), (as_node(x),))


def hard_swish(x: Operand) -> Node:
    """Return x·hard_sigmoid(x).

    >>> hard_swish(1.0)
    <hard_swish : float32[]>
    """
    return Node(HardSwish(), (as_node(x),))
