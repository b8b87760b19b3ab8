"""From a graph to an ONNX file: node by node, each through its op's writer, opset 20 and IR 10."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minigraph.backends.dtypes import array_dtype
from minigraph.errors import DataError, GraphError
from minigraph.ir.graph import Graph, topological
from minigraph.ir.leaves import Input, Item, Variable
from minigraph.ir.node import Node
from minigraph.ir.types import Dim, Size, TensorType, known, symbol_parts
from minigraph.onnx.flat import flat_values
from minigraph.onnx.forms import OPSET, prepared
from minigraph.onnx.known import Known
from minigraph.onnx.parameters import biased, parameters
from minigraph.onnx.proto import onnx_package
from minigraph.onnx.tensors import code_of, tensor_of
from minigraph.onnx.writing import WRITERS
from minigraph.onnx.writing.networks import conv_with, gemm_with
from minigraph.ops.linalg import MatMul
from minigraph.ops.region import Function

if TYPE_CHECKING:
    from onnx import ModelProto

IR = 10


def export(graph: Graph, state: Mapping[str, Any], name: str) -> ModelProto:
    """Return a graph as a ModelProto; `state` holds the numbers of its variables.

    Parameters that are computed from variables (a transposed kernel, γ/√(variance + ε)) are written as numbers. Raises
    a GraphError for a training graph and for ops that ONNX has no form of, a DataError for a variable without numbers.
    """
    if graph.updates:
        raise GraphError("a training graph has no ONNX form", expected="a graph without updates", where="")
    for node in graph.inputs:
        if graph.outputs.get(node.label, node) is not node:
            raise GraphError(
                f"output {node.label!r} has the name of an input",
                expected="a name of its own: a file has one namespace",
                where="",
                hint="build the graph with another name for the output",
            )
    return _Exporter(prepared(graph), state).model(name)


class _Exporter:
    """Writes one graph."""

    def __init__(self, graph: Graph, state: Mapping[str, Any]) -> None:
        onnx = onnx_package()
        self.helper = onnx.helper
        self.graph = graph
        self.known = Known({label: np.asarray(value) for label, value in state.items()})
        self.parameters = parameters(graph)
        self.flat = flat_values(graph, self.parameters)
        self.nodes: list[Any] = []
        self.initializers: dict[str, Any] = {}
        self.taken = {n.label for n in graph.inputs} | set(graph.outputs)
        self.reserved = {n.label for n in graph.variables} - self.taken  # variables keep their names
        self.names: dict[Node, str] = {n: n.label for n in graph.inputs}
        self.items: dict[Node, list[str]] = {}
        self.kept: dict[tuple[Any, ...], str] = {}  # initializers that writers asked for, by their numbers
        self.scope = ""
        self.biased = biased(graph, self.parameters)

    # --- the whole ------------------------------------------------------------------------------------------------

    def model(self, name: str) -> ModelProto:
        """Return the model."""
        absorbed = {pair[0] for pair in self.biased.values()}
        for node in self.graph.nodes:
            if node not in self.parameters and node not in absorbed and not isinstance(node.op, Input):
                self._write(node)
        self._name_outputs()
        nodes, initializers = self._read()
        inputs = [self._info(n.label, n.tensor_type) for n in self.graph.inputs]
        outputs = [self._info(label, n.tensor_type) for label, n in self.graph.outputs.items()]
        graph = self.helper.make_graph(nodes, name or "graph", inputs, outputs, initializers)
        from minigraph import __version__

        model: ModelProto = self.helper.make_model(
            graph, opset_imports=[self.helper.make_opsetid("", OPSET)], ir_version=IR, producer_name="minigraph",
            producer_version=__version__,
        )  # fmt: skip
        return model

    def _name_outputs(self) -> None:
        """Give results the names of the outputs that they are; a second name, or one for an input, is a copy."""
        results = {name for node in self.nodes for name in node.output}
        renamed: dict[str, str] = {}
        for output, node in self.graph.outputs.items():
            name = self.name(node)
            if name in results and name not in renamed:
                renamed[name] = output
            elif name != output:
                self._add("Identity", [name], [output], {})
        for node in self.nodes if renamed else ():
            for names in (node.input, node.output):
                names[:] = [renamed.get(name, name) for name in names]

    def _read(self) -> tuple[list[Any], list[Any]]:
        """Return the nodes and initializers that something reads."""
        read, kept = set(self.graph.outputs), []
        for node in reversed(self.nodes):
            if not read.isdisjoint(node.output):
                read.update(node.input)
                kept.append(node)
        return kept[::-1], [tensor for name, tensor in self.initializers.items() if name in read]

    def _info(self, name: str, type: TensorType) -> Any:
        dims = [s if isinstance(s, int) else str(s) for s in type.shape]
        return self.helper.make_tensor_value_info(name, code_of(type.dtype), dims)

    def _write(self, node: Node) -> None:
        self.scope = node.origin.scope
        if isinstance(node.op, Item):
            self.names[node] = self.items[node.inputs[0]][node.op.index]
        elif self._changes_height(node):
            self.names[node] = self.name(node.inputs[0])
        elif node in self.biased:
            self.names[node] = self._with_bias(node)
        else:
            made = self._function(node) if isinstance(node.op, Function) else self._op(node)
            if isinstance(made, list):
                self.items[node] = made
            else:
                self.names[node] = made

    def _changes_height(self, node: Node) -> bool:
        """Tell whether a node only gives a signal the height that it is written without, or takes it away again."""
        enters = node in self.flat and node.inputs[0].rank == 3
        return enters or (node not in self.flat and any(i in self.flat for i in node.inputs))

    def _op(self, node: Node) -> str | list[str]:
        writer = WRITERS.get(type(node.op))
        if writer is None:
            raise GraphError(
                f"{node.op.name} has no ONNX form", expected="an inference graph", where=node.origin.where,
                hint='export the definition, or what mg.lower(graph, "inference") gives',
            )  # fmt: skip
        return writer(self, node)

    def _function(self, node: Node) -> str | list[str]:
        """Write a function as the node that it came as; `outputs` are the places of its results there."""
        op = node.op
        assert isinstance(op, Function)
        slots = op.slots or tuple(range(len(node.inputs)))
        inputs = ["" if slot < 0 else self.name(node.inputs[slot]) for slot in slots]
        attributes = {k: list(v) if isinstance(v, tuple) else v for k, v in op.attributes if k != "since_version"}
        places = attributes.pop("outputs", [*range(len(op.places(len(node.inputs))))])
        names = [self._result(op.label) if i in places else "" for i in range(max(places) + 1)]
        self._add(op.label, inputs, names, attributes)
        return [names[i] for i in places] if len(places) > 1 else names[places[0]]

    def _with_bias(self, node: Node) -> str:
        source, bias = self.biased[node]
        vector = self.known.value(bias)
        assert vector is not None
        if isinstance(source.op, MatMul):
            return gemm_with(self, source, [self.name(bias)])
        channels = known(source.shape[1])
        name = self._parameter(bias, np.broadcast_to(vector.ravel(), (channels,)), bias.dtype)
        return conv_with(self, source, [name])

    # --- what writers ask for ---------------------------------------------------------------------------------------

    def name(self, node: Node) -> str:
        """Return the name of a value, or of a parameter, which becomes an initializer the first time."""
        if node not in self.names:
            assert node in self.parameters, node
            self.names[node] = self._parameter(node, self._numbers(node), node.dtype)
        return self.names[node]

    def operands(self, node: Node) -> list[str]:
        """Return the names of a node's operands; beside a signal without height, parameters have none either."""
        if node not in self.flat:
            return [self.name(i) for i in node.inputs]
        return [self.without_height(i) if i in self.parameters else self.name(i) for i in node.inputs]

    def without_height(self, parameter: Node) -> str:
        """Return the name of a parameter without its second axis from the end, which is 1."""
        if parameter.rank < 2:
            return self.name(parameter)
        return self._parameter(parameter, np.squeeze(self._numbers(parameter), -2), parameter.dtype)

    def turned(self, node: Node) -> str:
        """Return the name of a value with its last two axes exchanged; of a parameter the numbers are."""
        if node in self.parameters:
            return self._parameter(node, np.swapaxes(self._numbers(node), -1, -2), node.dtype)
        order = [*range(node.rank - 2), node.rank - 1, node.rank - 2]
        return str(self.emit("Transpose", [self.name(node)], perm=order))

    def is_flat(self, node: Node) -> bool:
        """Tell whether a value [N,C,1,L] is written as [N,C,L]."""
        return node in self.flat

    def numbers(self, node: Node) -> Any:
        """Return the numbers of a parameter; None for what depends on inputs."""
        return self._numbers(node) if node in self.parameters else None

    def _numbers(self, node: Node) -> Any:
        value = self.known.value(node)
        if value is None:
            variables = [n.label for n in topological([node]) if isinstance(n.op, Variable)]
            missing = [label for label in variables if label not in self.known.variables]
            raise DataError(
                "a parameter has no numbers", expected="a state with all variables",
                got=", ".join(missing) or repr(node), where=node.origin.where,
            )  # fmt: skip
        return value

    def _parameter(self, node: Node, value: Any, dtype: str) -> str:
        """Return the name of an initializer: a variable's own name, or that of the one variable it is made of."""
        variables = [n.label for n in topological([node]) if isinstance(n.op, Variable)]
        scope = node.origin.scope
        base = variables[0] if len(variables) == 1 else f"{scope}/constant" if scope else "constant"
        array = np.array(value, array_dtype(dtype), order="C")
        key = (base, dtype, array.shape, _digest(array))
        if key not in self.kept:
            self.reserved -= {base}.intersection(variables)
            self.kept[key] = self._store(array, base)
        return self.kept[key]

    def array(self, values: Any, dtype: str, base: str) -> str:
        """Return the name of an initializer with these numbers."""
        array = np.array(values, array_dtype(dtype), order="C")
        key = ("", dtype, array.shape, _digest(array))
        if key not in self.kept:
            self.kept[key] = self._store(array, base)
        return self.kept[key]

    def _store(self, array: Any, base: str) -> str:
        name = self._unique(base)
        self.initializers[name] = tensor_of(array, name)
        return name

    def shape(self, sizes: Sequence[Size]) -> str:
        """Return the name of a vector of sizes; each symbolic one is computed from an input that has it."""
        if not any(isinstance(s, Dim) for s in sizes):
            return self.array(list(sizes), "int64", "shape")
        parts = [self._size(s) if isinstance(s, Dim) else self.array([s], "int64", "shape") for s in sizes]
        return str(self.emit("Concat", parts, axis=0))

    def _size(self, size: Dim) -> str:
        """Write a symbolic size, as a vector of one element: the product of what its symbols are."""
        total = None if size.coefficient == 1 else self.array([size.coefficient], "int64", "shape")
        for symbol in size.symbols:
            base, shift, stride = symbol_parts(symbol)
            part = self._open_size(symbol)
            if part is None:
                whole = self._open_size(base)
                if whole is None:
                    raise GraphError(f"no input has the size {base} as an axis", got=str(size), where="")
                part = self.emit("Add", [whole, self.array([shift], "int64", "shape")])
                part = self.emit("Div", [part, self.array([stride], "int64", "shape")])
            total = part if total is None else self.emit("Mul", [total, part])
        return str(total)

    def _open_size(self, symbol: str) -> str | None:
        """Write the size of an input's axis that is this symbol, or return None where no input has it."""
        found = [(n, a) for n in self.graph.inputs for a, s in enumerate(n.shape) if s == Dim(1, (symbol,))]
        return str(self.emit("Shape", [found[0][0].label], start=found[0][1], end=found[0][1] + 1)) if found else None

    def emit(self, op_type: str, inputs: Sequence[str], outputs: int = 1, **attributes: Any) -> Any:
        """Write a node and return the name of its result, or a list of several."""
        names = [self._result(op_type) for _ in range(outputs)]
        self._add(op_type, inputs, names, attributes)
        return names[0] if outputs == 1 else names

    def _add(self, op_type: str, inputs: Sequence[str], outputs: Sequence[str], attributes: dict[str, Any]) -> None:
        trimmed = list(inputs)
        while trimmed and not trimmed[-1]:
            trimmed.pop()
        # With a stroke in front, as PyTorch writes paths: what stands before the last stroke is the scope.
        name = "/".join(["", *filter(None, (self.scope,)), next(filter(None, outputs)).rpartition("/")[2]])
        self.nodes.append(self.helper.make_node(op_type, trimmed, list(outputs), name=name, **attributes))

    def _unique(self, base: str) -> str:
        """Return a new name, numbered where it is not the first; not that of a variable, which is kept for it."""
        name, number = base, 1
        while name in self.taken or name in self.reserved:
            number += 1
            name = f"{base}_{number}"
        self.taken.add(name)
        return name

    def _result(self, op_type: str) -> str:
        """Return a new name for what a node makes: its scope and op; imported scopes end with the op already."""
        if re.fullmatch(rf"{op_type}(_\d+)?", self.scope.rpartition("/")[2]):
            return self._unique(self.scope)
        return self._unique(f"{self.scope}/{op_type}" if self.scope else op_type)


def _digest(array: Any) -> bytes:
    """Return what tells arrays apart, so that none is kept twice."""
    return hashlib.blake2b(array.tobytes()).digest()
