"""A plan's steps bound to device memory: enqueued one by one at first, then captured into one CUDA graph."""

from __future__ import annotations

import contextlib
import functools
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from minigraph.backends.base import Bound, Kernel
from minigraph.backends.cupy.gpu import Gpu
from minigraph.backends.cupy.source import Source
from minigraph.backends.cupy.steps import Launch, StepCode
from minigraph.ir.node import Node

Array = Any
Range: TypeAlias = tuple[int, int]  # addresses: first, and behind the last

# Calls before the capture: kernels are loaded and libraries set up by the first, and the second shows that they are.
WARM_UP = 2
OPTIONS = ("-std=c++17",)


@dataclass
class _Work:
    """What is enqueued at once: a library's call, or one kernel over the arrays of one launch, or of several."""

    step: int
    reads: list[Range]
    writes: list[Range]
    call: Kernel | None = None
    launches: list[tuple[Launch, list[int]]] = field(default_factory=list)
    kernel: str = ""

    def waits_for(self, other: _Work) -> bool:
        """Tell whether the order of the two matters."""
        mine, its = [*self.reads, *self.writes], [*other.reads, *other.writes]
        return _overlap(self.writes, its) or _overlap(mine, other.writes)


def _overlap(some: Sequence[Range], others: Sequence[Range]) -> bool:
    return any(a[0] < b[1] and b[0] < a[1] for a in some for b in others)


class Program:
    """The code of one plan on one device."""

    def __init__(self, steps: Sequence[Bound], code_of: Callable[[Node], StepCode], gpu: Gpu, status: Array) -> None:
        self.gpu = gpu
        self.steps = steps  # keeps the arrays behind the addresses alive
        self._status = status
        self._calls = 0
        self._completed = 0
        self._place = 0  # in the queue
        self._graphs: dict[int, Any] = {}  # how many runs of all steps → their graph
        self._kept: list[Array] = []
        source = Source()
        separate = [work for i, step in enumerate(steps) for work in self._work(i, step, code_of(step.node), source)]
        at_once = [work for work in separate if any(launch.once for launch, _ in work.launches)]
        separate = [work for work in separate if work not in at_once]
        joined = _joined(separate)
        for work in joined:
            if len(work.launches) > 1:
                work.kernel = source.several(work.launches[0][0])
        self.source = str(source)
        self._module = gpu.cupy.RawModule(code=self.source, options=OPTIONS) if source.kernels else None
        self._separate = separate
        self._queue = [(work.step, self._enqueue(work)) for work in joined]
        with gpu.stream:
            for work in at_once:
                self._enqueue(work)()

    # --- from steps to what is enqueued -----------------------------------------------------------------------------

    def _work(self, index: int, step: Bound, code: StepCode, source: Source) -> list[_Work]:
        prepared = self.gpu.allocate(code.prepared) if code.prepared else step.workspace[:0]
        self._kept.append(prepared)
        arrays = [*_flat(step.inputs), *_flat([step.output]), prepared, self._status, step.workspace]
        addresses = [int(a.data.ptr) for a in arrays]
        ranges = [(start, start + int(a.nbytes)) for start, a in zip(addresses, arrays, strict=True)]
        operands = len(_flat(step.inputs))
        found = []
        for action in code.actions:
            if isinstance(action, Launch):
                name = source.add(action)
                pointers = [addresses[p.place] + p.offset for p in action.parameters]
                written = [ranges[p.place] for p in action.parameters if p.place >= operands or p.place == -1]
                read = [ranges[p.place] for p in action.parameters if 0 <= p.place < operands]
                found.append(_Work(index, read, written, None, [(action, pointers)], name))
            else:
                call = action.bind(self.gpu, addresses)
                found.append(_Work(index, ranges[:operands], ranges[operands:], call))
        return found

    def _enqueue(self, work: _Work) -> Kernel:
        if work.call is not None:
            return work.call
        assert self._module is not None
        kernel = self._module.get_function(work.kernel)
        launch, pointers = work.launches[0]
        if len(work.launches) == 1:
            arguments: tuple[Any, ...] = tuple(pointers)
            if launch.elements is not None:
                arguments = (*arguments, np.int64(launch.elements))
            return functools.partial(kernel, (launch.blocks,), (launch.threads,), arguments)
        rows, owners = _table(work.launches)
        table, owner = self._uploaded(rows), self._uploaded(owners)
        return functools.partial(kernel, (len(owners),), (launch.threads,), (int(table.data.ptr), int(owner.data.ptr)))

    def _uploaded(self, values: np.ndarray[Any, Any]) -> Array:
        array = self.gpu.from_host(values)
        self._kept.append(array)
        return array

    # --- running ----------------------------------------------------------------------------------------------------

    def __call__(self) -> None:
        """Enqueue all steps."""
        self.repeat(1)

    def repeat(self, times: int) -> None:
        """Enqueue all steps so many times: as one graph, once they have been enqueued one by one."""
        while times and self._calls < WARM_UP:
            self._run_all()
            times -= 1
        if times:
            self._graph(times).launch(self.gpu.stream)
            self._completed += times

    def _run_all(self) -> None:
        """Enqueue the steps one by one, all of them: an interrupt in between comes after the last."""
        with self.gpu.stream, _interrupts_later():
            self._enqueue_all()
        self._calls += 1
        self._completed += 1

    def _enqueue_all(self) -> None:
        for place, (_, enqueue) in enumerate(self._queue):
            self._place = place
            enqueue()

    def _graph(self, times: int) -> Any:
        if times not in self._graphs:
            stream = self.gpu.stream
            with stream:
                stream.begin_capture()
                try:
                    for _ in range(times):
                        self._enqueue_all()
                finally:
                    graph = stream.end_capture()
            graph.upload(stream)
            self._graphs[times] = graph
        return self._graphs[times]

    def step(self, index: int) -> Kernel:
        """Return one step alone, waited for: what a profile times."""
        enqueues = [self._enqueue(work) for work in self._separate if work.step == index]

        def run() -> None:
            with self.gpu.stream:
                for enqueue in enqueues:
                    enqueue()
            self.gpu.stream.synchronize()

        return run

    def completed(self) -> int:
        """Return how many runs have been enqueued to their end."""
        return self._completed

    def failed(self, error: BaseException) -> int:
        """Return the step that was being enqueued."""
        return self._queue[self._place][0]


@contextlib.contextmanager
def _interrupts_later() -> Iterator[None]:
    """Hold Ctrl-C back: what is half enqueued cannot be taken back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[tuple[int, Any]] = []
    handler = signal.signal(signal.SIGINT, lambda *signalled: received.append(signalled))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if received and callable(handler):
        handler(*received[0])


def _flat(values: Sequence[Any]) -> list[Any]:
    """Return arrays, those of tuples one by one."""
    return [a for v in values for a in (v if isinstance(v, tuple) else (v,))]


def _joined(works: Sequence[_Work]) -> list[_Work]:
    """Return the works with loops of one text as one, where nothing in between has to come before the later ones."""
    found: list[_Work] = []
    for work in works:
        earlier = _joinable(work, found)
        if earlier is None:
            found.append(_Work(work.step, [*work.reads], [*work.writes], work.call, [*work.launches], work.kernel))
            continue
        earlier.launches += work.launches
        earlier.reads += work.reads
        earlier.writes += work.writes
    return found


# How far back a loop looks for one to join.
_BACK = 64


def _joinable(work: _Work, found: Sequence[_Work]) -> _Work | None:
    if not work.launches or work.launches[0][0].elements is None:
        return None
    for earlier in found[: -_BACK - 1 : -1]:
        if work.waits_for(earlier):
            return None
        if earlier.kernel == work.kernel:
            return earlier
    return None


def _table(launches: Sequence[tuple[Launch, list[int]]]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the rows of a kernel over several arrays, and for each block the number of its row."""
    rows: list[list[int | None]] = []
    owners: list[int] = []
    for number, (launch, pointers) in enumerate(launches):
        rows.append([*pointers, launch.elements, len(owners), launch.blocks])
        owners += [number] * launch.blocks
    return np.array(rows, np.uint64), np.array(owners, np.int32)
