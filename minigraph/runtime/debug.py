"""Looking inside: MINIGRAPH_DEBUG=passes,plan,verify,time prints what happens to programs on standard error."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from minigraph.errors import ArgumentError

if TYPE_CHECKING:
    from minigraph.passes.trace import Trace
    from minigraph.runtime.plan import Plan

VARIABLE = "MINIGRAPH_DEBUG"
# passes: what each pass did; plan: the memory plan; verify: check the graph after every pass, and the plan;
# time: the milliseconds of each call.
WORDS = ("passes", "plan", "verify", "time")


def asked() -> frozenset[str]:
    """Return the words that the environment asks for; an ArgumentError for one that means nothing.

    >>> asked() <= set(WORDS)
    True
    """
    words = frozenset(word.strip() for word in os.environ.get(VARIABLE, "").split(",") if word.strip())
    if not words <= set(WORDS):
        raise ArgumentError(f"bad {VARIABLE}", expected=",".join(WORDS), got=",".join(sorted(words - set(WORDS))))
    return words


def look(trace: Trace, plan: Plan) -> None:
    """Check and print what was asked for, of a program that was just prepared."""
    words = asked()
    if "verify" in words:  # the graphs were checked as they were made
        plan.check()
    if "passes" in words:
        print(trace.report(), file=sys.stderr)
    if "plan" in words:
        print(plan, file=sys.stderr)
