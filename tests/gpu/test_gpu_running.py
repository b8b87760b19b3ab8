"""How programs run on a GPU: captured and replayed, over and over, beside each other, in every precision, in place."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest
from backends.network_graphs import stepped, values_of
from backends.programs import Array

import minigraph as mg
from gpu.places import Place, everywhere, on_device, slow_elsewhere
from minigraph.bench import on_gpu, workloads
from minigraph.bench.workloads import Workload
from minigraph.optimizers import SGD
from minigraph.runtime import Program, State, compile

# How far a result may be from NumPy's, as a share of its norm: what rounding each operand to so many bits leaves.
SHARES = {"float32": 1e-5, "tf32": 5e-3, "float16": 1e-2, "bfloat16": 5e-2}


def step_of(gpu: Place, **how: bool) -> tuple[Program, State, dict[str, Array]]:
    """Return a training step, a state, and its inputs."""
    graph = stepped(SGD(0.05, momentum=0.9))
    values = values_of(graph)
    state = State({v.label: values[v.label] for v in graph.variables})
    program = compile(graph, backend=gpu.backend(**how))
    return program, state, {i.label: values[i.label] for i in graph.inputs}


def apart(got: Array, expected: Array) -> float:
    """Return how far an array is from another, as a share of its norm."""
    got, expected = (np.asarray(a, np.float64) for a in (got, expected))
    return float(np.linalg.norm(got - expected) / max(np.linalg.norm(expected), 1e-30))


# --- capture and replay -----------------------------------------------------------------------------------------------


@everywhere
def test_replays_compute_what_single_launches_do(gpu: Place) -> None:
    """The first calls enqueue one kernel after the other, the rest replay a graph: with a fixed state all are equal."""
    program, state, feed = step_of(gpu)
    start = {name: array.copy() for name, array in state.items()}
    results = []
    for _ in range(5):
        for name, array in start.items():
            state[name] = array
        results.append(program(state, **feed))
    for name, first in results[0].items():
        assert all(np.array_equal(first, later[name]) for later in results[1:]), name


@everywhere
def test_a_replay_allocates_nothing(gpu: Place) -> None:
    program, state, feed = step_of(gpu)
    for _ in range(4):
        program(state, **feed)
    before = gpu.used_bytes(program.backend)
    for _ in range(gpu.few(20, 3)):
        program(state, **feed)
    assert gpu.used_bytes(program.backend) == before


@slow_elsewhere
def test_a_program_that_is_gone_has_given_its_memory_back(gpu: Place) -> None:
    backend = gpu.backend()

    def use() -> None:
        graph = stepped(SGD(0.05, momentum=0.9))
        values = values_of(graph)
        state = State({v.label: values[v.label] for v in graph.variables})
        program = compile(graph, backend=backend)
        for _ in range(4):
            program(state, **{i.label: values[i.label] for i in graph.inputs})

    used = []
    for _ in range(4):
        use()
        gc.collect()
        used.append(gpu.used_bytes(backend))
    assert used[1] == used[2] == used[3]


@slow_elsewhere
def test_steps_are_submitted_ahead_and_read_later(gpu: Place) -> None:
    program, state, feed = step_of(gpu)
    _, again, _ = step_of(gpu)
    ahead = [program.submit(state, **feed) for _ in range(8)]
    late = [float(pending.result()["loss"]) for pending in ahead]
    other = compile(program.definition, backend=gpu.backend())
    assert late == [float(other(again, **feed)["loss"]) for _ in range(8)]


@slow_elsewhere
def test_the_inputs_may_be_written_into_at_once(gpu: Place) -> None:
    program, state, feed = step_of(gpu)
    _, again, _ = step_of(gpu)
    expected = [float(program(again, **feed)["loss"]) for _ in range(5)]
    pending = []
    for _ in range(5):
        held = {name: array.copy() for name, array in feed.items()}
        pending.append(program.submit(state, **held))
        for array in held.values():
            array.fill(0)
    assert [float(p.result()["loss"]) for p in pending] == expected


# --- beside each other ------------------------------------------------------------------------------------------------


@slow_elsewhere
def test_programs_of_several_backends_interleave(gpu: Place) -> None:
    """Each backend has a stream of its own."""
    several = [step_of(gpu) for _ in range(3)]
    program, state, feed = step_of(gpu)
    alone = [float(program(state, **feed)["loss"]) for _ in range(5)]
    losses: list[list[float]] = [[] for _ in several]
    for _ in range(5):
        pending = [program.submit(state, **feed) for program, state, feed in several]
        for own, each in zip(losses, pending, strict=True):
            own.append(float(each.result()["loss"]))
    assert losses == [alone] * len(several)


@on_device
def test_threads_run_programs_of_their_own(gpu: Place) -> None:
    several = [step_of(gpu) for _ in range(4)]
    losses: list[list[float]] = [[] for _ in several]

    def run(index: int) -> None:
        program, state, feed = several[index]
        losses[index] += [float(program(state, **feed)["loss"]) for _ in range(20)]

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(several))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(losses[0]) == 20 and losses == [losses[0]] * len(several)


# --- determinism ------------------------------------------------------------------------------------------------------


@slow_elsewhere
def test_deterministic_programs_give_the_same_bits_twice(gpu: Place) -> None:
    states = []
    for _ in range(2):
        program, state, feed = step_of(gpu, deterministic=True)
        for _ in range(6):
            program(state, **feed)
        states.append({name: array.tobytes() for name, array in state.items()})
    assert states[0] == states[1]


# --- precision --------------------------------------------------------------------------------------------------------


def classifier(precision: str, backend: object) -> mg.Model:
    """Return a small network, compiled."""
    with mg.fresh_names():
        image = mg.Input((12, 12, 8), name="image")
        x = mg.layers.Conv2D(16, 3, padding="same", use_bias=False)(image)
        x = mg.layers.ReLU()(mg.layers.BatchNorm(momentum=0.3)(x))
        x = mg.layers.GlobalAveragePooling2D()(x)
        model = mg.Model(image, mg.layers.Dense(8)(mg.layers.Dense(32, activation="relu")(x)))
    loss = mg.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(mg.optimizers.SGD(0.05, momentum=0.9), loss, backend=backend, precision=precision)
    return model


@slow_elsewhere
@pytest.mark.parametrize("precision", list(SHARES))
def test_a_step_in_each_precision(gpu: Place, precision: str) -> None:
    if precision == "bfloat16":
        pytest.importorskip("ml_dtypes")
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((16, 12, 12, 8), np.float32), rng.integers(0, 8, 16)
    exact = classifier("float32", "numpy")
    half = "float32" if precision == "tf32" else precision
    model = classifier(half, gpu.backend("tf32" if precision == "tf32" else "float32"))
    logs = [m.train_on_batch(x, y) for m in (exact, model) for _ in range(4)]
    assert logs[4]["loss"] == pytest.approx(logs[0]["loss"], rel=SHARES[precision])
    for name, array in exact.state.items():
        if name in model.state and array.dtype == np.float32 and array.size > 1:
            assert apart(model.state[name], array) <= 4 * SHARES[precision], name
    assert apart(model.predict(x), exact.predict(x)) <= 4 * SHARES[precision]


@on_device
def test_strict_float32_is_more_exact_than_tf32(gpu: Place) -> None:
    """Only a device tells: with one flag for both libraries, products and convolutions."""
    with mg.fresh_names():
        x, w = mg.Input((32, 32, 64), name="x"), mg.variable((3, 3, 64, 64), name="w")
        a, b = mg.variable((512, 512), name="a"), mg.variable((512, 512), name="b")
    outputs = {"conv": mg.ops.conv2d(x, w, padding="same"), "product": mg.ops.matmul(a, b)}
    rng = np.random.default_rng(0)
    state = State({n.label: rng.standard_normal(n.shape, np.float32) for n in (w, a, b)})
    feed = {"x": rng.standard_normal((4, 32, 32, 64), np.float32)}
    exact = compile(outputs)(state, **feed)
    for precision, low, high in (("float32", 0.0, 2e-6), ("tf32", 5e-5, 2e-3)):
        got = compile(outputs, backend=gpu.backend(precision))(state, **feed)
        for name, array in exact.items():
            assert low <= apart(got[name], array) <= high, (name, precision)


# --- what the benchmarks time -----------------------------------------------------------------------------------------


def small(alias: str, gpu: Place) -> Workload:
    """Return a workload, on the stand-in with fewer images."""
    from dataclasses import replace

    (workload,) = workloads.find(alias)
    if gpu.standin is None:
        return workload
    return replace(workload, batch=4, launch=min(workload.launch, 3))


@slow_elsewhere
@pytest.mark.parametrize("alias", ["G1", "G2"])
def test_what_the_benchmarks_time_trains_as_on_numpy(gpu: Place, alias: str) -> None:
    workload = small(alias, gpu)
    made = on_gpu.make(workload)
    got = made.number(made.step())
    model = workload.model()
    program, state = workloads.training_program(model, "numpy", rate=workload.rate)
    images, labels = workload.images(), workload.labels()
    losses = []
    for i in range(workload.launch):
        rows = slice(i * workload.batch, (i + 1) * workload.batch)
        losses.append(float(program(state, **workloads.feeds(model, images[rows], labels[rows]))["loss"]))
    assert got == pytest.approx(np.mean(losses), rel=5e-3)
    made.wait()
    assert made.steps == workload.launch and made.memory() > 0 and len(made.work) > 20


@slow_elsewhere
def test_a_profile_has_a_row_for_each_step(gpu: Place) -> None:
    program, state, feed = step_of(gpu)
    before = {name: array.copy() for name, array in state.items()}
    profile = program.profile(state, 2, **feed)
    assert len(profile.timings) == len(program.plan.steps) and profile.seconds > 0
    assert all(np.array_equal(state[name], array) for name, array in before.items())
