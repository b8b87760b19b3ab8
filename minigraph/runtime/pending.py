"""Results that are on their way: a device computes while the host goes on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


class Pending:
    """The outputs of a step that was submitted."""

    __slots__ = ("_names", "_results", "_wait")

    def __init__(self, names: Sequence[str], wait: Callable[[], list[Any]]) -> None:
        self._names = names
        self._wait: Callable[[], list[Any]] | None = wait
        self._results: dict[str, Any] = {}

    def result(self) -> dict[str, Any]:
        """Return the outputs by name once they are there; a ProgramError if the device has met an error.

        >>> Pending(["loss"], lambda: [0.5]).result()
        {'loss': 0.5}
        """
        if self._wait is not None:
            self._results = dict(zip(self._names, self._wait(), strict=True))
            self._wait = None
        return self._results


def later(submitted: Iterable[T], ahead: int) -> Iterator[T]:
    """Yield in order what is submitted, each when `ahead` more have been.

    >>> [f"{i} is waited for" for i in later((print(f"{i} is submitted") or i for i in range(3)), ahead=1)]
    0 is submitted
    1 is submitted
    2 is submitted
    ['0 is waited for', '1 is waited for', '2 is waited for']
    """
    waiting: deque[T] = deque()
    for each in submitted:
        waiting.append(each)
        if len(waiting) > ahead:
            yield waiting.popleft()
    yield from waiting
