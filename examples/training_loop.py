"""Training without Model: lower the definition, differentiate it, write the updates down, compile, loop."""

import numpy as np

import minigraph as mg
from minigraph import layers
from minigraph.data import Batches

image, label = mg.Input((8, 8, 1), name="image"), mg.Input((), name="label", dtype="int64")
x = layers.Conv2D(16, 3, strides=2, use_bias=False, name="conv")(image)
x = layers.BatchNormalization(momentum=0.9, name="bn")(x)
x = layers.Activation("relu")(x)
logits = layers.Dense(10, name="head")(layers.Flatten()(x))
loss = mg.ops.mean(mg.ops.softmax_cross_entropy(logits, label))
definition = mg.Graph({"loss": loss, "logits": logits})

# The training graph: batch norm reads the batch, and its moving averages have become updates.
training = mg.lower(definition, "training")
print("updates of batch norm:", *(variable.label for variable in training.updates))

# Gradients are nodes, and so is the step w − 0.1·g. An update says: this variable gets that value after the call.
weights = [v for v in training.variables if v.op.trainable]
gradients = mg.gradients(training.outputs["loss"], weights)
steps = {w: w - 0.1 * g for w, g in zip(weights, gradients, strict=True)}
print("updates of SGD:", *(variable.label for variable in steps))

# One program for each mode. They share one state, so what training writes is what inference reads.
step = mg.compile({"loss": training.outputs["loss"]}, {**training.updates, **steps})
infer = mg.compile({"logits": mg.lower(definition, "inference").outputs["logits"]})
state = mg.State.initial(definition.variables, seed=0)

(x_train, y_train), (x_test, y_test) = mg.datasets.digits()
batches = Batches(x_train, y_train, batch_size=64, seed=0)
for epoch in range(10):
    losses = [step(state, image=xb, label=yb)["loss"] for xb, yb in batches.epoch(epoch)]
    accuracy = np.mean(infer(state, image=x_test)["logits"].argmax(axis=1) == y_test)
    print(f"epoch {epoch + 1:>2}  loss {np.mean(losses):.4f}  test accuracy {accuracy:.3f}")

print(f"a step is {len(step.plan.steps)} kernel calls and needs {step.plan.peak:,} bytes beside the variables")
