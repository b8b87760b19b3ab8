"""Fits whose data lies beside the variables, on the host or on a device: the numbers are those of any other fit."""

from __future__ import annotations

import random
import signal

import numpy as np
import pytest
from runtime.remote import RemoteBackend
from small import LOSS, At, blobs, dense_model, image_model, images, same_bits

import minigraph as mg
from minigraph import layers, ops
from minigraph.backends import NumpyBackend, base
from minigraph.errors import ArgumentError, DataError, MinigraphError
from minigraph.ir import Graph, symbol, variable
from minigraph.ir.leaves import input as input_
from minigraph.ir.types import TensorType
from minigraph.training import Callback, ModelCheckpoint, ReduceLROnPlateau, TerminateOnNaN
from minigraph.training.feeding import HostFeed, feed_of
from minigraph.training.fitting import Loop
from minigraph.training.resident import ResidentFeed, resident

X, Y = blobs(43)
XV, YV = blobs(15, seed=1)
BATCH, STEPS = 8, 6  # the last batch of an epoch has 3 samples


def made(backend, steps: int = 1) -> mg.Model:
    """A model with all that a step may change beside its weights: averages, slots, a schedule, random numbers."""
    with mg.fresh_names():
        x = mg.Input((6,), name="x")
        h = layers.Activation("relu")(layers.BatchNormalization(momentum=0.9)(layers.Dense(4, use_bias=False)(x)))
        model = mg.Model(x, layers.Dense(3)(layers.Dropout(0.3)(h)), seed=3)
    rate = mg.optimizers.CosineDecay(0.02, 15, warmup_steps=4)
    optimizer = mg.optimizers.AdamW(rate, global_clipnorm=1.0)
    model.compile(optimizer, LOSS, metrics=["accuracy"], backend=backend, steps_per_execution=steps)
    return model


def fit(model: mg.Model, **others):
    settings = {"batch_size": BATCH, "epochs": 3, "verbose": 0, "validation_data": (XV, YV), **others}
    return model.fit(X, Y, **settings).history


def shaken(x, rng):
    return x + rng.standard_normal(x.shape).astype(x.dtype)


_reference: dict[str, tuple] = {}


def reference() -> tuple[mg.Model, dict]:
    """The fit that cuts each batch on the host."""
    if not _reference:
        model = made(NumpyBackend(1))
        _reference["fit"] = model, fit(model)
    return _reference["fit"]


def check(model: mg.Model, history: dict) -> None:
    expected, logs = reference()
    assert same_bits(model.state, expected.state) == [] and history == logs
    assert {**vars(model.progress), "callbacks": 0} == {**vars(expected.progress), "callbacks": 0}
    assert sorted(model.state) == sorted(expected.state)


# --- the graph --------------------------------------------------------------------------------------------------------


def test_inputs_become_reads_of_variables_and_outputs_sums():
    x, w = input_((symbol("N"), 2), name="x"), variable((2,), name="w", init=0.0)
    graph = Graph({"loss": ops.mean(x * w)}, {w: ops.mean(x, 0)})
    assert (
        str(resident(graph, {"x": TensorType((50, 2), "uint8")}, 3))
        == """\
graph {
  %0 = variable("w", init=0.0) : float32[2]
  %1 = variable("data/x", trainable=false) : uint8[50,2]
  %2 = variable("data/order", trainable=false) : int32[50]
  %3 = variable("data/position", trainable=false) : int64[]
  %4 = constant([0, 1, 2]) : int64[3]
  %5 = add(%3, %4) : int64[3]
  %6 = gather(%2, %5, mode="clip") : int32[3]
  %7 = gather(%1, %6, mode="clip") : uint8[3,2]
  %8 = cast(%7) : float32[3,2]
  %9 = mean(%8, axes=(0,)) : float32[2]
  %10 = constant(3) : int64[]
  %11 = add(%3, %10) : int64[]
  %12 = variable("data/total/loss", trainable=false) : float64[]
  %13 = mul(%8, %0) : float32[3,2]
  %14 = mean(%13, axes=(0, 1)) : float32[]
  %15 = cast(%14, dtype="float64") : float64[]
  %16 = constant(3.0) : float64[]
  %17 = mul(%15, %16) : float64[]
  %18 = add(%12, %17) : float64[]
  update %0 <- %9
  update %3 <- %11
  update %12 <- %18
}"""
    )


def test_a_resident_step_is_the_step_on_the_batch_it_takes():
    model = made("numpy")
    graph = model.lower("training")
    data = {"x": np.clip(X * 50 + 100, 0, 255).astype(np.uint8), "label": Y}
    types = {name: TensorType(a.shape, str(a.dtype)) for name, a in data.items()}
    program, step = mg.compile(resident(graph, types, 4)), model.program("training")
    state, twin = model.state.copy(), model.state.copy()
    order = np.random.default_rng(0).permutation(43).astype(np.int32)
    state.attach({f"data/{name}": a for name, a in data.items()})
    state.attach({"data/order": order, "data/position": np.array(8)})
    state.attach({f"data/total/{name}": np.zeros(()) for name in graph.outputs})
    program.repeat(state, 3)
    totals = dict.fromkeys(graph.outputs, 0.0)
    for i in (8, 12, 16):
        rows = order[i : i + 4]
        for name, value in step(twin, **{k: a[rows] for k, a in data.items()}).items():
            totals[name] += float(value) * 4
    assert same_bits(state, twin) == [] and state["data/position"] == 20
    assert {name: float(state[f"data/total/{name}"]) for name in totals} == totals


# --- whole fits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [2, 100])
def test_several_steps_an_execution_give_the_same_numbers_on_the_host(steps):
    model = made(NumpyBackend(1), steps)
    check(model, fit(model))


@pytest.mark.slow
def test_the_generated_code_gives_the_same_numbers_too():
    def run(steps: int) -> tuple[mg.Model, dict]:
        model = dense_model()
        model.compile("sgd", LOSS, backend="c", steps_per_execution=steps)
        return model, model.fit(*blobs(40), batch_size=8, epochs=2, verbose=0).history

    (model, history), (expected, logs) = run(2), run(1)
    assert same_bits(model.state, expected.state) == []
    np.testing.assert_allclose(history["loss"], logs["loss"], rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["numpy", "c"])
def test_a_network_of_convolutions_gives_the_same_numbers(backend):
    results = []
    for steps in (1, 3):
        model = image_model(seed=3)
        model.compile("adam", LOSS, metrics=["accuracy"], backend=backend, steps_per_execution=steps)
        results.append((model.state, model.fit(*images(43), batch_size=8, epochs=3, verbose=0).history))
    assert same_bits(results[0][0], results[1][0]) == []
    for name, values in results[0][1].items():
        np.testing.assert_allclose(results[1][1][name], values, rtol=1e-12)


@pytest.mark.parametrize(("steps", "free"), [(1, 1 << 40), (4, 100)])
def test_a_device_gives_the_same_numbers_with_the_data_there_or_not(steps, free):
    backend = RemoteBackend(free)
    model = made(backend, steps)
    assert isinstance(feed_of(model, data_of(model), False), ResidentFeed if free > 100 else HostFeed)
    check(model, fit(model))
    x, expected = XV[:7], reference()[0]
    model._warned = expected._warned = True  # about averages of so few steps
    np.testing.assert_array_equal(model.predict(x, batch_size=3), expected.predict(x, batch_size=3))
    assert model.evaluate(XV, YV, batch_size=4) == expected.evaluate(XV, YV, batch_size=4)
    moved, twin = model.recalibrate(X), made(NumpyBackend(1))
    twin.state.update(expected.state.copy())
    assert moved == twin.recalibrate(X) and same_bits(model.state, twin.state) == []


def data_of(model: mg.Model, **others):
    settings = {"batch_size": BATCH, "seed": model.seed, **others}
    return mg.data.Batches({"x": X}, {"label": Y}, **settings)


def test_where_the_data_is_kept():
    host, device = made("numpy"), made(RemoteBackend())
    assert isinstance(feed_of(host, data_of(host), False), HostFeed)
    for feed in (feed_of(device, data_of(device, augment={"x": shaken}), False),
                 feed_of(device, data_of(device), check_finite=True)):  # fmt: skip
        assert isinstance(feed, HostFeed)
    several = made("numpy", 2)
    feed = feed_of(several, data_of(several), False)
    assert isinstance(feed, ResidentFeed)
    with feed:
        assert several.state.peek("data/x") is X, "no copy"
    assert "data/x" not in several.state


def test_results_are_waited_for_as_late_as_can_be():
    waits = {}
    for watched in (False, True):
        backend = RemoteBackend(free=0)
        model = made(backend)
        callbacks = [At(10**6, lambda: None)] if watched else []
        model.fit(X, Y, batch_size=BATCH, epochs=2, verbose=0, callbacks=callbacks)
        waits[watched] = backend.waits
        assert backend.most_queued > 5 if not watched else True
    assert waits[True] == waits[False] == 2 * STEPS, "each is read once, now or later"


def test_nothing_of_the_data_stays_behind():
    backend = RemoteBackend()
    model = made(backend, 2)
    before = list(model.state)
    model.fit(X, Y, batch_size=BATCH, verbose=0)
    assert list(model.state) == before and not model.state._unlisted
    assert not any(label.startswith("data/") for label in model.state.on(backend).arrays)
    text = model.summary(print_=False)
    assert "data/" not in text
    with pytest.raises(ZeroDivisionError):
        model.fit(X, Y, batch_size=BATCH, verbose=0, callbacks=[At(2, lambda: 1 / 0)])
    assert list(model.state) == before and not model.state._unlisted


def test_programs_are_kept_from_fit_to_fit():
    model = made(RemoteBackend(), 2)
    model.fit(X, Y, batch_size=BATCH, verbose=0)
    kept = model.training.resident
    model.fit(X + 1, Y, batch_size=BATCH, epochs=2, initial_epoch=1, verbose=0)
    assert model.training.resident is kept
    model.fit(X, Y, batch_size=BATCH + 1, verbose=0)
    assert model.training.resident is not kept
    twin = made(NumpyBackend(1))
    twin.fit(X, Y, batch_size=BATCH, verbose=0)
    twin.fit(X + 1, Y, batch_size=BATCH, epochs=2, initial_epoch=1, verbose=0)
    twin.fit(X, Y, batch_size=BATCH + 1, verbose=0)
    assert same_bits(model.state, twin.state) == []


@pytest.mark.parametrize(
    ("dtypes", "settings"),
    [(("uint8", "uint8"), {}), (("float64", "int32"), {"drop_last": True}), (("float16", "int64"), {"shuffle": False}),
     (("bool", "int8"), {"batch_size": 64}), ((">f4", ">i8"), {"validation_split": 0.3})],
)  # fmt: skip
def test_data_of_other_dtypes_and_cuts(dtypes, settings):
    x, y = np.clip(X * 50 + 100, 0, 255).astype(dtypes[0]), Y.astype(dtypes[1])
    results = []
    for backend, steps in ((NumpyBackend(1), 1), (RemoteBackend(), 3)):
        model = made(backend, steps)
        history = model.fit(x, y, **{"batch_size": BATCH, "epochs": 2, "verbose": 0, **settings})
        results.append((model.state, history.history))
    assert same_bits(results[0][0], results[1][0]) == [] and results[0][1] == results[1][1]


def test_several_inputs_and_outputs():
    def network(backend, steps: int) -> mg.Model:
        with mg.fresh_names():
            a, b = mg.Input((6,), name="a"), mg.Input((2,), name="b")
            h = layers.Dense(4, activation="tanh")(layers.Concatenate()([a, b]))
            model = mg.Model([a, b], {"class": layers.Dense(3)(h), "value": layers.Dense(1)(h)}, seed=1)
        model.compile("adam", {"class": LOSS, "value": "mse"}, backend=backend, steps_per_execution=steps)
        return model

    x, y = blobs(21)
    data = ({"a": x, "b": x[:, :2]}, {"class": y, "value": x[:, :1]})
    results = []
    for backend, steps in ((NumpyBackend(1), 1), (NumpyBackend(1), 2), (RemoteBackend(), 1)):
        model = network(backend, steps)
        results.append((model.fit(*data, batch_size=4, epochs=2, verbose=0).history, model.state))
    for history, state in results[1:]:
        assert history == results[0][0] and same_bits(state, results[0][1]) == []


def test_an_input_whose_name_is_taken_is_fed_from_the_host():
    with mg.fresh_names():
        x = mg.Input((6,), name="order")
        model = mg.Model(x, layers.Dense(3)(x))
    model.compile("adam", LOSS, backend=RemoteBackend(), steps_per_execution=2)
    model.fit(*blobs(20), batch_size=4, verbose=0)
    assert model.state["optimizer/iterations"] == 5


def test_data_that_does_not_fit_is_refused_as_ever():
    model = made(RemoteBackend(), 2)
    for x, y in (
        (X[:, :5], Y),
        (X[..., None], Y),
        (X.astype(complex), Y),
        (X, Y[:-1]),
        (X, Y + 9),
        (np.where(X > 0, np.nan, X), Y),
    ):
        with pytest.raises(MinigraphError):
            model.fit(x, y, verbose=0)
        assert not model.state._unlisted
    fit(model)


@pytest.mark.parametrize("bad", [0, -1, 1.5, True, "2"])
def test_bad_numbers_of_steps_are_refused(bad):
    model = dense_model()
    with pytest.raises(ArgumentError, match="steps_per_execution"):
        model.compile("adam", LOSS, steps_per_execution=bad)


# --- callbacks --------------------------------------------------------------------------------------------------------


class Recorder(Callback):
    """Notes what it is told, and what it finds in the model then."""

    def __init__(self) -> None:
        self.seen: list = []

    def note(self, *what) -> None:
        progress = self.model.progress
        iterations = float(self.model.state["optimizer/iterations"])
        self.seen.append((*what, progress.epoch, progress.batch, progress.samples, iterations))

    def on_epoch_begin(self, epoch):
        self.note("epoch begin", epoch)

    def on_epoch_end(self, epoch, logs):
        self.note("epoch end", epoch, tuple(logs.items()))

    def on_train_batch_begin(self, batch):
        self.note("begin", batch)

    def on_train_batch_end(self, batch, logs):
        self.note("end", batch, tuple(logs.items()))


@pytest.mark.parametrize("free", [1 << 40, 0])
def test_callbacks_see_what_they_see_on_the_host(free):
    recorders = [Recorder(), Recorder()]
    for backend, recorder in zip((NumpyBackend(1), RemoteBackend(free)), recorders, strict=True):
        fit(made(backend), callbacks=[recorder])
    assert recorders[0].seen == recorders[1].seen and len(recorders[0].seen) == 3 * (2 + 2 * STEPS)


@pytest.mark.parametrize(("backend", "augment"), [("host", None), ("device", None), ("host", shaken)])
def test_callbacks_hear_of_executions(backend, augment):
    recorder, each = Recorder(), Recorder()
    fit(made(RemoteBackend() if backend == "device" else NumpyBackend(1), 4), callbacks=[recorder], augment=augment)
    fit(made(NumpyBackend(1)), callbacks=[each], augment=augment)
    assert [s[1] for s in recorder.seen if s[0] == "begin"] == [0, 4] * 3
    assert [s[1] for s in recorder.seen if s[0] == "end"] == [3, 5] * 3
    ends = [s for s in each.seen if s[0] == "end"]
    assert [s for s in recorder.seen if s[0] == "end"] == [s for s in ends if s[1] in (3, 5)]
    assert [s for s in recorder.seen if s[0] == "epoch end"] == [s for s in each.seen if s[0] == "epoch end"]


def test_a_learning_rate_that_is_changed_on_the_way():
    class Halve(Callback):
        def on_train_batch_end(self, batch, logs):
            if batch % 4 == 3:
                self.model.state["optimizer/learning_rate"][...] *= 0.5  # in the array itself
            elif batch == 4:
                self.model.state["optimizer/learning_rate"] = 0.01

    def run(backend) -> mg.Model:
        model = dense_model(optimizer=mg.optimizers.SGD(0.1, momentum=0.9))
        optimizer = mg.optimizers.SGD(0.1, momentum=0.9)
        model.compile(optimizer, LOSS, metrics=["accuracy"], backend=backend)
        plateau = ReduceLROnPlateau(monitor="loss", factor=0.5, patience=1, min_delta=10.0)
        model.fit(*blobs(), batch_size=8, epochs=4, verbose=0, callbacks=[Halve(), plateau])
        return model

    one, two, three = run(NumpyBackend(1)), run(RemoteBackend()), run(RemoteBackend(free=0))
    assert same_bits(one.state, two.state) == same_bits(one.state, three.state) == []


def test_what_is_not_finite_stops_a_device_too():
    for backend in (NumpyBackend(1), RemoteBackend()):
        with mg.fresh_names():
            x = mg.Input((6,), name="x")
            h = layers.Dense(3)(x)
            model = mg.Model(x, ops.log(h * h))
        model.compile(mg.optimizers.SGD(0.01), LOSS, backend=backend, steps_per_execution=3)

        def spoil(state=model.state) -> None:
            state["dense/kernel"] = np.zeros((6, 3))
            state["dense/bias"][...] = 0

        stopper = TerminateOnNaN()
        model.fit(*blobs(), batch_size=4, epochs=3, verbose=0, callbacks=[stopper, At(2, spoil)])
        assert "log made" in str(stopper.error) and not model.state["dense/kernel"].any()
        assert model.progress.batch == model.state["optimizer/iterations"] == 6


def test_stopping_in_the_middle_of_an_epoch():
    for backend in (NumpyBackend(1), RemoteBackend()):
        model = made(backend, 2)
        stop = At(4, lambda model=model: setattr(model, "stop_training", True))  # in the second epoch
        history = fit(model, callbacks=[stop])
        assert len(history["loss"]) == 2 and model.state["optimizer/iterations"] == STEPS + 2


# --- stopping and going on --------------------------------------------------------------------------------------------


DEVICES = {"one thread": lambda: NumpyBackend(1), "device": RemoteBackend, "full device": lambda: RemoteBackend(0)}


@pytest.fixture
def named(monkeypatch):
    """Backends by name, as a checkpoint knows them."""
    for name, make in DEVICES.items():
        monkeypatch.setitem(base._BACKENDS, name, make)


def stopped(path, name: str, steps: int, stops: list[int], number: int = signal.SIGINT) -> tuple[mg.Model, dict]:
    """Stop after so many executions each time, load the file into a new model, go on."""
    model, resume = made(name, steps), False
    for stop in stops:
        with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit):
            fit(model, callbacks=[ModelCheckpoint(path), At(stop, lambda: signal.raise_signal(number))], resume=resume)
        assert model.progress.epoch * STEPS + model.progress.batch == model.state["optimizer/iterations"]
        model, resume = mg.load_model(path), True
        assert model.training.steps_per_execution == steps
    return model, fit(model, resume=True, callbacks=[ModelCheckpoint(path)])


@pytest.mark.parametrize(("name", "steps"), [("one thread", 4), ("device", 1), ("full device", 4)])
def test_an_interrupted_fit_goes_on_bit_for_bit(named, tmp_path, name, steps):
    rng = random.Random(steps)
    number = rng.choice([signal.SIGINT, signal.SIGTERM])
    check(*stopped(tmp_path / "m", name, steps, [rng.randint(1, 3) for _ in range(3)], number))


class Signal(Callback):
    """Raises a signal before an epoch: nobody watches its steps, so several are under way when it is noticed."""

    def on_epoch_begin(self, epoch):
        if epoch == 1:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(("name", "steps"), [("device", 1), ("device", 4), ("full device", 1)])
def test_steps_under_way_are_waited_for_when_a_fit_is_interrupted(named, tmp_path, name, steps):
    model = made(name, steps)
    with pytest.raises(KeyboardInterrupt):
        fit(model, callbacks=[Signal(), ModelCheckpoint(tmp_path / "m")])
    assert (model.progress.epoch, model.progress.batch) == (1, steps)
    loaded = mg.load_model(tmp_path / "m")
    assert loaded.state["optimizer/iterations"] == STEPS + steps and same_bits(loaded.state, model.state) == []
    check(loaded, fit(loaded, resume=True))


@pytest.mark.parametrize("name", ["device", "full device"])
def test_a_checkpoint_from_within_an_epoch(tmp_path, monkeypatch, name):
    """Saved by something that is no callback: steps are under way then, and the file holds them all."""
    model, calls, call = made(DEVICES[name]()), [], Loop.call

    def save(self, hook, *arguments):
        call(self, hook, *arguments)
        calls.append(hook)
        if calls.count("on_train_batch_end") == STEPS + 3 and hook == "on_train_batch_end":
            assert self._pending
            model.save(tmp_path / "m")

    monkeypatch.setattr(Loop, "call", save)
    check(model, fit(model))
    monkeypatch.undo()
    loaded = mg.load_model(tmp_path / "m")
    assert (loaded.progress.epoch, loaded.progress.batch) == (1, 3)
    assert loaded.state["optimizer/iterations"] == STEPS + 3 and "data/order" not in loaded.state
    twin = made(DEVICES[name]())
    twin.state.update(loaded.state)
    twin.progress = loaded.progress
    check(twin, fit(twin, resume=True))


def test_a_fit_may_go_on_elsewhere(named, tmp_path):
    """The file knows nothing of where the data was: what a device began, the host ends, and the other way round."""
    for first, second in (("device", "one thread"), ("one thread", "device")):
        model = made(first, 2)
        with pytest.raises(KeyboardInterrupt):
            fit(model, callbacks=[At(5, lambda: signal.raise_signal(signal.SIGINT))])
        twin = made(second)
        twin.state.update(model.state)
        twin.progress = model.progress
        check(twin, fit(twin, resume=True))


def test_other_batches_are_refused_in_the_middle_of_an_epoch():
    model = made(RemoteBackend())
    with pytest.raises(KeyboardInterrupt):
        fit(model, callbacks=[At(8, lambda: signal.raise_signal(signal.SIGINT))])
    with pytest.raises(DataError, match="over other batches"):
        fit(model, resume=True, batch_size=BATCH + 1)
    assert not model.state._unlisted
    check(model, fit(model, resume=True))
