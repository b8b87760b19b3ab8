"""Places where the backend runs, and the marks that say which tests run where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from minigraph.backends.cupy import CupyBackend
from minigraph.testing import cuda

_DEVICE = pytest.param("device", marks=pytest.mark.gpu)

# On a device; and always on the stand-in as well, or only with `-m slow`.
everywhere = pytest.mark.parametrize("gpu", [_DEVICE, "stand-in"], indirect=True)
slow_elsewhere = pytest.mark.parametrize(
    "gpu", [_DEVICE, pytest.param("stand-in", marks=pytest.mark.slow)], indirect=True
)
# On a device alone: what takes hours on a processor, or what a stand-in has nothing to say about.
on_device = pytest.mark.parametrize("gpu", [_DEVICE], indirect=True)


@dataclass(frozen=True)
class Place:
    """A device, or the stand-in for one, which keeps a log."""

    standin: cuda.Device | None = None

    def backend(self, precision: str = "float32", deterministic: bool = False, tune: bool = False) -> CupyBackend:
        """Return a backend; its convolutions take the algorithms that the library's heuristics put first."""
        return CupyBackend(precision=precision, deterministic=deterministic, tune=tune)

    def few(self, on_device: int, elsewhere: int) -> int:
        """Return how many cases to try: a processor that plays a GPU is slow."""
        return on_device if self.standin is None else elsewhere

    def used_bytes(self, backend: CupyBackend) -> int:
        """Return how much of the device's memory is in use."""
        used: Any = backend.gpu.cupy.get_default_memory_pool().used_bytes()
        return int(used)
