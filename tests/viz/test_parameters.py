"""Parameter expressions: which nodes are one, and the formula that they are called by."""

import pytest

from minigraph import ops
from minigraph.ir import Graph, variable
from minigraph.ir.leaves import input as input_
from minigraph.viz.lanes import lanes
from minigraph.viz.parameters import parameter_expressions


def expressions(graph):
    return [(e.title, [n.op.name for n in e.nodes]) for e in parameter_expressions(graph, lanes(graph))]


def parameters(names):
    return [variable((3,), name=f"bn/{name}") for name in names.split()]


def test_what_several_expressions_read_has_a_name():
    x, w = input_((2, 3), name="x"), variable((3, 3), name="dense/kernel")
    gamma, beta, mean, variance = parameters("gamma beta mean variance")
    scale = gamma * ops.rsqrt(variance + 0.001)
    graph = Graph({"y": ops.matmul(x, -(w * scale)) + (beta - mean * scale)})
    assert expressions(graph) == [
        ("s = gamma · rsqrt(variance + 0.001)", ["add", "rsqrt", "mul"]),
        ("−kernel · s", ["mul", "neg"]),
        ("beta − mean · s", ["mul", "sub"]),
    ]


@pytest.mark.parametrize(
    ("build", "formula"),
    [
        (lambda a, b, c: a - (b + c), "a − (b + c)"),
        (lambda a, b, c: (a - b) + c, "a − b + c"),
        (lambda a, b, c: a / (b * c), "a / (b · c)"),
        (lambda a, b, c: (a + b) * c, "(a + b) · c"),
        (lambda a, b, c: -(a * b), "−a · b"),
        (lambda a, b, c: -(a + b), "−(a + b)"),
        (lambda a, b, c: a * (-b), "a · (−b)"),
        (lambda a, b, c: ops.maximum(a * b, c), "maximum(a · b, c)"),
        (lambda a, b, c: ops.reshape(a * b, (1, 3)), "a · b"),
    ],
)
def test_formulas(build, formula):
    x = input_((3,), name="x")
    graph = Graph({"y": x * build(*(variable((3,), name=n) for n in "abc"))})
    assert [title for title, _ in expressions(graph)] == [formula]


def test_a_long_formula_is_cut():
    a = y = variable((3,), name="a")
    for _ in range(100):
        y = ops.exp(y * a)
    ((title, nodes),) = expressions(Graph({"y": input_((3,)) * y}))
    assert len(title) <= 44 and "…" in title
    assert len(nodes) == 200


def test_single_nodes_data_and_random_numbers_are_no_expressions():
    x, a = input_((3,), name="x"), variable((3,), name="a")
    counter = variable((), name="n", dtype="int64")
    noise = ops.random_uniform(counter, (3,), (0, 1))
    assert expressions(Graph({"y": x * ops.exp(a), "z": ops.exp(ops.sin(x)), "u": ops.exp(ops.sin(noise))})) == []


def test_what_serves_very_many_expressions_stays_alone():
    x, a = input_((3,), name="x"), variable((3,), name="a")
    shared = ops.exp(ops.sin(a))
    y = x
    for i in range(20):
        y = y * ops.tanh(ops.cos(shared + float(i)))
    found = expressions(Graph({"y": y}))
    assert len(found) == 20
    assert all("sin" not in names for _, names in found)


def test_a_deep_expression_needs_no_recursion():
    a = variable((3,), name="a")
    y = a
    for _ in range(3000):
        y = ops.exp(y)
    ((_, nodes),) = expressions(Graph({"y": input_((3,)) * y}))
    assert len(nodes) == 3000
