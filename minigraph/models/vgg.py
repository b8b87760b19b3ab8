"""VGG networks: 3×3 convolutions in a row, pooled five times."""

from __future__ import annotations

from collections.abc import Sequence

from minigraph import layers, ops
from minigraph.ir import fresh_names, scope
from minigraph.models.blocks import batch_norm, convolution, relu
from minigraph.models.small import POOL, plain_network
from minigraph.training.model import Model

FILTERS = (64, 128, 256, 512, 512)

# Convolutions in each of the five stages.
STAGES = {"vgg11": (1, 1, 2, 2, 2), "vgg13": (2, 2, 2, 2, 2), "vgg16": (2, 2, 3, 3, 3)}

# The dense layers read a grid of 7×7 cells, whatever the image's size.
GRID = 7

NORMAL = layers.initializers.RandomNormal(stddev=0.01)


def _vgg(
    stages: Sequence[int], input_shape: tuple[int, int, int], classes: int, units: int, dropout: float,
    seed: int, name: str, dtype: str,
) -> Model:  # fmt: skip
    with fresh_names():
        x = image = layers.Input(input_shape, name="image", dtype=dtype)
        for stage, (number, filters) in enumerate(zip(stages, FILTERS, strict=True), 1):
            with scope(f"stage{stage}"):
                for place in range(1, number + 1):
                    with scope(f"block{place}"):
                        x = convolution(x, filters, 3, use_bias=True, name="conv")
                        x = relu(batch_norm(x, name="bn"), name="relu")
                x = layers.MaxPooling2D(2, name="pool")(x)
        with scope("head"):
            x = layers.Flatten(name="flatten")(ops.adaptive_avg_pool2d(x, GRID))
            for place in (1, 2):
                x = layers.Dense(units, activation="relu", kernel_initializer=NORMAL, name=f"fc{place}")(x)
                x = layers.Dropout(dropout, name=f"dropout{place}")(x)
            logits = layers.Dense(classes, kernel_initializer=NORMAL, name="fc3")(x)
    return Model(image, {"logits": logits}, name=name, seed=seed)


def vgg11(
    input_shape: tuple[int, int, int] = (224, 224, 3), classes: int = 1000, units: int = 4096,
    dropout: float = 0.5, seed: int = 0, name: str = "vgg11", dtype: str = "float32",
) -> Model:  # fmt: skip
    """Return VGG-11 with batch norm: 132,868,840 trainable parameters, 8 batch norms.

    Simonyan & Zisserman 2015, "Very deep convolutional networks for large-scale image recognition", configuration A,
    with batch norm as in torchvision's vgg11_bn: the convolutions keep their biases. The two hidden dense layers, of
    `units` each, hold most of the parameters.

    >>> vgg11((32, 32, 3), classes=10).graph.outputs["logits"]
    <add : float32[N,10]>
    """
    return _vgg(STAGES["vgg11"], input_shape, classes, units, dropout, seed, name, dtype)


def vgg13(
    input_shape: tuple[int, int, int] = (224, 224, 3), classes: int = 1000, units: int = 4096,
    dropout: float = 0.5, seed: int = 0, name: str = "vgg13", dtype: str = "float32",
) -> Model:  # fmt: skip
    """Return VGG-13 with batch norm: 133,053,736 trainable parameters, 10 batch norms; see `vgg11`, configuration B.

    >>> vgg13((32, 32, 3), classes=10).graph.outputs["logits"]
    <add : float32[N,10]>
    """
    return _vgg(STAGES["vgg13"], input_shape, classes, units, dropout, seed, name, dtype)


def vgg16(
    input_shape: tuple[int, int, int] = (224, 224, 3), classes: int = 1000, units: int = 4096,
    dropout: float = 0.5, seed: int = 0, name: str = "vgg16", dtype: str = "float32",
) -> Model:  # fmt: skip
    """Return VGG-16 with batch norm: 138,365,992 trainable parameters, 13 batch norms; see `vgg11`, configuration D.

    >>> vgg16((32, 32, 3), classes=10).graph.outputs["logits"]
    <add : float32[N,10]>
    """
    return _vgg(STAGES["vgg16"], input_shape, classes, units, dropout, seed, name, dtype)


def vgg16_cifar(
    input_shape: tuple[int, int, int] = (32, 32, 3), classes: int = 10, seed: int = 0, name: str = "vgg16_cifar"
) -> Model:  # fmt: skip
    """Return VGG-16's convolutions for CIFAR, with one dense layer: 14,724,042 trainable parameters, 13 batch norms.

    The convolutions have no biases, which batch norm would remove: 4,224 parameters fewer than where they do.

    >>> vgg16_cifar().graph.outputs["logits"]
    <add : float32[N,10]>
    """
    plan: list[int | str] = []
    for number, filters in zip(STAGES["vgg16"], FILTERS, strict=True):
        plan += [filters] * number + [POOL]
    return plain_network(input_shape, plan, classes, "he_normal", seed, name)
