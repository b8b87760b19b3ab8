"""Measure everything and write the tables of docs/performance.md and README.md: `python tests/benchmarks/report.py`.

With names it measures these parts only: speed, first, graphs, floors. Each table stands between the comments
`<!-- begin NAME -->` and `<!-- end NAME -->`. Frameworks that are not installed are not in the tables.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import platform
import re
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from typing import NamedTuple
from unittest.mock import patch

from minigraph.bench import graphs, turns, workloads
from minigraph.bench.peers import OURS, PEERS, usable
from minigraph.bench.turns import Result
from minigraph.bench.workloads import WORKLOADS, Workload, find
from minigraph.runtime import machine
from minigraph.runtime.profile import Profile, label
from minigraph.viz.plots import plot_speeds

ROOT = pathlib.Path(__file__).parents[2]
PAGE, README, CHART = ROOT / "docs/performance.md", ROOT / "README.md", ROOT / "docs/pictures/performance.svg"
BACKENDS = ("numpy", "c")
ROWS = 8  # of a profile


class Goal(NamedTuple):
    """How many times faster than the fastest of these peers each of our backends should be on a workload."""

    alias: str
    peers: tuple[str, ...]
    numpy: float
    c: float


TORCH = ("torch", "torch-channels-last", "torch-compile")
GOALS = (
    Goal("W1", ("torch",), 1.15, 5.0),
    Goal("W1", TORCH[1:], 0.9, 3.5),
    Goal("W2", ("torch",), 1.7, 4.0),
    Goal("W2", ("jax",), 1.0, 2.5),
    Goal("W3-r18-1", ("onnxruntime",), 0.6, 1.4),
    Goal("W3-r18-8", ("onnxruntime",), 0.75, 1.7),
    Goal("W3-r50-1", ("onnxruntime",), 0.6, 1.15),
    Goal("W3-r50-8", ("onnxruntime",), 0.7, 1.2),
    Goal("W4", ("torch", "torch-compile"), 1.05, 2.3),
    Goal("W4", ("jax",), 1.9, 4.0),
)
# The most memory of a W4 step, as a share of another's.
MEMORY = (("torch", 0.6, 0.5), ("jax", 0.5, 0.42))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"{', '.join(PARTS)} (all)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="length of a turn")
    options = parser.parse_args()
    for part in options.parts or PARTS:
        PARTS[part](options)


# --- speed ------------------------------------------------------------------------------------------------------------


def speed(options: argparse.Namespace) -> None:
    found: dict[str, list[Result]] = {}
    for workload in WORKLOADS:
        peers = [*(name for name in PEERS if usable(name, workload)), *(OURS + name for name in BACKENDS)]
        found[workload.alias] = turns.compare(
            workload, peers, peers[0], options.threads, options.rounds, options.seconds
        )
        print(turns.table(workload, found[workload.alias], peers[0]), "\n")
    goals = goals_table(found)
    replace(PAGE, "goals", f"{about(options)}\n\n{goals}")
    replace(PAGE, "speed", "\n\n".join(peers_table(find(alias)[0], results) for alias, results in found.items()))
    replace(PAGE, "memory", memory_table(found["W4"]))
    replace(README, "speed", f"{about(options)}\n\n{short_table(found)}")
    plot_speeds({find(a)[0].name: {r.peer: (r.speed, r.low, r.high) for r in rs} for a, rs in found.items()}, CHART)


def about(options: argparse.Namespace) -> str:
    packages = sorted({peer.package for peer in PEERS.values() if find_spec(peer.package) is not None})
    said = [f"{package} {version(package)}" for package in packages]
    return f"{machine.cpu()}, {options.threads} threads, {platform.system()}; {', '.join(said)}."


def goals_table(found: dict[str, list[Result]]) -> str:
    rows = []
    for goal in GOALS:
        by_name = {r.peer: r for r in found[goal.alias]}
        rivals = [by_name[name] for name in goal.peers if name in by_name]
        cells = [f"{against(by_name, name, rivals)} | {aim:g}" for name, aim in zip(BACKENDS, goal[2:], strict=True)]
        rows.append(
            f"| {find(goal.alias)[0].name} | {' / '.join(r.peer for r in rivals) or '–'} | {' | '.join(cells)} |"
        )
    return "\n".join(["| workload | against | numpy | goal | c | goal |", "|---|---|---:|---:|---:|---:|", *rows])


def against(by_name: dict[str, Result], backend: str, rivals: Sequence[Result]) -> str:
    """Return how many times faster a backend is than the fastest rival."""
    own = by_name.get(OURS + backend)
    return f"{min(own.speed_against(rival) for rival in rivals):.2f}" if own and rivals else "–"


def short_table(found: dict[str, list[Result]]) -> str:
    rows = []
    for alias, results in found.items():
        by_name = {r.peer: r for r in results}
        rivals = [r for r in results if not r.peer.startswith(OURS)]
        cells = [against(by_name, backend, rivals) for backend in BACKENDS]
        fastest = min(rivals, key=lambda r: r.seconds).peer if rivals else "–"
        rows.append(f"| {find(alias)[0].name} | {fastest} | {' | '.join(cells)} |")
    return "\n".join(["| workload | fastest other | numpy | c |", "|---|---|---:|---:|", *rows])


def peers_table(workload: Workload, results: Sequence[Result]) -> str:
    """Return all peers of one workload as Markdown."""
    reference = next(r.peer for r in results if r.low == r.high == 1.0)
    lines = [
        f"**{workload.name}** ({workload.alias}), batch {workload.batch}; `minigraph bench {workload.name}`",
        "",
        f"| | ms | speed against {reference} | lowest … highest | first step, ms | memory, MB |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for r in results:
        memory = "" if r.memory is None else f"{r.memory / 1e6:.0f}"
        lines.append(
            f"| {r.peer} | {r.seconds * 1e3:.2f} | {r.speed:.2f} | {r.low:.2f} … {r.high:.2f} | {r.first * 1e3:.0f} "
            f"| {memory} |"
        )
    return "\n".join(lines)


def memory_table(results: Sequence[Result]) -> str:
    taken = {r.peer: r.memory for r in results}
    lines = ["| cifar-train, memory of | numpy | goal | c | goal |", "|---|---:|---:|---:|---:|"]
    for rival, *goals in MEMORY:
        theirs = taken.get(rival)
        own = [taken.get(OURS + name) for name in BACKENDS]
        shares = [f"{ours / theirs:.2f}" if ours and theirs else "–" for ours in own]
        cells = [f"{share} | {goal:g}" for share, goal in zip(shares, goals, strict=True)]
        lines.append(f"| a share of {rival}'s | {' | '.join(cells)} |")
    return "\n".join(lines)


# --- the first step ---------------------------------------------------------------------------------------------------


def first(options: argparse.Namespace) -> None:
    """The first step of W1 with an empty cache of compiled programs, and with what that left there."""
    lines = ["| mnist-train, first step | seconds | goal |", "|---|---:|---:|"]
    (workload,) = find("W1")
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, XDG_CACHE_HOME=folder):
        for name, goal in (("numpy", 0.1), ("c, compiled now", 1.5), ("c, from the cache", 0.1)):
            process = turns.Process(workload, OURS + name.partition(",")[0], options.threads)
            process.close()
            lines.append(f"| {name} | {process.ready['first']:.2f} | {goal:g} |")
    replace(PAGE, "first", "\n".join(lines))


# --- graphs -----------------------------------------------------------------------------------------------------------


def compiler(options: argparse.Namespace) -> None:
    works = [graphs.measure(kind, size) for kind in graphs.KINDS for size in graphs.SIZES]
    print(graphs.table(works))
    names = [f"{stage}, {'B' if stage == 'memory' else 'µs'}" for stage in graphs.BARS]
    lines = [f"| graph | nodes | {' | '.join(names)} |", "|---|---:" + "|---:" * len(names) + "|"]
    for kind in graphs.KINDS:
        rows = [w for w in works if w.kind == kind]
        lines += [row(kind, f"{w.nodes:,}", [f"{w.costs[stage]:.1f}" for stage in graphs.BARS]) for w in rows]
        lines.append(row(f"{kind}, growth", "", [f"{graphs.exponent(rows, stage):.2f}" for stage in graphs.BARS]))
    lines.append(row("goal", "", [f"≤ {bar:g}" for bar in graphs.BARS.values()]))
    replace(PAGE, "graphs", "\n".join(lines))


def row(name: str, nodes: str, cells: Sequence[str]) -> str:
    return f"| {name} | {nodes} | {' | '.join(cells)} |"


# --- floors -----------------------------------------------------------------------------------------------------------


def floors(options: argparse.Namespace) -> None:
    limits = machine.measure(options.threads)
    parts = [f"{limits.cpu}, {limits}."]
    for workload in WORKLOADS:
        for backend in BACKENDS:
            profile = workloads.profile(workload, workloads.backend_on(backend, options.threads), options.rounds)
            parts.append(floor_table(workload, backend, profile))
    replace(PAGE, "floors", "\n\n".join(parts))


def floor_table(workload: Workload, backend: str, profile: Profile) -> str:
    """Return the steps that take longest as Markdown."""
    lines = [
        f"**{workload.name}** on {backend}: `minigraph bench {workload.name} --profile --backends {backend}`",
        "",
        "| step | µs | floor, µs | × |",
        "|---|---:|---:|---:|",
    ]
    longest = sorted(profile.timings, key=lambda t: -t.seconds)
    for t in longest[:ROWS]:
        lines.append(_floor_row(f"`{label(t.node)} {t.node.type}`", t.seconds, t.floor or 0.0))
    rest = longest[ROWS:]
    lines.append(_floor_row(f"{len(rest)} more", sum(t.seconds for t in rest), sum(t.floor or 0.0 for t in rest)))
    lines.append(_floor_row("all", profile.seconds, profile.floor or 0.0))
    return "\n".join(lines)


def _floor_row(name: str, seconds: float, floor: float) -> str:
    return f"| {name} | {seconds * 1e6:.0f} | {floor * 1e6:.0f} | {seconds / floor if floor else float('nan'):.1f} |"


# --- pages ------------------------------------------------------------------------------------------------------------


def replace(page: pathlib.Path, name: str, content: str) -> None:
    """Write what stands between a page's two comments of this name."""
    text = page.read_text(encoding="utf-8")
    pattern = re.compile(rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
    new, number = pattern.subn(lambda found: f"{found[1]}{content}\n{found[2]}", text)
    if number != 1:
        raise SystemExit(f"{page} has {number} places for {name}")
    page.write_text(new, encoding="utf-8")


PARTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "speed": speed, "first": first, "graphs": compiler, "floors": floors,
}  # fmt: skip

if __name__ == "__main__":
    main()
