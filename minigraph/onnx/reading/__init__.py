"""How each ONNX op is read: one function an op, from a `Reader` to nodes. A file here is a family of ops."""

from minigraph.onnx.reading import (  # noqa: F401  # each registers its ops
    arithmetic,
    convolution,
    indexing,
    normalization,
    optimizers,
    pooling,
    quotients,
    reduction,
    resize,
    shape,
    trigonometry,
)
from minigraph.onnx.reading.registry import TRANSLATORS, Translator

__all__ = ["TRANSLATORS", "Translator"]
