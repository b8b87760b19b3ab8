"""Unfolding: what folds and merges took in comes back, bit for bit."""

from __future__ import annotations

import itertools
import random

import pytest

import minigraph as mg
from minigraph import ops
from minigraph.ir import Graph, bind, scope, variable, verify
from minigraph.passes import (
    FOLD_BATCH_NORM,
    FUSE,
    MERGE_AFFINES,
    MERGE_PADS,
    CommonSubexpressions,
    FoldConstants,
    Freeze,
    Trace,
    run,
    unfold,
)
from minigraph.passes.selection import Selection
from minigraph.runtime import constant_evaluator
from minigraph.testing.networks import random_network
from passes.folding import (
    BATCH,
    NETWORKS,
    Array,
    Net,
    as_graph,
    assert_within_bounds,
    batch_norms,
    compute,
    data_ops,
    knowing,
    networks,
)

# Where other passes than folds and merges have something to do: a padding goes into its reader, x / 0.25 becomes x · 4.
NOT_FOLDS_ALONE = {"padding", "normalised"}


def assert_same_bits(old: Graph, new: Graph, values: dict[str, Array]) -> None:
    """Compare what two graphs compute, unoptimised, bit for bit."""
    before, after = compute(old, values), compute(new, values)
    assert {name: array.tobytes() for name, array in after.items()} == {n: a.tobytes() for n, a in before.items()}


def state_of(graph: Graph, values: dict[str, Array]) -> dict[str, Array]:
    return {v.label: values[v.label] for v in graph.variables}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("passes", [(FOLD_BATCH_NORM,), (MERGE_AFFINES,), (MERGE_AFFINES, FOLD_BATCH_NORM)], ids=len)
def test_folds_and_merges_are_undone(passes, layout, dtype):
    undone = 0
    for name, graph, values in networks(dtype, layout):
        chosen = [knowing(each, state_of(graph, values)) for each in passes]
        folded, trace = run(chosen, graph)
        again = verify(unfold(folded))
        assert again.same_as(graph), f"{name}\n{again}\n{graph}"
        assert_same_bits(graph, again, values)
        undone += bool(trace.rewrites)
    assert undone >= 4


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_the_whole_pipeline_is_undone_as_far_as_it_was_folding(layout):
    for name, graph, values in networks("float32", layout):
        final = mg.optimize(graph, state_of(graph, values))[0]
        again = verify(unfold(final))
        assert again.same_as(graph) == (name not in NOT_FOLDS_ALONE), name
        assert len(batch_norms(again)) == len(batch_norms(graph))
        assert_same_bits(graph, again, values)


def test_all_variables_that_were_frozen_are_variables_again():
    net = Net()
    hidden = net.dense(ops.relu(net.norm(net.dense(net.input(4)))))
    graph = as_graph({"y": hidden, "parameter": net.random("alone", 3) * 2.0, "bare": net.random("bare", 2)})
    for folded in (mg.optimize(graph, net.state())[0], mg.freeze(graph, net.state())):
        assert not folded.variables
        again = unfold(folded)
        assert again.same_as(graph) and {v.label for v in again.variables} == set(net.state())


@pytest.mark.parametrize("name", ["stack", "partial", "both_sides", "flattened"])
def test_also_after_binding_freezing_and_fusing_in_any_order(name):
    net = Net("float32", symbolic=True)
    graph = as_graph(NETWORKS[name](net))
    bound = bind(graph, N=BATCH)
    freezing = (Freeze(net.state()), FoldConstants(constant_evaluator()))

    def binding(graph: Graph) -> Graph:
        return bind(graph, N=BATCH)

    def freeze(graph: Graph) -> Graph:
        return run(freezing, graph)[0]

    def fuse(graph: Graph) -> Graph:
        return run([FUSE], graph)[0]

    for steps in itertools.permutations((binding, freeze, fuse)):
        after = run([FOLD_BATCH_NORM], graph)[0]
        for step in steps:
            after = step(after)
        assert not after.variables and "fused" in {n.op.name for n in after.nodes}
        again = verify(unfold(after))
        assert again.same_as(bound), [step.__name__ for step in steps]
        assert_same_bits(bound, again, net.values)


def test_binding_in_between_two_passes():
    net = Net("float32", symbolic=True)
    graph = as_graph(NETWORKS["chain"](net))
    merged = bind(run([MERGE_AFFINES], graph)[0], N=BATCH)
    folded = run([FOLD_BATCH_NORM], merged)[0]
    assert data_ops(folded) == "conv2d add"
    assert unfold(folded).same_as(bind(graph, N=BATCH))


def test_what_was_not_folded_stays_as_it_is():
    for name, graph, _ in networks():
        assert unfold(graph).same_as(graph), name
    net = Net()
    graph = as_graph(net.conv(ops.pad(ops.pad(net.image(), [(0, 0), (1, 1), (1, 1), (0, 0)]), [(0, 0)] * 4)))
    merged = run([MERGE_PADS], graph)[0]
    assert unfold(merged).same_as(merged)


def test_one_block_is_folded_and_the_other_is_not():
    net = Net()
    x = net.image(4)
    for name in ("first", "second"):
        with scope(name):
            x = ops.relu(net.norm(net.conv(x, 4)))
    graph = as_graph(x)
    folded = run([FOLD_BATCH_NORM], graph, Trace(Selection(exclude=("scope:first",))))[0]
    assert data_ops(folded) == "conv2d batch_norm relu conv2d add relu"
    assert unfold(folded).same_as(graph)


def test_unfolding_twice_and_folding_again():
    for name, graph, _ in networks():
        folded = run([FOLD_BATCH_NORM], graph)[0]
        once = unfold(folded)
        assert unfold(once).same_as(once)
        assert str(run([FOLD_BATCH_NORM], once)[0]) == str(folded), name


def test_updates_and_other_outputs_stay():
    net = Net()
    step = variable((), name="step", dtype="float64")
    norm = net.norm(net.conv(net.image()))
    graph = Graph({"y": norm, "z": ops.tanh(norm), "step": step}, {step: step + 1.0})
    assert unfold(run([FOLD_BATCH_NORM], graph)[0]).same_as(graph)


def test_an_input_that_nothing_reads_stays():
    net = Net()
    unread = net.input(3)
    x = net.norm(net.conv(net.image()))
    graph = Graph({"y": x}, inputs=[unread, *as_graph(x).inputs])
    assert unfold(run([FOLD_BATCH_NORM], graph)[0]).same_as(graph)


def test_a_text_has_no_past():
    net = Net()
    folded = run([FOLD_BATCH_NORM], as_graph(net.norm(net.conv(net.image()))))[0]
    read = mg.parse(str(folded))
    assert unfold(read).same_as(folded) and not batch_norms(unfold(read))


def test_a_backward_pass_over_a_fold_stays_valid():
    net = Net()
    loss = ops.sum(ops.tanh(net.norm(net.conv(net.norm(net.image()), padding="same"))))
    folded = run([FOLD_BATCH_NORM], as_graph(loss))[0]
    kernel = folded.variable("w")
    (gradient,) = mg.gradients(folded.outputs["y"], [kernel])
    graph = Graph({"y": folded.outputs["y"], "gradient": gradient})
    again = verify(unfold(graph))
    assert len(batch_norms(again)) == 2
    assert_within_bounds(graph, [(again, again)], net.values)


def test_a_deep_stack():
    net = Net("float32")
    x = net.input(3)
    for _ in range(300):
        x = net.norm(net.dense(x, 3))
    graph = as_graph(x)
    folded = run([FOLD_BATCH_NORM], graph)[0]
    assert not batch_norms(folded) and unfold(folded).same_as(graph)


def test_random_networks():
    undone = 0
    for seed in range(40):
        graph = mg.lower(random_network(random.Random(seed), size=(10, 40)), "inference")
        folded, trace = run([MERGE_AFFINES, FOLD_BATCH_NORM], graph)
        undone += bool(trace.rewrites)
        assert verify(unfold(folded)).same_as(run([CommonSubexpressions()], graph)[0]), seed
    assert undone > 5
