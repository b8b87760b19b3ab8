"""Inception V3: Keras' counts, the paper's sizes, and what is asked of every network."""

import pytest

import minigraph as mg
from minigraph.errors import ShapeError
from minigraph.models import inception_v3
from minigraph.models.inception import convolution_scopes
from minigraph.ops.norm import BatchNorm
from minigraph.passes.report import batch_norms, count_batch_norms
from models.zoo import assert_drawn, assert_folds, assert_trains_a_step, parameters, with_random_weights

SMALLEST = (75, 75, 3)

# The paper's table 1, and Keras' comments: height = width, and channels, behind each block of an image of 299×299.
SIZES = {
    "stem": (35, 192), "mixed0": (35, 256), "mixed1": (35, 288), "mixed2": (35, 288), "mixed3": (17, 768),
    "mixed4": (17, 768), "mixed5": (17, 768), "mixed6": (17, 768), "mixed7": (17, 768), "mixed8": (8, 1280),
    "mixed9": (8, 2048), "mixed10": (8, 2048),
}  # fmt: skip


@pytest.fixture(scope="module")
def published():
    return inception_v3()


@pytest.fixture(scope="module")
def folded(published):
    return mg.optimize(published.lower("inference"))


def test_the_published_number_of_parameters(published):
    assert parameters(published) == (23_851_784, 23_817_352)


def test_batch_norms_are_those_of_keras(published):
    norms = [n for n in published.graph.nodes if isinstance(n.op, BatchNorm)]
    assert len(norms) == 94
    assert {(n.op.epsilon, n.op.moving.momentum, n.op.moving.unbiased) for n in norms} == {(1e-3, 0.99, False)}
    assert not [v for v in published.graph.variables if v.label.endswith("gamma")]


def test_sizes_are_those_of_the_paper(published):
    last = {}
    for node in published.graph.nodes:
        if node.inputs and len(node.shape) == 4:
            last[node.origin.scope.partition("/")[0]] = node.shape
    assert {block: last[block][1:] for block in SIZES} == {b: (s, s, c) for b, (s, c) in SIZES.items()}


def test_scopes_are_listed_in_the_order_in_which_convolutions_are_made(published):
    kernels = [v for v in published.graph.variables if len(v.shape) == 4]
    made = [v.label.removesuffix("/kernel") for v in sorted(kernels, key=lambda v: v.id)]
    assert list(convolution_scopes()) == made


def test_it_trains_a_step():
    assert_trains_a_step(inception_v3(SMALLEST, classes=10))


@pytest.mark.parametrize("width", [0.25, pytest.param(1.0, marks=pytest.mark.slow)])
def test_folding_keeps_what_is_computed(width):
    model = inception_v3(SMALLEST, classes=10, dtype="float64", width=width)
    assert_folds(with_random_weights(model), norms=94)


def test_all_batch_norms_of_the_published_network_fold(folded):
    graph, trace = folded
    outcomes = list(batch_norms(trace))
    assert len(outcomes) == 94 and all(outcome.folded for outcome in outcomes)
    assert count_batch_norms(graph) == 0


def test_pictures_fold_the_two_blocks_that_are_alike(published, folded):
    assert_drawn(published.graph, "mixed5 … mixed6 ×2")
    assert_drawn(folded[0], "mixed5 … mixed6 ×2")


def test_width_scales_all_filters():
    quarter = {v.label: v.shape for v in inception_v3(width=0.25).graph.variables}
    assert quarter["stem/conv1/kernel"] == (3, 3, 3, 8)
    assert quarter["mixed10/branch3x3dbl/conv2/kernel"] == (3, 3, 112, 96)
    assert quarter["head/predictions/kernel"] == (512, 1000)


def test_smaller_images_are_refused():
    with pytest.raises(ShapeError, match="window"):
        inception_v3((74, 75, 3))
