"""Programs and states over a backend whose arrays lie on a device of their own, where work is queued."""

from __future__ import annotations

import copy
import gc
import pickle
import random
import threading

import numpy as np
import pytest
from ir.random_graphs import runnable, values_for

import minigraph as mg
from minigraph import ops
from minigraph.errors import ArgumentError, NonFiniteError, ProgramError, ShapeError
from minigraph.ir import Graph, symbol, variable
from minigraph.ir.leaves import input as input_
from runtime.remote import Remote, RemoteBackend

N = symbol("N")


def counting(backend, step: float = 1.0, **options) -> tuple[mg.Program, mg.State]:
    """A program that adds its input to one variable and counts in another."""
    x, w, n = input_((2,), name="x"), variable((2,), name="w", init=0.0), variable((), name="n", init=0.0)
    program = mg.compile({"old": w, "sum": w + x}, {w: w + x * step, n: n + 1.0}, backend, **options)
    return program, mg.State.initial([w, n])


def test_the_device_is_a_strict_one():
    array = RemoteBackend().allocate(4)
    for use in (lambda: np.asarray(array), lambda: np.copyto(array, 0), lambda: array[0], lambda: np.add(array, 1)):
        with pytest.raises((AssertionError, TypeError, ValueError)):
            use()


def test_random_graphs_give_the_numbers_of_the_host():
    for seed in range(60):
        graph = runnable(random.Random(seed + 900))
        values = values_for(graph, seed)
        results = []
        for backend in (mg.backends.NumpyBackend(1), RemoteBackend()):
            state = mg.State({v.label: values[v.label] for v in graph.variables})
            program = mg.compile(graph, backend=backend)
            for _ in range(2):
                out = program(state, **{i.label: values[i.label] for i in graph.inputs})
            results.append({**out, **{f"state/{k}": v for k, v in state.items()}})
        for name, value in results[0].items():
            assert type(results[1][name]) is np.ndarray
            np.testing.assert_array_equal(results[1][name], value, err_msg=f"{name}\n{graph}")


# --- a state whose numbers are elsewhere ------------------------------------------------------------------------------


def test_whoever_asks_gets_the_latest_numbers_in_the_same_array():
    program, state = counting(RemoteBackend())
    array = state["w"]
    program(state, x=[1, 2])
    assert not array.any(), "an array that was kept shows nothing new"
    assert state["w"] is array and array.tolist() == [1, 2] and float(state.get("n")) == 1


def test_nothing_is_copied_that_nobody_asks_for():
    backend = RemoteBackend()
    program, state = counting(backend)
    pendings = [program.submit(state, x=[1, 1]) for _ in range(5)]
    assert backend.waits == 0 and len(backend.uploads) == 2 + 5  # variables once, and an input each time
    assert [p.result()["old"][0] for p in pendings] == [0, 1, 2, 3, 4]
    assert len(state) == 2 and list(state) == ["w", "n"] and "w" in state and "2 variables" in repr(state)
    assert backend.waits == 5
    assert float(state["n"]) == 5 and backend.waits == 6
    program(state, x=[1, 1])
    assert len(backend.uploads) == 9, "what was read may have been written into, so it goes up again; the rest does not"


def test_what_is_written_on_the_host_is_what_the_next_step_reads():
    program, state = counting(RemoteBackend())
    program(state, x=[1, 2])
    state["w"] = [10, 10]
    assert program(state, x=[1, 2])["sum"].tolist() == [11, 12]
    state["w"][0] = 100
    assert program(state, x=[1, 2])["sum"].tolist() == [101, 14] and float(state["n"]) == 3
    with pytest.raises(ShapeError):
        state["w"] = [1, 2, 3]
    assert state["w"].tolist() == [101, 14]


def test_programs_of_one_backend_share_what_lies_on_it():
    backend = RemoteBackend()
    program, state = counting(backend)
    w, v = variable((2,), name="w"), variable((3,), name="v", init=5.0)
    other = mg.compile({"double": w * 2.0, "v": v}, backend=backend)
    state.add([v])
    program(state, x=[1, 2])
    before = len(backend.allocations)
    assert other(state)["double"].tolist() == [2, 4]
    assert len(backend.allocations) == before + 2, "its arena, and the one variable that was not there"
    uploads = len(backend.uploads)
    for i in range(3):
        program(state, x=[1, 2])
        assert other(state)["double"].tolist() == [2 * (i + 2), 4 * (i + 2)]
    assert len(backend.uploads) == uploads + 3


def test_a_program_that_only_reads_keeps_its_copies_and_sees_what_is_written():
    backend = RemoteBackend()
    w = variable((2,), name="w", init=1.0)
    program, state = mg.compile({"y": w * 2.0}, backend=backend), mg.State.initial([w])
    for _ in range(3):
        gc.collect()
        assert program(state)["y"].tolist() == [2, 2] and len(backend.uploads) == 1
    state["w"][...] = 3
    assert program(state)["y"].tolist() == [6, 6]
    state["w"] = [4, 4]
    assert program(state)["y"].tolist() == [8, 8] and len(backend.uploads) == 3


def test_variables_of_the_first_program_lie_side_by_side():
    backend = RemoteBackend()
    vs = [variable((100,), name=f"v{i}", init=float(i)) for i in range(5)]
    program, state = mg.compile({"sum": sum(vs[1:], vs[0])}, backend=backend), mg.State.initial(vs)
    assert program(state)["sum"][0] == 10
    places = [state.on(backend).arrays[v.label]._data.__array_interface__["data"][0] for v in vs]
    assert np.diff(places).tolist() == [512] * 4 and 5 * 512 in backend.allocations


def test_host_and_devices_take_turns():
    one, two = RemoteBackend(), RemoteBackend()
    programs = [counting(b, step)[0] for b, step in ((one, 1.0), ("numpy", 2.0), (two, 3.0), (one, 0.5))]
    references = [counting("numpy", step)[0] for step in (1.0, 2.0, 3.0, 0.5)]
    state, reference = counting("numpy")[1], counting("numpy")[1]
    rng = random.Random(0)
    for _ in range(80):
        i = rng.randrange(4)
        got = programs[i](state, x=np.float32([i, 1]))
        expected = references[i](reference, x=np.float32([i, 1]))
        assert all(np.array_equal(got[k], expected[k]) for k in expected)
        if rng.random() < 0.3:
            name = rng.choice("wn")
            np.testing.assert_array_equal(state[name], reference[name])
        if rng.random() < 0.2:
            state["n"] = reference["n"] = rng.random()


def test_copies_and_pickles_hold_the_latest_numbers():
    program, state = counting(RemoteBackend())
    for i, make in enumerate((mg.State.copy, copy.deepcopy, copy.copy, lambda s: pickle.loads(pickle.dumps(s))), 1):
        program(state, x=[1, 2])
        made = make(state)
        assert made["w"].tolist() == [i, 2 * i] and list(made) == ["w", "n"]
        assert program.submit(made, x=[0, 0]).result()["old"].tolist() == [i, 2 * i]
    assert pickle.loads(pickle.dumps(mg.State())) == {}


def test_all_values_come_at_once():
    backend = RemoteBackend()
    vs = [variable((), name=f"v{i}", init=0.0) for i in range(20)]
    program, state = mg.compile({}, {v: v + 1.0 for v in vs}, backend), mg.State.initial(vs)
    for read in (lambda: dict(state.items()), lambda: list(state.values()), state.copy):
        program.submit(state)
        before = backend.waits
        read()
        assert backend.waits == before + 1
    assert all(value == 3 for value in state.values())


def test_a_variable_that_is_replaced():
    backend = RemoteBackend()
    program, state = counting(backend)
    program(state, x=[1, 2])
    del state["w"]
    with pytest.raises(ProgramError, match="no value for variable 'w'"):
        program(state, x=[1, 2])
    with pytest.raises(KeyError):
        state["w"]
    state["w"] = np.float32([7, 7])
    assert program(state, x=[1, 2])["old"].tolist() == [7, 7] and float(state["n"]) == 2


def test_one_program_many_states():
    program, a = counting(RemoteBackend())
    b = a.copy()
    for i in range(3):
        program(a, x=[1, 1])
        program(b, x=[2, 2])
        assert (a["w"][0], b["w"][0]) == (i + 1, 2 * i + 2)


def test_numbers_on_a_device_outlive_the_programs_that_made_them():
    program, state = counting(RemoteBackend())
    program(state, x=[1, 2])
    del program
    gc.collect()
    assert state["w"].tolist() == [1, 2] and state._residences
    assert float(state["n"]) == 1
    gc.collect()
    assert not state._residences, "nobody needs the device's copies any more"


def test_arrays_that_the_state_does_not_list():
    backend = RemoteBackend()
    program, state = counting(backend)
    data = np.arange(6, dtype=np.float32).reshape(3, 2)
    with pytest.raises(ArgumentError, match="has such variables"):
        state.attach({"w": data})
    state.attach({"data": data})
    assert state["data"] is data and "data" in state and len(state) == 2 and "data" not in dict(state.items())
    held = variable((3, 2), name="data")
    reader = mg.compile({"y": ops.sum(held)}, backend=backend)
    assert reader(state)["y"] == 15
    assert 256 in backend.allocations, "by itself, to be given up by itself"
    assert "data" not in state.copy() and "data" not in pickle.loads(pickle.dumps(state))
    del state["data"]
    assert "data" not in state and state.on(backend).arrays.keys() == set()
    program(state, x=[1, 1])


# --- steps ------------------------------------------------------------------------------------------------------------


def test_inputs_may_be_changed_while_a_step_is_under_way():
    x = input_((N, 2), name="x")
    program = mg.compile({"y": x * 2.0}, backend=RemoteBackend())
    array, pendings = np.zeros((3, 2), np.float32), []
    for i in range(4):
        array[...] = i
        pendings.append(program.submit(x=array))
    assert [p.result()["y"][0, 0] for p in pendings[::-1]] == [6, 4, 2, 0]
    assert pendings[0].result() is pendings[0].result()


def test_updates_that_exchange_variables():
    a, b, c = (variable((2,), name=n, init=float(i)) for i, n in enumerate("abc"))
    for repeats in (1, 4):
        program = mg.compile({}, {a: b, b: c, c: a}, RemoteBackend())
        state = mg.State.initial([a, b, c])
        program.repeat(state, repeats)
        assert [float(state[n][0]) for n in "abc"] == [1, 2, 0]


def test_an_error_of_the_device_comes_with_the_result():
    x = input_((N,), "int64", "x")
    program = mg.compile({"y": ops.gather(ops.constant([1.0, 2.0]), x)}, backend=RemoteBackend())
    good, bad = program.submit(x=[0, 1]), program.submit(x=[0, 5])
    assert good.result  # both are under way
    with pytest.raises(ProgramError, match="out of range"):
        bad.result()
    assert program(x=[1])["y"] == [2]


def test_a_step_that_may_fail_on_the_device_is_known_to_be_well_before_it_commits():
    backend = RemoteBackend()
    x, w = input_((), "int64", "x"), variable((3,), name="w", init=1.0)
    program = mg.compile({}, {w: w + ops.gather(w, x)}, backend)
    state = mg.State.initial([w])
    program.submit(state, x=1)
    assert backend.waits == 1
    with pytest.raises(ProgramError, match="out of range"):
        program.submit(state, x=3)
    assert state["w"].tolist() == [2, 2, 2]
    program(state, x=-1)
    assert state["w"].tolist() == [4, 4, 4]


def test_what_is_not_finite_is_found_before_it_is_committed():
    x, w = input_((2,), name="x"), variable((2,), name="w", init=1.0)
    program = mg.compile({"y": ops.sum(ops.log(x))}, {w: w + ops.log(x)}, RemoteBackend(), check_finite=True)
    state = mg.State.initial([w])
    program(state, x=[1, 1])
    with pytest.raises(NonFiniteError, match="log made"):
        program(state, x=[1, 0])
    assert state["w"].tolist() == [1, 1]
    program(state, x=[1, 1])


def test_values_that_are_set_aside_are_looked_at_as_they_are():
    """What the last commit, or nobody, left in the memory that is set aside does not count."""
    a, b, x = variable((), name="a", init=1.0), variable((), name="b", init=2.0), input_((), name="x")
    for backend in ("numpy", RemoteBackend()):
        program, state = mg.compile({}, {a: b, b: b + x}, backend, check_finite=True), mg.State.initial([a, b])
        program(state, x=1.0)
        state["b"] = np.inf
        with pytest.raises(NonFiniteError):
            program(state, x=0.0)
        state["b"] = 5.0
        program(state, x=0.0)
        assert float(state["a"]) == 5


def test_a_profile_commits_nothing():
    program, state = counting(RemoteBackend())
    program(state, x=[1, 2])
    assert program.profile(state, repeats=2, x=[1, 2]).timings
    assert state["w"].tolist() == [1, 2]
    assert program(state, x=[1, 2])["old"].tolist() == [1, 2]


def test_times_are_told_when_the_step_is_done(monkeypatch, capsys):
    monkeypatch.setenv("MINIGRAPH_DEBUG", "time")
    backend = RemoteBackend()
    program, state = counting(backend)
    program.submit(state, x=[1, 2])
    assert backend.waits == 1 and "kernels:" in capsys.readouterr().err


def test_an_interrupt_before_the_step_changes_nothing(monkeypatch):
    backend = RemoteBackend()
    program, state = counting(backend)
    program(state, x=[1, 2])

    def interrupt(*_):
        raise KeyboardInterrupt

    for name in ("upload", "running"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(backend, name, interrupt)
            program(state, x=[1, 2])
        assert state["w"].tolist() == [1, 2]
    program(state, x=[1, 2])
    assert state["w"].tolist() == [2, 4]


def test_reading_from_another_thread_loses_no_step():
    program, state = counting(RemoteBackend())
    seen, done = [], threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.append((float(state["n"]), state.copy()["w"][0]))

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(300):
        program.submit(state, x=[1, 1])
    done.set()
    reader.join()
    assert float(state["n"]) == 300 and seen == sorted(seen)


# --- several steps at once --------------------------------------------------------------------------------------------


def doubling(backend) -> tuple[mg.Program, mg.State]:
    w, n = variable((2,), name="w", init=1.0), variable((), name="n", init=0, dtype="int64")
    return mg.compile({"w": w}, {w: w * 2.0, n: n + 1}, backend), mg.State.initial([w, n])


@pytest.mark.parametrize("backend", ["numpy", "c", "remote"])
def test_repeating_is_calling_so_often(backend):
    program, state = doubling(RemoteBackend() if backend == "remote" else backend)
    for times, expected in ((0, 0), (1, 1), (3, 4), (5, 9)):
        assert program.repeat(state, times) is None
        assert int(state["n"]) == expected and state["w"].tolist() == [2.0**expected] * 2


def test_a_device_repeats_by_itself_where_nothing_is_left_to_copy():
    backend = RemoteBackend()
    w, n = variable((2,), name="w", init=1.0), variable((), name="n", init=0, dtype="int64")
    program, state = mg.compile({}, {w: w * 2.0, n: n + 1}, backend), mg.State.initial([w, n])
    program.repeat(state, 7)
    code = program.prepare().bind(state).code
    assert code.repeated == [7] and backend.waits == 0 and state["w"].tolist() == [128, 128]
    other, state = doubling(backend)  # an output is read before its variable is written
    other.repeat(state, 7)
    assert other.prepare().bind(state).code.repeated == [] and int(state["n"]) == 7


def test_what_cannot_be_repeated():
    program, state = counting(RemoteBackend())
    with pytest.raises(ProgramError, match="can have no inputs") as caught:
        program.repeat(state, 2)
    assert caught.value.got == "x"


def test_a_released_program_binds_anew():
    backend = RemoteBackend()
    program, state = doubling(backend)
    program.repeat(state, 2)
    program.release()
    assert int(state["n"]) == 2 and state["w"].tolist() == [4, 4]
    gc.collect()
    assert not state._residences
    program.repeat(state, 2)
    assert int(state["n"]) == 4


def test_the_arrays_are_the_devices():
    program, state = counting(RemoteBackend())
    bound = program.prepare().bind(state)
    assert all(type(a) is Remote for a in (*bound.variables, *bound.results, *bound.inputs.values(), bound.arena))
    assert Graph({"y": input_((1,), name="x")}).outputs  # an input that is an output
    echo = mg.compile({"y": input_((1,), name="x")}, backend=RemoteBackend())
    assert echo(x=[3.0])["y"] == [3]
