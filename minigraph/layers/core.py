"""Dense layers, shapes, merging, and layers in a row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from typing import Any

from minigraph import ops
from minigraph.errors import ArgumentError, ShapeError, explain_arguments
from minigraph.ir import leaves
from minigraph.ir.node import Node
from minigraph.ir.types import known, symbol
from minigraph.layers import activations
from minigraph.layers.base import Layer, check_count


@explain_arguments
def Input(shape: Iterable[Any], name: str | None = None, dtype: str = "float32") -> Node:
    """Return an input node; the batch dimension N is put before `shape`.

    >>> Input((28, 28, 1), name="image")
    <image : float32[N,28,28,1]>
    """
    if isinstance(shape, int):
        raise ArgumentError("an input's shape is a tuple", expected=f"({shape},)", got=shape)
    return leaves.input((symbol("N"), *shape), dtype, name if name is not None else leaves.unique_name("input"))


class Dense(Layer):
    """x·W + b over the last axis.

    >>> from minigraph.ir import variable
    >>> Dense(10, use_bias=False)(variable((8, 64)))
    <matmul : float32[8,10]>
    """

    def __init__(
        self, units: int, activation: Any = None, use_bias: bool = True, kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros", kernel_regularizer: Any = None, name: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(name)
        self.units = check_count(units, "units")
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = kernel_initializer
        self.bias_initializer = bias_initializer
        self.kernel_regularizer = kernel_regularizer

    def call(self, inputs: Node) -> Node:
        """Multiply, add the bias, apply the activation."""
        if inputs.rank < 2:
            raise ShapeError(
                f"{self.name} needs a batch axis and features", expected="at least 2 axes", got=inputs.type
            )
        features = known(inputs.shape[-1], f"{self.name}: the number of features")
        kernel = self.variable(
            "kernel", (features, self.units), self.kernel_initializer, regularizer=self.kernel_regularizer
        )
        y = ops.matmul(inputs, kernel)
        if self.use_bias:
            y = y + self.variable("bias", (self.units,), self.bias_initializer)
        return self.activation(y)


class Flatten(Layer):
    """All axes but the batch folded into one, in row-major order.

    >>> from minigraph.ir import variable
    >>> Flatten()(variable((8, 4, 4, 3)))
    <reshape : float32[8,48]>
    """

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)

    def call(self, inputs: Node) -> Node:
        """Reshape."""
        return ops.flatten(inputs)


class Reshape(Layer):
    """Another shape for each example; one entry may be −1.

    >>> from minigraph.ir import variable
    >>> Reshape((4, -1))(variable((8, 12)))
    <reshape : float32[8,4,3]>
    """

    def __init__(self, target_shape: Sequence[int], name: str | None = None) -> None:
        super().__init__(name)
        self.target_shape = tuple(target_shape)

    def call(self, inputs: Node) -> Node:
        """Reshape."""
        return ops.reshape(inputs, (inputs.shape[0], *self.target_shape))


class _Merge(Layer):
    """Base of layers that take a list of nodes."""

    def call(self, inputs: Sequence[Node]) -> Node:
        """Check the list, and merge."""
        if isinstance(inputs, Node) or len(inputs) < 2:
            raise ArgumentError(f"{self.name} merges several nodes", expected="a list of at least two", got=inputs)
        return self.merge(inputs)

    def merge(self, inputs: Sequence[Node]) -> Node:
        """Make the nodes; subclasses give it."""
        raise NotImplementedError


class Add(_Merge):
    """The sum of nodes.

    >>> from minigraph.ir import variable
    >>> Add()([variable((8, 3)), variable((8, 3))])
    <add : float32[8,3]>
    """

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)

    def merge(self, inputs: Sequence[Node]) -> Node:
        """Add."""
        return reduce(ops.add, inputs)


class Multiply(_Merge):
    """The product of nodes, element by element.

    >>> from minigraph.ir import variable
    >>> Multiply()([variable((8, 3)), variable((8, 3))])
    <mul : float32[8,3]>
    """

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)

    def merge(self, inputs: Sequence[Node]) -> Node:
        """Multiply."""
        return reduce(ops.mul, inputs)


class Concatenate(_Merge):
    """Nodes joined along an axis.

    >>> from minigraph.ir import variable
    >>> Concatenate()([variable((8, 3)), variable((8, 2))])
    <concat : float32[8,5]>
    """

    def __init__(self, axis: int = -1, name: str | None = None) -> None:
        super().__init__(name)
        self.axis = axis

    def merge(self, inputs: Sequence[Node]) -> Node:
        """Join."""
        return ops.concat(inputs, self.axis)


class Sequential(Layer):
    """Layers, or any functions from node to node, one after the other.

    >>> from minigraph.ir import variable
    >>> Sequential([Dense(16, activation="relu"), Dense(10, use_bias=False)])(variable((8, 64)))
    <matmul : float32[8,10]>
    """

    def __init__(self, layers: Iterable[Callable[[Any], Any]], name: str | None = None) -> None:
        super().__init__(name)
        self.layers = list(layers)
        for layer in self.layers:
            if not callable(layer):
                raise ArgumentError("not a layer", expected="layers, or functions from node to node", got=repr(layer))

    def call(self, inputs: Node) -> Node:
        """Apply the layers in order."""
        return reduce(lambda x, layer: layer(x), self.layers, inputs)
