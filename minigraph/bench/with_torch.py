"""The workloads in PyTorch, as its users write them: modules, cross entropy, SGD; eager, channels last, compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from minigraph.bench import networks
from minigraph.bench.workloads import MOMENTUM, Array, Workload


class _Residual(nn.Module):
    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut, self.relu = body, shortcut, nn.ReLU()

    def forward(self, x: Any) -> Any:
        return self.relu(self.body(x) + self.shortcut(x))


def _module(layer: networks.Layer, take: Iterator[Array]) -> nn.Module:
    """Return a layer with its parameters, which are the next arrays."""
    match layer:
        case networks.Convolution(size, stride):
            kernel = next(take).transpose(3, 2, 0, 1)
            made = nn.Conv2d(kernel.shape[1], kernel.shape[0], size, stride, size // 2, bias=False)
            return _set(made, kernel)
        case networks.Norm(images):
            gamma, beta = next(take), next(take)
            return _set((nn.BatchNorm2d if images else nn.BatchNorm1d)(len(gamma)), gamma, beta)
        case networks.Rectifier():
            return nn.ReLU()
        case networks.Pool(size, stride, padding):
            return nn.MaxPool2d(size, stride, padding)
        case networks.Average():
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        case networks.Dense(bias, flattens):
            return _dense(next(take), next(take) if bias else None, flattens)
        case networks.Residual(body, shortcut):
            return _Residual(modules(body, take), modules(shortcut, take))


def modules(network: networks.Network, take: Iterator[Array]) -> nn.Module:
    """Return a network with its parameters, which are the next arrays."""
    return nn.Sequential(*(_module(layer, take) for layer in network))


def _dense(kernel: Array, bias: Array | None, flattens: tuple[int, int, int] | None) -> nn.Module:
    """Return a linear module; torch flattens C,H,W, so the rows of the kernel are in another order."""
    inputs, outputs = kernel.shape
    if flattens is not None:
        kernel = kernel.reshape(*flattens, outputs).transpose(2, 0, 1, 3).reshape(inputs, outputs)
    made = _set(nn.Linear(inputs, outputs, bias=bias is not None), kernel.T, *(() if bias is None else (bias,)))
    return made if flattens is None else nn.Sequential(nn.Flatten(), made)


def _set(module: nn.Module, *arrays: Array) -> nn.Module:
    with torch.no_grad():
        for parameter, array in zip(module.parameters(), arrays, strict=True):
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(array)))
    return module


def make(workload: Workload, network: networks.Network, arrays: list[Array], variant: str, threads: int) -> Any:
    """Return one step and what makes a float of its result. variant: "", "channels-last" or "compile"."""
    torch.set_num_threads(threads)
    module = modules(network, iter(arrays))
    images = torch.from_numpy(np.ascontiguousarray(workload.images().transpose(0, 3, 1, 2)))
    if variant == "channels-last":
        module = module.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    if workload.trains:
        return _training(workload, module, images, torch.from_numpy(workload.labels()), variant), lambda loss: float(
            loss.detach()
        )
    return _inference(module.eval(), images, variant), lambda y: float(y.abs().mean())


def _training(workload: Workload, module: nn.Module, images: Any, labels: Any, variant: str) -> Callable[[], Any]:
    fused = variant == "channels-last" or None
    optimizer = torch.optim.SGD(module.parameters(), lr=workload.rate, momentum=MOMENTUM, fused=fused)

    def loss_of(x: Any, y: Any) -> Any:
        return nn.functional.cross_entropy(module(x), y)

    loss_of = torch.compile(loss_of) if variant == "compile" else loss_of

    def step() -> Any:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(images, labels)
        loss.backward()
        optimizer.step()
        return loss

    return step


def _inference(module: Any, images: Any, variant: str) -> Callable[[], Any]:
    if variant == "compile":
        import torch._inductor.config as inductor

        inductor.freezing = True
        module = torch.compile(module)

    def step() -> Any:
        with torch.no_grad():
            return module(images)

    return step
