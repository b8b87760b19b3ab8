"""Two levels of threads, kept apart: our workers split the batch, and BLAS gets one thread in each of them.

On small machines that beats one multi-threaded matrix product by 1.2 to 1.6 times, because copies are split as well.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from minigraph.backends.numpy.call import Array, Kernel, Steps

# Waking a sleeping worker takes some 50 µs: below this many operations a kernel stays on the calling thread.
PARALLEL_FLOPS = 4e6
# And below this many bytes, where there is one operation for each element or so.
PARALLEL_BYTES = 1 << 19


@functools.cache
def available() -> int:
    """Return the number of processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# Elements that NumPy converts, or repeats a row of, at once: wide rows need no buffer then.
BUFFER = 1024


@contextlib.contextmanager
def numpy_settings() -> Iterator[None]:
    """Run kernels inside: NumPy's warnings are off (programs check their results), and its buffers are small."""
    with np.errstate(all="ignore"):
        former = np.setbufsize(BUFFER)
        try:
            yield
        finally:
            np.setbufsize(former)


class _Job:
    """Pieces of work that workers take one by one: who is free takes the next, and a late worker finds none left."""

    def __init__(self, pieces: int, body: Callable[[int], object]) -> None:
        self.pieces = pieces
        self.body = body
        self.tickets = itertools.count()  # next() on it is atomic
        self.finished = itertools.count(1)
        self.done = threading.Lock()
        self.done.acquire()
        self.errors: list[BaseException] = []

    def take(self) -> None:
        """Do pieces until none is left; whoever finishes the last one says so."""
        while (piece := next(self.tickets)) < self.pieces:
            try:
                self.body(piece)
            except BaseException as error:  # carried to the caller, who raises it
                self.errors.append(error)
            if next(self.finished) == self.pieces:
                self.done.release()


class Team:
    """Workers that sleep until there is a job. The caller works too, so a worker that wakes late costs nothing."""

    def __init__(self, size: int) -> None:
        self._job: _Job | None = None
        self._wake = [threading.Lock() for _ in range(size - 1)]  # held while there is nothing to do
        for number, wake in enumerate(self._wake, start=1):
            wake.acquire()
            threading.Thread(target=self._work, args=(wake,), daemon=True, name=f"minigraph-{number}").start()

    def _work(self, wake: threading.Lock) -> None:
        with numpy_settings():  # they are each thread's own
            while True:
                wake.acquire()
                job = self._job
                if job is not None:
                    job.take()

    def run(self, pieces: int, body: Callable[[int], object]) -> None:
        """Run `body(i)` for each piece, on whatever thread is free, and wait for all; the first error is raised."""
        job = self._job = _Job(pieces, body)
        for wake in self._wake:
            if wake.locked():  # else the worker has yet to wake for the job before, and will find this one
                wake.release()
        job.take()
        job.done.acquire()
        self._job = None
        if job.errors:
            raise job.errors[0]


_teams: dict[tuple[int, int], Team] = {}
_in_use = threading.Lock()


def _team(size: int) -> Team:
    key = (os.getpid(), size)  # threads do not survive a fork
    if key not in _teams:
        _teams[key] = Team(size)
    return _teams[key]


def ranges(total: int, pieces: int) -> list[tuple[int, int]]:
    """Return `total` items as contiguous, nearly equal, non-empty ranges.

    >>> ranges(5, 2)
    [(0, 2), (2, 5)]
    """
    pieces = max(1, min(pieces, total))
    return [(i * total // pieces, (i + 1) * total // pieces) for i in range(pieces)]


def each(pieces: int, body: Callable[[int], object]) -> None:
    """Run `body(0)` … `body(pieces − 1)` side by side; one after the other if the workers are busy elsewhere."""
    if pieces > 1 and _in_use.acquire(blocking=False):
        try:
            _team(pieces).run(pieces, body)
        finally:
            _in_use.release()
    else:
        for index in range(pieces):
            body(index)


def workers(flops: float) -> int:
    """Return into how many shares work of so many operations is cut: the machine decides, not who runs it.

    So memory plans and the order of sums do not depend on a backend's number of threads.
    """
    return available() if flops > PARALLEL_FLOPS else 1


def spread(shares: Iterable[Sequence[Kernel]], threads: int) -> Kernel:
    """Return the kernel that runs the calls of each share in order, the shares side by side on so many threads.

    >>> done = []
    >>> spread([[lambda: done.append(1)], [lambda: done.append(2)]], threads=1)()
    >>> done
    [1, 2]
    """
    filled = [share for share in shares if share]
    parts = [Steps(itertools.chain(*filled[a:b])) for a, b in ranges(len(filled), threads)]
    return parts[0] if len(parts) == 1 else Spread(parts)


class Spread:
    """The kernel that runs several at the same time."""

    def __init__(self, parts: Sequence[Kernel]) -> None:
        self.parts = parts

    def __call__(self) -> None:
        """Run them, and wait for all."""
        side_by_side(*self.parts)


def side_by_side(*parts: Kernel) -> None:
    """Run each part on a worker of its own, and wait for all."""
    each(len(parts), lambda part: parts[part]())


# Workers share the columns of a product that has fewer rows than this for each of them.
FEWEST_ROWS = 48


def product(left: Array, right: Array, out: Array, threads: int) -> Kernel:
    """Return the kernel out = left @ right of matrices: workers share the rows, or the columns where those are few."""
    rows, columns = out.shape
    number = workers(2 * out.size * left.shape[1])
    if rows < FEWEST_ROWS * number and columns > rows:
        parts = [(left, right[:, a:b], out[:, a:b]) for a, b in ranges(columns, number)]
    else:
        parts = [(left[a:b], right, out[a:b]) for a, b in ranges(rows, number)]
    return spread(([partial(np.matmul, x, y, out=z)] for x, y, z in parts), threads)


@functools.cache
def _openblas() -> tuple[Any, Any] | None:
    """Return (get, set) of the thread count of the OpenBLAS inside NumPy's wheel, or None where there is none."""
    import pathlib  # takes milliseconds that `import minigraph` need not spend

    site = pathlib.Path(np.__file__).parent
    folders = [site.parent / "numpy.libs", site / ".libs", site / ".dylibs"]
    for path in sorted(p for folder in folders if folder.is_dir() for p in folder.glob("*openblas*")):
        try:
            library = ctypes.CDLL(str(path))
        except OSError:
            continue
        for prefix in ("scipy_openblas", "openblas"):
            for suffix in ("64_", ""):
                try:
                    return (
                        getattr(library, f"{prefix}_get_num_threads{suffix}"),
                        getattr(library, f"{prefix}_set_num_threads{suffix}"),
                    )
                except AttributeError:
                    continue
    return None


def can_limit_blas() -> bool:
    """Tell whether the number of BLAS threads can be set; if not, BLAS splits its own products and we split nothing."""
    return _openblas() is not None


_limits = 0
_previous = 1
_limit_lock = threading.Lock()


@contextlib.contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Give BLAS one thread inside, and its former number after the last of several nested or concurrent uses."""
    global _limits, _previous
    blas = _openblas()
    if blas is None:
        yield
        return
    get_threads, set_threads = blas
    with _limit_lock:
        if _limits == 0:
            _previous = get_threads()
            if _previous != 1:
                set_threads(1)
        _limits += 1
    try:
        yield
    finally:
        with _limit_lock:
            _limits -= 1
            if _limits == 0 and _previous != 1:
                set_threads(_previous)
