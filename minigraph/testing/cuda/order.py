"""Which work on a device comes before which: clocks of streams, and bytes that two streams touch out of order.

A stream's clock counts its own work, and says up to which work of each other stream it has waited (Lamport 1978;
Fidge 1988). Work that touches bytes which another stream has written, or writes bytes which another has touched, must
have waited for that.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

Clock = dict[int, int]  # stream → how much of its work


class Span(NamedTuple):
    """Bytes of memory from `begin` to before `end`, and whether they are written."""

    begin: int
    end: int
    written: bool

    def conflicts(self, other: Span) -> bool:
        """Tell whether the order of two pieces of work matters, for what they touch."""
        return (self.written or other.written) and self.begin < other.end and other.begin < self.end


class Race(NamedTuple):
    """Bytes that two streams touch, and neither has waited for the other."""

    span: Span
    stream: int
    name: str


class Order:
    """The clocks of streams and of the host, and what each stream has touched that the host has not waited for.

    >>> order = Order()
    >>> order.add(1, "copy", [Span(0, 64, True)])
    >>> order.add(2, "kernel", [Span(32, 33, False)])
    Race(span=Span(begin=0, end=64, written=True), stream=1, name='copy')
    >>> order.wait(2, order.now(1))
    >>> order.add(2, "kernel", [Span(32, 33, False)])
    """

    def __init__(self) -> None:
        self._clocks: defaultdict[int, Clock] = defaultdict(dict)
        self._host: Clock = {}
        self._touched: defaultdict[int, dict[Span, tuple[int, str]]] = defaultdict(dict)

    def add(self, stream: int, name: str, spans: Iterable[Span]) -> Race | None:
        """Add work at a stream's end, and return what it does out of order, if anything."""
        clock = self._clocks[stream]
        _advance(clock, self._host)
        clock[stream] = clock.get(stream, 0) + 1
        spans = tuple(spans)
        race = self._race(stream, clock, spans)
        self._touched[stream].update((span, (clock[stream], name)) for span in spans)
        return race

    def _race(self, stream: int, clock: Clock, spans: tuple[Span, ...]) -> Race | None:
        for other, touched in self._touched.items():
            known = clock.get(other, 0)
            if other == stream or known >= self.count(other):
                continue
            unknown = [(span, name) for span, (count, name) in touched.items() if count > known]
            for span, name in unknown:
                if any(span.conflicts(own) for own in spans):
                    return Race(span, other, name)
        return None

    def now(self, stream: int) -> Clock:
        """Return what an event recorded now stands for: all of the stream's work, and what that has waited for."""
        return dict(self._clocks[stream])

    def wait(self, stream: int, clock: Mapping[int, int]) -> None:
        """Let what is added to a stream from now on come after an event."""
        _advance(self._clocks[stream], clock)

    def count(self, stream: int) -> int:
        """Return how much work a stream has been given."""
        return self._clocks[stream].get(stream, 0)

    def finish(self, clock: Mapping[int, int]) -> None:
        """Let the host wait for an event: what any stream is given from now on comes after it."""
        _advance(self._host, clock)
        for stream, touched in self._touched.items():
            done = self._host.get(stream, 0)
            self._touched[stream] = {span: mark for span, mark in touched.items() if mark[0] > done}

    def all(self) -> Clock:
        """Return what stands for the work of all streams."""
        return {stream: clock.get(stream, 0) for stream, clock in self._clocks.items()}

    def waited(self, stream: int, other: int) -> bool:
        """Tell whether a stream has waited for all work of another."""
        return self._clocks[stream].get(other, 0) >= self.count(other)

    def forget(self, begin: int, end: int) -> None:
        """Forget what was done to memory that is freed: its addresses may come back as other memory."""
        freed = Span(begin, end, True)
        for stream, touched in self._touched.items():
            self._touched[stream] = {span: mark for span, mark in touched.items() if not span.conflicts(freed)}


def _advance(clock: Clock, other: Mapping[int, int]) -> None:
    for stream, count in other.items():
        if count > clock.get(stream, 0):
            clock[stream] = count
