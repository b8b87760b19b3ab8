"""The model: one definition, its variables' values, and the programs made of them."""

from __future__ import annotations

import os
import pathlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np

from minigraph import losses, metrics, ops, optimizers
from minigraph.autodiff import gradients
from minigraph.backends.base import Backend
from minigraph.data import Batches, check_finite, check_whole
from minigraph.errors import ArgumentError, DataError, GraphError, did_you_mean, explain_arguments
from minigraph.ir.graph import Graph, bind, topological
from minigraph.ir.leaves import Input, Variable
from minigraph.ir.node import Node
from minigraph.ir.origin import scope
from minigraph.ir.types import known
from minigraph.ops.norm import BatchNorm
from minigraph.passes import FOLD_BATCH_NORM, run
from minigraph.passes.lower import lower
from minigraph.runtime import Program, State, compile, later
from minigraph.training import fitting, summary
from minigraph.training.loss_scale import LossScale
from minigraph.training.precision import backend_of, in_precision
from minigraph.training.resident import ResidentPrograms

# A moving average that still holds more than this share of its start value is worth a warning.
START_WEIGHT = 0.05


class MovingAverageWarning(UserWarning):
    """Batch norm's moving averages have seen too few batches to be trusted in inference."""


@dataclass
class Training:
    """What `compile` was given: how the model learns and is judged."""

    optimizer: optimizers.Optimizer
    losses: Mapping[str, losses.Loss]  # by output name
    metrics: Sequence[tuple[str, metrics.Metric]]
    backend: str | Backend
    on: Backend  # what the backend's name stands for: one object for all programs, which share what is on a device
    memory_limit: int | None = None
    precision: str = "float32"
    steps_per_execution: int = 1
    programs: dict[tuple[str, bool], Program] = field(default_factory=dict)
    resident: ResidentPrograms | None = None


class Model:
    """A definition with inputs and outputs, from which training and inference programs are compiled.

    inputs: nodes made by `Input`. outputs: a node, a list of nodes, or a dict name → node. seed: what first values,
    dropout and the order of the data are drawn from.

    >>> import numpy as np
    >>> from minigraph import layers
    >>> x = layers.Input((4,), name="x")
    >>> model = Model(x, layers.Dense(3, activation="softmax")(x))
    >>> model.predict(np.zeros((2, 4), "float32")).shape
    (2, 3)
    """

    def __init__(
        self,
        inputs: Node | Sequence[Node],
        outputs: Node | Sequence[Node] | Mapping[str, Node],
        name: str = "model",
        seed: int = 0,
    ) -> None:
        listed = [inputs] if isinstance(inputs, Node) else list(inputs)
        self._setup(Graph(_named_outputs(outputs), inputs=_check_inputs(listed)), name, seed)
        found = self.graph.inputs[len(listed) :]
        if found:
            raise GraphError(
                "the outputs need inputs that the model does not list",
                expected=", ".join(i.label for i in listed),
                got=", ".join(i.label for i in found),
                where=found[0].origin.where,
            )

    @classmethod
    def from_graph(
        cls, graph: Graph, name: str = "model", seed: int = 0, state: Mapping[str, Any] | None = None
    ) -> Model:
        """Return the model of a definition that exists already, for instance one that was parsed.

        With a state its variables have these numbers; none is drawn.
        """
        model = cls.__new__(cls)
        model._setup(graph, name, seed)
        if state is not None:
            model._state = State(state)
        return model

    def _setup(self, graph: Graph, name: str, seed: int) -> None:
        self.graph = graph
        self.name = name
        self.seed = seed
        self.stop_training = False
        self.progress = fitting.Progress()
        self.training: Training | None = None
        self._state: State | None = None
        self._inference: Program | None = None
        self._warned = False
        # While fit runs: puts what history and callbacks know into the progress, so that saving saves all.
        self.remember: Callable[[], None] | None = None

    @property
    def state(self) -> State:
        """The values of all variables; first values are drawn when they are first asked for."""
        if self._state is None:
            self._state = State.initial(self.graph.variables, self.seed)
        return self._state

    # --- from one definition to several graphs ----------------------------------------------------------------------

    def lower(self, mode: str, batch_size: int | None = None) -> Graph:
        """Return the graph that runs in `mode`: "inference", or "training" with loss, backward pass and updates.

        With a batch size the symbolic N is bound. Before `compile` a training graph holds the forward pass and the
        updates of moving averages.
        """
        if mode == "training" and self.training is not None:
            graph = self._training_graph(self.training)
        else:
            graph = lower(self.graph, mode, self.seed)
        return graph if batch_size is None else bind(graph, N=batch_size)

    def _with_loss(self, training: Training) -> Graph:
        """Return the definition extended by labels, loss and metrics."""
        outputs: dict[str, Node] = {}
        labels: list[Node] = []
        terms: list[Node] = []
        for name, prediction in self.graph.outputs.items():
            if name not in training.losses:
                continue
            single = len(training.losses) == 1
            label = training.losses[name].label(prediction, "label" if single else f"{name}_label")
            labels.append(label)
            with scope("loss"):
                terms.append(training.losses[name](label, prediction))
            with scope("metrics"):
                for metric_name, metric in training.metrics:
                    outputs[metric_name if single else f"{name}_{metric_name}"] = metric(label, prediction)
        with scope("loss"):
            for variable in self.graph.variables:
                regularizer = getattr(variable.op, "regularizer", None)
                if regularizer is not None and getattr(variable.op, "trainable", False):
                    terms.append(regularizer(variable))
            total = reduce(ops.add, terms)
        return Graph({"loss": total, **outputs}, inputs=[*self.graph.inputs, *labels])

    def _training_graph(self, training: Training) -> Graph:
        lowered = lower(self._with_loss(training), "training", self.seed)
        # Frozen batch norms fold before gradients are taken: later their inputs are read by the backward pass too.
        lowered = in_precision(run([FOLD_BATCH_NORM], lowered)[0], training.precision)
        loss = lowered.outputs["loss"]
        used = topological([loss])
        trainable = [n for n in used if isinstance(n.op, Variable) and n.op.trainable]
        if not trainable:
            raise GraphError("nothing to train", expected="a trainable variable that the loss depends on")
        scaling = LossScale() if training.precision == "float16" else None
        found = scaling.gradients(loss, trainable) if scaling else gradients(loss, trainable)
        steps = training.optimizer.updates(list(zip(trainable, found, strict=True)))
        updates = {**lowered.updates, **steps}
        return Graph(lowered.outputs, scaling.guarded(updates) if scaling else updates, lowered.inputs)

    # --- programs ---------------------------------------------------------------------------------------------------

    @explain_arguments
    def compile(
        self,
        optimizer: str | optimizers.Optimizer = "sgd",
        loss: Any = None,
        metrics: Sequence[str | metrics.Metric] | None = None,
        backend: str | Backend = "numpy",
        memory_limit: int | None = None,
        precision: str = "float32",
        steps_per_execution: int = 1,
    ) -> None:
        """Say how the model learns: optimiser, loss (one for all outputs, or a dict by output name), metrics, backend.

        memory_limit: bytes that a training step may need beside variables; see `minigraph.compile`. precision: of
        products and activations, "float32", "float16" or "bfloat16", where variables stay float32 (see
        `minigraph.passes.MixedPrecision`); with the backend "cupy" also "tf32", float32 with products of fewer digits.
        steps_per_execution: batches that `fit` gives the backend at once; callbacks hear of each execution.

        Raises an ArgumentError for names that do not exist. What was learned so far stays.
        """
        on = backend_of(backend, precision)  # what does not exist is refused before anything changes
        steps = check_whole("steps_per_execution", steps_per_execution, least=1)
        named = [_named_metric(m) for m in metrics or ()]
        training = Training(
            optimizers.get(optimizer), self._losses(loss), named, backend, on, memory_limit, precision, steps
        )
        variables = self._training_graph(training).variables
        self.training, self._inference = training, None
        self.state.add(variables, self.seed)

    def _losses(self, loss: Any) -> dict[str, losses.Loss]:
        if loss is None:
            raise ArgumentError("compile needs a loss", expected=", ".join(losses.NAMED))
        if not isinstance(loss, Mapping):
            return dict.fromkeys(self.graph.outputs, losses.get(loss))
        unknown = [name for name in loss if name not in self.graph.outputs]
        if unknown:
            raise ArgumentError(f"no output is called {unknown[0]!r}", expected=", ".join(self.graph.outputs))
        return {name: losses.get(each) for name, each in loss.items()}

    def program(self, mode: str, check_finite: bool = False) -> Program:
        """Return the compiled program: "training" (a step), "evaluation" (loss and metrics) or "inference"."""
        if mode == "inference":
            if self._inference is None:
                chosen = self.training
                graph = in_precision(self.lower("inference"), "float32" if chosen is None else chosen.precision)
                self._inference = compile(graph, backend="numpy" if chosen is None else chosen.on)
            return self._inference
        training = self.compiled()
        key = (mode, check_finite)
        if key not in training.programs:
            if mode == "training":
                graph = self._training_graph(training)
            else:
                graph = lower(self._with_loss(training), "inference", self.seed)
                graph = in_precision(graph, training.precision)
            limit = training.memory_limit if mode == "training" else None
            training.programs[key] = compile(
                graph,
                backend=training.on,
                check_finite=check_finite,
                memory_limit=limit,
            )
        return training.programs[key]

    def compiled(self) -> Training:
        """Return what `compile` was given; an ArgumentError if it has not been called."""
        if self.training is None:
            raise ArgumentError("the model is not compiled", hint="model.compile(optimizer=…, loss=…) first")
        return self.training

    # --- learning and judging ---------------------------------------------------------------------------------------

    @explain_arguments
    def fit(
        self, x: Any, y: Any = None, batch_size: int = 32, epochs: int = 1, verbose: str | int = "auto",
        callbacks: Sequence[Any] | None = None, validation_split: float = 0.0, validation_data: Any = None,
        shuffle: bool = True, initial_epoch: int = 0, augment: Any = None, seed: int | None = None,
        drop_last: bool = False, resume: bool = False,
    ) -> Any:  # fmt: skip
        """Train for `epochs` passes over the data and return the History.

        augment: a callable (x, rng) → x, see `minigraph.augmentation`. seed: of the order of the data, the model's by
        default. drop_last: leave out an incomplete last batch. resume: go on where an interrupted fit, or the
        checkpoint the model was loaded from, stopped; the result is bit for bit that of a fit without the stop. Ctrl-C
        finishes the running step, tells the callbacks, and raises KeyboardInterrupt.
        """
        arrays, labels = self._check_data(x, y)
        if validation_split:
            arrays, labels, validation_data = _split_off(arrays, labels, validation_split)
        elif validation_data is not None:
            validation_data = self._check_data(*validation_data)
        batches = Batches(
            arrays,
            labels,
            batch_size,
            shuffle,
            self.seed if seed is None else seed,
            self._augmentation(augment),
            drop_last,
        )
        loop = fitting.Loop(self, batches, validation_data, epochs, callbacks or (), verbose)
        return loop.run(initial_epoch, resume)

    def _augmentation(self, augment: Any) -> Any:
        if augment is None or isinstance(augment, Mapping):
            return augment
        return {self.graph.inputs[0].label: augment}

    def train_on_batch(self, x: Any, y: Any) -> dict[str, float]:
        """Do one step on one batch and return loss and metrics."""
        arrays, labels = self._check_data(x, y)
        return _floats(self.program("training")(self.state, **arrays, **labels))

    def evaluate(self, x: Any, y: Any, batch_size: int = 256, verbose: str | int = 0) -> dict[str, float]:
        """Return loss and metrics over all the data, in inference mode."""
        self._warn_about_averages()
        arrays, labels = self._check_data(x, y)
        logs = self.judge(arrays, labels, batch_size)
        if verbose and verbose != "auto":
            print(" - ".join(f"{name}: {value:.4f}" for name, value in logs.items()))
        return logs

    def judge(self, arrays: Mapping[str, Any], labels: Mapping[str, Any], batch_size: int) -> dict[str, float]:
        """Return loss and metrics over checked data: means of batches, weighted by their sizes."""
        program = self.program("evaluation")
        totals: dict[str, float] = {}
        batches = Batches(dict(arrays), dict(labels), batch_size, shuffle=False)
        submitted = (
            (len(next(iter(batch.values()))), program.submit(self.state, **batch, **answers))
            for batch, answers in batches.epoch(0)
        )
        for number, pending in later(submitted, program.ahead):
            for name, value in pending.result().items():
                totals[name] = totals.get(name, 0.0) + float(value) * number
        return {name: total / batches.samples for name, total in totals.items()}

    def predict(self, x: Any, batch_size: int = 256) -> Any:
        """Return the outputs for all of x: an array, or a dict of arrays for several outputs."""
        self._warn_about_averages()
        program = self.program("inference")
        arrays = self._arrays(x, [i.label for i in self.graph.inputs], "input")
        parts: dict[str, list[Any]] = {name: [] for name in self.graph.outputs}
        batches = Batches(arrays, None, batch_size, shuffle=False).epoch(0)
        for pending in later((program.submit(self.state, **batch) for batch, _ in batches), program.ahead):
            for name, value in pending.result().items():
                parts[name].append(value)
        joined = {name: np.concatenate(pieces) for name, pieces in parts.items()}
        return joined if len(joined) > 1 else next(iter(joined.values()))

    def recalibrate(self, x: Any, batch_size: int = 256) -> dict[str, float]:
        """Replace batch norm's moving averages by the statistics of all of x; return how far each one moved.

        See `minigraph.training.recalibration`.
        """
        from minigraph.training.recalibration import recalibrate

        arrays = self._arrays(x, [i.label for i in self.graph.inputs], "input")
        for name, array in arrays.items():
            check_finite(name, array)
        self._warned = True  # the averages are those of the data now
        return recalibrate(self, arrays, batch_size)

    def _warn_about_averages(self) -> None:
        """Warn, once, if averages that are used for inference still hold much of the value they began with."""
        steps = float(self.state.get(optimizers.ITERATIONS, 0))
        if self._warned or not steps:
            return
        for node in self.graph.nodes:
            moving = node.op.moving if isinstance(node.op, BatchNorm) else None
            if moving is None or moving.frozen or moving.cumulative:
                continue
            weight = moving.momentum**steps
            if weight > START_WEIGHT:
                self._warned = True
                warnings.warn(
                    f"batch norm's moving averages still hold {weight:.0%} of their start value after {steps:.0f} "
                    f"steps with momentum {moving.momentum}: train longer, use a smaller momentum or "
                    "BatchNorm(cumulative=True), or call model.recalibrate(x)",
                    MovingAverageWarning,
                    stacklevel=3,
                )
                return

    # --- data -------------------------------------------------------------------------------------------------------

    def _check_data(self, x: Any, y: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return inputs and labels as arrays by name; refuse NaN, labels out of range, and lengths that differ."""
        training = self.compiled()
        arrays = self._arrays(x, [i.label for i in self.graph.inputs], "input")
        if y is None:
            raise DataError("labels are missing", expected="y")
        names = list(training.losses)
        labels = self._arrays(y, ["label"] if len(names) == 1 else [f"{n}_label" for n in names], "label")
        for name, array in (*arrays.items(), *labels.items()):
            check_finite(name, array)
        for output, array in zip(names, labels.values(), strict=True):
            training.losses[output].check(array, self.graph.outputs[output])
        lengths = {name: len(array) for name, array in (*arrays.items(), *labels.items())}
        if len(set(lengths.values())) > 1:
            raise DataError("inputs and labels differ in length", expected="one length", got=lengths)
        return arrays, labels

    def _arrays(self, data: Any, names: list[str], what: str) -> dict[str, Any]:
        """Return data given as an array, a list of arrays or a dict as arrays by name."""
        if isinstance(data, Mapping):
            by_output = {n.removesuffix("_label"): n for n in names}
            given = {by_output.get(str(k), str(k)): v for k, v in data.items()}
            unknown = [k for k in given if k not in names]
            if unknown or len(given) != len(names):
                raise DataError(
                    f"the {what}s do not fit",
                    expected=", ".join(names),
                    got=", ".join(map(str, data)),
                    hint=did_you_mean(unknown[0], names) if unknown else None,
                )
            return {name: np.asarray(given[name]) for name in names}
        several = list(data) if len(names) > 1 and isinstance(data, (list, tuple)) else [data]
        if len(several) != len(names):
            raise DataError(f"wrong number of {what}s", expected=", ".join(names), got=len(several))
        return {name: np.asarray(array) for name, array in zip(names, several, strict=True)}

    # --- showing and keeping ----------------------------------------------------------------------------------------

    def summary(self, batch_size: int = 1, print_: bool = True, **sizes: int) -> str:
        """Return, and print, a table of layers with output types, parameters, FLOPs and bytes, and the peak memory.

        Sizes that are open beside the batch are given by name.
        """
        text = summary.summarise(self, batch_size, sizes)
        if print_:
            print(text)
        return text

    def save(self, path: str | os.PathLike[str]) -> pathlib.Path:
        """Write definition, variables, optimiser and progress to one safetensors file, atomically."""
        from minigraph.training.checkpoint import save_model

        if self.remember is not None:
            self.remember()
        return save_model(self, path)

    def __repr__(self) -> str:
        parameters = sum(known(v.tensor_type.size) for v in self.graph.variables)
        return f"<Model {self.name!r}: {len(self.graph.nodes)} nodes, {parameters:,} parameters>"


def _named_outputs(outputs: Node | Sequence[Node] | Mapping[str, Node]) -> dict[str, Node]:
    if isinstance(outputs, Node):
        return {"output": outputs}
    if isinstance(outputs, Mapping):
        return dict(outputs)
    return {f"output_{i}": node for i, node in enumerate(outputs)}


def _check_inputs(inputs: list[Any]) -> list[Node]:
    for node in inputs:
        if not isinstance(node, Node) or not isinstance(node.op, Input):
            raise ArgumentError("a model's inputs are input nodes", expected="what mg.Input returns", got=repr(node))
    return inputs


def _named_metric(metric: str | metrics.Metric) -> tuple[str, metrics.Metric]:
    name, function = metrics.get(metric)
    if name == "loss":
        raise ArgumentError("a metric cannot be called 'loss'", got=metric)
    return name, function


def _split_off(arrays: dict[str, Any], labels: dict[str, Any], share: float) -> tuple[Any, Any, Any]:
    """Return (arrays, labels, validation data): the last share of the data, as Keras splits it."""
    if not 0 < share < 1:
        raise ArgumentError("bad validation_split", expected="0 < share < 1", got=share)
    length = len(next(iter(arrays.values())))
    cut = int(length * (1 - share))
    if not cut:
        raise DataError("validation_split leaves nothing to train on", got=f"{share} of {length} examples")
    before = [{k: v[:cut] for k, v in part.items()} for part in (arrays, labels)]
    after = [{k: v[cut:] for k, v in part.items()} for part in (arrays, labels)]
    return before[0], before[1], (after[0], after[1])


def _floats(logs: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in logs.items()}
