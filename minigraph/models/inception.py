"""Inception V3: convolutions side by side, with large windows made of small ones, joined by concatenation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from minigraph import layers
from minigraph.ir import fresh_names, scope
from minigraph.ir.node import Node
from minigraph.training.model import Model

# One convolution: filters, height and width of its window, and where it is not 1 and "same": strides and padding.
Conv: TypeAlias = tuple[int, int, int] | tuple[int, int, int, int, str]
# What a branch does next: a convolution, pooling, or convolutions side by side.
Step: TypeAlias = Conv | str | list[Conv]
Branches: TypeAlias = Mapping[str, Sequence[Step]]

AVERAGE, MAX = "average", "max"
POOLING = {AVERAGE: (layers.AveragePooling2D, 1, "same"), MAX: (layers.MaxPooling2D, 2, "valid")}

STEM: Sequence[Step] = (
    (32, 3, 3, 2, "valid"), (32, 3, 3, 1, "valid"), (64, 3, 3), MAX,
    (80, 1, 1, 1, "valid"), (192, 3, 3, 1, "valid"), MAX,
)  # fmt: skip


def _block_35(pooled: int) -> Branches:
    """Return a block after figure 5: images of 299×299 are 35×35 here.

    Two windows of 3×3 stand for one of 5×5, but one branch keeps its 5×5, as in the network that was released.
    """
    return {
        "branch1x1": ((64, 1, 1),),
        "branch5x5": ((48, 1, 1), (64, 5, 5)),
        "branch3x3dbl": ((64, 1, 1), (96, 3, 3), (96, 3, 3)),
        "branch_pool": (AVERAGE, (pooled, 1, 1)),
    }


def _block_17(inner: int) -> Branches:
    """Return a block of figure 6: a window of 1×7 and one of 7×1 stand for one of 7×7."""
    return {
        "branch1x1": ((192, 1, 1),),
        "branch7x7": ((inner, 1, 1), (inner, 1, 7), (192, 7, 1)),
        "branch7x7dbl": ((inner, 1, 1), (inner, 7, 1), (inner, 1, 7), (inner, 7, 1), (192, 1, 7)),
        "branch_pool": (AVERAGE, (192, 1, 1)),
    }


# Figure 7: windows of 1×3 and 3×1 side by side give more channels, for the last and smallest images, 8×8.
_BLOCK_8: Branches = {
    "branch1x1": ((320, 1, 1),),
    "branch3x3": ((384, 1, 1), [(384, 1, 3), (384, 3, 1)]),
    "branch3x3dbl": ((448, 1, 1), (384, 3, 3), [(384, 1, 3), (384, 3, 1)]),
    "branch_pool": (AVERAGE, (192, 1, 1)),
}

# The blocks in order, with Keras' names. Figure 10: mixed3 and mixed8 halve height and width.
MIXED: Mapping[str, Branches] = {
    "mixed0": _block_35(32),
    "mixed1": _block_35(64),
    "mixed2": _block_35(64),
    "mixed3": {
        "branch3x3": ((384, 3, 3, 2, "valid"),),
        "branch3x3dbl": ((64, 1, 1), (96, 3, 3), (96, 3, 3, 2, "valid")),
        "branch_pool": (MAX,),
    },
    "mixed4": _block_17(128),
    "mixed5": _block_17(160),
    "mixed6": _block_17(160),
    "mixed7": _block_17(192),
    "mixed8": {
        "branch3x3": ((192, 1, 1), (320, 3, 3, 2, "valid")),
        "branch7x7x3": ((192, 1, 1), (192, 1, 7), (192, 7, 1), (192, 3, 3, 2, "valid")),
        "branch_pool": (MAX,),
    },
    "mixed9": _BLOCK_8,
    "mixed10": _BLOCK_8,
}


def inception_v3(
    input_shape: tuple[int, int, int] = (299, 299, 3), classes: int = 1000, seed: int = 0,
    name: str = "inception_v3", dtype: str = "float32", width: float = 1.0,
) -> Model:  # fmt: skip
    """Return Inception V3: logits for images with values from −1 to 1, at least 75 high and wide.

    It is Keras' network, weight for weight: 23,851,784 parameters for 1000 classes, 94 batch norms without γ, first
    values after Glorot. width: a factor for the filters of every layer. There is no auxiliary classifier, as in Keras:
    it served the training of the paper only, in inference it is cut off.

    Szegedy, Vanhoucke, Ioffe, Shlens & Wojna 2016, "Rethinking the Inception Architecture for Computer Vision".

    >>> model = inception_v3()
    >>> model
    <Model 'inception_v3': 786 nodes, 23,851,784 parameters>
    >>> model.graph.outputs["logits"]
    <add : float32[N,1000]>
    """
    with fresh_names():
        image = layers.Input(input_shape, name="image", dtype=dtype)
        with scope("stem"):
            x = _branch(image, STEM, width)
        for block, branches in MIXED.items():
            with scope(block):
                x = _mixed(x, branches, width)
        with scope("head"):
            x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
            logits = layers.Dense(classes, name="predictions")(x)
    return Model(image, {"logits": logits}, name=name, seed=seed)


def convolution_scopes() -> Iterator[str]:
    """Yield the scope of each convolution, in the order in which they are made.

    >>> list(convolution_scopes())[5:9]
    ['mixed0/branch1x1/conv1', 'mixed0/branch5x5/conv1', 'mixed0/branch5x5/conv2', 'mixed0/branch3x3dbl/conv1']
    """
    named = {f"{block}/{branch}": steps for block, branches in MIXED.items() for branch, steps in branches.items()}
    for prefix, steps in {"stem": STEM, **named}.items():
        number = sum(len(_convolutions(step)) for step in steps)
        yield from (f"{prefix}/conv{i}" for i in range(1, number + 1))


def scaled(filters: int, width: float) -> int:
    """Return a number of filters times a factor, at least 1.

    >>> scaled(48, 0.25)
    12
    """
    return max(1, round(filters * width))


def _mixed(x: Node, branches: Branches, width: float) -> Node:
    results = []
    for branch, steps in branches.items():
        with scope(branch):
            results.append(_branch(x, steps, width))
    joined: Node = layers.Concatenate(name="concat")(results)
    return joined


def _branch(x: Node, steps: Sequence[Step], width: float) -> Node:
    number = 0
    for step in steps:
        if isinstance(step, str):
            pooling, strides, padding = POOLING[step]
            x = pooling(3, strides, padding)(x)
            continue
        results = []
        for conv in _convolutions(step):
            number += 1
            results.append(_convolution(x, conv, width, f"conv{number}"))
        x = results[0] if len(results) == 1 else layers.Concatenate(name="concat")(results)
    return x


def _convolutions(step: Step) -> list[Conv]:
    """Return the convolutions of a step."""
    if isinstance(step, str):
        return []
    return step if isinstance(step, list) else [step]


def _convolution(x: Node, conv: Conv, width: float, name: str) -> Node:
    """Return ReLU(BN(conv(x))): without γ, since behind ReLU the next layer's weights can scale as well."""
    filters, height, across, strides, padding = conv if len(conv) == 5 else (*conv, 1, "same")
    x = layers.Conv2D(scaled(filters, width), (height, across), strides, padding, use_bias=False, name=name)(x)
    x = layers.BatchNormalization(scale=False, name=f"{name}_bn")(x)
    activated: Node = layers.Activation("relu", name=f"{name}_relu")(x)
    return activated
