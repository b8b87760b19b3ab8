"""The numbers of a convolution, as every backend's kernels want them: which of its three ops it is does not matter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

from minigraph.ir.node import Node
from minigraph.ir.types import DTYPES, TensorType, known
from minigraph.ops import conv
from minigraph.ops.window import Window


@dataclass(frozen=True)
class Geometry:
    """The numbers of one convolution, whichever of its three ops is computed."""

    window: Window
    images: tuple[int, int, int, int]  # N,H,W,I
    outputs: tuple[int, int, int, int]  # N,H′,W′,O
    groups: int
    itemsize: int

    @property
    def pads(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Padding before and after, vertical and horizontal."""
        return self.window.pads(self.images[1:3])

    @property
    def depth(self) -> int:
        """Rows of the kernel matrix: taps times input channels of a group."""
        return self.window.size[0] * self.window.size[1] * (self.images[3] // self.groups)

    @property
    def flops(self) -> int:
        """Operations of the whole convolution."""
        return 2 * math.prod(self.outputs) * self.depth

    @property
    def pointwise(self) -> bool:
        """Whether the convolution is a matrix product of the pixels as they lie."""
        return self.window.size == (1, 1) and self.window.strides == (1, 1) and not self.padded and self.groups == 1

    @property
    def padded(self) -> bool:
        """Whether any padding is needed."""
        return any(p for pair in self.pads for p in pair)

    @property
    def depthwise(self) -> bool:
        """Whether each group is one channel in and one out: no matrix product to be had."""
        return self.groups > 1 and self.images[3] == self.groups == self.outputs[3]

    @classmethod
    def of(cls, op: conv.Convolution, images: Any, kernel: Any, outputs: Any, itemsize: int) -> Self:
        """Return the geometry of an op from the three shapes, under the layout N,H,W,C."""
        window = Window(tuple(kernel[:2]), op.strides, op.dilations, op.padding)
        return cls(window, tuple(images), tuple(outputs), op.groups, itemsize)

    @classmethod
    def of_node(cls, node: Node) -> Self:
        """Return the geometry of any of the three ops: (image, kernel, output) stand in a different order in each."""
        op = node.op
        assert isinstance(op, conv.Convolution)
        first, second, result = (_shape(i.tensor_type) for i in (*node.inputs, node))
        itemsize = DTYPES[node.dtype]
        if isinstance(op, conv.Conv2D):
            return cls.of(op, first, second, result, itemsize)
        if isinstance(op, conv.Conv2DTranspose):
            return cls.of(op, result, second, first, itemsize)
        return cls.of(op, first, result, second, itemsize)


def _shape(type: TensorType) -> tuple[int, ...]:
    return tuple(known(s) for s in type.shape)
