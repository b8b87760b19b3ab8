"""Bounds of what normalises: moments, batch norm, and the softmax family."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minigraph.errors import GraphError
from minigraph.ir.node import Node
from minigraph.ir.types import normalize_axis
from minigraph.ops import loss
from minigraph.ops.norm import BatchNorm, Moments
from minigraph.ops.random import Dropout
from minigraph.testing.bounds.bounded import Bounded, Call, bound, expansion, kept
from minigraph.testing.bounds.reduction import folded, log_of_sum_rounding, mean_error


@bound(Moments)
def _moments(call: Call) -> Any:
    """Mean μ and variance v of n numbers x = μ + d in two passes (Chan, Golub & LeVeque 1983).

    Operands: v(x + Δ) − v(x) = (2/n) Σ dΔ + v(Δ), because Σ d = 0; |Δ| ≤ E, so at most (2 Σ |d|E + Σ E²)/n.
    Rounding: with the computed mean off by ε, Σ (d − ε)² = Σ d² + nε², again because Σ d = 0. Each of these squares has
    3 roundings, their sum n − 1, and the division 2; n + 6 leaves two to spare.
    """
    x, number = call.operands[0], folded(call, call.op.axes)
    if not number:
        return np.inf, np.inf
    errors, sizes = (np.add.reduce(a, axis=call.op.axes) for a in (x.error, x.reach))
    mean = mean_error(call, errors, sizes, number)
    own = mean_error(call, 0.0, sizes, number)
    shape = tuple(1 if i in call.op.axes else s for i, s in enumerate(x.value.shape))
    wide, center = (np.asarray(a).reshape(shape) for a in (mean, call.value[0]))
    distance = np.abs(x.value - center) + x.error + wide
    operand = np.add.reduce(2.0 * distance * x.error + x.error**2, axis=call.op.axes) / number
    size = kept(call.value[1] + 2.0 * operand + own**2, sizes > 0)
    overflow = np.where(np.isfinite(call.rounding(size * number, 1)), 0.0, np.inf)
    return mean, operand + own**2 + call.rounding(size, number + 6) + overflow


@bound(BatchNorm)
def _batch_norm(call: Call) -> Any:
    """γ·(x − μ)·r + β, r = 1/√(v + ε): the operands' errors one after the other, and 12 roundings.

    They are of |γr|·(|x| + |μ|) + |β|, which is what x·s + t with s = γr, t = β − μ·s is made of: there x − μ is never
    computed, and a large mean cancels late. s has up to 9 roundings (an r of 2 ulps among them), then come a product,
    a difference and a sum.
    """
    x = call.operands[0]
    axis = normalize_axis(call.op.axis, x.value.ndim)
    shape = [-1 if i == axis else 1 for i in range(x.value.ndim)]
    gamma, beta, mean, variance = (_reshaped(operand, shape) for operand in call.operands[1:])
    least = variance.low + call.op.epsilon - call.unit.stored(call.op.epsilon)
    r = np.where(least > 0, np.maximum(least, 0.0) ** -0.5, np.inf)
    r_error = 0.5 * r**3 * (variance.error + call.unit.stored(call.op.epsilon))
    scale, scale_error = kept(gamma.reach * r, gamma.reach > 0), gamma.reach * r_error + r * gamma.error
    distance = np.abs(x.value - mean.value) + 2.0 * (x.error + mean.error)
    operands = distance * scale_error + scale * (x.error + mean.error) + beta.error
    return operands + call.rounding(scale * (x.reach + mean.reach) + beta.reach, 12)


def _reshaped(x: Bounded, shape: list[int]) -> Bounded:
    return Bounded(x.value.reshape(shape), x.error.reshape(shape), x.floor)


@expansion(Dropout)
@expansion(BatchNorm, where=lambda op: op.moving is not None)
def _still_open(node: Node) -> Node:
    """Mode-neutral ops have no value yet."""
    raise GraphError(
        f"a {node.op.name} of a definition has no value: its mode is still open",
        where=node.origin.where,
        hint='lower the graph first: mg.lower(graph, "inference")',
    )


# --- along an axis ----------------------------------------------------------------------------------------------------


@bound(loss.Softmax)
def _softmax(call: Call) -> Any:
    """p·(e^δ − 1) with δ = Eᵢ + max E, since ln pᵢ = xᵢ − ln Σ eˣ; 1 at most.

    Roundings of p: those of the sum, 8 + (max x − xᵢ) of its own exponential, and the quotient.
    """
    x, axis = call.operands[0], call.op.axis
    number = x.value.shape[axis]
    if not number:
        return 0.0
    shift = x.error + x.error.max(axis=axis, keepdims=True)
    operand = np.where(np.isfinite(shift), np.fmin(call.value * np.exp(shift) * np.expm1(shift), 1.0), np.inf)
    most = np.fmin(call.value + 2.0 * operand, 1.0) + call.unit.subnormal
    below = np.fmin(x.high.max(axis=axis, keepdims=True) - x.low, 1e4)  # beyond, the exponential is 0 in any dtype
    many = number + 20 + 10 * math.log(number)
    return operand + call.rounding(most, many) + call.rounding(most * below, 1)


@bound(loss.LogSoftmax)
def _log_softmax(call: Call) -> Any:
    """Eᵢ + max E; the roundings of the sum's logarithm, of the result, and of max |x|."""
    x = call.operands[0]
    return _of_logarithm(call, call.value) if x.value.size else 0.0


def _of_logarithm(call: Call, value: Any) -> Any:
    """Return the error of log_softmax; a term in max |x| is for x − (m + ln Σ eˣ⁻ᵐ), where m may be large."""
    x, axis = call.operands[0], call.op.axis
    operand = x.error + x.error.max(axis=axis, keepdims=True)
    size = np.abs(value) + 2.0 * operand + _largest_finite(x, axis)
    return operand + log_of_sum_rounding(call, x.value.shape[axis]) + call.rounding(size, 2)


def _largest_finite(x: Bounded, axis: int) -> Any:
    """Return max |x| along the axis; a logit of −∞ takes no part, but one that is unbounded makes it ∞."""
    return np.where(np.isneginf(x.value) & (x.error == 0), 0.0, x.reach).max(axis=axis, keepdims=True)


@bound(loss.SoftmaxCrossEntropy)
def _softmax_cross_entropy(call: Call) -> Any:
    """Σ |t|·Ey + |y|·Et with y = log_softmax(x), and n + 1 roundings of Σ |t|·(|y| + max |x|).

    The last term is for Σ t·ln Σ eˣ − Σ t·x. A class of weight 0 costs nothing, even where its logarithm is −∞.
    """
    x, targets = call.operands
    axis, number = call.op.axis, x.value.shape[call.op.axis]
    if not x.value.size:
        return 0.0
    logs = call.evaluate(loss.LogSoftmax(axis), [x.value])
    error = _of_logarithm(call, logs)
    size = np.abs(logs) + 2.0 * error
    operands = np.where(targets.reach > 0, targets.reach * error + size * targets.error, 0.0)
    terms = np.where(targets.reach > 0, targets.reach * (size + _largest_finite(x, axis)), 0.0)
    return operands.sum(axis=axis) + call.rounding(terms.sum(axis=axis), number + 1)
