"""Plots of training curves and of benchmarks, with matplotlib (extra `plots`)."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from typing import Any

from minigraph.errors import MissingExtraError
from minigraph.files import write_atomically
from minigraph.viz.style import THEMES


def plot_history(history: Mapping[str, Sequence[float]], path: str | os.PathLike[str] | None = None) -> Any:
    """Return a figure with a panel for each quantity, training beside validation; write it to `path` if given.

    history: name → value for each epoch, as `History.history`; `val_loss` is drawn with `loss`. The path's suffix
    decides the format (png, svg, pdf). Raises a MissingExtraError without matplotlib.

    >>> plot_history({"loss": [1.0, 0.5], "val_loss": [1.1, 0.7]}).axes[0].get_ylabel()  # doctest: +SKIP
    'loss'
    """
    names = [name for name in history if not name.startswith("val_")]
    figure = _figure(4.5 * max(1, len(names)), 3.2)
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
    return _written(figure, path)


def plot_speeds(
    speeds: Mapping[str, Mapping[str, tuple[float, float, float]]],
    path: str | os.PathLike[str] | None = None,
    ours: str = "minigraph",
) -> Any:
    """Return a figure with a panel for each workload, and a bar for each peer: how many times faster it is.

    speeds: title → peer → (speed, lowest, highest), the speeds relative to one of the peers; those whose names begin
    with `ours` are coloured. The figure is written to `path` if given. Raises a MissingExtraError without matplotlib.

    >>> speeds = {"W1": {"torch": (1.0, 1.0, 1.0), "minigraph-c": (4.0, 3.5, 4.2)}}
    >>> plot_speeds(speeds).axes[0].get_title(loc="left")  # doctest: +SKIP
    'W1'
    """
    heights = [0.9 + 0.28 * len(peers) for peers in speeds.values()]
    figure = _figure(7.0, 0.3 + sum(heights))
    panels = figure.subplots(len(speeds), height_ratios=heights, squeeze=False)[:, 0]
    for axes, (workload, peers) in zip(panels, speeds.items(), strict=True):
        _bars(axes, dict(sorted(peers.items(), key=lambda item: -item[1][0])), ours)
        axes.set_title(workload, loc="left", fontsize=10)
    return _written(figure, path)


def _bars(axes: Any, peers: Mapping[str, tuple[float, float, float]], ours: str) -> None:
    theme = THEMES["light"]
    colors = [theme.boxes["fused" if peer.startswith(ours) else "other"] for peer in peers]
    speeds = [speed for speed, _, _ in peers.values()]
    reach = [[speed - low for speed, low, _ in peers.values()], [high - speed for speed, _, high in peers.values()]]
    axes.barh(
        list(peers), speeds, xerr=reach, height=0.7, capsize=2, ecolor=theme.muted,
        color=[fill for fill, _ in colors], edgecolor=[border for _, border in colors],
    )  # fmt: skip
    for place, (speed, _, high) in enumerate(peers.values()):
        axes.annotate(f" {speed:.2f}", (high, place), va="center", fontsize=8)
    axes.axvline(1.0, color=theme.line, linewidth=0.8, linestyle="--")
    axes.invert_yaxis()  # the fastest on top
    axes.margins(x=0.1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("matplotlib", "plots", "plotting") from None
    return Figure(figsize=(width, height), layout="constrained", dpi=120)


def _written(figure: Any, path: str | os.PathLike[str] | None) -> Any:
    """Return the figure, written to a path if there is one."""
    if path is not None:
        buffer = io.BytesIO()
        suffix = os.path.splitext(os.fspath(path))[1].lstrip(".") or "png"
        # No dates in the file: the same history gives the same bytes.
        metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(suffix, {})
        figure.savefig(buffer, format=suffix, metadata=metadata)
        write_atomically(path, buffer.getvalue())
    return figure
