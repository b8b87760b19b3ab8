"""Small models and data that the tests of training share."""

from __future__ import annotations

import numpy as np

import minigraph as mg
from minigraph import layers
from minigraph.training import Callback

LOSS = mg.losses.SparseCategoricalCrossentropy(from_logits=True)


def blobs(n: int = 48, features: int = 6, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Classes around centres of their own."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    centres = np.random.default_rng(99).standard_normal((classes, features)) * 2
    return (centres[y] + rng.standard_normal((n, features))).astype(np.float32), y


def images(n: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """6 × 6 images, bright in one of three rows."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    x = rng.standard_normal((n, 6, 6, 1)).astype(np.float32) * 0.3
    x[np.arange(n), 2 * y] += 1
    return x, y


def dense_model(seed: int = 0, optimizer="adam", metrics=("accuracy",), regularizer=None, **norm) -> mg.Model:
    """Dense, batch norm, ReLU, dense; compiled."""
    with mg.fresh_names():
        x = mg.Input((6,), name="x")
        h = layers.Dense(8, kernel_regularizer=regularizer)(x)
        h = layers.Activation("relu")(layers.BatchNormalization(**{"momentum": 0.8, **norm})(h))
        model = mg.Model(x, layers.Dense(3)(h), seed=seed)
    model.compile(optimizer, LOSS, metrics=list(metrics))
    return model


def image_model(seed: int = 0, optimizer="adam") -> mg.Model:
    """Two convolutions with batch norms, dropout, dense; compiled: everything a resume must bring back."""
    with mg.fresh_names():
        h = image = mg.Input((6, 6, 1), name="image")
        for width in (4, 6):
            h = layers.Conv2D(width, 3, padding="same", use_bias=False)(h)
            h = layers.Activation("relu")(layers.BatchNormalization(momentum=0.9)(h))
        h = layers.Dropout(0.3)(layers.MaxPooling2D()(h))
        h = layers.Dense(8, activation="relu", kernel_regularizer="l2")(layers.Flatten()(h))
        model = mg.Model(image, layers.Dense(3)(layers.Dropout(0.2, seed=7)(h)), seed=seed)
    model.compile(optimizer, LOSS, metrics=["accuracy"])
    return model


class At(Callback):
    """Calls a function after the step with this number, counted over epochs."""

    def __init__(self, step: int, action) -> None:
        self.step, self.action, self.seen = step, action, 0

    def on_train_batch_end(self, batch, logs) -> None:
        self.seen += 1
        if self.seen == self.step:
            self.action()


def same_bits(a, b) -> list[str]:
    """Names at which two states differ, by presence, dtype, shape or bits."""
    return [k for k in {*a, *b} if k not in a or k not in b or (a[k].dtype, a[k].shape, a[k].tobytes()) !=
            (b[k].dtype, b[k].shape, b[k].tobytes())]  # fmt: skip
