"""An ONNX backend that computes with the C backend."""

import pytest

pytest.importorskip("onnx", "1.17")

from backends.c_programs import backend as quick

from minigraph.onnx.backend import BackendRep
from minigraph.runtime import compile


class OnC(BackendRep):
    """A model that runs as compiled programs."""

    def _make(self, arrays, values):
        program, state = super()._make(arrays, values)
        return compile(program.definition, backend=quick()), state


def prepare(model, device="CPU"):
    return OnC(model)
