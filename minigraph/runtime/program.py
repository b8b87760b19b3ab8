"""From graph to program: bind sizes, optimise, plan, bind kernels; then a call is a flat list of kernel calls."""

from __future__ import annotations

import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from minigraph.backends.base import Array, Backend, Bound, get
from minigraph.errors import DataError, GraphError, NonFiniteError, ProgramError, ShapeError, did_you_mean
from minigraph.ir.graph import Graph, bind
from minigraph.ir.leaves import Constant, Variable
from minigraph.ir.node import Node
from minigraph.ir.types import Dim, TensorType, is_float, known
from minigraph.ops.norm import BatchNorm
from minigraph.ops.random import Dropout
from minigraph.passes import pipelines
from minigraph.passes.driver import Pass, run
from minigraph.passes.fuse import FUSE, UNFUSE
from minigraph.passes.group import Group
from minigraph.passes.trace import Trace
from minigraph.runtime import debug
from minigraph.runtime.accelerator import floors_on
from minigraph.runtime.interpreter import constant_evaluator, explain_non_finite
from minigraph.runtime.pending import Pending
from minigraph.runtime.plan import Plan, PlanStep, make_plan
from minigraph.runtime.profile import Profile, measure
from minigraph.runtime.residence import Residence
from minigraph.runtime.state import State, as_array

# How many sets of input sizes a program keeps ready.
KEPT_SIZES = 8


def compile(
    outputs: Graph | Mapping[str, Node],
    updates: Mapping[Node, Node] | None = None,
    backend: str | Backend = "numpy",
    *,
    check_finite: bool = False,
    optimize: bool = True,
    memory_limit: int | None = None,
) -> Program:
    """Return a program that computes `outputs` (name → node, or a whole graph) and commits `updates`.

    check_finite: refuse to commit a step whose outputs or updates are not finite, and name the op that made them so.
    memory_limit: bytes that the program may need beside variables and constants; values are computed a second time
    until it fits, or a GraphError says how little was reached.

    >>> from minigraph.ir.leaves import input, variable
    >>> x, w = input((3,), name="x"), variable((3,), name="w", init=2.0)
    >>> program = compile({"y": x * w}, updates={w: w + x})
    >>> state = State.initial([w])
    >>> program(state, x=[1, 2, 3])["y"], state["w"]
    (array([2., 4., 6.], dtype=float32), array([3., 4., 5.], dtype=float32))
    """
    if isinstance(outputs, Graph):
        graph = Graph(outputs.outputs, {**outputs.updates, **(updates or {})}, outputs.inputs)
    else:
        graph = Graph(outputs, updates)
    return Program(graph, get(backend), check_finite=check_finite, optimize=optimize, memory_limit=memory_limit)


class Program:
    """A compiled graph: call it with a state and the inputs by name; it returns the outputs by name.

    Sizes are bound by the arrays it is called with, and what was prepared for them is kept. A call allocates nothing
    but its results. Updates are committed after everything is computed, all or none.
    """

    def __init__(
        self, graph: Graph, backend: Backend, *, check_finite: bool = False, optimize: bool = True,
        memory_limit: int | None = None,
    ) -> None:  # fmt: skip
        _refuse_open_modes(graph)
        self.definition = graph
        self.backend = backend
        self.check_finite = check_finite
        self.optimize = optimize
        self.memory_limit = memory_limit
        # How many submitted steps it pays to have under way before the results of the first are waited for.
        self.ahead = 2 if backend.remote else 0
        self._lock = threading.Lock()
        self._timed = "time" in debug.asked()
        self._prepared: OrderedDict[tuple[tuple[str, int], ...], _Prepared] = OrderedDict()
        self._latest: _Prepared | None = None

    @property
    def graph(self) -> Graph:
        """The optimised graph of the latest call; before the first, of the open sizes."""
        if self._latest is None and self.definition.symbols:
            return run(self._passes(bound=False), self.definition)[0]
        return self._any().graph

    @property
    def trace(self) -> Trace:
        """What the passes did for the latest call's sizes."""
        return self._any().trace

    @property
    def plan(self) -> Plan:
        """The memory plan of the latest call's sizes."""
        return self._any().plan

    @property
    def source(self) -> str:
        """The code that the latest call ran, as the backend wrote it."""
        prepared = self._any()
        if prepared.bound is None:
            raise ProgramError("the program has not been called yet", hint="its code is made for a state's arrays")
        return prepared.bound.code.source

    def _any(self) -> _Prepared:
        if self._latest is None:
            if self.definition.symbols:
                raise ProgramError(
                    "the program has no sizes yet",
                    expected="a call, or prepare(N=…)",
                    got=f"open sizes {', '.join(self.definition.symbols)}",
                )
            return self.prepare()
        return self._latest

    def _passes(self, bound: bool = True) -> list[Pass]:
        """Return the passes to run; how much memory is needed is known of bound graphs only."""
        if not self.optimize:
            return pipelines.legalise() + ([UNFUSE] if self.backend.generates else [])
        means = pipelines.Means(constant_evaluator(), peak=self._peak)
        return pipelines.legalise() + pipelines.program(means, self.memory_limit if bound else None, self._join())

    def _join(self) -> list[Pass]:
        """Return the passes that make one op of what the backend computes in one go."""
        return [UNFUSE, Group(self.backend.computes)] if self.backend.generates else [FUSE]

    def _peak(self, graph: Graph) -> int:
        """Return the bytes that a graph will need once its elementwise ops are fused."""
        return make_plan(run(self._join(), graph)[0], self.backend.needs).peak

    def prepare(self, **sizes: int) -> _Prepared:
        """Bind sizes, optimise and plan, unless that is done already; return what was prepared."""
        missing = [s for s in self.definition.symbols if s not in sizes]
        if missing:
            raise ProgramError("sizes are missing", expected=", ".join(f"{s}=…" for s in missing), got=sizes)
        key = tuple(sorted(sizes.items()))
        prepared = self._prepared.get(key)
        if prepared is None:
            checked = "verify" in debug.asked()
            graph, trace = run(self._passes(), bind(self.definition, **sizes), verify_each=checked)
            prepared = _Prepared(graph, trace, self.backend, self.check_finite)
            self._prepared[key] = prepared
            if len(self._prepared) > KEPT_SIZES:
                self._prepared.popitem(last=False)
        self._prepared.move_to_end(key)
        self._latest = prepared
        return prepared

    def __call__(self, state: State | None = None, /, **inputs: Any) -> dict[str, Any]:
        """Run once: return the outputs as fresh arrays, with the updates committed to `state`.

        Raises a ProgramError for missing or unknown inputs and for two steps at once on one program, a ShapeError or
        DTypeError for arrays that do not fit; then nothing has changed.
        """
        return self._submit(state, inputs).result()

    def submit(self, state: State | None = None, /, **inputs: Any) -> Pending:
        """Run once, as a call does, but do not wait for the outputs where a device computes them.

        The inputs may be written into at once. What goes wrong on the device is raised by `result()`, unless a step
        that has updates to commit must be known to be well before: then this waits.

        >>> from minigraph.ir.leaves import input
        >>> program = compile({"y": input((2,), name="x") * 2.0})
        >>> pending = program.submit(x=[1, 2])
        >>> pending.result()
        {'y': array([2., 4.], dtype=float32)}
        """
        return self._submit(state, inputs)

    def repeat(self, state: State, times: int) -> None:
        """Run so many times, one step after the other; outputs are not returned.

        For a program without inputs, which takes its data out of variables: a GPU launches all steps at once. Each
        step is committed as a whole, like that of a call. Raises a ProgramError if the program has inputs.

        >>> from minigraph.ir.leaves import variable
        >>> w = variable((), name="w", init=1.0)
        >>> state = State.initial([w])
        >>> compile({}, {w: w * 2.0}).repeat(state, 10)
        >>> float(state["w"])
        1024.0
        """
        if self.definition.inputs:
            names = ", ".join(node.label for node in self.definition.inputs)
            raise ProgramError("a program that is repeated can have no inputs", got=names)
        self._submit(state, {}, times)

    def _submit(self, state: State | None, inputs: Mapping[str, Any], times: int = 1) -> Pending:
        if self.definition.updates and self._lock.locked():
            raise ProgramError(
                "the program is running already",
                hint="a training program runs one step at a time; give each thread its own",
            )
        with self._lock:  # a `with` is never interrupted between taking the lock and what gives it back
            if state is None or not self.backend.remote:
                return self._run(state, inputs, times)
            with state.lock:  # what counts where must not change between a look at it and the step
                return self._run(state, inputs, times)

    def _run(self, state: State | None, inputs: Mapping[str, Any], times: int) -> Pending:
        bound = self._latest.bound if self._latest is not None else None
        if bound is None or not bound.takes(state, inputs):
            arrays = self._check_inputs(inputs)
            bound = self.prepare(**sizes_of(self.definition, arrays)).bind(state)
            inputs = arrays
        for name, target in bound.inputs.items():
            self.backend.upload(target, inputs[name])
        if times > 1 and bound.repeats:
            with self.backend.running():
                bound.run(times)
            return Pending((), list)
        for _ in range(times - 1):
            self._guarded(bound, state, inputs)
        return self._guarded(bound, state, inputs) if times else Pending((), list)

    def _guarded(self, bound: _Bound, state: State | None, inputs: Mapping[str, Any]) -> Pending:
        completed = bound.code.completed()
        try:
            return self._step(bound, state, inputs)
        except KeyboardInterrupt:  # it may come out of a call that has written updates already: then all are written
            if bound.code.completed() != completed:
                bound.commit()
            raise

    def _step(self, bound: _Bound, state: State | None, inputs: Mapping[str, Any]) -> Pending:
        """Run, check, and commit."""
        start = time.perf_counter()
        with self.backend.running():
            bound.run()
        if self._timed:
            self.backend.download(())()  # waits
            print(f"{len(bound.plan.steps)} kernels: {(time.perf_counter() - start) * 1e3:.3f} ms", file=sys.stderr)
        if self.check_finite and not bound.finite():
            self._explain(state, self._check_inputs(inputs))
        results = Pending(bound.names, self.backend.download(bound.results))
        if bound.may_fail:
            results.result()
        bound.commit()
        return results

    def _explain(self, state: State | None, arrays: Mapping[str, Any]) -> None:
        sizes = sizes_of(self.definition, arrays)
        graph = run(pipelines.legalise(), bind(self.definition, **sizes))[0]  # as the user wrote it, nothing folded
        explain_non_finite(graph, {**(state or {}), **arrays}, "numpy" if self.backend.remote else self.backend)
        raise NonFiniteError("a value is not finite, though each op alone gives finite ones", where="")

    def release(self) -> None:
        """Let go of the arrays of the state it was last called with; the next call is bound anew."""
        with self._lock:
            for prepared in self._prepared.values():
                prepared.bound = None

    def profile(self, state: State | None = None, /, repeats: int = 10, **inputs: Any) -> Profile:
        """Return the time of each node, with its FLOPs and bytes; nothing is committed."""
        with self._lock:
            arrays = self._check_inputs(inputs)
            prepared = self.prepare(**sizes_of(self.definition, arrays))
            bound = prepared.bind(state)
            feed = [(target, arrays[name]) for name, target in bound.inputs.items()]

            def refill() -> None:
                for target, value in feed:
                    self.backend.upload(target, value)

            kept = self.backend.download(bound.variables)()
            try:
                with self.backend.running():
                    steps = prepared.plan.steps
                    kernels = [bound.code.step(i) for i in range(len(steps))]
                    return measure([step.node for step in steps], kernels, refill, repeats, floors_on(self.backend))
            finally:
                for array, before in zip(bound.variables, kept, strict=True):
                    self.backend.upload(array, before)

    def _check_inputs(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the inputs as arrays in the graph's order, or raise."""
        expected = {node.label: node for node in self.definition.inputs}
        unknown = [name for name in inputs if name not in expected]
        if unknown:
            raise ProgramError(
                f"no input is called {unknown[0]!r}",
                expected=", ".join(expected) or "no inputs",
                got=", ".join(inputs),
                hint=did_you_mean(unknown[0], list(expected)),
            )
        missing = [name for name in expected if name not in inputs]
        if missing:
            raise ProgramError("inputs are missing", expected=", ".join(expected), got=", ".join(inputs) or "none")
        return {name: _check_array(name, inputs[name], node.tensor_type) for name, node in expected.items()}


def _refuse_open_modes(graph: Graph) -> None:
    for node in graph.nodes:
        if isinstance(node.op, Dropout) or (isinstance(node.op, BatchNorm) and node.op.moving is not None):
            raise GraphError(
                f"{node.op.name} means different things in training and in inference",
                expected="a lowered graph",
                got="a definition",
                where=node.origin.where,
                hint='mg.lower(graph, "training") or mg.lower(graph, "inference") first',
            )


def _check_array(name: str, value: Any, type: TensorType) -> Any:
    array = as_array(f"input {name!r}", value, type.dtype)
    check_shape(name, array, type)
    return array


def check_shape(name: str, array: Any, type: TensorType) -> None:
    """Raise a ShapeError unless an array has an input's shape, where symbols may stand for any size."""
    fits = array.ndim == type.rank and all(
        isinstance(s, Dim) or s == n for s, n in zip(type.shape, array.shape, strict=False)
    )
    if not fits:
        raise ShapeError(
            f"input {name!r} has the wrong shape",
            expected=type,
            got=f"{array.dtype}[{','.join(map(str, array.shape))}]",
            hint="the batch axis comes first, channels last" if array.ndim != type.rank else None,
        )


def sizes_of(graph: Graph, arrays: Mapping[str, Any]) -> dict[str, int]:
    """Return the numbers that the shapes of inputs, by name, give the symbolic sizes; two inputs must agree."""
    found: dict[str, tuple[int, str]] = {}
    for node in graph.inputs:
        for size, number in zip(node.shape, arrays[node.label].shape, strict=True):
            if isinstance(size, Dim) and len(size.symbols) == 1 and size.coefficient == 1:
                symbol = size.symbols[0]
                first = found.setdefault(symbol, (number, node.label))
                if first[0] != number:
                    raise DataError(
                        f"two inputs disagree about the size {symbol}",
                        expected=f"{first[0]}, from {first[1]!r}",
                        got=f"{number} in {node.label!r}",
                    )
    sizes = {symbol: number for symbol, (number, _) in found.items()}
    for node in graph.inputs:
        bound, shape = node.tensor_type.bind(sizes).shape, arrays[node.label].shape
        if bound != shape:
            raise DataError(f"the size of {node.label!r} does not fit the other inputs", expected=bound, got=shape)
    return sizes


class _Prepared:
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
        self.bound: _Bound | None = None
        self._labels = [node.label for node in graph.variables]
        self._changed = [node.label for node in graph.updates]

    def bind(self, state: State | None) -> _Bound:
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
            self.bound = _Bound(self, arrays)
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


class _Bound:
    """Kernels bound to arrays, the input arrays to fill, the output arrays to copy, the updates to commit."""

    def __init__(self, prepared: _Prepared, variables: list[Array]) -> None:
        self.variables = variables
        self.backend = prepared.backend
        self.plan = prepared.plan
        self.arena = prepared.arena
        graph = prepared.graph
        self.arrays: dict[Node, Any] = dict(zip(graph.variables, variables, strict=True))
        self.items: dict[tuple[Node, int], Array] = {}
        for node in graph.nodes:
            self._locate(node)
        self.code = self.backend.bind([self._step(step) for step in self.plan.steps], self.arena)
        self.inputs = {node.label: self.arrays[node] for node in graph.inputs}
        self.names = list(graph.outputs)
        self.results = [self.arrays[node] for node in graph.outputs.values()]
        updates = [(t, v) for t, v in graph.updates.items() if self.plan.roots[v] not in self.plan.written]
        self._targets = [self.arrays[target] for target, _ in updates]
        self._values = [self.arrays[value] for _, value in updates]
        ends = {*graph.outputs.values(), *(value for _, value in updates)}
        self._floats = [self.arrays[node] for node in ends if is_float(node.dtype)]
        # A value that is itself a variable's memory would change under the commits before it: it is set aside first.
        self._aside: list[tuple[Array, Array]] = []
        for i, (_, value) in enumerate(updates):
            if isinstance(self.plan.roots[value][0].op, Variable):
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

    def run(self, times: int = 1) -> None:
        """Run all steps, or do so many times; a ProgramError names the node whose kernel fails."""
        try:
            if times == 1:
                self.code()
            else:
                self.code.repeat(times)
        except Exception as error:
            node = self.plan.steps[self.code.failed(error)].node
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


def evaluate(outputs: Node | Iterable[Node], state: State | None = None, /, **inputs: Any) -> Any:
    """Return the value of a node (or of several, as a list): compile, run once, forget. For looking at small things.

    >>> from minigraph.ops import constant, sqrt
    >>> evaluate(sqrt(constant([1.0, 4.0])))
    array([1., 2.], dtype=float32)
    """
    nodes = [outputs] if isinstance(outputs, Node) else list(outputs)
    graph = Graph({str(i): node for i, node in enumerate(nodes)})
    if state is None and graph.variables:
        state = State.initial(graph.variables)
    results = compile(graph)(state, **inputs)
    values = [results[str(i)] for i in range(len(nodes))]
    return values[0] if isinstance(outputs, Node) else values
