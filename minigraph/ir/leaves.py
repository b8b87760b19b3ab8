"""The ops that programs begin with: inputs, variables, constants; and `item`, which takes a tuple apart."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from minigraph.errors import ArgumentError, DTypeError, ShapeError
from minigraph.ir.encoding import pack, unpack
from minigraph.ir.node import Node
from minigraph.ir.op import Op
from minigraph.ir.types import (
    DTYPES,
    TensorType,
    TupleType,
    Type,
    check_dtype,
    check_label,
    check_shape,
    is_float,
    known,
)


@dataclass(frozen=True)
class Input(Op, name="input"):
    """A value the caller gives at every call."""

    category = "input"
    label: str
    type: TensorType

    def __post_init__(self) -> None:
        _check_leaf(self)

    def infer(self) -> Type:
        """Return the declared type."""
        return self.type


@dataclass(frozen=True)
class Variable(Op, name="variable"):
    """A value that lives in a `State` under its label, between calls.

    `init` makes the first value: a number, or a registered initialiser. Optimisers update `trainable` variables; the
    others (moving averages, counters) are updated by the graph itself. `regularizer` makes the penalty that training
    adds to the loss. Labels are unique in a graph, so a label is an identity.
    """

    category = "variable"
    label: str
    type: TensorType
    init: Any = None
    trainable: bool = True
    regularizer: Any = None

    def __post_init__(self) -> None:
        _check_leaf(self)
        if not (self.init is None or isinstance(self.init, (int, float)) or callable(self.init)):
            raise ArgumentError(
                "not an initialiser", expected="a number, or a registered initialiser", got=repr(self.init)
            )
        if not (self.regularizer is None or callable(self.regularizer)):
            raise ArgumentError("not a regulariser", expected="a registered regulariser", got=repr(self.regularizer))

    def infer(self) -> Type:
        """Return the declared type."""
        return self.type


def _check_leaf(op: Input | Variable) -> None:
    check_label(op.label)
    if not isinstance(op.type, TensorType):
        raise ShapeError(f"{op.name} {op.label!r} is a tuple", expected="a tensor's type", got=op.type)


@dataclass(frozen=True)
class Constant(Op, name="constant"):
    """A value known when the graph is built: raw little-endian bytes in row-major order, so equality is by value.

    `bytes` caches its hash, so a big array is hashed once.
    """

    category = "constant"
    type: TensorType
    data: bytes

    def __post_init__(self) -> None:
        if len(self.data) != self.type.nbytes:
            raise ShapeError("a constant's bytes do not fit its type", expected=self.type.nbytes, got=len(self.data))

    def infer(self) -> Type:
        """Return the declared type."""
        return self.type

    @classmethod
    def of(cls, value: Any, dtype: str | None = None) -> Constant:
        """Make a constant of a Python number or of an array (anything with `dtype`, `shape` and `tobytes`)."""
        if hasattr(value, "tobytes") and hasattr(value, "shape"):
            name = check_dtype(str(value.dtype))
            if dtype is not None and value.shape == () and name != dtype:  # a NumPy scalar is as weak as a number
                return cls.of(value.item(), dtype)
            return cls(TensorType(tuple(value.shape), name), value.tobytes())
        if not isinstance(value, (bool, int, float)):
            raise ArgumentError(
                "cannot make a node of this", expected="a node, a number or an array", got=type(value).__name__
            )
        if dtype is None:
            dtype = "bool" if isinstance(value, bool) else "int64" if isinstance(value, int) else "float32"
        if isinstance(value, float) and not is_float(dtype):
            raise DTypeError(
                "a fraction meets integers", expected=dtype, got=repr(value), hint="cast the node to float32 first"
            )
        try:
            data = pack(dtype, value)
        except (struct.error, OverflowError):
            raise ArgumentError("a number does not fit the dtype", expected=dtype, got=repr(value)) from None
        return cls(TensorType((), dtype), data)

    @classmethod
    def full(cls, type: TensorType, value: float) -> Constant:
        """Make a constant with the same value everywhere."""
        return cls(type, cls.of(value, type.dtype).data * known(type.size))

    def values(self) -> list[Any]:
        """Return the elements, flat, as Python numbers."""
        return list(unpack(self.type.dtype, self.data))

    @property
    def splat(self) -> Any:
        """The one value that all elements share, or None."""
        width = DTYPES[self.type.dtype]
        first = self.data[:width]
        if not first or self.data != first * (len(self.data) // width):
            return None
        return unpack(self.type.dtype, first)[0]


@dataclass(frozen=True)
class Item(Op, name="item"):
    """One result of an op that has several: `item(node, i)`."""

    category = "shape"
    index: int

    def infer(self, source: Type) -> Type:
        """Return the item's type."""
        if not isinstance(source, TupleType):
            raise ShapeError("only a tuple has items", got=source)
        if not 0 <= self.index < len(source.items):
            raise ShapeError("no such item", expected=f"0 … {len(source.items) - 1}", got=self.index)
        return source.items[self.index]


def item(node: Node, index: int) -> Node:
    """Return result `index` of a node with several results."""
    return Node(Item(index), (node,))


def input(shape: tuple[Any, ...], dtype: str = "float32", name: str = "input") -> Node:
    """Return an input node of exactly this shape; symbols may stand for sizes.

    >>> input((2, 3), name="x")
    <x : float32[2,3]>
    """
    return Node(Input(name, TensorType(check_shape(shape), check_dtype(dtype))))


def variable(
    shape: tuple[Any, ...],
    *,
    name: str = "variable",
    init: Any = None,
    dtype: str = "float32",
    trainable: bool = True,
    regularizer: Any = None,
) -> Node:
    """Return a variable node; `init` is a number, an initialiser (see `minigraph.layers.initializers`) or None.

    >>> variable((3,), name="w")
    <w : float32[3]>
    """
    type = TensorType(check_shape(shape), check_dtype(dtype))
    return Node(Variable(name, type, init, trainable, regularizer))


class _Names:
    """Hands out names that are unique: dense, dense_1, dense_2 …"""

    def __init__(self) -> None:
        self.counters: dict[str, Iterator[int]] = {}

    def unique(self, base: str) -> str:
        """Return `base` the first time, then `base_1`, `base_2` …"""
        number = next(self.counters.setdefault(base, itertools.count()))
        return f"{base}_{number}" if number else base


_names: ContextVar[_Names] = ContextVar("minigraph_names")


def unique_name(base: str) -> str:
    """Return a name that nothing made so far in this context has."""
    names = _names.get(None)
    if names is None:
        names = _Names()
        _names.set(names)
    return names.unique(base)


@contextmanager
def fresh_names() -> Iterator[None]:
    """Start automatic names anew inside: a function that builds a whole network then names it the same every time.

    >>> with fresh_names():
    ...     unique_name("dense"), unique_name("dense")
    ('dense', 'dense_1')
    """
    token = _names.set(_Names())
    try:
        yield
    finally:
        _names.reset(token)
