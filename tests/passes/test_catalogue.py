"""The catalogue: every rule has an equation and an example that it rewrites; every pass is listed, in order."""

from __future__ import annotations

import re

import numpy as np
import pytest

import minigraph as mg
from minigraph import layers, ops
from minigraph.ir import Graph, parse, variable, verify
from minigraph.passes import Trace, pipelines
from minigraph.passes.catalogue import WHOLE, catalogue, example, words
from minigraph.passes.driver import Rule
from minigraph.runtime.optimize import peak_memory
from passes.pictures import same_numbers

# Rules that passes share belong to the pass that is listed first.
RULES = {rule: each for each in reversed(pipelines.rewritings()) for rule in each.rules}
every_rule = pytest.mark.parametrize("rule", list(RULES), ids=lambda rule: rule.__name__)


@pytest.fixture(scope="module")
def text() -> str:
    return catalogue()


def the_example(rule: Rule) -> tuple[Graph, Trace]:
    found = example(rule, RULES[rule])
    assert found is not None, "there is no example in the docstring"
    return found


def test_names_of_rules_are_unique():
    assert len({rule.__name__ for rule in RULES}) == len(RULES) >= 35


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_rule_is_an_equation_and_its_conditions(rule: Rule):
    first, *paragraphs = words(rule).split("\n\n")
    assert " = " in first.splitlines()[0]
    assert sum(each.startswith("When: ") for each in paragraphs) <= 1
    assert all(each.endswith(".") for each in (first, *paragraphs))


@every_rule
def test_the_example_is_a_valid_graph_that_the_rule_rewrites(rule: Rule):
    before, trace = the_example(rule)
    assert parse(str(verify(before))).same_as(before)
    assert {name for name, found in trace.rules.items() if found.hits} == {rule.__name__}
    assert not verify(trace.after).same_as(before)


@every_rule
def test_the_example_keeps_its_numbers(rule: Rule):
    before, trace = the_example(rule)
    proof = trace.verify()
    assert proof.holds, proof
    # Folds round in other places: a fixed tolerance is for float64.
    wide = parse(str(before).replace("float32", "float64"))
    same_numbers(wide, mg.optimize(wide, passes=RULES[rule].name, include=(rule.__name__,))[0])


def flat(text: str) -> str:
    return re.sub(r"^ +", "", text, flags=re.MULTILINE)


@every_rule
def test_the_catalogue_shows_the_rule_and_its_example(rule: Rule, text: str):
    before, trace = the_example(rule)
    shown = [rule.__name__, words(rule), "", f"before:\n{before}", f"after:\n{trace.after}"]
    assert flat("\n".join(shown)) in flat(text)


def test_every_pass_has_a_heading_in_the_order_of_their_names(text: str):
    assert tuple(re.findall(r"^(\w+)\n=+$", text, re.MULTILINE)) == pipelines.NAMES


def test_a_rule_of_two_passes_is_shown_once(text: str):
    assert "transpose_of_transpose: see simplify" in text
    assert text.count("transpose(transpose(x, p), q)") == 1


def test_passes_that_are_not_made_of_rules_are_told_in_a_sentence(text: str):
    assert "  Replace each variable that is not updated by the constant" in text
    assert "  Recorded as batch_statistics, moving_averages, dropout_mask." in text


def small_network() -> Graph:
    with mg.fresh_names():
        x = mg.Input((8,), name="x")
        y = layers.Dense(8)(layers.BatchNormalization()(x))
        y = ops.tanh(layers.Dropout(0.5)(y)) + ops.tanh(y * 1.0)
        return Graph({"y": y * (ops.constant(np.arange(8.0), "float32") + 1.0)})


def long_chain() -> Graph:
    """A gradient for which every value of a chain waits."""
    x = w = mg.variable((64, 64), name="w")
    for _ in range(8):
        x = ops.tanh(x)
    (gradient,) = mg.gradients(ops.sum(x), [w])
    return Graph({"gradient": gradient})


def rounded_twice() -> Graph:
    """Return a product, normalised, of which one reader rounds what the pass has rounded already."""
    image, kernel = variable((2, 4, 4, 3), name="x"), variable((1, 1, 3, 3), name="w")
    vector = variable((3,), name="v")
    y = ops.relu(ops.batch_norm(ops.conv2d(image, kernel), vector, vector, vector, vector))
    return Graph({"y": y, "z": ops.cast(y, "float16")})


def test_passes_record_what_the_catalogue_says():
    chain, definition = long_chain(), small_network()
    state = mg.State.initial(definition.variables)
    runs = [
        (definition, None, "bind(N=2),lower(training),cse,dead_code"),
        (definition, state, "lower(inference),freeze,fold_constants"),
        (chain, None, f"rematerialise({peak_memory(chain) * 3 // 4})"),
        (rounded_twice(), None, "mixed_precision(float16)"),
    ]
    recorded: dict[str, set[str]] = {}
    for graph, numbers, pipeline in runs:
        for step in mg.optimize(graph, numbers, pipeline)[1].steps:
            recorded.setdefault(step.name.partition("(")[0], set()).update(r.rule for r in step.rewrites)
    assert recorded == {name: set(rules) for name, (_, rules) in WHOLE.items() if name not in ("optimize", "program")}
