"""R1: every op's gradient, to second order, against central differences in a random direction (float64, ≤ 1e-6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from minigraph import autodiff, ops
from minigraph.errors import GradientError
from minigraph.ir import OPS, Node, Op, variable
from minigraph.ops.norm import BatchNorm, Moving
from minigraph.testing import check_gradients
from ops.cases import CASES, draw

# What a program begins with, and `item`, which moments and split take along: nothing to differentiate.
LEAVES = {"input", "variable", "constant", "item"}
# Constant almost everywhere, or integer: their gradient rule says that nothing flows.
NO_GRADIENT = {
    "argmax", "equal", "floor", "greater", "greater_equal", "less", "less_equal", "not_equal", "one_hot",
    "random_uniform", "sign", "size",
}  # fmt: skip
# No gradient, and no kernel, before lowering has given it a mode.
NEUTRAL = {"dropout"}
DIFFERENTIABLE = sorted(CASES.keys() - NO_GRADIENT)


def curved(function: Callable[..., Node | Sequence[Node]]) -> Callable[..., list[Node]]:
    """Return the outputs and half their squares: without the squares a linear op has no second order to check."""

    def both(*nodes: Node) -> list[Node]:
        found = function(*nodes)
        outputs = [found] if isinstance(found, Node) else list(found)
        return [*outputs, *(0.5 * o * o for o in outputs)]

    return both


def check(op: str, seeds: range) -> None:
    for seed in seeds:
        case = draw(op, seed)
        try:
            check_gradients(curved(case.function), case.arrays, seed=seed, tolerance=1e-6)
        except Exception as error:
            raise AssertionError(f"op {op}, seed {seed}: {case.describe()}\n{type(error).__name__}: {error}") from error


@pytest.mark.parametrize("op", DIFFERENTIABLE)
def test_gradients_agree_with_differences(op: str) -> None:
    check(op, range(20))


@pytest.mark.slow
@pytest.mark.parametrize("op", DIFFERENTIABLE)
def test_gradients_agree_with_differences_in_many_cases(op: str) -> None:
    check(op, range(1000, 1200))


def test_every_op_has_a_case() -> None:
    assert OPS.keys() - LEAVES - NEUTRAL == CASES.keys()


@pytest.mark.parametrize("op", sorted(CASES))
def test_a_case_is_about_its_op(op: str) -> None:
    from minigraph.ir import topological

    met = 0
    for seed in range(20):
        case = draw(op, seed)
        nodes = [variable(a.shape, name=f"x{i}", dtype=str(a.dtype)) for i, a in enumerate(case.arrays)]
        result = case.function(*nodes)
        roots = [result] if isinstance(result, Node) else list(result)
        met += any(n.op.name == op for n in topological(roots))
    assert met >= 12, f"{op}: only {met} of 20 cases hold the op at all"


def test_cases_are_drawn_from_the_seed_alone() -> None:
    for op in CASES:
        first, second, other = draw(op, 3), draw(op, 3), draw(op, 4)
        assert first.describe() == second.describe()
        assert all(np.array_equal(a, b) for a, b in zip(first.arrays, second.arrays, strict=True)), op
        same = [a.shape == b.shape and np.array_equal(a, b) for a, b in zip(first.arrays, other.arrays, strict=False)]
        assert not same or not all(same) or first.describe() != other.describe(), op


@pytest.mark.parametrize("op", sorted(NO_GRADIENT))
def test_ops_without_gradient_say_so(op: str) -> None:
    case = draw(op, 0)
    node = case.function(*(variable(a.shape, name=f"x{i}", dtype=str(a.dtype)) for i, a in enumerate(case.arrays)))
    while node.op.name != op:  # below what only reshapes it
        node = node.inputs[0]
    assert node.op.vjp(node, node) == (None,) * len(node.inputs)


def test_the_other_ops_have_a_gradient_rule() -> None:
    without = {name for name, cls in OPS.items() if cls.vjp is Op.vjp}
    assert without == {"input", "variable", "constant", "item"}  # autodiff itself takes items apart


@pytest.mark.parametrize("op", sorted(NO_GRADIENT - {"one_hot", "random_uniform"}))
def test_nothing_depends_on_x_through_an_op_without_gradient(op: str) -> None:
    case = draw(op, 1)
    xs = [variable(a.shape, name=f"x{i}", dtype=str(a.dtype)) for i, a in enumerate(case.arrays)]
    y = ops.cast(case.function(*xs), "float64")
    with pytest.raises(GradientError, match="does not depend on 'x0'"):
        autodiff.gradients(ops.sum(y), [xs[0]])


def test_the_gradient_of_a_neutral_dropout_is_refused() -> None:
    x = variable((3,), name="x")
    y = ops.sum(ops.dropout(x, 0.5))
    with pytest.raises(GradientError, match="its mode is still open") as caught:
        autodiff.gradients(y, [x])
    assert "mg.lower" in str(caught.value)
    assert __file__ in caught.value.where


def test_the_gradient_of_a_neutral_batch_norm_is_refused() -> None:
    x, (gamma, beta, mean, var) = variable((4, 3), name="x"), (variable((3,), name=n) for n in "gbmv")
    y = Node(BatchNorm(moving=Moving()), (x, gamma, beta, mean, var))
    with pytest.raises(GradientError, match="its statistics are still open") as caught:
        autodiff.gradients(ops.sum(y), [x])
    assert "mg.lower" in str(caught.value)
    assert __file__ in caught.value.where


def test_lowered_they_have_one() -> None:
    from minigraph.ir import Graph
    from minigraph.passes import lower

    x, (gamma, beta, mean, var) = variable((4, 3), name="x"), (variable((3,), name=n) for n in "gbmv")
    y = ops.dropout(Node(BatchNorm(moving=Moving()), (x, gamma, beta, mean, var)), 0.5)
    for mode in ("training", "inference"):
        graph = lower(Graph({"y": ops.sum(y)}), mode)
        wrt = [graph.variable(name) for name in "xgb"]
        assert [g.shape for g in autodiff.gradients(graph.outputs["y"], wrt)] == [(4, 3), (3,), (3,)]


@pytest.mark.parametrize("function", [ops.maximum, ops.minimum])
def test_equal_operands_share_the_gradient(function: Callable[..., Node]) -> None:
    from minigraph.runtime import State, evaluate

    x, y = variable((3,), name="x"), variable((3,), name="y")
    state = State({"x": np.float32([1, 2, 3]), "y": np.float32([1, 1, 5])})
    dx, dy = evaluate(autodiff.gradients(ops.sum(function(x, y)), [x, y]), state)
    np.testing.assert_array_equal(dx + dy, [1, 1, 1])
    assert dx[0] == dy[0] == 0.5


@pytest.mark.parametrize("function", [ops.max, ops.min])
def test_equal_elements_share_the_gradient(function: Callable[..., Node]) -> None:
    from minigraph.runtime import State, evaluate

    x = variable((2, 4), name="x")
    values = np.float32([[3, 3, 3, 3], [-1, 2, 2, -1]])
    (dx,) = evaluate(autodiff.gradients(ops.sum(function(x, 1)), [x]), State({"x": values}))
    winners = values == (values.max(1) if function is ops.max else values.min(1))[:, None]
    np.testing.assert_array_equal(dx, winners / winners.sum(1, keepdims=True))


def test_the_first_largest_element_of_a_window_gets_the_gradient() -> None:
    from minigraph.runtime import State, evaluate

    x = variable((1, 2, 4, 1), name="x")
    values = np.float32([[1, 1, 0, 5], [1, 1, 5, 5]]).reshape(1, 2, 4, 1)
    (dx,) = evaluate(autodiff.gradients(ops.sum(ops.max_pool2d(x, 2)), [x]), State({"x": values}))
    np.testing.assert_array_equal(dx.reshape(2, 4), [[1, 0, 0, 1], [0, 0, 0, 0]])


@pytest.mark.parametrize(
    ("function", "at", "slope"),
    [
        (ops.relu, 0.0, 0.0), (ops.abs, 0.0, 0.0), (ops.sign, 0.0, None), (ops.leaky_relu, 0.0, 0.01),
        (ops.elu, 0.0, 1.0), (lambda x: ops.clip(x, 0.0, 1.0), 1.0, 1.0), (lambda x: ops.clip(x, 0.0, 1.0), 0.0, 1.0),
        (ops.hard_sigmoid, 3.0, 0.0), (ops.hard_swish, -3.0, 0.0), (ops.hard_swish, 3.0, 1.0),
        (lambda x: ops.pow(x, 2.0), 0.0, 0.0), (lambda x: ops.pow(x, 1.0), 0.0, 1.0),
        (lambda x: ops.pow(x, 0.0), 0.0, 0.0),
    ],
)  # fmt: skip
def test_the_gradient_at_a_kink_is_the_documented_one(
    function: Callable[[Node], Node], at: float, slope: float | None
) -> None:
    from minigraph.runtime import State, evaluate

    x = variable((), name="x", dtype="float64")
    if slope is None:
        with pytest.raises(GradientError):
            autodiff.gradients(function(x), [x])
        return
    found = evaluate(autodiff.gradients(function(x), [x]), State({"x": np.float64(at)}))
    assert found == [slope]


def test_logsumexp_of_nothing_but_minus_infinity_has_a_finite_gradient() -> None:
    from minigraph.runtime import State, evaluate

    x = variable((2, 2), name="x")
    values = np.float32([[-np.inf, -np.inf], [-np.inf, 0.0]])
    (dx,) = evaluate(autodiff.gradients(ops.sum(ops.logsumexp(x, 1)), [x]), State({"x": values}))
    np.testing.assert_array_equal(dx, [[0, 0], [0, 1]])


def test_the_harness_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong sign, and a second order that is wrong only in the gradient's own gradient, are both caught."""
    from minigraph.ops.activations import Tanh
    from minigraph.ops.real import Sin

    monkeypatch.setattr(Sin, "vjp", lambda self, node, g: (-(g * ops.cos(node.inputs[0])),))
    with pytest.raises(AssertionError, match="op sin, seed 0"):
        check("sin", range(1))
    monkeypatch.setattr(Tanh, "vjp", lambda self, node, g: (g * (1.0 - node * node) * (1.0 + 1e-5 * node),))
    with pytest.raises(AssertionError, match="op tanh, seed 0"):
        check("tanh", range(1))
