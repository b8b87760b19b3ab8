"""The code in docs/*.md runs, cell after cell, without Sphinx or Jupyter; and links between the pages resolve."""

import pathlib
import re
import sys
import types
from typing import NamedTuple

import pytest

import minigraph as mg

DOCS = pathlib.Path(__file__).parents[1] / "docs"
PAGES = sorted(DOCS.glob("*.md"))
FENCE = re.compile(r"^(`{3,}|:{3,})(.*)$")
# [text](target), but no picture and nothing in a code span.
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


class Block(NamedTuple):
    """A fenced block: what stands behind its fence, the line its content begins at, the content."""

    info: str
    line: int
    lines: list[str]


def split(path):
    """Return (prose lines, fenced blocks) of a page."""
    prose, blocks = [], []
    fence, current = "", None
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        match = FENCE.match(line)
        if current is None and match:
            fence, current = match[1], Block(match[2].strip(), number + 1, [])
        elif current is not None and line.rstrip() == fence:
            blocks.append(current)
            current = None
        elif current is not None:
            current.lines.append(line)
        else:
            prose.append(line)
    assert current is None, f"{path.name}: the block that begins at line {current.line} is not closed"
    return prose, blocks


def cells(path):
    """Return (first line, source) of each code cell, without cell options such as `:tags:`."""
    found = []
    for block in split(path)[1]:
        if block.info.startswith("{code-cell}"):
            skipped = 0
            while skipped < len(block.lines) and re.match(r":[\w-]+:|\s*$", block.lines[skipped]):
                skipped += 1
            found.append((block.line + skipped, "\n".join(block.lines[skipped:])))
    return found


def anchors(path):
    """Return the names that a link into a page may end with: headings as slugs, and labels."""
    names = set()
    for line in split(path)[0]:
        heading = re.match(r"#+ (.*)", line)
        if heading:
            words = re.sub(r"[^\w\- ]", "", heading[1].lower())
            names.add(words.strip().replace(" ", "-"))
        label = re.match(r"\((.*)\)=$", line)
        if label:
            names.add(label[1])
    return names


@pytest.mark.parametrize("page", [p for p in PAGES if cells(p)], ids=lambda p: p.stem)
def test_cells_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType(f"docs_{page.stem.replace('-', '_')}")
    # Dataclasses look their module up.
    monkeypatch.setitem(sys.modules, module.__name__, module)
    if page.stem == "onnx":
        pytest.importorskip("onnx", "1.17")
    for line, source in cells(page):
        # The blank lines make a traceback's line numbers those of the page.
        exec(compile("\n" * (line - 1) + source, str(page), "exec"), module.__dict__)
    assert not list(tmp_path.iterdir()), "a page leaves files behind"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_links_resolve(page):
    prose = re.sub(r"`[^`\n]*`", "", "\n".join(split(page)[0]))
    for target in LINK.findall(prose):
        if re.match(r"[a-z]+:", target):  # a URL
            continue
        name, _, anchor = target.partition("#")
        linked = page.parent / name if name else page
        assert linked.is_file(), f"{page.name}: there is no {target}"
        assert not anchor or anchor in anchors(linked), f"{page.name}: {linked.name} has no heading {anchor!r}"


def test_every_page_is_in_the_table_of_contents():
    listed = set()
    for block in split(DOCS / "index.md")[1]:
        if block.info.startswith("{toctree}"):
            listed |= {line.strip() for line in block.lines if line.strip() and not line.startswith(":")}
    assert listed == {page.stem for page in PAGES} - {"index"}


def test_included_files_exist():
    for page in PAGES:
        for block in split(page)[1]:
            match = re.match(r"\{(?:literalinclude|include|image|figure)\}\s*(\S+)", block.info)
            assert match is None or (DOCS / match[1]).is_file(), f"{page.name}: there is no {match[1]}"


def test_the_reference_names_everything_public():
    text = (DOCS / "reference.md").read_text(encoding="utf-8")
    listed = re.findall(r"auto(?:class|function):: (\S+)", text)
    listed += re.findall(r"autofunction:: (\S+)", (DOCS / "models.md").read_text(encoding="utf-8"))
    named = {name.rpartition(".")[2] for name in listed}
    modules = {
        "augmentation",
        "callbacks",
        "data",
        "datasets",
        "errors",
        "layers",
        "losses",
        "metrics",
        "models",
        "onnx",
        "ops",
    }
    modules |= {"optimizers", "testing", "viz"}
    assert set(mg.__all__) - modules <= named
    assert set(mg.models.__all__) <= named
    assert {f"minigraph.onnx.{name}" for name in mg.onnx.__all__} <= set(listed)
    # Aliases, and the modules below `layers`, are named in a sentence.
    assert set(mg.layers.__all__) - {"BatchNorm", "Input", "initializers", "regularizers"} <= named
    for module in ("ops", "errors"):
        assert f"automodule:: minigraph.{module}\n   :members:" in text


def test_the_twenty_lines_of_the_readme_run(tmp_path, monkeypatch, capsys):
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert sum(bool(line.strip()) for line in block.splitlines()) <= 20
    monkeypatch.chdir(tmp_path)
    with mg.fresh_names():
        exec(compile(block, "README.md", "exec"), {})
    assert {file.name for file in tmp_path.iterdir()} == {"training.svg", "digits.safetensors"}
    assert "batch_norm" in capsys.readouterr().out


def test_the_links_of_the_readme_lead_somewhere():
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+)\)", readme):
        assert (DOCS.parent / link).exists(), link
