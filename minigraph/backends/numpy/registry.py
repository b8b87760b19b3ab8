"""The table of kernel makers: op class → how to bind its kernel, and what memory it asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from minigraph.backends.numpy import half
from minigraph.backends.numpy.call import Call, Kernel
from minigraph.ir.node import Node
from minigraph.ir.op import Op

Maker: TypeAlias = Callable[[Call], Kernel]


@dataclass(frozen=True)
class Entry:
    """One op's row: the maker, the operands it may overwrite, and its workspace in bytes as a function of the node.

    Which operands may be overwritten depends on the node where `inplace` is a function. A kernel that takes any dtype
    as it comes says `any_dtype`; others are made for float32, float64 and integers, and half precision is widened.
    """

    maker: Maker
    inplace: tuple[int, ...] | Callable[[Node], tuple[int, ...]] = ()
    asked: Callable[[Node], int] | None = None
    alias: bool = False
    any_dtype: bool = False

    def make(self, call: Call) -> Kernel:
        """Return the kernel bound to a call's arrays."""
        return self.maker(call) if self.any_dtype else half.make(self.maker, call)

    def workspace(self, node: Node) -> int:
        """Return the bytes of scratch memory that the kernel of a node asks for."""
        asked = self.asked or _nothing
        return asked(node) if self.any_dtype else half.workspace(asked, node)

    def overwritable(self, node: Node) -> tuple[int, ...]:
        """Return the operands whose memory the result may take over."""
        return self.inplace(node) if callable(self.inplace) else self.inplace


def _nothing(node: Node) -> int:
    return 0


KERNELS: dict[type[Op], Entry] = {}


def kernel(
    op: type[Op],
    *,
    inplace: tuple[int, ...] | Callable[[Node], tuple[int, ...]] = (),
    workspace: Callable[[Node], int] | None = None,
    any_dtype: bool = False,
) -> Callable[[Maker], Maker]:
    """Register the decorated function as the kernel maker of an op."""

    def register(make: Maker) -> Maker:
        KERNELS[op] = Entry(make, inplace, workspace, any_dtype=any_dtype)
        return make

    return register


def view(op: type[Op]) -> None:
    """Register an op whose result is its first operand's memory under another shape."""
    KERNELS[op] = Entry(lambda call: lambda: None, alias=True, any_dtype=True)
