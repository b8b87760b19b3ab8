"""From an ONNX file to a definition: node by node, each through its op's translator."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np

from minigraph.errors import MinigraphError, ModelFormatError, did_you_mean
from minigraph.ir.graph import Graph, topological
from minigraph.ir.leaves import Input, Variable
from minigraph.ir.node import Node
from minigraph.ir.origin import Origin, inheriting
from minigraph.ir.types import Dim, TensorType, is_float
from minigraph.onnx.definitions import definition_of, domain_of, needed_nodes, schema_of, with_attributes
from minigraph.onnx.inputs import DeclaredTypes
from minigraph.onnx.known import Known
from minigraph.onnx.proto import shown
from minigraph.onnx.reader import Reader
from minigraph.onnx.reading import TRANSLATORS
from minigraph.onnx.tensors import array_of
from minigraph.ops import constant, reshape, where
from minigraph.ops.region import between, function

Array = np.ndarray[Any, Any]
_T = TypeVar("_T")
BIND = "bind open sizes: input_shapes={name: shape}"
DOMAINS = ("", "ai.onnx", "ai.onnx.preview.training")
# A file that nobody trusts may hold any attribute anywhere; what Python says to it is the file's fault.
_FAULTS = (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, MemoryError, RecursionError)


class NumbersNeeded(ModelFormatError):
    """The graph cannot be made without the numbers of an input; `name` says which."""

    name = ""


class Importer:
    """Reads one model. `graph` is the definition, `state` the numbers of its variables.

    input_shapes: sizes for inputs whose dimensions the file leaves open, by name. input_values: numbers for inputs that
    shapes depend on; those inputs are constants then.
    """

    def __init__(
        self,
        model: Any,
        folder: Path | None = None,
        file: str = "",
        input_shapes: Mapping[str, Sequence[int | None]] | None = None,
        input_values: Mapping[str, Array] | None = None,
    ) -> None:
        self.model = model
        self.folder = folder
        self.file = _printable(file or model.graph.name or "model")
        self.state: dict[str, Array] = {}
        self.known = Known(self.state)
        self.opsets = {domain_of(o.domain): o.version for o in model.opset_import}
        self.functions = {(domain_of(f.domain), f.name): f for f in model.functions}
        self.outermost: dict[str, Node] = {}
        self.scopes = [self.outermost]  # names in force, innermost last; a function sees its own only
        self.tensors: dict[str, Array] = {}  # initializers that nothing has read yet
        self.promoted: dict[Node, Node] = {}  # constant → the variable that it has become
        self.origin = Origin(file=self.file)
        self.depth = 0
        self.declared = DeclaredTypes()
        shapes, values = dict(input_shapes or {}), dict(input_values or {})
        inputs = self.checked("the inputs", lambda: self._inputs(shapes, values))
        self._initializers()
        self.run(model.graph.node, needed_nodes(model.graph))
        outputs = {o.name: self._output(o.name) for o in model.graph.output}
        self.graph = self.checked("the graph", lambda: Graph(outputs, inputs=inputs))
        used = {v.label for v in self.graph.variables}
        self.state = {label: value for label, value in self.state.items() if label in used}

    # --- inputs and initialisers ----------------------------------------------------------------------------------

    def _inputs(self, shapes: dict[str, Sequence[int | None]], values: dict[str, Array]) -> list[Node]:
        """Make the inputs. Before IR 4 an input with an initialiser is a constant; since, a caller may override it."""
        fixed = {t.name for t in self.model.graph.initializer} if self.model.ir_version < 4 else set()
        declared = [i for i in self.model.graph.input if i.name not in fixed]
        for name in (*shapes, *values):
            if name not in [i.name for i in declared]:
                names = [i.name for i in declared]
                raise ModelFormatError(
                    f"no input is called {shown(name)}", expected=", ".join(names), hint=did_you_mean(name, names)
                )
        inputs = []
        for proto in declared:
            if proto.name in values:
                self._bind(proto.name, self.placed(partial(constant, np.asarray(values[proto.name]))))
                continue
            type = self.declared.type(proto, shapes.get(proto.name))
            made = self.placed(partial(Node, Input(proto.name, type)))
            self._bind(proto.name, made)
            inputs.append(made)
        return inputs

    def _initializers(self) -> None:
        """Read the tensors of the file; each becomes a node where it is first used."""
        if self.model.graph.sparse_initializer:
            raise ModelFormatError("sparse initializers are not supported", hint="store the tensors densely")
        for tensor in self.model.graph.initializer:
            if tensor.name not in self.outermost:  # else an input that this is the default of
                self.tensors[tensor.name] = self.array(tensor, f"initializer {shown(tensor.name)}")

    def _initializer(self, name: str, trainable: bool) -> Node:
        """Make the node of a tensor: weights are variables, integers and single numbers constants."""
        array = self.tensors.pop(name)
        node = self.placed(partial(constant, array))
        self.outermost[name] = node
        return self.as_variable(name, node, trainable) if array.ndim else node

    def array(self, tensor: Any, where: str) -> Array:
        """Return a tensor's numbers."""
        return array_of(tensor, self.folder, f"{self.file}: {where}")

    def as_variable(self, name: str, node: Node, trainable: bool) -> Node:
        """Return a constant of floats that has a name in the file as a variable of that name; other nodes as they are.

        A value that is spread or reshaped from constants counts as one.
        """
        if isinstance(node.op, Variable) or not is_float(node.dtype) or not node.shape:
            return node
        value = self.known.value(node)
        if value is None or value.dtype == object or any(isinstance(n.op, Variable) for n in topological([node])):
            return node
        label = self._label(name)
        self.state[label] = np.array(value, node.dtype, order="C")
        made = self.placed(partial(Node, Variable(label, TensorType(value.shape, node.dtype), trainable=trainable)))
        self.promoted[node] = made  # all readers of the value get the one variable
        return made

    def _label(self, name: str) -> str:
        label = _printable(name)
        taken = {i.name for i in self.model.graph.input} if label not in self.state else self.state.keys()
        number = 1
        while label in self.state or (label != name and label in taken):
            number += 1
            label = f"{_printable(name)[:190]}_{number}"
        return label

    @staticmethod
    def statistics(op_type: str) -> tuple[int, ...]:
        """Return the places of operands that are averages: no gradient trains them."""
        return (3, 4) if op_type == "BatchNormalization" else ()

    # --- nodes ----------------------------------------------------------------------------------------------------

    def find(self, name: str, trainable: bool = True) -> Node | None:
        """Return the value of that name, from the innermost scope that has it."""
        node = next((scope[name] for scope in reversed(self.scopes) if name in scope), None)
        if node is None and name in self.tensors and self.scopes[0] is self.outermost:
            return self._initializer(name, trainable)
        return node if node is None else self.promoted.get(node, node)

    def _bind(self, name: str, node: Node) -> None:
        self.scopes[-1][name] = node

    def _output(self, name: str) -> Node:
        node = self.find(name)
        if node is None:
            raise ModelFormatError(f"output {shown(name)} is made by no node")
        return node

    def run(self, nodes: Iterable[Any], needed: Set[int] | None = None) -> None:
        """Translate nodes in order: all of them, or those at some places."""
        for index, proto in enumerate(nodes):
            if needed is not None and index not in needed:
                continue
            outer = self.origin
            if not self.depth:
                self.origin = Origin(self.file, index + 1, _scope_of(proto))
            results = self.checked(self._called(proto), partial(self.placed, partial(self._node, proto)))
            for name, node in zip(proto.output, results, strict=False):
                if name and node is not None:
                    self._bind(name, node)
            missing = [name for name in proto.output[len(results) :] if name]
            if missing:
                raise ModelFormatError(f"{self._called(proto)}: it has no such result", got=", ".join(missing))
            self.origin = outer

    def placed(self, make: Callable[[], _T]) -> _T:
        """Return `make()`, whose nodes come from the node of the file that is being read."""
        return inheriting(lambda: self.origin, make)

    def _called(self, proto: Any) -> str:
        version = self.opsets.get(domain_of(proto.domain), 0)
        domain = f"{proto.domain}." if proto.domain not in DOMAINS[:2] else ""
        name = proto.name or next(iter(proto.output), "")
        return f"node {shown(name)} ({domain}{proto.op_type}, opset {version})"

    def checked(self, what: str, make: Callable[[], _T]) -> _T:
        """Return `make()`; whatever a file makes fail is a ModelFormatError that says where."""
        try:
            return make()
        except NumbersNeeded:
            raise
        except MinigraphError as error:
            summary = error.summary if what in error.summary else f"{what}: {error.summary}"
            hint = BIND if "bind" in (error.hint or "") or self._is_open(error) else error.hint
            raise ModelFormatError(
                summary, expected=error.expected, got=error.got, hint=hint, where=self.origin.where
            ) from None
        except _FAULTS as error:
            raise ModelFormatError(
                f"{what}: {type(error).__name__}: {str(error)[:300]}", where=self.origin.where
            ) from None

    def _is_open(self, error: MinigraphError) -> bool:
        """Tell whether an error without a hint is about an open size."""
        return error.hint is None and self.declared.speaks_of(f"{error.expected} {error.got}")

    def _node(self, proto: Any) -> list[Node | None]:
        inputs: list[Node | None] = []
        averages = self.statistics(proto.op_type)
        for place, name in enumerate(proto.input):
            node = self.find(name, place not in averages) if name else None
            if name and node is None:
                raise ModelFormatError(f"it reads {shown(name)}, which nothing before it makes")
            inputs.append(node)
        domain = domain_of(proto.domain)
        reader = Reader(self, proto, inputs, self.opsets.get(domain, 1))
        local = self.functions.get((domain, proto.op_type))
        if local is not None:
            return self._call(reader, local)
        if proto.op_type == "If" and domain == "":
            return self._branch(reader)
        if proto.op_type in TRANSLATORS and proto.domain in DOMAINS:
            translator = TRANSLATORS[proto.op_type]
            made = translator.read(reader)
            results: list[Node | None] = [made] if isinstance(made, Node) else list(made)
            return self.whole(reader, results) if translator.whole else results
        return self.whole(reader, self._by_definition(reader))

    def whole(self, reader: Reader, results: Sequence[Node | None]) -> list[Node | None]:
        """Return results as those of one function of the op's name; a single op, or none, stays what it is."""
        operands = list(dict.fromkeys(node for node in reader.inputs if node is not None))
        made = [node for node in results if node is not None]
        attributes = reader.plain_attributes()
        inside = between(made, set(operands))
        alone = len(inside) <= 1 or not operands or any(node in operands for node in made)
        if alone or attributes is None or any(isinstance(n.op, (Input, Variable)) for n in inside):
            return list(results)
        if any(hasattr(n.op, "body") for n in inside):  # a function inside a function is inlined
            return list(results)
        schema = schema_of(reader)
        slots = [-1 if node is None else operands.index(node) for node in reader.inputs]
        given = (*attributes, ("since_version", 0 if schema is None else schema.since_version))
        outputs = tuple(i for i, node in enumerate(results) if node is not None)
        if outputs != tuple(range(len(outputs))):
            given += (("outputs", outputs),)
        places = iter(function(reader.op_type, operands, made, given, slots))
        return [None if node is None else next(places) for node in results]

    # --- ops that are made of others ------------------------------------------------------------------------------

    def _by_definition(self, reader: Reader) -> list[Node | None]:
        """Read an op that has no translator by the function that the ONNX standard defines it as."""
        schema = schema_of(reader)
        if schema is None:
            raise ModelFormatError(
                f"op {shown(reader.op_type)} is not known", expected="an op of the ONNX standard, or a local function",
                hint=did_you_mean(reader.op_type, list(TRANSLATORS)),
            )  # fmt: skip
        body = definition_of(schema, reader)
        if body is None:
            raise ModelFormatError(
                f"op {shown(reader.op_type)} is not supported",
                expected="an op that is read here, or that the standard defines by others",
                hint="docs/onnx.md lists the ops",
            )
        return self._call(reader, body, schema)

    def _call(self, reader: Reader, body: Any, schema: Any = None) -> list[Node | None]:
        """Read a function's nodes in a scope of its own, its attributes put in."""
        if self.depth >= 16:
            raise ModelFormatError("functions are nested too deep", expected="at most 16 levels")
        given = dict(reader.attributes)
        for default in body.attribute_proto:
            given.setdefault(default.name, default)
        if schema is not None:
            for name, attribute in schema.attributes.items():
                if attribute.default_value.type and name not in given:
                    given[name] = attribute.default_value
        scope = {name: node for name, node in zip(body.input, reader.inputs, strict=False) if node is not None}
        outer_scopes, outer_opsets = self.scopes, self.opsets
        self.scopes, self.depth = [scope], self.depth + 1
        self.opsets = {**outer_opsets, **{domain_of(o.domain): o.version for o in body.opset_import}}
        try:
            self.run(with_attributes(body.node, given))
            return [self.find(name) if reader.wanted(i) else None for i, name in enumerate(body.output)]
        finally:
            self.scopes, self.opsets, self.depth = outer_scopes, outer_opsets, self.depth - 1

    def _branch(self, reader: Reader) -> list[Node | None]:
        """Read the branch that a condition chooses; both, and a choice between results, where only a call tells."""
        value = reader.known(0)
        if value is not None:
            return list(self._subgraph(reader, "then_branch" if bool(value.ravel()[0]) else "else_branch"))
        condition = reader.operand(0)
        pairs = zip(*(self._subgraph(reader, name) for name in ("then_branch", "else_branch")), strict=True)
        chosen: list[Node | None] = []
        for then, other in pairs:
            if then.type != other.type:  # what comes behind would depend on the numbers
                self.demand(condition, reader.proto.input[0], "the shapes behind a condition")
            chosen.append(then if then is other else where(reshape(condition, ()), then, other))
        return chosen

    def _subgraph(self, reader: Reader, attribute: str) -> list[Node]:
        """Read a branch in a scope of its own, inside those around it, and return its outputs."""
        if attribute not in reader.attributes:
            raise ModelFormatError(f"{attribute} is missing")
        graph = reader.attributes[attribute].g
        scope: dict[str, Node] = {}
        self.scopes, self.depth = [*self.scopes, scope], self.depth + 1
        try:
            for tensor in graph.initializer:
                array = self.array(tensor, f"initializer {shown(tensor.name)}")
                scope[tensor.name] = self.placed(partial(constant, array))
            self.run(graph.node)
            return [self._output(o.name) for o in graph.output]
        finally:
            self.scopes, self.depth = self.scopes[:-1], self.depth - 1

    # --- what a graph cannot be made without ------------------------------------------------------------------------

    def demand(self, node: Node, name: str, what: str) -> NoReturn:
        """Raise for an operand whose numbers must be known now, naming the input that they come from."""
        inputs = [n for n in topological([node]) if isinstance(n.op, Input)]
        if len(inputs) == 1 and not any(isinstance(s, Dim) for s in inputs[0].shape):
            error = NumbersNeeded(
                f"{what}: the numbers come from input {shown(inputs[0].label)}, but a graph's shapes are fixed",
                expected="numbers in the file", hint=f"give them: input_values={{{inputs[0].label!r}: …}}",
                where=self.origin.where,
            )  # fmt: skip
            error.name = inputs[0].label
            raise error
        raise ModelFormatError(
            f"{what}: the numbers of {shown(name)} are known at a call only", expected="numbers in the file, or sizes",
            got=", ".join(i.label for i in inputs) or repr(node), hint=BIND,
        )  # fmt: skip


def _printable(name: str) -> str:
    return "".join(c if c.isprintable() else "_" for c in name)[:200] or "unnamed"


def _scope_of(proto: Any) -> str:
    """Return where a node stands: its name as a path. PyTorch writes "/layer1/conv1/Conv", the op at the end."""
    name = _printable(proto.name or next(filter(None, proto.output), ""))
    parts = [part for part in name.split("/") if part]
    return "/".join(parts[:-1] if name.startswith("/") and len(parts) > 1 else parts)
