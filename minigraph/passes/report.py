"""The trace as text."""

from __future__ import annotations
from minigraph.passes.trace import Trace


def report(trace: Trace) -> str:
    """x"""
    if not trace.steps:
        return "no passes ran"
    lines = [f"{'pass':<22}{'nodes':>14}{'rewrites':>10}{'ms':>9}"]
    for step in trace.steps:
        nodes = f"{len(step.before.nodes)} → {len(step.after.nodes)}"
        lines.append(f"{step.name:<22}{nodes:>14}{len(step.rewrites):>10}{step.seconds * 1e3:>9.1f}")
    used = {name: s for name, s in sorted(trace.rules.items()) if s.hits}
    if used:
        lines += ["", f"{'rule':<36}{'tries':>8}{'hits':>8}{'ms':>9}"]
        lines += [f"{name:<36}{s.tries:>8}{s.hits:>8}{s.seconds * 1e3:>9.1f}" for name, s in used.items()]
    return "\n".join(lines)
