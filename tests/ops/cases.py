"""Drawn cases for every op: a function from nodes to node(s), and float64 (or integer) arrays to call it with.

`draw(op, seed)` gives one case. Inputs lie away from kinks and ties where an op has any, and inside its domain.
"""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minigraph import ops
from minigraph.ir import Node, Op, TensorType
from minigraph.ir.leaves import Item
from minigraph.ops.activations import Sigmoid, Silu, Softplus, Tanh
from minigraph.ops.conv import Conv2D, Conv2DKernelAdjoint, Conv2DTranspose
from minigraph.ops.elementwise import Add, Greater, Less, Mul, Neg, Sub, Where
from minigraph.ops.fused import Fused
from minigraph.ops.group import group
from minigraph.ops.indexing import GatherAdjoint, SliceAdjoint
from minigraph.ops.linalg import MatMul
from minigraph.ops.norm import BatchNorm, Moments
from minigraph.ops.pool import AvgPool2DAdjoint, MaxPool2DAdjoint, MaxPool2DSelect
from minigraph.ops.real import Sin
from minigraph.ops.region import Step, inline, steps_of
from minigraph.ops.shape import After, Cast

Rng = np.random.Generator
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Case:
    """`function(*nodes)` returns a node or several; `arrays` are its operands; `note` says what was drawn."""

    function: Callable[..., Node | Sequence[Node]]
    arrays: list[Array] = field(repr=False)
    note: str = ""

    def describe(self) -> str:
        """Return the note and the operands' types, for a failure's message."""
        return f"{self.note} on {', '.join(f'{a.dtype}{list(a.shape)}' for a in self.arrays)}"


CASES: dict[str, Callable[[Rng], Case]] = {}


def draw(op: str, seed: int) -> Case:
    """Return the case of an op that belongs to a seed."""
    return CASES[op](np.random.default_rng([seed, zlib.crc32(op.encode())]))


def case_of(*names: str) -> Callable[[Callable[..., Case]], Callable[..., Case]]:
    """Register a generator of cases; one for several ops gets the op's function from `minigraph.ops` as well."""

    def register(make: Callable[..., Case]) -> Callable[..., Case]:
        for name in names:
            if len(names) == 1:
                CASES[name] = make
            else:
                CASES[name] = functools.partial(make, function=getattr(ops, name))
        return make

    return register


# --- drawing numbers ----------------------------------------------------------------------------------------------


def pick(rng: Rng, options: Sequence[Any]) -> Any:
    """Return one of the options."""
    return options[int(rng.integers(len(options)))]


def coin(rng: Rng) -> bool:
    """Return true or false."""
    return bool(rng.integers(2))


def some_shape(rng: Rng, low: int = 0, high: int = 3) -> tuple[int, ...]:
    """Return a shape with `low` to `high` axes of 1 to 4 elements."""
    return tuple(int(s) for s in rng.integers(1, 5, rng.integers(low, high + 1)))


def narrower(rng: Rng, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape that broadcasts to `shape`: leading axes dropped, others 1."""
    kept = shape[int(rng.integers(len(shape) + 1)) if rng.random() < 0.4 else 0 :]
    return tuple(1 if rng.random() < 0.3 else s for s in kept)


def two_shapes(rng: Rng) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return two shapes that broadcast together: equal, one within the other, or each within a third."""
    shape = some_shape(rng)
    return pick(rng, [(shape, shape), (shape, narrower(rng, shape)), (narrower(rng, shape), shape),
                      (narrower(rng, shape), narrower(rng, shape))])  # fmt: skip


def normal(rng: Rng, shape: Sequence[int], scale: float = 1.0) -> Array:
    """Return normal numbers."""
    return np.asarray(rng.standard_normal(tuple(shape)) * scale)


def positive(rng: Rng, shape: Sequence[int]) -> Array:
    """Return numbers in 0.3 … 2.5."""
    return np.asarray(rng.uniform(0.3, 2.5, tuple(shape)))


def distinct(rng: Rng, shape: Sequence[int]) -> Array:
    """Return numbers that differ from each other, and from 0, by 0.03 at least."""
    number = math.prod(shape)
    return ((rng.permutation(number) - number // 2 + 0.5) * 0.07).reshape(tuple(shape))


def away_from(rng: Rng, shape: Sequence[int], kinks: Sequence[float], scale: float = 1.0) -> Array:
    """Return normal numbers, 0.05 or more away from each of some (well separated) places."""
    x = normal(rng, shape, scale)
    for kink in kinks:
        x = np.where(np.abs(x - kink) < 0.05, np.where(x >= kink, kink + 0.06, kink - 0.06), x)
    return x


def some_axes(rng: Rng, rank: int) -> Any:
    """Return axes in any form: None, one (negative perhaps), or several in any order."""
    if rank == 0 or rng.random() < 0.2:
        return None if coin(rng) else ()
    if rng.random() < 0.4:
        return int(rng.integers(-rank, rank))
    chosen = rng.permutation(rank)[: rng.integers(1, rank + 1)]
    return tuple(int(a) - rank if coin(rng) else int(a) for a in chosen)


# --- elementwise --------------------------------------------------------------------------------------------------


@case_of("add", "sub", "mul")
def _arithmetic(rng: Rng, function: Any) -> Case:
    x, y = two_shapes(rng)
    if rng.random() < 0.2:  # a number beside a node
        number = float(rng.normal())
        return Case(lambda a: function(a, number), [normal(rng, x)], f"y={number}")
    return Case(function, [normal(rng, x), normal(rng, y)])


@case_of("div")
def _div(rng: Rng) -> Case:
    x, y = two_shapes(rng)
    return Case(ops.div, [normal(rng, x), positive(rng, y) * pick(rng, [-1.0, 1.0])])


@case_of("pow")
def _pow(rng: Rng) -> Case:
    x, y = two_shapes(rng)
    if rng.random() < 0.4:  # any base, with a whole exponent that is no operand
        number = float(pick(rng, [-2, -1, 0, 1, 2, 3]))
        return Case(lambda a: ops.pow(a, number), [away_from(rng, x, [0.0]) * 2], f"y={number}")
    return Case(ops.pow, [positive(rng, x), normal(rng, y, 1.5)])


@case_of("maximum", "minimum")
def _larger(rng: Rng, function: Any) -> Case:
    x, y = two_shapes(rng)
    values = distinct(rng, (math.prod(x) + math.prod(y),))
    return Case(function, [values[: math.prod(x)].reshape(x), values[math.prod(x) :].reshape(y)])


@case_of("less", "less_equal", "greater", "greater_equal", "equal", "not_equal")
def _comparison(rng: Rng, function: Any) -> Case:
    x, y = two_shapes(rng)
    return Case(function, [rng.integers(-2, 3, s).astype(np.float64) for s in (x, y)])


@case_of("where")
def _where(rng: Rng) -> Case:
    shape = some_shape(rng)
    shapes = [narrower(rng, shape) if coin(rng) else shape for _ in range(3)]
    return Case(ops.where, [rng.random(shapes[0]) < 0.5, normal(rng, shapes[1]), normal(rng, shapes[2])])


@case_of("neg", "sin", "cos", "exp", "tanh", "sigmoid", "softplus", "silu", "erf")
def _smooth(rng: Rng, function: Any) -> Case:
    return Case(function, [normal(rng, some_shape(rng), 1.5)])


@case_of("log", "sqrt", "rsqrt")
def _positive(rng: Rng, function: Any) -> Case:
    return Case(function, [positive(rng, some_shape(rng))])


@case_of("abs", "relu", "sign")
def _kink_at_zero(rng: Rng, function: Any) -> Case:
    return Case(function, [away_from(rng, some_shape(rng), [0.0])])


@case_of("floor")
def _floor(rng: Rng) -> Case:
    return Case(ops.floor, [away_from(rng, some_shape(rng), range(-9, 10), 2.0)])


@case_of("clip")
def _clip(rng: Rng) -> Case:
    low, high = pick(rng, [(-1.0, 1.0), (-math.inf, 0.5), (0.2, math.inf), (0.0, 6.0), (-math.inf, math.inf)])
    x = away_from(rng, some_shape(rng), [k for k in (low, high) if math.isfinite(k)], 2.0)
    return Case(lambda a: ops.clip(a, low, high), [x], f"minimum={low} maximum={high}")


@case_of("leaky_relu")
def _leaky_relu(rng: Rng) -> Case:
    alpha = pick(rng, [0.0, 0.01, 0.3, 1.0, 1.5, -0.2])
    return Case(lambda a: ops.leaky_relu(a, alpha), [away_from(rng, some_shape(rng), [0.0])], f"alpha={alpha}")


@case_of("elu")
def _elu(rng: Rng) -> Case:
    alpha = pick(rng, [0.3, 1.0, 1.7])
    return Case(lambda a: ops.elu(a, alpha), [away_from(rng, some_shape(rng), [0.0])], f"alpha={alpha}")


@case_of("gelu")
def _gelu(rng: Rng) -> Case:
    approximate = coin(rng)
    x = normal(rng, some_shape(rng), 1.5)
    return Case(lambda a: ops.gelu(a, approximate), [x], f"approximate={approximate}")


@case_of("hard_sigmoid")
def _hard_sigmoid(rng: Rng) -> Case:
    alpha, beta = pick(rng, [(1 / 6, 0.5), (0.2, 0.5), (0.5, 0.1)])
    x = away_from(rng, some_shape(rng), [-beta / alpha, (1 - beta) / alpha], 3.0)
    return Case(lambda a: ops.hard_sigmoid(a, alpha, beta), [x], f"alpha={alpha} beta={beta}")


@case_of("hard_swish")
def _hard_swish(rng: Rng) -> Case:
    return Case(ops.hard_swish, [away_from(rng, some_shape(rng), [-3.0, 3.0], 3.0)])


@case_of("cast")
def _cast(rng: Rng) -> Case:
    """Within float64, the only cast that differences of 1e-5 can see through, and from integers."""
    shape = some_shape(rng)
    if coin(rng):
        integers = rng.integers(-5, 6, shape)
        return Case(lambda i, x: ops.cast(i, "float64") * x, [integers, normal(rng, shape)], "int64 to float64")
    return Case(lambda x: Node(Cast("float64"), (x,)), [normal(rng, shape)], "float64 to float64")


# --- reductions ---------------------------------------------------------------------------------------------------


@case_of("sum", "mean", "logsumexp", "max", "min")
def _reduction(rng: Rng, function: Any) -> Case:
    shape = some_shape(rng, high=4)
    axes, keepdims = some_axes(rng, len(shape)), coin(rng)
    x = distinct(rng, shape) if function in (ops.max, ops.min) else normal(rng, shape, 2.0)
    return Case(lambda a: function(a, axes, keepdims), [x], f"axes={axes} keepdims={keepdims}")


@case_of("argmax")
def _argmax(rng: Rng) -> Case:
    shape = some_shape(rng, low=1)
    axis = int(rng.integers(-len(shape), len(shape)))
    return Case(lambda a: ops.argmax(a, axis), [distinct(rng, shape)], f"axis={axis}")


@case_of("softmax", "log_softmax")
def _softmax(rng: Rng, function: Any) -> Case:
    shape = some_shape(rng, low=1)
    axis = int(rng.integers(-len(shape), len(shape)))
    return Case(lambda a: function(a, axis), [normal(rng, shape, 2.0)], f"axis={axis}")


@case_of("softmax_cross_entropy")
def _softmax_cross_entropy(rng: Rng) -> Case:
    shape = some_shape(rng, low=1)
    axis = int(rng.integers(-len(shape), len(shape)))
    classes = shape[axis]
    smoothing = pick(rng, [0.0, 0.1])
    weights = list(rng.uniform(0.5, 2.0, classes)) if coin(rng) else None
    options = {"axis": axis, "class_weights": weights, "label_smoothing": smoothing}
    logits = normal(rng, shape, 2.0)
    if coin(rng):
        targets = positive(rng, shape)
        return Case(lambda a, t: ops.softmax_cross_entropy(a, t, **options), [logits, targets], str(options))
    options["ignore_index"] = pick(rng, [None, 0, -1])
    at = axis % len(shape)
    labels = rng.integers(0 if options["ignore_index"] != -1 else -1, classes, shape[:at] + shape[at + 1 :])
    return Case(lambda a, t: ops.softmax_cross_entropy(a, t, **options), [logits, labels], f"integer labels {options}")


@case_of("moments")
def _moments(rng: Rng) -> Case:
    shape = some_shape(rng, high=4)
    axes, used = some_axes(rng, len(shape)), pick(rng, [(0, 1), (0,), (1,)])
    return Case(lambda a: [ops.moments(a, axes)[i] for i in used], [normal(rng, shape)], f"axes={axes} items={used}")


@case_of("batch_norm")
def _batch_norm(rng: Rng) -> Case:
    shape = some_shape(rng, low=1, high=4)
    axis = int(rng.integers(-len(shape), len(shape)))
    vector, epsilon = (shape[axis],), pick(rng, [1e-3, 1e-5, 0.5])
    operands = [normal(rng, shape), *(normal(rng, vector) for _ in range(3)), positive(rng, vector)]
    return Case(lambda *v: ops.batch_norm(*v, axis=axis, epsilon=epsilon), operands, f"axis={axis} epsilon={epsilon}")


@case_of("matmul")
def _matmul(rng: Rng) -> Case:
    m, k, n = (int(s) for s in rng.integers(1, 5, 3))
    kind = pick(rng, ["matrices", "vectors", "batches", "flags"])
    if kind == "vectors":
        x, y = pick(rng, [((k,), (k, n)), ((m, k), (k,)), ((k,), (k,)), ((k,), (2, k, n)), ((2, m, k), (k,))])
        return Case(ops.matmul, [normal(rng, x), normal(rng, y)], kind)
    batch = (some_shape(rng, high=2), ()) if kind == "matrices" else two_shapes(rng)
    turn = (coin(rng), coin(rng)) if kind != "matrices" else (False, False)
    x = (*batch[0], *((k, m) if turn[0] else (m, k)))
    y = (*batch[1], *((n, k) if turn[1] else (k, n)))
    return Case(lambda a, b: Node(MatMul(*turn), (a, b)), [normal(rng, x), normal(rng, y)], f"{kind} transposed={turn}")


# --- shape --------------------------------------------------------------------------------------------------------


@case_of("reshape")
def _reshape(rng: Rng) -> Case:
    shape = some_shape(rng, high=4)
    target: list[int] = [int(s) for s in rng.permutation(np.array(shape, np.int64))]
    if len(target) > 1 and coin(rng):
        target[:2] = [target[0] * target[1]]
    if coin(rng):
        target.insert(int(rng.integers(len(target) + 1)), 1)
    if target and coin(rng):
        target[int(rng.integers(len(target)))] = -1
    return Case(lambda a: ops.reshape(a, target), [normal(rng, shape)], f"shape={target}")


@case_of("transpose")
def _transpose(rng: Rng) -> Case:
    shape = some_shape(rng, high=4)
    axes = None if rng.random() < 0.2 else tuple(int(a) for a in rng.permutation(len(shape)))
    return Case(lambda a: ops.transpose(a, axes), [normal(rng, shape)], f"axes={axes}")


@case_of("broadcast_to")
def _broadcast_to(rng: Rng) -> Case:
    shape = some_shape(rng)
    return Case(lambda a: ops.broadcast_to(a, shape), [normal(rng, narrower(rng, shape))], f"shape={shape}")


@case_of("pad")
def _pad(rng: Rng) -> Case:
    shape, value = some_shape(rng, low=1), pick(rng, [0.0, -1.5])
    padding = [tuple(int(p) for p in rng.integers(0, 3, 2)) for _ in shape]
    return Case(lambda a: ops.pad(a, padding, value), [normal(rng, shape)], f"padding={padding} value={value}")


def _index(rng: Rng, size: int) -> Any:
    kind = rng.random()
    if kind < 0.15:
        return int(rng.integers(-size, size))
    ends = [None if rng.random() < 0.3 else int(rng.integers(-size - 1, size + 2)) for _ in range(2)]
    return slice(*ends, pick(rng, [None, 1, 2, 3, -1, -2]))


@case_of("slice")
def _slice(rng: Rng) -> Case:
    shape = some_shape(rng, low=1, high=4)
    while True:  # not nothing, most of the time
        index: list[Any] = [_index(rng, s) for s in shape[: rng.integers(1, len(shape) + 1)]]
        if math.prod(np.zeros(shape)[tuple(index)].shape) or rng.random() < 0.05:
            break
    if coin(rng):
        index.append(Ellipsis)
    if coin(rng):
        index.insert(int(rng.integers(len(index) + 1)), None)
    return Case(lambda a: a[tuple(index)], [normal(rng, shape)], f"index={index}")


@case_of("slice_adjoint")
def _slice_adjoint(rng: Rng) -> Case:
    shape = some_shape(rng, low=1)
    taken = [range(s)[_index_slice(rng)] for s in shape]
    starts, steps = tuple(r.start if len(r) else 0 for r in taken), tuple(r.step for r in taken)
    op = SliceAdjoint(shape, starts, steps)
    return Case(lambda a: Node(op, (a,)), [normal(rng, [len(r) for r in taken])], str(op))


def _index_slice(rng: Rng) -> slice:
    return slice(None, None, pick(rng, [1, 2, 3, -1, -2]))


@case_of("concat")
def _concat(rng: Rng) -> Case:
    shape = some_shape(rng, low=1)
    axis = int(rng.integers(-len(shape), len(shape)))
    at = axis % len(shape)
    arrays = [normal(rng, (*shape[:at], s, *shape[at + 1 :])) for s in rng.integers(1, 4, rng.integers(1, 5))]
    return Case(lambda *xs: ops.concat(xs, axis), arrays, f"axis={axis}")


@case_of("split")
def _split(rng: Rng) -> Case:
    shape, sizes = some_shape(rng, high=2), [int(s) for s in rng.integers(1, 4, rng.integers(1, 4))]
    axis = int(rng.integers(len(shape) + 1))
    full = (*shape[:axis], sum(sizes), *shape[axis:])
    cut: Any = sizes if len(set(sizes)) > 1 or coin(rng) else len(sizes)
    used = sorted({int(i) for i in rng.integers(0, len(sizes), 3)})
    return Case(
        lambda a: [ops.split(a, cut, axis)[i] for i in used], [normal(rng, full)], f"{cut=} axis={axis} items={used}"
    )


@case_of("gather")
def _gather(rng: Rng) -> Case:
    shape = some_shape(rng, low=1)
    axis = int(rng.integers(-len(shape), len(shape)))
    mode, wide = ("clip", 2) if coin(rng) else ("raise", 0)
    indices = rng.integers(-shape[axis] - wide, shape[axis] + wide, some_shape(rng, high=2))
    given = [normal(rng, shape), np.asarray(indices)]
    return Case(lambda a, i: ops.gather(a, i, axis, mode), given, f"axis={axis} mode={mode}")


@case_of("gather_adjoint")
def _gather_adjoint(rng: Rng) -> Case:
    shape = some_shape(rng, low=1)
    axis = int(rng.integers(len(shape)))
    mode, wide = ("clip", 2) if coin(rng) else ("raise", 0)
    indices = np.asarray(rng.integers(-shape[axis] - wide, shape[axis] + wide, some_shape(rng, high=2)))
    x = normal(rng, shape[:axis] + indices.shape + shape[axis + 1 :])
    text = f"shape={shape} axis={axis} mode={mode}"
    return Case(lambda a, i: Node(GatherAdjoint(shape, axis, mode), (a, i)), [x, indices], text)


@case_of("one_hot")
def _one_hot(rng: Rng) -> Case:
    shape, classes = some_shape(rng, high=2), int(rng.integers(1, 5))
    axis = int(rng.integers(-len(shape) - 1, len(shape) + 1))
    labels = np.asarray(rng.integers(-1, classes + 1, shape))
    return Case(lambda i: ops.one_hot(i, classes, axis, "float64"), [labels], f"classes={classes} axis={axis}")


@case_of("size")
def _size(rng: Rng) -> Case:
    shape = some_shape(rng)
    axes = some_axes(rng, len(shape))
    return Case(lambda a: ops.size(a, axes, "float64"), [normal(rng, shape)], f"axes={axes}")


@case_of("random_uniform")
def _random_uniform(rng: Rng) -> Case:
    shape, key = some_shape(rng), tuple(int(k) for k in rng.integers(0, 2**63, 2))
    counter = np.asarray(rng.integers(0, 2**62))
    return Case(lambda c: ops.random_uniform(c, shape, key, "float64"), [counter], f"shape={shape} key={key}")


# --- windows ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drawn:
    """A drawn window over an image: what `conv2d` and the pools take, and the image's height and width."""

    size: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    padding: Any
    image: tuple[int, int]

    @property
    def extent(self) -> tuple[int, int]:
        """What the taps span."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.size, self.dilations, strict=True))

    @property
    def pads(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Padding in numbers."""
        return tuple(
            axis_pads(self.padding, i, *row)
            for i, row in enumerate(zip(self.image, self.extent, self.strides, strict=True))
        )

    @property
    def windows(self) -> tuple[int, int]:
        """How many windows there are on each axis."""
        return tuple(
            (m + sum(p) - e) // s + 1
            for m, p, e, s in zip(self.image, self.pads, self.extent, self.strides, strict=True)
        )

    @property
    def always_meets(self) -> bool:
        """Whether each window holds an element of the image."""
        return all(
            any(0 <= i * s - p[0] + a * d < m for a in range(k))
            for m, n, p, k, s, d in zip(
                self.image, self.windows, self.pads, self.size, self.strides, self.dilations, strict=True
            )
            for i in range(n)
        )

    @property
    def shared(self) -> dict[str, Any]:
        """The attributes by name."""
        return {"strides": self.strides, "padding": self.padding, "dilations": self.dilations}


def axis_pads(padding: Any, axis: int, size: int, extent: int, stride: int) -> tuple[int, int]:
    """Return (before, after) on one axis: "same" makes ⌈size/stride⌉ windows, the odd element at the end."""
    if padding == "valid":
        return 0, 0
    if padding == "same":
        total = max((math.ceil(size / stride) - 1) * stride + extent - size, 0)
        return total // 2, total - total // 2
    return padding[axis]


def some_window(rng: Rng, largest: int = 3) -> Drawn:
    """Return a window and an image that it fits into."""
    while True:
        size, strides, dilations = (
            tuple(int(s) for s in rng.integers(1, high + 1, 2))
            for high in (largest, pick(rng, [1, 3]), pick(rng, [1, 1, 2]))
        )
        explicit = tuple(tuple(int(p) for p in rng.integers(0, 3, 2)) for _ in range(2))
        padding = pick(rng, ["valid", "same", explicit])
        drawn = Drawn(size, strides, dilations, padding, tuple(int(s) for s in rng.integers(1, 7, 2)))
        fits = all(m + sum(p) >= e for m, p, e in zip(drawn.image, drawn.pads, drawn.extent, strict=True))
        if fits and all(p < e for pair, e in zip(drawn.pads, drawn.extent, strict=True) for p in pair):
            return drawn


def images(batch: int, image: Sequence[int], channels: int, layout: str) -> tuple[int, ...]:
    """Return the shape of images in a layout."""
    return (batch, *image, channels) if layout == "NHWC" else (batch, channels, *image)


def kernel_shape(size: Sequence[int], into: int, out: int, layout: str) -> tuple[int, ...]:
    """Return the shape of a kernel in a layout; `into` are the input channels of a group."""
    return (*size, into, out) if layout == "NHWC" else (out, into, *size)


@dataclass(frozen=True)
class DrawnConv:
    """A drawn convolution: window, groups, channels (I per group, O per group), batch, layout."""

    window: Drawn
    groups: int
    into: int
    out: int
    batch: int
    layout: str

    @property
    def shared(self) -> dict[str, Any]:
        """The attributes by name."""
        return {**self.window.shared, "groups": self.groups, "layout": self.layout}

    @property
    def x(self) -> tuple[int, ...]:
        """The shape of the input."""
        return images(self.batch, self.window.image, self.groups * self.into, self.layout)

    @property
    def y(self) -> tuple[int, ...]:
        """The shape of the output."""
        return images(self.batch, self.window.windows, self.groups * self.out, self.layout)

    @property
    def kernel(self) -> tuple[int, ...]:
        """The shape of the kernel."""
        return kernel_shape(self.window.size, self.into, self.groups * self.out, self.layout)


def some_conv(rng: Rng) -> DrawnConv:
    """Return a convolution: dense, grouped, or depthwise (with a multiplier, perhaps)."""
    kinds = [(1, 1, 1), (1, 2, 3), (1, 3, 2), (2, 2, 1), (2, 1, 2), (2, 2, 2), (3, 1, 1), (4, 1, 1)]
    groups, into, out = pick(rng, kinds)
    return DrawnConv(some_window(rng), groups, into, out, int(rng.integers(1, 3)), pick(rng, ["NHWC", "NCHW"]))


@case_of("conv2d")
def _conv2d(rng: Rng) -> Case:
    c = some_conv(rng)
    return Case(lambda x, w: ops.conv2d(x, w, **c.shared), [normal(rng, c.x), normal(rng, c.kernel)], str(c.shared))


@case_of("conv2d_kernel_adjoint")
def _conv2d_kernel_adjoint(rng: Rng) -> Case:
    c = some_conv(rng)
    op = Conv2DKernelAdjoint(**c.shared, kernel_size=c.window.size)
    return Case(lambda x, y: Node(op, (x, y)), [normal(rng, c.x), normal(rng, c.y)], str(op))


@case_of("conv2d_transpose")
def _conv2d_transpose(rng: Rng) -> Case:
    c = some_conv(rng)
    more: dict[str, Any] = {"output_size": c.window.image}
    if c.window.padding != "same" and coin(rng):  # the same size, said as what is left over
        left = (
            (m + sum(p) - e) % s
            for m, p, e, s in zip(c.window.image, c.window.pads, c.window.extent, c.window.strides, strict=True)
        )
        more = {"output_padding": tuple(left)}
    return Case(
        lambda y, w: ops.conv2d_transpose(y, w, **c.shared, **more),
        [normal(rng, c.y), normal(rng, c.kernel)], f"{c.shared} {more}",
    )  # fmt: skip


def some_pool(rng: Rng) -> tuple[Drawn, dict[str, Any], tuple[int, ...], tuple[int, ...]]:
    """Return a window that always meets the image, the pool's attributes, and the shapes before and after."""
    while True:
        window = some_window(rng)
        if window.always_meets:
            break
    layout, batch, channels = pick(rng, ["NHWC", "NCHW"]), int(rng.integers(1, 3)), int(rng.integers(1, 4))
    attributes = {"size": window.size, **window.shared, "layout": layout}
    before, after = (images(batch, size, channels, layout) for size in (window.image, window.windows))
    return window, attributes, before, after


@case_of("max_pool2d")
def _max_pool2d(rng: Rng) -> Case:
    window, attributes, x, _ = some_pool(rng)
    attributes["ceil_mode"] = coin(rng) and window.dilations == (1, 1)
    return Case(lambda a: ops.max_pool2d(a, **attributes), [distinct(rng, x)], str(attributes))


@case_of("max_pool2d_adjoint")
def _max_pool2d_adjoint(rng: Rng) -> Case:
    _, attributes, x, y = some_pool(rng)
    op = MaxPool2DAdjoint(**attributes)
    return Case(lambda a, g: Node(op, (a, g)), [distinct(rng, x), normal(rng, y)], str(op))


@case_of("max_pool2d_select")
def _max_pool2d_select(rng: Rng) -> Case:
    _, attributes, x, _ = some_pool(rng)
    op = MaxPool2DSelect(**attributes)
    return Case(lambda a, y: Node(op, (a, y)), [distinct(rng, x), normal(rng, x)], str(op))


@case_of("avg_pool2d")
def _avg_pool2d(rng: Rng) -> Case:
    window, attributes, x, _ = some_pool(rng)
    attributes |= {"count_padding": coin(rng), "ceil_mode": coin(rng) and window.dilations == (1, 1)}
    return Case(lambda a: ops.avg_pool2d(a, **attributes), [normal(rng, x)], str(attributes))


@case_of("avg_pool2d_adjoint")
def _avg_pool2d_adjoint(rng: Rng) -> Case:
    window, attributes, _, y = some_pool(rng)
    op = AvgPool2DAdjoint(**attributes, count_padding=coin(rng), output_size=window.image)
    return Case(lambda g: Node(op, (g,)), [normal(rng, y)], str(op))


# --- fused regions, ordering --------------------------------------------------------------------------------------

SMOOTH = (Tanh, Sigmoid, Sin, Softplus, Silu, Neg)
BETWEEN = (Add, Sub, Mul)


class Region:
    """A fused region that grows step by step; `full` are the places of values of the region's shape, `x0` first."""

    def __init__(self, rng: Rng, shape: tuple[int, ...], operands: list[Array]) -> None:
        self.rng = rng
        self.shape = shape
        self.operands = operands
        self.steps: list[tuple[Op, list[tuple[str, int]]]] = []
        self.full: list[tuple[str, int]] = []

    def operand(self, array: Array) -> tuple[str, int]:
        """Add an operand and return its place."""
        self.operands.append(array)
        return "operand", len(self.operands) - 1

    def some(self, shape: tuple[int, ...]) -> tuple[str, int]:
        """Return the place of an operand of a shape: an old one, perhaps."""
        old = [i for i, a in enumerate(self.operands) if a.shape == shape and a.dtype == np.float64 and i > 1]
        return ("operand", pick(self.rng, old)) if old and coin(self.rng) else self.operand(normal(self.rng, shape))

    def step(self, op: Op, *places: tuple[str, int]) -> tuple[str, int]:
        """Add a step and return its place."""
        self.steps.append((op, list(places)))
        return "step", len(self.steps) - 1

    def grow(self) -> None:
        """Add a step, or a few, that read the latest value."""
        rng, latest = self.rng, self.full[-1]
        kind = pick(rng, ["unary", "unary", "binary", "binary", "binary", "norm", "where", "cast"])
        if kind == "unary":
            self.full.append(self.step(pick(rng, SMOOTH)(), latest))
        elif kind == "binary":
            other = pick(rng, self.full) if rng.random() < 0.4 else self.some(narrower(rng, self.shape))
            places = (latest, other) if coin(rng) else (other, latest)
            self.full.append(self.step(Tanh(), self.step(pick(rng, BETWEEN)(), *places)))
        elif kind == "norm" and self.shape:
            vectors = [self.operand(normal(rng, self.shape[-1:])) for _ in range(3)]
            variance = self.operand(positive(rng, self.shape[-1:]))
            axis = pick(rng, [-1, len(self.shape) - 1])
            self.full.append(self.step(BatchNorm(axis, 1e-3), latest, *vectors, variance))
        elif kind == "where":  # between numbers that no difference of 1e-5 brings together
            left, right = (self.operand(away_from(rng, self.shape, [0.0])), self.operand(np.zeros(())))
            condition = self.step(pick(rng, (Less, Greater))(), left, right)
            self.full.append(self.step(Where(), condition, latest, pick(rng, self.full)))
        elif kind == "cast":
            integers = self.operand(np.asarray(rng.integers(-2, 3, self.shape)))
            self.full.append(self.step(Add(), latest, self.step(Cast(), integers)))

    def case(self, note: str) -> Case:
        """Return the region as a case."""
        number = {"operand": 0, "step": len(self.operands)}
        places = [tuple(number[kind] + i for kind, i in found) for _, found in self.steps]

        def build(*xs: Node) -> Node:  # casts are to the operands' dtype, whichever that is
            ops_ = [Cast(xs[0].dtype) if isinstance(op, Cast) else op for op, _ in self.steps]
            return Node(Fused(tuple(map(Step, ops_, places))), xs)

        return Case(build, self.operands, f"{note}: {', '.join(op.name for op, _ in self.steps)}")


def some_anchor(rng: Rng) -> tuple[Op | None, tuple[int, ...], list[Array]]:
    """Return what a region begins with (a convolution, its adjoint, a product, or nothing), its shape and operands."""
    kind = pick(rng, ["conv2d", "conv2d_transpose", "matmul", "none", "none"])
    if kind == "conv2d":
        c = some_conv(rng)
        return Conv2D(**c.shared), c.y, [normal(rng, c.x), normal(rng, c.kernel)]
    if kind == "conv2d_transpose":
        c = some_conv(rng)
        op = Conv2DTranspose(**c.shared, output_size=c.window.image)
        return op, c.x, [normal(rng, c.y), normal(rng, c.kernel)]
    if kind == "matmul":
        batch, (m, k, n) = some_shape(rng, high=2), (int(s) for s in rng.integers(1, 5, 3))
        return MatMul(), (*batch, m, n), [normal(rng, (*batch, m, k)), normal(rng, (k, n))]
    shape = some_shape(rng, high=4)
    return None, shape, [normal(rng, shape)]


@case_of("fused")
def _fused(rng: Rng) -> Case:
    anchor, shape, operands = some_anchor(rng)
    region = Region(rng, shape, operands)
    if anchor is None:
        region.full.append(("operand", 0))
    else:
        region.full.append(region.step(anchor, ("operand", 0), ("operand", 1)))
    for _ in range(rng.integers(1, 5)):
        region.grow()
    if not region.steps:  # a batch norm of a scalar was left out
        region.step(Neg(), region.full[-1])
    return region.case(f"shape={shape}")


@case_of("group")
def _group(rng: Rng) -> Case:
    """A region of which some steps are results as well, and sums over the rows of the last; or a pair of moments."""
    region, sums, extra = _fused(rng), coin(rng), int(rng.integers(0, 3))

    def build(*xs: Node) -> list[Node]:
        steps = steps_of(region.function(*xs))  # type: ignore[arg-type]
        results = [*steps[-1:], *steps[:-1][:extra]]
        if sums and steps[-1].rank > 1:
            last = steps[-1]
            pair = Node(Moments(tuple(range(last.rank - 1))), (last,))
            steps += [pair, Node(Item(0), (pair,)), Node(Item(1), (pair,))]
            results += steps[-2:]
        made = group(steps, [r for r in results if r.dtype == xs[0].dtype])
        if isinstance(made.type, TensorType):
            return [made]
        return [Node(Item(i), (made,)) for i in range(len(made.type.items))]

    return Case(build, region.arrays, f"{region.note}, sums={sums}, {extra} more")


@case_of("function")
def _function(rng: Rng) -> Case:
    """A region of one result; results that share steps, an operand among them; pieces of a tuple that meet again."""
    return pick(rng, [_function_of_region, _function_of_moments, _function_of_pieces])(rng)


def _function_of_region(rng: Rng) -> Case:
    region = _fused(rng)
    return Case(
        lambda *xs: ops.function("Region", xs, [inline(region.function(*xs))]), region.arrays, region.note  # type: ignore[arg-type]
    )  # fmt: skip


def _function_of_moments(rng: Rng) -> Case:
    rows, columns = (int(s) for s in rng.integers(2, 5, 2))
    offset, order = normal(rng, (columns,)), pick(rng, [(0,), (0, 1, 2), (1, 3, 0), (2, 1)])

    def build(x: Node, gamma: Node) -> list[Node]:
        mean, variance = (ops.reshape(m, (rows, 1)) for m in ops.moments(x, 1))
        y = (x - mean) * ops.rsqrt(variance + 0.1) * gamma + ops.constant(offset, x.dtype)
        results = [(y, mean, variance, gamma)[i] for i in order]
        return ops.function("Norm", [x, gamma], results, [("axis", -1), ("epsilon", 0.1)], [0, 1, -1])

    return Case(build, [normal(rng, (rows, columns)), normal(rng, (columns,))], f"moments, results {order}")


def _function_of_pieces(rng: Rng) -> Case:
    sizes, image = (int(s) for s in rng.integers(1, 4, 3)), some_shape(rng, high=2)
    left, middle, right = sizes = tuple(sizes)

    def build(x: Node) -> list[Node]:
        first, second, third = ops.split(x, sizes)
        joined = ops.concat([third, ops.tanh(first) * 0.5], -1)
        both = ops.function("Pieces", [x], [joined, ops.sum(second * second, -1)], slots=[0])
        return both if order else both[::-1][:1]

    order = coin(rng)
    return Case(build, [normal(rng, (*image, left + middle + right))], f"pieces {sizes}")


@case_of("after")
def _after(rng: Rng) -> Case:
    """On the way of x, and of no consequence to it; `then` may be anything."""
    x, then = some_shape(rng), some_shape(rng)
    if coin(rng):
        return Case(
            lambda a, b: ops.sin(Node(After(), (a, ops.exp(b)))) * b, [normal(rng, x), normal(rng, ())], "then²"
        )
    return Case(
        lambda a, b: Node(After(), (a, ops.argmax(b, 0))), [normal(rng, x), normal(rng, (2, *then))], "integers"
    )
