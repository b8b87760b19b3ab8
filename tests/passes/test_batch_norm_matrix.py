"""The matrix of situations around a batch norm: each row folds, within the derived bound, or refuses with its reason.

A row is a test, `test_row_NN_…`; each variant of it runs in float64, the first in the other dtypes as well. `folds`
and `refuses` (see `folding`) check the pass alone and the whole pipeline: structure, validity, numbers, reasons.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minigraph as mg
from minigraph import layers, ops
from minigraph.errors import DataError
from minigraph.ir import Constant, Graph, Node, TensorType, scope, variable
from minigraph.ir.leaves import input as input_
from minigraph.layers import initializers
from minigraph.ops.linalg import MatMul
from minigraph.ops.norm import BatchNorm, Moving
from minigraph.ops.region import function
from minigraph.passes import FOLD_BATCH_NORM, run
from passes.folding import (
    PASS,
    Net,
    as_graph,
    assert_within_bounds,
    batch_norms,
    compute,
    data_ops,
    folds,
    knowing,
    refuses,
)

ROWS = 34
DTYPES = ("float64", "float32", "float16")
WIDE = ("float64",)  # where the dtype makes no difference
NCHW = {"layout": "NCHW"}
SYMBOLIC = {"symbolic": True}
# Attributes of convolutions that a fold of what comes after does not care about, and one of what comes before does.
SHAPES: list[dict[str, Any]] = [
    {"strides": 2}, {"strides": (2, 1)}, {"dilations": 2}, {"size": (2, 4)}, {**NCHW, "size": (1, 3)},
    {**NCHW, "strides": 2}, SYMBOLIC, {**NCHW, **SYMBOLIC},
]  # fmt: skip
PADDED: list[dict[str, Any]] = [
    {"padding": "same"}, {"padding": ((1, 0), (0, 2))}, {"padding": 2, "strides": 2}, {"padding": "same", "strides": 2},
    {"padding": "same", "size": (2, 4)}, {"padding": "same", "dilations": 2}, {"padding": "same", "size": 1},
    {**NCHW, "padding": "same"}, {**NCHW, "padding": ((1, 0), (0, 2)), "strides": (1, 2)},
    {**SYMBOLIC, "padding": "same"}, {**NCHW, **SYMBOLIC, "padding": ((0, 1), (1, 1))},
]  # fmt: skip

Test = Callable[..., None]


def variants(*cases: dict[str, Any], dtypes: tuple[str, ...] = DTYPES) -> Callable[[Test], Test]:
    """Run a row for these variants in float64, and for the first one in the other dtypes."""
    cells = [(dtype, case) for dtype in dtypes for case in (cases if dtype == dtypes[0] else cases[:1])]
    words = [[f"{key}={getattr(value, '__name__', value)}" for key, value in case.items()] for _, case in cells]
    ids = ["-".join([dtype, *each]).replace(" ", "") for (dtype, _), each in zip(cells, words, strict=True)]
    return pytest.mark.parametrize(("dtype", "case"), cells, ids=ids)


@pytest.fixture
def net(dtype: str, case: dict[str, Any]) -> Net:
    return Net(dtype, case.get("layout", "NHWC"), case.get("symbolic", False))


@pytest.fixture
def options(case: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in case.items() if key not in ("layout", "symbolic")}


# --- a linear op before the batch norm --------------------------------------------------------------------------------


@variants({}, *SHAPES, *PADDED)
def test_row_01_convolution(net, options):
    folds(net, net.norm(net.conv(net.image(), **options)), "conv2d add")


def vector(net: Net, x: Node) -> Node:
    return net.bias(x)


def spatial(net: Net, x: Node) -> Node:
    return x + net.random("bias", *x.shape[1:])


def minus(net: Net, x: Node) -> Node:
    return x - net.laid(net.random("bias", x.shape[net.axis]), net.axis, 4)


def turned(net: Net, x: Node) -> Node:
    return net.laid(net.random("bias", x.shape[net.axis]), net.axis, 4) - x


def column(net: Net, x: Node) -> Node:
    return x + net.random("bias", x.shape[3])


def constant(net: Net, x: Node) -> Node:
    return x + 0.25


def twice(net: Net, x: Node) -> Node:
    return net.bias(net.bias(x))


BIASES = [vector, spatial, minus, turned, column, constant, twice]


@variants(*({"bias": bias} for bias in BIASES), *({**NCHW, "bias": bias} for bias in BIASES))
def test_row_02_convolution_with_a_bias(net, options):
    # Channels, height and width are equal, so that a vector along the wrong axis would broadcast without an error.
    x = net.conv(net.image(5, 5, 5), 5, padding="same")
    alone = "conv2d add add" if options["bias"] is twice else "conv2d add"
    folds(net, net.norm(options["bias"](net, x)), alone, "conv2d add")


@variants({}, NCHW, SYMBOLIC, {"bias": True})
def test_row_03_convolution_batch_norm_relu(net, options):
    x = net.conv(net.image())
    x = net.bias(x) if options else x
    folded = folds(net, ops.relu(net.norm(x)), "conv2d add relu")
    # In channels last, for which there are kernels, all of it is one region.
    regions = [n for n in folded.final.nodes if n.op.name == "fused"]
    assert [[step.op.name for step in n.op.body] for n in regions] == [["conv2d", "add", "relu"]]


@variants({"groups": 4, "out": 4}, {"groups": 4, "out": 8, "strides": 2}, {**NCHW, "groups": 4, "out": 8},
          {"groups": 4, "out": 4, "padding": "same", **SYMBOLIC})  # fmt: skip
def test_row_04_depthwise_convolution(net, options):
    folds(net, net.norm(net.conv(net.image(4), **options)), "conv2d add")


@variants({"groups": 2}, {"groups": 2, "dilations": 2}, {**NCHW, "groups": 2, "padding": "same"},
          {"groups": 2, "size": (1, 2), **SYMBOLIC})  # fmt: skip
def test_row_05_grouped_convolution(net, options):
    folds(net, net.norm(net.conv(net.image(4), **options)), "conv2d add")


TRANSPOSED: list[dict[str, Any]] = [
    {"strides": 2}, {"strides": 2, "padding": "same"}, {"dilations": 2}, {"padding": ((1, 0), (0, 1))},
    {"strides": 2, "output_padding": 1}, {"size": (2, 4), "padding": "same", "strides": (1, 2)}, {**NCHW, "strides": 2},
    SYMBOLIC,
]  # fmt: skip


# As many channels before as behind: a scale on the wrong axis of the kernel would not be an error.
@variants({}, {"out": 6}, *TRANSPOSED)
def test_row_06_transposed_convolution(net, options):
    folds(net, net.norm(net.transposed(net.image(4), **{"out": 4, **options})), "conv2d_transpose add")


@variants({}, {"out": 6}, *TRANSPOSED)
def test_row_07_grouped_transposed_convolution(net, options):
    folds(net, net.norm(net.transposed(net.image(4), **{"out": 4, **options}, groups=2)), "conv2d_transpose add")


def rows(net: Net) -> Node:
    return net.dense(net.input(6))


def sequence(net: Net) -> Node:
    return net.dense(net.input(3, 6))


def kernel_read_transposed(net: Net) -> Node:
    return net.dense(net.input(6), transpose_y=True)


def data_read_transposed(net: Net) -> Node:
    return Node(MatMul(True, False), (net.input(6, 5), net.random("w", 6, 6)))


def kernel_for_each_head(net: Net) -> Node:
    return net.input(3, 5, 6) @ net.random("w", 3, 6, 6)


def with_a_bias(net: Net) -> Node:
    return net.bias(net.dense(net.input(6)))


DENSE = [rows, sequence, kernel_read_transposed, data_read_transposed, kernel_for_each_head, with_a_bias]


@variants(*({"dense": each} for each in DENSE), {**SYMBOLIC, "dense": rows})
def test_row_08_dense(net, options):
    folds(net, net.norm(options["dense"](net), axis=-1), "matmul add")


@variants({}, SYMBOLIC, {"transpose_x": True})
def test_row_08_dense_with_its_kernel_on_the_left(net, options):
    kernel = net.random("w", 6, 6)
    product = Node(MatMul(options.get("transpose_x", False), False), (kernel, net.input(6, 5)))
    folds(net, net.norm(product, axis=1), "matmul add")


@variants({})
def test_row_09_another_axis_of_the_same_size(net):
    refuses(net, net.norm(net.dense(net.input(6, 6)), axis=1), "axes differ")


@variants({"axis": 1}, {"axis": 2}, {**NCHW, "axis": 2}, {**NCHW, "axis": 3})
def test_row_09_another_axis_of_a_convolution(net, options):
    refuses(net, net.norm(net.conv(net.image(4, 5, 5), 5, padding="same"), options["axis"]), "axes differ")


def test_row_09_the_reason_names_the_axes():
    net = Net()
    norm = net.norm(net.conv(net.image(4, 5, 5), 5, padding="same"), axis=1)
    assert mg.why_not(PASS, norm).reason == "axes differ: axis 1 is scaled, channels lie along 3"


# --- a batch norm before the linear op --------------------------------------------------------------------------------


@variants({}, {"groups": 2}, {"groups": 4}, {**NCHW, "groups": 2}, {**NCHW, "groups": 4, "out": 8}, *SHAPES)
def test_row_10_batch_norm_before_a_convolution(net, options):
    folds(net, net.conv(net.norm(net.image(4)), **{"out": 4, **options}), "conv2d add")


@variants({}, {"groups": 2}, *TRANSPOSED)
def test_row_10_batch_norm_before_a_transposed_convolution(net, options):
    folds(net, net.transposed(net.norm(net.image(4)), **{"out": 4, **options}), "conv2d_transpose add")


def dense_of_sequence(net: Net) -> Node:
    return net.dense(net.norm(net.input(3, 6)))


def dense_read_transposed(net: Net) -> Node:
    return net.dense(net.norm(net.input(6)), transpose_y=True)


def dense_of_transposed_data(net: Net) -> Node:
    return Node(MatMul(True, False), (net.norm(net.input(6, 5), axis=1), net.random("w", 6, 6)))


def dense_for_each_head(net: Net) -> Node:
    return net.norm(net.input(3, 5, 6)) @ net.random("w", 3, 6, 6)


DENSE_BEHIND = [dense_of_sequence, dense_read_transposed, dense_of_transposed_data, dense_for_each_head]


@variants({}, SYMBOLIC)
def test_row_10_batch_norm_before_a_dense_layer(net):
    folds(net, net.dense(net.norm(net.input(6))), "matmul add")


@variants(*({"dense": each} for each in DENSE_BEHIND))
def test_row_10_batch_norm_before_other_products(net, options):
    folds(net, options["dense"](net), "matmul add")


# s is repeated in the order in which the flatten lays out the elements: these two differ.
@variants({}, NCHW, SYMBOLIC, {**NCHW, **SYMBOLIC})
def test_row_10_batch_norm_flatten_dense(net):
    folds(net, net.dense(ops.flatten(net.norm(net.image(4, 4, 4)))), "reshape matmul add")


@variants({})
def test_row_10_batch_norm_over_height_before_a_flatten(net):
    folds(net, net.dense(ops.flatten(net.norm(net.image(4, 4, 4), axis=1))), "reshape matmul add")


@variants({}, NCHW)
def test_row_10_through_a_transpose(net):
    order, other = ((0, 3, 1, 2), "NCHW") if net.layout == "NHWC" else ((0, 2, 3, 1), "NHWC")
    x = ops.transpose(net.norm(net.image(4, 4, 4)), order)
    net.layout = other
    folds(net, net.conv(x, 4), "transpose conv2d add")


@variants({}, {"strides": 1, "padding": "same"}, NCHW)
def test_row_10_through_an_average_pool(net, options):
    x = ops.avg_pool2d(net.norm(net.image()), 2, layout=net.layout, **options)
    folds(net, net.conv(x, size=2), "avg_pool2d conv2d add")


@variants({}, {"padding": "same", "strides": 1}, NCHW)
def test_row_10_through_a_maximum_where_the_scale_is_positive(net, options):
    x = ops.max_pool2d(net.norm(net.image(), gamma=[0.5, 1.5, 1, 2]), 2, layout=net.layout, **options)
    folds(net, net.conv(x, size=2), "max_pool2d conv2d add", symbolic=False)


@variants({"op": "max"}, {**NCHW, "op": "max", "keepdims": True}, {"op": "min"})
def test_row_10_through_an_extreme_where_the_scale_is_positive(net, options):
    axes = tuple(a for a in (1, 2, 3) if a != net.axis)
    x = net.norm(net.image(4, 4, 4), gamma=[0.5, 1.5, 1, 2])
    pooled = getattr(ops, options["op"])(x, axes, options.get("keepdims", False))
    flat = ops.reshape(pooled, (net.batch, 4))
    between = f"{options['op']} reshape" if options.get("keepdims") else options["op"]
    folds(net, net.dense(flat), f"{between} matmul add", symbolic=False)


@variants({}, NCHW, SYMBOLIC, {"keepdims": True})
def test_row_10_through_a_mean(net, options):
    axes = tuple(a for a in (1, 2, 3) if a != net.axis)
    pooled = ops.mean(net.norm(net.image(4, 4, 4)), axes, options.get("keepdims", False))
    folds(net, net.dense(pooled), "mean matmul add")


@variants({}, dtypes=WIDE)
def test_row_10_refused_behind_what_mixes_channels(net):
    image = net.image(4, 4, 4)
    across = net.conv(net.norm(image, axis=1), padding="same")
    refuses(net, across, "axes differ", at=across)
    rows_of = net.dense(net.norm(net.input(4, 4), axis=1))
    refuses(net, rows_of, "axes differ", at=rows_of)
    means = net.dense(ops.mean(net.norm(image), 3))
    refuses(net, means, "axes differ: the mean runs along the batch norm's axis", at=means)
    counted = net.conv(ops.avg_pool2d(net.norm(image), 2, padding="same", strides=1, count_padding=True))
    refuses(net, counted, "the pool counts its padding", at=counted)
    pooled = net.conv(ops.max_pool2d(net.norm(image)), size=2)
    refuses(net, pooled, "sign: the scale is -", at=pooled)


@variants({}, NCHW, dtypes=WIDE)
def test_row_10_refused_where_another_op_reads_the_batch_norm(net):
    norm = net.norm(net.image())
    conv = net.conv(norm)
    refuses(net, {"y": conv, "z": ops.tanh(norm)}, "second use: batch_norm is read 2 times", at=conv)
    refuses(net, {"y": conv, "z": norm}, "second use: batch_norm is read as output 'z'", at=conv)


@variants(*PADDED, *({**case, "groups": 2} for case in PADDED[:4]), {**NCHW, "padding": "same", "groups": 4, "out": 8})
def test_row_11_batch_norm_before_a_padded_convolution(net, options):
    # The border is where a uniform bias would be wrong, most of all where the mean is large.
    folds(net, net.conv(net.norm(net.image(4)), **{"out": 4, **options}), "conv2d add")


@variants({}, NCHW)
def test_row_11_the_same_kernel_without_padding_has_one_bias_for_all_pixels(net):
    folded = folds(net, net.conv(net.norm(net.image())), "conv2d add")
    sizes = [n.tensor_type.size for n in folded.final.nodes if isinstance(n.op, Constant)]
    assert sorted(sizes) == [6, 3 * 3 * 4 * 6]


@variants({}, {"symbolic": True})
def test_row_11_padding_of_an_image_of_open_size(net):
    image = input_((net.batch, mg.symbol("H"), mg.symbol("W"), 4), net.dtype, "x")
    net.values["x"] = net.rng.normal(size=(2, 5, 4, 4)).astype(net.dtype)
    net.sizes = {**net.sizes, "H": 5, "W": 4}
    graph = as_graph(net.conv(net.norm(image), padding="same"))
    alone = run([knowing(FOLD_BATCH_NORM, net.state())], graph, verify_each=True)[0]
    assert data_ops(alone) == "conv2d add"
    final, trace = mg.optimize(graph, net.state(), verify_each=True)
    assert data_ops(final) == "conv2d add"
    assert_within_bounds(graph, [(alone, alone), (trace.step("freeze").before, final)], net.values, net.sizes)


POSITIVE = [0.5, 1.5, 1.0, 2.0]


@variants({}, {"padding": "same"}, {"strides": 2, "groups": 2}, {**NCHW, "padding": "same"}, SYMBOLIC)
def test_row_12_batch_norm_relu_convolution(net, options):
    x = ops.relu(net.norm(net.image(4), gamma=POSITIVE))
    folds(net, net.conv(x, **options), "add relu conv2d", symbolic=False)


@variants({}, {"transpose_y": True})
def test_row_12_batch_norm_relu_dense(net, options):
    x = ops.relu(net.norm(net.input(3, 4), gamma=POSITIVE))
    folds(net, net.dense(x, **options), "add relu matmul", symbolic=False)


@variants({"strides": 2}, NCHW)
def test_row_12_batch_norm_relu_transposed_convolution(net, options):
    x = ops.relu(net.norm(net.image(4), gamma=POSITIVE))
    folds(net, net.transposed(x, **options), "add relu conv2d_transpose", symbolic=False)


@variants({"gamma": [1.0, 2.0, -0.5, 1.0]}, {"gamma": [1.0, 2.0, 0.0, 1.0]}, dtypes=WIDE)
def test_row_12_refused_where_a_scale_is_not_positive(net, options):
    conv = net.conv(ops.relu(net.norm(net.image(4), **options)), padding="same")
    refuses(net, conv, "in channel 2, and must be positive here", at=conv)


def test_row_12_refused_where_the_sign_is_not_known():
    net = Net()
    conv = net.conv(ops.relu(net.norm(net.image(4), gamma=POSITIVE)))
    reason = "sign: the scale's sign is not known before numbers are given"
    assert mg.why_not(PASS, conv).reason == reason
    assert data_ops(mg.optimize(as_graph(conv))[0]) == "batch_norm relu conv2d"


def test_row_12_refused_where_training_changes_the_sign():
    net = Net()
    norm = net.norm(net.image(4), gamma=POSITIVE)
    conv = net.conv(ops.relu(norm))
    gamma = norm.inputs[1]
    graph = Graph({"y": conv}, {gamma: gamma - 3.0})
    assert "sign" in mg.why_not(PASS, conv, graph, net.state()).reason
    final, trace = mg.optimize(graph, net.state(), verify_each=True)
    assert "batch_norm" in data_ops(final) and "sign" in trace.why_not(PASS, conv).reason


# --- what stands between ----------------------------------------------------------------------------------------------


@variants(*({"function": function} for function in (ops.relu, ops.tanh, ops.sigmoid, ops.exp)))
def test_row_13_refused_behind_what_is_not_linear(net, options):
    between = options["function"](net.conv(net.image()))
    refuses(net, net.norm(between), f"{between.label} stands between, which is not linear")


@variants({}, {"padding": "same"}, NCHW)
def test_row_13_it_may_still_go_into_what_follows(net, options):
    x = net.norm(ops.relu(net.conv(net.image(), padding="same")))
    folds(net, net.conv(x, **options), "conv2d relu conv2d add")


@variants({}, NCHW, SYMBOLIC)
def test_row_14_refused_where_the_convolution_is_read_twice(net):
    conv = net.conv(net.image())
    refuses(net, {"y": net.norm(conv), "z": ops.relu(conv)}, "second use: conv2d is read 2 times")


@variants({}, dtypes=WIDE)
def test_row_14_refused_where_its_bias_or_another_batch_norm_reads_it_too(net):
    conv = net.conv(net.image())
    refuses(net, net.norm(net.bias(conv)) + conv, "second use: conv2d is read 2 times")
    biased = net.bias(net.conv(net.image()))
    refuses(net, {"y": net.norm(biased), "z": ops.tanh(biased)}, "second use: add is read 2 times")
    shared = net.conv(net.image())
    refuses(net, {"y": net.norm(shared), "z": net.norm(shared)}, "second use: conv2d is read 2 times")
    both = net.conv(net.image())
    refuses(net, net.norm(both + both), "second use: conv2d is read 2 times")


def test_row_14_the_other_readers_are_named():
    net = Net()
    conv = net.conv(net.image())
    norm, other = net.norm(conv), ops.tanh(conv)
    refusal = mg.why_not(PASS, norm, as_graph({"y": norm, "z": other}))
    assert refusal.nodes == (conv, other)


# --- what is shared ---------------------------------------------------------------------------------------------------


@variants({}, {"bias": True}, NCHW)
def test_row_15_one_kernel_for_two_convolutions(net, options):
    kernel = net.kernel(4, 6)
    first, second = (net.conv(net.image(), kernel=kernel) for _ in range(2))
    first = net.bias(first) if options else first
    folded = folds(net, {"y": net.norm(first), "z": second}, "conv2d add conv2d")
    # The other convolution still reads the variable itself, and computes the same bits.
    assert folded.alone.outputs["z"].inputs[1] is kernel
    before = compute(as_graph({"z": second}), net.values)["z"]
    assert compute(folded.final, net.values)["z"].tobytes() == before.tobytes()
    assert f"others read 'w': a copy of {kernel.tensor_type.nbytes:,} bytes" in folded.notes


@variants({})
def test_row_15_one_kernel_behind_a_batch_norm_and_elsewhere(net):
    kernel = net.kernel(4, 6)
    outputs = {"y": net.conv(net.norm(net.image()), kernel=kernel), "z": net.conv(net.image(), kernel=kernel)}
    folded = folds(net, outputs, "conv2d add conv2d")
    assert folded.alone.outputs["z"].inputs[1] is kernel
    assert f"others read 'w': a copy of {kernel.tensor_type.nbytes:,} bytes" in folded.notes


@variants({})
def test_row_15_one_kernel_and_a_batch_norm_for_each(net):
    kernel = net.kernel(4, 6)
    outputs = {name: net.norm(net.conv(net.image(), kernel=kernel)) for name in ("y", "z")}
    folded = folds(net, outputs, "conv2d add conv2d add")
    assert kernel in folded.alone.variables


@variants({}, NCHW, SYMBOLIC)
def test_row_16_two_batch_norms_share_their_variables(net):
    operands = net.statistics(6)
    outputs = {name: net.norm(net.conv(net.image()), operands=operands) for name in ("y", "z")}
    before = {label: array.copy() for label, array in net.values.items()}
    folded = folds(net, outputs, "conv2d add conv2d add")
    assert set(operands) <= set(folded.alone.variables)
    assert all(net.values[label].tobytes() == array.tobytes() for label, array in before.items())


@variants({})
def test_row_16_one_variable_is_several_operands(net):
    v = net.variable("v", net.rng.uniform(0.5, 1.5, 6))
    folds(net, net.norm(net.norm(net.conv(net.image()), operands=(v, v, v, v)), operands=(v, v, v, v)), "conv2d add")


# --- training ---------------------------------------------------------------------------------------------------------


def definition(net: Net, **moving: Any) -> Graph:
    """A convolution and a batch norm whose mode is open."""
    operands = net.statistics(6)
    return as_graph(Node(BatchNorm(net.axis, 1e-3, Moving(**moving)), (net.conv(net.image()), *operands)))


@variants({}, NCHW, SYMBOLIC)
def test_row_17_refused_in_a_training_program(net):
    refuses(net, mg.lower(definition(net), "training"), "training: its statistics are those of the batch")


@variants({}, dtypes=WIDE)
def test_row_17_refused_while_the_mode_is_open(net):
    graph = definition(net)
    assert run([FOLD_BATCH_NORM], graph)[0].same_as(graph)
    refusal = mg.why_not(PASS, graph.outputs["y"], graph)
    assert refusal.reason == "its mode is open: lower the graph first"


@variants({}, NCHW, SYMBOLIC)
def test_row_17_the_inference_program_of_the_same_definition_folds(net):
    folds(net, mg.lower(definition(net), "inference"), "conv2d add")


def frozen_model(fold: bool, trained_too: bool = False) -> mg.Model:
    """A float64 network with a frozen batch norm before a padded convolution, one behind, and maybe one that trains."""
    draw = initializers.RandomNormal(stddev=0.5, seed=1)

    def weight(name: str, *shape: int) -> Node:
        return variable(shape, name=name, dtype="float64", init=draw)

    def norm(**options: Any) -> Any:
        return layers.BatchNorm(fold=fold, frozen=True, gamma_initializer=draw, moving_mean_initializer=draw, **options)

    with mg.fresh_names():
        image = mg.Input((6, 5, 3), name="image", dtype="float64")
        x = ops.conv2d(norm()(image), weight("kernel", 3, 3, 3, 4), padding="same") + weight("bias", 4)
        x = norm(beta_initializer=draw)(x)
        x = layers.BatchNorm()(x) if trained_too else x
        model = mg.Model(image, ops.flatten(ops.relu(x)) @ weight("dense", 120, 2))
    model.compile(optimizer=mg.optimizers.SGD(1.0), loss="mse")
    return model


@pytest.mark.parametrize("trained_too", [False, True])
def test_row_18_frozen_batch_norms_fold_in_a_training_program(trained_too):
    rng = np.random.default_rng(0)
    data = {"image": rng.normal(size=(4, 6, 5, 3)), "label": rng.normal(size=(4, 2))}
    models = [frozen_model(fold, trained_too) for fold in (True, False)]
    # A batch norm's own backward pass would be there as well.
    graphs = [model.lower("training", batch_size=4) for model in models]
    assert [data_ops(graph).split().count("batch_norm") for graph in graphs] == [trained_too, 2 + trained_too]
    start = {label: array.copy() for label, array in models[0].state.items()}
    for model in models:
        assert all((model.state[label] == array).all() for label, array in start.items())
        model.program("training")(model.state, **data)
    # With a learning rate of 1 the step is the gradient.
    steps = [{label: model.state[label] - array for label, array in start.items()} for model in models]
    moved = {label for label, step in steps[1].items() if np.abs(step).max() > 1e-3}
    norms = [f"batch_normalization{end}" for end in ("", "_1", "_2")[: 2 + trained_too]]
    averages = {f"{norms[2]}/moving_{name}" for name in ("mean", "variance")} if trained_too else set()
    affine = {f"{norm}/{name}" for norm in norms for name in ("gamma", "beta")}
    # What the batch's mean takes away has no gradient: the shifts right before a batch norm that trains.
    shifts = {"bias", f"{norms[1]}/beta"} if trained_too else set()
    assert moved == {"kernel", "bias", "dense", "optimizer/iterations", *averages, *affine} - shifts
    for label, step in steps[1].items():
        np.testing.assert_allclose(steps[0][label], step, rtol=1e-10, atol=1e-10, err_msg=label)


@variants({}, NCHW)
def test_row_18_gradients_to_all_operands_are_those_of_the_unfolded(net):
    x = net.norm(net.bias(net.conv(net.norm(net.image()), padding="same")))
    before = as_graph(ops.sum(ops.tanh(x)))
    after = run([FOLD_BATCH_NORM], before)[0]
    assert "batch_norm" not in data_ops(after)
    backward = []
    for graph in (before, after):
        wanted = sorted(graph.variables, key=lambda v: v.label)
        gradients = mg.gradients(graph.outputs["y"], wanted)
        backward.append(Graph({v.label: g for v, g in zip(wanted, gradients, strict=True)}, inputs=graph.inputs))
    assert len(backward[0].outputs) == 10
    assert_within_bounds(backward[0], [(backward[1], backward[1])], net.values)
    if net.dtype == "float64":
        unfolded, folded = (compute(graph, net.values) for graph in backward)
        for label, gradient in unfolded.items():
            assert np.abs(gradient).max() > 1e-3
            np.testing.assert_allclose(folded[label], gradient, rtol=1e-10, atol=1e-10)


# --- parameters -------------------------------------------------------------------------------------------------------


@variants({}, {"scale": False}, {"center": False}, {"scale": False, "center": False},
          {**NCHW, "scale": False, "center": False})  # fmt: skip
def test_row_19_without_scale_or_centre(net, options):
    operands = list(net.statistics(6))
    for place, name, value in ((0, "scale", 1.0), (1, "center", 0.0)):
        if not options.get(name, True):
            operands[place] = Node(Constant.full(TensorType((6,), net.dtype), value))
    norm = net.norm(net.conv(net.image()), operands=tuple(operands))
    # t = 0 − mean·s: in float64, where nothing is rounded behind it, the pipeline subtracts mean·s instead.
    subtracts = (net.dtype, net.layout, options.get("center")) == ("float64", "NHWC", False)
    folds(net, norm, "conv2d add", "conv2d sub" if subtracts else "conv2d add")


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("scale", [True, False])
def test_row_19_layers_without_scale_or_centre(scale, center):
    with mg.fresh_names():
        x = image = mg.Input((6, 5, 4), name="x")
        x = layers.BatchNormalization(scale=scale, center=center)(layers.Conv2D(6, 3, use_bias=False)(x))
    graph = mg.lower(Graph({"y": x}, inputs=[image]), "inference")
    assert len(graph.variables) == 3 + scale + center
    net = Net("float32", symbolic=True)
    net.image()
    net.values |= {v.label: np.float32(net.rng.uniform(0.5, 1.5, v.shape)) for v in graph.variables}
    folds(net, graph, "conv2d add")


@variants({}, NCHW, SYMBOLIC)
def test_row_20_refused_without_moving_statistics(net):
    conv = net.conv(net.image())
    mean, variance = ops.moments(conv, [a for a in range(4) if a != net.axis])
    operands = (*net.statistics(6)[:2], mean, variance)
    refuses(net, net.norm(conv, operands=operands), "no moving statistics are kept: there are none to fold")


@variants({"place": 1}, {"place": 2}, {"place": 3}, {"place": 4}, dtypes=WIDE)
def test_row_20_refused_where_an_operand_is_computed_from_data(net, options):
    place = options["place"]
    operands = list(net.statistics(6))
    operands[place - 1] = ops.exp(net.input(6)[0])
    name = ("gamma", "beta", "mean", "variance")[place - 1]
    refuses(net, net.norm(net.conv(net.image()), operands=tuple(operands)), f"its {name} is computed from data")


@variants({}, {"behind": True}, NCHW, {**NCHW, "behind": True}, dtypes=("float32", "float16"))
def test_row_21_parameters_are_folded_in_float64_and_rounded_once(net, options):
    behind = options.get("behind", False)
    norm = net.norm(net.conv(net.image())) if not behind else net.norm(net.image())
    folded = folds(net, norm if not behind else net.conv(norm), "conv2d add")
    w, gamma, beta, mean, variance = (
        net.values[label].astype(np.float64) for label in ("w", "gamma", "beta", "mean", "variance")
    )
    scale = gamma / np.sqrt(variance + 1e-3)
    shift = beta - mean * scale
    shape, axes = {
        ("NHWC", False): ((6,), None), ("NCHW", False): ((6, 1, 1, 1), None),
        ("NHWC", True): ((4, 1), (0, 1, 2)), ("NCHW", True): ((4, 1, 1), (1, 2, 3)),
    }[net.layout, behind]  # fmt: skip
    bias = shift if axes is None else (w * shift.reshape(shape)).sum(axes)
    expected = {(w * scale.reshape(shape)).astype(net.dtype).tobytes(), bias.astype(net.dtype).tobytes()}
    assert {n.op.data for n in folded.final.nodes if isinstance(n.op, Constant)} == expected


@variants({}, {"behind": True}, {**NCHW}, {**NCHW, "behind": True}, dtypes=("float16", "float32"))
def test_row_21_variance_0_and_an_epsilon_below_the_dtype(net, options):
    # 1e-8 is 0 in float16: before the fold a quotient by 0, after it a scale of 1e4·γ.
    channels = 4 if options.get("behind") else 6
    gamma = np.linspace(-1e-2, 1e-2, channels)
    if options.get("behind"):
        y = net.conv(net.norm(net.image(), gamma=gamma, variance=0, epsilon=1e-8))
    else:
        y = net.norm(net.conv(net.image()), gamma=gamma, variance=0, epsilon=1e-8)
    folds(net, y, "conv2d add")


@variants({}, {"place": "kernel behind"}, {"place": "bias behind"}, {"place": "shift before a relu"},
          {**NCHW, "place": "shift before a relu"}, dtypes=("float16",))  # fmt: skip
def test_row_21_refused_where_a_folded_number_overflows_float16(net, options):
    # Everything fits into float16, data and results too; w·s, Σ w·t or t/s would not.
    place = options.get("place", "kernel before")
    x, weight = net.image(), 10.0
    beta, gamma, mean, variance = 1.0, 8.0, 0.0, 1e-6  # s = 8000
    net.values["x"] *= 1e-3
    if place == "bias behind":
        net.values["x"] += 1000.0
        beta, gamma, mean, variance, weight = 0.0, 1.0, 1000.0, 1.0, 2.5
    elif place == "shift before a relu":
        beta, gamma, variance, weight = 3000.0, 1e-2, 2.0, 1e-2
    kernel = net.variable("w", np.full((3, 3, 4, 4) if net.layout == "NHWC" else (4, 4, 3, 3), weight))
    operands = tuple(net.variable(name, np.full(4, value)) for name, value in
                     (("gamma", gamma), ("beta", beta), ("mean", mean), ("variance", variance)))  # fmt: skip
    if place == "kernel before":
        y = net.norm(net.conv(x, kernel=kernel), operands=operands, epsilon=0.0)
    else:
        norm = net.norm(x, operands=operands, epsilon=0.0)
        y = net.conv(ops.relu(norm) if "relu" in place else norm, kernel=kernel)
    refuses(net, y, "overflow: a folded parameter reaches", at=y)


@variants({"inner": "float16", "outer": "float32"}, {"inner": "float32", "outer": "float64"},
          {"inner": "float32", "outer": "float16"}, {**NCHW, "inner": "float16", "outer": "float32"},
          dtypes=("float16",))  # fmt: skip
def test_row_22_a_batch_norm_wider_than_its_convolution(net, options):
    net.dtype = options["inner"]
    x = ops.cast(net.conv(net.image()), options["outer"])
    folds(net, net.norm(x), "conv2d cast add")


@variants({"bias": False}, {"bias": True}, dtypes=("float16",))
def test_row_22_a_batch_norm_between_casts(net, options):
    x = net.conv(net.image())
    x = ops.cast(net.bias(x) if options["bias"] else x, "float32")
    left = "conv2d add add" if options["bias"] else "conv2d add"
    folds(net, ops.cast(net.norm(x), "float16"), left, "conv2d add")


@variants({}, dtypes=WIDE)
def test_row_22_the_sum_stays_wide_where_it_is_read_wide(net):
    net.dtype = "float16"
    y = net.norm(ops.cast(net.conv(net.image()), "float32"))
    folds(net, {"y": y, "z": ops.cast(y, "float16")}, "conv2d cast add cast")


# --- branches ---------------------------------------------------------------------------------------------------------


def two(net: Net) -> Node:
    return net.conv(net.image()) + net.conv(net.image())


def three(net: Net) -> Node:
    return net.conv(net.image()) + (net.conv(net.image()) + net.conv(net.image()))


def difference(net: Net) -> Node:
    return net.conv(net.image()) - net.conv(net.image())


def biased(net: Net) -> Node:
    return net.bias(net.conv(net.image())) + net.bias(net.conv(net.image()))


def scaled(net: Net) -> Node:
    return net.conv(net.image()) * 0.5 - (-net.conv(net.image())) / 4.0


SUMS: dict[Callable[[Net], Node], str] = {
    two: "conv2d add conv2d add", three: "conv2d add conv2d conv2d add add", difference: "conv2d add conv2d sub",
    biased: "conv2d add conv2d add add", scaled: "conv2d add conv2d sub",
}  # fmt: skip


@variants(*({"sum": each} for each in SUMS), {**NCHW, "sum": two}, {**SYMBOLIC, "sum": difference},
          {**NCHW, "sum": biased})  # fmt: skip
def test_row_23_a_sum_of_convolutions(net, options):
    folds(net, net.norm(options["sum"](net)), SUMS[options["sum"]])


@variants({}, NCHW, dtypes=WIDE)
def test_row_23_a_sum_that_a_file_had_as_one_op(net):
    branches = [net.conv(net.image()) for _ in range(3)]
    (x,) = function("Sum", branches, [branches[0] + branches[1] + branches[2]])
    folds(net, net.norm(x), "conv2d add conv2d add conv2d add")


@variants({}, dtypes=WIDE)
def test_row_23_refused_with_a_function_that_is_not_linear(net):
    x = net.conv(net.image())
    refuses(net, net.norm(function("Twice", [x], [ops.relu(x) + x])[0]), "Twice stands between, which is not linear")


@variants({}, dtypes=WIDE)
def test_row_23_refused_with_an_identity_branch(net):
    image = net.image(6, 5, 5)
    reason = "a branch of the addition cannot take the scale: "
    refuses(net, net.norm(net.conv(image, padding="same") + image), reason + "second use: x is read 2 times")
    refuses(net, net.norm(net.conv(image) + net.image(6, 3, 3)), reason + "nothing linear comes before it")
    refuses(net, net.norm(ops.relu(net.conv(image)) + net.conv(image)), reason + "relu stands between")


@variants({}, dtypes=WIDE)
def test_row_23_refused_with_a_broadcast_branch(net):
    pooled = net.conv(net.image(4, 3, 3))
    refuses(net, net.norm(net.conv(net.image()) + pooled), "a branch of the addition is broadcast")


@variants({"axis": 3}, {**NCHW, "axis": 1}, {"axis": 1}, {**NCHW, "axis": 3}, {**SYMBOLIC, "axis": 3})
def test_row_24_a_concatenation(net, options):
    both = ops.concat([net.conv(net.image()), net.conv(net.image(4))], options["axis"])
    folds(net, net.norm(both), "conv2d add conv2d add concat")


@variants({"axis": 3}, {**NCHW, "axis": 1}, {"axis": 1})
def test_row_24_a_branch_that_cannot_take_its_part_keeps_a_narrow_affine(net, options):
    branches = [net.conv(net.image()), ops.relu(net.conv(net.image())), net.bias(net.conv(net.image()))]
    x = net.norm(ops.concat(branches, options["axis"]))
    folds(net, x, "conv2d add conv2d relu mul add conv2d add concat")


@variants({}, dtypes=WIDE)
def test_row_24_refused_where_no_branch_can(net):
    both = ops.concat([ops.relu(net.conv(net.image())), ops.tanh(net.conv(net.image()))])
    refuses(net, net.norm(both), "no branch of the concatenation can take its part: relu stands between")
    conv = net.conv(net.image())
    refuses(net, net.norm(ops.concat([conv, conv])), "no branch of the concatenation can take its part: second use")


# --- through what only moves ------------------------------------------------------------------------------------------


@variants({}, NCHW, SYMBOLIC)
def test_row_25_through_a_reshape(net):
    conv = net.conv(net.image())
    n, *rest = conv.shape
    shape = (n, rest[0] * rest[1], rest[2]) if net.layout == "NHWC" else (n, rest[0], rest[1] * rest[2])
    axis = 2 if net.layout == "NHWC" else 1
    folds(net, net.norm(ops.reshape(conv, shape), axis), "conv2d add reshape")


@variants({}, NCHW, SYMBOLIC)
def test_row_25_through_a_transpose(net):
    order = (0, 3, 1, 2) if net.layout == "NHWC" else (0, 2, 3, 1)
    x = ops.transpose(net.conv(net.image(5, 5, 5), 3), order)
    folds(net, net.norm(x, axis=order.index(net.axis)), "conv2d add transpose")


@variants({"axis": 3}, {"axis": 4}, {**NCHW, "axis": 1}, {**NCHW, "axis": 2}, {**SYMBOLIC, "axis": 4})
def test_row_25_through_a_reshape_that_splits_the_channels(net, options):
    conv = net.conv(net.image())
    at = net.axis
    shape = (*conv.shape[:at], 3, 2, *conv.shape[at + 1 :])
    folds(net, net.norm(ops.reshape(conv, shape), options["axis"]), "conv2d add reshape")


@variants({}, dtypes=WIDE)
def test_row_25_refused_where_the_axis_is_taken_apart(net):
    conv = net.conv(net.image())
    together = ops.reshape(conv, (2, 4, 18))
    refuses(net, net.norm(together), "the reshape takes the axis apart")
    refuses(net, net.norm(ops.transpose(net.conv(net.image(4, 6, 6), 4), (0, 3, 1, 2))), "axes differ")


@variants({}, NCHW, SYMBOLIC, {"padding": "same"}, {"padding": 1, "strides": 2})
def test_row_25_through_an_average_pool(net, options):
    x = ops.avg_pool2d(net.conv(net.image()), 2, layout=net.layout, **options)
    folds(net, net.norm(x), "conv2d add avg_pool2d")


@variants({"padding": "same"}, {**NCHW, "padding": 1})
def test_row_25_through_an_average_that_counts_its_padding(net, options):
    x = ops.avg_pool2d(net.conv(net.image()), 2, layout=net.layout, count_padding=True, **options)
    folds(net, net.norm(x), "conv2d avg_pool2d add")


@variants({}, NCHW, {"padding": "same"})
def test_row_25_through_a_maximum_where_the_scale_is_positive(net, options):
    x = ops.max_pool2d(net.conv(net.image()), 2, layout=net.layout, **options)
    folds(net, net.norm(x, gamma=[1, 2, 0.5, 1, 1, 3]), "conv2d add max_pool2d", symbolic=False)


@variants({"op": "max"}, {**NCHW, "op": "max", "keepdims": True}, {"op": "min", "keepdims": True})
def test_row_25_through_an_extreme_where_the_scale_is_positive(net, options):
    axes = tuple(a for a in (1, 2, 3) if a != net.axis)
    x = getattr(ops, options["op"])(net.conv(net.image()), axes, options.get("keepdims", False))
    y = net.norm(x, axis=net.axis if options.get("keepdims") else 1, gamma=[1, 2, 0.5, 1, 1, 3])
    folds(net, y, f"conv2d add {options['op']}", symbolic=False)


@variants({}, dtypes=WIDE)
def test_row_25_refused_where_the_signs_are_mixed(net):
    refuses(net, net.norm(ops.max(net.conv(net.image()), (1, 2)), axis=1), "sign: the scale is -")
    refuses(net, net.norm(ops.max_pool2d(net.conv(net.image()))), "sign: the scale is -")
    pooled = ops.max_pool2d(net.conv(net.image(4, 12, 12), 5))
    refuses(net, net.norm(pooled, axis=1), "axes differ: the pool runs along the batch norm's axis")
    refuses(net, net.norm(ops.avg_pool2d(net.conv(net.image(4, 12, 12))), axis=2), "axes differ")


@variants({"op": "mean"}, {**NCHW, "op": "mean"}, {"op": "mean", "keepdims": True}, {**SYMBOLIC, "op": "mean"})
def test_row_25_through_a_mean(net, options):
    axes = tuple(a for a in (1, 2, 3) if a != net.axis)
    x = ops.mean(net.conv(net.image()), axes, options.get("keepdims", False))
    folds(net, net.norm(x, axis=net.axis if options.get("keepdims") else 1), "conv2d add mean")


@variants({}, {"keepdims": True}, NCHW)
def test_row_25_through_a_sum(net, options):
    axes = tuple(a for a in (1, 2, 3) if a != net.axis)
    x = ops.sum(net.conv(net.image()), axes, options.get("keepdims", False))
    folds(net, net.norm(x, axis=net.axis if options.get("keepdims") else 1), "conv2d sum add")


@variants({}, dtypes=WIDE)
def test_row_25_refused_where_the_axis_is_summed_up(net):
    x = ops.mean(net.conv(net.image()), 3, keepdims=False)
    refuses(net, net.norm(x, axis=1), "axes differ")
    kept = ops.mean(net.conv(net.image()), 3, keepdims=True)
    refuses(net, net.norm(kept, axis=3), "axes differ: the batch norm's axis was reduced")


@variants({}, NCHW)
def test_row_25_through_zero_padding(net):
    spatial = [(0, 0) if a in (0, net.axis) else (1, 2) for a in range(4)]
    folds(net, net.norm(ops.pad(net.conv(net.image()), spatial)), "conv2d pad add")
    refuses(net, net.norm(ops.pad(net.conv(net.image()), spatial, 0.5)), "the padding holds 0.5")


@variants({}, dtypes=WIDE)
def test_row_25_refused_where_the_padding_adds_channels(net):
    padded = ops.pad(net.conv(net.image()), [(0, 0), (0, 0), (0, 0), (0, 2)])
    refuses(net, net.norm(padded), "axes differ: the padding grows the batch norm's axis")


# --- several ----------------------------------------------------------------------------------------------------------


@variants({}, NCHW, {"strides": 2, "padding": "same"}, SYMBOLIC)
def test_row_26_padding_convolution_batch_norm(net, options):
    spatial = [(0, 0) if a in (0, net.axis) else (1, 2) for a in range(4)]
    folds(net, net.norm(net.conv(ops.pad(net.image(), spatial), **options)), "pad conv2d add", "conv2d add")


@variants({})
def test_row_26_padding_with_another_value_stays(net):
    x = ops.pad(net.image(), [(0, 0), (1, 1), (1, 1), (0, 0)], 0.5)
    folds(net, net.norm(net.conv(x)), "pad conv2d add")


@variants({}, NCHW, SYMBOLIC, {**NCHW, "relu": False}, {"relu": False}, {"deep": 12})
def test_row_27_all_of_a_stack_in_one_run(net, options):
    x = net.image(4)
    depth = options.get("deep", 3)
    for _ in range(depth):
        x = net.norm(net.conv(x, 4, padding="same"))
        x = ops.relu(x) if options.get("relu", True) else x
    folded = folds(net, x, " ".join([data_ops(as_graph(x)).replace("batch_norm", "add")]))
    (step,) = folded.alone_trace.steps
    assert [r.rule for r in step.rewrites] == ["batch_norm_of_linear"] * depth


@variants({}, NCHW, SYMBOLIC, {"padding": "valid"})
def test_row_27_batch_norms_on_both_sides_of_convolutions(net, options):
    x = net.image(5, 5, 5)
    for _ in range(2):  # channels, height and width are equal: nothing may be laid along the wrong axis
        x = ops.relu(net.norm(net.conv(net.norm(x), 5, padding=options.get("padding", "same"))))
    folds(net, x, "conv2d add relu conv2d add relu")


@variants({}, NCHW, SYMBOLIC)
def test_row_28_a_batch_norm_on_the_input_stays_one_affine(net):
    refuses(net, net.norm(net.image()), "nothing linear comes before it: it normalises an input")


@variants({}, NCHW, SYMBOLIC)
def test_row_28_batch_norms_in_a_row_become_one(net):
    graph, state = as_graph(net.norm(net.norm(net.norm(net.image())))), net.state()
    final, trace = mg.optimize(graph, state, verify_each=True)
    assert data_ops(final) == "batch_norm"
    assert_within_bounds(graph, [(trace.step("freeze").before, final)], net.values, net.sizes)
    notes = [note.text for rewrite in trace.rewrites for note in rewrite.notes]
    assert notes == ["merged into the batch norm before it: one affine is left"] * 2


@variants({}, NCHW)
def test_row_28_batch_norms_in_a_row_fold_into_a_convolution(net):
    folds(net, net.norm(net.norm(net.conv(net.image()))), "conv2d add")


@variants({}, NCHW)
def test_row_28_an_affine_chain_around_a_batch_norm_becomes_part_of_it(net):
    factor, addend = (net.laid(net.random("c", 4), net.axis, 4) for _ in range(2))
    x = ((net.norm((net.image() * factor + addend) / 3.0) - addend) * 2.0) * factor
    graph = as_graph(x)
    final, trace = mg.optimize(graph, net.state(), verify_each=True)
    assert data_ops(final) == "batch_norm"
    assert_within_bounds(graph, [(trace.step("freeze").before, final)], net.values, net.sizes)


@variants(
    {"dilations": 2, "padding": "same"}, {"strides": 2, "padding": "same", "size": 2},
    {"padding": "same", "size": (4, 2)}, {"padding": "same", "size": (2, 2), "dilations": (1, 2)},
    {**NCHW, "strides": (2, 1), "padding": "same", "size": 4},
    {**NCHW, "padding": "same", "size": 2, "dilations": 2}, {**SYMBOLIC, "padding": "same", "size": 2, "strides": 2},
)  # fmt: skip
def test_row_29_strides_dilations_and_same_padding_of_even_kernels(net, options):
    folds(net, net.norm(net.conv(net.image(), **options)), "conv2d add")
    folds(net, net.conv(net.norm(net.image()), **options), "conv2d add")


@variants({}, SYMBOLIC)
def test_row_30_a_batch_norm_that_is_an_output(net):
    norm = net.norm(net.conv(net.image()))
    folds(net, {"y": norm, "z": ops.relu(norm), "again": norm}, "conv2d add relu")


@variants({}, SYMBOLIC, dtypes=WIDE)
def test_row_30_refused_where_the_convolution_is_an_output(net):
    conv = net.conv(net.image())
    refuses(net, {"y": net.norm(conv), "features": conv}, "second use: conv2d is read as output 'features'")


@variants({}, dtypes=WIDE)
def test_row_30_refused_where_an_update_reads_the_convolution(net):
    conv = net.conv(net.image())
    seen = variable(conv.shape, name="seen", dtype=net.dtype)
    net.values["seen"] = np.zeros(conv.shape, net.dtype)
    refuses(net, Graph({"y": net.norm(conv)}, {seen: conv}), "read as the update of 'seen'")


def spellings(net: Net) -> dict[str, Node]:
    """The same network, its arguments by position, by keyword, and left out."""
    x, w = net.image(), net.kernel(4, 6)
    g, b, m, v = net.statistics(6)
    conv, norm = ops.conv2d, ops.batch_norm
    return {
        "default": norm(conv(x, w), g, b, m, v),
        "positional": norm(conv(x, w, 1, "valid", 1, 1, "NHWC"), g, b, m, v, -1, 1e-3),
        "keyword": norm(
            variance=v, mean=m, beta=b, gamma=g, epsilon=0.001, axis=3,
            x=conv(kernel=w, x=x, layout="NHWC", groups=1, dilations=(1, 1), padding="VALID", strides=[1, 1]),
        ),
        "mixed": norm(conv(x, w, strides=1, padding="valid"), g, b, m, v, epsilon=1e-3, axis=-1),
        "op": Node(BatchNorm(), (conv(x, w), g, b, m, v)),
        "numpy": norm(conv(x, w, np.int64(1), dilations=(np.int64(1), 1)), g, b, m, v, np.int64(-1), np.float64(1e-3)),
    }  # fmt: skip


@variants({})
def test_row_31_arguments_by_keyword_default_or_position(net):
    texts = set()
    for name, y in spellings(net).items():
        folded = folds(net, y, "conv2d add")
        texts.add(str(folded.final) + re.sub(r"%\d+", "%", str(folded.alone)))
        assert len(texts) == 1, name


@variants({}, dtypes=("float32",))
def test_row_31_layers_by_keyword_default_or_position(net):
    made = [
        lambda x: layers.BatchNormalization()(layers.Conv2D(6, 3)(x)),
        lambda x: layers.BatchNorm(-1, 0.99, 1e-3, True, True)(layers.Conv2D(6, (3, 3), 1, "valid")(x)),
        lambda x: layers.BatchNorm(epsilon=0.001, axis=3)(layers.Conv2D(padding="VALID", kernel_size=3, filters=6)(x)),
    ]  # fmt: skip
    texts = set()
    for make in made:
        with mg.fresh_names():
            image = mg.Input((6, 5, 4), name="x")
            graph = mg.lower(Graph({"y": make(image)}, inputs=[image]), "inference")
        texts.add(str(mg.optimize(graph, mg.State.initial(graph.variables))[0]))
    assert len(texts) == 1


@variants({}, NCHW)
def test_row_32_channels_with_gamma_0_are_dead(net):
    gamma = [1.0, 0.0, -2.0, 0.5, 0.0, 1.0]
    folded = folds(net, net.norm(net.conv(net.image()), gamma=gamma), "conv2d add")
    assert "2 of 6 channels are constant, γ = 0: 1, 4" in folded.notes
    y, beta = compute(folded.final, net.values)["y"], net.values["beta"]
    channels = np.moveaxis(y, net.axis, -1)
    assert (channels[..., [1, 4]] == beta[[1, 4]]).all() and np.ptp(channels[..., 0]) > 0


@variants({"padding": "same"}, {"gamma": 0.0, "padding": "same"}, {"gamma": 0.0})
def test_row_32_gamma_0_before_a_convolution(net, options):
    gamma = options.pop("gamma", [1.0, 0.0, 0.0, -1.0])
    folded = folds(net, net.conv(net.norm(net.image(), gamma=gamma), **options), "conv2d add")
    dead = [i for i in range(4) if np.broadcast_to(gamma, 4)[i] == 0]
    assert f"{len(dead)} of 4 channels are constant, γ = 0: {', '.join(map(str, dead))}" in folded.notes


@variants({"gamma": 0.0})
def test_row_32_gamma_0_everywhere(net, options):
    folded = folds(net, net.norm(net.conv(net.image()), **options), "conv2d add")
    assert "6 of 6 channels are constant, γ = 0: 0, 1, 2, 3, 4, 5" in folded.notes


# --- what must be refused ---------------------------------------------------------------------------------------------


@variants({}, NCHW, {"behind": True})
def test_row_33_refused_where_the_layer_asks_not_to(net, options):
    if options:
        conv = net.conv(net.norm(net.image(), fold=False))
        refuses(net, conv, "asked not to: fold=False", at=conv)
    else:
        refuses(net, net.norm(net.conv(net.image()), fold=False), "asked not to: fold=False")


@variants({})
def test_row_33_a_layer_that_is_left_alone_is_not_merged_either(net):
    x = net.norm(net.norm(net.image() * 2.0, fold=False)) * 2.0
    assert data_ops(mg.optimize(as_graph(x), net.state())[0]) == "mul batch_norm batch_norm"


def test_row_33_refused_where_layers_ask_not_to():
    with mg.fresh_names():
        image = mg.Input((6, 5, 4))
        model = mg.Model(image, layers.BatchNorm(fold=False)(layers.Conv2D(6, 3)(image)))
    final, trace = mg.optimize(model.lower("inference"), model.state)
    assert data_ops(final) == "conv2d add batch_norm"
    norm = batch_norms(trace.before)[0]
    assert trace.why_not(PASS, norm).reason == "asked not to: fold=False"


def blocks(net: Net) -> Graph:
    """Two blocks of a convolution and a batch norm, each in its scope."""
    x = net.image(4)
    for name in ("block1", "block2"):
        with scope(name):
            x = ops.relu(net.norm(net.conv(x, 4, padding="same")))
    return as_graph(x)


@pytest.mark.parametrize(("exclude", "left"), [
    ("scope:block1", "conv2d batch_norm relu conv2d add relu"), ("scope:block?", "conv2d batch_norm relu " * 2),
    (PASS, "conv2d batch_norm relu " * 2), ("batch_norm_of_linear", "conv2d batch_norm relu " * 2),
])  # fmt: skip
def test_row_33_refused_by_scope_by_pass_and_by_rule(exclude, left):
    net = Net()
    graph = blocks(net)
    norm = batch_norms(graph)[0]
    final, trace = mg.optimize(graph, net.state(), exclude=(exclude,), verify_each=True)
    assert data_ops(final) == left.strip()
    assert trace.why_not(PASS, norm).reason == "excluded from this run"
    assert_within_bounds(graph, [(trace.step("freeze").before, final)], net.values)


def test_row_33_a_batch_norm_of_an_excluded_scope_does_not_go_into_what_reads_it():
    net = Net()
    with scope("block1"):
        x = net.norm(ops.relu(net.image(4)))
    with scope("block2"):
        x = net.conv(x)
    final = mg.optimize(as_graph(x), net.state(), exclude=("scope:block1",))[0]
    assert data_ops(final) == "relu batch_norm conv2d"


BAD = [("variance", -0.5), ("variance", math.nan), ("variance", math.inf), ("gamma", math.nan), ("mean", math.inf)]


@variants(*({"which": which, "value": value} for which, value in BAD))
@pytest.mark.parametrize("behind", [False, True])
def test_row_34_refused_where_a_number_is_bad(net, options, behind):
    which, value = options["which"], options["value"]
    y = net.conv(net.norm(net.image())) if behind else net.norm(net.conv(net.image()))
    net.values[which][3] = value
    refuses(net, y, f"{which!r} is {value:g} in channel 3", at=y, numbers=False)


@variants({}, {"behind": True}, dtypes=WIDE)
def test_row_34_refused_where_a_standard_deviation_is_0(net, options):
    channels = 4 if options else 6
    variance = np.where(np.arange(channels) == 2, 0.0, 1.0)
    x = net.image()
    y = net.norm(x if options else net.conv(x), variance=variance, epsilon=0.0)
    y = net.conv(y) if options else y
    refuses(net, y, "'variance' is 0 in channel 2", at=y, numbers=False)


def test_row_34_freezing_refuses_a_negative_variance_that_was_folded_without_numbers():
    net = Net()
    graph = mg.optimize(as_graph(net.norm(net.conv(net.image()))))[0]
    net.values["variance"][3] = -0.5
    with pytest.raises(DataError, match="not finite") as caught:
        mg.freeze(graph, net.state())
    assert "variance ≥ 0" in caught.value.expected


# --- the matrix itself ------------------------------------------------------------------------------------------------


def test_every_row_has_a_test():
    named = {int(match[1]) for name in globals() if (match := re.match(r"test_row_(\d\d)_", name))}
    assert named == set(range(1, ROWS + 1))
