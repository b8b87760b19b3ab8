"""Graph → text. The grammar is in docs/text-format.md; `parse` reads it back, and printing that gives the same text."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
from functools import cache
from typing import TYPE_CHECKING, Any

from minigraph.ir.encoding import pack, unpack
from minigraph.ir.leaves import Constant
from minigraph.ir.node import Node
from minigraph.ir.op import Op
from minigraph.ir.types import RESERVED, Dim, TensorType, is_float

if TYPE_CHECKING:
    from minigraph.ir.graph import Graph

# Longer constants are written as base64: a list of a million numbers is for nobody.
LITERAL_LIMIT = 32
# A constant with one value everywhere is written as that value, up to this many bytes: a short text must not be able
# to ask for much memory.
SPLAT_LIMIT = 1 << 24


def print_graph(graph: Graph) -> str:
    """Return the graph as text, one node a line, numbered in order."""
    place = {node: f"%{i}" for i, node in enumerate(graph.nodes)}
    lines = ["graph {"]
    for node in graph.nodes:
        lines.append(f"  {place[node]} = {node_text(node, [place[i] for i in node.inputs])}")
    if graph.outputs:
        lines.append("  return " + ", ".join(f"{_name(k)}={place[n]}" for k, n in graph.outputs.items()))
    for target, value in graph.updates.items():
        lines.append(f"  update {place[target]} <- {place[value]}")
    lines.append("}")
    return "\n".join(lines)


def node_text(node: Node, operands: list[str]) -> str:
    """Return one node's right-hand side: `conv2d(%0, %1, strides=(2, 2)) : float32[N,4,4,8] @ "block1"`."""
    arguments = ", ".join(operands + op_arguments(node.op))
    text = f"{node.op.name}({arguments}) : {node.type}"
    return f"{text} @ {_string(node.origin.scope)}" if node.origin.scope else text


def op_arguments(op: Op) -> list[str]:
    """Return an op's attributes as text, those with default values left out."""
    if isinstance(op, Constant):
        return [_constant(op)]
    written = []
    for name, default in _written_fields(type(op)):  # type: ignore[arg-type]  # classes are hashable
        value = getattr(op, name)
        if value == default and type(value) is type(default):
            continue
        written.append(_string(value) if name == "label" else f"{name}={value_text(value)}")
    return written


@cache
def _written_fields(op: type[Op]) -> tuple[tuple[str, Any], ...]:
    """Return the names and defaults of the attributes that are written, a name first: a function's body may be long."""
    fields = sorted(dataclasses.fields(op), key=lambda field: field.name != "label")  # type: ignore[arg-type]
    return tuple((field.name, field.default) for field in fields if field.name != "type")


def value_text(value: Any) -> str:
    """Return an attribute's value as text."""
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case str():
            return _string(value)
        case float():
            return _float(value)
        case _ if hasattr(value, "item") and getattr(value, "shape", None) == ():  # a NumPy scalar
            return value_text(value.item())
        case int() | Dim() | TensorType():
            return str(value)
        case tuple():
            return f"({', '.join(map(value_text, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, Op):
        typed = [f"type={value.type}"] if isinstance(value, Constant) else []  # no node that says it stands around it
        return f"{value.name}({', '.join(op_arguments(value) + typed)})"
    if dataclasses.is_dataclass(value) and hasattr(value, "text_name"):
        fields = [(f, getattr(value, f.name)) for f in dataclasses.fields(value)]
        inner = ", ".join(f"{f.name}={value_text(v)}" for f, v in fields if v != f.default)
        return f"{value.text_name}({inner})"
    raise TypeError(f"an attribute of type {type(value).__name__} has no text form: {value!r}")


def _constant(op: Constant) -> str:
    floats = is_float(op.type.dtype)
    splat = op.splat if len(op.data) <= SPLAT_LIMIT else None
    if splat is not None and not _odd(op, splat=True):
        return _number(splat, op.type.dtype) if floats else value_text(splat)
    if op.type.size <= LITERAL_LIMIT and not _odd(op):  # type: ignore[operator]  # a constant's size is a number
        return f"[{', '.join(_number(v, op.type.dtype) if floats else value_text(v) for v in op.values())}]"
    return f'base64"{base64.b64encode(op.data).decode()}"'


def _odd(op: Constant, splat: bool = False) -> bool:
    """Tell whether an element, or the one that all are, is a NaN with other bits than those that `nan` is read as."""
    if not is_float(op.type.dtype):
        return False
    values = [op.splat] if splat else op.values()
    if not any(v != v for v in values):
        return False
    one = Constant.of(math.nan, op.type.dtype).data
    return any(v != v and op.data[i * len(one) : (i + 1) * len(one)] != one for i, v in enumerate(values))


def _number(value: float, dtype: str) -> str:
    """Return the shortest decimal that gives the same number of fewer bits than a float64 back."""
    if dtype == "float64" or not math.isfinite(value):
        return _float(value)
    for precision in range(1, 10):
        candidate = float(f"{value:.{precision}g}")
        try:
            if unpack(dtype, pack(dtype, candidate))[0] == value:
                return _float(candidate)
        except OverflowError:  # rounded up past the largest finite number
            continue
    return _float(value)


def _float(value: float) -> str:
    return repr(float(value))  # NumPy's float64 is a float, with a repr of its own


def _string(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _name(value: str) -> str:
    return value if value.isidentifier() and value.isascii() and value not in RESERVED else _string(value)
