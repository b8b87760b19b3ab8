"""What this machine can do: its peak FLOP/s and its bandwidths, measured once and kept in the user's cache folder.

From them comes a floor under the time of any step, the roofline of Williams, Waterman, Patterson 2009: it cannot be
faster than its operations at the peak, nor than its bytes at the bandwidth of the memory that they fit into.
"""

from __future__ import annotations

import json
import math
import pathlib
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from minigraph.backends.numpy import threads as workers
from minigraph.files import cache_folder, write_atomically
from minigraph.ir.node import Node
from minigraph.ir.types import known

_SIDE = 1024  # of the square matrices that are multiplied
# The bytes that a thread's arrays take: in the L2 and the L3 of common machines. The last set fits neither.
_CACHED = (3 << 18, 3 << 20)
_LARGE, _LARGE_EACH = 3 << 26, 3 << 22  # in all, and for each of many threads
# Each quantity is the best of several tries, which together take so many seconds.
_SECONDS = 0.4


@dataclass(frozen=True)
class Machine:
    """A processor's measured limits on so many threads.

    flops: floating-point operations a second (float32). bandwidths: (bytes, bytes a second) for sets of arrays of
    growing size, the last of which fits no cache.
    """

    cpu: str
    threads: int
    flops: float
    bandwidths: tuple[tuple[int, float], ...]

    @property
    def bandwidth(self) -> float:
        """Bytes a second from and to main memory."""
        return self.bandwidths[-1][1]

    def floor(self, flops: float, nbytes: float) -> float:
        """Return the least seconds for so many operations on so many bytes.

        >>> Machine("cpu", 1, 1e9, ((1000, 1e9), (10**8, 1e8))).floor(flops=1e6, nbytes=1e6)
        0.01
        """
        rate = next((rate for size, rate in self.bandwidths if nbytes <= size), self.bandwidth)
        return max(flops / self.flops, nbytes / rate)

    def least(self, node: Node) -> float:
        """Return the least seconds of a step."""
        return self.floor(known(node.op.flops(node)), node.op.bytes(node))

    def __str__(self) -> str:
        sizes = ", ".join(f"{rate / 1e9:.0f} GB/s on {size / 2**20:.3g} MiB" for size, rate in self.bandwidths)
        return f"{self.threads} thread{'s' * (self.threads > 1)}: {self.flops / 1e9:.0f} GFLOP/s, {sizes}"


def measured(threads: int | None = None) -> Machine | None:
    """Return what was measured on this machine for so many threads (all by default), or None.

    >>> machine = measured()
    >>> machine is None or machine.flops > 0
    True
    """
    number = workers.available() if threads is None else threads
    return _kept().get(_key(cpu(), number))


def measure(threads: int | None = None) -> Machine:
    """Measure the machine on so many threads (all by default), which takes seconds, and remember it."""
    number = workers.available() if threads is None else threads
    with workers.single_threaded_blas():
        flops = _product_rate(number)
        sizes = (*_CACHED, max(_LARGE // number, _LARGE_EACH))
        rates = tuple((size * number, _copy_rate(size, number)) for size in sizes)
    machine = Machine(cpu(), number, flops, rates)
    kept = {**_kept(), _key(machine.cpu, number): machine}
    content = {key: asdict(each) for key, each in kept.items()}
    _path().parent.mkdir(parents=True, exist_ok=True)
    write_atomically(_path(), json.dumps(content, indent=1, ensure_ascii=False))
    return machine


def cpu() -> str:
    """Return the processor's model, as the system calls it."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


# --- what is kept -----------------------------------------------------------------------------------------------------


def _path() -> pathlib.Path:
    return cache_folder() / "machine.json"


def _key(cpu: str, threads: int) -> str:
    return f"{cpu}, {threads} threads"


def _kept() -> dict[str, Machine]:
    """Return all that is in the file; nothing of a file that is not as `measure` writes it."""
    try:
        content = json.loads(_path().read_text(encoding="utf-8"))
        return {key: _machine(**fields) for key, fields in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):  # to be measured again
        return {}


def _machine(cpu: str, threads: int, flops: float, bandwidths: list[tuple[int, float]]) -> Machine:
    return Machine(cpu, threads, flops, tuple((int(size), float(rate)) for size, rate in bandwidths))


# --- measuring --------------------------------------------------------------------------------------------------------


def _product_rate(threads: int) -> float:
    """Return the FLOP/s of matrix products, one on each thread."""
    sets = [[np.ones((_SIDE, _SIDE), np.float32) for _ in range(3)] for _ in range(threads)]

    def multiply(index: int) -> None:
        left, right, out = sets[index]
        np.matmul(left, right, out=out)

    return threads * 2 * _SIDE**3 / _least(lambda: workers.each(threads, multiply))


def _copy_rate(nbytes: int, threads: int) -> float:
    """Return the bytes a second that sums and copies move on arrays that take `nbytes` on each thread."""
    size = nbytes // 3 // 4
    sets = [[np.ones(size, np.float32) for _ in range(3)] for _ in range(threads)]
    # Small arrays are gone through many times, so that to wake the threads takes no part of the time.
    repeats = math.ceil((1 << 26) / nbytes)

    def add(index: int) -> None:
        left, right, out = sets[index]
        for _ in range(repeats):
            np.add(left, right, out=out)

    def copy(index: int) -> None:
        left, _, out = sets[index]
        for _ in range(repeats):
            np.copyto(out, left)

    moved = threads * repeats * size * 4
    rates = [3 * moved / _least(lambda: workers.each(threads, add))]
    rates.append(2 * moved / _least(lambda: workers.each(threads, copy)))
    return max(rates)


def _least(call: Callable[[], object]) -> float:
    """Return the least seconds of calls, after one to warm up."""
    call()
    least, end = math.inf, time.perf_counter() + _SECONDS
    while (start := time.perf_counter()) < end:
        call()
        least = min(least, time.perf_counter() - start)
    return least
