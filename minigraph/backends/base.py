"""What a backend is: for an op and the types it meets, the memory its kernel wants, and the kernel bound to arrays."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np

from minigraph.errors import ArgumentError
from minigraph.ir.graph import Graph
from minigraph.ir.node import Node

# The backend's array: np.ndarray, cupy.ndarray. The runtime asks for its shape and dtype, and reshapes it; all else is
# the backend's to do.
Array: TypeAlias = Any
HostArray: TypeAlias = "np.ndarray[Any, Any]"
_BLOCK = 1 << 14
Kernel: TypeAlias = Callable[[], object]


@dataclass(frozen=True)
class Needs:
    """What a kernel asks of the memory planner.

    workspace: bytes it may scribble on while it runs. inplace: operands whose memory the result may take over if
    nothing reads them later. alias: the operand that the result is a mere view of (no kernel then).
    """

    workspace: int = 0
    inplace: tuple[int, ...] = ()
    alias: int | None = None


@dataclass(frozen=True)
class Bound:
    """One step of a plan with its arrays: what a kernel is made of."""

    node: Node
    inputs: Sequence[Array]
    output: Array  # a tuple: one for each item
    workspace: Array


class Code(Protocol):
    """A plan's steps bound to arrays: the whole of it is one call."""

    source: str  # what a reader may want to see of it

    def __call__(self) -> object:
        """Run all steps."""

    def repeat(self, times: int) -> None:
        """Run all steps so many times, one after the other; a GPU may launch them as one graph."""
        for _ in range(times):
            self()

    def step(self, index: int) -> Kernel:
        """Return one step alone: what a profile times."""

    def completed(self) -> int:
        """Return how many calls have run to their end, where updates are written as they come; else always 0."""

    def failed(self, error: BaseException) -> int:
        """Return the step that raised an error out of the call."""


class Backend(Protocol):
    """A registry of kernel makers, with the few array functions the runtime needs."""

    name: str
    generates: bool  # whether it makes code for groups of ops, or has a kernel for each op
    remote: bool  # whether its arrays lie on a device of their own, where work is queued and done in order

    def computes(self, node: Node) -> bool:
        """Tell whether a generated loop computes this op: groups are made of such."""

    def commits_in_place(self, graph: Graph) -> bool:
        """Tell whether a step of this graph runs as a whole or not at all: updates may be written as they come."""

    def bind(self, steps: Sequence[Bound], arena: Array) -> Code:
        """Return the code of a plan's steps, whose arrays lie in one arena, but for variables and constants."""

    def needs(self, node: Node) -> Needs:
        """Return what the node's kernel asks of the planner; an error if there is no kernel."""

    def kernel(self, node: Node, inputs: Sequence[Array], output: Array, workspace: Array) -> Kernel:
        """Return a callable that computes the node from these arrays into this array (a tuple: one for each item)."""

    def allocate(self, nbytes: int) -> Array:
        """Return a byte array, aligned to 64 bytes."""

    def view(self, memory: Array, offset: int, shape: tuple[int, ...], dtype: str) -> Array:
        """Return an array that lies in `memory` at a byte offset."""

    def from_bytes(self, data: bytes, shape: tuple[int, ...], dtype: str) -> Array:
        """Return a constant's array."""

    def running(self) -> Any:
        """Return a context manager to run kernels in: thread counts and the like are restored after it."""

    # --- between host and device: `HostArrays` has all of it for arrays that are NumPy's ----------------------------

    def upload(self, target: Array, value: HostArray) -> object:
        """Enqueue a copy of a host array, of the target's shape, into it; the caller may change `value` at once."""

    def download(self, arrays: Sequence[Array]) -> Callable[[], list[HostArray]]:
        """Enqueue copies to the host; the callable waits for them and returns fresh arrays.

        It raises a ProgramError if the device has met an error since the last download, even one of no arrays.
        """

    def copy(self, target: Array, source: Array) -> object:
        """Enqueue a copy between two of the backend's arrays, of one form and dtype."""

    def finite(self, arrays: Sequence[Array]) -> bool:
        """Tell, once all that is enqueued is done, whether all elements of these floating-point arrays are finite."""

    def free_bytes(self) -> int:
        """Return how many bytes are free for data that so far lies elsewhere."""


class HostArrays:
    """What a backend whose arrays are NumPy's inherits: everything is done at once, so nothing has to be waited for.

    >>> source, target = np.arange(3.0), np.zeros(3, np.float32)
    >>> HostArrays().upload(target, source)
    >>> HostArrays().download([target])()
    [array([0., 1., 2.], dtype=float32)]
    """

    remote = False

    def upload(self, target: Array, value: HostArray) -> None:
        """Copy an array into another; floats may lose digits."""
        np.copyto(target, value, casting="same_kind")

    def download(self, arrays: Sequence[Array]) -> Callable[[], list[HostArray]]:
        """Copy arrays."""
        copies = [array.copy() for array in arrays]
        return lambda: copies

    def copy(self, target: Array, source: Array) -> None:
        """Copy an array into another of its form."""
        np.copyto(target, source)

    def finite(self, arrays: Sequence[Array]) -> bool:
        """Tell whether all elements are finite; a block at a time, so that the flags stay few."""
        flat = [array.reshape(-1) for array in arrays]
        return all(bool(np.isfinite(a[i : i + _BLOCK]).all()) for a in flat for i in range(0, a.size, _BLOCK))

    def free_bytes(self) -> int:
        """Return no limit: what would be brought here is here already."""
        return sys.maxsize


_BACKENDS: dict[str, Callable[[], Backend]] = {}


def register(name: str, make: Callable[[], Backend]) -> None:
    """Register a backend under a name; third parties do it by the entry point group `minigraph.backends`."""
    _BACKENDS[name] = make


def get(backend: str | Backend) -> Backend:
    """Return a backend by name, or the object itself.

    >>> get("numpy").name
    'numpy'
    """
    if not isinstance(backend, str):
        return backend
    if backend not in _BACKENDS:
        from importlib.metadata import entry_points

        for entry in entry_points(group="minigraph.backends"):
            _BACKENDS.setdefault(entry.name, entry.load())
    if backend not in _BACKENDS:
        raise ArgumentError(f"no backend is called {backend!r}", expected=", ".join(sorted(_BACKENDS)), got=backend)
    return _BACKENDS[backend]()
