"""Text → graph: a small recursive-descent parser with a closed schema. Nothing in a text is ever imported or run."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple, NoReturn

from minigraph.errors import MinigraphError, ModelFormatError
from minigraph.ir.graph import Graph
from minigraph.ir.leaves import Constant
from minigraph.ir.node import Node
from minigraph.ir.op import ATTRIBUTES, OPS, Op
from minigraph.ir.origin import Origin
from minigraph.ir.printer import SPLAT_LIMIT
from minigraph.ir.types import DTYPES, Dim, Size, TensorType, TupleType, Type, known, symbol

_MAX_DEPTH = 32
_MAX_RANK = 32


@cache
def _pattern() -> re.Pattern[str]:
    """Return the pattern of one token; compiled when the first text is parsed."""
    return re.compile(
        r"""(?P<space>[ \t\r]+|\#[^\n]*) | (?P<newline>\n) | (?P<arrow><-)
        | (?P<base64>base64"[A-Za-z0-9+/=]*") | (?P<string>"(?:[^"\\\n]|\\.)*")
        | (?P<node>%[0-9]+)
        | (?P<number>-?(?:[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?|inf|nan)(?![A-Za-z0-9_]))
        | (?P<word>[A-Za-z_][A-Za-z0-9_]*) | (?P<mark>[][(){}=,:@*])""",
        re.VERBOSE,
    )


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


def _tokens(text: str) -> Iterator[_Token]:
    line, position, match_token = 1, 0, _pattern().match
    while position < len(text):
        match = match_token(text, position)
        if match is None:
            raise ModelFormatError(f"line {line}: unexpected character", got=repr(text[position]))
        position = match.end()
        kind = str(match.lastgroup)
        if kind == "newline":
            line += 1
        elif kind != "space":
            yield _Token(kind, match.group(), line)
    yield _Token("end", "end of text", line)


def parse(text: str) -> Graph:
    """Return the graph that a text describes; everything wrong with it is a ModelFormatError that names the line.

    >>> print(parse('graph { %0 = input("x") : float32[N,2]  %1 = exp(%0) : float32[N,2]  return y=%1 }').inputs)
    (<x : float32[N,2]>,)
    """
    if not isinstance(text, str):
        raise ModelFormatError("a graph's text is a string", got=type(text).__name__)
    return _Parser(text).graph()


def parse_value(text: str) -> Any:
    """Return one attribute's value, as `printer.value_text` wrote it.

    >>> parse_value("(1, 2.5, none)")
    (1, 2.5, None)
    """
    parser = _Parser(text)
    value = _plain(parser.value())
    if parser.token.kind != "end":
        parser.fail("the end of the text")
    return value


class _Parser:
    """One method a rule of the grammar."""

    def __init__(self, text: str) -> None:
        self.rest = _tokens(text)
        self.token = next(self.rest)
        self.nodes: dict[str, Node] = {}
        self.depth = 0
        self.line = 1  # of the token taken last: what is found wrong afterwards is wrong there

    def fail(self, expected: str) -> NoReturn:
        raise ModelFormatError(f"line {self.token.line}: bad syntax", expected=expected, got=self.token.text)

    def advance(self) -> _Token:
        token = self.token
        self.line = token.line
        self.token = next(self.rest, token)
        return token

    def accept(self, text: str) -> bool:
        if self.token.text != text or self.token.kind == "string":
            return False
        self.advance()
        return True

    def expect(self, text: str) -> None:
        if not self.accept(text):
            self.fail(repr(text))

    def take(self, kind: str, what: str) -> str:
        if self.token.kind != kind:
            self.fail(what)
        return self.advance().text

    def graph(self) -> Graph:
        self.expect("graph")
        self.expect("{")
        inputs = []
        while self.token.kind == "node":
            node = self.definition()
            if node.op.name == "input":
                inputs.append(node)
        outputs: dict[str, Node] = {}
        updates: dict[Node, Node] = {}
        if self.accept("return"):
            while not outputs or self.accept(","):
                name = self.string() if self.token.kind == "string" else self.take("word", "an output's name")
                self.expect("=")
                if name in outputs:
                    self.fail(f"one output called {name}")
                outputs[name] = self.reference()
        while self.accept("update"):
            target = self.reference()
            if target in updates:
                self.fail("one update of a variable")
            self.expect("<-")
            updates[target] = self.reference()
        self.expect("}")
        if self.token.kind != "end":
            self.fail("the end of the text")
        graph: Graph = self.checked(lambda: Graph(outputs, updates, inputs))
        return graph

    def checked(self, build: Any) -> Any:
        """Run a constructor; whatever it refuses is a fault of the text, at this line."""
        line = self.line
        try:
            return build()
        except (MinigraphError, TypeError, ValueError, OverflowError, AttributeError, LookupError) as error:
            summary = getattr(error, "summary", f"{type(error).__name__}: {error}")
            raise ModelFormatError(
                f"line {line}: {summary}",
                expected=getattr(error, "expected", None),
                got=getattr(error, "got", None),
            ) from None

    def definition(self) -> Node:
        name = self.advance().text
        if name in self.nodes:
            self.fail(f"a new name, {name} is defined already")
        self.expect("=")
        op_name = self.take("word", "an op's name")
        op_class = OPS.get(op_name)
        if op_class is None:
            raise ModelFormatError(f"line {self.line}: unknown op {op_name!r}")
        operands, positional, attributes = self.arguments()
        self.expect(":")
        type_ = self.type()
        scope = self.string() if self.accept("@") else ""
        op = self.checked(lambda: _make_op(op_class, positional, attributes, type_))
        node: Node = self.checked(lambda: Node(op, operands, origin=Origin(scope=scope)))
        if node.type != type_:
            raise ModelFormatError(
                f"line {self.line}: {name} = {op_name}: the stated type is not the inferred one",
                expected=node.type,
                got=type_,
            )
        self.nodes[name] = node
        return node

    def reference(self) -> Node:
        name = self.take("node", "a node like %3")
        if name not in self.nodes:
            raise ModelFormatError(f"line {self.line}: {name} is used before it is defined")
        return self.nodes[name]

    def arguments(self) -> tuple[list[Node], list[Any], dict[str, Any]]:
        operands: list[Node] = []
        positional: list[Any] = []
        attributes: dict[str, Any] = {}
        self.expect("(")
        while not self.accept(")"):
            if operands or positional or attributes:
                self.expect(",")
            if self.token.kind == "node":
                operands.append(self.reference())
                continue
            value = self.value()
            if self.token.text == "=" and isinstance(value, _Word):
                self.advance()
                if value.text in attributes:
                    self.fail(f"one value of {value.text}")
                attributes[value.text] = self.value()
            else:
                positional.append(_plain(value))
        return operands, positional, {k: _plain(v) for k, v in attributes.items()}

    def value(self) -> Any:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            self.fail(f"at most {_MAX_DEPTH} nested values")
        try:
            return self._value()
        finally:
            self.depth -= 1

    def _value(self) -> Any:
        kind, text = self.token.kind, self.token.text
        if kind == "string":
            return self.string()
        if kind == "base64":
            return self.checked(lambda: base64.b64decode(self.advance().text[7:-1], validate=True))
        if kind == "number":
            return self.number()
        if text in ("(", "["):
            return self.sequence(")" if text == "(" else "]")
        if kind == "word":
            return self.word()
        self.fail("a value")

    def number(self) -> Any:
        text = self.advance().text
        if not re.fullmatch(r"-?[0-9]+", text):
            return float(text)
        if len(text) > 20:
            self.fail("an integer of at most 64 bits")
        return self.dim(int(text))

    def dim(self, size: Size) -> Size:
        factors = 0
        while self.accept("*"):
            factors += 1
            if factors > _MAX_RANK:
                self.fail(f"at most {_MAX_RANK} factors")
            size = size * self.symbol(self.take("word", "a symbolic size"))
        return size

    def symbol(self, name: str) -> Size:
        size: Size = self.checked(lambda: symbol(name))
        return size

    def sequence(self, end: str) -> tuple[Any, ...] | list[Any]:
        self.advance()
        values: list[Any] = []
        while not self.accept(end):
            if values:
                self.expect(",")
                if self.accept(end):
                    break
            values.append(_plain(self.value()))
        return values if end == "]" else tuple(values)

    def word(self) -> Any:
        text = self.advance().text
        if text in _LITERALS:
            return _LITERALS[text]
        if self.token.text == "(" and text in ATTRIBUTES:
            operands, positional, attributes = self.arguments()
            if operands or positional:
                self.fail("field=value only")
            return self.checked(lambda: ATTRIBUTES[text](**attributes))
        if self.token.text == "(" and text in OPS:
            return self.inner_op(OPS[text])
        if self.token.text == "[" and text in DTYPES:
            return self.tensor_type(text)
        if self.token.text == "*":
            return self.dim(self.symbol(text))
        return _Word(text)

    def inner_op(self, op_class: type[Op]) -> Op:
        """An op that is an attribute: a step of a region. A constant there says its type."""
        operands, positional, attributes = self.arguments()
        type = attributes.pop("type", None) if op_class is Constant else None
        typed = any(f.name == "type" for f in dataclasses.fields(op_class))  # type: ignore[arg-type]
        if operands or (op_class is not Constant and (positional or typed)):
            self.fail("an op with attributes only")
        op: Op = self.checked(lambda: _make_op(op_class, positional, attributes, type))
        return op

    def string(self) -> str:
        token = self.take("string", "a string")
        text = self.checked(lambda: json.loads(token))
        if not text.isprintable():
            self.fail("printable characters")
        return str(text)

    def type(self) -> Type:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            self.fail(f"at most {_MAX_DEPTH} nested types")
        try:
            return self._type()
        finally:
            self.depth -= 1

    def _type(self) -> Type:
        if not self.accept("("):
            dtype = self.take("word", "a type like float32[N,3]")
            if dtype not in DTYPES:
                self.fail("a dtype: " + ", ".join(DTYPES))
            return self.tensor_type(dtype)
        items: list[TensorType] = []
        while not self.accept(")"):
            if items:
                self.expect(",")
            item = self.type()
            if not isinstance(item, TensorType):
                self.fail("a tensor type")
            items.append(item)
        return TupleType(tuple(items))

    def tensor_type(self, dtype: str) -> TensorType:
        self.expect("[")
        sizes: list[Size] = []
        while not self.accept("]"):
            if sizes:
                self.expect(",")
            if self.token.kind == "number":
                size = self.number()
            else:
                size = self.dim(self.symbol(self.take("word", "a size")))
            if isinstance(size, float) or (isinstance(size, int) and not 0 <= size < 2**48):
                self.fail("a size: an integer from 0 to 2^48, or a symbol")
            sizes.append(size)
            if len(sizes) > _MAX_RANK:
                self.fail(f"at most {_MAX_RANK} axes")
        return TensorType(tuple(sizes), dtype)


class _Word(NamedTuple):
    """A bare word: the name of an attribute, or a symbolic size when it stands as a value."""

    text: str


_LITERALS: dict[str, Any] = {"true": True, "false": False, "none": None, "inf": float("inf"), "nan": float("nan")}


def _plain(value: Any) -> Any:
    return symbol(value.text) if isinstance(value, _Word) else value


def _make_op(op_class: type[Op], positional: list[Any], attributes: dict[str, Any], type: Type | None) -> Op:
    fields = {f.name: f for f in dataclasses.fields(op_class)}  # type: ignore[arg-type]  # every op is a dataclass
    if op_class is Constant:
        return _make_constant(positional, attributes, type)
    if "type" in fields:
        attributes["type"] = type
    if positional:
        attributes["label"] = positional.pop()
    unknown = [name for name in attributes if name not in fields]
    if unknown or positional:
        raise ModelFormatError(
            f"{op_class.name} has no such attribute",
            expected=", ".join(fields) or "none",
            got=unknown or positional,
        )
    for name, value in attributes.items():
        _check_kind(f"{op_class.name}: {name}", value, fields[name])
    return op_class(**attributes)


def _is_size(value: Any) -> bool:
    return isinstance(value, Dim) or _is_int(value)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_pair(value: Any) -> bool:
    return _is_tuple(value, _is_int) and len(value) == 2


def _is_tuple(value: Any, of: Callable[[Any], bool]) -> bool:
    return isinstance(value, tuple) and all(map(of, value))


# What the annotation of an op's field allows in a text. Fields that are not listed are checked by their op.
_KINDS: dict[str, Callable[[Any], bool]] = {
    "int": _is_int,
    "float": lambda v: isinstance(v, float) or _is_int(v),
    "bool": lambda v: isinstance(v, bool),
    "str": lambda v: isinstance(v, str),
    "int | None": lambda v: v is None or _is_int(v),
    "tuple[int, ...]": lambda v: _is_tuple(v, _is_int),
    "tuple[int, int]": _is_pair,
    "Pair": _is_pair,
    "Pairs": lambda v: _is_tuple(v, _is_pair),
    "Padding": lambda v: isinstance(v, str) or _is_tuple(v, _is_pair),
    "Shape": lambda v: _is_tuple(v, _is_size),
    "tuple[Size, Size]": lambda v: _is_tuple(v, _is_size) and len(v) == 2,
}


def _check_kind(what: str, value: Any, field: dataclasses.Field[Any]) -> None:
    if not _KINDS.get(str(field.type), lambda v: True)(value):
        raise ModelFormatError(f"{what} has the wrong kind of value", expected=field.type, got=repr(value))


def _make_constant(positional: list[Any], attributes: dict[str, Any], type: Type | None) -> Constant:
    if len(positional) != 1 or attributes or not isinstance(type, TensorType):
        raise ModelFormatError("a constant holds one value: a number, a list, or base64")
    value, size = positional[0], known(type.size, "a constant's size")
    if isinstance(value, bytes):
        return Constant(type, value)
    if not isinstance(value, list):
        if known(type.nbytes) > SPLAT_LIMIT:
            raise ModelFormatError(
                "too large for one number repeated", expected=f"at most {SPLAT_LIMIT} bytes", got=type
            )
        return Constant.full(type, value)
    if len(value) != size:
        raise ModelFormatError("a constant's list has the wrong length", expected=size, got=len(value))
    return Constant(type, b"".join(Constant.of(v, type.dtype).data for v in value))
