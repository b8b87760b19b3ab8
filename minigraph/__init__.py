"""minigraph: define a model once, as a graph; compile it into two programs, one that trains and one that infers.

>>> import minigraph as mg
>>> x = mg.Input((3,), name="x")
>>> print(mg.Graph({"y": mg.ops.relu(x)}))
graph {
  %0 = input("x") : float32[N,3]
  %1 = relu(%0) : float32[N,3]
  return y=%1
}
"""

from typing import TYPE_CHECKING, Any

from minigraph import errors, layers, ops
from minigraph.autodiff import gradients
from minigraph.ir import Graph, Node, bind, fresh_names, parse, scope, symbol, variable, verify
from minigraph.layers import Input
from minigraph.ops import constant

if TYPE_CHECKING:
    from minigraph import augmentation, data, datasets, losses, metrics, models, onnx, optimizers, testing, viz
    from minigraph.passes import Trace, lower, unfold
    from minigraph.runtime import Program, State, compile, evaluate, freeze, optimize, why_not
    from minigraph.training import Model, callbacks
    from minigraph.training.checkpoint import load_model
    from minigraph.viz import render

__version__ = "0.1.0"

# Loaded when first asked for, so that `import minigraph` needs NumPy only and stays fast.
_LAZY = {
    "Model": "minigraph.training",
    "Program": "minigraph.runtime",
    "State": "minigraph.runtime",
    "Trace": "minigraph.passes",
    "augmentation": "minigraph.augmentation",
    "callbacks": "minigraph.training.callbacks",
    "compile": "minigraph.runtime",
    "data": "minigraph.data",
    "datasets": "minigraph.datasets",
    "evaluate": "minigraph.runtime",
    "freeze": "minigraph.runtime",
    "load_model": "minigraph.training.checkpoint",
    "losses": "minigraph.losses",
    "lower": "minigraph.passes",
    "metrics": "minigraph.metrics",
    "models": "minigraph.models",
    "onnx": "minigraph.onnx",
    "optimize": "minigraph.runtime",
    "optimizers": "minigraph.optimizers",
    "render": "minigraph.viz",
    "testing": "minigraph.testing",
    "unfold": "minigraph.passes",
    "viz": "minigraph.viz",
    "why_not": "minigraph.runtime",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'minigraph' has no attribute {name!r}")
    import importlib

    module = importlib.import_module(_LAZY[name])
    value = module if _LAZY[name].endswith(f".{name}") else getattr(module, name)
    globals()[name] = value  # asked for once only
    return value


def _picture(graph: Graph, **options: Any) -> dict[str, str]:
    from minigraph.viz import mimebundle

    return mimebundle(graph)


# Notebooks show graphs as pictures. Attached here, because `ir` knows nothing of `viz`.
Graph._repr_mimebundle_ = _picture  # type: ignore[attr-defined]

__all__ = [
    "Graph",
    "Input",
    "Model",
    "Node",
    "Program",
    "State",
    "Trace",
    "augmentation",
    "bind",
    "callbacks",
    "compile",
    "constant",
    "data",
    "datasets",
    "errors",
    "evaluate",
    "freeze",
    "fresh_names",
    "gradients",
    "layers",
    "load_model",
    "losses",
    "lower",
    "metrics",
    "models",
    "onnx",
    "ops",
    "optimize",
    "optimizers",
    "parse",
    "render",
    "scope",
    "symbol",
    "testing",
    "unfold",
    "variable",
    "verify",
    "viz",
    "why_not",
]
