"""The networks against PyTorch's, with the same weights: outputs in both modes, all gradients, all moving averages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import minigraph as mg
from minigraph.ir import Graph
from minigraph.models import load_weights
from minigraph.models.torch_names import NAMES

torch = pytest.importorskip("torch")
torch_networks = pytest.importorskip("models.torch_networks")

torch.set_num_threads(1)

Arrays = dict[str, Any]
CLASSES = 7

# Of the largest element. What is measured is 6e-13 at most, on ResNet-50.
FLOAT64 = 1e-9
# In float32 each array's error, of some hundred, may be this many times PyTorch's own (4.7 in all that was tried), or
# eight roundings; and half of all arrays must be no worse than PyTorch's by more than a factor of 2 (0.7 measured).
FLOAT32 = 8.0
ROUNDINGS = 8 * 2.0**-24


@dataclass(frozen=True)
class Case:
    """A network at a small size: 64 pixels leave 2×2 in the last stage, so that its batch norms see 4·batch values."""

    name: str
    size: int = 64
    batch: int = 4
    options: Mapping[str, Any] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        return (28, 28, 1) if self.name == "lenet5" else (self.size, self.size, 3)

    def images(self) -> Any:
        return np.random.default_rng(1).standard_normal((self.batch, *self.shape))

    def weights(self) -> Any:
        """Return what the logits are weighted by in the loss; different for each example, or batch norm removes it."""
        return np.random.default_rng(2).standard_normal((self.batch, CLASSES))

    def model(self, dtype: str) -> mg.Model:
        build = getattr(mg.models, self.name)
        return build(self.shape, classes=CLASSES, dtype=dtype, **(self.options or {}))


@dataclass(frozen=True)
class Answer:
    """What a framework computes, by our names and in our layouts."""

    inference: Any
    training: Any
    gradients: Arrays
    averages: Arrays


def torch_network(case: Case) -> Any:
    """Return the network in float64, with batch norms that do something: random γ, some of them negative."""
    torch.manual_seed(0)
    network = torch_networks.NETWORKS[case.name](CLASSES).double()
    for module in batch_norms(network).values():
        torch.nn.init.uniform_(module.weight, 0.5, 1.5)
        module.weight.data[::7] *= -1
        torch.nn.init.normal_(module.bias, 0.0, 0.2)
        torch.nn.init.normal_(module.running_mean, 0.0, 0.2)
        torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network


def batch_norms(network: Any) -> dict[str, Any]:
    return {name: m for name, m in network.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}


def away_from_kinks(network: Any) -> Any:
    """Return the network with γ and β for which every ReLU passes a channel wholly or not at all.

    A gradient jumps where an activation crosses its kink, which a rounding error suffices for: then two correct
    float32 gradients differ by far more than rounding. Here normalised values of ±5 come to 0.5, and β is ±1; it is
    +1 where sums are activated.
    """
    for name, module in batch_norms(network).items():
        torch.nn.init.uniform_(module.weight, 0.05, 0.1)
        signs = torch.randint(0, 2, module.bias.shape) * 2 - 1
        summed = re.fullmatch(r"layer.*(bn[23]|downsample\.1)", name)
        module.bias.data[:] = 1.0 if summed else signs
    return network


def by_our_names(case: Case, model: mg.Model, arrays: Mapping[str, Any]) -> Arrays:
    found = {}
    for variable in model.graph.variables:
        name, conversion = NAMES[case.name](variable.label)
        if name in arrays:
            found[variable.label] = conversion.convert(np.asarray(arrays[name]), variable.shape)
    return found


def answer_of_torch(case: Case, model: mg.Model, network: Any) -> Answer:
    dtype = next(network.parameters()).dtype
    images = torch.tensor(case.images().transpose(0, 3, 1, 2), dtype=dtype, requires_grad=True)
    network.eval()
    with torch.no_grad():
        inference = network(images).numpy()
    network.train()
    training = network(images)
    (training * torch.tensor(case.weights(), dtype=dtype)).sum().backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    ours = by_our_names(case, model, gradients)
    ours["image"] = images.grad.numpy().transpose(0, 2, 3, 1)
    averages = {name: value for name, value in network.named_buffers() if name.split(".")[-1].startswith("running")}
    return Answer(inference, training.detach().numpy(), ours, by_our_names(case, model, averages))


def our_answer(case: Case, model: mg.Model) -> Answer:
    (image,) = model.graph.inputs
    images = case.images().astype(image.dtype)
    inference = model.predict(images)
    lowered = model.lower("training", case.batch)
    logits = lowered.outputs["logits"]
    wanted = [*(v for v in lowered.variables if v.op.trainable), *lowered.inputs]
    loss = mg.ops.sum(logits * mg.constant(case.weights().astype(image.dtype)))
    gradients = mg.gradients(loss, wanted)
    named = {f"gradient {n.label}": g for n, g in zip(wanted, gradients, strict=True)}
    program = mg.compile(Graph({"logits": logits, **named}, lowered.updates, lowered.inputs))
    results = program(model.state, **{image.label: images})
    training = results.pop("logits")
    averages = {target.label: model.state[target.label].copy() for target in lowered.updates}
    return Answer(inference, training, {n.removeprefix("gradient "): g for n, g in results.items()}, averages)


def errors(found: Answer, expected: Answer) -> dict[str, float]:
    """Return, for each array, the largest error relative to the largest element.

    A gradient's error is relative to the largest element of all gradients of its layer: a bias, or β, that another
    batch norm removes has the gradient 0, of which only rounding errors are left.
    """
    largest: dict[str, float] = {}
    for name, gradient in expected.gradients.items():
        layer = name.rpartition("/")[0]
        largest[layer] = max(largest.get(layer, 0.0), _size(gradient))
    result = {}
    for part in ("inference", "training"):
        result[part] = _size(getattr(found, part) - getattr(expected, part)) / _size(getattr(expected, part))
    for part in ("gradients", "averages"):
        ours, theirs = getattr(found, part), getattr(expected, part)
        assert ours.keys() == theirs.keys()
        for name, array in theirs.items():
            assert ours[name].shape == array.shape
            scale = largest[name.rpartition("/")[0]] if part == "gradients" else _size(array)
            result[f"{part} {name}"] = _size(ours[name] - array) / scale
    return result


def _size(array: Any) -> float:
    return float(np.abs(array).max())


LENET, RESNET18, RESNET50 = Case("lenet5"), Case("resnet18"), Case("resnet50")
MOBILENET, DENSENET = Case("mobilenet_v2", options={"dropout": 0.0}), Case("densenet121")
VGG11 = Case("vgg11", size=32, options={"dropout": 0.0, "units": 32})


def named(*cases: Case) -> list[Any]:
    return [pytest.param(case, id=case.name) for case in cases]


@pytest.mark.parametrize("case", named(LENET, RESNET18, RESNET50, MOBILENET, DENSENET, VGG11))
def test_float64_agrees_with_pytorch(case: Case):
    network, model = torch_network(case), case.model("float64")
    load_weights(model, network.state_dict())
    expected = answer_of_torch(case, model, network)
    assert not (trainable(model) ^ expected.gradients.keys()) - {"image"}
    found = errors(our_answer(case, model), expected)
    assert max(found.values()) <= FLOAT64, max(found, key=found.__getitem__)


@pytest.mark.slow
@pytest.mark.parametrize("case", named(RESNET18, RESNET50, MOBILENET, DENSENET))
def test_float32_is_as_exact_as_pytorch(case: Case):
    network = away_from_kinks(torch_network(case))
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    models = {dtype: case.model(dtype) for dtype in ("float64", "float32")}
    for model in models.values():
        load_weights(model, weights)
    exact = answer_of_torch(case, models["float64"], network)
    network.load_state_dict(weights)
    network.zero_grad(set_to_none=True)
    theirs = errors(answer_of_torch(case, models["float32"], network.float()), exact)
    ours = errors(our_answer(case, models["float32"]), exact)
    worse = {name: (ours[name], theirs[name]) for name in ours if ours[name] > FLOAT32 * theirs[name] + ROUNDINGS}
    assert not worse
    assert np.median(list(ours.values())) <= 2 * np.median(list(theirs.values()))


def trainable(model: mg.Model) -> set[str]:
    return {v.label for v in model.graph.variables if v.op.trainable}
