"""An op of your own: shape rule, gradient, kernel; checked against differences, then trained in a model.

The op is Mish, x·tanh(ln(1 + eˣ)) (Misra 2019). It could be written with ops that exist; as an op it is one kernel.
"""

from dataclasses import dataclass

import numpy as np

import minigraph as mg
from minigraph import layers
from minigraph.backends.numpy import kernel
from minigraph.ir import Node, Op, TensorType
from minigraph.testing import check_gradients


@dataclass(frozen=True)
class Mish(Op, name="mish"):
    """x·tanh(softplus(x))."""

    category = "elementwise"  # the colour in pictures

    def infer(self, x: TensorType) -> TensorType:
        """Same shape and dtype."""
        return x

    def vjp(self, node, g):
        """∂x = g·(t + x·(1 − t²)·σ(x)) with t = tanh(softplus(x)); nodes again, so it can be differentiated again."""
        x = node.inputs[0]
        t = mg.ops.tanh(mg.ops.softplus(x))
        return (g * (t + x * (1.0 - t * t) * mg.ops.sigmoid(x)),)


@kernel(Mish, inplace=(0,))  # the result may lie where the operand lies
def mish_kernel(call):
    x, out = call.inputs[0], call.output

    def run():
        np.multiply(x, np.tanh(np.logaddexp(0, x)), out=out)

    return run


def mish(x):
    return Node(Mish(), (x,))


error = check_gradients(mish, [np.random.default_rng(0).standard_normal((4, 5))])
print(f"first and second gradient agree with differences: relative error {error:.1e}")

image = mg.Input((8, 8, 1), name="image")
logits = layers.Dense(10)(layers.Dense(64, activation=mish)(layers.Flatten()(image)))
model = mg.Model(image, logits, name="mish")
model.compile(mg.optimizers.Adam(0.01), mg.losses.SparseCategoricalCrossentropy(from_logits=True), ["accuracy"])
train, test = mg.datasets.digits()
model.fit(*train, batch_size=64, epochs=5)
print(f"test accuracy with mish: {model.evaluate(*test)['accuracy']:.1%}")
assert mg.parse(str(model.graph)).same_as(model.graph)  # text and files know the op by its registered name
