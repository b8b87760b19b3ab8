"""Small ONNX models around a batch norm: the matrix of docs/batch-norm.md as files, and what must be left of each.

A row is a generator of cases; `ALL` holds the cases of all rows, `NOT_IN_A_FILE` the rows that no inference file has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from small_onnx import onnx

helper, numpy_helper, TensorProto = onnx.helper, onnx.numpy_helper, onnx.TensorProto
Array = np.ndarray[Any, Any]

ROWS = 34
NOT_IN_A_FILE = {
    18: "a training program: an inference file has no gradients, and a frozen batch norm in it is like any other",
    33: "the user opted out: a file has no place to say so",
}
OPSETS = range(7, 22)
NORM = "BatchNormalization"


@dataclass(frozen=True)
class Case:
    """A model, and what must hold of it once it is optimised.

    left: the ops that must be left, in alphabetical order. says: words of the trace's report, where one refuses.
    feeds: numbers for inputs that are not to be random, one mapping for each run.
    """

    name: str
    proto: Any
    folds: bool
    left: str
    says: str = ""
    feeds: tuple[dict[str, Array], ...] = ({},)
    row: int = 0

    @property
    def norms(self) -> int:
        """How many batch norms must be left."""
        return self.left.split().count(NORM)


@dataclass
class Net:
    """A model under construction: makers of nodes, each returns the name of its result."""

    opset: int = 17
    dtype: str = "float32"
    ir: int = 8
    batch: int | str = 2
    seed: int = 0
    nodes: list[Any] = field(default_factory=list)
    inputs: list[Any] = field(default_factory=list)
    weights: dict[str, Array] = field(default_factory=dict)
    functions: list[Any] = field(default_factory=list)
    declared: dict[str, Any] = field(default_factory=dict)  # outputs whose type the standard does not infer

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.count = 0

    def name(self, base: str) -> str:
        self.count += 1
        return f"{base}{self.count}"

    # --- leaves -------------------------------------------------------------------------------------------------------

    def input(self, *shape: int | str, name: str = "", dtype: str | None = None, code: int | None = None) -> str:
        name = name or self.name("x")
        if code is None:
            code = helper.np_dtype_to_tensor_dtype(np.dtype(dtype or self.dtype))
        self.inputs.append(helper.make_tensor_value_info(name, code, shape))
        return name

    def image(self, channels: int = 4, *sizes: int | str, dims: int = 2, dtype: str | None = None) -> str:
        return self.input(self.batch, channels, *(sizes or (6, 5, 4)[:dims]), dtype=dtype)

    def weight(self, values: Any, base: str = "w", dtype: str | None = None) -> str:
        name = self.name(base)
        self.weights[name] = np.asarray(values, dtype or self.dtype)
        return name

    def random(self, *shape: int, base: str = "w", dtype: str | None = None) -> str:
        return self.weight(0.5 * self.rng.normal(size=shape), base, dtype)

    def integers(self, *values: int) -> str:
        return self.weight(values, "sizes", "int64")

    def overridable(self, name: str) -> str:
        """Let the caller override a weight: it is an input too, whose default is an initialiser."""
        array = self.weights[name]
        return self.input(*array.shape, name=name, dtype=str(array.dtype))

    # --- nodes --------------------------------------------------------------------------------------------------------

    def node(self, op_type: str, *inputs: str, results: int = 1, domain: str = "", **attributes: Any) -> Any:
        names = [self.name(op_type.lower()) for _ in range(results)]
        self.nodes.append(helper.make_node(op_type, list(inputs), names, domain=domain, **attributes))
        return names[0] if results == 1 else names

    def conv(self, x: str, into: int = 4, out: int = 6, size: Any = 3, dims: int = 2, groups: int = 1,
             bias: Any = False, kernel: str = "", dtype: str | None = None, **attributes: Any) -> str:  # fmt: skip
        sizes = size if isinstance(size, tuple) else (size,) * dims
        kernel = kernel or self.random(out, into // groups, *sizes, dtype=dtype)
        more = [] if bias is False else [bias if isinstance(bias, str) else self.random(out, base="b", dtype=dtype)]
        if groups > 1:
            attributes["group"] = groups
        return str(self.node("Conv", x, kernel, *more, **attributes))

    def transposed(self, x: str, into: int = 4, out: int = 6, size: int = 3, dims: int = 2, groups: int = 1,
                   bias: bool = False, **attributes: Any) -> str:  # fmt: skip
        kernel = self.random(into, out // groups, *(size,) * dims)
        more = [self.random(out, base="b")] if bias else []
        return str(self.node("ConvTranspose", x, kernel, *more, group=groups, **attributes))

    def statistics(self, channels: int = 6, dtype: str | None = None, **given: Any) -> list[str]:
        """Scale, bias, mean and variance; the scales have both signs where they are not given."""
        signs = np.where(np.arange(channels) % 3 == 1, -1.0, 1.0)
        made = {
            "scale": signs * self.rng.uniform(0.5, 1.5, channels), "shift": self.rng.normal(size=channels),
            "mean": self.rng.normal(size=channels), "variance": self.rng.uniform(0.2, 2.0, channels),
        }  # fmt: skip
        made |= {name: np.broadcast_to(values, channels) for name, values in given.items()}
        return [self.weight(values, name, dtype) for name, values in made.items()]

    def norm(self, x: str, channels: int = 6, parameters: list[str] | None = None, epsilon: float | None = 1e-3,
             results: int = 1, attributes: dict[str, Any] | None = None, **given: Any) -> Any:  # fmt: skip
        parameters = parameters or self.statistics(channels, **given)
        more = dict(attributes or {}) | ({} if epsilon is None else {"epsilon": epsilon})
        return self.node(NORM, x, *parameters, results=results, **more)

    def dense(self, x: str, into: int = 5, out: int = 6, add: bool = False) -> str:
        product = str(self.node("MatMul", x, self.random(into, out)))
        return str(self.node("Add", product, self.random(out, base="b"))) if add else product

    def axes(self, op_type: str, x: str, *axes: int) -> str:
        """Squeeze or Unsqueeze, whose axes are an attribute before opset 13."""
        if self.opset < 13:
            return str(self.node(op_type, x, axes=list(axes)))
        return str(self.node(op_type, x, self.integers(*axes)))

    def pad(self, x: str, *pads: int, value: float = 0.0, mode: str = "constant") -> str:
        """Pad, whose pads are an attribute before opset 11."""
        if self.opset < 11:
            return str(self.node("Pad", x, pads=list(pads), mode=mode, value=value))
        more = [self.weight(value, "value")] if value else []
        return str(self.node("Pad", x, self.integers(*pads), *more, mode=mode))

    # --- the whole ----------------------------------------------------------------------------------------------------

    def model(self, *outputs: str) -> Any:
        tensors = [numpy_helper.from_array(array, name) for name, array in self.weights.items()]
        infos = [onnx.ValueInfoProto(name=name) for name in outputs]
        graph = helper.make_graph(self.nodes, "g", self.inputs, infos, tensors)
        opsets = [helper.make_opsetid("", self.opset)]
        opsets += [helper.make_opsetid(d, 1) for d in dict.fromkeys(f.domain for f in self.functions)]
        made = helper.make_model(graph, opset_imports=opsets, ir_version=self.ir, functions=self.functions)
        inferred = onnx.shape_inference.infer_shapes(made, strict_mode=True, data_prop=True)
        known = {i.name: i for i in (*inferred.graph.output, *inferred.graph.value_info)} | self.declared
        for info in made.graph.output:
            own = known.get(info.name)
            if own is not None and own.type.WhichOneof("value"):
                info.CopyFrom(own)
            else:  # an initialiser that is an output
                array = self.weights[info.name]
                code = helper.np_dtype_to_tensor_dtype(array.dtype)
                info.CopyFrom(helper.make_tensor_value_info(info.name, code, array.shape))
        return made

    def folds(self, name: str, outputs: str | list[str], left: str, **more: Any) -> Case:
        return self._case(name, outputs, left, True, **more)

    def refuses(self, name: str, outputs: str | list[str], left: str, says: str = "", **more: Any) -> Case:
        return self._case(name, outputs, left, False, says=says, **more)

    def _case(self, name: str, outputs: str | list[str], left: str, folds: bool, **more: Any) -> Case:
        names = [outputs] if isinstance(outputs, str) else outputs
        return Case(name, self.model(*names), folds, " ".join(sorted(left.split())), **more)


Row = Callable[[], Iterator[Case]]
_ROWS: list[tuple[int, Row]] = []


def row(number: int) -> Callable[[Row], Row]:
    """Register the cases of a row."""

    def register(make: Row) -> Row:
        _ROWS.append((number, make))
        return make

    return register


# --- a linear op before the batch norm --------------------------------------------------------------------------------

DTYPES = ("float32", "float16", "float64")
VARIANTS: dict[str, dict[str, Any]] = {
    "stride": {"strides": [2, 2]},
    "strides": {"strides": [2, 1], "pads": [1, 1, 1, 1]},
    "dilation": {"dilations": [2, 2], "pads": [2, 2, 2, 2]},
    "asymmetric pads": {"pads": [0, 1, 2, 1]},
    "same upper": {"auto_pad": "SAME_UPPER"},
    "same lower": {"auto_pad": "SAME_LOWER", "size": 2},
    "same, even kernel": {"auto_pad": "SAME_UPPER", "size": (2, 4)},
    "same, stride": {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    "same lower, stride": {"auto_pad": "SAME_LOWER", "strides": [2, 2], "size": 4},
    "valid": {"auto_pad": "VALID"},
    "even kernel": {"size": (2, 4)},
    "dilation, stride": {"dilations": [1, 2], "strides": [2, 1], "pads": [0, 1, 0, 1]},
    "notset": {"auto_pad": "NOTSET", "kernel_shape": [3, 3], "pads": [1, 0, 1, 0]},
}


@row(1)
def convolution() -> Iterator[Case]:
    for opset in OPSETS:
        net = Net(opset, ir=3 if opset < 9 else 8)
        x = net.norm(net.conv(net.image()))
        if net.ir == 3:
            for name in net.weights:
                net.overridable(name)  # before IR 4 it is only declared as an input
        yield net.folds(f"opset {opset}", x, "Conv")
    for dtype in DTYPES[1:]:
        for opset in (9, 15, 21):
            net = Net(opset, dtype)
            yield net.folds(f"{dtype}, opset {opset}", net.norm(net.conv(net.image())), "Conv")
    for dims in (1, 3):
        for dtype in DTYPES[:2]:
            net = Net(dtype=dtype)
            yield net.folds(f"{dims}-D {dtype}", net.norm(net.conv(net.image(dims=dims), dims=dims)), "Conv")
    for dims, sizes in ((1, ["L"]), (2, ["H", "W"])):
        net = Net(batch="N")
        yield net.folds(f"open sizes, {dims}-D", net.norm(net.conv(net.image(4, *sizes), dims=dims)), "Conv")


@row(2)
def convolution_with_a_bias() -> Iterator[Case]:
    for dtype in DTYPES:
        net = Net(dtype=dtype)
        yield net.folds(dtype, net.norm(net.conv(net.image(), bias=True)), "Conv")
    for dims in (1, 3):
        net = Net()
        yield net.folds(f"{dims}-D", net.norm(net.conv(net.image(dims=dims), dims=dims, bias=True)), "Conv")
    net = Net()
    y = net.node("Add", net.conv(net.image()), net.random(6, 1, 1))
    yield net.folds("an addition", net.norm(y), "Conv")
    net = Net()
    y = net.node("Add", net.random(1, 6, 1, 1), net.conv(net.image(), bias=True))
    yield net.folds("a bias and an addition", net.norm(y), "Conv")
    net = Net()
    y = net.node("Add", net.conv(net.image()), net.weight(0.25))
    yield net.folds("one number", net.norm(y), "Conv")
    net = Net()
    y = net.node("Sub", net.random(6, 1, 1), net.conv(net.image()))
    yield net.folds("bias minus convolution", net.norm(y), "Conv")
    net = Net()
    y = net.node("Add", net.conv(net.image(), pads=[1, 1, 1, 1]), net.random(6, 6, 5))
    yield net.folds("a bias for each pixel", net.norm(y), "Add Conv")
    net = Net()
    y = net.node("Mul", net.conv(net.image(), bias=True), net.random(6, 1, 1))
    yield net.folds("mul, add", net.norm(net.node("Add", y, net.random(6, 1, 1))), "Conv")
    net = Net()
    y = net.node("Div", net.conv(net.image()), net.weight(3.0))
    yield net.folds("div, neg", net.norm(net.node("Neg", y)), "Conv")
    net = Net()
    x = net.image()
    net.nodes.append(helper.make_node("Conv", [x, net.random(6, 4, 3, 3), ""], ["c"]))
    yield net.folds("a bias that is left out", net.norm("c"), "Conv")


@row(3)
def convolution_batch_norm_relu() -> Iterator[Case]:
    for bias in (False, True):
        net = Net()
        yield net.folds(f"bias {bias}", net.node("Relu", net.norm(net.conv(net.image(), bias=bias))), "Conv Relu")
    for op_type, attributes in (("LeakyRelu", {"alpha": 0.1}), ("Sigmoid", {}), ("HardSwish", {})):
        net = Net()
        y = net.node(op_type, net.norm(net.conv(net.image())), **attributes)
        yield net.folds(op_type, y, f"Conv {op_type}")
    net = Net()
    x = net.norm(net.conv(net.image()))
    y = net.node("Clip", x, net.weight(0.0), net.weight(6.0))
    yield net.folds("relu6", y, "Clip Conv")


@row(4)
def depthwise() -> Iterator[Case]:
    for out in (4, 8):
        for bias in (False, True):
            net = Net()
            y = net.conv(net.image(), out=out, groups=4, bias=bias, pads=[1, 1, 1, 1])
            yield net.folds(f"{out} from 4, bias {bias}", net.norm(y, out), "Conv")
    net = Net()
    y = net.conv(net.image(dims=1), out=4, groups=4, dims=1, strides=[2])
    yield net.folds("1-D", net.norm(y, 4), "Conv")
    net = Net(dtype="float16")
    yield net.folds("float16", net.norm(net.conv(net.image(), out=4, groups=4), 4), "Conv")


@row(5)
def grouped() -> Iterator[Case]:
    for name in ("stride", "dilation", "same upper", "even kernel"):
        net = Net()
        yield net.folds(name, net.norm(net.conv(net.image(), groups=2, bias=True, **VARIANTS[name])), "Conv")
    for dims in (1, 3):
        net = Net()
        yield net.folds(f"{dims}-D", net.norm(net.conv(net.image(dims=dims), dims=dims, groups=2)), "Conv")


TRANSPOSED: dict[str, dict[str, Any]] = {
    "plain": {},
    "square": {"out": 4},
    "stride": {"strides": [2, 2]},
    "bias": {"strides": [2, 1], "bias": True},
    "output padding": {"strides": [2, 2], "output_padding": [1, 0], "pads": [1, 1, 1, 1]},
    "asymmetric pads": {"strides": [2, 2], "pads": [0, 1, 2, 1]},
    "dilation": {"dilations": [2, 1]},
    "same upper": {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
    "output shape": {"strides": [2, 2], "output_shape": [12, 10]},
}


def _transposed(groups: int) -> Iterator[Case]:
    for name, options in TRANSPOSED.items():
        net = Net()
        out = options.get("out", 6)
        yield net.folds(name, net.norm(net.transposed(net.image(), groups=groups, **options), out), "ConvTranspose")
    net = Net()
    y = net.transposed(net.image(dims=1), dims=1, groups=groups, strides=[2])
    yield net.folds("1-D", net.norm(y), "ConvTranspose")
    net = Net()
    y = net.transposed(net.image(4, 3, 3, 3), dims=3, groups=groups, bias=True)
    yield net.folds("3-D", net.norm(y), "ConvTranspose")
    for opset, dtype in ((9, "float32"), (11, "float16"), (21, "float64")):
        net = Net(opset, dtype)
        y = net.norm(net.transposed(net.image(), groups=groups, strides=[2, 2]))
        yield net.folds(f"{dtype}, opset {opset}", y, "ConvTranspose")


@row(6)
def transposed() -> Iterator[Case]:
    yield from _transposed(1)


@row(7)
def grouped_transposed() -> Iterator[Case]:
    yield from _transposed(2)


GEMM: dict[str, tuple[dict[str, Any], tuple[int, ...] | None]] = {
    "no C": ({}, None),
    "C [6]": ({}, (6,)),
    "C [1,6]": ({}, (1, 6)),
    "C []": ({}, ()),
    "C [1]": ({}, (1,)),
    "C [2,6]": ({}, (2, 6)),
    "C [2,1]": ({}, (2, 1)),
    "transA": ({"transA": 1}, (6,)),
    "transB": ({"transB": 1}, (6,)),
    "transA, transB": ({"transA": 1, "transB": 1}, None),
    "alpha": ({"alpha": 0.5, "transB": 1}, None),
    "beta": ({"beta": 0.25}, (6,)),
    "alpha, beta": ({"alpha": 1.7, "beta": -0.3, "transB": 1}, (1, 6)),
    "beta 0": ({"beta": 0.0}, (6,)),
    "alpha 0": ({"alpha": 0.0}, (6,)),
}


@row(8)
def dense() -> Iterator[Case]:
    for name, (attributes, shape) in GEMM.items():
        net = Net()
        x = net.input(5, 2) if "transA" in attributes else net.input(2, 5)
        w = net.random(6, 5) if "transB" in attributes else net.random(5, 6)
        c = [] if shape is None else [net.random(*shape, base="c")]
        yield net.folds(f"Gemm {name}", net.norm(net.node("Gemm", x, w, *c, **attributes)), "Gemm")
    for opset, dtype in ((7, "float32"), (9, "float64"), (11, "float16"), (13, "float64"), (21, "float16")):
        net = Net(opset, dtype)
        c = [net.random(6)]
        y = net.node("Gemm", net.input(2, 5), net.random(5, 6), *c)
        yield net.folds(f"Gemm {dtype}, opset {opset}", net.norm(y), "Gemm")
    net = Net(batch="N")
    yield net.folds("MatMul, open batch", net.norm(net.dense(net.input("N", 5))), "Gemm")
    net = Net()
    yield net.folds("MatMul, Add", net.norm(net.dense(net.input(2, 5), add=True)), "Gemm")
    net = Net(dtype="float64")
    yield net.folds("MatMul, Add, float64", net.norm(net.dense(net.input(2, 5), add=True)), "Gemm")
    for shape in ((6, 5), (2, 6, 5)):
        net = Net()
        y = net.node("MatMul", net.random(*shape), net.input(2, 5, 3))
        yield net.folds(f"kernel on the left, {len(shape)} axes", net.norm(y), "Add MatMul")
    net = Net()
    y = net.node("Transpose", net.dense(net.input(2, 3, 5), add=True), perm=[0, 2, 1])
    yield net.folds("a sequence, channels turned to axis 1", net.norm(y), "Add MatMul Transpose")


@row(9)
def dense_along_another_axis() -> Iterator[Case]:
    for into, steps in ((5, 6), (5, 3)):
        for add in (False, True):
            net = Net()
            y = net.dense(net.input(2, steps, into), into, 6, add)
            left = f"{'Add ' if add else ''}{NORM} MatMul"
            yield net.refuses(f"{steps} steps of 6, add {add}", net.norm(y, steps), left, "axes differ")
    net = Net()
    y = net.node("MatMul", net.input(2, 3, 6, 5), net.random(5, 6))
    yield net.refuses("four axes", net.norm(y, 3), f"{NORM} MatMul", "axes differ")
    net = Net()
    y = net.node("Gemm", net.random(6, 5), net.input(5, 6))
    yield net.refuses("kernel on the left of a Gemm", net.norm(y), f"{NORM} MatMul", "axes differ")
    net = Net()
    y = net.node("MatMul", net.input(2, 6), net.input(6, 6))
    yield net.refuses("data with data", net.norm(y), f"{NORM} MatMul", "product of data")
    net = Net()
    y = net.node("Gemm", net.input(2, 5), net.random(5, 6), net.input(2, 6))
    yield net.refuses("Gemm, C is data", net.norm(y), f"Add {NORM} MatMul", "branch of the addition")


# --- a linear op behind the batch norm --------------------------------------------------------------------------------


@row(10)
def before_a_convolution() -> Iterator[Case]:
    for groups in (1, 2, 4):
        for bias in (False, True):
            net = Net()
            y = net.conv(net.norm(net.image(), 4), out=8, groups=groups, bias=bias)
            yield net.folds(f"{groups} groups, bias {bias}", y, "Conv")
    for dtype in DTYPES[1:]:
        net = Net(dtype=dtype)
        yield net.folds(dtype, net.conv(net.norm(net.image(), 4)), "Conv")
    for dims in (1, 3):
        net = Net()
        yield net.folds(f"{dims}-D", net.conv(net.norm(net.image(dims=dims), 4), dims=dims), "Conv")
    for name in ("stride", "even kernel", "valid"):
        net = Net()
        yield net.folds(name, net.conv(net.norm(net.image(), 4), **VARIANTS[name]), "Conv")
    net = Net(batch="N")
    yield net.folds("open sizes", net.conv(net.norm(net.image(4, "H", "W"), 4)), "Conv")
    net = Net()
    y = net.node("Gemm", net.norm(net.input(2, 6)), net.random(6, 5), net.random(5))
    yield net.folds("Gemm", y, "Gemm")
    net = Net()
    y = net.node("Gemm", net.norm(net.input(2, 6)), net.random(5, 6), transB=1, alpha=0.5)
    yield net.folds("Gemm transB, alpha", y, "Gemm")
    net = Net()
    yield net.folds("MatMul, Add", net.dense(net.norm(net.input(2, 6)), 6, 5, add=True), "Gemm")
    net = Net()
    flat = net.node("Flatten", net.norm(net.image(4, 3, 2), 4))
    yield net.folds("Flatten, Gemm", net.node("Gemm", flat, net.random(24, 5), net.random(5)), "Flatten Gemm")
    net = Net()
    flat = net.node("Reshape", net.norm(net.image(4, 3, 2), 4), net.integers(0, -1))
    yield net.folds("Reshape, MatMul", net.dense(flat, 24, 5), "Flatten Gemm")
    net = Net()
    turned = net.node("Transpose", net.norm(net.image(4, 3, 2), 4), perm=[0, 2, 3, 1])
    flat = net.node("Reshape", turned, net.integers(0, -1))
    yield net.folds("Transpose, Reshape, MatMul", net.dense(flat, 24, 5), "Flatten Gemm Transpose")
    net = Net()
    pooled = net.node("Flatten", net.node("GlobalAveragePool", net.norm(net.image(), 4)))
    yield net.folds("pool, Flatten, Gemm", net.node("Gemm", pooled, net.random(4, 5)), "Flatten Gemm GlobalAveragePool")
    net = Net()
    pooled = net.node("AveragePool", net.norm(net.image(), 4), kernel_shape=[2, 2])
    yield net.folds("AveragePool, Conv", net.conv(pooled, size=2), "AveragePool Conv")
    net = Net()
    pooled = net.node("MaxPool", net.norm(net.image(), 4, scale=0.5), kernel_shape=[2, 2])
    yield net.folds("MaxPool, Conv, scales positive", net.conv(pooled, size=2), "Conv MaxPool")
    net = Net()
    pooled = net.node("MaxPool", net.norm(net.image(), 4), kernel_shape=[2, 2])
    yield net.refuses("MaxPool, Conv, scales mixed", net.conv(pooled, size=2), f"{NORM} Conv MaxPool", "sign")
    net = Net()
    yield net.folds("Dropout, Conv", net.conv(net.node("Dropout", net.norm(net.image(), 4))), "Conv")
    net = Net()
    x = net.norm(net.image(), 4)
    yield net.refuses("read twice", [net.conv(x), net.node("Relu", x)], f"{NORM} Conv Relu", "second use")


@row(11)
def before_a_padded_convolution() -> Iterator[Case]:
    pads: dict[str, dict[str, Any]] = {
        "pads": {"pads": [1, 1, 1, 1]},
        "groups": {"pads": [1, 1, 1, 1], "groups": 2, "bias": True},
        "depthwise": {"pads": [1, 1, 1, 1], "groups": 4, "out": 4},
        **{name: VARIANTS[name] for name in VARIANTS if "pad" in str(VARIANTS[name]) and name not in ("valid",)},
    }
    for name, options in pads.items():
        net = Net()
        yield net.folds(name, net.conv(net.norm(net.image(), 4), **options), "Add Conv")
    for scale in (0.0, 0.75):
        net = Net()
        y = net.conv(net.norm(net.image(), 4, scale=scale), pads=[1, 1, 1, 1])
        yield net.folds(f"scale {scale}", y, "Add Conv")
    net = Net()
    zeros = np.zeros(4)
    yield net.folds("no shift", net.conv(net.norm(net.image(), 4, shift=zeros, mean=zeros), pads=[1] * 4), "Add Conv")
    net = Net()
    yield net.folds("1-D", net.conv(net.norm(net.image(dims=1), 4), dims=1, pads=[1, 1]), "Add Conv")
    net = Net()
    yield net.folds("transposed", net.transposed(net.norm(net.image(), 4), strides=[2, 2]), "Add ConvTranspose")
    for dtype in DTYPES[1:]:
        net = Net(dtype=dtype)
        yield net.folds(dtype, net.conv(net.norm(net.image(), 4), pads=[1, 1, 1, 1]), "Add Conv")
    net = Net()
    padded = net.pad(net.norm(net.image(), 4), 0, 0, 1, 1, 0, 0, 1, 1)
    yield net.folds("Pad between", net.conv(padded), "Add Conv")


@row(12)
def before_relu_and_convolution() -> Iterator[Case]:
    for name, options in {"plain": {}, "padded": {"pads": [1, 1, 1, 1]}, "groups": {"groups": 2}}.items():
        net = Net()
        y = net.conv(net.node("Relu", net.norm(net.image(), 4, scale=[0.5, 1, 2, 3])), **options)
        yield net.folds(f"positive, {name}", y, "Add Conv Relu")
        net = Net()
        y = net.conv(net.node("Relu", net.norm(net.image(), 4)), **options)
        yield net.refuses(f"mixed, {name}", y, f"{NORM} Conv Relu", "sign")
    net = Net()
    y = net.conv(net.node("Relu", net.norm(net.image(), 4, scale=[0.5, 0, 2, 3])))
    yield net.refuses("a scale of 0", y, f"{NORM} Conv Relu", "sign")
    net = Net(dtype="float16")
    y = net.conv(net.node("Relu", net.norm(net.image(), 4, scale=[0.5, 1, 2, 3])))
    yield net.folds("positive, float16", y, "Add Conv Relu")
    net = Net()
    y = net.node("Gemm", net.node("Relu", net.norm(net.input(2, 6), scale=0.5)), net.random(6, 5))
    yield net.folds("positive, Gemm", y, "Add MatMul Relu")
    net = Net()
    flat = net.node("Flatten", net.node("Relu", net.norm(net.image(), 4, scale=0.5)))
    yield net.folds("positive, Flatten, Gemm", net.node("Gemm", flat, net.random(120, 5)), "Add Flatten MatMul Relu")
    net = Net()
    pooled = net.node("MaxPool", net.node("Relu", net.norm(net.image(), 4, scale=0.5)), kernel_shape=[2, 2])
    yield net.folds("positive, MaxPool, Conv", net.conv(pooled, size=2), "Add Conv MaxPool Relu")
    net = Net()
    y = net.conv(net.node("Sigmoid", net.norm(net.image(), 4, scale=0.5)))
    yield net.refuses("sigmoid", y, f"{NORM} Conv Sigmoid", "normalises an input")


@row(13)
def relu_between() -> Iterator[Case]:
    for op_type in ("Relu", "Sigmoid", "Tanh", "Abs"):
        net = Net()
        y = net.norm(net.node(op_type, net.conv(net.image())))
        yield net.refuses(op_type, y, f"{NORM} Conv {op_type}", "not linear")
    net = Net()
    y = net.norm(net.node("Clip", net.conv(net.image()), net.weight(-1.0), net.weight(1.0)))
    yield net.refuses("Clip", y, f"{NORM} Clip Conv", "not linear")
    net = Net()
    c = net.conv(net.image())
    yield net.refuses("a product of two", net.norm(net.node("Mul", c, c)), f"{NORM} Conv Mul")
    net = Net()
    y = net.conv(net.norm(net.node("Relu", net.conv(net.image()))), 6)
    yield net.folds("into what follows", y, "Conv Conv Relu")
    net = Net()
    y = net.norm(net.node("Softmax", net.conv(net.image()), axis=1))
    yield net.refuses("Softmax", y, f"{NORM} Conv Softmax", "not linear")


# --- who reads what ---------------------------------------------------------------------------------------------------


@row(14)
def convolution_read_twice() -> Iterator[Case]:
    net = Net()
    c = net.conv(net.image())
    yield net.refuses("by a relu", [net.norm(c), net.node("Relu", c)], f"{NORM} Conv Relu", "second use")
    net = Net()
    c = net.conv(net.image())
    y = [net.norm(c), net.norm(c)]
    yield net.refuses("by two batch norms", y, f"{NORM} {NORM} Conv", "second use")
    net = Net()
    c = net.conv(net.image())
    yield net.refuses("by a sum behind", net.node("Add", net.norm(c), c), f"Add {NORM} Conv", "second use")
    net = Net()
    c = net.conv(net.image(), bias=True)
    yield net.refuses("with a bias", [net.norm(c), net.node("Sigmoid", c)], f"{NORM} Conv Sigmoid", "second use")
    net = Net()
    c = net.conv(net.image())
    d = net.node("Add", c, net.random(6, 1, 1))
    yield net.refuses("before the bias", [net.norm(d), net.node("Relu", c)], f"{NORM} Conv Relu", "second use")
    net = Net()
    y = net.node("Gemm", net.input(2, 5), net.random(5, 6))
    yield net.refuses("a Gemm", [net.norm(y), net.node("Relu", y)], f"{NORM} MatMul Relu", "second use")
    net = Net()
    c = net.conv(net.image())
    y = net.norm(net.node("Identity", c))
    yield net.refuses("through an Identity", [y, net.node("Relu", c)], f"{NORM} Conv Relu", "second use")


@row(15)
def shared_kernel() -> Iterator[Case]:
    net = Net()
    w = net.random(6, 4, 3, 3)
    y = [net.norm(net.conv(net.image(), kernel=w)), net.conv(net.image(), kernel=w)]
    yield net.folds("one normalised", y, "Conv Conv")
    net = Net()
    w = net.random(6, 4, 3, 3)
    x = net.image()
    y = [net.norm(net.conv(x, kernel=w)), net.conv(x, kernel=w, strides=[2, 2], bias=True)]
    yield net.folds("of one image", y, "Conv Conv")
    net = Net()
    w = net.random(6, 4, 3, 3)
    y = [net.norm(net.conv(net.image(), kernel=w)), net.norm(net.conv(net.image(), kernel=w))]
    yield net.folds("both normalised", y, "Conv Conv")
    net = Net()
    w = net.random(6, 6)
    y = [net.norm(net.node("MatMul", net.input(2, 6), w)), net.node("Gemm", net.input(2, 6), w, transB=1)]
    yield net.folds("dense", y, "Gemm Gemm")
    net = Net()
    w, b = net.random(6, 4, 3, 3), net.random(6, base="b")
    y = [net.norm(net.conv(net.image(), kernel=w, bias=b)), net.conv(net.image(), kernel=w, bias=b)]
    yield net.folds("a shared bias", y, "Conv Conv")
    net = Net()
    w = net.random(6, 4, 3, 3)
    y = [net.norm(net.conv(net.image(), kernel=w)), net.node("ReduceSum", w)]
    yield net.folds("read by another op", y, "Conv Identity")
    net = Net()
    w = net.random(6, 4, 3, 3)
    yield net.folds("a graph output", [net.norm(net.conv(net.image(), kernel=w)), w], "Conv Identity")
    net = Net()
    b = net.random(6, base="b")
    yield net.folds("a bias that is a graph output", [net.norm(net.conv(net.image(), bias=b)), b], "Conv Identity")


@row(16)
def shared_statistics() -> Iterator[Case]:
    net = Net()
    s = net.statistics()
    y = [net.norm(net.conv(net.image()), parameters=s), net.norm(net.conv(net.image(), bias=True), parameters=s)]
    yield net.folds("all four", y, "Conv Conv")
    net = Net()
    s = net.statistics()
    t = [s[0], s[0], *net.statistics()[2:]]
    y = net.norm(net.conv(net.norm(net.conv(net.image()), parameters=s), 6), parameters=t)
    yield net.folds("scale, in a stack", y, "Conv Conv")
    net = Net()
    s = net.statistics()
    y = [net.norm(net.conv(net.image()), parameters=s), net.norm(net.image(6), parameters=s)]
    yield net.refuses("one on an input", y, f"{NORM} Conv", "normalises an input")
    net = Net()
    one = net.weight(np.ones(6))
    s = net.statistics()
    y = net.norm(net.conv(net.image()), parameters=[one, s[1], s[2], one])
    yield net.folds("one vector twice", y, "Conv")
    net = Net()
    s = net.statistics()
    y = [net.norm(net.conv(net.image()), parameters=s), s[1], s[3]]
    yield net.folds("graph outputs", y, "Conv Identity Identity")
    net = Net()
    s = net.statistics()
    y = [net.norm(net.conv(net.image(), bias=s[1]), parameters=s), net.node("Relu", s[0])]
    yield net.folds("a bias that is β too", y, "Conv Identity")


# --- modes ------------------------------------------------------------------------------------------------------------


@row(17)
def training_mode() -> Iterator[Case]:
    for opset in (14, 15, 17, 21):
        net = Net(opset)
        y = net.norm(net.conv(net.image()), results=3, attributes={"training_mode": 1, "momentum": 0.8})
        yield net.refuses(f"averages wanted, opset {opset}", y, f"{NORM} Conv")
    net = Net(15)
    y = net.norm(net.conv(net.image()), results=3, attributes={"training_mode": 1})
    yield net.refuses("one average wanted", y[:2], f"{NORM} Conv")
    net = Net(15)
    y = net.norm(net.image(), 4, results=3, attributes={"training_mode": 1})
    yield net.refuses("on an input", y, NORM)
    net = Net(15)
    y = net.norm(net.conv(net.image()), results=3, attributes={"training_mode": 1})
    yield net.refuses("relu behind", [net.node("Relu", y[0]), *y[1:]], f"{NORM} Conv Relu")
    for opset in (7, 9):
        net = Net(opset)
        y = net.norm(net.conv(net.image()), results=5, attributes={"momentum": 0.8})
        net.declared |= {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [6]) for name in y[1:]}
        left = f"Add Add Add {NORM} Conv Mul Mul Mul Reciprocal ReduceMean ReduceMean ReduceMean Sqrt Sub"
        yield net.refuses(f"five results, opset {opset}", y, left)
        net = Net(opset)
        y = net.norm(net.conv(net.image()), results=5)
        left = f"{NORM} Conv Mul ReduceMean ReduceMean ReduceMean Sub"
        yield net.refuses(f"five results, one read, opset {opset}", y[0], left)


@row(20)
def no_statistics_kept() -> Iterator[Case]:
    for opset in (14, 15, 17, 21):
        net = Net(opset)
        y = net.norm(net.conv(net.image()), results=3, attributes={"training_mode": 1})
        yield net.refuses(f"only Y wanted, opset {opset}", y[0], f"{NORM} Conv")
    net = Net(17)
    y = net.norm(net.input(4, 6), results=3, attributes={"training_mode": 1})
    yield net.refuses("a matrix", y[0], NORM)
    net = Net(15)
    s, x = net.statistics(), net.conv(net.image())
    net.nodes.append(helper.make_node(NORM, [x, *s], ["y", "", ""], epsilon=1e-3, training_mode=1))
    yield net.refuses("other results left out", "y", f"{NORM} Conv")
    for at in range(4):
        net = Net()
        s = net.statistics()
        s[at] = net.input(6)
        more = {"feeds": ({s[at]: np.linspace(0.5, 1.5, 6, dtype="f")},)}
        y = net.norm(net.conv(net.image()), parameters=s)
        yield net.refuses(f"operand {at + 1} is an input", y, f"{NORM} Conv", "computed from data", **more)
    net = Net()
    x = net.image(6)
    mean = net.node("ReduceMean", x, axes=[0, 2, 3], keepdims=0)
    s = net.statistics()
    y = net.norm(net.conv(x, 6), parameters=[s[0], s[1], mean, s[3]])
    yield net.refuses("a mean of data", y, f"{NORM} Conv ReduceMean", "computed from data")


@row(19)
def without_scale_or_shift() -> Iterator[Case]:
    for name, given in {"scale": {"scale": 1.0}, "shift": {"shift": 0.0}, "both": {"scale": 1.0, "shift": 0.0}}.items():
        net = Net()
        yield net.folds(f"no {name}", net.norm(net.conv(net.image()), **given), "Conv")
        net = Net()
        yield net.folds(f"no {name}, dense", net.norm(net.dense(net.input(2, 5), add=True), **given), "Gemm")
    net = Net()
    y = net.norm(net.conv(net.image()), scale=1.0, shift=0.0, mean=0.0, variance=1.0, epsilon=0.0)
    yield net.folds("nothing to do", y, "Conv")
    net = Net()
    y = net.norm(net.conv(net.image()), shift=0.0, mean=0.0)
    yield net.folds("nothing to add", y, "Conv")


# --- dtypes -----------------------------------------------------------------------------------------------------------


@row(21)
def float16() -> Iterator[Case]:
    for opset in (7, 13, 15, 21):
        net = Net(opset, "float16")
        yield net.folds(f"opset {opset}", net.norm(net.conv(net.image(), bias=True)), "Conv")
    net = Net(dtype="float16")
    w = net.weight(np.full((6, 4, 1, 1), 300.0))
    x = net.image()
    y = net.norm(net.conv(x, kernel=w), variance=0.0, mean=0.0, scale=1.0, shift=0.0, epsilon=1e-5)
    feeds = ({x: np.random.default_rng(0).uniform(-0.05, 0.05, (2, 4, 6, 5)).astype("float16")},)
    yield net.refuses("w·s overflows", y, f"{NORM} Conv", "overflow", feeds=feeds)
    net = Net(dtype="float16")
    x, one = net.image(6), net.weight(np.ones((6, 1, 1, 1)))
    y = net.norm(net.conv(x, kernel=one, groups=6), variance=1e-4, mean=600.0, scale=1.5, epsilon=1e-5)
    feeds = ({x: np.random.default_rng(0).uniform(598, 602, (2, 6, 6, 5)).astype("float16")},)
    yield net.refuses("the shift overflows", y, f"{NORM} Conv", "overflow", feeds=feeds)
    net = Net(dtype="float16")
    x = net.image()
    y = net.conv(
        net.norm(x, 4, variance=0.0, mean=0.0, scale=1.0, epsilon=1e-5), kernel=net.weight(np.full((6, 4, 1, 1), 300.0))
    )
    feeds = ({x: np.random.default_rng(0).uniform(-1e-3, 1e-3, (2, 4, 6, 5)).astype("float16")},)
    yield net.refuses("w·s overflows, behind", y, f"{NORM} Conv", "overflow", feeds=feeds)
    net = Net(dtype="float16")
    x, w = net.input(2, 5), net.weight(np.full((5, 6), 300.0))
    y = net.norm(net.node("MatMul", x, w), variance=0.0, mean=0.0, scale=1.0, epsilon=1e-5)
    feeds = ({x: np.full((2, 5), 0.01, "float16")},)
    yield net.refuses("dense overflows", y, f"{NORM} MatMul", "overflow", feeds=feeds)
    for variance in (0.0, [0.0, 1.0, 0.5, 0.0, 2.0, 1.0]):
        net = Net(dtype="float16")
        x = net.image()
        w = net.weight(0.25 * net.rng.normal(size=(6, 4, 1, 1)))
        y = net.norm(net.conv(x, kernel=w), variance=variance, mean=0.0, scale=0.5, epsilon=1e-8)
        feeds = ({x: np.random.default_rng(0).uniform(-0.5, 0.5, (2, 4, 6, 5)).astype("float16")},)
        yield net.folds(f"ε 1e-8, variance {variance}", y, "Conv", feeds=feeds)
    net = Net()
    w = net.node("Cast", net.random(6, 4, 3, 3, dtype="float16"), to=TensorProto.FLOAT)
    yield net.folds("float16 kernel, cast", net.norm(net.conv(net.image(), kernel=w)), "Conv")
    net = Net()
    made = net.norm(net.conv(net.image()))
    case = net.folds("bfloat16 kernel, cast", made, "Conv")
    tensor = next(t for t in case.proto.graph.initializer if len(t.dims) == 4)
    bits = numpy_helper.to_array(tensor).view("uint32") >> 16
    narrow = helper.make_tensor("narrow", TensorProto.BFLOAT16, tensor.dims, bits.astype("uint16").tobytes(), raw=True)
    cast = helper.make_node("Cast", ["narrow"], [tensor.name], to=TensorProto.FLOAT)
    case.proto.graph.initializer.remove(tensor)
    case.proto.graph.initializer.append(narrow)
    case.proto.graph.node.insert(0, cast)
    yield case

    net = Net(15)
    x = net.input(2, 4, 6, 5, code=TensorProto.BFLOAT16)
    y = net.node("Cast", net.norm(net.conv(net.node("Cast", x, to=TensorProto.FLOAT))), to=TensorProto.BFLOAT16)
    yield net.folds("bfloat16 data, cast", y, "Cast Cast Conv")


@row(22)
def mixed_dtypes() -> Iterator[Case]:
    net = Net()
    c = net.node("Cast", net.conv(net.image(dtype="float16"), dtype="float16"), to=TensorProto.FLOAT)
    yield net.folds("Cast between", net.norm(c), "Add Cast Conv")
    net = Net()
    c = net.node("Cast", net.conv(net.image(dtype="float16"), dtype="float16", bias=True), to=TensorProto.FLOAT)
    yield net.folds("Cast between, a bias", net.norm(c), "Add Cast Conv")
    net = Net()
    c = net.node("Cast", net.conv(net.image(dtype="float16"), dtype="float16"), to=TensorProto.FLOAT)
    yield net.folds("Casts around", net.node("Cast", net.norm(c), to=TensorProto.FLOAT16), "Conv")
    net = Net()
    c = net.node("Cast", net.conv(net.image()), to=TensorProto.DOUBLE)
    s = net.statistics(dtype="float64")
    yield net.folds("float32 in float64", net.norm(c, parameters=s), "Add Cast Conv")
    for opset in (15, 21):
        net = Net(opset, "float16")
        s = net.statistics(dtype="float32")
        yield net.folds(f"statistics in float32, opset {opset}", net.norm(net.conv(net.image()), parameters=s), "Conv")
        net = Net(opset, "float16")
        s = net.statistics(dtype="float16")[:2] + net.statistics(dtype="float32")[2:]
        y = net.norm(net.conv(net.image(), bias=True), parameters=s)
        yield net.folds(f"averages in float32, opset {opset}", y, "Conv")
    net = Net(15, "float16")
    y = net.norm(net.image(), parameters=net.statistics(4, dtype="float32"))
    yield net.refuses("statistics in float32, on an input", y, f"{NORM} Cast Cast", "normalises an input")
    net = Net(15)
    y = net.norm(net.conv(net.image()), parameters=net.statistics(dtype="float64"))
    yield net.folds("statistics in float64", y, "Conv")
    net = Net(15)
    y = net.norm(net.conv(net.image()), parameters=net.statistics(dtype="float16"))
    yield net.folds("statistics in float16", y, "Conv")


# --- several branches, and what may lie between -----------------------------------------------------------------------


@row(23)
def sum_of_convolutions() -> Iterator[Case]:
    net = Net()
    y = net.norm(net.node("Add", net.conv(net.image()), net.conv(net.image())))
    yield net.folds("two", y, "Add Conv Conv")
    net = Net()
    y = net.norm(net.node("Add", net.conv(net.image(), bias=True), net.conv(net.image(), bias=True)))
    yield net.folds("two with biases", y, "Add Conv Conv")
    net = Net()
    x = net.image()
    y = net.norm(net.node("Sum", net.conv(x), net.conv(x, bias=True), net.conv(x, size=3, groups=2)))
    yield net.folds("Sum of three", y, "Add Add Conv Conv Conv")
    net = Net()
    y = net.norm(net.node("Mean", net.conv(net.image()), net.conv(net.image())))
    yield net.folds("Mean of two", y, "Add Conv Conv")
    net = Net()
    y = net.norm(net.node("Sub", net.conv(net.image()), net.conv(net.image())))
    yield net.folds("a difference", y, "Conv Conv Sub")
    net = Net()
    y = net.norm(net.node("Add", net.dense(net.input(2, 5)), net.dense(net.input(2, 5), add=True)))
    yield net.folds("dense", y, "Add Gemm Gemm")
    net = Net()
    y = net.norm(net.node("Add", net.norm(net.conv(net.image())), net.norm(net.conv(net.image()))))
    yield net.folds("batch norms before it too", y, "Add Conv Conv")
    net = Net()
    x = net.image(6)
    y = net.norm(net.node("Add", net.conv(x, 6, pads=[1, 1, 1, 1]), x))
    yield net.refuses("with an identity", y, f"Add {NORM} Conv", "branch of the addition")
    net = Net()
    c = net.conv(net.image())
    y = net.norm(net.node("Add", net.conv(net.image()), net.node("Relu", c)))
    yield net.refuses("with a relu", y, f"Add {NORM} Conv Conv Relu", "branch of the addition")
    net = Net()
    c = net.conv(net.image())
    y = [net.norm(net.node("Add", c, net.conv(net.image()))), net.node("Relu", c)]
    yield net.refuses("one branch read twice", y, f"Add {NORM} Conv Conv Relu", "branch of the addition")
    net = Net()
    y = net.norm(net.node("Add", net.conv(net.image()), net.conv(net.image(4, 3, 3))))
    yield net.refuses("a branch that is broadcast", y, f"Add {NORM} Conv Conv", "broadcast")


@row(24)
def concatenation() -> Iterator[Case]:
    net = Net()
    y = net.norm(net.node("Concat", net.conv(net.image()), net.conv(net.image(), out=3), axis=1), 9)
    yield net.folds("channels", y, "Concat Conv Conv")
    net = Net()
    y = net.norm(net.node("Concat", net.conv(net.image(), bias=True), net.conv(net.image()), axis=2))
    yield net.folds("height", y, "Concat Conv Conv")
    net = Net()
    y = net.norm(net.node("Concat", net.conv(net.image()), net.conv(net.image()), axis=-1))
    yield net.folds("width, from the end", y, "Concat Conv Conv")
    net = Net()
    y = net.norm(net.node("Concat", net.conv(net.image()), net.conv(net.image()), axis=0))
    yield net.folds("batch", y, "Concat Conv Conv")
    net = Net()
    y = net.norm(net.node("Concat", *(net.conv(net.image(), out=n) for n in (1, 2, 3)), axis=1))
    yield net.folds("three", y, "Concat Conv Conv Conv")
    net = Net()
    y = net.norm(net.node("Concat", net.dense(net.input(2, 5)), net.dense(net.input(2, 5), 5, 2, True), axis=1), 8)
    yield net.folds("dense", y, "Concat Gemm Gemm")
    net = Net()
    x = net.image(3)
    y = net.norm(net.node("Concat", net.conv(x, 3, pads=[1, 1, 1, 1]), x, axis=1), 9)
    yield net.folds("an input among them", y, "Add Concat Conv Mul")
    net = Net()
    x = net.image(3)
    c = net.conv(x, 3, pads=[1, 1, 1, 1])
    y = net.norm(net.node("Concat", net.node("Relu", c), net.conv(x, 3, 3, pads=[1, 1, 1, 1]), axis=1), 9)
    yield net.folds("a relu among them", y, "Add Concat Conv Conv Mul Relu")
    net = Net()
    x = net.image()
    y = net.norm(net.node("Concat", net.node("Relu", x), x, axis=1), 8)
    yield net.refuses("nothing linear", y, f"{NORM} Concat Relu", "no branch")
    net = Net()
    x = net.image(12)
    y = net.norm(net.node("Concat", net.conv(x, 12, 1, pads=[1, 1, 1, 1]), x, axis=1), 13)
    yield net.refuses("one channel of thirteen", y, f"{NORM} Concat Conv", "most of the concatenation")


@row(25)
def moved_between() -> Iterator[Case]:
    def case(name: str, make: Callable[[Net, str], str], left: str, says: str = "", channels: int = 6,
             opset: int = 17, **options: Any) -> Case:  # fmt: skip
        net = Net(opset)
        y = net.norm(make(net, net.conv(net.image(), **options)), channels)
        return net.refuses(name, y, f"{NORM} {left}", says) if says else net.folds(name, y, left)

    def moved(op_type: str, *inputs: Any, **attributes: Any) -> Callable[[Net, str], str]:
        return lambda net, x: str(net.node(op_type, x, *(net.integers(*i) for i in inputs), **attributes))

    yield case("Identity", moved("Identity"), "Conv")
    yield case("Dropout", moved("Dropout"), "Conv")
    yield case("Dropout, opset 9", moved("Dropout", ratio=0.3), "Conv", opset=9)
    yield case("Reshape", moved("Reshape", (0, 0, -1)), "Conv Reshape")
    yield case("Reshape to numbers", moved("Reshape", (2, 6, 12, 1)), "Conv Reshape")
    yield case("Reshape, channels apart", moved("Reshape", (2, 3, 2, 4, 3)), "Conv Reshape", channels=3)
    yield case("Reshape, channels joined", moved("Reshape", (2, 24, 3)), "Conv Reshape", "takes the axis", 24)
    yield case("Flatten", moved("Flatten"), "Conv Flatten", "takes the axis", 72)
    yield case("Flatten of one pixel", moved("Flatten"), "Conv Flatten", size=(6, 5))
    yield case("Transpose of space", moved("Transpose", perm=[0, 1, 3, 2]), "Conv Transpose")
    yield case("Transpose to channels last", moved("Transpose", perm=[0, 2, 3, 1]), "Conv Transpose", "axes differ", 4)
    yield case(
        "Transpose, same size",
        moved("Transpose", perm=[0, 2, 1, 3]),
        "Conv Transpose",
        "axes differ",
        pads=[2] * 4,
        size=(5, 3),
    )
    yield case(
        "Transpose there and back",
        lambda net, x: net.node("Transpose", net.node("Transpose", x, perm=[0, 2, 3, 1]), perm=[0, 3, 1, 2]),
        "Conv",
    )
    yield case("Unsqueeze", lambda net, x: net.axes("Unsqueeze", x, 4), "Conv Unsqueeze")
    yield case("Unsqueeze, opset 11", lambda net, x: net.axes("Unsqueeze", x, 4), "Conv Unsqueeze", opset=11)
    yield case("Squeeze", lambda net, x: net.axes("Squeeze", x, 2), "Conv Squeeze", size=(6, 3))
    yield case("Squeeze, opset 9", lambda net, x: net.axes("Squeeze", x, 2), "Conv Squeeze", opset=9, size=(6, 3))
    yield case("AveragePool", moved("AveragePool", kernel_shape=[2, 2]), "AveragePool Conv")
    yield case("AveragePool, padded", moved("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]), "AveragePool Conv")
    yield case(
        "AveragePool, padding counts",
        moved("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
        "Add AveragePool Conv",
    )
    yield case("GlobalAveragePool", moved("GlobalAveragePool"), "Conv GlobalAveragePool")
    yield case("ReduceMean", moved("ReduceMean", axes=[2, 3], keepdims=0), "Conv ReduceMean")
    yield case("MaxPool, scales mixed", moved("MaxPool", kernel_shape=[2, 2]), "Conv MaxPool", "sign")
    yield case("GlobalMaxPool, scales mixed", moved("GlobalMaxPool"), "Conv GlobalMaxPool", "sign")
    net = Net()
    y = net.norm(net.node("MaxPool", net.conv(net.image()), kernel_shape=[2, 2]), scale=[0.5, 1, 2, 3, 1, 0.1])
    yield net.folds("MaxPool, scales positive", y, "Conv MaxPool")
    for op, attributes in (("GlobalMaxPool", {}), ("ReduceMax", {"axes": [2, 3], "keepdims": 0})):
        net = Net()
        y = net.norm(net.node(op, net.conv(net.image()), **attributes), scale=[0.5, 1, 2, 3, 1, 0.1])
        yield net.folds(f"{op}, scales positive", y, f"Conv {op}")
    net = Net()
    y = net.node("Transpose", net.dense(net.input(2, 3, 5)), perm=[0, 2, 1])
    yield net.folds("Transpose of dense", net.norm(y), "Add MatMul Transpose")
    net = Net()
    y = net.node("Reshape", net.dense(net.input(2, 3, 5)), net.integers(6, 6))
    yield net.folds("Reshape of dense", net.norm(y), "Add MatMul Reshape")
    net = Net()
    y = net.pad(net.conv(net.image()), 0, 0, 1, 1, 0, 0, 1, 1)
    yield net.folds("Pad with zeros", net.norm(y), "Add Conv Pad")
    net = Net()
    y = net.node("Cast", net.conv(net.image()), to=TensorProto.FLOAT)
    yield net.folds("Cast to the same", net.norm(y), "Conv")


@row(26)
def pad_before() -> Iterator[Case]:
    for opset in (9, 11, 13, 18, 21):
        net = Net(opset)
        y = net.norm(net.conv(net.pad(net.image(), 0, 0, 1, 2, 0, 0, 1, 0)))
        yield net.folds(f"zeros, opset {opset}", y, "Conv")
    net = Net()
    y = net.norm(net.conv(net.pad(net.image(), 0, 0, 1, 1, 0, 0, 1, 1), bias=True, pads=[1, 0, 0, 1]))
    yield net.folds("zeros, and pads", y, "Conv")
    net = Net()
    y = net.norm(net.conv(net.pad(net.image(), 0, 0, 1, 1, 0, 0, 1, 1, value=0.5)))
    yield net.folds("another number", y, "Conv Pad")
    for mode in ("reflect", "edge"):
        for opset in (9, 17, 19):
            net = Net(opset)
            y = net.norm(net.conv(net.pad(net.image(), 0, 0, 1, 1, 0, 0, 2, 1, mode=mode)))
            yield net.folds(f"{mode}, opset {opset}", y, "Conv Gather Gather" if opset < 11 else "Conv Pad")
    net = Net()
    y = net.norm(net.conv(net.pad(net.image(), 0, 1, 1, 1, 0, 1, 1, 1), 6))
    yield net.folds("channels too", y, "Conv Pad")
    net = Net()
    y = net.norm(net.conv(net.pad(net.image(dims=1), 0, 0, 1, 0, 0, 1), dims=1))
    yield net.folds("1-D", y, "Conv")


# --- several batch norms ----------------------------------------------------------------------------------------------


@row(27)
def stacked() -> Iterator[Case]:
    net = Net()
    x = net.norm(net.conv(net.image()))
    y = net.norm(net.conv(x, 6, 5), 5)
    yield net.folds("two", y, "Conv Conv")
    for depth in (3, 5):
        net = Net()
        x = net.image()
        for i in range(depth):
            x = net.node("Relu", net.norm(net.conv(x, 6 if i else 4, pads=[1, 1, 1, 1])))
        yield net.folds(f"{depth} with relu", x, "Conv Relu " * depth)
    net = Net()
    x = net.image(6)
    a = net.node("Relu", net.norm(net.conv(x, 6, pads=[1, 1, 1, 1])))
    b = net.norm(net.conv(a, 6, pads=[1, 1, 1, 1]))
    yield net.folds("a residual block", net.node("Relu", net.node("Add", b, x)), "Add Conv Conv Relu Relu")
    net = Net()
    x = net.image()
    a = net.norm(net.conv(net.node("Relu", net.norm(net.conv(x, strides=[2, 2]))), 6, size=1))
    b = net.norm(net.conv(x, strides=[2, 2]))
    yield net.folds("with a projection", net.node("Add", a, b), "Add Conv Conv Conv Relu")
    net = Net()
    x = net.norm(net.conv(net.image(), out=4, groups=4), 4)
    yield net.folds("depthwise, pointwise", net.norm(net.conv(x, size=1)), "Conv Conv")
    net = Net()
    x = net.node("GlobalAveragePool", net.node("Relu", net.norm(net.conv(net.image()))))
    y = net.node("Gemm", net.node("Flatten", x), net.random(6, 5), net.random(5))
    yield net.folds("to the end", net.norm(y, 5), "Conv Flatten Gemm GlobalAveragePool Relu")


@row(28)
def batch_norms_alone() -> Iterator[Case]:
    for opset in (7, 9, 13, 15, 21):
        net = Net(opset)
        yield net.refuses(f"on an input, opset {opset}", net.norm(net.image(), 4), NORM, "normalises an input")
    for dtype in DTYPES[1:]:
        net = Net(dtype=dtype)
        yield net.refuses(f"on an input, {dtype}", net.norm(net.image(), 4), NORM, "normalises an input")
    for shape in ((2, 4), (2, 4, 5), (2, 4, 3, 2, 3)):
        net = Net()
        y = net.norm(net.input(*shape), 4)
        yield net.refuses(f"on an input of {len(shape)} axes", y, NORM, "normalises an input")
    net = Net()
    yield net.folds("two", net.norm(net.norm(net.image(), 4), 4), NORM)
    net = Net()
    yield net.folds("three", net.norm(net.norm(net.norm(net.image(), 4), 4), 4), NORM)
    net = Net()
    yield net.folds("two behind a convolution", net.norm(net.norm(net.conv(net.image()))), "Conv")
    net = Net()
    y = net.node("Mul", net.norm(net.image(), 4), net.random(4, 1, 1))
    yield net.folds("Mul, Add behind", net.node("Add", y, net.random(4, 1, 1)), NORM)
    net = Net()
    y = net.node("Add", net.node("Mul", net.image(), net.random(4, 1, 1)), net.random(4, 1, 1))
    yield net.folds("Mul, Add before", net.norm(y, 4), NORM)
    net = Net()
    y = net.node("Add", net.node("Mul", net.norm(net.conv(net.image())), net.random(6, 1, 1)), net.random(1, 6, 1, 1))
    yield net.folds("Mul, Add behind a convolution's", y, "Conv")
    net = Net()
    y = net.node("Mul", net.norm(net.conv(net.image())), net.random(6, 4, 3))
    yield net.folds("a factor for each pixel behind", y, "Conv Mul")
    net = Net()
    x = net.norm(net.image(), 4)
    yield net.refuses(
        "the first read twice", [net.norm(x, 4), net.node("Relu", x)], f"{NORM} {NORM} Relu", "second use"
    )


@row(29)
def windows() -> Iterator[Case]:
    for name, options in VARIANTS.items():
        net = Net()
        yield net.folds(name, net.norm(net.conv(net.image(), **options)), "Conv")
    for name, options in {
        "1-D dilation": {"dilations": [2], "pads": [1, 2]},
        "1-D same lower": {"auto_pad": "SAME_LOWER", "size": 4},
        "1-D same, stride": {"auto_pad": "SAME_UPPER", "strides": [3]},
    }.items():
        net = Net()
        yield net.folds(name, net.norm(net.conv(net.image(4, 9), dims=1, **options)), "Conv")
    for name, options in {
        "3-D pads": {"pads": [1, 0, 1, 0, 1, 1]},
        "3-D stride": {"strides": [2, 1, 1], "bias": True},
        "3-D dilation": {"dilations": [2, 1, 1], "size": 2},
        "3-D same": {"auto_pad": "SAME_UPPER", "size": 2},
        "3-D groups": {"groups": 2},
    }.items():
        net = Net()
        yield net.folds(name, net.norm(net.conv(net.image(dims=3), dims=3, **options)), "Conv")


@row(30)
def outputs() -> Iterator[Case]:
    net = Net()
    y = net.norm(net.conv(net.image()))
    yield net.folds("the batch norm's", [y, net.node("Relu", y)], "Conv Relu")
    net = Net()
    c = net.conv(net.image())
    yield net.refuses("the convolution's", [net.norm(c), c], f"{NORM} Conv", "second use")
    net = Net()
    c = net.conv(net.image())
    d = net.node("Add", c, net.random(6, 1, 1))
    yield net.refuses("the convolution's, before the bias", [c, net.norm(d)], f"{NORM} Conv", "second use")
    net = Net()
    x = net.norm(net.image(), 4)
    yield net.refuses("the batch norm's before a convolution", [x, net.conv(x)], f"{NORM} Conv", "second use")
    net = Net()
    y = net.norm(net.conv(net.image()))
    yield net.folds("through an Identity", [y, net.node("Identity", y)], "Conv Identity")
    net = Net()
    x = net.norm(net.conv(net.image()))
    y = net.norm(net.conv(x, 6))
    yield net.folds("both of a stack", [y, x], "Conv Conv")
    net = Net()
    net.input(3, 3, name="unread")
    yield net.folds("an input that nothing reads", net.norm(net.conv(net.image())), "Conv")
    net = Net()
    x = net.image()
    yield net.folds("an input", [net.norm(net.conv(x)), net.node("Identity", x)], "Conv Identity")


# --- how the parameters are given -------------------------------------------------------------------------------------


@row(31)
def spelling() -> Iterator[Case]:
    net = Net()
    yield net.folds("ε by default", net.norm(net.conv(net.image()), epsilon=None, variance=1e-4), "Conv")
    net = Net()
    y = net.norm(net.conv(net.image()), attributes={"momentum": 0.5, "training_mode": 0})
    yield net.folds("all attributes", y, "Conv")
    net = Net(7)
    yield net.folds("spatial=1", net.norm(net.conv(net.image()), attributes={"spatial": 1}), "Conv")
    net = Net(8)
    shape = (6, 4, 3)
    s = [net.random(*shape) for _ in range(3)] + [net.weight(net.rng.uniform(0.5, 1, shape))]
    y = net.norm(net.conv(net.image()), parameters=s, attributes={"spatial": 0})
    yield net.refuses("spatial=0", y, "Add Conv Div Mul Sub")
    for opset in (7, 9, 13):
        net = Net(opset)
        s, x = net.statistics(), net.conv(net.image())
        net.nodes.append(helper.make_node(NORM, [x, *s], ["y", "", "", "", ""], epsilon=1e-3))
        yield net.folds(f"empty results, opset {opset}", "y", "Conv")

    def written(name: str, make: Callable[[Net, Array], str], opset: int = 17, everything: bool = True) -> Case:
        """Give the parameters, and the kernel too, by nodes."""
        net = Net(opset)
        s = net.statistics()
        kernel = net.random(6, 4, 3, 3)
        made = [make(net, net.weights.pop(w)) for w in s]
        if everything:
            kernel = make(net, net.weights.pop(kernel))
        return net.folds(name, net.norm(net.conv(net.image(), kernel=kernel), parameters=made), "Conv")

    def constant(net: Net, array: Array) -> str:
        return str(net.node("Constant", value=numpy_helper.from_array(array)))

    def behind(op_type: str, **attributes: Any) -> Callable[[Net, Array], str]:
        return lambda net, array: str(net.node(op_type, net.weight(array), **attributes))

    yield written("Constant nodes", constant)
    yield written("Constant nodes, opset 7", constant, 7)
    yield written("value_floats", lambda net, a: net.node("Constant", value_floats=a.tolist()), everything=False)
    yield written("Identity", behind("Identity"))
    yield written("Cast from float64", lambda net, a: net.node("Cast", net.weight(a, dtype="float64"), to=1))
    yield written("Cast from float16", lambda net, a: net.node("Cast", net.weight(a, dtype="float16"), to=1))
    yield written("Transpose", lambda net, a: net.node("Transpose", net.weight(a.T)))
    yield written("Reshape", lambda net, a: net.node("Reshape", net.weight(a.ravel()), net.integers(*a.shape)))
    yield written("Squeeze", lambda net, a: net.axes("Squeeze", net.weight(a[None]), 0))
    yield written("Unsqueeze, Squeeze", lambda net, a: net.axes("Squeeze", net.axes("Unsqueeze", net.weight(a), 0), 0))
    yield written("Mul", lambda net, a: net.node("Mul", net.weight(a), net.weight(2.0)))
    yield written("Add", lambda net, a: net.node("Add", net.weight(a), net.weight(np.full(a.shape[-1:], 0.5))))
    yield written("Exp", lambda net, a: net.node("Exp", net.weight(a)))
    yield written(
        "Slice",
        lambda net, a: net.node(
            "Slice", net.weight(np.concatenate([a, a])), net.integers(0), net.integers(len(a)), net.integers(0)
        ),
    )
    yield written("Gather", lambda net, a: net.node("Gather", net.weight(a), net.integers(*range(len(a))[::-1])))
    yield written("Concat", lambda net, a: net.node("Concat", net.weight(a[:2]), net.weight(a[2:]), axis=0))
    yield written(
        "Constant, Cast, Identity",
        lambda net, a: net.node("Identity", net.node("Cast", constant(net, a.astype("float64")), to=1)),
    )
    net = Net()
    fill = [helper.make_tensor("v", 1, [1], [v]) for v in (0.5, 0.25, 0.125, 2.0)]
    s = [net.node("ConstantOfShape", net.integers(6), value=v) for v in fill]
    yield net.folds("ConstantOfShape", net.norm(net.conv(net.image()), parameters=s), "Conv")
    net = Net()
    x = net.image()
    s = [net.node("Expand", net.weight(v), net.integers(6)) for v in (0.5, 0.25, 0.125, 2.0)]
    yield net.folds("Expand", net.norm(net.conv(x), parameters=s), "Conv")
    net = Net(ir=3)
    y = net.norm(net.conv(net.image()))
    for name in net.weights:
        net.overridable(name)
    yield net.folds("IR 3", y, "Conv")
    yield from _overridable()
    yield from _inner_graphs()


def _overridable() -> Iterator[Case]:
    for at, says in ((0, ""), (1, ""), (2, ""), (3, "")):
        net = Net()
        s = net.statistics()
        x = net.image()
        y = net.norm(net.conv(x), parameters=s)
        net.overridable(s[at])
        feeds = ({}, {s[at]: np.linspace(0.5, 1.5, 6, dtype="f")})
        yield net.refuses(f"operand {at + 1} may be overridden", y, f"{NORM} Conv", says, feeds=feeds)
    net = Net()
    w = net.random(6, 4, 3, 3)
    y = net.norm(net.conv(net.image(), kernel=w))
    net.overridable(w)
    feeds = ({}, {w: np.ones((6, 4, 3, 3), "f")})
    yield net.refuses("the kernel may be overridden", y, f"{NORM} Conv", "computed from data", feeds=feeds)
    net = Net()
    b = net.random(6, base="b")
    y = net.norm(net.conv(net.image(), bias=b))
    net.overridable(b)
    feeds = ({}, {b: np.ones(6, "f")})
    yield net.refuses("the bias may be overridden", y, f"Add {NORM} Conv Unsqueeze", feeds=feeds)
    net = Net(ir=4, opset=9)
    y = net.norm(net.conv(net.image()))
    for name in net.weights:
        net.overridable(name)
    feeds = ({}, {name: np.abs(array) + 1 for name, array in net.weights.items()})
    yield net.refuses("everything, IR 4", y, f"{NORM} Conv", feeds=feeds)
    net = Net()
    b = net.random(6, base="b")
    y = net.node("Mul", net.norm(net.conv(net.image())), b)
    net.weights[b] = net.weights[b].reshape(6, 1, 1)
    net.overridable(b)
    yield net.folds("what comes behind may be", y, "Conv Mul", feeds=({}, {b: np.ones((6, 1, 1), "f")}))


def _inner_graphs() -> Iterator[Case]:
    for known in (True, False):
        net = Net()
        x = net.image()
        w, s = net.random(6, 4, 3, 3), net.statistics()
        branches = {}
        for branch, op_type in (("then_branch", "Relu"), ("else_branch", "Neg")):
            made = [helper.make_node("Conv", [x, w], ["c"]), helper.make_node(NORM, ["c", *s], ["n"]),
                    helper.make_node(op_type, ["n"], ["r"])]  # fmt: skip
            info = onnx.ValueInfoProto(name="r")
            info.CopyFrom(helper.make_tensor_value_info("r", 1, [2, 6, 4, 3]))
            branches[branch] = helper.make_graph(made, branch, [], [info])
        condition = net.weight(True, "condition", "bool") if known else net.input(name="condition", dtype="bool")
        y = net.node("If", condition, **branches)
        feeds = ({},) if known else tuple({condition: np.array(value)} for value in (True, False))
        yield net.folds(f"If, known {known}", y, "Conv Relu" if known else "Conv Neg Relu Where", feeds=feeds)
    net = Net()
    body = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node(NORM, ["c", "g", "b", "m", "v"], ["y"])]
    opset = [helper.make_opsetid("", 17)]
    net.functions.append(helper.make_function("local", "Block", [*"xwgbmv"], ["y"], body, opset))
    y = net.node("Block", net.image(), net.random(6, 4, 3, 3), *net.statistics(), domain="local")
    yield net.folds("a local function", y, "Conv")
    net = Net()
    body = [helper.make_node(NORM, [*"xgbmv"], ["n"]), helper.make_node("Relu", ["n"], ["y"])]
    net.functions.append(helper.make_function("local", "Normed", [*"xgbmv"], ["y"], body, opset))
    y = net.node("Normed", net.conv(net.image()), *net.statistics(), domain="local")
    yield net.folds("a batch norm in a local function", y, "Conv Relu")


# --- numbers ----------------------------------------------------------------------------------------------------------


@row(32)
def scale_zero() -> Iterator[Case]:
    some = [0.0, 1.0, -1.0, 0.0, 0.5, 2.0]
    for dtype in DTYPES:
        net = Net(dtype=dtype)
        yield net.folds(f"some, {dtype}", net.norm(net.conv(net.image()), scale=some), "Conv")
    net = Net()
    yield net.folds("all", net.norm(net.conv(net.image()), scale=0.0), "Conv")
    net = Net()
    yield net.folds("before a convolution", net.conv(net.norm(net.image(), 4, scale=some[:4])), "Conv")
    net = Net()
    yield net.folds("dense", net.norm(net.dense(net.input(2, 5), add=True), scale=some), "Gemm")
    net = Net()
    y = net.norm(net.conv(net.image()), scale=some, variance=[0.0, 1, 1, 1e-6, 1, 1])
    yield net.folds("variance 0 too", y, "Conv")


@row(34)
def bad_statistics() -> Iterator[Case]:
    for value, name in ((-1.0, "negative"), (np.nan, "NaN"), (np.inf, "infinite")):
        bad = [1.0, 0.5, value, 2.0, 1.0, 0.5]
        net = Net()
        y = net.norm(net.conv(net.image(), bias=True), variance=bad)
        yield net.refuses(f"{name} variance", y, f"{NORM} Conv", "in channel 2")
        net = Net()
        y = net.norm(net.dense(net.input(2, 5)), variance=bad)
        yield net.refuses(f"{name} variance, dense", y, f"{NORM} MatMul", "in channel 2")
        net = Net()
        y = net.conv(net.norm(net.image(), 4, variance=bad[:4]))
        yield net.refuses(f"{name} variance, before a convolution", y, f"{NORM} Conv", "in channel 2")
        net = Net()
        y = net.norm(net.norm(net.image(6), variance=bad))
        yield net.refuses(f"{name} variance, two batch norms", y, f"{NORM} {NORM}", "in channel 2")
    net = Net()
    y = net.norm(net.conv(net.image()), variance=[1.0, 0.5, -5e-4, 2.0, 1.0, 0.5])
    yield net.refuses("negative, but not with ε", y, f"{NORM} Conv", "in channel 2")
    net = Net()
    y = net.norm(net.conv(net.image()), variance=0.0, epsilon=0.0)
    yield net.refuses("0 without ε", y, f"{NORM} Conv", "in channel 0")
    for name in ("scale", "shift", "mean"):
        net = Net()
        y = net.norm(net.conv(net.image()), **{name: [1.0, 0.5, np.nan, 2.0, 1.0, 0.5]})
        yield net.refuses(f"{name} NaN", y, f"{NORM} Conv", "in channel 2")
    net = Net()
    y = net.norm(net.conv(net.image()), variance=0.0)
    yield net.folds("variance 0", y, "Conv")
    net = Net(dtype="float16")
    y = net.norm(net.conv(net.image()), variance=[1.0, 0.5, -1.0, 2.0, 1.0, 0.5])
    yield net.refuses("negative, float16", y, f"{NORM} Conv", "in channel 2")


def _all() -> list[Case]:
    """Return the cases of all rows, named after their rows."""
    found = []
    for number, make in _ROWS:
        for case in make():
            name = f"{number:02d} {make.__name__.replace('_', ' ')}: {case.name}"
            found.append(Case(name, case.proto, case.folds, case.left, case.says, case.feeds, number))
    return found


ALL = _all()
