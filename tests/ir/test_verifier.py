"""The verifier: valid graphs pass; graphs broken on purpose are refused with a GraphError, and nothing else."""

from __future__ import annotations

import copy
import dataclasses
import random
from collections import Counter
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ir.random_graphs import definition, runnable
from minigraph import ops
from minigraph.errors import GraphError
from minigraph.ir import Constant, Graph, Input, Item, Node, Op, TensorType, TupleType, Variable, variable, verify
from minigraph.ir.leaves import input as input_

put = object.__setattr__


@settings(max_examples=100, deadline=None)
@given(st.randoms(use_true_random=False), st.booleans())
def test_valid_graphs_pass(rng, computable):
    graph = (runnable if computable else definition)(rng)
    assert verify(graph) is graph


# --- breaking graphs --------------------------------------------------------------------------------------------------


def shell(outputs: dict[str, Node], updates: dict[Node, Node], inputs: tuple[Node, ...]) -> Graph:
    """Return a graph whose constructor checked nothing."""
    graph = object.__new__(Graph)
    graph.inputs, graph.outputs, graph.updates = inputs, MappingProxyType(outputs), MappingProxyType(updates)
    graph.nodes = graph._sorted()
    return graph


def fresh(graph: Graph) -> Graph:
    """Return a copy with nodes of its own, unchecked, to be broken."""
    new = graph.rebuild(lambda node, inputs: node.with_inputs(inputs))
    return shell(dict(new.outputs), dict(new.updates), new.inputs)


def still_valid(node: Node) -> bool:
    """Tell whether a node's op gives its type from its operands: then a change made another program, no broken one."""
    try:
        return node.op.infer(*(i.type for i in node.inputs)) == node.type
    except Exception:
        return False


def other_type(rng: random.Random, type_: Any) -> Any:
    if isinstance(type_, TupleType):
        return rng.choice(
            [type_.items[0], TupleType(type_.items[:-1]), TupleType((*type_.items[::-1], type_.items[0]))]
        )
    shape = type_.shape
    return rng.choice([
        TensorType(shape, "int16" if type_.dtype != "int16" else "bool"),
        TensorType((*shape, 3), type_.dtype),
        TensorType((7, *shape[1:]) if shape and shape[0] != 7 else (9, 9, 9, 9, 9), type_.dtype),
        TupleType((type_,)),
        None,
    ])  # fmt: skip


def wrong_value(rng: random.Random, value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice([value + 1, value + 100, -value - 50, "x", None])
    if isinstance(value, tuple):
        return rng.choice([value[:-1], (*value, 1), tuple(reversed(value)), 5, "xy", None, (*value[:-1], "a")])
    if isinstance(value, str):
        return rng.choice(["bogus", 3, None])
    if isinstance(value, TensorType):
        return other_type(rng, value)
    return rng.choice(["x", (1, 2)])


def stale_type(rng: random.Random, graph: Graph, nodes: list[Node]) -> None:
    node = rng.choice(nodes)
    put(node, "type", other_type(rng, node.type))


def exchanged_types(rng: random.Random, graph: Graph, nodes: list[Node]) -> bool:
    a, b = rng.choice(nodes), rng.choice(nodes)
    first, second = a.type, b.type
    put(a, "type", second)
    put(b, "type", first)
    return first == second


def wrong_attribute(rng: random.Random, graph: Graph, nodes: list[Node]) -> bool:
    node = rng.choice([n for n in nodes if dataclasses.fields(n.op) and not isinstance(n.op, Constant)])
    op = copy.copy(node.op)
    field = rng.choice(dataclasses.fields(op))
    put(op, field.name, wrong_value(rng, getattr(op, field.name)))
    put(node, "op", op)
    return still_valid(node)


def another_op(rng: random.Random, graph: Graph, nodes: list[Node]) -> bool:
    a, b = rng.choice(nodes), rng.choice(nodes)
    put(a, "op", b.op)
    return still_valid(a)


def lost_operand(rng: random.Random, graph: Graph, nodes: list[Node]) -> bool:
    node = rng.choice([n for n in nodes if n.inputs] or [None])
    if node is None:
        return True
    at = rng.randrange(len(node.inputs))
    put(node, "inputs", node.inputs[:at] + node.inputs[at + 1 :])
    return still_valid(node)


def doubled_operand(rng: random.Random, graph: Graph, nodes: list[Node]) -> bool:
    node = rng.choice([n for n in nodes if n.inputs] or [None])
    if node is None:
        return True
    put(node, "inputs", (*node.inputs, rng.choice(node.inputs)))
    return still_valid(node)


def wrong_operand(rng: random.Random, graph: Graph, nodes: list[Node]) -> bool:
    position = {n: i for i, n in enumerate(nodes)}
    node = rng.choice([n for n in nodes if n.inputs] or [None])
    if node is None:
        return True
    at = rng.randrange(len(node.inputs))
    earlier = rng.choice(nodes[: position[node]])
    put(node, "inputs", (*node.inputs[:at], earlier, *node.inputs[at + 1 :]))
    return still_valid(node)


def operand_of_a_leaf(rng: random.Random, graph: Graph, nodes: list[Node]) -> bool:
    leaf = rng.choice([n for n in nodes if isinstance(n.op, (Input, Variable, Constant))])
    put(leaf, "inputs", (input_((1,), name="intruder"),))
    return False


def update_of_no_variable(rng: random.Random, graph: Graph, nodes: list[Node]) -> bool:
    target = rng.choice([n for n in nodes if not isinstance(n.op, Variable)])
    graph.updates = MappingProxyType({**graph.updates, target: target})
    return False


def update_of_another_type(rng: random.Random, graph: Graph, nodes: list[Node]) -> bool:
    pairs = [(v, n) for v in nodes if isinstance(v.op, Variable) for n in nodes if n.type != v.type]
    if not pairs:
        return True
    graph.updates = MappingProxyType({**graph.updates, **dict([rng.choice(pairs)])})
    return False


def name_used_twice(rng: random.Random, graph: Graph, nodes: list[Node]) -> bool:
    leaves = [n for n in nodes if isinstance(n.op, (Input, Variable))]
    if len(leaves) < 2:
        return True
    a, b = rng.sample(leaves, 2)
    put(a, "op", dataclasses.replace(a.op, label=b.op.label))
    return False


def strange_op(rng: random.Random, graph: Graph, nodes: list[Node]) -> bool:
    @dataclasses.dataclass(frozen=True)
    class Impostor(Op):
        name = "neg"

        def infer(self, *types: Any) -> Any:
            return types[0]

    node = rng.choice(nodes)
    # An input without an op breaks the message itself: see test_an_input_without_an_op.
    named = node in graph.inputs or node in graph.updates
    put(node, "op", Impostor() if named else rng.choice([None, object(), "neg", Impostor()]))
    return False


def tuple_as_output(rng: random.Random, graph: Graph, nodes: list[Node]) -> bool:
    tuples = [n for n in nodes if isinstance(n.type, TupleType)]
    if not tuples:
        return True
    graph.outputs = MappingProxyType({**graph.outputs, "tuple": rng.choice(tuples)})
    return False


def nothing_computed(rng: random.Random, graph: Graph, nodes: list[Node]) -> bool:
    graph.outputs, graph.updates = MappingProxyType({}), MappingProxyType({})
    return False


def item_that_is_not_there(rng: random.Random, graph: Graph, nodes: list[Node]) -> bool:
    items = [n for n in nodes if isinstance(n.op, Item)]
    if not items:
        return True
    put(rng.choice(items), "op", Item(rng.choice([-1, 2, 99])))
    return False


CORRUPTIONS = [
    stale_type, exchanged_types, wrong_attribute, wrong_attribute, another_op, lost_operand, doubled_operand,
    wrong_operand, operand_of_a_leaf, update_of_no_variable, update_of_another_type, name_used_twice, strange_op,
    tuple_as_output, nothing_computed, item_that_is_not_there,
]  # fmt: skip


def corrupt(rng: random.Random) -> tuple[str, Graph] | None:
    """Return (what was done, a graph that is surely broken), or None where the change happened to be a valid one."""
    graph = fresh((definition if rng.random() < 0.5 else runnable)(rng))
    nodes = list(graph.nodes)
    change = rng.choice(CORRUPTIONS)
    still_fine = change(rng, graph, nodes)
    if change is not strange_op:  # sorted again, as a pass would hand it on
        graph = shell(dict(graph.outputs), dict(graph.updates), graph.inputs)
    return None if still_fine else (change.__name__, graph)


def refused(count: int, seed: int) -> None:
    rng = random.Random(seed)
    accepted: Counter[str] = Counter()
    foreign: Counter[str] = Counter()
    done = 0
    while done < count:
        broken = corrupt(rng)
        if broken is None:
            continue
        done += 1
        try:
            verify(broken[1])
        except GraphError as error:
            assert str(error)
        except Exception as error:
            foreign[f"{broken[0]}: {type(error).__name__}: {error}"] += 1
        else:
            accepted[broken[0]] += 1
    assert not foreign, foreign
    assert sum(accepted.values()) <= count // 100, accepted


def test_broken_graphs_are_refused():
    refused(1000, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_many_more_broken_graphs(seed):
    refused(1000, seed + 1)


def test_each_message_names_its_rule_and_the_line():
    x = input_((2, 3), name="x")
    y = -x
    put(y, "type", TensorType((3, 2)))
    with pytest.raises(GraphError, match="rule 2: neg has a stale type") as caught:
        verify(Graph({"y": y}))
    assert caught.value.where.startswith(__file__) and caught.value.expected == TensorType((2, 3))
    pair = ops.moments(x, 0)[0].inputs[0]
    with pytest.raises(GraphError, match="rule 6: output 'y' is a tuple"):
        verify(Graph({"y": pair}))
    with pytest.raises(GraphError, match="rule 6: a graph without outputs and updates"):
        verify(Graph({}, inputs=[x]))
    z = -x
    put(z, "op", None)
    with pytest.raises(GraphError, match="rule 1"):
        verify(shell({"y": z}, {}, (x,)))


def test_a_cycle_made_after_the_graph_was_sorted_is_found():
    x = input_((2,), name="x")
    y = -x
    z = abs(y)
    graph = Graph({"z": z})
    put(y, "inputs", (z,))
    with pytest.raises(GraphError, match="rule 3"):
        verify(graph)


def test_a_cycle_is_found():
    class Watched(tuple):
        """Operands that are looked at for ever, unless somebody stops it."""

        looks = 0

        def __len__(self) -> int:
            self.looks += 1
            if self.looks > 10_000:
                raise TimeoutError("topological() does not end")
            return 1

    x = input_((2,), name="x")
    y = -x
    z = abs(y)
    put(y, "inputs", Watched((z,)))

    with pytest.raises(GraphError):
        verify(shell({"z": z}, {}, (x,)))


def test_an_operand_that_is_no_node():
    y = -input_((2,), name="x")
    graph = Graph({"y": y})
    put(y, "inputs", (5,))
    with pytest.raises(GraphError):
        verify(graph)


def test_an_input_without_an_op():
    x = input_((2,), name="x")
    y = -x
    put(x, "op", None)
    with pytest.raises(GraphError):
        verify(shell({"y": y}, {}, (x,)))


def test_a_stride_of_zero():
    y = ops.max_pool2d(input_((1, 4, 4, 2), name="x"), 2)
    op = copy.copy(y.op)
    put(op, "strides", (0, 0))
    put(y, "op", op)
    with pytest.raises(GraphError):
        verify(shell({"y": y}, {}, ()))


def test_attributes_that_the_op_itself_refuses():
    x = input_((2, 3), name="x")
    v = [variable((3,), name=f"v{i}") for i in range(4)]
    norm = ops.batch_norm(x, *v)
    for node, name, value in (
        (ops.dropout(x, 0.5), "rate", 7.0),
        (norm, "epsilon", -1.0),
        (ops.clip(x, 0, 1), "minimum", 2.0),
    ):
        op = copy.copy(node.op)
        put(op, name, value)
        put(node, "op", op)
        with pytest.raises(GraphError):
            verify(Graph({"y": node}))
