"""State: the values of variables, outside every graph, so that many programs share them."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Collection, ItemsView, Iterable, Iterator, Mapping, MutableMapping, ValuesView
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from minigraph.backends.base import Backend
from minigraph.backends.dtypes import array_dtype
from minigraph.errors import ArgumentError, DataError, DTypeError, GraphError, ShapeError
from minigraph.ir.leaves import Variable
from minigraph.ir.node import Node
from minigraph.ir.types import known
from minigraph.runtime.residence import Residence

Array = np.ndarray[Any, Any]


class State(MutableMapping[str, Array]):
    """Variable label → array. Programs are bound to the arrays, so assignment writes into the array that is there.

    Programs of a backend with a device of its own have copies there, and change those alone. Whoever asks for a
    variable gets its latest numbers in the array that it has always had, and may write into it: the next step reads
    them. An array that was kept from before a step does not show the step's numbers until the state is asked again.

    >>> state = State({"w": np.zeros(2)})
    >>> array = state["w"]
    >>> state["w"] = [1, 2]
    >>> array
    array([1., 2.])
    """

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        self._setup()
        for name, value in (values or {}).items():
            self[name] = value

    def _setup(self) -> None:
        self._arrays: dict[str, Array] = {}
        self._unlisted: set[str] = set()
        # By the backend's identity, as long as a program uses it, or has left numbers there.
        self._residences: WeakValueDictionary[int, Residence] = WeakValueDictionary()
        self._newer: dict[str, Residence] = {}  # variables whose numbers count on a device alone
        # Grows with all that a program which is bound to the arrays, here or on a device, has to look at.
        self.changes = 0
        self.lock = threading.RLock()  # held by what reads or changes where a variable's numbers count

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
        with self.lock:
            self.fetch(self)
            return State({name: self._arrays[name] for name in self})

    def attach(self, arrays: Mapping[str, Array]) -> None:
        """Take over arrays as they are, for programs to read, without listing them: they are neither copied nor saved.

        `del` gives them up again. Raises an ArgumentError for the label of a variable that is there.

        >>> state = State()
        >>> state.attach({"data": np.ones(2)})
        >>> len(state), list(state), state["data"]
        (0, [], array([1., 1.]))
        """
        taken = self._arrays.keys() & arrays.keys()
        if taken:
            raise ArgumentError("the state has such variables", expected="labels of none", got=", ".join(sorted(taken)))
        self._arrays.update(arrays)
        self._unlisted.update(arrays)

    def lists(self, name: str) -> bool:
        """Tell whether a variable is one of those that are copied and saved."""
        return name not in self._unlisted

    def __getitem__(self, name: str) -> Array:
        array = self._arrays[name]
        if self._residences:
            self.bring((name,))
        return array

    def get(self, name: str, default: Any = None) -> Any:
        """Return the array of a variable, or `default`."""
        return self[name] if name in self._arrays else default

    def __setitem__(self, name: str, value: Any) -> None:
        old = self._arrays.get(name)
        if old is None:
            self._arrays[name] = np.array(value, order="C")
            return
        new = as_array(repr(name), value, str(old.dtype))
        if new.shape != old.shape:
            raise ShapeError(f"{name!r} has another shape", expected=old.shape, got=new.shape)
        with self.lock:
            self._newer.pop(name, None)
            self._counts_here((name,))
            old[...] = new

    def __delitem__(self, name: str) -> None:
        with self.lock:
            del self._arrays[name]
            self._unlisted.discard(name)
            self._newer.pop(name, None)
            for residence in list(self._residences.values()):
                residence.forget(name)
            self.changes += 1

    def __contains__(self, name: object) -> bool:
        return name in self._arrays

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._arrays if name not in self._unlisted)

    def __len__(self) -> int:
        return len(self._arrays) - len(self._unlisted)

    def __repr__(self) -> str:
        return f"<State: {len(self)} variables, {sum(self._arrays[name].nbytes for name in self)} bytes>"

    def items(self) -> ItemsView[str, Array]:
        """Return a view of labels and arrays, all of them fetched at once."""
        self.bring(list(self))
        return super().items()

    def values(self) -> ValuesView[Array]:
        """Return a view of the arrays, all of them fetched at once."""
        self.bring(list(self))
        return super().values()

    def __getstate__(self) -> dict[str, Any]:
        return {"arrays": dict(self.items())}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        self._setup()
        self._arrays.update(saved["arrays"])

    # --- where numbers count ----------------------------------------------------------------------------------------

    def on(self, backend: Backend) -> Residence:
        """Return the copies of variables that the programs of a backend with a device of its own share."""
        with self.lock:
            residence = self._residences.get(id(backend))
            if residence is None:
                residence = self._residences[id(backend)] = Residence(self, backend)
            return residence

    def peek(self, name: str) -> Array:
        """Return a variable's array in host memory as it is: its numbers may be older than those on a device."""
        return self._arrays[name]

    def bring(self, names: Collection[str]) -> list[Array]:
        """Return variables' arrays with the numbers that count, for the caller to read, and to write into."""
        with self.lock:
            self.fetch(names)
            self._counts_here(names)
            return [self._arrays[name] for name in names]

    def fetch(self, names: Iterable[str]) -> None:
        """Copy what counts on a device alone to host memory: then it counts in both places."""
        with self.lock:
            found: dict[Residence, list[str]] = defaultdict(list)
            for name in names if self._newer else ():
                if name in self._newer:
                    found[self._newer[name]].append(name)
            for residence, labels in found.items():
                residence.download(labels)
                for label in labels:
                    del self._newer[label]
                self.changes += 1

    def changes_on(self, residence: Residence, names: Collection[str]) -> None:
        """Note that from now on these variables' numbers count on that device alone."""
        fresh = [name for name in names if self._newer.get(name) is not residence]
        if fresh:
            self._newer.update(dict.fromkeys(fresh, residence))
            self._grow_old(fresh, [r for r in self._residences.values() if r is not residence])
            self.changes += 1

    def _counts_here(self, names: Collection[str]) -> None:
        """Note that these variables' numbers count in host memory alone."""
        if self._grow_old(names, list(self._residences.values())):
            self.changes += 1

    def _grow_old(self, names: Collection[str], residences: Iterable[Residence]) -> bool:
        """Note that what devices hold of these variables does not count; tell whether some of it did."""
        found = False
        for residence in residences:
            counted = [name for name in names if name in residence.arrays and name not in residence.old]
            residence.old.update(counted)
            found = found or bool(counted)
        return found


def as_array(what: str, value: Any, dtype: str) -> Array:
    """Return a value as an array that can be copied into one of `dtype` without a surprise, or raise.

    Floats may lose digits, and integers become floats; fractions do not become integers, and integers must fit.
    """
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise DataError(f"{what} is not an array: {error}", expected=dtype) from None
    wanted = array_dtype(dtype)
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
        return np.full(shape, op.init, array_dtype(op.type.dtype))
    seed = getattr(op.init, "seed", None)
    rng = np.random.Generator(np.random.PCG64(sequence if seed is None else np.random.SeedSequence(seed)))
    return np.asarray(op.init(shape, rng), array_dtype(op.type.dtype), order="C")
