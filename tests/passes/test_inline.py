"""Functions among the passes: they are inlined for programs, and left alone by everything else."""

from __future__ import annotations

import numpy as np
import pytest

import minigraph as mg
from minigraph import layers, ops
from minigraph.errors import DataError
from minigraph.ir import Constant, Graph, Node, parse, topological, variable, verify
from minigraph.ir.leaves import input as input_
from minigraph.ops.region import Function, inlined_results
from minigraph.passes import CommonSubexpressions, FoldConstants, Lower, pipelines, run, unfold
from minigraph.passes.inline import INLINE
from minigraph.runtime import constant_evaluator
from minigraph.runtime.optimize import peak_memory, refreeze
from passes.pictures import check, graph, same_numbers, unchanged

TWICE = 'function(%0, "Twice", body=(step(op=add(), inputs=(0, 0)), step(op=relu(), inputs=(1,))))'
BOTH = """
    %0 = input("x") : float32[2,3]
    %1 = function(%0, "Both", body=(step(op=exp(), inputs=(0,)), step(op=neg(), inputs=(1,)), \
step(op=relu(), inputs=(1,))), results=(2, 3, 0)) : (float32[2,3], float32[2,3], float32[2,3])
"""


def functions(g: Graph) -> list[str]:
    return [node.label for node in g.nodes if isinstance(node.op, Function)]


# --- the rules ----------------------------------------------------------------------------------------------------


def test_one_result() -> None:
    trace = check(
        f'%0 = input("x") : float32[2,3]  %1 = {TWICE} : float32[2,3]  return y=%1',
        '%0 = input("x") : float32[2,3]  %1 = add(%0, %0) : float32[2,3]  %2 = relu(%1) : float32[2,3]  return y=%2',
        INLINE,
    )
    assert [(r.rule, r.old.label) for r in trace.rewrites] == [("inline_function", "Twice")]
    assert trace.after.outputs["y"].origin.history[-1][0] == "inline_function"


def test_several_results_share_what_they_have_in_common() -> None:
    items = [f"%{i + 2} = item(%1, index={i}) : float32[2,3]" for i in range(3)]
    trace = check(
        f"{BOTH} {' '.join(items)}  return a=%2, b=%3, c=%4",
        """
        %0 = input("x") : float32[2,3]
        %1 = exp(%0) : float32[2,3]
        %2 = neg(%1) : float32[2,3]
        %3 = relu(%1) : float32[2,3]
        return a=%2, b=%3, c=%0
        """,
        INLINE,
    )
    assert [r.rule for r in trace.rewrites] == ["item_of_function"] * 3


def test_what_is_not_read_is_gone() -> None:
    check(
        f"{BOTH} %2 = item(%1, index=1) : float32[2,3]  return b=%2",
        '%0 = input("x") : float32[2,3]  %1 = exp(%0) : float32[2,3]  %2 = relu(%1) : float32[2,3]  return b=%2',
        INLINE,
    )


def test_waiting_for_a_function_is_waiting_for_its_results() -> None:
    before = graph(f"{BOTH} %2 = neg(%0) : float32[2,3]  %3 = after(%2, %1) : float32[2,3]  return y=%3")
    after = run([INLINE], before)[0]
    assert not functions(after) and [n.op.name for n in after.nodes].count("after") == 3
    same_numbers(before, after)


def test_other_ops_stay() -> None:
    unchanged('%0 = input("x") : float32[2,4]  %1 = moments(%0, axes=(1,)) : (float32[2], float32[2])  '
              "%2 = item(%1, index=1) : float32[2]  return y=%2", INLINE)  # fmt: skip


def test_every_program_begins_with_it() -> None:
    x = input_((2, 3), name="x")
    (y,) = ops.function("F", [x], [ops.relu(-x)])
    for optimize in (False, True):
        program = mg.compile({"y": y}, optimize=optimize)
        np.testing.assert_array_equal(program(x=-np.ones((2, 3)))["y"], np.ones((2, 3)))
        assert not functions(program.graph) and functions(program.definition) == ["F"]
        assert program.trace.steps[0].name == "inline"
        assert program.trace.verify().holds
        program.plan.check()


def test_a_pipeline_can_name_it() -> None:
    x = input_((2, 3), name="x")
    (y,) = ops.function("F", [x], [ops.relu(-x)])
    after, trace = mg.optimize(Graph({"y": y}), passes="inline,fuse")
    assert [n.op.name for n in after.nodes] == ["input", "fused"] and "inline" in trace.report()


# --- the others ---------------------------------------------------------------------------------------------------


def gelu(x: Node, label: str = "Gelu", half: float = 0.5) -> Node:
    return ops.function(label, [x], [x * half * (ops.erf(x * 0.75) + 1.0)], [("approximate", "none")])[0]


def test_equal_functions_are_one() -> None:
    x = input_((2, 3), name="x")
    merged = run([CommonSubexpressions()], Graph({"a": gelu(x), "b": gelu(x)}))[0]
    assert len(functions(merged)) == 1 and merged.outputs["a"] is merged.outputs["b"]
    for other in (gelu(x, "Other"), gelu(x, half=0.25), gelu(-x), ops.function("Gelu", [x], [ops.relu(x)])[0]):
        assert len(functions(run([CommonSubexpressions()], Graph({"a": gelu(x), "b": other}))[0])) == 2


def network() -> Graph:
    with mg.fresh_names():
        x = mg.Input((8,), name="x")
        y = gelu(layers.Dense(4)(x), "Before")
        y = layers.BatchNormalization()(y)
        y = layers.Dense(4)(gelu(y, "Behind") * 1.0)
        return Graph({"y": layers.BatchNormalization()(y)})


def random_state(g: Graph, seed: int = 0) -> mg.State:
    rng = np.random.default_rng(seed)
    return mg.State({v.label: rng.uniform(0.5, 1.5, v.shape).astype(v.dtype) for v in g.variables})


def test_optimising_keeps_functions_and_folds_beside_them() -> None:
    definition = mg.lower(network(), "inference")
    state = random_state(definition)
    after, trace = mg.optimize(definition, state, verify_each=True)
    assert functions(after) == ["Before", "Behind"]
    assert trace.verify().holds
    norms = [n for n in definition.nodes if n.op.name == "batch_norm"]
    assert mg.why_not("fold_batch_norm", norms[0], definition, state).reason == (
        "Before stands between, which is not linear"
    )  # fmt: skip
    assert mg.why_not("fold_batch_norm", norms[1], definition, state) is None
    assert sum(n.op.name == "batch_norm" for n in after.nodes) == 1
    given = np.linspace(-1, 1, 24).reshape(3, 8)
    np.testing.assert_allclose(mg.compile(after)(x=given)["y"], mg.compile(definition)(state, x=given)["y"], rtol=1e-5)


def test_other_numbers_and_back_again() -> None:
    definition = mg.lower(network(), "inference")
    first, second = random_state(definition), random_state(definition, 1)
    frozen, trace = mg.optimize(definition, first)
    given = np.linspace(-1, 1, 24).reshape(3, 8)
    again = refreeze(trace, second)
    assert functions(again) == ["Before", "Behind"] and not again.variables
    want = mg.compile(definition)(second, x=given)["y"]
    np.testing.assert_allclose(mg.compile(again)(x=given)["y"], want, rtol=1e-5)
    assert functions(unfold(frozen)) == ["Before", "Behind"]
    np.testing.assert_allclose(mg.compile(unfold(frozen))(second, x=given)["y"], want, rtol=1e-5)


def test_a_function_of_parameters_is_frozen_into_a_number() -> None:
    w = variable((3,), name="w")
    found = ops.function("F", [w], [ops.exp(w) + ops.constant(1.0), ops.sum(w)])
    graph_ = Graph({"y": found[0] * input_((3,), name="x"), "s": found[1] + input_((), name="z")})
    frozen = mg.freeze(graph_, {"w": np.zeros(3)})
    assert not functions(frozen) and [n.op.values() for n in frozen.nodes if isinstance(n.op, Constant)] == [
        [2.0] * 3, [0.0],
    ]  # fmt: skip
    with pytest.raises(DataError, match="not finite"):
        mg.freeze(graph_, {"w": np.full(3, 1000.0)})


@pytest.mark.parametrize("several", [False, True])
def test_a_function_of_constants_is_folded(several: bool) -> None:
    c = ops.constant(np.arange(3.0), "float32")
    results = [ops.exp(c) * 2.0, ops.sum(c)]
    found = ops.function("F", [c], results if several else results[:1])
    folded = run([FoldConstants(constant_evaluator())], Graph({str(i): y for i, y in enumerate(found)}))[0]
    assert all(isinstance(n.op, Constant) for n in folded.nodes)
    np.testing.assert_allclose(folded.outputs["0"].op.values(), 2 * np.exp(np.arange(3)), rtol=1e-6)


def test_lowering_finds_nothing_inside() -> None:
    x = input_((2, 3), name="x")
    definition = Graph({"y": ops.dropout(gelu(x), 0.5)})
    for mode in ("training", "inference"):
        assert functions(run([Lower(mode)], definition)[0]) == ["Gelu"]


@pytest.mark.parametrize("name", [p.name for p in pipelines.rewritings() if p.name != "inline"])
def test_every_pass_of_rules_leaves_the_inside_alone(name: str) -> None:
    """What is inside would be rewritten if it stood alone."""
    x = input_((2, 3), name="x")
    inside = ops.transpose(ops.transpose(ops.neg(-(x * 1.0)), (1, 0)), (1, 0)) + 0.0
    definition = Graph({"y": ops.function("F", [x], [inside])[0]})
    assert mg.optimize(definition, passes=name)[0].same_as(definition)


# --- programs -----------------------------------------------------------------------------------------------------


def training_program(as_function: bool) -> tuple[Graph, mg.State]:
    """One step of gradient descent through a function of several results."""
    x = input_((5, 3), name="x")
    w, b = variable((3, 4), name="w"), variable((4,), name="b")
    h = ops.matmul(x, w)
    mean, deviation = ops.moments(h, 1)
    column = ops.reshape(mean, (5, 1))
    results = [(h - column) * ops.rsqrt(ops.reshape(deviation, (5, 1)) + 0.1) * b, deviation]
    if as_function:
        results = ops.function("Norm", [h, b], results, [("epsilon", 0.1)])
    loss = ops.sum(ops.tanh(results[0]) * results[0]) + ops.sum(results[1])
    updates = {v: v - 0.01 * g for v, g in zip((w, b), mg.gradients(loss, [w, b]), strict=True)}
    rng = np.random.default_rng(0)
    return Graph({"loss": loss}, updates), mg.State({v.label: rng.standard_normal(v.shape, np.float32) for v in (w, b)})


@pytest.mark.parametrize("optimize", [False, True])
def test_training_through_a_function_is_training_through_its_ops(optimize: bool) -> None:
    given = np.random.default_rng(1).standard_normal((5, 3))
    losses, states = [], []
    for as_function in (False, True):
        definition, state = training_program(as_function)
        program = mg.compile(definition, optimize=optimize)
        losses.append([float(program(state, x=given)["loss"]) for _ in range(5)])
        states.append(state)
        assert not functions(program.graph)
        program.plan.check()
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    assert losses[0][-1] < losses[0][0]
    for name in ("w", "b"):
        np.testing.assert_allclose(states[1][name], states[0][name], rtol=1e-4, atol=1e-6)


def test_the_peak_memory_of_a_function_is_that_of_its_ops() -> None:
    x = input_((64, 64), name="x")
    h = ops.tanh(ops.matmul(ops.tanh(x), x))
    results = [h, ops.matmul(h, h), ops.matmul(h, x)]  # the first of them is an operand of the others
    plain, whole = (Graph({str(i): y for i, y in enumerate(ys)}) for ys in (results, ops.function("F", [x], results)))
    assert peak_memory(whole) == peak_memory(plain)


def test_a_trained_definition_with_a_function_comes_back_from_its_text() -> None:
    definition, state = training_program(True)
    again = parse(str(verify(definition)))
    assert again.same_as(definition)
    given = np.ones((5, 3))
    other = mg.State({name: value.copy() for name, value in state.items()})
    got = mg.compile(again)(other, x=given), mg.compile(definition)(state, x=given)
    assert got[0]["loss"] == got[1]["loss"]


def test_what_is_not_finite_is_named_by_the_op_inside() -> None:
    x = input_((3,), name="x")
    (y,) = ops.function("F", [x], [ops.log(x) * 2.0])
    with pytest.raises(mg.errors.NonFiniteError, match="log made a value that is not finite") as caught:
        mg.compile({"y": y}, check_finite=True)(x=-np.ones(3))
    assert __file__ in caught.value.where


def test_inlined_nodes_keep_the_line_and_scope_of_the_function() -> None:
    x = input_((3,), name="x")
    with mg.ir.scope("block"):
        (y,) = ops.function("F", [x], [ops.exp(-x)])
    inside = run([INLINE], Graph({"y": y}))[0].nodes[1:]
    assert {n.origin.scope for n in inside} == {"block"} and {n.origin.line for n in inside} == {y.origin.line}
    assert {n.op.name for n in topological(inlined_results(y))} == {"input", "neg", "exp"}
