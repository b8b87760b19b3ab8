"""cuDNN's frontend, as far as convolutions use it: graphs are written down, checked, and computed by NumPy.

What the library would refuse is refused: tensors without dimensions, uids that are missing, arguments that it does not
know, plans that are struck out. `PLANS` are the plans that it proposes for each graph; tests put others in their place.
Names are those of the package `cudnn`, which this stands in for.
"""

from __future__ import annotations

import enum
import functools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from minigraph.testing.cuda.blas import nearest
from minigraph.testing.cuda.device import Record, active
from minigraph.testing.cuda.graphs import (
    Array,
    FakePlan,
    Node,
    Tensor,
    compute,
    cudnnGraphNotSupportedError,
    data_type,
    numerical_note,
)
from minigraph.testing.cuda.memory import at

__version__ = "1.32.0"


class heur_mode(enum.Enum):
    """By what plans are proposed."""

    A = "A"
    B = "B"
    FALLBACK = "FALLBACK"


def backend_version() -> int:
    """Return the library's version."""
    return 91901


# --- handles ----------------------------------------------------------------------------------------------------------


class Handle:
    """What the library keeps for a device and a stream."""

    def __init__(self) -> None:
        self.stream = 0


def create_handle() -> Handle:
    """Return a new handle, on the default stream."""
    device = active()
    device.forbid("making a handle of cuDNN")
    device.log.append(Record("handle", "cudnn"))
    return Handle()


def set_stream(handle: Handle, stream: int) -> None:
    """Let graphs that a handle executes go to a stream."""
    if not isinstance(handle, Handle):
        raise TypeError(f"cudnn.set_stream expects a cudnn.Handle, got {type(handle).__name__}")
    handle.stream = stream


def get_stream(handle: Handle) -> int:
    """Return the stream of a handle."""
    return handle.stream


# --- graphs -----------------------------------------------------------------------------------------------------------

# What the library proposes.
PLANS: list[FakePlan] = [
    FakePlan("tensor_cores", frozenset({numerical_note.TENSOR_CORE}), workspace=4096),
    FakePlan("atomics", frozenset({numerical_note.NONDETERMINISTIC}), workspace=512),
    FakePlan("plain", workspace=1024),
]


class pygraph:
    """A graph, as `cudnn.pygraph`."""

    def __init__(
        self,
        name: str = "",
        io_data_type: data_type = data_type.NOT_SET,
        intermediate_data_type: data_type = data_type.NOT_SET,
        compute_data_type: data_type = data_type.NOT_SET,
        handle: Handle | None = None,
    ) -> None:
        active().forbid("making a graph of cuDNN")
        self._io, self._compute = io_data_type.value, compute_data_type.value
        self._tensors: list[Tensor] = []
        self._nodes: list[Node] = []
        self._state = "new"
        self._plans: list[FakePlan] = []
        self._barred: set[int] = set()
        self._most_bytes: int | None = None
        self._built: set[int] = set()
        self._selected: int | None = None

    # --- what is computed ---------------------------------------------------------------------------------------------

    def tensor(
        self, dim: Sequence[int], stride: Sequence[int], data_type: data_type = data_type.NOT_SET, name: str = "",
        uid: int = -1,
    ) -> Tensor:  # fmt: skip
        """Return a tensor that the graph is given."""
        if any(t.uid == uid for t in self._tensors):
            raise ValueError(f"uid {uid} is already user-assigned")
        self._tensors.append(Tensor(list(dim), list(stride), data_type.value or self._io, uid))
        self._tensors[-1].check()
        return self._tensors[-1]

    def _add(
        self, operation: str, inputs: Sequence[Tensor], window: Mapping[str, Sequence[int]] | None = None
    ) -> Tensor:
        made = Tensor(kind=self._io)
        self._tensors.append(made)
        numbers = [next(i for i, own in enumerate(self._tensors) if own is t) for t in inputs]
        self._nodes.append(
            Node(operation, numbers, len(self._tensors) - 1, {k: list(v) for k, v in (window or {}).items()})
        )
        return made

    def conv_fprop(
        self, image: Tensor, weight: Tensor, pre_padding: Sequence[int], post_padding: Sequence[int],
        stride: Sequence[int], dilation: Sequence[int],
    ) -> Tensor:  # fmt: skip
        """Return the cross-correlation of an image with a kernel."""
        return self._add("conv_fprop", (image, weight), _window(pre_padding, post_padding, stride, dilation))

    def conv_dgrad(
        self, loss: Tensor, filter: Tensor, pre_padding: Sequence[int], post_padding: Sequence[int],
        stride: Sequence[int], dilation: Sequence[int],
    ) -> Tensor:  # fmt: skip
        """Return its adjoint with respect to the image, whose size must be set."""
        return self._add("conv_dgrad", (loss, filter), _window(pre_padding, post_padding, stride, dilation))

    def conv_wgrad(
        self, image: Tensor, loss: Tensor, pre_padding: Sequence[int], post_padding: Sequence[int],
        stride: Sequence[int], dilation: Sequence[int],
    ) -> Tensor:  # fmt: skip
        """Return its adjoint with respect to the kernel, whose size must be set."""
        return self._add("conv_wgrad", (image, loss), _window(pre_padding, post_padding, stride, dilation))

    def bias(self, input: Tensor, bias: Tensor) -> Tensor:
        """Return an image with a number added for each channel."""
        if [n for i, n in enumerate(bias.dim) if i != 1] != [1, 1, 1]:
            raise cudnnGraphNotSupportedError(f"a bias has a number a channel, got dim {bias.dim}")
        return self._add("bias", (input, bias))

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        """Return a sum."""
        return self._add("add", (a, b))

    def relu(self, input: Tensor) -> Tensor:
        """Return what is positive."""
        return self._add("relu", (input,))

    # --- plans --------------------------------------------------------------------------------------------------------

    def validate(self) -> None:
        """Check the graph."""
        for node in self._nodes:
            made = self._tensors[node.output]
            if node.operation in ("conv_dgrad", "conv_wgrad") and not made.dim:
                raise ValueError(f"the output of {node.operation} needs dim and stride")
            if made.is_output:
                made.check()
            elif made.uid:
                raise ValueError("a virtual tensor has no address")
        if not any(t.is_output for t in self._tensors):
            raise ValueError("the graph has no output")
        if self._compute != data_type.FLOAT.value:
            raise cudnnGraphNotSupportedError("products are added up in float")
        self._state = "validated"

    def build_operation_graph(self) -> None:
        """Make the library's own form of the graph."""
        self._expect("validated")
        self._state = "lowered"

    def create_execution_plans(self, heuristics: Sequence[heur_mode]) -> None:
        """Let the library propose plans."""
        self._expect("lowered")
        if not all(isinstance(mode, heur_mode) for mode in heuristics):
            raise TypeError("modes of heuristics are wanted")
        self._plans = [plan for plan in PLANS if plan.computes(node.operation for node in self._nodes)]
        self._state = "planned"

    def _expect(self, state: str) -> None:
        if self._state != state:
            raise RuntimeError(f"the graph is {self._state}, not {state}")

    def deselect_numeric_notes(self, notes: Sequence[numerical_note]) -> None:
        """Strike out plans with one of these notes."""
        self._expect("planned")
        self._barred |= {i for i, plan in enumerate(self._plans) if plan.notes & set(notes)}

    def deselect_workspace_greater_than(self, workspace_limit: int) -> None:
        """Strike out plans that ask for more bytes."""
        self._expect("planned")
        self._most_bytes = workspace_limit

    def _allowed(self, index: int) -> bool:
        plan = self._plans[index]
        too_large = self._most_bytes is not None and plan.workspace > self._most_bytes
        return plan.builds and index not in self._barred and not too_large

    def check_support(self) -> None:
        """Raise if no plan is left."""
        self._expect("planned")
        if not any(self._allowed(i) for i in range(len(self._plans))):
            raise cudnnGraphNotSupportedError("No valid engine configs returned from heuristics")

    def get_execution_plan_count(self) -> int:
        """Return how many plans there are, with those that are struck out."""
        return len(self._plans)

    def build_plan_at_index(self, index: int) -> None:
        """Build a plan, and select it."""
        active().forbid("building a plan of cuDNN")
        self._expect("planned")
        if not self._allowed(index):
            raise cudnnGraphNotSupportedError(f"Deselecting execution plan {index}")
        self._built.add(index)
        self._selected = index

    def get_workspace_size_plan_at_index(self, index: int) -> int:
        """Return the bytes that a plan asks for."""
        if index not in self._built:
            raise RuntimeError(f"plan {index} is not built")
        return self._plans[index].workspace

    def get_plan_name_at_index(self, index: int) -> str:
        """Return a plan's name."""
        return self._plans[index].name

    def serialize(self) -> list[int]:
        """Return the graph with the plan that is selected, as bytes."""
        if self._selected is None:
            raise RuntimeError("no plan is selected")
        content = {
            "tensors": [asdict(t) for t in self._tensors],
            "nodes": [asdict(n) for n in self._nodes],
            "plan": self._plans[self._selected].name,
        }
        return list(json.dumps(content).encode())

    def deserialize(self, handle: Handle, data: Sequence[int]) -> None:
        """Take the place of a graph that was serialised."""
        active().forbid("loading a plan of cuDNN")
        content = json.loads(bytes(data))
        found = [plan for plan in PLANS if plan.name == content["plan"]]
        if not found or not isinstance(handle, Handle):
            raise RuntimeError("CUDNN_STATUS_BAD_PARAM: the plan is not of this library")
        self._tensors = [Tensor(**t) for t in content["tensors"]]
        self._nodes = [Node(**n) for n in content["nodes"]]
        self._plans, self._built, self._selected, self._state = found, {0}, 0, "planned"

    # --- running ------------------------------------------------------------------------------------------------------

    def execute(self, tensor_dict: Mapping[int, int], workspace: int, handle: Handle) -> None:
        """Compute the graph by the plan that is selected: addresses by uid."""
        if self._selected is None:
            raise RuntimeError("no plan is built")
        self.execute_plan_at_index(tensor_dict, workspace, self._selected, handle)

    def execute_plan_at_index(self, tensor_dict: Mapping[int, int], workspace: int, index: int, handle: Handle) -> None:
        """Compute the graph by one of the plans that are built."""
        if index not in self._built:
            raise RuntimeError(f"plan {index} is not built")
        addressed = {t.uid: t for t in self._tensors if t.uid}
        if set(tensor_dict) != set(addressed):
            raise RuntimeError(f"Uids {sorted(addressed)} are wanted, and {sorted(tensor_dict)} are given")
        if not all(type(address) is int for address in (*tensor_dict.values(), workspace)):
            raise TypeError("addresses are whole numbers")
        plan = self._plans[index]
        spans = {uid: t.span(tensor_dict[uid]) for uid, t in addressed.items()}
        written = [spans[uid] for uid, t in addressed.items() if t.is_output]
        read = [spans[uid] for uid, t in addressed.items() if not t.is_output]
        run = functools.partial(self._run, plan, dict(tensor_dict), workspace)
        active().enqueue(
            handle.stream, "library", f"cudnn {plan.name}", run, read, [*written, (workspace, plan.workspace)]
        )

    def _run(self, plan: FakePlan, pack: Mapping[int, int], workspace: int) -> None:
        time.sleep(plan.seconds)
        at(workspace, plan.workspace)[:] = 0xFF
        down = numerical_note.TENSOR_CORE in plan.notes and self._io == data_type.FLOAT.value
        rounded: Callable[[Array], Array] = functools.partial(nearest, bits=13) if down else np.asarray
        values = {i: t.read(pack[t.uid]) for i, t in enumerate(self._tensors) if t.uid and not t.is_output}
        for node in self._nodes:
            inputs = [values[i] for i in node.inputs]
            made = self._tensors[node.output]
            values[node.output] = compute(node, inputs, made, rounded)
            if made.is_output:
                made.write(pack[made.uid], values[node.output])


def _window(pre: Sequence[int], post: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> dict[str, Any]:
    return {"pre": pre, "post": post, "stride": stride, "dilation": dilation}
