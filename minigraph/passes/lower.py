"""Lowering: mode-neutral ops become what they are in training or in inference.

Mode is a compile-time choice, never a run-time flag: one definition, two programs, and this pass is the difference.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from minigraph.errors import ArgumentError
from minigraph.ir.graph import Graph, same_or_rebuilt
from minigraph.ir.leaves import Constant, Variable, item, variable
from minigraph.ir.node import Node
from minigraph.ir.types import normalize_axis
from minigraph.ops.elementwise import where
from minigraph.ops.norm import BatchNorm, Moments, Moving
from minigraph.ops.random import Dropout, RandomUniform
from minigraph.ops.reduction import count
from minigraph.passes.driver import Rewriter, run
from minigraph.passes.trace import Trace

MODES = ("training", "inference")
# The step counter that all random numbers of a training graph share.
RANDOM_STEP = "random/step"


def lower(graph: Graph, mode: str, seed: int = 0) -> Graph:
    """Return the graph as it runs in `mode`: "training" (with moving averages as updates) or "inference".

    seed: the first word of the Philox keys of dropouts that have no seed of their own.

    >>> from minigraph.ir import Graph, variable
    >>> from minigraph.ops import dropout
    >>> print(lower(Graph({"y": dropout(variable((3,), name="x"))}), "inference"))
    graph {
      %0 = variable("x") : float32[3]
      return y=%0
    }
    """
    return run([Lower(mode, seed)], graph)[0]


@dataclass(frozen=True)
class Lower:
    """The pass behind `lower`."""

    mode: str
    seed: int = 0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ArgumentError("no such mode", expected=" or ".join(map(repr, MODES)), got=repr(self.mode))

    @property
    def name(self) -> str:
        """The name in a pipeline: `lower(training)`."""
        return f"lower({self.mode})"

    @property
    def arguments(self) -> str:
        """The arguments in a pipeline's text."""
        return f"{self.mode}, seed={self.seed}" if self.seed else self.mode

    def __call__(self, graph: Graph, trace: Trace) -> Graph:
        """Return the graph without mode-neutral ops."""
        return _Lowering(self.mode == "training", self.seed, Rewriter(trace, self.name), graph).run()


class _Lowering:
    """One run: collects the updates that training adds."""

    def __init__(self, training: bool, seed: int, rewriter: Rewriter, graph: Graph) -> None:
        self.training = training
        self.seed = seed
        self.rewriter = rewriter
        self.graph = graph
        self.updates: dict[Node, Node] = {}
        self.step: Node | None = None
        # A graph that was lowered before has random numbers already; new ones get other keys.
        self.dropouts = sum(isinstance(node.op, RandomUniform) for node in graph.nodes)

    def run(self) -> Graph:
        lowered = self.graph.rebuild(self.make)
        overlap = [v.label for v in self.updates if v in lowered.updates]
        if overlap:
            raise ArgumentError("moving averages are updated elsewhere as well", got=overlap, where="")
        return Graph(lowered.outputs, {**lowered.updates, **self.updates}, lowered.inputs)

    def make(self, node: Node, inputs: tuple[Node, ...]) -> Node:
        node = same_or_rebuilt(node, inputs)
        match node.op:
            case BatchNorm(moving=Moving(frozen=frozen)):
                rule = "batch_statistics" if self.training and not frozen else "moving_averages"
                return self.rewriter.replace(rule, node, lambda: self.batch_norm(node))
            case Dropout():
                return self.rewriter.replace("dropout_mask", node, lambda: self.dropout(node))
        return node

    def batch_norm(self, node: Node) -> Node:
        op: Any = node.op
        x, gamma, beta, mean, variance, *counts = node.inputs
        fixed = replace(op, moving=None)
        if not self.training or op.moving.frozen:
            return Node(fixed, (x, gamma, beta, mean, variance))
        axis = normalize_axis(op.axis, x.rank)
        axes = tuple(i for i in range(x.rank) if i != axis)
        both = Node(Moments(axes, at_least=2), (x,))
        batch_mean, batch_variance = item(both, 0), item(both, 1)
        self.average(op.moving, x, axes, (mean, variance), (batch_mean, batch_variance), counts)
        return Node(fixed, (x, gamma, beta, batch_mean, batch_variance))

    def average(
        self, moving: Moving, x: Node, axes: tuple[int, ...], old: tuple[Node, Node], batch: tuple[Node, Node],
        counts: list[Node],
    ) -> None:  # fmt: skip
        """Add the updates new = momentum·old + (1 − momentum)·batch; a norm used twice averages twice, in order."""
        mean, variance = batch
        if moving.unbiased:
            number = count(x, axes)
            variance = variance * (number / (number - 1.0))
        weight: Any = 1.0 - moving.momentum
        if counts:
            seen = self.updates.get(counts[0], counts[0])
            # 1/(t + 1) makes a plain average of the first batches; it stops falling at 1 − momentum.
            equal_weight = 1.0 / (seen + 1.0)
            weight = where(equal_weight > weight, equal_weight, weight)
            self.updates[counts[0]] = seen + 1.0
        for target, value in zip(old, (mean, variance), strict=True):
            if not isinstance(target.op, Variable):
                raise ArgumentError("moving averages must be variables", got=target, where=target.origin.where)
            current = self.updates.get(target, target)
            self.updates[target] = current * (1.0 - weight) + value * weight

    def dropout(self, node: Node) -> Node:
        op, x = node.op, node.inputs[0]
        assert isinstance(op, Dropout)
        if not self.training or op.rate == 0:
            return x
        key = (self.seed, self.dropouts) if op.seed is None else (op.seed, 2**63)
        self.dropouts += 1
        uniform = Node(RandomUniform(x.shape, key, "float32"), (self.counter(),))
        return where(uniform < op.rate, 0.0, x * (1.0 / (1.0 - op.rate)))

    def counter(self) -> Node:
        if self.step is None:
            known_steps = [v for v in self.graph.variables if v.label == RANDOM_STEP]
            self.step = known_steps[0] if known_steps else make_step()
            self.updates[self.step] = self.step + Node(Constant.of(1, "int64"))
        return self.step


def make_step() -> Node:
    """Return the variable that counts training steps for random numbers."""
    return variable((), name=RANDOM_STEP, init=0, dtype="int64", trainable=False)
