"""Convolutions as matrix products: each window is a row of a matrix, which the kernel is multiplied by.

Where windows are pixels, the images are that matrix already: the product is all there is to it. Else the matrix is made
in the workspace (Chellapilla, Puri & Simard 2006), a slice of the windows at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from minigraph.backends.cupy.dtypes import CUDA_TYPES, computed_in
from minigraph.backends.cupy.gpu import Gpu
from minigraph.backends.cupy.places import read, template, widest, written
from minigraph.backends.cupy.products import Gemm, Matrix, Places
from minigraph.backends.cupy.steps import Action, Launch, aligned, blocks_for
from minigraph.backends.geometry import Geometry
from minigraph.ir.types import DTYPES, HALF
from minigraph.ops.conv import Conv2D, Conv2DTranspose, Convolution

# The most bytes that a matrix of windows takes, where the workspace has room for more.
MOST_BYTES = 256 << 20


def windows(g: Geometry) -> str:
    """Return the numbers of a convolution as `windows.cuh` has them."""
    (top, _), (left, _) = g.pads
    sizes = (*g.images[1:3], g.images[3] // g.groups, g.groups, *g.outputs[1:3])
    return template("Windows", *sizes, *g.window.size, *g.window.strides, *g.window.dilations, top, left)


def are_pixels(g: Geometry) -> bool:
    """Tell whether each window is one pixel, in order."""
    return (g.window.size, g.window.strides, g.padded) == ((1, 1), (1, 1), False)


@dataclass(frozen=True)
class Slice:
    """Some windows: of whole images, or rows of them in one. height: image rows from `top` on, for the adjoint."""

    image: int
    images: int
    first: int
    rows: int
    top: int = 0
    height: int = 0


def by_windows(g: Geometry, most_bytes: int, itemsize: int) -> Iterator[Slice]:
    """Yield slices of all windows whose matrix takes no more than so many bytes, but a row of windows at least."""
    count, height, width, _ = g.outputs
    rows = max(1, most_bytes // (width * g.groups * g.depth * itemsize))
    if rows >= height:
        images = rows // height
        for image in range(0, count, images):
            yield Slice(image, min(images, count - image), 0, height, 0, g.images[1])
        return
    for image in range(count):
        for first in range(0, height, rows):
            yield Slice(image, 1, first, min(rows, height - first))


def by_image_rows(g: Geometry, most_bytes: int, itemsize: int) -> Iterator[Slice]:
    """Yield slices of the images, with the rows of windows that meet them, whose matrix takes no more than that."""
    stride, extent, top_pad = g.window.strides[0], g.window.extent[0], g.pads[0][0]
    count, windows_down, width, _ = g.outputs
    rows = max(1, most_bytes // (width * g.groups * g.depth * itemsize))
    if rows >= windows_down:
        yield from by_windows(g, most_bytes, itemsize)
        return
    height = max(1, (rows - 1) * stride - extent + 2)
    for image in range(count):
        for top in range(0, g.images[1], height):
            some = min(height, g.images[1] - top)
            first = max(0, -(-(top + top_pad - extent + 1) // stride))
            last = min(windows_down - 1, (top + some - 1 + top_pad) // stride)
            yield Slice(image, 1, first, max(0, last - first + 1), top, some)


def matrix_code(
    op: Convolution, g: Geometry, dtype: str, places: Places, gpu: Gpu, scratch: int
) -> tuple[tuple[Action, ...], int]:
    """Return the actions that compute a convolution by products, and the bytes of workspace from `scratch` on."""
    products = Products(g, dtype, places, scratch)
    most = min(gpu.workspace, MOST_BYTES)
    if isinstance(op, Conv2D):
        return products.forward(most)
    if isinstance(op, Conv2DTranspose):
        return products.transpose(most)
    return products.kernel_adjoint(most)


def _summed(dtype: str) -> str:
    """Return the dtype that elements of a dtype are added up in."""
    return "float32" if dtype in HALF else dtype


@dataclass(frozen=True)
class Products:
    """A convolution's products: one for each slice of the windows, and of each a batch over the groups."""

    g: Geometry
    dtype: str
    places: Places
    scratch: int

    @property
    def _room(self) -> int:
        """Elements of the matrix for a row of windows."""
        return self.g.outputs[2] * self.g.groups * self.g.depth

    def _workspace(self, slices: list[Slice], itemsize: int | None = None) -> int:
        if are_pixels(self.g):
            return 0
        return aligned(max(s.images * s.rows for s in slices) * self._room * (itemsize or self.g.itemsize))

    def _rows(self, s: Slice) -> int:
        return s.images * s.rows * self.g.outputs[2]

    def _outputs(self, place: int, s: Slice) -> Matrix:
        """Return the outputs of a slice's windows: a row for each window, and in it a part for each group."""
        _, height, width, channels = self.g.outputs
        offset = (s.image * height + s.first) * width * channels * self.g.itemsize
        return Matrix(place, channels, channels // self.g.groups, offset)

    def _windows(self, image: int, transposed: bool = False) -> Matrix:
        """Return the matrix of windows: the workspace, or the images themselves."""
        stride = self.g.groups * self.g.depth
        if are_pixels(self.g):
            return Matrix(image, stride, self.g.depth, 0, transposed)
        return Matrix(-1, stride, self.g.depth, self.scratch, transposed)

    def _kernel(self, place: int, offset: int = 0, transposed: bool = False) -> Matrix:
        channels = self.g.outputs[3]
        return Matrix(place, channels, channels // self.g.groups, offset, transposed)

    def forward(self, most_bytes: int) -> tuple[tuple[Action, ...], int]:
        """y = windows of x · kernel."""
        x, kernel, y = self.places
        slices, actions = self._slices(most_bytes), list[Action]()
        for s in slices:
            actions += self._gathered(x, s)
            actions.append(self._gemm(
                self._windows(x), self._kernel(kernel), self._outputs(y, s),
                (self._rows(s), self.g.outputs[3] // self.g.groups, self.g.depth),
            ))  # fmt: skip
        return tuple(actions), self._workspace(slices)

    def transpose(self, most_bytes: int) -> tuple[tuple[Action, ...], int]:
        """x = what the windows y · kernelᵀ add up to: each pixel has one thread that adds, always in the same order.

        The windows are kept in the type that is added in.
        """
        y, kernel, x = self.places
        pixels = are_pixels(self.g)
        itemsize = self.g.itemsize if pixels else DTYPES[_summed(self.dtype)]
        slices = self._slices(most_bytes) if pixels else list(by_image_rows(self.g, most_bytes, itemsize))
        actions = list[Action]()
        for s in slices:
            if s.rows:
                actions.append(self._gemm(
                    self._outputs(y, s), self._kernel(kernel, transposed=True), self._windows(x),
                    (self._rows(s), self.g.depth, self.g.outputs[3] // self.g.groups), False,
                    None if pixels else _summed(self.dtype),
                ))  # fmt: skip
            if not pixels:
                actions.append(self._added(x, s))
        return tuple(actions), self._workspace(slices, itemsize)

    def kernel_adjoint(self, most_bytes: int) -> tuple[tuple[Action, ...], int]:
        """Kernel = Σ over slices of windows of xᵀ · y; sums of several slices are float32 at the least."""
        x, y, kernel = self.places
        slices, actions = self._slices(most_bytes), list[Action]()
        room = self._workspace(slices)
        wide = len(slices) > 1 and self.dtype in HALF
        count = self.g.depth * self.g.outputs[3]
        total = self._kernel(-1, self.scratch + room) if wide else self._kernel(kernel)
        for number, s in enumerate(slices):
            actions += self._gathered(x, s)
            actions.append(self._gemm(
                self._windows(x, transposed=True), self._outputs(y, s), total,
                (self.g.depth, self.g.outputs[3] // self.g.groups, self._rows(s)), number > 0,
                _summed(self.dtype) if wide else None,
            ))  # fmt: skip
        if not wide:
            return tuple(actions), room
        actions.append(self._rounded(kernel, count, self.scratch + room))
        return tuple(actions), room + aligned(count * DTYPES["float32"])

    def _slices(self, most_bytes: int) -> list[Slice]:
        if are_pixels(self.g):
            return [Slice(0, self.g.outputs[0], 0, self.g.outputs[1])]
        return list(by_windows(self.g, most_bytes, self.g.itemsize))

    def _gemm(
        self, left: Matrix, right: Matrix, result: Matrix, sizes: tuple[int, int, int], accumulate: bool = False,
        stored: str | None = None,
    ) -> Gemm:  # fmt: skip
        return Gemm("convolution", left, right, result, *sizes, self.dtype, self.g.groups, accumulate, stored)

    # --- kernels of our own -------------------------------------------------------------------------------------------

    @property
    def _width(self) -> int:
        return widest(self.g.itemsize, self.g.images[3] // self.g.groups)

    def _image_offset(self, s: Slice) -> int:
        return s.image * math.prod(self.g.images[1:]) * self.g.itemsize

    def _gathered(self, x: int, s: Slice) -> list[Action]:
        if are_pixels(self.g):
            return []
        ctype, width = CUDA_TYPES[self.dtype], self._width
        line = template("im2col", windows(self.g), width, s.images, s.first, s.rows) + "(x, matrix);"
        pointers = (read(ctype, "x", x, self._image_offset(s)), written(ctype, "matrix", -1, self.scratch))
        blocks = blocks_for(s.images * s.rows * self._room // width)
        return [Launch("im2col", pointers, (line,), blocks, headers=("windows.cuh",))]

    def _added(self, x: int, s: Slice) -> Launch:
        ctype, width = CUDA_TYPES[self.dtype], self._width
        numbers = (width, s.images, s.top, s.height, s.first, s.rows)
        line = template("col2im", windows(self.g), *numbers) + "(matrix, x);"
        pointers = (
            read(computed_in(self.dtype), "matrix", -1, self.scratch),
            written(ctype, "x", x, self._image_offset(s)),
        )
        blocks = blocks_for(s.images * s.height * self.g.images[2] * self.g.images[3] // width)
        return Launch("col2im", pointers, (line,), blocks, headers=("windows.cuh",))

    def _rounded(self, kernel: int, count: int, sums: int) -> Launch:
        ctype = CUDA_TYPES[self.dtype]
        line = f"for (Index i = thread_index(); i < {count}; i += thread_count()) w[i] = from_float<{ctype}>(sums[i]);"
        pointers = (read(computed_in(self.dtype), "sums", -1, sums), written(ctype, "w", kernel))
        return Launch("rounded", pointers, (line,), blocks_for(count))
