"""What nodes are by the ONNX standard: an op's schema, the function it may be defined as, what a node reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from minigraph.onnx.proto import onnx_package
from minigraph.onnx.reader import Reader
from minigraph.onnx.tensors import code_of


def domain_of(domain: str) -> str:
    """Return a domain in its one form: the standard's own has two names.

    >>> domain_of("ai.onnx"), domain_of("org.other")
    ('', 'org.other')
    """
    return "" if domain == "ai.onnx" else domain


def schema_of(reader: Reader) -> Any:
    """Return the standard's schema of a node's op at its version, or None."""
    defs = onnx_package().defs
    try:
        return defs.get_schema(reader.op_type, reader.version, domain_of(reader.proto.domain))
    except defs.SchemaError:
        return None


def definition_of(schema: Any, reader: Reader) -> Any:
    """Return the function that an op is defined as, for the types it is used with; None if there is none."""
    onnx = onnx_package()
    if schema.has_function:
        return schema.function_body
    if not schema.has_context_dependent_function:
        return None
    types = []
    for node in reader.inputs:
        proto = onnx.TypeProto()
        if node is not None:
            proto.tensor_type.elem_type = code_of(node.dtype)
            proto.tensor_type.shape.SetInParent()
            for size in node.shape:
                dim = proto.tensor_type.shape.dim.add()
                if isinstance(size, int):
                    dim.dim_value = size
                else:
                    dim.dim_param = str(size)
        types.append(proto.SerializeToString())
    body = schema.get_context_dependent_function(reader.proto.SerializeToString(), types)
    return onnx.FunctionProto.FromString(body) if body else None


def with_attributes(nodes: Iterable[Any], given: Mapping[str, Any]) -> list[Any]:
    """Return copies of a function's nodes in which references to its attributes are replaced by their values."""
    made = []
    for node in nodes:
        copy = type(node)()
        copy.CopyFrom(node)
        del copy.attribute[:]
        for attribute in node.attribute:
            if not attribute.ref_attr_name:
                copy.attribute.add().CopyFrom(attribute)
            elif attribute.ref_attr_name in given:
                value = copy.attribute.add()
                value.CopyFrom(given[attribute.ref_attr_name])
                value.name = attribute.name
        made.append(copy)
    return made


def needed_nodes(graph: Any) -> set[int]:
    """Return the places of the nodes that a graph's outputs depend on: what nothing reads need not be known here."""
    read = {output.name for output in graph.output}
    needed: set[int] = set()
    for index in reversed(range(len(graph.node))):
        node = graph.node[index]
        if not read.isdisjoint(node.output):
            needed.add(index)
            read |= _names_read(node)
    return needed


def _names_read(node: Any) -> set[str]:
    """Return all names that a node may read: its inputs, those in graphs that it holds, those that attributes say."""
    names: set[str] = set()
    waiting = [node]
    while waiting:
        each = waiting.pop()
        names.update(each.input)
        for attribute in each.attribute:
            names.add(attribute.s.decode("utf-8", "replace"))  # the training domain's Gradient names a value so
            for body in (attribute.g, *attribute.graphs):
                names.update(output.name for output in body.output)
                waiting += body.node
    return names
