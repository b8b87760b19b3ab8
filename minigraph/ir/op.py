"""What an op is: a frozen dataclass whose fields are its attributes. Equality and hash then come free."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from minigraph.errors import GradientError, GraphError, explain_arguments
from minigraph.ir.types import Dim, Size, TensorType, Type, known

if TYPE_CHECKING:
    from minigraph.ir.node import Node

# The two registries, complete after import: names in a text or a file resolve here and nowhere else.
OPS: dict[str, type[Op]] = {}
ATTRIBUTES: dict[str, type[Any]] = {}

_A = TypeVar("_A")


class Op:
    """Base of all ops. `class Exp(Op, name="exp")` registers itself; its fields are the op's attributes.

    A subclass gives `infer` and, if it has a gradient, `vjp`; there is no kernel in an op: backends hold those. A class
    without attributes of its own inherits all it needs from a base that is a dataclass.
    """

    name: ClassVar[str]
    # What a picture colours a node by, and what a reader looks for first: "conv", "elementwise", "reduction", …
    category: ClassVar[str] = "other"

    def __init_subclass__(cls, name: str = "", **options: Any) -> None:
        super().__init_subclass__(**options)
        if not name:  # an intermediate base class
            return
        if name in OPS and OPS[name].__qualname__ != cls.__qualname__:
            raise GraphError(f"an op called {name!r} is registered already", got=f"{OPS[name]} and {cls}")
        cls.name = name
        OPS[name] = cls

    def infer(self, *inputs: Any) -> Type:
        """Return the result's type from the operands' types: the shape rule."""
        raise NotImplementedError(f"{type(self).__name__} has no shape rule")

    def vjp(self, node: Node, g: Any) -> tuple[Node | None, ...]:
        """Return, for each input, the adjoint node given the output's adjoint `g` (None: no gradient flows there).

        Broadcasting is not undone here: autodiff does that once, for all ops. For an op with several results `g` is a
        tuple with None where a result has no adjoint.
        """
        raise GradientError(f"{self.name} has no gradient", where=node.origin.where)

    def flops(self, node: Node) -> Size:
        """Return the floating-point operations of one evaluation (a multiply-add counts as two)."""
        return 0

    def bytes(self, node: Node) -> int:
        """Return the bytes one evaluation must move: all operands read once, the result written once."""
        return sum(known(i.type.nbytes) for i in node.inputs) + known(node.type.nbytes)

    def bind(self, sizes: Mapping[str, int]) -> Op:
        """Return the op with the symbolic sizes in its attributes replaced by numbers."""
        changed = {}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            value = getattr(self, field.name)
            bound = bind_attribute(value, sizes)
            if bound is not value:
                changed[field.name] = bound
        return dataclasses.replace(self, **changed) if changed else self  # type: ignore[type-var]


def bind_attribute(value: Any, sizes: Mapping[str, int]) -> Any:
    """Return an attribute's value with symbolic sizes replaced; the very same object where nothing changes."""
    if isinstance(value, (Dim, TensorType)):
        return value.bind(sizes)
    if isinstance(value, tuple):
        bound = tuple(bind_attribute(v, sizes) for v in value)
        return bound if any(a is not b for a, b in zip(bound, value, strict=True)) else value
    return value


def attribute(name: str) -> Any:
    """Register a frozen dataclass that may stand as an attribute's value, in text as `name(field=value)`."""

    def register(cls: type[_A]) -> type[_A]:
        ATTRIBUTES[name] = cls
        cls.text_name = name  # type: ignore[attr-defined]
        return cls

    return register


def configuration(name: str) -> Any:
    """Register a dataclass that users make (an optimiser, a loss), as `attribute` does, and explain wrong arguments."""

    def register(cls: type[_A]) -> type[_A]:
        cls.__init__ = explain_arguments(cls.__init__)  # type: ignore[method-assign]
        registered: type[_A] = attribute(name)(cls)
        return registered

    return register
