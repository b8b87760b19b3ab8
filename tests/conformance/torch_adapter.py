"""PyTorch's operators on minigraph: the adapter that `replay_torch.py` runs.

`torch_ops` and `torch_functional` have a function for each operator, with PyTorch's parameter names and defaults;
`torch_modules` has a constructor for each module; `torch_promotion` the dtypes. Here a call becomes a graph: arrays are
variables, outputs and the gradients of <output, cotangent> are compiled into one program, running statistics are its
updates.
"""

from dataclasses import dataclass, field

import numpy as np
from torch_modules import MODULES
from torch_ops import OPS

from minigraph import ops
from minigraph.autodiff import gradients
from minigraph.errors import GradientError
from minigraph.ir import Graph, Node, topological, variable
from minigraph.passes import lower
from minigraph.runtime import State, compile


@dataclass
class Call:
    """What one call has beside its arguments: the mode, the parameters, and the updates it asks for."""

    training: bool
    parameters: dict[str, Node] = field(default_factory=dict)
    updates: dict[Node, Node] = field(default_factory=dict)
    values: dict[str, np.ndarray] = field(default_factory=dict)  # variable label → array
    wanted: dict[str, Node] = field(default_factory=dict)  # gradient's name → variable
    lifted: dict[str, Node] = field(default_factory=dict)

    def variable(self, label, array):
        """Return a variable that holds this array."""
        array = np.asarray(array)
        self.values[label] = array
        return variable(array.shape, name=label, dtype=str(array.dtype), trainable=False)

    def detached(self, node):
        """Return a second variable with the same value, through which no gradient flows back to the first."""
        return self.variable(f"{node.label} (detached)", self.values[node.label])

    def lift(self, value):
        """Return an argument with every array in it replaced by a variable."""
        if isinstance(value, np.ndarray):
            if value.id not in self.lifted:
                self.lifted[value.id] = self.variable(value.id, value)
            if value.wants_grad:
                self.wanted[value.id] = self.lifted[value.id]
            return self.lifted[value.id]
        if isinstance(value, dict):
            return {k: self.lift(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(self.lift(v) for v in value)
        return value


def run(case, args, kwargs, state, cotangents):
    """Return (outputs, gradients by id, values of all variables afterwards) of one case."""
    call = Call(training=case.get("variant") != "eval")
    if case["kind"] == "module":
        if case["op"] not in MODULES:
            raise NotImplementedError(case["op"])
        call.parameters = {name: call.variable(f"param:{name}", array) for name, array in state.items()}
        trained = [name for name in call.parameters if f"param:{name}" in case["grads"]]
        call.wanted = {f"param:{name}": call.parameters[name] for name in trained}
        function = MODULES[case["op"]](call, *call.lift(case["ctor_args"]), **call.lift(case["ctor_kwargs"]))
        result = function(*call.lift(args), **call.lift(kwargs))
    else:
        if case["op"] not in OPS:
            raise NotImplementedError(case["op"])
        result = OPS[case["op"]](call, *call.lift(args), **call.lift(kwargs))
    outputs = [result] if isinstance(result, Node) else list(result)
    values, grads, after = _execute(call, outputs, cotangents)
    names = {f"param:{name}": name for name in state}
    return values, grads, {names.get(label, label): array for label, array in after.items()}


def _execute(call, outputs, cotangents):
    named = {f"output {i}": node for i, node in enumerate(outputs)}
    graph = lower(Graph(named, call.updates), "training" if call.training else "inference")
    grads = _gradients(call.wanted, [graph.outputs[name] for name in named], cotangents)
    program = compile({**graph.outputs, **{f"grad {name}": node for name, node in grads.items()}}, graph.updates)
    state = State(call.values)
    results = program(state)
    return [results[name] for name in named], {name: results[f"grad {name}"] for name in grads}, dict(state)


def _gradients(wanted, outputs, cotangents):
    """Return the gradient of the sum of <output, cotangent>; 0 where nothing flows, as PyTorch gives it."""
    pairs = [(o, ops.constant(c.astype(o.dtype))) for o, c in zip(outputs, cotangents, strict=True) if c is not None]
    if not wanted or not pairs:
        return {}
    total = sum((ops.sum(o * c) for o, c in pairs[1:]), ops.sum(pairs[0][0] * pairs[0][1]))
    reached = set(topological([total]))
    found = {name: ops.zeros(node.shape, node.dtype) for name, node in wanted.items() if node not in reached}
    rest = {name: node for name, node in wanted.items() if node in reached}
    try:
        found.update(zip(rest, gradients(total, list(rest.values())), strict=True))
    except GradientError:  # one of them is used, but only through ops that are constant
        for name, node in rest.items():
            found[name] = _one_gradient(total, node)
    return found


def _one_gradient(total, node):
    try:
        return gradients(total, [node])[0]
    except GradientError as error:
        if "does not depend" not in str(error):
            raise
        return ops.zeros(node.shape, node.dtype)
