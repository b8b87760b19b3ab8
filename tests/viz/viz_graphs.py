"""Graphs to draw: a small network trained with SGD, its blocks repeated as often as wanted."""

from minigraph import ops
from minigraph.autodiff import gradients
from minigraph.ir import Graph, scope, variable
from minigraph.ir.leaves import input


def layer(x, units, name, parameters, updates):
    """Dense, batch norm, relu: a scope of its own, with two moving averages."""
    with scope(name):
        with scope("dense"):
            kernel = variable((x.shape[-1], units), name=f"{name}/kernel")
            y = ops.matmul(x, kernel)
        with scope("batch_norm"):
            gamma, beta = (variable((units,), name=f"{name}/{n}") for n in ("gamma", "beta"))
            mean, variance = ops.moments(y, 0)
            y = ops.batch_norm(y, gamma, beta, mean, variance)
            for n, batch in (("moving_mean", mean), ("moving_variance", variance)):
                moving = variable((units,), name=f"{name}/{n}", trainable=False)
                updates[moving] = moving * 0.9 + batch * 0.1
        with scope("relu"):
            y = ops.relu(y)
    parameters += [kernel, gamma, beta]
    return y


def network(blocks=1, train=True, units=4):
    """Return `blocks` layers of one size between a stem and a loss; with `train`, their gradients and updates."""
    parameters, updates = [], {}
    y = layer(input((8, 3), name="x"), units, "stem", parameters, updates)
    for i in range(blocks):
        y = layer(y, units, f"block{i + 1}", parameters, updates)
    if not train:
        return Graph({"y": y})
    target = input((8, units), name="target")
    with scope("loss"):
        difference = y - target
        loss = ops.mean(difference * difference)
    for parameter, g in zip(parameters, gradients(loss, parameters), strict=True):
        updates[parameter] = parameter - 0.1 * g
    return Graph({"loss": loss, "y": y}, updates)
