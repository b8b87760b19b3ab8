"""Saving and loading: one safetensors file with the arrays, and in its header the definition as text.

No pickle, no import by name: ops, initialisers, optimisers and losses are resolved through the registries alone. Every
array carries a SHA-256, and so does the header, because the format itself accepts flipped bits.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save as save_tensors

from minigraph import losses, metrics, optimizers
from minigraph.backends.dtypes import array_dtype
from minigraph.errors import MinigraphError, ModelFormatError
from minigraph.files import write_atomically
from minigraph.ir.node import Node
from minigraph.ir.parser import parse, parse_value
from minigraph.ir.printer import value_text
from minigraph.training.fitting import Progress
from minigraph.training.model import Model, Training

FORMAT = "minigraph-1"
# A header larger than this is not one of ours: the definition of a network of 100,000 nodes has some 10 MB.
MAX_HEADER = 1 << 27
# What the format calls dtypes → ours.
_DTYPES = {
    "BOOL": "bool", "I8": "int8", "U8": "uint8", "I16": "int16", "U16": "uint16", "I32": "int32", "U32": "uint32",
    "I64": "int64", "U64": "uint64", "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
}  # fmt: skip


def save_model(model: Model, path: str | os.PathLike[str]) -> pathlib.Path:
    """Write a model to `path`, whole or not at all, and return the path."""
    arrays = {name: np.asarray(value, order="C") for name, value in model.state.items()}
    header = {
        "format": FORMAT,
        "name": model.name,
        "seed": str(model.seed),
        "graph": str(model.graph),
        "training": json.dumps(_training_text(model.training)),
        "progress": json.dumps(vars(model.progress)),
        "sha256": json.dumps({name: _digest(value) for name, value in arrays.items()}),
    }
    header["header_sha256"] = _header_digest(header)
    return write_atomically(path, _in_order(save_tensors(arrays, metadata=header)))


def _in_order(data: bytes) -> bytes:
    """Return a safetensors file with its header's keys sorted: the library writes them in a random order."""
    size = int.from_bytes(data[:8], "little")
    text = json.dumps(json.loads(data[8 : 8 + size]), sort_keys=True, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def load_model(path: str | os.PathLike[str]) -> Model:
    """Return the model that `save` wrote: definition, variables, optimiser and progress.

    Whatever is wrong with the file raises a ModelFormatError that says what; nothing in the file is ever executed.

    >>> import tempfile
    >>> from minigraph import layers
    >>> x = layers.Input((4,), name="x")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Model(x, layers.Dense(3)(x)).save(f"{folder}/net.safetensors")
    ...     load_model(file).graph.outputs
    mappingproxy({'output': <add : float32[N,3]>})
    """
    data = pathlib.Path(path).read_bytes()
    header = _header(data, os.fspath(path))
    arrays = _arrays(data, header)
    try:
        graph = parse(header["graph"])
        model = Model.from_graph(graph, header["name"], int(header["seed"]))
        _fill(model, arrays)
        _restore_training(model, json.loads(header["training"]), arrays)
        model.progress = _progress(json.loads(header["progress"]))
    except ModelFormatError:
        raise
    except (MinigraphError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelFormatError(f"the file does not hold a valid model: {error}", got=os.fspath(path)) from None
    return model


def _digest(array: np.ndarray[Any, Any]) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


def _header_digest(header: Mapping[str, str]) -> str:
    listed = sorted((k, v) for k, v in header.items() if k != "header_sha256")
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def _header(data: bytes, path: str) -> dict[str, str]:
    """Return the metadata of a safetensors file, checked before anything is allocated."""
    if len(data) < 8:
        raise ModelFormatError("the file is too short to be a model", expected="at least 8 bytes", got=len(data))
    size = int.from_bytes(data[:8], "little")
    if size > min(len(data) - 8, MAX_HEADER):
        raise ModelFormatError(
            "the file is truncated or damaged",
            expected=f"a header of {size} bytes",
            got=f"{len(data) - 8} bytes after the length",
            hint="copy the file again, or go back to an older checkpoint",
        )
    try:
        parsed = json.loads(data[8 : 8 + size], object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise ModelFormatError(f"the header is not JSON: {error}", got=path) from None
    header = parsed.get("__metadata__") if isinstance(parsed, dict) else None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ModelFormatError(
            "not a minigraph model",
            expected=f"a safetensors file with format {FORMAT!r}",
            got=repr(header.get("format")) if isinstance(header, dict) else "no metadata",
        )
    if header.get("header_sha256") != _header_digest(header):
        raise ModelFormatError("the header is damaged: its SHA-256 does not fit", got=path)
    missing = {"name", "seed", "graph", "training", "progress", "sha256"} - header.keys()
    if missing:
        raise ModelFormatError("the header is incomplete", expected=", ".join(sorted(missing)), got=path)
    return header


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key occurs twice")
    return result


def _arrays(data: bytes, header: Mapping[str, str]) -> dict[str, Any]:
    try:
        arrays = {name: _array(**entry) for name, entry in deserialize(data)}  # type: ignore[no-untyped-call]
        digests = dict(json.loads(header["sha256"]).items())
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ModelFormatError(
            f"the file is truncated or damaged: {error}", hint="go back to an older checkpoint"
        ) from None
    if arrays.keys() != digests.keys():
        raise ModelFormatError("the arrays are not those that were saved", expected=list(digests), got=list(arrays))
    for name, array in arrays.items():
        if _digest(array) != digests[name]:
            raise ModelFormatError(f"array {name!r} is damaged: its SHA-256 does not fit")
    return arrays


def _array(dtype: str, shape: list[int], data: bytes) -> Any:
    """Return one array of a file."""
    return np.frombuffer(data, array_dtype(_DTYPES[dtype])).reshape(shape)


def _fill(model: Model, arrays: Mapping[str, Any]) -> None:
    """Give the model's state the saved arrays, which must fit the definition's variables exactly."""
    _check_fit(model.graph.variables, arrays)
    for name, array in arrays.items():
        model.state[name] = array


def _check_fit(variables: Iterable[Node], arrays: Mapping[str, Any]) -> None:
    for node in variables:
        array = arrays.get(node.label)
        if array is None or array.shape != node.shape or str(array.dtype) != node.dtype:
            got = "nothing" if array is None else f"{array.dtype}{list(array.shape)}"
            raise ModelFormatError(f"array {node.label!r} does not fit", expected=node.type, got=got)


def _training_text(training: Training | None) -> dict[str, Any] | None:
    """Return what `compile` was given as text; None where it holds functions, which have no text."""
    if training is None or not isinstance(training.backend, str):
        return None
    known_metrics = [name for name, function in training.metrics if metrics.NAMED.get(name) is function]
    if len(known_metrics) < len(training.metrics):
        return None
    try:
        optimizer = value_text(training.optimizer)
        texts = {name: value_text(loss) for name, loss in training.losses.items()}
    except TypeError:  # a schedule that is a function, a loss of the user's own
        return None
    return {
        "optimizer": optimizer,
        "losses": texts,
        "metrics": known_metrics,
        "backend": training.backend,
        "precision": training.precision,
        "steps_per_execution": training.steps_per_execution,
    }


def _restore_training(model: Model, text: Mapping[str, Any] | None, arrays: Mapping[str, Any]) -> None:
    if text is None:
        return
    optimizer = parse_value(text["optimizer"])
    loss = {name: parse_value(each) for name, each in text["losses"].items()}
    if not isinstance(optimizer, optimizers.Optimizer) or not all(isinstance(x, losses.Loss) for x in loss.values()):
        raise ModelFormatError("the file names an optimiser or a loss that is none")
    model.compile(
        optimizer,
        loss,
        list(text["metrics"]),
        text["backend"],
        precision=text.get("precision", "float32"),
        steps_per_execution=text.get("steps_per_execution", 1),
    )
    _check_fit(model.lower("training").variables, arrays)


def _progress(saved: Mapping[str, Any]) -> Progress:
    progress = Progress(**saved)
    numbers = (progress.epoch, progress.batch, progress.samples, progress.batch_size, progress.examples)
    curves = [v for values in dict(progress.history).values() for v in list(values)]
    valid = (
        all(isinstance(n, int) and n >= 0 for n in numbers)
        and all(isinstance(v, (int, float)) for v in (*dict(progress.totals).values(), *curves))
        and all(isinstance(entry, dict) and entry.keys() == {"kind", "state"} for entry in list(progress.callbacks))
    )
    if not valid:
        raise ModelFormatError("the progress in the file is not valid", got=str(saved)[:200])
    return progress
