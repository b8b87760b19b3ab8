"""LeNet-5, the network that read cheques."""

from __future__ import annotations

from minigraph import layers
from minigraph.ir import fresh_names
from minigraph.layers.initializers import VarianceScaling
from minigraph.models.blocks import TORCH_LINEAR
from minigraph.training.model import Model

LECUN_UNIFORM = VarianceScaling(1.0, "fan_in", "uniform")


def lenet5(
    input_shape: tuple[int, int, int] = (28, 28, 1), classes: int = 10, seed: int = 0, name: str = "lenet5",
    dtype: str = "float32",
) -> Model:  # fmt: skip
    """Return LeNet-5 as it is used today: 61,706 parameters.

    LeCun, Bottou, Bengio, Haffner 1998, "Gradient-based learning applied to document recognition". As today: all
    channels of the second convolution are connected (there: a table), ReLU for a scaled tanh, max pooling for
    averages with a trained scale, logits for distances to drawn prototypes, and 28×28 images with two pixels of
    padding for 32×32 ones.

    >>> lenet5().graph.outputs["logits"]
    <add : float32[N,10]>
    """
    with fresh_names():
        x = image = layers.Input(input_shape, name="image", dtype=dtype)
        x = layers.Conv2D(6, 5, padding=2, activation="relu", kernel_initializer=LECUN_UNIFORM, name="conv1")(x)
        x = layers.MaxPooling2D(2, name="pool1")(x)
        x = layers.Conv2D(16, 5, activation="relu", kernel_initializer=LECUN_UNIFORM, name="conv2")(x)
        x = layers.MaxPooling2D(2, name="pool2")(x)
        x = layers.Flatten(name="flatten")(x)
        for number, units in enumerate((120, 84), 1):
            x = layers.Dense(units, activation="relu", kernel_initializer=LECUN_UNIFORM, name=f"fc{number}")(x)
        logits = layers.Dense(classes, kernel_initializer=TORCH_LINEAR, name="fc3")(x)
    return Model(image, {"logits": logits}, name=name, seed=seed)
