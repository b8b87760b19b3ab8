"""Errors, written for a student: what was expected, what came, where it was built, what to do.

Everything minigraph raises on bad input is a `MinigraphError`; the subclasses also derive from the built-in
exception a Python programmer would expect (`ShapeError` is a `ValueError`), so that ordinary `except` clauses work.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable
from types import FrameType
from typing import ParamSpec, TypeVar

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep


def user_frame() -> tuple[str, int]:
    """Return the file and line of the innermost caller that is not part of minigraph.

    >>> user_frame()[1] > 0
    True
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and (frame.f_code.co_filename.startswith(_PACKAGE) or _is_ours(frame)):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def _is_ours(frame: FrameType) -> bool:
    """Tell whether a frame outside the package's files runs its code: a dataclass's constructor has no file."""
    module = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    return module == "minigraph" if frame.f_code.co_filename == "<string>" else module in ("contextlib", "functools")


class MinigraphError(Exception):
    """Base of all errors: a summary, then expected / got / where / hint, a line each.

    `where` is the user's own line, found by walking the stack unless it is given (a node knows the line that built
    it).

    >>> print(MinigraphError("wrong rank", expected="4 axes", got="2 axes", where="net.py:3", hint="add a batch axis"))
    wrong rank
      expected: 4 axes
      got:      2 axes
      at:       net.py:3
      hint:     add a batch axis
    """

    def __init__(
        self,
        summary: str,
        *,
        expected: object = None,
        got: object = None,
        where: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.summary = summary
        self.expected = expected
        self.got = got
        self.where = where if where is not None else "{}:{}".format(*user_frame())
        self.hint = hint
        super().__init__(self.message())

    def message(self, with_place: bool = True) -> str:
        """Return the whole message; a command line has no use for the place in the caller's code."""
        place = self.where if with_place and self.where else None
        parts = [("expected:", self.expected), ("got:", self.got), ("at:", place), ("hint:", self.hint)]
        lines = (f"  {label:<9} {text}" for label, text in parts if text is not None)
        return "\n".join([self.summary, *lines])


class ShapeError(MinigraphError, ValueError):
    """A shape, rank or axis that the op's shape rule forbids."""


class DTypeError(MinigraphError, TypeError):
    """A dtype that does not fit: mixed operands, an integer where a gradient is wanted."""


class ArgumentError(MinigraphError, TypeError):
    """An argument that does not exist, or has a value the function cannot take."""


class GraphError(MinigraphError, ValueError):
    """A graph that is not valid: the verifier's findings, duplicate names, unknown inputs."""


class GradientError(MinigraphError, ValueError):
    """A gradient that does not exist: not a scalar, not reachable, an op without one."""


class DataError(MinigraphError, ValueError):
    """Data that cannot be used: NaN, labels out of range, sizes that do not match, a truncated file."""


class ModelFormatError(MinigraphError, ValueError):
    """A file or text that is not a valid model: the only error that loading one may raise for its content."""


class NonFiniteError(MinigraphError, ArithmeticError):
    """A value became NaN or infinite; names the op that made it and the line that built the op."""


class ProgramError(MinigraphError, RuntimeError):
    """A program called in a way it cannot run: missing inputs, concurrent training steps."""


class MissingExtraError(MinigraphError, ImportError):
    """An optional dependency is absent; the message names the extra that brings it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {package}: pip install 'minigraph[{extra}]'", where="")


def did_you_mean(word: str, candidates: list[str]) -> str | None:
    """Return "did you mean …?" for the closest candidate, or None.

    >>> did_you_mean("stride", ["strides", "padding"])
    'did you mean strides?'
    """
    import difflib

    close = difflib.get_close_matches(word, candidates, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else None


_P = ParamSpec("_P")
_R = TypeVar("_R")


def explain_arguments(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Wrap a function so that a wrong argument raises an ArgumentError that says which one was probably meant.

    >>> @explain_arguments
    ... def pool(x, strides=1): ...
    >>> pool(None, stride=2)
    Traceback (most recent call last):
    ...
    minigraph.errors.ArgumentError: pool: got an unexpected keyword argument 'stride'
      expected: x, strides
      got:      stride
      at:       <doctest ...>:1
      hint:     did you mean strides?
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            names = [p for p in signature.parameters if p != "self"]
            unknown = [k for k in kwargs if k not in names]
            called = type(args[0]).__name__ if function.__name__ == "__init__" else function.__name__
            raise ArgumentError(
                f"{called}: {error}",
                expected=", ".join(names) or "no arguments",
                got=", ".join(unknown) or f"{len(args)} positional and {len(kwargs)} keyword arguments",
                hint=did_you_mean(unknown[0], names) if unknown else None,
            ) from None
        return function(*args, **kwargs)

    return wrapped
