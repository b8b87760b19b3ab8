"""Batch norm folded into convolutions: the report, the proof, the outputs before and after, pictures, and the way back.

Run it with a folder to keep the pictures: python examples/fold_batch_norm.py pictures
"""

import pathlib
import sys
import tempfile

import numpy as np

import minigraph as mg
from minigraph import layers

# The second batch norm stands behind a ReLU and before a padded convolution: it goes into what follows it.
image = mg.Input((16, 16, 3), name="image")
x = layers.Conv2D(8, 3, strides=2, use_bias=False, name="conv1")(image)
x = layers.ReLU(name="relu1")(layers.BatchNormalization(name="bn1")(x))
x = layers.Conv2D(16, 3, padding="same", name="conv2")(layers.BatchNormalization(name="bn2")(x))
features = layers.ReLU(name="relu2")(x)
# The third one stands between a ReLU and a tanh: nothing linear is next to it.
x = layers.Activation("tanh", name="tanh")(layers.BatchNormalization(name="bn3")(features))
logits = layers.Dense(10, name="head")(layers.GlobalAveragePooling2D(name="pool")(x))
network = mg.lower(mg.Graph({"logits": logits}), "inference")

# Training would have moved the parameters away from 0 and 1; random numbers stand in for it.
rng = np.random.default_rng(0)
state = mg.State.initial(network.variables, seed=0)
for name, array in state.items():
    if name.endswith(("gamma", "variance")):
        array[...] = rng.uniform(0.5, 2.0, array.shape)
    elif name.endswith(("beta", "mean")):
        array[...] = rng.normal(size=array.shape)

folded, trace = mg.optimize(network, state)
print(trace.report())

# Why was the third one kept?
norm = next(node for node in network.nodes if node.op.name == "batch_norm" and node.origin.scope == "bn3")
print("\nbn3:", trace.why_not("fold_batch_norm", norm))

# Each rewrite, computed on both sides, against the bound on what rounding may do.
proof = trace.verify()
print(f"\n{proof}\n")
assert proof.holds

pixels = rng.normal(size=(32, 16, 16, 3)).astype("float32")
before = mg.compile(network)(state, image=pixels)["logits"]
after = mg.compile(folded)(image=pixels)["logits"]  # no state: the numbers are in the graph
print(f"outputs up to {abs(before).max():.3f}, largest difference {abs(before - after).max():.1e}")

with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else temporary)
    folder.mkdir(parents=True, exist_ok=True)
    for file, part in (("all_passes.svg", {}), ("folding.svg", {"step": "fold_batch_norm"})):
        print("drawn", mg.render(trace, folder / file, **part).name)

assert mg.unfold(mg.optimize(network)[0]).same_as(network)
print("unfolded, it is the network again")
