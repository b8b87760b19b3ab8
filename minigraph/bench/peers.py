"""Who takes part: minigraph on each of its backends, and every framework that is installed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

import minigraph
from minigraph.bench import workloads
from minigraph.bench.networks import NETWORKS
from minigraph.bench.workloads import Workload
from minigraph.errors import ArgumentError, did_you_mean

OURS = "minigraph-"
# One step without arguments, and what makes a float of its result.
Prepared: TypeAlias = tuple[Callable[[], Any], Callable[[Any], float]]


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
        made: Prepared = with_torch.make(workload, NETWORKS[model.name], workloads.parameters(model), variant, threads)
        return made

    return prepare


def _jax(workload: Workload, threads: int) -> Prepared:
    from minigraph.bench import with_jax

    model = workload.model()
    made: Prepared = with_jax.make(workload, NETWORKS[model.name], workloads.parameters(model))
    return made


def _onnxruntime(workload: Workload, threads: int) -> Prepared:
    from minigraph.bench import with_onnxruntime

    made: Prepared = with_onnxruntime.make(workload, threads)
    return made


PEERS = {
    "torch": Peer("torch", True, _torch("")),
    "torch-channels-last": Peer("torch", True, _torch("channels-last")),  # with the fused optimiser
    "torch-compile": Peer("torch", True, _torch("compile")),
    "jax": Peer("jax", True, _jax),
    "onnxruntime": Peer("onnxruntime", False, _onnxruntime),
}


def check(name: str) -> None:
    """Raise an ArgumentError for the name of no peer."""
    if name not in PEERS and not name.startswith(OURS):
        raise ArgumentError("no such peer", expected=", ".join(PEERS), got=name, hint=did_you_mean(name, list(PEERS)))


def usable(name: str, workload: Workload) -> bool:
    """Tell whether a peer is installed and does this workload.

    >>> usable("minigraph-numpy", workloads.find("W1")[0]), usable("onnxruntime", workloads.find("W1")[0])
    (True, False)
    """
    check(name)
    if name.startswith(OURS):
        return True
    peer = PEERS[name]
    return (peer.trains or not workload.trains) and importlib.util.find_spec(peer.package) is not None


def version(name: str) -> str:
    """Return the version of a peer's package."""
    return minigraph.__version__ if name.startswith(OURS) else importlib.metadata.version(PEERS[name].package)


def prepare(name: str, workload: Workload, threads: int) -> Prepared:
    """Return one step of a workload as a peer does it, and what makes a float of its result."""
    check(name)
    if not name.startswith(OURS):
        return PEERS[name].prepare(workload, threads)
    backend = workloads.backend_on(name.removeprefix(OURS), threads)
    step = workloads.stepper(*workloads.prepared(workload, backend))
    return step, float if workload.trains else _size


def _size(y: Any) -> float:
    return float(np.abs(y).mean())
