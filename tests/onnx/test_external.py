"""External data: a model file cannot make us touch any file but a plain one in its own folder."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import minigraph
from minigraph.errors import ModelFormatError
from minigraph.onnx import external
from minigraph.onnx.files import read_model
from minigraph.onnx.tensors import array_of

onnx = pytest.importorskip("onnx", "1.17")

DATA = np.arange(1, 5, dtype="<f4").tobytes()  # what the tensor of four float32 is to read
SECRET = b"0123456789abcdef"  # as long, so that only the refusal keeps it from being read
SHA1 = hashlib.sha1(DATA).hexdigest()


def make_folder(root: Path) -> Path:
    """Make the folder of a model, with a file beside the folder that must never be read."""
    folder = root / "model"
    (folder / "sub").mkdir(parents=True)
    (root / "secret.bin").write_bytes(SECRET)
    (folder / "weights.bin").write_bytes(DATA)
    (folder / "sub" / "weights.bin").write_bytes(DATA)
    (folder / "longer.bin").write_bytes(b"12" + DATA + b"345")
    return folder


def tensor_with(*entries: tuple[str, str], **fields: str):
    """Return a tensor of four float32 whose data is external, with these keys."""
    tensor = onnx.TensorProto(name="w", dims=[4], data_type=onnx.TensorProto.FLOAT)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (*entries, *fields.items()):
        tensor.external_data.add(key=key, value=value)
    return tensor


def at(location: str, **others: str) -> Callable[[Path], object]:
    return lambda folder: tensor_with(location=location.replace("{root}", str(folder.parent)), **others)


def made(make: Callable[[Path], object], location: str = "made") -> Callable[[Path], object]:
    """Return a case in which something is made in the folder first."""

    def case(folder: Path):
        make(folder)
        return tensor_with(location=location)

    return case


def bad_text(key: str, value: bytes) -> Callable[[Path], object]:
    """Return a case in which a text of the file is not UTF-8."""

    def case(folder: Path):
        tensor = tensor_with(("location", "weights.bin") if key != "location" else ("offset", "0"), (key, "#" * 9))
        return onnx.TensorProto.FromString(tensor.SerializeToString().replace(b"#" * 9, value.ljust(9, b"x")))

    return case


def link(target: str) -> Callable[[Path], object]:
    return made(lambda folder: (folder / "made").symlink_to(target.replace("{root}", str(folder.parent))))


def listening(folder: Path) -> None:
    here = os.getcwd()
    os.chdir(folder)  # names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("made")
    finally:
        os.chdir(here)


def device(kind: int, major: int, minor: int) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        try:
            os.mknod(folder / "made", kind | 0o666, os.makedev(major, minor))
        except PermissionError:
            pytest.skip("making devices needs privileges")

    return made(make)


def also_raw(folder: Path):
    tensor = tensor_with(location="weights.bin")
    tensor.raw_data = DATA
    return tensor


@dataclass(frozen=True)
class Case:
    """What is built, what the message says, and how the file is reached."""

    build: Callable[[Path], object]
    message: str


CASES = {
    # the location
    "no_location": Case(lambda folder: tensor_with(offset="0"), "it has no location"),
    "no_keys": Case(lambda folder: tensor_with(), "it has no location"),
    "empty": Case(at(""), "its location is empty"),
    "nul": Case(at("weights.bin\0.txt"), "its location contains a NUL character"),
    "nul_alone": Case(at("\0"), "its location contains a NUL character"),
    "newline": Case(at("weights.bin\n"), "its location contains characters that cannot be printed"),
    "escape": Case(at("\x1b[2Jweights.bin"), "its location contains characters that cannot be printed"),
    "right_to_left": Case(at("\u202enib.sthgiew"), "its location contains characters that cannot be printed"),
    "not_utf8": Case(bad_text("location", b"\xff\xfe"), "its location is not valid UTF-8"),
    "parent": Case(at("../secret.bin"), "its location leaves the model's folder through '..'"),
    "parent_later": Case(at("sub/../../secret.bin"), "its location leaves the model's folder through '..'"),
    "parent_and_back": Case(at("sub/../weights.bin"), "its location leaves the model's folder through '..'"),
    "parent_and_in": Case(at("../model/weights.bin"), "its location leaves the model's folder through '..'"),
    "parent_alone": Case(at(".."), "its location leaves the model's folder through '..'"),
    "parent_hidden": Case(at("./.././secret.bin"), "its location leaves the model's folder through '..'"),
    "absolute": Case(at("/etc/passwd"), "its location is an absolute path"),
    "absolute_outside": Case(at("{root}/secret.bin"), "its location is an absolute path"),
    "absolute_inside": Case(at("{root}/model/weights.bin"), "its location is an absolute path"),
    "root": Case(at("/"), "its location is an absolute path"),
    "process": Case(at("/proc/self/environ"), "its location is an absolute path"),
    "unc": Case(at("\\\\server\\share\\w.bin"), "its location is a network path"),
    "unc_slashes": Case(at("//server/share/w.bin"), "its location is a network path"),
    "unc_long": Case(at("\\\\?\\C:\\w.bin"), "its location is a network path"),
    "drive": Case(at("C:\\w.bin"), "its location has a drive letter"),
    "drive_slash": Case(at("C:/w.bin"), "its location has a drive letter"),
    "drive_relative": Case(at("c:weights.bin"), "its location has a drive letter"),
    "backslash_parent": Case(at("..\\secret.bin"), "its location contains a backslash"),
    "backslash": Case(at("sub\\weights.bin"), "its location contains a backslash"),
    "backslash_absolute": Case(at("\\weights.bin"), "its location contains a backslash"),
    "here": Case(at("."), "its location names a folder"),
    "here_slash": Case(at("./"), "its location names a folder"),
    "trailing_slash": Case(at("sub/"), "its location names a folder"),
    "file_and_slash": Case(at("weights.bin/"), "its location names a folder"),
    # names that mean something elsewhere, and nothing here
    "home": Case(at("~/secret.bin"), "its file cannot be opened: No such file"),
    "variable": Case(at("$HOME/secret.bin"), "its file cannot be opened: No such file"),
    "url": Case(at("file:///etc/passwd"), "its file cannot be opened: No such file"),
    "percent": Case(at("%2e%2e/secret.bin"), "its file cannot be opened: No such file"),
    "wide_dots": Case(at("．．/secret.bin"), "its file cannot be opened: No such file"),
    "pattern": Case(at("*.bin"), "its file cannot be opened: No such file"),
    "absent": Case(at("absent.bin"), "its file cannot be opened: No such file"),
    "absent_folder": Case(at("absent/weights.bin"), "its file cannot be opened: No such file"),
    "long": Case(at("n" * 300), "its file cannot be opened: File name too long"),
    # what the name leads to
    "directory": Case(at("sub"), "its location is a directory"),
    "through_a_file": Case(at("weights.bin/x"), "its location goes through a file"),
    "link_outside": Case(link("{root}/secret.bin"), "its location is a symbolic link"),
    "link_relative": Case(link("../secret.bin"), "its location is a symbolic link"),
    "link_inside": Case(link("weights.bin"), "its location is a symbolic link"),
    "link_dangling": Case(link("absent"), "its location is a symbolic link"),
    "link_to_itself": Case(link("made"), "its location is a symbolic link"),
    "link_to_a_device": Case(link("/dev/zero"), "its location is a symbolic link"),
    "linked_folder": Case(
        made(lambda folder: (folder / "made").symlink_to(".."), "made/secret.bin"),
        "its location goes through a symbolic link",
    ),
    "linked_folder_inside": Case(
        made(lambda folder: (folder / "made").symlink_to("sub"), "made/weights.bin"),
        "its location goes through a symbolic link",
    ),
    "linked_folder_below": Case(
        made(lambda folder: (folder / "sub" / "made").symlink_to("../.."), "sub/made/secret.bin"),
        "its location goes through a symbolic link",
    ),
    "hard_link": Case(made(lambda folder: os.link(folder.parent / "secret.bin", folder / "made")), "is a hard link"),
    "hard_link_inside": Case(made(lambda folder: os.link(folder / "weights.bin", folder / "made")), "is a hard link"),
    "pipe": Case(made(lambda folder: os.mkfifo(folder / "made")), "its location is a named pipe"),
    "through_a_pipe": Case(
        made(lambda folder: os.mkfifo(folder / "made"), "made/x"), "its location goes through a named pipe"
    ),
    "socket": Case(made(listening), "its location is a socket"),
    "character_device": Case(device(stat.S_IFCHR, 1, 5), "its location is a character device"),
    "block_device": Case(device(stat.S_IFBLK, 7, 0), "its location is a block device"),
    # the numbers
    "unknown_key": Case(at("weights.bin", command="rm"), "it has an unknown key"),
    "basepath": Case(at("weights.bin", basepath="/etc"), "it has an unknown key"),
    "key_case": Case(at("weights.bin", Offset="0"), "it has an unknown key"),
    "key_not_utf8": Case(bad_text("#" * 9, b"\xff"), "it has an unknown key"),
    "twice": Case(
        lambda folder: tensor_with(("location", "weights.bin"), ("location", "../secret.bin")),
        "the key 'location' occurs twice",
    ),
    "offset_not_utf8": Case(bad_text("offset", b"\xff"), "its offset is not valid UTF-8"),
    "offset_negative": Case(at("weights.bin", offset="-1"), "its offset is negative"),
    "offset_minus": Case(at("weights.bin", offset="-1 + 1"), "its offset is not a number"),
    "offset_text": Case(at("weights.bin", offset="all"), "its offset is not a number"),
    "offset_empty": Case(at("weights.bin", offset=""), "its offset is not a number"),
    "offset_hex": Case(at("weights.bin", offset="0x0"), "its offset is not a number"),
    "offset_float": Case(at("weights.bin", offset="0.0"), "its offset is not a number"),
    "offset_space": Case(at("weights.bin", offset=" 0"), "its offset is not a number"),
    "offset_newline": Case(at("weights.bin", offset="0\n"), "its offset is not a number"),
    "offset_other_digits": Case(at("weights.bin", offset="０"), "its offset is not a number"),
    "offset_endless": Case(at("weights.bin", offset="9" * 10_000), "its offset is not a number"),
    "offset_outside": Case(at("weights.bin", offset="17"), "its offset is outside the file"),
    "offset_far_outside": Case(at("weights.bin", offset=str(2**63)), "its offset is outside the file"),
    "end_outside": Case(at("weights.bin", offset="4", length="16"), "the file ends too early"),
    "end_outside_no_length": Case(at("weights.bin", offset="4"), "the file ends too early"),
    "length_negative": Case(at("weights.bin", length="-16"), "its length is negative"),
    "length_text": Case(at("weights.bin", length="16 bytes"), "its length is not a number"),
    "length_short": Case(at("weights.bin", length="12"), "its length is not what the shape needs"),
    "length_long": Case(at("longer.bin", length="20"), "its length is not what the shape needs"),
    "no_length": Case(at("longer.bin", offset="2"), "the file goes on after the data"),
    "checksum_text": Case(at("weights.bin", checksum="none"), "its checksum is not a SHA-1"),
    "checksum_sha256": Case(at("weights.bin", checksum=hashlib.sha256(DATA).hexdigest()), "checksum is not a SHA-1"),
    "checksum_wrong": Case(at("weights.bin", checksum="0" * 40), "the file is damaged: its SHA-1 does not fit"),
    "also_raw": Case(also_raw, "has its data in several places"),
}  # fmt: skip


def refusal(case: str, folder: Path) -> ModelFormatError:
    tensor = CASES[case].build(folder)
    with pytest.raises(ModelFormatError, match=f"tensor 'w'.*{re.escape(CASES[case].message)}") as caught:
        array_of(tensor, folder, "net.onnx, initializer 0")
    return caught.value


@pytest.fixture
def opened(monkeypatch):
    """Record what the system opens: the identity of each file, and whether it is a folder."""
    found: list[tuple[tuple[int, int], bool]] = []
    original = os.open

    def recording(*arguments, **others):
        descriptor = original(*arguments, **others)
        status = os.fstat(descriptor)
        found.append(((status.st_dev, status.st_ino), stat.S_ISDIR(status.st_mode)))
        return descriptor

    monkeypatch.setattr(os, "open", recording)
    return found


def identity(path: Path) -> tuple[int, int]:
    return path.stat().st_dev, path.stat().st_ino


@pytest.mark.parametrize("case", CASES)
def test_every_way_out_is_refused_and_nothing_else_is_opened(case, tmp_path, opened, monkeypatch):
    monkeypatch.setattr(os, "supports_dir_fd", {os.open})  # names the recording function
    folder = make_folder(tmp_path)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    opened.clear()
    error = refusal(case, folder)
    assert error.where == "net.onnx, initializer 0"
    assert str(error).isascii() or str(error).replace("\n", "").isprintable()
    folders = {identity(folder), identity(folder / "sub")}
    files = {identity(folder / name) for name in ("weights.bin", "longer.bin")}
    assert all(found in (folders if is_folder else files) for found, is_folder in opened), opened
    if before:
        assert len(os.listdir("/proc/self/fd")) == before


def test_each_refusal_says_what_to_do(tmp_path):
    hints = {}
    for case in ("parent", "link_outside", "absent", "hard_link", "directory", "end_outside", "checksum_wrong"):
        root = tmp_path / case
        root.mkdir()
        error = refusal(case, make_folder(root))
        hints[case] = error.hint
        assert error.expected and error.hint, case
    assert hints["hard_link"] == "replace it with a copy"
    assert len(CASES) >= 40


CHILD = """
import json, sys
sys.path[:0] = sys.argv[1:3]
from pathlib import Path
import test_external as t
cases = {case: t.make_folder(Path(sys.argv[3], case)) for case in json.loads(sys.argv[4])}
tensors = {case: t.CASES[case].build(folder) for case, folder in cases.items()}
events, refused = [], []
def hook(event, arguments):
    if watching:
        events.append((event, str(arguments[:1])))
watching = False
sys.addaudithook(hook)
for case, folder in cases.items():
    watching = True
    try:
        t.array_of(tensors[case], folder, "here")
    except t.ModelFormatError:
        refused.append(case)
    watching = False
print(json.dumps([refused, sorted(set(events))]))
"""


# Walking the stack for the place of an error.
HARMLESS = {"open", "sys._getframe"}


def test_the_interpreter_sees_no_other_file_opened(tmp_path):
    """The same cases in a child, with Python's own audit of what it opens, runs and imports."""
    cases = [case for case in CASES if "device" not in case]
    paths = [str(Path(minigraph.__file__).parents[1]), str(Path(__file__).parent)]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *paths, str(tmp_path), json.dumps(cases)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    refused, events = json.loads(done.stdout)
    assert refused == cases
    folders = {str((str(tmp_path / case / "model"),)) for case in cases}
    inside = {str((name,)) for name in ("weights.bin", "longer.bin", "sub")}
    opened = {name for event, name in events if event == "open"}
    assert opened <= folders | inside and opened & folders and opened & inside
    assert {event for event, _ in events} <= HARMLESS


def test_a_model_without_a_folder_has_no_external_data(tmp_path, opened):
    make_folder(tmp_path)
    with pytest.raises(ModelFormatError, match="the model did not come from a file") as caught:
        array_of(tensor_with(location="weights.bin"), None, "the given bytes")
    assert caught.value.hint == "give the path of the model file instead of its content"
    assert not opened


@pytest.mark.parametrize("folder", ["", "."])
def test_the_current_folder_keeps_things_in_as_well(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(make_folder(tmp_path))
    assert array_of(tensor_with(location="weights.bin"), Path(folder), "").tobytes() == DATA
    with pytest.raises(ModelFormatError, match=r"through '\.\.'"):
        array_of(tensor_with(location="../secret.bin"), Path(folder), "")
    os.symlink("../secret.bin", "made")
    with pytest.raises(ModelFormatError, match="symbolic link"):
        array_of(tensor_with(location="made"), Path(folder), "")


def test_a_missing_folder(tmp_path):
    with pytest.raises(ModelFormatError, match="its file cannot be opened: No such file"):
        array_of(tensor_with(location="weights.bin"), tmp_path / "absent", "")


def exchange(folder: Path, how: str) -> None:
    """Put something else in the place of a file that has been looked at."""
    (folder / "weights.bin").unlink()
    if how == "link":
        (folder / "weights.bin").symlink_to(folder.parent / "secret.bin")
    elif how == "pipe":
        os.mkfifo(folder / "weights.bin")
    elif how == "hard_link":
        os.link(folder.parent / "secret.bin", folder / "weights.bin")
    else:
        (folder / "weights.bin").mkdir()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("link", "its file cannot be opened: Too many levels of symbolic links"),
        ("pipe", "its location is a named pipe"),
        ("hard_link", "its location is a hard link"),
        ("directory", "its location is a directory"),
    ],
)
def test_nothing_can_be_exchanged_between_looking_and_opening(how, message, tmp_path, monkeypatch):
    folder = make_folder(tmp_path)
    original = os.lstat

    def lstat(path, **others):
        status = original(path, **others)
        if path == "weights.bin":
            exchange(folder, how)
        return status

    monkeypatch.setattr(os, "lstat", lstat)
    with pytest.raises(ModelFormatError, match=re.escape(message)):
        array_of(tensor_with(location="weights.bin"), folder, "")


def test_a_folder_exchanged_for_a_link(tmp_path, monkeypatch):
    folder = make_folder(tmp_path)
    (tmp_path / "weights.bin").write_bytes(SECRET)
    original = os.lstat

    def lstat(path, **others):
        status = original(path, **others)
        if path == "sub":
            os.rename(folder / "sub", folder / "old")
            (folder / "sub").symlink_to(tmp_path)
        return status

    monkeypatch.setattr(os, "lstat", lstat)
    with pytest.raises(ModelFormatError, match="its file cannot be opened"):
        array_of(tensor_with(location="sub/weights.bin"), folder, "")


def test_a_file_that_becomes_shorter_while_it_is_read(tmp_path, monkeypatch):
    folder = make_folder(tmp_path)
    original = os.preadv

    def preadv(descriptor, buffers, offset):
        os.truncate(folder / "weights.bin", 8)
        return original(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    with pytest.raises(ModelFormatError, match="became shorter while it was read"):
        array_of(tensor_with(location="weights.bin"), folder, "")


def test_a_declared_size_is_not_allocated(tmp_path):
    tensor = tensor_with(location="weights.bin")
    tensor.dims[:] = [2**60]
    with pytest.raises(ModelFormatError, match="the file ends too early"):
        array_of(tensor, make_folder(tmp_path), "")


def test_a_file_larger_than_memory(tmp_path, monkeypatch):
    def no_memory(size):
        raise MemoryError

    monkeypatch.setattr(external, "bytearray", no_memory, raising=False)
    with pytest.raises(ModelFormatError, match="it does not fit into memory"):
        array_of(tensor_with(location="weights.bin"), make_folder(tmp_path), "")


def test_a_system_that_cannot_open_relative_to_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "supports_dir_fd", set())
    with pytest.raises(ModelFormatError, match="cannot open files safely relative to a folder"):
        array_of(tensor_with(location="weights.bin"), make_folder(tmp_path), "")


@pytest.mark.parametrize(
    "fields",
    [
        {"location": "weights.bin"},
        {"location": "./weights.bin"},
        {"location": "sub/weights.bin"},
        {"location": "sub//weights.bin"},
        {"location": "weights.bin", "offset": "0", "length": "16"},
        {"location": "longer.bin", "offset": "2", "length": "16"},
        {"location": "weights.bin", "checksum": SHA1},
        {"location": "weights.bin", "checksum": SHA1.upper()},
        {"location": "gewichte ∑.bin"},
    ],
    ids=str,
)
def test_what_is_allowed(fields, tmp_path):
    folder = make_folder(tmp_path)
    (folder / "gewichte ∑.bin").write_bytes(DATA)
    array = array_of(tensor_with(**fields), folder, "")
    assert array.tobytes() == DATA and array.dtype == np.float32 and array.flags.writeable


def test_a_checksum_is_of_the_whole_file_and_follows_its_content(tmp_path):
    folder = make_folder(tmp_path)
    whole = (folder / "longer.bin").read_bytes()
    tensor = tensor_with(location="longer.bin", offset="2", length="16", checksum=hashlib.sha1(whole).hexdigest())
    reads = external._sha1.cache_info().misses
    for _ in range(3):
        assert array_of(tensor, folder, "").tobytes() == DATA
    assert external._sha1.cache_info().misses == reads + 1  # once for all the tensors in a file
    (folder / "longer.bin").write_bytes(whole + b"!")
    with pytest.raises(ModelFormatError, match="its SHA-1 does not fit"):
        array_of(tensor, folder, "")


def test_what_onnx_writes_is_read(tmp_path):
    arrays = {f"w{i}": np.random.default_rng(i).normal(size=(5, i + 1)).astype(d) for i, d in enumerate("efd")}
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])], "g",
        [onnx.helper.make_tensor_value_info("x", 1, [2])], [onnx.helper.make_tensor_value_info("y", 1, [2])],
        [onnx.numpy_helper.from_array(a, n) for n, a in arrays.items()],
    )  # fmt: skip
    opsets = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.save(model, tmp_path / "net.onnx", save_as_external_data=True, location="net.bin", size_threshold=0)
    read, folder = read_model(tmp_path / "net.onnx")
    assert folder == tmp_path
    for tensor in read.graph.initializer:
        assert tensor.data_location == onnx.TensorProto.EXTERNAL
        back = array_of(tensor, folder, "")
        assert back.dtype == arrays[tensor.name].dtype and np.array_equal(back, arrays[tensor.name])
