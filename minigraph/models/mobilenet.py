"""MobileNetV2: residual blocks that are narrow outside and wide inside, with one filter a channel in the middle."""

from __future__ import annotations

from minigraph import layers
from minigraph.ir import fresh_names, scope
from minigraph.ir.node import Node
from minigraph.ir.types import known
from minigraph.layers.initializers import RandomNormal
from minigraph.models.blocks import HE_NORMAL_BACKWARD, batch_norm, convolution
from minigraph.training.model import Model

# Table 2 of the paper: expansion, filters, blocks, stride of the first block.
STAGES = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip


def inverted_residual(x: Node, filters: int, stride: int, expansion: int) -> Node:
    """Return x widened by a 1×1 convolution, filtered channel by channel, and narrowed by a linear 1×1 convolution.

    x itself is added where its size stays.

    >>> inverted_residual(layers.Input((8, 8, 16), name="image"), 24, 2, 6)
    <batch_norm : float32[N,4,4,24]>
    """
    into = known(x.shape[-1])
    y = x
    if expansion != 1:
        with scope("expand"):
            y = _activated(convolution(y, expansion * into, 1, name="conv"))
    with scope("depthwise"):
        depthwise = layers.DepthwiseConv2D(
            3, stride, padding=1, use_bias=False, depthwise_initializer=HE_NORMAL_BACKWARD, name="conv"
        )
        y = _activated(depthwise(y))
    with scope("project"):
        y = batch_norm(convolution(y, filters, 1, name="conv"), name="bn")
    return x + y if stride == 1 and into == filters else y


def _activated(x: Node) -> Node:
    y: Node = layers.ReLU(6.0, name="relu6")(batch_norm(x, name="bn"))
    return y


def mobilenet_v2(
    input_shape: tuple[int, int, int] = (224, 224, 3), classes: int = 1000, dropout: float = 0.2, seed: int = 0,
    name: str = "mobilenet_v2", dtype: str = "float32",
) -> Model:  # fmt: skip
    """Return MobileNetV2: 3,504,872 trainable parameters, 52 batch norms.

    Sandler, Howard, Zhu, Zhmoginov, Chen 2018, "MobileNetV2: inverted residuals and linear bottlenecks"; as in
    torchvision, with dropout before the dense layer.

    >>> mobilenet_v2((32, 32, 3), classes=10).graph.outputs["logits"]
    <add : float32[N,10]>
    """
    with fresh_names():
        x = image = layers.Input(input_shape, name="image", dtype=dtype)
        with scope("stem"):
            x = _activated(convolution(x, 32, 3, 2, name="conv"))
        for stage, (expansion, filters, blocks, stride) in enumerate(STAGES, 1):
            for place in range(1, blocks + 1):
                with scope(f"stage{stage}/block{place}"):
                    x = inverted_residual(x, filters, stride if place == 1 else 1, expansion)
        with scope("top"):
            x = _activated(convolution(x, 1280, 1, name="conv"))
        with scope("head"):
            x = layers.GlobalAveragePooling2D(name="pool")(x)
            x = layers.Dropout(dropout, name="dropout")(x)
            logits = layers.Dense(classes, kernel_initializer=RandomNormal(stddev=0.01), name="fc")(x)
    return Model(image, {"logits": logits}, name=name, seed=seed)
