"""`minigraph onnx`, as a user meets it: each action, and for bad input one clear message."""

from __future__ import annotations

import numpy as np
import pytest

import minigraph as mg
from minigraph.cli import main

onnx = pytest.importorskip("onnx", "1.17")

from onnx import helper  # noqa: E402
from small_onnx import convolution, model, value  # noqa: E402


def resized():
    """An image whose sizes are open, enlarged: that takes numbers."""
    node = helper.make_node("Resize", ["image", "", "scales"], ["y"], name="larger", mode="linear")
    scales = {"scales": np.array([1, 1, 1.5, 1.5], np.float32)}
    return model([node], [value("image", "batch", 3, "height", "width")], [value("y", None, 3, None, None)], scales)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Work in a folder with a model that can be read as it is, one whose sizes are open, and one that is none."""
    monkeypatch.chdir(tmp_path)
    onnx.save(convolution(), "net.onnx")
    onnx.save(resized(), "open.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    return tmp_path


def test_info_tells_versions_ops_inputs_parameters_and_costs(capsys):
    assert main(["onnx", "info", "net.onnx"]) == 0
    said = capsys.readouterr().out
    assert "IR 8, opset ai.onnx 17" in said and "6 nodes: 1 Conv, 1 BatchNormalization" in said
    assert "input  x: float32[N,2,4,4]" in said and "output y: float32[N,8]" in said
    assert "5 variables, 44 parameters, 176 B" in said and "FLOPs" in said  # 2·2·3·3 weights, 4·2 of the batch norm


def test_info_with_open_sizes_bound(capsys):
    assert main(["onnx", "info", "open.onnx", "--shape", "image=1,3,8,8"]) == 0
    assert "output y: float32[1,3,12,12]" in capsys.readouterr().out


@pytest.mark.parametrize("mode", ["definition", "training", "inference"])
def test_render_draws_each_mode(mode, here, capsys):
    assert main(["onnx", "render", "net.onnx", "--mode", mode, "--out", "net.svg"]) == 0
    assert "net.svg" in capsys.readouterr().out
    assert "<svg" in (here / "net.svg").read_text(encoding="utf-8")


def test_render_takes_shapes(here):
    assert main(["onnx", "render", "open.onnx", "--shape", "image=1,3,8,8", "--out", "net.dot"]) == 0
    assert "[1,3,8,8]" in (here / "net.dot").read_text(encoding="utf-8")


def test_passes_report_draw_prove_and_write(here, capsys):
    arguments = ["--out", "out.txt", "--render", "fold.svg", "--step", "fold_batch_norm", "--verify", "2"]
    assert main(["onnx", "passes", "net.onnx", *arguments]) == 0
    said = capsys.readouterr().out
    assert "folded into conv2d conv" in said and "all within their bounds" in said
    assert "<svg" in (here / "fold.svg").read_text(encoding="utf-8")
    assert "batch_norm" not in (here / "out.txt").read_text(encoding="utf-8")


def test_optimize_writes_a_model_that_computes_the_same(here, capsys):
    assert main(["onnx", "optimize", "net.onnx", "small.onnx"]) == 0
    said = capsys.readouterr().out
    assert "folded into conv2d conv" in said and said.rstrip().endswith("small.onnx")
    small = onnx.load("small.onnx")
    onnx.checker.check_model(small, full_check=True)
    assert [node.op_type for node in small.graph.node] == ["Conv", "Relu", "Add", "MaxPool", "Flatten"]
    assert list(small.graph.input) == list(convolution().graph.input)
    x = np.random.default_rng(0).standard_normal((3, 2, 4, 4), np.float32)
    before, after = (mg.onnx.load(name).predict(x) for name in ("net.onnx", "small.onnx"))
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)


def test_optimize_with_open_sizes_bound(capsys):
    assert main(["onnx", "optimize", "open.onnx", "bound.onnx", "--shape", "image=2,3,8,8"]) == 0
    (image,) = onnx.load("bound.onnx").graph.input
    assert [dim.dim_value for dim in image.type.tensor_type.shape.dim] == [2, 3, 8, 8]


def test_optimize_may_replace_its_own_file(capsys):
    assert main(["onnx", "optimize", "net.onnx", "net.onnx"]) == 0
    assert len(onnx.load("net.onnx").graph.node) == 5


BAD = {
    "no such file": (["info", "missing.onnx"], ["missing.onnx"]),
    "no such file to optimise": (["optimize", "missing.onnx", "out.onnx"], ["missing.onnx"]),
    "a folder": (["info", "."], ["directory"]),
    "no model": (["info", "broken.onnx"], ["not a whole ONNX model", "download or export it again"]),
    "a shape without a name": (["info", "net.onnx", "--shape", "1,2,4,4"], ["not a shape", "--shape NAME="]),
    "a shape that is none": (["render", "net.onnx", "--shape", "x=1,2,four,4"], ["not a shape", "x=1,2,four,4"]),
    "a shape of another rank": (["passes", "net.onnx", "--shape", "x=1,2"], ["does not fit", "4 sizes"]),
    "an unknown input": (["info", "net.onnx", "--shape", "y=1,2,4,4"], ["no input is called 'y'", "expected: x"]),
    "a size that is fixed": (["info", "net.onnx", "--shape", "x=1,3,4,4"], ["axis 1 of input 'x' is not open"]),
    "open sizes": (["info", "open.onnx"], ["'larger' (Resize, opset 17)", "hint:", "bind open sizes"]),
    "open sizes, drawn": (["render", "open.onnx"], ["'larger' (Resize, opset 17)", "bind open sizes"]),
    "open sizes, optimised": (
        ["optimize", "open.onnx", "out.onnx"],
        ["'larger' (Resize, opset 17)", "bind open sizes"],
    ),
    "no folder to draw into": (["render", "net.onnx", "--out", "nowhere/net.svg"], ["no such folder", "nowhere"]),
    "no folder to write into": (["optimize", "net.onnx", "nowhere/out.onnx"], ["nowhere"]),
    "an unknown pass": (["passes", "net.onnx", "--pipeline", "fold_batchnorm"], ["did you mean fold_batch_norm?"]),
}


@pytest.mark.parametrize(("arguments", "words"), BAD.values(), ids=BAD)
def test_bad_input_is_one_clear_message_and_leaves_nothing(arguments, words, here, capsys):
    before = {path.name for path in here.iterdir()}
    assert main(["onnx", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith("minigraph: ") and all(word in said for word in words)
    assert "Traceback" not in said and " at: " not in said
    assert {path.name for path in here.iterdir()} == before


@pytest.mark.parametrize("action", ["render", "passes"])
def test_a_model_under_another_suffix_is_one_clear_message(action, here, capsys):
    (here / "net.onnx").rename(here / "net.pb")
    assert main(["onnx", action, "net.pb"]) == 2
    assert capsys.readouterr().err.startswith("minigraph: ")


@pytest.mark.parametrize("arguments", [[], ["optimise"], ["info"], ["optimize", "net.onnx"]])
def test_without_an_action_or_a_file_usage_is_shown(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["onnx", *arguments])
    assert stopped.value.code == 2
    assert "usage: minigraph onnx" in capsys.readouterr().err


def test_a_shape_may_leave_a_size_open_and_the_hint_is_the_shells(here, capsys):
    assert main(["onnx", "info", "open.onnx", "--shape", "image=?,3,16,16"]) == 0
    assert "float32[N,3,16,16]" in capsys.readouterr().out
