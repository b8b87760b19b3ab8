"""Kernels of elementwise ops. Almost all are one ufunc call with `out=`, so they may overwrite an operand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from minigraph.backends.numpy import threads
from minigraph.backends.numpy.call import Array, Call, Kernel, Steps, nbytes_of, shape_of
from minigraph.backends.numpy.registry import KERNELS, Entry, kernel
from minigraph.ir.node import Node
from minigraph.ir.op import Op
from minigraph.ops import activations, elementwise, real
from minigraph.ops.shape import Cast

# A row that NumPy's inner loop runs over should be at least this long, or the loop around it costs more.
WIDE = 1024
_ZEROS = np.zeros(8 * WIDE, np.uint8)  # a row of any dtype


def widen(shape: tuple[int, ...], channels: int) -> tuple[int, int] | None:
    """Return (rows, repeats): how to see an array of small vectors as rows of `repeats` vectors, or None.

    (M, C) op (C,) runs inner loops of C elements; (M/R, R·C) op (R·C,), the vector tiled, runs R times longer ones.
    """
    vectors = math.prod(shape) // channels if channels else 0
    if channels >= WIDE or vectors < 64:
        return None
    repeats = 1
    while repeats * channels < WIDE and vectors % (repeats * 2) == 0:
        repeats *= 2
    return (vectors // repeats, repeats) if repeats > 1 else None


def _is_channel_vector(vector: tuple[int, ...], full: tuple[int, ...]) -> bool:
    return len(full) > 1 and bool(vector) and vector[-1] == full[-1] > 1 and math.prod(vector) == vector[-1]


def _binary_workspace(node: Node) -> int:
    full = shape_of(node.type)
    for operand in node.inputs:
        if _is_channel_vector(shape_of(operand.type), full):
            wide = widen(full, full[-1])
            return nbytes_of((wide[1] * full[-1],), operand.dtype) if wide else 0
    return 0


def _binary(ufunc: np.ufunc) -> Callable[[Call], Kernel]:
    def make(call: Call) -> Kernel:
        operands, out = list(call.inputs), call.output
        for place, vector in enumerate(call.inputs):
            full = operands[1 - place]
            wide = widen(out.shape, vector.size) if _is_channel_vector(vector.shape, out.shape) else None
            if wide is None or full.shape != out.shape or not full.flags.c_contiguous:
                continue
            (tiles,) = call.scratch((wide[1], vector.size), dtype=vector.dtype)
            operands[place], operands[1 - place] = tiles.reshape(-1), full.reshape(wide[0], -1)
            repeat = partial(np.copyto, tiles, vector.reshape(-1))
            return Steps([repeat, _shared(ufunc, operands, out.reshape(wide[0], -1), call.threads)])
        return _shared(ufunc, operands, out, call.threads)

    return make


def _shared(ufunc: np.ufunc, operands: Sequence[Array], out: Array, threads_: int) -> Kernel:
    """Return the kernel of a ufunc; workers share the rows of large arrays."""
    if out.ndim == 0 or out.nbytes < threads.PARALLEL_BYTES:
        return partial(ufunc, *operands, out=out)
    parts = []
    for a, b in threads.ranges(len(out), threads.available()):
        rows = (x[a:b] if x.ndim == out.ndim and len(x) == len(out) else x for x in operands)
        parts.append([partial(ufunc, *rows, out=out[a:b])])
    return threads.spread(parts, threads_)


def _unary(ufunc: np.ufunc) -> Callable[[Call], Kernel]:
    return lambda call: partial(ufunc, call.inputs[0], out=call.output)


BINARY: dict[type[Op], np.ufunc] = {
    elementwise.Add: np.add,
    elementwise.Sub: np.subtract,
    elementwise.Mul: np.multiply,
    elementwise.Div: np.true_divide,
    real.Pow: np.power,
    elementwise.Maximum: np.maximum,
    elementwise.Minimum: np.minimum,
    elementwise.Less: np.less,
    elementwise.LessEqual: np.less_equal,
    elementwise.Greater: np.greater,
    elementwise.GreaterEqual: np.greater_equal,
    elementwise.Equal: np.equal,
    elementwise.NotEqual: np.not_equal,
}
UNARY: dict[type[Op], np.ufunc] = {
    elementwise.Neg: np.negative,
    elementwise.Abs: np.absolute,
    elementwise.Sign: np.sign,
    elementwise.Floor: np.floor,
    real.Exp: np.exp,
    real.Log: np.log,
    real.Sqrt: np.sqrt,
    real.Sin: np.sin,
    real.Cos: np.cos,
    activations.Tanh: np.tanh,
}
for _op, _ufunc in BINARY.items():
    KERNELS[_op] = Entry(_binary(_ufunc), (0, 1), _binary_workspace)
for _op, _ufunc in UNARY.items():
    KERNELS[_op] = Entry(_unary(_ufunc), (0,))


def _one_scratch(node: Node) -> int:
    """Workspace: one array like the result."""
    return nbytes_of(shape_of(node.type), node.dtype)


@kernel(real.Rsqrt, inplace=(0,))
def _rsqrt(call: Call) -> Kernel:
    x, out = call.inputs[0], call.output

    def run() -> None:
        np.sqrt(x, out=out)
        np.reciprocal(out, out=out)

    return run


@kernel(elementwise.Clip, inplace=(0,))
def _clip(call: Call) -> Kernel:
    x, out, op = call.inputs[0], call.output, call.op
    if x.dtype.kind in "iu":  # the integers within the limits
        info = np.iinfo(x.dtype)
        low = math.ceil(max(op.minimum, info.min))
        high = math.floor(min(op.maximum, info.max))
        return partial(np.clip, x, x.dtype.type(low), x.dtype.type(high), out=out)
    limits = [
        None if math.isinf(v) and v == edge else v for v, edge in ((op.minimum, -math.inf), (op.maximum, math.inf))
    ]
    if limits == [None, None]:
        return lambda: np.copyto(out, x)
    low, high = (None if v is None else np.asarray(v, x.dtype) for v in limits)
    return lambda: np.clip(x, low, high, out=out)


def mask_bits(condition: Array, out: Array) -> None:
    """Write all bits set where a condition holds, and none elsewhere, into an integer array."""
    np.negative(condition.view(np.int8), out=out, casting="unsafe")


def as_bits(array: Array) -> Array:
    """Return an array's elements as integers of the same size."""
    return array.view(f"i{array.itemsize}")


def _is_zero(array: Array) -> bool:
    """Tell whether an array is a constant whose bits are all zero; constants alone are read-only."""
    return array.size == 1 and not array.flags.writeable and not as_bits(array).any()


def _where_workspace(node: Node) -> int:
    return nbytes_of(shape_of(node.inputs[0].type), node.dtype)


@kernel(elementwise.Where, inplace=(1,), workspace=_where_workspace, any_dtype=True)
def _where(call: Call) -> Kernel:
    """Choose by bits: out = y ^ ((x ^ y) & mask). A masked copy branches on each element and takes 20 times as long."""
    condition, x, y = call.inputs
    out, left, right = as_bits(call.output), as_bits(x), as_bits(y)
    (mask,) = call.scratch(condition.shape, dtype=out.dtype)
    if _is_zero(y) and condition.shape == out.shape:
        spread = [] if x.shape == out.shape else [partial(np.copyto, out, left)]
        return Steps(
            [
                *spread,
                partial(np.negative, condition.view(np.int8), out=mask, casting="unsafe"),
                partial(np.bitwise_and, out if spread else left, mask, out=out),
            ]
        )
    if x.ctypes.data == y.ctypes.data and x.shape == y.shape:  # one array: it may be overwritten while it is read
        return lambda: np.copyto(out, left)

    def choose() -> None:
        mask_bits(condition, mask)
        np.bitwise_xor(left, right, out=out)
        np.bitwise_and(out, mask, out=out)
        np.bitwise_xor(out, right, out=out)

    return choose


@kernel(Cast, any_dtype=True)
def _cast(call: Call) -> Kernel:
    x, out = call.inputs[0], call.output
    return lambda: np.copyto(out, x, casting="unsafe")


# W. J. Cody, "Rational Chebyshev approximations for the error function", Math. Comp. 23 (1969): NumPy has no erf, and
# the C library's, called for each element, is exact and far too slow for a batch.
@kernel(real.Erf, inplace=(0,))
def _erf(call: Call) -> Kernel:
    x, out = call.inputs[0], call.output
    return lambda: np.copyto(out, erf(x), casting="same_kind")


def erf(x: Array) -> Array:
    """Return the error function of each element, to within some units in the last place of float64.

    >>> float(erf(np.array(0.5))).__round__(12)
    0.520499877813
    """
    values = np.asarray(x, np.float64)
    size = np.abs(values)
    result = np.empty_like(values)
    small, middle = size <= 0.5, (size > 0.5) & (size <= 4.0)
    large = size > 4.0
    z = values[small] ** 2
    result[small] = values[small] * _ratio(z, _SMALL_P, _SMALL_Q)
    m = size[middle]
    result[middle] = np.copysign(1.0 - np.exp(-m * m) * _ratio(m, _MIDDLE_P, _MIDDLE_Q), values[middle])
    big = np.minimum(size[large], 27.0)  # beyond, 1 − erf underflows
    z = 1.0 / (big * big)
    tail = np.exp(-big * big) / big * (1.0 / math.sqrt(math.pi) + z * _ratio(z, _LARGE_P, _LARGE_Q))
    result[large] = np.copysign(1.0 - tail, values[large])
    result[np.isnan(values)] = np.nan
    return result


def _ratio(z: Array, numerator: tuple[float, ...], denominator: tuple[float, ...]) -> Array:
    """Return the quotient of two polynomials, coefficients from the constant term up."""
    result: Array = np.polynomial.polynomial.polyval(z, numerator) / np.polynomial.polynomial.polyval(z, denominator)
    return result


_SMALL_P = (3.209377589138469472562e3, 3.774852376853020208137e2, 1.138641541510501556495e2, 3.161123743870565596947e0,
            1.857777061846031526730e-1)  # fmt: skip
_SMALL_Q = (2.844236833439170622273e3, 1.282616526077372275645e3, 2.440246379344441733056e2, 2.360129095234412093499e1,
            1.0)  # fmt: skip
_MIDDLE_P = (1.23033935479799725272e3, 2.05107837782607146532e3, 1.71204761263407058314e3, 8.81952221241769090411e2,
             2.98635138197400131132e2, 6.61191906371416294775e1, 8.88314979438837594118e0, 5.64188496988670089180e-1,
             2.15311535474403846343e-8)  # fmt: skip
_MIDDLE_Q = (1.23033935480374942043e3, 3.43936767414372163696e3, 4.36261909014324715820e3, 3.29079923573345962678e3,
             1.62138957456669018874e3, 5.37181101862009857509e2, 1.17693950891312499305e2, 1.57449261107098347253e1,
             1.0)  # fmt: skip
_LARGE_P = (-6.58749161529837803157e-4, -1.60837851487422766278e-2, -1.25781726111229246204e-1,
            -3.60344899949804439429e-1, -3.05326634961232344035e-1, -1.63153871373020978498e-2)  # fmt: skip
_LARGE_Q = (2.33520497626869185443e-3, 6.05183413124413191178e-2, 5.27905102951428412248e-1, 1.87295284992346725209e0,
            2.56852019228982242072e0, 1.0)  # fmt: skip


@kernel(activations.Relu, inplace=(0,))
def _relu(call: Call) -> Kernel:
    """The larger of x and a row of zeros: NumPy compares two arrays 3 times as fast as an array and a number."""
    x, out = call.inputs[0], call.output
    if x.size % WIDE == 0 and x.flags.c_contiguous and out.flags.c_contiguous:
        x, out = x.reshape(-1, WIDE), out.reshape(-1, WIDE)
    width = x.shape[-1] if x.ndim else 1
    zero = x.dtype.type(0) if width > WIDE else _ZEROS.view(x.dtype)[:width]
    return partial(np.maximum, x, zero if x.ndim else zero[0], out=out)


@kernel(activations.LeakyRelu, workspace=_one_scratch)
def _leaky_relu(call: Call) -> Kernel:
    x, out, alpha = call.inputs[0], call.output, call.inputs[0].dtype.type(call.op.alpha)
    (t,) = call.scratch(x.shape)
    zero = x.dtype.type(0)

    def run() -> None:
        # The two sides apart, so that α = 0 and x = ∞ do not meet.
        np.minimum(x, zero, out=t)
        np.multiply(t, alpha, out=t)
        np.maximum(x, zero, out=out)
        np.add(out, t, out=out)

    return run


@kernel(activations.Elu, workspace=_one_scratch)
def _elu(call: Call) -> Kernel:
    x, out, alpha = call.inputs[0], call.output, call.inputs[0].dtype.type(call.op.alpha)
    (t,) = call.scratch(x.shape)
    zero = x.dtype.type(0)

    def run() -> None:
        np.minimum(x, zero, out=t)
        np.expm1(t, out=t)
        np.multiply(t, alpha, out=t)
        np.maximum(x, zero, out=out)
        np.add(out, t, out=out)

    return run


def _sigmoid_into(x: Array, out: Array, t: Array) -> None:
    """With e = exp(−|x|): 1/(1 + e) for x ≥ 0, e/(1 + e) below. Never overflows; small results keep their digits."""
    one = x.dtype.type(1)
    np.absolute(x, out=t)
    np.negative(t, out=t)
    np.exp(t, out=t)
    np.add(t, one, out=out)
    np.copyto(t, one, where=x >= 0)
    np.divide(t, out, out=out)


@kernel(activations.Sigmoid, workspace=_one_scratch)
def _sigmoid(call: Call) -> Kernel:
    return partial(_sigmoid_into, call.inputs[0], call.output, call.scratch(call.inputs[0].shape)[0])


@kernel(activations.Silu, workspace=_one_scratch)
def _silu(call: Call) -> Kernel:
    x, out = call.inputs[0], call.output
    (t,) = call.scratch(x.shape)

    def run() -> None:
        _sigmoid_into(x, out, t)
        np.multiply(x, out, out=out)

    return run


@kernel(activations.Softplus, inplace=(0,))
def _softplus(call: Call) -> Kernel:
    x, out = call.inputs[0], call.output
    return partial(np.logaddexp, x, x.dtype.type(0), out=out)


@kernel(activations.Gelu, workspace=_one_scratch)
def _gelu(call: Call) -> Kernel:
    x, out, kind = call.inputs[0], call.output, call.inputs[0].dtype.type
    (t,) = call.scratch(x.shape)
    half, one = kind(0.5), kind(1)

    def exact() -> None:
        np.copyto(t, erf(x * kind(math.sqrt(0.5))), casting="same_kind")
        finish()

    def approximate() -> None:
        np.multiply(x, x, out=t)
        np.multiply(t, kind(0.044715), out=t)
        np.add(t, one, out=t)
        np.multiply(t, x, out=t)
        np.multiply(t, kind(math.sqrt(2 / math.pi)), out=t)
        np.tanh(t, out=t)
        finish()

    def finish() -> None:
        np.add(t, one, out=t)
        np.multiply(t, half, out=t)
        np.multiply(x, t, out=out)

    return approximate if call.op.approximate else exact


def _hard_sigmoid_into(x: Array, out: Array, alpha: float, beta: float) -> None:
    kind = x.dtype.type
    np.multiply(x, kind(alpha), out=out)
    np.add(out, kind(beta), out=out)
    np.clip(out, kind(0), kind(1), out=out)


@kernel(activations.HardSigmoid, inplace=(0,))
def _hard_sigmoid(call: Call) -> Kernel:
    return partial(_hard_sigmoid_into, call.inputs[0], call.output, call.op.alpha, call.op.beta)


@kernel(activations.HardSwish)
def _hard_swish(call: Call) -> Kernel:
    x, out = call.inputs[0], call.output

    def run() -> None:
        _hard_sigmoid_into(x, out, 1 / 6, 0.5)
        np.multiply(x, out, out=out)

    return run
