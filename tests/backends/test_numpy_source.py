"""The straight-line function: it makes each kernel's calls, once, in order; it can be read; it says what failed."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import minigraph as mg
from minigraph import ops
from minigraph.backends.numpy.call import Steps
from minigraph.backends.numpy.source import straight_line
from minigraph.backends.numpy.threads import spread
from minigraph.errors import ProgramError
from minigraph.ir import variable


def test_calls_are_made_in_order_and_equal_names_stay_apart() -> None:
    """Kernels that are no calls of NumPy may have one name: each line must still call its own."""
    done: list[int] = []
    kernels = [(f"step {i}", lambda i=i: done.append(i)) for i in range(12)]
    nested = Steps([lambda: done.append(100), Steps([lambda: done.append(101)])])
    source, run = straight_line([*kernels, ("nested", nested), ("nothing", Steps([]))])
    run()
    assert done == [*range(12), 100, 101]
    assert source.count("# ") == 14


def test_every_array_is_the_one_that_was_bound() -> None:
    arrays = [np.full(3, float(i)) for i in range(20)]
    steps = [(str(i), partial(np.add, arrays[i], arrays[i + 1], out=arrays[i + 1])) for i in range(19)]
    straight_line(steps)[1]()
    np.testing.assert_array_equal(arrays[-1], np.full(3, float(sum(range(20)))))


def test_arguments_that_are_no_arrays() -> None:
    x, total = np.arange(6.0).reshape(2, 3), np.zeros(2)
    fill = np.empty(2)
    source, run = straight_line(
        [("sum", Steps([partial(np.add.reduce, x, axis=(1,), out=total), partial(fill.fill, np.float32(0.1))]))]
    )
    run()
    assert total.tolist() == [3, 12] and fill[0] == np.float32(0.1)
    assert "add_reduce(" in source and ".fill(" in source


def test_shares_of_workers_are_functions_of_their_own() -> None:
    x = np.zeros(4)
    shares = [[partial(np.add, x[i : i + 2], 1.0, out=x[i : i + 2])] for i in (0, 2)]
    source, run = straight_line([("both", spread(shares, 2))])
    run()
    assert x.tolist() == [1, 1, 1, 1]
    assert source.count("def share") == 2 and "side_by_side(share" in source


def program() -> tuple[mg.Program, mg.State]:
    x, i = variable((4,), name="x"), variable((2,), name="i", dtype="int64")
    outputs = {"y": ops.exp(ops.gather(x, i)) * 2.0, "z": ops.softmax(x), "s": ops.sum(x)}
    return mg.compile(outputs), mg.State({"x": np.ones(4, np.float32), "i": np.array([0, 1])})


def test_a_program_prints_its_source_with_a_comment_for_each_node() -> None:
    prog, state = program()
    prog(state)
    for step in prog.plan.steps:
        assert f": {step.node.op.name} {step.node.type}" in prog.source
    assert prog.source.count("    # ") == len(prog.plan.steps)


def test_an_error_names_the_node_also_out_of_a_worker() -> None:
    prog, state = program()
    prog(state)
    state["i"] = [0, 9]
    with pytest.raises(mg.errors.MinigraphError, match="gather"):
        prog(state)
    state["i"] = [0, 1]
    bound = prog.prepare().bind(state)

    def fail() -> None:
        raise ZeroDivisionError("here")

    for index, step in enumerate(prog.plan.steps):
        kernel = bound.code.kernels[index]
        bound.code.kernels[index] = spread([[fail], [lambda: None]], 2)
        with pytest.raises(ProgramError, match=f"{step.node.op.name} failed: here"):
            prog(state)
        bound.code.kernels[index] = kernel
    prog(state)
