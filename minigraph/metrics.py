"""Metrics make nodes: from labels and predictions to a mean over the batch, a scalar."""

from __future__ import annotations

from collections.abc import Callable

from minigraph import ops
from minigraph.errors import ArgumentError, did_you_mean
from minigraph.ir.node import Node

Metric = Callable[[Node, Node], Node]


def accuracy(y_true: Node, y_pred: Node) -> Node:
    """Return the share of right predictions.

    Integer labels are compared with the largest prediction, as is a label with a probability for each of several
    classes; one yes/no prediction with 1/2 (0 for logits is up to the caller: give `binary_accuracy` a threshold).

    >>> from minigraph.ir import variable
    >>> accuracy(variable((8,), dtype="int64"), variable((8, 10)))
    <mean : float32[]>
    """
    if y_true.dtype.startswith("int"):
        return _share(ops.equal(ops.argmax(y_pred), y_true))
    if y_pred.rank > 1 and y_pred.shape[-1] != 1:
        return _share(ops.equal(ops.argmax(y_pred), ops.argmax(y_true)))
    return binary_accuracy(y_true, y_pred)


def binary_accuracy(y_true: Node, y_pred: Node, threshold: float = 0.5) -> Node:
    """Return the share of predictions on the label's side of a threshold.

    >>> from minigraph.ir import variable
    >>> binary_accuracy(variable((8, 1)), variable((8, 1)))
    <mean : float32[]>
    """
    return _share(ops.equal(ops.cast(y_pred > threshold, y_true.dtype), y_true))


def mean_squared_error(y_true: Node, y_pred: Node) -> Node:
    """Return the mean squared difference.

    >>> from minigraph.ir import variable
    >>> mean_squared_error(variable((8, 3)), variable((8, 3)))
    <mean : float32[]>
    """
    difference = y_true - y_pred
    return ops.mean(difference * difference)


def mean_absolute_error(y_true: Node, y_pred: Node) -> Node:
    """Return the mean absolute difference.

    >>> from minigraph.ir import variable
    >>> mean_absolute_error(variable((8, 3)), variable((8, 3)))
    <mean : float32[]>
    """
    return ops.mean(ops.abs(y_true - y_pred))


def _share(right: Node) -> Node:
    return ops.mean(ops.cast(right, "float32"))


NAMED: dict[str, Metric] = {
    "accuracy": accuracy,
    "acc": accuracy,
    "binary_accuracy": binary_accuracy,
    "mean_squared_error": mean_squared_error,
    "mse": mean_squared_error,
    "mean_absolute_error": mean_absolute_error,
    "mae": mean_absolute_error,
}


def get(metric: str | Metric) -> tuple[str, Metric]:
    """Return (name, function) of a metric given by name or as a function from (labels, predictions) to a scalar.

    >>> get("accuracy")[0]
    'accuracy'
    """
    if callable(metric):
        return getattr(metric, "__name__", type(metric).__name__), metric
    if not isinstance(metric, str) or metric not in NAMED:
        raise ArgumentError(
            f"no metric is called {metric!r}", expected=", ".join(NAMED), hint=did_you_mean(str(metric), list(NAMED))
        )
    return metric, NAMED[metric]
