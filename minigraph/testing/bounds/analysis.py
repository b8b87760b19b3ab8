"""The walk over the nodes: each value in float64 by the reference backend's kernel, each error by its op's rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from minigraph.backends.base import get
from minigraph.backends.dtypes import array_dtype
from minigraph.errors import GraphError, ProgramError, ShapeError
from minigraph.ir.graph import topological
from minigraph.ir.leaves import Input, Item, Variable
from minigraph.ir.node import Node
from minigraph.ir.op import Op
from minigraph.ir.origin import Origin, inheriting
from minigraph.ir.types import TensorType, TupleType, Type, check_dtype, is_float
from minigraph.ops.random import RandomUniform
from minigraph.runtime.interpreter import evaluate_node
from minigraph.testing.bounds.bounded import EXPANSIONS, RULES, SLACK, Array, Bounded, Call, Entry, Expand, Unit
from minigraph.testing.bounds.floors import floor_of

# Nodes made on the way have no place in anybody's code, and need not look for one.
_NOWHERE = Origin()


def analyse(
    nodes: Iterable[Node],
    values: Mapping[str, Any],
    unit: str | None = None,
    sizes: Mapping[str, int] | None = None,
) -> dict[Node, Bounded]:
    """Return value and error bound of each node, and of all nodes it depends on.

    values: inputs and variables by label; they are exact. unit: the float dtype to compute in, leaves rounded to it,
    instead of each node's own. sizes: numbers for symbolic sizes. Nodes that several graphs share are analysed once.
    Raises a ProgramError where a value is missing, a ShapeError where one does not fit, and a GraphError for an op
    without a rule and for a mode-neutral one (lower the graph first).

    >>> from minigraph.ir import variable
    >>> x = variable((2,), name="x")
    >>> y = x * x
    >>> found = analyse([y], {"x": [3.0, 0.0]})[y]
    >>> found.value.tolist(), (found.error / 2.0**-24).round(3).tolist()
    ([9.0, 0.0], [9.0, 0.0])
    """
    if unit is not None and not is_float(check_dtype(unit)):
        raise ProgramError(
            "rounding errors are those of floats", expected="float16, bfloat16, float32 or float64", got=unit
        )
    analysis = _Analysis(values, unit, sizes or {})
    with analysis.backend.running():
        return analysis.walk(nodes, {})


class _Analysis:
    """One call of `analyse`."""

    def __init__(self, values: Mapping[str, Any], unit: str | None, sizes: Mapping[str, int]) -> None:
        self.backend = get("numpy")
        self.values = values
        self.unit = unit
        self.sizes = sizes
        self._leaves: dict[object, Node] = {}

    def walk(self, roots: Iterable[Node], known: dict[Node, Bounded]) -> dict[Node, Bounded]:
        """Return `known` with everything that the roots need."""
        for node in topological(roots):
            if node not in known:
                known[node] = self.bounded(node, tuple(known[i] for i in node.inputs))
        return known

    def bounded(self, node: Node, operands: tuple[Bounded, ...]) -> Bounded:
        """Return one node's value and error from its operands'."""
        op = node.op.bind(self.sizes) if self.sizes else node.op
        expansion = EXPANSIONS.get(type(op))
        if expansion is not None and expansion.applies(op):
            return self._expanded(expansion.expand, op, node, operands)
        entry = RULES.get(type(op))
        if entry is None:
            raise GraphError(
                f"no error bound for {op.name}",
                where=node.origin.where,
                hint="register one: minigraph.testing.bounds.bound(YourOp)",
            )
        unit, value = self.unit_of(_dtype(node.type)), self._value(op, node, operands)
        error = entry.rule(Call(op, node.inputs, operands, value, unit, self.unit_of, self.evaluate))
        if isinstance(value, tuple):
            error = tuple(_settled(v, e, unit, entry) for v, e in zip(value, error, strict=True))
        else:
            error = _settled(value, error, unit, entry)
        return Bounded(value, error, floor_of(op, node.inputs, operands, value, error))

    def unit_of(self, dtype: str) -> Unit:
        """Return the unit in which values of a dtype are computed."""
        return Unit.of(self.unit if self.unit and is_float(dtype) else dtype)

    def evaluate(self, op: Op, arrays: Sequence[Any]) -> Any:
        """Return what the op's kernel makes of arrays, whose dtypes decide in what it computes."""
        operands = [np.asarray(a, order="C") for a in arrays]
        node = Node(_in_float64(op), [self._leaf(a) for a in operands], origin=_NOWHERE)
        return evaluate_node(node, operands, self.backend)

    def _leaf(self, array: Array) -> Node:
        key = (array.shape, array.dtype)
        if key not in self._leaves:
            self._leaves[key] = Node(Input("operand", TensorType(array.shape, str(array.dtype))), origin=_NOWHERE)
        return self._leaves[key]

    def _value(self, op: Op, node: Node, operands: tuple[Bounded, ...]) -> Any:
        if isinstance(op, Item):
            return operands[0].value[op.index]
        if isinstance(op, (Input, Variable)):
            return _wide(self._given(op, node))
        return _wide(self.evaluate(op, [o.value for o in operands]))

    def _given(self, op: Input | Variable, node: Node) -> Array:
        if op.label not in self.values:
            raise ProgramError(f"no value for {op.label!r}", where=node.origin.where)
        array = np.asarray(self.values[op.label], array_dtype(op.type.dtype), order="C")
        if array.shape != op.type.shape:
            raise ShapeError(
                f"the value of {op.label!r} does not fit", expected=op.type, got=array.shape, where=node.origin.where
            )
        return array

    def _expanded(self, expand: Expand, op: Op, node: Node, operands: tuple[Bounded, ...]) -> Bounded:
        """Return the bound of the nodes that stand for this one, made over stand-ins so that the walk ends there."""
        inputs = [
            Node(Input("operand", i.type.bind(self.sizes)), origin=_NOWHERE) if isinstance(i.type, TensorType) else i
            for i in node.inputs
        ]
        made = inheriting(lambda: node.origin, lambda: expand(Node(op, inputs)))
        roots = [made] if isinstance(made, Node) else made
        known = self.walk(roots, dict(zip(inputs, operands, strict=True)))
        if isinstance(made, Node):
            return known[made]
        each = [known[root] for root in roots]
        return Bounded(tuple(b.value for b in each), tuple(b.error for b in each), tuple(b.floor for b in each))


def _dtype(type: Type) -> str:
    return type.items[0].dtype if isinstance(type, TupleType) else type.dtype


def _in_float64(op: Op) -> Op:
    """Return the op with a float dtype among its attributes widened; random bits depend on theirs."""
    dtype = getattr(op, "dtype", None)
    if isinstance(op, RandomUniform) or dtype is None or not is_float(dtype) or dtype == "float64":
        return op
    return replace(op, dtype="float64")  # type: ignore[type-var]  # every op is a dataclass


def _wide(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_wide, value))
    return value.astype(np.float64, copy=False) if is_float(str(value.dtype)) else value


def _settled(value: Array, error: Any, unit: Unit, entry: Entry) -> Array:
    """Return a rule's error in the value's shape; ∞ where it is not a number, or the value is beyond the dtype."""
    error = np.asarray(error, np.float64)
    if error.shape != value.shape:
        error = np.ascontiguousarray(np.broadcast_to(error, value.shape)).reshape(value.shape)
    if value.dtype.kind == "b":
        return np.asarray(np.fmin(error, 1.0))
    if entry.moves:
        return np.where(np.isnan(error), np.inf, error)
    if value.dtype.kind == "f":
        error = error * SLACK
        return np.where(np.abs(value) + 2.0 * error <= unit.largest, error, np.inf)
    # Integers that are exact may wrap around: all implementations do so alike.
    return np.where((error == 0) | (np.abs(value.astype(np.float64)) + 2.0 * error <= unit.largest), error, np.inf)
