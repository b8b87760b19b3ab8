"""Batch norm, as it is taught: the batch's moments, and the formula that normalises with a mean and a variance.

Ioffe & Szegedy, "Batch Normalization", 2015. In a definition the op stands with its moving averages and is
mode-neutral; `passes.lower` decides which statistics it gets. See docs/batch-norm.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from minigraph.errors import ArgumentError, DTypeError, GradientError, ShapeError
from minigraph.ir.leaves import item
from minigraph.ir.node import Node, Operand, as_node, check_same_dtype
from minigraph.ir.op import Op, attribute
from minigraph.ir.types import (
    Size,
    TensorType,
    TupleType,
    check_axes,
    is_float,
    normalize_axes,
    normalize_axis,
    product,
    tensor,
)
from minigraph.ops.real import rsqrt
from minigraph.ops.reduction import count
from minigraph.ops.reduction import sum as sum_
from minigraph.ops.shape import reshape


@dataclass(frozen=True)
class Moments(Op, name="moments"):
    """Mean Σx/m and biased variance Σ(x − mean)²/m over axes, in two passes; the result is a pair.

    `at_least` is the smallest m that makes sense to whoever asks: batch norm in training needs 2.
    """

    axes: tuple[int, ...] = ()
    at_least: int = 0
    category = "reduction"

    def infer(self, x: Any) -> TupleType:
        """Two arrays over the axes that are left."""
        type = tensor(x)
        if not is_float(type.dtype):
            raise DTypeError("moments of integers", expected="a float dtype", got=type, hint="cast first")
        axes = check_axes(self.axes, type.rank)
        number = product(type.shape[a] for a in axes)
        if isinstance(number, int) and number < self.at_least:
            raise ShapeError(
                "batch norm in training needs more than one value per channel",
                expected=f"batch · height · width ≥ {self.at_least}",
                got=f"{number} in {type}",
                hint="use a larger batch (fit's drop_last leaves out an incomplete one), or BatchNorm(frozen=True)",
            )
        left = TensorType(tuple(s for i, s in enumerate(type.shape) if i not in axes), type.dtype)
        return TupleType((left, left))

    def vjp(self, node: Node, g: tuple[Node | None, ...]) -> tuple[Node | None, ...]:
        """∂x = g_mean/m + g_variance·2(x − mean)/m."""
        x = node.inputs[0]
        number = count(x, self.axes)
        kept = tuple(1 if i in self.axes else s for i, s in enumerate(x.shape))
        parts = []
        if g[1] is not None:
            parts.append((x - reshape(item(node, 0), kept)) * reshape(g[1] * 2.0 / number, kept))
        if g[0] is not None:
            parts.append(reshape(g[0] / number, kept))
        return (parts[0] + parts[1] if len(parts) == 2 else parts[0],)

    def flops(self, node: Node) -> Size:
        """An add for the mean; a subtraction, a square and an add for the variance."""
        return 4 * node.inputs[0].tensor_type.size


@attribute("moving")
@dataclass(frozen=True)
class Moving:
    """How a batch norm in a definition keeps its moving averages.

    momentum: the weight of the *old* value, as in Keras and ONNX. unbiased: whether the variance that goes into the
    average is m/(m − 1) times the biased one. frozen: use the averages in training too, and update nothing.
    cumulative: average all batches with equal weight until 1/(t + 1) falls below 1 − momentum; needs a count variable.
    """

    momentum: float = 0.99
    unbiased: bool = False
    frozen: bool = False
    cumulative: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.momentum <= 1:
            raise ArgumentError(
                "bad momentum", expected="0 ≤ momentum ≤ 1 (weight of the old value)", got=self.momentum
            )


@dataclass(frozen=True)
class BatchNorm(Op, name="batch_norm"):
    """γ·(x − mean)/√(variance + ε) + β for each channel along `axis`.

    With `moving` the op is mode-neutral: its mean and variance operands are the moving averages (and a count, if
    cumulative), and lowering decides what they become. `fold=False` asks passes to leave it alone.
    """

    axis: int = -1
    epsilon: float = 1e-3
    moving: Moving | None = None
    fold: bool = True
    category = "norm"

    def __post_init__(self) -> None:
        if not self.epsilon >= 0:
            raise ArgumentError("bad epsilon", expected="epsilon ≥ 0", got=self.epsilon)
        if not (self.moving is None or isinstance(self.moving, Moving)):
            raise ArgumentError("bad moving averages", expected="moving(…) or none", got=repr(self.moving))

    def infer(self, x: Any, gamma: Any, beta: Any, mean: Any, variance: Any, count: Any = None) -> TensorType:
        """x's type; the other four are vectors of x's size along the axis."""
        type = tensor(x)
        channels = (type.shape[normalize_axis(self.axis, type.rank)],)
        vectors = {"gamma": gamma, "beta": beta, "mean": mean, "variance": variance}
        for name, vector in vectors.items():
            if tensor(vector).shape != channels:
                raise ShapeError(f"{name} does not fit axis {self.axis} of {type}", expected=channels, got=vector)
        check_same_dtype("operands", type, *map(tensor, vectors.values()))
        if (count is not None) != (self.moving is not None and self.moving.cumulative):
            raise ShapeError("a count belongs to cumulative averages, and to nothing else", got=self.moving)
        return type

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """With r = 1/√(variance + ε), A = Σ g, B = Σ g·(x − mean) over all axes but the channels'.

        ∂x = g·γr, ∂γ = rB, ∂β = A, ∂mean = −γrA, ∂variance = −½γr³B.
        """
        if self.moving is not None:
            raise GradientError(
                "a batch_norm of a definition has no gradient: its statistics are still open",
                where=node.origin.where,
                hint='lower the graph first: mg.lower(graph, "training")',
            )
        x, gamma, _, mean, variance = node.inputs
        axis = normalize_axis(self.axis, x.rank)
        others = tuple(i for i in range(x.rank) if i != axis)
        wide = tuple(s if i == axis else 1 for i, s in enumerate(x.shape))
        r = rsqrt(variance + self.epsilon)
        total = sum_(g, others)
        centered = sum_(g * (x - reshape(mean, wide)), others)
        scale = gamma * r
        return (
            g * reshape(scale, wide),
            r * centered,
            total,
            -(scale * total),
            -0.5 * scale * r * r * centered,
        )

    def flops(self, node: Node) -> Size:
        """A multiply-add for each element: y = x·s + t."""
        return 2 * node.tensor_type.size


def moments(x: Operand, axes: int | Iterable[int] | None = None) -> tuple[Node, Node]:
    """Return (mean, biased variance) of x over `axes`.

    >>> from minigraph.ir import variable
    >>> moments(variable((8, 4, 4, 3)), (0, 1, 2))
    (<item : float32[3]>, <item : float32[3]>)
    """
    node = as_node(x)
    both = Node(Moments(normalize_axes(axes, node.rank)), (node,))
    return item(both, 0), item(both, 1)


def batch_norm(
    x: Operand,
    gamma: Operand,
    beta: Operand,
    mean: Operand,
    variance: Operand,
    axis: int = -1,
    epsilon: float = 1e-3,
) -> Node:
    """Return γ·(x − mean)/√(variance + ε) + β with the statistics given; gradients flow to all five operands.

    >>> from minigraph.ir import variable
    >>> x, (g, b) = variable((8, 3)), (variable((3,)), variable((3,)))
    >>> batch_norm(x, g, b, *moments(x, 0))
    <batch_norm : float32[8,3]>
    """
    node = as_node(x)
    op = BatchNorm(normalize_axis(axis, node.rank), float(epsilon))
    return Node(op, (node, as_node(gamma), as_node(beta), as_node(mean), as_node(variance)))
