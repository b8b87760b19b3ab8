"""A scale and a shift moved into the kernel that reads them: from a batch norm to the linear op behind it.

(x·s + t)·w = x·(s·w) + t·w; where the border is padded with zeros, t·w is a map over the pixels.
"""

from __future__ import annotations

from typing import Any

from minigraph.ir.node import Node
from minigraph.ir.types import Dim
from minigraph.ops.conv import Conv2D, Conv2DTranspose, Convolution
from minigraph.ops.linalg import MatMul
from minigraph.ops.pool import AvgPool2D, MaxPool2D
from minigraph.ops.reduction import Max, Mean, Min
from minigraph.ops.shape import Reshape, Transpose, broadcast_to, reshape
from minigraph.ops.window import NHWC
from minigraph.passes import affine, volumes
from minigraph.passes.affine import Affine
from minigraph.passes.conditions import Result, not_positive, unless_overflow
from minigraph.passes.surroundings import Surroundings
from minigraph.passes.trace import Refusal

# Ops that may lie between an affine and the kernel that takes it in.
_LONGEST = 40


def feeding(node: Node, around: Surroundings) -> tuple[Node, list[Node]] | None:
    """Return the batch norm or elementwise affine that feeds a linear op, and what lies between, outermost first."""
    start, path = moved_from(node)
    is_map = affine.is_fixed_batch_norm(start) or affine.of_elementwise(start, around) is not None
    return (start, path) if is_map else None


def moved_from(node: Node) -> tuple[Node, list[Node]]:
    """Return what a value was before it was reshaped, transposed, pooled or averaged, and the ops that did so."""
    path: list[Node] = []
    while isinstance(node.op, (Reshape, Transpose, AvgPool2D, MaxPool2D, Mean, Max, Min)) and len(path) <= _LONGEST:
        path.append(node)
        node = node.inputs[0]
    return node, path


def path_refusal(start: Node, path: list[Node], around: Surroundings) -> Refusal | None:
    """Return why an affine cannot leave its place: it, or something on the way, is read by others too."""
    for node in (*path, start):
        if around.uses(node) > 1:
            ends = around.ends(node)
            how = f"read as {', '.join(ends)}" if ends else f"read {around.uses(node)} times"
            return Refusal(f"second use: {node.label} is {how}", (node, *around.other_readers(node)))
    return None


def into_kernel(node: Node, x: Node, map_: Affine, path: list[Node], around: Surroundings) -> Result:
    """Return linear(path(x·s + t), w) as linear(path(x), w·s) + linear(t, w), or why that cannot be."""
    if node.inputs[0] in node.inputs[1:] or not all(map(around.is_parameter, node.inputs[1:])):
        return Refusal("its kernel is computed from data", (node,))
    inner = x
    for each in reversed(path):
        moved = _through(each, map_, around)
        if isinstance(moved, Refusal):
            return moved
        map_, inner = moved, each.with_inputs((inner,))
    if volumes.is_volume(node):
        return volumes.fed(node, inner, map_, around)
    if isinstance(node.op, MatMul):
        return _into_matrix(node, inner, map_, around)
    return _into_convolution(node, inner, map_, around)


def _through(node: Node, map_: Affine, around: Surroundings) -> Affine | Refusal:
    """Return the map that stands behind an op instead of before it."""
    op: Any = node.op
    if isinstance(op, (Reshape, Transpose)):
        return _through_movement(node, map_)
    if isinstance(op, Mean):
        return _through_reduction(node, map_)
    if isinstance(op, (Max, Min)):
        return not_positive(map_.scale, around, node) or _through_reduction(node, map_)
    if map_.axis != affine.channels_axis(node.op) and not affine.is_scalar(map_):
        return Refusal("axes differ: the pool runs along the batch norm's axis", (node,))
    if isinstance(op, MaxPool2D):
        return not_positive(map_.scale, around, node) or map_
    padded = op.padding != "valid" and op.padding != ((0, 0), (0, 0))
    return Refusal("the pool counts its padding", (node,)) if op.count_padding and padded else map_


def _through_reduction(node: Node, map_: Affine) -> Affine | Refusal:
    op: Any = node.op
    if affine.is_scalar(map_):
        return Affine(max(node.rank - 1, 0), map_.scale, map_.shift)
    if map_.axis in op.axes:
        return Refusal(f"axes differ: the {op.name} runs along the batch norm's axis", (node,))
    left = [i for i in range(node.inputs[0].rank) if op.keepdims or i not in op.axes]
    return Affine(left.index(map_.axis), map_.scale, map_.shift)


def _through_movement(node: Node, map_: Affine) -> Affine | Refusal:
    if affine.is_scalar(map_):
        return Affine(node.rank - 1, map_.scale, map_.shift)
    axis = affine.outcome_axis(node, map_.axis)
    if axis is not None:
        return Affine(axis, map_.scale, map_.shift)
    # A flatten: what it makes of one example it makes of the example that holds s everywhere.
    shape = node.inputs[0].shape
    flat = isinstance(node.op, Reshape) and node.rank == 2 and node.shape[0] == shape[0] and map_.axis > 0
    if not flat or any(isinstance(s, Dim) for s in shape[1:]):
        return Refusal(f"the {node.op.name} takes the axis apart", (node,))

    def flattened(vector: Node | None) -> Node | None:
        if vector is None:
            return None
        laid = affine.spread(affine.vector_of(vector, shape[map_.axis]), map_.axis - 1, len(shape) - 1)
        return reshape(broadcast_to(laid, shape[1:]), (node.shape[1],))

    return Affine(1, flattened(map_.scale), flattened(map_.shift))


def _into_matrix(node: Node, x: Node, map_: Affine, around: Surroundings) -> Result:
    op: Any = node.op
    kernel = node.inputs[1]
    axis = x.rank - (2 if op.transpose_x else 1)
    if map_.axis != axis and not affine.is_scalar(map_):
        return Refusal("axes differ: the product sums over another axis", (node,))
    new = kernel if map_.scale is None else affine.scale_matrix(kernel, map_.scale, rows=not op.transpose_y)
    made = node.with_inputs((x, new))
    if map_.shift is None:
        return unless_overflow(made, [new], around)
    row = reshape(affine.vector_of(map_.shift, x.shape[axis]), (1, x.shape[axis]))
    bias = Node(MatMul(False, op.transpose_y), (row, affine.wide(kernel)))
    bias = affine.narrow(reshape(bias, bias.shape[-1:]) if kernel.rank == 2 else bias, made.dtype)
    return unless_overflow(made + bias, [new, bias], around)


def _into_convolution(node: Node, x: Node, map_: Affine, around: Surroundings) -> Result:
    op = node.op
    assert isinstance(op, (Conv2D, Conv2DTranspose))
    kernel = node.inputs[1]
    axis = affine.channels_axis(op)
    if map_.axis != axis and not affine.is_scalar(map_):
        return Refusal(f"axes differ: axis {map_.axis} is scaled, channels lie along {axis}", (node,))
    side = "I" if isinstance(op, Conv2D) else "O"
    new = kernel if map_.scale is None else affine.scale_kernel(op, kernel, map_.scale, side)
    made = node.with_inputs((x, new))
    if map_.shift is None:
        return unless_overflow(made, [new], around)
    bias = _bias_map(op, x, affine.wide(kernel), map_.shift)
    if isinstance(bias, Refusal):
        return bias
    bias = affine.narrow(bias, made.dtype)
    return unless_overflow(made + bias, [new, bias], around)


def _bias_map(op: Convolution, x: Node, kernel: Node, shift: Node) -> Result:
    """Return what the op makes of an image that holds the shift everywhere; one pixel of it where nothing is padded."""
    axis = affine.channels_axis(op)
    height, width = x.shape[1:3] if op.layout == NHWC else x.shape[2:4]
    window = op.window(kernel.tensor_type)
    uniform = isinstance(op, Conv2D) and not any(p for pair in _known_pads(op, window, (height, width)) for p in pair)
    if uniform:
        height, width = window.extent
        op = Conv2D(**{**op.shared, "strides": (1, 1), "padding": "valid"})
    shape = (1, height, width, x.shape[3]) if op.layout == NHWC else (1, x.shape[1], height, width)
    laid = affine.spread(affine.vector_of(shift, x.shape[axis]), axis, 4)
    bias = Node(op, (broadcast_to(laid, shape), kernel))
    if not uniform:
        return reshape(bias, bias.shape[1:])
    return affine.spread(reshape(bias, (bias.shape[axis],)), axis, 4)


def _known_pads(op: Convolution, window: Any, spatial: tuple[Any, Any]) -> Any:
    """Return the padding, or some where it depends on a size that is still open."""
    if op.padding == "same" and any(isinstance(s, Dim) for s in spatial) and window.strides != (1, 1):
        return ((1, 1), (1, 1))
    return window.pads(spatial)
