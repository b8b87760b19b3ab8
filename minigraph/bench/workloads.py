"""What is timed: training steps and inference of small and of well-known networks, as a user of minigraph has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from minigraph import layers, models
from minigraph.backends import base
from minigraph.errors import ArgumentError, did_you_mean
from minigraph.ir import fresh_names
from minigraph.ir.node import Node
from minigraph.ir.types import HALF
from minigraph.losses import SparseCategoricalCrossentropy
from minigraph.models.blocks import batch_norm, classifier, convolution, relu
from minigraph.models.resnet import basic_block, stages
from minigraph.optimizers import SGD
from minigraph.runtime import Profile, Program, State, compile, optimize
from minigraph.training.model import Model
from minigraph.training.precision import in_precision

Array: TypeAlias = np.ndarray[Any, Any]

# The optimiser of all training steps; some learn more slowly.
RATE, MOMENTUM = 0.01, 0.9
# How many batches a data set on the device has.
SET = 200


@dataclass(frozen=True)
class Workload:
    """One thing to time: a network, a batch of images N,H,W,C, and whether a step trains or infers.

    gpu: whether it is for a GPU. precision: of products and convolutions, "float32", "tf32" (operands are rounded to 10
    bits of fraction) or "bfloat16" (operands and results are; variables and statistics stay float32). data: each step's
    batch comes from the "host", one batch is on the "device" for all steps, or a whole data "set" is there and each
    step gathers a batch of it. launch: how many steps one call may do. rate: the optimiser's.
    """

    name: str
    alias: str
    batch: int
    image: tuple[int, int, int]
    model: Callable[..., Model]
    trains: bool
    gpu: bool = False
    precision: str = "float32"
    data: str = "host"
    launch: int = 1
    rate: float = RATE

    @property
    def samples(self) -> int:
        """How many images there are: a batch, or a data set."""
        return self.batch * (SET if self.data == "set" else 1)

    def images(self) -> Array:
        """Return random images."""
        return np.random.default_rng(0).standard_normal((self.samples, *self.image)).astype(np.float32)

    def labels(self) -> Array:
        """Return a class for each image."""
        return np.random.default_rng(1).integers(0, 10, self.samples)


class Prepared(NamedTuple):
    """A workload as a peer does it: a call without arguments, and what makes a float of its result.

    On a GPU, where calls only say what is to be done: `wait` returns when all of it is; a call does so many `steps`;
    `memory` tells the bytes that it takes there. work: for each step of a plan its floating-point operations, its
    bytes, and the arithmetic it is done in: what a floor is made of.
    """

    step: Callable[[], Any]
    number: Callable[[Any], float]
    wait: Callable[[], object] | None = None
    steps: int = 1
    memory: Callable[[], int] | None = None
    work: tuple[tuple[int, int, str], ...] = ()


def mnist(dtype: str = "float32") -> Model:
    """Return two blocks of convolution, batch norm, ReLU and pooling, and two dense layers: 421,866 parameters."""
    with fresh_names():
        x = image = layers.Input((28, 28, 1), name="image", dtype=dtype)
        for block, filters in enumerate((32, 64), start=1):
            x = _block(x, filters, block)
            x = layers.MaxPooling2D(2)(x)
        x = layers.Dense(128, use_bias=False)(layers.Flatten()(x))
        x = relu(layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x), name="relu3")
        return Model(image, {"logits": layers.Dense(10)(x)}, name="mnist")


def tiny(dtype: str = "float32") -> Model:
    """Return two blocks on 8×8 images: so little work that a call's own cost shows."""
    with fresh_names():
        image = layers.Input((8, 8, 1), name="image", dtype=dtype)
        x = _block(_block(image, 16, 1), 32, 2)
        return Model(image, {"logits": classifier(x, 10)}, name="tiny")


def small(dtype: str = "float32") -> Model:
    """Return two blocks on 28×28 images, pooling, and two dense layers: less work than it takes to tell a GPU of it."""
    with fresh_names():
        image = layers.Input((28, 28, 1), name="image", dtype=dtype)
        x = layers.MaxPooling2D(2)(_block(_block(image, 32, 1), 64, 2))
        x = relu(layers.Dense(128)(layers.Flatten()(x)), name="relu3")
        return Model(image, {"logits": layers.Dense(10)(x)}, name="small")


def _block(x: Node, filters: int, number: int) -> Node:
    x = convolution(x, filters, 3, name=f"conv{number}")
    return relu(batch_norm(x, name=f"bn{number}"), name=f"relu{number}")


def cifar(dtype: str = "float32") -> Model:
    """Return ResNet-18 for 32×32 images: a 3×3 stem without pooling, then the blocks of the ImageNet network."""
    with fresh_names():
        image = layers.Input((32, 32, 3), name="image", dtype=dtype)
        x = stages(_block(image, 64, 1), basic_block, (2, 2, 2, 2), 64)
        return Model(image, {"logits": classifier(x, 10)}, name="cifar")


_IMAGENET = (224, 224, 3)
WORKLOADS = (
    Workload("mnist-train", "W1", 64, (28, 28, 1), mnist, True),
    Workload("tiny-train", "W2", 32, (8, 8, 1), tiny, True),
    Workload("cifar-train", "W4", 32, (32, 32, 3), cifar, True),
    Workload("resnet18-infer-1", "W3-r18-1", 1, _IMAGENET, models.resnet18, False),
    Workload("resnet18-infer-8", "W3-r18-8", 8, _IMAGENET, models.resnet18, False),
    Workload("resnet50-infer-1", "W3-r50-1", 1, _IMAGENET, models.resnet50, False),
    Workload("resnet50-infer-8", "W3-r50-8", 8, _IMAGENET, models.resnet50, False),
)
_MNIST = (28, 28, 1)


def _resnet50(what: str, alias: str, batch: int, precision: str) -> Workload:
    short = {"bfloat16": "bf16"}.get(precision, precision)
    name, trains = f"resnet50-{what}-{short}", what == "train"
    return Workload(name, f"{alias}-{short}", batch, _IMAGENET, models.resnet50, trains, True, precision, "device")


# What a GPU is for; `minigraph bench --gpu`.
GPU_WORKLOADS = (
    Workload("small-train", "G1", 64, _MNIST, small, True, True, "tf32", rate=0.001),
    Workload("small-train-set", "G2", 64, _MNIST, small, True, True, "tf32", "set", 20, 0.001),
    _resnet50("train", "G3", 128, "bfloat16"),
    _resnet50("train", "G3", 128, "tf32"),
    _resnet50("infer-128", "G4-128", 128, "bfloat16"),
    _resnet50("infer-128", "G4-128", 128, "tf32"),
    _resnet50("infer-1", "G4-1", 1, "bfloat16"),
    _resnet50("infer-1", "G4-1", 1, "tf32"),
)


def find(name: str) -> list[Workload]:
    """Return the workloads of a name, an alias, or of an alias's beginning: "W3" are four.

    >>> [w.name for w in find("W1") + find("tiny-train")], len(find("W3"))
    (['mnist-train', 'tiny-train'], 4)
    """
    every = (*WORKLOADS, *GPU_WORKLOADS)
    found = [w for w in every if name in (w.name, w.alias) or w.alias.startswith(f"{name}-")]
    if not found:
        known = [n for w in every for n in (w.name, w.alias)]
        raise ArgumentError("no such workload", expected=", ".join(known), got=name, hint=did_you_mean(name, known))
    return found


def backend_on(name: str, threads: int) -> base.Backend:
    """Return the backend called `name`, on so many threads.

    >>> backend_on("numpy", 1).name
    'numpy'
    """
    make: Callable[[int], base.Backend] = type(base.get(name))
    return make(threads)


def training_program(
    model: Model, backend: base.Backend | str, precision: str = "float32", rate: float = RATE
) -> tuple[Program, State]:
    """Return the program that does a training step of the benchmarks, and the state that it changes."""
    loss = SparseCategoricalCrossentropy(from_logits=True)
    model.compile(SGD(rate, momentum=MOMENTUM), loss, backend=backend, precision=precision)
    return model.program("training"), model.state


def inference_program(model: Model, backend: base.Backend | str, precision: str = "float32") -> tuple[Program, State]:
    """Return the program that infers with the model's numbers frozen in, all batch norms folded."""
    if precision in HALF:  # folded with all digits, rounded then; the program's own passes join what is left
        graph = in_precision(optimize(model.lower("inference"), model.state, exclude=["fuse"])[0], precision)
    else:
        graph = optimize(model.lower("inference"), model.state)[0]
    return compile(graph, backend=backend), model.state


def prepared(workload: Workload, backend: base.Backend | str) -> tuple[Program, State, dict[str, Array]]:
    """Return a workload's program on a backend, its state, and what it is called with."""
    model = workload.model()
    # Rounded operands are the backend's own affair; half precision is in the graph.
    precision = workload.precision if workload.precision in HALF else "float32"
    if workload.trains:
        program, state = training_program(model, backend, precision, workload.rate)
        return program, state, feeds(model, workload.images(), workload.labels())
    return (*inference_program(model, backend, precision), feeds(model, workload.images()))


def profile(workload: Workload, backend: base.Backend | str, repeats: int) -> Profile:
    """Return where the time of a workload's steps goes, on a batch from the host."""
    program, state, feed = prepared(replace(workload, data="host"), backend)
    return program.profile(state, repeats, **feed)


def feeds(model: Model, images: Array, labels: Array | None = None) -> dict[str, Array]:
    """Return the arrays by the names of the model's inputs."""
    (image,) = model.graph.inputs
    return {image.label: images} if labels is None else {image.label: images, "label": labels}


def parameters(model: Model) -> list[Array]:
    """Return the first values of all that trains, in the graph's order."""
    return [model.state[v.label] for v in model.graph.variables if v.op.trainable]  # type: ignore[attr-defined]


def stepper(program: Program, state: State, feed: dict[str, Array]) -> Callable[[], Any]:
    """Return a call without arguments that does one step and returns its one output."""
    (output,) = program.definition.outputs

    def step() -> Any:
        return program(state, **feed)[output]

    return step


def names(workloads: Iterable[Workload]) -> str:
    """Return the workloads' names and aliases, as a help text lists them.

    >>> names(find("W1"))
    'mnist-train (W1)'
    """
    return ", ".join(f"{w.name} ({w.alias})" for w in workloads)
