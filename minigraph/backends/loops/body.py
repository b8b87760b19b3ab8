"""Loops as C++ or CUDA: a body of elementwise steps and windows, for a vector of columns and row after row.

A value is written once for each place in a window where it is needed, as a constant with the number of its node; what
does not depend on the row stands before the loop over rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from minigraph.backends.loops.domain import Domain
from minigraph.backends.loops.expressions import CTYPES, FLOATS, Names, expression, number
from minigraph.ir.leaves import Constant
from minigraph.ir.node import Node
from minigraph.ir.types import TensorType, known
from minigraph.ops.group import reduces
from minigraph.ops.norm import Moments
from minigraph.ops.pool import MaxPool2D, MaxPool2DAdjoint
from minigraph.ops.shape import Cast

Place = tuple[int, int] | None


def shape_of(node: Node) -> tuple[int, ...]:
    """Return a bound node's shape as numbers."""
    return tuple(known(s) for s in node.shape)


def is_number(node: Node) -> bool:
    """Tell whether a node is a constant of one element, which is written into the code."""
    return isinstance(node.op, Constant) and node.tensor_type.size == 1


@dataclass(frozen=True)
class Sums:
    """A sum over rows, or a pair of moments, that a loop keeps for each column; `offset` in the thread's totals."""

    node: Node
    offset: int
    width: int  # doubles for each column: 1, or 3 for moments


class Body:
    """The statements of one loop: `hoisted` before the rows, `lines` for each row, `stores` at its end."""

    def __init__(self, domain: Domain, pointers: Mapping[Node, str], lanes: str | None, hoists: bool = True) -> None:
        self.domain = domain
        self.pointers = pointers
        self.lanes = lanes  # "V" where all values are of one float type, None where numbers are computed one by one
        self.hoists = hoists
        self.hoisted: list[str] = []
        self.lines: list[str] = []
        self.stores: list[str] = []
        self.names: dict[tuple[Node, Place | str], str] = {}
        self.fixed: set[str] = set()  # names that do not depend on the row
        self._numbers = itertools.count()

    def places(self, shape: tuple[int, ...]) -> list[Place]:
        """Return where in a window a value of this shape is computed."""
        if not self.domain.is_fine(shape):
            return [None]
        return list(itertools.product(range(self.domain.tile[0]), range(self.domain.tile[1])))

    def value(self, node: Node, place: Place) -> str:
        """Return the name of a node's value, after writing all that it takes."""
        at = place if self.domain.is_fine(shape_of(node)) else None
        if (node, at) not in self.names:
            self.names[node, at] = self._written(node, at)
        return self.names[node, at]

    def _written(self, node: Node, place: Place) -> str:
        # Deep bodies: operands first, without recursion deeper than one body is long.
        if is_number(node):
            return self._name("k", self._number(node), True, node)
        if node in self.pointers:
            return self._load(node, place)
        if isinstance(node.op, MaxPool2D):
            return self._largest(node)
        if isinstance(node.op, MaxPool2DAdjoint):
            return self._first_largest(node, place)
        names = [self.value(operand, place) for operand in node.inputs]
        lanes = self.lanes or self.ctype(node.inputs[0].dtype)
        text = self._cast(node, names[0]) if isinstance(node.op, Cast) else None
        text = text or expression(node, Names(names, lanes))
        return self._name("v", text, all(name in self.fixed for name in names), node)

    def _name(self, letter: str, text: str, fixed: bool, node: Node) -> str:
        name = f"{letter}{next(self._numbers)}"
        kind = "auto" if self.lanes else self.ctype(node.dtype)
        fixed = fixed and self.hoists
        (self.hoisted if fixed else self.lines).append(f"const {kind} {name} = {text};  // {node.op.name}")
        if fixed:
            self.fixed.add(name)
        return name

    def _number(self, node: Node) -> str:
        assert isinstance(node.op, Constant)
        ctype = self.ctype(node.dtype)
        text = number(node.op.values()[0], ctype)
        return f"all<{self.lanes or ctype}>({text})" if node.dtype != "bool" else text

    def _cast(self, node: Node, name: str) -> str | None:
        """Return a conversion between a condition and numbers, which vectors do not make by themselves."""
        source = node.inputs[0].dtype
        if self.lanes and source == "bool":
            return f"choose({name}, all<V>(1), all<V>(0))"
        if node.dtype == "bool" and source != "bool":
            return f"{name} != all<{self.lanes or self.ctype(source)}>(0)"
        return None

    def _load(self, node: Node, place: Place) -> str:
        shape, pointer = shape_of(node), self.pointers[node]
        index = self.domain.index(shape, place)
        if self.lanes is None:
            text = self._element(node, pointer, index)
        elif self.domain.column_stride(shape):
            text = f"get<V>({pointer} + {index})"
        else:
            text = f"all<V>({self._element(node, pointer, index)})"
        return self._name("x", text, not self.domain.row_index(shape, place), node)

    def _largest(self, node: Node) -> str:
        x = node.inputs[0]
        names = [self.value(x, place) for place in self.places(shape_of(x))]
        text = names[0]
        for name in names[1:]:
            text = f"maximum({text}, {name})"
        return self._name("v", text, False, node)

    def _first_largest(self, node: Node, place: Place) -> str:
        """The adjoint at the first place of the window that holds the maximum, 0 at all others."""
        x, g = node.inputs
        everywhere = self.places(shape_of(x))
        names = [self.value(x, p) for p in everywhere]
        top = self._once(node, "top", lambda: self._largest(node))
        here = everywhere.index(place)
        before = [self._once(node, f"is{i}", partial(self._equal, node, names[i], top)) for i in range(here + 1)]
        condition = " & ".join([before[here], *(f"~{b}" if self.lanes else f"!{b}" for b in before[:here])])
        zero = f"all<{self.lanes or self.ctype(node.dtype)}>(0)"
        return self._name("v", f"choose({condition}, {self.value(g, None)}, {zero})", False, node)

    def _once(self, node: Node, what: str, write: Callable[[], str]) -> str:
        if (node, what) not in self.names:
            self.names[node, what] = write()
        return self.names[node, what]

    def _equal(self, node: Node, name: str, top: str) -> str:
        made = f"m{next(self._numbers)}"
        self.lines.append(f"const auto {made} = {name} == {top};")
        return made

    def store(self, node: Node, pointer: str) -> None:
        """Write a value to its array, at the end of the row."""
        for place in self.places(shape_of(node)):
            name, index = self.value(node, place), self.domain.index(shape_of(node), place)
            self.stores.append(self._stored(node, pointer, index, name))

    # --- what a dialect says in its own way --------------------------------------------------------------------------

    def ctype(self, dtype: str) -> str:
        """Return the type that numbers of a dtype are computed in."""
        return CTYPES[dtype]

    def _element(self, node: Node, pointer: str, index: str) -> str:
        return f"{pointer}[{index}]"

    def _stored(self, node: Node, pointer: str, index: str, name: str) -> str:
        return f"set<V>({pointer} + {index}, {name});" if self.lanes else f"{pointer}[{index}] = {name};"


def common_float(nodes: Iterable[Node], arrays: Iterable[Node]) -> str | None:
    """Return the one float type that a body computes in, if conditions are all else and none is loaded or stored."""
    dtypes = {n.dtype for n in nodes if isinstance(n.type, TensorType)}
    floats = dtypes - {"bool"}
    if len(floats) != 1 or not floats <= set(FLOATS) or any(a.dtype == "bool" for a in arrays):
        return None
    return floats.pop()


def sums_of(steps: Sequence[Node], columns: int) -> tuple[list[Sums], int]:
    """Return the sums among the steps, and how many doubles a thread needs for all."""
    found, offset = [], 0
    for node in steps:
        if reduces(node):
            width = 3 if isinstance(node.op, Moments) else 1
            found.append(Sums(node, offset, width))
            offset += width * columns
    return found, -(-offset // 8) * 8  # threads do not write to each other's cache lines
