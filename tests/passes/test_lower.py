"""Lowering: what batch norm and dropout become in training and in inference, with numbers against plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import minigraph as mg
from minigraph import layers, ops
from minigraph.errors import ArgumentError, GradientError, GraphError, ShapeError
from minigraph.ir import Graph, Node, bind, scope, symbol, variable, verify
from minigraph.ir.leaves import fresh_names
from minigraph.ir.leaves import input as input_
from minigraph.ops.norm import BatchNorm, Moving
from minigraph.ops.random import RandomUniform
from minigraph.passes.lower import RANDOM_STEP
from passes.pictures import graph

N = symbol("N")
RNG = np.random.default_rng(0)


def normalise(x, gamma, beta, mean, variance, epsilon=1e-3):
    return gamma * (x - mean) / np.sqrt(np.asarray(variance) + epsilon) + beta


class Norm:
    """A batch norm over the last axis of images, its program in training, and what NumPy says each step must give."""

    def __init__(self, uses: int = 1, **options) -> None:
        x = input_((N, 2, 2, 3), name="x")
        with fresh_names():
            layer = layers.BatchNormalization(name="norm", **options)
        self.outputs = {f"y{i}": layer(x if i == 0 else x * 2.0) for i in range(uses)}
        self.definition = Graph(self.outputs)
        self.training = mg.lower(self.definition, "training")
        self.inference = mg.lower(self.definition, "inference")
        self.state = mg.State.initial(self.definition.variables)
        if "norm/gamma" in self.state:
            self.state["norm/gamma"] = [1.0, 2.0, -0.5]
        if "norm/beta" in self.state:
            self.state["norm/beta"] = [0.0, 1.0, 3.0]
        self.gamma = self.state.get("norm/gamma", np.ones(3)).copy()
        self.beta = self.state.get("norm/beta", np.zeros(3)).copy()

    def step(self, x):
        return mg.compile(self.training)(self.state, x=x)

    @property
    def averages(self):
        return self.state["norm/moving_mean"].copy(), self.state["norm/moving_variance"].copy()


def batch(size: int = 4):
    return RNG.normal(2.0, 3.0, (size, 2, 2, 3)).astype(np.float32)


# --- batch norm -------------------------------------------------------------------------------------------------------


def test_training_normalises_with_the_batchs_moments():
    norm, x = Norm(), batch()
    expected = normalise(x, norm.gamma, norm.beta, x.mean((0, 1, 2)), x.var((0, 1, 2)))
    np.testing.assert_allclose(norm.step(x)["y0"], expected, rtol=1e-4, atol=1e-5)


def test_inference_normalises_with_the_moving_averages_and_updates_nothing():
    norm, x = Norm(epsilon=1e-5), batch()
    norm.state["norm/moving_mean"], norm.state["norm/moving_variance"] = [1, 2, 3], [4, 5, 6]
    assert not norm.inference.updates
    got = mg.compile(norm.inference)(norm.state, x=x)["y0"]
    np.testing.assert_allclose(
        got, normalise(x, norm.gamma, norm.beta, [1, 2, 3], [4, 5, 6], 1e-5), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("momentum", [0.9, 0.99, 0.0, 1.0])
def test_moving_averages(momentum, unbiased):
    norm = Norm(momentum=momentum, unbiased=unbiased)
    mean, variance = np.zeros(3), np.ones(3)
    for size in (4, 3, 1):
        x = batch(size)
        norm.step(x)
        m = size * 4
        factor = m / (m - 1) if unbiased else 1.0
        mean = momentum * mean + (1 - momentum) * x.mean((0, 1, 2))
        variance = momentum * variance + (1 - momentum) * x.var((0, 1, 2)) * factor
        np.testing.assert_allclose(norm.averages[0], mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(norm.averages[1], variance, rtol=1e-5, atol=1e-6)


def test_cumulative_averages_are_plain_averages_of_the_first_batches():
    norm = Norm(momentum=0.75, cumulative=True)
    means, expected = [], 0.0
    for step in range(6):
        x = batch()
        norm.step(x)
        means.append(x.mean((0, 1, 2)))
        weight = max(1 / (step + 1), 0.25)
        expected = (1 - weight) * expected + weight * means[-1]
        np.testing.assert_allclose(norm.averages[0], expected, rtol=1e-4, atol=1e-5)
        if step < 4:
            np.testing.assert_allclose(norm.averages[0], np.mean(means, 0), rtol=1e-4, atol=1e-5)
    assert norm.state["norm/count"] == 6


def test_frozen_uses_the_averages_in_training_too_and_updates_nothing():
    norm, x = Norm(frozen=True), batch()
    norm.state["norm/moving_mean"], norm.state["norm/moving_variance"] = [1, 2, 3], [4, 5, 6]
    assert not norm.training.updates and norm.training.same_as(norm.inference)
    got = norm.step(x)["y0"]
    np.testing.assert_allclose(got, normalise(x, norm.gamma, norm.beta, [1, 2, 3], [4, 5, 6]), rtol=1e-4, atol=1e-5)


def test_without_centre_and_scale():
    norm, x = Norm(center=False, scale=False), batch()
    assert set(norm.state) == {"norm/moving_mean", "norm/moving_variance"}
    np.testing.assert_allclose(
        norm.step(x)["y0"], normalise(x, 1.0, 0.0, x.mean((0, 1, 2)), x.var((0, 1, 2))), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("cumulative", [False, True])
def test_a_norm_used_twice_averages_twice_in_order(cumulative):
    norm, x = Norm(uses=2, momentum=0.8, cumulative=cumulative), batch()
    norm.step(x)
    mean = np.zeros(3)
    for count, data in enumerate((x, x * 2)):
        weight = max(1 / (count + 1), 0.2) if cumulative else 0.2
        mean = (1 - weight) * mean + weight * data.mean((0, 1, 2))
    np.testing.assert_allclose(norm.averages[0], mean, rtol=1e-4, atol=1e-5)
    assert len(norm.training.updates) == (3 if cumulative else 2)
    assert not cumulative or norm.state["norm/count"] == 2


def test_optimising_keeps_exactly_one_update_for_each_declared_one():
    norm, x = Norm(uses=2, momentum=0.8), batch()
    optimised = mg.optimize(bind(norm.training, N=4))[0]
    assert [v.label for v in optimised.updates] == [v.label for v in norm.training.updates]
    plain, state = mg.compile(norm.training, optimize=False), norm.state.copy()
    plain(state, x=x)
    norm.step(x)
    np.testing.assert_allclose(norm.averages[0], state["norm/moving_mean"], rtol=1e-6)


def test_over_another_axis():
    x = RNG.normal(size=(4, 3, 2, 2)).astype(np.float32)
    y = layers.BatchNormalization(axis=1, name="norm")(input_((N, 3, 2, 2), name="x"))
    lowered = mg.lower(Graph({"y": y}), "training")
    state = mg.State.initial(lowered.variables)
    got = mg.compile(lowered)(state, x=x)["y"]
    expected = (x - x.mean((0, 2, 3), keepdims=True)) / np.sqrt(x.var((0, 2, 3), keepdims=True) + 1e-3)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state["norm/moving_mean"], 0.01 * x.mean((0, 2, 3)), rtol=1e-4, atol=1e-6)


def test_one_value_for_each_channel_is_refused_with_what_to_do():
    def dense_norm(batch_size):
        return Graph({"y": layers.BatchNormalization(name="norm")(input_((batch_size, 3), name="x"))})

    with pytest.raises(ShapeError, match="more than one value per channel") as caught:
        mg.lower(dense_norm(1), "training")
    assert "frozen" in caught.value.hint and "batch" in caught.value.hint
    mg.lower(dense_norm(1), "inference")
    symbolic = mg.lower(dense_norm(N), "training")
    with pytest.raises(ShapeError, match="more than one value per channel") as caught:
        bind(symbolic, N=1)
    assert caught.value.where.startswith(__file__)
    with pytest.raises(ShapeError, match="more than one value per channel"):
        mg.compile(symbolic)(mg.State.initial(symbolic.variables), x=np.zeros((1, 3)))
    bind(symbolic, N=2)


def test_the_difference_between_the_programs_can_be_looked_at():
    x, v = input_((4, 3), name="x"), [variable((3,), name=n) for n in ("gamma", "beta", "mean", "variance")]
    definition = Graph({"y": Node(BatchNorm(-1, 0.5, Moving(0.5)), (x, *v))})
    inference = graph("""
        %0 = input("x") : float32[4,3]
        %1 = variable("gamma") : float32[3]
        %2 = variable("beta") : float32[3]
        %3 = variable("mean") : float32[3]
        %4 = variable("variance") : float32[3]
        %5 = batch_norm(%0, %1, %2, %3, %4, epsilon=0.5) : float32[4,3]
        return y=%5""")
    assert mg.lower(definition, "inference").same_as(inference)
    training = mg.lower(definition, "training")
    assert [v.label for v in training.updates] == ["mean", "variance"]
    y = training.outputs["y"]
    assert [i.op.name for i in y.inputs] == ["input", "variable", "variable", "item", "item"]
    assert y.op == inference.outputs["y"].op
    verify(training)


def test_provenance_says_which_rule_lowered_which_node():
    norm = Norm()
    old = norm.definition.outputs["y0"]
    for lowered, rule in ((norm.training, "batch_statistics"), (norm.inference, "moving_averages")):
        new = lowered.outputs["y0"]
        assert new.origin.history == ((rule, old.id),) and new.origin.where == old.origin.where
        assert new.origin.scope == "norm"
    for value in norm.training.updates.values():
        assert value.origin.history == (("batch_statistics", old.id),) and value.origin.scope == "norm"


def test_moving_averages_must_be_variables_and_updated_by_nobody_else():
    x, v = input_((4, 3), name="x"), [variable((3,), name=n) for n in "gbmv"]
    op = BatchNorm(-1, 1e-3, Moving())
    with pytest.raises(ArgumentError, match="must be variables"):
        mg.lower(Graph({"y": Node(op, (x, v[0], v[1], -v[2], v[3]))}), "training")
    with pytest.raises(ArgumentError, match="updated elsewhere"):
        mg.lower(Graph({"y": Node(op, (x, *v))}, {v[2]: v[2] + 1.0}), "training")


def test_a_definition_is_neither_run_nor_differentiated():
    norm = Norm()
    with pytest.raises(GraphError, match="different things in training and in inference") as caught:
        mg.compile(norm.definition)
    assert 'mg.lower(graph, "training")' in caught.value.hint and caught.value.where.startswith(__file__)
    with pytest.raises(GradientError, match="statistics are still open"):
        mg.gradients(ops.sum(norm.outputs["y0"]), [norm.definition.inputs[0]])
    with pytest.raises(ArgumentError, match="no such mode"):
        mg.lower(norm.definition, "train")


def test_lowering_a_lowered_graph_changes_nothing():
    norm = Norm()
    for lowered in (norm.training, norm.inference):
        for mode in ("training", "inference"):
            assert mg.lower(lowered, mode).same_as(lowered)


# --- dropout --------------------------------------------------------------------------------------------------------


def dropped(rate=0.5, seed=None, size=20000, lower_seed=0, copies=1):
    x = input_((size,), name="x")
    definition = Graph({f"y{i}": ops.dropout(x, rate, seed) for i in range(copies)})
    lowered = mg.lower(definition, "training", lower_seed)
    return mg.compile(lowered), mg.State.initial(lowered.variables)


def test_dropout_of_nothing_and_in_inference_is_the_identity():
    x = input_((5,), name="x")
    for rate, mode in ((0.0, "training"), (0.9, "inference"), (0.0, "inference")):
        lowered = mg.lower(Graph({"y": ops.dropout(x, rate)}), mode)
        assert lowered.outputs["y"] is x and not lowered.updates and not lowered.variables


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_mask_has_the_rate_and_the_mean_stays(rate):
    program, state = dropped(rate)
    y = program(state, x=np.ones(20000, np.float32))["y0"]
    kept = y != 0
    deviation = np.sqrt(rate * (1 - rate) / y.size)
    assert abs(kept.mean() - (1 - rate)) < 5 * deviation
    np.testing.assert_allclose(y[kept], 1 / (1 - rate), rtol=1e-6)
    assert abs(y.mean() - 1.0) < 5 * deviation / (1 - rate)


def test_the_counter_advances_and_decides_the_mask():
    program, state = dropped()
    ones = np.ones(20000, np.float32)
    assert state[RANDOM_STEP] == 0
    first, second = (program(state, x=ones)["y0"] for _ in range(2))
    assert state[RANDOM_STEP] == 2 and not np.array_equal(first, second)
    state[RANDOM_STEP] = 0
    np.testing.assert_array_equal(program(state, x=ones)["y0"], first)
    # Different steps are independent: they agree about as often as chance has it.
    assert abs(((first == 0) == (second == 0)).mean() - 0.5) < 0.02


def test_different_keys_give_different_masks_and_equal_ones_equal_masks():
    ones = np.ones(20000, np.float32)
    program, state = dropped(copies=2)
    two = program(state, x=ones)
    assert not np.array_equal(two["y0"], two["y1"])
    masks = {}
    for name, options in {"a": {"seed": 1}, "again": {"seed": 1}, "b": {"seed": 2}, "graph": {"lower_seed": 1}}.items():
        program, state = dropped(**options)
        masks[name] = program(state, x=ones)["y0"].tobytes()
    assert masks["a"] == masks["again"] and len(set(masks.values())) == 3


def test_the_gradient_uses_the_forward_mask():
    w = variable((1000,), name="w", init=1.0)
    lowered = mg.lower(Graph({"y": ops.dropout(w, 0.5)}), "training")
    y = lowered.outputs["y"]
    (g,) = mg.gradients(ops.sum(y), [w])
    result = mg.compile({"y": y, "g": g}, lowered.updates)(mg.State.initial(lowered.variables))
    np.testing.assert_array_equal(result["y"], result["g"])


def test_all_dropouts_share_one_counter():
    x = input_((4,), name="x")
    lowered = mg.lower(Graph({"y": ops.dropout(ops.dropout(x, 0.1), 0.2)}), "training")
    counters = [n for n in lowered.variables if n.label == RANDOM_STEP]
    keys = [n.op.key for n in lowered.nodes if isinstance(n.op, RandomUniform)]
    assert len(counters) == 1 and len(set(keys)) == 2 and list(lowered.updates) == counters


def test_dropout_of_a_symbolic_batch_and_of_other_floats():
    for dtype in ("float64", "float16"):
        x = input_((N, 3), dtype, "x")
        lowered = mg.lower(Graph({"y": ops.dropout(x)}), "training")
        assert lowered.outputs["y"].type == x.type
        y = mg.compile(lowered)(mg.State.initial(lowered.variables), x=np.ones((50, 3), dtype))["y"]
        assert set(np.unique(y)) == {0.0, 2.0}


def test_dropouts_lowered_one_after_the_other_have_different_masks():
    x = input_((1000,), name="x")
    first = mg.lower(Graph({"y": ops.dropout(x)}), "training")
    both = mg.lower(Graph({"a": first.outputs["y"], "b": ops.dropout(x)}), "training")
    keys = [n.op.key for n in both.nodes if isinstance(n.op, RandomUniform)]
    assert len(keys) == 2
    assert len(set(keys)) == 2


def test_scopes_of_lowered_nodes():
    x = input_((4, 3), name="x")
    with scope("block"):
        y = ops.dropout(x)
    lowered = mg.lower(Graph({"y": y}), "training")
    assert all(n.origin.scope == "block" for n in lowered.nodes if n is not x and n.label != RANDOM_STEP)
