"""Kernels written by hand: headers in folders, put into a generated file with all that they include."""

from __future__ import annotations

import functools
import pathlib
import re
from collections.abc import Sequence

# What is the same in every dialect of C++: it is written in the names that a dialect's own headers define.
SHARED = pathlib.Path(__file__).parent / "kernels"
_INCLUDE = re.compile(r'^#include "(\w+\.(?:h|cuh))"$', re.MULTILINE)


def title(text: str) -> str:
    """Return the line above a part of a generated file."""
    return f"// ==== {text} {'=' * (110 - len(text))}"


@functools.cache
def _header(name: str, folders: tuple[pathlib.Path, ...]) -> str:
    path = next((folder / name for folder in folders if (folder / name).exists()), folders[0] / name)
    return path.read_text().replace("#pragma once\n", "")


def included(names: Sequence[str], *folders: pathlib.Path) -> str:
    """Return headers with all that they include, each once, what is needed first; the first folder that has one counts.

    >>> text = included(["activations.h", "comparisons.h"], SHARED)
    >>> [line.split()[2] for line in text.splitlines() if line.startswith("// ====")]
    ['activations.h', 'comparisons.h']
    """
    done: set[str] = set()
    parts: list[str] = []

    def add(name: str) -> None:
        if name in done:
            return
        done.add(name)
        text = _header(name, folders)
        for needed in _INCLUDE.findall(text):
            add(needed)
        parts.append(f"{title(name)}\n{_INCLUDE.sub('', text).strip()}\n")

    for name in names:
        add(name)
    return "\n".join(parts)
