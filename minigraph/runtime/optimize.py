"""Optimising a graph outside of a program: passes with all they may ask for, freezing, failures to look into."""

from __future__ import annotations

import json
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from minigraph.backends.base import get
from minigraph.backends.dtypes import array_dtype
from minigraph.errors import ArgumentError, DataError
from minigraph.files import write_atomically
from minigraph.ir.graph import Graph, topological
from minigraph.ir.leaves import Constant
from minigraph.ir.node import Node
from minigraph.ir.parser import parse
from minigraph.ir.types import is_float
from minigraph.passes import pipelines
from minigraph.passes.driver import Pass, PassError, Pipeline, Rule, run
from minigraph.passes.driver import why_not as why_not_rule
from minigraph.passes.selection import Selection
from minigraph.passes.trace import Refusal, Requirement, Trace
from minigraph.runtime.interpreter import constant_evaluator
from minigraph.runtime.numbers import StateNumbers
from minigraph.runtime.plan import make_plan
from minigraph.runtime.state import as_array

# What a requirement asks of each element.
_HOLDS: dict[str, Callable[[float], bool]] = {
    "positive": lambda v: v > 0,
    "nonnegative": lambda v: v >= 0,
    "float16": lambda v: abs(v) <= 65504.0,
}


def optimize(
    graph: Graph,
    state: Mapping[str, Any] | None = None,
    passes: str | Iterable[Pass] | None = None,
    *,
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    verify_each: bool = False,
    reproducer: str | pathlib.Path | None = None,
) -> tuple[Graph, Trace]:
    """Return the optimised graph and the trace of what each rewrite did.

    With a state, the variables that the graph does not update become constants, and rules may look at their numbers.
    passes: a pipeline's text, or passes, instead of the standard list. include, exclude: names of passes and rules, or
    `scope:block1` for the nodes of a layer, with `*` and `?`. verify_each: check the graph after every pass; when one
    fails, a reproducer is written (to the file `reproducer`, or to one in the temporary folder) that
    `minigraph passes --reproduce FILE` runs.

    >>> from minigraph.ir import variable
    >>> x = variable((3,), name="x")
    >>> graph, trace = optimize(Graph({"y": x * 1.0 + 0.0}))
    >>> graph.outputs["y"] is x
    True
    """
    means = _means(graph, state)
    chosen = Pipeline(tuple(_passes(passes, means)))
    trace = Trace(Selection(_patterns("include", include), _patterns("exclude", exclude)), peak_memory)
    try:
        return run([chosen], graph, trace, verify_each=verify_each)
    except PassError as error:
        path = _write_reproducer(error, reproducer)
        error.hint = f"reproduce it with: minigraph passes --reproduce {path}"
        error.args = (error.message(),)
        raise


def _means(graph: Graph, state: Mapping[str, Any] | None) -> pipelines.Means:
    """Return what passes are given; numbers are in the dtypes of the graph's variables."""
    if state is not None and not isinstance(state, Mapping):
        raise ArgumentError("not a state", expected="a mapping: name → array", got=type(state).__name__)
    if state is not None:
        typed = {v.label: _typed(v, state[v.label]) for v in graph.variables if v.label in state}
        state = {**state, **typed}
    return pipelines.Means(constant_evaluator(), state, StateNumbers(state), peak_memory)


def _typed(variable: Node, value: Any) -> Any:
    return as_array(f"the value of {variable.label!r}", value, variable.dtype).astype(
        array_dtype(variable.dtype), copy=False
    )


def _patterns(what: str, names: Iterable[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        raise ArgumentError(f"{what} takes several names", expected=f"{what}=[{names!r}]", got=repr(names))
    return tuple(names)


def _passes(passes: str | Iterable[Pass] | None, means: pipelines.Means) -> list[Pass]:
    if passes is None:
        return pipelines.optimized(means)
    if isinstance(passes, str):
        return list(pipelines.parse(passes, means).passes)
    chosen = list(passes) if isinstance(passes, Iterable) else [passes]
    strange = [p for p in chosen if not (callable(p) and hasattr(p, "name"))]
    if strange:
        raise ArgumentError("not a pass", expected='passes, or a text like "cse,fuse"', got=repr(strange[0]))
    return chosen


def peak_memory(graph: Graph) -> int:
    """Return the bytes that the plan of a bound graph takes on the NumPy backend, beside variables and constants."""
    legal = run(pipelines.legalise(), graph)[0]
    return make_plan(legal, get("numpy").needs).peak


# --- freezing -------------------------------------------------------------------------------------------------------


def freeze(graph: Graph, state: Mapping[str, Any]) -> Graph:
    """Return a graph with the numbers of a state in it: variables that are only read become constants.

    The algebra of folds becomes numbers here, in float64, rounded once. Raises a DataError if one is not finite.

    >>> from minigraph.ir import variable
    >>> w = variable((), name="w")
    >>> freeze(Graph({"y": w * w}), {"w": 3.0}).outputs["y"].op.values()
    [9.0]
    """
    frozen = run(pipelines.frozen(_means(graph, state)), graph)[0]
    _check_finite(graph, frozen)
    return frozen


def _check_finite(graph: Graph, frozen: Graph) -> None:
    """Raise where finite constants were evaluated to something that is not finite; a mask may hold −∞ all along."""
    given = set(graph.nodes)
    for node in frozen.nodes:
        expression = node.origin.replaced
        if node in given or expression is None or not (bad := _not_finite(node)):
            continue
        if any(map(_not_finite, topological([expression]))):
            continue
        raise DataError(
            f"freezing gives a parameter of {node.origin.scope or node.label} that is not finite",
            expected="finite numbers; a batch norm's variance ≥ 0",
            got=f"{bad} of {node.tensor_type.size} elements",
            where=node.origin.where,
            hint="mg.optimize(graph, state) leaves such a batch norm alone and says why: trace.report()",
        )


def _not_finite(node: Node) -> int:
    """Return how many elements of a constant are not finite; 0 for what is no constant of floats."""
    import numpy as np

    if not isinstance(node.op, Constant) or not is_float(node.dtype):
        return 0
    return int((~np.isfinite(np.frombuffer(node.op.data, array_dtype(node.dtype)))).sum())


def refreeze(trace: Trace, state: Mapping[str, Any]) -> Graph:
    """Return the graph that a trace ends with, with the numbers of another state: nothing is optimised again.

    Raises a DataError if a rewrite relied on something that does not hold of these numbers: a scale that is positive, a
    variance that is not negative, a kernel that fits into float16.
    """
    steps = [s for s in trace.steps if s.name == "freeze"]
    if not steps:
        raise ArgumentError("the trace has no freezing", expected="the trace of mg.optimize(graph, state)")
    numbers = StateNumbers(state)
    for requirement in trace.requirements:
        _check_requirement(requirement, numbers)
    return freeze(steps[0].before, state)


def _check_requirement(requirement: Requirement, numbers: StateNumbers) -> None:
    values = numbers.elements(requirement.node)
    holds = _HOLDS[requirement.kind]
    bad = [(i, v) for i, v in enumerate(values or ()) if not holds(v)]
    if bad:
        raise DataError(
            f"a fold relied on {requirement.text} being {requirement.kind}",
            got=f"{bad[0][1]:g} in channel {bad[0][0]}",
            where=requirement.node.origin.where,
            hint="optimise the graph again with these numbers",
        )


# --- questions ------------------------------------------------------------------------------------------------------


def why_not(
    rule: str | Rule, node: Node, graph: Graph | None = None, state: Mapping[str, Any] | None = None
) -> Refusal | None:
    """Return why a rule does not rewrite a node of a graph: the first condition that failed; None if it would.

    rule: a rule, or the name of a rule or of a pass, all of whose rules are asked. Without a graph the node is looked
    at as if nothing but a graph's output read it.

    >>> from minigraph.ir.leaves import input, variable
    >>> from minigraph.ops import batch_norm
    >>> v = variable((3,), name="v")
    >>> why_not("fold_batch_norm", batch_norm(input((2, 3), name="x"), v, v, v, v)).reason
    'nothing linear comes before it: it normalises an input'
    """
    rules = [rule] if callable(rule) else _rules_called(rule)
    answers = [why_not_rule(each, node, graph, StateNumbers(state)) for each in rules]
    if any(answer is None for answer in answers):
        return None
    meant = [a for a, r in zip(answers, rules, strict=True) if a is not None and isinstance(node.op, _ops_of(r))]
    return next((a for a in meant if "does not match here" not in a.reason), (meant or answers)[0])


def _ops_of(rule: Rule) -> tuple[type, ...]:
    return getattr(rule, "ops", (object,))


def _rules_called(name: str) -> list[Rule]:
    passes = [p for p in pipelines.rewritings() if name in (p.name, *(r.__name__ for r in p.rules))]
    if not passes:
        known = [n for p in pipelines.rewritings() for n in (p.name, *(r.__name__ for r in p.rules))]
        raise ArgumentError("no such rule", expected=", ".join(dict.fromkeys(known)), got=name)
    return [r for r in passes[0].rules if name in (passes[0].name, r.__name__)]


# --- reproducers ----------------------------------------------------------------------------------------------------


def _write_reproducer(error: PassError, path: str | pathlib.Path | None) -> pathlib.Path:
    """Write what is needed to see a pass fail again: the graph's text, the pass, and what was said."""
    if path is None:
        path = pathlib.Path(tempfile.mkdtemp(prefix="minigraph-")) / "reproducer.json"
    content = {"graph": str(error.graph), "pipeline": str(Pipeline((error.failed,))), "seed": 0, "error": error.summary}
    return write_atomically(pathlib.Path(path), json.dumps(content, indent=1, ensure_ascii=False).encode())


def reproduce(path: str | pathlib.Path) -> tuple[Graph, Trace]:
    """Run the pass of a reproducer on its graph, checking what comes out; it raises what it raised."""
    content = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not {"graph", "pipeline"} <= content.keys():
        raise ArgumentError("not a reproducer", expected='a file with "graph" and "pipeline"', got=str(path))
    graph = parse(content["graph"])
    return run([pipelines.parse(content["pipeline"], _means(graph, None))], graph, verify_each=True)


__all__ = ["freeze", "optimize", "peak_memory", "refreeze", "reproduce", "why_not"]
