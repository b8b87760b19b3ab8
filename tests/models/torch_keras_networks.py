"""Inception V3 and Xception as keras.applications builds them, in PyTorch: what Keras' names and numbers must be.

Nothing here comes from `minigraph.models`. Layers are called one by one in Keras' order, which is what gives those
without a name their number, and each draws its weights at the first call: so a network run once has all weights, by
Keras' names and in Keras' layouts.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

torch = pytest.importorskip("torch")
F = torch.nn.functional

EPSILON, MOMENTUM = 1e-3, 0.99


class Layers:
    """Keras' layers on tensors N,C,H,W. weights: by Keras' names; what is missing is drawn."""

    def __init__(self, training=False, width=1.0, weights=None, seed=0):
        self.training = training
        self.width = width
        self.weights = {} if weights is None else weights
        self.moved = {}  # moving averages after this call
        self.rng = np.random.default_rng(seed)
        self.made = Counter()

    def automatic(self, kind):
        """Number the layers of a kind from 0, which is not written."""
        number = self.made[kind]
        self.made[kind] += 1
        return f"{kind}_{number}" if number else kind

    def filters(self, number):
        return max(1, round(number * self.width))

    def weight(self, name, shape, draw):
        """Return a weight; its shape must be what the layer asks for."""
        if name not in self.weights:
            value = torch.from_numpy(np.asarray(draw(size=shape)))
            self.weights[name] = value.requires_grad_("moving" not in name)
        assert tuple(self.weights[name].shape) == tuple(shape), name
        return self.weights[name]

    def _normal(self, deviation):
        return lambda size: self.rng.normal(0.0, deviation, size)

    def _around_one(self, size):
        return self.rng.uniform(0.5, 1.5, size)

    def convolution(self, x, filters, height, width, strides=1, padding="same", name=None):
        """Return a convolution; "same" is only asked for where it is symmetric."""
        name = name or self.automatic("conv2d")
        into = x.shape[1]
        kernel = self.weight(f"{name}/kernel", (height, width, into, filters), self._normal((into * height) ** -0.5))
        pads = (height // 2, width // 2) if padding == "same" else 0
        return F.conv2d(x, kernel.permute(3, 2, 0, 1), stride=strides, padding=pads)

    def separable(self, x, filters, name):
        into = x.shape[1]
        depthwise = self.weight(f"{name}/depthwise_kernel", (3, 3, into, 1), self._normal(0.4))
        pointwise = self.weight(f"{name}/pointwise_kernel", (1, 1, into, filters), self._normal(into**-0.5))
        x = F.conv2d(x, depthwise.permute(2, 3, 0, 1), padding=1, groups=into)
        return F.conv2d(x, pointwise.permute(3, 2, 0, 1))

    def batch_norm(self, x, name=None, scale=True):
        name = name or self.automatic("batch_normalization")
        shape = (x.shape[1],)
        gamma = self.weight(f"{name}/gamma", shape, self._around_one) if scale else None
        beta = self.weight(f"{name}/beta", shape, self._normal(0.3))
        mean = self.weight(f"{name}/moving_mean", shape, self._normal(0.1))
        variance = self.weight(f"{name}/moving_variance", shape, self._around_one)
        if not self.training:
            return F.batch_norm(x, mean, variance, gamma, beta, eps=EPSILON)
        batch = x.detach()
        statistics = {"moving_mean": (mean, batch.mean((0, 2, 3)))}
        statistics["moving_variance"] = (variance, batch.var((0, 2, 3), unbiased=False))
        for which, (old, new) in statistics.items():
            self.moved[f"{name}/{which}"] = MOMENTUM * old + (1 - MOMENTUM) * new
        return F.batch_norm(x, None, None, gamma, beta, training=True, eps=EPSILON)

    def dense(self, x, units, name):
        kernel = self.weight(f"{name}/kernel", (x.shape[1], units), self._normal(x.shape[1] ** -0.5))
        return x @ kernel + self.weight(f"{name}/bias", (units,), self._normal(0.1))


def pooled_same(x):
    """Return maxima of 3×3, stride 2, where Keras' "same" puts the odd pixel of padding below and to the right."""
    pads = [pad for size in (x.shape[3], x.shape[2]) for pad in ((1, 1) if size % 2 else (0, 1))]
    return F.max_pool2d(F.pad(x, pads, value=-torch.inf), 3, 2)


def averaged(x):
    """Return means of 3×3 over the pixels that exist."""
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


# --- Inception V3 -----------------------------------------------------------------------------------------------------


def inception_v3(layers, x, classes):
    """Return the logits of Inception V3."""

    def conv(x, filters, height, width, strides=1, padding="same"):
        x = layers.convolution(x, layers.filters(filters), height, width, strides, padding)
        return F.relu(layers.batch_norm(x, scale=False))

    x = conv(x, 32, 3, 3, 2, "valid")
    x = conv(x, 32, 3, 3, padding="valid")
    x = F.max_pool2d(conv(x, 64, 3, 3), 3, 2)
    x = conv(x, 80, 1, 1, padding="valid")
    x = F.max_pool2d(conv(x, 192, 3, 3, padding="valid"), 3, 2)
    for pooled in (32, 64, 64):
        x = _inception_35(conv, x, pooled)
    single = conv(x, 384, 3, 3, 2, "valid")
    double = conv(conv(conv(x, 64, 1, 1), 96, 3, 3), 96, 3, 3, 2, "valid")
    x = torch.cat([single, double, F.max_pool2d(x, 3, 2)], 1)
    for inner in (128, 160, 160, 192):
        x = _inception_17(conv, x, inner)
    single = conv(conv(x, 192, 1, 1), 320, 3, 3, 2, "valid")
    seven = conv(conv(conv(x, 192, 1, 1), 192, 1, 7), 192, 7, 1)
    x = torch.cat([single, conv(seven, 192, 3, 3, 2, "valid"), F.max_pool2d(x, 3, 2)], 1)
    for _ in range(2):
        x = _inception_8(conv, x)
    return layers.dense(x.mean((2, 3)), classes, "predictions")


def _inception_35(conv, x, pooled):
    one = conv(x, 64, 1, 1)
    five = conv(conv(x, 48, 1, 1), 64, 5, 5)
    double = conv(conv(conv(x, 64, 1, 1), 96, 3, 3), 96, 3, 3)
    return torch.cat([one, five, double, conv(averaged(x), pooled, 1, 1)], 1)


def _inception_17(conv, x, inner):
    one = conv(x, 192, 1, 1)
    seven = conv(conv(conv(x, inner, 1, 1), inner, 1, 7), 192, 7, 1)
    double = x
    for filters, height, width in ((inner, 1, 1), (inner, 7, 1), (inner, 1, 7), (inner, 7, 1), (192, 1, 7)):
        double = conv(double, filters, height, width)
    return torch.cat([one, seven, double, conv(averaged(x), 192, 1, 1)], 1)


def _inception_8(conv, x):
    one = conv(x, 320, 1, 1)
    three = conv(x, 384, 1, 1)
    three = [conv(three, 384, 1, 3), conv(three, 384, 3, 1)]
    double = conv(conv(x, 448, 1, 1), 384, 3, 3)
    double = [conv(double, 384, 1, 3), conv(double, 384, 3, 1)]
    return torch.cat([one, *three, *double, conv(averaged(x), 192, 1, 1)], 1)


# --- Xception ---------------------------------------------------------------------------------------------------------


def xception(layers, x, classes):
    """Return the logits of Xception."""
    for number, (filters, strides) in enumerate(((32, 2), (64, 1)), 1):
        name = f"block1_conv{number}"
        x = layers.convolution(x, layers.filters(filters), 3, 3, strides, "valid", name)
        x = F.relu(layers.batch_norm(x, f"{name}_bn"))
    for block, filters in (("block2", (128, 128)), ("block3", (256, 256)), ("block4", (728, 728))):
        x = _shrinking(layers, x, block, filters)
    for block in range(5, 13):
        x = x + _separables(layers, x, f"block{block}", (728, 728, 728))
    x = _shrinking(layers, x, "block13", (728, 1024))
    for number, filters in enumerate((1536, 2048), 1):
        x = F.relu(_separable(layers, x, f"block14_sepconv{number}", filters))
    return layers.dense(x.mean((2, 3)), classes, "predictions")


def _shrinking(layers, x, block, filters):
    """Return a block with a shortcut of its own, which Keras makes first."""
    shortcut = layers.batch_norm(layers.convolution(x, layers.filters(filters[-1]), 1, 1, 2))
    return pooled_same(_separables(layers, x, block, filters)) + shortcut


def _separables(layers, x, block, filters):
    for number, each in enumerate(filters, 1):
        # block2 has no ReLU here, and needs none: its input went through one.
        x = x if (block, number) == ("block2", 1) else F.relu(x)
        x = _separable(layers, x, f"{block}_sepconv{number}", each)
    return x


def _separable(layers, x, name, filters):
    return layers.batch_norm(layers.separable(x, layers.filters(filters), name), f"{name}_bn")
