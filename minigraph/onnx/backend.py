"""The onnx.backend API: `prepare`, `run_model`, `run_node`, `supports_device`. ONNX' own suite runs against it.

Graphs are fixed when they are made, so a prepared model makes one for each set of input shapes, and for each set of
numbers that shapes depend on, and keeps the latest.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minigraph.errors import ArgumentError
from minigraph.onnx.api import import_model
from minigraph.onnx.exporter import IR
from minigraph.onnx.files import read_model
from minigraph.onnx.forms import OPSET
from minigraph.onnx.importer import Importer, NumbersNeeded
from minigraph.onnx.proto import onnx_package
from minigraph.passes.lower import lower
from minigraph.runtime import Program, State, compile

Array = np.ndarray[Any, Any]
KEPT = 4


class BackendRep:
    """A model that is ready to run."""

    def __init__(self, model: Any) -> None:
        self.model, self.folder = read_model(model)
        fixed = {t.name for t in self.model.graph.initializer}
        self.inputs = [i.name for i in self.model.graph.input if i.name not in fixed]
        self.outputs = [o.name for o in self.model.graph.output]
        self._needed: set[str] = set()  # inputs whose numbers shapes depend on
        self._programs: OrderedDict[Any, tuple[Program, State]] = OrderedDict()

    def run(self, inputs: Sequence[Any] | Mapping[str, Any]) -> tuple[Array, ...]:
        """Return the outputs for inputs in order, or by name."""
        named = inputs if isinstance(inputs, Mapping) else dict(zip(self.inputs, inputs, strict=True))
        arrays = {name: np.asarray(named[name]) for name in self.inputs}
        program, state = self._program(arrays)
        results = program(state, **{n.label: arrays[n.label] for n in program.definition.inputs})
        return tuple(results[name] for name in self.outputs)

    def _program(self, arrays: dict[str, Array]) -> tuple[Program, State]:
        while True:
            values = {name: arrays[name] for name in sorted(self._needed)}
            key = (
                tuple((name, array.shape) for name, array in arrays.items()),
                tuple((name, array.tobytes()) for name, array in values.items()),
            )
            if key not in self._programs:
                try:
                    self._programs[key] = self._make(arrays, values)
                except NumbersNeeded as error:
                    self._needed.add(error.name)
                    continue
            if len(self._programs) > KEPT:
                self._programs.popitem(last=False)
            return self._programs[key]

    def _make(self, arrays: dict[str, Array], values: dict[str, Array]) -> tuple[Program, State]:
        shapes = {name: array.shape for name, array in arrays.items() if name not in values}
        imported = Importer(self.model, self.folder, "", shapes, values)
        return compile(lower(imported.graph, "inference")), State(imported.state)


def prepare(model: Any, device: str = "CPU", **options: Any) -> BackendRep:
    """Return a model (a path, bytes or a ModelProto) that is ready to run."""
    _check_device(device)
    return BackendRep(model)


def run_model(model: Any, inputs: Sequence[Any] | Mapping[str, Any], device: str = "CPU", **options: Any) -> Any:
    """Return what a model gives for these inputs."""
    return prepare(model, device).run(inputs)


def run_node(
    node: Any, inputs: Sequence[Any], device: str = "CPU", outputs_info: Any = None, **options: Any
) -> tuple[Array, ...]:  # fmt: skip
    """Return what a single node gives for its operands, those that are left out not counted; opset 20 by default."""
    helper = onnx_package().helper
    arrays = dict(zip([name for name in node.input if name], map(np.asarray, inputs), strict=True))
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in arrays.items()
    ]
    results = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
    graph = helper.make_graph([node], "node", values, results)
    opset = helper.make_opsetid(node.domain, options.get("opset_version", OPSET))
    return prepare(helper.make_model(graph, opset_imports=[opset], ir_version=IR), device).run(arrays)


def supports_device(device: str) -> bool:
    """Tell whether models run on a device; ONNX writes them "CPU", "CUDA:0"."""
    return device.partition(":")[0] == "CPU"


def is_compatible(model: Any, device: str = "CPU", **options: Any) -> bool:
    """Tell whether a model can be read; open sizes are seen to when it runs."""
    from minigraph.errors import ModelFormatError

    try:
        import_model(model)
    except NumbersNeeded:
        return supports_device(device)
    except ModelFormatError as error:
        return supports_device(device) and "input_shapes" in (error.hint or "")
    return supports_device(device)


def _check_device(device: str) -> None:
    if not supports_device(device):
        raise ArgumentError("no such device", expected="CPU", got=device)
