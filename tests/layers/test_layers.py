"""Layers: the types they give, the variables they make, the numbers they compute, and how they refuse."""

from __future__ import annotations

import os

import numpy as np
import pytest

import minigraph as mg
from minigraph import layers
from minigraph.errors import ArgumentError, GraphError, MinigraphError, ShapeError
from minigraph.ir.leaves import Variable

RNG = np.random.default_rng(0)
HERE = os.path.basename(__file__)


@pytest.fixture(autouse=True)
def _names():
    with mg.fresh_names():
        yield


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def variables(node: mg.Node) -> dict[str, tuple]:
    """Name → (shape, trainable) of all that a node needs."""
    return {v.label: (v.shape, v.op.trainable) for v in mg.Graph({"y": node}).variables}


def run(node: mg.Node, state: mg.State | None = None, mode: str = "inference", **inputs) -> np.ndarray:
    graph = mg.lower(mg.Graph({"y": node}), mode)
    state = mg.State.initial(graph.variables) if state is None else state
    return mg.compile(graph)(state, **inputs)["y"]


def filled(node: mg.Node) -> mg.State:
    """A state with drawn numbers in every variable; variances are positive."""
    return mg.State({
        v.label: np.abs(normal(*v.shape)) + 0.5 if v.label.endswith("variance") else normal(*v.shape)
        for v in mg.Graph({"y": node}).variables
    })  # fmt: skip


# --- types and variables ---------------------------------------------------------------------------------------------

IMAGE = (8, 8, 4)
TABLE = [
    # layer, input shape, output type, variables
    (lambda: layers.Dense(3), (5,), "float32[N,3]", {"dense/kernel": ((5, 3), True), "dense/bias": ((3,), True)}),
    (lambda: layers.Dense(3, use_bias=False), (5,), "float32[N,3]", {"dense/kernel": ((5, 3), True)}),
    (lambda: layers.Dense(3), (7, 5), "float32[N,7,3]",
     {"dense/kernel": ((5, 3), True), "dense/bias": ((3,), True)}),
    (lambda: layers.Conv2D(6, 3), IMAGE, "float32[N,6,6,6]",
     {"conv2d/kernel": ((3, 3, 4, 6), True), "conv2d/bias": ((6,), True)}),
    (lambda: layers.Conv2D(6, (1, 3), strides=2, padding="same", use_bias=False), IMAGE, "float32[N,4,4,6]",
     {"conv2d/kernel": ((1, 3, 4, 6), True)}),
    (lambda: layers.Conv2D(6, 3, groups=2, use_bias=False), IMAGE, "float32[N,6,6,6]",
     {"conv2d/kernel": ((3, 3, 2, 6), True)}),
    (lambda: layers.Conv2D(6, 3, dilation_rate=2, use_bias=False), IMAGE, "float32[N,4,4,6]",
     {"conv2d/kernel": ((3, 3, 4, 6), True)}),
    (lambda: layers.DepthwiseConv2D(3, depth_multiplier=2), IMAGE, "float32[N,6,6,8]",
     {"depthwise_conv2d/depthwise_kernel": ((3, 3, 1, 8), True), "depthwise_conv2d/bias": ((8,), True)}),
    (lambda: layers.SeparableConv2D(5, 3, depth_multiplier=2), IMAGE, "float32[N,6,6,5]",
     {"separable_conv2d/depthwise_kernel": ((3, 3, 1, 8), True),
      "separable_conv2d/pointwise_kernel": ((1, 1, 8, 5), True), "separable_conv2d/bias": ((5,), True)}),
    (lambda: layers.Conv2DTranspose(6, 3), IMAGE, "float32[N,10,10,6]",
     {"conv2d_transpose/kernel": ((3, 3, 6, 4), True), "conv2d_transpose/bias": ((6,), True)}),
    (lambda: layers.Conv2DTranspose(6, 3, strides=2, padding="same", use_bias=False), IMAGE, "float32[N,16,16,6]",
     {"conv2d_transpose/kernel": ((3, 3, 6, 4), True)}),
    (lambda: layers.Conv2DTranspose(6, 3, strides=2, use_bias=False), IMAGE, "float32[N,17,17,6]",
     {"conv2d_transpose/kernel": ((3, 3, 6, 4), True)}),
    (lambda: layers.Conv2DTranspose(6, 3, strides=2, output_padding=1, use_bias=False), IMAGE, "float32[N,18,18,6]",
     {"conv2d_transpose/kernel": ((3, 3, 6, 4), True)}),
    (lambda: layers.BatchNormalization(), IMAGE, "float32[N,8,8,4]",
     {"batch_normalization/gamma": ((4,), True), "batch_normalization/beta": ((4,), True),
      "batch_normalization/moving_mean": ((4,), False), "batch_normalization/moving_variance": ((4,), False)}),
    (lambda: layers.BatchNormalization(axis=1, center=False, scale=False), IMAGE, "float32[N,8,8,4]",
     {"batch_normalization/moving_mean": ((8,), False), "batch_normalization/moving_variance": ((8,), False)}),
    (lambda: layers.BatchNormalization(trainable=False, cumulative=True), (4,), "float32[N,4]",
     {"batch_normalization/gamma": ((4,), False), "batch_normalization/beta": ((4,), False),
      "batch_normalization/moving_mean": ((4,), False), "batch_normalization/moving_variance": ((4,), False),
      "batch_normalization/count": ((), False)}),
    (lambda: layers.Dropout(0.5), (5,), "float32[N,5]", {}),
    (lambda: layers.Flatten(), IMAGE, "float32[N,256]", {}),
    (lambda: layers.Reshape((16, -1)), IMAGE, "float32[N,16,16]", {}),
    (lambda: layers.MaxPooling2D(), IMAGE, "float32[N,4,4,4]", {}),
    (lambda: layers.MaxPooling2D(3, strides=1), IMAGE, "float32[N,6,6,4]", {}),
    (lambda: layers.AveragePooling2D(3, padding="same"), IMAGE, "float32[N,3,3,4]", {}),
    (lambda: layers.GlobalAveragePooling2D(), IMAGE, "float32[N,4]", {}),
    (lambda: layers.GlobalAveragePooling2D(keepdims=True), IMAGE, "float32[N,1,1,4]", {}),
    (lambda: layers.GlobalMaxPooling2D(), IMAGE, "float32[N,4]", {}),
    (lambda: layers.ZeroPadding2D(((1, 2), (3, 4))), IMAGE, "float32[N,11,15,4]", {}),
    (lambda: layers.ZeroPadding2D((1, 2)), IMAGE, "float32[N,10,12,4]", {}),
    (lambda: layers.Activation("relu"), IMAGE, "float32[N,8,8,4]", {}),
    (lambda: layers.ReLU(), IMAGE, "float32[N,8,8,4]", {}),
    (lambda: layers.LeakyReLU(), IMAGE, "float32[N,8,8,4]", {}),
    (lambda: layers.Softmax(), IMAGE, "float32[N,8,8,4]", {}),
]  # fmt: skip


@pytest.mark.parametrize(("make", "shape", "type", "expected"), TABLE, ids=range(len(TABLE)))
def test_output_type_and_variables(make, shape, type, expected):
    y = make()(mg.Input(shape, name="x"))
    assert str(y.type) == type
    assert variables(y) == expected


@pytest.mark.parametrize(("make", "shape", "type", "expected"), TABLE, ids=range(len(TABLE)))
def test_numbers_have_the_inferred_shape_and_the_text_reads_back(make, shape, type, expected):
    y = make()(mg.Input(shape, name="x"))
    value = run(y, x=normal(3, *shape))
    assert f"float32[N,{','.join(map(str, value.shape[1:]))}]" == type and len(value) == 3
    assert np.isfinite(value).all()
    text = str(mg.Graph({"y": y}))
    assert str(mg.parse(text)) == text


def test_merging_layers():
    a, b = mg.Input((3, 4), name="a"), mg.Input((3, 4), name="b")
    x, y = normal(2, 3, 4), normal(2, 3, 4)
    np.testing.assert_array_equal(run(layers.Add()([a, b]), a=x, b=y), x + y)
    np.testing.assert_array_equal(run(layers.Add()([a, b, a]), a=x, b=y), x + y + x)
    np.testing.assert_array_equal(run(layers.Multiply()([a, b]), a=x, b=y), x * y)
    np.testing.assert_array_equal(run(layers.Concatenate()([a, b]), a=x, b=y), np.concatenate([x, y], -1))
    np.testing.assert_array_equal(run(layers.Concatenate(axis=1)([a, b]), a=x, b=y), np.concatenate([x, y], 1))


def test_sequential_is_its_layers_in_a_row():
    x = mg.Input((5,), name="x")
    y = layers.Sequential([layers.Dense(4, activation="relu"), lambda h: h * 2.0, layers.Dense(3)])(x)
    assert [n.removeprefix("sequential/") for n in variables(y)] == [
        "dense/kernel", "dense/bias", "dense_1/kernel", "dense_1/bias",
    ]  # fmt: skip
    state, data = filled(y), normal(6, 5)
    w = {k.removeprefix("sequential/"): v for k, v in state.items()}
    hidden = np.maximum(data @ w["dense/kernel"] + w["dense/bias"], 0) * 2
    close(run(y, state, x=data), hidden @ w["dense_1/kernel"] + w["dense_1/bias"])


def test_defaults_are_those_of_keras():
    dense, conv, norm = layers.Dense(3), layers.Conv2D(3, 3), layers.BatchNormalization()
    assert dense.use_bias and conv.use_bias and conv.strides == (1, 1) and conv.padding == "valid"
    assert (norm.moving.momentum, norm.epsilon, norm.axis) == (0.99, 1e-3, -1)
    assert layers.BatchNorm is layers.BatchNormalization
    x = mg.Input((5,), name="x")
    inits = {v.label: v.op.init for v in mg.Graph({"y": norm(dense(x))}).variables}
    constant = layers.initializers.Constant
    assert inits == {
        "dense/kernel": layers.initializers.glorot_uniform(), "dense/bias": constant(0.0),
        "batch_normalization/gamma": constant(1.0), "batch_normalization/beta": constant(0.0),
        "batch_normalization/moving_mean": constant(0.0), "batch_normalization/moving_variance": constant(1.0),
    }  # fmt: skip
    assert layers.LeakyReLU().negative_slope == 0.3 and layers.MaxPooling2D().pool_size == 2


# --- numbers ---------------------------------------------------------------------------------------------------------


def close(value: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(value, expected, rtol=2e-5, atol=2e-5)


def test_dense():
    y = layers.Dense(3, activation="tanh")(mg.Input((7, 5), name="x"))
    state, x = filled(y), normal(4, 7, 5)
    close(run(y, state, x=x), np.tanh(x @ state["dense/kernel"] + state["dense/bias"]))


def test_convolution_of_one_by_one_is_a_matrix_product():
    y = layers.Conv2D(6, 1, activation="relu")(mg.Input(IMAGE, name="x"))
    state, x = filled(y), normal(2, *IMAGE)
    close(run(y, state, x=x), np.maximum(x @ state["conv2d/kernel"][0, 0] + state["conv2d/bias"], 0))


def convolve(x: np.ndarray, kernel: np.ndarray, stride: int = 1) -> np.ndarray:
    """Valid cross-correlation, N,H,W,I · h,w,I,O, written from its definition."""
    h, w = kernel.shape[:2]
    rows, columns = (x.shape[1] - h) // stride + 1, (x.shape[2] - w) // stride + 1
    y = np.zeros((len(x), rows, columns, kernel.shape[3]))
    for i in range(rows):
        for j in range(columns):
            patch = x[:, i * stride : i * stride + h, j * stride : j * stride + w]
            y[:, i, j] = np.einsum("nhwi,hwio->no", patch, kernel)
    return y


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_convolution(stride):
    y = layers.Conv2D(6, (3, 2), strides=stride)(mg.Input(IMAGE, name="x"))
    state, x = filled(y), normal(2, *IMAGE)
    close(run(y, state, x=x), convolve(x, state["conv2d/kernel"], stride) + state["conv2d/bias"])


def test_padding_same_is_zero_padding_that_keeps_the_size():
    y = layers.Conv2D(6, 3, padding="same", use_bias=False)(mg.Input(IMAGE, name="x"))
    state, x = filled(y), normal(2, *IMAGE)
    close(run(y, state, x=x), convolve(np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), state["conv2d/kernel"]))


def test_separable_convolution_is_depthwise_then_pointwise():
    y = layers.SeparableConv2D(5, 3, depth_multiplier=2)(mg.Input(IMAGE, name="x"))
    state, x = filled(y), normal(2, *IMAGE)
    depth = state["separable_conv2d/depthwise_kernel"]  # channel c's outputs lie at 2c and 2c + 1
    parts = [convolve(x[..., c : c + 1], depth[..., 2 * c : 2 * c + 2]) for c in range(4)]
    point = state["separable_conv2d/pointwise_kernel"][0, 0]
    close(run(y, state, x=x), np.concatenate(parts, -1) @ point + state["separable_conv2d/bias"])


def test_transposed_convolution_is_the_adjoint_of_the_convolution():
    x = mg.Input((4, 4, 5), name="x")
    y = layers.Conv2DTranspose(3, 3, strides=2, use_bias=False)(x)
    state, data, other = filled(y), normal(2, 4, 4, 5), normal(2, 9, 9, 3)
    forward = convolve(other, state["conv2d_transpose/kernel"], 2)  # 9 × 9 × 3 → 4 × 4 × 5
    assert np.vdot(run(y, state, x=data), other) == pytest.approx(np.vdot(data, forward), rel=1e-4)


@pytest.mark.parametrize("shape, axis", [((5,), -1), ((4, 4, 5), -1), ((4, 3, 5), 1), ((6, 5), 2)])
@pytest.mark.parametrize("unbiased", [False, True])
def test_batch_norm_in_both_modes(shape, axis, unbiased):
    layer = layers.BatchNormalization(axis=axis, momentum=0.8, epsilon=1e-2, unbiased=unbiased)
    y = layer(mg.Input(shape, name="x"))
    state, x = filled(y), normal(7, *shape) * 3 + 1
    before = {k.split("/")[1]: v.astype(float) for k, v in state.items()}
    axes = tuple(a for a in range(x.ndim) if a != axis % x.ndim)
    wide = tuple(s if a == axis % x.ndim else 1 for a, s in enumerate(x.shape))

    def formula(mean, variance):
        scaled = (x - mean.reshape(wide)) / np.sqrt(variance.reshape(wide) + 1e-2)
        return before["gamma"].reshape(wide) * scaled + before["beta"].reshape(wide)

    close(run(y, state, x=x), formula(before["moving_mean"], before["moving_variance"]))
    assert all(np.array_equal(state[f"batch_normalization/{k}"], np.float32(v)) for k, v in before.items())

    mean, variance = x.mean(axes, dtype=float), x.var(axes, dtype=float)
    close(run(y, state, "training", x=x), formula(mean, variance))
    count = x.size // len(mean)
    into = variance * count / (count - 1) if unbiased else variance
    close(state["batch_normalization/moving_mean"], 0.8 * before["moving_mean"] + 0.2 * mean)
    close(state["batch_normalization/moving_variance"], 0.8 * before["moving_variance"] + 0.2 * into)


def test_frozen_batch_norm_uses_its_averages_in_training_too():
    y = layers.BatchNormalization(frozen=True)(mg.Input((5,), name="x"))
    state, x = filled(y), normal(7, 5)
    before = state.copy()
    np.testing.assert_array_equal(run(y, state, "training", x=x), run(y, state, x=x))
    assert all(np.array_equal(before[k], state[k]) for k in before)


def test_cumulative_batch_norm_averages_the_first_batches_equally():
    y = layers.BatchNormalization(cumulative=True, momentum=0.75)(mg.Input((5,), name="x"))
    graph = mg.lower(mg.Graph({"y": y}), "training")
    program, state = mg.compile(graph), mg.State.initial(graph.variables)
    batches = [normal(6, 5) + i for i in range(6)]
    expected = np.zeros(5)
    for i, batch in enumerate(batches):
        program(state, x=batch)
        weight = max(1 / (i + 1), 0.25)
        expected = (1 - weight) * expected + weight * batch.mean(0)
        close(state["batch_normalization/moving_mean"], expected)
    assert state["batch_normalization/count"] == 6


def test_batch_norm_of_one_value_per_channel_is_refused_in_training():
    y = layers.BatchNormalization()(mg.Input((5,), name="x"))  # this line
    line = test_batch_norm_of_one_value_per_channel_is_refused_in_training.__code__.co_firstlineno + 1
    with pytest.raises(ShapeError, match="more than one value per channel") as caught:
        mg.lower(mg.bind(mg.Graph({"y": y}), N=1), "training")
    assert caught.value.where.endswith(f"{HERE}:{line}")


def test_a_batch_of_one_is_refused_when_the_size_is_bound_later():
    graph = mg.lower(mg.Graph({"y": layers.BatchNormalization()(mg.Input((5,), name="x"))}), "training")
    with pytest.raises(ShapeError, match="more than one value per channel"):
        mg.compile(graph)(mg.State.initial(graph.variables), x=normal(1, 5))


def test_dropout_keeps_the_mean_and_does_nothing_in_inference():
    y = layers.Dropout(0.25, seed=3)(mg.Input((1000,), name="x"))
    graph = mg.lower(mg.Graph({"y": y}), "training")
    program, state = mg.compile(graph), mg.State.initial(graph.variables)
    x = np.ones((64, 1000), np.float32)
    first, second = program(state, x=x)["y"], program(state, x=x)["y"]
    assert set(np.unique(first)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs((first == 0).mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / x.size)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(run(y, x=x), x)


@pytest.mark.parametrize("name, formula", [
    ("linear", lambda x: x), ("relu", lambda x: np.maximum(x, 0)),
    ("leaky_relu", lambda x: np.where(x > 0, x, 0.2 * x)),
    ("elu", lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0)))), ("sigmoid", lambda x: 1 / (1 + np.exp(-x))),
    ("tanh", np.tanh), ("softplus", lambda x: np.log1p(np.exp(x))), ("silu", lambda x: x / (1 + np.exp(-x))),
    ("swish", lambda x: x / (1 + np.exp(-x))), ("exponential", np.exp),
    ("hard_sigmoid", lambda x: np.clip(x / 6 + 0.5, 0, 1)), ("hard_swish", lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
    ("hard_silu", lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
    ("softmax", lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)),
    ("log_softmax", lambda x: x - np.log(np.exp(x).sum(-1, keepdims=True))),
])  # fmt: skip
def test_activations_by_name(name, formula):
    x = normal(6, 5) * 3
    close(run(layers.Activation(name)(mg.Input((5,), name="x")), x=x), formula(x.astype(float)))


@pytest.mark.parametrize("arguments", [
    {}, {"max_value": 1.0}, {"negative_slope": 0.1}, {"negative_slope": 0.1, "max_value": 1.0}, {"threshold": 0.5},
    {"threshold": 0.5, "negative_slope": 0.1, "max_value": 1.5},
])  # fmt: skip
def test_relu_with_its_arguments(arguments):
    defaults = {"max_value": np.inf, "negative_slope": 0.0, "threshold": 0.0}
    top, slope, threshold = {**defaults, **arguments}.values()
    x = normal(9, 5) * 2
    expected = np.minimum(np.where(x >= threshold, x, slope * (x - threshold)), top)
    close(run(layers.ReLU(**arguments)(mg.Input((5,), name="x")), x=x), expected)


def test_pooling():
    x, node = normal(2, 6, 6, 3), mg.Input((6, 6, 3), name="x")
    tiles = x.reshape(2, 3, 2, 3, 2, 3)
    np.testing.assert_array_equal(run(layers.MaxPooling2D(2)(node), x=x), tiles.max((2, 4)))
    close(run(layers.AveragePooling2D(2)(node), x=x), tiles.mean((2, 4)))
    np.testing.assert_array_equal(run(layers.GlobalMaxPooling2D()(node), x=x), x.max((1, 2)))
    close(run(layers.GlobalAveragePooling2D()(node), x=x), x.mean((1, 2)))
    padded = run(layers.ZeroPadding2D(((1, 0), (0, 2)))(node), x=x)
    np.testing.assert_array_equal(padded, np.pad(x, ((0, 0), (1, 0), (0, 2), (0, 0))))


def test_average_pooling_counts_only_the_values_that_exist():
    x = np.ones((1, 5, 5, 1), np.float32)
    y = run(layers.AveragePooling2D(3, strides=1, padding="same")(mg.Input((5, 5, 1), name="x")), x=x)
    np.testing.assert_allclose(y, 1.0, rtol=1e-6)


# --- layouts ---------------------------------------------------------------------------------------------------------

BOTH_LAYOUTS = [
    lambda **k: layers.Conv2D(6, 3, **k),
    lambda **k: layers.Conv2D(6, 3, strides=2, padding="same", groups=2, **k),
    lambda **k: layers.Conv2D(6, 2, dilation_rate=2, padding=((1, 0), (0, 2)), **k),
    lambda **k: layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", **k),
    lambda **k: layers.SeparableConv2D(5, 3, strides=2, depth_multiplier=3, **k),
    lambda **k: layers.Conv2DTranspose(6, 3, strides=2, padding="same", **k),
    lambda **k: layers.Conv2DTranspose(6, 3, strides=2, groups=2, output_padding=1, **k),
    lambda **k: layers.MaxPooling2D(3, strides=2, padding="same", **k),
    lambda **k: layers.AveragePooling2D(3, strides=2, padding="same", **k),
    lambda **k: layers.GlobalAveragePooling2D(**k),
    lambda **k: layers.GlobalAveragePooling2D(keepdims=True, **k),
    lambda **k: layers.GlobalMaxPooling2D(**k),
    lambda **k: layers.ZeroPadding2D(((1, 2), (0, 3)), **k),
]


@pytest.mark.parametrize("make", BOTH_LAYOUTS, ids=range(len(BOTH_LAYOUTS)))
def test_channels_first_is_channels_last_transposed(make):
    last = make(name="last")(mg.Input((8, 7, 4), name="x"))
    first = make(name="first", data_format="channels_first")(mg.Input((4, 8, 7), name="x"))
    state, x = filled(last), normal(2, 8, 7, 4)
    turned = mg.State({k.replace("last", "first"): v for k, v in state.items()})  # kernels are H,W,I,O in both
    y = run(last, state, x=x)
    expected = y.transpose(0, 3, 1, 2) if y.ndim == 4 else y
    close(run(first, turned, x=np.ascontiguousarray(x.transpose(0, 3, 1, 2))), expected)


@pytest.mark.parametrize("layer", [layers.Conv2D(64, 3, name="c", data_format="channels_first"),
                                   layers.Conv2DTranspose(64, 3, name="c", data_format="channels_first")])  # fmt: skip
def test_channels_first_kernels_have_the_same_variance(layer):
    graph = mg.Graph({"y": layer(mg.Input((32, 8, 8), name="x"))})
    kernel = mg.State.initial(graph.variables)["c/kernel"]
    assert kernel.std() == pytest.approx(np.sqrt(2 / (9 * 32 + 9 * 64)), rel=0.02)


# --- names, scopes, sharing ------------------------------------------------------------------------------------------


def test_automatic_names_count():
    names = [layers.Dense(2).name, layers.Dense(2).name, layers.Conv2D(1, 1).name, layers.MaxPooling2D().name]
    names += [layers.Dense(2, name="mine").name, layers.Dense(2).name, layers.GlobalAveragePooling2D().name]
    names += [layers.LeakyReLU().name, layers.ReLU().name, layers.SeparableConv2D(1, 1).name]
    assert names == [
        "dense", "dense_1", "conv2d", "max_pooling2d", "mine", "dense_2", "global_average_pooling2d", "leaky_re_lu",
        "re_lu", "separable_conv2d",
    ]  # fmt: skip


def test_fresh_names_start_anew():
    def build() -> str:
        with mg.fresh_names():
            return str(mg.Graph({"y": layers.Dense(3)(layers.Dense(3)(mg.Input((3,))))}))

    assert build() == build()


def test_scopes_nest_and_reach_every_node():
    x = mg.Input((4,), name="x")
    with mg.scope("block1"):
        y = layers.Sequential([layers.Dense(3), layers.BatchNormalization()], name="head")(x)
    scopes = {n.origin.scope for n in mg.Graph({"y": y}).nodes if n is not x}
    assert scopes == {"block1/head/dense", "block1/head/batch_normalization"}
    assert y.origin.scope == "block1/head/batch_normalization"
    assert "block1/head/dense/kernel" in variables(y)


def test_a_node_knows_the_users_line():
    y = layers.Dense(3)(mg.Input((4,), name="x"))  # this line
    line = test_a_node_knows_the_users_line.__code__.co_firstlineno + 1
    assert y.origin.where.endswith(f"{HERE}:{line}")


def test_a_layer_called_twice_shares_its_variables():
    a, b = mg.Input((4,), name="a"), mg.Input((4,), name="b")
    layer = layers.Dense(3)
    both = layers.Add()([layer(a), layer(b)])
    assert list(variables(both)) == ["dense/kernel", "dense/bias"]
    state, x, y = filled(both), normal(2, 4), normal(2, 4)
    close(run(both, state, a=x, b=y), (x + y) @ state["dense/kernel"] + 2 * state["dense/bias"])


def test_a_shared_batch_norm_averages_both_uses():
    a, b = mg.Input((4,), name="a"), mg.Input((4,), name="b")
    layer = layers.BatchNormalization(momentum=0.5)
    both = layers.Add()([layer(a), layer(b)])
    graph = mg.lower(mg.Graph({"y": both}), "training")
    state, x, y = mg.State.initial(graph.variables), normal(6, 4), normal(6, 4)
    mg.compile(graph)(state, a=x, b=y)
    close(state["batch_normalization/moving_mean"], 0.25 * x.mean(0) + 0.5 * y.mean(0))


def test_two_layers_of_one_name_are_refused():
    x = mg.Input((4,), name="x")
    y = layers.Dense(4, name="same")(layers.Dense(4, name="same")(x))
    with pytest.raises(GraphError, match="two variables are called 'same/kernel'"):
        mg.Graph({"y": y})


# --- wrong use -------------------------------------------------------------------------------------------------------

TYPOS = [
    (lambda: layers.Conv2D(8, 3, stride=2), "strides"),
    (lambda: layers.Conv2D(8, 3, kernel_initialiser="zeros"), "kernel_initializer"),
    (lambda: layers.Dense(8, activaton="relu"), "activation"),
    (lambda: layers.BatchNormalization(momentun=0.9), "momentum"),
    (lambda: layers.Dropout(0.5, sed=1), "seed"),
    (lambda: layers.MaxPooling2D(pool_sizes=2), "pool_size"),
    (lambda: layers.SeparableConv2D(8, 3, depth_multipler=2), "depth_multiplier"),
    (lambda: layers.Conv2DTranspose(8, 3, output_pading=1), "output_padding"),
    (lambda: layers.LeakyReLU(negative_slop=0.1), "negative_slope"),
    (lambda: layers.Activation("rleu"), "relu"),
    (lambda: layers.Dense(8, activation="sigmod"), "sigmoid"),
    (lambda: layers.Dense(8, kernel_initializer="he_norml")(mg.Input((3,))), "he_normal"),
]


@pytest.mark.parametrize(("build", "meant"), TYPOS, ids=[meant for _, meant in TYPOS])
def test_a_wrong_argument_is_told_which_was_meant(build, meant):
    with pytest.raises(ArgumentError, match=f"did you mean {meant}") as caught:
        build()
    assert HERE in caught.value.where


WRONG = [
    (ArgumentError, lambda: layers.Dense(0)),
    (ArgumentError, lambda: layers.Dense("8")),
    (ArgumentError, lambda: layers.Conv2D(0, 3)),
    (ArgumentError, lambda: layers.Conv2D(8, 0)),
    (ArgumentError, lambda: layers.Conv2D(8, (3, 3, 3))),
    (ArgumentError, lambda: layers.Conv2D(8, 3, padding="sane")),
    (ArgumentError, lambda: layers.Conv2D(8, 3, data_format="NHWC")),
    (ArgumentError, lambda: layers.Conv2D(8)),
    (ArgumentError, lambda: mg.Input(3)),
    (ArgumentError, lambda: layers.Dense(8)(np.zeros((2, 3), np.float32))),
    (ArgumentError, lambda: layers.Add()([mg.Input((3,))])),
    (ArgumentError, lambda: layers.Add()(mg.Input((3,)))),
    (ArgumentError, lambda: layers.Dense(8, kernel_initializer=np.zeros)(mg.Input((3,)))),
    (ArgumentError, lambda: layers.Dense(8, kernel_regularizer="l1")(mg.Input((3,)))),
    (ArgumentError, lambda: layers.BatchNormalization()(mg.variable((3,)))),
    (ShapeError, lambda: layers.Conv2D(8, 3)(mg.Input((8, 8)))),
    (ShapeError, lambda: layers.Conv2D(8, 9)(mg.Input(IMAGE))),
    (ShapeError, lambda: layers.Conv2D(9, 3, groups=2)(mg.Input(IMAGE))),
    (ShapeError, lambda: layers.Dense(8)(mg.Input(()))),
    (ShapeError, lambda: layers.BatchNormalization(axis=7)(mg.Input((3,)))),
    (ShapeError, lambda: layers.Reshape((5, 5))(mg.Input((8, 8)))),
    (ShapeError, lambda: layers.Concatenate()([mg.Input((3, 4)), mg.Input((2, 4))])),
    (GraphError, lambda: layers.Dense(8, name="")),
]


@pytest.mark.parametrize(("error", "build"), WRONG, ids=range(len(WRONG)))
def test_wrong_use_names_the_users_line(error, build):
    with pytest.raises(error) as caught:
        build()
    assert HERE in caught.value.where


@pytest.mark.parametrize("build", [
    lambda: layers.BatchNormalization(momentum=2.0)(mg.Input((3,))),
    lambda: layers.BatchNormalization(epsilon=-1.0)(mg.Input((3,))),
    lambda: layers.Dropout(1.0)(mg.Input((3,))),
    lambda: layers.initializers.VarianceScaling(1.0, "fanin"),
    lambda: mg.optimizers.SGD(-1.0),
])  # fmt: skip
def test_wrong_values_in_dataclasses_name_the_users_line(build):
    with pytest.raises(ArgumentError) as caught:
        build()
    assert HERE in caught.value.where


@pytest.mark.parametrize("build", [
    lambda: layers.Conv2D(8, 3, groups=0)(mg.Input(IMAGE)),
    lambda: layers.Conv2D(8, 3, groups="2")(mg.Input(IMAGE)),
    lambda: layers.Conv2DTranspose(8, 3, groups=0)(mg.Input(IMAGE)),
    lambda: layers.DepthwiseConv2D(3, depth_multiplier=0)(mg.Input(IMAGE)),
    lambda: layers.SeparableConv2D(0, 3)(mg.Input(IMAGE)),
    lambda: layers.Conv2D((4, 5), 3)(mg.Input(IMAGE)),
    lambda: layers.ZeroPadding2D("same")(mg.Input(IMAGE)),
    lambda: layers.Sequential([3])(mg.Input(IMAGE)),
    lambda: layers.Activation(["relu"]),
    lambda: layers.Conv2D(8, 3, data_format=["channels_last"]),
    lambda: layers.initializers.VarianceScaling(scal=2.0),
    lambda: layers.regularizers.L2(l=0.1),
])  # fmt: skip
def test_wrong_values_are_refused(build):
    with pytest.raises(MinigraphError):
        build()


@pytest.mark.parametrize("build", [
    lambda: layers.Dense(np.int64(3))(mg.Input((4,))),
    lambda: layers.MaxPooling2D(np.int64(2))(mg.Input(IMAGE)),
    lambda: layers.Conv2D(np.int64(2), 3)(mg.Input(IMAGE)),
])  # fmt: skip
def test_numpy_integers_are_integers(build):
    build()


def test_every_variable_of_a_layer_can_be_initialised_and_named():
    x = mg.Input(IMAGE, name="x")
    y = layers.SeparableConv2D(
        5, 3, depthwise_initializer="ones", pointwise_initializer=2.0, bias_initializer="he_normal",
        depthwise_regularizer="l2", pointwise_regularizer=layers.regularizers.L2(0.5), name="s",
    )(x)  # fmt: skip
    found = {v.label: v.op for v in mg.Graph({"y": y}).variables}
    assert all(isinstance(op, Variable) for op in found.values())
    assert found["s/depthwise_kernel"].regularizer == layers.regularizers.L2(0.01)
    assert found["s/pointwise_kernel"].regularizer == layers.regularizers.L2(0.5)
    state = mg.State.initial(mg.Graph({"y": y}).variables)
    assert (state["s/depthwise_kernel"] == 1).all() and (state["s/pointwise_kernel"] == 2).all()
