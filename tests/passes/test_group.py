"""Grouping: which ops become one loop, which stay apart, and that the numbers stay what they were."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ir.random_graphs import runnable, values_for

from minigraph import ops
from minigraph.autodiff import gradients
from minigraph.backends.c.anchors import anchors
from minigraph.backends.loops.loop import computes
from minigraph.ir import Graph, Node, parse, variable, verify
from minigraph.ir.leaves import Constant, Input, Item, Variable
from minigraph.ir.leaves import input as input_
from minigraph.ops import group as group_op
from minigraph.ops.group import Group as GroupOp
from minigraph.ops.region import inlined_results
from minigraph.optimizers import SGD
from minigraph.passes import Trace, run
from minigraph.passes.group import LONGEST, Group
from minigraph.testing import assert_same_results
from minigraph.testing.networks import random_network, random_values, training_graph
from passes.pictures import graph

GROUP = Group(lambda node: anchors(node) or computes(node))


def inlined(grouped: Graph) -> Graph:
    """Return the graph with the steps of its groups in their places."""
    parts: dict[Node, list[Node]] = {}

    def make(node: Node, inputs: tuple[Node, ...]) -> Node:
        if isinstance(node.op, GroupOp):
            made = Node(node.op, inputs)
            parts[made] = inlined_results(made)
            return parts[made][0] if len(parts[made]) == 1 else made
        if isinstance(node.op, Item) and inputs[0] in parts:
            return parts[inputs[0]][node.op.index]
        return Node(node.op, inputs)

    return grouped.rebuild(make)


def checked(before: Graph) -> Graph:
    """Return the grouped graph: valid, the same after printing and reading, and after a second run."""
    after = verify(run([GROUP], before)[0])
    assert parse(str(after)).same_as(after)
    assert str(run([GROUP], after)[0]) == str(after)
    levels(after)
    return after


def levels(grouped: Graph) -> None:
    """Assert that every step of a group is needed for its results, and that no result is given twice."""
    for node in grouped.nodes:
        if not isinstance(node.op, GroupOp):
            continue
        assert len(set(node.op.results)) == len(node.op.results)
        needed, stack = set(), list(node.op.results)
        while stack:
            place = stack.pop() - len(node.inputs)
            if place >= 0 and place not in needed:
                needed.add(place)
                stack += node.op.body[place].inputs
        unused = set(range(len(node.op.body))) - needed
        assert not unused, f"steps {unused} of {node.op} make nothing"


def bodies(before: str | Graph) -> list[str]:
    """Return what is computed in one go: the ops of each node, in the graph's order; the numbers are compared."""
    old = graph(before) if isinstance(before, str) else before
    after = checked(old)
    for seed in range(2):
        assert_same_results(old, inlined(after), values_for(old, seed), rtol=1e-5)
    kinds = (Input, Variable, Constant, Item)
    return [named(n) for n in after.nodes if not isinstance(n.op, kinds)]


def named(node: Node) -> str:
    """Return the names of a node's ops, results that are stored in brackets."""
    if not isinstance(node.op, GroupOp):
        return node.op.name
    stored = {p - len(node.inputs) for p in node.op.results}
    stored |= {node.op.body[p].inputs[0] - len(node.inputs) for p in stored if isinstance(node.op.body[p].op, Item)}
    steps = [(i, s.op.name) for i, s in enumerate(node.op.body) if not isinstance(s.op, Item)]
    return " ".join(f"[{name}]" if i in stored else name for i, name in steps)


def x_and_more(*shapes: tuple[int, ...]) -> list[Node]:
    return [input_(shape, name=f"x{i}") for i, shape in enumerate(shapes)]


# --- one loop -------------------------------------------------------------------------------------------------------


def test_a_chain_is_one_loop_and_stores_its_end() -> None:
    assert bodies("""
      %0 = input("x") : float32[4,5]
      %1 = exp(%0) : float32[4,5]
      %2 = neg(%1) : float32[4,5]
      %3 = tanh(%2) : float32[4,5]
      return y=%3
    """) == ["exp neg [tanh]"]


def test_outputs_on_the_way_are_stored_by_the_same_loop() -> None:
    (x,) = x_and_more((4, 5))
    y = ops.exp(x)
    assert bodies(Graph({"y": y, "z": ops.tanh(y)})) == ["[exp] [tanh]"]


def test_cheap_values_are_computed_again_and_dear_ones_stored() -> None:
    (x,) = x_and_more((4, 5))
    for function, stored in ((ops.relu, False), (lambda y: ops.tanh(ops.exp(ops.sigmoid(ops.gelu(y)))), True)):
        y = function(x)
        found = " ".join(bodies(Graph({"a": ops.softmax(ops.neg(y)), "b": ops.sum(y * 2.0, 0)})))
        assert (f"[{y.op.name}]" in found) == stored


def test_a_convolution_takes_along_what_follows_and_its_moments() -> None:
    assert bodies("""
      %0 = input("x") : float32[2,6,6,3]
      %1 = variable("w") : float32[3,3,3,4]
      %2 = variable("b") : float32[4]
      %3 = conv2d(%0, %1, padding="same") : float32[2,6,6,4]
      %4 = add(%3, %2) : float32[2,6,6,4]
      %5 = moments(%4, axes=(0, 1, 2)) : (float32[4], float32[4])
      %6 = item(%5, index=0) : float32[4]
      %7 = item(%5, index=1) : float32[4]
      return y=%4, mean=%6, variance=%7
    """) == ["conv2d [add] [moments]"]


def test_a_sum_of_what_a_product_makes_reads_it_stored() -> None:
    x, w = x_and_more((6, 5), (5, 7))
    assert bodies(Graph({"s": ops.sum(ops.relu(ops.matmul(x, w)), 0)})) == ["matmul [relu] [sum]"]


def norm_and_pool(x: Node, gamma: Node, beta: Node) -> Node:
    mean, variance = ops.moments(x, (0, 1, 2))
    return ops.max_pool2d(ops.relu(ops.batch_norm(x, gamma, beta, mean, variance)), 2)


def test_norm_activation_and_pool_are_one_loop_over_windows() -> None:
    x, gamma, beta = x_and_more((2, 6, 6, 4), (4,), (4,))
    assert bodies(Graph({"y": norm_and_pool(x, gamma, beta)})) == ["moments", "batch_norm relu [max_pool2d]"]


def test_backwards_a_norm_takes_two_passes() -> None:
    """One for the two sums, one for the gradient; both compute masks and normalised values again."""
    x, gamma, beta = x_and_more((2, 6, 6, 4), (4,), (4,))
    loss = ops.sum(norm_and_pool(x, gamma, beta) * 3.0)
    found = bodies(Graph({str(i): g for i, g in enumerate(gradients(loss, [x, gamma, beta]))}))
    passes = [body for body in found if "max_pool2d_adjoint" in body]
    assert len(passes) == 2
    assert passes[0].count("[sum]") == 2 and "[" not in passes[0].replace("[sum]", "")
    assert "[" in passes[1] and "[sum]" not in passes[1]


def test_one_optimiser_step_for_each_shape_and_nothing_stored_between() -> None:
    w, v = variable((4, 5), name="w"), variable((7,), name="v")
    g, h = x_and_more((4, 5), (7,))
    updates = SGD(0.1, momentum=0.9).updates([(w, g), (v, h)])
    found = bodies(Graph({}, updates, [g, h]))
    assert sorted(body.count("[") for body in found if " " in body) == [2, 2]


# --- what stays apart -----------------------------------------------------------------------------------------------


def test_an_anchor_that_is_read_twice_is_stored_once() -> None:
    x, w = x_and_more((6, 5), (5, 7))
    y = ops.matmul(x, w)
    found = bodies(Graph({"a": ops.softmax(y), "b": ops.exp(y)}))
    assert sum("matmul" in body for body in found) == 1
    assert "[matmul]" in " ".join(found) or "matmul" in found


def test_two_anchors_are_two_nodes() -> None:
    x, w, z = x_and_more((6, 5), (5, 7), (7, 5))
    found = bodies(Graph({"y": ops.matmul(x, w) + ops.matmul(ops.relu(x), ops.transpose(z))}))
    assert [body.count("matmul") for body in found if "matmul" in body] == [1, 1]


def test_windows_of_two_sizes_are_two_loops() -> None:
    (x,) = x_and_more((2, 12, 12, 4))
    y = ops.relu(x)
    found = bodies(Graph({"a": ops.max_pool2d(y, 2), "b": ops.max_pool2d(y, 3)}))
    assert found == ["relu [max_pool2d]", "relu [max_pool2d]"]


def test_a_pool_of_overlapping_windows_is_no_part_of_a_loop() -> None:
    (x,) = x_and_more((2, 12, 12, 4))
    assert bodies(Graph({"y": ops.max_pool2d(ops.exp(x), 3, 2)})) == ["exp", "max_pool2d"]


def test_a_pool_of_a_pool_is_a_second_loop() -> None:
    (x,) = x_and_more((2, 12, 12, 4))
    found = bodies(Graph({"y": ops.max_pool2d(ops.exp(ops.max_pool2d(x, 2)), 3)}))
    assert [body.count("max_pool2d") for body in found] == [1, 1]


def test_what_depends_on_a_sum_waits_for_it() -> None:
    (x,) = x_and_more((6, 5))
    found = bodies(Graph({"y": ops.exp(x) - ops.sum(ops.exp(x), 0)}))
    assert not any("[sum]" in body and "sub" in body for body in found)


def test_of_a_value_and_its_wider_copy_the_narrow_one_is_stored() -> None:
    x, g = input_((4, 6, 6, 3), "float16", name="x"), input_((3,), name="g")
    activation = ops.relu(x * 2.0 + 1.0)
    wide = ops.cast(activation, "float32")
    mean, variance = ops.moments(wide, (0, 1, 2))
    scaled = (wide - mean) * ops.rsqrt(variance + 1e-3) * g
    before = Graph({"y": ops.cast(scaled, "float16")})
    after = verify(run([Group(lambda node: computes(node, ("float16", "float32")))], before)[0])
    stored = [str(node.type) for node in after.nodes if isinstance(node.op, GroupOp)]
    assert len(stored) == 3 and not [text for text in stored if "float32[4,6,6,3]" in text]
    rng = np.random.default_rng(0)
    values = {"x": rng.standard_normal((4, 6, 6, 3)).astype(np.float16), "g": rng.standard_normal(3, np.float32)}
    assert_same_results(before, inlined(after), values)


def test_sums_over_the_last_axis_are_left_to_the_library() -> None:
    (x,) = x_and_more((6, 5))
    assert bodies(Graph({"y": ops.sum(ops.exp(x), 1)})) == ["exp", "sum"]


def test_what_no_loop_computes_is_left_alone() -> None:
    (x,) = x_and_more((6, 5))
    half = ops.cast(x, "float16")
    assert bodies(Graph({"y": ops.exp(half) * half})) == ["cast", "exp", "mul"]
    assert run([Group(lambda node: False)], Graph({"y": ops.neg(ops.exp(x))}))[0].nodes[-1].inputs[0] is not x


def test_a_body_has_an_end() -> None:
    (x,) = x_and_more((6, 5))
    y = x
    for _ in range(3 * LONGEST):
        y = ops.neg(ops.exp(y))
    after = checked(Graph({"y": y}))
    assert max(len(n.op.body) for n in after.nodes if isinstance(n.op, GroupOp)) <= LONGEST
    assert sum(isinstance(n.op, GroupOp) for n in after.nodes) >= 6


def test_the_pass_says_what_it_did() -> None:
    (x,) = x_and_more((4, 5))
    line_of = ops.exp(x)
    trace = Trace()
    after = run([GROUP], Graph({"y": ops.tanh(line_of)}), trace)[0]
    assert trace.rules["group"].hits == 1
    (made,) = [n for n in after.nodes if isinstance(n.op, GroupOp)]
    assert __file__ in made.origin.where and made.origin.history[-1][0] == "group"


# --- graphs of all kinds --------------------------------------------------------------------------------------------


def residual(depth: int) -> Graph:
    """Return a training step of a residual network."""
    x, target = x_and_more((2, 8, 8, 4), (2, 4))
    y = x
    for i in range(depth):
        w = variable((3, 3, 4, 4), name=f"w{i}")
        gamma, beta = (variable((4,), name=f"{name}{i}") for name in ("gamma", "beta"))
        z = ops.conv2d(y, w, padding="same")
        mean, variance = ops.moments(z, (0, 1, 2))
        y = ops.relu(ops.batch_norm(z, gamma, beta, mean, variance) + y)
    loss = ops.mean((ops.mean(y, (1, 2)) - target) ** 2.0)
    found = Graph({"loss": loss})
    updates = SGD(0.1, momentum=0.9).updates(list(zip(found.variables, gradients(loss, found.variables), strict=True)))
    return Graph({"loss": loss}, updates, [x, target])


@pytest.mark.parametrize("depth", [1, 3])
def test_a_residual_network(depth: int) -> None:
    before = residual(depth)
    after = checked(before)
    anchored = [n for n in after.nodes if isinstance(n.op, GroupOp) and n.op.anchor is not None]
    assert len([n for n in anchored if "moments" in named(n)]) == depth  # convolution and statistics in one go
    assert_same_results(before, inlined(after), values_for(before), rtol=2e-3, atol=1e-4)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 10**9))
def test_random_graphs_keep_their_numbers(seed: int) -> None:
    before = runnable(random.Random(seed))
    after = checked(before)
    with np.errstate(all="ignore"):
        assert_same_results(before, inlined(after), values_for(before, seed), rtol=0.0, atol=0.0)


@pytest.mark.parametrize("seed", range(12))
def test_random_networks_keep_their_numbers(seed: int) -> None:
    rng = random.Random(seed)
    before = training_graph(random_network(rng, size=(5, 50)))
    before = run_bound(before)
    after = checked(before)
    values = random_values(before, rng)
    assert_same_results(before, inlined(after), values, rtol=0.0, atol=0.0)


def run_bound(graph: Graph) -> Graph:
    from minigraph.ir import bind

    return bind(graph, **{symbol: 2 for symbol in graph.symbols})


def test_a_group_of_steps_is_made_of_what_it_reads() -> None:
    x, y = x_and_more((2, 3), (2, 3))
    total = x + y
    both = group_op.group([total, total * x], [total])
    assert both.inputs == (x, y) and both.op.results == (2,)
    assert inlined_results(both)[0].op == total.op
