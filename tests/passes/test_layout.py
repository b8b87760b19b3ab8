"""Channels first becomes channels last: pictures for each rule, numbers, and how few transposes are left."""

from __future__ import annotations

import numpy as np
import pytest

import minigraph as mg
from minigraph import layers, ops
from minigraph.ir import Graph, bind, variable
from minigraph.ir.leaves import input as input_
from minigraph.passes import CHANNELS_LAST, Rewriting, layout, pieces, products, run, transposes
from passes.pictures import check, graph, unchanged

X = '%0 = input("x") : float32[1,2,4,5]\n'
XT = X + "%1 = transpose(%0, axes=(0, 2, 3, 1)) : float32[1,4,5,2]\n"
Y = '%0 = input("x") : float32[1,4,5,2] %1 = transpose(%0, axes=(0, 3, 1, 2)) : float32[1,2,4,5]\n'
N = '%0 = input("x") : float32[N,5,7,6] %1 = transpose(%0, axes=(0, 3, 1, 2)) : float32[N,6,5,7]\n'
FLAT = (
    '%0 = input("x") : float32[9,2,2,3] %1 = transpose(%0, axes=(0, 3, 1, 2)) : float32[9,3,2,2]\n'
    "%2 = reshape(%1, shape=(9, 12)) : float32[9,12]\n"
)

APPLIES = {
    layout.channels_first_op: [
        (X + '%1 = max_pool2d(%0, layout="NCHW") : float32[1,2,2,2] return y=%1',
         XT + "%2 = max_pool2d(%1) : float32[1,2,2,2] %3 = transpose(%2, axes=(0, 3, 1, 2)) : float32[1,2,2,2] "
         "return y=%3"),
        (X + '%1 = variable("k") : float32[3,2,1,1] %2 = conv2d(%0, %1, layout="NCHW") : float32[1,3,4,5] return y=%2',
         XT + '%2 = variable("k") : float32[3,2,1,1] %3 = transpose(%2, axes=(2, 3, 1, 0)) : float32[1,1,2,3]\n'
         "%4 = conv2d(%1, %3) : float32[1,4,5,3] %5 = transpose(%4, axes=(0, 3, 1, 2)) : float32[1,3,4,5] return y=%5"),
    ],
    layout.average_of_exchanged_axes: [
        ('%0 = input("x") : float32[2,1,9,5] %1 = transpose(%0, axes=(0, 3, 2, 1)) : float32[2,5,9,1]\n'
         "%2 = avg_pool2d(%1, size=(3, 2), strides=(2, 1), padding=((1, 0), (0, 2)), overhang=(1, 0)) : "
         "float32[2,3,10,1] return y=%2",
         '%0 = input("x") : float32[2,1,9,5] %1 = reshape(%0, shape=(2, 9, 5, 1)) : float32[2,9,5,1]\n'
         "%2 = avg_pool2d(%1, size=(2, 3), strides=(1, 2), padding=((0, 2), (1, 0)), overhang=(0, 1)) : "
         "float32[2,10,3,1] %3 = transpose(%2, axes=(0, 2, 1, 3)) : float32[2,3,10,1] return y=%3"),
        ('%0 = input("g") : float32[2,9,3,4] %1 = transpose(%0, axes=(0, 2, 1, 3)) : float32[2,3,9,4]\n'
         "%2 = avg_pool2d_adjoint(%1, size=(3, 1), strides=(1, 1), output_size=(5, 9)) : float32[2,5,9,4] return y=%2",
         '%0 = input("g") : float32[2,9,3,4]\n'
         "%1 = avg_pool2d_adjoint(%0, size=(1, 3), strides=(1, 1), output_size=(9, 5)) : float32[2,9,5,4]\n"
         "%2 = transpose(%1, axes=(0, 2, 1, 3)) : float32[2,5,9,4] return y=%2"),
    ],
    layout.region_in_the_way: [
        (X + '%1 = variable("w") : float32[3,2,2,2]\n'
         '%2 = fused(%0, %1, body=(step(op=conv2d(layout="NCHW"), inputs=(0, 1)), '
         "step(op=relu(), inputs=(2,)))) : float32[1,3,3,4] return y=%2",
         X + '%1 = variable("w") : float32[3,2,2,2] %2 = conv2d(%0, %1, layout="NCHW") : float32[1,3,3,4]\n'
         "%3 = relu(%2) : float32[1,3,3,4] return y=%3"),
    ],
    transposes.batch_norm_channels_last: [
        (XT + '%2 = variable("v") : float32[5] %3 = batch_norm(%1, %2, %2, %2, %2, axis=2) : float32[1,4,5,2] '
        'return y=%3',
         X + '%1 = variable("v") : float32[5] %2 = batch_norm(%0, %1, %1, %1, %1, axis=3) : float32[1,2,4,5]\n'
         "%3 = transpose(%2, axes=(0, 2, 3, 1)) : float32[1,4,5,2] return y=%3"),
    ],
    transposes.moments_of_transpose: [
        (XT + "%2 = moments(%1, axes=(0, 1, 2)) : (float32[2], float32[2]) %3 = item(%2, index=1) : float32[2] "
        "return y=%3",
         X + "%1 = moments(%0, axes=(0, 2, 3)) : (float32[2], float32[2]) %2 = item(%1, index=1) : float32[2] "
         "return y=%2"),
    ],
    transposes.elementwise_of_transposes: [
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
        # Channels first is what is around it: whole arrays are turned back.
        (Y + '%2 = input("z") : float32[1,2,4,5] %3 = sub(%2, %1) : float32[1,2,4,5] return y=%3',
         '%0 = input("x") : float32[1,4,5,2] %1 = input("z") : float32[1,2,4,5]\n'
         "%2 = transpose(%1, axes=(0, 2, 3, 1)) : float32[1,4,5,2] %3 = sub(%2, %0) : float32[1,4,5,2]\n"
         "%4 = transpose(%3, axes=(0, 3, 1, 2)) : float32[1,2,4,5] return y=%4"),
        (Y + '%2 = variable("z") : float32[2,4,5] %3 = sub(%1, %2) : float32[1,2,4,5] return y=%3',
         '%0 = input("x") : float32[1,4,5,2] %1 = variable("z") : float32[2,4,5]\n'
         "%2 = reshape(%1, shape=(1, 2, 4, 5)) : float32[1,2,4,5]\n"
         "%3 = transpose(%2, axes=(0, 2, 3, 1)) : float32[1,4,5,2] %4 = sub(%0, %3) : float32[1,4,5,2]\n"
         "%5 = transpose(%4, axes=(0, 3, 1, 2)) : float32[1,2,4,5] return y=%5"),
        # More than one axis is not 1, but none of them moves past another.
        ('%0 = input("x") : float32[3,4,5,2] %1 = transpose(%0, axes=(0, 3, 1, 2)) : float32[3,2,4,5]\n'
         '%2 = input("z") : float32[3,2,1,1] %3 = mul(%1, %2) : float32[3,2,4,5] return y=%3',
         '%0 = input("x") : float32[3,4,5,2] %1 = input("z") : float32[3,2,1,1]\n'
         "%2 = reshape(%1, shape=(3, 1, 1, 2)) : float32[3,1,1,2] %3 = mul(%0, %2) : float32[3,4,5,2]\n"
         "%4 = transpose(%3, axes=(0, 3, 1, 2)) : float32[3,2,4,5] return y=%4"),
        # Axes are aligned at the last one.
        ('%0 = input("x") : float32[4,5,2] %1 = transpose(%0, axes=(2, 0, 1)) : float32[2,4,5]\n'
         '%2 = input("z") : float32[3,2,4,5] %3 = sub(%1, %2) : float32[3,2,4,5] return y=%3',
         '%0 = input("x") : float32[4,5,2] %1 = input("z") : float32[3,2,4,5]\n'
         "%2 = reshape(%0, shape=(1, 4, 5, 2)) : float32[1,4,5,2]\n"
         "%3 = transpose(%1, axes=(0, 2, 3, 1)) : float32[3,4,5,2] %4 = sub(%2, %3) : float32[3,4,5,2]\n"
         "%5 = transpose(%4, axes=(0, 3, 1, 2)) : float32[3,2,4,5] return y=%5"),
        # What is repeated, or one-hot, is turned for nothing.
        ('%0 = input("x") : float32[3,4,2] %1 = transpose(%0, axes=(0, 2, 1)) : float32[3,2,4]\n'
         '%2 = input("z") : float32[3,2,1] %3 = broadcast_to(%2, shape=(3, 2, 4)) : float32[3,2,4]\n'
         "%4 = maximum(%1, %3) : float32[3,2,4] return y=%4",
         '%0 = input("x") : float32[3,4,2] %1 = input("z") : float32[3,2,1]\n'
         "%2 = broadcast_to(%1, shape=(3, 2, 4)) : float32[3,2,4]\n"
         "%3 = transpose(%2, axes=(0, 2, 1)) : float32[3,4,2] %4 = maximum(%0, %3) : float32[3,4,2]\n"
         "%5 = transpose(%4, axes=(0, 2, 1)) : float32[3,2,4] return y=%5"),
    ],
    transposes.softmax_of_transpose: [
        (Y + "%2 = log_softmax(%1, axis=-3) : float32[1,2,4,5] return y=%2",
         '%0 = input("x") : float32[1,4,5,2] %1 = log_softmax(%0, axis=3) : float32[1,4,5,2]\n'
         "%2 = transpose(%1, axes=(0, 3, 1, 2)) : float32[1,2,4,5] return y=%2"),
    ],
    transposes.reduction_of_transpose: [
        (Y + "%2 = mean(%1, axes=(2, 3)) : float32[1,2] return y=%2",
         '%0 = input("x") : float32[1,4,5,2] %1 = mean(%0, axes=(1, 2)) : float32[1,2] return y=%1'),
        (Y + "%2 = max(%1, axes=(1,), keepdims=true) : float32[1,1,4,5] return y=%2",
         '%0 = input("x") : float32[1,4,5,2] %1 = max(%0, axes=(3,), keepdims=true) : float32[1,4,5,1]\n'
         "%2 = transpose(%1, axes=(0, 3, 1, 2)) : float32[1,1,4,5] return y=%2"),
        (Y + "%2 = logsumexp(%1, axes=(2,)) : float32[1,2,5] return y=%2",
         '%0 = input("x") : float32[1,4,5,2] %1 = logsumexp(%0, axes=(1,)) : float32[1,5,2]\n'
         "%2 = transpose(%1, axes=(0, 2, 1)) : float32[1,2,5] return y=%2"),
    ],
    transposes.choice_of_transpose: [
        (Y + "%2 = argmax(%1, axis=1) : int64[1,4,5] return y=%2",
         '%0 = input("x") : float32[1,4,5,2] %1 = argmax(%0, axis=3) : int64[1,4,5] return y=%1'),
        (Y + "%2 = argmax(%1, axis=2) : int64[1,2,5] return y=%2",
         '%0 = input("x") : float32[1,4,5,2] %1 = argmax(%0, axis=1) : int64[1,5,2]\n'
         "%2 = transpose(%1, axes=(0, 2, 1)) : int64[1,2,5] return y=%2"),
        (Y + '%2 = input("t") : float32[1,2,4,5] %3 = softmax_cross_entropy(%1, %2, axis=1) : float32[1,4,5] '
         'return y=%3',
         '%0 = input("x") : float32[1,4,5,2] %1 = input("t") : float32[1,2,4,5]\n'
         "%2 = transpose(%1, axes=(0, 2, 3, 1)) : float32[1,4,5,2]\n"
         "%3 = softmax_cross_entropy(%0, %2, axis=3) : float32[1,4,5] return y=%3"),
    ],
    transposes.size_of_transpose: [
        (Y + "%2 = size(%1, axes=(0, 1)) : float32[] return y=%2",
         '%0 = input("x") : float32[1,4,5,2] %1 = size(%0, axes=(0, 3)) : float32[] return y=%1'),
    ],
    pieces.concat_of_transposes: [
        (Y + '%2 = input("z") : float32[1,3,4,5] %3 = concat(%2, %1, axis=-3) : float32[1,5,4,5] return y=%3',
         '%0 = input("x") : float32[1,4,5,2] %1 = input("z") : float32[1,3,4,5]\n'
         "%2 = transpose(%1, axes=(0, 2, 3, 1)) : float32[1,4,5,3] %3 = concat(%2, %0, axis=3) : float32[1,4,5,5]\n"
         "%4 = transpose(%3, axes=(0, 3, 1, 2)) : float32[1,5,4,5] return y=%4"),
    ],
    pieces.piece_of_transpose: [
        (Y + "%2 = split(%1, sizes=(1, 3), axis=2) : (float32[1,2,1,5], float32[1,2,3,5])\n"
         "%3 = item(%2, index=1) : float32[1,2,3,5] return y=%3",
         '%0 = input("x") : float32[1,4,5,2] %1 = split(%0, sizes=(1, 3), axis=1) : '
         "(float32[1,1,5,2], float32[1,3,5,2]) %2 = item(%1, index=1) : float32[1,3,5,2]\n"
         "%3 = transpose(%2, axes=(0, 3, 1, 2)) : float32[1,2,3,5] return y=%3"),
    ],
    pieces.slice_of_transpose: [
        (Y + "%2 = slice(%1, starts=(0, 1, 3, 0), sizes=(1, 1, 2, 5), steps=(1, 1, -2, 1)) : float32[1,1,2,5] "
         "return y=%2",
         '%0 = input("x") : float32[1,4,5,2]\n'
         "%1 = slice(%0, starts=(0, 3, 0, 1), sizes=(1, 2, 5, 1), steps=(1, -2, 1, 1)) : float32[1,2,5,1]\n"
         "%2 = transpose(%1, axes=(0, 3, 1, 2)) : float32[1,1,2,5] return y=%2"),
        (Y + "%2 = slice_adjoint(%1, shape=(1, 2, 8, 7), starts=(0, 0, 1, 2), steps=(1, 1, 2, 1)) : float32[1,2,8,7]\n"
         "return y=%2",
         '%0 = input("x") : float32[1,4,5,2]\n'
         "%1 = slice_adjoint(%0, shape=(1, 8, 7, 2), starts=(0, 1, 2, 0), steps=(1, 2, 1, 1)) : float32[1,8,7,2]\n"
         "%2 = transpose(%1, axes=(0, 3, 1, 2)) : float32[1,2,8,7] return y=%2"),
    ],
    pieces.pad_of_transpose: [
        (Y + "%2 = pad(%1, padding=((0, 0), (0, 1), (2, 0), (3, 4)), value=-1.0) : float32[1,3,6,12] return y=%2",
         '%0 = input("x") : float32[1,4,5,2]\n'
         "%1 = pad(%0, padding=((0, 0), (2, 0), (3, 4), (0, 1)), value=-1.0) : float32[1,6,12,3]\n"
         "%2 = transpose(%1, axes=(0, 3, 1, 2)) : float32[1,3,6,12] return y=%2"),
    ],
    pieces.gather_of_transpose: [
        (Y + "%2 = constant([1, 0, 9]) : int64[3] "
         '%3 = gather(%1, %2, axis=2, mode="clip") : float32[1,2,3,5] return y=%3',
         '%0 = input("x") : float32[1,4,5,2] %1 = constant([1, 0, 9]) : int64[3] '
         '%2 = gather(%0, %1, axis=1, mode="clip") : float32[1,3,5,2] '
         "%3 = transpose(%2, axes=(0, 3, 1, 2)) : float32[1,2,3,5]\n"
         "return y=%3"),
        (Y + "%2 = constant([1, 0, 3]) : int64[3] %3 = gather(%1, %2, axis=-2) : float32[1,2,3,5] return y=%3",
         '%0 = input("x") : float32[1,4,5,2] %1 = constant([1, 0, 3]) : int64[3]\n'
         "%2 = gather(%0, %1, axis=1) : float32[1,3,5,2] %3 = transpose(%2, axes=(0, 3, 1, 2)) : float32[1,2,3,5]\n"
         "return y=%3"),
        (Y + "%2 = constant(1) : int64[] %3 = gather(%1, %2, axis=2) : float32[1,2,5] return y=%3",
         '%0 = input("x") : float32[1,4,5,2] %1 = constant(1) : int64[] %2 = gather(%0, %1, axis=1) : float32[1,5,2]\n'
         "%3 = transpose(%2, axes=(0, 2, 1)) : float32[1,2,5] return y=%3"),
        (Y + "%2 = constant([1, 0, 3, 2, 1, 1]) : int64[2,3] %3 = gather(%1, %2, axis=2) : float32[1,2,2,3,5] "
         "return y=%3",
         '%0 = input("x") : float32[1,4,5,2] %1 = constant([1, 0, 3, 2, 1, 1]) : int64[2,3]\n'
         "%2 = gather(%0, %1, axis=1) : float32[1,2,3,5,2]\n"
         "%3 = transpose(%2, axes=(0, 4, 1, 2, 3)) : float32[1,2,2,3,5] return y=%3"),
    ],
    pieces.gather_adjoint_of_transpose: [
        (Y + "%2 = constant([1, 0, 3, 3]) : int64[4]\n"
         "%3 = gather_adjoint(%1, %2, shape=(1, 2, 6, 5), axis=2) : float32[1,2,6,5] return y=%3",
         '%0 = input("x") : float32[1,4,5,2] %1 = constant([1, 0, 3, 3]) : int64[4]\n'
         "%2 = gather_adjoint(%0, %1, shape=(1, 6, 5, 2), axis=1) : float32[1,6,5,2]\n"
         "%3 = transpose(%2, axes=(0, 3, 1, 2)) : float32[1,2,6,5] return y=%3"),
    ],
    pieces.broadcast_of_transpose: [
        (Y + "%2 = broadcast_to(%1, shape=(3, 2, 4, 5)) : float32[3,2,4,5] return y=%2",
         '%0 = input("x") : float32[1,4,5,2] %1 = broadcast_to(%0, shape=(3, 4, 5, 2)) : float32[3,4,5,2]\n'
         "%2 = transpose(%1, axes=(0, 3, 1, 2)) : float32[3,2,4,5] return y=%2"),
        ('%0 = input("x") : float32[4,5,2] %1 = transpose(%0, axes=(2, 0, 1)) : float32[2,4,5]\n'
         "%2 = broadcast_to(%1, shape=(3, 2, 4, 5)) : float32[3,2,4,5] return y=%2",
         '%0 = input("x") : float32[4,5,2] %1 = reshape(%0, shape=(1, 4, 5, 2)) : float32[1,4,5,2]\n'
         "%2 = broadcast_to(%1, shape=(3, 4, 5, 2)) : float32[3,4,5,2]\n"
         "%3 = transpose(%2, axes=(0, 3, 1, 2)) : float32[3,2,4,5] return y=%3"),
    ],
    pieces.transpose_of_broadcast: [
        ('%0 = input("x") : float32[2,1,1] %1 = broadcast_to(%0, shape=(3, 2, 4, 5)) : float32[3,2,4,5]\n'
         '%2 = cast(%1, dtype="float64") : float64[3,2,4,5]\n'
         "%3 = transpose(%2, axes=(0, 2, 3, 1)) : float64[3,4,5,2] return y=%3",
         '%0 = input("x") : float32[2,1,1] %1 = cast(%0, dtype="float64") : float64[2,1,1]\n'
         "%2 = reshape(%1, shape=(1, 1, 1, 2)) : float64[1,1,1,2]\n"
         "%3 = broadcast_to(%2, shape=(3, 4, 5, 2)) : float64[3,4,5,2] return y=%3"),
    ],
    pieces.transpose_of_one_hot: [
        ('%0 = input("x") : int64[3,4] %1 = one_hot(%0, classes=2, axis=1) : float32[3,2,4]\n'
         "%2 = transpose(%1, axes=(0, 2, 1)) : float32[3,4,2] return y=%2",
         '%0 = input("x") : int64[3,4] %1 = one_hot(%0, classes=2, axis=2) : float32[3,4,2] return y=%1'),
    ],
    pieces.reshape_of_transpose: [
        # Apart, and the channels still come first.
        (N + "%2 = reshape(%1, shape=(N, 2, 3, 5, 7)) : float32[N,2,3,5,7] return y=%2",
         '%0 = input("x") : float32[N,5,7,6] %1 = reshape(%0, shape=(N, 5, 7, 2, 3)) : float32[N,5,7,2,3]\n'
         "%2 = transpose(%1, axes=(0, 3, 4, 1, 2)) : float32[N,2,3,5,7] return y=%2"),
        # Together, and size 1 goes anywhere.
        (N + "%2 = reshape(%1, shape=(N, 6, 1, 35)) : float32[N,6,1,35] return y=%2",
         '%0 = input("x") : float32[N,5,7,6] %1 = reshape(%0, shape=(N, 35, 6, 1)) : float32[N,35,6,1]\n'
         "%2 = transpose(%1, axes=(0, 2, 3, 1)) : float32[N,6,1,35] return y=%2"),
        ('%0 = input("x") : float32[N,1,1,6] %1 = transpose(%0, axes=(0, 3, 1, 2)) : float32[N,6,1,1]\n'
         "%2 = reshape(%1, shape=(N, 6)) : float32[N,6] return y=%2",
         '%0 = input("x") : float32[N,1,1,6] %1 = reshape(%0, shape=(N, 6)) : float32[N,6] return y=%1'),
        # Channels shuffled: the shuffle stays, inside.
        ('%0 = input("x") : float32[N,5,7,2,3] %1 = transpose(%0, axes=(0, 4, 3, 1, 2)) : float32[N,3,2,5,7]\n'
         "%2 = reshape(%1, shape=(N, 6, 5, 7)) : float32[N,6,5,7] return y=%2",
         '%0 = input("x") : float32[N,5,7,2,3] %1 = transpose(%0, axes=(0, 1, 2, 4, 3)) : float32[N,5,7,3,2]\n'
         "%2 = reshape(%1, shape=(N, 5, 7, 6)) : float32[N,5,7,6]\n"
         "%3 = transpose(%2, axes=(0, 3, 1, 2)) : float32[N,6,5,7] return y=%3"),
        # Pixels shuffled, and back.
        ('%0 = input("x") : float32[N,5,7,4,2,3]\n'
         "%1 = transpose(%0, axes=(0, 3, 1, 4, 2, 5)) : float32[N,4,5,2,7,3]\n"
         "%2 = reshape(%1, shape=(N, 4, 10, 21)) : float32[N,4,10,21] return y=%2",
         '%0 = input("x") : float32[N,5,7,4,2,3]\n'
         "%1 = transpose(%0, axes=(0, 1, 4, 2, 5, 3)) : float32[N,5,2,7,3,4]\n"
         "%2 = reshape(%1, shape=(N, 10, 21, 4)) : float32[N,10,21,4]\n"
         "%3 = transpose(%2, axes=(0, 3, 1, 2)) : float32[N,4,10,21] return y=%3"),
        ('%0 = input("x") : float32[N,5,2,7,3,4]\n'
         "%1 = transpose(%0, axes=(0, 5, 2, 4, 1, 3)) : float32[N,4,2,3,5,7]\n"
         "%2 = reshape(%1, shape=(N, 24, 5, 7)) : float32[N,24,5,7] return y=%2",
         '%0 = input("x") : float32[N,5,2,7,3,4]\n'
         "%1 = transpose(%0, axes=(0, 1, 3, 5, 2, 4)) : float32[N,5,7,4,2,3]\n"
         "%2 = reshape(%1, shape=(N, 5, 7, 24)) : float32[N,5,7,24]\n"
         "%3 = transpose(%2, axes=(0, 3, 1, 2)) : float32[N,24,5,7] return y=%3"),
    ],
    products.product_of_transpose: [
        ('%0 = input("x") : float32[3,4,2] %1 = transpose(%0, axes=(0, 2, 1)) : float32[3,2,4]\n'
         '%2 = input("z") : float32[5,4] %3 = transpose(%2, axes=(1, 0)) : float32[4,5]\n'
         "%4 = matmul(%1, %3, transpose_y=false) : float32[3,2,5] return y=%4",
         '%0 = input("x") : float32[3,4,2] %1 = input("z") : float32[5,4]\n'
         "%2 = matmul(%0, %1, transpose_x=true, transpose_y=true) : float32[3,2,5] return y=%2"),
        ('%0 = input("x") : float32[3,4,2] %1 = transpose(%0, axes=(0, 2, 1)) : float32[3,2,4]\n'
         '%2 = input("z") : float32[2,5] %3 = matmul(%1, %2, transpose_x=true) : float32[3,4,5] return y=%3',
         '%0 = input("x") : float32[3,4,2] %1 = input("z") : float32[2,5] %2 = matmul(%0, %1) : float32[3,4,5] '
         "return y=%2"),
    ],
    products.product_along_an_image_axis: [
        (Y + '%2 = input("m") : float32[3,5] %3 = matmul(%1, %2, transpose_y=true) : float32[1,2,4,3] return y=%3',
         '%0 = input("x") : float32[1,4,5,2] %1 = input("m") : float32[3,5]\n'
         "%2 = matmul(%1, %0) : float32[1,4,3,2] %3 = transpose(%2, axes=(0, 3, 1, 2)) : float32[1,2,4,3] return y=%3"),
        (Y + '%2 = input("m") : float32[4,3] %3 = matmul(%2, %1, transpose_x=true) : float32[1,2,3,5] return y=%3',
         '%0 = input("x") : float32[1,4,5,2] %1 = input("m") : float32[4,3]\n'
         "%2 = reshape(%0, shape=(1, 4, 10)) : float32[1,4,10]\n"
         "%3 = matmul(%1, %2, transpose_x=true) : float32[1,3,10]\n"
         "%4 = reshape(%3, shape=(1, 3, 5, 2)) : float32[1,3,5,2]\n"
         "%5 = transpose(%4, axes=(0, 3, 1, 2)) : float32[1,2,3,5] return y=%5"),
    ],
    products.dense_of_flattened: [
        (FLAT + '%3 = variable("w") : float32[2,12] %4 = matmul(%2, %3, transpose_y=true) : float32[9,2] return y=%4',
         '%0 = input("x") : float32[9,2,2,3] %1 = variable("w") : float32[2,12]\n'
         "%2 = reshape(%0, shape=(9, 12)) : float32[9,12] %3 = reshape(%1, shape=(2, 3, 2, 2)) : float32[2,3,2,2]\n"
         "%4 = transpose(%3, axes=(0, 2, 3, 1)) : float32[2,2,2,3] %5 = reshape(%4, shape=(2, 12)) : float32[2,12]\n"
         "%6 = matmul(%2, %5, transpose_y=true) : float32[9,2] return y=%6"),
        # Constants are turned once, however large they are.
        ('%0 = input("x") : float32[N,2,1,2] %1 = transpose(%0, axes=(0, 3, 1, 2)) : float32[N,2,2,1]\n'
         "%2 = reshape(%1, shape=(N, 4)) : float32[N,4] %3 = constant([1.0, 2.0, 3.0, 4.0]) : float32[1,4]\n"
         "%4 = transpose(%3, axes=(1, 0)) : float32[4,1] %5 = matmul(%2, %4) : float32[N,1] return y=%5",
         '%0 = input("x") : float32[N,2,1,2] %1 = constant([1.0, 2.0, 3.0, 4.0]) : float32[1,4]\n'
         "%2 = reshape(%0, shape=(N, 4)) : float32[N,4] %3 = transpose(%1, axes=(1, 0)) : float32[4,1]\n"
         "%4 = reshape(%3, shape=(2, 2, 1, 1)) : float32[2,2,1,1]\n"
         "%5 = transpose(%4, axes=(1, 2, 0, 3)) : float32[2,1,2,1] %6 = reshape(%5, shape=(4, 1)) : float32[4,1]\n"
         "%7 = matmul(%2, %6) : float32[N,1] return y=%7"),
    ],
    products.dense_gradient_of_flattened: [
        (FLAT + '%3 = input("g") : float32[9,2] %4 = matmul(%2, %3, transpose_x=true) : float32[12,2] return y=%4',
         '%0 = input("x") : float32[9,2,2,3] %1 = input("g") : float32[9,2]\n'
         "%2 = reshape(%0, shape=(9, 12)) : float32[9,12] %3 = matmul(%2, %1, transpose_x=true) : float32[12,2]\n"
         "%4 = reshape(%3, shape=(2, 2, 3, 2)) : float32[2,2,3,2]\n"
         "%5 = transpose(%4, axes=(2, 0, 1, 3)) : float32[3,2,2,2] %6 = reshape(%5, shape=(12, 2)) : float32[12,2]\n"
         "return y=%6"),
        (FLAT + '%3 = input("g") : float32[9,2] %4 = matmul(%3, %2, transpose_x=true) : float32[2,12] return y=%4',
         '%0 = input("x") : float32[9,2,2,3] %1 = input("g") : float32[9,2]\n'
         "%2 = reshape(%0, shape=(9, 12)) : float32[9,12] %3 = matmul(%1, %2, transpose_x=true) : float32[2,12]\n"
         "%4 = reshape(%3, shape=(2, 2, 2, 3)) : float32[2,2,2,3]\n"
         "%5 = transpose(%4, axes=(0, 3, 1, 2)) : float32[2,3,2,2] %6 = reshape(%5, shape=(2, 12)) : float32[2,12]\n"
         "return y=%6"),
    ],
    products.transpose_of_dense: [
        ('%0 = input("x") : float32[9,2] %1 = variable("w") : float32[12,2]\n'
         "%2 = matmul(%0, %1, transpose_y=true) : float32[9,12]\n"
         "%3 = reshape(%2, shape=(9, 3, 2, 2)) : float32[9,3,2,2]\n"
         "%4 = transpose(%3, axes=(0, 2, 3, 1)) : float32[9,2,2,3] return y=%4",
         '%0 = input("x") : float32[9,2] %1 = variable("w") : float32[12,2]\n'
         "%2 = reshape(%1, shape=(3, 2, 2, 2)) : float32[3,2,2,2]\n"
         "%3 = transpose(%2, axes=(1, 2, 0, 3)) : float32[2,2,3,2] %4 = reshape(%3, shape=(12, 2)) : float32[12,2]\n"
         "%5 = matmul(%0, %4, transpose_y=true) : float32[9,12]\n"
         "%6 = reshape(%5, shape=(9, 2, 2, 3)) : float32[9,2,2,3] return y=%6"),
        ('%0 = input("x") : float32[9,1] %1 = constant([1.0, 2.0, 3.0, 4.0]) : float32[1,4]\n'
         '%2 = matmul(%0, %1) : float32[9,4] %3 = variable("b") : float32[4] %4 = add(%3, %2) : float32[9,4]\n'
         '%5 = variable("c") : float32[9,1] %6 = mul(%4, %5) : float32[9,4]\n'
         "%7 = reshape(%6, shape=(9, 2, 2, 1)) : float32[9,2,2,1]\n"
         "%8 = transpose(%7, axes=(0, 2, 1, 3)) : float32[9,2,2,1] return y=%8",
         '%0 = input("x") : float32[9,1] %1 = variable("b") : float32[4]\n'
         "%2 = reshape(%1, shape=(2, 2, 1)) : float32[2,2,1]\n"
         "%3 = transpose(%2, axes=(1, 0, 2)) : float32[2,2,1] %4 = reshape(%3, shape=(4,)) : float32[4]\n"
         "%5 = constant([1.0, 2.0, 3.0, 4.0]) : float32[1,4] %6 = reshape(%5, shape=(1, 2, 2, 1)) : float32[1,2,2,1]\n"
         "%7 = transpose(%6, axes=(0, 2, 1, 3)) : float32[1,2,2,1] %8 = reshape(%7, shape=(1, 4)) : float32[1,4]\n"
         "%9 = matmul(%0, %8) : float32[9,4] %10 = add(%4, %9) : float32[9,4]\n"
         '%11 = variable("c") : float32[9,1] %12 = mul(%10, %11) : float32[9,4]\n'
         "%13 = reshape(%12, shape=(9, 2, 2, 1)) : float32[9,2,2,1] return y=%13"),
    ],
}  # fmt: skip

STAYS = {
    layout.average_of_exchanged_axes: [
        XT + "%2 = avg_pool2d(%1) : float32[1,2,2,2] return y=%2",
        '%0 = input("x") : float32[2,9,5,3] %1 = transpose(%0, axes=(0, 2, 1, 3)) : float32[2,5,9,3]\n'
        '%2 = avg_pool2d(%1, layout="NCHW") : float32[2,5,4,1] return y=%2',
    ],
    layout.region_in_the_way: [
        X + "%1 = fused(%0, body=(step(op=exp(), inputs=(0,)), step(op=relu(), inputs=(1,)))) : float32[1,2,4,5]\n"
        "return y=%1"
    ],
    layout.channels_first_op: [X + "%1 = max_pool2d(%0) : float32[1,1,2,5] return y=%1"],
    transposes.batch_norm_channels_last: [
        X + '%1 = variable("v") : float32[2] %2 = batch_norm(%0, %1, %1, %1, %1, axis=1) : float32[1,2,4,5] '
        'return y=%2',
    ],
    transposes.moments_of_transpose: [
        # What is left would come in another order.
        XT + "%2 = moments(%1, axes=(0, 1)) : (float32[5,2], float32[5,2]) %3 = item(%2, index=0) : "
        "float32[5,2] return y=%3",
    ],
    transposes.elementwise_of_transposes: [
        XT + '%2 = input("z") : float32[1,4,5,2] %3 = add(%1, %2) : float32[1,4,5,2] return y=%3',
        XT + '%2 = input("z") : float32[5,2] %3 = add(%1, %2) : float32[1,4,5,2] return y=%3',
        XT + '%2 = input("z") : float32[2,1,4,5] %3 = transpose(%2, axes=(1, 2, 3, 0)) : float32[1,4,5,2]\n'
        "%4 = add(%1, %3) : float32[1,4,5,2] return y=%4",
        # A transpose more would be made than is saved: of three axes, nobody knows which way leads to channels last.
        '%0 = input("x") : float32[3,4,2] %1 = transpose(%0, axes=(0, 2, 1)) : float32[3,2,4]\n'
        '%2 = input("z") : float32[3,2,4] %3 = add(%1, %2) : float32[3,2,4] return y=%3',
        # A kernel's gradient, and the kernel: it is the gradient that had better be transposed.
        '%0 = input("g") : float32[3,3,2,4] %1 = transpose(%0, axes=(3, 2, 0, 1)) : float32[4,2,3,3]\n'
        '%2 = variable("w") : float32[4,2,3,3] %3 = sub(%2, %1) : float32[4,2,3,3] return y=%3',
    ],
    transposes.softmax_of_transpose: [X + "%1 = softmax(%0, axis=1) : float32[1,2,4,5] return y=%1"],
    transposes.reduction_of_transpose: [X + "%1 = sum(%0, axes=(1,)) : float32[1,4,5] return y=%1"],
    transposes.choice_of_transpose: [
        X + "%1 = argmax(%0, axis=1) : int64[1,4,5] return y=%1",
        '%0 = input("x") : float32[3,4,2] %1 = transpose(%0, axes=(0, 2, 1)) : float32[3,2,4]\n'
        '%2 = input("t") : float32[3,2,4] %3 = softmax_cross_entropy(%1, %2, axis=1) : float32[3,4] return y=%3',
    ],
    transposes.size_of_transpose: [X + "%1 = size(%0, axes=(1,)) : float32[] return y=%1"],
    pieces.concat_of_transposes: [
        XT + '%2 = input("z") : float32[1,4,5,2] %3 = concat(%1, %2, axis=3) : float32[1,4,5,4] return y=%3',
    ],
    pieces.piece_of_transpose: [
        X + "%1 = split(%0, sizes=(1, 3), axis=2) : (float32[1,2,1,5], float32[1,2,3,5])\n"
        "%2 = item(%1, index=1) : float32[1,2,3,5] return y=%2",
        XT + "%2 = moments(%1, axes=(0,)) : (float32[4,5,2], float32[4,5,2]) %3 = item(%2, index=0) : float32[4,5,2] "
        "return y=%3",
    ],
    pieces.slice_of_transpose: [
        X + "%1 = slice(%0, starts=(0, 0, 0, 0), sizes=(1, 1, 4, 5), steps=(1, 1, 1, 1)) : float32[1,1,4,5] "
        "return y=%1",
    ],
    pieces.pad_of_transpose: [
        X + "%1 = pad(%0, padding=((0, 0), (0, 1), (0, 0), (0, 0))) : float32[1,3,4,5] return y=%1",
    ],
    pieces.gather_of_transpose: [
        X + "%1 = constant([1, 0, 3]) : int64[3] %2 = gather(%0, %1, axis=2) : float32[1,2,3,5] return y=%2",
        # It is the indices that are transposed.
        '%0 = input("x") : float32[7] %1 = input("i") : int64[3,2] %2 = transpose(%1, axes=(1, 0)) : int64[2,3]\n'
        "%3 = gather(%0, %2) : float32[2,3] return y=%3",
    ],
    pieces.gather_adjoint_of_transpose: [
        XT + "%2 = constant([1, 0, 3, 3, 4, 4, 2, 2, 2, 2, 1, 1, 0, 0, 3, 3, 3, 3, 1, 1]) : int64[4,5]\n"
        "%3 = gather_adjoint(%1, %2, shape=(1, 6, 2), axis=1) : float32[1,6,2] return y=%3",
    ],
    pieces.broadcast_of_transpose: [
        XT + "%2 = broadcast_to(%1, shape=(3, 4, 5, 2)) : float32[3,4,5,2] return y=%2",
    ],
    pieces.transpose_of_broadcast: [
        '%0 = input("x") : float32[1,2,4,1] %1 = broadcast_to(%0, shape=(3, 2, 4, 5)) : float32[3,2,4,5]\n'
        "%2 = transpose(%1, axes=(0, 2, 3, 1)) : float32[3,4,5,2] return y=%2",
        XT + "%2 = exp(%1) : float32[1,4,5,2] return y=%2",
    ],
    pieces.transpose_of_one_hot: [
        '%0 = input("x") : int64[3,4] %1 = one_hot(%0, classes=2, axis=1) : float32[3,2,4]\n'
        "%2 = transpose(%1, axes=(2, 1, 0)) : float32[4,2,3] return y=%2",
    ],
    pieces.reshape_of_transpose: [
        # Joined axes that are elsewhere in x: the shuffle is what it is.
        N + "%2 = reshape(%1, shape=(N, 210)) : float32[N,210] return y=%2",
        N + "%2 = reshape(%1, shape=(6*N, 5, 7)) : float32[6*N,5,7] return y=%2",
        # Heads of attention come together: no channels are here.
        '%0 = input("x") : float32[N,2,5,3] %1 = transpose(%0, axes=(0, 2, 1, 3)) : float32[N,5,2,3]\n'
        "%2 = reshape(%1, shape=(N, 5, 6)) : float32[N,5,6] return y=%2",
        # Windows of attention come together.
        '%0 = input("x") : float32[N,5,7,2,3,4] %1 = transpose(%0, axes=(0, 1, 3, 2, 4, 5)) : float32[N,5,2,7,3,4]\n'
        "%2 = reshape(%1, shape=(N, 10, 21, 4)) : float32[N,10,21,4] return y=%2",
        '%0 = input("x") : float32[0,5,7,6] %1 = transpose(%0, axes=(0, 3, 1, 2)) : float32[0,6,5,7]\n'
        "%2 = reshape(%1, shape=(6, 0)) : float32[6,0] return y=%2",
        # What is joined is where it begins in x. Where it ends there, it would have to come back.
        '%0 = input("x") : float32[2,3,12,4] %1 = transpose(%0, axes=(0, 3, 1, 2)) : float32[2,4,3,12]\n'
        "%2 = reshape(%1, shape=(2, 12, 12, 1)) : float32[2,12,12,1] return y=%2",
    ],
    products.product_of_transpose: [
        '%0 = input("x") : float32[4,3,2] %1 = transpose(%0, axes=(1, 0, 2)) : float32[3,4,2]\n'
        '%2 = input("z") : float32[2,5] %3 = matmul(%1, %2) : float32[3,4,5] return y=%3',
    ],
    products.product_along_an_image_axis: [
        Y + '%2 = input("m") : float32[2,5,3] %3 = matmul(%1, %2) : float32[1,2,4,3] return y=%3',
        Y + '%2 = input("m") : float32[4,3] %3 = matmul(%1, %2, transpose_x=true) : float32[1,2,5,3] return y=%3',
        XT + '%2 = input("m") : float32[2,3] %3 = matmul(%1, %2) : float32[1,4,5,3] return y=%3',
    ],
    products.dense_of_flattened: [
        # It would be more work to transpose w.
        FLAT + '%3 = variable("w") : float32[12,10] %4 = matmul(%2, %3) : float32[9,10] return y=%4',
        N + '%2 = reshape(%1, shape=(N, 210)) : float32[N,210] %3 = variable("w") : float32[210,1]\n'
        "%4 = matmul(%2, %3) : float32[N,1] return y=%4",
        FLAT + '%3 = input("w") : float32[12,2] %4 = matmul(%2, %3) : float32[9,2] return y=%4',
        # The batch is joined too.
        '%0 = input("x") : float32[3,2,2,3] %1 = transpose(%0, axes=(3, 0, 1, 2)) : float32[3,3,2,2]\n'
        "%2 = reshape(%1, shape=(3, 12)) : float32[3,12]\n"
        '%3 = variable("w") : float32[12,2] %4 = matmul(%2, %3) : float32[3,2] return y=%4',
    ],
    products.dense_gradient_of_flattened: [
        FLAT + '%3 = input("g") : float32[9,10] %4 = matmul(%2, %3, transpose_x=true) : float32[12,10] return y=%4',
        FLAT + '%3 = input("g") : float32[2,12] %4 = matmul(%3, %2, transpose_y=true) : float32[2,9] return y=%4',
    ],
    products.transpose_of_dense: [
        '%0 = input("x") : float32[1,2] %1 = variable("w") : float32[2,12] %2 = matmul(%0, %1) : float32[1,12]\n'
        "%3 = reshape(%2, shape=(1, 3, 2, 2)) : float32[1,3,2,2]\n"
        "%4 = transpose(%3, axes=(0, 2, 3, 1)) : float32[1,2,2,3] return y=%4",
        '%0 = input("x") : float32[3,2] %1 = variable("w") : float32[2,12] %2 = matmul(%0, %1) : float32[3,12]\n'
        "%3 = reshape(%2, shape=(3, 3, 2, 2)) : float32[3,3,2,2]\n"
        "%4 = transpose(%3, axes=(1, 0, 2, 3)) : float32[3,3,2,2] return y=%4",
        # Two read it: the product would be computed twice.
        '%0 = input("x") : float32[9,2] %1 = variable("w") : float32[2,12] %2 = matmul(%0, %1) : float32[9,12]\n'
        "%3 = reshape(%2, shape=(9, 3, 2, 2)) : float32[9,3,2,2]\n"
        "%4 = transpose(%3, axes=(0, 2, 3, 1)) : float32[9,2,2,3] return y=%4, z=%2",
        # No dense layer: a piece, and two operands that are data.
        '%0 = input("x") : float32[9,24] %1 = split(%0, sizes=(12, 12), axis=1) : (float32[9,12], float32[9,12])\n'
        "%2 = item(%1, index=0) : float32[9,12] %3 = reshape(%2, shape=(9, 3, 2, 2)) : float32[9,3,2,2]\n"
        "%4 = transpose(%3, axes=(0, 2, 3, 1)) : float32[9,2,2,3] return y=%4",
        '%0 = variable("v") : float32[9,24] %1 = split(%0, sizes=(12, 12), axis=1) : (float32[9,12], float32[9,12])\n'
        "%2 = item(%1, index=0) : float32[9,12] %3 = reshape(%2, shape=(9, 3, 2, 2)) : float32[9,3,2,2]\n"
        "%4 = transpose(%3, axes=(0, 2, 3, 1)) : float32[9,2,2,3] return y=%4",
        '%0 = input("x") : float32[9,2] %1 = variable("w") : float32[2,12] %2 = matmul(%0, %1) : float32[9,12]\n'
        '%3 = input("z") : float32[9,12] %4 = mul(%2, %3) : float32[9,12]\n'
        "%5 = reshape(%4, shape=(9, 3, 2, 2)) : float32[9,3,2,2]\n"
        "%6 = transpose(%5, axes=(0, 2, 3, 1)) : float32[9,2,2,3] return y=%6",
    ],

}  # fmt: skip


def cases(table):
    return [pytest.param(r, p, id=f"{r.__name__}-{i}") for r, pictures in table.items() for i, p in enumerate(pictures)]


@pytest.mark.parametrize(("rule", "picture"), cases(APPLIES))
def test_a_rule_applies(rule, picture):
    before, after = map(graph, picture)
    assert run([Rewriting("alone", (rule,))], before)[0].same_as(after)
    sizes = dict.fromkeys(before.symbols, 3)
    check(bind(before, **sizes), bind(after, **sizes), rule)


@pytest.mark.parametrize(("rule", "picture"), cases(STAYS))
def test_a_rule_stays_away(rule, picture):
    unchanged(picture, rule)


def test_every_rule_of_its_own_has_pictures():
    files = {each.__name__ for each in (layout, pieces, products, transposes)}
    own = {rule for rule in CHANNELS_LAST.rules if rule.__module__ in files}
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
