"""The workloads in PyTorch on a GPU, as those who want it fast write them: channels last, autocast, fused SGD.

Eager; compiled with `mode="max-autotune"`; and with the whole step (forward, backward, optimiser) in one CUDA graph.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from minigraph.bench import networks
from minigraph.bench.with_torch import modules
from minigraph.bench.workloads import MOMENTUM, Array, Prepared, Workload

# Steps before a capture: libraries choose algorithms and make handles.
WARM_UP = 3


@dataclass
class _Batches:
    """Images and labels on the device, at addresses that stay; `load` brings the next batch there."""

    workload: Workload
    device: str
    images: Any = field(init=False)
    labels: Any = field(init=False)

    def __post_init__(self) -> None:
        batch = self.workload.batch
        images = torch.from_numpy(self.workload.images()).permute(0, 3, 1, 2)  # N,C,H,W in name: channels last
        labels = torch.from_numpy(self.workload.labels())
        self.images = images[:batch].to(self.device, copy=True, memory_format=torch.channels_last)
        self.labels = labels[:batch].to(self.device, copy=True)
        if self.workload.data == "host" and self.device == "cuda":
            images, labels = images.pin_memory(), labels.pin_memory()
        elif self.workload.data == "set":
            images, labels = images.to(self.device, memory_format=torch.channels_last), labels.to(self.device)
        self._all = images, labels
        self._orders = torch.arange(len(labels), device=self.device).split(batch)
        self._next = 0

    def load(self) -> None:
        """Bring the next batch: from the host, or gathered from a set on the device."""
        targets = self.images, self.labels
        if self.workload.data == "host":
            for target, source in zip(targets, self._all, strict=True):
                target.copy_(source, non_blocking=True)
        elif self.workload.data == "set":
            order = self._orders[self._next % len(self._orders)]
            for target, source in zip(targets, self._all, strict=True):
                torch.index_select(source, 0, order, out=target)
            self._next += 1


def make(
    workload: Workload, network: networks.Network, arrays: list[Array], variant: str, device: str = "cuda"
) -> Prepared:
    """Return a workload. variant: "" is eager, "compile", or "graph"."""
    tf32 = workload.precision != "float32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = True
    module = modules(network, iter(arrays)).to(device).to(memory_format=torch.channels_last)
    batches = _Batches(workload, device)
    if workload.trains:
        made = Prepared(_training(workload, module, batches, variant, device), _mean)
    else:
        made = Prepared(_inference(workload, module.eval(), batches, variant), _size)
    if device != "cuda":
        return made
    return made._replace(wait=torch.cuda.synchronize, steps=workload.launch, memory=torch.cuda.max_memory_allocated)


def _mean(losses: Any) -> float:
    return float(torch.stack([loss.detach() for loss in losses]).mean())


def _size(y: Any) -> float:
    return float(y.float().abs().mean())


def _training(workload: Workload, module: Any, batches: _Batches, variant: str, device: str) -> Callable[[], Any]:
    optimizer = torch.optim.SGD(module.parameters(), lr=workload.rate, momentum=MOMENTUM, fused=True)
    half = workload.precision == "bfloat16"

    def loss_of(images: Any, labels: Any) -> Any:
        with torch.autocast(device, torch.bfloat16, enabled=half):
            return nn.functional.cross_entropy(module(images), labels)

    chosen = torch.compile(loss_of, mode="max-autotune") if variant == "compile" else loss_of

    def once() -> Any:
        optimizer.zero_grad(set_to_none=True)
        loss = chosen(batches.images, batches.labels)
        loss.backward()
        optimizer.step()
        return loss

    run = once
    if variant == "graph":
        with _restored(module, optimizer):
            run = _captured(once)

    def step() -> list[Any]:
        losses = []
        for _ in range(workload.launch):
            batches.load()
            losses.append(run())
            if workload.launch > 1 and variant:  # a graph's next replay writes over it
                losses[-1] = losses[-1].detach().clone()
        return losses

    return step


@contextlib.contextmanager
def _restored(module: nn.Module, optimizer: torch.optim.Optimizer) -> Any:
    """Undo, in place, what steps inside do to a module and its optimiser."""
    before = {name: value.clone() for name, value in module.state_dict().items()}
    yield
    module.load_state_dict(before)
    for held in optimizer.state.values():
        held["momentum_buffer"].zero_()


def _captured(call: Callable[[], Any]) -> Callable[[], Any]:
    """Return what replays a call, with the same tensors, as one CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()

    def replay() -> Any:
        graph.replay()
        return result

    return replay


def _inference(workload: Workload, module: nn.Module, batches: _Batches, variant: str) -> Callable[[], Any]:
    dtype = torch.bfloat16 if workload.precision == "bfloat16" else torch.float32
    folded: Any = _folded(module).to(dtype)

    def infer(images: Any) -> Any:
        return folded(images.to(dtype))

    chosen = torch.compile(infer, mode="max-autotune") if variant == "compile" else infer
    run = _without_gradients(lambda: chosen(batches.images))
    if variant == "graph":
        run = _captured(run)

    def step() -> Any:
        batches.load()
        return run()

    return step


def _without_gradients(call: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> Any:
        with torch.inference_mode():
            return call()

    return run


def _folded(module: nn.Module) -> nn.Module:
    """Return a module with each batch norm that follows a convolution folded into it."""
    for name, child in module.named_children():
        setattr(module, name, _folded(child))
    if not isinstance(module, nn.Sequential):
        return module
    layers: list[nn.Module] = []
    for layer in module:
        if isinstance(layer, nn.BatchNorm2d) and layers and isinstance(layers[-1], nn.Conv2d):
            layers[-1] = fuse_conv_bn_eval(layers[-1], layer)
        else:
            layers.append(layer)
    return nn.Sequential(*layers)
