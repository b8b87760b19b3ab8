"""The two small networks that `minigraph train` uses: convolution, batch norm, ReLU, five times."""

from __future__ import annotations

from collections.abc import Sequence

from minigraph import layers
from minigraph.ir import fresh_names, scope
from minigraph.ir.node import Node
from minigraph.training.model import Model

POOL = "pool"


def block(x: Node, filters: int, kernel_initializer: str = "glorot_uniform") -> Node:
    """Return ReLU(BN(conv3×3(x))): the convolution has no bias, because batch norm would remove it.

    >>> block(layers.Input((8, 8, 1), name="image"), 16)
    <relu : float32[N,8,8,16]>
    """
    x = layers.Conv2D(filters, 3, padding="same", use_bias=False, kernel_initializer=kernel_initializer)(x)
    x = layers.BatchNormalization(momentum=0.9)(x)
    activated: Node = layers.Activation("relu")(x)
    return activated


def plain_network(
    input_shape: tuple[int, int, int], plan: Sequence[int | str], classes: int = 10,
    kernel_initializer: str = "glorot_uniform", seed: int = 0, name: str = "plain",
) -> Model:  # fmt: skip
    """Return a network of blocks: a number in `plan` is a block with so many filters, "pool" halves height and width.

    The head is global average pooling and a dense layer that gives logits.

    >>> plain_network((8, 8, 1), [16, "pool", 32]).graph.outputs["logits"]
    <add : float32[N,10]>
    """
    with fresh_names():
        x = image = layers.Input(input_shape, name="image")
        number = 0
        for entry in plan:
            if entry == POOL:
                x = layers.MaxPooling2D(2)(x)
                continue
            number += 1
            with scope(f"block{number}"):
                x = block(x, int(entry), kernel_initializer)
        with scope("head"):
            x = layers.GlobalAveragePooling2D()(x)
            logits = layers.Dense(classes)(x)
    return Model(image, {"logits": logits}, name=name, seed=seed)


def digits_network(seed: int = 0) -> Model:
    """Return the network for 8×8 digits: 70,330 trainable parameters.

    >>> digits_network().graph.inputs
    (<image : float32[N,8,8,1]>,)
    """
    return plain_network((8, 8, 1), (16, 32, 32, POOL, 64, 64), seed=seed, name="digits")


def mnist_network(seed: int = 0) -> Model:
    """Return the network for 28×28 digits: the same blocks, pooled twice, initialised after He et al.

    >>> mnist_network().graph.inputs
    (<image : float32[N,28,28,1]>,)
    """
    plan = (16, POOL, 32, 32, POOL, 64, 64)
    return plain_network((28, 28, 1), plan, kernel_initializer="he_normal", seed=seed, name="mnist5k")
