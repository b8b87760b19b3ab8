"""Convolutions by cuDNN: a call of a plan, and kernels brought into the order that the library wants, or back."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from minigraph.backends.cupy.epilogue import Epilogue
from minigraph.backends.cupy.gpu import Gpu
from minigraph.backends.cupy.graphs import BIAS, DATA_TYPES, IMAGES, KERNEL, OUTPUTS, RESIDUAL, Request
from minigraph.backends.cupy.places import WORDS, read, template, written
from minigraph.backends.cupy.plans import Plan, plans_of
from minigraph.backends.cupy.products import Places
from minigraph.backends.cupy.steps import PREPARED, Action, Launch, aligned
from minigraph.backends.geometry import Geometry
from minigraph.errors import ProgramError
from minigraph.ir.types import DTYPES
from minigraph.ops.conv import Conv2D, Conv2DKernelAdjoint, Conv2DTranspose, Convolution

# Which tensors an op's operands and its result are.
_ROLES = {
    Conv2D.name: (IMAGES, KERNEL, OUTPUTS),
    Conv2DTranspose.name: (OUTPUTS, KERNEL, IMAGES),
    Conv2DKernelAdjoint.name: (IMAGES, OUTPUTS, KERNEL),
}
_SIDE = 32  # of the tiles that a kernel is transposed by


@dataclass(frozen=True)
class Convolve:
    """A call of cuDNN. arrays: each tensor's uid, with its place and offset; scratch: where the workspace begins."""

    name: str
    plan: Plan
    arrays: tuple[tuple[int, int, int], ...]
    scratch: int

    def bind(self, gpu: Gpu, addresses: Sequence[int]) -> Callable[[], object]:
        """Return the call over these addresses."""
        pack = {uid: addresses[place] + offset for uid, place, offset in self.arrays}
        return functools.partial(self.plan.graph.execute, pack, addresses[-1] + self.scratch, handle=gpu.cudnn_handle)


def cudnn_code(
    op: Convolution, g: Geometry, dtype: str, places: Places, epilogue: Epilogue, gpu: Gpu, scratch: int, once: bool
) -> tuple[tuple[Action, ...], int] | None:
    """Return the actions that compute a convolution, and the bytes of workspace from `scratch` on; None if refused.

    once: the kernel is constant; it is packed into PREPARED memory of its own size.
    """
    if gpu.cudnn is None or dtype not in DATA_TYPES:
        return None
    plan = plans_of(gpu).find(Request.of(op, g, dtype, epilogue, gpu), gpu)
    if plan is None:
        return None
    where = {role: (place, 0) for role, place in zip(_ROLES[op.name], places, strict=True)}
    if epilogue.bias is not None:
        where[BIAS] = (epilogue.bias, 0)
    if epilogue.residual is not None:
        where[RESIDUAL] = (epilogue.residual, 0)
    rows, columns = g.depth, g.outputs[3]
    if 1 in (rows, columns):  # the same in both orders
        packed, before, after = 0, list[Action](), list[Action]()
    else:
        kernel, where[KERNEL] = where[KERNEL], (PREPARED, 0) if once else (-1, scratch)
        packed = 0 if once else aligned(rows * columns * g.itemsize)
        before, after = [], []
        if isinstance(op, Conv2DKernelAdjoint):
            after.append(_transposed("unpack", where[KERNEL], kernel, columns, rows, dtype))
        else:
            before.append(replace(_transposed("pack", kernel, where[KERNEL], rows, columns, dtype), once=once))
    call = Convolve(op.name, plan, tuple((uid, *at) for uid, at in where.items()), scratch + packed)
    return (*before, call, *after), packed + plan.workspace


def _transposed(
    name: str, source: tuple[int, int], target: tuple[int, int], rows: int, columns: int, dtype: str
) -> Launch:
    """Return the kernel that transposes a matrix: H,W,I,O is one of H·W·I rows, and O,H,W,I its transpose."""
    word = WORDS[DTYPES[dtype]]
    line = template("transpose", _SIDE, rows, columns, columns, rows, "Places<>", "Places<>") + "(x, y);"
    blocks = math.ceil(rows / _SIDE) * math.ceil(columns / _SIDE)
    return Launch(
        name, (read(word, "x", *source), written(word, "y", *target)), (line,), blocks, headers=("movement.cuh",)
    )


def check_determinism(op: Convolution, g: Geometry, dtype: str, gpu: Gpu, where: str | None) -> None:
    """Raise a ProgramError if cuDNN refuses a convolution for no other reason than that its bits are to be the same."""
    if gpu.cudnn is None or dtype not in DATA_TYPES or not gpu.deterministic:
        return
    request = replace(Request.of(op, g, dtype, Epilogue(), gpu), deterministic=False, tuned=False)
    if plans_of(gpu).find(request, gpu) is not None:
        raise ProgramError(
            f"no deterministic plan for {op.name}",
            expected="a plan of cuDNN's that gives the same bits at every run",
            got=f"images {g.images}, kernel {g.window.size}, outputs {g.outputs}, {dtype}",
            where=where,
            hint="compile without deterministic=True, or allow a larger workspace",
        )
