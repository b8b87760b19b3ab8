"""Between host and device: inputs through pinned memory on a stream of their own, two deep; results read back later.

While one step computes, the next one's inputs are on their way. Copies read and write pinned memory, which the
device's copy engines reach by themselves. Variables and data sets, which come once, go in pieces through two buffers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from minigraph.backends.cupy.gpu import Gpu
from minigraph.errors import ProgramError

Array = Any
HostArray = np.ndarray[Any, Any]

# Bytes of each of the two buffers.
_PIECE = 8 << 20

# What a kernel may leave in the status word, as the kernels' headers number it.
_FAILURES = {
    1: ("an index is out of range", 'gather(…, mode="clip") takes the nearest one that there is'),
    2: ("an integer has no integer power with a negative exponent", "cast to a float first"),
}


@dataclass
class _Slot:
    """One of two ways an input takes: pinned memory, device memory, and what has happened to them so far."""

    pinned: HostArray
    staged: Array
    arrived: Any  # event: the copy from pinned memory is done
    consumed: Any  # event: the copy to the program's input is done


@dataclass
class _Buffer:
    """Pinned memory, and the event that it has been read."""

    pinned: HostArray
    read: Any


class Staging:
    """Copies of one backend."""

    def __init__(self, gpu: Gpu, status: Array) -> None:
        self.gpu = gpu
        self._status = status
        self._stream = gpu.cupy.cuda.Stream(non_blocking=True)
        self._under_way: deque[tuple[Any, list[HostArray]]] = deque()  # copies to the host, oldest first
        self._arenas: dict[int, int] = {}  # addresses: first → behind the last
        self._slots: dict[tuple[int, int], list[_Slot]] = {}  # of a target's address and size; the next one first

    def expect(self, arena: Array) -> None:
        """Take what is copied into an arena for an input, which comes again with every step."""
        start = int(arena.data.ptr)
        self._arenas[start] = start + int(arena.nbytes)

    def upload(self, target: Array, value: HostArray) -> None:
        """Enqueue a copy of `value`, which the caller may change at once, into a device array."""
        key = (int(target.data.ptr), int(target.nbytes))
        if not any(start <= key[0] < end for start, end in self._arenas.items()):
            self._in_pieces(target, value)
            return
        gpu = self.gpu
        slots = self._slots_of(key)
        slot = slots.pop(0)
        slots.append(slot)
        slot.arrived.synchronize()  # two steps ago: long done, unless the host is far ahead
        np.copyto(slot.pinned.view(target.dtype).reshape(target.shape), value, casting="same_kind")
        self._stream.wait_event(slot.consumed)
        gpu.copy(int(slot.staged.data.ptr), slot.pinned.ctypes.data, target.nbytes, "host to device", self._stream)
        slot.arrived.record(self._stream)
        gpu.stream.wait_event(slot.arrived)
        gpu.copy(int(target.data.ptr), int(slot.staged.data.ptr), target.nbytes, "device to device")
        slot.consumed.record(gpu.stream)

    def _in_pieces(self, target: Array, value: HostArray) -> None:
        """Enqueue the copy on the program's stream, from one buffer and the other."""
        whole = value.astype(target.dtype, order="C", casting="same_kind", copy=False)
        source, address = whole.reshape(-1).view(np.uint8), int(target.data.ptr)
        for start in range(0, source.size, _PIECE):
            piece = source[start : start + _PIECE]
            buffer = self._buffers.popleft()
            self._buffers.append(buffer)
            buffer.read.synchronize()
            buffer.pinned[: piece.size] = piece
            self.gpu.copy(address + start, buffer.pinned.ctypes.data, piece.size, "host to device")
            buffer.read.record(self.gpu.stream)

    @cached_property
    def _buffers(self) -> deque[_Buffer]:
        found = deque(_Buffer(self.gpu.pinned((_PIECE,), np.uint8), self.gpu.cupy.cuda.Event()) for _ in range(2))
        for buffer in found:
            buffer.read.record(self.gpu.stream)
        return found

    def _slots_of(self, key: tuple[int, int]) -> list[_Slot]:
        if key not in self._slots:
            self._slots[key] = [self._slot(key[1]) for _ in range(2)]
        return self._slots[key]

    def _slot(self, nbytes: int) -> _Slot:
        event = self.gpu.cupy.cuda.Event
        slot = _Slot(self.gpu.pinned((nbytes,), np.uint8), self.gpu.allocate(nbytes), event(), event())
        slot.arrived.record(self._stream)
        slot.consumed.record(self.gpu.stream)  # behind the clearing of the memory
        return slot

    def download(self, arrays: Sequence[Array]) -> Callable[[], list[HostArray]]:
        """Enqueue copies to the host; the returned callable waits for them, and raises what the device met."""
        gpu = self.gpu
        held = [gpu.pinned(tuple(a.shape), a.dtype) for a in (*arrays, self._status)]
        for source, target in zip((*arrays, self._status), held, strict=True):
            gpu.copy(target.ctypes.data, int(source.data.ptr), int(source.nbytes), "device to host")
        done = gpu.cupy.cuda.Event(disable_timing=True)
        done.record(gpu.stream)
        # Nobody may want the result: its memory is not given to others before the device has written to it.
        while self._under_way and self._under_way[0][0].done:
            self._under_way.popleft()
        self._under_way.append((done, held))

        def result() -> list[HostArray]:
            try:
                done.synchronize()
            except RuntimeError as error:  # CUDA's errors come out of whatever waits next
                raise ProgramError(f"the device met an error: {error}", where="") from error
            code = int(held[-1].view(np.int32)[0])
            if code:
                self._refuse(code)
            return [np.array(a) for a in held[:-1]]

        return result

    def _refuse(self, code: int) -> None:
        """Clear the status word and raise a ProgramError for what a kernel has found wrong."""
        self.gpu.runtime.memsetAsync(int(self._status.data.ptr), 0, int(self._status.nbytes), self.gpu.stream.ptr)
        summary, hint = _FAILURES[code]
        raise ProgramError(summary, hint=hint, where="")
