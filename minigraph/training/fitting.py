"""The training loop: epochs, batches, callbacks, interrupts, and where a resumed run goes on."""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from minigraph.data import Batches
from minigraph.errors import ArgumentError, DataError, NonFiniteError
from minigraph.training.callbacks import Callback, History, ModelCheckpoint, TerminateOnNaN
from minigraph.training.feeding import feed_of
from minigraph.training.progress import ProgressLine

if TYPE_CHECKING:
    from minigraph.training.model import Model


@dataclass
class Progress:
    """How far a fit is: the next epoch and batch, and what is known of the running epoch.

    `totals`: sums of loss and metrics, weighted by batch sizes, over `samples` examples. `batch_size` and `examples`:
    how the epoch is cut. Together with the state (which holds step count, slots, averages and random counters) it is
    all that an exact resume needs: the order of the data is a function of seed and epoch.
    """

    epoch: int = 0
    batch: int = 0
    samples: int = 0
    batch_size: int = 0
    examples: int = 0
    totals: dict[str, float] = field(default_factory=dict)
    history: dict[str, list[float]] = field(default_factory=dict)
    callbacks: list[dict[str, Any]] = field(default_factory=list)

    def add(self, logs: Mapping[str, Any], samples: int) -> None:
        """Take in one batch."""
        for name, value in logs.items():
            self.totals[name] = self.totals.get(name, 0.0) + float(value) * samples
        self.samples += samples
        self.batch += 1

    def reach(self, totals: Mapping[str, Any], batch: int, samples: int) -> None:
        """Take in that the epoch has come to a batch, and what the sums are there."""
        self.totals = {name: float(total) for name, total in totals.items()}
        self.batch, self.samples = batch, samples

    def means(self) -> dict[str, float]:
        """Return the means over the epoch so far."""
        return {name: total / max(1, self.samples) for name, total in self.totals.items()}

    def next_epoch(self) -> None:
        """Begin a new epoch."""
        self.epoch, self.batch, self.samples, self.totals = self.epoch + 1, 0, 0, {}


# Takes the results of steps into the progress, when they are there.
Taking: TypeAlias = Callable[[Progress], None]


class Loop:
    """One call of fit.

    Steps that a device computes are submitted ahead of their results, unless a callback looks at single steps. What
    callbacks, checkpoints and interrupts see is a progress that agrees with the state.
    """

    def __init__(
        self, model: Model, batches: Batches, validation: Any, epochs: int, callbacks: Sequence[Callback],
        verbose: str | int,
    ) -> None:  # fmt: skip
        if epochs < 0:
            raise ArgumentError("bad epochs", expected="an integer ≥ 0", got=epochs)
        self.model = model
        self.batches = batches
        self.validation = validation
        self.epochs = epochs
        self.history = History()
        # Checkpoints come last, so that what they save holds what the others learned from the epoch.
        others = sorted(callbacks, key=lambda callback: isinstance(callback, ModelCheckpoint))
        self.callbacks: list[Callback] = [self.history, *others]
        self.line = ProgressLine(verbose, epochs, len(batches))
        self.stopper = next((c for c in callbacks if isinstance(c, TerminateOnNaN)), None)
        self.steps = model.compiled().steps_per_execution
        self.feed = feed_of(model, batches, check_finite=self.stopper is not None)
        self._ahead = 0 if any(map(_watches_steps, self.callbacks)) else self.feed.ahead
        self._pending: deque[Taking] = deque()

    def run(self, initial_epoch: int, resume: bool) -> History:
        """Train, and return the history."""
        model = self.model
        if not resume:
            model.progress = Progress(epoch=initial_epoch)
        self._check_same_batches(model.progress)
        model.stop_training = False
        for callback in self.callbacks:
            callback.set_model(model)
        self.call("on_train_begin")
        if resume:
            self._restore()
        model.remember = self.remember
        try:
            with self.feed, _deferred_signals() as received:
                try:
                    while model.progress.epoch < self.epochs and not model.stop_training:
                        self._epoch(received)
                finally:
                    self.remember()
        finally:
            model.remember = None
        self.call("on_train_end")
        self.line.close()
        return self.history

    def _check_same_batches(self, progress: Progress) -> None:
        """Refuse to go on in the middle of an epoch that was cut into other batches."""
        batches = (self.batches.batch_size, self.batches.samples)
        if progress.batch and batches != (progress.batch_size, progress.examples):
            raise DataError(
                "the fit to resume stopped in the middle of an epoch over other batches",
                expected=f"batch_size={progress.batch_size}, {progress.examples} examples",
                got=f"batch_size={batches[0]}, {batches[1]} examples",
            )
        progress.batch_size, progress.examples = batches

    def _restore(self) -> None:
        self.history.history = {k: list(v) for k, v in self.model.progress.history.items()}
        saved = list(self.model.progress.callbacks)
        for callback in self.callbacks:
            # By kind, in order: a resumed fit may have callbacks that the stopped one had not.
            own = next((entry for entry in saved if entry["kind"] == type(callback).__name__), None)
            if own is not None:
                saved.remove(own)
                callback.set_state(own["state"])

    def remember(self) -> None:
        """Put what is known of all steps so far into the model's progress, so that saving it saves all."""
        self._settle()
        self.model.progress.history = {k: list(v) for k, v in self.history.history.items()}
        self.model.progress.callbacks = [
            {"kind": type(callback).__name__, "state": callback.get_state()} for callback in self.callbacks
        ]

    def call(self, hook: str, *arguments: Any) -> None:
        """Call a hook of all callbacks."""
        for callback in self.callbacks:
            getattr(callback, hook)(*arguments)

    def _epoch(self, received: list[int]) -> None:
        progress, start = self.model.progress, time.perf_counter()
        epoch = progress.epoch
        if progress.batch == 0:
            self.call("on_epoch_begin", epoch)
        self.line.begin(epoch)
        self.feed.begin(progress)
        for first in range(progress.batch, len(self.batches), self.steps):
            if not self._execution(first, min(self.steps, len(self.batches) - first)):
                return
            if received:
                self._interrupted(received[0])
            if self.model.stop_training:
                break
        self._settle()
        logs = progress.means()
        if self.validation is not None:
            arrays, labels = self.validation
            judged = self.model.judge(arrays, labels, self.batches.batch_size)
            logs.update({f"val_{name}": value for name, value in judged.items()})
        progress.next_epoch()
        self.call("on_epoch_end", epoch, logs)
        self.line.end(epoch, logs, time.perf_counter() - start)
        if received:
            self._interrupted(received[0])

    def _execution(self, first: int, count: int) -> bool:
        """Do so many steps, from a batch on; return whether to go on."""
        progress = self.model.progress
        self.call("on_train_batch_begin", first)
        try:
            for taking in self.feed.run(count):
                self._pending.append(taking)
                self._settle(self._ahead)
        except NonFiniteError as error:
            if self.stopper is None:
                raise
            self.stopper.stop(error)
            return False
        self.call("on_train_batch_end", first + count - 1, progress.means())
        self.line.update(progress.batch, progress.means())
        return True

    def _settle(self, ahead: int = 0) -> None:
        """Take in results until no more than so many are waited for."""
        while len(self._pending) > ahead:
            self._pending.popleft()(self.model.progress)

    def _interrupted(self, number: int) -> None:
        self._settle()
        self.call("on_interrupt")
        self.line.close()
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)


def _watches_steps(callback: Callback) -> bool:
    """Tell whether a callback has something to do before or after each step."""
    hooks = ("on_train_batch_begin", "on_train_batch_end")
    return any(getattr(getattr(callback, hook), "__func__", None) is not getattr(Callback, hook) for hook in hooks)


@contextmanager
def _deferred_signals() -> Iterator[list[int]]:
    """Note the first Ctrl-C or SIGTERM instead of stopping in the middle of a step; a second one stops at once."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def note(number: int, frame: Any) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
