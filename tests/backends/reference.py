"""Every op again, as plainly as NumPy and loops can say it: what kernels are compared with. Shares no code with them.

`REFERENCES[name](op, *operands)` computes in the operands' own dtypes; give it float64 for a reference.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from minigraph.ir import Graph, Node

Array = np.ndarray[Any, Any]
REFERENCES: dict[str, Callable[..., Any]] = {
    "add": lambda op, x, y: x + y,
    "sub": lambda op, x, y: x - y,
    "mul": lambda op, x, y: x * y,
    "div": lambda op, x, y: x / y,
    "pow": lambda op, x, y: x**y,
    "maximum": lambda op, x, y: np.where(np.isnan(x) | (x > y), x, y),
    "minimum": lambda op, x, y: np.where(np.isnan(x) | (x < y), x, y),
    "less": lambda op, x, y: x < y,
    "less_equal": lambda op, x, y: x <= y,
    "greater": lambda op, x, y: x > y,
    "greater_equal": lambda op, x, y: x >= y,
    "equal": lambda op, x, y: x == y,
    "not_equal": lambda op, x, y: x != y,
    "where": lambda op, c, x, y: np.where(c, x, y),
    "neg": lambda op, x: -x,
    "abs": lambda op, x: np.abs(x),
    "sign": lambda op, x: np.where(x > 0, 1, np.where(x < 0, -1, x)).astype(x.dtype),
    "floor": lambda op, x: np.floor(x),
    "clip": lambda op, x: np.where(x < op.minimum, op.minimum, np.where(x > op.maximum, op.maximum, x)),
    "exp": lambda op, x: np.exp(x),
    "log": lambda op, x: np.log(x),
    "sqrt": lambda op, x: np.sqrt(x),
    "rsqrt": lambda op, x: x**-0.5,
    "sin": lambda op, x: np.sin(x),
    "cos": lambda op, x: np.cos(x),
    "erf": lambda op, x: each(math.erf, x),
    "relu": lambda op, x: np.where(x <= 0, 0, x),
    "leaky_relu": lambda op, x: np.where(x > 0, x, x * op.alpha),
    "elu": lambda op, x: np.where(x > 0, x, op.alpha * np.expm1(np.minimum(x, 0))),
    "sigmoid": lambda op, x: 0.5 * (1 + np.tanh(x / 2)),
    "tanh": lambda op, x: np.tanh(x),
    "softplus": lambda op, x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
    "silu": lambda op, x: x * 0.5 * (1 + np.tanh(x / 2)),
    "hard_sigmoid": lambda op, x: np.minimum(np.maximum(op.alpha * x + op.beta, 0), 1),
    "hard_swish": lambda op, x: x * np.minimum(np.maximum(x / 6 + 0.5, 0), 1),
    "cast": lambda op, x: x.astype(op.dtype),
    "sum": lambda op, x: np.sum(x, op.axes, keepdims=op.keepdims, dtype=x.dtype),
    "mean": lambda op, x: np.mean(x, op.axes, keepdims=op.keepdims),
    "max": lambda op, x: np.max(x, op.axes, keepdims=op.keepdims),
    "min": lambda op, x: np.min(x, op.axes, keepdims=op.keepdims),
    "logsumexp": lambda op, x: np.log(np.sum(np.exp(x), op.axes, keepdims=op.keepdims)),
    "argmax": lambda op, x: np.argmax(x, op.axis),
    "softmax": lambda op, x: np.exp(x) / np.exp(x).sum(op.axis, keepdims=True),
    "log_softmax": lambda op, x: x - np.log(np.exp(x).sum(op.axis, keepdims=True)),
    "softmax_cross_entropy": lambda op, x, t: -(t * (x - np.log(np.exp(x).sum(op.axis, keepdims=True)))).sum(op.axis),
    "moments": lambda op, x: (np.mean(x, op.axes), np.var(x, op.axes)),
    "reshape": lambda op, x: np.array(x.ravel().tolist(), x.dtype).reshape(op.shape),
    "transpose": lambda op, x: np.transpose(x, op.axes),
    "broadcast_to": lambda op, x: np.broadcast_to(x, op.shape),
    "pad": lambda op, x: np.pad(x, op.padding, constant_values=op.value) if x.ndim else x,
    "concat": lambda op, *xs: np.concatenate(xs, op.axis),
    "split": lambda op, x: tuple(np.split(x, list(itertools.accumulate(op.sizes))[:-1], op.axis)),
    "item": lambda op, x: x[op.index],
    "gather": lambda op, x, i: np.take(x, i, op.axis, mode=op.mode),
    "size": lambda op, x: np.array(math.prod(x.shape[a] for a in op.axes), op.dtype),
    "after": lambda op, x, then: x,
}


def reference(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function as an op's reference."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        REFERENCES[name] = function
        return function

    return register


def run(graph: Graph, values: Mapping[str, Array]) -> dict[Node, Any]:
    """Return the value of every node by the references; no layout is legalised, nothing is planned."""
    results: dict[Node, Any] = {}
    with np.errstate(all="ignore"):
        for node in graph.nodes:
            if node.op.name in ("input", "variable"):
                results[node] = np.asarray(values[node.label])
            else:
                results[node] = REFERENCES[node.op.name](node.op, *(results[i] for i in node.inputs))
    return results


def each(function: Callable[[float], float], x: Array) -> Array:
    """Return a Python function of each element."""
    return np.array([function(float(v)) for v in x.ravel()], np.float64).reshape(x.shape)


@reference("constant")
def _constant(op: Any) -> Array:
    return np.frombuffer(op.data, op.type.dtype).reshape(op.type.shape)


@reference("fused")
@reference("function")
@reference("group")
def _region(op: Any, *operands: Array) -> Any:
    values: list[Any] = list(operands)
    for step in op.body:
        values.append(REFERENCES[step.op.name](step.op, *(values[i] for i in step.inputs)))
    results = tuple(values[place] for place in op.places(len(operands)))
    return results if len(results) > 1 else results[0]


@reference("gelu")
def _gelu(op: Any, x: Array) -> Array:
    if op.approximate:
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return x * 0.5 * each(lambda v: math.erfc(-v / math.sqrt(2)), x)


@reference("batch_norm")
def _batch_norm(op: Any, x: Array, *vectors: Array) -> Array:
    wide = [-1 if i == op.axis % x.ndim else 1 for i in range(x.ndim)]
    gamma, beta, mean, variance = (v.reshape(wide) for v in vectors)
    return gamma * (x - mean) / np.sqrt(variance + op.epsilon) + beta


@reference("matmul")
def _matmul(op: Any, x: Array, y: Array) -> Array:
    left = "...ki" if op.transpose_x else "...ik"
    right = "...jk" if op.transpose_y else "...kj"
    return np.einsum(f"{left},{right}->...ij", x, y)


def _positions(starts: Any, sizes: Any, steps: Any) -> Any:
    return np.ix_(*([start + i * step for i in range(n)] for start, n, step in zip(starts, sizes, steps, strict=True)))


def _index(starts: Any, sizes: Any, steps: Any) -> Any:
    return tuple(p.astype(np.int64) for p in _positions(starts, sizes, steps))


@reference("slice")
def _slice(op: Any, x: Array) -> Array:
    return x[_index(op.starts, op.sizes, op.steps)]


@reference("slice_adjoint")
def _slice_adjoint(op: Any, x: Array) -> Array:
    out = np.zeros(op.shape, x.dtype)
    out[_index(op.starts, x.shape, op.steps)] = x
    return out


@reference("gather_adjoint")
def _gather_adjoint(op: Any, x: Array, indices: Array) -> Array:
    out = np.zeros(op.shape, x.dtype)
    before = (slice(None),) * (op.axis % len(op.shape))
    places = np.clip(indices, 0, op.shape[op.axis] - 1) if op.mode == "clip" else indices
    for at in np.ndindex(indices.shape):
        out[(*before, int(places[at]))] += x[(*before, *at)]
    return out


@reference("one_hot")
def _one_hot(op: Any, labels: Array) -> Array:
    out = np.zeros((*labels.shape, op.classes), op.dtype)
    for at in np.ndindex(labels.shape):
        if 0 <= labels[at] < op.classes:
            out[(*at, int(labels[at]))] = 1
    return np.moveaxis(out, -1, op.axis)


# --- random numbers -----------------------------------------------------------------------------------------------


def philox(counter: list[int], key: tuple[int, int]) -> list[int]:
    """Return one block of four words of Philox4x64-10, from Salmon et al. 2011, figure and table 2."""
    a, b = key
    c = list(counter)
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
        low = 2**64 - 1
        c = [(second >> 64) ^ c[1] ^ a, second & low, (first >> 64) ^ c[3] ^ b, first & low]
        a, b = (a + 0x9E3779B97F4A7C15) & low, (b + 0xBB67AE8584CAA73B) & low
    return c


@reference("random_uniform")
def _random_uniform(op: Any, counter: Array) -> Array:
    number = math.prod(op.shape)
    words: Iterator[int] = (
        word for block in itertools.count(1) for word in philox([block, 0, 0, int(counter) % 2**64], op.key)
    )
    if op.dtype == "float64":
        values = [(word >> 11) * 2.0**-53 for word in itertools.islice(words, number)]
    else:
        halves = (half for word in words for half in (word & 0xFFFFFFFF, word >> 32))
        values = [(half >> 8) * 2.0**-24 for half in itertools.islice(halves, number)]
    return np.array(values, op.dtype).reshape(op.shape)


# --- windows, element by element ----------------------------------------------------------------------------------


def pads_of(op: Any, size: tuple[int, int], image: tuple[int, int]) -> list[tuple[int, int]]:
    """Return (before, after) for height and width, the overhang of average pooling not included."""
    if op.padding == "valid":
        return [(0, 0), (0, 0)]
    if op.padding != "same":
        return list(op.padding)
    result = []
    for k, m, s, d in zip(size, image, op.strides, op.dilations, strict=True):
        total = max((math.ceil(m / s) - 1) * s + (k - 1) * d + 1 - m, 0)
        result.append((total // 2, total - total // 2))
    return result


def windows_of(op: Any, size: tuple[int, int], image: tuple[int, int]) -> tuple[int, ...]:
    """Return how many windows there are."""
    over = getattr(op, "overhang", (0, 0))
    rows = zip(image, pads_of(op, size, image), over, size, op.strides, op.dilations, strict=True)
    return tuple((m + sum(p) + o - (k - 1) * d - 1) // s + 1 for m, p, o, k, s, d in rows)


def meetings(
    op: Any, size: tuple[int, int], image: tuple[int, int], windows: tuple[int, ...]
) -> Iterator[tuple[tuple[int, int], tuple[int, int], tuple[int, int]]]:
    """Yield (window, tap, pixel) for all windows and all taps, pixels outside the image too, in row-major order."""
    pads = pads_of(op, size, image)
    for i, j, a, b in itertools.product(*map(range, windows), *map(range, size)):
        row = i * op.strides[0] - pads[0][0] + a * op.dilations[0]
        column = j * op.strides[1] - pads[1][0] + b * op.dilations[1]
        yield (i, j), (a, b), (row, column)


def inside(pixel: tuple[int, int], image: tuple[int, int]) -> bool:
    """Tell whether a pixel is in the image."""
    return 0 <= pixel[0] < image[0] and 0 <= pixel[1] < image[1]


def first(op: Any, x: Array) -> Array:
    """Return images as N,C,H,W."""
    return x if op.layout == "NCHW" else x.transpose(0, 3, 1, 2)


def back(op: Any, x: Array) -> Array:
    """Return N,C,H,W images in the op's layout."""
    return x if op.layout == "NCHW" else x.transpose(0, 2, 3, 1)


def kernel_first(op: Any, w: Array) -> Array:
    """Return a kernel as O,I,H,W."""
    return w if op.layout == "NCHW" else w.transpose(3, 2, 0, 1)


def _taps(op: Any, w: Array, image: Any, windows: Any) -> Iterator[tuple[Any, Any, Any, slice, slice]]:
    """Yield (window, tap, pixel, input channels, output channels) of a convolution."""
    into, out = w.shape[1], w.shape[0] // op.groups
    for window, tap, pixel in meetings(op, w.shape[2:], image, windows):
        for g in range(op.groups if inside(pixel, image) else 0):
            yield window, tap, pixel, slice(g * into, (g + 1) * into), slice(g * out, (g + 1) * out)


@reference("conv2d")
def _conv2d(op: Any, x: Array, kernel: Array) -> Array:
    x, w = first(op, x), kernel_first(op, kernel)
    y = np.zeros((len(x), len(w), *windows_of(op, w.shape[2:], x.shape[2:])), x.dtype)
    for (i, j), (a, b), (r, c), ins, outs in _taps(op, w, x.shape[2:], y.shape[2:]):
        y[:, outs, i, j] += x[:, ins, r, c] @ w[outs, :, a, b].T
    return back(op, y)


@reference("conv2d_transpose")
def _conv2d_transpose(op: Any, y: Array, kernel: Array) -> Array:
    y, w = first(op, y), kernel_first(op, kernel)
    x = np.zeros((len(y), w.shape[1] * op.groups, *op.output_size), y.dtype)
    for (i, j), (a, b), (r, c), ins, outs in _taps(op, w, x.shape[2:], y.shape[2:]):
        x[:, ins, r, c] += y[:, outs, i, j] @ w[outs, :, a, b]
    return back(op, x)


@reference("conv2d_kernel_adjoint")
def _conv2d_kernel_adjoint(op: Any, x: Array, y: Array) -> Array:
    x, y = first(op, x), first(op, y)
    w = np.zeros((y.shape[1], x.shape[1] // op.groups, *op.kernel_size), x.dtype)
    for (i, j), (a, b), (r, c), ins, outs in _taps(op, w, x.shape[2:], y.shape[2:]):
        w[outs, :, a, b] += y[:, outs, i, j].T @ x[:, ins, r, c]
    return w if op.layout == "NCHW" else w.transpose(2, 3, 1, 0)


def _largest(op: Any, x: Array) -> tuple[Array, Array]:
    """Return, for N,C,H,W images, the largest element of each window and its flat place in the image (the first)."""
    height, width = x.shape[2:]
    windows = windows_of(op, op.size, (height, width))
    top = np.full((*x.shape[:2], *windows), -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min, x.dtype)
    place = np.full(top.shape, -1)
    for (i, j), _, (r, c) in meetings(op, op.size, (height, width), windows):
        if inside((r, c), (height, width)):
            better = (x[:, :, r, c] > top[:, :, i, j]) | (place[:, :, i, j] < 0)
            place[:, :, i, j] = np.where(better, r * width + c, place[:, :, i, j])
            top[:, :, i, j] = np.where(better, x[:, :, r, c], top[:, :, i, j])
    return top, place


@reference("max_pool2d")
def _max_pool2d(op: Any, x: Array) -> Array:
    return back(op, _largest(op, first(op, x))[0])


@reference("max_pool2d_adjoint")
def _max_pool2d_adjoint(op: Any, x: Array, g: Array) -> Array:
    x, g = first(op, x), first(op, g)
    _, place = _largest(op, x)
    out = np.zeros((*x.shape[:2], x.shape[2] * x.shape[3]), x.dtype)
    for n, c, i, j in np.ndindex(place.shape):
        out[n, c, place[n, c, i, j]] += g[n, c, i, j]
    return back(op, out.reshape(x.shape))


@reference("max_pool2d_select")
def _max_pool2d_select(op: Any, x: Array, y: Array) -> Array:
    x, y = first(op, x), first(op, y)
    _, place = _largest(op, x)
    out = np.zeros(place.shape, x.dtype)
    for n, c, i, j in np.ndindex(place.shape):
        out[n, c, i, j] = y[n, c].ravel()[place[n, c, i, j]]
    return back(op, out)


def _counts(op: Any, image: tuple[int, int], windows: tuple[int, ...]) -> Array:
    pads = pads_of(op, op.size, image)
    counts = np.zeros(windows)
    for window, _, (r, c) in meetings(op, op.size, image, windows):
        padded = -pads[0][0] <= r < image[0] + pads[0][1] and -pads[1][0] <= c < image[1] + pads[1][1]
        counts[window] += padded if op.count_padding else inside((r, c), image)
    return counts


@reference("avg_pool2d")
def _avg_pool2d(op: Any, x: Array) -> Array:
    x = first(op, x)
    image = x.shape[2:]
    windows = windows_of(op, op.size, image)
    out = np.zeros((*x.shape[:2], *windows), x.dtype)
    for (i, j), _, (r, c) in meetings(op, op.size, image, windows):
        if inside((r, c), image):
            out[:, :, i, j] += x[:, :, r, c]
    return back(op, out / _counts(op, image, windows))


@reference("avg_pool2d_adjoint")
def _avg_pool2d_adjoint(op: Any, g: Array) -> Array:
    g = first(op, g)
    image, windows = op.output_size, g.shape[2:]
    shares = g / _counts(op, image, windows)
    out = np.zeros((*g.shape[:2], *image), g.dtype)
    for (i, j), _, (r, c) in meetings(op, op.size, image, windows):
        if inside((r, c), image):
            out[:, :, r, c] += shares[:, :, i, j]
    return back(op, out)
