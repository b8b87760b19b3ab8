"""Weights that another framework trained: a table a family says where each variable is found, and in which layout."""

from __future__ import annotations

import importlib
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors

from minigraph.errors import ArgumentError, DataError, DTypeError, ModelFormatError, did_you_mean
from minigraph.ir.types import known
from minigraph.runtime.state import as_array
from minigraph.training.model import Model

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]


class Conversion:
    """From a foreign array to ours; this one is for arrays that are laid out alike.

    >>> Conversion().stored((3,))
    (3,)
    """

    def stored(self, shape: Shape) -> Shape:
        """Return the shape that the other framework gives to what has `shape` here."""
        return shape

    def convert(self, array: Array, shape: Shape) -> Array:
        """Return a foreign array in our layout, of shape `shape`."""
        return array


class OutputFirst(Conversion):
    """Kernels with output and input channels first: O,I,H,W → H,W,I,O, and out,in → in,out.

    >>> OutputFirst().stored((3, 3, 16, 32))
    (32, 16, 3, 3)
    """

    def stored(self, shape: Shape) -> Shape:
        """Return (out, in, height, width), or (out, in)."""
        return (shape[-1], shape[-2], *shape[:-2])

    def convert(self, array: Array, shape: Shape) -> Array:
        """Move the channels last."""
        return array.transpose((*range(2, array.ndim), 1, 0))


class PerChannel(Conversion):
    """Depthwise kernels with an axis for channels and one for multiples (1): H,W,C,1 → H,W,1,C.

    >>> PerChannel().stored((3, 3, 1, 32))
    (3, 3, 32, 1)
    """

    def stored(self, shape: Shape) -> Shape:
        """Return (height, width, channels, 1)."""
        return (*shape[:2], shape[3], shape[2])

    def convert(self, array: Array, shape: Shape) -> Array:
        """Swap the last two axes."""
        return array.reshape(shape)


@dataclass(frozen=True)
class AfterFlatten(Conversion):
    """The dense kernel behind a flattened image of so many channels: units,(C,H,W) → (H,W,C),units.

    >>> AfterFlatten(channels=512).stored((25088, 4096))
    (4096, 25088)
    """

    channels: int

    def stored(self, shape: Shape) -> Shape:
        """Return (units, features)."""
        return shape[::-1]

    def convert(self, array: Array, shape: Shape) -> Array:
        """Put the features in the order of channels last."""
        units = array.reshape(shape[1], self.channels, -1)
        return units.transpose(2, 1, 0).reshape(shape)


SAME, OUTPUT_FIRST, PER_CHANNEL = Conversion(), OutputFirst(), PerChannel()

# A map from one of our labels to the foreign name and the way to convert what is found there.
Names = Callable[[str], tuple[str, Conversion]]


@dataclass(frozen=True)
class Convention:
    """How a framework calls and lays out the parameters of a layer, and where its families' maps are."""

    parameters: Mapping[str, tuple[str, Conversion]]  # our name → theirs
    separator: str
    ignored: str  # entries of theirs that hold nothing for us
    maps: str  # a module with NAMES: model's name → Names; it imports this one, so it is loaded when asked for


CONVENTIONS = {
    "pytorch": Convention(
        {
            "kernel": ("weight", OUTPUT_FIRST), "depthwise_kernel": ("weight", OUTPUT_FIRST), "bias": ("bias", SAME),
            "gamma": ("weight", SAME), "beta": ("bias", SAME), "moving_mean": ("running_mean", SAME),
            "moving_variance": ("running_var", SAME),
        },
        ".", r".*\.num_batches_tracked", "minigraph.models.torch_names",
    ),
    "keras": Convention(
        {
            "kernel": ("kernel", SAME), "depthwise_kernel": ("depthwise_kernel", PER_CHANNEL),
            "pointwise_kernel": ("pointwise_kernel", SAME), "bias": ("bias", SAME), "gamma": ("gamma", SAME),
            "beta": ("beta", SAME), "moving_mean": ("moving_mean", SAME),
            "moving_variance": ("moving_variance", SAME),
        },
        "/", r"(?!)", "minigraph.models.keras_names",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Rule:
    """Layers whose path fits the pattern are called `name(*groups)` elsewhere; `kernel` is for kernels of their own."""

    pattern: str
    name: Callable[..., str]
    kernel: Conversion | None = None


def names_of(convention: str, rules: Sequence[Rule]) -> Names:
    """Return the map that a family's rules make: the first rule whose pattern fits the whole path of a layer counts.

    >>> names = names_of("pytorch", [Rule(r"stage(\\d+)/conv", lambda stage: f"layer{int(stage) - 1}.0")])
    >>> names("stage2/conv/kernel")[0]
    'layer1.0.weight'
    """
    parameters, separator = CONVENTIONS[convention].parameters, CONVENTIONS[convention].separator

    def names(label: str) -> tuple[str, Conversion]:
        path, _, parameter = label.rpartition("/")
        for rule in rules:
            found = re.fullmatch(rule.pattern, path)
            if found is None or parameter not in parameters:
                continue
            name, conversion = parameters[parameter]
            if rule.kernel is not None and parameter == "kernel":
                conversion = rule.kernel
            return rule.name(*found.groups()) + separator + name, conversion
        raise ArgumentError(
            f"variable {label!r} has no {convention} name", hint="load the weights before changing the network"
        )

    return names


def load_weights(
    model: Model, source: str | os.PathLike[str] | Mapping[str, Any], convention: str = "pytorch",
    skip: Iterable[str] = (),
) -> None:  # fmt: skip
    """Give a network of this package the weights that another framework has trained.

    source: a .safetensors file, or a mapping from the framework's names to arrays, such as a PyTorch `state_dict`.
    convention: "pytorch" (torchvision's names) or "keras" (those of keras.applications). The model's name says which
    family it is. Layouts are converted; PyTorch's `num_batches_tracked` is ignored. All shapes and names are checked
    before anything changes: either every variable of the network gets its value, or none does. An optimiser's state
    stays as it is. skip: paths of layers that keep the values they have, such as ["head"] where the classes are others.

    A file holds no ε, no momentum, and not how the moving variance was averaged: these are the network's own, given to
    its batch norms where it is built. Networks with PyTorch's names have ε = 1e-5, the unbiased moving variance, and
    momentum 0.9: PyTorch's 0.1 is the weight of the new value, ours that of the old.

    Raises an ArgumentError for a model without a map, a ModelFormatError for a file or arrays that do not fit.

    >>> from minigraph.models import lenet5
    >>> model = lenet5()
    >>> load_weights(model, {"conv1.weight": np.zeros((6, 1, 5, 5))})
    Traceback (most recent call last):
    ...
    minigraph.errors.ModelFormatError: weights of 'lenet5' are missing
      expected: conv1.bias, conv2.weight, conv2.bias, fc1.weight … (9 in all)
      got:      1 others
      at:       <doctest ...>:1
    """
    names = _names(model, convention)
    arrays = _read(source)
    kept = _kept(model, skip)
    variables = [v for v in model.graph.variables if v.label not in kept]
    wanted = {v.label: (*names(v.label), _shape(v.shape), v.dtype) for v in variables}
    foreign = [name for name, *_ in wanted.values()]
    ignored = "|".join([CONVENTIONS[convention].ignored, *(re.escape(names(label)[0]) for label in kept)])
    _check_names(model, foreign, arrays, ignored)
    converted = {
        label: _convert(label, name, arrays[name], conversion, shape, dtype)
        for label, (name, conversion, shape, dtype) in wanted.items()
    }
    for label, array in converted.items():
        model.state[label] = array


def _kept(model: Model, skip: Iterable[str]) -> set[str]:
    """Return the labels of the variables below some paths, each of which must have one."""
    if isinstance(skip, str):
        raise ArgumentError("skip takes several paths", expected=f"skip=[{skip!r}]", got=repr(skip))
    labels = [v.label for v in model.graph.variables]
    kept: set[str] = set()
    for path in skip:
        below = [label for label in labels if label == path or label.startswith(f"{path}/")]
        if not below:
            paths = list(dict.fromkeys(label.partition("/")[0] for label in labels))
            raise ArgumentError(f"no layer is called {path!r}", expected=", ".join(paths), got=repr(path))
        kept.update(below)
    return kept


def _names(model: Model, convention: str) -> Names:
    if convention not in CONVENTIONS:
        raise ArgumentError(
            f"no convention is called {convention!r}",
            expected=", ".join(CONVENTIONS),
            hint=did_you_mean(str(convention), list(CONVENTIONS)),
        )
    families: Mapping[str, Names] = importlib.import_module(CONVENTIONS[convention].maps).NAMES
    if model.name not in families:
        raise ArgumentError(
            f"no {convention} names are known for a model called {model.name!r}",
            expected=", ".join(families),
            hint="keep the name that the network's function gives to its model",
        )
    return families[model.name]


def _shape(shape: Iterable[Any]) -> Shape:
    return tuple(known(size) for size in shape)


def _read(source: str | os.PathLike[str] | Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the arrays by name; of a file only arrays are read, nothing in it is executed."""
    if isinstance(source, Mapping):
        return source
    if not isinstance(source, str | os.PathLike):
        raise ArgumentError(
            "weights are read from a file or a mapping", expected="a path, or name → array", got=type(source).__name__
        )
    try:
        tensors: dict[str, Array] = load_tensors(pathlib.Path(source).read_bytes())
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ModelFormatError(
            f"the weights cannot be read: {error}",
            expected="a .safetensors file of float arrays",
            got=os.fspath(source),
            hint="write a state_dict with safetensors.torch.save_file; pickles (.pth, .bin) are never opened",
        ) from None
    return tensors


def _check_names(model: Model, wanted: Sequence[str], arrays: Mapping[str, Any], ignored: str) -> None:
    used = set(wanted)
    missing = [name for name in wanted if name not in arrays]
    left = [str(name) for name in arrays if name not in used and not re.fullmatch(ignored, str(name))]
    if missing:
        raise ModelFormatError(
            f"weights of {model.name!r} are missing",
            expected=_listed(missing),
            got=f"{_listed(left)}, which the network does not have" if left else f"{len(arrays)} others",
            hint=did_you_mean(missing[0], left),
        )
    if left:
        raise ModelFormatError(
            f"there are weights that {model.name!r} does not have", expected=f"{len(used)} weights", got=_listed(left)
        )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown} … ({len(names)} in all)"


def _convert(label: str, name: str, value: Any, conversion: Conversion, shape: Shape, dtype: str) -> Array:
    try:
        array = as_array(f"weight {name!r}", value, dtype)
    except (DataError, DTypeError) as error:
        raise ModelFormatError(error.summary, expected=error.expected, got=error.got) from None
    except (TypeError, RuntimeError) as error:  # what PyTorch's tensors raise where NumPy cannot have them
        raise ModelFormatError(f"weight {name!r} cannot be made an array: {error}", expected=dtype) from None
    stored = conversion.stored(shape)
    if array.shape != stored:
        raise ModelFormatError(
            f"weight {name!r} does not fit variable {label!r}",
            expected=stored,
            got=array.shape,
            hint="the network's sizes and classes must be those of the weights",
        )
    return conversion.convert(array, shape)
