"""Losses and metrics against their formulas in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import minigraph as mg
from minigraph import losses, metrics, ops
from minigraph.errors import ArgumentError, DataError, MinigraphError, ShapeError

RNG = np.random.default_rng(2)
N, C = 12, 5
LOGITS = RNG.standard_normal((N, C)).astype(np.float32) * 3
LABELS = RNG.integers(0, C, N)
ONE_HOT = np.eye(C, dtype=np.float32)[LABELS]
BITS = RNG.integers(0, 2, (N, C)).astype(np.float32)


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(-1, keepdims=True).astype(float))
    return e / e.sum(-1, keepdims=True)


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z.astype(float)))


def value(function, label: np.ndarray, prediction: np.ndarray) -> float:
    p = mg.Input(prediction.shape[1:], name="p")
    t = mg.Input(label.shape[1:], name="t", dtype=str(label.dtype))
    return float(mg.compile({"v": function(t, p)})(p=prediction, t=label)["v"])


def gradient(function, label: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    p = mg.Input(prediction.shape[1:], name="p")
    t = mg.Input(label.shape[1:], name="t", dtype=str(label.dtype))
    return mg.compile({"g": mg.gradients(function(t, p), [p])[0]})(p=prediction, t=label)["g"]


def near(expected: float) -> object:
    return pytest.approx(expected, rel=2e-5, abs=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_sparse_categorical_crossentropy(smoothing):
    p = softmax(LOGITS)
    target = ONE_HOT * (1 - smoothing) + smoothing / C
    expected = -(target * np.log(p)).sum(-1).mean()
    from_logits = losses.SparseCategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
    assert value(from_logits, LABELS, LOGITS) == near(expected)
    from_p = losses.SparseCategoricalCrossentropy(label_smoothing=smoothing)
    assert value(from_p, LABELS, p.astype(np.float32)) == near(expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_categorical_crossentropy(smoothing):
    soft = softmax(RNG.standard_normal((N, C))).astype(np.float32)
    p = softmax(LOGITS)
    target = soft * (1 - smoothing) + smoothing / C
    expected = -(target * np.log(p)).sum(-1).mean()
    from_logits = losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
    assert value(from_logits, soft, LOGITS) == near(expected)
    # Predictions that do not add up to 1 are scaled, as in Keras.
    from_p = losses.CategoricalCrossentropy(label_smoothing=smoothing)
    assert value(from_p, soft, (p * 3).astype(np.float32)) == near(expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_binary_crossentropy(smoothing):
    p = sigmoid(LOGITS)
    target = BITS * (1 - smoothing) + 0.5 * smoothing
    expected = -(target * np.log(p) + (1 - target) * np.log(1 - p)).mean()
    assert value(losses.BinaryCrossentropy(True, smoothing), BITS, LOGITS) == near(expected)
    assert value(losses.BinaryCrossentropy(False, smoothing), BITS, p.astype(np.float32)) == near(expected)


def test_mean_squared_error():
    assert value(losses.MeanSquaredError(), BITS, LOGITS) == near(((BITS - LOGITS) ** 2).mean())
    images = RNG.standard_normal((3, 4, 5, 2)).astype(np.float32)
    assert value(losses.MeanSquaredError(), images, images + 1) == near(1.0)
    assert value(losses.MeanSquaredError(), BITS[:, 0], LOGITS[:, 0]) == near(((BITS - LOGITS)[:, 0] ** 2).mean())


def test_labels_with_more_axes():
    logits = RNG.standard_normal((3, 4, C)).astype(np.float32)
    labels = RNG.integers(0, C, (3, 4))
    expected = -np.log(np.take_along_axis(softmax(logits), labels[..., None], -1)).mean()
    assert value(losses.SparseCategoricalCrossentropy(from_logits=True), labels, logits) == near(expected)


@pytest.mark.parametrize("ignored", [-1, 2])
@pytest.mark.parametrize("from_logits", [True, False])
def test_ignored_examples_count_neither_above_nor_below(ignored, from_logits):
    labels = LABELS.copy()
    labels[::3] = ignored
    counted = labels != ignored
    p = softmax(LOGITS)
    expected = -np.log(p[counted, labels[counted]]).mean()
    loss = losses.SparseCategoricalCrossentropy(from_logits=from_logits, ignore_class=ignored)
    assert value(loss, labels, LOGITS if from_logits else p.astype(np.float32)) == near(expected)
    if from_logits:
        assert (gradient(loss, labels, LOGITS)[~counted] == 0).all()


def test_nothing_but_ignored_examples_gives_zero():
    loss = losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    assert value(loss, np.full(N, -1), LOGITS) == 0.0


@pytest.mark.parametrize("size", [100.0, 1e4, 1e30])
def test_big_logits_do_not_overflow(size):
    logits = (np.sign(LOGITS) * size).astype(np.float32)
    logits[:, 0] = -size
    for loss, labels in (
        (losses.SparseCategoricalCrossentropy(from_logits=True), LABELS),
        (losses.CategoricalCrossentropy(from_logits=True), ONE_HOT),
        (losses.BinaryCrossentropy(from_logits=True), BITS),
    ):
        assert np.isfinite(value(loss, labels, logits))
        assert np.isfinite(gradient(loss, labels, logits)).all()


def test_probabilities_of_zero_stay_finite():
    p = 1 - ONE_HOT  # all wrong, and certain
    p /= p.sum(-1, keepdims=True)
    for loss, labels in (
        (losses.SparseCategoricalCrossentropy(), LABELS), (losses.CategoricalCrossentropy(), ONE_HOT),
        (losses.BinaryCrossentropy(), ONE_HOT),
    ):  # fmt: skip
        assert np.isfinite(value(loss, labels, p)) and np.isfinite(gradient(loss, labels, p)).all()
    assert value(losses.SparseCategoricalCrossentropy(), LABELS, p) == near(-np.log(1e-7))


def test_gradient_of_the_crossentropy_is_softmax_minus_labels():
    found = gradient(losses.SparseCategoricalCrossentropy(from_logits=True), LABELS, LOGITS)
    np.testing.assert_allclose(found, (softmax(LOGITS) - ONE_HOT) / N, rtol=1e-4, atol=1e-6)


def test_labels_of_a_loss():
    p = mg.Input((C,), name="p")
    assert str(losses.SparseCategoricalCrossentropy().label(p).type) == "int64[N]"
    assert str(losses.CategoricalCrossentropy().label(p, "t").type) == f"float32[N,{C}]"


def model(loss) -> mg.Model:
    with mg.fresh_names():
        x = mg.Input((3,), name="x")
        made = mg.Model(x, mg.layers.Dense(C)(x))
    made.compile("sgd", loss, metrics=["accuracy"])
    return made


@pytest.mark.parametrize("labels", [
    [0, 1, C], [-1, 0, 1], [0.0, 1.0, 2.0], [0.5, 1.0, 2.0], [float("nan"), 0.0, 1.0], ["a", "b", "c"],
])  # fmt: skip
def test_class_ranges_are_checked(labels):
    made = model(losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(DataError):
        made.evaluate(np.zeros((3, 3), np.float32), np.array(labels))


def test_a_class_that_is_ignored_may_lie_outside_in_the_model():
    made = model(losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1))
    assert made.evaluate(np.zeros((3, 3), np.float32), np.array([-1, -1, 2]))["loss"] == near(np.log(C))


def test_labels_out_of_range_are_refused_beside_an_ignored_class():
    made = model(losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1))
    with pytest.raises(DataError):
        made.evaluate(np.zeros((3, 3), np.float32), np.array([-1, 99, 2]))


def test_shapes_must_fit():
    p, t = mg.Input((C,), name="p"), mg.Input((C + 1,), name="t")
    for loss in (losses.CategoricalCrossentropy(), losses.BinaryCrossentropy(), losses.MeanSquaredError()):
        with pytest.raises(ShapeError):
            loss(t, p)
    with pytest.raises(MinigraphError):
        losses.SparseCategoricalCrossentropy()(mg.Input((3,), name="i", dtype="int64"), p)


# --- metrics ---------------------------------------------------------------------------------------------------------


def test_accuracy():
    right = LOGITS.argmax(-1) == LABELS
    assert value(metrics.accuracy, LABELS, LOGITS) == near(right.mean())
    assert value(metrics.accuracy, ONE_HOT, LOGITS) == near(right.mean())
    p = sigmoid(LOGITS[:, :1]).astype(np.float32)
    expected = ((p > 0.5) == BITS[:, :1]).mean()
    assert value(metrics.accuracy, BITS[:, :1], p) == near(expected)
    assert value(metrics.binary_accuracy, BITS, LOGITS) == near(((LOGITS > 0.5) == BITS).mean())
    zero = value(lambda t, y: metrics.binary_accuracy(t, y, threshold=0.0), BITS, LOGITS)
    assert zero == near(((LOGITS > 0) == BITS).mean())


def test_errors():
    assert value(metrics.mean_squared_error, BITS, LOGITS) == near(((BITS - LOGITS) ** 2).mean())
    assert value(metrics.mean_absolute_error, BITS, LOGITS) == near(np.abs(BITS - LOGITS).mean())


def test_names():
    assert metrics.get("acc") == ("acc", metrics.accuracy) and metrics.get("mae")[1] is metrics.mean_absolute_error

    def mine(t, p):
        return ops.mean(p)

    assert metrics.get(mine) == ("mine", mine)
    assert losses.get("mse") == losses.MeanSquaredError()
    assert losses.get("binary_crossentropy") == losses.BinaryCrossentropy()


@pytest.mark.parametrize(("build", "meant"), [
    (lambda: losses.get("sparse_categorical_crossentropi"), "sparse_categorical_crossentropy"),
    (lambda: metrics.get("acuracy"), "accuracy"),
    (lambda: losses.SparseCategoricalCrossentropy(from_logit=True), "from_logits"),
    (lambda: losses.BinaryCrossentropy(label_smooth=0.1), "label_smoothing"),
])  # fmt: skip
def test_wrong_names_are_told_which_was_meant(build, meant):
    with pytest.raises(ArgumentError, match=f"did you mean {meant}"):
        build()


@pytest.mark.parametrize("build", [lambda: losses.get(["mse"]), lambda: metrics.get(["mae"])])
def test_a_list_in_the_place_of_a_name_is_refused(build):
    with pytest.raises(ArgumentError):
        build()


def test_losses_are_torchs():
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    z, t, bits = torch.tensor(LOGITS), torch.tensor(LABELS), torch.tensor(BITS)
    for smoothing in (0.0, 0.1):
        ours = losses.SparseCategoricalCrossentropy(True, label_smoothing=smoothing)
        assert value(ours, LABELS, LOGITS) == near(functional.cross_entropy(z, t, label_smoothing=smoothing).item())
    ours = losses.SparseCategoricalCrossentropy(True, ignore_class=2)
    assert value(ours, LABELS, LOGITS) == near(functional.cross_entropy(z, t, ignore_index=2).item())
    expected = functional.binary_cross_entropy_with_logits(z, bits).item()
    assert value(losses.BinaryCrossentropy(True), BITS, LOGITS) == near(expected)
