"""Convolutions, their adjoints and matrix products on the GPU backend: numbers, algorithms, slices, workspaces."""

from __future__ import annotations

import itertools
import pathlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.cupy_convolutions import (
    KINDS,
    Case,
    convolution,
    device,
    drawn,
    fused,
    names,
    needs_compiler,
    own_plans,
    results,
)
from backends.nvcc import assembled, needs_nvcc
from minigraph.backends.cupy import im2col, products
from minigraph.backends.cupy.convolution import convolution_code
from minigraph.backends.cupy.epilogue import Epilogue
from minigraph.backends.cupy.source import Source
from minigraph.backends.cupy.steps import Launch
from minigraph.backends.geometry import Geometry
from minigraph.ir import Node, variable
from minigraph.ops.conv import Conv2D, Conv2DKernelAdjoint, Conv2DTranspose
from minigraph.ops.linalg import MatMul

__all__ = ["own_plans"]  # a fixture that every test here has
pytestmark = needs_compiler
# images, output channels, kernel, what else: strides, dilations, odd paddings, groups, channels that fill no access
WINDOWS: list[tuple[Any, int, Any, dict[str, Any]]] = [
    ((2, 7, 6, 4), 8, (3, 3), {"padding": "same"}),
    ((2, 8, 8, 3), 6, (3, 3), {"padding": "same", "strides": 2}),
    ((1, 9, 7, 4), 4, (3, 2), {"padding": ((1, 2), (0, 1)), "dilations": (2, 1), "strides": (1, 2), "groups": 2}),
    ((2, 5, 5, 1), 3, (2, 2), {"strides": (3, 2)}),
    ((3, 5, 5, 8), 8, (1, 1), {}),
    ((3, 5, 5, 8), 4, (1, 1), {"groups": 2}),
    ((2, 6, 5, 4), 2, (1, 1), {"strides": 2, "padding": 1}),
    ((2, 6, 6, 8), 8, (3, 3), {"padding": "same", "groups": 8, "strides": 2}),
    ((1, 5, 9, 3), 3, (2, 3), {"padding": ((0, 1), (2, 0)), "groups": 3, "dilations": 2}),
    ((2, 6, 6, 4), 8, (3, 3), {"groups": 4}),
]
DTYPES = ("float32", "bfloat16", "float16", "float64")


def every(dtypes: tuple[str, ...] = DTYPES) -> list[Case]:
    """Return all windows for each of the three ops, dtypes by turns."""
    pairs = enumerate(itertools.product(WINDOWS, KINDS))
    return [convolution(kind, *window[:3], dtypes[n % len(dtypes)], **window[3]) for n, (window, kind) in pairs]


# --- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frontend", [True, False], ids=["cudnn", "im2col"])
def test_convolutions_are_within_rounding(frontend: bool) -> None:
    cases = every()
    with device(frontend=frontend) as (gpu, _):
        for case, got in zip(cases, results(cases, gpu), strict=True):
            case.check(got)


@pytest.mark.slow
@pytest.mark.parametrize("backwards", [True, False])
@pytest.mark.parametrize("frontend", [True, False], ids=["cudnn", "im2col"])
def test_every_dtype_is_within_rounding_in_any_order_of_threads(frontend: bool, backwards: bool) -> None:
    cases = [case for dtype in DTYPES for case in every((dtype,))]
    with device(frontend=frontend, backwards=backwards) as (gpu, _):
        for case, got in zip(cases, results(cases, gpu), strict=True):
            case.check(got)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_drawn_convolutions_are_within_rounding(data: st.DataObject) -> None:
    whole = st.integers(1, 3)
    groups = data.draw(st.sampled_from([1, 1, 2, 4]))
    into, out = groups * data.draw(whole), groups * data.draw(whole)
    kernel, strides, dilations = (data.draw(st.tuples(whole, whole)) for _ in range(3))
    pads = data.draw(st.one_of(st.just("same"), st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 2)))
    images = (data.draw(whole), data.draw(st.integers(7, 12)), data.draw(st.integers(7, 12)), into)
    kind, dtype = data.draw(st.sampled_from(KINDS)), data.draw(st.sampled_from(DTYPES))
    case = convolution(
        kind, images, out, kernel, dtype, strides=strides, dilations=dilations, padding=pads, groups=groups
    )
    options = {"workspace": data.draw(st.sampled_from([1, 2000, 1 << 30]))}
    with device(frontend=data.draw(st.booleans()), **options) as (gpu, _):
        case.check(results([case], gpu)[0])


EPILOGUES = [
    dict(zip(("bias", "residual", "relu"), flags, strict=True)) for flags in itertools.product((0, 1), repeat=3)
][1:]


def test_epilogues_are_within_rounding() -> None:
    dense = [
        fused(convolution(Conv2D, (2, 6, 6, 4), 8, (3, 3), dtype, padding="same"), **flags)
        for dtype, flags in zip(itertools.cycle(DTYPES[:3]), EPILOGUES, strict=False)
    ]
    depthwise = [
        fused(convolution(Conv2D, (2, 6, 6, 8), 8, (3, 3), dtype, padding="same", groups=8), **flags)
        for dtype, flags in zip(itertools.cycle(DTYPES), EPILOGUES, strict=False)
    ]
    with device() as (gpu, _):
        for case, got in zip([*dense, *depthwise], results([*dense, *depthwise], gpu), strict=True):
            case.check(got)


def test_an_epilogue_that_no_library_has_is_refused() -> None:
    case = convolution(Conv2D, (2, 6, 6, 4), 8, (3, 3))
    double = convolution(Conv2D, (2, 6, 6, 4), 8, (3, 3), "float64")
    with device(frontend=False) as (gpu, _):
        assert convolution_code(case.node, (0, 1, 2), Epilogue(relu=True), gpu, 0) is None
    with device() as (gpu, _):
        assert convolution_code(case.node, (0, 1, 2), Epilogue(relu=True), gpu, 0) is not None
        assert convolution_code(double.node, (0, 1, 2), Epilogue(relu=True), gpu, 0) is None


def test_tf32_rounds_operands_and_float32_does_not() -> None:
    cases = [convolution(kind, (2, 6, 6, 4), 8, (3, 3), padding="same") for kind in KINDS]
    cases += [convolution(kind, (2, 6, 6, 4), 8, (1, 1)) for kind in KINDS]
    with device(precision="tf32") as (gpu, _):
        found = results(cases, gpu)
    for case, got in zip(cases, found, strict=True):
        case.check(got, slack=2.0**-10)
        with pytest.raises(AssertionError):
            case.check(got)


# --- algorithms -------------------------------------------------------------------------------------------------------


def test_each_convolution_has_its_algorithm() -> None:
    dense = {kind: convolution(kind, (2, 6, 6, 4), 8, (3, 3)) for kind in KINDS}
    with device() as (gpu, _):
        assert names(dense[Conv2D], gpu) == ["pack", "conv2d"]
        assert names(dense[Conv2DTranspose], gpu) == ["pack", "conv2d_transpose"]
        assert names(dense[Conv2DKernelAdjoint], gpu) == ["conv2d_kernel_adjoint", "unpack"]
        for kind in KINDS:
            assert names(convolution(kind, (2, 6, 6, 4), 8, (1, 1)), gpu) == ["convolution"]
        assert names(convolution(Conv2D, (2, 6, 6, 4), 4, (3, 3), groups=4), gpu) == ["depthwise"]
        assert names(convolution(Conv2D, (2, 6, 6, 4), 1, (3, 3)), gpu) == ["conv2d"]  # nothing to pack
        assert names(convolution(Conv2D, (2, 6, 6, 4), 8, (3, 3), "float64"), gpu) == ["im2col", "convolution"]
    with device(frontend=False) as (gpu, _):
        assert names(dense[Conv2D], gpu) == ["im2col", "convolution"]
        assert names(dense[Conv2DTranspose], gpu) == ["convolution", "col2im"]
        assert names(dense[Conv2DKernelAdjoint], gpu) == ["im2col", "convolution"]


def test_windows_are_sliced_where_the_workspace_is_small() -> None:
    images = (3, 9, 8, 4)
    row = 9 * 9 * 4 * 6 * 4  # bytes of a row of windows: 6 of them, 9 taps, 4 channels
    sizes = (row // 9 * 2, row // 9 * 8, row // 9 * 15)
    for bytes_ in sizes:
        cases = [
            convolution(kind, images, 6, (3, 3), dtype, padding=((1, 0), (0, 0)), strides=(s, 1))
            for kind in KINDS
            for dtype, s in (("float32", 1), ("float16", 2))
        ]
        with device(frontend=False, workspace=bytes_) as (gpu, _):
            for case, got in zip(cases, results(cases, gpu), strict=True):
                case.check(got)
                _, workspace = case.code(gpu)
                assert workspace <= max(bytes_, 2 * row // 9) + (1 << 11), "the matrix takes more than it may"


@pytest.mark.parametrize("most", [1, 3000, 10_000, 1 << 30])
def test_slices_cover_each_window_once(most: int) -> None:
    node = convolution(Conv2D, (4, 11, 9, 5), 6, (3, 3), padding="same", strides=(2, 1)).node
    g = Geometry.of_node(node)
    rows = [
        (s.image + i, s.first + r)
        for s in im2col.by_windows(g, most, 4)
        for i in range(s.images)
        for r in range(s.rows)
    ]
    assert sorted(rows) == list(itertools.product(range(4), range(6)))
    places = [
        (s.image + i, s.top + r)
        for s in im2col.by_image_rows(g, most, 4)
        for i in range(s.images)
        for r in range(s.height)
    ]
    assert sorted(places) == list(itertools.product(range(4), range(11)))


def test_the_result_may_lie_in_the_workspace_before_the_scratch() -> None:
    case = convolution(Conv2D, (2, 6, 6, 4), 8, (3, 3))
    for frontend in (True, False):
        with device(frontend=frontend) as (gpu, _):
            actions, workspace = convolution_code(case.node, (0, 1, -1), Epilogue(), gpu, 4096)
            assert workspace > 0
            for action in actions:
                if isinstance(action, Launch):
                    assert all(p.offset >= 4096 for p in action.parameters if p.place == -1)
            beyond, same = convolution_code(case.node, (0, 1, 2), Epilogue(), gpu, 0)
            assert same == workspace and len(beyond) == len(actions)


def test_nothing_is_allocated_or_built_while_a_graph_is_captured() -> None:
    cases = [convolution(kind, (2, 6, 6, 4), 8, size) for kind in KINDS for size in ((3, 3), (1, 1))]
    with device() as (gpu, log):
        found = results(cases, gpu, captured=True)
        assert {r.kind for r in log.log if r.how == "captured"} == {"kernel", "library"}
    for case, got in zip(cases, found, strict=True):
        case.check(got)


# --- products ---------------------------------------------------------------------------------------------------------


def product(
    x: tuple[int, ...], y: tuple[int, ...], dtype: str = "float32", turns: tuple[bool, bool] = (False, False)
) -> Case:
    node = Node(MatMul(*turns), (variable(x, dtype=dtype, name="x"), variable(y, dtype=dtype, name="y")))
    return Case(node, [drawn(x, dtype), drawn(y, dtype, 1)])


BATCHES = [
    ((), ()),
    ((3,), (3,)),
    ((3,), ()),
    ((), (3,)),
    ((2, 3), (3,)),
    ((2, 1), (1, 3)),
    ((2, 3, 4), (2, 1, 4)),
    ((1,), (5,)),
]


def test_products_are_within_rounding() -> None:
    cases = []
    for n, (turns, (left, right)) in enumerate(itertools.product(itertools.product((False, True), repeat=2), BATCHES)):
        x, y = ((5, 4)[:: -1 if turns[0] else 1]), ((4, 7)[:: -1 if turns[1] else 1])
        cases.append(product((*left, *x), (*right, *y), DTYPES[n % 4], turns))
    with device() as (gpu, _):
        for case, got in zip(cases, results(cases, gpu), strict=True):
            case.check(got)


def test_products_of_whole_numbers_wrap_as_numpys_do() -> None:
    cases = [
        product((2, 3, 4), (4, 5), "int8"), product((3, 4), (2, 1, 4, 5), "int64"),
        product((4, 3), (5, 4), "uint16", (True, True)), product((6, 4), (4, 6), "bool"),
    ]  # fmt: skip
    with device() as (gpu, _):
        for case, got in zip(cases, results(cases, gpu), strict=True):
            op: Any = case.node.op
            x, y = (
                a.swapaxes(-1, -2) if turned else a
                for a, turned in zip(case.operands, (op.transpose_x, op.transpose_y), strict=True)
            )
            np.testing.assert_array_equal(got, np.matmul(x, y))


def test_a_batch_is_as_few_calls_as_strides_allow() -> None:
    expected = {((4, 5, 6), (6, 7)): (1, 1), ((4, 5, 6), (4, 6, 7)): (1, 4), ((2, 3, 5, 6), (3, 6, 7)): (2, 3)}
    with device() as (gpu, _):
        for (x, y), (calls, batch) in expected.items():
            actions, workspace = product(x, y).code(gpu)
            assert workspace == 0
            assert (len(actions), actions[0].batch) == (calls, batch)


@pytest.mark.slow
@needs_nvcc
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_nvcc_compiles_all_kernels_without_spills(architecture: str, tmp_path: pathlib.Path) -> None:
    source = Source()
    for frontend in (True, False):
        with device(frontend=frontend) as (gpu, _):
            cases = [case for dtype in DTYPES for case in every((dtype,))] + [product((3, 4), (4, 5), "int8")]
            for action in (a for case in cases for a in case.code(gpu)[0]):
                if isinstance(action, Launch):
                    source.add(action)
    report = assembled(str(source), tmp_path, "-cubin", f"-arch={architecture}")
    assert report.count("0 bytes spill stores, 0 bytes spill loads") == len(source.kernels)


def test_types_are_numbered_as_cuda_numbers_them() -> None:
    cublas = pytest.importorskip("cupy_backends.cuda.libs.cublas")
    runtime = pytest.importorskip("cupy.cuda.runtime")
    assert products._COMPUTE_32F == cublas.CUBLAS_COMPUTE_32F and products._COMPUTE_64F == cublas.CUBLAS_COMPUTE_64F
    assert products._COMPUTE_TF32 == cublas.CUBLAS_COMPUTE_32F_FAST_TF32 and cublas.CUBLAS_GEMM_DEFAULT == -1
    assert cublas.CUBLAS_OP_N == products._PLAIN and cublas.CUBLAS_OP_T == products._TRANSPOSED
    numbers = {"float32": "32F", "float64": "64F", "float16": "16F", "bfloat16": "16BF"}
    assert {dtype: getattr(runtime, f"CUDA_R_{name}") for dtype, name in numbers.items()} == products._TYPES
