"""Every pass and every rule in words: its equation, its conditions, and an example, rewritten as it is printed."""

from __future__ import annotations

import importlib
import inspect
import textwrap

from minigraph.ir.graph import Graph
from minigraph.ir.parser import parse
from minigraph.passes import pipelines
from minigraph.passes.bind import Bind
from minigraph.passes.constants import FoldConstants
from minigraph.passes.cse import CommonSubexpressions, DeadCode
from minigraph.passes.driver import Rewriting, Rule
from minigraph.passes.freeze import Freeze
from minigraph.passes.lower import lower
from minigraph.passes.precision import MixedPrecision
from minigraph.passes.rematerialise import Rematerialise
from minigraph.passes.trace import Trace

# What is not made of local rules: whose docstring says what it does, and the names that traces record it under.
WHOLE: dict[str, tuple[object, tuple[str, ...]]] = {
    "bind": (Bind, ()),
    "lower": (lower, ("batch_statistics", "moving_averages", "dropout_mask")),
    "dead_code": (DeadCode, ()),
    "cse": (CommonSubexpressions, ("same_op_same_operands",)),
    "fold_constants": (FoldConstants, ("evaluate_constants",)),
    "freeze": (Freeze, ("freeze_variable",)),
    "mixed_precision": (MixedPrecision, ("multiply_in_half", "follow_in_half", "store_in_half", "cast_once")),
    "rematerialise": (Rematerialise, ("compute_again",)),
    "optimize": (pipelines.optimized, ()),
    "program": (pipelines.program, ()),
}


def catalogue() -> str:
    """Return the catalogue as text, in the order of `pipelines.NAMES`; each example is run: what is shown happens."""
    rewritings = {each.name: each for each in pipelines.rewritings()}
    shown: dict[Rule, str] = {}
    parts: list[str] = []
    for name in pipelines.NAMES:
        described = (
            [_whole(name)] if name in WHOLE else [_rule(r, rewritings[name], shown) for r in rewritings[name].rules]
        )
        parts += [f"{name}\n{'=' * len(name)}", *(textwrap.indent(text, "  ") for text in described)]
    return "\n\n".join(parts)


def example(rule: Rule, each: Rewriting) -> tuple[Graph, Trace] | None:
    """Return the example in a rule's docstring, and the trace of its pass with this rule alone; None if it has none."""
    body = [line for line in _document(rule).splitlines() if _of_graph(line)]
    if not body:
        return None
    before = parse("\n".join(["graph {", *body, "}"]))
    # Asked for here, as by a user, since some rules need numbers: passes import nothing above them.
    optimize = importlib.import_module("minigraph.runtime").optimize
    trace: Trace = optimize(before, passes=each.name, include=(rule.__name__,))[1]
    return before, trace


def words(rule: Rule) -> str:
    """Return a rule's docstring without its example: equation, then conditions."""
    return "\n".join(line for line in _document(rule).splitlines() if not _of_graph(line)).strip()


def _whole(name: str) -> str:
    described, recorded = WHOLE[name]
    lines = [_document(described).split("\n\n")[0]]
    return "\n".join(lines + [f"Recorded as {', '.join(recorded)}."] * bool(recorded))


def _rule(rule: Rule, each: Rewriting, shown: dict[Rule, str]) -> str:
    if rule in shown:
        return f"{rule.__name__}: see {shown[rule]}"
    shown[rule] = each.name
    found = example(rule, each)
    graphs = "" if found is None else f"\n\nbefore:\n{found[0]}\nafter:\n{found[1].after}"
    return f"{rule.__name__}\n{textwrap.indent(words(rule) + graphs, '  ')}"


def _document(described: object) -> str:
    return inspect.getdoc(described) or ""


def _of_graph(line: str) -> bool:
    return line.lstrip().startswith(("%", "return "))
