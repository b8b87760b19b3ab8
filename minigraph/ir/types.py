"""Types: what a value is before it has one. A dtype, a shape of integers and symbols, or a tuple of such."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from minigraph.errors import ArgumentError, DTypeError, GraphError, ShapeError

# Words that mean something else in a graph's text.
RESERVED = frozenset({"true", "false", "none", "inf", "nan"})
# name → bytes per element
DTYPES: dict[str, int] = {
    "bool": 1, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4, "int64": 8, "uint64": 8,
    "float16": 2, "bfloat16": 2, "float32": 4, "float64": 8,
}  # fmt: skip
# 16 bits: 5 of exponent and 10 of fraction (IEEE 754), or 8 and 7, the upper half of a float32.
HALF = ("float16", "bfloat16")


def check_label(label: str) -> str:
    """Return a name, or raise: names are printable, not empty, and at most 200 characters."""
    if not isinstance(label, str) or not label or not label.isprintable() or len(label) > 200:
        raise GraphError("not a name", expected="1 to 200 printable characters", got=repr(label)[:80])
    return label


def is_float(dtype: str) -> bool:
    """Tell whether values of `dtype` have gradients."""
    return dtype.startswith(("float", "bfloat"))


def check_dtype(dtype: str) -> str:
    """Return `dtype`, or raise a DTypeError that lists the dtypes there are."""
    if dtype not in DTYPES:
        raise DTypeError(f"unknown dtype {dtype!r}", expected="one of " + ", ".join(DTYPES), got=repr(dtype))
    return dtype


@dataclass(frozen=True)
class Dim:
    """A symbolic size: a coefficient times symbols, `2*N*T`. Only what reshaping needs: products and exact quotients.

    >>> n = Dim(1, ("N",))
    >>> str(n * 6), str((n * 6) // 3), (n * 6).bind({"N": 2})
    ('6*N', '2*N', 12)
    """

    coefficient: int
    symbols: tuple[str, ...]

    def __mul__(self, other: Size) -> Size:
        if isinstance(other, Dim):
            return _dim(self.coefficient * other.coefficient, self.symbols + other.symbols)
        return _dim(self.coefficient * other, self.symbols)

    __rmul__ = __mul__

    def __floordiv__(self, other: Size) -> Size:
        divisor = other if isinstance(other, Dim) else Dim(other, ())
        remaining = list(self.symbols)
        for symbol in divisor.symbols:
            if symbol not in remaining:
                break
            remaining.remove(symbol)
        else:
            if divisor.coefficient and self.coefficient % divisor.coefficient == 0:
                return _dim(self.coefficient // divisor.coefficient, tuple(remaining))
        raise ShapeError(f"the symbolic size {self} is not a multiple of {other}", hint="bind the symbols first")

    def bind(self, sizes: Mapping[str, int]) -> Size:
        """Return the size with the symbols of `sizes` replaced by their numbers, and those that are made of them."""
        size: Size = self.coefficient
        for symbol in self.symbols:
            base, shift, stride = symbol_parts(symbol)
            if symbol in sizes or base not in sizes:
                size = size * sizes.get(symbol, Dim(1, (symbol,)))
            else:
                size = size * ((sizes[base] + shift) // stride)
        return size

    def __str__(self) -> str:
        head = [] if self.coefficient == 1 else [str(self.coefficient)]
        return "*".join(head + list(self.symbols))


Size: TypeAlias = int | Dim
Shape: TypeAlias = tuple[Size, ...]


def _dim(coefficient: int, symbols: tuple[str, ...]) -> Size:
    return Dim(coefficient, tuple(sorted(symbols))) if symbols and coefficient else coefficient


def symbol(name: str) -> Dim:
    """Return the symbolic size called `name`.

    >>> str(symbol("N"))
    'N'
    """
    if not name.isidentifier() or not name.isascii() or name in RESERVED:
        raise GraphError("a symbolic size needs a name that is an identifier", expected="a name like N", got=repr(name))
    return Dim(1, (name,))


# What a window leaves of an open size is a symbol that says how it is made: H_plus_1_over_2 is (H + 1) // 2.
_MADE = re.compile(r"(\w+?)(?:_(plus|minus)_(\d+))?(?:_over_(\d+))?")


def symbol_parts(symbol: str) -> tuple[str, int, int]:
    """Return (base, shift, stride) of a symbol that is (base + shift) // stride; a plain one is (itself + 0) // 1.

    >>> symbol_parts("H_plus_1_over_2"), symbol_parts("N")
    (('H', 1, 2), ('N', 0, 1))
    """
    found = _MADE.fullmatch(symbol)
    if found is None:
        return symbol, 0, 1
    shift = int(found[3] or 0)
    return found[1], -shift if found[2] == "minus" else shift, int(found[4] or 1)


def shifted(size: Size, shift: int, stride: int) -> Size:
    """Return (size + shift) // stride: what windows make of a size. Of an open one it is a symbol with a telling name.

    >>> half = shifted(symbol("H"), 1, 2)
    >>> str(half), str(shifted(half, 1, 2)), str(shifted(shifted(symbol("H"), -2, 1), 2, 1))
    ('H_plus_1_over_2', 'H_plus_3_over_4', 'H')
    """
    if not isinstance(size, Dim):
        return (size + shift) // stride
    if size.coefficient % stride == 0 and 0 <= shift < stride:
        return _dim(size.coefficient // stride, size.symbols)
    if size.coefficient != 1 or len(size.symbols) != 1:
        raise ShapeError(f"({size} + {shift}) // {stride} has no symbol", hint="bind the symbols first")
    base, before, strides = symbol_parts(size.symbols[0])
    total, whole = before + strides * shift, strides * stride  # floors of floors are one floor
    sign = f"_plus_{total}" if total > 0 else f"_minus_{-total}" if total else ""
    return symbol(base + sign + (f"_over_{whole}" if whole > 1 else ""))


def product(sizes: Iterable[Size]) -> Size:
    """Return the product of sizes, symbolic where one of them is."""
    total: Size = 1
    for size in sizes:
        total = size * total
    return total


def add_sizes(left: Size, right: Size) -> Size:
    """Return the sum of two sizes that are numbers, or multiples of the same symbols.

    >>> str(add_sizes(symbol("N") * 2, symbol("N")))
    '3*N'
    """
    if left == 0 or right == 0:
        return left if right == 0 else right
    symbols = getattr(left, "symbols", ())
    if symbols != getattr(right, "symbols", ()):
        raise ShapeError(f"{left} + {right} is no multiple of one symbolic size", hint="bind the symbols first")
    total = sum(size.coefficient if isinstance(size, Dim) else size for size in (left, right))
    return _dim(total, symbols)


def known(size: Size, what: str = "this size") -> int:
    """Return a size as a number, or raise a ShapeError that says it is still symbolic."""
    if isinstance(size, Dim):
        raise ShapeError(f"{what} is the symbolic size {size}", expected="a number", hint="bind the graph first")
    return size


@dataclass(frozen=True)
class TensorType:
    """An array's type.

    >>> print(TensorType((symbol("N"), 8, 8, 1), "float32"))
    float32[N,8,8,1]
    """

    shape: Shape
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for size in self.shape:
            if isinstance(size, int) and size < 0:
                raise ShapeError("a size cannot be negative", expected="sizes ≥ 0", got=shape_text(self.shape))

    def __eq__(self, other: object) -> bool:
        if self is other:  # most values share the very type of an operand
            return True
        return isinstance(other, TensorType) and self.shape == other.shape and self.dtype == other.dtype

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @cached_property
    def size(self) -> Size:
        """Number of elements."""
        return product(self.shape)

    @cached_property
    def nbytes(self) -> Size:
        """Bytes that the elements take."""
        return self.size * DTYPES[self.dtype]

    def bind(self, sizes: Mapping[str, int]) -> TensorType:
        """Return the type with symbolic sizes replaced; the very same object where there are none."""
        if not any(isinstance(s, Dim) for s in self.shape):
            return self
        return TensorType(tuple(bind_size(s, sizes) for s in self.shape), self.dtype)

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class TupleType:
    """The type of an op with several results; `item(node, i)` picks one."""

    items: tuple[TensorType, ...]

    @property
    def nbytes(self) -> Size:
        """Bytes that all items take together."""
        total: int = 0
        for item in self.items:
            total += known(item.nbytes, "an item's size")
        return total

    def bind(self, sizes: Mapping[str, int]) -> TupleType:
        """Return the type with symbolic sizes replaced."""
        return TupleType(tuple(item.bind(sizes) for item in self.items))

    def __str__(self) -> str:
        return f"({', '.join(map(str, self.items))})"


Type: TypeAlias = TensorType | TupleType


def bind_size(size: Size, sizes: Mapping[str, int]) -> Size:
    """Return `size` with the symbols of `sizes` replaced by their numbers."""
    return size.bind(sizes) if isinstance(size, Dim) else size


def tensor(type: Type, what: str = "this value") -> TensorType:
    """Return `type` as a tensor's, or raise: a tuple must be taken apart with `item` first."""
    if not isinstance(type, TensorType):
        raise ShapeError(f"{what} is a tuple", expected="a tensor", got=type, hint="pick one result with item(node, i)")
    return type


def check_shape(shape: Iterable[object]) -> Shape:
    """Return `shape` as a tuple of sizes, or raise a ShapeError that names the entry that is not one."""
    sizes: list[Size] = []
    for entry in shape:
        if isinstance(entry, Dim):
            sizes.append(entry)
        elif hasattr(entry, "__index__") and not isinstance(entry, bool) and entry.__index__() >= 0:
            sizes.append(entry.__index__())
        else:
            raise ShapeError("not a shape", expected="sizes: integers ≥ 0 or symbols", got=repr(entry))
    return tuple(sizes)


def broadcast(*shapes: Shape) -> Shape:
    """Return the common shape of operands under NumPy's broadcasting rule.

    >>> broadcast((3, 1), (4,))
    (3, 4)
    """
    widest = max(shapes, key=len, default=())
    if not [s for s in shapes if s and s != widest]:  # most shapes are equal, and most others are scalar
        return widest
    rank = len(widest)
    result: list[Size] = []
    for sizes in zip(*((1,) * (rank - len(s)) + s for s in shapes), strict=True):
        wide = [s for s in sizes if s != 1]
        if any(s != wide[0] for s in wide[1:]):
            raise ShapeError(
                "operands cannot be broadcast together",
                expected="sizes, aligned at the last axis, that are equal or 1",
                got=" and ".join(shape_text(s) for s in shapes),
            )
        result.append(wide[0] if wide else 1)
    return tuple(result)


def shape_text(shape: Shape) -> str:
    """Return a shape as text: `[N,8,8]`, and `scalar` for no axes."""
    return f"[{','.join(map(str, shape))}]" if shape else "scalar"


def normalize_axis(axis: int, rank: int) -> int:
    """Return `axis` counted from the front, or raise a ShapeError."""
    if not hasattr(axis, "__index__") or isinstance(axis, bool):
        raise ArgumentError("an axis is an integer", got=repr(axis))
    if not -rank <= axis < rank:
        raise ShapeError("axis out of range", expected=f"-{rank} ≤ axis < {rank}", got=axis)
    return axis.__index__() % rank


def check_axes(axes: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """Return an op's own axes, which are counted from the front and in order, or raise a ShapeError."""
    if axes != normalize_axes(axes, rank):
        raise ShapeError(
            "an op's axes are counted from the front, in order", expected=normalize_axes(axes, rank), got=axes
        )
    return axes


def normalize_axes(axes: int | Iterable[int] | None, rank: int) -> tuple[int, ...]:
    """Return axes counted from the front, in order; None means all of them."""
    if axes is None:
        return tuple(range(rank))
    each = tuple(normalize_axis(a, rank) for a in (axes if isinstance(axes, Iterable) else (axes,)))
    if len(set(each)) != len(each):
        raise ShapeError("an axis is named twice", got=axes)
    return tuple(sorted(each))
