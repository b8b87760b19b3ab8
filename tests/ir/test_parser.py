"""The parser against texts that are wrong: it returns a graph, or raises a ModelFormatError that names the line."""

from __future__ import annotations

import contextlib
import random
import re
import subprocess
import sys
import time

import pytest

from ir.random_graphs import definition
from ir.test_text import golden_graph
from minigraph import ops
from minigraph.errors import ModelFormatError
from minigraph.ir import OPS, Graph, parse
from minigraph.ir.leaves import input as input_
from minigraph.ir.parser import parse_value
from minigraph.passes import FUSE, run
from minigraph.runtime import compile

HEAD = 'graph {\n  %0 = input("x") : float32[2,3]\n'  # what follows stands on line 3
FUNCTION = (
    'function(%0, "F", body=(step(op=relu(), inputs=(0,)),), attributes=(("a", 1),), slots=(0,), results=(1,)) '
    ": float32[2,3]  return y=%1 }"
)
STEP = "fused(%0, body=(step(op=relu(), inputs=(0,)),)) : float32[2,3]  return y=%1 }"
ALPHABET = '%0123456789=()[]{},:@*"\\<-#.eE \n\tabcxyzNinfnantruenonegraphreturnupdateβ🙂\x00'


def survives(text: str) -> bool:
    """Parse; tell whether it is a graph, which must print and read back. Anything but a ModelFormatError is raised."""
    try:
        graph = parse(text)
    except ModelFormatError:
        return False
    assert parse(str(graph)).same_as(graph) or "nan" in text
    return True


def corpus() -> list[str]:
    made = [definition(random.Random(seed)) for seed in range(40)]
    fused = [str(run([FUSE], g)[0]) for g in made[:20]]
    return [str(golden_graph()), *map(str, made), *fused, *[str(with_function())] * 5]


def with_function() -> Graph:
    """A function of several results, with a tuple op, its items, constants and attributes of all kinds."""
    x = input_((2, 3), name="x")
    mean, variance = ops.moments(x, 1)
    results = [ops.relu(x) * ops.constant([0.5, float("nan"), 2.0], "float32"), ops.where(mean < 0.0, mean, variance)]
    attributes = [("axis", -1), ("mode", "a"), ("scales", (1.0, 2.5)), ("none", None)]
    return Graph({str(i): y for i, y in enumerate(ops.function("Norm", [x], results, attributes, [0, -1]))})


def mutated(rng: random.Random, text: str) -> str:
    """Return the text with one to three characters or pieces changed, cut, doubled or moved."""
    for _ in range(rng.randint(1, 3)):
        at, length = rng.randrange(len(text) + 1), rng.choice([1, 1, 2, 8, 40])
        piece = text[at : at + length]
        kind = rng.randrange(6)
        if kind == 0:
            text = text[:at] + rng.choice(ALPHABET) + text[at + 1 :]
        elif kind == 1:
            text = text[:at] + text[at + length :]
        elif kind == 2:
            text = text[:at] + piece * 2 + text[at + length :]
        elif kind == 3:
            other = rng.randrange(len(text) + 1)
            text = text[:other] + piece + text[other:]
        elif kind == 4:
            text = text[:at] + rng.choice(ALPHABET) * rng.choice([1, 2, 30]) + text[at:]
        else:
            data = bytearray(text.encode())
            if data:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            text = data.decode(errors="replace")
    return text


def shuffled(rng: random.Random, text: str) -> str:
    """Return the text with two tokens exchanged, or one replaced by another."""
    pieces = re.findall(r'"(?:[^"\\\n]|\\.)*"|%[0-9]+|[A-Za-z_0-9.+-]+|\s+|.', text)
    a, b = (rng.randrange(len(pieces)) for _ in range(2))
    if rng.random() < 0.5:
        pieces[a], pieces[b] = pieces[b], pieces[a]
    else:
        pieces[a] = pieces[b]
    return "".join(pieces)


def attack(change, count: int, seed: int) -> None:
    rng, texts = random.Random(seed), corpus()
    good = sum(survives(change(rng, rng.choice(texts))) for _ in range(count))
    assert 0 < good < count  # the changes are neither all harmless nor all fatal


def test_mutations_of_characters_and_bytes():
    attack(mutated, 1200, seed=1)


def test_exchanged_tokens():
    attack(shuffled, 700, seed=2)


def test_truncations():
    for text in corpus()[:12]:
        for end in range(0, len(text), max(1, len(text) // 25)):
            assert not survives(text[:end])


@pytest.mark.slow
@pytest.mark.parametrize("change", [mutated, shuffled])
@pytest.mark.parametrize("seed", range(10))
def test_many_more_changes(change, seed):
    attack(change, 5000, seed + 100)


def test_the_texts_that_steps_are_spoilt_in_would_be_right():
    assert parse(step("", "")).outputs["y"].op.name == "fused"
    assert parse(inside(", slots", ", slots")).outputs["y"].op.name == "function"


def test_a_message_for_every_text_that_is_no_string():
    for bad in (None, 5, b"graph {}", ["graph"]):
        with pytest.raises(ModelFormatError, match="text is a string"):
            parse(bad)


def inside(right: str, wrong: str) -> str:
    """Return the text of a function with something wrong in it."""
    assert right in FUNCTION
    return f"{HEAD}  %1 = {FUNCTION}".replace(right, wrong)


def step(right: str, wrong: str) -> str:
    """Return the text of a region with something wrong in its step."""
    return f"{HEAD}  %1 = {STEP}".replace(right, wrong)


REFUSED = {
    "nothing": ("", 1, "'graph'"),
    "another language": ("import os", 1, "'graph'"),
    "no end": (HEAD + "  return y=%0", 3, "'}'"),
    "text after the end": (HEAD + "  return y=%0 } x", 3, "the end of the text"),
    "a character of no token": (HEAD + "  %1 = neg(%0) ; float32[2,3]\n}", 3, "unexpected character"),
    "an open string": (HEAD + '  %1 = input("z : float32[2]\n}', 3, "unexpected character"),
    "an unknown op": (HEAD + "  %1 = os.system(%0) : float32[2,3]\n}", 3, "unexpected character"),
    "an unknown op's name": (HEAD + "  %1 = __import__(%0) : float32[2,3]\n}", 3, "unknown op '__import__'"),
    "an unknown attribute type": (HEAD + "  %1 = dropout(%0, rate=Popen(x=1)) : float32[2,3]\n}", 3, "bad syntax"),
    "an unknown dtype": (HEAD + "  %1 = neg(%0) : object[2,3]\n}", 3, "a dtype: bool"),
    "a name used twice": (HEAD + "  %0 = neg(%0) : float32[2,3]\n}", 3, "%0 is defined already"),
    "a forward reference": (HEAD + "  %1 = neg(%2) : float32[2,3]\n  %2 = neg(%0) : float32[2,3]\n}", 3, "used before"),
    "itself as operand": (HEAD + "  %1 = neg(%1) : float32[2,3]\n}", 3, "%1 is used before it is defined"),
    "a huge integer": (HEAD + f"  %1 = reshape(%0, shape=({'9' * 5000},)) : float32[6]\n}}", 3, "64 bits"),
    "a huge size": (HEAD + '  %1 = input("z") : float32[281474976710656]\n}', 3, "2^48"),
    "a negative size": (HEAD + '  %1 = input("z") : float32[-1]\n}', 3, "0 to 2^48"),
    "a fraction as size": (HEAD + '  %1 = input("z") : float32[2.0]\n}', 3, "0 to 2^48"),
    "many axes": (HEAD + f'  %1 = input("z") : float32[{",".join("1" * 33)}]\n}}', 3, "at most 32 axes"),
    "deep nesting": (HEAD + f"  %1 = pad(%0, padding={'(' * 40}) : float32[2,3]\n}}", 3, "32 nested values"),
    "nested tuple types": (HEAD + "  %1 = neg(%0) : ((float32[2]))\n}", 3, "a tensor type"),
    "operands of a leaf": (HEAD + '  %1 = input(%0, "z") : float32[2]  return y=%1 }', 3, "wrong number of operands"),
    "no operand": (HEAD + "  %1 = neg() : float32[2,3]  return y=%1 }", 3, "wrong number of operands"),
    "a type that is not inferred": (HEAD + "  %1 = neg(%0) : float32[3,2]  return y=%1 }", 3, "not the inferred one"),
    "a shape that does not fit": (
        HEAD + "  %1 = reshape(%0, shape=(7,)) : float32[7]  return y=%1 }", 3, "number of elements",
    ),
    "a bad attribute": (HEAD + "  %1 = dropout(%0, rate=5) : float32[2,3]  return y=%1 }", 3, "0 ≤ rate < 1"),
    "a constant that is too large": ('graph { %0 = constant(300) : int8[] return y=%0 }', 1, "does not fit the dtype"),
    "a constant below 0": ('graph { %0 = constant(-1) : uint64[] return y=%0 }', 1, "does not fit the dtype"),
    "a constant beyond 64 bits": (
        'graph { %0 = constant(18446744073709551616) : uint64[] return y=%0 }', 1, "does not fit the dtype",
    ),
    "a constant that is a fraction": (
        'graph { %0 = constant(0.5) : int8[] return y=%0 }', 1, "a fraction meets integers",
    ),
    "a constant of an open size": ('graph { %0 = constant(1) : int8[N] return y=%0 }', 1, "symbolic size N"),
    "a constant of 2^40 numbers": ('graph { %0 = constant(1) : int8[1099511627776] return y=%0 }', 1, ""),
    "bytes of the wrong length": ('graph { %0 = constant(base64"AAAA") : int8[4] return y=%0 }', 1, "bytes do not fit"),
    "bytes that are no base64": ('graph { %0 = constant(base64"AAA") : int8[2] return y=%0 }', 1, "padding"),
    "two inputs of one name": (HEAD + '  %1 = input("x") : int8[]  return y=%1 }', 3, "two inputs are called 'x'"),
    "an update of an input": (HEAD + "  update %0 <- %0 }", 3, "only a variable can be updated"),
    "an update of another type": (
        HEAD + '  %1 = variable("w") : float32[3]  update %1 <- %0 }', 3, "does not have the variable's type",
    ),
    "a name that is not printable": (HEAD + '  %1 = input("a\\u0007") : int8[] }', 3, "printable"),
    "a string with a bad escape": (HEAD + '  %1 = input("\\q") : int8[] }', 3, "escape"),
    "a region without steps": (HEAD + "  %1 = fused(%0, body=()) : float32[2,3]\n}", 3, "needs steps"),
    "a region of numbers": (HEAD + "  %1 = fused(%0, body=(1, 2)) : float32[2,3]\n}", 3, "needs steps"),
    "a region of an op": (HEAD + "  %1 = fused(%0, body=(relu(),)) : float32[2,3]\n}", 3, "needs steps"),
    "a region that is a number": (HEAD + "  %1 = fused(%0, body=7) : float32[2,3]\n}", 3, ""),
    "a step without an op": (step("op=relu(), ", ""), 3, "missing"),
    "a step with a word for an op": (step("relu()", "relu"), 3, "not an op"),
    "a step with a string for an op": (step("relu()", '"relu"'), 3, "an op"),
    "a step with an unknown op": (step("relu", "exec"), 3, "bad syntax"),
    "a step with an input": (step("relu()", 'input("z")'), 3, ""),
    "a step with a constant": (step("relu()", "constant(1)"), 3, "a constant holds one value"),
    "a step with an operand": (step("relu()", "relu(%0)"), 3, "attributes only"),
    "a step with a bad attribute": (step("relu()", "relu(alpha=1)"), 3, "no such attribute"),
    "a step with an attribute of the wrong kind": (
        step("relu()", "leaky_relu(alpha=none)"), 3, "wrong kind of value",
    ),
    "a step of an item": (step("relu()", "item(index=0)"), 3, "only a tuple has items"),
    "a step that is a region": (step("relu()", "fused()"), 3, "not an op for the inside"),
    "a step by position": (step("op=relu()", "relu()"), 3, "field=value only"),
    "a step that reads itself": (step("(0,)", "(1,)"), 3, "reads each"),
    "a step that reads what comes later": (
        step("inputs=(0,))", "inputs=(1,)), step(op=relu(), inputs=(0,))"), 3, "comes later",
    ),
    "a step that reads before the start": (step("(0,)", "(-1,)"), 3, "bad inputs"),
    "a step that reads a truth": (step("(0,)", "(false,)"), 3, "bad inputs"),
    "a step that reads a size": (step("(0,)", "(N,)"), 3, "bad inputs"),
    "a step that reads a list": (step("(0,)", "[0]"), 3, "bad inputs"),
    "a step that reduces": (step("relu()", "sum(axes=(0,))"), 3, "works element by element"),
    "regions in regions in regions": (
        step("relu()", "fused(body=(step(op=" * 50 + "relu()" + "),))" * 50), 3, "nested",
    ),
    "a function without a name": (inside('"F", ', ""), 3, "not a name"),
    "a function with an empty name": (inside('"F"', '""'), 3, "not a name"),
    "a function with two names": (inside('"F"', '"F", "G"'), 3, "no such attribute"),
    "a function with a number for a name": (inside('"F"', "7"), 3, "wrong kind of value"),
    "a function with a long name": (inside('"F"', f'"{"a" * 201}"'), 3, "not a name"),
    "a function without steps": (inside("(step(op=relu(), inputs=(0,)),)", "()"), 3, "needs steps"),
    "a function whose body is a number": (inside("(step(op=relu(), inputs=(0,)),)", "7"), 3, "needs steps"),
    "a function whose body is a list": (inside("(step(op=relu(), inputs=(0,)),)", "[1]"), 3, "needs steps"),
    "a function in a function": (
        inside("relu()", 'function("G", body=(step(op=relu(), inputs=(0,)),))'), 3, "an op with attributes only",
    ),
    "a nameless function in a function": (inside("relu()", "function()"), 3, "not a name"),
    "a function in a function by name": (
        inside("relu()", 'function(label="G", body=(step(op=relu(), inputs=(0,)),))'), 3, "not an op for the inside",
    ),
    "a region in a function": (
        inside("relu()", "fused(body=(step(op=relu(), inputs=(0,)),))"), 3, "not an op for the inside",
    ),
    "functions in functions in functions": (
        inside("relu()", 'function(label="G", body=(step(op=' * 50 + "relu()" + "),))" * 50), 3, "nested",
    ),
    "a function with a dropout": (inside("relu()", "dropout(rate=0.5)"), 3, "is open"),
    "a function with an open batch norm": (
        inside("relu(), inputs=(0,)", "batch_norm(moving=moving()), inputs=(0, 0, 0, 0, 0)"), 3, "step 0, batch_norm",
    ),
    "a function with a variable": (inside("relu()", 'variable("w")'), 3, "an op with attributes only"),
    "a function that reads itself": (inside("inputs=(0,)", "inputs=(1,)"), 3, "comes later"),
    "a function that reads what is not there": (inside("inputs=(0,)", "inputs=(9999999999,)"), 3, "comes later"),
    "a function that reads before the start": (inside("inputs=(0,)", "inputs=(-1,)"), 3, "bad inputs"),
    "a step with too many operands": (inside("inputs=(0,)", "inputs=(0, 0)"), 3, "step 0, relu: wrong number"),
    "a step with too few operands": (inside("inputs=(0,)", "inputs=()"), 3, "step 0, relu: wrong number"),
    "a result that is not there": (inside("results=(1,)", "results=(2,)"), 3, "a result of nothing"),
    "a result far away": (inside("results=(1,)", "results=(18446744073709551615,)"), 3, "a result of nothing"),
    "a result before the start": (inside("results=(1,)", "results=(-1,)"), 3, "bad results"),
    "a result that is a truth": (inside("results=(1,)", "results=(true,)"), 3, "wrong kind"),
    "results that are a number": (inside("results=(1,)", "results=1"), 3, "wrong kind"),
    "a result that is a tuple": (inside("relu()", "moments(axes=(1,))"), 3, "is a tuple"),
    "several results of one type": (inside("results=(1,)", "results=(1, 0)"), 3, "not the inferred one"),
    "a result of another type": (inside("relu()", "sum(axes=(0,))"), 3, "not the inferred one"),
    "a slot that is not there": (inside("slots=(0,)", "slots=(0, 1)"), 3, "a slot of nothing"),
    "a slot of −2": (inside("slots=(0,)", "slots=(-2,)"), 3, "bad slots"),
    "a slot that is a size": (inside("slots=(0,)", "slots=(N,)"), 3, "wrong kind"),
    "attributes that are a number": (inside('(("a", 1),)', "7"), 3, "bad attributes"),
    "attributes that are no pairs": (inside('(("a", 1),)', '("a", 1)'), 3, "bad attributes"),
    "an attribute without a name": (inside('(("a", 1),)', "((1, 1),)"), 3, "bad attributes"),
    "an attribute that is a list": (inside('("a", 1)', '("a", [1])'), 3, "bad attributes"),
    "an attribute that is bytes": (inside('("a", 1)', '("a", base64"AAAA")'), 3, "bad attributes"),
    "an attribute that is an op": (inside('("a", 1)', '("a", relu())'), 3, "bad attributes"),
    "an attribute that is a step": (inside('("a", 1)', '("a", step(op=relu(), inputs=(0,)))'), 3, "bad attributes"),
    "an attribute that is a type": (inside('("a", 1)', '("a", float32[2])'), 3, "bad attributes"),
    "an attribute of more than 64 bits": (inside('("a", 1)', '("a", 18446744073709551616)'), 3, "bad attributes"),
    "an attribute nested deeply": (inside('("a", 1)', f'("a", {"(" * 40}'), 3, "nested"),
    "a constant of no type inside": (inside("relu()", "constant(1)"), 3, "a constant holds one value"),
    "a constant of no real type inside": (inside("relu()", "constant(1, type=(1, 2))"), 3, "a constant holds one"),
    "a constant of an open size inside": (inside("relu()", "constant(1, type=float32[N])"), 3, "symbolic size"),
    "a constant too large inside": (inside("relu()", "constant(1, type=float32[281474976710655])"), 3, "too large"),
    "bytes of the wrong length inside": (
        inside("relu()", 'constant(base64"AAAA", type=float32[2])'), 3, "bytes do not fit",
    ),
    "a constant that reads something inside": (
        inside("relu()", "constant(1, type=float32[2,3])"), 3, "step 0, constant: wrong number",
    ),
    "a type twice inside": (
        inside("relu()", "constant(1, type=float32[2], type=float32[2])"), 3, "one value of type",
    ),
    "an op where a number should be": (HEAD + "  %1 = softmax(%0, axis=relu()) : float32[2,3]\n}", 3, "wrong kind"),
    "an op where a shape should be": (HEAD + "  %1 = reshape(%0, shape=relu()) : float32[6]\n}", 3, "wrong kind"),
    "an op as a first value": ('graph {\n\n%0 = variable("w", init=relu()) : float32[2] return y=%0 }', 3, ""),
    "a step as a first value": (
        'graph {\n\n%0 = variable("w", init=step(op=relu(), inputs=())) : float32[2] return y=%0 }', 3, "",
    ),
    "no output's name": (HEAD + "  return %0 }", 3, "an output's name"),
    "an output that is not there": (HEAD + "  return y=%7 }", 3, "%7 is used before it is defined"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_hostile_texts_are_refused_with_line_and_reason(case):
    text, line, reason = REFUSED[case]
    with pytest.raises(ModelFormatError) as caught:
        parse(text)
    if reason:
        assert caught.value.summary.startswith(f"line {line}:"), caught.value.summary
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 6000


@pytest.mark.parametrize(
    "text", ["(1, 2", "1 2", "(", "x(", "moving(momentum=2)", "moving(1)", "", "moving(nothing=1)"]
)
def test_a_bad_value(text):
    with pytest.raises(ModelFormatError):
        parse_value(text)


@pytest.mark.parametrize("rest", [
    "sum(%0, axes=(-1,), keepdims=true) : float32[2,1]",
    "moments(%0, axes=(-1,)) : (float32[2], float32[2])  %2 = item(%1, index=0) : float32[2]",
])  # fmt: skip
def test_negative_axes_are_refused_or_work(rest):
    text = HEAD + f"  %1 = {rest}  return y=%{2 if '%2' in rest else 1} }}"
    try:
        graph = parse(text)
    except ModelFormatError:
        return
    compile(graph)(x=[[1, 2, 3], [4, 5, 6]])


@pytest.mark.parametrize("rest", [
    "return y=%0, y=%1 }",
    "return y=%0 update %1 <- %0 update %1 <- %1 }",
])  # fmt: skip
def test_an_output_or_update_given_twice(rest):
    with pytest.raises(ModelFormatError):
        parse(HEAD + f'  %1 = variable("w") : float32[2,3] {rest}')


@pytest.mark.parametrize("text", ['%0 = input("x") : float32[true]', '%0 = input("x") : float32[2*none]'])
def test_literals_as_sizes(text):
    with pytest.raises(ModelFormatError):
        parse(f"graph {{ {text} return y=%0 }}")


def test_deeply_nested_types():
    with pytest.raises(ModelFormatError):
        parse(HEAD + "  %1 = neg(%0) : " + "(" * 100_000)


@pytest.mark.parametrize("rest", [
    "  %1 = neg(%0) : float32[3,2]\n\n  return y=%1\n}",
    "  %1 = reshape(%0, shape=(7,)) : float32[7]\n  return y=%1\n}",
    "  return y=%9\n}",
])  # fmt: skip
def test_the_line_of_a_fault_at_the_end_of_its_line(rest):
    with pytest.raises(ModelFormatError, match="line 3:"):
        parse(HEAD + rest)


@pytest.mark.parametrize("rest", ["neg(%0, foo=1)", "softmax(%0, axis=1.0)", "dropout(%0, rate=N)", "constant([1, 2])"])
def test_the_line_of_an_attribute_that_does_not_exist_or_is_of_the_wrong_kind(rest):
    with pytest.raises(ModelFormatError, match="line 3:"):
        parse(HEAD + f"  %1 = {rest} : float32[2,3]  return y=%1 }}")


@pytest.mark.parametrize("rest", [
    "transpose(%0, axes=[1, 0]) : float32[3,2]",
    "transpose(%0, axes=(true, false)) : float32[3,2]",
    'dropout(%0, seed=base64"AAAA") : float32[2,3]',
    "dropout(%0, seed=N) : float32[2,3]",
])  # fmt: skip
def test_attributes_of_the_wrong_kind_are_refused(rest):
    with pytest.raises(ModelFormatError):
        parse(HEAD + f"  %1 = {rest}  return y=%1 }}")


@pytest.mark.parametrize("label", ["", "a" * 201])
def test_labels_obey_the_rule_for_names(label):
    with pytest.raises(ModelFormatError):
        parse(f'graph {{ %0 = input("{label}") : float32[2] return y=%0 }}')


@pytest.mark.parametrize("text", [
    'graph { %0 = input("x") : (float32[2], float32[2]) return y=%0 }',
    'graph { %0 = variable("w", init="zeros") : float32[2] return y=%0 }',
    'graph { %0 = variable("w", init=(1, 2)) : float32[2] return y=%0 }',
    'graph { %0 = variable("w", regularizer=5) : float32[2] return y=%0 }',
    'graph { %0 = variable("w", init=sgd()) : float32[2] return y=%0 }',
])  # fmt: skip
def test_leaves_of_the_wrong_kind(text):
    with pytest.raises(ModelFormatError):
        parse(text)


def test_a_declared_size_is_not_believed():
    import tracemalloc

    tracemalloc.start()
    try:
        with contextlib.suppress(ModelFormatError):
            parse("graph { %0 = constant(1.5) : float64[67108864] return y=%0 }")
        assert tracemalloc.get_traced_memory()[1] < 1 << 28
    finally:
        tracemalloc.stop()


def test_a_body_of_many_steps_takes_time_in_proportion():
    body = ", ".join(f"step(op=relu(), inputs=({i},))" for i in range(5_000))
    text = f'{HEAD} %1 = function(%0, "F", body=({body}), results=(5000,)) : float32[2,3] return y=%1 }}'
    start = time.process_time()
    made = parse(text).outputs["y"]
    assert len(made.op.body) == 5_000
    with pytest.raises(ModelFormatError, match="not the inferred one") as caught:
        parse(text.replace(": float32[2,3] return", ": float32[3,3] return"))
    with pytest.raises(ModelFormatError, match="a result of nothing") as far:
        parse(text.replace("(5000,)", f"({', '.join(['5001'] * 5_000)})"))
    assert time.process_time() - start < 10
    assert max(len(str(caught.value)), len(str(far.value))) < 2000


def test_long_products_of_symbols():
    start = time.process_time()
    with pytest.raises(ModelFormatError, match="factors"):
        parse(f'graph {{ %0 = input("x") : float32[{"*".join("N" * 8000)}] return y=%0 }}')
    assert time.process_time() - start < 0.1


def test_every_op_and_attribute_is_known_after_the_import_alone() -> None:
    """What a pass makes can be read where no pass was imported."""
    code = "import minigraph; from minigraph.ir.op import OPS, ATTRIBUTES; print(*sorted(OPS), *sorted(ATTRIBUTES))"
    alone = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    ours = {name for name, op in OPS.items() if op.__module__.startswith("minigraph.")}
    assert ours | {"step", "moving"} <= set(alone)
