"""Fuzzing of passes: random networks, every pass, and results that must agree within the derived bound.

Each graph is a function of (seed, index), so two numbers reproduce a finding: `fuzz(1, seed, first=index)`.
"""

from __future__ import annotations

import math
import multiprocessing
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any, TypeAlias, TypeVar

import numpy as np

from minigraph.backends.base import get
from minigraph.backends.numpy.threads import available
from minigraph.errors import ArgumentError, MinigraphError
from minigraph.ir import Graph, Node, Origin, bind, inheriting
from minigraph.passes import MODES, CommonSubexpressions, DeadCode, FoldConstants, Pass, Trace, lower, pipelines
from minigraph.passes import run as run_passes
from minigraph.passes.fuse import UNFUSE
from minigraph.passes.group import Group
from minigraph.passes.pipelines import Means
from minigraph.runtime import State, compile, constant_evaluator
from minigraph.runtime.numbers import StateNumbers
from minigraph.testing.bounds import Bounded, analyse
from minigraph.testing.networks import KINDS, grow, random_values, training_graph

T = TypeVar("T")
Passes: TypeAlias = Callable[[Means], Sequence[Pass]]
# Every pass that keeps results as they are, by its name in a pipeline's text.
NAMES = (
    "dead_code", "cse", "simplify", "fold_constants", "merge_pads", "merge_affines", "fold_batch_norm", "channels_last",
    "fuse", "unfuse",
)  # fmt: skip
LISTS = ("optimize", "program")  # lists of passes, one of which runs on each graph
# These move no number: results stay equal bit for bit.
EXACT = (CommonSubexpressions, DeadCode)
CHUNK = 10  # graphs that a process is given at a time
SHOWN = 3  # mismatches that a report prints in full


def all_passes(means: Means) -> Sequence[Pass]:
    """Return the passes that are tried, alone and in random orders."""
    return pipelines.parse(",".join(NAMES), means).passes


@dataclass(frozen=True)
class Mismatch:
    """What a pipeline did wrong: it changed a result, raised, left an invalid graph, or is not done after one run."""

    seed: int
    index: int
    what: str
    pipeline: tuple[str, ...]
    kind: str
    graph: str

    def __str__(self) -> str:
        names = " → ".join(self.pipeline)
        return f"graph {self.index} of seed {self.seed}, {names}, {self.kind} values: {self.what}\n{self.graph}"


@dataclass
class FuzzReport:
    """What was tried and found. `worst` is the largest difference between two graphs as a share of its bound."""

    graphs: int = 0
    attempts: int = 0
    rejected: int = 0
    modes: Counter[str] = field(default_factory=Counter)
    runs: Counter[str] = field(default_factory=Counter)
    rewrites: Counter[str] = field(default_factory=Counter)
    compared: int = 0  # elements
    unbounded: int = 0  # elements whose bound is not finite: nothing is said about them
    worst: float = 0.0
    mismatches: list[Mismatch] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def rejected_share(self) -> float:
        """The share of drawn parts that did not fit their network."""
        return self.rejected / max(1, self.attempts)

    def add(self, other: FuzzReport) -> None:
        """Take in the report of other graphs. The seconds are those of the whole run, and not added."""
        for name in ("graphs", "attempts", "rejected", "compared", "unbounded"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("modes", "runs", "rewrites"):
            getattr(self, name).update(getattr(other, name))
        self.worst = max(self.worst, other.worst)
        self.mismatches += other.mismatches

    def __str__(self) -> str:
        modes = ", ".join(f"{count} {mode}" for mode, count in sorted(self.modes.items()))
        lines = [
            f"{'graphs':<36}{self.graphs:>10}  {modes}",
            f"{'rejected parts':<36}{self.rejected_share:>10.1%}  of {self.attempts}",
            f"{'elements compared':<36}{self.compared:>10}  and {self.unbounded} without a finite bound",
            f"{'worst difference':<36}{self.worst:>10.2%}  of its bound",
            f"{'mismatches':<36}{len(self.mismatches):>10}",
            f"{'seconds':<36}{self.seconds:>10.1f}",
        ]
        for title, counts in (
            (f"{'pipeline':<36}{'runs':>10}", self.runs),
            (f"{'rule':<36}{'hits':>10}", self.rewrites),
        ):
            lines += ["", title, *(f"{name:<36}{count:>10}" for name, count in sorted(counts.items()))]
        for mismatch in self.mismatches[:SHOWN]:
            lines += ["", str(mismatch)]
        return "\n".join(lines)


def fuzz(
    graphs: int,
    seed: int = 0,
    *,
    first: int = 0,
    processes: int | None = None,
    passes: Passes = all_passes,
    backend: str = "numpy",
    progress: Callable[[FuzzReport], None] | None = None,
) -> FuzzReport:
    """Try passes on the graphs `first` … `first + graphs − 1` of a seed, and report what they changed.

    passes: makes the passes; a function of a module, where there are several processes (one for each processor by
    default). backend: what computes the last graph. progress: called now and then with the report so far. On each
    graph one pass runs alone, passes run in a random order, and one of the standard lists runs. Graphs must stay valid,
    outputs and updates agree within the sum of both graphs' error bounds (after DCE and CSE bit for bit), the last
    graph's program compute what it should, and a pass alone find nothing to do when it runs again. But for the seconds,
    processes make no difference to the report.

    >>> report = fuzz(1, seed=0)
    >>> report.graphs, report.mismatches
    (1, [])
    """
    if graphs < 0 or first < 0:
        raise ArgumentError("no such graphs", expected="numbers ≥ 0", got=(first, graphs))
    start = time.perf_counter()
    end = first + graphs
    chunks = [range(begin, min(begin + CHUNK, end)) for begin in range(first, end, CHUNK)]
    total = FuzzReport()
    for part in _parts(partial(_try_all, seed, passes, backend), chunks, processes or available()):
        total.add(part)
        total.seconds = time.perf_counter() - start
        if progress is not None:
            progress(total)
    return total


def _parts(work: Callable[[range], FuzzReport], chunks: Sequence[range], processes: int) -> Iterator[FuzzReport]:
    """Yield the report of each chunk, in order; from processes of their own where there are chunks enough."""
    if min(processes, len(chunks)) <= 1:
        yield from map(work, chunks)
        return
    ignore = (signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started the others
    with multiprocessing.get_context("spawn").Pool(min(processes, len(chunks)), signal.signal, ignore) as pool:
        yield from pool.imap(work, chunks)


def _try_all(seed: int, passes: Passes, backend: str, indices: range) -> FuzzReport:
    total = FuzzReport()
    for index in indices:
        total.add(_Case(seed, index, backend).tried(passes))
    return total


Ends: TypeAlias = Mapping[str, Node]  # outputs and updates, by names that tell them apart


class _Case:
    """One graph, the values it is tried on, and what came of it."""

    def __init__(self, seed: int, index: int, backend: str = "numpy") -> None:
        self.seed, self.index, self.backend = seed, index, backend
        self.rng = random.Random(f"{seed}/{index}")
        self.report = FuzzReport(1)
        self.mode = self.rng.choice(MODES)
        # Nodes come from no line of anybody's code, so that findings do not depend on who called.
        lowered = inheriting(Origin, self.lowered)
        self.sizes = {name: self.rng.choice((2, 3)) for name in lowered.symbols}
        # Passes run on open graphs as well as on bound ones.
        self.graph = lowered if self.rng.random() < 0.5 else bind(lowered, **self.sizes)
        self.kind = self.rng.choice(list(KINDS))
        self.values = random_values(self.graph, self.rng, self.kind, self.sizes)

    def lowered(self) -> Graph:
        """Return a random network as it runs in one of the modes."""
        growth = grow(self.rng, dtype=self.rng.choice(("float32", "float64")))
        self.report.attempts, self.report.rejected = growth.attempts, growth.rejected
        self.report.modes[self.mode] += 1
        return training_graph(growth.graph) if self.mode == "training" else lower(growth.graph, self.mode)

    def tried(self, passes: Passes) -> FuzzReport:
        """Run pipelines, compare all results, and return the report."""
        ways = []
        for name, pipeline in self.pipelines(passes):
            self.report.runs[name] += 1
            way = self.guarded(pipeline, partial(self.run, pipeline))
            if way is not None and self.same_ends(pipeline, way):
                ways.append((pipeline, way))
        if ways:
            self.guarded([p for pipeline, _ in ways for p in pipeline], lambda: self.compare(ways))
        return self.report

    def pipelines(self, passes: Passes) -> list[tuple[str, Sequence[Pass]]]:
        """Return what runs on this graph: one pass alone, in turn; a random order; one of the standard lists."""
        state = self.values if self.mode == "inference" else None  # training changes them
        means = Means(constant_evaluator(), state, StateNumbers(state))
        each = passes(means)
        alone = each[self.index % len(each)]
        order = self.rng.choices(each, k=self.rng.randint(2, 4))
        standard = self.rng.choice(LISTS)
        return [
            (alone.name, [alone]), ("random order", order), (standard, pipelines.parse(standard, means).passes),
        ]  # fmt: skip

    def run(self, pipeline: Sequence[Pass]) -> list[Ends]:
        """Run a pipeline, each pass of it verified, and a pass alone twice; return the ends of the graphs on the way.

        Those are the first, the last, and each that constants are folded in: a folded constant is rounded, which only
        the bound of the graph before knows of.
        """
        trace = Trace()
        after = run_passes(pipeline, self.graph, trace, verify_each=True)[0]
        self.report.rewrites.update({rule: s.hits for rule, s in trace.rules.items() if s.hits})
        if len(pipeline) == 1 and str(run_passes(pipeline, after)[0]) != str(after):
            self.mismatch(pipeline, "a second run changes the graph again")
        folded = [step.before for step in trace.steps if isinstance(step.run, FoldConstants) and step.rewrites]
        return [_ends(graph, self.graph) for graph in dict.fromkeys((self.graph, *folded, after))]

    def guarded(self, pipeline: Sequence[Pass], work: Callable[[], T]) -> T | None:
        """Return what `work` does; whatever it raises is a finding."""
        try:
            return inheriting(Origin, work)
        except Exception as error:
            text = error.message(with_place=False) if isinstance(error, MinigraphError) else str(error)
            self.mismatch(pipeline, f"{type(error).__name__}: {text}")
            return None

    def same_ends(self, pipeline: Sequence[Pass], way: Sequence[Ends]) -> bool:
        """Tell whether graphs have the same outputs and updates, of the same types."""
        types = [{name: node.type for name, node in ends.items()} for ends in way]
        changed = [ends for ends, found in zip(way, types, strict=True) if found != types[0]]
        if changed:
            self.mismatch(pipeline, f"outputs and updates are now {', '.join(changed[0])}")
        return not changed

    def compare(self, ways: Sequence[tuple[Sequence[Pass], Sequence[Ends]]]) -> None:
        """Compare the ends of each graph with those of the one before; what graphs share is analysed once."""
        roots = [node for _, way in ways for ends in way for node in ends.values()]
        found = analyse(roots, self.values, sizes=self.sizes)
        for pipeline, way in ways:
            for before, after in pairwise(way):
                for name, node in before.items():
                    self.agree(pipeline, name, found[node], found[after[name]])
            if all(isinstance(p, EXACT) for p in pipeline) and len(way) > 1:
                self.bit_for_bit(pipeline, way[0], way[-1])
        pipeline, way = ways[-1]
        self.guarded(pipeline, lambda: self.computes(pipeline, way[-1], found))

    def agree(self, pipeline: Sequence[Pass], what: str, before: Bounded, after: Bounded) -> None:
        """Compare one value of two graphs: |before − after| ≤ the sum of their errors."""
        self.within(pipeline, what, before.value, after.value, before.error + after.error)

    def computes(self, pipeline: Sequence[Pass], ends: Ends, found: Mapping[Node, Bounded]) -> None:
        """Compare what the program of a graph computes with the analysis: both are at most `error` from exact."""
        for name, value in self.computed(ends, self.backend).items():
            bounded = found[ends[name]]
            self.within(pipeline, f"{name}, computed,", bounded.value, value, 2.0 * bounded.error)

    def within(self, pipeline: Sequence[Pass], what: str, x: Any, y: Any, allowed: Any) -> None:
        """Note how far two arrays are apart, as a share of what is allowed."""
        finite = np.isfinite(allowed)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            apart = np.abs(np.asarray(x, np.float64) - np.asarray(y, np.float64))
            share = np.where(finite & (apart != 0), apart / allowed, 0.0)
        self.report.compared += int(finite.sum())
        self.report.unbounded += int((~finite).sum())
        worst = float(np.max(np.nan_to_num(share, nan=math.inf, posinf=math.inf), initial=0.0))
        self.report.worst = max(self.report.worst, worst)
        if worst > 1.0:
            self.mismatch(pipeline, f"{what} differs by {worst:.3g} times its bound")

    def bit_for_bit(self, pipeline: Sequence[Pass], before: Ends, after: Ends) -> None:
        """Compare all bits of what two graphs compute."""
        expected, got = self.computed(before), self.computed(after)
        for name, value in expected.items():
            if value.tobytes() != got[name].tobytes():
                self.mismatch(pipeline, f"{name} is not equal bit for bit")

    def computed(self, ends: Ends, backend: str = "numpy") -> dict[str, Any]:
        """Return what a backend computes for each end, in the graph's own dtypes, no op but grouped with others."""
        graph, on = Graph(ends, inputs=self.graph.inputs), get(backend)
        if on.generates:
            bound = bind(graph, **{name: self.sizes[name] for name in graph.symbols})
            graph = run_passes([*pipelines.legalise(), UNFUSE, Group(on.computes)], bound)[0]
        state = State({v.label: self.values[v.label] for v in graph.variables})
        return compile(graph, backend=on, optimize=False)(
            state, **{x.label: self.values[x.label] for x in graph.inputs}
        )

    def mismatch(self, pipeline: Sequence[Pass], what: str) -> None:
        """Add a finding."""
        names = tuple(p.name for p in pipeline)
        self.report.mismatches.append(Mismatch(self.seed, self.index, what, names, self.kind, str(self.graph)))


def _ends(graph: Graph, like: Graph) -> Ends:
    """Return outputs and updates; a variable that only `like` updates keeps its value."""
    updates = {target.label: target for target in like.updates}
    updates.update({target.label: value for target, value in graph.updates.items()})
    return {**graph.outputs, **{f"the update of {label}": value for label, value in updates.items()}}
