"""ONNX files: a model from a path, from bytes or as it is, checked; and one written whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minigraph.errors import ArgumentError, ModelFormatError
from minigraph.files import write_atomically
from minigraph.onnx.proto import onnx_package
from minigraph.onnx.verifier import verify_model

if TYPE_CHECKING:
    from onnx import ModelProto

# The limit of protobuf: its sizes are signed numbers of 32 bits.
MAX_BYTES = 2**31 - 1
_AT_MOST = f"at most {MAX_BYTES:,} bytes (2 GiB), protobuf's limit"
_BESIDE = "keep the tensors as external data, in a file beside the model: onnx.save(..., save_as_external_data=True)"


def read_model(source: str | os.PathLike[str] | bytes | ModelProto) -> tuple[ModelProto, Path | None]:
    """Return the model in a file, in bytes or as given, and the folder that its external data may lie in.

    The folder is that of the path; None for bytes and for a ModelProto. Tensors are not read yet: see `array_of`.
    Raises OSError for a path that cannot be read, and ModelFormatError for content that is not a whole ONNX model of
    sound structure (see `verify_model`), or has more than 2 GiB.

    >>> model, folder = read_model("net.onnx")  # doctest: +SKIP
    """
    where = "the given model"
    folder = None
    model: Any = source
    if isinstance(source, (bytes, bytearray, memoryview)):
        where = "the given bytes"
        model = _parsed(bytes(source), where)
    elif isinstance(source, (str, os.PathLike)):
        path = Path(source)
        where, folder = str(path), path.parent
        model = _parsed(_content(path), where)
    elif not isinstance(source, onnx_package().ModelProto):
        raise ArgumentError("not a source of an ONNX model", expected="a path, bytes or a ModelProto", got=type(source))
    verify_model(model, where)
    return model, folder


def write_model(path: str | os.PathLike[str], proto: ModelProto) -> Path:
    """Write a model to `path`, whole or not at all, and return the path; equal models give equal bytes.

    Raises OSError, and ModelFormatError for a model of more than 2 GiB, which protobuf cannot write; whatever stood
    at `path` stays then.

    >>> write_model("net.onnx", proto)  # doctest: +SKIP
    PosixPath('net.onnx')
    """
    onnx_package()
    from google.protobuf.message import EncodeError

    try:
        data = proto.SerializeToString(deterministic=True)
    except (EncodeError, ValueError) as error:
        raise ModelFormatError(
            f"protobuf cannot write the model: {error}", expected=_AT_MOST, hint=f"for more than that, {_BESIDE}"
        ) from None
    if len(data) > MAX_BYTES:
        raise ModelFormatError(
            "the model is too large for one ONNX file", expected=_AT_MOST, got=f"{len(data):,} bytes", hint=_BESIDE
        )
    return write_atomically(path, data)


def _content(path: Path) -> bytes:
    """Return a file's bytes, if it is a file and not too large."""
    with open(path, "rb", opener=_without_waiting) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ModelFormatError("not a regular file", expected="an ONNX file", got=str(path))
        if status.st_size > MAX_BYTES:
            raise ModelFormatError(
                "the file is too large for an ONNX model",
                expected=_AT_MOST,
                got=f"{status.st_size:,} bytes",
                where=str(path),
                hint=_BESIDE,
            )
        return file.read(MAX_BYTES)


def _without_waiting(path: str, flags: int) -> int:
    """Open a file; a named pipe that nobody writes to would keep us waiting."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _parsed(data: bytes, where: str) -> ModelProto:
    onnx = onnx_package()
    from google.protobuf.message import DecodeError

    try:
        model: ModelProto = onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise ModelFormatError(
            f"not a whole ONNX model: {error}",
            expected="a serialized ModelProto",
            got=f"{len(data):,} bytes that are none",
            where=where,
            hint="the file is truncated or damaged, or of another format: download or export it again",
        ) from None
    return model
