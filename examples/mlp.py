"""Two dense layers learn the digits that come with minigraph: define, compile, fit, evaluate, predict, save."""

import pathlib
import tempfile

import numpy as np

import minigraph as mg
from minigraph import layers

# The batch dimension is implied: the type of `image` is float32[N,8,8,1].
image = mg.Input((8, 8, 1), name="image")
x = layers.Flatten()(image)
x = layers.Dense(64, activation="relu")(x)
logits = layers.Dense(10)(x)

model = mg.Model(image, logits, name="mlp")
model.compile(
    optimizer=mg.optimizers.SGD(0.1, momentum=0.9),
    loss=mg.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
model.summary()

(x_train, y_train), (x_test, y_test) = mg.datasets.digits()
print(f"{len(x_train)} training images, {len(x_test)} test images")
model.fit(x_train, y_train, epochs=15, batch_size=64, validation_data=(x_test, y_test))

scores = model.evaluate(x_test, y_test)
print(f"test accuracy {scores['accuracy']:.1%}")

predicted = model.predict(x_test[:8]).argmax(axis=1)
print("predicted", *predicted)
print("label    ", *y_test[:8])

# The file holds the definition as text beside the numbers: loading it needs none of the code above.
with tempfile.TemporaryDirectory() as folder:
    path = model.save(pathlib.Path(folder) / "mlp.safetensors")
    again = mg.load_model(path)
    np.testing.assert_array_equal(again.predict(x_test), model.predict(x_test))
print("the loaded model predicts the same")
