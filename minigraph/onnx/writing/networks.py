"""Convolutions, products, pools, normalisations, dropout."""

from __future__ import annotations

from typing import Any

from minigraph.ir.node import Node
from minigraph.ir.types import Dim, known, normalize_axis
from minigraph.onnx.writing.arithmetic import reduced
from minigraph.onnx.writing.movement import with_ones
from minigraph.onnx.writing.registry import Writer, writes
from minigraph.ops.conv import Conv2D, Conv2DTranspose, Convolution
from minigraph.ops.linalg import MatMul
from minigraph.ops.norm import BatchNorm, Moments
from minigraph.ops.pool import AvgPool2D, MaxPool2D, Pool
from minigraph.ops.random import Dropout
from minigraph.ops.reduction import Mean
from minigraph.ops.window import NCHW, Window, spatial


@writes(Conv2D, Conv2DTranspose)
def conv(w: Writer, node: Node) -> str:
    """A convolution without bias."""
    return conv_with(w, node, [])


def conv_with(w: Writer, node: Node, bias: list[str]) -> str:
    """Write a convolution; `bias` holds the name of one, or nothing."""
    op, (x, kernel) = node.op, node.inputs
    assert isinstance(op, Convolution) and op.layout == NCHW
    forward = isinstance(op, Conv2D)
    image = x if forward else node
    window = op.window(kernel.tensor_type)
    flat = w.is_flat(node)
    attributes = _window(window, image, flat) | {"group": op.groups}
    if not forward:
        attributes["output_padding"] = _output_padding(window, x, node)[flat:]
    inputs = [w.name(x), w.without_height(kernel) if flat else w.name(kernel), *bias]
    return str(w.emit("Conv" if forward else "ConvTranspose", inputs, **attributes))


def _output_padding(window: Window, x: Node, y: Node) -> list[int]:
    """Return how much a transposed convolution's result exceeds the smallest that fits."""
    pads = window.pads(spatial(y.tensor_type, NCHW))
    found = []
    for inner, outer, stride, extent, pair in zip(
        x.shape[2:], y.shape[2:], window.strides, window.extent, pads, strict=True
    ):
        # An open size grows by the stride exactly.
        grown = 0 if outer == inner * stride else known(outer) - known(inner) * stride
        found.append(grown + stride - extent + sum(pair))
    return found


def _window(window: Window, image: Node, flat: bool) -> dict[str, Any]:
    """Return a window's attributes, without those of the height for a flat signal."""
    attributes: dict[str, Any] = {
        "kernel_shape": list(window.size[flat:]), "strides": list(window.strides[flat:]),
        "dilations": list(window.dilations[flat:]),
    }  # fmt: skip
    inside = spatial(image.tensor_type, NCHW)
    if window.padding == "same" and window.strides != (1, 1) and any(isinstance(s, Dim) for s in inside):
        return attributes | {"auto_pad": "SAME_UPPER"}  # how much it is depends on the open size
    pads = window.pads(inside)[flat:]
    return attributes | {"pads": [before for before, _ in pads] + [after for _, after in pads]}


@writes(MatMul)
def matmul(w: Writer, node: Node) -> str:
    """MatMul; a transposed matrix makes it Gemm."""
    op, (x, y) = node.op, node.inputs
    assert isinstance(op, MatMul)
    if not (op.transpose_x or op.transpose_y):
        return str(w.emit("MatMul", [w.name(x), w.name(y)]))
    if x.rank == y.rank == 2:
        return gemm_with(w, node, [])
    turned = [w.turned(i) if flag else w.name(i) for i, flag in ((x, op.transpose_x), (y, op.transpose_y))]
    return str(w.emit("MatMul", turned))


def gemm_with(w: Writer, node: Node, bias: list[str]) -> str:
    """Write a product of matrices; `bias` holds the name of what is added, or nothing."""
    op = node.op
    assert isinstance(op, MatMul)
    flags = {"transA": int(op.transpose_x), "transB": int(op.transpose_y)}
    inputs = [w.name(i) for i in node.inputs] + bias
    return str(w.emit("Gemm", inputs, **{name: value for name, value in flags.items() if value}))


@writes(MaxPool2D)
def max_pool(w: Writer, node: Node) -> str:
    """The largest element under each window."""
    op = node.op
    assert isinstance(op, Pool)
    return str(w.emit("MaxPool", [w.name(node.inputs[0])], **_window(op.window, node.inputs[0], w.is_flat(node))))


@writes(AvgPool2D)
def avg_pool(w: Writer, node: Node) -> str:
    """The mean under each window; what only rounding up adds never counts, so it is left to `ceil_mode`."""
    op, x = node.op, node.inputs[0]
    assert isinstance(op, AvgPool2D)
    flat = w.is_flat(node)
    attributes = _window(op.window, x, flat)
    if op.overhang != (0, 0) and op.count_padding:
        attributes["ceil_mode"] = 1
        extras = [0] * (2 - flat) + list(op.overhang[flat:])
        attributes["pads"] = [p - e for p, e in zip(attributes["pads"], extras, strict=True)]
    return str(w.emit("AveragePool", [w.name(x)], **attributes, count_include_pad=int(op.count_padding)))


# --- normalisation ----------------------------------------------------------------------------------------------------


@writes(BatchNorm)
def batch_norm(w: Writer, node: Node) -> str:
    """BatchNormalization, whose channels are axis 1: another axis changes places with it before and after."""
    op, (x, *vectors) = node.op, node.inputs[:5]
    assert isinstance(op, BatchNorm)
    axis = normalize_axis(op.axis, node.rank)
    momentum = 0.9 if op.moving is None else op.moving.momentum
    attributes: dict[str, Any] = {"epsilon": op.epsilon, "momentum": momentum}
    order = [*range(node.rank)]
    if node.rank == 1:
        names = [with_ones(w, w.name(x), x.shape, (1, *x.shape)), *map(w.name, vectors)]
        return with_ones(w, w.emit("BatchNormalization", names, **attributes), (1, *x.shape), x.shape)
    order[1], order[axis] = axis, 1
    turned = w.name(x) if axis == 1 else w.emit("Transpose", [w.name(x)], perm=order)
    made = w.emit("BatchNormalization", [turned, *map(w.name, vectors)], **attributes)
    return str(made if axis == 1 else w.emit("Transpose", [made], perm=order))


@writes(Moments)
def moments(w: Writer, node: Node) -> list[str]:
    """Mean and biased variance, in two passes; over no axes x itself, and 0."""
    op, x = node.op, w.name(node.inputs[0])
    assert isinstance(op, Moments)
    if not op.axes:
        return [x, w.emit("Sub", [x, x])]
    wide = Mean(op.axes, keepdims=True)
    apart = w.emit("Sub", [x, reduced(w, wide, x, node.inputs[0].rank)])
    squares = w.emit("Mul", [apart, apart])
    return [reduced(w, Mean(op.axes), name, node.inputs[0].rank) for name in (x, squares)]


@writes(Dropout)
def dropout(w: Writer, node: Node) -> str:
    """A definition's dropout: nothing in inference, its ratio kept for training."""
    op = node.op
    assert isinstance(op, Dropout)
    return str(w.emit("Dropout", [w.name(node.inputs[0]), w.array(op.rate, "float32", "ratio")]))
