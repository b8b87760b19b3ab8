"""Several ops that a backend computes in one pass over memory: what is between them is never stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from minigraph.errors import ArgumentError
from minigraph.ir.node import Node
from minigraph.ir.types import TupleType, Type, known, product, tensor
from minigraph.ops.conv import Conv2D, Conv2DKernelAdjoint, Conv2DTranspose
from minigraph.ops.linalg import MatMul
from minigraph.ops.norm import Moments
from minigraph.ops.pool import MaxPool2D, MaxPool2DAdjoint
from minigraph.ops.reduction import Mean, Sum
from minigraph.ops.region import Region, Step, _are_numbers
from minigraph.ops.window import NHWC

# What a group may have at most one of, as its first step: the ops that do the arithmetic.
ANCHORS = (Conv2D, Conv2DTranspose, Conv2DKernelAdjoint, MatMul)


@dataclass(frozen=True)
class Group(Region, name="group"):
    """A region with several results, at the places `results` among operands and steps.

    Unlike a `fused` region a group may reduce: its steps are an anchor (a convolution or product), if there is one, ops
    that work element by element or window by window, and sums over all but the last axis. To compute a step again is
    often cheaper than to store and load it, so two groups may hold the same one.
    """

    results: tuple[int, ...] = ()
    category = "fused"

    def __post_init__(self) -> None:
        if not _are_numbers(self.results, 0) or not self.results:
            raise ArgumentError("bad results of a group", expected="numbers ≥ 0, one at least", got=self.results)

    @property
    def anchor(self) -> Step | None:
        """The convolution or product that the group begins with."""
        return self.body[0] if isinstance(self.body[0].op, ANCHORS) else None

    @property
    def layout(self) -> str:
        """The anchor's layout: backends have kernels for one only."""
        return str(getattr(self.body[0].op, "layout", NHWC))

    def places(self, operands: int) -> tuple[int, ...]:
        """Return where the results are."""
        return self.results

    def infer(self, *operands: Type) -> Type:
        """The type of the one result, or a tuple's of several."""
        types = self.types(operands)
        if any(place >= len(types) for place in self.results):
            raise ArgumentError("a result of nothing", expected=f"below {len(types)}", got=self.results)
        results = tuple(tensor(types[place]) for place in self.results)
        return results[0] if len(results) == 1 else TupleType(results)


def group(steps: Sequence[Node], results: Sequence[Node]) -> Node:
    """Return one node that computes `results` by these steps, given in order; all else that they read is an operand.

    >>> from minigraph.ir import variable
    >>> from minigraph.ops.elementwise import neg
    >>> x = variable((2,))
    >>> y = neg(x)
    >>> group([y, neg(y)], [y]).op.results
    (1,)
    """
    inside = set(steps)
    operands = list(dict.fromkeys(i for step in steps for i in step.inputs if i not in inside))
    place = {node: i for i, node in enumerate([*operands, *steps])}
    body = tuple(Step(step.op, tuple(place[i] for i in step.inputs)) for step in steps)
    return Node(Group(body, tuple(place[node] for node in results)), operands)


def reduces(node: Node) -> bool:
    """Tell whether a node sums elements up."""
    return isinstance(node.op, (Sum, Mean, Moments))


def pools(node: Node) -> bool:
    """Tell whether a node takes the maximum of windows, or is the adjoint of that."""
    return isinstance(node.op, (MaxPool2D, MaxPool2DAdjoint))


def sums_rows(node: Node) -> bool:
    """Tell whether a sum keeps the last axis, or nothing: a loop over rows can keep such sums.

    >>> from minigraph.ir import variable
    >>> from minigraph.ops.reduction import sum
    >>> x = variable((4, 4, 3))
    >>> [sums_rows(sum(x, axes)) for axes in ((0, 1), (0, 1, 2), (2,))]
    [True, True, False]
    """
    rank, axes = node.inputs[0].rank, node.op.axes  # type: ignore[attr-defined]
    kept = tuple(axes) in (tuple(range(rank - 1)), tuple(range(rank)))
    return kept and len(axes) > 0 and product(node.inputs[0].shape) != 0


def tiles(node: Node) -> bool:
    """Tell whether the windows of a pooling cover the image exactly, each element once, and are small."""
    op = node.op
    assert isinstance(op, (MaxPool2D, MaxPool2DAdjoint))
    _, h, w, _ = node.inputs[0].shape
    whole = op.window.pads((known(h), known(w))) == ((0, 0), (0, 0))
    apart = op.strides == op.size and op.dilations == (1, 1)
    return whole and apart and known(h) % op.size[0] == 0 == known(w) % op.size[1] and product(op.size) in range(2, 17)


def anchor_of(node: Node) -> Node:
    """Return the step that does a node's arithmetic: a group's convolution or product, any other node itself."""
    op = node.op
    if not isinstance(op, Group) or op.anchor is None:
        return node
    return Node(op.anchor.op, tuple(node.inputs[i] for i in op.anchor.inputs), origin=node.origin)


__all__ = ["ANCHORS", "Group", "anchor_of", "group", "pools", "reduces", "sums_rows", "tiles"]
