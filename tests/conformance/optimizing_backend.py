"""An ONNX backend that optimises a model before it runs it; one whose shapes need an input's numbers runs as it is."""

import pytest

pytest.importorskip("onnx", "1.17")

from onnx import checker

from minigraph.onnx import backend, optimize
from minigraph.onnx.importer import NumbersNeeded


def prepare(model, device="CPU"):
    try:
        optimized = optimize(model)
    except NumbersNeeded:
        return backend.prepare(model, device)
    checker.check_model(optimized, full_check=True)
    assert [output.name for output in optimized.graph.output] == [output.name for output in model.graph.output]
    return backend.prepare(optimized, device)
