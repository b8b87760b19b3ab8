"""`minigraph explain fold_batch_norm`: the algebra of a fold with a model's own numbers, one channel by hand."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

import minigraph as mg
from minigraph.errors import ArgumentError
from minigraph.ir.graph import Graph
from minigraph.ir.node import Node
from minigraph.models import digits_network
from minigraph.passes.report import BatchNormOutcome, batch_norms
from minigraph.runtime import StateNumbers
from minigraph.testing.bounds import analyse
from minigraph.testing.compare import allowed, compute, difference

_SHOWN = 4  # weights


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    explain = commands.add_parser("explain", help="walk through a fold with a model's own numbers")
    explain.add_argument("what", choices=("fold_batch_norm",), help="the pass to explain")
    explain.add_argument("file", type=pathlib.Path, nargs="?", help="model.safetensors (a new digits network)")
    explain.add_argument("--layer", help="the batch norm's layer (the first one that folds)")
    explain.add_argument("--channel", type=int, default=0, help="the channel to compute by hand (0)")
    explain.set_defaults(command=_explain)


def _explain(options: argparse.Namespace) -> int:
    model = digits_network(0) if options.file is None else mg.load_model(options.file)
    print("\n".join(explanation(model.lower("inference"), model.state, options.layer, options.channel)))
    return 0


def explanation(graph: Graph, state: Mapping[str, Any], layer: str | None, channel: int) -> Iterator[str]:
    """Yield the lines of a walk through one batch norm's fold; an ArgumentError names the layers there are."""
    graph = mg.bind(graph, **dict.fromkeys(graph.symbols, 1))
    folded, trace = mg.optimize(graph, state, "fold_batch_norm")
    outcome = _choose(list(batch_norms(trace)), layer)
    norm = outcome.node
    gamma, beta, mean, variance = (_numbers(state, node) for node in norm.inputs[1:5])
    if not 0 <= channel < len(gamma):
        raise ArgumentError("no such channel", expected=f"0 … {len(gamma) - 1}", got=channel)
    epsilon = norm.op.epsilon  # type: ignore[attr-defined]
    yield f"{norm.origin.scope or norm.label}: {outcome.text if outcome.folded else 'kept: ' + outcome.text}"
    yield ""
    yield "1. With fixed statistics a batch norm is one product and one sum for each channel:"
    yield "     γ·(x − mean)/√(variance + ε) + β  =  x·s + t,   s = γ/√(variance + ε),   t = β − mean·s"
    g, b, m, v = (float(p[channel]) for p in (gamma, beta, mean, variance))
    s = g / np.sqrt(v + epsilon)
    t = b - m * s
    yield f"2. In channel {channel}: γ = {g:.7g}, β = {b:.7g}, mean = {m:.7g}, variance = {v:.7g}, ε = {epsilon:g}"
    yield f"     s = {g:.7g} / √({v:.7g} + {epsilon:g}) = {s:.9g}"
    yield f"     t = {b:.7g} − {m:.7g} · {s:.9g} = {t:.9g}"
    if not outcome.folded:
        yield f"3. It is not folded: {outcome.text}."
        return
    yield from _kernels(norm, state, channel, s, t)
    yield from _one_value(graph, folded, norm, state, channel)


def _choose(outcomes: list[BatchNormOutcome], layer: str | None) -> BatchNormOutcome:
    found = [o for o in outcomes if layer is None or layer in (o.node.origin.scope, o.node.origin.scope.split("/")[-1])]
    if not found:
        names = ", ".join(o.node.origin.scope for o in outcomes) or "the model has no batch norm"
        raise ArgumentError("no such batch norm", expected=names, got=layer or "none")
    return next((o for o in found if o.folded), found[0])


def _numbers(state: Mapping[str, Any], node: Node) -> Any:
    return np.asarray(StateNumbers(state).value(node), np.float64)


def _kernels(norm: Node, state: Mapping[str, Any], channel: int, s: float, t: float) -> Iterator[str]:
    """Yield what becomes of the kernel and the bias, where the batch norm stands right behind a linear op."""
    linear = norm.inputs[0]
    biased = linear.op.name == "add"
    linear, bias = (linear.inputs[0], linear.inputs[1]) if biased else (linear, None)
    if linear.op.name not in ("conv2d", "matmul"):
        yield "3. The scale goes into the kernels further up, the shift into a bias: the same numbers, other places."
        return
    kernel = _numbers(state, linear.inputs[1])
    weights = kernel[..., channel].ravel()[:_SHOWN]
    b = 0.0 if bias is None else float(_numbers(state, bias).ravel()[channel])
    dots = ", …" if kernel[..., channel].size > _SHOWN else ""
    yield f"3. {linear.op.name} is linear: scaling its output is scaling its kernel's column {channel}, w·s in float64,"
    yield "   rounded once at the end:"
    yield f"     w  = {', '.join(f'{w:.6g}' for w in weights)}{dots}"
    yield f"     w′ = {', '.join(f'{w * s:.6g}' for w in weights)}{dots}"
    yield f"     b′ = b·s + t = {b:.6g} · {s:.9g} + {t:.9g} = {b * s + t:.9g}"


def _one_value(graph: Graph, folded: Graph, norm: Node, state: Mapping[str, Any], channel: int) -> Iterator[str]:
    """Yield one element of the output, computed before and after, with the bound on what rounding may do."""
    rng = np.random.default_rng(0)
    values = {**state, **{n.label: rng.standard_normal(n.shape).astype(n.dtype) for n in graph.inputs}}  # type: ignore[arg-type]
    after = next(
        n for n in folded.nodes if ("batch_norm_of_linear", norm.id) in n.origin.history[-1:] and n.type == norm.type
    )
    x, y = norm.inputs[0], norm
    computed = compute([x, y, after], values)
    bounds = analyse([y, after], values)
    place = (0,) * (norm.rank - 1) + (channel,)
    found = difference(computed[y], computed[after], allowed(bounds[y], bounds[after]))
    yield f"4. One element of the output, at {place}, for a random input:"
    yield f"     before: x = {computed[x][place]:.9g},  x·s + t = {computed[y][place]:.9g}"
    yield f"     after:  Σ x·w′ + b′ = {computed[after][place]:.9g}"
    yield f"5. All of it: the largest difference is {found.error:.2g}, {found.ratio:.2g} of what rounding may do there"
    yield f"   ({found.bound:.2g}, derived from the sizes of the numbers and the lengths of the sums)."
