"""Optimisers make nodes: from variables and gradients to updates. Learning-rate schedules do too.

Slots (momentum and the like) are variables of the graph, and so are the step count and the learning rate, so that a
state holds all there is to resume.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from minigraph import ops
from minigraph.errors import ArgumentError, did_you_mean
from minigraph.ir.leaves import Constant, variable
from minigraph.ir.node import Node, as_node
from minigraph.ir.op import configuration

Pairs = Sequence[tuple[Node, Node]]  # (variable, gradient)
Schedule = Callable[[Node], Node]  # from the step count, a float32 scalar, to the learning rate
ITERATIONS = "optimizer/iterations"
LEARNING_RATE = "optimizer/learning_rate"


# --- schedules: from the step count (a float32 node) to the learning rate -------------------------------------------


@configuration("cosine_decay")
@dataclass(frozen=True)
class CosineDecay:
    """From the initial rate to alpha times it along half a cosine, after a linear warm-up (Loshchilov & Hutter 2017).

    >>> CosineDecay(0.1, decay_steps=100, warmup_steps=10)(as_node(0.0))
    <where : float32[]>
    """

    initial_learning_rate: float
    decay_steps: int
    alpha: float = 0.0
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        _check_rate(self.initial_learning_rate)

    def __call__(self, step: Node) -> Node:
        """Return the rate; the cosine spans the steps after the warm-up."""
        rate = self.initial_learning_rate
        progress = ops.clip((step - float(self.warmup_steps)) * (1.0 / max(1, self.decay_steps)), 0.0, 1.0)
        cosine = 0.5 * (1.0 + ops.cos(progress * math.pi))
        decayed = ((1.0 - self.alpha) * cosine + self.alpha) * rate
        if not self.warmup_steps:
            return decayed
        # Step 0 already moves: (step + 1)/warmup of the rate.
        return ops.where(step < float(self.warmup_steps), (step + 1.0) * (rate / self.warmup_steps), decayed)


@configuration("exponential_decay")
@dataclass(frozen=True)
class ExponentialDecay:
    """initial · rate^(step / steps); with `staircase` the exponent is rounded down: a step decay.

    >>> ExponentialDecay(0.1, decay_steps=30, decay_rate=0.1, staircase=True)(as_node(0.0))
    <mul : float32[]>
    """

    initial_learning_rate: float
    decay_steps: int
    decay_rate: float
    staircase: bool = False

    def __post_init__(self) -> None:
        _check_rate(self.initial_learning_rate)

    def __call__(self, step: Node) -> Node:
        """Return the rate."""
        exponent = step / float(self.decay_steps)
        if self.staircase:
            exponent = ops.floor(exponent)
        return ops.pow(as_node(self.decay_rate, step), exponent) * self.initial_learning_rate


@configuration("piecewise_constant_decay")
@dataclass(frozen=True)
class PiecewiseConstantDecay:
    """values[i] up to and including step boundaries[i], the last value after them.

    >>> PiecewiseConstantDecay((100, 200), (0.1, 0.01, 0.001))(as_node(0.0))
    <where : float32[]>
    """

    boundaries: tuple[int, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.values) != len(self.boundaries) + 1 or list(self.boundaries) != sorted(self.boundaries):
            raise ArgumentError("bad schedule", expected="rising boundaries, and one value more than those", got=self)

    def __call__(self, step: Node) -> Node:
        """Return the rate."""
        rate = as_node(self.values[-1], step)
        for boundary, value in zip(reversed(self.boundaries), reversed(self.values[:-1]), strict=True):
            rate = ops.where(step <= float(boundary), value, rate)
        return rate


@configuration("warmup")
@dataclass(frozen=True)
class Warmup:
    """A linear rise over `steps` steps to whatever `then` says: a number, or a schedule counted from the start.

    >>> Warmup(10, 0.1)(as_node(0.0))
    <mul : float32[]>
    """

    steps: int
    then: Any

    def __call__(self, step: Node) -> Node:
        """Return the rate."""
        target = self.then(step) if callable(self.then) else as_node(float(self.then), step)
        return ops.minimum((step + 1.0) * (1.0 / max(1, self.steps)), 1.0) * target


def _check_rate(rate: Any) -> None:
    if not rate >= 0:
        raise ArgumentError("bad learning rate", expected="a number ≥ 0, or a schedule of such", got=rate)


# --- optimisers -----------------------------------------------------------------------------------------------------


class Optimizer:
    """Base: learning rate, step count, clipping, weight decay. Subclasses say what happens to one variable in `step`.

    learning_rate: a number or a schedule. The variable `optimizer/learning_rate` in the state holds the number (or a
    factor for the schedule, 1 at first), so that callbacks can change it between steps. weight_decay: decoupled, each
    variable shrinks by rate·decay before its step. global_clipnorm: the largest common norm of all gradients.
    """

    learning_rate: float | Schedule
    weight_decay: float | None
    global_clipnorm: float | None

    def __post_init__(self) -> None:
        if not callable(self.learning_rate):
            _check_rate(self.learning_rate)
        if self.global_clipnorm is not None and not self.global_clipnorm > 0:
            raise ArgumentError("bad global_clipnorm", expected="a number > 0", got=self.global_clipnorm)
        for name in ("momentum", "beta_1", "beta_2", "rho"):
            if not 0 <= getattr(self, name, 0.0) <= 1:
                raise ArgumentError(f"bad {name}", expected=f"0 ≤ {name} ≤ 1", got=getattr(self, name))

    def updates(self, pairs: Pairs) -> dict[Node, Node]:
        """Return all updates of one step: variables, slots, step count.

        >>> w = variable((3,), name="w")
        >>> [v.label for v in SGD(0.1, momentum=0.9).updates([(w, w * 2.0)])]
        ['optimizer/iterations', 'optimizer/learning_rate', 'optimizer/w/momentum', 'w']
        """
        iterations = variable((), name=ITERATIONS, init=0, dtype="int64", trainable=False)
        scheduled = callable(self.learning_rate)
        rate = variable((), name=LEARNING_RATE, init=1.0 if scheduled else self.learning_rate, trainable=False)
        # The rate is listed as an update of itself, so that it is part of every training state.
        result = {iterations: iterations + Node(Constant.of(1, "int64")), rate: rate}
        count = ops.cast(iterations, "float32")
        current = self.learning_rate(count) * rate if callable(self.learning_rate) else rate
        for target, gradient in self._clipped(pairs):
            kind = target.dtype
            if self.weight_decay:
                decayed = target * (1.0 - ops.cast(current, kind) * self.weight_decay)
            else:
                decayed = target
            slots, value = self.step(target, decayed, gradient, ops.cast(current, kind), ops.cast(count, kind))
            result.update(slots)
            result[target] = value
        return result

    def step(self, target: Node, value: Node, gradient: Node, rate: Node, count: Node) -> tuple[dict[Node, Node], Node]:
        """Return (slot updates, new value) for one variable; `count` is the number of steps before this one."""
        raise NotImplementedError

    def slot(self, target: Node, name: str) -> Node:
        """Return the slot variable of a target, which starts at 0."""
        return variable(
            target.shape, name=f"optimizer/{target.label}/{name}", init=0.0, dtype=target.dtype, trainable=False
        )

    def _clipped(self, pairs: Pairs) -> Pairs:
        """Scale all gradients down together where their common norm is too large (Pascanu et al. 2013)."""
        if self.global_clipnorm is None or not pairs:
            return pairs
        squares = [ops.cast(ops.sum(g * g), "float32") for _, g in pairs]
        total = squares[0]
        for square in squares[1:]:
            total = total + square
        factor = self.global_clipnorm / ops.maximum(ops.sqrt(total), self.global_clipnorm)
        return [(v, g * ops.cast(factor, g.dtype)) for v, g in pairs]


@configuration("sgd")
@dataclass(frozen=True)
class SGD(Optimizer):
    """Gradient descent with momentum: m ← μ·m − rate·g, w ← w + m; Nesterov's form looks ahead (Sutskever et al. 2013).

    >>> SGD(0.1, momentum=0.9, nesterov=True).momentum
    0.9
    """

    learning_rate: float | Schedule = 0.01
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float | None = None
    global_clipnorm: float | None = None

    def step(self, target: Node, value: Node, gradient: Node, rate: Node, count: Node) -> tuple[dict[Node, Node], Node]:
        """One step for one variable."""
        move = rate * gradient
        if not self.momentum:
            return {}, value - move
        slot = self.slot(target, "momentum")
        velocity = slot * self.momentum - move
        return {slot: velocity}, value + (velocity * self.momentum - move if self.nesterov else velocity)


@configuration("adam")
@dataclass(frozen=True)
class Adam(Optimizer):
    """Adaptive moments (Kingma & Ba 2015): w ← w − rate·√(1−β₂ᵗ)/(1−β₁ᵗ) · m/(√v + ε).

    >>> Adam(1e-3).beta_2
    0.999
    """

    learning_rate: float | Schedule = 0.001
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7
    weight_decay: float | None = None
    global_clipnorm: float | None = None

    def step(self, target: Node, value: Node, gradient: Node, rate: Node, count: Node) -> tuple[dict[Node, Node], Node]:
        """One step for one variable."""
        m, v = self.slot(target, "m"), self.slot(target, "v")
        first = m * self.beta_1 + gradient * (1.0 - self.beta_1)
        second = v * self.beta_2 + gradient * gradient * (1.0 - self.beta_2)
        t = count + 1.0
        correction = ops.sqrt(1.0 - ops.pow(as_node(self.beta_2, t), t)) / (1.0 - ops.pow(as_node(self.beta_1, t), t))
        move = first * (rate * correction) / (ops.sqrt(second) + self.epsilon)
        return {m: first, v: second}, value - move


@configuration("adamw")
@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019): w ← w·(1 − rate·decay) before Adam's move.

    >>> AdamW().weight_decay
    0.004
    """

    weight_decay: float | None = 0.004


@configuration("rmsprop")
@dataclass(frozen=True)
class RMSprop(Optimizer):
    """Gradients divided by a moving root mean square (Tieleman & Hinton 2012), with optional momentum and centring.

    >>> RMSprop(1e-3).rho
    0.9
    """

    learning_rate: float | Schedule = 0.001
    rho: float = 0.9
    momentum: float = 0.0
    epsilon: float = 1e-7
    centered: bool = False
    weight_decay: float | None = None
    global_clipnorm: float | None = None

    def step(self, target: Node, value: Node, gradient: Node, rate: Node, count: Node) -> tuple[dict[Node, Node], Node]:
        """One step for one variable."""
        square = self.slot(target, "square")
        mean_square = square * self.rho + gradient * gradient * (1.0 - self.rho)
        slots, spread = {square: mean_square}, mean_square
        if self.centered:
            average = self.slot(target, "average")
            mean = average * self.rho + gradient * (1.0 - self.rho)
            slots[average] = mean
            spread = mean_square - mean * mean
        move = rate * gradient / ops.sqrt(spread + self.epsilon)
        if not self.momentum:
            return slots, value - move
        slot = self.slot(target, "momentum")
        slots[slot] = slot * self.momentum + move
        return slots, value - slots[slot]


NAMED: dict[str, Callable[[], Optimizer]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW, "rmsprop": RMSprop}


def get(optimizer: str | Optimizer) -> Optimizer:
    """Return an optimiser by name with its defaults, or the object itself.

    >>> get("adam").learning_rate
    0.001
    """
    if isinstance(optimizer, Optimizer):
        return optimizer
    if not isinstance(optimizer, str) or optimizer not in NAMED:
        raise ArgumentError(
            f"no optimiser is called {optimizer!r}",
            expected=", ".join(NAMED),
            hint=did_you_mean(str(optimizer), list(NAMED)),
        )
    return NAMED[optimizer]()
