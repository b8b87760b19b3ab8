"""Two computations of one thing, compared: what each node gives in its own dtype, against the derived error bounds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigraph.backends.base import get
from minigraph.backends.dtypes import array_dtype
from minigraph.ir.graph import Graph, topological
from minigraph.ir.leaves import Input, Item, Variable
from minigraph.ir.node import Node
from minigraph.ir.types import TensorType, TupleType
from minigraph.ops.group import Group
from minigraph.ops.region import Function, Region, inlined_results
from minigraph.ops.shape import After
from minigraph.ops.window import NHWC
from minigraph.passes.layout import CHANNELS_LAST
from minigraph.passes.trace import Trace
from minigraph.runtime.interpreter import Interpreter, evaluate_node
from minigraph.testing.bounds import Bounded


@dataclass(frozen=True)
class Difference:
    """How far apart two values are: the largest error, the bound at that element, the largest ratio of the two.

    unbounded: elements for which nothing can be promised, an overflow or an ambiguous comparison; they do not count.
    """

    error: float
    bound: float
    ratio: float
    unbounded: int = 0

    @property
    def holds(self) -> bool:
        """Whether every element is within its bound."""
        return self.ratio <= 1.0


def difference(before: Any, after: Any, bound: Any, finite: Any = False) -> Difference:
    """Return the difference of two arrays (or tuples of arrays) against the bound of each element.

    finite: where the first is known to be finite, whatever rounding does; there the second must be too.

    >>> difference(np.array([1.0, 2.0]), np.array([1.0, 2.5]), np.array([0.1, 1.0]))
    Difference(error=0.5, bound=1.0, ratio=0.5, unbounded=0)
    """
    if isinstance(before, tuple):
        sure = finite if isinstance(finite, tuple) else (finite,) * len(before)
        parts = [difference(b, a, e, f) for b, a, e, f in zip(before, after, bound, sure, strict=True)]
        worst = max(parts, key=lambda d: d.ratio)
        return Difference(worst.error, worst.bound, worst.ratio, sum(p.unbounded for p in parts))
    old, new = (np.asarray(v, np.float64) for v in (before, after))
    limit = np.broadcast_to(np.asarray(bound, np.float64), old.shape)
    same = (old == new) | (np.isnan(old) & np.isnan(new))
    lost = finite & np.isfinite(old) & ~np.isfinite(new)
    open_ = ~np.isfinite(limit) & ~lost
    with np.errstate(all="ignore"):
        error = np.where(same | open_, 0.0, np.abs(old - new))
        error = np.where(np.isnan(error), np.inf, error)
        ratio = np.where(np.isinf(error), np.inf, np.where(error > 0, error / limit, 0.0))
    if not ratio.size:
        return Difference(0.0, 0.0, 0.0)
    place = int(np.argmax(ratio))
    return Difference(float(error.flat[place]), float(limit.flat[place]), float(ratio.flat[place]), int(open_.sum()))


def allowed(before: Bounded, after: Bounded) -> Any:
    """Return how far apart two correct computations of one value may be: each within its error of the exact value."""
    if isinstance(before.error, tuple):
        return tuple(b + a for b, a in zip(before.error, after.error, strict=True))
    return before.error + after.error


def surely_finite(before: Bounded) -> Any:
    """Return where a correct computation of a value cannot but be finite."""
    if isinstance(before.error, tuple):
        return tuple(np.isfinite(e) for e in before.error)
    return np.isfinite(before.error)


def compute(
    nodes: Iterable[Node], values: Mapping[str, Any], sizes: Mapping[str, int] | None = None
) -> dict[Node, Any]:
    """Return what each node, and all it depends on, is in its own dtype; nodes that graphs share are computed once.

    values: inputs and variables by label. sizes: numbers for symbolic sizes.
    """
    backend = get("numpy")
    known: dict[Node, Any] = {}
    with backend.running():
        for node in topological(nodes):
            op = node.op.bind(sizes) if sizes else node.op
            if isinstance(op, (Input, Variable)):
                known[node] = np.asarray(values[op.label], array_dtype(node.dtype), order="C")
                continue
            operands = [known[i] for i in node.inputs]
            known[node] = _value(op, operands, backend)
    return known


def _value(op: Any, operands: list[Any], backend: Any) -> Any:
    if isinstance(op, Item):
        return operands[0][op.index]
    if isinstance(op, After):  # what it waits for may be a tuple
        return operands[0]
    node = Node(op, [_leaf(i, value) for i, value in enumerate(operands)])
    if not _needs_legalising(op):
        return evaluate_node(node, operands, backend)
    results = inlined_results(node) if isinstance(op, (Function, Group)) else [node]
    graph = CHANNELS_LAST(Graph({str(i): result for i, result in enumerate(results)}), Trace())
    found = Interpreter(backend).run(
        graph, {leaf.label: value for leaf, value in zip(node.inputs, operands, strict=True)}
    )
    values = tuple(found[result] for result in graph.outputs.values())
    return values if isinstance(node.type, TupleType) else values[0]


def _leaf(index: int, value: Any) -> Node:
    return Node(Input(f"x{index}", TensorType(value.shape, str(value.dtype))))


def _needs_legalising(op: Any) -> bool:
    if isinstance(op, (Function, Group)):
        return True
    first = op.body[0].op if isinstance(op, Region) else op
    return getattr(first, "layout", NHWC) != NHWC
