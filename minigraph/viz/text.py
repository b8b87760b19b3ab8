"""Words on a picture: what an op's attributes, a type and a number are in a few characters, safe for any renderer."""

from __future__ import annotations

import dataclasses
import html
import re
from typing import Any

from minigraph.ir import Constant, Dim, Item, Node, Op, TensorType, TupleType, Type
from minigraph.ir.printer import value_text
from minigraph.ir.types import shape_text
from minigraph.ops.fused import Fused
from minigraph.ops.region import Function

LONGEST = 60  # characters of a label; the rest is for the text form of the graph
INLINE = 4  # elements of a constant that is written out instead of drawn

# XML 1.0 knows no control characters, no surrogates and neither of the two non-characters: one of them spoils an SVG.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
# The result's shape stands on the edges, a label is the title, a random key is noise, a version is its file's matter.
_UNSAID = frozenset(
    {"type", "label", "init", "shape", "sizes", "output_size", "kernel_size", "key", "seed", "since_version"}
)
_SIGNS = {
    "add": "+", "sub": "−", "mul": "·", "div": "/", "pow": "^", "less": "<", "less_equal": "≤", "greater": ">",
    "greater_equal": "≥", "equal": "=", "not_equal": "≠",
}  # fmt: skip


def shorten(text: str, limit: int = LONGEST) -> str:
    """Return `text` as one line of at most `limit` characters, printable in XML.

    >>> shorten("a" * 100, 5)
    'aaaa…'
    """
    line = _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text[: limit + 1])
    return line if len(line) <= limit else line[: limit - 1] + "…"


def escape(text: str, limit: int = LONGEST) -> str:
    r"""Return `text` for an HTML-like label: entities for XML, and a doubled backslash, since \N means the node's name.

    >>> escape(r"<a\N>")
    '&lt;a\\\\N&gt;'
    """
    # Graphviz rejects an empty element, so a name of nothing but spaces becomes one that it cannot drop.
    line = shorten(text, limit)
    return html.escape(line).replace("\\", "\\\\") if line.strip() else "&#160;"


def type_text(type: Type) -> str:
    """Return a type as it stands on an edge: the shape, and the dtype where it is not float32.

    >>> type_text(TensorType((2, 3))), type_text(TensorType((), "int64"))
    ('[2,3]', 'int64 scalar')
    """
    if isinstance(type, TupleType):
        return ", ".join(map(type_text, type.items))
    shape = shape_text(type.shape)
    if type.dtype == "float32":
        return shape
    return f"{type.dtype}{shape}" if type.shape else f"{type.dtype} scalar"


def number_text(value: Any) -> str:
    """Return a number in few digits: float32 values carry no more than seven."""
    return f"{value:.5g}" if isinstance(value, float) else value_text(value)


def constant_text(op: Constant) -> str | None:
    """Return a small constant's value, or None for one that has too many elements to write out."""
    splat = op.splat
    if splat is not None:
        return number_text(splat)
    if isinstance(op.type.size, int) and op.type.size <= INLINE:
        return f"[{', '.join(map(number_text, op.values()))}]"
    return None


def is_drawn(node: Node) -> bool:
    """Tell whether a node is a box: items are part of edges, and small constants are written where they are read."""
    if isinstance(node.op, Item):
        return False
    return not (isinstance(node.op, Constant) and constant_text(node.op) is not None)


def fused_ops(node: Node) -> tuple[Op, ...]:
    """Return the ops inside a fused region; a node of any other op has none."""
    return tuple(step.op for step in node.op.body) if isinstance(node.op, Fused) else ()


def is_inline(operand: Node, user: Node) -> bool:
    """Tell whether `operand` is a small constant that is written into its user's box."""
    return (
        isinstance(operand.op, Constant)
        and user.op.category == "elementwise"
        and not isinstance(user.op, Constant)
        and constant_text(operand.op) is not None
    )


def notes(node: Node) -> str:
    """Return the second line of a node's box: attributes in short form, and constants that it takes.

    >>> from minigraph import ir, ops
    >>> notes(ops.mul(ir.variable((3,)), 0.5))
    '· 0.5'
    """
    return ", ".join([*_window(node), *_attributes(node), *_constants(node)])


def _window(node: Node) -> list[str]:
    """The size of a convolution's or a pooling's window: `3×3`."""
    op = node.op
    size = getattr(op, "size", None) or getattr(op, "kernel_size", None)
    if op.category == "conv" and size is None:
        kernel = node.inputs[1].shape
        size = kernel[:2] if getattr(op, "layout", "NHWC") == "NHWC" else kernel[2:]
    return [_times(size)] if isinstance(size, tuple) and op.category in ("conv", "pool") else []


def _attributes(node: Node) -> list[str]:
    op = node.op
    if isinstance(op, Function):  # its own attributes; what is inside is not for a picture
        own = [_attribute(name, value) for name, value in op.attributes if name not in _UNSAID and value is not None]
        return [text for text in own if text]
    windowed = op.category in ("conv", "pool")
    written = []
    for field in dataclasses.fields(op):  # type: ignore[arg-type]  # every op is a dataclass
        value = getattr(op, field.name)
        name = field.name
        if name in _UNSAID or value is None or isinstance(value, bytes) or (windowed and name == "size"):
            continue
        if value == field.default and not (windowed and name == "padding"):
            continue
        if name == "axis" and op.category in ("norm", "reduction") and value == _last_axis(node):
            continue
        written.append(_attribute(name, value))
    return [text for text in written if text]


def _last_axis(node: Node) -> int:
    type = node.inputs[0].type
    return type.rank - 1 if isinstance(type, TensorType) else -1


def _attribute(name: str, value: Any) -> str:
    match name, value:
        case "strides" | "dilations", (_, _):
            return "" if value == (1, 1) else _both(name[:-1], value)
        case "padding" | "layout", str():
            return value
        case "padding", ((a, b), (c, d)) if a == b and c == d:
            return _both(name, (a, c))
        case "axes", tuple():
            return "axes " + " ".join(map(str, value)) if len(value) != 1 else f"axis {value[0]}"
        case "epsilon", _:
            return f"ε {number_text(value)}"
        case "fold", False:
            return "not folded"
        case _, bool():
            return name.replace("_", " ") if value else f"not {name.replace('_', ' ')}"
        case _, float() | int() | Dim() | str():
            return f"{name.replace('_', ' ')} {number_text(value) if not isinstance(value, str) else value}"
    if dataclasses.is_dataclass(value) and not isinstance(value, TensorType):
        inner = [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value) if f.name == "momentum"]
        flags = [f.name for f in dataclasses.fields(value) if getattr(value, f.name) is True]
        return ", ".join([f"{key} {number_text(number)}" for key, number in inner] + flags)
    return f"{name.replace('_', ' ')} {shorten(value_text(value), 24)}"


def _both(name: str, pair: tuple[int, int]) -> str:
    """Return a number for height and for width: `stride 2`, `padding 1×0`."""
    return f"{name} {pair[0] if pair[0] == pair[1] else _times(pair)}"


def _constants(node: Node) -> list[str]:
    """What an elementwise op takes beside arrays: `· 0.5`, `1 −`, or all operands for ops without a sign."""
    inline = [constant_text(i.op) if is_inline(i, node) else None for i in node.inputs]  # type: ignore[arg-type]
    if all(text is None for text in inline):
        return []
    sign = _SIGNS.get(node.op.name)
    if sign is None or len(inline) != 2:
        return [f"({', '.join(text or '·' for text in inline)})"]
    left, right = inline
    return [" ".join(part for part in (left, sign, right) if part is not None)]


def _times(sizes: tuple[Any, ...]) -> str:
    return "×".join(map(str, sizes))
