"""Draws the picture of README.md: `python docs/pictures/draw.py`, from the root of the repository."""

import pathlib

import minigraph as mg
from minigraph.models.small import plain_network

folder = pathlib.Path(__file__).parent
model = plain_network((28, 28, 1), (16, "pool", 32), name="two blocks")
model.compile(mg.optimizers.SGD(0.1), mg.losses.SparseCategoricalCrossentropy(from_logits=True))
mg.render(model.lower("training"), folder / "training.svg")
