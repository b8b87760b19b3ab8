"""Inlining: what a model file had under one name, or a backend in one group, becomes the ops that it is made of."""

from __future__ import annotations

from minigraph.ir.leaves import Item, item
from minigraph.ir.node import Node
from minigraph.ir.types import TupleType
from minigraph.ops.group import Group
from minigraph.ops.region import Function, inline, inlined_results
from minigraph.ops.shape import After
from minigraph.passes.driver import Rewriting, at
from minigraph.passes.surroundings import Surroundings


@at(Function, Group)
def inline_function(node: Node) -> Node | None:
    """function(x) = its steps one by one.

    When: it has one result.

        %0 = input("x") : float32[2,3]
        %1 = function(%0, "Twice", body=(step(op=add(), inputs=(0, 0)), step(op=relu(), inputs=(1,)))) : float32[2,3]
        return y=%1
    """
    return inline(node) if len(node.op.places(len(node.inputs))) == 1 else None  # type: ignore[attr-defined]


@at(Item)
def item_of_function(node: Node, around: Surroundings) -> Node | None:
    """item(function(x), i) = its steps, up to result i.

    %0 = input("x") : float32[2,3]
    %1 = function(%0, "Both", body=(step(op=neg(), inputs=(0,)), step(op=relu(), inputs=(1,))), results=(1, 2)) : \
(float32[2,3], float32[2,3])
    %2 = item(%1, index=1) : float32[2,3]
    return y=%2
    """
    source = node.inputs[0]
    if not isinstance(source.op, (Function, Group)):
        return None
    if source not in around.apart:
        around.apart[source] = inlined_results(source)
    return around.apart[source][node.op.index]  # type: ignore[attr-defined]


@at(After)
def after_function(node: Node) -> Node | None:
    """after(x, function(y)) = after(x, item(function(y), 0)), and so on for each result.

    When: it has several results.

    %0 = input("x") : float32[2,3]
    %1 = function(%0, "Both", body=(step(op=neg(), inputs=(0,)), step(op=relu(), inputs=(1,))), results=(1, 2)) : \
(float32[2,3], float32[2,3])
    %2 = item(%1, index=0) : float32[2,3]
    %3 = after(%2, %1) : float32[2,3]
    return y=%3
    """
    x, function = node.inputs
    if not isinstance(function.op, (Function, Group)) or not isinstance(function.type, TupleType):
        return None
    for i in range(len(function.type.items)):
        x = Node(After(), (x, item(function, i)))
    return x


INLINE = Rewriting("inline", (inline_function, item_of_function, after_function))
