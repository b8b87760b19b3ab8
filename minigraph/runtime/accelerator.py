"""What a GPU can do: the bandwidth of its memory, and the FLOP/s of each arithmetic that products are done in.

From them comes a floor under the time of each step of a plan, the roofline of Williams, Waterman, Patterson 2009:

    floor(step) = max(bytes / bandwidth, FLOPs / peak)

with all operands read once and all results written once, and the peak of the arithmetic of the step's product; of a
step without one, that of float32. The sum over all steps is the least time of a plan whose steps follow each other.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, TypeAlias

from minigraph.backends.base import Backend
from minigraph.files import cache_folder, write_atomically
from minigraph.ir.node import Node
from minigraph.ir.types import known
from minigraph.ops.conv import Convolution
from minigraph.ops.linalg import MatMul
from minigraph.ops.region import Region, steps_of
from minigraph.runtime.machine import measured

# A step's floating-point operations, bytes, and arithmetic.
Work: TypeAlias = tuple[int, int, str]
# What a step without a product computes in.
PLAIN = "float32"


@dataclass(frozen=True)
class Accelerator:
    """A GPU's limits: bytes a second of its memory, and FLOP/s by the arithmetic of products."""

    name: str
    bandwidth: float
    flops: tuple[tuple[str, float], ...]

    def floor(self, work: Work) -> float:
        """Return the least seconds of a step.

        >>> H200.floor((395 * 10**9, 10**6, "tf32")), H200.floor((0, 43 * 10**8, "float32"))
        (0.001, 0.001)
        """
        flops, nbytes, arithmetic = work
        peaks = dict(self.flops)
        return max(nbytes / self.bandwidth, flops / peaks.get(arithmetic, peaks[PLAIN]))

    def total(self, works: Iterable[Work]) -> float:
        """Return the least seconds of steps that follow each other."""
        return sum(map(self.floor, works))

    def with_limits(self, peak: float | None = None, bandwidth: float | None = None) -> Accelerator:
        """Return these limits with one peak for all products, or with another bandwidth.

        >>> H200.with_limits(peak=1e15).floor((10**12, 0, "bfloat16"))
        0.001
        """
        changed = self.flops if peak is None else tuple((name, peak) for name, _ in self.flops if name != PLAIN)
        kept = () if peak is None else tuple(pair for pair in self.flops if pair[0] == PLAIN)
        return replace(self, flops=(*changed, *kept), bandwidth=bandwidth or self.bandwidth)

    def __str__(self) -> str:
        peaks = ", ".join(f"{name} {rate / 1e12:.0f}" for name, rate in self.flops)
        return f"{self.name}: {self.bandwidth / 1e12:.2f} TB/s, TFLOP/s: {peaks}"


# Copies, and products of large matrices of random numbers; float32 and float64 are the vendor's figures.
H200 = Accelerator(
    "NVIDIA H200",
    4.3e12,
    (("bfloat16", 790e12), ("float16", 790e12), ("tf32", 395e12), ("float32", 67e12), ("float64", 67e12)),
)
KNOWN = {H200.name: H200}


def work_of(node: Node, tf32: bool = False) -> Work:
    """Return what a step has to do; tf32: whether products of float32 are done in that.

    >>> from minigraph.ir import variable
    >>> from minigraph.ops import matmul
    >>> x = variable((2, 2))
    >>> work_of(matmul(x, x), tf32=True), work_of(-x)
    ((16, 48, 'tf32'), (4, 32, 'float32'))
    """
    return known(node.op.flops(node)), node.op.bytes(node), _arithmetic(node, tf32)


def _arithmetic(node: Node, tf32: bool) -> str:
    steps = steps_of(node, node.origin) if isinstance(node.op, Region) else [node]
    products = [step for step in steps if isinstance(step.op, (Convolution, MatMul))]
    if not products:
        return PLAIN
    dtype = products[0].inputs[0].dtype
    return "tf32" if tf32 and dtype == "float32" else dtype


def floors_on(backend: Backend) -> Callable[[Node], float] | None:
    """Return the floor of a step on a backend's machine or device; None where its limits are not known."""
    if not getattr(backend, "remote", False):
        machine = measured(getattr(backend, "threads", None))
        return None if machine is None else machine.least
    gpu: Any = getattr(backend, "gpu", None)  # a device of another kind has none
    limits = None if gpu is None else limits_of(gpu.name)
    return None if limits is None else partial(_least, limits, gpu.precision == "tf32")


def _least(limits: Accelerator, tf32: bool, node: Node) -> float:
    return limits.floor(work_of(node, tf32))


# --- what is kept -----------------------------------------------------------------------------------------------------


def limits_of(name: str) -> Accelerator | None:
    """Return the limits of a device by its name: as they were measured here, else as they are known."""
    return _kept().get(name, KNOWN.get(name))


def keep(limits: Accelerator) -> None:
    """Remember what was measured."""
    content = {name: asdict(each) for name, each in {**_kept(), limits.name: limits}.items()}
    _path().parent.mkdir(parents=True, exist_ok=True)
    write_atomically(_path(), json.dumps(content, indent=1, ensure_ascii=False))


def _path() -> pathlib.Path:
    return cache_folder() / "accelerators.json"


def _kept() -> dict[str, Accelerator]:
    """Return all that is in the file; nothing of a file that is not as `keep` writes it."""
    try:
        content = json.loads(_path().read_text(encoding="utf-8"))
        return {name: _accelerator(**fields) for name, fields in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):  # to be measured again
        return {}


def _accelerator(name: str, bandwidth: float, flops: list[tuple[str, float]]) -> Accelerator:
    return Accelerator(name, float(bandwidth), tuple((str(each), float(rate)) for each, rate in flops))
