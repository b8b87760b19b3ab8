"""`minigraph onnx`: say what is in an ONNX file, draw it, run passes on it, optimise it into another one."""

from __future__ import annotations

import argparse
import pathlib
from collections import Counter

import minigraph as mg
from minigraph.cli import passes, render
from minigraph.errors import ArgumentError
from minigraph.ir.graph import Graph
from minigraph.ir.types import known
from minigraph.passes.totals import quantity, totals, totals_text


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its actions; drawing and passes are those of saved models."""
    onnx = commands.add_parser("onnx", help="look into an ONNX file, draw it, optimise it")
    actions = onnx.add_subparsers(required=True, metavar="ACTION")
    info = actions.add_parser("info", help="inputs, outputs, ops, parameters and costs of a file")
    render.add_file(info)
    info.set_defaults(command=_info)
    render.add(actions)
    passes.add(actions)
    optimize = actions.add_parser("optimize", help="run minigraph's passes on a file and write another one")
    optimize.add_argument("file", type=pathlib.Path, help="the model to read")
    optimize.add_argument("out", type=pathlib.Path, help="where to write the optimised model")
    render.add_shapes(optimize)
    optimize.set_defaults(command=_optimize)


def _info(options: argparse.Namespace) -> int:
    from minigraph.onnx.files import read_model

    proto, _ = read_model(options.file)
    versions = ", ".join(f"{o.domain or 'ai.onnx'} {o.version}" for o in proto.opset_import)
    print(f"{options.file}: IR {proto.ir_version}, opset {versions}, by {proto.producer_name or 'unknown'}")
    counts = Counter(node.op_type for node in proto.graph.node)
    print(f"{len(proto.graph.node)} nodes: " + ", ".join(f"{count} {name}" for name, count in counts.most_common()))
    model = render.in_shell(mg.onnx.load, options.file, render.shapes(options.shape))
    print("\n".join(_description(model.graph)))
    return 0


def _description(graph: Graph) -> list[str]:
    """Return lines on inputs, outputs, parameters and costs."""
    lines = [f"input  {node.label}: {node.type}" for node in graph.inputs]
    lines += [f"output {name}: {node.type}" for name, node in graph.outputs.items()]
    parameters = sum(known(v.tensor_type.size) for v in graph.variables)
    size = sum(known(v.tensor_type.nbytes) for v in graph.variables)
    lines.append(f"{len(graph.variables)} variables, {parameters:,} parameters, {quantity(size, 'B')}")
    return [*lines, "as a graph, one example: " + totals_text(totals(graph, sizes=dict.fromkeys(graph.symbols, 1)))]


def _optimize(options: argparse.Namespace) -> int:
    from minigraph.onnx.files import write_model

    if not options.out.parent.is_dir():
        raise ArgumentError("there is no such folder", got=str(options.out.parent), hint="make it first")
    proto, trace = render.in_shell(mg.onnx.optimize_with_trace, options.file, render.shapes(options.shape))
    print(trace.report())
    print(write_model(options.out, proto))
    return 0
