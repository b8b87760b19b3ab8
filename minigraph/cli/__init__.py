"""The command line: `minigraph train | render | passes | explain | onnx | bench | selftest | info`, a module each."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

import minigraph as mg
from minigraph.cli import bench, explain, info, onnx, passes, render, selftest, train
from minigraph.errors import MinigraphError

COMMANDS = (train, render, passes, explain, onnx, bench, selftest, info)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status: 0, 2 for bad input, 130 after Ctrl-C.

    >>> main(["info"])  # doctest: +SKIP
    0
    """
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except MinigraphError as error:
        print(f"minigraph: {error.message(with_place=False)}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read the output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"minigraph: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="minigraph", description=(mg.__doc__ or "").splitlines()[0])
    parser.add_argument("--version", action="version", version=mg.__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in COMMANDS:
        module.add(commands)
    return parser
