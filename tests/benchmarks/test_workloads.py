"""The workloads compute what they should: gradients against float64, outputs against onnxruntime; no step allocates.

A gradient is no continuous function: where a rounding error moves a ReLU's input across 0, or makes another element of
a pooling window the largest, a term comes or goes, and one such term can be some percent of a gradient (as it is in
PyTorch). So the float64 reference is asked for the derivative of the very piece that the float32 step was on: the
signs and the places of maxima are taken from the float32 values.

What is left are rounding errors. A gradient's element is a sum of n products, n = 50,176 in W1 and 32,768 in W4, whose
error grows as √n·u, u = 2⁻²⁴, if errors are independent (Higham, *Accuracy and Stability of Numerical Algorithms*,
2nd ed., 2.6 and 4.2): 1.3e-5 of the terms' size for the sum itself. What arrives there has passed up to 21 layers and
back, each with errors of its own; and Winograd's algorithm multiplies a convolution's by about ten. BOUND, for the
three and four layers of W1 and W2, is twice the error of one sum; DEEP is √21 times as much. What was measured is a
fifth of that; a wrong term is orders of magnitude above.
"""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import minigraph as mg
from minigraph import ops
from minigraph.backends import base
from minigraph.bench import workloads
from minigraph.bench.networks import NETWORKS
from minigraph.bench.workloads import RATE, Workload, find
from minigraph.ir.graph import Graph
from minigraph.losses import SparseCategoricalCrossentropy

BOUND, DEEP = 2.6e-5, 1.2e-4
slow = pytest.mark.slow
TRAINING = [
    pytest.param("W1", BOUND, id="W1"),
    pytest.param("W2", BOUND, id="W2"),
    pytest.param("W4", DEEP, id="W4", marks=slow),
]
BACKENDS = ["numpy", "c"]


@pytest.fixture(params=BACKENDS)
def backend(request) -> base.Backend:
    if request.param == "c":
        from minigraph.backends.c import compilers

        if compilers.find() is None:
            pytest.skip("no C++ compiler")
    return workloads.backend_on(request.param, 2)


def trained(model: mg.Model) -> list[Any]:
    return [v for v in model.graph.variables if v.op.trainable]


def stepped(workload: Workload, backend: base.Backend) -> dict[str, np.ndarray]:
    """Variable → gradient, as the first timed step has it: in the momenta, which were 0."""
    program, state, feed = workloads.prepared(workload, backend)
    program(state, **feed)
    names = [v.label for v in program.definition.variables if v.op.trainable]
    return {name: state[f"optimizer/{name}/momentum"].astype(np.float64) / -np.float32(RATE) for name in names}


def forward(model: mg.Model) -> Graph:
    """The loss of a definition, in training."""
    loss = SparseCategoricalCrossentropy(from_logits=True)
    (logits,) = model.graph.outputs.values()
    label = loss.label(logits)
    return mg.lower(Graph({"loss": loss(label, logits)}, inputs=[*model.graph.inputs, label]), "training")


def decided(graph: Graph) -> list[Any]:
    return [n for n in graph.nodes if n.op.name in ("relu", "max_pool2d")]


def decisions(workload: Workload, backend: base.Backend) -> dict[str, np.ndarray]:
    """What was decided in float32: where each ReLU passes its input on, and where a window is largest."""
    model = workload.model()
    graph = forward(model)
    nodes = decided(graph)
    values = mg.compile({f"d{i}": n.inputs[0] for i, n in enumerate(nodes)}, backend=backend)(
        model.state, **workloads.feeds(model, workload.images())
    )
    chosen = {"relu": lambda z: z > 0, "max_pool2d": first_largest}
    return {f"d{i}": chosen[n.op.name](values[f"d{i}"]).astype(np.float64) for i, n in enumerate(nodes)}


def first_largest(z: np.ndarray) -> np.ndarray:
    """1 at the first largest element of each 2×2 window, else 0."""
    n, h, w, c = z.shape
    windows = z.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 5, 2, 4).reshape(-1, 4)
    hot = np.eye(4)[windows.argmax(1)].reshape(n, h // 2, w // 2, c, 2, 2)
    return hot.transpose(0, 1, 4, 2, 5, 3).reshape(z.shape)


def reference(workload: Workload, masks: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Variable → gradient in float64, with these decisions."""
    model = workload.model(dtype="float64")
    graph = forward(model)
    number = {node: i for i, node in enumerate(decided(graph))}

    def fixed(node: Any, inputs: Any) -> Any:
        if node not in number:
            return node if inputs == node.inputs else node.with_inputs(inputs)
        masked = inputs[0] * mg.Input(inputs[0].shape[1:], name=f"d{number[node]}", dtype="float64")
        return masked if node.op.name == "relu" else 4.0 * ops.avg_pool2d(masked, 2)

    graph = graph.rebuild(fixed)
    variables = trained(model)
    found = mg.gradients(graph.outputs["loss"], variables)
    program = mg.compile({v.label: g for v, g in zip(variables, found, strict=True)})
    feed = workloads.feeds(model, workload.images().astype(np.float64), workload.labels())
    state = {**model.state, **workload.model().state}
    return program(mg.State({name: np.asarray(a, np.float64) for name, a in state.items()}), **feed, **masks)


def error(got: np.ndarray, exact: np.ndarray) -> float:
    return float(np.abs(got - exact).max() / np.abs(exact).max())


@pytest.mark.parametrize(("name", "bound"), TRAINING)
def test_every_gradient_is_that_of_float64(name, bound, backend):
    (workload,) = find(name)
    exact = reference(workload, decisions(workload, backend))
    got = stepped(workload, backend)
    errors = {variable: error(got[variable], exact[variable]) for variable in exact}
    worst = max(errors, key=errors.__getitem__)
    print(f"{name} {backend.name}: {errors[worst]:.1e} in {worst}, median {np.median(list(errors.values())):.1e}")
    assert len(errors) == len(got) and errors[worst] <= bound, worst


@slow
@pytest.mark.parametrize("name", ["W1", "W2"])
def test_torch_is_no_nearer_to_float64(name, backend):
    """Without its decisions taken over, the reference is as far from PyTorch's gradients as from ours."""
    torch = pytest.importorskip("torch")
    from minigraph.bench import with_torch

    (workload,) = find(name)
    model = workload.model()
    labels = torch.from_numpy(workload.labels())

    def gradients(dtype: Any) -> list[np.ndarray]:
        arrays = iter(workloads.parameters(model))
        module = with_torch.modules(NETWORKS[model.name], arrays).to(dtype)
        images = torch.from_numpy(np.ascontiguousarray(workload.images().transpose(0, 3, 1, 2))).to(dtype)
        torch.nn.functional.cross_entropy(module(images), labels).backward()
        return [p.grad.double().numpy() for p in module.parameters()]

    exact = reference(workload, decisions(workload, backend))
    ours = np.median([error(g, exact[v]) for v, g in stepped(workload, backend).items()])
    theirs = np.median([error(*pair) for pair in zip(gradients(torch.float32), gradients(torch.float64), strict=True)])
    print(f"{name}: {backend.name} {ours:.1e}, torch {theirs:.1e}")
    assert ours <= 4 * theirs


@slow
@pytest.mark.parametrize("network", [mg.models.resnet18, mg.models.resnet50], ids=lambda f: f.__name__)
@pytest.mark.parametrize("batch", [1, 8])
def test_inference_gives_what_onnxruntime_gives(network, batch, backend, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    path = mg.onnx.save(with_averages(network()), tmp_path / "net.onnx")
    model = mg.onnx.load(path)
    (image,) = model.graph.inputs
    x = np.random.default_rng(0).standard_normal((batch, *image.shape[1:])).astype(np.float32)
    program, state = workloads.inference_program(model, backend)
    got = workloads.stepper(program, state, workloads.feeds(model, x))()
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {image.label: x})
    print(f"{model.name}, {batch}, {backend.name}: {error(got, expected):.1e}")
    assert error(got, expected) <= 1e-4


def with_averages(model: mg.Model) -> mg.Model:
    """Give batch norms averages of their own, as training would."""
    rng = np.random.default_rng(1)
    for name, array in model.state.items():
        if name.endswith("moving_mean"):
            array[...] = rng.normal(0, 0.1, array.shape)
        if name.endswith("moving_variance"):
            array[...] = rng.uniform(0.5, 1.5, array.shape)
    return model


# --- the steady state -------------------------------------------------------------------------------------------------

STEADY = ["W1", "W2", pytest.param("W4", marks=slow), pytest.param("W3-r18-1", marks=slow)]


@pytest.fixture
def step(request, backend):
    """A step that has run a few times."""
    made = workloads.stepper(*workloads.prepared(find(request.param)[0], backend))
    for _ in range(5):
        made()
    return made


@pytest.mark.skipif(sys.platform != "linux", reason="counts what Linux counts")
@pytest.mark.parametrize("step", STEADY, indirect=True)
def test_a_step_touches_no_new_page(step):
    import resource

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(50):
            step()
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    # A page that the system took away, or that the collector wants, is no step's own: it does not come every time.
    assert any(faults() < 50 for _ in range(3)), "a page or more each step"


@contextmanager
def traced():
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def taken_by(call: Callable[[], object]) -> int:
    """The most bytes that a call takes at once, under tracing; its first call may remember things, and is not it."""
    call()
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    call()
    return tracemalloc.get_traced_memory()[1] - before


@pytest.mark.parametrize("name", STEADY)
def test_a_step_of_the_c_backend_takes_less_than_a_kilobyte(name, backend):
    if not backend.generates:
        pytest.skip("see the next test")
    step = workloads.stepper(*workloads.prepared(find(name)[0], backend))
    result = step().nbytes
    with traced():
        assert taken_by(step) - result < 1024


@pytest.mark.parametrize("name", STEADY)
def test_no_kernel_of_the_numpy_backend_makes_an_array(name):
    """NumPy's ufuncs make iterators, some 2 kB a call, and buffers, which are made small here, for one thread."""
    backend = workloads.backend_on("numpy", 1)
    program, state, feed = workloads.prepared(find(name)[0], backend)
    program(state, **feed)
    bound = program.prepare(N=find(name)[0].batch).bind(state)
    with backend.running(), traced():
        size = np.setbufsize(16)
        taken = [taken_by(bound.code.step(i)) for i in range(len(program.plan.steps))]
        np.setbufsize(size)
    labels = [f"{s.node.op.name} {s.node.type}" for s in program.plan.steps]
    assert [(label, most) for label, most in zip(labels, taken, strict=True) if most > 4096] == []
