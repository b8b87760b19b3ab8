"""Mixed precision: products and activations in half, weights, statistics, losses and updates in float32.

Micikevicius et al., "Mixed Precision Training", 2018. All there is to it are casts, as nodes: see
docs/mixed-precision.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from minigraph.errors import ArgumentError
from minigraph.ir.encoding import unpack
from minigraph.ir.graph import Graph, same_or_rebuilt
from minigraph.ir.leaves import Constant, Item
from minigraph.ir.node import Node
from minigraph.ir.op import Op
from minigraph.ir.types import HALF, TensorType
from minigraph.ops import activations, elementwise, indexing, loss, pool, real, reduction, shape
from minigraph.ops.conv import Convolution
from minigraph.ops.linalg import MatMul
from minigraph.ops.norm import BatchNorm, Moments
from minigraph.ops.region import Region
from minigraph.passes.driver import Answer, Rewriter
from minigraph.passes.trace import Refusal, Trace

WIDE = "float32"
# What takes half operands whatever they come from: here lies the time that is saved.
PRODUCTS = (Convolution, MatMul)
# What follows a half operand into half: it moves elements, chooses among them, or rounds each result once.
FOLLOWERS = (
    elementwise.Add, elementwise.Sub, elementwise.Mul, elementwise.Div, elementwise.Maximum, elementwise.Minimum,
    elementwise.Neg, elementwise.Abs, elementwise.Sign, elementwise.Floor, elementwise.Clip, elementwise.Where,
    activations.Relu, activations.LeakyRelu, activations.Elu, activations.Sigmoid, activations.Tanh,
    activations.Softplus, activations.Silu, activations.Gelu, activations.HardSigmoid, activations.HardSwish,
    shape.Reshape, shape.Transpose, shape.BroadcastTo, shape.Concat, shape.After, indexing.Pad, indexing.Slice,
    indexing.SliceAdjoint, indexing.Gather, pool.Pool, reduction.Max, reduction.Min,
)  # fmt: skip
# Why others are computed in float32, all their operands cast up.
REASONS: tuple[tuple[type[Op] | tuple[type[Op], ...], str], ...] = (
    (Moments, "statistics are taken in float32"),
    (BatchNorm, "its image is not half"),
    ((reduction.Sum, reduction.Mean, indexing.GatherAdjoint), "sums of many terms are taken in float32"),
    (
        (real.FloatUnary, real.Pow, reduction.LogSumExp, loss.Softmax, loss.LogSoftmax, loss.SoftmaxCrossEntropy),
        "powers, exponentials and logarithms are taken in float32",
    ),
    (elementwise.Comparison, "rounding an operand could change what is decided"),
    (Region, "it is one op of several: run the pass before they are joined"),
)
# Scopes whose nodes stay in float32: a model makes its loss and its metrics in them.
JUDGES = ("loss", "metrics")


@dataclass(frozen=True)
class MixedPrecision:
    """Convolutions and matrix products take and give half precision, and what reads a half value follows it.

    1. `multiply_in_half`: f(x, y) = cast(f(cast(x), cast(y))) for convolutions and matrix products.
    2. `follow_in_half`: f(cast(x), y) = cast(f(x, cast(y))) for elementwise ops, poolings, and what moves elements,
       where x is half; a comparison only where nothing is rounded by it.
    3. `store_in_half`: a batch norm of a half image is computed in float32, and its result is rounded to half.
    4. Everything else stays float32, and a refusal says why: statistics, sums, softmax and losses; so do variables,
       outputs and updates. A value is rounded by one cast, whoever reads it.

    dtype: "float16" or "bfloat16". The graph is lowered, its gradients are not taken yet.
    """

    dtype: str

    def __post_init__(self) -> None:
        if self.dtype not in HALF:
            raise ArgumentError("not a half precision", expected=" or ".join(HALF), got=repr(self.dtype))

    @property
    def name(self) -> str:
        """The name in a pipeline: `mixed_precision(bfloat16)`."""
        return f"mixed_precision({self.dtype})"

    @property
    def arguments(self) -> str:
        """The arguments in a pipeline's text."""
        return self.dtype

    def __call__(self, graph: Graph, trace: Trace) -> Graph:
        """Return the graph with casts in it."""
        return graph.rebuild(_Mixing(self.dtype, Rewriter(trace, self.name), graph).make)


def mixed_precision(graph: Graph, dtype: str) -> Graph:
    """Return a lowered graph in mixed precision, "float16" or "bfloat16"; inputs, outputs and variables as they were.

    >>> from minigraph.ir import variable
    >>> x, w = variable((2, 3), name="x"), variable((3, 3), name="w")
    >>> print(mixed_precision(Graph({"y": x @ w}), "bfloat16"))
    graph {
      %0 = variable("x") : float32[2,3]
      %1 = cast(%0, dtype="bfloat16") : bfloat16[2,3]
      %2 = variable("w") : float32[3,3]
      %3 = cast(%2, dtype="bfloat16") : bfloat16[3,3]
      %4 = matmul(%1, %3) : bfloat16[2,3]
      %5 = cast(%4) : float32[2,3]
      return y=%5
    }
    """
    return MixedPrecision(dtype)(graph, Trace())


class _Mixing:
    """One run. Each float32 node may have two forms in half: what it was cast up from, and what it is rounded to."""

    def __init__(self, dtype: str, rewriter: Rewriter, graph: Graph) -> None:
        self.dtype = dtype
        self.rewriter = rewriter
        self.graph = graph
        self.exact: dict[Node, Node] = {}  # cast(x) → x, which is half
        self.rounded: dict[Node, Node] = {}  # x → its cast to half
        self.pieces: dict[Node, Node] = {}  # a split → the split of the same values in half

    def make(self, node: Node, inputs: tuple[Node, ...]) -> Node:
        """Return what stands in the place of a node."""
        new = same_or_rebuilt(node, inputs)
        if isinstance(new.op, shape.Cast):
            return self._cast(new)
        if isinstance(new.op, PRODUCTS) and new.dtype == WIDE and not _is_judge(new):
            return self._replaced("multiply_in_half", new, self._multiplied)
        if isinstance(new.op, BatchNorm) and new.inputs[0] in self.exact:
            return new if self._is_stored(node) else self._replaced("store_in_half", new, self._stored)
        return self._replaced("follow_in_half", new, self._following) if self._reads_half(new) else new

    def _cast(self, node: Node) -> Node:
        """Remember a cast that is there; one that only undoes another is what it undoes."""
        (x,) = node.inputs
        if node.dtype == WIDE and isinstance(x.type, TensorType) and x.dtype == self.dtype:
            self.exact[node] = x
        elif node.dtype == self.dtype and x.dtype == WIDE:
            known = self.exact[x] if x in self.exact else self.rounded.setdefault(x, node)
            return self.rewriter.replace("cast_once", node, lambda: known)
        return node

    def _replaced(self, rule: str, node: Node, make: Callable[[Node], Answer]) -> Node:
        """Return cast(f(…)) for f in half, and remember what is cast up; the node itself where the rule refuses."""
        new = self.rewriter.replace(rule, node, lambda: make(node))
        if new is not node and isinstance(new.op, shape.Cast):
            self.exact[new] = new.inputs[0]
        return new

    # --- the rules ------------------------------------------------------------------------------------------------

    def _multiplied(self, node: Node) -> Node:
        return _wide(Node(node.op, [self._half(x) for x in node.inputs]))

    def _stored(self, node: Node) -> Node:
        return _wide(self._half(node))

    def _following(self, node: Node) -> Node | Refusal:
        if _is_judge(node):
            return Refusal("losses and metrics are computed in float32", (node,))
        if isinstance(node.op, Item):
            return self._piece(node)
        if isinstance(node.op, elementwise.Comparison):
            return self._compared(node)
        if not isinstance(node.op, FOLLOWERS):
            return Refusal(_reason(node.op), (node,))
        strange = next(filter(None, map(self._misfit, _numbers(node))), None)
        if strange is not None:
            return Refusal(strange, (node,))
        return _wide(Node(node.op, [self._half(x) if _is_wide(x) else x for x in node.inputs]))

    def _piece(self, node: Node) -> Node:
        """item(split(cast(x)), i) = cast(item(split(x), i))."""
        (split,) = node.inputs
        if split not in self.pieces:
            self.pieces[split] = Node(split.op, [self.exact[split.inputs[0]]])
        return _wide(Node(node.op, (self.pieces[split],)))

    def _compared(self, node: Node) -> Node | Refusal:
        """cast(x) < cast(y) is x < y, and so is x < c where the constant c is a number of the dtype."""
        for x in node.inputs:
            splat = x.op.splat if isinstance(x.op, Constant) else None
            if x not in self.exact and (splat is None or self._nearest(splat) != splat):
                return Refusal(_reason(node.op), (node,))
        return Node(node.op, [self._half(x) for x in node.inputs])

    # --- values in half -------------------------------------------------------------------------------------------

    def _half(self, x: Node) -> Node:
        """Return a float32 value in half: what it was cast up from, or else its one cast."""
        if x in self.exact:
            return self.exact[x]
        if x not in self.rounded:
            self.rounded[x] = Node(shape.Cast(self.dtype), (x,))
        return self.rounded[x]

    def _nearest(self, number: float) -> float | None:
        """Return the number of the dtype that is nearest; None where there is no room for it."""
        try:
            (stored,) = unpack(self.dtype, Constant.of(float(number), self.dtype).data)
        except ArgumentError:
            return None
        return float(stored)

    def _misfit(self, number: float) -> str | None:
        """Return why an op with this constant stays in float32: half has no room for it, or rounds it to 0."""
        stored = self._nearest(number)
        if stored is None:
            return f"{self.dtype} has no room for the constant {number:g}"
        return f"the constant {number:g} is 0 in {self.dtype}" if stored == 0 != number else None

    # --- what is asked --------------------------------------------------------------------------------------------

    def _reads_half(self, node: Node) -> bool:
        """Tell whether an operand, or what it is a piece of, comes from half, and the node gives no whole tuple."""
        if isinstance(node.op, Item):
            (source,) = node.inputs
            return isinstance(source.op, shape.Split) and source.inputs[0] in self.exact
        if isinstance(node.op, (shape.Split, shape.CountOf)):
            return False
        return any(x in self.exact for x in node.inputs)

    def _is_stored(self, node: Node) -> bool:
        """Tell whether nothing but casts to half reads a node of the graph."""
        readers = self.graph.users[node]
        casts = all(isinstance(r.op, shape.Cast) and r.op.dtype == self.dtype for r in readers)
        return casts and self.graph.uses[node] == len(readers)


def _is_judge(node: Node) -> bool:
    return node.origin.scope.partition("/")[0] in JUDGES


def _wide(node: Node) -> Node:
    return Node(shape.Cast(WIDE), (node,))


def _is_wide(node: Node) -> bool:
    return isinstance(node.type, TensorType) and node.type.dtype == WIDE


def _numbers(node: Node) -> Iterator[float]:
    """Yield the constants, with one value everywhere, that an op reads."""
    if isinstance(node.op, indexing.Pad):
        yield node.op.value
    for x in node.inputs:
        if isinstance(x.op, Constant) and _is_wide(x) and x.op.splat is not None:
            yield x.op.splat


def _reason(op: Op) -> str:
    found = [reason for kinds, reason in REASONS if isinstance(op, kinds)]
    return found[0] if found else f"there is no rule for {op.name} in half precision"
