"""Loading weights: every name and layout of a family, all or nothing, and errors that name the tensor."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save_file

from minigraph.errors import ArgumentError, ModelFormatError
from minigraph.models import (
    densenet121,
    lenet5,
    load_weights,
    mobilenet_v2,
    preact_resnet18,
    resnet18,
    resnet34,
    resnet50,
    vgg11,
    vgg13,
    vgg16,
)
from minigraph.models.torch_names import NAMES
from minigraph.models.weights import OUTPUT_FIRST, PER_CHANNEL, AfterFlatten

# Of each family some names of torchvision's state_dict that no rule may miss, by our label.
KNOWN = {
    resnet18: {
        "stem/conv/kernel": "conv1.weight",
        "stem/bn/moving_variance": "bn1.running_var",
        "stage1/block2/conv2/kernel": "layer1.1.conv2.weight",
        "stage2/block1/shortcut/conv/kernel": "layer2.0.downsample.0.weight",
        "stage2/block1/shortcut/bn/gamma": "layer2.0.downsample.1.weight",
        "head/fc/bias": "fc.bias",
    },
    resnet34: {"stage3/block6/bn2/beta": "layer3.5.bn2.bias"},
    resnet50: {"stage4/block3/conv3/kernel": "layer4.2.conv3.weight"},
    mobilenet_v2: {
        "stem/conv/kernel": "features.0.0.weight",
        "stage1/block1/depthwise/conv/depthwise_kernel": "features.1.conv.0.0.weight",
        "stage1/block1/project/conv/kernel": "features.1.conv.1.weight",
        "stage1/block1/project/bn/moving_mean": "features.1.conv.2.running_mean",
        "stage2/block1/expand/bn/gamma": "features.2.conv.0.1.weight",
        "stage3/block2/depthwise/conv/depthwise_kernel": "features.5.conv.1.0.weight",
        "stage7/block1/project/conv/kernel": "features.17.conv.2.weight",
        "stage7/block1/project/bn/beta": "features.17.conv.3.bias",
        "top/bn/moving_variance": "features.18.1.running_var",
        "head/fc/kernel": "classifier.1.weight",
    },
    densenet121: {
        "stem/bn/gamma": "features.norm0.weight",
        "stage1/layer6/conv2/kernel": "features.denseblock1.denselayer6.conv2.weight",
        "stage4/layer16/bn1/beta": "features.denseblock4.denselayer16.norm1.bias",
        "transition3/bn/moving_mean": "features.transition3.norm.running_mean",
        "transition3/conv/kernel": "features.transition3.conv.weight",
        "head/bn/gamma": "features.norm5.weight",
        "head/fc/kernel": "classifier.weight",
    },
    vgg11: {
        "stage1/block1/conv/bias": "features.0.bias",
        "stage2/block1/bn/gamma": "features.5.weight",
        "stage5/block2/bn/moving_variance": "features.26.running_var",
        "head/fc1/kernel": "classifier.0.weight",
        "head/fc3/kernel": "classifier.6.weight",
    },
    vgg13: {"stage5/block2/conv/kernel": "features.31.weight"},
    vgg16: {"stage5/block3/conv/kernel": "features.40.weight"},
}


@pytest.mark.parametrize("build", KNOWN, ids=lambda build: build.__name__)
def test_names_are_torchvisions(build):
    model = build(input_shape=(32, 32, 3))
    names = {v.label: NAMES[model.name](v.label)[0] for v in model.graph.variables}
    assert len(set(names.values())) == len(names)
    assert names.items() >= KNOWN[build].items()


def stored(model, rng):
    """Return weights for a model as PyTorch would hold them."""
    found = {}
    for variable in model.graph.variables:
        name, conversion = NAMES[model.name](variable.label)
        found[name] = rng.standard_normal(conversion.stored(variable.shape)).astype("float32")
    return found


@pytest.fixture
def weights():
    return stored(lenet5(), np.random.default_rng(0))


def test_weights_come_from_a_mapping_or_a_file(tmp_path, weights):
    save_file(weights, tmp_path / "lenet5.safetensors")
    sources = (weights, tmp_path / "lenet5.safetensors", str(tmp_path / "lenet5.safetensors"))
    models = [lenet5() for _ in sources]
    for model, source in zip(models, sources, strict=True):
        load_weights(model, source)
    for model in models:
        np.testing.assert_array_equal(model.state["conv2/kernel"], weights["conv2.weight"].transpose(2, 3, 1, 0))
        np.testing.assert_array_equal(model.state["fc2/kernel"], weights["fc2.weight"].T)
        np.testing.assert_array_equal(model.state["fc2/bias"], weights["fc2.bias"])


def test_flattened_features_are_put_in_our_order(weights):
    model = lenet5()
    load_weights(model, weights)
    image = np.random.default_rng(1).standard_normal((5, 5, 16))
    ours = image.reshape(-1) @ model.state["fc1/kernel"]
    theirs = weights["fc1.weight"] @ image.transpose(2, 0, 1).reshape(-1)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


@pytest.mark.parametrize(
    ("conversion", "shape", "places"),
    [
        (OUTPUT_FIRST, (3, 5, 2, 4), lambda a, h, w, i, o: a[o, i, h, w]),
        (PER_CHANNEL, (3, 5, 1, 4), lambda a, h, w, i, o: a[h, w, o, i]),
    ],
)
def test_conversions_of_kernels(conversion, shape, places):
    array = np.arange(np.prod(shape)).reshape(conversion.stored(shape))
    ours = conversion.convert(array, shape)
    assert ours.shape == shape
    assert all(ours[index] == places(array, *index) for index in np.ndindex(shape))


def test_the_kernel_behind_a_flatten_need_not_be_square():
    height, width, channels, units = 2, 3, 4, 5
    conversion, shape = AfterFlatten(channels), (height * width * channels, units)
    array = np.arange(np.prod(shape)).reshape(conversion.stored(shape))
    ours = conversion.convert(array, shape).reshape(height, width, channels, units)
    theirs = array.reshape(units, channels, height, width)
    assert all(ours[h, w, c, u] == theirs[u, c, h, w] for h, w, c, u in np.ndindex(ours.shape))


def test_running_averages_are_loaded_and_counters_ignored():
    model = resnet18((32, 32, 3), classes=3)
    weights = stored(model, np.random.default_rng(0))
    counters = {name.replace("running_var", "num_batches_tracked"): np.int64(5) for name in weights if "_var" in name}
    assert len(counters) == 20
    load_weights(model, weights | counters)
    np.testing.assert_array_equal(model.state["stem/bn/moving_mean"], weights["bn1.running_mean"])
    np.testing.assert_array_equal(model.state["stem/bn/moving_variance"], weights["bn1.running_var"])


def test_dtypes_are_those_of_the_network(weights):
    model = lenet5(dtype="float64")
    load_weights(model, {name: value.astype("float16") for name, value in weights.items()})
    assert {str(array.dtype) for array in model.state.values()} == {"float64"}
    assert model.state["conv1/bias"][0] == weights["conv1.bias"].astype("float16")[0]


class OnAnotherDevice:
    """Refuses, as a tensor on a GPU or one with a gradient does."""

    def __array__(self, *args, **kwargs):
        raise TypeError("copy it to the host first")


WRONG = {
    "a shape": (
        {"fc3.weight": np.zeros((7, 84), "float32")},
        r"'fc3.weight' does not fit variable 'fc3/kernel'(.|\n)*\(10, 84\)(.|\n)*\(7, 84\)",
    ),
    "a missing weight": ({"fc3.bias": None}, r"missing(.|\n)*expected: fc3.bias"),
    "a wrong name": ({"fc3.bias": None, "fc3.biases": np.zeros(10)}, r"fc3.biases(.|\n)*did you mean fc3.biases\?"),
    "a weight too many": ({"fc4.bias": np.zeros(3)}, r"does not have(.|\n)*fc4.bias"),
    "a dtype": ({"fc3.bias": np.array(["a"] * 10)}, r"'fc3.bias' has the wrong dtype(.|\n)*float32"),
    "no array": ({"fc3.bias": OnAnotherDevice()}, r"'fc3.bias' cannot be made an array: copy it to the host first"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_nothing_changes_where_something_does_not_fit(weights, wrong):
    change, message = WRONG[wrong]
    model = lenet5()
    before = {label: array.copy() for label, array in model.state.items()}
    given = {name: value for name, value in (weights | change).items() if value is not None}
    with pytest.raises(ModelFormatError, match=message):
        load_weights(model, given)
    assert all(np.array_equal(model.state[label], array) for label, array in before.items())


def test_what_is_no_safetensors_file_is_refused(tmp_path):
    pickle = tmp_path / "lenet5.pth"
    pickle.write_bytes(b"\x80\x04\x95 and so on, for some bytes")
    with pytest.raises(ModelFormatError, match=r"cannot be read(.|\n)*lenet5.pth(.|\n)*pickles"):
        load_weights(lenet5(), pickle)


def test_a_truncated_file_is_refused(tmp_path, weights):
    path = tmp_path / "lenet5.safetensors"
    save_file(weights, path)
    for length in (0, 4, 100, path.stat().st_size - 1):
        (tmp_path / "cut").write_bytes(path.read_bytes()[:length])
        with pytest.raises(ModelFormatError, match="cannot be read"):
            load_weights(lenet5(), tmp_path / "cut")


def test_bfloat16_in_a_file_is_refused_by_name(tmp_path):
    header = b'{"conv1.bias":{"dtype":"BF16","shape":[6],"data_offsets":[0,12]}}'
    path = tmp_path / "bf16.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 12)
    with pytest.raises(ModelFormatError, match="cannot be read"):
        load_weights(lenet5(), path)


def test_a_missing_file_is_an_ordinary_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_weights(lenet5(), tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    ("model", "source", "convention", "message"),
    [
        (lenet5, {}, "torch", r"no convention(.|\n)*pytorch, keras"),
        (preact_resnet18, {}, "pytorch", r"'preact_resnet18'(.|\n)*resnet18"),
        (lenet5, {}, "keras", "no keras names"),
        (lenet5, 3, "pytorch", "a file or a mapping"),
    ],
)
def test_arguments_that_cannot_be(model, source, convention, message):
    with pytest.raises(ArgumentError, match=message):
        load_weights(model(), source, convention)


def test_variables_without_a_name_are_refused():
    with pytest.raises(ArgumentError, match="'extra/kernel' has no pytorch name"):
        NAMES["resnet18"]("extra/kernel")
    with pytest.raises(ArgumentError, match="no pytorch name"):
        NAMES["resnet18"]("stem/bn/count")


def test_skipped_layers_keep_their_values_whatever_their_size(weights):
    model = lenet5(classes=3)
    before = model.state["fc3/kernel"].copy()
    load_weights(model, weights, skip=["fc3"])
    np.testing.assert_array_equal(model.state["fc3/kernel"], before)
    np.testing.assert_array_equal(model.state["conv1/bias"], weights["conv1.bias"])
    with pytest.raises(ModelFormatError, match="fc3"):
        load_weights(model, weights)


def test_skipping_what_is_not_there_is_refused(weights):
    for skip in (["head"], ["fc"], "fc3"):
        with pytest.raises(ArgumentError, match=r"no layer is called|several paths"):
            load_weights(lenet5(), weights, skip=skip)
