"""The memory plan: no two live buffers overlap, nothing that is needed is overwritten, and chains need one buffer."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir.random_graphs import runnable, values_for

import minigraph as mg
from minigraph import ops
from minigraph.backends import get
from minigraph.errors import GraphError, ShapeError
from minigraph.ir import Constant, Graph, Input, Node, Variable, symbol, variable
from minigraph.ir.leaves import input as input_
from minigraph.ops.elementwise import Elementwise
from minigraph.runtime import Interpreter, Plan, make_plan
from minigraph.runtime.plan import ALIGNMENT, Slot, _best_fit, _largest_first, _most_alive

BACKEND = get("numpy")


def plan_of(graph: Graph) -> Plan:
    return make_plan(graph, BACKEND.needs)


def training_graph(rng: random.Random) -> Graph:
    """Return a random graph with gradients of all its float outputs as further outputs."""
    graph = runnable(rng)
    outputs = dict(graph.outputs)
    for name, node in graph.outputs.items():
        if node.dtype.startswith("float"):
            for v in graph.variables:
                try:
                    (outputs[f"{name}/{v.label}"],) = mg.gradients(ops.sum(node), [v])
                except mg.errors.GradientError:
                    continue
    return Graph(outputs, graph.updates, graph.inputs)


@settings(max_examples=120, deadline=None)
@given(st.randoms(use_true_random=False))
def test_plans_of_random_graphs(rng):
    graph = runnable(rng)
    plan = plan_of(graph)
    assert plan.check() is plan
    assert plan.peak >= plan.lower_bound
    assert all(s.offset % ALIGNMENT == 0 and s.nbytes % ALIGNMENT == 0 for s in plan.all_slots)
    # Every value that a kernel makes has its slot, and every reader reads within the slot's life.
    for i, step in enumerate(plan.steps):
        for operand in step.node.inputs:
            slot = plan.slots.get(plan.roots[operand])
            if slot is None:
                assert isinstance(plan.roots[operand][0].op, (Variable, Constant))
            else:
                assert slot.start <= i <= slot.end


def compare_with_interpreter(graph: Graph, seed: int) -> None:
    """Compare the planned program with node-by-node evaluation in fresh memory: the same kernels, so the same bits."""
    values = values_for(graph, seed)
    state = mg.State({v.label: values[v.label] for v in graph.variables})
    program = mg.compile(graph, optimize=False)
    graph = program.graph  # legalising moves transposes, which may change the order of a sum
    fresh = Interpreter().run(graph, values)
    for _ in range(2):  # twice: what the first call left in the arena must not matter
        before = state.copy()
        results = program(state, **{i.label: values[i.label] for i in graph.inputs})
        for name, node in graph.outputs.items():
            np.testing.assert_array_equal(results[name], fresh[node], err_msg=f"{name}\n{graph}\n{program.plan}")
        for target, value in graph.updates.items():
            np.testing.assert_array_equal(state[target.label], fresh[value], err_msg=target.label)
        for name, array in before.items():
            state[name] = array


@settings(max_examples=100, deadline=None)
@given(st.randoms(use_true_random=False))
def test_nothing_that_is_needed_is_overwritten(rng):
    compare_with_interpreter(runnable(rng), 0)


def test_nothing_that_is_needed_is_overwritten_in_training_graphs():
    for seed in range(40):
        compare_with_interpreter(training_graph(random.Random(seed)), seed)


@pytest.mark.slow
def test_many_more_plans():
    for seed in range(3000):
        graph = training_graph(random.Random(seed + 10_000))
        plan_of(graph).check()
        compare_with_interpreter(graph, seed)


# --- in place ---------------------------------------------------------------------------------------------------------


def offsets(plan: Plan) -> set[int]:
    return {plan.slots[step.node, 0].offset for step in plan.steps}


def test_a_chain_of_elementwise_ops_needs_one_slot_that_of_its_input():
    x = y = input_((1000,), name="x")
    for _ in range(10):
        y = ops.tanh(-y * 2.0 + 1.0)
    plan = plan_of(Graph({"y": y})).check()
    assert len(offsets(plan)) == 1 and plan.peak == plan.slots[x, 0].nbytes == plan.lower_bound
    assert all(step.overwrites is not None for step in plan.steps)
    assert len({id(s) for s in plan.slots.values()}) == 1


def test_a_value_that_is_read_later_is_not_overwritten():
    x = input_((16,), name="x")
    a = ops.exp(x)
    b = -a
    plan = plan_of(Graph({"y": ops.tanh(b) * a})).check()
    assert plan.slots[b, 0].offset != plan.slots[a, 0].offset


def test_outputs_and_update_values_live_to_the_end():
    x, w = input_((16,), name="x"), variable((16,), name="w")
    early, value = ops.exp(x), ops.abs(x)
    late = early
    for _ in range(3):
        late = ops.tanh(late)
    plan = plan_of(Graph({"early": early, "late": late}, {w: value})).check()
    assert plan.slots[early, 0].end == plan.slots[value, 0].end == len(plan.steps)


def test_variables_and_constants_are_never_overwritten():
    w = variable((16,), name="w", init=1.0)
    graph = Graph({"y": ops.tanh(ops.exp(w) + ops.constant(np.arange(16, dtype=np.float32)))})
    assert all(not isinstance(k[0].op, (Variable, Constant)) for k in plan_of(graph).slots)
    state = mg.State.initial([w])
    mg.compile(graph)(state)
    np.testing.assert_array_equal(state["w"], 1.0)


def test_views_share_memory_and_keep_it_alive():
    x = input_((4, 6), name="x")
    a = ops.exp(x)
    flat = ops.reshape(a, (24,))
    pieces = ops.split(flat, 2)
    y = ops.concat([ops.tanh(pieces[1]), pieces[0]])
    plan = plan_of(Graph({"y": y, "flat": flat})).check()
    assert plan.roots[flat] == (a, 0) and plan.slots[a, 0].end == len(plan.steps)
    assert plan.roots[pieces[1]][1] == 1
    assert flat not in [s.node for s in plan.steps]


def test_an_operand_read_twice_under_two_shapes_is_not_overwritten():
    """y = a + reshape(a): writing y over a would change the second operand while it is read."""
    a = ops.exp(input_((4, 4), name="x"))
    y = a + ops.transpose(a) + ops.reshape(ops.reshape(a, (16,)), (4, 4))
    narrow = ops.exp(input_((1, 4), name="z"))
    both = narrow + ops.reshape(narrow, (4, 1))
    values = {"x": np.arange(16, dtype=np.float32).reshape(4, 4) / 16, "z": np.arange(4, dtype=np.float32)[None] / 4}
    result = mg.compile({"y": y, "both": both}, optimize=False)(**values)
    e, z = np.exp(values["x"]), np.exp(values["z"])
    np.testing.assert_allclose(result["y"], e + e.T + e, rtol=1e-6)
    np.testing.assert_allclose(result["both"], z + z.T, rtol=1e-6)


def test_inputs_that_nothing_reads_and_inputs_that_are_outputs():
    a, b = input_((8,), name="a"), input_((8,), name="b")
    plan = plan_of(Graph({"a": a, "y": ops.exp(a)}, inputs=[b, a])).check()
    assert plan.slots[a, 0].end == 1 and plan.slots[b, 0].end == -1
    result = mg.compile(Graph({"a": a, "y": ops.exp(a)}, inputs=[b, a]))(a=np.zeros(8), b=np.ones(8))
    np.testing.assert_array_equal(result["a"], 0)
    np.testing.assert_array_equal(result["y"], 1)


# --- checking and printing ------------------------------------------------------------------------------------------


def test_a_corrupted_plan_is_caught():
    caught = 0
    for seed in range(60):
        rng = random.Random(seed)
        plan = plan_of(runnable(rng))
        pairs = [
            (a, b) for a in plan.all_slots for b in plan.all_slots
            if a is not b and a.nbytes and b.nbytes and a.start <= b.end and b.start <= a.end
        ]  # fmt: skip
        if not pairs:
            continue
        a, b = rng.choice(pairs)
        a.offset = b.offset
        with pytest.raises(GraphError, match=r"overlap|outside"):
            plan.check()
        caught += 1
    assert caught > 20


def test_a_slot_outside_the_arena_is_caught():
    for offset in (-64, 1, 1 << 20):
        plan = plan_of(Graph({"y": ops.exp(input_((16,), name="x"))}))
        plan.all_slots[0].offset = offset
        with pytest.raises(GraphError):
            plan.check()


def test_a_plan_prints_a_line_a_kernel():
    x, w = input_((64, 8), name="x"), variable((8,), name="w")
    y = ops.softmax(ops.exp(x + w))
    text = str(plan_of(Graph({"y": y})))
    lines = text.splitlines()
    assert re.match(r"plan: 3 kernel calls, peak [\d,]+ bytes \(lower bound [\d,]+, .+\)", lines[0])
    assert len(lines) == 2 + 3 and "over %" in text and "workspace" in text
    assert [line.split()[2] for line in lines[2:]] == ["add", "exp", "softmax"]


def test_open_sizes_cannot_be_planned():
    with pytest.raises(ShapeError, match="symbolic size"):
        plan_of(Graph({"y": -input_((symbol("N"),), name="x")}))


def test_empty_values_and_empty_plans():
    plan = plan_of(Graph({"y": ops.exp(input_((0, 3), name="x"))})).check()
    assert plan.peak == 0
    plan = plan_of(Graph({"y": variable((3,), name="w")})).check()
    assert not plan.steps and plan.peak == 0


slots = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 12), st.integers(0, 6)).map(
        lambda t: Slot("s", t[0] * 64, t[1], t[1] + t[2])
    ),
    max_size=25,
)


@settings(max_examples=200, deadline=None)
@given(slots)
def test_both_strategies_place_any_slots_without_overlap(drawn):
    bound = _most_alive(drawn, 20)
    for strategy in (_best_fit, _largest_first):
        places, top = strategy(drawn)
        assert top >= bound
        for i, a in enumerate(drawn):
            assert places[i] >= 0 and places[i] + a.nbytes <= top
            for j, b in enumerate(drawn[:i]):
                apart = places[i] + a.nbytes <= places[j] or places[j] + b.nbytes <= places[i]
                assert apart or not a.nbytes or not b.nbytes or a.end < b.start or b.end < a.start


def test_every_node_is_planned_once_in_an_order_that_runs():
    graph = runnable(random.Random(5), 40)
    plan = plan_of(graph)
    computed: set[Node] = {n for n in graph.nodes if isinstance(n.op, (Input, Variable, Constant))}
    for step in plan.steps:
        assert all(plan.roots[i][0] in computed for i in step.node.inputs)
        computed.add(step.node)
    assert len(plan.steps) == len({s.node for s in plan.steps})


def test_what_only_updates_need_comes_last():
    rng = random.Random(3)
    for _ in range(10):
        graph = training_graph(rng)
        updates = {v: v - 0.5 * graph.outputs[f"{name}/{v.label}"] for name, v in _differentiated(graph)}
        trained = Graph({name: n for name, n in graph.outputs.items() if "/" not in name}, updates)
        plan = make_plan(trained, BACKEND.needs, updates_last=True).check()
        ends = set(trained.updates.values()) - set(trained.outputs.values())
        first = min((i for i, step in enumerate(plan.steps) if step.node in ends), default=len(plan.steps))
        behind = [step.node for step in plan.steps[first:]]
        assert all(isinstance(node.op, Elementwise) for node in behind), plan
        assert not set(behind) & set(Graph(trained.outputs).nodes), plan


def _differentiated(graph: Graph) -> list[tuple[str, Node]]:
    """Return one (output, variable) for each variable that a gradient was taken by."""
    found: dict[Node, str] = {}
    for name in graph.outputs:
        for v in graph.variables:
            if name.endswith(f"/{v.label}"):
                found[v] = name.removesuffix(f"/{v.label}")
    return [(name, v) for v, name in found.items()]
