"""Affine maps x·scale + shift, one scale and one shift for each index of an axis: the algebra that folds batch norm.

Everything here is about parameters, expressions of variables and constants. They are computed in float64 and rounded
once, where they meet the data: a fold then differs from the original by rounding alone, which can be bounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minigraph.ir.leaves import Constant
from minigraph.ir.node import Node
from minigraph.ir.types import Dim, Shape, Size, is_float, normalize_axis, product
from minigraph.ops.conv import Conv2D, Conv2DTranspose, Convolution
from minigraph.ops.elementwise import Add, Div, Mul, Neg, Sub
from minigraph.ops.indexing import Slice
from minigraph.ops.linalg import MatMul
from minigraph.ops.norm import BatchNorm
from minigraph.ops.real import rsqrt
from minigraph.ops.shape import Cast, Reshape, Transpose, broadcast_to, cast, reshape, transpose
from minigraph.ops.window import NHWC
from minigraph.passes.surroundings import Surroundings
from minigraph.passes.trace import Refusal

WIDE = "float64"


@dataclass(frozen=True)
class Affine:
    """The map x → x·scale + shift along `axis`.

    scale, shift: float64 parameters, vectors over the axis or scalars; None stands for 1 and for 0.
    """

    axis: int
    scale: Node | None = None
    shift: Node | None = None


# --- parameters -------------------------------------------------------------------------------------------------------


def wide(parameter: Node) -> Node:
    """Return a parameter in float64; one that was only just rounded to fewer digits is taken before the rounding."""
    if parameter.dtype == WIDE:
        return parameter
    if isinstance(parameter.op, Cast) and parameter.inputs[0].dtype == WIDE:
        return parameter.inputs[0]
    return cast(parameter, WIDE)


def narrow(parameter: Node, dtype: str) -> Node:
    """Return a float64 parameter rounded to `dtype`, once."""
    return parameter if parameter.dtype == dtype else cast(parameter, dtype)


def times(left: Node | None, right: Node | None) -> Node | None:
    """Return the product, where None is 1."""
    return right if left is None else left if right is None else left * right


def plus(left: Node | None, right: Node | None) -> Node | None:
    """Return the sum, where None is 0."""
    return right if left is None else left if right is None else left + right


def scaled(shift: Node | None, scale: Node | None) -> Node | None:
    """Return shift·scale, where a missing shift is 0 and a missing scale is 1."""
    return None if shift is None else times(shift, scale)


def spread(vector: Node, axis: int, rank: int) -> Node:
    """Return a vector laid along one of `rank` axes, so that it broadcasts; a scalar as it is."""
    if vector.rank == 0 or axis == rank - 1:
        return vector
    return reshape(vector, (*vector.shape, *(1,) * (rank - axis - 1)))


def along(parameter: Node, axis: int, full: Shape) -> Node | None:
    """Return a parameter that broadcasts to `full` as a vector over `axis`, or None if it varies elsewhere."""
    offset = len(full) - parameter.rank
    if product(parameter.shape) == 1:
        return reshape(parameter, ())
    if any(size != 1 and i + offset != axis for i, size in enumerate(parameter.shape)):
        return None
    return reshape(parameter, (full[axis],))


def vector_of(value: Node, size: Size) -> Node:
    """Return a scalar repeated to a vector; a vector as it is."""
    return broadcast_to(value, (size,)) if value.rank == 0 else value


def piece(vector: Node | None, start: int, size: int) -> Node | None:
    """Return the elements from `start` on; a scalar, or nothing, as it is."""
    if vector is None or vector.rank == 0:
        return vector
    return Node(Slice((start,), (size,), (1,)), (vector,))


def apply(x: Node, map_: Affine) -> Node:
    """Return the map applied to data, as a multiplication and an addition with rounded parameters."""
    scale = None if map_.scale is None else spread(narrow(map_.scale, x.dtype), map_.axis, x.rank)
    shift = None if map_.shift is None else spread(narrow(map_.shift, x.dtype), map_.axis, x.rank)
    return shifted(x if scale is None else x * scale, shift)


def rounded(map_: Affine, dtype: str) -> list[Node]:
    """Return the parameters of a map in the dtype of the data."""
    return [narrow(v, dtype) for v in (map_.scale, map_.shift) if v is not None]


def shifted(x: Node, shift: Node | None) -> Node:
    """Return x + shift, or x where there is no shift."""
    return x if shift is None else x + shift


# --- what is affine ---------------------------------------------------------------------------------------------------


def of_batch_norm(node: Node) -> Affine:
    """Return γ·(x − mean)/√(variance + ε) + β as x·s + t, s = γ/√(variance + ε), t = β − mean·s."""
    op: Any = node.op
    gamma, beta, mean, variance = map(wide, node.inputs[1:5])
    scale = gamma * rsqrt(variance + op.epsilon)
    return Affine(normalize_axis(op.axis, node.rank), scale, beta - mean * scale)


def of_elementwise(node: Node, around: Surroundings) -> tuple[Node, Affine] | None:
    """Return (x, map) where a node multiplies or shifts data x by a parameter along at most one axis, else None.

    x·c, x + c, x − c, c − x, x / c, −x.
    """
    if not isinstance(node.op, (Add, Sub, Mul, Div, Neg)) or not is_float(node.dtype) or around.is_parameter(node):
        return None
    if isinstance(node.op, Neg):
        return node.inputs[0], Affine(node.rank - 1, _number(-1.0))
    left, right = node.inputs
    turned = around.is_parameter(left)
    x, parameter = (right, left) if turned else (left, right)
    if x.type != node.type or not around.is_parameter(parameter):
        return None
    axis = _varying_axis(parameter, node.rank)
    vector = None if axis is None else along(parameter, axis, node.shape)
    if axis is None or vector is None:
        return None
    value = wide(vector)
    match node.op:
        case Add():
            return x, Affine(axis, None, value)
        case Sub():
            return x, Affine(axis, _number(-1.0), value) if turned else Affine(axis, None, -value)
        case Mul():
            return x, Affine(axis, value)
    return None if turned else (x, Affine(axis, _number(1.0) / value))


def _varying_axis(parameter: Node, rank: int) -> int | None:
    """Return the one axis that a parameter varies along, the last one for a single number; None if there are more."""
    offset = rank - parameter.rank
    varying = [i + offset for i, size in enumerate(parameter.shape) if size != 1]
    return None if len(varying) > 1 or rank == 0 else (varying[0] if varying else rank - 1)


def _number(value: float) -> Node:
    return Node(Constant.of(value, WIDE))


def after(inner: Affine, outer: Affine) -> Affine | None:
    """Return the map that applies `inner`, then `outer`; None where they run along different axes."""
    if inner.axis == outer.axis or is_scalar(outer):
        axis = inner.axis
    elif is_scalar(inner):
        axis = outer.axis
    else:
        return None
    return Affine(axis, times(inner.scale, outer.scale), plus(scaled(inner.shift, outer.scale), outer.shift))


def is_scalar(map_: Affine) -> bool:
    """Tell whether a map is the same along all axes."""
    return all(v is None or v.rank == 0 for v in (map_.scale, map_.shift))


# --- linear ops and their kernels -------------------------------------------------------------------------------------


def channels_axis(op: Any) -> int:
    """Return the axis of the channels in the images of a convolution or a pool."""
    return 3 if op.layout == NHWC else 1


def scale_kernel(op: Convolution, kernel: Node, scale: Node, side: str) -> Node:
    """Return a kernel whose channels on one side are scaled: side "I" (the convolution's input) or "O" (its output).

    Kernels are H,W,I/groups,O or O,I/groups,H,W. A channel of the output is one index of the kernel; a channel of the
    input is an index within its group, and the group is told by the output channel.
    """
    factor = scale
    if scale.rank:
        factor = _over_inputs(op, scale, kernel) if side == "I" else reshape(scale, (1, *scale.shape))
        if op.layout != NHWC:
            factor = reshape(transpose(factor), (*factor.shape[::-1], 1, 1))
    return narrow(wide(kernel) * factor, kernel.dtype)


def _over_inputs(op: Convolution, scale: Node, kernel: Node) -> Node:
    """Return the factor, [I/groups, O] or [I/groups, 1], by which input channels scale a kernel."""
    if op.groups == 1:
        return reshape(scale, (*scale.shape, 1))
    inputs, outputs = op.kernel_channels(kernel.tensor_type)
    per_group = inputs // op.groups
    columns = transpose(reshape(scale, (op.groups, per_group)))  # [I/groups, groups]
    wide_ = broadcast_to(reshape(columns, (per_group, op.groups, 1)), (per_group, op.groups, outputs // op.groups))
    return reshape(wide_, (per_group, outputs))


def scale_matrix(kernel: Node, scale: Node, rows: bool) -> Node:
    """Return a matrix (or a batch of them) whose rows or columns are scaled."""
    factor = reshape(scale, (*scale.shape, 1)) if rows and scale.rank else scale
    return narrow(wide(kernel) * factor, kernel.dtype)


def scaled_output(node: Node, axis: int, scale: Node, around: Surroundings) -> Node | Refusal:
    """Return a linear op whose output is scaled along an axis by scaling its kernel; a refusal where it cannot be."""
    x, kernel = node.inputs
    op = node.op
    if isinstance(op, (Conv2D, Conv2DTranspose)):
        if scale.rank and axis != channels_axis(op):
            return Refusal(f"axes differ: axis {axis} is scaled, channels lie along {channels_axis(op)}", (node,))
        if not around.is_parameter(kernel):
            return Refusal("its kernel is computed from data", (node, kernel))
        new = scale_kernel(op, kernel, scale, "O" if isinstance(op, Conv2D) else "I")
        return node.with_inputs((x, new))
    assert isinstance(op, MatMul)
    if around.is_parameter(kernel) and (axis == node.rank - 1 or not scale.rank):
        return node.with_inputs((x, scale_matrix(kernel, scale, rows=op.transpose_y)))
    if around.is_parameter(x) and (axis == node.rank - 2 or not scale.rank):
        return node.with_inputs((scale_matrix(x, scale, rows=not op.transpose_x), kernel))
    if not (around.is_parameter(kernel) or around.is_parameter(x)):
        return Refusal("it is a product of data with data", (node,))
    return Refusal(f"axes differ: axis {axis} is scaled, the outputs lie along {node.rank - 1}", (node,))


def mapped_axis(node: Node, axis: int) -> int | None:
    """Return the axis of a reshape's or transpose's operand that its axis `axis` is, or None where there is none."""
    if isinstance(node.op, Transpose):
        return node.op.axes[axis]
    assert isinstance(node.op, Reshape)
    before, shape = product(node.shape[:axis]), node.inputs[0].shape
    for i, size in enumerate(shape):
        if size == node.shape[axis] and product(shape[:i]) == before:
            return i
    return None


def before_split(node: Node, map_: Affine) -> Affine | None:
    """Return a map over one axis of a reshape's operand that becomes several, the map's among them; None if none does.

    >>> from minigraph.ir import variable
    >>> split = reshape(variable((2, 6, 5)), (2, 3, 2, 5))
    >>> before_split(split, Affine(1, variable((3,), name="scale")))
    Affine(axis=1, scale=<reshape : float32[6]>, shift=None)
    """
    if not isinstance(node.op, Reshape):
        return None
    old, new, axis = node.inputs[0].shape, node.shape, map_.axis
    for i, size in enumerate(old):
        starts = [j for j in range(axis + 1) if product(new[:j]) == product(old[:i])]
        found = [new[j:m] for j in starts[:1] for m in range(axis + 1, len(new) + 1) if product(new[j:m]) == size]
        if found and not any(isinstance(s, Dim) for s in found[0]):
            place = axis - starts[0]
            return Affine(i, *(_repeated(vector, place, found[0]) for vector in (map_.scale, map_.shift)))
    return None


def _repeated(vector: Node | None, place: int, sizes: Shape) -> Node | None:
    """Return a vector over one of some axes as a vector over all of them joined; a scalar, or nothing, as it is."""
    if vector is None or not vector.rank:
        return vector
    return reshape(broadcast_to(spread(vector, place, len(sizes)), sizes), (product(sizes),))


def outcome_axis(node: Node, axis: int) -> int | None:
    """Return the axis of a reshape's or transpose's result that its operand's axis `axis` becomes, or None."""
    if isinstance(node.op, Transpose):
        return node.op.axes.index(axis)
    shape = node.inputs[0].shape
    before = product(shape[:axis])
    for i, size in enumerate(node.shape):
        if size == shape[axis] and product(node.shape[:i]) == before:
            return i
    return None


def is_fixed_batch_norm(node: Node) -> bool:
    """Tell whether a node is a batch norm whose mode is decided."""
    return isinstance(node.op, BatchNorm) and node.op.moving is None
