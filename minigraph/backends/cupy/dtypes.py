"""What dtypes are called in CUDA."""

from __future__ import annotations

from minigraph.backends.loops.expressions import CTYPES

# dtype → CUDA
CUDA_TYPES = {**CTYPES, "float16": "__half", "bfloat16": "__nv_bfloat16"}
FLOATS = ("float16", "bfloat16", "float32", "float64")


def computed_in(dtype: str) -> str:
    """Return the CUDA type that elements of a dtype are computed in: half precision is rounded where it is stored.

    >>> computed_in("bfloat16"), computed_in("int8")
    ('float', 'int8_t')
    """
    return "float" if dtype in ("float16", "bfloat16") else CUDA_TYPES[dtype]
