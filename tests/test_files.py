"""write_atomically: a file is written whole or not at all, and nothing is left lying about."""

from __future__ import annotations

import os
import stat
import threading

import pytest

from minigraph.files import write_atomically


def names(folder) -> list[str]:
    return sorted(os.listdir(folder))


@pytest.mark.parametrize("data", [b"", b"\x00\xff" * 1000, "text\n", "Grüße ∑"])
def test_contents(tmp_path, data):
    path = write_atomically(tmp_path / "a", data)
    assert path == tmp_path / "a"
    assert path.read_bytes() == (data.encode() if isinstance(data, str) else data)
    assert names(tmp_path) == ["a"]


def test_an_old_file_is_replaced_not_written_into(tmp_path):
    path = write_atomically(tmp_path / "a", "old and longer")
    with open(path) as reader:
        write_atomically(path, "new")
        assert reader.read() == "old and longer"
    assert path.read_text() == "new"


def test_names_as_text_and_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert write_atomically("a", "x").read_text() == "x"
    assert write_atomically(os.fspath(tmp_path / "b"), "y").read_text() == "y"
    assert names(tmp_path) == ["a", "b"]


def test_long_names(tmp_path):
    write_atomically(tmp_path / ("n" * 250), "x")
    assert names(tmp_path) == ["n" * 250]


def test_a_new_file_has_ordinary_permissions(tmp_path):
    old = os.umask(0o027)
    try:
        mode = stat.S_IMODE(write_atomically(tmp_path / "a", "x").stat().st_mode)
    finally:
        assert os.umask(old) == 0o027
    assert mode == 0o640


def test_a_private_file_stays_private(tmp_path):
    path = write_atomically(tmp_path / "a", "x")
    path.chmod(0o600)
    write_atomically(path, "y")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("call", ["fsync", "replace", "chmod"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("old", [None, "old"])
def test_whatever_fails_the_old_file_stays_and_no_litter(tmp_path, monkeypatch, call, error, old):
    path = tmp_path / "a"
    if old is not None:
        path.write_text(old)

    def fail(*arguments, **others):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(type(error)):
            write_atomically(path, "new")
    assert names(tmp_path) == ([] if old is None else ["a"])
    assert old is None or path.read_text() == old


def test_a_failing_write(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_text("old")
    real = os.fdopen

    def fdopen(descriptor, mode):
        file = real(descriptor, mode)

        class Full:
            def __enter__(self):
                return self

            def __exit__(self, *_):
                file.close()

            def write(self, data):
                file.write(data[:3])
                raise OSError(28, "No space left on device")

        return Full()

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdopen", fdopen)
        with pytest.raises(OSError, match="No space left"):
            write_atomically(path, "new")
    assert names(tmp_path) == ["a"] and path.read_text() == "old"


def test_a_failing_sync_of_the_folder_leaves_the_whole_new_file(tmp_path, monkeypatch):
    """After the rename the new file stands; only its durability is not sure, and the caller is told."""
    path = tmp_path / "a"
    path.write_text("old")
    real, calls = os.fsync, []

    def fsync(descriptor):
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(OSError, match="Input/output"):
            write_atomically(path, "new")
    assert names(tmp_path) == ["a"] and path.read_text() == "new"


def test_data_and_folder_are_synced_around_the_rename(tmp_path, monkeypatch):
    order = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, real=real, name=name: (order.append(name), real(*a))[1])
    write_atomically(tmp_path / "a", "x")
    assert order == ["fsync", "replace", "fsync"]


def test_no_descriptor_is_left_open(tmp_path):
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    for _ in range(20):
        write_atomically(tmp_path / "a", "x")
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == before


def test_a_folder_that_is_not_there_is_the_systems_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "none" / "a", "x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        write_atomically(tmp_path / "folder", "x")
    assert names(tmp_path) == ["folder"]


def test_writers_at_once_leave_one_of_their_files(tmp_path):
    path, texts = tmp_path / "a", [str(i) * 50_000 for i in range(6)]
    threads = [threading.Thread(target=lambda t=t: [write_atomically(path, t) for _ in range(10)]) for t in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in texts and names(tmp_path) == ["a"]
