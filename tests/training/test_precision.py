"""Training in half precision: loss scaling as nodes, float32 weights, the accuracy of float32, exact resumes."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from small import same_bits

import minigraph as mg
from minigraph import datasets, layers
from minigraph.backends import dtypes
from minigraph.errors import ArgumentError, MissingExtraError
from minigraph.ir.leaves import fresh_names
from minigraph.ops.conv import Convolution
from minigraph.ops.linalg import MatMul
from minigraph.passes import UNFUSE, mixed_precision, run
from minigraph.passes.inline import INLINE
from minigraph.training.loss_scale import FINITE_STEPS, FIRST, GROWTH_STEPS, LARGEST, SCALE, LossScale

HALVES = ["float16", "bfloat16"]


def network(precision: str, backend: str = "numpy", **options: Any) -> mg.Model:
    """Return a small compiled network with all that has a rule: convolution, batch norm, pool, dropout, dense."""
    with fresh_names():
        image = mg.Input((8, 8, 1), name="image")
        y = layers.Conv2D(8, 3, padding="same", use_bias=False)(image)
        y = layers.MaxPooling2D(2)(layers.ReLU()(layers.BatchNorm(momentum=0.8)(y)))
        y = layers.Dropout(0.1)(layers.Flatten()(layers.ReLU()(layers.Conv2D(16, 3, padding="same")(y))))
        model = mg.Model(image, layers.Dense(10)(y))
    loss = mg.losses.SparseCategoricalCrossentropy(from_logits=True)
    options = {"optimizer": mg.optimizers.SGD(0.1, momentum=0.9), "metrics": ["accuracy"], **options}
    model.compile(loss=loss, backend=backend, precision=precision, **options)
    return model


def digits(number: int) -> tuple[Any, Any]:
    x, y = datasets.digits()[0]
    return x[:number], y[:number]


def step(model: mg.Model, number: int = 32) -> dict[str, float]:
    return model.train_on_batch(*digits(number))


def copied(model: mg.Model) -> dict[str, Any]:
    return {name: array.copy() for name, array in model.state.items()}


# --- which graphs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("half", HALVES)
def test_all_programs_multiply_in_half_and_keep_float32_variables(half: str):
    model = network(half)
    x, _ = digits(8)
    assert model.predict(x).dtype == np.float32
    for mode in ("training", "evaluation", "inference"):
        given = run([INLINE, UNFUSE], model.program(mode).graph)[0]
        found = [n for n in given.nodes if isinstance(n.op, (Convolution, MatMul))]
        assert len(found) >= 3 and {n.dtype for n in found} == {half}
    assert {v.dtype for v in model.lower("training").variables} == {"float32", "int64"}
    assert (SCALE in model.state) == (half == "float16")


def test_precisions_that_are_not_there():
    with pytest.raises(ArgumentError, match="float32, tf32, float16, bfloat16"):
        network("float8")
    for backend in ("numpy", mg.backends.NumpyBackend()):
        with pytest.raises(ArgumentError, match='backend="cupy"'):
            network("tf32", backend)


def test_bfloat16_without_ml_dtypes_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(MissingExtraError, match=r"minigraph\[bfloat16\]"):
        dtypes.array_dtype.__wrapped__("bfloat16")


def test_graphs_of_bfloat16_need_no_array_library():
    program = """if True:
        import sys
        import minigraph as mg
        with_casts = mg.optimize(mg.Graph({"y": (x := mg.Input((3,), name="x")) @ mg.variable((3, 3), name="w")}),
                                 passes="mixed_precision(bfloat16)")[0]
        assert "bfloat16" in str(with_casts) and mg.parse(str(with_casts)).same_as(with_casts)
        assert "ml_dtypes" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


# --- loss scaling -----------------------------------------------------------------------------------------------------


def test_a_step_that_overflows_changes_nothing_but_the_scale():
    model = network("float16", optimizer=mg.optimizers.Adam(0.01))
    step(model)
    assert model.state[SCALE] == FIRST and model.state[FINITE_STEPS] == 1
    model.state[SCALE] = 2.0**40
    before = copied(model)
    logs = step(model)
    assert np.isfinite(logs["loss"])
    assert set(same_bits(before, copied(model))) == {SCALE, FINITE_STEPS}
    assert model.state[SCALE] == 2.0**39 and model.state[FINITE_STEPS] == 0
    while model.state[FINITE_STEPS] == 0:  # down to where it fits
        step(model)
    assert 2.0**15 <= model.state[SCALE] < 2.0**30
    assert model.state["optimizer/iterations"] == before["optimizer/iterations"] + 1
    changed = same_bits(before, copied(model))
    assert {"conv2d/kernel", "optimizer/dense/kernel/m", "batch_normalization/moving_mean"} <= set(changed)


def test_a_weight_that_is_not_finite_stops_all_others():
    model = network("float16")
    step(model)
    model.state["dense/bias"][3] = np.nan
    before = copied(model)
    step(model)
    assert set(same_bits(before, copied(model))) == {SCALE, FINITE_STEPS}
    assert model.state[SCALE] == FIRST / 2


def test_the_scale_grows_after_many_finite_steps_and_has_ends():
    x, w = mg.variable((2,), name="x", init=1.0), mg.variable((2,), name="w", init=1.0)
    scaling = LossScale()
    (gradient,) = scaling.gradients(mg.ops.sum(x * w), [w])
    updates = scaling.guarded({w: w - gradient})
    program, state = mg.compile(outputs={}, updates=updates), mg.State.initial([x, *updates])

    def after(scale: float, steps: int, factor: float = 1.0) -> tuple[float, int]:
        state[SCALE], state[FINITE_STEPS], state["x"] = scale, steps, [factor, 1.0]
        program(state)
        return float(state[SCALE]), int(state[FINITE_STEPS])

    assert after(FIRST, GROWTH_STEPS - 2) == (FIRST, GROWTH_STEPS - 1)
    assert after(FIRST, GROWTH_STEPS - 1) == (2 * FIRST, 0)
    assert after(LARGEST, GROWTH_STEPS - 1) == (LARGEST, 0)
    for bad in (np.inf, -np.inf, np.nan):
        assert after(FIRST, 7, bad) == (FIRST / 2, 0)
        assert after(1.0, 7, bad) == (1.0, 0)
    assert np.isfinite(state["w"]).all()


def test_gradients_that_float16_has_no_numbers_for_are_kept_by_the_scale():
    """The adjoints are 2⁻²⁷: half of the smallest number of float16 is 2⁻²⁵."""
    x, w = mg.variable((4, 3), name="x", init=1.0), mg.variable((3, 2), name="w", init=1.0)
    forward = mixed_precision(mg.Graph({"loss": mg.ops.sum(x @ w) * 2.0**-27}), "float16")
    loss, weight, scaling = forward.outputs["loss"], forward.variable("w"), LossScale()
    plain, scaled = mg.gradients(loss, [weight])[0], scaling.gradients(loss, [weight])[0]
    state = mg.State.initial(mg.Graph({"g": scaled}).variables)
    program = mg.compile({"plain": plain, "scaled": scaled, "finite": scaling.finite})
    found = program(state)
    assert not found["plain"].any()
    assert (found["scaled"] == 4 * 2.0**-27).all() and found["finite"]


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("half", HALVES)
def test_digits_are_learned_as_in_float32(half: str):
    (x, y), (xt, yt) = datasets.digits()
    found = {}
    for precision in ("float32", half):
        model = network(precision)
        model.fit(x, y, epochs=6, batch_size=64, verbose=0)
        found[precision] = model.evaluate(xt, yt)["accuracy"]
        assert all(v.dtype == np.float32 for v in model.state.values() if v.dtype.kind == "f")
    assert found["float32"] > 0.93 and found[half] > found["float32"] - 0.02, found


@pytest.mark.parametrize("half", HALVES)
def test_a_resumed_fit_has_the_same_bits(half: str, tmp_path: Any):
    x, y = digits(200)
    whole = network(half)
    whole.fit(x, y, epochs=3, batch_size=32, verbose=0)
    first = network(half)
    first.fit(x, y, epochs=1, batch_size=32, verbose=0)
    again = mg.load_model(first.save(tmp_path / "half.safetensors"))
    assert again.training.precision == half
    again.fit(x, y, epochs=3, batch_size=32, verbose=0, resume=True)
    assert same_bits(whole.state, again.state) == []
    assert np.array_equal(whole.predict(x), again.predict(x))


def test_the_c_backend_computes_half_with_numpys_kernels_in_between():
    x, w, b = mg.variable((6, 5), name="x"), mg.variable((5, 4), name="w"), mg.variable((4,), name="b")
    plain = mg.Graph({"y": mg.ops.softmax(mg.ops.relu(x @ w + b) @ mg.ops.transpose(w) * 0.5)})
    rng = np.random.default_rng(0)
    state = mg.State({v.label: rng.standard_normal(v.shape).astype("float32") for v in (x, w, b)})
    both = {half: mixed_precision(plain, half).outputs["y"] for half in HALVES}
    here, there = (mg.compile(both, backend=name)(state) for name in ("numpy", "c"))
    for half, unit in (("float16", 2.0**-11), ("bfloat16", 2.0**-8)):
        exact = mg.compile(plain)(state)["y"]
        np.testing.assert_allclose(there[half], here[half], atol=2 * unit)
        np.testing.assert_allclose(there[half], exact, atol=16 * unit)


@pytest.mark.slow
@pytest.mark.parametrize("half", HALVES)
def test_digits_are_learned_on_the_c_backend(half: str):
    (x, y), (xt, yt) = datasets.digits()
    model = network(half, "c")
    model.fit(x, y, epochs=6, batch_size=64, verbose=0)
    assert model.evaluate(xt, yt)["accuracy"] > 0.93
