"""Deliberately wrong rules and passes: what the tests of passes must be able to find.

Each bug is a function of a few lines, and its docstring says what is wrong. It is put in the place of a right function
(`instead_of`, `absorber`, `rule_instead_of`), or it is a rule or a pass of its own (`rule`, `whole`). A bug counts as
fired where it gives something else than the right function does, or where its rule or pass changes anything at all.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, TypeAlias

import numpy as np
import pytest

import minigraph.passes.fuse as fusing
import minigraph.runtime.plan as planning
from minigraph import ops
from minigraph.errors import GraphError, MinigraphError
from minigraph.ir import Graph, Input, Node, Variable
from minigraph.ir.graph import same_or_rebuilt
from minigraph.ir.leaves import Constant, Item
from minigraph.ops.activations import Relu
from minigraph.ops.conv import Conv2D, Conv2DTranspose
from minigraph.ops.elementwise import Add, Div, Elementwise, Mul, Sub
from minigraph.ops.indexing import Pad, Slice
from minigraph.ops.norm import BatchNorm
from minigraph.ops.pool import AvgPool2D, MaxPool2D
from minigraph.ops.random import RandomUniform
from minigraph.ops.shape import After, Cast, Reshape, Transpose, broadcast_to, cast, reshape, transpose
from minigraph.passes import (
    CommonSubexpressions,
    Pass,
    Rematerialise,
    Rewriting,
    Surroundings,
    Trace,
    absorb,
    affine,
    at,
    conditions,
    feed,
    layout,
    pads,
    pipelines,
    simplify,
)
from minigraph.passes import rematerialise as again
from minigraph.passes.affine import Affine
from minigraph.passes.driver import Rule
from minigraph.passes.pipelines import Means
from minigraph.passes.trace import Refusal
from minigraph.runtime import peak_memory

Passes: TypeAlias = Callable[[Means], Sequence[Pass]]
Fired: TypeAlias = Callable[[], None]
Function: TypeAlias = Callable[..., Any]


@dataclass(frozen=True)
class Bug:
    """Something wrong: `what`, in a line. `plant` puts it in, and returns the passes to run, which hold it.

    public: whether other tools are publicly known to do the same. alone: whether those passes are the bug, and nothing
    else. compiled: whether it is in what makes a program of a graph, and not in a pass.
    """

    name: str
    what: str
    public: bool
    plant: Callable[[pytest.MonkeyPatch, Fired], Passes]
    alone: bool = False
    compiled: bool = False


BUGS: list[Bug] = []


def standard(means: Means) -> list[Pass]:
    """Return what everything runs through: the passes of `optimize`, and those that legalise layouts.

    Where no numbers are known folding comes first, for merging takes some of its work away.
    """
    first = [pipelines.FOLD_BATCH_NORM] if means.numbers is None else []
    return [*first, *pipelines.optimized(means), *pipelines.legalise()]


# --- ways to put a bug in ---------------------------------------------------------------------------------------------


def _add(bad: Function, plant: Callable[[pytest.MonkeyPatch, Fired], Passes], public: bool, **options: bool) -> None:
    BUGS.append(Bug(bad.__name__, (bad.__doc__ or "").splitlines()[0], public, plant, **options))


def _same(x: Any, y: Any) -> bool:
    """Tell whether two answers mean the same: nodes by structure."""
    if isinstance(x, Node) and isinstance(y, Node):
        return x is y or Graph({"it": x}).same_as(Graph({"it": y}))
    match x, y:
        case Graph(), Graph():
            return x.same_as(y)
        case Refusal(), Refusal():
            return True
        case tuple(), tuple():
            return len(x) == len(y) and all(map(_same, x, y))
        case Affine(), Affine():
            return x.axis == y.axis and _same(x.scale, y.scale) and _same(x.shift, y.shift)
    return bool(x == y)


def _planted(bad: Function, right: Function, fire: Fired) -> Function:
    """Return the bad function, which is given the right one first and fires where their answers differ."""

    @wraps(right)
    def planted(*args: Any, **options: Any) -> Any:
        try:
            wrong = bad(right, *args, **options)
        except MinigraphError:
            fire()
            raise
        if not _same(wrong, right(*args, **options)):
            fire()
        return wrong

    return planted


def instead_of(
    right: Function, passes: Passes = standard, public: bool = False, compiled: bool = False
) -> Callable[[Function], Function]:
    """Plant a function in the place of a function, in all modules of passes and of the runtime that know it."""

    def decorate(bad: Function) -> Function:
        def plant(patch: pytest.MonkeyPatch, fire: Fired) -> Passes:
            planted = _planted(bad, right, fire)
            known = [m for name, m in sys.modules.items() if name.startswith(("minigraph.passes", "minigraph.runtime"))]
            for module, name in [(m, name) for m in known for name, value in vars(m).items() if value is right]:
                patch.setattr(module, name, planted)
            return passes

        _add(bad, plant, public, compiled=compiled)
        return bad

    return decorate


def absorber(op: type, public: bool = False) -> Callable[[Function], Function]:
    """Plant a function in the place of what absorbs a batch norm at an op, which is refused where there is none."""

    def refused(node: Node, *_: Any) -> Refusal:
        return Refusal("not linear", (node,))

    def decorate(bad: Function) -> Function:
        def plant(patch: pytest.MonkeyPatch, fire: Fired) -> Passes:
            right = next((each for classes, each in absorb._ABSORBERS if op in classes), refused)
            entry = ((op,), _planted(bad, right, fire))
            patch.setattr(absorb, "_ABSORBERS", (entry, *absorb._ABSORBERS))
            return standard

        _add(bad, plant, public)
        return bad

    return decorate


def _exchange_rules(patch: pytest.MonkeyPatch, change: Callable[[Rewriting], tuple[Rule, ...]]) -> None:
    """Change the rules of the passes that pipelines are made of."""
    for name, value in list(vars(pipelines).items()):
        if isinstance(value, Rewriting):
            patch.setattr(pipelines, name, replace(value, rules=change(value)))


def rule_instead_of(right: Rule, public: bool = False) -> Callable[[Function], Function]:
    """Plant a rule in the place of a rule."""

    def decorate(bad: Function) -> Function:
        def plant(patch: pytest.MonkeyPatch, fire: Fired) -> Passes:
            chosen = _planted(bad, right, fire)

            def planted(node: Node) -> Any:  # the driver looks at the parameters
                return chosen(node)

            planted.__name__, planted.ops = right.__name__, right.ops  # type: ignore[attr-defined]
            _exchange_rules(patch, lambda each: tuple(planted if r is right else r for r in each.rules))
            return standard

        _add(bad, plant, public)
        return bad

    return decorate


def rule(*of: type, public: bool = False, beside: Rewriting | None = None) -> Callable[[Function], Function]:
    """Plant a rule of its own, alone or beside those of a pass."""

    def decorate(bad: Function) -> Function:
        def plant(patch: pytest.MonkeyPatch, fire: Fired) -> Passes:
            @at(*of)
            def planted(node: Node, around: Surroundings) -> Any:
                made = bad(node, around)
                if made is not None:
                    fire()
                return made

            planted.__name__ = bad.__name__
            if beside is None:
                return lambda means: [Rewriting(bad.__name__, (planted,))]
            _exchange_rules(patch, lambda each: (*each.rules, planted) if each.name == beside.name else each.rules)
            return standard

        _add(bad, plant, public, alone=beside is None)
        return bad

    return decorate


@dataclass(frozen=True)
class _Whole:
    """A pass over a whole graph."""

    name: str
    function: Callable[[Graph], Graph]
    fire: Fired

    def __call__(self, graph: Graph, trace: Trace) -> Graph:
        try:
            after = self.function(graph)
        except MinigraphError:
            self.fire()
            raise
        if after is not graph:
            self.fire()
        return after


def whole(public: bool = False) -> Callable[[Function], Function]:
    """Plant a pass of its own; it returns the graph itself where it finds nothing to do."""

    def decorate(bad: Function) -> Function:
        def plant(patch: pytest.MonkeyPatch, fire: Fired) -> Passes:
            def fired_unless_same(graph: Graph) -> Graph:
                after = bad(graph)
                return graph if after is graph or str(after) == str(graph) else after

            return lambda means: [_Whole(bad.__name__, fired_unless_same, fire)]

        _add(bad, plant, public, alone=True)
        return bad

    return decorate


# --- the numbers of a fold --------------------------------------------------------------------------------------------


def _map(node: Node, scale: Node, shift: Node | None = None) -> Affine:
    """Return the map with this scale, and with the shift β − mean·s that belongs to it unless another is given."""
    _, beta, mean, _ = map(affine.wide, node.inputs[1:5])
    return Affine(node.op.axis % node.rank, scale, beta - mean * scale if shift is None else shift)


@instead_of(affine.of_batch_norm)
def epsilon_dropped(right, node):
    """ε is left out: s = γ/√v."""
    return right(node.with_inputs(node.inputs, replace(node.op, epsilon=0.0)))


@instead_of(affine.of_batch_norm)
def epsilon_of_another_default(right, node):
    """ε is 1e-5, whatever the batch norm says."""
    return right(node.with_inputs(node.inputs, replace(node.op, epsilon=1e-5)))


@instead_of(affine.of_batch_norm)
def epsilon_outside_the_root(right, node):
    """ε is added to the standard deviation: s = γ/(√v + ε)."""
    gamma, _, _, variance = map(affine.wide, node.inputs[1:5])
    return _map(node, gamma / (ops.sqrt(variance) + node.op.epsilon))


@instead_of(affine.of_batch_norm)
def no_root(right, node):
    """The root is left out: s = γ/(v + ε)."""
    gamma, _, _, variance = map(affine.wide, node.inputs[1:5])
    return _map(node, gamma / (variance + node.op.epsilon))


@instead_of(affine.of_batch_norm)
def sign_of_beta(right, node):
    """β is subtracted: t = −β − mean·s."""
    found = right(node)
    return replace(found, shift=found.shift - 2.0 * affine.wide(node.inputs[2]))


@instead_of(affine.of_batch_norm)
def mean_not_scaled(right, node):
    """The mean is not multiplied by s: t = β − mean."""
    _, beta, mean, _ = map(affine.wide, node.inputs[1:5])
    return replace(right(node), shift=beta - mean)


@instead_of(affine.scaled)
def shift_not_scaled(right, shift, scale):
    """What was added before is not scaled: (x·c + d)·s + t = x·(c·s) + (d + t)."""
    return shift


@instead_of(affine.after)
def maps_in_the_wrong_order(right, inner, outer):
    """Of two affine maps the second is applied first."""
    return right(outer, inner)


@instead_of(absorb.add_shift)
def shift_forgotten(right, made, map_, around):
    """t is forgotten: batch_norm(x·w) = x·(w·s)."""
    return made


@instead_of(affine.wide)
def parameters_by_way_of_float16(right, parameter):
    """Parameters are rounded to float16 on their way."""
    return right(cast(cast(parameter, "float16"), parameter.dtype))


@instead_of(conditions.overflow, public=True)
def overflow_accepted(right, parameters, around):
    """A folded float16 kernel may overflow to infinity."""
    return None


@rule(BatchNorm, public=True)
def negative_variance_folded(node, around):
    """A negative variance of a damaged checkpoint is made positive, in silence: |v|."""
    *rest, variance = node.inputs
    return None if variance.op.name == "abs" else node.with_inputs((*rest, ops.abs(variance)))


@rule(BatchNorm)
def divided_by_zero(node, around):
    """batch_norm(x) = (x + t/s)·s, also where γ and with it s is 0."""
    found, x = affine.of_batch_norm(node), node.inputs[0]
    moved = affine.apply(x, Affine(found.axis, None, found.shift / found.scale))
    return affine.apply(moved, Affine(found.axis, found.scale))


# --- which channels are scaled ----------------------------------------------------------------------------------------


@instead_of(affine.scale_kernel)
def transposed_kernel_scaled_along_the_wrong_axis(right, op, kernel, scale, side):
    """A transposed convolution's kernel is scaled along the axis where a convolution has its outputs."""
    into, out = op.kernel_channels(kernel.tensor_type)
    confused = isinstance(op, Conv2DTranspose) and op.groups == 1 and into == out
    return right(op, kernel, scale, {"I": "O", "O": "I"}[side] if confused else side)


@instead_of(affine._over_inputs)
def grouped_transposed_kernel_scaled_by_a_tiled_vector(right, op, scale, kernel):
    """A grouped transposed convolution's kernel is scaled as if the groups took turns."""
    if op.groups == 1 or not isinstance(op, Conv2DTranspose):
        return right(op, scale, kernel)
    inputs, outputs = op.kernel_channels(kernel.tensor_type)
    shape = (inputs // op.groups, outputs // op.groups, op.groups)
    columns = transpose(reshape(scale, (op.groups, shape[0])))
    return reshape(broadcast_to(reshape(columns, (shape[0], 1, op.groups)), shape), (shape[0], outputs))


@instead_of(affine._over_inputs)
def groups_of_inputs_forgotten(right, op, scale, kernel):
    """All groups of a convolution's kernel are scaled by the first group's part of the vector."""
    if op.groups == 1 or not isinstance(op, Conv2D):
        return right(op, scale, kernel)
    size = op.kernel_channels(kernel.tensor_type)[0] // op.groups
    return reshape(affine.piece(scale, 0, size), (size, 1))


@instead_of(affine.scale_kernel)
def depthwise_outputs_in_another_order(right, op, kernel, scale, side):
    """The outputs of a depthwise convolution are taken to be ordered by multiplier first, then by channel."""
    if op.groups > 1 and isinstance(op, Conv2D) and side == "O" and scale.rank:
        each = scale.shape[0] // op.groups
        scale = reshape(transpose(reshape(scale, (op.groups, each))), scale.shape)
    return right(op, kernel, scale, side)


@instead_of(affine.scaled_output)
def axis_of_equal_size_taken_for_the_channels(right, node, axis, scale, around):
    """A batch norm over another axis that has as many elements is taken to be over the channels."""
    channels = affine.channels_axis(node.op) if isinstance(node.op, (Conv2D, Conv2DTranspose)) else node.rank - 1
    return right(node, channels if node.shape[axis] == node.shape[channels] else axis, scale, around)


@instead_of(affine.scale_matrix)
def rows_for_columns(right, kernel, scale, rows):
    """A square dense kernel is scaled along its rows instead of its columns."""
    return right(kernel, scale, rows != (kernel.shape[-1] == kernel.shape[-2]))


@instead_of(affine.mapped_axis)
def axis_not_mapped_through_a_transpose(right, node, axis):
    """A transpose between convolution and batch norm does not change the axis."""
    stays = isinstance(node.op, Transpose) and node.inputs[0].shape[axis] == node.shape[axis]
    return axis if stays else right(node, axis)


@instead_of(affine.mapped_axis)
def axis_found_by_its_size(right, node, axis):
    """Through a reshape, the axis is the first one of its size."""
    before = node.inputs[0].shape
    by_size = isinstance(node.op, Reshape) and node.shape[axis] in before
    return before.index(node.shape[axis]) if by_size else right(node, axis)


@instead_of(feed._through_movement)
def flatten_in_another_order(right, node, map_):
    """A flattened N,C,H,W image is taken for N,H,W,C: s is tiled."""
    found = right(node, map_)
    if not isinstance(found, Affine) or affine.outcome_axis(node, map_.axis) is not None or found.scale.rank == 0:
        return found
    (size,), (channels,) = found.scale.shape, map_.scale.shape
    tiled = (reshape(broadcast_to(v, (size // channels, channels)), (size,)) for v in (map_.scale, map_.shift))
    return Affine(found.axis, *tiled)


@instead_of(affine.piece)
def scale_not_split(right, vector, start, size):
    """All branches of a concatenation take the first part of the scale."""
    return right(vector, 0, size)


# --- what lies between ------------------------------------------------------------------------------------------------


@absorber(Add)
def shift_added_twice(right, node, map_, around, walk):
    """(a + b)·s + t = (a·s + t) + (b·s + t)."""
    made = [absorb.absorb(i, map_, around, walk) for i in node.inputs]
    if any(isinstance(m, Refusal) or around.is_parameter(m) for m in made):
        return right(node, map_, around, walk)
    return node.with_inputs(made)


@absorber(Add)
def bias_not_scaled(right, node, map_, around, walk):
    """(x·w + b)·s + t = x·(w·s) + (b + t)."""
    x, bias = node.inputs
    vector = affine.along(affine.wide(bias), map_.axis, node.shape) if around.is_parameter(bias) else None
    if vector is None:
        return right(node, map_, around, walk)
    return absorb.absorb(x, Affine(map_.axis, map_.scale, affine.plus(vector, map_.shift)), around, walk)


@absorber(Add)
def identity_branch_ignored(right, node, map_, around, walk):
    """(x + a)·s + t = x + (a·s + t): the branch that cannot be scaled is left as it is."""
    x, y = node.inputs
    made = absorb.absorb(y, map_, around, walk)
    refused = isinstance(absorb.absorb(x, map_, around, walk), Refusal)
    if refused and not around.is_parameter(y) and isinstance(made, Node):
        return node.with_inputs((x, made))
    return right(node, map_, around, walk)


@absorber(Relu)
def folded_through_a_relu(right, node, map_, around, walk):
    """relu(x)·s + t = relu(x·s + t)."""
    made = absorb.absorb(node.inputs[0], map_, around, walk)
    return node.with_inputs((made,)) if isinstance(made, Node) else right(node, map_, around, walk)


@absorber(AvgPool2D)
def counted_padding_ignored(right, node, map_, around, walk):
    """avg_pool(x)·s + t = avg_pool(x·s + t), also where the pool counts the zeros around x."""
    return absorb._around(node, map_, around, walk, shift_inside=True)


@absorber(MaxPool2D)
def maximum_with_a_negative_scale(right, node, map_, around, walk):
    """max_pool(x)·s + t = max_pool(x·s + t), whatever the sign of s."""
    return absorb._around(node, map_, around, walk, shift_inside=True)


@instead_of(conditions.not_positive)
def relu_with_a_negative_scale(right, scale, around, node):
    """relu(x·s + t) = s·relu(x + t/s), whatever the sign of s."""
    return None if isinstance(node.op, Relu) else right(scale, around, node)


@instead_of(feed._through)
def counted_padding_ignored_behind(right, node, map_, around):
    """avg_pool(x·s + t) = avg_pool(x)·s + t, also where the pool counts the zeros around x."""
    return map_ if isinstance(node.op, AvgPool2D) else right(node, map_, around)


@instead_of(feed._known_pads)
def one_bias_at_the_border_too(right, op, window, spatial):
    """A batch norm before a convolution with zero padding becomes one bias for all pixels."""
    return (0, 0), (0, 0)


def _folded_in_place(graph: Graph, chosen: Callable[[Node], Node]) -> Graph:
    """Fold batch norms by changing something for all who read it: `chosen` of the convolution."""
    norms = {
        n.inputs[0]: n
        for n in graph.nodes
        if affine.is_fixed_batch_norm(n) and isinstance(n.inputs[0].op, Conv2D) and n.op.axis % 4 == 3
        if all(isinstance(p.op, (Variable, Constant)) for p in (n.inputs[0].inputs[1], *n.inputs[1:]))
    }
    changed = {chosen(conv): (conv.op, affine.of_batch_norm(norm)) for conv, norm in norms.items()}
    behind = {norm: affine.of_batch_norm(norm).shift for norm in norms.values()}
    around = Surroundings(graph)

    def make(node: Node, inputs: tuple[Node, ...]) -> Node:
        new = same_or_rebuilt(node, inputs)
        if node in behind:
            return inputs[0] + affine.narrow(behind[node], node.dtype)
        if node not in changed:
            return new
        op, map_ = changed[node]
        if node.inputs:
            made = affine.scaled_output(new, map_.axis, map_.scale, around)
            assert isinstance(made, Node)
            return made
        return new if node in graph.updates else affine.scale_kernel(op, new, map_.scale, "O")

    return graph.rebuild(make) if norms else graph


@whole()
def folded_over_a_second_reader(graph):
    """A convolution is scaled for the batch norm that reads it, and so for all others that do."""
    return _folded_in_place(graph, lambda conv: conv)


@whole(public=True)
def kernel_overwritten(graph):
    """A kernel is scaled for one batch norm, and so for the other convolutions, and the output, that read it."""
    return _folded_in_place(graph, lambda conv: conv.inputs[1])


# --- training ---------------------------------------------------------------------------------------------------------


def _averages(graph: Graph) -> dict[Node, Node]:
    """Return the moving averages that a graph updates, by the moment of the batch that goes into each."""
    found = {}
    for target, value in graph.updates.items():
        match value:
            case Node(op=Add(), inputs=(Node(op=Mul(), inputs=(old, _)), Node(op=Mul(), inputs=(new, _)))):
                found.update({new: target} if old is target else {})
    return found


@rule(BatchNorm, public=True)
def training_norm_folded(node, around):
    """In training a batch norm takes its moving averages instead of the batch's moments."""
    averages = _averages(around.graph)
    mean, variance = (around.old.get(i, i) for i in node.inputs[3:5])
    if not isinstance(mean.op, Item) or mean not in averages or variance not in averages:
        return None
    return node.with_inputs((*node.inputs[:3], averages[mean], averages[variance]))


def _with_updates(graph: Graph, change: Callable[[Node, Node], Node]) -> Graph:
    """Return the graph with the updates of moving averages changed."""
    moving = set(_averages(graph).values())
    updates = {t: change(t, value) if t in moving else value for t, value in graph.updates.items()}
    return Graph(graph.outputs, updates, graph.inputs) if moving else graph


@whole(public=True)
def average_updated_twice(graph):
    """A moving average takes in the same batch twice."""

    def twice(target: Node, value: Node) -> Node:
        old, new = value.inputs
        return Node(value.op, (Node(old.op, (value, old.inputs[1])), new))

    return _with_updates(graph, twice)


@whole()
def momentum_for_its_complement(graph):
    """The weights of the old average and of the batch are exchanged."""

    def exchanged(target: Node, value: Node) -> Node:
        (old, a), (new, b) = (product.inputs for product in value.inputs)
        return old * b + new * a

    return _with_updates(graph, exchanged)


@whole()
def update_dropped(graph):
    """Dead code removal takes an update for dead that changes something."""
    real = [t for t, value in graph.updates.items() if t is not value]
    left = {t: value for t, value in graph.updates.items() if t not in real[-1:]}
    return Graph(graph.outputs, left, graph.inputs) if real else graph


@rule(Elementwise, Conv2D, BatchNorm, public=True)
def input_taken_for_a_constant(node, around):
    """An input is taken to have the value, 1, that was its default, though the caller gives another."""
    if not any(isinstance(i.op, Input) for i in node.inputs):
        return None
    known = (Node(Constant.full(i.tensor_type, 1.0)) if isinstance(i.op, Input) else i for i in node.inputs)
    return node.with_inputs(known)


@dataclass(frozen=True)
class Squeezed:
    """Rematerialisation to a share of the peak memory, where that can be reached."""

    share: float = 0.85
    name: str = "rematerialise"

    def __call__(self, graph: Graph, trace: Trace) -> Graph:
        """Return the graph that fits, or the same graph."""
        if graph.symbols:
            return graph
        try:
            return Rematerialise(int(self.share * peak_memory(graph)), peak_memory)(graph, trace)
        except GraphError:
            trace.pending.clear()
            return graph


@instead_of(again._recompute, lambda means: [Squeezed()])
def recomputed_from_an_updated_value(right, graph, *args):
    """What is computed again reads the step counter that was counted up already: another dropout mask."""
    after = right(graph, *args)
    updates = {target.label: value for target, value in after.updates.items() if target.dtype == "int64"}

    def make(node: Node, inputs: tuple[Node, ...]) -> Node:
        if isinstance(node.op, After) and inputs[0].label in updates:
            return Node(node.op, (updates[inputs[0].label], inputs[1]))
        return same_or_rebuilt(node, inputs)

    return after.rebuild(make)


# --- merging, simplifying, common subexpressions ----------------------------------------------------------------------


def _merged(graph: Graph, key: Callable[[Node, tuple[Node, ...]], object]) -> Graph:
    """Return the graph in which nodes of equal keys are one; a key of None stays alone."""
    seen: dict[object, Node] = {}

    def make(node: Node, inputs: tuple[Node, ...]) -> Node:
        new, same = same_or_rebuilt(node, inputs), key(node, inputs)
        return new if same is None else seen.setdefault(same, new)

    return graph.rebuild(make)


@whole()
def random_numbers_of_two_keys_merged(graph):
    """Two dropout masks of one shape are one."""
    return _merged(graph, lambda n, inputs: (n.type, inputs) if isinstance(n.op, RandomUniform) else None)


@whole()
def variables_merged(graph):
    """Two variables of one type are one."""
    return _merged(graph, lambda n, _: n.type if isinstance(n.op, Variable) and n not in graph.updates else None)


@whole()
def attributes_ignored_in_merging(graph):
    """Two ops that read the same are one, whatever their attributes."""
    right = CommonSubexpressions()(graph, Trace())
    mixed = _merged(right, lambda n, inputs: (type(n.op), n.type, inputs) if inputs and n.op.name != "item" else None)
    return graph if mixed.same_as(right) else mixed


@whole()
def differences_merged(graph):
    """x − y and y − x are one."""
    return _merged(graph, lambda n, inputs: (n.type, frozenset(inputs)) if isinstance(n.op, Sub) else None)


@rule(Mul)
def sum_times_factor(node, around):
    """(x + a)·b = x·b + a."""
    match node.inputs:
        case (Node(op=Add(), inputs=(x, a)), b) if x.type == node.type:
            return x * b + a
    return None


@rule(BatchNorm)
def mean_not_divided(node, around):
    """batch_norm(x·c, γ, β, m, v) = batch_norm(x, γ·c, β, m, v)."""
    x, gamma, *rest = node.inputs
    found = affine.of_elementwise(x, around)
    if found is None or found[1].shift is not None or found[1].axis != node.op.axis % node.rank:
        return None
    return node.with_inputs((found[0], affine.narrow(affine.wide(gamma) * found[1].scale, gamma.dtype), *rest))


@instead_of(affine.of_elementwise)
def difference_read_backwards(right, node, around):
    """c − x is taken for x − c."""
    found = right(node, around)
    backwards = found is not None and isinstance(node.op, Sub) and found[0] is node.inputs[1]
    return (found[0], Affine(found[1].axis, None, -found[1].shift)) if backwards else found


@rule(Div)
def reciprocal_rounded_to_float16(node, around):
    """x/c = x·(1/c), with 1/c rounded to float16."""
    x, c = node.inputs
    if not isinstance(c.op, Constant) or not c.op.splat or node.dtype == "float16":
        return None
    return x * Node(Constant.full(c.tensor_type, float(np.float16(1.0 / c.op.splat))))


@rule_instead_of(simplify.transpose_of_transpose)
def transposes_composed_backwards(right, node):
    """transpose(transpose(x, p), q) = transpose(x, q∘p)."""
    inner = node.inputs[0]
    if not isinstance(inner.op, Transpose):
        return right(node)
    made = Node(Transpose(tuple(node.op.axes[a] for a in inner.op.axes)), inner.inputs)
    return made if made.type == node.type else right(node)


@rule_instead_of(simplify.transpose_is_reshape)
def transpose_taken_for_a_reshape(right, node):
    """transpose(x) = reshape(x), whichever axes move."""
    return Node(Reshape(node.shape), node.inputs)


@rule_instead_of(simplify.nothing_moved)
def reversed_slice_dropped(right, node):
    """x[::-1] = x."""
    return node.inputs[0] if isinstance(node.op, Slice) and node.inputs[0].type == node.type else right(node)


@rule_instead_of(layout.batch_norm_channels_last)
def axis_not_mapped_when_legalising(right, node):
    """batch_norm(transpose(x)) = transpose(batch_norm(x)), over the same axis."""
    x = node.inputs[0]
    if not isinstance(x.op, Transpose) or x.shape[node.op.axis] != x.inputs[0].shape[node.op.axis]:
        return right(node)
    return Node(x.op, (Node(node.op, (x.inputs[0], *node.inputs[1:])),))


@rule(Cast)
def cast_dropped(node, around):
    """cast(x) = x, whatever the dtype."""
    return node.inputs[0] if node.inputs[0].dtype != node.dtype else None


@rule(Sub, beside=simplify.SIMPLIFY)
def undone_by_another_rule(node, around):
    """x − y = x + (−y), which another rule turns back."""
    return node.inputs[0] + (-node.inputs[1])


# --- padding ----------------------------------------------------------------------------------------------------------


@instead_of(pads._into)
def height_and_width_exchanged(right, *args, **options):
    """The padding of height goes to width, and the other way round."""
    made = right(*args, **options)
    if isinstance(made, Refusal):
        return made
    exchanged = Node(replace(made.op, padding=made.op.padding[::-1]), made.inputs)
    return exchanged if exchanged.type == made.type else made


@rule_instead_of(pads.convolution_of_pad)
def padding_value_ignored(right, node):
    """conv2d(pad(x, v), w) = conv2d(x, w) with more padding, whatever v."""
    padded, kernel = node.inputs
    if not isinstance(padded.op, Pad):
        return None
    return right(node.with_inputs((padded.with_inputs(padded.inputs, replace(padded.op, value=0.0)), kernel)))


@rule(Conv2D)
def same_padding_at_the_other_end(node, around):
    """The odd row and column of "same" padding go to the start."""
    if node.op.padding != "same" or not all(isinstance(s, int) for s in node.inputs[0].shape):
        return None
    inside = node.inputs[0].shape[1:3] if node.op.layout == "NHWC" else node.inputs[0].shape[2:]
    around_it = node.op.window(node.inputs[1].tensor_type).pads(inside)
    return node.with_inputs(node.inputs, replace(node.op, padding=tuple(pair[::-1] for pair in around_it)))


# --- constants, fusion, memory ----------------------------------------------------------------------------------------


def _folding_in_a_narrow_dtype(patch: pytest.MonkeyPatch, fire: Fired) -> Passes:
    """Constants are folded in a narrower dtype than their own."""

    def passes(means: Means) -> list[Pass]:
        def evaluate(expression: Node) -> Constant:
            right = means.evaluate(expression)
            narrow = {"float64": "float32", "float32": "float16"}.get(right.type.dtype)
            if narrow is None:
                return right
            array = np.frombuffer(right.data, right.type.dtype)
            with np.errstate(over="ignore", under="ignore"):
                wrong = array.astype(narrow).astype(array.dtype)
            if wrong.tobytes() != right.data:
                fire()
            return Constant(right.type, wrong.tobytes())

        return standard(replace(means, evaluate=evaluate))

    return passes


BUGS.append(
    Bug("folded_in_a_narrow_dtype", (_folding_in_a_narrow_dtype.__doc__ or ""), False, _folding_in_a_narrow_dtype)
)


@instead_of(fusing.fuse)
def operands_exchanged_in_fusing(right, producer, reader):
    """A fused difference has its operands exchanged."""
    region = right(producer, reader)
    *steps, last = region.op.body
    turned = replace(last, inputs=last.inputs[::-1]) if isinstance(last.op, Sub) else last
    return Node(replace(region.op, body=(*steps, turned)), region.inputs)


@instead_of(fusing.fuse)
def wrong_operand_in_fusing(right, producer, reader):
    """A fused region reads two operands of one type the wrong way round."""
    region = right(producer, reader)
    types = [i.type for i in region.inputs]
    pairs = [(i, j) for j in range(len(types)) for i in range(j) if types[i] == types[j]]
    if not pairs:
        return region
    i, j = pairs[-1]
    operands = list(region.inputs)
    operands[i], operands[j] = operands[j], operands[i]
    return Node(region.op, operands)


@instead_of(planning._overwritable, compiled=True)
def live_buffer_overwritten(right, plan, node, step, needs):
    """A result takes over the memory of an operand that is still read."""
    for index in needs.inplace:
        operand = node.inputs[index]
        if plan.roots[operand] in plan.slots and operand.type == node.type:
            return operand
    return None


@instead_of(planning._last_uses, compiled=True)
def outputs_given_up(right, graph, calls, roots):
    """Outputs do not live to the end."""
    return {value: step for value, step in right(graph, calls, roots).items() if step < len(calls)}


# --- graphs that are none ---------------------------------------------------------------------------------------------


@whole()
def stale_shape(graph):
    """An output keeps the shape that it had before its operands changed."""

    def make(node: Node, inputs: tuple[Node, ...]) -> Node:
        if node not in graph.outputs.values() or not node.inputs:
            return same_or_rebuilt(node, inputs)
        new = Node(node.op, inputs)
        object.__setattr__(new, "type", dataclasses.replace(node.tensor_type, shape=(1, *node.shape)))
        return new

    return graph.rebuild(make)


@whole()
def cycle(graph):
    """A node is made to read what is computed from it."""
    new: dict[Node, Node] = {}

    def make(node: Node, inputs: tuple[Node, ...]) -> Node:
        new[node] = Node(node.op, inputs) if node.inputs else node
        return new[node]

    graph.rebuild(make)
    first, last = (next(n for n in nodes if n.inputs) for nodes in (graph.nodes, reversed(graph.nodes)))
    object.__setattr__(new[first], "inputs", (new[last], *new[first].inputs[1:]))
    return Graph({"last": new[last]})
