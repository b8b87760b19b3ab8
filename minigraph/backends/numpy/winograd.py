"""Winograd's minimal filtering: 3×3 convolutions at stride 1 with 36 multiplications for 16 outputs instead of 144.

Lavin & Gray 2016, "Fast algorithms for convolutional neural networks", F(4×4, 3×3). An image is cut into overlapping
tiles of 6×6; tiles and kernel are transformed, multiplied position by position, and transformed back:

    output tile = Aᵀ [ Σ_c (G w_c Gᵀ) ⊙ (Bᵀ d_c B) ] A

A transform of both axes at once is a product with a Kronecker square, so everything here is a matrix product or a copy:
(Bᵀ⊗Bᵀ)(36×36) times tiles that lie as (36, tiles·C); then 36 products (tiles, C)·(C, O); then (Aᵀ⊗Aᵀ)(16×36). The image
adjoint is the same with the kernel turned; in the kernel adjoint the roles change:

    kernel gradient = Gᵀ [ Σ_tiles (Bᵀ d B) ⊙ (A e Aᵀ) ] G

An error is that of the largest pixel of a tile, so results have a few times the rounding error of plain sums.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from minigraph.backends.geometry import Geometry
from minigraph.backends.numpy import threads
from minigraph.backends.numpy.call import Array, Call, Kernel, Scratch, Steps, align
from minigraph.backends.numpy.window import Halo, Share, shares

TILE, INPUT_TILE = 4, 6
POSITIONS = INPUT_TILE**2
# Convolution multiplies polynomials: evaluate at five points and ∞, multiply, interpolate. With these points errors are
# half of what the usual 0, ±1, ±2 give, for the powers of ±5/8 and ±25/16 lie around 1.
_POINTS = np.array([0, 5 / 8, -5 / 8, 25 / 16, -25 / 16])
_OTHERS = [np.delete(_POINTS, i) for i in range(5)]
# Bᵀ: coefficients of Π (x − p) over the other points, and over all of them for ∞.
_INPUT = np.array([*(np.append(np.poly(others)[::-1], 0) for others in _OTHERS), np.poly(_POINTS)[::-1]])
# G: the kernel's value at each point, over the same product there.
_KERNEL = np.array([*(p ** np.arange(3) / np.prod(p - o) for p, o in zip(_POINTS, _OTHERS, strict=True)), [0, 0, 1]])
# Aᵀ: the points' powers.
_OUTPUT = np.column_stack([_POINTS[None, :] ** np.arange(TILE)[:, None], np.eye(TILE)[:, -1]])

# With fewer channels the transforms cost more than they spare.
FEWEST_CHANNELS = 48
# The transformed kernel is 4 times the kernel: for fewer tiles, reading it takes longer than the products spare.
FEWEST_TILES = 12
# Transformed tiles that are worked on together: as many bytes, but enough tiles for a matrix product to be fast.
CACHE_BYTES = 600_000
TILES_AT_ONCE = 64


def applies(g: Geometry) -> bool:
    """Tell whether a convolution is computed this way where not all digits are asked for: float32, 3×3 at stride 1."""
    plain = g.window.size == (3, 3) and g.window.strides == (1, 1) == g.window.dilations and g.groups == 1
    enough = min(g.images[3], g.outputs[3]) >= FEWEST_CHANNELS
    return plain and enough and g.itemsize == 4 and math.prod(_grid(g)) >= max(FEWEST_TILES, g.images[3] // 8)


def _grid(g: Geometry) -> tuple[int, int, int]:
    """Return (images, tiles down, tiles across)."""
    return g.outputs[0], -(-g.outputs[1] // TILE), -(-g.outputs[2] // TILE)


def _pieces(g: Geometry) -> list[list[Share]]:
    """Return, for each worker, what it works on at once, in rows of tiles."""
    images, down, across = _grid(g)
    tiles = max(TILES_AT_ONCE, CACHE_BYTES // (POSITIONS * max(g.images[3], g.outputs[3]) * g.itemsize))
    return [list(share.cut(max(1, tiles // across), down)) for share in shares(images, down, threads.workers(g.flops))]


def forward_bytes(g: Geometry) -> int:
    """Return the workspace of `forward`: the transformed kernel, each worker's tiles."""
    return _kernel_bytes(g) + sum(sum(map(align, _piece_bytes(g, pieces))) for pieces in _pieces(g))


def adjoint_bytes(g: Geometry) -> int:
    """Return the workspace of `kernel_adjoint`: each worker's sum, one product to add to it, and its tiles."""
    sums = sum(min(2, len(pieces)) for pieces in _pieces(g)) * _kernel_bytes(g)
    return sums + sum(sum(map(align, _piece_bytes(g, pieces))) for pieces in _pieces(g))


def _kernel_bytes(g: Geometry) -> int:
    return align(POSITIONS * g.images[3] * g.outputs[3] * g.itemsize)


def _piece_bytes(g: Geometry, pieces: list[Share]) -> tuple[int, int, int, int]:
    """Return the bytes of a piece's padded images, and of three times its transformed tiles."""
    _, _, across = _grid(g)
    widest = max(g.images[3], g.outputs[3]) * g.itemsize
    halo = max(p.images * (TILE * p.rows + 2) for p in pieces) * (TILE * across + 2) * widest
    tiles = max(p.images * p.rows for p in pieces) * across * POSITIONS * widest
    return halo, tiles, tiles, tiles


def _square(matrix: Any, dtype: Any) -> Array:
    """Return the transform of both axes of a tile."""
    return np.ascontiguousarray(np.kron(matrix, matrix), dtype)


class _Worker:
    """One worker's scratch memory, and the calls between images and tiles."""

    def __init__(self, g: Geometry, pieces: list[Share], scratch: Scratch) -> None:
        self.g = g
        halo, *tiles = _piece_bytes(g, pieces)
        self.halo = Halo(scratch.bytes(halo), scratch.dtype)
        self.first, self.second, self.third = (scratch.bytes(size).view(scratch.dtype) for size in tiles)
        self.pieces = pieces
        self.input, self.output = _square(_INPUT, scratch.dtype), _square(_OUTPUT, scratch.dtype)
        self.adjoint = _square(_OUTPUT.T, scratch.dtype)

    def gathered(self, x: Array, piece: Share, origin: tuple[int, int], size: int) -> tuple[Array, list[Kernel]]:
        """Return tiles of `size`² pixels, TILE apart, as (size², tiles·channels), and the calls that put them there."""
        across, channels = _grid(self.g)[2], x.shape[3]
        span = (TILE * (piece.rows - 1) + size, TILE * (across - 1) + size)
        images = x[piece.first_image : piece.last_image]
        padded, calls = self.halo.copy(images, (origin[0] + piece.first_row * TILE, origin[1]), span)
        n, h, w, c = padded.strides
        shape = (size, size, piece.images, piece.rows, across, channels)
        tiles = np.lib.stride_tricks.as_strided(padded, shape, (h, w, n, TILE * h, TILE * w, c), writeable=False)
        target = self.first[: math.prod(shape)].reshape(shape)
        return target.reshape(size * size, -1), [*calls, partial(np.copyto, target, tiles)]

    def input_tiles(self, x: Array, piece: Share) -> tuple[Array, list[Kernel]]:
        """Return Bᵀ d B as (36, tiles, C)."""
        (top, _), (left, _) = self.g.pads
        tiles, calls = self.gathered(x, piece, (-top, -left), INPUT_TILE)
        result = self.second[: tiles.size].reshape(tiles.shape)
        calls.append(partial(np.matmul, self.input, tiles, out=result))
        return result.reshape(POSITIONS, -1, x.shape[3]), calls

    def adjoint_tiles(self, e: Array, piece: Share) -> tuple[Array, list[Kernel]]:
        """Return A e Aᵀ as (36, tiles, O)."""
        tiles, calls = self.gathered(e, piece, (0, 0), TILE)
        result = self.third[: POSITIONS * tiles.shape[1]].reshape(POSITIONS, -1)
        calls.append(partial(np.matmul, self.adjoint, tiles, out=result))
        return result.reshape(POSITIONS, -1, e.shape[3]), calls

    def scattered(self, products: Array, out: Array, piece: Share) -> list[Kernel]:
        """Return the calls that transform (36, tiles, O) back and put the tiles into the images."""
        across, channels = _grid(self.g)[2], out.shape[3]
        shape = (TILE, TILE, piece.images, piece.rows, across, channels)
        tiles = self.second[: math.prod(shape)].reshape(shape)
        back = partial(
            np.matmul,
            self.output,
            products.reshape(POSITIONS, -1),
            out=tiles.reshape(TILE * TILE, -1),
        )
        rows = out[piece.first_image : piece.last_image, piece.first_row * TILE : piece.last_row * TILE]
        return [back, *_interleaved(tiles, rows)]


def _interleaved(tiles: Array, images: Array) -> list[Kernel]:
    """Return the calls that copy tiles to their places; those that hang over the edge are cut off."""
    _, _, n, down, across, channels = tiles.shape
    if images.shape[1:3] == (down * TILE, across * TILE) and images.flags.c_contiguous:
        places = images.reshape(n, down, TILE, across, TILE, channels).transpose(2, 4, 0, 1, 3, 5)
        return [partial(np.copyto, places, tiles)]
    calls: list[Kernel] = []
    for i in range(TILE):
        for j in range(TILE):
            places = images[:, i::TILE, j::TILE]
            calls.append(partial(np.copyto, places, tiles[i, j, :, : places.shape[1], : places.shape[2]]))
    return calls


def forward(call: Call, g: Geometry, x: Array, w: Array, out: Array, turned: bool = False) -> Kernel:
    """Return the kernel out = conv2d(x, w). `turned`: w is (3, 3, O, C), to be rotated by 180°, for image adjoints."""
    scratch = Scratch(call.workspace, x.dtype)
    transform = _square(_KERNEL, x.dtype)
    transform = np.ascontiguousarray(transform[:, ::-1]) if turned else transform
    taps = w.reshape(9, -1)
    parts = _pieces(g)
    if w.flags.writeable:
        factors = scratch.array(POSITIONS, taps.shape[1])
        columns = threads.ranges(taps.shape[1], len(parts))
        transformed = [[partial(np.matmul, transform, taps[:, a:b], out=factors[:, a:b])] for a, b in columns]
    else:  # a constant: transformed once and for all
        factors, transformed = np.matmul(transform, taps), []
    factors = factors.reshape(POSITIONS, *w.shape[2:])
    factors = factors.swapaxes(1, 2) if turned else factors
    products = [_products(_Worker(g, pieces, scratch), x, factors, out) for pieces in parts]
    return Steps([threads.spread(transformed, call.threads), threads.spread(products, call.threads)])


def _products(worker: _Worker, x: Array, factors: Array, out: Array) -> list[Kernel]:
    calls: list[Kernel] = []
    for piece in worker.pieces:
        tiles, transformed = worker.input_tiles(x, piece)
        shape = (*tiles.shape[:2], out.shape[3])
        products = worker.first[: math.prod(shape)].reshape(shape)
        calls += [
            *transformed,
            partial(np.matmul, tiles, factors, out=products),
            *worker.scattered(products, out, piece),
        ]
    return calls


def kernel_adjoint(call: Call, g: Geometry, x: Array, e: Array, out: Array) -> Kernel:
    """Return the kernel of the gradient of conv2d(x, w) with respect to w."""
    scratch = Scratch(call.workspace, x.dtype)
    shape = (POSITIONS, g.images[3], g.outputs[3])
    parts, sums = [], []
    for pieces in _pieces(g):
        total = scratch.array(*shape)
        share = scratch.array(*shape) if len(pieces) > 1 else total
        parts.append(_shares_added(_Worker(g, pieces, scratch), x, e, total, share))
        sums.append(total.reshape(POSITIONS, -1))
    back = np.ascontiguousarray(_square(_KERNEL.T, x.dtype))
    result = out.reshape(9, -1)
    finish = []
    for a, b in threads.ranges(result.shape[1], len(sums)):
        first, *others = (total[:, a:b] for total in sums)
        finish.append(
            [
                *(partial(np.add, first, other, out=first) for other in others),
                partial(np.matmul, back, first, out=result[:, a:b]),
            ]
        )
    return Steps([threads.spread(parts, call.threads), threads.spread(finish, call.threads)])


def _shares_added(worker: _Worker, x: Array, e: Array, total: Array, share: Array) -> list[Kernel]:
    """Return the calls that add up the products of all tiles of a worker; the first piece needs no adding."""
    calls: list[Kernel] = []
    for number, piece in enumerate(worker.pieces):
        tiles, transformed = worker.input_tiles(x, piece)
        others, transformed_others = worker.adjoint_tiles(e, piece)
        calls += [*transformed, *transformed_others]
        calls.append(partial(np.matmul, tiles.swapaxes(1, 2), others, out=share if number else total))
        if number:
            calls.append(partial(np.add, total, share, out=total))
    return calls
