"""Proof that the harness can fail: every seeded bug is caught, and the right passes are not.

`seeded_bugs` is the list of bugs. Nothing here is written for one of them: what looks for them is a zoo of small
networks, with a batch norm in every position, in training and in inference and in each dtype, and on each of them

* the driver and the verifier: what a pass raises, and graphs that are not valid;
* the proof: each rewrite, and each output of each pass, on both sides, against the derived error bound;
* the program: what the last graph computes, compiled, against the first one, node by node; what was finite stays so;

and the fuzzer, on random networks: for all bugs in a slow test. Run with -s for a table of what found what.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
import pytest

import minigraph as mg
from minigraph import ops
from minigraph.errors import MinigraphError
from minigraph.ir import Constant, Graph, Node, fresh_names, inheriting
from minigraph.ir.origin import Origin
from minigraph.ir.types import DTYPES, TensorType, is_float
from minigraph.ops.norm import Moving
from minigraph.passes import Pass, Trace, lower, pipelines
from minigraph.passes import run as run_passes
from minigraph.passes.pipelines import Means
from minigraph.runtime import State, compile, constant_evaluator
from minigraph.runtime.numbers import StateNumbers
from minigraph.testing import fuzz as fuzzing
from minigraph.testing import networks, parts, verify_trace
from minigraph.testing.bounds import analyse
from minigraph.testing.compare import allowed, compute, difference
from minigraph.testing.networks import random_values, training_graph
from passes.folding import Net
from passes.seeded_bugs import BUGS, Bug, Passes, Squeezed, standard

FUZZED = 1500  # graphs after which a bug counts as missed by the fuzzer
SEED = 7


# --- the zoo ----------------------------------------------------------------------------------------------------------


class Definition(Net):
    """A network under construction whose batch norms are mode-neutral, with moving averages."""

    def norm(self, x: Node, axis: int | None = None, frozen: bool = False, **options: Any) -> Node:
        """A batch norm as a definition has it."""
        fixed = super().norm(x, axis, **options)
        return Node(replace(fixed.op, moving=Moving(0.9, frozen=frozen)), fixed.inputs)


Outputs = dict[str, Node]


def in_a_row(net: Definition) -> Outputs:
    """Convolutions, depthwise ones too, with a bias and without, each with a batch norm and a ReLU behind it."""
    x = ops.relu(net.norm(net.bias(net.conv(net.image(3), 4))))
    x = ops.relu(net.norm(net.conv(x, 8, size=(2, 1), groups=4)))
    return {"y": net.norm(net.conv(x, 4, size=1), frozen=True)}


def in_groups(net: Definition) -> Outputs:
    """Grouped convolutions before a batch norm and behind it."""
    x = net.image(4)
    behind = net.norm(net.conv(x, 6, groups=2, dilations=2))
    return {"behind": behind, "before": net.conv(net.norm(ops.tanh(x)), 6, groups=2)}


def transposed(net: Definition) -> Outputs:
    """Transposed convolutions, grouped ones too, before a batch norm and behind it."""
    x = net.image(4)
    square = net.norm(net.transposed(x, 4, padding="same"))
    groups = net.norm(net.transposed(x, 6, groups=2, strides=2))
    return {"square": square, "groups": groups, "before": net.transposed(net.norm(ops.tanh(x)), 3)}


def dense(net: Definition) -> Outputs:
    """Dense layers, and a batch norm over another axis that is as long as there are features, by accident."""
    x = net.input(7)
    y = ops.relu(net.norm(net.bias(net.dense(x, 5))))
    rows = net.input(6, 4)
    return {"y": net.dense(net.norm(net.dense(y, 5)), 3), "rows": net.norm(net.dense(rows, 6), axis=1)}


def before_padding(net: Definition) -> Outputs:
    """A batch norm, one channel of it with γ = 0, before convolutions with zero padding and without."""
    x = net.image(3)
    gamma = (1.5, 0.0, -0.5)
    padded = net.conv(net.norm(x, gamma=gamma), 2, padding="same", size=(2, 3))
    return {"padded": padded, "valid": net.conv(net.norm(ops.tanh(x), gamma=gamma), 2)}


def flattened(net: Definition) -> Outputs:
    """A batch norm, a flatten, a dense layer."""
    return {"y": net.dense(ops.flatten(net.norm(net.image(3, 2, 4))), 5)}


def summed(net: Definition) -> Outputs:
    """Sums of branches: two convolutions, and a convolution with what it reads."""
    x = net.image(4)
    two = net.norm(net.conv(x, 4) + net.conv(x, 4))
    identity = net.norm(x + net.conv(x, 4, padding="same"))
    return {"two": two, "identity": identity, "difference": net.norm(net.conv(x, 4) - ops.tanh(two))}


def joined(net: Definition) -> Outputs:
    """Branches side by side, one of which cannot be scaled."""
    x = net.image(4)
    branches = [net.conv(x, 2, padding="same"), net.conv(x, 3, padding="same"), ops.tanh(x)]
    return {"y": net.norm(ops.concat(branches, net.axis))}


def pooled(net: Definition) -> Outputs:
    """Pools, whose padding counts or does not, between a convolution and a batch norm, and the other way round."""
    x = net.image(3)
    options: dict[str, Any] = {"size": 3, "strides": 2, "padding": 1, "layout": net.layout}
    outputs = {}
    for counts in (True, False):
        mean = ops.avg_pool2d(net.conv(x, 4), count_padding=counts, **options)
        before = ops.avg_pool2d(net.norm(ops.tanh(x)), count_padding=counts, **options)
        outputs |= {f"mean {counts}": net.norm(mean), f"before {counts}": net.conv(before, 2, size=1)}
    return {**outputs, "maximum": net.norm(ops.max_pool2d(net.conv(x, 4), layout=net.layout))}


def rectified(net: Definition) -> Outputs:
    """A batch norm, a ReLU, a convolution: with positive scales and with both signs; and the ReLU before it."""
    x = net.image(3)
    positive = net.conv(ops.relu(net.norm(x, gamma=1.0)), 2)
    mixed = net.conv(ops.relu(net.norm(ops.tanh(x))), 2)
    return {"positive": positive, "mixed": mixed, "behind": net.norm(ops.relu(net.conv(x, 4)))}


def shared(net: Definition) -> Outputs:
    """What a fold must not change for others: a convolution and a kernel that are read twice, and are outputs."""
    x = net.image(4)
    kernel = net.kernel(4, 4)
    once = net.conv(x, 4, kernel=kernel)
    twice = net.conv(x, 4)
    outputs = {"norm": net.norm(once), "plain": net.conv(ops.tanh(x), 4, kernel=kernel), "kernel": kernel}
    return {**outputs, "twice": net.norm(twice), "itself": twice}


def cube(net: Definition) -> Outputs:
    """Images as high and wide as they have channels, turned and reshaped between convolution and batch norm."""
    x = net.image(4, 4, 4)
    turned = ops.transpose(net.conv(x, 4, padding="same"), (0, 2, 3, 1))
    again = ops.transpose(ops.transpose(ops.tanh(x), (0, 2, 3, 1)), (0, 2, 1, 3))
    rows = ops.reshape(net.conv(x, 4, padding="same"), (net.batch, 4, 2, 2, 4))
    outputs = {"turned": net.norm(turned, axis=2), "again": again[:, ::-1], "rows": net.norm(rows, axis=4)}
    across = ops.transpose(net.conv(x, 4, padding="same"), (0, 2, 3, 1))
    outputs["across"] = net.norm(across, axis=net.axis)
    return {**outputs, "inner": net.norm(ops.transpose(ops.tanh(x), (0, 3, 1, 2)), axis=1)}


def affine(net: Definition) -> Outputs:
    """Chains of sums, products, differences and quotients with parameters, around batch norms and alone."""
    x = net.input(5)
    a, b, c = (net.random("term", 5) for _ in range(3))
    chain = (x + a) * b
    norms = net.norm(net.norm(ops.tanh(x)) * c + a)
    return {
        "chain": c - chain, "norms": norms, "scaled": net.norm(ops.sigmoid(x) * b), "third": ops.tanh(x) / 3.0,
        "both ways": ops.tanh(chain - x) * (x - chain), "dense": net.dense((a - x) * b, 3), "minus": a - ops.exp(-x),
    }  # fmt: skip


def padded(net: Definition) -> Outputs:
    """Padding, of height and width by different numbers, with zeros or not, before convolutions and pools."""
    x = net.image(3)
    height_only = ((0, 0), (2, 0), (0, 0), (0, 0)) if net.layout == "NHWC" else ((0, 0), (0, 0), (2, 0), (0, 0))
    both = ((0, 0), (1, 0), (0, 1), (0, 0)) if net.layout == "NHWC" else ((0, 0), (0, 0), (1, 0), (0, 1))
    zeros = net.norm(net.conv(ops.pad(x, both), 4))
    other = net.norm(net.conv(ops.pad(x, height_only, -1.5), 4))
    return {"zeros": zeros, "other": other, "mean": ops.avg_pool2d(ops.pad(x, both), layout=net.layout)}


def noisy(net: Definition) -> Outputs:
    """Two dropouts beside each other, with much to keep in memory between them and the loss."""
    x = net.image(3, 8, 8)
    y = ops.relu(net.norm(net.conv(x, 4, padding="same")))
    left, right = ops.dropout(y, 0.5), ops.dropout(ops.tanh(y), 0.5)
    z = net.conv(ops.sigmoid(net.conv(left * right, 4, padding="same")), 2)
    return {"y": ops.mean(z * z), "masks": ops.mean(left - right)}


def constant(net: Definition) -> Outputs:
    """Parameters that are constants, in expressions; and pools of one operand that differ by attributes alone."""
    x = net.image(3)
    thirds = ops.constant(np.arange(1, 4, dtype=net.dtype)) / ops.cast(3.0, net.dtype)
    y = x * net.laid(thirds, net.axis, 4)
    kinds = [ops.max_pool2d(y, size, 2, p, layout=net.layout) for size, p in ((2, "same"), (3, 1))]
    return {"y": kinds[0] - kinds[1]}


def narrow(net: Definition) -> Outputs:
    """A convolution in float16 inside a wider network, with a wider batch norm behind it."""
    x = net.image(3)
    inner = ops.cast(ops.tanh(x), "float16")
    conv = ops.conv2d(inner, net.variable("w16", 0.3 * net.rng.normal(size=(3, 3, 3, 4)), "float16"))
    return {"y": net.norm(ops.cast(conv, net.dtype), axis=3)}


def silent_channel(net: Definition) -> Outputs:
    """A channel whose variance is 0, behind a large kernel: the gain is 1/√ε."""
    x = net.image(3)
    net.values[x.label] *= net.values[x.label].dtype.type(1e-3)
    kernel = net.variable("w", np.where(np.arange(4) == 2, 300.0, 0.5) * net.rng.normal(size=(3, 3, 3, 4)))
    return {"y": net.norm(ops.conv2d(x, kernel), axis=3, variance=(1.0, 0.5, 0.0, 2.0), epsilon=1e-5)}


def damaged(net: Definition) -> Outputs:
    """A checkpoint with a negative variance."""
    x = net.image(3)
    return {"y": net.norm(net.conv(x, 4), variance=(1.0, 0.5, -2.0, 2.0)), "before": net.norm(ops.tanh(x))}


def as_they_come(net: Definition) -> Outputs:
    """Batch norms without scale and centre, without moving statistics, and one that asks to be left alone."""
    x = net.image(3)
    _, _, mean, variance = net.statistics(4)
    one, zero = (Node(Constant.full(mean.tensor_type, value)) for value in (1.0, 0.0))
    y = net.conv(x, 4, strides=2, padding="same")
    plain = net.norm(y, operands=(one, zero, mean, variance))
    moments = ops.moments(y, (0, 1, 2))
    batch = ops.batch_norm(y, one, zero, *moments)
    return {"batch": batch, "plain": plain, "left alone": net.norm(net.conv(x, 2), fold=False)}


NETWORKS = (
    in_a_row, in_groups, transposed, dense, before_padding, flattened, summed, joined, pooled, rectified, shared, cube,
    affine, padded, noisy, constant, narrow, as_they_come, silent_channel, damaged,
)  # fmt: skip
CHANNELS_FIRST = (in_groups, transposed, flattened, joined, pooled, cube, padded)


@dataclass(frozen=True)
class Case:
    """A lowered network with numbers."""

    name: str
    graph: Graph
    values: Mapping[str, Any]
    known: bool  # whether rules may ask about the numbers

    @property
    def means(self) -> Means:
        """What passes are given."""
        return Means(constant_evaluator(), None, StateNumbers(self.values) if self.known else None)


@cache
def case(
    network: Callable[[Definition], Outputs], dtype: str, mode: str, layout: str = "NHWC", known: bool = True
) -> Case:
    """Return a network as it runs in one mode."""
    with fresh_names():
        net = Definition(dtype, layout)
        definition = Graph(network(net))
    lowered = training_graph(definition) if mode == "training" else lower(definition, mode)
    others = random_values(lowered, random.Random(0))
    name = " ".join([network.__name__.replace("_", " "), mode, dtype, layout, *([] if known else ["unknown numbers"])])
    return Case(name, lowered, {**others, **net.values}, known and mode == "inference")


def zoo() -> Iterator[Case]:
    """Yield all networks: in inference, in each dtype and layout; in training; and without numbers."""
    for network in NETWORKS:
        yield case(network, "float32", "inference")
        if network in CHANNELS_FIRST:
            yield case(network, "float64", "inference", "NCHW")
    for network in NETWORKS:
        yield case(network, "float32", "inference", known=False)
        yield case(network, "float16", "inference")
    for network in NETWORKS[::-1]:
        yield case(network, "float32", "training")


# --- the nets ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """What was caught, by which net, and how many times its bound it is, in the graph's own dtypes and in float64."""

    net: str
    where: str
    what: str
    own: float = math.nan
    wide: float = math.nan

    def __str__(self) -> str:
        own, wide = ("–" if math.isnan(r) else f"{r:.1e}" for r in (self.own, self.wide))
        return f"{self.net:<10}{own:>9}{wide:>9}  {self.where}: {self.what}"


def driver(passes: Sequence[Pass], each: Case) -> tuple[Trace, Graph] | Finding:
    """Run passes, each of them verified; what they raise is a finding."""
    trace = Trace()
    try:
        graph = run_passes(passes, each.graph, trace, verify_each=True)[0]
    except MinigraphError as error:
        summary = error.summary.removeprefix(f"pass {passes[-1].name} failed: ")
        return Finding("verifier" if "rule 2:" in summary else "driver", each.name, summary)
    return trace, graph


def proof(trace: Trace, each: Case) -> Finding | None:
    """Prove each rewrite and each output by numbers."""
    failures = verify_trace(trace, trials=1, values=each.values).failures
    if not failures:
        return None
    worst = max(failures, key=lambda e: max(e.wide.ratio, e.own.ratio))
    return Finding("proof", each.name, f"{worst.claim.rule}: {worst.claim.what}", worst.own.ratio, worst.wide.ratio)


def program(after: Graph, each: Case) -> Finding | None:
    """Compare what the last graph's program computes with the first graph, node by node."""
    ends = {name: ends_of(graph, each.graph) for name, graph in (("before", each.graph), ("after", after))}
    plain = Graph(ends["after"], inputs=each.graph.inputs)
    state = State({v.label: np.array(each.values[v.label]) for v in plain.variables})
    with np.errstate(all="ignore"):
        got = compile(plain, optimize=False)(state, **{x.label: each.values[x.label] for x in plain.inputs})
    expected = compute(ends["before"].values(), each.values)
    bounds = analyse([n for nodes in ends.values() for n in nodes.values()], each.values)
    # What a pass rounds to a narrower dtype than those that it found is within the bound of its own graph. So it is
    # held against the bound of that graph in the narrowest dtype of the first one.
    kept = analyse(ends["after"].values(), each.values, unit=narrowest(each.graph))
    worst = ("", 0.0)
    for name, node in ends["before"].items():
        old, new = bounds[node], ends["after"][name]
        limit = old.error + np.fmin(bounds[new].error, kept[new].error)
        apart = difference(expected[node], got[name], limit).ratio
        # Nothing is promised of an overflow; but that what is finite, and can be told, stays finite, and NaN stays NaN.
        lost = np.isfinite(old.error) & ~np.isfinite(got[name])
        hidden = np.isnan(expected[node]) & np.isfinite(got[name])
        worst = max(worst, (name, np.inf if (lost | hidden).any() else apart), key=lambda w: w[1])
    return Finding("program", each.name, worst[0], worst[1]) if worst[1] > 1 else None


def narrowest(graph: Graph) -> str:
    """Return the narrowest float dtype in a graph."""
    dtypes = {n.dtype for n in graph.nodes if isinstance(n.type, TensorType) and is_float(n.dtype)}
    return min(dtypes, key=DTYPES.__getitem__)


def ends_of(graph: Graph, like: Graph) -> dict[str, Node]:
    """Return outputs and updates; a variable that only `like` updates keeps its value."""
    updates = {t.label: t for t in like.updates} | {t.label: value for t, value in graph.updates.items()}
    return {**graph.outputs, **{f"the update of {label}": value for label, value in updates.items()}}


def examine(passes: Sequence[Pass], each: Case, fired: Callable[[], bool] = lambda: True) -> Finding | None:
    """Return what a net catches of passes on a network; where no bug fired there is nothing to catch."""
    ran = inheriting(Origin, lambda: driver(passes, each))
    if isinstance(ran, Finding):
        return ran
    trace, after = ran
    if not fired():
        return None
    return proof(trace, each) or program(after, each)


# --- every bug is caught, and nothing else ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Hunt:
    """What came of looking for a bug in the zoo: the networks looked at, those in which it fired, and the finding."""

    bug: Bug
    networks: int
    fired: int
    finding: Finding | None

    def __str__(self) -> str:
        public = "public" if self.bug.public else ""
        return f"{self.bug.name:<52}{public:<8}{self.networks:>6}{self.fired:>6}  {self.finding}"


@cache
def hunt(bug: Bug) -> Hunt:
    """Look for a bug in the zoo until it is caught, where it fired and nowhere else."""
    looked: list[str] = []
    fired: Counter[str] = Counter()
    finding = None
    with pytest.MonkeyPatch.context() as patch:
        passes = bug.plant(patch, lambda: fired.update(looked[-1:]))
        for each in zoo():
            looked.append(each.name)
            finding = examine(passes(each.means), each, lambda: bug.compiled or looked[-1] in fired)
            if finding is not None:
                break
    return Hunt(bug, len(looked), len(fired), finding if looked[-1] in fired else None)


@pytest.mark.parametrize("bug", BUGS, ids=[bug.name for bug in BUGS])
def test_a_bug_is_caught(bug: Bug):
    found = hunt(bug)
    assert found.fired > 0, f"it never fired: {bug.what}"
    assert found.finding is not None, f"not caught, though it fired in {found.fired} networks: {bug.what}"


def test_there_are_enough_bugs_of_all_kinds_and_each_net_is_needed():
    print(f"\n{'bug':<52}{'':<8}{'tried':>6}{'fired':>6}  {'net':<10}{'ratio':>9}{'float64':>9}  where: what")
    print("\n".join(str(hunt(bug)) for bug in BUGS))
    assert len({bug.name for bug in BUGS}) == len({bug.what for bug in BUGS}) == len(BUGS) >= 60
    assert sum(bug.public for bug in BUGS) >= 6
    findings = [found for bug in BUGS if (found := hunt(bug).finding) is not None]
    assert {found.net for found in findings} == {"driver", "verifier", "proof", "program"}
    # What is wrong by more than rounding is so by far.
    assert np.median([found.own for found in findings if found.net == "proof"]) > 1e4


@pytest.mark.parametrize("passes", [standard, lambda means: [Squeezed()]], ids=["standard", "rematerialise"])
def test_the_right_passes_are_let_through(passes: Passes):
    changed = 0
    for each in zoo():
        chosen = passes(each.means)
        if run_passes(chosen, each.graph)[0] is not each.graph:
            changed += 1
            assert examine(chosen, each) is None, each.name
    assert changed


def test_bounds_are_finite_and_close_enough_to_tell():
    for each in zoo():
        bounds = analyse(each.graph.nodes, each.values)
        for name, node in ends_of(each.graph, each.graph).items():
            value, error = bounds[node].value, bounds[node].error
            if "damaged inference" not in each.name:
                assert np.isfinite(error).all(), f"{each.name}: {name}"
            if narrowest(each.graph) != "float16" and np.isfinite(error).all():
                assert np.max(error) < 0.01 * max(1.0, np.abs(value).max()), f"{each.name}: {name}"


# --- the guilty rewrite -----------------------------------------------------------------------------------------------


def agrees_with_what_it_replaced(graph: Graph) -> bool:
    """Tell whether each node that stands in another's place, now or on the way here, has its value."""
    met: dict[Node, Node | None] = {}  # node → what it replaced
    stack = list(graph.nodes)
    while stack:
        node = stack.pop()
        if node not in met:
            met[node] = node.origin.replaced
            stack += [*node.inputs, *([met[node]] if met[node] is not None else [])]
    pairs = [(old, new) for new, old in met.items() if old is not None]
    ends = Graph({f"{i} {j}": node for i, pair in enumerate(pairs) for j, node in enumerate(pair)} or graph.outputs)
    found = analyse(ends.nodes, random_values(ends, random.Random(0)))
    return all(difference(found[a].value, found[b].value, allowed(found[a], found[b])).holds for a, b in pairs)


GUILTY = {
    "one_bias_at_the_border_too": (before_padding, True, "linear_of_batch_norm"),
    "sign_of_beta": (in_a_row, False, "batch_norm_of_linear"),
    "difference_read_backwards": (affine, True, "affine_of_affine"),
    "height_and_width_exchanged": (padded, True, "convolution_of_pad"),
    "operands_exchanged_in_fusing": (affine, True, "fuse_into_reader"),
}


@pytest.mark.parametrize("name", GUILTY)
def test_bisection_finds_the_guilty_rule_and_a_small_graph(name: str, monkeypatch: pytest.MonkeyPatch):
    network, known, rule = GUILTY[name]
    bug = next(b for b in BUGS if b.name == name)
    each = case(network, "float32", "inference", known=known)
    plain = mg.parse(str(each.graph))  # without the provenance of lowering
    passes = bug.plant(monkeypatch, lambda: None)
    culprit = run_passes(passes(each.means), plain)[1].bisect(agrees_with_what_it_replaced)
    assert culprit is not None
    print(f"\n{bug.what}\n{culprit}")
    assert culprit.rewrite.rule == rule
    assert len(culprit.reproducer.nodes) <= 12
    assert mg.verify(mg.parse(str(culprit.reproducer))).same_as(culprit.reproducer)


# --- the fuzzer -------------------------------------------------------------------------------------------------------


# Rules and passes in which bugs of `standard` are looked for.
FOCUS = "fold_batch_norm,merge_pads,merge_affines,simplify,channels_last,fuse"
# A few of those that are found at once: all are looked for in a slow test.
AT_ONCE = (
    "no_root", "sign_of_beta", "flatten_in_another_order", "maximum_with_a_negative_scale", "kernel_overwritten",
    "training_norm_folded", "average_updated_twice", "variables_merged", "wrong_operand_in_fusing",
    "live_buffer_overwritten", "stale_shape", "cycle",
)  # fmt: skip
# What the fuzzer does not find, and why.
UNSEEN = {
    "parameters_by_way_of_float16": "the error that a pass adds is part of the bound that it is held against",
    "overflow_accepted": "no network is in float16, and nothing is said of what is not finite",
    "negative_variance_folded": "no variance is negative, and nothing is said of what is not finite",
    "divided_by_zero": "nothing is said of what is not finite",
    "axis_not_mapped_through_a_transpose": "no batch norm behind a transpose is over another axis than the channels",
    "axis_found_by_its_size": "no batch norm behind a reshape is over the second of two axes of one size",
    "recomputed_from_an_updated_value": "seldom is a dropout mask among what is computed again",
    "random_numbers_of_two_keys_merged": "seldom have two dropouts one shape",
    "differences_merged": "x − y and y − x are not made",
    "transposes_composed_backwards": "transposes that do not commute seldom meet",
    "reversed_slice_dropped": "seldom is an image turned upside down, and then asymmetric",
}


def focused(means: Means) -> Sequence[Pass]:
    """Return the passes in which bugs of `standard` are looked for."""
    return pipelines.parse(FOCUS, means).passes


def fuzzed(bug: Bug, graphs: int) -> tuple[int, fuzzing.Mismatch] | None:
    """Return the first graph on which the fuzzer finds a bug, counted from 1, and what it finds there."""
    with pytest.MonkeyPatch.context() as patch:
        passes = bug.plant(patch, lambda: None)
        if passes is standard:  # much of it is folding, of which there is more in small networks full of batch norms
            passes = focused
            patch.setattr(fuzzing, "MODES", ("inference",))
            patch.setattr(fuzzing, "grow", partial(networks.grow, size=(5, 25)))
            patch.setattr(networks, "SPECS", networks.SPECS + 2 * parts.POSITIONS)
        if bug.alone:
            patch.setattr(fuzzing, "LISTS", ("dead_code",))
        for index in range(graphs):
            report = fuzzing.fuzz(1, SEED, first=index, processes=1, passes=passes)
            # What tests of this project check at every compilation is none of the fuzzer's merits.
            found = [m for m in report.mismatches if not m.what.startswith("AssertionError")]
            if found:
                return index + 1, found[0]
    return None


@pytest.mark.parametrize("name", AT_ONCE)
def test_the_fuzzer_finds_it_at_once(name: str):
    assert fuzzed(next(bug for bug in BUGS if bug.name == name), 12) is not None


@pytest.mark.slow
@pytest.mark.parametrize(
    "bug",
    [
        pytest.param(bug, marks=[pytest.mark.xfail(run=False, reason=UNSEEN[bug.name])] if bug.name in UNSEEN else [])
        for bug in BUGS
    ],
    ids=[bug.name for bug in BUGS],
)
def test_the_fuzzer_finds_it(bug: Bug):
    found = fuzzed(bug, FUZZED)
    assert found is not None, f"not caught in {FUZZED} graphs: {bug.what}"
    number, mismatch = found
    print(f"\n{bug.name:<52}{number:>5} graphs  {mismatch.kind} values: {mismatch.what}")
