"""Pre-activation residual networks: batch norm and ReLU before each convolution, so that shortcuts stay clean sums.

The first batch norm of a block reads the sum that the shortcut reads too, and the last of all reads a sum: no
convolution before it can take it. Where its scales are positive they go through the ReLU, and the last pooling, into
the layer behind it, if that is the only one. The others fold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from minigraph import layers
from minigraph.ir import fresh_names, scope
from minigraph.ir.node import Node
from minigraph.models.blocks import batch_norm, classifier, convolution, max_pool, relu
from minigraph.models.resnet import Block, stages
from minigraph.training.model import Model


def preact_block(x: Node, filters: int, stride: int = 1) -> Node:
    """Return shortcut(x) + conv(ReLU(BN(conv(ReLU(BN(x)))))), both convolutions 3×3.

    >>> preact_block(layers.Input((8, 8, 16), name="image"), 32, 2)
    <add : float32[N,4,4,32]>
    """
    activated = _activated(x, 1)
    y = convolution(activated, filters, 3, stride, name="conv1")
    y = convolution(_activated(y, 2), filters, 3, name="conv2")
    return y + _shortcut(x, activated, filters, stride)


def preact_bottleneck(x: Node, filters: int, stride: int = 1) -> Node:
    """Return shortcut(x) + f(x), f being 1×1, 3×3 and 1×1 convolutions, each behind BN and ReLU.

    The last has 4·filters.

    >>> preact_bottleneck(layers.Input((8, 8, 64), name="image"), 16, 2)
    <add : float32[N,4,4,64]>
    """
    activated = _activated(x, 1)
    y = convolution(activated, filters, 1, name="conv1")
    y = convolution(_activated(y, 2), filters, 3, stride, name="conv2")
    y = convolution(_activated(y, 3), 4 * filters, 1, name="conv3")
    return y + _shortcut(x, activated, 4 * filters, stride)


def _activated(x: Node, place: int) -> Node:
    return relu(batch_norm(x, name=f"bn{place}"), name=f"relu{place}")


def _shortcut(x: Node, activated: Node, filters: int, stride: int) -> Node:
    """Return x, or where the size changes a 1×1 convolution of what its first batch norm and ReLU make of it."""
    if stride == 1 and x.shape[-1] == filters:
        return x
    return convolution(activated, filters, 1, stride, name="shortcut")


def _network(
    stem: Callable[[Node], Node], block: Block, blocks: Sequence[int], filters: int,
    input_shape: tuple[int, int, int], classes: int, seed: int, name: str, dtype: str,
) -> Model:  # fmt: skip
    with fresh_names():
        image = layers.Input(input_shape, name="image", dtype=dtype)
        with scope("stem"):
            x = stem(image)
        x = stages(x, block, blocks, filters)
        with scope("head"):
            logits = classifier(relu(batch_norm(x, name="bn"), name="relu"), classes)
    return Model(image, {"logits": logits}, name=name, seed=seed)


def preact_resnet18(
    input_shape: tuple[int, int, int] = (32, 32, 3), classes: int = 10, seed: int = 0, name: str = "preact_resnet18",
    dtype: str = "float32",
) -> Model:  # fmt: skip
    """Return the pre-activation ResNet-18 for CIFAR: 11,172,170 trainable parameters, 17 batch norms.

    He, Zhang, Ren, Sun 2016, "Identity mappings in deep residual networks", with the batch norm and ReLU behind the
    last block that the paper's appendix asks for: 1,024 parameters, which some implementations leave out.

    >>> preact_resnet18().graph.outputs["logits"]
    <add : float32[N,10]>
    """
    return _network(_small_stem, preact_block, (2, 2, 2, 2), 64, input_shape, classes, seed, name, dtype)


def preact_resnet50(
    input_shape: tuple[int, int, int] = (224, 224, 3), classes: int = 1000, seed: int = 0,
    name: str = "preact_resnet50", dtype: str = "float32",
) -> Model:  # fmt: skip
    """Return the pre-activation ResNet-50 for ImageNet: 25,549,352 trainable parameters, 49 batch norms.

    He, Zhang, Ren, Sun 2016, "Identity mappings in deep residual networks"; the stride is in the 3×3 convolutions, and
    the stem has no batch norm, because the first block begins with one.

    >>> preact_resnet50((32, 32, 3), classes=10).graph.outputs["logits"]
    <add : float32[N,10]>
    """
    return _network(_large_stem, preact_bottleneck, (3, 4, 6, 3), 64, input_shape, classes, seed, name, dtype)


def _small_stem(image: Node) -> Node:
    return convolution(image, 64, 3, name="conv")


def _large_stem(image: Node) -> Node:
    return max_pool(convolution(image, 64, 7, 2, name="conv"))
