"""Recalibration ("precise batch norm"): the statistics of a whole data set in the place of moving averages.

Layer by layer, in inference mode: the moments of a batch norm's input depend only on the batch norms before it, which
have theirs already. So the result is that of one pass over all the data as a single batch, however it is cut into
batches, sorted or ragged (Wu & Johnson, "Rethinking 'Batch' in BatchNorm", 2021, describe the per-batch variant).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from minigraph.data import Batches
from minigraph.errors import GraphError
from minigraph.ir.graph import Graph
from minigraph.ir.leaves import Variable
from minigraph.ir.node import Node
from minigraph.ir.types import normalize_axis
from minigraph.ops.norm import BatchNorm, moments
from minigraph.passes.lower import lower
from minigraph.runtime import compile

if TYPE_CHECKING:
    from minigraph.training.model import Model


def recalibrate(model: Model, arrays: Mapping[str, Any], batch_size: int) -> dict[str, float]:
    """Set all moving averages to the statistics of `arrays`; return the largest change of each variable."""
    changes: dict[str, float] = {}
    done: set[str] = set()
    for level in _levels(model.graph):
        fresh = [norm for norm in level if norm.inputs[3].label not in done]
        if fresh:
            changes.update(_recalibrate_level(model, fresh, arrays, batch_size))
            done.update(norm.inputs[3].label for norm in fresh)
    return changes


def _levels(graph: Graph) -> list[list[Node]]:
    """Return the batch norms with moving averages, grouped by how many others lie before them on the longest path."""
    depth: dict[Node, int] = {}
    levels: dict[int, list[Node]] = {}
    for node in graph.nodes:
        depth[node] = max((depth[i] for i in node.inputs), default=0)
        if isinstance(node.op, BatchNorm) and node.op.moving is not None and not node.op.moving.frozen:
            levels.setdefault(depth[node], []).append(node)
            depth[node] += 1
    return [levels[d] for d in sorted(levels)]


def _recalibrate_level(model: Model, norms: list[Node], arrays: Mapping[str, Any], batch_size: int) -> dict[str, float]:
    outputs: dict[str, Node] = {}
    for i, norm in enumerate(norms):
        x = norm.inputs[0]
        axis = normalize_axis(norm.op.axis, x.rank)  # type: ignore[attr-defined]
        mean, variance = moments(x, tuple(a for a in range(x.rank) if a != axis))
        outputs.update({f"mean{i}": mean, f"variance{i}": variance})
    program = compile(lower(Graph(outputs, inputs=model.graph.inputs), "inference"))
    merged = [_Merged() for _ in norms]
    for batch, _ in Batches(dict(arrays), None, batch_size, shuffle=False).epoch(0):
        results = program(model.state, **batch)
        for i, each in enumerate(merged):
            x = norms[i].inputs[0]
            number = _values_per_channel(x, norms[i], batch)
            each.add(number, results[f"mean{i}"], results[f"variance{i}"])
    changes: dict[str, float] = {}
    for norm, each in zip(norms, merged, strict=True):
        for variable, value in zip(norm.inputs[3:5], each.statistics(norm), strict=True):
            if not isinstance(variable.op, Variable):
                raise GraphError("moving averages must be variables", got=variable, where=variable.origin.where)
            changes[variable.label] = float(np.abs(model.state[variable.label] - value).max())
            model.state[variable.label] = value.astype(variable.dtype)
    return changes


def _values_per_channel(x: Node, norm: Node, batch: Mapping[str, Any]) -> int:
    """Return batch · height · width for one batch."""
    length = len(next(iter(batch.values())))
    axis = normalize_axis(norm.op.axis, x.rank)  # type: ignore[attr-defined]
    number = 1
    for a, size in enumerate(x.shape):
        if a != axis:
            number *= size if isinstance(size, int) else int(size.bind({"N": length}))  # type: ignore[arg-type]
    return number


class _Merged:
    """Count, mean and sum of squared deviations, merged batch by batch in float64 (Chan, Golub & LeVeque 1979)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Any = 0.0
        self.squares: Any = 0.0

    def add(self, count: int, mean: Any, variance: Any) -> None:
        """Take in the statistics of one batch."""
        mean, variance = mean.astype(np.float64), variance.astype(np.float64)
        total = self.count + count
        delta = mean - self.mean
        self.squares = self.squares + variance * count + delta**2 * (self.count * count / total)
        self.mean = self.mean + delta * (count / total)
        self.count = total

    def statistics(self, norm: Node) -> tuple[Any, Any]:
        """Return (mean, variance), the variance unbiased if the layer averages that."""
        unbiased = norm.op.moving.unbiased and self.count > 1  # type: ignore[attr-defined]
        return self.mean, self.squares / (self.count - 1 if unbiased else self.count)
