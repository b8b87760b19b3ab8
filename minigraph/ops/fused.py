"""Several ops as one: a region that a kernel computes in one go, block by block, without storing what lies between."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from minigraph.errors import ArgumentError, ShapeError
from minigraph.ir.leaves import Constant, Input, Item, Variable
from minigraph.ir.node import Node
from minigraph.ir.op import Op, attribute
from minigraph.ir.origin import Origin
from minigraph.ir.types import Size, TensorType, Type, add_sizes, normalize_axis, tensor
from minigraph.ops.conv import Conv2D, Conv2DTranspose
from minigraph.ops.elementwise import Elementwise
from minigraph.ops.linalg import MatMul
from minigraph.ops.norm import BatchNorm
from minigraph.ops.reduction import sum_to
from minigraph.ops.shape import Cast
from minigraph.ops.window import NHWC

# What a region may begin with; the rest of it works element by element.
ANCHORS = (Conv2D, Conv2DTranspose, MatMul)


@attribute("step")
@dataclass(frozen=True)
class FusedStep:
    """One op of a region. `inputs` below the number of the region's operands are those; the rest are earlier steps."""

    op: Op
    inputs: tuple[int, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.op, Op) or isinstance(self.op, (Input, Variable, Constant, Item, Fused)):
            raise ArgumentError("not an op for the inside of a fused region", got=repr(self.op))
        if not isinstance(self.inputs, tuple) or not all(type(i) is int and i >= 0 for i in self.inputs):
            raise ArgumentError("bad inputs of a fused step", expected="numbers ≥ 0", got=repr(self.inputs))


@dataclass(frozen=True)
class Fused(Op, name="fused"):
    """A region of ops, of which only the last step's result is kept; the same numbers as the ops one by one."""

    body: tuple[FusedStep, ...] = ()
    category = "fused"

    @property
    def layout(self) -> str:
        """The anchor's layout: backends have kernels for one only, whether it stands alone or in a region."""
        return str(getattr(self.body[0].op, "layout", NHWC))

    def infer(self, *operands: Any) -> TensorType:
        """The last step's type."""
        return tensor(self.types(operands)[-1])

    def types(self, operands: Sequence[Type]) -> list[Type]:
        """Return the types of the operands and of all steps."""
        if not self.body or not all(isinstance(step, FusedStep) for step in self.body):
            raise ShapeError("a fused region needs steps", expected="step(…), …", got=repr(self.body))
        values = range(len(operands) + len(self.body) - 1)
        if {i for step in self.body for i in step.inputs} != set(values):
            raise ArgumentError(
                "a fused region reads each of its operands and steps",
                expected=f"all of 0 … {len(values) - 1}",
                got=f"{len(operands)} operands, {self.body}",
            )
        known: list[Type] = list(operands)
        for step in self.body:
            if any(i >= len(known) for i in step.inputs):
                raise ArgumentError("a fused step reads what comes later", expected=f"below {len(known)}", got=step)
            known.append(step.op.infer(*(known[i] for i in step.inputs)))
        _check_steps(self.body, [tensor(t) for t in known[len(operands) :]])
        return known

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """The chain rule through the steps, backwards."""
        values = [*node.inputs, *steps_of(node)]
        adjoints: list[Node | None] = [None] * (len(values) - 1) + [g]
        for i in reversed(range(len(node.inputs), len(values))):
            value, adjoint = values[i], adjoints[i]
            if adjoint is None:
                continue
            terms = value.op.vjp(value, adjoint)
            for place, term in zip(self.body[i - len(node.inputs)].inputs, terms, strict=True):
                if term is not None:
                    narrow, before = sum_to(term, values[place].shape), adjoints[place]
                    adjoints[place] = narrow if before is None else before + narrow
        return tuple(adjoints[: len(node.inputs)])

    def flops(self, node: Node) -> Size:
        """The sum over the steps."""
        each = [step.op.flops(step) for step in steps_of(node, node.origin)]
        return functools.reduce(add_sizes, each)

    def bind(self, sizes: Any) -> Op:
        """Return the region with the symbolic sizes in its steps' attributes replaced."""
        bound = Fused(tuple(FusedStep(step.op.bind(sizes), step.inputs) for step in self.body))
        return self if bound == self else bound


def by_element(op: Op, rank: int) -> bool:
    """Tell whether an op works element by element on arrays of `rank` axes, the last one of which holds channels.

    >>> by_element(BatchNorm(axis=1), 2), by_element(BatchNorm(axis=1), 4)
    (True, False)
    """
    if isinstance(op, BatchNorm):
        return op.moving is None and normalize_axis(op.axis, rank) == rank - 1
    return isinstance(op, (Elementwise, Cast))


def _check_steps(body: Sequence[FusedStep], types: Sequence[TensorType]) -> None:
    """Raise a ShapeError unless the first step is an anchor, all others work by element, and all have one shape."""
    for place, (step, type) in enumerate(zip(body, types, strict=True)):
        if not (by_element(step.op, type.rank) or (place == 0 and isinstance(step.op, ANCHORS))):
            raise ShapeError(
                "a fused region works element by element, but for a convolution or product as its first step",
                expected="elementwise ops, casts, batch norms along the last axis",
                got=f"{step.op.name} as step {place}",
            )
        if type.shape != types[-1].shape:
            raise ShapeError("the steps of a fused region have one shape", expected=types[-1], got=type)


def steps_of(node: Node, origin: Origin | None = None) -> list[Node]:
    """Return the steps of a fused region as ordinary nodes over its operands; the last one is its result."""
    op = node.op
    assert isinstance(op, Fused)
    values = list(node.inputs)
    for step in op.body:
        values.append(Node(step.op, tuple(values[i] for i in step.inputs), origin=origin))
    return values[len(node.inputs) :]


def inline(node: Node) -> Node:
    """Return what a fused region computes, as ordinary nodes.

    >>> from minigraph.ir import variable
    >>> from minigraph.ops.activations import Relu
    >>> region = Fused((FusedStep(Relu(), (0,)), FusedStep(Relu(), (1,))))
    >>> inline(Node(region, (variable((2,)),)))
    <relu : float32[2]>
    """
    return steps_of(node)[-1]


def fuse(producer: Node, reader: Node) -> Node:
    """Return one region that computes `reader` from the operands of both, `producer` inside.

    >>> from minigraph.ir import variable
    >>> from minigraph.ops.elementwise import neg
    >>> x = variable((2,))
    >>> y = -x
    >>> len(fuse(y, neg(y)).op.body)
    2
    """
    operands: list[Node] = []
    for source in (*producer.inputs, *(i for i in reader.inputs if i is not producer)):
        if source not in operands:
            operands.append(source)
    steps: list[FusedStep] = []
    made = _append(steps, producer, {n: i for i, n in enumerate(operands)}, len(operands))
    _append(steps, reader, {**{n: i for i, n in enumerate(operands)}, producer: made}, len(operands))
    return Node(Fused(tuple(steps)), operands)


def _append(steps: list[FusedStep], node: Node, place: dict[Node, int], operands: int) -> int:
    """Add a node, or the steps of a region, and return the place of its result."""
    if not isinstance(node.op, Fused):
        steps.append(FusedStep(node.op, tuple(place[i] for i in node.inputs)))
        return operands + len(steps) - 1
    inner = [place[i] for i in node.inputs]
    for step in node.op.body:
        steps.append(FusedStep(step.op, tuple(inner[i] for i in step.inputs)))
        inner.append(operands + len(steps) - 1)
    return inner[-1]
