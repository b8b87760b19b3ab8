"""What can be computed. An op is one frozen dataclass: attributes, shape rule, gradient, cost; a function builds it.

Read `elementwise` first. Every function here takes nodes (numbers become constants) and returns nodes.
"""

from minigraph.ops.activations import (
    elu,
    gelu,
    hard_sigmoid,
    hard_swish,
    leaky_relu,
    relu,
    sigmoid,
    silu,
    softplus,
    tanh,
)
from minigraph.ops.constant import constant
from minigraph.ops.conv import conv2d, conv2d_transpose
from minigraph.ops.elementwise import (
    abs,
    add,
    clip,
    div,
    equal,
    floor,
    greater,
    greater_equal,
    less,
    less_equal,
    maximum,
    minimum,
    mul,
    neg,
    not_equal,
    sign,
    sub,
    where,
)
from minigraph.ops.fused import Fused  # noqa: F401  # a text may hold it before any pass is imported
from minigraph.ops.group import Group  # noqa: F401
from minigraph.ops.indexing import gather, one_hot, pad, slice_
from minigraph.ops.linalg import matmul
from minigraph.ops.loss import cross_entropy_targets, log_softmax, softmax, softmax_cross_entropy
from minigraph.ops.norm import batch_norm, moments
from minigraph.ops.pool import adaptive_avg_pool2d, avg_pool2d, global_avg_pool2d, global_max_pool2d, max_pool2d
from minigraph.ops.random import dropout, random_uniform
from minigraph.ops.real import cos, erf, exp, log, pow, rsqrt, sin, sqrt
from minigraph.ops.reduction import argmax, logsumexp, max, mean, min, sum
from minigraph.ops.region import function
from minigraph.ops.shape import (
    broadcast_to,
    cast,
    concat,
    flatten,
    reshape,
    size,
    split,
    squeeze,
    transpose,
    unsqueeze,
    zeros,
)  # fmt: skip

slice = slice_

__all__ = [
    "abs", "adaptive_avg_pool2d", "add", "argmax", "avg_pool2d", "batch_norm", "broadcast_to", "cast", "clip",
    "concat", "constant", "conv2d", "conv2d_transpose", "cos", "cross_entropy_targets", "div", "dropout", "elu",
    "equal", "erf", "exp", "flatten", "floor", "function", "gather", "gelu", "global_avg_pool2d",
    "global_max_pool2d", "greater", "greater_equal", "hard_sigmoid", "hard_swish", "leaky_relu", "less",
    "less_equal", "log", "log_softmax", "logsumexp", "matmul", "max", "max_pool2d", "maximum", "mean", "min",
    "minimum", "moments", "mul", "neg", "not_equal", "one_hot", "pad", "pow", "random_uniform", "relu", "reshape",
    "rsqrt", "sigmoid", "sign", "silu", "sin", "size", "slice", "softmax", "softmax_cross_entropy", "softplus",
    "split", "sqrt", "squeeze", "sub", "sum", "tanh", "transpose", "unsqueeze", "where", "zeros",
]  # fmt: skip
