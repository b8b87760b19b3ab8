"""Activation layers, and activations by their Keras names."""

from __future__ import annotations

from collections.abc import Callable

from minigraph import ops
from minigraph.errors import ArgumentError, did_you_mean
from minigraph.ir.node import Node
from minigraph.layers.base import Layer

Function = Callable[[Node], Node]

NAMED: dict[str, Function] = {
    "linear": lambda x: x,
    "relu": ops.relu,
    "leaky_relu": lambda x: ops.leaky_relu(x, 0.2),
    "elu": ops.elu,
    "sigmoid": ops.sigmoid,
    "tanh": ops.tanh,
    "softplus": ops.softplus,
    "silu": ops.silu,
    "swish": ops.silu,
    "gelu": ops.gelu,
    "hard_sigmoid": ops.hard_sigmoid,
    "hard_swish": ops.hard_swish,
    "hard_silu": ops.hard_swish,
    "exponential": ops.exp,
    "softmax": ops.softmax,
    "log_softmax": ops.log_softmax,
}


def get(activation: str | Function | None) -> Function:
    """Return an activation by name, or the function itself; None is the identity.

    >>> get("relu").__name__
    'relu'
    """
    if activation is None:
        return NAMED["linear"]
    if callable(activation):
        return activation
    if not isinstance(activation, str) or activation not in NAMED:
        raise ArgumentError(
            f"no activation is called {activation!r}",
            expected=", ".join(NAMED),
            hint=did_you_mean(str(activation), list(NAMED)),
        )
    return NAMED[activation]


class Activation(Layer):
    """An activation by name, or any function from node to node.

    >>> from minigraph.ir import variable
    >>> Activation("relu")(variable((2, 3)))
    <relu : float32[2,3]>
    """

    def __init__(self, activation: str | Function, name: str | None = None) -> None:
        super().__init__(name)
        self.activation = get(activation)

    def call(self, inputs: Node) -> Node:
        """Apply the function."""
        return self.activation(inputs)


class ReLU(Layer):
    """max(x, 0), optionally limited from above, with a slope below the threshold.

    >>> from minigraph.ir import variable
    >>> ReLU(max_value=6.0)(variable((2, 3)))
    <clip : float32[2,3]>
    """

    def __init__(
        self, max_value: float | None = None, negative_slope: float = 0.0, threshold: float = 0.0,
        name: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(name)
        self.max_value = max_value
        self.negative_slope = negative_slope
        self.threshold = threshold

    def call(self, inputs: Node) -> Node:
        """f(x) = x from the threshold on, slope·(x − threshold) below it, at most max_value."""
        x, slope, threshold = inputs, self.negative_slope, self.threshold
        if threshold:
            y = ops.where(x >= threshold, x, (x - threshold) * slope if slope else 0.0)
            return y if self.max_value is None else ops.minimum(y, self.max_value)
        if slope:
            y = ops.leaky_relu(x, slope)
            return y if self.max_value is None else ops.minimum(y, self.max_value)
        return ops.relu(x) if self.max_value is None else ops.clip(x, 0.0, self.max_value)


class LeakyReLU(Layer):
    """x where x > 0, else negative_slope·x.

    >>> from minigraph.ir import variable
    >>> LeakyReLU(0.1)(variable((2, 3)))
    <leaky_relu : float32[2,3]>
    """

    def __init__(self, negative_slope: float = 0.3, name: str | None = None) -> None:
        super().__init__(name)
        self.negative_slope = negative_slope

    def call(self, inputs: Node) -> Node:
        """Apply the function."""
        return ops.leaky_relu(inputs, self.negative_slope)


class Softmax(Layer):
    """eˣ / Σ eˣ along an axis.

    >>> from minigraph.ir import variable
    >>> Softmax()(variable((2, 3)))
    <softmax : float32[2,3]>
    """

    def __init__(self, axis: int = -1, name: str | None = None) -> None:
        super().__init__(name)
        self.axis = axis

    def call(self, inputs: Node) -> Node:
        """Apply the function."""
        return ops.softmax(inputs, self.axis)
