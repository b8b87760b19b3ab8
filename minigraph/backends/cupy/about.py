"""What there is to run on: device, driver, libraries and compilers, in words."""

from __future__ import annotations

import importlib
import shutil
from typing import Any

from minigraph.backends.cupy.gpu import missing


def describe() -> list[str]:
    """Return what the backend finds, a line for each part; one line that says what is missing where it cannot run.

    >>> len(describe()) >= 1
    True
    """
    lacking = missing()
    if lacking is not None:
        return [lacking]
    cupy = importlib.import_module("cupy")
    return [_device(cupy), _software(cupy), _cudnn(), _compilers()]


def _device(cupy: Any) -> str:
    device = cupy.cuda.Device()
    name = cupy.cuda.runtime.getDeviceProperties(device.id)["name"]
    name = name.decode() if isinstance(name, bytes) else name
    return f"{name}, {device.mem_info[1] / 2**30:.0f} GiB, compute capability {'.'.join(device.compute_capability)}"


def _software(cupy: Any) -> str:
    runtime = cupy.cuda.runtime
    driver, built = (_version(number) for number in (runtime.driverGetVersion(), runtime.runtimeGetVersion()))
    return f"driver for CUDA {driver}, CuPy {cupy.__version__} with CUDA {built}"


def _version(number: int) -> str:
    """Return a version as CUDA numbers them.

    >>> _version(13020)
    '13.2'
    """
    return f"{number // 1000}.{number % 1000 // 10}"


def _cudnn() -> str:
    try:
        frontend = importlib.import_module("cudnn")
        return f"cuDNN {_backend_version(frontend.backend_version())}, its frontend {frontend.__version__}"
    except (ImportError, OSError, RuntimeError, AttributeError) as error:  # the package, or the library that it loads
        return f"no cuDNN, convolutions are matrix products ({str(error).splitlines()[0]})"


def _backend_version(number: int) -> str:
    """Return a version as cuDNN numbers them.

    >>> _backend_version(91900)
    '9.19.0'
    """
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


def _compilers() -> str:
    try:
        nvrtc = "NVRTC {}.{}".format(*importlib.import_module("cupy_backends.cuda.libs.nvrtc").getVersion())
    except Exception as error:  # the loader's own classes of errors differ from version to version
        nvrtc = f"no NVRTC ({str(error).splitlines()[0]})"
    return f"{nvrtc}; nvcc: {shutil.which('nvcc') or 'not on PATH'}"
