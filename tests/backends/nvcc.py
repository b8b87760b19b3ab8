"""NVIDIA's compiler in tests: a CUDA file compiled, and what the assembler says of each kernel's registers."""

from __future__ import annotations

import pathlib
import shutil
import subprocess

import pytest

NVCC = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
needs_nvcc = pytest.mark.skipif(NVCC is None, reason="no nvcc")


def assembled(source: str, folder: pathlib.Path, *options: str) -> str:
    """Return the assembler's report on a file, which is compiled in a folder."""
    assert NVCC is not None
    (folder / "kernels.cu").write_text(source)
    command = [NVCC, "-std=c++17", *options, "-Xptxas", "-v", "kernels.cu"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[:4000]
    return done.stderr
