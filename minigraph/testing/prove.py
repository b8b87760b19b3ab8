"""Proof by numbers: each rewrite of a trace computed on both sides, the difference against a derived error bound."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minigraph.ir.graph import Graph
from minigraph.ir.leaves import Constant, Variable
from minigraph.ir.node import Node
from minigraph.ir.types import Dim
from minigraph.passes.trace import Rewrite, Trace
from minigraph.testing.bounds import analyse
from minigraph.testing.compare import Difference, allowed, compute, difference, surely_finite
from minigraph.testing.networks import KINDS, random_values

# Lowering decides the mode: what stands before it has no value yet.
_CHANGES_MEANING = "lower("
# Constants are computed once, in their own dtype.
_ROUND = ("fold_constants",)
# Float16 ends at 65504: what was surely finite may be infinite.
_NARROWS = ("mixed_precision(float16)",)
_UNTOLD = Difference(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Claim:
    """That two nodes have one value: a rewrite's old and new, or an output before and after a pass.

    `rounds`: one side holds numbers that were rounded to the graph's dtype, so float64 cannot tell more.
    """

    step: str
    rule: str
    what: str
    before: Node
    after: Node
    rewrite: Rewrite | None = None
    rounds: bool = False


@dataclass(frozen=True)
class Evidence:
    """A claim with the worst difference that was found, in float64 and in the graph's own dtypes."""

    claim: Claim
    wide: Difference
    own: Difference

    @property
    def holds(self) -> bool:
        """Whether all differences are within their bounds."""
        return self.wide.holds and self.own.holds


@dataclass
class Proof:
    """What `trace.verify` found: evidence for each rewrite, and for each output of each pass."""

    evidence: list[Evidence] = field(default_factory=list)
    trials: int = 0

    @property
    def holds(self) -> bool:
        """Whether every claim holds."""
        return all(e.holds for e in self.evidence)

    @property
    def failures(self) -> list[Evidence]:
        """The claims that do not hold."""
        return [e for e in self.evidence if not e.holds]

    def details(self) -> str:
        """Return a line for each check: error, bound and ratio in the graph's dtypes, and the ratio in float64."""
        return "\n".join(
            f"{e.claim.step:<18.17}{e.claim.rule:<28.27}{e.own.error:>11.1e}{e.own.bound:>11.1e}{e.own.ratio:>10.1e}"
            f"{e.wide.ratio:>10.1e}  {e.claim.what}"
            for e in self.evidence
        )

    def __str__(self) -> str:
        head = f"{'pass':<18}{'rule':<28}{'checks':>7}{'error':>11}{'bound':>11}{'ratio':>10}{'float64':>10}"
        rows: dict[tuple[str, str], list[Evidence]] = defaultdict(list)
        for each in self.evidence:
            rows[each.claim.step, each.claim.rule].append(each)
        lines = [head]
        for (step, rule), found in rows.items():
            worst = max(found, key=lambda e: e.own.ratio)
            wide = max(e.wide.ratio for e in found)
            lines.append(
                f"{step:<18.17}{rule:<28.27}{len(found):>7}{worst.own.error:>11.1e}{worst.own.bound:>11.1e}"
                f"{worst.own.ratio:>10.1e}{wide:>10.1e}"
            )
        for each in self.failures:
            lines.append(f"FAILS: {each.claim.rule} at {each.claim.what}: {max(each.wide, each.own, key=_ratio)}")
        verdict = "all within their bounds" if self.holds else f"{len(self.failures)} outside their bounds"
        return "\n".join([*lines, f"{len(self.evidence)} checks on {self.trials} sets of numbers: {verdict}"])


def _ratio(found: Difference) -> float:
    return found.ratio


def verify_trace(trace: Trace, trials: int = 3, seed: int = 0, values: Mapping[str, Any] | None = None) -> Proof:
    """Return the proof of a trace: each rewrite, and each pass's outputs and updates, computed before and after.

    The numbers are random at the first trial and adversarial (large, tiny, zero, cancelling, …) at the next ones;
    `values` gives some of them. Each side is within its own running error bound of the exact result, so the two may
    differ by the sum of the bounds, in float64 and in the graph's dtypes; no tolerance is chosen.

    >>> from minigraph.ir.leaves import input
    >>> from minigraph.runtime import optimize
    >>> proof = verify_trace(optimize(Graph({"y": input((2,), name="x") * 1.0 + 0.0}))[1])
    >>> proof.holds
    True
    """
    claims = list(_claims(trace))
    worst: dict[int, Evidence] = {}
    kinds = list(KINDS)
    for trial in range(trials):
        rng = random.Random(f"{seed}/{trial}")
        given, sizes = _numbers(trace, rng, kinds[trial % len(kinds)], values or {})
        for i, evidence in enumerate(_examine(claims, given, sizes)):
            worst[i] = evidence if i not in worst else _worse(worst[i], evidence)
    return Proof(list(worst.values()), trials)


def _worse(first: Evidence, second: Evidence) -> Evidence:
    return Evidence(first.claim, max(first.wide, second.wide, key=_ratio), max(first.own, second.own, key=_ratio))


def _claims(trace: Trace) -> Iterator[Claim]:
    for step in trace.steps:
        if step.name.startswith(_CHANGES_MEANING):
            continue
        for rewrite in step.rewrites:
            what = f"{rewrite.old.op.name} {rewrite.old.origin.scope}".strip()
            yield Claim(step.name, rewrite.rule, what, rewrite.old, rewrite.new, rewrite, step.name in _ROUND)
        yield from _ends(step.name, step.before, step.after)


def _ends(step: str, before: Graph, after: Graph) -> Iterator[Claim]:
    rounds = step in _ROUND
    for name, node in before.outputs.items():
        yield Claim(step, "(outputs)", f"output {name!r}", node, after.outputs[name], rounds=rounds)
    updated = {target.op.label: value for target, value in after.updates.items()}  # type: ignore[attr-defined]
    for target, value in before.updates.items():
        label = target.op.label  # type: ignore[attr-defined]
        # An update that is gone writes the variable's own value back.
        yield Claim(step, "(updates)", f"the update of {label!r}", value, updated.get(label, target), rounds=rounds)


def _numbers(
    trace: Trace, rng: random.Random, kind: str, given: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, int]]:
    """Return values for all inputs and variables, those that were frozen as they were frozen, and sizes for symbols."""
    graph = next(s.before for s in trace.steps if not s.name.startswith(_CHANGES_MEANING))
    sizes = {symbol: rng.choice((2, 3)) for symbol in graph.symbols}
    for step in trace.steps:  # binding in the middle decides
        for first, last in zip(step.before.inputs, step.after.inputs, strict=False):
            for then, now in zip(first.shape, last.shape, strict=True):
                if isinstance(now, int) and isinstance(then, Dim):
                    sizes[then.symbols[0]] = now // then.coefficient
    values = random_values(graph, rng, kind, sizes)
    for rewrite in trace.rewrites:
        if isinstance(rewrite.old.op, Variable) and isinstance(rewrite.new.op, Constant):
            op = rewrite.new.op
            values[rewrite.old.op.label] = np.frombuffer(op.data, op.type.dtype).reshape(rewrite.old.shape)
    return {**values, **given}, sizes


def _examine(claims: Sequence[Claim], values: Mapping[str, Any], sizes: Mapping[str, int]) -> Iterator[Evidence]:
    nodes = [node for claim in claims for node in (claim.before, claim.after)]
    wide = analyse(nodes, values, unit="float64", sizes=sizes)
    own = analyse(nodes, values, sizes=sizes)
    computed = compute(nodes, values, sizes)
    for claim in claims:
        a, b = claim.before, claim.after
        finite = False if claim.step in _NARROWS else surely_finite(own[a])
        yield Evidence(
            claim,
            _UNTOLD if claim.rounds else difference(wide[a].value, wide[b].value, allowed(wide[a], wide[b])),
            difference(computed[a], computed[b], allowed(own[a], own[b]), finite),
        )
