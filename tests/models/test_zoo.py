"""LeNet, VGG, ResNet, MobileNet and DenseNet: published counts, and what is asked of every network."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest

import minigraph as mg
from minigraph.errors import ArgumentError
from minigraph.models import (
    cifar_resnet,
    densenet121,
    densenet_cifar,
    lenet5,
    mobilenet_v2,
    preact_resnet18,
    preact_resnet50,
    resnet18,
    resnet20,
    resnet34,
    resnet50,
    vgg11,
    vgg13,
    vgg16,
    vgg16_cifar,
)
from minigraph.ops.norm import BatchNorm
from minigraph.passes.report import batch_norms, count_batch_norms
from models.zoo import assert_drawn, assert_folds, assert_trains_a_step, images, parameters, with_random_weights


@dataclass(frozen=True)
class Published:
    """A network at its published size. averages: numbers that are not trained, two a channel of each batch norm."""

    build: object
    trained: int
    averages: int
    norms: int


PUBLISHED = (
    Published(lenet5, 61_706, 0, 0),
    Published(vgg11, 132_868_840, 5_504, 8),
    Published(vgg13, 133_053_736, 5_888, 10),
    Published(vgg16, 138_365_992, 8_448, 13),
    Published(vgg16_cifar, 14_724_042, 8_448, 13),
    Published(resnet18, 11_689_512, 9_600, 20),
    Published(resnet34, 21_797_672, 17_024, 36),
    Published(resnet50, 25_557_032, 53_120, 53),
    Published(resnet20, 269_722, 1_376, 19),
    Published(preact_resnet18, 11_172_170, 7_808, 17),
    Published(preact_resnet50, 25_549_352, 45_440, 49),
    Published(mobilenet_v2, 3_504_872, 34_112, 52),
    Published(densenet121, 7_978_856, 83_648, 121),
    Published(densenet_cifar, 769_162, 23_988, 99),
)

SMALL = {"input_shape": (32, 32, 3), "classes": 10}
# As small as it goes: build, batch norms, and how many of them stay where all scales are positive.
NETWORKS = {
    "vgg11": (partial(vgg11, **SMALL, units=32), 8, 0),
    "resnet18": (partial(resnet18, **SMALL), 20, 0),
    "resnet50": (partial(resnet50, **SMALL), 53, 0),
    "resnet20": (resnet20, 19, 0),
    "preact_resnet18": (preact_resnet18, 17, 3),
    "preact_resnet50": (partial(preact_resnet50, **SMALL), 49, 3),
    "mobilenet_v2": (partial(mobilenet_v2, **SMALL), 52, 0),
    "densenet121": (partial(densenet121, **SMALL), 121, 0),
    "densenet_cifar": (partial(densenet_cifar, 28), 27, 0),
}
# Larger relatives of others in the list.
SLOW = {"resnet50", "preact_resnet50", "densenet121", "vgg11", "preact_resnet18"}
EVERY = [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in NETWORKS]


@pytest.mark.parametrize("network", PUBLISHED, ids=lambda network: network.build.__name__)
def test_counts_are_those_published(network: Published):
    model = network.build()
    assert parameters(model) == (network.trained + network.averages, network.trained)
    assert model.name == network.build.__name__
    norms = [n.op for n in model.graph.nodes if isinstance(n.op, BatchNorm)]
    assert len(norms) == network.norms


@pytest.mark.parametrize("build", [resnet18, preact_resnet18, mobilenet_v2, densenet121, vgg11])
def test_batch_norms_are_those_of_pytorch(build):
    norms = [n.op for n in build(input_shape=(32, 32, 3)).graph.nodes if isinstance(n.op, BatchNorm)]
    assert {(op.epsilon, op.moving.momentum, op.moving.unbiased) for op in norms} == {(1e-5, 0.9, True)}


@pytest.mark.parametrize("name", EVERY)
def test_it_trains_a_step(name):
    model = NETWORKS[name][0]()
    # Where all β are 0, the stem's γ has no gradient in a DenseNet: only ReLU, max pooling and batch norms read it.
    assert_trains_a_step(with_random_weights(model) if name == "densenet121" else model)


def test_lenet_trains_a_step():
    model = lenet5()
    model.compile(mg.optimizers.SGD(1e-2), mg.losses.SparseCategoricalCrossentropy(from_logits=True), ["accuracy"])
    before = {v.label: model.state[v.label].copy() for v in model.graph.variables}
    x, y = images(model, 4), np.arange(4)
    first = model.train_on_batch(x, y)["loss"]
    assert not [label for label, array in before.items() if np.array_equal(model.state[label], array)]
    assert model.evaluate(x, y)["loss"] < first


@pytest.mark.slow
def test_vgg_for_cifar_trains_a_step_and_folds():
    model = vgg16_cifar()
    assert_trains_a_step(model)
    folded, trace = mg.optimize(model.lower("inference"), model.state)
    assert count_batch_norms(folded) == 0
    assert sum(outcome.folded for outcome in batch_norms(trace)) == 13


@pytest.mark.parametrize("name", EVERY)
def test_folding_keeps_what_is_computed(name):
    build, norms, kept = NETWORKS[name]
    assert_folds(with_random_weights(build(dtype="float64")), norms, kept)


# Batch norms that read what others read too: the first of each pre-activation block and the last of all, which reads a
# sum; the first of each dense layer, those of transitions and the last, which read a concatenation.
READ_TWICE = {"preact_resnet18": 9, "preact_resnet50": 17, "densenet121": 62, "densenet_cifar": 15}


@pytest.mark.parametrize("name", [p for p in EVERY if p.values[0] in READ_TWICE])
def test_a_negative_scale_keeps_each_batch_norm_before_a_relu_that_others_read_too(name):
    build, norms, _ = NETWORKS[name]
    model = with_random_weights(build(dtype="float64"))
    for label, array in model.state.items():
        if label.endswith("/gamma"):
            array[0] = -array[0]
    assert_folds(model, norms, READ_TWICE[name])


@pytest.mark.parametrize("name", READ_TWICE)
def test_without_numbers_the_scales_may_be_negative(name):
    graph, trace = mg.optimize(NETWORKS[name][0]().lower("inference"))
    kept = [outcome for outcome in batch_norms(trace) if not outcome.folded]
    assert count_batch_norms(graph) == len(kept) == READ_TWICE[name]
    assert all("second use" in outcome.text or "sign" in outcome.text for outcome in kept)


@pytest.mark.parametrize(
    ("build", "badges"),
    [
        (resnet18, ["block1 … block2 ×2"]),
        (resnet50, ["block2 … block3 ×2", "block2 … block4 ×3", "block2 … block6 ×5"]),
        (resnet20, ["block1 … block3 ×3", "block2 … block3 ×2"]),
        (preact_resnet18, ["block1 … block2 ×2"]),
        (mobilenet_v2, ["block2 … block3 ×2", "block2 … block4 ×3"]),
        (vgg16, ["block1 … block3 ×3", "block2 … block3 ×2"]),
        (vgg16_cifar, ["block6 … block7 ×2", "block9 … block10 ×2", "block11 … block13 ×3"]),
        # Their layers all differ: each reads more channels than the one before.
        (densenet121, []),
        (lenet5, []),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_pictures_fold_repeated_blocks(build, badges):
    assert_drawn(build().graph, *badges)


def test_pictures_of_folded_networks_fold_repeated_blocks_too():
    folded, _ = mg.optimize(resnet20().lower("inference"))
    assert_drawn(folded, "block1 … block3 ×3", "block2 … block3 ×2")


def test_labels_of_variables_are_paths():
    labels = [v.label for v in resnet50(**SMALL).graph.variables]
    assert "stage2/block1/conv1/kernel" in labels
    assert "stage2/block1/shortcut/bn/moving_variance" in labels
    assert labels == [v.label for v in resnet50(**SMALL).graph.variables]


def test_a_seed_makes_the_weights():
    first, again, other = (resnet20(seed=seed).state["stem/conv/kernel"] for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_the_stride_of_a_bottleneck_is_in_its_3x3_convolution():
    kernels = {"1": (1, 1), "2": (2, 2), "3": (1, 1)}
    model = resnet50()
    for node in model.graph.nodes:
        if node.op.name == "conv2d" and node.origin.scope.startswith("stage2/block1/conv"):
            assert node.op.strides == kernels[node.origin.scope[-1]]


@pytest.mark.parametrize(("build", "depth"), [(cifar_resnet, 21), (cifar_resnet, 2), (densenet_cifar, 99)])
def test_depths_that_no_network_has_are_refused(build, depth):
    with pytest.raises(ArgumentError, match="depth"):
        build(depth)


def test_cifar_networks_come_in_other_depths():
    # He et al. 2016, table 6: 0.46 M and 0.85 M parameters.
    assert parameters(cifar_resnet(32))[1] == 464_154
    assert parameters(cifar_resnet(56))[1] == 853_018
    assert cifar_resnet(32).name == "resnet32"
