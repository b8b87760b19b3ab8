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
# As small as it goes.
NETWORKS = {
    "lenet5": lenet5,
    "vgg11": partial(vgg11, **SMALL, units=32),
    "vgg16_cifar": vgg16_cifar,
    "resnet18": partial(resnet18, **SMALL),
    "resnet20": resnet20,
    "resnet34": partial(resnet34, **SMALL),
    "resnet50": partial(resnet50, **SMALL),
    "preact_resnet18": preact_resnet18,
    "preact_resnet50": partial(preact_resnet50, **SMALL),
    "mobilenet_v2": partial(mobilenet_v2, **SMALL),
    "densenet121": partial(densenet121, **SMALL),
    "densenet_cifar": partial(densenet_cifar, 28),
    "inception_v3": partial(inception_v3, (75, 75, 3), classes=10, width=0.25),
    "xception": partial(xception, (32, 32, 3), classes=10, width=0.25),
}
QUICK = {"lenet5", "resnet20", "preact_resnet18", "mobilenet_v2", "densenet_cifar"}
EVERY = [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in NETWORKS]


@pytest.mark.parametrize("name", EVERY)
def test_it_goes_out_and_comes_back(name):
    model = with_random_weights(NETWORKS[name]())
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

    folded, _ = mg.optimize(model.lower("inference"), model.state)
    smaller = check(mg.onnx.optimize(proto))
    assert counts(smaller)[1] == count_batch_norms(folded) < max(norms, 1)
    assert agrees(run_elsewhere(smaller, {read.label: image})[0]["logits"])
