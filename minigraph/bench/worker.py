"""One peer in a process of its own: `python -m minigraph.bench.worker WORKLOAD PEER THREADS`.

It prepares, does first steps, and says so in a line of JSON. Then each line on standard input is a number of steps to
do; it answers with their median seconds. What the peer itself prints goes to standard error.
"""

from __future__ import annotations

import gc
import json
import os
import pathlib
import sys
import time
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minigraph.bench.workloads import Prepared

# How often a device's steps are timed in a turn.
_TIMES = 5


def main(workload: str, peer: str, threads: int) -> None:
    """Serve the turns of one peer, until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**words: Any) -> None:
        print(json.dumps(words), file=answers, flush=True)

    from minigraph.bench import peers, workloads

    (found,) = workloads.find(workload)
    if not found.gpu:  # what a device is told does not wait for processors, but compilers do
        _stay_on(threads)
    start = time.perf_counter()
    prepared = peers.prepare(peer, found, threads)
    before = _memory("VmRSS")
    set_up = time.perf_counter()
    result = prepared.number(prepared.step())
    first = time.perf_counter() - set_up
    estimate = median(timed(prepared, 1.0, 50))
    peak = _memory("VmHWM")
    memory = None if before is None or peak is None else peak - before
    answer(
        setup=set_up - start, first=first, result=result, estimate=estimate, version=peers.version(peer),
        memory=memory if prepared.memory is None else prepared.memory(), work=prepared.work,
    )  # fmt: skip
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        steps = int(line)
        timed(prepared, 0.0, min(3, steps))  # whoever had the last turn had the caches
        answer(seconds=median(timed(prepared, float("inf"), steps)))


def timed(prepared: Prepared, enough: float, most: int) -> list[float]:
    """Return seconds of a step, three times at least, until `enough` seconds have passed, `most` steps at most.

    A step whose call only says what a device is to do is timed with many others, up to when the device has done all.

    >>> from minigraph.bench.workloads import Prepared
    >>> len(timed(Prepared(int, float), 0.0, 50)), len(timed(Prepared(int, float, wait=int), 9.0, 50))
    (3, 5)
    """
    calls = 1 if prepared.wait is None else max(1, most // (_TIMES * prepared.steps))
    together = calls * prepared.steps
    seconds: list[float] = []
    while len(seconds) < min(3, most) or (sum(seconds) * together < enough and len(seconds) * together < most):
        start = time.perf_counter()
        for _ in range(calls):
            prepared.step()
        if prepared.wait is not None:
            prepared.wait()
        seconds.append((time.perf_counter() - start) / together)
    return seconds


def _stay_on(threads: int) -> None:
    """Leave this process so many processors: not every framework can be told a number of threads."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def _memory(what: str) -> int | None:
    """Return the resident memory, or its peak, in bytes, where the system tells."""
    status = pathlib.Path("/proc/self/status")
    if not status.exists():
        return None
    (line,) = [line for line in status.read_text().splitlines() if line.startswith(f"{what}:")]
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
