"""A scale and a shift absorbed by the linear ops that a value is made of: the walk up from a batch norm.

(x·w)·s + t = x·(w·s) + t, through additions, concatenations, reshapes, transposes, casts, means, pools, zero padding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minigraph.ir.leaves import Constant, Input
from minigraph.ir.node import Node
from minigraph.ir.types import Dim, is_float, known
from minigraph.ops.conv import Conv2D, Conv2DTranspose
from minigraph.ops.elementwise import Add, Div, Mul, Neg, Sub
from minigraph.ops.indexing import Pad
from minigraph.ops.linalg import MatMul
from minigraph.ops.pool import AvgPool2D, MaxPool2D
from minigraph.ops.reduction import Max, Mean, Min, Sum
from minigraph.ops.region import Function, inline
from minigraph.ops.shape import Cast, Concat, Reshape, Transpose
from minigraph.passes import affine, volumes
from minigraph.passes.affine import Affine
from minigraph.passes.conditions import Result, not_positive, overflow, unless_overflow
from minigraph.passes.surroundings import Surroundings
from minigraph.passes.trace import Refusal

# Additions may be nested; a tower of more than this is left alone, since the walk up recurses.
_DEEPEST = 40


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
        return add_shift(node, map_, around)
    made = affine.scaled_output(node, map_.axis, map_.scale, around)
    if isinstance(made, Refusal):
        return made
    refusal = overflow([i for i in made.inputs if around.is_parameter(i)], around)
    return refusal if refusal is not None else add_shift(made, map_, around)


def add_shift(made: Node, map_: Affine, around: Surroundings) -> Result:
    """Return a node with the shift added behind it."""
    if map_.shift is None:
        return made
    shift = affine.narrow(map_.shift, made.dtype)
    refusal = overflow([shift], around)
    return refusal if refusal is not None else made + affine.spread(shift, map_.axis, made.rank)


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
        return add_shift(
            made, Affine(map_.axis, None, affine.plus(affine.scaled(vector, map_.scale), map_.shift)), around
        )
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
    left: list[Node] = []
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
            left.append(x)
            made = unless_overflow(affine.apply(x, part), affine.rounded(part, x.dtype), around)
            if isinstance(made, Refusal):
                return made
        branches.append(made)
    if len(refusals) == len(branches):
        return Refusal(f"no branch of the concatenation can take its part: {refusals[0].reason}", refusals[0].nodes)
    if _nearly_all(left, node, axis):
        return Refusal(f"most of the concatenation cannot take its part: {refusals[0].reason}", refusals[0].nodes)
    return node.with_inputs(branches)


def _nearly_all(left: list[Node], node: Node, axis: int) -> bool:
    """Tell whether more than four fifths of a concatenation would keep an affine map.

    It would be a product and a sum over almost as much, where one batch norm was: as at DenseNet's transitions.
    """
    sizes = [[x.shape[axis] for x in branches] for branches in (left, node.inputs)]
    if any(isinstance(size, Dim) for size in sizes[1]):
        return False
    kept, total = (sum(map(known, each)) for each in sizes)
    return 5 * kept > 4 * total


def _absorb_moved(node: Node, map_: Affine, around: Surroundings, walk: _Walk) -> Result:
    """reshape(x)·s + t = reshape(x·s + t) where the axis of s stays an axis, or is part of one; transposes alike."""
    axis = affine.mapped_axis(node, map_.axis) if not affine.is_scalar(map_) else node.inputs[0].rank - 1
    inside = affine.before_split(node, map_) if axis is None else Affine(axis, map_.scale, map_.shift)
    if inside is None:
        return Refusal(f"the {node.op.name} takes the axis apart", (node,))
    made = absorb(node.inputs[0], inside, around, walk)
    return made if isinstance(made, Refusal) else node.with_inputs((made,))


def _absorb_average(node: Node, map_: Affine, around: Surroundings, walk: _Walk) -> Result:
    """avg_pool(x)·s + t = avg_pool(x·s + t) where padding does not count, else avg_pool(x·s) + t."""
    op: Any = node.op
    if map_.axis != affine.channels_axis(node.op) and not affine.is_scalar(map_):
        return Refusal("axes differ: the pool runs along the batch norm's axis", (node,))
    return _around(node, map_, around, walk, shift_inside=not op.count_padding)


def _absorb_maximum(node: Node, map_: Affine, around: Surroundings, walk: _Walk) -> Result:
    """max_pool(x)·s + t = max_pool(x·s + t) where s > 0."""
    if map_.axis != affine.channels_axis(node.op) and not affine.is_scalar(map_):
        return Refusal("axes differ: the pool runs along the batch norm's axis", (node,))
    refusal = not_positive(map_.scale, around, node)
    return refusal if refusal is not None else _around(node, map_, around, walk, shift_inside=True)


def _around(node: Node, map_: Affine, around: Surroundings, walk: _Walk, shift_inside: bool) -> Result:
    inside = map_ if shift_inside else Affine(map_.axis, map_.scale)
    made = absorb(node.inputs[0], inside, around, walk)
    if isinstance(made, Refusal):
        return made
    result = node.with_inputs((made,))
    return result if shift_inside else add_shift(result, map_, around)


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
    """mean(x)·s + t = mean(x·s + t); max and min alike where s > 0; sum(x)·s + t = sum(x·s) + t; over other axes."""
    op: Any = node.op
    x = node.inputs[0]
    axis = x.rank - 1
    if not affine.is_scalar(map_):
        left = [i for i in range(x.rank) if op.keepdims or i not in op.axes]
        axis = left[map_.axis]
        if axis in op.axes:
            return Refusal("axes differ: the batch norm's axis was reduced", (node,))
    refusal = not_positive(map_.scale, around, node) if isinstance(op, (Max, Min)) else None
    if refusal is not None:
        return refusal
    summed = isinstance(op, Sum)
    made = absorb(x, Affine(axis, map_.scale, None if summed else map_.shift), around, walk)
    if isinstance(made, Refusal):
        return made
    result = node.with_inputs((made,))
    return add_shift(result, map_, around) if summed else result


def _absorb_function(node: Node, map_: Affine, around: Surroundings, walk: _Walk) -> Result:
    """f(x)·s + t for a function that is a convolution over three axes, or one made of sums and multiples."""
    if volumes.is_volume(node):
        return volumes.absorbed(node, map_, around)
    op: Any = node.op
    if not all(isinstance(step.op, (Add, Sub, Mul, Div, Neg, Constant)) for step in op.body):
        return Refusal(f"{op.label} stands between, which is not linear", (node,))
    return absorb(inline(node), map_, around, walk)


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
    ((Mean, Sum, Max, Min), _absorb_reduction),
    ((Function,), _absorb_function),
)
