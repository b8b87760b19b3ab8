"""What an ONNX file declares of its inputs: types, and sizes that are numbers or open."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from minigraph.errors import ModelFormatError
from minigraph.ir.types import RESERVED, Dim, Size, TensorType, symbol, symbol_parts
from minigraph.onnx.proto import shown
from minigraph.onnx.tensors import dtype_of


class DeclaredTypes:
    """The types of inputs. Sizes that have one name in the file are one symbol, or one number where it is given."""

    def __init__(self) -> None:
        self.symbols: dict[str, Size] = {}  # the file's name of a size → what it is here

    def speaks_of(self, text: str) -> bool:
        """Tell whether an open size, or one that is made of it, is named in a text."""
        names = [str(size) for size in self.symbols.values() if isinstance(size, Dim)]
        return any(re.search(rf"\b{name}(\b|_)", text) for name in names)

    def type(self, proto: Any, shape: Sequence[int | None] | None = None) -> TensorType:
        """Return an input's type, its open sizes bound by a shape, where None leaves one open."""
        what = f"input {shown(proto.name)}"
        if proto.type.WhichOneof("value") != "tensor_type":
            raise ModelFormatError(f"{what} is no tensor", expected="a tensor", got=proto.type.WhichOneof("value"))
        declared = proto.type.tensor_type
        dtype = dtype_of(declared.elem_type, what)
        if not declared.HasField("shape"):
            if shape is None:
                raise ModelFormatError(
                    f"{what} has no shape", expected="a shape", hint=f"give it: input_shapes={{{proto.name!r}: …}}"
                )
            undeclared = declared.shape.__class__.Dimension()
            return TensorType(tuple(self._size(undeclared, proto.name, i, s) for i, s in enumerate(shape)), dtype)
        dims = list(declared.shape.dim)
        if shape is not None and len(shape) != len(dims):
            raise ModelFormatError(f"the shape given for {what} does not fit", expected=f"{len(dims)} sizes", got=shape)
        sizes = [self._size(d, proto.name, i, None if shape is None else shape[i]) for i, d in enumerate(dims)]
        return TensorType(tuple(sizes), dtype)

    def _size(self, dim: Any, name: str, axis: int, given: int | None) -> Size:
        """Return a declared size: a number, or a symbol where the file leaves it open and the caller too."""
        if dim.WhichOneof("value") == "dim_value" and dim.dim_value >= 0:
            if given is not None and given != dim.dim_value:
                raise ModelFormatError(
                    f"axis {axis} of input {shown(name)} is not open", expected=dim.dim_value, got=given
                )
            return int(dim.dim_value)
        key = dim.dim_param if dim.dim_param not in ("", "?") else f"{name}_{axis}"
        if given is not None:
            before = self.symbols.get(key)
            if isinstance(given, bool) or not isinstance(given, (int, np.integer)) or given < 0:
                raise ModelFormatError("not a size", expected="an integer ≥ 0", got=repr(given))
            if isinstance(before, int) and before != given:
                raise ModelFormatError(f"two sizes for the dimension {shown(key)}", expected=before, got=given)
            self.symbols[key] = int(given)
        elif key not in self.symbols:
            self.symbols[key] = self._symbol(key, axis)
        return self.symbols[key]

    def _symbol(self, key: str, axis: int) -> Dim:
        """Return a new symbol: N for the batch, else as much of the file's own name as can stand in a text."""
        taken = {str(s) for s in self.symbols.values()}
        word = re.sub(r"\W", "_", key, flags=re.ASCII)[:40]
        if symbol_parts(word)[0] != word:  # a name that says how a size is made of another
            word = word.replace("_over_", "_by_").replace("_plus_", "_and_").replace("_minus_", "_less_")
        base = "N" if axis == 0 else word if word.isidentifier() and word not in RESERVED else f"d_{word}"
        name, number = base, 1
        while name in taken:
            number += 1
            name = f"{base}{number}"
        return symbol(name)
