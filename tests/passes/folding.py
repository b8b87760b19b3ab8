"""Small networks around a batch norm, with numbers, and what a test says about them: `folds` or `refuses`."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np

import minigraph as mg
from minigraph import ops
from minigraph.ir import Graph, Input, Node, symbol, variable, verify
from minigraph.ir.leaves import input as input_
from minigraph.ops.fused import Fused
from minigraph.ops.linalg import MatMul
from minigraph.ops.norm import BatchNorm
from minigraph.passes import FOLD_BATCH_NORM, Rewriting, Rule, Trace, run
from minigraph.runtime import StateNumbers
from minigraph.testing.bounds import Bounded, analyse
from passes.pictures import graph as picture

Array = np.ndarray[Any, Any]
BATCH = 2  # what a symbolic batch is bound to
PASS = FOLD_BATCH_NORM.name


class Net:
    """A network under construction: makers of nodes, and the numbers of every input and variable by label."""

    def __init__(self, dtype: str = "float64", layout: str = "NHWC", symbolic: bool = False, seed: int = 0) -> None:
        self.dtype = dtype
        self.layout = layout
        self.sizes = {"N": BATCH} if symbolic else {}
        self.batch = symbol("N") if symbolic else BATCH
        self.rng = np.random.default_rng(seed)
        self.values: dict[str, Array] = {}

    @property
    def axis(self) -> int:
        """The axis of the channels in images."""
        return 3 if self.layout == "NHWC" else 1

    def _label(self, base: str) -> str:
        taken = sum(label.startswith(base) for label in self.values)
        return f"{base}{taken or ''}"

    def input(self, *shape: int, dtype: str | None = None) -> Node:
        """An input with a batch axis before `shape`."""
        node = input_((self.batch, *shape), dtype or self.dtype, self._label("x"))
        self.values[node.label] = self.rng.normal(size=(BATCH, *shape)).astype(node.dtype)
        return node

    def image(self, channels: int = 4, height: int = 6, width: int = 5, dtype: str | None = None) -> Node:
        """An input of images in the net's layout."""
        shape = (height, width, channels) if self.layout == "NHWC" else (channels, height, width)
        return self.input(*shape, dtype=dtype)

    def variable(self, base: str, values: Any, dtype: str | None = None) -> Node:
        """A variable with these numbers."""
        array = np.asarray(values).astype(dtype or self.dtype)
        node = variable(array.shape, name=self._label(base), dtype=str(array.dtype))
        self.values[node.label] = array
        return node

    def random(self, base: str, *shape: int, dtype: str | None = None) -> Node:
        """A variable with random numbers around 0."""
        return self.variable(base, 0.5 * self.rng.normal(size=shape), dtype)

    def kernel(self, into: int, out: int, size: Any = 3) -> Node:
        """A variable for `into` channels (of a group) and `out` channels of the convolution."""
        height, width = size if isinstance(size, tuple) else (size, size)
        shape = (height, width, into, out) if self.layout == "NHWC" else (out, into, height, width)
        return self.random("w", *shape)

    def conv(self, x: Node, out: int = 6, size: Any = 3, groups: int = 1, kernel: Node | None = None,
             **options: Any) -> Node:  # fmt: skip
        """A convolution with `out` channels."""
        if kernel is None:
            kernel = self.kernel(x.shape[self.axis] // groups, out, size)  # type: ignore[operator]
        return ops.conv2d(x, kernel, groups=groups, layout=self.layout, **options)

    def transposed(self, x: Node, out: int = 6, size: Any = 3, groups: int = 1, **options: Any) -> Node:
        """A transposed convolution with `out` channels."""
        kernel = self.kernel(out // groups, x.shape[self.axis], size)  # type: ignore[arg-type]
        return ops.conv2d_transpose(x, kernel, groups=groups, layout=self.layout, **options)

    def dense(self, x: Node, out: int = 6, transpose_y: bool = False) -> Node:
        """A matrix product over the last axis."""
        into = x.shape[-1]
        shape = (out, into) if transpose_y else (into, out)
        return Node(MatMul(False, transpose_y), (x, self.random("w", *shape)))  # type: ignore[arg-type]

    def bias(self, x: Node, axis: int | None = None) -> Node:
        """x plus a vector along the channels."""
        axis = self._axis_of(x, axis)
        vector = self.random("bias", x.shape[axis])  # type: ignore[arg-type]
        return x + self.laid(vector, axis, x.rank)

    def laid(self, vector: Node, axis: int, rank: int) -> Node:
        """A vector laid along one axis of `rank`."""
        return ops.reshape(vector, (*vector.shape, *(1,) * (rank - axis - 1)))

    def _axis_of(self, x: Node, axis: int | None) -> int:
        return (self.axis if x.rank == 4 else x.rank - 1) if axis is None else axis % x.rank

    def norm(self, x: Node, axis: int | None = None, gamma: Any = None, variance: Any = None, epsilon: float = 1e-3,
             fold: bool = True, operands: tuple[Node, ...] | None = None) -> Node:  # fmt: skip
        """A batch norm with moving averages, as inference has it; γ of both signs where it is not given."""
        axis = self._axis_of(x, axis)
        if operands is None:
            operands = self.statistics(x.shape[axis], gamma, variance, x.dtype)  # type: ignore[arg-type]
        return Node(BatchNorm(axis, epsilon, None, fold), (x, *operands))

    def statistics(self, channels: int, gamma: Any = None, variance: Any = None,
                   dtype: str | None = None) -> tuple[Node, ...]:  # fmt: skip
        """Variables γ, β, mean and variance."""
        rng = self.rng
        signs = np.where(np.arange(channels) % 3 == 1, -1.0, 1.0)
        gamma = signs * rng.uniform(0.5, 1.5, channels) if gamma is None else np.broadcast_to(gamma, channels)
        variance = rng.uniform(0.2, 2.0, channels) if variance is None else np.broadcast_to(variance, channels)
        numbers = {"gamma": gamma, "beta": rng.normal(size=channels), "mean": rng.normal(size=channels),
                   "variance": variance}  # fmt: skip
        return tuple(self.variable(name, values, dtype) for name, values in numbers.items())

    def state(self) -> dict[str, Array]:
        """The numbers of the variables."""
        return {label: array for label, array in self.values.items() if not label.startswith("x")}


# --- some networks ----------------------------------------------------------------------------------------------------


def padded(net: Net, x: Node, value: float = 0.0) -> Node:
    """Images with one row above, two below, one column before and two behind."""
    return ops.pad(x, [(0, 0) if axis in (0, net.axis) else (1, 2) for axis in range(4)], value)


def _stack(net: Net) -> Node:
    x = net.image()
    for _ in range(3):
        x = ops.relu(net.norm(net.bias(net.conv(x, 4, padding="same"))))
    return x


def _both_sides(net: Net) -> Node:
    return net.norm(net.conv(net.norm(net.image()), padding="same"))


def _rectified(net: Net) -> Node:
    return net.conv(ops.relu(net.norm(net.image(), gamma=[0.5, 1.0, 1.5, 2.0])))


def _partial(net: Net) -> Node:
    conv = net.conv(net.image())
    return net.norm(ops.concat([conv, ops.relu(net.conv(net.image()))], net.axis))


def _pooled(net: Net) -> Node:
    pooled = ops.avg_pool2d(net.conv(net.image()), 2, layout=net.layout)
    return net.dense(ops.mean(ops.relu(net.norm(pooled)), {3: (1, 2), 1: (2, 3)}[net.axis]))


def _shared(net: Net) -> Mapping[str, Node]:
    kernel, operands = net.kernel(4, 6), net.statistics(6)
    outputs = {name: net.norm(net.conv(net.image(), kernel=kernel), operands=operands) for name in ("y", "z")}
    return {**outputs, "plain": net.conv(net.image(), kernel=kernel)}


def _chain(net: Net) -> Node:
    factor = net.laid(net.random("c", 4), net.axis, 4)
    return net.conv(net.norm(net.norm((net.image() - factor) / 3.0)) * factor - 1.0, padding="same")


def _normalised(net: Net) -> Node:
    return net.conv((net.image() - 0.5) / 0.25, padding="same")


# Where the passes around batch norm have something to do, and where they refuse.
NETWORKS: dict[str, Callable[[Net], Any]] = {
    "convolution": lambda net: net.norm(net.conv(net.image())),
    "transposed": lambda net: net.norm(net.transposed(net.image(), groups=2)),
    "dense": lambda net: net.norm(net.bias(net.dense(net.input(3)))),
    "flattened": lambda net: net.dense(ops.flatten(net.norm(net.image()))),
    "sum": lambda net: net.norm(net.conv(net.image()) - net.bias(net.conv(net.image()))),
    "padding": lambda net: net.norm(net.conv(padded(net, padded(net, net.image())))),
    "kept": lambda net: net.norm(ops.relu(net.conv(net.image()))) * 2.0,
    "stack": _stack,
    "both_sides": _both_sides,
    "rectified": _rectified,
    "partial": _partial,
    "pooled": _pooled,
    "shared": _shared,
    "chain": _chain,
    "normalised": _normalised,
}


def networks(dtype: str = "float32", layout: str = "NHWC") -> Iterator[tuple[str, Graph, dict[str, Array]]]:
    """Yield name, graph and numbers of each of these networks."""
    for name, make in NETWORKS.items():
        net = Net(dtype, layout)
        yield name, as_graph(make(net)), net.values


# --- what there is in a graph -----------------------------------------------------------------------------------------

Outputs: TypeAlias = Node | Mapping[str, Node] | Graph


def as_graph(outputs: Outputs) -> Graph:
    """Return a node, or several by name, as a graph."""
    return outputs if isinstance(outputs, Graph) else Graph({"y": outputs} if isinstance(outputs, Node) else outputs)


def data_ops(graph: Graph) -> str:
    """Return the names of the ops that run on data, in order; those of a fused region one by one."""
    moving: set[Node] = set()
    names: list[str] = []
    for node in graph.nodes:
        if isinstance(node.op, Input) or any(i in moving for i in node.inputs):
            moving.add(node)
            names += [step.op.name for step in node.op.body] if isinstance(node.op, Fused) else [node.op.name]
    return " ".join(name for name in names if name != "input")


def batch_norms(graph: Graph) -> list[Node]:
    """Return the batch norms that stand by themselves."""
    return [n for n in graph.nodes if isinstance(n.op, BatchNorm)]


def knowing(pass_: Rewriting, state: Mapping[str, Any]) -> Rewriting:
    """Return a pass that may look at the numbers of a state."""
    return replace(pass_, numbers=StateNumbers(state))


# --- numbers ----------------------------------------------------------------------------------------------------------


def plain(graph: Graph) -> Graph:
    """Return a graph whose updates are outputs."""
    updates = {f"update {target.label}": value for target, value in graph.updates.items()}
    return Graph({**graph.outputs, **updates}, inputs=graph.inputs)


def compute(graph: Graph, values: Mapping[str, Array]) -> dict[str, Array]:
    """Return a graph's outputs and updates, computed as it stands."""
    each = plain(graph)
    state = mg.State({v.label: values[v.label] for v in each.variables})
    return mg.compile(each, optimize=False)(state, **{i.label: values[i.label] for i in each.inputs})


def assert_within_bounds(
    before: Graph,
    pairs: Sequence[tuple[Graph, Graph]],
    values: Mapping[str, Array],
    sizes: Mapping[str, int] | None = None,
) -> None:
    """Compare what `before` computes, unoptimised, with other graphs, against the derived bound.

    pairs: a graph over the same variables, which the bound is derived from, and the form of it that is computed, the
    same graph or one that is frozen. |before − after| ≤ error(before) + error(after), element by element. Where the
    dtype of `before` has no room for its own numbers the error is infinite, and the exact value stands for it.
    """
    graphs = [plain(before), *(plain(symbolic) for symbolic, _ in pairs)]
    bounds = analyse([n for g in graphs for n in g.outputs.values()], values, sizes=sizes)
    reference = compute(before, values)
    for symbolic, (_, computed) in zip(graphs[1:], pairs, strict=True):
        got = compute(computed, values)
        assert got.keys() == reference.keys()
        for name, value in got.items():
            assert value.dtype == reference[name].dtype
            _assert_close(name, reference[name], value, bounds[graphs[0].outputs[name]], bounds[symbolic.outputs[name]])


def _assert_close(name: str, reference: Array, value: Array, old: Bounded, new: Bounded) -> None:
    finite = np.isfinite(old.error)
    expected = np.where(finite, reference, old.value)
    allowed = np.where(finite, old.error, 0.0) + new.error
    assert np.isfinite(allowed).all(), f"{name}: nothing is promised"
    apart = np.abs(value.astype(np.float64) - expected)
    assert (apart <= allowed).all(), f"{name}: {apart.max():.3g} apart where {allowed.max():.3g} is allowed"


# --- what a test says -------------------------------------------------------------------------------------------------


class Folded(NamedTuple):
    """What came out: by the pass alone, and by the whole pipeline with its trace."""

    alone: Graph
    alone_trace: Trace
    final: Graph
    trace: Trace

    @property
    def notes(self) -> str:
        """What the pass said it did."""
        return "\n".join(note.text for rewrite in self.alone_trace.rewrites for note in rewrite.notes)


def folds(net: Net, outputs: Outputs, left: str, optimized: str | None = None, symbolic: bool = True) -> Folded:
    """Check that the pass alone folds, that optimising and freezing does, and that the numbers stay.

    left: the ops on data that the pass leaves; `optimized`: those that the pipeline leaves, where they differ (in
    their number: regions reorder them).
    symbolic: whether it folds without numbers too.
    """
    graph, state = as_graph(outputs), net.state()
    alone, alone_trace = run([knowing(FOLD_BATCH_NORM, state)], graph, verify_each=True)
    assert data_ops(alone) == left, [*map(str, alone_trace.refusals.values())]
    without = run([FOLD_BATCH_NORM], graph, verify_each=True)[0]
    assert (data_ops(without) == left) == symbolic
    final, trace = mg.optimize(graph, state)
    assert sorted(data_ops(final).split()) == sorted((optimized or left).split())
    assert not verify(final).variables
    assert_within_bounds(graph, [(alone, alone), (trace.step("freeze").before, final)], net.values, net.sizes)
    return Folded(alone, alone_trace, final, trace)


def refuses(net: Net, outputs: Outputs, reason: str, at: Node | None = None, numbers: bool = True) -> None:
    """Check that the graph keeps its batch norms, and that the reason has these words in it.

    at: the node whose rewriting is refused, the last batch norm where it is not given. numbers: compare them too.
    """
    graph, state = as_graph(outputs), net.state()
    at = batch_norms(graph)[-1] if at is None else at
    alone, alone_trace = run([knowing(FOLD_BATCH_NORM, state)], graph, verify_each=True)
    assert alone.same_as(graph) and not alone_trace.rewrites
    final, trace = mg.optimize(graph, state)
    assert data_ops(verify(final)).split().count("batch_norm") == len(batch_norms(graph))
    given = [alone_trace.why_not(PASS, at), trace.why_not(PASS, at), mg.why_not(PASS, at, graph, state)]
    for refusal in given:
        assert refusal is not None and reason in refusal.reason, refusal
    if numbers:
        pairs = [(trace.step("freeze").before, final)]
        assert_within_bounds(graph, pairs, net.values, net.sizes)


# --- pictures ---------------------------------------------------------------------------------------------------------


def example(rule: Rule) -> Graph:
    """Return the graph of a rule's own docstring."""
    lines = textwrap.dedent((rule.__doc__ or "").partition("\n")[2]).splitlines()
    return picture("\n".join(line for line in lines if line.lstrip().startswith(("%", "return"))))


def refused(before: str, rule: str, op: str) -> str:
    """Return why a rule, or a pass, leaves the first node of an op alone in the picture of a graph."""
    graph = picture(before)
    refusal = mg.why_not(rule, next(n for n in graph.nodes if n.op.name == op), graph)
    return "" if refusal is None else refusal.reason
