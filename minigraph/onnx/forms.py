"""A graph in ops that ONNX has at the opset that is written: what functions stay the one node they came as."""

from __future__ import annotations

from minigraph.ir.graph import Graph
from minigraph.ir.leaves import Item
from minigraph.ir.node import Node
from minigraph.ir.types import TensorType
from minigraph.onnx.proto import onnx_package
from minigraph.onnx.writing.dtypes import in_known_dtype
from minigraph.ops.fused import Fused
from minigraph.ops.group import Group
from minigraph.ops.region import Function, inlined_results
from minigraph.ops.window import NHWC
from minigraph.passes.channels_first import CHANNELS_FIRST
from minigraph.passes.fuse import UNFUSE
from minigraph.passes.trace import Trace

OPSET = 20
# Ops that mean the same since this version of theirs as at opset 20: later versions took more types, or attributes with
# defaults that change nothing. Of others a function is written only if its version is the one of opset 20.
_SAME_SINCE = {
    "Ceil": 6, "Celu": 12, "CumSum": 11, "DepthToSpace": 1, "GatherElements": 11, "GatherND": 11, "Hardmax": 13,
    "InstanceNormalization": 6, "IsInf": 10, "IsNaN": 9, "LRN": 1, "Mish": 18, "Mod": 10, "PRelu": 7, "Reciprocal": 6,
    "Resize": 11, "Round": 11, "Selu": 6, "Softsign": 1, "SpaceToDepth": 1, "ThresholdedRelu": 10, "Tile": 6,
    "Trilu": 14, "Mean": 8, "Div": 7, "Clip": 11, "OneHot": 9, "Tan": 7, "Pow": 7, "BatchNormalization": 14, "Pad": 11,
    "Acos": 7, "Acosh": 9, "Asin": 7, "Asinh": 9, "Atan": 7, "Atanh": 9, "AveragePool": 19, "Conv": 11, "Cosh": 9,
    "ConvTranspose": 11, "GlobalLpPool": 2, "LpNormalization": 1, "LpPool": 18, "MaxPool": 12, "Sinh": 9, "TopK": 11,
}  # fmt: skip

# The onnx package's own shape inference fails on the function that defines it, where its axes are left out.
_UNCHECKED = {"MeanVarianceNormalization"}


def prepared(graph: Graph) -> Graph:
    """Return the graph in ops that ONNX has: regions taken apart, images with channels first."""
    trace = Trace()
    if any(isinstance(n.op, Fused) for n in graph.nodes):
        graph = UNFUSE(graph, trace)
    if any(isinstance(n.op, (Function, Group)) and not _has_form(n) for n in graph.nodes):
        graph = graph.rebuild(_Inlining())
    if any(getattr(n.op, "layout", None) == NHWC for n in graph.nodes):
        graph = CHANNELS_FIRST(graph, trace)
    return graph.rebuild(in_known_dtype)


def _has_form(node: Node) -> bool:
    """Tell whether a function can be written as the one node that it came as, with its attributes and dtypes."""
    op, defs = node.op, onnx_package().defs
    if not isinstance(op, Function):
        return False
    attributes = dict(op.attributes)
    since = attributes.pop("since_version", 0)
    attributes.pop("outputs", None)
    try:
        schema = defs.get_schema(op.label, OPSET, "")
    except defs.SchemaError:
        return False
    if schema.deprecated or op.label in _UNCHECKED or not attributes.keys() <= schema.attributes.keys():
        return False
    if since != schema.since_version and since < _SAME_SINCE.get(op.label, OPSET + 1):
        return False
    slots = op.slots or range(len(node.inputs))
    formal = [schema.inputs[min(place, len(schema.inputs) - 1)] for place in range(len(slots))]
    return all(slot < 0 or _type_name(node.inputs[slot]) in f.types for slot, f in zip(slots, formal, strict=True))


def _type_name(node: Node) -> str:
    names = {"float32": "float", "float64": "double"}
    return f"tensor({names.get(node.dtype, node.dtype)})"


class _Inlining:
    """Takes functions without a form, and groups, apart: each once, however many of its results are read."""

    def __init__(self) -> None:
        self.apart: dict[Node, list[Node]] = {}

    def __call__(self, node: Node, inputs: tuple[Node, ...]) -> Node:
        made = node if inputs == node.inputs else node.with_inputs(inputs)
        source = inputs[0] if isinstance(node.op, Item) else made
        if not isinstance(source.op, (Function, Group)) or _has_form(source):
            return made
        if source not in self.apart:
            self.apart[source] = inlined_results(source)
        if isinstance(node.op, Item):
            return self.apart[source][node.op.index]
        return self.apart[source][0] if isinstance(made.type, TensorType) else made
