"""PyTorch's operators in terms of minigraph's: one function each, with PyTorch's parameter names and defaults.

Each function takes the call first (see `torch_adapter.Call`): only what has a mode or updates something reads it.
"""

from __future__ import annotations

import math

import numpy as np
from torch_promotion import node, promoted, promoted_floats, result_dtype, torch_dtype

from minigraph import ops
from minigraph.ir import Node
from minigraph.ir.types import is_float

OPS = {}


def op(*names):
    """Register a function as these operators."""

    def register(function):
        OPS.update(dict.fromkeys(names, function))
        return function

    return register


# --- arguments ----------------------------------------------------------------------------------------------------


def pair(value, default=None):
    """Return (height, width) of an integer, one or two integers; nothing given means the default."""
    values = (value,) if isinstance(value, int) else tuple(value or ())
    return values * 2 if len(values) == 1 else values or default


def axis_of(dim, rank):
    return dim % max(rank, 1)


def axes_of(dim, rank):
    """Return the axes that `dim` names: None and () are all of them; a scalar has an axis 0 in name only."""
    if dim is None or dim == ():
        return tuple(range(rank))
    named = (dim,) if isinstance(dim, int) else dim
    return tuple(axis_of(d, rank) for d in named) if rank else ()


def size_of(*sizes):
    """Return sizes that are given one by one or as one sequence."""
    return tuple(sizes[0]) if len(sizes) == 1 and not isinstance(sizes[0], int) else tuple(sizes)


def number_of(x, axes=None):
    return math.prod(x.shape if axes is None else (x.shape[a] for a in axes))


def as_vector(x):
    """Return a scalar as a vector of one element."""
    return ops.reshape(x, (1,)) if x.rank == 0 else x


def batched(function, x):
    """Apply a function of N,C,H,W to C,H,W too."""
    if x.rank == 4:
        return function(x)
    result = function(ops.unsqueeze(x, 0))
    return ops.squeeze(result, 0) if isinstance(result, Node) else [ops.squeeze(r, 0) for r in result]


def channelwise(vector, rank):
    """Return a vector over channels, shaped to meet N,C,…."""
    return ops.reshape(vector, (-1,) + (1,) * (rank - 2)) if vector.rank else vector


def reduced(x, reduction, size_average=None, reduce=None, count=None):
    """Return a loss reduced as PyTorch names it; `count` is what a mean divides by."""
    if size_average is not None or reduce is not None:
        reduction = "none" if reduce is False else "sum" if size_average is False else "mean"
    if reduction == "none":
        return x
    if reduction == "sum":
        return ops.sum(x)
    return ops.mean(x) if count is None else ops.sum(x) / count


# --- arithmetic ---------------------------------------------------------------------------------------------------


def scaled(x, factor):
    return x if factor == 1 else ops.mul(*promoted(x, factor))


@op("add")
def add(call, input, other, *, alpha=1):
    x, y = promoted(input, other)
    return x + scaled(y, alpha)


@op("sub")
def sub(call, input, other, *, alpha=1):
    x, y = promoted(input, other)
    return x - scaled(y, alpha)


@op("mul")
def mul(call, input, other):
    return ops.mul(*promoted(input, other))


@op("div")
def div(call, input, other, *, rounding_mode=None):
    if rounding_mode is not None:
        raise NotImplementedError("div with a rounding mode")
    return ops.div(*promoted_floats(input, other))


@op("pow")
def pow(call, input, exponent):
    return ops.pow(*promoted(input, exponent))


@op("maximum")
def maximum(call, input, other):
    return ops.maximum(*promoted(input, other))


@op("minimum")
def minimum(call, input, other):
    return ops.minimum(*promoted(input, other))


@op("where")
def where(call, input, condition, other):
    """input.where(condition, other)"""
    return ops.where(condition, *promoted(input, other))


@op("clamp")
def clamp(call, input, min=None, max=None):
    """The gradient goes to the input inside the limits, which belong to the inside, else to the limit."""
    dtype = result_dtype(*(x for x in (input, min, max) if x is not None))
    x, lower, upper = (None if v is None else node(v, dtype) for v in (input, min, max))
    if lower is not None:
        x = ops.where(x < lower, lower, x)
    return x if upper is None else ops.where(x > upper, upper, x)


def unary(function):
    return lambda call, input: function(*promoted_floats(input))


OPS.update({name: unary(getattr(ops, name)) for name in ("exp", "log", "sqrt", "rsqrt", "tanh", "sigmoid")})
OPS["reciprocal"] = unary(lambda x: 1.0 / x)
OPS["neg"] = lambda call, input: -input
OPS["abs"] = lambda call, input: ops.abs(input)


# --- matrices -----------------------------------------------------------------------------------------------------


@op("matmul", "mm")
def matmul(call, input, other):
    return ops.matmul(input, other)


@op("addmm")
def addmm(call, input, mat1, mat2, *, beta=1, alpha=1):
    product = scaled(ops.matmul(mat1, mat2), alpha)
    return product if beta == 0 else scaled(input, beta) + product


@op("nn.functional.linear")
def linear(call, input, weight, bias=None):
    y = ops.matmul(input, ops.transpose(weight))
    return y if bias is None else y + bias


# --- reductions ---------------------------------------------------------------------------------------------------


@op("sum")
def sum(call, input, dim=None, keepdim=False, *, dtype=None):
    x = ops.cast(input, torch_dtype(dtype or (input.dtype if is_float(input.dtype) else "int64")))
    return ops.sum(x, axes_of(dim, x.rank), keepdim)


@op("mean")
def mean(call, input, dim=None, keepdim=False, *, dtype=None):
    return ops.mean(ops.cast(input, torch_dtype(dtype or input.dtype)), axes_of(dim, input.rank), keepdim)


@op("amax")
def amax(call, input, dim=(), keepdim=False):
    return ops.max(input, axes_of(dim, input.rank), keepdim)


@op("logsumexp")
def logsumexp(call, input, dim, keepdim=False):
    (x,) = promoted_floats(input)
    return ops.logsumexp(x, axes_of(dim, x.rank), keepdim)


@op("var")
def var(call, input, dim=None, unbiased=True, keepdim=False, *, correction=1):
    if isinstance(dim, bool):  # var(input, unbiased)
        dim, unbiased = None, dim
    correction = 0 if not unbiased else 1 if correction is None else correction
    axes = axes_of(dim, input.rank)
    m = number_of(input, axes)
    variance = ops.moments(input, axes)[1]
    variance = variance * (m / (m - correction) if m > correction else math.inf)
    return ops.unsqueeze(variance, axes) if keepdim else variance


def along(function, x, dim, dtype):
    """Apply a function along one axis, after a conversion that the caller may ask for."""
    x = x if dtype is None else ops.cast(x, torch_dtype(dtype))
    return ops.reshape(function(as_vector(x), axis_of(dim, x.rank)), x.shape)


@op("softmax")
def softmax(call, input, dim, dtype=None):
    return along(ops.softmax, input, dim, dtype)


@op("log_softmax")
def log_softmax(call, input, dim, dtype=None):
    return along(ops.log_softmax, input, dim, dtype)


# --- shapes -------------------------------------------------------------------------------------------------------


@op("reshape")
def reshape(call, input, *shape):
    return ops.reshape(input, size_of(*shape))


@op("flatten")
def flatten(call, input, start_dim=0, end_dim=-1):
    x = as_vector(input)
    start, end = axis_of(start_dim, x.rank), axis_of(end_dim, x.rank)
    return ops.reshape(x, (*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :]))


@op("permute")
def permute(call, input, *dims):
    return ops.transpose(input, size_of(*dims))


@op("transpose")
def transpose(call, input, dim0, dim1):
    order = list(range(input.rank))
    if order:
        order[dim0], order[dim1] = order[dim1], order[dim0]
    return ops.transpose(input, order)


@op("squeeze")
def squeeze(call, input, dim=None):
    """Axes that are named but longer than 1 stay; no axes named by () squeezes none."""
    axes = () if dim == () else axes_of(dim, input.rank)
    return ops.squeeze(input, [a for a in axes if input.shape[a] == 1])


@op("unsqueeze")
def unsqueeze(call, input, dim):
    return ops.unsqueeze(input, dim)


@op("expand")
def expand(call, input, *size):
    sizes = size_of(*size)
    kept = (1,) * (len(sizes) - input.rank) + input.shape
    return ops.broadcast_to(input, [k if s == -1 else s for s, k in zip(sizes, kept, strict=True)])


@op("cat")
def cat(call, tensors, dim=0):
    """Vectors of no elements may stand anywhere, whatever the rank of the others."""
    xs = promoted(*tensors)
    return ops.concat([x for x in xs if x.shape != (0,)] or xs[:1], dim)


@op("split")
def split(call, tensor, split_size_or_sections, dim=0):
    sizes, total = split_size_or_sections, tensor.shape[dim]
    if isinstance(sizes, int):
        sizes = [min(sizes, total - start) for start in range(0, total, sizes)] or [0]
    return ops.split(tensor, sizes, dim)


@op("index_select")
def index_select(call, input, dim, index):
    x = as_vector(input)
    taken = ops.gather(x, as_vector(index), dim)
    return ops.reshape(taken, ()) if input.rank == 0 else taken


@op("gather")
def gather(call, input, dim, index, *, sparse_grad=False):
    """Elements by their place in row-major order: all coordinates but one are those of the index."""
    if number_of(index) == 0:
        return ops.zeros(index.shape, input.dtype)
    x, index_shape = as_vector(input), as_vector(index).shape
    axis, steps = axis_of(dim, x.rank), [math.prod(x.shape[i + 1 :]) for i in range(x.rank)]
    others = np.zeros(index_shape, np.int64)
    for i, places in enumerate(np.indices(index_shape)):
        others += 0 if i == axis else places * steps[i]
    places = ops.reshape(ops.cast(index, "int64"), index_shape) * steps[axis] + ops.constant(others)
    return ops.reshape(ops.gather(ops.reshape(x, (-1,)), places), index.shape)


@op("nn.functional.embedding")
def embedding(
    call, weight, input, padding_idx=None, max_norm=None, norm_type=2.0, scale_grad_by_freq=False, sparse=False
):  # fmt: skip
    """The samples call it with the weight first."""
    if max_norm is not None or scale_grad_by_freq:
        raise NotImplementedError("embedding with max_norm or scale_grad_by_freq")
    rows = ops.gather(weight, input)
    if padding_idx is None:
        return rows
    padding = ops.unsqueeze(ops.equal(input, padding_idx % weight.shape[0]), -1)
    return ops.where(padding, ops.gather(call.detached(weight), input), rows)


@op("nn.functional.pixel_shuffle")
def pixel_shuffle(call, input, upscale_factor):
    *batch, channels, height, width = input.shape
    r, n = upscale_factor, len(batch)
    x = ops.reshape(input, (*batch, channels // r**2, r, r, height, width))
    x = ops.transpose(x, (*range(n), n, n + 3, n + 1, n + 4, n + 2))
    return ops.reshape(x, (*batch, channels // r**2, height * r, width * r))


def around(p, size):
    """Go around what negative padding leaves of an axis."""
    kept = p[(p >= 0) & (p < size)]
    return kept[(p - kept[0]) % kept.size] if kept.size else p


PLACES = {  # where padding takes its elements from
    "reflect": lambda p, size: (size - 1) - np.abs((size - 1) - np.abs(p)),
    "replicate": lambda p, size: np.clip(p, 0, size - 1),
    "circular": around,
}


@op("nn.functional.pad")
def pad(call, input, pad, mode="constant", value=None):
    """Pairs (before, after), the last axis first; negative ones cut off."""
    x, pairs = input, [(0, 0)] * (input.rank - len(pad) // 2) + list(zip(pad[::2], pad[1::2], strict=True))[::-1]
    if mode != "constant":
        for axis, (before, after) in enumerate(pairs):
            if (before, after) != (0, 0):
                places = PLACES[mode](np.arange(-before, x.shape[axis] + after), x.shape[axis])
                x = ops.gather(x, ops.constant(places), axis)
        return x
    inside = [(max(-b, 0), s - max(-a, 0)) for s, (b, a) in zip(x.shape, pairs, strict=True)]
    x = ops.slice(x, [i[0] for i in inside], [i[1] for i in inside])
    return ops.pad(x, [(max(b, 0), max(a, 0)) for b, a in pairs], value or 0.0)
