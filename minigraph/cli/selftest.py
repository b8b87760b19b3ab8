"""`minigraph selftest`: minigraph's promises about itself, tested on random programs, as large as asked for."""

from __future__ import annotations

import argparse


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    selftest = commands.add_parser("selftest", help="test minigraph itself on random programs")
    kinds = selftest.add_subparsers(required=True, metavar="fuzz")
    fuzz = kinds.add_parser("fuzz", help="run all passes on random networks and compare with a derived error bound")
    fuzz.add_argument("--graphs", type=int, default=200, help="how many random networks (200)")
    fuzz.add_argument("--seed", type=int, default=0, help="which ones (0)")
    fuzz.add_argument("--backend", default="numpy", help="what computes the graphs (numpy)")
    fuzz.set_defaults(command=_fuzz)


def _fuzz(options: argparse.Namespace) -> int:
    from minigraph.testing.fuzz import fuzz

    report = fuzz(options.graphs, options.seed, backend=options.backend)
    print(report)
    return 1 if report.mismatches else 0
