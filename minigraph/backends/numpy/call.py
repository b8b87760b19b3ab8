"""What a kernel maker gets and gives: arrays and scratch memory, and the calls to make."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from minigraph.ir.types import DTYPES, TensorType, known

Array: TypeAlias = "np.ndarray[Any, Any]"
Kernel: TypeAlias = Callable[[], object]


class Steps:
    """The kernel that makes several calls, one after the other.

    >>> from functools import partial
    >>> array = np.ones(2)
    >>> Steps([partial(np.add, array, 1, out=array), partial(np.multiply, array, 3, out=array)])()
    >>> array
    array([6., 6.])
    """

    def __init__(self, calls: Iterable[Kernel]) -> None:
        self.calls: list[Kernel] = []
        for call in calls:
            self.calls += call.calls if isinstance(call, Steps) else [call]

    def __call__(self) -> None:
        """Make the calls."""
        for call in self.calls:
            call()


@dataclass
class Call:
    """All that a kernel maker gets: the op, its operands' arrays, the result's array, scratch memory, threads."""

    op: Any
    inputs: tuple[Array, ...]
    output: Any  # an array, or a tuple of them
    workspace: Array  # bytes
    threads: int
    exact: bool = False  # whether to spare no operation for the sake of digits

    def scratch(self, *shapes: tuple[int, ...], dtype: Any = None) -> list[Array]:
        """Return arrays that lie one behind the other in the workspace, 64-byte aligned."""
        scratch = Scratch(self.workspace, dtype or self.inputs[0].dtype)
        return [scratch.array(*shape) for shape in shapes]


class Scratch:
    """A workspace, handed out from the front, each piece aligned to a cache line."""

    def __init__(self, memory: Array, dtype: Any) -> None:
        self.memory = memory
        self.dtype = np.dtype(dtype)

    def bytes(self, nbytes: int) -> Array:
        """Return the next so many bytes."""
        taken, self.memory = self.memory[:nbytes], self.memory[align(nbytes) :]
        return taken

    def array(self, *shape: int) -> Array:
        """Return the next bytes as an array."""
        array: Array = self.bytes(math.prod(shape) * self.dtype.itemsize).view(self.dtype).reshape(shape)
        return array


def align(nbytes: int) -> int:
    """Return a number of bytes rounded up to a multiple of 64, a cache line."""
    return -(-nbytes // 64) * 64


def shape_of(type: Any) -> tuple[int, ...]:
    """Return a bound tensor type's shape as numbers."""
    assert isinstance(type, TensorType)
    return tuple(known(s) for s in type.shape)


def nbytes_of(shape: tuple[int, ...], dtype: str) -> int:
    """Return the aligned bytes of an array, as `Call.scratch` lays it out."""
    return align(int(np.prod(shape, dtype=np.int64)) * DTYPES[dtype])
