"""Fusion: which ops join which region, what is refused and why, and that unfusing gives the very same graph back."""

from __future__ import annotations

import random
import re
from itertools import pairwise

import numpy as np
import pytest
from ir.random_graphs import definition, runnable, values_for
from training.small import blobs, dense_model, image_model, images

import minigraph as mg
from minigraph import ops
from minigraph.ir import Graph, Node, bind, parse, symbol, variable, verify
from minigraph.ir.leaves import input as input_
from minigraph.ops.elementwise import Elementwise
from minigraph.ops.fused import ANCHORS, Fused
from minigraph.passes import FUSE, UNFUSE, Trace, run
from minigraph.passes.fuse import LONGEST
from passes.pictures import check, graph, unchanged


def regions(found: Graph) -> list[Node]:
    """Return the fused regions of a graph."""
    return [n for n in found.nodes if isinstance(n.op, Fused)]


def fused(made: Graph) -> Graph:
    """Return a graph, fused."""
    return run([FUSE], made)[0]


def reasons(trace: Trace) -> list[str]:
    """Return why fusion was refused, without repetition."""
    return list(dict.fromkeys(r.reason for (rule, _), r in trace.refusals.items() if rule == "fuse_into_reader"))


# --- pictures -----------------------------------------------------------------------------------------------------

CONV = """
%0 = input("x") : float32[2,6,6,3]
%1 = variable("w") : float32[3,3,3,4]
%2 = conv2d(%0, %1) : float32[2,4,4,4]
%3 = variable("b") : float32[4]
"""


def test_convolution_bias_and_relu():
    check(
        CONV + """%4 = add(%2, %3) : float32[2,4,4,4]
                  %5 = relu(%4) : float32[2,4,4,4]
                  return y=%5""",
        """%0 = input("x") : float32[2,6,6,3]
           %1 = variable("w") : float32[3,3,3,4]
           %2 = variable("b") : float32[4]
           %3 = fused(%0, %1, %2, body=(step(op=conv2d(), inputs=(0, 1)), step(op=add(), inputs=(3, 2)),
                                        step(op=relu(), inputs=(4,)))) : float32[2,4,4,4]
           return y=%3""",
        FUSE,
    )  # fmt: skip


def test_a_residual_sum():
    check(
        CONV + """%4 = input("r") : float32[2,4,4,4]
                  %5 = add(%2, %3) : float32[2,4,4,4]
                  %6 = add(%4, %5) : float32[2,4,4,4]
                  %7 = relu(%6) : float32[2,4,4,4]
                  return y=%7""",
        """%0 = input("x") : float32[2,6,6,3]
           %1 = input("r") : float32[2,4,4,4]
           %2 = variable("w") : float32[3,3,3,4]
           %3 = variable("b") : float32[4]
           %4 = fused(%0, %2, %3, %1, body=(step(op=conv2d(), inputs=(0, 1)), step(op=add(), inputs=(4, 2)),
                   step(op=add(), inputs=(3, 5)), step(op=relu(), inputs=(6,)))) : float32[2,4,4,4]
           return y=%4""",
        FUSE,
    )  # fmt: skip


def test_of_two_convolutions_that_meet_in_a_sum_the_later_joins():
    trace = check(
        """%0 = input("x") : float32[2,6,6,3]
           %1 = variable("w") : float32[1,1,3,4]
           %2 = conv2d(%0, %1) : float32[2,6,6,4]
           %3 = variable("v") : float32[3,3,3,4]
           %4 = conv2d(%0, %3, padding="same") : float32[2,6,6,4]
           %5 = add(%2, %4) : float32[2,6,6,4]
           return y=%5""",
        """%0 = input("x") : float32[2,6,6,3]
           %1 = variable("v") : float32[3,3,3,4]
           %2 = variable("w") : float32[1,1,3,4]
           %3 = conv2d(%0, %2) : float32[2,6,6,4]
           %4 = fused(%0, %1, %3, body=(step(op=conv2d(padding="same"), inputs=(0, 1)),
                                        step(op=add(), inputs=(2, 3)))) : float32[2,6,6,4]
           return y=%4""",
        FUSE,
    )  # fmt: skip
    assert [r.rule for r in trace.rewrites] == ["fuse_into_reader"]


def test_beside_an_elementwise_region_the_convolution_still_comes_first():
    made = fused(graph(CONV + """
        %4 = input("z") : float32[2,4,4,4]
        %5 = exp(%4) : float32[2,4,4,4]
        %6 = mul(%5, %2) : float32[2,4,4,4]
        return y=%6"""))  # fmt: skip
    (region,) = regions(made)
    assert [s.op.name for s in region.op.body] == ["conv2d", "exp", "mul"]  # type: ignore[attr-defined]
    assert len(made.nodes) == 4


def test_two_products_do_not_share_a_region():
    before = graph("""
        %0 = input("x") : float32[5,3]
        %1 = variable("w") : float32[3,3]
        %2 = matmul(%0, %1) : float32[5,3]
        %3 = relu(%2) : float32[5,3]
        %4 = matmul(%3, %1) : float32[5,3]
        %5 = relu(%4) : float32[5,3]
        return y=%5""")
    made = fused(before)
    assert [[s.op.name for s in r.op.body] for r in regions(made)] == [["matmul", "relu"]] * 2  # type: ignore[attr-defined]
    assert len(made.nodes) == 4


def test_a_value_that_is_read_twice_is_computed_once_and_the_reason_is_kept():
    before = graph(
        CONV
        + """
        %4 = relu(%2) : float32[2,4,4,4]
        return y=%4, z=%2"""
    )
    made, trace = run([FUSE], before)
    assert made.same_as(before) and reasons(trace) == ["second use: conv2d is read 2 times"]
    relu = before.outputs["y"]
    refusal = trace.why_not("fuse", relu)
    assert refusal is not None and refusal.nodes == (before.outputs["z"],)
    assert mg.why_not("fuse", relu, before).reason == refusal.reason
    assert mg.why_not("fuse_into_reader", relu) is None  # if nothing else read it


def test_an_update_is_a_use():
    x, w = input_((3,), name="x"), variable((3,), name="w")
    value = ops.exp(x)
    before = Graph({"y": ops.relu(value)}, {w: value})
    assert reasons(run([FUSE], before)[1]) == ["second use: exp is read 2 times"]


def test_a_value_that_one_region_alone_reads_joins_it_however_often_it_is_read():
    """Both readers are in one region after the first sweep; the value follows in the second."""
    check(
        """%0 = input("x") : float32[3]
           %1 = exp(%0) : float32[3]
           %2 = tanh(%1) : float32[3]
           %3 = mul(%1, %2) : float32[3]
           return y=%3""",
        """%0 = input("x") : float32[3]
           %1 = fused(%0, body=(step(op=exp(), inputs=(0,)), step(op=tanh(), inputs=(1,)),
                                step(op=mul(), inputs=(1, 2)))) : float32[3]
           return y=%1""",
        FUSE,
    )  # fmt: skip


@pytest.mark.parametrize("levels", [5, 15, 19, 30])
def test_values_that_wait_for_each_other_join_one_by_one(levels):
    """Each is read by the next and, once more, at the end: it has one reader only when all after it have joined."""
    values = [ops.tanh(input_((3,), name="x"))]
    for _ in range(levels - 1):
        values.append(ops.tanh(values[-1]))
    y = values.pop()
    while values:
        four = [values.pop() for _ in range(min(4, len(values)))]
        y = ops.batch_norm(y, *four, *[four[-1]] * (4 - len(four)))
    made = fused(Graph({"y": y}))
    assert len(regions(made)) == 1 and (len(made.nodes) == 2) == (levels < 20)


def test_an_operand_that_is_read_twice_by_one_op():
    check(
        """%0 = input("x") : float32[3]
           %1 = exp(%0) : float32[3]
           %2 = mul(%1, %1) : float32[3]
           return y=%2""",
        """%0 = input("x") : float32[3]
           %1 = fused(%0, body=(step(op=exp(), inputs=(0,)), step(op=mul(), inputs=(1, 1)))) : float32[3]
           return y=%1""",
        FUSE,
    )  # fmt: skip


def test_what_is_broadcast_stays_outside_and_is_not_computed_again_for_each_image():
    before = """%0 = input("x") : float32[2,3]
                %1 = input("z") : float32[3]
                %2 = exp(%1) : float32[3]
                %3 = add(%0, %2) : float32[2,3]
                return y=%3"""
    unchanged(before, FUSE)
    assert reasons(run([FUSE], graph(before))[1]) == ["it is broadcast"]


BATCH_NORM = """
%0 = input("x") : float32[2,4,4,4]
%1 = exp(%0) : float32[2,4,4,4]
%2 = input("v") : float32[4]
%3 = batch_norm(%1, %2, %2, %2, %2, axis={axis}) : float32[2,4,4,4]
%4 = relu(%3) : float32[2,4,4,4]
return y=%4"""


@pytest.mark.parametrize("axis", [-1, 3])
def test_a_batch_norm_along_the_last_axis_joins(axis):
    (region,) = regions(fused(graph(BATCH_NORM.format(axis=axis).replace(", axis=-1", ""))))
    assert [s.op.name for s in region.op.body] == ["exp", "batch_norm", "relu"]  # type: ignore[attr-defined]


def test_a_batch_norm_along_another_axis_does_not():
    before = BATCH_NORM.format(axis=1)
    unchanged(before, FUSE)
    assert reasons(run([FUSE], graph(before))[1]) == ["the batch norm runs along another axis"]


def test_a_batch_norm_whose_mode_is_open_does_not():
    for norm in [n for seed in range(60) for n in definition(random.Random(seed)).nodes if n.op.name == "batch_norm"]:
        if norm.op.moving is not None:
            made = fused(Graph({"y": ops.relu(norm)}))
            assert norm.op in [n.op for n in made.nodes]


@pytest.mark.parametrize(("length", "want"), [(24, [24]), (25, [24]), (26, [24, 2]), (60, [24, 24, 12])])
def test_a_region_has_at_most_24_steps(length, want):
    y = x = input_((3,), name="x")
    for i in range(length):
        y = ops.tanh(y) if i % 2 else ops.sigmoid(y)
    made, trace = run([FUSE], Graph({"y": y}))
    assert [len(r.op.body) for r in regions(made)] == want and LONGEST == 24
    assert len(made.nodes) == 1 + -(-length // 24) and made.inputs == (x,)
    assert bool(reasons(trace)) == (length > 24)
    assert all(re.fullmatch(r"the region would have \d+ steps", reason) for reason in reasons(trace))


def test_parameters_are_left_to_freezing():
    unchanged(
        """%0 = input("x") : float32[3]
           %1 = variable("w") : float32[3]
           %2 = exp(%1) : float32[3]
           %3 = neg(%2) : float32[3]
           %4 = mul(%0, %3) : float32[3]
           return y=%4, w=%3""",
        FUSE,
    )


@pytest.mark.parametrize("between", [
    lambda x: ops.reshape(x, (3, 2)), lambda x: ops.transpose(x), lambda x: ops.softmax(x), lambda x: x[::-1],
    lambda x: ops.concat([x, x]), lambda x: ops.broadcast_to(x, (2, 2, 3)), lambda x: ops.moments(x, 0)[0],
])  # fmt: skip
def test_only_what_works_element_by_element_joins(between):
    x = input_((2, 3), name="x")
    made = fused(Graph({"y": ops.relu(ops.neg(between(ops.exp(ops.sin(x)))))}))
    assert [[s.op.name for s in r.op.body] for r in regions(made)] == [["sin", "exp"], ["neg", "relu"]]  # type: ignore[attr-defined]


def test_types_may_change_inside():
    x = input_((2, 3), name="x")
    y = ops.where(x > 0.0, ops.cast(ops.cast(x, "float16"), "float32"), 0.0)
    (region,) = regions(fused(Graph({"y": y})))
    assert sorted(s.op.name for s in region.op.body) == ["cast", "cast", "greater", "where"]  # type: ignore[attr-defined]


# --- what holds for every graph -----------------------------------------------------------------------------------


def many(count: int) -> list[Graph]:
    """Return random graphs, that can be computed and that cannot."""
    return [make(random.Random(seed)) for seed in range(count) for make in (runnable, definition)]


def elementwise(rng: random.Random, length: int) -> Graph:
    """Return a random graph of elementwise ops, most of which read what was made last."""
    pool = [input_(s, name=f"x{i}") for i, s in enumerate([(2, 3), (3,), (2, 3)])]
    for _ in range(length):
        x = rng.choice(pool[-3:])
        y = rng.choice(pool[-8:])
        pool.append(rng.choice([lambda: ops.tanh(x), lambda: x + y, lambda: x * y, lambda: ops.where(x < y, x, y)])())  # noqa: B023
    outputs = {"last": pool[-1], "some": rng.choice(pool)}
    return Graph(outputs, inputs=pool[:3])


def test_unfused_is_the_graph_that_was_fused():
    met = 0
    for before in [*many(60), *(elementwise(random.Random(s), 40) for s in range(20))]:
        made = verify(fused(before))
        met += len(regions(made))
        assert verify(run([UNFUSE], made)[0]).same_as(before), f"{before}\n\n{made}"
    assert met > 100


def test_fused_twice_is_fused_once_and_always_the_same():
    for before in [*many(40), *(elementwise(random.Random(s), 200) for s in range(10))]:
        made = fused(before)
        assert fused(made).same_as(made)
        assert str(fused(before)) == str(made)


def test_nothing_is_left_that_could_join():
    for before in [*many(40), *(elementwise(random.Random(s), 100) for s in range(10))]:
        made = fused(before)
        for node in made.nodes:
            inner = isinstance(node.op, (Elementwise, Fused)) and not _parameter(made, node)
            if not inner or (isinstance(node.op, Fused) and isinstance(node.op.body[0].op, ANCHORS)):
                continue
            assert mg.why_not("fuse", node, made) is not None


def _parameter(made: Graph, node: Node) -> bool:
    return not any(n.op.name == "input" for n in Graph({"y": node}).nodes)


def test_the_numbers_are_the_same_to_the_bit():
    met = 0
    graphs = [runnable(random.Random(seed)) for seed in range(60)]
    graphs += [elementwise(random.Random(seed), 40) for seed in range(20)]
    for seed, before in enumerate(graphs):
        made = fused(before)
        met += len(regions(made))
        values = values_for(before, seed)
        inputs = {i.label: values[i.label] for i in before.inputs}
        results = []
        for each in (before, made, run([UNFUSE], made)[0]):
            state = mg.State({v.label: np.asarray(values[v.label], v.dtype) for v in each.variables})
            results.append({**mg.compile(each, optimize=False)(state, **inputs), **state})
        for name, want in results[0].items():
            for got in results[1:]:
                np.testing.assert_array_equal(got[name], want, f"seed {seed}: {name}\n{made}")
    assert met > 80


def test_fusing_before_the_sizes_are_bound_or_after():
    x = input_((symbol("N"), 8, 8, 3), name="x")
    y = ops.relu(ops.conv2d(x, variable((3, 3, 3, 4), name="w")) + variable((4,), name="b"))
    z = ops.sum(y * ops.broadcast_to(ops.mean(y, 0), y.shape) + 1.0, (1, 2))
    open_ = Graph({"z": ops.exp(z) * z})
    early, late = bind(fused(open_), N=5), fused(bind(open_, N=5))
    assert verify(early).same_as(late) and len(regions(late)) == 3


def test_a_fused_graph_is_text_that_reads_back():
    for before in many(40):
        made = fused(before)
        again = parse(str(made))
        assert again.same_as(made) and str(again) == str(made)


# --- provenance ---------------------------------------------------------------------------------------------------


def test_a_region_knows_the_line_scope_and_replaced_node_of_its_result():
    x = input_((3,), name="x")
    with mg.ir.scope("block"):
        first = ops.exp(x)
    last = ops.relu(first)
    before = Graph({"y": last})
    made, trace = run([FUSE], before)
    (region,) = regions(made)
    assert region.id == trace.rewrites[0].new.id and region.origin.replaced is last
    assert region.origin.where == last.origin.where and region.origin.history == (("fuse_into_reader", last.id),)
    again = run([UNFUSE], made)[0]
    for node in again.nodes[1:]:
        assert node.origin.history == (("fuse_into_reader", last.id), ("unfused", region.id))
    assert again.outputs["y"].origin.replaced is region


def test_each_rewrite_of_a_long_chain_replaces_one_node():
    y = input_((3,), name="x")
    for _ in range(10):
        y = ops.tanh(y)
    trace = run([FUSE], Graph({"y": y}))[1]
    assert [len(r.new.op.body) for r in trace.rewrites] == list(range(2, 11))  # type: ignore[attr-defined]
    assert all(b.old.inputs == (a.new,) for a, b in pairwise(trace.rewrites))


# --- training graphs ----------------------------------------------------------------------------------------------

MODELS = {"dense": (dense_model, blobs), "images": (image_model, images)}


@pytest.mark.parametrize("name", MODELS)
def test_a_training_step_has_regions_forwards_and_backwards_and_the_same_losses(name):
    make, data = MODELS[name]
    model, (x, y) = make(), data()
    plain = bind(model.lower("training"), N=len(x))
    made = fused(plain)
    backwards = [r for r in regions(made) if r.origin.gradient_of is not None]
    assert backwards and len(backwards) < len(regions(made))
    assert any(isinstance(r.op.body[0].op, ANCHORS) for r in regions(made))  # type: ignore[attr-defined]
    inputs = {plain.inputs[0].label: x, "label": y}
    states = []
    for each in (plain, made):
        program, state = mg.compile(each, optimize=False), model.state.copy()
        losses = [float(program(state, **inputs)["loss"]) for _ in range(3)]
        states.append((losses, state))
    (losses, state), (got, after) = states
    assert got == losses and losses[2] < losses[0]
    for label, value in state.items():
        np.testing.assert_array_equal(after[label], value, label)


@pytest.mark.parametrize("name", MODELS)
def test_programs_are_fused_and_need_less_memory_traffic(name):
    model, (x, _) = MODELS[name][0](), MODELS[name][1]()
    program = model.program("training")
    made = program.prepare(N=len(x)).graph
    plain = run([UNFUSE], made)[0]
    assert regions(made) and verify(made)

    def moved(each: Graph) -> int:
        return sum(n.op.bytes(n) for n in each.nodes if n.inputs)

    assert moved(made) < moved(plain)
    assert program.trace.step("fuse").rewrites
