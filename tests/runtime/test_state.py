"""State, profile, evaluate, and the interpreter."""

from __future__ import annotations

import numpy as np
import pytest

import minigraph as mg
from minigraph import ops
from minigraph.errors import DTypeError, GraphError, NonFiniteError, ProgramError, ShapeError
from minigraph.ir import Graph, Item, Node, symbol, variable
from minigraph.ir.leaves import input as input_
from minigraph.layers import initializers
from minigraph.runtime import Interpreter, State, explain_non_finite


def test_assignment_writes_into_the_array_that_is_there():
    state = State({"w": np.zeros((2, 2), np.float32)})
    array = state["w"]
    for value in (np.ones((2, 2)), [[1, 2], [3, 4]], np.ones((2, 2), np.float16), np.ones((2, 2), bool)):
        state["w"] = value
        assert state["w"] is array and array.dtype == np.float32
        np.testing.assert_array_equal(array, value)


def test_assignment_refuses_what_does_not_fit_and_changes_nothing():
    state = State({"w": np.zeros(2, np.float32), "n": np.zeros(2, np.int64)})
    for bad in (np.zeros(3), np.zeros((1, 2)), 1.0):
        with pytest.raises(ShapeError, match="'w' has another shape"):
            state["w"] = bad
    for name, bad in (("w", np.zeros(2, complex)), ("n", np.array([0.5, 1.5])), ("w", np.array(["a", "b"]))):
        with pytest.raises(DTypeError, match=f"'{name}' has the wrong dtype"):
            state[name] = bad
    assert not state["w"].any() and not state["n"].any()


@pytest.mark.parametrize(
    ("dtype", "number"), [("int8", 300), ("uint8", -1), ("uint16", 2**16), ("uint32", 2**32), ("uint64", -1)]
)
def test_assignment_refuses_integers_that_do_not_fit(dtype, number):
    state = State({"n": np.zeros(1, dtype)})
    with pytest.raises((DTypeError, mg.errors.DataError)):
        state["n"] = [number]


def test_values_given_are_copied():
    given = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    state = State({"w": given})
    state["w"][...] = 0
    assert given.any() and state["w"].flags.c_contiguous


def test_a_state_is_a_mapping():
    state = State({"a": np.zeros(2), "b": np.ones(3)})
    assert list(state) == ["a", "b"] and len(state) == 2 and "a" in state and "c" not in state
    with pytest.raises(KeyError):
        state["c"]
    copy = state.copy()
    copy["a"] = [5, 5]
    assert not state["a"].any()
    del state["a"]
    assert list(state) == ["b"] and repr(state) == "<State: 1 variables, 24 bytes>"
    state.update({"b": [7, 7, 7], "c": 1.0})
    assert state["b"][0] == 7 and state["c"] == 1.0


def test_first_values():
    nodes = [
        variable((3,), name="number", init=2), variable((2, 2), name="flag", init=True, dtype="bool"),
        variable((4, 4), name="a", init=initializers.glorot_uniform()),
        variable((4, 4), name="b", init=initializers.glorot_uniform()),
        variable((), name="n", init=0, dtype="int64"),
        variable((64, 64), name="half", init=initializers.he_normal(), dtype="float16"),
    ]  # fmt: skip
    first, again, other = State.initial(nodes), State.initial(nodes), State.initial(nodes, seed=1)
    assert all(first[n.label].dtype == n.dtype and first[n.label].shape == n.shape for n in nodes)
    assert all(np.array_equal(first[k], again[k]) for k in first)
    assert not np.array_equal(first["a"], first["b"]) and not np.array_equal(first["a"], other["a"])
    np.testing.assert_array_equal(first["number"], 2)


def test_a_seed_of_the_initialisers_own():
    a, b = (variable((4, 4), name=n, init=initializers.glorot_uniform(seed=7)) for n in "ab")
    assert np.array_equal(State.initial([a, b])["a"], State.initial([b], seed=5)["b"])


def test_add_gives_values_only_to_those_without():
    a, b = variable((2,), name="a", init=1.0), variable((2,), name="b", init=2.0)
    state = State({"a": np.zeros(2, np.float32)})
    state.add([a, b])
    assert state["a"][0] == 0 and state["b"][0] == 2


def test_no_first_value_and_open_sizes_are_refused():
    with pytest.raises(GraphError, match="variable 'w' has no first value"):
        State.initial([variable((2,), name="w")])
    with pytest.raises(ShapeError, match="the size of 'w' is the symbolic size N"):
        State.initial([variable((symbol("N"),), name="w", init=0.0)])


# --- profile --------------------------------------------------------------------------------------------------------


def test_a_profile_has_a_row_a_kernel_call_with_its_cost():
    x, w = input_((symbol("N"), 8), name="x"), variable((8, 4), name="w", init=1.0)
    program = mg.compile({"y": ops.exp(ops.reshape(x @ w, (-1,)))}, {w: w + 1.0})
    state = State.initial([w])
    profile = program.profile(state, repeats=3, x=np.ones((5, 8)))
    assert [t.node.op.name for t in profile.timings] == [s.node.op.name for s in program.plan.steps]
    by_op = {t.node.op.name: t for t in profile.timings}
    assert set(by_op) == {"matmul", "exp", "add"}
    assert by_op["matmul"].flops == 2 * 5 * 8 * 4 and by_op["matmul"].bytes == 4 * (5 * 8 + 8 * 4 + 5 * 4)
    assert by_op["exp"].flops == 4 * 20 and by_op["add"].flops == 32
    assert all(t.seconds > 0 for t in profile.timings)
    assert profile.seconds == pytest.approx(sum(t.seconds for t in profile.timings))
    text = str(profile)
    assert len(text.splitlines()) == 5 and "GFLOP/s" in text and "3 kernel calls" in text


def test_a_profile_commits_nothing_and_checks_its_inputs():
    w, x = variable((3,), name="w", init=1.0), input_((3,), name="x")
    program = mg.compile({}, {w: ops.exp(w) + x})
    state = State.initial([w])
    program.profile(state, x=[1, 2, 3])
    np.testing.assert_array_equal(state["w"], 1)
    with pytest.raises(ProgramError, match="inputs are missing"):
        program.profile(state)
    program(state, x=[1, 2, 3])
    np.testing.assert_allclose(state["w"], np.e + np.array([1, 2, 3]), rtol=1e-6)


# --- evaluate and the interpreter -----------------------------------------------------------------------------------


def test_evaluate():
    x, w = input_((symbol("N"),), name="x"), variable((), name="w", init=3.0)
    assert mg.evaluate(ops.sum(x) * w, x=[1, 2]) == 9
    a, b = mg.evaluate([x + 1.0, ops.constant(2)], x=[1.0])
    assert a == [2] and b == 2
    assert mg.evaluate(w, State({"w": np.float32(5)})) == 5
    named = input_((), name="outputs") + input_((), name="state")
    assert mg.evaluate(named, None, outputs=1, state=2) == 3


def test_the_interpreter_has_one_hook():
    class Recorder(Interpreter):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[str] = []

        def run_node(self, node: Node, inputs: list) -> object:
            self.seen.append(node.op.name)
            return super().run_node(node, inputs)

    x = input_((4,), name="x")
    pieces = ops.split(ops.exp(x), 2)
    y = ops.reshape(pieces[1], (2, 1)) * 2.0
    recorder = Recorder()
    values = recorder.run(Graph({"y": y}), {"x": np.arange(4)})
    np.testing.assert_allclose(values[y], 2 * np.exp([[2], [3]]), rtol=1e-6)
    assert recorder.seen == ["exp", "split", "item", "reshape", "constant", "mul"]
    assert isinstance(pieces[0].op, Item)
    with pytest.raises(ProgramError, match="no value for 'x'"):
        recorder.run(Graph({"y": y}), {})


def test_explaining_what_is_not_finite():
    x = input_((2,), name="x")
    graph = Graph({"y": ops.exp(x * 1000.0)})
    explain_non_finite(graph, {"x": np.float32([0, -1])})
    with pytest.raises(NonFiniteError, match="exp made"):
        explain_non_finite(graph, {"x": np.float32([0, 1])})
