"""The machine's limits: measured, kept, read back; and floors in profiles."""

from __future__ import annotations

import json

import numpy as np
import pytest

import minigraph as mg
from minigraph.cli import main
from minigraph.ops import exp, matmul, relu
from minigraph.ops.group import group
from minigraph.runtime import machine
from minigraph.runtime.machine import Machine
from minigraph.runtime.profile import Profile, Timing, label

LIMITS = Machine("cpu", 2, 1e11, ((2_000_000, 2e11), (16_000_000, 5e10), (400_000_000, 1e10)))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(machine, "_SECONDS", 0.01)
    monkeypatch.setattr(machine, "_LARGE", 3 << 22)


def test_what_was_measured_is_kept(tmp_path):
    assert machine.measured() is None
    one, both = machine.measure(1), machine.measure(2)
    assert one.flops > 1e8 and one.bandwidth > 1e8 and len(one.bandwidths) == 3
    assert machine.measured(1) == one and machine.measured(2) == both and machine.measured(3) is None
    content = json.loads((tmp_path / "minigraph/machine.json").read_text())
    assert list(content) == [f"{machine.cpu()}, 1 threads", f"{machine.cpu()}, 2 threads"]


@pytest.mark.parametrize("text", ["", "[]", "[1]", '{"a": 1}', '{"a": {"cpu": "x"}}', "{", '{"a": {"bandwidths": 1}}'])
def test_a_file_that_cannot_be_read_is_measured_again(tmp_path, text):
    (tmp_path / "minigraph").mkdir()
    (tmp_path / "minigraph/machine.json").write_text(text)
    assert machine.measured(1) is None
    machine.measure(1)
    assert machine.measured(1) is not None


def test_a_floor_is_the_larger_of_two_and_knows_the_caches():
    assert LIMITS.floor(1e9, 0) == pytest.approx(0.01)
    assert LIMITS.floor(0, 1_000_000) == pytest.approx(5e-6)
    assert LIMITS.floor(0, 10_000_000) == pytest.approx(2e-4)
    assert LIMITS.floor(0, 10**9) == pytest.approx(0.1)
    assert LIMITS.floor(1e9, 10**9) == pytest.approx(0.1)


def test_info_measures_on_demand(capsys):
    assert main(["info"]) == 0
    assert "minigraph info --measure finds its limits" in capsys.readouterr().out
    assert main(["info", "--measure"]) == 0
    said = capsys.readouterr().out
    assert "1 thread: " in said and "GFLOP/s" in said and "GB/s on" in said
    assert main(["info"]) == 0
    assert "GFLOP/s" in capsys.readouterr().out


def test_a_profile_has_floors_once_the_machine_was_measured():
    x, w = mg.Input((64,), name="x"), mg.variable((64, 64), name="w", init=0.01)
    program = mg.compile({"y": relu(matmul(x, w))})
    state, feed = mg.State.initial([w]), {"x": np.ones((256, 64))}
    before = program.profile(state, 2, **feed)
    assert before.floor is None and "minigraph info --measure" in str(before)
    limits = machine.measure(program.backend.threads)
    after = program.profile(state, 2, **feed)
    assert [t.floor for t in after.timings] == [limits.floor(t.flops, t.bytes) for t in after.timings]
    assert after.floor == pytest.approx(sum(t.floor for t in after.timings))
    assert "× floor" in str(after) and "--measure" not in str(after)


def test_the_table_is_aligned_and_leaves_out_what_is_only_a_call():
    node = matmul(mg.variable((2, 2), name="a"), mg.variable((2, 2), name="b"))
    slow, small = Timing(node, 4e-3, 10**8, 10, 1e-3), Timing(node, 1e-6, 10, 10, 1e-10)
    header, first, second, total = str(Profile((small, slow))).splitlines()
    assert first.split()[:6] == ["4000.0", "100.0%", "25.0", "0.0", "1000.0", "4.0"]
    assert header.index("node") == first.index("matmul") == second.index("matmul")
    assert second.split()[4:6] == ["0.0", "matmul"]
    assert total.split()[:3] == ["4001.0", "1000.0", "4.0"]


def test_groups_are_called_by_their_anchors():
    x = mg.variable((4, 4), name="x")
    y = matmul(x, x)
    assert label(group([y, exp(y), relu(y)], [y])) == "group(matmul … 2 more)"
    z = exp(x)
    assert label(group([z, relu(z)], [z])) == "group(exp, relu)"
    program = mg.compile({"y": relu(matmul(mg.Input((4,), name="i"), x) + mg.variable((4,), name="b"))})
    state = mg.State({"x": np.ones((4, 4), np.float32), "b": np.ones(4, np.float32)})
    assert "fused(matmul … 2 more) float32[2,4]" in str(program.profile(state, 1, i=np.ones((2, 4))))
