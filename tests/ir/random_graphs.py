"""Random valid graphs: a chooser (`random.Random`, or Hypothesis' own, which can then shrink) and a list of steps.

`definition(rng)` gives graphs of everything the text form can hold; `runnable(rng)` gives graphs with numbers for
sizes, whose values stay small, to be computed and compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minigraph import ops
from minigraph.backends.dtypes import array_dtype
from minigraph.ir import Constant, Dim, Graph, Node, TensorType, scope, symbol, variable
from minigraph.ir.leaves import input as input_
from minigraph.ir.types import DTYPES, is_float
from minigraph.layers.initializers import Constant as ConstantValue
from minigraph.layers.initializers import Orthogonal, RandomNormal, VarianceScaling
from minigraph.layers.regularizers import L2
from minigraph.ops.norm import BatchNorm, Moving

NAMES = [
    "x",
    "image",
    "größe",
    "块",
    "β",
    "a b",
    'say "hi"',
    "back\\slash",
    "x/y",
    "🙂",
    "0",
    "return",
    "update",
    "%1",
    "#",
]
INITIALIZERS = [
    None, 0, 1, 0.5, -0.0, 1e-30, math.inf, True, ConstantValue(0.25), VarianceScaling(),
    VarianceScaling(2.0, "fan_in", "normal", 7), Orthogonal(0.5), RandomNormal(stddev=0.1, seed=3),
]  # fmt: skip
SPECIAL = [0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 1e-8, 0.1, 65504.0, 1 / 3, 5e-324]
CONCRETE_BATCH = 3


class Builder:
    """Grows a graph: each step takes nodes that are there and adds one."""

    def __init__(self, rng: Any, runnable: bool) -> None:
        self.rng = rng
        self.runnable = runnable
        self.batch: Any = CONCRETE_BATCH if runnable else rng.choice([symbol("N"), symbol("N") * 2, 4, 1])
        self.nodes: list[Node] = []
        self.inputs: list[Node] = []
        self.variables: list[Node] = []
        self.updates: dict[Node, Node] = {}
        self.averages: set[Node] = set()  # of mode-neutral batch norms, which lowering updates

    def name(self, base: str) -> str:
        taken = len(self.inputs) + len(self.variables)
        return f"{base}{taken}" if self.runnable else f"{self.rng.choice(NAMES)}{taken}"

    def input(self, shape: tuple[Any, ...], dtype: str = "float32") -> None:
        node = input_(shape, dtype, self.name("x"))
        self.inputs.append(node)
        self.nodes.append(node)

    def variable(self, shape: tuple[int, ...], dtype: str = "float32") -> Node:
        if self.runnable:
            node = variable(shape, name=self.name("w"), dtype=dtype, init=0.5)
        else:
            node = variable(
                shape, name=self.name("w"), dtype=dtype, init=self.rng.choice(INITIALIZERS),
                trainable=self.rng.random() < 0.7, regularizer=self.rng.choice([None, None, L2(0.1), L2()]),
            )  # fmt: skip
        self.variables.append(node)
        self.nodes.append(node)
        return node

    def some(self, fits: Callable[[Node], bool]) -> Node | None:
        found = [n for n in self.nodes[-12:] if not is_tuple(n) and fits(n)] or [
            n for n in self.nodes if not is_tuple(n) and fits(n)
        ]
        return self.rng.choice(found) if found else None


def is_tuple(node: Node) -> bool:
    return not isinstance(node.type, TensorType)


def floats(node: Node) -> bool:
    return node.dtype in ("float32", "float64")


def numeric(node: Node) -> bool:
    return node.dtype != "bool"


def concrete(node: Node) -> bool:
    return not any(isinstance(s, Dim) for s in node.shape)


def small(node: Node) -> bool:
    return concrete(node) and math.prod(node.shape) <= 512  # type: ignore[arg-type]


# --- steps: each returns a node, or None where nothing fits -----------------------------------------------------------


def unary(b: Builder) -> Node | None:
    x = b.some(floats)
    functions = [ops.tanh, ops.sigmoid, ops.relu, ops.neg, ops.abs, ops.sin, ops.cos, ops.erf, ops.sign, ops.floor,
                 ops.silu, ops.gelu, ops.elu, ops.softplus, ops.hard_swish]  # fmt: skip
    if not b.runnable:
        functions += [ops.exp, ops.log, ops.sqrt, ops.rsqrt]
    return None if x is None else b.rng.choice(functions)(x)


def unary_with_attributes(b: Builder) -> Node | None:
    x = b.some(floats)
    if x is None:
        return None
    make = b.rng.choice([
        lambda: ops.clip(x, -1.5, b.rng.choice([2.0, math.inf, 0.1])),
        lambda: ops.leaky_relu(x, b.rng.choice([0.01, 0.3])),
        lambda: ops.elu(x, 0.5),
        lambda: ops.gelu(x, approximate=True),
        lambda: ops.hard_sigmoid(x),
    ])  # fmt: skip
    return make()


def integer_unary(b: Builder) -> Node | None:
    x = b.some(lambda n: n.dtype in ("int32", "int64"))
    return None if x is None else b.rng.choice([ops.abs, ops.sign, ops.neg])(x)


def binary(b: Builder) -> Node | None:
    x = b.some(floats)
    if x is None:
        return None
    y = b.some(lambda n: n.dtype == x.dtype and n.shape in (x.shape, (), x.shape[-1:]))
    other = b.rng.choice([y, y, 0.5, 1.0, 0.0, 2.0])
    function = b.rng.choice([ops.add, ops.sub, ops.mul, ops.maximum, ops.minimum])
    return function(x, other) if b.rng.random() < 0.7 else function(other, x)


def division(b: Builder) -> Node | None:
    x = b.some(floats)
    return None if x is None else x / b.rng.choice([2.0, 3.0, 0.25, 1.0])


def power(b: Builder) -> Node | None:
    x = b.some(floats)
    return None if x is None else ops.tanh(x) ** b.rng.choice([1.0, 2.0, 3.0])


def compare_and_choose(b: Builder) -> Node | None:
    x = b.some(floats)
    if x is None:
        return None
    compare = b.rng.choice([ops.less, ops.greater, ops.greater_equal, ops.less_equal, ops.equal, ops.not_equal])
    condition = compare(x, b.rng.choice([0.0, 0.5]))
    b.nodes.append(condition)
    return ops.where(condition, b.rng.choice([x, ops.neg(x), 1.0]), b.rng.choice([x, x * 0.5]))


def choose_by_any_condition(b: Builder) -> Node | None:
    condition = b.some(lambda n: n.dtype == "bool")
    if condition is None:
        return None
    x = b.some(lambda n: floats(n) and n.shape == condition.shape)
    return None if x is None else ops.where(condition, x, b.rng.choice([0.0, x]))


def reduce(b: Builder) -> Node | None:
    x = b.some(lambda n: floats(n) and n.rank > 0 and 0 not in n.shape)
    if x is None:
        return None
    axes = tuple(a for a in range(x.rank) if b.rng.random() < 0.5) or (0,)
    return b.rng.choice([ops.mean, ops.max, ops.min, ops.logsumexp, ops.sum])(x, axes, b.rng.random() < 0.5)


def argmax(b: Builder) -> Node | None:
    x = b.some(lambda n: floats(n) and n.rank > 0 and n.shape[-1] != 0)
    return None if x is None else ops.argmax(x, -1)


def softmax(b: Builder) -> Node | None:
    x = b.some(lambda n: floats(n) and n.rank > 0 and n.shape[-1] != 0)
    return None if x is None else b.rng.choice([ops.softmax, ops.log_softmax])(x, b.rng.choice([-1, 0]))


def moments(b: Builder) -> Node | None:
    x = b.some(lambda n: floats(n) and n.rank > 1)
    if x is None:
        return None
    mean, variance = ops.moments(x, b.rng.choice([(0,), tuple(range(x.rank - 1)), (x.rank - 1,)]))
    b.nodes.append(variance)
    return mean


def normalise(b: Builder) -> Node | None:
    x = b.some(lambda n: floats(n) and n.rank > 1 and isinstance(n.shape[-1], int))
    if x is None:
        return None
    mean, variance = ops.moments(x, tuple(range(x.rank - 1)))
    gamma, beta = b.variable((x.shape[-1],), x.dtype), b.variable((x.shape[-1],), x.dtype)  # type: ignore[arg-type]
    return ops.batch_norm(x, gamma, beta, mean, variance, -1, b.rng.choice([1e-3, 1e-5]))


def split(b: Builder) -> Node | None:
    x = b.some(lambda n: n.rank > 0 and isinstance(n.shape[-1], int) and n.shape[-1] >= 2)
    if x is None:
        return None
    pieces = ops.split(x, (1, x.shape[-1] - 1), -1)  # type: ignore[operator]
    b.nodes += pieces[1:]
    return pieces[0]


def reshape(b: Builder) -> Node | None:
    x = b.some(lambda n: n.rank > 0)
    if x is None:
        return None
    if x.rank > 1:
        return ops.flatten(x)
    return ops.unsqueeze(x, b.rng.choice([0, 1, -1]))


def transpose(b: Builder) -> Node | None:
    x = b.some(lambda n: n.rank > 1)
    if x is None:
        return None
    order = list(range(x.rank))
    b.rng.shuffle(order)
    return ops.transpose(x, order)


def pad(b: Builder) -> Node | None:
    x = b.some(lambda n: floats(n) and n.rank > 0 and isinstance(n.shape[-1], int) and n.shape[-1] < 20)
    if x is None:
        return None
    padding = [(0, 0)] * (x.rank - 1) + [(b.rng.choice([0, 1]), b.rng.choice([0, 2]))]
    return ops.pad(x, padding, b.rng.choice([0.0, 0.5]))


def slice_(b: Builder) -> Node | None:
    x = b.some(lambda n: n.rank > 0 and isinstance(n.shape[-1], int) and n.shape[-1] > 1)
    return None if x is None else b.rng.choice([lambda: x[..., ::2], lambda: x[..., 1:], lambda: x[..., ::-1]])()


def concat(b: Builder) -> Node | None:
    x = b.some(lambda n: n.rank > 0 and isinstance(n.shape[-1], int) and n.shape[-1] < 20)
    if x is None:
        return None
    y = b.some(lambda n: n.dtype == x.dtype and n.rank == x.rank and n.shape[:-1] == x.shape[:-1] and n.shape[-1] != 0)
    return ops.concat([x, y if y is not None and isinstance(y.shape[-1], int) else x, x][: b.rng.choice([1, 2, 3])], -1)


def gather(b: Builder) -> Node | None:
    x = b.some(lambda n: n.rank > 0 and isinstance(n.shape[0], int) and n.shape[0] > 1)
    return None if x is None else ops.gather(x, ops.constant(np.array([1, 0, 1, -1])), 0)


def cast(b: Builder) -> Node | None:
    if b.runnable:
        x = b.some(lambda n: n.dtype in ("bool", "float32", "float64"))
        return None if x is None else ops.cast(x, b.rng.choice(["float32", "float64"]))
    x = b.some(lambda n: True)
    return None if x is None else ops.cast(x, b.rng.choice(list(DTYPES)))


def one_hot(b: Builder) -> Node | None:
    x = b.some(lambda n: n.dtype == "int64")
    return None if x is None else ops.one_hot(x, 3)


def broadcast(b: Builder) -> Node | None:
    x = b.some(lambda n: floats(n) and n.rank < 3 and (not b.runnable or small(n)))
    return None if x is None else ops.broadcast_to(x, (2, *x.shape))


def size(b: Builder) -> Node | None:
    x = b.some(lambda n: n.rank > 0)
    return None if x is None else ops.size(x, (0,))


def constant(b: Builder) -> Node | None:
    if b.runnable:
        return ops.constant(np.float32(b.rng.choice([-1.0, 0.0, 0.5, 1.0, 2.0])))
    dtype = b.rng.choice(list(DTYPES))
    shape = b.rng.choice([(), (1,), (3,), (2, 2), (33,), (0,), (5, 8), (32,)])
    with np.errstate(all="ignore"):
        if b.rng.random() < 0.3:
            values = np.full(shape, b.rng.choice(SPECIAL) if is_float(dtype) else b.rng.choice([0, 1, 77]))
        elif is_float(dtype):
            values = np.array([b.rng.choice([*SPECIAL, b.rng.random()]) for _ in range(math.prod(shape))]).reshape(
                shape
            )
        else:
            values = np.array([b.rng.randint(0, 127) for _ in range(math.prod(shape))]).reshape(shape)
        return Node(Constant.of(np.asarray(values).astype(array_dtype(dtype))))


def dense(b: Builder) -> Node | None:
    x = b.some(lambda n: floats(n) and n.rank > 1 and isinstance(n.shape[-1], int) and 0 < n.shape[-1] < 64)
    if x is None:
        return None
    return ops.matmul(x, b.variable((x.shape[-1], b.rng.choice([1, 2, 5])), x.dtype))  # type: ignore[arg-type]


def convolve(b: Builder) -> Node | None:
    x = b.some(lambda n: floats(n) and n.rank == 4 and all(isinstance(s, int) and 2 <= s < 16 for s in n.shape[1:]))
    if x is None:
        return None
    kernel = b.variable((*b.rng.choice([(1, 1), (2, 2), (3, 3)]), x.shape[3], b.rng.choice([2, 3])), x.dtype)  # type: ignore[arg-type]
    return ops.conv2d(x, kernel, b.rng.choice([1, 2]), "same")


def pool(b: Builder) -> Node | None:
    x = b.some(lambda n: floats(n) and n.rank == 4 and all(isinstance(s, int) and s >= 2 for s in n.shape[1:3]))
    return None if x is None else b.rng.choice([ops.max_pool2d, ops.avg_pool2d])(x, 2, 1)


def random_numbers(b: Builder) -> Node | None:
    counter = b.variable((), "int64")
    return ops.random_uniform(counter, b.rng.choice([(), (2, 3), (5,)]), (1, b.rng.choice([0, 2**64 - 1])))


def mode_neutral(b: Builder) -> Node | None:
    x = b.some(lambda n: floats(n) and n.rank > 1 and isinstance(n.shape[-1], int))
    if x is None:
        return None
    others = x.shape[:-1]  # batch norm in training wants more than one value for each channel
    if b.rng.random() < 0.4 or not any(isinstance(s, Dim) or s > 1 for s in others) or 0 in others:
        return ops.dropout(x, b.rng.choice([0.5, 0.25]), b.rng.choice([None, 3]))
    moving = Moving(b.rng.choice([0.9, 0.99]), b.rng.random() < 0.5, b.rng.random() < 0.5, b.rng.random() < 0.5)
    operands = [b.variable((x.shape[-1],), x.dtype) for _ in range(4)]  # type: ignore[arg-type]
    counts = [b.variable((), x.dtype)] if moving.cumulative else []
    b.averages.update(operands[2:] + counts)
    return Node(BatchNorm(-1, 1e-3, moving, b.rng.random() < 0.5), (x, *operands, *counts))


COMMON = [
    unary, unary, unary_with_attributes, binary, binary, binary, division, power, compare_and_choose,
    choose_by_any_condition, reduce, argmax, softmax, moments, normalise, split, reshape, transpose, pad,
    slice_, concat, gather, cast, one_hot, broadcast, size, constant, dense, convolve, pool,
]  # fmt: skip
DEFINITION_ONLY = [constant, integer_unary, random_numbers, mode_neutral]


def _grow(b: Builder, steps: int) -> Graph:
    rng = b.rng
    b.input((b.batch, rng.choice([1, 2, 5])))
    if rng.random() < 0.6:
        b.input((b.batch, 4, 4, 2))
    if not b.runnable:
        b.input(rng.choice([(), (0, 3), (2,), (b.batch, 7)]), rng.choice(list(DTYPES)))
    b.variable(rng.choice([(5,), (2,), ()]))
    available = COMMON if b.runnable else COMMON + DEFINITION_ONLY
    for _ in range(steps):
        with scope(rng.choice(["block", "größe"])) if not b.runnable and rng.random() < 0.3 else _nothing():
            node = rng.choice(available)(b)
        if node is not None and (not b.runnable or (small(node) and node.rank <= 5)) and node.rank <= 8:
            b.nodes.append(node)
    for target in b.variables:
        values = [n for n in b.nodes if n.type == target.type and n is not target]
        if values and target not in b.averages and rng.random() < 0.5:
            b.updates[target] = rng.choice(values)
    outputs = {}
    for _ in range(rng.choice([1, 1, 2, 3])):
        name = f"y{len(outputs)}" if b.runnable else f"{rng.choice(NAMES)}{len(outputs)}"
        outputs[name] = b.nodes[-1 - min(rng.randint(0, 3), len(b.nodes) - 1)]
    return Graph(outputs, b.updates, b.inputs)


class _nothing:
    def __enter__(self) -> None: ...

    def __exit__(self, *details: object) -> None: ...


def definition(rng: Any, steps: int | None = None) -> Graph:
    """Return a random graph with symbolic sizes, all dtypes, scopes, odd names and updates."""
    return _grow(Builder(rng, runnable=False), rng.randint(0, 20) if steps is None else steps)


def runnable(rng: Any, steps: int | None = None) -> Graph:
    """Return a random graph that can be computed, with updates."""
    return _grow(Builder(rng, runnable=True), rng.randint(1, 25) if steps is None else steps)


def values_for(graph: Graph, seed: int = 0) -> dict[str, Any]:
    """Return random values for all inputs and variables of a bound graph."""
    rng = np.random.default_rng(seed)
    values = {}
    for node in (*graph.inputs, *graph.variables):
        if node.dtype.startswith("float"):
            values[node.label] = rng.uniform(-1.5, 1.5, node.shape).astype(node.dtype)  # type: ignore[arg-type]
        elif node.dtype == "bool":
            values[node.label] = rng.integers(0, 2, node.shape).astype(bool)  # type: ignore[arg-type]
        else:
            values[node.label] = rng.integers(0, 3, node.shape).astype(node.dtype)  # type: ignore[arg-type]
    return values
