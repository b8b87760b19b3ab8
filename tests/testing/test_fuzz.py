"""The fuzzer finds nothing in our passes, and something in each bad one; it reports the same however it runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import pytest

import minigraph as mg
from minigraph import ops
from minigraph.errors import ArgumentError
from minigraph.ir import Graph, Input, Node, Variable
from minigraph.ir.graph import same_or_rebuilt
from minigraph.ops.activations import Relu
from minigraph.ops.conv import Conv2D
from minigraph.ops.elementwise import Sub
from minigraph.ops.norm import BatchNorm, Moments
from minigraph.ops.pool import AvgPool2D
from minigraph.ops.shape import Concat
from minigraph.passes import Pass, Rewriting, Trace
from minigraph.passes.pipelines import Means
from minigraph.testing import fuzz as module
from minigraph.testing.fuzz import NAMES, FuzzReport, fuzz

GRAPHS = 16


@pytest.fixture(scope="module")
def report() -> FuzzReport:
    return fuzz(GRAPHS, seed=0, processes=1)


def test_passes_change_no_result(report: FuzzReport):
    assert not report.mismatches, str(report)
    assert report.graphs == GRAPHS
    assert report.modes["training"] > 5
    assert report.modes["inference"] > 5
    assert report.compared > 100 * GRAPHS
    assert report.unbounded <= 0.1 * report.compared
    assert 0.0 < report.worst <= 1.0
    assert report.rejected_share <= 0.2


def test_every_pass_runs_alone_and_rules_match(report: FuzzReport):
    assert set(NAMES) <= report.runs.keys()
    assert report.runs["random order"] == GRAPHS
    assert report.runs["optimize"] + report.runs["program"] == GRAPHS
    assert {"same_op_same_operands", "channels_first_op", "evaluate_constants"} <= report.rewrites.keys()


def without_seconds(report: FuzzReport) -> FuzzReport:
    return replace(report, seconds=0.0)


def test_the_number_of_processes_and_the_split_make_no_difference(report: FuzzReport):
    assert without_seconds(fuzz(GRAPHS, seed=0, processes=2)) == without_seconds(report)
    halves = fuzz(13, seed=0, processes=1)
    halves.add(fuzz(GRAPHS - 13, seed=0, first=13, processes=1))
    assert without_seconds(halves) == without_seconds(report)


def test_progress_is_reported_and_the_table_has_every_count(report: FuzzReport):
    seen: list[int] = []
    small = fuzz(module.CHUNK + 1, seed=3, processes=1, progress=lambda r: seen.append(r.graphs))
    assert seen == [module.CHUNK, module.CHUNK + 1]
    assert small.seconds > 0
    text = str(report)
    for word in (
        "graphs",
        "rejected parts",
        "mismatches",
        "worst difference",
        "seconds",
        *report.runs,
        *report.rewrites,
    ):
        assert word in text


def test_wrong_numbers_are_explained():
    with pytest.raises(ArgumentError, match="no such graphs"):
        fuzz(-1)


# --- bad passes -------------------------------------------------------------------------------------------------------


def rule(function) -> Rewriting:
    return Rewriting(function.__name__, (function,))


def epsilon_dropped(node: Node) -> Node | None:
    match node.op:
        case BatchNorm(epsilon=epsilon) if epsilon:
            return Node(replace(node.op, epsilon=0.0), node.inputs)
    return None


def beta_turned_round(node: Node) -> Node | None:
    if not isinstance(node.op, BatchNorm) or node.inputs[2].op.name == "neg":
        return None
    x, gamma, beta, *statistics = node.inputs
    return Node(node.op, (x, gamma, -beta, *statistics))


def relu_dropped(node: Node) -> Node | None:
    return node.inputs[0] if isinstance(node.op, Relu) else None


def norm_of_another_axis_of_the_size(node: Node) -> Node | None:
    if not isinstance(node.op, BatchNorm) or node.op.fold is False:
        return None
    axis = node.op.axis % node.rank
    others = [i for i, size in enumerate(node.shape) if i != axis and size == node.shape[axis]]
    return Node(replace(node.op, axis=others[0], fold=False), node.inputs) if others else None


def same_padding_at_the_wrong_end(node: Node) -> Node | None:
    if not isinstance(node.op, Conv2D) or node.op.padding != "same":
        return None
    inside = node.inputs[0].shape[1:3] if node.op.layout == "NHWC" else node.inputs[0].shape[2:]
    pads = node.op.window(node.inputs[1].tensor_type).pads(inside)
    return Node(replace(node.op, padding=tuple(pair[::-1] for pair in pads)), node.inputs)


def padding_counted(node: Node) -> Node | None:
    match node.op:
        case AvgPool2D(count_padding=False):
            return Node(replace(node.op, count_padding=True), node.inputs)
    return None


def difference_turned_round(node: Node) -> Node | None:
    return ops.add(node.inputs[1], node.inputs[0]) if isinstance(node.op, Sub) else None


def concat_reversed(node: Node) -> Node | None:
    if not isinstance(node.op, Concat) or len({x.type for x in node.inputs}) > 1 or len(set(node.inputs)) == 1:
        return None
    if node.inputs[0].id < node.inputs[1].id:
        return Node(node.op, node.inputs[::-1])
    return None


def moments_of_one_axis_less(node: Node) -> Node | None:
    if isinstance(node.op, Moments) and len(node.op.axes) == 3:
        wrong = Node(replace(node.op, axes=node.op.axes[:2]), node.inputs)
        return wrong if wrong.type == node.type else None
    return None


@dataclass(frozen=True)
class Whole:
    """Base of bad passes over whole graphs."""

    name: str = "whole"

    def __call__(self, graph: Graph, trace: Trace) -> Graph:
        raise NotImplementedError


class MergesWhateverReadsTheSame(Whole):
    def __call__(self, graph: Graph, trace: Trace) -> Graph:
        seen: dict[object, Node] = {}

        def make(node: Node, inputs: tuple[Node, ...]) -> Node:
            new = same_or_rebuilt(node, inputs)
            return seen.setdefault((type(node.op), new.type, inputs), new) if inputs else new

        return graph.rebuild(make)


class MergesVariablesOfOneType(Whole):
    def __call__(self, graph: Graph, trace: Trace) -> Graph:
        seen: dict[object, Node] = {}

        def make(node: Node, inputs: tuple[Node, ...]) -> Node:
            same = isinstance(node.op, Variable) and node not in graph.updates
            return seen.setdefault(node.type, node) if same else same_or_rebuilt(node, inputs)

        return graph.rebuild(make)


class DropsUpdates(Whole):
    def __call__(self, graph: Graph, trace: Trace) -> Graph:
        return Graph(graph.outputs, dict(list(graph.updates.items())[:-1]), graph.inputs)


class DropsAnOutput(Whole):
    def __call__(self, graph: Graph, trace: Trace) -> Graph:
        return Graph(dict(list(graph.outputs.items())[1:]), graph.updates, graph.inputs)


class LeavesAStaleType(Whole):
    def __call__(self, graph: Graph, trace: Trace) -> Graph:
        def make(node: Node, inputs: tuple[Node, ...]) -> Node:
            new = same_or_rebuilt(node, inputs)
            if node in graph.outputs.values() and node.inputs and graph.uses[node] == 1:
                new = node.with_inputs(inputs)
                object.__setattr__(new, "type", replace(node.tensor_type, dtype="int8"))
            return new

        return graph.rebuild(make)


class Raises(Whole):
    def __call__(self, graph: Graph, trace: Trace) -> Graph:
        raise KeyError("lost")


class NeverDone(Whole):
    def __call__(self, graph: Graph, trace: Trace) -> Graph:
        name, node = next(iter(graph.outputs.items()))
        return Graph(
            {**graph.outputs, name: ops.reshape(ops.reshape(node, (1, *node.shape)), node.shape)}, graph.updates
        )


class RenamesAnInput(Whole):
    def __call__(self, graph: Graph, trace: Trace) -> Graph:
        def make(node: Node, inputs: tuple[Node, ...]) -> Node:
            if isinstance(node.op, Input) and not node.label.startswith("my"):
                return Node(dataclasses.replace(node.op, label=f"my {node.label}"))
            return same_or_rebuilt(node, inputs)

        return graph.rebuild(make)


BAD: list[tuple[Pass, str]] = [
    (rule(epsilon_dropped), "times its bound"),
    (rule(beta_turned_round), "times its bound"),
    (rule(relu_dropped), "times its bound"),
    (rule(norm_of_another_axis_of_the_size), "times its bound"),
    (rule(same_padding_at_the_wrong_end), "times its bound"),
    (rule(padding_counted), "times its bound"),
    (rule(difference_turned_round), "times its bound"),
    (rule(concat_reversed), "times its bound"),
    (MergesWhateverReadsTheSame("merges whatever reads the same"), "times its bound"),
    (MergesVariablesOfOneType("merges variables of one type"), "times its bound"),
    (DropsUpdates("drops an update"), "times its bound"),
    (DropsAnOutput("drops an output"), "outputs and updates are now"),
    (LeavesAStaleType("leaves a stale type"), "stale type"),
    (Raises("raises"), "KeyError: 'lost'"),
    (NeverDone("never done"), "a second run changes the graph again"),
]


def only(pass_: Pass, means: Means) -> Sequence[Pass]:
    return [pass_]


@pytest.mark.parametrize(("bad", "found"), BAD, ids=[bad.name for bad, _ in BAD])
def test_bad_passes_are_caught(bad: Pass, found: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "LISTS", ("dead_code",))  # the bad pass alone
    tries = partial(fuzz, seed=1, processes=1, passes=partial(only, bad))
    reports = (tries(10, first=first) for first in range(0, 100, 10))
    findings = (m for r in reports for m in r.mismatches if found in m.what)
    finding = next(findings, None)
    assert finding is not None, "not caught in 100 graphs"
    assert set(finding.pipeline) == {bad.name}
    assert mg.verify(mg.parse(finding.graph))
    again = tries(1, first=finding.index)
    assert finding in again.mismatches
    assert str(finding) in str(again)
