"""What a backend is: for an op and the types it meets, the memory its kernel wants, and the kernel bound to arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from minigraph.errors import ArgumentError
from minigraph.ir.graph import Graph
from minigraph.ir.node import Node

Array: TypeAlias = Any  # the backend's array: np.ndarray, cupy.ndarray
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
