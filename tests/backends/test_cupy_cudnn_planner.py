"""The graphs that convolutions are, as the real cuDNN sees them: it has plans for all of them on an H200."""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

from minigraph.backends.c import compilers

# What cuDNN loads of CUDA's driver; planning calls none of it.
DRIVER = """
cuInit cuGetProcAddress cuGetProcAddress_v2 cuGetErrorName cuGetErrorString cuCtxGetCurrent cuCtxGetLimit
cuCtxPopCurrent cuCtxPushCurrent cuStreamGetCtx cuDriverGetVersion cuLinkCreate cuLinkAddData cuLinkComplete
cuLinkDestroy cuLaunchKernel cuLaunchCooperativeKernel cuLaunchKernelEx cuDeviceGetCount cuDeviceGet cuLibraryLoadData
cuLibraryLoadFromFile cuLibraryGetKernel cuLibraryUnload cuKernelSetAttribute cuKernelGetAttribute
cuOccupancyMaxPotentialClusterSize
"""


def folders() -> list[pathlib.Path]:
    """Return the folders of NVIDIA's libraries that are installed as packages."""
    spec = importlib.util.find_spec("nvidia")
    places = spec.submodule_search_locations if spec is not None else None
    return sorted(path for place in places or () for path in pathlib.Path(place).glob("*/lib"))


def missing() -> str:
    """Return what planning lacks here; "" if nothing."""
    if importlib.util.find_spec("cudnn") is None:
        return "cuDNN's frontend is not installed"
    if not any((folder / "libcudnn.so.9").exists() for folder in folders()):
        return "cuDNN is not installed"
    return "" if compilers.find() is not None else "no C++ compiler"


@pytest.mark.slow
def test_cudnn_has_plans_for_every_convolution(tmp_path: pathlib.Path) -> None:
    if missing():
        pytest.skip(missing())
    source = tmp_path / "driver.cpp"
    source.write_text("".join(f'extern "C" int {name}() {{ return 100; }}\n' for name in DRIVER.split()))
    compiler = compilers.find()
    assert compiler is not None
    subprocess.run(
        [*compiler.command, "-shared", "-fPIC", "-o", str(tmp_path / "libcuda.so.1"), str(source)], check=True
    )
    root = pathlib.Path(__file__).parents[2]
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": os.pathsep.join(map(str, [*folders(), tmp_path])),
        "PYTHONPATH": os.pathsep.join([str(root), *sys.path]),
    }
    script = pathlib.Path(__file__).with_name("cudnn_planner.py")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    plans = json.loads(done.stdout.splitlines()[-1])
    assert not [name for name, count in plans.items() if count == 0]
