"""Convolutions over three axes: functions that a model file called so, which take a scale and a shift in as a whole.

There are kernels for images only, so such a convolution is a function of slices, sums and convolutions of images. It is
linear in its kernel all the same: nobody has to look inside.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from minigraph.ir.node import Node
from minigraph.ir.types import known
from minigraph.ops.elementwise import Add
from minigraph.ops.reduction import sum as sum_
from minigraph.ops.region import Function, Step
from minigraph.ops.shape import Reshape, broadcast_to, reshape
from minigraph.passes import affine
from minigraph.passes.affine import Affine
from minigraph.passes.conditions import Result, unless_overflow
from minigraph.passes.surroundings import Surroundings
from minigraph.passes.trace import Refusal

_NAMES = ("Conv", "ConvTranspose")
_UNPADDED = ("VALID", "NOTSET")


def is_volume(node: Node) -> bool:
    """Tell whether a node is a convolution of a batch [N,C,D,H,W] as one function, its operands in their places."""
    op = node.op
    if not isinstance(op, Function) or op.label not in _NAMES or op.slots not in ((0, 1), (0, 1, 2)):
        return False
    operands = len(node.inputs)
    return operands == len(op.slots) and op.places(operands) == (operands + len(op.body) - 1,) and node.rank == 5


def absorbed(node: Node, map_: Affine, around: Surroundings) -> Result:
    """Return conv(x, w, b)·s + t as conv(x, w·s, b·s + t), s on the kernel's output channels; or why that cannot be."""
    x, kernel, *bias = node.inputs
    if map_.axis != 1 and not affine.is_scalar(map_):
        return Refusal(f"axes differ: axis {map_.axis} is scaled, channels lie along 1", (node,))
    if not all(map(around.is_parameter, (kernel, *bias))):
        return Refusal("its kernel is computed from data", (node, kernel))
    new = kernel if map_.scale is None else _scaled(node, map_.scale)
    wide = affine.scaled(affine.wide(bias[0]), map_.scale) if bias else None
    shift = affine.plus(wide, map_.shift)
    if shift is None:
        return unless_overflow(node.with_inputs((x, new)), [new], around)
    vector = affine.narrow(affine.vector_of(shift, node.shape[1]), node.dtype)
    op = node.op if bias else _with_bias(node)
    return unless_overflow(node.with_inputs((x, new, vector), op), [new, vector], around)


def fed(node: Node, x: Node, map_: Affine, around: Surroundings) -> Result:
    """Return conv(x·s + t, w, b) as conv(x, w·s, b + Σ w·t), s on the input channels; or why that cannot be."""
    op: Any = node.op
    _, kernel, *bias = node.inputs
    attributes = dict(op.attributes)
    if op.label != "Conv" or any(attributes.get("pads", ())) or attributes.get("auto_pad", "VALID") not in _UNPADDED:
        return Refusal("zeros are padded around the volume, which the shift does not reach", (node,))
    if map_.axis != 1 and not affine.is_scalar(map_):
        return Refusal(f"axes differ: axis {map_.axis} is scaled, channels lie along 1", (node,))
    new = kernel if map_.scale is None else affine.narrow(affine.wide(kernel) * _rows(node, map_.scale), kernel.dtype)
    if map_.shift is None:
        return unless_overflow(node.with_inputs((x, new, *bias)), [new], around)
    total = sum_(affine.wide(kernel) * _rows(node, map_.shift), (1, 2, 3, 4))
    vector = affine.narrow(total + affine.wide(bias[0]) if bias else total, node.dtype)
    made = node.with_inputs((x, new, vector), op if bias else _with_bias(node))
    return unless_overflow(made, [new, vector], around)


def _scaled(node: Node, scale: Node) -> Node:
    """Return the kernel with its output channels scaled: axis 0, or axis 1 within a group where it is transposed."""
    op: Any = node.op
    kernel = node.inputs[1]
    factor = reshape(scale, (*scale.shape, 1, 1, 1, 1)) if scale.rank and op.label == "Conv" else _rows(node, scale)
    return affine.narrow(affine.wide(kernel) * factor, kernel.dtype)


def _rows(node: Node, vector: Node) -> Node:
    """Return a vector over the channels that a kernel holds by groups along axis 1, laid out as the kernel is."""
    if not vector.rank:
        return vector
    groups = int(dict(node.op.attributes).get("group", 1))  # type: ignore[attr-defined]
    rows, columns = (known(size) for size in node.inputs[1].shape[:2])
    each = broadcast_to(reshape(vector, (groups, 1, columns)), (groups, rows // groups, columns))
    return reshape(each, (rows, columns, 1, 1, 1))


def _with_bias(node: Node) -> Function:
    """Return the function with one operand more, a number for each channel that is added at the end."""
    op = node.op
    assert isinstance(op, Function)
    body = [replace(step, inputs=tuple(i + (i > 1) for i in step.inputs)) for step in op.body]
    laid = Step(Reshape((node.shape[1], 1, 1, 1)), (2,))
    last = 2 + len(body)  # three operands come before the steps
    return replace(op, body=(*body, laid, Step(Add(), (last, last + 1))), slots=(0, 1, 2), results=())
