"""The functions users call."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from minigraph.ir.graph import Graph
from minigraph.ir.types import Dim
from minigraph.onnx.exporter import export
from minigraph.onnx.files import read_model, write_model
from minigraph.onnx.importer import Importer
from minigraph.onnx.signature import keep_signature
from minigraph.passes.fold import linear_of_batch_norm, linear_of_rectified_batch_norm
from minigraph.passes.lower import lower
from minigraph.runtime import optimize as run_passes

if TYPE_CHECKING:
    from onnx import ModelProto

    from minigraph.passes.trace import Trace
    from minigraph.training.model import Model

    Source: TypeAlias = str | os.PathLike[str] | bytes | ModelProto


def load(
    source: Source,
    input_shapes: Mapping[str, Sequence[int | None]] | None = None,
    input_values: Mapping[str, Any] | None = None,
) -> Model:
    """Return the model in an ONNX file (a path, its bytes, or a ModelProto) as a definition with its weights.

    Images stay N,C,H,W. Sizes that the file leaves open are symbolic, N the batch's; `input_shapes` (name → shape, None
    for what stays open) binds them. `input_values` (name → array) makes constants of inputs that shapes depend on.
    Batch norms and dropouts come as a definition's, so that the model can be trained on. Raises a ModelFormatError,
    which names the node, its op and the opset, for what cannot be read.

    Source: the ONNX IR and operator specifications.

    >>> import onnx  # doctest: +SKIP
    >>> load("resnet50.onnx", input_shapes={"data": (1, 3, 224, 224)}).graph.outputs  # doctest: +SKIP
    mappingproxy({'prob': <softmax : float32[1,1000]>})
    """
    from minigraph.training.model import Model

    imported = import_model(source, input_shapes, input_values)
    return Model.from_graph(imported.graph, imported.model.graph.name or "model", state=imported.state)


def import_model(
    source: Source,
    input_shapes: Mapping[str, Sequence[int | None]] | None = None,
    input_values: Mapping[str, Any] | None = None,
) -> Importer:
    """Return a file's definition and the numbers of its variables."""
    proto, folder = read_model(source)
    file = os.path.basename(os.fspath(source)) if isinstance(source, (str, os.PathLike)) else proto.graph.name
    return Importer(proto, folder, file, input_shapes, input_values)


def to_proto(model: Model | Graph, state: Mapping[str, Any] | None = None, name: str | None = None) -> ModelProto:
    """Return a model, or a graph with its state, as a ModelProto: opset 20, IR 10.

    A definition keeps its batch norms and dropouts, as inference nodes; a graph that `mg.optimize` made comes without.
    Images are written with channels first; a model that has them last gets a transpose at its edges. Raises a
    GraphError for a training graph and for what ONNX has no form of.

    >>> from minigraph import layers  # doctest: +SKIP
    >>> x = layers.Input((4,), name="x")  # doctest: +SKIP
    >>> [node.op_type for node in to_proto(Model(x, layers.Dense(3)(x))).graph.node]  # doctest: +SKIP
    ['Gemm']
    """
    graph = model if isinstance(model, Graph) else model.graph
    if state is None:
        state = {} if isinstance(model, Graph) else model.state
    return export(graph, state, name or str(getattr(model, "name", "model")))


def save(
    model: Model | Graph, path: str | os.PathLike[str], state: Mapping[str, Any] | None = None, name: str | None = None
) -> Path:
    """Write a model, or a graph with its state, as an ONNX file, whole or not at all; see `to_proto`."""
    return write_model(path, to_proto(model, state, name))


def optimize(proto: Source, input_shapes: Mapping[str, Sequence[int | None]] | None = None) -> ModelProto:
    """Return an ONNX model with minigraph's passes done to it; names, types and order of inputs and outputs stay.

    Batch norms go into convolutions and products, constants are computed, what nothing reads is gone; activations stay
    nodes of their own. `input_shapes` binds open sizes. `optimize_with_trace` gives the report too.
    """
    return optimize_with_trace(proto, input_shapes)[0]


def optimize_with_trace(
    source: Source, input_shapes: Mapping[str, Sequence[int | None]] | None = None
) -> tuple[ModelProto, Trace]:
    """Return the optimised model, and the trace of what each rewrite did."""
    imported = import_model(source, input_shapes)
    definition = lower(imported.graph, "inference")
    graph, trace = run_passes(definition, imported.state, exclude=["fuse"])
    if _has_open_parameter(graph):
        # The shift of a batch norm before a padded convolution: a map over the image. A program of ours knows the size
        # and computes it once; a file that leaves the size open would do so at each run, so the batch norm stays.
        excluded = [linear_of_batch_norm.__name__, linear_of_rectified_batch_norm.__name__]
        graph, trace = run_passes(definition, imported.state, exclude=["fuse", *excluded])
    result = export(graph, imported.state, imported.model.graph.name)
    keep_signature(imported.model, result, bound=bool(input_shapes))
    return result, trace


def _has_open_parameter(graph: Graph) -> bool:
    """Tell whether something that depends on no input's numbers depends on an open size."""
    fed = set(graph.inputs)
    for node in graph.nodes:
        if any(i in fed for i in node.inputs):
            fed.add(node)
        elif node not in fed and any(isinstance(size, Dim) for size in getattr(node.type, "shape", ())):
            return True
    return False
