"""What cuDNN's graphs are made of: tensors that lie somewhere, operations on them, plans to compute them by."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minigraph.testing.cuda import correlation
from minigraph.testing.cuda.blas import from_bfloat16, to_bfloat16
from minigraph.testing.cuda.memory import at

Array = np.ndarray[Any, Any]


class cudnnGraphNotSupportedError(Exception):
    """No plan computes the graph."""


class data_type(enum.Enum):
    """How elements are stored."""

    FLOAT = "float32"
    DOUBLE = "float64"
    HALF = "float16"
    BFLOAT16 = "bfloat16"
    NOT_SET = ""


class numerical_note(enum.Enum):
    """What a plan says of its numbers."""

    TENSOR_CORE = "TENSOR_CORE"
    DOWN_CONVERT_INPUTS = "DOWN_CONVERT_INPUTS"
    REDUCED_PRECISION_REDUCTION = "REDUCED_PRECISION_REDUCTION"
    NONDETERMINISTIC = "NONDETERMINISTIC"
    WINOGRAD = "WINOGRAD"


@dataclass(frozen=True)
class FakePlan:
    """A plan that the library proposes.

    workspace: bytes that it asks for, and fills. seconds: how long it takes at the least. operations: for which graphs
    it is there, named by their operations; all if it is empty. builds: whether it can be built at all.
    """

    name: str
    notes: frozenset[numerical_note] = frozenset()
    workspace: int = 0
    seconds: float = 0.0
    operations: tuple[str, ...] = ()
    builds: bool = True

    def computes(self, operations: Iterable[str]) -> bool:
        """Tell whether the plan computes a graph of these operations."""
        return not self.operations or self.operations == tuple(operations)


@dataclass
class Tensor:
    """A tensor of a graph: what is computed of others is virtual, until it is an output."""

    dim: list[int] = field(default_factory=list)
    stride: list[int] = field(default_factory=list)
    kind: str = ""
    uid: int = 0
    is_output: bool = False

    def set_output(self, value: bool) -> Tensor:
        """Say whether it is stored."""
        self.is_output = value
        return self

    def set_data_type(self, value: data_type) -> Tensor:
        """Say how its elements are stored."""
        self.kind = value.value
        return self

    def set_uid(self, value: int) -> Tensor:
        """Give it the number that its address is found by."""
        self.uid = value
        return self

    def set_dim(self, value: Sequence[int]) -> Tensor:
        """Say how large it is."""
        self.dim = list(value)
        return self

    def set_stride(self, value: Sequence[int]) -> Tensor:
        """Say how far its elements lie apart."""
        self.stride = list(value)
        return self

    def check(self) -> None:
        """Raise unless it says how large it is, and where its elements lie."""
        if not self.dim or len(self.dim) != len(self.stride) or min(self.dim) < 1 or not self.kind:
            raise cudnnGraphNotSupportedError(f"tensor {self.uid}: dim {self.dim}, stride {self.stride}, {self.kind!r}")
        if self.kind == data_type.DOUBLE.value:
            raise cudnnGraphNotSupportedError("no engine computes in double precision")

    def span(self, address: int) -> tuple[int, int]:
        """Return the bytes of it at an address."""
        last = sum((n - 1) * step for n, step in zip(self.dim, self.stride, strict=True))
        return address, (last + 1) * (4 if self.kind == data_type.FLOAT.value else 2)

    def view(self, address: int) -> Array:
        """Return its elements as they are stored, bfloat16 as bits."""
        stored = np.dtype(np.uint16 if self.kind == data_type.BFLOAT16.value else self.kind)
        elements = at(*self.span(address)).view(stored)
        return np.lib.stride_tricks.as_strided(elements, self.dim, [step * stored.itemsize for step in self.stride])

    def read(self, address: int) -> Array:
        """Return its numbers, as float32."""
        stored = self.view(address)
        return from_bfloat16(stored) if self.kind == data_type.BFLOAT16.value else stored.astype(np.float32)

    def write(self, address: int, values: Array) -> None:
        """Store numbers."""
        if list(values.shape) != self.dim:
            raise ValueError(f"tensor {self.uid} is {self.dim}, what is computed {values.shape}")
        view = self.view(address)
        with np.errstate(over="ignore"):
            view[...] = to_bfloat16(values) if self.kind == data_type.BFLOAT16.value else values.astype(view.dtype)


@dataclass
class Node:
    """An operation of a graph: tensors by their places in it."""

    operation: str
    inputs: list[int]
    output: int
    window: dict[str, list[int]] = field(default_factory=dict)


def compute(node: Node, inputs: Sequence[Array], made: Tensor, rounded: Callable[[Array], Array]) -> Array:
    """Return what an operation makes; rounded: what becomes of a convolution's operands before."""
    if node.operation in ("bias", "add"):
        return np.add(*inputs)
    if node.operation == "relu":
        return np.maximum(inputs[0], np.float32(0))
    first, second = map(rounded, inputs)
    if node.operation == "conv_fprop":
        return correlation.forward(first, second, **node.window)
    function = correlation.transpose if node.operation == "conv_dgrad" else correlation.kernel_adjoint
    return function(first, second, tuple(made.dim), **node.window)
