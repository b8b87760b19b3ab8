"""Winograd's algorithm against plain sums in float64: every edge of a tile, every way of cutting the work."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minigraph import ops
from minigraph.backends.geometry import Geometry
from minigraph.backends.numpy import NumpyBackend, threads, winograd
from minigraph.errors import ArgumentError
from minigraph.ir import Node, variable
from minigraph.ops.conv import Conv2D, Conv2DKernelAdjoint, Conv2DTranspose
from minigraph.runtime import State, compile

Array = np.ndarray[Any, Any]
C = winograd.FEWEST_CHANNELS

# (images, height, width), padding: whole tiles, tiles that hang over by 1 to 3, one image, few rows, no padding.
CASES = {
    "whole tiles": ((8, 8, 8), "same"),
    "one over": ((5, 9, 13), "same"),
    "two over": ((4, 14, 10), "same"),
    "three over": ((2, 15, 7), "same"),
    "one image": ((1, 33, 17), "same"),
    "valid": ((3, 14, 14), "valid"),
    "uneven": ((2, 12, 11), ((2, 0), (0, 1))),
    "wide": ((1, 5, 100), "same"),
}


def node_of(kind: type, images: tuple[int, int, int], padding: Any, dtype: str) -> tuple[Node, dict[str, Array]]:
    """Return one of the three ops over two variables, and numbers for them."""
    rng = np.random.default_rng(7)
    x = variable((*images, C), name="x", dtype=dtype)
    w = variable((3, 3, C, C), name="w", dtype=dtype)
    y = ops.conv2d(x, w, padding=padding)
    e = variable(y.shape, name="e", dtype=dtype)
    if kind is Conv2D:
        node = y
    elif kind is Conv2DTranspose:
        node = Node(Conv2DTranspose(padding=padding, output_size=images[1:]), (e, w))
    else:
        node = Node(Conv2DKernelAdjoint(padding=padding, kernel_size=(3, 3)), (x, e))
    return node, {v.op.label: rng.standard_normal(v.shape).astype(dtype) for v in node.inputs}  # type: ignore[arg-type,attr-defined]


def run(kind: type, images: tuple[int, int, int], padding: Any, dtype: str, backend: NumpyBackend) -> Array:
    node, values = node_of(kind, images, padding, dtype)
    return compile({"y": node}, backend=backend)(State(values))["y"]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("kind", [Conv2D, Conv2DTranspose, Conv2DKernelAdjoint])
@pytest.mark.parametrize(("images", "padding"), CASES.values(), ids=list(CASES))
def test_it_agrees_with_plain_sums(images: Any, padding: Any, kind: type, workers: int) -> None:
    node, _ = node_of(kind, images, padding, "float32")
    geometry = Geometry.of_node(node)
    assert winograd.applies(geometry), "the case tests nothing"
    want = run(kind, images, padding, "float64", NumpyBackend())
    fast = run(kind, images, padding, "float32", NumpyBackend(workers))
    exact = run(kind, images, padding, "float32", NumpyBackend(workers, precision="exact"))
    spread = want.std()
    assert np.abs(exact - want).max() < 1e-5 * spread
    assert np.abs(fast - want).max() < 1e-4 * spread
    assert (fast != exact).any(), "the algorithm was not used"


def test_the_transforms_are_the_algorithm() -> None:
    """One tile by the formula, in float64: the product of two polynomials, whatever the numbers are."""
    rng = np.random.default_rng(0)
    tile, kernel = rng.standard_normal((6, 6)), rng.standard_normal((3, 3))
    inner = (winograd._INPUT @ tile @ winograd._INPUT.T) * (winograd._KERNEL @ kernel @ winograd._KERNEL.T)
    got = winograd._OUTPUT @ inner @ winograd._OUTPUT.T
    want = [[(tile[i : i + 3, j : j + 3] * kernel).sum() for j in range(4)] for i in range(4)]
    np.testing.assert_allclose(got, want, rtol=1e-13, atol=1e-13)


def test_exact_never_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("used")

    monkeypatch.setattr(winograd, "forward", fail)
    monkeypatch.setattr(winograd, "kernel_adjoint", fail)
    for kind in (Conv2D, Conv2DTranspose, Conv2DKernelAdjoint):
        run(kind, (8, 8, 8), "same", "float32", NumpyBackend(precision="exact"))
        run(kind, (8, 8, 8), "same", "float64", NumpyBackend())
        with pytest.raises(AssertionError, match="used"):
            run(kind, (8, 8, 8), "same", "float32", NumpyBackend())


def test_precision_has_two_values() -> None:
    with pytest.raises(ArgumentError, match="precision"):
        NumpyBackend(precision="half")


def test_a_constant_kernel_is_transformed_once_and_a_variable_one_at_each_call() -> None:
    rng = np.random.default_rng(3)
    x, values = variable((2, 16, 16, C), name="x"), rng.standard_normal((3, 3, C, C)).astype(np.float32)
    w = variable(values.shape, name="w")
    images = rng.standard_normal(x.shape).astype(np.float32)  # type: ignore[arg-type]
    state = State({"x": images, "w": values})
    moving, fixed = (
        compile({"y": ops.conv2d(x, w, padding="same")}),
        compile({"y": ops.conv2d(x, ops.constant(values), padding="same")}),
    )
    np.testing.assert_allclose(moving(state)["y"], fixed(state)["y"], rtol=1e-4, atol=1e-4)
    before = fixed(state)["y"]
    state["w"] = 2 * values
    np.testing.assert_allclose(moving(state)["y"], 2 * before, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(fixed(state)["y"], before)


@pytest.mark.parametrize("processors", [1, 3, 8])
def test_scratch_memory_suffices_on_any_machine(processors: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "available", lambda: processors)
    for images, padding in CASES.values():
        for kind in (Conv2D, Conv2DTranspose, Conv2DKernelAdjoint):
            want = run(kind, images, padding, "float32", NumpyBackend(1, precision="exact"))
            got = run(kind, images, padding, "float32", NumpyBackend(2))
            np.testing.assert_allclose(got, want, atol=2e-4 * want.std())
