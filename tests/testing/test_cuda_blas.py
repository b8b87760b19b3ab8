"""The stand-in of cuBLAS against NumPy: columns first, turned or not, leading dimensions, batches, types."""

from __future__ import annotations

import importlib
import itertools

import numpy as np
import pytest

from minigraph.testing import cuda
from minigraph.testing.cuda import blas

TYPES = {"float32": blas.R_32F, "float64": blas.R_64F, "float16": blas.R_16F}
M, N, K = 3, 4, 5


class Machine:
    """A device with cuBLAS on a stream."""

    def __init__(self, device) -> None:
        self.device = device
        self.cupy = importlib.import_module("cupy")
        self.cublas = importlib.import_module("cupy_backends.cuda.libs.cublas")
        self.stream = self.cupy.cuda.Stream(non_blocking=True)
        self.handle = self.cupy.cuda.device.get_cublas_handle()
        self.cublas.setStream(self.handle, self.stream.ptr)

    def array(self, values):
        array = self.cupy.ndarray(values.shape, values.dtype, memptr=self.cupy.cuda.alloc(values.nbytes))
        array.set(values, stream=self.stream)
        return array

    def get(self, array):
        return array.get(stream=self.stream)


@pytest.fixture
def machine():
    with cuda.standin() as device:
        yield Machine(device)


def by_columns(matrices, extra=0, gap=0):
    """Return matrices as cuBLAS has them, with rows too many in a column, and elements between matrices."""
    count, rows, columns = matrices.shape
    stored = np.full((count, columns * (rows + extra) + gap), np.nan, matrices.dtype)
    stored[:, : columns * (rows + extra)].reshape(count, columns, rows + extra)[:, :, :rows] = matrices.swapaxes(1, 2)
    return stored


@pytest.mark.parametrize(("turn_a", "turn_b"), list(itertools.product([0, 1, 2], repeat=2)))
@pytest.mark.parametrize("count", [None, 1, 3])
@pytest.mark.parametrize(("dtype", "alpha", "beta"), [("float32", 1, 0), ("float64", 2, 0), ("float32", -1.5, 0.5)])
def test_products_of_matrices(machine, turn_a, turn_b, count, dtype, alpha, beta):
    rng = np.random.default_rng(0)
    batch = count or 1
    a, b, c = (rng.integers(-9, 9, (batch, *shape)).astype(dtype) for shape in ((M, K), (K, N), (M, N)))
    extra, gap = 2, 3 if count else 0
    stored_a = by_columns(a.swapaxes(1, 2) if turn_a else a, extra, gap)
    stored_b = by_columns(b.swapaxes(1, 2) if turn_b else b, extra, gap)
    stored_c = by_columns(c if beta else np.full_like(c, np.nan), extra, gap)  # what β = 0 does not read
    on_device = [machine.array(x) for x in (stored_a, stored_b, stored_c)]
    pa, pb, pc = (x.data.ptr for x in on_device)
    leading = (K if turn_a else M) + extra, (N if turn_b else K) + extra, M + extra
    factors = np.array([alpha, beta], dtype)
    one, zero = factors.ctypes.data, factors.ctypes.data + factors.itemsize
    kind, compute = TYPES[dtype], 70 if dtype == "float64" else 68
    sizes = (machine.handle, turn_a, turn_b, M, N, K, one)
    if count is None:
        machine.cublas.gemmEx(
            *sizes, pa, kind, leading[0], pb, kind, leading[1], zero, pc, kind, leading[2], compute, -1
        )
    else:
        strides = [x.shape[1] for x in (stored_a, stored_b, stored_c)]
        machine.cublas.gemmStridedBatchedEx(
            *sizes, pa, kind, leading[0], strides[0], pb, kind, leading[1], strides[1], zero, pc, kind, leading[2],
            strides[2], batch, compute, -1,
        )  # fmt: skip
    expected = stored_c.copy()
    result = alpha * (a @ b) + (beta * c if beta else 0)
    expected[:, : N * (M + extra)].reshape(batch, N, M + extra)[:, :, :M] = result.swapaxes(1, 2)
    np.testing.assert_array_equal(machine.get(on_device[2]), expected)  # and nothing else is written
    record = machine.device.log[-3]
    assert (record.kind, record.stream) == ("library", machine.stream.ptr)


def multiply(machine, a, b, kinds, compute, out):
    """Return a @ b of matrices by rows: the product of their transposes by columns, the other way round."""
    x, y, z = machine.array(a), machine.array(b), machine.array(out)
    factors = np.array([1, 0], np.float64 if compute == blas.COMPUTE_64F else np.float32)
    (m, k), n = a.shape, b.shape[1]
    machine.cublas.gemmEx(
        machine.handle, 0, 0, n, m, k, factors.ctypes.data, y.data.ptr, kinds[0], n, x.data.ptr, kinds[0], k,
        factors.ctypes.data + factors.itemsize, z.data.ptr, kinds[1], n, compute, -1,
    )  # fmt: skip
    return machine.get(z)


@pytest.mark.parametrize("out", ["float16", "float32"])
def test_half_precision_is_summed_in_float32_and_rounded_once(machine, out):
    a, b = np.full((1, 3000), 1, np.float16), np.full((3000, 2), 1.5, np.float16)
    kinds = TYPES["float16"], TYPES[out]
    found = multiply(machine, a, b, kinds, blas.COMPUTE_32F, np.zeros((1, 2), out))
    assert found.tolist() == [[4500, 4500]]


def test_bfloat16(machine):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(ml_dtypes.bfloat16) for shape in ((M, K), (K, N)))
    exact = a.astype(np.float32) @ b.astype(np.float32)
    wide = multiply(machine, a, b, (blas.R_16BF, blas.R_32F), blas.COMPUTE_32F, np.zeros((M, N), np.float32))
    np.testing.assert_allclose(wide, exact, rtol=1e-6)
    narrow = multiply(machine, a, b, (blas.R_16BF, blas.R_16BF), blas.COMPUTE_32F, np.zeros((M, N), a.dtype))
    np.testing.assert_array_equal(narrow, wide.astype(ml_dtypes.bfloat16))


def test_tf32_rounds_operands_to_10_bits_of_fraction(machine):
    a = np.float32([[1 + 2**-10, 1 + 2**-11, 1 + 3 * 2**-11, 3e38, np.inf, np.nan]]).T
    one = np.float32([[1]])
    kinds = (blas.R_32F, blas.R_32F)
    found = multiply(machine, a, one, kinds, blas.COMPUTE_32F_FAST_TF32, np.zeros((6, 1), np.float32))
    assert found[:3, 0].tolist() == [1 + 2**-10, 1, 1 + 2**-9]
    assert found[3, 0] != a[3, 0] and abs(found[3, 0] / a[3, 0] - 1) <= 2**-11
    assert found[4, 0] == np.inf and np.isnan(found[5, 0])
    strict = multiply(machine, a, one, kinds, blas.COMPUTE_32F, np.zeros((6, 1), np.float32))
    np.testing.assert_array_equal(strict, a)


def test_one_matrix_for_a_whole_batch(machine):
    """A stride of 0 is the same matrix again."""
    a, b = np.arange(4, dtype=np.float32).reshape(1, 2, 2), np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    x, y, z = machine.array(by_columns(a)), machine.array(by_columns(b)), machine.array(np.zeros(8, np.float32))
    factors = np.float32([1, 0])
    machine.cublas.gemmStridedBatchedEx(
        machine.handle, 0, 0, 2, 2, 2, factors.ctypes.data, x.data.ptr, 0, 2, 0, y.data.ptr, 0, 2, 4,
        factors.ctypes.data + 4, z.data.ptr, 0, 2, 4, 2, 68, -1,
    )  # fmt: skip
    np.testing.assert_array_equal(machine.get(z).reshape(2, 2, 2).swapaxes(1, 2), a @ b)


@pytest.mark.parametrize("k", [0, 2])
@pytest.mark.parametrize("m", [0, 2])
def test_products_of_nothing(machine, m, k):
    """A sum of no products is 0; a result without elements needs no memory."""
    arrays = [machine.array(np.full(4, 3, np.float32)) for _ in range(3)]
    factors = np.float32([1, 0])
    machine.cublas.gemmEx(
        machine.handle, 0, 0, m, 2, k, factors.ctypes.data, arrays[0].data.ptr, 0, 2, arrays[1].data.ptr, 0, 2,
        factors.ctypes.data + 4, arrays[2].data.ptr, 0, 2, 68, -1,
    )  # fmt: skip
    assert machine.get(arrays[2]).tolist() == [9.0 * k if m else 3] * 4


def test_what_cublas_refuses(machine):
    x = machine.array(np.zeros(16, np.float32)).data.ptr
    factors = np.float32([1, 0])
    one, zero = factors.ctypes.data, factors.ctypes.data + 4

    def gemm(a=0, b=0, c=0, lda=4, ldc=4, compute=68, handle=machine.handle, turn=0):
        machine.cublas.gemmEx(handle, turn, 0, 4, 2, 2, one, x, a, lda, x, b, 2, zero, x, c, ldc, compute, -1)

    refused = machine.cublas.CUBLASError
    for types in ({"a": 2}, {"b": 1}, {"c": 1}, {"a": 2, "b": 2, "c": 14}, {"compute": 70}, {"compute": 64}):
        with pytest.raises(refused, match="CUBLAS_STATUS_NOT_SUPPORTED"):
            gemm(**types)
    for sizes in ({"lda": 3}, {"ldc": 3}, {"turn": 1, "lda": 1}):
        with pytest.raises(refused, match="CUBLAS_STATUS_INVALID_VALUE"):
            gemm(**sizes)
    with pytest.raises(refused, match="NOT_INITIALIZED"):
        gemm(handle=12345)
    with pytest.raises(RuntimeError, match=r"library gemmEx: bytes .* not in device memory"):
        gemm(lda=100)


def test_handles(machine):
    assert machine.cupy.cuda.device.get_cublas_handle() == machine.handle
    other = machine.cublas.create()
    assert other != machine.handle
    assert machine.cublas.getStream(machine.handle) == machine.stream.ptr and machine.cublas.getStream(other) == 0
