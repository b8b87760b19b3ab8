"""Nodes: an op applied to other nodes. Immutable, compared by identity, never walked recursively."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from minigraph.errors import ArgumentError, DTypeError, MinigraphError
from minigraph.ir import origin as _origin
from minigraph.ir.op import OPS, Op
from minigraph.ir.origin import Origin
from minigraph.ir.types import Shape, TensorType, Type, tensor

if TYPE_CHECKING:
    from typing import TypeAlias

# What an operator accepts beside a node. Anything with a shape (a NumPy array) counts as array-like; ir itself
# never imports an array library.
Operand: TypeAlias = "Node | float | int | bool | Any"

_ids = itertools.count()


def next_id() -> int:
    """Return an id that no node has yet; nodes that are made later have greater ones."""
    return next(_ids)


class Node:
    """One value of a graph: `op` applied to `inputs`.

    `type` is inferred, unless whoever makes the node knows what will come out; `origin` says where the node comes from;
    `id` stays the same when a pass rebuilds the node with other inputs, so that a picture can follow it.
    """

    __slots__ = ("__weakref__", "id", "inputs", "op", "origin", "type")

    # NumPy would otherwise take `array * node` apart element by element.
    __array_ufunc__ = None

    op: Op
    inputs: tuple[Node, ...]
    type: Type
    origin: Origin
    id: int

    def __init__(
        self, op: Op, inputs: Iterable[Node] = (), *, origin: Origin | None = None, id: int | None = None,
        type: Type | None = None,
    ) -> None:  # fmt: skip
        set_ = object.__setattr__
        set_(self, "op", op)
        set_(self, "inputs", tuple(inputs))
        set_(self, "origin", origin if origin is not None else _origin.current())
        set_(self, "id", next(_ids) if id is None else id)
        set_(self, "type", self._infer() if type is None else type)

    def _infer(self) -> Type:
        try:
            return self.op.infer(*[i.type for i in self.inputs])
        except MinigraphError as error:
            operands = "; ".join(f"{i.label}: {i.type} (from {i.origin.where or 'a file'})" for i in self.inputs)
            raise type(error)(
                f"{self.op.name}: {error.summary}",
                expected=error.expected,
                got=f"{error.got if error.got is not None else ''}  with operands {operands}".strip(),
                where=self.origin.where,
                hint=error.hint,
            ) from None
        except TypeError as error:
            if "positional argument" not in str(error):
                raise
            raise ArgumentError(
                f"{self.op.name}: wrong number of operands", got=f"{len(self.inputs)} operands", where=self.origin.where
            ) from None

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"nodes are immutable: build a new node instead of setting {name!r}")

    def with_inputs(self, inputs: Iterable[Node], op: Op | None = None) -> Node:
        """Return this node over other inputs: same id, same origin, type inferred again if it could be another."""
        inputs = tuple(inputs)
        if op is not None and op is not self.op:
            return Node(op, inputs, origin=self.origin, id=self.id)
        if [i.type for i in inputs] == [i.type for i in self.inputs]:
            return self._copy(inputs, self.origin)
        return Node(self.op, inputs, origin=self.origin, id=self.id)

    def with_origin(self, origin: Origin) -> Node:
        """Return this node with another origin: same id, op, inputs and type."""
        return self._copy(self.inputs, origin)

    def _copy(self, inputs: tuple[Node, ...], origin: Origin) -> Node:
        copy, set_ = object.__new__(Node), object.__setattr__
        set_(copy, "op", self.op)
        set_(copy, "inputs", inputs)
        set_(copy, "type", self.type)
        set_(copy, "origin", origin)
        set_(copy, "id", self.id)
        return copy

    @property
    def tensor_type(self) -> TensorType:
        """The type of a node with one result; a ShapeError for a tuple."""
        return tensor(self.type, self.op.name)

    @property
    def shape(self) -> Shape:
        """The sizes of the axes, integers or symbols."""
        return tensor(self.type, self.op.name).shape

    @property
    def dtype(self) -> str:
        """The name of the dtype."""
        return tensor(self.type, self.op.name).dtype

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def label(self) -> str:
        """The name of an input or a variable, else the op's name."""
        op = self.op
        return str(getattr(op, "label", op.name))

    def __repr__(self) -> str:
        return f"<{self.label} : {self.type}>"

    def __bool__(self) -> bool:
        raise ArgumentError(
            "a node has no truth value: nothing is computed while a graph is defined",
            hint="use where(condition, a, b), or compile the graph and test the result",
        )

    def __iter__(self) -> Any:
        raise ArgumentError("a node cannot be iterated", hint="use split(node, n) or index it: node[0]")

    # Operators resolve through the registry, because ops are defined above this layer.
    def __add__(self, other: Operand) -> Node:
        return _operator("add", self, other)

    def __radd__(self, other: Operand) -> Node:
        return _operator("add", other, self)

    def __sub__(self, other: Operand) -> Node:
        return _operator("sub", self, other)

    def __rsub__(self, other: Operand) -> Node:
        return _operator("sub", other, self)

    def __mul__(self, other: Operand) -> Node:
        return _operator("mul", self, other)

    def __rmul__(self, other: Operand) -> Node:
        return _operator("mul", other, self)

    def __truediv__(self, other: Operand) -> Node:
        return _operator("div", self, other)

    def __rtruediv__(self, other: Operand) -> Node:
        return _operator("div", other, self)

    def __pow__(self, other: Operand) -> Node:
        return _operator("pow", self, other)

    def __rpow__(self, other: Operand) -> Node:
        return _operator("pow", other, self)

    def __matmul__(self, other: Operand) -> Node:
        return OPS["matmul"].of(self, other)  # type: ignore[attr-defined, no-any-return]

    def __rmatmul__(self, other: Operand) -> Node:
        return OPS["matmul"].of(other, self)  # type: ignore[attr-defined, no-any-return]

    def __neg__(self) -> Node:
        return Node(OPS["neg"](), (self,))

    def __abs__(self) -> Node:
        return Node(OPS["abs"](), (self,))

    def __lt__(self, other: Operand) -> Node:
        return _operator("less", self, other)

    def __le__(self, other: Operand) -> Node:
        return _operator("less_equal", self, other)

    def __gt__(self, other: Operand) -> Node:
        return _operator("greater", self, other)

    def __ge__(self, other: Operand) -> Node:
        return _operator("greater_equal", self, other)

    def __getitem__(self, index: Any) -> Node:
        return OPS["slice"].from_index(self, index)  # type: ignore[attr-defined, no-any-return]


def _operator(name: str, left: Operand, right: Operand) -> Node:
    like = left if isinstance(left, Node) else right if isinstance(right, Node) else None
    return Node(OPS[name](), (as_node(left, like), as_node(right, like)))


def as_node(value: Operand, like: Node | None = None) -> Node:
    """Return `value` as a node: itself, or a constant. A Python number takes the dtype of `like`.

    >>> as_node(2.0)
    <constant : float32[]>
    """
    if isinstance(value, Node):
        return value
    return Node(OPS["constant"].of(value, like.dtype if like is not None else None))  # type: ignore[attr-defined]


def check_same_dtype(what: str, *types: TensorType) -> str:
    """Return the operands' one dtype, or raise: minigraph never converts silently."""
    dtype = types[0].dtype
    for type in types:
        if type.dtype != dtype:
            raise DTypeError(
                f"{what} have different dtypes",
                expected="one dtype",
                got=" and ".join(t.dtype for t in types),
                hint="convert one of them: cast(x, dtype)",
            )
    return dtype
