"""What must hold before a batch norm, or another affine, is folded; each refusal says why it does not, in words."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

from minigraph.ir.graph import topological
from minigraph.ir.leaves import Item
from minigraph.ir.node import Node
from minigraph.ops.norm import Moments
from minigraph.ops.shape import Cast
from minigraph.passes.surroundings import Surroundings
from minigraph.passes.trace import Refusal

Result: TypeAlias = Node | Refusal


_LARGEST_FLOAT16 = 65504.0


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


def not_positive(scale: Node | None, around: Surroundings, node: Node) -> Refusal | None:
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


def unless_overflow(made: Node, parameters: list[Node], around: Surroundings) -> Result:
    """Return what was made with these rounded parameters, or the refusal where float16 has no room for one of them."""
    refusal = overflow(parameters, around)
    return refusal if refusal is not None else made
