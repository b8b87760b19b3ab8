"""The networks of `mg.models` as ONNX files: valid, the same elsewhere, the same when they come back; and optimised."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from models.zoo import images, with_random_weights

import minigraph as mg
from minigraph.models import (
    densenet121,
    densenet_cifar,
    inception_v3,
    lenet5,
    mobilenet_v2,
    preact_resnet18,
    preact_resnet50,
    resnet18,
    resnet20,
    resnet34,
    resnet50,
    vgg11,
    vgg16_cifar,
    xception,
)
from minigraph.passes.report import count_batch_norms

pytest.importorskip("onnx", "1.17")
pytest.importorskip("onnxruntime")

from light_models import counts
from onnx_checks import check, run_elsewhere

TOLERANCE = 1e-5  # of the largest logit
SMALL = {"input_shape": (32, 32, 3), "classes": 10}
# As small as it goes: build, and the batch norms that stay where all scales are positive.
NETWORKS = {
    "lenet5": (lenet5, 0),
    "vgg11": (partial(vgg11, **SMALL, units=32), 0),
    "vgg16_cifar": (vgg16_cifar, 0),
    "resnet18": (partial(resnet18, **SMALL), 0),
    "resnet20": (resnet20, 0),
    "resnet34": (partial(resnet34, **SMALL), 0),
    "resnet50": (partial(resnet50, **SMALL), 0),
    "preact_resnet18": (preact_resnet18, 4),
    "preact_resnet50": (partial(preact_resnet50, **SMALL), 4),
    "mobilenet_v2": (partial(mobilenet_v2, **SMALL), 0),
    "densenet121": (partial(densenet121, **SMALL), 1),
    "densenet_cifar": (partial(densenet_cifar, 28), 1),
    "inception_v3": (partial(inception_v3, (75, 75, 3), classes=10, width=0.25), 0),
    "xception": (partial(xception, (32, 32, 3), classes=10, width=0.25), 0),
}
QUICK = {"lenet5", "resnet20", "preact_resnet18", "mobilenet_v2", "densenet_cifar"}
EVERY = [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in NETWORKS]


@pytest.mark.parametrize("name", EVERY)
def test_it_goes_out_and_comes_back(name):
    build, kept = NETWORKS[name]
    model = with_random_weights(build())
    image = images(model)
    (read,) = model.graph.inputs
    logits = model.predict(image)
    largest = np.abs(logits).max()
    assert np.ptp(logits, axis=0).max() > 0.01 * largest > 0, "the images make no difference"

    def agrees(other):
        return other.shape == logits.shape and np.abs(other - logits).max() <= TOLERANCE * largest

    proto = check(mg.onnx.to_proto(model))
    norms = count_batch_norms(model.graph)
    assert counts(proto)[1] == norms
    results, by = run_elsewhere(proto, {read.label: image})
    assert by == "onnxruntime" and agrees(results["logits"])

    back = mg.onnx.load(proto)
    assert count_batch_norms(back.graph) == norms
    assert back.state.keys() >= model.state.keys()  # and constants that are arrays: nothing in a file tells them apart
    assert agrees(back.predict(image))

    smaller = check(mg.onnx.optimize(proto))
    assert counts(smaller)[1] == kept
    assert agrees(run_elsewhere(smaller, {read.label: image})[0]["logits"])
