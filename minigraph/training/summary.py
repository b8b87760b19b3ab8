"""The summary of a model: a row a layer, and what the whole costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from minigraph.errors import ArgumentError
from minigraph.ir.graph import Graph, bind
from minigraph.ir.leaves import Constant, Input, Variable
from minigraph.ir.node import Node
from minigraph.ir.types import known
from minigraph.passes.lower import lower
from minigraph.runtime import compile

if TYPE_CHECKING:
    from minigraph.training.model import Model


def summarise(model: Model, batch_size: int = 1, sizes: Mapping[str, int] | None = None) -> str:
    """Return a table of layers: output type, parameters, FLOPs and bytes of the forward pass; then totals.

    sizes: those that are open beside the batch, N.
    """
    sizes = dict(sizes or {})
    missing = [s for s in model.graph.symbols if s != "N" and s not in sizes]
    if missing:
        raise ArgumentError("sizes are open", expected=", ".join(f"{s}=…" for s in missing), got=sizes or "none")
    graph = bind(lower(model.graph, "inference"), **sizes, **_batch(model, batch_size))
    rows = [_row(scope, nodes) for scope, nodes in _by_layer(graph).items()]
    widths = [max(len(row[i]) for row in [_HEAD, *rows]) for i in range(len(_HEAD))]
    lines = [
        f"Model {model.name!r}, batch size {batch_size}",
        _line(_HEAD, widths),
        "─" * (sum(widths) + 2 * len(widths)),
    ]
    lines += [_line(row, widths) for row in rows]
    return "\n".join([*lines, lines[2], *_totals(model, graph, batch_size, sizes)])


def _batch(model: Model, batch_size: int) -> dict[str, int]:
    return {"N": batch_size} if "N" in model.graph.symbols else {}


_HEAD = ("layer", "output", "parameters", "FLOPs", "bytes")


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    left = [cell.ljust(w) for cell, w in zip(row[:2], widths[:2], strict=True)]
    right = [cell.rjust(w) for cell, w in zip(row[2:], widths[2:], strict=True)]
    return "  ".join(left + right)


def _by_layer(graph: Graph) -> dict[str, list[Node]]:
    """Return the nodes of each innermost layer scope, in order; a variable belongs to its first reader."""
    groups: dict[str, list[Node]] = {}
    for node in graph.nodes:
        if isinstance(node.op, (Variable, Constant)):
            continue
        scope = node.label if isinstance(node.op, Input) else node.origin.scope or node.label
        groups.setdefault(scope, []).append(node)
    return groups


def _row(scope: str, nodes: list[Node]) -> tuple[str, ...]:
    variables = {v: None for n in nodes for v in n.inputs if isinstance(v.op, Variable) and v.origin.scope == scope}
    return (
        scope,
        str(nodes[-1].type),
        f"{sum(known(v.tensor_type.size) for v in variables):,}",
        f"{sum(known(n.op.flops(n)) for n in nodes):,}",
        f"{sum(n.op.bytes(n) for n in nodes if not isinstance(n.op, Input)):,}",
    )


def _totals(model: Model, graph: Graph, batch_size: int, sizes: Mapping[str, int]) -> list[str]:
    trainable = [v for v in model.graph.variables if getattr(v.op, "trainable", False)]
    count = sum(known(v.tensor_type.size) for v in trainable)
    every = sum(known(v.tensor_type.size) for v in model.graph.variables)
    flops = sum(known(n.op.flops(n)) for n in graph.nodes)
    lines = [
        f"parameters: {every:,} ({count:,} trainable, {every - count:,} not)",
        f"inference:  {flops:,} FLOPs, peak memory {_peak(model, graph):,} bytes",
    ]
    if model.training is not None:
        training = bind(model.lower("training"), **sizes, **_batch(model, max(2, batch_size)))
        flops = sum(known(n.op.flops(n)) for n in training.nodes)
        note = "" if batch_size > 1 else " (batch size 2)"
        lines.append(f"training:   {flops:,} FLOPs a step, peak memory {_peak(model, training):,} bytes{note}")
    return lines


def _peak(model: Model, graph: Graph) -> int:
    """Return the bytes of a program's arena, as its plan gives them; variables come on top."""
    backend = "numpy" if model.training is None else model.training.backend
    return compile(graph, backend=backend).plan.peak
