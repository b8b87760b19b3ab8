"""From graph to program: bind sizes, optimise, plan, bind kernels; then a call is a flat list of kernel calls."""

from __future__ import annotations

import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from minigraph.backends.base import Backend, get
from minigraph.errors import DataError, GraphError, NonFiniteError, ProgramError, ShapeError, did_you_mean
from minigraph.ir.graph import Graph, bind
from minigraph.ir.node import Node
from minigraph.ir.types import Dim, TensorType
from minigraph.ops.norm import BatchNorm
from minigraph.ops.random import Dropout
from minigraph.passes import pipelines
from minigraph.passes.driver import Pass, run
from minigraph.passes.fuse import FUSE, UNFUSE
from minigraph.passes.group import Group
from minigraph.passes.trace import Trace
from minigraph.runtime import debug
from minigraph.runtime.accelerator import floors_on
from minigraph.runtime.binding import Binding, Prepared
from minigraph.runtime.interpreter import constant_evaluator, explain_non_finite
from minigraph.runtime.pending import Pending
from minigraph.runtime.plan import Plan, make_plan
from minigraph.runtime.profile import Profile, measure
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
        self._prepared: OrderedDict[tuple[tuple[str, int], ...], Prepared] = OrderedDict()
        self._latest: Prepared | None = None

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

    def _any(self) -> Prepared:
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

    def prepare(self, **sizes: int) -> Prepared:
        """Bind sizes, optimise and plan, unless that is done already; return what was prepared."""
        missing = [s for s in self.definition.symbols if s not in sizes]
        if missing:
            raise ProgramError("sizes are missing", expected=", ".join(f"{s}=…" for s in missing), got=sizes)
        key = tuple(sorted(sizes.items()))
        prepared = self._prepared.get(key)
        if prepared is None:
            checked = "verify" in debug.asked()
            graph, trace = run(self._passes(), bind(self.definition, **sizes), verify_each=checked)
            prepared = Prepared(graph, trace, self.backend, self.check_finite)
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

    def _guarded(self, bound: Binding, state: State | None, inputs: Mapping[str, Any]) -> Pending:
        completed = bound.code.completed()
        try:
            return self._step(bound, state, inputs)
        except KeyboardInterrupt:  # it may come out of a call that has written updates already: then all are written
            if bound.code.completed() != completed:
                bound.commit()
            raise

    def _step(self, bound: Binding, state: State | None, inputs: Mapping[str, Any]) -> Pending:
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
