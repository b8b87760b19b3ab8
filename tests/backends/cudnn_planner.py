"""Run as a program: lets cuDNN propose and build plans for an H200 without one, and prints how many as JSON.

cuDNN plans for a device that it is told of (its documentation calls that deviceless ahead-of-time compilation).
"""

from __future__ import annotations

import importlib
import itertools
import json
from collections.abc import Iterator
from typing import Any

from minigraph.backends.cupy.graphs import Request, graph_of, propose

# What cuDNN writes down of a device: here an H200.
H200 = {
    "cudaDeviceId": 0, "deviceVer": 900, "driverVer": 13000, "deviceName": "NVIDIA H200", "pciDeviceId": 0,
    "maxGridSize": [2147483647, 65535, 65535], "maxBlockSize": [1024, 1024, 64], "regsPerBlock": 65536,
    "multiProcessorCount": 132, "smClockRateKHz": 1980000, "memClockRateKHz": 3201000, "l2CacheSize": 62914560,
    "warpSize": 32, "maxSharedMemoryPerBlock": 49152, "maxSharedMemoryPerBlockOptin": 232448,
    "reservedSharedMemoryPerBlock": 1024, "maxRegistersPerSM": 65536, "maxCtasPerSM": 32, "maxThreadsPerBlock": 1024,
    "maxThreadsPerSM": 2048, "isTccDriver": 0, "supportCoopLaunch": 1, "totalGlobalMem": 150_000_000_000,
}  # fmt: skip
OPS = ("conv2d", "conv2d_transpose", "conv2d_kernel_adjoint")
PRECISIONS = (("float32", "float32"), ("float32", "tf32"), ("bfloat16", "float32"), ("float16", "float32"))
# images, kernel (O,H,W,I of a group), stride, dilation, padding before and after
GEOMETRIES = {
    "3x3": ((32, 56, 56, 64), (64, 3, 3, 64), 1, 1, 1, 1),
    "stem": ((8, 224, 224, 3), (64, 7, 7, 3), 2, 1, 2, 3),
    "one channel": ((64, 28, 28, 1), (32, 3, 3, 1), 1, 1, 1, 1),
    "same, stride 2": ((32, 56, 56, 64), (128, 3, 3, 64), 2, 1, 0, 1),
    "1x1": ((32, 56, 56, 64), (256, 1, 1, 64), 1, 1, 0, 0),
    "groups": ((8, 28, 28, 64), (64, 3, 3, 16), 1, 1, 1, 1),
    "dilated, odd": ((3, 11, 11, 5), (7, 3, 3, 5), 1, 2, 2, 2),
}


def requests() -> Iterator[tuple[str, Request]]:
    """Yield what convolutions ask for, by name: all ops alone, and forward with a bias, and a rectifier."""
    plain, bias, rectified = (False, False, False), (True, False, False), (True, False, True)
    for (name, numbers), (dtype, precision), fixed in itertools.product(GEOMETRIES.items(), PRECISIONS, (False, True)):
        images, kernel, stride, dilation, before, after = numbers
        height = (images[1] + before + after - (kernel[1] - 1) * dilation - 1) // stride + 1
        outputs = (images[0], height, height, kernel[0])
        for op, epilogue in (*((op, plain) for op in OPS), ("conv2d", bias), ("conv2d", rectified)):
            yield (
                f"{op} of {name}, {dtype} as {precision}, epilogue {epilogue}, deterministic {fixed}",
                Request(
                    op, images, kernel, outputs, (stride,) * 2, (dilation,) * 2, (before,) * 2, (after,) * 2, dtype,
                    *epilogue, precision, fixed, 1 << 30, True,
                ),
            )  # fmt: skip


def buildable(request: Request, cudnn: Any) -> int:
    """Return how many plans cuDNN builds, up to two, and check that the first is kept and taken back."""
    device = cudnn.create_device_properties(json.dumps(H200))
    graph = graph_of(request, cudnn, device_property=device, sm_version=90, sm_count=132)
    try:
        propose(graph, request, cudnn)
    except cudnn.cudnnGraphNotSupportedError:
        return 0
    built = 0
    for index in range(graph.get_execution_plan_count()):
        try:
            graph.build_plan_at_index(index)
        except cudnn.cudnnGraphNotSupportedError:
            continue
        built += 1
        if built == 1:
            size = graph.get_workspace_size_plan_at_index(index)
            again = cudnn.pygraph(device_property=device)
            again.deserialize(list(bytes(graph.serialize())))
            assert again.get_workspace_size() == size <= request.workspace
    return built


if __name__ == "__main__":
    frontend = importlib.import_module("cudnn")
    print(json.dumps({name: buildable(request, frontend) for name, request in requests()}))
