"""Convolutions with what follows them: in the library's own pass where it has one, else a loop behind it."""

from __future__ import annotations

from collections.abc import Sequence

from minigraph.backends.cupy.convolution import convolution_code
from minigraph.backends.cupy.dtypes import CUDA_TYPES, FLOATS
from minigraph.backends.cupy.epilogue import Epilogue
from minigraph.backends.cupy.gpu import Gpu
from minigraph.backends.cupy.loops import loop_code
from minigraph.backends.cupy.pieces import CudaLoop
from minigraph.backends.cupy.products import product_code
from minigraph.backends.cupy.steps import Action, Launch, Parameter, StepCode, aligned, blocks_for
from minigraph.backends.loops.body import shape_of
from minigraph.ir.node import Node
from minigraph.ir.types import known
from minigraph.ops.activations import Relu
from minigraph.ops.conv import Conv2D, Convolution
from minigraph.ops.elementwise import Add
from minigraph.ops.group import Group
from minigraph.ops.linalg import MatMul


def anchors(node: Node) -> bool:
    """Tell whether a group may begin with this op: only forward convolutions gain by it."""
    return isinstance(node.op, Conv2D) and node.dtype in FLOATS and _is_something(node)


def _is_something(node: Node) -> bool:
    return all(0 not in shape_of(n) for n in (node, *node.inputs))


def multiplies(node: Node) -> bool:
    """Tell whether an op by itself is a convolution or product."""
    return isinstance(node.op, (Convolution, MatMul))


def single_code(node: Node, gpu: Gpu) -> StepCode:
    """Return the code of a convolution or product that is a step of its own."""
    if not _is_something(node):
        return _sum_of_nothing(node)
    actions, workspace = _anchor_code(node, (0, 1, 2), gpu, 0)
    return StepCode(actions, workspace, prepared=_prepared(actions, node))


def _prepared(actions: Sequence[Action], anchor: Node) -> int:
    """Return the bytes of what is done once: a constant kernel in another order."""
    once = any(isinstance(action, Launch) and action.once for action in actions)
    return aligned(known(anchor.inputs[1].tensor_type.nbytes)) if once else 0


def _sum_of_nothing(node: Node) -> StepCode:
    """Return what writes zeros, where there are results to write."""
    size, ctype = known(node.tensor_type.size), CUDA_TYPES[node.dtype]
    lines = (f"for (Index i = thread_index(); i < {size}; i += thread_count()) out[i] = {ctype}(0);",)
    zeros = Launch("zeros", (Parameter(f"{ctype}* out", len(node.inputs)),), lines, blocks_for(size))
    return StepCode((zeros,) if size else ())


def _anchor_code(anchor: Node, places: tuple[int, int, int], gpu: Gpu, scratch: int) -> tuple[tuple[Action, ...], int]:
    if isinstance(anchor.op, MatMul):
        return product_code(anchor, places, gpu, scratch)
    code = convolution_code(anchor, places, Epilogue(), gpu, scratch)
    assert code is not None  # only epilogues may be refused
    return code


def group_code(node: Node, gpu: Gpu) -> StepCode:
    """Return the code of a group that begins with a convolution."""
    loop = CudaLoop(node)
    assert loop.anchor is not None
    places = _places(node, loop.anchor.inputs)
    epilogue = _epilogue(loop)
    if epilogue is not None:
        fused = convolution_code(loop.anchor, (*places, len(node.inputs)), epilogue, gpu, 0)
        if fused is not None:
            return StepCode(*fused, prepared=_prepared(fused[0], loop.anchor))
    target, held = _target(loop)
    actions, workspace = _anchor_code(loop.anchor, (*places, target.place), gpu, held)
    rest = loop_code(node, target, held)
    # The convolution writes while the loop's operands are still to be read: none of them may be written over.
    workspace = held + max(workspace, rest.workspace)
    return StepCode((*actions, *rest.actions), workspace, prepared=_prepared(actions, loop.anchor))


def _places(node: Node, operands: Sequence[Node]) -> tuple[int, int]:
    first, second = (list(node.inputs).index(operand) for operand in operands)
    return first, second


def _target(loop: CudaLoop) -> tuple[Parameter, int]:
    """Return where the convolution's own result goes, if it can where a result does, and its bytes of workspace."""
    anchor = loop.anchor
    assert anchor is not None
    declaration = f"const {CUDA_TYPES[anchor.dtype]}* raw"
    own = [i for i, (step, _) in enumerate(loop.results) if step is anchor]
    like_it = [i for i, step in loop.made if step.type == anchor.type]  # the loop reads an element before it writes it
    for result in (*own, *like_it):
        return Parameter(declaration, len(loop.node.inputs) + result), 0
    return Parameter(declaration, -1), aligned(known(anchor.tensor_type.nbytes))


def _epilogue(loop: CudaLoop) -> Epilogue | None:
    """Return what follows as an epilogue: a bias, a residual, a rectifier, in this order, and nothing else."""
    if len(loop.results) != 1 or not isinstance(loop.node.op, Group):
        return None
    value, steps = loop.anchor, list(loop.loop_steps)
    operands = list(loop.node.inputs)
    assert value is not None
    bias = residual = None
    while steps and isinstance(steps[0].op, Add):
        other = _other(steps[0], value)
        if other not in operands or other is value or other.dtype != value.dtype:
            return None
        channels = other.rank and other.shape[-1] == value.shape[-1] == other.tensor_type.size
        if channels and bias is None and residual is None:
            bias = operands.index(other)
        elif other.shape == value.shape and residual is None:
            residual = operands.index(other)
        else:
            return None
        value = steps.pop(0)
    relu = bool(steps) and isinstance(steps[0].op, Relu) and steps[0].inputs[0] is value
    if relu:
        value = steps.pop(0)
    if steps or loop.results[0][0] is not value:
        return None
    return Epilogue(bias, residual, relu)


def _other(step: Node, value: Node) -> Node | None:
    """Return what is added to a value."""
    if value not in step.inputs:
        return None
    return step.inputs[1] if step.inputs[0] is value else step.inputs[0]
