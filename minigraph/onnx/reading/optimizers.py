"""The ops of ONNX' training domain: gradients, and the steps of optimisers."""

from __future__ import annotations

from collections.abc import Callable

from minigraph import ops
from minigraph.autodiff import gradients
from minigraph.errors import ModelFormatError
from minigraph.ir.node import Node
from minigraph.onnx.reader import Reader
from minigraph.onnx.reading.registry import reads


@reads("Gradient", whole=False)
def gradient(n: Reader) -> list[Node | None]:
    """The gradients of `y` with respect to `xs`, which are the operands."""
    found = n.importer.find(n.text("y"))
    if found is None:
        raise ModelFormatError("no such value", expected="the name of a value", got=n.text("y"))
    total = found if found.shape == () else ops.sum(found)
    return list(gradients(total, n.operands()))


def _groups(n: Reader, kinds: int, step: Callable[..., tuple[Node, ...]]) -> list[Node | None]:
    """Apply a step to each optimised tensor: operands and results come kind by kind, after rate and count."""
    given = n.operands()[2:]
    count = len(given) // kinds
    if count * kinds != len(given):
        raise ModelFormatError("operands do not come in groups", expected=f"a multiple of {kinds}", got=len(given))
    results = [step(*(given[kind * count + i] for kind in range(kinds))) for i in range(count)]
    return [results[i][kind] for kind in range(kinds - 1) for i in range(count)]


@reads("Adagrad", whole=False)
def adagrad(n: Reader) -> list[Node | None]:
    """x − r·g/(√h + ε) with h the sum of squared gradients (Duchi et al. 2011)."""
    rate, count = n.operand(0), ops.cast(n.operand(1), n.operand(0).dtype)
    decayed = rate / (1.0 + count * n.real("decay_factor", 0.0))

    def step(x: Node, g: Node, h: Node) -> tuple[Node, ...]:
        g = n.real("norm_coefficient", 0.0) * x + g
        h = h + g * g
        return x - decayed * g / (ops.sqrt(h) + n.real("epsilon", 1e-6)), h

    return _groups(n, 3, step)


@reads("Adam", whole=False)
def adam(n: Reader) -> list[Node | None]:
    """x − r·v/(√h + ε) with moving moments v and h of the gradient (Kingma & Ba 2015)."""
    rate, count = n.operand(0), ops.cast(n.operand(1), n.operand(0).dtype)
    alpha, beta = n.real("alpha", 0.9), n.real("beta", 0.999)
    corrected = rate * ops.sqrt(1.0 - ops.pow(beta, count)) / (1.0 - ops.pow(alpha, count))
    adjusted = ops.where(count > 0.0, corrected, rate)

    def step(x: Node, g: Node, v: Node, h: Node) -> tuple[Node, ...]:
        g = n.real("norm_coefficient", 0.0) * x + g
        v = alpha * v + (1 - alpha) * g
        h = beta * h + (1 - beta) * (g * g)
        moved = x - adjusted * v / (ops.sqrt(h) + n.real("epsilon", 1e-6))
        return (1 - n.real("norm_coefficient_post", 0.0)) * moved, v, h

    return _groups(n, 4, step)


@reads("Momentum", whole=False)
def momentum(n: Reader) -> list[Node | None]:
    """x − r·v with v = α·v + β·g; Nesterov's looks ahead: x − r·(g + α·v) (Sutskever et al. 2013)."""
    rate, count = n.operand(0), n.operand(1)
    alpha, beta = n.real("alpha"), n.real("beta")
    weight = ops.where(count > 0, ops.constant(beta, rate.dtype), ops.constant(1.0, rate.dtype))
    nesterov = n.text("mode") == "nesterov"

    def step(x: Node, g: Node, v: Node) -> tuple[Node, ...]:
        g = n.real("norm_coefficient") * x + g
        v = alpha * v + weight * g
        return x - rate * (g + alpha * v if nesterov else v), v

    return _groups(n, 3, step)
