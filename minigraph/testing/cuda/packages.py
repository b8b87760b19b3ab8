"""The modules that stand in for CuPy, its bindings of cuBLAS, and cuDNN's frontend."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from minigraph.testing.cuda import arrays, blas, streams
from minigraph.testing.cuda.device import CUDARuntimeError, Device, Record, activate, active, deactivate
from minigraph.testing.cuda.modules import Kernel, RawModule

_REPLACED = ("cupy", "cupyx", "cupy_backends", "cudnn")
_FRONTEND = "minigraph.testing.cuda.frontend"
VERSION = "14.2.0"
# Of an H200: what a program may choose the sizes of grids by.
_ATTRIBUTES = {
    "MultiProcessorCount": 132, "MaxThreadsPerBlock": 1024, "MaxSharedMemoryPerBlock": 48 << 10, "WarpSize": 32,
    "L2CacheSize": 60 << 20, "MaxThreadsPerMultiProcessor": 2048,
}  # fmt: skip
_TOTAL_MEMORY = 16 << 30


class CurrentDevice:
    """The device, as `cupy.cuda.Device`."""

    compute_capability = "90"

    def __init__(self, device: int | None = None) -> None:
        self.id = device or 0

    @property
    def mem_info(self) -> tuple[int, int]:
        """Free and all bytes of memory."""
        return _TOTAL_MEMORY - active().memory.used(), _TOTAL_MEMORY

    @property
    def attributes(self) -> dict[str, int]:
        """The device's numbers by name."""
        return dict(_ATTRIBUTES)

    def synchronize(self) -> None:
        """Wait for all streams."""
        device = active()
        device.forbid("waiting for the device")
        device.log.append(Record("synchronize", "device"))
        device.finish(device.order.all())

    def use(self) -> None:
        """Make it the current device, which it is."""


class MemoryPool:
    """The device's memory, as `cupy.cuda.MemoryPool`."""

    def used_bytes(self) -> int:
        """Return how much is in use."""
        return active().memory.used()


def get_default_memory_pool() -> MemoryPool:
    """Return the pool that arrays take memory from."""
    return MemoryPool()


def _runtime() -> dict[str, Any]:
    return {
        "CUDARuntimeError": CUDARuntimeError,
        "getDeviceCount": lambda: 1,
        "getDeviceProperties": lambda device: {"name": b"a processor", "major": 9, "minor": 0, **_properties()},
        "driverGetVersion": lambda: 13000,
        "runtimeGetVersion": lambda: 13020,
        "deviceSynchronize": CurrentDevice().synchronize,
        "memcpyAsync": arrays.copy,
        "memsetAsync": arrays.fill,
        "memcpyHostToHost": arrays.HOST_TO_HOST,
        "memcpyHostToDevice": arrays.HOST_TO_DEVICE,
        "memcpyDeviceToHost": arrays.DEVICE_TO_HOST,
        "memcpyDeviceToDevice": arrays.DEVICE_TO_DEVICE,
        "memcpyDefault": arrays.DEFAULT,
        "CUDA_R_32F": blas.R_32F,
        "CUDA_R_64F": blas.R_64F,
        "CUDA_R_16F": blas.R_16F,
        "CUDA_R_16BF": blas.R_16BF,
    }


def _properties() -> dict[str, int]:
    return {
        "multiProcessorCount": _ATTRIBUTES["MultiProcessorCount"],
        "totalGlobalMem": _TOTAL_MEMORY,
        "l2CacheSize": _ATTRIBUTES["L2CacheSize"],
        "sharedMemPerBlock": _ATTRIBUTES["MaxSharedMemoryPerBlock"],
    }


def _cublas() -> dict[str, Any]:
    names = ("CUBLASError", "create", "destroy", "setStream", "getStream", "gemmEx", "gemmStridedBatchedEx")
    constants = (
        "OP_N", "OP_T", "OP_C", "GEMM_DEFAULT", "COMPUTE_32F", "COMPUTE_32F_PEDANTIC", "COMPUTE_64F",
        "COMPUTE_32F_FAST_TF32",
    )  # fmt: skip
    return {name: getattr(blas, name) for name in names} | {f"CUBLAS_{name}": getattr(blas, name) for name in constants}


def contents() -> dict[str, dict[str, Any]]:
    """Return what the stand-ins hold: module → name → object; a module comes before those inside it."""
    return {
        "cupy": {
            "__version__": VERSION,
            "ndarray": arrays.ndarray,
            "RawModule": RawModule,
            "RawKernel": Kernel,
            "get_default_memory_pool": get_default_memory_pool,
        },
        "cupy.cuda": {
            "alloc": arrays.alloc,
            "MemoryPointer": arrays.MemoryPointer,
            "Stream": streams.Stream,
            "Event": streams.Event,
            "Graph": streams.Graph,
            "Device": CurrentDevice,
            "MemoryPool": MemoryPool,
            "get_current_stream": streams.get_current_stream,
            "get_elapsed_time": streams.get_elapsed_time,
            "is_available": lambda: True,
        },
        "cupy.cuda.runtime": _runtime(),
        "cupy.cuda.device": {"get_cublas_handle": blas.get_cublas_handle, "Device": CurrentDevice},
        "cupyx": {"empty_pinned": arrays.empty_pinned},
        "cupy_backends": {},
        "cupy_backends.cuda": {},
        "cupy_backends.cuda.libs": {},
        "cupy_backends.cuda.libs.cublas": _cublas(),
    }


def _modules() -> dict[str, ModuleType]:
    modules: dict[str, ModuleType] = {}
    for name, held in contents().items():
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None, is_package=True)
        module.__path__ = []
        vars(module).update(held)
        modules[name] = module
        parent, _, last = name.rpartition(".")
        if parent:
            setattr(modules[parent], last, module)
    return modules


def _is_replaced(name: str) -> bool:
    return name.partition(".")[0] in _REPLACED


@contextmanager
def standin(frontend: bool = True, backwards: bool = False, lazy: bool = False) -> Iterator[Device]:
    """Put a device on the processor in the place of CuPy's, for a while; the device keeps a log of what it did.

    frontend: whether there is a stand-in of cuDNN's frontend as well; without, `import cudnn` fails. backwards: kernels
    run their threads from the last to the first, which shows a barrier that is missing. lazy: work is done when the
    host waits for it and no earlier, which shows a wait that is missing.

    >>> import importlib
    >>> with standin() as device:
    ...     cupy = importlib.import_module("cupy")
    ...     x = cupy.ndarray((4,), "int32", memptr=cupy.cuda.alloc(16))
    ...     cupy.cuda.runtime.memsetAsync(x.data.ptr, 1, x.nbytes, cupy.cuda.get_current_stream().ptr)
    ...     x.get()
    ...     [record.kind for record in device.log]
    array([16843009, 16843009, 16843009, 16843009], dtype=int32)
    ['alloc', 'memset', 'copy', 'synchronize']
    """
    before = {name: module for name, module in sys.modules.items() if _is_replaced(name)}
    for name in before:
        del sys.modules[name]
    device = Device(backwards, lazy)
    activate(device)
    sys.modules.update(_modules())
    known = frontend and importlib.util.find_spec(_FRONTEND) is not None
    sys.modules["cudnn"] = importlib.import_module(_FRONTEND) if known else None  # type: ignore[assignment]
    try:
        yield device
    finally:
        deactivate()
        for name in [name for name in sys.modules if _is_replaced(name)]:
            del sys.modules[name]
        sys.modules.update(before)
