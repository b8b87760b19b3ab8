"""A device that is the processor: it does at once what streams are given, keeps a log, and refuses what CUDA would.

Work goes through `Device.enqueue`: kernels, copies, and the calls of libraries. While a stream is captured its work is
written down instead, and whatever a strict device would not allow then raises a CUDARuntimeError.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from minigraph.testing.cuda.memory import Allocation, Memory, spans
from minigraph.testing.cuda.order import Clock, Order, Span

Bytes = tuple[int, int]  # an address, and how many

_NUMBERS = itertools.count(1)


class CUDARuntimeError(RuntimeError):
    """What the CUDA runtime refuses."""


@dataclass(frozen=True, slots=True)
class Record:
    """A line of the log.

    kind: kernel, copy, memset, library, graph (a launch of one), alloc, free, compile, synchronize, handle, capture.
    stream: its number; −1 where there is none. how: "run", "captured", or "replayed" by a graph.
    """

    kind: str
    name: str = ""
    stream: int = -1
    grid: tuple[int, ...] = ()
    block: tuple[int, ...] = ()
    nbytes: int = 0
    how: str = "run"


@dataclass(frozen=True)
class Work:
    """What a stream is given: how to do it, and which bytes it reads and writes."""

    record: Record
    run: Callable[[], object]
    spans: tuple[Span, ...]


@dataclass
class Capture:
    """What is written down between begin and end of a capture, of a stream and those that wait for its events."""

    origin: int
    streams: set[int] = field(default_factory=set)
    work: list[Work] = field(default_factory=list)
    order: Order = field(default_factory=Order)
    broken: str = ""  # what was refused: then there is no graph


class Device:
    """The one device there is: its memory, what was done in which order, and a log of it.

    backwards: kernels run their blocks and threads from the last to the first: a result that depends on it lacks a
    barrier. lazy: work is done when the host waits for it, no earlier: a result that depends on it lacks a wait.

    Stand-ins of libraries make handles by `make_handle`, and give work to `enqueue` on the stream that `handles` has.
    """

    def __init__(self, backwards: bool = False, lazy: bool = False) -> None:
        self.backwards = backwards
        self.lazy = lazy
        self.log: list[Record] = []
        self.launches = 0  # of kernels that ran, by a graph or not
        self.memory = Memory()
        self.order = Order()
        self.capture: Capture | None = None
        self.current: list[Any] = []  # streams, the current one last
        self.handles: dict[int, int] = {}  # of libraries → stream
        self.blas_handle: int | None = None
        self._pending: list[tuple[int, Work]] = []  # how much work the stream had been given with it

    def number(self) -> int:
        """Return a number for a stream, an event or a handle, that no other has, of another device neither."""
        return next(_NUMBERS)

    def make_handle(self, library: str) -> int:
        """Return a new handle of a library, for the default stream."""
        self.forbid(f"making a handle of {library}")
        self.log.append(Record("handle", library))
        number = self.number()
        self.handles[number] = 0
        return number

    def allocate(self, nbytes: int, pinned: bool = False) -> Allocation:
        """Return new memory."""
        self.forbid("allocating memory")
        self.log.append(Record("alloc", "pinned" if pinned else "device", nbytes=nbytes))
        return self.memory.add(nbytes, pinned)

    def free(self, allocation: Allocation) -> None:
        """Take memory back."""
        self.log.append(Record("free", "pinned" if allocation.pinned else "device", nbytes=allocation.nbytes))
        self.memory.remove(allocation)
        self.order.forget(allocation.begin, allocation.end)

    def enqueue(
        self,
        stream: int,
        kind: str,
        name: str,
        run: Callable[[], object],
        reads: Iterable[Bytes] = (),
        writes: Iterable[Bytes] = (),
        nbytes: int = 0,
        grid: tuple[int, ...] = (),
        block: tuple[int, ...] = (),
    ) -> None:
        """Give work to a stream: done now, or written down if the stream is captured. A race is a CUDARuntimeError."""
        self.give(Work(Record(kind, name, stream, grid, block, nbytes), run, spans(reads, writes)))

    def give(self, work: Work) -> None:
        """Give a stream work that is made already."""
        capture = self.capture
        if capture is None:
            self._check(work, self.order)
            if self.lazy:
                self._pending.append((self.order.count(work.record.stream), work))
            else:
                self._run(work, "run")
            return
        if work.record.stream not in capture.streams:
            record = work.record
            self.refuse(f"{record.kind} {record.name} on stream {record.stream}, which has not joined the capture")
        self._check(work, capture.order)
        self.log.append(replace(work.record, how="captured"))
        capture.work.append(work)

    def replay(self, stream: int, work: Sequence[Work]) -> None:
        """Give a stream all work of a graph."""

        def run() -> None:
            for each in work:
                self._run(each, "replayed")

        self.give(Work(Record("graph", f"{len(work)} nodes", stream), run, tuple({s for w in work for s in w.spans})))

    def finish(self, clock: Clock) -> None:
        """Let the host wait for what an event stands for."""
        self.order.finish(clock)
        self.flush(clock)

    def flush(self, clock: Clock) -> None:
        """Do what an event stands for, if it is not done yet."""
        due = [work for count, work in self._pending if count <= clock.get(work.record.stream, 0)]
        self._pending = [(n, work) for n, work in self._pending if n > clock.get(work.record.stream, 0)]
        for work in due:
            self._run(work, "run")
        self._check_guards("work whose arguments do not say so", None)

    def _check(self, work: Work, order: Order) -> None:
        self._check_memory(work)
        record = work.record
        race = order.add(record.stream, record.name or record.kind, work.spans)
        if race is not None:
            self.refuse(
                f"race: {record.kind} {record.name} on stream {record.stream} touches bytes that {race.name} on stream "
                f"{race.stream} touches, and has not waited for it ({race.span.begin:#x} to {race.span.end:#x})",
                "cudaErrorLaunchFailure",
            )

    def _check_memory(self, work: Work) -> None:
        record = work.record
        if record.kind == "graph":
            return
        for span in work.spans:
            if not self.memory.holds(span):
                self.refuse(
                    f"{record.kind} {record.name}: bytes {span.begin:#x} to {span.end:#x} are not in device memory",
                    "cudaErrorIllegalAddress",
                )

    def _run(self, work: Work, how: str) -> None:
        self._check_memory(work)
        self.log.append(replace(work.record, how=how))
        self.launches += work.record.kind == "kernel"
        work.run()
        self._check_guards(f"{work.record.kind} {work.record.name}", work.spans)

    def _check_guards(self, name: str, touched: Iterable[Span] | None) -> None:
        damaged = self.memory.damaged(touched)
        if damaged is not None:
            self.refuse(f"{name} wrote beyond an allocation of {damaged.nbytes} bytes", "cudaErrorIllegalAddress")

    def forbid(self, what: str) -> None:
        """Raise if something is captured, when `what` must not be done."""
        if self.capture is not None:
            self.refuse(what)

    def refuse(self, what: str, error: str = "cudaErrorStreamCaptureUnsupported") -> None:
        """Raise a CUDARuntimeError; a capture under way comes to nothing."""
        if self.capture is not None:
            self.capture.broken = self.capture.broken or what
            what = f"{what} (while a stream is captured)"
        raise CUDARuntimeError(f"{error}: {what}")


_active: list[Device] = []


def active() -> Device:
    """Return the device in use, or raise a RuntimeError: it is there within `standin()` only."""
    if not _active:
        raise RuntimeError("no stand-in of a CUDA device is active: enter minigraph.testing.cuda.standin()")
    return _active[-1]


def devices() -> tuple[Device, ...]:
    """Return the device in use, and those it stands before."""
    return tuple(_active)


def activate(device: Device) -> None:
    """Make a device the one in use."""
    _active.append(device)


def deactivate() -> None:
    """Go back to the device that was in use before, if any."""
    _active.pop()
