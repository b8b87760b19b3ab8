"""The order in which passes run: one readable list, a comment a line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minigraph.passes.constants import Evaluator, FoldConstants
from minigraph.passes.cse import CommonSubexpressions, DeadCode
from minigraph.passes.driver import Pass
from minigraph.passes.freeze import Freeze
from minigraph.passes.layout import CHANNELS_LAST
from minigraph.passes.simplify import SIMPLIFY


def standard(evaluate: Evaluator, state: Mapping[str, Any] | None = None) -> list[Pass]:
    """Return the passes that every program goes through; with a state its numbers are frozen in."""
    return [
        *([Freeze(state)] if state is not None else []),  # numbers first: what follows can fold them
        DeadCode(),  # updates that change nothing
        CommonSubexpressions(),  # equal constants too, so that rules see one node
        SIMPLIFY,  # algebra, which needs sizes and small constants
        FoldConstants(evaluate),  # what is left of constants alone
        SIMPLIFY,  # algebra again: folding has made new constants
        CommonSubexpressions(),  # what the algebra made equal
    ]


def legalise() -> list[Pass]:
    """Return the passes that bring any graph into the form that backends have kernels for."""
    return [
        CHANNELS_LAST,  # kernels exist for N,H,W,C only
        CommonSubexpressions(),  # one transpose for each value, not one for each reader
    ]
