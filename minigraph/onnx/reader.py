"""One node of an ONNX file, as translators read it: operands, attributes, and what is known of operands' values."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from minigraph.errors import ModelFormatError
from minigraph.ir.node import Node
from minigraph.ir.types import Dim, Size

if TYPE_CHECKING:
    from minigraph.onnx.importer import Importer

Array = np.ndarray[Any, Any]


class Reader:
    """A node's operands and attributes, with the checks that a file nobody trusts needs.

    `inputs`: a node for each operand, None for one that is left out. `version`: the opset's version.
    """

    def __init__(self, importer: Importer, proto: Any, inputs: list[Node | None], version: int) -> None:
        self.importer = importer
        self.proto = proto
        self.inputs = inputs
        self.version = version
        self.attributes = {a.name: a for a in proto.attribute}

    @property
    def op_type(self) -> str:
        """The ONNX op's name."""
        return str(self.proto.op_type)

    # --- operands -------------------------------------------------------------------------------------------------

    def optional(self, place: int) -> Node | None:
        """Return an operand, or None if it is left out."""
        return self.inputs[place] if place < len(self.inputs) else None

    def operand(self, place: int) -> Node:
        """Return an operand that must be there."""
        node = self.optional(place)
        if node is None:
            raise ModelFormatError(f"operand {place} is missing", expected="an input", got=self.names())
        return node

    def operands(self) -> list[Node]:
        """Return all operands of an op that takes any number of them."""
        return [self.operand(i) for i in range(max(1, len(self.inputs)))]

    def parameter(self, place: int) -> Node:
        """Return an operand; one that the file fixes becomes a variable, so that it can be trained and frozen."""
        self.operand(place)
        trainable = place not in self.importer.statistics(self.op_type)
        node = self.importer.as_variable(self.proto.input[place], self.operand(place), trainable)
        self.inputs[place] = node
        return node

    def parameters(self, *places: int) -> None:
        """Make variables of those operands that the file fixes."""
        for place in places:
            if self.optional(place) is not None:
                self.parameter(place)

    def one(self, results: list[Node | None]) -> Node:
        """Return the first of results that are kept together as a function of the op's name."""
        node = self.importer.whole(self, results)[0]
        assert node is not None
        return node

    def names(self) -> str:
        """Return the operands' names in the file."""
        return ", ".join(repr(name) for name in self.proto.input) or "none"

    def wanted(self, place: int) -> bool:
        """Tell whether the node has a result at this place."""
        return place < len(self.proto.output) and self.proto.output[place] != ""

    # --- numbers --------------------------------------------------------------------------------------------------

    def known(self, place: int) -> Array | None:
        """Return an operand's numbers, or None if it is left out or depends on what only a call gives."""
        node = self.optional(place)
        return None if node is None else self.importer.known.value(node)

    def constant(self, place: int, what: str) -> Array:
        """Return the numbers of an operand that the graph's shapes depend on."""
        value = self.known(place)
        if value is None:
            self.importer.demand(self.operand(place), self.proto.input[place], what)
        assert value is not None
        return value

    def numbers(self, place: int, what: str) -> list[int]:
        """Return the integers that an operand holds."""
        sizes = self.sizes(place, what)
        if any(isinstance(size, Dim) for size in sizes):
            raise ModelFormatError(
                f"{what}: the numbers depend on open sizes",
                got=sizes,
                hint="bind open sizes: input_shapes={name: shape}",
            )
        return [int(size) for size in sizes]  # type: ignore[arg-type]

    def sizes(self, place: int, what: str) -> list[Size]:
        """Return the sizes that an operand holds, symbolic ones among them."""
        value = self.constant(place, what)
        if value.dtype.kind not in "iuO" or value.ndim > 1:
            raise ModelFormatError(f"{what} must be a list of integers", got=f"{value.dtype}{list(value.shape)}")
        return [v if isinstance(v, Dim) else int(v) for v in value.ravel()]

    # --- attributes -----------------------------------------------------------------------------------------------

    def _attribute(self, name: str, kind: str) -> Any:
        found = self.attributes.get(name)
        if found is None:
            return None
        got = type(found).AttributeType.Name(found.type)
        if got != kind:
            raise ModelFormatError(f"attribute {name!r} has the wrong type", expected=kind, got=got)
        return found

    def integer(self, name: str, default: int | None = None) -> int:
        """Return an integer attribute; without a default it must be there."""
        found = self._attribute(name, "INT")
        return int(self._given(name, None if found is None else found.i, default))

    def real(self, name: str, default: float | None = None) -> float:
        """Return a float attribute: the shortest decimal that is this float32, so that 0.001 comes back as 0.001.

        Beside operands in float64 the difference would be seen: there it is the float32 itself.
        """
        found = self._attribute(name, "FLOAT")
        exact = any(node is not None and node.dtype == "float64" for node in self.inputs)
        value = None if found is None else found.f if exact else str(np.float32(found.f))
        return float(self._given(name, value, np.float32(default) if exact and default is not None else default))

    def text(self, name: str, default: str | None = None) -> str:
        """Return a string attribute."""
        found = self._attribute(name, "STRING")
        return str(self._given(name, None if found is None else found.s.decode("utf-8", "replace"), default))

    def _given(self, name: str, value: Any, default: Any) -> Any:
        if value is None and default is None:
            raise ModelFormatError(f"attribute {name!r} is missing", got=", ".join(self.attributes) or "no attributes")
        return default if value is None else value

    def integers(self, name: str) -> list[int] | None:
        """Return an attribute that is a list of integers, or None."""
        found = self._attribute(name, "INTS")
        return None if found is None else [int(v) for v in found.ints]

    def reals(self, name: str) -> list[float] | None:
        """Return an attribute that is a list of floats, or None."""
        found = self._attribute(name, "FLOATS")
        return None if found is None else [float(v) for v in found.floats]

    def tensor(self, name: str) -> Array | None:
        """Return an attribute that is a tensor, or None."""
        found = self._attribute(name, "TENSOR")
        return None if found is None else self.importer.array(found.t, f"attribute {name!r}")

    def axes(self, place: int = 1, name: str = "axes") -> list[int] | None:
        """Return axes, which are an attribute in old files and an operand in new ones; None if not given."""
        listed = self.integers(name)
        if listed is None and self.optional(place) is not None:
            listed = self.numbers(place, name)
        return listed

    def plain_attributes(self) -> tuple[tuple[str, Any], ...] | None:
        """Return all attributes as pairs (name, value); None if one is no number, string or list of such."""
        readers: dict[str, Callable[[str], Any]] = {
            "INT": self.integer, "FLOAT": self.real, "STRING": self.text, "INTS": self.integers, "FLOATS": self.reals,
        }  # fmt: skip
        pairs: list[tuple[str, Any]] = []
        for name, proto in self.attributes.items():
            kind = type(proto).AttributeType.Name(proto.type)
            if kind not in readers:
                return None
            value = readers[kind](name)
            pairs.append((name, tuple(value) if isinstance(value, list) else value))
        return tuple(pairs)
