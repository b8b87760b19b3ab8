"""First values of variables: frozen dataclasses, so that a graph's text holds them and reads them back."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigraph.errors import ArgumentError, did_you_mean
from minigraph.ir.op import ATTRIBUTES, configuration

Array = np.ndarray[Any, Any]


@configuration("constant_value")
@dataclass(frozen=True)
class Constant:
    """The same number everywhere.

    >>> Constant(0.5)((2,), np.random.default_rng(0))
    array([0.5, 0.5])
    """

    value: float = 0.0

    def __call__(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        """Return the array."""
        return np.full(shape, self.value)


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return (inputs, outputs) of one unit of a kernel whose last two axes are channels in and out.

    >>> fans((3, 3, 16, 32))
    (144, 288)
    """
    if len(shape) < 2:
        size = math.prod(shape)
        return size, size
    taps = math.prod(shape[:-2])
    return shape[-2] * taps, shape[-1] * taps


@configuration("variance_scaling")
@dataclass(frozen=True)
class VarianceScaling:
    """Zero mean, variance scale/fan: fan is the inputs, the outputs, or their average.

    distribution: "uniform", "normal", or "truncated_normal" (cut at two deviations, as Keras does, and widened so that
    the variance still fits).

    >>> VarianceScaling(2.0, "fan_in", "normal")((3, 3, 8, 4), np.random.default_rng(0)).shape
    (3, 3, 8, 4)
    """

    scale: float = 1.0
    mode: str = "fan_avg"
    distribution: str = "uniform"
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.mode not in ("fan_in", "fan_out", "fan_avg"):
            raise ArgumentError("bad mode", expected="fan_in, fan_out or fan_avg", got=self.mode)
        if self.distribution not in ("uniform", "normal", "truncated_normal"):
            raise ArgumentError("bad distribution", expected="uniform, normal, truncated_normal", got=self.distribution)

    def __call__(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        """Return the array."""
        inputs, outputs = fans(shape)
        fan = {"fan_in": inputs, "fan_out": outputs, "fan_avg": (inputs + outputs) / 2}[self.mode]
        deviation = math.sqrt(self.scale / max(1.0, fan))
        if self.distribution == "uniform":
            limit = math.sqrt(3.0) * deviation
            return rng.uniform(-limit, limit, shape)
        if self.distribution == "normal":
            return rng.normal(0.0, deviation, shape)
        return _truncated(rng, shape) * (deviation / 0.87962566103423978)


def _truncated(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Draw standard normal numbers again until they lie within two deviations."""
    values = rng.standard_normal(shape)
    while (outside := np.abs(values) > 2).any():
        values[outside] = rng.standard_normal(int(outside.sum()))
    return values


@configuration("orthogonal")
@dataclass(frozen=True)
class Orthogonal:
    """Rows or columns are orthonormal, times `gain` (Saxe et al. 2014).

    >>> q = Orthogonal()((4, 4), np.random.default_rng(0))
    >>> bool(np.allclose(q @ q.T, np.eye(4)))
    True
    """

    gain: float = 1.0
    seed: int | None = None

    def __call__(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        """Return the array, made orthogonal as a matrix of (all other axes, last axis)."""
        if len(shape) < 2:
            raise ArgumentError("an orthogonal array has at least two axes", got=shape)
        rows, columns = math.prod(shape[:-1]), shape[-1]
        q, r = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))
        q = q * np.sign(np.diag(r))  # uniform over orthogonal matrices
        return self.gain * (q if rows >= columns else q.T).reshape(shape)


@configuration("random_normal")
@dataclass(frozen=True)
class RandomNormal:
    """Normal numbers.

    >>> RandomNormal(stddev=0.1)((2, 2), np.random.default_rng(0)).shape
    (2, 2)
    """

    mean: float = 0.0
    stddev: float = 0.05
    seed: int | None = None

    def __call__(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        """Return the array."""
        return rng.normal(self.mean, self.stddev, shape)


def glorot_uniform(seed: int | None = None) -> VarianceScaling:
    """Return the initialiser of Glorot & Bengio 2010, uniform: variance 2/(in + out).

    >>> glorot_uniform()
    VarianceScaling(scale=1.0, mode='fan_avg', distribution='uniform', seed=None)
    """
    return VarianceScaling(1.0, "fan_avg", "uniform", seed)


def glorot_normal(seed: int | None = None) -> VarianceScaling:
    """Return the initialiser of Glorot & Bengio 2010, truncated normal.

    >>> glorot_normal().distribution
    'truncated_normal'
    """
    return VarianceScaling(1.0, "fan_avg", "truncated_normal", seed)


def he_uniform(seed: int | None = None) -> VarianceScaling:
    """Return the initialiser of He et al. 2015, uniform: variance 2/in.

    >>> he_uniform().scale
    2.0
    """
    return VarianceScaling(2.0, "fan_in", "uniform", seed)


def he_normal(seed: int | None = None) -> VarianceScaling:
    """Return the initialiser of He et al. 2015, truncated normal.

    >>> he_normal().mode
    'fan_in'
    """
    return VarianceScaling(2.0, "fan_in", "truncated_normal", seed)


def lecun_uniform(seed: int | None = None) -> VarianceScaling:
    """Return the initialiser of LeCun et al. 1998, uniform: variance 1/in.

    >>> lecun_uniform().scale
    1.0
    """
    return VarianceScaling(1.0, "fan_in", "uniform", seed)


def lecun_normal(seed: int | None = None) -> VarianceScaling:
    """Return the initialiser of LeCun et al. 1998, truncated normal.

    >>> lecun_normal().mode
    'fan_in'
    """
    return VarianceScaling(1.0, "fan_in", "truncated_normal", seed)


NAMED: dict[str, Callable[[], Any]] = {
    "zeros": lambda: Constant(0.0),
    "ones": lambda: Constant(1.0),
    "glorot_uniform": glorot_uniform,
    "glorot_normal": glorot_normal,
    "he_uniform": he_uniform,
    "he_normal": he_normal,
    "lecun_uniform": lecun_uniform,
    "lecun_normal": lecun_normal,
    "orthogonal": Orthogonal,
    "random_normal": RandomNormal,
}


def get(initializer: Any) -> Any:
    """Return an initialiser by name, or the registered object or number itself.

    >>> get("zeros")
    Constant(value=0.0)
    """
    if isinstance(initializer, str):
        if initializer not in NAMED:
            raise ArgumentError(
                f"no initialiser is called {initializer!r}",
                expected=", ".join(NAMED),
                hint=did_you_mean(initializer, list(NAMED)),
            )
        return NAMED[initializer]()
    if isinstance(initializer, (int, float)) or type(initializer) in ATTRIBUTES.values():
        return initializer
    raise ArgumentError(
        "not an initialiser",
        expected="a name, a number, or a dataclass registered with @minigraph.ir.attribute",
        got=repr(initializer),
    )
