"""What is asked of every network: it trains a step, its batch norms fold without changing the answers, it is drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest

import minigraph as mg
from minigraph.passes.report import batch_norms, count_batch_norms
from minigraph.training import MovingAverageWarning
from minigraph.viz import to_dot
from minigraph.viz.renderer import ladder

SVG_START = "<svg"


def images(model, number=2, seed=0):
    """Random images for a model, in its dtype."""
    (image,) = model.graph.inputs
    values = np.random.default_rng(seed).uniform(-1, 1, (number, *image.shape[1:]))
    return values.astype(image.dtype)


def with_random_weights(model, seed=0):
    """Return the model with γ, β and moving averages that are not those of a start: folding has something to do.

    Kernels are drawn so that what is in an image is not lost on its way through many layers (He et al. 2015).
    """
    rng = np.random.default_rng(seed)
    draws = {
        "gamma": lambda shape: rng.uniform(0.5, 1.5, shape),
        "beta": lambda shape: rng.normal(0.0, 0.3, shape),
        "moving_mean": lambda shape: rng.normal(0.0, 0.1, shape),
        "moving_variance": lambda shape: rng.uniform(0.5, 1.5, shape),
        "bias": lambda shape: rng.normal(0.0, 0.1, shape),
    }

    def kernel(shape):
        return rng.normal(0.0, (2 / math.prod(shape[:-1])) ** 0.5, shape)

    for label, array in model.state.items():
        model.state[label] = draws.get(label.rpartition("/")[2], kernel)(array.shape)
    return model


def parameters(model):
    """Return how many numbers a model holds: (all, those that are trained)."""
    sizes = [(v.tensor_type.size, v.op.trainable) for v in model.graph.variables]
    return sum(size for size, _ in sizes), sum(size for size, trained in sizes if trained)


def assert_trains_a_step(model):
    """One step changes every variable that is trained and every moving average; the loss is finite before and after."""
    model.compile(mg.optimizers.SGD(1e-4), mg.losses.SparseCategoricalCrossentropy(from_logits=True), ["accuracy"])
    before = {v.label: model.state[v.label].copy() for v in model.graph.variables}
    x, y = images(model, 4), np.arange(4)
    loss = model.train_on_batch(x, y)["loss"]
    assert np.isfinite(loss)
    same = [label for label, array in before.items() if np.array_equal(model.state[label], array)]
    assert not same
    assert all(np.isfinite(model.state[label]).all() for label in before)
    with pytest.warns(MovingAverageWarning):
        assert np.isfinite(model.evaluate(x, y)["loss"])


def assert_folds(model, norms, kept=0):
    """All batch norms of a float64 model but `kept` fold, and what it computes stays, to 1e-12 of the largest logit.

    Folding rounds each weight anew, 1e-16 relative; a fold that is wrong in one channel is off by 1e-4 and more.
    """
    graph = model.lower("inference", batch_size=2)
    folded, trace = mg.optimize(graph, model.state)
    outcomes = list(batch_norms(trace))
    assert (count_batch_norms(graph), count_batch_norms(folded)) == (norms, kept)
    assert (len(outcomes), sum(not outcome.folded for outcome in outcomes)) == (norms, kept)
    feed = {graph.inputs[0].label: images(model)}
    expected = mg.compile(graph, optimize=False)(model.state, **feed)["logits"]
    got = mg.compile(folded)(mg.State(), **feed)["logits"]
    largest = np.abs(expected).max()
    assert expected.dtype == np.float64 and largest > 0.1
    assert np.ptp(expected, axis=0).max() > 0.01 * largest, "the images make no difference"
    assert np.abs(got - expected).max() <= 1e-12 * largest


def assert_drawn(graph, *badges):
    """The picture has these badges for repeated blocks, and something that draws draws it."""
    source = to_dot(graph)
    missing = [badge for badge in badges if badge not in source]
    assert not missing
    if ladder("svg"):
        assert SVG_START in mg.render(graph)
