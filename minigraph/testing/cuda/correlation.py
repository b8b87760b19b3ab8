"""A convolution and its two adjoints over N,C,H,W arrays and O,I,H,W kernels, tap by tap: the plainest way there is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Pair = Sequence[int]


def _taps(size: Pair, windows: Pair, stride: Pair, dilation: Pair) -> Iterator[tuple[int, int, slice, slice]]:
    """Yield each tap with the rows and columns of the padded image that it meets."""
    for r in range(size[0]):
        for s in range(size[1]):
            down, across = (
                slice(k * d, k * d + (n - 1) * step + 1, step)
                for k, d, n, step in zip((r, s), dilation, windows, stride, strict=True)
            )
            yield r, s, down, across


def _padded(x: Array, pre: Pair, post: Pair) -> Array:
    return np.pad(x, ((0, 0), (0, 0), (pre[0], post[0]), (pre[1], post[1])))


def _grouped(x: Array, groups: int) -> Array:
    """Return N,C,H,W as N,group,C,H,W."""
    return x.reshape(x.shape[0], groups, -1, *x.shape[2:])


def forward(x: Array, w: Array, pre: Pair, post: Pair, stride: Pair, dilation: Pair) -> Array:
    """Return y = x ⋆ w.

    >>> x, w = np.arange(4.0).reshape(1, 1, 2, 2), np.ones((1, 1, 2, 2))
    >>> forward(x, w, (0, 0), (0, 1), (1, 1), (1, 1))
    array([[[[6., 4.]]]])
    """
    padded = _padded(x, pre, post)
    windows = [
        (n - (k - 1) * d - 1) // step + 1
        for n, k, d, step in zip(padded.shape[2:], w.shape[2:], dilation, stride, strict=True)
    ]
    groups = x.shape[1] // w.shape[1]
    kernel = w.reshape(groups, -1, *w.shape[1:])
    y = np.zeros((x.shape[0], groups, kernel.shape[1], *windows), x.dtype)
    for r, s, down, across in _taps(w.shape[2:], windows, stride, dilation):
        y += np.einsum("ngchw,gkc->ngkhw", _grouped(padded, groups)[..., down, across], kernel[..., r, s])
    return y.reshape(x.shape[0], -1, *windows)


def transpose(y: Array, w: Array, shape: tuple[int, ...], pre: Pair, post: Pair, stride: Pair, dilation: Pair) -> Array:
    """Return what makes ⟨forward(x, w), y⟩ = ⟨x, transpose(y, w)⟩, in the shape of x."""
    n, channels, height, width = shape
    groups = channels // w.shape[1]
    kernel = w.reshape(groups, -1, *w.shape[1:])
    padded = np.zeros((n, groups, w.shape[1], height + pre[0] + post[0], width + pre[1] + post[1]), y.dtype)
    for r, s, down, across in _taps(w.shape[2:], y.shape[2:], stride, dilation):
        padded[..., down, across] += np.einsum("ngkhw,gkc->ngchw", _grouped(y, groups), kernel[..., r, s])
    return padded[..., pre[0] : pre[0] + height, pre[1] : pre[1] + width].reshape(shape)


def kernel_adjoint(
    x: Array, y: Array, shape: tuple[int, ...], pre: Pair, post: Pair, stride: Pair, dilation: Pair
) -> Array:
    """Return what makes ⟨forward(x, w), y⟩ = ⟨w, kernel_adjoint(x, y)⟩, in the shape of w."""
    groups = x.shape[1] // shape[1]
    padded = _grouped(_padded(x, pre, post), groups)
    w = np.zeros((groups, shape[0] // groups, *shape[1:]), x.dtype)
    for r, s, down, across in _taps(shape[2:], y.shape[2:], stride, dilation):
        w[..., r, s] = np.einsum("ngchw,ngkhw->gkc", padded[..., down, across], _grouped(y, groups))
    return w.reshape(shape)
