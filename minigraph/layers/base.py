"""What a layer is: a function from nodes to nodes that makes its variables at the first call and keeps them."""

from __future__ import annotations

import re
from typing import Any

from minigraph.errors import ArgumentError, explain_arguments
from minigraph.ir.leaves import unique_name, variable
from minigraph.ir.node import Node
from minigraph.ir.origin import current, scope
from minigraph.ir.types import Size, check_label, is_float, known
from minigraph.layers import initializers, regularizers


class Layer:
    """Base of layers. `call` makes nodes; variables made with `self.variable` are shared by all calls of one layer.

    Calling a layer computes nothing: it adds nodes to the graph, inside a scope with the layer's name.
    """

    def __init__(self, name: str | None = None) -> None:
        self.name = check_label(name) if name is not None else unique_name(_snake_case(type(self).__name__))
        self.variables: dict[str, Node] = {}
        self.dtype = "float32"  # of variables: that of the inputs, where those are floats

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "__init__" in cls.__dict__:
            cls.__init__ = explain_arguments(cls.__init__)  # type: ignore[method-assign]

    def __call__(self, inputs: Any) -> Any:
        """Return the layer's output node for an input node (a list of nodes for layers that merge)."""
        for node in inputs if isinstance(inputs, (list, tuple)) else [inputs]:
            if not isinstance(node, Node):
                raise ArgumentError(
                    f"{self.name} was called with something that is not a node",
                    expected="nodes, from mg.Input or other layers",
                    got=type(node).__name__,
                    hint="arrays go into model.predict, or into a program",
                )
            self.dtype = node.dtype if is_float(node.dtype) else self.dtype
        with scope(self.name):
            return self.call(inputs)

    def call(self, inputs: Any) -> Any:
        """Make the layer's nodes; subclasses give it."""
        raise NotImplementedError

    def variable(
        self, name: str, shape: tuple[Size, ...], init: Any, *, trainable: bool = True, regularizer: Any = None,
    ) -> Node:  # fmt: skip
        """Return the layer's variable `name`, made at the first call in the dtype of the inputs."""
        if name not in self.variables:
            sizes = tuple(known(s, f"{self.name}: a size of {name}") for s in shape)
            self.variables[name] = variable(
                sizes, name=f"{current().scope}/{name}", init=initializers.get(init), dtype=self.dtype,
                trainable=trainable, regularizer=regularizers.get(regularizer),
            )  # fmt: skip
        return self.variables[name]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


def check_count(value: Any, what: str) -> int:
    """Return a number of channels, units or groups, or raise an ArgumentError."""
    if not hasattr(value, "__index__") or isinstance(value, bool) or value.__index__() < 1:
        raise ArgumentError(f"bad {what}", expected="an integer ≥ 1", got=repr(value))
    return int(value.__index__())


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.replace("2D", "2d")).lower()
