"""Export: what we write is valid, computes elsewhere what it computes here, and comes back as the same graph."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ops.cases import CASES, draw

import minigraph as mg
from minigraph import layers, ops
from minigraph.backends.dtypes import array_dtype
from minigraph.errors import DataError, DTypeError, GraphError
from minigraph.ir import Graph, Node, variable
from minigraph.ir.leaves import input as input_
from minigraph.ir.op import OPS
from minigraph.ir.types import symbol
from minigraph.onnx import exporter, forms
from minigraph.ops.norm import BatchNorm
from minigraph.ops.random import Dropout
from minigraph.ops.shape import BroadcastTo
from minigraph.passes.lower import lower
from minigraph.runtime import State, compile

onnx = pytest.importorskip("onnx", "1.17")
pytest.importorskip("onnxruntime")

from onnx_checks import check, contents, distance, op_types, run_elsewhere  # noqa: E402

from minigraph.onnx.api import import_model, load, save, to_proto  # noqa: E402
from minigraph.onnx.writing import WRITERS  # noqa: E402

# Why an op has no writer of its own.
WRITTEN_BY_THE_EXPORTER = {
    "input": "an input of the model", "variable": "an initializer", "constant": "an initializer",
    "item": "a result of the node it belongs to", "function": "the node that it came as, or its steps",
    "fused": "its steps", "group": "its steps",
}  # fmt: skip
HAS_NO_FORM = {
    "avg_pool2d_adjoint": "an adjoint: only training has it", "conv2d_kernel_adjoint": "an adjoint",
    "gather_adjoint": "an adjoint", "max_pool2d_adjoint": "an adjoint", "slice_adjoint": "an adjoint",
    "max_pool2d_select": "the adjoint of an adjoint",
    "random_uniform": "the bits of our generator are promised, and ONNX' RandomUniform promises none",
}  # fmt: skip
# Ops that the reference implementation computes wrongly, or not at all, and onnxruntime has in float32 only.
REFERENCE_FAILS = {"conv2d_transpose": "groups, and pads in more than one way", "fused": "a transposed convolution",
                   "function": "a transposed convolution", "group": "a transposed convolution",
                   "max": "global pools of signals"}  # fmt: skip
# Ops with an attribute of ONNX' only float, which has 32 bits, and those that the reference computes by such.
FLOAT32_INSIDE = {"batch_norm", "elu", "erf", "function", "fused", "gelu", "group", "hard_sigmoid",
                  "hard_swish", "leaky_relu"}  # fmt: skip
SEEDS = 4


def graph_of(op: str, seed: int, dtype: str) -> tuple[Graph, dict[str, Any], str]:
    """Return the graph of a case of an op, its inputs, and its description; DTypeError if it has another dtype."""
    case = draw(op, seed)
    arrays = [np.asarray(a, dtype if a.dtype == np.float64 else a.dtype) for a in case.arrays]
    inputs = [input_(a.shape, str(a.dtype), f"x{i}") for i, a in enumerate(arrays)]
    made = case.function(*inputs)
    results = [made] if isinstance(made, Node) else list(made)
    graph = Graph({f"y{i}": node for i, node in enumerate(results)}, inputs=inputs)
    return graph, {f"x{i}": a for i, a in enumerate(arrays)}, case.describe()


def nameless(graph: Graph) -> str:
    """Return a graph's text without scopes, and with variables numbered."""
    text = re.sub(r' @ "[^"\n]*"$', "", str(graph), flags=re.MULTILINE)
    for number, node in enumerate(graph.variables):
        text = text.replace(f"variable({mg.ir.printer._string(node.label)}", f'variable("v{number}"')
    return text


def agree_everywhere(graph: Graph, values: dict[str, Any], *, tolerance: float, state: Any = None) -> dict[str, float]:
    """Export, check, run elsewhere, import again, run here; return the distances, all of them within the tolerance."""
    proto = check(to_proto(graph, state))
    plain = lower(graph, "inference")
    here = compile(plain)(None if state is None else State(state), **values)
    read = {node.label for node in graph.inputs}
    found = {}
    elsewhere, who = run_elsewhere(proto, {k: v for k, v in values.items() if k in read})
    found[who] = max(distance(here[name], elsewhere[name]) for name in here)
    found["import"] = max(map(distance, here.values(), run_again(proto, values).values()))
    assert max(found.values()) <= tolerance, (found, str(graph), op_types(proto))
    comes_back(proto)
    return found


def run_again(proto: Any, values: dict[str, Any]) -> dict[str, Any]:
    imported = import_model(proto)
    return compile(lower(imported.graph, "inference"))(State(imported.state), **values)


def comes_back(proto: Any) -> None:
    """Check that what is imported is exported as the same nodes, and imported from there as the same graph."""
    imported = import_model(proto)
    again = check(to_proto(imported.graph, imported.state))
    assert contents(again.graph) == contents(proto.graph), f"{op_types(proto)}\n{op_types(again)}\n{imported.graph}"
    assert [i.name for i in again.graph.input] == [i.name for i in proto.graph.input]
    assert [o for o in again.graph.output] == [o for o in proto.graph.output]
    once_more = import_model(again)
    assert nameless(once_more.graph) == nameless(imported.graph)


def test_every_op_has_a_writer_or_a_reason():
    """Whoever adds an op says how it is exported."""
    written = {op.name for op in WRITERS}
    assert written & {*HAS_NO_FORM, *WRITTEN_BY_THE_EXPORTER} == set()
    builtin = {name for name, op in OPS.items() if op.__module__.startswith("minigraph.")}
    assert builtin - written == {*HAS_NO_FORM, *WRITTEN_BY_THE_EXPORTER}
    assert set(CASES) - set(HAS_NO_FORM) == builtin - {*HAS_NO_FORM, "input", "variable", "constant", "item", "dropout"}


@pytest.mark.parametrize("op", sorted(HAS_NO_FORM))
def test_what_has_no_form_says_so(op):
    graph, *_ = graph_of(op, 0, "float64")
    with pytest.raises(GraphError, match="has no ONNX form"):
        to_proto(graph)


def op_agrees(op: str, seed: int, dtype: str) -> None:
    try:
        graph, values, note = graph_of(op, seed, dtype)
    except DTypeError:
        return
    if dtype == "float64" and op in REFERENCE_FAILS:
        return
    tolerance = 1e-5 if dtype == "float32" else 1e-7 if op in FLOAT32_INSIDE else 1e-12
    try:
        agree_everywhere(graph, values, tolerance=tolerance)
    except AssertionError as error:
        raise AssertionError(f"{op}, seed {seed}, {dtype}: {note}\n{error}") from None


@pytest.mark.parametrize("op", sorted(set(CASES) - set(HAS_NO_FORM)))
def test_an_op_agrees_with_onnxruntime_and_comes_back(op):
    for seed in range(SEEDS):
        op_agrees(op, seed, "float64" if seed % 4 == 3 else "float32")


@pytest.mark.slow
@pytest.mark.parametrize("op", sorted(set(CASES) - set(HAS_NO_FORM)))
def test_an_op_agrees_with_onnxruntime_and_comes_back_large(op):
    for seed in range(SEEDS, 100):
        for dtype in ("float32", "float64"):
            op_agrees(op, seed, dtype)


# --- dtypes -----------------------------------------------------------------------------------------------------------

OTHER_DTYPES = ["float16", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "bool"]
PIXELS = (1, 2, 3, 1)


def of_one(function: Callable[[Node], Node]) -> Callable[[Node, Node], Node]:
    return lambda x, y: function(x)


OF_ANY_DTYPE: dict[str, Callable[[Node, Node], Node]] = {
    **{
        name: getattr(ops, name)
        for name in ("add", "sub", "mul", "div", "pow", "maximum", "minimum", "less", "less_equal", "greater",
                     "greater_equal", "equal", "not_equal")
    },
    **{
        name: of_one(getattr(ops, name))
        for name in ("abs", "neg", "sign", "floor", "sum", "mean", "max", "min", "relu", "exp", "softmax", "sqrt",
                     "logsumexp", "silu", "gelu", "elu", "hard_swish", "transpose")
    },
    "argmax": lambda x, y: ops.argmax(x, 1), "rows": lambda x, y: ops.sum(x, 1), "clip": lambda x, y: ops.clip(x, 0, 2),
    "where": lambda x, y: ops.where(ops.equal(x, y), x, y), "concat": lambda x, y: ops.concat([x, y], 0),
    "pad": lambda x, y: ops.pad(x, [(1, 1), (0, 2)]), "slice": lambda x, y: x[::-1, 1:],
    "gather": lambda x, y: ops.gather(x, ops.constant(np.array([1, 0, 1])), 0),
    "indices": lambda x, y: ops.gather(ops.constant(np.arange(12.0)), x, 0),
    "clipped": lambda x, y: ops.gather(ops.constant(np.arange(3.0)), x - y, 0, "clip"),
    "one_hot": lambda x, y: ops.one_hot(x, 4, -1, "float32"), "matmul": lambda x, y: ops.matmul(x, ops.transpose(y)),
    "max_pool": lambda x, y: ops.max_pool2d(ops.reshape(x, PIXELS), 2, 1),
    "avg_pool": lambda x, y: ops.avg_pool2d(ops.reshape(x, PIXELS), 2, 1),
    "conv": lambda x, y: ops.conv2d(ops.reshape(x, PIXELS), ops.reshape(y, (2, 3, 1, 1))),
}  # fmt: skip
# Float64 would have to stand in, and has not all those numbers.
NOT_EXACT = {
    ("max_pool", "int64"), ("max_pool", "uint64"), *(("conv", d) for d in ("int32", "uint32", "int64", "uint64")),
}  # fmt: skip


@pytest.mark.parametrize("dtype", OTHER_DTYPES)
def test_ops_of_other_dtypes_agree(dtype):
    """ONNX' ops take fewer dtypes than ours: what they do not take is cast around them, or refused."""
    rng = np.random.default_rng(0)
    values = {"x": rng.integers(0, 4, (2, 3)).astype(dtype), "y": rng.integers(1, 4, (2, 3)).astype(dtype)}
    tried = 0
    for name, function in OF_ANY_DTYPE.items():
        x, y = (input_((2, 3), dtype, label) for label in ("x", "y"))
        try:
            graph = Graph({"result": function(x, y)}, inputs=[x, y])
        except DTypeError:
            continue
        if (name, dtype) in NOT_EXACT:
            with pytest.raises(GraphError, match=f"of {dtype} has no ONNX form"):
                to_proto(graph)
            continue
        agree_everywhere(graph, values, tolerance=2e-3 if dtype == "float16" else 0.0)
        tried += 1
    assert tried > 15


@pytest.mark.parametrize("name", [n for n in OF_ANY_DTYPE if n not in ("indices", "clipped", "one_hot")])  # of integers
def test_bfloat16_is_written_and_read_back_wide(name):
    """A file may hold bfloat16; what ONNX' ops do not take in it is computed in float32 between casts."""
    rng = np.random.default_rng(0)
    x, y = (input_((2, 3), "bfloat16", label) for label in ("x", "y"))
    graph = Graph({"result": OF_ANY_DTYPE[name](x, y)}, inputs=[x, y])
    proto = to_proto(graph)
    onnx.checker.check_model(proto, full_check=True)
    assert {i.type.tensor_type.elem_type for i in proto.graph.input} == {onnx.TensorProto.BFLOAT16}
    values = {label: rng.uniform(0.5, 2.0, (2, 3)).astype(array_dtype("bfloat16")) for label in ("x", "y")}
    (here,) = compile(graph)(**values).values()
    (wide,) = run_again(proto, {k: v.astype("float32") for k, v in values.items()}).values()
    np.testing.assert_allclose(here.astype("float32"), wide.astype("float32"), rtol=2.0**-6)


# --- whole graphs -----------------------------------------------------------------------------------------------------


def network(layout: str = "NHWC", size: int = 12) -> mg.Model:
    """Return a definition: convolutions padded "same" and not, batch norms, a residual sum, pools, dropout, dense."""
    shape = (size, size, 3) if layout == "NHWC" else (3, size, size)
    x = layers.Input(shape, name="image")
    form = "channels_last" if layout == "NHWC" else "channels_first"
    axis = -1 if layout == "NHWC" else 1
    y = layers.Conv2D(8, 3, padding="same", use_bias=False, data_format=form)(x)
    y = layers.BatchNormalization(axis=axis, momentum=0.8)(y)
    y = shortcut = layers.ReLU()(y)
    y = layers.Conv2D(8, 3, padding="same", data_format=form)(y)
    y = layers.Add()([layers.BatchNormalization(axis=axis)(y), shortcut])
    y = layers.MaxPooling2D(2, data_format=form)(y)
    y = layers.DepthwiseConv2D(3, strides=1, data_format=form)(y)
    y = layers.AveragePooling2D(2, strides=1, padding="same", data_format=form)(y)
    y = layers.GlobalAveragePooling2D(data_format=form)(y)
    y = layers.Dropout(0.3)(layers.Dense(16, activation="relu")(y))
    y = layers.BatchNormalization()(y)
    return mg.Model(x, layers.Dense(5, activation="softmax")(y))


def shaken(model: mg.Model, seed: int = 0) -> dict[str, Any]:
    """Return numbers for a model's variables that are no defaults: variances stay positive."""
    rng = np.random.default_rng(seed)
    return {
        label: np.asarray(
            rng.uniform(0.5, 2.0, np.shape(value))
            if "variance" in label
            else value + 0.3 * rng.standard_normal(np.shape(value)),
            value.dtype,
        )
        for label, value in sorted(model.state.items())
    }


def images(*shape: int) -> Any:
    return np.random.default_rng(1).standard_normal(shape).astype("float32")


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("form", ["definition", "inference", "folded", "optimized"])
def test_networks_agree_in_every_layout_and_form(layout, form):
    model = network(layout)
    state = shaken(model)
    graph = model.graph if form == "definition" else lower(model.graph, "inference")
    if form in ("folded", "optimized"):
        graph = mg.optimize(graph, state=State(state), exclude=["fuse"] if form == "folded" else [])[0]
    shape = (3, 12, 12, 3) if layout == "NHWC" else (3, 3, 12, 12)
    agree_everywhere(graph, {"image": images(*shape)}, state=state, tolerance=1e-5)
    types = op_types(to_proto(graph, state))
    assert types.count("BatchNormalization") == (0 if form in ("folded", "optimized") else 3)
    assert types.count("Dropout") == (form == "definition")
    assert types.count("Transpose") == (layout == "NHWC")  # at the edge, once


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_a_definition_comes_back_as_one(layout):
    """Batch norms keep their moving averages and momentum, dropouts their rate: the model can be trained on."""
    model = network(layout)
    imported = load(to_proto(model).SerializeToString())
    kinds = [
        [type(n.op) for n in g.nodes if isinstance(n.op, (BatchNorm, Dropout))] for g in (model.graph, imported.graph)
    ]
    assert kinds[0] == kinds[1] and len(kinds[0]) == 4
    norms = [[n.op for n in g.nodes if isinstance(n.op, BatchNorm)] for g in (model.graph, imported.graph)]
    for before, after in zip(*norms, strict=True):
        assert after.moving is not None
        assert (np.float32(before.epsilon), np.float32(before.moving.momentum)) == (
            after.epsilon,
            after.moving.momentum,
        )
    rates = [[n.op.rate for n in g.nodes if isinstance(n.op, Dropout)] for g in (model.graph, imported.graph)]
    np.testing.assert_allclose(rates[0], rates[1], rtol=1e-7)
    imported.compile(optimizer="sgd", loss="sparse_categorical_crossentropy")
    shape = (8, 12, 12, 3) if layout == "NHWC" else (8, 3, 12, 12)
    before = {k: v.copy() for k, v in imported.state.items()}
    imported.fit(images(*shape), np.arange(8) % 5, epochs=1, batch_size=4, verbose=0)
    kept = {label for label, value in imported.state.items() if np.array_equal(value, before[label])}
    assert kept == {"optimizer/learning_rate"}


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 6), (2, 3, 4, 5)])
@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_batch_norm_along_any_axis(shape, axis):
    if axis >= len(shape):
        return
    x = input_(shape, "float32", "x")
    vectors = [variable((shape[axis],), name=name) for name in ("gamma", "beta", "mean", "variance")]
    graph = Graph({"y": ops.batch_norm(x, *vectors, axis=axis)}, inputs=[x])
    rng = np.random.default_rng(0)
    state = {v.label: rng.uniform(0.5, 2, v.shape).astype("float32") for v in vectors}
    agree_everywhere(graph, {"x": images(*shape)}, state=state, tolerance=1e-6)
    computed = [v if v.label != "mean" else v * 2.0 + ops.mean(x) for v in vectors]
    graph = Graph({"y": ops.batch_norm(x, *computed, axis=axis)}, inputs=[x])
    agree_everywhere(graph, {"x": images(*shape)}, state=state, tolerance=1e-6)


# --- open sizes -------------------------------------------------------------------------------------------------------


def dims(proto: Any) -> dict[str, list[Any]]:
    return {
        v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*proto.graph.input, *proto.graph.output)
    }


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_the_batch_stays_symbolic(layout):
    model = network(layout)
    (output,) = model.graph.outputs
    proto = check(to_proto(model))
    shape = [12, 12, 3] if layout == "NHWC" else [3, 12, 12]
    assert dims(proto) == {"image": ["N", *shape], output: ["N", 5]}
    imported = load(proto)
    assert dims(to_proto(imported)) == dims(proto)
    folded = mg.optimize(lower(imported.graph, "inference"), state=imported.state)[0]
    again = check(to_proto(folded, imported.state))
    assert dims(again) == dims(proto)
    for batch in (1, 4):
        x = images(batch, *shape)
        (y,) = run_elsewhere(again, {"image": x})[0].values()
        assert distance(model.predict(x), y) <= 1e-5


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("strides", [1, 2])
def test_same_padding_of_open_sizes(layout, strides):
    """Windows that move by 1 need padding that does not depend on the size; for others the reader computes it."""
    sizes = (symbol("H"), symbol("W"))
    x = input_((symbol("N"), *sizes, 3) if layout == "NHWC" else (symbol("N"), 3, *sizes), "float32", "x")
    kernel = variable((3, 2, 3, 4) if layout == "NHWC" else (4, 3, 3, 2), name="kernel")
    y = ops.relu(ops.conv2d(x, kernel, strides, "same", layout=layout))
    graph = Graph({"y": ops.max_pool2d(y, 3, 1, "same", layout=layout)}, inputs=[x])
    state = {"kernel": images(*kernel.shape)}
    proto = check(to_proto(graph, state))
    assert ("auto_pad" in str(proto)) == (strides == 2)
    assert len([d for d in dims(proto)["y"] if isinstance(d, str)]) == 3
    imported = import_model(proto)
    comes_back(proto)
    for size in ((2, 5, 7, 3), (1, 8, 4, 3)):
        values = {"x": images(*size) if layout == "NHWC" else images(size[0], 3, *size[1:3])}
        here = compile(graph)(State(state), **values)["y"]
        assert distance(here, run_elsewhere(proto, values)[0]["y"]) <= 1e-6
        assert distance(here, compile(imported.graph)(State(imported.state), **values)["y"]) <= 1e-6


def test_open_sizes_in_shapes():
    """Shapes with symbolic sizes: copied, left over, or computed from an input that has them."""
    n, t = symbol("N"), symbol("T")
    x, z = input_((n, t, 6), "float32", "x"), input_((t, 4), "float32", "z")
    graph = Graph(
        {
            "flat": ops.reshape(x, (n, t * 6)), "apart": ops.reshape(x, (n, t, 2, 3)),
            "both": ops.reshape(x, (n * t, 6)), "three": ops.reshape(x, (n * t * 2, 3)),
            "wide": ops.broadcast_to(ops.unsqueeze(z, 0), (n, t, 4)), "single": ops.reshape(x, (n, 1, t, 6)),
            "turned": ops.reshape(ops.transpose(x, (1, 0, 2)), (t, n, 3, 2)),
            "count": ops.sum(x) / ops.size(x), "rows": ops.size(x, 1, "int64"), "area": ops.size(x, (0, 1), "float32"),
        },
        inputs=[x, z],
    )  # fmt: skip
    agree_everywhere(graph, {"x": images(2, 5, 6), "z": images(5, 4)}, tolerance=1e-6)


# --- signals ----------------------------------------------------------------------------------------------------------


def signals() -> Any:
    """Return an ONNX model over signals N,C,L: convolution, batch norm, pools, a transposed convolution, a branch."""
    from small_onnx import model, value

    rng = np.random.default_rng(3)
    make = onnx.helper.make_node
    weights = {
        "k": rng.standard_normal((4, 3, 5)).astype("f"), "b": rng.standard_normal(4).astype("f"),
        "t": rng.standard_normal((4, 2, 3)).astype("f"), "gamma": rng.standard_normal(4).astype("f"),
        "beta": rng.standard_normal(4).astype("f"), "mean": rng.standard_normal(4).astype("f"),
        "var": rng.uniform(0.5, 2, 4).astype("f"), "scale": rng.standard_normal((1, 4, 1)).astype("f"),
    }  # fmt: skip
    nodes = [
        make("Conv", ["x", "k", "b"], ["c"], kernel_shape=[5], pads=[2, 2], strides=[1]),
        make("BatchNormalization", ["c", "gamma", "beta", "mean", "var"], ["n"]),
        make("Relu", ["n"], ["r"]),
        make("MaxPool", ["r"], ["p"], kernel_shape=[2], strides=[2]),
        make("AveragePool", ["r"], ["a"], kernel_shape=[3], strides=[2], pads=[0, 1], count_include_pad=1),
        make("Mul", ["p", "scale"], ["m"]),
        make("Add", ["m", "a"], ["s"]),
        make("ConvTranspose", ["s", "t"], ["u"], kernel_shape=[3], strides=[2]),
        make("GlobalAveragePool", ["u"], ["y"]),
    ]
    return model(nodes, [value("x", "N", 3, 12)], [value("y", "N", 2, 1), value("n", "N", 4, 12)], weights)


@pytest.mark.parametrize("form", ["definition", "optimized"])
def test_signals_leave_as_signals(form):
    proto = signals()
    imported = import_model(proto)
    graph = imported.graph
    if form == "optimized":
        graph = mg.optimize(lower(graph, "inference"), state=State(imported.state))[0]
    made = check(to_proto(graph, imported.state))
    types = op_types(made)
    assert not {"Reshape", "Unsqueeze", "Squeeze", "Transpose"} & set(types), types
    kernels = {tuple(t.dims) for t in made.graph.initializer if len(t.dims) > 2}
    assert {(4, 3, 5), (4, 2, 3)} <= kernels and all(len(k) == 3 for k in kernels)
    x = images(2, 3, 12)
    expected = run_elsewhere(proto, {"x": x})[0]
    for name, value in run_elsewhere(made, {"x": x})[0].items():
        assert distance(expected[name], value) <= 1e-5
    agree_everywhere(graph, {"x": x}, state=imported.state, tolerance=1e-5)


# --- names ------------------------------------------------------------------------------------------------------------


def exported(graph: Graph, state: Any = None, **values: Any) -> Any:
    """Return the model of a graph that computes elsewhere what the graph computes, under the same names."""
    proto = check(to_proto(graph, state))
    assert [v.name for v in proto.graph.input] == [n.label for n in graph.inputs]
    assert [v.name for v in proto.graph.output] == list(graph.outputs)
    agree_everywhere(graph, values, state=state, tolerance=1e-6)
    return proto


def test_outputs_that_are_one_node_an_input_or_a_constant():
    x = input_((2, 3), "float32", "x")
    weight = variable((3,), name="weight")
    y = ops.relu(x)
    outputs = {
        "first": y, "second": y, "input": x, "again": x, "constant": ops.constant([1.0, 2.0]), "weight ": weight,
        "sum": y + 1.0, "doubled": weight * 2.0,
    }  # fmt: skip
    exported(Graph(outputs, inputs=[x]), {"weight": np.float32([1, 2, 3])}, x=images(2, 3))


def test_an_output_within_the_graph_is_read_by_its_own_name():
    x = input_((2, 3), "float32", "x")
    inner = ops.relu(x)
    proto = exported(Graph({"y": ops.exp(inner) + inner, "inner": inner}, inputs=[x]), x=images(2, 3))
    assert "Identity" not in op_types(proto)


def test_a_value_without_a_node_of_its_own_keeps_both_names():
    """What is written as nothing (an order, a pad of nothing) has its operand's name, and each output its own."""
    x = input_((2, 3), "float32", "x")
    y = ops.relu(x)
    same = ops.concat([y])
    outputs = {"a": same, "b": ops.tanh(y), "c": ops.pad(y, [(0, 0), (0, 0)]), "d": ops.sin(same)}
    exported(Graph(outputs, inputs=[x]), x=images(2, 3))


def test_several_results_and_their_names():
    x = input_((2, 6), "float32", "x")
    a, b, c = ops.split(x, [1, 2, 3], 1)
    mean, variance = ops.moments(x, 1)
    proto = exported(
        Graph({"b": b, "mean": mean, "a": a, "variance": variance, "c": c + 1.0}, inputs=[x]), x=images(2, 6)
    )
    assert "Identity" not in op_types(proto)


@pytest.mark.parametrize(
    "name", ["a b", "ü/∂x", 'quo"te', "x\\y", "a:0", "1", "Conv", "shape", "x" * 150, "axes", "constant"]
)
def test_names_of_any_kind(name):
    x = input_((1, 2, 4, 4), "float32", f"{name}_in")
    kernel = variable((2, 2, 3, 3), name=name)
    y = ops.sum(ops.conv2d(x, kernel, layout="NCHW"), 1)
    graph = Graph({f"{name}/out": ops.reshape(y, (4,))}, inputs=[x])
    proto = exported(graph, {name: images(2, 2, 3, 3)}, **{f"{name}_in": images(1, 2, 4, 4)})
    assert name in [t.name for t in proto.graph.initializer]  # variables keep their names
    assert {v.label for v in import_model(proto).graph.variables} == {name}


def test_names_that_collide():
    """Inputs, outputs and variables have one namespace in a file, and three in a graph."""
    x = input_((2, 3), "float32", "x")
    outputs = {"w": x * variable((3,), name="w"), "Relu": ops.exp(ops.relu(x))}
    proto = exported(Graph(outputs, inputs=[x]), {"w": np.float32([1, 2, 3])}, x=images(2, 3))
    assert len({t.name for t in proto.graph.initializer} & {"x", "w", "Relu"}) == 0
    with pytest.raises(GraphError, match="'x'"):
        to_proto(Graph({"x": ops.relu(x)}, inputs=[x]))
    assert op_types(exported(Graph({"x": x, "y": ops.relu(x)}, inputs=[x]), x=images(2, 3))) == ["Relu"]


def test_a_variable_that_is_called_as_an_input():
    x, w = input_((3,), "float32", "x"), variable((3,), name="x")
    try:
        graph = Graph({"y": x * w}, inputs=[x])
    except GraphError:
        return  # then no graph has such names
    exported(graph, {"x": np.float32([1, 2, 3])}, x=images(3))


def test_what_is_not_read_is_not_written():
    """A result that nobody reads, and what only the order of two values needs."""
    x, z = input_((2, 3), "float32", "x"), input_((2, 3), "float32", "z")
    mean, _ = ops.moments(x, 1)
    after = Node(OPS["after"](), (ops.relu(x), ops.exp(z) * 7.0))
    proto = exported(Graph({"mean": mean, "y": after}, inputs=[x, z]), x=images(2, 3), z=images(2, 3))
    assert op_types(proto) == ["ReduceMean", "Relu"]
    assert len(proto.graph.initializer) == 1


# --- refusals and files -----------------------------------------------------------------------------------------------


def test_a_training_graph_is_refused():
    model = network()
    with pytest.raises(GraphError, match="training graph"):
        to_proto(model.lower("training", batch_size=4), model.state)


def test_a_variable_without_numbers_is_named():
    model = network()
    state = {label: value for label, value in model.state.items() if "kernel" not in label}
    with pytest.raises(DataError, match="kernel"):
        to_proto(model.graph, state)


def test_save_and_load(tmp_path):
    model = network()
    path = save(model, tmp_path / "net.onnx")
    x = images(3, 12, 12, 3)
    assert distance(model.predict(x), load(path).predict(x)) <= 1e-5
    assert path.read_bytes() == save(model, tmp_path / "again.onnx").read_bytes()


def test_a_number_repeated_over_much_memory_stays_one_number():
    x = input_((1 << 10, 1 << 11), "float32", "x")
    proto = exported(Graph({"y": x + ops.broadcast_to(ops.constant(2.0), x.shape)}, inputs=[x]), x=images(*x.shape))
    assert "Expand" in op_types(proto) and proto.ByteSize() < 2000
    assert BroadcastTo in [type(n.op) for n in import_model(proto).graph.nodes]


def test_versions():
    proto = to_proto(network())
    assert [(o.domain, o.version) for o in proto.opset_import] == [
        ("", forms.OPSET)
    ] and proto.ir_version == exporter.IR
    assert proto.producer_name == "minigraph" and proto.producer_version == mg.__version__
