"""What a loop runs over: rows and columns, and where in them an operand's elements lie.

Axes that every operand has, or that every operand repeats, are run through as one. The last one that is left is the
columns, cut into vectors; all others are the rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Shape = tuple[int, ...]

# Columns that a long flat array is cut into: a few vectors of any machine.
_FLAT = (1024, 512, 256, 128, 64, 32, 16)


@dataclass(frozen=True)
class Domain:
    """The axes of a loop, after joining; `tile` cuts height and width of images into windows."""

    shape: Shape
    tile: tuple[int, int]
    axes: tuple[tuple[int, ...], ...]  # which of the shape's axes each joined axis is made of
    rows: int
    columns: int

    @classmethod
    def over(cls, shape: Shape, tile: tuple[int, int], operands: Sequence[Shape], keep_last: bool) -> Domain:
        """Return the domain of a loop over `shape`; `keep_last` asks for the last axis to be the columns, alone."""
        if tile != (1, 1):
            n, h, _, c = shape
            return cls(shape, tile, ((0, 1), (2,), (3,)), n * (h // tile[0]), c)
        axes: list[tuple[int, ...]] = []
        patterns: list[tuple[bool, ...]] = []
        for axis, size in enumerate(shape):
            pattern = tuple(_aligned(operand, len(shape))[axis] == size for operand in operands)
            if size == 1 and not (keep_last and axis == len(shape) - 1):
                continue
            if axes and patterns[-1] == pattern and not (keep_last and axis == len(shape) - 1):
                axes[-1] += (axis,)
            else:
                axes.append((axis,))
                patterns.append(pattern)
        if keep_last and len(axes) == 0:
            axes.append(())
        columns = math.prod(shape[a] for a in axes[-1]) if axes else 1
        return cls(shape, tile, tuple(axes), math.prod(shape) // columns if columns else 0, columns)

    def flattened(self) -> Domain:
        """Return a domain of one long row as one of many rows, where that divides."""
        if self.rows != 1 or len(self.axes) > 1 or self.tile != (1, 1):
            return self
        for columns in _FLAT:
            if self.columns > columns and self.columns % columns == 0:
                return Domain(self.shape, self.tile, self.axes, self.columns // columns, columns)
        return self

    @property
    def coarse(self) -> Shape:
        """The shape of what there is one of for each window."""
        n, h, w, c = self.shape
        return (n, h // self.tile[0], w // self.tile[1], c)

    def is_fine(self, shape: Shape) -> bool:
        """Tell whether an operand has an element for each element of a window."""
        return self.tile != (1, 1) and len(shape) == 4 and shape[1:3] == self.shape[1:3]

    def index(self, shape: Shape, place: tuple[int, int] | None = None) -> str:
        """Return the index of an operand's element at row r and column c (and window j, and place in the window)."""
        row, column = self.row_index(shape, place), self.column_stride(shape)
        return " + ".join(filter(None, (row, "c" if column else ""))) or "0"

    def column_stride(self, shape: Shape) -> int:
        """Return how far an operand's elements of neighbouring columns lie apart: 1, or 0 for one that is repeated."""
        if not self.axes or not self.axes[-1]:
            return 0
        aligned = _aligned(shape, len(self.shape))
        return int(math.prod(aligned[a] for a in self.axes[-1]) > 1)

    def row_index(self, shape: Shape, place: tuple[int, int] | None = None) -> str:
        """Return the part of an index that depends on the row; "" if none does."""
        aligned = _aligned(shape, len(self.shape))
        if self.rows == 0:  # nothing is read
            return ""
        if self.tile != (1, 1):
            return self._tiled_index(aligned, place)
        apart = strides(aligned)
        if math.prod(aligned) == math.prod(self.shape):
            return f"r * {self.columns}" if self.rows > 1 else ""
        terms, after = [], self.rows
        for group in self.axes[:-1]:
            size = math.prod(self.shape[a] for a in group)
            before, after = after, after // size
            if math.prod(aligned[a] for a in group) == 1:
                continue
            digit = "r" if after == 1 else f"r / {after}"
            digit = digit if before == self.rows else f"{digit} % {size}"
            terms.append(f"({digit}) * {apart[group[-1]]}")
        return " + ".join(terms)

    def _tiled_index(self, aligned: Shape, place: tuple[int, int] | None) -> str:
        """Rows are rows of windows, `j` is the window in its row."""
        n, h, w, c = aligned
        height, width = self.tile if self.is_fine(aligned) else (1, 1)
        y, x = place or (0, 0)
        windows = self.shape[1] // self.tile[0]
        if (h, w) == (1, 1) != self.shape[1:3] and (h, w) != self.coarse[1:3]:
            return "" if n == 1 else f"(r / {windows}) * {c}"
        if n == 1 < self.shape[0]:
            return f"((r % {windows}) * {height} + {y}) * {w * c} + (j * {width} + {x}) * {c}"
        return f"(r * {height} + {y}) * {w * c} + (j * {width} + {x}) * {c}"


def _aligned(shape: Shape, rank: int) -> Shape:
    return (1,) * (rank - len(shape)) + tuple(shape)


def strides(shape: Shape) -> Shape:
    """Return how far neighbours on each axis lie apart, in elements.

    >>> strides((2, 3, 4))
    (12, 4, 1)
    """
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
