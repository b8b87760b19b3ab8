"""Eight ways to misuse the API: each says what was expected, what came, and the user's own line; nothing changes."""

from __future__ import annotations

import os

import numpy as np
import pytest

import minigraph as mg
from minigraph import layers
from minigraph.errors import (
    ArgumentError,
    DataError,
    DTypeError,
    GradientError,
    GraphError,
    MinigraphError,
    ModelFormatError,
    ShapeError,
)

HERE = os.path.abspath(__file__)
RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((20, 4)).astype(np.float32), RNG.integers(0, 3, 20)


def model() -> mg.Model:
    with mg.fresh_names():
        x = mg.Input((4,), name="x")
        h = layers.BatchNormalization(momentum=0.1)(layers.Dense(5, activation="relu")(x))
        made = mg.Model(x, layers.Dense(3)(h))
    made.compile("adam", mg.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    made.fit(X, Y, batch_size=10, epochs=3, verbose=0)
    return made


def misuse(error: type[MinigraphError], line, *parts: str, hint: str | None = None, before: int = 0) -> None:
    """Call `line`, a lambda of one line; check the error's class, that all parts are in it, and where it points.

    That is the line itself, or, for a fault of a node, the line `before` it that built the node.
    """
    with pytest.raises(error) as caught:
        line()
    text = str(caught.value)
    assert type(caught.value) is error
    for part in parts:
        assert part in text, text
    where = f"{HERE}:{line.__code__.co_firstlineno - before}"
    assert caught.value.where == where and f"at:       {where}" in text
    if hint is not None:
        assert hint in (caught.value.hint or "")


@pytest.fixture
def used():
    """A trained model; afterwards its state and progress must be what they were, and it must still learn."""
    made = model()
    state, progress = made.state.copy(), vars(made.progress).copy()
    yield made
    assert all(state[k].tobytes() == v.tobytes() for k, v in made.state.items()) and len(state) == len(made.state)
    assert progress["epoch"] == made.progress.epoch or made.progress.epoch == 0
    twin = model()
    for each in (made, twin):
        each.fit(X, Y, batch_size=10, verbose=0)
    assert all(twin.state[k].tobytes() == v.tobytes() for k, v in made.state.items())


# --- 1. wrong shape --------------------------------------------------------------------------------------------------


def test_wrong_shape(used):
    wide = np.zeros((6, 7), np.float32)
    parts = ("input 'x' has the wrong shape", "expected: float32[N,4]", "got:      float32[6,7]")
    misuse(ShapeError, lambda: used.predict(wide), *parts)
    misuse(ShapeError, lambda: used.evaluate(wide, Y[:6]), *parts)
    misuse(ShapeError, lambda: used.fit(wide, Y[:6], verbose=0), *parts)
    misuse(ShapeError, lambda: used.train_on_batch(wide, Y[:6]), *parts)


def test_wrong_shape_in_the_definition():
    a, b = mg.Input((4,), name="a"), mg.Input((5,), name="b")
    misuse(ShapeError, lambda: a + b, "add: operands cannot be broadcast", "[N,4] and [N,5]", "a: float32[N,4]")
    misuse(ShapeError, lambda: mg.ops.matmul(a, mg.variable((5, 3), name="w")), "matmul", "w: float32[5,3]")
    image = mg.Input((4, 4, 3), name="image")
    misuse(ShapeError, lambda: layers.Conv2D(8, 5)(image), "window is larger", "at least 5", hint='padding="same"')


def test_lengths_that_differ(used):
    misuse(DataError, lambda: used.fit(X, Y[:-1], verbose=0), "differ in length", "'x': 20", "'label': 19")


# --- 2. wrong dtype --------------------------------------------------------------------------------------------------


def test_wrong_dtype(used):
    parts = ("input 'x' has the wrong dtype", "expected: float32", "got:      complex64")
    misuse(DTypeError, lambda: used.predict(X.astype(np.complex64)), *parts)
    misuse(DTypeError, lambda: used.predict(X.astype(str)), "expected: float32", "got:      <U")
    misuse(DataError, lambda: used.fit(X.astype(str), Y, verbose=0), "x is not numeric", "got:      dtype <U")


def test_wrong_dtype_in_the_definition():
    x, i = mg.Input((4,), name="x"), mg.Input((4,), name="i", dtype="int64")
    misuse(DTypeError, lambda: x + i, "expected: one dtype", "int64", hint="cast")
    misuse(DTypeError, lambda: layers.Softmax()(i), "only defined for floats", "expected: a float dtype", "int64[N,4]")
    misuse(DTypeError, lambda: mg.Input((4,), dtype="float31"), "float31")


# --- 3. wrong rank ---------------------------------------------------------------------------------------------------


def test_wrong_rank(used):
    parts = ("input 'x' has the wrong shape", "expected: float32[N,4]", "got:      float32[4]")
    misuse(ShapeError, lambda: used.predict(X[0]), *parts, hint="the batch axis comes first")
    misuse(ShapeError, lambda: used.fit(X[:, None], Y, verbose=0), "got:      float32[20,1,4]", hint="batch axis")


def test_wrong_rank_in_the_definition():
    x = mg.Input((28, 28), name="x")
    misuse(ShapeError, lambda: layers.Conv2D(8, 3)(x), "images need 4 axes", "got:      3 axes: float32[N,28,28]")
    misuse(ShapeError, lambda: layers.MaxPooling2D()(x), "images need 4 axes", "3 axes")
    misuse(ShapeError, lambda: layers.Dense(3)(mg.variable((3,))), "at least 2 axes", "float32[3]")


# --- 4. unknown argument ---------------------------------------------------------------------------------------------


def test_unknown_argument():
    parts = ("Conv2D: got an unexpected keyword argument 'stride'", "got:      stride", "expected: filters, kernel")
    misuse(ArgumentError, lambda: layers.Conv2D(8, 3, stride=2), *parts, hint="did you mean strides?")
    misuse(ArgumentError, lambda: mg.optimizers.SGD(0.1, momentun=0.9), "momentun", hint="did you mean momentum?")
    misuse(ArgumentError, lambda: mg.losses.BinaryCrossentropy(from_logit=True), "from_logit", hint="from_logits")


def test_unknown_name(used):
    misuse(ArgumentError, lambda: used.compile("adan", "mse"), "no optimiser is called 'adan'", hint="adam")
    misuse(ArgumentError, lambda: used.compile("sgd", "msle"), "no loss is called 'msle'", "mse", hint="mse")
    misuse(ArgumentError, lambda: used.compile("sgd", "mse", metrics=["acuracy"]), "'acuracy'", hint="accuracy")
    misuse(DataError, lambda: used.predict({"X": X}), "inputs do not fit", "expected: x", "got:      X")


@pytest.mark.parametrize("line", [
    lambda: identity().compile(optimiser="sgd"),
    lambda: identity().fit(X, Y, epoch=3),
    lambda: layers.regularizers.L2(l=0.1),
    lambda: layers.initializers.VarianceScaling(scal=2.0),
    lambda: mg.Input((3,), nme="x"),
], ids=["compile", "fit", "L2", "VarianceScaling", "Input"])  # fmt: skip
def test_unknown_argument_of_other_functions(line):
    with pytest.raises(ArgumentError):
        line()


def identity() -> mg.Model:
    x = mg.Input((3,))
    return mg.Model(x, x)


def test_unknown_backend(used):
    misuse(ArgumentError, lambda: mg.compile({"y": mg.variable((3,))}, backend="nunpy"), "'nunpy'", "numpy")


def test_unknown_backend_of_a_model():
    with pytest.raises(ArgumentError):
        model().compile("sgd", "mse", backend="nunpy")


# --- 5. no gradient path ---------------------------------------------------------------------------------------------


def test_no_gradient_path():
    x, w, v = mg.Input((4,), name="x"), mg.variable((4, 1), name="w"), mg.variable((3,), name="v")
    loss = mg.ops.mean(mg.ops.matmul(x, w))
    misuse(GradientError, lambda: mg.gradients(loss, [w, v]), "v", before=2)
    misuse(GradientError, lambda: mg.gradients(mg.ops.matmul(x, w), [w]), "scalar", "float32[N,1]")
    rounded = mg.ops.mean(mg.ops.cast(mg.ops.argmax(mg.ops.matmul(x, w)), "float32"))
    misuse(GradientError, lambda: mg.gradients(rounded, [w]), "w", before=5)


def test_nothing_to_train():
    x = mg.Input((4,), name="x")
    still = mg.Model(x, layers.Softmax()(x))
    misuse(GraphError, lambda: still.compile("sgd", "mse"), "nothing to train", "expected: a trainable variable")


# --- 6. NaN in data --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_in_data(used, value):
    bad = X.copy()
    bad[7, 2] = value
    parts = (f"x[7, 2] is {value}", "expected: finite numbers", "got:      1 of 80 values not finite")
    misuse(DataError, lambda: used.fit(bad, Y, verbose=0), *parts)
    misuse(DataError, lambda: used.evaluate(bad, Y), *parts)
    misuse(DataError, lambda: used.train_on_batch(bad, Y), *parts)
    misuse(DataError, lambda: used.fit(X, Y, validation_data=(bad, Y), verbose=0), *parts)


# --- 7. file truncated -----------------------------------------------------------------------------------------------


def test_file_truncated(used, tmp_path):
    path = used.save(tmp_path / "m.safetensors")
    data = path.read_bytes()
    for length in (0, 5, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(ModelFormatError) as caught:
            mg.load_model(path)
        assert any(word in str(caught.value) for word in ("truncated", "too short", "damaged")), str(caught.value)


def test_file_truncated_says_how_much_is_missing(tmp_path):
    path = tmp_path / "m.safetensors"
    mg.Model(x := mg.Input((4,), name="x"), layers.Dense(2)(x)).save(path)
    size = int.from_bytes(path.read_bytes()[:8], "little")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelFormatError) as caught:
        mg.load_model(path)
    text = str(caught.value)
    assert f"expected: a header of {size} bytes" in text and "got:      92 bytes after the length" in text
    assert "older checkpoint" in caught.value.hint


def test_file_truncated_names_the_users_line(tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(bytes(100))
    misuse(ModelFormatError, lambda: mg.load_model(path))


# --- 8. label out of range -------------------------------------------------------------------------------------------


def test_label_out_of_range(used):
    for index, label in ((4, 3), (9, -1), (0, 255)):
        bad = Y.copy()
        bad[index] = label
        parts = (f"labels[{index}] = {label} is not a class", "expected: integers in 0..2", f"got:      {label}")
        misuse(DataError, lambda bad=bad: used.fit(X, bad, verbose=0), *parts, hint="from 0" if label == 3 else None)
        misuse(DataError, lambda bad=bad: used.evaluate(X, bad), *parts)
        misuse(DataError, lambda bad=bad: used.fit(X, Y, validation_data=(X, bad), verbose=0), *parts)


def test_labels_that_are_no_classes(used):
    misuse(DataError, lambda: used.fit(X, Y + 0.0, verbose=0), "labels are not integers", "float64", hint="astype")
    hot = np.eye(3, dtype=np.float32)[Y]
    misuse(DataError, lambda: used.fit(X, hot, verbose=0), "expected: integers in 0..2", hint="argmax")
    misuse(DataError, lambda: used.fit(X, verbose=0), "labels are missing", "expected: y")
