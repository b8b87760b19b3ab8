"""The whole story in ten seconds: define, print, two programs, gradients, optimise, plan, train, draw."""

from __future__ import annotations

import numpy as np
import pytest

import minigraph as mg
from minigraph import layers


def points(count: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Return points of the plane, and which of them lie in a ring around the origin: no line parts them."""
    x = np.random.default_rng(0).uniform(-1, 1, (count, 2)).astype(np.float32)
    radius = np.hypot(x[:, 0], x[:, 1])
    return x, ((radius > 0.4) & (radius < 0.85)).astype(np.int64)


def network() -> mg.Model:
    with mg.fresh_names():
        x = mg.Input((2,), name="x")
        y = layers.Dense(16, use_bias=False)(x)
        y = layers.BatchNormalization(momentum=0.9)(y)
        y = layers.ReLU()(y)
        y = layers.Dense(16, activation="relu")(y)
        y = layers.Dropout(0.1)(y)
        return mg.Model(x, layers.Dense(2)(y))


def compiled() -> mg.Model:
    model = network()
    model.compile(
        optimizer=mg.optimizers.Adam(0.02),
        loss=mg.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def test_1_a_model_is_defined_once_as_a_graph():
    graph = network().graph
    assert [n.label for n in graph.inputs] == ["x"] and graph.symbols == ("N",)
    assert [n.op.name for n in graph.nodes if n.op.category not in ("input", "variable")] == [
        "matmul", "batch_norm", "relu", "matmul", "add", "relu", "dropout", "matmul", "add",
    ]  # fmt: skip


def test_2_the_graph_is_text_that_reads_back():
    graph = network().graph
    text = str(graph)
    assert text.splitlines()[1] == '  %0 = input("x") : float32[N,2]'
    assert "momentum=0.9" in text and '@ "batch_normalization"' in text
    assert mg.parse(text).same_as(graph) and str(mg.parse(text)) == text


def test_3_one_definition_two_programs():
    model = network()
    training, inference = model.lower("training"), model.lower("inference")
    assert "moments" in str(training) and "random_uniform" in str(training)
    assert "moments" not in str(inference) and "dropout" not in str(inference)
    assert {v.label for v in training.updates} == {
        "batch_normalization/moving_mean", "batch_normalization/moving_variance", "random/step",
    }  # fmt: skip
    assert not inference.updates


def test_4_gradients_are_nodes_of_the_same_graph():
    w = mg.variable((3,), name="w", init=2.0)
    loss = mg.ops.sum(w * w * w)
    (g,) = mg.gradients(loss, [w])
    (h,) = mg.gradients(mg.ops.sum(g), [w])
    state = mg.State.initial([w])
    np.testing.assert_allclose(mg.evaluate(g, state), 3 * 2.0**2 * np.ones(3))
    np.testing.assert_allclose(mg.evaluate(h, state), 6 * 2.0 * np.ones(3))
    mg.testing.check_gradients(lambda a: mg.ops.tanh(a) * a, [np.linspace(-1, 1, 5)])


def test_5_passes_make_the_graph_smaller_and_change_no_number():
    model = compiled()
    graph = model.lower("training", batch_size=8)
    optimised, trace = mg.optimize(graph)
    assert len(optimised.nodes) < len(graph.nodes) and mg.verify(optimised) is optimised
    assert "simplify" in trace.report() and any(step.rewrites for step in trace.steps)
    x, y = points(8)
    results = []
    for each in (graph, optimised):
        state = model.state.copy()
        results.append(mg.compile(each, optimize=False)(state, x=x, label=y)["loss"])
    np.testing.assert_allclose(*results, rtol=1e-5)


def test_6_the_memory_is_planned_before_anything_runs():
    program = compiled().program("training")
    program.prepare(N=64)
    plan = program.plan.check()
    assert plan.lower_bound <= plan.peak < sum(slot.nbytes for slot in plan.all_slots) / 2
    assert str(plan).startswith(f"plan: {len(plan.steps)} kernel calls")


def test_7_it_learns():
    model, (x, y) = compiled(), points()
    before = model.evaluate(x, y)["accuracy"]
    history = model.fit(x, y, epochs=80, batch_size=64, verbose=0).history
    after = model.evaluate(x, y)
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    assert after["accuracy"] > max(0.9, before)
    assert (model.predict(x).argmax(-1) == y).mean() == pytest.approx(after["accuracy"])


def test_8_frozen_a_model_is_a_function_of_its_input_alone():
    model, (x, y) = compiled(), points()
    model.fit(x, y, epochs=30, batch_size=64, verbose=0)
    frozen, _ = mg.optimize(model.lower("inference"), state=model.state)
    assert not frozen.variables
    np.testing.assert_allclose(mg.compile(frozen)(x=x)["output"], model.predict(x), rtol=1e-4, atol=1e-5)


def test_9_it_can_be_drawn_as_text_for_graphviz(tmp_path):
    path = tmp_path / "net.dot"
    mg.render(network().graph, path)
    drawing = path.read_text(encoding="utf-8")
    assert drawing.lstrip().startswith("digraph") and "matmul" in drawing


def test_10_errors_are_written_for_a_student():
    with pytest.raises(mg.errors.ShapeError) as caught:
        mg.Input((3,), name="x") @ mg.variable((4, 2), name="w")
    text = str(caught.value)
    assert "inner sizes of a matrix product differ" in text and __file__ in text and "expected: 3 rows" in text
