"""How a fit's batches get to its program: cut on the host, one by one; or taken by the program out of variables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from minigraph.data import Batches
from minigraph.ir.types import TensorType
from minigraph.runtime import Pending
from minigraph.training.resident import ResidentFeed, ResidentPrograms, kept_data, labels_of

if TYPE_CHECKING:
    from minigraph.training.fitting import Progress, Taking
    from minigraph.training.model import Model

# A data set is kept on a device if it fills no more than this share of the memory that is free there: one in so many.
SHARE = 4


class Feed(Protocol):
    """Where the steps of a fit get their batches from; a context that holds what only this fit needs."""

    ahead: int  # how many results it pays to leave for later

    def __enter__(self) -> object: ...

    def __exit__(self, *error: object) -> None: ...

    def begin(self, progress: Progress) -> None:
        """Begin an epoch, or go on with one, at the batch that the progress tells."""

    def run(self, count: int) -> Iterator[Taking]:
        """Submit the next so many steps; yield what takes in their results, for each or for all of them."""


def feed_of(model: Model, batches: Batches, check_finite: bool) -> Feed:
    """Return the feed of a fit.

    The data lies beside the variables where that saves copies or launches: on a device that has memory for it, or for
    several steps an execution. Where each step is looked at, or each batch changed, they are cut on the host.
    """
    training = model.compiled()
    if (training.on.remote or training.steps_per_execution > 1) and batches.augment is None and not check_finite:
        graph = model.program("training").definition
        labels = [*labels_of(graph), *model.state]
        data = kept_data(graph, _arrays(batches))
        room = training.on.free_bytes() // SHARE
        if len(set(labels)) == len(labels) and sum(array.nbytes for array in data.values()) <= room:
            types = {name: TensorType(array.shape, str(array.dtype)) for name, array in data.items()}
            if training.resident is None or not training.resident.fits(types, batches.batch_size):
                training.resident = ResidentPrograms(training, graph, types, batches.batch_size)
            return ResidentFeed(model, batches, data, training.resident)
    return HostFeed(model, batches, check_finite)


def _arrays(batches: Batches) -> dict[str, Any]:
    """Return a model's data, inputs and labels, by name."""
    assert isinstance(batches.x, dict) and isinstance(batches.y, dict)
    return {**batches.x, **batches.y}


class HostFeed(nullcontext[None]):
    """Batches are cut on the host, and each is given to the program."""

    def __init__(self, model: Model, batches: Batches, check_finite: bool) -> None:
        super().__init__()
        self.model = model
        self.batches = batches
        self.program = model.program("training", check_finite)
        self.ahead = self.program.ahead
        self._rest: Iterator[tuple[Any, Any]] = iter(())

    def begin(self, progress: Progress) -> None:
        """Begin to cut."""
        self._rest = self.batches.epoch(progress.epoch, start=progress.batch)

    def run(self, count: int) -> Iterator[Taking]:
        """Submit a batch at a time."""
        for x, y in islice(self._rest, count):
            yield _adding(self.program.submit(self.model.state, **x, **y), len(next(iter(x.values()))))


def _adding(pending: Pending, samples: int) -> Taking:
    return lambda progress: progress.add(pending.result(), samples)
