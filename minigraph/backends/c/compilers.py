"""The machine's C++ compiler, and the cache of what it has compiled.

A shared object is named by the hash of all that decides its bytes: source, compiler, flags, and the processor's
features. It is compiled under another name and then renamed, so that processes side by side see all of it or nothing;
and it is loaded only from a folder that belongs to this user and that nobody else can write to.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import hashlib
import importlib.util
import os
import pathlib
import platform
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

from minigraph import files
from minigraph.errors import ProgramError

# NaN and infinity behave as everywhere else, and integers wrap; only the order of a·b + c may be fused.
FLAGS = (
    "-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fwrapv", "-fno-exceptions",
    "-fno-rtti", "-fPIC", "-fvisibility=hidden", "-pthread", "-w",
)  # fmt: skip


_COMMENT = re.compile(r"//.*")


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler: the command that runs it, and what it says of itself."""

    command: tuple[str, ...]
    version: str

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags that it is run with: for this very machine."""
        wide = ("-mprefer-vector-width=512",) if platform.machine() in ("x86_64", "AMD64") else ()
        native = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
        return (*FLAGS, native, *wide)


@functools.cache
def find() -> Compiler | None:
    """Return the first that works of `$CC`, cc, gcc, clang, and `zig cc` of the ziglang wheel; None if none does.

    A C compiler's command is made that of its C++ sibling by `-x c++`.
    """
    candidates = [shlex.split(os.environ[name]) for name in ("CC",) if os.environ.get(name)]
    candidates += [["cc"], ["gcc"], ["clang"]]
    if importlib.util.find_spec("ziglang") is not None:
        candidates.append([sys.executable, "-m", "ziglang", "cc"])
    for command in candidates:
        path = shutil.which(command[0])
        version = _version(command, path) if path is not None else None
        if version:
            return Compiler(tuple(command), version)
    return None


def _version(command: list[str], path: str) -> str:
    """Return what a compiler says of itself, "" if it does not work; asked once for each file that it is."""
    status = pathlib.Path(path).stat()
    about = (*command, path, str(status.st_size), str(status.st_mtime_ns), *Compiler((), "").flags, processor())
    known = cache_folder() / f"compiler-{digest(*about)}.txt"
    if known.exists():
        return known.read_text()
    version = _probed(command)
    files.write_atomically(known, version)
    return version


def _probed(command: list[str]) -> str:
    """Return what a compiler says of itself, if it compiles C++ for this processor, else ""."""
    with tempfile.TemporaryDirectory() as folder:
        target = str(pathlib.Path(folder, "probe.so"))
        probe = [*command, "-x", "c++", *Compiler((), "").flags, "-shared", "-", "-o", target]
        try:
            made = subprocess.run(probe, input="int probe() { return 0; }", capture_output=True, text=True, timeout=120)
            said = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired):
            return ""
    return said.stdout if made.returncode == 0 else ""


@functools.cache
def processor() -> str:
    """Return what tells processors apart that run different machine code: the model's features."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.machine())


def cache_folder() -> pathlib.Path:
    """Return the folder of compiled programs, made if need be; a ProgramError if others could write to it.

    Where there can be none, it is one for this process alone.
    """
    folder = files.cache_folder() / "c"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return _folder_of_process()
    check_private(folder)
    return folder if os.access(folder, os.W_OK) else _folder_of_process()


@functools.cache
def _folder_of_process() -> pathlib.Path:
    """Return a folder that is there until the process ends, for where nothing can be kept."""
    folder = tempfile.mkdtemp(prefix="minigraph-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return pathlib.Path(folder)


def check_private(path: pathlib.Path) -> None:
    """Raise a ProgramError unless a file or folder is this user's own, and nobody else can write to it."""
    status = path.stat()
    owned = not hasattr(os, "getuid") or status.st_uid == os.getuid()
    if not owned or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ProgramError(
            f"{path} could be changed by others, and is not loaded",
            expected="a folder and files of your own, writable by you alone",
            got=f"owner {status.st_uid}, mode {stat.filemode(status.st_mode)}",
            hint=f"chmod go-w {path}, or set XDG_CACHE_HOME to a folder of your own",
        )


def digest(*parts: str) -> str:
    """Return a short name for texts that decide what is in a file."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def build(source: str, compiler: Compiler, parts: int = 1) -> ctypes.CDLL:
    """Return the loaded shared object of a source text: from the cache, or compiled now, in parts side by side."""
    bare = _COMMENT.sub("", source)  # a program that has only moved in its user's file is not compiled again
    key = digest(bare, *compiler.command, compiler.version, *compiler.flags, processor())
    cache = cache_folder()
    target = _intact(cache, key) or _compile(source, compiler, cache / key, parts)
    check_private(target)
    return ctypes.CDLL(str(target))


def _intact(cache: pathlib.Path, key: str) -> pathlib.Path | None:
    """Return a program of the cache whose bytes have the sum that its name says; one that was damaged is removed."""
    for path in sorted(cache.glob(f"{key}-*.so")):
        if path.stem == f"{key}-{_sum(path)}":
            return path
        path.unlink(missing_ok=True)
    return None


def _sum(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _compile(source: str, compiler: Compiler, target: pathlib.Path, parts: int) -> pathlib.Path:
    """Compile into a private name, then rename to `target` and the sum: a reader sees a whole file or none."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        text, made = pathlib.Path(folder, "program.cpp"), pathlib.Path(folder, "program.so")
        text.write_text(source)
        objects = [str(pathlib.Path(folder, f"part{i}.o")) for i in range(parts)]
        command = [*compiler.command, *compiler.flags]
        running = [
            _start([*command, "-x", "c++", "-c", str(text), f"-DMG_PART={i}", "-o", name])
            for i, name in enumerate(objects)
        ]
        _finish(running, source, target)
        _finish([_start([*command, "-shared", *objects, "-o", str(made)])], source, target)
        made.chmod(0o700)
        return made.replace(f"{target}-{_sum(made)}.so")


def _start(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def _finish(running: Sequence[subprocess.Popen[str]], source: str, target: pathlib.Path) -> None:
    """Wait for the compiler; a ProgramError keeps the source that it refused."""
    said = [process.communicate()[1] for process in running]
    for process, text in zip(running, said, strict=True):
        if process.returncode:
            kept = target.with_suffix(".cpp")
            kept.write_text(source)
            raise ProgramError(
                "the C++ compiler refused a generated program",
                expected="a shared object",
                got=text.strip()[:2000],
                hint=f"the source is kept as {kept}; command: {shlex.join(map(str, process.args))}",  # type: ignore[arg-type]
            )
