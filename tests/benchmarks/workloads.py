"""The workloads for a harness that loads this file (`MG_BENCH=tests/benchmarks/workloads.py`) and calls `make`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

import minigraph as mg
from minigraph.bench import workloads


def make(
    workload: str, backend: str, data: tuple[np.ndarray, np.ndarray | None], threads: int
) -> tuple[Callable[[], Any], Callable[[Any], float]]:
    """Return one step of a workload on a backend, and what makes a float of its result.

    data: images N,C,H,W, and class numbers for training. For inference the harness names an ONNX file.
    """
    images, labels = data
    chosen = workloads.backend_on(backend, threads)
    if labels is None:
        model = mg.onnx.load(sys.modules["__main__"].onnx_path(workload))
        program, state = workloads.inference_program(model, chosen)
        return workloads.stepper(program, state, workloads.feeds(model, images)), lambda y: float(np.abs(y).mean())
    model = workloads.find(workload)[0].model()
    program, state = workloads.training_program(model, chosen)
    images = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    return workloads.stepper(program, state, workloads.feeds(model, images, labels)), float
