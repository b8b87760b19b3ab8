"""Every op on a GPU: drawn cases, gradients, odd shapes, all dtypes, special values, empty arrays, long rows."""

from __future__ import annotations

import pytest
from backends.op_graphs import all_ops, combined_conditions, compare_with_numpy, drawn, empty_arrays, long_rows
from backends.programs import check
from ops.cases import CASES

from gpu.places import Place, everywhere, slow_elsewhere
from minigraph.ir.types import DTYPES

# A few of each kind: what the default suite has the time to compile.
SOME = ("add", "gather", "log_softmax", "matmul", "conv2d", "max_pool2d", "moments", "transpose", "sum")
PARTS = 8


@everywhere
def test_some_ops_are_within_their_bounds(gpu: Place) -> None:
    made = drawn(SOME, range(1), "float32")
    check(made.graph, made.values, gpu.backend(), optimize=True)


@slow_elsewhere
@pytest.mark.parametrize("gradients", [False, True], ids=["value", "gradient"])
@pytest.mark.parametrize("optimize", [False, True], ids=["alone", "grouped"])
@pytest.mark.parametrize("part", range(PARTS))
def test_every_op_is_within_its_bound(gpu: Place, part: int, gradients: bool, optimize: bool) -> None:
    names = sorted(CASES)[part::PARTS]
    made = drawn(names, range(100, 100 + gpu.few(16, 1)), "float64", gradients)
    check(made.graph, made.values, gpu.backend(), optimize)


@slow_elsewhere
@pytest.mark.parametrize("part", range(PARTS))
def test_every_op_in_float32(gpu: Place, part: int) -> None:
    names = sorted(CASES.keys() - {"cast"})[part::PARTS]  # those casts are to float64
    made = drawn(names, range(gpu.few(8, 1)), "float32")
    check(made.graph, made.values, gpu.backend(), optimize=True)


@slow_elsewhere
@pytest.mark.parametrize("optimize", [False, True], ids=["alone", "grouped"])
@pytest.mark.parametrize("dtype", list(DTYPES))
def test_odd_shapes_and_special_values(gpu: Place, dtype: str, optimize: bool) -> None:
    compare_with_numpy(all_ops(dtype), gpu.backend(), optimize)


@slow_elsewhere
@pytest.mark.parametrize("optimize", [False, True], ids=["alone", "grouped"])
def test_conditions_and_empty_arrays(gpu: Place, optimize: bool) -> None:
    compare_with_numpy(combined_conditions(), gpu.backend(), optimize)
    compare_with_numpy(empty_arrays(), gpu.backend(), optimize)


@slow_elsewhere
@pytest.mark.parametrize("columns", [1, 3, 16, 17, 64, 130])
def test_rows_of_any_length(gpu: Place, columns: int) -> None:
    made = long_rows(gpu.few(33, 3), columns)
    check(made.graph, made.values, gpu.backend(), optimize=True)
