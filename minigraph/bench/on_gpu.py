"""The workloads on minigraph's own backend for GPUs, by what any user may call.

A step's batch goes up from the host with `submit`; or it stays on the device, as variables that the state holds but
does not list, and the program has no inputs; or a whole data set does, and the program gathers its batches itself.
"""

from __future__ import annotations

import numpy as np

from minigraph.backends.base import Backend
from minigraph.bench import workloads
from minigraph.bench.workloads import SET, Array, Prepared, Workload
from minigraph.errors import ProgramError
from minigraph.ir.graph import Graph, bind, same_or_rebuilt
from minigraph.ir.leaves import variable
from minigraph.ir.node import Node
from minigraph.ir.types import TensorType
from minigraph.runtime import Pending, Program, State, compile
from minigraph.runtime.accelerator import Work, work_of
from minigraph.runtime.program import sizes_of
from minigraph.training.resident import ORDER, POSITION, data_label, order_dtype, resident, total_label


def check() -> None:
    """Raise a ProgramError that says in one line what is missing where there is no GPU to use."""
    from minigraph.backends.cupy.gpu import missing

    lacking = missing()
    if lacking is not None:
        raise ProgramError(f"nothing to time on: {lacking}", where="")


def device() -> str:
    """Return the device's name."""
    from minigraph.backends.cupy.gpu import Gpu

    return Gpu().name


def about() -> str:
    """Return what there is of a device, its driver and libraries, in one line."""
    from minigraph.backends.cupy.about import describe

    return "; ".join(describe())


def backend_for(workload: Workload) -> Backend:
    """Return the backend that multiplies in a workload's precision."""
    from minigraph.backends.cupy import CupyBackend

    made: Backend = CupyBackend(precision="float32" if workload.precision == "float32" else "tf32")
    return made


def make(workload: Workload) -> Prepared:
    """Return a workload."""
    backend = backend_for(workload)
    program, state, feed = workloads.prepared(workload, backend)
    if workload.data == "set":
        return _launching(workload, program, state, feed)
    if workload.data == "device":
        program, feed = fed_by_variables(program, state, feed), {}
    latest: list[Pending] = []

    def step() -> Pending:
        latest[:] = [program.submit(state, **feed)]
        return latest[0]

    program.prepare(**dict.fromkeys(program.definition.symbols, workload.batch))
    number = _loss if workload.trains else _size
    return Prepared(step, number, lambda: latest[0].result(), 1, lambda: used_bytes(backend), works(program))


def _launching(workload: Workload, program: Program, state: State, feed: dict[str, Array]) -> Prepared:
    """Return a workload whose data set is in the state: as `fit` does it, several steps a launch."""
    types = {node.label: TensorType(feed[node.label].shape, node.dtype) for node in program.definition.inputs}
    several = compile(resident(program.definition, types, workload.batch), backend=program.backend)
    loss = total_label("loss")
    total = compile({"loss": variable((), name=loss, dtype="float64")}, backend=program.backend)
    state.attach({data_label(name): array for name, array in feed.items()})
    order = np.arange(workload.samples, dtype=order_dtype(workload.samples))
    state.attach({ORDER: order, POSITION: np.zeros((), np.int64), loss: np.zeros(())})
    done = 0

    def step() -> None:
        nonlocal done
        if done % SET == 0:  # an epoch
            state[POSITION] = 0
        several.repeat(state, workload.launch)
        done += workload.launch

    def read() -> float:
        return float(total.submit(state).result()["loss"])

    several.prepare()
    return Prepared(
        step, lambda _: read() / (workload.launch * workload.batch), read, workload.launch,
        lambda: used_bytes(program.backend), works(several),
    )  # fmt: skip


def works(program: Program) -> tuple[Work, ...]:
    """Return what each step of a program's plan has to do."""
    tf32 = program.backend.gpu.precision == "tf32"  # type: ignore[attr-defined]
    return tuple(work_of(step.node, tf32) for step in program.plan.steps)


def used_bytes(backend: Backend) -> int:
    """Return how much of the device's memory arrays and workspaces take."""
    used: int = backend.gpu.cupy.get_default_memory_pool().used_bytes()  # type: ignore[attr-defined]
    return used


def fed_by_variables(program: Program, state: State, feed: dict[str, Array]) -> Program:
    """Return a program that reads its inputs from variables, which are attached to the state."""
    graph = bind(program.definition, **sizes_of(program.definition, feed))
    new: dict[Node, Node] = {
        node: variable(node.shape, name=node.label, dtype=node.dtype, trainable=False) for node in graph.inputs
    }
    for node in graph.nodes:
        new.setdefault(node, same_or_rebuilt(node, tuple(new[i] for i in node.inputs)))
    outputs = {name: new[node] for name, node in graph.outputs.items()}
    updates = {new[target]: new[value] for target, value in graph.updates.items()}
    state.attach(feed)
    return compile(Graph(outputs, updates), backend=program.backend)


def _loss(pending: Pending) -> float:
    return float(pending.result()["loss"])


def _size(pending: Pending) -> float:
    (y,) = pending.result().values()
    return float(np.abs(y).mean())
