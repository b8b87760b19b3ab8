"""Ops that hold other ops: a body of steps, run in order, whose results are the op's own."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from minigraph.errors import ArgumentError, MinigraphError, ShapeError
from minigraph.ir.leaves import Constant, Input, Item, Variable, item
from minigraph.ir.node import Node
from minigraph.ir.op import Op, attribute
from minigraph.ir.origin import Origin
from minigraph.ir.types import Dim, Size, TensorType, TupleType, Type, add_sizes, check_label, tensor
from minigraph.ops.random import Dropout
from minigraph.ops.reduction import sum_to
from minigraph.ops.shape import broadcast_to

_BRIEF = 200  # characters of what an error shows


@attribute("step")
@dataclass(frozen=True)
class Step:
    """One op of a region. `inputs` below the number of the region's operands are those; the rest are earlier steps."""

    op: Op
    inputs: tuple[int, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.op, Op) or isinstance(self.op, (Input, Variable, Region)):
            raise ArgumentError(
                "not an op for the inside of a region",
                got=_brief(self.op),
                hint="inputs and variables are its operands",
            )
        if not _are_numbers(self.inputs, 0):
            raise ArgumentError("bad inputs of a step", expected="numbers ≥ 0", got=_brief(self.inputs))


def _are_numbers(values: Any, least: int) -> bool:
    return isinstance(values, tuple) and not [v for v in values if type(v) is not int or v < least]


def _brief(value: object) -> str:
    """Return the beginning of what may be a body of ten thousand steps, or the bytes of a constant."""
    text = repr(value)
    return text if len(text) <= _BRIEF else f"{text[:_BRIEF]}…"


@dataclass(frozen=True)
class Region(Op):
    """Base of ops with a body: the same numbers as its steps one by one."""

    body: tuple[Step, ...] = ()

    def check(self, operands: int) -> None:
        """Raise a ShapeError unless the body is made of steps; an op with rules of its own has more to say."""
        if not isinstance(self.body, tuple) or not self.body or not all(isinstance(s, Step) for s in self.body):
            raise ShapeError(f"a {self.name} needs steps", expected="step(…), …", got=_brief(self.body))

    def types(self, operands: Sequence[Type]) -> list[Type]:
        """Return the types of the operands and of all steps."""
        self.check(len(operands))
        known: list[Type] = list(operands)
        for place, step in enumerate(self.body):
            if max(step.inputs, default=-1) >= len(known):
                raise ArgumentError("a step reads what comes later", expected=f"below {len(known)}", got=_brief(step))
            known.append(_type_of(place, step, [known[i] for i in step.inputs]))
        return known

    def places(self, operands: int) -> tuple[int, ...]:
        """Return where among operands and steps the results are: the last step, unless an op says otherwise."""
        return (operands + len(self.body) - 1,)

    def vjp(self, node: Node, g: Any) -> tuple[Node | None, ...]:
        """The chain rule through the steps, backwards."""
        values = [*node.inputs, *steps_of(node)]
        given = g if isinstance(g, tuple) else (g,)
        adjoints: list[Any] = [None] * len(values)
        for place, adjoint in zip(self.places(len(node.inputs)), given, strict=True):
            adjoints[place] = _sum(adjoints[place], adjoint)
        for i in reversed(range(len(node.inputs), len(values))):
            value, places, adjoint = values[i], self.body[i - len(node.inputs)].inputs, adjoints[i]
            if adjoint is None or not places:
                continue
            if isinstance(value.op, Item):
                slots = adjoints[places[0]] or (None,) * len(value.inputs[0].type.items)  # type: ignore[union-attr]
                index = value.op.index
                adjoints[places[0]] = (*slots[:index], _sum(slots[index], adjoint), *slots[index + 1 :])
                continue
            if isinstance(adjoint, Node) and adjoint.shape != value.shape:  # each term was narrower
                adjoint = broadcast_to(adjoint, value.shape)
            for place, term in zip(places, value.op.vjp(value, adjoint), strict=True):
                if term is not None:
                    adjoints[place] = _sum(adjoints[place], sum_to(term, values[place].shape))
        return tuple(adjoints[: len(node.inputs)])

    def flops(self, node: Node) -> Size:
        """The sum over the steps."""
        each = [step.op.flops(step) for step in steps_of(node, node.origin)]
        return functools.reduce(add_sizes, each)

    def bind(self, sizes: Any) -> Op:
        """Return the region with the symbolic sizes in its steps' attributes replaced."""
        body = tuple(Step(op, step.inputs) for step in self.body for op in [step.op.bind(sizes)])
        same = all(new.op is old.op for new, old in zip(body, self.body, strict=True))
        bound = super().bind(sizes)
        return bound if same else replace(bound, body=body)  # type: ignore[type-var]


def _type_of(place: int, step: Step, operands: Sequence[Type]) -> Type:
    """Return a step's type; what its op refuses is said with the step's place in the body."""
    try:
        return step.op.infer(*operands)
    except MinigraphError as error:
        summary = f"step {place}, {step.op.name}: {error.summary}"
        raise type(error)(summary, expected=error.expected, got=error.got, hint=error.hint) from None
    except TypeError as error:
        if "positional argument" not in str(error):
            raise
        summary = f"step {place}, {step.op.name}: wrong number of operands"
        raise ArgumentError(summary, got=f"{len(operands)} operands") from None


def _sum(before: Node | None, term: Node | None) -> Node | None:
    return term if before is None else before if term is None else before + term


def steps_of(node: Node, origin: Origin | None = None) -> list[Node]:
    """Return the steps of a region as ordinary nodes over its operands."""
    op = node.op
    assert isinstance(op, Region)
    values = list(node.inputs)
    for step in op.body:
        values.append(Node(step.op, tuple(values[i] for i in step.inputs), origin=origin))
    return values[len(node.inputs) :]


def inline(node: Node) -> Node:
    """Return what a region with one result computes, as ordinary nodes.

    >>> from minigraph.ir import variable
    >>> from minigraph.ops.activations import Relu
    >>> from minigraph.ops.fused import Fused
    >>> region = Fused((Step(Relu(), (0,)), Step(Relu(), (1,))))
    >>> inline(Node(region, (variable((2,)),)))
    <relu : float32[2]>
    """
    return inlined_results(node)[0]


def inlined_results(node: Node) -> list[Node]:
    """Return what a region computes, as ordinary nodes, one for each of its results."""
    op = node.op
    assert isinstance(op, Region)
    values = [*node.inputs, *steps_of(node)]
    return [values[place] for place in op.places(len(node.inputs))]


@dataclass(frozen=True)
class Function(Region, name="function"):
    """Several ops under one name, as a model file had them: they came as one node, and leave as one.

    `label` is the name, `attributes` are its own attributes as pairs (name, value). `slots` says which operand stands
    at which place of the named op, −1 for one that is left out. `results` are the places of the results among operands
    and steps; none given means the last step. Passes leave the inside alone; programs inline it before anything else.
    Ops whose mode is open cannot be inside: lowering would not find them.
    """

    label: str = ""
    attributes: tuple[tuple[str, Any], ...] = ()
    slots: tuple[int, ...] = ()
    results: tuple[int, ...] = ()
    category = "function"

    def __post_init__(self) -> None:
        check_label(self.label)
        pairs = self.attributes if isinstance(self.attributes, tuple) else (None,)
        if not all(isinstance(p, tuple) and len(p) == 2 and isinstance(p[0], str) and _is_plain(p) for p in pairs):
            raise ArgumentError(
                "bad attributes of a function",
                expected="pairs (name, value): none, numbers, printable strings, sizes, constants, tuples of such",
                got=_brief(self.attributes),
            )
        for what, places, least in (("slots", self.slots, -1), ("results", self.results, 0)):
            if not _are_numbers(places, least):
                raise ArgumentError(f"bad {what} of a function", expected=f"numbers ≥ {least}", got=_brief(places))

    def places(self, operands: int) -> tuple[int, ...]:
        """Return where the results are."""
        return self.results or super().places(operands)

    def infer(self, *operands: Any) -> Type:
        """The type of the one result, or a tuple's of several."""
        types = self.types([tensor(operand, "an operand of a function") for operand in operands])
        for what, places, count in (("result", self.results, len(types)), ("slot", self.slots, len(operands))):
            if any(place >= count for place in places):
                raise ArgumentError(f"a {what} of nothing", expected=f"below {count}", got=_brief(places))
        for place, step in enumerate(self.body):
            if isinstance(step.op, Dropout) or getattr(step.op, "moving", None) is not None:
                raise ArgumentError(
                    "the mode of an op inside of a function is open",
                    expected="ops that are the same in training and in inference",
                    got=f"{step.op.name} as step {place}",
                    hint="lower the graph first, or leave the op outside",
                )
        results = tuple(tensor(types[place]) for place in self.places(len(operands)))
        return results[0] if len(results) == 1 else TupleType(results)


def _is_plain(value: Any) -> bool:
    """Tell whether a graph's text can hold a value."""
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    if isinstance(value, str):
        return value.isprintable()
    if isinstance(value, int):
        return -(2**63) <= value < 2**64
    return value is None or isinstance(value, (float, Dim, Constant))


def function(
    label: str,
    operands: Sequence[Node],
    results: Sequence[Node],
    attributes: Sequence[tuple[str, Any]] = (),
    slots: Sequence[int] = (),
) -> list[Node]:
    """Return `results`, which were computed from `operands`, as the results of one node.

    >>> from minigraph.ir import variable
    >>> from minigraph.ops.elementwise import neg
    >>> x = variable((2,))
    >>> function("Swap", [x], [neg(neg(x))])
    [<Swap : float32[2]>]
    """
    place: dict[Node, int] = {}
    for i, operand in enumerate(operands):
        place.setdefault(operand, i)
    steps: list[Step] = []
    for node in between(results, set(place)):
        if node not in place:
            place[node] = len(operands) + len(steps)
            steps.append(Step(node.op, tuple(place[i] for i in node.inputs)))
    op = Function(tuple(steps), label, tuple(attributes), tuple(slots), tuple(place[node] for node in results))
    made = Node(op, operands)
    return [made] if isinstance(made.type, TensorType) else [item(made, i) for i in range(len(results))]


def between(results: Sequence[Node], operands: set[Node]) -> list[Node]:
    """Return the nodes from the operands, exclusive, to the results, in order; depth is no limit.

    >>> from minigraph.ir import variable
    >>> x = variable((2,), name="x")
    >>> between([-(x * x)], {x})
    [<mul : float32[2]>, <neg : float32[2]>]
    """
    order: dict[Node, None] = {}
    stack = [(node, False) for node in reversed(results)]
    while stack:
        node, ready = stack.pop()
        if node in order or node in operands:
            continue
        if ready:
            order[node] = None
        else:
            stack += [(node, True), *((i, False) for i in reversed(node.inputs))]
    return list(order)
