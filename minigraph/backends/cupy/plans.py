"""What was found out about convolutions on a device: cuDNN's plans, and which algorithm is fastest.

A plan is one way to compute a graph of cuDNN's. It is built once, chosen by measurement, and kept: in memory, and
serialised on the disk.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import pathlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from minigraph.backends.cupy.gpu import Gpu
from minigraph.backends.cupy.graphs import Request, graph_of, propose
from minigraph.files import cache_folder, write_atomically

# The most plans that are measured: those behind are there for what the first ones refuse. Of as many more, one that
# asks for less workspace is measured too: in float32 that often holds copies, which cost a pass over the images.
_MOST_MEASURED = 8


@dataclass(frozen=True)
class Plan:
    """A graph with its chosen plan, and the bytes of workspace that it asks for."""

    graph: Any
    workspace: int


class Store:
    """A folder of answers: a file for each question, with a line of facts and bytes behind it.

    What cannot be read, is damaged, or answers another question is as if it were not there.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder

    def _path(self, question: str) -> pathlib.Path:
        return self.folder / f"{_digest(question.encode())[:32]}.plan"

    def read(self, question: str) -> tuple[dict[str, Any], bytes] | None:
        """Return the facts and the bytes."""
        try:
            line, _, data = self._path(question).read_bytes().partition(b"\n")
            facts = json.loads(line)
        except (OSError, ValueError):
            return None
        if not isinstance(facts, dict) or (facts.get("question"), facts.get("digest")) != (question, _digest(data)):
            return None
        return facts, data

    def write(self, question: str, facts: dict[str, Any], data: bytes = b"") -> None:
        """Keep facts and bytes; on a disk that is full or read-only they are not kept, and found out again."""
        line = json.dumps({"question": question, "digest": _digest(data), **facts})
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path(question), line.encode() + b"\n" + data)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class _Candidate(NamedTuple):
    number: int
    workspace: int


class Plans:
    """The plans and choices of one device."""

    def __init__(self) -> None:
        self.store = Store(cache_folder() / "cudnn")
        self._plans: dict[Request, Plan | None] = {}
        self._choices: dict[str, str] = {}

    def find(self, request: Request, gpu: Gpu) -> Plan | None:
        """Return the plan, or None where cuDNN has none that the request allows."""
        if request not in self._plans:
            self._plans[request] = self._kept(request, gpu) or self._made(request, gpu)
        return self._plans[request]

    def choose(self, question: str, names: Sequence[str], gpu: Gpu, measure: Callable[[], str]) -> str:
        """Return which of these algorithms was measured to be the fastest; `measure` finds it out the first time."""
        asked = f"{question} by {', '.join(names)} on {_versions(gpu)}"
        if asked not in self._choices:
            kept = self.store.read(asked)
            choice = str(kept[0].get("choice")) if kept is not None else ""
            if choice not in names:
                choice = measure()
                self.store.write(asked, {"choice": choice})
            self._choices[asked] = choice
        return self._choices[asked]

    # --- plans --------------------------------------------------------------------------------------------------------

    def _kept(self, request: Request, gpu: Gpu) -> Plan | None:
        """Return the plan as it is on the disk; None where it is not there, or the library does not take it."""
        kept = self.store.read(_question(request, gpu))
        if kept is None or not isinstance(kept[0].get("workspace"), int):
            return None
        cudnn = _cudnn(gpu)
        graph = cudnn.pygraph(handle=gpu.cudnn_handle)
        try:
            graph.deserialize(gpu.cudnn_handle, list(kept[1]))
        except (cudnn.cudnnGraphNotSupportedError, RuntimeError):
            return None
        return Plan(graph, kept[0]["workspace"])

    def _made(self, request: Request, gpu: Gpu) -> Plan | None:
        """Return a new plan, which is kept."""
        cudnn = _cudnn(gpu)
        graph = graph_of(request, cudnn, handle=gpu.cudnn_handle)
        try:
            propose(graph, request, cudnn)
        except cudnn.cudnnGraphNotSupportedError:
            return None
        found = _buildable(graph, request, cudnn)
        candidates = _worth_measuring(found) if request.tuned else list(itertools.islice(found, 1))
        best = _fastest(graph, request, candidates, gpu) if len(candidates) > 1 else next(iter(candidates), None)
        if best is None:
            return None
        graph.build_plan_at_index(best.number)  # what was built last is what is executed, and serialised
        self.store.write(_question(request, gpu), {"workspace": best.workspace}, bytes(graph.serialize()))
        return Plan(graph, best.workspace)


def _cudnn(gpu: Gpu) -> Any:
    assert gpu.cudnn is not None
    return gpu.cudnn


def _versions(gpu: Gpu) -> str:
    cudnn = gpu.cudnn
    library = f"cuDNN {cudnn.backend_version()}, frontend {cudnn.__version__}" if cudnn is not None else "no cuDNN"
    return f"{gpu.name}, {library}, CuPy {gpu.cupy.__version__}"


def _question(request: Request, gpu: Gpu) -> str:
    return f"plan of {request} on {_versions(gpu)}"


def _buildable(graph: Any, request: Request, cudnn: Any) -> Iterator[_Candidate]:
    """Yield the plans that can be built and keep to the workspace, in the library's order."""
    for index in range(graph.get_execution_plan_count()):
        try:
            graph.build_plan_at_index(index)
        except (cudnn.cudnnGraphNotSupportedError, RuntimeError, ValueError):  # struck out, or not to be built
            continue
        workspace = int(graph.get_workspace_size_plan_at_index(index))
        if workspace <= request.workspace:
            yield _Candidate(index, workspace)


def _worth_measuring(found: Iterator[_Candidate]) -> list[_Candidate]:
    """Return the likely fastest plans, and behind them one of less workspace, if there is one near.

    >>> [c.number for c in _worth_measuring(_Candidate(n, 5 if n < 9 else 0) for n in range(20))]
    [0, 1, 2, 3, 4, 5, 6, 9]
    """
    first = list(itertools.islice(found, _MOST_MEASURED - 1))
    least = min((c.workspace for c in first), default=0)
    smaller = (c for c in itertools.islice(found, _MOST_MEASURED) if c.workspace < least or not least)
    return [*first, *itertools.islice(smaller, 1)]


def _fastest(graph: Any, request: Request, candidates: Sequence[_Candidate], gpu: Gpu) -> _Candidate | None:
    """Return the plan that takes the least time on memory that is allocated for it; None if none of them runs."""
    arrays = {uid: gpu.allocate(nbytes) for uid, nbytes in request.nbytes().items()}
    workspace = gpu.allocate(max(c.workspace for c in candidates))
    pack = {uid: int(array.data.ptr) for uid, array in arrays.items()}
    times: dict[_Candidate, float] = {}
    for candidate in candidates:
        run = functools.partial(
            graph.execute_plan_at_index, pack, int(workspace.data.ptr), index=candidate.number, handle=gpu.cudnn_handle
        )
        with contextlib.suppress(_cudnn(gpu).cudnnGraphNotSupportedError):  # some find out only now
            times[candidate] = gpu.seconds(run)
    return min(times, key=lambda candidate: times[candidate], default=None)


_PLANS: WeakKeyDictionary[Gpu, Plans] = WeakKeyDictionary()


def plans_of(gpu: Gpu) -> Plans:
    """Return what has been found out about a device so far."""
    return _PLANS.setdefault(gpu, Plans())
