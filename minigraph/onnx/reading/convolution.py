"""Convolutions and matrix products. Images stay N,C,H,W; those of one or three axes become images of two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from minigraph import ops
from minigraph.errors import ModelFormatError
from minigraph.ir.node import Node
from minigraph.ir.types import Dim, Size, known
from minigraph.onnx.reader import Reader
from minigraph.onnx.reading.registry import reads
from minigraph.ops.linalg import MatMul
from minigraph.ops.window import NCHW

Pads = list[tuple[int, int]]


@dataclass(frozen=True)
class Windows:
    """A node's window attributes, an entry for each spatial axis."""

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    pads: Pads

    def only(self, *axes: int) -> Windows:
        """Return the windows of some of the axes."""
        return Windows(*([values[a] for a in axes] for values in vars(self).values()))

    def with_height(self) -> Windows:
        """Return the same windows over an image of height 1."""
        return type(self)([1, *self.kernel], [1, *self.strides], [1, *self.dilations], [(0, 0), *self.pads])

    @property
    def padding(self) -> str | Pads:
        """The pads as our ops have them."""
        return self.pads if any(map(any, self.pads)) else "valid"

    @property
    def extent(self) -> list[int]:
        """The elements that the taps span."""
        return [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]


class SameWindows(Windows):
    """Windows over open sizes, padded so that there are ⌈size / stride⌉: how much that takes is not known yet."""

    @property
    def padding(self) -> str | Pads:
        """What our ops call it."""
        return "same"


def windows(n: Reader, sizes: Sequence[Size], kernel: Sequence[Size] | None = None) -> Windows:
    """Return the windows of a convolution or pool over axes of these sizes; `auto_pad` becomes numbers."""
    axes = len(sizes)
    given = n.integers("kernel_shape")
    shape = [known(k, "a kernel's size") for k in (given if kernel is None else kernel) or ()]
    if len(shape) != axes or (kernel is not None and given not in (None, shape)):
        raise ModelFormatError("kernel_shape does not fit", expected=f"{axes} sizes, the kernel's", got=given)
    strides, dilations = n.integers("strides") or [1] * axes, n.integers("dilations") or [1] * axes
    for name, values in (("strides", strides), ("dilations", dilations), ("kernel_shape", shape)):
        if len(values) != axes or min(values) < 1:
            raise ModelFormatError(f"bad {name}", expected=f"{axes} numbers ≥ 1", got=values)
    found = Windows(shape, strides, dilations, [(0, 0)] * axes)
    if n.text("auto_pad", "NOTSET") == "SAME_UPPER" and any(isinstance(s, Dim) for s in sizes):
        return SameWindows(shape, strides, dilations, found.pads)
    return Windows(shape, strides, dilations, _pads(n, sizes, found))


def _pads(n: Reader, sizes: Sequence[Size], found: Windows) -> Pads:
    mode = n.text("auto_pad", "NOTSET")
    if mode == "VALID":
        return found.pads
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        totals = map(_same, sizes, found.extent, found.strides)
        return [(t // 2, t - t // 2) if mode == "SAME_UPPER" else (t - t // 2, t // 2) for t in totals]
    if mode not in ("NOTSET", ""):
        raise ModelFormatError("no such auto_pad", expected="NOTSET, VALID, SAME_UPPER, SAME_LOWER", got=mode)
    pads = n.integers("pads") or [0] * (2 * len(sizes))
    if len(pads) != 2 * len(sizes) or min(pads) < 0:
        raise ModelFormatError("bad pads", expected=f"{2 * len(sizes)} numbers ≥ 0", got=pads)
    return list(zip(pads[: len(sizes)], pads[len(sizes) :], strict=True))


def _same(size: Size, extent: int, stride: int) -> int:
    """Return how much padding gives ⌈size / stride⌉ windows."""
    if stride == 1:
        return extent - 1
    number = known(size, "a strided axis with automatic padding")
    return max((-(-number // stride) - 1) * stride + extent - number, 0)


# --- convolutions -----------------------------------------------------------------------------------------------------


@reads("Conv", whole=False)
def conv(n: Reader) -> Node:
    """A convolution over one, two or three axes, and its bias."""
    x, kernel = n.operand(0), n.parameter(1)
    if x.rank != kernel.rank or not 3 <= x.rank <= 5:
        raise ModelFormatError("a convolution over 1 to 3 axes", expected="3 to 5 axes", got=f"{x.type}, {kernel.type}")
    found, groups = windows(n, x.shape[2:], kernel.shape[2:]), n.integer("group", 1)
    if x.rank == 5:
        return n.one([with_bias(n, _conv3d(x, kernel, found, groups))])
    if x.rank == 3:
        image = _conv(ops.unsqueeze(x, 2), ops.unsqueeze(kernel, 2), found.with_height(), groups)
        return ops.squeeze(with_bias(n, image), 2)
    return with_bias(n, _conv(x, kernel, found, groups))


def with_bias(n: Reader, y: Node) -> Node:
    """Return y plus operand 2, a number for each channel, if there is one."""
    if n.optional(2) is None:
        return y
    bias = n.parameter(2)
    return y + ops.reshape(bias, (*bias.shape, *(1,) * (y.rank - 2)))


def _conv(x: Node, kernel: Node, found: Windows, groups: int) -> Node:
    return ops.conv2d(x, kernel, found.strides, found.padding, found.dilations, groups, NCHW)


def _conv3d(x: Node, kernel: Node, found: Windows, groups: int) -> Node:
    """Return the sum over the kernel's depth of 2-D convolutions of slices, depth taken as part of the batch."""
    (before, after), stride, dilation = found.pads[0], found.strides[0], found.dilations[0]
    batch, channels, depth = x.shape[0], x.shape[1], known(x.shape[2], "the depth")
    if before or after:
        x = ops.pad(x, [(0, 0), (0, 0), (before, after), (0, 0), (0, 0)])
    deep = (depth + before + after - found.extent[0]) // stride + 1
    if deep < 1:
        raise ModelFormatError("the window is larger than the padded input", got=x.type)
    total: Node | None = None
    for tap in range(found.kernel[0]):
        start = tap * dilation
        taken = x[:, :, start : start + (deep - 1) * stride + 1 : stride]
        images = ops.reshape(ops.transpose(taken, (0, 2, 1, 3, 4)), (batch * deep, channels, *x.shape[3:]))
        part = _conv(images, kernel[:, :, tap], found.only(1, 2), groups)
        total = part if total is None else total + part
    assert total is not None
    return ops.transpose(ops.reshape(total, (batch, deep, *total.shape[1:])), (0, 2, 1, 3, 4))


@reads("ConvTranspose", whole=False)
def conv_transpose(n: Reader) -> Node:
    """A transposed convolution: each element spread by the kernel; what sticks out beyond the pads is cut off."""
    x, kernel = n.operand(0), n.parameter(1)
    if x.rank != kernel.rank or not 3 <= x.rank <= 5:
        raise ModelFormatError("a convolution over 1 to 3 axes", expected="3 to 5 axes", got=f"{x.type}, {kernel.type}")
    plain, extra = _transposed_windows(n, x, kernel)
    groups = n.integer("group", 1)
    if x.rank == 5:
        return n.one([with_bias(n, _transposed3d(x, kernel, plain, extra, groups))])
    if x.rank == 3:
        image = _transposed(ops.unsqueeze(x, 2), ops.unsqueeze(kernel, 2), plain.with_height(), [0, *extra], groups)
        return ops.squeeze(with_bias(n, image), 2)
    return with_bias(n, _transposed(x, kernel, plain, extra, groups))


def _transposed_windows(n: Reader, x: Node, kernel: Node) -> tuple[Windows, list[int]]:
    """Return the windows and how much is added after the end; with a given output shape, pads follow from it."""
    axes = x.rank - 2
    mode, shape = n.text("auto_pad", "NOTSET"), n.integers("output_shape")
    extra = n.integers("output_padding") or [0] * axes
    explicit = shape is None and mode in ("NOTSET", "")
    sizes: Sequence[Size] = x.shape[2:] if explicit else [1] * axes
    found = windows(n, sizes, kernel.shape[2:])
    if len(extra) != axes or (shape is not None and len(shape) != axes):
        raise ModelFormatError("output_padding or output_shape does not fit", expected=f"{axes} numbers", got=extra)
    if explicit or mode == "VALID":
        return found, extra
    pads: Pads = []
    for i, size in enumerate(known(s, "an axis of a transposed convolution") for s in x.shape[2:]):
        wanted = size * found.strides[i] if shape is None else shape[i]
        total = found.strides[i] * (size - 1) + extra[i] + found.extent[i] - wanted
        if total < 0:  # more than the kernel reaches: zeros after the end
            extra[i] -= total
            total = 0
        pads.append((total // 2, total - total // 2) if mode == "SAME_UPPER" else (total - total // 2, total // 2))
    return Windows(found.kernel, found.strides, found.dilations, pads), extra


def _transposed(x: Node, kernel: Node, found: Windows, extra: list[int], groups: int) -> Node:
    """Return the transposed convolution of images; pads that no convolution has are cut off, or filled with zeros."""
    if any(isinstance(s, Dim) for s in x.shape[2:]):
        return ops.conv2d_transpose(
            x, kernel, found.strides, found.padding, found.dilations, groups, NCHW, output_padding=extra
        )
    inside = [known(s) for s in x.shape[2:]]
    full = [(i - 1) * s + e for i, s, e in zip(inside, found.strides, found.extent, strict=True)]
    sizes = [f - sum(p) + o for f, p, o in zip(full, found.pads, extra, strict=True)]
    if min(sizes) < 1:
        raise ModelFormatError("pads leave nothing", expected="an output", got=sizes)
    again = [
        (s + sum(p) - e) // stride + 1
        for s, p, e, stride in zip(sizes, found.pads, found.extent, found.strides, strict=True)
    ]
    if again == inside:
        return ops.conv2d_transpose(
            x, kernel, found.strides, found.padding, found.dilations, groups, NCHW, output_size=sizes
        )
    whole = ops.conv2d_transpose(x, kernel, found.strides, 0, found.dilations, groups, NCHW, output_size=full)
    index = tuple(slice(p[0], min(f, p[0] + s)) for p, f, s in zip(found.pads, full, sizes, strict=True))
    cut = whole[(slice(None), slice(None), *index)]
    rest = [(0, s - known(c)) for s, c in zip(sizes, cut.shape[2:], strict=True)]
    return ops.pad(cut, [(0, 0), (0, 0), *rest]) if any(map(any, rest)) else cut


def _transposed3d(x: Node, kernel: Node, found: Windows, extra: list[int], groups: int) -> Node:
    """Return the sum over the kernel's depth of 2-D transposed convolutions, laid `stride` apart into the depth."""
    (before, _), stride, dilation = found.pads[0], found.strides[0], found.dilations[0]
    batch, channels, depth = x.shape[0], x.shape[1], known(x.shape[2], "the depth")
    full = (depth - 1) * stride + found.extent[0]
    images = ops.reshape(ops.transpose(x, (0, 2, 1, 3, 4)), (batch * depth, channels, *x.shape[3:]))
    total: Node | None = None
    for tap in range(found.kernel[0]):
        part = _transposed(images, kernel[:, :, tap], found.only(1, 2), extra[1:], groups)
        deep = ops.transpose(ops.reshape(part, (batch, depth, *part.shape[1:])), (0, 2, 1, 3, 4))
        spread = _apart(deep, stride)
        start = tap * dilation
        laid = ops.pad(spread, [(0, 0), (0, 0), (start, full - start - known(spread.shape[2])), (0, 0), (0, 0)])
        total = laid if total is None else total + laid
    assert total is not None
    size = full - sum(found.pads[0]) + extra[0]
    cut = total[:, :, before : min(full, before + size)]
    return ops.pad(cut, [(0, 0), (0, 0), (0, size - known(cut.shape[2])), (0, 0), (0, 0)])


def _apart(x: Node, stride: int) -> Node:
    """Return x with stride − 1 zeros between its elements along axis 2."""
    if stride == 1:
        return x
    wide = ops.pad(ops.unsqueeze(x, 3), [(0, 0)] * 3 + [(0, stride - 1)] + [(0, 0)] * 2)
    depth = known(x.shape[2])
    return ops.reshape(wide, (*x.shape[:2], depth * stride, *x.shape[3:]))[:, :, : (depth - 1) * stride + 1]


# --- products ---------------------------------------------------------------------------------------------------------


@reads("MatMul", whole=False)
def matmul(n: Reader) -> Node:
    """The matrix product as NumPy's `matmul`."""
    n.parameters(0, 1)
    return ops.matmul(n.operand(0), n.operand(1))


@reads("Gemm", whole=False)
def gemm(n: Reader) -> Node:
    """α·A·B + β·C, A and B transposed if asked for."""
    n.parameters(0, 1, 2)
    a, b, c = n.operand(0), n.operand(1), n.optional(2)
    if a.rank != 2 or b.rank != 2:
        raise ModelFormatError("Gemm multiplies matrices", expected="2 axes", got=f"{a.type} and {b.type}")
    y = Node(MatMul(bool(n.integer("transA", 0)), bool(n.integer("transB", 0))), (a, b))
    alpha, beta = n.real("alpha", 1.0), n.real("beta", 1.0)
    y = y if alpha == 1 else _scaled(y, alpha)
    if c is None or beta == 0:
        return y
    return y + (c if beta == 1 else _scaled(c, beta))


def _scaled(x: Node, factor: float) -> Node:
    return x * factor if x.dtype.startswith("float") else ops.cast(ops.cast(x, "float64") * factor, x.dtype)
