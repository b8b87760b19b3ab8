"""Networks in PyTorch, written from the papers, whose modules have torchvision's names: so their state_dicts agree."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import pytest

torch = pytest.importorskip("torch")
nn = torch.nn


def convolution(into: int, out: int, size: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(into, out, size, stride, size // 2, groups=groups, bias=False)


# --- ResNet --------------------------------------------------------------------------------------------------------


class Residual(nn.Module):
    """What both kinds of block share: the shortcut."""

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.downsample = None
        if stride != 1 or into != out:
            self.downsample = nn.Sequential(convolution(into, out, 1, stride), nn.BatchNorm2d(out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return torch.relu(self.residual(x) + shortcut)


class BasicBlock(Residual):
    expansion = 1

    def __init__(self, into: int, filters: int, stride: int) -> None:
        super().__init__(into, filters, stride)
        self.conv1, self.bn1 = convolution(into, filters, 3, stride), nn.BatchNorm2d(filters)
        self.conv2, self.bn2 = convolution(filters, filters, 3), nn.BatchNorm2d(filters)

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))


class Bottleneck(Residual):
    expansion = 4

    def __init__(self, into: int, filters: int, stride: int) -> None:
        super().__init__(into, 4 * filters, stride)
        self.conv1, self.bn1 = convolution(into, filters, 1), nn.BatchNorm2d(filters)
        self.conv2, self.bn2 = convolution(filters, filters, 3, stride), nn.BatchNorm2d(filters)
        self.conv3, self.bn3 = convolution(filters, 4 * filters, 1), nn.BatchNorm2d(4 * filters)

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))
        return self.bn3(self.conv3(y))


class ResNet(nn.Module):
    def __init__(self, block: type[BasicBlock | Bottleneck], blocks: Sequence[int], classes: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = convolution(3, 64, 7, 2), nn.BatchNorm2d(64)
        into = 64
        for stage, number in enumerate(blocks):
            filters, made = 64 << stage, []
            for place in range(number):
                made.append(block(into, filters, 2 if stage and not place else 1))
                into = filters * block.expansion
            setattr(self, f"layer{stage + 1}", nn.Sequential(*made))
        self.fc = nn.Linear(into, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


# --- MobileNetV2 ---------------------------------------------------------------------------------------------------


def convolution_bn_relu6(into: int, out: int, size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(convolution(into, out, size, stride, groups), nn.BatchNorm2d(out), nn.ReLU6())


class InvertedResidual(nn.Module):
    def __init__(self, into: int, out: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = into * expansion
        parts = [convolution_bn_relu6(into, wide, 1)] if expansion != 1 else []
        self.conv = nn.Sequential(
            *parts, convolution_bn_relu6(wide, wide, 3, stride, wide), convolution(wide, out, 1), nn.BatchNorm2d(out)
        )
        self.adds = stride == 1 and into == out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.adds else self.conv(x)


class MobileNetV2(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        # expansion, filters, blocks, stride
        plan = (
            (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)
        )  # fmt: skip
        features, into = [convolution_bn_relu6(3, 32, 3, 2)], 32
        for expansion, out, number, stride in plan:
            for place in range(number):
                features.append(InvertedResidual(into, out, 1 if place else stride, expansion))
                into = out
        self.features = nn.Sequential(*features, convolution_bn_relu6(into, 1280, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.0), nn.Linear(1280, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


# --- DenseNet ------------------------------------------------------------------------------------------------------


class DenseLayer(nn.Module):
    def __init__(self, into: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(into), convolution(into, 4 * growth, 1)
        self.norm2, self.conv2 = nn.BatchNorm2d(4 * growth), convolution(4 * growth, growth, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv1(torch.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(torch.relu(self.norm2(y)))], 1)


class DenseNet(nn.Module):
    def __init__(self, depths: Sequence[int], classes: int, growth: int = 32) -> None:
        super().__init__()
        channels = 2 * growth
        parts: list[tuple[str, nn.Module]] = [
            ("conv0", convolution(3, channels, 7, 2)), ("norm0", nn.BatchNorm2d(channels)), ("relu0", nn.ReLU()),
            ("pool0", nn.MaxPool2d(3, 2, 1)),
        ]  # fmt: skip
        for stage, depth in enumerate(depths, 1):
            made = [(f"denselayer{i + 1}", DenseLayer(channels + i * growth, growth)) for i in range(depth)]
            parts.append((f"denseblock{stage}", nn.Sequential(OrderedDict(made))))
            channels += depth * growth
            if stage < len(depths):
                inner = [
                    ("norm", nn.BatchNorm2d(channels)), ("relu", nn.ReLU()),
                    ("conv", convolution(channels, channels // 2, 1)), ("pool", nn.AvgPool2d(2)),
                ]  # fmt: skip
                parts.append((f"transition{stage}", nn.Sequential(OrderedDict(inner))))
                channels //= 2
        self.features = nn.Sequential(OrderedDict([*parts, ("norm5", nn.BatchNorm2d(channels))]))
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.relu(self.features(x)).mean((2, 3)))


# --- VGG and LeNet: for the name map and the order of flattened features -------------------------------------------


class VGG(nn.Module):
    def __init__(self, stages: Sequence[int], classes: int, units: int) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        into = 3
        for number, out in zip(stages, (64, 128, 256, 512, 512), strict=True):
            for _ in range(number):
                parts += [nn.Conv2d(into, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU()]
                into = out
            parts.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*parts)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(512 * 49, units), nn.ReLU(), nn.Dropout(0.0), nn.Linear(units, units), nn.ReLU(),
            nn.Dropout(0.0), nn.Linear(units, classes),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


class LeNet5(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.max_pool2d(torch.relu(self.conv1(x)), 2)
        x = nn.functional.max_pool2d(torch.relu(self.conv2(x)), 2)
        return self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(torch.flatten(x, 1))))))


NETWORKS = {
    "lenet5": LeNet5,
    "resnet18": lambda classes: ResNet(BasicBlock, (2, 2, 2, 2), classes),
    "resnet34": lambda classes: ResNet(BasicBlock, (3, 4, 6, 3), classes),
    "resnet50": lambda classes: ResNet(Bottleneck, (3, 4, 6, 3), classes),
    "mobilenet_v2": MobileNetV2,
    "densenet121": lambda classes: DenseNet((6, 12, 24, 16), classes),
    "vgg11": lambda classes: VGG((1, 1, 2, 2, 2), classes, units=32),
}
