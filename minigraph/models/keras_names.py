"""Where Keras keeps the weights of these networks: the paths of keras.applications' variables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from minigraph.models.inception import convolution_scopes
from minigraph.models.weights import Names, Rule, names_of

# Layers without a name of their own are numbered as they are made: conv2d, conv2d_1, conv2d_2 …
_PLACES = {scope: place for place, scope in enumerate(convolution_scopes())}
_AUTOMATIC = re.compile(r"(?P<kind>conv2d|batch_normalization)(?:_(?P<number>\d+))?(?P<rest>/.+)")


def numbered(kind: str, place: int) -> str:
    """Return the name that Keras gives to a layer, the first one having place 0.

    >>> numbered("conv2d", 0), numbered("conv2d", 17)
    ('conv2d', 'conv2d_17')
    """
    return f"{kind}_{place}" if place else kind


def renumbered(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return the weights of one network with automatic numbers that begin at 0.

    Keras counts on from network to network until `keras.utils.clear_session()`; and its first versions began at 1.

    >>> list(renumbered({"conv2d_95/kernel": 0, "conv2d_94/kernel": 0, "predictions/bias": 0}))
    ['conv2d_1/kernel', 'conv2d/kernel', 'predictions/bias']
    """
    found = {name: match for name in arrays if (match := _AUTOMATIC.fullmatch(name))}
    first: dict[str, int] = {}
    for match in found.values():
        first[match["kind"]] = min(_number(match), first.get(match["kind"], _number(match)))
    names = {
        name: numbered(match["kind"], _number(match) - first[match["kind"]]) + match["rest"]
        for name, match in found.items()
    }
    return {names.get(name, name): array for name, array in arrays.items()}


def _number(match: re.Match[str]) -> int:
    return int(match["number"] or 0)


_NUMBERED = "|".join(_PLACES)
INCEPTION = (
    Rule(rf"({_NUMBERED})", lambda scope: numbered("conv2d", _PLACES[scope])),
    Rule(rf"({_NUMBERED})_bn", lambda scope: numbered("batch_normalization", _PLACES[scope])),
    Rule(r"head/predictions", lambda: "predictions"),
)

# The blocks that halve height and width have a shortcut; only these convolutions have no name of their own.
_SHORTCUTS = {"2": 0, "3": 1, "4": 2, "13": 3}

XCEPTION = (
    Rule(r"block(2|3|4|13)/shortcut", lambda block: numbered("conv2d", _SHORTCUTS[block])),
    Rule(r"block(2|3|4|13)/shortcut_bn", lambda block: numbered("batch_normalization", _SHORTCUTS[block])),
    Rule(r"(block\d+)/((?:sep)?conv\d(?:_bn)?)", lambda block, layer: f"{block}_{layer}"),
    Rule(r"head/predictions", lambda: "predictions"),
)

NAMES: dict[str, Names] = {
    "inception_v3": names_of("keras", INCEPTION),
    "xception": names_of("keras", XCEPTION),
}
