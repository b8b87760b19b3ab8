"""Tensor data in a file beside the model: the one place where a model file names another file.

Only a plain file inside the model's own folder is ever opened. Every component of its name is opened relative to the
folder before it, never following a link, and what was opened is looked at once more; so nothing can be exchanged
between the check and the reading.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from minigraph.errors import ModelFormatError
from minigraph.onnx.proto import shown

if TYPE_CHECKING:
    from onnx import TensorProto

_KEYS = ("location", "offset", "length", "checksum")
_INSIDE = "the relative path of a file inside the model's folder, such as 'weights.bin'"
_DISTRUST = "put the data beside the model and give the file's name; distrust a model that names anything else"
_PIECE = 1 << 20

# What a location must not be, each with what the message says of it. The first that holds is reported.
_FORBIDDEN: tuple[tuple[Callable[[str], object], str], ...] = (
    (lambda path: not path, "is empty"),
    (lambda path: "\0" in path, "contains a NUL character"),
    (lambda path: not path.isprintable(), "contains characters that cannot be printed"),
    (lambda path: path.startswith(("//", "\\\\")), "is a network path"),
    (lambda path: path.startswith("/"), "is an absolute path"),
    (lambda path: re.match(r"[A-Za-z]:", path), "has a drive letter"),
    (lambda path: "\\" in path, "contains a backslash"),
    (lambda path: ".." in path.split("/"), "leaves the model's folder through '..'"),
    (lambda path: path.split("/")[-1] in ("", "."), "names a folder"),
)

_KINDS = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
)


@dataclass(frozen=True)
class _Reference:
    """What external_data says: which bytes of which file."""

    location: str
    offset: int
    length: int | None
    checksum: str | None


@dataclass(frozen=True)
class _Refusal:
    """Makes the errors about one tensor's external data."""

    name: str
    where: str

    def __call__(self, problem: str, expected: object = None, got: object = None, hint: str | None = None) -> Exception:
        return ModelFormatError(
            f"external data of tensor {self.name}: {problem}", expected=expected, got=got, where=self.where, hint=hint
        )


def read_external(tensor: TensorProto, folder: Path | None, nbytes: int, where: str) -> bytearray:
    """Return the bytes of a tensor's external data, of which there must be exactly `nbytes`.

    Raises ModelFormatError, and opens no other file, if the model has no folder; for a location that is not a relative
    path inside the folder; if any component of it is a link, or the file has a second name (a hard link), or is not a
    regular file; for an offset or a length outside the file or not equal to `nbytes`; for a SHA-1 that does not fit;
    for keys that the format does not have.

    Source: ONNX, docs/ExternalData.md.
    """
    refusal = _Refusal(shown(tensor.name), where)
    reference = _reference(tensor, refusal)
    if folder is None:
        raise refusal(
            "the model did not come from a file, so it has no folder to look in",
            expected="a model with all of its data inside, or the path of its file",
            got=f"location {shown(reference.location)}",
            hint="give the path of the model file instead of its content",
        )
    _check_location(reference.location, refusal)
    if os.open not in os.supports_dir_fd:
        raise refusal(
            "this system cannot open files safely relative to a folder",
            hint="store the tensors inside the model file: onnx.save(onnx.load(old), new)",
        )
    with _opened(folder, reference.location, refusal) as file:
        _check_size(reference, file, nbytes, refusal)
        return _read(reference, file, nbytes, refusal)


def _reference(tensor: TensorProto, refusal: _Refusal) -> _Reference:
    entries: dict[str, str] = {}
    for entry in tensor.external_data:
        if entry.key not in _KEYS:
            raise refusal("it has an unknown key", expected=", ".join(_KEYS), got=shown(entry.key))
        if entry.key in entries:
            raise refusal(f"the key {entry.key!r} occurs twice", expected="each key once")
        if not isinstance(entry.value, str):  # protobuf gives bytes where a text is not UTF-8
            raise refusal(f"its {entry.key} is not valid UTF-8", got=shown(entry.value))
        entries[entry.key] = entry.value
    if "location" not in entries:
        raise refusal("it has no location", expected=_INSIDE, got=", ".join(entries) or "no keys at all")
    checksum = entries.get("checksum")
    if checksum is not None and not re.fullmatch(r"[0-9a-fA-F]{40}", checksum):
        raise refusal("its checksum is not a SHA-1", expected="40 hexadecimal digits", got=shown(checksum))
    return _Reference(
        entries["location"],
        _number(entries, "offset", refusal) or 0,
        _number(entries, "length", refusal),
        checksum,
    )


def _number(entries: dict[str, str], key: str, refusal: _Refusal) -> int | None:
    if key not in entries:
        return None
    text = entries[key]
    if re.fullmatch(r"-[0-9]+", text):
        raise refusal(f"its {key} is negative", expected="a number of bytes, at least 0", got=shown(text))
    if not re.fullmatch(r"[0-9]{1,19}", text):
        raise refusal(f"its {key} is not a number", expected="a number of bytes in decimal digits", got=shown(text))
    return int(text)


def _check_location(location: str, refusal: _Refusal) -> None:
    for is_forbidden, problem in _FORBIDDEN:
        if is_forbidden(location):
            raise refusal(f"its location {problem}", expected=_INSIDE, got=shown(location), hint=_DISTRUST)


@dataclass(frozen=True)
class _File:
    """An opened regular file. Equality is that of the file and its content, as far as the system tells."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int
    descriptor: int = field(compare=False)


@contextlib.contextmanager
def _opened(folder: Path, location: str, refusal: _Refusal) -> Iterator[_File]:
    """Open a file inside a folder, one component of its location after the other."""
    *folders, name = [part for part in location.split("/") if part not in ("", ".")]
    with contextlib.ExitStack() as stack:

        def opened(path: str | Path, flags: int, inside: int | None) -> int:
            descriptor = os.open(path, flags | os.O_RDONLY | os.O_CLOEXEC, dir_fd=inside)
            stack.callback(os.close, descriptor)
            return descriptor

        try:
            here = opened(folder, os.O_DIRECTORY, None)
            for part in folders:
                _check_folder(os.lstat(part, dir_fd=here), location, part, refusal)
                here = opened(part, os.O_DIRECTORY | os.O_NOFOLLOW, here)
            # Opening alone can do something to a pipe or a device; so their kind is asked for before, and after.
            _check_regular(os.lstat(name, dir_fd=here), location, refusal)
            descriptor = opened(name, os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY, here)
            status = os.fstat(descriptor)
        except (OSError, UnicodeEncodeError) as error:
            raise refusal(
                f"its file cannot be opened: {getattr(error, 'strerror', None) or error}",
                expected=f"a file {shown(location)} in the folder {shown(str(folder))}",
                hint="keep the files of a model together, and readable",
            ) from None
        _check_regular(status, location, refusal)
        yield _File(
            status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, descriptor=descriptor
        )


def _kind(status: os.stat_result) -> str:
    return next((kind for test, kind in _KINDS if test(status.st_mode)), "a file")


def _check_folder(status: os.stat_result, location: str, part: str, refusal: _Refusal) -> None:
    if not stat.S_ISDIR(status.st_mode):
        raise refusal(
            f"its location goes through {_kind(status)}",
            expected="folders inside the model's folder",
            got=f"{shown(part)} in {shown(location)}",
            hint="put the data itself beside the model",
        )


def _check_regular(status: os.stat_result, location: str, refusal: _Refusal) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise refusal(
            f"its location is {_kind(status)}",
            expected="a regular file",
            got=shown(location),
            hint="put the data itself beside the model",
        )
    if status.st_nlink > 1:
        raise refusal(
            "its location is a hard link: the file has other names, perhaps outside the model's folder",
            expected="a file with one name",
            got=f"{shown(location)}, which has {status.st_nlink}",
            hint="replace it with a copy",
        )


def _check_size(reference: _Reference, file: _File, nbytes: int, refusal: _Refusal) -> None:
    stored, damaged = f"a file of {file.size} bytes", "the file is truncated, or belongs to another model"
    if reference.length is not None and reference.length != nbytes:
        raise refusal("its length is not what the shape needs", expected=f"{nbytes} bytes", got=reference.length)
    if reference.offset > file.size:
        raise refusal("its offset is outside the file", expected=stored, got=reference.offset, hint=damaged)
    if reference.offset + nbytes > file.size:
        raise refusal(
            "the file ends too early", expected=f"{nbytes} bytes from {reference.offset}", got=stored, hint=damaged
        )
    if reference.length is None and reference.offset + nbytes != file.size:
        raise refusal(
            "the file goes on after the data, and no length is given",
            expected=f"{nbytes} bytes from {reference.offset} to the end",
            got=stored,
            hint="give the length, or the file that belongs to the model",
        )


def _read(reference: _Reference, file: _File, nbytes: int, refusal: _Refusal) -> bytearray:
    try:
        data = bytearray(nbytes)
    except MemoryError:
        raise refusal("it does not fit into memory", got=f"{nbytes} bytes") from None
    if reference.checksum is not None and _sha1(file) != reference.checksum.lower():
        raise refusal(
            "the file is damaged: its SHA-1 does not fit",
            expected=reference.checksum.lower(),
            got=_sha1(file),
            hint="copy the file again",
        )
    view, done = memoryview(data), 0
    while done < nbytes:
        piece = os.preadv(file.descriptor, [view[done : done + _PIECE]], reference.offset + done)
        if not piece:
            raise refusal("the file became shorter while it was read", expected=f"{nbytes} bytes", got=done)
        done += piece
    return data


@functools.lru_cache(maxsize=16)
def _sha1(file: _File) -> str:
    """Return the SHA-1 of a whole file, found once however many tensors lie in it."""
    digest = hashlib.sha1(usedforsecurity=False)
    offset = 0
    while piece := os.pread(file.descriptor, _PIECE, offset):
        digest.update(piece)
        offset += len(piece)
    return digest.hexdigest()
