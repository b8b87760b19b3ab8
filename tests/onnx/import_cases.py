"""Drawn ONNX nodes: for each family of ops its attributes, shapes, dtypes and opsets at random.

`draw(family, seed)` gives one node with its operands. Operands that shapes depend on are initializers, most others
inputs.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from ops.cases import coin, distinct, normal, pick, positive, some_shape, two_shapes

onnx = pytest.importorskip("onnx", "1.17")

from onnx import helper, numpy_helper  # noqa: E402

Rng = np.random.Generator
Array = np.ndarray[Any, Any]
FLOATS = ("float32", "float32", "float64", "float16")
INTEGERS = ("int32", "int64")
# IR versions that go with old opsets: before IR 4 initializers are inputs too.
IR = 8


@dataclass(frozen=True)
class Drawn:
    """A node: its operands (None: left out), which of them are initializers, its attributes and version.

    `twin` is a node that means the same in a version that others have. `only` says who can judge it, where one of the
    two others is known to be wrong. `loose` is the tolerance, relative to the largest element of the result.
    """

    op_type: str
    operands: list[Array | None] = field(repr=False)
    attributes: dict[str, Any] = field(default_factory=dict)
    opset: int = 20
    fixed: tuple[int, ...] = ()
    outputs: int = 1
    only: str = ""
    loose: float = 0.0
    twin: Drawn | None = None

    def model(self) -> onnx.ModelProto:
        """Return the node as a model."""
        names = ["" if x is None else f"x{i}" for i, x in enumerate(self.operands)]
        given = [(n, x, i) for i, (n, x) in enumerate(zip(names, self.operands, strict=True)) if x is not None]
        results = [f"y{i}" for i in range(self.outputs)]
        node = helper.make_node(self.op_type, names, results, **self.attributes)
        inputs = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
            for name, x, i in given
            if i not in self.fixed
        ]
        tensors = [numpy_helper.from_array(x, name) for name, x, i in given if i in self.fixed]
        ends = [onnx.ValueInfoProto(name=name) for name in results]
        graph = helper.make_graph([node], "case", inputs, ends, tensors)
        opsets = [helper.make_opsetid("", self.opset)]
        return onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=opsets, ir_version=IR))

    @property
    def feeds(self) -> dict[str, Array]:
        """The inputs by name."""
        given = enumerate(self.operands)
        return {f"x{i}": np.asarray(x) for i, x in given if x is not None and i not in self.fixed}

    def __str__(self) -> str:
        operands = ["–" if x is None else f"{x.dtype}{list(x.shape)}" for x in self.operands]
        given = {i: self.operands[i] for i in self.fixed}
        small = {i: x.tolist() for i, x in given.items() if x is not None and x.size < 16}
        return f"{self.op_type}-{self.opset}({', '.join(operands)}) {self.attributes} fixed {small}"


FAMILIES: dict[str, Callable[[Rng], Drawn]] = {}


def draw(family: str, seed: int) -> Drawn:
    """Return the case of a family that belongs to a seed."""
    return FAMILIES[family](np.random.default_rng([seed, zlib.crc32(family.encode())]))


def family(make: Callable[[Rng], Drawn]) -> Callable[[Rng], Drawn]:
    FAMILIES[make.__name__.strip("_")] = make
    return make


def whole(*numbers: Any) -> Array:
    return np.array(numbers, np.int64)


def numbers(rng: Rng, shape: Sequence[int], dtype: str = "float32", scale: float = 1.0) -> Array:
    """Return numbers of a dtype: normal ones, small integers, or booleans."""
    if dtype == "bool":
        return np.asarray(rng.random(tuple(shape)) < 0.5)
    if dtype.startswith("float"):
        return normal(rng, shape, scale).astype(dtype)
    low = 0 if dtype.startswith("u") else -5
    return np.asarray(rng.integers(low, 6, tuple(shape))).astype(dtype)


def sometimes(rng: Rng, **attributes: Any) -> dict[str, Any]:
    """Return some of the attributes; the others keep their defaults."""
    return {name: value for name, value in attributes.items() if rng.random() < 0.6}


# --- windows ----------------------------------------------------------------------------------------------------------


def window(rng: Rng, axes: int, dilated: bool = True, pool: bool = True) -> tuple[dict[str, Any], list[int]]:
    """Return window attributes and sizes that the window fits into; a pad is smaller than the window.

    Pools are "same" only where onnxruntime can do it: without dilations, and windows that leave nothing out.
    """
    while True:
        kernel = [int(k) for k in rng.integers(1, 4, axes)]
        strides = [int(s) for s in rng.integers(1, 4, axes)]
        dilations = [int(d) for d in rng.integers(1, 3, axes)] if dilated and coin(rng) else [1] * axes
        extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        sizes = [int(s) for s in rng.integers(1, 9 if axes < 3 else 6, axes)]
        pads = [int(rng.integers(0, k)) for k in kernel * 2]
        mode = pick(rng, ["NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"])
        if pool and mode.startswith("SAME"):
            dilations, strides = [1] * axes, [min(s, k) for s, k in zip(strides, kernel, strict=True)]
        total = [a + b for a, b in zip(pads[:axes], pads[axes:], strict=True)] if mode == "NOTSET" else [0] * axes
        if mode.startswith("SAME") or all(s + t >= e for s, t, e in zip(sizes, total, extent, strict=True)):
            break
    attributes: dict[str, Any] = {"kernel_shape": kernel, **sometimes(rng, strides=strides)}
    if max(dilations) > 1:
        attributes["dilations"] = dilations
    if mode != "NOTSET":
        attributes["auto_pad"] = mode
    elif coin(rng):
        attributes["pads"] = pads
    if "pads" not in attributes and mode in ("NOTSET", "VALID"):
        fits = all(s >= e for s, e in zip(sizes, extent, strict=True))
        return (attributes, sizes) if fits else window(rng, axes, dilated, pool)
    return attributes, sizes


def images(rng: Rng, sizes: Sequence[int], dtype: str = "float32", channels: int = 2) -> Array:
    shape = (int(rng.integers(1, 3)), channels, *sizes)
    return distinct(rng, shape).astype(dtype) if dtype.startswith("float") else numbers(rng, shape, dtype)


@family
def max_pool(rng: Rng) -> Drawn:
    opset = pick(rng, [1, 8, 10, 11, 12, 20, 22])
    attributes, sizes = window(rng, pick(rng, [1, 2, 2, 3]), dilated=opset >= 10)
    if opset >= 10 and "auto_pad" not in attributes:
        attributes |= sometimes(rng, ceil_mode=1)
    outputs = 2 if opset >= 8 and coin(rng) else 1
    if outputs == 2:
        attributes |= sometimes(rng, storage_order=1)
    dtype = pick(rng, ["float32", "float32", "uint8", "int8"]) if opset >= 12 else "float32"
    return Drawn("MaxPool", [images(rng, sizes, dtype)], attributes, opset, outputs=outputs)


@family
def average_pool(rng: Rng) -> Drawn:
    opset = pick(rng, [1, 7, 10, 11, 19, 20, 22])
    attributes, sizes = window(rng, pick(rng, [1, 2, 2, 3]), dilated=opset >= 19)
    if opset >= 10 and "auto_pad" not in attributes:
        attributes |= sometimes(rng, ceil_mode=1)
    x = images(rng, sizes)
    if opset == 1:  # padding never counts
        return Drawn("AveragePool", [x], attributes, 1, twin=Drawn("AveragePool", [x], attributes, 7))
    return Drawn("AveragePool", [x], attributes | sometimes(rng, count_include_pad=1), opset)


@family
def lp_pool(rng: Rng) -> Drawn:
    opset = pick(rng, [2, 11, 18, 22])
    attributes, sizes = window(rng, pick(rng, [1, 2, 2, 3]), dilated=opset >= 18)
    if opset >= 18 and "auto_pad" not in attributes:
        attributes |= sometimes(rng, ceil_mode=1)
    return Drawn("LpPool", [images(rng, sizes)], attributes | sometimes(rng, p=pick(rng, [1, 2, 3])), opset)


@family
def global_pool(rng: Rng) -> Drawn:
    op_type = pick(rng, ["GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool"])
    attributes = sometimes(rng, p=pick(rng, [1, 2, 3])) if op_type == "GlobalLpPool" else {}
    sizes = some_shape(rng, 1, 3)
    return Drawn(op_type, [images(rng, sizes)], attributes, pick(rng, [2, 20]))


@family
def conv(rng: Rng) -> Drawn:
    axes, groups = pick(rng, [1, 2, 2, 3]), pick(rng, [1, 1, 2, 3])
    attributes, sizes = window(rng, axes, pool=False)
    into, out = int(rng.integers(1, 3)), int(rng.integers(1, 3))
    x = normal(rng, (2, groups * into, *sizes)).astype("f")
    w = normal(rng, (groups * out, into, *attributes["kernel_shape"])).astype("f")
    operands: list[Array | None] = [x, w, *([normal(rng, (groups * out,)).astype("f")] if coin(rng) else [])]
    if coin(rng):
        attributes.pop("kernel_shape")
    attributes |= {"group": groups} if groups > 1 else {}
    fixed = pick(rng, [(), (1,), tuple(range(1, len(operands)))])
    # onnxruntime has no automatic padding of dilated windows.
    only = "reference" if "dilations" in attributes and "SAME" in attributes.get("auto_pad", "") else ""
    return Drawn("Conv", operands, attributes, pick(rng, [1, 11, 20, 22]), fixed, only=only)


@family
def conv_transpose(rng: Rng) -> Drawn:
    axes, groups = pick(rng, [1, 2, 2, 3]), pick(rng, [1, 1, 2])
    kernel, strides, dilations = (
        [int(v) for v in rng.integers(1, high, axes)] for high in (4, pick(rng, [2, 4]), pick(rng, [2, 3]))
    )
    sizes = [int(s) for s in rng.integers(1, 5, axes)]
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    full = [(i - 1) * s + e for i, s, e in zip(sizes, strides, extent, strict=True)]
    attributes: dict[str, Any] = {"strides": strides, "dilations": dilations, "kernel_shape": kernel}
    mode = pick(rng, ["pads", "pads", "nothing", "SAME_UPPER", "SAME_LOWER", "VALID", "output_shape"])
    extra = [int(rng.integers(0, s)) for s in strides]
    if mode == "pads":
        attributes["pads"] = [int(rng.integers(0, (f + 1) // 2)) for f in full * 2]
        attributes |= sometimes(rng, output_padding=extra)
    elif mode == "output_shape":
        attributes["output_shape"] = [f - int(rng.integers(0, max(1, f // 2))) for f in full]
        attributes |= sometimes(rng, auto_pad=pick(rng, ["SAME_UPPER", "SAME_LOWER", "NOTSET"]))
    elif mode != "nothing":
        attributes["auto_pad"] = mode
        if mode.startswith("SAME"):  # a stride that the kernel reaches over
            attributes["strides"] = [min(s, e) for s, e in zip(strides, extent, strict=True)]
    into, out = int(rng.integers(1, 3)), int(rng.integers(1, 3))
    x = normal(rng, (2, groups * into, *sizes)).astype("f")
    w = normal(rng, (groups * into, out, *kernel)).astype("f")
    operands: list[Array | None] = [x, w, *([normal(rng, (groups * out,)).astype("f")] if coin(rng) else [])]
    if coin(rng):
        attributes.pop("kernel_shape")
    attributes |= {"group": groups} if groups > 1 else {}
    return Drawn("ConvTranspose", operands, attributes, pick(rng, [1, 11, 20, 22]), pick(rng, [(), (1,)]))


# --- resize -----------------------------------------------------------------------------------------------------------

TRANSFORMATIONS = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric"]


@family
def resize(rng: Rng) -> Drawn:
    opset = pick(rng, [11, 13, 18, 19, 20])
    mode = pick(rng, ["nearest", "linear", "cubic"])
    transformation = pick(rng, TRANSFORMATIONS[: 5 if opset >= 19 else 4])
    sizes = [int(s) for s in rng.integers(2, 7, 2)]
    x = normal(rng, (1, 2, *sizes)).astype("f")
    attributes: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": transformation}
    if mode == "nearest":
        names = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]
        attributes |= sometimes(rng, nearest_mode=pick(rng, names))
    if mode == "cubic":
        attributes |= sometimes(rng, cubic_coeff_a=pick(rng, [-0.5, -0.75]), exclude_outside=1)
    partial = opset >= 18 and coin(rng)
    if partial:
        attributes["axes"] = [2, 3]
    if opset >= 18 and mode != "nearest" and transformation in ("half_pixel", "asymmetric") and coin(rng):
        attributes["antialias"] = 1
    lead = [] if partial else [1, 1]
    region = np.zeros(0, np.float32) if opset < 13 else None  # was no option at first
    # onnxruntime's antialiasing along one axis changes what it does along the other.
    # And it leaves an axis alone whose size stays, whatever the scale says of a symmetric half pixel.
    only = "reference" if "antialias" in attributes or transformation == "half_pixel_symmetric" else ""
    if coin(rng):
        # Aligned corners: size·scale is the length for the reference, and cut off to an integer for onnxruntime.
        only = "reference" if transformation == "align_corners" else only
        exact = [0.5, 0.75, 1.0, 1.5, 2.0, 3.0]  # others times a size are rounded in float32, or not
        scales = np.array(
            [*lead, *rng.choice(exact if only else [0.5, 0.6, 0.75, 1.0, 1.3, 1.5, 2.0, 2.6, 3.0], 2)], np.float32
        )
        fixed = (2,) if region is None else (1, 2)
        return Drawn("Resize", [x, region, scales], attributes, opset, fixed, only=only, loose=1e-5)
    lengths = [*([] if partial else x.shape[:2]), *(int(s) for s in rng.integers(1, 9, 2))]
    if partial and coin(rng):
        lengths = [int(s) for s in rng.integers(4, 10, 2)]
        attributes["keep_aspect_ratio_policy"] = pick(rng, ["not_larger", "not_smaller"])
    fixed = (3,) if region is None else (1, 2, 3)
    operands: list[Array | None] = [x, region, region, whole(*lengths)]
    return Drawn("Resize", operands, attributes, opset, fixed, only=only, loose=1e-5)


@family
def resize_region(rng: Rng) -> Drawn:
    """A region of the image, and a number for what lies beyond it."""
    opset, partial = pick(rng, [11, 13, 18, 19]), coin(rng)
    partial = partial and opset >= 18
    x = normal(rng, (1, 2, *(int(s) for s in rng.integers(2, 7, 2)))).astype("f")
    starts, ends = rng.uniform(-0.3, 0.4, 2), rng.uniform(0.6, 1.3, 2)
    lead = ([], []) if partial else ([0, 0], [1, 1])
    region = np.array([*lead[0], *starts, *lead[1], *ends], np.float32)
    attributes: dict[str, Any] = {
        "mode": pick(rng, ["nearest", "linear", "cubic"]), "coordinate_transformation_mode": "tf_crop_and_resize",
        **sometimes(rng, extrapolation_value=-2.5),
    }  # fmt: skip
    if partial:
        attributes["axes"] = [2, 3]
    lengths = [*([] if partial else x.shape[:2]), *(int(s) for s in rng.integers(1, 9, 2))]
    scales = np.zeros(0, np.float32) if opset < 13 else None
    fixed = (1, 3) if scales is None else (1, 2, 3)
    # onnxruntime reads the region's numbers in another order for some modes and for `axes`.
    return Drawn("Resize", [x, region, scales, whole(*lengths)], attributes, opset, fixed, loose=1e-4, only="reference")


@family
def resize_axes(rng: Rng) -> Drawn:
    """Any axes, of arrays of any rank."""
    rank = int(rng.integers(1, 5))
    axes = sorted(int(a) for a in rng.permutation(rank)[: rng.integers(1, rank + 1)])
    x = normal(rng, [int(s) for s in rng.integers(2, 5, rank)]).astype("f")
    mode = pick(rng, ["nearest", "linear"])
    attributes = {"mode": mode, "coordinate_transformation_mode": pick(rng, TRANSFORMATIONS), "axes": axes}
    lengths = [int(s) for s in rng.integers(1, 7, len(axes))]
    return Drawn("Resize", [x, None, None, whole(*lengths)], attributes, 19, (3,), only="reference")


@family
def upsample(rng: Rng) -> Drawn:
    opset = pick(rng, [7, 9])
    x = normal(rng, (1, 2, *(int(s) for s in rng.integers(1, 5, 2)))).astype("f")
    scales = [1.0, 1.0, *(float(s) for s in rng.choice([1.0, 1.5, 2.0, 2.5, 3.0], 2))]
    mode = {"mode": pick(rng, ["nearest", "linear"])}
    if opset == 7:
        return Drawn("Upsample", [x], mode | {"scales": scales}, 7, only="onnxruntime")
    return Drawn("Upsample", [x, np.array(scales, np.float32)], mode, 9, (1,), only="onnxruntime")


# --- shapes and places ------------------------------------------------------------------------------------------------


@family
def pad(rng: Rng) -> Drawn:
    opset = pick(rng, [2, 11, 13, 18, 19, 20])
    modes = ["constant", "reflect", "edge", *(["wrap"] if opset >= 19 else [])]
    mode, shape = pick(rng, modes), tuple(int(s) for s in rng.integers(2, 6, rng.integers(1, 5)))
    axes = sorted(int(a) for a in rng.permutation(len(shape))[: rng.integers(1, len(shape) + 1)])
    axes = axes if opset >= 18 and coin(rng) else list(range(len(shape)))
    least = -1 if mode == "constant" else 0
    pads = [int(rng.integers(least, shape[a])) for a in axes * 2]
    dtype = pick(rng, ["float32", "float64", "int64", "int32"]) if opset >= 11 else "float32"
    x = numbers(rng, shape, dtype)
    attributes: dict[str, Any] = {"mode": mode} if mode != "constant" or coin(rng) else {}
    if opset < 11:
        return Drawn("Pad", [x], attributes | {"pads": pads} | sometimes(rng, value=1.5), opset)
    operands: list[Array | None] = [x, whole(*pads)]
    named = len(axes) < len(shape) or (opset >= 18 and coin(rng))
    if mode == "constant" and coin(rng):
        operands.append(np.array(pick(rng, [0, 2, -3]), dtype))
    if named:
        operands += [None] * (3 - len(operands))
        operands.append(whole(*(a - len(shape) if coin(rng) else a for a in axes)))
    fixed = tuple(i for i in range(1, len(operands)) if operands[i] is not None)
    return Drawn("Pad", operands, attributes, opset, fixed)


@family
def slice_(rng: Rng) -> Drawn:
    opset = pick(rng, [1, 9, 10, 11, 13, 20])
    shape = some_shape(rng, 1, 4)
    axes = [int(a) for a in rng.permutation(len(shape))[: rng.integers(1, len(shape) + 1)]]
    last = [2**63 - 1, 2**31 - 1, -(2**63), -(2**31)]

    def place(size: int) -> int:
        return pick(rng, last) if rng.random() < 0.2 else int(rng.integers(-size - 2, size + 3))

    starts, ends = ([place(shape[a]) for a in axes] for _ in range(2))
    dtype = pick(rng, ["float32", "int64", "uint8", "bool", "float64"])
    x = numbers(rng, shape, dtype)
    if opset < 10:
        if axes == [*range(len(axes))] and coin(rng):
            return Drawn("Slice", [x], {"starts": starts, "ends": ends}, opset)
        return Drawn("Slice", [x], {"starts": starts, "ends": ends, "axes": axes}, opset)
    operands: list[Array | None] = [x, whole(*starts), whole(*ends)]
    if axes != [*range(len(axes))] or coin(rng):
        operands.append(whole(*(a - len(shape) if opset >= 11 and coin(rng) else a for a in axes)))
    if coin(rng):
        operands += [None] * (4 - len(operands))
        # The largest number means the end on the way forward; on the way backward it is said to be the smallest.
        far = [pick(rng, [1, 2, 3] if end > 99 else [-1, -2] if end < -99 else [1, 2, 3, -1, -2, -3]) for end in ends]
        operands.append(whole(*far))
    fixed = tuple(i for i in range(1, len(operands)) if operands[i] is not None)
    return Drawn("Slice", operands, {}, opset, fixed)


@family
def gather(rng: Rng) -> Drawn:
    shape = some_shape(rng, 1, 4)
    axis = int(rng.integers(-len(shape), len(shape)))
    indices = np.asarray(rng.integers(-shape[axis], shape[axis], some_shape(rng, 0, 3))).astype(pick(rng, INTEGERS))
    dtype = pick(rng, ["float32", "int32", "bool", "uint8"])
    return Drawn(
        "Gather", [numbers(rng, shape, dtype), indices], {"axis": axis}, pick(rng, [11, 13]), pick(rng, [(), (1,)])
    )


@family
def gather_elements(rng: Rng) -> Drawn:
    shape = some_shape(rng, 1, 4)
    axis = int(rng.integers(-len(shape), len(shape)))
    at = axis % len(shape)
    wanted = tuple(int(rng.integers(1, 5)) if i == at else int(rng.integers(1, s + 1)) for i, s in enumerate(shape))
    indices = rng.integers(-shape[at], shape[at], wanted).astype(pick(rng, INTEGERS))
    dtype = pick(rng, ["float32", "int64", "bool"])
    return Drawn("GatherElements", [numbers(rng, shape, dtype), indices], {"axis": axis}, pick(rng, [11, 13]))


@family
def gather_nd(rng: Rng) -> Drawn:
    shape = some_shape(rng, 1, 4)
    batch = int(rng.integers(0, len(shape)))
    depth = int(rng.integers(1, len(shape) - batch + 1))
    around = (*shape[:batch], *some_shape(rng, 0, 2))
    columns = [rng.integers(-s, s, around) for s in shape[batch : batch + depth]]
    indices = np.stack(columns, -1).astype(np.int64)
    attributes = {"batch_dims": batch} if batch else {}
    return Drawn("GatherND", [numbers(rng, shape, pick(rng, ["float32", "int32"])), indices], attributes,
                 pick(rng, [12, 13]), pick(rng, [(), (1,)]))  # fmt: skip


@family
def one_hot(rng: Rng) -> Drawn:
    indices = numbers(rng, some_shape(rng, 1, 3), pick(rng, ["int64", "int32", "float32"]))
    indices = np.rint(indices).astype(indices.dtype)
    depth, rank = int(rng.integers(1, 7)), indices.ndim
    values = numbers(rng, (2,), pick(rng, ["float32", "int64", "int32"]))
    attributes = sometimes(rng, axis=int(rng.integers(-rank - 1, rank + 1)))
    return Drawn("OneHot", [indices, np.array(depth, np.int64), values], attributes, pick(rng, [9, 11]),
                 pick(rng, [(1,), (1, 2)]))  # fmt: skip


@family
def arg_extreme(rng: Rng) -> Drawn:
    shape, opset = some_shape(rng, 1, 4), pick(rng, [1, 11, 12, 13])
    low = 0 if opset < 11 else -len(shape)
    attributes = sometimes(rng, axis=int(rng.integers(low, len(shape))), keepdims=0)
    if opset >= 12:
        attributes |= sometimes(rng, select_last_index=1)
    x = numbers(rng, shape, pick(rng, ["float32", "int32"]) if opset > 1 else "float32")
    return Drawn(pick(rng, ["ArgMax", "ArgMin"]), [np.round(x)], attributes, opset)


@family
def top_k(rng: Rng) -> Drawn:
    shape, opset = some_shape(rng, 1, 4), pick(rng, [1, 10, 11])
    axis = int(rng.integers(-len(shape), len(shape)))
    k = int(rng.integers(1, shape[axis] + 1))
    x = pick(rng, [distinct(rng, shape).astype("f"), numbers(rng, shape, "int64" if opset >= 11 else "float32")])
    if opset == 1:
        return Drawn("TopK", [distinct(rng, shape).astype("f")], {"axis": axis % len(shape), "k": k}, opset, outputs=2)
    attributes = {"axis": axis if opset >= 11 else axis % len(shape)}
    attributes |= {"largest": int(coin(rng))} if opset >= 11 else {}
    return Drawn("TopK", [x, whole(k)], attributes, opset, (1,), outputs=2)


@family
def cum_sum(rng: Rng) -> Drawn:
    shape = some_shape(rng, 1, 4)
    axis = np.array(int(rng.integers(-len(shape), len(shape))), pick(rng, INTEGERS))
    x = numbers(rng, shape, pick(rng, ["float32", "float64", "int32", "int64"]))
    return Drawn("CumSum", [x, axis], sometimes(rng, exclusive=1, reverse=1), pick(rng, [11, 14]), (1,))


@family
def trilu(rng: Rng) -> Drawn:
    x = numbers(rng, some_shape(rng, 2, 4), pick(rng, ["float32", "int64", "bool"]))
    operands: list[Array | None] = [x, *([np.array(int(rng.integers(-4, 5)), np.int64)] if coin(rng) else [])]
    return Drawn("Trilu", operands, sometimes(rng, upper=int(coin(rng))), 14, (1,) if len(operands) > 1 else ())


@family
def depth_and_space(rng: Rng) -> Drawn:
    b, sizes, opset = int(rng.integers(1, 4)), [int(s) for s in rng.integers(1, 4, 2)], pick(rng, [1, 11, 13])
    if coin(rng):
        x = normal(rng, (2, 2, b * sizes[0], b * sizes[1])).astype("f")
        return Drawn("SpaceToDepth", [x], {"blocksize": b}, pick(rng, [1, 13]))
    attributes = {"blocksize": b} | (sometimes(rng, mode=pick(rng, ["DCR", "CRD"])) if opset >= 11 else {})
    return Drawn("DepthToSpace", [normal(rng, (2, 2 * b * b, *sizes)).astype("f")], attributes, opset)


@family
def split(rng: Rng) -> Drawn:
    opset, pieces = pick(rng, [2, 11, 13, 18]), int(rng.integers(1, 5))
    sizes = [int(s) for s in rng.integers(0, 4, pieces)]
    shape = list(some_shape(rng, 1, 3))
    axis = int(rng.integers(len(shape)))
    equal = coin(rng)
    if equal:
        each = int(rng.integers(1, 4))
        shape[axis] = each * pieces - (int(rng.integers(0, each)) if opset >= 18 else 0)
    else:
        shape[axis] = sum(sizes)
    x, attributes = (
        numbers(rng, shape, pick(rng, ["float32", "int64"])),
        {"axis": axis if opset < 11 else axis - len(shape)},
    )
    if equal:
        attributes |= {"num_outputs": pieces} if opset >= 18 else {}
        if opset >= 18 and -(-shape[axis] // -(-shape[axis] // pieces)) != pieces:
            return split(rng)  # pieces that would be empty
        return Drawn("Split", [x], attributes, opset, outputs=pieces)
    if opset < 13:
        return Drawn("Split", [x], attributes | {"split": sizes}, opset, outputs=pieces)
    return Drawn("Split", [x, whole(*sizes)], attributes, opset, (1,), outputs=pieces)


@family
def shapes(rng: Rng) -> Drawn:
    """Reshape, Flatten, Squeeze, Unsqueeze, Transpose, Expand, Tile, Concat, in their versions."""
    return pick(rng, [_reshape, _flatten, _squeeze, _unsqueeze, _transpose, _expand, _tile, _concat])(rng)


def _reshape(rng: Rng) -> Drawn:
    shape, opset = list(some_shape(rng, 1, 4)), pick(rng, [1, 5, 13, 14])
    x = numbers(rng, shape, pick(rng, ["float32", "int64"]) if opset > 1 else "float32")
    target = [0 if i < len(shape) and coin(rng) else s for i, s in enumerate(shape)]
    if coin(rng):
        target[int(rng.integers(len(target)))] = -1
    if coin(rng):
        target.append(1)
    if opset == 1:
        return Drawn("Reshape", [x], {"shape": target}, 1, twin=Drawn("Reshape", [x, whole(*target)], {}, 13, (1,)))
    if opset == 14 and 0 not in target and coin(rng):
        return Drawn("Reshape", [x, whole(*target)], {"allowzero": 1}, 14, (1,))
    return Drawn("Reshape", [x, whole(*target)], {}, opset, (1,))


def _flatten(rng: Rng) -> Drawn:
    x, opset = numbers(rng, some_shape(rng, 1, 4)), pick(rng, [1, 9, 11, 13])
    low = 0 if opset < 11 else -x.ndim
    return Drawn("Flatten", [x], sometimes(rng, axis=int(rng.integers(low, x.ndim + 1))), opset)


def _squeeze(rng: Rng) -> Drawn:
    opset, rank = pick(rng, [1, 11, 13]), int(rng.integers(1, 5))
    shape = [int(pick(rng, [1, 1, 2, 3])) for _ in range(rank)]
    ones = [i for i, s in enumerate(shape) if s == 1 and coin(rng)]
    x = numbers(rng, shape)
    if not ones:
        return Drawn("Squeeze", [x], {}, opset)
    axes = [a - rank if opset >= 11 and coin(rng) else a for a in ones]
    return (
        Drawn("Squeeze", [x], {"axes": axes}, opset)
        if opset < 13
        else Drawn("Squeeze", [x, whole(*axes)], {}, 13, (1,))
    )


def _unsqueeze(rng: Rng) -> Drawn:
    opset, x, new = pick(rng, [1, 11, 13]), numbers(rng, some_shape(rng, 0, 3)), int(rng.integers(1, 3))
    rank = x.ndim + new
    axes = [int(a) - rank if opset >= 11 and coin(rng) else int(a) for a in rng.permutation(rank)[:new]]
    if opset < 13:
        return Drawn("Unsqueeze", [x], {"axes": axes if opset == 11 else sorted(axes)}, opset)
    return Drawn("Unsqueeze", [x, whole(*axes)], {}, opset, (1,))


def _transpose(rng: Rng) -> Drawn:
    x = numbers(rng, some_shape(rng, 1, 4), pick(rng, ["float32", "bool", "int8"]))
    return Drawn("Transpose", [x], sometimes(rng, perm=[int(a) for a in rng.permutation(x.ndim)]), pick(rng, [1, 13]))


def _expand(rng: Rng) -> Drawn:
    x, y = two_shapes(rng)
    return Drawn("Expand", [numbers(rng, x, pick(rng, ["float32", "int64"])), whole(*y)], {}, pick(rng, [8, 13]), (1,))


def _tile(rng: Rng) -> Drawn:
    x = numbers(rng, some_shape(rng, 1, 4), pick(rng, ["float32", "int64"]))
    return Drawn("Tile", [x, whole(*rng.integers(0 if coin(rng) else 1, 4, x.ndim))], {}, pick(rng, [6, 13]), (1,))


def _concat(rng: Rng) -> Drawn:
    shape, opset = list(some_shape(rng, 1, 4)), pick(rng, [4, 11, 13])
    axis = int(rng.integers(len(shape)))
    parts = [numbers(rng, [int(rng.integers(0, 4)) if i == axis else s for i, s in enumerate(shape)])
             for _ in range(int(rng.integers(1, 4)))]  # fmt: skip
    return Drawn("Concat", list(parts), {"axis": axis - len(shape) if opset >= 11 and coin(rng) else axis}, opset)


# --- reductions -------------------------------------------------------------------------------------------------------

REDUCTIONS = ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
              "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"]  # fmt: skip


@family
def reductions(rng: Rng) -> Drawn:
    op_type = pick(rng, REDUCTIONS)
    operand = 13 if op_type == "ReduceSum" else 18  # since then axes are an operand
    opset = pick(rng, [1, 11, operand - 1, operand, operand, 20])
    shape = list(some_shape(rng, 0 if coin(rng) else 1, 4))
    dtypes = ["float32", "float32", "int32", "int64", "float64"]
    if op_type in ("ReduceMax", "ReduceMin") and opset == 20:
        dtypes += ["bool", "uint8", "int8"]
    dtype = pick(rng, dtypes) if opset > 1 else "float32"
    x = numbers(rng, shape, dtype)
    if op_type == "ReduceLogSum" or (op_type in ("ReduceL2", "ReduceLogSumExp") and dtype.startswith("int")):
        x = np.abs(x) + np.ones((), dtype)
    attributes = sometimes(rng, keepdims=int(coin(rng)))
    axes = [int(a) for a in rng.permutation(len(shape))[: rng.integers(0, len(shape) + 1)]]
    if opset >= 11:
        axes = [a - len(shape) if coin(rng) else a for a in axes]
    if opset < operand:
        return Drawn(op_type, [x], attributes | ({"axes": axes} if axes else {}), opset)
    attributes |= sometimes(rng, noop_with_empty_axes=int(coin(rng)))
    if not axes and attributes.get("noop_with_empty_axes") and op_type not in ("ReduceSum",):
        attributes.pop("noop_with_empty_axes")  # x itself, or what is done to each element? it was changed
    operands: list[Array | None] = [x] if not axes and coin(rng) else [x, whole(*axes)]
    return Drawn(op_type, operands, attributes, opset, (1,) if len(operands) > 1 else ())


@family
def empty_reductions(rng: Rng) -> Drawn:
    op_type = pick(rng, ["ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
                         "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"])  # fmt: skip
    dtype = (
        pick(rng, ["float32", "int64"])
        if op_type in ("ReduceSum", "ReduceProd", "ReduceMax", "ReduceMin")
        else "float32"
    )
    shape = [2, 0, 3]
    return Drawn(op_type, [np.zeros(shape, dtype), whole(1)], sometimes(rng, keepdims=0), 20, (1,), only="reference")


@family
def softmax(rng: Rng) -> Drawn:
    op_type, opset = pick(rng, ["Softmax", "LogSoftmax", "Hardmax"]), pick(rng, [1, 11, 12, 13, 20])
    x = distinct(rng, some_shape(rng, 1, 4)).astype("f")
    low = 0 if opset < 11 else -x.ndim
    if x.ndim == 1 and opset < 13:
        return Drawn(op_type, [x], {"axis": 0}, opset)
    return Drawn(op_type, [x], sometimes(rng, axis=int(rng.integers(low, x.ndim))), opset)


# --- products, normalisation ------------------------------------------------------------------------------------------


@family
def gemm(rng: Rng) -> Drawn:
    opset = pick(rng, [1, 6, 7, 9, 11, 13])
    m, k, n = (int(s) for s in rng.integers(1, 5, 3))
    turned = coin(rng), coin(rng)
    dtype = pick(rng, ["float32", "float32", "float64", "int32"]) if opset >= 9 else "float32"
    a = numbers(rng, (k, m) if turned[0] else (m, k), dtype)
    b = numbers(rng, (n, k) if turned[1] else (k, n), dtype)
    attributes: dict[str, Any] = {"transA": int(turned[0]), "transB": int(turned[1])}
    if dtype != "int32":
        attributes |= sometimes(rng, alpha=pick(rng, [0.5, 2.0]), beta=pick(rng, [0.0, 0.5, -1.0]))
    shapes = [(m, n), (n,), (1, n), (m, 1), ()] if opset >= 7 else [(m, n), (n,)]
    operands: list[Array | None] = [a, b]
    if opset < 11 or coin(rng):
        operands.append(numbers(rng, pick(rng, shapes), dtype))
    if opset < 7:
        broadcast = {"broadcast": int(operands[2].shape != (m, n))}  # type: ignore[union-attr]
        return Drawn("Gemm", operands, attributes | broadcast, opset, twin=Drawn("Gemm", operands, attributes, 13))
    only = "reference" if dtype == "int32" else ""
    return Drawn("Gemm", operands, attributes, opset, pick(rng, [(), (1,)]), only=only)


@family
def matmul(rng: Rng) -> Drawn:
    m, k, n = (int(s) for s in rng.integers(1, 5, 3))
    kind = pick(rng, ["vectors", "batches", "batches"])
    x, y = two_shapes(rng)
    x, y = (*x, m, k), (*y, k, n)
    if kind == "vectors":
        x, y = pick(rng, [((k,), (k, n)), ((m, k), (k,)), ((k,), (k,)), ((k,), (2, k, n)), ((2, m, k), (k,))])
    dtype = pick(rng, ["float32", "float32", "float64", "int32", "int64"])
    return Drawn(
        "MatMul", [numbers(rng, x, dtype), numbers(rng, y, dtype)], {}, pick(rng, [9, 13]), pick(rng, [(), (1,)])
    )


@family
def batch_normalization(rng: Rng) -> Drawn:
    opset = pick(rng, [1, 6, 7, 9, 14, 15, 20])
    shape = (2, *some_shape(rng, 1, 4))
    attributes: dict[str, Any] = sometimes(rng, epsilon=pick(rng, [1e-3, 1e-5, 0.5]), momentum=0.7)
    training = opset >= 14 and coin(rng)
    plain = dict(attributes)
    if opset < 7:
        attributes |= {"is_test": 1} | ({"consumed_inputs": [0, 0, 0, 1, 1]} if opset == 1 else {})
    if opset < 9:
        attributes |= sometimes(rng, spatial=1)
    if training:
        attributes["training_mode"] = 1
    vector = (shape[1],)
    operands = [normal(rng, shape), *(normal(rng, vector) for _ in range(3)), positive(rng, vector)]
    dtype = pick(rng, ["float32", "float64"])
    operands = [a.astype(dtype) for a in operands]
    fixed = () if training else pick(rng, [(), (1, 2, 3, 4), (3, 4)])
    twin = Drawn("BatchNormalization", operands, plain, 9, loose=1e-6) if opset < 9 else None
    # onnxruntime trains in one way only: its variance is not the biased one.
    return Drawn("BatchNormalization", operands, attributes, opset, fixed, outputs=3 if training else 1, twin=twin,
                 only="reference" if training else "", loose=1e-6 if dtype == "float64" else 0.0)  # fmt: skip


@family
def local_response(rng: Rng) -> Drawn:
    shape = (2, int(rng.integers(1, 6)), *(int(s) for s in rng.integers(1, 4, 2)))
    attributes = sometimes(rng, alpha=0.3, beta=pick(rng, [0.5, 0.75, 1.0]), bias=2.0)
    return Drawn(
        "LRN", [normal(rng, shape).astype("f")], {"size": pick(rng, [1, 3, 5, 7]), **attributes}, pick(rng, [1, 13])
    )


@family
def normalizations(rng: Rng) -> Drawn:
    return pick(rng, [_layer_normalization, _group_normalization, _instance_normalization, _lp_normalization,
                      _mean_variance_normalization, _rms_normalization])(rng)  # fmt: skip


def _layer_normalization(rng: Rng) -> Drawn:
    shape = some_shape(rng, 2, 4)
    axis = int(rng.integers(-len(shape), len(shape)))
    vector = shape[axis % len(shape) :]
    operands: list[Array | None] = [normal(rng, s).astype("f") for s in (shape, vector, vector)][
        : 3 if coin(rng) else 2
    ]
    return Drawn("LayerNormalization", operands, {"axis": axis, **sometimes(rng, epsilon=1e-2)}, pick(rng, [17, 20]),
                 pick(rng, [(), (1,)]), outputs=pick(rng, [1, 3]))  # fmt: skip


def _group_normalization(rng: Rng) -> Drawn:
    opset, groups, each = pick(rng, [18, 20, 21]), int(rng.integers(1, 4)), int(rng.integers(1, 4))
    vector = (groups,) if opset < 21 else (groups * each,)
    x = normal(rng, (2, groups * each, *some_shape(rng, 1, 3))).astype("f")
    return Drawn("GroupNormalization", [x, *(normal(rng, vector).astype("f") for _ in range(2))],
                 {"num_groups": groups, **sometimes(rng, epsilon=1e-2)}, opset,
                 pick(rng, [(), (1, 2)]), loose=1e-5)  # fmt: skip


def _instance_normalization(rng: Rng) -> Drawn:
    x = normal(rng, (2, 3, *some_shape(rng, 1, 3))).astype("f")
    operands = [x, *(normal(rng, (3,)).astype("f") for _ in range(2))]
    return Drawn("InstanceNormalization", operands, sometimes(rng, epsilon=1e-2), pick(rng, [6, 20, 22]),
                 pick(rng, [(), (1, 2)]), loose=1e-5)  # fmt: skip


def _lp_normalization(rng: Rng) -> Drawn:
    x = normal(rng, some_shape(rng, 1, 4)).astype("f")
    attributes = sometimes(rng, axis=int(rng.integers(-x.ndim, x.ndim)), p=pick(rng, [1, 2]))
    return Drawn("LpNormalization", [x], attributes, pick(rng, [1, 22]))


def _mean_variance_normalization(rng: Rng) -> Drawn:
    x = normal(rng, (2, 3, 3, 2)).astype("f")
    return Drawn("MeanVarianceNormalization", [x], sometimes(rng, axes=[0, 2, 3]), pick(rng, [9, 13]), loose=1e-5)


def _rms_normalization(rng: Rng) -> Drawn:
    shape = some_shape(rng, 2, 4)
    axis = int(rng.integers(-len(shape), len(shape)))
    operands = [normal(rng, s).astype("f") for s in (shape, shape[axis % len(shape) :])]
    return Drawn("RMSNormalization", operands, {"axis": axis, **sometimes(rng, epsilon=1e-2)}, 23, only="reference")


@family
def dropout(rng: Rng) -> Drawn:
    opset = pick(rng, [1, 6, 7, 10, 12, 13, 22])
    x = normal(rng, some_shape(rng, 1, 4)).astype("f")
    ratio = pick(rng, [0.0, 0.3, 0.9])
    outputs = int(rng.integers(1, 3)) if opset >= 10 else 1
    if opset < 12:
        attributes = sometimes(rng, ratio=ratio) | ({"is_test": 1} if opset < 7 else {})
        twin = Drawn("Identity", [x]) if opset < 7 else None
        return Drawn("Dropout", [x], attributes, opset, outputs=outputs, twin=twin, only="reference")
    operands: list[Array | None] = [x]
    if coin(rng):
        operands.append(np.array(ratio, np.float32))
        if coin(rng):
            operands.append(np.array(ratio == 0 and coin(rng)))
    return Drawn("Dropout", operands, {}, opset, tuple(range(1, len(operands))), outputs=outputs)


# --- elementwise ------------------------------------------------------------------------------------------------------

EDGES = [0.0, -0.0, 0.5, -0.5, 1.5, 2.5, -1.5, -2.5, 1.0, -1.0, 3.0, -3.0, 1e30, -1e30, 1e-30, math.inf, -math.inf]
EDGES += [math.nan]


def edges(rng: Rng, shape: Sequence[int], dtype: str = "float32") -> Array:
    """Return numbers, among them zeros, halves, infinities and NaN."""
    with np.errstate(over="ignore"):  # what a narrow dtype has no room for is infinite there
        return np.asarray(rng.choice(np.array(EDGES), tuple(shape))).astype(dtype)


# --- op → its domain, and since when it is in the standard
UNARY: dict[str, tuple[float, float, int]] = {
    "Abs": (-9, 9, 6), "Acos": (-1, 1, 7), "Acosh": (1, 9, 9), "Asin": (-1, 1, 7), "Asinh": (-9, 9, 9),
    "Atan": (-9, 9, 7), "Atanh": (-0.99, 0.99, 9), "Ceil": (-9, 9, 6), "Cos": (-9, 9, 7), "Cosh": (-5, 5, 9),
    "Erf": (-3, 3, 9), "Exp": (-5, 5, 6), "Floor": (-9, 9, 6), "HardSwish": (-5, 5, 14), "Log": (0.01, 9, 6),
    "Mish": (-5, 5, 18), "Neg": (-9, 9, 6), "Reciprocal": (0.1, 9, 6), "Relu": (-3, 3, 6), "Round": (-9, 9, 11),
    "Sigmoid": (-9, 9, 6), "Sign": (-2, 2, 9), "Sin": (-9, 9, 7), "Sinh": (-5, 5, 9), "Softplus": (-9, 9, 1),
    "Softsign": (-9, 9, 1), "Sqrt": (0, 9, 6), "Tan": (-1.4, 1.4, 7), "Tanh": (-9, 9, 6), "IsNaN": (-9, 9, 9),
    "IsInf": (-9, 9, 10), "Gelu": (-3, 3, 20), "Identity": (-9, 9, 1),
}  # fmt: skip


@family
def unary(rng: Rng) -> Drawn:
    op_type = pick(rng, list(UNARY))
    low, high, opset = UNARY[op_type]
    opset = pick(rng, [opset, max(opset, 13), 20])
    dtype = pick(rng, ["float32", "float32", "float64"])
    x = rng.uniform(low, high, some_shape(rng)).astype(dtype)
    if op_type in ("Round", "Ceil", "Floor", "IsNaN", "IsInf", "Abs", "Sign", "Neg", "Relu", "Identity"):
        x = pick(rng, [x, edges(rng, some_shape(rng), dtype)])
    attributes = {}
    if op_type == "IsInf":
        attributes = sometimes(rng, detect_positive=int(coin(rng)), detect_negative=int(coin(rng)))
    if op_type == "Gelu":
        attributes = sometimes(rng, approximate="tanh")
    loose = 1e-6 if op_type in ("Erf", "Gelu", "HardSwish") else 0.0  # the reference computes them by float32
    return Drawn(op_type, [np.asarray(x)], attributes, opset, loose=loose)


@family
def integer_unary(rng: Rng) -> Drawn:
    op_type = pick(rng, ["Abs", "Neg", "Sign", "Relu"])
    dtype = pick(rng, ["int8", "int32", "int64"])
    return Drawn(op_type, [numbers(rng, some_shape(rng), dtype)], {}, 14)


@family
def activations(rng: Rng) -> Drawn:
    kinds: list[tuple[str, dict[str, Any], int]] = [
        ("LeakyRelu", {"alpha": 0.2}, 6), ("Elu", {"alpha": 1.7}, 6), ("Selu", {"alpha": 2.0, "gamma": 1.5}, 6),
        ("Celu", {"alpha": 2.0}, 12), ("ThresholdedRelu", {"alpha": 0.3}, 10),
        ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}, 6),
        ("Shrink", {"lambd": 0.7, "bias": 0.2}, 9),
    ]  # fmt: skip
    op_type, attributes, opset = pick(rng, kinds)
    x = normal(rng, some_shape(rng), 2.0).astype("f")
    return Drawn(op_type, [x], sometimes(rng, **attributes), pick(rng, [opset, 20]))


@family
def prelu(rng: Rng) -> Drawn:
    opset = pick(rng, [6, 7, 9, 16])
    shape = some_shape(rng, 2, 4)
    x, channels = normal(rng, shape).astype("f"), (shape[1], *(1,) * (len(shape) - 2))
    if opset == 6:  # a slope for each channel, or one
        slope = normal(rng, pick(rng, [(shape[1],), (1,)])).astype("f")
        modern = slope.reshape(channels) if slope.size > 1 else slope
        return Drawn("PRelu", [x, slope], {}, 6, (1,), twin=Drawn("PRelu", [x, modern], {}, 16))
    slope = normal(rng, pick(rng, [shape, channels, (1,), shape[-1:]])).astype("f")
    return Drawn("PRelu", [x, slope], {}, opset, pick(rng, [(), (1,)]))


@family
def arithmetic(rng: Rng) -> Drawn:
    op_type, opset = pick(rng, ["Add", "Sub", "Mul", "Div"]), pick(rng, [7, 13, 14])
    shapes = two_shapes(rng)
    dtype = pick(rng, ["float32", "float64", "int32", "int64", *(["int8", "uint8", "int16"] if opset == 14 else [])])
    x, y = (numbers(rng, s, dtype) for s in shapes)
    if op_type == "Div":
        y = np.asarray(np.where(y == 0, np.ones((), dtype), y))
    return Drawn(op_type, [x, y], {}, opset, pick(rng, [(), (1,), (0,)]))


@family
def integer_division(rng: Rng) -> Drawn:
    """Quotients of large integers, and of all signs."""
    dtype = pick(rng, ["int32", "int64", "int64", "uint8", "int8", "uint64", "uint32"])
    limits = np.iinfo(dtype)
    x, y = (rng.integers(limits.min, limits.max, (3, 4), dtype, endpoint=True) for _ in range(2))
    y = pick(rng, [y, y % np.array(7, dtype)])
    y = np.where(y == 0, np.ones((), dtype), y)
    if limits.min < 0:
        y = np.where(y == -1, np.full((), 2, dtype), y)  # the smallest number has no opposite
    op_type = pick(rng, ["Div", "Mod"])
    attributes = {"fmod": 1} if op_type == "Mod" and coin(rng) else {}
    return Drawn(op_type, [x, y.astype(dtype)], attributes, 14)


@family
def mod(rng: Rng) -> Drawn:
    dtype = pick(rng, ["float32", "float64", "float16", "int32", "int64", "int8", "uint8"])
    shapes = two_shapes(rng)
    if dtype.startswith("float"):
        kinds = [lambda r, s, d: numbers(r, s, d, 5.0), *([edges] if dtype != "float64" else [])]
        x, y = (pick(rng, kinds)(rng, s, dtype) for s in shapes)
        return Drawn("Mod", [x, y], {"fmod": 1}, 13)
    x, y = (numbers(rng, s, dtype) for s in shapes)
    return Drawn("Mod", [x, np.asarray(np.where(y == 0, np.ones((), dtype), y))], sometimes(rng, fmod=1), 13)


@family
def power(rng: Rng) -> Drawn:
    opset = pick(rng, [7, 12, 13, 15])
    shapes = two_shapes(rng)
    if opset == 7 or coin(rng):
        dtype = pick(rng, ["float32", "float64"])
        return Drawn("Pow", [positive(rng, shapes[0]).astype(dtype), numbers(rng, shapes[1], dtype)], {}, opset)
    base, exponent = pick(rng, ["float32", "int32", "int64"]), pick(rng, ["int32", "int64", "float32"])
    y = np.abs(numbers(rng, shapes[1], exponent))
    y = np.rint(y).astype(exponent) if base != "float32" else y
    x = numbers(rng, shapes[0], base) if base != "float32" else positive(rng, shapes[0]).astype(base)
    return Drawn("Pow", [x, y], {}, opset)


@family
def comparisons(rng: Rng) -> Drawn:
    op_type = pick(rng, ["Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual"])
    dtypes = ["float32", "int32", "int64", *(["bool"] if op_type == "Equal" else ["float64"])]
    dtype, shapes = pick(rng, dtypes), two_shapes(rng)
    x, y = (np.round(numbers(rng, s, dtype)) if dtype != "bool" else numbers(rng, s, dtype) for s in shapes)
    opset = pick(rng, [12, 13, 16] if "Or" in op_type else [9, 11, 13])
    if op_type == "Equal" and opset < 11 and dtype.startswith("float"):
        opset = 11
    return Drawn(op_type, [x, y], {}, opset)


@family
def logic(rng: Rng) -> Drawn:
    op_type = pick(rng, ["And", "Or", "Xor", "Not", "Where"])
    x, y = (numbers(rng, s, "bool") for s in two_shapes(rng))
    if op_type == "Not":
        return Drawn("Not", [x], {}, 1)
    if op_type == "Where":
        dtype = pick(rng, ["float32", "int64", "uint8"])
        return Drawn("Where", [x, numbers(rng, y.shape, dtype), numbers(rng, (), dtype)], {}, pick(rng, [9, 16]))
    return Drawn(op_type, [x, y], {}, 7)


@family
def variadic(rng: Rng) -> Drawn:
    op_type, opset = pick(rng, ["Sum", "Mean", "Max", "Min"]), pick(rng, [6, 8, 13])
    shape, count = some_shape(rng, 1, 3), int(rng.integers(1, 5))
    dtype = (
        pick(rng, ["float32", "int32", "int64", "float64"]) if op_type in ("Max", "Min") and opset == 13 else "float32"
    )
    shapes = [shape if opset < 8 else tuple(1 if coin(rng) else s for s in shape) for _ in range(count)]
    return Drawn(op_type, [numbers(rng, s, dtype) for s in shapes], {}, opset)


@family
def clip(rng: Rng) -> Drawn:
    opset = pick(rng, [6, 11, 12, 13])
    low, high = pick(rng, [(-1.0, 1.0), (0.0, 3.0), (2.0, -1.0)])
    if opset < 11:
        x, given = normal(rng, some_shape(rng), 2.0).astype("f"), sometimes(rng, min=low, max=high)
        bounds = [np.array(given[k], np.float32) if k in given else None for k in ("min", "max")]
        return Drawn("Clip", [x], given, opset, twin=Drawn("Clip", [x, *bounds], {}, 13))
    dtype = pick(rng, ["float32", "float64", "int32", "int64", "uint8"] if opset > 11 else ["float32"])
    if dtype == "uint8":
        low, high = 1.0, 3.0
    limits: list[Array | None] = [np.array(v, dtype) if coin(rng) else None for v in (low, high)]
    while limits and limits[-1] is None:
        limits.pop()
    operands = [numbers(rng, some_shape(rng), dtype, 2.0), *limits]
    present = tuple(i for i in range(1, len(operands)) if operands[i] is not None)
    return Drawn("Clip", operands, {}, opset, pick(rng, [(), present]))


@family
def old_broadcast(rng: Rng) -> Drawn:
    """Before opset 7 an op broadcast its second operand only if told to, and at an axis."""
    op_type = pick(rng, ["Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Greater", "Less"])
    shape = some_shape(rng, 1, 4)
    axis = int(rng.integers(len(shape)))
    length = int(rng.integers(1, len(shape) - axis + 1))
    part = shape[axis : axis + length]
    logical = op_type in ("And", "Or", "Xor")
    dtype = "bool" if logical else "int32" if op_type == "Equal" else "float32"
    x = numbers(rng, shape, dtype)
    attributes: dict[str, Any] = {"broadcast": 1}
    if axis + length != len(shape) or coin(rng):
        attributes["axis"] = axis
    y = numbers(rng, part, dtype)
    if op_type in ("Div", "Pow"):
        x, y = np.abs(x) + np.float32(0.5), np.abs(y) + np.float32(0.5)
    if rng.random() < 0.2:
        y, attributes = numbers(rng, shape, dtype), {}
        x = np.abs(x) if op_type == "Pow" else x
    opset = 6 if op_type in ("Add", "Sub", "Mul", "Div") else 1
    at = attributes.get("axis", len(shape) - y.ndim)
    modern = Drawn(op_type, [x, y.reshape(*y.shape, *(1,) * (len(shape) - at - y.ndim))], {}, 13)
    return Drawn(op_type, [x, y], attributes, opset, twin=modern)


DTYPES = ["float32", "float64", "float16", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
DTYPES += ["bool"]


@family
def cast(rng: Rng) -> Drawn:
    source, target = pick(rng, DTYPES), pick(rng, DTYPES)
    opset = pick(rng, [6, 9, 13, 19])
    shape = some_shape(rng)
    if source.startswith("float"):
        x = normal(rng, shape, 20.0)
        if target[0] == "u":
            x = np.abs(x)
        x = np.asarray(np.clip(x, -100, 100)).astype(source)
        if target == "bool" or (target.startswith("float") and coin(rng)):
            x = np.asarray(rng.choice(np.array([0.0, 0.3, -0.7, 1.0, math.inf]), shape)).astype(source)
    elif source == "bool":
        x = numbers(rng, shape, "bool")
    else:
        limits = np.iinfo(source)
        x = rng.integers(limits.min, limits.max, shape, source, endpoint=True)
        if target == "float16":
            x = (x % np.array(100, source)).astype(source)
    to = int(helper.np_dtype_to_tensor_dtype(np.dtype(target)))
    return Drawn("Cast", [np.asarray(x)], {"to": to}, opset)
