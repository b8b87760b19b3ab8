"""How ops are computed: `base` is the protocol; `numpy` the reference and the default."""

from minigraph.backends.base import Backend, Kernel, Needs, get, register
from minigraph.backends.numpy import NumpyBackend

register("numpy", NumpyBackend)

__all__ = ["Backend", "Kernel", "Needs", "NumpyBackend", "get", "register"]
