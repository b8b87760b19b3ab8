"""`minigraph passes`: run a pipeline on a graph; say, draw and prove what it did. List passes. Reproduce a failure."""

from __future__ import annotations

import argparse
import pathlib

import minigraph as mg
from minigraph.cli.render import add_file, load
from minigraph.errors import ArgumentError
from minigraph.passes.catalogue import catalogue
from minigraph.runtime import reproduce


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    passes = commands.add_parser("passes", help="run passes on a model or a graph's text, and show what they did")
    add_file(passes, nargs="?")
    passes.add_argument("--list", action="store_true", help="every pass and rule: equation, conditions, an example")
    passes.add_argument("--reproduce", type=pathlib.Path, metavar="FILE", help="run the pass that failed once again")
    passes.add_argument("--mode", choices=("definition", "training", "inference"), default="inference")
    passes.add_argument("--pipeline", default="optimize", help='"lower(inference),fold_batch_norm,cse,fuse" (optimize)')
    passes.add_argument("--symbolic", action="store_true", help="keep a model's variables: no numbers, nothing frozen")
    passes.add_argument("--include", action="append", default=[], help="only this pass, rule, or scope:LAYER")
    passes.add_argument("--exclude", action="append", default=[], help="not this pass, rule, or scope:LAYER")
    passes.add_argument("--render", type=pathlib.Path, metavar="OUT", help="before and after in one picture")
    passes.add_argument("--step", help="draw this pass only: its name or number")
    passes.add_argument("--rewrite", type=int, help="draw this single rewrite of the step only")
    passes.add_argument("--theme", choices=("light", "dark"), default="light")
    passes.add_argument("--verify", type=int, metavar="TRIALS", help="prove each rewrite on so many sets of numbers")
    passes.add_argument("--out", type=pathlib.Path, help="write the optimised graph's text here")
    passes.set_defaults(command=_passes)


def _passes(options: argparse.Namespace) -> int:
    if options.list:
        print(catalogue())
        return 0
    if options.reproduce is not None:
        print(reproduce(options.reproduce)[1].report())
        return 0
    if options.file is None:
        raise ArgumentError("no graph to run passes on", expected="FILE, --list or --reproduce FILE")
    graph, model = load(options.file, options.mode, options.shape)
    freezing = model is not None and options.mode == "inference" and not options.symbolic
    state = model.state if freezing and model is not None else None
    graph, trace = mg.optimize(
        graph, state, options.pipeline, include=options.include, exclude=options.exclude, verify_each=True
    )
    print(trace.report())
    if options.out is not None:
        options.out.write_text(f"{graph}\n", encoding="utf-8")
        print(options.out)
    if options.render is not None:
        step = int(options.step) if options.step and options.step.isdecimal() else options.step
        print(mg.render(trace, options.render, step=step, rewrite=options.rewrite, theme=options.theme))
    if options.verify is not None:
        proof = trace.verify(trials=options.verify)
        print(proof)
        return 0 if proof.holds else 1
    return 0
