"""PyTorch's modules: a constructor each, with PyTorch's parameters; it returns the forward function.

The arrays that a module owns come from the call, under the names of its state dict.
"""

from __future__ import annotations

import torch_functional as F
from torch_ops import OPS, linear, log_softmax, pad, pair, softmax

from minigraph import ops

MODULES = {}


def module(function):
    """Register a constructor under its own name."""
    MODULES[f"nn.{function.__name__}"] = function
    return function


def same_arguments(name):
    """Return a constructor that takes what the operator takes after its tensors."""

    def constructor(call, *args, **kwargs):
        return lambda *tensors, **named: OPS[f"nn.functional.{name}"](call, *tensors, *args, **kwargs, **named)

    return constructor


MODULES["nn.ReLU"] = same_arguments("relu")
MODULES["nn.LeakyReLU"] = same_arguments("leaky_relu")
MODULES["nn.SiLU"] = same_arguments("silu")
MODULES["nn.Hardswish"] = same_arguments("hardswish")
MODULES["nn.ReLU6"] = same_arguments("relu6")
MODULES["nn.Softplus"] = same_arguments("softplus")
MODULES["nn.ELU"] = same_arguments("elu")
MODULES["nn.AvgPool2d"] = same_arguments("avg_pool2d")
MODULES["nn.AdaptiveAvgPool2d"] = same_arguments("adaptive_avg_pool2d")
MODULES["nn.CrossEntropyLoss"] = same_arguments("cross_entropy")
MODULES["nn.NLLLoss"] = same_arguments("nll_loss")
MODULES["nn.MSELoss"] = same_arguments("mse_loss")
MODULES["nn.BCEWithLogitsLoss"] = same_arguments("binary_cross_entropy_with_logits")
MODULES["nn.LocalResponseNorm"] = same_arguments("local_response_norm")
MODULES["nn.Sigmoid"] = lambda call: lambda input: ops.sigmoid(input)
MODULES["nn.Tanh"] = lambda call: lambda input: ops.tanh(input)


@module
def GELU(call, approximate="none"):
    return lambda input: F.gelu(call, input, approximate=approximate)


@module
def PReLU(call, num_parameters=1, init=0.25, device=None, dtype=None):
    return lambda input: F.prelu(call, input, call.parameters["weight"])


def _implicit_dim(input):
    return 0 if input.rank in (0, 1, 3) else 1


@module
def Softmax(call, dim=None):
    return lambda input: softmax(call, input, _implicit_dim(input) if dim is None else dim)


@module
def LogSoftmax(call, dim=None):
    return lambda input: log_softmax(call, input, _implicit_dim(input) if dim is None else dim)


@module
def Linear(call, in_features, out_features, bias=True, device=None, dtype=None):
    return lambda input: linear(call, input, call.parameters["weight"], call.parameters.get("bias"))


@module
def Conv2d(
    call, in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, bias=True,
    padding_mode="zeros", device=None, dtype=None,
):  # fmt: skip
    def forward(input):
        weight, shift = call.parameters["weight"], call.parameters.get("bias")
        if padding_mode == "zeros":
            return F.conv2d(call, input, weight, shift, stride, padding, dilation, groups)
        extents = [d * (k - 1) for d, k in zip(pair(dilation), weight.shape[2:], strict=True)]
        if isinstance(padding, str):
            pairs = [(e // 2, e - e // 2) if padding == "same" else (0, 0) for e in extents]
        else:
            pairs = [(p, p) for p in pair(padding)]
        padded = pad(call, input, (*pairs[1], *pairs[0]), padding_mode)
        return F.conv2d(call, padded, weight, shift, stride, 0, dilation, groups)

    return forward


@module
def ConvTranspose2d(
    call, in_channels, out_channels, kernel_size, stride=1, padding=0, output_padding=0, groups=1, bias=True,
    dilation=1, padding_mode="zeros", device=None, dtype=None,
):  # fmt: skip
    def forward(input, output_size=None):
        weight, shift, extra = call.parameters["weight"], call.parameters.get("bias"), output_padding
        if output_size is not None:
            smallest = F.conv_transpose2d(call, input, weight, None, stride, padding, 0, groups, dilation).shape
            extra = [w - s for w, s in zip(output_size[-2:], smallest[-2:], strict=True)]
        return F.conv_transpose2d(call, input, weight, shift, stride, padding, extra, groups, dilation)

    return forward


@module
def MaxPool2d(call, kernel_size, stride=None, padding=0, dilation=1, return_indices=False, ceil_mode=False):
    return lambda input: F.max_pool2d(call, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


@module
def LayerNorm(call, normalized_shape, eps=1e-5, elementwise_affine=True, bias=True, device=None, dtype=None):
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else normalized_shape
    return lambda input: F.layer_norm(
        call, input, shape, call.parameters.get("weight"), call.parameters.get("bias"), eps
    )


@module
def GroupNorm(call, num_groups, num_channels, eps=1e-5, affine=True, device=None, dtype=None, *, bias=True):
    return lambda input: F.group_norm(
        call, input, num_groups, call.parameters.get("weight"), call.parameters.get("bias"), eps
    )


def _batch_norm(
    call, num_features, eps=1e-5, momentum=0.1, affine=True, track_running_stats=True, device=None, dtype=None, *,
    bias=True,
):  # fmt: skip
    def forward(input):
        own, training = call.parameters, call.training or not track_running_stats
        count = None
        if call.training and track_running_stats:
            batches = own["num_batches_tracked"]
            call.updates[batches] = batches + 1
            if momentum is None:  # minigraph counts in floats: a variable of its own
                count = call.variable("batches", call.values[batches.label].astype(input.dtype))
        return F.batch_norm(
            call, input, own.get("running_mean"), own.get("running_var"), own.get("weight"), own.get("bias"), training,
            momentum, eps, count,
        )  # fmt: skip

    return forward


MODULES["nn.BatchNorm1d"] = MODULES["nn.BatchNorm2d"] = MODULES["nn.BatchNorm3d"] = _batch_norm


@module
def InstanceNorm2d(
    call, num_features, eps=1e-5, momentum=0.1, affine=False, track_running_stats=False, device=None, dtype=None, *,
    bias=True,
):  # fmt: skip
    own, from_input = call.parameters, call.training or not track_running_stats

    def forward(x):
        return F.instance_norm(
            call, x, own.get("running_mean"), own.get("running_var"), own.get("weight"), own.get("bias"), from_input,
            momentum, eps,
        )  # fmt: skip

    return lambda input: F.batched(forward, input)


def _pad2d(mode):
    def constructor(call, padding, value=0.0):
        pads = (padding,) * 4 if isinstance(padding, int) else padding
        return lambda input: pad(call, input, pads, mode, value)

    return constructor


MODULES["nn.ConstantPad2d"] = _pad2d("constant")
MODULES["nn.ReflectionPad2d"] = _pad2d("reflect")
MODULES["nn.ReplicationPad2d"] = _pad2d("replicate")
