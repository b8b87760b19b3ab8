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
from minigraph.ir.types import Size, TensorType, Type, add_sizes, tensor
from minigraph.ops.conv import Conv2D, Conv2DTranspose
from minigraph.ops.linalg import MatMul
from minigraph.ops.reduction import sum_to

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
        if not isinstance(self.inputs, tuple) or not all(isinstance(i, int) and i >= 0 for i in self.inputs):
            raise ArgumentError("bad inputs of a fused step", expected="numbers ≥ 0", got=repr(self.inputs))


@dataclass(frozen=True)
class Fused(Op, name="fused"):
    """A region of ops, of which only the last step's result is kept; the same numbers as the ops one by one."""

    body: tuple[FusedStep, ...] = ()
    category = "fused"

    def infer(self, *operands: Any) -> TensorType:
        """The last step's type."""
        return tensor(self.types(operands)[-1])

    def types(self, operands: Sequence[Type]) -> list[Type]:
        """Return the types of the operands and of all steps."""
        if not self.body or not all(isinstance(step, FusedStep) for step in self.body):
            raise ShapeError("a fused region needs steps", expected="step(…), …", got=repr(self.body))
        known: list[Type] = list(operands)
        for step in self.body:
            if any(i >= len(known) for i in step.inputs):
                raise ShapeError("a fused step reads what comes later", expected=f"below {len(known)}", got=step)
            known.append(step.op.infer(*(known[i] for i in step.inputs)))
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
        each = [step.op.flops(step) for step in steps_of(node)]
        return functools.reduce(add_sizes, each)

    def bind(self, sizes: Any) -> Op:
        """Return the region with the symbolic sizes in its steps' attributes replaced."""
        return Fused(tuple(FusedStep(step.op.bind(sizes), step.inputs) for step in self.body))


def steps_of(node: Node) -> list[Node]:
    """Return the steps of a fused region as ordinary nodes over its operands; the last one is its result."""
    op = node.op
    assert isinstance(op, Fused)
    values = list(node.inputs)
    for step in op.body:
        values.append(Node(step.op, tuple(values[i] for i in step.inputs), origin=node.origin))
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
