"""State: the values of variables, outside every graph, so that many programs share them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any

import numpy as np

from minigraph.errors import DataError, DTypeError, GraphError, ShapeError
from minigraph.ir.leaves import Variable
from minigraph.ir.node import Node
from minigraph.ir.types import known

Array = np.ndarray[Any, Any]


class State(MutableMapping[str, Array]):
    """Variable label → array. Programs are bound to the arrays, so assignment writes into the array that is there.

    >>> state = State({"w": np.zeros(2)})
    >>> array = state["w"]
    >>> state["w"] = [1, 2]
    >>> array
    array([1., 2.])
    """

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        self._arrays: dict[str, Array] = {}
        for name, value in (values or {}).items():
            self[name] = value

    @classmethod
    def initial(cls, variables: Iterable[Node], seed: int = 0) -> State:
        """Return first values for variables: the i-th draws from its own generator, made of (seed, i).

        An initialiser with a seed of its own uses that. Raises a GraphError for a variable without an initialiser.
        """
        state = cls()
        state.add(variables, seed)
        return state

    def add(self, variables: Iterable[Node], seed: int = 0) -> None:
        """Give those variables a first value that have none yet."""
        for index, node in enumerate(variables):
            if node.label not in self._arrays:
                self._arrays[node.label] = _first_value(node, np.random.SeedSequence([seed, index]))

    def copy(self) -> State:
        """Return an independent copy."""
        return State({name: array.copy() for name, array in self.items()})

    def __getitem__(self, name: str) -> Array:
        return self._arrays[name]

    def get(self, name: str, default: Any = None) -> Any:
        """Return the array of a variable, or `default`."""
        return self._arrays.get(name, default)

    def __setitem__(self, name: str, value: Any) -> None:
        old = self._arrays.get(name)
        if old is None:
            self._arrays[name] = np.array(value, order="C")
            return
        new = as_array(repr(name), value, str(old.dtype))
        if new.shape != old.shape:
            raise ShapeError(f"{name!r} has another shape", expected=old.shape, got=new.shape)
        old[...] = new

    def __delitem__(self, name: str) -> None:
        del self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        return f"<State: {len(self)} variables, {sum(a.nbytes for a in self._arrays.values())} bytes>"


def as_array(what: str, value: Any, dtype: str) -> Array:
    """Return a value as an array that can be copied into one of `dtype` without a surprise, or raise.

    Floats may lose digits, and integers become floats; fractions do not become integers, and integers must fit.
    """
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise DataError(f"{what} is not an array: {error}", expected=dtype) from None
    wanted = np.dtype(dtype)
    if array.dtype.kind in "iu" and wanted.kind in "iu" and array.size:
        info, low, high = np.iinfo(wanted), int(array.min()), int(array.max())
        if low < info.min or high > info.max:
            raise DataError(f"{what} holds integers that {dtype} cannot", expected=info, got=f"{low} … {high}")
        return array.astype(wanted, copy=False)
    if np.can_cast(array.dtype, wanted, "same_kind"):
        return array
    if array.dtype.kind in "iub" and wanted.kind != "b":
        return array.astype(wanted)
    raise DTypeError(f"{what} has the wrong dtype", expected=dtype, got=array.dtype)


def _first_value(node: Node, sequence: np.random.SeedSequence) -> Array:
    op = node.op
    assert isinstance(op, Variable)
    shape = tuple(known(s, f"the size of {op.label!r}") for s in op.type.shape)
    if op.init is None:
        raise GraphError(
            f"variable {op.label!r} has no first value",
            expected="init= at the variable, or a value in the state",
            where=node.origin.where,
        )
    if isinstance(op.init, (int, float)):
        return np.full(shape, op.init, op.type.dtype)
    seed = getattr(op.init, "seed", None)
    rng = np.random.Generator(np.random.PCG64(sequence if seed is None else np.random.SeedSequence(seed)))
    return np.asarray(op.init(shape, rng), op.type.dtype, order="C")
