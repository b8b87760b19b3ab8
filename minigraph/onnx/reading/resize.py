"""Resize and Upsample: each axis on its own, a gather for nearest neighbours, a constant matrix for the rest."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigraph import ops
from minigraph.errors import ModelFormatError
from minigraph.ir.node import Node
from minigraph.ir.types import Dim, is_float, known, normalize_axis
from minigraph.onnx.reader import Reader
from minigraph.onnx.reading.arithmetic import affordable, number
from minigraph.onnx.reading.registry import reads

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Sampling:
    """How an axis of `size` elements becomes one of `length`: `scale` apart, read between `start` and `end`."""

    size: int
    length: int
    scale: float
    start: float
    end: float


@reads("Upsample")
def upsample(n: Reader) -> Node:
    """An older Resize: coordinates are divided by the scale."""
    x = n.operand(0)
    scales = n.reals("scales") if n.version < 9 else [float(s) for s in n.constant(1, "scales").ravel()]
    if scales is None or len(scales) != x.rank:
        raise ModelFormatError("a scale for each axis", expected=x.rank, got=scales)
    linear = n.text("mode", "nearest") in ("linear", "bilinear")
    for axis, scale in enumerate(scales):
        if scale != 1:
            size = known(x.shape[axis], "a resized axis")
            sampling = Sampling(size, _length(size, scale), scale, 0.0, 1.0)
            places = _coordinates("asymmetric", sampling)
            x = _mix(x, axis, _linear(places, size)) if linear else _take(x, axis, np.floor(places), size)
    return x


@reads("Resize")
def resize(n: Reader) -> Node:
    """Nearest, linear or cubic interpolation (Keys 1981) at coordinates that the file says how to compute."""
    x = n.operand(0)
    listed = n.integers("axes")
    axes = list(range(x.rank)) if listed is None else [normalize_axis(a, x.rank) for a in listed]
    mode, transformation = n.text("mode", "nearest"), _transformation(n)
    outside: dict[int, Array] = {}
    before = x
    for axis, sampling in zip(axes, _samplings(n, x, axes, transformation), strict=True):
        if sampling.length == sampling.size and sampling.scale == 1 and transformation != "tf_crop_and_resize":
            continue
        places = _coordinates(transformation, sampling)
        if transformation == "tf_crop_and_resize":
            outside[axis] = (places < 0) | (places > sampling.size - 1)
        if mode == "nearest":
            x = _take(x, axis, _nearest(n, places), sampling.size)
        else:
            x = _mix(x, axis, _weights(n, mode, places, sampling))
    if x.dtype != before.dtype:
        x = ops.cast(x, before.dtype)
    return _extrapolated(x, outside, n.real("extrapolation_value", 0.0))


def _transformation(n: Reader) -> str:
    known_modes = (
        "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_crop_and_resize",
        "tf_half_pixel_for_nn",
    )  # fmt: skip
    if n.version < 11:
        return "asymmetric"
    mode = n.text("coordinate_transformation_mode", "half_pixel")
    if mode not in known_modes:
        raise ModelFormatError("no such coordinate transformation", expected=", ".join(known_modes), got=mode)
    return mode


def _samplings(n: Reader, x: Node, axes: list[int], transformation: str) -> list[Sampling]:
    """Return how each axis is sampled, from scales or sizes."""
    at = 1 if n.version < 11 else 2
    regions: Sequence[float] = [0.0] * len(axes) + [1.0] * len(axes)
    if transformation == "tf_crop_and_resize":
        regions = [float(v) for v in n.constant(1, "the region").ravel()]
    scales = n.constant(at, "scales").ravel() if n.optional(at) is not None else np.zeros(0)
    wanted: list[Any] = list(scales) if scales.size else list(n.sizes(3, "sizes"))
    if len(wanted) != len(axes):
        raise ModelFormatError("a scale or size for each axis", expected=len(axes), got=list(wanted))
    # An open axis that stays as it is counts as one element: it is left alone.
    alone = [
        isinstance(x.shape[a], Dim) and w == (1 if scales.size else x.shape[a])
        for a, w in zip(axes, wanted, strict=True)
    ]
    inside = [1 if keep else known(x.shape[a], "a resized axis") for a, keep in zip(axes, alone, strict=True)]
    if scales.size:
        factors = [float(s) for s in scales]
        lengths = [
            _length(size * (regions[len(axes) + i] - regions[i]), f)
            for i, (size, f) in enumerate(zip(inside, factors, strict=True))
        ]
    else:
        lengths = [1 if keep else known(w, "a new size") for w, keep in zip(wanted, alone, strict=True)]
        factors = [length / size for length, size in zip(lengths, inside, strict=True)]
        policy = n.text("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            factor = min(factors) if policy == "not_larger" else max(factors)
            factors = [factor] * len(axes)
            lengths = [math.floor(size * factor + 0.5) for size in inside]
    affordable(max(lengths), "a resized axis")
    if min(lengths) < 1 or min(factors) <= 0:
        raise ModelFormatError("bad sizes or scales", expected="sizes ≥ 1, scales > 0", got=(lengths, factors))
    return [
        Sampling(size, length, factor, regions[i], regions[len(axes) + i])
        for i, (size, length, factor) in enumerate(zip(inside, lengths, factors, strict=True))
    ]


def _length(size: float, scale: float) -> int:
    # Scales are float32: 0.6 is a little more, and 5·0.6 must be 3, not 2.
    length = float(size) * float(np.float32(scale)) if scale < 1 << 24 else math.inf
    affordable(length, "a resized axis")
    return math.floor(float(np.float32(length)))


def _coordinates(transformation: str, s: Sampling) -> Array:
    """Return where in the operand each element of the result is read."""
    i = np.arange(s.length, dtype=np.float64)
    if transformation == "asymmetric":
        return i / s.scale
    if transformation == "align_corners":
        # With scales the standard's reference takes size·scale as the length, before it is cut off to an integer.
        length = s.size * s.scale
        return i * (s.size - 1) / (length - 1) if s.length > 1 else i * 0
    if transformation == "tf_half_pixel_for_nn":
        return (i + 0.5) / s.scale
    if transformation == "tf_crop_and_resize":
        if s.length == 1:
            return np.array([0.5 * (s.start + s.end) * (s.size - 1)])
        return s.start * (s.size - 1) + i * (s.end - s.start) * (s.size - 1) / (s.length - 1)
    half = (i + 0.5) / s.scale - 0.5
    if transformation == "pytorch_half_pixel" and s.length == 1:
        return half * 0
    if transformation == "half_pixel_symmetric":
        adjustment = s.length / (s.size * s.scale)
        return s.size / 2 * (1 - adjustment) + half
    return half


def _nearest(n: Reader, places: Array) -> Array:
    mode = n.text("nearest_mode", "round_prefer_floor") if n.version >= 11 else "floor"
    rounding: dict[str, Callable[[Array], Array]] = {
        "round_prefer_floor": lambda p: np.ceil(p - 0.5),
        "round_prefer_ceil": lambda p: np.floor(p + 0.5),
        "floor": np.floor,
        "ceil": np.ceil,
    }
    if mode not in rounding:
        raise ModelFormatError("no such rounding", expected=", ".join(rounding), got=mode)
    return rounding[mode](places)


def _take(x: Node, axis: int, places: Array, size: int) -> Node:
    return ops.gather(x, number(places.clip(0, size - 1), "int64"), axis)


# --- weights ----------------------------------------------------------------------------------------------------------


def _weights(n: Reader, mode: str, places: Array, s: Sampling) -> Array:
    """Return the matrix [length, size] that interpolates an axis."""
    shrink = min(s.scale, 1.0) if n.integer("antialias", 0) else 1.0
    exclude = bool(n.integer("exclude_outside", 0))
    if mode == "linear":
        if shrink == 1:
            return _linear(places, s.size)
        return _taps(places, s.size, shrink, 1, _triangle, exclude)
    if mode != "cubic":
        raise ModelFormatError("no such interpolation", expected="nearest, linear, cubic", got=mode)
    a = n.real("cubic_coeff_a", -0.75)
    return _taps(places, s.size, shrink, 2, lambda t: _cubic(t, a), exclude)


def _linear(places: Array, size: int) -> Array:
    return _taps(places, size, 1.0, 1, _triangle, exclude=False)


def _triangle(distance: Array) -> Array:
    return np.maximum(0.0, 1.0 - distance)


def _cubic(distance: Array, a: float) -> Array:
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


def _taps(places: Array, size: int, shrink: float, reach: int, kernel: Any, exclude: bool) -> Array:
    """Return each row's weights: those of taps outside count at the edge, or not at all and the rest sums up to 1."""
    span = math.ceil(reach / shrink)
    affordable(len(places) * max(size, 2 * span), "a matrix that interpolates")
    taps = np.floor(places).astype(int)[:, None] + np.arange(1 - span, 1 + span)
    weights = kernel(np.abs(places[:, None] - taps) * shrink)
    if exclude:
        weights = np.where((taps >= 0) & (taps < size), weights, 0.0)
    if exclude or shrink < 1:
        total = weights.sum(1, keepdims=True)
        weights = weights / np.where(total == 0, 1.0, total)
    matrix = np.zeros((len(places), size))
    np.add.at(matrix, (np.arange(len(places))[:, None], taps.clip(0, size - 1)), weights)
    return matrix


def _mix(x: Node, axis: int, matrix: Array) -> Node:
    """Return the matrix times one axis of x; a product with the last two axes, whatever lies around them."""
    x = x if is_float(x.dtype) else ops.cast(x, "float32")
    weights = number(matrix, x.dtype)
    if axis == x.rank - 1:
        return ops.matmul(x, ops.transpose(weights))
    if axis == x.rank - 2:
        return ops.matmul(weights, x)
    rest = x.shape[axis + 1 :]
    inner = 1
    for size in rest:
        inner = size * inner  # type: ignore[assignment]
    flat = ops.matmul(weights, ops.reshape(x, (*x.shape[: axis + 1], inner)))
    return ops.reshape(flat, (*x.shape[:axis], len(matrix), *rest))


def _extrapolated(x: Node, outside: dict[int, Array], value: float) -> Node:
    if not any(mask.any() for mask in outside.values()):
        return x
    beyond = np.zeros((1,) * x.rank, bool)
    for axis, mask in outside.items():
        beyond = beyond | mask.reshape([-1 if i == axis else 1 for i in range(x.rank)])
    return ops.where(ops.constant(beyond), value, x)
