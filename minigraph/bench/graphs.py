"""What the compiler itself costs: time and memory per node to build, differentiate, optimise, plan and print graphs.

The work should grow with the number of nodes and no faster: the exponent of its growth is estimated too.
"""

from __future__ import annotations

import gc
import json
import math
import time
import tracemalloc
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

from minigraph import ops
from minigraph.autodiff import gradients
from minigraph.backends import base
from minigraph.errors import ArgumentError
from minigraph.ir import fresh_names, variable
from minigraph.ir.graph import Graph
from minigraph.ir.leaves import input as input_
from minigraph.ir.node import Node
from minigraph.ops.norm import BatchNorm, Moving
from minigraph.passes.lower import lower
from minigraph.runtime import Program, compile, make_plan

_T = TypeVar("_T")

SIZES = (100, 1_000, 10_000, 100_000)
# What is measured, and how many µs a node should take at most; of memory, bytes.
BARS = {"build": 10.0, "differentiate": 50.0, "optimise": 50.0, "plan": 20.0, "print": 5.0, "memory": 1500.0}
EXPONENT_BAR = 1.1


def chain(nodes: int) -> tuple[Node, list[Node]]:
    """Return the end of a chain of sums with variables and hyperbolic tangents, and the variables.

    >>> end, variables = chain(9)
    >>> len(Graph({"y": end}).nodes), len(variables)
    (10, 3)
    """
    h = input_((8,), name="x")
    variables = []
    for i in range(nodes // 3):
        w = variable((8,), name=f"w{i}", init=0.0)
        variables.append(w)
        h = ops.tanh(h + w)
    return h, variables


def residual(nodes: int) -> tuple[Node, list[Node]]:
    """Return the end of a residual network on 8×8 images, 17 nodes a block with their variables, and what trains.

    >>> end, variables = residual(34)
    >>> len(Graph({"y": end}).nodes), len(variables)
    (35, 12)
    """
    x = input_((2, 8, 8, 8), name="image")
    variables: list[Node] = []
    for i in range(max(1, nodes // 17)):
        y = ops.relu(_unit(x, f"{i}a", variables))
        x = ops.relu(_unit(y, f"{i}b", variables) + x)
    return x, variables


def _unit(x: Node, name: str, trainable: list[Node]) -> Node:
    """Return a convolution with its batch norm, as a definition has them."""
    kernel = variable((3, 3, 8, 8), name=f"kernel{name}")
    gamma, beta = (variable((8,), name=f"{what}{name}") for what in ("gamma", "beta"))
    averages = [variable((8,), name=f"{what}{name}", trainable=False) for what in ("mean", "variance")]
    trainable += [kernel, gamma, beta]
    y = ops.conv2d(x, kernel, padding="same")
    return Node(BatchNorm(3, moving=Moving(0.9)), (y, gamma, beta, *averages))


KINDS: dict[str, Callable[[int], tuple[Node, list[Node]]]] = {"chain": chain, "residual": residual}


@dataclass(frozen=True)
class Work:
    """What one graph took: its nodes, and for each stage µs a node (of memory, bytes) and the nodes it worked on."""

    kind: str
    nodes: int
    costs: dict[str, float]
    worked_on: dict[str, int]
    passes: dict[str, float]  # seconds of each pass


def measure(kind: str, nodes: int, backend: str = "numpy") -> Work:
    """Return what it takes to make a graph of so many nodes, and to make a training program of it.

    kind: "chain" or "residual". Each stage is counted per node of the graph that it is given: building of the
    definition, differentiating of its forward pass, optimising and printing of the whole training graph, planning of
    the optimised one.
    """
    if kind not in KINDS:
        raise ArgumentError("no such kind of graph", expected=", ".join(KINDS), got=kind)
    (end, trainable), build = _best(lambda: _built(kind, nodes))
    definition = Graph({"y": end})
    forward = lower(definition, "training")
    loss = ops.mean(forward.outputs["y"])
    found, differentiate = _best(lambda: gradients(loss, trainable))
    steps = {v: v - 0.01 * g for v, g in zip(trainable, found, strict=True)}
    graph = Graph({"loss": loss}, {**forward.updates, **steps})
    program, _ = _best(lambda: _prepared(graph, backend))
    passes: dict[str, float] = {}
    for step in program.trace.steps:
        passes[step.name] = passes.get(step.name, 0.0) + step.seconds
    _, plan = _best(lambda: _plan(program.graph, backend))
    _, printing = _best(lambda: str(graph))
    size, training = len(definition.nodes), len(graph.nodes)
    worked_on = {
        "build": size, "differentiate": len(forward.nodes), "optimise": training, "plan": len(program.graph.nodes),
        "print": training, "memory": size,
    }  # fmt: skip
    seconds = {
        "build": build, "differentiate": differentiate, "optimise": sum(passes.values()), "plan": plan,
        "print": printing,
    }  # fmt: skip
    costs = {stage: taken / worked_on[stage] * 1e6 for stage, taken in seconds.items()}
    return Work(kind, size, {**costs, "memory": _bytes(kind, nodes) / size}, worked_on, passes)


def _built(kind: str, nodes: int) -> tuple[Node, list[Node]]:
    with fresh_names():
        end, trainable = KINDS[kind](nodes)
        Graph({"y": end})
    return end, trainable


def _prepared(graph: Graph, backend: str) -> Program:
    program = compile(graph, backend=backend)
    program.prepare()
    return program


def _plan(graph: Graph, name: str) -> None:
    backend = base.get(name)  # a new one: backends may remember what they were asked
    make_plan(graph, backend.needs, backend.commits_in_place(graph))


def _best(call: Callable[[], _T], enough: float = 0.2, most: int = 20) -> tuple[_T, float]:
    """Return a call's result and the least seconds of several runs: more of what is quick.

    The collector of cycles is off meanwhile, as in `timeit`: when it runs, and over what, is not this call's doing.
    """
    best, spent, runs = math.inf, 0.0, 0
    gc.collect()
    gc.disable()
    try:
        while spent < enough and runs < most:
            start = time.perf_counter()
            result = call()
            taken = time.perf_counter() - start
            best, spent, runs = min(best, taken), spent + taken, runs + 1
    finally:
        gc.enable()
    return result, best


def _bytes(kind: str, nodes: int) -> int:
    """Return how many bytes a graph holds."""
    gc.collect()
    tracemalloc.start()
    try:
        kept = _built(kind, nodes)
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    del kept
    return taken


def exponent(works: Sequence[Work], stage: str) -> float:
    """Return p of the least-squares fit total ∝ nodes^p over graphs of 1,000 nodes and more; NaN of fewer than two.

    >>> works = [Work("chain", n, {"plan": 3.0}, {"plan": n}, {}) for n in (1_000, 10_000)]
    >>> round(exponent(works, "plan"), 6)
    1.0
    """
    points = [
        (math.log(w.nodes), math.log(max(w.costs[stage] * w.worked_on[stage], 1e-9))) for w in works if w.nodes > 900
    ]
    if len(points) < 2:
        return math.nan
    x, y = (sum(values) / len(points) for values in zip(*points, strict=True))
    slope: float = sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)
    return slope


def table(works: Iterable[Work]) -> str:
    """Return the costs as a table: a row a graph, and under each kind the bars and the exponents."""
    kinds: dict[str, list[Work]] = {}
    for work in works:
        kinds.setdefault(work.kind, []).append(work)
    lines = [_row("graph", "nodes", [f"{stage} {'B' if stage == 'memory' else 'µs'}" for stage in BARS])]
    for kind, rows in kinds.items():
        lines += [_row(kind, f"{w.nodes:,}", [f"{w.costs[stage]:.1f}" for stage in BARS]) for w in rows]
        lines.append(_row("", "exponent", [f"{exponent(rows, stage):.2f}" for stage in BARS]))
    lines.append(_row("bar", f"≤ {EXPONENT_BAR}", [f"≤ {bar:g}" for bar in BARS.values()]))
    return "\n".join(lines)


def as_json(works: Iterable[Work]) -> str:
    """Return the costs as JSON."""
    return json.dumps([asdict(work) for work in works], indent=1) + "\n"


def _row(kind: str, nodes: str, cells: Sequence[str]) -> str:
    return f"{kind:<9}{nodes:>9}" + "".join(
        f"{cell:>{len(stage) + 6}}" for cell, stage in zip(cells, BARS, strict=True)
    )
