"""Convolution, and its two adjoints as ordinary ops: the three are closed under differentiation.

`conv2d(x, w)`, `conv2d_transpose(y, w)` (the adjoint with respect to x) and `conv2d_kernel_adjoint(x, y)` (with
respect to w) are each linear in both operands, and ⟨conv2d(x, w), y⟩ = ⟨x, conv2d_transpose(y, w)⟩ = ⟨w,
conv2d_kernel_adjoint(x, y)⟩. So the gradient of any of them is made of the other two, to any order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minigraph.errors import ArgumentError, ShapeError
from minigraph.ir.node import Node, Operand, as_node, check_same_dtype
from minigraph.ir.op import Op
from minigraph.ir.types import Shape, Size, TensorType, known, product, tensor
from minigraph.ops import window as win
from minigraph.ops.window import NHWC, Padding, Pair, Window


@dataclass(frozen=True)
class Convolution(Op):
    """Base: the attributes that all three share.

    Kernels are H,W,I/groups,O under NHWC, and O,I/groups,H,W under NCHW, for all three ops: I are the channels of the
    convolution's input, O those of its output.
    """

    strides: Pair = (1, 1)
    padding: Padding = "valid"
    dilations: Pair = (1, 1)
    groups: int = 1
    layout: str = NHWC
    category = "conv"

    def __post_init__(self) -> None:
        win.pair(self.strides, "strides")
        win.pair(self.dilations, "dilations")
        win.padding(self.padding)
        win.layout(self.layout)
        if not isinstance(self.groups, int) or self.groups < 1:
            raise ArgumentError("bad groups", expected="an integer ≥ 1", got=repr(self.groups))

    @property
    def shared(self) -> dict[str, Any]:
        """The shared attributes, for building an adjoint."""
        return {
            "strides": self.strides, "padding": self.padding, "dilations": self.dilations, "groups": self.groups,
            "layout": self.layout,
        }  # fmt: skip

    def window(self, kernel: TensorType) -> Window:
        """Return the window that a kernel of this type makes."""
        if kernel.rank != 4:
            expected = "H,W,I,O" if self.layout == NHWC else "O,I,H,W"
            raise ShapeError("a kernel has 4 axes", expected=expected, got=kernel)
        size = kernel.shape[:2] if self.layout == NHWC else kernel.shape[2:]
        return Window(
            (known(size[0], "a kernel's height"), known(size[1], "a kernel's width")),
            self.strides, self.dilations, self.padding,
        )  # fmt: skip

    def kernel_channels(self, kernel: TensorType) -> tuple[int, int]:
        """Return (I, O) of a kernel: the channels of the convolution's input and output."""
        per_group, out = kernel.shape[2:] if self.layout == NHWC else kernel.shape[1::-1]
        return known(per_group) * self.groups, known(out)

    def check_channels(self, got: Size, expected: int, out: int, what: str) -> None:
        """Raise unless an image batch has the channels that the kernel is for."""
        if got != expected:
            raise ShapeError(
                f"the {what} has the wrong number of channels",
                expected=f"{expected} (the kernel's, {self.groups} group{'s' * (self.groups > 1)}, {self.layout})",
                got=got,
            )
        if out % self.groups:
            raise ShapeError("groups do not divide the channels", expected=f"a divisor of {out}", got=self.groups)


class Conv2D(Convolution, name="conv2d"):
    """y[n,i,j,o] = Σ x[n, i·s + a·d − p, j·s + b·d − p, c] · w[a,b,c,o]: a cross-correlation, as the field has it."""

    def infer(self, x: Any, kernel: Any) -> TensorType:
        """N,H,W,I · H,W,I/groups,O → N,H′,W′,O."""
        images, weights = tensor(x), tensor(kernel)
        inside = win.spatial(images, self.layout)
        window = self.window(weights)
        into, out = self.kernel_channels(weights)
        self.check_channels(win.channels(images, self.layout), into, out, "input")
        shape = win.images(images.shape[0], window.output(inside), out, self.layout)
        return TensorType(shape, check_same_dtype("input and kernel", images, weights))

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = conv2d_transpose(g, w), ∂w = conv2d_kernel_adjoint(x, g)."""
        x, kernel = node.inputs
        inside = win.spatial(x.tensor_type, self.layout)
        return (
            Node(Conv2DTranspose(**self.shared, output_size=inside), (g, kernel)),
            Node(Conv2DKernelAdjoint(**self.shared, kernel_size=self.window(kernel.tensor_type).size), (x, g)),
        )

    def flops(self, node: Node) -> Size:
        """A multiply-add for each tap, input channel of the group, and output element."""
        return 2 * node.tensor_type.size * _taps(self, node.inputs[1].tensor_type)


@dataclass(frozen=True)
class Conv2DTranspose(Convolution, name="conv2d_transpose"):
    """The adjoint of conv2d with respect to its input: y's pixels, spread by the kernel over `output_size`."""

    output_size: tuple[Size, Size] = (1, 1)

    def infer(self, y: Any, kernel: Any) -> TensorType:
        """N,H′,W′,O · H,W,I/groups,O → N,H,W,I; H′,W′ must be what conv2d makes of H,W."""
        images, weights = tensor(y), tensor(kernel)
        got = win.spatial(images, self.layout)
        expected = self.window(weights).output(self.output_size)
        if got != expected:
            raise ShapeError(
                "no convolution of this output size gives this input",
                expected=f"an input of {expected} for an output of {self.output_size}",
                got=got,
            )
        into, out = self.kernel_channels(weights)
        self.check_channels(win.channels(images, self.layout), out, out, "input")
        shape = win.images(images.shape[0], self.output_size, into, self.layout)
        return TensorType(shape, check_same_dtype("input and kernel", images, weights))

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂y = conv2d(g, w), ∂w = conv2d_kernel_adjoint(g, y)."""
        y, kernel = node.inputs
        return (
            Node(Conv2D(**self.shared), (g, kernel)),
            Node(Conv2DKernelAdjoint(**self.shared, kernel_size=self.window(kernel.tensor_type).size), (g, y)),
        )

    def flops(self, node: Node) -> Size:
        """The same as the convolution it is the adjoint of."""
        return 2 * node.inputs[0].tensor_type.size * _taps(self, node.inputs[1].tensor_type)


@dataclass(frozen=True)
class Conv2DKernelAdjoint(Convolution, name="conv2d_kernel_adjoint"):
    """The adjoint of conv2d with respect to its kernel: correlations of x with y, one for each tap."""

    kernel_size: Pair = (1, 1)

    def infer(self, x: Any, y: Any) -> TensorType:
        """N,H,W,I · N,H′,W′,O → H,W,I/groups,O."""
        images, outputs = tensor(x), tensor(y)
        inside, got = win.spatial(images, self.layout), win.spatial(outputs, self.layout)
        window = Window(win.pair(self.kernel_size, "kernel size"), self.strides, self.dilations, self.padding)
        if got != window.output(inside) or images.shape[0] != outputs.shape[0]:
            raise ShapeError("not a convolution's input and output", expected=window.output(inside), got=got)
        into = known(win.channels(images, self.layout))
        out = known(win.channels(outputs, self.layout))
        if into % self.groups or out % self.groups:
            raise ShapeError(
                "groups do not divide the channels", expected=f"a divisor of {into}, {out}", got=self.groups
            )
        shape = (into // self.groups, out)
        full = (*window.size, *shape) if self.layout == NHWC else (*shape[::-1], *window.size)
        return TensorType(full, check_same_dtype("operands", images, outputs))

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """∂x = conv2d_transpose(y, g), ∂y = conv2d(x, g)."""
        x, y = node.inputs
        inside = win.spatial(x.tensor_type, self.layout)
        return Node(Conv2DTranspose(**self.shared, output_size=inside), (y, g)), Node(Conv2D(**self.shared), (x, g))

    def flops(self, node: Node) -> Size:
        """The same as the convolution it is the adjoint of."""
        return 2 * node.inputs[1].tensor_type.size * _taps(self, node.tensor_type)


def _taps(op: Convolution, kernel: TensorType) -> Size:
    """Return the products that make one output element."""
    return product(op.window(kernel).size) * (op.kernel_channels(kernel)[0] // op.groups)


def conv2d(
    x: Operand,
    kernel: Operand,
    strides: Any = 1,
    padding: Any = "valid",
    dilations: Any = 1,
    groups: int = 1,
    layout: str = NHWC,
) -> Node:
    """Return the 2-D convolution of images x with a kernel (cross-correlation, Dumoulin & Visin 2016).

    x: N,H,W,I; kernel: H,W,I/groups,O (with `layout="NCHW"`: N,I,H,W and O,I/groups,H,W). padding: "valid", "same",
    an integer, or ((top, bottom), (left, right)).

    >>> from minigraph.ir import variable
    >>> conv2d(variable((2, 8, 8, 3)), variable((3, 3, 3, 16)), strides=2, padding="same")
    <conv2d : float32[2,4,4,16]>
    """
    op = Conv2D(win.pair(strides, "strides"), win.padding(padding), win.pair(dilations, "dilations"), groups, layout)
    return Node(op, (as_node(x), as_node(kernel)))


def conv2d_transpose(
    x: Operand,
    kernel: Operand,
    strides: Any = 1,
    padding: Any = "valid",
    dilations: Any = 1,
    groups: int = 1,
    layout: str = NHWC,
    output_padding: Any = None,
    output_size: Any = None,
) -> Node:
    """Return the transposed convolution of x: the adjoint of `conv2d` with the same arguments.

    x: N,H,W,O; kernel: H,W,I/groups,O; the result has I channels. Its size is size·stride for "same", the smallest
    that fits otherwise, plus `output_padding`; or it is given by `output_size`.

    >>> from minigraph.ir import variable
    >>> conv2d_transpose(variable((2, 4, 4, 16)), variable((3, 3, 3, 16)), strides=2, padding="same")
    <conv2d_transpose : float32[2,8,8,3]>
    """
    node, weights = as_node(x), as_node(kernel)
    shared: dict[str, Any] = {
        "strides": win.pair(strides, "strides"), "padding": win.padding(padding),
        "dilations": win.pair(dilations, "dilations"), "groups": groups, "layout": win.layout(layout),
    }  # fmt: skip
    if output_size is None:
        window = Conv2D(**shared).window(weights.tensor_type)
        extra = (0, 0) if output_padding is None else win.pair(output_padding, "output padding", minimum=0)
        output_size = _transposed_size(window, win.spatial(node.tensor_type, layout), extra)
    else:
        output_size = win.pair(output_size, "output size")
    return Node(Conv2DTranspose(**shared, output_size=output_size), (node, weights))


def _transposed_size(window: Window, inside: tuple[Size, Size], extra: Pair) -> Shape:
    """Return what each axis grows to: a multiple of an open size, a number otherwise."""
    sizes: list[Size] = []
    for axis, size in enumerate(inside):
        stride, rest = window.strides[axis], extra[axis]
        if window.padding != "same":
            rest += window.extent[axis] - stride - sum(window.pads(inside)[axis])
        sizes.append(size * stride if rest == 0 else known(size, "an axis of a transposed convolution") * stride + rest)
    return tuple(sizes)
