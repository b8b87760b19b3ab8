"""Running a graph node by node, each value in an array of its own: slow, simple, and with one hook to override."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from minigraph.backends.base import Backend, get
from minigraph.backends.dtypes import array_dtype
from minigraph.errors import NonFiniteError, ProgramError
from minigraph.ir.graph import Graph
from minigraph.ir.leaves import Constant, Input, Variable
from minigraph.ir.node import Node
from minigraph.ir.types import TensorType, is_float, known
from minigraph.ops.group import Group
from minigraph.ops.region import Function
from minigraph.ops.window import NHWC
from minigraph.passes.inline import INLINE
from minigraph.passes.layout import CHANNELS_LAST
from minigraph.passes.trace import Trace


class Interpreter:
    """Evaluates a bound graph. Override `run_node` to look at, or change, what happens at each node."""

    def __init__(self, backend: str | Backend = "numpy") -> None:
        self.backend = get(backend)

    def run(self, graph: Graph, values: Mapping[str, Any]) -> dict[Node, Any]:
        """Return the value of every node; `values` holds inputs and variables by name."""
        results: dict[Node, Any] = {}
        with self.backend.running():
            for node in graph.nodes:
                if isinstance(node.op, (Input, Variable)):
                    if node.op.label not in values:
                        raise ProgramError(f"no value for {node.op.label!r}", where=node.origin.where)
                    results[node] = np.asarray(values[node.op.label], array_dtype(node.dtype), order="C")
                else:
                    results[node] = self.run_node(node, [results[i] for i in node.inputs])
        return results

    def run_node(self, node: Node, inputs: list[Any]) -> Any:
        """Return one node's value: an array, or a tuple of arrays."""
        return evaluate_node(node, inputs, self.backend)


def evaluate_node(node: Node, inputs: list[Any], backend: Backend) -> Any:
    """Return the value of one op on arrays, in fresh memory."""
    if isinstance(node.op, Constant):
        return backend.from_bytes(node.op.data, _sizes(node.op.type), node.op.type.dtype)
    needs = backend.needs(node)
    if needs.alias is not None:
        value = inputs[needs.alias]
        return value[node.op.index] if isinstance(value, tuple) else value.reshape(_sizes(node.tensor_type))  # type: ignore[attr-defined]
    types = [node.type] if isinstance(node.type, TensorType) else list(node.type.items)
    arrays = [_new(backend, t) for t in types]
    output = arrays[0] if isinstance(node.type, TensorType) else tuple(arrays)
    backend.kernel(node, inputs, output, backend.allocate(needs.workspace))()
    return output


def _sizes(type: TensorType) -> tuple[int, ...]:
    return tuple(known(s) for s in type.shape)


def _new(backend: Backend, type: TensorType) -> Any:
    return backend.view(backend.allocate(known(type.nbytes)), 0, _sizes(type), type.dtype)


def with_kernels(expression: Node) -> Node:
    """Return an expression in ops and in the layout that there are kernels for; itself where it is so already."""
    graph = Graph({"value": expression})
    if any(isinstance(node.op, (Function, Group)) or getattr(node.op, "layout", NHWC) != NHWC for node in graph.nodes):
        graph = CHANNELS_LAST(INLINE(graph, Trace()), Trace())
    return graph.outputs["value"]


def constant_evaluator(backend: str | Backend = "numpy") -> Any:
    """Return the evaluator that constant folding is given: an expression of constants → its constant."""
    chosen = get(backend)

    def evaluate(expression: Node) -> Constant:
        legal = with_kernels(expression)
        value = Interpreter(chosen).run(Graph({"value": legal}), {})[legal]
        return Constant(expression.tensor_type, value.tobytes())

    return evaluate


def _finite(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_finite, value))
    return not is_float(str(value.dtype)) or bool(np.isfinite(value).all())


def _describe(value: Any) -> str:
    arrays = value if isinstance(value, tuple) else (value,)
    bad = sum(int((~np.isfinite(a)).sum()) for a in arrays)
    return f"{bad} of {sum(a.size for a in arrays)} elements are NaN or infinite"


def explain_non_finite(graph: Graph, values: Mapping[str, Any], backend: str | Backend = "numpy") -> None:
    """Raise a NonFiniteError that names the op, and the user's line, where finite numbers stop being finite.

    Only values that reach an output or an update count: what a `where` drops is no fault.
    """
    results = Interpreter(backend).run(graph, values)
    bad = {node for node, value in results.items() if not _finite(value)}
    stack = [node for node in (*graph.outputs.values(), *graph.updates.values()) if node in bad]
    reached: set[Node] = set()
    while stack:
        node = stack.pop()
        if node not in reached:
            reached.add(node)
            stack += [operand for operand in node.inputs if operand in bad]
    for node in graph.nodes:
        if node in reached and not any(operand in bad for operand in node.inputs):
            leaf = isinstance(node.op, (Input, Variable, Constant))
            raise NonFiniteError(
                f"{node.op.name} {node.label!r} is not finite"
                if leaf
                else f"{node.op.name} made a value that is not finite",
                expected="finite numbers" if leaf else "finite numbers from finite operands",
                got=_describe(results[node]),
                where=node.origin.where,
                hint=None if leaf else "a logarithm or quotient of 0, an overflow, or a learning rate that is too high",
            )
