"""What callers of an optimised model rely on: names, types and order of its inputs and outputs."""

from __future__ import annotations

from typing import Any

from minigraph.onnx.proto import onnx_package


def keep_signature(before: Any, after: Any, bound: bool) -> None:
    """Give an optimised model the inputs and outputs of the one it was made of.

    Inputs that nothing reads stay; declared types too, where there are any and no sizes were bound: what is computed in
    another dtype, as bfloat16 is, gets a cast. Defaults of inputs that a caller may override stay initializers.
    """
    old, new = before.graph, after.graph
    fixed = {t.name for t in old.initializer}
    optional = fixed if before.ir_version >= 4 else set()
    made = {info.name: info for info in (*new.input, *new.output)}

    def kept(info: Any) -> Any:
        return made[info.name] if info.name in made and (bound or not _element(info)) else info

    inputs = [kept(i) for i in old.input if i.name not in fixed or i.name in optional]
    outputs = [kept(o) for o in old.output]
    _cast_at_the_edges(new, made, [i for i in inputs if i.name in made], outputs)
    copies = [[type(i).FromString(i.SerializeToString()) for i in listed] for listed in (inputs, outputs)]
    del new.input[:], new.output[:]
    new.input.extend(copies[0])
    new.output.extend(copies[1])
    overridable = {i.name for i in copies[0]} & optional
    new.initializer.extend(t for t in old.initializer if t.name in overridable)
    new.doc_string = old.doc_string
    after.metadata_props.extend(before.metadata_props)


def _cast_at_the_edges(graph: Any, made: Any, inputs: list[Any], outputs: list[Any]) -> None:
    """Add casts where a declared element type is not the one that is computed with."""
    helper = onnx_package().helper
    others = {i.name for i in (*inputs, *outputs) if _element(i) != _element(made[i.name])}
    if not others:
        return
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [f"{name}/computed" if name in others else name for name in names]
    for info in reversed([i for i in inputs if i.name in others]):
        cast = helper.make_node("Cast", [info.name], [f"{info.name}/computed"], to=_element(made[info.name]))
        graph.node.insert(0, cast)
    for info in outputs:
        if info.name in others:
            graph.node.append(helper.make_node("Cast", [f"{info.name}/computed"], [info.name], to=_element(info)))


def _element(info: Any) -> int:
    return int(info.type.tensor_type.elem_type)
