"""The kernel of fused regions: the same bits as its steps one by one, in memory of its own, on any number of workers.

A region calls its steps' own kernels on blocks, and these work element by element, so that even rounding is the same;
the convolution or product that it begins with is computed whole, by the very kernel that computes it outside.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from ops.cases import draw

from backends.reference import run as run_reference
from minigraph import ops
from minigraph.backends import NumpyBackend
from minigraph.backends.numpy import KERNELS, threads
from minigraph.backends.numpy.fused import BLOCK_BYTES
from minigraph.errors import GraphError
from minigraph.ir import OPS, Graph, Node, variable
from minigraph.ir.leaves import input as input_
from minigraph.ops.activations import Relu
from minigraph.ops.conv import Conv2D
from minigraph.ops.elementwise import Elementwise
from minigraph.ops.fused import Fused
from minigraph.ops.norm import BatchNorm
from minigraph.ops.region import Step
from minigraph.ops.shape import Cast
from minigraph.passes import CHANNELS_LAST, FUSE, UNFUSE, run
from minigraph.runtime import Interpreter, State, compile

Array = np.ndarray[Any, Any]
Function = Callable[..., Node]
GUARD = 256


@pytest.fixture(autouse=True)
def two_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers wherever the tests run."""
    monkeypatch.setattr(threads, "available", lambda: 2)
    monkeypatch.setattr(threads, "can_limit_blas", lambda: True)


def numbers(shape: Sequence[int], dtype: str, seed: int = 0) -> Array:
    """Return numbers in 0.25 … 2 (where their sign matters, minus 1), integers 0 … 3, or truth values."""
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if not dtype.startswith("float"):
        return rng.integers(0, 4, shape).astype(dtype)
    return np.asarray(rng.uniform(-0.75, 1.0, shape) + 0.25, dtype)


def region_of(function: Function, shapes: Sequence[Any], dtype: str = "float32") -> tuple[Node, list[Array]]:
    """Return what a function of inputs becomes, which must be one region, with values for its operands in order.

    A shape may come with a dtype of its own.
    """
    types = [(shape, dtype) if not shape or isinstance(shape[0], int) else shape for shape in shapes]
    nodes = [input_(shape, kind, f"x{i}") for i, (shape, kind) in enumerate(types)]
    graph = run([FUSE], Graph({"y": function(*nodes)}))[0]
    (region,) = [n for n in graph.nodes if n.inputs]
    assert isinstance(region.op, Fused), graph
    values = {n.label: numbers(*types[i], seed=i) for i, n in enumerate(nodes)}
    return region, [values[i.label] if i in graph.inputs else constant_of(i) for i in region.inputs]


def constant_of(node: Node) -> Array:
    """Return a constant's value."""
    return np.frombuffer(node.op.data, node.dtype).reshape(node.shape)  # type: ignore[arg-type, attr-defined]


def separately(region: Node, arrays: Sequence[Array], workers: int = 1) -> Array:
    """Return the result of the steps one by one."""
    graph = run([UNFUSE], Graph({"y": region}))[0]
    assert not any(isinstance(n.op, Fused) for n in graph.nodes)
    values = {n.label: a for n, a in zip(region.inputs, arrays, strict=True)}
    return Interpreter(NumpyBackend(workers)).run(graph, values)[graph.outputs["y"]]


def guarded(nbytes: int, before: int = GUARD) -> tuple[Array, Callable[[], bool]]:
    """Return used memory between two guards, 64-byte aligned, and a function that tells whether they are untouched."""
    whole = NumpyBackend().allocate(before + nbytes + GUARD)
    whole.fill(255)
    return whole[before : before + nbytes], lambda: bool(
        (whole[:before] == 255).all() and (whole[-GUARD:] == 255).all()
    )


def alone(node: Node, arrays: Sequence[Array], workers: int = 2, over: int | None = None) -> Array:
    """Return what a kernel makes of its operands, which it must not change, but for the one that it may write over."""
    backend = NumpyBackend(workers)
    inputs = [np.zeros_like(array) for array in arrays]  # not read-only: constants alone are
    nbytes = int(np.prod(node.shape, dtype=np.int64)) * np.dtype(node.dtype).itemsize  # type: ignore[arg-type]
    memory, result_whole = guarded(nbytes)
    output = inputs[over] if over is not None else memory.view(node.dtype).reshape(node.shape)  # type: ignore[arg-type]
    workspace, workspace_whole = guarded(backend.needs(node).workspace)
    with backend.running():
        kernel = backend.kernel(node, inputs, output, workspace)
        for _ in range(2):  # a program fills the operands after it has bound its kernels, and runs them many times
            workspace.fill(255)
            for target, value in zip(inputs, arrays, strict=True):
                target[...] = value
            kernel()
            for target, value in zip(inputs, arrays, strict=True):
                assert target is output or target.tobytes() == value.tobytes()
    assert result_whole() and workspace_whole()
    return output.copy()


def same_bits(got: Array, want: Array, what: object = "") -> None:
    assert got.dtype == want.dtype and got.shape == want.shape, what
    np.testing.assert_array_equal(got.view(f"u{got.itemsize}"), want.view(f"u{got.itemsize}"), str(what))


def check(function: Function, shapes: Sequence[Any], dtype: str = "float32") -> Node:
    """Compare a region with its steps one by one: alone on one and two workers, over each operand it may take."""
    region, arrays = region_of(function, shapes, dtype)
    want = separately(region, arrays)
    for workers in (1, 2):
        same_bits(alone(region, arrays, workers), want, f"{workers} workers: {region.op}")
    for place in NumpyBackend().needs(region).inplace:
        same_bits(alone(region, arrays, 2, over=place), want, f"over operand {place}: {region.op}")
    return region


# --- shapes -------------------------------------------------------------------------------------------------------

SHAPES: dict[str, tuple[Any, ...]] = {
    "scalars": ((), (), ()),
    "one element": ((1,), (1,), ()),
    "rank 1": ((7,), (7,), ()),
    "rank 1 beside one element": ((7,), (1,), (7,)),
    "long rank 1": ((70_001,), (70_001,), (1,)),
    "rows": ((5, 3), (3,), (5, 1)),
    "one row": ((1, 3), (3,), (1, 1)),
    "one column": ((5, 1), (1,), (5, 1)),
    "channel vectors": ((2, 4, 4, 6), (6,), (1, 1, 1, 6)),
    "one channel": ((2, 4, 4, 1), (1,), (2, 1, 1, 1)),
    "batch 1": ((1, 4, 4, 6), (6,), (1, 4, 4, 6)),
    "batch 1, maps": ((1, 4, 5, 6), (4, 5, 6), (4, 5, 1)),
    "maps": ((3, 4, 5, 6), (4, 5, 6), (1, 4, 1, 6)),
    "a number for each image and channel": ((3, 4, 5, 6), (3, 1, 1, 6), (6,)),
    "a number for each image": ((3, 4, 5, 6), (3, 1, 1, 1), ()),
    "broadcast along the first axis": ((3, 4, 5), (1, 4, 5), (4, 1)),
    "a first axis of equal size": ((3, 3, 3), (3, 1, 1), (3,)),
    "many rows of few channels": ((11_434, 3), (3,), (3,)),
    "many rows, a column beside": ((11_434, 3), (11_434, 1), (3,)),
    "many images beside a map": ((131, 9, 9, 16), (9, 9, 16), (16,)),
    "one large image": ((1, 65, 67, 32), (1, 65, 67, 1), (32,)),
    "wide rows": ((3, 70_000), (70_000,), (3, 1)),
    "nothing": ((0,), (0,), ()),
    "no rows": ((0, 3), (3,), (0, 1)),
    "no columns": ((3, 0), (0,), (3, 1)),
    "no images": ((0, 4, 4, 3), (3,), (0, 1, 1, 3)),
    "no channels": ((2, 4, 4, 0), (0,), ()),
    "images without height": ((2, 0, 4, 3), (3,), (2, 1, 1, 1)),
}


def chain(x: Node, y: Node, z: Node) -> Node:
    """Buffers that are taken over and that are not, operands on either side, a value that is read twice."""
    a = ops.tanh(x + y)
    b = ops.leaky_relu(z - a, 0.3)
    return ops.where(a < b, b * x, ops.maximum(a, ops.hard_swish(b)))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("shapes", SHAPES.values(), ids=list(SHAPES))
def test_a_chain_of_any_shape(shapes: tuple[Any, ...], dtype: str) -> None:
    check(chain, shapes, dtype)


@pytest.mark.parametrize("shapes", SHAPES.values(), ids=list(SHAPES))
def test_a_single_sum_and_what_may_write_over_its_operands(shapes: tuple[Any, ...]) -> None:
    region = check(lambda x, y, z: ops.relu(x + y) * z, shapes)
    whole = [i for i, operand in enumerate(region.inputs) if operand.type == region.type]
    assert list(NumpyBackend().needs(region).inplace) == whole


@pytest.mark.parametrize(
    "shape", [(3,), (1,), (5, 3), (5, 1), (1, 3), (2, 4, 4, 6), (11_434, 3), (0, 3), (3, 0)], ids=str
)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_batch_norm_along_the_last_axis(shape: tuple[int, ...], dtype: str) -> None:
    def normed(x: Node, y: Node, *vectors: Node) -> Node:
        return ops.relu(ops.batch_norm(ops.tanh(x), *vectors)) + y

    check(normed, [shape, shape[-1:], *[shape[-1:]] * 4], dtype)


# --- what a region begins with ------------------------------------------------------------------------------------

# The last step reads the anchor's result, and either may write over it or must not.
AFTER_AN_ANCHOR: dict[str, Function] = {
    "bias": lambda y, b, r: y + b,
    "bias, relu": lambda y, b, r: ops.relu(y + b),
    "residual": lambda y, b, r: ops.relu(y + b + r),
    "itself and its like": lambda y, b, r: y * ops.sigmoid(y),
    "leaky_relu": lambda y, b, r: ops.leaky_relu(y),
    "elu": lambda y, b, r: ops.elu(y),
    "gelu": lambda y, b, r: ops.gelu(y, approximate=True),
    "silu": lambda y, b, r: ops.silu(y),
    "sigmoid": lambda y, b, r: ops.sigmoid(y),
    "hard_swish": lambda y, b, r: ops.hard_swish(y),
    "twice": lambda y, b, r: ops.leaky_relu(ops.hard_swish(y)),
    "late": lambda y, b, r: ops.where(ops.tanh(y + b) < r, y, r),
    "late, second": lambda y, b, r: ops.where(ops.tanh(y + b) < r, r, y),
    "compared": lambda y, b, r: y < b,
    "compared with itself": lambda y, b, r: ops.not_equal(y, y),
    "narrowed": lambda y, b, r: ops.cast(y + b, "float16"),
    "widened": lambda y, b, r: ops.cast(y, "float64"),
    "to numbers and back": lambda y, b, r: ops.cast(ops.cast(y * 4.0, "int8"), "float32") + r,
    "batch norm": lambda y, b, r: ops.relu(ops.batch_norm(y, b, b, b, b * b)),
}  # fmt: skip
ANCHORS: dict[str, tuple[Function, tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = {
    "conv2d": (lambda x, w: ops.conv2d(x, w, padding="same"), (2, 5, 6, 3), (3, 3, 3, 4), (2, 5, 6, 4)),
    "pointwise": (ops.conv2d, (1, 5, 6, 3), (1, 1, 3, 4), (1, 5, 6, 4)),
    "depthwise": (lambda x, w: ops.conv2d(x, w, 2, groups=4), (3, 7, 7, 4), (3, 3, 1, 4), (3, 3, 3, 4)),
    "conv2d_transpose": (lambda x, w: ops.conv2d_transpose(x, w, 2), (2, 3, 3, 4), (3, 3, 4, 4), (2, 7, 7, 4)),
    "matmul": (ops.matmul, (5, 3), (3, 4), (5, 4)),
    "matmul of one row": (ops.matmul, (1, 3), (3, 4), (1, 4)),
    "matmul to one column": (ops.matmul, (5, 3), (3, 1), (5, 1)),
    "batches of products": (ops.matmul, (2, 5, 3), (2, 3, 4), (2, 5, 4)),
    "no images": (ops.conv2d, (0, 5, 6, 3), (1, 1, 3, 4), (0, 5, 6, 4)),
    "no products": (ops.matmul, (5, 0), (0, 4), (5, 4)),
}  # fmt: skip


@pytest.mark.parametrize("function", AFTER_AN_ANCHOR.values(), ids=list(AFTER_AN_ANCHOR))
@pytest.mark.parametrize("anchor", ANCHORS.values(), ids=list(ANCHORS))
def test_what_follows_an_anchor(anchor: Any, function: Function) -> None:
    first, x, w, y = anchor

    def whole(a: Node, k: Node, b: Node, r: Node) -> Node:
        return function(first(a, k), b, r)

    b, r = (input_(s, name=n) for s, n in ((y[-1:], "b"), (y, "r")))
    used = Graph({"y": function(input_(y, name="y"), b, r)}).inputs
    graph = run([FUSE], Graph({"y": whole(input_(x, name="x"), input_(w, name="w"), b, r)}))[0]
    regions = [n for n in graph.nodes if isinstance(n.op, Fused)]
    assert regions and regions[-1].op.body[0].op == first(input_(x, name="x"), input_(w, name="w")).op  # type: ignore[attr-defined]
    assert NumpyBackend().needs(regions[-1]).inplace == ()
    values = {n.label: numbers(n.shape, n.dtype, seed=i) for i, n in enumerate(graph.inputs)}  # type: ignore[arg-type]
    assert {n.label for n in used} - {"y"} <= values.keys()
    region = regions[-1]
    operands = Interpreter().run(graph, values)
    arrays = [operands[i] for i in region.inputs]
    plain = run([UNFUSE], graph)[0]
    want = Interpreter(NumpyBackend(1)).run(plain, values)[plain.outputs["y"]]
    for workers in (1, 2):
        same_bits(alone(region, arrays, workers), want)


def test_an_anchor_writes_into_the_result_where_nothing_trips_over_it() -> None:
    def workspace(function: Function) -> int:
        region, _ = region_of(lambda x, w: function(ops.conv2d(x, w)), [(2, 5, 6, 3), (1, 1, 3, 4)])
        return NumpyBackend().needs(region).workspace

    x, w = input_((2, 5, 6, 3), name="x"), input_((1, 1, 3, 4), name="w")
    bare = NumpyBackend().needs(ops.conv2d(x, w)).workspace
    assert workspace(ops.relu) == bare
    assert workspace(ops.leaky_relu) >= bare + 2 * 5 * 6 * 4 * 4  # which reads its operand again after it has written
    assert workspace(lambda y: ops.cast(y, "float16")) >= bare + 2 * 5 * 6 * 4 * 4  # another type


def test_blocks_lie_in_the_scratch_memory_that_the_anchor_has_done_with() -> None:
    shapes = [(8, 16, 16, 8), (3, 3, 8, 16), (16,)]
    region, _ = region_of(lambda x, w, b: ops.tanh(ops.conv2d(x, w) + b), shapes)
    x, w, _ = region.inputs
    assert NumpyBackend().needs(region).workspace == NumpyBackend().needs(ops.conv2d(x, w)).workspace > 0


def test_a_channels_first_convolution_is_refused_as_it_is_outside_of_a_region() -> None:
    region = Node(
        Fused((Step(Conv2D(layout="NCHW"), (0, 1)), Step(Relu(), (2,)))),
        (variable((1, 3, 4, 4), name="x"), variable((4, 3, 3, 3), name="w")),
    )
    with pytest.raises(GraphError, match="NHWC only") as caught:
        NumpyBackend().needs(region)
    assert __file__ in caught.value.where
    legal = run([CHANNELS_LAST], Graph({"y": region}))[0]
    assert not any(isinstance(n.op, Fused) for n in legal.nodes)
    values = {"x": numbers((1, 3, 4, 4), "float32"), "w": numbers((4, 3, 3, 3), "float32", 1)}
    got = compile({"y": region})(State(values))["y"]
    np.testing.assert_allclose(got, run_reference(Graph({"y": region}), values)[region], rtol=1e-5, atol=1e-6)


# --- types --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source", ["bool", "int8", "uint8", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64"]
)
@pytest.mark.parametrize("target", ["bool", "int8", "int64", "float16", "float32", "float64"])
def test_steps_that_change_the_type(source: str, target: str) -> None:
    """Buffers of every width follow each other in the same memory."""

    def function(x: Node, y: Node) -> Node:
        wide = ops.cast(x, "float64") * y
        narrow = ops.cast(wide > 0.5, "float16") + ops.cast(wide, "float16")
        return ops.cast(ops.where(wide < y, narrow, -narrow), target)

    for shape in ((7,), (40, 5), (3001, 33)):
        check(function, [(shape, source), (shape[-1:], "float64")])


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_regions_of_integers(dtype: str) -> None:
    check(lambda x, y: ops.where(x < y, x * y + x, ops.clip(x - y, 0, 2)), [(9, 5), (5,)], dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "op",
    ["neg", "exp", "sqrt", "rsqrt", "log", "sin", "cos", "erf", "tanh", "sigmoid", "softplus", "silu", "gelu", "elu",
     "hard_sigmoid", "abs", "sign", "floor", "relu"],
)  # fmt: skip
def test_every_function_of_one_number_has_the_same_bits_in_blocks(op: str, dtype: str) -> None:
    """Vector units compute whole registers; the last elements of a block must come out as they do elsewhere."""
    function = getattr(ops, op)
    for shape in ((33_001,), (23, 5), (7001, 9)):
        check(lambda x, y: function(abs(x) + 0.1) * y, [shape, shape[-1:]], dtype)


# --- many blocks, many workers ------------------------------------------------------------------------------------

LARGE: dict[str, tuple[Function, tuple[Any, ...]]] = {
    "over pixels": (chain, ((37, 21, 23, 16), (16,), ())),
    "over images": (chain, ((37, 21, 23, 16), (21, 23, 16), (37, 1, 1, 16))),
    "over elements": (chain, ((300_007,), (300_007,), (1,))),
    "rows of three": (chain, ((131_071, 3), (3,), (131_071, 3))),
    "two wide rows": (chain, ((2, 200_000), (200_000,), (2, 1))),
    "comparison": (lambda x, y, z: ops.where(ops.tanh(x) + y < z, x, y), ((37, 21, 23, 16), (16,), (37, 21, 23, 16))),
    "one image": (chain, ((1, 97, 101, 32), (1, 97, 101, 1), (32,))),
    "convolution": (
        lambda x, w, b, r: ops.relu(ops.conv2d(x, w, padding="same") + b + r),
        ((37, 21, 23, 4), (3, 3, 4, 16), (16,), (37, 21, 23, 16)),
    ),
    "convolution beside its result": (
        lambda x, w, b: ops.leaky_relu(ops.conv2d(x, w) + b), ((37, 21, 23, 4), (1, 1, 4, 16), (16,)),
    ),
    "product": (lambda x, w, b: ops.tanh(ops.matmul(x, w) * b), ((5003, 16), (16, 67), (67,))),
}  # fmt: skip


@pytest.mark.parametrize(("function", "shapes"), LARGE.values(), ids=list(LARGE))
def test_large_regions_are_cut_into_blocks_and_shared(
    function: Function, shapes: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    shared: list[int] = []
    each = threads.each
    monkeypatch.setattr(threads, "each", lambda pieces, body: (shared.append(pieces), each(pieces, body)))
    region = check(function, shapes)
    assert int(np.prod(region.shape)) * 4 >= 1 << 20  # type: ignore[arg-type]
    rows = int(np.prod(region.shape[:-1])) if region.rank > 1 else region.shape[0]
    assert max(shared, default=1) == 2 or rows == 1 or region.shape[0] == 1, "never shared"


@pytest.mark.parametrize("processors", [1, 3, 5, 64])
@pytest.mark.parametrize("name", ["over pixels", "over images", "rows of three", "convolution", "product"])
def test_the_machine_decides_the_blocks_and_no_number_of_workers_the_bits(
    name: str, processors: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    function, shapes = LARGE[name]
    region, arrays = region_of(function, shapes)
    anchored = isinstance(region.op.body[0].op, Conv2D)  # type: ignore[attr-defined]  # whose own sums may differ
    wants = {workers: separately(region, arrays, workers if anchored else 1) for workers in (1, 2)}
    monkeypatch.setattr(threads, "available", lambda: processors)
    for workers in (1, 2, processors):
        got = alone(region, arrays, workers)
        if anchored and workers > 2:
            np.testing.assert_allclose(got, wants[1], rtol=1e-5, atol=1e-6)
        else:
            same_bits(got, wants[workers if anchored and processors > 1 else 1], f"{workers} of {processors}")


def test_more_memory_than_a_cache_is_never_asked_for_what_lies_between() -> None:
    shapes = ((4096, 21, 23, 16), (16,), ())
    nodes = [input_(shape, name=f"x{i}") for i, shape in enumerate(shapes)]
    region = run([FUSE], Graph({"y": chain(*nodes)}))[0].outputs["y"]
    buffers = 6  # of a block: five values that live at once, and what `where` asks for
    limit = 2 * buffers * BLOCK_BYTES + 64 * 16 * 4
    assert NumpyBackend().needs(region).workspace <= limit < 4096 * 21 * 23 * 16 * 4 / 10


# --- drawn regions, programs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_drawn_regions_have_the_bits_of_their_steps(dtype: str) -> None:
    for seed in range(150):
        case = draw("fused", seed)
        arrays = [a.astype(dtype) if a.dtype == np.float64 else a for a in case.arrays]
        node = case.function(*(input_(a.shape, str(a.dtype), f"x{i}") for i, a in enumerate(arrays)))
        assert isinstance(node, Node)
        graph = run([CHANNELS_LAST], Graph({"y": node}))[0]
        if graph.outputs["y"] is not node:  # a channels-first convolution
            continue
        want = separately(node, arrays)
        what = f"seed {seed}: {case.describe()}"
        for workers in (1, 2):
            same_bits(alone(node, arrays, workers), want, what)
        for place in NumpyBackend().needs(node).inplace:
            same_bits(alone(node, arrays, over=place), want, f"{what}, over operand {place}")


@pytest.mark.parametrize("seed", range(25))
def test_programs_of_random_regions(seed: int) -> None:
    """Regions that take over operands, in an arena, with outputs on the way: the bits of the unfused program."""
    rng = np.random.default_rng(seed)
    shapes = [(64, 3, 4), (4,), (3, 4), (64, 1, 4), (64, 3, 4)]
    values = {f"x{i}": rng.uniform(0.5, 1.5, s).astype(np.float32) for i, s in enumerate(shapes)}
    pool = [input_(s, name=f"x{i}") for i, s in enumerate(shapes)]
    one = [ops.neg, ops.tanh, ops.sigmoid, ops.relu, ops.softplus, ops.abs, ops.silu, ops.hard_swish, ops.leaky_relu]
    two = [ops.add, ops.sub, ops.mul, ops.maximum, lambda x, y: ops.where(x < y, x, y)]
    for _ in range(25):
        x = pool[-1 - int(rng.integers(min(4, len(pool))))]
        if rng.random() < 0.5:
            pool.append(one[int(rng.integers(len(one)))](x))
        else:
            y = pool[int(rng.integers(len(pool)))]
            pool.append(ops.tanh(two[int(rng.integers(len(two)))](*((x, y) if rng.random() < 0.5 else (y, x)))))
    outputs = {"last": pool[-1], "some": pool[int(rng.integers(5, len(pool)))], "sum": ops.sum(pool[-2])}
    graph = Graph(outputs, inputs=pool[: len(shapes)])
    fused = run([FUSE], graph)[0]
    assert any(isinstance(n.op, Fused) for n in fused.nodes)
    program = compile(fused, optimize=False)
    plain = compile(graph, optimize=False)(**values)
    for _ in range(2):  # the second call finds the memory as the first left it
        for name, got in program(**values).items():
            same_bits(got, plain[name], f"{name}\n{program.plan}")
    program.plan.check()


def test_a_region_over_variables_follows_their_values() -> None:
    x, w = input_((3, 4), name="x"), variable((4,), name="w")
    graph = run([FUSE], Graph({"y": ops.relu(x * w)}, {w: w + 1.0}))[0]
    assert [n.op.name for n in graph.nodes].count("fused") == 1
    program, state = compile(graph, optimize=False), State({"w": np.float32([1, -1, 2, -2])})
    ones = np.ones((3, 4), np.float32)
    np.testing.assert_array_equal(program(state, x=ones)["y"][0], [1, 0, 2, 0])
    np.testing.assert_array_equal(program(state, x=ones)["y"][0], [2, 0, 3, 0])


# --- nothing is allocated -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*LARGE, "batch norm"])
def test_a_call_allocates_nothing(name: str) -> None:
    function, shapes = LARGE.get(name) or (
        lambda x, a, b, c, d, y: ops.relu(ops.batch_norm(ops.tanh(x), a, b, c, d) + y),
        ((37, 21, 23, 16), (16,), (16,), (16,), (16,), (37, 21, 23, 16)),
    )
    region, arrays = region_of(function, shapes)
    backend = NumpyBackend(1)  # the size of NumPy's buffers is set for one thread
    output = np.empty(region.shape, region.dtype)  # type: ignore[arg-type]
    kernel = backend.kernel(region, arrays, output, backend.allocate(backend.needs(region).workspace))
    with np.errstate(), backend.running():
        size = np.setbufsize(16)  # what is left are iterators, views and Python objects
        kernel()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            kernel()
            taken = tracemalloc.get_traced_memory()[1] - before
        finally:
            tracemalloc.stop()
            np.setbufsize(size)
    assert taken <= 4096


def test_every_op_that_may_stand_in_a_region_has_a_kernel() -> None:
    inside = {cls for cls in OPS.values() if issubclass(cls, (Elementwise, Cast, BatchNorm))}
    assert {"add", "relu", "cast", "batch_norm", "where"} <= {cls.name for cls in inside}
    assert inside <= KERNELS.keys()
