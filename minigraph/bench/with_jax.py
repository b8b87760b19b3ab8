"""The workloads in JAX: pure functions of a list of parameters, N,H,W,C, one jitted call a step, or for many steps."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
from jax import lax

from minigraph.bench import networks
from minigraph.bench.workloads import MOMENTUM, Array, Prepared, Workload

# What JAX calls the precisions of products of float32.
_PRECISIONS = {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": "tensorfloat32"}


def _applied(network: networks.Network, x: Any, take: Iterator[Any], trains: bool) -> Any:
    """Return what the layers make of x, with the next parameters."""
    for layer in network:
        match layer:
            case networks.Convolution(size, stride):
                x = _convolved(x, next(take), size, stride)
            case networks.Norm():
                x = _normalised(x, next(take), next(take), trains)
            case networks.Rectifier():
                x = jax.nn.relu(x)
            case networks.Pool(size, stride, padding):
                pads = ((0, 0), (padding, padding), (padding, padding), (0, 0))
                x = lax.reduce_window(x, -jnp.inf, lax.max, (1, size, size, 1), (1, stride, stride, 1), pads)
            case networks.Average():
                x = x.mean((1, 2))
            case networks.Dense(bias, _):
                x = x.reshape(len(x), -1) @ next(take)
                x = (x + next(take)).astype(x.dtype) if bias else x
            case networks.Residual(body, shortcut):
                y = _applied(body, x, take, trains)
                x = jax.nn.relu(y + _applied(shortcut, x, take, trains))
    return x


def _convolved(x: Any, kernel: Any, size: int, stride: int) -> Any:
    pads = ((size // 2, size // 2),) * 2
    order = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=order)


def _normalised(x: Any, gamma: Any, beta: Any, trains: bool) -> Any:
    """Return γ·(x − mean)/√(variance + ε) + β; in inference by the averages that a model begins with, 0 and 1.

    The statistics of half precision are computed in float32.
    """
    if not trains:
        return (x * (gamma / jnp.sqrt(1.0 + 1e-5)) + beta).astype(x.dtype)
    axes = tuple(range(x.ndim - 1))
    wide = x.astype(jnp.float32)
    mean, variance = wide.mean(axes), wide.var(axes)
    return ((wide - mean) * (gamma * lax.rsqrt(variance + 1e-5)) + beta).astype(x.dtype)


def make(workload: Workload, network: networks.Network, arrays: list[Array]) -> Prepared:
    """Return a workload; on a CPU, XLA takes the processors that this process may use."""
    if workload.gpu:
        jax.config.update("jax_default_matmul_precision", _PRECISIONS[workload.precision])
    parameters = [jnp.asarray(a) for a in arrays]
    call = (_training if workload.trains else _inference)(workload, network, parameters)
    number = float if workload.trains else _size
    if not workload.gpu:
        return Prepared(lambda: call().block_until_ready(), number)
    latest: list[Any] = [None]

    def step() -> Any:
        latest[0] = call()
        return latest[0]

    return Prepared(step, number, lambda: latest[0].block_until_ready(), workload.launch, _peak)


def _size(y: Any) -> float:
    return float(jnp.abs(y).mean())


def _peak() -> int:
    return int(jax.devices()[0].memory_stats()["peak_bytes_in_use"])


def _half(workload: Workload, parameters: list[Any], x: Any) -> tuple[list[Any], Any]:
    """Return kernels and images in the precision that products are computed in; vectors stay float32."""
    if workload.precision != "bfloat16":
        return parameters, x
    return [p.astype(jnp.bfloat16) if p.ndim > 1 else p for p in parameters], x.astype(jnp.bfloat16)


def _inference(workload: Workload, network: networks.Network, parameters: list[Any]) -> Callable[[], Any]:
    images = jnp.asarray(workload.images())

    def outputs(parameters: list[Any], x: Any) -> Any:
        parameters, x = _half(workload, parameters, x)
        return _applied(network, x, iter(parameters), False).astype(jnp.float32)

    infer = jax.jit(outputs)
    return lambda: infer(parameters, images)


def _training(workload: Workload, network: networks.Network, parameters: list[Any]) -> Callable[[], Any]:
    images, labels = workload.images(), workload.labels()

    def loss_of(parameters: list[Any], x: Any, y: Any) -> Any:
        parameters, x = _half(workload, parameters, x)
        scores = jax.nn.log_softmax(_applied(network, x, iter(parameters), True).astype(jnp.float32))
        return -jnp.take_along_axis(scores, y[:, None], 1).mean()

    def updated(parameters: list[Any], momenta: list[Any], x: Any, y: Any) -> Any:
        loss, slopes = jax.value_and_grad(loss_of)(parameters, x, y)
        momenta = [MOMENTUM * m + g for m, g in zip(momenta, slopes, strict=True)]
        return [p - workload.rate * m for p, m in zip(parameters, momenta, strict=True)], momenta, loss

    def launched(parameters: list[Any], momenta: list[Any], first: Any, x: Any, y: Any) -> Any:
        """Do several steps on batches of a set, from batch number `first` on; return the mean of the losses."""

        def body(i: Any, held: Any) -> Any:
            parameters, momenta, total = held
            rows = (first + i) % (len(x) // workload.batch) * workload.batch + jnp.arange(workload.batch)
            parameters, momenta, loss = updated(parameters, momenta, x[rows], y[rows])
            return parameters, momenta, total + loss

        held = lax.fori_loop(0, workload.launch, body, (parameters, momenta, jnp.zeros(())))
        return held[0], held[1], held[2] / workload.launch

    momenta = [jnp.zeros_like(p) for p in parameters]
    first = 0
    if workload.data != "host" or not workload.gpu:
        images, labels = jnp.asarray(images), jnp.asarray(labels)
    several, one = (jax.jit(f, donate_argnums=(0, 1)) for f in (launched, updated))

    def step() -> Any:
        nonlocal parameters, momenta, first
        if workload.data == "set":
            parameters, momenta, loss = several(parameters, momenta, first, images, labels)
            first += workload.launch
        else:
            parameters, momenta, loss = one(parameters, momenta, images, labels)
        return loss

    return step
