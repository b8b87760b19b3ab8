"""cuDNN's plans on the GPU backend: which are allowed, which is chosen, where they are kept; and the stand-in."""

from __future__ import annotations

import inspect
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import pytest

from backends.cupy_convolutions import (
    KINDS,
    Case,
    convolution,
    device,
    fused,
    names,
    needs_compiler,
    own_plans,
    results,
)
from minigraph.backends.cupy import plans as plans_module
from minigraph.backends.cupy.convolution import convolution_code
from minigraph.backends.cupy.epilogue import Epilogue
from minigraph.backends.cupy.gpu import Gpu
from minigraph.backends.cupy.graphs import IMAGES, KERNEL, OUTPUTS, Request, graph_of, propose
from minigraph.backends.cupy.plans import Store, plans_of
from minigraph.backends.geometry import Geometry
from minigraph.errors import ProgramError
from minigraph.ops.conv import Conv2D, Conv2DTranspose
from minigraph.testing.cuda import CUDARuntimeError, frontend
from minigraph.testing.cuda.graphs import FakePlan, numerical_note

__all__ = ["own_plans"]  # a fixture that every test here has
CORES, ATOMICS = numerical_note.TENSOR_CORE, numerical_note.NONDETERMINISTIC


@pytest.fixture
def propose_plans(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what lets the library propose these plans."""
    return lambda *found: monkeypatch.setattr(frontend, "PLANS", list(found))


def dense(kind: Any = Conv2D, dtype: str = "float32") -> Case:
    return convolution(kind, (2, 6, 6, 4), 8, (3, 3), dtype, padding="same")


def chosen(case: Case, gpu: Gpu) -> str:
    """Return the name of the plan that a convolution runs by."""
    (call,) = (a for a in case.code(gpu)[0] if hasattr(a, "plan"))
    graph = call.plan.graph
    return str(graph.get_plan_name_at_index(graph._selected))


def made(log: Any) -> int:
    """Return how many plans were measured: each runs once, and three times on the clock."""
    return sum(r.kind == "library" for r in log.log) // 4


# --- which plans are allowed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "dtype", "expected"),
    [
        ({}, "float32", "atomics"),
        ({"precision": "tf32"}, "float32", "cores"),
        ({}, "float16", "cores"),
        ({"deterministic": True}, "float32", "plain"),
        ({"deterministic": True}, "bfloat16", "cores"),
        ({"deterministic": True, "precision": "tf32"}, "float32", "cores"),
        ({"workspace": 500}, "bfloat16", "plain"),
    ],
)
def test_plans_are_struck_out_by_their_notes_and_workspace(
    options: dict[str, Any], dtype: str, expected: str, propose_plans: Any
) -> None:
    propose_plans(
        FakePlan("reduced", frozenset({numerical_note.REDUCED_PRECISION_REDUCTION})),
        FakePlan("broken", builds=False),
        FakePlan("cores", frozenset({CORES}), workspace=4096),
        FakePlan("atomics", frozenset({ATOMICS}), workspace=512),
        FakePlan("plain", workspace=256),
    )
    with device(**options) as (gpu, _):
        assert chosen(dense(dtype=dtype), gpu) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_where_only_determinism_leaves_no_plan_the_op_is_refused_by_name(kind: Any, propose_plans: Any) -> None:
    propose_plans(FakePlan("atomics", frozenset({ATOMICS})))
    case = dense(kind)
    with device(deterministic=True) as (gpu, _):
        with pytest.raises(ProgramError, match=f"no deterministic plan for {case.node.op.name}") as caught:
            case.code(gpu)
        assert case.node.origin.where in str(caught.value)
        pointwise = convolution(kind, (2, 6, 6, 4), 8, (1, 1))  # a matrix product, whose bits are always the same
        assert names(pointwise, gpu) == ["convolution"]
        assert convolution_code(case.node, (0, 1, 2), Epilogue(relu=True), gpu, 0) is None
    with device() as (gpu, _):
        assert chosen(case, gpu) == "atomics"


def test_what_the_library_refuses_is_a_product(propose_plans: Any) -> None:
    propose_plans(FakePlan("forward", operations=("conv_fprop",), workspace=2000))
    with device() as (gpu, _):
        assert names(dense(), gpu) == ["pack", "conv2d"]
        assert names(dense(Conv2DTranspose), gpu) == ["convolution", "col2im"]
    with device(workspace=1999, deterministic=True) as (gpu, _):
        assert set(names(dense(), gpu)) == {"im2col", "convolution"}


# --- tuning -----------------------------------------------------------------------------------------------------------


def test_the_fastest_plan_is_chosen(propose_plans: Any) -> None:
    propose_plans(
        FakePlan("slow", seconds=0.006), FakePlan("broken", builds=False),
        FakePlan("fast", workspace=1000), FakePlan("middling", seconds=0.003),
    )  # fmt: skip
    with device(tune=True) as (gpu, log):
        assert chosen(dense(), gpu) == "fast"
        assert made(log) == 3
        assert dense().code(gpu)[1] >= 1000
    with device(tune=False) as (gpu, log):
        assert chosen(dense(), gpu) == "slow"
        assert made(log) == 0


def test_only_the_likely_fastest_plans_are_measured(propose_plans: Any) -> None:
    propose_plans(*(FakePlan(f"plan {i}", seconds=0.001) for i in range(8)), FakePlan("unlikely"))
    with device(tune=True) as (gpu, log):
        assert chosen(dense(), gpu) != "unlikely"
        assert made(log) == 8


def test_memory_for_measuring_is_given_back(propose_plans: Any) -> None:
    propose_plans(FakePlan("a", workspace=5000), FakePlan("b", workspace=3000))
    with device(tune=True) as (gpu, log):
        before = log.memory.used()
        dense().code(gpu)
        assert log.memory.used() == before


@needs_compiler
@pytest.mark.parametrize(("kind", "groups"), [*((kind, 1) for kind in KINDS), (Conv2D, 8)])
def test_the_library_computes_what_it_is_faster_at(kind: Any, groups: int, propose_plans: Any) -> None:
    case = convolution(kind, (2, 6, 6, 8), 8, (1, 1) if groups == 1 else (3, 3), groups=groups)
    own = names_of_own(case)
    propose_plans(FakePlan("slow", seconds=0.02))
    with device(tune=True) as (gpu, log):
        assert names(case, gpu) == own
        tuned = len(log.log)
        assert names(case, gpu) == own and len(log.log) == tuned  # it is not measured again
    with device(tune=True) as (gpu, log):
        assert names(case, gpu) == own
        assert not any(r.kind == "library" for r in log.log)  # nor by another program


def names_of_own(case: Case) -> list[str]:
    with device(frontend=False) as (gpu, _):
        return names(case, gpu)


@needs_compiler
def test_the_library_is_taken_where_it_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    case = convolution(Conv2D, (2, 6, 6, 8), 8, (1, 1))
    times = iter([0.002, 0.001])
    monkeypatch.setattr("minigraph.backends.cupy.convolution.seconds", lambda *args: next(times))
    with device(tune=True) as (gpu, _):
        assert names(case, gpu) == ["pack", "conv2d"]
        case.check(results([case], gpu)[0])


# --- where plans are kept ---------------------------------------------------------------------------------------------


def files(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(folder.glob("*.plan"))


def test_plans_are_kept_in_memory() -> None:
    with device() as (gpu, _):
        first, second = (dense().code(gpu)[0][1] for _ in range(2))
        assert first.plan is second.plan
        assert plans_of(gpu) is plans_of(gpu)


def test_plans_are_kept_on_the_disk(own_plans: pathlib.Path, propose_plans: Any) -> None:
    found = FakePlan("slow", seconds=0.002), FakePlan("fast", workspace=700)
    propose_plans(*found)
    with device(tune=True) as (gpu, _):
        assert chosen(dense(), gpu) == "fast"
    assert len(files(own_plans)) == 1
    with device(tune=True) as (gpu, log):
        case = dense()
        assert chosen(case, gpu) == "fast"
        assert made(log) == 0
        code, workspace = case.code(gpu)
        assert workspace == code[1].scratch + 700
        case.check(results([case], gpu)[0])


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "no facts", "other", "unknown"])
def test_damaged_plans_are_made_again(damage: str, own_plans: pathlib.Path, propose_plans: Any) -> None:
    with device() as (gpu, _):
        dense().code(gpu)
    (file,) = files(own_plans)
    whole = file.read_bytes()
    line, _, data = whole.partition(b"\n")
    spoilt = {
        "cut": whole[:-7], "flipped": whole[:-1] + bytes([whole[-1] ^ 1]), "empty": b"", "no facts": b"[1]\n" + data,
        "other": json.dumps({**json.loads(line), "question": "another"}).encode() + b"\n" + data,
    }  # fmt: skip
    if damage == "unknown":  # a plan that this library does not know
        propose_plans(FakePlan("another"))
    else:
        file.write_bytes(spoilt[damage])
    with device() as (gpu, _):
        assert chosen(dense(), gpu) == ("another" if damage == "unknown" else "atomics")
    if damage != "unknown":
        assert file.read_bytes() == whole


def test_plans_of_other_versions_devices_and_requests_are_others(
    own_plans: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(**options: Any) -> int:
        with device(**options) as (gpu, _):
            dense().code(gpu)
        return len(files(own_plans))

    assert [make(), make(), make(precision="tf32"), make(deterministic=True)] == [1, 1, 2, 3]
    assert [make(workspace=1 << 20), make(tune=True)] == [4, 5]
    monkeypatch.setattr(frontend, "backend_version", lambda: 92000)
    assert make() == 6
    monkeypatch.setattr(Gpu, "name", "another device")
    assert make() == 7


def test_a_disk_that_cannot_be_written_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(plans_module, "cache_folder", lambda: tmp_path / "file")
    with device() as (gpu, _):
        assert chosen(dense(), gpu) == "atomics"


def test_a_store_gives_back_what_it_was_given(tmp_path: pathlib.Path) -> None:
    store = Store(tmp_path / "deep" / "folder")
    assert store.read("a") is None
    store.write("a", {"n": 1}, b"x\ny")
    facts, data = store.read("a") or ({}, b"")
    assert (facts["n"], data) == (1, b"x\ny")
    assert store.read("b") is None


# --- the stand-in -----------------------------------------------------------------------------------------------------


def request_of(case: Case, gpu: Gpu) -> Request:
    return Request.of(case.node.op, Geometry.of_node(case.node), case.node.dtype, case.epilogue, gpu)


def planned(gpu: Gpu) -> Any:
    request = request_of(dense(), gpu)
    graph = graph_of(request, gpu.cudnn, handle=gpu.cudnn_handle)
    propose(graph, request, gpu.cudnn)
    return graph


def test_the_standin_wants_every_uid_and_no_other() -> None:
    with device() as (gpu, _):
        graph = planned(gpu)
        graph.build_plan_at_index(2)
        memory = gpu.allocate(1 << 16)
        pack = {uid: int(memory.data.ptr) for uid in (IMAGES, KERNEL, OUTPUTS)}
        for bad in ({k: v for k, v in pack.items() if k != KERNEL}, {**pack, 9: 0}):
            with pytest.raises(RuntimeError, match="Uids"):
                graph.execute(bad, int(memory.data.ptr), handle=gpu.cudnn_handle)


def test_the_standin_fills_the_workspace_and_nothing_behind_it() -> None:
    with device() as (gpu, _):
        graph = planned(gpu)
        graph.build_plan_at_index(2)
        memory, scratch = gpu.allocate(1 << 16), gpu.allocate(2048)
        pack = {uid: int(memory.data.ptr) + (i << 12) for i, uid in enumerate((IMAGES, KERNEL, OUTPUTS))}
        graph.execute(pack, int(scratch.data.ptr), handle=gpu.cudnn_handle)
        size = graph.get_workspace_size_plan_at_index(2)
        held = scratch.get(gpu.stream)
        assert 0 < size < 2048 and (held[:size] == 0xFF).all() and not held[size:].any()


def test_the_standin_builds_nothing_while_a_stream_is_captured() -> None:
    works: Sequence[Any] = (
        lambda gpu, graph: gpu.cudnn.create_handle(),
        lambda gpu, graph: gpu.cudnn.pygraph(),
        lambda gpu, graph: graph.build_plan_at_index(2),
        lambda gpu, graph: graph.deserialize(gpu.cudnn_handle, []),
    )
    for work in works:
        with device() as (gpu, _):
            graph = planned(gpu)
            gpu.stream.begin_capture()
            with pytest.raises(CUDARuntimeError, match="while a stream is captured"):
                work(gpu, graph)


def test_the_standin_refuses_what_the_library_does() -> None:
    with device() as (gpu, _):
        cudnn, graph = gpu.cudnn, gpu.cudnn.pygraph(compute_data_type=gpu.cudnn.data_type.FLOAT)
        layout = {"dim": [1, 2, 3, 3], "stride": [18, 1, 6, 2], "data_type": cudnn.data_type.FLOAT}
        x = graph.tensor(**layout, uid=1)
        with pytest.raises(ValueError, match="already user-assigned"):
            graph.tensor(**layout, uid=1)
        with pytest.raises(cudnn.cudnnGraphNotSupportedError):
            graph.tensor(**{**layout, "data_type": cudnn.data_type.DOUBLE}, uid=2)
        with pytest.raises(cudnn.cudnnGraphNotSupportedError, match="a number a channel"):
            graph.bias(input=x, bias=graph.tensor(**layout, uid=3))
        with pytest.raises(TypeError):
            graph.conv_fprop(image=x, weight=x, padings=[0, 0])
        window = {"pre_padding": [0, 0], "post_padding": [0, 0], "stride": [1, 1], "dilation": [1, 1]}
        graph.conv_wgrad(image=x, loss=x, **window).set_output(True).set_uid(4)
        with pytest.raises(ValueError, match="needs dim and stride"):
            graph.validate()
        with pytest.raises(RuntimeError, match="not validated"):
            graph.build_operation_graph()


def test_the_frontend_has_the_names_that_the_standin_has() -> None:
    cudnn = pytest.importorskip("cudnn")
    for enum in ("data_type", "heur_mode", "numerical_note"):
        assert {m.name for m in getattr(frontend, enum)} <= set(getattr(cudnn, enum).__members__)
    for name in (
        "create_handle",
        "set_stream",
        "get_stream",
        "backend_version",
        "cudnnGraphNotSupportedError",
        "__version__",
    ):
        assert hasattr(cudnn, name)
    assert not issubclass(cudnn.cudnnGraphNotSupportedError, RuntimeError)
    for name, function in inspect.getmembers(frontend.pygraph, inspect.isfunction):
        if name.startswith("_") and name != "__init__":
            continue
        theirs = inspect.signature(getattr(cudnn.pygraph, name)).parameters
        free = any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in theirs.values())
        assert free or set(inspect.signature(function).parameters) <= set(theirs), name


def test_a_graph_of_the_frontend_can_be_made() -> None:
    cudnn = pytest.importorskip("cudnn")
    with device() as (gpu, _):
        requests = [request_of(dense(kind), gpu) for kind in KINDS]
        requests.append(request_of(fused(dense(), bias=True, residual=True, relu=True), gpu))
    for request in requests:
        graph = graph_of(request, cudnn)
        assert {t.uid for t in graph.tensors.values() if not t.is_virtual} == set(request.shapes())
