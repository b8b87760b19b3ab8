"""The progress line: a bar on a terminal, one line an epoch when the output is piped."""

from __future__ import annotations

import sys
import time

from minigraph.errors import ArgumentError

WIDTH = 24
# Redrawing more often than this costs more than it tells.
INTERVAL = 0.1


class ProgressLine:
    """verbose: 0 silent, 1 a bar, 2 a line an epoch, "auto" a bar on a terminal and lines elsewhere."""

    def __init__(self, verbose: str | int, epochs: int, batches: int) -> None:
        if verbose not in ("auto", 0, 1, 2):
            raise ArgumentError("bad verbose", expected='"auto", 0, 1 or 2', got=repr(verbose))
        self.verbose = (1 if sys.stdout.isatty() else 2) if verbose == "auto" else int(verbose)
        self.epochs = epochs
        self.batches = batches
        self.drawn = 0.0
        self.open = False

    def begin(self, epoch: int) -> None:
        """Begin an epoch."""
        self.epoch = epoch

    def update(self, batch: int, logs: dict[str, float]) -> None:
        """Draw the bar after `batch` steps."""
        if self.verbose != 1 or (time.perf_counter() - self.drawn < INTERVAL and batch < self.batches):
            return
        self.drawn = time.perf_counter()
        done = WIDTH * batch // max(1, self.batches)
        bar = "━" * done + "─" * (WIDTH - done)
        self._write(f"\r\x1b[Kepoch {self.epoch + 1}/{self.epochs} {bar} {batch}/{self.batches}  {_text(logs)}")
        self.open = True

    def end(self, epoch: int, logs: dict[str, float], seconds: float) -> None:
        """Leave the epoch's line."""
        if not self.verbose:
            return
        start = "\r\x1b[K" if self.verbose == 1 else ""
        self._write(f"{start}epoch {epoch + 1}/{self.epochs}  {seconds:5.1f} s  {_text(logs)}\n")
        self.open = False

    def close(self) -> None:
        """End a line that was left open by an interrupt."""
        if self.open:
            self._write("\n")
            self.open = False

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def _text(logs: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in logs.items())
