"""Residual networks: blocks that learn what to add to their input."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from minigraph import layers, ops
from minigraph.errors import ArgumentError
from minigraph.ir import fresh_names, scope
from minigraph.ir.node import Node
from minigraph.ir.types import known
from minigraph.models.blocks import batch_norm, classifier, convolution, max_pool, relu
from minigraph.training.model import Model

Block = Callable[[Node, int, int], Node]


def basic_block(x: Node, filters: int, stride: int = 1) -> Node:
    """Return ReLU(shortcut(x) + BN(conv(ReLU(BN(conv(x)))))), both convolutions 3×3.

    >>> basic_block(layers.Input((8, 8, 16), name="image"), 32, 2)
    <relu : float32[N,4,4,32]>
    """
    return relu(_two_convolutions(x, filters, stride) + _projected(x, filters, stride), name="relu2")


def bottleneck_block(x: Node, filters: int, stride: int = 1) -> Node:
    """Return ReLU(shortcut(x) + f(x)), f being 1×1, 3×3 and 1×1 convolutions; the last has 4·filters.

    The stride is that of the 3×3 convolution ("v1.5", as in torchvision); in the paper it is that of the first.

    >>> bottleneck_block(layers.Input((8, 8, 64), name="image"), 16, 2)
    <relu : float32[N,4,4,64]>
    """
    y = relu(batch_norm(convolution(x, filters, 1, name="conv1"), name="bn1"), name="relu1")
    y = relu(batch_norm(convolution(y, filters, 3, stride, name="conv2"), name="bn2"), name="relu2")
    y = batch_norm(convolution(y, 4 * filters, 1, name="conv3"), name="bn3")
    return relu(y + _projected(x, 4 * filters, stride), name="relu3")


def parameter_free_block(x: Node, filters: int, stride: int = 1) -> Node:
    """Return a basic block whose shortcut has no parameters: every other pixel, and zeros for new channels.

    >>> parameter_free_block(layers.Input((8, 8, 16), name="image"), 32, 2)
    <relu : float32[N,4,4,32]>
    """
    y = _two_convolutions(x, filters, stride)
    new = filters - known(x.shape[-1])
    if new:
        with scope("shortcut"):
            x = ops.pad(x[:, ::stride, ::stride, :], ((0, 0), (0, 0), (0, 0), (new // 2, new - new // 2)))
    return relu(y + x, name="relu2")


def _two_convolutions(x: Node, filters: int, stride: int) -> Node:
    y = relu(batch_norm(convolution(x, filters, 3, stride, name="conv1"), name="bn1"), name="relu1")
    return batch_norm(convolution(y, filters, 3, name="conv2"), name="bn2")


def _projected(x: Node, filters: int, stride: int) -> Node:
    """Return x, brought to the block's size by a 1×1 convolution and batch norm where it has another one."""
    if stride == 1 and x.shape[-1] == filters:
        return x
    with scope("shortcut"):
        return batch_norm(convolution(x, filters, 1, stride, name="conv"), name="bn")


def stages(x: Node, block: Block, blocks: Sequence[int], filters: int) -> Node:
    """Return x after `len(blocks)` stages; each but the first halves the image and doubles the filters.

    >>> stages(layers.Input((8, 8, 16), name="image"), basic_block, (2, 2), 16)
    <relu : float32[N,4,4,32]>
    """
    for stage, number in enumerate(blocks):
        for place in range(number):
            with scope(f"stage{stage + 1}/block{place + 1}"):
                x = block(x, filters << stage, 2 if stage and not place else 1)
    return x


def _imagenet(
    block: Block, blocks: Sequence[int], input_shape: tuple[int, int, int], classes: int, seed: int, name: str,
    dtype: str,
) -> Model:  # fmt: skip
    with fresh_names():
        x = image = layers.Input(input_shape, name="image", dtype=dtype)
        with scope("stem"):
            x = relu(batch_norm(convolution(x, 64, 7, 2, name="conv"), name="bn"), name="relu")
            x = max_pool(x)
        x = stages(x, block, blocks, 64)
        with scope("head"):
            logits = classifier(x, classes)
    return Model(image, {"logits": logits}, name=name, seed=seed)


def resnet18(
    input_shape: tuple[int, int, int] = (224, 224, 3), classes: int = 1000, seed: int = 0, name: str = "resnet18",
    dtype: str = "float32",
) -> Model:  # fmt: skip
    """Return ResNet-18: 11,689,512 trainable parameters, 20 batch norms.

    He, Zhang, Ren, Sun 2016, "Deep residual learning for image recognition"; as in torchvision.

    >>> resnet18((32, 32, 3), classes=10).graph.outputs["logits"]
    <add : float32[N,10]>
    """
    return _imagenet(basic_block, (2, 2, 2, 2), input_shape, classes, seed, name, dtype)


def resnet34(
    input_shape: tuple[int, int, int] = (224, 224, 3), classes: int = 1000, seed: int = 0, name: str = "resnet34",
    dtype: str = "float32",
) -> Model:  # fmt: skip
    """Return ResNet-34: 21,797,672 trainable parameters, 36 batch norms.

    He, Zhang, Ren, Sun 2016, "Deep residual learning for image recognition"; as in torchvision.

    >>> resnet34((32, 32, 3), classes=10).graph.outputs["logits"]
    <add : float32[N,10]>
    """
    return _imagenet(basic_block, (3, 4, 6, 3), input_shape, classes, seed, name, dtype)


def resnet50(
    input_shape: tuple[int, int, int] = (224, 224, 3), classes: int = 1000, seed: int = 0, name: str = "resnet50",
    dtype: str = "float32",
) -> Model:  # fmt: skip
    """Return ResNet-50 "v1.5": 25,557,032 trainable parameters, 53 batch norms.

    He, Zhang, Ren, Sun 2016, "Deep residual learning for image recognition"; as in torchvision, which has the stride
    in the 3×3 convolutions.

    >>> resnet50((32, 32, 3), classes=10).graph.outputs["logits"]
    <add : float32[N,10]>
    """
    return _imagenet(bottleneck_block, (3, 4, 6, 3), input_shape, classes, seed, name, dtype)


def cifar_resnet(
    depth: int = 20, input_shape: tuple[int, int, int] = (32, 32, 3), classes: int = 10, seed: int = 0,
    name: str | None = None, dtype: str = "float32",
) -> Model:  # fmt: skip
    """Return the residual network of 6n + 2 layers for CIFAR: a 3×3 stem, then 3 stages of n blocks, no projections.

    He, Zhang, Ren, Sun 2016, section 4.2, with their shortcut A: no parameters. 20 layers (n = 3) have 269,722
    trainable parameters: 9·(3·16) in the stem, 9·(6·16²), 9·(16·32 + 5·32²) and 9·(32·64 + 5·64²) in the stages,
    2·(7·16 + 6·32 + 6·64) in the batch norms, (64 + 1)·10 in the head.

    >>> cifar_resnet(32).name
    'resnet32'
    """
    if depth < 8 or depth % 6 != 2:
        raise ArgumentError("no residual network for CIFAR has this depth", expected="8, 14, 20 … 6n + 2", got=depth)
    with fresh_names():
        x = image = layers.Input(input_shape, name="image", dtype=dtype)
        with scope("stem"):
            x = relu(batch_norm(convolution(x, 16, 3, name="conv"), name="bn"), name="relu")
        x = stages(x, parameter_free_block, (depth // 6,) * 3, 16)
        with scope("head"):
            logits = classifier(x, classes)
    return Model(image, {"logits": logits}, name=name or f"resnet{depth}", seed=seed)


def resnet20(
    input_shape: tuple[int, int, int] = (32, 32, 3), classes: int = 10, seed: int = 0, name: str = "resnet20",
    dtype: str = "float32",
) -> Model:  # fmt: skip
    """Return the 20-layer residual network for CIFAR: 269,722 trainable parameters, 19 batch norms.

    >>> resnet20().graph.outputs["logits"]
    <add : float32[N,10]>
    """
    return cifar_resnet(20, input_shape, classes, seed, name, dtype)
