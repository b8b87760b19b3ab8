"""Channels first becomes channels last: pictures for each rule, numbers, and how few transposes are left."""

from __future__ import annotations

import numpy as np
import pytest

import minigraph as mg
from minigraph import layers, ops
from minigraph.ir import Graph, variable
from minigraph.ir.leaves import input as input_
from minigraph.passes import CHANNELS_LAST, layout, run
from passes.pictures import check, unchanged

X = '%0 = input("x") : float32[1,2,4,5]\n'
XT = X + "%1 = transpose(%0, axes=(0, 2, 3, 1)) : float32[1,4,5,2]\n"

APPLIES = {
    layout.channels_first_op: [
        (X + '%1 = max_pool2d(%0, layout="NCHW") : float32[1,2,2,2] return y=%1',
         XT + "%2 = max_pool2d(%1) : float32[1,2,2,2] %3 = transpose(%2, axes=(0, 3, 1, 2)) : float32[1,2,2,2] "
         "return y=%3"),
        (X + '%1 = variable("k") : float32[3,2,1,1] %2 = conv2d(%0, %1, layout="NCHW") : float32[1,3,4,5] return y=%2',
         XT + '%2 = variable("k") : float32[3,2,1,1] %3 = transpose(%2, axes=(2, 3, 1, 0)) : float32[1,1,2,3]\n'
         "%4 = conv2d(%1, %3) : float32[1,4,5,3] %5 = transpose(%4, axes=(0, 3, 1, 2)) : float32[1,3,4,5] return y=%5"),
    ],
    layout.region_in_the_way: [
        (X + '%1 = variable("w") : float32[3,2,2,2]\n'
         '%2 = fused(%0, %1, body=(step(op=conv2d(layout="NCHW"), inputs=(0, 1)), '
         "step(op=relu(), inputs=(2,)))) : float32[1,3,3,4] return y=%2",
         X + '%1 = variable("w") : float32[3,2,2,2] %2 = conv2d(%0, %1, layout="NCHW") : float32[1,3,3,4]\n'
         "%3 = relu(%2) : float32[1,3,3,4] return y=%3"),
    ],
    layout.batch_norm_channels_last: [
        (XT + '%2 = variable("v") : float32[5] %3 = batch_norm(%1, %2, %2, %2, %2, axis=2) : float32[1,4,5,2] '
        'return y=%3',
         X + '%1 = variable("v") : float32[5] %2 = batch_norm(%0, %1, %1, %1, %1, axis=3) : float32[1,2,4,5]\n'
         "%3 = transpose(%2, axes=(0, 2, 3, 1)) : float32[1,4,5,2] return y=%3"),
    ],
    layout.moments_of_transpose: [
        (XT + "%2 = moments(%1, axes=(0, 1, 2)) : (float32[2], float32[2]) %3 = item(%2, index=1) : float32[2] "
        "return y=%3",
         X + "%1 = moments(%0, axes=(0, 2, 3)) : (float32[2], float32[2]) %2 = item(%1, index=1) : float32[2] "
         "return y=%2"),
    ],
    layout.elementwise_of_transposes: [
        (XT + "%2 = exp(%1) : float32[1,4,5,2] return y=%2",
         X + "%1 = exp(%0) : float32[1,2,4,5] %2 = transpose(%1, axes=(0, 2, 3, 1)) : float32[1,4,5,2] return y=%2"),
        (XT + "%2 = constant(2.0) : float32[] %3 = sub(%2, %1) : float32[1,4,5,2] return y=%3",
         X + "%1 = constant(2.0) : float32[] %2 = sub(%1, %0) : float32[1,2,4,5]\n"
         "%3 = transpose(%2, axes=(0, 2, 3, 1)) : float32[1,4,5,2] return y=%3"),
        (XT + '%2 = input("z") : float32[2] %3 = add(%1, %2) : float32[1,4,5,2] return y=%3',
         X + '%1 = input("z") : float32[2] %2 = reshape(%1, shape=(1, 2, 1, 1)) : float32[1,2,1,1]\n'
         "%3 = add(%0, %2) : float32[1,2,4,5] %4 = transpose(%3, axes=(0, 2, 3, 1)) : float32[1,4,5,2] return y=%4"),
        (XT + '%2 = input("z") : float32[4,1,1] %3 = sub(%2, %1) : float32[1,4,5,2] return y=%3',
         X + '%1 = input("z") : float32[4,1,1] %2 = reshape(%1, shape=(1, 1, 4, 1)) : float32[1,1,4,1]\n'
         "%3 = sub(%2, %0) : float32[1,2,4,5] %4 = transpose(%3, axes=(0, 2, 3, 1)) : float32[1,4,5,2] return y=%4"),
        (XT + '%2 = input("z") : float32[1,2,4,1] %3 = transpose(%2, axes=(0, 2, 3, 1)) : float32[1,4,1,2]\n'
         "%4 = mul(%1, %3) : float32[1,4,5,2] return y=%4",
         X + '%1 = input("z") : float32[1,2,4,1] %2 = mul(%0, %1) : float32[1,2,4,5]\n'
         "%3 = transpose(%2, axes=(0, 2, 3, 1)) : float32[1,4,5,2] return y=%3"),
    ],
}  # fmt: skip

STAYS = {
    layout.region_in_the_way: [
        X + "%1 = fused(%0, body=(step(op=exp(), inputs=(0,)), step(op=relu(), inputs=(1,)))) : float32[1,2,4,5]\n"
        "return y=%1"
    ],
    layout.channels_first_op: [X + "%1 = max_pool2d(%0) : float32[1,1,2,5] return y=%1"],
    layout.batch_norm_channels_last: [
        X + '%1 = variable("v") : float32[2] %2 = batch_norm(%0, %1, %1, %1, %1, axis=1) : float32[1,2,4,5] '
        'return y=%2',
    ],
    layout.moments_of_transpose: [
        # What is left would come in another order.
        XT + "%2 = moments(%1, axes=(0, 1)) : (float32[5,2], float32[5,2]) %3 = item(%2, index=0) : "
        "float32[5,2] return y=%3",
    ],
    layout.elementwise_of_transposes: [
        XT + '%2 = input("z") : float32[1,4,5,2] %3 = add(%1, %2) : float32[1,4,5,2] return y=%3',
        XT + '%2 = input("z") : float32[5,2] %3 = add(%1, %2) : float32[1,4,5,2] return y=%3',
        XT + '%2 = input("z") : float32[2,1,4,5] %3 = transpose(%2, axes=(1, 2, 3, 0)) : float32[1,4,5,2]\n'
        "%4 = add(%1, %3) : float32[1,4,5,2] return y=%4",
    ],
}  # fmt: skip


def cases(table):
    return [pytest.param(r, p, id=f"{r.__name__}-{i}") for r, pictures in table.items() for i, p in enumerate(pictures)]


@pytest.mark.parametrize(("rule", "picture"), cases(APPLIES))
def test_a_rule_applies(rule, picture):
    check(*picture, rule)


@pytest.mark.parametrize(("rule", "picture"), cases(STAYS))
def test_a_rule_stays_away(rule, picture):
    unchanged(picture, rule)


def test_every_rule_of_its_own_has_pictures():
    own = {rule for rule in CHANNELS_LAST.rules if rule.__module__ == layout.__name__}
    assert set(APPLIES) == set(STAYS) == own


def test_numbers_against_the_same_net_in_channels_last():
    rng = np.random.default_rng(0)
    x, k = rng.standard_normal((2, 6, 7, 3)).astype("float32"), rng.standard_normal((3, 3, 3, 4)).astype("float32")
    first = ops.conv2d(
        ops.constant(x.transpose(0, 3, 1, 2)), ops.constant(k.transpose(3, 2, 0, 1)), 2, "same", layout="NCHW"
    )
    last = ops.conv2d(ops.constant(x), ops.constant(k), 2, "same")
    for a, b in ((first, last), (ops.max_pool2d(first, 2, 1, layout="NCHW"), ops.max_pool2d(last, 2, 1))):
        np.testing.assert_allclose(mg.evaluate(a), mg.evaluate(b).transpose(0, 3, 1, 2), rtol=1e-5, atol=1e-5)


def small_net(mode: str, use_bias: bool = False) -> Graph:
    x = input_((2, 3, 8, 8), name="x")
    first = {"data_format": "channels_first", "use_bias": use_bias}
    y = layers.Conv2D(4, 3, padding="same", name="a", **first)(x)
    y = layers.ReLU()(layers.BatchNormalization(axis=1, name="norm")(y))
    y = layers.Conv2D(5, 3, padding="same", name="b", **first)(ops.max_pool2d(y, 2, layout="NCHW"))
    return mg.lower(Graph({"y": y}), mode)


def transposes_of_activations(graph: Graph) -> int:
    return sum(n.op.name == "transpose" and n.inputs[0].op.name != "variable" for n in graph.nodes)


@pytest.mark.parametrize("mode", ["training", "inference"])
@pytest.mark.parametrize("use_bias", [False, True])
def test_two_transposes_are_left_at_the_edges(mode, use_bias):
    program = mg.compile(small_net(mode, use_bias))
    assert transposes_of_activations(program.graph) <= 2, str(program.graph)
    assert all(getattr(n.op, "layout", "NHWC") == "NHWC" for n in program.graph.nodes)


def test_a_training_step_in_channels_first_computes_the_same_optimised_or_not():
    lowered = small_net("training")
    loss = ops.mean(lowered.outputs["y"] * lowered.outputs["y"])
    trained = [v for v in lowered.variables if v.op.trainable]
    steps = {v: v - 0.1 * g for v, g in zip(trained, mg.gradients(loss, trained), strict=True)}
    graph = Graph({"loss": loss}, {**lowered.updates, **steps})
    states = []
    for optimize in (True, False):
        state = mg.State.initial(graph.variables)
        mg.compile(graph, optimize=optimize)(state, x=np.random.default_rng(0).standard_normal((2, 3, 8, 8)))
        states.append(state)
    for name in states[0]:
        np.testing.assert_allclose(states[0][name], states[1][name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_weights_are_transposed_at_freeze():
    lowered = small_net("inference")
    graph = run(mg.passes.pipelines.legalise(), lowered)[0]
    frozen = mg.optimize(graph, state=mg.State.initial(lowered.variables), exclude=["fuse"])[0]
    assert transposes_of_activations(frozen) <= 2 and not frozen.variables
    kernel = next(n for n in frozen.nodes if n.op.name == "conv2d").inputs[1]
    assert kernel.op.name == "constant" and kernel.shape == (3, 3, 3, 4)


def test_a_channels_last_graph_is_left_alone():
    x, k = input_((2, 8, 8, 3), name="x"), variable((3, 3, 3, 4), name="k")
    graph = Graph({"y": ops.max_pool2d(ops.relu(ops.conv2d(x, k)), 2)})
    assert run([CHANNELS_LAST], graph)[0].nodes == graph.nodes
