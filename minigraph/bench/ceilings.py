"""What a GPU reaches at best: copies in its memory, and products of large matrices in each arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigraph import ops
from minigraph.backends.dtypes import array_dtype
from minigraph.ir import fresh_names
from minigraph.ir.leaves import variable
from minigraph.runtime import State, accelerator, compile
from minigraph.runtime.accelerator import Accelerator

_BYTES = 1 << 30  # of a copy: many times what caches hold
_SIDE = 8192  # of the square matrices that are multiplied
_REPEATS = 10
# arithmetic → the dtype of the matrices, and the backend's precision
_ARITHMETICS = {
    "bfloat16": ("bfloat16", "float32"), "float16": ("float16", "float32"), "tf32": ("float32", "tf32"),
    "float32": ("float32", "float32"), "float64": ("float64", "float32"),
}  # fmt: skip


def measure() -> Accelerator:
    """Measure the device, which takes seconds, and remember it: floors in profiles are made of this."""
    from minigraph.backends.cupy import CupyBackend

    backends = {precision: CupyBackend(precision=precision) for _, precision in _ARITHMETICS.values()}
    one = next(iter(backends.values()))
    peaks = tuple((name, _product_rate(backends[how], dtype)) for name, (dtype, how) in _ARITHMETICS.items())
    limits = Accelerator(one.gpu.name, _copy_rate(one.gpu), peaks)
    accelerator.keep(limits)
    return limits


def _copy_rate(gpu: Any) -> float:
    """Return the bytes a second that are read and written by a copy."""
    memory = [gpu.allocate(_BYTES) for _ in range(2)]
    target, source = (int(each.data.ptr) for each in memory)
    return 2 * _BYTES / float(gpu.seconds(lambda: gpu.copy(target, source, _BYTES, "device to device")))


def _product_rate(backend: Any, dtype: str) -> float:
    """Return the FLOP/s of a product of random matrices: of zeros it would be faster."""
    rng = np.random.default_rng(0)
    with fresh_names():
        nodes = [variable((_SIDE, _SIDE), name=name, dtype=dtype) for name in "ab"]
    numbers = [rng.standard_normal((_SIDE, _SIDE), np.float32).astype(array_dtype(dtype)) for _ in nodes]
    state = State({node.label: array for node, array in zip(nodes, numbers, strict=True)})
    profile = compile({"c": ops.matmul(*nodes)}, backend=backend).profile(state, _REPEATS)
    return 2 * _SIDE**3 / profile.seconds
