"""A data set beside the variables: a training step takes its batch out of it by itself, and needs no input.

So many steps can be launched at once, and a device that holds the data waits for no copy of a batch. The order of an
epoch is a variable too, and so is the place in it that the next step begins at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from minigraph import ops
from minigraph.backends.dtypes import array_dtype
from minigraph.data import Batches
from minigraph.ir.graph import Graph, bind, same_or_rebuilt
from minigraph.ir.leaves import variable
from minigraph.ir.node import Node
from minigraph.ir.types import DTYPES, TensorType, known
from minigraph.runtime import Pending, Program, compile
from minigraph.runtime.program import check_shape, sizes_of
from minigraph.runtime.state import as_array

if TYPE_CHECKING:
    from minigraph.training.fitting import Progress, Taking
    from minigraph.training.model import Model, Training

Array = np.ndarray[Any, Any]
ORDER, POSITION = "data/order", "data/position"


def resident(graph: Graph, data: Mapping[str, TensorType], batch_size: int) -> Graph:
    """Return a training step that takes `batch_size` samples out of variables in the place of inputs, and only updates.

    data: types of whole data sets by the input's label, the first axis counts samples. A sample's number is read in
    the variable `data/order`, from the place `data/position` on, which moves on by a batch. Each output, times
    the size of the batch, is added to a float64 variable `data/total/<output>`. Of a batch that reaches past the end
    the last sample is repeated.

    >>> from minigraph.ir import symbol
    >>> from minigraph.ir.leaves import input
    >>> x, w = input((symbol("N"), 2), name="x"), variable((2,), name="w", init=0.0)
    >>> step = Graph({"loss": ops.mean(x * w)}, {w: w + ops.mean(x, 0)})
    >>> [v.label for v in resident(step, {"x": TensorType((50, 2), "uint8")}, 8).updates]
    ['w', 'data/position', 'data/total/loss']
    """
    batches = {name: TensorType((batch_size, *type.shape[1:]), type.dtype) for name, type in data.items()}
    bound = bind(graph, **sizes_of(graph, batches))
    samples = next(iter(data.values())).shape[0]
    order = variable((samples,), name=ORDER, dtype=order_dtype(known(samples)), trainable=False)
    position = variable((), name=POSITION, dtype="int64", trainable=False)
    places = ops.gather(order, position + ops.constant(np.arange(batch_size)), mode="clip")
    new: dict[Node, Node] = {}
    for node in bound.inputs:
        type = data[node.label]
        kept = variable(type.shape, name=data_label(node.label), dtype=type.dtype, trainable=False)
        new[node] = ops.cast(ops.gather(kept, places, mode="clip"), node.dtype)
    for node in bound.nodes:
        if node not in new:
            new[node] = same_or_rebuilt(node, tuple(new[i] for i in node.inputs))
    updates = {new[target]: new[value] for target, value in bound.updates.items()}
    updates[position] = position + batch_size
    for name, node in bound.outputs.items():
        total = variable((), name=total_label(name), dtype="float64", trainable=False)
        updates[total] = total + ops.cast(ops.reshape(new[node], ()), "float64") * float(batch_size)
    return Graph({}, updates)


def data_label(name: str) -> str:
    """Return the label of the variable that holds an input's data."""
    return f"data/{name}"


def total_label(name: str) -> str:
    """Return the label of the variable that sums up an output over an epoch."""
    return f"data/total/{name}"


def order_dtype(samples: int) -> str:
    """Return the integers that samples are counted with.

    >>> order_dtype(60_000)
    'int32'
    """
    return "int32" if samples < 1 << 31 else "int64"


def labels_of(graph: Graph) -> list[str]:
    """Return the labels of all variables that `resident` adds."""
    data = [data_label(node.label) for node in graph.inputs]
    return [*data, ORDER, POSITION, *(total_label(name) for name in graph.outputs)]


def kept_data(graph: Graph, data: Mapping[str, Any]) -> dict[str, Array]:
    """Return a data set's arrays as variables hold them; an error for what the graph's inputs do not take.

    They have the input's dtype, or their own where that is narrower and all its numbers are among the input's: images
    of 8-bit integers stay so until a batch of them is read.
    """
    return {node.label: _kept(node, np.asarray(data[node.label])) for node in graph.inputs}


def _kept(node: Node, array: Array) -> Array:
    check_shape(node.label, array, node.tensor_type)
    own, wanted = array.dtype, array_dtype(node.dtype)
    if str(own) in DTYPES and own.itemsize < wanted.itemsize and np.can_cast(own, wanted, "safe"):
        return np.asarray(array, order="C")
    return np.asarray(as_array(f"input {node.label!r}", array, node.dtype), wanted, order="C")


@dataclass
class ResidentPrograms:
    """The programs for data of one form, cut into batches of one size."""

    training: Training
    graph: Graph
    data: Mapping[str, TensorType]
    batch_size: int
    _steps: dict[int, Program] = field(default_factory=dict)

    def fits(self, data: Mapping[str, TensorType], batch_size: int) -> bool:
        """Tell whether they are those for this data."""
        return self.data == data and self.batch_size == batch_size

    def step(self, size: int) -> Program:
        """Return the step on a batch of this size: the usual one, or what is left at an epoch's end."""
        if size not in self._steps:
            graph = resident(self.graph, self.data, size)
            self._steps[size] = compile(graph, backend=self.training.on, memory_limit=self.training.memory_limit)
        return self._steps[size]

    @cached_property
    def totals(self) -> Program:
        """Return the program that reads the sums."""
        variables = {name: variable((), name=total_label(name), dtype="float64") for name in self.graph.outputs}
        return compile(variables, backend=self.training.on)

    def release(self) -> None:
        """Let go of the data."""
        for program in (*self._steps.values(), self.totals):
            program.release()


class ResidentFeed:
    """The data lies in the model's state, unlisted, while the fit runs: inside its context."""

    def __init__(self, model: Model, batches: Batches, data: Mapping[str, Array], programs: ResidentPrograms) -> None:
        self.batches = batches
        self.programs = programs
        self.ahead = programs.totals.ahead
        self._state = model.state
        self._batch = 0
        zeros = {total_label(name): np.zeros(()) for name in programs.graph.outputs}
        order = np.zeros(batches.samples, order_dtype(batches.samples))
        arrays = {data_label(name): array for name, array in data.items()}
        self._arrays = {**arrays, ORDER: order, POSITION: np.zeros((), np.int64), **zeros}

    def __enter__(self) -> None:
        self._state.attach(self._arrays)

    def __exit__(self, *error: object) -> None:
        for label in self._arrays:
            del self._state[label]
        self.programs.release()

    def begin(self, progress: Progress) -> None:
        """Lay out the epoch's order, and the sums and the place of a resumed one."""
        self._batch = progress.batch
        self._state[ORDER] = self.batches.order(progress.epoch)
        self._state[POSITION] = progress.batch * self.batches.batch_size
        for name in self.programs.graph.outputs:
            self._state[total_label(name)] = progress.totals.get(name, 0.0)

    def run(self, count: int) -> Iterator[Taking]:
        """Launch the steps on full batches together, and that on what is left by itself."""
        size, samples = self.batches.batch_size, self.batches.samples
        full = min(count, samples // size - self._batch)
        if full:
            self.programs.step(size).repeat(self._state, full)
        if full < count:
            self.programs.step(samples % size).repeat(self._state, 1)
        self._batch += count
        yield _reaching(self.programs.totals.submit(self._state), self._batch, min(self._batch * size, samples))


def _reaching(pending: Pending, batch: int, samples: int) -> Taking:
    return lambda progress: progress.reach(pending.result(), batch, samples)
