"""ONNX files as a whole: what is read and from where, what is refused, and writing without loss."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_onnx
from small_onnx import onnx

import minigraph
from minigraph.errors import ArgumentError, MissingExtraError, ModelFormatError
from minigraph.onnx import files
from minigraph.onnx.files import read_model, write_model
from minigraph.onnx.tensors import array_of


@pytest.fixture
def proto():
    return small_onnx.dense()


@pytest.mark.parametrize("name", small_onnx.ALL)
def test_the_models_of_these_tests_are_valid_and_read(name):
    proto = small_onnx.ALL[name]()
    onnx.checker.check_model(proto, full_check=True)
    read, folder = read_model(proto.SerializeToString())
    assert read == proto and folder is None


def test_the_models_of_one_op_are_valid_and_read():
    for proto in small_onnx.operators():
        onnx.checker.check_model(proto)
        assert read_model(proto.SerializeToString())[0] == proto


def test_sources(tmp_path, proto, monkeypatch):
    data = proto.SerializeToString()
    path = tmp_path / "net.onnx"
    path.write_bytes(data)
    assert read_model(proto) == (proto, None)
    assert read_model(data) == read_model(bytearray(data)) == read_model(memoryview(data)) == (proto, None)
    assert read_model(path) == read_model(os.fspath(path)) == (proto, tmp_path)
    monkeypatch.chdir(tmp_path)
    assert read_model("net.onnx") == (proto, Path("."))
    with pytest.raises(ArgumentError, match="not a source of an ONNX model"):
        read_model(proto.graph)
    with pytest.raises(ArgumentError, match="not a source of an ONNX model"):
        read_model(None)


def test_what_is_not_a_file(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError):
        read_model(tmp_path / "absent.onnx")
    with pytest.raises(IsADirectoryError):
        read_model(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelFormatError, match="not a regular file"):
        read_model(tmp_path / "pipe")
    with pytest.raises(ModelFormatError, match="not a regular file"):
        read_model("/dev/zero")
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        with pytest.raises(OSError, match="No such device"):
            read_model("socket")


def test_a_file_that_is_too_large(tmp_path):
    path = tmp_path / "large.onnx"
    path.touch()
    os.truncate(path, 2**31)  # a hole: it takes no space
    with pytest.raises(ModelFormatError, match="too large for an ONNX model") as caught:
        read_model(path)
    assert caught.value.got == "2,147,483,648 bytes" and caught.value.where == str(path)


def test_every_truncation_is_refused(tmp_path, proto):
    data = proto.SerializeToString()
    for end in range(len(data)):
        with pytest.raises(ModelFormatError) as caught:
            read_model(data[:end])
        assert caught.value.where == "the given bytes"
    path = tmp_path / "cut.onnx"
    path.write_bytes(data[:100])
    with pytest.raises(ModelFormatError, match="not a whole ONNX model") as caught:
        read_model(path)
    assert caught.value.where == str(path)
    assert caught.value.expected == "a serialized ModelProto" and caught.value.got == "100 bytes that are none"


@pytest.mark.parametrize(
    "data", [b"\x89PNG\r\n\x1a\n", b"not a model", b"\xff" * 100, b"PK\x03\x04", b"{}", b"\x80\x04\x95"], ids=repr
)
def test_other_formats_are_refused(data):
    with pytest.raises(ModelFormatError, match=r"not a whole ONNX model|has no graph"):
        read_model(data)


def message(field: int, content: bytes) -> bytes:
    """Return a field of a protobuf message that holds another message."""
    size, length = len(content), b""
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return bytes([field << 3 | 2]) + length + bytes([size]) + content


@pytest.mark.parametrize("depth", [90, 2000])
def test_deep_nesting_of_messages_is_refused(depth):
    """Protobuf's own limit is 100: beyond, it says so and does not fall over."""
    kind = b""
    for _ in range(depth // 2):
        kind = message(4, message(1, kind))  # TypeProto.sequence_type.elem_type
    value = message(1, b"x") + message(2, kind)
    with pytest.raises(ModelFormatError, match=r"ir_version" if depth < 100 else "not a whole ONNX model"):
        read_model(message(7, message(11, value)))


def test_written_is_what_is_read(tmp_path, proto):
    path = write_model(tmp_path / "net.onnx", proto)
    assert path == tmp_path / "net.onnx"
    assert read_model(path) == (proto, tmp_path)
    assert os.listdir(tmp_path) == ["net.onnx"]
    for tensor in proto.graph.initializer:
        assert np.array_equal(array_of(tensor, None, ""), onnx.numpy_helper.to_array(tensor))


def test_equal_models_are_equal_bytes(tmp_path, proto):
    again = onnx.ModelProto.FromString(proto.SerializeToString())
    one, two = write_model(tmp_path / "1", proto), write_model(tmp_path / "2", again)
    assert one.read_bytes() == two.read_bytes()


def test_a_failing_write_leaves_the_old_file(tmp_path, proto, monkeypatch):
    path = write_model(tmp_path / "net.onnx", proto)
    old = path.read_bytes()

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_model(path, small_onnx.chain())
    assert path.read_bytes() == old and os.listdir(tmp_path) == ["net.onnx"]


def test_a_model_that_is_too_large_is_not_written(tmp_path, proto, monkeypatch):
    path = write_model(tmp_path / "net.onnx", proto)
    old = path.read_bytes()
    monkeypatch.setattr(files, "MAX_BYTES", len(old))
    assert write_model(path, proto).read_bytes() == old
    proto.graph.name += "!"
    with pytest.raises(ModelFormatError, match="the model is too large for one ONNX file") as caught:
        write_model(path, proto)
    assert "protobuf's limit" in caught.value.expected
    assert path.read_bytes() == old and os.listdir(tmp_path) == ["net.onnx"]


@pytest.mark.slow
def test_more_than_two_gigabytes_are_not_written(tmp_path):
    """Not only by our own count: protobuf itself refuses. Takes some 5 GB of memory."""
    proto = onnx.ModelProto()
    piece = bytes(2**29)
    for _ in range(4):
        proto.graph.initializer.add(raw_data=piece)
    with pytest.raises(ModelFormatError, match="protobuf cannot write the model") as caught:
        write_model(tmp_path / "net.onnx", proto)
    assert "2 GiB" in caught.value.expected
    assert os.listdir(tmp_path) == []


def in_a_child(code: str) -> str:
    path = os.fspath(Path(minigraph.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_does_not_load_onnx():
    modules = ", ".join(f"minigraph.onnx.{name}" for name in ("files", "tensors", "external", "verifier"))
    assert in_a_child(f"import sys, {modules}; print('onnx' in sys.modules)") == "False\n"


@pytest.mark.parametrize("stands_there", ["None", "types.ModuleType('onnx')"])
def test_without_the_package_the_extra_is_named(stands_there):
    """Nothing there at all, or only a folder that happens to be called onnx."""
    code = f"""
import sys, types
sys.modules["onnx"] = {stands_there}
from minigraph.onnx.files import read_model
from minigraph.errors import MissingExtraError
try:
    read_model(b"")
except MissingExtraError as error:
    print(error)
"""
    assert in_a_child(code) == "reading and writing ONNX files needs onnx: pip install 'minigraph[onnx]'\n"
    assert issubclass(MissingExtraError, ImportError)
