"""Random networks: the same for a seed, valid, full of what rewrite rules look for, and computable in both modes."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

import minigraph as mg
from minigraph.errors import ArgumentError
from minigraph.ir import Constant, Graph, Input, Variable
from minigraph.ops.conv import Conv2D, Conv2DTranspose
from minigraph.ops.linalg import MatMul
from minigraph.ops.norm import BatchNorm
from minigraph.ops.pool import AvgPool2D, MaxPool2D
from minigraph.runtime import State
from minigraph.testing.networks import KINDS, Growth, grow, random_network, random_values, training_graph
from minigraph.testing.parts import SPECS

GRAPHS = 300
DTYPES = ("float32", "float64")


@pytest.fixture(scope="module")
def growths() -> list[Growth]:
    return [grow(random.Random(f"0/{i}"), dtype=DTYPES[i % 2]) for i in range(GRAPHS)]


def test_a_seed_gives_the_same_networks_and_values_under_every_hash_seed():
    script = """
import hashlib, random
from minigraph.testing.networks import KINDS, random_network, random_values, training_graph
digest = hashlib.sha256()
for i in range(15):
    rng = random.Random(f"7/{i}")
    graph = random_network(rng)
    digest.update(str(graph).encode() + str(training_graph(graph)).encode())
    for label, value in random_values(graph, rng, list(KINDS)[i % len(KINDS)]).items():
        digest.update(label.encode() + value.tobytes())
print(digest.hexdigest())
"""
    root = os.path.dirname(os.path.dirname(mg.__file__))
    found = {
        subprocess.run(
            [sys.executable, "-c", script], env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": root},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("0", "1", "12345")
    }  # fmt: skip
    assert len(found) == 1


def test_every_spec_occurs_and_few_draws_are_rejected(growths: list[Growth]):
    made = sum((g.made for g in growths), Counter())
    assert not [spec.name for spec in SPECS if spec.name not in made]
    rejected, attempts = sum(g.rejected for g in growths), sum(g.attempts for g in growths)
    assert rejected <= 0.2 * attempts
    assert attempts - rejected == made.total()


def test_sizes_stay_inside_and_fill_the_range(growths: list[Growth]):
    sizes = [len(g.graph.nodes) for g in growths]
    assert min(sizes) >= 5
    assert max(sizes) <= 60
    assert np.quantile(sizes, 0.1) < 20
    assert np.quantile(sizes, 0.9) > 50
    for i in range(50):
        assert len(random_network(random.Random(i), size=(5, 8)).nodes) <= 8
        assert len(random_network(random.Random(i), size=(30, 31)).nodes) in (30, 31)


def test_networks_are_valid_and_their_text_reads_back(growths: list[Growth]):
    for growth in growths:
        graph = mg.verify(growth.graph)
        again = mg.parse(str(graph))
        assert again.same_as(graph)
        assert str(again) == str(graph)


# --- what rewrite rules look for, found in the graphs themselves ------------------------------------------------------


def norms(graph: Graph) -> list[mg.Node]:
    return [n for n in graph.nodes if isinstance(n.op, BatchNorm)]


def convs(graph: Graph) -> list[mg.Node]:
    return [n for n in graph.nodes if isinstance(n.op, Conv2D)]


def norm_reads(graph: Graph, *ops: str) -> bool:
    """Tell whether a batch norm stands behind these ops, the last of them right before it."""
    return any(follows(n.inputs[0], ops) for n in norms(graph))


def follows(node: mg.Node, ops: tuple[str, ...]) -> bool:
    for op in reversed(ops):
        if node.op.name != op:
            return False
        node = node.inputs[0] if node.inputs else node
    return True


def reads_norm(graph: Graph, *ops: str) -> bool:
    """Tell whether these ops stand behind a batch norm, the last of them first."""
    return any(follows(n, ("batch_norm", *ops)) for n in graph.nodes)


def shares(graph: Graph, operand: int) -> bool:
    read = [n.inputs[operand] for n in norms(graph) if isinstance(n.inputs[operand].op, Variable)]
    return len(set(read)) < len(read)


def padding_of(node: mg.Node) -> str:
    padding = getattr(node.op, "padding", "")
    return padding if isinstance(padding, str) else "explicit"


def over_wrong_axis_of_equal_size(graph: Graph) -> bool:
    for n in norms(graph):
        axis, shape = n.op.axis % n.rank, n.shape
        follows_linear = isinstance(n.inputs[0].op, (Conv2D, MatMul))
        channels = 1 if getattr(n.inputs[0].op, "layout", "") == "NCHW" else n.rank - 1
        if follows_linear and axis != channels and shape[axis] == shape[channels]:
            return True
    return False


def computed_twice(graph: Graph) -> bool:
    seen = Counter((n.op, n.inputs) for n in graph.nodes if n.inputs)
    return any(count > 1 for count in seen.values())


SITUATIONS = {
    **{f"batch norm after {op}": lambda g, op=op: norm_reads(g, op) for op in (
        "conv2d", "conv2d_transpose", "matmul", "relu", "add", "concat", "max_pool2d", "avg_pool2d", "input",
        "batch_norm", "reshape", "transpose", "cast",
    )},
    **{f"{op} after batch norm": lambda g, op=op: reads_norm(g, op) for op in (
        "conv2d", "matmul", "relu", "max_pool2d", "avg_pool2d", "mul", "add", "pad", "reshape",
    )},
    "batch norm, relu, conv": lambda g: reads_norm(g, "relu", "conv2d"),
    "batch norm, flatten, dense": lambda g: reads_norm(g, "reshape", "matmul"),
    "conv, relu, batch norm": lambda g: norm_reads(g, "conv2d", "relu"),
    "pad, conv, batch norm": lambda g: norm_reads(g, "pad", "conv2d"),
    "conv, pool, batch norm": lambda g: norm_reads(g, "conv2d", "max_pool2d"),
    "conv, bias, batch norm": lambda g: norm_reads(g, "conv2d", "add"),
    "batch norm over another axis of equal size": over_wrong_axis_of_equal_size,
    "batch norm, padded conv": lambda g: any(
        padding_of(n) in ("same", "explicit") and n.inputs[0].op.name == "batch_norm" for n in convs(g)
    ),
    "batch norm, unpadded conv": lambda g: any(
        padding_of(n) == "valid" and n.inputs[0].op.name == "batch_norm" for n in convs(g)
    ),
    "shared gamma": lambda g: shares(g, 1),
    "shared beta": lambda g: shares(g, 2),
    "shared mean": lambda g: shares(g, 3),
    "shared variance": lambda g: shares(g, 4),
    "no scale": lambda g: any(isinstance(n.inputs[1].op, Constant) for n in norms(g)),
    "no center": lambda g: any(isinstance(n.inputs[2].op, Constant) for n in norms(g)),
    "epsilon 1e-5": lambda g: any(n.op.epsilon == 1e-5 for n in norms(g)),
    "epsilon 1e-3": lambda g: any(n.op.epsilon == 1e-3 for n in norms(g)),
    "fold=False": lambda g: any(not n.op.fold for n in norms(g)),
    "frozen": lambda g: any(n.op.moving and n.op.moving.frozen for n in norms(g)),
    "cumulative": lambda g: any(n.op.moving and n.op.moving.cumulative for n in norms(g)),
    "no moving averages": lambda g: any(n.op.moving is None for n in norms(g)),
    "even kernel": lambda g: any(n.op.window(n.inputs[1].tensor_type).size[0] % 2 == 0 for n in convs(g)),
    "strides": lambda g: any(n.op.strides != (1, 1) for n in convs(g)),
    "dilations": lambda g: any(n.op.dilations != (1, 1) for n in convs(g)),
    "groups": lambda g: any(n.op.groups > 1 for n in convs(g)),
    "depthwise": lambda g: any(
        1 < n.op.groups == n.op.kernel_channels(n.inputs[1].tensor_type)[0] for n in convs(g)
    ),
    "grouped transposed conv": lambda g: any(isinstance(n.op, Conv2DTranspose) and n.op.groups > 1 for n in g.nodes),
    **{f"{p} padding": lambda g, p=p: any(padding_of(n) == p for n in convs(g)) for p in ("same", "valid", "explicit")},
    **{name: lambda g, name=name: any(n.op.layout == name for n in convs(g)) for name in ("NHWC", "NCHW")},
    "both layouts": lambda g: len({n.op.layout for n in convs(g)}) == 2,
    "one kernel, two convs": lambda g: len({n.inputs[1] for n in convs(g)}) < len(convs(g)),
    "constant kernel": lambda g: any(isinstance(n.inputs[1].op, Constant) for n in convs(g)),
    "average pool counts padding": lambda g: any(isinstance(n.op, AvgPool2D) and n.op.count_padding for n in g.nodes),
    "max pool": lambda g: any(isinstance(n.op, MaxPool2D) for n in g.nodes),
    "computed twice": computed_twice,
    "symbolic batch": lambda g: g.symbols == ("N",),
    "batch of numbers": lambda g: g.symbols == (),
    "several outputs": lambda g: len(g.outputs) > 1,
    "a conv's own output": lambda g: any(isinstance(y.op, Conv2D) for y in g.outputs.values()),
    "a batch norm's own output": lambda g: any(isinstance(y.op, BatchNorm) for y in g.outputs.values()),
    "an inner value is an output": lambda g: any(g.uses[y] > 1 for y in g.outputs.values()),
    "a variable is an output": lambda g: any(isinstance(y.op, Variable) for y in g.outputs.values()),
    "an input that nothing reads": lambda g: any(g.uses[x] == 0 for x in g.inputs),
    "an update that changes nothing": lambda g: any(t is v for t, v in g.updates.items()),
    "an update that counts": lambda g: any(t is not v for t, v in g.updates.items()),
    "narrow values": lambda g: len({n.dtype for n in g.nodes if hasattr(n.type, "dtype") and n.dtype != "int64"}) > 1,
    "dropout": lambda g: any(n.op.name == "dropout" for n in g.nodes),
    "softmax at the end": lambda g: any(y.op.name == "softmax" for y in g.outputs.values()),
    "a piece that nothing reads": lambda g: any(n.op.name == "split" and len(g.users[n]) == 1 for n in g.nodes),
}  # fmt: skip


@pytest.mark.parametrize("situation", SITUATIONS)
def test_every_situation_occurs(situation: str, growths: list[Growth]):
    found = sum(bool(SITUATIONS[situation](g.graph)) for g in growths)
    assert found >= 2, f"{situation}: {found} of {len(growths)}"


# --- values, and both modes -------------------------------------------------------------------------------------------


def run(graph: Graph, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    named = {**graph.outputs, **{f"update {t.label}": v for t, v in graph.updates.items()}}
    program = mg.compile(Graph(named, inputs=graph.inputs), optimize=False)
    state = State({v.label: values[v.label] for v in graph.variables})
    return program(state, **{x.label: values[x.label] for x in graph.inputs})


@pytest.mark.parametrize("mode", ["inference", "training"])
def test_both_modes_run_with_finite_values(mode: str, growths: list[Growth]):
    for i, growth in enumerate(growths[:40]):
        graph = training_graph(growth.graph) if mode == "training" else mg.lower(growth.graph, mode)
        kind = list(KINDS)[i % len(KINDS)]
        results = run(mg.verify(graph), random_values(graph, random.Random(i), kind))
        assert results.keys() >= graph.outputs.keys()
        for name, value in results.items():
            assert np.isfinite(value).all(), f"graph {i}, {kind}: {name}"


def test_training_graphs_update_every_trainable_variable_that_the_loss_needs(growths: list[Growth]):
    for growth in growths[:40]:
        graph = training_graph(growth.graph)
        needed = Graph({"loss": graph.outputs["loss"]}).variables
        trainable = {v.label for v in needed if v.op.trainable}
        updated = {t.label for t, value in graph.updates.items() if t is not value}
        assert trainable <= updated
        moving = {n.inputs[3].label for n in norms(growth.graph) if n.op.moving and not n.op.moving.frozen}
        assert moving <= updated


def test_values_have_the_graphs_types_and_the_sizes_asked_for(growths: list[Growth]):
    for i, growth in enumerate(growths[:60]):
        graph = mg.lower(growth.graph, "training")
        sizes = dict.fromkeys(graph.symbols, 3)
        bound = mg.bind(graph, **sizes)
        values = random_values(graph, random.Random(i), sizes=sizes)
        assert {(n.label, n.shape, n.dtype) for n in (*bound.inputs, *bound.variables)} == {
            (label, v.shape, str(v.dtype)) for label, v in values.items()
        }


def two_norms() -> Graph:
    x = mg.layers.Input((4, 4, 8), name="x")
    with mg.fresh_names():
        y = mg.layers.BatchNorm()(mg.layers.Conv2D(8, 3)(mg.layers.BatchNorm()(x)))
    return Graph({"y": y})


def drawn(kind: str, word: str, seeds: int = 20) -> np.ndarray:
    """Return all values that labels with this last word get."""
    graph = two_norms()
    many = [random_values(graph, random.Random(seed), kind) for seed in range(seeds)]
    return np.concatenate([v.ravel() for values in many for k, v in values.items() if k.rpartition("/")[2] == word])


@pytest.mark.parametrize("kind", KINDS)
def test_variances_are_never_negative(kind: str):
    assert (drawn(kind, "moving_variance") >= 0).all()
    assert np.isfinite(drawn(kind, "moving_variance")).all()


def test_roles_come_from_use_before_names():
    vector = [mg.variable((3,), name=name) for name in "abcd"]
    graph = Graph({"y": mg.ops.batch_norm(mg.variable((8, 3), name="kernel"), *vector)})
    assert all((random_values(graph, random.Random(i))["d"] > 0).all() for i in range(20))


def test_kinds_are_what_they_say():
    gamma = drawn("random", "gamma")
    assert (gamma > 0).any() and (gamma < 0).any() and (gamma == 0).any()
    assert np.abs(drawn("large", "x")).max() > 2e3
    assert np.abs(drawn("large", "kernel")).max() < 10
    assert (drawn("tiny", "moving_variance") == 0).any()
    kernel = np.abs(drawn("tiny", "kernel"))
    assert ((kernel > 0) & (kernel < np.finfo(np.float32).tiny)).any()
    assert not drawn("zeros", "x").any()
    assert np.abs(drawn("cancelling", "x") - drawn("cancelling", "moving_mean").mean()).max() < 0.1
    assert np.abs(drawn("cancelling", "moving_mean")).min() > 50
    assert (np.diff(random_values(two_norms(), random.Random(0), "ramp")["x"].ravel()) >= 0).all()


def test_large_values_fit_float16():
    x = mg.ops.cast(mg.variable((64,), name="x", dtype="float16"), "float32")
    values = random_values(
        Graph({"y": x, "z": mg.variable((64,), name="a/bias", dtype="float16")}), random.Random(0), "large"
    )
    assert all(np.isfinite(v).all() and v.dtype == np.float16 for v in values.values())


def test_wrong_arguments_are_explained():
    with pytest.raises(ArgumentError, match="5 ≤ fewest ≤ most"):
        random_network(random.Random(0), size=(4, 60))
    with pytest.raises(ArgumentError, match="cancelling"):
        random_values(two_norms(), random.Random(0), "huge")


def test_the_layout_can_be_chosen():
    for layout in ("NHWC", "NCHW"):
        graphs = [random_network(random.Random(i), layout=layout) for i in range(20)]
        first = [n for g in graphs for n in g.nodes if isinstance(n.op, Conv2D) and isinstance(n.inputs[0].op, Input)]
        assert first
        assert {n.op.layout for n in first} == {layout}
