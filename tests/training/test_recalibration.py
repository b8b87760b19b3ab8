"""Recalibration equals one training-mode pass over all the data as a single batch, however it is cut."""

from __future__ import annotations

import numpy as np
import pytest

import minigraph as mg
from minigraph import layers
from minigraph.errors import MinigraphError

N = 50
RNG = np.random.default_rng(3)
IMAGES = (RNG.standard_normal((N, 5, 5, 2)) * 2 + RNG.standard_normal((N, 1, 1, 2)) + 0.5).astype(np.float32)


def make(dtype: str = "float32", rate: float = 0.0, **norm) -> mg.Model:
    """Three batch norms in a row (two of them stacked), over conv and dense."""
    with mg.fresh_names():
        image = mg.Input((5, 5, 2), name="image", dtype=dtype)
        kernel = mg.variable((3, 3, 2, 4), name="kernel", init=layers.initializers.he_normal(), dtype=dtype)
        weights = mg.variable((4, 6), name="weights", init=layers.initializers.he_normal(), dtype=dtype)
        h = layers.BatchNormalization(**norm)(mg.ops.conv2d(image, kernel))
        h = layers.Activation("relu")(layers.BatchNormalization(**norm)(h))
        h = mg.ops.matmul(layers.GlobalAveragePooling2D()(layers.Dropout(rate)(h)), weights)
        return mg.Model(image, layers.Activation("tanh")(layers.BatchNormalization(axis=-1, **norm)(h)), seed=1)


def averages(model: mg.Model) -> dict[str, np.ndarray]:
    return {k: v.copy() for k, v in model.state.items() if "moving" in k}


def reference(unbiased: bool = False) -> dict[str, np.ndarray]:
    """The same network in float64, one training step with momentum 0 for each batch norm, dropout left out."""
    model = make("float64", momentum=0.0, unbiased=unbiased)
    for name, value in make().state.items():
        model.state[name] = value.astype(np.float64)
    graph = mg.lower(model.graph, "training")
    mg.compile(graph)(model.state, image=IMAGES.astype(np.float64))
    return averages(model)


def check(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], rtol: float = 1e-4) -> None:
    assert found.keys() == expected.keys() and len(found) == 6
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], rtol=rtol, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("batch_size", [1, 7, 16, N, 1000])
def test_equals_one_pass_over_all_the_data(batch_size, unbiased):
    model = make(rate=0.5, unbiased=unbiased)  # dropout must be off
    before = averages(model)
    changes = model.recalibrate(IMAGES, batch_size=batch_size)
    # In training the first norm divides by the biased variance, in inference by the unbiased average: what comes to
    # the norms after it differs by (m − 1)/m, m = 450 values a channel.
    check(averages(model), reference(unbiased), rtol=3e-3 if unbiased else 1e-4)
    after = averages(model)
    assert changes == {k: pytest.approx(np.abs(after[k] - before[k]).max(), rel=1e-4, abs=1e-6) for k in before}


@pytest.mark.parametrize("batch_size", [3, 16])
def test_the_order_of_the_data_does_not_matter(batch_size):
    model = make()
    model.recalibrate(IMAGES[np.argsort(IMAGES.mean((1, 2, 3)))], batch_size=batch_size)
    check(averages(model), reference())


def test_twice_is_once():
    model = make()
    model.recalibrate(IMAGES, 16)
    changes = model.recalibrate(IMAGES, 16)
    assert len(changes) == 6 and max(changes.values()) < 1e-6


def test_large_offsets_do_not_cancel():
    with mg.fresh_names():
        x = mg.Input((2,), name="x")
        model = mg.Model(x, layers.BatchNormalization()(x))
    data = (1e4 + RNG.standard_normal((256, 2))).astype(np.float32)
    model.recalibrate(data, batch_size=10)
    state = model.state
    np.testing.assert_allclose(state["batch_normalization/moving_variance"], data.var(0, dtype=float), rtol=1e-2)
    np.testing.assert_allclose(state["batch_normalization/moving_mean"], data.mean(0, dtype=float), rtol=1e-6)


def test_only_averages_change_and_frozen_ones_do_not():
    model = make()
    before = model.state.copy()
    model.recalibrate(IMAGES)
    changed = {k for k in before if before[k].tobytes() != model.state[k].tobytes()}
    assert changed == {k for k in before if "moving" in k}
    frozen = make(frozen=True)
    assert frozen.recalibrate(IMAGES) == {}


def test_parallel_branches_are_one_level():
    with mg.fresh_names():
        x = mg.Input((3,), name="x")
        a, b = layers.BatchNormalization()(x), layers.BatchNormalization()(x * 2.0)
        model = mg.Model(x, layers.BatchNormalization()(a + b))
    data = RNG.standard_normal((40, 3)).astype(np.float32)
    model.recalibrate(data, 9)
    s = model.state
    np.testing.assert_allclose(s["batch_normalization/moving_mean"], data.mean(0), atol=1e-6)
    np.testing.assert_allclose(s["batch_normalization_1/moving_mean"], 2 * data.mean(0), atol=1e-6)
    np.testing.assert_allclose(s["batch_normalization_2/moving_mean"], 0, atol=1e-6)


def test_predictions_after_it_are_those_of_the_training_batch():
    model = make()
    model.recalibrate(IMAGES)
    graph = mg.lower(model.graph, "training")
    trained = mg.compile({"y": graph.outputs["output"]})(model.state, image=IMAGES)["y"]
    np.testing.assert_allclose(model.predict(IMAGES), trained, rtol=1e-3, atol=1e-4)


def test_wrong_data_change_nothing():
    model = make()
    before = model.state.copy()
    with pytest.raises(MinigraphError):
        model.recalibrate(IMAGES[..., :1])
    with pytest.raises(MinigraphError):
        model.recalibrate(IMAGES[:0])
    assert all(before[k].tobytes() == v.tobytes() for k, v in model.state.items())


def test_nan_is_refused():
    model, bad = make(), IMAGES.copy()
    bad[3, 0, 0, 0] = np.nan
    with pytest.raises(MinigraphError):
        model.recalibrate(bad)
