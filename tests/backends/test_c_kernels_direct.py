"""The C++ kernels without a transform: products of matrices, direct convolutions and their adjoints, depthwise ones."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigraph.backends.c import direct
from minigraph.backends.c.algorithms import Algorithm
from minigraph.backends.geometry import Geometry
from minigraph.errors import ShapeError
from tests.backends import c_kernels as ck

pytestmark = ck.needs_compiler

KINDS = {"forward": direct.FORWARD, "transpose": direct.TRANSPOSE, "kernel_adjoint": direct.KERNEL_ADJOINT}
ALGORITHMS = [pytest.param(kind, a, id=a.name) for kind, algorithms in KINDS.items() for a in algorithms]
DTYPES = (np.float32, np.float64)

pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


def cheapest(kind: str, g: Geometry, threads: int) -> Algorithm:
    """Return the algorithm of this file that is estimated to take the least time."""
    return min((a for a in KINDS[kind] if a.applies(g)), key=lambda a: a.seconds(g, threads))


@st.composite
def geometries(draw: Any, depthwise: bool = False) -> Geometry:
    """Draw a small convolution of any kind: half of the time strided, dilated, padded, in groups."""
    plain, size = st.just((1, 1)), draw(st.tuples(st.integers(1, 4), st.integers(1, 5)))
    paddings = st.tuples(st.integers(0, 3), st.integers(0, 3))
    padding = draw(st.sampled_from(["valid", "same"]) | st.tuples(paddings, paddings))
    groups = draw(st.sampled_from([2, 5, 16, 35])) if depthwise else draw(st.sampled_from([1, 1, 2, 3]))
    channels = (
        (1, 1) if depthwise else draw(st.tuples(st.sampled_from([1, 3, 5, 16]), st.sampled_from([1, 10, 32, 37])))
    )
    batch, *spatial = draw(st.tuples(st.integers(1, 5), st.integers(1, 12), st.integers(1, 12)))
    images = (batch, spatial[0], spatial[1], channels[0] * groups)
    strides, dilations = draw(plain | pairs), draw(plain | pairs)
    dtype = draw(st.sampled_from(DTYPES))
    try:
        return ck.geometry(images, channels[1] * groups, size, strides, padding, dilations, groups, dtype)
    except ShapeError:  # the window does not fit
        return ck.geometry(images, channels[1] * groups, size, strides, "same", dilations, groups, dtype)


@pytest.mark.parametrize(("kind", "algorithm"), ALGORITHMS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_geometry(kind: str, algorithm: Algorithm, data: st.DataObject) -> None:
    g = data.draw(geometries(depthwise=algorithm.name.startswith("depthwise")))
    ck.check(kind, algorithm, g, threads=data.draw(st.integers(1, 3)))


# What small random geometries do not reach: several blocks, chunks of channels, panels and threads' own sums.
LARGE = [
    ck.geometry((2, 56, 56, 16), 40, (3, 3), padding="same"),
    ck.geometry((7, 7, 7, 512), 64, (3, 3), padding="same"),
    ck.geometry((3, 14, 14, 512), 33, (1, 1)),
    ck.geometry((1, 1, 1, 2048), 100, (1, 1)),
    ck.geometry((1, 40, 300, 3), 64, (7, 7), (2, 2), padding=3),
    ck.geometry((1, 28, 28, 256), 96, (1, 1), (2, 2)),
    ck.geometry((33, 4, 4, 96), 70, (3, 3), (2, 2), padding=1),
    ck.geometry((20, 28, 28, 1), 32, (3, 3), padding="same"),
    ck.geometry((2, 9, 600, 5), 8, (1, 9), (1, 4), padding=((0, 0), (4, 4))),
    ck.geometry((2, 20, 20, 24), 24, (3, 3), padding=4, dilations=(4, 4), groups=4),
    ck.geometry((2, 30, 30, 8), 8, (11, 11), (5, 4), padding=5, dtype=np.float64),
    ck.geometry((3, 2, 2, 40), 1100, (3, 3), padding="same"),
]


@pytest.mark.parametrize("g", LARGE, ids=lambda g: f"{'x'.join(map(str, g.images))}-{g.outputs[3]}")
@pytest.mark.parametrize("kind", KINDS)
def test_large_geometries(kind: str, g: Geometry) -> None:
    for threads in (1, 2, 5):
        ck.check(kind, KINDS[kind][0], g, threads)


@pytest.mark.parametrize("kind", KINDS)
def test_depthwise_in_blocks(kind: str) -> None:
    for channels, stride in ((40, 1), (9, 2)):
        g = ck.geometry((2, 40, 40, channels), channels, (3, 3), (stride, stride), "same", groups=channels)
        for threads in (1, 2, 3):
            ck.check(kind, cheapest(kind, g, threads), g, threads)


def test_depthwise_is_preferred() -> None:
    g = ck.geometry((1, 14, 14, 32), 32, (3, 3), padding="same", groups=32)
    assert {cheapest(kind, g, 2).name for kind in KINDS} == {
        "depthwise", "depthwise_transpose", "depthwise_kernel_adjoint"
    }  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(geometries())
def test_estimates_are_sane(g: Geometry) -> None:
    for kind in KINDS:
        one, two = (cheapest(kind, g, threads).seconds(g, threads) for threads in (1, 2))
        assert g.flops / 1e12 < two <= one < 1e-3 + g.flops / 1e8


def test_result_does_not_depend_on_the_run() -> None:
    g = ck.geometry((4, 28, 28, 3), 32, (3, 3), padding="same")
    random = np.random.default_rng(1)
    x, y = (random.standard_normal(s).astype(np.float32) for s in (g.images, g.outputs))
    runs = [ck.convolution(direct.KERNEL_ADJOINT[0], g, x, y, ck.kernel_shape(g), 3) for _ in range(4)]
    assert all((run == runs[0]).all() for run in runs)


GEMM = r"""
extern "C" void product(int threads, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const NUMBER* a, ptrdiff_t a_row,
                        ptrdiff_t a_k, const NUMBER* b, ptrdiff_t b_k, ptrdiff_t b_column, NUMBER* out, int32_t* puts,
                        int32_t* dones, int32_t* wrong, char* scratch) {
  in_team(threads, [=](const Team& team) {
    Counted<NUMBER> epilogue{out, puts, dones, wrong, m, n};
    gemm(team, m, n, k, a, a_row, a_k, b, b_k, b_column, epilogue, scratch);
  });
}
"""


def _strides(matrix: ck.Array) -> list[ctypes.c_ssize_t]:
    return [ctypes.c_ssize_t(s // matrix.itemsize) for s in matrix.strides]


def _product(a: ck.Array, b: ck.Array, threads: int) -> ck.Array:
    """Return a·b by `gemm`, each of which may lie transposed, with all checks."""
    number = ck.TYPES[a.dtype]
    run = ck.library(ck.PRELUDE + f'#include "gemm.h"\n#define NUMBER {number}\n' + GEMM).product
    (m, k), n = a.shape, b.shape[1]
    out, fence = ck.fenced(m * n * a.itemsize)
    scratch, scratch_fence = ck.fenced(direct.gemm_scratch(threads))
    puts, dones, wrong = np.zeros((m, n), np.int32), np.zeros((m, n), np.int32), np.zeros(1, np.int32)
    pointers = [ctypes.c_void_p(x.ctypes.data) for x in (a, b, out, puts, dones, wrong, scratch)]
    sizes = [ctypes.c_ssize_t(size) for size in (m, n, k)]
    run(threads, *sizes, pointers[0], *_strides(a), pointers[1], *_strides(b), *pointers[2:])
    assert (puts == 1).all() and (dones == 1).all() and wrong[0] == 0
    assert (fence == ck.BYTE).all() and (scratch_fence == ck.BYTE).all()
    return out.view(a.dtype).reshape(m, n)


def _matrix(rows: int, columns: int, dtype: Any, transposed: bool) -> ck.Array:
    """Return a random matrix right before rubbish that must not be read."""
    memory, _ = ck.fenced(rows * columns * np.dtype(dtype).itemsize)
    values = memory.view(dtype).reshape((columns, rows) if transposed else (rows, columns))
    values[...] = np.random.default_rng(rows).standard_normal(values.shape)
    return values.T if transposed else values


SIZES = [(1, 512, 1000), (3, 1, 7), (64, 900, 128), (300, 70, 65), (33, 800, 1), (450, 3, 31), (16, 1024, 64)]
sizes = st.sampled_from(SIZES) | st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 70))


@settings(max_examples=80, deadline=None)
@given(sizes, st.sampled_from(DTYPES), st.booleans(), st.booleans(), st.integers(1, 4))
def test_product(size: tuple[int, int, int], dtype: Any, left: bool, right: bool, threads: int) -> None:
    m, k, n = size
    a, b = _matrix(m, k, dtype, left), _matrix(k, n, dtype, right)
    reference = a.astype(np.float64) @ b.astype(np.float64)
    assert np.abs(_product(a, b, threads) - reference).max() <= ck.rounding(k, dtype)


def test_not_a_number_stays() -> None:
    a, b = _matrix(20, 33, np.float32, False), _matrix(33, 40, np.float32, True)
    a[3, 5], b[7, 9] = np.nan, np.inf
    result = _product(a, b, 2)
    assert np.isnan(result[3]).all() and np.isinf(result[4, 9]) and np.isfinite(result[4, :9]).all()
