"""The workloads in JAX: pure functions of a list of parameters, N,H,W,C, one jitted call a step."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
from jax import lax

from minigraph.bench import networks
from minigraph.bench.workloads import MOMENTUM, RATE, Array, Workload


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
                x = x + next(take) if bias else x
            case networks.Residual(body, shortcut):
                y = _applied(body, x, take, trains)
                x = jax.nn.relu(y + _applied(shortcut, x, take, trains))
    return x


def _convolved(x: Any, kernel: Any, size: int, stride: int) -> Any:
    pads = ((size // 2, size // 2),) * 2
    order = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=order)


def _normalised(x: Any, gamma: Any, beta: Any, trains: bool) -> Any:
    """Return γ·(x − mean)/√(variance + ε) + β; in inference by the averages that a model begins with, 0 and 1."""
    if not trains:
        return x * (gamma / jnp.sqrt(1.0 + 1e-5)) + beta
    axes = tuple(range(x.ndim - 1))
    mean, variance = x.mean(axes), x.var(axes)
    return (x - mean) * (gamma * lax.rsqrt(variance + 1e-5)) + beta


def make(workload: Workload, network: networks.Network, arrays: list[Array]) -> Any:
    """Return one step and what makes a float of its result; XLA takes the processors that this process may use."""
    images, parameters = jnp.asarray(workload.images()), [jnp.asarray(a) for a in arrays]
    if workload.trains:
        return _training(network, parameters, images, jnp.asarray(workload.labels())), float
    infer = jax.jit(lambda parameters, x: _applied(network, x, iter(parameters), False))
    return lambda: infer(parameters, images).block_until_ready(), lambda y: float(jnp.abs(y).mean())


def _training(network: networks.Network, parameters: list[Any], images: Any, labels: Any) -> Callable[[], Any]:
    def loss_of(parameters: list[Any], x: Any, y: Any) -> Any:
        scores = jax.nn.log_softmax(_applied(network, x, iter(parameters), True))
        return -jnp.take_along_axis(scores, y[:, None], 1).mean()

    def updated(parameters: list[Any], momenta: list[Any], x: Any, y: Any) -> Any:
        loss, slopes = jax.value_and_grad(loss_of)(parameters, x, y)
        momenta = [MOMENTUM * m + g for m, g in zip(momenta, slopes, strict=True)]
        return [p - RATE * m for p, m in zip(parameters, momenta, strict=True)], momenta, loss

    train = jax.jit(updated, donate_argnums=(0, 1))
    momenta = [jnp.zeros_like(p) for p in parameters]

    def step() -> Any:
        nonlocal parameters, momenta
        parameters, momenta, loss = train(parameters, momenta, images, labels)
        return loss.block_until_ready()

    return step
