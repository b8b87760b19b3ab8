"""The structure of an ONNX model, checked before anything is made of it: versions, names, order, nesting.

What holds afterwards: every name is text; every value is defined once, and before it is used; every node's domain is
imported in a version that the installed onnx knows; every attribute holds what its type says; subgraphs are not deep.
Nothing here recurses, and the time is linear in the size of the model.
"""

from __future__ import annotations

import graphlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from minigraph.errors import ModelFormatError
from minigraph.onnx.proto import onnx_package, shown

if TYPE_CHECKING:
    from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto

MAX_NODES = 1_000_000
MAX_NESTING = 8
OLDEST_IR = 3

# AttributeProto.AttributeType: its name, and the field that holds such a value.
_ATTRIBUTES = {
    1: ("FLOAT", "f"), 2: ("INT", "i"), 3: ("STRING", "s"), 4: ("TENSOR", "t"), 5: ("GRAPH", "g"),
    6: ("FLOATS", "floats"), 7: ("INTS", "ints"), 8: ("STRINGS", "strings"), 9: ("TENSORS", "tensors"),
    10: ("GRAPHS", "graphs"), 11: ("SPARSE_TENSOR", "sparse_tensor"), 12: ("SPARSE_TENSORS", "sparse_tensors"),
    13: ("TYPE_PROTO", "tp"), 14: ("TYPE_PROTOS", "type_protos"),
}  # fmt: skip
_VALUE_FIELDS = {field for _, field in _ATTRIBUTES.values()}
# Messages: absent, they would be read as empty ones. An absent number is 0, which some exporters leave out.
_NEVER_ABSENT = {"TENSOR", "GRAPH", "TYPE_PROTO"}
_SPARSE = {"SPARSE_TENSOR", "SPARSE_TENSORS"}

# A function's domain, name and overload; the main graph goes by one that no function can have.
_Key = tuple[str, str, str]
_MAIN: _Key = ("", "", "")


def verify_model(model: ModelProto, where: str) -> None:
    """Check a model's structure; `where` is the place that messages name.

    Raises ModelFormatError, naming the node and the value, if there is no graph; if its ir_version or an operator set
    is unknown; for more than 1,000,000 nodes, a function's counted at each call, or subgraphs deeper than 8; if a
    value is defined twice (the graph is in static single assignment) or used before it is defined (nodes are sorted,
    without cycles); for functions that call themselves; for attributes that do not hold what their type says; for
    sparse tensors.

    Source: ONNX IR specification, sections "Graphs" and "Nodes".

    >>> verify_model(onnx_package().ModelProto(), "net.onnx")  # doctest: +SKIP
    Traceback (most recent call last):
    ...
    minigraph.errors.ModelFormatError: the model has no graph
      at:       net.onnx
    """
    if not model.HasField("graph"):
        raise ModelFormatError("the model has no graph", where=where)
    newest = onnx_package().IR_VERSION
    if not OLDEST_IR <= model.ir_version <= newest:
        raise ModelFormatError(
            "the model's ir_version is not supported",
            expected=f"{OLDEST_IR} … {newest}",
            got=model.ir_version,
            where=where,
            hint="convert the model, or install a newer onnx",
        )
    if not model.graph.output:
        raise ModelFormatError("the graph has no outputs", where=where)
    opsets = _opsets(model.opset_import, where)
    bodies = {_MAIN: _graph_body(model.graph, where, opsets, ())}
    for function in model.functions:
        key = (_domain(function.domain), function.name, function.overload)
        if key in bodies:
            raise ModelFormatError(f"function {shown(function.name)} is defined twice", expected="once", where=where)
        bodies[key] = _function_body(function, where)
    _verify_bodies(bodies, where)


def _opsets(imports: Iterable[OperatorSetIdProto], where: str) -> frozenset[str]:
    """Return the domains whose operator sets are imported, in versions that are known."""
    newest: dict[str, tuple[int, int]] = onnx_package().defs.C.schema_version_map()
    domains: set[str] = set()
    for entry in imports:
        domain = _domain(_text(entry.domain, "the domain of an operator set", where))
        if domain in domains:
            raise ModelFormatError(f"operator set {shown(domain)} is imported twice", expected="once", where=where)
        highest = newest.get(domain, (1, 2**63))[1]  # of an unknown domain, whoever knows its ops knows its versions
        if not 1 <= entry.version <= highest:
            raise ModelFormatError(
                f"operator set {shown(domain)} has a version that is not known",
                expected=f"1 … {highest}",
                got=entry.version,
                where=where,
                hint="convert the model with onnx.version_converter, or install a newer onnx",
            )
        domains.add(domain)
    if not domains:
        raise ModelFormatError("the model imports no operator set", expected="at least one opset_import", where=where)
    return frozenset(domains)


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def _text(value: object, what: str, where: str) -> str:
    """Return a string from a file, if it is one: protobuf gives bytes where a text is not UTF-8."""
    if not isinstance(value, str):
        raise ModelFormatError(f"{what} is not text", expected="valid UTF-8", got=shown(value), where=where)
    return value


def _name(value: object, what: str, where: str) -> str:
    text = _text(value, what, where)
    if not text:
        raise ModelFormatError(f"{what} is empty", expected="a name", where=where)
    return text


@dataclass(frozen=True)
class _Body:
    """A graph, a subgraph or a function: nodes between names that are given and names that are wanted."""

    where: str
    given: list[str]
    nodes: Sequence[NodeProto]
    wanted: list[str]
    opsets: frozenset[str]
    # The names that can be seen from a subgraph: those before its node, of each graph around it.
    outer: tuple[set[str], ...]


def _graph_body(graph: GraphProto, where: str, opsets: frozenset[str], outer: tuple[set[str], ...]) -> _Body:
    _text(graph.name, "the graph's name", where)
    if len(graph.sparse_initializer):
        raise ModelFormatError(
            "the graph has a sparse initializer, which is not supported", where=where, hint="store it densely"
        )
    inputs = [_name(value.name, f"the name of graph input {i}", where) for i, value in enumerate(graph.input)]
    constants = [_name(t.name, f"the name of initializer {i}", where) for i, t in enumerate(graph.initializer)]
    outputs = [_name(value.name, f"the name of graph output {i}", where) for i, value in enumerate(graph.output)]
    for value in (*graph.input, *graph.output):
        for dim in value.type.tensor_type.shape.dim:
            _text(dim.dim_param, f"the name of a dimension of {shown(value.name)}", where)
    _check_unique(inputs, "graph input", where)
    _check_unique(constants, "initializer", where)
    _check_unique(outputs, "graph output", where)
    given = list(dict.fromkeys(inputs + constants))  # an initializer may be the default of an input
    return _Body(where, given, graph.node, outputs, opsets, outer)


def _function_body(function: FunctionProto, where: str) -> _Body:
    where = f"{where}, function {shown(_name(function.name, 'the name of a function', where))}"
    _text(function.domain, "the function's domain", where)
    inputs = [_name(name, "the name of a function's input", where) for name in function.input]
    outputs = [_name(name, "the name of a function's output", where) for name in function.output]
    for name in (*function.attribute, *(attribute.name for attribute in function.attribute_proto)):
        _name(name, "the name of a function's attribute", where)
    _check_unique(inputs, "function input", where)
    return _Body(where, inputs, function.node, outputs, _opsets(function.opset_import, where), ())


def _check_unique(names: list[str], what: str, where: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ModelFormatError(f"{what} {shown(name)} occurs twice", expected="each name once", where=where)
        seen.add(name)


def _verify_bodies(bodies: Mapping[_Key, _Body], where: str) -> None:
    """Check the main graph and the functions, and that calls do not make many nodes of few."""
    sizes: dict[_Key, int] = {}
    calls: dict[_Key, Counter[_Key]] = {}
    total = 0
    for key, body in bodies.items():
        sizes[key], calls[key] = 0, Counter()
        for entered in _verified(body):
            sizes[key] += len(entered.nodes)
            total += len(entered.nodes)
            _check_size(total, where)
            if len(bodies) > 1:
                calls[key].update(k for k in map(_called, entered.nodes) if k in bodies)
    _check_calls(sizes, calls, where)


def _verified(body: _Body) -> Iterator[_Body]:
    """Check a body and the graphs in it, and yield each on entering it; the stack stands for recursion."""
    stack: list[Iterator[_Body]] = []
    entered: _Body | None = body
    while entered is not None or stack:
        if entered is not None:
            if len(stack) > MAX_NESTING:
                raise ModelFormatError(
                    "subgraphs are nested too deeply", expected=f"at most {MAX_NESTING}", where=entered.where
                )
            yield entered
            stack.append(_verify_body(entered))
        entered = next(stack[-1], None)
        if entered is None:
            stack.pop()


def _called(node: NodeProto) -> _Key:
    return _domain(node.domain), node.op_type, node.overload


def _check_size(nodes: int, where: str, calls: str = "") -> None:
    if nodes > MAX_NODES:
        raise ModelFormatError(
            f"the model has too many nodes{calls}", expected=f"at most {MAX_NODES:,}", got=f"{nodes:,} or more",
            where=where,
        )  # fmt: skip


def _check_calls(sizes: Mapping[_Key, int], calls: Mapping[_Key, Counter[_Key]], where: str) -> None:
    """Refuse functions that call themselves, and calls of calls of calls that double each time."""
    expanded: dict[_Key, int] = {}
    try:
        for key in graphlib.TopologicalSorter(calls).static_order():
            nodes = sizes[key] + sum(times * expanded[called] for called, times in calls[key].items())
            expanded[key] = min(nodes, MAX_NODES + 1)  # or the number itself would become long
    except graphlib.CycleError as error:
        chain = " → ".join(shown(name) for _, name, _ in error.args[1][:5])
        raise ModelFormatError(
            "a function calls itself", expected="functions without recursion", got=chain, where=where
        ) from None
    _check_size(expanded[_MAIN], where, ", the calls of functions counted as what they stand for")


def _verify_body(body: _Body) -> Iterator[_Body]:
    """Check a body's nodes in their order; yield each subgraph when the names that it may use are known."""
    known = set(body.given)
    scopes = (*body.outer, known)
    for index, node in enumerate(body.nodes):
        where = _place(body, index, node)
        _check_operator(node, body.opsets, where)
        _check_inputs(body, index, node, scopes, where)
        yield from _subgraphs(body, node, scopes, where)
        _define_outputs(node, scopes, where)
    for name in body.wanted:
        if not any(name in scope for scope in scopes):
            raise ModelFormatError(
                f"output {shown(name)} is not computed by any node", expected="a name defined in the graph",
                where=body.where,
            )  # fmt: skip


def _place(body: _Body, index: int, node: NodeProto) -> str:
    return f"{body.where}, node {index} {shown(node.name)} ({shown(node.op_type)[1:-1]})"


def _check_operator(node: NodeProto, opsets: frozenset[str], where: str) -> None:
    _text(node.name, "the node's name", where)
    _name(node.op_type, "the node's op_type", where)
    domain = _domain(_text(node.domain, "the node's domain", where))
    if domain not in opsets:
        raise ModelFormatError(
            "the node's operator set is not imported", expected=", ".join(map(shown, sorted(opsets))),
            got=shown(domain), where=where,
        )  # fmt: skip


def _check_inputs(body: _Body, index: int, node: NodeProto, scopes: tuple[set[str], ...], where: str) -> None:
    for name in node.input:
        _text(name, "the name of the node's input", where)
        if not name or any(name in scope for scope in scopes):  # an input without a name is an optional one left out
            continue
        later = next((j for j in range(index, len(body.nodes)) if name in body.nodes[j].output), None)
        if later is None:
            raise ModelFormatError(
                f"the node uses {shown(name)}, which nothing defines",
                expected="a graph input, an initializer or the output of an earlier node",
                where=where,
            )
        raise ModelFormatError(
            f"the node uses {shown(name)} before it is computed",
            expected="nodes in topological order, without cycles",
            got=f"its definition in {_place(body, later, body.nodes[later])}",
            where=where,
        )


def _define_outputs(node: NodeProto, scopes: tuple[set[str], ...], where: str) -> None:
    for name in node.output:
        _text(name, "the name of the node's output", where)
        if any(name in scope for scope in scopes):
            raise ModelFormatError(
                f"the node defines {shown(name)}, which is defined already",
                expected="every value to be defined once (static single assignment)",
                where=where,
            )
        if name:
            scopes[-1].add(name)


def _subgraphs(body: _Body, node: NodeProto, scopes: tuple[set[str], ...], where: str) -> Iterator[_Body]:
    """Check a node's attributes and yield the graphs among them."""
    seen: set[str] = set()
    for attribute in node.attribute:
        name = _name(attribute.name, "the name of the node's attribute", where)
        if name in seen:
            raise ModelFormatError(f"attribute {shown(name)} occurs twice", expected="each name once", where=where)
        seen.add(name)
        for graph in _attribute_graphs(attribute, f"{where}, attribute {shown(name)}"):
            yield _graph_body(graph, f"{where}, subgraph {shown(name)}", body.opsets, scopes)


def _attribute_graphs(attribute: AttributeProto, where: str) -> Sequence[Any]:
    """Return the graphs that an attribute holds, if it holds what its type says."""
    _text(attribute.ref_attr_name, "the attribute's reference", where)
    kind, field = _ATTRIBUTES.get(attribute.type, ("", ""))
    if not kind:
        raise ModelFormatError("the attribute has no type", expected="one of AttributeProto's types", where=where)
    if kind in _SPARSE:
        raise ModelFormatError("sparse tensors are not supported", where=where, hint="store the tensor densely")
    held = {descriptor.name for descriptor, _ in attribute.ListFields()} & _VALUE_FIELDS
    is_absent = kind in _NEVER_ABSENT and not held and not attribute.ref_attr_name
    if held - {field} or is_absent:
        raise ModelFormatError(
            "the attribute does not hold what its type says",
            expected=f"a {kind} in the field {field!r}",
            got=", ".join(sorted(held)) or "nothing",
            where=where,
        )
    if kind == "GRAPH":
        return [attribute.g] if held else []
    return attribute.graphs if kind == "GRAPHS" else []
