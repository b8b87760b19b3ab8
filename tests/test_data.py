"""minigraph.data: splits partition, epochs visit everything once, resumption and augmentation repeat their bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigraph.augmentation import Compose, Normalize, RandomFlip, RandomShift
from minigraph.data import (
    Batches,
    check_finite,
    check_labels,
    stratified_split,
)
from minigraph.errors import ArgumentError, DataError

thorough = settings(deadline=None, max_examples=100)
seeds = st.integers(0, 2**70)


def images(n: int = 4, height: int = 5, width: int = 6, channels: int = 2, dtype: type = np.float32) -> np.ndarray:
    return np.arange(n * height * width * channels).reshape(n, height, width, channels).astype(dtype) + 1


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# --- stratified_split ------------------------------------------------------------------------------------------------


@thorough
@given(st.lists(st.integers(-2, 5), min_size=1, max_size=60), st.floats(0, 1, exclude_max=True), seeds)
def test_split_is_a_stratified_partition(labels, fraction, seed):
    train, test = stratified_split(labels, fraction, seed)
    assert sorted([*train, *test]) == list(range(len(labels)))
    for label in set(labels):
        share = [labels[i] for i in test].count(label)
        assert share == round(fraction * labels.count(label))


def test_split_follows_its_written_recipe():
    labels = np.array([1, 0, 1, 1, 0, 1, 0, 0, 1, 1])
    generator = rng(5)
    zeros = generator.permutation(np.flatnonzero(labels == 0))
    ones = generator.permutation(np.flatnonzero(labels == 1))
    expected_train = generator.permutation([*zeros[1:], *ones[2:]])
    expected_test = generator.permutation([*zeros[:1], *ones[:2]])
    train, test = stratified_split(labels, 0.3, seed=5)
    np.testing.assert_array_equal(train, expected_train)
    np.testing.assert_array_equal(test, expected_test)


def test_split_depends_on_the_seed_only():
    labels = np.repeat(np.arange(3), 20)
    first, again, other = (stratified_split(labels, 0.25, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first[0], again[0])
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize("labels", [[0.0, 1.0], [[0, 1]], ["a"], [True, False], 3, [[1], [1, 2]]])
def test_split_refuses_labels_it_cannot_group(labels):
    with pytest.raises(DataError):
        stratified_split(labels, 0.5, 0)


@pytest.mark.parametrize(
    ("fraction", "seed"), [(-0.1, 0), (1.0, 0), (float("nan"), 0), (0.5, -1), (0.5, 1.5), (0.5, True)]
)
def test_split_refuses_numbers_out_of_range(fraction, seed):
    with pytest.raises(ArgumentError):
        stratified_split([0, 1], fraction, seed)


# --- Batches: order --------------------------------------------------------------------------------------------------


@thorough
@given(st.integers(1, 40), st.integers(1, 45), st.booleans(), seeds, st.integers(0, 10**6))
def test_every_epoch_visits_each_sample_once(n, batch_size, shuffle, seed, epoch):
    batches = Batches(np.arange(n), np.arange(n) * 10, batch_size, shuffle=shuffle, seed=seed)
    parts = list(batches.epoch(epoch))
    assert len(parts) == len(batches)
    assert all(len(x) == batch_size for x, _ in parts[:-1])
    assert sorted(np.concatenate([x for x, _ in parts])) == list(range(n))
    assert all(np.array_equal(y, x * 10) for x, y in parts)


@thorough
@given(st.integers(1, 30), st.integers(1, 8), seeds, st.integers(0, 50), st.data())
def test_resuming_gives_the_tail_of_the_epoch(n, batch_size, seed, epoch, data):
    def make():
        augment = Compose(RandomShift(2), RandomFlip(vertical=True))
        return Batches(images(n), np.arange(n), batch_size, seed=seed, augment=augment)

    batches = make()
    start = data.draw(st.integers(0, len(batches)))
    list(batches.epoch(epoch + 1))  # an epoch in between leaves no trace
    whole = list(batches.epoch(epoch))[start:]
    tail = list(make().epoch(epoch, start))
    assert len(whole) == len(tail)
    for (x, y), (x_again, y_again) in zip(whole, tail, strict=True):
        np.testing.assert_array_equal(x, x_again)
        np.testing.assert_array_equal(y, y_again)


def test_order_is_the_documented_stream():
    expected = np.random.Generator(np.random.PCG64(np.random.SeedSequence([3, 8]))).permutation(10)
    x, _ = next(Batches(np.arange(10), batch_size=10, seed=3).epoch(8))
    np.testing.assert_array_equal(x, expected)


def test_epochs_and_seeds_differ():
    def order(seed, epoch):
        return tuple(next(Batches(np.arange(50), batch_size=50, seed=seed).epoch(epoch))[0])

    assert len({order(seed, epoch) for seed in range(4) for epoch in range(4)}) == 16


def test_interleaved_epochs_do_not_disturb_each_other():
    batches = Batches(images(6), batch_size=2, augment=RandomShift(1))
    alone = [x for x, _ in batches.epoch(1)]
    first, second = batches.epoch(0), batches.epoch(1)
    interleaved = [x for _, (x, _) in zip(first, second, strict=True)]
    np.testing.assert_array_equal(alone, interleaved)


def test_drop_last_drops_only_the_short_batch():
    assert [len(x) for x, _ in Batches(np.zeros(7), batch_size=3, drop_last=True).epoch(0)] == [3, 3]
    assert [len(x) for x, _ in Batches(np.zeros(6), batch_size=3, drop_last=True).epoch(0)] == [3, 3]
    assert [len(x) for x, _ in Batches(np.zeros(7), batch_size=3).epoch(0)] == [3, 3, 1]


# --- Batches: inputs -------------------------------------------------------------------------------------------------


def test_dicts_stay_dicts_and_rows_stay_together():
    x = {"image": images(5), "age": np.arange(5)}
    y = {"class": np.arange(5) + 10, "weight": np.arange(5) + 20}
    for x_batch, y_batch in Batches(x, y, batch_size=2).epoch(3):
        assert list(x_batch) == ["image", "age"] and list(y_batch) == ["class", "weight"]
        np.testing.assert_array_equal(x_batch["image"], x["image"][x_batch["age"]])
        np.testing.assert_array_equal(y_batch["class"], x_batch["age"] + 10)
        np.testing.assert_array_equal(y_batch["weight"], x_batch["age"] + 20)


def test_without_y_the_second_part_is_none():
    assert [y for _, y in Batches(np.zeros(3), batch_size=2).epoch(0)] == [None, None]


def test_a_dict_is_augmented_by_name():
    x = {"image": images(4), "age": np.arange(4)}
    batches = Batches(x, batch_size=4, shuffle=False, augment={"image": lambda a, _: a + 1})
    (batch, _) = next(batches.epoch(0))
    np.testing.assert_array_equal(batch["image"], x["image"] + 1)
    np.testing.assert_array_equal(batch["age"], x["age"])


@pytest.mark.parametrize("shuffle", [False, True])
def test_an_augmentation_in_place_leaves_the_data_alone(shuffle):
    def blacken(x, _):
        x[...] = 0
        return x

    x = images()
    batches = Batches(x, batch_size=2, shuffle=shuffle, augment=blacken)
    assert all((batch == 0).all() for batch, _ in batches.epoch(0))
    np.testing.assert_array_equal(x, images())


def test_unshuffled_batches_are_views():
    x = np.arange(4.0)
    assert all(np.shares_memory(batch, x) for batch, _ in Batches(x, batch_size=2, shuffle=False).epoch(0))


def test_augmentation_does_not_reuse_the_numbers_of_the_order():
    """SeedSequence([s, e]) and SeedSequence([s, e, 0]) are one stream; batch 0 must not be on it."""
    seen = []
    augment = lambda x, generator: (seen.append(generator.random(4).tolist()), x)[1]  # noqa: E731
    list(Batches(images(4), batch_size=2, seed=1, augment=augment).epoch(2))
    order = np.random.Generator(np.random.PCG64(np.random.SeedSequence([1, 2]))).random(4).tolist()
    assert len({tuple(numbers) for numbers in [*seen, order]}) == 3


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (np.zeros(3), np.zeros(2)),
        ({"a": np.zeros(3), "b": np.zeros(2)}, None),
        (np.zeros(3), {"a": np.zeros(3), "b": np.zeros(2)}),
        (np.zeros((0, 2)), None),
        ({}, None),
        ({}, np.zeros(2)),
        (np.float32(3), None),
        (np.array([None, 1]), None),
        ([[1], [2, 3]], None),
    ],
)
def test_unusable_arrays_are_data_errors(x, y):
    with pytest.raises(DataError):
        Batches(x, y)


def test_a_length_error_names_the_arrays():
    with pytest.raises(DataError, match=r"x\['a'\]\": 3, 'y': 2"):
        Batches({"a": np.zeros(3)}, np.zeros(2))


@pytest.mark.parametrize(
    "arguments",
    [
        {"batch_size": 0},
        {"batch_size": 2.0},
        {"batch_size": 5, "drop_last": True},
        {"seed": -1},
        {"augment": 3},
        {"augment": {"x": RandomFlip()}},
    ],
)
def test_unusable_arguments_are_argument_errors(arguments):
    with pytest.raises(ArgumentError):
        Batches(np.zeros(4), **arguments)


@pytest.mark.parametrize("augment", [RandomFlip(), {"other": RandomFlip()}, {"image": None}])
def test_an_augment_that_does_not_fit_a_dict_is_refused(augment):
    with pytest.raises(ArgumentError):
        Batches({"image": images()}, augment=augment)


@pytest.mark.parametrize(("epoch", "start"), [(-1, 0), (0.5, 0), (0, -1), (0, 3)])
def test_epoch_checks_its_numbers_when_called(epoch, start):
    with pytest.raises(ArgumentError):
        Batches(np.zeros(4), batch_size=2).epoch(epoch, start)


def test_an_augmentation_that_loses_samples_is_refused():
    batches = Batches(images(), augment=lambda x, _: x[1:])
    with pytest.raises(DataError, match="number of samples"):
        next(batches.epoch(0))


# --- augmentations ---------------------------------------------------------------------------------------------------


def naive_shift(image: np.ndarray, down: int, right: int, fill: float) -> np.ndarray:
    height, width, _ = image.shape
    result = np.full_like(image, fill)
    for row in range(height):
        for column in range(width):
            if 0 <= row - down < height and 0 <= column - right < width:
                result[row, column] = image[row - down, column - right]
    return result


@thorough
@given(
    st.tuples(st.integers(0, 5), st.integers(1, 6), st.integers(1, 6), st.integers(1, 3)),
    st.integers(0, 9),
    st.sampled_from([0.0, -1.5]),
    seeds,
    st.sampled_from([np.float16, np.float32, np.float64]),
)
def test_shift_equals_a_naive_loop(shape, pixels, fill, seed, dtype):
    x = images(*shape, dtype=dtype)
    before = x.copy()
    shifted = RandomShift(pixels, fill)(x, rng(seed))
    vectors = rng(seed).integers(-pixels, pixels + 1, size=(2, len(x))).T
    expected = [naive_shift(image, down, right, fill) for image, (down, right) in zip(x, vectors, strict=True)]
    np.testing.assert_array_equal(shifted, np.array(expected, dtype).reshape(x.shape))
    assert shifted.dtype == dtype
    np.testing.assert_array_equal(x, before)


def test_shift_reaches_every_vector_and_no_other():
    """One white pixel in the middle lands on each of the 5 × 5 places, equally often, and nowhere else."""
    x = np.zeros((5000, 9, 9, 1))
    x[:, 4, 4] = 1
    counts = RandomShift(2)(x, rng()).sum(axis=(0, 3))
    assert counts.sum() == 5000 and counts[2:7, 2:7].sum() == 5000
    assert counts[2:7, 2:7].min() > 140 and counts[2:7, 2:7].max() < 260  # 200 ± 4.3 σ


@pytest.mark.parametrize(("horizontal", "vertical"), [(True, False), (False, True), (True, True), (False, False)])
def test_flip_mirrors_half_of_the_images(horizontal, vertical):
    x = np.repeat(images(1), 400, axis=0)
    flipped = RandomFlip(horizontal, vertical)(x, rng())
    variants = {
        (h, v): x[0][:: -1 if v else 1, :: -1 if h else 1] for h in {False, horizontal} for v in {False, vertical}
    }
    counts = [sum(np.array_equal(image, variant) for image in flipped) for variant in variants.values()]
    assert sum(counts) == 400
    assert min(counts) > 400 / len(variants) * 0.7
    assert flipped.dtype == x.dtype


def test_normalize_fit_gives_zero_mean_and_unit_std_per_channel():
    x = rng().normal([1.0, 50.0, -3.0], [0.5, 20.0, 1.0], size=(40, 6, 7, 3)).astype(np.float32)
    z = Normalize.fit(x)(x, rng())
    assert z.dtype == np.float32
    np.testing.assert_allclose(z.mean(axis=(0, 1, 2), dtype=np.float64), 0, atol=1e-5)
    np.testing.assert_allclose(z.std(axis=(0, 1, 2), dtype=np.float64), 1, rtol=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e30])
def test_normalize_turns_a_constant_channel_into_zeros(value):
    x = np.full((1001, 3, 3, 1), value, np.float32)
    np.testing.assert_allclose(Normalize.fit(x)(x) / max(value, 1), 0, atol=1e-6)
    # In float64 the mean of many 0.1 is not 0.1, and std is tiny but not 0.
    for n in (3, 6, 100, 1001):
        assert Normalize.fit(np.full((n, 3, 3, 1), value)).std == (1.0,)


def test_normalize_refuses_what_it_cannot_use():
    for mean, std in [(0.0, 0.0), (0.0, -1.0), (float("nan"), 1.0), ((0.0, 0.0), (1.0,)), (0.0, (1.0, 1.0))]:
        with pytest.raises(ArgumentError):
            Normalize(mean, std)
    with pytest.raises(DataError, match="channels"):
        Normalize((0.0, 0.0), (1.0, 1.0))(images(channels=3), rng())
    for x in [np.zeros((0, 2)), np.array([[np.nan]]), np.array([[1, 2]]), np.zeros(3)]:
        with pytest.raises(DataError):
            Normalize.fit(x)


def test_compose_applies_its_steps_in_order_with_one_generator():
    shift, flip = RandomShift(2), RandomFlip()
    generator = rng(4)
    expected = flip(shift(images(), generator), generator)
    np.testing.assert_array_equal(Compose(shift, flip)(images(), rng(4)), expected)
    assert Compose(shift, flip) == Compose(RandomShift(2), RandomFlip()) != Compose(flip, shift)
    assert hash(Compose(shift, flip)) == hash(Compose(shift, flip))
    with pytest.raises(ArgumentError):
        Compose(shift, 3)


@pytest.mark.parametrize("augment", [RandomShift(1), RandomFlip()])
@pytest.mark.parametrize("x", [np.zeros((2, 3, 3)), np.zeros((2, 3, 3, 1), np.uint8), np.zeros((1,) * 5), [[1.0]]])
def test_image_augmentations_want_nhwc_floats(augment, x):
    with pytest.raises(DataError):
        augment(x, rng())


@pytest.mark.parametrize("pixels", [-1, 1.5])
def test_shift_wants_whole_pixels(pixels):
    with pytest.raises(ArgumentError):
        RandomShift(pixels)


# --- checks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, -1, 5], r"labels\[2\] = -1 "),
        ([0, 3, 7], r"labels\[1\] = 3 "),
        ([[0, 1], [2, 9]], r"labels\[1, 1\] = 9 "),
        ([0.0, 1.0, 1.5], r"labels\[2\] = 1.5 is not a whole number"),
        ([0.0, float("nan")], r"labels\[1\] = nan is not a whole number"),
        ([0.0, 1.0], "are not integers"),
        ([True, False], "are not integers"),
        (["a"], "are not integers"),
        ([None], "are not integers"),
        (np.array([2**64 - 1], np.uint64), r"labels\[0\] = 18446744073709551615"),
        (3, "labels = 3 is not a class"),
        ([[1], [1, 2]], "not an array"),
    ],
)
def test_check_labels_names_the_first_index(labels, message):
    with pytest.raises(DataError, match=message):
        check_labels(labels, classes=3)


@thorough
@given(st.lists(st.integers(-3, 8)), st.integers(1, 6))
def test_check_labels_accepts_exactly_the_classes(labels, classes):
    labels = np.array(labels, np.int64)
    wrong = [i for i, label in enumerate(labels) if not 0 <= label < classes]
    if not wrong:
        check_labels(labels, classes)
        return
    with pytest.raises(DataError, match=rf"labels\[{wrong[0]}\]"):
        check_labels(labels, classes)


def test_check_labels_wants_a_class():
    with pytest.raises(ArgumentError):
        check_labels([0], classes=0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_check_finite_names_the_first_index_and_counts(value):
    x = np.zeros((2, 3, 4), np.float32)
    x[1, 2, 0] = x[1, 2, 3] = value
    with pytest.raises(DataError, match=r"x_train\[1, 2, 0\] is (nan|inf|-inf)") as caught:
        check_finite("x_train", x)
    assert "2 of 24 values" in str(caught.value)


def test_check_finite_takes_all_numbers_and_only_numbers():
    for array in [np.arange(3), np.zeros((0, 2)), np.zeros(2, bool), np.ones(2, complex), 1.0]:
        check_finite("x", array)
    with pytest.raises(DataError, match="x is nan"):
        check_finite("x", float("nan"))
    for array in [["a"], [None]]:
        with pytest.raises(DataError, match="not numeric"):
            check_finite("x", array)


def test_errors_say_where_what_was_expected_and_what_came():
    with pytest.raises(DataError) as caught:
        check_labels([0, 3], classes=3)
    text = str(caught.value)
    assert "expected: integers in 0..2" in text and "got:      3" in text and "test_data.py" in text
    assert "classes count from 0" in text
