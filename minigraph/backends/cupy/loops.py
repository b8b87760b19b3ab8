"""Generated loops: elementwise steps, windows of poolings and sums, as one kernel or two."""

from __future__ import annotations

from minigraph.backends.cupy.dtypes import FLOATS
from minigraph.backends.cupy.pieces import CudaLoop
from minigraph.backends.cupy.steps import Parameter, StepCode
from minigraph.backends.cupy.sums import summing
from minigraph.backends.loops.loop import computes
from minigraph.ir.node import Node


def loops(node: Node) -> bool:
    """Tell whether a generated kernel computes an op, as a step of a group or alone."""
    return computes(node, FLOATS)


def loop_code(node: Node, raw: Parameter | None = None, scratch: int = 0) -> StepCode:
    """Return the kernels of a group, or of a single op that loops compute; its workspace begins at `scratch`.

    raw: where the value of the group's anchor lies, which has been computed before.
    """
    loop = CudaLoop(node, raw)
    if loop.sums:
        kernels, nbytes = summing(loop, scratch)
        return StepCode(kernels, nbytes, loop.overwritable)
    nothing = not loop.made or 0 in loop.domain.shape
    return StepCode(() if nothing else (loop.elementwise(),), 0, loop.overwritable)
