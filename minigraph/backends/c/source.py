"""The file: the kernels that a program uses, a struct and a function for each of its steps, a table, and the entry."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from minigraph.backends.c.anchors import AnchoredCode
from minigraph.backends.c.steps import KernelCode, LoopCode, indented
from minigraph.backends.loops.headers import SHARED, included, title
from minigraph.ir.leaves import Item
from minigraph.ir.node import Node
from minigraph.ir.types import TensorType

KERNELS = pathlib.Path(__file__).parent / "kernels"

# One step of a plan: what it asks for, and what it is in C++.
StepCode = LoopCode | KernelCode

ENTRY = """
#define MG_ENTRY extern "C" __attribute__((visibility("default")))
// Run steps `first` … `last` − 1, and count the call as completed; the arena, the addresses of what lies outside of it,
// and the count are the caller's.
MG_ENTRY void run(char* arena, void* const* outside, int threads, int first, int last, long* completed) {
  run_program(steps + first, steps + last, {arena, outside}, threads);
  ++*completed;
}
MG_ENTRY void prepare(char* arena, void* const* outside, int threads) {
  run_program(preparations, preparations + sizeof(preparations) / sizeof(Step) - 1, {arena, outside}, threads);
}
"""
# A file of fewer steps is compiled as a whole; of more, in parts side by side.
_FEW_STEPS, _PARTS = 6, 2


@dataclass
class Source:
    """A file in the making. It may be compiled in parts, each of which leaves out the others' functions."""

    headers: list[str] = field(default_factory=lambda: ["team.h", "totals.h"])
    structs: dict[str, str] = field(default_factory=dict)  # text without its name → name
    functions: list[tuple[tuple[str, ...], str]] = field(default_factory=list)  # what it is made of, text
    steps: list[tuple[str, bool]] = field(default_factory=list)  # name, whether all threads run it
    preparations: list[str] = field(default_factory=list)

    def add(self, node: Node, code: StepCode, arrays: Sequence[str], prepared: str | None) -> int:
        """Add a step and return its number; `arrays` are the addresses of operands, results and workspace."""
        number = len(self.steps)
        self.headers += [h for h in code.headers if h not in self.headers]
        struct = self._struct(code)
        inner = list(arrays) if prepared is None else [*arrays[:-1], prepared, arrays[-1]]
        self._function(f"step_{number}", _comment(number, node), code.run(inner, struct), (struct, *code.headers))
        self.steps.append((f"step_{number}", code.parallel))
        if prepared is not None and isinstance(code, AnchoredCode):
            kernel = arrays[list(node.inputs).index(code.anchor.inputs[1])]  # type: ignore[union-attr]
            comment = f"// the constant kernel of step {number}"
            self._function(f"prepare_{number}", comment, code.prepare(kernel, prepared), ("", *code.headers))
            self.preparations.append(f"prepare_{number}")
        return number

    def _struct(self, code: StepCode) -> str:
        """Return the name of the struct with this text: equal loops over other arrays share one."""
        text = code.struct()
        return "" if text is None else self.structs.setdefault(text, f"Loop{len(self.structs)}")

    def _function(self, name: str, comment: str, lines: Sequence[str], made_of: tuple[str, ...]) -> None:
        head = f"{comment}\nvoid {name}(const Team& team, const Memory& at) {{"
        self.functions.append((made_of, "\n".join([head, *indented(lines), "}\n"])))

    @property
    def parts(self) -> int:
        """In how many parts the file is to be compiled."""
        return 1 if len(self.steps) < _FEW_STEPS else _PARTS

    def _part_of(self) -> list[int]:
        """Return the part of each function: what instantiates the same templates stays together."""
        load = [0] * self.parts
        part: dict[tuple[str, ...], int] = {}
        for made_of in sorted({key for key, _ in self.functions}, key=lambda key: (-len(key), key)):
            part[made_of] = load.index(min(load))
            load[part[made_of]] += 8 if len(made_of) > 1 and made_of[0] else 1
        return [part[made_of] for made_of, _ in self.functions]

    def __str__(self) -> str:
        structs = [f"struct {name} {{\n{text}\n}};\n" for text, name in self.structs.items()]
        functions = [
            f"#if MG_PART == {part}\n{text}#endif\n" if self.parts > 1 else text
            for part, (_, text) in zip(self._part_of(), self.functions, strict=True)
        ]
        names = [name for name, _ in self.steps] + self.preparations
        tables = [
            *(f"void {name}(const Team& team, const Memory& at);" for name in names),
            "static const Step steps[] = {",
            *(f"  {{{name}, {'true' if parallel else 'false'}}}," for name, parallel in self.steps),
            "  {nullptr, false},\n};",
            "static const Step preparations[] = {",
            *(f"  {{{name}, true}}," for name in self.preparations),
            "  {nullptr, false},\n};",
            ENTRY.strip(),
        ]
        return "\n".join([
            included(self.headers, KERNELS, SHARED),
            title("the program's loops"), *structs,
            title("its steps"), *functions,
            title("the tables of its steps, and how it is called"),
            *(["#if MG_PART == 0", *tables, "#endif"] if self.parts > 1 else tables),
            "",
        ])  # fmt: skip


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
