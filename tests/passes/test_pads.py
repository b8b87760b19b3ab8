"""Pad merging, rule by rule: pictures, refusals with their reasons, and numbers."""

from __future__ import annotations

import math

import pytest

import minigraph as mg
from minigraph import ops
from minigraph.passes import MERGE_PADS, Rewriting, pads, run
from passes.folding import Net, as_graph, assert_within_bounds, data_ops, example, padded, refused
from passes.pictures import check, unchanged

NAME = MERGE_PADS.name


def merges(net: Net, outputs: mg.Node, left: str) -> None:
    """Check that the pass leaves these ops, once and for all, and that the numbers stay."""
    graph = as_graph(outputs)
    merged = run([MERGE_PADS], graph, verify_each=True)[0]
    assert data_ops(merged) == left
    assert str(run([MERGE_PADS], merged)[0]) == str(merged)
    assert_within_bounds(graph, [(merged, merged)], net.values, net.sizes)


def test_paddings_in_a_row_become_one():
    check(
        """
        %0 = input("x") : float32[2,3]
        %1 = pad(%0, padding=((1, 0), (1, 0)), value=0.5) : float32[3,4]
        %2 = pad(%1, padding=((0, 0), (1, 2)), value=0.5) : float32[3,7]
        %3 = pad(%2, padding=((0, 4), (0, 0)), value=0.5) : float32[7,7]
        return y=%3
        """,
        """
        %0 = input("x") : float32[2,3]
        %1 = pad(%0, padding=((1, 4), (2, 2)), value=0.5) : float32[7,7]
        return y=%1
        """,
        pads.pad_of_pad,
    )


def test_a_padded_signal_becomes_a_padded_image_and_its_convolution_takes_the_padding():
    check(
        """
        %0 = input("x") : float32[2,3,6]
        %1 = variable("w") : float32[4,3,1,3]
        %2 = pad(%0, padding=((0, 0), (0, 0), (1, 2))) : float32[2,3,9]
        %3 = reshape(%2, shape=(2, 3, 1, 9)) : float32[2,3,1,9]
        %4 = conv2d(%3, %1, layout="NCHW") : float32[2,4,1,7]
        return y=%4
        """,
        """
        %0 = input("x") : float32[2,3,6]
        %1 = reshape(%0, shape=(2, 3, 1, 6)) : float32[2,3,1,6]
        %2 = variable("w") : float32[4,3,1,3]
        %3 = conv2d(%1, %2, padding=((0, 0), (1, 2)), layout="NCHW") : float32[2,4,1,7]
        return y=%3
        """,
        MERGE_PADS,
    )


def test_axes_of_one_are_dropped_before_the_padding():
    check(
        """
        %0 = input("x") : float32[2,1,6]
        %1 = pad(%0, padding=((1, 0), (0, 0), (1, 1))) : float32[3,1,8]
        %2 = reshape(%1, shape=(3, 8)) : float32[3,8]
        return y=%2
        """,
        """
        %0 = input("x") : float32[2,1,6]
        %1 = reshape(%0, shape=(2, 6)) : float32[2,6]
        %2 = pad(%1, padding=((1, 0), (1, 1))) : float32[3,8]
        return y=%2
        """,
        pads.reshape_of_pad,
    )


@pytest.mark.parametrize(
    ("padding", "padded_", "shape"),
    [
        ("((0, 0), (0, 0), (1, 1))", "2,3,8", "(6, 8)"),  # axes are joined
        ("((0, 0), (0, 0), (0, 2))", "2,3,8", "(2, 24)"),
        ("((0, 0), (0, 0), (0, 2))", "2,3,8", "(2, 3, 2, 4)"),  # one is taken apart
    ],
)
def test_other_reshapes_stay_behind_their_padding(padding, padded_, shape):
    unchanged(
        f"""
        %0 = input("x") : float32[2,3,6]
        %1 = pad(%0, padding={padding.replace("(1, 1)", "(0, 2)")}) : float32[{padded_}]
        %2 = reshape(%1, shape={shape}) : float32[{shape[1:-1].replace(" ", "")}]
        return y=%2
        """,
        MERGE_PADS,
    )


def test_an_axis_that_padding_made_is_not_dropped():
    unchanged(
        """
        %0 = input("x") : float32[2,0]
        %1 = pad(%0, padding=((0, 0), (1, 0))) : float32[2,1]
        %2 = reshape(%1, shape=(2,)) : float32[2]
        return y=%2
        """,
        MERGE_PADS,
    )


@pytest.mark.parametrize(("inner", "outer"), [("0.5", "0.0"), ("0.0", "-inf"), ("nan", "nan")])
def test_paddings_of_different_values_stay(inner, outer):
    unchanged(
        f"""
        %0 = input("x") : float32[2,3]
        %1 = pad(%0, padding=((0, 0), (1, 0)), value={inner}) : float32[2,4]
        %2 = pad(%1, padding=((0, 0), (1, 2)), value={outer}) : float32[2,7]
        return y=%2
        """,
        MERGE_PADS,
    )


def test_zeros_become_the_padding_of_a_convolution():
    check(
        """
        %0 = input("x") : float64[2,5,6,3]
        %1 = pad(%0, padding=((0, 0), (1, 0), (2, 3), (0, 0))) : float64[2,6,11,3]
        %2 = variable("w") : float64[3,3,3,4]
        %3 = conv2d(%1, %2, strides=(2, 1), padding=((0, 1), (1, 0))) : float64[2,3,10,4]
        return y=%3
        """,
        """
        %0 = input("x") : float64[2,5,6,3]
        %1 = variable("w") : float64[3,3,3,4]
        %2 = conv2d(%0, %1, strides=(2, 1), padding=((1, 1), (3, 3))) : float64[2,3,10,4]
        return y=%2
        """,
        pads.convolution_of_pad,
    )


def test_same_padding_is_written_out_for_the_padded_size():
    check(
        """
        %0 = input("x") : float64[2,5,6,3]
        %1 = pad(%0, padding=((0, 0), (1, 0), (0, 1), (0, 0))) : float64[2,6,7,3]
        %2 = variable("w") : float64[3,2,3,4]
        %3 = conv2d(%1, %2, strides=(2, 2), padding="same") : float64[2,3,4,4]
        return y=%3
        """,
        """
        %0 = input("x") : float64[2,5,6,3]
        %1 = variable("w") : float64[3,2,3,4]
        %2 = conv2d(%0, %1, strides=(2, 2), padding=((1, 1), (0, 2))) : float64[2,3,4,4]
        return y=%2
        """,
        pads.convolution_of_pad,
    )


def test_zeros_before_an_average_are_counted():
    check(
        """
        %0 = input("x") : float64[2,6,6,3]
        %1 = pad(%0, padding=((0, 0), (1, 1), (1, 0), (0, 0))) : float64[2,8,7,3]
        %2 = avg_pool2d(%1, strides=(1, 1)) : float64[2,7,6,3]
        return y=%2
        """,
        """
        %0 = input("x") : float64[2,6,6,3]
        %1 = avg_pool2d(%0, strides=(1, 1), padding=((1, 1), (1, 0)), count_padding=true) : float64[2,7,6,3]
        return y=%1
        """,
        pads.average_of_pad,
    )


def test_minus_infinity_before_a_maximum_is_what_it_pads_itself():
    check(
        """
        %0 = input("x") : float64[2,6,6,3]
        %1 = pad(%0, padding=((0, 0), (1, 0), (1, 0), (0, 0)), value=-inf) : float64[2,7,7,3]
        %2 = max_pool2d(%1) : float64[2,3,3,3]
        return y=%2
        """,
        """
        %0 = input("x") : float64[2,6,6,3]
        %1 = max_pool2d(%0, padding=((1, 0), (1, 0))) : float64[2,3,3,3]
        return y=%1
        """,
        pads.maximum_of_pad,
    )


PADDED = """
    %0 = input("x") : float64[2,6,6,3]
    %1 = pad(%0, padding=({padding}){value}) : float64[{shape}]
    %2 = variable("w") : float64[3,3,{channels},4]
    %3 = {op}
    return y=%3
    """
SPATIAL = {"padding": "(0, 0), (1, 1), (1, 1), (0, 0)", "shape": "2,8,8,3", "channels": 3, "value": ""}
DEEPER = {"padding": "(0, 0), (1, 1), (1, 1), (0, 2)", "shape": "2,8,8,5", "channels": 5, "value": ""}
MORE = {"padding": "(1, 0), (1, 1), (1, 1), (0, 0)", "shape": "3,8,8,3", "channels": 3, "value": ""}
CONV = "conv2d(%1, %2) : float64[{n},6,6,4]"
AVERAGE = "avg_pool2d(%1{more}) : float64[2,4,4,3]"


@pytest.mark.parametrize(("parts", "op", "reason"), [
    ({**SPATIAL, "value": ", value=0.5"}, CONV.format(n=2), "the padding holds 0.5, a convolution pads zeros"),
    ({**SPATIAL, "value": ", value=-inf"}, CONV.format(n=2), "the padding holds -inf, a convolution pads zeros"),
    (DEEPER, CONV.format(n=2), "more than height and width is padded"),
    (MORE, CONV.format(n=3), "more than height and width is padded"),
    ({**SPATIAL, "value": ", value=1.0"}, AVERAGE.format(more=""), "the padding holds 1, a pool counts zeros"),
    (SPATIAL, AVERAGE.format(more=', padding="same"'), "the pool has padding of its own that does not count"),
    ({**SPATIAL, "value": ", value=0.0"}, "max_pool2d(%1) : float64[2,4,4,3]", "maximum_of_pad does not match here"),
    ({**MORE, "value": ", value=-inf"}, "max_pool2d(%1) : float64[3,4,4,3]", "more than height and width is padded"),
])  # fmt: skip
def test_a_picture_that_stays_and_the_reason(parts, op, reason):
    text = PADDED.format(**parts, op=op)
    unchanged(text, MERGE_PADS)
    assert refused(text, NAME, op.partition("(")[0]).startswith(reason)


def test_an_overhang_stays_what_never_counts():
    net = Net()
    pooled = ops.avg_pool2d(padded(net, net.image()), 2, 2, ceil_mode=True)
    assert pooled.op.overhang != (0, 0)
    graph = as_graph(pooled)
    after, trace = run([MERGE_PADS], graph)
    assert after.same_as(graph) and "does not count" in trace.why_not(NAME, pooled).reason


def test_a_window_that_would_hold_padding_alone_is_refused():
    net = Net()
    far = ops.pad(net.image(), [(0, 0), (3, 0), (0, 0), (0, 0)], -math.inf)
    pooled = ops.max_pool2d(far, 2)
    graph = as_graph(pooled)
    after, trace = run([MERGE_PADS], graph)
    assert after.same_as(graph) and "only padding" in trace.why_not(NAME, pooled).reason


@pytest.mark.parametrize("symbolic", [False, True])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("options", [
    {}, {"padding": "same"}, {"padding": "same", "strides": 2}, {"padding": "same", "size": (2, 4)},
    {"dilations": 2, "padding": 1}, {"groups": 2, "strides": (1, 2)},
], ids=str)  # fmt: skip
def test_several_paddings_before_a_convolution(layout, options, symbolic):
    net = Net("float32", layout, symbolic)
    merges(net, net.conv(padded(net, padded(net, net.image())), **options), "conv2d")


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_paddings_before_pools(layout):
    net = Net("float32", layout)
    x = net.image()
    merges(net, ops.avg_pool2d(padded(net, x), 3, 1, layout=layout), "avg_pool2d")
    counted = ops.avg_pool2d(padded(net, x), 3, 2, "same", layout=layout, count_padding=True)
    merges(net, counted, "avg_pool2d")
    merges(net, ops.max_pool2d(padded(net, x, -math.inf), 4, 1, layout=layout), "max_pool2d")


def test_a_padding_that_others_read_stays_for_them():
    net = Net("float32")
    x = padded(net, net.image())
    graph = as_graph({"y": net.conv(x), "z": ops.tanh(x)})
    merged = run([MERGE_PADS], graph)[0]
    assert data_ops(merged) == "conv2d pad tanh"
    assert_within_bounds(graph, [(merged, merged)], net.values)


def test_an_open_size_and_same_padding_with_a_stride():
    x = mg.ops.pad(mg.Input((6, 6, 3), name="x"), [(0, 0), (1, 1), (1, 1), (0, 0)])
    y = ops.conv2d(x, mg.variable((3, 3, 3, 4), name="w"), 2, "same")
    graph = run([MERGE_PADS], as_graph(y))[0]
    assert data_ops(graph) == "conv2d" and graph.outputs["y"].op.padding == ((1, 2), (1, 2))


@pytest.mark.parametrize("rule", MERGE_PADS.rules, ids=lambda rule: rule.__name__)
def test_the_example_of_each_rule_is_rewritten_by_it(rule):
    trace = run([Rewriting("one", (rule,))], example(rule), verify_each=True)[1]
    assert [rewrite.rule for rewrite in trace.rewrites] == [rule.__name__]
