"""Matrix products: cuBLAS for floats, a kernel of our own for the types that it lacks.

cuBLAS sees columns first, and we rows first: the same memory is the transpose. So C = A·B is asked for as Cᵀ = Bᵀ·Aᵀ.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from minigraph.backends.cupy.dtypes import CUDA_TYPES, FLOATS
from minigraph.backends.cupy.gpu import Gpu
from minigraph.backends.cupy.places import places as places_of
from minigraph.backends.cupy.places import read, template, written
from minigraph.backends.cupy.steps import Action, Launch, blocks_for
from minigraph.backends.loops.body import shape_of
from minigraph.backends.loops.domain import strides
from minigraph.ir.node import Node
from minigraph.ir.types import DTYPES
from minigraph.ops.linalg import MatMul

# cudaDataType_t, cublasComputeType_t, cublasGemmAlgo_t: numbers of the libraries' binary interface.
_TYPES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 14}
_COMPUTE_32F, _COMPUTE_64F, _COMPUTE_TF32 = 68, 70, 77
_DEFAULT = -1
_PLAIN, _TRANSPOSED = 0, 1


@dataclass(frozen=True)
class Matrix:
    """A matrix in one of a step's arrays, or several of them.

    place: which array; offset: bytes from its beginning. stride: elements from one row to the next; step: from one
    matrix to the next. transposed: whether it is read so; its rows are those that lie in memory.
    """

    place: int
    stride: int
    step: int = 0
    offset: int = 0
    transposed: bool = False


@dataclass(frozen=True)
class Gemm:
    """A call of cuBLAS: result ← left·right, or result + left·right, for each of a batch.

    rows, columns, inner: the sizes of the product, [rows, inner]·[inner, columns]. stored: the result's dtype, if it is
    another one. CuPy gives each call to its current stream, which is the program's while a program runs.
    """

    name: str
    left: Matrix
    right: Matrix
    result: Matrix
    rows: int
    columns: int
    inner: int
    dtype: str
    batch: int = 1
    accumulate: bool = False
    stored: str | None = None

    def bind(self, gpu: Gpu, addresses: Sequence[int]) -> Callable[[], object]:
        """Return the call over these addresses."""
        factors = np.array([1, self.accumulate], np.float64 if self.dtype == "float64" else np.float32)
        alpha, beta = factors.ctypes.data, factors[1:].ctypes.data
        kind = _TYPES[self.dtype]
        several = self.batch > 1
        matrices = [
            (addresses[m.place] + m.offset, kind, m.stride, *([m.step] if several else []))
            for m in (self.right, self.left)
        ]
        result = (addresses[self.result.place] + self.result.offset, _TYPES[self.stored or self.dtype])
        where = (self.result.stride, *([self.result.step, self.batch] if several else []))
        turned = (_TRANSPOSED if m.transposed else _PLAIN for m in (self.right, self.left))
        arguments = (
            gpu.cublas_handle, *turned, self.columns, self.rows, self.inner, alpha, *matrices[0], *matrices[1],
            beta, *result, *where, _compute_type(self.dtype, gpu), _DEFAULT,
        )  # fmt: skip
        call = gpu.cublas.gemmStridedBatchedEx if several else gpu.cublas.gemmEx
        return functools.partial(_call, call, arguments, factors)


def _call(function: Any, arguments: tuple[Any, ...], factors: np.ndarray[Any, Any]) -> None:
    """Call cuBLAS, which reads the factors where they are: whoever holds this call holds them too."""
    function(*arguments)


def _compute_type(dtype: str, gpu: Gpu) -> int:
    if dtype == "float64":
        return _COMPUTE_64F
    return _COMPUTE_TF32 if dtype == "float32" and gpu.precision == "tf32" else _COMPUTE_32F


# --- the op -----------------------------------------------------------------------------------------------------------

# Where a step's two operands and its result are, as `Parameter.place` counts.
Places: TypeAlias = tuple[int, int, int]
# An axis of a batch: its size, and how many matrices lie between neighbours on it in x, in y, and in the result.
Axis: TypeAlias = tuple[int, int, int, int]


def product_code(anchor: Node, places: Places, gpu: Gpu, scratch: int) -> tuple[tuple[Action, ...], int]:
    """Return the actions that compute a matmul, and the bytes of workspace that they use: none.

    places: where x, y and the result lie. Nothing of it may be empty.
    """
    op = anchor.op
    assert isinstance(op, MatMul)
    if anchor.dtype not in FLOATS:
        return (_own_product(anchor, op, places),), 0
    rows, columns = shape_of(anchor)[-2:]
    inner = shape_of(anchor.inputs[0])[-2 if op.transpose_x else -1]
    axes = _batch_axes(anchor)
    if axes and not op.transpose_x and _repeats_right(axes):  # then all the rows of x are those of one matrix
        rows, axes = rows * math.prod(axis[0] for axis in axes), []
    sizes = (rows * inner, inner * columns, rows * columns)
    longest = max(axes, default=(1, 0, 0, 0))
    outer = [axis for axis in axes if axis is not longest]
    calls = []
    for numbers in itertools.product(*(range(axis[0]) for axis in outer)):
        left, right, result = (
            Matrix(place, width, longest[i] * size, DTYPES[anchor.dtype] * size * _offset(outer, numbers, i), turned)
            for i, (place, width, size, turned) in enumerate(
                [
                    (places[0], rows if op.transpose_x else inner, sizes[0], op.transpose_x),
                    (places[1], inner if op.transpose_y else columns, sizes[1], op.transpose_y),
                    (places[2], columns, sizes[2], False),
                ],
                start=1,
            )
        )
        calls.append(Gemm("matmul", left, right, result, rows, columns, inner, anchor.dtype, longest[0]))
    return tuple(calls), 0


def _offset(axes: Sequence[Axis], numbers: Sequence[int], operand: int) -> int:
    return sum(number * axis[operand] for number, axis in zip(numbers, axes, strict=True))


def _repeats_right(axes: Sequence[Axis]) -> bool:
    """Tell whether y is one matrix, and those of x lie one behind the other."""
    return len(axes) == 1 and axes[0][1:] == (1, 0, 1)


def _batch_axes(anchor: Node) -> list[Axis]:
    """Return the axes of a batch of products, as few as may be: neighbours that are one stride in all arrays are one.

    >>> from minigraph.ir import variable
    >>> from minigraph.ops.linalg import matmul
    >>> _batch_axes(matmul(variable((2, 3, 4, 5)), variable((3, 5, 6))))
    [(2, 3, 0, 3), (3, 1, 1, 1)]
    >>> _batch_axes(matmul(variable((2, 3, 4, 5)), variable((5, 6))))
    [(6, 1, 0, 1)]
    """
    found: list[Axis] = []
    batch = shape_of(anchor)[:-2]
    for size, *apart in zip(batch, *(_batch_strides(n, len(batch)) for n in (*anchor.inputs, anchor)), strict=True):
        if size == 1:
            continue
        if found and all(before == size * stride for before, stride in zip(found[-1][1:], apart, strict=True)):
            size *= found.pop()[0]
        found.append((size, *apart))
    return found


def _batch_strides(operand: Node, rank: int) -> tuple[int, ...]:
    """Return how many matrices lie between neighbours on each axis of the batch: none where the operand repeats."""
    own = shape_of(operand)[:-2]
    own = (1,) * (rank - len(own)) + own
    return tuple(0 if size == 1 else stride for size, stride in zip(own, strides(own), strict=True))


def _own_product(anchor: Node, op: MatMul, places: Places) -> Launch:
    """Return the kernel for integers and conditions: each thread makes an element of the result."""
    rows, columns = shape_of(anchor)[-2:]
    inner = shape_of(anchor.inputs[0])[-2 if op.transpose_x else -1]
    axes = _batch_axes(anchor)
    batches = (
        places_of([(axis[0], axis[operand] * size) for axis in axes])
        for operand, size in ((1, rows * inner), (2, inner * columns))
    )
    row, step = (1, rows) if op.transpose_x else (inner, 1)
    down, across = (1, inner) if op.transpose_y else (columns, 1)
    line = template("multiply", rows, columns, inner, row, step, down, across, *batches) + "(x, y, z);"
    ctype = CUDA_TYPES[anchor.dtype]
    pointers = (read(ctype, "x", places[0]), read(ctype, "y", places[1]), written(ctype, "z", places[2]))
    return Launch("matmul", pointers, (line,), blocks_for(math.prod(shape_of(anchor))), headers=("products.cuh",))
