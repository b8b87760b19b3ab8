"""Convolution layers."""

from __future__ import annotations

from typing import Any

from minigraph import ops
from minigraph.errors import ArgumentError
from minigraph.ir.node import Node
from minigraph.ir.types import known
from minigraph.layers import activations
from minigraph.layers.base import Layer, check_count
from minigraph.ops import window as win
from minigraph.ops.window import NCHW, NHWC

_LAYOUTS = {None: NHWC, "channels_last": NHWC, "channels_first": NCHW}


def layout(data_format: str | None) -> str:
    """Return our name of Keras' data format: "channels_last" (the default) or "channels_first".

    >>> layout("channels_first")
    'NCHW'
    """
    if not isinstance(data_format, str | None) or data_format not in _LAYOUTS:
        raise ArgumentError("bad data_format", expected="'channels_last' or 'channels_first'", got=repr(data_format))
    return _LAYOUTS[data_format]


class _Convolution(Layer):
    """Base: the arguments that all convolutions share, bias and activation."""

    def __init__(
        self, kernel_size: Any, strides: Any, padding: Any, data_format: str | None, dilation_rate: Any,
        activation: Any, use_bias: bool, kernel_initializer: Any, bias_initializer: Any, kernel_regularizer: Any,
        name: str | None,
    ) -> None:  # fmt: skip
        super().__init__(name)
        self.kernel_size = win.pair(kernel_size, "kernel_size")
        self.strides = win.pair(strides, "strides")
        self.padding = win.padding(padding)
        self.layout = layout(data_format)
        self.dilations = win.pair(dilation_rate, "dilation_rate")
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = kernel_initializer
        self.bias_initializer = bias_initializer
        self.kernel_regularizer = kernel_regularizer

    def channels(self, inputs: Node) -> int:
        """Return the channels of the input, or raise: images need four axes."""
        win.spatial(inputs.tensor_type, self.layout)
        return known(win.channels(inputs.tensor_type, self.layout), f"{self.name}: the number of channels")

    def kernel(self, name: str, size: win.Pair, into: int, out: int) -> Node:
        """Return the kernel in the layout's order of axes; the variable is H,W,I,O in both, as in Keras."""
        shape = (*size, into, out)
        kernel = self.variable(name, shape, self.kernel_initializer, regularizer=self.kernel_regularizer)
        return kernel if self.layout == NHWC else ops.transpose(kernel, (3, 2, 0, 1))

    def finish(self, y: Node, filters: int) -> Node:
        """Add the bias and apply the activation."""
        if self.use_bias:
            bias = self.variable("bias", (filters,), self.bias_initializer)
            y = y + (bias if self.layout == NHWC else ops.reshape(bias, (filters, 1, 1)))
        return self.activation(y)


class Conv2D(_Convolution):
    """2-D convolution: N,H,W,I → N,H′,W′,filters.

    >>> from minigraph.ir import variable
    >>> Conv2D(16, 3, strides=2, padding="same", use_bias=False)(variable((1, 8, 8, 3)))
    <conv2d : float32[1,4,4,16]>
    """

    def __init__(
        self, filters: int, kernel_size: Any, strides: Any = 1, padding: Any = "valid", data_format: str | None = None,
        dilation_rate: Any = 1, groups: int = 1, activation: Any = None, use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform", bias_initializer: Any = "zeros", kernel_regularizer: Any = None,
        name: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias, kernel_initializer,
            bias_initializer, kernel_regularizer, name,
        )  # fmt: skip
        self.filters = check_count(filters, "filters")
        self.groups = check_count(groups, "groups")

    def call(self, inputs: Node) -> Node:
        """Convolve, add the bias, apply the activation."""
        kernel = self.kernel("kernel", self.kernel_size, self.channels(inputs) // self.groups, self.filters)
        y = ops.conv2d(inputs, kernel, self.strides, self.padding, self.dilations, self.groups, self.layout)
        return self.finish(y, self.filters)


class DepthwiseConv2D(_Convolution):
    """Convolution of each channel on its own, into `depth_multiplier` channels.

    >>> from minigraph.ir import variable
    >>> DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)(variable((1, 8, 8, 3)))
    <conv2d : float32[1,6,6,6]>
    """

    def __init__(
        self, kernel_size: Any, strides: Any = 1, padding: Any = "valid", depth_multiplier: int = 1,
        data_format: str | None = None, dilation_rate: Any = 1, activation: Any = None, use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform", bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None, name: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias, depthwise_initializer,
            bias_initializer, depthwise_regularizer, name,
        )  # fmt: skip
        self.depth_multiplier = check_count(depth_multiplier, "depth_multiplier")

    def call(self, inputs: Node) -> Node:
        """Convolve, add the bias, apply the activation."""
        return self.finish(self.depthwise(inputs), self.channels(inputs) * self.depth_multiplier)

    def depthwise(self, inputs: Node) -> Node:
        """Return the convolution alone."""
        channels = self.channels(inputs)
        kernel = self.kernel("depthwise_kernel", self.kernel_size, 1, channels * self.depth_multiplier)
        return ops.conv2d(inputs, kernel, self.strides, self.padding, self.dilations, channels, self.layout)


class SeparableConv2D(DepthwiseConv2D):
    """A depthwise convolution, then a 1×1 convolution into `filters` channels (Chollet 2017).

    >>> from minigraph.ir import variable
    >>> SeparableConv2D(16, 3, use_bias=False)(variable((1, 8, 8, 3)))
    <conv2d : float32[1,6,6,16]>
    """

    def __init__(
        self, filters: int, kernel_size: Any, strides: Any = 1, padding: Any = "valid",
        data_format: str | None = None, dilation_rate: Any = 1, depth_multiplier: int = 1, activation: Any = None,
        use_bias: bool = True, depthwise_initializer: Any = "glorot_uniform",
        pointwise_initializer: Any = "glorot_uniform", bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None, pointwise_regularizer: Any = None, name: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            kernel_size, strides, padding, depth_multiplier, data_format, dilation_rate, activation, use_bias,
            depthwise_initializer, bias_initializer, depthwise_regularizer, name,
        )  # fmt: skip
        self.filters = check_count(filters, "filters")
        self.pointwise_initializer = pointwise_initializer
        self.pointwise_regularizer = pointwise_regularizer

    def call(self, inputs: Node) -> Node:
        """Convolve depthwise and pointwise, add the bias, apply the activation."""
        y = self.depthwise(inputs)
        into = self.channels(inputs) * self.depth_multiplier
        pointwise = self.variable(
            "pointwise_kernel",
            (1, 1, into, self.filters),
            self.pointwise_initializer,
            regularizer=self.pointwise_regularizer,
        )
        if self.layout != NHWC:
            pointwise = ops.transpose(pointwise, (3, 2, 0, 1))
        return self.finish(ops.conv2d(y, pointwise, layout=self.layout), self.filters)


class Conv2DTranspose(_Convolution):
    """Transposed convolution: N,H,W,I → N,H·s,W·s,filters for padding "same".

    >>> from minigraph.ir import variable
    >>> Conv2DTranspose(8, 3, strides=2, padding="same", use_bias=False)(variable((1, 4, 4, 16)))
    <conv2d_transpose : float32[1,8,8,8]>
    """

    def __init__(
        self, filters: int, kernel_size: Any, strides: Any = 1, padding: Any = "valid", output_padding: Any = None,
        data_format: str | None = None, dilation_rate: Any = 1, groups: int = 1, activation: Any = None,
        use_bias: bool = True, kernel_initializer: Any = "glorot_uniform", bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None, name: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias, kernel_initializer,
            bias_initializer, kernel_regularizer, name,
        )  # fmt: skip
        self.filters = check_count(filters, "filters")
        self.output_padding = output_padding
        self.groups = check_count(groups, "groups")

    def call(self, inputs: Node) -> Node:
        """Convolve backwards, add the bias, apply the activation."""
        # The kernel is that of the convolution whose adjoint this is: from `filters` channels to the input's.
        kernel = self.kernel("kernel", self.kernel_size, self.filters // self.groups, self.channels(inputs))
        y = ops.conv2d_transpose(
            inputs, kernel, self.strides, self.padding, self.dilations, self.groups, self.layout, self.output_padding
        )
        return self.finish(y, self.filters)
