"""A CUDA device on the processor: what a GPU program does, checked where there is no GPU.

`standin()` puts modules in place of CuPy and cuDNN's frontend that run kernels thread by thread, library calls by
NumPy, and streams at once, log everything, and refuse what a device would.
"""

from minigraph.testing.cuda.device import CUDARuntimeError, Device, Record, active
from minigraph.testing.cuda.modules import available, host_text
from minigraph.testing.cuda.packages import standin

__all__ = ["CUDARuntimeError", "Device", "Record", "active", "available", "host_text", "standin"]
