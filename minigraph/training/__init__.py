"""Training: `model` is what users hold, `fitting` the loop, `callbacks` what listens to it, `checkpoint` the file."""

from minigraph.training.callbacks import (
    Callback,
    CSVLogger,
    EarlyStopping,
    History,
    ModelCheckpoint,
    ReduceLROnPlateau,
    TerminateOnNaN,
)
from minigraph.training.model import Model, MovingAverageWarning

__all__ = [
    "CSVLogger", "Callback", "EarlyStopping", "History", "Model", "ModelCheckpoint", "MovingAverageWarning",
    "ReduceLROnPlateau", "TerminateOnNaN",
]  # fmt: skip
