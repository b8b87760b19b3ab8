"""What moves elements on the GPU backend gives NumPy's very bits; and random numbers, and indices out of range."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from backends.cupy_steps import Parts, Steps, check, needs_compiler, same_bits
from backends.op_graphs import Growing
from backends.test_cupy_library import drawn, numbers
from minigraph import ops
from minigraph.backends.cupy.movement import movement_code
from minigraph.backends.cupy.steps import Launch
from minigraph.backends.dtypes import array_dtype
from minigraph.ir import Node
from minigraph.ir.leaves import input as input_
from minigraph.ir.types import DTYPES
from minigraph.ops.indexing import GatherAdjoint, SliceAdjoint
from minigraph.ops.shape import BroadcastTo

pytestmark = needs_compiler
MOVES = (
    "transpose", "broadcast_to", "pad", "slice", "slice_adjoint", "concat", "split", "gather", "one_hot", "size",
    "random_uniform",
)  # fmt: skip
SHAPE = (3, 20, 5, 32)
ORDERS = [(0, 1, 2, 3), (3, 2, 1, 0), (0, 3, 1, 2), (0, 2, 3, 1), (1, 0, 2, 3), (2, 3, 0, 1), (0, 1, 3, 2)]
TAKEN = [
    np.s_[1], np.s_[:, 3:17:4], np.s_[..., ::-1], np.s_[::-2, ::-3, ::2, 5:], np.s_[:, :, 2:3], np.s_[2:0:-1, 4:4],
    np.s_[..., 8:24],
]  # fmt: skip
PADDINGS = [[(0, 0), (1, 1), (1, 1), (0, 0)], [(2, 0), (0, 0), (0, 3), (1, 4)], [(0, 0), (0, 0), (0, 0), (0, 4)]]


def numbered(made: Growing, shape: Sequence[int], dtype: str) -> Node:
    """Add an input of different numbers, as far as a dtype goes."""
    return made.input(np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(array_dtype(dtype)))


def moves(made: Growing, dtype: str) -> None:
    """Add all that moves elements."""
    x, row = numbered(made, SHAPE, dtype), numbered(made, (3, 1, 5, 1), dtype)
    made.add(f"transposes of {dtype}", [ops.transpose(x, axes) for axes in ORDERS])
    made.add(f"slices of {dtype}", [x[index] for index in TAKEN])
    made.add(f"pads of {dtype}", [ops.pad(x, padding, 1.0) for padding in PADDINGS])
    for axis in range(4):
        rest = x[(slice(None),) * axis + (slice(1, None),)]
        made.add(f"concat of {dtype} {axis}", ops.concat([x, rest, x], axis))
        made.add(f"split of {dtype} {axis}", ops.split(x, [1, SHAPE[axis] - 3, 2], axis))
    for step in (-1, 1):
        op = SliceAdjoint((7, 41, 5, 64), (6, 1, 0, 40 if step < 0 else 8), (-3, 2, 1, step))
        made.add(f"slice_adjoint of {dtype} {step}", Node(op, (x,)))
    made.add(f"broadcast_to of {dtype}", Node(BroadcastTo((2, *SHAPE)), (row,)))
    made.add(f"size of {dtype}", ops.size(x, (0, 2), dtype))


def picks(made: Growing, dtype: str, integers: str) -> None:
    """Add gathers and one-hot vectors by integers of a dtype."""
    x = numbered(made, SHAPE, dtype)
    i = made.input(made.rng.integers(-3 if integers.startswith("int") else 0, 3, (4, 3)).astype(integers))
    made.add(f"gathers of {dtype} by {integers}", [ops.gather(x, i, axis) for axis in (0, 2, 3)])
    made.add(f"one_hot in {dtype} of {integers}", [ops.one_hot(i, 6, axis, dtype) for axis in (0, 2)])
    made.add(f"one_hot in {dtype} of many {integers}", ops.one_hot(i, 300, -1, dtype))
    if dtype != "bool":  # which are not added up
        made.add(f"adjoint of {dtype} by {integers}", Node(GatherAdjoint(SHAPE, 2), (ops.gather(x, i, 2), i)))


def elements(made: Growing) -> None:
    """Add moves of elements of some sizes."""
    for dtype in ("float32", "bool"):
        moves(made, dtype)
    for dtype, integers in (("bfloat16", "int64"), ("int64", "uint8")):
        picks(made, dtype, integers)


def test_elements_are_moved_as_numpy_does(parts: Parts) -> None:
    parts.same_bits("elements")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", list(DTYPES))
def test_elements_of_all_dtypes_are_moved_as_numpy_does(dtype: str) -> None:
    made = Growing()
    moves(made, dtype)
    for integers in ("int8", "uint8", "int32", "uint64"):
        picks(made, dtype, integers)
    same_bits(made)


@pytest.mark.slow
def test_drawn_cases_give_numpys_bits() -> None:
    same_bits(drawn(MOVES, range(20), "float64"))
    same_bits(drawn([name for name in MOVES if name not in ("random_uniform", "one_hot", "size")], range(20), "bool"))
    check(drawn(["gather_adjoint"], range(20), "bfloat16"))


def special_numbers(made: Growing) -> None:
    """Add what is filled in with numbers that are no plain ones."""
    special = [np.nan, -0.0, np.inf, 1e-45]
    for dtype in ("float16", "float64"):
        x = made.input(np.array(special, dtype))
        made.add(f"pads of special {dtype}", [ops.pad(x, [(1, 2)], v) for v in (np.inf, -np.inf, 0.1)])
        made.add(f"the other way round {dtype}", x[::-1])


def test_special_numbers_are_moved_and_filled_in(parts: Parts) -> None:
    parts.same_bits("special numbers")


def empty(made: Growing) -> None:
    """Add what moves nothing."""
    for shape in ((0, 3), (3, 0), (2, 0, 4)):
        x = numbers(made, shape, "float32")
        made.add(f"concat {shape}", ops.concat([x, x]))
        made.add(f"pad {shape}", ops.pad(x, [(1, 2)] * len(shape), 1.5))
        made.add(f"transpose {shape}", ops.transpose(x))
    x, nothing = numbers(made, (5, 3), "float32"), made.input(np.zeros((0,), np.int64))
    made.add("nothing is taken", [x[2:2], ops.gather(x, nothing), *ops.split(x, [0, 5], 0)])
    made.add("nothing is added", Node(GatherAdjoint((5, 3), 0), (ops.gather(x, nothing), nothing)))
    made.add("a scalar", [ops.pad(numbers(made, (), "float32"), []), ops.transpose(numbers(made, (), "float64"))])


def test_empty_arrays(parts: Parts) -> None:
    parts.same_bits("empty")


def randoms(made: Growing) -> None:
    """Add random numbers of whole blocks and of some left over."""
    counters = [made.input(np.array(count)) for count in (0, 2**40, -1)]
    shapes: list[tuple[int, ...]] = [(), (0,), (3,), (4,), (9,), (100, 301)]
    for dtype, (i, shape) in itertools.product(("float32", "float64"), enumerate(shapes)):
        key = [(0, 0), (2**64 - 1, 2**63 + 5)][i % 2]
        made.add(f"{dtype} {shape} {key}", ops.random_uniform(counters[i % 3], shape, key, dtype))


def test_random_numbers_are_numpys(parts: Parts) -> None:
    parts.same_bits("randoms")


# --- indices ----------------------------------------------------------------------------------------------------------


def added_up(made: Growing, count: int, inner: int, dtype: str) -> None:
    """Add the adjoint of a gather by so many indices."""
    i = made.input(made.rng.integers(-50, 50, count).astype(np.int32))
    for outer in ((), (2,)):
        values = numbers(made, (*outer, count, inner), dtype)
        made.add(f"{values.type}", Node(GatherAdjoint((*outer, 50, inner), len(outer)), (values, i)))


def some_added_up(made: Growing) -> None:
    """Add sums by more indices than a block sorts, and by one."""
    added_up(made, 5000, 8, "float32")
    added_up(made, 1, 3, "bfloat16")


def test_many_indices_are_added_up_in_order(parts: Parts) -> None:
    parts.check("added up")


def clipped(made: Growing) -> None:
    """Add gathers by indices that are out of range, and may be."""
    x = made.input(np.arange(24, dtype=np.float32).reshape(2, 3, 4))
    for indices in (np.array([-1, 1, 7, -100]), np.array([200, 0], np.uint8), np.array([2**64 - 1, 1], np.uint64)):
        i = made.input(indices)
        chosen = ops.gather(x, i, 1, mode="clip")
        made.add(f"clipped {indices}", [chosen, Node(GatherAdjoint((2, 3, 4), 1, "clip"), (chosen, i))])


def test_an_index_out_of_range_may_be_meant(parts: Parts) -> None:
    parts.same_bits("clipped")


@pytest.fixture(scope="module")
def parts() -> Parts:
    """All that is small, compiled once."""
    return Parts({
        "elements": elements, "special numbers": special_numbers, "empty": empty, "randoms": randoms,
        "added up": some_added_up, "clipped": clipped,
    })  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "float64", "int8", "uint64"])
def test_any_number_of_indices_is_added_up(dtype: str) -> None:
    made = Growing()
    for count, inner in itertools.product((2, 3, 100, 2048, 2049, 10_000), (1, 6, 16)):
        added_up(made, count, inner, dtype)
    check(made)


OUT_OF_RANGE = ((3, "int64", 2), (-4, "int32", 0), (200, "uint8", 2), (2**64 - 1, "uint64", 2))


def test_an_index_out_of_range_is_clipped_and_noted() -> None:
    made = Growing()
    x = made.input(np.arange(6, dtype=np.float32).reshape(3, 2))
    for index, dtype, _ in OUT_OF_RANGE:
        i = made.input(np.array([index], dtype))
        chosen = ops.gather(x, i)
        made.add(dtype, [chosen, Node(GatherAdjoint((3, 2), 0), (chosen, i))])
    empty, zero = made.input(np.zeros((0, 2), np.float32)), made.input(np.zeros(1, np.int64))
    made.add("of nothing", ops.gather(empty, zero))
    steps = Steps(made.outputs.values())
    got = steps.run(made.values)
    assert steps.status == 1
    for _, dtype, taken in OUT_OF_RANGE:
        chosen, added = (got[made.outputs[f"{dtype}, {i}"]] for i in range(2))
        assert chosen.tolist() == added[[taken]].tolist() == [[2 * taken, 2 * taken + 1]]


# --- widths -----------------------------------------------------------------------------------------------------------


def test_words_are_as_wide_as_sizes_and_gaps_allow() -> None:
    def statement(node: Node) -> str:
        code = movement_code(node)
        assert code is not None and isinstance(code.actions[0], Launch)
        return code.actions[0].parameters[0].declaration + code.actions[0].statements[0]

    x = input_((4, 6, 8), "float32", "x")
    assert "Word16" in statement(x[1:3]) and "Places<24, 1>" in statement(x[1:3])
    assert "uint64_t" in statement(x[..., 2:6]) and "x + 1" in statement(x[..., 2:6])
    assert "uint32_t" in statement(x[..., ::2])
    assert "transpose<32, 32, 64, 64, 32" in statement(ops.transpose(input_((32, 64), "float32", "y")))
    assert "transpose<64, 100, 64, 64, 100, Places<3, 6400>" in statement(
        ops.transpose(input_((3, 100, 64), "bool", "z"), (0, 2, 1))
    )
