"""Kernels of matrix products: one BLAS call, its rows shared among the workers where that pays."""

from __future__ import annotations

from functools import partial

import numpy as np

from minigraph.backends.numpy import threads
from minigraph.backends.numpy.registry import Call, Kernel, kernel
from minigraph.ops.linalg import MatMul


@kernel(MatMul)
def _matmul(call: Call) -> Kernel:
    x, y = call.inputs
    left = x.swapaxes(-1, -2) if call.op.transpose_x else x
    right = y.swapaxes(-1, -2) if call.op.transpose_y else y
    out = call.output
    flops = 2 * out.size * left.shape[-1]
    if call.threads > 1 and flops > 2 * threads.PARALLEL_FLOPS and out.ndim == 2 and len(out) >= call.threads:
        pieces = [(left[a:b], out[a:b]) for a, b in threads.ranges(len(out), call.threads)]
        return lambda: threads.each(len(pieces), lambda i: np.matmul(pieces[i][0], right, out=pieces[i][1]))
    return partial(np.matmul, left, right, out=out)
