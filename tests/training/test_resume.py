"""A fit that was stopped and goes on, in a new model from a file, ends with the bits of a fit that was not."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from small import At, dense_model, image_model, images, same_bits

import minigraph as mg
from minigraph.augmentation import RandomShift
from minigraph.errors import MinigraphError
from minigraph.training import Callback, CSVLogger, EarlyStopping, ModelCheckpoint, ReduceLROnPlateau

X, Y = images(40)
XV, YV = images(15, seed=1)
EPOCHS, BATCH, STEPS = 3, 8, 5  # 5 steps an epoch, 15 in all


def arguments(augment: bool) -> dict:
    return {
        "epochs": EPOCHS, "batch_size": BATCH, "verbose": 0, "validation_data": (XV, YV),
        "augment": RandomShift(1) if augment else None,
    }  # fmt: skip


def make() -> mg.Model:
    rate = mg.optimizers.CosineDecay(0.02, 15, warmup_steps=4)
    return image_model(seed=11, optimizer=mg.optimizers.AdamW(rate, global_clipnorm=1.0))


_whole: dict[bool, tuple] = {}


def whole(augment: bool) -> tuple[mg.Model, dict]:
    """The fit that is not stopped."""
    if augment not in _whole:
        model = make()
        _whole[augment] = model, model.fit(X, Y, **arguments(augment)).history
    return _whole[augment]


def stopped(path, steps: list[int], number: int, augment: bool) -> tuple[mg.Model, dict]:
    """Stop at each of `steps` (counted from the last stop), load the file into a new model, go on."""
    expected = KeyboardInterrupt if number == signal.SIGINT else SystemExit
    model, resume = make(), False
    for step in steps:
        with pytest.raises(expected) as caught:
            model.fit(X, Y, callbacks=[ModelCheckpoint(path), At(step, lambda: signal.raise_signal(number))],
                      resume=resume, **arguments(augment))  # fmt: skip
        if number == signal.SIGTERM:
            assert caught.value.code == 128 + signal.SIGTERM
        model, resume = mg.load_model(path), True
    history = model.fit(X, Y, resume=True, callbacks=[ModelCheckpoint(path)], **arguments(augment)).history
    return model, history


def check(model: mg.Model, history: dict, augment: bool) -> None:
    reference, expected = whole(augment)
    assert same_bits(model.state, reference.state) == []
    assert history == expected
    assert (model.progress.epoch, model.progress.batch) == (EPOCHS, 0)


def test_the_state_holds_all_that_must_come_back():
    state = whole(True)[0].state
    assert state["random/step"] == state["optimizer/iterations"] == EPOCHS * STEPS
    assert {"batch_normalization/moving_mean", "optimizer/conv2d/kernel/m", "optimizer/learning_rate"} <= set(state)


@pytest.mark.parametrize("step", [1, 3, STEPS - 1, STEPS, STEPS + 1, 2 * STEPS, 13, 14, 3 * STEPS])
def test_one_stop(tmp_path, step):
    check(*stopped(tmp_path / "m", [step], signal.SIGINT, bool(step % 2)), bool(step % 2))


@pytest.mark.parametrize("seed", range(4))
def test_many_stops(tmp_path, seed):
    rng = random.Random(seed)
    stops = [rng.randint(1, 4) for _ in range(4)]
    check(*stopped(tmp_path / "m", stops, [signal.SIGINT, signal.SIGTERM][seed % 2], True), True)


def test_a_stop_at_every_step(tmp_path):
    check(*stopped(tmp_path / "m", [1] * (STEPS + 2), signal.SIGTERM, True), True)


def test_the_same_model_can_go_on_without_a_file():
    model = make()
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y, callbacks=[At(7, lambda: signal.raise_signal(signal.SIGINT))], **arguments(True))
    assert (model.progress.epoch, model.progress.batch) == (1, 2)
    history = model.fit(X, Y, resume=True, **arguments(True)).history
    check(model, history, True)


CHILD = """
import os, signal, sys
sys.path.insert(0, {folder!r})
import minigraph as mg
from test_resume import *
path, step = sys.argv[1], int(sys.argv[2])
resume = os.path.exists(path)
model = mg.load_model(path) if resume else make()
callbacks = [ModelCheckpoint(path)]
if step:
    callbacks.append(At(step, lambda: os.kill(os.getpid(), signal.SIGTERM)))
model.fit(X, Y, resume=resume, callbacks=callbacks, **arguments(True))
"""


def test_new_processes_end_with_the_same_bits(tmp_path):
    path = os.fspath(tmp_path / "m")
    code = CHILD.format(folder=os.path.dirname(__file__))
    for step, expected in ((4, 143), (6, 143), (0, 0)):
        command = [sys.executable, "-c", code, path, str(step)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert result.returncode == expected, result.stderr
    model = mg.load_model(path)
    assert same_bits(model.state, whole(True)[0].state) == []


def test_a_checkpoint_of_an_epochs_end_holds_that_epoch(tmp_path):
    """What a SIGKILL leaves: no interrupt hook, only the file of the last epoch's end."""

    class Killed(Exception):
        pass

    def kill():
        raise Killed

    with pytest.raises(Killed):
        make().fit(X, Y, callbacks=[ModelCheckpoint(tmp_path / "m"), At(STEPS + 2, kill)], **arguments(False))
    model = mg.load_model(tmp_path / "m")
    history = model.fit(X, Y, resume=True, **arguments(False)).history
    check(model, history, False)


# --- what callbacks know ---------------------------------------------------------------------------------------------


def listeners(folder, step: int = 0) -> list:
    made = [
        CSVLogger(folder / "log.csv"), ReduceLROnPlateau(monitor="loss", factor=0.5, patience=1, min_delta=10.0),
        EarlyStopping(monitor="loss", patience=4, min_delta=10.0),
    ]  # fmt: skip
    return [*made, At(step, lambda: signal.raise_signal(signal.SIGINT))] if step else made


def test_callbacks_go_on_as_they_were(tmp_path):
    one, two = dense_model(), dense_model()
    x, y = X.reshape(40, 36)[:, :6], Y
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    shared = {"epochs": 9, "batch_size": 8, "verbose": 0}
    expected = one.fit(x, y, callbacks=listeners(tmp_path / "a"), **shared).history
    with pytest.raises(KeyboardInterrupt):
        two.fit(x, y, callbacks=listeners(tmp_path / "b", 12), **shared)
    history = two.fit(x, y, callbacks=listeners(tmp_path / "b"), resume=True, **shared).history
    assert len(expected["loss"]) == 5 and history == expected and same_bits(one.state, two.state) == []
    assert (tmp_path / "a/log.csv").read_text() == (tmp_path / "b/log.csv").read_text()


def interrupted(callbacks, step: int = 7, **others) -> mg.Model:
    model = make()
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y, callbacks=[*callbacks, At(step, lambda: signal.raise_signal(signal.SIGINT))],
                  **{**arguments(False), **others})  # fmt: skip
    return model


def test_other_callbacks_may_go_on(tmp_path):
    model = interrupted([CSVLogger(tmp_path / "log.csv")])
    model.fit(X, Y, resume=True, callbacks=[EarlyStopping()], **arguments(False))


def test_another_batch_size_is_refused():
    model = interrupted([])
    with pytest.raises(MinigraphError):
        model.fit(X, Y, resume=True, **{**arguments(False), "batch_size": 13})


def test_resuming_what_was_never_begun_begins():
    model = make()
    check(model, model.fit(X, Y, resume=True, **arguments(False)).history, False)


def test_resuming_what_is_finished_does_nothing():
    model = make()
    history = model.fit(X, Y, **arguments(False)).history
    before = model.state.copy()
    assert model.fit(X, Y, resume=True, **arguments(False)).history == history
    assert same_bits(before, model.state) == []


def test_more_epochs_after_a_finished_fit():
    model = image_model(seed=11)
    half = {**arguments(False), "epochs": 2}
    model.fit(X, Y, **half)
    history = model.fit(X, Y, resume=True, **arguments(False)).history
    twin = image_model(seed=11)
    assert twin.fit(X, Y, **arguments(False)).history == history and same_bits(model.state, twin.state) == []


# --- signals ---------------------------------------------------------------------------------------------------------


class Interrupts(Callback):
    """Raises a signal in a hook, and notes what is called."""

    def __init__(self, hook: str, times: int = 1) -> None:
        self.calls: list[str] = []
        self.hook, self.times = hook, times

    def note(self, name: str) -> None:
        self.calls.append(name)
        if name == self.hook:
            for _ in range(self.times):
                signal.raise_signal(signal.SIGINT)

    def on_epoch_begin(self, epoch):
        self.note("epoch_begin")

    def on_train_batch_begin(self, batch):
        self.note("batch_begin")

    def on_train_batch_end(self, batch, logs):
        self.note("batch_end")

    def on_epoch_end(self, epoch, logs):
        self.note("epoch_end")

    def on_interrupt(self):
        self.note("interrupt")

    def on_train_end(self):
        self.note("train_end")


@pytest.mark.parametrize(("hook", "calls"), [
    ("epoch_begin", ["epoch_begin", "batch_begin", "batch_end", "interrupt"]),
    ("batch_begin", ["epoch_begin", "batch_begin", "batch_end", "interrupt"]),
    ("batch_end", ["epoch_begin", "batch_begin", "batch_end", "interrupt"]),
    ("epoch_end", ["epoch_begin", *["batch_begin", "batch_end"] * STEPS, "epoch_end", "interrupt"]),
])  # fmt: skip
def test_the_running_step_is_finished_and_callbacks_are_told(hook, calls):
    spy, model = Interrupts(hook), make()
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y, callbacks=[spy], **arguments(False))
    assert spy.calls == calls
    assert model.state["optimizer/iterations"] == calls.count("batch_end")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_interrupt_leaves_at_once():
    spy, model = Interrupts("batch_begin", times=2), make()
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y, callbacks=[spy], **arguments(False))
    assert spy.calls == ["epoch_begin", "batch_begin"] and model.state["optimizer/iterations"] == 0


def test_fit_works_in_a_thread_where_signals_cannot_be_set():
    found = []
    thread = threading.Thread(target=lambda: found.append(make().fit(X, Y, **arguments(False)).history))
    thread.start()
    thread.join()
    assert found == [whole(False)[1]]


def test_an_interrupt_inside_a_step_leaves_all_or_nothing():
    """R16: raise in every kernel of a training step in turn; the state is that before the step."""
    model = dense_model()
    program, batch = model.program("training"), {"x": X.reshape(40, 36)[:8, :6], "label": Y[:8]}
    program(model.state, **batch)
    before = model.state.copy()
    bound = program.prepare(N=8).bind(model.state)
    kernels = list(bound.code.kernels)

    def fail():
        raise KeyboardInterrupt

    for i in range(len(kernels)):
        bound.code.kernels[i] = fail
        with pytest.raises(KeyboardInterrupt):
            program(model.state, **batch)
        bound.code.kernels[i] = kernels[i]
        assert same_bits(before, model.state) == []
    program(model.state, **batch)
    twin = dense_model()
    for _ in range(2):
        twin.program("training")(twin.state, **batch)
    assert same_bits(twin.state, model.state) == []


def test_an_interrupt_inside_the_commit_lets_it_finish(monkeypatch):
    model, twin = dense_model(), dense_model()
    batch = {"x": X.reshape(40, 36)[:8, :6], "label": Y[:8]}
    for each in (model, twin):
        each.program("training")(each.state, **batch)
    program = model.program("training")
    bound = program.prepare(N=8).bind(model.state)
    write, calls = bound._write, []

    def interrupted_write():
        calls.append(0)
        if len(calls) == 1:
            np.copyto(bound._targets[0], bound._values[0])
            raise KeyboardInterrupt
        write()

    monkeypatch.setattr(bound, "_write", interrupted_write)
    with pytest.raises(KeyboardInterrupt):
        program(model.state, **batch)
    twin.program("training")(twin.state, **batch)
    assert same_bits(twin.state, model.state) == []
