"""From arrays to batches: split, shuffle, augment, check.

Nothing here keeps a random state. The order of an epoch and the augmentation of a batch are functions of the seed and
of their own numbers, so a run that stops in the middle of an epoch goes on with the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from minigraph.errors import ArgumentError, DataError

Array = npt.NDArray[Any]
Data = Array | dict[str, Array]
Augmentation = Callable[[Array, np.random.Generator], Array]


# --- splitting -------------------------------------------------------------------------------------------------------


def stratified_split(labels: npt.ArrayLike, test_fraction: float, seed: int) -> tuple[Array, Array]:
    """Split sample indices into a training and a test part that have the same share of every class.

    Args: `labels`, (n,) integers; `test_fraction` in [0, 1); `seed` ≥ 0. Of a class with m samples, round(m ·
    test_fraction) go to the test part. Returns two shuffled index arrays, disjoint, together 0..n-1. Raises
    DataError for labels of another shape or type, ArgumentError for the numbers.

    >>> train, test = stratified_split([0, 0, 0, 0, 1, 1], test_fraction=0.5, seed=0)
    >>> len(train), len(test), sorted([*train.tolist(), *test.tolist()])
    (3, 3, [0, 1, 2, 3, 4, 5])
    """
    labels = _as_array("labels", labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(
            "labels cannot be split by class",
            expected="(n,) integers",
            got=f"{labels.shape} {labels.dtype}",
            hint="one-hot rows become integers with labels.argmax(axis=1)",
        )
    if not 0 <= test_fraction < 1:
        raise ArgumentError("test_fraction is out of range", expected="0 ≤ test_fraction < 1", got=test_fraction)
    rng = np.random.default_rng(check_whole("seed", seed, least=0))

    _, counts = np.unique(labels, return_counts=True)
    # A stable sort keeps the samples of a class in their own order, so the split depends on nothing but the seed.
    classes = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    permuted = [rng.permutation(indices) for indices in classes]
    cuts = [round(test_fraction * len(indices)) for indices in classes]
    train = np.concatenate([indices[cut:] for indices, cut in zip(permuted, cuts, strict=True)])
    test = np.concatenate([indices[:cut] for indices, cut in zip(permuted, cuts, strict=True)])
    return rng.permutation(train), rng.permutation(test)


# --- batches ---------------------------------------------------------------------------------------------------------


class Batches:
    """Cut arrays into batches, in an order that depends on the seed and the number of the epoch alone.

    Args: `x`, an array (n, …) or a dict from input name to array; `y`, the same, or None; `augment`, a callable
    (x_batch, rng) -> x_batch, or for a dict `x` a dict from input name to callable; `drop_last` leaves out a last
    batch that is short. The orders are NumPy's PCG64 seeded with [seed, epoch]. Raises DataError when lengths differ
    or nothing is there, ArgumentError for the other arguments.

    >>> batches = Batches(np.arange(5.0), np.arange(5), batch_size=2, seed=1)
    >>> len(batches)
    3
    >>> sorted(label for _, y in batches.epoch(0) for label in y.tolist())
    [0, 1, 2, 3, 4]
    >>> whole, tail = list(batches.epoch(7)), list(batches.epoch(7, start=2))
    >>> np.array_equal(whole[2][0], tail[0][0])
    True
    """

    def __init__(
        self,
        x: npt.ArrayLike | Mapping[str, npt.ArrayLike],
        y: npt.ArrayLike | Mapping[str, npt.ArrayLike] | None = None,
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int = 0,
        augment: Augmentation | Mapping[str, Augmentation] | None = None,
        drop_last: bool = False,
    ) -> None:
        self.x = _arrays("x", x)
        self.y = None if y is None else _arrays("y", y)
        self.samples = _common_length(self.x, self.y)
        self.batch_size = check_whole("batch_size", batch_size, least=1)
        self.shuffle = shuffle
        self.seed = check_whole("seed", seed, least=0)
        self.augment = augment
        self.drop_last = drop_last
        _check_augment(self.x, augment)
        if len(self) == 0:
            raise ArgumentError(
                "an epoch would have no batch",
                expected=f"batch_size ≤ {self.samples}, the number of samples",
                got=f"batch_size={batch_size} with drop_last=True",
                hint="make batch_size smaller, or drop_last=False",
            )

    def __len__(self) -> int:
        """Return the number of batches in an epoch.

        >>> len(Batches(np.zeros(5), batch_size=2)), len(Batches(np.zeros(5), batch_size=2, drop_last=True))
        (3, 2)
        """
        if self.drop_last:
            return self.samples // self.batch_size
        return -(-self.samples // self.batch_size)

    def epoch(self, e: int, start: int = 0) -> Iterator[tuple[Any, Any]]:
        """Iterate the batches (x, y) of epoch `e` ≥ 0, from batch number `start` on.

        The batches are the same bits whether or not the earlier ones were asked for. With neither shuffling nor
        augmentation they are views of the data. Raises ArgumentError for numbers out of range.

        >>> [x.tolist() for x, _ in Batches(np.arange(5), batch_size=2, shuffle=False).epoch(0, start=1)]
        [[2, 3], [4]]
        """
        e = check_whole("epoch", e, least=0)
        start = check_whole("start", start, least=0)
        if start > len(self):
            raise ArgumentError("start is past the end of the epoch", expected=f"0..{len(self)}", got=start)
        # The checks above belong to the call, not to the first `next`, so the loop is a generator of its own.
        return self._iterate(e, start)

    def order(self, e: int) -> Array:
        """Return the numbers of the samples in the order of epoch `e`.

        >>> Batches(np.arange(5), batch_size=2, seed=1).order(7).tolist()
        [4, 3, 1, 2, 0]
        """
        order = np.arange(self.samples)
        if not self.shuffle:
            return order
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, e]))).permutation(order)

    def _iterate(self, e: int, start: int) -> Iterator[tuple[Any, Any]]:
        order = self.order(e)
        for number in range(start, len(self)):
            rows = slice(number * self.batch_size, (number + 1) * self.batch_size)
            # An augmentation may write into what it is given, so it never gets a view of the data.
            fresh = self.shuffle or self.augment is not None
            index = order[rows] if fresh else rows
            x = self._augmented(_take(self.x, index), e, number)
            yield x, None if self.y is None else _take(self.y, index)

    def _augmented(self, x: Data, e: int, number: int) -> Data:
        if self.augment is None:
            return x
        # The batch number is a spawn key because SeedSequence pads with zeros: [seed, e, 0] would be the stream of
        # [seed, e], and the first batch would be augmented with the very numbers that shuffled the epoch.
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, e], spawn_key=(number,))))
        if isinstance(x, dict) and isinstance(self.augment, Mapping):
            augment = self.augment
            return {name: _apply(augment[name], a, rng) if name in augment else a for name, a in x.items()}
        assert not isinstance(x, dict) and not isinstance(self.augment, Mapping)  # _check_augment saw to it
        return _apply(self.augment, x, rng)


def _arrays(name: str, data: npt.ArrayLike | Mapping[str, npt.ArrayLike]) -> Data:
    if isinstance(data, Mapping):
        return {key: _array(f"{name}[{key!r}]", value) for key, value in data.items()}
    return _array(name, data)


def _array(name: str, data: npt.ArrayLike) -> Array:
    array = _as_array(name, data)
    if array.ndim == 0 or array.dtype == object:
        raise DataError(
            f"{name} is not an array of samples",
            expected="(n, …) numbers, the first axis counts the samples",
            got=f"{array.shape} {array.dtype}",
        )
    return array


def _as_array(name: str, data: npt.ArrayLike) -> Array:
    try:
        return np.asarray(data)
    except ValueError as error:
        raise DataError(f"{name} is not an array", expected="rows of one shape", got=error) from error


def _common_length(x: Data, y: Data | None) -> int:
    named = {**_named("x", x), **({} if y is None else _named("y", y))}
    lengths = {name: len(array) for name, array in named.items()}
    if len(set(lengths.values())) > 1:
        raise DataError("the numbers of samples differ", expected="one number of samples", got=lengths)
    if not isinstance(x, np.ndarray) and not x:
        raise DataError("x has no inputs", expected="at least one array", got="an empty dict")
    samples = next(iter(lengths.values()))
    if samples == 0:
        raise DataError("there are no samples", expected="at least one sample", got=lengths)
    return samples


def _named(name: str, data: Data) -> dict[str, Array]:
    if isinstance(data, dict):
        return {f"{name}[{key!r}]": array for key, array in data.items()}
    return {name: data}


def _check_augment(x: Data, augment: object) -> None:
    if augment is None:
        return
    if isinstance(x, dict) != isinstance(augment, Mapping):
        raise ArgumentError(
            "augment does not fit x",
            expected="a dict from input name to callable" if isinstance(x, dict) else "a callable (x, rng) -> x",
            got=augment,
            hint="x and augment are either both dicts or both not",
        )
    steps = augment if isinstance(augment, Mapping) else {"augment": augment}
    unknown = [name for name in steps if isinstance(x, dict) and name not in x]
    if unknown:
        raise ArgumentError("augment names inputs that x does not have", expected=list(x), got=unknown)
    check_callables("augment", list(steps.values()))


def check_callables(name: str, steps: list[object] | tuple[object, ...]) -> None:
    """Raise an ArgumentError unless everything in `steps` can be called.

    >>> check_callables("augment", [print])
    """
    for step in steps:
        if not callable(step):
            raise ArgumentError(f"{name} cannot be called", expected="a callable (x, rng) -> x", got=repr(step))


def _take(data: Data, index: slice | Array) -> Data:
    if isinstance(data, dict):
        return {name: array[index] for name, array in data.items()}
    taken: Array = data[index]
    return taken


def _apply(augment: Augmentation, x: Array, rng: np.random.Generator) -> Array:
    result = augment(x, rng)
    if len(result) != len(x):
        raise DataError("augment changed the number of samples", expected=len(x), got=len(result))
    return result


# --- checks ----------------------------------------------------------------------------------------------------------


def check_labels(labels: npt.ArrayLike, classes: int) -> None:
    """Raise DataError, with the first index at fault, unless all `labels` are integers in 0..classes-1.

    `labels` has any shape; a float array is refused even if its values are whole, as it may come from a wrong column.

    >>> check_labels([0, 2, 1], classes=3)
    >>> check_labels([0, 3, 1], classes=3)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    minigraph.errors.DataError: labels[1] = 3 is not a class
    ...
    """
    labels = _as_array("labels", labels)
    classes = check_whole("classes", classes, least=1)
    expected = f"integers in 0..{classes - 1}"
    if labels.dtype.kind not in "iu":
        broken = labels != np.floor(labels) if labels.dtype.kind == "f" else np.zeros(labels.shape, bool)
        position = f"{_first(broken)} = {labels[_index(broken)]}" if broken.any() else ""
        raise DataError(
            f"labels{position} {'is not a whole number' if position else 'are not integers'}",
            expected=expected,
            got=f"dtype {labels.dtype}",
            hint="labels.astype(np.int64), if the values are class numbers; labels.argmax(axis=-1), if one-hot",
        )
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        value = labels[_index(wrong)]
        hint = "classes count from 0" if value == classes else None
        raise DataError(f"labels{_first(wrong)} = {value} is not a class", expected=expected, got=value, hint=hint)


def check_finite(name: str, array: npt.ArrayLike) -> None:
    """Raise DataError, with the first index at fault, if `array` contains NaN or an infinity.

    `array` has any shape and any numeric dtype; `name` is what the message calls it.

    >>> check_finite("x", [1.0, 2.0])
    >>> check_finite("x", [[1.0, 2.0], [float("nan"), 3.0]])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    minigraph.errors.DataError: x[1, 0] is nan
    ...
    """
    array = _as_array(name, array)
    if array.dtype.kind not in "biufc":
        raise DataError(f"{name} is not numeric", expected="numbers", got=f"dtype {array.dtype}")
    finite = np.isfinite(array)
    if finite.all():
        return
    value = array[_index(~finite)]
    raise DataError(
        f"{name}{_first(~finite)} is {value}",
        expected="finite numbers",
        got=f"{array.size - np.count_nonzero(finite)} of {array.size} values not finite",
        hint="remove or impute these samples before training",
    )


def _index(mask: Array) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(np.argmax(mask), mask.shape))


def _first(mask: Array) -> str:
    index = _index(mask)
    return f"[{', '.join(map(str, index))}]" if index else ""


def check_whole(name: str, value: int, least: int) -> int:
    """Return a whole number, or raise an ArgumentError.

    >>> check_whole("batch_size", 32, least=1)
    32
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ArgumentError(f"{name} is not valid", expected=f"an integer ≥ {least}", got=repr(value))
    return int(value)
