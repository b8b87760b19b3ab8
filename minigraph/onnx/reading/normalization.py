"""Normalisations and dropout."""

from __future__ import annotations

import numpy as np

from minigraph import ops
from minigraph.errors import ModelFormatError
from minigraph.ir.leaves import Variable
from minigraph.ir.node import Node
from minigraph.ir.types import known, normalize_axis
from minigraph.onnx.reader import Reader
from minigraph.onnx.reading.registry import reads
from minigraph.ops.norm import BatchNorm, Moving


@reads("BatchNormalization", whole=False)
def batch_normalization(n: Reader) -> list[Node | None]:
    """γ·(x − mean)/√(variance + ε) + β with the statistics given; in training mode with the batch's own.

    Momentum is the weight of the old value here as there, and the variance is biased (BATCHNORM conventions of ONNX).
    """
    x = n.operand(0)
    if x.rank < 2:
        raise ModelFormatError("a batch norm needs channels", expected="at least 2 axes", got=x.type)
    epsilon, momentum = n.real("epsilon", 1e-5), n.real("momentum", 0.9)
    if n.version < 9 and not n.integer("spatial", 1):
        return [n.importer.whole(n, [_by_element(n, epsilon)])[0]]
    if _is_training(n):
        return list(n.importer.whole(n, _with_batch_statistics(n, x, epsilon, momentum)))
    operands = [n.parameter(i) for i in range(1, 5)]
    dtype = _widest(x, *operands)
    wide = [ops.cast(o, dtype) for o in (x, *operands)]
    averages = all(isinstance(o.op, Variable) for o in operands[2:])
    kept = Moving(momentum) if averages and all(o is w for o, w in zip(operands, wide[1:], strict=True)) else None
    return [ops.cast(Node(BatchNorm(1, epsilon, kept), wide), x.dtype)]


def _widest(*operands: Node) -> str:
    """Return the dtype that holds those of all operands: statistics may have more digits than data, or fewer."""
    return str(np.result_type(*(np.dtype(operand.dtype) for operand in operands)))


def _is_training(n: Reader) -> bool:
    """Tell the mode: an attribute, or before opset 14 the number of results, or before opset 7 another attribute."""
    if n.version >= 14:
        return bool(n.integer("training_mode", 0))
    if n.version < 7:
        return not n.integer("is_test", 0)
    return any(n.wanted(i) for i in range(1, 5))


def _by_element(n: Reader, epsilon: float) -> Node:
    """Return a normalisation with statistics for each element of an image, as opsets before 9 had it."""
    x, gamma, beta, mean, variance = (n.operand(i) for i in range(5))
    return gamma * (x - mean) / ops.sqrt(variance + epsilon) + beta


def _with_batch_statistics(n: Reader, x: Node, epsilon: float, momentum: float) -> list[Node | None]:
    """Return y, the new averages, and before opset 14 the batch's mean and, as ONNX Runtime has it, 1/√(variance + ε).

    Since opset 14 there are always three results, whether they are wanted or not.
    """
    operands = [n.operand(i) for i in range(1, 5)]
    dtype = _widest(x, *operands)
    wide = ops.cast(x, dtype)
    mean, variance = ops.moments(wide, [a for a in range(x.rank) if a != 1])
    gamma, beta, old_mean, old_variance = (ops.cast(o, dtype) for o in operands)
    y = ops.batch_norm(wide, gamma, beta, mean, variance, 1, epsilon)
    averages = [old * momentum + new * (1 - momentum) for old, new in ((old_mean, mean), (old_variance, variance))]
    results: list[Node | None] = [ops.cast(y, x.dtype), *averages]
    if n.version >= 14:
        return results
    results += [mean, ops.rsqrt(variance + epsilon)]
    return [node if n.wanted(i) else None for i, node in enumerate(results)][: len(n.proto.output)]


def _spread(vector: Node, rank: int) -> Node:
    """Return a vector over the channels, aligned at axis 1."""
    return ops.reshape(vector, (*vector.shape, *(1,) * (rank - 2)))


def _normalized(x: Node, axes: list[int], epsilon: float) -> tuple[Node, Node, Node]:
    """Return (x − mean)/√(variance + ε) over some axes, the mean, and 1/√(variance + ε)."""
    mean, variance = ops.moments(x, axes)
    kept = [1 if i in axes else s for i, s in enumerate(x.shape)]
    wide_mean, inverse = ops.reshape(mean, kept), ops.rsqrt(ops.reshape(variance, kept) + epsilon)
    return (x - wide_mean) * inverse, wide_mean, inverse


@reads("InstanceNormalization")
def instance_normalization(n: Reader) -> Node:
    """Each channel of each example normalised over space (Ulyanov et al. 2016)."""
    x, scale, bias = n.operand(0), n.parameter(1), n.parameter(2)
    y = _normalized(x, list(range(2, x.rank)), n.real("epsilon", 1e-5))[0]
    return y * _spread(scale, x.rank) + _spread(bias, x.rank)


@reads("GroupNormalization")
def group_normalization(n: Reader) -> Node:
    """Groups of channels normalised together (Wu & He 2018); before opset 21 with a scale for each group."""
    x, scale, bias, groups = n.operand(0), n.parameter(1), n.parameter(2), n.integer("num_groups")
    channels = known(x.shape[1], "the channels")
    if groups < 1 or channels % groups:
        raise ModelFormatError("groups do not divide the channels", expected=f"a divisor of {channels}", got=groups)
    apart = (x.shape[0], groups, channels // groups, *x.shape[2:])
    y = _normalized(ops.reshape(x, apart), list(range(2, x.rank + 1)), n.real("epsilon", 1e-5))[0]
    if scale.shape != (channels,):
        y = y * _spread(scale, x.rank + 1) + _spread(bias, x.rank + 1)
        return ops.reshape(y, x.shape)
    return ops.reshape(y, x.shape) * _spread(scale, x.rank) + _spread(bias, x.rank)


@reads("LayerNormalization")
def layer_normalization(n: Reader) -> list[Node | None]:
    """All axes from `axis` on normalised (Ba et al. 2016), in float32 at least."""
    x, scale, bias = n.operand(0), n.parameter(1), None if n.optional(2) is None else n.parameter(2)
    axis = normalize_axis(n.integer("axis", -1), x.rank)
    wide = ops.cast(x, "float32") if x.dtype == "float16" and n.integer("stash_type", 1) == 1 else x
    y, mean, inverse = _normalized(wide, list(range(axis, x.rank)), n.real("epsilon", 1e-5))
    y = ops.cast(y, x.dtype) * scale
    results: list[Node | None] = [y if bias is None else y + bias, mean, inverse]
    return [node if n.wanted(i) else None for i, node in enumerate(results)]


@reads("LpNormalization")
def lp_normalization(n: Reader) -> Node:
    """x divided by its norm along an axis: Σ |x|, or √Σ x²; 0 where that is 0."""
    x, p = n.operand(0), n.integer("p", 2)
    if p not in (1, 2):
        raise ModelFormatError("no such norm", expected="1 or 2", got=p)
    axis = normalize_axis(n.integer("axis", -1), x.rank)
    norm = ops.sqrt(ops.sum(x * x, axis, True)) if p == 2 else ops.sum(ops.abs(x), axis, True)
    return ops.where(ops.equal(norm, 0.0), 0.0, x / norm)


@reads("LRN")
def local_response_normalization(n: Reader) -> Node:
    """x / (bias + α·mean of x² over the neighbouring channels)^β (Krizhevsky et al. 2012)."""
    x, size = n.operand(0), n.integer("size")
    batch, channels, *rest = x.shape
    total = 1
    for each in rest:
        total = each * total  # type: ignore[assignment]
    column = ops.reshape(x * x, (batch, 1, channels, total))
    window = ((size - 1) // 2, size // 2), (0, 0)
    mean = ops.avg_pool2d(column, (size, 1), 1, window, 1, "NCHW", count_padding=True)
    base = n.real("bias", 1.0) + n.real("alpha", 1e-4) * ops.reshape(mean, x.shape)
    return x / ops.pow(base, n.real("beta", 0.75))


@reads("Dropout")
def dropout(n: Reader) -> list[Node | None]:
    """Nothing in inference; a definition keeps it as dropout, so that it can be trained."""
    x = n.operand(0)
    ratio = n.real("ratio", 0.5) if n.version < 12 else 0.5
    if n.version >= 12 and n.optional(1) is not None:
        ratio = float(n.constant(1, "the ratio").ravel()[0])
    active = n.version >= 12 and n.optional(2) is not None and bool(n.constant(2, "training_mode").ravel()[0])
    if active and ratio:
        raise ModelFormatError(
            "a dropout that drops in inference is not supported", expected="training_mode false", got=f"ratio {ratio}",
            hint="Model.fit drops out by itself when it trains",
        )  # fmt: skip
    if not 0 <= ratio < 1:
        raise ModelFormatError("bad ratio", expected="0 ≤ ratio < 1", got=ratio)
    if not n.wanted(1):
        return [ops.dropout(x, ratio) if ratio and not active else x]
    dtype = x.dtype if n.version < 10 else "bool"
    return [x, ops.broadcast_to(ops.cast(ops.constant(1.0, "float32"), dtype), x.shape)]
