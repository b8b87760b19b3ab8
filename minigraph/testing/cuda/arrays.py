"""CuPy's arrays and memory, as far as a program uses them: shapes over addresses, and copies to the host."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np

from minigraph.testing.cuda.device import active
from minigraph.testing.cuda.memory import at, when_gone
from minigraph.testing.cuda.streams import Stream, get_current_stream

HOST_TO_HOST, HOST_TO_DEVICE, DEVICE_TO_HOST, DEVICE_TO_DEVICE, DEFAULT = range(5)


class Memory:
    """Bytes of device memory, given back when nothing refers to them."""

    def __init__(self, size: int) -> None:
        self._device = active()
        self._allocation = self._device.allocate(size)
        self.size = size
        self.ptr = self._allocation.begin
        when_gone(self, self._device.free, self._allocation)


class MemoryPointer:
    """An address in device memory, which it keeps in use."""

    def __init__(self, mem: Memory, offset: int) -> None:
        self.mem = mem
        self.ptr = mem.ptr + offset

    def __add__(self, offset: int) -> MemoryPointer:
        return MemoryPointer(self.mem, self.ptr - self.mem.ptr + offset)

    def __int__(self) -> int:
        return self.ptr


def alloc(size: int) -> MemoryPointer:
    """Return new device memory; what it holds is not said."""
    return MemoryPointer(Memory(size), 0)


class ndarray:
    """A C-contiguous array of device memory: the host sees its elements by `get` alone."""

    def __init__(
        self,
        shape: int | tuple[int, ...],
        dtype: Any = float,
        memptr: MemoryPointer | None = None,
        strides: None = None,
        order: str = "C",
    ) -> None:
        if strides is not None or order != "C":
            raise NotImplementedError("the stand-in has C-contiguous arrays")
        self.shape = (shape,) if isinstance(shape, int) else tuple(shape)
        self.dtype = np.dtype(dtype)
        self.size = math.prod(self.shape)
        self.ndim = len(self.shape)
        self.itemsize = self.dtype.itemsize
        self.nbytes = self.size * self.itemsize
        self.data = alloc(self.nbytes) if memptr is None else memptr

    def __len__(self) -> int:
        return self.shape[0]

    def reshape(self, *shape: Any) -> ndarray:
        """Return the same elements in another shape, of which one size may be −1."""
        sizes = [int(n) for n in (shape[0] if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape)]
        known = math.prod(n for n in sizes if n != -1)
        resolved = tuple(self.size // max(1, known) if n == -1 else n for n in sizes)
        if sizes.count(-1) > 1 or math.prod(resolved) != self.size:
            raise ValueError(f"cannot reshape array of size {self.size} into shape {tuple(sizes)}")
        return ndarray(resolved, self.dtype, self.data)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`.")

    def __getitem__(self, part: slice) -> ndarray:
        start, stop, step = part.indices(len(self))
        if step != 1:
            raise NotImplementedError("the stand-in has C-contiguous arrays")
        row = self.nbytes // len(self) if len(self) else 0
        return ndarray((max(0, stop - start), *self.shape[1:]), self.dtype, self.data + start * row)

    def get(
        self,
        stream: Stream | None = None,
        order: str = "C",
        out: np.ndarray[Any, Any] | None = None,
        blocking: bool = True,
    ) -> np.ndarray[Any, Any]:
        """Return a copy on the host, which is waited for."""
        device = active()
        device.forbid("copying an array to the host")
        stream = get_current_stream() if stream is None else stream
        target = np.empty(self.shape, self.dtype) if out is None else out
        _check_same(target, self)
        copy(target.ctypes.data, self.data.ptr, self.nbytes, DEVICE_TO_HOST, stream.ptr)
        if blocking:
            stream.synchronize()
        return target

    def set(self, arr: np.ndarray[Any, Any], stream: Stream | None = None) -> None:
        """Copy an array of the host's."""
        device = active()
        device.forbid("copying an array from the host")
        _check_same(arr, self)
        chosen = get_current_stream() if stream is None else stream
        copy(self.data.ptr, arr.ctypes.data, self.nbytes, HOST_TO_DEVICE, chosen.ptr)
        if stream is None:
            chosen.synchronize()


def _check_same(host: np.ndarray[Any, Any], array: ndarray) -> None:
    if not isinstance(host, np.ndarray) or host.dtype != array.dtype:
        raise TypeError(f"an array of {array.dtype} is copied to and from one of {getattr(host, 'dtype', type(host))}")
    if host.shape != array.shape or not host.flags.c_contiguous:
        raise ValueError(f"an array of shape {array.shape} is copied to and from a contiguous one, got {host.shape}")


def empty_pinned(shape: int | tuple[int, ...], dtype: Any = float, order: str = "C") -> np.ndarray[Any, Any]:
    """Return an array of the host's that can be copied from and to while the host goes on."""
    device = active()
    dtype = np.dtype(dtype)
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    allocation = device.allocate(math.prod(sizes) * dtype.itemsize, pinned=True)
    owner = at(allocation.begin, allocation.nbytes)
    when_gone(owner, device.free, allocation)
    array: np.ndarray[Any, Any] = owner.view(dtype)
    return array.reshape(sizes)


def copy(dst: int, src: int, size: int, kind: int, stream: int) -> None:
    """Copy bytes, as `cudaMemcpyAsync`: both addresses must be what `kind` says."""
    device = active()
    if kind == DEFAULT:
        kind = 2 * _on_device(src) + _on_device(dst)
        kind = DEVICE_TO_DEVICE if kind == 3 else kind
    on_device = {HOST_TO_DEVICE: (True, False), DEVICE_TO_HOST: (False, True), DEVICE_TO_DEVICE: (True, True)}.get(kind)
    if on_device is None or (size and (_on_device(dst), _on_device(src)) != on_device):
        device.refuse(f"a copy of kind {kind} from {src:#x} to {dst:#x}", "cudaErrorInvalidValue")
    host = {HOST_TO_DEVICE: src, DEVICE_TO_HOST: dst}.get(kind)
    known = host is None or device.memory.find(host) is not None
    if not known:
        device.forbid("a copy of memory that is not pinned")
    reads = [(src, size)] if known or host != src else []
    writes = [(dst, size)] if known or host != dst else []
    name = ("", "host to device", "device to host", "device to device")[kind]
    # What is not pinned is read before the call comes back.
    source = src if known or host != src else ctypes.string_at(src, size)
    device.enqueue(stream, "copy", name, lambda: ctypes.memmove(dst, source, size), reads, writes, size)
    if not known and host == dst:  # it comes back when the copy is done
        device.flush(device.order.now(stream))


def fill(ptr: int, value: int, size: int, stream: int) -> None:
    """Fill bytes, as `cudaMemsetAsync`."""
    active().enqueue(stream, "memset", str(value), lambda: ctypes.memset(ptr, value, size), (), [(ptr, size)], size)


def _on_device(address: int) -> bool:
    allocation = active().memory.find(address)
    return allocation is not None and not allocation.pinned
