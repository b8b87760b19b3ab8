"""Run one C++ kernel by itself: compiled, called by a team of threads, its scratch memory fenced, its output counted.

`check(kind, algorithm, geometry)` compares a convolution with loops over its taps in float64; `convolution` runs one.
`library(source)` compiles anything else that includes the kernels' headers and `PRELUDE`.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigraph.backends.c
from minigraph.backends.c.algorithms import Algorithm
from minigraph.backends.geometry import Geometry
from minigraph.backends.loops.headers import SHARED
from minigraph.ops.window import Window
from minigraph.ops.window import padding as canonical

Array = np.ndarray[Any, Any]

FOLDERS = (Path(minigraph.backends.c.__file__).parent / "kernels", SHARED)
COMPILER = next((path for name in ("g++", "clang++", "c++") if (path := shutil.which(name))), None)
FLAGS = ["-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fPIC",
         "-shared", "-fno-exceptions", "-fno-rtti", "-pthread"]  # fmt: skip
TYPES = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}
FENCE = 256  # bytes behind every array that a kernel writes, which it must not touch
BYTE = 0xFF  # makes floats NaN: what reads memory that nobody wrote shows it

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler on PATH")

# A team of threads, and an epilogue that counts how often every element is put and done.
PRELUDE = r"""
#include "vector.h"
#include <pthread.h>
#include <sched.h>

static int arrived, round_number;
static int team_size = 1;

void Team::barrier() const {
  const int mine = __atomic_load_n(&round_number, __ATOMIC_ACQUIRE);
  if (__atomic_add_fetch(&arrived, 1, __ATOMIC_ACQ_REL) == team_size) {
    __atomic_store_n(&arrived, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&round_number, mine + 1, __ATOMIC_RELEASE);
    return;
  }
  for (long turns = 0; __atomic_load_n(&round_number, __ATOMIC_ACQUIRE) == mine; turns++)
    if (turns > 2000) sched_yield();
}

template <class F> struct Job { const F* work; Team team; };

template <class F> void* run_job(void* job) {
  (*((Job<F>*)job)->work)(((Job<F>*)job)->team);
  return nullptr;
}

template <class F> void in_team(int threads, const F& work) {
  Job<F> jobs[64];
  pthread_t ids[64];
  team_size = threads;
  for (int i = 0; i < threads; i++) jobs[i] = {&work, {i, threads}};
  for (int i = 1; i < threads; i++) pthread_create(&ids[i], nullptr, run_job<F>, &jobs[i]);
  run_job<F>(&jobs[0]);
  for (int i = 1; i < threads; i++) pthread_join(ids[i], nullptr);
}

template <class T> struct Counted {
  T* out;
  int32_t *puts, *dones, *wrong;
  ptrdiff_t rows, columns;

  void put(ptrdiff_t row, ptrdiff_t column, T value) {
    if (row < 0 || row >= rows || column < 0 || column >= columns) { *wrong = 1; return; }
    out[row * columns + column] = value;
    __atomic_add_fetch(&puts[row * columns + column], 1, __ATOMIC_RELAXED);
  }
  void put(ptrdiff_t row, ptrdiff_t column, typename Vec<T>::type value) {
    for (ptrdiff_t i = 0; i < LANES<T>; i++) put(row, column + i, value[i]);
  }
  void done(ptrdiff_t first_row, ptrdiff_t n, ptrdiff_t first_column, ptrdiff_t m, const Team&) {
    if (first_row < 0 || first_row + n > rows || first_column < 0 || first_column + m > columns) { *wrong = 2; return; }
    for (ptrdiff_t i = first_row; i < first_row + n; i++)
      for (ptrdiff_t j = first_column; j < first_column + m; j++) {
        if (!__atomic_load_n(&puts[i * columns + j], __ATOMIC_RELAXED)) *wrong = 3;
        __atomic_add_fetch(&dones[i * columns + j], 1, __ATOMIC_RELAXED);
      }
  }
};
"""

CONVOLUTION = r"""
extern "C" void convolution(int threads, const Conv* conv, const NUMBER* first, const NUMBER* second, NUMBER* packed,
                            NUMBER* out, int32_t* puts, int32_t* dones, int32_t* wrong, ptrdiff_t rows,
                            ptrdiff_t columns, char* scratch) {
  in_team(threads, [=](const Team& team) {
    Counted<NUMBER> epilogue{out, puts, dones, wrong, rows, columns};
    %s
    ALGORITHM::run(team, *conv, first, packed ? packed : second, epilogue, scratch);
  });
}
"""
PACK = "ALGORITHM::pack(team, *conv, second, packed); team.barrier();"


class Conv(ctypes.Structure):
    """`struct Conv` of vector.h."""

    _fields_ = [
        (name, ctypes.c_ssize_t)
        for name in ("n", "h", "w", "c", "oh", "ow", "o", "kh", "kw", "sh", "sw", "dh", "dw", "top", "left", "groups")
    ]


@functools.cache
def library(source: str) -> ctypes.CDLL:
    """Compile C++ that includes kernel headers, or take what an earlier process compiled from the same text."""
    assert COMPILER
    headers = "".join(path.read_text() for folder in FOLDERS for path in sorted(folder.glob("*.h")))
    cpu = Path("/proc/cpuinfo").read_text().split("\n\n")[0] if Path("/proc/cpuinfo").exists() else ""
    flags = "".join(line for line in cpu.splitlines() if line.startswith(("flags", "Features", "model name")))
    key = hashlib.sha256("\0".join([COMPILER, *FLAGS, source, headers, flags]).encode()).hexdigest()[:24]
    folder = Path(tempfile.gettempdir()) / f"minigraph-kernels-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    folder.mkdir(exist_ok=True, mode=0o700)
    path = folder / f"{key}.so"
    if not path.exists():
        wide = ["-mprefer-vector-width=512"] if "avx512f" in flags else []
        mine = folder / f"{key}.{os.getpid()}.so"  # renamed when whole: another process may build the same
        command = [COMPILER, *FLAGS, *wide, *(f"-I{folder}" for folder in FOLDERS), "-x", "c++", "-", "-o", str(mine)]
        subprocess.run(command, input=source, text=True, check=True)
        mine.replace(path)
    return ctypes.CDLL(str(path))


def fenced(nbytes: int) -> tuple[Array, Array]:
    """Return memory of this many bytes at a multiple of 64, full of rubbish, and the fence right behind it."""
    raw = np.full(nbytes + 64 + FENCE, BYTE, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + nbytes], raw[start + nbytes : start + nbytes + FENCE]


def geometry(
    images: tuple[int, int, int, int], outputs: int, kernel: tuple[int, int], strides: tuple[int, int] = (1, 1),
    padding: Any = "valid", dilations: tuple[int, int] = (1, 1), groups: int = 1, dtype: Any = np.float32,
) -> Geometry:  # fmt: skip
    """Return the geometry of a convolution of N,H,W,I images to so many output channels."""
    window = Window(kernel, strides, dilations, canonical(padding))
    height, width = window.output(images[1:3])
    size = (images[0], int(height), int(width), outputs)  # type: ignore[arg-type]
    return Geometry(window, images, size, groups, np.dtype(dtype).itemsize)


def conv(g: Geometry) -> Conv:
    """Return a geometry as the kernels take it."""
    (top, _), (left, _) = g.pads
    return Conv(*g.images, *g.outputs[1:], *g.window.size, *g.window.strides, *g.window.dilations, top, left, g.groups)


def kernel_shape(g: Geometry) -> tuple[int, int, int, int]:
    """Return the shape of a convolution's kernel: H,W,I/groups,O."""
    return (*g.window.size, g.images[3] // g.groups, g.outputs[3])


def convolution(
    algorithm: Algorithm, g: Geometry, first: Array, second: Array, shape: tuple[int, ...], threads: int = 1
) -> Array:
    """Return what an algorithm computes, and check that it writes each element once and nothing else.

    `shape` is the result's: its last axis are the columns of the epilogue, all others its rows.
    """
    number, asked = TYPES[first.dtype], algorithm.packed(g)
    run = library(
        PRELUDE + f'#include "{algorithm.header}"\n#define NUMBER {number}\n#define ALGORITHM {algorithm.name}\n'
        + CONVOLUTION % (PACK if asked else "")
    ).convolution  # fmt: skip
    out, out_fence = fenced(int(np.prod(shape)) * g.itemsize)
    packed, packed_fence = fenced(asked * g.itemsize)
    scratch, scratch_fence = fenced(algorithm.scratch(g, threads))
    operands = []
    for operand in (first, second):  # exact copies: reading behind the end shows under valgrind or a sanitiser
        memory, _ = fenced(operand.nbytes)
        memory[:] = np.ascontiguousarray(operand).reshape(-1).view(np.uint8)
        operands.append(memory)
    puts, dones = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    wrong = np.zeros(1, np.int32)
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in (*operands, packed, out, puts, dones, wrong)]
    pointers[2] = pointers[2] if asked else ctypes.c_void_p(None)
    columns = shape[-1]
    rows = int(np.prod(shape[:-1]))
    run(threads, ctypes.byref(conv(g)), *pointers, ctypes.c_ssize_t(rows), ctypes.c_ssize_t(columns),
        ctypes.c_void_p(scratch.ctypes.data))  # fmt: skip
    assert wrong[0] == 0, {1: "put outside", 2: "done outside", 3: "done before put"}[int(wrong[0])]
    for what, fence in (("out", out_fence), ("packed", packed_fence), ("scratch", scratch_fence)):
        assert (fence == BYTE).all(), f"written behind the end of {what}"
    assert (puts == 1).all(), f"put {puts.min()} to {puts.max()} times"
    assert (dones == 1).all(), f"done {dones.min()} to {dones.max()} times"
    return out.view(first.dtype).reshape(shape)


def _taps(g: Geometry, padded: Array) -> Iterator[tuple[int, int, Array]]:
    """Yield (row, column, the pixels of the padded images that the tap meets) for all taps of the kernel."""
    (height, width), (sh, sw), (dh, dw) = g.outputs[1:3], g.window.strides, g.window.dilations
    for a in range(g.window.size[0]):
        for b in range(g.window.size[1]):
            yield a, b, padded[:, a * dh :: sh, b * dw :: sw][:, :height, :width]


def _groups(g: Geometry) -> Iterator[tuple[slice, slice]]:
    """Yield the channels of each group: of images, of outputs."""
    ins, outs = g.images[3] // g.groups, g.outputs[3] // g.groups
    for i in range(g.groups):
        yield slice(i * ins, (i + 1) * ins), slice(i * outs, (i + 1) * outs)


def _padded(g: Geometry, images: Array) -> Array:
    return np.pad(images.astype(np.float64), ((0, 0), *g.pads, (0, 0)))


def expected(kind: str, g: Geometry, first: Array, second: Array) -> Array:
    """Return a "forward" convolution, or its "transpose" or "kernel_adjoint", in float64."""
    if kind == "forward":
        outputs = np.zeros(g.outputs)
        for a, b, pixels in _taps(g, _padded(g, first)):
            for ins, outs in _groups(g):
                outputs[..., outs] += pixels[..., ins] @ second[a, b, :, outs].astype(np.float64)
        return outputs
    if kind == "transpose":
        padded = _padded(g, np.zeros(g.images))
        for a, b, pixels in _taps(g, padded):
            for ins, outs in _groups(g):
                pixels[..., ins] += first[..., outs].astype(np.float64) @ second[a, b, :, outs].T
        (top, _), (left, _) = g.pads
        return padded[:, top : top + g.images[1], left : left + g.images[2]]
    kernel = np.zeros(kernel_shape(g))
    for a, b, pixels in _taps(g, _padded(g, first)):
        for ins, outs in _groups(g):
            kernel[a, b, :, outs] = np.tensordot(
                pixels[..., ins], second[..., outs].astype(np.float64), ((0, 1, 2),) * 2
            )
    return kernel


def rounding(terms: int, dtype: Any) -> float:
    """Return how far a sum of so many products of normal numbers may be off: one rounding of the partial sum a term."""
    return float((2 * terms + 16) * np.finfo(dtype).eps)


def check(kind: str, algorithm: Algorithm, g: Geometry, threads: int = 1, tolerance: float = 1.0) -> None:
    """Compare an algorithm with `expected` for random operands; `tolerance` is in times what a sum may be off."""
    random = np.random.default_rng(0)
    shapes = {"forward": (g.images, kernel_shape(g), g.outputs), "transpose": (g.outputs, kernel_shape(g), g.images),
              "kernel_adjoint": (g.images, g.outputs, kernel_shape(g))}[kind]  # fmt: skip
    dtype = np.dtype(f"float{8 * g.itemsize}")
    first, second = (random.standard_normal(shape).astype(dtype) for shape in shapes[:2])
    reference = expected(kind, g, first, second)
    result = convolution(algorithm, g, first, second, shapes[2], threads)
    taps = g.window.size[0] * g.window.size[1]
    terms = {"forward": g.depth, "transpose": taps * g.outputs[3] // g.groups}.get(kind, int(np.prod(g.outputs[:3])))
    error = np.abs(result - reference).max()
    assert error <= tolerance * rounding(terms, dtype), f"{algorithm.name}: error {error:.2g} for {g}"
