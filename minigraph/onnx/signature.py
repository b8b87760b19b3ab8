"""What callers of an optimised model rely on: names, types and order of its inputs and outputs."""

from __future__ import annotations

from typing import Any


def keep_signature(before: Any, after: Any, bound: bool) -> None:
    """Give an optimised model the inputs and outputs of the one it was made of.

    Inputs that nothing reads stay; declared types too, unless sizes were bound. Defaults of inputs that a caller may
    override stay initializers.
    """
    old, new = before.graph, after.graph
    fixed = {t.name for t in old.initializer}
    optional = fixed if before.ir_version >= 4 else set()
    made = {info.name: info for info in (*new.input, *new.output)}

    def kept(info: Any) -> Any:
        return made[info.name] if bound and info.name in made else info

    inputs = [kept(i) for i in old.input if i.name not in fixed or i.name in optional]
    outputs = [kept(o) for o in old.output]
    copies = [[type(i).FromString(i.SerializeToString()) for i in listed] for listed in (inputs, outputs)]
    del new.input[:], new.output[:]
    new.input.extend(copies[0])
    new.output.extend(copies[1])
    overridable = {i.name for i in copies[0]} & optional
    new.initializer.extend(t for t in old.initializer if t.name in overridable)
    new.doc_string = old.doc_string
    after.metadata_props.extend(before.metadata_props)
