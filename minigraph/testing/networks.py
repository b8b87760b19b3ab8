"""Random valid networks, values for them, and their training graphs: what passes are tried on.

The networks are small enough that one is computed in a millisecond or two, and hold what rewrite rules look for: batch
norm in every position it can stand in, and everything around it (see `parts`). As in NNSmith (Liu et al., ASPLOS 2023)
each part draws attributes that satisfy its op's constraints; what still does not fit is counted and left out.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, TypeAlias

import numpy as np

from minigraph import ops
from minigraph.autodiff import gradients
from minigraph.backends.dtypes import array_dtype
from minigraph.errors import ArgumentError, ShapeError
from minigraph.ir import Graph, Node, Variable, fresh_names, topological, variable
from minigraph.ir.leaves import input as input_
from minigraph.ir.types import DTYPES, is_float, known, symbol
from minigraph.ops.norm import BatchNorm
from minigraph.ops.window import NCHW, NHWC, images
from minigraph.optimizers import SGD
from minigraph.passes.lower import lower
from minigraph.testing.parts import SPECS, Draft, Spec, Value, activation

Array: TypeAlias = "np.ndarray[Any, Any]"
SMALLEST = 5  # nodes


@dataclass
class Growth:
    """How a network came about: `made` counts the specs by name; of `attempts` draws `rejected` did not fit."""

    graph: Graph
    made: Counter[str] = field(default_factory=Counter)
    attempts: int = 0
    rejected: int = 0


def random_network(
    rng: random.Random, *, dtype: str = "float32", size: tuple[int, int] = (5, 60), layout: str | None = None
) -> Graph:
    """Return a random valid definition of `size` nodes, from fewest to most.

    dtype: of inputs and variables; now and then a part is narrower. layout: "NHWC" or "NCHW", drawn by default. The
    graph is a function of the generator's state alone.

    >>> graph = random_network(random.Random(0), size=(5, 30))
    >>> 5 <= len(graph.nodes) <= 30
    True
    """
    return grow(rng, dtype=dtype, size=size, layout=layout).graph


def grow(
    rng: random.Random, *, dtype: str = "float32", size: tuple[int, int] = (5, 60), layout: str | None = None
) -> Growth:
    """Return a random network, as `random_network` does, with the record of how it was made.

    >>> growth = grow(random.Random(0))
    >>> growth.attempts - growth.rejected == sum(growth.made.values())
    True
    """
    if not SMALLEST <= size[0] <= size[1]:
        raise ArgumentError("bad size of a network", expected=f"{SMALLEST} ≤ fewest ≤ most", got=size)
    with fresh_names():
        return _Network(Draft(rng, dtype, layout or rng.choice((NHWC, NCHW))), size).grown()


class _Network:
    """A network on its way: specs are drawn for values of it, until it has the size it should have."""

    def __init__(self, draft: Draft, size: tuple[int, int]) -> None:
        self.draft = draft
        self.rng = draft.rng
        self.fewest, self.most = size
        self.inputs: list[Node] = []
        self.unread: list[Value] = []
        self.made: Counter[str] = Counter()
        self.attempts = self.rejected = 0

    def grown(self) -> Growth:
        """Return the network, complete."""
        self.add_inputs()
        target = self.rng.randint(self.fewest, self.most)
        while self.size(self.unread) < target and self.step():
            pass
        return Growth(self.finished(), self.made, self.attempts, self.rejected)

    def add_inputs(self) -> None:
        """Add one input or two; nothing says that the second is read."""
        rng, layout = self.rng, self.draft.layout
        batch = rng.choice((symbol("N"), 2, 3))
        shape = images(batch, (rng.randint(4, 10), rng.randint(4, 10)), rng.randint(1, 8), layout)
        if self.draft.chance(0.2):
            shape, layout = (batch, rng.randint(2, 8)), ""
        for label in ("x", "z")[: rng.choice((1, 1, 1, 2))]:
            self.inputs.append(input_(shape, self.draft.dtype, label))
            self.add(Value(self.inputs[-1], layout))

    def add(self, v: Value) -> None:
        """Let later parts read a value."""
        self.draft.values.append(v)
        self.unread.append(v)

    def size(self, heads: list[Value]) -> int:
        """Return the number of nodes of the network with these outputs."""
        return len(topological([*self.inputs, *(v.node for v in heads)]))

    def step(self) -> bool:
        """Try one spec on one value; tell whether there may be room for more."""
        spec = self.rng.choices(SPECS, [s.weight for s in SPECS])[0]
        v = self.pick(spec)
        if v is None:
            return True
        try:
            y = spec(self.draft, v)
        except ShapeError:
            self.attempts += 1
            self.rejected += 1
            return True
        if self.size([*self.unread, y]) > self.most:
            return False
        if v in self.unread:
            self.unread.remove(v)
        self.add(y)
        self.made[spec.name] += 1
        self.attempts += 1
        return True

    def pick(self, spec: Spec) -> Value | None:
        """Draw a value that the spec is for: more often one that nothing has read."""
        found = [v for v in self.unread[-2:] if spec.fits(v)] if self.draft.chance(0.75) else []
        found = found or [v for v in self.draft.values if spec.fits(v)]
        return self.rng.choice(found) if found else None

    def finished(self) -> Graph:
        """Return the graph of what nothing has read, with inner values as outputs here and there, and updates."""
        *others, last = self.unread[-3:]
        likely = probabilities(last) if self.draft.chance(0.4) else last
        last = likely if self.size([*others, likely]) <= self.most else last
        while self.size([*others, last]) < self.fewest:
            last = activation(self.draft, last)
        outputs = {f"y{i}": v.node for i, v in enumerate([*others, last])}
        for category, often in (("conv", 0.2), ("norm", 0.2), ("variable", 0.05)):
            found = [n for n in topological(outputs.values()) if n.op.category == category]
            if found and self.draft.chance(often):
                outputs[category] = self.rng.choice(found)
        room = self.most - self.size([*others, last])
        return Graph(outputs, self.updates(room), self.inputs)

    def updates(self, room: int) -> dict[Node, Node]:
        """Return now and then an update that changes nothing, and one that counts."""
        found: dict[Node, Node] = {}
        if self.draft.chance(0.1) and room >= 1:
            kept = variable((), name="kept", init=1.0, trainable=False)
            found[kept] = kept
        if self.draft.chance(0.1) and room >= 4:
            steps = variable((), name="steps", init=0, dtype="int64", trainable=False)
            found[steps] = steps + ops.constant(1)
        return found


def probabilities(v: Value) -> Value:
    """Return a softmax, over everything of an example."""
    return Value(ops.softmax(ops.flatten(v.node)))


# --- values -------------------------------------------------------------------------------------------------------


def random_values(
    graph: Graph, rng: random.Random, kind: str = "random", sizes: Mapping[str, int] | None = None
) -> dict[str, Array]:
    """Return values for all inputs and variables of a graph by label, in their dtypes; `sizes` binds symbolic sizes.

    What a variable is for, its role, is what batch norms read it as, or the last word of its label. kind: "random";
    "large": magnitudes of 10³ … 10⁴, as far as the dtype allows; "tiny": variances near 0 and weights near the
    smallest normal number; "zeros"; "cancelling": values that differ little from the means to be subtracted;
    "ramp": rising numbers, that make a wrong order of axes show. Variances are never negative.

    >>> graph = random_network(random.Random(0))
    >>> values = random_values(graph, random.Random(1), "large", sizes={"N": 2})
    >>> sorted(values) == sorted(n.label for n in (*graph.inputs, *graph.variables))
    True
    """
    if kind not in KINDS:
        raise ArgumentError("no such kind of values", expected=", ".join(KINDS), got=repr(kind))
    numbers = np.random.default_rng(rng.getrandbits(64))
    bound = {name: rng.choice((2, 3)) for name in graph.symbols} | dict(sizes or {})
    roles = _roles(graph)
    values = {}
    for node in (*graph.inputs, *graph.variables):
        shape = tuple(known(s) for s in node.tensor_type.bind(bound).shape)
        if is_float(node.dtype):
            moderate = _moderate(roles[node], shape, numbers)
            limits = np.finfo("float32" if node.dtype == "bfloat16" else node.dtype)  # they have the same exponents
            made = KINDS[kind](roles[node], moderate, numbers, limits)
        else:
            made = numbers.integers(0, 2 if node.dtype == "bool" else 3, shape)
        values[node.label] = np.asarray(made, array_dtype(node.dtype))
    return values


def _roles(graph: Graph) -> dict[Node, str]:
    """Return what each input and variable is for."""
    roles = {node: node.label.rpartition("/")[2] for node in graph.variables}
    roles.update(dict.fromkeys(graph.inputs, "input"))
    for node in graph.nodes:
        if isinstance(node.op, BatchNorm):
            read_as = zip(node.inputs[1:], ("gamma", "beta", "moving_mean", "moving_variance", "count"), strict=False)
            roles.update({operand: role for operand, role in read_as if operand in roles})
    return roles


def _moderate(role: str, shape: tuple[int, ...], numbers: np.random.Generator) -> Array:
    if role == "moving_variance":
        return numbers.uniform(0.2, 2.0, shape)
    if role == "count":
        return np.asarray(numbers.integers(0, 5, shape), float)
    if role == "learning_rate":
        return np.full(shape, 0.01)
    x: Array = np.asarray(numbers.standard_normal(shape))
    if role == "gamma":
        return np.where(numbers.random(shape) < 0.15, 0.0, x)
    # The sum over a kernel's inputs has about the size of one of them; which axis holds the outputs, only the ops know.
    return x / np.sqrt(x.size / max(shape)) if role == "kernel" else x


def _random(role: str, x: Array, numbers: np.random.Generator, limits: Any) -> Array:
    return x


def _large(role: str, x: Array, numbers: np.random.Generator, limits: Any) -> Array:
    factor = 10 ** (numbers.uniform(3, 4) if float(limits.max) > 1e30 else numbers.uniform(1, 2))
    if role == "moving_variance":
        return x * factor**2
    return x * factor if role in ("input", "bias", "beta", "moving_mean") else x


def _tiny(role: str, x: Array, numbers: np.random.Generator, limits: Any) -> Array:
    if role == "moving_variance" and numbers.random() < 0.3:  # not in each: gains of 1/√ε multiply
        return np.asarray(numbers.choice(np.array([0.0, limits.tiny, 1e-8, 1.0]), x.shape))
    return np.where(numbers.random(x.shape) < 0.2, x * float(limits.tiny), x) if role == "kernel" else x


def _zeros(role: str, x: Array, numbers: np.random.Generator, limits: Any) -> Array:
    return np.zeros_like(x)


def _cancelling(role: str, x: Array, numbers: np.random.Generator, limits: Any) -> Array:
    mean = 100.0 if float(limits.max) > 1e30 else 8.0
    if role == "kernel":
        return x * 1e-3
    return mean + x * 1e-3 if role in ("input", "bias", "moving_mean") else x


def _ramp(role: str, x: Array, numbers: np.random.Generator, limits: Any) -> Array:
    return np.sort(x, axis=None).reshape(x.shape)


# kind → (role, moderate values, generator, limits of the dtype) → values
KINDS: Mapping[str, Callable[[str, Array, np.random.Generator, Any], Array]] = {
    "random": _random, "large": _large, "tiny": _tiny, "zeros": _zeros, "cancelling": _cancelling, "ramp": _ramp,
}  # fmt: skip


# --- training -----------------------------------------------------------------------------------------------------


def training_graph(graph: Graph, seed: int = 0) -> Graph:
    """Return the training graph of a definition: its outputs, `loss` (their mean squares, summed), gradients, updates.

    All trainable variables that the loss depends on are updated by SGD, with moving averages and random counters as
    `lower` updates them.

    >>> graph = training_graph(random_network(random.Random(0)))
    >>> "loss" in graph.outputs and len(graph.updates) > 2
    True
    """
    lowered = lower(graph, "training", seed)
    widest = max((y.dtype for y in lowered.outputs.values()), key=DTYPES.__getitem__)
    loss = reduce(ops.add, (ops.cast(ops.mean(y * y), widest) for y in lowered.outputs.values()))
    trainable = [n for n in topological([loss]) if isinstance(n.op, Variable) and n.op.trainable]
    pairs = list(zip(trainable, gradients(loss, trainable), strict=True))
    return Graph({**lowered.outputs, "loss": loss}, {**lowered.updates, **SGD().updates(pairs)}, lowered.inputs)
