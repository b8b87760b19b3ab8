"""The C++ kernels of the first layer: one channel, 3×3."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigraph.backends.c import stem
from minigraph.backends.geometry import Geometry
from tests.backends import c_kernels as ck

pytestmark = ck.needs_compiler

KINDS = {"forward": stem.FORWARD[0], "kernel_adjoint": stem.KERNEL_ADJOINT[0]}


@st.composite
def geometries(draw: Any) -> Geometry:
    sizes = draw(st.tuples(st.integers(1, 6), st.integers(1, 11), st.integers(1, 11)))
    pads = st.tuples(st.integers(1, 3), st.integers(1, 3))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    outputs = draw(st.sampled_from([16, 32, 48, 80]))
    return ck.geometry((*sizes, 1), outputs, (3, 3), padding=draw(st.tuples(pads, pads)), dtype=dtype)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(g=geometries(), threads=st.integers(1, 3))
def test_any_size_and_padding(kind: str, g: Geometry, threads: int) -> None:
    ck.check(kind, KINDS[kind], g, threads)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [(64, 28, 28), (1, 100, 3), (3, 2, 300)])
def test_many_lines(kind: str, sizes: tuple[int, int, int]) -> None:
    ck.check(kind, KINDS[kind], ck.geometry((*sizes, 1), 32, (3, 3), padding="same"), 2)


@pytest.mark.parametrize(
    "g",
    [
        ck.geometry((2, 8, 8, 3), 16, (3, 3)),
        ck.geometry((2, 8, 8, 1), 10, (3, 3)),
        ck.geometry((2, 8, 8, 1), 16, (5, 5)),
        ck.geometry((2, 8, 8, 1), 16, (3, 3), (2, 2)),
        ck.geometry((2, 8, 8, 1), 16, (3, 3), dilations=(2, 2)),
    ],
    ids=["channels", "columns", "size", "strides", "dilations"],
)
def test_other_geometries_are_left_to_others(g: Geometry) -> None:
    assert not stem.FORWARD[0].applies(g) and not stem.KERNEL_ADJOINT[0].applies(g)
