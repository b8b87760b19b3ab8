"""Colours: one pair (pale fill, saturated border) for each kind of box, in a light and a dark theme."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from minigraph.errors import ArgumentError

FONT = "Helvetica"

# An op's category → the kind of box it is drawn as. What is not listed is drawn as "other".
KINDS: Mapping[str, str] = MappingProxyType(
    {
        "input": "input",
        "variable": "variable",
        "constant": "other",
        "conv": "matmul",
        "matmul": "matmul",
        "norm": "norm",
        "elementwise": "elementwise",
        "reduction": "reduction",
        "pool": "reduction",
        "fused": "fused",
        "function": "function",
    }
)

# What the legend calls each kind, in the legend's order.
NAMES: Mapping[str, str] = MappingProxyType(
    {
        "input": "input, output",
        "variable": "variable",
        "matmul": "conv, matmul",
        "norm": "normalisation",
        "elementwise": "elementwise",
        "reduction": "reduction, pooling",
        "fused": "fused",
        "function": "function",
        "other": "shape, other",
        "gradient": "gradient",
        "update": "update",
    }
)

# How the border of a changed box is drawn: the line's style and its width.
BORDERS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {"added": ("rounded,filled", "3"), "removed": ("rounded,filled,dashed", "2"), "changed": ("rounded,filled", "2")}
)


@dataclass(frozen=True)
class Theme:
    """All colours of a picture, as #rrggbb: renderers read shorter forms as black."""

    background: str
    text: str
    muted: str
    line: str
    saved: str
    cluster: tuple[str, str]
    changes: Mapping[str, str]
    boxes: Mapping[str, tuple[str, str]]

    def pale(self, color: str) -> str:
        """Return a colour half way to the background, for what did not change."""
        pairs = zip(_channels(color), _channels(self.background), strict=True)
        return "#" + "".join(f"{(a + b) // 2:02x}" for a, b in pairs)


def _channels(color: str) -> tuple[int, ...]:
    return tuple(int(color[i : i + 2], 16) for i in (1, 3, 5))


THEMES: Mapping[str, Theme] = MappingProxyType(
    {
        "light": Theme(
            background="#ffffff",
            text="#0f172a",
            muted="#64748b",
            line="#475569",
            saved="#b6c2d2",
            cluster=("#f1f5f9", "#cbd5e1"),
            changes=MappingProxyType({"added": "#15803d", "removed": "#b91c1c", "changed": "#b45309"}),
            boxes=MappingProxyType(
                {
                    "input": ("#e0f2fe", "#0284c7"),
                    "variable": ("#fef3c7", "#d97706"),
                    "matmul": ("#ede9fe", "#7c3aed"),
                    "norm": ("#dbeafe", "#2563eb"),
                    "elementwise": ("#dcfce7", "#16a34a"),
                    "reduction": ("#ffe4e6", "#e11d48"),
                    "fused": ("#ccfbf1", "#0d9488"),
                    "function": ("#ecfccb", "#65a30d"),
                    "other": ("#ffffff", "#64748b"),
                    "gradient": ("#ffedd5", "#ea580c"),
                    "update": ("#fce7f3", "#db2777"),
                }
            ),
        ),
        "dark": Theme(
            background="#0f172a",
            text="#f1f5f9",
            muted="#a3b1c6",
            line="#94a3b8",
            saved="#54647d",
            cluster=("#1e293b", "#334155"),
            changes=MappingProxyType({"added": "#4ade80", "removed": "#f87171", "changed": "#fbbf24"}),
            boxes=MappingProxyType(
                {
                    "input": ("#0c3048", "#38bdf8"),
                    "variable": ("#3f2d0a", "#fbbf24"),
                    "matmul": ("#2e2352", "#a78bfa"),
                    "norm": ("#172b55", "#60a5fa"),
                    "elementwise": ("#10341f", "#4ade80"),
                    "reduction": ("#45121f", "#fb7185"),
                    "fused": ("#0b3733", "#2dd4bf"),
                    "function": ("#26330a", "#a3e635"),
                    "other": ("#1b2537", "#94a3b8"),
                    "gradient": ("#43200c", "#fb923c"),
                    "update": ("#431430", "#f472b6"),
                }
            ),
        ),
    }
)


def theme_called(name: str) -> Theme:
    """Return the theme `name`, or raise an ArgumentError that lists the themes there are."""
    if name not in THEMES:
        raise ArgumentError("no such theme", expected=" or ".join(THEMES), got=repr(name))
    return THEMES[name]
