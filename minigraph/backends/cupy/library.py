"""Steps that are kernels written by hand: softmax and its kin, poolings of any windows, what loops do not know.

Sizes become template arguments: a kernel is compiled for the shapes that it runs on. Reductions are in `reductions`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from minigraph.backends.cupy.dtypes import CUDA_TYPES, computed_in
from minigraph.backends.cupy.places import fill, places, read, template, up_to_power, widest, written
from minigraph.backends.cupy.reductions import BUSY, reduction_code
from minigraph.backends.cupy.steps import STATUS, THREADS, Launch, Parameter, StepCode, aligned, blocks_for
from minigraph.backends.loops.body import shape_of
from minigraph.backends.loops.domain import strides
from minigraph.backends.loops.expressions import number
from minigraph.ir.node import Node
from minigraph.ir.op import Op
from minigraph.ir.types import DTYPES
from minigraph.ops import elementwise, loss, norm, pool, real


def _stored(node: Node) -> str:
    return CUDA_TYPES[node.dtype]


# --- softmax and its kin ----------------------------------------------------------------------------------------------

# Rows of up to so many elements are a warp's at most, longer ones a block's, of so many threads at most: then a thread
# has registers enough to keep its elements.
_SHORT, _MOST_THREADS = 1024, 512


def _threads_of_row(k: int, packs: int, rows: int, apart: bool) -> int:
    """Return how many threads share a row of k elements in packs: more where rows are few, or lie one by one."""
    enough = 1 if apart else up_to_power(-(-packs // 4))
    wanted = min(up_to_power(BUSY // rows), up_to_power(packs))
    return min(32 if k <= _SHORT else _MOST_THREADS, max(enough, wanted))


def _rows(node: Node, op: Any) -> StepCode:
    x = node.inputs[0]
    shape, axis = shape_of(x), op.axis % x.rank
    k, step = shape[axis], math.prod(shape[axis + 1 :])
    rows, size = math.prod(shape[:axis]) * step, math.prod(shape_of(node))
    ctype = _stored(node)
    if size == 0:
        return StepCode(())
    if k == 0:
        return StepCode((fill(node.dtype, size, 0, 2),))
    pack = widest(DTYPES[x.dtype], k) if step == 1 else 1
    group = _threads_of_row(k, k // pack, rows, step > 1)
    threads = max(THREADS, group) if group <= 32 else group
    operands = ("x", "t")[: len(node.inputs)]
    pointers = [Parameter(f"const {ctype}* {name}", i) for i, name in enumerate(operands)]
    pointers.append(Parameter(f"{ctype}* y", len(operands)))
    call = template(op.name, ctype, k, step, group, pack)
    line = f"{call}({rows}, {', '.join(operands)}, y);"
    launch = Launch(op.name, tuple(pointers), (line,), -(-rows * group // threads), threads, ("rows.cuh",))
    return StepCode((launch,), overwritable=() if len(operands) > 1 else (0,))


# --- pooling ----------------------------------------------------------------------------------------------------------


class _Pooling:
    """The template arguments of a pooling of these images to these windows."""

    def __init__(self, op: pool.Pool, images: Node, windows: Node) -> None:
        self.op, self.images, self.windows = op, shape_of(images), shape_of(windows)
        self.ctype = _stored(images)
        self.pack = widest(DTYPES[images.dtype], self.images[3])
        (self.top, _), (self.left, _) = op.window.pads((self.images[1], self.images[2]))

    @property
    def text(self) -> str:
        """The windows."""
        op = self.op
        numbers = (*self.images, *self.windows[1:3], *op.size, *op.strides, *op.dilations, self.top, self.left)
        return template("Pooling", *numbers)

    @property
    def shares(self) -> str:
        """What averages are multiplied with: the rows and columns that count."""
        op, limits = self.op, []
        assert isinstance(op, pool.AvgPool2D)
        for axis, (before, after) in enumerate(op.window.pads((self.images[1], self.images[2]))):
            size = self.images[1 + axis]
            limits += [-before, size + after - op.overhang[axis]] if op.count_padding else [0, size]
        return template("Shares", *op.size, *op.strides, *op.dilations, self.top, self.left, *limits)

    @property
    def place(self) -> str:
        """The type of a tap's number, of which the last one stands for none."""
        return "uint8_t" if math.prod(self.op.size) < 255 else "uint32_t"

    def launch(self, name: str, arguments: tuple[object, ...], pointers: dict[str, Parameter], over: Any) -> Launch:
        """Return the launch of a kernel over the elements of a shape."""
        line = f"{template(name, self.text, *arguments, self.ctype, self.pack)}({', '.join(pointers)});"
        blocks = blocks_for(math.prod(over) // self.pack)
        return Launch(name, tuple(pointers.values()), (line,), blocks, headers=("pool.cuh",))


def _max_pool(node: Node, op: pool.MaxPool2D) -> StepCode:
    p = _Pooling(op, node.inputs[0], node)
    return StepCode((p.launch("max_pool", (), {"x": read(p.ctype, "x", 0), "y": written(p.ctype, "y", 1)}, p.windows),))


def _max_pool_adjoint(node: Node, op: pool.MaxPool2DAdjoint) -> StepCode:
    p = _Pooling(op, node, node.inputs[1])
    nbytes = math.prod(p.windows) * (1 if p.place == "uint8_t" else 4)
    find = {"x": read(p.ctype, "x", 0), "places": written(p.place, "places", -1)}
    add = {"places": read(p.place, "places", -1), "g": read(p.ctype, "g", 1), "y": written(p.ctype, "y", 2)}
    launches = [p.launch("max_pool_adjoint", (p.place,), add, p.images)]
    if nbytes:
        launches.insert(0, p.launch("max_pool_places", (p.place,), find, p.windows))
    return StepCode(tuple(launches), aligned(nbytes))


def _max_pool_select(node: Node, op: pool.MaxPool2DSelect) -> StepCode:
    p = _Pooling(op, node.inputs[0], node)
    pointers = {"x": read(p.ctype, "x", 0), "values": read(p.ctype, "values", 1), "y": written(p.ctype, "y", 2)}
    return StepCode((p.launch("max_pool_select", (p.place,), pointers, p.windows),))


def _avg_pool(node: Node, op: pool.AvgPool2D) -> StepCode:
    p = _Pooling(op, node.inputs[0], node)
    pointers = {"x": read(p.ctype, "x", 0), "y": written(p.ctype, "y", 1)}
    return StepCode((p.launch("avg_pool", (p.shares,), pointers, p.windows),))


def _avg_pool_adjoint(node: Node, op: pool.AvgPool2DAdjoint) -> StepCode:
    p = _Pooling(op, node, node.inputs[0])
    pointers = {"g": read(p.ctype, "g", 0), "y": written(p.ctype, "y", 1)}
    return StepCode((p.launch("avg_pool_adjoint", (p.shares,), pointers, p.images),))


# --- what loops do not know -------------------------------------------------------------------------------------------


def _batch_norm(node: Node, op: norm.BatchNorm) -> StepCode:
    shape, axis, ctype = shape_of(node), op.axis % node.rank, _stored(node)
    inner, size = math.prod(shape[axis + 1 :]), math.prod(shape)
    pack = widest(DTYPES[node.dtype], inner)
    names = ("x", "gamma", "beta", "mean", "variance", "y")
    pointers = tuple(Parameter(f"{'' if name == 'y' else 'const '}{ctype}* {name}", i) for i, name in enumerate(names))
    epsilon = f"({computed_in(node.dtype)}){number(op.epsilon, 'double')}"
    line = f"{template('batch_norm', size, shape[axis], inner, pack)}({epsilon}, {', '.join(names)});"
    blocks = blocks_for(size // pack)
    return StepCode((Launch("batch_norm", pointers, (line,), blocks, headers=("whole.cuh",)),), overwritable=(0,))


def _limits(dtype: str) -> tuple[int, int]:
    """Return the least and the largest integer of a dtype.

    >>> _limits("int8"), _limits("uint8")
    ((-128, 127), (0, 255))
    """
    bits = 8 * DTYPES[dtype]
    return (0, 2**bits - 1) if dtype.startswith("uint") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _whole(value: int, ctype: str) -> str:
    """Return an integer as C++ writes it: the least of all is no literal.

    >>> _whole(-(2**63), "int64_t"), _whole(2**64 - 1, "uint64_t")
    ('(int64_t)(-9223372036854775807 - 1)', '(uint64_t)18446744073709551615u')
    """
    return f"({ctype})({value + 1} - 1)" if value < 0 else f"({ctype}){value}u"


def _clip(node: Node, op: elementwise.Clip) -> StepCode:
    ctype, size = _stored(node), math.prod(shape_of(node))
    least, most = _limits(node.dtype)
    low, high = math.ceil(max(op.minimum, least)), math.floor(min(op.maximum, most))
    line = f"{template('clip_whole', size)}({_whole(low, ctype)}, {_whole(high, ctype)}, x, y);"
    pointers = (Parameter(f"const {ctype}* x", 0), Parameter(f"{ctype}* y", 1))
    return StepCode((Launch("clip", pointers, (line,), blocks_for(size), headers=("whole.cuh",)),), overwritable=(0,))


def _floor(node: Node, op: elementwise.Floor) -> StepCode:
    """The integer itself."""
    ctype, size = _stored(node), math.prod(shape_of(node))
    flat = places([(size, 1)])
    pointers = (Parameter(f"const {ctype}* x", 0), Parameter(f"{ctype}* y", 1))
    line = f"{template('copy', flat, flat)}(x, y);"
    launch = Launch("floor", pointers, (line,), blocks_for(size), headers=("movement.cuh",))
    return StepCode((launch,), overwritable=(0,))


def _pow(node: Node, op: real.Pow) -> StepCode:
    shape, ctype = shape_of(node), _stored(node)
    where = []
    for operand in node.inputs:
        own = (1,) * (node.rank - operand.rank) + shape_of(operand)
        repeated = [0 if n == 1 else s for n, s in zip(own, strides(own), strict=True)]
        where.append(places(list(zip(shape, repeated, strict=True))))
    pointers = (*(Parameter(f"const {ctype}* {name}", i) for i, name in enumerate("xy")), Parameter(f"{ctype}* z", 2))
    line = f"{template('powers', math.prod(shape), *where)}(x, y, status, z);"
    status = Parameter("int* status", STATUS)
    launch = Launch("pow", (*pointers, status), (line,), blocks_for(math.prod(shape)), headers=("whole.cuh",))
    return StepCode((launch,), overwritable=tuple(i for i in range(2) if shape_of(node.inputs[i]) == shape))


_CODES: dict[type[Op], Callable[[Node, Any], StepCode]] = {
    loss.Softmax: _rows, loss.LogSoftmax: _rows, loss.SoftmaxCrossEntropy: _rows,
    pool.MaxPool2D: _max_pool, pool.MaxPool2DAdjoint: _max_pool_adjoint, pool.MaxPool2DSelect: _max_pool_select,
    pool.AvgPool2D: _avg_pool, pool.AvgPool2DAdjoint: _avg_pool_adjoint,
    norm.BatchNorm: _batch_norm,
}  # fmt: skip
# Of integers only: of floats they are loops.
_WHOLE: dict[type[Op], Callable[[Node, Any], StepCode]] = {
    elementwise.Clip: _clip, elementwise.Floor: _floor, real.Pow: _pow,
}  # fmt: skip


def library_code(node: Node) -> StepCode | None:
    """Return the kernels that compute a node, or None if there are none."""
    reduced = reduction_code(node)
    if reduced is not None:
        return reduced
    codes = _WHOLE if type(node.op) in _WHOLE and node.dtype.startswith(("int", "uint")) else _CODES
    write = codes.get(type(node.op))
    if write is None:
        return None
    return StepCode(()) if 0 in shape_of(node) else write(node, node.op)
