"""Winograd's convolutions in C++: against the definition, within their bound of rounding errors, and what they cost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigraph.backends.c import direct, winograd
from minigraph.backends.geometry import Geometry
from tests.backends import c_kernels as ck

KINDS = {"forward": winograd.FORWARD, "transpose": winograd.TRANSPOSE, "kernel_adjoint": winograd.KERNEL_ADJOINT}
ALGORITHMS = {a.name: (kind, a) for kind, algorithms in KINDS.items() for a in algorithms}
THREADS = (1, 2, 3)

# F(2x2) shares its code with F(4x4): it is compiled for one type only, to save time.
COMPILED = [(name, np.float64) for name in ALGORITHMS] + [(name, np.float32) for name in ALGORITHMS if "2" not in name]


def operands(kind: str, g: Geometry, seed: int = 0) -> tuple[ck.Array, ck.Array]:
    random = np.random.default_rng(seed)
    shapes = {"forward": (g.images, ck.kernel_shape(g)), "transpose": (g.outputs, ck.kernel_shape(g)),
              "kernel_adjoint": (g.images, g.outputs)}[kind]  # fmt: skip
    first, second = (random.standard_normal(shape).astype(f"f{g.itemsize}") for shape in shapes)
    return first, second


def widened(images: ck.Array, reach: int) -> ck.Array:
    """Return the largest of |x| within so many pixels of each."""
    result = np.abs(images)
    for axis in (1, 2):
        length = result.shape[axis]
        padded = np.pad(result, [(reach, reach) if i == axis else (0, 0) for i in range(4)])
        result = np.max([padded.take(range(i, i + length), axis) for i in range(2 * reach + 1)], axis=0)
    return result


def bound(name: str, g: Geometry, first: ck.Array, second: ck.Array) -> ck.Array:
    """Return what `error_growth` says for every element."""
    kind = ALGORITHMS[name][0]
    terms = {"forward": g.images[3], "transpose": g.outputs[3]}.get(kind, int(np.prod(g.outputs[:3])))
    roundings = (terms + winograd.ROUNDINGS) * np.finfo(first.dtype).eps / 2
    reach = 3 if "2" in name else 5
    (top, bottom), (left, right) = ((2, 2), (2, 2)) if kind == "transpose" else g.pads
    # The padding is widened too, as part of the images.
    padded = widened(np.pad(first, ((0, 0), (top, bottom), (left, right), (0, 0))), reach)
    if kind == "transpose":
        (n, height, width, channels), (top, left) = padded.shape, (2 + pad[0] for pad in g.pads)
        whole = ck.geometry((n, height + 2, width + 2, g.images[3]), channels, (3, 3))
        sums = ck.expected(kind, whole, padded, np.abs(second))[:, top : top + g.images[1], left : left + g.images[2]]
    else:
        sums = ck.expected(kind, ck.geometry(padded.shape, g.outputs[3], (3, 3)), padded, np.abs(second))
    return winograd.error_growth(name) * roundings / (1 - roundings) * sums


def check(name: str, g: Geometry, threads: int) -> None:
    kind, algorithm = ALGORITHMS[name]
    first, second = operands(kind, g)
    expected = ck.expected(kind, g, first, second)
    result = ck.convolution(algorithm, g, first, second, expected.shape, threads)
    error = np.abs(result - expected)
    assert error.max() <= (1e-10 if g.itemsize == 8 else 1e-3), f"{name}: {error.max():.2g} for {g}"


@st.composite
def geometries(draw: Any, dtype: Any) -> Geometry:
    """Draw a small 3×3 convolution of any padding up to 2, whose sizes leave all remainders."""
    pads = st.tuples(st.integers(0, 2), st.integers(0, 2))
    padding = draw(st.tuples(pads, pads))
    height, width = (draw(st.integers(max(1, 3 - sum(p)), 13)) for p in padding)
    channels = st.sampled_from([1, 3, 8, 15, 16, 17, 31, 32, 33, 40, 70])
    return ck.geometry((draw(st.integers(1, 3)), height, width, draw(channels)), draw(channels), (3, 3),
                       padding=padding, dtype=dtype)  # fmt: skip


@ck.needs_compiler
@pytest.mark.parametrize(("name", "dtype"), COMPILED)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_geometry(name: str, dtype: Any, data: st.DataObject) -> None:
    check(name, data.draw(geometries(dtype)), data.draw(st.sampled_from(THREADS)))


# What small random geometries do not reach: several chunks, threads by squares and by panels or channels, sums at once
# and sums of several chunks.
LARGE = [
    ck.geometry((2, 30, 41, 16), 40, (3, 3), padding="same"),
    ck.geometry((5, 14, 14, 72), 33, (3, 3), padding="same"),
    ck.geometry((1, 9, 9, 300), 200, (3, 3), padding="same"),
    ck.geometry((9, 17, 16, 200), 170, (3, 3), padding="valid"),
    ck.geometry((2, 3, 160, 8), 100, (3, 3), padding=((1, 0), (2, 2))),
]


@ck.needs_compiler
@pytest.mark.parametrize("name", [name for name in ALGORITHMS if "2" not in name])
def test_large_geometries(name: str) -> None:
    for g in LARGE:
        for threads in THREADS:
            check(name, g, threads)


@ck.needs_compiler
@pytest.mark.parametrize("name", [name for name in ALGORITHMS if "2" not in name])
def test_results_do_not_depend_on_chance(name: str) -> None:
    kind, algorithm = ALGORITHMS[name]
    for g in LARGE[:2]:
        first, second = operands(kind, g)
        shape = ck.expected(kind, g, first, second).shape
        runs = [ck.convolution(algorithm, g, first, second, shape, 3) for _ in range(3)]
        assert all(np.array_equal(run, runs[0]) for run in runs)


@ck.needs_compiler
@pytest.mark.parametrize(("name", "dtype"), COMPILED)
@pytest.mark.parametrize("spikes", [False, True])
def test_errors_keep_within_their_bound(name: str, dtype: Any, spikes: bool) -> None:
    kind, algorithm = ALGORITHMS[name]
    g = ck.geometry((2, 13, 10, 24), 20, (3, 3), padding=((1, 0), (2, 1)), dtype=dtype)
    first, second = operands(kind, g, seed=1)
    if spikes:  # a large pixel's errors fall on its neighbours, whose own sums are small
        first = np.where(np.random.default_rng(2).random(first.shape) < 0.02, 1e4 * first, first).astype(dtype)
    expected = ck.expected(kind, g, first, second)
    error = np.abs(ck.convolution(algorithm, g, first, second, expected.shape) - expected)
    assert (error <= bound(name, g, first, second)).all()
    if spikes and dtype == np.float32 and kind == "forward":
        definition = g.depth * np.finfo(dtype).eps * ck.expected(kind, g, np.abs(first), np.abs(second))
        assert (error > definition).any(), "the definition's bound is enough"


@ck.needs_compiler
def test_nan_and_infinity_stay_in_their_square() -> None:
    g = ck.geometry((1, 16, 16, 16), 16, (3, 3), padding="same")
    x, kernel = operands("forward", g)
    x[0, 0, 0, 3], x[0, 15, 15, 2] = np.nan, np.inf
    y = ck.convolution(winograd.FORWARD[0], g, x, kernel, g.outputs)
    assert np.isnan(y[0, 0, 0]).all()
    assert not np.isfinite(y[0, 15, 15]).any()
    assert np.isfinite(y[0, 4:12, 4:12]).all()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, True),
        ({"kernel": (3, 1)}, False),
        ({"strides": (2, 1)}, False),
        ({"dilations": (1, 2)}, False),
        ({"groups": 2}, False),
        ({"padding": 2}, True),
        ({"padding": ((0, 0), (0, 3))}, False),
    ],
)
def test_where_they_apply(options: dict[str, Any], expected: bool) -> None:
    g = ck.geometry((2, 8, 8, 4), 4, **({"kernel": (3, 3)} | options))
    assert all(a.applies(g) is expected for _, a in ALGORITHMS.values())


@pytest.mark.parametrize(
    ("images", "outputs", "threads", "expected"),
    [
        ((8, 56, 56, 64), 64, 2, "winograd4"),
        ((1, 14, 14, 256), 256, 2, "winograd4"),
        ((32, 8, 8, 16), 32, 1, "winograd4"),
        ((64, 2, 2, 64), 64, 1, "winograd2"),  # a square of 4x4 would be mostly empty
        ((1, 2, 2, 64), 64, 1, "direct"),
        ((1, 1, 1, 8), 8, 1, "direct"),
    ],
)
def test_which_is_fastest(images: Any, outputs: int, threads: int, expected: str) -> None:
    g = ck.geometry(images, outputs, (3, 3), padding="same")
    candidates = [a for a in direct.FORWARD + winograd.FORWARD if a.name in ("direct", "winograd2", "winograd4")]
    assert min(candidates, key=lambda a: a.seconds(g, threads)).name == expected


def test_a_large_kernel_that_changes_is_streamed() -> None:
    g = ck.geometry((32, 4, 4, 512), 512, (3, 3), padding="same")
    stored, streamed, _ = winograd.FORWARD
    once = stored.seconds(g, 2)
    assert once < streamed.seconds(g, 2) < once + winograd.pack_seconds(stored, g, 2)
    assert winograd.pack_seconds(streamed, g, 2) == 0.0
    assert stored.packed(g) * 4 > 37e6
    assert streamed.packed(g) == 0
    assert streamed.scratch(g, 2) < 12e6


def test_kernel_gradients_need_little_memory() -> None:
    for images in ((32, 32, 32, 64), (32, 16, 16, 128), (32, 8, 8, 256), (32, 4, 4, 512)):
        g = ck.geometry(images, images[3], (3, 3), padding="same")
        assert winograd.KERNEL_ADJOINT[0].scratch(g, 2) < 12e6
