"""A convolution as a graph of cuDNN's frontend: tensors, what is computed of them, and which plans are allowed.

cuDNN counts axes as N,C,H,W whatever lies where; strides say that channels are last. Kernels it wants in memory as
O,H,W,I. A tensor's uid says what it is in the convolution, whichever of the three ops is computed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from minigraph.backends.cupy.epilogue import Epilogue
from minigraph.backends.cupy.gpu import Gpu
from minigraph.backends.geometry import Geometry
from minigraph.ir.types import DTYPES
from minigraph.ops.conv import Conv2D, Conv2DKernelAdjoint, Conv2DTranspose, Convolution

IMAGES, KERNEL, OUTPUTS, BIAS, RESIDUAL = range(1, 6)
# Which of them an op makes.
RESULTS = {Conv2D.name: OUTPUTS, Conv2DTranspose.name: IMAGES, Conv2DKernelAdjoint.name: KERNEL}
# dtype → cuDNN's name of it
DATA_TYPES = {"float32": "FLOAT", "float16": "HALF", "bfloat16": "BFLOAT16"}

Four = tuple[int, int, int, int]
Pair = tuple[int, int]


@dataclass(frozen=True)
class Request:
    """All that a convolution's plan depends on, but for the device.

    images, outputs: N,H,W,C; kernel: O,H,W,I of a group. before, after: padding, (vertical, horizontal). workspace: the
    most bytes that a plan may ask for. tuned: whether it is to be the fastest, or the first that the library proposes.
    """

    op: str
    images: Four
    kernel: Four
    outputs: Four
    strides: Pair
    dilations: Pair
    before: Pair
    after: Pair
    dtype: str
    bias: bool
    residual: bool
    relu: bool
    precision: str
    deterministic: bool
    workspace: int
    tuned: bool

    @classmethod
    def of(cls, op: Convolution, g: Geometry, dtype: str, epilogue: Epilogue, gpu: Gpu) -> Request:
        """Return the request for an op with an epilogue on a device."""
        (top, bottom), (left, right) = g.pads
        return cls(
            op.name, g.images, (g.outputs[3], *g.window.size, g.images[3] // g.groups), g.outputs, g.window.strides,
            g.window.dilations, (top, left), (bottom, right), dtype, epilogue.bias is not None,
            epilogue.residual is not None, epilogue.relu, gpu.precision, gpu.deterministic, gpu.workspace, gpu.tune,
        )  # fmt: skip

    def shapes(self) -> dict[int, Four]:
        """Return the shape in memory of each tensor, channels last."""
        found = {IMAGES: self.images, KERNEL: self.kernel, OUTPUTS: self.outputs}
        if self.bias:
            found[BIAS] = (1, 1, 1, self.outputs[3])
        if self.residual:
            found[RESIDUAL] = self.outputs
        return found

    def nbytes(self) -> dict[int, int]:
        """Return the bytes of each tensor."""
        return {uid: math.prod(shape) * DTYPES[self.dtype] for uid, shape in self.shapes().items()}


def _layout(shape: Four) -> dict[str, list[int]]:
    """Return a channels-last shape as cuDNN's frontend is told of it.

    >>> _layout((8, 14, 15, 64))
    {'dim': [8, 64, 14, 15], 'stride': [13440, 1, 960, 64]}
    """
    n, h, w, c = shape
    return {"dim": [n, c, h, w], "stride": [h * w * c, 1, w * c, c]}


def graph_of(request: Request, cudnn: Any, **device: Any) -> Any:
    """Return the graph; device: what the frontend knows the device by, a handle or its properties."""
    kind = getattr(cudnn.data_type, DATA_TYPES[request.dtype])
    wide = cudnn.data_type.FLOAT
    graph = cudnn.pygraph(io_data_type=kind, intermediate_data_type=wide, compute_data_type=wide, **device)
    result = RESULTS[request.op]
    tensors = {
        uid: graph.tensor(**_layout(shape), data_type=kind, uid=uid)
        for uid, shape in request.shapes().items()
        if uid != result
    }
    made = _computed(graph, request, tensors)
    layout = _layout(request.shapes()[result])
    made.set_output(True).set_data_type(kind).set_uid(result).set_dim(layout["dim"]).set_stride(layout["stride"])
    return graph


def _computed(graph: Any, request: Request, tensors: dict[int, Any]) -> Any:
    window = {
        "pre_padding": list(request.before), "post_padding": list(request.after), "stride": list(request.strides),
        "dilation": list(request.dilations),
    }  # fmt: skip
    if request.op == Conv2DTranspose.name:
        return graph.conv_dgrad(loss=tensors[OUTPUTS], filter=tensors[KERNEL], **window)
    if request.op == Conv2DKernelAdjoint.name:
        return graph.conv_wgrad(image=tensors[IMAGES], loss=tensors[OUTPUTS], **window)
    made = graph.conv_fprop(image=tensors[IMAGES], weight=tensors[KERNEL], **window)
    if request.bias:
        made = graph.bias(input=made, bias=tensors[BIAS])
    if request.residual:
        made = graph.add(a=made, b=tensors[RESIDUAL])
    return graph.relu(input=made) if request.relu else made


def propose(graph: Any, request: Request, cudnn: Any) -> None:
    """Let cuDNN propose plans, the likely fastest first, and strike out those that the request does not allow.

    Raises the frontend's cudnnGraphNotSupportedError if there is none.
    """
    graph.validate()
    graph.build_operation_graph()
    graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
    notes = cudnn.numerical_note
    barred = [notes.REDUCED_PRECISION_REDUCTION]
    if request.dtype == "float32" and request.precision == "float32":
        barred += [notes.TENSOR_CORE, notes.DOWN_CONVERT_INPUTS]
    if request.deterministic:
        barred.append(notes.NONDETERMINISTIC)
    graph.deselect_numeric_notes(barred)
    graph.deselect_workspace_greater_than(request.workspace)
    graph.check_support()
