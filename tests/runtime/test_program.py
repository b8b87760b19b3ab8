"""Programs: what goes in is checked, what comes out is fresh, a step commits all of its updates or none."""

from __future__ import annotations

import random
import sys
import threading

import numpy as np
import pytest
from ir.random_graphs import runnable, values_for

import minigraph as mg
from minigraph import ops
from minigraph.backends.numpy import threads
from minigraph.errors import ArgumentError, DataError, DTypeError, NonFiniteError, ProgramError, ShapeError
from minigraph.ir import Graph, symbol, variable
from minigraph.ir.leaves import input as input_
from minigraph.runtime.program import KEPT_SIZES

N = symbol("N")


def line(offset: int = 0) -> str:
    return f"{__file__}:{sys._getframe(1).f_lineno + offset}"


def simple() -> mg.Program:
    image, label = input_((N, 3), name="image"), input_((N,), "int64", "label")
    return mg.compile({"y": ops.tanh(image) * 2.0, "n": label + 1})


def training(check_finite: bool = False) -> tuple[mg.Program, mg.State]:
    """Return a small training program with momentum, batch norm and dropout."""
    x, target = input_((N, 4), name="x"), input_((N, 2), name="t")
    w, b = variable((4, 6), name="w", init=0.1), variable((6, 2), name="b", init=0.2)
    hidden = mg.layers.BatchNormalization(name="norm")(ops.dropout(x @ w, 0.25))
    lowered = mg.lower(Graph({"loss": ops.mean((ops.tanh(hidden) @ b - target) ** 2.0)}), "training")
    loss = lowered.outputs["loss"]
    trained = [v for v in lowered.variables if v.op.trainable]
    steps = mg.optimizers.SGD(0.1, momentum=0.9).updates(list(zip(trained, mg.gradients(loss, trained), strict=True)))
    graph = Graph({"loss": loss}, {**lowered.updates, **steps})
    return mg.compile(graph, check_finite=check_finite), mg.State.initial(graph.variables)


BATCH = {"x": np.linspace(-1, 1, 20, dtype=np.float32).reshape(5, 4), "t": np.ones((5, 2), np.float32)}


def same(a: mg.State, b: mg.State) -> bool:
    return a.keys() == b.keys() and all(a[k].tobytes() == b[k].tobytes() for k in a)


# --- inputs ---------------------------------------------------------------------------------------------------------


def test_missing_and_unknown_inputs():
    program, image, label = simple(), np.zeros((2, 3)), np.zeros(2, int)
    with pytest.raises(ProgramError, match="inputs are missing") as caught:
        program(image=image)
    assert caught.value.expected == "image, label" and caught.value.where == line(-1)
    with pytest.raises(ProgramError, match="no input is called 'imgae'") as caught:
        program(imgae=image, label=label)
    assert "image" in caught.value.hint
    with pytest.raises(ProgramError, match="no input is called 'x'"):
        mg.compile({"y": variable((1,), name="w", init=0) + 1.0})(x=1)


@pytest.mark.parametrize("shape", [(2, 4), (2,), (2, 3, 1), ()])
def test_wrong_shapes(shape):
    with pytest.raises(ShapeError, match="input 'image' has the wrong shape") as caught:
        simple()(image=np.zeros(shape), label=np.zeros(2, int))
    assert "float32[N,3]" in str(caught.value) and str(list(shape)).replace(" ", "") in str(caught.value)


@pytest.mark.parametrize("bad", [np.zeros((2, 3), complex), np.full((2, 3), "a"), np.full((2, 3), None)])
def test_wrong_dtypes(bad):
    with pytest.raises(DTypeError, match="input 'image' has the wrong dtype"):
        simple()(image=bad, label=np.zeros(2, int))
    with pytest.raises(DTypeError, match="input 'label' has the wrong dtype"):
        simple()(image=np.zeros((2, 3)), label=np.zeros(2))


def test_what_converts_without_surprise_is_converted():
    program = simple()
    for image in ([[1, 2, 3]], np.ones((1, 3), np.float16), np.ones((1, 3), bool), np.ones((1, 3))):
        result = program(image=image, label=np.array([250], np.uint8))
        assert result["y"].dtype == np.float32 and result["n"].dtype == np.int64 and result["n"][0] == 251


def test_two_inputs_that_disagree_about_a_size():
    with pytest.raises(DataError, match="two inputs disagree about the size N") as caught:
        simple()(image=np.zeros((2, 3)), label=np.zeros(3, int))
    assert "2, from 'image'" in caught.value.expected and "3 in 'label'" in caught.value.got


def test_arrays_of_any_layout_in_memory():
    program, image = simple(), np.arange(12, dtype=np.float32).reshape(4, 3)
    expected = program(image=image, label=np.zeros(4, int))["y"]
    for other in (np.asfortranarray(image), np.repeat(image, 2, 0)[::2], image.astype(">f4")):
        np.testing.assert_array_equal(program(image=other, label=np.zeros(4, int))["y"], expected)
    assert program(image=np.zeros((0, 3)), label=np.zeros(0, int))["y"].shape == (0, 3)


# --- results --------------------------------------------------------------------------------------------------------


def test_results_are_fresh_arrays():
    x, w = input_((3,), name="x"), variable((3,), name="w", init=1.0)
    program = mg.compile({"y": ops.exp(x), "w": w, "x": x, "view": ops.reshape(w, (1, 3)), "c": ops.constant([1.0])})
    state, data = mg.State.initial([w]), np.zeros(3, np.float32)
    first = program(state, x=data)
    kept = {k: v.copy() for k, v in first.items()}
    second = program(state, x=data + 1)
    for name, array in first.items():
        assert array.flags.owndata and array.flags.writeable
        np.testing.assert_array_equal(array, kept[name])
        array[...] = 99
        assert not np.shares_memory(array, second[name]) and not np.shares_memory(array, data)
    np.testing.assert_array_equal(state["w"], 1)
    np.testing.assert_array_equal(program(state, x=data)["y"], 1)


def test_each_size_is_prepared_once_and_the_last_few_are_kept():
    program = simple()
    prepared = {}
    for size in range(1, KEPT_SIZES + 3):
        program(image=np.zeros((size, 3)), label=np.zeros(size, int))
        prepared[size] = program.prepare(N=size)
        assert program.graph.inputs[0].shape == (size, 3) and program.plan is prepared[size].plan
    assert program.prepare(N=KEPT_SIZES + 2) is prepared[KEPT_SIZES + 2]
    assert program.prepare(N=1) is not prepared[1] and len(program._prepared) == KEPT_SIZES


def test_before_the_first_call():
    program = simple()
    assert program.graph.symbols == ("N",)
    with pytest.raises(ProgramError, match="no sizes yet"):
        _ = program.plan
    with pytest.raises(ProgramError, match="sizes are missing"):
        program.prepare()
    program.prepare(N=4)
    assert program.plan.steps and program.trace.steps
    fixed = mg.compile({"y": -input_((2,), name="x")})
    assert fixed.plan.steps


def test_optimised_or_not_the_numbers_agree():
    for seed in range(60):
        graph = runnable(random.Random(seed + 500))
        values = values_for(graph, seed)
        results = []
        for optimize in (True, False):
            state = mg.State({v.label: values[v.label] for v in graph.variables})
            out = mg.compile(graph, optimize=optimize)(state, **{i.label: values[i.label] for i in graph.inputs})
            results.append({**out, **{f"state/{k}": v for k, v in state.items()}})
        for name in results[0]:
            np.testing.assert_allclose(
                results[0][name], results[1][name], rtol=1e-5, atol=1e-6, err_msg=f"{name}\n{graph}"
            )


def test_a_whole_graph_or_a_dictionary_may_be_compiled():
    x, w = input_((2,), name="x"), variable((2,), name="w", init=1.0)
    state = mg.State.initial([w])
    program = mg.compile(Graph({"y": x}, {w: w + x}), updates={w: w - x})  # the argument wins
    program(state, x=[1, 1])
    np.testing.assert_array_equal(state["w"], 0)
    assert mg.compile({}, {w: w + 1.0})(state) == {}
    with pytest.raises(ArgumentError, match="no backend is called 'abacus'"):
        mg.compile({"y": x}, backend="abacus")


# --- state and updates ----------------------------------------------------------------------------------------------


def test_a_state_that_does_not_fit():
    w = variable((2,), name="w", init=1.0)
    program = mg.compile({"y": w * 2.0})
    for state in (None, mg.State(), mg.State({"v": np.zeros(2)})):
        with pytest.raises(ProgramError, match="no value for variable 'w'") as caught:
            program(state)
        assert "State.initial" in caught.value.hint
    for bad in (np.zeros(3, np.float32), np.zeros(2)):
        with pytest.raises(ShapeError, match="the state's 'w' does not fit"):
            program(mg.State({"w": bad}))


def test_one_program_many_states_and_arrays_that_are_replaced():
    w = variable((2,), name="w", init=1.0)
    program = mg.compile({"y": w * 2.0}, {w: w + 1.0})
    a, b = mg.State.initial([w]), mg.State({"w": np.full(2, 5, np.float32)})
    for _ in range(3):
        program(a)
        program(b)
    assert a["w"][0] == 4 and b["w"][0] == 8
    del a["w"]
    a["w"] = np.full(2, 7, np.float32)
    assert program(a)["y"][0] == 14 and a["w"][0] == 8


def test_two_variables_are_swapped_in_one_step():
    a, b = variable((2,), name="a"), variable((2,), name="b")
    c = variable((1, 2), name="c")
    program = mg.compile({}, {a: b, b: ops.reshape(c, (2,)), c: ops.reshape(a, (1, 2))})
    state = mg.State({"a": np.float32([1, 2]), "b": np.float32([3, 4]), "c": np.float32([[5, 6]])})
    for expected in (([3, 4], [5, 6], [[1, 2]]), ([5, 6], [1, 2], [[3, 4]]), ([1, 2], [3, 4], [[5, 6]])):
        program(state)
        for name, value in zip("abc", expected, strict=True):
            np.testing.assert_array_equal(state[name], value)


def test_updates_see_the_old_values_and_so_do_outputs():
    w, v = variable((), name="w", init=1.0), variable((), name="v", init=10.0)
    program = mg.compile({"w": w, "new": w + v}, {w: w + v, v: w * 2.0})
    state = mg.State.initial([w, v])
    result = program(state)
    assert (result["w"], result["new"], state["w"], state["v"]) == (1, 11, 11, 2)


def test_a_kernel_that_fails_changes_nothing_wherever_it_stands():
    program, state = training()
    bound = program.prepare(N=5).bind(state)
    before, reference = state.copy(), state.copy()
    mg.compile(program.definition)(reference, **BATCH)

    def fail() -> None:
        raise ZeroDivisionError("on purpose")

    assert len(bound.code.kernels) > 20
    for i, kernel in enumerate(bound.code.kernels):
        bound.code.kernels[i] = fail
        with pytest.raises(ProgramError, match=f"{bound.plan.steps[i].node.op.name} failed: on purpose") as caught:
            program(state, **BATCH)
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        assert same(state, before), f"step {i}"
        bound.code.kernels[i] = kernel
    program(state, **BATCH)
    assert same(state, reference) and not same(state, before)


def test_an_interrupt_in_a_kernel_changes_nothing():
    program, state = training()
    bound = program.prepare(N=5).bind(state)
    before, kernel = state.copy(), bound.code.kernels[-1]

    def interrupt() -> None:
        raise KeyboardInterrupt

    bound.code.kernels[-1] = interrupt
    with pytest.raises(KeyboardInterrupt):
        program(state, **BATCH)
    assert same(state, before)
    bound.code.kernels[-1] = kernel
    program(state, **BATCH)


def test_an_interrupt_while_updates_are_written_lets_them_all_be_written(monkeypatch):
    program, state = training()
    bound = program.prepare(N=5).bind(state)
    reference = state.copy()
    mg.compile(program.definition)(reference, **BATCH)
    write, interrupted = bound._write, []

    def half() -> None:
        if not interrupted:
            interrupted.append(True)
            np.copyto(bound._targets[0], bound._values[0])
            raise KeyboardInterrupt
        write()

    monkeypatch.setattr(bound, "_write", half)
    with pytest.raises(KeyboardInterrupt):
        program(state, **BATCH)
    assert same(state, reference)


def test_wrong_inputs_change_nothing():
    program, state = training()
    before = state.copy()
    for bad in (
        {"x": BATCH["x"]},
        {**BATCH, "z": 1},
        {**BATCH, "t": np.zeros((5, 3))},
        {**BATCH, "t": np.zeros((4, 2))},
    ):
        with pytest.raises((ProgramError, ShapeError, DataError)):
            program(state, **bad)
        assert same(state, before)


# --- finite or not --------------------------------------------------------------------------------------------------


def test_check_finite_refuses_to_commit_and_names_op_and_line():
    x, w = input_((2,), name="x"), variable((2,), name="w", init=1.0)
    logs = ops.log(x)
    where = line(-1)
    program = mg.compile({"y": ops.sum(logs)}, {w: w + logs}, check_finite=True)
    state = mg.State.initial([w])
    for bad in (0.0, -1.0):
        with pytest.raises(NonFiniteError, match="log made a value that is not finite") as caught:
            program(state, x=[1.0, bad])
        assert caught.value.where == where and "1 of 2 elements" in caught.value.got
        np.testing.assert_array_equal(state["w"], 1)
    program(state, x=[1.0, 2.0])
    assert state["w"][1] > 1


def test_check_finite_names_a_gradients_line_too():
    w = variable((2,), name="w", init=0.0)
    y = ops.sqrt(w)
    where = line(-1)
    (g,) = mg.gradients(ops.sum(y), [w])
    with pytest.raises(NonFiniteError, match="div made") as caught:
        mg.compile({"y": ops.sum(y)}, {w: w - g}, check_finite=True)(mg.State.initial([w]))
    assert caught.value.where == where


def test_check_finite_names_an_input_or_a_variable_that_is_not_finite():
    x, w = input_((2,), name="x"), variable((2,), name="w", init=1.0)
    program = mg.compile({"y": x * w}, check_finite=True)
    with pytest.raises(NonFiniteError, match="input 'x' is not finite"):
        program(mg.State.initial([w]), x=[np.nan, 1.0])
    with pytest.raises(NonFiniteError, match="variable 'w' is not finite"):
        program(mg.State({"w": np.float32([np.inf, 1])}), x=[1.0, 1.0])


def test_without_check_finite_nan_goes_through():
    x = input_((2,), name="x")
    assert np.isnan(mg.compile({"y": ops.log(x)})(x=[-1.0, 1.0])["y"][0])


def test_nan_behind_a_choice_or_in_integers_is_no_fault():
    x = input_((2,), name="x")
    program = mg.compile({"y": ops.where(x > 0.0, ops.log(x), 0.0), "n": ops.cast(x, "int64")}, check_finite=True)
    np.testing.assert_array_equal(program(x=[0.0, 1.0])["y"], [0, 0])


def test_check_finite_names_the_op_that_folding_computed():
    w = variable((2,), name="w", init=1.0)
    bad = ops.log(ops.constant([-1.0, 1.0]))
    where = line(-1)
    with pytest.raises(NonFiniteError) as caught:
        mg.compile({}, {w: w + bad}, check_finite=True)(mg.State.initial([w]))
    assert caught.value.where == where and "log" in str(caught.value)


def test_check_finite_does_not_blame_a_value_that_a_choice_drops():
    x = input_((2,), name="x")
    y = ops.sqrt(ops.where(x > 0.0, ops.log(x), 0.0) - 100.0)
    with pytest.raises(NonFiniteError, match="sqrt made"):
        mg.compile({"y": y}, check_finite=True)(x=[0.0, 1.0])


# --- threads --------------------------------------------------------------------------------------------------------


def test_one_inference_program_in_many_threads():
    x, w = input_((N, 8), name="x"), variable((8, 8), name="w", init=0.1)
    program = mg.compile({"y": ops.softmax(ops.tanh(x @ w) @ w)})
    state = mg.State.initial([w])
    rng = np.random.default_rng(0)
    data = [rng.standard_normal((1 + i % 3, 8)).astype(np.float32) for i in range(50)]
    serial = [program(state, x=d)["y"] for d in data]
    failures: list[str] = []

    def work() -> None:
        for i, d in enumerate(data):
            try:
                if not np.array_equal(program(state, x=d)["y"], serial[i]):
                    failures.append(f"call {i} differs")
            except Exception as error:
                failures.append(repr(error))

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures, failures[:5]


def test_two_training_steps_at_once_are_refused():
    program, state = training()
    bound = program.prepare(N=5).bind(state)
    kernel, inside, go = bound.code.kernels[0], threading.Event(), threading.Event()

    def slow() -> None:
        inside.set()
        assert go.wait(10)
        kernel()

    bound.code.kernels[0] = slow
    before = state.copy()
    worker = threading.Thread(target=lambda: program(state, **BATCH))
    worker.start()
    assert inside.wait(10)
    with pytest.raises(ProgramError, match="running already") as caught:
        program(state, **BATCH)
    assert "thread" in caught.value.hint and same(state, before)
    go.set()
    worker.join()
    assert not same(state, before)
    bound.code.kernels[0] = kernel
    program(state, **BATCH)  # the lock is free again


blas = threads._openblas()


@pytest.mark.skipif(blas is None, reason="NumPy without OpenBLAS")
def test_blas_has_its_threads_back_after_a_call_and_after_an_exception():
    get_threads, set_threads = blas
    program, state = training()
    bound = program.prepare(N=5).bind(state)
    kernel, seen, former = bound.code.kernels[0], [], get_threads()

    def look() -> None:
        seen.append(get_threads())
        kernel()

    def fail() -> None:
        raise ZeroDivisionError

    try:
        set_threads(2)
        for replacement in (look, fail):
            bound.code.kernels[0] = replacement
            if replacement is fail:
                with pytest.raises(ProgramError):
                    program(state, **BATCH)
            else:
                program(state, **BATCH)
            assert get_threads() == 2
        assert seen == [1]
        with threads.single_threaded_blas(), threads.single_threaded_blas():
            assert get_threads() == 1
        assert get_threads() == 2
    finally:
        set_threads(former)


def of_two_sizes() -> mg.Program:
    return mg.compile({"y": ops.sum(input_((N,), name="a")) + ops.sum(input_((N * 2,), name="b"))})


@pytest.mark.parametrize("size", [5, 1])
def test_a_product_of_symbols_is_checked(size):
    assert of_two_sizes()(a=np.ones(3), b=np.ones(6))["y"] == 9
    with pytest.raises((DataError, ShapeError)):
        of_two_sizes()(a=np.ones(3), b=np.ones(size))


@pytest.mark.parametrize(
    ("dtype", "number"), [("int8", 300), ("uint8", -1), ("uint16", 2**16), ("uint32", 2**32), ("uint64", -1)]
)
def test_integers_that_do_not_fit_are_refused(dtype, number):
    with pytest.raises((DTypeError, DataError)):
        mg.compile({"y": input_((1,), dtype, "x") * 1})(x=[number])


def test_ragged_lists_are_refused():
    with pytest.raises(DataError, match="'image' is not an array"):
        simple()(image=[[1, 2, 3], [4]], label=[0, 0])
