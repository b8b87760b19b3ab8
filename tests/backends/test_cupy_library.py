"""Reductions, softmax and its kin, and poolings on the GPU backend: their kernels run on the processor."""

from __future__ import annotations

import itertools
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from ops.cases import CASES, draw

from backends.cupy_steps import Parts, Steps, check, needs_compiler, prepared, same_bits, step_code
from backends.nvcc import assembled, needs_nvcc
from backends.op_graphs import Growing, special
from minigraph import ops
from minigraph.backends.cupy.anchors import multiplies
from minigraph.backends.cupy.loops import loops
from minigraph.backends.cupy.reductions import Plan
from minigraph.backends.dtypes import array_dtype
from minigraph.backends.numpy import NumpyBackend
from minigraph.errors import MinigraphError
from minigraph.ir import Node
from minigraph.ir.types import DTYPES, HALF, is_float
from minigraph.ops.group import Group
from minigraph.ops.indexing import GatherAdjoint
from minigraph.ops.pool import AvgPool2D, AvgPool2DAdjoint, MaxPool2D, MaxPool2DAdjoint, MaxPool2DSelect
from minigraph.ops.region import Region

REDUCTIONS = ("sum", "mean", "max", "min", "logsumexp", "moments", "argmax")
ROWS = ("softmax", "log_softmax", "softmax_cross_entropy")
POOLS = ("max_pool2d", "max_pool2d_adjoint", "max_pool2d_select", "avg_pool2d", "avg_pool2d_adjoint")


def numbers(made: Growing, shape: Sequence[int], dtype: str, scale: float = 3.0) -> Node:
    """Add an input of normal numbers."""
    return made.input((made.rng.standard_normal(shape) * scale).astype(array_dtype(dtype)))


def drawn(names: Sequence[str], seeds: range, dtype: str) -> Growing:
    """Return drawn cases of ops, floats of this dtype."""
    made = Growing()
    for name, seed in itertools.product(names, seeds):
        case = draw(name, seed)
        arrays = [a.astype(array_dtype(dtype)) if a.dtype == np.float64 else a for a in case.arrays]
        made.add(f"{name} of seed {seed}", case.function(*map(made.input, arrays)))
    return made


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32", *HALF])
def test_drawn_cases_are_within_their_bounds(dtype: str) -> None:
    check(drawn((*REDUCTIONS, *ROWS, *POOLS, "batch_norm"), range(12), dtype))


# --- reductions -------------------------------------------------------------------------------------------------------


def reductions(made: Growing, shape: tuple[int, ...], dtype: str, every: Sequence[tuple[int, ...]]) -> None:
    """Add all reductions of an array over each of some axes."""
    x = numbers(made, shape, dtype) if is_float(dtype) else made.input(special(made.rng, shape, dtype))
    for axes in every:
        for function in (ops.sum, ops.mean, ops.max, ops.min, ops.logsumexp, ops.moments):
            try:
                made.add(f"{function.__name__} {axes} of {x.type}", function(x, axes, *[True][: function is ops.sum]))
            except MinigraphError:  # not for this dtype
                continue


def some_axes(made: Growing) -> None:
    """Add reductions of one stage and of two."""
    for axes in ((0, 2), (3,), (1,)):
        reductions(made, (3, 4, 5, 18), "float32", [axes])
    x, y = (numbers(made, (7, 9000), dtype) for dtype in ("float16", "int8"))
    made.add("two stages", [ops.sum(x, 1), ops.argmax(x), ops.sum(ops.reshape(y, (9000, 7)), 0), ops.max(y, 1)])
    made.add("far from 0", ops.moments(made.input(made.rng.standard_normal((5, 3001)) + 1000.0), 1))


@needs_compiler
def test_axes_are_reduced_wherever_they_are(parts: Parts) -> None:
    parts.check("axes")


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("dtype", list(DTYPES))
def test_axes_are_reduced_wherever_they_are_in_all_dtypes(dtype: str) -> None:
    made = Growing()
    every = [axes for n in range(4) for axes in itertools.combinations(range(4), n)]
    reductions(made, (3, 4, 5, 18), dtype, every)
    reductions(made, (2, 4, 1, 24), dtype, every[::2])
    reductions(made, (5, 3001), dtype, [(0,), (1,), (0, 1)])
    reductions(made, (4096, 6), dtype, [(0,), (1,)])
    check(made)


def test_few_results_of_many_elements_take_two_stages_and_many_take_one() -> None:
    all_of_it = Plan.of([(1 << 24, True)], 4, 8)
    assert all_of_it.along == 256 and all_of_it.parts == all_of_it.blocks == 1056
    columns = Plan.of([(100_000, True), (64, False)], 4, 8)
    assert (columns.pack, columns.across, columns.along) == (4, 16, 16) and columns.parts > 500
    rows = Plan.of([(100_000, False), (64, True)], 2, 8)
    assert (rows.pack, rows.within, rows.along, rows.parts) == (4, True, 4, 1)
    wide = Plan.of([(8, True), (1 << 22, False)], 4, 8)
    assert (wide.along, wide.parts, wide.blocks) == (1, 1, 4096)


def special_numbers(made: Growing) -> None:
    """Add what has to do with NaN and infinities."""
    rows = np.array([[1, np.nan, 3, 4], [np.inf, 1, np.inf, 2], [-np.inf] * 4, [-np.inf, 5, 0, 5], [np.nan] * 4])
    x, weights = (made.input(a.astype(np.float32)) for a in (rows, rows == 5))
    made.add("extremes", [f(x, 1) for f in (ops.max, ops.min, ops.argmax, ops.logsumexp, ops.sum)])
    made.add("rows", [ops.softmax(x), ops.log_softmax(x), ops.softmax_cross_entropy(x, weights), ops.argmax(x, 0)])
    image = made.input(np.concatenate([rows, rows[::-1, ::-1]]).astype(array_dtype("bfloat16")).reshape(1, 5, 4, 2))
    window = {"size": (2, 2), "strides": (1, 1), "padding": "same"}
    largest = Node(MaxPool2D(**window), (image,))
    made.add("pools", [largest, Node(MaxPool2DSelect(**window), (image, ops.abs(image)))])
    made.add("adjoint", Node(MaxPool2DAdjoint(**window), (image, ops.relu(largest))))


@needs_compiler
def test_special_numbers_are_numpys(parts: Parts) -> None:
    parts.same_numbers("special numbers")


def empty(made: Growing) -> None:
    """Add what has nothing to read, or nothing to write."""
    for shape in ((0,), (0, 3), (3, 0)):
        x = numbers(made, shape, "float32")
        made.add(f"sums of {shape}", [ops.sum(x), ops.sum(x, 0), ops.mean(x, -1, True), ops.logsumexp(x, -1)])
        made.add(f"moments of {shape}", ops.moments(x, 0))
        made.add(f"softmax of {shape}", [ops.softmax(x), ops.log_softmax(x), ops.softmax_cross_entropy(x, x)])
    image = numbers(made, (0, 4, 4, 3), "float16")
    made.add("pools of nothing", [ops.max_pool2d(image, 3, 1), ops.avg_pool2d(image, 2), ops.max(image, 3)])
    made.add("nothing of something", [ops.sum(made.input(np.zeros((2, 0), np.int8)), 1)])


@needs_compiler
def test_empty_arrays(parts: Parts) -> None:
    parts.same_numbers("empty")


# --- rows -------------------------------------------------------------------------------------------------------------


def rows(made: Growing, rows: int, k: int, dtype: str) -> None:
    """Add softmax and its kin of rows, and of columns."""
    x, t = numbers(made, (rows, k), dtype), made.input(made.rng.random((rows, k)).astype(array_dtype(dtype)))
    made.add(f"rows of {x.type}", [ops.softmax(x), ops.log_softmax(x), ops.softmax_cross_entropy(x, t)])
    made.add(f"columns of {x.type}", [ops.softmax(x, 0), ops.softmax_cross_entropy(x, t, 0)])


def some_rows(made: Growing) -> None:
    """Add rows that a few threads, a warp and a block work on, and one that no registers hold."""
    rows(made, 33, 10, "float32")
    rows(made, 3, 1500, "float16")
    made.add("a long row", ops.softmax(numbers(made, (2, 17_000), "float32")))


@needs_compiler
def test_rows_of_any_length(parts: Parts) -> None:
    parts.check("rows")


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64", *HALF])
def test_rows_of_many_lengths(dtype: str) -> None:
    made = Growing()
    for number, k in [(1, 1), (3, 2), (70, 31), (5, 32), (9, 33), (3, 1000), (2, 1024), (2, 1025), (1, 20_000)]:
        rows(made, number, k, dtype)
    check(made)


# --- pools ------------------------------------------------------------------------------------------------------------

WINDOWS: list[tuple[Any, Any, Any, Any]] = [
    ((3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1)),
    ((3, 2), (1, 2), "same", (2, 1)),
    ((2, 3), (3, 4), ((0, 1), (2, 0)), (2, 2)),
    ((9, 11), (9, 11), "valid", (1, 1)),
    ((17, 17), (1, 1), "same", (1, 1)),  # more taps than a byte counts
]


def pools(made: Growing, channels: int, dtype: str, windows: Sequence[Any]) -> None:
    """Add all poolings over windows."""
    for size, strides, padding, dilations in windows:
        window = {"size": size, "strides": strides, "padding": padding, "dilations": dilations}
        x = made.input(made.rng.integers(-20, 20, (2, 9, 11, channels)).astype(array_dtype(dtype)))
        largest = Node(MaxPool2D(**window), (x,))
        g = made.input(made.rng.integers(-9, 9, largest.shape).astype(array_dtype(dtype)))
        found = [largest, Node(MaxPool2DAdjoint(**window), (x, g)), Node(MaxPool2DSelect(**window), (x, -x))]
        for counts in (False, True) if is_float(dtype) else ():
            found.append(Node(AvgPool2D(**window, count_padding=counts), (x,)))
            found.append(Node(AvgPool2DAdjoint(**window, count_padding=counts, output_size=(9, 11)), (g,)))
        made.add(f"{window} of {x.type}", found)


def some_windows(made: Growing) -> None:
    """Add windows that overlap, leave gaps, reach into the padding, or cover all."""
    pools(made, 8, "float32", WINDOWS[:1])
    pools(made, 1, "float16", WINDOWS[1:2])
    pools(made, 3, "int8", WINDOWS[2:])
    image = numbers(made, (1, 5, 6, 3), "float32")
    made.add("ceil", ops.avg_pool2d(image, (2, 2), (3, 3), ceil_mode=True, count_padding=True))


@needs_compiler
def test_windows_of_all_kinds(parts: Parts) -> None:
    parts.check("windows")


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "uint8", "int64"])
def test_windows_of_all_kinds_in_all_dtypes(dtype: str) -> None:
    made = Growing()
    for channels in (1, 8, 6):
        pools(made, channels, dtype, WINDOWS)
    check(made)


# --- whole numbers, batch norms ---------------------------------------------------------------------------------------


def whole(made: Growing, dtype: str) -> None:
    """Add what is computed of integers alone."""
    limits = np.iinfo(dtype)
    low = -4 if limits.min < 0 else 0
    x = made.input(np.array([*made.rng.integers(low, 5, 38), limits.min, limits.max], dtype))
    y = made.input(made.rng.integers(0, 9, (3, 40)).astype(dtype))
    made.add(f"{dtype}", [ops.pow(x, y), ops.floor(x)])
    for least, most in ((-1.5, 2.5), (-np.inf, 3.0), (0.5, np.inf), (-np.inf, np.inf)):
        made.add(f"{dtype} in {least} … {most}", ops.clip(x, least, most))


def some_whole(made: Growing) -> None:
    """Add small integers, and large ones."""
    for dtype in ("int8", "uint64"):
        whole(made, dtype)


@needs_compiler
def test_whole_numbers(parts: Parts) -> None:
    parts.same_bits("whole numbers")


@needs_compiler
def test_a_negative_power_of_an_integer_is_noted() -> None:
    made = Growing()
    x, y = (made.input(np.array(n, np.int32)) for n in ([2, 3], [1, -1]))
    steps = Steps([power := ops.pow(x, y)])
    assert steps.run(made.values)[power].tolist() == [2, 0] and steps.status == 2


@needs_compiler
@pytest.mark.slow
def test_whole_numbers_in_all_dtypes() -> None:
    made = Growing()
    for dtype in DTYPES:
        if dtype.startswith(("int", "uint")):
            whole(made, dtype)
    same_bits(made)


def norms(made: Growing) -> None:
    """Add batch norms along other axes than the last."""
    for dtype, axis, shape in (("float32", 1, (2, 5, 3, 4)), ("bfloat16", 0, (6, 8))):
        vectors = [made.input(made.rng.uniform(0.5, 2, shape[axis]).astype(array_dtype(dtype))) for _ in range(4)]
        made.add(f"norm of {dtype}", ops.batch_norm(numbers(made, shape, dtype), *vectors, axis=axis))


@needs_compiler
def test_channels_may_be_any_axis_of_a_batch_norm(parts: Parts) -> None:
    parts.check("norms")


@pytest.fixture(scope="module")
def parts() -> Parts:
    """All that is small, compiled once."""
    return Parts({
        "axes": some_axes, "special numbers": special_numbers, "empty": empty, "rows": some_rows,
        "windows": some_windows, "whole numbers": some_whole, "norms": norms,
    })  # fmt: skip


# --- all of them ------------------------------------------------------------------------------------------------------


def lacking(dtype: str) -> set[str]:
    """Return the ops that NumPy has a kernel for on a dtype, but loops, products and kernels written by hand do not."""
    made, numpy = Growing(), NumpyBackend()
    for name, seed in itertools.product(sorted(CASES.keys() - {"fused", "function"}), range(4)):
        case = draw(name, seed)
        arrays = [a.astype(array_dtype(dtype)) if a.dtype == np.float64 else a for a in case.arrays]
        try:
            made.add(f"{name} {seed}", case.function(*map(made.input, arrays)))
        except MinigraphError:  # not for this dtype
            continue
    nodes = Steps(prepared(made.outputs).values(), lambda node: None).nodes
    computed = [n for n in nodes if n.inputs and not isinstance(n.op, (Group, Region))]
    return {
        n.op.name
        for n in computed
        if numpy.needs(n).alias is None and not multiplies(n) and not loops(n) and step_code(n) is None
    }


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_no_op_is_left_out(dtype: str) -> None:
    assert lacking(dtype) == set()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", list(DTYPES))
def test_no_op_of_any_dtype_is_left_out(dtype: str) -> None:
    assert lacking(dtype) == set()


def one_of_each() -> dict[str, Node]:
    """Return a node for each kernel written by hand, of the sizes that it is written for."""
    made = Growing()
    for dtype in ("float32", "bfloat16", "float64"):
        x = made.input(np.zeros((128, 56, 56, 64), array_dtype(dtype)))
        made.add(f"reductions {dtype}", [ops.sum(x, (1, 2)), ops.logsumexp(x, 3), ops.argmax(x, 1), ops.max(x, (0, 2))])
        made.add(f"moments {dtype}", ops.moments(x, (1, 2)))
        flat = ops.reshape(x, (-1, 64 * 56))
        t = made.input(np.zeros(flat.shape, array_dtype(dtype)))  # type: ignore[arg-type]
        made.add(f"rows {dtype}", [ops.softmax(x), ops.log_softmax(flat), ops.softmax_cross_entropy(flat, t)])
        window = {"size": (3, 3), "strides": (2, 2), "padding": ((1, 1), (1, 1))}
        largest = Node(MaxPool2D(**window), (x,))
        made.add(f"max {dtype}", [largest, Node(MaxPool2DAdjoint(**window), (x, largest))])
        made.add(f"average {dtype}", [Node(AvgPool2D(**window), (x,)), Node(MaxPool2DSelect(**window), (x, x))])
        made.add(f"average's {dtype}", Node(AvgPool2DAdjoint(**window, output_size=(56, 56)), (largest,)))
        vector = made.input(np.zeros(56, array_dtype(dtype)))
        made.add(f"norm {dtype}", ops.batch_norm(x, *[vector] * 4, axis=1))
        made.add(f"moved {dtype}", [ops.transpose(x), ops.transpose(x, (1, 0, 2, 3)), ops.pad(x, [(1, 2)] * 4)])
        made.add(f"sliced {dtype}", [x[:, ::2, 3:9, ::-1], ops.concat([x, x], 1), *ops.split(x, 2, -1)])
        words = made.input(np.zeros((50_000, 512), array_dtype(dtype)))
        indices = made.input(np.zeros(10_000, np.int64))
        found = ops.gather(words, indices)
        made.add(f"gather {dtype}", [found, Node(GatherAdjoint(words.shape, 0), (found, indices))])
        made.add(f"one hot {dtype}", ops.one_hot(indices, 1000, dtype=dtype))
    counter, integer = made.input(np.array(0)), made.input(np.zeros((64, 64), np.int32))
    made.add("random", [ops.random_uniform(counter, (1000, 1000), dtype=d) for d in ("float32", "float64")])
    made.add("whole", [ops.pow(integer, integer), ops.clip(integer, 0, 9), ops.floor(integer), ops.sum(integer)])
    return made.outputs


@pytest.mark.slow
@needs_nvcc
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_no_kernel_spills_a_register(architecture: str, tmp_path: pathlib.Path) -> None:
    report = assembled(Steps(one_of_each().values()).source, tmp_path, "-cubin", f"-arch={architecture}")
    frames = re.findall(r"Function properties for (\w+)\s+(\d+) bytes stack frame, (\d+) bytes spill", report)
    assert len(frames) > 80
    assert [frame for frame in frames if frame[1:] != ("0", "0")] == []
