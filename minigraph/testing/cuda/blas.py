"""cuBLAS' matrix products in its own terms, which are columns first, computed by NumPy over host memory."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from minigraph.testing.cuda.device import active, devices
from minigraph.testing.cuda.memory import at

Array = np.ndarray[Any, Any]

OP_N, OP_T, OP_C = range(3)
GEMM_DEFAULT = -1
COMPUTE_32F, COMPUTE_32F_PEDANTIC, COMPUTE_64F, COMPUTE_32F_FAST_TF32 = 68, 69, 70, 77
R_32F, R_64F, R_16F, R_16BF = 0, 1, 2, 14
# How elements are stored; a bfloat16 is the upper half of a float32.
_STORED = {R_32F: np.float32, R_64F: np.float64, R_16F: np.float16, R_16BF: np.uint16}
# compute type → (types of A and B, types that C may then have)
_FLOATS = {R_32F: (R_32F,), R_16F: (R_16F, R_32F), R_16BF: (R_16BF, R_32F)}
_ALLOWED: dict[int, dict[int, tuple[int, ...]]] = {
    COMPUTE_32F: _FLOATS, COMPUTE_32F_PEDANTIC: _FLOATS, COMPUTE_32F_FAST_TF32: {R_32F: (R_32F,)},
    COMPUTE_64F: {R_64F: (R_64F,)},
}  # fmt: skip


class CUBLASError(RuntimeError):
    """What cuBLAS refuses."""


def nearest(values: Array, bits: int) -> Array:
    """Return float32 numbers rounded to those whose last `bits` bits are 0, to even where two are as near.

    >>> nearest(np.float32([1.0, 1.001, 1.0004]), 13)
    array([1.       , 1.0009766, 1.       ], dtype=float32)
    """
    whole = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (whole + np.uint32((1 << (bits - 1)) - 1) + (whole >> np.uint32(bits) & np.uint32(1))) >> np.uint32(bits)
    kept = np.where(np.isfinite(values), rounded << np.uint32(bits), whole | (np.isnan(values) * np.uint32(1 << 22)))
    return kept.astype(np.uint32).view(np.float32)


def from_bfloat16(stored: Array) -> Array:
    """Return what bits of bfloat16 numbers stand for.

    >>> from_bfloat16(np.array([0x3F80, 0xC000], np.uint16))
    array([ 1., -2.], dtype=float32)
    """
    return (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)


def to_bfloat16(values: Array) -> Array:
    """Return the bits of the bfloat16 numbers nearest to float32 ones.

    >>> [hex(bits) for bits in to_bfloat16(np.float32([1.0, 1.00390625]))]
    ['0x3f80', '0x3f80']
    """
    return (nearest(values, 16).view(np.uint32) >> np.uint32(16)).astype(np.uint16)


def create() -> int:
    """Return a new handle."""
    return active().make_handle("cublas")


def destroy(handle: int) -> None:
    """Give a handle up; that of a device which is gone is gone with it."""
    for device in devices():
        device.handles.pop(handle, None)


def get_cublas_handle() -> int:
    """Return the device's handle, made when it is first asked for."""
    device = active()
    if device.blas_handle is None:
        device.blas_handle = create()
    return device.blas_handle


def setStream(handle: int, stream: int) -> None:
    """Let products of a handle go to a stream."""
    _stream_of(handle)
    active().handles[handle] = stream


def getStream(handle: int) -> int:
    """Return the stream that products of a handle go to."""
    return _stream_of(handle)


def _stream_of(handle: int) -> int:
    handles = active().handles
    if handle not in handles:
        raise CUBLASError("CUBLAS_STATUS_NOT_INITIALIZED")
    return handles[handle]


def gemmEx(
    handle: int, transa: int, transb: int, m: int, n: int, k: int, alpha: int, A: int, Atype: int, lda: int,
    B: int, Btype: int, ldb: int, beta: int, C: int, Ctype: int, ldc: int, computeType: int, algo: int,
) -> None:  # fmt: skip
    """C ← α·op(A)·op(B) + β·C; α and β are on the host, at addresses."""
    gemmStridedBatchedEx(
        handle, transa, transb, m, n, k, alpha, A, Atype, lda, 0, B, Btype, ldb, 0, beta, C, Ctype, ldc, 0, 1,
        computeType, algo,
    )  # fmt: skip


def gemmStridedBatchedEx(
    handle: int, transa: int, transb: int, m: int, n: int, k: int, alpha: int, A: int, Atype: int, lda: int,
    strideA: int, B: int, Btype: int, ldb: int, strideB: int, beta: int, C: int, Ctype: int, ldc: int, strideC: int,
    batchCount: int, computeType: int, algo: int,
) -> None:  # fmt: skip
    """Like `gemmEx`, for matrices that lie strides apart."""
    if Ctype not in _ALLOWED.get(computeType, {}).get(Atype, ()) or Atype != Btype:
        raise CUBLASError(f"CUBLAS_STATUS_NOT_SUPPORTED: types {Atype}, {Btype}, {Ctype}, computed as {computeType}")
    a = _Matrices(A, Atype, k if transa else m, m if transa else k, lda, strideA, batchCount)
    b = _Matrices(B, Btype, n if transb else k, k if transb else n, ldb, strideB, batchCount)
    c = _Matrices(C, Ctype, m, n, ldc, strideC, batchCount)
    scalar = ctypes.c_double if computeType == COMPUTE_64F else ctypes.c_float
    factors = scalar.from_address(alpha).value, scalar.from_address(beta).value
    round_ = functools.partial(nearest, bits=13) if computeType == COMPUTE_32F_FAST_TF32 else np.asarray
    run = functools.partial(_multiply, a, b, c, (bool(transa), bool(transb)), factors, round_)
    read = [a.span, b.span, c.span] if factors[1] else [a.span, b.span]
    name = "gemmEx" if batchCount == 1 else "gemmStridedBatchedEx"
    nbytes = a.span[1] + b.span[1] + c.span[1]
    active().enqueue(_stream_of(handle), "library", name, run, read, [c.span], nbytes)


class _Matrices:
    """Matrices by columns: `leading` elements from one column to the next, `stride` from one matrix to the next."""

    def __init__(self, address: int, kind: int, rows: int, columns: int, leading: int, stride: int, count: int) -> None:
        if min(rows, columns, count) < 0 or leading < max(1, rows):
            raise CUBLASError(f"CUBLAS_STATUS_INVALID_VALUE: {rows} rows with a leading dimension of {leading}")
        self.kind, self.address = kind, address
        self.dtype = np.dtype(_STORED[kind])
        self.shape = (count, columns, rows)
        self.steps = (stride, leading, 1)
        last = sum((n - 1) * step for n, step in zip(self.shape, self.steps, strict=True))
        self.span = (address, 0 if 0 in self.shape else (last + 1) * self.dtype.itemsize)

    def view(self) -> Array:
        """Return them as they are stored: [matrix, row, column]."""
        bytes_ = [step * self.dtype.itemsize for step in self.steps]
        elements = at(*self.span).view(self.dtype)
        return np.lib.stride_tricks.as_strided(elements, self.shape, bytes_).swapaxes(1, 2)

    def read(self) -> Array:
        """Return their numbers, half precision as float32."""
        stored = self.view()
        return from_bfloat16(stored) if self.kind == R_16BF else stored.astype(np.result_type(self.dtype, np.float32))

    def write(self, values: Array) -> None:
        """Store numbers."""
        self.view()[...] = to_bfloat16(values) if self.kind == R_16BF else values.astype(self.dtype)


def _multiply(
    a: _Matrices, b: _Matrices, c: _Matrices, transposed: tuple[bool, bool], factors: tuple[float, float],
    round_: Callable[[Array], Array],
) -> None:  # fmt: skip
    if 0 in c.shape:
        return
    left, right = (
        round_(matrices.read().swapaxes(1, 2) if turned else matrices.read()) if 0 not in matrices.shape else None
        for matrices, turned in zip((a, b), transposed, strict=True)
    )
    with np.errstate(over="ignore", invalid="ignore"):
        product = np.zeros(()) if left is None or right is None else left @ right
        scaled = c.dtype.type(factors[0]) * product if c.kind == R_64F else np.float32(factors[0]) * product
        if factors[1]:
            scaled = scaled + type(scaled.flat[0])(factors[1]) * c.read()
        c.write(np.broadcast_to(scaled, (c.shape[0], c.shape[2], c.shape[1])))
