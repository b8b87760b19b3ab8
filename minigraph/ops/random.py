"""Random numbers from an explicit key and counter, and dropout.

Philox4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): a block of numbers is a pure
function of key and counter, so a program is too, and resuming needs nothing but the counter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minigraph.errors import ArgumentError, DTypeError, GradientError
from minigraph.ir.node import Node, Operand, as_node
from minigraph.ir.op import Op
from minigraph.ir.types import Shape, Size, TensorType, check_shape, is_float, product, tensor


@dataclass(frozen=True)
class RandomUniform(Op, name="random_uniform"):
    """Independent uniform numbers in [0, 1): element i is word i of the Philox stream of (key, counter), scaled.

    The operand is the counter: an int64 scalar that a program adds 1 to at every step; it is the high word of Philox'
    256-bit counter, so that streams of different steps never meet. float32 takes the upper 24 bits of each 32-bit
    half word, low half first; float64 the upper 53 bits of each 64-bit word.
    """

    shape: Shape = ()
    key: tuple[int, int] = (0, 0)
    dtype: str = "float32"
    category = "random"

    def __post_init__(self) -> None:
        if len(self.key) != 2 or any(not isinstance(k, int) or not 0 <= k < 2**64 for k in self.key):
            raise ArgumentError("bad Philox key", expected="two integers in 0 … 2⁶⁴ − 1", got=self.key)
        if self.dtype not in ("float32", "float64"):
            raise ArgumentError("bad dtype for random numbers", expected="float32 or float64", got=self.dtype)

    def infer(self, counter: Any) -> TensorType:
        """The shape is given; the counter is an int64 scalar."""
        if counter != TensorType((), "int64"):
            raise DTypeError("the counter must be a scalar", expected="int64[]", got=counter)
        return TensorType(self.shape, self.dtype)

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """A counter has no gradient."""
        return (None,)

    def flops(self, node: Node) -> Size:
        """About ten rounds of two multiplications for each four words."""
        return 10 * product(self.shape)


@dataclass(frozen=True)
class Dropout(Op, name="dropout"):
    """Mode-neutral: in training each element is 0 with probability `rate`, else x/(1 − rate); in inference x.

    `seed` fixes the Philox key; without it lowering numbers the dropouts of a graph in order.
    """

    rate: float = 0.5
    seed: int | None = None
    category = "random"

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 1:
            raise ArgumentError("bad dropout rate", expected="0 ≤ rate < 1", got=self.rate)

    def infer(self, x: Any) -> TensorType:
        """x's type, a float's."""
        type = tensor(x)
        if not is_float(type.dtype):
            raise DTypeError("dropout of integers", expected="a float dtype", got=type)
        return type

    def vjp(self, node: Node, g: Node) -> tuple[Node | None, ...]:
        """None before lowering: the mask does not exist yet."""
        raise GradientError(
            "a dropout of a definition has no gradient: its mode is still open",
            where=node.origin.where,
            hint='lower the graph first: mg.lower(graph, "training")',
        )


def random_uniform(counter: Operand, shape: Any, key: tuple[int, int] = (0, 0), dtype: str = "float32") -> Node:
    """Return uniform numbers in [0, 1), a pure function of the counter node and the key.

    >>> from minigraph.ir import variable
    >>> random_uniform(variable((), dtype="int64"), (2, 3), key=(0, 7))
    <random_uniform : float32[2,3]>
    """
    try:
        words = (int(key[0]), int(key[1]))
    except (TypeError, ValueError, IndexError):
        raise ArgumentError("bad Philox key", expected="two integers", got=repr(key)) from None
    return Node(RandomUniform(check_shape(shape), words, dtype), (as_node(counter),))


def dropout(x: Operand, rate: float = 0.5, seed: int | None = None) -> Node:
    """Return x with elements dropped at random in training (Srivastava et al. 2014), unchanged in inference.

    >>> from minigraph.ir import variable
    >>> dropout(variable((2, 3)), 0.25)
    <dropout : float32[2,3]>
    """
    return Node(Dropout(float(rate), seed), (as_node(x),))
