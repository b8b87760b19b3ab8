"""What users write: layers with Keras' names, arguments and defaults. A layer makes nodes; it computes nothing."""

from minigraph.layers import initializers, regularizers
from minigraph.layers.activations import Activation, LeakyReLU, ReLU, Softmax
from minigraph.layers.base import Layer
from minigraph.layers.conv import Conv2D, Conv2DTranspose, DepthwiseConv2D, SeparableConv2D
from minigraph.layers.core import Add, Concatenate, Dense, Flatten, Input, Multiply, Reshape, Sequential
from minigraph.layers.norm import BatchNormalization, Dropout
from minigraph.layers.pooling import (
    AveragePooling2D,
    GlobalAveragePooling2D,
    GlobalMaxPooling2D,
    MaxPooling2D,
    ZeroPadding2D,
)

BatchNorm = BatchNormalization

__all__ = [
    "Activation", "Add", "AveragePooling2D", "BatchNorm", "BatchNormalization", "Concatenate", "Conv2D",
    "Conv2DTranspose", "Dense", "DepthwiseConv2D", "Dropout", "Flatten", "GlobalAveragePooling2D",
    "GlobalMaxPooling2D", "Input", "Layer", "LeakyReLU", "MaxPooling2D", "Multiply", "ReLU", "Reshape",
    "SeparableConv2D", "Sequential", "Softmax", "ZeroPadding2D", "initializers", "regularizers",
]  # fmt: skip
