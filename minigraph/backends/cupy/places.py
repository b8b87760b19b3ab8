"""What writers of kernels share: pointers, how axes become template arguments, how wide an access may be."""

from __future__ import annotations

import math
from collections.abc import Sequence

from minigraph.backends.cupy.dtypes import CUDA_TYPES, computed_in
from minigraph.backends.cupy.steps import Launch, Parameter, blocks_for
from minigraph.backends.loops.expressions import number

# What is only moved, by its bytes; the last is the widest access of a thread.
WORDS = {1: "uint8_t", 2: "uint16_t", 4: "uint32_t", 8: "uint64_t", 16: "Word16"}
ACCESS = 16


def read(ctype: str, name: str, place: int, offset: int = 0) -> Parameter:
    """Return the pointer to what a kernel reads, and nobody writes meanwhile."""
    return Parameter(f"const {ctype}* __restrict__ {name}", place, offset)


def written(ctype: str, name: str, place: int, offset: int = 0) -> Parameter:
    """Return the pointer to what a kernel writes, where no operand lies."""
    return Parameter(f"{ctype}* __restrict__ {name}", place, offset)


def template(name: str, *arguments: object) -> str:
    """Return a template with its arguments.

    >>> template("Pack", "float", 4), template("Places")
    ('Pack<float, 4>', 'Places<>')
    """
    texts = (str(a).lower() if isinstance(a, bool) else str(a) for a in arguments)
    return f"{name}<{', '.join(texts)}>"


def places(axes: Sequence[tuple[int, int]]) -> str:
    """Return the axes, pairs of a size and a stride, as `places.cuh` has them: as few as may be, the last one first.

    >>> places([(2, 12), (1, 7), (3, 4), (4, 1)]), places([(4, 1), (5, 0), (6, 4)])
    ('Places<24, 1>', 'Places<6, 4, 5, 0, 4, 1>')
    """
    found: list[tuple[int, int]] = []
    for size, stride in axes:
        if size == 1:
            continue
        if found and found[-1][1] == stride * size:
            found[-1] = (found[-1][0] * size, stride)
        else:
            found.append((size, stride))
    return template("Places", *(number for axis in reversed(found) for number in axis))


def widest(itemsize: int, *numbers: int) -> int:
    """Return how many elements an access takes, where all of these numbers of elements are multiples of that.

    >>> widest(4, 12, 6), widest(2, 16), widest(4, 7), widest(8, 0)
    (2, 8, 1, 2)
    """
    return math.gcd(max(1, ACCESS // itemsize), *numbers)


def up_to_power(n: int) -> int:
    """Return the least power of two that is not below a number.

    >>> up_to_power(0), up_to_power(5), up_to_power(8)
    (1, 8, 8)
    """
    return 1 << max(0, n - 1).bit_length()


def constant(value: float, dtype: str) -> str:
    """Return a number as a stored one.

    >>> constant(0.5, "float16"), constant(2, "int8")
    ('from_float<__half>(0x1.0000000000000p-1)', 'from_float<int8_t>(2)')
    """
    text = number(value, computed_in(dtype)) if dtype != "bool" else str(bool(value)).lower()
    return f"from_float<{CUDA_TYPES[dtype]}>({text})"


def fill(dtype: str, size: int, value: float, place: int) -> Launch:
    """Return the kernel that fills the array at a place with a number."""
    line = f"fill({size}, {constant(value, dtype)}, y);"
    return Launch(
        "fill", (written(CUDA_TYPES[dtype], "y", place),), (line,), blocks_for(size), headers=("movement.cuh",)
    )
