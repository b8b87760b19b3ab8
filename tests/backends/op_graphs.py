"""Graphs that hold every op, for backends that generate code: drawn cases, odd shapes, special values, long rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from ops.cases import draw

from backends.programs import Array, agrees, finfo, run
from minigraph import autodiff, ops
from minigraph.backends import Backend
from minigraph.backends.dtypes import array_dtype
from minigraph.errors import GradientError, MinigraphError
from minigraph.ir import Graph, Node
from minigraph.ir.leaves import input as input_
from minigraph.ir.types import DTYPES, is_float
from minigraph.ops.linalg import MatMul
from minigraph.ops.shape import Cast
from minigraph.runtime import compile


class Growing:
    """A graph in the making, with values for its inputs."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.outputs: dict[str, Node] = {}
        self.inputs: list[Node] = []
        self.values: dict[str, Array] = {}

    def input(self, array: Array) -> Node:
        """Add an input with this value."""
        node = input_(array.shape, str(array.dtype), f"x{len(self.inputs)}")
        self.inputs.append(node)
        self.values[node.label] = array
        return node

    def add(self, name: str, made: Node | Sequence[Node]) -> None:
        """Add outputs."""
        for i, node in enumerate([made] if isinstance(made, Node) else made):
            self.outputs[f"{name}, {i}"] = node

    @property
    def graph(self) -> Graph:
        """All of it."""
        return Graph(self.outputs, inputs=self.inputs)


def compare_with_numpy(made: Growing, on: Backend, optimize: bool) -> None:
    """Assert that a backend computes what NumPy does."""
    got = run(compile(made.graph, backend=on, optimize=optimize), made.values)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = run(compile(made.graph, optimize=False), made.values)
    for name, array in expected.items():
        agrees(name, got[name], array, terms=0.5 if name.startswith("hard") else 0.0)


# --- drawn cases --------------------------------------------------------------------------------------------------


def drawn(names: Sequence[str], seeds: range, dtype: str, gradients: bool = False) -> Growing:
    """Return drawn cases of ops, or the gradients of half the sum of their squares, in one graph."""
    made = Growing()
    for name, seed in ((n, s) for n in names for s in seeds):
        case = draw(name, seed)
        nodes = [made.input(a.astype(dtype) if a.dtype == np.float64 else a) for a in case.arrays]
        found = case.function(*nodes)
        results = [found] if isinstance(found, Node) else list(found)
        if gradients:
            results = list(gradients_of(results, nodes))
        made.add(f"{name} of seed {seed}", results)
    return made


def gradients_of(results: Sequence[Node], nodes: Sequence[Node]) -> Iterator[Node]:
    """Yield the gradients of Σ y + y²/2 with respect to each operand that it depends on."""
    ends = [ops.sum(y + 0.5 * y * y) for y in results if is_float(y.dtype)]
    total = ops.sum(ops.concat([ops.reshape(e, (1,)) for e in ends])) if ends else None
    for x in nodes:
        if total is None or not is_float(x.dtype):
            continue
        try:
            yield autodiff.gradients(total, [x])[0]
        except GradientError:  # nothing flows to this operand
            continue


# --- odd shapes, all dtypes, special values ------------------------------------------------------------------------

PAIRS: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((), ()), ((1,), ()), ((0,), (0,)), ((0, 3), (3,)), ((2, 0), (2, 1)), ((1, 1), (1,)), ((3, 1), (1, 4)),
    ((4, 1, 3), (2, 1)), ((2, 1, 1, 5), (3, 2, 1)), ((33, 17), (17,)), ((5, 67), (5, 1)), ((1, 3), (2, 3)),
    ((40, 33), ()), ((130,), (130,)),
]  # fmt: skip
BINARY = (
    ops.add, ops.sub, ops.mul, ops.div, ops.maximum, ops.minimum, ops.less, ops.less_equal, ops.greater,
    ops.greater_equal, ops.equal, ops.not_equal,
)  # fmt: skip
UNARY = (
    ops.neg, ops.abs, ops.sign, ops.floor, ops.exp, ops.log, ops.sqrt, ops.rsqrt, ops.sin, ops.cos, ops.erf, ops.tanh,
    ops.sigmoid, ops.softplus, ops.relu, ops.hard_sigmoid, ops.hard_swish, ops.silu,
)  # fmt: skip


def special(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Array:
    """Return numbers of a dtype, two fifths of them its special ones: zeros, infinities, NaN, the ends of its range."""
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if is_float(dtype):
        f = finfo(dtype)
        rare = [0.0, -0.0, np.inf, -np.inf, np.nan, f.max, f.min, f.tiny, f.smallest_subnormal, 1.0, -1.0, 0.5]
        usual = rng.standard_normal(shape) * 2.0
    else:
        limits = np.iinfo(dtype)
        rare, usual = [limits.min, limits.max], rng.integers(-3 if limits.min < 0 else 0, 4, shape)
    chosen = np.array(rare, array_dtype(dtype))[rng.integers(0, len(rare), shape)]
    return np.where(rng.random(shape) < 0.4, chosen, np.asarray(usual, chosen.dtype)).astype(chosen.dtype)


def all_ops(dtype: str) -> Growing:
    """Return every op that takes a dtype elementwise, on pairs of shapes that broadcast in all ways."""
    made = Growing(DTYPES[dtype])
    for i, (a, b) in enumerate(PAIRS):
        x, y = (made.input(special(made.rng, shape, dtype)) for shape in (a, b))
        conditions = [made.input(special(made.rng, shape, "bool")) for shape in (a, b)]
        for name, function in _functions(x, y, conditions):
            try:
                made.add(f"{name} of {a} and {b} ({i})", function())
            except MinigraphError:  # not for this dtype
                continue
    return made


def _functions(x: Node, y: Node, conditions: Sequence[Node]) -> Iterator[tuple[str, Callable[[], Node]]]:
    for binary in BINARY:
        yield binary.__name__, lambda f=binary: f(x, y)  # type: ignore[misc]
    if is_float(x.dtype):  # NumPy's vectors and its numbers differ about powers of −∞
        yield "pow", lambda: ops.pow(ops.abs(x), y)
    for unary in UNARY:
        yield unary.__name__, lambda f=unary: f(x)  # type: ignore[misc]
    for condition in conditions:
        yield "where", lambda c=condition: ops.where(c, x, y)  # type: ignore[misc]
    yield "clip", lambda: ops.clip(x, -1.0, 1.0)
    yield "leaky_relu", lambda: ops.leaky_relu(x, 0.1)
    yield "elu", lambda: ops.elu(x, 1.3)
    yield "broadcast_to", lambda: ops.broadcast_to(x, np.broadcast_shapes(x.shape, y.shape))  # type: ignore[arg-type]
    for dtype in _casts(x.dtype):
        yield f"cast to {dtype}", lambda d=dtype: Node(Cast(d), (x,))  # type: ignore[misc]


def _casts(dtype: str) -> list[str]:
    """Return what a dtype can be cast to: no language says what a float becomes that no integer equals."""
    return [d for d in DTYPES if not is_float(dtype) or is_float(d) or d == "bool"]


def combined_conditions() -> Growing:
    """Return conditions that are combined, chosen by and multiplied with."""
    made = Growing()
    x, y = (made.input(special(made.rng, (7, 37), "float32")) for _ in range(2))
    p, q = ops.greater(x, 0.0), ops.less(y, x)
    for function in BINARY[:3:2] + BINARY[4:]:
        made.add(f"{function.__name__} to choose", ops.where(function(p, q), x, y))
        made.add(f"{function.__name__} to multiply", ops.cast(function(p, q), "float32") * x)
    made.add("where", ops.where(ops.where(q, p, ops.less(y, 0.0)), x, y))
    return made


# --- empty arrays, long rows ---------------------------------------------------------------------------------------


def numbers(rng: np.random.Generator, *shape: int) -> Array:
    """Return normal numbers in float32."""
    return rng.standard_normal(shape).astype(np.float32)


def empty_arrays() -> Growing:
    """Return all kinds of ops of arrays without elements."""
    made = Growing()

    def x(*shape: int) -> Node:
        return made.input(numbers(made.rng, *shape))

    for i, (a, b) in enumerate([((0, 3), (3, 4)), ((2, 0), (0, 4)), ((2, 3), (3, 0)), ((0, 2, 3), (3, 4))]):
        made.add(f"matmul {i}", Node(MatMul(), (x(*a), x(*b))))
    for shape in ((0,), (0, 3), (3, 0), (2, 0, 4)):
        made.add(f"sum {shape}", [ops.sum(x(*shape)), ops.sum(x(*shape), 0), ops.sum(x(*shape), -1, keepdims=True)])
        made.add(f"concat {shape}", ops.concat([x(*shape), x(*shape)]))
        made.add(f"pad {shape}", ops.pad(x(*shape), [(1, 2)] * len(shape), 1.5))
        made.add(f"transpose {shape}", ops.transpose(x(*shape)))
        made.add(f"reshape {shape}", ops.reshape(x(*shape), (0, 7)))
    image = x(0, 4, 4, 3)
    made.add("conv", ops.conv2d(image, x(3, 3, 3, 2), padding="same"))
    made.add("pools", [ops.max_pool2d(image, 2), ops.avg_pool2d(image, 2)])
    made.add("max", ops.max(x(0, 3), -1))
    made.add("softmax", [ops.softmax(x(0, 3)), ops.log_softmax(x(0, 3)), ops.logsumexp(x(0, 3), -1)])
    made.add("slice", x(5, 3)[2:2])
    made.add("gather", ops.gather(x(5, 3), made.input(np.zeros((0,), np.int64)), 0))
    return made


def test_a_class_of_no_weight_costs_nothing_however_unlikely() -> None:
    made = Growing()
    x, t = made.input(np.array([[-np.inf, 1, 2]], np.float32)), made.input(np.array([[0, 1, 0]], np.float32))
    made.add("loss", ops.softmax_cross_entropy(x, t))
    compare_with_numpy(made, True)


def long_rows(rows: int, columns: int) -> Growing:
    """Return reductions, norms, softmax and pools of an array with whole vectors of columns, and some left over."""
    made = Growing()
    x = made.input(numbers(made.rng, rows, 4, 6, columns))
    y = made.input(numbers(made.rng, rows, 4, 6, columns))
    b = made.input(numbers(made.rng, columns))
    for axes in ((0,), (1,), (3,), (1, 2), (0, 1, 2), (0, 1, 2, 3), (0, 3), (0, 2), (-1, 1)):
        for function in (ops.sum, ops.mean, ops.max, ops.min, ops.logsumexp):
            made.add(f"{function.__name__} {axes}", function(x, axes))
        made.add(f"moments {axes}", ops.moments(x + 100.0, axes))
    for axis in range(4):
        made.add(f"softmax {axis}", [ops.softmax(x, axis), ops.log_softmax(x, axis), ops.argmax(x, axis)])
    mean, variance = ops.moments(x, (0, 1, 2))
    normal = ops.relu(ops.batch_norm(x, b, b, mean, variance))
    made.add(
        "norm",
        [normal, ops.max_pool2d(normal, 2), ops.max_pool2d(normal, 3, 1, "same"), ops.avg_pool2d(normal, (2, 3))],
    )
    made.add(
        "chains", [ops.tanh(x * b + y) * b, ops.where(ops.greater(x, y), x, b), ops.sum(ops.exp(x) * y, (0, 1, 2))]
    )
    loss = ops.sum(normal * y) + ops.sum(ops.max_pool2d(normal, 2))
    made.add("gradients", autodiff.gradients(loss, [x, b]))
    return made
