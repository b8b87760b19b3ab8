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
from collections.abc import Callable
from statistics import median
from typing import Any


def main(workload: str, peer: str, threads: int) -> None:
    """Serve the turns of one peer, until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _stay_on(threads)

    def answer(**words: Any) -> None:
        print(json.dumps(words), file=answers, flush=True)

    from minigraph.bench import peers, workloads

    start = time.perf_counter()
    step, number = peers.prepare(peer, workloads.find(workload)[0], threads)
    before = _memory("VmRSS")
    prepared = time.perf_counter()
    result = number(step())
    first = time.perf_counter() - prepared
    estimate = median(_timed(step, 1.0, 50))
    peak = _memory("VmHWM")
    answer(
        setup=prepared - start, first=first, result=result, estimate=estimate, version=peers.version(peer),
        memory=None if before is None or peak is None else peak - before,
    )  # fmt: skip
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        steps = int(line)
        _timed(step, 0.0, min(3, steps))  # whoever had the last turn had the caches
        answer(seconds=median(_timed(step, float("inf"), steps)))


def _timed(step: Callable[[], Any], enough: float, most: int) -> list[float]:
    """Return the seconds of steps, three at least, until they are `enough` together, `most` at most."""
    seconds: list[float] = []
    while len(seconds) < min(3, most) or (sum(seconds) < enough and len(seconds) < most):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
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
