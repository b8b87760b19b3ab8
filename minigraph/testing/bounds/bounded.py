"""What the analysis knows of a value, the numbers of a dtype, and the table of rules: op class → error bound."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, TypeAlias

import numpy as np

from minigraph.backends.dtypes import array_dtype
from minigraph.ir.node import Node
from minigraph.ir.op import Op
from minigraph.ir.types import HALF, is_float

Array: TypeAlias = "np.ndarray[Any, Any]"

# The bounds are computed in float64 themselves: sums of 2²⁰ non-negative terms lose at most 2⁻³³ of themselves.
SLACK = 1.0 + 2.0**-30
# No magnitude but 0 is below this, so that products of magnitudes do not underflow to 0, which would mean "exact".
FAINT = 1e-150


@dataclass(frozen=True)
class Unit:
    """A dtype's numbers: unit roundoff, smallest subnormal, largest finite. For integers the roundoff is 0.

    >>> Unit.of("float32").roundoff == 2.0**-24
    True
    """

    dtype: str
    roundoff: float
    subnormal: float
    largest: float

    @staticmethod
    @cache
    def of(dtype: str) -> Unit:
        """Return the unit of a dtype."""
        if dtype == "bool":
            return Unit(dtype, 0.0, 0.0, 1.0)
        if not is_float(dtype):
            return Unit(dtype, 0.0, 0.0, float(np.iinfo(dtype).max))
        if dtype == "bfloat16":  # the exponents of float32, and 8 bits
            return Unit(dtype, 2.0**-8, 2.0**-133, (2.0 - 2.0**-7) * 2.0**127)
        info = np.finfo(dtype)
        return Unit(dtype, float(info.eps) / 2, float(info.smallest_subnormal), float(info.max))

    def gamma(self, roundings: float) -> float:
        """Return γₙ = n·u/(1 − n·u): what n roundings make at most of a relative error (Higham 2002, lemma 3.1)."""
        share = roundings * self.roundoff
        return share / (1.0 - share) if share < 1.0 else math.inf

    def rounding(self, magnitude: Any, roundings: float) -> Any:
        """Return the error of n roundings of results, or partial results, of at most this magnitude.

        In half precision all but the last one are those of float32. Infinite where they may overflow; 0 where the
        magnitude is 0, because that is exact.
        """
        if not self.roundoff:
            return 0.0
        if self.dtype in HALF and roundings > 1:
            inner = Unit.of("float32").rounding(magnitude, roundings)
            return inner + self.rounding(magnitude + inner, 1)
        gamma = self.gamma(roundings)
        error = gamma * magnitude + roundings * self.subnormal * (magnitude > 0)
        return np.where(magnitude * (1.0 + gamma) > self.largest, np.inf, error)

    def stored(self, number: float) -> float:
        """Return how far an op's attribute is from the nearest number of the dtype: kernels round it first."""
        if not self.roundoff or not math.isfinite(number):
            return 0.0
        return abs(float(array_dtype(self.dtype).type(number)) - number)


@dataclass(frozen=True, eq=False)
class Bounded:
    """A value and how far it, and whatever a correct implementation computes, may be from the exact one.

    value: float64 for floats of any dtype, else the node's own integers or booleans. error: float64 ≥ 0, same shape.
    floor: what no element can be below, whatever rounding does (an exponential is never negative). For a node with
    several results each is a tuple.
    """

    value: Any
    error: Any
    floor: Any = -math.inf

    @cached_property
    def inexact(self) -> bool:
        """Whether any element has an error at all."""
        return bool(self.error.any())

    @cached_property
    def low(self) -> Array:
        """The least that each element, exact or computed, can be; −∞ for what is not a number."""
        return self._end(-1.0, np.fmax, self.floor)

    @cached_property
    def high(self) -> Array:
        """The most that each element, exact or computed, can be; ∞ for what is not a number."""
        return self._end(1.0, np.fmin, np.inf)

    def _end(self, side: float, limit: np.ufunc, to: float) -> Array:
        if not self.inexact:
            return np.asarray(limit(self.value, to), np.float64)
        end = np.nextafter(self.value + 2.0 * side * self.error, side * np.inf)
        return np.asarray(limit(np.where(self.error > 0, end, self.value), to), np.float64)

    @cached_property
    def reach(self) -> Array:
        """The largest magnitude that each element, exact or computed, can have."""
        size = np.abs(np.asarray(self.value, np.float64)) + 2.0 * self.error
        return kept(size, size > 0)


def kept(size: Any, positive: Any) -> Array:
    """Return a magnitude kept from underflowing to 0, which would mean exact, where it is positive."""
    return np.asarray(np.where(positive, np.maximum(size, FAINT), size))


@dataclass(frozen=True)
class Call:
    """All that a rule gets: the op, its operands as nodes and as bounded values, the result's value and its unit."""

    op: Any
    nodes: tuple[Node, ...]
    operands: tuple[Bounded, ...]
    value: Any
    unit: Unit
    unit_of: Callable[[str], Unit]  # the unit in which values of a dtype are computed
    evaluate: Callable[[Op, Sequence[Array]], Any]

    def apply(self, *arrays: Any, **attributes: Any) -> Any:
        """Return what the op's kernel makes of these arrays, computed in their own dtype."""
        return self.evaluate(replace(self.op, **attributes) if attributes else self.op, arrays)

    def rounding(self, magnitude: Any, roundings: float) -> Any:
        """Return the error of n roundings in the result's dtype."""
        return self.unit.rounding(magnitude, roundings)


Rule: TypeAlias = Callable[[Call], Any]


@dataclass(frozen=True)
class Entry:
    """One op's row: its rule, and whether it only moves elements: then not even NaN or ∞ is a matter of rounding."""

    rule: Rule
    moves: bool = False


# From a node to what stands for it: a node, or one for each of its results.
Expand: TypeAlias = Callable[[Node], Node | list[Node]]


@dataclass(frozen=True)
class Expansion:
    """An op that is analysed by what other nodes make of its operands: how to make them, and for which attributes."""

    expand: Expand
    applies: Callable[[Any], bool]


RULES: dict[type[Op], Entry] = {}
EXPANSIONS: dict[type[Op], Expansion] = {}


def bound(*ops: type[Op], moves: bool = False) -> Callable[[Rule], Rule]:
    """Register the decorated function as the rule of these ops: from a `Call` to the error of each element.

    The result may be a scalar or of any shape that broadcasts to the value's; NaN counts as ∞. An op with several
    results has a tuple of errors.
    """

    def register(rule: Rule) -> Rule:
        for op in ops:
            RULES[op] = Entry(rule, moves)
        return rule

    return register


def expansion(*ops: type[Op], where: Callable[[Any], bool] = lambda op: True) -> Callable[[Expand], Expand]:
    """Register a function that returns the node over the same operands by which a node of these ops is analysed.

    For an op with several results it returns one node for each of them.

    where: for which ops, by their attributes; for others there is a rule.
    """

    def register(expand: Expand) -> Expand:
        for op in ops:
            EXPANSIONS[op] = Expansion(expand, where)
        return expand

    return register
