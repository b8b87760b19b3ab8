"""The order in which passes run: readable lists, a comment a line; and pipelines as text.

`parse("lower(inference),fold_batch_norm,cse,fuse")` gives a pipeline whose text is that again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from minigraph.errors import ArgumentError, did_you_mean
from minigraph.ir.graph import Graph
from minigraph.passes.bind import Bind
from minigraph.passes.channels_first import CHANNELS_FIRST
from minigraph.passes.constants import Evaluator, FoldConstants
from minigraph.passes.cse import CommonSubexpressions, DeadCode
from minigraph.passes.driver import Pass, Pipeline, Rewriting
from minigraph.passes.fold import FOLD_BATCH_NORM
from minigraph.passes.freeze import Freeze
from minigraph.passes.fuse import FUSE, UNFUSE
from minigraph.passes.inline import INLINE
from minigraph.passes.layout import CHANNELS_LAST
from minigraph.passes.lower import Lower
from minigraph.passes.merge import MERGE_AFFINES
from minigraph.passes.numbers import Numbers
from minigraph.passes.pads import MERGE_PADS
from minigraph.passes.precision import MixedPrecision
from minigraph.passes.rematerialise import Rematerialise
from minigraph.passes.simplify import SIMPLIFY


@dataclass(frozen=True)
class Means:
    """What passes are given by whoever has arrays: an evaluator of constants, a state, its numbers, the peak memory."""

    evaluate: Evaluator
    state: Mapping[str, Any] | None = None
    numbers: Numbers | None = None
    peak: Callable[[Graph], int] | None = None


def optimized(means: Means) -> list[Pass]:
    """Return the passes of `mg.optimize`; with a state its numbers are frozen in, at the end."""
    return [
        CommonSubexpressions(),  # equal constants too, so that rules see one node
        SIMPLIFY,  # algebra, which needs sizes and small constants
        FoldConstants(means.evaluate),  # what is left of constants alone
        MERGE_PADS,  # before folding: a batch norm cannot pass a padding, but a convolution's own
        _knowing(MERGE_AFFINES, means),  # chains next to a batch norm become part of it
        _knowing(FOLD_BATCH_NORM, means),  # into the linear op before or behind
        _knowing(MERGE_AFFINES, means),  # what folding only in part has left
        FoldConstants(means.evaluate),  # what the algebra has made of constants
        SIMPLIFY,  # products by 1, sums with 0
        CommonSubexpressions(),  # a batch norm's s is in kernel and bias
        DeadCode(),  # updates that, simplified, change nothing
        FUSE,  # last: rules match single ops
        *frozen(means),
    ]


def frozen(means: Means) -> list[Pass]:
    """Return the passes that put a state's numbers in: all that has to run again for other numbers."""
    if means.state is None:
        return []
    return [
        Freeze(means.state),  # variables become constants
        FoldConstants(means.evaluate),  # the algebra of the folds becomes numbers, in float64, rounded once
    ]


def program(means: Means, memory_limit: int | None = None, join: Sequence[Pass] = (FUSE,)) -> list[Pass]:
    """Return the passes that every program goes through; variables stay, for their values change from call to call.

    `join` are the last ones, which make one op of several: what a backend computes in one go.
    """
    fit: list[Pass] = []
    if memory_limit is not None:
        assert means.peak is not None
        fit = [Rematerialise(memory_limit, means.peak)]
    return [
        CommonSubexpressions(),  # equal constants too, so that rules see one node
        SIMPLIFY,  # algebra, which needs sizes and small constants
        FoldConstants(means.evaluate),  # what is left of constants alone
        MERGE_PADS,  # a padding costs a copy
        SIMPLIFY,  # algebra again: folding has made new constants
        CommonSubexpressions(),  # what the algebra made equal
        DeadCode(),  # updates that, simplified, change nothing
        *fit,  # after CSE, which would merge second copies; before fusion, which makes them cheap
        *join,  # last: rules match single ops
    ]


def legalise() -> list[Pass]:
    """Return the passes that bring any graph into the form that backends have kernels for."""
    return [
        INLINE,  # there are kernels for ops, not for names
        CHANNELS_LAST,  # kernels exist for N,H,W,C only
        CommonSubexpressions(),  # one transpose for each value, not one for each reader
    ]


def _knowing(rewriting: Rewriting, means: Means) -> Rewriting:
    return replace(rewriting, numbers=means.numbers)


# --- pipelines as text ----------------------------------------------------------------------------------------------

# name → the pass, from the means and the arguments between its parentheses
_PASSES: dict[str, Callable[..., Pass]] = {
    "bind": lambda means, **sizes: Bind(tuple(sizes.items())),
    "lower": lambda means, mode, seed=0: Lower(mode, seed),
    "dead_code": lambda means: DeadCode(),
    "cse": lambda means: CommonSubexpressions(),
    "simplify": lambda means: SIMPLIFY,
    "fold_constants": lambda means, limit=FoldConstants.limit: FoldConstants(means.evaluate, limit),
    "merge_pads": lambda means: MERGE_PADS,
    "merge_affines": lambda means: _knowing(MERGE_AFFINES, means),
    "fold_batch_norm": lambda means: _knowing(FOLD_BATCH_NORM, means),
    "freeze": lambda means: Freeze(means.state if means.state is not None else {}),
    "inline": lambda means: INLINE,
    "channels_first": lambda means: CHANNELS_FIRST,
    "channels_last": lambda means: CHANNELS_LAST,
    "mixed_precision": lambda means, dtype: MixedPrecision(dtype),
    "rematerialise": lambda means, limit: Rematerialise(limit, means.peak),
    "fuse": lambda means: FUSE,
    "unfuse": lambda means: UNFUSE,
}
# Lists of passes that have a name of their own.
_LISTS: dict[str, Callable[[Means], list[Pass]]] = {"optimize": optimized, "program": program}
NAMES = (*_PASSES, *_LISTS)
_ITEM = re.compile(r"\s*([A-Za-z_]\w*)\s*(?:\(([^()]*)\))?\s*(?:,|$)")


def parse(text: str, means: Means) -> Pipeline:
    """Return the pipeline that a text like `lower(inference),fold_batch_norm,fuse` describes.

    Raises an ArgumentError for what cannot be read, for names that are no pass, and for arguments a pass does not have.
    """
    passes: list[Pass] = []
    place = 0
    while text[place:].strip():
        found = _ITEM.match(text, place)
        if found is None:
            raise ArgumentError(
                "a pipeline's text cannot be read", expected="pass,pass(argument),…", got=repr(text[place:])
            )
        passes += _passes(found[1], found[2] or "", means)
        place = found.end()
    return Pipeline(tuple(passes))


def _passes(name: str, arguments: str, means: Means) -> list[Pass]:
    if name in _LISTS and not arguments.strip():
        return _LISTS[name](means)
    if name not in _PASSES:
        raise ArgumentError(
            f"no pass is called {name!r}", expected=", ".join(NAMES), got=name, hint=did_you_mean(name, list(NAMES))
        )
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for part in filter(None, (p.strip() for p in arguments.split(","))):
        key, equals, value = part.partition("=")
        if equals:
            named[key.strip()] = _value(value.strip())
        else:
            positional.append(_value(part))
    try:
        return [_PASSES[name](means, *positional, **named)]
    except TypeError as error:
        raise ArgumentError(
            f"pass {name} cannot have these arguments", got=arguments or "none", hint=str(error)
        ) from None


def _value(text: str) -> int | str:
    return int(text) if re.fullmatch(r"\d+", text) else text


def pipeline_text(pipeline: Pipeline) -> str:
    """Return the text of a pipeline, which `parse` reads back."""
    parts: list[str] = []
    for each in pipeline.passes:
        arguments = getattr(each, "arguments", "")
        name = each.name.partition("(")[0]
        parts.append(
            pipeline_text(each) if isinstance(each, Pipeline) else f"{name}({arguments})" if arguments else name
        )
    return ",".join(filter(None, parts))


def rewritings() -> list[Rewriting]:
    """Return all passes that are made of local rules."""
    return [SIMPLIFY, MERGE_PADS, MERGE_AFFINES, FOLD_BATCH_NORM, FUSE, UNFUSE, INLINE, CHANNELS_LAST, CHANNELS_FIRST]
