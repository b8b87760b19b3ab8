"""How long a step's actions take, on memory that is allocated for it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from minigraph.backends.cupy.gpu import Gpu
from minigraph.backends.cupy.program import OPTIONS
from minigraph.backends.cupy.source import Source
from minigraph.backends.cupy.steps import Action, Launch
from minigraph.ir.node import Node
from minigraph.ir.types import known


def seconds(actions: Sequence[Action], workspace: int, node: Node, gpu: Gpu) -> float:
    """Return the least seconds of some runs; the actions' places are those of the node's own operands and result."""
    sizes = [*(known(n.type.nbytes) for n in (*node.inputs, node)), workspace]
    arrays = [gpu.allocate(nbytes) for nbytes in sizes]
    calls = bound(actions, [int(a.data.ptr) for a in arrays], gpu)

    def run() -> None:
        for call in calls:
            call()

    with gpu.stream:
        return gpu.seconds(run)


def bound(actions: Sequence[Action], addresses: Sequence[int], gpu: Gpu) -> list[Callable[[], object]]:
    """Return actions as calls over these addresses: kernels are compiled now."""
    source = Source()
    names = [source.add(action) if isinstance(action, Launch) else "" for action in actions]
    module = gpu.cupy.RawModule(code=str(source), options=OPTIONS) if source.kernels else None
    calls: list[Callable[[], object]] = []
    for action, name in zip(actions, names, strict=True):
        if not isinstance(action, Launch):
            calls.append(action.bind(gpu, addresses))
            continue
        assert module is not None
        pointers = tuple(addresses[p.place] + p.offset for p in action.parameters)
        calls.append(functools.partial(module.get_function(name), (action.blocks,), (action.threads,), pointers))
    return calls
