"""Fusion: elementwise ops join the op that makes their operand, so that what lies between is never stored.

A region begins with a convolution or a matrix product, or works element by element from the start. In a training
graph the backward pass has regions too. Fusion comes last: rules match single ops.
"""

from __future__ import annotations

from minigraph.ir.node import Node
from minigraph.ops.elementwise import Elementwise
from minigraph.ops.fused import ANCHORS, Fused, by_element, fuse
from minigraph.ops.norm import BatchNorm
from minigraph.ops.region import inline
from minigraph.ops.shape import Cast
from minigraph.passes.driver import Rewriting, at
from minigraph.passes.surroundings import Surroundings
from minigraph.passes.trace import Refusal

# A longer region is hard to read and gains nothing: its operands no longer fit into the cache.
LONGEST = 24


@at(Elementwise, Cast, BatchNorm, Fused)
def fuse_into_reader(node: Node, around: Surroundings) -> Node | Refusal | None:
    """f(g(x)) = (f∘g)(x): conv2d + bias + activation (+ residual) and chains of elementwise ops become one `fused`.

    When: nothing else reads what lies between, both have one shape, a batch norm runs along the last axis, and the
    region holds at most one convolution or product and 24 steps.

        %0 = input("x") : float32[2,6,6,3]
        %1 = variable("w") : float32[3,3,3,4]
        %2 = conv2d(%0, %1) : float32[2,4,4,4]
        %3 = variable("bias") : float32[4]
        %4 = add(%2, %3) : float32[2,4,4,4]
        %5 = relu(%4) : float32[2,4,4,4]
        return y=%5
    """
    if around.is_parameter(node) or not _joins(node):
        return None
    refusal: Refusal | None = None
    made = node
    # A convolution comes last, to be the first step; of two that meet in a sum the later one, whose result is fresh.
    for operand in sorted(dict.fromkeys(node.inputs), key=lambda n: (_anchored(n), -n.id)):
        why = _apart(operand, made, around)
        if why is None:
            made = fuse(operand, made)
        elif why and refusal is None:
            refusal = Refusal(why, (operand,))
    return made if made is not node else refusal


def _joins(node: Node) -> bool:
    """Tell whether a node works element by element."""
    return not _anchored(node) if isinstance(node.op, Fused) else by_element(node.op, node.rank)


def _anchored(node: Node) -> bool:
    op = node.op.body[0].op if isinstance(node.op, Fused) else node.op
    return isinstance(op, ANCHORS)


def _apart(operand: Node, reader: Node, around: Surroundings) -> str | None:
    """Return why an operand does not join its reader, "" where it is not of the kind that could; None if it joins."""
    if not isinstance(operand.op, (Elementwise, Cast, BatchNorm, Fused, *ANCHORS)) or around.is_parameter(operand):
        return ""
    if not (_anchored(operand) or _joins(operand)):
        return "the batch norm runs along another axis"
    if operand.shape != reader.shape:
        return "it is broadcast"
    if around.uses(operand) > reader.inputs.count(operand):
        return f"second use: {operand.label} is read {around.uses(operand)} times"
    if _anchored(operand) and _anchored(reader):
        return "one region holds one convolution or product"
    steps = sum(len(n.op.body) if isinstance(n.op, Fused) else 1 for n in (operand, reader))
    return None if steps <= LONGEST else f"the region would have {steps} steps"


@at(Fused)
def unfused(node: Node) -> Node | None:
    """fused(x) = its steps one by one: what passes that look for single ops begin with.

    %0 = input("x") : float32[2,3]
    %1 = fused(%0, body=(step(op=neg(), inputs=(0,)), step(op=relu(), inputs=(1,)))) : float32[2,3]
    return y=%1
    """
    return inline(node)


# A value may have to wait until its readers are one region, which may have to wait for theirs: a sweep for each step.
FUSE = Rewriting("fuse", (fuse_into_reader,), max_sweeps=LONGEST + 2)
UNFUSE = Rewriting("unfuse", (unfused,))
