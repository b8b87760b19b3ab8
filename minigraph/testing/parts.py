"""The parts that random networks are made of: each takes a value of the network and returns a new one.

A part draws its attributes so that they fit. Where it cannot, it raises a ShapeError, and the network does without.
`SPECS` is the list of all of them, with what each needs and how often it comes.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, TypeAlias

import numpy as np

from minigraph import ops
from minigraph.errors import ShapeError
from minigraph.ir import Input, Node, scope, unique_name, variable
from minigraph.ir.leaves import Constant
from minigraph.ir.types import DTYPES, TensorType, known, product
from minigraph.layers.initializers import VarianceScaling
from minigraph.ops.norm import BatchNorm, Moving
from minigraph.ops.window import NCHW, NHWC, spatial

MAX_CHANNELS = 12
MAX_PIXELS = 12
ACTIVATIONS: tuple[Callable[[Node], Node], ...] = (
    ops.relu, ops.relu, ops.relu, ops.tanh, ops.sigmoid, ops.silu, ops.gelu, ops.elu, ops.softplus, ops.hard_sigmoid,
    ops.hard_swish, ops.abs, partial(ops.leaky_relu, alpha=0.1), partial(ops.clip, minimum=0.0, maximum=6.0),
    partial(ops.gelu, approximate=True), partial(ops.maximum, 0.0),
)  # fmt: skip
_INITIAL: Mapping[str, Any] = {"kernel": VarianceScaling(), "gamma": 1.0, "moving_variance": 1.0}


@dataclass(frozen=True)
class Value:
    """A node of the network; `layout` says where an image has its channels, and is empty for what is no image."""

    node: Node
    layout: str = ""

    @property
    def axis(self) -> int:
        """The axis of the channels: the last, but for N,C,H,W."""
        return 1 if self.layout == NCHW else self.node.rank - 1

    @property
    def channels(self) -> int:
        """The number of channels, or of features."""
        return known(self.node.shape[self.axis])

    @property
    def pixels(self) -> tuple[int, int]:
        """Height and width of an image."""
        height, width = spatial(self.node.tensor_type, self.layout)
        return known(height), known(width)

    def to(self, node: Node) -> Value:
        """Return another node with the same meaning of its axes."""
        return Value(node, self.layout)


class Draft:
    """A network under construction: the chooser, the values that can be read, and the variables that can be shared."""

    def __init__(self, rng: random.Random, dtype: str, layout: str) -> None:
        self.rng = rng
        self.dtype = dtype
        self.layout = layout
        self.values: list[Value] = []
        self.norms: dict[TensorType, tuple[Node, ...]] = {}

    def chance(self, probability: float) -> bool:
        """Draw yes with this probability."""
        return self.rng.random() < probability

    def constant(self, shape: tuple[int, ...], dtype: str, low: float, high: float) -> Node:
        """Return a constant of numbers with two digits, so that texts stay short."""
        numbers = [round(self.rng.uniform(low, high), 2) for _ in range(math.prod(shape))]
        return ops.constant(np.array(numbers, dtype).reshape(shape))

    def weights(self, layer: str, role: str, shape: tuple[int, ...], dtype: str) -> Node:
        """Return a variable, or now and then a constant; the sum over a kernel's inputs stays moderate."""
        if self.chance(0.1):
            limit = 2.0 / math.sqrt(math.prod(shape) / max(shape))
            return self.constant(shape, dtype, -limit, limit)
        return variable(shape, name=f"{layer}/{role}", dtype=dtype, init=_INITIAL.get(role, 0.0))

    def vector(self, layer: str, role: str, v: Value) -> Node:
        """Return one number for each channel of v, shaped so that it broadcasts."""
        narrow = self.weights(layer, role, (v.channels,), v.node.dtype)
        return ops.reshape(narrow, (v.channels,) + (1,) * (v.node.rank - 1 - v.axis))

    def kernel(self, layer: str, shape: tuple[int, ...], v: Value) -> Node:
        """Return a kernel H,W,I,O; in N,C,H,W as O,I,H,W, or transposed to that, as layers do it."""
        turned = tuple(shape[a] for a in (3, 2, 0, 1))
        if v.layout == NHWC:
            return self.weights(layer, "kernel", shape, v.node.dtype)
        if self.chance(0.5):
            return self.weights(layer, "kernel", turned, v.node.dtype)
        return ops.transpose(self.weights(layer, "kernel", shape, v.node.dtype), (3, 2, 0, 1))

    def statistics(self, layer: str, channels: int, dtype: str) -> tuple[Node, ...]:
        """Return γ, β, mean and variance: new, shared with an earlier batch norm, or left out."""
        type = TensorType((channels,), dtype)
        make = partial(variable, (channels,), dtype=dtype)
        trainable = self.chance(0.9)
        new = (
            Node(Constant.full(type, 1.0)) if self.chance(0.1)
            else make(name=f"{layer}/gamma", init=1.0, trainable=trainable),
            Node(Constant.full(type, 0.0)) if self.chance(0.1)
            else make(name=f"{layer}/beta", init=0.0, trainable=trainable),
            make(name=f"{layer}/moving_mean", init=0.0, trainable=False),
            make(name=f"{layer}/moving_variance", init=1.0, trainable=False),
        )  # fmt: skip
        earlier = self.norms.setdefault(type, new)
        return tuple(old if self.chance(0.15) else fresh for old, fresh in zip(earlier, new, strict=True))


Part: TypeAlias = Callable[[Draft, Value], Value]


# --- normalisation ------------------------------------------------------------------------------------------------


def norm(d: Draft, v: Value, axis: int | None = None) -> Value:
    """Batch norm as a definition has it, over the channels unless another axis is asked for."""
    chosen = v.axis if axis is None else axis
    others = product(s for i, s in enumerate(v.node.shape) if i != chosen)
    if others == 1:
        raise ShapeError("one value for each channel has no variance", where="")
    layer = unique_name("batch_normalization")
    operands = d.statistics(layer, known(v.node.shape[chosen]), v.node.dtype)
    moving = Moving(d.rng.choice((0.99, 0.9)), d.chance(0.1), frozen=d.chance(0.15), cumulative=d.chance(0.05))
    if moving.cumulative:
        operands += (variable((), name=f"{layer}/count", dtype=v.node.dtype, init=0.0, trainable=False),)
    written = chosen - d.rng.choice((0, v.node.rank))  # counted from the front or from the end
    op = BatchNorm(written, d.rng.choice((1e-3, 1e-5)), moving, fold=d.chance(0.9))
    with scope(layer):
        return v.to(Node(op, (v.node, *operands)))


def norm_of_other_axis(d: Draft, v: Value) -> Value:
    """Batch norm over an axis that does not hold the channels."""
    axes = [i for i, size in enumerate(v.node.shape) if i != v.axis and isinstance(size, int)]
    if not axes:
        raise ShapeError("all other axes are symbolic", where="")
    return norm(d, v, d.rng.choice(axes))


def norm_of_equal_axis(d: Draft, v: Value) -> Value:
    """As many channels as another axis has elements, by accident, and batch norm over that other axis."""
    axis = v.node.rank - 2 if v.axis == v.node.rank - 1 else v.node.rank - 1
    size = known(v.node.shape[axis])
    return norm(d, linear(d, v, keep=True, out=size), axis)


def statistics_of_batch(d: Draft, v: Value) -> Value:
    """Batch norm that keeps no moving averages: the moments of what is there, in both modes; or of each example."""
    axes = [i for i in range(v.node.rank) if i != v.axis]
    mean, variance = ops.moments(v.node, axes)
    type = mean.tensor_type
    gamma, beta = Node(Constant.full(type, 1.0)), Node(Constant.full(type, 0.0))
    return v.to(ops.batch_norm(v.node, gamma, beta, mean, variance, v.axis, 1e-3))


# --- linear layers ------------------------------------------------------------------------------------------------


def _window(d: Draft, v: Value, padding: str) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Draw a window that fits the image: (size, strides, padding and dilations)."""
    padding = padding or d.rng.choice(("same", "same", "valid", "explicit"))
    pads: Any = padding
    room = [99, 99] if padding == "same" else list(v.pixels)
    if padding == "explicit":
        pads = tuple((d.rng.randint(0, 2), d.rng.randint(0, 2)) for _ in range(2))
        room = [r + sum(p) for r, p in zip(room, pads, strict=True)]
    wanted = d.rng.choice(((1, 1), (2, 2), (3, 3), (3, 3), (1, 3), (3, 2), (4, 4)))
    size = tuple(min(k, r) for k, r in zip(wanted, room, strict=True))
    widest = d.rng.choice((1, 1, 1, 2))
    dilations = tuple(widest if (k - 1) * widest < r else 1 for k, r in zip(size, room, strict=True))
    strides = d.rng.choice(((1, 1), (1, 1), (1, 1), (2, 2), (2, 1)))
    return size, {"strides": strides, "padding": pads, "dilations": dilations}


def _groups(d: Draft, into: int, out: int) -> int:
    """Draw the number of groups; `out` 0 is still open."""
    return d.rng.choice([g for g in (1, 1, 1, 1, 2, 3, 4, into) if into % g == 0 and out % g == 0 and g <= 8])


def convolution(
    d: Draft, v: Value, padding: str = "", keep: bool = False, out: int = 0, depthwise: bool = False
) -> Callable[[Node], Node]:
    """Return a convolution for images like v, with its kernel and perhaps a bias; `keep` keeps the image's size."""
    size, attributes = _window(d, v, "same" if keep else padding)
    if keep:
        attributes["strides"] = (1, 1)
    groups = v.channels if depthwise else _groups(d, v.channels, out)
    most = max(1, 8 // groups)
    channels = out or groups * d.rng.randint(1, 2 if depthwise and most > 1 else most)
    layer = unique_name("conv2d")
    with scope(layer):
        kernel = d.kernel(layer, (*size, v.channels // groups, channels), v)
    bias: Node | None = None

    def apply(x: Node) -> Node:
        with scope(layer):
            y = ops.conv2d(x, kernel, groups=groups, layout=v.layout, **attributes)
            return y if bias is None else y + bias

    if d.chance(0.4):
        bias = d.vector(layer, "bias", v.to(apply(v.node)))
    return apply


def conv(d: Draft, v: Value, **options: Any) -> Value:
    """A convolution of its own kernel."""
    return v.to(convolution(d, v, **options)(v.node))


def transposed_conv(d: Draft, v: Value) -> Value:
    """A transposed convolution: "same", "valid" or explicit padding, groups, output padding."""
    stride = d.rng.choice((1, 2)) if max(v.pixels) * 2 <= MAX_PIXELS - 2 else 1
    padding: Any = d.rng.choice(("same", "same", "valid", 1))
    size = d.rng.choice(((3, 3), (4, 3), (4, 4)) if padding == 1 else ((1, 1), (2, 2), (3, 3), (2, 3)))
    groups = _groups(d, v.channels, 0)
    into = d.rng.randint(1, max(1, 8 // groups))
    layer = unique_name("conv2d_transpose")
    extra = d.rng.randint(0, 1) if stride == 2 and padding != "same" else None
    with scope(layer):
        kernel = d.kernel(layer, (*size, into, v.channels), v)
        y = v.to(ops.conv2d_transpose(v.node, kernel, stride, padding, 1, groups, v.layout, extra))
        return y.to(y.node + d.vector(layer, "bias", y)) if d.chance(0.4) else y


def dense(d: Draft, v: Value, out: int = 0) -> Value:
    """A dense layer over the last axis; its kernel is transposed now and then."""
    units = out or d.rng.randint(1, 8)
    layer = unique_name("dense")
    with scope(layer):
        if d.chance(0.15):
            kernel = ops.transpose(d.weights(layer, "kernel", (units, v.channels), v.node.dtype))
        else:
            kernel = d.weights(layer, "kernel", (v.channels, units), v.node.dtype)
        y = v.to(v.node @ kernel)
        return y.to(y.node + d.vector(layer, "bias", y)) if d.chance(0.5) else y


# --- elementwise --------------------------------------------------------------------------------------------------


def activation(d: Draft, v: Value) -> Value:
    """A function of one number."""
    return v.to(d.rng.choice(ACTIVATIONS)(v.node))


def relu(d: Draft, v: Value) -> Value:
    """max(x, 0)."""
    return v.to(ops.relu(v.node))


def affine(d: Draft, v: Value) -> Value:
    """A chain of sums, products, differences and quotients with numbers, constants and variables."""
    node, layer = v.node, unique_name("affine")
    for i in range(d.rng.randint(1, 3)):
        other: Any = d.rng.choice((0.5, 1.0, 0.0, -2.0, 3.0)) if d.chance(0.4) else d.vector(layer, f"term{i}", v)
        node = d.rng.choice((
            partial(ops.mul, node, other), partial(ops.mul, other, node), partial(ops.add, node, other),
            partial(ops.add, other, node), partial(ops.sub, node, other), partial(ops.sub, other, node),
            partial(ops.div, node, d.rng.choice((2.0, 3.0, -0.25))), partial(ops.neg, node),
        ))()  # fmt: skip
    return v.to(node)


def dropout(d: Draft, v: Value) -> Value:
    """Dropout, with a seed of its own or without."""
    return v.to(ops.dropout(v.node, d.rng.choice((0.25, 0.5)), d.rng.choice((None, 3))))


def narrow(d: Draft, v: Value) -> Value:
    """Something linear in a narrower dtype, limited so that nothing overflows, and back again."""
    dtypes = [t for t in ("float16", "float32", "float64") if DTYPES[t] < DTYPES[v.node.dtype]]
    if not dtypes:
        raise ShapeError("there is no narrower dtype", where="")
    limited = ops.clip(v.node, -4.0, 4.0) if d.chance(0.5) else ops.tanh(v.node)
    inside = v.to(ops.cast(limited, d.rng.choice(dtypes)))
    y = relu(d, inside) if d.chance(0.3) else linear(d, inside)
    return y.to(ops.cast(y.node, v.node.dtype))


def linear(d: Draft, v: Value, keep: bool = False, out: int = 0) -> Value:
    """A convolution of an image, a dense layer of anything else; `keep` keeps the image's size."""
    return conv(d, v, keep=keep, out=out) if v.layout else dense(d, v, out=out)


# --- several operands ---------------------------------------------------------------------------------------------


def residual(d: Draft, v: Value) -> Value:
    """X + f(x), f a convolution or dense layer that keeps the shape, with or without batch norm and ReLU."""
    y = linear(d, v, keep=True, out=v.channels)
    for part in (norm, relu):
        y = part(d, y) if d.chance(0.5) else y
    return v.to(ops.add(*d.rng.sample((v.node, y.node), 2)))


def add_two(d: Draft, v: Value) -> Value:
    """The sum, difference or maximum of two values of one type, or one times a function of the other."""
    others = [w.node for w in d.values if w.node.type == v.node.type and w.layout == v.layout]
    x, y = v.node, d.rng.choice(others)
    return v.to(d.rng.choice((ops.add, ops.add, ops.sub, ops.maximum, lambda x, y: x * ops.tanh(y)))(x, y))


def add_linear(d: Draft, v: Value) -> Value:
    """The sum of two or three convolutions, or dense layers, of one value."""
    out = d.rng.randint(1, 6)
    terms = [linear(d, v, keep=True, out=out) for _ in range(d.rng.choice((2, 2, 3)))]
    return v.to(reduce(ops.add, (t.node for t in terms)))


def concat(d: Draft, v: Value) -> Value:
    """Branches of one value side by side: linear ones, the value itself, an activation, a batch norm."""
    wide = partial(linear, keep=True)
    choices: tuple[Part, ...] = (wide, wide, lambda d, v: v, activation, norm)
    branches = [d.rng.choice(choices)(d, v) for _ in range(d.rng.choice((2, 2, 3)))]
    if sum(b.channels for b in branches) > max(MAX_CHANNELS, 2 * v.channels):
        raise ShapeError("too many channels", where="")
    return v.to(ops.concat([b.node for b in branches], v.axis))


def concat_linear(d: Draft, v: Value) -> Value:
    """Convolutions, or dense layers, side by side."""
    branches = [linear(d, v, keep=True) for _ in range(2)]
    return v.to(ops.concat([b.node for b in branches], v.axis))


def gate(d: Draft, v: Value) -> Value:
    """X times a sigmoid of its channels' means, as in squeeze-and-excitation."""
    pooled = v.to(ops.global_avg_pool2d(v.node, keepdims=True, layout=v.layout))
    return v.to(v.node * ops.sigmoid(conv(d, pooled, padding="valid", out=v.channels).node))


def shared_kernel(d: Draft, v: Value) -> Value:
    """One kernel in two convolutions, one of them with a batch norm after it."""
    apply = convolution(d, v)
    return v.to(norm(d, v.to(apply(v.node))).node + apply(ops.relu(v.node)))


def read_twice(d: Draft, v: Value) -> Value:
    """A convolution or dense layer that a batch norm and something else read."""
    y = linear(d, v)
    return y.to(norm(d, y).node + activation(d, y).node)


def duplicate(d: Draft, v: Value) -> Value:
    """The same thing computed twice."""
    apply = convolution(d, v) if v.layout and d.chance(0.6) else d.rng.choice(ACTIVATIONS)
    return v.to(apply(v.node) + ops.mul(apply(v.node), 0.5))


def pieces(d: Draft, v: Value) -> Value:
    """Channels cut in two; one piece is left unread, or both are joined again the other way round."""
    if v.channels < 2:
        raise ShapeError("one channel cannot be cut", where="")
    first = d.rng.randint(1, v.channels - 1)
    left, right = ops.split(v.node, (first, v.channels - first), v.axis)
    return v.to(left if d.chance(0.3) else ops.concat([right, ops.relu(left)], v.axis))


# --- pools and forms ----------------------------------------------------------------------------------------------


def pool(d: Draft, v: Value, kind: str = "") -> Value:
    """A maximum or mean over windows, with padding counted or not, or with the number of windows rounded up."""
    size = tuple(min(k, p) for k, p in zip(d.rng.choice(((2, 2), (3, 3), (2, 1), (3, 2))), v.pixels, strict=True))
    pads = tuple(tuple(d.rng.randint(0, k // 2) for _ in range(2)) for k in size)
    options: dict[str, Any] = {
        "size": size, "strides": d.rng.choice((None, 1, 2)), "padding": d.rng.choice(("valid", "same", pads)),
        "layout": v.layout, "ceil_mode": d.chance(0.15),
    }  # fmt: skip
    if (kind or d.rng.choice(("max", "average"))) == "max":
        return v.to(ops.max_pool2d(v.node, **options))
    return v.to(ops.avg_pool2d(v.node, **options, count_padding=d.chance(0.4)))


def global_pool(d: Draft, v: Value) -> Value:
    """The mean or maximum over height and width; the two axes stay, or go."""
    keep = d.chance(0.3)
    function = d.rng.choice((ops.global_avg_pool2d, ops.global_avg_pool2d, ops.global_max_pool2d))
    return Value(function(v.node, keep, v.layout), v.layout if keep else "")


def pad(d: Draft, v: Value) -> Value:
    """Zeros, seldom another number, around an image."""
    edges = iter([(d.rng.randint(0, 2), d.rng.randint(0, 2)) for _ in range(2)])
    padding = [(0, 0) if axis in (0, v.axis) else next(edges) for axis in range(4)]
    return v.to(ops.pad(v.node, padding, d.rng.choice((0.0, 0.0, 0.0, -1.5))))


def crop(d: Draft, v: Value) -> Value:
    """A slice of the image: without its border, or every other row, or backwards."""
    turn = d.rng.choice((slice(1, None), slice(None, None, 2), slice(None, None, -1)))
    return v.to(v.node[:, turn] if v.layout == NHWC else v.node[:, :, turn])


def flatten(d: Draft, v: Value) -> Value:
    """Each example as a vector; the order of its elements is the layout's."""
    return Value(ops.flatten(v.node))


def to_image(d: Draft, v: Value) -> Value:
    """A dense layer, as an image."""
    side, channels = d.rng.randint(2, 4), d.rng.randint(1, 4)
    wide = dense(d, v, out=side * side * channels)
    sizes = (side, side, channels) if d.layout == NHWC else (channels, side, side)
    return Value(ops.reshape(wide.node, (v.node.shape[0], *sizes)), d.layout)


def to_rows(d: Draft, v: Value) -> Value:
    """An N,H,W,C image as N, pixels, C; an N,C,H,W one is transposed to that."""
    height, width = v.pixels
    last = v.node if v.layout == NHWC else ops.transpose(v.node, (0, 2, 3, 1))
    return Value(ops.reshape(last, (v.node.shape[0], height * width, v.channels)))


def through_rows(d: Draft, v: Value, *parts: Part) -> Value:
    """Parts in between two reshapes that undo each other."""
    rows = ops.reshape(v.node, (v.node.shape[0], *_joined(v)))
    axis = 1 if v.layout == NCHW else 2
    for part in parts or (activation,):
        rows = norm(d, Value(rows), axis).node if part is norm else part(d, Value(rows)).node
    return v.to(ops.reshape(rows, v.node.shape))


def _joined(v: Value) -> Sequence[int]:
    height, width = v.pixels
    return (v.channels, height * width) if v.layout == NCHW else (height * width, v.channels)


def through_transpose(d: Draft, v: Value, *parts: Part) -> Value:
    """Parts in between two transposes that undo each other; batch norm keeps to the channels."""
    order = list(range(v.node.rank))
    d.rng.shuffle(order)
    turned = Value(ops.transpose(v.node, order))
    axis = order.index(v.axis)
    for part in parts or (activation,):
        turned = norm(d, turned, axis) if part is norm else part(d, turned)
    return v.to(ops.transpose(turned.node, [order.index(i) for i in range(len(order))]))


def other_layout(d: Draft, v: Value) -> Value:
    """The image in the other layout."""
    if v.layout == NHWC:
        return Value(ops.transpose(v.node, (0, 3, 1, 2)), NCHW)
    return Value(ops.transpose(v.node, (0, 2, 3, 1)), NHWC)


# --- the list -----------------------------------------------------------------------------------------------------


def anything(v: Value) -> bool:
    """Tell that any value will do."""
    return True


def image(v: Value) -> bool:
    """Tell whether a value is an image of no more channels than convolutions should have."""
    return v.layout != "" and v.channels <= MAX_CHANNELS and max(v.pixels) <= MAX_PIXELS


def pixels(v: Value) -> bool:
    """Tell whether a value is an image of more than one pixel each way."""
    return image(v) and min(v.pixels) >= 2


def rows(v: Value) -> bool:
    """Tell whether a value is a matrix, or a batch of matrices."""
    return v.layout == ""


def channels_last(v: Value) -> bool:
    """Tell whether a value is an image whose last axis holds the channels."""
    return image(v) and v.layout == NHWC


def source(v: Value) -> bool:
    """Tell whether a value is an input."""
    return isinstance(v.node.op, Input)


def with_accident(v: Value) -> bool:
    """Tell whether there is an axis beside the channels that could be as long by accident."""
    if v.layout:
        return pixels(v)
    return isinstance(v.node.shape[-2], int) and 2 <= v.node.shape[-2] <= MAX_CHANNELS


@dataclass(frozen=True)
class Spec:
    """What can happen to a value: `parts`, one after the other, where the value `fits`; `weight`: how often."""

    name: str
    fits: Callable[[Value], bool]
    parts: tuple[Part, ...]
    weight: int = 2

    def __call__(self, d: Draft, v: Value) -> Value:
        """Return the value that the parts make of `v`."""
        for part in self.parts:
            v = part(d, v)
        return v


# Where batch norm can stand: a spec for each position.
POSITIONS = (
    Spec("conv_bn", image, (conv, norm), 6),
    Spec("conv_bn_relu", image, (conv, norm, relu), 4),
    Spec("depthwise_bn", image, (partial(conv, depthwise=True), norm), 3),
    Spec("transposed_conv_bn", image, (transposed_conv, norm), 4),
    Spec("dense_bn", rows, (dense, norm), 6),
    Spec("pixelwise_dense_bn", channels_last, (dense, norm)),
    Spec("add_bn", anything, (residual, norm)),
    Spec("add_linear_bn", anything, (add_linear, norm), 3),
    Spec("concat_bn", anything, (concat, norm)),
    Spec("concat_linear_bn", anything, (concat_linear, norm)),
    Spec("relu_bn", anything, (relu, norm)),
    Spec("conv_relu_bn", image, (conv, relu, norm)),
    Spec("pool_bn", pixels, (pool, norm)),
    Spec("conv_pool_bn", pixels, (partial(conv, keep=True), pool, norm)),
    Spec("conv_transpose_bn", image, (conv, lambda d, v: through_transpose(d, v, norm))),
    Spec("conv_rows_bn", image, (conv, lambda d, v: through_rows(d, v, norm))),
    Spec("conv_flatten_bn", image, (conv, flatten, norm)),
    Spec("conv_other_layout_bn", image, (conv, other_layout, norm)),
    Spec("pad_conv_bn", image, (pad, partial(conv, padding="valid"), norm)),
    Spec("bn_conv_valid", image, (norm, partial(conv, padding="valid")), 3),
    Spec("bn_conv_padded", pixels, (norm, partial(conv, padding="explicit")), 3),
    Spec("bn_pad_conv", image, (norm, pad, partial(conv, padding="valid"))),
    Spec("bn_relu_conv", image, (norm, relu, conv), 3),
    Spec("bn_pool", pixels, (norm, pool)),
    Spec("bn_dense", rows, (norm, dense), 6),
    Spec("bn_flatten_dense", image, (norm, flatten, dense)),
    Spec("bn_bn", anything, (norm, norm)),
    Spec("bn_affine", anything, (norm, affine)),
    Spec("bn_on_input", source, (norm,), 6),
    Spec("bn_of_other_axis", anything, (norm_of_other_axis,)),
    Spec("bn_of_equal_axis", with_accident, (norm_of_equal_axis,), 3),
    Spec("bn_of_batch", anything, (statistics_of_batch,), 1),
    Spec("shared_kernel_bn", image, (shared_kernel,)),
    Spec("read_twice_bn", anything, (read_twice,)),
    Spec("narrow_bn", anything, (narrow, norm)),
)
PLAIN = (
    Spec("conv", image, (conv,), 3),
    Spec("depthwise", image, (partial(conv, depthwise=True),), 1),
    Spec("transposed_conv", image, (transposed_conv,), 1),
    Spec("dense", rows, (dense,), 4),
    Spec("activation", anything, (activation,), 6),
    Spec("affine", anything, (affine,), 6),
    Spec("residual", anything, (residual,), 3),
    Spec("add", anything, (add_two,), 3),
    Spec("concat", anything, (concat,)),
    Spec("gate", image, (gate,), 1),
    Spec("duplicate", anything, (duplicate,), 4),
    Spec("pieces", anything, (pieces,)),
    Spec("max_pool", pixels, (partial(pool, kind="max"),)),
    Spec("average_pool", pixels, (partial(pool, kind="average"),)),
    Spec("pad_pool", pixels, (pad, pool)),
    Spec("global_pool", image, (global_pool,)),
    Spec("crop", pixels, (crop,), 1),
    Spec("flatten_dense", image, (flatten, dense)),
    Spec("to_rows", image, (to_rows,), 1),
    Spec("to_image", rows, (to_image,), 2),
    Spec("through_transpose", anything, (through_transpose,)),
    Spec("through_rows", image, (through_rows,), 1),
    Spec("other_layout", image, (other_layout,), 1),
    Spec("narrow", anything, (narrow,), 1),
    Spec("dropout", anything, (dropout,), 1),
)
SPECS = POSITIONS + PLAIN
