"""What networks with torchvision's conventions are made of: symmetric padding, ε = 1e-5, the unbiased variance.

A moving average keeps 0.9 of its old value: PyTorch's momentum 0.1 is the weight of the new one. Kernels are drawn as
He et al. 2015 do for the backward pass, variance 2/fan_out; those of dense layers as `torch.nn.Linear` does, uniform
with variance 1/(3·fan_in), and biases begin at 0.
"""

from __future__ import annotations

from minigraph import layers
from minigraph.ir.node import Node
from minigraph.layers.initializers import VarianceScaling

HE_NORMAL_BACKWARD = VarianceScaling(2.0, "fan_out", "normal")
TORCH_LINEAR = VarianceScaling(1 / 3, "fan_in", "uniform")


def convolution(
    x: Node, filters: int, size: int, stride: int = 1, use_bias: bool = False, *, name: str
) -> Node:  # fmt: skip
    """Return a convolution that keeps the image's size at stride 1: size//2 zeros on each side.

    >>> convolution(layers.Input((8, 8, 3), name="image"), 16, 3, 2, name="conv")
    <conv2d : float32[N,4,4,16]>
    """
    padding = size // 2 or "valid"
    layer = layers.Conv2D(
        filters, size, stride, padding, use_bias=use_bias, kernel_initializer=HE_NORMAL_BACKWARD, name=name
    )
    y: Node = layer(x)
    return y


def batch_norm(x: Node, *, name: str) -> Node:
    """Return the batch norm of PyTorch: ε = 1e-5, momentum 0.9 of the old, unbiased moving variance.

    >>> batch_norm(layers.Input((8, 8, 3), name="image"), name="bn")
    <batch_norm : float32[N,8,8,3]>
    """
    y: Node = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, unbiased=True, name=name)(x)
    return y


def relu(x: Node, *, name: str) -> Node:
    """Return max(x, 0) in a scope of its own.

    >>> relu(layers.Input((8, 8, 3), name="image"), name="relu")
    <relu : float32[N,8,8,3]>
    """
    y: Node = layers.ReLU(name=name)(x)
    return y


def max_pool(x: Node) -> Node:
    """Return the pooling of ImageNet stems: 3×3, stride 2, one pixel of padding.

    >>> max_pool(layers.Input((8, 8, 3), name="image"))
    <max_pool2d : float32[N,4,4,3]>
    """
    y: Node = layers.MaxPooling2D(3, 2, 1, name="pool")(x)
    return y


def classifier(x: Node, classes: int) -> Node:
    """Return logits: global average pooling, and a dense layer.

    >>> classifier(layers.Input((8, 8, 3), name="image"), 10)
    <add : float32[N,10]>
    """
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    logits: Node = layers.Dense(classes, kernel_initializer=TORCH_LINEAR, name="fc")(x)
    return logits
