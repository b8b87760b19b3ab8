"""An ONNX backend that computes on a GPU."""

import functools

import pytest

pytest.importorskip("onnx", "1.17")

from minigraph.backends.cupy import CupyBackend
from minigraph.onnx.backend import BackendRep
from minigraph.runtime import compile


@functools.cache
def backend():
    """One for all models: a device's handles and copies are set up once."""
    return CupyBackend(tune=False)


class OnCupy(BackendRep):
    """A model that runs as compiled programs."""

    def _make(self, arrays, values):
        program, state = super()._make(arrays, values)
        return compile(program.definition, backend=backend()), state


def prepare(model, device="CPU"):
    return OnCupy(model)
