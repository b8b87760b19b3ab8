"""A network out into the world and back: train, export, run in onnxruntime, import, fold; one accuracy all the way.

Run it with the other recipe for the larger one: python examples/onnx_round_trip.py mnist5k
"""

import pathlib
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime

import minigraph as mg
from minigraph.models.recipes import RECIPES, train

name = sys.argv[1] if len(sys.argv) > 1 else "digits"
_, (images, labels) = RECIPES[name].data(0)
accuracies = {}


def score(step, logits):
    accuracies[step] = float(np.mean(np.argmax(logits, -1) == labels))
    print(f"{step:<36} accuracy {accuracies[step]:.4f}")


with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(temporary)
    train(name, folder, verbose=0)
    model = mg.load_model(folder / "model.safetensors")
    score("trained", model.predict(images))

    # A definition keeps its batch norms: they are inference nodes in the file, and can be trained on after import.
    path = mg.onnx.save(model, folder / f"{name}.onnx")
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    score("onnxruntime, as defined", onnxruntime.InferenceSession(path).run(None, {"image": images})[0])

    back = mg.onnx.load(path)
    score("imported again", back.predict(images))
    assert str(mg.onnx.load(mg.onnx.to_proto(back)).graph) == str(back.graph)

    folded, trace = mg.optimize(back.lower("inference"), back.state)
    print(trace.report().split("\n\n")[0])
    score("imported and folded", mg.compile(folded)(image=images)["logits"])

    small = mg.onnx.save(folded, folder / "folded.onnx")
    score("onnxruntime, folded", onnxruntime.InferenceSession(small).run(None, {"image": images})[0])

    # The same in one step: our passes as an ONNX optimiser.
    optimized = mg.onnx.optimize(path)
    counts = [sum(node.op_type == "BatchNormalization" for node in p.graph.node) for p in (proto, optimized)]
    print(f"batch norms in the file: {counts[0]} before mg.onnx.optimize, {counts[1]} after")

assert len(set(accuracies.values())) == 1
print("the accuracy is the same at every step")
