"""No correct computation is further from the exact value than its bound: every op, its gradient, random graphs."""

from __future__ import annotations

import random
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from ir.random_graphs import runnable, values_for
from ops.cases import CASES, Case, draw

from minigraph import gradients, ops
from minigraph.errors import GradientError
from minigraph.ir import OPS, Graph, Node, topological, variable
from minigraph.runtime import Interpreter
from minigraph.testing.bounds import EXPANSIONS, RULES, Unit, analyse
from testing.precision import Array, cast, graph_of, violations

DTYPES = ["float16", "bfloat16", "float32", "float64"]
long_double = pytest.mark.skipif(np.finfo(np.longdouble).eps > 2.0**-60, reason="no long double to compare with")


def precisions(dtypes: list[str] = DTYPES) -> Any:
    """Return the dtypes, float64 only where there is something more precise."""
    return [pytest.param(d, marks=long_double) if d == "float64" else d for d in dtypes]


def test_every_op_has_a_rule():
    ours = {name: op for name, op in OPS.items() if op.__module__.startswith("minigraph.")}
    missing = sorted(name for name, op in ours.items() if op not in RULES and op not in EXPANSIONS)
    assert not missing, f"no error bound for {missing}: see minigraph.testing.bounds.bound"


# --- drawing what is hard to compute with -----------------------------------------------------------------------------


def adversarial(rng: np.random.Generator, array: Array, dtype: str) -> Array:
    """Return numbers in the place of an array's floats: all magnitudes, zeros, subnormals, the largest, near-ties."""
    if array.dtype.kind != "f":
        return array
    unit = Unit.of(dtype)
    tiny, largest, least = unit.subnormal / unit.roundoff / 2.0, unit.largest, unit.subnormal
    magnitudes = rng.uniform(np.log2(tiny), np.log2(largest) - 1, array.shape)
    kinds = [
        rng.choice([-1.0, 1.0], array.shape) * 2.0**magnitudes,
        np.zeros(array.shape),
        rng.choice(
            [tiny, least, -3 * least, largest, -largest / 3, 1e8, -1e8, 1e8 + 1, 1.0, 1 + 2.0**-10], array.shape
        ),
        rng.integers(-3, 4, array.shape).astype(float),
        1e3 + rng.standard_normal(array.shape) * 1e-3,
        rng.standard_normal(array.shape) * 50,
    ]
    which = rng.integers(len(kinds), size=array.shape if rng.random() < 0.5 else ())
    return cast(np.choose(which, kinds), dtype)


def plain(case: Case, dtype: str, seed: int) -> tuple[Graph, dict[str, Array]]:
    """Return the case as it is."""
    return graph_of(case.function, case.arrays)


def extreme(case: Case, dtype: str, seed: int) -> tuple[Graph, dict[str, Array]]:
    """Return the case on adversarial numbers, exact ones."""
    graph, values = graph_of(case.function, case.arrays)
    rng = np.random.default_rng(seed)
    return graph, {label: adversarial(rng, array, dtype) for label, array in values.items()}


def noisy(case: Case, dtype: str, seed: int) -> tuple[Graph, dict[str, Array]]:
    """Return the case on operands with large errors: (1.1·x + c) − c."""
    big = float(np.random.default_rng(seed).choice([3.0, 100.0, 1e3] if dtype == "float16" else [3.0, 1e3, 1e5, 1e6]))

    def function(*nodes: Node) -> Any:
        return case.function(*((n * 1.1 + big) - big if n.dtype == "float64" else n for n in nodes))

    return graph_of(function, case.arrays)


def gradient(case: Case, dtype: str, seed: int) -> tuple[Graph, dict[str, Array]]:
    """Return the gradient of the case's results and half their squares; a GradientError where there is none."""

    def function(*nodes: Node) -> list[Node]:
        found = case.function(*nodes)
        outputs = [o for o in ([found] if isinstance(found, Node) else found) if o.dtype == "float64"]
        reached = [n for n in topological(outputs) if n in nodes and n.dtype == "float64"]
        if not reached:
            raise GradientError("nothing to differentiate")
        total = ops.sum(ops.concat([ops.reshape(o * o * 0.5 + o, (-1,)) for o in outputs], 0))
        return gradients(total, reached)

    return graph_of(function, case.arrays)


def check(op: str, dtype: str, seeds: range, *makes: Any) -> None:
    """Check that nothing is out of bounds, and that there are bounds."""
    bounded = 0
    for seed in seeds:
        for make in makes:
            case = draw(op, seed)
            wrong, _, finite = violations(*make(case, dtype, seed), dtype)
            bounded += finite
            assert not wrong, f"{op} in {dtype}, seed {seed}, {make.__name__}: {case.describe()}\n" + "\n".join(wrong)
    assert bounded > 0


@pytest.mark.parametrize("dtype", precisions())
@pytest.mark.parametrize("op", sorted(CASES))
def test_an_op_stays_within_its_bound(op: str, dtype: str) -> None:
    check(op, dtype, range(3), plain, extreme)
    check(op, dtype, range(3), *([noisy] if dtype != "float64" else []), plain)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", precisions())
@pytest.mark.parametrize("op", sorted(CASES))
def test_an_op_stays_within_its_bound_in_many_cases(op: str, dtype: str) -> None:
    check(op, dtype, range(1000, 1040), plain, extreme, *([noisy] if dtype != "float64" else []))


@pytest.mark.parametrize("op", sorted(CASES))
def test_a_gradient_stays_within_its_bound(op: str) -> None:
    for dtype in ("float16", "float32"):
        try:
            check(op, dtype, range(2), gradient)
        except GradientError:
            return  # a comparison, an integer: nothing flows


COMPARISONS = [ops.less, ops.less_equal, ops.greater, ops.greater_equal, ops.equal, ops.not_equal]


@pytest.mark.parametrize("compare", COMPARISONS)
def test_decisions_that_rounding_changes_stay_within_their_bounds(compare: Any) -> None:
    """Numbers so near to each other that the choice is sometimes wrong, and what depends on the choice."""

    def function(x: Node, y: Node) -> list[Node]:
        x, y = (x + 1e3) - 1e3, (y + 2e3) - 2e3
        open_ = compare(x, y)
        first = ops.argmax(ops.concat([ops.unsqueeze(x, 1), ops.unsqueeze(y, 1)]))
        return [open_, ops.where(open_, x * 3.0, 1.0 - y), ops.one_hot(first, 2, dtype="float64"), ops.floor(x * 1e3)]

    rng = np.random.default_rng(1)
    x = rng.integers(-9, 9, 400) * 1e-3
    graph, values = graph_of(function, [x, x + rng.choice([-1e-5, 0.0, 1e-5], 400)])
    wrong, ratios, _ = violations(graph, values, "float32")
    assert not wrong
    assert sum(r > 0.99 for r in ratios) >= 3, "some choices are wrong: a test that can fail"


def check_random(seeds: range, dtype: str) -> None:
    """Check random graphs in a dtype."""
    for seed in seeds:
        graph = runnable(random.Random(seed))
        wrong, _, _ = violations(graph, values_for(graph, seed), dtype)
        assert not wrong, f"seed {seed}:\n{graph}\n" + "\n".join(wrong)


@pytest.mark.parametrize("dtype", precisions())
def test_random_graphs_stay_within_their_bounds(dtype: str) -> None:
    check_random(range(60), dtype)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", precisions())
def test_many_random_graphs_stay_within_their_bounds(dtype: str) -> None:
    check_random(range(1000, 3000), dtype)


# --- against exact arithmetic -----------------------------------------------------------------------------------------


def fractions(array: Array) -> list[Fraction]:
    """Return the numbers exactly."""
    return [Fraction(float(x)) for x in array.ravel()]


def hard_to_sum(seed: int, count: int) -> Array:
    """Return numbers of very different sizes whose sum is nearly 0."""
    rng = np.random.default_rng(seed)
    half = rng.standard_normal(count // 2) * 10.0 ** rng.uniform(-8, 8, count // 2)
    return rng.permutation(np.concatenate([half, -half * (1 + 1e-15 * rng.standard_normal(count // 2))]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(20))
def test_sums_and_products_against_fractions(seed: int, dtype: str) -> None:
    x, y = (cast(hard_to_sum(seed + k, 60), dtype) for k in (0, 100))
    a, b = variable((60,), name="a", dtype=dtype), variable((60,), name="b", dtype=dtype)
    exact = {
        ops.sum(a): sum(fractions(x)),
        ops.mean(a): sum(fractions(x)) / 60,
        ops.matmul(a, b): sum(p * q for p, q in zip(fractions(x), fractions(y), strict=True)),
    }
    values = {"a": x, "b": y}
    bounds, computed = analyse(exact, values), Interpreter().run(Graph({f"y{n.id}": n for n in exact}), values)
    for node, truth in exact.items():
        error = float(bounds[node].error)
        for value in (computed[node], bounds[node].value):
            if np.isfinite(error):
                assert abs(Fraction(float(value)) - truth) <= Fraction(error)
    assert dtype == "float16" or all(np.isfinite(bounds[n].error) for n in exact)


def test_cancellation() -> None:
    x = variable((3,), name="x")
    for rest, lost in ((ops.sum(x), 1.0), (x[0] + x[1] + x[2], 0.0), ((x[0] + x[2]) + x[1], 1.0)):
        values = {"x": np.float32([1e8, -1e8, 1.0])}
        bounded = analyse([rest], values)[rest]
        computed = Interpreter().run(Graph({"y": rest}), values)[rest]
        assert bounded.value == 1.0 and abs(float(computed) - 1.0) <= bounded.error
        assert bounded.error >= lost, "1e8 + 1 is 1e8 in float32"
