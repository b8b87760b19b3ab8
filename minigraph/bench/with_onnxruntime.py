"""Inference in ONNX Runtime, on the file that minigraph writes of the folded network."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime

from minigraph import onnx, ops
from minigraph.bench.workloads import Workload
from minigraph.ir.graph import Graph, same_or_rebuilt
from minigraph.ir.leaves import input as input_
from minigraph.runtime import optimize


def make(workload: Workload, threads: int) -> Any:
    """Return one step and what makes a float of its result."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(_file(workload), options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: np.ascontiguousarray(workload.images().transpose(0, 3, 1, 2))}
    return lambda: session.run(None, feed)[0], lambda y: float(np.abs(y).mean())


def _file(workload: Workload) -> bytes:
    """Return the bytes of the file, with images N,C,H,W as ONNX Runtime wants them."""
    model = workload.model()
    graph = model.lower("inference", workload.batch)
    (old,) = graph.inputs
    n, h, w, c = old.shape
    new = {old: ops.transpose(input_((n, c, h, w), name=old.label), (0, 2, 3, 1))}
    for node in graph.nodes:
        new.setdefault(node, same_or_rebuilt(node, tuple(new[i] for i in node.inputs)))
    fed = Graph({name: new[node] for name, node in graph.outputs.items()})
    optimised = optimize(fed, model.state, exclude=["fuse"])[0]
    data: bytes = onnx.to_proto(optimised, model.state).SerializeToString()
    return data
