import io
import os
import re
import subprocess
import sys
import time
from xml.etree import ElementTree

import pytest
from viz_graphs import network

from minigraph.errors import ArgumentError, MinigraphError
from minigraph.passes import SIMPLIFY, CommonSubexpressions, run
from minigraph.viz import mimebundle, render
from minigraph.viz import renderer as renderers
from minigraph.viz.renderer import Renderer, graphviz_pure, ladder

SVG = "{http://www.w3.org/2000/svg}"
posix = pytest.mark.skipif(os.name != "posix", reason="fake programs are shell scripts")
drawing = pytest.mark.skipif(not ladder("svg"), reason="nothing here draws")


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Make a program called `name` that runs a shell script, in a folder that is all there is on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def make(script, name="dot"):
        file = folder / name
        file.write_text(f"#!/bin/sh\nsource=$(/bin/cat)\n{script}\n")
        file.chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))
        return file

    return make


@pytest.fixture
def nothing(monkeypatch, tmp_path):
    """A machine without any renderer."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(renderers, "graphviz_pure", lambda: None)
    monkeypatch.setattr(renderers.importlib.util, "find_spec", lambda name: None)


ECHO = """printf '<svg><!--%s--></svg>' "$source" """
GRAPH = network(0, train=False)


@drawing
def test_svg_is_an_accessible_image_with_classes():
    graph = network()
    root = ElementTree.fromstring(render(graph, collapse="none", title="One <step>"))
    assert root.get("role") == "img"
    assert root[0].tag == SVG + "title" and root[0].text == "One <step>"
    assert [t.text for t in root.iter(SVG + "title")].count("minigraph") == 0
    assert sum(len(style.text) for style in root.iter(SVG + "style")) < 300
    classes = [g.get("class").split() for g in root.iter(SVG + "g")]
    assert sum(c[0] == "node" and "grad" in c for c in classes) > 20
    assert sum(c[0] == "edge" and "saved" in c for c in classes) > 10
    assert sum(c[0] == "cluster" for c in classes) > 3
    ids = [e.get("id") for e in root.iter() if e.get("id")]
    assert len(set(ids)) == len(ids)
    assert len({re.match(r"mg[0-9a-f]{8}", i)[0] for i in ids}) == 1


@drawing
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_svg_has_six_digit_colours_only(theme):
    svg = render(network(), theme=theme)
    colours = set(re.findall(r'(?:fill|stroke)="([^"]*)"', svg)) - {"none"}
    assert all(re.fullmatch(r"#[0-9a-f]{6}", c) for c in colours)
    assert len(colours) > 10


@drawing
def test_the_same_graph_gives_the_same_picture():
    assert render(GRAPH) == render(network(0, train=False))


@drawing
def test_files_of_each_format(tmp_path):
    for name, mark in (
        ("a.svg", b"<svg"),
        ("a.png", b"\x89PNG\r\n\x1a\n"),
        ("a.dot", b"digraph"),
        ("b.GV", b"digraph"),
    ):
        file = render(GRAPH, tmp_path / name)
        assert file == tmp_path / name
        assert file.read_bytes().startswith(mark)
    assert sorted(os.listdir(tmp_path)) == ["a.dot", "a.png", "a.svg", "b.GV"], "no temporary files are left"


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    old = tmp_path / "a.dot"
    old.write_text("old")

    def refuse(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        render(GRAPH, old)
    assert old.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.dot"]


@pytest.mark.parametrize("name", ["a.jpeg", "a", "a.svgz"])
def test_an_unknown_format_lists_the_known_ones(name, tmp_path):
    with pytest.raises(ArgumentError, match=r"\.svg, \.png, \.pdf, \.dot"):
        render(GRAPH, tmp_path / name)


def test_bad_arguments():
    with pytest.raises(ArgumentError, match="no such folder"):
        render(GRAPH, "no/such/folder/a.svg")
    with pytest.raises(ArgumentError, match="timeout"):
        render(GRAPH, timeout=0)
    with pytest.raises(ArgumentError, match="no such program"):
        render(GRAPH, dot="no/such/dot")


@posix
def test_dot_on_the_path_comes_first(fake):
    fake(ECHO)
    assert ladder("svg")[0].name == "dot"
    assert "digraph minigraph" in render(GRAPH)


@posix
def test_the_program_that_was_asked_for_is_the_only_one(fake):
    fake(ECHO)
    mine = fake("printf '<svg>mine</svg>'", "mydot")
    assert "mine" in render(GRAPH, dot=mine)
    broken = fake("echo no fonts >&2; exit 1", "broken")
    with pytest.raises(MinigraphError, match="no fonts"):
        render(GRAPH, dot=broken)


@posix
@pytest.mark.parametrize("script", ["exit 3", "exit 0", "printf nonsense", "echo syntax error >&2; exit 1"])
@pytest.mark.skipif(graphviz_pure() is None, reason="needs graphviz-pure")
def test_a_broken_dot_is_passed_over(script, fake):
    fake(script)
    assert ladder("svg")[1].name == "graphviz-pure"
    assert 'class="graph"' in render(GRAPH)


@posix
def test_pdf_by_a_dot_that_can(fake, tmp_path):
    fake("""[ "$1" = -Tpdf ] && printf '%%PDF-1.7'""")
    assert render(GRAPH, tmp_path / "a.pdf").read_bytes() == b"%PDF-1.7"


@pytest.mark.parametrize(("name", "advice"), [("a.pdf", "pygraphviz"), ("a.png", "pip install graphviz-pure")])
def test_without_a_renderer_the_dot_source_is_written_and_the_error_says_what_to_install(
    name, advice, nothing, tmp_path
):
    with pytest.raises(MinigraphError, match=advice) as caught:
        render(GRAPH, tmp_path / name)
    source = tmp_path / "a.dot"
    assert str(source) in str(caught.value)
    assert source.read_text().startswith("digraph")
    assert os.listdir(tmp_path) == ["a.dot"]


def test_without_a_renderer_text_is_left(nothing):
    with pytest.raises(MinigraphError, match="install"):
        render(GRAPH)
    assert mimebundle(GRAPH) == {"text/plain": str(GRAPH)}


@drawing
def test_a_notebook_gets_picture_and_text():
    bundle = mimebundle(GRAPH)
    assert list(bundle) == ["image/svg+xml", "text/plain"]
    assert bundle["image/svg+xml"].startswith("<svg ")


TRAINING = network(2)


@posix
@pytest.mark.parametrize(
    ("quick", "timeout", "remark", "absent"),
    [
        ("*constraint=false*) exec /bin/sleep 60;; *) %s;;", 2, "drawn without saved values<", "class=saved"),
        ("*'<B>rsqrt</B>'*) exec /bin/sleep 60;; *) %s;;", 3, "without saved values, layers collapsed<", "<B>relu</B>"),
        ("*splines=line*) %s;; *) exec /bin/sleep 60;;", 4, "layers collapsed, edges straight<", "class=saved"),
    ],
)
def test_a_slow_layout_is_drawn_with_less_and_says_so(quick, timeout, remark, absent, fake):
    fake(f'case "$source" in {quick % ECHO} esac')
    picture = render(TRAINING, timeout=timeout, collapse="none")
    assert "The layout took too long" in picture
    assert remark in picture
    assert absent not in picture


TRACE = run([CommonSubexpressions(), SIMPLIFY], TRAINING)[1]


@posix
@pytest.mark.parametrize(("fails", "why"), [("exec /bin/sleep 60", "took too long"), ("exit 1", "failed")])
def test_a_trace_that_cannot_be_laid_out_is_drawn_with_less_and_says_so(fails, why, fake):
    dot = fake(f'case "$source" in *constraint=false*) {fails};; *) {ECHO};; esac')
    picture = render(TRACE, timeout=3, collapse="none", dot=dot)
    assert f"The layout {why}: drawn without rows and saved values<" in picture
    assert "class=saved" not in picture
    assert "cluster_before" in picture and "cluster_after" in picture


@posix
def test_the_last_form_of_a_trace_has_a_box_for_each_layer_and_lane(fake):
    dot = fake(f'case "$source" in *splines=line*) {ECHO};; *) exit 1;; esac')
    picture = render(TRACE, dot=dot)
    assert "The layout failed: drawn without rows and saved values, layers collapsed, edges straight" in picture
    assert "newrank=false" in picture
    assert "<B>relu</B>" not in picture


@posix
def test_a_renderer_that_fails_at_one_picture_is_asked_for_a_simpler_one(fake):
    dot = fake(f'case "$source" in *constraint=false*) exit 1;; *) {ECHO};; esac')
    assert "The layout failed: drawn without saved values<" in render(TRAINING, collapse="none", dot=dot)


def test_a_trace_is_left_as_dot_source_where_nothing_draws(nothing, tmp_path):
    with pytest.raises(MinigraphError, match="install"):
        render(TRACE, tmp_path / "a.svg", step="cse")
    assert "cluster_before" in (tmp_path / "a.dot").read_text(encoding="utf-8")
    assert mimebundle(TRACE) == {"text/plain": TRACE.report()}


@posix
def test_a_layout_that_never_ends_is_stopped_with_its_children(fake, tmp_path):
    fake("/bin/sleep 60 & wait")
    begin = time.monotonic()
    with pytest.raises(MinigraphError, match="no picture after 1 s") as caught:
        render(TRAINING, tmp_path / "a.svg", timeout=1)
    assert time.monotonic() - begin < 5
    assert "a.dot" in str(caught.value)
    assert (tmp_path / "a.dot").exists()


@posix
def test_a_quick_layout_says_nothing(fake):
    fake(ECHO)
    assert "too long" not in render(TRAINING, timeout=5)


@posix
def test_a_program_that_cannot_start_is_an_error_of_its_own(tmp_path):
    file = tmp_path / "dot"
    file.write_text("#!/no/such/interpreter\n")
    file.chmod(0o755)
    with pytest.raises(MinigraphError, match="cannot be started"):
        Renderer("dot", (str(file),)).run("digraph {}", "svg", 5)


def test_importing_the_pictures_loads_no_graphviz():
    program = "import sys, minigraph.viz; print([m for m in sys.modules if 'graphviz' in m])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@drawing
def test_a_png_has_its_size_in_its_header(tmp_path):
    data = io.BytesIO(render(GRAPH, tmp_path / "a.png").read_bytes())
    data.seek(16)
    width, height = (int.from_bytes(data.read(4)) for _ in range(2))
    assert 100 < width < 5000 and 100 < height < 5000
