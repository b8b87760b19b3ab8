"""Programs of the C backend in tests: compiled in a moment. What they share with other backends is in `programs`."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from backends.programs import Array, agrees, check, ends_of, merged, merged_values, run, within
from minigraph.backends.c import CBackend, compilers
from minigraph.runtime import Program

__all__ = [
    "Array", "agrees", "backend", "check", "ends_of", "merged", "merged_values", "needs_compiler", "on_numpy", "run",
    "within",
]  # fmt: skip

needs_compiler = pytest.mark.skipif(compilers.find() is None, reason="no C++ compiler")


@dataclass(frozen=True)
class Quick(compilers.Compiler):
    """The compiler, told not to optimise: the same arithmetic from the same source, compiled in a fifth of the time."""

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags, of which the last of a kind counts."""
        return (*super().flags, "-O0")


def backend(threads: int = 2, quick: bool = True) -> CBackend:
    """Return the C backend; `quick` compiles without optimising."""
    made = CBackend(threads)
    if quick:
        made.compiler = Quick(made.compiler.command, made.compiler.version)
    return made


def on_numpy(program: Program) -> list[str]:
    """Return the ops that NumPy's kernels compute between the compiled steps."""
    bound = program.prepare().bound
    assert bound is not None
    numbers = bound.code._numbers  # type: ignore[attr-defined]
    return [step.node.op.name for step, number in zip(program.plan.steps, numbers, strict=True) if number is None]
