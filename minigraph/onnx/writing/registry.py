"""The table of writers, and what they are given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from minigraph.ir.node import Node
from minigraph.ir.op import Op
from minigraph.ir.types import Size

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


class Writer(Protocol):
    """What writers see of the exporter."""

    def name(self, node: Node) -> str:
        """Return the name of a value that is written, or of a parameter, which becomes an initializer."""

    def operands(self, node: Node) -> list[str]:
        """Return the names of a node's operands; beside a signal without height, parameters have none either."""

    def without_height(self, parameter: Node) -> str:
        """Return the name of a parameter without its second axis from the end, which is 1."""

    def turned(self, node: Node) -> str:
        """Return the name of a value with its last two axes exchanged."""

    def is_flat(self, node: Node) -> bool:
        """Tell whether a value [N,C,1,L] is written as [N,C,L]."""

    def emit(self, op_type: str, inputs: Sequence[str], outputs: int = 1, **attributes: Any) -> Any:
        """Write a node and return the name of its result, or a list of several."""

    def array(self, values: Any, dtype: str, base: str) -> str:
        """Return the name of an initializer with these numbers."""

    def numbers(self, node: Node) -> Array | None:
        """Return the numbers of a parameter; None for what depends on inputs."""

    def shape(self, sizes: Sequence[Size]) -> str:
        """Return the name of a vector that holds sizes, symbolic ones computed from the inputs' shapes."""


WRITERS: dict[type[Op], Callable[[Writer, Node], str | list[str]]] = {}
_F = TypeVar("_F", bound=Callable[[Writer, Node], str | list[str]])


def writes(*ops: type[Op]) -> Callable[[_F], _F]:
    """Register a function as the writer of ops of ours: it emits ONNX nodes and returns their results' names."""

    def register(function: _F) -> _F:
        for op in ops:
            WRITERS[op] = function
        return function

    return register
