"""How ops are computed: `base` is the protocol; `numpy` the reference and the default; `c` the fastest on a processor;
`cupy` for a GPU. `loops` is what the last two generate from.
"""

import warnings

from minigraph.backends.base import Backend, Kernel, Needs, get, register
from minigraph.backends.numpy import NumpyBackend


def _c() -> Backend:
    """Return the C backend; where there is no compiler, NumPy's, and say so once."""
    from minigraph.backends.c import compilers

    if compilers.find() is None:
        warnings.warn(
            "no C++ compiler was found: NumPy computes instead (install gcc or clang, or pip install minigraph[c])",
            RuntimeWarning,
            stacklevel=2,
        )
        return NumpyBackend()
    from minigraph.backends.c import CBackend

    return CBackend()


def _cupy() -> Backend:
    """Return the GPU backend, one for all who ask by name; an error where there is no GPU."""
    from minigraph.backends import cupy

    return cupy.shared()


register("numpy", NumpyBackend)
register("c", _c)
register("cupy", _cupy)

__all__ = ["Backend", "Kernel", "Needs", "NumpyBackend", "get", "register"]
