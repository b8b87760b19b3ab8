"""Streams, events, graphs and memory on a device that is the processor: what runs when, and what is refused."""

from __future__ import annotations

import gc
import importlib
import sys

import numpy as np
import pytest

from minigraph.testing import cuda
from minigraph.testing.cuda import packages

pytestmark = pytest.mark.skipif(not cuda.available(), reason="no C++ compiler")

KERNELS = r"""
extern "C" __global__ void increase(const float* x, float* y, float by) { y[threadIdx.x] = x[threadIdx.x] + by; }
extern "C" __global__ void unused() {}
"""
N = 4


class Machine:
    """A device with a stream, another one, and arrays of four numbers."""

    def __init__(self, device) -> None:
        self.device = device
        self.cupy = importlib.import_module("cupy")
        self.runtime = self.cupy.cuda.runtime
        self.stream, self.other = (self.cupy.cuda.Stream(non_blocking=True) for _ in range(2))
        self.x, self.y, self.z = (self.array() for _ in range(3))
        self.module = self.cupy.RawModule(code=KERNELS)
        self.kernel = self.module.get_function("increase")
        self.host = importlib.import_module("cupyx").empty_pinned((N,), np.float32)
        self.host[:] = range(N)
        self.handle = self.cupy.cuda.device.get_cublas_handle()
        device.log.clear()

    def array(self):
        return self.cupy.ndarray((N,), np.float32, memptr=self.cupy.cuda.alloc(4 * N))

    def event(self):
        return self.cupy.cuda.Event(disable_timing=True)

    def upload(self, target, stream=None):
        self.copy(target.data.ptr, self.host.ctypes.data, 1, stream)

    def copy(self, target, source, kind, stream=None):
        self.runtime.memcpyAsync(target, source, 4 * N, kind, (stream or self.stream).ptr)

    def increase(self, x, y, by=1.0, stream=None):
        with stream or self.stream:
            self.kernel((1,), (N,), (x.data.ptr, y.data.ptr, np.float32(by)))

    def values(self, array, stream=None):
        return array.get(stream=stream or self.stream).tolist()

    def kinds(self, how=None):
        return [r.kind for r in self.device.log if how is None or r.how == how]


@pytest.fixture
def machine():
    with cuda.standin() as device:
        yield Machine(device)


@pytest.fixture
def lazy():
    with cuda.standin(lazy=True) as device:
        yield Machine(device)


def test_work_runs_at_once_and_is_logged(machine):
    machine.upload(machine.x)
    machine.increase(machine.x, machine.y, 0.5)
    machine.runtime.memsetAsync(machine.x.data.ptr, 0, 8, machine.stream.ptr)
    assert machine.values(machine.y) == [0.5, 1.5, 2.5, 3.5]
    assert machine.values(machine.x) == [0, 0, 2, 3]
    stream = machine.stream.ptr
    assert machine.device.log[:3] == [
        cuda.Record("copy", "host to device", stream, nbytes=16),
        cuda.Record("kernel", "increase", stream, (1,), (N,)),
        cuda.Record("memset", "0", stream, nbytes=8),
    ]
    assert machine.kinds()[3:] == ["copy", "synchronize"] * 2
    assert machine.device.launches == 1


def test_new_memory_holds_no_numbers(machine):
    assert np.isnan(machine.x.get(stream=machine.stream)).all()


def test_a_captured_graph_runs_when_it_is_launched_and_again(machine):
    machine.upload(machine.x)
    machine.stream.begin_capture()
    assert machine.stream.is_capturing() and not machine.other.is_capturing()
    machine.increase(machine.x, machine.x, 1)
    machine.copy(machine.y.data.ptr, machine.x.data.ptr, 3)
    graph = machine.stream.end_capture()
    assert not machine.stream.is_capturing()
    assert machine.values(machine.x) == [0, 1, 2, 3] and machine.device.launches == 0
    graph.upload(machine.stream)
    with machine.stream:
        graph.launch()
        graph.launch(machine.stream)
    assert machine.values(machine.y) == [2, 3, 4, 5] and machine.device.launches == 2
    assert machine.kinds("captured") == ["kernel", "copy"]
    assert machine.kinds("replayed") == ["kernel", "copy"] * 2
    assert [r.kind for r in machine.device.log].count("graph") == 2


def test_arguments_are_those_of_the_capture(machine):
    """Numbers that a kernel is given by value stay as they were; memory is read when the graph runs."""
    by, factor = np.float32([1]), np.float32([2, 0])
    cublas = importlib.import_module("cupy_backends.cuda.libs.cublas")
    cublas.setStream(machine.handle, machine.stream.ptr)
    machine.upload(machine.x)
    with machine.stream:
        machine.stream.begin_capture()
        machine.kernel((1,), (N,), (machine.x.data.ptr, machine.y.data.ptr, by[0]))
        address = factor.ctypes.data
        cublas.gemmEx(
            machine.handle, 0, 0, 2, 2, 2, address, machine.y.data.ptr, 0, 2, machine.y.data.ptr, 0, 2, address + 4,
            machine.z.data.ptr, 0, 2, 68, -1,
        )  # fmt: skip
        graph = machine.stream.end_capture()
        by[0], factor[0] = 100, 100
        graph.launch()
    y = np.arange(1, 5).reshape(2, 2)
    assert machine.values(machine.z) == (2 * y @ y).reshape(-1).tolist()


# What must not be done while a stream is captured: name → (what does it, what the message says).
REFUSED = {
    "alloc": (lambda m: m.cupy.cuda.alloc(8), "allocating memory"),
    "pinned": (lambda m: importlib.import_module("cupyx").empty_pinned((2,)), "allocating memory"),
    "array": (lambda m: m.array(), "allocating memory"),
    "compile": (lambda m: m.cupy.RawModule(code=KERNELS).get_function("increase"), "compiling a module"),
    "load": (lambda m: m.module.get_function("unused"), "loading a kernel"),
    "synchronize": (lambda m: m.stream.synchronize(), "waiting for a stream"),
    "other.synchronize": (lambda m: m.other.synchronize(), "waiting for a stream"),
    "stream.done": (lambda m: m.stream.done, "waiting for a stream"),
    "event": (lambda m: m.event().synchronize(), "waiting for an event"),
    "event.done": (lambda m: m.event().done, "waiting for an event"),
    "device": (lambda m: m.cupy.cuda.Device().synchronize(), "waiting for the device"),
    "get": (lambda m: m.values(m.x), "copying an array to the host"),
    "set": (lambda m: m.x.set(np.zeros(N, np.float32)), "copying an array from the host"),
    "from unpinned": (lambda m: m.copy(m.x.data.ptr, np.zeros(N).ctypes.data, 1), "not pinned"),
    "to unpinned": (lambda m: m.copy(np.zeros(N).ctypes.data, m.x.data.ptr, 2), "not pinned"),
    "handle": (lambda m: importlib.import_module("cupy_backends.cuda.libs.cublas").create(), "a handle of cublas"),
    "own handle": (lambda m: m.device.make_handle("cudnn"), "a handle of cudnn"),
    "other stream": (lambda m: m.increase(m.y, m.z, stream=m.other), "increase on stream .* has not joined"),
    "default stream": (lambda m: m.kernel((1,), (N,), (m.y.data.ptr, m.z.data.ptr, np.float32(1))), "stream 0, which"),
    "another capture": (lambda m: m.other.begin_capture(), "beginning another capture"),
    "outer event": (lambda m: m.stream.wait_event(m.outer), "an event from outside"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_during_a_capture(machine, name):
    act, message = REFUSED[name]
    machine.outer = machine.other.record()
    act_before = name not in ("other stream", "outer event", "default stream", "load", "another capture")
    if act_before:
        act(machine)  # it is only refused during a capture
    machine.stream.begin_capture()
    machine.increase(machine.x, machine.y)
    with pytest.raises(RuntimeError, match=f"cudaErrorStreamCapture.*{message}.*while a stream is captured"):
        act(machine)
    with pytest.raises(RuntimeError, match=f"cudaErrorStreamCaptureInvalidated: .*{message}"):
        machine.stream.end_capture()
    machine.stream.synchronize()  # and the device is as before


def test_copies_of_pinned_memory_are_captured(machine):
    machine.stream.begin_capture()
    machine.upload(machine.x)
    machine.copy(machine.host.ctypes.data, machine.x.data.ptr, 2)
    graph = machine.stream.end_capture()
    machine.host[:] = 7
    graph.launch(machine.stream)
    assert machine.values(machine.x) == [7] * 4


def test_another_stream_joins_a_capture_by_events(machine):
    machine.upload(machine.x)
    machine.stream.begin_capture()
    machine.other.wait_event(machine.stream.record())
    assert machine.other.is_capturing()
    machine.increase(machine.x, machine.y, stream=machine.other)
    machine.stream.wait_event(machine.other.record())
    machine.increase(machine.y, machine.z)
    graph = machine.stream.end_capture()
    graph.launch(machine.stream)
    assert machine.values(machine.z) == [2, 3, 4, 5]


def test_a_stream_that_is_not_joined_again_leaves_no_graph(machine):
    machine.stream.begin_capture()
    machine.other.wait_event(machine.stream.record())
    machine.increase(machine.x, machine.y, stream=machine.other)
    with pytest.raises(RuntimeError, match="cudaErrorStreamCaptureUnjoined"):
        machine.stream.end_capture()


def test_a_race_within_a_graph(machine):
    machine.stream.begin_capture()
    machine.other.wait_event(machine.stream.record())
    machine.increase(machine.x, machine.y, stream=machine.other)
    with pytest.raises(
        RuntimeError, match=r"race: kernel increase on stream \d+ touches bytes that increase on stream"
    ):
        machine.increase(machine.y, machine.z)
    with pytest.raises(RuntimeError, match="Invalidated"):
        machine.stream.end_capture()


def test_events_of_a_capture_are_no_events_outside(machine):
    machine.stream.begin_capture()
    event = machine.stream.record()
    machine.stream.end_capture()
    with pytest.raises(RuntimeError, match="cudaErrorCapturedEvent"):
        event.synchronize()
    with pytest.raises(RuntimeError, match="cudaErrorCapturedEvent"):
        machine.other.wait_event(event)
    event.record(machine.stream)
    event.synchronize()


def test_only_the_stream_that_began_a_capture_ends_it(machine):
    with pytest.raises(RuntimeError, match="has not begun"):
        machine.stream.end_capture()
    with pytest.raises(RuntimeError, match="default stream"):
        machine.cupy.cuda.get_current_stream().begin_capture()
    with pytest.raises(RuntimeError, match="cannot be initiated"):
        machine.cupy.cuda.Graph()


# Two pieces of work on two streams → whether their order matters.
PAIRS = {
    "written, then read": (lambda m, s: m.upload(m.x, s), lambda m, s: m.increase(m.x, m.y, stream=s), True),
    "read, then written": (lambda m, s: m.increase(m.x, m.y, stream=s), lambda m, s: m.upload(m.x, s), True),
    "written by both": (lambda m, s: m.upload(m.x, s), lambda m, s: m.increase(m.z, m.x, stream=s), True),
    "read back": (lambda m, s: m.increase(m.x, m.y, stream=s), lambda m, s: m.values(m.y, s), True),
    "pinned memory": (
        lambda m, s: m.upload(m.x, s), lambda m, s: m.copy(m.host.ctypes.data, m.y.data.ptr, 2, s), True,
    ),
    "read by both": (lambda m, s: m.increase(m.x, m.y, stream=s), lambda m, s: m.increase(m.x, m.z, stream=s), False),
    "apart": (lambda m, s: m.upload(m.x, s), lambda m, s: m.increase(m.y, m.z, stream=s), False),
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_work_of_two_streams_needs_an_order(machine, name):
    first, second, matters = PAIRS[name]
    first(machine, machine.stream)
    if not matters:
        second(machine, machine.other)
        return
    with pytest.raises(RuntimeError, match=r"race: .* has not waited for it"):
        second(machine, machine.other)


@pytest.mark.parametrize("wait", ["event", "host's event", "stream", "device", "query", "third"])
@pytest.mark.parametrize("name", [name for name, (*_, matters) in PAIRS.items() if matters])
def test_an_event_or_a_wait_gives_an_order(machine, name, wait):
    first, second, _ = PAIRS[name]
    first(machine, machine.stream)
    event = machine.stream.record(machine.event())
    if wait == "event":
        machine.other.wait_event(event)
    elif wait == "host's event":
        event.synchronize()
    elif wait == "stream":
        machine.stream.synchronize()
    elif wait == "device":
        machine.cupy.cuda.Device().synchronize()
    elif wait == "query":
        assert machine.stream.done and event.done
    else:  # what a third stream has waited for, it hands on
        third = machine.cupy.cuda.Stream(non_blocking=True)
        third.wait_event(event)
        machine.other.wait_event(third.record())
    second(machine, machine.other)


def test_an_event_stands_for_what_came_before_it_alone(machine):
    event = machine.stream.record()
    machine.upload(machine.x)
    machine.other.wait_event(event)
    with pytest.raises(RuntimeError, match="race"):
        machine.increase(machine.x, machine.y, stream=machine.other)


def test_a_graph_is_in_order_with_other_streams_too(machine):
    machine.stream.begin_capture()
    machine.increase(machine.x, machine.y)
    graph = machine.stream.end_capture()
    machine.upload(machine.x, machine.other)
    with pytest.raises(RuntimeError, match="race: graph"):
        graph.launch(machine.stream)
    machine.stream.wait_event(machine.other.record())
    graph.launch(machine.stream)


def test_memory_that_is_freed_is_no_longer_the_devices(machine):
    used = machine.cupy.get_default_memory_pool().used_bytes()
    array = machine.array()
    address = array.data.ptr
    machine.stream.begin_capture()
    machine.increase(machine.x, array)
    graph = machine.stream.end_capture()
    graph.launch(machine.stream)
    assert machine.cupy.get_default_memory_pool().used_bytes() == used + 4 * N
    part = array[1:3]
    del array
    gc.collect()
    graph.launch(machine.stream)  # a part of it is still in use
    del part
    gc.collect()
    assert machine.cupy.get_default_memory_pool().used_bytes() == used
    with pytest.raises(RuntimeError, match=f"kernel increase: bytes {address:#x} .* not in device memory"):
        graph.launch(machine.stream)


def test_pinned_memory_lives_as_long_as_its_views(machine):
    empty_pinned = importlib.import_module("cupyx").empty_pinned
    view = empty_pinned((2, 3), np.int16).reshape(-1)[1:]
    view[:] = 5
    gc.collect()
    assert machine.device.memory.find(view.ctypes.data).pinned
    address = view.ctypes.data
    del view
    gc.collect()
    assert machine.device.memory.find(address) is None


@pytest.mark.parametrize(
    ("kind", "target", "source"),
    [(1, "x", "y"), (1, "host", "x"), (2, "x", "host"), (3, "host", "x"), (0, "host", "host")],
)
def test_a_copys_addresses_are_what_its_kind_says(machine, kind, target, source):
    place = {"x": machine.x.data.ptr, "y": machine.y.data.ptr, "host": machine.host.ctypes.data}
    with pytest.raises(RuntimeError, match="cudaErrorInvalidValue: a copy of kind"):
        machine.copy(place[target], place[source], kind)


def test_copies_of_the_default_kind_go_by_addresses(machine):
    x, y, host = machine.x.data.ptr, machine.y.data.ptr, machine.host.ctypes.data
    for target, source in ((x, host), (y, x), (host, y)):
        machine.copy(target, source, machine.runtime.memcpyDefault)
    names = [r.name for r in machine.device.log]
    assert names == ["host to device", "device to device", "device to host"]


def test_a_copy_beyond_an_array_is_refused(machine):
    with pytest.raises(RuntimeError, match="IllegalAddress: copy host to device"):
        machine.runtime.memcpyAsync(machine.x.data.ptr + 4, machine.host.ctypes.data, 16, 1, machine.stream.ptr)
    with pytest.raises(RuntimeError, match="IllegalAddress: memset"):
        machine.runtime.memsetAsync(machine.x.data.ptr, 0, 17, machine.stream.ptr)


def test_arrays(machine):
    array = machine.cupy.ndarray((6,), np.int32, memptr=machine.cupy.cuda.alloc(64) + 16)
    array.set(np.arange(6, dtype=np.int32))
    shaped = array.reshape(2, 3)
    assert (shaped.shape, shaped.ndim, shaped.size, shaped.nbytes, shaped.dtype) == ((2, 3), 2, 6, 24, np.int32)
    assert shaped.data.ptr == array.data.ptr and array.data.mem.size == 64
    assert array.reshape((3, -1)).get().tolist() == [[0, 1], [2, 3], [4, 5]]
    assert array[2:4].get().tolist() == [2, 3] and array[4:2].size == 0
    empty = array[6:].reshape(0, 2)
    assert empty.get().shape == (0, 2) and importlib.import_module("cupyx").empty_pinned((0, 2)).size == 0
    assert shaped[1:].get().tolist() == [[3, 4, 5]]
    with pytest.raises(ValueError, match="reshape"):
        array.reshape(4, -1)
    with pytest.raises(TypeError, match="an array of int32"):
        array.set(np.zeros(6))
    with pytest.raises(ValueError, match=r"of shape \(6,\)"):
        array.set(np.zeros(5, np.int32))
    with pytest.raises(TypeError, match="Implicit conversion"):
        np.asarray(array)


def test_a_copy_to_the_host_into_given_memory(machine):
    out = importlib.import_module("cupyx").empty_pinned((N,), np.float32)
    machine.upload(machine.x)
    assert machine.x.get(stream=machine.stream, out=out, blocking=False) is out
    machine.stream.synchronize()
    assert out.tolist() == [0, 1, 2, 3]


def test_events_that_time(machine):
    begin, end = machine.cupy.cuda.Event(), machine.cupy.cuda.Event()
    begin.record(machine.stream)
    machine.increase(machine.x, machine.y)
    end.record(machine.stream)
    end.synchronize()
    assert machine.cupy.cuda.get_elapsed_time(begin, end) > 0
    with pytest.raises(RuntimeError, match="both events must be timed, and recorded"):
        machine.cupy.cuda.get_elapsed_time(begin, machine.stream.record(machine.event()))
    with pytest.raises(RuntimeError, match="both events must be timed, and recorded"):
        machine.cupy.cuda.get_elapsed_time(begin, machine.cupy.cuda.Event())


def test_the_current_stream(machine):
    current = machine.cupy.cuda.get_current_stream
    assert current().ptr == 0
    with machine.stream, machine.other:
        assert current() is machine.other
    assert current().ptr == 0
    assert machine.other.use() is current()


def test_lazy_work_waits_for_the_host(lazy):
    lazy.upload(lazy.x)
    lazy.increase(lazy.x, lazy.y)
    assert lazy.device.launches == 0 and lazy.kinds() == []
    event = lazy.stream.record()
    lazy.increase(lazy.x, lazy.z)
    event.synchronize()
    assert lazy.device.launches == 1
    assert lazy.values(lazy.y) == [1, 2, 3, 4] and lazy.device.launches == 2


def test_lazy_copies_read_pinned_memory_late_and_other_memory_at_once(lazy):
    lazy.upload(lazy.x)
    plain = np.float32([1, 2, 3, 4])
    lazy.copy(lazy.y.data.ptr, plain.ctypes.data, 1)
    lazy.host[:], plain[:] = 9, 9
    assert lazy.values(lazy.x) == [9] * 4
    assert lazy.values(lazy.y) == [1, 2, 3, 4]


def test_lazy_copies_to_memory_that_is_not_pinned_are_done_at_once(lazy):
    lazy.upload(lazy.x)
    plain = np.zeros(N, np.float32)
    lazy.copy(plain.ctypes.data, lazy.x.data.ptr, 2)
    assert plain.tolist() == [0, 1, 2, 3]


def test_lazy_results_are_not_there_before_a_wait(lazy):
    lazy.host[:] = -1
    lazy.runtime.memsetAsync(lazy.x.data.ptr, 0, 16, lazy.stream.ptr)
    lazy.copy(lazy.host.ctypes.data, lazy.x.data.ptr, 2)
    assert (lazy.host == -1).all()
    lazy.stream.synchronize()
    assert (lazy.host == 0).all()


def test_lazy_work_over_memory_that_is_gone(lazy):
    host = importlib.import_module("cupyx").empty_pinned((N,), np.float32)
    lazy.copy(lazy.x.data.ptr, host.ctypes.data, 1)
    del host
    with pytest.raises(RuntimeError, match="not in device memory"):
        lazy.stream.synchronize()


def test_modules_come_and_go():
    names = ("cupy", "cupy.cuda", "cupyx", "cupy_backends.cuda.libs.cublas", "cudnn")
    before = {name: sys.modules.get(name) for name in names}
    with cuda.standin(frontend=False) as device:
        assert cuda.active() is device
        cupy = importlib.import_module("cupy")
        assert cupy.cuda.is_available() and cupy.cuda.runtime.getDeviceCount() == 1
        assert importlib.import_module("cupy_backends.cuda.libs.cublas").CUBLAS_OP_T == 1
        with pytest.raises(ImportError):
            importlib.import_module("cudnn")
        with cuda.standin() as inner:
            assert cuda.active() is inner
            assert importlib.import_module("cupy") is not cupy
        assert importlib.import_module("cupy") is cupy
    assert {name: sys.modules.get(name) for name in names} == before
    with pytest.raises(RuntimeError, match="enter minigraph"):
        cuda.active()


def test_the_frontend_is_a_module_of_the_stand_ins(monkeypatch):
    """Where there is a stand-in of cuDNN's frontend it is `cudnn`; where there is none, nothing is."""
    monkeypatch.setattr(packages, "_FRONTEND", "minigraph.testing.cuda.blas")
    with cuda.standin():
        assert importlib.import_module("cudnn").__name__ == "minigraph.testing.cuda.blas"
    with cuda.standin(frontend=False), pytest.raises(ImportError):
        importlib.import_module("cudnn")
