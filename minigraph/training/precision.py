"""What `precision=` of a model means: a pass over its graphs, or how its backend multiplies."""

from __future__ import annotations

from minigraph.backends.base import Backend
from minigraph.backends.base import get as get_backend
from minigraph.errors import ArgumentError
from minigraph.ir.graph import Graph
from minigraph.ir.types import HALF
from minigraph.passes.precision import mixed_precision

PRECISIONS = ("float32", "tf32", *HALF)


def in_precision(graph: Graph, precision: str) -> Graph:
    """Return a lowered graph as it runs in a precision.

    >>> from minigraph.ir import variable
    >>> graph = Graph({"y": -variable((3,), name="x")})
    >>> in_precision(graph, "float32") is graph
    True
    """
    return mixed_precision(graph, precision) if precision in HALF else graph


def backend_of(backend: str | Backend, precision: str) -> Backend:
    """Return the backend that computes in a precision; an ArgumentError says where there is none.

    >>> backend_of("numpy", "bfloat16").name
    'numpy'
    """
    if precision not in PRECISIONS:
        raise ArgumentError("no such precision", expected=", ".join(PRECISIONS), got=repr(precision))
    if precision != "tf32":
        return get_backend(backend)
    if backend != "cupy":
        raise ArgumentError(
            "tf32 is a precision of the GPU's matrix units",
            expected='backend="cupy"',
            got=repr(backend if isinstance(backend, str) else backend.name),
            hint='a backend that is an object says so itself: CupyBackend(precision="tf32")',
        )
    from minigraph.backends.cupy import CupyBackend

    chosen: Backend = CupyBackend(precision="tf32")
    return chosen
