"""A device of the mind: NumPy's kernels behind a queue that is worked off only when somebody waits.

Its arrays refuse every use that the protocol of backends does not name, so that a runtime that looks at one as at a
NumPy array, or that reads a result before it has waited, is caught.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from minigraph.backends import NumpyBackend
from minigraph.backends.base import Bound, Code
from minigraph.errors import ProgramError
from minigraph.ir import Graph, Node
from minigraph.ops.indexing import Gather, GatherAdjoint


class Remote:
    """An array on the device: it has a shape and a dtype, and a shape that is another."""

    __slots__ = ("_data",)
    __array_ufunc__ = None  # NumPy's functions refuse it

    def __init__(self, data: np.ndarray) -> None:
        self._data = data

    @property
    def shape(self) -> tuple[int, ...]:
        return self._data.shape

    @property
    def dtype(self) -> np.dtype:
        return self._data.dtype

    def reshape(self, shape: tuple[int, ...]) -> Remote:
        return Remote(self._data.reshape(shape))

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("an array of the device is used on the host")

    __array__ = __array_function__ = __array_interface__ = _refuse
    __len__ = __iter__ = __getitem__ = __setitem__ = __bool__ = __float__ = __int__ = __index__ = __eq__ = _refuse
    __hash__ = object.__hash__


def _inner(value: Any) -> Any:
    return tuple(map(_inner, value)) if isinstance(value, tuple) else value._data


class _Code(Code):
    """A plan's kernels; a call puts one run of them all into the queue."""

    def __init__(self, backend: RemoteBackend, code: Code) -> None:
        self.backend = backend
        self.code = code
        self.source = code.source
        self.repeated: list[int] = []

    def __call__(self) -> None:
        self.backend.enqueue(self._run)

    def _run(self) -> None:
        with self.backend.host.running():
            self.code()

    def repeat(self, times: int) -> None:
        self.repeated.append(times)
        for _ in range(times):
            self()

    def step(self, index: int) -> Callable[[], object]:
        kernel = self.code.step(index)

        def run() -> None:
            self.backend.work_off()
            with self.backend.host.running():
                kernel()

        return run

    def completed(self) -> int:
        return 0

    def failed(self, error: BaseException) -> int:
        return 0


class RemoteBackend:
    """NumPy's kernels on arrays that lie elsewhere; `uploads` and `waits` count what a program does."""

    name = "remote"
    generates = False
    remote = True

    def __init__(self, free: int = 1 << 40) -> None:
        self.host = NumpyBackend(1)
        self.free = free
        self.queue: list[Callable[[], object]] = []
        self.lock = threading.RLock()
        self.error: BaseException | None = None
        self.uploads: list[int] = []  # bytes of each
        self.allocations: list[int] = []
        self.waits = 0
        self.most_queued = 0

    # --- the queue --------------------------------------------------------------------------------------------------

    def enqueue(self, work: Callable[[], object]) -> None:
        self.queue.append(work)

    def work_off(self) -> None:
        """Do all that is enqueued; what goes wrong is told to the next download."""
        with self.lock:
            while self.queue:
                try:
                    self.queue.pop(0)()
                except Exception as error:
                    self.error = error

    # --- the protocol -----------------------------------------------------------------------------------------------

    def computes(self, node: Node) -> bool:
        return False

    def commits_in_place(self, graph: Graph) -> bool:
        gathers = [n.op for n in graph.nodes if isinstance(n.op, (Gather, GatherAdjoint))]
        return all(op.mode == "clip" for op in gathers)

    def bind(self, steps: Sequence[Bound], arena: Remote) -> Code:
        inner = [Bound(s.node, [_inner(a) for a in s.inputs], _inner(s.output), _inner(s.workspace)) for s in steps]
        return _Code(self, self.host.bind(inner, _inner(arena)))

    def needs(self, node: Node) -> Any:
        return self.host.needs(node)

    def kernel(self, node: Node, inputs: Sequence[Remote], output: Any, workspace: Remote) -> Any:
        raise AssertionError("one node is nobody's business")

    def allocate(self, nbytes: int) -> Remote:
        self.allocations.append(nbytes)
        return Remote(self.host.allocate(nbytes))

    def view(self, memory: Remote, offset: int, shape: tuple[int, ...], dtype: str) -> Remote:
        return Remote(self.host.view(memory._data, offset, shape, dtype))

    def from_bytes(self, data: bytes, shape: tuple[int, ...], dtype: str) -> Remote:
        return Remote(self.host.from_bytes(data, shape, dtype))

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        yield

    def upload(self, target: Remote, value: np.ndarray) -> None:
        assert type(target) is Remote and isinstance(value, np.ndarray) and value.shape == target.shape
        self.uploads.append(value.nbytes)
        staged = np.empty_like(target._data)
        np.copyto(staged, value, casting="same_kind")
        self.enqueue(lambda: np.copyto(target._data, staged))

    def download(self, arrays: Sequence[Remote]) -> Callable[[], list[np.ndarray]]:
        copies: list[np.ndarray] = []
        self.enqueue(lambda: copies.extend(a._data.copy() for a in arrays))
        self.most_queued = max(self.most_queued, len(self.queue))

        def wait() -> list[np.ndarray]:
            self.waits += 1
            self.work_off()
            error, self.error = self.error, None
            if error is not None:
                raise ProgramError(f"the device met an error: {error}", where="") from error
            return copies

        return wait

    def copy(self, target: Remote, source: Remote) -> None:
        assert target.shape == source.shape and target.dtype == source.dtype
        self.enqueue(lambda: np.copyto(target._data, source._data))

    def finite(self, arrays: Sequence[Remote]) -> bool:
        self.work_off()
        return self.host.finite([a._data for a in arrays])

    def free_bytes(self) -> int:
        return self.free
