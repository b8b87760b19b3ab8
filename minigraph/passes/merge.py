"""Affine merging: chains of multiplications and additions by parameters become one, and go into ops next to them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from minigraph.ir.leaves import Constant
from minigraph.ir.node import Node
from minigraph.ir.types import TensorType, is_float
from minigraph.ops.conv import Conv2D, Conv2DTranspose
from minigraph.ops.elementwise import Add, Div, Mul, Neg, Sub
from minigraph.ops.linalg import MatMul
from minigraph.ops.norm import BatchNorm
from minigraph.ops.real import rsqrt
from minigraph.passes import affine
from minigraph.passes.absorb import absorb, start_of_walk
from minigraph.passes.affine import Affine
from minigraph.passes.conditions import Result, unfit, unless_overflow
from minigraph.passes.driver import Rewriting, at
from minigraph.passes.feed import into_kernel
from minigraph.passes.surroundings import Surroundings
from minigraph.passes.trace import Refusal


def _map_of(node: Node, around: Surroundings) -> tuple[Node, Affine] | None:
    """Return (x, map) of an elementwise affine whose parameter is smaller than its data: there merging spares work."""
    return affine.of_elementwise(node, around) if node.rank > 1 else None


@at(Add, Sub, Mul, Div, Neg)
def affine_of_affine(node: Node, around: Surroundings) -> Result | None:
    """(x·a)·b = x·(a·b), (x + a) + b = x + (a + b), (x + a)·b = x·b + a·b: at most one product, then one sum.

    When: a and b are parameters that vary along one axis, and nothing else reads what lies between.

        %0 = input("x") : float32[2,3]
        %1 = constant([1.0, 2.0, 3.0]) : float32[3]
        %2 = add(%0, %1) : float32[2,3]
        %3 = constant(0.5) : float32[]
        %4 = mul(%2, %3) : float32[2,3]
        return y=%4
    """
    outer = _map_of(node, around)
    if outer is None:
        return None
    inner = _map_of(outer[0], around)
    if inner is None:
        return None
    (middle, second), (x, first) = outer, inner
    if first.shift is None and second.scale is None:  # a product, then a sum: nothing to gain
        return None
    if around.uses(middle) > 1:
        return Refusal(f"second use: {middle.label} is read {around.uses(middle)} times", (middle,))
    both = affine.after(first, second)
    if both is None:
        return Refusal("axes differ", (middle,))
    return unless_overflow(affine.apply(x, both), affine.rounded(both, x.dtype), around)


@at(Add)
def sum_of_parameters(node: Node, around: Surroundings) -> Result | None:
    """(x + p) + q = x + (p + q): a map over the pixels and a bias are one parameter.

    When: p and q are parameters of any shape that is smaller than the data, and nothing else reads what lies between.

        %0 = input("x") : float32[2,4,4,3]
        %1 = variable("map") : float32[4,4,3]
        %2 = add(%0, %1) : float32[2,4,4,3]
        %3 = variable("bias") : float32[3]
        %4 = add(%2, %3) : float32[2,4,4,3]
        return y=%4
    """
    outer = _with_parameter(node, around)
    inner = None if outer is None else _with_parameter(outer[0], around)
    if outer is None or inner is None:
        return None
    (middle, q), (x, p) = outer, inner
    if around.uses(middle) > 1:
        return Refusal(f"second use: {middle.label} is read {around.uses(middle)} times", (middle,))
    both = affine.wide(p) + affine.wide(q)
    if both.shape not in (p.shape, q.shape):
        return Refusal("their sum would be larger than each", (p, q))
    total = affine.narrow(both, node.dtype)
    return unless_overflow(x + total, [total], around)


def _with_parameter(node: Node, around: Surroundings) -> tuple[Node, Node] | None:
    """Return (x, p) where a node is the sum of data x and a parameter p that is repeated along some axis."""
    if not isinstance(node.op, Add) or not is_float(node.dtype):
        return None
    left, right = node.inputs
    x, p = (right, left) if around.is_parameter(left) else (left, right)
    if x.type != node.type or p.shape == node.shape or around.is_parameter(x) or not around.is_parameter(p):
        return None
    return x, p


@at(Mul, Div)
def scaling_of_linear(node: Node, around: Surroundings) -> Result | None:
    """linear(x, w)·c = linear(x, w·c); a bias between is scaled too.

    When: c is a parameter along the output channels, nothing else reads what lies between, and the kernel does not
    change at every step.

        %0 = input("x") : float32[2,4]
        %1 = variable("w") : float32[4,3]
        %2 = matmul(%0, %1) : float32[2,3]
        %3 = constant([1.0, 2.0, 3.0]) : float32[3]
        %4 = mul(%2, %3) : float32[2,3]
        return y=%4
    """
    found = _map_of(node, around)
    if found is None:
        return None
    if around.graph.updates:
        return Refusal("training: the kernel changes at every step, scaling it would be repeated", (node,))
    return absorb(found[0], found[1], around, start_of_walk(node))


@at(Conv2D, Conv2DTranspose, MatMul)
def linear_of_scaling(node: Node, around: Surroundings) -> Result | None:
    """linear(x·c + d, w) = linear(x, w·c) + linear(d, w).

    When: c is a parameter along the input channels, nothing else reads what lies between, and the kernel does not
    change at every step. A sum alone stays: it costs nothing beside the op before it.

        %0 = input("x") : float32[2,4]
        %1 = constant([1.0, 2.0, 3.0, 4.0]) : float32[4]
        %2 = mul(%0, %1) : float32[2,4]
        %3 = variable("w") : float32[4,3]
        %4 = matmul(%2, %3) : float32[2,3]
        return y=%4
    """
    x, map_, chain = _chain(node.inputs[0], around)
    if map_ is None or map_.scale is None:
        return None
    if around.graph.updates:
        return Refusal("training: the kernel changes at every step, scaling it would be repeated", (node,))
    for each in chain:
        if around.uses(each) > 1:
            return Refusal(f"second use: {each.label} is read {around.uses(each)} times", (each,))
    return into_kernel(node, x, map_, [], around)


def _chain(node: Node, around: Surroundings) -> tuple[Node, Affine | None, list[Node]]:
    """Return (x, map, nodes) of the elementwise affines, at most a product and a sum, that end in `node`."""
    map_: Affine | None = None
    chain: list[Node] = []
    while len(chain) < 2:
        found = _map_of(node, around)
        both = None if found is None else found[1] if map_ is None else affine.after(found[1], map_)
        if found is None or both is None:
            break
        chain.append(node)
        node, map_ = found[0], both
    return node, map_, chain


@at(Add, Sub, Mul, Div, Neg, BatchNorm)
def affine_of_batch_norm(node: Node, around: Surroundings) -> Result | None:
    """batch_norm(x, γ, β)·c + d = batch_norm(x, γ·c, β·c + d): one that cannot be folded takes in what follows.

    Another batch norm behind it is such an affine too, c = γ′/√(variance′ + ε′), d = β′ − mean′·c.

    When: both run along one axis, the statistics are parameters, and nothing else reads what lies between.

        %0 = input("x") : float32[2,3]
        %1 = variable("gamma") : float32[3]
        %2 = variable("beta") : float32[3]
        %3 = variable("mean") : float32[3]
        %4 = variable("variance") : float32[3]
        %5 = batch_norm(%0, %1, %2, %3, %4) : float32[2,3]
        %6 = constant(2.0) : float32[]
        %7 = mul(%5, %6) : float32[2,3]
        return y=%7
    """
    found = _outer_map(node, around)
    if found is None or not affine.is_fixed_batch_norm(found[0]):
        return None
    norm, outer = found
    for each in (norm, node) if affine.is_fixed_batch_norm(node) else (norm,):
        refusal = unfit(each, around)
        if refusal is not None:
            return refusal
    if around.uses(norm) > 1:
        return Refusal(f"second use: {norm.label} is read {around.uses(norm)} times", (norm,))
    x, gamma, beta, mean, variance = norm.inputs
    inner = Affine(affine.of_batch_norm(norm).axis, affine.wide(gamma), affine.wide(beta))
    both = affine.after(inner, outer)
    if both is None:
        return Refusal("axes differ", (norm,))
    if affine.is_fixed_batch_norm(node):
        around.note(node, "merged into the batch norm before it: one affine is left")
    merged = norm.with_inputs((x, *_vectors(both, gamma.tensor_type), mean, variance))
    return unless_overflow(merged, list(merged.inputs[1:3]), around)


def _outer_map(node: Node, around: Surroundings) -> tuple[Node, Affine] | None:
    if affine.is_fixed_batch_norm(node):
        return node.inputs[0], affine.of_batch_norm(node)
    return _map_of(node, around)


def _vectors(map_: Affine, type: TensorType) -> tuple[Node, Node]:
    """Return γ and β of a map, rounded once, as vectors."""
    assert map_.scale is not None and map_.shift is not None
    gamma, beta = (affine.vector_of(v, type.shape[0]) for v in (map_.scale, map_.shift))
    return affine.narrow(gamma, type.dtype), affine.narrow(beta, type.dtype)


@at(BatchNorm)
def batch_norm_of_affine(node: Node, around: Surroundings) -> Result | None:
    """batch_norm(x·c + d, γ, β, m, v) = batch_norm(x, γ·c, β + (d − m)·γ/√(v + ε), 0, v).

    When: c and d run along the batch norm's axis, and nothing else reads what lies between.

        %0 = input("x") : float32[2,3]
        %1 = constant([1.0, 2.0, 3.0]) : float32[3]
        %2 = mul(%0, %1) : float32[2,3]
        %3 = variable("gamma") : float32[3]
        %4 = variable("beta") : float32[3]
        %5 = variable("mean") : float32[3]
        %6 = variable("variance") : float32[3]
        %7 = batch_norm(%2, %3, %4, %5, %6) : float32[2,3]
        return y=%7
    """
    op: Any = node.op
    if op.moving is not None:
        return None
    found = _map_of(node.inputs[0], around)
    if found is None:
        return None
    refusal = unfit(node, around)
    if refusal is not None:
        return refusal
    middle, (x, inner) = node.inputs[0], found
    if around.uses(middle) > 1:
        return Refusal(f"second use: {middle.label} is read {around.uses(middle)} times", (middle,))
    gamma, beta, mean, variance = map(affine.wide, node.inputs[1:])
    axis = affine.of_batch_norm(node).axis
    both = affine.after(inner, Affine(axis, gamma))
    if both is None:
        return Refusal("axes differ", (middle,))
    shift = -mean if inner.shift is None else inner.shift - mean
    moved = beta + shift * gamma * rsqrt(variance + op.epsilon)
    type_ = node.inputs[1].tensor_type
    none = Node(Constant.full(type_, 0.0))
    new_op = replace(op, axis=axis)
    vectors = _vectors(Affine(axis, both.scale, moved), type_)
    return unless_overflow(node.with_inputs((x, *vectors, none, node.inputs[4]), new_op), list(vectors), around)


MERGE_AFFINES = Rewriting(
    "merge_affines",
    (
        affine_of_affine,  # at most one product and one sum in a row
        sum_of_parameters,  # sums that run along several axes
        affine_of_batch_norm,  # what follows a batch norm
        batch_norm_of_affine,  # what comes before it
        scaling_of_linear,  # a product behind a convolution or a dense layer
        linear_of_scaling,  # and one before it: an input that is normalised
    ),
)
