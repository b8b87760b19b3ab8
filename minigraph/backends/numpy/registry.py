"""The table of kernel makers: op class → how to bind its kernel, and what memory it asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from minigraph.ir.node import Node
from minigraph.ir.op import Op
from minigraph.ir.types import DTYPES, TensorType, known

Array: TypeAlias = "np.ndarray[Any, Any]"
Kernel: TypeAlias = Callable[[], object]


@dataclass
class Call:
    """All that a kernel maker gets: the op, its operands' arrays, the result's array, scratch memory, threads."""

    op: Any
    inputs: tuple[Array, ...]
    output: Any  # an array, or a tuple of them
    workspace: Array  # bytes
    threads: int

    def scratch(self, *shapes: tuple[int, ...], dtype: Any = None) -> list[Array]:
        """Return arrays that lie one behind the other in the workspace, 64-byte aligned."""
        kind = np.dtype(dtype or self.inputs[0].dtype)
        arrays, offset = [], 0
        for shape in shapes:
            nbytes = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
            arrays.append(self.workspace[offset : offset + nbytes].view(kind).reshape(shape))
            offset += align(nbytes)
        return arrays


def align(nbytes: int) -> int:
    """Return a number of bytes rounded up to a multiple of 64, a cache line."""
    return -(-nbytes // 64) * 64


Maker: TypeAlias = Callable[[Call], Kernel]


@dataclass(frozen=True)
class Entry:
    """One op's row: the maker, the operands it may overwrite, and its workspace in bytes as a function of the node.

    Which operands may be overwritten depends on the node where `inplace` is a function.
    """

    make: Maker
    inplace: tuple[int, ...] | Callable[[Node], tuple[int, ...]] = ()
    workspace: Callable[[Node], int] | None = None
    alias: bool = False

    def overwritable(self, node: Node) -> tuple[int, ...]:
        """Return the operands whose memory the result may take over."""
        return self.inplace(node) if callable(self.inplace) else self.inplace


KERNELS: dict[type[Op], Entry] = {}


def kernel(
    op: type[Op],
    *,
    inplace: tuple[int, ...] | Callable[[Node], tuple[int, ...]] = (),
    workspace: Callable[[Node], int] | None = None,
) -> Callable[[Maker], Maker]:
    """Register the decorated function as the kernel maker of an op."""

    def register(make: Maker) -> Maker:
        KERNELS[op] = Entry(make, inplace, workspace)
        return make

    return register


def view(op: type[Op]) -> None:
    """Register an op whose result is its first operand's memory under another shape."""
    KERNELS[op] = Entry(lambda call: lambda: None, alias=True)


def shape_of(type: Any) -> tuple[int, ...]:
    """Return a bound tensor type's shape as numbers."""
    assert isinstance(type, TensorType)
    return tuple(known(s) for s in type.shape)


def nbytes_of(shape: tuple[int, ...], dtype: str) -> int:
    """Return the aligned bytes of an array, as `Call.scratch` lays it out."""
    return align(int(np.prod(shape, dtype=np.int64)) * DTYPES[dtype])
