"""Which rewrites may happen: by pass, by rule, by layer scope, and how many."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from minigraph.ir.node import Node

SCOPE = "scope:"


@dataclass(frozen=True)
class Selection:
    """Patterns of what may be rewritten: a pass's or a rule's name, or `scope:block1` for the nodes made in a layer.

    include: only these (none: everything). exclude: never these. `*` and `?` stand for what they do in file names; a
    scope includes the scopes inside it. limit: at most so many rewrites in a pass, the first ones, by which a broken
    one is found (as LLVM's -opt-bisect-limit does).

    >>> Selection(exclude=("add_*",)).allows("simplify", "add_zero", "block1")
    False
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    limit: int | None = None

    @property
    def restricts(self) -> bool:
        """Whether there is any rewrite that may not happen."""
        return self.limit is not None or bool(self.include or self.exclude)

    def allows_node(self, pass_: str, rule: str, node: Node) -> bool:
        """Tell whether a rule of a pass may rewrite a node."""
        return not (self.include or self.exclude) or self.allows(pass_, rule, node.origin.scope)

    def allows_scope(self, scope: str) -> bool:
        """Tell whether what was made in a layer scope may be changed, by whichever rule."""
        scopes = [p for p in self.include if p.startswith(SCOPE)]
        if scopes and not any(_holds(p, scope) for p in scopes):
            return False
        return not any(_holds(p, scope) for p in self.exclude)

    def allows(self, pass_: str, rule: str, scope: str) -> bool:
        """Tell whether a rule of a pass may rewrite what was made in a layer scope."""
        names = [p for p in self.include if not p.startswith(SCOPE)]
        if names and not any(_names(p, pass_, rule) for p in names):
            return False
        return self.allows_scope(scope) and not any(_names(p, pass_, rule) for p in self.exclude)


def _names(pattern: str, pass_: str, rule: str) -> bool:
    """Tell whether a pattern is one of names, and names this pass or rule."""
    names = (pass_, pass_.partition("(")[0], rule)  # "lower" is both of lower(training) and lower(inference)
    return not pattern.startswith(SCOPE) and any(fnmatchcase(name, pattern) for name in names)


def _holds(pattern: str, scope: str) -> bool:
    """Tell whether a pattern is one of scopes, and this scope lies in what it names."""
    wanted = pattern.removeprefix(SCOPE).replace("[", "[[]")  # a bracket is a bracket: scopes may hold some
    parts = scope.split("/")
    inside = any(fnmatchcase("/".join(parts[: i + 1]), wanted) for i in range(len(parts)))
    return pattern.startswith(SCOPE) and inside
