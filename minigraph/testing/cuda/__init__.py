"""A CUDA device on the processor: what a GPU program does, checked where there is no GPU.

`standin()` puts modules in place of CuPy and cuDNN's frontend: kernels run thread by thread, library calls by NumPy,
streams at once; all is logged, and what a strict device would not do is refused.

What is found: barriers that not all threads reach, shared memory read before it is written (all its bits are ones, as
are new memory's), arrays of a kernel's own indexed beyond their ends, addresses that are not aligned, integers divided
by 0; writes within 256 bytes before or behind an allocation; arguments of other types than a kernel's; whatever
allocates, waits or compiles during a capture, or runs on a stream outside of it; and work of two streams on the same
bytes without an event or a wait between them. `backwards` and `lazy` show what depends on the order of threads, and on
work being done early.

What is not: a kernel's accesses within one allocation that are not its own, and its races with other streams but at the
very addresses it is given; what the host does to memory while a copy is under way, unless `lazy` shows it; speed.
"""

from minigraph.testing.cuda.device import CUDARuntimeError, Device, Record, active
from minigraph.testing.cuda.modules import available, host_text
from minigraph.testing.cuda.packages import standin

__all__ = ["CUDARuntimeError", "Device", "Record", "active", "available", "host_text", "standin"]
