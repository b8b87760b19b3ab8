"""Batch normalisation and dropout: the layers that are something else in training than in inference."""

from __future__ import annotations

from typing import Any

from minigraph import ops
from minigraph.errors import ArgumentError
from minigraph.ir.leaves import Constant
from minigraph.ir.node import Node
from minigraph.ir.types import TensorType, known, normalize_axis
from minigraph.layers.base import Layer
from minigraph.ops.norm import BatchNorm, Moving


class BatchNormalization(Layer):
    """γ·(x − mean)/√(variance + ε) + β: the batch's statistics in training, moving averages in inference.

    `momentum` is the weight of the old average. unbiased: average the unbiased variance. frozen: use the averages in
    training too (γ and β still train unless `trainable=False`). cumulative: equal weights for the first batches, so
    that the averages are right from the first step. fold=False: passes leave this layer alone.

    >>> from minigraph.ir import variable
    >>> BatchNormalization()(variable((8, 3)))
    <batch_norm : float32[8,3]>
    """

    def __init__(
        self, axis: int = -1, momentum: float = 0.99, epsilon: float = 1e-3, center: bool = True, scale: bool = True,
        beta_initializer: Any = "zeros", gamma_initializer: Any = "ones", moving_mean_initializer: Any = "zeros",
        moving_variance_initializer: Any = "ones", trainable: bool = True, frozen: bool = False,
        unbiased: bool = False, cumulative: bool = False, fold: bool = True, name: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(name)
        self.axis = axis
        self.epsilon = float(epsilon)
        self.moving = Moving(float(momentum), unbiased, frozen, cumulative)
        self.center, self.scale, self.trainable, self.fold = center, scale, trainable, fold
        self.initializers = {
            "gamma": gamma_initializer, "beta": beta_initializer, "moving_mean": moving_mean_initializer,
            "moving_variance": moving_variance_initializer,
        }  # fmt: skip

    def call(self, inputs: Node) -> Node:
        """Make the mode-neutral node; lowering decides what it becomes."""
        if inputs.rank < 2:
            raise ArgumentError(f"{self.name}: nothing to normalise over", expected="at least 2 axes", got=inputs.type)
        axis = normalize_axis(self.axis, inputs.rank)
        channels = known(inputs.shape[axis], f"{self.name}: the number of channels")
        gamma = self._vector("gamma", channels, inputs.dtype, self.scale, 1.0)
        beta = self._vector("beta", channels, inputs.dtype, self.center, 0.0)
        averages = [
            self.variable(n, (channels,), self.initializers[n], trainable=False)
            for n in ("moving_mean", "moving_variance")
        ]
        if self.moving.cumulative:
            averages.append(self.variable("count", (), 0, trainable=False))
        return Node(BatchNorm(axis, self.epsilon, self.moving, self.fold), (inputs, gamma, beta, *averages))

    def _vector(self, name: str, channels: int, dtype: str, wanted: bool, otherwise: float) -> Node:
        """Return γ or β: a variable, or the constant that it is left out as."""
        if not wanted:
            return Node(Constant.full(TensorType((channels,), dtype), otherwise))
        return self.variable(name, (channels,), self.initializers[name], trainable=self.trainable)


class Dropout(Layer):
    """Zero with probability `rate` in training, scaled so that the mean stays; nothing in inference.

    >>> from minigraph.ir import variable
    >>> Dropout(0.5)(variable((8, 3)))
    <dropout : float32[8,3]>
    """

    def __init__(self, rate: float, seed: int | None = None, name: str | None = None) -> None:
        super().__init__(name)
        self.rate = rate
        self.seed = seed

    def call(self, inputs: Node) -> Node:
        """Make the mode-neutral node."""
        return ops.dropout(inputs, self.rate, self.seed)
