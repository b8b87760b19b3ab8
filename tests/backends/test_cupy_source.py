"""The CUDA file of a program: what is written once, what is joined, and that NVIDIA's compiler spills nothing."""

from __future__ import annotations

import pathlib
import re

import numpy as np
import pytest

import minigraph as mg
from backends.nvcc import assembled, needs_nvcc
from minigraph import layers
from minigraph.backends.cupy import CupyBackend
from minigraph.backends.cupy.loops import loop_code
from minigraph.backends.cupy.source import KERNELS, Source
from minigraph.backends.cupy.steps import Launch, Parameter
from minigraph.backends.loops.headers import SHARED, included
from minigraph.ir import Node, variable
from minigraph.ops.group import group
from minigraph.testing import cuda

ARCHITECTURES = ("80", "90")


def launch_of(node: Node) -> Launch:
    """Return the one kernel of a loop."""
    (launch,) = loop_code(node).actions
    assert isinstance(launch, Launch)
    return launch


def doubled(x: Node) -> Node:
    return group([y := x * 2.0, z := y + x], [y, z])


def test_equal_loops_over_other_arrays_are_written_once():
    source = Source()
    names = [source.add(launch_of(doubled(variable(shape)))) for shape in ((7,), (3, 50), (2, 2, 2))]
    assert len(set(names)) == 1 and str(source).count("__global__") == 1
    assert source.add(launch_of(variable((7,)) * 3.0)) not in names


def test_what_a_kernel_is_made_of_does_not_show_in_its_text_but_in_comments():
    source = Source()
    first, second = (source.add(launch_of(doubled(x))) for x in (variable((5,)), mg.ops.reshape(variable((5,)), (5,))))
    assert first == second
    assert "// variable" in str(source) and "// reshape" not in str(source)


def test_several_loops_are_a_kernel_over_a_table():
    source = Source()
    launch = launch_of(doubled(variable((5,))))
    name = source.several(launch)
    assert name == f"{source.add(launch)}_of_several"
    assert f"{name}(const " in str(source) and "row.elements" in str(source)


def test_headers_come_once_each_behind_what_they_need():
    text = included(["sums.cuh", "elementary.cuh", "types.cuh"], KERNELS, SHARED)
    titles = re.findall(r"^// ==== (\S+)", text, re.MULTILINE)
    elementary = ["lanes.cuh", "functions.cuh", "comparisons.h", "activations.h", "elementary.cuh"]
    assert titles == ["types.cuh", *elementary, "sums.cuh"] and '#include "' not in text


def test_a_launch_without_elements_is_one_kernel_of_its_own():
    source = Source()
    launch = Launch("fill", (Parameter("float* out", 0),), ("out[threadIdx.x] = 1;",), 1, 32)
    assert source.add(launch) == "k0_fill"
    assert 'extern "C" __global__ void __launch_bounds__(32, 1) k0_fill(float* out) {' in str(source)


def training_source(precision: str) -> str:
    """Return the file of a training step of a small network, on images of odd and even numbers of channels."""
    image = mg.Input((12, 12, 3), name="image")
    x = image
    for filters in (8, 10):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = layers.MaxPooling2D(2)(layers.ReLU()(layers.BatchNorm()(x)))
    x = layers.Dropout(0.25)(layers.Dense(6, activation="gelu")(layers.Flatten()(x)))
    model = mg.Model(image, layers.Dense(4)(x))
    loss = mg.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(mg.optimizers.AdamW(0.1), loss, ["accuracy"], backend=CupyBackend(), precision=precision)
    model.train_on_batch(np.zeros((4, 12, 12, 3), np.float32), np.zeros(4, np.int64))
    return model.program("training").source


@needs_nvcc
@pytest.mark.skipif(not cuda.available(), reason="no C++ compiler")
@pytest.mark.parametrize("precision", ["bfloat16", pytest.param("float32", marks=pytest.mark.slow)])
def test_nvidias_compiler_takes_a_program_and_spills_nothing(precision: str, tmp_path: pathlib.Path) -> None:
    with cuda.standin():
        source = training_source(precision)
    targets = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in ARCHITECTURES]
    report = assembled(source, tmp_path, "-fatbin", "--threads", "2", *targets)
    spilled = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", report)
    assert len(spilled) >= len(ARCHITECTURES) * source.count("__global__")
    assert set(spilled) == {("0", "0", "0")}
