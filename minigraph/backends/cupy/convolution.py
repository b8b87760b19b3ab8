"""Which algorithm computes a convolution: cuDNN, matrix products, or kernels of our own.

Where windows are pixels a convolution is a matrix product as it stands, and where each channel is by itself there is
none in it: these two have an algorithm of their own beside cuDNN's, and the faster is taken. What cuDNN refuses, and
everything where cuDNN is not installed, is a product with the matrix of windows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from minigraph.backends.cupy.cudnn import check_determinism, cudnn_code
from minigraph.backends.cupy.depthwise import depthwise_code
from minigraph.backends.cupy.epilogue import Epilogue
from minigraph.backends.cupy.gpu import Gpu
from minigraph.backends.cupy.graphs import Request
from minigraph.backends.cupy.im2col import are_pixels, matrix_code
from minigraph.backends.cupy.plans import plans_of
from minigraph.backends.cupy.products import Places
from minigraph.backends.cupy.steps import Action
from minigraph.backends.cupy.tuning import seconds
from minigraph.backends.geometry import Geometry
from minigraph.ir.leaves import Constant
from minigraph.ir.node import Node
from minigraph.ops.conv import Conv2DKernelAdjoint, Convolution

# Actions, and the bytes of workspace that they use.
Code: TypeAlias = tuple[tuple[Action, ...], int]


def convolution_code(anchor: Node, places: Places, epilogue: Epilogue, gpu: Gpu, scratch: int) -> Code | None:
    """Return the actions that compute a convolution or one of its adjoints, and the bytes of workspace that they use.

    places: where the operands and the result lie, none of which may be empty; the result may lie at the beginning of
    the workspace. scratch: where in the workspace these bytes begin. What depends on a constant kernel alone is marked
    as done once, into memory of its size. None only if the epilogue is not to be had in one
    pass. Raises a ProgramError if the device is to be deterministic, and cuDNN has a plan, but none that is.
    """
    found = _Algorithms(anchor, epilogue, gpu)
    if epilogue:
        return found.direct(places, scratch) if found.g.depthwise else found.library(places, scratch, found.constant)
    if found.has_own and not (gpu.tune and found.library_is_faster()):
        return found.own(places, scratch)
    code = found.library(places, scratch, found.constant)
    if code is not None:
        return code
    check_determinism(found.op, found.g, anchor.dtype, gpu, anchor.origin.where)
    return found.matrix(places, scratch)


@dataclass(frozen=True)
class _Algorithms:
    """One convolution by each of its algorithms."""

    node: Node
    epilogue: Epilogue
    gpu: Gpu

    @property
    def op(self) -> Convolution:
        assert isinstance(self.node.op, Convolution)
        return self.node.op

    @property
    def g(self) -> Geometry:
        return Geometry.of_node(self.node)

    @property
    def has_own(self) -> bool:
        """Whether it is a matrix product as it stands, or none at all."""
        return are_pixels(self.g) or self.g.depthwise

    def own(self, places: Places, scratch: int) -> Code:
        return self.direct(places, scratch) if self.g.depthwise else self.matrix(places, scratch)

    def direct(self, places: Places, scratch: int) -> Code:
        return depthwise_code(self.op, self.g, self.node.dtype, places, self.epilogue, scratch)

    def matrix(self, places: Places, scratch: int) -> Code:
        return matrix_code(self.op, self.g, self.node.dtype, places, self.gpu, scratch)

    def library(self, places: Places, scratch: int, once: bool = False) -> Code | None:
        return cudnn_code(self.op, self.g, self.node.dtype, places, self.epilogue, self.gpu, scratch, once)

    @property
    def constant(self) -> bool:
        """Whether the kernel is the same in every run."""
        return not isinstance(self.op, Conv2DKernelAdjoint) and isinstance(self.node.inputs[1].op, Constant)

    def library_is_faster(self) -> bool:
        """Tell whether cuDNN took less time than the convolution's own algorithm, when both were measured."""
        places = (0, 1, 2)
        library = self.library(places, 0)
        if library is None:
            return False

        def measure() -> str:
            times = {"own": seconds(*self.own(places, 0), self.node, self.gpu)}
            times["library"] = seconds(*library, self.node, self.gpu)
            return min(times, key=lambda name: times[name])

        request = Request.of(self.op, self.g, self.node.dtype, self.epilogue, self.gpu)
        return plans_of(self.gpu).choose(str(request), ("own", "library"), self.gpu, measure) == "library"
