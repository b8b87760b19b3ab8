"""Write what was measured on a GPU into docs/performance-gpu.md: `python tests/benchmarks/report_gpu.py FOLDER`.

Nothing is measured here, so that it can be done elsewhere. The folder holds what the commands of that page left:
`*.json` of `minigraph bench --gpu --json`, `info*.txt`, `tests*.txt`, `profile*.txt`. Each table stands between the
comments `<!-- begin NAME -->` and `<!-- end NAME -->`; where there is no file for it, it stays as it is.
"""

from __future__ import annotations

import argparse
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from report import ROOT, replace

from minigraph.bench.peers import OURS
from minigraph.bench.turns import Result, floor_of, from_json
from minigraph.bench.workloads import GPU_WORKLOADS, Workload, find

PAGE = ROOT / "docs/performance-gpu.md"
OWN = f"{OURS}cupy"
# Seconds an image of a training step of ResNet-50, if each op read its operands and wrote its results once, at
# 4.3 TB/s, 790 TFLOP/s in bfloat16 and 395 in TF32.
OP_BY_OP = {"G3-bf16": 23.9e-3 / 256, "G3-tf32": 47.8e-3 / 256}
ROWS = 14  # of a profile


class Goal(NamedTuple):
    """How many times faster than a peer we should be; without one, how much of the op-by-op speed we should have."""

    alias: str
    peer: str | None
    aim: float


GOALS = (
    Goal("G1", "torch-graph", 1.3), Goal("G1", "torch", 5.0), Goal("G2", "torch-graph", 2.0),
    *(Goal(f"G3-{p}", peer, aim) for p in ("bf16", "tf32") for peer, aim in (("torch-compile", 1.0), (None, 0.7))),
    *(Goal(f"G4-{batch}-{p}", "torch-compile", 1.2) for batch in (128, 1) for p in ("bf16", "tf32")),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--page", type=pathlib.Path, default=PAGE)
    options = parser.parse_args()
    texts = [path.read_text(encoding="utf-8") for path in sorted(options.folder.glob("*.json"))]
    if texts:
        runs = [from_json(text) for text in texts]
        replace(options.page, "goals", f"{about(texts)}\n\n{goals_table(runs)}")
        replace(options.page, "speed", "\n\n".join(peers_table(w, r) for w in GPU_WORKLOADS for r in of(runs, w)))
    for name, lines in (("info", 100), ("tests", 12), ("profile", ROWS)):
        found = [quoted(path, lines) for path in sorted(options.folder.glob(f"{name}*.txt"))]
        if found:
            replace(options.page, name, "\n\n".join(found))


def about(texts: Sequence[str]) -> str:
    """Return on which device, and when, each file was made."""
    return " ".join(
        sorted({f"{each['day']}: {each['gpu']}. Floors: {each['limits']}." for each in map(json.loads, texts)})
    )


def of(runs: Sequence[Mapping[str, list[Result]]], workload: Workload) -> list[list[Result]]:
    """Return the comparisons of a workload: ratios are of the rounds of one."""
    return [run[workload.name] for run in runs if workload.name in run]


def goals_table(runs: Sequence[Mapping[str, list[Result]]]) -> str:
    rows = [f"| {find(g.alias)[0].name} ({g.alias}) | {against(g)} | {reached(g, runs)} | {g.aim:g} |" for g in GOALS]
    return "\n".join(["| workload | | measured | goal |", "|---|---|---:|---:|", *rows])


def against(goal: Goal) -> str:
    return f"speed against {goal.peer}" if goal.peer else "share of the op-by-op speed"


def reached(goal: Goal, runs: Sequence[Mapping[str, list[Result]]]) -> str:
    """Return what was reached, or a dash where it was not measured."""
    (workload,) = find(goal.alias)
    for results in of(runs, workload):
        by_name = {r.peer: r for r in results}
        own, rival = by_name.get(OWN), by_name.get(goal.peer or "")
        if own is not None and goal.peer is None:
            return f"{OP_BY_OP[goal.alias] * workload.batch / own.seconds:.2f}"
        if own is not None and rival is not None:
            return f"{own.speed_against(rival):.2f}"
    return "–"


def peers_table(workload: Workload, results: Sequence[Result]) -> str:
    """Return all peers of one workload as Markdown."""
    floor = floor_of(results)
    reference = next((r.peer for r in results if r.low == r.high == 1.0), OWN)
    lines = [
        f"**{workload.name}** ({workload.alias}), batch {workload.batch}; `minigraph bench --gpu {workload.alias}`",
        "",
        f"| | ms | images/s | speed against {reference} | lowest … highest | of the floor | first, s | memory, MB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for r in results:
        share = f"{floor / r.seconds:.0%}" if floor else ""
        memory = "" if r.memory is None else f"{r.memory / 1e6:.0f}"
        lines.append(
            f"| {r.peer} {r.version} | {r.seconds * 1e3:.3f} | {workload.batch / r.seconds:.0f} | {r.speed:.2f} "
            f"| {r.low:.2f} … {r.high:.2f} | {share} | {r.first:.1f} | {memory} |"
        )
    return "\n".join(lines)


def quoted(path: pathlib.Path, most: int) -> str:
    """Return the last lines of what tests said, or the first of anything else, as a block."""
    lines = path.read_text(encoding="utf-8").rstrip().splitlines()
    kept = lines[-most:] if path.name.startswith("tests") else lines[:most]
    return "\n".join(["```text", *kept, "```"])


if __name__ == "__main__":
    main()
