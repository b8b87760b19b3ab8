"""CuPy's RawModule: CUDA text compiled by the machine's C++ compiler, and its kernels run thread by thread."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import mmap
import pathlib
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigraph.backends.c import compilers
from minigraph.errors import ProgramError
from minigraph.testing.cuda.arrays import ndarray
from minigraph.testing.cuda.device import CUDARuntimeError, Record, active
from minigraph.testing.cuda.streams import get_current_stream

HEADERS = pathlib.Path(__file__).parent
_KERNEL = re.compile(r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\(')
_INCLUDE = re.compile(r'^#include "(\w+\.h)"$', re.MULTILINE)
_CUDA_INCLUDE = re.compile(r"^[ \t]*#[ \t]*include[ \t]*<cuda_\w+\.h>", re.MULTILINE)
_SHARED = re.compile(r"(?<!extern )(\b__shared__\b[^;=]*;)")
_DECLARED = re.compile(r"(\w+)\s*(?:\[[^;]*)?$")
# One grid runs at a time: the threads of a block are the module's own.
_LOCK = threading.Lock()
_MOST_THREADS, _MOST_BLOCKS = 1024, (2**31 - 1, 65535, 65535)
_STACK = 1 << 17  # bytes of a thread's stack, as block.h has it
# What compiled kernels look out for: the shim reports it. The library that a compiler would link for it is not needed.
_CHECKS = "-fsanitize=alignment,bounds,integer-divide-by-zero,bool"
_PROBE = 'extern "C" __global__ void probe(int* y) { int a[4] = {}; y[0] = a[y[1]] / y[2]; }'


@dataclass(frozen=True)
class _Quick(compilers.Compiler):
    """A compiler that is asked for little: kernels of tests run over few elements, and compiling takes longer.

    A training program's kernels compile in a third of the time that -O1 takes, and run half as fast.
    """

    checks: tuple[str, ...]

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags of other programs, but for how hard to optimise."""
        kept = [flag for flag in super().flags if flag != "-O3"]
        return (*kept, "-O0", "-fno-strict-aliasing", *self.checks)


@functools.cache
def _compiler() -> _Quick | None:
    """Return the machine's compiler, with what checks it can make; None if there is none."""
    found = compilers.find()
    if found is None:
        return None
    for checks in ((_CHECKS, "-static-libubsan"), (_CHECKS,)):
        compiler = _Quick(found.command, found.version, checks)
        with contextlib.suppress(ProgramError, OSError):  # it does not know them, or lacks a library
            compilers.build(host_text(_PROBE), compiler)
            return compiler
    return _Quick(found.command, found.version, ())


@functools.cache
def _stacks() -> tuple[mmap.mmap, int]:
    """Return memory for the stacks of a block's threads, and its address; pages are taken when they are touched."""
    memory = mmap.mmap(-1, (_MOST_THREADS + 1) * _STACK, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return memory, ctypes.addressof(ctypes.c_char.from_buffer(memory))


def available() -> bool:
    """Tell whether there is a C++ compiler, without which no kernel runs."""
    return _compiler() is not None


@functools.cache
def _shim() -> str:
    """Return the shim with all that it includes, what is needed first."""
    done: set[str] = set()

    def text_of(name: str) -> str:
        if name in done:
            return ""
        done.add(name)
        text = (HEADERS / name).read_text().replace("#pragma once\n", "")
        return _INCLUDE.sub(lambda match: text_of(match[1]), text)

    return text_of("shim.h")


def host_text(code: str) -> str:
    """Return CUDA text as C++ that a processor runs: the shim before it, and an entry for each kernel behind it.

    >>> print(host_text('extern "C" __global__ void f(int* y) { __shared__ int s[4]; }').partition("#line")[2])
     1 "kernels.cu"
    extern "C" __global__ void f(int* y) { __shared__ int s[4]; MG_POISON(s); }
    MG_KERNEL(f)
    <BLANKLINE>
    """
    poisoned = _SHARED.sub(_with_poison, _CUDA_INCLUDE.sub("", code))
    entries = "".join(f"MG_KERNEL({name})\n" for name in _KERNEL.findall(code))
    return f'{_shim()}\n#line 1 "kernels.cu"\n{poisoned}\n{entries}'


def _with_poison(match: re.Match[str]) -> str:
    """Return a declaration of shared memory, followed by what fills it before a block uses it."""
    declaration = match[1]
    names = [_DECLARED.search(part.strip()) for part in re.split(r",(?![^\[<(]*[\]>)])", declaration[:-1])]
    return " ".join([declaration, *(f"MG_POISON({name[1]});" for name in names if name)])


@dataclass(frozen=True)
class _Parameter:
    """How a kernel declares a parameter: r, w (a pointer to what is read, or written), i, f; bytes; alignment."""

    kind: str
    nbytes: int
    alignment: int

    def pack(self, value: Any, kernel: str, place: int) -> np.ndarray[Any, Any]:
        """Return an argument as the bytes that the kernel takes it from."""
        if isinstance(value, ndarray):
            value = value.data.ptr
        packed = np.array([value], np.int64) if type(value) is int else np.array([value])
        given = {"i": "i", "u": "i", "b": "i", "f": "f"}.get(packed.dtype.kind, "?")
        wanted = "i" if self.kind in "rw" else self.kind
        if given != wanted or packed.itemsize != self.nbytes:
            raise TypeError(
                f"{kernel}: argument {place} is {type(value).__name__}, its parameter a"
                f" {'pointer' if self.kind in 'rw' else 'number'} of {self.nbytes} bytes ({self.kind})"
            )
        if self.kind in "rw" and value % self.alignment:
            raise CUDARuntimeError(
                f"cudaErrorMisalignedAddress: {kernel}: argument {place} is {value:#x}, no multiple of {self.alignment}"
            )
        return packed


class Kernel:
    """A kernel that can be launched, as `cupy.RawKernel`.

    A processor's code has none of a device's registers and local memory: those attributes are 0.
    """

    num_regs = 0
    local_size_bytes = 0
    max_threads_per_block = _MOST_THREADS

    def __init__(self, library: ctypes.CDLL, name: str) -> None:
        self.name = name
        self._launch = library[f"mg_launch_{name}"]
        self._launch.restype = ctypes.c_char_p
        signature = library[f"mg_signature_{name}"]
        signature.restype = ctypes.c_char_p
        text = signature().decode()
        self._parameters = [
            _Parameter(text[i], ord(text[i + 1]) - 48, ord(text[i + 2]) - 48) for i in range(0, len(text), 3)
        ]

    def __call__(self, grid: Sequence[int], block: Sequence[int], args: Sequence[Any], *, shared_mem: int = 0) -> None:
        """Launch on the current stream."""
        if shared_mem:
            raise NotImplementedError("the stand-in has static shared memory only")
        if len(args) != len(self._parameters):
            raise TypeError(f"{self.name} has {len(self._parameters)} parameters, and is given {len(args)} arguments")
        sizes = _three(grid), _three(block)
        if any(not 0 < n <= most for n, most in zip(sizes[0], _MOST_BLOCKS, strict=True)) or not (
            0 < math.prod(sizes[1]) <= _MOST_THREADS
        ):
            raise CUDARuntimeError(f"cudaErrorInvalidValue: {self.name}: grid {tuple(grid)}, block {tuple(block)}")
        packed = [p.pack(value, self.name, i) for i, (p, value) in enumerate(zip(self._parameters, args, strict=True))]
        pointers = [(p.kind, int(v[0])) for p, v in zip(self._parameters, packed, strict=True) if p.kind in "rw"]
        active().enqueue(
            get_current_stream().ptr,
            "kernel",
            self.name,
            functools.partial(self._run, sizes, packed),
            [(address, 1) for kind, address in pointers if kind == "r" and address],
            [(address, 1) for kind, address in pointers if kind == "w" and address],
            grid=tuple(grid),
            block=tuple(block),
        )

    def _run(self, sizes: tuple[tuple[int, ...], tuple[int, ...]], packed: list[np.ndarray[Any, Any]]) -> None:
        shape = (ctypes.c_uint * 7)(*sizes[0], *sizes[1], active().backwards)
        addresses = (ctypes.c_void_p * len(packed))(*(value.ctypes.data for value in packed))
        with _LOCK:
            failure = self._launch(shape, ctypes.c_void_p(_stacks()[1]), addresses)
        if failure is not None:
            raise CUDARuntimeError(f"cudaErrorLaunchFailure: {self.name}: {failure.decode()}")


def _three(sizes: Sequence[int]) -> tuple[int, ...]:
    return (*map(int, sizes), 1, 1, 1)[:3]


class RawModule:
    """CUDA text, compiled when its first kernel is asked for, as `cupy.RawModule`."""

    def __init__(self, code: str | None = None, *, options: tuple[str, ...] = (), backend: str = "nvrtc") -> None:
        if code is None or backend not in ("nvrtc", "nvcc"):
            raise ValueError("a module is made of code, by nvrtc or nvcc")
        if not isinstance(options, tuple):
            raise TypeError("options are a tuple")
        self._code = code
        self._defines = [option[2:].replace("=", " ", 1) for option in options if option.startswith("-D")]
        self._library: ctypes.CDLL | None = None
        self._kernels: dict[str, Kernel] = {}

    def compile(self, log_stream: Any = None) -> None:
        """Compile the text, unless that is done."""
        if self._library is not None:
            return
        device, compiler = active(), _compiler()
        device.forbid("compiling a module")
        if compiler is None:
            raise ProgramError("kernels cannot run on the processor: there is no C++ compiler", where="")
        defines = "".join(f"#define {define}\n" for define in self._defines)
        self._library = compilers.build(defines + host_text(self._code), compiler)
        device.log.append(Record("compile", "", nbytes=len(self._code)))

    def get_function(self, name: str) -> Kernel:
        """Return a kernel by its name."""
        self.compile()
        assert self._library is not None
        if name not in self._kernels:
            active().forbid("loading a kernel")
            if not hasattr(self._library, f"mg_launch_{name}"):
                raise CUDARuntimeError(f"CUDA_ERROR_NOT_FOUND: the module has no kernel {name}")
            self._kernels[name] = Kernel(self._library, name)
        return self._kernels[name]
