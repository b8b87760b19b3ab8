"""Reading DOT source in tests: its boxes, its edges, and the words on them."""

import re


def boxes(source):
    """The boxes of DOT source: id → its line."""
    return {m[1]: m[0] for m in re.finditer(r"^\s*(\w+) \[.*", source, re.M) if m[1] not in ("graph", "node", "edge")}


def edges(source):
    """The edges that DOT source shows: (tail, head, attributes), the way the values flow."""
    found = []
    for tail, head, rest in re.findall(r"^\s*(\w+) -> (\w+)(.*)$", source, re.M):
        if "style=invis" in rest:  # there for the layout alone
            continue
        found.append((head, tail, rest) if "dir=back" in rest else (tail, head, rest))
    return found


def words(line):
    """What a reader sees of a box or an edge."""
    return re.sub(r"<[^<>]*>", " ", line[line.index("<") + 1 : line.rindex(">")]).split()


def clusters(source):
    return source.count("subgraph cluster_")


def panels(source):
    """The source of the two panels of a comparison: before and after."""
    before, after = source.index("subgraph cluster_before"), source.index("subgraph cluster_after")
    first, second = sorted([before, after])
    parts = source[first:second], source[second:]
    return parts if before < after else parts[::-1]


def rows(source):
    """The pairs of boxes that stand in one row."""
    return re.findall(r"rank=same\s+(\w+)\s+(\w+)\s", source)
