"""A program for one set of sizes: its plan and arena, and its kernels bound to a state's arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from minigraph.backends.base import Array, Backend, Bound
from minigraph.errors import ProgramError, ShapeError
from minigraph.ir.graph import Graph
from minigraph.ir.leaves import Constant, Variable
from minigraph.ir.node import Node
from minigraph.ir.types import TensorType, is_float, known
from minigraph.ops.shape import Cast
from minigraph.passes.trace import Trace
from minigraph.runtime import debug
from minigraph.runtime.plan import PlanStep, make_plan
from minigraph.runtime.residence import Residence
from minigraph.runtime.state import State


class Prepared:
    """What one set of sizes needs: the bound graph, the plan, the arena; and the kernels, bound to a state's arrays."""

    def __init__(self, graph: Graph, trace: Trace, backend: Backend, check_finite: bool) -> None:
        self.graph = graph
        self.trace = trace
        self.backend = backend
        # What may turn out not to be finite is not written before it has been looked at.
        self.whole = not check_finite and backend.commits_in_place(graph)
        self.plan = make_plan(graph, backend.needs, self.whole, updates_last=backend.remote)
        debug.look(trace, self.plan)
        self.arena = backend.allocate(self.plan.peak)
        self.bound: Binding | None = None
        self._labels = [node.label for node in graph.variables]
        self._changed = [node.label for node in graph.updates]

    def bind(self, state: State | None) -> Binding:
        """Return the kernels for a state; they are made anew only when the state's arrays are others."""
        if self.bound is not None and self.bound.knows(state):
            return self.bound
        self._check_variables(state)
        residence = state.on(self.backend) if state is not None and self.backend.remote else None
        if residence is not None:
            arrays = residence.take(self._labels, self._changed)
        else:
            arrays = [] if state is None else state.bring(self._labels)
        if self.bound is None or any(a is not b for a, b in zip(arrays, self.bound.variables, strict=True)):
            self.bound = Binding(self, arrays)
        self.bound.meet(state, residence)
        return self.bound

    def _check_variables(self, state: State | None) -> None:
        for node in self.graph.variables:
            if state is None or node.label not in state:
                raise ProgramError(
                    f"the state has no value for variable {node.label!r}",
                    expected=str(node.type),
                    where=node.origin.where,
                    hint="make one: State.initial(graph.variables, seed=0)",
                )
            array = state.peek(node.label)
            if array.shape != node.shape or str(array.dtype) != node.dtype:
                raise ShapeError(
                    f"the state's {node.label!r} does not fit",
                    expected=node.type,
                    got=f"{array.dtype}{list(array.shape)}",
                )


class Binding:
    """Kernels bound to arrays, the input arrays to fill, the output arrays to copy, the updates to commit."""

    def __init__(self, prepared: Prepared, variables: list[Array]) -> None:
        self.variables = variables
        self.backend = prepared.backend
        self.plan = prepared.plan
        self.arena = prepared.arena
        graph = prepared.graph
        self.arrays: dict[Node, Any] = dict(zip(graph.variables, variables, strict=True))
        self.items: dict[tuple[Node, int], Array] = {}
        for node in graph.nodes:
            self._locate(node)
        updates = [(t, v) for t, v in graph.updates.items() if self.plan.roots[v] not in self.plan.written]
        steps = [self._step(step) for step in self.plan.steps]
        ends = {*graph.outputs.values(), *(value for _, value in updates)}
        if prepared.whole and self.backend.remote and not any(map(self._is_variable, ends)):
            # A step that runs as a whole commits itself: a device need not hear of each copy.
            steps += [self._commit(target, value) for target, value in updates]
            updates = []
        self._nodes = [step.node for step in steps]
        self.code = self.backend.bind(steps, self.arena)
        self.inputs = {node.label: self.arrays[node] for node in graph.inputs}
        self.names = list(graph.outputs)
        self.results = [self.arrays[node] for node in graph.outputs.values()]
        self._targets = [self.arrays[target] for target, _ in updates]
        self._values = [self.arrays[value] for _, value in updates]
        self._floats = [self.arrays[node] for node in ends if is_float(node.dtype)]
        # A value that is itself a variable's memory would change under the commits before it: it is set aside first.
        self._aside: list[tuple[Array, Array]] = []
        for i, (_, value) in enumerate(updates):
            if self._is_variable(value):
                self._aside.append((self._like(value.tensor_type), self._values[i]))
                self._values[i] = self._aside[-1][0]
        # A device may find out on the way that a step cannot be done: before it commits, it must be known to be well.
        self.may_fail = self.backend.remote and bool(graph.updates) and not prepared.whole
        self.repeats = prepared.whole and not updates
        self._state: State | None = None
        self._residence: Residence | None = None
        self._changes = -1

    def meet(self, state: State | None, residence: Residence | None) -> None:
        """Remember the state whose arrays these are, as it is now; its copies on the device live as long."""
        self._state, self._residence = state, residence
        self._changes = -1 if state is None else state.changes

    def knows(self, state: State | None) -> bool:
        """Tell whether it is the same state, with the same arrays, and their numbers count where the kernels look."""
        return state is self._state and (state.changes == self._changes if state is not None else not self.variables)

    def takes(self, state: State | None, inputs: Mapping[str, Any]) -> bool:
        """Tell whether these very arrays, or others of their form, were bound: then nothing needs to be checked."""
        if len(inputs) != len(self.inputs) or not self.knows(state):
            return False
        for name, target in self.inputs.items():
            value = inputs.get(name)
            if type(value) is not np.ndarray or value.dtype != target.dtype or value.shape != target.shape:
                return False
        return True

    def _locate(self, node: Node) -> None:
        """Give a node's value its array: in the arena, as a view of another value, or as a constant's own."""
        if isinstance(node.op, Variable):
            return
        if isinstance(node.op, Constant):
            self.arrays[node] = self.backend.from_bytes(node.op.data, _numbers(node.op.type), node.op.type.dtype)
            return
        root = self.plan.roots[node]
        if root != (node, 0):
            base = self.items.get(root)
            base = self.arrays[root[0]] if base is None else base
            self.arrays[node] = base.reshape(_numbers(node.tensor_type))
        elif isinstance(node.type, TensorType):
            self.arrays[node] = self._view(node, 0, node.type)
        else:
            views = [self._view(node, i, t) for i, t in enumerate(node.type.items)]
            self.items.update({(node, i): v for i, v in enumerate(views)})
            self.arrays[node] = tuple(views)

    def _like(self, type: TensorType) -> Array:
        memory = self.backend.allocate(known(type.nbytes))
        return self.backend.view(memory, 0, _numbers(type), type.dtype)

    def _view(self, node: Node, index: int, type: TensorType) -> Array:
        variable = self.plan.written.get((node, index))
        if variable is not None:
            return self.arrays[variable]
        return self.backend.view(self.arena, self.plan.slots[node, index].offset, _numbers(type), type.dtype)

    def _step(self, step: PlanStep) -> Bound:
        offset, size = (step.workspace.offset, step.workspace.nbytes) if step.workspace is not None else (0, 0)
        node = step.node
        inputs = [self.arrays[i] for i in node.inputs]
        workspace = self.backend.view(self.arena, offset, (size,), "uint8")
        return Bound(node, inputs, self.arrays[node], workspace)

    def _is_variable(self, value: Node) -> bool:
        return isinstance(self.plan.roots[value][0].op, Variable)

    def _commit(self, target: Node, value: Node) -> Bound:
        """Return the step that copies an update's value to its variable."""
        copied = Node(Cast(value.dtype), (value,), origin=value.origin)
        nothing = self.backend.view(self.arena, 0, (0,), "uint8")
        return Bound(copied, [self.arrays[value]], self.arrays[target], nothing)

    def run(self, times: int = 1) -> None:
        """Run all steps, or do so many times; a ProgramError names the node whose kernel fails."""
        try:
            if times == 1:
                self.code()
            else:
                self.code.repeat(times)
        except Exception as error:
            node = self._nodes[self.code.failed(error)]
            raise ProgramError(f"{node.op.name} failed: {error}", where=node.origin.where) from error

    def finite(self) -> bool:
        """Tell whether all outputs and update values are finite."""
        return self.backend.finite(self._floats)

    def commit(self) -> None:
        """Write all updates; an interrupt in between lets them all be written before it goes on."""
        for copy, source in self._aside:
            self.backend.copy(copy, source)
        try:
            self._write()
        except BaseException:
            self._write()
            raise

    def _write(self) -> None:
        for target, value in zip(self._targets, self._values, strict=True):
            self.backend.copy(target, value)


def _numbers(type: TensorType) -> tuple[int, ...]:
    return tuple(known(s) for s in type.shape)
