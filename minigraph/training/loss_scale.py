"""Loss scaling: gradients of scale · loss, so that small ones are not rounded to 0 in float16.

Micikevicius et al., "Mixed Precision Training", 2018, section 3.2. The scale is a variable and all decisions are nodes:
a step whose gradients overflow leaves everything as it was but the scale, and nobody has to ask the device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

from minigraph import ops
from minigraph.autodiff import gradients
from minigraph.ir.leaves import Constant, variable
from minigraph.ir.node import Node
from minigraph.ir.origin import scope

SCALE = "loss_scale/scale"
FINITE_STEPS = "loss_scale/finite_steps"
# The first scale; after so many finite steps it doubles, up to the largest; where a gradient overflows it is halved.
FIRST, GROWTH_STEPS, LARGEST = 2.0**15, 2000, 2.0**24


class LossScale:
    """The scale of a training graph, and what becomes of gradients and updates.

    >>> w = variable((3,), name="w")
    >>> scaling = LossScale()
    >>> (gradient,) = scaling.gradients(ops.sum(w * w), [w])
    >>> gradient
    <div : float32[3]>
    >>> [v.label for v in scaling.guarded({w: w - gradient})]
    ['w', 'loss_scale/scale', 'loss_scale/finite_steps']
    """

    def __init__(self) -> None:
        self.scale = variable((), name=SCALE, init=FIRST, trainable=False)
        self.steps = variable((), name=FINITE_STEPS, init=0, dtype="int64", trainable=False)
        self.finite: Node = Node(Constant.of(True))  # whether all gradients that were taken are

    def gradients(self, loss: Node, wrt: Sequence[Node]) -> list[Node]:
        """Return the gradients of a loss, by way of those of scale · loss."""
        with scope("loss_scale"):
            scaled = gradients(loss * ops.cast(self.scale, loss.dtype), wrt)
            # A maximum passes NaN on, and NaN is not below ∞.
            largest = [ops.cast(ops.max(ops.abs(g)), "float32") for g in scaled]
            self.finite = reduce(ops.maximum, largest) < float("inf")
            return [g / ops.cast(self.scale, g.dtype) for g in scaled]

    def guarded(self, updates: Mapping[Node, Node]) -> dict[Node, Node]:
        """Return updates that change nothing where a gradient is not finite, and those of the scale.

        After `GROWTH_STEPS` finite steps the scale doubles; where a gradient is not finite it is halved.
        """
        with scope("loss_scale"):
            kept = {v: new if new is v else ops.where(self.finite, new, v) for v, new in updates.items()}
            steps = self.steps + Node(Constant.of(1, "int64"))
            grown = ops.greater_equal(steps, GROWTH_STEPS)
            larger = ops.where(grown, ops.minimum(self.scale * 2.0, LARGEST), self.scale)
            smaller = ops.maximum(self.scale * 0.5, 1.0)
            zero = Node(Constant.of(0, "int64"))
            return {
                **kept,
                self.scale: ops.where(self.finite, larger, smaller),
                self.steps: ops.where(self.finite, ops.where(grown, zero, steps), zero),
            }
