"""Random networks, exported: valid for the checker, the same numbers in onnxruntime, and back again here.

Networks that onnxruntime has no kernels for, of float64, are computed by ONNX' reference implementation.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import minigraph as mg
from minigraph.errors import DataError
from minigraph.ir import Graph, bind
from minigraph.ir.types import is_float
from minigraph.passes import lower
from minigraph.runtime import State, compile
from minigraph.testing.bounds import analyse
from minigraph.testing.networks import random_network, random_values

onnx = pytest.importorskip("onnx", "1.17")
pytest.importorskip("onnxruntime")

from onnx_checks import check, contents, distance, op_types, run_elsewhere  # noqa: E402

from minigraph.onnx.api import import_model, to_proto  # noqa: E402

TOLERANCE = 1e-5  # where a part is of float16, the derived bound
TOLERANCE_FLOAT64 = 1e-7  # an ε is an attribute, and those have 32 bits
FEW, MANY = 25, 200


@dataclass
class Seen:
    """The largest differences, relative to the largest output, by who computed and in which dtype."""

    worst: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def note(self, what: str, value: float) -> None:
        self.worst[what] = max(self.worst.get(what, 0.0), value)
        self.counts[what] = self.counts.get(what, 0) + 1


class Case:
    """A network of one of the dtypes, as a definition and as it infers, and values for its inputs and variables."""

    def __init__(self, index: int) -> None:
        rng = random.Random(f"onnx/{index}")
        self.dtype = rng.choice(("float32", "float32", "float64"))
        self.definition = without_updates(random_network(rng, dtype=self.dtype))
        self.sizes = {name: rng.choice((2, 3)) for name in self.definition.symbols}
        if rng.random() < 0.3:
            self.definition = bind(self.definition, **self.sizes)
        self.values = random_values(self.definition, rng, "random", self.sizes)
        self.state = {v.label: self.values[v.label] for v in self.definition.variables}

    @property
    def narrowest(self) -> str:
        """The float dtype of fewest bits in the network: a part is narrower now and then."""
        types = [t for n in self.definition.nodes for t in getattr(n.type, "items", (n.type,))]
        return min({t.dtype for t in types if is_float(t.dtype)}, key=lambda dtype: np.dtype(dtype).itemsize)

    def inputs(self, graph: Graph) -> dict[str, Any]:
        return {node.label: self.values[node.label] for node in graph.inputs}

    def forms(self) -> dict[str, Graph]:
        inference = lower(self.definition, "inference")
        optimized = mg.optimize(inference, state=State(self.state))[0]
        return {"definition": self.definition, "inference": inference, "optimized": optimized}


def without_updates(graph: Graph) -> Graph:
    return Graph(graph.outputs, inputs=graph.inputs)


def bounds(graph: Graph, case: Case) -> dict[str, float]:
    """Return the derived error bound of each output, relative to its largest element."""
    found = analyse(graph.outputs.values(), case.values, sizes=case.sizes)
    shares = {}
    for name, node in graph.outputs.items():
        value, error = found[node].value, found[node].error
        largest = max(1.0, float(np.abs(value.astype(np.float64)).max(initial=0.0)))
        shares[name] = 2.0 * float(np.asarray(error).max(initial=0.0)) / largest
    return shares


def narrowed(proto: Any) -> Any:
    """Return a model of float64 as one of float32."""
    copy = type(proto).FromString(proto.SerializeToString())
    wide, narrow = onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT
    for tensor in copy.graph.initializer:
        if tensor.data_type == wide:
            array = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    for value in (*copy.graph.input, *copy.graph.output):
        if value.type.tensor_type.elem_type == wide:
            value.type.tensor_type.elem_type = narrow
    for attribute in (a for node in copy.graph.node if node.op_type == "Cast" for a in node.attribute):
        attribute.i = narrow if attribute.i == wide else attribute.i
    return check(copy)


def elsewhere(proto: Any, inputs: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the outputs that others compute; the reference has grouped transposed convolutions wrong."""
    if "ConvTranspose" not in op_types(proto):
        return run_elsewhere(proto, inputs)
    kinds = {v.name: onnx.helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type) for v in proto.graph.output}
    small = {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in inputs.items()}
    found, who = run_elsewhere(narrowed(proto), small)
    return {k: v.astype(kinds[k]) for k, v in found.items()}, f"{who} in float32"


def tried(index: int, seen: Seen) -> None:
    """Export each form of a network, and compare what everybody computes."""
    case = Case(index)
    forms = case.forms()
    inputs = case.inputs(case.definition)
    here = compile(forms["inference"])(State(case.state), **inputs)
    allowed = bounds(forms["inference"], case)
    for form, graph in forms.items():
        proto = check(to_proto(graph, case.state))
        others, who = elsewhere(proto, inputs)
        imported = import_model(proto)
        again = compile(lower(imported.graph, "inference"))(State(imported.state), **inputs)
        for name, value in here.items():
            for what, other in ((who, others[name]), ("again", again[name])):
                difference = distance(value, np.asarray(other))
                limit = max(TOLERANCE, allowed[name]) if case.narrowest == "float16" else TOLERANCE
                if case.narrowest == "float64" and "float32" not in what:
                    limit = TOLERANCE_FLOAT64
                note = f"network {index}, {form}, {name}, {what}: {difference:.3g} > {limit:.3g}\n{graph}"
                assert difference <= limit, note
                seen.note(f"{what}, {form}, {case.narrowest} inside", difference)
        second = to_proto(imported.graph, imported.state)
        assert contents(second.graph) == contents(proto.graph), f"network {index}, {form}\n{graph}\n{imported.graph}"


def test_networks_agree():
    seen = Seen()
    for index in range(FEW):
        tried(index, seen)
    assert sum(seen.counts.values()) > 4 * FEW and max(seen.worst.values()) > 0.0


@pytest.mark.slow
def test_networks_agree_large(capsys):
    seen = Seen()
    for index in range(FEW, FEW + MANY):
        tried(index, seen)
    with capsys.disabled():
        for what, value in sorted(seen.worst.items()):
            print(f"\n{what}: worst {value:.2e} of {seen.counts[what]}", end="")


def test_a_network_without_its_numbers_is_refused():
    graph = next(g for g in (Case(i).definition for i in range(20)) if g.variables)
    with pytest.raises(DataError, match="a parameter has no numbers"):
        to_proto(graph)
