"""The device as the backend uses it: one stream, library handles made before anything is captured, and what is missing.

Only here CuPy and cuDNN's frontend are imported; all other files get a `Gpu`.
"""

from __future__ import annotations

import importlib
import weakref
from functools import cached_property
from typing import Any

import numpy as np

from minigraph.backends.dtypes import array_dtype
from minigraph.errors import ArgumentError, ProgramError

PRECISIONS = ("float32", "tf32")
# cudaMemcpyKind
_COPIES = {"host to device": 1, "device to host": 2, "device to device": 3}


def missing() -> str | None:
    """Return in one line what the GPU backend lacks here: a package, a driver, a device; None if it lacks nothing."""
    try:
        cupy = importlib.import_module("cupy")
    except ImportError:
        return "CuPy is not installed: pip install minigraph[cuda13], or minigraph[cuda12] for a driver of CUDA 12"
    try:
        devices = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # CuPy's own classes of errors differ from version to version
        name = str(error).partition(":")[0]
        if "InsufficientDriver" in name:
            return f"no NVIDIA driver that CuPy {cupy.__version__} can use was found ({name})"
        return f"CuPy {cupy.__version__} finds no CUDA device ({name})"
    return None if devices else f"CuPy {cupy.__version__} finds no CUDA device"


class Gpu:
    """One device with its stream and handles.

    precision: "float32" computes products and convolutions in float32 as it stands; "tf32" lets them round operands to
    10 bits of fraction, for cuDNN and cuBLAS alike. deterministic: only algorithms that give the same bits each time.
    workspace: the most bytes that a convolution's algorithm may ask for.
    """

    def __init__(
        self, precision: str = "float32", deterministic: bool = False, workspace: int = 1 << 30, tune: bool = True
    ) -> None:
        if precision not in PRECISIONS:
            raise ArgumentError("bad precision", expected=" or ".join(map(repr, PRECISIONS)), got=repr(precision))
        lacking = missing()
        if lacking is not None:
            raise ProgramError(f"the cupy backend cannot run: {lacking}", where="")
        self.precision = precision
        self.deterministic = deterministic
        self.workspace = workspace
        self.tune = tune
        self.cupy: Any = importlib.import_module("cupy")
        self.stream: Any = self.cupy.cuda.Stream(non_blocking=True)

    @property
    def runtime(self) -> Any:
        """The CUDA runtime's functions."""
        return self.cupy.cuda.runtime

    @cached_property
    def name(self) -> str:
        """The device's name."""
        name = self.runtime.getDeviceProperties(self.cupy.cuda.Device().id)["name"]
        return name.decode() if isinstance(name, bytes) else str(name)

    @cached_property
    def cudnn(self) -> Any | None:
        """cuDNN's frontend, or None where it is not installed: then convolutions are matrix products."""
        try:
            return importlib.import_module("cudnn")
        except (ImportError, OSError):  # the package, or the library that it loads
            return None

    @cached_property
    def cudnn_handle(self) -> Any:
        """cuDNN's handle, bound to the stream."""
        assert self.cudnn is not None
        handle = self.cudnn.create_handle()
        self.cudnn.set_stream(handle=handle, stream=self.stream.ptr)
        return handle

    @cached_property
    def cublas(self) -> Any:
        """CuPy's bindings of cuBLAS; asked of their package, which loads the library first."""
        return importlib.import_module("cupy_backends.cuda.libs").cublas

    @cached_property
    def cublas_handle(self) -> int:
        """A cuBLAS handle bound to the stream: CuPy's own is everybody's, and on one stream at a time."""
        handle: int = self.cublas.create()
        self.cublas.setStream(handle, self.stream.ptr)
        weakref.finalize(self, self.cublas.destroy, handle).atexit = False
        return handle

    def allocate(self, nbytes: int) -> Any:
        """Return zeroed bytes of device memory, as an array."""
        memory = self.cupy.cuda.alloc(max(1, nbytes))
        array = self.cupy.ndarray((nbytes,), "uint8", memptr=memory)
        if nbytes:
            self.runtime.memsetAsync(memory.ptr, 0, nbytes, self.stream.ptr)
        return array

    def view(self, memory: Any, offset: int, shape: tuple[int, ...], dtype: str) -> Any:
        """Return an array that lies in `memory` at a byte offset."""
        return self.cupy.ndarray(shape, array_dtype(dtype), memptr=memory.data + offset)

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
        """Return memory of the host that the device reads and writes while the processor does other things."""
        array: np.ndarray[Any, Any] = importlib.import_module("cupyx").empty_pinned(shape, dtype)
        return array

    def copy(self, target: int, source: int, nbytes: int, kind: str, stream: Any = None) -> None:
        """Enqueue a copy between addresses; kind: "host to device", "device to host" or "device to device"."""
        if nbytes:
            self.runtime.memcpyAsync(target, source, nbytes, _COPIES[kind], (stream or self.stream).ptr)

    def from_host(self, values: np.ndarray[Any, Any]) -> Any:
        """Return device memory with a copy of an array's bytes; waits for it."""
        memory = self.allocate(values.nbytes)
        held = self.pinned((values.nbytes,), np.uint8)
        held[:] = np.ascontiguousarray(values).view(np.uint8).reshape(-1)
        self.copy(int(memory.data.ptr), held.ctypes.data, values.nbytes, "host to device")
        self.stream.synchronize()
        return memory

    def seconds(self, work: Any, repeats: int = 3) -> float:
        """Return the least seconds that enqueued work takes on the device."""
        begin, end = self.cupy.cuda.Event(), self.cupy.cuda.Event()
        best = float("inf")
        work()
        for _ in range(repeats):
            begin.record(self.stream)
            work()
            end.record(self.stream)
            end.synchronize()
            best = min(best, self.cupy.cuda.get_elapsed_time(begin, end) / 1e3)
        return best
