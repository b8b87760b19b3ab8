"""Callbacks, with Keras' hook names. Each can give and take its state, so that a resumed fit goes on as it was."""

from __future__ import annotations

import csv
import io
import math
import os
import pathlib
import sys
from typing import TYPE_CHECKING, Any

from minigraph.errors import ArgumentError, NonFiniteError
from minigraph.files import write_atomically
from minigraph.optimizers import LEARNING_RATE

if TYPE_CHECKING:
    from minigraph.training.model import Model

Logs = dict[str, float]


class Callback:
    """Base: every hook does nothing.

    >>> class Printer(Callback):
    ...     def on_epoch_end(self, epoch, logs):
    ...         print(epoch, logs["loss"])
    """

    model: Model

    def set_model(self, model: Model) -> None:
        """Get to know the model."""
        self.model = model

    def on_train_begin(self) -> None:
        """Before the first epoch."""

    def on_train_end(self) -> None:
        """After the last epoch."""

    def on_epoch_begin(self, epoch: int) -> None:
        """Before an epoch; a resumed epoch is not begun again."""

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """After an epoch, with its loss and metrics; those of the validation data are called `val_…`."""

    def on_train_batch_begin(self, batch: int) -> None:
        """Before a step."""

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """After a step, with the means over the epoch so far."""

    def on_interrupt(self) -> None:
        """After Ctrl-C or SIGTERM, between two steps, before fit raises."""

    def get_state(self) -> dict[str, Any]:
        """Return what a resumed fit must know, as JSON values."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take back what `get_state` gave."""


class History(Callback):
    """Loss and metrics of every epoch: `history["loss"]` is a list. `fit` returns it.

    >>> History().history
    {}
    """

    def __init__(self) -> None:
        self.history: dict[str, list[float]] = {}

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Append."""
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)


class CSVLogger(Callback):
    """Writes a line for each epoch to a CSV file, whole at every epoch.

    >>> CSVLogger("history.csv").path.name
    'history.csv'
    """

    def __init__(self, filename: str | os.PathLike[str]) -> None:
        self.path = pathlib.Path(filename)
        self.rows: list[dict[str, float]] = []

    def on_train_begin(self) -> None:
        """Begin an empty table."""
        self.rows = []

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Add a row and write the table."""
        self.rows.append({"epoch": epoch, **logs})
        table = io.StringIO()
        writer = csv.DictWriter(table, fieldnames=list(self.rows[0]), extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomically(self.path, table.getvalue())

    def get_state(self) -> dict[str, Any]:
        """The rows so far."""
        return {"rows": self.rows}

    def set_state(self, state: dict[str, Any]) -> None:
        """The rows so far."""
        self.rows = list(state.get("rows", []))


class _Monitor(Callback):
    """Base of callbacks that watch one number become better."""

    def __init__(self, monitor: str, mode: str, min_delta: float) -> None:
        if mode not in ("auto", "min", "max"):
            raise ArgumentError("bad mode", expected="auto, min or max", got=repr(mode))
        self.monitor = monitor
        self.sign = 1.0 if mode == "max" or (mode == "auto" and "acc" in monitor) else -1.0
        self.min_delta = abs(min_delta)
        self.best = -math.inf

    def on_train_begin(self) -> None:
        """Forget the best."""
        self.best = -math.inf

    def improved(self, logs: Logs) -> bool:
        """Tell whether the number is better than the best so far, and remember it."""
        if self.monitor not in logs:
            raise ArgumentError(
                f"{type(self).__name__} watches {self.monitor!r}, which is not there", expected=", ".join(logs)
            )
        value = self.sign * logs[self.monitor]
        if not value > self.best + self.min_delta:
            return False
        self.best = value
        return True


class EarlyStopping(_Monitor):
    """Stops when `monitor` has not become better for `patience` epochs.

    >>> EarlyStopping(patience=3).monitor
    'val_loss'
    """

    def __init__(
        self, monitor: str = "val_loss", min_delta: float = 0.0, patience: int = 0, mode: str = "auto",
        restore_best_weights: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(monitor, mode, min_delta)
        self.patience = patience
        self.restore_best_weights = restore_best_weights
        self.wait = 0
        self.best_state: Any = None

    def on_train_begin(self) -> None:
        """Begin to wait."""
        super().on_train_begin()
        self.wait, self.best_state = 0, None

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Count the epochs without improvement."""
        if self.improved(logs):
            self.wait = 0
            if self.restore_best_weights:
                self.best_state = self.model.state.copy()
            return
        self.wait += 1
        if self.wait >= max(1, self.patience):
            self.model.stop_training = True

    def on_train_end(self) -> None:
        """Put the best weights back, if asked to."""
        if self.best_state is not None:
            self.model.state.update(self.best_state)

    def get_state(self) -> dict[str, Any]:
        """The best value and the epochs waited; the best weights are not kept across a restart."""
        return {"best": self.best, "wait": self.wait}

    def set_state(self, state: dict[str, Any]) -> None:
        """The best value and the epochs waited."""
        self.best, self.wait = state["best"], state["wait"]


class ReduceLROnPlateau(_Monitor):
    """Multiplies the learning rate by `factor` when `monitor` has not become better for `patience` epochs.

    >>> ReduceLROnPlateau(factor=0.5).factor
    0.5
    """

    def __init__(
        self, monitor: str = "val_loss", factor: float = 0.1, patience: int = 10, mode: str = "auto",
        min_delta: float = 1e-4, cooldown: int = 0, min_lr: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(monitor, mode, min_delta)
        if not 0 < factor < 1:
            raise ArgumentError("bad factor", expected="0 < factor < 1", got=factor)
        self.factor, self.patience, self.cooldown, self.min_lr = factor, patience, cooldown, min_lr
        self.wait = self.resting = 0

    def on_train_begin(self) -> None:
        """Begin to wait."""
        super().on_train_begin()
        self.wait = self.resting = 0

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Count the epochs without improvement."""
        if self.resting:
            self.resting -= 1
            self.wait = 0
        if self.improved(logs):
            self.wait = 0
            return
        if self.resting:
            return
        self.wait += 1
        if self.wait >= self.patience:
            rate = self.model.state[LEARNING_RATE]
            self.model.state[LEARNING_RATE] = max(float(rate) * self.factor, min(self.min_lr, float(rate)))
            self.wait, self.resting = 0, self.cooldown

    def get_state(self) -> dict[str, Any]:
        """All counters."""
        return {"best": self.best, "wait": self.wait, "resting": self.resting}

    def set_state(self, state: dict[str, Any]) -> None:
        """All counters."""
        self.best, self.wait, self.resting = state["best"], state["wait"], state["resting"]


class _Known(dict[str, Any]):
    """Names for a path; what is not known in the middle of an epoch, a validation loss, is NaN."""

    def __missing__(self, key: str) -> float:
        return math.nan


class ModelCheckpoint(_Monitor):
    """Saves the model after each epoch (or each improvement), and on Ctrl-C, so that `fit(resume=True)` goes on.

    filepath may hold `{epoch}` and the names of logs, as in "best-{epoch}.safetensors".

    >>> ModelCheckpoint("checkpoint.safetensors").save_best_only
    False
    """

    def __init__(
        self, filepath: str | os.PathLike[str], monitor: str = "val_loss", save_best_only: bool = False,
        mode: str = "auto",
    ) -> None:  # fmt: skip
        super().__init__(monitor, mode, 0.0)
        self.filepath = os.fspath(filepath)
        self.save_best_only = save_best_only

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Save."""
        if not self.save_best_only or self.improved(logs):
            self.model.save(self.filepath.format(epoch=epoch, **logs))

    def on_interrupt(self) -> None:
        """Save, unless only the best is wanted."""
        if not self.save_best_only:
            progress = self.model.progress
            self.model.save(self.filepath.format_map(_Known({"epoch": progress.epoch, **progress.means()})))

    def get_state(self) -> dict[str, Any]:
        """The best value."""
        return {"best": self.best}

    def set_state(self, state: dict[str, Any]) -> None:
        """The best value."""
        self.best = state["best"]


class TerminateOnNaN(Callback):
    """Stops at the first step that is not finite, before it is committed; `error` names the op and the user's line.

    >>> TerminateOnNaN().error is None
    True
    """

    def __init__(self) -> None:
        self.error: NonFiniteError | None = None

    def on_train_begin(self) -> None:
        """Forget the last error."""
        self.error = None

    def stop(self, error: NonFiniteError) -> None:
        """Keep the error, show it, and stop training; the state is that of the last finite step."""
        self.error = error
        print(f"\ntraining stopped: {error}", file=sys.stderr)
        self.model.stop_training = True
