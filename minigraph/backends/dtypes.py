"""What dtypes are called as those of arrays."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from minigraph.errors import MissingExtraError


@cache
def array_dtype(name: str) -> np.dtype[Any]:
    """Return the dtype of arrays of a dtype's name.

    NumPy has no bfloat16: the package ml_dtypes brings it, and is loaded when the first such array is made. Raises a
    MissingExtraError where it is absent.

    >>> array_dtype("float16")
    dtype('float16')
    """
    kind: Any = name
    if name == "bfloat16":
        try:
            from ml_dtypes import bfloat16 as kind
        except ImportError:
            raise MissingExtraError("ml_dtypes", "bfloat16", "an array of bfloat16") from None
    dtype: np.dtype[Any] = np.dtype(kind)
    return dtype
