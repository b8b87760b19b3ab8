"""The memory of a device that is the host's: what is allocated, between guards that show who writes beyond it."""

from __future__ import annotations

import bisect
import ctypes
import weakref
from collections.abc import Iterable
from typing import Any

import numpy as np

from minigraph.testing.cuda.order import Span

ALIGNMENT = 512  # as device memory is
_GUARD = 256  # bytes before and behind an allocation
_INTACT = bytes([0xA5]) * _GUARD  # what guards hold
_UNWRITTEN = 0xFF  # what memory holds that nothing was written to: NaN as a number


class Allocation:
    """Bytes from `begin` on. pinned: they are the host's, for copies."""

    def __init__(self, nbytes: int, pinned: bool) -> None:
        self.nbytes = nbytes
        self.pinned = pinned
        raw = np.full(nbytes + 2 * _GUARD + ALIGNMENT, _INTACT[0], np.uint8)
        start = -(raw.ctypes.data + _GUARD) % ALIGNMENT + _GUARD
        self.bytes = raw[start : start + nbytes]
        self.bytes[:] = _UNWRITTEN
        self.begin: int = raw.ctypes.data + start
        self.end = self.begin + nbytes
        self._guards = (raw[start - _GUARD : start], raw[start + nbytes : start + nbytes + _GUARD])

    def intact(self) -> bool:
        """Tell whether nothing was written right before or behind it."""
        return all(guard.tobytes() == _INTACT for guard in self._guards)


class Memory:
    """All allocations that are in use, by address."""

    def __init__(self) -> None:
        self._begins: list[int] = []
        self._allocations: dict[int, Allocation] = {}

    def add(self, nbytes: int, pinned: bool = False) -> Allocation:
        """Return new bytes, that hold nothing of use."""
        allocation = Allocation(nbytes, pinned)
        bisect.insort(self._begins, allocation.begin)
        self._allocations[allocation.begin] = allocation
        return allocation

    def remove(self, allocation: Allocation) -> None:
        """Give bytes back."""
        self._begins.remove(allocation.begin)
        del self._allocations[allocation.begin]

    def find(self, address: int) -> Allocation | None:
        """Return what an address points into, or right behind; None if it is no device's or pinned memory."""
        i = bisect.bisect_right(self._begins, address) - 1
        allocation = self._allocations[self._begins[i]] if i >= 0 else None
        return allocation if allocation is not None and address <= allocation.end else None

    def holds(self, span: Span) -> bool:
        """Tell whether bytes are all in one allocation."""
        allocation = self.find(span.begin)
        return allocation is not None and span.end <= max(allocation.end, span.begin + 1)

    def damaged(self, touched: Iterable[Span] | None = None) -> Allocation | None:
        """Return an allocation that something was written beyond: of those that work is given, or of all."""
        begins = self._begins if touched is None else {span.begin for span in touched}
        return next((a for a in map(self.find, begins) if a is not None and not a.intact()), None)

    def used(self) -> int:
        """Return the bytes of device memory in use."""
        return sum(a.nbytes for a in self._allocations.values() if not a.pinned)


def at(address: int, nbytes: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the bytes at an address, as an array over them.

    >>> a = np.arange(3, dtype=np.uint8)
    >>> at(a.ctypes.data + 1, 2)
    array([1, 2], dtype=uint8)
    """
    found: np.ndarray[Any, np.dtype[np.uint8]] = np.ctypeslib.as_array((ctypes.c_ubyte * nbytes).from_address(address))
    return found


def spans(reads: Iterable[tuple[int, int]], writes: Iterable[tuple[int, int]]) -> tuple[Span, ...]:
    """Return what work touches, given as pairs of an address and bytes.

    >>> spans([(0, 8)], [(64, 4)])
    (Span(begin=0, end=8, written=False), Span(begin=64, end=68, written=True))
    """
    read = [Span(address, address + nbytes, False) for address, nbytes in reads if nbytes]
    return (*read, *(Span(address, address + nbytes, True) for address, nbytes in writes if nbytes))


def when_gone(owner: object, call: Any, *args: object) -> None:
    """Call when an object is no more, but not at the end of the process."""
    weakref.finalize(owner, call, *args).atexit = False
