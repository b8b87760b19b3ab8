"""Keras' names and layouts of Inception V3 and Xception, and with weights by these names PyTorch's numbers."""

import numpy as np
import pytest

import minigraph as mg
from minigraph import ops
from minigraph.errors import ArgumentError, ModelFormatError
from minigraph.ir.types import known
from minigraph.models import inception_v3, load_weights, xception
from minigraph.models.keras_names import NAMES, numbered, renumbered
from models.zoo import images

# The last images are 1×1 and 2×2. In Xception's 1×1 nothing would depend on the last shortcut's β: what follows is
# linear, and takes the mean off.
SMALL = {"inception_v3": ((75, 75, 3), inception_v3), "xception": ((39, 45, 3), xception)}

# Some of Keras' variables, counted off by hand in the order in which keras.applications makes the layers.
KNOWN = {
    "inception_v3": {
        "conv2d/kernel": (3, 3, 3, 32), "conv2d_1/kernel": (3, 3, 32, 32), "conv2d_4/kernel": (3, 3, 80, 192),
        "conv2d_7/kernel": (5, 5, 48, 64), "conv2d_26/kernel": (3, 3, 288, 384),
        "conv2d_32/kernel": (1, 7, 128, 128), "conv2d_35/kernel": (7, 1, 128, 128),
        "conv2d_71/kernel": (3, 3, 192, 320), "conv2d_78/kernel": (1, 3, 384, 384),
        "conv2d_79/kernel": (3, 1, 384, 384), "conv2d_81/kernel": (3, 3, 448, 384),
        "conv2d_93/kernel": (1, 1, 2048, 192),
        "batch_normalization/beta": (32,), "batch_normalization_93/moving_variance": (192,),
        "predictions/kernel": (2048, 1000), "predictions/bias": (1000,),
    },
    "xception": {
        "block1_conv1/kernel": (3, 3, 3, 32), "block1_conv2_bn/gamma": (64,), "conv2d/kernel": (1, 1, 64, 128),
        "conv2d_3/kernel": (1, 1, 728, 1024), "batch_normalization_3/moving_mean": (1024,),
        "block2_sepconv1/depthwise_kernel": (3, 3, 64, 1), "block2_sepconv1/pointwise_kernel": (1, 1, 64, 128),
        "block12_sepconv3_bn/beta": (728,), "block14_sepconv2/depthwise_kernel": (3, 3, 1536, 1),
        "block14_sepconv2/pointwise_kernel": (1, 1, 1536, 2048), "predictions/bias": (1000,),
    },
}  # fmt: skip


def stored_shapes(model):
    """Return the names and shapes that Keras' weights of a model have."""
    found = {}
    for variable in model.graph.variables:
        name, conversion = NAMES[model.name](variable.label)
        assert name not in found
        found[name] = conversion.stored(tuple(map(known, variable.shape)))
    return found


def weights_of(model, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.uniform(0.5, 1.5, shape).astype("float32") for name, shape in stored_shapes(model).items()}


@pytest.fixture(scope="module", params=SMALL)
def small(request):
    """A small network of each family: its weights change from test to test."""
    shape, network = SMALL[request.param]
    return network(shape, classes=10, width=0.125)


@pytest.mark.parametrize("network", [inception_v3, xception])
def test_names_and_shapes_are_those_that_keras_lists(network):
    found = stored_shapes(network())
    assert {name: found.get(name) for name in KNOWN[network.__name__]} == KNOWN[network.__name__]


def test_every_weight_is_loaded(small):
    weights = weights_of(small)
    load_weights(small, weights, "keras")
    for variable in small.graph.variables:
        name, conversion = NAMES[small.name](variable.label)
        expected = conversion.convert(weights[name], variable.shape)
        np.testing.assert_array_equal(small.state[variable.label], expected)


def test_a_depthwise_kernel_keeps_its_channels():
    model = xception((32, 32, 3), classes=10, width=0.125)
    weights = weights_of(model)
    weights["block2_sepconv1/depthwise_kernel"][:, :, 5, 0] = np.arange(9).reshape(3, 3)
    load_weights(model, weights, "keras")
    kernel = model.state["block2/sepconv1/depthwise_kernel"]
    np.testing.assert_array_equal(kernel[:, :, 0, 5], np.arange(9).reshape(3, 3))


@pytest.mark.parametrize("name", ["predictions/kernel", "conv2d/kernel", "batch_normalization_3/beta"])
def test_what_is_missing_is_named_and_nothing_changes(small, name):
    weights = weights_of(small, seed=1)
    del weights[name]
    before = small.state.copy()
    with pytest.raises(ModelFormatError, match=name):
        load_weights(small, weights, "keras")
    assert all(np.array_equal(small.state[label], array) for label, array in before.items())


def test_a_file_of_a_second_model_of_a_session_loads_renumbered(small, tmp_path):
    save_file = pytest.importorskip("safetensors.numpy").save_file
    weights = weights_of(small, seed=2)
    later = {_later(name, 94): array for name, array in weights.items()}
    assert later.keys() != weights.keys()
    with pytest.raises(ModelFormatError):
        load_weights(small, later, "keras")
    renamed = renumbered(later)
    assert renamed.keys() == weights.keys()
    save_file(renamed, tmp_path / "weights.safetensors")
    load_weights(small, tmp_path / "weights.safetensors", "keras")
    np.testing.assert_array_equal(small.state["head/predictions/bias"], weights["predictions/bias"])


def _later(name, count):
    layer, _, parameter = name.rpartition("/")
    for kind in ("conv2d", "batch_normalization"):
        if layer == kind or layer.startswith(f"{kind}_"):
            return f"{numbered(kind, int(layer.removeprefix(kind).removeprefix('_') or 0) + count)}/{parameter}"
    return name


def test_renumbering_what_begins_at_0_changes_nothing(small):
    weights = weights_of(small)
    assert renumbered(weights) == weights
    assert list(renumbered(weights)) == list(weights)


def test_each_kind_of_layer_is_counted_on_its_own():
    names = ["conv2d_7/kernel", "conv2d_9/kernel", "batch_normalization_2/beta", "my_conv2d_7/kernel"]
    assert list(renumbered(dict.fromkeys(names))) == [
        "conv2d/kernel", "conv2d_2/kernel", "batch_normalization/beta", "my_conv2d_7/kernel",
    ]  # fmt: skip


@pytest.mark.parametrize("label", ["stem/conv6/kernel", "mixed0/branch1x1/conv1_bn/scale", "head/kernel", "kernel"])
@pytest.mark.parametrize("family", SMALL)
def test_labels_of_other_networks_have_no_name(family, label):
    with pytest.raises(ArgumentError, match="keras"):
        NAMES[family](label)


# --- PyTorch ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [0.125, pytest.param(1.0, marks=pytest.mark.slow)])
@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("family", SMALL)
def test_pytorch_computes_the_same(family, training, width):
    """Outputs, all gradients and all moving averages agree in float64, to 1e-9 of the largest element of each."""
    torch = pytest.importorskip("torch")
    from models import torch_keras_networks as keras

    shape, network = SMALL[family]
    model = network(shape, classes=10, width=width, dtype="float64")
    x = images(model, number=4)
    cotangent = np.random.default_rng(1).normal(size=(4, 10))
    layers = keras.Layers(training, width)
    image = torch.from_numpy(x).requires_grad_()
    logits = getattr(keras, family)(layers, image.permute(0, 3, 1, 2), 10)
    (logits * torch.from_numpy(cotangent)).sum().backward()
    expected = {name: array.grad.numpy() for name, array in layers.weights.items() if array.requires_grad}
    expected |= {name: array.detach().numpy() for name, array in layers.moved.items()}
    expected |= {"logits": logits.detach().numpy(), "image": image.grad.numpy()}

    load_weights(model, {name: array.detach().numpy() for name, array in layers.weights.items()}, "keras")
    got = computed(model, x, cotangent, training)
    assert got.keys() == expected.keys()
    apart = {name: np.abs(got[name] - expected[name]).max() / np.abs(expected[name]).max() for name in got}
    worst = max(apart, key=apart.get)
    assert apart[worst] <= 1e-9, worst


def computed(model, x, cotangent, training):
    """Return logits, gradients of <logits, cotangent> and, in training, new moving averages, by Keras' names."""
    graph = model.lower("training" if training else "inference", batch_size=len(x))
    logits = graph.outputs["logits"]
    trained = [v for v in graph.variables if v.op.trainable]
    wanted = [*graph.inputs, *trained]
    grads = mg.gradients(ops.sum(logits * ops.constant(cotangent)), wanted)
    outputs = {"logits": logits, **{node.label: grad for node, grad in zip(wanted, grads, strict=True)}}
    state = model.state.copy()
    results = mg.compile(outputs, graph.updates)(state, image=x)
    results |= {target.label: state[target.label] for target in graph.updates}
    return {**dict(_by_keras_names(model, results)), "logits": results["logits"], "image": results["image"]}


def _by_keras_names(model, results):
    for variable in model.graph.variables:
        if variable.label in results:
            name, conversion = NAMES[model.name](variable.label)
            yield name, results[variable.label].reshape(conversion.stored(variable.shape))
