"""`minigraph bench`: how fast minigraph is beside what else is installed, and what its compiler costs."""

from __future__ import annotations

import argparse
import datetime
import pathlib
import platform

from minigraph.bench import graphs, on_gpu, turns, workloads
from minigraph.bench.peers import OURS, PEERS, check, of, usable
from minigraph.bench.turns import Result
from minigraph.bench.workloads import GPU_WORKLOADS, WORKLOADS, Workload
from minigraph.errors import ArgumentError
from minigraph.files import write_atomically
from minigraph.runtime import accelerator, machine
from minigraph.runtime.accelerator import Accelerator
from minigraph.viz.plots import plot_speeds

GRAPHS = "graphs"


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    bench = commands.add_parser(
        "bench", help="time minigraph beside the frameworks that are installed",
        description=f"Workloads: {workloads.names(WORKLOADS)}. {GRAPHS}: what the compiler costs per node of a graph. "
        f"On a GPU: {workloads.names(GPU_WORKLOADS)}.",
    )  # fmt: skip
    bench.add_argument("workloads", nargs="*", metavar="WORKLOAD", help="names, W1, W3 …, or graphs (all workloads)")
    bench.add_argument("--gpu", action="store_true", help="the workloads for a GPU, on minigraph's backend cupy")
    bench.add_argument("--peers", type=_listed, help=f"{','.join(PEERS)} (all that are installed)")
    bench.add_argument("--backends", type=_listed, help="minigraph's own (numpy,c; on a GPU cupy)")
    bench.add_argument("--reference", help="the peer whose time all others are divided by (the first that is there)")
    bench.add_argument("--threads", type=int, default=2, help="threads of each (2)")
    bench.add_argument("--rounds", type=int, default=7, help="turns of each (7)")
    bench.add_argument("--seconds", type=float, default=0.5, help="length of a turn (0.5)")
    bench.add_argument("--profile", action="store_true", help="no peers: our backends' steps beside their floors")
    bench.add_argument("--sizes", type=_sizes, default=graphs.SIZES, help="of graphs, nodes (100,1000,10000,100000)")
    bench.add_argument("--peak-tflops", type=float, help="of a GPU's products, for floors (as known of the device)")
    bench.add_argument("--bandwidth", type=float, help="of a GPU's memory, TB/s, for floors (as known of the device)")
    bench.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write all numbers here")
    bench.add_argument("--chart", type=pathlib.Path, metavar="FILE.svg", help="draw the speeds as bars (extra plots)")
    bench.set_defaults(command=_bench)


def _listed(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _sizes(text: str) -> list[int]:
    return [int(word) for word in _listed(text)]


def _bench(options: argparse.Namespace) -> int:
    if options.threads < 1 or options.rounds < 1:
        raise ArgumentError("nothing to time", expected="--threads ≥ 1 and --rounds ≥ 1")
    if options.workloads == [GRAPHS]:
        return _graphs(options)
    chosen = _chosen(options)
    if options.gpu:
        on_gpu.check()
    if options.backends is None:
        options.backends = ["cupy"] if options.gpu else ["numpy", "c"]
    return _profiles(chosen, options) if options.profile else _compare(chosen, options)


def _chosen(options: argparse.Namespace) -> list[Workload]:
    chosen = [w for name in options.workloads for w in workloads.find(name)]
    for workload in chosen:
        if workload.gpu != options.gpu:
            places = ("a processor", "a GPU") if options.gpu else ("a GPU", "a processor")
            hint = "without --gpu" if options.gpu else "with --gpu"
            raise ArgumentError(f"{workload.name} is timed on {places[0]}, not on {places[1]}", hint=hint, where="")
    return chosen or list(GPU_WORKLOADS if options.gpu else WORKLOADS)


def _graphs(options: argparse.Namespace) -> int:
    works = [graphs.measure(kind, size) for kind in graphs.KINDS for size in options.sizes]
    print(graphs.table(works))
    if options.json is not None:
        print(write_atomically(options.json, graphs.as_json(works)))
    return 0


def _profiles(chosen: list[Workload], options: argparse.Namespace) -> int:
    for workload in chosen:
        for backend in options.backends:
            print(f"{workload.name} ({workload.alias}), batch {workload.batch}, on {backend}")
            made = on_gpu.backend_for(workload) if options.gpu else workloads.backend_on(backend, options.threads)
            print(workloads.profile(workload, made, options.rounds), "\n")
    return 0


def _compare(chosen: list[Workload], options: argparse.Namespace) -> int:
    found: dict[str, list[Result]] = {}
    references: dict[str, str] = {}
    for name in options.peers or ():
        check(name)
    limits = _limits(options) if options.gpu else None
    for workload in chosen:
        peers = [name for name in (options.peers or of(workload)) if usable(name, workload)]
        peers += [f"{OURS}{backend}" for backend in options.backends]
        reference = options.reference or peers[0]
        found[workload.name] = turns.compare(
            workload, peers, reference, options.threads, options.rounds, options.seconds, limits=limits
        )
        references[workload.name] = reference
        print(turns.table(workload, found[workload.name], reference), "\n")
    if options.json is not None:
        about = {"machine": machine.cpu(), "system": platform.platform(), "threads": options.threads}
        if options.gpu:
            about |= {"gpu": on_gpu.about(), "limits": f"{limits}", "day": f"{datetime.date.today()}"}
        print(write_atomically(options.json, turns.as_json(found, references, **about)))
    if options.chart is not None:
        speeds = {
            f"{name}, relative to {references[name]}": {r.peer: (r.speed, r.low, r.high) for r in each}
            for name, each in found.items()
        }
        plot_speeds(speeds, options.chart, OURS)
        print(options.chart)
    return 0


def _limits(options: argparse.Namespace) -> Accelerator | None:
    """Return what floors are made of; None of a device whose limits nobody has measured or given."""
    name = on_gpu.device()
    peak, bandwidth = (None if number is None else number * 1e12 for number in (options.peak_tflops, options.bandwidth))
    known = accelerator.limits_of(name)
    if known is not None:
        return known.with_limits(peak, bandwidth)
    return Accelerator(name, bandwidth, ((accelerator.PLAIN, peak),)) if peak and bandwidth else None
