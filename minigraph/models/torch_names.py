"""Where PyTorch keeps the weights of these networks: the names that torchvision's modules give to their state_dict."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from minigraph.models import mobilenet, vgg
from minigraph.models.weights import AfterFlatten, Names, Rule, names_of

# LeNet-5 is not in torchvision; its names are those that PyTorch's tutorials give to its layers.
LENET = (
    Rule("fc1", lambda: "fc1", AfterFlatten(channels=16)),
    Rule(r"(conv\d|fc\d)", lambda layer: layer),
)

RESNET = (
    Rule("stem/(conv|bn)", lambda layer: f"{layer}1"),
    Rule(
        r"stage(\d)/block(\d+)/shortcut/(conv|bn)",
        lambda stage, block, layer: f"layer{stage}.{int(block) - 1}.downsample.{_place(layer)}",
    ),
    Rule(r"stage(\d)/block(\d+)/((?:conv|bn)\d)", lambda stage, block, layer: f"layer{stage}.{int(block) - 1}.{layer}"),
    Rule("head/fc", lambda: "fc"),
)

# Number of the first block of each stage in `features`, where 0 is the stem; the last entry is the final convolution.
_BLOCKS = tuple(accumulate((blocks for _, _, blocks, _ in mobilenet.STAGES), initial=1))

MOBILENET = (
    Rule("stem/(conv|bn)", lambda layer: f"features.0.{_place(layer)}"),
    Rule("stage1/block1/depthwise/(conv|bn)", lambda layer: f"features.1.conv.0.{_place(layer)}"),
    Rule("stage1/block1/project/(conv|bn)", lambda layer: f"features.1.conv.{1 + _place(layer)}"),
    Rule(
        r"stage(\d)/block(\d)/(expand|depthwise)/(conv|bn)",
        lambda stage, block, part, layer: (
            f"features.{_block(stage, block)}.conv.{int(part == 'depthwise')}.{_place(layer)}"
        ),
    ),
    Rule(
        r"stage(\d)/block(\d)/project/(conv|bn)",
        lambda stage, block, layer: f"features.{_block(stage, block)}.conv.{2 + _place(layer)}",
    ),
    Rule("top/(conv|bn)", lambda layer: f"features.{_BLOCKS[-1]}.{_place(layer)}"),
    Rule("head/fc", lambda: "classifier.1"),
)

DENSENET = (
    Rule("stem/(conv|bn)", lambda layer: f"features.{_norm(layer)}0"),
    Rule(
        r"stage(\d)/layer(\d+)/(conv|bn)(\d)",
        lambda stage, place, layer, number: f"features.denseblock{stage}.denselayer{place}.{_norm(layer)}{number}",
    ),
    Rule(r"transition(\d)/(conv|bn)", lambda stage, layer: f"features.transition{stage}.{_norm(layer)}"),
    Rule("head/bn", lambda: "features.norm5"),
    Rule("head/fc", lambda: "classifier"),
)


def _place(layer: str) -> int:
    """Return the place of a layer in a torch.nn.Sequential of a convolution and its batch norm."""
    return ("conv", "bn").index(layer)


def _norm(layer: str) -> str:
    return "norm" if layer == "bn" else layer


def _block(stage: str, block: str) -> int:
    return _BLOCKS[int(stage) - 1] + int(block) - 1


def _vgg(stages: Sequence[int]) -> tuple[Rule, ...]:
    """Return the rules of a VGG network, whose `features` number convolutions, batch norms, ReLUs and pools."""
    first = tuple(accumulate((3 * number + 1 for number in stages), initial=0))

    def feature(stage: str, block: str, layer: str) -> str:
        return f"features.{first[int(stage) - 1] + 3 * (int(block) - 1) + _place(layer)}"

    return (
        Rule(r"stage(\d)/block(\d)/(conv|bn)", feature),
        Rule("head/fc1", lambda: "classifier.0", AfterFlatten(channels=vgg.FILTERS[-1])),
        Rule(r"head/fc(\d)", lambda number: f"classifier.{3 * (int(number) - 1)}"),
    )


FAMILIES: dict[str, Sequence[Rule]] = {
    "lenet5": LENET, "resnet18": RESNET, "resnet34": RESNET, "resnet50": RESNET, "mobilenet_v2": MOBILENET,
    "densenet121": DENSENET, **{name: _vgg(stages) for name, stages in vgg.STAGES.items()},
}  # fmt: skip

NAMES: dict[str, Names] = {name: names_of("pytorch", rules) for name, rules in FAMILIES.items()}
