"""Windows unrolled into the rows of a matrix (im2col), so that a convolution is a matrix product."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import numpy as np

from minigraph.backends.geometry import Geometry
from minigraph.backends.numpy.call import Array, Kernel, Scratch, align
from minigraph.backends.numpy.window import Halo, Share, unrolled

# A piece should stay in the level-2 cache until the product has read it, but have enough rows for a fast product.
CACHE_BYTES = 700_000
FEWEST_ROWS = 256


class Unroller:
    """One worker's way from images to matrices of their windows, piece by piece; padding is copied around a piece.

    room: bytes of a piece, at least.
    """

    def __init__(self, geometry: Geometry, share: Share, scratch: Scratch, room: int = 0) -> None:
        self.geometry = geometry
        self.share = share
        self.room = room
        halo, columns = _piece_bytes(geometry, list(self.pieces()))
        self.halo = Halo(scratch.bytes(halo), scratch.dtype)
        self.memory = scratch.bytes(columns).view(scratch.dtype)

    @classmethod
    def nbytes(cls, g: Geometry, share: Share, room: int = 0) -> int:
        """Return the bytes of scratch memory that one of these takes."""
        return sum(map(align, _piece_bytes(g, list(_pieces(g, share, room)))))

    @classmethod
    def number(cls, g: Geometry, share: Share, room: int = 0) -> int:
        """Return how many pieces there are."""
        return len(list(_pieces(g, share, room)))

    def pieces(self) -> Iterator[Share]:
        """Yield the rows of windows that are unrolled at once."""
        return _pieces(self.geometry, self.share, self.room)

    def matrices(self, windows: int) -> Array:
        """Return (groups, windows, depth): memory for so many unrolled windows."""
        g = self.geometry
        result: Array = self.memory[: g.groups * windows * g.depth].reshape(g.groups, windows, g.depth)
        return result

    def columns(self, x: Array, piece: Share) -> tuple[Array, list[Kernel]]:
        """Return (groups, windows, depth), and the calls that unroll the windows of a piece of the images into it."""
        g = self.geometry
        (vertical, _), (height, _) = g.window.strides, g.window.extent
        images = x[piece.first_image : piece.last_image]
        top, rows = piece.first_row * vertical - g.pads[0][0], (piece.rows - 1) * vertical + height
        calls: list[Kernel] = []
        if g.padded:
            images, calls = self.halo.copy(images, (top, -g.pads[1][0]), (rows, g.images[2] + sum(g.pads[1])))
        else:
            images = images[:, top : top + rows]
        windows = unrolled(images, g.window, (piece.rows, g.outputs[2]))
        result = self.matrices(math.prod(windows.shape[:3]))
        if g.images[3] == 1:  # rows of pixels are longer than rows of taps: copied with the taps in front
            result = result.reshape(1, g.depth, -1)
            turned = windows.transpose(3, 4, 5, 0, 1, 2)
            return result.swapaxes(1, 2), [*calls, partial(np.copyto, result.reshape(turned.shape), turned)]
        per_group = g.images[3] // g.groups
        for group, matrix in enumerate(result):
            channels = windows[..., group * per_group : (group + 1) * per_group]
            calls.append(partial(np.copyto, matrix.reshape(channels.shape), channels))
        return result, calls


def _pieces(g: Geometry, share: Share, room: int) -> Iterator[Share]:
    row = max(1, g.outputs[2] * g.depth * g.groups * g.itemsize)
    fewest = -(-FEWEST_ROWS // g.outputs[2])
    return share.cut(max(CACHE_BYTES // row, room // row, fewest), g.outputs[1])


def _piece_bytes(g: Geometry, pieces: list[Share]) -> tuple[int, int]:
    """Return the bytes of a piece's padded images, if there is padding, and of its unrolled windows."""
    (vertical, _), (height, _) = g.window.strides, g.window.extent
    windows = max(p.images * p.rows for p in pieces) * g.outputs[2]
    pixels = max(p.images * ((p.rows - 1) * vertical + height) for p in pieces) * (g.images[2] + sum(g.pads[1]))
    return pixels * g.images[3] * g.itemsize * g.padded, windows * g.groups * g.depth * g.itemsize
