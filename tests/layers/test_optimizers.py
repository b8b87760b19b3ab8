"""Optimisers against the published updates in plain NumPy; schedules at given steps; what the state can change."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest

import minigraph as mg
from minigraph import ops
from minigraph.errors import ArgumentError
from minigraph.optimizers import (
    ITERATIONS,
    LEARNING_RATE,
    SGD,
    Adam,
    AdamW,
    CosineDecay,
    ExponentialDecay,
    PiecewiseConstantDecay,
    RMSprop,
    Warmup,
)

RNG = np.random.default_rng(1)
A, B = RNG.standard_normal((6, 4)), RNG.standard_normal((6, 3))
START = {"w": RNG.standard_normal((4, 3)), "b": RNG.standard_normal(3)}
STEPS = 12


def loss_and_gradients(w: np.ndarray, b: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
    """½·Σ (A·w + b − B)², and its gradients."""
    residual = A @ w + b - B
    return 0.5 * float((residual**2).sum()), {"w": A.T @ residual, "b": residual.sum(0)}


def program(optimizer, dtype: str = "float64") -> tuple[mg.Program, mg.State]:
    w = mg.variable((4, 3), name="w", dtype=dtype)
    b = mg.variable((3,), name="b", dtype=dtype)
    residual = ops.matmul(mg.constant(A.astype(dtype)), w) + b - mg.constant(B.astype(dtype))
    loss = 0.5 * ops.sum(residual * residual)
    updates = optimizer.updates(list(zip([w, b], mg.gradients(loss, [w, b]), strict=True)))
    state = mg.State({name: value.astype(dtype) for name, value in START.items()})
    compiled = mg.compile({"loss": loss}, updates)
    state.add(compiled.definition.variables)
    return compiled, state


def train(optimizer, steps: int = STEPS, dtype: str = "float64") -> Iterator[mg.State]:
    compiled, state = program(optimizer, dtype)
    for _ in range(steps):
        compiled(state)
        yield state


Update = Callable[[str, np.ndarray, np.ndarray, int, dict], np.ndarray]


def reference(update: Update, clip: float | None = None) -> Iterator[dict[str, np.ndarray]]:
    """Run an update rule (name, weights, gradient, step from 1, slots) → new weights."""
    values, slots = {k: v.copy() for k, v in START.items()}, {}
    for t in range(1, STEPS + 1):
        gradients = loss_and_gradients(**values)[1]
        if clip is not None:
            norm = math.sqrt(sum(float((g**2).sum()) for g in gradients.values()))
            gradients = {k: g * min(1.0, clip / norm) for k, g in gradients.items()}
        for name, gradient in gradients.items():
            values[name] = update(name, values[name], gradient, t, slots)
        yield values


def check(optimizer, update: Update, clip: float | None = None) -> None:
    for state, values in zip(train(optimizer), reference(update, clip), strict=True):
        for name, value in values.items():
            # The rate is a float32 scalar of the graph: it carries a relative error of 2⁻²⁴.
            np.testing.assert_allclose(state[name], value, rtol=1e-5, atol=1e-6)
    assert state[ITERATIONS] == STEPS


# --- SGD -------------------------------------------------------------------------------------------------------------


def sgd(rate: float, momentum: float = 0.0, nesterov: bool = False, decay: float = 0.0) -> Update:
    def update(name, w, g, t, slots):
        w = w * (1 - rate * decay)
        m = slots[name] = momentum * slots.get(name, 0.0) - rate * g
        return w + (momentum * m - rate * g if nesterov else m)

    return update


def test_sgd():
    check(SGD(0.02), sgd(0.02))


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_with_momentum(nesterov):
    check(SGD(0.02, momentum=0.9, nesterov=nesterov), sgd(0.02, 0.9, nesterov))


def test_decoupled_weight_decay_comes_before_the_step():
    check(SGD(0.02, momentum=0.9, weight_decay=0.3), sgd(0.02, 0.9, decay=0.3))


def test_common_norm_of_all_gradients_is_clipped():
    check(SGD(0.02, momentum=0.9, global_clipnorm=1.5), sgd(0.02, 0.9), clip=1.5)


def test_small_gradients_are_not_clipped():
    plain, clipped = list(train(SGD(0.02)))[-1], list(train(SGD(0.02, global_clipnorm=1e6)))[-1]
    np.testing.assert_array_equal(plain["w"], clipped["w"])


# --- Adam and RMSprop ------------------------------------------------------------------------------------------------


def adam(rate: float, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-7, decay: float = 0.0) -> Update:
    """Kingma & Ba 2015, algorithm 1 in the form of section 2's last paragraph: ε̂ is added to √v, not to √v̂."""

    def update(name, w, g, t, slots):
        m, v = slots.get(name, (0.0, 0.0))
        m, v = slots[name] = beta_1 * m + (1 - beta_1) * g, beta_2 * v + (1 - beta_2) * g * g
        corrected = rate * math.sqrt(1 - beta_2**t) / (1 - beta_1**t)
        return w * (1 - rate * decay) - corrected * m / (np.sqrt(v) + epsilon)

    return update


def test_adam():
    check(Adam(0.05), adam(0.05))
    check(Adam(0.05, beta_1=0.8, beta_2=0.9, epsilon=1e-3), adam(0.05, 0.8, 0.9, 1e-3))


def test_adamw():
    check(AdamW(0.05), adam(0.05, decay=0.004))
    check(AdamW(0.05, weight_decay=0.5, global_clipnorm=2.0), adam(0.05, decay=0.5), clip=2.0)


def rmsprop(rate: float, momentum: float, epsilon: float, centered: bool, rho: float = 0.9) -> Update:
    """As in Keras: ε under the root."""

    def update(name, w, g, t, slots):
        square, mean, m = slots.get(name, (0.0, 0.0, 0.0))
        square, mean = rho * square + (1 - rho) * g * g, rho * mean + (1 - rho) * g
        spread = square - mean * mean if centered else square
        m = momentum * m + rate * g / np.sqrt(spread + epsilon)
        slots[name] = square, mean, m
        return w - m

    return update


@pytest.mark.parametrize("momentum", [0.0, 0.8])
@pytest.mark.parametrize("centered", [False, True])
def test_rmsprop(momentum, centered):
    arguments = {"momentum": momentum, "centered": centered, "epsilon": 1e-4}
    check(RMSprop(0.01, **arguments), rmsprop(0.01, **arguments))


@pytest.mark.parametrize("optimizer", [
    SGD(0.02, momentum=0.9, nesterov=True), Adam(0.05), AdamW(0.05), RMSprop(0.02, momentum=0.5, centered=True),
])  # fmt: skip
def test_the_loss_falls_in_float32(optimizer):
    compiled, state = program(optimizer, "float32")
    losses = [float(compiled(state)["loss"]) for _ in range(120)]
    assert losses[-1] < losses[0] / 2
    assert losses[0] == pytest.approx(loss_and_gradients(**START)[0], rel=1e-5)


def test_slots_and_counters_are_variables_of_the_graph():
    compiled, state = program(RMSprop(0.1, momentum=0.5, centered=True))
    slots = {f"optimizer/{v}/{s}" for v in "wb" for s in ("square", "average", "momentum")}
    assert set(state) == {"w", "b", ITERATIONS, LEARNING_RATE} | slots
    assert not any(v.op.trainable for v in compiled.definition.variables if v.label.startswith("optimizer/"))
    assert all((state[s] == 0).all() for s in slots) and state[ITERATIONS].dtype == np.int64


# --- torch -----------------------------------------------------------------------------------------------------------


def torch_steps(make, **arguments) -> dict[str, np.ndarray]:
    torch = pytest.importorskip("torch")
    w, b = (torch.tensor(START[k], dtype=torch.float64, requires_grad=True) for k in "wb")
    optimizer = make(torch.optim)([w, b], **arguments)
    for _ in range(STEPS):
        optimizer.zero_grad()
        (0.5 * ((torch.tensor(A) @ w + b - torch.tensor(B)) ** 2).sum()).backward()
        optimizer.step()
    return {"w": w.detach().numpy(), "b": b.detach().numpy()}


@pytest.mark.parametrize(("ours", "theirs", "arguments"), [
    (SGD(0.02), lambda o: o.SGD, {"lr": 0.02}),
    # torch keeps m ← μ·m + g and moves by rate·m, Keras and we m ← μ·m − rate·g: the same while the rate is constant.
    (SGD(0.02, momentum=0.9), lambda o: o.SGD, {"lr": 0.02, "momentum": 0.9}),
    (SGD(0.02, momentum=0.9, nesterov=True), lambda o: o.SGD, {"lr": 0.02, "momentum": 0.9, "nesterov": True}),
    # torch adds ε to √v̂, we to √v: with a tiny ε that is no difference.
    (Adam(0.05, epsilon=1e-14), lambda o: o.Adam, {"lr": 0.05, "eps": 1e-14}),
    (AdamW(0.05, weight_decay=0.5, epsilon=1e-14), lambda o: o.AdamW, {"lr": 0.05, "eps": 1e-14, "weight_decay": 0.5}),
    # torch adds ε outside of the root.
    (RMSprop(0.01, epsilon=1e-20), lambda o: o.RMSprop, {"lr": 0.01, "alpha": 0.9, "eps": 1e-20}),
    (RMSprop(0.01, momentum=0.8, epsilon=1e-20), lambda o: o.RMSprop,
     {"lr": 0.01, "alpha": 0.9, "eps": 1e-20, "momentum": 0.8}),
    (RMSprop(0.01, rho=0.5, centered=True, epsilon=1e-20), lambda o: o.RMSprop,
     {"lr": 0.01, "alpha": 0.5, "eps": 1e-20, "centered": True}),
], ids=["sgd", "momentum", "nesterov", "adam", "adamw", "rmsprop", "rmsprop-momentum", "rmsprop-centered"])  # fmt: skip
def test_against_torch(ours, theirs, arguments):
    expected = torch_steps(theirs, **arguments)
    state = list(train(ours))[-1]
    for name, value in expected.items():
        np.testing.assert_allclose(state[name], value, rtol=2e-5, atol=2e-6)


# --- learning rates --------------------------------------------------------------------------------------------------


def rates(schedule, steps: int) -> np.ndarray:
    step = mg.Input((), name="step")
    values = mg.compile({"rate": schedule(step)})(step=np.arange(steps, dtype=np.float32))["rate"]
    return values.astype(float)


def test_cosine_decay():
    steps = np.arange(25)
    expected = 0.2 * ((1 - 0.1) * 0.5 * (1 + np.cos(np.pi * np.minimum(steps, 20) / 20)) + 0.1)
    np.testing.assert_allclose(rates(CosineDecay(0.2, 20, alpha=0.1), 25), expected, rtol=1e-5, atol=1e-8)


def test_cosine_decay_after_a_warm_up():
    values = rates(CosineDecay(0.2, 20, warmup_steps=4), 30)
    np.testing.assert_allclose(values[:4], [0.05, 0.1, 0.15, 0.2], rtol=1e-6)
    after = np.minimum(np.arange(26) / 20, 1)
    np.testing.assert_allclose(values[4:], 0.1 * (1 + np.cos(np.pi * after)), rtol=1e-5, atol=1e-8)


def test_exponential_decay():
    steps = np.arange(40)
    np.testing.assert_allclose(rates(ExponentialDecay(0.5, 10, 0.3), 40), 0.5 * 0.3 ** (steps / 10), rtol=1e-5)
    stairs = rates(ExponentialDecay(0.5, 10, 0.3, staircase=True), 40)
    np.testing.assert_allclose(stairs, 0.5 * 0.3 ** (steps // 10), rtol=1e-5)


def test_piecewise_constant_decay():
    values = rates(PiecewiseConstantDecay((3, 6), (1.0, 0.5, 0.25)), 9)
    np.testing.assert_array_equal(values, [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25])


def test_warmup():
    np.testing.assert_allclose(rates(Warmup(4, 0.2), 6), [0.05, 0.1, 0.15, 0.2, 0.2, 0.2], rtol=1e-6)
    inner = ExponentialDecay(0.2, 10, 0.5)
    np.testing.assert_allclose(
        rates(Warmup(4, inner), 6), 0.2 * 0.5 ** (np.arange(6) / 10) * [0.25, 0.5, 0.75, 1, 1, 1], rtol=1e-5
    )


def test_a_schedule_drives_the_steps():
    schedule = PiecewiseConstantDecay((3,), (0.02, 0.005))

    def update(name, w, g, t, slots):
        return w - (0.02 if t - 1 <= 3 else 0.005) * g

    check(SGD(schedule), update)


def test_the_rate_in_the_state_takes_effect():
    compiled, state = program(SGD(0.02))
    assert state[LEARNING_RATE] == np.float32(0.02)
    compiled(state)
    before = {k: state[k].copy() for k in "wb"}
    state[LEARNING_RATE] = 0.005
    compiled(state)
    gradient = loss_and_gradients(**before)[1]["w"]
    np.testing.assert_allclose(state["w"], before["w"] - 0.005 * gradient, rtol=1e-6)
    assert state[LEARNING_RATE] == np.float32(0.005)


def test_with_a_schedule_the_rate_in_the_state_is_a_factor():
    compiled, state = program(SGD(CosineDecay(0.02, 100)))
    assert state[LEARNING_RATE] == 1
    state[LEARNING_RATE] = 0.5
    before = {k: state[k].copy() for k in "wb"}
    compiled(state)
    np.testing.assert_allclose(state["w"], before["w"] - 0.01 * loss_and_gradients(**before)[1]["w"], rtol=1e-6)


# --- names, text, wrong use ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [
    SGD(), SGD(CosineDecay(0.1, 100, warmup_steps=5), momentum=0.9, nesterov=True), Adam(), AdamW(weight_decay=None),
    AdamW(Warmup(3, ExponentialDecay(0.1, 30, 0.1, True))), RMSprop(centered=True, global_clipnorm=1.0),
    SGD(PiecewiseConstantDecay((1, 2), (0.1, 0.2, 0.3)), weight_decay=1e-4),
], ids=repr)  # fmt: skip
def test_text_round_trip(optimizer):
    from minigraph.ir.parser import parse_value
    from minigraph.ir.printer import value_text

    assert parse_value(value_text(optimizer)) == optimizer


def test_names():
    kinds = {"sgd": SGD, "adam": Adam, "adamw": AdamW, "rmsprop": RMSprop}
    assert all(mg.optimizers.get(name) == kind() for name, kind in kinds.items())
    assert (SGD().learning_rate, Adam().learning_rate, AdamW().weight_decay, RMSprop().rho) == (0.01, 1e-3, 4e-3, 0.9)


@pytest.mark.parametrize("build", [
    lambda: SGD(-0.1), lambda: SGD(momentum=1.5), lambda: Adam(beta_1=-0.1), lambda: RMSprop(rho=2.0),
    lambda: SGD(global_clipnorm=0.0), lambda: PiecewiseConstantDecay((2, 1), (1.0, 2.0, 3.0)), lambda: SGD(math.nan),
    lambda: PiecewiseConstantDecay((1, 2), (1.0, 2.0)), lambda: mg.optimizers.get("nadam"),
])  # fmt: skip
def test_wrong_values_are_refused(build):
    with pytest.raises(ArgumentError):
        build()


@pytest.mark.parametrize(("build", "meant"), [
    (lambda: SGD(learnin_rate=0.1), "learning_rate"), (lambda: SGD(0.1, momentun=0.9), "momentum"),
    (lambda: Adam(beta1=0.9), "beta_1"), (lambda: CosineDecay(0.1, decay_step=5), "decay_steps"),
    (lambda: mg.optimizers.get("adamm"), "adam"),
])  # fmt: skip
def test_wrong_arguments_are_told_which_was_meant(build, meant):
    with pytest.raises(ArgumentError, match=f"did you mean {meant}"):
        build()
