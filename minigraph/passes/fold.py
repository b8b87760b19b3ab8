"""Batch norm folded into the linear op before it or behind it, wherever that is exact, and nowhere else.

With fixed statistics a batch norm is x·s + t for each channel, s = γ/√(variance + ε), t = β − mean·s. A linear op takes
the scale into its kernel; the shift becomes a bias. `absorb` walks up from the batch norm to the ops that can take the
scale, `linear_of_batch_norm` looks up from a linear op to a batch norm that feeds it. Each refusal says why, in words.
docs/batch-norm.md has the matrix of situations.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

from minigraph.ir.graph import topological
from minigraph.ir.leaves import Constant, Input, Item, Variable
from minigraph.ir.node import Node
from minigraph.ir.types import Dim, is_float, known
from minigraph.ops.activations import Relu
from minigraph.ops.conv import Conv2D, Conv2DTranspose, Convolution
from minigraph.ops.elementwise import Add, Div, Mul, Neg, Sub
from minigraph.ops.indexing import Pad
from minigraph.ops.linalg import MatMul
from minigraph.ops.norm import BatchNorm, Moments
from minigraph.ops.pool import AvgPool2D, MaxPool2D
from minigraph.ops.reduction import Mean, Sum
from minigraph.ops.shape import Cast, Concat, Reshape, Transpose, broadcast_to, reshape
from minigraph.ops.window import NHWC
from minigraph.passes import affine
from minigraph.passes.affine import Affine
from minigraph.passes.driver import Rewriting, Surroundings, at
from minigraph.passes.trace import Refusal

Result: TypeAlias = Node | Refusal
# Additions may be nested; a tower of more than this is left alone, since the walk up recurses.
_DEEPEST = 40
_LARGEST_FLOAT16 = 65504.0


# --- a batch norm behind linear ops -----------------------------------------------------------------------------------


@at(BatchNorm)
def batch_norm_of_linear(node: Node, around: Surroundings) -> Result | None:
    """batch_norm(linear(x, w) + b) = linear(x, w·s) + (b·s + t), s = γ/√(variance + ε), t = β − mean·s.

    Linear: conv2d, conv2d_transpose, matmul, grouped or not; also through additions, concatenations, reshapes,
    transposes, casts, means, average pools, zero padding, and max pools where s > 0.

    When: the statistics are variables or constants, nothing else reads what lies between, the batch norm runs along the
    linear op's output channels, no variance is negative, and nothing overflows float16.

        %0 = input("x") : float32[2,6,6,3]
        %1 = variable("w") : float32[3,3,3,4]
        %2 = variable("gamma") : float32[4]
        %3 = variable("beta") : float32[4]
        %4 = variable("mean") : float32[4]
        %5 = variable("variance") : float32[4]
        %6 = conv2d(%0, %1) : float32[2,4,4,4]
        %7 = batch_norm(%6, %2, %3, %4, %5) : float32[2,4,4,4]
        return y=%7
    """
    refusal = unfit(node, around)
    if refusal is not None:
        return refusal
    map_ = affine.of_batch_norm(node)
    made = absorb(node.inputs[0], map_, around, _Walk(node))
    if isinstance(made, Refusal):
        return made
    dead = _dead_channels(map_, around)
    around.note(node, f"folded into {_names(made, around)}{_sharing(made, around)}{dead}")
    return made


def unfit(node: Node, around: Surroundings) -> Refusal | None:
    """Return why a batch norm cannot be folded anywhere, or None."""
    op: Any = node.op
    if op.moving is not None:
        return Refusal("its mode is open: lower the graph first", (node,))
    if not op.fold:
        return Refusal("asked not to: fold=False", (node,))
    if not around.allows(node):
        return Refusal("excluded from this run", (node,))
    for name, parameter in zip(("gamma", "beta", "mean", "variance"), node.inputs[1:5], strict=True):
        if around.is_parameter(parameter):
            continue
        if name in ("mean", "variance") and _is_moment(parameter):
            if around.graph.updates:
                return Refusal("training: its statistics are those of the batch", (parameter.inputs[0],))
            return Refusal("no moving statistics are kept: there are none to fold", (parameter.inputs[0],))
        return Refusal(f"its {name} is computed from data", (parameter,))
    return _bad_numbers(node, around)


def _is_moment(node: Node) -> bool:
    return isinstance(node.op, Item) and isinstance(node.inputs[0].op, Moments)


def _bad_numbers(node: Node, around: Surroundings) -> Refusal | None:
    """Return what is wrong with the values, where they are known: a negative variance, something not finite, 1/√0."""
    op: Any = node.op
    gamma, beta, mean, variance = node.inputs[1:5]
    around.require("nonnegative", variance, f"the variance {variance.label!r}")
    if around.numbers is None:
        return None
    for parameter in (gamma, beta, mean, variance):
        for channel, value in enumerate(around.numbers.elements(parameter) or ()):
            rooted = parameter is not variance or (value >= 0 and value + op.epsilon > 0)
            if not (math.isfinite(value) and rooted):
                return Refusal(f"{parameter.label!r} is {value:g} in channel {channel}", (parameter,))
    return None


def absorb(node: Node, map_: Affine, around: Surroundings, walk: _Walk) -> Result:
    """Return node·scale + shift with the scale inside the linear ops that `node` is made of, or why that cannot be."""
    if around.is_parameter(node):
        return affine.narrow(_of_parameter(node, map_, node.rank), node.dtype)
    if walk.depth > _DEEPEST:
        return Refusal(f"more than {_DEEPEST} ops lie between", (node,))
    refusal = _read_elsewhere(node, around, walk)
    if refusal is not None:
        return refusal
    for ops, absorber in _ABSORBERS:
        if isinstance(node.op, ops):
            return absorber(node, map_, around, walk.below(node))
    if isinstance(node.op, Input):
        return Refusal("nothing linear comes before it: it normalises an input", (node,))
    return Refusal(f"{node.op.name} stands between, which is not linear", (node,))


class _Walk:
    """Where a walk up from a batch norm is: how deep, and below which node."""

    def __init__(self, reader: Node, depth: int = 0) -> None:
        self.reader = reader
        self.depth = depth

    def below(self, node: Node) -> _Walk:
        return _Walk(node, self.depth + 1)


def start_of_walk(reader: Node) -> _Walk:
    """Return the start of a walk up from `reader`."""
    return _Walk(reader)


def _of_parameter(parameter: Node, map_: Affine, rank: int) -> Node:
    """Return the map applied to a parameter that broadcasts to data of this rank, which the map's axis counts."""
    scale = None if map_.scale is None else affine.spread(map_.scale, map_.axis, rank)
    shift = None if map_.shift is None else affine.spread(map_.shift, map_.axis, rank)
    value = affine.plus(affine.scaled(affine.wide(parameter), scale), shift)
    assert value is not None
    return value


def _read_elsewhere(node: Node, around: Surroundings, walk: _Walk) -> Refusal | None:
    if around.uses(node) <= 1:
        return None
    ends = around.ends(node)
    if ends:
        return Refusal(f"second use: {node.label} is read as {', '.join(ends)}", (node,))
    others = around.other_readers(node, walk.reader)
    return Refusal(f"second use: {node.label} is read {around.uses(node)} times", (node, *others))


def _absorb_linear(node: Node, map_: Affine, around: Surroundings, walk: _Walk) -> Result:
    """(x·w)·s + t = x·(w·s) + t."""
    if map_.scale is None:
        return _shift(node, map_, around)
    made = affine.scaled_output(node, map_.axis, map_.scale, around)
    if isinstance(made, Refusal):
        return made
    refusal = overflow([i for i in made.inputs if around.is_parameter(i)], around)
    return refusal if refusal is not None else _shift(made, map_, around)


def _shift(made: Node, map_: Affine, around: Surroundings) -> Result:
    """Return a node with the shift added behind it."""
    if map_.shift is None:
        return made
    shift = affine.narrow(map_.shift, made.dtype)
    refusal = overflow([shift], around)
    return refusal if refusal is not None else made + affine.spread(shift, map_.axis, made.rank)


def overflow(parameters: list[Node], around: Surroundings) -> Refusal | None:
    """Return a refusal where a number that float16 has no room for would be rounded to infinity."""
    for parameter in parameters:
        if parameter.dtype != "float16" or not isinstance(parameter.op, Cast):
            continue
        around.require("float16", parameter.inputs[0], f"{parameter.label} of a float16 fold")
        largest = None if around.numbers is None else around.numbers.largest(parameter.inputs[0])
        if largest is not None and not largest <= _LARGEST_FLOAT16:
            return Refusal(f"overflow: a folded parameter reaches {largest:.3g}, float16 ends at 65504", (parameter,))
    return None


def _absorb_sum(node: Node, map_: Affine, around: Surroundings, walk: _Walk) -> Result:
    """(a ± b)·s + t = (a·s + t) ± b·s; a bias joins the shift."""
    left, right = node.inputs
    if around.is_parameter(right) or around.is_parameter(left):
        return _absorb_bias(node, map_, around, walk)
    for side in (left, right):
        if side.type != node.type:
            return Refusal("a branch of the addition is broadcast", (side,))
    first = absorb(left, map_, around, walk)
    second = absorb(right, Affine(map_.axis, map_.scale), around, walk)
    for made, side in ((first, left), (second, right)):
        if isinstance(made, Refusal):
            return Refusal(f"a branch of the addition cannot take the scale: {made.reason}", (side, *made.nodes))
    assert isinstance(first, Node) and isinstance(second, Node)
    return node.with_inputs((first, second))


def _absorb_bias(node: Node, map_: Affine, around: Surroundings, walk: _Walk) -> Result:
    """(x + b)·s + t = x·s + (b·s + t), and the like for x − b and b − x."""
    left, right = node.inputs
    turned = around.is_parameter(left)
    x, bias = (right, left) if turned else (left, right)
    if x.type != node.type:
        return Refusal("the addition broadcasts", (x,))
    value = affine.wide(bias)
    scale = map_.scale
    if isinstance(node.op, Sub):
        minus = affine.wide(Node(Constant.of(-1.0, affine.WIDE)))
        scale, value = (affine.times(scale, minus), value) if turned else (scale, -value)
    made = absorb(x, Affine(map_.axis, scale), around, walk)
    if isinstance(made, Refusal):
        return made
    vector = affine.along(value, map_.axis, node.shape)
    if vector is not None:
        return _shift(made, Affine(map_.axis, None, affine.plus(affine.scaled(vector, map_.scale), map_.shift)), around)
    rest = affine.narrow(_of_parameter(value, map_, node.rank), node.dtype)
    refusal = overflow([rest], around)
    return refusal if refusal is not None else made + rest


def _absorb_scaling(node: Node, map_: Affine, around: Surroundings, walk: _Walk) -> Result:
    """(x·c)·s + t = x·(c·s) + t; x / c and −x alike."""
    found = affine.of_elementwise(node, around)
    if found is None:
        return Refusal("it is multiplied by what is no factor for each channel", (node,))
    x, inner = found
    both = affine.after(inner, map_)
    if both is None:
        return Refusal("axes differ: it is scaled along another axis", (node,))
    return absorb(x, both, around, walk)


def _absorb_concat(node: Node, map_: Affine, around: Surroundings, walk: _Walk) -> Result:
    """concat(a, b)·s + t = concat(a·s₁ + t₁, b·s₂ + t₂); a branch that cannot take its part keeps a narrow affine."""
    op: Any = node.op
    axis = op.axis % node.rank
    branches: list[Node] = []
    refusals: list[Refusal] = []
    start = 0
    for x in node.inputs:
        part = map_
        if axis == map_.axis:
            size = known(x.shape[axis])
            scale, shift = (affine.piece(v, start, size) for v in (map_.scale, map_.shift))
            part, start = Affine(map_.axis, scale, shift), start + size
        made = absorb(x, part, around, walk) if node.inputs.count(x) == 1 else Refusal("second use", (x,))
        if isinstance(made, Refusal):
            refusals.append(made)
            made = unless_overflow(affine.apply(x, part), affine.rounded(part, x.dtype), around)
            if isinstance(made, Refusal):
                return made
        branches.append(made)
    if len(refusals) == len(branches):
        return Refusal(f"no branch of the concatenation can take its part: {refusals[0].reason}", refusals[0].nodes)
    return node.with_inputs(branches)


def _absorb_moved(node: Node, map_: Affine, around: Surroundings, walk: _Walk) -> Result:
    """reshape(x)·s + t = reshape(x·s + t) where the axis of s stays an axis; transposes alike."""
    axis = affine.mapped_axis(node, map_.axis) if not _both_scalar(map_) else node.inputs[0].rank - 1
    if axis is None:
        return Refusal(f"the {node.op.name} takes the axis apart", (node,))
    made = absorb(node.inputs[0], Affine(axis, map_.scale, map_.shift), around, walk)
    return made if isinstance(made, Refusal) else node.with_inputs((made,))


def _both_scalar(map_: Affine) -> bool:
    return all(v is None or v.rank == 0 for v in (map_.scale, map_.shift))


def _absorb_average(node: Node, map_: Affine, around: Surroundings, walk: _Walk) -> Result:
    """avg_pool(x)·s + t = avg_pool(x·s + t) where padding does not count, else avg_pool(x·s) + t."""
    op: Any = node.op
    if map_.axis != _pool_channels(node) and not _both_scalar(map_):
        return Refusal("axes differ: the pool runs along the batch norm's axis", (node,))
    return _around(node, map_, around, walk, shift_inside=not op.count_padding)


def _absorb_maximum(node: Node, map_: Affine, around: Surroundings, walk: _Walk) -> Result:
    """max_pool(x)·s + t = max_pool(x·s + t) where s > 0."""
    if map_.axis != _pool_channels(node) and not _both_scalar(map_):
        return Refusal("axes differ: the pool runs along the batch norm's axis", (node,))
    refusal = _not_positive(map_.scale, around, node)
    return refusal if refusal is not None else _around(node, map_, around, walk, shift_inside=True)


def _around(node: Node, map_: Affine, around: Surroundings, walk: _Walk, shift_inside: bool) -> Result:
    inside = map_ if shift_inside else Affine(map_.axis, map_.scale)
    made = absorb(node.inputs[0], inside, around, walk)
    if isinstance(made, Refusal):
        return made
    result = node.with_inputs((made,))
    return result if shift_inside else _shift(result, map_, around)


def _pool_channels(node: Node) -> int:
    return 3 if node.op.layout == NHWC else 1  # type: ignore[attr-defined]


def _not_positive(scale: Node | None, around: Surroundings, node: Node) -> Refusal | None:
    """Return a refusal unless all of a scale is known to be positive; what is relied on is recorded."""
    if scale is None:
        return None
    changing = [n.label for n in topological([scale]) if n in around.graph.updates]
    if changing:
        return Refusal(f"sign: the scale's sign is not known, each step changes {changing[0]!r}", (node,))
    values = None if around.numbers is None else around.numbers.elements(scale)
    if values is None:
        return Refusal("sign: the scale's sign is not known before numbers are given", (node,))
    bad = [(i, v) for i, v in enumerate(values) if not v > 0]
    if bad:
        return Refusal(f"sign: the scale is {bad[0][1]:g} in channel {bad[0][0]}, and must be positive here", (node,))
    around.require("positive", scale, f"the scale of a batch norm next to {node.label}")
    return None


def _absorb_padding(node: Node, map_: Affine, around: Surroundings, walk: _Walk) -> Result:
    """pad(x, 0)·s + t = pad(x·s, 0) + t."""
    op: Any = node.op
    if op.value != 0:
        return Refusal(f"the padding holds {op.value:g}, which would be scaled too", (node,))
    if map_.scale is not None and map_.scale.rank and op.padding[map_.axis] != (0, 0):
        return Refusal("axes differ: the padding grows the batch norm's axis", (node,))
    return _around(node, map_, around, walk, shift_inside=False)


def _absorb_cast(node: Node, map_: Affine, around: Surroundings, walk: _Walk) -> Result:
    """cast(x)·s + t = cast(x·s) + t between floats."""
    if not is_float(node.inputs[0].dtype):
        return Refusal("it is made of integers", (node.inputs[0],))
    return _around(node, map_, around, walk, shift_inside=False)


def _absorb_reduction(node: Node, map_: Affine, around: Surroundings, walk: _Walk) -> Result:
    """mean(x)·s + t = mean(x·s + t); sum(x)·s + t = sum(x·s) + t, over other axes."""
    op: Any = node.op
    x = node.inputs[0]
    axis = x.rank - 1
    if not _both_scalar(map_):
        left = [i for i in range(x.rank) if op.keepdims or i not in op.axes]
        axis = left[map_.axis]
        if axis in op.axes:
            return Refusal("axes differ: the batch norm's axis was reduced", (node,))
    mean = isinstance(op, Mean)
    made = absorb(x, Affine(axis, map_.scale, map_.shift if mean else None), around, walk)
    if isinstance(made, Refusal):
        return made
    result = node.with_inputs((made,))
    return result if mean else _shift(result, map_, around)


_ABSORBERS: tuple[tuple[tuple[type, ...], Callable[[Node, Affine, Surroundings, _Walk], Result]], ...] = (
    ((Conv2D, Conv2DTranspose, MatMul), _absorb_linear),
    ((Add, Sub), _absorb_sum),
    ((Mul, Div, Neg), _absorb_scaling),
    ((Concat,), _absorb_concat),
    ((Reshape, Transpose), _absorb_moved),
    ((AvgPool2D,), _absorb_average),
    ((MaxPool2D,), _absorb_maximum),
    ((Pad,), _absorb_padding),
    ((Cast,), _absorb_cast),
    ((Mean, Sum), _absorb_reduction),
)


# --- a batch norm before a linear op ----------------------------------------------------------------------------------


@at(Conv2D, Conv2DTranspose, MatMul)
def linear_of_batch_norm(node: Node, around: Surroundings) -> Result | None:
    """linear(batch_norm(x), w) = linear(x, w·s) + linear(t, w), s on the kernel's input channels.

    With zero padding the shift is missing at the border: there linear(t, w) is a map over the pixels, computed with the
    same padding from an image that holds t everywhere. Through a flatten, s is repeated in the flatten's order.

    When: as for `batch_norm_of_linear`, with the batch norm along the linear op's input channels.

        %0 = input("x") : float32[2,6,6,3]
        %1 = variable("gamma") : float32[3]
        %2 = variable("beta") : float32[3]
        %3 = variable("mean") : float32[3]
        %4 = variable("variance") : float32[3]
        %5 = batch_norm(%0, %1, %2, %3, %4) : float32[2,6,6,3]
        %6 = variable("w") : float32[3,3,3,4]
        %7 = conv2d(%5, %6, padding="same") : float32[2,6,6,4]
        return y=%7
    """
    found = _feeding(node.inputs[0], around, node)
    if found is None or not isinstance(found[0].op, BatchNorm):
        return None
    norm, path = found
    refusal = unfit(norm, around) or _path_refusal(norm, path, around)
    if refusal is not None:
        return refusal
    made = into_kernel(node, norm.inputs[0], affine.of_batch_norm(norm), path, around)
    if isinstance(made, Node):
        dead = _dead_channels(affine.of_batch_norm(norm), around)
        around.note(norm, f"folded into {_names(made, around)}, which reads it{_sharing(made, around)}{dead}")
    return made


def _feeding(node: Node, around: Surroundings, reader: Node) -> tuple[Node, list[Node]] | None:
    """Return the batch norm or elementwise affine that feeds a linear op, and what lies between, outermost first."""
    path: list[Node] = []
    while True:
        if affine.is_fixed_batch_norm(node) or affine.of_elementwise(node, around) is not None:
            return node, path
        if not isinstance(node.op, (Reshape, Transpose, AvgPool2D, MaxPool2D, Mean)) or len(path) > _DEEPEST:
            return None
        path.append(node)
        node = node.inputs[0]


def _path_refusal(start: Node, path: list[Node], around: Surroundings) -> Refusal | None:
    for node in (*path, start):
        if around.uses(node) > 1:
            ends = around.ends(node)
            how = f"read as {', '.join(ends)}" if ends else f"read {around.uses(node)} times"
            return Refusal(f"second use: {node.label} is {how}", (node, *around.other_readers(node)))
    return None


def into_kernel(node: Node, x: Node, map_: Affine, path: list[Node], around: Surroundings) -> Result:
    """Return linear(path(x·s + t), w) as linear(path(x), w·s) + linear(t, w), or why that cannot be."""
    if len(node.inputs) != 2 or node.inputs[0] is node.inputs[1] or not around.is_parameter(node.inputs[1]):
        return Refusal("its kernel is computed from data", (node,))
    inner = x
    for each in reversed(path):
        moved = _through(each, map_, around)
        if isinstance(moved, Refusal):
            return moved
        map_, inner = moved, each.with_inputs((inner,))
    if isinstance(node.op, MatMul):
        return _into_matrix(node, inner, map_, around)
    return _into_convolution(node, inner, map_, around)


def _through(node: Node, map_: Affine, around: Surroundings) -> Affine | Refusal:
    """Return the map that stands behind an op instead of before it."""
    op: Any = node.op
    if isinstance(op, (Reshape, Transpose)):
        return _through_movement(node, map_)
    if isinstance(op, Mean):
        return _through_mean(node, map_)
    if map_.axis != _pool_channels(node) and not _both_scalar(map_):
        return Refusal("axes differ: the pool runs along the batch norm's axis", (node,))
    if isinstance(op, MaxPool2D):
        return _not_positive(map_.scale, around, node) or map_
    padded = op.padding != "valid" and op.padding != ((0, 0), (0, 0))
    return Refusal("the pool counts its padding", (node,)) if op.count_padding and padded else map_


def _through_mean(node: Node, map_: Affine) -> Affine | Refusal:
    op: Any = node.op
    if _both_scalar(map_):
        return Affine(max(node.rank - 1, 0), map_.scale, map_.shift)
    if map_.axis in op.axes:
        return Refusal("axes differ: the mean runs along the batch norm's axis", (node,))
    left = [i for i in range(node.inputs[0].rank) if op.keepdims or i not in op.axes]
    return Affine(left.index(map_.axis), map_.scale, map_.shift)


def _through_movement(node: Node, map_: Affine) -> Affine | Refusal:
    if _both_scalar(map_):
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
    if map_.axis != axis and not _both_scalar(map_):
        return Refusal("axes differ: the product sums over another axis", (node,))
    new = kernel if map_.scale is None else affine.scale_matrix(kernel, map_.scale, rows=not op.transpose_y)
    made = node.with_inputs((x, new))
    if map_.shift is None:
        return unless_overflow(made, [new], around)
    row = reshape(affine.vector_of(map_.shift, x.shape[axis]), (1, x.shape[axis]))
    bias = Node(MatMul(False, op.transpose_y), (row, affine.wide(kernel)))
    bias = affine.narrow(reshape(bias, bias.shape[-1:]) if kernel.rank == 2 else bias, made.dtype)
    return unless_overflow(made + bias, [new, bias], around)


def unless_overflow(made: Node, parameters: list[Node], around: Surroundings) -> Result:
    """Return what was made with these rounded parameters, or the refusal where float16 has no room for one of them."""
    refusal = overflow(parameters, around)
    return refusal if refusal is not None else made


def _into_convolution(node: Node, x: Node, map_: Affine, around: Surroundings) -> Result:
    op = node.op
    assert isinstance(op, (Conv2D, Conv2DTranspose))
    kernel = node.inputs[1]
    axis = affine.channels_axis(op)
    if map_.axis != axis and not _both_scalar(map_):
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


# --- what only positive scales allow ----------------------------------------------------------------------------------


@at(Conv2D, Conv2DTranspose, MatMul)
def linear_of_rectified_batch_norm(node: Node, around: Surroundings) -> Result | None:
    """linear(relu(x·s + t), w) = linear(relu(x + t/s), w·s) where s > 0, since relu(s·z) = s·relu(z).

    When: the scale is known and positive in all channels; γ is never changed to make it so.

        %0 = input("x") : float32[2,6,6,3]
        %1 = constant([1.0, 2.0, 0.5]) : float32[3]
        %2 = constant([0.0, 1.0, -1.0]) : float32[3]
        %3 = constant(1.0) : float32[3]
        %4 = batch_norm(%0, %1, %2, %2, %3) : float32[2,6,6,3]
        %5 = relu(%4) : float32[2,6,6,3]
        %6 = variable("w") : float32[3,3,3,4]
        %7 = conv2d(%5, %6) : float32[2,4,4,4]
        return y=%7
    """
    relu = node.inputs[0]
    if not isinstance(relu.op, Relu) or not affine.is_fixed_batch_norm(relu.inputs[0]):
        return None
    norm = relu.inputs[0]
    refusal = unfit(norm, around) or _path_refusal(norm, [relu], around)
    if refusal is not None:
        return refusal
    map_ = affine.of_batch_norm(norm)
    refusal = _not_positive(map_.scale, around, relu)
    if refusal is not None:
        return refusal
    assert map_.scale is not None and map_.shift is not None
    x = norm.inputs[0]
    moved = _shift(x, Affine(map_.axis, None, map_.shift / map_.scale), around)
    if isinstance(moved, Refusal):
        return moved
    made = into_kernel(node, Node(relu.op, (moved,)), Affine(map_.axis, map_.scale), [], around)
    if isinstance(made, Node):
        said = f"its scale folded into {_names(made, around)} behind the relu; an addition is left"
        around.note(norm, said + _sharing(made, around))
    return made


# --- what is said about it --------------------------------------------------------------------------------------------


def _linear_ops(made: Node, around: Surroundings) -> list[Node]:
    """Return the linear ops that a fold made anew, in order."""
    found: list[Node] = []
    stack = [made]
    while stack:
        node = stack.pop()
        if around.is_parameter(node) or around.uses(node):
            continue
        if isinstance(node.op, (Conv2D, Conv2DTranspose, MatMul)):
            found.append(node)
        else:
            stack += reversed(node.inputs)
    return found


def _names(made: Node, around: Surroundings) -> str:
    """Return the linear ops that a fold went into, with the layers they come from."""
    found = [f"{node.op.name} {node.origin.scope}".strip() for node in _linear_ops(made, around)]
    return ", ".join(dict.fromkeys(found[:4])) or made.op.name


def _sharing(made: Node, around: Surroundings) -> str:
    """Say how many bytes the copies of kernels take that other ops read as they are."""
    shared: list[Node] = []
    for linear in _linear_ops(made, around):
        for kernel in map(_unscaled, linear.inputs):
            readers = around.data_readers(kernel) if isinstance(kernel.op, Variable) else frozenset()
            if len(readers) > (linear.id in readers):
                shared.append(kernel)
    total = sum(known(k.tensor_type.nbytes) for k in shared)
    return f"; others read {shared[0].label!r}: a copy of {total:,} bytes" if shared else ""


def _unscaled(kernel: Node) -> Node:
    """Return what a kernel was before folds scaled it."""
    while isinstance(kernel.op, (Cast, Mul)):
        kernel = kernel.inputs[0]
    return kernel


def _dead_channels(map_: Affine, around: Surroundings) -> str:
    """Say which channels the fold makes constant, γ = 0."""
    values = None if around.numbers is None or map_.scale is None else around.numbers.elements(map_.scale)
    dead = [str(i) for i, v in enumerate(values or ()) if v == 0]
    if not dead:
        return ""
    shown = ", ".join(dead[:6]) + (" …" if len(dead) > 6 else "")
    return f"; {len(dead)} of {len(values or ())} channels are constant, γ = 0: {shown}"


FOLD_BATCH_NORM = Rewriting(
    "fold_batch_norm",
    (
        batch_norm_of_linear,  # the common case: the kernel before it takes the scale
        linear_of_batch_norm,  # the kernel behind it does
        linear_of_rectified_batch_norm,  # also through a relu, where the scale is positive
    ),
)
