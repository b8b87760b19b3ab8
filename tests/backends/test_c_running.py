"""Programs of the C backend as they run: updates in place, threads, forks, interrupts, and what a reader is shown."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping

import numpy as np
import pytest

import minigraph as mg
from backends.c_programs import Array, backend, merged, needs_compiler, on_numpy, run
from minigraph import ops
from minigraph.errors import GraphError, NonFiniteError
from minigraph.ir import Graph, Node, variable
from minigraph.ir.leaves import input as input_
from minigraph.runtime import Program, State, compile

pytestmark = needs_compiler
SHAPE = (6, 37)


def variables(*shapes: tuple[int, ...]) -> list[Node]:
    """Return variables a, b, c …"""
    return [variable(shape, name=name, init=0.0) for name, shape in zip("abcd", shapes, strict=False)]


def numbers(graph: Graph, seed: int = 0) -> dict[str, Array]:
    """Return values for inputs and variables, away from 0."""
    rng = np.random.default_rng(seed)
    return {n.label: rng.uniform(0.5, 1.5, n.shape).astype(n.dtype) for n in (*graph.inputs, *graph.variables)}  # type: ignore[arg-type]


def same_as_numpy(graph: Graph, steps: int = 3, optimize: bool = True, threads: int = 2) -> Program:
    """Run some steps on both backends, compare outputs and states of each, and return the program."""
    values = numbers(graph)
    programs = [compile(graph, backend=on, optimize=optimize) for on in (backend(threads), "numpy")]
    states = [State({v.label: values[v.label].copy() for v in graph.variables}) for _ in programs]
    inputs = {i.label: values[i.label] for i in graph.inputs}
    for _ in range(steps):
        got, expected = (program(state, **inputs) for program, state in zip(programs, states, strict=True))
        for name, array in {**expected, **states[1]}.items():
            np.testing.assert_allclose(
                {**got, **states[0]}[name], array, rtol=2e-5, atol=1e-6, err_msg=f"{name} of\n{graph}"
            )
    return programs[0]


# --- updates in place -----------------------------------------------------------------------------------------------


def _swapped(a: Node, b: Node, x: Node) -> tuple[Mapping[str, Node], Mapping[Node, Node]]:
    return {}, {a: b, b: a}


def _swapped_and_scaled(a: Node, b: Node, x: Node) -> tuple[Mapping[str, Node], Mapping[Node, Node]]:
    return {}, {a: b * 2.0, b: a * 0.5}


def _momentum(a: Node, b: Node, x: Node) -> tuple[Mapping[str, Node], Mapping[Node, Node]]:
    velocity = b * 0.9 + x
    return {}, {a: a - velocity * 0.1, b: velocity}


def _read_after_it_was_written(a: Node, b: Node, x: Node) -> tuple[Mapping[str, Node], Mapping[Node, Node]]:
    return {"y": ops.sum(ops.exp(a), 0)}, {a: a + x, b: b * ops.sum(a, 0)}


def _outputs_are_variables(a: Node, b: Node, x: Node) -> tuple[Mapping[str, Node], Mapping[Node, Node]]:
    return {"old": a, "new": a + x, "other": b}, {a: a + x, b: b - x}


def _two_updates_of_one_value(a: Node, b: Node, x: Node) -> tuple[Mapping[str, Node], Mapping[Node, Node]]:
    both = a * b + x
    return {}, {a: both, b: both}


def _views(a: Node, b: Node, x: Node) -> tuple[Mapping[str, Node], Mapping[Node, Node]]:
    flat = ops.reshape(a, (-1,)) * ops.reshape(x, (-1,))
    return {"y": ops.reshape(a, (37, 6)) + 1.0}, {
        a: ops.reshape(flat, SHAPE),
        b: ops.reshape(ops.reshape(b, (-1,)), SHAPE) + a,
    }


def _reversed(a: Node, b: Node, x: Node) -> tuple[Mapping[str, Node], Mapping[Node, Node]]:
    return {}, {a: a[::-1, ::-1] * x, b: ops.transpose(ops.reshape(b, (37, 6)))}


def _whole_rows_are_read(a: Node, b: Node, x: Node) -> tuple[Mapping[str, Node], Mapping[Node, Node]]:
    return {}, {a: a - ops.mean(a, 1, keepdims=True), b: ops.softmax(b) + a}


def _products(a: Node, b: Node, x: Node) -> tuple[Mapping[str, Node], Mapping[Node, Node]]:
    square = ops.matmul(a, ops.transpose(b))
    return {"y": square}, {a: ops.matmul(square, a) * 0.01, b: b - 0.001 * ops.matmul(ops.transpose(square), a)}


def _a_chain(a: Node, b: Node, x: Node) -> tuple[Mapping[str, Node], Mapping[Node, Node]]:
    return {}, {a: b, b: x, x: a}


Updates = Callable[[Node, Node, Node], tuple[Mapping[str, Node], Mapping[Node, Node]]]
ALL: list[Updates] = [
    _swapped, _swapped_and_scaled, _momentum, _read_after_it_was_written, _outputs_are_variables,
    _two_updates_of_one_value, _views, _reversed, _whole_rows_are_read, _products, _a_chain,
]  # fmt: skip


def each_updated() -> list[Graph]:
    """Return a graph for each kind of updates."""
    graphs = []
    for updates in ALL:
        a, b, x = variables(SHAPE, SHAPE, SHAPE)
        outputs, changes = updates(a, b, x)
        graphs.append(Graph({"sum": ops.sum(x), **outputs}, changes))
    return graphs


@pytest.mark.parametrize("optimize", [False, True])
def test_updates_read_old_values(optimize: bool) -> None:
    same_as_numpy(merged(each_updated()), optimize=optimize)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(ALL)))
def test_updates_read_old_values_one_by_one(number: int) -> None:
    for optimize in (False, True):
        same_as_numpy(each_updated()[number], optimize=optimize)


def test_updates_are_written_over_their_variables() -> None:
    a, b, x = variables(SHAPE, SHAPE, SHAPE)
    program = same_as_numpy(Graph({}, _momentum(a, b, x)[1]))
    assert {v.label for v in program.plan.written.values()} == {"a", "b"}
    swapped = same_as_numpy(Graph({}, _swapped(a, b, x)[1]))
    assert not swapped.plan.written


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_large_updates_on_some_threads(threads: int) -> None:
    a, b, x = variables((211, 333), (211, 333), (211, 333))
    outputs, updates = _momentum(a, b, x)
    same_as_numpy(Graph({"norm": ops.sum(a * a), "rows": ops.sum(b, 0), **outputs}, updates), threads=threads)


def test_a_state_of_other_arrays_is_bound_anew() -> None:
    a, x = variable((5,), name="a"), input_((5,), name="x")
    program = compile({"y": a * x}, updates={a: a + x}, backend=backend())
    one = np.ones(5, np.float32)
    first, second = State({"a": one.copy()}), State({"a": 5 * one})
    for _ in range(2):
        program(first, x=one)
        program(second, x=2 * one)
    np.testing.assert_array_equal(first["a"], 3 * one)
    np.testing.assert_array_equal(second["a"], 9 * one)


# --- what NumPy computes in between ---------------------------------------------------------------------------------


def test_numpy_computes_what_there_is_no_code_for() -> None:
    x, w = input_(SHAPE, name="x"), variable(SHAPE, name="w", init=1.0)
    half = ops.cast(ops.tanh(x), "float16") * 2.0
    graph = Graph({"y": ops.relu(ops.cast(half, "float32") + x)}, {w: w + ops.exp(x)})
    program = same_as_numpy(graph)
    assert on_numpy(program)
    assert not program.plan.written  # what may be interrupted in the middle is committed at the end


def test_an_op_that_fails_is_named() -> None:
    x, i = input_((4, 3), name="x"), input_((2,), "int64", name="i")
    program = compile({"y": ops.gather(ops.tanh(x), i, 0) * 2.0}, backend=backend())
    expected = compile({"y": ops.gather(ops.tanh(x), i, 0) * 2.0})
    for index in ([0, 3], [-4, -1]):
        values = {"x": np.ones((4, 3), np.float32), "i": np.array(index)}
        np.testing.assert_allclose(program(**values)["y"], expected(**values)["y"], rtol=1e-6)
    with pytest.raises(mg.errors.ProgramError, match="gather") as caught:
        program(x=np.ones((4, 3)), i=[0, 4])
    assert __file__ in str(caught.value)


# --- threads, forks, interrupts -------------------------------------------------------------------------------------


def large() -> tuple[Program, dict[str, Array], Array]:
    """Return a program that keeps its threads busy, its inputs, and what it computes."""
    x = input_((300, 300), name="x")
    program = compile({"y": ops.tanh(ops.matmul(ops.relu(x), x)) + ops.mean(x, 0)}, backend=backend(3))
    values = {"x": np.random.default_rng(0).standard_normal((300, 300)).astype(np.float32) * 0.1}
    return program, values, program(**values)["y"]


def test_programs_run_side_by_side_in_python_threads() -> None:
    program, values, expected = large()
    other = compile({"z": ops.exp(input_((300, 300), name="x"))}, backend=backend(2))
    wrong: list[str] = []

    def work(one: Program, name: str, right: Array) -> None:
        for _ in range(20):
            if one(**values)[name].tobytes() != right.tobytes():
                wrong.append(name)

    threads = [threading.Thread(target=work, args=(program, "y", expected)) for _ in range(2)]
    threads += [threading.Thread(target=work, args=(other, "z", other(**values)["z"])) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_same_call_gives_the_same_bits(threads: int) -> None:
    x = input_((57, 300), name="x")
    graph = Graph({"sum": ops.sum(x), "mean": ops.mean(x, 0), "y": ops.matmul(ops.transpose(x), x)})
    values = numbers(graph)
    program = compile(graph, backend=backend(threads))
    first = {name: array.tobytes() for name, array in run(program, values).items()}
    for _ in range(5):
        assert {name: array.tobytes() for name, array in run(program, values).items()} == first


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_process_computes_the_same() -> None:
    program, values, expected = large()
    context = multiprocessing.get_context("fork")
    for _ in range(5):
        program(**values)  # its threads are awake at the moment of the fork
        queue = context.SimpleQueue()
        child = context.Process(target=lambda q=queue: q.put(program(**values)["y"]))
        child.start()
        np.testing.assert_array_equal(queue.get(), expected)
        child.join(20)
        assert child.exitcode == 0
        np.testing.assert_array_equal(program(**values)["y"], expected)


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
@pytest.mark.parametrize("kept", [False, True], ids=["all in place", "one is an output, and committed"])
def test_an_interrupt_comes_through_and_leaves_whole_steps(kept: bool) -> None:
    shape = (400, 400)
    a, b, c = variables(shape, shape, shape)
    updates = {a: a + (ops.matmul(c, c) * 0.0 + 1.0), b: b + 1.0}
    program = compile(Graph({"kept": b} if kept else {}, updates), backend=backend())
    state = State({label: np.zeros(shape, np.float32) for label in "abc"})
    program(state)
    assert len(program.plan.written) == (1 if kept else 2)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    for delay in (0.0005, 0.001, 0.002, 0.004):
        signal.setitimer(signal.ITIMER_REAL, delay)
        with pytest.raises(KeyboardInterrupt):
            while True:
                program(state)
        assert np.ptp(state["a"]) == np.ptp(state["b"]) == 0
        assert state["a"][0, 0] == state["b"][0, 0]
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


# --- what a program promises on every backend -----------------------------------------------------------------------


def test_a_step_that_is_not_finite_is_not_committed() -> None:
    w, x = variable((4,), name="w", init=1.0), input_((4,), name="x")
    program = compile({"y": ops.log(x)}, updates={w: w + ops.log(x)}, backend=backend(), check_finite=True)
    state = State.initial([w])
    program(state, x=np.ones(4))
    with pytest.raises(NonFiniteError, match="log"):
        program(state, x=np.array([1, 1, -1, 1]))
    np.testing.assert_array_equal(state["w"], np.ones(4))


def test_a_memory_limit_holds() -> None:
    x = input_((64, 256), name="x")
    y = x
    for _ in range(8):
        y = ops.softmax(y * 2.0)
    graph = Graph({"g": mg.gradients(ops.sum(y * y), [x])[0]})
    free = compile(graph, backend=backend())
    limit = free.plan.peak * 3 // 4
    limited = compile(graph, backend=backend(), memory_limit=limit)
    values = numbers(graph)
    np.testing.assert_allclose(run(limited, values)["g"], run(free, values)["g"], rtol=1e-5)
    assert limited.plan.peak <= limit
    with pytest.raises(GraphError, match="memory"):
        compile(graph, backend=backend(), memory_limit=1000).prepare()


def test_the_source_names_each_step_and_the_line_it_comes_from() -> None:
    x, w = input_((8, 12, 12, 5), name="x"), variable((3, 3, 5, 7), name="w")
    line = sys._getframe().f_lineno + 1
    y = ops.relu(ops.conv2d(x, w, padding="same"))
    program = compile({"y": y, "t": ops.sum(ops.tanh(x), (0, 1, 2))}, backend=backend())
    run(program, numbers(program.definition))
    assert f"{__file__}:{line}" in program.source
    for step in program.plan.steps:
        body = [s.op.name for s in getattr(step.node.op, "body", ())] or [step.node.op.name]
        assert f": {', '.join(body)}\n" in program.source
    assert "conv2d, relu" in program.source and "tanh, sum" in program.source


def test_a_profile_leaves_the_state_as_it_was() -> None:
    a, b, x = variables(SHAPE, SHAPE, SHAPE)
    graph = Graph({}, _momentum(a, b, x)[1])
    program = compile(graph, backend=backend())
    state = State(numbers(graph))
    before = {name: array.copy() for name, array in state.items()}
    profile = program.profile(state, repeats=3)
    assert "group" in str(profile)
    for name, array in before.items():
        np.testing.assert_array_equal(state[name], array)
