"""Tensors of ONNX files: every element type that NumPy has comes back exactly, and no declared size is believed."""

from __future__ import annotations

import doctest
import importlib
import tracemalloc

import numpy as np
import pytest

from minigraph.errors import DTypeError, ModelFormatError
from minigraph.onnx.tensors import array_of, tensor_of

# The version tells the package from this folder, which answers to its name where it is missing.
onnx = pytest.importorskip("onnx", "1.17")
TensorProto = onnx.TensorProto

DTYPES = ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
DTYPES += ["float16", "float32", "float64"]
CODES = {
    name: getattr(TensorProto, {"float32": "FLOAT", "float64": "DOUBLE"}.get(name, name.upper())) for name in DTYPES
}


def values(dtype: str) -> np.ndarray:
    """Return 2 × 3 × 4 values of a dtype, its extremes among them."""
    rng = np.random.default_rng(7)
    if dtype == "bool":
        return rng.random((2, 3, 4)) < 0.5
    if dtype.startswith("float"):
        array = rng.normal(size=(2, 3, 4)).astype(dtype)
        info = np.finfo(dtype)
        array[0, 0] = [np.nan, -np.inf, info.max, info.smallest_subnormal]
        array[0, 1, :2] = [-0.0, info.min]
        return array
    info = np.iinfo(dtype)
    array = rng.integers(info.min, info.max, (2, 3, 4), dtype=dtype, endpoint=True)
    array[0, 0, :2] = [info.min, info.max]
    return array


def read(tensor: TensorProto) -> np.ndarray:
    return array_of(tensor, None, "here")


def refused(tensor: TensorProto, message: str) -> ModelFormatError:
    with pytest.raises(ModelFormatError, match=message) as caught:
        read(tensor)
    assert caught.value.where == "here"
    return caught.value


@pytest.mark.parametrize("dtype", DTYPES)
def test_raw_bytes_and_typed_fields_give_the_same_bits(dtype):
    array = values(dtype)
    if dtype == "float16":
        stored = TensorProto(dims=array.shape, data_type=TensorProto.FLOAT16)
        stored.int32_data[:] = array.ravel().view(np.uint16).tolist()
    else:
        stored = onnx.helper.make_tensor("t", CODES[dtype], array.shape, array.ravel().tolist())
    assert not stored.HasField("raw_data")
    for tensor in (onnx.numpy_helper.from_array(array, "t"), stored, tensor_of(array, "t")):
        back = read(tensor)
        assert back.dtype == array.dtype and back.shape == array.shape
        assert back.tobytes() == array.tobytes()
        assert back.flags.writeable and back.flags.c_contiguous and back.dtype.isnative


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_written_is_what_onnx_reads(dtype):
    array = values(dtype)
    for variant in (array, array.T, array[:, ::-1], array.astype(array.dtype.newbyteorder(">")), array[0, 0, 0]):
        tensor = tensor_of(np.asarray(variant), "t")
        back = onnx.numpy_helper.to_array(TensorProto.FromString(tensor.SerializeToString()))
        assert tensor.name == "t" and back.shape == variant.shape
        assert back.tobytes() == np.asarray(variant, array.dtype).tobytes()


def test_writing_what_the_format_has_not():
    with pytest.raises(DTypeError, match="tensor 'z' cannot be stored") as caught:
        tensor_of(np.zeros(2, np.complex64), "z")
    assert caught.value.got == np.complex64
    with pytest.raises(DTypeError, match="cannot be stored"):
        tensor_of(np.array(["a"]), "z")


def test_bfloat16_is_widened_exactly():
    bits = np.arange(2**16, dtype=np.uint16)
    raw = TensorProto(dims=[2**16], data_type=TensorProto.BFLOAT16, raw_data=bits.tobytes())
    typed = TensorProto(dims=[2**16], data_type=TensorProto.BFLOAT16, int32_data=bits.tolist())
    expected = (bits.astype(np.uint32) << 16).tobytes()
    for tensor in (raw, typed):
        assert read(tensor).dtype == np.float32
        assert read(tensor).tobytes() == expected
    one = TensorProto(dims=[], data_type=TensorProto.BFLOAT16, raw_data=b"\x80\x3f")
    assert read(one) == 1.0 and read(one).shape == ()


@pytest.mark.parametrize("code", sorted(set(TensorProto.DataType.values()) - {*CODES.values(), TensorProto.BFLOAT16}))
def test_other_element_types_are_refused_by_name(code):
    tensor = TensorProto(name="w", dims=[2], data_type=code, raw_data=bytes(8))
    error = refused(tensor, "tensor 'w' has an element type that is not supported")
    assert error.got == TensorProto.DataType.Name(code).lower()


@pytest.mark.parametrize("code", [99, -1, 2**31 - 1])
def test_unknown_element_types_are_refused(code):
    error = refused(TensorProto(name="w", data_type=code, raw_data=bytes(8)), "is not supported")
    assert error.got == f"the unknown type {code}"


def test_sparse_tensors_are_refused():
    with pytest.raises(ModelFormatError, match="sparse tensors are not supported"):
        array_of(onnx.SparseTensorProto(dims=[2]), None, "here")


FLOAT, INT32, INT64 = TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64
BROKEN = {
    "huge": (dict(dims=[2**60], data_type=FLOAT, raw_data=bytes(4)), "does not have the bytes"),
    "huge_typed": (dict(dims=[2**60], data_type=FLOAT, float_data=[1.0]), "does not have the elements"),
    "overflowing": (dict(dims=[2**33, 2**33], data_type=FLOAT, raw_data=bytes(4)), "too large for any memory"),
    "wrapping": (dict(dims=[2**32, 2**32], data_type=FLOAT), "too large for any memory"),
    "huge_but_empty": (dict(dims=[0, 2**40, 2**40], data_type=FLOAT), "too large for any memory"),
    "negative": (dict(dims=[-1], data_type=FLOAT, raw_data=bytes(4)), "has a negative size"),
    "two_negatives": (dict(dims=[-1, -1], data_type=FLOAT, raw_data=bytes(4)), "has a negative size"),
    "many_axes": (dict(dims=[1] * 65, data_type=FLOAT, raw_data=bytes(4)), "has too many axes"),
    "a_byte_less": (dict(dims=[2], data_type=FLOAT, raw_data=bytes(7)), "does not have the bytes"),
    "a_byte_more": (dict(dims=[2], data_type=FLOAT, raw_data=bytes(9)), "does not have the bytes"),
    "nothing_stored": (dict(dims=[2], data_type=FLOAT), "does not have the bytes"),
    "something_in_an_empty_one": (dict(dims=[0], data_type=FLOAT, raw_data=bytes(4)), "does not have the bytes"),
    "an_element_less": (dict(dims=[3], data_type=INT64, int64_data=[1, 2]), "does not have the elements"),
    "an_element_more": (dict(dims=[1], data_type=INT64, int64_data=[1, 2]), "does not have the elements"),
    "the_wrong_field": (dict(dims=[1], data_type=INT64, float_data=[1.0]), "does not have the bytes"),
    "raw_and_typed": (dict(dims=[1], data_type=FLOAT, raw_data=bytes(4), float_data=[0.0]), "in several places"),
    "two_typed": (dict(dims=[1], data_type=FLOAT, float_data=[0.0], int32_data=[0]), "in several places"),
    "segment": (dict(dims=[1], data_type=FLOAT, raw_data=bytes(4), segment={"begin": 0, "end": 1}), "in segments"),
    "int8_overflow": (dict(dims=[1], data_type=TensorProto.INT8, int32_data=[128]), "int8 cannot hold"),
    "uint8_negative": (dict(dims=[1], data_type=TensorProto.UINT8, int32_data=[-1]), "uint8 cannot hold"),
    "uint32_overflow": (dict(dims=[1], data_type=TensorProto.UINT32, uint64_data=[2**32]), "uint32 cannot hold"),
    "float16_bits": (dict(dims=[1], data_type=TensorProto.FLOAT16, int32_data=[65536]), "float16 cannot hold"),
    "bfloat16_bits": (dict(dims=[1], data_type=TensorProto.BFLOAT16, int32_data=[-1]), "cannot hold"),
    "bool_typed": (dict(dims=[2], data_type=TensorProto.BOOL, int32_data=[1, 2]), "bool cannot hold"),
    "bool_raw": (dict(dims=[2], data_type=TensorProto.BOOL, raw_data=b"\1\2"), "bool cannot hold"),
    "location_but_inside": (
        dict(dims=[1], data_type=FLOAT, raw_data=bytes(4),
             external_data=[onnx.StringStringEntryProto(key="location", value="w.bin")]),
        "names external data, but says that its data is in the model file",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_sizes_are_checked_before_anything_is_allocated(case):
    fields, message = BROKEN[case]
    tensor = TensorProto(name="w", **fields)
    tracemalloc.start()
    try:
        refused(tensor, f"tensor 'w' .*{message}")
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_a_damaged_tensor_says_what_was_expected():
    error = refused(TensorProto(name="w", dims=[2, 3], data_type=FLOAT, raw_data=bytes(20)), "does not have the bytes")
    assert error.expected == "24 bytes for float32[2, 3]" and error.got == "20 bytes"
    error = refused(TensorProto(name="w", dims=[2], data_type=INT32, float_data=[1, 2]), "does not have the bytes")
    assert error.got == "2 elements in float_data"


def test_a_long_or_unprintable_name_is_shown_short_and_quoted():
    error = refused(TensorProto(name="\x1b[2J" + "n" * 10**6, dims=[2], data_type=FLOAT), "does not have the bytes")
    assert "\x1b" not in str(error) and len(str(error)) < 500


def test_empty_tensors_and_scalars():
    assert read(TensorProto(dims=[0, 3], data_type=FLOAT)).shape == (0, 3)
    assert read(TensorProto(dims=[], data_type=FLOAT, float_data=[2.5])) == 2.5
    assert read(TensorProto(dims=[1] * 64, data_type=FLOAT, float_data=[2.5])).shape == (1,) * 64


@pytest.mark.parametrize("module", ["proto", "tensors", "verifier"])
def test_the_examples_in_the_documentation_run(module):
    """They are skipped where onnx may be missing; here it is not."""
    found = importlib.import_module(f"minigraph.onnx.{module}")
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in doctest.DocTestFinder().find(found):
        for example in test.examples:
            example.options.pop(doctest.SKIP, None)
        runner.run(test)
    assert runner.summarize(verbose=False).attempted >= 1
    assert runner.failures == 0
