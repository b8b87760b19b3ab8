"""The table of translators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from minigraph.ir.node import Node
from minigraph.onnx.reader import Reader

Result = Node | Sequence[Node | None]
_F = TypeVar("_F", bound=Callable[[Reader], Result])


@dataclass(frozen=True)
class Translator:
    """How an op is read. `whole`: several nodes that it becomes stay together, as a function of the op's name."""

    read: Callable[[Reader], Result]
    whole: bool


TRANSLATORS: dict[str, Translator] = {}


def reads(*op_types: str, whole: bool = True) -> Callable[[_F], _F]:
    """Register a function as the translator of ONNX ops.

    whole: what it makes of several nodes is kept together, and leaves as the one node it came as. Not so for ops whose
    parts other rules want to see: a convolution's bias, a matrix product.
    """

    def register(function: _F) -> _F:
        for op_type in op_types:
            TRANSLATORS[op_type] = Translator(function, whole)
        return function

    return register
