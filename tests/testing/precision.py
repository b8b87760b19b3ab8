"""The same graph in another precision: what the error bounds of `minigraph.testing.bounds` are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from backends.reference import REFERENCES

from minigraph.backends.dtypes import array_dtype
from minigraph.ir import Constant, Graph, Input, Node, Op, Variable, variable
from minigraph.ir.leaves import input as input_
from minigraph.ir.types import is_float
from minigraph.ops.group import Group
from minigraph.ops.random import RandomUniform
from minigraph.ops.region import Function, Region, Step, inlined_results
from minigraph.ops.shape import Cast
from minigraph.ops.window import NHWC
from minigraph.passes import CHANNELS_LAST, run
from minigraph.runtime import Interpreter
from minigraph.testing.bounds import Bounded, Unit, analyse

Array = np.ndarray[Any, Any]
LONG = np.longdouble


def graph_of(function: Any, arrays: Sequence[Array]) -> tuple[Graph, dict[str, Array]]:
    """Return a case's function as a graph over variables, and the values of those."""
    nodes = [variable(a.shape, name=f"x{i}", dtype=str(a.dtype)) for i, a in enumerate(arrays)]
    found = function(*nodes)
    outputs = [found] if isinstance(found, Node) else list(found)
    return Graph({f"y{i}": y for i, y in enumerate(outputs)}), {n.label: a for n, a in zip(nodes, arrays, strict=True)}


def retyped(graph: Graph, dtype: str) -> tuple[Graph, dict[Node, Node]]:
    """Return the graph with all floats of another dtype, random numbers the same, and which node became which."""
    became: dict[Node, Node] = {}

    def make(node: Node, inputs: tuple[Node, ...]) -> Node:
        became[node] = _retyped(node, inputs, dtype)
        return became[node]

    return graph.rebuild(make), became


def _retyped(node: Node, inputs: tuple[Node, ...], dtype: str) -> Node:
    if isinstance(node.op, RandomUniform):
        return Node(Cast(dtype), (Node(node.op, inputs),))
    return node.with_inputs(inputs, _retyped_op(node.op, dtype))


def _retyped_op(op: Op, dtype: str) -> Op:
    if isinstance(op, Constant) and is_float(op.type.dtype):
        values = np.frombuffer(op.data, array_dtype(op.type.dtype)).reshape(op.type.shape)  # type: ignore[arg-type]
        return Constant.of(cast(values, dtype))
    if isinstance(op, (Input, Variable)) and is_float(op.type.dtype):
        return replace(op, type=replace(op.type, dtype=dtype))
    if isinstance(op, Region):
        return replace(op, body=tuple(Step(_retyped_op(step.op, dtype), step.inputs) for step in op.body))
    if is_float(getattr(op, "dtype", "")):
        return replace(op, dtype=dtype)  # type: ignore[type-var]
    return op


def cast(array: Any, dtype: Any) -> Array:
    """Return floats as numbers of another dtype; what is too large becomes the largest."""
    values = np.asarray(array)
    if not is_float(str(values.dtype)):
        return values
    limit, largest = (Unit.of(str(d)).largest for d in (dtype, values.dtype))
    return np.asarray(np.clip(values, -limit, limit) if limit < largest else values, array_dtype(str(dtype)))


def in_long_double(graph: Graph, values: Mapping[str, Array]) -> dict[Node, Any]:
    """Return the value of every node, computed with 64 bits of mantissa by the references."""
    results: dict[Node, Any] = {}
    with np.errstate(all="ignore"):
        for node in graph.nodes:
            op = node.op
            if isinstance(op, (Input, Variable)):
                results[node] = _long(np.asarray(values[op.label]))
            elif isinstance(op, Constant):
                results[node] = _long(np.frombuffer(op.data, op.type.dtype).reshape(op.type.shape))
            elif isinstance(op, Cast) and is_float(op.dtype):
                results[node] = results[node.inputs[0]].astype(LONG)
            else:
                reference = LONG_REFERENCES.get(op.name) or REFERENCES[op.name]
                results[node] = reference(op, *(results[i] for i in node.inputs))
    return results


def _long(array: Array) -> Array:
    return array.astype(LONG) if array.dtype.kind == "f" else array


# Where the plain formula of the reference loses digits that the kernels keep.
LONG_REFERENCES: dict[str, Any] = {
    "sigmoid": lambda op, x: 1 / (1 + np.exp(-x)),
    "silu": lambda op, x: x / (1 + np.exp(-x)),
    "logsumexp": lambda op, x: _log_of_sum(x, op.axes, op.keepdims),
    "softmax": lambda op, x: np.exp(_log_softmax(x, op.axis)),
    "log_softmax": lambda op, x: _log_softmax(x, op.axis),
    "softmax_cross_entropy": lambda op, x, t: -(t * _log_softmax(x, op.axis)).sum(op.axis),
}


def _log_of_sum(x: Array, axes: Any, keepdims: bool) -> Array:
    top = x.max(axes, keepdims=True)
    total = top + np.log(np.exp(x - top).sum(axes, keepdims=True))
    return total if keepdims else total.reshape(x.sum(axes).shape)


def _log_softmax(x: Array, axis: int) -> Array:
    below = x - x.max(axis, keepdims=True)
    return below - np.log(np.exp(below).sum(axis, keepdims=True))


class AnyLayout(Interpreter):
    """Runs graphs that hold N,C,H,W ops, functions and groups too, for which there are no kernels."""

    def run_node(self, node: Node, inputs: list[Any]) -> Any:
        apart = isinstance(node.op, (Function, Group))
        if not apart and getattr(node.op, "layout", NHWC) == NHWC:
            return super().run_node(node, inputs)
        leaves = [input_(x.shape, str(x.dtype), f"x{i}") for i, x in enumerate(inputs)]
        made = Node(node.op, leaves)
        results = inlined_results(made) if apart else [made]
        legal, _ = run([CHANNELS_LAST], Graph({f"y{i}": y for i, y in enumerate(results)}))
        found = self.run(legal, {f"x{i}": x for i, x in enumerate(inputs)})
        values = tuple(found[y] for y in legal.outputs.values())
        return values if len(values) > 1 else values[0]


def violations(graph: Graph, values: Mapping[str, Array], dtype: str) -> tuple[list[str], list[float], int]:
    """Return what is further from the exact value than its bound, error/bound of each node, and how many are bounded.

    The graph is computed in `dtype` by the interpreter, and again in float64 (for float64: in long double). Both the
    computed value and the bound's own must be within the bound.
    """
    low, became = retyped(graph, dtype)
    given = {label: cast(value, dtype) for label, value in values.items()}
    bounds = analyse(low.nodes, given)
    computed = AnyLayout().run(low, given)
    exact, slack = _exact(low, given, dtype)
    wrong, ratios, finite = [], [], 0
    for node in became.values():
        for item, (b, c, z, s) in enumerate(_items(bounds[node], computed[node], exact[node], slack.get(node))):
            finite += int(np.isfinite(b.error).sum())
            for what, value in (("computed", c), ("value", b.value)):
                off = difference(value, z)
                if (off > b.error + s).any():
                    wrong.append(f"{node.op} item {item}: {what} {_worst(off, b.error + s, value, z)}")
            with np.errstate(all="ignore"):
                ratios.append(float(np.nan_to_num(difference(c, z) / b.error).max(initial=0.0)))
    return wrong, ratios, finite


def _exact(graph: Graph, values: Mapping[str, Array], dtype: str) -> tuple[dict[Node, Any], dict[Node, Bounded]]:
    """Return each node's value in a higher precision, and the error bound of that where there is one."""
    if dtype == "float64":
        return in_long_double(graph, values), {}
    high, became = retyped(graph, "float64")
    given = {label: cast(value, "float64") for label, value in values.items()}
    computed, bounds = AnyLayout().run(high, given), analyse(high.nodes, given)
    return {n: computed[m] for n, m in became.items()}, {n: bounds[m] for n, m in became.items()}


def _items(bounded: Bounded, computed: Any, exact: Any, slack: Bounded | None) -> Any:
    if not isinstance(computed, tuple):
        return [(bounded, computed, exact, 0.0 if slack is None else slack.error)]
    slacks = (0.0,) * len(computed) if slack is None else slack.error
    parts = [Bounded(v, e) for v, e in zip(bounded.value, bounded.error, strict=True)]
    return list(zip(parts, computed, exact, slacks, strict=True))


def difference(x: Any, y: Any) -> Array:
    """Return |x − y|: 0 where both are the same infinity or not a number, infinite where only one is."""
    a, b = (np.asarray(v, LONG) for v in (x, y))
    with np.errstate(invalid="ignore"):
        off = np.abs(a - b)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    return np.where(same, 0.0, np.where(np.isnan(off), np.inf, off))


def _worst(off: Array, bound: Array, value: Any, exact: Any) -> str:
    with np.errstate(invalid="ignore"):
        at = np.unravel_index(np.nanargmax(off - np.where(np.isinf(bound), off, bound)), off.shape)
    return f"{np.asarray(value)[at]!r} against {np.asarray(exact)[at]!r}: {off[at]:.3g} > {np.asarray(bound)[at]:.3g}"
