"""CuPy's Stream, Event and Graph, over a device that does all work at once."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from minigraph.testing.cuda.device import Capture, CUDARuntimeError, Record, Work, active
from minigraph.testing.cuda.order import Clock


class Stream:
    """A queue of work, as `cupy.cuda.Stream`."""

    def __init__(
        self, null: bool = False, non_blocking: bool = False, ptds: bool = False, priority: int | None = None
    ) -> None:
        self._device = active()
        if ptds or not (null or non_blocking):
            raise NotImplementedError("the stand-in has non-blocking streams, and the default one")
        self.ptr = 0 if null else self._device.number()
        self.is_non_blocking = non_blocking
        self.priority = priority or 0

    def __enter__(self) -> Stream:
        self._device.current.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._device.current.pop()

    def use(self) -> Stream:
        """Make it the current stream."""
        self._device.current[-1:] = [self]
        return self

    @property
    def done(self) -> bool:
        """Whether all its work is done, which it always is: but to ask is to wait."""
        self._finish("stream.done")
        return True

    def synchronize(self) -> None:
        """Wait until all its work is done."""
        self._finish("stream")

    def _finish(self, name: str) -> None:
        device = self._device
        device.forbid("waiting for a stream")
        device.log.append(Record("synchronize", name, self.ptr))
        device.finish(device.order.now(self.ptr))

    def record(self, event: Event | None = None) -> Event:
        """Record an event: it stands for all work up to here."""
        event = Event() if event is None else event
        event._record(self)
        return event

    def wait_event(self, event: Event) -> None:
        """Let work from now on come after an event."""
        device, capture = self._device, self._device.capture
        if event._capture is not None and event._capture is not capture:
            raise CUDARuntimeError("cudaErrorCapturedEvent: the event belongs to a capture that has ended")
        if event._capture is not None and capture is not None:
            capture.streams.add(self.ptr)
            capture.order.wait(self.ptr, event._clock)
            return
        if capture is not None and self.ptr in capture.streams:
            device.refuse("waiting for an event from outside of the capture", "cudaErrorStreamCaptureIsolation")
        device.order.wait(self.ptr, event._clock)

    def is_capturing(self) -> bool:
        """Tell whether its work is written down."""
        return self._device.capture is not None and self.ptr in self._device.capture.streams

    def begin_capture(self, mode: int | None = None) -> None:
        """Write down, from now on, what it is given."""
        device = self._device
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default stream")
        device.forbid("beginning another capture")
        device.log.append(Record("capture", "begin", self.ptr))
        device.capture = Capture(self.ptr, {self.ptr})

    def end_capture(self) -> Graph:
        """Return as a graph what was written down; a CUDARuntimeError if something was refused or a stream left out."""
        device, capture = self._device, self._device.capture
        if capture is None or capture.origin != self.ptr:
            raise CUDARuntimeError("cudaErrorIllegalState: end of a capture that this stream has not begun")
        device.capture = None
        device.log.append(Record("capture", "end", self.ptr))
        if capture.broken:
            raise CUDARuntimeError(f"cudaErrorStreamCaptureInvalidated: {capture.broken}")
        left = [stream for stream in capture.streams if not capture.order.waited(self.ptr, stream)]
        if left:
            raise CUDARuntimeError(f"cudaErrorStreamCaptureUnjoined: stream {self.ptr} has not waited for {left}")
        return Graph._of(capture.work)


class Event:
    """A mark in a stream, as `cupy.cuda.Event`."""

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        self._device = active()
        self.ptr = self._device.number()
        self._timed = not disable_timing
        self._clock: Clock = {}
        self._capture: Capture | None = None
        self._seconds: float | None = None

    def record(self, stream: Stream | None = None) -> None:
        """Stand for all work that a stream has been given up to here."""
        self._record(get_current_stream() if stream is None else stream)

    def _record(self, stream: Stream) -> None:
        device = self._device
        self._capture = device.capture if stream.is_capturing() else None
        order = device.order if self._capture is None else self._capture.order
        self._clock = order.now(stream.ptr)
        self._seconds = time.perf_counter() if self._capture is None else None

    @property
    def done(self) -> bool:
        """Whether the work is done, which it always is: but to ask is to wait."""
        self._finish("event.done")
        return True

    def synchronize(self) -> None:
        """Wait until the work is done."""
        self._finish("event")

    def _finish(self, name: str) -> None:
        device = self._device
        device.forbid("waiting for an event")
        if self._capture is not None:
            raise CUDARuntimeError("cudaErrorCapturedEvent: the event was recorded while its stream was captured")
        device.log.append(Record("synchronize", name))
        device.finish(self._clock)


class Graph:
    """Work that was captured, as `cupy.cuda.Graph`: made by `Stream.end_capture` alone."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("currently this class cannot be initiated by user code")

    @classmethod
    def _of(cls, work: list[Work]) -> Graph:
        graph = cls.__new__(cls)
        graph._device, graph._work = active(), tuple(work)
        return graph

    _device: Any
    _work: tuple[Work, ...]

    def launch(self, stream: Stream | None = None) -> None:
        """Give a stream all the work again."""
        self._device.replay((get_current_stream() if stream is None else stream).ptr, self._work)

    def upload(self, stream: Stream | None = None) -> None:
        """Bring the graph to the device before its first launch."""
        self._device.forbid("uploading a graph")


def get_current_stream(device_id: int = -1) -> Stream:
    """Return the stream that work goes to where none is named."""
    device = active()
    if not device.current:
        device.current.append(Stream(null=True))
    stream: Stream = device.current[-1]
    return stream


def get_elapsed_time(start_event: Event, end_event: Event) -> float:
    """Return the milliseconds between two events."""
    if not (start_event._timed and end_event._timed) or start_event._seconds is None or end_event._seconds is None:
        raise CUDARuntimeError("cudaErrorInvalidResourceHandle: both events must be timed, and recorded")
    return (end_event._seconds - start_event._seconds) * 1e3
