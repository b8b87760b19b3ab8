"""Who takes part: minigraph on each of its backends, and every framework that is installed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import minigraph
from minigraph.bench import on_gpu, workloads
from minigraph.bench.networks import NETWORKS
from minigraph.bench.workloads import Prepared, Workload
from minigraph.errors import ArgumentError, did_you_mean

OURS = "minigraph-"


@dataclass(frozen=True)
class Peer:
    """A framework in one of its settings: the package it needs, whether it trains, what prepares a workload."""

    package: str
    trains: bool
    prepare: Callable[[Workload, int], Prepared]


def _torch(variant: str) -> Callable[[Workload, int], Prepared]:
    def prepare(workload: Workload, threads: int) -> Prepared:
        from minigraph.bench import with_torch

        model = workload.model()
        return Prepared(*with_torch.make(workload, NETWORKS[model.name], workloads.parameters(model), variant, threads))

    return prepare


def _torch_on_gpu(variant: str) -> Callable[[Workload, int], Prepared]:
    def prepare(workload: Workload, threads: int) -> Prepared:
        from minigraph.bench import with_torch_cuda

        model = workload.model()
        return with_torch_cuda.make(workload, NETWORKS[model.name], workloads.parameters(model), variant)

    return prepare


def _jax(workload: Workload, threads: int) -> Prepared:
    if workload.gpu:  # it reads these when it is imported
        os.environ["JAX_PLATFORMS"] = "cuda"
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # the others need memory as well
    from minigraph.bench import with_jax

    model = workload.model()
    return with_jax.make(workload, NETWORKS[model.name], workloads.parameters(model))


def _onnxruntime(workload: Workload, threads: int) -> Prepared:
    from minigraph.bench import with_onnxruntime

    return Prepared(*with_onnxruntime.make(workload, threads))


PEERS = {
    "torch": Peer("torch", True, _torch("")),
    "torch-channels-last": Peer("torch", True, _torch("channels-last")),  # with the fused optimiser
    "torch-compile": Peer("torch", True, _torch("compile")),
    "jax": Peer("jax", True, _jax),
    "onnxruntime": Peer("onnxruntime", False, _onnxruntime),
}
# All of them with images channels last, and what is float32 in the workload's precision.
GPU_PEERS = {
    "torch": Peer("torch", True, _torch_on_gpu("")),
    "torch-compile": Peer("torch", True, _torch_on_gpu("compile")),  # mode="max-autotune"
    "torch-graph": Peer("torch", True, _torch_on_gpu("graph")),  # the whole step in one CUDA graph, by hand
    "jax": Peer("jax", True, _jax),
}


def of(workload: Workload) -> dict[str, Peer]:
    """Return who takes part in a workload, beside minigraph.

    >>> list(of(workloads.find("G1")[0]))
    ['torch', 'torch-compile', 'torch-graph', 'jax']
    """
    return GPU_PEERS if workload.gpu else PEERS


def check(name: str) -> None:
    """Raise an ArgumentError for the name of no peer."""
    known = list(PEERS | GPU_PEERS)
    if name not in known and not name.startswith(OURS):
        raise ArgumentError("no such peer", expected=", ".join(known), got=name, hint=did_you_mean(name, known))


def usable(name: str, workload: Workload) -> bool:
    """Tell whether a peer is installed and does this workload.

    >>> usable("minigraph-numpy", workloads.find("W1")[0]), usable("onnxruntime", workloads.find("W1")[0])
    (True, False)
    """
    check(name)
    if name.startswith(OURS):
        return True
    peer = of(workload).get(name)
    if peer is None or (workload.trains and not peer.trains):
        return False
    return importlib.util.find_spec(peer.package) is not None


def version(name: str) -> str:
    """Return the version of a peer's package."""
    return minigraph.__version__ if name.startswith(OURS) else importlib.metadata.version(_package(name))


def _package(name: str) -> str:
    return (PEERS | GPU_PEERS)[name].package


def prepare(name: str, workload: Workload, threads: int) -> Prepared:
    """Return a workload as a peer does it."""
    check(name)
    if not name.startswith(OURS):
        return of(workload)[name].prepare(workload, threads)
    if workload.gpu:
        return on_gpu.make(workload)
    backend = workloads.backend_on(name.removeprefix(OURS), threads)
    step = workloads.stepper(*workloads.prepared(workload, backend))
    return Prepared(step, float if workload.trains else _size)


def _size(y: Any) -> float:
    return float(np.abs(y).mean())
