"""Programs of the GPU backend, run on the processor: warm-up, capture, replay, copies, joined launches, refusals."""

from __future__ import annotations

import signal
import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import minigraph as mg
from minigraph import layers, ops
from minigraph.backends import get
from minigraph.backends.cupy import CupyBackend
from minigraph.backends.cupy import program as programs
from minigraph.backends.cupy.gpu import missing
from minigraph.errors import ArgumentError, ProgramError
from minigraph.ir import Graph, fresh_names, variable
from minigraph.ir.leaves import input as input_
from minigraph.runtime import State, compile
from minigraph.testing import cuda

pytestmark = pytest.mark.skipif(not cuda.available(), reason="no C++ compiler")

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((6, 8, 8, 1), np.float32)
LABELS = RNG.integers(0, 4, 6)


@pytest.fixture(params=["at once", "backwards", "lazy"])
def device(request: pytest.FixtureRequest) -> Iterator[cuda.Device]:
    with cuda.standin(backwards=request.param == "backwards", lazy=request.param == "lazy") as made:
        yield made


@pytest.fixture
def plain() -> Iterator[cuda.Device]:
    with cuda.standin() as made:
        yield made


def network(backend: Any) -> mg.Model:
    with fresh_names():
        image = mg.Input((8, 8, 1), name="image")
        x = image
        for filters in (4, 8):
            x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
            x = layers.MaxPooling2D(2)(layers.ReLU()(layers.BatchNorm()(x)))
        x = layers.Dropout(0.25)(layers.Dense(6, activation="relu")(layers.Flatten()(x)))
        model = mg.Model(image, layers.Dense(4)(x))
    loss = mg.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(mg.optimizers.SGD(0.1, momentum=0.9), loss, metrics=["accuracy"], backend=backend)
    return model


def trained(backend: Any, steps: int = 6) -> tuple[mg.Model, list[dict[str, float]]]:
    model = network(backend)
    return model, [model.train_on_batch(IMAGES, LABELS) for _ in range(steps)]


def kinds(device: cuda.Device, since: int) -> list[str]:
    return [record.kind for record in device.log[since:]]


# --- whole programs --------------------------------------------------------------------------------------------------


def test_training_gives_the_numbers_of_the_reference(device):
    reference, expected = trained("numpy")
    model, logs = trained(CupyBackend())
    for mine, its in zip(logs, expected, strict=True):
        assert mine == pytest.approx(its, rel=2e-5)
    for name, value in reference.state.items():
        np.testing.assert_allclose(model.state[name], value, rtol=2e-4, atol=2e-6, err_msg=name)


def test_a_step_is_one_launch_after_the_warm_up(plain):
    model, _ = trained(CupyBackend(), programs.WARM_UP)
    since = len(plain.log)
    model.train_on_batch(IMAGES, LABELS)
    assert kinds(plain, since).count("capture") == 2  # its beginning and its end
    since = len(plain.log)
    for _ in range(3):
        model.train_on_batch(IMAGES, LABELS)
    on_stream = [r for r in plain.log[since:] if r.how == "run" and r.kind in ("kernel", "library", "memset", "graph")]
    assert [r.kind for r in on_stream] == ["graph"] * 3
    within = [r for r in plain.log[since:] if r.how == "run" and r.name == "device to device"]
    assert len(within) == 2 * 3  # two inputs, out of the memory they came to; updates are part of the graph
    assert not [r for r in plain.log[since:] if r.kind in ("compile", "handle", "capture")]
    assert not [r for r in plain.log[since:] if r.kind == "alloc" and r.name == "device"]


def test_nothing_is_allocated_compiled_or_waited_for_while_a_graph_is_captured(plain):
    trained(CupyBackend(), programs.WARM_UP + 1)
    begin = next(i for i, r in enumerate(plain.log) if r.kind == "capture")
    captured = [r for r in plain.log[begin:] if r.how == "captured"]
    assert captured and {r.kind for r in captured} <= {"kernel", "library", "copy", "memset"}
    assert len({r.stream for r in captured}) == 1


def test_several_steps_are_one_launch(plain):
    w, n = variable((5,), name="w", init=1.0), variable((), name="n", init=0, dtype="int64", trainable=False)
    graph = Graph({}, {w: w * 0.5 + 1.0, n: n + ops.cast(1, "int64")})
    results = {}
    for backend in (get("numpy"), CupyBackend()):
        state = State.initial([w, n])
        program = compile(graph, backend=backend)
        for times in (3, 7, 7):
            program.repeat(state, times)
        results[backend.name] = {name: state[name].copy() for name in state}
    np.testing.assert_array_equal(results["cupy"]["w"], results["numpy"]["w"])
    assert results["cupy"]["n"] == 17
    assert [r.kind for r in plain.log].count("graph") == 3  # of 1, and of 7 twice: two runs were the warm-up


def test_an_optimisers_updates_are_one_launch(plain):
    model, _ = trained(CupyBackend(), 1)
    code = model.program("training").prepare(N=6).bound.code
    joined = [work.launches for work in programs._joined(code._separate)]
    # Kernels and biases; γ and β are moved by the very kernels that finish their gradients.
    assert max(len(launches) for launches in joined) == 6
    assert len(code._queue) == len(joined) < len(code._separate)
    assert "_of_several(" in code.source


def test_loops_that_wait_for_each_other_are_not_joined(device):
    a, b, c = (variable((9,), name=name, init=i + 1.0) for i, name in enumerate("abc"))
    x = input_((9,), name="x")
    graph = Graph({"y": x * 2.0}, {a: a + x, b: b + a, c: c + b})  # each reads what the one before it writes
    states = []
    for backend in (get("numpy"), CupyBackend()):
        state = State.initial([a, b, c])
        program = compile(graph, backend=backend)
        for i in range(4):
            program(state, x=np.full(9, i, np.float32))
        states.append({name: state[name].copy() for name in state})
    for name, value in states[0].items():
        np.testing.assert_array_equal(states[1][name], value, err_msg=name)


def test_a_folded_block_is_one_call_and_packs_its_constant_kernel_once(plain):
    with fresh_names():
        image = mg.Input((6, 6, 3), name="image")
        x = layers.ReLU()(layers.BatchNorm()(layers.Conv2D(4, 3, padding="same", use_bias=False)(image)))
        y = layers.BatchNorm()(layers.Conv2D(4, 3, padding="same", use_bias=False)(x))
        model = mg.Model(image, layers.ReLU()(layers.Add()([x, y])))
    folded, _ = mg.optimize(model.lower("inference", batch_size=2), state=model.state)
    program = compile(folded, backend=CupyBackend())
    images = RNG.standard_normal((2, 6, 6, 3), np.float32)
    results = [program(None, image=images)["output"] for _ in range(programs.WARM_UP + 2)]
    code = program.prepare().bound.code
    assert [work.kernel for _, work in zip(code._queue, code._separate, strict=True)] == ["", ""]
    assert [r.name for r in plain.log if r.kind == "kernel"] == ["k0_pack", "k1_pack"]
    expected = compile(folded)(None, image=images)["output"]
    for result in results:
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


def test_whatever_follows_a_convolution_is_computed(device):
    x, w = input_((2, 6, 6, 3), name="x"), input_((3, 3, 3, 4), name="w")
    b, z = input_((4,), name="b"), input_((2, 6, 6, 4), name="z")

    def convolved(strides: int = 1) -> Any:
        return ops.conv2d(x * float(strides), w, strides, padding="same")

    outputs = {
        "another function": ops.tanh(convolved()),
        "a residual before the bias": ops.relu(convolved(2) + z[:, ::2, ::2] + b),
        "a bias twice": convolved(3) + b + b,
        "a wider type": ops.cast(convolved(4), "float64"),
        "moments and the value": [y := convolved(5), *ops.moments(y, (0, 1, 2))],
        "a product": convolved(6) * b,
    }
    named = {
        f"{n}/{i}": o for n, each in outputs.items() for i, o in enumerate(each if isinstance(each, list) else [each])
    }
    values = {n.label: RNG.standard_normal(n.shape, np.float32) for n in (x, w, b, z)}
    expected = compile(named)(None, **values)
    for name, result in compile(named, backend=CupyBackend())(None, **values).items():
        np.testing.assert_allclose(result, expected[name], rtol=2e-5, atol=2e-5, err_msg=name)


# --- copies ----------------------------------------------------------------------------------------------------------


def test_inputs_may_be_changed_as_soon_as_a_step_is_under_way(device):
    x = input_((4,), name="x")
    program = compile({"y": x + 1.0}, backend=CupyBackend())
    held, pending = np.zeros(4, np.float32), []
    for i in range(6):
        held[:] = i
        pending.append(program.submit(None, x=held))
    for i, each in enumerate(pending):
        np.testing.assert_array_equal(each.result()["y"], np.full(4, i + 1.0))


def test_what_is_larger_than_the_buffers_comes_in_pieces(device):
    backend = CupyBackend()
    target = backend.view(backend.allocate(20 << 20), 0, (5 << 20,), "float32")
    values = np.arange(5 << 20, dtype=np.float32)
    backend.upload(target, values)
    values[:] = 0  # the caller's again
    np.testing.assert_array_equal(backend.download([target])()[0], np.arange(5 << 20, dtype=np.float32))


def test_the_state_on_the_host_and_on_the_device_are_one(device):
    model, _ = trained(CupyBackend(), 2)
    before = model.state["dense/kernel"].copy()
    model.state["optimizer/learning_rate"] = 0.0
    model.state["optimizer/dense/kernel/momentum"] = np.zeros_like(before)
    model.train_on_batch(IMAGES, LABELS)
    np.testing.assert_array_equal(model.state["dense/kernel"], before)
    reference = network("numpy")
    reference.state.update(model.state)
    mine, its = (m.program("inference")(m.state, image=IMAGES)["output"] for m in (model, reference))
    np.testing.assert_allclose(mine, its, rtol=1e-4, atol=1e-5)


def test_an_index_out_of_range_is_an_error_and_changes_nothing(device):
    table, index = variable((5, 2), name="table", init=1.0), input_((3,), "int64", name="index")
    taken = ops.gather(table, index)
    program = compile({"y": taken}, {table: table + ops.sum(taken)}, backend=CupyBackend())
    state = State.initial([table])
    with pytest.raises(ProgramError, match="out of range"):
        program(state, index=[0, 5, 1])
    assert (state["table"] == 1.0).all()
    program(state, index=[0, -5, 4])
    assert (state["table"] == 7.0).all()


# --- looking inside, and flags ---------------------------------------------------------------------------------------


def test_a_profile_times_every_step_and_commits_nothing(plain):
    model, _ = trained(CupyBackend(), 1)
    before = {name: value.copy() for name, value in model.state.items()}
    profile = model.program("training").profile(model.state, repeats=1, image=IMAGES, label=LABELS)
    assert len(profile.timings) == len(model.program("training").plan.steps)
    for name, value in before.items():
        np.testing.assert_array_equal(model.state[name], value, err_msg=name)


def test_the_source_is_the_file_that_was_compiled(plain):
    w = variable((3,), name="w", init=1.0)
    program = compile({"y": ops.tanh(w) * 2.0}, backend=CupyBackend())
    program(State.initial([w]))
    assert 'extern "C" __global__' in program.source and "hyperbolic_tangent" in program.source


def test_an_interrupt_in_the_warm_up_comes_after_the_whole_step(plain):
    a, b = variable((3,), name="a", init=0.0), variable((2, 2), name="b", init=0.0)
    program = compile(Graph({}, {a: a + 1.0, b: ops.transpose(b) + 1.0}), backend=CupyBackend())
    state = State.initial([a, b])
    program.prepare().bind(state)
    code = program.prepare().bound.code
    place, first = code._queue[0]

    def interrupted() -> None:
        signal.raise_signal(signal.SIGINT)
        first()

    code._queue[0] = (place, interrupted)
    with pytest.raises(KeyboardInterrupt):
        program(state)
    assert (state["a"] == 1).all() and (state["b"] == 1).all()


@pytest.mark.parametrize("precision", ["tf32", "float32"])
def test_one_flag_decides_how_products_and_convolutions_round(plain, precision):
    x = RNG.standard_normal((32, 16), np.float32)
    a, b = input_((32, 16), name="a"), input_((16, 8), name="b")
    image = input_((1, 4, 8, 16), name="image")
    outputs = {"product": a @ b, "convolution": ops.conv2d(image, ops.reshape(b, (1, 1, 16, 8)))}
    program = compile(outputs, backend=CupyBackend(precision=precision))
    results = program(None, a=x, b=x[:16, :8], image=x.reshape(1, 4, 8, 16))
    for name, result in results.items():
        exact = x.astype(np.float64) @ x[:16, :8].astype(np.float64)
        apart = np.abs(result.reshape(32, 8) - exact).max()
        assert (apart > 1e-5) == (precision == "tf32"), f"{name}: {apart}"
        assert apart < 1e-2


def test_a_bad_precision_is_refused(plain):
    with pytest.raises(ArgumentError, match="precision"):
        CupyBackend(precision="float8")


# --- where there is no GPU -------------------------------------------------------------------------------------------


def _module(**attributes: Any) -> types.ModuleType:
    module = types.ModuleType("cupy")
    module.__dict__.update(attributes)
    return module


def _failing(text: str) -> types.ModuleType:
    def count() -> int:
        raise RuntimeError(text)

    return _module(__version__="14.2", cuda=types.SimpleNamespace(runtime=types.SimpleNamespace(getDeviceCount=count)))


def _without_devices() -> types.ModuleType:
    runtime = types.SimpleNamespace(getDeviceCount=lambda: 0)
    return _module(__version__="14.2", cuda=types.SimpleNamespace(runtime=runtime))


@pytest.mark.parametrize(
    "module, words",
    [
        (None, "CuPy is not installed: pip install minigraph[cuda13]"),
        (_failing("cudaErrorInsufficientDriver: CUDA driver version is insufficient"), "no NVIDIA driver"),
        (_failing("cudaErrorNoDevice: no CUDA-capable device is detected"), "finds no CUDA device"),
        (_without_devices(), "finds no CUDA device"),
    ],
)
def test_what_is_missing_is_said_in_one_line(monkeypatch, module, words):
    monkeypatch.setitem(sys.modules, "cupy", module)
    line = missing()
    assert line is not None and words in line and "\n" not in line
    with pytest.raises(ProgramError) as error:
        mg.compile({"y": input_((2,), name="x") + 1.0}, backend="cupy")
    assert words in str(error.value) and "\n" not in str(error.value)


def test_nothing_is_missing_where_there_is_a_device(plain):
    assert missing() is None
    assert get("cupy").name == "cupy"
