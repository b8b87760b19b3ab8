"""The file: the kernels that a program uses, a struct and a function for each of its steps, a table, and the entry."""

from __future__ import annotations

import functools
import pathlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from minigraph.backends.c.anchors import AnchoredCode
from minigraph.backends.c.library import LibraryCode
from minigraph.backends.c.steps import LoopCode, indented
from minigraph.ir.leaves import Item
from minigraph.ir.node import Node
from minigraph.ir.types import TensorType

KERNELS = pathlib.Path(__file__).parent / "kernels"
_INCLUDE = re.compile(r'^#include "(\w+\.h)"$', re.MULTILINE)

# One step of a plan: what it asks for, and what it is in C++.
StepCode = LoopCode | LibraryCode

ENTRY = """
// Run steps `first` … `last` − 1; the arena and the addresses of what lies outside of it are the caller's.
extern "C" void run(char* arena, void* const* outside, int threads, int first, int last) {
  run_program(steps + first, steps + last, {arena, outside}, threads);
}
extern "C" void prepare(char* arena, void* const* outside, int threads) {
  run_program(preparations, preparations + sizeof(preparations) / sizeof(Step) - 1, {arena, outside}, threads);
}
"""


@functools.cache
def _header(name: str) -> str:
    text = (KERNELS / name).read_text()
    return text.replace("#pragma once\n", "")


def included(names: Sequence[str]) -> str:
    """Return headers of the kernels' folder with all that they include, each once, what is needed first."""
    done: set[str] = set()
    parts: list[str] = []

    def add(name: str) -> None:
        if name in done:
            return
        done.add(name)
        text = _header(name)
        for needed in _INCLUDE.findall(text):
            add(needed)
        parts.append(f"// ==== {name} {'=' * (110 - len(name))}\n{_INCLUDE.sub('', text).strip()}\n")

    for name in names:
        add(name)
    return "\n".join(parts)


@dataclass
class Source:
    """A file in the making."""

    headers: list[str] = field(default_factory=lambda: ["team.h", "totals.h"])
    structs: dict[str, str] = field(default_factory=dict)  # text without its name → name
    functions: list[str] = field(default_factory=list)
    table: list[str] = field(default_factory=list)
    preparations: list[str] = field(default_factory=list)

    def add(self, node: Node, code: StepCode, arrays: Sequence[str], prepared: str | None) -> int:
        """Add a step and return its number; `arrays` are the addresses of operands, results and workspace."""
        number = len(self.table)
        self.headers += [h for h in code.headers if h not in self.headers]
        name = self._struct(code)
        inner = list(arrays) if prepared is None else [*arrays[:-1], prepared, arrays[-1]]
        lines = code.run(inner, name)
        self.functions.append(
            f"{_comment(number, node)}\nstatic void step_{number}(const Team& team, const Memory& at) {{\n"
            + "\n".join(indented(lines))
            + "\n}\n"
        )
        self.table.append(f"{{step_{number}, {'true' if code.parallel else 'false'}}},")
        if prepared is not None and isinstance(code, AnchoredCode):
            kernel = arrays[list(node.inputs).index(code.anchor.inputs[1])]  # type: ignore[union-attr]
            self.functions.append(
                f"static void prepare_{number}(const Team& team, const Memory& at) {{\n"
                + "\n".join(indented(code.prepare(kernel, prepared)))
                + "\n}\n"
            )
            self.preparations.append(f"{{prepare_{number}, true}},")
        return number

    def _struct(self, code: StepCode) -> str:
        """Return the name of the struct with this text: equal loops over other arrays share one."""
        text = code.struct()
        return "" if text is None else self.structs.setdefault(text, f"Loop{len(self.structs)}")

    def __str__(self) -> str:
        structs = [f"struct {name} {{\n{text}\n}};\n" for text, name in self.structs.items()]
        parts = [
            included(self.headers),
            "// ==== the program's loops " + "=" * 90,
            *structs,
            "// ==== its steps " + "=" * 100,
            *self.functions,
            "static const Step steps[] = {",
            *indented([*self.table, "{nullptr, false},"]),
            "};",
            "static const Step preparations[] = {",
            *indented([*self.preparations, "{nullptr, false},"]),
            "};",
            ENTRY,
        ]
        return "\n".join(parts)


def _comment(number: int, node: Node) -> str:
    """Return what a step's function says of it: its ops, what it makes, where the user wrote it."""
    body = getattr(node.op, "body", ())
    ops = ", ".join(s.op.name for s in body if not isinstance(s.op, Item)) or node.op.name
    where = " · ".join(filter(None, (f"{node.type}", node.origin.scope, node.origin.where)))
    return f"// step {number}: {ops}\n// {where}"


def result_types(node: Node) -> list[TensorType]:
    """Return the types of a node's results."""
    return [node.type] if isinstance(node.type, TensorType) else list(node.type.items)


def pointer(ctype: str, offset: int | None, index: int) -> str:
    """Return the address of an array: an offset in the arena, or a place in the table of what lies outside."""
    return f"at.in_arena<{ctype}>({offset})" if offset is not None else f"at.at<{ctype}>({index})"
