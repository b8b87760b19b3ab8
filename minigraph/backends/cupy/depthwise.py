"""Depthwise convolutions: each channel by itself, so there is no matrix product in them; kernels of our own."""

from __future__ import annotations

import math

from minigraph.backends.cupy.dtypes import CUDA_TYPES, computed_in
from minigraph.backends.cupy.epilogue import Epilogue
from minigraph.backends.cupy.im2col import windows
from minigraph.backends.cupy.places import read, template, widest, written
from minigraph.backends.cupy.products import Places
from minigraph.backends.cupy.steps import Action, Launch, aligned, blocks_for
from minigraph.backends.geometry import Geometry
from minigraph.ir.types import DTYPES
from minigraph.ops.conv import Conv2D, Conv2DTranspose, Convolution

_HEADERS = ("depthwise.cuh",)
# Threads that add up a kernel's adjoint, and the most parts that they take of the windows: each part's sums are kept.
_THREADS, _MOST_PARTS = 1 << 18, 1024


def depthwise_code(
    op: Convolution, g: Geometry, dtype: str, places: Places, epilogue: Epilogue, scratch: int
) -> tuple[tuple[Action, ...], int]:
    """Return the actions that compute a depthwise convolution, and the bytes of workspace from `scratch` on."""
    if isinstance(op, Conv2D):
        return (_forward(g, dtype, places, epilogue),), 0
    if isinstance(op, Conv2DTranspose):
        return (_transpose(g, dtype, places),), 0
    return _kernel_adjoint(g, dtype, places, scratch)


def _width(g: Geometry) -> int:
    return widest(g.itemsize, g.groups)


def _forward(g: Geometry, dtype: str, places: Places, epilogue: Epilogue) -> Launch:
    ctype = CUDA_TYPES[dtype]
    names = {"x": places[0], "w": places[1], "bias": epilogue.bias, "residual": epilogue.residual}
    used = {name: place for name, place in names.items() if place is not None}
    flags = (epilogue.bias is not None, epilogue.residual is not None, epilogue.relu)
    call = template("depthwise", windows(g), _width(g), g.images[0], *flags, ctype)
    line = f"{call}({', '.join(name if name in used else 'nullptr' for name in names)}, y);"
    pointers = (*(read(ctype, name, place) for name, place in used.items()), written(ctype, "y", places[2]))
    return Launch("depthwise", pointers, (line,), blocks_for(math.prod(g.outputs) // _width(g)), headers=_HEADERS)


def _transpose(g: Geometry, dtype: str, places: Places) -> Launch:
    ctype = CUDA_TYPES[dtype]
    line = template("depthwise_transpose", windows(g), _width(g), g.images[0]) + "(y, w, x);"
    pointers = (read(ctype, "y", places[0]), read(ctype, "w", places[1]), written(ctype, "x", places[2]))
    blocks = blocks_for(math.prod(g.images) // _width(g))
    return Launch("depthwise_transpose", pointers, (line,), blocks, headers=_HEADERS)


def _kernel_adjoint(g: Geometry, dtype: str, places: Places, scratch: int) -> tuple[tuple[Action, ...], int]:
    """Two stages, so that the sum is the same each time: parts of the windows, then the parts in order."""
    ctype, total, width = CUDA_TYPES[dtype], computed_in(dtype), _width(g)
    size = math.prod(g.window.size) * g.groups
    parts = max(1, min(math.prod(g.outputs[:3]), _MOST_PARTS, _THREADS * width // size))
    first = template("depthwise_sums", windows(g), width, g.images[0], parts) + "(x, y, sums);"
    second = template("add_parts", size, parts) + "(sums, w);"
    x, y, w = read(ctype, "x", places[0]), read(ctype, "y", places[1]), written(ctype, "w", places[2])
    sums = (written(total, "sums", -1, scratch), read(total, "sums", -1, scratch))
    actions = (
        Launch("depthwise_sums", (x, y, sums[0]), (first,), blocks_for(parts * size // width), headers=_HEADERS),
        Launch("add_parts", (sums[1], w), (second,), blocks_for(size), headers=_HEADERS),
    )
    return actions, aligned(parts * size * DTYPES["float64" if total == "double" else "float32"])
