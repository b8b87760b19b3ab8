"""Half precision: operands are widened to float32, the kernel computes in that, and its results are rounded once.

NumPy has matrix products and fast loops for float32 and float64 alone, and a partial sum that is kept in 8 or 11 bits
soon stops growing. So kernels are written for float32 and float64; those that only move elements need no widening.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

import numpy as np

from minigraph.backends.numpy.call import Array, Call, Kernel, Scratch, Steps, nbytes_of, shape_of
from minigraph.ir.leaves import Input
from minigraph.ir.node import Node
from minigraph.ir.origin import Origin
from minigraph.ir.types import HALF, TensorType, TupleType

WIDE = "float32"
# Nodes that stand for types alone need not look for the line that they come from.
_NOWHERE = Origin()


def make(maker: Callable[[Call], Kernel], call: Call) -> Kernel:
    """Return the kernel of a call; with half precision among its arrays it works on wide copies of those."""
    results = call.output if isinstance(call.output, tuple) else (call.output,)
    if not any(map(is_half, (*call.inputs, *results))):
        return maker(call)
    scratch = Scratch(call.workspace, WIDE)
    inputs, outputs = _copies(call.inputs, scratch), _copies(results, scratch)
    output = outputs if isinstance(call.output, tuple) else outputs[0]
    kernel = maker(replace(call, inputs=inputs, output=output, workspace=scratch.memory))
    return Steps([*_moves(call.inputs, inputs), kernel, *_moves(outputs, results)])


def workspace(asked: Callable[[Node], int], node: Node) -> int:
    """Return the bytes that a node's kernel asks for, wide copies included."""
    results = node.type.items if isinstance(node.type, TupleType) else (node.type,)
    types = [*(i.tensor_type for i in node.inputs), *results]
    if all(t.dtype not in HALF for t in types):
        return asked(node)
    leaves = [Node(Input("x", _wide(i.tensor_type)), origin=_NOWHERE) for i in node.inputs]
    copies = sum(nbytes_of(shape_of(t), WIDE) for t in types if t.dtype in HALF)
    return copies + asked(Node(node.op, leaves, origin=_NOWHERE))


def is_half(array: Array) -> bool:
    """Tell whether an array is of half precision."""
    return array.itemsize == 2 and str(array.dtype) in HALF


def _wide(type: TensorType) -> TensorType:
    return replace(type, dtype=WIDE) if type.dtype in HALF else type


def _copies(arrays: Iterable[Array], scratch: Scratch) -> tuple[Array, ...]:
    """Return memory for each array of half precision; the others as they are."""
    return tuple(scratch.array(*a.shape) if is_half(a) else a for a in arrays)


def _moves(sources: Iterable[Array], targets: Iterable[Array]) -> list[Kernel]:
    pairs = zip(sources, targets, strict=True)
    return [partial(np.copyto, target, source, casting="same_kind") for source, target in pairs if target is not source]
