"""Every op on the C backend: drawn cases, odd shapes, all dtypes, special values, empty arrays, and gradients.

Drawn cases are held to the error that the analysis derives; exact ops and special values to NumPy's own results.
"""

from __future__ import annotations

import pytest
from ops.cases import CASES

from backends.c_programs import backend, check, needs_compiler
from backends.op_graphs import all_ops, combined_conditions, compare_with_numpy, drawn, empty_arrays, long_rows
from minigraph.ir.types import DTYPES

pytestmark = needs_compiler


# --- drawn cases --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "optimize"), [("float32", True), ("float64", False)])
def test_every_op_is_within_its_bound(dtype: str, optimize: bool) -> None:
    names = sorted(CASES if dtype == "float64" else CASES.keys() - {"cast"})  # those casts are to float64
    made = drawn(names, range(2 * optimize, 2 * optimize + 2), dtype)
    check(made.graph, made.values, backend(), optimize)


@pytest.mark.parametrize("optimize", [False, True])
def test_every_gradient_is_within_its_bound(optimize: bool) -> None:
    made = drawn(sorted(CASES), range(optimize, optimize + 1), "float64", gradients=True)
    check(made.graph, made.values, backend(), optimize)


@pytest.mark.slow
@pytest.mark.parametrize("optimize", [False, True])
@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("part", range(8))
def test_every_op_is_within_its_bound_in_many_cases(part: int, gradients: bool, optimize: bool) -> None:
    made = drawn(sorted(CASES)[part::8], range(100, 116), "float64", gradients)
    check(made.graph, made.values, backend(quick=False), optimize)


# --- odd shapes, all dtypes, special values -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["bool", "int8", "int64", "float32"])
def test_odd_shapes_and_special_values(dtype: str) -> None:
    compare_with_numpy(all_ops(dtype), backend(), optimize=dtype in ("bool", "int8", "float32"))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", list(DTYPES))
def test_odd_shapes_and_special_values_of_all_dtypes(dtype: str) -> None:
    compare_with_numpy(all_ops(dtype), backend(quick=False), True)


def test_conditions_are_combined_within_a_loop_of_vectors() -> None:
    compare_with_numpy(combined_conditions(), backend(), True)


# --- empty arrays, long rows, many threads ---------------------------------------------------------------------------


@pytest.mark.parametrize("optimize", [False, True])
def test_empty_arrays(optimize: bool) -> None:
    compare_with_numpy(empty_arrays(), backend(), optimize)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_long_rows_on_some_threads(threads: int) -> None:
    made = long_rows(rows=16, columns=21)
    check(made.graph, made.values, backend(threads), optimize=True)


@pytest.mark.slow
@pytest.mark.parametrize("columns", [1, 3, 15, 16, 17, 64, 130])
@pytest.mark.parametrize("optimize", [False, True])
def test_rows_of_any_length(columns: int, optimize: bool) -> None:
    made = long_rows(rows=9, columns=columns)
    check(made.graph, made.values, backend(3, quick=False), optimize)
