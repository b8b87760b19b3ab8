"""How a convolution may be computed: the table of algorithms, and which one is expected to be fastest where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from minigraph.backends.geometry import Geometry


@dataclass(frozen=True)
class Algorithm:
    """One way to compute one of the three convolutions, written in C++ in `kernels/<header>`.

    `name` is the C++ namespace: `name::pack(team, conv, kernel, packed)` prepares the kernel, if `packed` elements are
    asked for, and `name::run(team, conv, first, second, epilogue, scratch)` computes. `scratch` is in bytes, for all
    threads of a team together.
    """

    name: str
    header: str
    applies: Callable[[Geometry], bool]
    packed: Callable[[Geometry], int]
    scratch: Callable[[Geometry, int], int]
    seconds: Callable[[Geometry, int], float]
    exact: bool = True
