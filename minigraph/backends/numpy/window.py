"""What convolution and pooling kernels share: which elements a tap meets, how work is cut, padded copies, windows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from minigraph.backends.numpy.call import Array, Kernel
from minigraph.backends.numpy.threads import ranges
from minigraph.ops.window import Window


@dataclass(frozen=True)
class Tap:
    """One tap of a window: `inside` are the elements it meets, `outside` the windows in which it meets one."""

    row: int
    column: int
    outside: tuple[slice, slice]
    inside: tuple[slice, slice]


def taps(window: Window, image: tuple[int, int], windows: tuple[int, int]) -> list[Tap]:
    """Return the taps in row-major order, those that meet only padding left out."""
    pads = window.pads(image)
    result = []
    for a in range(window.size[0]):
        rows = _meets(a, 0, window, image, windows, pads)
        for b in range(window.size[1]):
            columns = _meets(b, 1, window, image, windows, pads)
            if rows and columns:
                result.append(Tap(a, b, (rows[0], columns[0]), (rows[1], columns[1])))
    return result


def _meets(
    tap: int, axis: int, window: Window, image: tuple[int, int], windows: tuple[int, int], pads: Any
) -> tuple[slice, slice] | None:
    """Return (windows, elements) as slices for one axis: element = window·stride + offset must be inside the image."""
    stride = window.strides[axis]
    offset = tap * window.dilations[axis] - pads[axis][0]
    first = max(0, -(offset // stride)) if offset < 0 else 0
    last = min(windows[axis], (image[axis] - 1 - offset) // stride + 1)
    if last <= first:
        return None
    start = first * stride + offset
    return slice(first, last), slice(start, start + (last - first - 1) * stride + 1, stride)


def pixels(image: Array, place: tuple[slice, slice]) -> Array:
    """Return the view of N,H,W,C images at one tap's place."""
    return image[:, place[0], place[1]]


def unrolled(padded: Array, window: Window, windows: tuple[int, int]) -> Array:
    """Return the view (N, H′, W′, kh, kw, C) of padded images: each window's taps stand side by side (im2col)."""
    n, h, w, c = padded.strides
    (s, t), (d, e) = window.strides, window.dilations
    shape = (len(padded), *windows, *window.size, padded.shape[3])
    return np.lib.stride_tricks.as_strided(padded, shape, (n, h * s, w * t, h * d, w * e, c), writeable=False)


@dataclass(frozen=True)
class Share:
    """Some rows of some images: what one worker does, or a piece of it that stays in the cache."""

    first_image: int
    last_image: int
    first_row: int
    last_row: int

    @property
    def images(self) -> int:
        """How many images."""
        return self.last_image - self.first_image

    @property
    def rows(self) -> int:
        """How many rows of each image."""
        return self.last_row - self.first_row

    def of(self, array: Array) -> Array:
        """Return this part of N,H,W,C images."""
        return array[self.first_image : self.last_image, self.first_row : self.last_row]

    def cut(self, most: int, height: int) -> Iterator[Share]:
        """Yield nearly equal pieces of at most `most` rows in all: whole images, or rows of a single one."""
        whole = self.rows == height <= most
        images = -(-self.images // (most // height)) if whole else self.images
        for first, last in ranges(self.images, images):
            for top, bottom in ranges(self.rows, 1 if whole else -(-self.rows // max(1, most))):
                yield Share(
                    self.first_image + first, self.first_image + last, self.first_row + top, self.first_row + bottom
                )


def shares(images: int, height: int, workers: int) -> list[Share]:
    """Return what each worker does: its images, or its rows of all images where there are fewer images than workers.

    >>> shares(3, 8, 2)
    [Share(first_image=0, last_image=1, first_row=0, last_row=8), Share(first_image=1, last_image=3, first_row=0, \
last_row=8)]
    """
    if images >= workers:
        return [Share(first, last, 0, height) for first, last in ranges(images, workers)]
    return [Share(0, images, top, bottom) for top, bottom in ranges(height, workers)]


class Halo:
    """Scratch memory for some rows of images with the padding around them. Pieces of one size clear it only once."""

    def __init__(self, memory: Array, dtype: Any) -> None:
        self.memory = memory.view(dtype)
        self._cleared: Any = None

    def copy(self, images: Array, origin: tuple[int, int], size: tuple[int, int]) -> tuple[Array, list[Kernel]]:
        """Return the array for `size` pixels from `origin` on, which may lie outside, and the calls that fill it."""
        shape = (len(images), *size, images.shape[3])
        padded = self.memory[: math.prod(shape)].reshape(shape)
        inside, target = zip(*map(_overlap, origin, size, images.shape[1:3]), strict=True)
        calls: list[Kernel] = []
        if self._cleared != (shape, target) and pixels(padded, target).shape != padded.shape:
            calls.append(partial(padded.fill, 0))
        self._cleared = (shape, target)
        return padded, [*calls, partial(np.copyto, pixels(padded, target), pixels(images, inside))]


def _overlap(origin: int, size: int, extent: int) -> tuple[slice, slice]:
    """Return where `size` places from `origin` on meet 0 … extent: as a slice of those, and of the places."""
    first, last = max(0, origin), max(0, origin, min(extent, origin + size))
    return slice(first, last), slice(first - origin, last - origin)
