"""The light models of the onnx package, optimised: how much is left of them, and that they compute what they did."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx", "1.17")
pytest.importorskip("onnxruntime")

from light_models import counts, light_model
from onnx_checks import check, run_elsewhere

import minigraph as mg

# At most so many nodes, and batch norms, are left. Those of DenseNet that stay read what others read too, and the ReLU
# behind them sees their sign.
LEFT = {"resnet50": (123, 0), "shufflenet": (154, 0), "inception_v2": (164, 0), "densenet121": (367, 62)}
QUICK = {"shufflenet"}
EVERY = [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in LEFT]


@pytest.mark.parametrize("name", EVERY)
def test_it_is_smaller_and_computes_the_same(name):
    model = light_model(name)
    smaller = check(mg.onnx.optimize(model))
    (nodes, norms), (nodes_left, norms_left) = counts(model), counts(smaller)
    print(f"{name}: {nodes} → {nodes_left} nodes, {norms} → {norms_left} batch norms")
    assert nodes_left <= LEFT[name][0] and norms_left <= LEFT[name][1]

    initialized = {tensor.name for tensor in model.graph.initializer}
    (image,) = [value for value in model.graph.input if value.name not in initialized]
    shape = [dim.dim_value for dim in image.type.tensor_type.shape.dim]
    feeds = {image.name: np.random.default_rng(1).random(shape, np.float32)}
    before, by = run_elsewhere(model, feeds)
    after, by_too = run_elsewhere(smaller, feeds)
    assert by == by_too == "onnxruntime" and before.keys() == after.keys()
    for output, values in before.items():
        largest = np.abs(values).max()
        assert np.ptp(values) > 0.1 * largest > 0, "the weights make no difference"
        assert np.abs(after[output] - values).max() <= 1e-5 * largest
