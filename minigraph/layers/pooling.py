"""Pooling layers, and padding."""

from __future__ import annotations

from typing import Any

from minigraph import ops
from minigraph.errors import ArgumentError
from minigraph.ir.node import Node
from minigraph.layers.base import Layer
from minigraph.layers.conv import layout
from minigraph.ops import window as win
from minigraph.ops.window import NHWC


class _Pooling(Layer):
    """Base: pooling over windows; `strides` default to the window's size."""

    def __init__(
        self, pool_size: Any = 2, strides: Any = None, padding: Any = "valid", data_format: str | None = None,
        name: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(name)
        self.pool_size, self.strides, self.padding = pool_size, strides, padding
        self.layout = layout(data_format)


class _GlobalPooling(Layer):
    """Base: pooling over height and width; with `keepdims` they stay as axes of size 1."""

    def __init__(self, data_format: str | None = None, keepdims: bool = False, name: str | None = None) -> None:
        super().__init__(name)
        self.layout = layout(data_format)
        self.keepdims = keepdims


class MaxPooling2D(_Pooling):
    """The largest value under each window.

    >>> from minigraph.ir import variable
    >>> MaxPooling2D(2)(variable((1, 8, 8, 3)))
    <max_pool2d : float32[1,4,4,3]>
    """

    def call(self, inputs: Node) -> Node:
        """Pool."""
        return ops.max_pool2d(inputs, self.pool_size, self.strides, self.padding, layout=self.layout)


class AveragePooling2D(_Pooling):
    """The mean under each window, over the values that exist.

    >>> from minigraph.ir import variable
    >>> AveragePooling2D(2)(variable((1, 8, 8, 3)))
    <avg_pool2d : float32[1,4,4,3]>
    """

    def call(self, inputs: Node) -> Node:
        """Pool."""
        return ops.avg_pool2d(inputs, self.pool_size, self.strides, self.padding, layout=self.layout)


class GlobalAveragePooling2D(_GlobalPooling):
    """The mean over height and width: N,H,W,C → N,C.

    >>> from minigraph.ir import variable
    >>> GlobalAveragePooling2D()(variable((1, 8, 8, 3)))
    <mean : float32[1,3]>
    """

    def call(self, inputs: Node) -> Node:
        """Pool."""
        return ops.global_avg_pool2d(inputs, self.keepdims, self.layout)


class GlobalMaxPooling2D(_GlobalPooling):
    """The largest value over height and width: N,H,W,C → N,C.

    >>> from minigraph.ir import variable
    >>> GlobalMaxPooling2D()(variable((1, 8, 8, 3)))
    <max : float32[1,3]>
    """

    def call(self, inputs: Node) -> Node:
        """Pool."""
        return ops.global_max_pool2d(inputs, self.keepdims, self.layout)


class ZeroPadding2D(Layer):
    """Zeros around images: one number, (vertical, horizontal), or ((top, bottom), (left, right)).

    >>> from minigraph.ir import variable
    >>> ZeroPadding2D(1)(variable((1, 8, 8, 3)))
    <pad : float32[1,10,10,3]>
    """

    def __init__(self, padding: Any = 1, data_format: str | None = None, name: str | None = None) -> None:
        super().__init__(name)
        if isinstance(padding, str):
            raise ArgumentError("bad padding", expected="an integer, or pairs of integers", got=repr(padding))
        self.padding = win.padding(padding)
        self.layout = layout(data_format)

    def call(self, inputs: Node) -> Node:
        """Pad."""
        win.spatial(inputs.tensor_type, self.layout)
        none = (0, 0)
        pads = (none, *self.padding, none) if self.layout == NHWC else (none, none, *self.padding)
        return ops.pad(inputs, pads)
