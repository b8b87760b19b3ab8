"""Compilers and the cache: who compiles, what happens without, and files that are damaged or not to be trusted."""

from __future__ import annotations

import os
import pathlib
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest

import minigraph as mg
from backends.c_programs import needs_compiler
from minigraph import ops
from minigraph.backends.c import CBackend, compilers
from minigraph.errors import ProgramError
from minigraph.ir.leaves import input as input_

pytestmark = needs_compiler
SOURCE = '#define ENTRY extern "C" __attribute__((visibility("default")))\nENTRY int answer() { return %d; }\n'


@pytest.fixture(autouse=True)
def cache(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """A cache of the test's own, and no compiler found yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    compilers.find.cache_clear()
    yield tmp_path / "cache" / "minigraph" / "c"
    compilers.find.cache_clear()


def answer(number: int, compiler: compilers.Compiler | None = None) -> int:
    """Compile and call a function."""
    found = compiler or compilers.find()
    assert found is not None
    return int(compilers.build(SOURCE % number, found).answer())


def programs(cache: pathlib.Path) -> list[pathlib.Path]:
    return sorted(cache.glob("*.so"))


# --- the cache ----------------------------------------------------------------------------------------------------


def test_a_program_is_compiled_once(cache: pathlib.Path) -> None:
    assert answer(41) == 41
    (path,) = programs(cache)
    before = path.stat()
    assert answer(41) == 41
    assert programs(cache) == [path] and path.stat().st_ino == before.st_ino
    assert answer(42) == 42
    assert len(programs(cache)) == 2


def test_other_flags_and_compilers_make_other_programs(cache: pathlib.Path) -> None:
    found = compilers.find()
    assert found is not None
    assert answer(1, found) == answer(1, compilers.Compiler(found.command, "of another version")) == 1
    assert answer(1, compilers.Compiler((*found.command, "-DOTHER"), found.version)) == 1
    assert len(programs(cache)) == 3


@pytest.mark.parametrize("damage", ["cut", "empty", "changed", "text"])
def test_a_damaged_program_is_compiled_again(cache: pathlib.Path, damage: str) -> None:
    assert answer(7) == 7
    (path,) = programs(cache)
    whole = path.read_bytes()
    changed = whole[:200] + bytes([whole[200] ^ 1]) + whole[201:]
    made = {"cut": whole[: len(whole) // 2], "empty": b"", "changed": changed, "text": b"not a program"}
    path.unlink()  # the bytes of a file that is loaded are in use: another takes its place
    path.write_bytes(made[damage])
    path.chmod(0o700)
    assert answer(7) == 7
    assert [p.read_bytes() == made[damage] for p in programs(cache)] == [False]


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no owners and modes of files")
@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_folder_that_others_can_write_to_is_refused(cache: pathlib.Path, mode: int) -> None:
    assert answer(3) == 3
    cache.chmod(mode)
    with pytest.raises(ProgramError, match="could be changed by others") as caught:
        answer(3)
    assert stat.filemode(cache.stat().st_mode) in str(caught.value.got)
    assert f"chmod go-w {cache}" in str(caught.value.hint)


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no owners and modes of files")
def test_a_program_that_others_can_write_to_is_refused(cache: pathlib.Path) -> None:
    assert answer(3) == 3
    (path,) = programs(cache)
    path.chmod(0o777)
    with pytest.raises(ProgramError, match="could be changed by others"):
        answer(3)


def test_without_a_folder_to_keep_programs_in_a_process_has_its_own(cache: pathlib.Path) -> None:
    found = compilers.find()
    shutil.rmtree(cache.parent)
    cache.parent.write_text("a file where the folder should be")
    assert answer(5, found) == 5
    assert cache.parent.is_file()
    folder = compilers.cache_folder()
    assert folder == compilers.cache_folder() and stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert len(programs(folder)) >= 1


def test_the_folder_of_a_process_goes_with_it(cache: pathlib.Path) -> None:
    cache.parent.parent.mkdir()
    cache.parent.write_text("")
    script = "from minigraph.backends.c import compilers; print(compilers.cache_folder())"
    folder = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env={**os.environ, **_path()}
    ).stdout.strip()
    assert folder and not os.path.exists(folder)


def _path() -> dict[str, str]:
    return {"PYTHONPATH": str(pathlib.Path(mg.__file__).parent.parent)}


def test_processes_and_threads_that_compile_the_same_all_get_it(cache: pathlib.Path) -> None:
    script = f"""
from minigraph.backends.c import compilers
print(compilers.build({SOURCE % 9!r}, compilers.find()).answer())
"""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env={**os.environ, **_path()}
        )
        for _ in range(3)
    ]
    answers: list[int] = []
    threads = [threading.Thread(target=lambda: answers.append(answer(9))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [9, 9, 9]
    assert [p.communicate()[0].strip() for p in running] == ["9", "9", "9"]
    assert len(programs(cache)) >= 1
    assert not [p for p in cache.iterdir() if p.is_dir()]  # nothing is left lying about


def test_what_a_compiler_refuses_is_kept_to_be_read(cache: pathlib.Path) -> None:
    found = compilers.find()
    assert found is not None
    with pytest.raises(ProgramError, match="refused a generated program") as caught:
        compilers.build("int broken(", found)
    (kept,) = cache.glob("*.cpp")
    assert kept.read_text() == "int broken(" and str(kept) in str(caught.value.hint)
    assert not programs(cache)


# --- the compiler -------------------------------------------------------------------------------------------------


def script(path: pathlib.Path, text: str) -> str:
    """Write a shell script and return its path."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_cc_comes_first_with_its_arguments(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = shutil.which("cc")
    assert real is not None
    mine = script(tmp_path / "mine", f'exec {real} "$@"')
    monkeypatch.setenv("CC", f"{mine} -DMINE=12")
    found = compilers.find()
    assert found is not None and found.command == (mine, "-DMINE=12")
    source = SOURCE.replace("%d", "MINE")
    assert compilers.build(source, found).answer() == 12


@pytest.mark.parametrize("broken", ["exit 1", "exec /nowhere/at/all", "echo 'no compiler' >&2; exit 127"])
def test_a_broken_cc_is_passed_over(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    monkeypatch.setenv("CC", script(tmp_path / "broken", broken))
    found = compilers.find()
    assert found is not None and found.command == ("cc",)


def test_a_cc_that_is_not_there_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "/nowhere/cc -O2")
    found = compilers.find()
    assert found is not None and found.command == ("cc",)


def test_the_ziglang_wheel_is_the_last_resort(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = shutil.which("cc")
    module = tmp_path / "site" / "ziglang"
    module.mkdir(parents=True)
    (module / "__init__.py").touch()
    (module / "__main__.py").write_text(
        "import subprocess, sys\n"
        "assert sys.argv[1] == 'cc'\n"
        f"sys.exit(subprocess.call([{real!r}, *sys.argv[2:]], env={{'PATH': {os.environ['PATH']!r}}}))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    found = compilers.find()
    assert found is not None and found.command == (sys.executable, "-m", "ziglang", "cc")
    assert answer(6, found) == 6


def test_without_a_compiler_numpy_computes_and_says_so(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    x = input_((3,), name="x")
    with pytest.warns(RuntimeWarning, match=r"no C\+\+ compiler was found: NumPy computes instead") as caught:
        program = mg.compile({"y": ops.relu(x)}, backend="c")
    assert len(caught) == 1
    np.testing.assert_array_equal(program(x=np.array([-1, 0, 2], np.float32))["y"], [0, 0, 2])
    assert program.backend.name == "numpy"
    with pytest.raises(mg.errors.ArgumentError, match=r"no C\+\+ compiler"):
        CBackend()


def test_a_known_compiler_is_not_asked_again(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, count = shutil.which("cc"), tmp_path / "count"
    monkeypatch.setenv("CC", script(tmp_path / "counting", f'echo x >> {count}; exec {real} "$@"'))
    first = compilers.find()
    asked = count.read_text()
    compilers.find.cache_clear()
    assert compilers.find() == first and count.read_text() == asked
