"""Checks that anyone who writes an op or a pass can use.

`gradients`: gradients against differences; `results`: graphs against each other; `bounds`: how far apart correct
implementations of a graph can be; `prove`: whether all rewrites of a trace are within it; `culprit`: the first that is
not.
"""

from minigraph.testing.culprit import Culprit, bisect, shrink
from minigraph.testing.gradients import check_gradients
from minigraph.testing.prove import Proof, verify_trace
from minigraph.testing.results import assert_same_results

__all__ = ["Culprit", "Proof", "assert_same_results", "bisect", "check_gradients", "shrink", "verify_trace"]
