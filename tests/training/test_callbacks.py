"""Callbacks: when their hooks are called, and what each of the standard ones does."""

from __future__ import annotations

import csv
import itertools
import math

import numpy as np
import pytest
from small import At, blobs, dense_model, same_bits

import minigraph as mg
from minigraph.errors import ArgumentError, NonFiniteError
from minigraph.optimizers import ITERATIONS, LEARNING_RATE
from minigraph.training import (
    Callback,
    CSVLogger,
    EarlyStopping,
    ModelCheckpoint,
    ReduceLROnPlateau,
    TerminateOnNaN,
)

X, Y = blobs(16)


def fit(model, epochs=2, callbacks=(), **arguments):
    return model.fit(X, Y, epochs=epochs, batch_size=8, verbose=0, callbacks=list(callbacks), **arguments)


class Scripted(Callback):
    """Puts a number of its own into the logs of each epoch, for the callbacks after it."""

    def __init__(self, values, name="val_loss"):
        self.values, self.name = list(values), name

    def on_epoch_end(self, epoch, logs):
        logs[self.name] = self.values[epoch]


def test_order_of_hooks():
    calls = []

    class Spy(Callback):
        def on_train_begin(self):
            calls.append("train(")

        def on_train_end(self):
            calls.append(")train")

        def on_epoch_begin(self, epoch):
            calls.append(f"epoch{epoch}(")

        def on_epoch_end(self, epoch, logs):
            assert set(logs) == {"loss", "accuracy", "val_loss", "val_accuracy"}
            calls.append(f")epoch{epoch}")

        def on_train_batch_begin(self, batch):
            calls.append(f"batch{batch}(")

        def on_train_batch_end(self, batch, logs):
            assert set(logs) == {"loss", "accuracy"} and self.model is model
            calls.append(f")batch{batch}")

    model = dense_model()
    fit(model, callbacks=[Spy()], validation_data=(X, Y))
    batches = ["batch0(", ")batch0", "batch1(", ")batch1"]
    assert calls == ["train(", "epoch0(", *batches, ")epoch0", "epoch1(", *batches, ")epoch1", ")train"]


def test_stop_training_ends_the_epoch_after_the_step():
    model = dense_model()

    def stop():
        model.stop_training = True

    history = fit(model, epochs=5, callbacks=[At(3, stop)]).history
    assert model.state[ITERATIONS] == 3 and len(history["loss"]) == 2
    fit(model, epochs=1)  # and the next fit starts afresh
    assert model.state[ITERATIONS] == 5


def test_csv_logger(tmp_path):
    logger = CSVLogger(tmp_path / "log.csv")
    history = fit(dense_model(), 3, [logger], validation_data=(X, Y)).history
    with open(tmp_path / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(r["epoch"]) for r in rows] == [0, 1, 2]
    assert list(rows[0]) == ["epoch", "loss", "accuracy", "val_loss", "val_accuracy"]
    for name, values in history.items():
        assert [float(r[name]) for r in rows] == values  # all digits are there
    assert [p.name for p in tmp_path.iterdir()] == ["log.csv"]
    fit(dense_model(), 1, [logger])
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 2  # a new fit begins a new table


# --- EarlyStopping ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("values", "arguments", "epochs"), [
    ([3, 2, 1, 0, 0, 0], {}, 5),
    ([3, 2, 2.5, 2.6, 1, 0], {"patience": 2}, 4),
    ([3, 2, 2.5, 1.9, 1.95, 2.0, 0], {"patience": 2}, 6),
    ([3, 2.95, 2.9, 2.85, 0], {"min_delta": 0.2, "patience": 2}, 3),
    ([1, 2, 3, 3, 4], {"mode": "max"}, 4),
    ([1, 2, 3, 3, 4], {"monitor": "val_accuracy"}, 4),
    ([1, 2, 3, 3, 4], {"mode": "min", "patience": 3}, 4),
])  # fmt: skip
def test_early_stopping(values, arguments, epochs):
    name = arguments.get("monitor", "val_loss")
    history = fit(dense_model(), len(values), [Scripted(values, name), EarlyStopping(**arguments)]).history
    assert len(history["loss"]) == epochs


def test_early_stopping_puts_the_best_weights_back():
    best = []

    class Keep(Callback):
        def on_epoch_end(self, epoch, logs):
            if epoch == 1:
                best.append(self.model.state.copy())

    for restore in (True, False):
        model = dense_model()
        stopper = EarlyStopping(patience=2, restore_best_weights=restore)
        fit(model, 9, [Scripted([3, 1, 2, 2, 2]), Keep(), stopper])
        assert (same_bits(model.state, best[-1]) == []) is restore
    model = dense_model()  # also when nothing stopped the fit
    fit(model, 3, [Scripted([3, 1, 2]), Keep(), EarlyStopping(patience=9, restore_best_weights=True)])
    assert same_bits(model.state, best[-1]) == []


def test_a_monitor_that_is_not_there_is_named():
    with pytest.raises(ArgumentError, match="EarlyStopping watches 'val_loss', which is not there"):
        fit(dense_model(), callbacks=[EarlyStopping()])
    with pytest.raises(ArgumentError, match="bad mode"):
        EarlyStopping(mode="mni")


# --- ReduceLROnPlateau -----------------------------------------------------------------------------------------------


def rates(values, start=0.1, optimizer=None, **arguments) -> list[float]:
    model = dense_model(optimizer=optimizer or mg.optimizers.SGD(start))
    seen = []

    class Note(Callback):
        def on_epoch_end(self, epoch, logs):
            seen.append(float(self.model.state[LEARNING_RATE]))

    fit(model, len(values), [Scripted(values), ReduceLROnPlateau(**arguments), Note()])
    return seen


def test_reduce_on_plateau():
    found = rates([3, 2, 2, 2, 2, 2, 1, 1, 1], factor=0.5, patience=2)
    assert found == pytest.approx([0.1, 0.1, 0.1, 0.05, 0.05, 0.025, 0.025, 0.025, 0.0125])


def test_reduce_on_plateau_rests_and_has_a_floor():
    found = rates([2] * 8, factor=0.5, patience=1, cooldown=2, min_lr=0.04)
    assert found == pytest.approx([0.1, 0.05, 0.05, 0.04, 0.04, 0.04, 0.04, 0.04])


def test_reduce_on_plateau_scales_a_schedule():
    schedule = mg.optimizers.SGD(mg.optimizers.ExponentialDecay(0.1, 10, 0.5))
    assert rates([2, 2, 2], optimizer=schedule, factor=0.5, patience=1) == pytest.approx([1, 0.5, 0.25])


def test_reduce_on_plateau_never_raises_the_rate():
    assert rates([2, 2, 2], start=0.01, factor=0.5, patience=1, min_lr=0.04) == pytest.approx([0.01, 0.01, 0.01])


def test_reduce_on_plateau_refuses_a_bad_factor():
    with pytest.raises(ArgumentError, match="bad factor"):
        ReduceLROnPlateau(factor=1.0)


# --- ModelCheckpoint -------------------------------------------------------------------------------------------------


def test_checkpoint_after_each_epoch(tmp_path):
    states = []

    class Keep(Callback):
        def on_epoch_end(self, epoch, logs):
            states.append(self.model.state.copy())

    model = dense_model()
    fit(model, 3, [Keep(), ModelCheckpoint(tmp_path / "epoch-{epoch}-{loss:.1f}.safetensors")])
    files = sorted(tmp_path.iterdir())
    assert [f.name[:7] for f in files] == ["epoch-0", "epoch-1", "epoch-2"]
    for file, state in zip(files, states, strict=True):
        assert same_bits(mg.load_model(file).state, state) == []


def test_only_the_best_is_kept(tmp_path):
    saved = []

    class Note(Callback):
        def on_epoch_begin(self, epoch):
            if epoch:
                saved.append((tmp_path / "best").read_bytes())

        def on_train_end(self):
            self.on_epoch_begin(5)

    keeper = ModelCheckpoint(str(tmp_path / "best"), save_best_only=True)
    fit(dense_model(), 5, [Scripted([3, 1, 2, 0.5, 4]), keeper, Note()])
    assert [a != b for a, b in itertools.pairwise(saved)] == [True, False, True, False]
    assert keeper.best == -0.5


def test_a_path_with_logs_in_it_survives_an_interrupt(tmp_path):
    import signal

    keeper = ModelCheckpoint(tmp_path / "at-{epoch}-{loss:.2f}")
    with pytest.raises(KeyboardInterrupt):
        fit(dense_model(), 3, [At(3, lambda: signal.raise_signal(signal.SIGINT)), keeper])
    assert len(list(tmp_path.iterdir())) == 2


# --- TerminateOnNaN --------------------------------------------------------------------------------------------------


def exploding() -> mg.Model:
    with mg.fresh_names():
        x = mg.Input((6,), name="x")
        h = mg.layers.Dense(3)(x)
        model = mg.Model(x, mg.ops.log(h * h))  # the log of 0, once the weights are 0
    model.compile(mg.optimizers.SGD(0.01), mg.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


LOG_LINE = exploding.__code__.co_firstlineno + 4


def test_terminate_on_nan_names_op_and_line_and_keeps_the_last_finite_state(capsys):
    model, twin = exploding(), exploding()
    stopper = TerminateOnNaN()
    before = []

    def poison():
        model.state["dense/kernel"] = np.zeros((6, 3))
        model.state["dense/bias"] = np.zeros(3)
        before.append(model.state.copy())

    history = model.fit(X, Y, epochs=5, batch_size=8, verbose=0, callbacks=[At(3, poison), stopper]).history
    assert same_bits(model.state, before[0]) == [] and model.state[ITERATIONS] == 3
    assert len(history["loss"]) == 1 and math.isfinite(history["loss"][0])
    assert isinstance(stopper.error, NonFiniteError)
    text = str(stopper.error)
    assert text.startswith("log made a value that is not finite") and f"test_callbacks.py:{LOG_LINE}" in text
    assert "training stopped: log made" in capsys.readouterr().err
    twin.fit(X, Y, epochs=2, batch_size=8, verbose=0, callbacks=[stopper])
    assert stopper.error is None


def test_terminate_on_nan_costs_no_bits():
    one, two = dense_model(), dense_model()
    fit(one), fit(two, callbacks=[TerminateOnNaN()])
    assert same_bits(one.state, two.state) == []


def test_a_rate_that_is_too_high_is_stopped(capsys):
    model = dense_model(optimizer=mg.optimizers.SGD(1e30))
    fit(model, 5, [TerminateOnNaN()])
    assert all(np.isfinite(v).all() for v in model.state.values())
    assert "training stopped" in capsys.readouterr().err


def test_a_callback_that_raises_stops_fit_and_restores_the_signals():
    import signal

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    def fail():
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        fit(dense_model(), callbacks=[At(2, fail)])
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
