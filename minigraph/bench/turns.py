"""Turns: each peer waits in a process of its own, and one at a time computes, round after round.

Two thread pools in one process slow each other down many times over, and a shared machine is now fast, now slow. So
peers are compared within a round only: what is reported is the median of the ratios of all rounds.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import minigraph
from minigraph.bench.peers import OURS
from minigraph.bench.workloads import Workload
from minigraph.errors import MinigraphError
from minigraph.runtime.accelerator import Accelerator

# What the numeric libraries read; set before they are loaded.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
# Between turns, so that threads that spin while they wait for work go to sleep.
PAUSE = 0.15
FEWEST, MOST = 3, 300
# A GPU's steps are timed together, and they are short.
MOST_ON_GPU = 20_000
# How far apart first results may be, as a share: what a rounding of operands to 24, 11 or 8 bits makes of them.
APART = {"float32": 1e-3, "tf32": 5e-3, "bfloat16": 3e-2}


class PeerError(MinigraphError):
    """A peer's process failed; its last words are in the message."""


class Process:
    """A peer's process, ready for turns. Raises a PeerError if it does not get there."""

    def __init__(self, workload: Workload, peer: str, threads: int) -> None:
        self.peer = peer
        self.most = MOST_ON_GPU if workload.gpu else MOST
        environment = {**os.environ, **dict.fromkeys(_THREADS, str(threads))}
        # Where minigraph was imported from is where the worker finds it.
        here = str(pathlib.Path(minigraph.__file__).parents[1])
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed with the process
        command = [sys.executable, "-m", "minigraph.bench.worker", workload.name, peer, str(threads)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, text=True, env=environment
        )
        try:
            self.ready = self._answer()
        except BaseException:
            self.close()
            raise

    def turn(self, seconds: float) -> float:
        """Return the median seconds of about so many seconds of steps."""
        assert self._process.stdin is not None
        steps = max(FEWEST, min(self.most, int(seconds / max(self.ready["estimate"], 1e-6))))
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        return float(self._answer()["seconds"])

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        self._process.wait()
        self._said.seek(0)
        last = self._said.read().strip().splitlines()[-1:] or ["nothing"]
        raise PeerError(f"{self.peer} failed", got=last[0])

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._said.close()


@dataclass(frozen=True)
class Result:
    """One peer on one workload. `speed` is the reference's time over this peer's: above 1 is faster.

    seconds: the median of all rounds. low, high: the smallest and the largest ratio of a round. first: seconds of the
    first step, compilation included. result: its loss, or the mean size of its outputs, which all peers should agree
    on. memory: bytes, from before the first step to the peak; on a GPU what it has allocated there. rounds: the median
    seconds of each round. floor: the least seconds of a step's plan, of those whose plan is known.
    """

    peer: str
    version: str
    seconds: float
    speed: float
    low: float
    high: float
    first: float
    result: float
    memory: int | None
    rounds: tuple[float, ...]
    floor: float | None = None

    def speed_against(self, other: Result) -> float:
        """Return how many times faster this peer is than another: the median of the ratios of all rounds."""
        return median(theirs / own for theirs, own in zip(other.rounds, self.rounds, strict=True))


def compare(
    workload: Workload,
    peers: Sequence[str],
    reference: str,
    threads: int,
    rounds: int = 7,
    seconds: float = 0.5,
    say: Callable[[str], None] = print,
    limits: Accelerator | None = None,
) -> list[Result]:
    """Return the results of all peers, fastest first; a peer that fails, or computes other numbers, is left out.

    seconds: how long a turn is. say: is told who is left out, and why. limits: of the device, for floors. Raises a
    PeerError if the reference fails, or nobody is left.
    """
    with _processes(workload, peers, threads, say) as processes:
        firsts = {peer: process.ready["result"] for peer, process in processes.items()}
        for peer in apart(firsts, reference, APART[workload.precision]):
            say(f"  {peer} computes something else: {firsts[peer]:.6g}, not {firsts[_judge(firsts, reference)]:.6g}")
            processes.pop(peer).close()
        if reference not in processes:
            raise PeerError("the reference failed", got=reference)
        times: dict[str, list[float]] = {peer: [] for peer in processes}
        for _ in range(rounds):
            for peer, process in processes.items():
                times[peer].append(process.turn(seconds))
                time.sleep(PAUSE)
        ready = {peer: process.ready for peer, process in processes.items()}
    return results(times, ready, reference, limits)


def apart(firsts: Mapping[str, float], reference: str, share: float) -> list[str]:
    """Return the peers whose first result is further than a share of it away from ours; without ours, the reference's.

    >>> apart({"torch": 2.5, "jax": 2.3, "minigraph-c": 2.3001}, "torch", 1e-3)
    ['torch']
    """
    right = firsts.get(_judge(firsts, reference), float("nan"))
    return [peer for peer, first in firsts.items() if not abs(first - right) <= share * abs(right)]


def _judge(firsts: Mapping[str, float], reference: str) -> str:
    return next((peer for peer in firsts if peer.startswith(OURS)), reference)


def results(
    times: Mapping[str, Sequence[float]], ready: Mapping[str, Mapping[str, Any]], reference: str,
    limits: Accelerator | None = None,
) -> list[Result]:  # fmt: skip
    """Return the results of peers' seconds, a number a round.

    >>> ready = {"version": "1", "first": 1.0, "result": 2.3, "memory": None}
    >>> slow, fast = [4.0, 6.0, 4.0], [2.0, 2.0, 1.0]
    >>> [(r.peer, r.speed, r.low, r.high) for r in results({"a": slow, "b": fast}, {"a": ready, "b": ready}, "a")]
    [('b', 3.0, 2.0, 4.0), ('a', 1.0, 1.0, 1.0)]
    """
    found = []
    for peer, seconds in times.items():
        ratios = [theirs / own for theirs, own in zip(times[reference], seconds, strict=True)]
        about = ready[peer]
        work = about.get("work")
        floor = limits.total((int(f), int(b), str(a)) for f, b, a in work) if limits and work else None
        found.append(
            Result(
                peer, about["version"], median(seconds), median(ratios), min(ratios), max(ratios), about["first"],
                about["result"], about["memory"], tuple(seconds), floor,
            )
        )  # fmt: skip
    return sorted(found, key=lambda result: result.seconds)


@contextmanager
def _processes(
    workload: Workload, peers: Sequence[str], threads: int, say: Callable[[str], None]
) -> Iterator[dict[str, Process]]:
    """Start the peers one after the other, and end them all."""
    started: dict[str, Process] = {}
    try:
        for peer in peers:
            try:
                started[peer] = Process(workload, peer, threads)
            except PeerError as error:
                say(f"  {error.message(with_place=False)}")
        yield started
    finally:
        for process in started.values():
            process.close()


def as_json(found: Mapping[str, Sequence[Result]], references: Mapping[str, str], **about: Any) -> str:
    """Return results (workload → peers) as JSON, with what else is to be known."""
    each = {name: {"reference": references[name], "peers": [asdict(r) for r in rs]} for name, rs in found.items()}
    return json.dumps({**about, "workloads": each}, indent=1, ensure_ascii=False) + "\n"


def from_json(text: str) -> dict[str, list[Result]]:
    """Return the results that `as_json` wrote.

    >>> result = Result("torch", "2", 0.02, 1.0, 1.0, 1.0, 0.5, 2.3, None, (0.02,))
    >>> from_json(as_json({"mnist-train": [result]}, {"mnist-train": "torch"})) == {"mnist-train": [result]}
    True
    """
    each = json.loads(text)["workloads"]
    return {name: [Result(**{**r, "rounds": tuple(r["rounds"])}) for r in w["peers"]] for name, w in each.items()}


def table(workload: Workload, found: Sequence[Result], reference: str) -> str:
    """Return the results of a workload as text.

    >>> from minigraph.bench.workloads import find
    >>> print(table(find("W1")[0], [Result("torch", "2", 0.02, 1.0, 1.0, 1.0, 0.5, 2.3, 90_000_000, (0.02,))], "torch"))
    mnist-train (W1), batch 64; speed against torch, above 1 is faster
    peer                       ms   speed   lowest … highest   first ms   memory MB    result
    torch                  20.000    1.00        1.00 … 1.00      500.0        90.0    2.3000
    """
    lines = [
        f"{workload.name} ({workload.alias}), batch {workload.batch}; speed against {reference}, above 1 is faster",
        f"{'peer':<21}{'ms':>8}{'speed':>8}{'lowest … highest':>19}{'first ms':>11}{'memory MB':>12}{'result':>10}",
    ]
    floor = floor_of(found)
    if workload.gpu:
        lines[1] += f"{'images/s':>10}" + (f"{'of floor':>10}" if floor else "")
    for r in found:
        memory = "" if r.memory is None else f"{r.memory / 1e6:.1f}"
        line = (
            f"{r.peer:<21}{r.seconds * 1e3:>8.3f}{r.speed:>8.2f}{f'{r.low:.2f} … {r.high:.2f}':>19}"
            f"{r.first * 1e3:>11.1f}{memory:>12}{r.result:>10.4f}"
        )
        if workload.gpu:
            line += f"{workload.batch / r.seconds:>10.0f}" + (f"{floor / r.seconds:>10.1%}" if floor else "")
        lines.append(line)
    if floor:
        lines.append(f"floor {floor * 1e3:.3f} ms: the sum over our plan's steps of max(bytes/bandwidth, FLOPs/peak)")
    return "\n".join(lines)


def floor_of(found: Sequence[Result]) -> float | None:
    """Return the least seconds of a step, by the plan of the first peer that has one."""
    return next((r.floor for r in found if r.floor), None)
