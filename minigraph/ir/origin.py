"""Provenance: which line of the user's code made a node, in which layer scope, and what was rewritten into it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

from minigraph.errors import user_frame
from minigraph.ir.types import check_label

if TYPE_CHECKING:
    from minigraph.ir.node import Node


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a node comes from.

    `file`, `line`: the user's line; `scope`: the layers it was made in, "block1/conv2d"; `gradient_of`: the id of the
    forward node whose adjoint it helps to compute; `history`: (rule, id of the replaced node), oldest first;
    `replaced`: the node itself in whose place this one was put by the latest of those rules, so that it can be undone.
    """

    file: str = ""
    line: int = 0
    scope: str = ""
    gradient_of: int | None = None
    history: tuple[tuple[str, int], ...] = ()
    replaced: Node | None = field(default=None, compare=False, repr=False)

    @property
    def where(self) -> str:
        """The user's line as `file:line`, or the empty string."""
        return f"{self.file}:{self.line}" if self.file else ""

    def rewritten(self, rule: str, replaced: int) -> Origin:
        """Return the origin of what `rule` puts in the place of node `replaced`."""
        return Origin(self.file, self.line, self.scope, self.gradient_of, (*self.history, (rule, replaced)))


_scope: ContextVar[str] = ContextVar("minigraph_scope", default="")
_inherited: ContextVar[Callable[[], Origin] | None] = ContextVar("minigraph_inherited_origin", default=None)


def current() -> Origin:
    """Return the origin for a node made now: the inherited one, else the user's line and the open scopes."""
    inherited = _inherited.get()
    if inherited is not None:
        return inherited()
    return _of_line(*user_frame(), _scope.get())


@lru_cache(maxsize=1024)
def _of_line(file: str, line: int, scope: str) -> Origin:
    """Return the origin that all nodes made by one line in one scope share."""
    return Origin(file, line, scope)


@contextlib.contextmanager
def scope(name: str) -> Iterator[None]:
    """Open a layer scope: nodes made inside are labelled `outer/name` and drawn in one cluster.

    >>> with scope("block1"), scope("conv"):
    ...     current().scope
    'block1/conv'
    """
    check_label(name)
    outer = _scope.get()
    token = _scope.set(f"{outer}/{name}" if outer else name)
    try:
        yield
    finally:
        _scope.reset(token)


_T = TypeVar("_T")


def inheriting(origin: Callable[[], Origin], make: Callable[[], _T]) -> _T:
    """Return `make()`, with all nodes made inside getting the origin that `origin()` returns.

    Only autodiff and the rewrite driver need it, so no author of an op or a rule can forget. The origin is a function,
    because most rules that are tried make no node.
    """
    token = _inherited.set(origin)
    try:
        return make()
    finally:
        _inherited.reset(token)
