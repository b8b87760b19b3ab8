"""A program that loads hostile ONNX files in a process of its own, which watches itself.

`python load_hostile.py LOADER KIND SEED COUNT` prints as JSON how many files came out how, and every finding. LOADER is
a function of this file; KIND is "small" or "all" (COUNT random mutations of our small models, or also of those that
come with onnx), "bits", "bombs" or "bad_loaders". A finding's label repeats it: `onnx_mutations.mutated(
random.Random("SEED:INDEX"), base_files(...))`.
"""

from __future__ import annotations

import faulthandler
import json
import os
import random
import signal
import socket
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_bombs
import pytest
import small_onnx
from onnx_mutations import base_files, mutated

import minigraph.onnx
from minigraph.errors import MinigraphError, ModelFormatError, ShapeError

resource = pytest.importorskip("resource")  # not on Windows

# What Python reports of its own accord while our code runs; walking the stack for the place of an error, for example.
HARMLESS = ("sys._getframe", "object.__getattr__", "object.__setattr__", "code.__new__", "builtins.id")
MEMORY = 1 << 30  # beyond what the loaded libraries have mapped
SECONDS = 2

Load = Callable[[bytes], object]


class TooSlow(BaseException):
    """A file that took longer than its share of processor time."""


class Watch:
    """Records what Python does beyond computing, while it is on."""

    def __init__(self) -> None:
        self.on = False
        self.events: list[str] = []
        sys.addaudithook(self._seen)

    def _seen(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.on and event not in HARMLESS:
            self.on = False  # making the text is no part of what is watched
            self.events.append(f"{event}{arguments!r:.200}")
            self.on = True

    def taken(self) -> list[str]:
        """Return what was recorded, and forget it."""
        events, self.events = self.events, []
        return events


def limit_memory() -> None:
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, mapped + MEMORY))


def limit_time() -> None:
    def too_slow(number: int, frame: object) -> None:
        raise TooSlow

    signal.signal(signal.SIGVTALRM, too_slow)
    faulthandler.enable()


def ran_out_of_memory(error: BaseException | None) -> bool:
    """Tell whether an error was made of a MemoryError: then something large was asked for, and the limit refused it."""
    while error is not None and not isinstance(error, MemoryError):
        error = error.__context__
    return error is not None


def outcome(load: Load, data: bytes, watch: Watch) -> tuple[str, str]:
    """Load a file and return what came of it, and what is wrong with that, if anything is."""
    # One that does not even come back to Python ends the process, and leaves a traceback.
    faulthandler.dump_traceback_later(20 * SECONDS, exit=True)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        watch.on = True
        try:
            load(data)
        finally:
            watch.on = False
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    except ModelFormatError as error:
        return "refused", "asked for too much memory: " + str(error)[:300] if ran_out_of_memory(error) else ""
    except TooSlow:
        return "slow", f"took more than {SECONDS} s of processor time"
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return "failed", f"{type(error).__name__}: {error!s:.300} in {place.name}, {place.filename}:{place.lineno}"
    return "loaded", ""


def load_all(load: Load, files: Iterable[tuple[str, bytes]]) -> dict[str, Any]:
    """Load files, which have labels, under all limits; return how many came out how, and the findings."""
    watch = Watch()
    counts: Counter[str] = Counter()
    findings: list[str] = []
    limit_memory()
    limit_time()
    for label, data in files:
        os.write(2, f"{label}\n".encode())  # if the process dies, the last line says of what
        how, problem = outcome(load, data, watch)
        counts[how] += 1
        problems = [problem] if problem else []
        problems += [f"it did {event}" for event in watch.taken()]
        findings += [f"{label}: {text}" for text in problems]
    faulthandler.cancel_dump_traceback_later()
    return {"counts": counts, "findings": findings}


def random_files(seed: str, count: int, bases: Sequence[bytes]) -> Iterator[tuple[str, bytes]]:
    for index in range(count):
        kinds, data = mutated(random.Random(f"{seed}:{index}"), bases)
        yield f"{seed}:{index} ({kinds})", data


def each_bit(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield a file with each of its bits flipped, and cut at each of its bytes."""
    for place in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        yield f"bit {place}", bytes(flipped)
    for end in range(len(data)):
        yield f"cut at {end}", data[:end]


def warm_up(load: Load) -> None:
    """Import now what is imported at first use."""
    bases = base_files(everything=False)
    for data in (*bases, *(data for _, data in random_files("warm", 300, bases))):
        try:
            load(data)
        except MinigraphError:
            continue


# Loaders that do what a file must not make one do: the test must notice each of them.
def opens_a_file(data: bytes) -> None:
    with open(__file__):
        pass


def imports_a_module(data: bytes) -> None:
    import colorsys  # noqa: F401


def runs_a_program(data: bytes) -> None:
    os.system("true")


def runs_code(data: bytes) -> None:
    eval("1 + 1")


def connects(data: bytes) -> None:
    socket.socket().close()


def raises_something_else(data: bytes) -> None:
    raise KeyError("weights")


def raises_another_of_ours(data: bytes) -> None:
    raise ShapeError("not the error for a file")


def never_ends(data: bytes) -> None:
    while True:
        data = bytes(data)


def takes_all_memory(data: bytes) -> None:
    np.empty(2**38)


def takes_all_memory_and_says_so(data: bytes) -> None:
    try:
        takes_all_memory(data)
    except MemoryError:
        raise ModelFormatError("too large") from None


def crashes(data: bytes) -> None:
    os.abort()


BAD_LOADERS: tuple[Load, ...] = (
    opens_a_file, imports_a_module, runs_a_program, runs_code, connects, raises_something_else, raises_another_of_ours,
    never_ends, takes_all_memory, takes_all_memory_and_says_so,
)  # fmt: skip


def each_bad_loader(data: bytes) -> None:
    """Do what the loader called like the content does."""
    next(load for load in BAD_LOADERS if load.__name__.encode() == data)(data)


def load_onnx(data: bytes) -> object:
    return minigraph.onnx.load(data)


def files_of(kind: str, seed: str, count: int) -> Iterator[tuple[str, bytes]]:
    if kind == "bits":
        return each_bit(small_onnx.dense().SerializeToString())
    if kind == "bombs":
        return ((name, model.SerializeToString()) for name, model in onnx_bombs.bombs().items())
    if kind == "bad_loaders":
        return ((load.__name__, load.__name__.encode()) for load in BAD_LOADERS)
    return random_files(seed, count, base_files(everything=kind == "all"))


if __name__ == "__main__":
    chosen: Load = globals()[sys.argv[1]]
    if chosen is load_onnx:
        warm_up(chosen)
    print(json.dumps(load_all(chosen, files_of(sys.argv[2], sys.argv[3], int(sys.argv[4])))))
