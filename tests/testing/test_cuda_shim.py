"""CUDA text on the processor: every thread runs, barriers hold, and what a device would not define is an error."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess

import numpy as np
import pytest

from minigraph.backends.c import compilers
from minigraph.testing import cuda
from minigraph.testing.cuda import modules

pytestmark = pytest.mark.skipif(not cuda.available(), reason="no C++ compiler")

# One file for all tests: it is compiled once.
KERNELS = r"""
#include <cuda_fp16.h>
#include <cuda_bf16.h>
#define WHOLE 0xFFFFFFFFu

extern "C" __global__ void indices(long* out) {
  const long block = (blockIdx.z * gridDim.y + blockIdx.y) * (long)gridDim.x + blockIdx.x;
  const long thread = (threadIdx.z * blockDim.y + threadIdx.y) * (long)blockDim.x + threadIdx.x;
  const long i = block * (blockDim.x * blockDim.y * blockDim.z) + thread;
  const long of_thread = threadIdx.x + 10 * (threadIdx.y + 10L * threadIdx.z);
  out[i] = blockIdx.x + 10 * (blockIdx.y + 10 * (blockIdx.z + 10 * of_thread));
}

// A tree over a block, and the last block over the blocks: shared memory, shuffles, barriers, a counter.
extern "C" __global__ void __launch_bounds__(256) total(const float* __restrict__ const x, float* parts, unsigned* done,
                                                        float* sum, const long n) {
  __shared__ float of_warps[8];
  __shared__ bool last;
  float own = 0;
  const long stride = (long)gridDim.x * blockDim.x;
  for (long i = blockIdx.x * (long)blockDim.x + threadIdx.x; i < n; i += stride) own += __ldg(x + i);
  for (int d = 16; d; d /= 2) own += __shfl_down_sync(WHOLE, own, d);
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = own;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int w = 1; w < blockDim.x / 32; ++w) own += of_warps[w];
    parts[blockIdx.x] = own;
    __threadfence();
    last = atomicAdd(done, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (!last || threadIdx.x) return;
  *sum = 0;
  for (int b = 0; b < gridDim.x; ++b) *sum += parts[b];
}

template <class T> __device__ __forceinline__ void reverse(T* x) {
  __shared__ T tile[64], other[2][64];
  tile[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  x[threadIdx.x] = tile[63 - threadIdx.x];
}
extern "C" __global__ void reversed(float* x, double* y) {
  reverse(x);
  reverse(y);
}

extern "C" __global__ void unsynchronised(int* x) {
  __shared__ int tile[64];
  tile[threadIdx.x] = x[threadIdx.x];
  x[threadIdx.x] = tile[63 - threadIdx.x];
}

extern "C" __global__ void unwritten(unsigned* out) {
  __shared__ unsigned left[2];
  out[blockIdx.x] = left[1];
  left[1] = 7;
}

extern "C" __global__ void shuffles(int* down, int* up, int* flipped, int* from, int* half_down, int* partial,
                                    double* wide) {
  const int t = threadIdx.x, v = 100 + t;
  down[t] = __shfl_down_sync(WHOLE, v, 5);
  up[t] = __shfl_up_sync(WHOLE, v, 5);
  flipped[t] = __shfl_xor_sync(WHOLE, v, 3);
  from[t] = __shfl_sync(WHOLE, v, 35);
  half_down[t] = __shfl_down_sync(WHOLE, v, 3, 16);
  wide[t] = __shfl_xor_sync(WHOLE, v + 0.5, 1);
  partial[t] = -1;
  if (t % 32 < 8) partial[t] = __shfl_down_sync(0xFFu, v, 4);
  __syncwarp();
}

extern "C" __global__ void exits(int* out) {
  if (threadIdx.x >= 20) return;
  out[threadIdx.x] = __shfl_down_sync(WHOLE, (int)threadIdx.x, 1);
  __syncthreads();
  out[threadIdx.x] += 100;
}

extern "C" __global__ void diverges(int* x) {
  if (threadIdx.x < 16) {
    __syncthreads();
    x[0] = 1;
  } else {
    __syncthreads();
  }
}
extern "C" __global__ void waits_in_part(int* x) {
  if (threadIdx.x < 16) __syncwarp();
  x[0] = 1;
  __syncthreads();
}
extern "C" __global__ void lanes_that_do_not_come(int* x) {
  if (threadIdx.x % 2) x[0] = __shfl_sync(WHOLE, 1, 0);
  else __syncwarp();
}
extern "C" __global__ void too_much_local(int* x) {
  volatile char a[131072];
  for (int i = 0; i < 131072; ++i) a[i] = 1;
  x[0] = a[5];
}
extern "C" __global__ void mask_of_others(int* x) { x[threadIdx.x] = __shfl_sync(0x3u, 1, 0); }
extern "C" __global__ void too_much_shared(char* x) {
  __shared__ char a[40000], b[9153];
  x[0] = a[0] + b[0];
}

extern "C" __global__ void misaligned(const float* x, float4* y) { *y = *(const float4*)(x + 1); }
extern "C" __global__ void out_of_bounds(int* x, int i) {
  __shared__ int s[4][4];
  s[3][i] = 1;
  x[0] = s[3][0];
}
extern "C" __global__ void divided_by(int* x, int i) { x[0] = x[0] / i; }
extern "C" __global__ void truth(bool* x) {
  __shared__ bool unwritten[2];
  x[0] = unwritten[1];
}

extern "C" __global__ void atomics(int* sum, unsigned* most, int* counts) {
  atomicAdd(sum, 2);
  atomicMax(most, threadIdx.x ^ 5u);
  atomicMax(sum + 1, -(int)threadIdx.x);
  atomicAdd(counts + threadIdx.x % 3, 1);
}

extern "C" __global__ void from_half(const __half* h, const __nv_bfloat16* b, float* fh, float* fb) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  fh[i] = __half2float(h[i]);
  fb[i] = __bfloat162float(b[i]);
}
extern "C" __global__ void to_half(const float* x, __half* h, __nv_bfloat16* b) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  h[i] = __float2half(x[i]);
  b[i] = __float2bfloat16(x[i]);
}

extern "C" __global__ void functions(const float* x, float* y, unsigned long long* big, const uint2* pair) {
  const float a = x[0], b = x[1];
  const float4 v = *(const float4*)x;
  y[0] = fmaxf(a, NAN); y[1] = max(a, b); y[2] = min(a, b); y[3] = rsqrtf(4.0f); y[4] = v.w;
  y[5] = __int_as_float(__float_as_int(a)); y[6] = fmaf(a, b, 1.0f); y[7] = max(2, 3) + warpSize;
  big[0] = __umul64hi(0xFFFFFFFFFFFFFFFFull, 0xFFFFFFFFFFFFFFFFull);
  big[1] = __umulhi(pair->x, pair->y);
}
extern "C" __global__ void scalars(double* out, int i, long j, float f, double d, unsigned char c, bool b) {
  out[0] = i; out[1] = j; out[2] = f; out[3] = d; out[4] = c; out[5] = b;
}
extern "C" __global__ void beyond(int* x, int i) { x[i] = 0; }
struct Row { int* x; };
extern "C" __global__ void through_a_table(const Row* rows, int i) { rows->x[i] = 0; }
extern "C" __global__ void nothing() {}
"""


class Bench:
    """The kernels, and arrays for them."""

    def __init__(self) -> None:
        self.cupy = importlib.import_module("cupy")
        self.module = self.cupy.RawModule(code=KERNELS, options=("-std=c++17",))

    def array(self, values):
        values = np.ascontiguousarray(values)
        array = self.cupy.ndarray(values.shape, values.dtype, memptr=self.cupy.cuda.alloc(values.nbytes))
        array.set(values)
        return array

    def run(self, name, grid, block, *args):
        """Launch a kernel over copies of arrays, and return those as it leaves them."""
        arrays = [self.array(a) if isinstance(a, np.ndarray) else a for a in args]
        grid, block = (n if isinstance(n, tuple) else (n,) for n in (grid, block))
        self.module.get_function(name)(grid, block, tuple(arrays))
        return [a.get() for a in arrays if isinstance(a, self.cupy.ndarray)]


@pytest.fixture(params=[False, True], ids=["forwards", "backwards"])
def bench(request):
    with cuda.standin(backwards=request.param):
        yield Bench()


def test_every_thread_of_every_block_runs_once(bench):
    (out,) = bench.run("indices", (2, 3, 4), (5, 2, 3), np.full(24 * 30, -1))
    expected = [
        x + 10 * (y + 10 * (z + 10 * (i + 10 * (j + 10 * k))))
        for z in range(4) for y in range(3) for x in range(2) for k in range(3) for j in range(2) for i in range(5)
    ]  # fmt: skip
    assert out.tolist() == expected


@pytest.mark.parametrize("threads", [32, 64, 256])
def test_a_tree_of_sums_by_shuffles_shared_memory_and_the_last_block(bench, threads):
    x = np.arange(1000, dtype=np.float32)
    *_, total = bench.run(
        "total", 5, threads, x, np.zeros(5, np.float32), np.zeros(1, np.uint32), np.zeros(1, np.float32), x.size
    )
    assert total[0] == x.sum()


def test_shared_memory_of_a_template_is_its_own(bench):
    x, y = np.arange(64, dtype=np.float32), np.arange(64) * 0.5
    found = bench.run("reversed", 1, 64, x, y)
    np.testing.assert_array_equal(found[0], x[::-1])
    np.testing.assert_array_equal(found[1], y[::-1])


def test_a_missing_barrier_shows_in_one_of_the_two_orders():
    x = np.arange(64, dtype=np.int32)
    results = []
    for backwards in (False, True):
        with cuda.standin(backwards=backwards):
            results += Bench().run("unsynchronised", 1, 64, x)
    assert all((found != x[::-1]).any() for found in results)
    assert (results[0] != results[1]).any()


def test_shared_memory_begins_as_no_number_in_every_block(bench):
    (out,) = bench.run("unwritten", 3, 1, np.zeros(3, np.uint32))
    assert (out == 0xFFFFFFFF).all()


def test_shuffles(bench):
    ints = [np.zeros(64, np.int32) for _ in range(6)]
    down, up, flipped, from_, half, partial, wide = bench.run("shuffles", 1, 64, *ints, np.zeros(64))
    t = np.arange(64)
    lane = t % 32
    assert down.tolist() == (100 + np.where(lane + 5 < 32, t + 5, t)).tolist()
    assert up.tolist() == (100 + np.where(lane >= 5, t - 5, t)).tolist()
    assert flipped.tolist() == (100 + (t ^ 3)).tolist()
    assert from_.tolist() == (100 + t // 32 * 32 + 3).tolist()  # lane 35 is lane 3
    assert half.tolist() == (100 + np.where(t % 16 + 3 < 16, t + 3, t)).tolist()
    assert wide.tolist() == (100.5 + (t ^ 1)).tolist()
    # Lanes 4 to 7 ask those that take no part: what they get is no value of anyone's.
    expected = np.where(lane < 4, 104 + t, -1)
    assert partial[lane != 0].tolist() == expected[lane != 0].tolist() and partial[0] == 104


def test_threads_that_have_ended_are_not_waited_for(bench):
    (out,) = bench.run("exits", 1, 64, np.zeros(64, np.int32))
    assert out[:19].tolist() == [101 + i for i in range(19)]
    assert out[19] == 99  # −1 of a lane that has ended, which is no value, and 100
    assert not out[20:].any()


@pytest.mark.parametrize(
    ("name", "threads", "message"),
    [
        ("diverges", 64, r"divergent barrier: thread 0 waits at __syncthreads in line \d+, thread 16 at __syncthreads"),
        ("waits_in_part", 32, r"divergent barrier: thread 16 waits at __syncthreads .* thread 0 at a warp's barrier"),
        ("mask_of_others", 32, r"lane \d+ calls a warp's barrier in line \d+ with mask 00000003, without itself"),
        (
            "lanes_that_do_not_come",
            64,
            r"divergent barrier: thread \d+ waits at a warp's .* not all its lanes come there",
        ),
        ("too_much_local", 1, "thread 0: more than 131072 bytes of local memory"),
        ("too_much_shared", 1, "49153 bytes of static shared memory: a block has 49152"),
        ("misaligned", 1, "thread 0: address 0x[0-9a-f]+ is not aligned, in line"),
        ("out_of_bounds", 1, "thread 0: index 4 is out of an array's bounds, in line"),
        ("divided_by", 1, "thread 0: an integer is divided by 0, in line"),
        ("truth", 1, "thread 0: a bool is neither true nor false but 255, in line"),
    ],
)
def test_what_a_device_would_not_define_is_an_error(bench, name, threads, message):
    arguments = {"misaligned": (np.zeros(8, np.float32), np.zeros(4, np.float32)), "truth": (np.zeros(1, bool),)}
    numbers = {"out_of_bounds": (np.int32(4),), "divided_by": (np.int32(0),)}
    given = (*arguments.get(name, (np.zeros(64, np.int32),)), *numbers.get(name, ()))
    with pytest.raises(RuntimeError, match=f"{name}: {message}"):
        bench.run(name, 1, threads, *given)
    bench.run("nothing", 1, 1)  # and the next launch is none the worse
    bench.run("reversed", 1, 64, np.zeros(64, np.float32), np.zeros(64))


def test_a_message_names_the_line_of_the_kernels_text():
    line = next(i for i, text in enumerate(KERNELS.split("\n"), 1) if "s[3][i] = 1" in text)
    with cuda.standin(), pytest.raises(RuntimeError, match=f"in line {line}$"):
        Bench().run("out_of_bounds", 1, 1, np.zeros(1, np.int32), np.int32(-1))


def test_atomics(bench):
    sums, most, counts = bench.run(
        "atomics", 2, 96, np.array([0, -1000], np.int32), np.zeros(1, np.uint32), np.zeros(3, np.int32)
    )
    assert sums.tolist() == [2 * 192, 0]
    assert most[0] == max(i ^ 5 for i in range(96))
    assert counts.tolist() == [64, 64, 64]


def _same(found, expected):
    """The same bits, or both not a number."""
    bits = np.uint16 if found.dtype.itemsize == 2 else np.uint32
    nan = np.isnan(expected.astype(np.float32)) & np.isnan(found.astype(np.float32))
    return ((found.view(bits) == expected.view(bits)) | nan).all()


def test_every_half_and_bfloat16_as_a_float(bench):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    every = np.arange(1 << 16, dtype=np.uint16)
    zeros = np.zeros(1 << 16, np.float32)
    *_, half, bfloat16 = bench.run("from_half", 256, 256, every.view(np.float16), every, zeros, zeros)
    assert _same(half, every.view(np.float16).astype(np.float32))
    assert _same(bfloat16, every.view(ml_dtypes.bfloat16).astype(np.float32))


def test_floats_to_the_nearest_half_and_bfloat16(bench):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    bits = np.random.default_rng(0).integers(0, 1 << 32, 1 << 17, dtype=np.uint32)
    # All that lies between two neighbours in half precision or right next to that, subnormal and largest ones too.
    every = np.arange(1 << 16, dtype=np.uint16)
    halves = every.view(np.float16).astype(np.float32).view(np.uint32)
    ties = np.concatenate([halves + np.uint32(d) for d in (0, 0xFFF, 0x1000, 0x1001)])
    lows = [every.astype(np.uint32) << np.uint32(16) | np.uint32(d) for d in (0x7FFF, 0x8000, 0x8001)]
    x = np.concatenate([bits, ties, *lows]).view(np.float32)
    x = np.concatenate([x, np.zeros(-x.size % 256, np.float32)])
    _, half, bfloat16 = bench.run(
        "to_half", x.size // 256, 256, x, np.zeros(x.size, np.float16), np.zeros(x.size, np.uint16)
    )
    with np.errstate(over="ignore", invalid="ignore"):
        assert _same(half, x.astype(np.float16))
        assert _same(bfloat16.view(ml_dtypes.bfloat16), x.astype(ml_dtypes.bfloat16))


def test_functions_and_vectors(bench):
    x = np.array([3, 5, 7, 9], np.float32)
    pair = np.array([0x80000000, 6], np.uint32)
    _, y, big, _ = bench.run("functions", 1, 1, x, np.zeros(8, np.float32), np.zeros(2, np.uint64), pair)
    assert y.tolist() == [3, 5, 3, 0.5, 9, 3, 16, 35]
    assert big.tolist() == [2**64 - 2, 3]


def test_arguments_are_what_a_kernel_declares(bench):
    kernel = bench.module.get_function("scalars")
    out = bench.array(np.zeros(6))
    good = (out.data.ptr, np.int32(-2), 1 << 40, np.float32(0.25), 1.5, np.uint8(200), np.bool_(True))
    kernel((1,), (1,), good)
    assert out.get().tolist() == [-2, 1 << 40, 0.25, 1.5, 200, 1]
    for place, wrong in ((0, 1.5), (1, 3), (2, np.int32(3)), (3, 0.25), (4, np.float32(1)), (5, np.int8), (6, None)):
        with pytest.raises(TypeError, match=f"scalars: argument {place} is"):
            kernel((1,), (1,), (*good[:place], wrong, *good[place + 1 :]))
    with pytest.raises(TypeError, match="scalars has 7 parameters, and is given 6"):
        kernel((1,), (1,), good[:-1])
    with pytest.raises(RuntimeError, match=r"Misaligned.*argument 0 is 0x[0-9a-f]+4, no multiple of 8"):
        kernel((1,), (1,), (out.data.ptr + 4, *good[1:]))


@pytest.mark.parametrize("sizes", [((0,), (1,)), ((1,), (1025,)), ((1, 65536), (1,)), ((1,), (32, 33)), ((1,), (0,))])
def test_grids_that_a_device_does_not_launch(bench, sizes):
    with pytest.raises(RuntimeError, match="cudaErrorInvalidValue: nothing"):
        bench.module.get_function("nothing")(*sizes, ())


def test_pointers_are_to_device_memory(bench):
    kernel = bench.module.get_function("nothing")
    kernel((1,), (1,), ())
    host = np.zeros(4, np.int32)
    with pytest.raises(RuntimeError, match=r"IllegalAddress: kernel beyond: .* not in device memory"):
        bench.run("beyond", 1, 1, int(host.ctypes.data), np.int32(0))
    with pytest.raises(RuntimeError, match="kernel beyond wrote beyond an allocation of 16 bytes"):
        bench.run("beyond", 1, 1, host, np.int32(4))
    with pytest.raises(RuntimeError, match="kernel beyond wrote beyond an allocation of 16 bytes"):
        bench.run("beyond", 1, 1, host, np.int32(-1))


def test_writes_through_addresses_in_memory_are_found_later(bench):
    x = bench.array(np.zeros(4, np.int32))
    rows = np.array([x.data.ptr])
    bench.run("through_a_table", 1, 1, rows, np.int32(3))
    with pytest.raises(RuntimeError, match="arguments do not say so wrote beyond an allocation of 16 bytes"):
        bench.run("through_a_table", 1, 1, rows, np.int32(4))


def test_a_kernel_that_is_not_there(bench):
    with pytest.raises(RuntimeError, match=r"NOT_FOUND.* nobody"):
        bench.module.get_function("nobody")


def test_text_that_does_not_compile_is_an_error(bench):
    with pytest.raises(RuntimeError, match=r"kernels\.cu:2"):
        bench.cupy.RawModule(code='\nextern "C" __global__ void f(int* x) { no; }').get_function("f")


def test_declarations_of_shared_memory_are_poisoned_by_name():
    text = cuda.host_text("__shared__ float a[3][4], b;\n  __shared__ typename T::type s[N * (2 + 1)];")
    assert "MG_POISON(a); MG_POISON(b);" in text and "MG_POISON(s);" in text
    assert len(re.findall(r"MG_POISON\(\w", text.partition("#line")[2])) == 3


@pytest.mark.slow
def test_the_kernels_are_cuda(tmp_path):
    """What these tests run on a processor is what NVIDIA's compiler takes."""
    nvcc = shutil.which("nvcc", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/cuda/bin"]))
    if nvcc is None:
        pytest.skip("no nvcc")
    source = tmp_path / "kernels.cu"
    source.write_text(KERNELS)
    subprocess.run(
        [nvcc, "-std=c++17", "-cubin", "-arch=sm_90", source, "-o", tmp_path / "cubin"], check=True, timeout=300
    )


def test_fibers_without_the_assembly(tmp_path):
    """The way of other machines, ucontext, gives what the own switch of stacks gives."""
    main = r"""
    int main() {
      static char stacks[mg::MOST_THREADS * mg::STACK];
      float x[1000], parts[2], sum = -1; unsigned done = 0; long n = 1000;
      for (int i = 0; i < 1000; ++i) x[i] = i;
      const float* in = x; float *p = parts, *s = &sum; unsigned* d = &done; void* a[] = {&in, &p, &d, &s, &n};
      const unsigned shape[] = {2, 1, 1, 64, 1, 1, 0};
      const char* failed = mg_launch_total(shape, stacks, a);
      printf("%s %g", failed ? failed : "ok", sum);
    }
    """
    source = tmp_path / "program.cpp"
    source.write_text("#define MG_UCONTEXT 1\n" + cuda.host_text(KERNELS) + main)
    compiler = compilers.find()
    command = [*compiler.command, "-x", "c++", "-std=c++17", "-w", str(source), "-o", str(tmp_path / "program"), "-lm"]
    subprocess.run(command, check=True, timeout=120)
    said = subprocess.run([tmp_path / "program"], check=True, capture_output=True, text=True, timeout=60).stdout
    assert said == "ok 499500"


def test_checks_are_left_out_where_the_compiler_has_none(monkeypatch):
    """A compiler that refuses the checks' flags compiles without them."""
    found = compilers.find()
    refused = []

    def build(source, compiler, parts=1):
        refused.append(compiler.checks)
        raise OSError

    monkeypatch.setattr(compilers, "build", build)
    chosen = modules._compiler.__wrapped__()
    assert chosen.command == found.command and chosen.checks == () and len(refused) == 2
    assert "-O3" not in chosen.flags
