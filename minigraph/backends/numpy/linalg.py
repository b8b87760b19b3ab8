"""Kernels of matrix products: one BLAS call, its rows shared among the workers where that pays."""

from __future__ import annotations

from functools import partial

import numpy as np

from minigraph.backends.numpy import threads
from minigraph.backends.numpy.call import Call, Kernel
from minigraph.backends.numpy.registry import kernel
from minigraph.ops.linalg import MatMul


@kernel(MatMul)
def _matmul(call: Call) -> Kernel:
    x, y = call.inputs
    left = x.swapaxes(-1, -2) if call.op.transpose_x else x
    right = y.swapaxes(-1, -2) if call.op.transpose_y else y
    out = call.output
    if out.ndim != 2:
        return partial(np.matmul, left, right, out=out)
    return threads.product(left, right, out, call.threads)
