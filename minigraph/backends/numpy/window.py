"""What convolution and pooling kernels share: which elements a tap meets, padded copies, unrolled windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minigraph.backends.numpy.registry import Array
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
