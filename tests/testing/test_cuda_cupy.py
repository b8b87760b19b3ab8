"""The stand-ins against the real CuPy: what they have is there, with the same parameters, names and values."""

from __future__ import annotations

import importlib
import inspect
import re

import pytest

from minigraph.testing.cuda import packages

pytest.importorskip("cupy", reason="CuPy is not installed")
try:
    importlib.import_module("cupy_backends.cuda.libs").cublas  # noqa: B018 - an attribute that loads a library
except ImportError:
    pytest.skip("cuBLAS is not installed", allow_module_level=True)

CONTENTS = [(module, name) for module, held in packages.contents().items() for name in held]
# Methods and attributes that the stand-ins add to a class of CuPy's are private.
CLASSES = [
    (module, name) for module, name in CONTENTS
    if inspect.isclass(packages.contents()[module][name]) and not name.endswith("Error")
]  # fmt: skip
# What Cython's text signatures call a parameter of no name, or leave out.
_RECEIVER = ("self", "cls")


def real(module: str, name: str):
    parent, _, last = module.rpartition(".")
    found = getattr(importlib.import_module(parent), last) if parent else importlib.import_module(module)
    return getattr(found, name)


def own(module: str, name: str):
    return packages.contents()[module][name]


@pytest.mark.parametrize(("module", "name"), CONTENTS)
def test_everything_is_in_cupy(module, name):
    theirs, ours = real(module, name), own(module, name)
    if isinstance(ours, int):
        assert theirs == ours
    elif inspect.isclass(ours):
        assert inspect.isclass(theirs)
        assert issubclass(theirs, RuntimeError) == issubclass(ours, RuntimeError)
    else:
        assert callable(theirs) == callable(ours)


@pytest.mark.parametrize(("module", "name"), CLASSES)
def test_public_members_are_in_cupy(module, name):
    theirs, ours = real(module, name), own(module, name)
    public = {member for member in dir(ours) if not member.startswith("_")}
    missing = {member for member in public if not hasattr(theirs, member)}
    assert not missing
    for member in public:
        mine = inspect.getattr_static(ours, member)
        if inspect.isfunction(mine):
            assert callable(getattr(theirs, member))
            _check_parameters(getattr(theirs, member), mine)


@pytest.mark.parametrize(("module", "name"), CONTENTS)
def test_parameters_are_cupys(module, name):
    theirs, ours = real(module, name), own(module, name)
    if callable(ours) and not name.endswith("Error") and (module, name) not in _NOT_CALLED:
        _check_parameters(theirs, ours)


# Classes that programs get from others, never by calling them.
_NOT_CALLED = {("cupy.cuda", "Graph"), ("cupy", "RawKernel"), ("cupy.cuda", "MemoryPool")}


def _check_parameters(theirs, ours) -> None:
    """Our parameters begin theirs, by name and order, where theirs are known; those given by keyword are among them."""
    known = _parameters(theirs)
    if known is None or any(name.startswith("*") for name in known):
        return
    parameters = [p for p in inspect.signature(ours).parameters.values() if p.name not in _RECEIVER]
    mine = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    assert mine == known[: len(mine)]
    assert {p.name for p in parameters} <= set(known)


def _parameters(function) -> list[str] | None:
    """Return the names of a function's parameters: from its signature, or from the one that Cython writes first."""
    text = _documented(function)
    if text is not None:
        parts = [part.strip() for part in re.split(r",(?![^(]*\))", text) if part.strip() not in ("", "*", "\\*")]
        names = [part.split("=")[0].split()[-1] for part in parts]
        return [name for name in names if name not in _RECEIVER]
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    return [
        f"*{p.name}" if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) else p.name
        for p in found
        if p.name not in _RECEIVER
    ]


def _documented(function) -> str | None:
    first = (function.__doc__ or "").strip().split("\n")[0]
    found = re.match(r"[\w.]+\((.*)\)(?:\s*->.*)?$", first)
    return found[1] if found else None
