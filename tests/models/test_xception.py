"""Xception: Keras' counts, the paper's sizes, and what is asked of every network."""

import pytest

import minigraph as mg
from minigraph.models import xception
from minigraph.ops.conv import Conv2D
from minigraph.ops.norm import BatchNorm
from minigraph.passes.report import batch_norms, count_batch_norms
from models.zoo import assert_drawn, assert_folds, assert_trains_a_step, parameters, with_random_weights

SMALL = (32, 32, 3)

# Figure 5 of the paper: height = width, and channels, behind each block of an image of 299×299.
SIZES = {"block1": (147, 64), "block2": (74, 128), "block3": (37, 256), "block4": (19, 728)}
SIZES |= {f"block{number}": (19, 728) for number in range(5, 13)}
SIZES |= {"block13": (10, 1024), "block14": (10, 2048)}


@pytest.fixture(scope="module")
def published():
    return xception()


@pytest.fixture(scope="module")
def folded(published):
    return mg.optimize(published.lower("inference"))


def test_the_published_number_of_parameters(published):
    assert parameters(published) == (22_910_480, 22_855_952)


def test_batch_norms_are_those_of_keras(published):
    norms = [n for n in published.graph.nodes if isinstance(n.op, BatchNorm)]
    assert len(norms) == 40
    assert {(n.op.epsilon, n.op.moving.momentum, n.op.moving.unbiased) for n in norms} == {(1e-3, 0.99, False)}
    assert all(isinstance(n.inputs[0].op, Conv2D) for n in norms)


def test_sizes_are_those_of_the_paper(published):
    last = {}
    for node in published.graph.nodes:
        if node.inputs and len(node.shape) == 4:
            last[node.origin.scope.partition("/")[0]] = node.shape
    assert {block: last[block][1:] for block in SIZES} == {b: (s, s, c) for b, (s, c) in SIZES.items()}


def test_it_trains_a_step():
    assert_trains_a_step(xception(SMALL, classes=10))


@pytest.mark.parametrize("width", [0.25, pytest.param(1.0, marks=pytest.mark.slow)])
def test_folding_keeps_what_is_computed(width):
    model = xception(SMALL, classes=10, dtype="float64", width=width)
    assert_folds(with_random_weights(model), norms=40)


def test_all_batch_norms_of_the_published_network_fold(folded):
    graph, trace = folded
    outcomes = list(batch_norms(trace))
    assert len(outcomes) == 40 and all(outcome.folded for outcome in outcomes)
    assert count_batch_norms(graph) == 0


def test_pictures_fold_the_middle_flow(published, folded):
    assert_drawn(published.graph, "block5 … block12 ×8")
    assert_drawn(folded[0], "block5 … block12 ×8")


def test_width_scales_all_filters():
    half = {v.label: v.shape for v in xception(width=0.5).graph.variables}
    assert half["block1/conv1/kernel"] == (3, 3, 3, 16)
    assert half["block9/sepconv3/depthwise_kernel"] == (3, 3, 1, 364)
    assert half["block9/sepconv3/pointwise_kernel"] == (1, 1, 364, 364)
    assert half["head/predictions/kernel"] == (1024, 1000)
