"""The networks of the workloads as plain data, for peers that have layers of their own to build them from.

Kernels come in the order of the layers, each followed by what belongs to it (a norm's γ and β, a bias): the order in
which minigraph's model has its variables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Convolution:
    """A convolution without bias that keeps the image's size at stride 1; the kernel is H,W,I,O."""

    size: int = 3
    stride: int = 1


@dataclass(frozen=True)
class Norm:
    """Batch norm, ε = 1e-5, over all but the last axis of images or rows."""

    images: bool = True


@dataclass(frozen=True)
class Rectifier:
    """max(x, 0)."""


@dataclass(frozen=True)
class Pool:
    """The maximum of each window."""

    size: int = 2
    stride: int = 2
    padding: int = 0


@dataclass(frozen=True)
class Average:
    """The mean of each channel of an image."""


@dataclass(frozen=True)
class Dense:
    """A product with a matrix; `flattens` is the shape H,W,C of images that are rows from here on."""

    bias: bool = True
    flattens: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Residual:
    """body(x) + shortcut(x), rectified."""

    body: Network
    shortcut: Network = ()


Layer: TypeAlias = Convolution | Norm | Rectifier | Pool | Average | Dense | Residual
Network: TypeAlias = tuple[Layer, ...]


def convolve(size: int = 3, stride: int = 1) -> Network:
    """Return a convolution, its norm and a rectifier."""
    return (Convolution(size, stride), Norm(), Rectifier())


def basic(stride: int, projects: bool) -> Residual:
    """Return the block of ResNet-18."""
    return Residual((*convolve(3, stride), Convolution(3), Norm()), _shortcut(stride) if projects else ())


def bottleneck(stride: int, projects: bool) -> Residual:
    """Return the block of ResNet-50; in its first stage the shortcut projects as well."""
    body = (*convolve(1), *convolve(3, stride), Convolution(1), Norm())
    return Residual(body, _shortcut(stride) if projects else ())


def _shortcut(stride: int) -> Network:
    return (Convolution(1, stride), Norm())


def _resnet18(stem: Network) -> Network:
    blocks = [basic(2 if stage and not i else 1, bool(stage) and not i) for stage in range(4) for i in range(2)]
    return (*stem, *blocks, Average(), Dense())


def _resnet50(stem: Network) -> Network:
    places = [(stage, i) for stage, number in enumerate((3, 4, 6, 3)) for i in range(number)]
    return (*stem, *(bottleneck(2 if stage and not i else 1, not i) for stage, i in places), Average(), Dense())


_STEM = (*convolve(7, 2), Pool(3, 2, 1))
_MNIST = (
    *convolve(), Pool(), *convolve(), Pool(), Dense(False, (7, 7, 64)), Norm(images=False), Rectifier(), Dense(),
)  # fmt: skip
# The model's name → its layers.
NETWORKS: dict[str, Network] = {
    "mnist": _MNIST,
    "tiny": (*convolve(), *convolve(), Average(), Dense()),
    "small": (*convolve(), *convolve(), Pool(), Dense(True, (14, 14, 64)), Rectifier(), Dense()),
    "cifar": _resnet18(convolve()),
    "resnet18": _resnet18(_STEM),
    "resnet50": _resnet50(_STEM),
}
