"""One step of a plan as work for a GPU: kernels to launch, and calls of libraries, over addresses that come later.

`code_of(node)` knows all but the addresses: whether there is code at all, the workspace it needs, and what it launches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from minigraph.backends.cupy.gpu import Gpu

# Threads of a block where nothing asks for more or fewer, and the most blocks of a kernel whose threads loop.
THREADS = 256
MOST_BLOCKS = 132 * 8  # as many as an H200 runs at a time; more would wait for each other
# Bytes that addresses of arrays, and parts of a workspace, are multiples of: what cuDNN and 16-byte loads ask for.
ALIGNMENT = 256
# The place of a parameter that is the program's status word: kernels put there, by atomicMax, what they find wrong.
STATUS = -2
# The place of memory of a step's own, which launches that are done `once` have filled before the first run.
PREPARED = -3


@dataclass(frozen=True)
class Parameter:
    """A kernel's pointer: how it is declared, and which array it is.

    place: counts the step's operands, then its results; −1 is the workspace, others are named above. offset: bytes from
    its beginning.
    """

    declaration: str  # "const float* x"
    place: int
    offset: int = 0


@dataclass(frozen=True)
class Launch:
    """A kernel: the statements that each thread runs over its parameters. Sizes are written into the statements.

    name: what profiles call it. headers: files of the kernels' folder that the statements use. elements: of a loop that
    runs over one long row of any length: its statements know `elements`, and where in it a thread has to `begin` and by
    which `stride` it goes on; several such launches may become one. once: it depends on constants alone, and writes to
    PREPARED: it runs when the program is made.
    """

    name: str
    parameters: tuple[Parameter, ...]
    statements: tuple[str, ...]
    blocks: int
    threads: int = THREADS
    headers: tuple[str, ...] = ()
    elements: int | None = None
    once: bool = False


class Call(Protocol):
    """What a library does: bound to the addresses of a step's arrays, it is a callable that enqueues the work.

    It is called on the program's stream, again and again, and while a graph is captured: it allocates nothing then.
    """

    @property
    def name(self) -> str:
        """What profiles call it."""

    def bind(self, gpu: Gpu, addresses: Sequence[int]) -> Callable[[], object]:
        """Return the callable; addresses are of operands and results, of PREPARED memory, STATUS, and the workspace."""


Action: TypeAlias = Launch | Call


@dataclass(frozen=True)
class StepCode:
    """What a node is on the GPU: actions in order, bytes of workspace, and operands whose memory a result may take.

    prepared: bytes of memory of its own.
    """

    actions: tuple[Action, ...]
    workspace: int = 0
    overwritable: tuple[int, ...] = ()
    prepared: int = 0


def blocks_for(elements: int, each: int = 1, threads: int = THREADS) -> int:
    """Return how many blocks a loop over elements is spread over, `each` of them a thread.

    >>> blocks_for(1000), blocks_for(1 << 30)
    (4, 1056)
    """
    return max(1, min(MOST_BLOCKS, -(-elements // (threads * each))))


def aligned(nbytes: int) -> int:
    """Return a number of bytes rounded up to what a part of a workspace begins at.

    >>> aligned(1), aligned(512)
    (256, 512)
    """
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
