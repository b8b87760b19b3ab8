"""Initialisers: their distributions, seeds, and text."""

from __future__ import annotations

import math

import numpy as np
import pytest

import minigraph as mg
from minigraph import layers
from minigraph.layers import initializers as init
from minigraph.layers import regularizers

SHAPE = (3, 3, 64, 128)
FAN_IN, FAN_OUT = 9 * 64, 9 * 128


def draw(initializer, shape=SHAPE, seed=0) -> np.ndarray:
    return initializer(shape, np.random.default_rng(seed))


@pytest.mark.parametrize(("make", "variance"), [
    (init.glorot_uniform, 2 / (FAN_IN + FAN_OUT)), (init.glorot_normal, 2 / (FAN_IN + FAN_OUT)),
    (init.he_uniform, 2 / FAN_IN), (init.he_normal, 2 / FAN_IN),
    (init.lecun_uniform, 1 / FAN_IN), (init.lecun_normal, 1 / FAN_IN),
])  # fmt: skip
def test_variance_and_bounds(make, variance):
    values = draw(make())
    error = 6 / math.sqrt(values.size)  # six deviations of the estimates below, generously
    assert values.var() == pytest.approx(variance, rel=3 * error)
    assert abs(values.mean()) < error * math.sqrt(variance)
    if make().distribution == "uniform":
        limit = math.sqrt(3 * variance)
    else:
        limit = 2 * math.sqrt(variance) / 0.87962566103423978
    assert 0.98 * limit < np.abs(values).max() <= limit


def test_scale_mode_and_distribution():
    for mode, fan in (("fan_in", FAN_IN), ("fan_out", FAN_OUT), ("fan_avg", (FAN_IN + FAN_OUT) / 2)):
        for distribution in ("uniform", "normal", "truncated_normal"):
            values = draw(init.VarianceScaling(3.0, mode, distribution))
            assert values.var() == pytest.approx(3.0 / fan, rel=0.03)
    assert np.abs(draw(init.VarianceScaling(1.0, "fan_in", "normal"))).max() > 3 / math.sqrt(FAN_IN)


def test_truncation_has_the_published_deviation():
    # Of a standard normal cut at ±2: 1 − 2·2·φ(2)/(2Φ(2) − 1).
    density, inside = math.exp(-2) / math.sqrt(2 * math.pi), math.erf(math.sqrt(2))
    assert math.sqrt(1 - 4 * density / inside) == pytest.approx(0.87962566103423978, rel=1e-12)


@pytest.mark.parametrize(("shape", "fans"), [
    ((5, 7), (5, 7)), ((3, 3, 16, 32), (144, 288)), ((6,), (6, 6)), ((), (1, 1)), ((2, 3, 4), (6, 8)),
])  # fmt: skip
def test_fans(shape, fans):
    assert init.fans(shape) == fans


@pytest.mark.parametrize("shape", [(6, 6), (8, 3), (3, 8), (3, 3, 4, 10), (2, 1, 3, 20)])
def test_orthogonality(shape):
    matrix = draw(init.Orthogonal(gain=2.0), shape).reshape(-1, shape[-1])
    rows, columns = matrix.shape
    product = matrix.T @ matrix if rows >= columns else matrix @ matrix.T
    np.testing.assert_allclose(product, 4 * np.eye(min(rows, columns)), atol=1e-12)


def test_orthogonal_matrices_have_no_preferred_sign():
    signs = [np.sign(draw(init.Orthogonal(), (3, 3), seed)[0, 0]) for seed in range(200)]
    assert abs(np.mean(signs)) < 0.3


def test_normal_and_constants():
    values = draw(init.RandomNormal(mean=1.0, stddev=0.5))
    assert values.mean() == pytest.approx(1.0, abs=0.01) and values.std() == pytest.approx(0.5, rel=0.02)
    assert (draw(init.get("ones")) == 1).all() and (draw(init.get("zeros")) == 0).all()
    assert (draw(init.Constant(-2.5)) == -2.5).all()
    assert init.get(3.0) == 3.0


# --- seeds -----------------------------------------------------------------------------------------------------------


def network(**kinds: str) -> mg.Model:
    """Three dense layers; `kinds` gives some of them another initialiser."""
    with mg.fresh_names():
        h = x = mg.Input((16,), name="x")
        for name in ("a", "b", "c"):
            h = layers.Dense(16, kernel_initializer=kinds.get(name, "glorot_uniform"), name=name)(h)
        return mg.Model(x, h, seed=0)


def model_with_seed(seed: int, initializer="he_normal") -> mg.State:
    with mg.fresh_names():
        x = mg.Input((16,), name="x")
        return mg.Model(x, layers.Dense(16, kernel_initializer=initializer, name="d")(x), seed=seed).state


def test_same_seed_same_bits_and_another_seed_other_bits():
    one, two, three = model_with_seed(5), model_with_seed(5), model_with_seed(6)
    assert one["d/kernel"].tobytes() == two["d/kernel"].tobytes() != three["d/kernel"].tobytes()


def test_variables_draw_from_streams_of_their_own():
    state = network().state
    assert not np.array_equal(state["a/kernel"], state["b/kernel"])
    assert not np.array_equal(state["b/kernel"], state["c/kernel"])


def test_a_variable_does_not_depend_on_the_initialisers_of_others():
    plain, changed = network().state, network(a="zeros", b="orthogonal").state
    assert plain["c/kernel"].tobytes() == changed["c/kernel"].tobytes()
    assert plain["b/kernel"].tobytes() != changed["b/kernel"].tobytes()


def test_an_initialiser_with_a_seed_of_its_own_ignores_the_models():
    one, two = model_with_seed(5, init.he_normal(seed=9)), model_with_seed(6, init.he_normal(seed=9))
    other = model_with_seed(5, init.he_normal(seed=10))
    assert one["d/kernel"].tobytes() == two["d/kernel"].tobytes() != other["d/kernel"].tobytes()


def test_compiling_another_optimiser_leaves_the_weights_alone():
    model = network()
    before = model.state.copy()
    for optimizer in ("adam", "sgd", "rmsprop"):
        model.compile(optimizer, "mse")
    assert all(model.state[k].tobytes() == before[k].tobytes() for k in before)


def test_first_values_do_not_depend_on_when_compile_is_called():
    early, late = network(), network()
    early.compile("adam", "mse")
    assert all(early.state[k].tobytes() == v.tobytes() for k, v in late.state.items())


# --- text ------------------------------------------------------------------------------------------------------------

EVERY = [
    init.Constant(0.25), init.VarianceScaling(3.0, "fan_out", "normal", seed=4), init.Orthogonal(1.5, seed=2),
    init.Orthogonal(), init.RandomNormal(0.5, 1e-3), init.RandomNormal(seed=2**40), init.he_normal(),
    init.glorot_uniform(7), 3, -0.5, "lecun_normal", "zeros",
]  # fmt: skip


@pytest.mark.parametrize("initializer", EVERY, ids=map(repr, EVERY))
def test_text_round_trip(initializer):
    with mg.fresh_names():
        x = mg.Input((4, 4, 2), name="x")
        h = layers.Conv2D(3, 2, kernel_initializer=initializer, kernel_regularizer=regularizers.L2(0.125))(x)
        h = layers.BatchNormalization(momentum=0.9, gamma_initializer=initializer if initializer != EVERY[2] else 1)(h)
        model = mg.Model(x, layers.Dense(2, kernel_regularizer="l2")(layers.Flatten()(layers.Dropout(0.25)(h))))
    text = str(model.graph)
    again = mg.parse(text)
    assert str(again) == text
    assert [v.op for v in again.variables] == [v.op for v in model.graph.variables]
    if not isinstance(initializer, init.Orthogonal):  # γ is a vector, which cannot be orthogonal
        other = mg.Model.from_graph(again)
        assert all(other.state[k].tobytes() == v.tobytes() for k, v in model.state.items())


@pytest.mark.parametrize("value", [np.float64(0.5), np.float32(0.5)])
def test_text_of_numpy_scalars(value):
    x = mg.Input((4,), name="x")
    graph = mg.Graph({"y": layers.Dense(2, kernel_regularizer=regularizers.L2(value), name="d")(x)})
    assert str(mg.parse(str(graph))) == str(graph)
