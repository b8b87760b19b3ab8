"""Pooling over windows, and the adjoints as ordinary ops."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from minigraph.errors import ArgumentError, DTypeError, ShapeError
from minigraph.ir.leaves import Constant
from minigraph.ir.node import Node, Operand, as_node
from minigraph.ir.op import Op
from minigraph.ir.types import Size, TensorType, is_float, known, tensor
from minigraph.ops import reduction
from minigraph.ops import window as win
from minigraph.ops.linalg import matmul
from minigraph.ops.shape import transpose
from minigraph.ops.window import NHWC, Padding, Pair, Window


@dataclass(frozen=True)
class Pool(Op):
    """Base: a window of `size` taps over height and width, each channel on its own."""

    size: Pair = (2, 2)
    strides: Pair = (2, 2)
    padding: Padding = "valid"
    dilations: Pair = (1, 1)
    layout: str = NHWC
    category = "pool"

    def __post_init__(self) -> None:
        for name in ("size", "strides", "dilations"):
            win.pair(getattr(self, name), name)
        win.padding(self.padding)
        win.layout(self.layout)

    @property
    def window(self) -> Window:
        """The window that slides."""
        return Window(self.size, self.strides, self.dilations, self.padding)

    def pooled(self, type: TensorType) -> TensorType:
        """Return the type that pooling makes of images of this type."""
        outside = self.window.output(win.spatial(type, self.layout))
        return TensorType(win.images(type.shape[0], outside, win.channels(type, self.layout), self.layout), type.dtype)

    def flops(self, node: Node) -> Size:
        """One operation for each tap of each window."""
        windows = node.inputs[-1] if node.op.name.endswith("adjoint") else node
        return windows.tensor_type.size * (self.size[0] * self.size[1])


class MaxPool2D(Pool, name="max_pool2d"):
    """The largest element under each window; padding never wins."""

    def infer(self, x: Any) -> TensorType:
        """N,H,W,C → N,H′,W′,C."""
        type = tensor(x)
        if type.dtype == "bool":
            raise DTypeError("max pooling of booleans", expected="numbers", got=type, hint="cast first")
        inside = win.spatial(type, self.layout)
        if self.window.misses(inside):
            raise ShapeError(
                "max pooling with a window that holds only padding",
                expected="at least one element under each window",
                got=f"{self.window} over {inside}",
                hint="use less padding",
            )
        return self.pooled(type)

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = g at the first largest element of each window."""
        return (Node(_like(MaxPool2DAdjoint, self), (node.inputs[0], g)),)


class MaxPool2DAdjoint(Pool, name="max_pool2d_adjoint"):
    """g added at the place of the first largest element of each window of x: the adjoint of max pooling at x."""

    def infer(self, x: Any, g: Any) -> TensorType:
        """x's type; g must have the pooled type."""
        if self.pooled(tensor(x)) != g:
            raise ShapeError("the adjoint does not fit the pooling", expected=self.pooled(tensor(x)), got=g)
        return tensor(x)

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """Linear in g, and constant in x almost everywhere."""
        return None, Node(_like(MaxPool2DSelect, self), (node.inputs[0], g))


class MaxPool2DSelect(Pool, name="max_pool2d_select"):
    """The element of y at the place of the first largest element of each window of x."""

    def infer(self, x: Any, y: Any) -> TensorType:
        """The pooled type; x and y have one type."""
        if x != y:
            raise ShapeError("max_pool2d_select needs two arrays of one type", expected=x, got=y)
        return self.pooled(tensor(x))

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """Linear in y, and constant in x almost everywhere."""
        return None, Node(_like(MaxPool2DAdjoint, self), (node.inputs[0], g))


@dataclass(frozen=True)
class AvgPool2D(Pool, name="avg_pool2d"):
    """The mean under each window, of floats.

    `count_padding` counts padding as zeros; without it the mean is over the elements that exist. `overhang` is padding
    after the end that never counts: what rounding the number of windows up needs.
    """

    count_padding: bool = False
    overhang: Pair = (0, 0)

    @property
    def window(self) -> Window:
        """The window; explicit padding includes the overhang."""
        base = super().window
        if self.overhang == (0, 0):
            return base
        pads = ((0, 0), (0, 0)) if self.padding == "valid" else self.padding
        if pads == "same":
            raise ArgumentError('padding "same" has no overhang', got=self)
        return replace(base, padding=tuple((a, b + o) for (a, b), o in zip(pads, self.overhang, strict=True)))

    def infer(self, x: Any) -> TensorType:
        """N,H,W,C → N,H′,W′,C."""
        type = tensor(x)
        if not is_float(type.dtype):
            raise DTypeError("a mean of integers", expected="a float dtype", got=type, hint="cast first")
        return self.pooled(type)

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = g divided among the elements of its window."""
        inside = win.spatial(node.inputs[0].tensor_type, self.layout)
        return (Node(_like(AvgPool2DAdjoint, self, output_size=inside), (g,)),)


@dataclass(frozen=True)
class AvgPool2DAdjoint(AvgPool2D, name="avg_pool2d_adjoint"):
    """g divided among the elements of each window of an image of `output_size`: the adjoint of average pooling."""

    output_size: tuple[Size, Size] = (1, 1)

    def infer(self, g: Any) -> TensorType:
        """N,H′,W′,C → N,H,W,C."""
        type = tensor(g)
        outside = win.spatial(type, self.layout)
        shape = win.images(type.shape[0], self.output_size, win.channels(type, self.layout), self.layout)
        if self.window.output(self.output_size) != outside:
            raise ShapeError("the adjoint does not fit the pooling", expected=self.output_size, got=outside)
        return TensorType(shape, type.dtype)

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂g = the average pooling."""
        return (Node(_like(AvgPool2D, self), (g,)),)


def _like(op: type[Pool], other: Pool, **more: Any) -> Pool:
    """Return an op of another class with the same attributes."""
    names = op.__dataclass_fields__.keys() & other.__dataclass_fields__.keys()
    return op(**{name: getattr(other, name) for name in names}, **more)


def _attributes(size: Any, strides: Any, padding: Any, dilations: Any, layout: str) -> dict[str, Any]:
    taps = win.pair(size, "pool size")
    return {
        "size": taps,
        "strides": taps if strides is None else win.pair(strides, "strides"),
        "padding": win.padding(padding),
        "dilations": win.pair(dilations, "dilations"),
        "layout": win.layout(layout),
    }


def _overhang(x: Node, window: Window, layout: str) -> Pair:
    """Return the padding after both ends that makes the numbers of windows round up."""
    inside = win.spatial(x.tensor_type, layout)
    vertical, horizontal = map(win.overhang, inside, window.extent, window.strides, window.pads(inside))
    return vertical, horizontal


def max_pool2d(
    x: Operand, size: Any = 2, strides: Any = None, padding: Any = "valid", dilations: Any = 1, layout: str = NHWC,
    ceil_mode: bool = False,
) -> Node:  # fmt: skip
    """Return the largest element under each window; `strides` default to the window's size.

    The gradient goes to the first largest element of a window. `ceil_mode` rounds the number of windows up.

    >>> from minigraph.ir import variable
    >>> max_pool2d(variable((2, 8, 8, 3)), 2)
    <max_pool2d : float32[2,4,4,3]>
    """
    node = as_node(x)
    op = MaxPool2D(**_attributes(size, strides, padding, dilations, layout))
    if ceil_mode:
        inside = win.spatial(node.tensor_type, layout)
        pads, overhang = op.window.pads(inside), _overhang(node, op.window, layout)
        op = replace(op, padding=tuple((a, b + o) for (a, b), o in zip(pads, overhang, strict=True)))
    return Node(op, (node,))


def avg_pool2d(
    x: Operand, size: Any = 2, strides: Any = None, padding: Any = "valid", dilations: Any = 1, layout: str = NHWC,
    count_padding: bool = False, ceil_mode: bool = False,
) -> Node:  # fmt: skip
    """Return the mean under each window; `strides` default to the window's size.

    >>> from minigraph.ir import variable
    >>> avg_pool2d(variable((2, 8, 8, 3)), 3, strides=2, padding="same")
    <avg_pool2d : float32[2,4,4,3]>
    """
    node = as_node(x)
    op = AvgPool2D(**_attributes(size, strides, padding, dilations, layout), count_padding=bool(count_padding))
    if ceil_mode:
        pads = op.window.pads(win.spatial(node.tensor_type, layout))
        op = replace(op, padding=pads, overhang=_overhang(node, op.window, layout))
    return Node(op, (node,))


def _spatial_axes(layout: str) -> Pair:
    return (1, 2) if win.layout(layout) == NHWC else (2, 3)


def global_avg_pool2d(x: Operand, keepdims: bool = False, layout: str = NHWC) -> Node:
    """Return the mean over height and width.

    >>> from minigraph.ir import variable
    >>> global_avg_pool2d(variable((2, 8, 8, 3)))
    <mean : float32[2,3]>
    """
    node = as_node(x)
    win.spatial(node.tensor_type, layout)
    return reduction.mean(node, _spatial_axes(layout), keepdims)


def global_max_pool2d(x: Operand, keepdims: bool = False, layout: str = NHWC) -> Node:
    """Return the largest element over height and width.

    >>> from minigraph.ir import variable
    >>> global_max_pool2d(variable((2, 8, 8, 3)))
    <max : float32[2,3]>
    """
    node = as_node(x)
    win.spatial(node.tensor_type, layout)
    return reduction.max(node, _spatial_axes(layout), keepdims)


def adaptive_avg_pool2d(x: Operand, output_size: Any, layout: str = NHWC) -> Node:
    """Return means over a grid of `output_size` cells that cover the image, as even as integers allow.

    Cell i of n over m elements spans ⌊i·m/n⌋ … ⌈(i+1)·m/n⌉. Averaging is linear and separable: where the cells are not
    equal windows, it is a product with one constant matrix for each axis.

    >>> from minigraph.ir import variable
    >>> adaptive_avg_pool2d(variable((2, 7, 7, 3)), 3)
    <transpose : float32[2,3,3,3]>
    """
    node = as_node(x)
    height, width = (known(s, "an adaptively pooled axis") for s in win.spatial(node.tensor_type, layout))
    rows, columns = win.pair(output_size, "output size")
    if height % rows == 0 and width % columns == 0:
        cell = (height // rows, width // columns)
        return avg_pool2d(node, cell, cell, layout=layout)
    planes = transpose(node, (0, 3, 1, 2)) if layout == NHWC else node
    left = _averaging_matrix(height, rows, node.dtype)
    right = transpose(_averaging_matrix(width, columns, node.dtype))
    pooled = matmul(left, matmul(planes, right))
    return transpose(pooled, (0, 2, 3, 1)) if layout == NHWC else pooled


def _averaging_matrix(elements: int, cells: int, dtype: str) -> Node:
    rows = b""
    for i in range(cells):
        first, last = i * elements // cells, -(-(i + 1) * elements // cells)
        inside, outside = Constant.of(1.0 / (last - first), dtype), Constant.of(0.0, dtype)
        rows += outside.data * first + inside.data * (last - first) + outside.data * (elements - last)
    return Node(Constant(TensorType((cells, elements), dtype), rows))


__all__ = ["adaptive_avg_pool2d", "avg_pool2d", "global_avg_pool2d", "global_max_pool2d", "max_pool2d"]
