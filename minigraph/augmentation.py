"""Augmentations: changes of training images that leave their meaning as it is, drawn anew for every batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minigraph.data import Array, Augmentation, check_callables, check_finite, check_whole
from minigraph.errors import ArgumentError, DataError


@dataclass(frozen=True)
class RandomShift:
    """Move each image by its own whole number of pixels, up to `pixels`, up or down and left or right.

    Called with `x`, (N, H, W, C) floats, and a generator; returns a new array of the same shape and dtype. What comes
    in at the edges is `fill`: nothing wraps around. Raises ArgumentError for pixels < 0, DataError for other arrays.

    >>> image = np.arange(9.0).reshape(1, 3, 3, 1)
    >>> RandomShift(1, fill=-1.0)(image, np.random.default_rng(3))[0, :, :, 0]
    array([[-1., -1., -1.],
           [ 1.,  2., -1.],
           [ 4.,  5., -1.]])
    """

    pixels: int
    fill: float = 0.0

    def __post_init__(self) -> None:
        check_whole("pixels", self.pixels, least=0)

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        """Shift every image of `x` by a vector drawn from `rng`."""
        _check_images(x)
        n, height, width, _ = x.shape
        down, right = rng.integers(-self.pixels, self.pixels, size=(2, n, 1), endpoint=True)
        rows, columns = np.arange(height) - down, np.arange(width) - right
        inside_rows, inside_columns = (rows >= 0) & (rows < height), (columns >= 0) & (columns < width)
        inside = inside_rows[:, :, None, None] & inside_columns[:, None, :, None]
        # The places outside read any pixel that exists; `inside` then replaces it.
        rows, columns = np.where(inside_rows, rows, 0), np.where(inside_columns, columns, 0)
        moved = x[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
        return np.where(inside, moved, x.dtype.type(self.fill))


@dataclass(frozen=True)
class RandomFlip:
    """Mirror each image with probability 1/2: left and right if `horizontal`, top and bottom if `vertical`.

    Called with `x`, (N, H, W, C) floats, and a generator; returns an array of the same shape and dtype. The two
    directions are drawn independently. Raises DataError for other arrays.

    >>> image = np.arange(3.0).reshape(1, 1, 3, 1)
    >>> [RandomFlip()(image, np.random.default_rng(seed))[0, 0, :, 0].tolist() for seed in (1, 2)]
    [[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]]
    """

    horizontal: bool = True
    vertical: bool = False

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        """Mirror the images of `x` that `rng` chooses."""
        _check_images(x)
        # Both are drawn whatever is enabled, so turning one direction on leaves the other as it was.
        mirror_columns, mirror_rows = rng.random((2, len(x), 1, 1, 1)) < 0.5
        if self.horizontal:
            x = np.where(mirror_columns, x[:, :, ::-1], x)
        if self.vertical:
            x = np.where(mirror_rows, x[:, ::-1], x)
        return x


@dataclass(frozen=True)
class Normalize:
    """Subtract `mean` and divide by `std`, each a number or a tuple with one number per channel (the last axis).

    Called with `x`, (…, C) floats, and a generator that it does not use; returns an array of the same shape and dtype.
    Raises ArgumentError for a std that is not positive, DataError for arrays that are not floats or have another
    number of channels.

    >>> Normalize(mean=(1.0, 2.0), std=(1.0, 2.0))(np.array([[1.0, 4.0]]), np.random.default_rng(0))
    array([[0., 1.]])
    """

    mean: float | tuple[float, ...]
    std: float | tuple[float, ...]

    def __post_init__(self) -> None:
        mean, std = np.asarray(self.mean, np.float64), np.asarray(self.std, np.float64)
        if mean.ndim > 1 or mean.shape != std.shape:
            shapes = f"mean of shape {mean.shape}, std of shape {std.shape}"
            raise ArgumentError("mean and std do not fit", expected="two numbers, or one pair per channel", got=shapes)
        if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
            raise ArgumentError("cannot normalise", expected="finite mean, std > 0", got=f"{self.mean}, {self.std}")

    @classmethod
    def fit(cls, x: Array) -> Normalize:
        """Measure mean and standard deviation of each channel of `x`, (…, C) floats, in float64.

        A channel that is constant gets std 1, so that it becomes zero and not NaN. Fit on the training set only: the
        test set must not be looked at. Raises DataError if `x` is empty or not finite.

        >>> Normalize.fit(np.array([[0.0, 5.0], [2.0, 5.0]]))
        Normalize(mean=(1.0, 5.0), std=(1.0, 1.0))
        """
        _check_floats(x, least_axes=2)
        if x.size == 0:
            raise DataError("nothing to measure", expected="at least one value per channel", got=f"shape {x.shape}")
        check_finite("x", x)
        axes = tuple(range(x.ndim - 1))
        mean, std = x.mean(axis=axes, dtype=np.float64), x.std(axis=axes, dtype=np.float64)
        # Not `std == 0`: rounding in the mean gives a constant channel a tiny std.
        std = np.where(x.max(axis=axes) == x.min(axis=axes), 1.0, std)
        return cls(tuple(mean.tolist()), tuple(std.tolist()))

    def __call__(self, x: Array, rng: np.random.Generator | None = None) -> Array:
        """Return (x - mean) / std; `rng` is not used."""
        _check_floats(x, least_axes=1)
        mean, std = np.asarray(self.mean, x.dtype), np.asarray(self.std, x.dtype)
        if mean.ndim and len(mean) != x.shape[-1]:
            raise DataError(
                "the number of channels differs", expected=f"(…, {len(mean)})", got=x.shape, hint="channels come last"
            )
        normalised: Array = (x - mean) / std
        return normalised


@dataclass(frozen=True, init=False, repr=False)
class Compose:
    """Apply augmentations one after the other, all with the same generator.

    Called with what the first step takes; returns what the last one returns. Raises ArgumentError for a step that
    cannot be called.

    >>> both = Compose(RandomFlip(), Normalize(0.5, 0.25))
    >>> both(np.full((1, 2, 2, 1), 1.0), np.random.default_rng(0)).max()
    np.float64(2.0)
    >>> both
    Compose(RandomFlip(horizontal=True, vertical=False), Normalize(mean=0.5, std=0.25))
    """

    steps: tuple[Augmentation, ...]

    def __init__(self, *steps: Augmentation) -> None:
        check_callables("a step of Compose", steps)
        object.__setattr__(self, "steps", steps)

    def __repr__(self) -> str:
        return f"Compose({', '.join(map(repr, self.steps))})"

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        """Apply every step to `x` in order."""
        for step in self.steps:
            x = step(x, rng)
        return x


def _check_images(x: Array) -> None:
    _check_floats(x, least_axes=4)
    if x.ndim != 4:
        raise DataError("not a batch of images", expected="(N, H, W, C)", got=x.shape)


def _check_floats(x: Array, least_axes: int) -> None:
    if not isinstance(x, np.ndarray) or x.dtype.kind != "f" or x.ndim < least_axes:
        got = f"{x.shape} {x.dtype}" if isinstance(x, np.ndarray) else type(x).__name__
        raise DataError(
            "an augmentation cannot use this",
            expected=f"an array of floats with at least {least_axes} axes",
            got=got,
            hint="x.astype(np.float32) / 255 for 8-bit images; x[..., None] adds a channel axis",
        )
