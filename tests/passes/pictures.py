"""Tests of passes are pictures: graph text in, graph text out, and the numbers must not change."""

from __future__ import annotations

from typing import Any

from ir.random_graphs import values_for

from minigraph.ir import Graph, parse, verify
from minigraph.passes import Rewriting, Trace, run
from minigraph.testing import assert_same_results


def graph(body: str) -> Graph:
    """Return the graph of a text without its braces."""
    return parse("graph {\n" + body + "\n}")


def check(before: str | Graph, after: str | Graph, pass_: Any, *, rtol: float = 1e-6) -> Trace:
    """Run a pass (or one rule) on `before` and compare with `after`: structure, and numbers on random values."""
    old = graph(before) if isinstance(before, str) else before
    expected = graph(after) if isinstance(after, str) else after
    each = Rewriting(pass_.__name__, (pass_,)) if not hasattr(pass_, "name") else pass_
    new, trace = run([each], old)
    assert verify(new).same_as(expected), f"got:\n{new}\n\nexpected:\n{expected}"
    same_numbers(old, new, rtol=rtol)
    return trace


def same_numbers(old: Graph, new: Graph, *, rtol: float = 1e-6) -> None:
    """Compare two graphs on three sets of random values."""
    for seed in range(3):
        assert_same_results(old, new, values_for(old, seed), rtol=rtol, atol=1e-7)


def unchanged(before: str, pass_: Any) -> None:
    """Check that a pass, or one rule, leaves a graph alone."""
    each = Rewriting(pass_.__name__, (pass_,)) if not hasattr(pass_, "name") else pass_
    old = graph(before)
    new, trace = run([each], old)
    assert new.same_as(old), f"changed:\n{old}\n\ninto:\n{new}"
    assert not trace.steps[0].rewrites
