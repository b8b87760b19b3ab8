"""A state's variables in a device's memory, for the programs of a backend whose arrays lie there."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from minigraph.backends.base import Array, Backend

if TYPE_CHECKING:
    from minigraph.runtime.state import State

ALIGNMENT = 256  # bytes: what wide loads and the libraries of GPUs ask for


class Residence:
    """The copies of a state's variables that all programs of one backend object share: `arrays`, by label.

    A variable's numbers count here, or in host memory, or in both places. `old` are the labels whose numbers here do
    not count: they are uploaded before a step reads them. Where numbers count here alone, the state says so.
    """

    def __init__(self, state: State, backend: Backend) -> None:
        self.state = state
        self.backend = backend
        self.arrays: dict[str, Array] = {}
        self.old: set[str] = set()

    def take(self, labels: Sequence[str], changed: Collection[str]) -> list[Array]:
        """Return the arrays of variables, with the numbers in them that count.

        `changed` are those that the step which is about to be enqueued will change: from now on they count here alone.
        """
        with self.state.lock:
            self._allocate([label for label in labels if label not in self.arrays])
            self._upload([label for label in labels if label in self.old])
            self.state.changes_on(self, changed)
            return [self.arrays[label] for label in labels]

    def _allocate(self, labels: Sequence[str]) -> None:
        """Make room: in one piece of memory for variables, in a piece each for what is given up by itself."""
        listed = [label for label in labels if self.state.lists(label)]
        for piece in (listed, *([label] for label in labels if not self.state.lists(label))):
            hosts = [self.state.peek(label) for label in piece]
            ends = list(itertools.accumulate((-(-h.nbytes // ALIGNMENT) * ALIGNMENT for h in hosts), initial=0))
            memory = self.backend.allocate(ends[-1]) if hosts else None
            for label, host, offset in zip(piece, hosts, ends, strict=False):
                self.arrays[label] = self.backend.view(memory, offset, host.shape, str(host.dtype))
        self.old.update(labels)

    def _upload(self, labels: Sequence[str]) -> None:
        self.state.fetch(labels)  # what counts on another device
        for label in labels:
            self.backend.upload(self.arrays[label], self.state.peek(label))
            self.old.discard(label)

    def download(self, labels: Sequence[str]) -> None:
        """Copy variables into the arrays that the state has in host memory; return when that is done."""
        values = self.backend.download([self.arrays[label] for label in labels])()
        for label, value in zip(labels, values, strict=True):
            self.state.peek(label)[...] = value

    def forget(self, label: str) -> None:
        """Give up a variable's copy."""
        self.arrays.pop(label, None)
        self.old.discard(label)
