"""Running a graph node by node, each value in an array of its own: slow, simple, and with one hook to override."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from minigraph.backends.base import Backend, get
from minigraph.errors import NonFiniteError, ProgramError
from minigraph.ir.graph import Graph
from minigraph.ir.leaves import Constant, Input, Variable
from minigraph.ir.node import Node
from minigraph.ir.types import TensorType, is_float, known
from minigraph.ops.window import NHWC
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
                    results[node] = np.asarray(values[node.op.label], node.dtype, order="C")
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


def constant_evaluator(backend: str | Backend = "numpy") -> Any:
    """Return the evaluator that constant folding is given: a node over constants → its constant."""
    chosen = get(backend)

    def evaluate(node: Node) -> Constant:
        if getattr(node.op, "layout", NHWC) == NHWC:
            with chosen.running():
                value = evaluate_node(node, [evaluate_node(i, [], chosen) for i in node.inputs], chosen)
        else:  # no kernel computes this layout
            legal = CHANNELS_LAST(Graph({"value": node}), Trace())
            value = Interpreter(chosen).run(legal, {})[legal.outputs["value"]]
        return Constant(node.tensor_type, value.tobytes())

    return evaluate


class _FiniteChecker(Interpreter):
    """Stops at the first node that makes a non-finite value of finite operands."""

    def run_node(self, node: Node, inputs: list[Any]) -> Any:
        value = super().run_node(node, inputs)
        if all(map(_finite, inputs)) and not _finite(value) and not isinstance(node.op, Constant):
            raise NonFiniteError(
                f"{node.op.name} made a value that is not finite",
                expected="finite numbers from finite operands",
                got=_describe(value),
                where=node.origin.where,
                hint="a logarithm or quotient of 0, an overflow, or a learning rate that is too high",
            )
        return value


def _finite(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_finite, value))
    return not is_float(str(value.dtype)) or bool(np.isfinite(value).all())


def _describe(value: Any) -> str:
    arrays = value if isinstance(value, tuple) else (value,)
    bad = sum(int((~np.isfinite(a)).sum()) for a in arrays)
    return f"{bad} of {sum(a.size for a in arrays)} elements are NaN or infinite"


def explain_non_finite(graph: Graph, values: Mapping[str, Any], backend: str | Backend = "numpy") -> None:
    """Raise a NonFiniteError that names the first op, and the user's line, where finite numbers stop being finite."""
    for node in (*graph.inputs, *graph.variables):
        if not _finite(np.asarray(values[node.label])):
            raise NonFiniteError(
                f"{node.op.name} {node.label!r} is not finite", got=_describe(np.asarray(values[node.label])),
                where=node.origin.where,
            )  # fmt: skip
    _FiniteChecker(backend).run(graph, values)
