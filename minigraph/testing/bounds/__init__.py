"""How far apart correct implementations of a graph can be: a hard bound on rounding errors, derived, never guessed.

Running error analysis (Wilkinson 1963; Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., ch. 3). Every
value of a graph is known as a pair, value and error, with

    |exact − value| ≤ error   and   |computed − exact| ≤ error,   element by element,

where `exact` is what real numbers would give and `computed` is what *any* correct implementation gives that works in
the node's dtype: every operation is the exact one times (1 + δ), |δ| ≤ u, plus an underflow of at most the smallest
subnormal number; sums are taken in any order. u, half the distance from 1 to the next number, is 2⁻¹¹, 2⁻⁸, 2⁻²⁴ and
2⁻⁵³ for float16, bfloat16, float32 and float64. Half precision is that of what is stored: an op computes in float32,
and rounds its result once. A rule adds up two things, both over all numbers that operands can be, exact or
computed, which lie within 2·error of their values:

* what the operands' errors become: |x|·Ey + |y|·Ex for a product, the same convolution on absolute values for a
  convolution, the largest slope times the error (mean value theorem) for a function of one number;
* what rounding adds: γₙ = n·u/(1 − n·u) times the same expression on absolute values for n roundings.

How many roundings an op may have is part of its rule: 1 for + − · / √ and for sums of n terms n; 8, that is 4 units in
the last place, for an elementary function; more where kernels take several steps, as each rule says. Where the bound
is infinite nothing is promised: an interval that leaves the domain, a possible overflow, a value that is not finite.
Booleans and integers that a rounding error could change carry the distance to the other outcomes as their error.

Read `bounded`, `analysis`, then the rules: `arithmetic`, `choice`, `functions`, `products`, `reduction`, `norm`,
`pool`, `movement`; `floors` knows what can never be negative.
"""

from minigraph.testing.bounds import (  # noqa: F401
    arithmetic,
    choice,
    functions,
    movement,
    norm,
    pool,
    products,
    reduction,
)
from minigraph.testing.bounds.analysis import analyse
from minigraph.testing.bounds.bounded import EXPANSIONS, RULES, Bounded, Call, Unit, bound, expansion

__all__ = ["EXPANSIONS", "RULES", "Bounded", "Call", "Unit", "analyse", "bound", "expansion"]
