"""Tensors of ONNX files: TensorProto to array and back, where a declared size is never believed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minigraph.errors import DTypeError, ModelFormatError
from minigraph.onnx.external import read_external
from minigraph.onnx.proto import onnx_package, shown

if TYPE_CHECKING:
    from onnx import TensorProto

Array = np.ndarray[Any, Any]

# The numbers in TensorProto.DataType of the element types that NumPy has.
_DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "float16",
    11: "float64", 12: "uint32", 13: "uint64",
}  # fmt: skip
_BFLOAT16 = 16
_CODES = {**{dtype: code for code, dtype in _DTYPES.items()}, "bfloat16": _BFLOAT16}

# Where an element type is stored when it is not raw bytes, and as what; all others are in int32_data.
_TYPED = {
    "float32": ("float_data", "float32"),
    "float64": ("double_data", "float64"),
    "int64": ("int64_data", "int64"),
    "uint32": ("uint64_data", "uint64"),
    "uint64": ("uint64_data", "uint64"),
}
_TYPED_FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")

# NumPy's own limit on axes.
_MAX_AXES = 64
_MAX_BYTES = 2**63 - 1


def dtype_of(code: int, what: str, where: str | None = None) -> str:
    """Return the dtype of an element type, a number of TensorProto.DataType; bfloat16 is widened to float32.

    `what` and `where` are what messages name. Raises ModelFormatError for an element type that NumPy has not.

    >>> dtype_of(11, "input 'x'")
    'float64'
    """
    if code == _BFLOAT16:
        return "float32"
    if code in _DTYPES:
        return _DTYPES[code]
    names = {number: name for name, number in onnx_package().TensorProto.DataType.items()}
    raise ModelFormatError(
        f"{what} has an element type that is not supported",
        expected=", ".join(_CODES),
        got=names.get(code, f"the unknown type {code}").lower(),
        where=where,
        hint="convert the tensor to one of these types before exporting the model",
    )


def code_of(dtype: str) -> int:
    """Return the number in TensorProto.DataType of a dtype.

    >>> code_of("bfloat16")
    16
    """
    return _CODES[dtype]


def array_of(tensor: TensorProto, folder: Path | None, where: str) -> Array:
    """Return the array that a TensorProto holds: writeable, C-contiguous, in native byte order.

    Element types: those of NumPy (bool, integers of 8 to 64 bits, float16, float32, float64), and bfloat16, which is
    widened exactly and comes as float32. `folder` is the model's own folder, inside which external data may lie; None
    for a model that came without one. `where` is the place that messages name.

    Raises ModelFormatError for other element types, sparse tensors, segments, and sizes that differ from what is
    stored, before anything of the declared size is allocated; and for external data as `read_external` says.

    Source: ONNX IR specification, message TensorProto.

    >>> array_of(tensor_of(np.arange(3), "t"), None, "here")  # doctest: +SKIP
    array([0, 1, 2])
    """
    if not hasattr(tensor, "data_type"):
        raise ModelFormatError(
            "sparse tensors are not supported", expected="a TensorProto", got=type(tensor).__name__, where=where,
            hint="store the tensor densely",
        )  # fmt: skip
    what = f"tensor {shown(tensor.name)}"
    dtype = np.dtype(dtype_of(tensor.data_type, what, where))
    stored = np.dtype("uint16") if tensor.data_type == _BFLOAT16 else dtype
    shape = _shape(tensor, stored, what, where)
    _check_storage(tensor, what, where)
    values = _stored_values(tensor, folder, stored, math.prod(shape), what, where)
    if tensor.data_type == _BFLOAT16:
        values = (values.astype(np.uint32) << 16).view(dtype)  # bfloat16 is the upper half of a float32
    return values.reshape(shape)


def tensor_of(array: Array, name: str) -> TensorProto:
    """Return an array as a TensorProto with raw bytes, little-endian as the format wants them.

    Raises DTypeError for an array whose dtype is none of the element types that there are.

    >>> tensor_of(np.arange(3), "t").dims  # doctest: +SKIP
    [3]
    """
    code = _CODES.get(array.dtype.name)
    if code is None:
        raise DTypeError(
            f"tensor {shown(name)} cannot be stored in an ONNX file", expected=", ".join(_CODES), got=array.dtype
        )
    bits = array.view("uint16") if code == _BFLOAT16 else array
    stored = bits.astype(bits.dtype.newbyteorder("<"), copy=False)
    tensor: TensorProto = onnx_package().TensorProto(name=name, data_type=code, dims=array.shape)
    tensor.raw_data = stored.tobytes()
    return tensor


def _shape(tensor: TensorProto, dtype: np.dtype[Any], what: str, where: str) -> tuple[int, ...]:
    """Return the declared shape, if an array can have it at all."""
    if len(tensor.dims) > _MAX_AXES:
        raise ModelFormatError(
            f"{what} has too many axes", expected=f"at most {_MAX_AXES}", got=len(tensor.dims), where=where
        )
    shape = tuple(tensor.dims)
    if any(size < 0 for size in shape):
        raise ModelFormatError(f"{what} has a negative size", expected="sizes of at least 0", got=shape, where=where)
    # NumPy leaves out sizes of 0 here, and refuses to make an array beyond this even if it is empty.
    if math.prod(max(size, 1) for size in shape) * dtype.itemsize > _MAX_BYTES:
        raise ModelFormatError(
            f"{what} is too large for any memory", expected=f"at most {_MAX_BYTES} bytes", got=shape, where=where
        )
    return shape


def _check_storage(tensor: TensorProto, what: str, where: str) -> None:
    """Refuse a tensor whose data is in several places, or in pieces."""
    if tensor.HasField("segment"):
        raise ModelFormatError(
            f"{what} is stored in segments, which are not supported", where=where, hint="store the tensor in one piece"
        )
    places = [field for field in _TYPED_FIELDS if len(getattr(tensor, field))]
    places += ["raw_data"] if tensor.HasField("raw_data") else []
    if tensor.data_location == type(tensor).EXTERNAL:
        places.append("external_data")
    elif len(tensor.external_data):
        raise ModelFormatError(
            f"{what} names external data, but says that its data is in the model file",
            expected="data_location EXTERNAL, or no external_data", got="both", where=where,
        )  # fmt: skip
    if len(places) > 1:
        raise ModelFormatError(
            f"{what} has its data in several places", expected="one place", got=" and ".join(places), where=where
        )


def _stored_values(
    tensor: TensorProto, folder: Path | None, dtype: np.dtype[Any], count: int, what: str, where: str
) -> Array:
    """Return the elements as one axis, from wherever they are stored."""
    field, _ = _TYPED.get(dtype.name, ("int32_data", ""))
    nbytes = count * dtype.itemsize
    if tensor.data_location == type(tensor).EXTERNAL:
        return _from_bytes(read_external(tensor, folder, nbytes, where), dtype, what, where)
    if len(getattr(tensor, field)):
        return _from_field(tensor, dtype, count, what, where)
    raw = tensor.raw_data
    if len(raw) != nbytes:
        raise ModelFormatError(
            f"{what} does not have the bytes that its shape needs",
            expected=f"{nbytes} bytes for {dtype}{list(tensor.dims)}",
            got=_what_is_there(tensor, len(raw)),
            where=where,
            hint="the file is truncated or damaged: export the model again",
        )
    return _from_bytes(bytearray(raw), dtype, what, where)


def _what_is_there(tensor: TensorProto, raw: int) -> str:
    others = [f"{len(getattr(tensor, f))} elements in {f}" for f in _TYPED_FIELDS if len(getattr(tensor, f))]
    return ", ".join(others) or f"{raw} bytes"


def _from_bytes(data: bytearray, dtype: np.dtype[Any], what: str, where: str) -> Array:
    if dtype == np.bool_:
        _check_range(np.frombuffer(data, np.uint8), 0, 1, dtype, what, where)
    return np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype, copy=False)


def _from_field(tensor: TensorProto, dtype: np.dtype[Any], count: int, what: str, where: str) -> Array:
    field, wide = _TYPED.get(dtype.name, ("int32_data", "int32"))
    stored = getattr(tensor, field)
    if len(stored) != count:
        raise ModelFormatError(
            f"{what} does not have the elements that its shape needs",
            expected=f"{count} elements for {dtype}{list(tensor.dims)}",
            got=f"{len(stored)} in {field}",
            where=where,
            hint="the file is truncated or damaged: export the model again",
        )
    values = np.fromiter(stored, wide, count)
    if wide == dtype.name:
        return values
    # float16 is stored as its bits.
    bits = np.dtype("uint16") if dtype == np.float16 else dtype
    lowest, highest = (0, 1) if bits == np.bool_ else (np.iinfo(bits).min, np.iinfo(bits).max)
    _check_range(values, lowest, highest, dtype, what, where)
    return values.astype(bits).view(dtype)


def _check_range(values: Array, lowest: int, highest: int, dtype: np.dtype[Any], what: str, where: str) -> None:
    wrong = values[(values < lowest) | (values > highest)]
    if len(wrong):
        raise ModelFormatError(
            f"{what} has an element that {dtype} cannot hold",
            expected=f"{lowest} … {highest}",
            got=int(wrong[0]),
            where=where,
        )
