"""What tests of ONNX files share: running a model elsewhere, and telling whether two models are the same."""

from __future__ import annotations

import functools
import hashlib
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", "1.17")
runtime = pytest.importorskip("onnxruntime")

from onnx import helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

Array = np.ndarray[Any, Any]
_NO_KERNEL = ("NOT_IMPLEMENTED", "NotImplemented")


def session(proto: onnx.ModelProto) -> Any:
    """Return an onnxruntime session that computes the model as it stands, without optimisations."""
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return runtime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def has_no_kernel(error: Exception) -> bool:
    """Tell whether onnxruntime refused a valid model because it has no kernel for a dtype."""
    return any(word in f"{type(error)}{error}" for word in _NO_KERNEL)


def run_elsewhere(proto: onnx.ModelProto, feeds: Mapping[str, Array]) -> tuple[dict[str, Array], str]:
    """Return a model's outputs by name, and who computed them: onnxruntime, or ONNX' reference where it has no kernel.

    The reference knows no float64 kernels to be missing, but is Python, and slow.
    """
    names = [output.name for output in proto.graph.output]
    try:
        return dict(zip(names, session(proto).run(names, dict(feeds)), strict=True)), "onnxruntime"
    except Exception as error:
        if not has_no_kernel(error):
            raise
    with np.errstate(all="ignore"):
        return dict(zip(names, ReferenceEvaluator(proto).run(names, dict(feeds)), strict=True)), "reference"


def distance(x: Any, y: Any) -> float:
    """Return the largest difference of two arrays of one type, relative to the largest finite element, or to 1."""
    x, y = np.asarray(x), np.asarray(y)
    assert (x.shape, x.dtype) == (y.shape, y.dtype)
    if x.dtype.kind != "f":
        return 0.0 if np.array_equal(x, y) else math.inf
    x, y = x.astype(np.float64), y.astype(np.float64)
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    if not np.isfinite(x[~same]).all() or not np.isfinite(y[~same]).all():
        return math.inf
    scale = max(1.0, float(np.abs(x[np.isfinite(x)]).max(initial=0.0)))
    return float(np.abs(np.where(same, 0.0, np.where(same, 0.0, x) - np.where(same, 0.0, y))).max(initial=0.0)) / scale


def contents(graph: onnx.GraphProto) -> tuple[Counter[str], list[str]]:
    """Return what a graph computes apart from names and order: its nodes, and its outputs, each as a digest.

    A node's digest is that of its op, its attributes, and the digests of what it reads: an input's place, a tensor's
    type and numbers.
    """
    known = {value.name: f"input {place}" for place, value in enumerate(graph.input)} | {"": "nothing"}
    known |= {tensor.name: _digest("tensor", numpy_helper.to_array(tensor)) for tensor in graph.initializer}
    nodes: Counter[str] = Counter()
    for node in graph.node:
        attributes = sorted((a.name, str(helper.get_attribute_value(a))) for a in node.attribute)
        digest = _digest(node.domain, node.op_type, attributes, [known[name] for name in node.input], len(node.output))
        nodes[digest] += 1
        known |= {name: f"{digest} {place}" for place, name in enumerate(node.output) if name}
    return nodes, [known[value.name] for value in graph.output]


def _digest(*parts: Any) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{part.dtype}{part.shape}".encode() + part.tobytes() if isinstance(part, np.ndarray) else
                      repr(part).encode())  # fmt: skip
    return digest.hexdigest()


def op_types(proto: onnx.ModelProto) -> list[str]:
    """Return the ops of a model in order."""
    return [node.op_type for node in proto.graph.node]


def check(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model that ONNX' own checker, with shape inference, finds valid."""
    onnx.checker.check_model(proto, full_check=True)
    return proto


worst = functools.partial(max, default=0.0)
