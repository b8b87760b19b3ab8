"""Recomputing values to fit a training step into a memory limit: less memory, the same numbers, nothing done twice."""

from __future__ import annotations

import functools
import random
import re
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import minigraph as mg
from minigraph import layers, ops
from minigraph.errors import ArgumentError, GraphError
from minigraph.ir import Graph, Node, Variable, bind, parse, verify
from minigraph.ir.graph import execution_order
from minigraph.ir.leaves import input as input_
from minigraph.ops.fused import Fused
from minigraph.ops.shape import After
from minigraph.passes import (
    FUSE,
    SIMPLIFY,
    CommonSubexpressions,
    DeadCode,
    FoldConstants,
    Rematerialise,
    Selection,
    Trace,
    run,
)  # fmt: skip
from minigraph.runtime import constant_evaluator
from minigraph.runtime.optimize import optimize, peak_memory
from minigraph.testing.networks import random_network, random_values, training_graph

BATCH = 6
LOSS = mg.losses.SparseCategoricalCrossentropy(from_logits=True)


def network(depth: int = 9, dtype: str = "float32", memory_limit: int | None = None) -> mg.Model:
    """Return a deep narrow network with batch norms and dropouts, compiled."""
    with mg.fresh_names():
        h = image = mg.Input((8, 8, 3), name="image", dtype=dtype)
        for i in range(depth):
            h = layers.Conv2D(6, 3, padding="same", use_bias=False, name=f"conv{i}")(h)
            h = layers.ReLU()(layers.BatchNormalization(momentum=0.9, name=f"norm{i}")(h))
            h = layers.Dropout(0.1)(h) if i % 4 == 3 else h
        model = mg.Model(image, layers.Dense(10)(layers.GlobalAveragePooling2D()(h)))
    model.compile(mg.optimizers.SGD(0.05, momentum=0.9), LOSS, metrics=["accuracy"], memory_limit=memory_limit)
    return model


def batch(dtype: str = "float32", step: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(step)
    return {"image": rng.standard_normal((BATCH, 8, 8, 3)).astype(dtype), "label": rng.integers(0, 10, BATCH)}


def least(graph: Graph, **sizes: int) -> int:
    """Return the fewest bytes that a program can be brought to, as the error says it."""
    with pytest.raises(GraphError, match="does not fit into 0 bytes") as caught:
        mg.compile(graph, memory_limit=0).prepare(**sizes)
    found = re.fullmatch(r"([\d,]+) bytes at least", str(caught.value.got))
    assert found
    return int(found[1].replace(",", ""))


@functools.cache
def story(dtype: str = "float32") -> tuple[Graph, int, int]:
    """Return the training graph of the network, its unlimited peak, and the least that can be reached."""
    graph = network(dtype=dtype).lower("training")
    program = mg.compile(graph)
    program.prepare(N=BATCH)
    return graph, program.plan.peak, least(graph, N=BATCH)


def between(share: float, dtype: str = "float32") -> int:
    """Return a limit: 0 is the least that can be reached, 1 the unlimited peak."""
    _, most, fewest = story(dtype)
    return fewest + int(share * (most - fewest))


@functools.cache
def limited(limit: int | None, dtype: str = "float32") -> mg.Program:
    program = mg.compile(story(dtype)[0], memory_limit=limit)
    program.prepare(N=BATCH)
    return program


def trained(program: mg.Program, dtype: str = "float32") -> tuple[list[float], mg.State]:
    """Return the losses of three steps, and the state after them."""
    state = network(dtype=dtype).state.copy()
    losses = [float(program(state, **batch(dtype, step))["loss"]) for step in range(3)]
    return losses, state


def copies(graph: Graph) -> list[Node]:
    """Return the nodes that wait for something, and begin second copies."""
    return [n for n in graph.nodes if isinstance(n.op, After)]


# --- memory and numbers -------------------------------------------------------------------------------------------


def test_much_less_memory_can_be_reached() -> None:
    _, most, fewest = story()
    assert fewest < 0.6 * most


@pytest.mark.parametrize("share", [0.0, 0.02, 0.2, 0.5, 0.9, 0.999])
def test_a_program_fits_its_limit_and_learns_the_same(share: float) -> None:
    """The very same kernels run on the very same numbers, some twice: not one bit may differ."""
    limit = between(share)
    program = limited(limit)
    assert program.plan.check().peak <= limit
    assert copies(program.graph) and verify(program.graph)
    (losses, state), (got, after) = trained(limited(None)), trained(program)
    assert got == losses and len(set(losses)) == 3
    assert after.keys() == state.keys()
    for label, value in state.items():
        np.testing.assert_array_equal(after[label], value, label)


def test_what_is_reached_under_one_limit_is_reached_under_another() -> None:
    """Each graph on the way is the beginning of the next: the limit only says where to stop."""
    shares = (0.7, 0.4, 0.2, 0.05, 0.0)
    traces = [limited(between(share)).trace.step("rematerialise").rewrites for share in shares]
    made = [[r.old.origin.scope for r in rewrites] for rewrites in traces]
    for first, second in pairwise(made):
        assert second[: len(first)] == first
    assert len(made[0]) < len(made[2]) < len(made[-1])


def test_the_less_memory_the_more_is_computed_twice() -> None:
    def work(share: float) -> int:
        graph = limited(between(share)).graph
        return sum(n.op.flops(n) for n in graph.nodes)  # type: ignore[misc]

    assert work(0.0) > work(0.5) > work(0.999) > sum(n.op.flops(n) for n in limited(None).graph.nodes)  # type: ignore[misc]
    assert work(0.0) < 1.5 * work(1.0)  # far less than another forward pass for each layer


def test_moving_averages_move_once() -> None:
    program = limited(between(0.0, "float64"), "float64")
    plain = limited(None, "float64")
    assert [t.label for t in program.graph.updates] == [t.label for t in plain.graph.updates]
    (losses, state), (got, after) = trained(plain, "float64"), trained(program, "float64")
    assert got == losses
    averages = [label for label in state if "moving" in label]
    assert len(averages) == 18 and state["norm0/moving_mean"].dtype == np.float64
    first = network(dtype="float64").state
    for label in averages:
        assert not np.array_equal(state[label], first[label])
        np.testing.assert_array_equal(after[label], state[label], label)
    assert after["random/step"] == 3 and after["random/step"] == state["random/step"]


def test_dropout_draws_the_same_mask_again() -> None:
    program = limited(between(0.0))
    drawn = [n for n in program.graph.nodes if n.op.name == "random_uniform"]
    keys = {n.op.key for n in drawn}  # type: ignore[attr-defined]
    assert len(keys) == 2


# --- what stays as it is ------------------------------------------------------------------------------------------


def test_without_a_limit_or_with_a_wide_one_nothing_changes() -> None:
    _, most, _ = story()
    plain = limited(None)
    assert not copies(plain.graph) and "rematerialise" not in [s.name for s in plain.trace.steps]
    for limit in (most, most + 1, 1 << 50):
        program = limited(limit)
        assert program.graph.same_as(plain.graph) and not program.trace.step("rematerialise").rewrites
        step = program.trace.step("rematerialise")
        assert step.before is step.after


def made(share: float) -> tuple[Graph, Graph]:
    """Return the graph before rematerialisation and after it."""
    step = limited(between(share)).trace.step("rematerialise")
    return step.before, step.after


@pytest.mark.parametrize(
    "each", [CommonSubexpressions(), SIMPLIFY, FoldConstants(constant_evaluator()), DeadCode()], ids=lambda p: p.name
)
def test_passes_that_come_later_do_not_undo_it(each: Any) -> None:
    _, after = made(0.0)
    again = run([each], after)[0]
    assert len(copies(again)) == len(copies(after)) > 10
    assert peak_memory(run([FUSE], again)[0]) == peak_memory(run([FUSE], after)[0])


def test_without_what_they_wait_for_copies_would_be_merged() -> None:
    """The test above can fail: what keeps a second copy apart is the `after` at its beginning."""
    before, after = made(0.0)
    bare = after.rebuild(lambda n, inputs: inputs[0] if isinstance(n.op, After) else n.with_inputs(inputs))
    assert len(bare.nodes) > len(before.nodes)
    assert run([CommonSubexpressions()], bare)[0].same_as(run([CommonSubexpressions()], before)[0])


def test_the_text_keeps_it() -> None:
    program = limited(between(0.1))
    again = parse(str(program.graph))
    assert again.same_as(program.graph) and peak_memory(again) == program.plan.peak
    state = network().state.copy()
    got = mg.compile(again, optimize=False)(state, **batch())
    assert float(got["loss"]) == trained(program)[0][0]


def test_the_same_limit_gives_the_same_graph() -> None:
    assert str(limited(between(0.2)).graph) == str(limited.__wrapped__(between(0.2)).graph)


# --- where copies stand -------------------------------------------------------------------------------------------


def test_copies_are_of_values_and_wait_until_they_are_needed() -> None:
    before, after = made(0.0)
    old = {n.id for n in before.nodes}
    fresh = [n for n in after.nodes if n.id not in old]
    assert fresh and not any(isinstance(n.op, Variable) or n.op.category == "input" for n in fresh)
    place = {n: i for i, n in enumerate(execution_order(after))}
    for node in copies(after):
        operand, then = node.inputs
        assert node.type == operand.type and place[then] < place[node]
        assert all(place[node] < place[reader] for reader in after.users[node])
    assert {t.label: after.updates[t].id for t in after.updates} == {t.label: v.id for t, v in before.updates.items()}


def test_a_copy_stands_for_the_value_it_was_made_of() -> None:
    step = limited(between(0.2)).trace.step("rematerialise")
    nodes = {n.id: n for n in step.after.nodes}
    for rewrite in step.rewrites:
        origin = nodes[rewrite.new.id].origin
        assert rewrite.rule == "compute_again" and rewrite.new.op == rewrite.old.op
        assert origin.scope == rewrite.old.origin.scope and origin.where == rewrite.old.origin.where
        assert origin.replaced is not None and origin.replaced.id == rewrite.old.id
        assert origin.history[-1] == ("compute_again", rewrite.old.id)


def test_only_attempts_that_helped_are_on_record() -> None:
    step = limited(between(0.0)).trace.step("rematerialise")
    fresh = {n.id for n in step.after.nodes} - {n.id for n in step.before.nodes}
    assert {r.new.id for r in step.rewrites} <= fresh
    assert len(step.rewrites) == len({r.new.id for r in step.rewrites})
    assert limited(between(0.0)).trace.rules["compute_again"].hits == len(step.rewrites)


def test_every_single_recomputation_can_be_looked_at() -> None:
    trace = limited(between(0.5)).trace
    index = [s.name for s in trace.steps].index("rematerialise")
    step = trace.steps[index]
    peaks = [peak_memory(run([FUSE], step.before)[0])]
    assert len(step.rewrites) >= 4
    for i, rewrite in enumerate(step.rewrites):
        before, after = trace.graphs_around(index, i)
        assert len(copies(verify(after))) >= len(copies(before)) + 1
        was, is_ = {n.id: n for n in before.nodes}, {n.id: n for n in after.nodes}
        assert rewrite.old.id in was and rewrite.new.id in is_.keys() - was.keys()
        for id in was.keys() & is_.keys():  # some readers read the copy, and nothing else is different
            pairs = zip(was[id].inputs, is_[id].inputs, strict=True)
            assert all(a.id == b.id or (a.id, b.id) == (rewrite.old.id, rewrite.new.id) for a, b in pairs)
        peaks.append(peak_memory(run([FUSE], after)[0]))
    assert is_.keys() == {n.id for n in step.after.nodes} and after.same_as(step.after)
    assert peaks[-1] <= between(0.5) < peaks[0]


# --- limits that cannot be kept -----------------------------------------------------------------------------------


def test_an_impossible_limit_is_refused_with_the_least_that_was_reached() -> None:
    graph, _, fewest = story()
    limited(fewest)
    program = mg.compile(graph, memory_limit=fewest - 1)
    state = network().state.copy()
    first = state.copy()
    for _ in range(2):  # it fails again, and has not become another program
        with pytest.raises(GraphError, match=f"the program does not fit into {fewest - 1:,} bytes") as caught:
            program(state, **batch())
        assert caught.value.got == f"{fewest:,} bytes at least" and "memory_limit" in str(caught.value.hint)
    assert all(np.array_equal(state[label], first[label]) for label in first)
    assert not copies(program.definition)


def test_a_pass_that_fails_changes_neither_graph_nor_trace() -> None:
    graph = bind(story()[0], N=BATCH)
    text, trace = str(graph), Trace()
    with pytest.raises(GraphError, match="does not fit"):
        run([Rematerialise(1000, peak_memory)], graph, trace)
    assert str(graph) == text and not trace.steps and not trace.pending and not trace.refusals


@pytest.mark.parametrize("limit", [-1, 1.5, "1 MB", None])
def test_a_limit_is_a_number_of_bytes(limit: Any) -> None:
    with pytest.raises(ArgumentError, match="bad memory limit"):
        Rematerialise(limit, peak_memory)


def test_open_sizes_have_no_bytes() -> None:
    graph = story()[0]
    with pytest.raises(mg.errors.MinigraphError, match="symbolic size"):
        optimize(graph, passes="rematerialise(10)")
    program = mg.compile(graph, memory_limit=between(0.5))
    assert program.graph.symbols == ("N",)  # looked at before it is bound, it is as it would be without a limit


# --- as users ask for it ------------------------------------------------------------------------------------------


def test_a_model_trains_within_a_limit() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((3 * BATCH, 8, 8, 3)).astype(np.float32), rng.integers(0, 10, 3 * BATCH)
    histories = []
    for limit in (None, between(0.1)):
        model = network(memory_limit=limit)
        histories.append(model.fit(x, y, batch_size=BATCH, epochs=2, verbose=0).history["loss"])
        plan = model.program("training").plan
        assert limit is None or plan.peak <= limit
        assert not copies(model.program("evaluation").definition)
    assert histories[0] == histories[1]
    assert network().training.memory_limit is None  # type: ignore[union-attr]


def test_a_model_says_so_if_a_batch_is_too_large() -> None:
    model = network(memory_limit=story()[2])
    x = np.zeros((4 * BATCH, 8, 8, 3), np.float32)
    before = model.state.copy()
    with pytest.raises(GraphError, match="does not fit") as caught:
        model.fit(x, np.zeros(4 * BATCH, int), batch_size=4 * BATCH, verbose=0)
    assert "a smaller batch" in str(caught.value)
    assert all(np.array_equal(model.state[k], v) for k, v in before.items())
    model.fit(x, np.zeros(4 * BATCH, int), batch_size=BATCH // 2, verbose=0)


def test_each_batch_size_gets_as_many_copies_as_it_needs() -> None:
    program = mg.compile(story()[0], memory_limit=between(0.3))
    counts = []
    for n in (1, BATCH - 2, BATCH):
        program.prepare(N=n)
        assert program.plan.peak <= between(0.3)
        counts.append(len(copies(program.graph)))
    assert counts[0] == 0 < counts[2] and counts[1] <= counts[2]


def test_by_the_text_of_a_pipeline() -> None:
    graph = bind(story()[0], N=BATCH)
    peak = peak_memory(graph)
    made, trace = optimize(graph, passes=f"rematerialise({peak - 1})")
    assert peak_memory(made) < peak and trace.steps[0].rewrites
    assert "compute_again" in trace.report()


def test_some_of_it_can_be_left_out() -> None:
    graph = bind(story()[0], N=BATCH)
    peak = peak_memory(graph)
    text = f"rematerialise({peak - 1})"
    for exclude in (["rematerialise"], ["compute_again"], ["scope:*"]):
        with pytest.raises(GraphError, match="does not fit") as caught:
            optimize(graph, passes=text, exclude=exclude)
        assert caught.value.got == f"{peak:,} bytes at least"
    _, full = optimize(graph, passes=text)
    scopes = {r.old.origin.scope for r in full.rewrites}
    _, trace = optimize(graph, passes=text, exclude=[f"scope:{s}" for s in sorted(scopes)[:1]])
    assert trace.rewrites and not {r.old.origin.scope for r in trace.rewrites} & {sorted(scopes)[0]}


def test_a_limited_number_of_rewrites_raises_no_error() -> None:
    graph = bind(story()[0], N=BATCH)
    limit = int(0.8 * peak_memory(graph))
    _, full = optimize(graph, passes=f"rematerialise({limit})")
    for count in range(len(full.rewrites) + 1):
        trace = Trace(Selection(limit=count))
        made = run([Rematerialise(limit, peak_memory)], graph, trace)[0]
        assert [r.old.id for r in trace.rewrites] == [r.old.id for r in full.rewrites[:count]]
        assert (count == 0) == made.same_as(graph)


# --- by hand, and at random ---------------------------------------------------------------------------------------


def test_a_small_graph_by_hand() -> None:
    """exp(x) waits while two large arrays are alive; x is there anyway, and exp(x) can be had of it again."""
    x = input_((1000,), name="x")
    kept = ops.exp(x)
    large = ops.softmax(ops.broadcast_to(ops.sum(kept), (5000,)))
    graph = Graph({"y": kept * ops.max(large), "x": x})
    peak = peak_memory(graph)
    after, trace = run([Rematerialise(peak - 1, peak_memory)], graph)
    assert peak_memory(after) == peak - 4032
    (rewrite,) = trace.rewrites
    assert rewrite.old is kept and [n.op.name for n in after.nodes].count("exp") == 2
    (wait,) = copies(after)
    assert wait.inputs[0] is x and wait.inputs[1].op.name == "max"
    value = np.linspace(-1, 1, 1000, dtype=np.float32)
    one, two = (mg.compile(g, optimize=False)(x=value)["y"] for g in (graph, after))
    np.testing.assert_array_equal(one, two)


def test_what_is_read_at_the_end_or_made_of_what_is_gone_is_not_recomputed() -> None:
    x = input_((1000,), name="x")
    value = ops.exp(x)
    for outputs in ({"y": value * ops.sum(ops.tanh(value)), "value": value}, {"y": ops.sum(value)}):
        graph = Graph(outputs)
        with pytest.raises(GraphError, match="does not fit"):
            run([Rematerialise(peak_memory(graph) - 1, peak_memory)], graph)


@pytest.mark.parametrize("seed", range(10))
def test_random_training_graphs_compute_the_same_in_less_memory(seed: int) -> None:
    rng = random.Random(seed)
    definition = random_network(rng, dtype="float64", size=(15, 45))
    graph = bind(training_graph(definition), **dict.fromkeys(definition.symbols, 4))
    plain = mg.compile(graph)
    peak, fewest = plain.prepare().plan.peak, None
    try:
        mg.compile(graph, memory_limit=0).prepare()
    except GraphError as error:
        fewest = int(str(error.got).split()[0].replace(",", ""))
    assert fewest is not None and fewest <= peak
    values = random_values(graph, rng)
    inputs = {i.label: values[i.label] for i in graph.inputs}
    results = []
    for program in (plain, mg.compile(graph, memory_limit=fewest)):
        state = mg.State({v.label: values[v.label] for v in graph.variables})
        results.append({**program(state, **inputs), **state})
        assert program.plan.check().peak in (peak, fewest)
    for name, want in results[0].items():
        np.testing.assert_allclose(results[1][name], want, rtol=1e-12, atol=1e-14, err_msg=name)


def test_regions_in_copies_are_fused_like_the_first_ones() -> None:
    graph = limited(between(0.0)).graph
    again = [n for n in graph.nodes if isinstance(n.op, Fused) and ("compute_again" in dict(n.origin.history))]
    assert again
