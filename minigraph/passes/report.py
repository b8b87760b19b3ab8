"""The trace as text: totals, a line for each batch norm, a line for each pass, a line for each rule that matched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from minigraph.ir.graph import Graph
from minigraph.ir.node import Node
from minigraph.ops.norm import BatchNorm
from minigraph.ops.region import Region
from minigraph.ops.shape import Cast
from minigraph.passes.precision import WIDE, MixedPrecision
from minigraph.passes.totals import Totals, totals, totals_text
from minigraph.passes.trace import Refusal, Step, Trace


@dataclass(frozen=True)
class BatchNormOutcome:
    """What became of one batch norm: folded into what, or kept and why."""

    node: Node
    folded: bool
    text: str

    def __str__(self) -> str:
        name = self.node.origin.scope or self.node.label
        return f"{name}: {'' if self.folded else 'kept: '}{self.text}"


def report(trace: Trace) -> str:
    """Return the report of a trace; FLOPs and bytes are those of one example where the batch is open."""
    if not trace.steps:
        return "no passes ran"
    parts = [_totals(trace), _batch_norms(trace), _precisions(trace), _passes(trace), _rules(trace)]
    return "\n\n".join("\n".join(part) for part in parts if part)


def count_batch_norms(graph: Graph) -> int:
    """Return how many batch norms a graph computes, those inside fused regions and functions included."""
    inside = sum(isinstance(s.op, BatchNorm) for n in graph.nodes if isinstance(n.op, Region) for s in n.op.body)
    return inside + sum(isinstance(n.op, BatchNorm) for n in graph.nodes)


def trace_totals(trace: Trace) -> tuple[Totals, Totals]:
    """Return what the graph costs before all passes and after them, at one batch size that both can have."""
    graphs = trace.before, trace.after
    symbols = [symbol for graph in graphs for symbol in graph.symbols]
    for size in (1, 2):  # batch norm's statistics need two
        before, after = (totals(graph, trace.measure_peak, dict.fromkeys(symbols, size)) for graph in graphs)
        if before.flops is not None and after.flops is not None:
            break
    return before, after


def _totals(trace: Trace) -> list[str]:
    before, after = trace_totals(trace)
    counts = [count_batch_norms(graph) for graph in (trace.before, trace.after)]
    return [
        f"before: {totals_text(before)} · {counts[0]} batch norms",
        f"after:  {totals_text(after, before)} · {counts[1]} batch norms",
    ]


def batch_norms(trace: Trace) -> Iterator[BatchNormOutcome]:
    """Yield, for each batch norm that there was before the first fold, what became of it."""
    notes = {note.about.id: note.text for rewrite in trace.rewrites for note in rewrite.notes}
    folding = [s for s in trace.steps if s.name in ("merge_affines", "fold_batch_norm")]
    for node in folding[0].before.nodes if folding else ():
        if not isinstance(node.op, BatchNorm):
            continue
        if node.id in notes:
            yield BatchNormOutcome(node, True, notes[node.id])
        else:
            yield BatchNormOutcome(node, False, _why(node, trace))


def _why(node: Node, trace: Trace) -> str:
    """Return why a batch norm was kept: its own refusal first, then that of what reads it."""
    own = [r for (rule, id), r in trace.refusals.items() if id == node.id and rule == "batch_norm_of_linear"]
    behind = [
        refusal
        for (rule, _), refusal in trace.refusals.items()
        if rule.startswith("linear_of") and any(n.id == node.id for n in refusal.nodes)
    ]
    reasons = [_reason(refusal) for refusal in (*own, *behind)]
    return "; ".join(dict.fromkeys(reasons)) or "no rule matched it"


def _reason(refusal: Refusal) -> str:
    places = [n.origin.where.rpartition("/")[2] for n in refusal.nodes if n.origin.where]
    return f"{refusal.reason} ({places[0]})" if places else refusal.reason


def _batch_norms(trace: Trace) -> list[str]:
    return [str(outcome) for outcome in batch_norms(trace)]


def _precisions(trace: Trace) -> list[str]:
    """Return what each run of mixed precision did: the ops in half, the casts, and why others stayed in float32."""
    lines: list[str] = []
    for step in trace.steps:
        if not isinstance(step.run, MixedPrecision):
            continue
        half = step.run.dtype
        made: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
        for rewrite in step.rewrites:
            made[rewrite.rule == "store_in_half"][rewrite.old.op.name] += rewrite.rule != "cast_once"
        casts = Counter(n.op.dtype for n in step.after.nodes if isinstance(n.op, Cast))
        lines.append(f"{half}: {_counted(made[False])}; casts to {half}: {casts[half]}, to {WIDE}: {casts[WIDE]}")
        lines += [f"{WIDE}, stored in {half}: {_counted(made[True])}"] * bool(made[True])
        lines += _kept_wide(trace, step)
    return lines


def _kept_wide(trace: Trace, step: Step) -> list[str]:
    """Return a line for each reason why ops that read half values are computed in float32."""
    present = {node.id for node in step.before.nodes}
    reasons: dict[str, Counter[str]] = {}
    for (rule, id), refusal in trace.refusals.items():
        if rule == "follow_in_half" and id in present:
            reasons.setdefault(refusal.reason, Counter())[refusal.nodes[0].op.name] += 1
    return [f"{WIDE}: {_counted(ops)}: {reason}" for reason, ops in reasons.items()]


def _counted(ops: Counter[str]) -> str:
    each = (f"{name} ×{number}" if number > 1 else name for name, number in ops.items() if number)
    return ", ".join(each) or "nothing"


def _passes(trace: Trace) -> list[str]:
    lines = [f"{'pass':<22}{'nodes':>14}{'rewrites':>10}{'ms':>9}"]
    for step in trace.steps:
        nodes = f"{len(step.before.nodes)} → {len(step.after.nodes)}"
        lines.append(f"{step.name:<22}{nodes:>14}{len(step.rewrites):>10}{step.seconds * 1e3:>9.1f}")
    return lines


def _rules(trace: Trace) -> list[str]:
    used = {name: s for name, s in sorted(trace.rules.items()) if s.hits}
    lines = [f"{name:<36}{s.tries:>8}{s.hits:>8}{s.seconds * 1e3:>9.1f}" for name, s in used.items()]
    return [f"{'rule':<36}{'tries':>8}{'hits':>8}{'ms':>9}", *lines] if lines else []
