"""How ops are computed: `base` is the protocol; `numpy` the reference and the default; `c` the fastest."""

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


register("numpy", NumpyBackend)
register("c", _c)

__all__ = ["Backend", "Kernel", "Needs", "NumpyBackend", "get", "register"]
