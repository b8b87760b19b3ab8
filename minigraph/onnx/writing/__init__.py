"""How each op of ours is written as ONNX: one function an op. A file here is a family of ops."""

from minigraph.onnx.writing import arithmetic, movement, networks  # noqa: F401  # each registers its ops
from minigraph.onnx.writing.registry import WRITERS

__all__ = ["WRITERS"]
