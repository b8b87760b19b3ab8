"""Model: learning, judging and predicting on tiny data; regularisers; progress; warnings."""

from __future__ import annotations

import io
import sys
import warnings

import numpy as np
import pytest
from small import LOSS, blobs, dense_model, image_model, images, same_bits

import minigraph as mg
from minigraph import layers
from minigraph.errors import ArgumentError, DataError, DTypeError, GraphError
from minigraph.layers import regularizers
from minigraph.optimizers import ITERATIONS
from minigraph.training import Callback, MovingAverageWarning

X, Y = blobs()


def fit(model: mg.Model, epochs: int = 3, **arguments):
    return model.fit(X, Y, epochs=epochs, batch_size=8, verbose=0, **arguments).history


# --- learning --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [
    mg.optimizers.SGD(0.1, momentum=0.9), mg.optimizers.Adam(0.02), mg.optimizers.AdamW(0.02),
    mg.optimizers.RMSprop(0.02),
])  # fmt: skip
def test_the_training_loss_falls(optimizer):
    model = dense_model(optimizer=optimizer)
    history = fit(model, epochs=8)
    assert history["loss"][-1] < history["loss"][0] / 2
    assert history["accuracy"][-1] > 0.8 and model.evaluate(X, Y)["accuracy"] > 0.8


def test_images_are_learned_too():
    x, y = images(60)
    model = image_model(optimizer=mg.optimizers.Adam(0.02))
    model.fit(x, y, epochs=8, batch_size=12, verbose=0)
    xv, yv = images(60, seed=1)
    assert model.evaluate(xv, yv)["accuracy"] > 0.9


def test_history_has_a_number_for_each_epoch():
    history = fit(dense_model(), epochs=4, validation_data=blobs(20, seed=1))
    assert list(history) == ["loss", "accuracy", "val_loss", "val_accuracy"]
    assert all(len(v) == 4 and all(isinstance(n, float) for n in v) for v in history.values())


def test_the_loss_of_an_epoch_is_the_mean_over_examples():
    model = dense_model(optimizer=mg.optimizers.SGD(0.0), momentum=0.0)
    seen = []

    class Steps(Callback):
        def on_train_batch_end(self, batch, logs):
            seen.append((batch, logs["loss"]))

    history = model.fit(X[:20], Y[:20], batch_size=8, shuffle=False, verbose=0, callbacks=[Steps()]).history
    parts = [model.train_on_batch(X[i : i + 8], Y[i : i + 8])["loss"] for i in (0, 8)]
    parts.append(model.train_on_batch(X[16:20], Y[16:20])["loss"])
    expected = (8 * parts[0] + 8 * parts[1] + 4 * parts[2]) / 20
    assert history["loss"][0] == pytest.approx(expected, rel=1e-6)
    assert [b for b, _ in seen] == [0, 1, 2] and seen[-1][1] == history["loss"][0]


def test_train_on_batch_does_one_step():
    model, twin = dense_model(), dense_model()
    logs = model.train_on_batch(X[:8], Y[:8])
    history = twin.fit(X[:8], Y[:8], batch_size=8, shuffle=False, verbose=0).history
    assert same_bits(model.state, twin.state) == [] and model.state[ITERATIONS] == 1
    assert logs == {k: v[0] for k, v in history.items()}


def test_predictions_do_not_depend_on_the_batch_size():
    model = dense_model()
    fit(model, 4)
    whole = model.predict(X)
    assert whole.shape == (48, 3)
    for size in (1, 7, 48):
        np.testing.assert_allclose(model.predict(X, batch_size=size), whole, rtol=1e-5, atol=1e-6)


def test_evaluation_is_the_loss_of_the_predictions(capsys):
    model = dense_model()
    fit(model, 4)
    logits = model.predict(X).astype(float)
    loss = (np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(Y)), Y]).mean()
    judged = model.evaluate(X, Y, batch_size=20, verbose=1)
    assert judged["loss"] == pytest.approx(loss, rel=1e-5)
    assert judged["accuracy"] == pytest.approx((logits.argmax(-1) == Y).mean())
    assert capsys.readouterr().out.startswith("loss: ")


def test_evaluating_and_predicting_change_nothing():
    model = dense_model()
    fit(model, 4)
    before = model.state.copy()
    model.evaluate(X, Y)
    model.predict(X)
    model.lower("training", batch_size=4)
    assert same_bits(before, model.state) == []


# --- seeds -----------------------------------------------------------------------------------------------------------


def test_same_seed_same_bits():
    x, y = images()
    one, two, other = image_model(3), image_model(3), image_model(4)
    histories = [m.fit(x, y, epochs=2, batch_size=8, verbose=0).history for m in (one, two, other)]
    assert same_bits(one.state, two.state) == [] and histories[0] == histories[1]
    assert "dense/kernel" in same_bits(one.state, other.state) and histories[0] != histories[2]


def test_the_seed_of_fit_is_that_of_the_order():
    one, two, three = dense_model(), dense_model(), dense_model()
    fit(one, seed=5), fit(two, seed=5), fit(three, seed=6)
    assert same_bits(one.state, two.state) == [] != same_bits(one.state, three.state)


def test_an_augmentation_is_drawn_from_the_seed():
    x, y = images()
    shift = mg.augmentation.RandomShift(1)
    models = [image_model() for _ in range(3)]
    for model, augment in zip(models, (shift, shift, None), strict=True):
        model.fit(x, y, epochs=2, batch_size=8, verbose=0, augment=augment)
    assert same_bits(models[0].state, models[1].state) == [] != same_bits(models[0].state, models[2].state)


# --- data ------------------------------------------------------------------------------------------------------------


def test_validation_data_are_judged_after_each_epoch():
    model = dense_model()
    xv, yv = blobs(20, seed=1)
    history = fit(model, 4, validation_data=(xv, yv))
    judged = model.evaluate(xv, yv, batch_size=8)
    assert history["val_loss"][-1] == judged["loss"] and history["val_accuracy"][-1] == judged["accuracy"]


def test_validation_split_takes_the_last_share():
    one, two = dense_model(), dense_model()
    first = fit(one, validation_split=0.25)
    second = two.fit(X[:36], Y[:36], epochs=3, batch_size=8, verbose=0, validation_data=(X[36:], Y[36:])).history
    assert first == second and same_bits(one.state, two.state) == []


@pytest.mark.parametrize("share", [-0.5, 1.0, 1.5])
def test_a_bad_share_is_refused(share):
    with pytest.raises(ArgumentError):
        fit(dense_model(), validation_split=share)


def test_a_share_that_leaves_nothing_is_refused_before_anything_is_trained():
    model = dense_model()
    with pytest.raises(DataError):
        model.fit(X[:2], Y[:2], validation_split=0.9, verbose=0)
    assert model.state[ITERATIONS] == 0


def test_validation_split_is_that_of_keras():
    model = dense_model()
    # Trains on ⌊10 · 0.75⌋ = 7: three whole batches.
    model.fit(X[:10], Y[:10], batch_size=2, validation_split=0.25, verbose=0, drop_last=True)
    assert model.state[ITERATIONS] == 3


def test_a_short_last_batch_is_used_or_dropped():
    for drop, steps in ((False, 6), (True, 5)):
        model = dense_model()
        model.fit(X[:43], Y[:43], batch_size=8, verbose=0, drop_last=drop)
        assert model.state[ITERATIONS] == steps


def test_initial_epoch_counts_on():
    epochs = []

    class Note(Callback):
        def on_epoch_begin(self, epoch):
            epochs.append(epoch)

    fit(dense_model(), epochs=5, initial_epoch=3, callbacks=[Note()])
    assert epochs == [3, 4]


def test_lists_dicts_and_other_dtypes_are_taken():
    model, twin = dense_model(), dense_model()
    fit(model, 1)
    twin.fit({"x": X.astype(np.float64)}, {"label": Y.astype(np.int32).tolist()}, batch_size=8, verbose=0)
    assert same_bits(model.state, twin.state) == []


# --- several inputs and outputs --------------------------------------------------------------------------------------


def two_by_two() -> mg.Model:
    with mg.fresh_names():
        a, b = mg.Input((6,), name="a"), mg.Input((2,), name="b")
        h = layers.Dense(8, activation="relu")(layers.Concatenate()([a, b]))
        return mg.Model([a, b], {"kind": layers.Dense(3)(h), "size": layers.Dense(1)(h)})


def test_several_inputs_and_outputs():
    model = two_by_two()
    model.compile(mg.optimizers.Adam(0.02), {"kind": LOSS, "size": "mse"}, metrics=[])
    b = np.random.default_rng(0).standard_normal((48, 2)).astype(np.float32)
    size = b.sum(-1, keepdims=True)
    history = model.fit({"a": X, "b": b}, {"kind": Y, "size": size}, epochs=12, batch_size=8, verbose=0).history
    assert history["loss"][-1] < history["loss"][0] / 2
    predicted = model.predict([X, b])
    assert {k: v.shape for k, v in predicted.items()} == {"kind": (48, 3), "size": (48, 1)}
    same = model.predict({"b": b, "a": X})
    assert all(np.array_equal(same[k], predicted[k]) for k in same)
    logits = predicted["kind"].astype(float)
    kind = (np.log(np.exp(logits).sum(-1)) - logits[np.arange(48), Y]).mean()
    expected = kind + ((predicted["size"] - size) ** 2).mean()
    assert model.evaluate([X, b], [Y, size])["loss"] == pytest.approx(expected, rel=1e-5)
    assert model.evaluate([X, b], {"kind_label": Y, "size_label": size})["loss"] == pytest.approx(expected, rel=1e-5)


def test_a_loss_for_one_of_two_outputs():
    model = two_by_two()
    model.compile("sgd", {"size": "mse"}, metrics=["mae"])
    logs = model.train_on_batch([X, X[:, :2]], X[:, :1])
    assert list(logs) == ["loss", "mae"]
    assert model.state["dense_1/kernel"].any() and "optimizer/dense_1/kernel" not in model.state


def test_metrics_of_several_outputs_carry_their_names():
    model = two_by_two()
    with pytest.raises(DTypeError, match="sub: operands have different dtypes"):  # classes − logits
        model.compile("sgd", {"kind": LOSS, "size": "mse"}, metrics=["mae"])
    model.compile("sgd", "mse", metrics=["mae"])
    logs = model.train_on_batch([X, X[:, :2]], [X[:, :3], X[:, :1]])
    assert list(logs) == ["loss", "kind_mae", "size_mae"]


def test_outputs_by_position():
    x = mg.Input((6,), name="x")
    model = mg.Model(x, [layers.Dense(2)(x), layers.Dense(3)(x)])
    assert {k: v.shape for k, v in model.predict(X).items()} == {"output_0": (48, 2), "output_1": (48, 3)}


def test_models_refuse_what_cannot_be():
    a, b = mg.Input((3,), name="a"), mg.Input((3,), name="b")
    with pytest.raises(GraphError, match="inputs that the model does not list"):
        mg.Model(a, layers.Add()([a, b]))
    with pytest.raises(ArgumentError, match="input nodes"):
        mg.Model(layers.ReLU()(a), a)
    model = mg.Model(a, layers.ReLU()(a))
    with pytest.raises(ArgumentError, match="not compiled"):
        model.fit(X[:, :3], X[:, :3])
    with pytest.raises(ArgumentError, match="needs a loss"):
        model.compile("sgd")
    with pytest.raises(ArgumentError, match="no output is called"):
        model.compile("sgd", {"outptu": "mse"})
    with pytest.raises(GraphError, match="nothing to train"):
        model.compile("sgd", "mse")
    with pytest.raises(ArgumentError, match="cannot be called 'loss'"):
        dense_model(metrics=[named_loss])


def named_loss(t, p):
    return mg.ops.mean(p)


named_loss.__name__ = "loss"


def test_a_compile_that_fails_leaves_the_model_as_it_was():
    a = mg.Input((3,), name="a")
    model = mg.Model(a, layers.ReLU()(a))
    with pytest.raises(GraphError, match="nothing to train"):
        model.compile("sgd", "mse")
    assert model.training is None


# --- regularisers ----------------------------------------------------------------------------------------------------


def test_a_regulariser_adds_to_the_loss_and_the_gradient():
    rate, strength = 0.1, 0.5
    plain = dense_model(optimizer=mg.optimizers.SGD(rate))
    held = dense_model(optimizer=mg.optimizers.SGD(rate), regularizer=regularizers.L2(strength))
    w = plain.state["dense/kernel"].astype(float)
    penalty = strength * (w**2).sum()
    assert held.evaluate(X, Y)["loss"] == pytest.approx(plain.evaluate(X, Y)["loss"] + penalty, rel=1e-5)
    losses = [m.train_on_batch(X, Y)["loss"] for m in (plain, held)]
    assert losses[1] == pytest.approx(losses[0] + penalty, rel=1e-5)
    moved = held.state["dense/kernel"] - plain.state["dense/kernel"]
    np.testing.assert_allclose(moved, -rate * 2 * strength * w, rtol=1e-4, atol=1e-6)
    assert [k for k in same_bits(plain.state, held.state)] == ["dense/kernel"]


def test_a_regulariser_of_a_frozen_variable_counts_nothing():
    w = mg.variable((6, 3), name="w", init=1.0, trainable=False, regularizer=regularizers.L2(1.0))
    x = mg.Input((6,), name="x")
    model = mg.Model(x, layers.Dense(3)(x) + mg.ops.matmul(x, w))
    model.compile("sgd", LOSS)
    logits = model.predict(X).astype(float)
    expected = (np.log(np.exp(logits).sum(-1)) - logits[np.arange(48), Y]).mean()
    assert model.evaluate(X, Y)["loss"] == pytest.approx(expected, rel=1e-4)


# --- progress --------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal(monkeypatch):
    out = Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    dense_model().fit(X, Y, epochs=2, batch_size=8)
    text = out.getvalue()
    assert text.count("\n") == 2 and text.startswith("\r\x1b[Kepoch 1/2 ━")
    left = [line.split("\r\x1b[K")[-1] for line in text.strip().split("\n")]
    assert all(line.startswith(f"epoch {i}/2  ") and "accuracy 0." in line for i, line in enumerate(left, 1))
    assert "━" * 24 + " 6/6" in text


def test_progress_in_a_pipe(capsys):
    dense_model().fit(X, Y, epochs=3, batch_size=8)
    text = capsys.readouterr().out
    assert len(text.splitlines()) == 3 and "\r" not in text and "\x1b" not in text and "━" not in text
    assert "loss" in text and " s  " in text


def test_verbose(capsys):
    for verbose, lines in ((0, 0), (2, 1)):
        dense_model().fit(X, Y, batch_size=8, verbose=verbose)
        assert len(capsys.readouterr().out.splitlines()) == lines
    dense_model().fit(X, Y, batch_size=8, verbose=1)
    assert "━" in capsys.readouterr().out
    with pytest.raises(ArgumentError, match="bad verbose"):
        dense_model().fit(X, Y, verbose=3)


def test_summary(capsys):
    model = image_model()
    text = model.summary(batch_size=4)
    assert capsys.readouterr().out.strip() == text
    trainable = 9 * 4 + 8 + 9 * 24 + 12 + 54 * 8 + 8 + 8 * 3 + 3
    assert f"parameters: {trainable + 20:,} ({trainable:,} trainable, 20 not)" in text
    for name in ("conv2d", "batch_normalization_1", "dense_1", "max_pooling2d"):
        assert name in text


def test_summary_of_images_of_open_size():
    image = mg.Input((mg.symbol("H"), mg.symbol("W"), 1), name="image")
    pooled = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, strides=2, name="conv")(image))
    model = mg.Model(image, layers.Dense(3)(pooled))
    with pytest.raises(ArgumentError, match="sizes are open"):
        model.summary(print_=False)
    assert "float32[2,4,3,4]" in model.summary(batch_size=2, print_=False, H=9, W=8)
    assert model.predict(np.zeros((2, 9, 8, 1), "float32")).shape == (2, 3)


# --- the warning about moving averages -------------------------------------------------------------------------------


def trained(steps: int = 3, **norm) -> mg.Model:
    model = dense_model(**norm)
    model.fit(X[: 8 * steps], Y[: 8 * steps], batch_size=8, verbose=0)
    return model


@pytest.mark.parametrize("use", [lambda m: m.predict(X), lambda m: m.evaluate(X, Y)])
def test_young_moving_averages_are_warned_about(use):
    model = trained(momentum=0.99)
    with pytest.warns(MovingAverageWarning, match="97% of their start value after 3 steps with momentum 0.99") as seen:
        use(model)
    assert seen[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        use(model)  # once is enough


@pytest.mark.parametrize("norm", [
    {"momentum": 0.99, "cumulative": True}, {"momentum": 0.99, "frozen": True}, {"momentum": 0.1},
])  # fmt: skip
def test_averages_that_can_be_trusted_are_not_warned_about(norm):
    model = trained(**norm)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(X), model.evaluate(X, Y)


def test_enough_steps_and_untrained_models_are_not_warned_about():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dense_model(momentum=0.99).predict(X)
        model = dense_model(momentum=0.5)
        fit(model, 1)
        model.predict(X)


def test_recalibrated_averages_are_not_warned_about():
    model = trained(momentum=0.99)
    model.recalibrate(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(X)
