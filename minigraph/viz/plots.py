"""Plots of training curves, with matplotlib (extra `plots`)."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from typing import Any

from minigraph.errors import MissingExtraError
from minigraph.files import write_atomically


def plot_history(history: Mapping[str, Sequence[float]], path: str | os.PathLike[str] | None = None) -> Any:
    """Return a figure with a panel for each quantity, training beside validation; write it to `path` if given.

    history: name → value for each epoch, as `History.history`; `val_loss` is drawn with `loss`. The path's suffix
    decides the format (png, svg, pdf). Raises a MissingExtraError without matplotlib.

    >>> plot_history({"loss": [1.0, 0.5], "val_loss": [1.1, 0.7]}).axes[0].get_ylabel()  # doctest: +SKIP
    'loss'
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("matplotlib", "plots", "plotting") from None
    names = [name for name in history if not name.startswith("val_")]
    figure = Figure(figsize=(4.5 * max(1, len(names)), 3.2), layout="constrained", dpi=120)
    for i, name in enumerate(names):
        axes = figure.add_subplot(1, len(names), i + 1)
        for key, label, color in ((name, "training", "#0284c7"), (f"val_{name}", "test", "#ea580c")):
            if key in history:
                values = list(history[key])
                axes.plot(range(1, len(values) + 1), values, label=label, color=color, marker="." * (len(values) < 60))
        axes.set_xlabel("epoch")
        axes.set_ylabel(name)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    if path is not None:
        buffer = io.BytesIO()
        suffix = os.path.splitext(os.fspath(path))[1].lstrip(".") or "png"
        # No dates in the file: the same history gives the same bytes.
        metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(suffix, {})
        figure.savefig(buffer, format=suffix, metadata=metadata)
        write_atomically(path, buffer.getvalue())
    return figure
