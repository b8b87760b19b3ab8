"""What moves elements on the C backend gives NumPy's very bits; and which ops are left to NumPy at all."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from ops.cases import CASES, draw

from backends.c_programs import Array, backend, needs_compiler, on_numpy, run
from minigraph import ops
from minigraph.backends.c.movement import joined, strides
from minigraph.ir import Graph, Node
from minigraph.ir.leaves import input as input_
from minigraph.ops.indexing import SliceAdjoint
from minigraph.runtime import compile

pytestmark = needs_compiler


def same_bits(outputs: dict[str, Node], inputs: Sequence[Node], values: dict[str, Array], threads: int = 3) -> None:
    """Assert that both backends give the same bits, and that NumPy had no part in it on this one."""
    graph = Graph(outputs, inputs=inputs)
    program = compile(graph, backend=backend(threads), optimize=False)
    got = run(program, values)
    expected = run(compile(graph, optimize=False), values)
    for name, array in expected.items():
        assert (got[name].dtype, got[name].shape) == (array.dtype, array.shape), name
        assert got[name].tobytes() == array.tobytes(), name
    assert not on_numpy(program)


def numbered(shape: Sequence[int], dtype: str) -> Array:
    """Return different numbers, as far as a dtype goes."""
    return np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "bool", "int16", "int64"])
def test_elements_are_moved_as_numpy_does(dtype: str) -> None:
    x = input_((3, 20, 5, 33), dtype, "x")
    outputs = {}
    for axes in [(0, 1, 2, 3), (3, 2, 1, 0), (0, 3, 1, 2), (0, 2, 3, 1), (1, 0, 2, 3), (2, 3, 0, 1), (0, 1, 3, 2)]:
        outputs[f"transpose {axes}"] = ops.transpose(x, axes)
    taken = [
        np.s_[1],
        np.s_[:, 3:17:4],
        np.s_[..., ::-1],
        np.s_[::-2, ::-3, ::2, 5:],
        np.s_[:, :, 2:3],
        np.s_[2:0:-1, 4:4],
    ]
    for i, index in enumerate(taken):
        outputs[f"slice {i}"] = x[index]
    for i, padding in enumerate([[(0, 0), (1, 1), (1, 1), (0, 0)], [(2, 0), (0, 0), (0, 3), (1, 4)]]):
        outputs[f"pad {i}"] = ops.pad(x, padding, 1.0)
    for axis in range(4):
        outputs[f"concat {axis}"] = ops.concat([x, x[(slice(None),) * axis + (slice(1, None),)], x], axis)
        size = x.shape[axis]
        outputs |= {f"split {axis}, {i}": y for i, y in enumerate(ops.split(x, [1, size - 3, 2], axis))}  # type: ignore[operator]
    adjoint = SliceAdjoint((7, 41, 5, 40), (6, 1, 0, 39), (-3, 2, 1, -1))
    outputs["slice_adjoint"] = Node(adjoint, (x,))
    same_bits(outputs, [x], {"x": numbered((3, 20, 5, 33), dtype)})


def test_special_numbers_are_moved_and_filled_in() -> None:
    x = input_((4,), name="x")
    special = np.array([np.nan, -0.0, np.inf, 1e-45], np.float32)
    outputs = {f"pad {v}": ops.pad(x, [(1, 2)], v) for v in (np.nan, np.inf, -np.inf, 0.1)}
    same_bits({**outputs, "reversed": x[::-1]}, [x], {"x": special})


def test_random_numbers_are_numpys() -> None:
    counter = input_((), "int64", "counter")
    shapes: list[tuple[int, ...]] = [(), (0,), (1,), (3,), (4,), (5,), (7,), (8,), (9,), (100, 301)]
    keys = [(0, 0), (1, 2), (2**64 - 1, 2**63 + 5)]
    outputs = {
        f"{dtype} {shape} {key}": ops.random_uniform(counter, shape, key, dtype)
        for dtype, shape, key in itertools.product(("float32", "float64"), shapes, keys)
    }
    for count in (0, 1, 2**40, -1):
        same_bits(outputs, [counter], {"counter": np.array(count)})


def test_the_first_largest_is_found() -> None:
    rng = np.random.default_rng(0)
    inputs, outputs, values = [], {}, {}
    for dtype in ("float32", "float64", "int32", "uint8", "bool"):
        x = input_((6, 9, 35), dtype, dtype)
        array = rng.integers(0, 2 if dtype == "bool" else 5, (6, 9, 35)).astype(dtype)
        if dtype.startswith("float"):
            array[rng.random(array.shape) < 0.02] = np.nan
            array[0, 0] = -np.inf
        inputs.append(x)
        values[dtype] = array
        outputs |= {f"{dtype} {axis}": ops.argmax(x, axis) for axis in range(3)}
    same_bits(outputs, inputs, values)


def test_axes_are_reduced_wherever_they_are() -> None:
    x = input_((3, 4, 5, 18), "float64", "x")
    every = [axes for n in (1, 2, 3) for axes in itertools.combinations(range(4), n)]
    outputs = {}
    for axes in every:
        mean, variance = ops.moments(x, axes)
        kept = ops.sum(x, axes, keepdims=True)
        found = {"mean": mean, "variance": variance, "kept": kept}
        found |= {f.__name__: f(x, axes) for f in (ops.max, ops.min, ops.logsumexp)}
        outputs |= {f"{name} {axes}": node for name, node in found.items()}
    values = {"x": np.random.default_rng(0).standard_normal((3, 4, 5, 18)) + 1000.0}
    program = compile(Graph(outputs, inputs=[x]), backend=backend(), optimize=False)
    got, wide = run(program, values), values["x"]
    assert not on_numpy(program)
    for axes in every:
        np.testing.assert_allclose(got[f"mean {axes}"], wide.mean(axes), rtol=1e-14)
        np.testing.assert_allclose(got[f"variance {axes}"], wide.var(axes), rtol=1e-12)
        np.testing.assert_allclose(got[f"kept {axes}"], wide.sum(axes, keepdims=True), rtol=1e-14)
        np.testing.assert_array_equal(got[f"max {axes}"], wide.max(axes))
        np.testing.assert_array_equal(got[f"min {axes}"], wide.min(axes))
        exact = np.log(np.exp(wide - 1000).sum(axes)) + 1000
        np.testing.assert_allclose(got[f"logsumexp {axes}"], exact, rtol=1e-13)


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint8", "uint64"])
def test_clipped_indices_take_what_numpy_takes(dtype: str) -> None:
    x, least, most = input_((3, 200, 5), "float32", "x"), np.iinfo(dtype).min, np.iinfo(dtype).max
    chosen = np.array([[0, 1, 4, 5, 2], [199 % (most + 1), 7, least, most, 3]], dtype)
    i = input_(chosen.shape, dtype, "i")
    outputs = {f"axis {axis}": ops.gather(x, i, axis, "clip") for axis in range(3)}
    outputs["empty"] = ops.gather(x, input_((0,), dtype, "none"), 1, "clip")
    values = {"x": numbered((3, 200, 5), "float32"), "i": chosen, "none": np.zeros(0, dtype)}
    same_bits(outputs, [x, i, outputs["empty"].inputs[1]], values)


def test_a_copy_has_as_few_axes_as_its_gaps_ask_for() -> None:
    shape = (4, 5, 6, 7)
    whole = strides(shape)
    assert joined(list(zip(shape, whole, whole, strict=True))) == [(1, 0, 0), (840, 1, 1)]
    to_first = [(n, s, t) for n, s, t in zip((4, 7, 5, 6), (210, 1, 42, 7), strides((4, 7, 5, 6)), strict=True)]
    assert joined(to_first) == [(4, 210, 210), (7, 1, 30), (30, 7, 1)]
    assert joined([]) == [(1, 0, 0), (1, 0, 0)]


# An index that is out of range is an error, which a program that is one call cannot raise in time; and norms along
# another axis than the last.
LEFT_TO_NUMPY = {"gather", "gather_adjoint", "batch_norm"}


def test_which_ops_are_left_to_numpy() -> None:
    left: set[str] = set()
    for name in sorted(CASES.keys() - {"fused", "function"}):
        for seed in range(6):
            case = draw(name, seed)
            nodes = [input_(a.shape, str(a.dtype), f"x{i}") for i, a in enumerate(case.arrays)]
            found = case.function(*nodes)
            results = [found] if isinstance(found, Node) else list(found)
            left |= left_over(Graph({str(i): r for i, r in enumerate(results)}, inputs=nodes))
    assert left == LEFT_TO_NUMPY


def left_over(graph: Graph) -> set[str]:
    """Return the ops of a bound graph, as a program runs it, that there is no code for."""
    on = backend()
    plan = compile(graph, backend=on).plan
    return {step.node.op.name for step in plan.steps if on._code(step.node) is None}
