"""Several ops as one: a region that a kernel computes in one go, block by block, without storing what lies between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minigraph.errors import ArgumentError, ShapeError
from minigraph.ir.node import Node
from minigraph.ir.op import Op
from minigraph.ir.types import TensorType, Type, normalize_axis, tensor
from minigraph.ops.conv import Conv2D, Conv2DTranspose
from minigraph.ops.elementwise import Elementwise
from minigraph.ops.linalg import MatMul
from minigraph.ops.norm import BatchNorm
from minigraph.ops.region import Region, Step
from minigraph.ops.shape import Cast
from minigraph.ops.window import NHWC

# What a region may begin with; the rest of it works element by element.
ANCHORS = (Conv2D, Conv2DTranspose, MatMul)


class Fused(Region, name="fused"):
    """A region of ops, of which only the last step's result is kept."""

    category = "fused"

    @property
    def layout(self) -> str:
        """The anchor's layout: backends have kernels for one only, whether it stands alone or in a region."""
        return str(getattr(self.body[0].op, "layout", NHWC))

    def infer(self, *operands: Any) -> TensorType:
        """The last step's type."""
        return tensor(self.types(operands)[-1])

    def check(self, operands: int) -> None:
        """Raise an ArgumentError unless each operand and each step but the last is read."""
        super().check(operands)
        values = range(operands + len(self.body) - 1)
        if {i for step in self.body for i in step.inputs} != set(values):
            raise ArgumentError(
                "a fused region reads each of its operands and steps",
                expected=f"all of 0 … {len(values) - 1}",
                got=f"{operands} operands, {self.body}"[:200],
            )

    def types(self, operands: Sequence[Type]) -> list[Type]:
        """Return the types of the operands and of all steps."""
        known = super().types(operands)
        _check_steps(self.body, [tensor(t) for t in known[len(operands) :]])
        return known


def by_element(op: Op, rank: int) -> bool:
    """Tell whether an op works element by element on arrays of `rank` axes, the last one of which holds channels.

    >>> by_element(BatchNorm(axis=1), 2), by_element(BatchNorm(axis=1), 4)
    (True, False)
    """
    if isinstance(op, BatchNorm):
        return op.moving is None and normalize_axis(op.axis, rank) == rank - 1
    return isinstance(op, (Elementwise, Cast))


def _check_steps(body: Sequence[Step], types: Sequence[TensorType]) -> None:
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
    steps: list[Step] = []
    made = _append(steps, producer, {n: i for i, n in enumerate(operands)}, len(operands))
    _append(steps, reader, {**{n: i for i, n in enumerate(operands)}, producer: made}, len(operands))
    return Node(Fused(tuple(steps)), operands, type=reader.type)  # the steps' types were inferred when they were nodes


def _append(steps: list[Step], node: Node, place: dict[Node, int], operands: int) -> int:
    """Add a node, or the steps of a region, and return the place of its result."""
    if not isinstance(node.op, Fused):
        steps.append(Step(node.op, tuple(place[i] for i in node.inputs)))
        return operands + len(steps) - 1
    inner = [place[i] for i in node.inputs]
    for step in node.op.body:
        inputs = tuple([inner[i] for i in step.inputs])
        steps.append(step if inputs == step.inputs else Step(step.op, inputs))
        inner.append(operands + len(steps) - 1)
    return inner[-1]
