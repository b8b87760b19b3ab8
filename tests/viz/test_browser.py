"""Pictures as a browser shows them: words inside their boxes, titles for screen readers, no network."""

from __future__ import annotations

import itertools
import pathlib
import shutil

import pytest

import minigraph as mg
from minigraph.models.small import plain_network

pytestmark = pytest.mark.browser
CHROMIUM = shutil.which("chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-sync",
    "--disable-component-update",
    "--disable-quic",
]
# For each box of the picture: how far the widest line of words reaches beyond the border, in pixels.
OVERHANG = """() => [...document.querySelectorAll('g.node')].map(node => {
    const border = node.querySelector('path, polygon, ellipse');
    if (!border) return 0;
    const box = border.getBoundingClientRect();
    const words = [...node.querySelectorAll('text')].map(t => t.getBoundingClientRect());
    return Math.max(...words.map(w => Math.max(box.left - w.left, w.right - box.right)), 0);
})"""


@pytest.fixture(scope="module")
def page():
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        context = browser.new_context(offline=True, viewport={"width": 1400, "height": 1000})
        yield context.new_page()
        browser.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("mode", ["definition", "training", "inference"])
def test_words_stay_inside_their_boxes(page, tmp_path: pathlib.Path, mode: str, theme: str) -> None:
    model = plain_network((8, 8, 1), (4, "pool", 8))
    model.compile("adam", mg.losses.SparseCategoricalCrossentropy(from_logits=True))
    graph = model.graph if mode == "definition" else model.lower(mode)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(mg.render(graph, tmp_path / "graph.svg", theme=theme).as_uri())
    overhang = page.evaluate(OVERHANG)
    assert len(overhang) > 10
    assert max(overhang) <= 6, "a line of words is wider than its box"
    assert not errors


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("step", ["fold_batch_norm", "fuse", None])
def test_words_stay_inside_their_boxes_in_both_panels(
    page, tmp_path: pathlib.Path, step: str | None, theme: str
) -> None:
    model = plain_network((8, 8, 1), (4, "pool", 8))
    _, trace = mg.optimize(model.lower("inference", batch_size=1))
    page.goto(mg.render(trace, tmp_path / "trace.svg", step=step, theme=theme).as_uri())
    overhang = page.evaluate(OVERHANG)
    assert len(overhang) > 20
    assert max(overhang) <= 6, "a line of words is wider than its box"


def test_panels_stand_side_by_side_with_blocks_at_one_height(page, tmp_path: pathlib.Path) -> None:
    model = plain_network((8, 8, 1), (4, 4, "pool", 8))
    _, trace = mg.optimize(model.lower("inference", batch_size=1))
    page.goto(mg.render(trace, tmp_path / "trace.svg", step="fold_batch_norm").as_uri())
    before, after = page.evaluate("""() => ['before', 'after'].map(name => {
        const box = document.querySelector(`g.panel.${name}`).getBoundingClientRect();
        return [box.left, box.right, box.top, box.bottom];
    })""")
    assert before[1] <= after[0]
    assert abs(before[2] - after[2]) < 40 and abs(before[3] - after[3]) < 40
    ends = page.evaluate("""() => [...document.querySelectorAll('g')].filter(g =>
        [...g.children].some(c => c.tagName === 'text' && /^block/.test(c.textContent))
    ).map(g => g.getBoundingClientRect().bottom)""")
    assert len(ends) == 6
    assert all(abs(a - b) < 40 for a, b in zip(sorted(ends)[::2], sorted(ends)[1::2], strict=True))


def test_a_picture_has_a_name_for_screen_readers(page, tmp_path: pathlib.Path) -> None:
    x = mg.Input((3,), name="x")
    page.goto(mg.render(mg.Graph({"y": mg.ops.relu(x)}), tmp_path / "graph.svg", title="one ReLU").as_uri())
    assert page.evaluate("document.documentElement.getAttribute('role')") == "img"
    assert "one ReLU" in page.evaluate("document.querySelector('title').textContent")


def test_blocks_stand_one_below_the_other(page, tmp_path: pathlib.Path) -> None:
    model = plain_network((8, 8, 1), (4, 4, "pool", 8))
    page.goto(mg.render(model.lower("inference"), tmp_path / "graph.svg").as_uri())
    blocks = page.evaluate("""() => [...document.querySelectorAll('g')].filter(g =>
        [...g.children].some(c => c.tagName === 'text' && /^block/.test(c.textContent))
    ).map(g => { const box = g.getBoundingClientRect(); return [box.top, box.bottom]; })""")
    assert len(blocks) == 3
    assert all(upper[1] <= lower[0] for upper, lower in itertools.pairwise(sorted(blocks)))
