"""Memory: a step allocates nothing but its results, and what a program takes is what its plan says."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from small import blobs, dense_model, image_model, images

import minigraph as mg
from minigraph import layers
from minigraph.backends.numpy import NumpyBackend

NUMPY = np.lib.tracemalloc_domain


def digits_network(backend: Any = "numpy") -> mg.Model:
    with mg.fresh_names():
        h = image = mg.Input((8, 8, 1), name="image")
        for i, width in enumerate((16, 32, 32, 64, 64)):
            h = layers.Conv2D(width, 3, padding="same", use_bias=False)(h)
            h = layers.Activation("relu")(layers.BatchNormalization(momentum=0.9)(h))
            h = layers.MaxPooling2D()(h) if i == 2 else h
        model = mg.Model(image, layers.Dense(10)(layers.GlobalAveragePooling2D()(h)))
    schedule = mg.optimizers.CosineDecay(4e-3, 400, warmup_steps=22)
    loss = mg.losses.SparseCategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    model.compile(mg.optimizers.Adam(schedule), loss, metrics=["accuracy"], backend=backend)
    return model


def batch(n: int = 64) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"image": rng.random((n, 8, 8, 1), np.float32), "label": rng.integers(0, 10, n)}


@contextmanager
def traced():
    """Tracing slows Python down, so only what is measured is traced."""
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def warm(model: mg.Model) -> tuple[mg.Program, dict[str, np.ndarray]]:
    """The training program, run twice already."""
    program, data = model.program("training"), batch()
    for _ in range(2):
        program(model.state, **data)
    return program, data


def taken_by(call: Callable[[], object]) -> tuple[int, int, object]:
    """Run under tracing: the most bytes alive at once, the NumPy bytes alive at the end, and the result."""
    with traced():
        result = call()
        peak = tracemalloc.get_traced_memory()[1]
        snapshot = tracemalloc.take_snapshot().filter_traces([tracemalloc.DomainFilter(True, NUMPY)])
    return peak, sum(t.size for t in snapshot.traces), result


def test_a_step_allocates_only_its_results():
    model = digits_network()
    program, data = warm(model)
    peak, left, result = taken_by(lambda: program(model.state, **data))
    assert list(result) == ["loss", "accuracy"]
    assert left <= 64  # a float32 each, and what NumPy rounds up to
    # Beside 6 MB of arena and 1 MB of variables: Python objects, and NumPy's iteration buffers of 8,192 elements.
    assert peak < 96_000, peak


def test_no_kernel_allocates_an_array():
    model = digits_network(NumpyBackend(1))  # the size of NumPy's buffers is set for one thread
    program, _ = warm(model)
    bound = program.prepare(N=64).bind(model.state)
    large = {}
    with np.errstate(), program.backend.running(), traced():
        size = np.setbufsize(16)  # what is left are iterators, views and Python objects
        for step, kernel in zip(program.plan.steps, bound.code.kernels, strict=True):
            kernel()
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            kernel()
            if (taken := tracemalloc.get_traced_memory()[1] - before) > 4096:
                large[f"{step.node.label} {step.node.type}"] = taken
        np.setbufsize(size)
    assert large == {}


def test_committing_allocates_nothing():
    model = digits_network()
    program, _ = warm(model)
    bound = program.prepare(N=64).bind(model.state)
    assert taken_by(bound.commit)[0] < 1024


PROGRAMS = {
    "digits training": (digits_network, "training", 64, False),
    "digits training, checked": (digits_network, "training", 64, True),
    "digits inference": (digits_network, "inference", 256, False),
    "small images": (image_model, "training", 16, False),
    "dense": (dense_model, "training", 32, False),
}


@pytest.mark.parametrize(("make", "mode", "n", "checked"), PROGRAMS.values(), ids=list(PROGRAMS))
def test_the_plan_says_what_a_program_takes(make, mode, n, checked):
    """Arena and what is set aside for the commit: all known before; kernels keep next to nothing."""
    model = make()
    graph = model._training_graph(model.training) if mode == "training" else model.lower(mode)
    program = mg.compile(graph, check_finite=checked)
    prepared, state = program.prepare(N=n), model.state
    _, measured, bound = taken_by(lambda: prepared.bind(state))
    aside = sum(copy.nbytes for copy, _ in bound._aside)
    print(f"plan {prepared.plan.peak:,} measured {measured:,} set aside {aside:,}")
    # The arena may be mapped from the system, where no count of allocations sees it.
    assert prepared.arena.nbytes == prepared.plan.peak
    # Kernels keep rows of zeros and the like, which they would otherwise make at each call.
    assert 0 <= measured - aside <= 0.05 * prepared.plan.peak + 1024


def test_to_look_for_what_is_not_finite_takes_no_memory_to_speak_of():
    model = digits_network()
    graph, state = model._training_graph(model.training), model.state
    bound = mg.compile(graph, check_finite=True).prepare(N=64).bind(state)
    assert taken_by(bound.finite)[0] < sum(array.size for array in bound._floats) / 4


def test_a_fit_does_not_grow():
    x, y = images(64)
    model = image_model()
    model.fit(x, y, batch_size=16, verbose=0)
    model.fit(x, y, batch_size=16, verbose=0)
    with traced():
        model.fit(x, y, batch_size=16, verbose=0)
        before = tracemalloc.get_traced_memory()[0]
        model.fit(x, y, epochs=4, batch_size=16, verbose=0)
        assert tracemalloc.get_traced_memory()[0] - before < 20_000


def test_sizes_are_kept_up_to_a_number():
    x, y = blobs(64)
    model = dense_model()
    program = model.program("training")
    for n in range(2, 20):
        program(model.state, x=x[:n], label=y[:n])
    assert len(program._prepared) == 8
