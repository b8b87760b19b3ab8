"""What an elementwise op is in C++: one expression over its operands' names, the same for numbers and for vectors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from minigraph.ir.node import Node
from minigraph.ir.op import Op
from minigraph.ops import activations, elementwise, real
from minigraph.ops.norm import BatchNorm
from minigraph.ops.shape import BroadcastTo, Cast

# dtype → C++
CTYPES = {
    "float32": "float", "float64": "double", "bool": "bool",
    "int8": "int8_t", "int16": "int16_t", "int32": "int32_t", "int64": "int64_t",
    "uint8": "uint8_t", "uint16": "uint16_t", "uint32": "uint32_t", "uint64": "uint64_t",
}  # fmt: skip
FLOATS = ("float32", "float64")


def number(value: float, ctype: str) -> str:
    """Return a number as C++ writes it, to the last bit.

    >>> number(0.5, "float"), number(float("-inf"), "double"), number(-3, "int64_t")
    ('0x1.0000000000000p-1', '-INFINITY', '-3')
    """
    if ctype not in ("float", "double"):
        return str(int(value))
    if math.isnan(value):
        return "NAN"
    return f"{'-' if value < 0 else ''}INFINITY" if math.isinf(value) else float(value).hex()


class Names:
    """How an expression writes its operands: by name, and numbers in the type of the loop's lanes."""

    def __init__(self, inputs: Sequence[str], lanes: str) -> None:
        self.inputs = inputs
        self.lanes = lanes

    def __getitem__(self, index: int) -> str:
        return self.inputs[index]

    def all(self, value: float) -> str:
        """Return a number in all lanes."""
        return f"all<{self.lanes}>({number(value, 'double')})"


Expression = Callable[[Any, Names], str]


def _of(text: str) -> Expression:
    return lambda op, x: text.format(*x.inputs)


_NUMBERS: dict[type[Op], str] = {
    elementwise.Add: "{} + {}", elementwise.Sub: "{} - {}", elementwise.Mul: "{} * {}", elementwise.Neg: "-{}",
    elementwise.Maximum: "maximum({}, {})", elementwise.Minimum: "minimum({}, {})",
    elementwise.Abs: "absolute({})", elementwise.Sign: "sign_of({})",
    elementwise.Less: "{} < {}", elementwise.LessEqual: "{} <= {}", elementwise.Greater: "{} > {}",
    elementwise.GreaterEqual: "{} >= {}", elementwise.Equal: "{} == {}", elementwise.NotEqual: "{} != {}",
    elementwise.Where: "choose({}, {}, {})", BroadcastTo: "{}", activations.Relu: "relu({})",
}  # fmt: skip
_REALS: dict[type[Op], str] = {
    elementwise.Div: "{} / {}", elementwise.Floor: "round_down({})", real.Pow: "power({}, {})",
    real.Exp: "exponential({})", real.Log: "logarithm({})", real.Sqrt: "square_root({})",
    real.Rsqrt: "reciprocal_root({})", real.Sin: "sine({})", real.Cos: "cosine({})", real.Erf: "error_function({})",
    activations.Tanh: "hyperbolic_tangent({})", activations.Sigmoid: "sigmoid({})",
    activations.Silu: "{0} * sigmoid({0})", activations.Softplus: "softplus({})",
}  # fmt: skip
# On conditions, be they numbers 0 and 1 or masks of a vector, 0 and −1: ~ makes of each what & can do with.
_CONDITIONS: dict[type[Op], str] = {
    elementwise.Add: "{} | {}", elementwise.Mul: "{} & {}", elementwise.Maximum: "{} | {}",
    elementwise.Minimum: "{} & {}", elementwise.Less: "~{} & {}", elementwise.LessEqual: "{0} == ({0} & {1})",
    elementwise.Greater: "{} & ~{}", elementwise.GreaterEqual: "{1} == ({0} & {1})", elementwise.Equal: "{} == {}",
    elementwise.NotEqual: "{} != {}", elementwise.Where: "choose({}, {}, {})", elementwise.Abs: "{}", BroadcastTo: "{}",
}  # fmt: skip


def _batch_norm(op: BatchNorm, x: Names) -> str:
    scale = f"{x[1]} * reciprocal_root({x[4]} + {x.all(op.epsilon)})"
    return f"({x[0]} - {x[3]}) * ({scale}) + {x[2]}"


def _gelu(op: activations.Gelu, x: Names) -> str:
    half, one = x.all(0.5), x.all(1.0)
    if op.approximate:
        inner = f"{x.all(math.sqrt(2 / math.pi))} * ({x[0]} * ({one} + {x.all(0.044715)} * {x[0]} * {x[0]}))"
        return f"{x[0]} * ({half} * ({one} + hyperbolic_tangent({inner})))"
    return f"{x[0]} * ({half} * ({one} + error_function({x[0]} * {x.all(math.sqrt(0.5))})))"


def _hard_sigmoid(x: Names, alpha: float, beta: float) -> str:
    return f"clip({x[0]} * {x.all(alpha)} + {x.all(beta)}, {x.all(0.0)}, {x.all(1.0)})"


_ATTRIBUTED: dict[type[Op], Expression] = {
    BatchNorm: _batch_norm,
    activations.Gelu: _gelu,
    elementwise.Clip: lambda op, x: f"clip({x[0]}, {x.all(op.minimum)}, {x.all(op.maximum)})",
    activations.LeakyRelu: lambda op, x: f"leaky_relu({x[0]}, {x.all(op.alpha)})",
    activations.Elu: lambda op, x: f"elu({x[0]}, {x.all(op.alpha)})",
    activations.HardSigmoid: lambda op, x: _hard_sigmoid(x, op.alpha, op.beta),
    activations.HardSwish: lambda op, x: f"{x[0]} * {_hard_sigmoid(x, 1 / 6, 0.5)}",
}
EXPRESSIONS: dict[type[Op], Expression] = {
    **{op: _of(text) for op, text in (_NUMBERS | _REALS).items()},
    **_ATTRIBUTED,
    Cast: lambda op, x: x[0],  # a conversion, which is written where the result is stored or read
}


def expressible(node: Node, floats: Sequence[str] = FLOATS) -> bool:
    """Tell whether there is an expression for an op on operands of these dtypes."""
    kind = type(node.op)
    if kind not in EXPRESSIONS:
        return False
    dtypes = {i.tensor_type.dtype for i in node.inputs} | {node.dtype}
    if not dtypes <= {*CTYPES, *floats}:
        return False
    if kind is Cast:
        return True
    operands = {i.tensor_type.dtype for i in node.inputs[1 if kind is elementwise.Where else 0 :]}
    if operands <= set(floats):
        return True
    return kind in (_CONDITIONS if operands == {"bool"} else _NUMBERS)


def expression(node: Node, names: Names) -> str:
    """Return the expression of an op over its operands' names."""
    kind = type(node.op)
    if kind in _CONDITIONS and all(i.dtype == "bool" for i in node.inputs):
        return _CONDITIONS[kind].format(*names.inputs)
    return EXPRESSIONS[kind](node.op, names)
