"""Convolutions and matrix products of the GPU backend in tests: many in one module, on the stand-in's device."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from backends.reference import REFERENCES
from minigraph import ops
from minigraph.backends.cupy import plans
from minigraph.backends.cupy.convolution import convolution_code
from minigraph.backends.cupy.epilogue import Epilogue
from minigraph.backends.cupy.gpu import Gpu
from minigraph.backends.cupy.products import product_code
from minigraph.backends.cupy.program import OPTIONS
from minigraph.backends.cupy.source import Source
from minigraph.backends.cupy.steps import Action, Launch
from minigraph.backends.dtypes import array_dtype
from minigraph.ir import Node, variable
from minigraph.ir.types import DTYPES
from minigraph.ops.conv import Conv2D, Conv2DKernelAdjoint, Conv2DTranspose, Convolution
from minigraph.ops.linalg import MatMul
from minigraph.testing import cuda

Array = np.ndarray[Any, Any]

needs_compiler = pytest.mark.skipif(not cuda.available(), reason="no C++ compiler")
_UNWRITTEN = 0xFF  # NaN, whatever the dtype
# Relative rounding errors.
EPS = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}


@dataclass
class Case:
    """A convolution or a product, of these operands; those of the epilogue stand behind."""

    node: Node
    operands: list[Array]
    epilogue: Epilogue = field(default_factory=Epilogue)

    def code(self, gpu: Gpu, scratch: int = 0) -> tuple[tuple[Action, ...], int]:
        places = (0, 1, len(self.operands))
        if isinstance(self.node.op, MatMul):
            return product_code(self.node, places, gpu, scratch)
        code = convolution_code(self.node, places, self.epilogue, gpu, scratch)
        assert code is not None
        return code

    def expected(self) -> tuple[Array, Array]:
        """Return the result in float64, and how far roundings may be off it."""
        exact, sizes = ([f(a.astype(np.float64)) for a in self.operands] for f in (np.asarray, np.abs))
        value, size = (_computed(self.node, self.epilogue, operands) for operands in (exact, sizes))
        dtype = self.node.dtype
        added_in = max(EPS[dtype], EPS["float64"]) if dtype in ("float32", "float64") else EPS["float32"]
        # A rounding of each product, and of each partial sum; one more where the result is stored.
        terms = 2 * self._terms() + 4
        return value, terms * added_in * size + EPS[dtype] * np.abs(value) + np.finfo(np.float16).smallest_subnormal

    def _terms(self) -> int:
        first, second = self.operands[:2]
        if isinstance(self.node.op, Conv2DKernelAdjoint):
            return math.prod(second.shape[:3])
        if isinstance(self.node.op, MatMul):
            return max(first.shape[-2:])
        return math.prod(second.shape)

    def check(self, got: Array, slack: float = 0.0) -> None:
        """Assert that a result is within rounding; slack: how far operands may be rounded before."""
        value, error = self.expected()
        if slack:
            error = error + slack * _computed(
                self.node, self.epilogue, [np.abs(a.astype(np.float64)) for a in self.operands]
            )
        assert got.shape == value.shape
        off = np.abs(got.astype(np.float64) - value)
        assert (off <= error).all(), f"{self.node}: off by {np.nanmax(off / error):.3g} of what roundings explain"


def _computed(node: Node, epilogue: Epilogue, operands: Sequence[Array]) -> Array:
    value = REFERENCES[node.op.name](node.op, *operands[:2])
    if epilogue.bias is not None:
        value = value + operands[epilogue.bias]
    if epilogue.residual is not None:
        value = value + operands[epilogue.residual]
    return np.maximum(value, 0) if epilogue.relu else value


def drawn(shape: Sequence[int], dtype: str, seed: int = 0) -> Array:
    """Return random numbers: floats normal, integers over all of their range."""
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        return rng.random(shape) < 0.2
    if dtype in EPS:
        return rng.standard_normal(shape).astype(array_dtype(dtype))
    return rng.integers(0, 1 << 8 * DTYPES[dtype], shape, "uint64").astype(dtype)


def convolution(
    kind: type[Convolution], images: tuple[int, int, int, int], outputs: int, kernel: tuple[int, int],
    dtype: str = "float32", **window: Any,
) -> Case:  # fmt: skip
    """Return one of the three ops of N,H,W,I images and so many output channels."""
    groups = window.get("groups", 1)
    x = variable(images, dtype=dtype, name="x")
    w = variable((*kernel, images[3] // groups, outputs), dtype=dtype, name="w")
    y = ops.conv2d(x, w, **window)
    shared = y.op.shared
    if kind is Conv2DTranspose:
        node = Node(Conv2DTranspose(**shared, output_size=images[1:3]), (variable(y.shape, dtype=dtype, name="y"), w))
    elif kind is Conv2DKernelAdjoint:
        node = Node(Conv2DKernelAdjoint(**shared, kernel_size=kernel), (x, variable(y.shape, dtype=dtype, name="y")))
    else:
        node = y
    return Case(node, [drawn(n.shape, dtype, i) for i, n in enumerate(node.inputs)])


def fused(case: Case, bias: bool = False, residual: bool = False, relu: bool = False) -> Case:
    """Return a convolution with an epilogue."""
    dtype, shape = case.node.dtype, case.node.shape
    added = [*([(shape[-1],)] if bias else []), *([shape] if residual else [])]
    places = iter(range(2, 4))
    epilogue = Epilogue(next(places) if bias else None, next(places) if residual else None, relu)
    return Case(case.node, [*case.operands, *(drawn(s, dtype, 7 + i) for i, s in enumerate(added))], epilogue)


@contextmanager
def device(frontend: bool = True, backwards: bool = False, **options: Any) -> Iterator[tuple[Gpu, cuda.Device]]:
    """Put the stand-in's device in place, with what programs know of it."""
    with cuda.standin(frontend=frontend, backwards=backwards) as log:
        yield Gpu(**{"tune": False, **options}), log


def results(cases: Sequence[Case], gpu: Gpu, captured: bool = False) -> list[Array]:
    """Return what the code of each case computes: all kernels are one module."""
    codes = [case.code(gpu) for case in cases]
    source = Source()
    names = {a: source.add(a) for actions, _ in codes for a in actions if isinstance(a, Launch)}
    module = gpu.cupy.RawModule(code=str(source), options=OPTIONS) if names else None
    calls: list[Any] = []
    targets = []
    held = []
    for case, (actions, workspace) in zip(cases, codes, strict=True):
        kind = array_dtype(case.node.dtype)
        sizes = [*(a.nbytes for a in case.operands), math.prod(case.node.shape) * kind.itemsize, workspace]
        arrays = [gpu.allocate(size) for size in sizes]
        held.append(arrays)
        for array, operand in zip(arrays, case.operands, strict=False):
            array.set(np.ascontiguousarray(operand).view(np.uint8).reshape(-1), gpu.stream)
        for array in arrays[len(case.operands) :]:
            gpu.runtime.memsetAsync(int(array.data.ptr), _UNWRITTEN, array.nbytes, gpu.stream.ptr)
        addresses = [int(a.data.ptr) for a in arrays]
        for action in actions:
            if not isinstance(action, Launch):
                calls.append(action.bind(gpu, addresses))
                continue
            pointers = tuple(addresses[p.place] + p.offset for p in action.parameters)
            kernel = module.get_function(names[action])
            calls.append(functools.partial(kernel, (action.blocks,), (action.threads,), pointers))
        targets.append((arrays[-2], kind, case.node.shape))
    with gpu.stream:
        _run(calls, gpu, captured)
    found = [array.get(gpu.stream).view(kind).reshape(shape) for array, kind, shape in targets]
    for case, arrays in zip(cases, held, strict=True):
        for array, operand in zip(arrays, case.operands, strict=False):
            assert array.get(gpu.stream).tobytes() == operand.tobytes(), f"{case.node} changes an operand"
    return found


def _run(calls: Sequence[Any], gpu: Gpu, captured: bool) -> None:
    if captured:
        gpu.stream.begin_capture()
    for call in calls:
        call()
    if captured:
        gpu.stream.end_capture().launch(gpu.stream)


def names(case: Case, gpu: Gpu) -> list[str]:
    """Return what the actions of a case are called."""
    return [action.name for action in case.code(gpu)[0]]


@pytest.fixture(autouse=True)
def own_plans(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Keep plans in a folder of the test's own."""
    monkeypatch.setattr(plans, "cache_folder", lambda: tmp_path)
    return tmp_path / "cudnn"


KINDS = (Conv2D, Conv2DTranspose, Conv2DKernelAdjoint)
