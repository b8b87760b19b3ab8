"""The CUDA file: the headers that a program uses, and one kernel for each different launch of its steps.

Equal loops over other arrays are one kernel, launched again. Long loops that do not wait for each other, an optimiser's
updates above all, are one launch: a table says where each one's arrays are, and which blocks are its own.
"""

from __future__ import annotations

import pathlib
import re
from dataclasses import dataclass, field

from minigraph.backends.cupy.steps import Launch
from minigraph.backends.loops.headers import SHARED, included, title

KERNELS = pathlib.Path(__file__).parent / "kernels"
_COMMENT = re.compile(r"  // .*$", re.MULTILINE)
_LONGEST_NAME = 60


@dataclass
class Source:
    """A file in the making."""

    headers: list[str] = field(default_factory=list)
    kernels: dict[str, str] = field(default_factory=dict)  # text without its name and comments → name
    texts: dict[str, str] = field(default_factory=dict)  # name → text
    joined: dict[str, Launch] = field(default_factory=dict)  # name of a kernel for one → what is launched for several

    def add(self, launch: Launch) -> str:
        """Return the name of a launch's kernel, written for the first one that does the same."""
        self.headers += [h for h in launch.headers if h not in self.headers]
        text = _text(launch)
        same = _COMMENT.sub("", text)
        if same not in self.kernels:
            name = f"k{len(self.kernels)}_{launch.name}"[:_LONGEST_NAME]
            self.kernels[same] = name
            self.texts[name] = text.replace(_NAME, name)
        return self.kernels[same]

    def several(self, launch: Launch) -> str:
        """Return the name of the kernel that runs such a loop over the arrays of several."""
        one = self.add(launch)
        self.joined[one] = launch
        return f"{one}_of_several"

    def __str__(self) -> str:
        kernels = []
        for name, text in self.texts.items():
            kernels.append(text)
            if name in self.joined:
                kernels.append(_several(name, self.joined[name]))
        return "\n".join(
            [included(["types.cuh", *self.headers], KERNELS, SHARED), title("the program's kernels"), *kernels, ""]
        )


# Stands for a kernel's name until it is known.
_NAME = "@name"


def _text(launch: Launch) -> str:
    declarations = [p.declaration for p in launch.parameters]
    body = "\n".join(f"  {line}" for line in launch.statements)
    head = _head(launch)
    if launch.elements is None:
        return f"{head} {_NAME}({', '.join(declarations)}) {{\n{body}\n}}\n"
    parameters, names = ", ".join([*declarations, "Index elements"]), [_variable(d) for d in declarations]
    call = f"{_NAME}_loop({', '.join([*names, 'elements', 'thread_index()', 'thread_count()'])});"
    return (
        f"MG_INLINE void {_NAME}_loop({parameters}, Index begin, Index stride) {{\n{body}\n}}\n"
        f"{head} {_NAME}({parameters}) {{\n  {call}\n}}\n"
    )


def _head(launch: Launch) -> str:
    # One block a multiprocessor is asked for at least: for more, compilers spill registers.
    return f'extern "C" __global__ void __launch_bounds__({launch.threads}, 1)'


def _variable(declaration: str) -> str:
    """Return the variable that is declared.

    >>> _variable("const float* in0")
    'in0'
    """
    return declaration.split()[-1].lstrip("*")


def _several(name: str, launch: Launch) -> str:
    """Return the kernel over a table: each row has the arrays' addresses, the elements, the first block, the blocks."""
    declarations = [p.declaration for p in launch.parameters]
    fields = " ".join(f"{d};" for d in declarations)
    names = [f"row.{_variable(d)}" for d in declarations]
    where = ["row.elements", "(blockIdx.x - row.first) * blockDim.x + threadIdx.x", "row.blocks * blockDim.x"]
    return (
        f"struct {name}_row {{ {fields} Index elements, first, blocks; }};\n"
        f"{_head(launch)}\n"
        f"{name}_of_several(const {name}_row* rows, const int* row_of_block) {{\n"
        f"  const {name}_row row = rows[row_of_block[blockIdx.x]];\n"
        f"  {name}_loop({', '.join([*names, *where])});\n}}\n"
    )
