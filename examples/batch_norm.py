"""One definition with batch norm, two programs: texts, their difference, pictures; and moving averages at work.

Run it with a folder to keep the pictures: python examples/batch_norm.py pictures
"""

import difflib
import pathlib
import sys
import tempfile

import numpy as np

import minigraph as mg
from minigraph import layers

image = mg.Input((8, 8, 1), name="image")
pixels = layers.BatchNormalization(momentum=0.9, name="pixels")(image)
x = layers.Conv2D(8, 3, use_bias=False, name="conv")(pixels)
x = layers.BatchNormalization(momentum=0.9, name="bn")(x)
x = layers.Activation("relu")(x)
logits = layers.Dense(10, name="head")(layers.GlobalAveragePooling2D()(x))
model = mg.Model(image, logits, name="batch_norm")

# The definition leaves open which statistics a norm uses. Lowering decides: to see it, the first norm is enough.
definition = mg.Graph({"y": pixels})
inference, training = mg.lower(definition, "inference"), mg.lower(definition, "training")
print("definition:", definition, "inference:", inference, sep="\n")
print("from inference (-) to training (+):")
print(*difflib.unified_diff(str(inference).split("\n"), str(training).split("\n"), n=0, lineterm=""), sep="\n")

with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else temporary)
    folder.mkdir(parents=True, exist_ok=True)
    for mode in ("training", "inference"):
        file = mg.render(model.lower(mode), folder / f"batch_norm_{mode}.svg", title=f"batch norm, {mode}")
        print(f"drawn {file.name}: {file.stat().st_size} bytes")

(x_train, y_train), test = mg.datasets.digits()
model.compile(mg.optimizers.Adam(0.02), mg.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
model.fit(x_train, y_train, epochs=8, batch_size=64, validation_data=test)


def show(when):
    mean, variance = model.state["pixels/moving_mean"][0], model.state["pixels/moving_variance"][0]
    print(f"{when:<20}mean {mean:.6f}  variance {variance:.6f}  accuracy {model.evaluate(*test)['accuracy']:.3f}")
    return mean, variance


# The moving averages follow the batches with weights that fall by momentum; the data's own statistics are exact.
print(f"{'all the pixels':<20}mean {x_train.mean():.6f}  variance {x_train.var():.6f}")
show("moving averages")
model.recalibrate(x_train)
np.testing.assert_allclose(show("after recalibrate"), (x_train.mean(), x_train.var()), rtol=1e-4)
print("recalibrated averages are the statistics of the data")
