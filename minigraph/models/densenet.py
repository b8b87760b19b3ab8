"""Dense networks: each layer reads what all layers before it in its stage have made."""

from __future__ import annotations

from collections.abc import Sequence

from minigraph import layers
from minigraph.errors import ArgumentError
from minigraph.ir import fresh_names, scope
from minigraph.ir.node import Node
from minigraph.ir.types import known
from minigraph.models.blocks import batch_norm, classifier, convolution, max_pool, relu
from minigraph.training.model import Model


def dense_layer(x: Node, growth: int) -> Node:
    """Return x with `growth` new channels behind it, made by a 1×1 and a 3×3 convolution, each behind BN and ReLU.

    The 1×1 convolution narrows x to 4·growth channels.

    >>> dense_layer(layers.Input((8, 8, 64), name="image"), 32)
    <concat : float32[N,8,8,96]>
    """
    y = convolution(_activated(x, "1"), 4 * growth, 1, name="conv1")
    y = convolution(_activated(y, "2"), growth, 3, name="conv2")
    joined: Node = layers.Concatenate(name="concat")([x, y])
    return joined


def transition(x: Node) -> Node:
    """Return x with half its channels, at half its size.

    >>> transition(layers.Input((8, 8, 64), name="image"))
    <avg_pool2d : float32[N,4,4,32]>
    """
    y = convolution(_activated(x), known(x.shape[-1]) // 2, 1, name="conv")
    pooled: Node = layers.AveragePooling2D(2, name="pool")(y)
    return pooled


def _activated(x: Node, place: str = "") -> Node:
    return relu(batch_norm(x, name=f"bn{place}"), name=f"relu{place}")


def _stages(x: Node, depths: Sequence[int], growth: int) -> Node:
    for stage, depth in enumerate(depths, 1):
        for place in range(1, depth + 1):
            with scope(f"stage{stage}/layer{place}"):
                x = dense_layer(x, growth)
        if stage < len(depths):
            with scope(f"transition{stage}"):
                x = transition(x)
    return x


def densenet121(
    input_shape: tuple[int, int, int] = (224, 224, 3), classes: int = 1000, seed: int = 0, name: str = "densenet121",
    dtype: str = "float32",
) -> Model:  # fmt: skip
    """Return DenseNet-121: 7,978,856 trainable parameters, 121 batch norms.

    Huang, Liu, van der Maaten, Weinberger 2017, "Densely connected convolutional networks"; as in torchvision. 62 of
    the batch norms read a concatenation, most of which others read too, so that what made it cannot take them. Where
    their scales are positive, those go through the ReLU, and the last pooling, into the layer behind it.

    >>> densenet121((32, 32, 3), classes=10).graph.outputs["logits"]
    <add : float32[N,10]>
    """
    with fresh_names():
        x = image = layers.Input(input_shape, name="image", dtype=dtype)
        with scope("stem"):
            x = max_pool(_activated(convolution(x, 64, 7, 2, name="conv")))
        x = _stages(x, (6, 12, 24, 16), 32)
        with scope("head"):
            logits = classifier(_activated(x), classes)
    return Model(image, {"logits": logits}, name=name, seed=seed)


def densenet_cifar(
    depth: int = 100, growth: int = 12, input_shape: tuple[int, int, int] = (32, 32, 3), classes: int = 10,
    seed: int = 0, name: str = "densenet_cifar", dtype: str = "float32",
) -> Model:  # fmt: skip
    """Return DenseNet-BC for CIFAR: 769,162 trainable parameters, 99 batch norms at depth 100 and growth 12.

    Huang, Liu, van der Maaten, Weinberger 2017: a 3×3 convolution into 2·growth channels, then three stages of
    (depth − 4)/6 layers.

    >>> densenet_cifar(22).graph.outputs["logits"]
    <add : float32[N,10]>
    """
    if depth < 10 or depth % 6 != 4:
        raise ArgumentError("no DenseNet-BC has this depth", expected="10, 16, 22 … 6n + 4", got=depth)
    with fresh_names():
        x = image = layers.Input(input_shape, name="image", dtype=dtype)
        with scope("stem"):
            x = convolution(x, 2 * growth, 3, name="conv")
        x = _stages(x, (depth // 6,) * 3, growth)
        with scope("head"):
            logits = classifier(_activated(x), classes)
    return Model(image, {"logits": logits}, name=name, seed=seed)
