"""Xception: depthwise separable convolutions, with a residual connection around every two or three of them."""

from __future__ import annotations

from collections.abc import Sequence

from minigraph import layers
from minigraph.ir import fresh_names, scope
from minigraph.ir.node import Node
from minigraph.models.inception import scaled
from minigraph.training.model import Model


def xception(
    input_shape: tuple[int, int, int] = (299, 299, 3), classes: int = 1000, seed: int = 0,
    name: str = "xception", dtype: str = "float32", width: float = 1.0,
) -> Model:  # fmt: skip
    """Return Xception: logits for images with values from −1 to 1.

    It is Keras' network, weight for weight: 22,910,480 parameters for 1000 classes, 40 batch norms, first values after
    Glorot. width: a factor for the filters of every layer. The dropout that the paper has before the last layer is left
    out, as in Keras.

    Chollet 2017, "Xception: Deep Learning with Depthwise Separable Convolutions", figure 5.

    >>> model = xception()
    >>> model
    <Model 'xception': 405 nodes, 22,910,480 parameters>
    >>> model.graph.outputs["logits"]
    <add : float32[N,1000]>
    """
    with fresh_names():
        image = layers.Input(input_shape, name="image", dtype=dtype)
        with scope("block1"):
            x = _normalised(image, layers.Conv2D(scaled(32, width), 3, strides=2, use_bias=False, name="conv1"))
            x = _relu(x, "conv1_act")
            x = _normalised(x, layers.Conv2D(scaled(64, width), 3, use_bias=False, name="conv2"))
            x = _relu(x, "conv2_act")
        with scope("block2"):
            # What comes in here went through ReLU just before.
            x = _halved(x, [scaled(128, width)] * 2, activated=True)
        for number, filters in ((3, 256), (4, 728)):
            with scope(f"block{number}"):
                x = _halved(x, [scaled(filters, width)] * 2)
        for number in range(5, 13):
            with scope(f"block{number}"):
                x = layers.Add(name="add")([_separable_in_turn(x, [scaled(728, width)] * 3), x])
        with scope("block13"):
            x = _halved(x, [scaled(728, width), scaled(1024, width)])
        with scope("block14"):
            x = _relu(_separable(x, scaled(1536, width), 1), "sepconv1_act")
            x = _relu(_separable(x, scaled(2048, width), 2), "sepconv2_act")
        with scope("head"):
            x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
            logits = layers.Dense(classes, name="predictions")(x)
    return Model(image, {"logits": logits}, name=name, seed=seed)


def _halved(x: Node, filters: Sequence[int], activated: bool = False) -> Node:
    """Return the sum of separable convolutions, pooled, and a 1×1 convolution with stride 2."""
    shortcut = layers.Conv2D(filters[-1], 1, strides=2, padding="same", use_bias=False, name="shortcut")
    y = _separable_in_turn(x, filters, activated)
    y = layers.MaxPooling2D(3, strides=2, padding="same", name="pool")(y)
    joined: Node = layers.Add(name="add")([y, _normalised(x, shortcut)])
    return joined


def _separable_in_turn(x: Node, filters: Sequence[int], activated: bool = False) -> Node:
    """Return BN(sepconv(ReLU(…))) of x, once for each number of filters."""
    for place, each in enumerate(filters, 1):
        if place > 1 or not activated:
            x = _relu(x, f"sepconv{place}_act")
        x = _separable(x, each, place)
    return x


def _separable(x: Node, filters: int, place: int) -> Node:
    return _normalised(x, layers.SeparableConv2D(filters, 3, padding="same", use_bias=False, name=f"sepconv{place}"))


def _normalised(x: Node, convolution: layers.Layer) -> Node:
    normalised: Node = layers.BatchNormalization(name=f"{convolution.name}_bn")(convolution(x))
    return normalised


def _relu(x: Node, name: str) -> Node:
    activated: Node = layers.Activation("relu", name=name)(x)
    return activated
