"""Batch norm folded into the linear op before it or behind it, wherever that is exact, and nowhere else.

With fixed statistics a batch norm is x·s + t for each channel, s = γ/√(variance + ε), t = β − mean·s. A linear op takes
the scale into its kernel; the shift becomes a bias. `absorb` walks up from the batch norm to the ops that can take the
scale; `feed` moves it into the op that reads it; `conditions` says when neither may be. docs/batch-norm.md has the
matrix of situations.
"""

from __future__ import annotations

from minigraph.ir.leaves import Variable
from minigraph.ir.node import Node
from minigraph.ir.types import is_float, known
from minigraph.ops.activations import Relu
from minigraph.ops.conv import Conv2D, Conv2DTranspose
from minigraph.ops.elementwise import Add, Mul
from minigraph.ops.linalg import MatMul
from minigraph.ops.norm import BatchNorm
from minigraph.ops.region import Function
from minigraph.ops.shape import Cast
from minigraph.passes import affine, volumes
from minigraph.passes.absorb import absorb, add_shift, start_of_walk
from minigraph.passes.affine import Affine
from minigraph.passes.conditions import Result, not_positive, unfit, unless_overflow
from minigraph.passes.driver import Rewriting, at
from minigraph.passes.feed import feeding, into_kernel, moved_from, path_refusal
from minigraph.passes.surroundings import Surroundings
from minigraph.passes.trace import Refusal


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
    made = absorb(node.inputs[0], map_, around, start_of_walk(node))
    if isinstance(made, Refusal):
        return made
    dead = _dead_channels(map_, around)
    around.note(node, f"folded into {_names(made, around)}{_sharing(made, around)}{dead}")
    return made


@at(Conv2D, Conv2DTranspose, MatMul, Function)
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
    if isinstance(node.op, Function) and not volumes.is_volume(node):
        return None
    found = feeding(node.inputs[0], around)
    if found is None or not isinstance(found[0].op, BatchNorm):
        return None
    norm, path = found
    refusal = unfit(norm, around) or path_refusal(norm, path, around)
    if refusal is not None:
        return refusal
    made = into_kernel(node, norm.inputs[0], affine.of_batch_norm(norm), path, around)
    if isinstance(made, Node):
        dead = _dead_channels(affine.of_batch_norm(norm), around)
        around.note(norm, f"folded into {_names(made, around)}, which reads it{_sharing(made, around)}{dead}")
    return made


@at(Cast)
def rounded_linear_with_bias(node: Node, around: Surroundings) -> Result | None:
    """cast(cast(linear(x, w)) + t) = linear(x, w) + cast(t): half-precision data, statistics with more digits.

    When: t is a parameter, the result has the dtype of x again, and nothing else reads what lies between. The linear op
    rounds its result to that dtype in any case.

        %0 = input("x") : bool[2,3]
        %1 = cast(%0, dtype="float16") : float16[2,3]
        %2 = constant(0.5) : float16[3,2]
        %3 = matmul(%1, %2) : float16[2,2]
        %4 = cast(%3, dtype="float64") : float64[2,2]
        %5 = constant([1.0, 2.0]) : float64[2]
        %6 = add(%4, %5) : float64[2,2]
        %7 = cast(%6, dtype="float16") : float16[2,2]
        return y=%7
    """
    total = node.inputs[0]
    if not isinstance(total.op, Add):
        return None
    wide, t = total.inputs
    if not isinstance(wide.op, Cast) or not is_float(total.dtype):
        return None
    linear = wide.inputs[0]
    if not _is_linear(_unbiased(linear, around)) or linear.type != node.type or not around.is_parameter(t):
        return None
    for each in (total, wide, linear):
        if around.uses(each) > 1:
            return Refusal(f"second use: {each.label} is read {around.uses(each)} times", (each,))
    rounded = affine.narrow(affine.wide(t), node.dtype)
    return unless_overflow(linear + rounded, [rounded], around)


@at(Conv2D, Conv2DTranspose, MatMul)
def linear_of_rectified_batch_norm(node: Node, around: Surroundings) -> Result | None:
    """linear(relu(x·s + t), w) = linear(relu(x + t/s), w·s) where s > 0, since relu(s·z) = s·relu(z).

    Also through reshapes, transposes, pools and means behind the relu.

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
    relu, path = moved_from(node.inputs[0])
    if not isinstance(relu.op, Relu) or not affine.is_fixed_batch_norm(relu.inputs[0]):
        return None
    norm = relu.inputs[0]
    refusal = unfit(norm, around) or path_refusal(norm, [*path, relu], around)
    if refusal is not None:
        return refusal
    map_ = affine.of_batch_norm(norm)
    refusal = not_positive(map_.scale, around, relu)
    if refusal is not None:
        return refusal
    assert map_.scale is not None and map_.shift is not None
    x = norm.inputs[0]
    moved = add_shift(x, Affine(map_.axis, None, map_.shift / map_.scale), around)
    if isinstance(moved, Refusal):
        return moved
    made = into_kernel(node, Node(relu.op, (moved,)), Affine(map_.axis, map_.scale), path, around)
    if isinstance(made, Node):
        said = f"its scale folded into {_names(made, around)} behind the relu; an addition is left"
        around.note(norm, said + _sharing(made, around))
    return made


def _is_linear(node: Node) -> bool:
    return isinstance(node.op, (Conv2D, Conv2DTranspose, MatMul)) or volumes.is_volume(node)


def _unbiased(node: Node, around: Surroundings) -> Node:
    """Return what a parameter is added to, or the node itself."""
    if isinstance(node.op, Add) and around.is_parameter(node.inputs[1]):
        return node.inputs[0]
    return node


def _linear_ops(made: Node, around: Surroundings) -> list[Node]:
    """Return the linear ops that a fold made anew, in order."""
    found: list[Node] = []
    stack = [made]
    while stack:
        node = stack.pop()
        if around.is_parameter(node) or around.uses(node):
            continue
        if _is_linear(node):
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
        rounded_linear_with_bias,  # a shift with more digits than the data
    ),
)
