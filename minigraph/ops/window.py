"""What convolutions and pools share: windows over the two spatial axes, their strides, padding and layout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minigraph.errors import ArgumentError, ShapeError
from minigraph.ir.types import Dim, Shape, Size, TensorType, known, shifted

Pair = tuple[int, int]
Padding = Any  # "same", "valid", or ((top, bottom), (left, right))
NHWC, NCHW = "NHWC", "NCHW"


def pair(value: Any, what: str, minimum: int = 1) -> Pair:
    """Return an integer or a pair of integers as a pair, or raise an ArgumentError."""
    values = (value, value) if hasattr(value, "__index__") and not isinstance(value, bool) else value
    try:
        first, second = (v.__index__() for v in values)
    except (TypeError, ValueError, AttributeError):
        raise ArgumentError(f"bad {what}", expected="an integer or two integers", got=repr(value)) from None
    if min(first, second) < minimum:
        raise ArgumentError(f"bad {what}", expected=f"integers ≥ {minimum}", got=repr(value))
    return first, second


def padding(value: Any) -> Padding:
    """Return padding in its one form: "same", "valid", or a pair (before, after) for height and for width."""
    if isinstance(value, str):
        if value.lower() not in ("same", "valid"):
            raise ArgumentError("bad padding", expected='"same", "valid", an integer or pairs', got=repr(value))
        return value.lower()
    if isinstance(value, (tuple, list)) and len(value) == 2 and all(isinstance(v, (tuple, list)) for v in value):
        return tuple(pair(v, "padding", minimum=0) for v in value)
    vertical, horizontal = pair(value, "padding", minimum=0)
    return (vertical, vertical), (horizontal, horizontal)


def layout(value: str) -> str:
    """Return a layout's name, or raise an ArgumentError."""
    if value not in (NHWC, NCHW):
        raise ArgumentError("bad layout", expected=f"{NHWC!r} or {NCHW!r}", got=repr(value))
    return value


# More windows than this over the padding of one axis are taken as a mistake.
_BORDER = 1 << 16


@dataclass(frozen=True)
class Window:
    """A window that slides over height and width.

    `size`: its height and width in taps; a tap lies every `dilations` elements; it moves by `strides`.
    """

    size: Pair
    strides: Pair
    dilations: Pair
    padding: Padding

    @property
    def extent(self) -> Pair:
        """The height and width that the taps span."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.size, self.dilations, strict=True))  # type: ignore[return-value]

    def pads(self, spatial: tuple[Size, Size]) -> tuple[Pair, Pair]:
        """Return ((top, bottom), (left, right)) for an input of this height and width.

        "same" gives ⌈size / stride⌉ windows; the odd element goes to the end, as in TensorFlow.
        """
        if self.padding == "valid":
            return (0, 0), (0, 0)
        if self.padding != "same":
            return self.padding  # type: ignore[no-any-return]
        pads = []
        for size, extent, stride in zip(spatial, self.extent, self.strides, strict=True):
            if stride == 1:
                total = extent - 1
            else:
                number = known(size, 'an axis with padding "same" and a stride')
                total = max((-(-number // stride) - 1) * stride + extent - number, 0)
            pads.append((total // 2, total - total // 2))
        return pads[0], pads[1]

    def misses(self, spatial: tuple[Size, Size]) -> bool:
        """Tell whether some window meets no element at all, only padding."""
        for axis, pads in enumerate(self.pads(spatial)):
            size, windows = spatial[axis], self.output(spatial)[axis]
            if isinstance(size, Dim) or isinstance(windows, Dim) or not any(pads):
                continue
            stride, extent, dilation = self.strides[axis], self.extent[axis], self.dilations[axis]
            before = min(windows, -(-pads[0] // stride))  # windows that begin in the padding
            inside = max(before, (size + pads[0] - extent) // stride + 1)  # the first that ends in it
            if before + windows - inside > _BORDER:
                return True
            for window in (*range(before), *range(inside, windows)):
                start = window * stride - pads[0]
                first, last = max(0, -(start // dilation)), min(extent - 1, size - 1 - start) // dilation
                if first > last:
                    return True
        return False

    def output(self, spatial: tuple[Size, Size]) -> tuple[Size, Size]:
        """Return how many windows fit on each axis, or raise a ShapeError if none does."""
        (vertical, horizontal), (height, width) = self.strides, spatial
        if self.padding == "same":  # ⌈size / stride⌉, whatever the padding is that gives as many
            return shifted(height, vertical - 1, vertical), shifted(width, horizontal - 1, horizontal)
        result: list[Size] = []
        for size, extent, stride, pads in zip(spatial, self.extent, self.strides, self.pads(spatial), strict=True):
            if isinstance(size, Dim):
                result.append(shifted(size, sum(pads) - extent + stride, stride))
                continue
            room = size + sum(pads) - extent
            if room < 0:
                raise ShapeError(
                    "the window is larger than the padded input",
                    expected=f"at least {extent} elements",
                    got=f"{size} with padding {pads}",
                    hint='use padding="same", a smaller window, or fewer poolings before',
                )
            result.append(room // stride + 1)
        return result[0], result[1]


def overhang(size: Size, extent: int, stride: int, pads: Pair) -> int:
    """Return the padding after the end that makes the number of windows round up (PyTorch's and ONNX' ceil mode).

    A window that would begin in the padding after the end does not count.

    >>> overhang(5, 2, 2, (0, 0)), overhang(5, 2, 3, (0, 0)), overhang(3, 2, 2, (0, 1))
    (1, 0, 0)
    """
    number, (before, after) = known(size, "an axis pooled in ceil mode"), pads
    room = number + before + after - extent
    windows = -(-room // stride) + 1
    windows -= (windows - 1) * stride >= number + before
    return max((windows - 1) * stride - room, 0)


def spatial(type: TensorType, where: str) -> tuple[Size, Size]:
    """Return height and width of an image batch in this layout."""
    if type.rank != 4:
        raise ShapeError(
            f"images need 4 axes, {where}",
            expected=where,
            got=f"{type.rank} axes: {type}",
            hint="one image has shape (height, width, channels); the batch axis comes first",
        )
    return type.shape[1:3] if where == NHWC else type.shape[2:4]  # type: ignore[return-value]


def channels(type: TensorType, where: str) -> Size:
    """Return the number of channels of an image batch in this layout."""
    return type.shape[3] if where == NHWC else type.shape[1]


def images(batch: Size, spatial: tuple[Size, Size], channels: Size, where: str) -> Shape:
    """Return the shape of an image batch in this layout."""
    return (batch, *spatial, channels) if where == NHWC else (batch, channels, *spatial)
