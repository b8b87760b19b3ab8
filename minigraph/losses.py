"""Losses make nodes: from labels and predictions to one number for each example, then their mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from minigraph import ops
from minigraph.data import check_labels
from minigraph.errors import ArgumentError, ShapeError, did_you_mean
from minigraph.ir.leaves import input as input_
from minigraph.ir.node import Node
from minigraph.ir.op import configuration
from minigraph.ir.types import known

# Probabilities are kept this far from 0 and 1, as in Keras, so that logarithms stay finite.
EPSILON = 1e-7


class Loss:
    """Base: `call` gives one value for each example; calling the loss gives their mean, a scalar."""

    def __call__(self, y_true: Node, y_pred: Node) -> Node:
        """Return the mean loss.

        >>> from minigraph.ir import variable
        >>> MeanSquaredError()(variable((8, 3)), variable((8, 3)))
        <mean : float32[]>
        """
        return ops.mean(self.call(y_true, y_pred))

    def call(self, y_true: Node, y_pred: Node) -> Node:
        """Return the loss of each example; subclasses give it."""
        raise NotImplementedError

    def label(self, prediction: Node, name: str = "label") -> Node:
        """Return an input node for the labels that belong to a prediction: its own type, unless a subclass says."""
        return input_(prediction.shape, prediction.dtype, name)

    def check(self, labels: Any, prediction: Node) -> None:
        """Raise a DataError for an array of labels that cannot belong to a prediction."""


def _same_shape(y_true: Node, y_pred: Node) -> None:
    if y_true.shape != y_pred.shape:
        raise ShapeError("labels and predictions differ in shape", expected=y_pred.type, got=y_true.type)


@configuration("sparse_categorical_crossentropy")
@dataclass(frozen=True)
class SparseCategoricalCrossentropy(Loss):
    """Cross-entropy with integer labels: −ln p of the right class.

    >>> from minigraph.ir import variable
    >>> SparseCategoricalCrossentropy(from_logits=True)(variable((8,), dtype="int64"), variable((8, 10)))
    <mean : float32[]>
    """

    from_logits: bool = False
    ignore_class: int | None = None
    label_smoothing: float = 0.0

    def __call__(self, y_true: Node, y_pred: Node) -> Node:
        """Return the mean over the examples that are not ignored."""
        loss = self.call(y_true, y_pred)
        if self.ignore_class is None:
            return ops.mean(loss)
        counted = ops.cast(ops.not_equal(y_true, self.ignore_class), loss.dtype)
        return ops.sum(loss) / ops.maximum(ops.sum(counted), 1.0)

    def call(self, y_true: Node, y_pred: Node) -> Node:
        """Return −ln p(label), smoothed."""
        if self.from_logits:
            return ops.softmax_cross_entropy(
                y_pred, y_true, ignore_index=self.ignore_class, label_smoothing=self.label_smoothing
            )
        targets = ops.cross_entropy_targets(
            y_pred, y_true, ignore_index=self.ignore_class, label_smoothing=self.label_smoothing
        )
        return -ops.sum(targets * ops.log(ops.clip(y_pred, EPSILON, 1.0 - EPSILON)), -1)

    def label(self, prediction: Node, name: str = "label") -> Node:
        """Integers, without the class axis."""
        return input_(prediction.shape[:-1], "int64", name)

    def check(self, labels: Any, prediction: Node) -> None:
        """Labels are 0 … classes − 1, or the class that is ignored."""
        if self.ignore_class is not None:
            labels = labels[labels != self.ignore_class]
        check_labels(labels, known(prediction.shape[-1]))


@configuration("categorical_crossentropy")
@dataclass(frozen=True)
class CategoricalCrossentropy(Loss):
    """Cross-entropy with a probability for each class as label.

    >>> from minigraph.ir import variable
    >>> CategoricalCrossentropy(from_logits=True)(variable((8, 10)), variable((8, 10)))
    <mean : float32[]>
    """

    from_logits: bool = False
    label_smoothing: float = 0.0

    def call(self, y_true: Node, y_pred: Node) -> Node:
        """Return −Σ t·ln p."""
        _same_shape(y_true, y_pred)
        if self.from_logits:
            return ops.softmax_cross_entropy(y_pred, y_true, label_smoothing=self.label_smoothing)
        targets = ops.cross_entropy_targets(y_pred, y_true, label_smoothing=self.label_smoothing)
        scaled = y_pred / ops.sum(y_pred, -1, keepdims=True)
        return -ops.sum(targets * ops.log(ops.clip(scaled, EPSILON, 1.0 - EPSILON)), -1)


@configuration("binary_crossentropy")
@dataclass(frozen=True)
class BinaryCrossentropy(Loss):
    """Cross-entropy of independent yes/no labels, averaged over the last axis.

    >>> from minigraph.ir import variable
    >>> BinaryCrossentropy(from_logits=True)(variable((8, 1)), variable((8, 1)))
    <mean : float32[]>
    """

    from_logits: bool = False
    label_smoothing: float = 0.0

    def call(self, y_true: Node, y_pred: Node) -> Node:
        """Return −t·ln p − (1 − t)·ln(1 − p); from logits as softplus(z) − t·z, which cannot overflow."""
        _same_shape(y_true, y_pred)
        t = y_true
        if self.label_smoothing:
            t = t * (1.0 - self.label_smoothing) + 0.5 * self.label_smoothing
        if self.from_logits:
            return ops.mean(ops.softplus(y_pred) - t * y_pred, -1)
        p = ops.clip(y_pred, EPSILON, 1.0 - EPSILON)
        return -ops.mean(t * ops.log(p) + (1.0 - t) * ops.log(1.0 - p), -1)


@configuration("mean_squared_error")
@dataclass(frozen=True)
class MeanSquaredError(Loss):
    """The squared difference, averaged over the last axis.

    >>> from minigraph.ir import variable
    >>> MeanSquaredError()(variable((8, 3)), variable((8, 3)))
    <mean : float32[]>
    """

    def call(self, y_true: Node, y_pred: Node) -> Node:
        """Return the mean of (t − p)²."""
        _same_shape(y_true, y_pred)
        difference = y_true - y_pred
        squares = difference * difference
        return ops.mean(squares, -1) if squares.rank > 1 else squares


NAMED: dict[str, Callable[[], Loss]] = {
    "sparse_categorical_crossentropy": SparseCategoricalCrossentropy,
    "categorical_crossentropy": CategoricalCrossentropy,
    "binary_crossentropy": BinaryCrossentropy,
    "mean_squared_error": MeanSquaredError,
    "mse": MeanSquaredError,
}


def get(loss: Any) -> Loss:
    """Return a loss by name, or the object itself.

    >>> isinstance(get("mse"), MeanSquaredError)
    True
    """
    if isinstance(loss, Loss):
        return loss
    if not isinstance(loss, str) or loss not in NAMED:
        raise ArgumentError(
            f"no loss is called {loss!r}", expected=", ".join(NAMED), hint=did_you_mean(str(loss), list(NAMED))
        )
    return NAMED[loss]()
