"""PyTorch's `torch.nn.functional` in terms of minigraph's ops: activations, windows, norms, losses.

As in `torch_ops`, each function takes the call first.
"""

from __future__ import annotations

import math

import numpy as np
from torch_ops import axes_of, batched, channelwise, clamp, number_of, op, pair, reduced
from torch_promotion import promoted

from minigraph import ops
from minigraph.ir import Node
from minigraph.ir.types import is_float
from minigraph.ops.norm import BatchNorm, Moving
from minigraph.ops.pool import MaxPool2DSelect

NCHW = "NCHW"


# --- activations --------------------------------------------------------------------------------------------------


@op("nn.functional.relu")
def relu(call, input, inplace=False):
    return ops.relu(input)


@op("nn.functional.leaky_relu")
def leaky_relu(call, input, negative_slope=0.01, inplace=False):
    return ops.leaky_relu(input, negative_slope)


@op("nn.functional.elu")
def elu(call, input, alpha=1.0, inplace=False):
    return ops.elu(input, alpha)


@op("nn.functional.selu")
def selu(call, input, inplace=False):
    return 1.0507009873554804934193349852946 * ops.elu(input, 1.6732632423543772848170429916717)


@op("nn.functional.gelu")
def gelu(call, input, *, approximate="none"):
    return ops.gelu(input, approximate == "tanh")


@op("nn.functional.silu")
def silu(call, input, inplace=False):
    return ops.silu(input)


@op("nn.functional.mish")
def mish(call, input, inplace=False):
    return input * ops.tanh(ops.softplus(input))


@op("nn.functional.hardswish")
def hardswish(call, input, inplace=False):
    return ops.hard_swish(input)


@op("nn.functional.hardsigmoid")
def hardsigmoid(call, input, inplace=False):
    return ops.hard_sigmoid(input)


@op("nn.functional.hardtanh")
def hardtanh(call, input, min_val=-1.0, max_val=1.0, inplace=False):
    """Unlike clamp, no gradient at the limits."""
    return ops.where(input <= min_val, min_val, ops.where(input >= max_val, max_val, input))


@op("nn.functional.relu6")
def relu6(call, input, inplace=False):
    return hardtanh(call, input, 0.0, 6.0)


@op("nn.functional.softplus")
def softplus(call, input, beta=1.0, threshold=20.0):
    wide = input * float(beta)
    return ops.where(wide > float(threshold), input, ops.softplus(wide) / float(beta))


@op("nn.functional.softsign")
def softsign(call, input):
    return input / (1.0 + ops.abs(input))


@op("nn.functional.logsigmoid")
def logsigmoid(call, input):
    return -ops.softplus(-input)


@op("nn.functional.prelu")
def prelu(call, input, weight):
    slope = ops.reshape(weight, ()) if number_of(weight) == 1 else channelwise(weight, input.rank)
    return ops.where(input > 0.0, input, slope * input)


@op("nn.functional.dropout")
def dropout(call, input, p=0.5, training=True, inplace=False):
    """Only what no chance decides."""
    if training and 0 < p < 1:
        raise NotImplementedError("dropout draws other numbers")
    call.training = training
    return input * 0.0 if training and p == 1 else ops.dropout(input, 0.0 if p == 1 else p)


# --- windows ------------------------------------------------------------------------------------------------------


@op("nn.functional.conv2d")
def conv2d(call, input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    pads = padding if isinstance(padding, str) else pair(padding)
    window = {"strides": pair(stride), "padding": pads, "dilations": pair(dilation), "groups": groups, "layout": NCHW}
    return batched(lambda x: biased(ops.conv2d(x, weight, **window), bias), input)


def biased(x, bias):
    return x if bias is None else x + channelwise(bias, x.rank)


@op("nn.functional.conv_transpose2d")
def conv_transpose2d(call, input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    pads, extra, strides = pair(padding), pair(output_padding), pair(stride)
    window = {"strides": strides, "dilations": pair(dilation), "groups": groups, "layout": NCHW}
    if all(e < s for e, s in zip(extra, strides, strict=True)):
        y = batched(lambda x: ops.conv2d_transpose(x, weight, padding=pads, output_padding=extra, **window), input)
    else:
        # minigraph has no output padding ≥ stride; what it adds is cropped less at the end, and zeros after that.
        uneven = [(p, max(p - e, 0)) for p, e in zip(pads, extra, strict=True)]
        zeros = [(0, max(e - p, 0)) for p, e in zip(pads, extra, strict=True)]
        y = batched(lambda x: ops.conv2d_transpose(x, weight, padding=uneven, **window), input)
        y = ops.pad(y, [(0, 0)] * (y.rank - 2) + zeros)
    return batched(lambda x: biased(x, bias), y)


@op("nn.functional.max_pool2d")
def max_pool2d(
    call, input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False
):  # fmt: skip
    size = pair(kernel_size)
    window = (size, pair(stride, size), pair(padding), pair(dilation), NCHW, ceil_mode)
    pooled = batched(lambda x: ops.max_pool2d(x, *window), input)
    return [pooled, batched(lambda x: max_indices(x, window), input)] if return_indices else pooled


def max_indices(x, window):
    """Return where in H·W the largest element of each window lies."""
    wide = ops.cast(x, "float64")  # holds all indices exactly
    places = np.arange(number_of(x, (2, 3)), dtype=np.float64).reshape(x.shape[2:])
    like = ops.max_pool2d(wide, *window).op
    select = MaxPool2DSelect(like.size, like.strides, like.padding, like.dilations, like.layout)
    return ops.cast(Node(select, (wide, ops.broadcast_to(ops.constant(places), x.shape))), "int64")


@op("nn.functional.avg_pool2d")
def avg_pool2d(
    call, input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
):  # fmt: skip
    size = pair(kernel_size)
    strides = pair(stride, size)

    def pool(x):
        y = ops.avg_pool2d(x, size, strides, pair(padding), 1, NCHW, count_include_pad, ceil_mode)
        if divisor_override is None:
            return y
        zeros = ops.pad(x, ((0, 0), (0, 0), *y.op.window.pads(x.shape[2:])))
        return ops.avg_pool2d(zeros, size, strides, layout=NCHW) * (math.prod(size) / divisor_override)

    return batched(pool, input)


@op("nn.functional.adaptive_avg_pool2d")
def adaptive_avg_pool2d(call, input, output_size):
    sizes = (output_size,) * 2 if output_size is None or isinstance(output_size, int) else pair(output_size)
    sizes = [s if o is None else o for s, o in zip(input.shape[-2:], sizes, strict=True)]
    return batched(lambda x: ops.adaptive_avg_pool2d(x, sizes, NCHW), input)


def linear_map(x, axis, matrix):
    """Return x with a constant matrix applied along an axis."""
    order = [i for i in range(x.rank) if i != axis] + [axis]
    y = ops.matmul(ops.transpose(x, order), ops.constant(matrix.T.astype(x.dtype)))
    return ops.transpose(y, np.argsort(order).tolist())


@op("nn.functional.interpolate")
def interpolate(
    call, input, size=None, scale_factor=None, mode="nearest", align_corners=None, recompute_scale_factor=None,
    antialias=False,
):  # fmt: skip
    if antialias or mode not in INTERPOLATION:
        raise NotImplementedError(f"interpolate by {mode}, antialias={antialias}")
    x, n = input, input.rank - 2
    scales = [None] * n
    if size is None:
        scales = list(scale_factor) if isinstance(scale_factor, (list, tuple)) else [scale_factor] * n
        size = [math.floor(s * f) for s, f in zip(x.shape[2:], scales, strict=True)]
        scales = [None] * n if recompute_scale_factor else scales
    sizes = (size,) * n if isinstance(size, int) else size
    for axis, (target, scale) in enumerate(zip(sizes, scales, strict=True), 2):
        step = np.float32(step_between(x.shape[axis], target, scale, mode, n, align_corners))
        x = INTERPOLATION[mode](x, axis, target, step, bool(align_corners))
    return x


def step_between(source, target, scale, mode, n, align_corners):
    """Return how far apart results lie in the source; some sizes override the scale that led to them."""
    if align_corners:
        return (source - 1) / (target - 1) if target > 1 else 0.0
    kept = target == source and "linear" in mode
    if n > 1 and mode == "nearest":
        kept = target in (source, 2 * source)
    return source / target if kept or not scale else 1 / scale


def nearest(offset):
    def take(x, axis, target, step, align_corners):
        places = np.floor((np.arange(target, dtype=np.float32) + np.float32(offset)) * step).astype(np.int64)
        return ops.gather(x, ops.constant(np.minimum(places, x.shape[axis] - 1)), axis)

    return take


def kernel(weights, clamped):
    """Return an interpolation whose taps, from `first` on, have the given weights at a fraction t."""

    def apply(x, axis, target, step, align_corners):
        size = x.shape[axis]
        at = np.arange(target) * step if align_corners else (np.arange(target) + 0.5) * step - 0.5
        at = np.maximum(at, 0) if clamped else at
        low = np.floor(at).astype(np.int64)
        matrix = np.zeros((target, size))
        taps = weights(at - low)
        for i, weight in enumerate(taps):
            np.add.at(matrix, (np.arange(target), np.clip(low + i - (len(taps) // 2 - 1), 0, size - 1)), weight)
        return linear_map(x, axis, matrix)

    return apply


def cubic(t, a=-0.75):
    """Keys' cubic convolution: the weights of the four neighbours."""
    near = [((a + 2) * d - (a + 3)) * d * d + 1 for d in (t, 1 - t)]
    far = [((a * d - 5 * a) * d + 8 * a) * d - 4 * a for d in (t + 1, 2 - t)]
    return far[0], *near, far[1]


LINEAR = kernel(lambda t: (1 - t, t), clamped=True)
INTERPOLATION = {
    "nearest": nearest(0.0),
    "nearest-exact": nearest(0.5),
    "linear": LINEAR,
    "bilinear": LINEAR,
    "trilinear": LINEAR,
    "bicubic": kernel(cubic, clamped=False),
}


# --- norms --------------------------------------------------------------------------------------------------------


def standardised(x, axes, eps):
    """Return (x − mean)/√(variance + ε) over the axes."""
    mean, variance = (ops.unsqueeze(m, axes) for m in ops.moments(x, axes))
    return (x - mean) * ops.rsqrt(variance + eps)


def affine(x, weight, bias):
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


@op("nn.functional.layer_norm")
def layer_norm(call, input, normalized_shape, weight=None, bias=None, eps=1e-5):
    axes = tuple(range(input.rank - len(normalized_shape), input.rank))
    return affine(standardised(input, axes, eps), weight, bias)


@op("nn.functional.group_norm")
def group_norm(call, input, num_groups, weight=None, bias=None, eps=1e-5):
    batch, channels, *inside = input.shape
    x = ops.reshape(input, (batch, num_groups, channels // num_groups * math.prod(inside)))
    return channel_affine(ops.reshape(standardised(x, (2,), eps), input.shape), weight, bias)


def channel_affine(x, weight, bias):
    return affine(x, *(None if v is None else channelwise(v, x.rank) for v in (weight, bias)))


@op("nn.functional.instance_norm")
def instance_norm(
    call, input, running_mean=None, running_var=None, weight=None, bias=None, use_input_stats=True, momentum=0.1,
    eps=1e-5,
):  # fmt: skip
    if not use_input_stats:
        return batch_norm(call, input, running_mean, running_var, weight, bias, eps=eps)
    axes = tuple(range(2, input.rank))
    if running_mean is not None:
        m = number_of(input, axes)
        mean, variance = (ops.mean(v, 0) for v in ops.moments(input, axes))
        average(call, running_mean, mean, momentum)
        average(call, running_var, variance * (m / (m - 1)), momentum)
    return channel_affine(standardised(input, axes, eps), weight, bias)


def average(call, target, value, momentum):
    call.updates[target] = target * (1.0 - momentum) + value * float(momentum)


@op("nn.functional.batch_norm")
def batch_norm(
    call, input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5, count=None
):  # fmt: skip
    """Lowering makes running statistics updates; `count` counts batches for a cumulative average (momentum None)."""
    ones = ops.constant(np.ones(input.shape[1], input.dtype))
    gamma, beta = ones if weight is None else weight, ones * 0.0 if bias is None else bias
    call.training = training
    if not training:
        return ops.batch_norm(input, gamma, beta, running_mean, running_var, 1, eps)
    if number_of(input) == 0:  # no batch: minigraph refuses it, PyTorch leaves the averages alone
        return ops.batch_norm(input, gamma, beta, ones * 0.0, ones, 1, eps)
    axes = (0, *range(2, input.rank))
    if running_mean is not None and momentum is not None and not 0 <= momentum <= 1:  # PyTorch extrapolates
        m, (mean, variance) = number_of(input, axes), ops.moments(input, axes)
        average(call, running_mean, mean, momentum)
        average(call, running_var, variance * (m / (m - 1)), momentum)
        running_mean = None
    if running_mean is None:
        return ops.batch_norm(input, gamma, beta, *ops.moments(input, axes), 1, eps)
    old_weight = 1.0 if momentum is None else 1.0 - momentum  # PyTorch's momentum is the weight of the new value
    moving = Moving(old_weight, unbiased=True, cumulative=momentum is None)
    statistics = (running_mean, running_var) + ((count,) if momentum is None else ())
    return Node(BatchNorm(1, float(eps), moving), (input, gamma, beta, *statistics))


@op("nn.functional.local_response_norm")
def local_response_norm(call, input, size, alpha=1e-4, beta=0.75, k=1.0):
    """Channel c is divided by the mean square of `size` channels around it, from c − size//2 on."""
    channels = input.shape[1]
    distance = np.arange(channels) - np.arange(channels)[:, None]
    band = (distance >= -(size // 2)) & (distance < size - size // 2)
    return input / (linear_map(input * input, 1, band / size) * float(alpha) + float(k)) ** float(beta)


@op("nn.functional.normalize")
def normalize(call, input, p=2.0, dim=1, eps=1e-12):
    return input / clamp(call, norm(input, float(p), axes_of(dim, input.rank)), float(eps))


def norm(x, p, axes):
    """Return the p-norm over axes, which stay; its gradient at 0 is 0."""
    size = ops.abs(x)
    if p == 0:
        return ops.sum(ops.cast(ops.not_equal(x, 0.0), x.dtype), axes, keepdims=True)
    if math.isinf(p):
        return (ops.max if p > 0 else ops.min)(size, axes, keepdims=True)
    if p == 1:
        return ops.sum(size, axes, keepdims=True)
    return safe(lambda s: s ** (1.0 / p), ops.sum(safe(lambda a: a**p, size, p), axes, keepdims=True), p)


def safe(function, x, p):
    """Apply a power with function(0) = 0 (∞ for p < 0) and no gradient at 0."""
    zero = ops.equal(x, 0.0)
    return ops.where(zero, 0.0 if p > 0 else math.inf, function(ops.where(zero, 1.0, x)))


# --- losses -------------------------------------------------------------------------------------------------------


def class_axis(x):
    return min(1, x.rank - 1)


def labels_in(target, ignore_index):
    """Return the index to ignore where the labels' dtype can hold it."""
    return None if ignore_index < 0 and target.dtype.startswith("u") else ignore_index


def weight_sum(logits, target, weight, ignore_index):
    """Return the sum of the weights of the labels that count: what a mean over integer labels divides by."""
    return ops.sum(ops.cross_entropy_targets(logits, target, class_axis(logits), weight, ignore_index))


@op("nn.functional.cross_entropy")
def cross_entropy(
    call, input, target, weight=None, size_average=None, ignore_index=-100, reduce=None, reduction="mean",
    label_smoothing=0.0,
):  # fmt: skip
    axis = class_axis(input)
    soft = is_float(target.dtype)
    ignored = None if soft else labels_in(target, ignore_index)
    loss = ops.softmax_cross_entropy(input, target, axis, weight, ignored, label_smoothing)
    count = None if soft else weight_sum(input, target, weight, ignored)
    return reduced(loss, reduction, size_average, reduce, count)


@op("nn.functional.nll_loss")
def nll_loss(
    call, input, target, weight=None, size_average=None, ignore_index=-100, reduce=None, reduction="mean"
):  # fmt: skip
    axis, ignored = class_axis(input), labels_in(target, ignore_index)
    targets = ops.cross_entropy_targets(input, target, axis, weight, ignored)
    loss = -ops.sum(ops.where(ops.equal(targets, 0.0), 0.0, targets * input), axis)  # 0·(−∞) = 0
    return reduced(loss, reduction, size_average, reduce, ops.sum(targets))


def difference(input, target):
    x, y = promoted(input, target)
    return x - y


def weighted(losses, weight, reduction, size_average=None, reduce=None):
    """Reduce weighted losses; a mean is the weighted one."""
    if weight is None:
        return reduced(losses, reduction, size_average, reduce)
    return reduced(losses * weight, reduction, size_average, reduce, ops.sum(weight))


@op("nn.functional.mse_loss")
def mse_loss(call, input, target, size_average=None, reduce=None, reduction="mean", weight=None):
    d = difference(input, target)
    return weighted(d * d, weight, reduction, size_average, reduce)


@op("nn.functional.l1_loss")
def l1_loss(call, input, target, size_average=None, reduce=None, reduction="mean", weight=None):
    return weighted(ops.abs(difference(input, target)), weight, reduction, size_average, reduce)


@op("nn.functional.smooth_l1_loss")
def smooth_l1_loss(call, input, target, size_average=None, reduce=None, reduction="mean", beta=1.0):
    if beta == 0:
        return l1_loss(call, input, target, size_average, reduce, reduction)
    d = difference(input, target)
    size = ops.abs(d)
    losses = ops.where(size < float(beta), d * d * (0.5 / beta), size - 0.5 * beta)
    return reduced(losses, reduction, size_average, reduce)


@op("nn.functional.huber_loss")
def huber_loss(call, input, target, reduction="mean", delta=1.0, weight=None):
    """Unlike that of the losses above, its mean is that of the weighted losses."""
    d = difference(input, target)
    size = ops.abs(d)
    losses = ops.where(size <= float(delta), d * d * 0.5, (size - 0.5 * delta) * float(delta))
    return reduced(losses if weight is None else losses * weight, reduction)


@op("nn.functional.binary_cross_entropy_with_logits")
def binary_cross_entropy_with_logits(
    call, input, target, weight=None, size_average=None, reduce=None, reduction="mean", pos_weight=None
):  # fmt: skip
    positive = 1.0 if pos_weight is None else (pos_weight - 1.0) * target + 1.0
    loss = (1.0 - target) * input + positive * ops.softplus(-input)
    return reduced(loss if weight is None else loss * weight, reduction, size_average, reduce)
