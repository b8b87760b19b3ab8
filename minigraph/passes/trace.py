"""The record of what passes did: every single rewrite, with time and statistics for each rule."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from minigraph.ir.graph import Graph
from minigraph.ir.node import Node


@dataclass(frozen=True)
class Rewrite:
    """One replacement: `rule` put `new` in the place of `old`."""

    rule: str
    old: Node
    new: Node


@dataclass
class RuleStatistics:
    """How often a rule was tried, how often it matched, and the seconds it took."""

    tries: int = 0
    hits: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Step:
    """One run of one pass: the graphs before and after, its rewrites, its seconds."""

    name: str
    before: Graph
    after: Graph
    rewrites: tuple[Rewrite, ...]
    seconds: float


@dataclass
class Trace:
    """What a pipeline did to a graph, step by step."""

    steps: list[Step] = field(default_factory=list)
    rules: dict[str, RuleStatistics] = field(default_factory=lambda: defaultdict(RuleStatistics))
    # The rewrites of the pass that is running; the driver moves them into its step.
    pending: list[Rewrite] = field(default_factory=list)

    def report(self) -> str:
        """Return the trace as a table: a line for each pass, then for each rule that matched.

        >>> Trace().report()
        'no passes ran'
        """
        if not self.steps:
            return "no passes ran"
        lines = [f"{'pass':<22}{'nodes':>14}{'rewrites':>10}{'ms':>9}"]
        for step in self.steps:
            nodes = f"{len(step.before.nodes)} → {len(step.after.nodes)}"
            lines.append(f"{step.name:<22}{nodes:>14}{len(step.rewrites):>10}{step.seconds * 1e3:>9.1f}")
        used = {name: s for name, s in sorted(self.rules.items()) if s.hits}
        if used:
            lines += ["", f"{'rule':<36}{'tries':>8}{'hits':>8}{'ms':>9}"]
            lines += [f"{name:<36}{s.tries:>8}{s.hits:>8}{s.seconds * 1e3:>9.1f}" for name, s in used.items()]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.report()
